"""The engine: Procrastinate hands portions out to workers, in a schema of its own beside ours.

It gives a portion to one worker at a time, wakes idle ones, and knows whose worker died. What is to
be done lies in our tables (``store/portions.py``): a job that is lost is made anew from there.
"""

import asyncio
import logging
from collections import deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager, suppress
from time import monotonic
from typing import Any

import psycopg
from procrastinate import App, BaseConnector, PsycopgConnector, exceptions
from procrastinate.jobs import Job, Status
from procrastinate.manager import JobManager
from procrastinate.schema import SchemaManager
from sqlalchemy import make_url, text
from sqlmodel import Session

from pipeline.errors import StoreBusy, StoreError
from pipeline.run.together import Together
from pipeline.store.db import Store

SCHEMA = "procrastinate"
TASK, NAME = "portion", "pipeline"
PACED, UNPACED = "paced", "unpaced"  # queues
STALLED_SECONDS = 20.0  # whoever was not heard for so long is dead, and its portions go to others
BEAT_SECONDS = 5.0
POLL_SECONDS = 0.5  # nobody is woken when a lock comes free
KEY = 7_305_812_447  # of the lock of whoever creates the schema
CONNECTIONS = 4
MOST_AT_ONCE = 100  # jobs that one worker fetches
GIVE_UP_SECONDS = 2.0  # for portions whose job may be another's by now

_UNHANDED = text(
    f"""
    SELECT portion.run_id, portion.first, portion.lock, portion.rank
    FROM portions AS portion JOIN runs ON runs.id = portion.run_id
    WHERE runs.status = 'running' AND portion.ended_at IS NULL
    AND portion.run_id || ':' || portion.first NOT IN (
        SELECT queueing_lock FROM {SCHEMA}.procrastinate_jobs
        WHERE status IN ('todo', 'doing') AND queueing_lock IS NOT NULL
    )
    ORDER BY portion.run_id, portion.rank, portion.first
    LIMIT 1000
    """  # noqa: S608 - a constant
)

# As the engine's own statement does for one, of jobs that all have a lock: not what another job of
# the same lock comes before. And no more than a share, so that others get some as well; those that
# ask at once begin at different places, or all but one would find what they chose taken, and sleep.
# Each table is walked over once, whatever the planner believes of its size.
_FETCH = f"""
    WITH workers AS (
        SELECT greatest(1, count(*)) AS n FROM {SCHEMA}.procrastinate_workers
    ), waiting AS MATERIALIZED (
        SELECT id, priority, lock, row_number() OVER its AS place
        FROM {SCHEMA}.procrastinate_jobs
        WHERE status = 'todo' AND queue_name = ANY(%(queues)s::varchar[])
        AND (scheduled_at IS NULL OR scheduled_at <= now())
        WINDOW its AS (PARTITION BY lock ORDER BY priority DESC, id)
    ), free AS (
        SELECT id FROM waiting WHERE place = 1 AND lock NOT IN (
            SELECT lock FROM {SCHEMA}.procrastinate_jobs WHERE status = 'doing' AND lock IS NOT NULL
        )
        ORDER BY priority DESC, (id + %(worker_id)s) %% (SELECT n FROM workers), id
        LIMIT least(%(most)s, greatest(1, (SELECT count(*) FROM waiting) / (SELECT n FROM workers)))
    ), candidate AS (
        SELECT id FROM {SCHEMA}.procrastinate_jobs
        WHERE id = ANY(ARRAY(SELECT id FROM free)) AND status = 'todo'
        ORDER BY id FOR UPDATE SKIP LOCKED
    )
    UPDATE {SCHEMA}.procrastinate_jobs AS job SET status = 'doing', worker_id = %(worker_id)s
    FROM candidate WHERE job.id = candidate.id
    RETURNING job.id, status, task_name, priority, lock, queueing_lock, args, scheduled_at,
        queue_name, attempts, worker_id
"""  # noqa: S608 - a constant

_END = f"DELETE FROM {SCHEMA}.procrastinate_jobs WHERE id = ANY(%(ids)s)"  # noqa: S608 - a constant


@contextmanager
def errors() -> Iterator[None]:
    """Turn every error of the engine's connections into a StoreError of one line."""
    try:
        yield
    except (psycopg.Error, exceptions.ConnectorException) as exc:
        cause = exc.__cause__ if isinstance(exc.__cause__, psycopg.Error) else exc
        why = str(cause).strip().partition("\n")[0]
        kind = StoreBusy if isinstance(cause, psycopg.OperationalError) else StoreError
        raise kind(f"the engine's tables in the store: {why}") from exc


class _Jobs(JobManager):
    """Hands jobs to the engine's worker: it fetches and ends as many at once as there are.

    Attributes:
        room: tells how many more this worker takes now.
    """

    def __init__(self, connector: BaseConnector, room: Callable[[], int]) -> None:
        super().__init__(connector)
        self._room = room
        self._fetched: deque[Job] = deque()
        self._ending = Together(self._end)

    async def fetch_job(self, queues: Iterable[str] | None, worker_id: int) -> Job | None:
        """Give a job that was fetched, or fetch some."""
        if queues == [UNPACED]:
            return await super().fetch_job(queues, worker_id)
        if not self._fetched:
            rows = await self.connector.execute_query_all_async(
                query=_FETCH,
                queues=queues,
                worker_id=worker_id,
                most=max(1, min(MOST_AT_ONCE, self._room())),
            )
            self._fetched += map(Job.from_row, rows)
        return self._fetched.popleft() if self._fetched else None

    async def finish_job(self, job: Job, status: Status, delete_job: bool) -> None:
        """Delete a job, whatever came of it: what is left to be done lies in our tables."""
        del status, delete_job
        await self._ending.ask(job.id)

    async def _end(self, ids: Sequence[int | None]) -> Mapping[int | None, None]:
        await self.connector.execute_query_async(query=_END, ids=ids)
        return {}

    async def give_back(self) -> None:
        """Leave what was fetched and not begun to others."""
        while self._fetched:
            await self.retry_job(self._fetched.popleft())


class Engine:
    """The engine's part of one store, for one worker.

    *carry_out* is given a run and the first batch of a portion.
    """

    def __init__(
        self,
        url: str,
        carry_out: Callable[[int, int], Awaitable[None]],
    ) -> None:
        parsed = make_url(url).set(drivername="postgresql")
        self._address = parsed.render_as_string(hide_password=False)
        self._carry_out = carry_out
        self._in_hand = self._lanes = 0
        _quiet()

    def create_schema(self) -> None:
        """Make the engine's tables, unless they are there; of several at once one does."""
        with errors(), psycopg.connect(self._address, options=_options()) as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (KEY,))
            found = connection.execute(
                "SELECT to_regclass(%s)", (f"{SCHEMA}.procrastinate_jobs",)
            ).fetchone()
            if found is None or found[0] is None:
                connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
                connection.execute(SchemaManager.get_schema())

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[App]:
        """Connect for a while."""
        connector = PsycopgConnector(
            conninfo=self._address,
            kwargs={"options": _options()},
            min_size=1,
            max_size=CONNECTIONS,
        )
        app = App(connector=connector)
        app.job_manager = self._jobs = _Jobs(connector, lambda: self._lanes - self._in_hand)
        app.task(name=TASK)(self._portion)
        asyncio.get_running_loop().set_exception_handler(_report)
        with errors():
            async with app.open_async():
                yield app

    async def _portion(self, *, run_id: int, first: int) -> None:
        self._in_hand += 1
        try:
            await self._carry_out(run_id, first)
        finally:
            self._in_hand -= 1

    async def work(
        self, app: App, stopping: asyncio.Event, *, lanes: int, drain_seconds: float
    ) -> None:
        """Carry out portions until *stopping*, then finish those in hand within *drain_seconds*.

        It returns as well when the database is lost: what is in hand is given up, for others may
        have it by now; what came of it is stored when the database is back.
        """
        self._lanes = lanes
        # Tasks of their own: they must be cancelled once, and drain then. What no rate holds back
        # keeps a core busy, so each worker has one portion of that kind at a time, or the first
        # that looks would take all.
        working = {
            asyncio.create_task(_work(app, queue, concurrency))
            for queue, concurrency in ((PACED, lanes), (UNPACED, 1))
        }
        told_to_stop = asyncio.create_task(stopping.wait())
        await asyncio.wait({*working, told_to_stop}, return_when=asyncio.FIRST_COMPLETED)
        drained_at = monotonic() + drain_seconds
        while self._in_hand and stopping.is_set() and monotonic() < drained_at:  # noqa: ASYNC110 - jobs end one by one, and tell nobody
            await asyncio.sleep(POLL_SECONDS / 10)
        for task in (*working, told_to_stop):
            task.cancel()
        with errors():
            for ended in await asyncio.gather(*working, return_exceptions=True):
                if isinstance(ended, Exception):
                    raise ended
            await self._jobs.give_back()

    async def hand_out(self, app: App, store: Store) -> None:
        """Make jobs of the portions that have none, and give those of dead workers to others."""
        with errors():
            manager = app.job_manager
            for job in await manager.get_stalled_jobs(seconds_since_heartbeat=STALLED_SECONDS):
                await manager.retry_job(job)
            unhanded = await store.commit(_find_unhanded)
            jobs = [_job(app, *portion) for portion in unhanded]
            if jobs:
                # If another worker hands out as well, one of us is told, and looks again.
                with suppress(exceptions.AlreadyEnqueued):
                    await manager.batch_defer_jobs_async(jobs)


def _job(app: App, run_id: int, first: int, lock: str | None, rank: int) -> Job:
    deferrer = app.configure_task(
        TASK,
        queue=UNPACED if lock is None else PACED,
        lock=lock,
        queueing_lock=f"{run_id}:{first}",
        priority=-rank,
    )
    return deferrer.make_new_job(run_id=run_id, first=first)


async def _work(app: App, queue: str, concurrency: int) -> None:
    await app.run_worker_async(
        queues=[queue],
        name=NAME,
        concurrency=concurrency,
        install_signal_handlers=False,
        fetch_job_polling_interval=POLL_SECONDS,
        shutdown_graceful_timeout=GIVE_UP_SECONDS,
        update_heartbeat_interval=BEAT_SECONDS,
        stalled_worker_timeout=10 * STALLED_SECONDS,
        delete_jobs="always",
    )


def _find_unhanded(session: Session) -> list[tuple[int, int, str | None, int]]:
    found = session.connection().execute(_UNHANDED)
    return [(row.run_id, row.first, row.lock, row.rank) for row in found]


def _quiet() -> None:
    """Let the engine say nothing but that there is a bug in a portion: we tell what is lost."""
    for name in ("procrastinate", "psycopg.pool"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    jobs = logging.getLogger("procrastinate.worker")
    jobs.setLevel(logging.ERROR)
    jobs.addFilter(_is_bug)
    logging.getLogger(f"{jobs.name}.{NAME}").setLevel(logging.CRITICAL)


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Leave out that the engine could not reach its server while we left: we have said so."""
    if not isinstance(context.get("exception"), exceptions.ProcrastinateException):
        loop.default_exception_handler(context)


def _is_bug(entry: logging.LogRecord) -> bool:
    return getattr(entry, "action", "") == "job_error"


def _options() -> str:
    return f"-c search_path={SCHEMA} -c timezone=UTC"
