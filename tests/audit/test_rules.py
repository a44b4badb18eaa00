"""The smaller rules: when each speaks up, and when it must not."""

from dataclasses import replace
from datetime import timedelta

import pytest

from pipeline.audit.contracts import find_contract_changes
from pipeline.audit.courses import Course
from pipeline.audit.observations import select_attempts
from pipeline.audit.rules import (
    ENOUGH,
    find_conduct,
    find_late,
    find_overdue,
    find_shut,
    find_silent,
    find_stale,
    find_too_fast,
    find_useless_retries,
    find_violations,
)
from pipeline.errors import ErrorName, Whose
from pipeline.models import (
    Aspect,
    ContractSpan,
    Finding,
    FindingKind,
    Late,
    Overdue,
    Severity,
    Tally,
)
from pipeline.pacing import Embargo
from tests.audit.histories import EVERY, History, after, courses_of, make_loss, make_tally
from tests.store.makers import NOON, at


def make_spans(
    values: str, aspect: Aspect = Aspect.CONTENT_TYPE, source: str = "dice"
) -> list[ContractSpan]:
    """Show one value after the other, each for ten runs; attempts are numbered as runs are."""
    return [
        ContractSpan(
            source=source,
            aspect=aspect,
            value=value,
            first_at=after(10 * number),
            last_at=after(10 * number + 9),
            first_attempt=10 * number,
            last_attempt=10 * number + 9,
        )
        for number, value in enumerate(values, 1)
    ]


def changes_of(
    spans: list[ContractSpan], since: float | None = None, until: float = 1_000
) -> list[Finding]:
    """Find the changes between two runs."""
    begin = None if since is None else after(since)
    return list(find_contract_changes(spans, since=begin, until=after(until)))


def test_the_first_value_ever_is_no_change() -> None:
    """There was nothing to agree upon before."""
    assert changes_of(make_spans("a")) == []


def test_a_change_says_before_after_and_since_when() -> None:
    """And which attempts to look at: the first of the old kind and the first of the new."""
    [found] = changes_of(make_spans("ab"))

    assert (found.kind, found.severity) == (FindingKind.CONTRACT_CHANGE, Severity.WARNING)
    assert found.reason == "the content type of answers changed from a to b"
    assert (found.since, found.until, found.attempts) == (after(20), None, (10, 20))
    assert (found.figures["before"], found.figures["after"]) == ("a", "b")


def test_a_change_after_a_change_goes_on_with_it() -> None:
    """What was agreed upon is neither the one nor the other."""
    [found] = changes_of(make_spans("abc"))

    assert (found.since, found.until, found.attempts) == (after(20), None, (10, 20, 30))
    assert found.reason == "the content type of answers changed 2 times from a to c"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ("aba", "changed 2 times between a and b; now a"),
        ("abca", "changed 3 times and is a again"),
        ("abcba", "changed 4 times and is a again"),
    ],
)
def test_what_is_back_is_over_whatever_lay_between(values: str, reason: str) -> None:
    """And wakes nobody for the rest of the week."""
    [found] = changes_of(make_spans(values))

    assert found.reason == f"the content type of answers {reason}"
    assert found.until == after(10 * len(values))
    assert found.severity is Severity.INFO


def test_what_was_back_and_changes_anew_is_another_finding() -> None:
    """Unless it is the same that comes and goes."""
    first, second = changes_of(make_spans("abac"))
    [again] = changes_of(make_spans("abcab"))

    assert (first.until, first.severity) == (after(30), Severity.INFO)
    assert (second.since, second.until, second.severity) == (after(40), None, Severity.WARNING)
    assert (again.until, again.severity) == (None, Severity.WARNING)


def test_a_value_that_comes_and_goes_is_one_finding() -> None:
    """Two servers behind one name are one thing to know and not a thousand."""
    [found] = changes_of(make_spans("abababa"))

    assert found.reason == ("the content type of answers changed 6 times between a and b; now a")
    assert found.since == after(20)
    assert (found.attempts[0], found.attempts[-1]) == (10, 70)


@pytest.mark.parametrize(("values", "until"), [("aba", 30), ("ababa", 50), ("abac", 30)])
def test_a_change_that_was_changed_back_is_over(values: str, until: float) -> None:
    """Since the moment at which the value was the old one again, whatever came later."""
    assert changes_of(make_spans(values))[0].until == after(until)


@pytest.mark.parametrize("values", ["ab", "abab"])
def test_a_change_that_was_not_goes_on(values: str) -> None:
    """Even if it was changed back once."""
    [found] = changes_of(make_spans(values))

    assert found.until is None


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (["data, type", "data, notice, type"], "changed; new: notice; now: data, notice, type"),
        (["data", "numbers", "data"], "changed 2 times; gone: data; new: numbers; now: data"),
        (
            ["a", ", ".join("bcdefghi")],
            "changed; gone: a; new: b, c, d, e, f, g and 2 more; now: b, c, d, e, f, g and 2 more",
        ),
    ],
)
def test_of_keys_only_the_difference_is_told(values: list[str], reason: str) -> None:
    """The whole lists are long, and the same but for a word; the figures have them."""
    plain = make_spans("x" * len(values), Aspect.KEYS)
    spans = [replace(span, value=value) for span, value in zip(plain, values, strict=True)]

    [found] = changes_of(spans)

    assert found.reason == f"the keys of answers {reason}"
    assert (found.figures["before"], found.figures["after"]) == (values[0], values[-1])


def test_changes_outside_of_the_window_are_old_news() -> None:
    """The value before may be older than the window all the same."""
    spans = make_spans("abcd")

    assert [found.figures["after"] for found in changes_of(spans, since=25, until=35)] == ["c"]
    assert changes_of(spans, since=41) == []


def test_sources_and_aspects_are_kept_apart() -> None:
    """Each is compared with itself alone."""
    spans = [
        *make_spans("a", source="coin"),
        *make_spans("b", Aspect.KEYS),
        *make_spans("cd", Aspect.TLS_ISSUER),
    ]

    [found] = changes_of(spans)

    assert found.reason == "the issuer of its certificate changed from c to d"


def test_a_new_issuer_is_a_remark() -> None:
    """Authorities change their intermediates with every other certificate."""
    [found] = changes_of(make_spans("ab", Aspect.TLS_ISSUER))

    assert found.severity is Severity.INFO


FITS, OTHER = "scheme, 512 bytes", "scheme, 256 bytes"
UNFIT = f"{FITS}; the pinned key makes 256"


def signings_of(*values: str) -> list[ContractSpan]:
    """Sign in one way after the other."""
    spans = make_spans("x" * len(values), Aspect.SIGNING)
    return [replace(span, value=value) for span, value in zip(spans, values, strict=True)]


def test_a_signature_of_another_length_is_a_change() -> None:
    """It is over when it is back, as of anything else."""
    assert changes_of(signings_of(FITS)) == []
    [changed] = changes_of(signings_of(FITS, OTHER))
    [back] = changes_of(signings_of(FITS, OTHER, FITS))

    assert changed.reason == "how it signs changed from scheme, 512 bytes to scheme, 256 bytes"
    assert (changed.severity, changed.until) == (Severity.WARNING, None)
    assert (back.severity, back.until) == (Severity.INFO, after(30))


def test_a_signature_that_does_not_fit_the_key_is_found_at_once() -> None:
    """The key is what it should fit; nothing need have been seen before."""
    [found] = changes_of(signings_of(UNFIT))

    assert found.reason == f"how it signs does not fit the pinned key: {UNFIT}"
    assert (found.severity, found.since, found.until) == (Severity.WARNING, after(10), None)
    assert (found.figures["before"], found.figures["after"]) == (None, UNFIT)
    assert found.attempts == (10,)
    assert changes_of(signings_of(UNFIT), since=15) == []  # old news


def test_a_signature_that_comes_to_fit_the_key_ends_it() -> None:
    """By another key or another length; what does not fit ever after is one thing to know."""
    [fits] = changes_of(signings_of(UNFIT, OTHER))
    [other_unfit] = changes_of(signings_of(UNFIT, OTHER + "; the pinned key makes 64"))
    fitted, again = changes_of(signings_of(UNFIT, FITS, OTHER))

    assert fits.reason == f"how it signs fits the pinned key by now: {OTHER}"
    assert (fits.severity, fits.until) == (Severity.INFO, after(20))
    assert (other_unfit.severity, other_unfit.until) == (Severity.WARNING, None)
    assert fitted.until == after(20)
    assert (again.since, again.severity) == (after(30), Severity.WARNING)


def test_stale_answers_are_one_finding_per_source() -> None:
    """What they cost, and where to look."""
    losses = [
        make_loss(1, error=ErrorName.STALE, batches=7),
        make_loss(3, error=ErrorName.STALE, batches=2, attempts=2),
        make_loss(4),
        make_loss(5, "coin", ErrorName.STALE),
    ]
    tallies = [*map(make_tally, (1, 3, 4)), make_tally(5, "coin")]

    dice, coin = find_stale(courses_of(tallies, losses))

    assert (dice.kind, dice.severity, dice.whose) == (
        FindingKind.STALE,
        Severity.WARNING,
        Whose.CONTRACT,
    )
    assert (dice.since, dice.until, dice.batches, dice.attempts) == (after(1), after(3), 9, (1, 3))
    assert dice.reason == "3 answers held numbers that it had served before"
    assert coin.reason == "1 answer held numbers that it had served before"


@pytest.mark.parametrize(
    ("words", "is_going_on"),
    [(". stale", True), ("stale stale -", True), ("stale .", False), ("stale http_5xx", False)],
)
def test_stale_answers_go_on_until_a_run_that_asks_gets_none(words: str, is_going_on: bool) -> None:
    """What the newest answer was is how it stands; a run that was put off saw no answer."""
    history = History(dice=words)

    [found] = find_stale(courses_of(history.tallies, history.losses))

    assert (found.until is None) is is_going_on


def timed(*milliseconds: int) -> list[Tally]:
    """Give a run for each of the fastest times."""
    return [make_tally(run, fastest_us=ms * 1000) for run, ms in enumerate(milliseconds)]


def course_of(tallies: list[Tally]) -> Course:
    """Follow the one source that they are of."""
    return courses_of(tallies).get("dice", Course())


def too_fast(tallies: list[Tally]) -> Finding | None:
    """Apply the rule; whoever looks the fast ones up gets all that are."""

    def find_fast(source: str, below_us: int) -> list[Tally]:
        assert source == "dice"
        return [tally for tally in tallies if (tally.fastest_us or below_us) < below_us]

    return find_too_fast("dice", course_of(tallies), find_fast)


def test_answers_ten_times_as_fast_as_usual_are_suspicious() -> None:
    """Nobody makes true random numbers in no time."""
    found = too_fast(timed(*[200] * ENOUGH, 19, 200, 5))

    assert found is not None
    assert (found.kind, found.severity) == (FindingKind.TOO_FAST, Severity.WARNING)
    assert found.attempts == (ENOUGH, ENOUGH + 2)
    assert (found.since, found.until) == (after(ENOUGH), after(ENOUGH + 2))
    assert found.reason == (
        "2 runs had an answer in less than a tenth of the usual time: 5 ms against 200 ms"
    )


@pytest.mark.parametrize(
    "milliseconds", [[200] * (ENOUGH - 2) + [1], [200] * ENOUGH + [20], [200] * ENOUGH, []]
)
def test_what_is_merely_fast_is_not(milliseconds: list[int]) -> None:
    """Nor is anything while nobody knows what is usual."""
    assert too_fast(timed(*milliseconds)) is None


def test_runs_without_an_answer_have_no_time() -> None:
    """They count neither as usual nor as fast."""
    silent = [make_tally(run, fastest_us=None, fastest_attempt=None) for run in range(ENOUGH)]

    assert too_fast([*silent, *timed(200, 1)]) is None


def test_rules_that_we_broke_are_told() -> None:
    """Before the provider tells us."""
    found = find_violations(
        "dice",
        course_of(
            [
                make_tally(1, violations=None, rule=None),
                make_tally(2, violations=2, violating_attempt=20),
                make_tally(3),
                make_tally(4, violations=1, violating_attempt=40),
            ]
        ),
    )

    assert found is not None
    assert (found.kind, found.severity, found.whose) == (
        FindingKind.RULE_VIOLATION,
        Severity.WARNING,
        Whose.OURS,
    )
    assert (found.attempts, found.figures["requests"]) == ((20, 40), 3)
    assert found.reason == (
        "3 requests of ours went too soon after another (at most 1/60s), or before a time that the"
        " upstream had named"
    )


def test_kept_rules_are_not() -> None:
    """Nor are runs of which nobody knows the rule."""
    assert (
        find_violations("dice", course_of([make_tally(1), make_tally(2, violations=None)])) is None
    )


def test_a_named_time_can_be_broken_without_a_rule() -> None:
    """There was no rate, only a Retry-After."""
    found = find_violations(
        "dice", course_of([make_tally(1, rule=None, violations=1, violating_attempt=1)])
    )

    assert found is not None
    assert found.reason == "1 request of ours went before a time that the upstream had named"


def test_retries_that_never_help_are_remarked_upon() -> None:
    """They cost the upstream requests and us time."""
    found = find_useless_retries(
        "dice", course_of([make_tally(run, retries=5) for run in range(4)])
    )

    assert found is not None
    assert (found.kind, found.severity) == (FindingKind.USELESS_RETRIES, Severity.INFO)
    assert found.reason.startswith("none of 20 retries helped")


def test_what_came_when_its_run_had_ended_is_named() -> None:
    """With count, run, machine and file; a warning if it would have brought numbers."""
    late = Late(
        run_id=7,
        source="dice",
        file="/x.spool-1",
        host="m1",
        pid=8,
        attempts=2,
        collected=1,
        first_at=NOON,
        last_at=at(1),
    )

    warned, told = find_late([late, replace(late, file=None, pid=None, collected=0)])

    assert (warned.kind, warned.severity, told.severity) == ("late", "warning", "info")
    assert warned.reason == (
        "2 attempts of run 7 by m1 pid 8, set aside in /x.spool-1, came when the run had ended,"
        " with 1 batch: kept beside it"
    )
    assert told.reason.startswith("2 attempts of run 7 by m1, came when")


@pytest.mark.parametrize(("retries", "helped"), [(4, 0), (9, 1)])
def test_few_retries_or_one_that_helped_are_fine(retries: int, helped: int) -> None:
    """A retry that helps once in a while is what it is for."""
    first = make_tally(0, retries=retries, retries_helped=helped)
    tallies = [first, *(make_tally(run, retries=5) for run in (1, 2, 3))]

    assert find_useless_retries("dice", course_of(tallies)) is None


def test_conduct_is_looked_at_source_by_source() -> None:
    """Ten useless retries here and ten there are not twenty."""
    tallies = [make_tally(run, source, retries=10) for run, source in ((1, "coin"), (2, "dice"))]
    broken = make_tally(3, "coin", violations=1)

    found = find_conduct(courses_of([*tallies, broken]), lambda _source, _us: [])

    assert [finding.kind for finding in found] == ["rule_violation"]


REGULAR = [make_tally(run, source) for run in range(ENOUGH) for source in ("coin", "dice")]
LAST = ENOUGH - 1


def test_sources_that_nobody_wants_any_more_are_told_together() -> None:
    """Cron has died, and the last day looks as good as ever."""
    [found] = find_silent(courses_of(REGULAR), {"coin", "dice"}, until=after(LAST + 3.1))

    assert (found.kind, found.sources, found.whose) == (
        FindingKind.SILENT,
        ("coin", "dice"),
        Whose.OURS,
    )
    assert (found.since, found.until) == (after(LAST), None)
    assert found.reason == f"no run wanted it since, and usually one does every {EVERY} min 0 s"


def test_one_source_alone_can_fall_silent() -> None:
    """A run on another configuration, perhaps."""
    more = [make_tally(run, "coin") for run in range(ENOUGH, ENOUGH + 10)]

    [found] = find_silent(courses_of([*REGULAR, *more]), {"coin", "dice"}, until=after(ENOUGH + 10))

    assert found.sources == ("dice",)


@pytest.mark.parametrize(
    ("enabled", "runs_later"), [({"coin", "dice"}, 3), ({"wheel"}, 99), ((), 99)]
)
def test_silence_that_may_be_meant_is_none(enabled: set[str], runs_later: int) -> None:
    """A tick that is late, a source that is switched off or new."""
    assert not list(find_silent(courses_of(REGULAR), enabled, until=after(LAST + runs_later)))


def test_a_few_runs_by_hand_promise_nothing() -> None:
    """Who tried the program three times has no schedule."""
    assert not list(
        find_silent(courses_of(REGULAR[:6]), {"dice"}, until=after(0) + timedelta(days=30))
    )
    quick = [
        replace(tally, started_at=after(0) + timedelta(seconds=2 * number))
        for number, tally in enumerate(REGULAR)
    ]
    assert not list(find_silent(courses_of(quick), {"dice"}, until=after(99)))


def test_few_attempts_stand_for_many() -> None:
    """Each once, in order, and those that are none left out."""
    assert select_attempts([3, None, 1, 3]) == (1, 3)
    assert select_attempts(range(100)) == (0, 1, 2, 3, 4, 95, 96, 97, 98, 99)
    assert select_attempts([None]) == ()


def shut(intervals: float, *, tallies: list[Tally] = REGULAR) -> Finding | None:
    """Shut the dice for so many intervals from the last regular run on."""
    said_at = after(LAST)
    until = said_at + timedelta(minutes=EVERY * intervals)
    dice = [tally for tally in tallies if tally.source == "dice"]
    return find_shut("dice", Embargo(until=until, why="Retry-After", said_at=said_at), dice)


def test_a_source_that_is_shut_for_long_is_told_with_the_way_out() -> None:
    """Every run ends "ok, all deferred", for years if nobody looks."""
    found = shut(300)

    assert found is not None
    assert (found.kind, found.severity) == (FindingKind.SHUT, Severity.WARNING)
    assert (found.sources, found.since, found.until) == (("dice",), after(LAST), None)
    assert found.reason.startswith("not to be asked before 20")
    assert found.reason.endswith(": Retry-After; `pipeline sources release dice` lifts it")


def test_a_pause_of_a_few_runs_is_no_news() -> None:
    """Nor is one within the hour, however often runs come."""
    assert shut(max(10, 60 / EVERY)) is None
    assert shut(max(10, 60 / EVERY) + 0.1) is not None


def test_of_a_new_source_a_day_is_long() -> None:
    """Its first answer may have shut it; nobody knows yet how often it is wanted."""
    assert shut(24 * 60 / EVERY, tallies=[]) is None
    assert shut(24 * 60 / EVERY + 1, tallies=[]) is not None


def test_a_source_that_was_asked_since_is_not_shut() -> None:
    """It has another address or key by now, which nobody forbids to ask."""
    deferred = make_tally(ENOUGH, attempts=0)

    assert shut(300, tallies=[*REGULAR, deferred]) is not None
    assert shut(300, tallies=[*REGULAR, make_tally(ENOUGH, attempts=1)]) is None


@pytest.mark.parametrize(
    ("is_alive", "told", "fate"),
    [
        (True, False, "its process is still there"),
        (None, False, "nobody here can tell"),
        (False, True, "its process is gone"),
    ],
)
def test_a_run_that_outlives_its_deadline_is_told(
    is_alive: bool | None, told: bool, fate: str
) -> None:
    """Whatever else is known of it; but one that lives may take a moment for its last writes."""
    run = Overdue(
        run_id=7,
        host="c1/0badcafe",
        started_at=after(0),
        until=after(5),
        is_alive=is_alive,
        sources=("dice",),
    )

    at_once = list(find_overdue([run], now=after(5.1)))
    [found] = find_overdue([run], now=after(6))

    assert bool(at_once) is told
    assert (found.kind, found.severity) == (FindingKind.OVERDUE, Severity.WARNING)
    assert (found.sources, found.since, found.until) == (("dice",), after(5), None)
    assert found.reason.startswith("run 7 of c1/0badcafe has not ended by its deadline, ")
    assert fate in found.reason


def test_a_run_that_is_silent_is_told_before_its_deadline() -> None:
    """Its machine is down, or does not reach the store any more."""
    run = Overdue(
        run_id=7,
        host="c1/0badcafe",
        started_at=after(0),
        until=after(5),
        is_alive=False,
        sources=("dice",),
        silent_since=after(1),
    )

    [found] = find_overdue([run], now=after(2))

    assert (found.kind, found.since) == (FindingKind.OVERDUE, after(1))
    assert found.reason.startswith("run 7 of c1/0badcafe has given no sign of life since ")
