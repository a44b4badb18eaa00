"""The rules of health: when each speaks up, what it says, and when it is over."""

from datetime import UTC, datetime, timedelta

import pytest

from pipeline.audit.health import QUIET, find_excess, find_odd_blocks
from pipeline.errors import Whose
from pipeline.health.continuous import HealthTest
from pipeline.models import FindingKind, Severity
from pipeline.store.health_figures import BlockTest, HealthAlarm, RangeHealth

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def make_alarm(
    run_id: int = 1,
    test: HealthTest = HealthTest.REPETITION,
    severity: Severity = Severity.WARNING,
    times: int = 13,
    position: int = 13,
) -> HealthAlarm:
    """Let a die show fours, at so many hours after noon as the run has for its id."""
    return HealthAlarm(
        run_id=run_id,
        started_at=NOON + timedelta(hours=run_id),
        source="dice",
        is_sandbox=False,
        min=1,
        max=6,
        test=test,
        severity=severity,
        batch=2,
        position=position,
        alarms=1,
        value=4,
        times=times,
        cut_off=13,
    )


def make_health(
    numbers: int = 1000, tests: tuple[BlockTest, ...] = (), blocks: int = 0
) -> RangeHealth:
    """Test so many rolls of a die."""
    return RangeHealth(
        source="dice",
        is_sandbox=False,
        min=1,
        max=6,
        numbers=numbers,
        first_at=NOON,
        last_at=NOON,
        block_size=1024,
        pending=0,
        blocks=blocks,
        most_share=None,
        warnings=0,
        criticals=0,
        tests=tests,
    )


def make_test(odd: int, blocks: int) -> BlockTest:
    """Find so many of the blocks odd."""
    return BlockTest(
        source="dice", is_sandbox=False, min=1, max=6, test="chi_square", blocks=blocks, odd=odd
    )


def test_alarms_of_one_test_are_one_finding_as_bad_as_the_worst() -> None:
    """It names test, cut-offs, and how seldom chance does this at that pace."""
    alarms = [
        make_alarm(1),
        make_alarm(2, severity=Severity.CRITICAL, times=30, position=40),
        make_alarm(2, position=30, times=30),
    ]

    (found,) = find_excess(alarms, [make_health()])

    assert (found.kind, found.severity) == (FindingKind.REPETITION, Severity.CRITICAL)
    assert (found.since, found.until) == (NOON + timedelta(hours=1), None)
    assert (found.sources, found.whose) == (("dice",), Whose.UPSTREAM)
    assert found.reason == (
        "4 came 30 times in a row (numbers 1 to 6; warning from 13, critical from 25); at this"
        " pace chance alone warns once in 7,100 years"
    )
    figures = dict(found.figures)
    assert figures.pop("false_alarm_years") == pytest.approx(7122, rel=1e-3)
    assert figures == {
        "test": "repetition",
        "min": 1,
        "max": 6,
        "value": 4,
        "times": 30,
        "cut_off": 13,
        "window": None,
        "numbers": 1000,
        "first_run": 1,
        "first_batch": "w2",
        "first_position": 13,
    }


def test_each_test_has_its_own_finding() -> None:
    """A stretch is one thing, a window another."""
    alarms = [make_alarm(), make_alarm(test=HealthTest.PROPORTION, times=150)]

    found = list(find_excess(alarms, [make_health()]))

    assert [each.kind for each in found] == [FindingKind.REPETITION, FindingKind.PROPORTION]
    assert "4 came 150 times among 512 numbers" in found[1].reason
    assert found[1].figures["window"] == 512


@pytest.mark.parametrize(("since", "is_over"), [(0, False), (-1, False), (1, True)])
def test_it_is_over_when_ten_windows_came_without(since: int, is_over: bool) -> None:
    """A biased source shows it only in windows that begin with its favourite."""
    alarm = make_alarm(position=100)
    health = make_health(numbers=100 + QUIET * 512 - 1 + since)

    (found,) = find_excess([alarm], [health])

    assert (found.until is not None) is is_over


def test_more_odd_blocks_than_chance_gives_are_a_finding() -> None:
    """Test, size of the blocks, how many, and how likely."""
    health = make_health(tests=(make_test(30, 100),), blocks=100)

    (found,) = find_odd_blocks([health], since=NOON + timedelta(days=1))

    assert (found.kind, found.severity) == (FindingKind.ODD_BLOCKS, Severity.CRITICAL)
    assert (found.since, found.until) == (NOON + timedelta(days=1), None)
    assert found.reason.startswith(
        "30 of 100 blocks look odd to the chi-square test (blocks of 1,024 numbers 1 to 6; p below"
        " 0.01); chance makes about 1 odd, and so many only with a probability of "
    )
    assert found.figures["alpha"] == 0.01


def test_what_chance_gives_is_none() -> None:
    """Nor is a range that nobody has a full block of."""
    healths = [make_health(), make_health(tests=(make_test(3, 100),), blocks=100)]

    assert list(find_odd_blocks(healths, since=None)) == []
