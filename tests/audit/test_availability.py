"""How time is counted: up, down, and nobody knows."""

import pytest

from pipeline.audit.availability import ACCOUNTING_RULE, Availability, measure_availability
from pipeline.models import Loss, Tally
from tests.audit.histories import EVERY, History, after, courses_of, make_loss, make_tally

RUN_US = EVERY * 60_000_000  # from one run to the next


def measure(tallies: list[Tally], losses: list[Loss], *, runs: float) -> list[Availability]:
    """Measure a window from the first run on that is so many runs long."""
    return measure_availability(
        courses_of(tallies, losses), {}, since=after(1), until=after(1 + runs)
    )


def availability_of(words: str) -> Availability:
    """Measure a history of one source to the moment at which its next run would come."""
    history = History(dice=words)
    [found] = measure(history.tallies, history.losses, runs=len(words.split()))
    return found


def test_a_state_holds_until_the_next_run() -> None:
    """Three of four intervals were up."""
    found = availability_of(". . http_5xx .")

    assert (found.up_us, found.down_us, found.unknown_us) == (3 * RUN_US, RUN_US, 0)
    assert (found.share, found.unknown_share) == (0.75, 0.0)
    assert (found.observations, found.interval_us) == (4, RUN_US)


@pytest.mark.parametrize("word", ["rate_limited", "quota_exhausted"])
def test_a_refusal_by_policy_is_no_downtime(word: str) -> None:
    """It answered, and it kept to its word."""
    assert availability_of(f". {word} .").down_us == 0


@pytest.mark.parametrize("word", ["http_5xx", "tls", "not_json", "connect_refused", "blocked"])
def test_what_is_not_ours_is_downtime(word: str) -> None:
    """The upstream, the path and the contract alike: numbers there were none."""
    assert availability_of(f". {word} .").down_us == RUN_US


@pytest.mark.parametrize("word", ["cancelled", "deadline", "unauthorized", "intercepted", "-"])
def test_what_tells_nothing_lets_the_state_before_hold(word: str) -> None:
    """But not for longer than any state does."""
    found = availability_of(f". . {word} .")

    assert (found.up_us, found.down_us, found.unknown_us) == (4 * RUN_US, 0, 0)
    assert found.observations == 3


def test_time_when_nobody_looked_is_unknown() -> None:
    """A machine that was off says nothing about the upstream."""
    found = availability_of(". . . - - - - - - .")

    assert found.up_us == 5 * RUN_US  # two, two that the third held, and the last one
    assert found.unknown_us == 5 * RUN_US
    assert (found.share, found.unknown_share) == (1.0, 0.5)


def test_our_side_of_the_path_is_not_the_source_s_downtime() -> None:
    """Our resolver was gone; theirs may have been up all the time."""
    history = History(coin=". dns .", dice=". dns .")

    for found in measure(history.tallies, history.losses, runs=3):
        assert (found.down_us, found.outages) == (0, 0)


def test_a_retry_that_helped_is_up() -> None:
    """An answer was accepted."""
    tallies = [make_tally(run, attempts=2, failed_attempts=1) for run in (1, 2)]

    [found] = measure(tallies, [make_loss(1, batches=0), make_loss(2, batches=0)], runs=2)

    assert found.share == 1.0


def test_one_run_tells_no_stretch_of_time() -> None:
    """Nobody knows yet how often it is asked, and so not for how long one answer speaks."""
    found = availability_of(".")

    assert (found.share, found.unknown_share, found.interval_us) == (None, 1.0, None)


def test_a_source_that_was_never_asked_has_no_figure() -> None:
    """It is listed even so: it was wanted."""
    found = availability_of("- -")

    assert (found.source, found.observations, found.share) == ("dice", 0, None)


def test_without_runs_there_is_nothing_to_measure() -> None:
    """Also without a beginning of the window."""
    assert measure_availability({}, {}, since=None, until=after(0)) == []


def test_without_a_beginning_the_window_begins_with_the_first_run() -> None:
    """Before that there was no source."""
    history = History(dice=". .")
    courses = courses_of(history.tallies, history.losses)

    [found] = measure_availability(courses, {"dice": True}, since=None, until=after(3))

    assert (found.is_sandbox, found.unknown_us) == (True, 0)


def test_time_to_recovery() -> None:
    """From the first run that found it down to the first that found it up."""
    found = availability_of(". http_5xx . http_5xx tls http_5xx . http_5xx")

    assert (found.outages, found.recoveries) == (3, 2)
    assert (found.mean_recovery_us, found.longest_recovery_us) == (2 * RUN_US, 3 * RUN_US)


def test_an_outage_that_nobody_watched_has_no_time_to_recovery() -> None:
    """It may have been over an instant after we stopped looking."""
    found = availability_of(". . . http_5xx - - - . .")

    assert (found.outages, found.recoveries, found.longest_recovery_us) == (1, 0, None)


def test_a_clock_that_was_set_back_takes_no_time_away() -> None:
    """What was recorded by a clock ahead of the window's end counts as no time."""
    history = History(dice=". . . .")

    [found] = measure(history.tallies, history.losses, runs=1.5)

    assert (found.up_us, found.down_us, found.unknown_us) == (1.5 * RUN_US, 0, 0)


def test_a_window_that_ends_before_it_begins_is_unknown() -> None:
    """No figure is worse than a wrong one."""
    history = History(dice=".")

    [found] = measure(history.tallies, history.losses, runs=-1)

    assert (found.share, found.unknown_share, found.unknown_us) == (None, 1.0, 0)


def test_the_rule_says_how_long_a_state_holds() -> None:
    """It is printed with the figures."""
    assert "no longer than 2 usual intervals" in ACCOUNTING_RULE
