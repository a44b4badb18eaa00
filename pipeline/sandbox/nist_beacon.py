"""Imitations of beacons that speak NIST's format 2.0, signed with the sandbox's own key.

Wire facts: NISTIR 8213 as verified pulses correct it; of NQSN's beacon what a verifier found. Ours:
chains begin anew every 4 pulses, with a number left out; the first pulse of an hour, day, month or
year says nothing true of the one before; a fault tells of a signature that is wrong.
"""

import struct
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha512
from typing import Any

from pipeline.sandbox.exchange import (
    JSON,
    Request,
    Response,
    Upstream,
    answer_text,
    compact,
    parse_integer,
)
from pipeline.sandbox.rsa import BYTES, CERTIFICATE, CERTIFICATE_DER, sign

BEGAN_AT = datetime(2022, 9, 21, tzinfo=UTC)  # when the real chain 2 of NIST's did
PERIOD = timedelta(minutes=1)
LINKED = 4  # pulses in a row
NOTHING = bytes(64)
PEM = "application/x-pem-file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Beacon:
    """One beacon.

    Attributes:
        root: what the addresses in its pulses begin with.
        chain: the number of its only chain.
        certificate: what its pulses call the certificate.
    """

    root: str
    chain: int
    certificate: bytes


NIST = Beacon(
    root="https://beacon.nist.gov/beacon/2.0",
    chain=2,
    certificate=sha512(CERTIFICATE_DER).digest(),
)
NQSN = Beacon(
    root="https://quantum-entropy.sg/beacon/2.0",
    chain=1,
    certificate=sha512(CERTIFICATE.encode()).digest(),
)


def _hash(what: str, minute: int) -> bytes:
    return sha512(f"pipeline sandbox {what} {minute}".encode()).digest()


def _sized(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _number(minute: int) -> int:
    """Give the number of the pulse that was made in this minute since the beginning."""
    return minute + minute // LINKED


def _minute(number: int) -> int | None:
    """Give the minute in which a pulse was made; None if its number was left out."""
    rows, nth = divmod(number, LINKED + 1)
    return None if nth == LINKED else rows * LINKED + nth


def _made_at(minute: int) -> datetime:
    return BEGAN_AT + minute * PERIOD


def _first_minutes(minute: int) -> dict[str, int]:
    """Find the minutes in which the hour, day, month and year began."""
    hour = _made_at(minute).replace(minute=0)
    day = hour.replace(hour=0)
    month = day.replace(day=1)
    began = {"hour": hour, "day": day, "month": month, "year": month.replace(month=1)}
    return {name: (at - BEGAN_AT) // PERIOD for name, at in began.items()}


@lru_cache(maxsize=256)
def _output(beacon: Beacon, minute: int) -> bytes:
    return bytes.fromhex(_pulse(beacon, minute)["outputValue"])


def _links(beacon: Beacon, minute: int) -> dict[str, bytes]:
    links = {"previous": minute - 1 if minute % LINKED else -1, **_first_minutes(minute)}
    return {
        name: _output(beacon, other) if 0 <= other < minute else _hash(name, minute)
        for name, other in links.items()
    }


@lru_cache(maxsize=64)
def _pulse(beacon: Beacon, minute: int, size: int = BYTES) -> dict[str, Any]:
    number = _number(minute)
    uri = f"{beacon.root}/chain/{beacon.chain}/pulse/{number}"
    made = f"{_made_at(minute):%Y-%m-%dT%H:%M:%S.000Z}"
    local = _hash("local", minute)
    precommitment = sha512(_hash("local", minute + 1)).digest()
    links = _links(beacon, minute)
    message = b"".join(
        (
            _sized(uri.encode()),
            _sized(b"2.0"),
            struct.pack(">II", 0, 60_000),
            _sized(beacon.certificate),
            struct.pack(">QQ", beacon.chain, number),
            _sized(made.encode()),
            _sized(local),
            _sized(NOTHING),
            struct.pack(">I", 0),
            _sized(NOTHING),
            *map(_sized, links.values()),
            _sized(precommitment),
            struct.pack(">I", 0),
        )
    )
    signature = sign(message)[:size]
    values = [
        {"uri": uri, "type": name, "value": value.hex().upper()} for name, value in links.items()
    ]
    return {
        "uri": uri,
        "version": "2.0",
        "cipherSuite": 0,
        "period": 60_000,
        "certificateId": beacon.certificate.hex(),
        "chainIndex": beacon.chain,
        "pulseIndex": number,
        "timeStamp": made,
        "localRandomValue": local.hex().upper(),
        "external": {
            "sourceId": NOTHING.hex(),
            "statusCode": 0,
            "value": NOTHING.hex(),
        },
        "listValues": values,
        "precommitmentValue": precommitment.hex().upper(),
        "statusCode": 0,
        "signatureValue": signature.hex().upper(),
        "outputValue": sha512(message + signature).hexdigest().upper(),
    }


class NistBeacon(Upstream):
    """Whoever asks is served: pulses are made whether anybody asks or not."""

    beacon = NIST
    example = "/pulse/last"

    def answer(self, request: Request, /) -> Response:
        """Serve the newest pulse, or one by its number, or the certificate."""
        if request.path == f"/certificate/{self.beacon.certificate.hex()}":
            text = CERTIFICATE.rstrip("\n").replace("\n", "\r\n")
            return answer_text(text, content_type=PEM)
        newest = (request.utc - BEGAN_AT) // PERIOD
        if request.path == self.example:
            return self._newest(request, newest)
        *where, which = request.path.strip("/").split("/")
        number = _number(newest) if which == "last" else parse_integer(which)
        if where != ["chain", str(self.beacon.chain), "pulse"] or number is None or number < 0:
            return answer_text("Not Found\n", 404)
        minute = _minute(number)
        if minute is None or minute > newest:
            return answer_text("Not Found\n", 404)
        return self._serve(minute)

    def _newest(self, request: Request, newest: int) -> Response:
        del request
        return self._serve(newest)

    def _serve(self, minute: int) -> Response:
        def body(size: int = BYTES) -> str:
            return compact({"pulse": _pulse(self.beacon, minute, size)})

        answer = answer_text(body(), content_type=JSON)
        return replace(answer, signed_short=lambda: body(BYTES // 2).encode())

    def refuse(self, _request: Request, /) -> Response:
        """Fail as a service whose beacon has stopped."""
        return answer_text("Service Unavailable\n", 503)


class NqsnBeacon(NistBeacon):
    """The same, but for where its newest pulse is: that is told, not served."""

    beacon = NQSN
    example = "/pulse"

    def _newest(self, request: Request, newest: int) -> Response:
        """Tell where it is, on this server and under the same faults."""
        base = request.target.partition("?")[0].removesuffix(self.example)
        where = f"{base}/chain/{self.beacon.chain}/pulse/{_number(newest)}"
        return answer_text("See Other\n", 303, headers=(("Location", where),))
