"""``pipeline export``: where it writes, what it refuses, and what it says of what is missing."""

import json
import os
import pty
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import typer
from pyarrow import parquet
from sqlmodel import Session

from pipeline.cli.export import export
from pipeline.export.choices import Records
from pipeline.export.files import file_name
from pipeline.extras import how_to_install
from pipeline.models import RunStatus
from pipeline.store import extracts
from pipeline.store.db import open_store
from pipeline.store.integrity.pruning import prune
from pipeline.store.writes import finish_run, order_batches, save_results
from tests.cli.conftest import Invoke
from tests.processes import Home, Options, homes, wait_for
from tests.store.makers import NOON, at, begin, make_attempt, make_batch, make_collected, record_run

NASTY = [
    "../../etc/passwd",
    "/etc/passwd",
    "nul\0byte",
    "con",
    "CON",
    "Anu",
    "x" * 300,
    "-rf",
    "..",
    "",
    "ä/ö",
    "a b",
    "a_b",
    ".hidden",
]


def listing(folder: Path) -> list[str]:
    """Name what lies in *folder*."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def one_run(session: Session) -> int:
    """Store a run that collected from two sources."""
    run_id = record_run(
        session,
        [make_batch(0, "dice", n=2), make_batch(1, "coin", n=1)],
        attempts=[make_attempt(0), make_attempt(1, source="coin")],
    )
    session.commit()
    return run_id


@pytest.mark.usefixtures("one_run")
class TestOneFile:
    """Into a file, or to stdout."""

    def test_stdout_gets_csv_unless_told_otherwise(self, invoke: Invoke) -> None:
        """The least that any program reads."""
        result = invoke("export", "numbers")

        assert result.exit_code == 0
        assert result.stderr == ""
        assert result.stdout_bytes == (
            b"run_id,started_at,source,batch,is_sandbox,min,max,position,value\r\n"
            b"1,2026-03-01T12:00:00.000000Z,dice,w0,false,1,6,0,6\r\n"
            b"1,2026-03-01T12:00:00.000000Z,dice,w0,false,1,6,1,6\r\n"
            b"1,2026-03-01T12:00:00.000000Z,coin,w1,false,1,6,0,6\r\n"
        )

    @pytest.mark.parametrize(
        ("what", "rows"), [("numbers", 3), ("batches", 2), ("attempts", 2), ("runs", 1)]
    )
    def test_the_ending_of_the_name_says_what_to_write(
        self, invoke: Invoke, home: Path, what: str, rows: int
    ) -> None:
        """Nobody wants to say it twice."""
        for name in ("a.csv", "a.jsonl", "a.NDJSON", "a.parquet"):
            assert invoke("export", what, name).output == ""

        lines = (home / "a.jsonl").read_text().splitlines()
        assert len((home / "a.csv").read_text().splitlines()) == rows + 1
        assert (home / "a.NDJSON").read_text().splitlines() == lines
        assert parquet.read_table(home / "a.parquet").num_rows == len(lines) == rows
        assert list(json.loads(lines[0])) == parquet.read_table(home / "a.parquet").column_names

    def test_a_format_wins_over_the_ending(self, invoke: Invoke, home: Path) -> None:
        """What is said outright counts."""
        invoke("export", "runs", "runs.txt", "--format", "jsonl")

        assert json.loads((home / "runs.txt").read_text())["run_id"] == 1

    def test_a_file_is_private(self, invoke: Invoke, home: Path) -> None:
        """Who shares it may say so."""
        invoke("export", "numbers", "a.csv")

        assert stat.S_IMODE((home / "a.csv").stat().st_mode) == 0o600

    @pytest.mark.parametrize("is_link", [False, True])
    def test_a_file_that_is_there_is_replaced_by_force_only(
        self, invoke: Invoke, home: Path, is_link: bool
    ) -> None:
        """And what a link points at stays whatever is said."""
        (home / "mine").write_text("mine")
        target = home / "a.csv"
        target.symlink_to("mine") if is_link else target.write_text("mine")

        refused = invoke("export", "numbers", "a.csv")
        unchanged = target.read_text()
        forced = invoke("export", "numbers", "a.csv", "--force")

        assert refused.exit_code == 2
        assert refused.stderr == "pipeline: a.csv: is there already; --force replaces it\n"
        assert unchanged == (home / "mine").read_text() == "mine"
        assert forced.exit_code == 0
        assert target.read_text().startswith("run_id,")

    @pytest.mark.parametrize(
        ("options", "batches"),
        [(["--source", "coin"], ["w1"]), (["--run", "last", "-s", "dice"], ["w0"]), ([], [])],
    )
    def test_options_choose_the_rows(
        self, invoke: Invoke, options: list[str], batches: list[str]
    ) -> None:
        """One source, one run."""
        window = ["--since", "2026-03-01", "--until", "2026-03-02"]

        result = invoke("export", "batches", "-f", "jsonl", *window, *options)

        rows = [json.loads(line) for line in result.stdout.splitlines()]
        assert [row["batch"] for row in rows] == (batches or ["w0", "w1"])

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            (["numbers", "a.xlsx"], "a.xlsx: give --format csv, jsonl, parquet or bytes"),
            (["numbers", "-f", "parquet"], "Parquet does not go to stdout; name a file"),
            (["numbers", "--each-source"], "--each-source: name the folder to write to"),
            (
                ["runs", "out", "--each-source"],
                "--each-source: a run has several sources; export batches instead",
            ),
            (["numbers", "mine", "--each-source"], "mine: cannot be the folder: File exists"),
            (["numbers", "-r", "7"], "--run 7: there is no such run; `pipeline report` lists them"),
        ],
    )
    def test_what_cannot_be_is_told_in_one_line(
        self, invoke: Invoke, home: Path, arguments: list[str], complaint: str
    ) -> None:
        """With what to do instead, and nothing is written."""
        (home / "mine").write_text("mine")
        before = listing(home)

        result = invoke("export", *arguments)

        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == f"pipeline: {complaint}\n"
        assert listing(home) == before

    def test_a_source_that_nobody_knows_is_refused(self, invoke: Invoke, home: Path) -> None:
        """A file with a head alone would look like a source that gave nothing."""
        result = invoke("export", "numbers", "-s", "dcie", "a.csv")

        assert result.exit_code == 2
        assert result.stderr.startswith("pipeline: --source 'dcie': there is none; known are ")
        assert listing(home) == ["data"]

    @pytest.mark.parametrize("options", [[], ["--each-source"]])
    def test_a_folder_that_is_missing_is_output_that_cannot_be_written(
        self, invoke: Invoke, options: list[str]
    ) -> None:
        """The same code as a full disk."""
        result = invoke("export", "numbers", "nowhere/a.csv", *options)

        assert (result.exit_code, result.stdout) == (74, "")
        assert result.stderr == (
            "pipeline: cannot write the output: nowhere/a.csv: No such file or directory\n"
        )

    def test_without_pyarrow_parquet_is_refused_and_leaves_nothing(
        self, invoke: Invoke, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is an extra."""
        monkeypatch.setitem(sys.modules, "pyarrow", None)

        result = invoke("export", "numbers", "a.parquet")

        assert result.exit_code == 2
        assert result.stderr == (
            f"pipeline: Parquet and Arrow need pyarrow: {how_to_install('pyarrow')}\n"
        )
        assert listing(home) == ["data"]

    @pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
    def test_damage_is_told_and_nothing_is_left(
        self, invoke: Invoke, home: Path, session: Session, name: str
    ) -> None:
        """Half a file looks like a whole one."""
        (home / name).write_text("mine")
        session.connection().exec_driver_sql("UPDATE batches SET numbers = x'00' WHERE number = 1")
        session.commit()

        result = invoke("export", "numbers", name, "--force")

        assert result.exit_code == 74
        assert "run 1, w1: the database is damaged" in result.stderr
        assert (home / name).read_text() == "mine"
        assert listing(home) == sorted([name, "data"])

    def test_a_closed_stdout_is_no_error(
        self, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As with every command: `>&-`."""
        del invoke
        monkeypatch.setattr(sys, "stdout", None)

        export(Records.NUMBERS)


class TestEachSource:
    """A file for each source, in one folder."""

    @pytest.mark.usefixtures("one_run")
    def test_each_file_holds_its_source(self, invoke: Invoke, home: Path) -> None:
        """A folder that is not there is made, for its owner alone."""
        result = invoke("export", "numbers", "out", "--each-source")

        assert result.output == ""
        assert listing(home / "out") == ["coin.csv", "dice.csv"]
        assert (home / "out" / "coin.csv").read_text().count(",coin,") == 1
        assert ",coin," not in (home / "out" / "dice.csv").read_text()
        assert stat.S_IMODE((home / "out").stat().st_mode) == 0o700

    @pytest.mark.usefixtures("one_run")
    def test_one_that_is_there_keeps_the_others_from_coming(
        self, invoke: Invoke, home: Path
    ) -> None:
        """All of them or none."""
        (home / "out").mkdir()
        (home / "out" / "dice.jsonl").write_text("mine")

        result = invoke("export", "numbers", "out", "--each-source", "-f", "jsonl")

        assert result.exit_code == 2
        assert listing(home / "out") == ["dice.jsonl"]

    def test_no_name_leads_out_of_the_folder(
        self, invoke: Invoke, home: Path, session: Session
    ) -> None:
        """The configuration refuses such names, but the database may hold any."""
        names = [name for name in NASTY if "\0" not in name]
        batches = [make_batch(number, name, n=1) for number, name in enumerate(names)]
        record_run(session, batches)
        session.commit()
        before = listing(home)

        result = invoke("export", "numbers", "out", "--each-source", "-f", "jsonl")

        assert result.exit_code == 0
        assert listing(home) == sorted([*before, "out"])
        rows = [
            json.loads(line)
            for path in (home / "out").iterdir()
            for line in path.read_text().splitlines()
        ]
        assert sorted(row["source"] for row in rows) == sorted(names)


class TestFileName:
    """Names of files, derived from whatever a source may be called."""

    @pytest.mark.parametrize("source", NASTY, ids=ascii)
    def test_is_harmless(self, source: str) -> None:
        """On every system: no device of Windows, nothing hidden, no option, not too long."""
        name = file_name(source)

        assert name.replace(".", "").replace("_", "").replace("-", "").isalnum()
        assert name.isascii()
        assert name == name.lower()
        assert name[0] not in ".-"
        assert name.partition(".")[0] not in {"con", "nul"}
        assert len(name) < 64

    def test_is_that_of_the_source_where_it_can_be(self) -> None:
        """Every name that the configuration allows can, but devices."""
        assert file_name("random_org-2") == "random_org-2"

    def test_tells_all_sources_apart(self) -> None:
        """Also where upper and lower case are the same."""
        lookalikes = [*NASTY, "a/b", "a\\b", "A/B", "y" * 41, "y" * 42, "_", "__"]

        assert len({file_name(source) for source in lookalikes}) == len(lookalikes)


class TestWhatIsMissing:
    """What is not in the file is told on stderr."""

    def test_a_run_that_goes_on(self, invoke: Invoke, session: Session) -> None:
        """Who exports every night gets it the next time."""
        begin(session)
        session.commit()

        result = invoke("export", "runs")

        assert result.exit_code == 0
        assert "1 run is still going on and left out" in result.stderr

    def test_a_run_that_goes_on_and_was_asked_for(self, invoke: Invoke, session: Session) -> None:
        """An empty file would be no answer."""
        run_id = begin(session)
        session.commit()

        result = invoke("export", "runs", "--run", str(run_id))

        assert result.exit_code == 2
        assert f"run {run_id} is still going on; export it when it has ended" in result.stderr

    def test_numbers_that_were_not_kept(self, invoke: Invoke, session: Session) -> None:
        """A sum over the file would be too small."""
        run_id = begin(session)
        order_batches(session, run_id=run_id, batches=[make_batch()])
        outcomes = [make_collected(make_batch())]
        save_results(session, run_id=run_id, attempts=[], outcomes=outcomes, keep_numbers=False)
        finish_run(session, run_id=run_id, status=RunStatus.OK, ended_at=NOON, clock_us=1)
        session.commit()

        numbers, batches = invoke("export", "numbers"), invoke("export", "batches")

        assert numbers.stderr == (
            "pipeline: 1 batch has no numbers: they were not kept, or pruned\n"
        )
        assert batches.stderr == ""

    def test_all_of_it(self, invoke: Invoke, session: Session) -> None:
        """The file has its head all the same."""
        session.commit()

        result = invoke("export", "numbers", "--since", "2026-03-02")

        assert result.exit_code == 0
        assert result.stdout.startswith("run_id,")
        assert result.stderr == "pipeline: there was nothing to export\n"

    def test_runs_that_were_pruned(self, invoke: Invoke, session: Session, database: Path) -> None:
        """Else they would seem never to have wanted anything."""
        record_run(session, [make_batch()], attempts=[make_attempt()])
        record_run(session, [make_batch()], attempts=[make_attempt()], started_at=at(60))
        session.commit()
        with open_store(f"sqlite:///{database}", busy_seconds=0.1, for_writing=True) as store:
            prune(store, before=at(30), now=at(90))

        gone = invoke("export", "batches", "--run", "1")
        runs = invoke("export", "runs", "--run", "1")

        assert (gone.exit_code, gone.stderr) == (0, "pipeline: 1 run was pruned and left out\n")
        assert runs.stderr == ""

    def test_the_database(self, invoke: Invoke, home: Path) -> None:
        """It is not made by an export, and no file either."""
        result = invoke("export", "numbers", "a.csv")

        assert result.exit_code == 74
        assert "no database yet" in result.stderr
        assert listing(home) == []


@pytest.fixture
def full_home(tmp_path: Path) -> Iterator[Home]:
    """Give a home whose database takes a while to export."""
    with homes(tmp_path, ["home"]) as made:
        home = made["home"]
        url = f"sqlite:///{home.database}"
        with open_store(url, busy_seconds=1, for_writing=True) as store, store.write() as session:
            for minute in range(4):
                batches = [make_batch(number, n=50_000) for number in range(10)]
                record_run(session, batches, started_at=at(minute))
        yield home


@pytest.mark.parametrize("is_old", [False, True])
def test_killed_while_writing_it_leaves_the_old_file_or_none(full_home: Home, is_old: bool) -> None:
    """Whoever reads the file at any time reads a whole one."""
    target = full_home.folder / "a.jsonl"
    if is_old:
        target.write_text("old")

    def is_writing() -> bool:
        return any(path.stat().st_size > 0 for path in full_home.folder.glob(".pipeline-*"))

    running = full_home.start("export", "numbers", "a.jsonl", "--force")
    wait_for(is_writing)
    running.send(signal.SIGKILL)

    assert running.finish().code == 137
    assert (target.read_text() if target.exists() else None) == ("old" if is_old else None)


def test_a_reader_that_has_enough_ends_it(full_home: Home) -> None:
    """`pipeline export numbers | head` is at once done, and without a word."""
    options = Options(before="trap '' PIPE")
    running = full_home.start("export", "numbers", **options)
    out = running.process.stdout
    assert out is not None

    assert out.readline().startswith(b"run_id,")
    out.close()

    running.process.stdout = None
    ended = running.finish()
    assert (ended.code, ended.err) == (141, "")


@pytest.mark.usefixtures("one_run")
def test_a_full_disk_behind_stdout_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code says that it is not all there."""
    with Path("/dev/full").open("w") as full, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", full)

        with pytest.raises(typer.Exit) as ended:
            export(Records.NUMBERS)

    assert ended.value.exit_code == 74
    assert capsys.readouterr().err == (
        "pipeline: cannot write the output: No space left on device\n"
    )


@pytest.mark.usefixtures("one_run")
def test_a_terminal_shows_how_far_it_is(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person who waits wants to see that it goes on; in the end nothing of it stays."""
    record_run(session, [make_batch()], started_at=at(1))
    session.commit()
    monkeypatch.setattr(extracts, "RUNS_PER_PAGE", 1)
    monkeypatch.setenv("TERM", "xterm")
    leader, follower = pty.openpty()

    with os.fdopen(follower, "w") as terminal, monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", terminal)
        export(Records.RUNS, Path("a.csv"))
        shown = b""
        os.set_blocking(leader, False)
        with suppress(BlockingIOError):
            while True:
                shown += os.read(leader, 1000)

    os.close(leader)
    _, bar, then = shown.rpartition(b"exporting")
    assert bar
    assert b"\x1b[2K" in then  # the line is wiped


def test_what_a_large_export_takes_is_not_its_size(home: Path, database: Path) -> None:
    """Years of numbers must fit into a small machine (U15)."""
    wanted = [make_batch(number, n=50) for number in range(1000)]

    def memory_of_export(runs: int) -> tuple[int, int]:
        url = f"sqlite:///{database}"
        with open_store(url, busy_seconds=1, for_writing=True) as store:
            for _ in range(runs):
                with store.write() as session:
                    record_run(session, wanted)
        target = home / f"{runs}.csv"
        command = [sys.executable, "-m", "pipeline", "export", "numbers", str(target)]
        plain = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}
        child = os.posix_spawn(sys.executable, command, plain)
        _, status, usage = os.wait4(child, 0)
        assert status == 0
        return usage.ru_maxrss * 1024, target.stat().st_size

    few, small = memory_of_export(1)
    many, large = memory_of_export(14)

    assert large - small > 20_000_000
    assert many - few < (large - small) / 4
