"""What the tallies and losses of many runs add up to. Pure: one function adds up whatever runs.

Two of a kind are added with ``+``; so a year is the sum of its days and of the runs at its edges.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from math import sqrt
from typing import Any, Self, TypeVar

from pipeline.errors import ErrorName, Phase, Whose
from pipeline.models import Loss, Tally, Totals

COUNTS = tuple(each.name for each in fields(Totals))

T = TypeVar("T")


def _latest(moments: Iterable[Any]) -> Any:  # noqa: ANN401 - of one type, which may be any
    return max((moment for moment in moments if moment is not None), default=None)


def _plus(one: T, other: T, sums: Iterable[str], last: Iterable[str] = ()) -> T:
    """Add two of a kind: *sums* are added up, and the *last* moment or id of the two is taken."""
    added = {name: getattr(one, name) + getattr(other, name) for name in sums}
    latest = {name: _latest((getattr(one, name), getattr(other, name))) for name in last}
    return replace(one, **added, **latest)  # type: ignore[type-var]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceTotals(Totals):
    """All tallies of one source (and of one hour or day, if ``began_at`` is set), added up.

    Attributes:
        runs: in which it was wanted.
        answered: those of them that brought at least one batch.
        last_good_at: when the newest of these started, UTC.
        last_bad_at: when the newest run started that lost a batch or an attempt.
    """

    source: str
    began_at: datetime | None
    runs: int
    answered: int
    last_good_at: datetime | None
    last_bad_at: datetime | None

    def __add__(self, other: Self) -> Self:
        last = ("last_good_at", "last_bad_at")
        return _plus(self, other, (*COUNTS, "runs", "answered"), last)

    @property
    def share(self) -> float | None:
        """Give the share of the batches ordered that were collected; None if none was ordered."""
        return self.collected / self.ordered if self.ordered else None

    @property
    def success_share(self) -> float | None:
        """Give the share of the attempts that brought numbers; None without attempts."""
        return (self.attempts - self.failed_attempts) / self.attempts if self.attempts else None


@dataclass(frozen=True, slots=True, kw_only=True)
class LossTotals:
    """All losses of one source, error and phase (and hour or day), added up.

    Attributes:
        phase: None where nobody was asked; of all phases together if grouped by time.
    """

    source: str
    error: ErrorName
    phase: Phase | None
    began_at: datetime | None
    attempts: int
    batches: int
    first_at: datetime
    last_at: datetime
    last_attempt: int | None

    def __add__(self, other: Self) -> Self:
        added = _plus(self, other, ("attempts", "batches"), ("last_at", "last_attempt"))
        return replace(added, first_at=min(self.first_at, other.first_at))

    @property
    def whose(self) -> Whose:
        """Tell whose fault the error is."""
        return self.error.whose


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeTotals:
    """All numbers of one source in one range, added up exactly; those of the sandbox apart."""

    source: str
    is_sandbox: bool
    min: int
    max: int
    batches: int
    numbers: int
    sum: int

    def __add__(self, other: Self) -> Self:
        return _plus(self, other, ("batches", "numbers", "sum"))

    @property
    def mean(self) -> float:
        """Give the mean of the numbers."""
        return self.sum / self.numbers

    @property
    def expected_mean(self) -> float:
        """Give the mean of a fair source, whose numbers are equally likely."""
        return (self.min + self.max) / 2

    @property
    def z(self) -> float | None:
        """Tell how many standard errors the mean is off; None where the range holds one number.

        The discrete uniform distribution over k numbers has the variance (k² - 1) / 12, and the
        mean of n of them that divided by n.
        """
        k = self.max - self.min + 1
        if k == 1:
            return None
        # The difference is taken of integers: two means near 2**53 could not be told apart.
        off_by = 2 * self.sum - self.numbers * (self.min + self.max)
        return off_by / 2 / sqrt(self.numbers * (k * k - 1) / 12)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleTotals:
    """How one rule was kept by the requests to a source.

    Attributes:
        rule: the rate in force; None if there was none, or nobody knows.
        runs: that sent requests, ``attempts`` how many.
        violations: requests that broke it; None if nobody knows.
    """

    rule: str | None
    runs: int
    attempts: int
    violations: int | None

    def __add__(self, other: Self) -> Self:
        known = [n for n in (self.violations, other.violations) if n is not None]
        added = _plus(self, other, ("runs", "attempts"))
        return replace(added, violations=sum(known) if known else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class DaySum(Totals):
    """The tallies of a day in which all but the run is alike, added up.

    Attributes:
        rule: empty if there was none, or nobody knows.
        is_judged: whether it is known how the rule was kept.
        runs: in which the source was wanted, ``answered`` those that brought a batch, ``asked``
            those with attempts.
        last_good_at: when the newest of the answered ones started, ``last_bad_at`` the newest that
            lost a batch or an attempt.
    """

    began_at: datetime
    source: str
    is_sandbox: bool
    min: int
    max: int
    rule: str
    is_judged: bool
    runs: int
    answered: int
    asked: int
    last_good_at: datetime | None
    last_bad_at: datetime | None
    sum: int
    violations: int


def sum_day(day: datetime, tallies: Iterable[Tally]) -> list[DaySum]:
    """Add up the tallies of a day, in the order of their keys."""
    alike: defaultdict[tuple[Any, ...], list[Tally]] = defaultdict(list)
    for tally in tallies:
        rule, is_judged = tally.rule or "", tally.violations is not None
        key = (tally.source, tally.is_sandbox, tally.min, tally.max, rule, is_judged)
        alike[key].append(tally)
    return [_day_sum(day, key, of) for key, of in sorted(alike.items())]


def _day_sum(day: datetime, key: tuple[Any, ...], of: Sequence[Tally]) -> DaySum:
    names = ("source", "is_sandbox", "min", "max", "rule", "is_judged")
    return DaySum(
        began_at=day,
        **dict(zip(names, key, strict=True)),
        **{name: sum(getattr(tally, name) for tally in of) for name in (*COUNTS, "sum")},
        runs=len(of),
        answered=sum(tally.collected > 0 for tally in of),
        asked=sum(tally.attempts > 0 for tally in of),
        last_good_at=_latest(tally.started_at for tally in of if tally.collected),
        last_bad_at=_latest(
            t.started_at for t in of if t.failed or t.cancelled or t.failed_attempts
        ),
        violations=sum(tally.violations or 0 for tally in of),
    )


def sum_losses(day: datetime, losses: Iterable[Loss]) -> list[LossTotals]:
    """Add up the losses of a day by source, error and phase, in the order of these."""
    names = [each.name for each in fields(LossTotals) if each.name != "began_at"]
    each = (LossTotals(**{n: getattr(loss, n) for n in names}, began_at=day) for loss in losses)
    alike = add_alike(each, lambda of: (of.source, of.error, of.phase or ""))
    return [of for _, of in sorted(alike.items())]


def add_alike(found: Iterable[T], key: Callable[[T], Any]) -> dict[Any, T]:
    """Add up, with ``+``, those of *found* that have the same *key*."""
    alike: dict[Any, T] = {}
    for each in found:
        of = key(each)
        alike[of] = alike[of] + each if of in alike else each  # type: ignore[operator]
    return alike
