"""The text file for Prometheus, read by its reference parser."""

import os
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from pipeline.errors import ErrorName, Phase
from pipeline.models import RunStatus, RunSummary, Tally
from pipeline.notify.metrics import SOURCE_SUCCESS, SUCCESS, render_metrics, write_metrics
from tests.notify.runs import make_loss, make_run, make_tally
from tests.store.makers import NOON

ENDED = NOON.timestamp() + 1.5
SAMPLES = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parse(text: str) -> SAMPLES:
    """Read samples by name and labels; none may come twice."""
    families = list(text_string_to_metric_families(text))
    found = [
        ((sample.name, frozenset(sample.labels.items())), sample.value)
        for family in families
        for sample in family.samples
    ]
    assert len(dict(found)) == len(found)
    assert {family.type for family in families} == {"gauge"}
    assert len({family.name for family in families}) == len(families)
    return dict(found)


def value(samples: SAMPLES, name: str, labels: Mapping[str, str] | None = None) -> float | None:
    """Pick one sample."""
    return samples.get((f"pipeline_{name}", frozenset((labels or {}).items())))


def tell(path: Path, run: RunSummary, exit_status: int = 0, *tallies: Tally) -> SAMPLES:
    """Write the file, and read it."""
    complaint = write_metrics(
        path,
        run=run,
        exit_status=exit_status,
        tallies=tallies or [make_tally()],
        losses=[make_loss()],
    )
    assert complaint is None
    return parse(path.read_text())


def test_the_run_is_all_there(tmp_path: Path) -> None:
    """With the units that Prometheus wants: seconds, and since 1970."""
    samples = tell(tmp_path / "a.prom", make_run(RunStatus.PARTIAL), 3)

    dice = {"source": "dice"}
    assert value(samples, "last_run_id") == 7
    assert value(samples, "last_run_timestamp_seconds") == ENDED
    assert value(samples, "last_run_duration_seconds") == 1.5
    assert value(samples, "last_run_exit_code") == 3
    assert value(samples, "last_run_batches", dice | {"outcome": "collected"}) == 3
    assert value(samples, "last_run_batches", dice | {"outcome": "failed"}) == 1
    assert value(samples, "last_run_numbers", dice) == 9
    assert value(samples, "last_run_attempts", dice) == 5
    assert value(samples, "last_run_failed_attempts", dice | {"error": "http_5xx"}) == 2
    assert value(samples, "last_run_lost_batches", dice | {"error": "http_5xx"}) == 1


def test_each_status_has_its_sample(tmp_path: Path) -> None:
    """An alert that names one finds it before it ever happened."""
    samples = tell(tmp_path / "a.prom", make_run(RunStatus.PARTIAL), 3)

    statuses = {s: value(samples, "last_run_status", {"status": s}) for s in RunStatus}
    assert statuses == dict.fromkeys(RunStatus, 0) | {"partial": 1, "running": None}


def test_the_last_success_moves_on_success_only(tmp_path: Path) -> None:
    """The alert that matters most: nothing has come for so long."""
    path = tmp_path / "a.prom"
    later = replace(make_run(), ended_at=NOON.replace(hour=13))

    never = tell(path, make_run(RunStatus.FAILED), 4)
    first = tell(path, make_run())
    lost = tell(path, replace(later, status=RunStatus.PARTIAL), 3)
    again = tell(path, later)

    succeeded = [value(samples, SUCCESS[9:]) for samples in (never, first, lost, again)]
    assert succeeded == [None, ENDED, ENDED, NOON.timestamp() + 3600]


def test_each_source_has_its_last_success(tmp_path: Path) -> None:
    """One that is dead for good says nothing of the others, and 0 until it lived."""
    path = tmp_path / "a.prom"
    partial = make_run(RunStatus.PARTIAL)
    later = replace(partial, ended_at=NOON.replace(hour=13))
    coin = replace(make_tally("coin"), failed=0)
    dead = replace(make_tally("dead"), collected=0, failed=4)
    put_off = replace(make_tally("coin"), collected=0, failed=0, deferred=4)

    runs = [
        tell(path, partial, 3, coin, dead, make_tally()),
        tell(path, later, 3, put_off, dead, replace(make_tally(), failed=0)),
        tell(path, later, 3, dead),
    ]

    moments = [
        [value(samples, SOURCE_SUCCESS[9:], {"source": name}) for name in ("coin", "dead", "dice")]
        for samples in runs
    ]
    assert moments == [
        [ENDED, 0, 0],
        [ENDED, 0, NOON.timestamp() + 3600],
        [None, 0, None],
    ]
    assert value(runs[-1], SUCCESS[9:]) is None


def test_each_error_of_a_source_has_its_sample_before_it_happens() -> None:
    """An alert on its rise would miss the first one otherwise."""
    samples = parse(render_metrics(make_run(), 0, [make_tally()], [], {}))

    for figure in ("failed_attempts", "lost_batches"):
        for error in ErrorName:
            labels = {"source": "dice", "error": error.value}
            assert value(samples, f"last_run_{figure}", labels) == 0


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", f"{SUCCESS} x".encode(), b"\n" * 9])
def test_a_file_that_says_something_else_is_replaced(tmp_path: Path, content: bytes) -> None:
    """Whoever wrote it."""
    path = tmp_path / "a.prom"
    path.write_bytes(content)

    assert value(tell(path, make_run(), 3), SUCCESS[9:]) is None


def test_a_success_that_is_no_time_is_forgotten(tmp_path: Path) -> None:
    """NaN would silence every alert for good."""
    path = tmp_path / "a.prom"
    path.write_text(f"{SUCCESS} NaN\n")

    assert value(tell(path, make_run(), 3), SUCCESS[9:]) is None


def test_errors_are_added_up_over_the_phases() -> None:
    """A sample may come once only."""
    losses = [
        make_loss(error=ErrorName.RESET, phase=Phase.BODY),
        make_loss(error=ErrorName.RESET, phase=Phase.FIRST_BYTE),
    ]

    samples = parse(render_metrics(make_run(), 0, [make_tally()], losses, {}))

    labels = {"source": "dice", "error": "reset"}
    assert value(samples, "last_run_failed_attempts", labels) == 4


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_name_of_a_source_parses(source: str) -> None:
    """The configuration allows harmless ones only, but the database may hold any."""
    text = render_metrics(make_run(), 0, [make_tally(source)], [make_loss(source)], {})

    samples = parse(text)

    assert value(samples, "last_run_numbers", {"source": source}) == 9


@pytest.mark.parametrize("source", ["dice", 'a"b', "a\\n", "a\nb", "a\\", "é"])
def test_any_name_of_a_source_is_found_again(tmp_path: Path, source: str) -> None:
    """However it must be spelled in the file."""
    path = tmp_path / "a.prom"
    tell(path, make_run(), 0, replace(make_tally(source), failed=0))

    samples = tell(path, make_run(), 3, make_tally(source))

    assert value(samples, SOURCE_SUCCESS[9:], {"source": source}) == ENDED


def test_a_run_whose_end_was_not_seen_has_no_duration() -> None:
    """Nobody knows; 0 would be a lie."""
    run = replace(make_run(RunStatus.INTERRUPTED), clock_us=None, ended_at=None)

    samples = parse(render_metrics(run, 1, [], [], {}))

    assert value(samples, "last_run_duration_seconds") is None
    assert value(samples, "last_run_timestamp_seconds") is None


def test_everybody_may_read_the_file(tmp_path: Path) -> None:
    """The collector is another user; and it sees no file that is not whole."""
    tell(tmp_path / "a.prom", make_run())

    assert stat.S_IMODE((tmp_path / "a.prom").stat().st_mode) == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["a.prom"]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    """The folder may be writable for others."""
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "a.prom").symlink_to("mine")

    tell(tmp_path / "a.prom", make_run())

    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none/a.prom", "No such file or directory"),
        ("folder", "it is no file"),
        ("pipe", "it is no file"),
    ],
)
def test_a_file_that_cannot_be_written_is_a_complaint(
    tmp_path: Path, name: str, reason: str
) -> None:
    """And nothing is left of it, nor is anything lost that was there."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / name

    complaint = write_metrics(path, run=make_run(), exit_status=0, tallies=[], losses=[])

    assert complaint == f"metrics: {path} cannot be written: {reason}"
    assert {each.name for each in tmp_path.iterdir()} == {"folder", "pipe"}
    assert (tmp_path / "pipe").is_fifo()
