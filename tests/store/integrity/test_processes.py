"""Several processes find what one finds."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.audit.sheets import examine_day
from pipeline.errors import ExitCode, PipelineError, StoreError
from pipeline.store.db import Store
from pipeline.store.integrity import verify as module
from pipeline.store.integrity.processes import Tell, workers
from pipeline.store.integrity.verify import Verification, verify
from pipeline.store.rollups import close_periods
from tests.store.histories import record_history, tamper
from tests.store.makers import NOON, at

DAMAGE = (
    "UPDATE runs SET host = 'elsewhere' WHERE id = 1",
    "UPDATE seals SET chain = x'ab' WHERE position = 3",
    "UPDATE batches SET numbers = x'050504' WHERE run_id = 4 AND number = 0",
    "DELETE FROM seals WHERE position IN (5, 6, 7)",
    "UPDATE health SET matches = matches + 1 WHERE source = 'dice'",
    "UPDATE days SET collected = 99",
    "UPDATE evidence SET body = x'00'",
)


def told(found: Verification) -> tuple[object, ...]:
    """Give what was found, in no order."""
    counts = (found.runs, found.pruned, found.batches, found.attempts, found.numbers)
    return (*counts, found.head, sorted(each.text for each in found.problems))


def shared(store: Store, monkeypatch: pytest.MonkeyPatch) -> Verification:
    """Verify in two processes, however little there is."""
    monkeypatch.setattr(module, "ROWS_PER_PROCESS", 1)
    return verify(store, examine=examine_day, cores=2)


def test_two_processes_find_what_one_finds(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a server too; and they leave the same to be noted."""
    record_history(store, runs=7)
    with store.write() as session:
        close_periods(session, now=at(10 * 24 * 60), examine=examine_day)

    one, two = verify(store, examine=examine_day), shared(store, monkeypatch)

    assert two.problems == ()
    assert told(two) == told(one)
    assert one.noted is not None
    assert two.noted is not None
    assert {repr(each) for each in two.noted.states} == {repr(each) for each in one.noted.states}


def test_two_processes_name_what_one_names(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each once, wherever the parts of the chain begin and end."""
    record_history(store, runs=9)
    with store.write() as session:
        close_periods(session, now=NOON.replace(month=4), examine=examine_day)
    tamper(path, *DAMAGE)

    one, two = verify(store, examine=examine_day), shared(store, monkeypatch)

    assert len(one.problems) > len(DAMAGE)
    assert told(two) == told(one)


@pytest.mark.sqlite
@pytest.mark.parametrize("cores", [1, 2])
def test_the_bar_comes_to_its_end(
    store: Store, monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    """Whoever does the work."""
    monkeypatch.setattr(module, "ROWS_PER_PROCESS", 1)
    record_history(store)
    steps: list[tuple[int, int]] = []

    found = verify(store, cores=cores, watch=lambda done, total: steps.append((done, total)))

    assert found.problems == ()
    assert steps == sorted(steps)
    assert steps[-1][0] == steps[-1][1]


def kill_itself(_store: Store, _tell: Tell) -> None:
    """End as a process does that took too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(_store: Store, _tell: Tell) -> None:
    """Find that the store cannot be read."""
    raise StoreError("damaged")


@pytest.mark.sqlite
def test_what_a_process_complains_of_is_an_error_here(store: Store) -> None:
    """As if there were one process."""
    with pytest.raises(StoreError, match="damaged"), workers(store, 2, lambda _: None) as submit:
        submit(refuse)()


def divide(_store: Store, _tell: Tell) -> None:
    """Have a bug."""
    raise ZeroDivisionError("with a secret")


def lack_memory(_store: Store, _tell: Tell) -> None:
    """Need more than there is."""
    raise MemoryError


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("task", "code", "says"),
    [
        (
            divide,
            ExitCode.BUG,
            "^a bug of ours: ZeroDivisionError at .* divide < .*; please report",
        ),
        (lack_memory, ExitCode.TRY_LATER, "there is no memory left"),
    ],
)
def test_what_goes_wrong_in_a_process_has_the_code_that_it_has_in_one(
    store: Store, task: Callable[[Store, Tell], None], code: ExitCode, says: str
) -> None:
    """A bug is no damage of the store; and where it is, is told."""
    with (
        pytest.raises(PipelineError, match=says) as caught,
        workers(store, 2, lambda _: None) as submit,
    ):
        submit(task)()

    assert caught.value.exit_code == code


@pytest.mark.sqlite
def test_a_process_that_is_killed_is_an_error(store: Store) -> None:
    """Nobody waits for ever for what it would have said."""
    with (
        pytest.raises(StoreError, match="a process that verified was ended"),
        workers(store, 2, lambda _: None) as submit,
    ):
        submit(kill_itself)()
