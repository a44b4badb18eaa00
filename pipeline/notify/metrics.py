"""Figures of the last run in a text file that Prometheus' node exporter collects.

The format: https://prometheus.io/docs/instrumenting/exposition_formats/. The file is for another
user to read, and always whole. What it counts is of one run: Prometheus keeps the history.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from math import isfinite
from pathlib import Path
from typing import TypeAlias

from pipeline.errors import ErrorName
from pipeline.models import Loss, RunStatus, RunSummary, Tally, Verdict
from pipeline.notify.harmless import SECONDS, put_file

SUCCESS = "pipeline_last_success_timestamp_seconds"
SOURCE_SUCCESS = "pipeline_source_last_success_timestamp_seconds"
ALL = ""  # in place of a source, none of which has an empty name

Sample: TypeAlias = tuple[Mapping[str, str], float]

_SUCCESS_LINE = re.compile(
    rf'^(?:{SUCCESS}|{SOURCE_SUCCESS}{{source="((?:\\.|[^"\\\n])+)"}}) (\S+)$', re.MULTILINE
)
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

    The moment of the last success is that of this run if *exit_status* is 0; that of a source, if
    it brought numbers and lost no batch. Else they stay as the file has them.
    """

    def make() -> str:
        return render_metrics(run, exit_status, tallies, losses, _read_successes(path))

    return put_file(path, make, what="metrics", seconds=seconds)


def render_metrics(
    run: RunSummary,
    exit_status: int,
    tallies: Iterable[Tally],
    losses: Iterable[Loss],
    before: Mapping[str, float],
) -> str:
    """Spell all of it; what is not known (None) is left out.

    *before* are the moments of the last successes so far, by source (escaped) and of ``ALL``. A
    source that never had one has 0, and each error that it can have is there: an alert finds them
    before anything happens.
    """
    tallies, losses = list(tallies), list(losses)
    ended_at = None if run.ended_at is None else run.ended_at.timestamp()
    seconds = None if run.clock_us is None else run.clock_us / 1_000_000
    succeeded_at = ended_at if exit_status == 0 else before.get(ALL)
    of_run = partial(_family, prefix="pipeline_last_run_")
    families = (
        _family(SUCCESS, "When the last run ended that succeeded.", _single(succeeded_at)),
        _family(
            SOURCE_SUCCESS,
            "When the last run ended that got numbers from the source and lost no batch.",
            _successes(tallies, ended_at, before),
        ),
        of_run("timestamp_seconds", "When the run ended.", _single(ended_at)),
        of_run("id", "Its number, as `pipeline report --run` takes it.", _single(run.id)),
        of_run("exit_code", "What the process ended with.", _single(exit_status)),
        of_run("duration_seconds", "How long it took by the clock.", _single(seconds)),
        of_run("status", "1 for what became of it.", _statuses(run.status)),
        of_run("batches", "Batches by source and outcome.", _batches(tallies)),
        of_run("numbers", "Numbers collected.", _by_source(tallies, "numbers")),
        of_run("attempts", "Attempts made.", _by_source(tallies, "attempts")),
        of_run("failed_attempts", "Attempts by error.", _by_error(tallies, losses, "attempts")),
        of_run("lost_batches", "Batches lost by error.", _by_error(tallies, losses, "batches")),
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


def _successes(
    tallies: Iterable[Tally], ended_at: float | None, before: Mapping[str, float]
) -> Iterator[Sample]:
    for tally in tallies:
        is_success = tally.collected and not tally.lost
        last_at = ended_at if is_success else None
        yield {"source": tally.source}, last_at or before.get(tally.source.translate(_ESCAPES), 0)


def _by_error(tallies: Iterable[Tally], losses: Iterable[Loss], figure: str) -> Iterator[Sample]:
    counts = Counter({(tally.source, error.value): 0 for tally in tallies for error in ErrorName})
    for loss in losses:
        counts[loss.source, loss.error.value] += getattr(loss, figure)
    for (source, error), count in counts.items():
        yield {"source": source, "error": error}, count


def _read_successes(path: Path) -> dict[str, float]:
    """Read the moments of the last successes, as ``render_metrics`` wrote them."""
    try:
        found = _SUCCESS_LINE.findall(path.read_text("utf-8", "replace"))
    except FileNotFoundError:
        return {}
    return {source: float(value) for source, value in found if _is_moment(value)}


def _is_moment(text: str) -> bool:
    try:
        return isfinite(float(text))
    except ValueError:
        return False
