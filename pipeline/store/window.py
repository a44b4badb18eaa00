"""A stretch of time, and how a query keeps to it."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import BigInteger, Column, ColumnElement, func, type_coerce
from sqlmodel import Session

from pipeline.models import Step
from pipeline.store.columns import MICROSECOND, UtcTime

FEW_HOURS = 15 * 24  # a longer window is read by days
LENGTHS = {Step.HOUR: timedelta(hours=1), Step.DAY: timedelta(days=1)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch of time in UTC, from ``since`` up to but without ``until``; None: without end."""

    since: datetime | None = None
    until: datetime | None = None

    @property
    def is_empty(self) -> bool:
        """Tell whether it ends before it begins, or at once."""
        return self.since is not None and self.until is not None and self.since >= self.until

    def has(self, moment: datetime) -> bool:
        """Tell whether *moment* lies in it."""
        return (self.since is None or self.since <= moment) and (
            self.until is None or moment < self.until
        )

    @property
    def step(self) -> Step:
        """Say how wide the columns of a chart over this window are."""
        if self.since is None:
            return Step.DAY
        end = self.until or datetime.now(UTC)
        is_short = end - self.since <= timedelta(hours=FEW_HOURS)
        return Step.HOUR if is_short else Step.DAY


EVERYTHING = Window()


def within(moment: ColumnElement[datetime], window: Window) -> list[ColumnElement[bool]]:
    """Give the conditions that keep a *moment* to a *window*; none if it has no ends."""
    since = [] if window.since is None else [moment >= window.since]
    return since if window.until is None else [*since, moment < window.until]


def of_source(column: Column[str], source: str | None) -> list[ColumnElement[bool]]:
    """Give the condition that a *column* names *source*; none if that is None, for all of them."""
    return [] if source is None else [column == source]


def period_of(
    session: Session, moment: ColumnElement[datetime], step: Step
) -> ColumnElement[datetime]:
    """Give the hour or day in UTC that a moment falls into, by its first instant, to group by."""
    if session.connection().dialect.name != "sqlite":
        return func.date_trunc(step.value, moment)
    us = LENGTHS[step] // MICROSECOND
    return type_coerce(type_coerce(moment, BigInteger) // us * us, UtcTime)
