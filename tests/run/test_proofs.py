"""Whole runs that ask sources which sign, and what anybody can verify of them afterwards."""

import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from hashlib import sha256, sha512, shake_256
from pathlib import Path
from typing import TypeAlias

import httpx2 as httpx
import py_arkworks_bls12381 as curve
import pytest
from anyio import to_thread

from pipeline.audit.proofs import ProofCheck, look_at_proofs
from pipeline.sandbox.rsa import CERTIFICATE, MODULUS
from pipeline.sandbox.server import Sandbox, serving
from pipeline.settings import Settings, StoreSettings
from pipeline.sources.proofs import numbers_of
from pipeline.store.numbers import digest_of, pack
from pipeline.store.proofs import Proved
from tests.processes import Home, check_invariants, homes
from tests.sources.samples import answer_of, fetch_of
from tests.sources.test_nist_beacon import adapter, signed
from tests.store.histories import tamper

Row: TypeAlias = dict[str, str]

DRAND = """
[sources.quick]
kind = "sandbox.drand_quicknet"
min = 1
max = 6
batches = [3, 20]
[sources.slow]
kind = "sandbox.drand_default"
batches = [5]
"""
# As the sandbox's /info gives them: what somebody else would have to find out, and to trust.
QUICK_KEY = (
    "8a365a3125c301e10f9de28785635b5ba4ef594297683c59c44dd3704bc582a9c3261bb69c52da1d8ac9dc0a4a5ce4d5"
    "09da69d6119d7422e12d1f9b37c5cc2402d9f0d8c877afb98a3a26ada03fad9017483a5831997f4512b6aca2428926fd"
)
SLOW_KEY = (
    "a606210399dac97f68d9c709de11cc7a86fc2665122f87e5"
    "2cfb590b0374b5743bdbaa7b0d10e6a1ff11f46388c9de82"
)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Give a home to the processes that a test starts."""
    with homes(tmp_path, ["home"]) as made:
        yield made["home"]


@pytest.fixture
def collected(home: Home) -> Home:
    """Ask both chains of drand once."""
    home.config.write_text(DRAND)
    ended = home.run("collect")
    assert (ended.code, ended.err) == (0, "")
    return home


def is_signed_by_drand(row: Row) -> bool:
    """Verify a round with nothing of ours: the pairing of the one side equals that of the other."""
    message = sha256(bytes.fromhex(row["message"])).digest()
    signature = bytes.fromhex(row["signature"])
    tag = b"BLS_SIG_BLS12381G%d_XMD:SHA-256_SSWU_RO_NUL_"
    one, two, pairing = curve.G1Point, curve.G2Point, curve.GT.pairing
    if row["scheme"] == "bls-unchained-g1-rfc9380":
        large = two.from_compressed_bytes(bytes.fromhex(QUICK_KEY))
        left = pairing(one.from_compressed_bytes(signature), two())
        return left == pairing(one.hash_to_curve(message, tag % 1), large)
    small = one.from_compressed_bytes(bytes.fromhex(SLOW_KEY))
    left = pairing(one(), two.from_compressed_bytes(signature))
    return left == pairing(small, two.hash_to_curve(message, tag % 2))


def draw(value: bytes, row: Row) -> list[int]:
    """Draw the numbers of a batch as the manual says; these ranges take a byte each."""
    low, span = int(row["min"]), int(row["max"]) - int(row["min"]) + 1
    stream = shake_256(value + f"{row['run_id']}/{row['batch']}".encode()).digest(1000)
    kept = [low + byte % span for byte in stream if byte < 256 - 256 % span]
    return kept[: int(row["n"])]


def exported(home: Home, what: str) -> list[Row]:
    """Read an export."""
    ended = home.run("export", what)
    assert (ended.code, ended.err) == (0, "")
    return list(csv.DictReader(ended.out.splitlines()))


def numbers_by_batch(home: Home) -> dict[tuple[str, str], list[int]]:
    """Read the numbers of all batches from an export."""
    found: dict[tuple[str, str], list[int]] = {}
    for row in exported(home, "numbers"):
        found.setdefault((row["run_id"], row["batch"]), []).append(int(row["value"]))
    return found


def test_what_drand_signed_is_verified_by_others(collected: Home) -> None:
    """From two exports, with hashes, a curve, and the keys."""
    proofs, numbers = exported(collected, "proofs"), numbers_by_batch(collected)

    assert [row["batch"] for row in proofs] == ["w0", "w1", "w2"]
    for row in proofs:
        assert (row["word"], row["is_expanded"]) == ("verified", "true")
        assert is_signed_by_drand(row)
        assert int(row["message"][-16:], 16) == int(row["serial"])
        value = sha256(bytes.fromhex(row["signature"])).digest()
        assert numbers[row["run_id"], row["batch"]] == draw(value, row)
    forged = {**proofs[0], "message": f"{int(proofs[0]['serial']) + 1:016x}"}
    assert not is_signed_by_drand(forged)  # else all of the above would say nothing


def test_proofs_are_verified_again_without_asking_anybody(collected: Home) -> None:
    """Each word is counted for itself."""
    text = collected.run("audit", "verify", "--proofs")
    found = collected.run("audit", "verify", "--proofs", "--format", "json")
    shown = collected.run("audit", "show", "1")

    assert text.code == 0
    assert (
        "Proofs, by 3 batches: 3 verified, 0 chained, 0 signed, not verifiable, 0 unsigned."
        in text.out
    )
    assert json.loads(found.out)["proofs"] == {
        "verified": 3,
        "chained": 0,
        "not_verifiable": 0,
        "unsigned": 0,
    }
    assert "from which each batch drew its own numbers; verified." in shown.out
    check_invariants(collected.database)


def flip(column: str) -> str:
    """Change the last bits of what the proof of attempt 1 says in *column*."""
    bits = f"substr({column}, 1, length({column}) - 1) || x'00'"
    return f"UPDATE proofs SET {column} = CAST({bits} AS BLOB) WHERE fetch = 0"


def settings_of(database: Path) -> Settings:
    """Name a store, and no source."""
    return Settings(store=StoreSettings(url=f"sqlite:///{database}"), sources={})


CHANGES = {
    flip("message"): "is not what was signed",
    flip("signature"): "does not verify",
    "UPDATE proofs SET serial = serial + 1 WHERE fetch = 0": "is not what was signed",
    "UPDATE batches SET digest = zeroblob(32) WHERE number = 1": "do not follow from its proof",
    "UPDATE proofs SET key_id = 'none'": "no chain none is known here",
    "UPDATE proofs SET scheme = 'none'": "no scheme 'none' is known",
}


def test_one_changed_digit_is_found(collected: Home, tmp_path: Path) -> None:
    """By the proof itself, whatever the chain of seals says; and by the chain."""
    for statement, says in CHANGES.items():
        copy = tmp_path / "copy.db"
        shutil.copy(collected.database, copy)
        tamper(copy, statement)
        found = look_at_proofs(settings_of(copy))
        assert says in found.problems[0].text, statement
    tamper(collected.database, flip("signature"))

    ended = collected.run("audit", "verify", "--proofs")

    assert ended.code == 74
    assert "its batches, its attempts or their answers were changed" in ended.err
    assert "does not verify" in ended.err


def test_a_signature_that_is_wrong_is_an_error_of_its_own(home: Home) -> None:
    """The upstream's, and nothing is collected."""
    home.config.write_text(f'{DRAND}[sandbox]\nfaults = ["bad_signature"]\n')

    ended = home.run("collect")

    assert ended.code == 4
    assert "3 unproven" in ended.err
    assert home.rows("SELECT DISTINCT error, phase FROM attempts") == [("unproven", "check")]
    assert home.rows("SELECT DISTINCT whose FROM failed_attempts") == [("upstream",)]
    assert home.rows("SELECT count(*) FROM proofs") == [(0,)]
    replayed = home.run("audit", "replay")
    assert "2 unchanged" in replayed.out


def test_without_numbers_no_proof_is_kept(home: Home) -> None:
    """It would give them away."""
    home.config.write_text(f"{DRAND}[store]\nkeep_numbers = false\n")

    assert home.run("collect").code == 0

    assert home.rows("SELECT count(*) FROM proofs") == [(0,)]
    assert "3 unsigned" in home.run("audit", "verify", "--proofs").out


def test_without_the_package_it_says_what_to_install(collected: Home) -> None:
    """Nothing that is not known is said."""
    (collected.folder / "sitecustomize.py").write_text(
        "import sys\nsys.modules['py_arkworks_bls12381'] = None\n"
    )
    path = f"{collected.folder}:{collected.environment['PYTHONPATH']}"

    ended = collected.run("audit", "verify", "--proofs", env={"PYTHONPATH": path})

    assert ended.code == 0
    assert "0 verified, 0 chained, 3 signed, not verifiable, 0 unsigned." in ended.out
    assert "install cryptography py-arkworks-bls12381" in ended.out


SIGNED = """
[sources.org]
kind = "sandbox.random_org_signed"
min = 1
max = 6
batches = [3, 20]
"""


KEY = "00000000-0000-4000-8000-000000000000"


def usage_of(sandbox: Sandbox) -> dict[str, int]:
    """Ask what has been paid in all."""
    call = {"jsonrpc": "2.0", "method": "getUsage", "params": {"apiKey": KEY}, "id": 1}
    url = f"{sandbox.url('random_org_signed')}/json-rpc/4/invoke"
    answer = httpx.post(url, json=call, trust_env=False).json()
    found: dict[str, int] = answer["result"]
    return found


def is_signed_by_random_org(row: Row) -> bool:
    """Verify PKCS #1 v1.5 with one power and the bytes of RFC 8017, and nothing of ours."""
    ending = "00" + "3051300d060960864801650304020305000440"
    ending += sha512(bytes.fromhex(row["message"])).hexdigest()
    padded = "0001" + "f" * (1024 - 4 - len(ending)) + ending
    return f"{pow(int(row['signature'], 16), 65537, MODULUS):01024x}" == padded


def test_what_random_org_signed_is_verified_by_others(home: Home) -> None:
    """Its numbers stand in what was signed, one batch after the other."""
    home.config.write_text(SIGNED)
    assert home.run("collect").code == 0

    proofs, numbers = exported(home, "proofs"), numbers_by_batch(home)

    assert [row["batch"] for row in proofs] == ["w0", "w1"]
    for row in proofs:
        assert (row["word"], row["is_expanded"]) == ("verified", "false")
        assert is_signed_by_random_org(row)
        signed = json.loads(bytes.fromhex(row["message"]))
        begin, n = int(row["offset"]), int(row["n"])
        assert numbers["1", row["batch"]] == signed["data"][begin : begin + n]
    forged = {**proofs[0], "message": proofs[0]["message"].replace("31", "32", 1)}
    assert not is_signed_by_random_org(forged)
    assert "2 verified" in home.run("audit", "verify", "--proofs").out


LOSSES = {
    "lost": "incomplete",
    "truncated": "incomplete",
    "latency=30": "read_timeout",
}


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("fault", LOSSES)
async def test_an_answer_that_was_lost_is_fetched_again_and_not_paid_twice(
    home: Home, fault: str
) -> None:
    """By its number, which follows on that of the newest answer that is known."""
    async with serving() as sandbox:
        kind = "random_org_signed"

        def order(*faults: str, seconds: float = 5) -> None:
            home.config.write_text(
                f'[sources.org]\nkind = "{kind}"\nurl = "{sandbox.url(kind, *faults)}"\n'
                f'api_key_env = "SIGNED_KEY"\nmin = 1\nmax = 6\nbatches = [3, 20]\n'
                f"backoff_seconds = 0.01\nattempt_seconds = {seconds}\n"
            )

        collect = partial(home.run, "collect", env={"SIGNED_KEY": KEY})
        order()
        assert (await to_thread.run_sync(collect)).code == 0
        order("fail_first=1", fault, seconds=2 if "latency" in fault else 5)
        ended = await to_thread.run_sync(collect)
        usage = await to_thread.run_sync(usage_of, sandbox)

    assert (ended.code, ended.err) == (0, "")
    errors = home.rows("SELECT error FROM attempts WHERE run_id = 2 ORDER BY number")
    assert (errors[0], errors[-1]) == ((LOSSES[fault],), (None,))  # a slow machine needs a third
    assert home.rows("SELECT serial FROM proofs ORDER BY run_id") == [(1,), (2,)]
    assert usage["totalRequests"] == 2


def test_a_wrong_signature_of_random_org_is_found(home: Home) -> None:
    """At once."""
    home.config.write_text(f'{SIGNED}[sandbox]\nfaults = ["bad_signature"]\n')

    ended = home.run("collect")

    assert ended.code == 4
    assert "2 unproven" in ended.err


@pytest.mark.parametrize("kind", ["nist_beacon", "nqsn_beacon"])
def test_pulses_of_a_beacon_are_verified_by_others(home: Home, kind: str) -> None:
    """Their signature, and the numbers that are drawn out of the hash of all of it."""
    home.config.write_text(f'[sources.beacon]\nkind = "sandbox.{kind}"\nbatches = [3, 20]\n')
    assert home.run("collect").code == 0

    proofs, numbers = exported(home, "proofs"), numbers_by_batch(home)

    assert [row["batch"] for row in proofs] == ["w0", "w1"]
    for row in proofs:
        assert (row["word"], row["is_expanded"]) == ("verified", "true")
        assert is_signed_by_random_org(row)  # the sandbox has one key for all
        value = sha512(bytes.fromhex(row["message"] + row["signature"])).digest()
        assert numbers["1", row["batch"]] == draw(value, row)
    tamper(home.database, flip("signature"))
    assert "does not verify" in home.run("audit", "verify", "--proofs").err


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_beacon_is_verified_with_the_certificate_that_is_pinned(home: Home) -> None:
    """As of any server, by the name that its pulses give it; without it they are chained."""
    (home.folder / "pinned.pem").write_text(CERTIFICATE)
    async with serving() as sandbox:
        home.config.write_text(
            "".join(
                f'[sources.{name}]\nkind = "{kind}"\nurl = "{sandbox.url(kind)}"\n{pinned}'
                'batches = [3]\nrate = "none"\n'
                for kind in ("nist_beacon", "nqsn_beacon")
                for name, pinned in (
                    (f"{kind}_pinned", 'proof_key_file = "pinned.pem"\n'),
                    (f"{kind}_bare", ""),
                )
            )
        )
        ended = await to_thread.run_sync(home.run, "collect")
    assert (ended.code, ended.err) == (0, "")

    assert "2 verified, 2 chained" in home.run("audit", "verify", "--proofs").out


@pytest.mark.parametrize("kind", ["nist_beacon", "nqsn_beacon"])
def test_a_signature_that_does_not_fit_its_key_costs_no_batch_and_is_found(
    home: Home, kind: str
) -> None:
    """As NIST's do not since 2026-09-03; what fits again ends it."""
    well = f'[sources.beacon]\nkind = "sandbox.{kind}"\nbatches = [3]\nrate = "none"\n'
    home.config.write_text(f'{well}[sandbox]\nfaults = ["short_signature"]\n')
    assert (home.run("collect").code, home.run("collect").code) == (0, 0)
    unfit = changes_of(home)
    home.config.write_text(well)
    assert home.run("collect").code == 0

    fits = changes_of(home)

    name = "nist-beacon-2.0, cipherSuite 0"
    does_not = f"does not fit the pinned key: {name}, 256 bytes; the pinned key makes 512"
    assert unfit == [("warning", None, f"how it signs {does_not}")]
    [(severity, until, reason)] = fits
    assert (severity, reason) == (
        "info",
        f"how it signs fits the pinned key by now: {name}, 512 bytes",
    )
    assert until is not None
    assert home.rows("SELECT word FROM proofs ORDER BY run_id") == [
        ("chained",),
        ("chained",),
        ("verified",),
    ]


def changes_of(home: Home) -> list[tuple[str, str | None, str]]:
    """Ask which contracts have changed."""
    found = json.loads(home.run("audit", "--format", "json").out)["findings"]
    return [
        (each["severity"], each["until"], each["reason"])
        for each in found
        if each["kind"] == "contract_change"
    ]


def test_a_beacon_that_leads_elsewhere_is_not_followed(home: Home) -> None:
    """It could lead anywhere."""
    home.config.write_text(
        '[sources.beacon]\nkind = "sandbox.nqsn_beacon"\nbatches = [3]\n'
        '[sandbox]\nfaults = ["redirect"]\n'
    )

    assert home.run("collect").code == 4

    assert home.rows("SELECT error, status FROM attempts") == [("redirect_refused", 302)]


def test_a_beacon_that_says_two_things_of_one_pulse_is_found() -> None:
    """Even where each of them fits in itself; the sandbox says so little that it is left out."""
    pulse = answer_of({"pulse": signed(pulseIndex=7)})
    other = answer_of({"pulse": signed(pulseIndex=7, statusCode=0)})
    found = ProofCheck()
    for run, answer in enumerate((pulse, pulse, other), start=1):
        fetch = replace(fetch_of(3, 1, 6), run=run)
        proof = adapter().find_proof(answer)
        digest = digest_of(pack(numbers_of(proof, fetch), 1, 6), 3, 1, 6)
        found.look_at(Proved(proof=proof, source="nist", fetch=fetch, digests=(digest,)), ())

    assert [each.text for each in found.problems] == [
        "run 3, proof 7 of nist: pulse 7 was another one before"
    ]
    assert found.counts()["chained"] == 3
