"""Send the notifications of ``[notify]`` about a run: ping, metrics file, page, command, traces.

Each is optional, bounded in time, and none can harm the run: what goes wrong is a complaint.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Thread
from uuid import uuid4

from pipeline.errors import StoreError
from pipeline.models import Finding, RunSummary
from pipeline.notify.harmless import put_file
from pipeline.notify.hook import run_hook, secret_variables
from pipeline.notify.metrics import write_metrics
from pipeline.notify.ping import ping_end, ping_start
from pipeline.notify.traces import send_traces
from pipeline.rendering.records import pick
from pipeline.rendering.vocabulary import FINDING, RUN
from pipeline.settings import Settings
from pipeline.store.db import Store

MOST_FINDINGS = 10  # that a command is told


class Notifier:
    """Tells of runs what the ``[notify]`` table wants told; nothing if it is empty."""

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

    def end(self, store: Store, run: RunSummary, exit_status: int, text: str) -> list[str]:
        """Tell how *run* of *store* ended, *text* in one line for people; give the complaints."""
        self._begun = None
        self._ping(run.uid, exit_status, text)
        notify = self._notify
        if notify.metrics_file or notify.on_failure or notify.on_recovery or notify.otel:
            self._tell(store, run, exit_status, text)
        if notify.html_file:
            self._write_page(store, run)
        return self._take_complaints()

    def _write_page(self, store: Store, run: RunSummary) -> None:
        from pipeline.report.overview import make_html_file  # noqa: PLC0415 - brings all reports along

        try:
            with store.read() as session:
                page = make_html_file(session, self._settings)
        except StoreError as exc:
            self._hear(f"the page does not show run {run.id}: {exc}")
        else:
            path, seconds = Path(self._notify.html_file), self._notify.seconds
            self._hear(put_file(path, lambda: page, what="the page", seconds=seconds))

    def fail(self, exit_status: int, text: str) -> list[str]:
        """Tell that no run came about, or that nobody could write down how it ended."""
        self._ping(self._begun or uuid4().hex, exit_status, text)
        self._run_command(exit_status, text)
        return self._take_complaints()

    def _take_complaints(self) -> list[str]:
        taken, self._complaints = self._complaints, []
        return taken

    def _ping(self, uid: str, exit_status: int, text: str) -> None:
        if self._start is not None:
            self._start.join(self._notify.seconds)  # else the end could arrive before it
        if self._ping_url:
            url, seconds = self._ping_url, self._notify.seconds
            self._hear(ping_end(url, uid=uid, exit_status=exit_status, text=text, seconds=seconds))

    def _tell(self, store: Store, run: RunSummary, exit_status: int, text: str) -> None:
        from pipeline.notify.account import read_account  # noqa: PLC0415 - brings the audit along

        notify = self._notify
        try:
            with store.read() as session:
                account = read_account(session, notify, run)
        except StoreError as exc:
            self._hear(f"nobody was told of run {run.id}: {exc}")
            return
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
        if exit_status or not account.was_well:
            is_first = account.was_well or not exit_status
            self._run_command(exit_status, text, run, account.findings, is_first=is_first)

    def _run_command(
        self,
        exit_status: int,
        text: str,
        run: RunSummary | None = None,
        findings: Sequence[Finding] = (),
        *,
        is_first: bool | None = None,
    ) -> None:
        """Run the command for failures, or for the recovery if *exit_status* is 0."""
        notify = self._notify
        if not (command := notify.on_failure if exit_status else notify.on_recovery):
            return
        payload = {
            "schema": "pipeline.notification/1",
            "event": "failure" if exit_status else "recovery",
            "exit_status": exit_status,
            "message": text,
            "run": run and pick(run, RUN),
            "is_first": is_first,
            "findings": [pick(each, FINDING) for each in findings[:MOST_FINDINGS]],
            "more_findings": max(0, len(findings) - MOST_FINDINGS),
        }
        secrets = secret_variables(self._settings)
        self._hear(
            run_hook(
                command, payload, environ=self._environ, secrets=secrets, seconds=notify.seconds
            )
        )
