"""Tests for pipeline/sandbox/drand.py: rounds that verify, and the refusals of a relay."""

import json
from typing import Any

import pytest

from pipeline.sandbox.drand import CHAINS, DEFAULT, QUICKNET, Chain, Drand
from pipeline.sandbox.exchange import Response
from pipeline.sandbox.faults import answer_with, parse_fault
from pipeline.sandbox.options import SandboxOptions
from pipeline.sources.drand import SANDBOX_CHAINS
from tests.sandbox.support import NOON, make_request


def ask(path: str) -> Response:
    """Ask a fresh imitation, at noon."""
    return Drand(SandboxOptions()).answer(make_request(path))


def read(path: str) -> Any:  # noqa: ANN401 - JSON
    """Read a good answer."""
    response = ask(path)
    assert response.status == 200
    return json.loads(response.body)


@pytest.mark.parametrize("chain", CHAINS.values(), ids=lambda chain: chain.name)
def test_its_chains_are_those_that_are_pinned(chain: Chain) -> None:
    """The keys as well; and its rounds are as old as those of the real chains."""
    pinned = SANDBOX_CHAINS[chain.name]
    info = read(f"/{chain.hash}/info")

    assert info["hash"] == pinned.hash
    assert info["public_key"] == pinned.key.public.hex()
    assert (info["genesis_time"], info["period"]) == (pinned.genesis, pinned.period)
    assert info["schemeID"] == pinned.scheme


def test_rounds_can_be_asked_for_again() -> None:
    """Each is the same whenever it is asked for; the newest one is as old as the clock says."""
    newest = read(f"/{QUICKNET.hash}/public/latest")

    assert newest == read(f"/{QUICKNET.hash}/public/{newest['round']}")
    assert list(newest) == ["round", "randomness", "signature"]
    assert newest["round"] == QUICKNET.newest(NOON)


def test_a_chained_round_follows_on_the_one_before() -> None:
    """As far as the sandbox goes back; without a hash it is the default chain."""
    number = 9999 * 8 + 5
    one, other = read(f"/public/{number}"), read(f"/{DEFAULT.hash}/public/{number + 1}")

    assert other["previous_signature"] == one["signature"]
    assert read(f"/public/{9999 * 8 + 1}")["previous_signature"] == DEFAULT.group_hash.hex()


def test_it_tells_of_itself() -> None:
    """Its chains, and how it is."""
    assert read("/chains") == [DEFAULT.hash, QUICKNET.hash]
    health = read("/health")
    assert health["current"] == health["expected"] > 0


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        (f"/{QUICKNET.hash}/public/99999999999", 425, b"Requested future beacon\n"),
        (f"/{'0' * 64}/public/latest", 400, b"unknown chain hash\n"),
        (f"/{QUICKNET.hash}/public/x", 404, b"404 page not found\n"),
        (f"/{QUICKNET.hash}/public/0", 404, b"404 page not found\n"),
        ("/", 404, b"404 page not found\n"),
    ],
)
def test_refusals_are_as_seen(path: str, status: int, body: bytes) -> None:
    """Those of the relay at drand.sh."""
    response = ask(path)

    assert (response.status, response.body) == (status, body)


def test_a_node_can_be_away() -> None:
    """The relay says so."""
    assert Drand(SandboxOptions()).refuse(make_request("/")).status == 504


def test_a_signature_can_be_wrong() -> None:
    """By one digit, and nothing else; where there is none, nothing is wrong."""
    path = f"/{QUICKNET.hash}/public/7"
    fault = [parse_fault("bad_signature")]
    good, bad = ask(path), answer_with(fault, make_request(path), Drand(SandboxOptions()), 1, {})

    differing = [
        at for at, (one, other) in enumerate(zip(good.body, bad.body, strict=True)) if one != other
    ]
    assert len(differing) == 1
    assert json.loads(good.body)["signature"] != json.loads(bad.body)["signature"]
    other = answer_with(fault, make_request("/chains"), Drand(SandboxOptions()), 1, {})
    assert other.body == ask("/chains").body


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """And does not fail at its start."""
    monkeypatch.setitem(__import__("sys").modules, "py_arkworks_bls12381", None)

    response = ask(f"/{QUICKNET.hash}/public/1234567")

    assert response.status == 500
    assert b"py-arkworks-bls12381" in response.body
