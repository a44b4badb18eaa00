"""Tallies and losses as runs leave them, five minutes apart, with as little said as possible."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from pipeline.audit.courses import Course, follow
from pipeline.audit.observations import observe
from pipeline.errors import ErrorName, Phase
from pipeline.models import Loss, Tally
from tests.store.makers import NOON, at

EVERY = 5  # minutes from run to run


def make_tally(run: int = 0, source: str = "dice", **facts: object) -> Tally:
    """Get one batch of three numbers with one request, unless *facts* say otherwise."""
    plain: dict[str, object] = {
        "started_at": at(EVERY * run),
        "run_id": run,
        "source": source,
        "is_sandbox": False,
        "min": 1,
        "max": 6,
        "collected": 1,
        "failed": 0,
        "deferred": 0,
        "cancelled": 0,
        "numbers": 3,
        "sum": 18,
        "attempts": 1,
        "failed_attempts": 0,
        "retries": 0,
        "retries_helped": 0,
        "wait_us": 0,
        "exchange_us": 2_000,
        "fastest_us": 2_000,
        "fastest_attempt": run,
        "first_sent_at": at(EVERY * run),
        "last_sent_at": at(EVERY * run),
        "rule": "1/60s",
        "violations": 0,
        "violating_attempt": None,
    }
    return Tally(**(plain | facts))  # type: ignore[arg-type] # each test says what it means


def make_loss(
    run: int = 0,
    source: str = "dice",
    error: ErrorName = ErrorName.HTTP_5XX,
    *,
    batches: int = 1,
    attempts: int = 1,
) -> Loss:
    """Lose one batch to one attempt, whose number is that of the run."""
    return Loss(
        started_at=at(EVERY * run),
        run_id=run,
        source=source,
        error=error,
        phase=Phase.CHECK if attempts else None,
        attempts=attempts,
        batches=batches,
        first_at=at(EVERY * run),
        last_at=at(EVERY * run),
        first_attempt=run if attempts else None,
        last_attempt=run if attempts else None,
    )


def fail(run: int, source: str = "dice") -> Tally:
    """Lose all that was wanted."""
    return make_tally(
        run, source, collected=0, failed=1, failed_attempts=1, fastest_us=None, fastest_attempt=None
    )


class History:
    """Runs one after the other, each written as a word per source.

    ``.`` is a run that went well, an error's name one that was lost to it, ``-`` one in which the
    source was put off, and nothing where it was not wanted.
    """

    def __init__(self, **sources: str) -> None:
        self.tallies: list[Tally] = []
        self.losses: list[Loss] = []
        words = {name: text.split() for name, text in sources.items()}
        for run in range(max(map(len, words.values()))):
            self._add(run + 1, {name: of[run] for name, of in words.items() if run < len(of)})

    def _add(self, run: int, words: Mapping[str, str]) -> None:
        for source, word in sorted(words.items()):
            if word == ".":
                self.tallies.append(make_tally(run, source))
            elif word == "-":
                self.tallies.append(make_tally(run, source, collected=0, deferred=1, attempts=0))
            else:
                self.tallies.append(fail(run, source))
                self.losses.append(make_loss(run, source, ErrorName(word)))


def courses_of(tallies: Iterable[Tally], losses: Iterable[Loss] = ()) -> dict[str, Course]:
    """Follow the sources through all of these."""
    return follow(observe(tallies, losses))


def after(run: float) -> datetime:
    """Give the moment at which a run starts."""
    return NOON + timedelta(minutes=EVERY * run)
