"""``pipeline top``: what the sources are doing now, in a terminal, read from the store alone."""

import select
import signal
import sys
import termios
import tty
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text
from sqlmodel import Session

from pipeline.errors import StoreError
from pipeline.histogram import Histogram
from pipeline.models import RunSummary, Verdict
from pipeline.rendering.output import json_lines, write_lines
from pipeline.rendering.palette import TONE_COLOURS
from pipeline.rendering.records import picks
from pipeline.rendering.shapes import Format
from pipeline.rendering.tabulating import tabulate
from pipeline.rendering.text import text_of_table
from pipeline.rendering.vocabulary import RUN
from pipeline.rendering.words import show_duration, show_time
from pipeline.run.plan import QuotaLeft, find_paces, obstacles, plan_upstreams, quotas_left
from pipeline.sanitize import printable
from pipeline.schedule.ledger import find_schedules
from pipeline.scope import reading_if_there
from pipeline.settings import Settings
from pipeline.status import SLOT, SlotState, find_slot_states
from pipeline.store import heartbeats, queries
from pipeline.store.durations import percentiles
from pipeline.store.summaries import EXCHANGE
from pipeline.store.window import Window

STRIP = 60  # attempts of each source
HOUR = timedelta(hours=1)
MICROSECOND = timedelta(microseconds=1)
SOURCE = (
    "source state not_before why quotas recent collected open ordered"
    " p50_us=durations.p50_us p90_us=durations.p90_us"
)
BESIDE = ("source", "state", "now", "p50", "p90")  # heads of the columns beside the strip
LISTED = "source state now=shown recent=strip p50_us=durations.p50_us p90_us=durations.p90_us"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceNow:
    """What one source is doing.

    Attributes:
        state: asking, waiting (until ``not_before``), probe next (it has failed too often in a
            row), or ready.
        verdicts: of its batches in the run that goes on, None for those that are open.
        durations: of the exchanges of the last hour; None without any.
    """

    source: str
    state: str
    not_before: datetime | None
    why: str | None
    quotas: Sequence[QuotaLeft]
    recent: Sequence[str | None]
    verdicts: Mapping[Verdict | None, int]
    durations: Histogram | None
    asked_at: datetime

    @property
    def collected(self) -> int:
        """Count its batches that came in the run that goes on."""
        return self.verdicts.get(Verdict.COLLECTED, 0)

    @property
    def open(self) -> int:
        """Count its batches without a verdict in the run that goes on."""
        return self.verdicts.get(None, 0)

    @property
    def ordered(self) -> int:
        """Count its batches in the run that goes on."""
        return sum(self.verdicts.values())

    @property
    def strip(self) -> str:
        """Write a sign for each of the last attempts: ``.`` good, ``x`` not."""
        return "".join("." if error is None else "x" for error in self.recent)

    @property
    def shown(self) -> str:
        """Say what it does or waits for, in a few words."""
        if self.state == "asking":
            return f"{self.collected}/{self.ordered}, {self.open} open"
        if self.not_before is not None:
            left_us = max((self.not_before - self.asked_at) // MICROSECOND, 0)
            return f"{show_duration(left_us)} left"
        return ", ".join(f"{q.left}/{q.amount} {q.unit}/{q.period}" for q in self.quotas) or "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What goes on at one moment; *runs* are those that are running."""

    asked_at: datetime
    runs: Sequence[RunSummary]
    sources: Sequence[SourceNow]
    slots: Sequence[SlotState]


class Watch:
    """Takes one snapshot after the other."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._upstreams = plan_upstreams(settings)
        self._schedules = find_schedules(settings)

    def look(self) -> Snapshot:
        """Look at the store once."""
        now = datetime.now(UTC)
        with reading_if_there(self._settings.store) as session:
            return Snapshot(
                asked_at=now,
                runs=[] if session is None else _running(session),
                sources=self._sources(session, now),
                slots=find_slot_states(session, self._schedules, now=now),
            )

    def _sources(self, session: Session | None, now: datetime) -> list[SourceNow]:
        paces = find_paces(session, self._upstreams, now=now)
        found = obstacles(self._upstreams, paces, now=now)
        quotas = quotas_left(self._upstreams, paces, now=now)
        verdicts: Mapping[str, Counter[Verdict | None]] = {}
        durations: Mapping[str, Mapping[str, Histogram]] = {}
        if session is not None:
            verdicts = _progress(session)
            window = Window(since=now - HOUR, until=now)
            durations = percentiles(session, window, phases={EXCHANGE}).of
        listed = []
        for upstream in self._upstreams:
            name = upstream.order.source
            moment = found.get(name)
            until = moment.at if moment and moment.at > now else None
            of_run = verdicts.get(name, Counter())
            listed.append(
                SourceNow(
                    source=name,
                    state=_state(is_open=of_run[None] > 0, until=until, is_held=moment is not None),
                    not_before=until,
                    why=moment.why if moment else None,
                    quotas=[quota for quota in quotas if quota.source == name],
                    recent=[]
                    if session is None
                    else queries.newest_errors(session, source=name, limit=STRIP),
                    verdicts=of_run,
                    durations=durations.get(name, {}).get(EXCHANGE),
                    asked_at=now,
                )
            )
        return listed


def _state(*, is_open: bool, until: datetime | None, is_held: bool) -> str:
    if is_open:
        return "asking"
    if until is not None:
        return "waiting"
    return "probe next" if is_held else "ready"


def _running(session: Session) -> list[RunSummary]:
    """List the runs that go on; one whose process is gone does not."""
    return [
        run
        for run in queries.running_runs(session)
        if heartbeats.is_alive(session, run_id=run.id) is not False
    ]


def _progress(session: Session) -> dict[str, Counter[Verdict | None]]:
    """Add up the batches of all runs that go on, by source and verdict."""
    found: dict[str, Counter[Verdict | None]] = {}
    for run in _running(session):
        for source, verdicts in queries.progress_by_source(session, run_id=run.id).items():
            found.setdefault(source, Counter()).update(verdicts)
    return found


def _heads(seen: Snapshot) -> Iterator[str]:
    for run in seen.runs:
        yield f"Run {run.id} goes on since {show_time(run.started_at)}, on {run.host}."
    if not seen.runs:
        yield "No run goes on."
    for slot in seen.slots:
        late = " Nobody has started the last one." if slot.is_overdue else ""
        left = show_duration(max((slot.next_at - seen.asked_at) // MICROSECOND, 0))
        yield f"Next slot of {slot.schedule}: {show_time(slot.next_at)}, in {left}.{late}"
    for each in seen.sources:
        if each.not_before is not None:
            yield f"{each.source}: not before {show_time(each.not_before)}: {each.why}."


def _lines(seen: Snapshot, shape: Format) -> Iterator[str]:
    if shape is Format.JSON:
        return json_lines(
            {"schema": "pipeline.top/1", "asked_at": seen.asked_at},
            runs=picks(seen.runs, RUN),
            sources=picks(seen.sources, SOURCE),
            schedules=picks(seen.slots, SLOT),
        )
    return iter([*_heads(seen), "", text_of_table(tabulate(SourceNow, seen.sources, LISTED))])


def _draw(seen: Snapshot, console: Console) -> Group:
    """Draw a snapshot for a terminal of this width."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in (*BESIDE[:3], "last attempts", *BESIDE[3:]):
        table.add_column(head, no_wrap=True, justify="right" if head.startswith("p") else "left")
    rows = [_cells(each) for each in seen.sources]
    taken = 2 * 6 + sum(max(map(len, column)) for column in zip(BESIDE, *rows, strict=True))
    width = min(max(console.width - taken, 5), STRIP)
    for each, cells in zip(seen.sources, rows, strict=True):
        strip = Text.assemble(*(_sign(error) for error in each.recent[-width:]))
        table.add_row(*cells[:3], strip, *cells[3:])
    at = Text(f"{show_time(seen.asked_at)}, q to quit", "dim")
    heads = [Text(printable(line)) for line in _heads(seen)]
    return Group(*heads, Text(""), table, Text(""), at)


def _cells(of: SourceNow) -> list[str]:
    ranks = (Histogram() if of.durations is None else of.durations).percentiles(0.5, 0.9)
    return [of.source, of.state, of.shown, *map(show_duration, ranks)]


def _sign(error: str | None) -> tuple[str, str]:
    return (".", TONE_COLOURS["green"]) if error is None else ("x", TONE_COLOURS["red"])


def show_top(settings: Settings, shape: Format, *, every_seconds: float) -> None:
    """Show what goes on: again and again on a terminal until q is typed, else once on stdout."""
    watch = Watch(settings)
    seen = watch.look()
    is_live = sys.stdin is not None and sys.stdin.isatty() and Console().is_interactive
    if shape is Format.JSON or not is_live:
        write_lines(_lines(seen, shape))
        return
    console = Console()
    live = Live(_draw(seen, console), console=console, screen=True, auto_refresh=False)
    with ExitStack() as opened:
        opened.enter_context(_keys_at_once())
        opened.callback(live.stop)  # not as a context: a signal may come while it is being entered
        live.start(refresh=True)
        while not _is_quit_typed(every_seconds):
            try:
                live.update(_draw(watch.look(), console), refresh=True)
            except StoreError as exc:  # it may come back
                live.update(Text(printable(str(exc))), refresh=True)


@contextmanager
def _keys_at_once() -> Iterator[None]:
    """Read single keys while the block runs, and leave the terminal as it was, also at a signal."""
    before = termios.tcgetattr(sys.stdin)

    def leave(signum: int, _: object) -> None:
        raise SystemExit(128 + signum)

    handlers = {number: signal.signal(number, leave) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _is_quit_typed(seconds: float) -> bool:
    """Wait so long for a key, and tell whether it was q, or the terminal has gone."""
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(ready) and sys.stdin.read(1) in ("q", "Q", "")
