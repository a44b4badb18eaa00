"""What the last run was like, as a text file that Prometheus' node exporter collects.

The format: https://prometheus.io/docs/instrumenting/exposition_formats/. The file is for another
user to read, and always whole. What it counts is of one run: Prometheus keeps the history.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from math import isfinite
from pathlib import Path
from typing import TypeAlias
from uuid import uuid4

from pipeline.models import Loss, RunStatus, RunSummary, Tally, Verdict
from pipeline.notify.harmless import SECONDS, within

SUCCESS = "pipeline_last_success_timestamp_seconds"
MODE = 0o644  # the collector is another user, and nothing in the file is secret

Sample: TypeAlias = tuple[Mapping[str, str], float]

_SUCCESS_LINE = rf"(?m)^{SUCCESS} (\S+)$"
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


def write_metrics(
    path: Path,
    *,
    run: RunSummary,
    exit_status: int,
    tallies: Sequence[Tally],
    losses: Sequence[Loss],
    seconds: float = SECONDS,
) -> str | None:
    """Write the file *path* about a run that has ended.

    The moment of the last success is that of this run if *exit_status* is 0, else it stays as the
    file has it.
    """

    def write() -> str | None:
        try:
            if path.exists() and not path.is_file():  # nobody wants to lose their /dev/null
                return f"metrics: {path} cannot be written: it is no file"
            succeeded_at = _timestamp(run.ended_at) if exit_status == 0 else _last_success(path)
            _replace(path, render_metrics(run, exit_status, tallies, losses, succeeded_at))
        except OSError as exc:
            return f"metrics: {path} cannot be written: {exc.strerror}"
        return None

    return within(seconds, "writing metrics", write)


def render_metrics(
    run: RunSummary,
    exit_status: int,
    tallies: Iterable[Tally],
    losses: Iterable[Loss],
    succeeded_at: float | None,
) -> str:
    """Spell all of it; what is not known (None) is left out."""
    tallies, losses = list(tallies), list(losses)
    of_run = partial(_family, prefix="pipeline_last_run_")
    families = (
        _family(SUCCESS, "When the last run ended that succeeded.", _single(succeeded_at)),
        of_run("timestamp_seconds", "When the run ended.", _single(_timestamp(run.ended_at))),
        of_run("id", "Its number, as `pipeline report --run` takes it.", _single(run.id)),
        of_run("exit_code", "What the process ended with.", _single(exit_status)),
        of_run("duration_seconds", "How long it took by the clock.", _single(_seconds(run))),
        of_run("status", "1 for what became of it.", _statuses(run.status)),
        of_run("batches", "Batches by source and outcome.", _batches(tallies)),
        of_run("numbers", "Numbers collected.", _by_source(tallies, "numbers")),
        of_run("attempts", "Attempts made.", _by_source(tallies, "attempts")),
        of_run("failed_attempts", "Attempts by error.", _by_error(losses, "attempts")),
        of_run("lost_batches", "Batches lost by error.", _by_error(losses, "batches")),
    )
    return "".join(f"{line}\n" for family in families for line in family)


def _family(name: str, meaning: str, samples: Iterable[Sample], prefix: str = "") -> Iterator[str]:
    name = prefix + name
    yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} gauge"
    for labels, value in samples:
        pairs = ",".join(f'{key}="{text.translate(_ESCAPES)}"' for key, text in labels.items())
        yield f"{name}{{{pairs}}} {value!r}" if pairs else f"{name} {value!r}"


def _single(value: float | None) -> list[Sample]:
    return [] if value is None else [({}, value)]


def _timestamp(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _seconds(run: RunSummary) -> float | None:
    return None if run.clock_us is None else run.clock_us / 1_000_000


def _statuses(status: RunStatus) -> Iterator[Sample]:
    # One per status: an alert can then name the one it is about, and none vanishes.
    for each in RunStatus:
        if each is not RunStatus.RUNNING:
            yield {"status": each.value}, int(each is status)


def _batches(tallies: Iterable[Tally]) -> Iterator[Sample]:
    for tally in tallies:
        for verdict in Verdict:
            yield {"source": tally.source, "outcome": verdict.value}, getattr(tally, verdict)


def _by_source(tallies: Iterable[Tally], figure: str) -> Iterator[Sample]:
    for tally in tallies:
        yield {"source": tally.source}, getattr(tally, figure)


def _by_error(losses: Iterable[Loss], figure: str) -> Iterator[Sample]:
    counts: Counter[tuple[str, str]] = Counter()
    for loss in losses:
        counts[loss.source, loss.error.value] += getattr(loss, figure)
    for (source, error), count in counts.items():
        yield {"source": source, "error": error}, count


def _last_success(path: Path) -> float | None:
    try:
        found = re.search(_SUCCESS_LINE, path.read_text("utf-8", "replace"))
        value = float(found[1]) if found else None
    except (FileNotFoundError, ValueError):
        return None
    return value if value is not None and isfinite(value) else None


def _replace(path: Path, text: str) -> None:
    # Of another ending than .prom, lest the collector takes it for one more file.
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            os.fchmod(file.fileno(), MODE)
            file.write(text.encode("utf-8", "backslashreplace"))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
