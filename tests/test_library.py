"""What Python programs may do: read a store, and carry out a run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline
from pipeline.errors import ConfigError, StoreError
from pipeline.models import Verdict
from pipeline.store.db import open_store
from tests.processes import ROOT
from tests.store.makers import NOON, at, make_attempt, make_batch, record_run

CONFIG = """
[store]
url = "books.db"
[sandbox]
latency_seconds = 0.0
[sources.dice]
kind = "sandbox.randomnumberapi"
min = 1
max = 6
batches = [2, 3]
[sources.coin]
kind = "sandbox.anu_legacy"
word = "uint8"
batches = [4]
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Configure two sources of the sandbox, in a home folder that holds nothing else."""
    for variable in ("DATA", "CONFIG", "STATE"):
        monkeypatch.setenv(f"XDG_{variable}_HOME", str(tmp_path / variable.lower()))
    monkeypatch.delenv("PIPELINE_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "config.toml"
    file.write_text(CONFIG)
    return file


def test_a_run_from_python(config: Path) -> None:
    """The same as by the command: an account of every batch, and the numbers with their origin."""
    collected = pipeline.collect(pipeline.load_settings(config))

    assert (collected.exit_status, collected.summary.collected) == (0, 3)
    with pipeline.open(config.with_name("books.db")) as books:
        (run,) = books.runs()
        batches = list(books.batches())
        numbers = list(books.numbers())
        attempts = list(books.attempts())
    assert run == collected.summary
    wanted = [(line.batch.source, line.batch.n) for line in batches]
    assert wanted == [("dice", 2), ("dice", 3), ("coin", 4)]
    assert all(line.batch.verdict is Verdict.COLLECTED for line in batches)
    assert [number.batch for number in numbers] == ["w0"] * 2 + ["w1"] * 3 + ["w2"] * 4
    values = [value for line in batches for value in line.values or ()]
    assert [number.value for number in numbers] == values
    assert {made.attempt.source for made in attempts} == {"dice", "coin"}


def test_the_store_of_the_configuration_is_the_default(config: Path) -> None:
    """Whoever collects from cron and reads from Python names nothing twice."""
    pipeline.collect(pipeline.load_settings())

    with pipeline.open() as books:
        assert len(list(books.runs())) == 1
    with pipeline.open(f"sqlite:///{config.with_name('books.db')}") as books:
        assert len(list(books.runs())) == 1


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """Record four runs, an hour apart, by turns of two sources."""
    file = tmp_path / "history.db"
    with open_store(f"sqlite:///{file}", busy_seconds=1, for_writing=True) as store:
        for number in range(4):
            source, moment = ("dice", "coin")[number % 2], at(60 * number)
            with store.write() as session:
                record_run(
                    session,
                    [make_batch(0, source)],
                    attempts=[make_attempt(0, source=source, began_at=moment)],
                    started_at=moment,
                )
    return file


def test_every_question_can_be_narrowed(history: Path) -> None:
    """By source, by time, by run; the bounds as everywhere: not before, and before."""
    with pipeline.open(history) as books:
        assert [run.id for run in books.runs()] == [1, 2, 3, 4]
        assert [run.id for run in books.runs(since=at(60), until=at(180))] == [2, 3]
        assert [run.id for run in books.runs(source="coin")] == [2, 4]
        assert [line.batch.run_id for line in books.batches(source="dice")] == [1, 3]
        assert [made.attempt.began_at for made in books.attempts(run=2)] == [at(60)]
        assert [number.run_id for number in books.numbers(since=at(170))] == [4, 4, 4]
        assert list(books.numbers(source="none")) == []


def test_a_time_without_a_zone_is_refused(history: Path) -> None:
    """It would be another moment on another machine."""
    with pipeline.open(history) as books:
        with pytest.raises(ValueError, match=r"since=.* has no time zone; give datetime"):
            books.runs(since=NOON.replace(tzinfo=None))
        assert next(books.runs(since=NOON.astimezone())).id == 1


def test_a_table_for_other_libraries(history: Path) -> None:
    """With types: moments are moments, and numbers integers."""
    with pipeline.open(history) as books:
        numbers = books.arrow("numbers")
        attempts = books.arrow("attempts", source="dice")

    assert numbers.num_rows == 12
    assert numbers.column("value").to_pylist() == [6] * 12
    assert numbers.column("started_at")[0].as_py() == NOON
    assert numbers.schema.field("started_at").type.tz == "UTC"
    assert attempts.column("run_id").to_pylist() == [1, 3]


def test_what_is_wrong_is_an_error_of_ours(tmp_path: Path, config: Path) -> None:
    """With the words of the command."""
    with pytest.raises(StoreError, match="no database yet"):
        pipeline.open(tmp_path / "none.db")
    config.write_text("[sources.dice]\nkind = 'dice'\nbatches = [2]\n")
    with pytest.raises(ConfigError, match=re.escape("sources.dice.kind")):
        pipeline.load_settings(config)


def test_closed_twice_is_closed(history: Path) -> None:
    """As files are."""
    books = pipeline.open(history)
    books.close()
    books.close()


def test_other_names_are_not_there() -> None:
    """Nor does the import of the package bring anything along."""
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        pipeline.nonsense  # type: ignore[attr-defined] # noqa: B018 - that it is not there is the point
    probe = "import sys, pipeline; print('sqlmodel' in sys.modules, 'anyio' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False False\n"


def test_the_example_of_the_readme_runs(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Word for word; it prints what it says, of a source that brought nothing too."""
    away = 'kind = "randomnumberapi"\nurl = "http://127.0.0.1:1"\nretries = 0'
    config.write_text(CONFIG.replace('kind = "sandbox.randomnumberapi"', away))
    assert pipeline.collect(pipeline.load_settings(config)).summary.failed == 2
    config.write_text(CONFIG)
    readme = (ROOT / "README.md").read_text("utf-8")
    (example,) = re.findall(r"(?s)<!-- python -->\n```python\n(.*?)```", readme)

    exec(compile(example, "README.md", "exec"), {})

    assert config.with_name("books.db").exists()
    out = capsys.readouterr().out
    assert out.startswith("run 2 ok: 3 of 3 batches collected")
    assert "\ndice w0 None\n" in out
    assert re.search(r"(?m)^dice w0 \(\d, \d\)$", out)
