"""Who is told of a run, and when: a ping, a metrics file, a command, traces.

Each is optional, bounded in time, and none can harm the run: what goes wrong is a complaint.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from operator import attrgetter
from pathlib import Path
from threading import Thread
from uuid import uuid4

from sqlmodel import Session

from pipeline.audit import examine
from pipeline.errors import StoreError
from pipeline.models import Attempt, Finding, Loss, RunStatus, RunSummary, Tally
from pipeline.notify.hook import run_hook, secret_variables
from pipeline.notify.metrics import write_metrics
from pipeline.notify.ping import ping_end, ping_start
from pipeline.notify.traces import send_traces
from pipeline.settings import Settings
from pipeline.store import history, queries
from pipeline.store.db import open_store
from pipeline.store.history import Window

LOOKS_BACK = timedelta(days=7)  # for the findings that a command is told
MOST_FINDINGS = 10  # that it is told
INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Account:
    """What is on disk about a run and is told of it."""

    tallies: list[Tally]
    losses: list[Loss]
    attempts: list[Attempt]
    before: RunSummary | None
    findings: list[Finding]  # about its sources, those that go on first


class Teller:
    """Tells of one run what the ``[notify]`` table wants told; of none if it is empty."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._notify = settings.notify
        self._environ = environ
        self._ping_url = settings.notify.ping_url.get_secret_value()
        self._complaints: list[str] = []
        self._start: Thread | None = None
        self._begun: str | None = None  # the uid of the run that goes on

    def begin(self, uid: str) -> None:
        """Tell that the run *uid* has begun; nobody waits for that."""
        self._begun = uid
        if self._ping_url:
            self._start = Thread(target=self._ping_start, args=(uid,), daemon=True)
            self._start.start()

    def _ping_start(self, uid: str) -> None:
        self._hear(ping_start(self._ping_url, uid=uid, seconds=self._notify.seconds))

    def _hear(self, complaint: str | None) -> None:
        if complaint is not None:
            self._complaints.append(complaint)

    def end(self, run: RunSummary, exit_status: int, text: str) -> list[str]:
        """Tell how *run* ended, *text* in one line for people; give the complaints."""
        self._begun = None
        self._ping(run.uid, exit_status, text)
        notify = self._notify
        if notify.metrics_file or notify.on_failure or notify.on_recovery or notify.otel:
            try:
                account = self._read(run)
            except StoreError as exc:
                self._hear(f"nobody was told of run {run.id}: {exc}")
            else:
                self._tell(run, account, exit_status, text)
        return self._take_complaints()

    def fail(self, exit_status: int, text: str) -> list[str]:
        """Tell that no run came about, or that nobody could write down how it ended."""
        self._ping(self._begun or uuid4().hex, exit_status, text)
        self._run_command(self._notify.on_failure, "failure", exit_status, text)
        return self._take_complaints()

    def _take_complaints(self) -> list[str]:
        taken, self._complaints = self._complaints, []
        return taken

    def _ping(self, uid: str, exit_status: int, text: str) -> None:
        if self._start is not None:
            self._start.join(self._notify.seconds)  # else the end could arrive before it
        if self._ping_url:
            seconds = self._notify.seconds
            self._hear(
                ping_end(
                    self._ping_url, uid=uid, exit_status=exit_status, text=text, seconds=seconds
                )
            )

    def _read(self, run: RunSummary) -> _Account:
        url, busy_seconds = self._settings.store.url, self._settings.store.busy_seconds
        with (
            open_store(url, busy_seconds=busy_seconds, for_writing=False) as store,
            store.read() as session,
        ):
            return self._read_account(session, run)

    def _read_account(self, session: Session, run: RunSummary) -> _Account:
        notify = self._notify
        same_start = Window(since=run.started_at, until=run.started_at + INSTANT)
        is_audited = bool(notify.on_failure or notify.on_recovery)
        lately = Window(since=run.started_at - LOOKS_BACK)
        sent = queries.exchanges_of_run(session, run_id=run.id) if notify.otel else ()
        attempts = (record.attempt for record in sent)
        tallies = history.tallies_of_run(session, run_id=run.id)
        found = examine(session, lately).findings if is_audited else []
        return _Account(
            tallies=tallies,
            losses=[loss for loss in history.losses(session, same_start) if loss.run_id == run.id],
            attempts=sorted(attempts, key=attrgetter("fetch", "number")),
            before=queries.run_before(session, run=run),
            findings=_select_findings(found, {tally.source for tally in tallies}),
        )

    def _tell(self, run: RunSummary, account: _Account, exit_status: int, text: str) -> None:
        notify = self._notify
        if notify.metrics_file:
            self._hear(
                write_metrics(
                    Path(notify.metrics_file),
                    run=run,
                    exit_status=exit_status,
                    tallies=account.tallies,
                    losses=account.losses,
                    seconds=notify.seconds,
                )
            )
        if notify.otel:
            self._hear(send_traces(run, account.attempts, seconds=notify.seconds))
        was_well = account.before is None or account.before.status is RunStatus.OK
        if exit_status:
            about = {"run": run, "is_first": was_well, **_findings_json(account.findings)}
            self._run_command(notify.on_failure, "failure", exit_status, text, **about)
        elif not was_well:
            about = {"run": run, "is_first": True, **_findings_json(account.findings)}
            self._run_command(notify.on_recovery, "recovery", exit_status, text, **about)

    def _run_command(
        self, command: tuple[str, ...], event: str, exit_status: int, text: str, **about: object
    ) -> None:
        if not command:
            return
        head = {
            "schema": "pipeline.notification/1",
            "event": event,
            "exit_status": exit_status,
            "message": text,
            "run": None,
            "is_first": None,
            **_findings_json([]),
        }
        self._hear(
            run_hook(
                command,
                head | about,
                environ=self._environ,
                secrets=secret_variables(self._settings),
                seconds=self._notify.seconds,
            )
        )


def _select_findings(findings: Iterable[Finding], sources: Collection[str]) -> list[Finding]:
    """Pick what concerns any of *sources*, those that still go on first, else as they came."""
    theirs = (finding for finding in findings if not {*finding.sources}.isdisjoint(sources))
    return sorted(theirs, key=lambda finding: finding.until is not None)


def _findings_json(findings: Sequence[Finding]) -> dict[str, object]:
    more = max(0, len(findings) - MOST_FINDINGS)
    return {"findings": findings[:MOST_FINDINGS], "more_findings": more}
