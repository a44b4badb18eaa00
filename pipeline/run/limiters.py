"""The limiters of one run: what earlier runs and other processes left of its upstreams."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sqlmodel import Session

from pipeline.clock import is_behind
from pipeline.lock import lock_path
from pipeline.pacing import Embargo, Pace, mend
from pipeline.run.breaker import Breaker
from pipeline.run.desk import Desk
from pipeline.run.limiter import Limiter
from pipeline.run.places import FilePlace, LeasePlace, Place
from pipeline.run.upstreams import Upstream
from pipeline.store import permissions
from pipeline.store.db import Store
from pipeline.store.permissions import find_pace
from pipeline.store.shared_clock import SharedClock
from pipeline.store.stamps import count_future


@dataclass(kw_only=True)
class Limiters:
    """Makes a limiter for each upstream of a run.

    Attributes:
        url: of the store.
        state_folder: holds the locks of a store that is no file.
        mended: what a clock that was ahead had laid on them and was taken back, a line each.
    """

    store: Store
    url: str
    state_folder: Path
    clock: SharedClock = field(default_factory=SharedClock)
    mended: list[str] = field(default_factory=list)
    _desk: Desk = field(init=False)

    def __post_init__(self) -> None:
        self._desk = Desk(self.store, self.clock)

    def open(self, upstreams: Sequence[Upstream]) -> dict[str, Limiter]:
        """Make them, by the keys of the *upstreams*."""
        keys = {upstream.key for upstream in upstreams if upstream.is_remembered}
        standings = self._find_standings(upstreams, keys) if keys else {}
        longest = defaultdict[str, float](float)
        for upstream in upstreams:
            seconds = upstream.policy.limits.attempt_seconds
            longest[upstream.key] = max(longest[upstream.key], seconds)
        return {
            upstream.key: self._limiter(
                upstream, longest[upstream.key], *standings.get(upstream.key, (None, 0))
            )
            for upstream in upstreams
        }

    def _limiter(
        self, upstream: Upstream, longest: float, embargo: Embargo | None, failures: int
    ) -> Limiter:
        return Limiter(
            upstream.key,
            upstream.rules,
            Breaker(upstream.breaker, failures),
            pace=Pace(embargo=embargo),
            store=self.store if upstream.is_remembered else None,
            new_place=self._places_at(upstream.key, longest),
            clock=self.clock,
            desk=self._desk if upstream.is_remembered else None,
        )

    def _places_at(self, key: str, longest: float) -> Callable[[], Place]:
        if self.store.is_server:
            return partial(LeasePlace, self.store, key, longest)
        name = hashlib.sha256(key.encode()).hexdigest()[:12]
        return partial(
            FilePlace, lock_path(self.url, f"asks-{name}", state_folder=self.state_folder)
        )

    def _find_standings(
        self, upstreams: Sequence[Upstream], keys: set[str]
    ) -> dict[str, tuple[Embargo | None, int]]:
        with self.store.read() as session:
            self.clock.read(session)
            wrong = self._find_wrong(session, upstreams, keys)
            runs, in_future = count_future(session, now=self.clock.now()) if wrong else (0, 0)
            standings = permissions.standing_of(session, upstreams=keys)
        # A run of this clock is among them; and one that is behind itself must not mend anything.
        if wrong and not is_behind(self.clock.now(), runs=runs, in_future=in_future):
            with self.store.write() as session:
                self._mend(session, wrong)
                standings = permissions.standing_of(session, upstreams=keys)
        return standings

    def _mend(self, session: Session, upstreams: Sequence[Upstream]) -> None:
        """Take back what a clock that was ahead has laid on *upstreams*; say so later."""
        now = self.clock.now()
        for upstream in upstreams:
            said = permissions.mend_pace(
                session, upstream=upstream.key, rules=upstream.rules, now=now
            )
            if said:
                self.mended.append(
                    f"{upstream.order.source}: a clock that was ahead had laid"
                    f" {', '.join(said)}; taken back, as if laid now"
                )

    def _find_wrong(
        self, session: Session, upstreams: Sequence[Upstream], keys: set[str]
    ) -> list[Upstream]:
        now = self.clock.now()
        ahead = permissions.names_ahead(session, now=now) & keys
        return [
            upstream
            for upstream in {each.key: each for each in upstreams}.values()
            if upstream.key in ahead
            and mend(find_pace(session, upstream=upstream.key), upstream.rules, now=now)[1]
        ]
