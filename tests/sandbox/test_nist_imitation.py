"""Tests for pipeline/sandbox/nist_beacon.py: pulses in a chain, and what is not there."""

import json
from hashlib import sha512
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from pipeline.sandbox.exchange import Response
from pipeline.sandbox.nist_beacon import NistBeacon, NqsnBeacon
from pipeline.sandbox.options import SandboxOptions
from pipeline.sandbox.rsa import CERTIFICATE, MODULUS
from pipeline.sources.proofs import Course
from pipeline.sources.rsa import SANDBOX_KEY
from tests.sandbox.support import make_request
from tests.sources.samples import answer_of
from tests.sources.test_nist_beacon import adapter


def ask(path: str) -> Response:
    """Ask at noon."""
    return NistBeacon(SandboxOptions()).answer(make_request(path))


def pulse(path: str) -> Any:  # noqa: ANN401 - JSON
    """Read a pulse."""
    return json.loads(ask(path).body)["pulse"]


def test_pulses_are_linked() -> None:
    """Each names the value of the one before, and that one has promised its own random value."""
    newest = pulse("/pulse/last")
    assert newest["timeStamp"] == "2026-11-22T12:00:00.000Z"
    number = newest["pulseIndex"] // 5 * 5 - 5
    one, other = (pulse(f"/chain/2/pulse/{each}") for each in (number, number + 1))

    assert other["listValues"][0]["value"] == one["outputValue"]
    local = bytes.fromhex(other["localRandomValue"])
    assert one["precommitmentValue"] == sha512(local).hexdigest().upper()
    assert pulse("/chain/2/pulse/last") == newest


def test_a_pulse_names_the_first_of_its_hour_and_day() -> None:
    """And no pulse has the number that is left out where the chain begins anew."""
    newest = pulse("/pulse/last")
    links = {each["type"]: each["value"] for each in newest["listValues"]}
    hour = pulse("/chain/2/pulse/last")["pulseIndex"]  # at noon: it is the first of its own hour
    day = pulse(f"/chain/2/pulse/{hour - 720 - 720 // 4}")

    assert day["timeStamp"] == "2026-11-22T00:00:00.000Z"
    assert links["day"] == day["outputValue"]
    assert ask(f"/chain/2/pulse/{hour - 1}").status == 404


def test_nqsn_tells_where_its_newest_pulse_is() -> None:
    """Below the same address, whatever stands before it."""
    beacon = NqsnBeacon(SandboxOptions())

    told = beacon.answer(make_request("/pulse"))

    (location,) = (value for name, value in told.headers if name == "Location")
    assert told.status == 303
    served = beacon.answer(make_request(location))
    found = json.loads(served.body)["pulse"]
    assert found["uri"] == f"https://quantum-entropy.sg/beacon/2.0{location}"
    assert found["certificateId"] == sha512(CERTIFICATE.encode()).hexdigest()
    assert found["certificateId"] in SANDBOX_KEY.text_ids
    assert beacon.answer(make_request("/pulse/last")).status == 404


def test_the_certificate_is_served_as_nist_does() -> None:
    """With CRLF, and without an end of the last line; it is of the key that signs."""
    served = ask(f"/certificate/{SANDBOX_KEY.id}").body

    certificate = x509.load_pem_x509_certificate(served)
    certificate.verify_directly_issued_by(certificate)
    key = certificate.public_key()
    assert isinstance(key, RSAPublicKey)
    assert key.public_numbers().n == MODULUS == SANDBOX_KEY.modulus
    assert served.count(b"\r\n") == served.count(b"\n") == CERTIFICATE.count("\n") - 1
    assert not served.endswith(b"\n")


@pytest.mark.parametrize(
    "path", ["/", "/pulse/7", "/chain/1/pulse/7", "/chain/2/pulse/99999999", "/chain/2/pulse/x"]
)
def test_what_is_not_there_is_404(path: str) -> None:
    """Pulses of the future, other chains, and what is no number."""
    assert ask(path).status == 404


def test_it_can_stop() -> None:
    """For six weeks, once."""
    assert NistBeacon(SandboxOptions()).refuse(make_request("/")).status == 503


def test_all_its_pulses_agree() -> None:
    """As the audit looks at them: around a new beginning of its chain, and of an hour."""
    reader, course = adapter(), Course()
    newest = pulse("/pulse/last")["pulseIndex"]
    numbers = range(newest - 78, newest + 1)
    served = [ask(f"/chain/2/pulse/{number}") for number in (*numbers[:7], *numbers[-7:])]

    found = [
        course.contradiction(reader.find_proof(answer_of(json.loads(each.body))))
        for each in served
        if each.status == 200
    ]

    assert found == [None] * 11
