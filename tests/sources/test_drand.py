"""Tests for pipeline/sources/drand.py and bls.py, with rounds that drand has published."""

from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import httpx2 as httpx
import pytest
from hypothesis import given

from pipeline.errors import ErrorName, SourceError
from pipeline.models import Proof, ProofWord
from pipeline.sandbox import drand as sandbox
from pipeline.sources import bls
from pipeline.sources.base import Answer
from pipeline.sources.drand import CHAINS, SANDBOX_CHAINS, Drand, judge
from pipeline.sources.proofs import judge as judge_any
from pipeline.sources.proofs import numbers_of
from pipeline.sources.pulses import draw
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
QUICKNET_42 = {
    "round": 42,
    "randomness": "8ada64bae5c6c0f5540a6a13af56e663240edfbd2c76ac6a8f27671eb7259ce3",
    "signature": "95a9f9f5b231b7714de1553105d8ffdf3dcda24cfdb1e689319bccf79a9c8ce4"
    "30a91b811fbfaf763900bc998b5d686a",
}
DEFAULT_1 = {
    "round": 1,
    "randomness": "101297f1ca7dc44ef6088d94ad5fb7ba03455dc33d53ddb412bbc4564ed986ec",
    "signature": "8d61d9100567de44682506aea1a7a6fa6e5491cd27a0a0ed349ef6910ac5ac20"
    "ff7bc3e09d7c046566c9f7f3c6f3b10104990e7cb424998203d8f7de586fb7fa"
    "5f60045417a432684f85093b06ca91c769f0e7ca19268375e659c2a2352b4655",
    "previous_signature": "176f93498eac9ca337150b46d21dd58673ea4e3581185f869672e59fa4cb390a",
}
PUBLISHED = [("quicknet", QUICKNET_42), ("default", DEFAULT_1)]


def chain_of(name: str, *, is_sandbox: bool = False) -> Drand:
    """Make the adapter of a chain."""
    return Drand(base_url="https://d.test", chain=name, is_sandbox=is_sandbox)


def proof_of(name: str, body: dict[str, Any]) -> Proof:
    """Read and verify a round."""
    return chain_of(name).find_proof(answer_of(body))


def test_how_a_round_is_signed_is_told_with_what_the_key_makes() -> None:
    """By its own group."""
    long = answer_of(DEFAULT_1)

    assert chain_of("default").name_signing(long) == "pedersen-bls-chained, 96 bytes"
    assert chain_of("quicknet").name_signing(long) == (
        "bls-unchained-g1-rfc9380, 96 bytes; the pinned key makes 48"
    )


def with_signature(body: dict[str, Any], signature: str) -> dict[str, Any]:
    """Give a round another signature, and the hash that goes with it."""
    randomness = sha256(bytes.fromhex(signature)).hexdigest()
    return {**body, "signature": signature, "randomness": randomness}


@pytest.mark.parametrize(("name", "body"), PUBLISHED)
def test_published_rounds_verify(name: str, body: dict[str, Any]) -> None:
    """With the keys that are pinned; the numbers are drawn from the round's value."""
    proof = proof_of(name, body)

    assert (proof.word, proof.serial, proof.is_expanded) == (
        ProofWord.VERIFIED,
        body["round"],
        True,
    )
    assert proof.key_id == CHAINS[name].hash
    numbers = chain_of(name).parse_answer(DICE, answer_of(body))
    assert numbers == draw(bytes.fromhex(body["randomness"]), DICE) == numbers_of(proof, DICE)
    assert judge_any(proof, DICE) is ProofWord.VERIFIED


def test_a_round_says_when_it_was_made() -> None:
    """By the chain's clock."""
    assert proof_of(*PUBLISHED[0]).made_at == datetime(2023, 8, 23, 15, 11, 30, tzinfo=UTC)
    assert proof_of(*PUBLISHED[1]).made_at == datetime(2020, 7, 22, 15, 17, 30, tzinfo=UTC)
    assert CHAINS["default"].made_at(2**62).year == 9999


@pytest.mark.parametrize(("name", "body"), PUBLISHED)
def test_a_changed_digit_is_found(name: str, body: dict[str, Any]) -> None:
    """In the round, in what it follows on, in the signature, in its hash."""
    signature = body["signature"]
    others = {
        "round": {**body, "round": body["round"] + 1},
        "signature": with_signature(body, signature[:-1] + ("0" if signature[-1] != "0" else "1")),
        "no point": with_signature(body, "00" * (len(signature) // 2)),
        "length": with_signature(body, signature[:-2]),
        "hash": {**body, "randomness": "00" * 32},
    }
    if name == "default":
        others["previous"] = {**body, "previous_signature": "00" * 32}
    for what, other in others.items():
        with pytest.raises(SourceError) as caught:
            proof_of(name, other)
        assert caught.value.error is ErrorName.UNPROVEN, what


def test_a_stored_proof_must_agree_with_itself() -> None:
    """And be of a chain that is pinned: the sandbox's keys are everybody's."""
    proof = proof_of(*PUBLISHED[0])
    sandboxed = Proof(
        scheme=proof.scheme,
        key_id=SANDBOX_CHAINS["quicknet"].hash,
        serial=42,
        made_at=proof.made_at,
        message=(42).to_bytes(8),
        signature=sandbox.sign(sandbox.QUICKNET, 42),
        word=ProofWord.VERIFIED,
        is_expanded=True,
    )
    assert judge(sandboxed, is_sandbox=True) is ProofWord.VERIFIED
    for wrong in (
        replace(proof, serial=43),
        replace(proof, scheme="pedersen-bls-chained"),
        replace(proof, is_expanded=False),
        replace(proof, made_at=datetime(2026, 1, 1, tzinfo=UTC)),
        replace(proof, key_id="00"),
        sandboxed,
    ):
        with pytest.raises(SourceError, match="unproven"):
            judge(wrong, is_sandbox=False)
    with pytest.raises(SourceError, match="no scheme 'pgp' is known"):
        judge_any(replace(proof, scheme="pgp"), DICE)


def test_without_the_package_a_signature_is_no_more_than_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The hash is looked at all the same."""
    monkeypatch.setitem(__import__("sys").modules, "py_arkworks_bls12381", None)

    assert bls.find_curve() is None
    assert proof_of(*PUBLISHED[0]).word is ProofWord.UNVERIFIABLE
    with pytest.raises(SourceError, match="is not the hash of its signature"):
        proof_of("quicknet", {**QUICKNET_42, "randomness": "00" * 32})


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (answer_of("unknown chain hash\n", status=400, content_type="text/plain"), "http_4xx"),
        (answer_of("Requested future beacon\n", status=425, content_type="text/plain"), "http_4xx"),
        (answer_of("timeout\n", status=504, content_type="text/plain"), "http_5xx"),
        (answer_of({**QUICKNET_42, "round": "42"}), "schema"),
        (answer_of({**QUICKNET_42, "round": 0}), "schema"),
        (answer_of({**QUICKNET_42, "round": 2**63}), "schema"),
        (answer_of({**QUICKNET_42, "signature": "xyz"}), "schema"),
        (answer_of({"round": 42}), "schema"),
        (answer_of("{"), "not_json"),
    ],
)
def test_what_is_no_round_has_its_name(answer: Answer, error: str) -> None:
    """As relays refuse."""
    assert refusal_of(chain_of("quicknet"), DICE, answer).error == error


def test_the_newest_round_is_asked_for() -> None:
    """By the chain's hash, so that no relay can give another chain."""
    request = chain_of("default").build_request(DICE)

    assert (request.method, request.url) == (
        "GET",
        httpx.URL(f"https://d.test/{CHAINS['default'].hash}/public/latest"),
    )
    assert chain_of("default").cost_bits(DICE) == 0
    assert chain_of("default").max_numbers(1, 6) == 10_000
    late = answer_of("", status=503, headers=(("Retry-After", "7"),))
    hint = chain_of("default").find_hint(late, datetime(2026, 11, 29, tzinfo=UTC))
    assert hint is not None
    assert hint.wait_seconds == 7


@FEW_EXAMPLES
@given(hostile_answers() | mutated(answer_of(DEFAULT_1).body).map(answer_of))
def test_any_answer_gives_numbers_or_an_error(answer: Answer) -> None:
    """Fit to show, whatever it holds."""
    hold_contract(chain_of("default"), DICE, answer)
