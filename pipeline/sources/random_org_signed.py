"""random.org's signed API, release 4: ``generateSignedIntegers``, whose answers are signed.

Wire facts: random.org's pages "signed API" and "signature verification". What is signed is the
text of ``random`` as it came, so it is cut out of the answer and never written anew.

An answer that was lost on its way is paid, and random.org keeps it: ``getResult`` brings it by its
serial number, which goes up by one with each answer. What we call a fetch goes along as
``userData``, which is signed as well: so nobody takes what was made for another.
"""

import base64
import binascii
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx2 as httpx

from pipeline.errors import ErrorName, SourceError
from pipeline.models import Fetch, Proof, ProofWord
from pipeline.sources.answers import member, read_json
from pipeline.sources.aspects import name_signing
from pipeline.sources.base import Answer
from pipeline.sources.random_org_jsonrpc import RandomOrgJsonrpc
from pipeline.sources.rsa import SANDBOX_KEY, RsaKey, is_signed
from pipeline.validation import check_numbers

SCHEME = "random.org-4"
_UNKNOWN_KEY = "unknown"
_BEFORE = re.compile(r'(?<!\\)"random"\s*:\s*')
_HIGHEST_SERIAL = 2**63 - 1
_LOSSES = frozenset(  # the request may have been carried out, and its answer did not come
    {
        ErrorName.READ_TIMEOUT,
        ErrorName.RESET,
        ErrorName.INCOMPLETE,
        ErrorName.PROTOCOL,
        ErrorName.DEADLINE,
        ErrorName.HTTP_5XX,
        ErrorName.CONTENT_TYPE,
        ErrorName.NOT_JSON,
    }
)


def _unproven(what: str) -> SourceError:
    return SourceError(ErrorName.UNPROVEN, what)


def _name(fetch: Fetch) -> str:
    """Name *fetch* as no other of this store is named."""
    return f"{fetch.run}/{fetch.number}"


def _read_signed(message: bytes) -> tuple[dict[str, Any], int, datetime]:
    """Read what was signed, with its serial number and time."""
    try:
        signed = json.loads(message)
        serial, at = signed["serialNumber"], signed["completionTime"]
        made_at = datetime.strptime(at, "%Y-%m-%d %H:%M:%SZ").replace(tzinfo=UTC)
    except (ValueError, TypeError, KeyError) as exc:
        what = "random has no serialNumber or completionTime"
        raise SourceError(ErrorName.SCHEMA, what) from exc
    if type(serial) is not int or not 0 <= serial <= _HIGHEST_SERIAL:
        raise SourceError(ErrorName.SCHEMA, "serialNumber is not a whole number")
    return signed, serial, made_at


def judge(proof: Proof, *, is_sandbox: bool, keys: Sequence[RsaKey]) -> ProofWord:
    """Verify a signature once more, with any of *keys*.

    Raises:
        SourceError: ``unproven``.
    """
    _, serial, made_at = _read_signed(proof.message)
    if (serial, made_at, proof.is_expanded) != (proof.serial, proof.made_at, False):
        raise _unproven(f"answer {proof.serial} is not what was signed")
    trusted = [SANDBOX_KEY] if is_sandbox else keys
    if not trusted:
        return ProofWord.UNVERIFIABLE
    if any(is_signed(key, proof.message, proof.signature) for key in trusted):
        return ProofWord.VERIFIED
    raise _unproven(f"the signature of answer {serial} does not verify")


def numbers_of(proof: Proof, fetch: Fetch) -> tuple[int, ...]:
    """Read the numbers of *fetch* in what was signed."""
    signed, _, _ = _read_signed(proof.message)
    asked = (signed.get("n"), signed.get("min"), signed.get("max"))
    if asked != (fetch.n, fetch.min, fetch.max):
        raise _unproven(f"answer {proof.serial} is not to what was asked")
    data = signed.get("data")
    if not isinstance(data, list):
        raise _unproven(f"answer {proof.serial} holds no numbers")
    return check_numbers(data, n=fetch.n, low=fetch.min, high=fetch.max)


class RandomOrgSigned(RandomOrgJsonrpc):
    """The signed API at api.random.org."""

    method = "generateSignedIntegers"

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str,
        is_sandbox: bool = False,
        proof_keys: Sequence[RsaKey] = (),
    ) -> None:
        super().__init__(base_url=base_url, api_key=api_key)
        self._is_sandbox, self._keys = is_sandbox, proof_keys
        self._newest: int | None = None  # serial number that is known
        self._wanted: dict[int, int] = {}  # serial numbers of lost answers, by fetch

    def remember(self, serial: int) -> None:
        """Take note of the newest answer that came in earlier runs."""
        self._newest = max(serial, self._newest or 0)

    def recall(self, fetch: Fetch, error: ErrorName) -> bool:
        """Look for a lost answer behind the newest that is known, until there is none to look at.

        What stands there may have been made for another; if nothing does, numbers are asked for
        anew, since nothing was paid.
        """
        wanted = self._wanted.get(fetch.number)
        if wanted is None:
            if error in _LOSSES and self._newest is not None:
                self._wanted[fetch.number] = self._newest + 1
                return True
        elif error is ErrorName.SCHEMA:
            self._wanted[fetch.number] = wanted + 1
            return True
        elif error is ErrorName.REFUSED:
            del self._wanted[fetch.number]
            return True
        return error in _LOSSES and wanted is not None

    def build_request(self, fetch: Fetch) -> httpx.Request:
        """Order numbers, or ask again for those whose answer was lost."""
        wanted = self._wanted.get(fetch.number)
        if wanted is not None:
            params: dict[str, object] = {"serialNumber": wanted}
            return self._endpoint.post(self._spell(fetch, "getResult", params))
        order = self._order(fetch) | {"userData": _name(fetch)}
        return self._endpoint.post(self._spell(fetch, self.method, order), is_paid=True)

    def cost_bits(self, fetch: Fetch, /) -> int:
        """Count none where they are paid already."""
        return 0 if fetch.number in self._wanted else super().cost_bits(fetch)

    def parse_answer(self, fetch: Fetch, answer: Answer) -> tuple[int, ...]:
        """Read the numbers, if they were made for *fetch*."""
        numbers = super().parse_answer(fetch, answer)
        if member(read_json(answer), "result", "random", "userData") != _name(fetch):
            raise SourceError(ErrorName.SCHEMA, "the answer was made for another request")
        return numbers

    def find_proof(self, answer: Answer) -> Proof:
        """Verify the signature, if the certificate is known."""
        message, signature = self._read(answer)
        _, serial, made_at = _read_signed(message)
        self.remember(serial)
        proof = Proof(
            scheme=SCHEME,
            key_id=_UNKNOWN_KEY,
            serial=serial,
            made_at=made_at,
            message=message,
            signature=signature,
            word=ProofWord.UNVERIFIABLE,
            is_expanded=False,
        )
        word = judge(proof, is_sandbox=self._is_sandbox, keys=self._keys)
        trusted = [SANDBOX_KEY] if self._is_sandbox else self._keys
        key = next((key for key in trusted if is_signed(key, message, signature)), None)
        return replace(proof, word=word, key_id=key.id if key else _UNKNOWN_KEY)

    def name_signing(self, answer: Answer) -> str:
        """Name the release and the length, and that of the pinned keys if it is another."""
        _, signature = self._read(answer)
        trusted = [SANDBOX_KEY] if self._is_sandbox else self._keys
        return name_signing(SCHEME, len(signature), [key.bytes for key in trusted])

    @staticmethod
    def _read(answer: Answer) -> tuple[bytes, bytes]:
        """Cut out what was signed, and read the signature."""
        document = read_json(answer)
        text = answer.body.decode()
        found = _BEFORE.search(text)
        _, end = json.JSONDecoder().raw_decode(text, found.end()) if found else (None, 0)
        message = text[found.end() : end] if found else "null"
        if json.loads(message) != member(document, "result", "random"):
            raise SourceError(ErrorName.SCHEMA, "random stands somewhere else in the answer")
        signature = member(document, "result", "signature")
        try:
            return message.encode(), base64.b64decode(str(signature), validate=True)
        except (binascii.Error, ValueError) as exc:
            raise SourceError(ErrorName.SCHEMA, "signature is no base64") from exc
