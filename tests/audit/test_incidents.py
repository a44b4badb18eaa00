"""Incidents: where they begin, where they end, what they cost and whose they are."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from pipeline.audit.incidents import find_incidents, rate_incident
from pipeline.audit.observations import observe
from pipeline.audit.stretches import join
from pipeline.errors import ErrorName, Whose
from pipeline.models import Finding, FindingKind, Loss, Severity, Tally
from tests.audit.histories import History, after, fail, make_loss, make_tally


def findings_of(tallies: Sequence[Tally], losses: Sequence[Loss]) -> list[Finding]:
    """Find the incidents of what runs told."""
    return [each.make_finding() for each in find_incidents(join(observe(tallies, losses)))]


def incidents_of(**sources: str) -> list[Finding]:
    """Find the incidents of a history that is written in words."""
    history = History(**sources)
    return findings_of(history.tallies, history.losses)


def test_failures_in_a_row_are_one_incident() -> None:
    """From the first attempt that failed to the first run that went well again."""
    [found] = incidents_of(dice=". http_5xx http_5xx http_5xx . .")

    assert (found.kind, found.sources, found.whose) == (
        FindingKind.INCIDENT,
        ("dice",),
        Whose.UPSTREAM,
    )
    assert (found.since, found.until) == (after(2), after(5))
    assert (found.batches, found.attempts, found.figures["runs"]) == (3, (2, 3, 4), 3)
    assert found.reason == "3 runs in a row lost 3 batches to http_5xx (the server failed)"


def test_a_good_run_ends_an_incident() -> None:
    """What comes after it is another one."""
    first, second = incidents_of(dice=". http_5xx . http_5xx .")

    assert (first.since, first.until) == (after(2), after(3))
    assert (second.since, second.until) == (after(4), after(5))


def test_an_incident_without_an_end_still_goes_on() -> None:
    """Nobody knows that it is over before a run has shown it."""
    [found] = incidents_of(dice=". http_5xx http_5xx http_5xx")

    assert found.until is None
    assert found.severity is Severity.CRITICAL


def test_one_party_s_errors_are_one_incident() -> None:
    """An overloaded server fails in more than one way in one night; all of them are told."""
    [found] = incidents_of(dice=". http_5xx read_timeout http_5xx .")

    assert found.figures["errors"] == {"http_5xx": 2, "read_timeout": 1}
    assert "http_5xx (the server failed; 2), read_timeout (no bytes for too long; 1)" in (
        found.reason
    )


def test_parties_are_kept_apart() -> None:
    """A key that ran out is not the server's failure."""
    found = incidents_of(dice=". http_5xx unauthorized .")

    assert {(incident.whose, incident.batches) for incident in found} == {
        (Whose.UPSTREAM, 1),
        (Whose.OURS, 1),
    }


@pytest.mark.parametrize("between", ["-", "cancelled", "rate_limited"])
def test_a_run_that_tells_nothing_does_not_end_an_incident(between: str) -> None:
    """It was not asked, or nothing came for another reason: who knows how it would have been."""
    upstream = [
        incident
        for incident in incidents_of(dice=f". http_5xx {between} http_5xx .")
        if incident.whose is Whose.UPSTREAM
    ]

    assert [(found.since, found.until, found.figures["runs"]) for found in upstream] == [
        (after(2), after(5), 2)
    ]


def test_runs_lost_to_others_in_between_are_not_passed_over() -> None:
    """Three runs in a row failed; two of them through the contract is not the whole truth."""
    reasons = {
        found.whose: found.reason for found in incidents_of(dice=". schema unauthorized - range .")
    }

    assert reasons[Whose.CONTRACT].startswith("2 runs lost 2 batches to schema")
    assert reasons[Whose.CONTRACT].endswith(
        "; 1 run between them lost batches for other reasons only"
    )
    assert "between" not in reasons[Whose.OURS]


def test_runs_lost_to_others_after_the_last_are_not_between() -> None:
    """They are the tail of an incident and not within it."""
    found = incidents_of(dice=". http_5xx http_5xx unauthorized .")

    assert found[0].reason == "2 runs in a row lost 2 batches to http_5xx (the server failed)"


def test_some_batches_lost_are_an_incident_too() -> None:
    """A source that serves every second request only is not well."""
    tallies = [make_tally(run, collected=2, failed=1, attempts=3) for run in (1, 2, 3)]
    losses = [make_loss(run) for run in (1, 2, 3)]

    [found] = findings_of(tallies, losses)

    assert (found.figures["runs"], found.figures["collected"]) == (3, 6)
    assert found.severity is Severity.WARNING


def test_a_retry_that_helped_is_no_incident() -> None:
    """Nothing was lost."""
    tallies = [make_tally(1, attempts=2, failed_attempts=1, retries=1, retries_helped=1)]

    assert not findings_of(tallies, [make_loss(1, batches=0)])


def test_a_batch_lost_without_asking_counts() -> None:
    """The breaker spares the upstream, and the batches are gone all the same."""
    tallies = [make_tally(1, collected=0, failed=1, attempts=0)]

    [found] = findings_of(tallies, [make_loss(1, attempts=0)])

    assert (found.batches, found.attempts) == (1, ())


@pytest.mark.parametrize("error", ["cancelled", "stale"])
def test_what_has_another_place_is_no_incident(error: str) -> None:
    """Somebody stopped the run; stale answers have a finding of their own."""
    assert incidents_of(dice=f". {error} .") == []


def test_refusals_are_told_apart() -> None:
    """The upstream keeps to its policy: that is no outage."""
    [found] = incidents_of(dice=". rate_limited rate_limited .")

    assert (found.kind, found.whose) == (FindingKind.REFUSED, Whose.POLICY)
    assert found.severity is Severity.INFO


def test_sources_that_fail_together_on_the_way_are_our_side() -> None:
    """Two providers do not lose their names in the same minute; we lost our resolver."""
    [found] = incidents_of(coin=". dns dns .", dice=". dns connect_timeout .", card=". . . .")

    assert found.sources == ("coin", "dice")
    assert found.whose is Whose.PATH
    assert found.figures["is_our_side"] is True
    assert (found.figures["runs"], found.batches) == (2, 4)
    assert (found.since, found.until) == (after(2), after(4))
    assert "2 sources at once, so on our side of the path" in found.reason


def test_together_is_what_begins_in_the_same_minute() -> None:
    """Sources with schedules of their own are asked by runs of their own."""
    seconds = [
        replace(make_loss(run, source, ErrorName.DNS), started_at=after(1) + timedelta(seconds=run))
        for run, source in ((1, "coin"), (2, "dice"))
    ]
    tallies = [
        replace(fail(loss.run_id, loss.source), started_at=loss.started_at) for loss in seconds
    ]
    good = [replace(make_tally(3, "coin"), started_at=after(1) + timedelta(seconds=30))]

    [found] = findings_of([*tallies, *good], seconds)

    assert (found.sources, found.figures["is_our_side"]) == (("coin", "dice"), True)
    assert found.until == after(1) + timedelta(seconds=30)


def test_fewer_than_half_are_not_our_side() -> None:
    """The others came through: the trouble is where those two are."""
    found = incidents_of(coin=". dns .", dice=". dns .", card=". . .", wheel=". . .", drum=". . .")

    assert [incident.sources for incident in found] == [("coin",), ("dice",)]
    assert not any(incident.figures["is_our_side"] for incident in found)


def test_servers_that_fail_together_are_not_our_side() -> None:
    """We reached them both."""
    found = incidents_of(coin=". http_5xx .", dice=". http_5xx .")

    assert [incident.sources for incident in found] == [("coin",), ("dice",)]


def test_one_source_that_stays_away_is_its_own_incident_afterwards() -> None:
    """The way is there again for all the others."""
    found = incidents_of(coin=". dns . .", dice=". dns dns .")

    assert [(incident.sources, incident.since, incident.until) for incident in found] == [
        (("coin", "dice"), after(2), after(3)),
        (("dice",), after(3), after(4)),
    ]


def test_a_failing_first_run_may_have_begun_before() -> None:
    """The window cut something off, and that is said."""
    [found] = incidents_of(dice="http_5xx .")

    assert found.reason.endswith("; from the first run of this window on")


def test_a_long_incident_names_few_attempts() -> None:
    """The first and the last among them; ten thousand ids help nobody."""
    [found] = incidents_of(dice=". " + "http_5xx " * 300)

    assert len(found.attempts) == 10
    assert (found.attempts[0], found.attempts[-1]) == (2, 301)


@pytest.mark.parametrize(
    ("runs", "collected", "whose", "is_over", "severity"),
    [
        (1, 0, Whose.UPSTREAM, True, Severity.INFO),
        (1, 0, Whose.UPSTREAM, False, Severity.WARNING),
        (2, 0, Whose.OURS, True, Severity.WARNING),
        (300, 0, Whose.UPSTREAM, True, Severity.WARNING),
        (2, 0, Whose.PATH, False, Severity.WARNING),
        (3, 0, Whose.PATH, False, Severity.CRITICAL),
        (3, 1, Whose.CONTRACT, False, Severity.WARNING),
        (1, 0, Whose.POLICY, False, Severity.INFO),
        (9, 0, Whose.POLICY, True, Severity.INFO),
        (9, 0, Whose.POLICY, False, Severity.WARNING),
    ],
)
def test_how_bad_an_incident_is(
    runs: int, collected: int, whose: Whose, is_over: bool, severity: Severity
) -> None:
    """The one rule, row by row."""
    rated = rate_incident(runs, collected, whose, is_over=is_over)

    assert rated is severity


def test_every_error_can_be_told() -> None:
    """The vocabulary is published, and each word of it has a meaning."""
    for error in ErrorName:
        for found in incidents_of(dice=f". {error} ."):
            assert str(error) in found.reason
