"""Verify proofs again, and make the numbers that follow from them, whoever signed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.errors import ErrorName, SourceError
from pipeline.models import Fetch, Proof, ProofWord
from pipeline.sources import drand, nist_beacon, random_org_signed
from pipeline.sources.rsa import RsaKey


class _Judge(Protocol):
    def __call__(
        self, proof: Proof, /, *, is_sandbox: bool, keys: Sequence[RsaKey]
    ) -> ProofWord: ...


@dataclass(frozen=True, slots=True)
class _Scheme:
    """How one kind of proof is verified, and what numbers follow from it."""

    judge: _Judge
    numbers_of: Callable[[Proof, Fetch], tuple[int, ...]]


_SCHEMES = dict.fromkeys(drand.SCHEMES, _Scheme(drand.judge, drand.numbers_of)) | {
    random_org_signed.SCHEME: _Scheme(random_org_signed.judge, random_org_signed.numbers_of),
    nist_beacon.SCHEME: _Scheme(nist_beacon.judge, nist_beacon.numbers_of),
}


def judge(proof: Proof, fetch: Fetch, keys: Sequence[RsaKey] = ()) -> ProofWord:
    """Verify *proof*, which came with the numbers of *fetch*, with the keys that are pinned.

    *keys* are those that the user has pinned for its source.

    Raises:
        SourceError: ``unproven``: it does not verify, and should.
    """
    is_sandbox = any(batch.is_sandbox for batch in fetch.batches)
    return _find_scheme(proof).judge(proof, is_sandbox=is_sandbox, keys=keys)


def numbers_of(proof: Proof, fetch: Fetch) -> tuple[int, ...]:
    """Make the numbers of all batches of *fetch* that follow from *proof*.

    Raises:
        SourceError: none do.
    """
    return _find_scheme(proof).numbers_of(proof, fetch)


def _find_scheme(proof: Proof) -> _Scheme:
    try:
        return _SCHEMES[proof.scheme]
    except KeyError:
        raise SourceError(ErrorName.UNPROVEN, f"no scheme {proof.scheme!a} is known") from None


class Course:
    """The pulses of one source so far that later ones must name: the newest, and some firsts."""

    def __init__(self) -> None:
        self._known: dict[str, Proof] = {}  # the newest, and the first of its hour, day and so on

    def contradiction(self, proof: Proof) -> str | None:
        """Say how *proof* contradicts those before it, if it does; and remember it."""
        if proof.scheme != nist_beacon.SCHEME:
            return None
        told = (nist_beacon.contradiction(earlier, proof) for earlier in self._known.values())
        found = next(filter(None, told), None)
        for name in ("newest", *nist_beacon.begins(proof)):
            self._known[name] = proof
        return found
