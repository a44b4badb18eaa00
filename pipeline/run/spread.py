"""A run that is ordered here and carried out by the workers of a shared store."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from time import monotonic

import anyio
from sqlmodel import Session

from pipeline.errors import ConfigError, ErrorName, ungrouped
from pipeline.models import RunStatus, RunSummary
from pipeline.run.collect import Run, watch_signals
from pipeline.run.collected import Collected
from pipeline.run.limits import describe_limits
from pipeline.run.opening import give_signs_of_life
from pipeline.run.recorder import Progress
from pipeline.run.shared import cut, end_run, refuse_sandbox
from pipeline.run.turns import Turn
from pipeline.run.upstreams import Upstream, make_upstreams
from pipeline.store import portions
from pipeline.store.history import losses_of_run
from pipeline.store.queries import get_run

LOOK_SECONDS = 0.5  # between two looks at how far it is
LAST_WRITES = timedelta(seconds=30)  # that the workers may take after the deadline to end it


class SpreadRun(Run):
    """One run that workers share: cut into portions, and waited for to its end."""

    async def carry_out(self, turn: Turn, on_progress: Callable[[Progress], object]) -> Collected:
        """Order, cut, wait until the workers have ended it, and tell how it ended."""
        if not self.store.is_server:
            raise ConfigError(
                "--spread: the store is a file of this machine, and workers share a server's:"
                " set store.url to a PostgreSQL server"
            )
        self._began, self._began_at = monotonic(), datetime.now(UTC)
        scope = anyio.CancelScope()
        with ungrouped():
            async with self.store.heeding_time(), anyio.create_task_group() as tasks:
                tasks.start_soon(watch_signals, scope, self._caught)
                upstreams = make_upstreams(self.settings, refuse_sandbox)
                limits = partial(describe_limits, self.settings, upstreams)
                upstreams = [replace(each, order=each.order.drawn()) for each in upstreams]
                run_id = await self.store.in_thread(self._start, upstreams, limits)
                self.store.may_wait = lambda: not self._caught
                tasks.start_soon(give_signs_of_life, self.store, run_id, turn)
                with scope:
                    await self._wait(run_id, on_progress)
                status = RunStatus.INTERRUPTED if self._caught else None
                summary = await self.store.in_thread(self._end, run_id, upstreams, status)
                tasks.cancel_scope.cancel()
        return self._collected(summary)

    def _cut(self, session: Session, run_id: int, upstreams: Sequence[Upstream]) -> None:
        portions.order(session, cut(run_id, upstreams))

    async def _wait(self, run_id: int, on_progress: Callable[[Progress], object]) -> None:
        """Show how far it is until it has ended, or should have long ago."""
        give_up_at = self._began_at + LAST_WRITES
        give_up_at += timedelta(seconds=self.settings.collect.deadline_seconds)
        while datetime.now(UTC) < give_up_at:
            run, progress = await self.store.patiently(self._look, run_id)
            on_progress(progress)
            if run.status is not RunStatus.RUNNING:
                return
            await anyio.sleep(LOOK_SECONDS)

    def _look(self, run_id: int) -> tuple[RunSummary, Progress]:
        with self.store.read() as session:
            run = get_run(session, run_id=run_id)
            collected, lost = portions.count_outcomes(session, run_id=run_id)
        ordered = sum(len(each.batch_sizes) for each in self.settings.enabled_sources.values())
        return run, Progress(ordered=ordered, collected=collected, lost=lost)

    def _end(
        self, run_id: int, upstreams: Sequence[Upstream], status: RunStatus | None
    ) -> RunSummary:
        known = {upstream.order.source: upstream for upstream in upstreams}
        end_run(self.store, known, run_id, status=status)
        with self.store.write() as session:
            return self._settle(session, run_id)

    def _collected(self, summary: RunSummary) -> Collected:
        with self.store.read() as session:
            lost = losses_of_run(session, run=summary)
        lost_batches = Counter[tuple[str, ErrorName]]()
        for loss in lost:  # once for each phase
            lost_batches[loss.source, loss.error] += loss.batches
        is_cut = summary.status is RunStatus.INTERRUPTED and bool(self._caught)
        return Collected(
            summary=summary,
            stopped_by=self._caught[0] if is_cut else None,
            losses=tuple((*cause, n) for cause, n in lost_batches.most_common() if n),
            has_bug=any(loss.error is ErrorName.INTERNAL for loss in lost),
        )
