"""Tests for pipeline/sources/random_org_signed.py and rsa.py: what random.org signs."""

import json
from base64 import b64encode
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha512
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given

from pipeline.errors import ConfigError, ErrorName, SourceError
from pipeline.models import ProofWord
from pipeline.sandbox.rsa import CERTIFICATE, sign
from pipeline.sources.base import Answer
from pipeline.sources.proofs import judge, numbers_of
from pipeline.sources.random_org_signed import RandomOrgSigned
from pipeline.sources.rsa import SANDBOX_KEY, RsaKey, is_signed, read_keys
from tests.sources.samples import (
    FEW_EXAMPLES,
    answer_of,
    fetch_of,
    hold_contract,
    hostile_answers,
    mutated,
)

KEY = "00000000-0000-4000-8000-00000000cafe"
DICE = fetch_of(3, 1, 6)
NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
SIGNED = {
    "method": "generateSignedIntegers",
    "hashedApiKey": "eA==",
    "n": 3,
    "min": 1,
    "max": 6,
    "data": [4, 1, 6],
    "licenseData": {"random": "\u00e4"},
    "userData": "0/0",
    "completionTime": "2026-11-29 12:00:00Z",
    "serialNumber": 17,
}


def body_of(text: str, signature: bytes) -> bytes:
    """Write an answer around what was signed."""
    signed = b64encode(signature).decode()
    return (
        f'{{"jsonrpc":"2.0","result":{{"random": {text},"signature":"{signed}"}},"id":0}}'
    ).encode()


def body(**other: Any) -> bytes:  # noqa: ANN401 - JSON
    """Write a good answer, signed by the sandbox, but for *other* values."""
    text = json.dumps(SIGNED | other, separators=(", ", ":"), ensure_ascii=False)
    return body_of(text, sign(text.encode()))


def adapter(**options: Any) -> RandomOrgSigned:  # noqa: ANN401 - as it takes them
    """Make the adapter, which trusts the sandbox unless *options* say otherwise."""
    return RandomOrgSigned(base_url="https://r.test", api_key=KEY, **options)


SANDBOXED = adapter(is_sandbox=True)


def test_a_signed_answer_is_asked_for_and_verified() -> None:
    """The text is taken as it came, blanks included."""
    answer = answer_of(body())
    proof = SANDBOXED.find_proof(answer)

    request = json.loads(SANDBOXED.build_request(DICE).content)
    assert request["method"] == "generateSignedIntegers"
    assert SANDBOXED.parse_answer(DICE, answer) == (4, 1, 6) == numbers_of(proof, DICE)
    assert (proof.word, proof.serial, proof.made_at) == (ProofWord.VERIFIED, 17, NOON)
    assert (proof.key_id, proof.is_expanded) == (SANDBOX_KEY.id, False)
    assert proof.message in answer.body


def test_how_an_answer_is_signed_is_told_with_what_the_keys_make() -> None:
    """If there are any that are pinned."""
    short = answer_of(body_of(json.dumps(SIGNED), b"x" * 256))

    assert SANDBOXED.name_signing(answer_of(body())) == "random.org-4, 512 bytes"
    assert adapter().name_signing(short) == "random.org-4, 256 bytes"
    assert SANDBOXED.name_signing(short) == "random.org-4, 256 bytes; the pinned key makes 512"


def test_a_changed_digit_is_found() -> None:
    """In the numbers, or anything else that was signed, or the signature."""
    good = body()
    for wrong in (
        good.replace(b"[4, 1", b"[4, 2"),
        good.replace(b"eA==", b"eQ=="),
        body_of(json.dumps(SIGNED), sign(b"another")),
        body_of(json.dumps(SIGNED), b"short"),
        body_of(json.dumps(SIGNED), b"\xff" * 512),
    ):
        with pytest.raises(SourceError) as caught:
            SANDBOXED.find_proof(answer_of(wrong))
        assert caught.value.error is ErrorName.UNPROVEN


@pytest.mark.parametrize(
    "wrong",
    [
        body(serialNumber="17"),
        body(serialNumber=2**63),
        body(completionTime="today"),
        body().replace(b'"signature":"', b'"signature":"!'),
        body().replace(b'"result"', b'"more":{"random":{}},"result"'),
        body_of("null", b""),
    ],
)
def test_what_is_no_signed_answer_has_its_name(wrong: bytes) -> None:
    """It is not what was agreed upon."""
    with pytest.raises(SourceError) as caught:
        SANDBOXED.find_proof(answer_of(wrong))
    assert caught.value.error is ErrorName.SCHEMA


def test_the_sandbox_is_trusted_where_it_plays_only() -> None:
    """Its secret is known: elsewhere its word says nothing."""
    answer = answer_of(body())

    assert adapter().find_proof(answer).word is ProofWord.UNVERIFIABLE
    with pytest.raises(SourceError, match="signature of answer 17 does not verify"):
        adapter(proof_keys=[replace(SANDBOX_KEY, modulus=SANDBOX_KEY.modulus + 2)]).find_proof(
            answer
        )


def test_a_stored_proof_must_agree_with_itself() -> None:
    """And with what was asked."""
    proof = SANDBOXED.find_proof(answer_of(body()))

    assert judge(proof, DICE, [SANDBOX_KEY]) is ProofWord.VERIFIED
    for wrong in (replace(proof, serial=18), replace(proof, is_expanded=True)):
        with pytest.raises(SourceError, match="is not what was signed"):
            judge(wrong, DICE)
    with pytest.raises(SourceError, match="is not to what was asked"):
        numbers_of(proof, fetch_of(3, 1, 7))


@pytest.mark.parametrize("data", [[4, 1], [4, 1, 7], [4, 1, "6"], None])
def test_a_stored_answer_must_hold_the_numbers_that_were_asked(data: object) -> None:
    """Whoever changes one that cannot be verified is found all the same."""
    proof = adapter().find_proof(answer_of(body(data=data)))

    assert judge(proof, DICE) is ProofWord.UNVERIFIABLE
    with pytest.raises(SourceError):
        numbers_of(proof, DICE)


def asked(source: RandomOrgSigned) -> tuple[str, object]:
    """Tell what is asked next for the dice: the method, and which answer."""
    call = json.loads(source.build_request(DICE).content)
    return call["method"], call["params"].get("serialNumber")


def test_a_lost_answer_is_looked_for_behind_the_newest() -> None:
    """It costs nothing; what stands there may be another's, or nothing: then none was made."""
    source = adapter(is_sandbox=True)
    source.remember(16)
    assert asked(source) == ("generateSignedIntegers", None)

    assert source.recall(DICE, ErrorName.RESET)
    assert (asked(source), source.cost_bits(DICE)) == (("getResult", 17), 0)
    assert source.recall(DICE, ErrorName.READ_TIMEOUT)
    assert asked(source) == ("getResult", 17)
    assert source.recall(DICE, ErrorName.SCHEMA)
    assert asked(source) == ("getResult", 18)
    assert not source.recall(DICE, ErrorName.RATE_LIMITED)
    assert source.recall(DICE, ErrorName.REFUSED)
    assert (asked(source), source.cost_bits(DICE)) == (("generateSignedIntegers", None), 8)
    assert not source.recall(DICE, ErrorName.REFUSED)


def test_the_newest_is_the_one_that_came_last() -> None:
    """Before the first one nobody can tell which was lost."""
    source = adapter(is_sandbox=True)
    assert not source.recall(DICE, ErrorName.RESET)
    assert asked(source) == ("generateSignedIntegers", None)

    source.find_proof(answer_of(body()))

    assert source.recall(DICE, ErrorName.RESET)
    assert asked(source) == ("getResult", 18)


def test_what_was_made_for_another_is_not_taken() -> None:
    """Whoever shares the key may have asked for the same."""
    with pytest.raises(SourceError, match="was made for another request"):
        SANDBOXED.parse_answer(DICE, answer_of(body(userData="1/0")))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_certificate_goes_by_the_hash_of_its_text_as_well(tmp_path: Path, end: str) -> None:
    """However lines end in the file, and whether the last one does."""
    text = CERTIFICATE.replace("\n", end)
    file = tmp_path / "pinned.pem"
    file.write_bytes(text.encode())

    (key,) = read_keys(str(file))

    assert (key.id, key.modulus) == (SANDBOX_KEY.id, SANDBOX_KEY.modulus)
    for named in (text, text.removesuffix(end), CERTIFICATE):
        assert key.is_called(sha512(named.encode()).hexdigest())
    assert not key.is_called(sha512(b"").hexdigest())


@FEW_EXAMPLES
@given(hostile_answers() | mutated(body()).map(answer_of))
def test_any_answer_gives_numbers_or_an_error(answer: Answer) -> None:
    """And any that gives numbers a proof or an error."""
    hold_contract(SANDBOXED, DICE, answer, secret=KEY)
    with suppress(SourceError):
        assert SANDBOXED.find_proof(answer).word is ProofWord.VERIFIED


def certificate(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    """Make one that says nothing of anybody."""
    name = x509.Name([])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOON)
        .not_valid_after(NOON + timedelta(days=1))
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
        .decode()
    )


def test_certificates_are_pinned_by_a_file(tmp_path: Path) -> None:
    """Several, with whatever ends their lines; a signature by another program verifies."""
    private = rsa.generate_private_key(65537, 2048)
    file = tmp_path / "keys.pem"
    text = certificate(private) + "a comment\n" + certificate(rsa.generate_private_key(3, 1024))
    file.write_bytes(text.replace("\n", "\r\n").strip().encode())

    keys = read_keys(str(file))

    assert [(key.exponent, key.bytes) for key in keys] == [(65537, 256), (3, 128)]
    signature = private.sign(b"text", padding.PKCS1v15(), hashes.SHA512())
    assert is_signed(keys[0], b"text", signature)
    assert not is_signed(keys[0], b"Text", signature)
    assert not is_signed(keys[1], b"text", signature)


def test_a_file_without_certificates_is_refused(tmp_path: Path) -> None:
    """With its name and what is wrong."""
    file = tmp_path / "keys.pem"
    with pytest.raises(ConfigError, match="No such file"):
        read_keys(str(file))
    for text, says in {
        "": "holds no certificate",
        "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----": "can be read",
        certificate(ec.generate_private_key(ec.SECP256R1())): "not of RSA",
    }.items():
        file.write_text(text)
        with pytest.raises(ConfigError, match=says):
            read_keys(str(file))


def test_a_file_takes_the_package_that_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verifying alone does not."""
    monkeypatch.setitem(__import__("sys").modules, "cryptography", None)

    with pytest.raises(ConfigError, match="install cryptography"):
        read_keys("keys.pem")
    assert SANDBOXED.find_proof(answer_of(body())).word is ProofWord.VERIFIED
    assert RsaKey(id="", modulus=2**2047 + 1).bytes == 256
