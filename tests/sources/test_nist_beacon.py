"""Tests for pipeline/sources/nist_beacon.py: what a pulse signs, written down once more by hand."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha512
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import given

from pipeline.errors import ErrorName, SourceError
from pipeline.models import Proof, ProofWord
from pipeline.sources.base import Answer
from pipeline.sources.nist_beacon import NistBeacon, numbers_of
from pipeline.sources.proofs import Course, judge
from pipeline.sources.pulses import draw
from pipeline.sources.rsa import RsaKey
from tests.sources.samples import (
    FEW_EXAMPLES,
    answer_of,
    fetch_of,
    hold_contract,
    hostile_answers,
    mutated,
    refusal_of,
)

DICE = fetch_of(3, 1, 6)
PRIVATE = rsa.generate_private_key(65537, 2048)
CERTIFICATE = "ab" * 64
KEY = RsaKey(id=CERTIFICATE, modulus=PRIVATE.public_key().public_numbers().n)
LINKS = ["previous", "hour", "day", "month", "year"]
PULSE: dict[str, Any] = {
    "uri": "https://b.test/chain/2/pulse/1900001",
    "version": "2.0",
    "cipherSuite": 0,
    "period": 60000,
    "certificateId": CERTIFICATE,
    "chainIndex": 2,
    "pulseIndex": 1900001,
    "timeStamp": "2026-08-01T12:00:00.000Z",
    "localRandomValue": "0A" * 64,
    "external": {"sourceId": "00" * 64, "statusCode": 0, "value": "00" * 64},
    # In another order than they are signed in.
    "listValues": [
        {"uri": "u", "type": name, "value": f"{at:02X}" * 64} for at, name in enumerate(LINKS)
    ][::-1],
    "precommitmentValue": "0B" * 64,
    "statusCode": 6,
}


def message_of(pulse: dict[str, Any]) -> bytes:
    """Put together what is signed, in hex and by hand."""

    def sized(text: str) -> str:
        return f"{len(text) // 2:08x}{text}"

    links = {each["type"]: each["value"] for each in pulse["listValues"]}
    external = pulse["external"]
    whole = (
        sized(pulse["uri"].encode().hex())
        + sized(pulse["version"].encode().hex())
        + f"{pulse['cipherSuite']:08x}{pulse['period']:08x}"
        + sized(pulse["certificateId"])
        + f"{pulse['chainIndex']:016x}{pulse['pulseIndex']:016x}"
        + sized(pulse["timeStamp"].encode().hex())
        + sized(pulse["localRandomValue"])
        + sized(external["sourceId"])
        + f"{external['statusCode']:08x}"
        + sized(external["value"])
        + "".join(sized(links[name]) for name in LINKS)
        + sized(pulse["precommitmentValue"])
        + f"{pulse['statusCode']:08x}"
    )
    return bytes.fromhex(whole)


def signed(signature: bytes | None = None, **other: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Sign a pulse, unless with *signature*."""
    pulse = PULSE | other
    message = message_of(pulse)
    if signature is None:
        signature = PRIVATE.sign(message, padding.PKCS1v15(), hashes.SHA512())
    output = sha512(message + signature).hexdigest().upper()
    return pulse | {"signatureValue": signature.hex().upper(), "outputValue": output}


def adapter(*keys: RsaKey) -> NistBeacon:
    """Make the adapter, with pinned *keys*."""
    return NistBeacon(base_url="https://b.test/beacon/2.0", proof_keys=keys)


@pytest.mark.parametrize("is_wrapped", [True, False])
def test_a_pulse_is_verified_with_the_certificate_that_it_names(*, is_wrapped: bool) -> None:
    """Numbers are drawn out of its value."""
    pulse = signed()
    answer = answer_of({"pulse": pulse} if is_wrapped else pulse)

    proof = adapter(KEY).find_proof(answer)

    assert proof.message == message_of(PULSE)
    assert (proof.word, proof.serial) == (ProofWord.VERIFIED, 1900001)
    assert proof.made_at == datetime(2026, 8, 1, 12, tzinfo=UTC)
    assert adapter().parse_answer(DICE, answer) == draw(bytes.fromhex(pulse["outputValue"]), DICE)
    assert numbers_of(proof, DICE) == adapter().parse_answer(DICE, answer)
    assert judge(proof, DICE, [KEY]) is ProofWord.VERIFIED


def test_what_cannot_be_verified_is_chained() -> None:
    """Its certificate is not pinned, or the key is shorter than the signature: NIST's case."""
    assert adapter().find_proof(answer_of(signed())).word is ProofWord.CHAINED
    longer = answer_of(signed(b"x" * 512))
    assert adapter(KEY).find_proof(longer).word is ProofWord.CHAINED


def test_how_a_pulse_is_signed_is_told_with_what_its_key_makes() -> None:
    """NIST's case since 2026-09-03; another cipher suite is named, too, though nobody reads it."""
    longer = answer_of({"pulse": signed(b"x" * 512)})
    other = answer_of(signed() | {"cipherSuite": 1})

    assert adapter(KEY).name_signing(answer_of(signed())) == (
        "nist-beacon-2.0, cipherSuite 0, 256 bytes"
    )
    assert adapter().name_signing(longer) == "nist-beacon-2.0, cipherSuite 0, 512 bytes"
    assert adapter(KEY).name_signing(longer) == (
        "nist-beacon-2.0, cipherSuite 0, 512 bytes; the pinned key makes 256"
    )
    assert adapter(KEY).name_signing(other) == "nist-beacon-2.0, cipherSuite 1, 256 bytes"


def test_a_changed_digit_is_found() -> None:
    """By the hash, and where somebody has made that anew by the signature."""
    wrong_hash = [signed() | {"pulseIndex": 1900002}, signed() | {"outputValue": "00" * 64}]
    for wrong in wrong_hash:
        assert refusal_of(adapter(), DICE, answer_of(wrong)).error is ErrorName.UNPROVEN
    with pytest.raises(SourceError, match="signature of pulse 1900001 does not verify"):
        adapter(KEY).find_proof(answer_of(signed(b"x" * 256)))
    proof = adapter(KEY).find_proof(answer_of(signed()))
    for stored in (replace(proof, serial=1), replace(proof, is_expanded=False)):
        with pytest.raises(SourceError, match="is not what was signed"):
            judge(stored, DICE, [KEY])


def proof_of(pulse: dict[str, Any]) -> Proof:
    """Read a pulse that nobody can verify."""
    return adapter().find_proof(answer_of(pulse))


def contradiction(earlier: Proof, later: Proof) -> str | None:
    """Look at two pulses, one after the other."""
    course = Course()
    assert course.contradiction(earlier) is None
    return course.contradiction(later)


def test_a_pulse_must_follow_on_the_one_before() -> None:
    """And be the same whenever it is asked for; those that lie apart say nothing of each other."""
    promise = sha512(bytes.fromhex(PULSE["localRandomValue"])).hexdigest()
    first = signed(precommitmentValue=promise, timeStamp="2026-08-01T12:00:01.000Z")
    links = [{"type": "previous", "value": first["outputValue"]}, *PULSE["listValues"][:-1]]
    later: dict[str, Any] = {"pulseIndex": 1900002, "timeStamp": "2026-08-01T13:01:00.000Z"}
    earlier, linked = proof_of(first), proof_of(signed(listValues=links, **later))
    broken, apart = proof_of(signed(**later)), proof_of(signed(**later | {"pulseIndex": 1900003}))
    forged = proof_of(signed(statusCode=0, timeStamp="2026-08-01T12:00:01.000Z"))
    unpromised = proof_of(signed(listValues=links, localRandomValue="0C" * 64, **later))
    anew = proof_of(signed(**later | {"timeStamp": "2026-07-01T00:00:00.000Z"}))

    assert contradiction(earlier, earlier) is None
    assert contradiction(earlier, linked) is None
    assert contradiction(earlier, apart) is None
    assert contradiction(earlier, anew) is None
    assert contradiction(earlier, broken) == "pulse 1900002 does not follow on the one before it"
    assert contradiction(earlier, forged) == "pulse 1900001 was another one before"
    assert contradiction(earlier, unpromised) == (
        "the random value of pulse 1900002 is not what was promised before"
    )
    assert contradiction(replace(earlier, scheme="random.org-4"), broken) is None


@pytest.mark.parametrize(
    ("first_at", "later_at", "periods"),
    [
        ("08-01T12:00", "08-01T12:59", ["hour"]),
        ("08-02T00:00", "08-02T23:59", ["day"]),
        ("08-01T00:00", "08-31T00:00", ["month"]),
        ("01-01T00:00", "12-31T00:00", ["year"]),
        ("01-01T00:00", "01-01T00:01", ["hour", "day", "month", "year"]),
        ("08-01T12:01", "08-01T12:59", []),
        ("08-01T12:00", "08-01T13:00", []),
    ],
)
def test_a_pulse_names_the_first_of_its_hour_day_month_and_year(
    first_at: str, later_at: str, periods: list[str]
) -> None:
    """Where that is known; whoever names another one contradicts it."""
    first = signed(timeStamp=f"2026-{first_at}:00.000Z")
    later: dict[str, Any] = {"timeStamp": f"2026-{later_at}:00.000Z", "pulseIndex": 1999999}
    values = {each["type"]: each["value"] for each in PULSE["listValues"]}
    values |= dict.fromkeys(periods, first["outputValue"])

    def look(links: dict[str, str]) -> str | None:
        values = [{"type": name, "value": value} for name, value in links.items()]
        return contradiction(proof_of(first), proof_of(signed(listValues=values, **later)))

    assert look(values) is None
    for period in periods:
        says = f"pulse 1999999 names another one as the first of its {period}"
        assert look(values | {period: "00" * 64}) == says


@pytest.mark.parametrize(
    "wrong",
    [
        signed() | {"uri": 7},
        signed() | {"uri": "\u00e4"},
        signed() | {"cipherSuite": 1},
        signed() | {"period": 2**32},
        signed() | {"pulseIndex": "7"},
        signed() | {"localRandomValue": "0x"},
        signed() | {"listValues": []},
        signed(timeStamp="noon"),
        signed(timeStamp="2026-08-01T12:00:00"),
        {"pulse": None},
    ],
)
def test_what_is_no_pulse_has_its_name(wrong: dict[str, Any]) -> None:
    """It is not what was agreed upon."""
    assert refusal_of(adapter(), DICE, answer_of(wrong)).error is ErrorName.SCHEMA


def test_the_newest_pulse_is_asked_for() -> None:
    """Whatever is wanted of it."""
    assert adapter().build_request(DICE).url == "https://b.test/beacon/2.0/pulse/last"
    assert (adapter().max_numbers(1, 6), adapter().cost_bits(DICE)) == (10_000, 0)
    assert adapter().find_hint(answer_of(signed()), datetime(2026, 8, 1, tzinfo=UTC)) is None
    missing = answer_of("Not Found", status=404, content_type="text/plain")
    assert refusal_of(adapter(), DICE, missing).error is ErrorName.HTTP_4XX


@FEW_EXAMPLES
@given(hostile_answers() | mutated(json.dumps(signed()).encode()).map(answer_of))
def test_any_answer_gives_numbers_or_an_error(answer: Answer) -> None:
    """Fit to show, whatever it holds."""
    hold_contract(adapter(KEY), DICE, answer)
