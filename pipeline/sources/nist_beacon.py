"""NIST's randomness beacon 2.0, and NQSN's: a public value of 64 bytes a minute, chained by hashes.

Wire facts: NISTIR 8213 (a draft), as corrected by those who verified pulses: lengths are written
in 4 bytes, and the hash of a pulse is over what is signed and the bare signature. Since 2026-09-03
pulses name a certificate whose key is shorter than their signatures, which nobody can verify:
such a pulse is `chained`, as is one whose certificate is not pinned. NQSN's (Singapore) names its
certificate by the hash of its text, and tells by 303 where its newest pulse is.
"""

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha512

from pipeline.errors import ErrorName, SourceError
from pipeline.models import Fetch, Proof, ProofWord
from pipeline.sources.answers import (
    check_status,
    member,
    read_array,
    read_json,
    read_json_or_status,
)
from pipeline.sources.aspects import name_signing
from pipeline.sources.base import Answer
from pipeline.sources.pulses import Beacon, draw
from pipeline.sources.rsa import SANDBOX_KEY, RsaKey, is_signed

SCHEME = "nist-beacon-2.0"
PERIODS = ("hour", "day", "month", "year")
LINKS = ("previous", *PERIODS)

_HEX = re.compile("(?:[0-9A-Fa-f]{2}){1,1024}")
_UNSIGNED_INT, _UNSIGNED_LONG = 2**32, 2**63  # a database holds no more than the latter


def _schema(what: str) -> SourceError:
    return SourceError(ErrorName.SCHEMA, what)


def _unproven(what: str) -> SourceError:
    return SourceError(ErrorName.UNPROVEN, what)


def _sized(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


class _Pulse:
    """A pulse as it came, and its fields as they are signed."""

    def __init__(self, document: object) -> None:
        is_wrapped = isinstance(document, dict) and "pulse" in document
        self._pulse = member(document, "pulse") if is_wrapped else document

    def text(self, *path: str) -> bytes:
        """Read a text."""
        found = member(self._pulse, *path)
        if not isinstance(found, str) or not found.isascii():
            raise _schema(f"{path[-1]} is no text of ASCII")
        return _sized(found.encode())

    def hex(self, *path: str) -> bytes:
        """Read bytes."""
        return _bytes(path[-1], member(self._pulse, *path))

    def number(self, *path: str, below: int = _UNSIGNED_INT) -> int:
        """Read a whole number."""
        found = member(self._pulse, *path)
        if type(found) is not int or not 0 <= found < below:
            raise _schema(f"{path[-1]} is not a whole number")
        return found

    def links(self) -> bytes:
        """Read the values of earlier pulses, in the order in which they are signed."""
        values = {
            each.get("type"): each.get("value")
            for each in read_array(self._pulse, "listValues")
            if isinstance(each, dict) and isinstance(each.get("type"), str)
        }
        return b"".join(_sized(_bytes(name, values.get(name))) for name in LINKS)

    def message(self) -> bytes:
        """Put together what is signed."""
        if self.number("cipherSuite"):
            raise _schema("cipherSuite is not 0, RSA with SHA-512")
        return b"".join(
            (
                self.text("uri"),
                self.text("version"),
                struct.pack(">II", 0, self.number("period")),
                _sized(self.hex("certificateId")),
                struct.pack(
                    ">QQ",
                    self.number("chainIndex", below=_UNSIGNED_LONG),
                    self.number("pulseIndex", below=_UNSIGNED_LONG),
                ),
                self.text("timeStamp"),
                _sized(self.hex("localRandomValue")),
                _sized(self.hex("external", "sourceId")),
                struct.pack(">I", self.number("external", "statusCode")),
                _sized(self.hex("external", "value")),
                self.links(),
                _sized(self.hex("precommitmentValue")),
                struct.pack(">I", self.number("statusCode")),
            )
        )


def _bytes(name: str, found: object) -> bytes:
    if not isinstance(found, str) or not _HEX.fullmatch(found):
        raise _schema(f"{name} is not made of hex digits")
    return bytes.fromhex(found)


class _Signed:
    """What is signed, read from its beginning."""

    def __init__(self, message: bytes) -> None:
        self._message, self._at = message, 0

    def take(self, size: int) -> bytes:
        """Read so many bytes."""
        begin, self._at = self._at, self._at + size
        return self._message[begin : self._at]

    def take_sized(self) -> bytes:
        """Read bytes behind their length."""
        return self.take(int.from_bytes(self.take(4)))


def _read_head(signed: _Signed) -> tuple[str, int, datetime]:
    """Read the certificate's id, the pulse's number, and its time."""
    signed.take_sized(), signed.take_sized()  # uri and version
    signed.take(8)  # cipherSuite and period
    certificate = signed.take_sized().hex()
    signed.take(8)  # the chain
    number = int.from_bytes(signed.take(8))
    try:
        made_at = datetime.fromisoformat(signed.take_sized().decode("ascii"))
    except ValueError as exc:
        raise _schema("timeStamp is no time") from exc
    if made_at.tzinfo is None:
        raise _schema("timeStamp is of no time zone")
    return certificate, number, made_at.astimezone(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Course:
    """What a pulse says of the others of its chain.

    Attributes:
        links: the values of earlier pulses, by `LINKS`.
        promise: the hash of the random value that the next one brings.
    """

    chain: bytes
    random_value: bytes
    links: Mapping[str, bytes]
    promise: bytes


def _read_course(message: bytes) -> _Course:
    signed = _Signed(message)
    signed.take_sized(), signed.take_sized()  # uri and version
    signed.take(8)  # cipherSuite and period
    signed.take_sized()  # certificate
    chain = signed.take(8)
    signed.take(8), signed.take_sized()  # the number and the time
    random_value = signed.take_sized()
    signed.take_sized(), signed.take(4), signed.take_sized()  # what came from elsewhere
    links = {name: signed.take_sized() for name in LINKS}
    return _Course(chain=chain, random_value=random_value, links=links, promise=signed.take_sized())


def begins(proof: Proof) -> tuple[str, ...]:
    """Name the periods whose first pulse this is: later ones of the same period link to it."""
    at = proof.made_at
    late = (at.minute, at.hour, at.day - 1, at.month - 1)
    return tuple(name for nth, name in enumerate(PERIODS, start=1) if not any(late[:nth]))


def _is_in_period(later: Proof, earlier: Proof, period: str) -> bool:
    """Tell whether *later* was made in the period that *earlier* begins."""
    depth = 4 - PERIODS.index(period)
    return later.made_at.timetuple()[:depth] == earlier.made_at.timetuple()[:depth]


def contradiction(earlier: Proof, later: Proof) -> str | None:
    """Say how two pulses of a beacon contradict each other: one that follows names the other."""
    if later.serial == earlier.serial and later.made_at == earlier.made_at:
        is_same = (later.message, later.signature) == (earlier.message, earlier.signature)
        return None if is_same else f"pulse {later.serial} was another one before"
    before, course = _read_course(earlier.message), _read_course(later.message)
    # A chain that began anew has the same numbers at other times.
    is_later = later.serial > earlier.serial and later.made_at > earlier.made_at
    if not is_later or course.chain != before.chain:
        return None
    value = sha512(earlier.message + earlier.signature).digest()
    if later.serial == earlier.serial + 1:
        if course.links["previous"] != value:
            return f"pulse {later.serial} does not follow on the one before it"
        if sha512(course.random_value).digest() != before.promise:
            return f"the random value of pulse {later.serial} is not what was promised before"
    for period in begins(earlier):
        if _is_in_period(later, earlier, period) and course.links[period] != value:
            return f"pulse {later.serial} names another one as the first of its {period}"
    return None


def judge(proof: Proof, *, is_sandbox: bool, keys: Sequence[RsaKey]) -> ProofWord:
    """Verify a pulse once more: its signature if its certificate is among *keys*.

    Raises:
        SourceError: ``unproven``.
    """
    head = (proof.key_id, proof.serial, proof.made_at)
    if _read_head(_Signed(proof.message)) != head or not proof.is_expanded:
        raise _unproven(f"pulse {proof.serial} is not what was signed")
    key = _find_key(proof.key_id, [SANDBOX_KEY] if is_sandbox else keys)
    if key is None or key.bytes != len(proof.signature):
        return ProofWord.CHAINED
    if not is_signed(key, proof.message, proof.signature):
        raise _unproven(f"the signature of pulse {proof.serial} does not verify")
    return ProofWord.VERIFIED


def _find_key(certificate: str, trusted: Sequence[RsaKey]) -> RsaKey | None:
    return next((key for key in trusted if key.is_called(certificate)), None)


def numbers_of(proof: Proof, fetch: Fetch) -> tuple[int, ...]:
    """Draw the numbers of *fetch* out of a pulse: its value is the hash of all the rest of it."""
    return draw(sha512(proof.message + proof.signature).digest(), fetch)


class NistBeacon(Beacon):
    """The newest pulse of a beacon that speaks NIST's format."""

    newest, sees_other = "/pulse/last", False

    def __init__(
        self, *, base_url: str, is_sandbox: bool = False, proof_keys: Sequence[RsaKey] = ()
    ) -> None:
        super().__init__(base_url, self.newest, sees_other=self.sees_other)
        self._is_sandbox, self._keys = is_sandbox, proof_keys

    def parse_answer(self, fetch: Fetch, answer: Answer) -> tuple[int, ...]:
        """Draw the numbers of each batch out of the pulse, by the batch's own label."""
        return numbers_of(self._read(answer), fetch)

    def find_proof(self, answer: Answer) -> Proof:
        """Verify the pulse as far as that can be."""
        proof = self._read(answer)
        return replace(proof, word=judge(proof, is_sandbox=self._is_sandbox, keys=self._keys))

    def name_signing(self, answer: Answer) -> str:
        """Name the cipher suite and the length, and that of the key if it is another."""
        pulse = _Pulse(read_json(answer))
        suite, signature = pulse.number("cipherSuite"), pulse.hex("signatureValue")
        trusted = [SANDBOX_KEY] if self._is_sandbox else self._keys
        key = _find_key(pulse.hex("certificateId").hex(), trusted)
        scheme = f"{SCHEME}, cipherSuite {suite}"
        return name_signing(scheme, len(signature), [key.bytes] if key else ())

    def _read(self, answer: Answer) -> Proof:
        document = read_json_or_status(answer, has_key=False)
        check_status(answer, has_key=False)
        pulse = _Pulse(document)
        message, signature = pulse.message(), pulse.hex("signatureValue")
        certificate, number, made_at = _read_head(_Signed(message))
        if pulse.hex("outputValue") != sha512(message + signature).digest():
            raise _unproven(f"the outputValue of pulse {number} is not the hash of all the rest")
        return Proof(
            scheme=SCHEME,
            key_id=certificate,
            serial=number,
            made_at=made_at,
            message=message,
            signature=signature,
            word=ProofWord.CHAINED,
            is_expanded=True,
        )


class NqsnBeacon(NistBeacon):
    """The newest pulse of NQSN's beacon in Singapore."""

    newest, sees_other = "/pulse", True
