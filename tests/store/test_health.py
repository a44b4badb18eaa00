"""Whether what the tests of health say follows from the numbers, whatever happens to the store."""

import random
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

from pipeline.health.continuous import HealthTest
from pipeline.models import Batch, Outcome, Severity
from pipeline.store.db import Store, open_store
from pipeline.store.health import HealthState, NumberRange, read_states
from pipeline.store.health_figures import (
    RangeHealth,
    block_counts,
    health_alarms,
    health_blocks,
    range_health,
    show_years,
)
from pipeline.store.integrity.pruning import prune
from pipeline.store.integrity.verify import verify
from pipeline.store.migrating import connect_to_migrate
from pipeline.store.schema import migrations_folder
from pipeline.store.window import Window
from pipeline.store.writes import finish_run, interrupt_dead_runs
from tests.health.numbers import fair_dice
from tests.store.histories import tamper
from tests.store.makers import NOON, at, make_collected, make_lost, record_results

EVER = Window()
STRAYED = "health: the state of dice (1 to 6) does not follow from its numbers"
DICE = NumberRange("dice", is_sandbox=False, min=1, max=6)


def batch_of(number: int, numbers: Sequence[int], source: str = "dice") -> tuple[Batch, Outcome]:
    """Make a batch that collected *numbers* of a die."""
    batch = Batch(number=number, source=source, n=len(numbers), min=1, max=6)
    return batch, make_collected(batch, numbers)


def start(store: Store, *batches: Sequence[int], minute: int = 0, keep_numbers: bool = True) -> int:
    """Start a run whose batches arrive in the wrong order."""
    made = [batch_of(number, numbers) for number, numbers in enumerate(batches)]
    with store.write() as session:
        return record_results(
            session,
            *(outcome for _, outcome in reversed(made)),
            batches=(batch for batch, _ in made),
            started_at=at(minute),
            keep_numbers=keep_numbers,
            is_over=False,
        )


def end(store: Store, run_id: int) -> None:
    """End a run."""
    with store.write() as session:
        finish_run(session, run_id=run_id, ended_at=NOON, clock_us=1)


def record(
    store: Store, *batches: Sequence[int], minute: int = 0, keep_numbers: bool = True
) -> int:
    """Record a whole run."""
    run_id = start(store, *batches, minute=minute, keep_numbers=keep_numbers)
    end(store, run_id)
    return run_id


def rolls(n: int, seed: int = 1) -> list[int]:
    """Roll a fair die."""
    return [1 + roll for roll in fair_dice(seed=seed, n=n)]


def state_of(store: Store, of: NumberRange = DICE, *, is_pruned: bool = False) -> HealthState:
    """Read how far the tests have come."""
    with store.read() as session:
        return read_states(session.connection(), is_pruned=is_pruned)[of]


def health_of(store: Store, window: Window = EVER) -> RangeHealth:
    """Read what the tests of the only range say."""
    with store.read() as session:
        (found,) = range_health(session, window)
    return found


def alarms_of(store: Store) -> list[tuple[int, HealthTest, Severity, int, int, int]]:
    """Read where the same number came too often."""
    with store.read() as session:
        return [
            (each.run_id, each.test, each.severity, each.batch, each.position, each.times)
            for each in health_alarms(session, EVER)
        ]


def problems_of(store: Store) -> list[str]:
    """Verify the store."""
    return [problem.text for problem in verify(store).problems]


def test_numbers_are_tested_in_the_order_of_batches_across_runs(store: Store) -> None:
    """Not in that in which they arrive: a stuck die is found where it is stuck."""
    first = record(store, [1, 2, 3], [4] * 7)
    second = record(store, [4] * 6, [4] * 12, [5], minute=1)

    assert alarms_of(store) == [
        (second, HealthTest.REPETITION, Severity.CRITICAL, 1, 28, 25),
        (second, HealthTest.REPETITION, Severity.WARNING, 0, 16, 25),
    ]
    state = state_of(store)
    assert (state.numbers, state.last, state.repeats) == (29, 4, 1)
    assert (state.sample, state.matches, state.position) == (0, 1, 2)
    assert (state.first_at, state.last_at) == (at(0), at(1))
    assert first == 1
    assert problems_of(store) == []


def test_runs_that_overlap_are_tested_in_the_order_in_which_they_ended(store: Store) -> None:
    """That is the order of the chain, so it can be walked once more."""
    early = start(store, [4] * 12)
    late = start(store, [4] * 5, minute=1)
    end(store, late)
    end(store, early)

    assert [(run, position) for run, _, _, _, position, _ in alarms_of(store)] == [(early, 13)]
    assert problems_of(store) == []


def test_a_run_that_goes_on_is_not_tested_yet(store: Store) -> None:
    """Its batches are not all there, and who knows what comes between them."""
    start(store, [4] * 30)

    assert alarms_of(store) == []
    assert problems_of(store) == []


def test_a_dead_run_is_tested_when_it_is_buried(store: Store) -> None:
    """What it collected stays, so it counts."""
    run_id = start(store, [4] * 30)
    with store.write() as session:
        interrupt_dead_runs(session, ended_at=NOON)

    assert [run for run, *_ in alarms_of(store)] == [run_id, run_id]
    assert problems_of(store) == []


def test_sources_ranges_and_the_sandbox_are_tested_apart(store: Store) -> None:
    """Numbers that have nothing to do with each other make no stretch."""
    batches = [
        Batch(number=0, source="dice", n=12, min=1, max=6),
        Batch(number=1, source="dice", n=12, min=0, max=5),
        Batch(number=2, source="dice", n=12, min=1, max=6, is_sandbox=True),
        Batch(number=3, source="other", n=12, min=1, max=6),
        Batch(number=4, source="lost", n=12, min=1, max=6),
        Batch(number=5, source="one", n=40, min=4, max=4),
        Batch(number=6, source="dice", n=1, min=1, max=6),
    ]
    outcomes = [make_collected(batch, (4,) * batch.n) for batch in batches]
    outcomes[4] = make_lost(batches[4])
    with store.write() as session:
        record_results(session, *outcomes)

    with store.read() as session:
        (alarm,) = health_alarms(session, EVER)
        healths = {
            (each.source, each.is_sandbox, each.min): each for each in range_health(session, EVER)
        }
        of_one = [each.source for each in range_health(session, EVER, source="one")]
    assert (alarm.source, alarm.is_sandbox, alarm.min, alarm.batch_name) == ("dice", False, 1, "w6")
    assert {key: each.numbers for key, each in healths.items()} == {
        ("dice", False, 1): 13,
        ("dice", False, 0): 12,
        ("dice", True, 1): 12,
        ("other", False, 1): 12,
        ("one", False, 4): 40,
    }
    nothing = healths["one", False, 4]
    assert (nothing.verdict, nothing.false_alarm_years) == ("nothing to test", None)
    assert of_one == ["one"]
    assert problems_of(store) == []


def test_numbers_that_are_not_kept_are_not_tested(store: Store) -> None:
    """They could not be tested once more."""
    record(store, [4] * 12)
    record(store, [4] * 12, minute=1, keep_numbers=False)
    record(store, [4], minute=2)

    assert state_of(store).numbers == 13
    assert [run for run, *_ in alarms_of(store)] == [3]
    assert problems_of(store) == []


def test_numbers_of_any_width_are_tested(store: Store) -> None:
    """Their distances may be beyond the integers of the database."""
    low, high = -(2**63), 2**63 - 1
    chance = random.Random(1)
    numbers = (*(chance.randint(low, high) for _ in range(1279)), high, high)
    batches = [
        Batch(number=at, source="wide", n=1, min=low, max=high) for at in range(len(numbers))
    ]
    with store.write() as session:
        given = zip(batches, numbers, strict=True)
        record_results(session, *(make_collected(batch, (number,)) for batch, number in given))

    state = state_of(store, NumberRange("wide", is_sandbox=False, min=low, max=high))
    assert (state.last, state.repeats, len(state.block)) == (2**64 - 1, 2, 8)
    with store.read() as session:
        (block,) = health_blocks(session, EVER)
        values = {alarm.value for alarm in health_alarms(session, EVER)}
    assert (block.n, block.most) == (1280, 1)
    assert values == {high}
    assert problems_of(store) == []


def test_a_block_is_tested_once_by_the_run_that_fills_it(store: Store) -> None:
    """And its number is its place among all."""
    numbers = rolls(2500)
    for minute in range(5):
        record(store, numbers[minute * 500 : (minute + 1) * 500], minute=minute)

    with store.read() as session:
        blocks = list(health_blocks(session, EVER))
        of_later = list(health_blocks(session, Window(since=at(3))))
        (counts,) = block_counts(session, EVER)
    assert [(each.block, each.run_id, each.started_at) for each in blocks] == [
        (0, 3, at(2)),
        (1, 5, at(4)),
    ]
    assert of_later == blocks[1:]
    assert (counts.began_at, counts.blocks) == (at(0).replace(hour=0), 2)
    assert all(0 < each.chi_square <= 1 and 0 < each.serial <= 1 for each in blocks)
    assert {each.monobit for each in blocks} == {None}
    health = health_of(store)
    assert (health.numbers, health.blocks, health.pending, health.block_size) == (
        2500,
        2,
        452,
        1024,
    )
    assert health.verdict == "nothing found"
    assert problems_of(store) == []


def test_too_few_numbers_are_said_to_be_too_few(store: Store) -> None:
    """A verdict on a hundred numbers would be one on chance."""
    record(store, rolls(434))

    health = health_of(store)

    assert health.verdict == "too few to tell (434 of 1,024)"
    assert (health.min_entropy, health.min_entropy_bound, health.tests) == (None, None, ())
    assert health.full_entropy == pytest.approx(2.585, abs=1e-3)


def test_a_die_of_threes_and_fours_is_critical_though_its_mean_is_right(store: Store) -> None:
    """Here ``report numbers`` once said fair."""
    chance = random.Random(1)
    record(store, [chance.choice((3, 4)) for _ in range(1024)])

    health = health_of(store)

    assert health.verdict == "critical"
    assert health.min_entropy_bound == pytest.approx(0.85, abs=0.1)


def test_a_slight_bias_is_found_by_the_number_of_odd_blocks(store: Store) -> None:
    """No number comes too often in a window, but too many blocks are odd."""
    chance = random.Random(1)
    sides = (*(1, 2, 3, 4, 5, 6) * 4, 1)
    record(store, [chance.choice(sides) for _ in range(60 * 1024)])

    health = health_of(store)

    found = {test.test: test for test in health.tests}
    assert set(found) == {"chi_square", "serial"}
    assert found["chi_square"].severity is Severity.CRITICAL
    assert found["chi_square"].expected == pytest.approx(0.6)
    assert found["chi_square"].odd > 15
    assert found["serial"].severity is None
    assert (health.verdict, health.warnings, health.criticals) == ("critical", 0, 0)


def test_false_alarms_are_counted_at_the_pace_of_the_source(store: Store) -> None:
    """Ten times the numbers in the same time: ten times as soon."""
    record(store, rolls(100))
    record(store, rolls(100), minute=24 * 60)
    slow = health_of(store).false_alarm_years or 0.0
    record(store, rolls(1800), minute=24 * 60)
    fast = health_of(store).false_alarm_years

    assert slow == pytest.approx(1 / (3.844e-10 * 200 * 365.25), rel=1e-3)
    assert fast == pytest.approx(slow / 10)


@pytest.mark.parametrize(
    ("years", "shown"),
    [(None, "never"), (0.123, "0.12 years"), (9.96, "10 years"), (35_612.0, "36,000 years")],
)
def test_years_are_told_as_exactly_as_they_are_known(years: float | None, shown: str) -> None:
    """Two digits."""
    assert show_years(years) == shown


RESULTS = ("health", "health_alarms", "health_blocks")


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE health SET numbers = numbers - 1", "health: the state of dice (1 to 6)"),
        ("UPDATE health SET block = x'0102'", "health: the state of dice (1 to 6)"),
        ("DELETE FROM health", "health: the state of dice (1 to 6)"),
        ("UPDATE health SET last_at = 'noon'", "health: cannot be read"),
        ("DELETE FROM health_alarms", "run 2: the tests of its numbers do not come out"),
        (
            "UPDATE health_alarms SET severity = 'info' WHERE cut_off = 13",
            "run 2: the tests of its numbers",
        ),
        (
            "UPDATE health_alarms SET severity = 'none' WHERE cut_off = 13",
            "run 2: the tests of its numbers",
        ),
        ("UPDATE health_blocks SET chi_square = 0.5", "run 1: the tests of its numbers"),
        ("DELETE FROM health_blocks", "run 1: the tests of its numbers"),
    ],
)
def test_what_the_tests_said_cannot_be_changed_unseen(
    store: Store, path: Path, statement: str, said: str
) -> None:
    """It follows from the numbers, which are sealed."""
    record(store, rolls(1100))
    record(store, [4] * 30, minute=1)
    assert problems_of(store) == []

    tamper(path, statement)

    assert any(line.startswith(said) for line in problems_of(store))


def test_a_damaged_batch_is_named_and_the_rest_is_still_tested(store: Store, path: Path) -> None:
    """Verification must come to its end, whatever is in the file."""
    record(store, rolls(10), rolls(10, seed=2))
    tamper(path, "UPDATE batches SET numbers = x'00' WHERE number = 1")

    found = problems_of(store)

    assert "run 1 w1: its numbers are not those collected" in found
    assert "run 1: the tests of its numbers do not come out as they were kept" not in found
    assert STRAYED in found


def test_values_of_the_wrong_kind_do_not_stop_it(store: Store, path: Path) -> None:
    """SQLite takes a text for an integer."""
    record(store, rolls(10))
    tamper(path, "UPDATE batches SET n = 'ten'")

    assert STRAYED in problems_of(store)


def test_after_a_pruning_all_that_is_left_can_be_recomputed(store: Store, path: Path) -> None:
    """Windows and blocks that began in numbers which are gone included, pruning after pruning."""
    numbers = rolls(6000)
    for day in range(12):
        some = numbers[day * 500 : (day + 1) * 500]
        record(store, some[:100], some[100:], minute=day * 24 * 60)
    whole = state_of(store)
    for day in (3, 7):
        pruned = prune(store, before=at(day * 24 * 60), now=at(12 * 24 * 60))
        assert pruned.runs > 0
        assert problems_of(store) == []
    assert state_of(store, is_pruned=True).numbers == 3500
    assert state_of(store) == whole
    with store.read() as session:
        assert len(list(health_blocks(session, EVER))) == 5

    tamper(path, "UPDATE health_blocks SET chi_square = 0.5 WHERE block = 4")
    assert problems_of(store) == [
        "run 11: the tests of its numbers do not come out as they were kept"
    ]


def test_a_pruning_counts_runs_in_the_order_of_the_chain(store: Store) -> None:
    """A run that started earlier and ended later is pruned; the one between them is not."""
    early = start(store, [4] * 12)
    late = start(store, [4] * 10, minute=5 * 24 * 60)
    end(store, late)
    end(store, early)
    record(store, [4, 1], minute=6 * 24 * 60)

    pruned = prune(store, before=at(24 * 60), now=at(6 * 24 * 60))

    assert pruned.runs == 1
    assert state_of(store, is_pruned=True).numbers == 22
    assert problems_of(store) == []


def test_a_database_from_before_is_tested_when_it_is_migrated(path: Path, url: str) -> None:
    """What came in years is there to be tested."""
    with open_store(url, busy_seconds=1, for_writing=True) as store:
        record(store, rolls(1500))
        record(store, [4] * 30, minute=1)
    before = rows_of(path)
    with connect_to_migrate(url) as connection:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(migrations_folder()))
        command.downgrade(config, "0001")
    with closing(sqlite3.connect(path)) as raw:
        tables = {name for (name,) in raw.execute("SELECT name FROM sqlite_master")}
    assert not tables & set(RESULTS)

    with open_store(url, busy_seconds=1, for_writing=True) as store:
        assert problems_of(store) == []

    assert rows_of(path) == before
    assert all(before.values())


def rows_of(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Read what the tests said."""
    with closing(sqlite3.connect(path)) as raw:
        return {
            name: sorted(raw.execute(f"SELECT * FROM {name}").fetchall(), key=repr)
            for name in RESULTS
        }


def test_a_run_killed_at_any_statement_leaves_what_a_recomputation_gives(path: Path) -> None:
    """State and batches are written in one transaction, by the run or by whoever buries it."""
    subprocess.run(
        [sys.executable, "-m", "tests.store.killing_health", str(path)],
        check=True,
        cwd=Path(__file__).parents[2],
    )
