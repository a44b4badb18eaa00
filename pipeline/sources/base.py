"""What every source adapter is: pure translation between batches and one upstream's wire format."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, runtime_checkable

import httpx2 as httpx

from pipeline.errors import ErrorName
from pipeline.models import Fetch, Proof


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One HTTP response, whole: the body is within the byte cap and not encoded.

    Attributes:
        asked: the address that was asked, if it is known.
        accepted_types: media types that are fine besides the agreed one.
        documents: the body read as JSON, once somebody did; so that nobody reads it again.
    """

    status: int
    headers: httpx.Headers
    body: bytes
    asked: httpx.URL | None = field(default=None, repr=False, compare=False)
    accepted_types: frozenset[str] = frozenset()
    documents: list[object] = field(default_factory=list, init=False, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """What an answer says about when to ask again.

    Attributes:
        wait_seconds: from the moment of the answer, more than 0; as asked, however long.
        why: one short printable line of ASCII, for a person.
        is_ours: whether nothing was asked and the wait is our own first one; it grows while the
            upstream goes on refusing.
    """

    wait_seconds: float
    why: str
    is_ours: bool = False


class Source(Protocol):
    """One upstream API. It does no I/O, so bytes alone test it and replay it."""

    def max_numbers(self, low: int, high: int) -> int:
        """Count the numbers in [low, high] that one request can bring, at least 1.

        Raises:
            ConfigError: this upstream cannot serve that range at all.
        """

    def build_request(self, fetch: Fetch) -> httpx.Request:
        """Say what to send for *fetch*; the caller adds nothing but connection headers."""

    def parse_answer(self, fetch: Fetch, answer: Answer) -> tuple[int, ...]:
        """Read exactly ``fetch.n`` integers in [``fetch.min``, ``fetch.max``] from *answer*.

        Raises:
            SourceError: the answer is anything else; the error is the published name.
        """

    def find_hint(self, answer: Answer, now: datetime) -> Hint | None:
        """Say how long *answer*, which came at *now* (UTC), asks not to be asked again.

        Takes every answer, good or bad, and never raises. Of several waits the longest counts;
        None: not a word about any.
        """

    def cost_bits(self, fetch: Fetch, /) -> int:
        """Count the random bits that *fetch* is charged with; 0 where no bits are counted."""


@runtime_checkable
class Proving(Protocol):
    """What a source that signs its numbers knows besides."""

    def find_proof(self, answer: Answer) -> Proof:
        """Read what was signed from *answer*, which holds good numbers, and verify it.

        Raises:
            SourceError: ``unproven``: it does not verify, and should.
        """

    def name_signing(self, answer: Answer) -> str:
        """Say in a few words how *answer* is signed, whether it verifies or not.

        Raises:
            SourceError: it does not say.
        """


@runtime_checkable
class Recalling(Protocol):
    """What a source that keeps its answers knows besides: one that was lost can be had again."""

    def remember(self, serial: int) -> None:
        """Take note of the newest answer that came in earlier runs."""

    def recall(self, fetch: Fetch, error: ErrorName) -> bool:
        """Decide what is asked next for *fetch*, whose last attempt ended in *error*.

        True where that was a loss, or the end of looking for what was lost: to ask again can help.
        """
