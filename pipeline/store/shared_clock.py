"""The clock that all processes with one store have in common: a server's own, else this machine's.

Moments that several machines keep (rates, embargoes, leases, signs of life) lie in the store by
this clock, so none of theirs need be right.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, func, select
from sqlmodel import Session

BELIEVED = timedelta(minutes=1)  # for so long clocks are taken to run alike


def read_clock(connection: Connection) -> datetime:
    """Read the clock of the store as it is now, and not when the transaction began."""
    if connection.dialect.name != "postgresql":
        return datetime.now(UTC)
    now: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return now.astimezone(UTC)


class SharedClock:
    """Shows the time of the store without asking for it each time.

    What a server's clock showed in an answer has passed when the answer is here; so this one is
    never ahead of it, and behind by the way back of the quickest answer of the last minute.

    Attributes:
        here: the clock of this machine.
    """

    def __init__(self, here: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.here = here
        self._ahead = timedelta(0)  # of the clock here
        self._learned_at: datetime | None = None

    def now(self) -> datetime:
        """Tell what it shows."""
        return self.shown_at(self.here())

    def shown_at(self, moment: datetime) -> datetime:
        """Tell what it showed at a *moment* of the clock here, not long ago."""
        return moment + self._ahead

    def learn(self, shown: datetime, *, asked_at: datetime) -> None:
        """Take in what it showed in an answer that was *asked_at* by the clock here."""
        answered_at = self.here()
        least, most = shown - answered_at, shown - asked_at
        last = self._learned_at
        is_known = last is not None and timedelta(0) <= answered_at - last <= BELIEVED
        if not is_known or not least <= self._ahead <= most:  # else a clock was set
            self._ahead, self._learned_at = least, answered_at

    def read(self, session: Session) -> datetime:
        """Ask the store, and learn from the answer."""
        connection = session.connection()
        if connection.dialect.name != "postgresql":
            return self.here()
        asked_at = self.here()
        shown = read_clock(connection)
        self.learn(shown, asked_at=asked_at)
        return shown
