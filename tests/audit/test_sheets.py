"""Sheets: what is said of a year must not depend on how it is cut into days."""

import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from random import Random

import pytest

from pipeline.audit.availability import measure_availability
from pipeline.audit.incidents import find_incidents
from pipeline.audit.observations import PATH_ERRORS, observe
from pipeline.audit.rules import find_conduct, find_silent, find_stale
from pipeline.audit.sheets import Sheet, examine_day
from pipeline.audit.stretches import Stretch, concerning
from pipeline.errors import ErrorName
from pipeline.models import Finding, Loss, Step, Tally
from pipeline.store.summaries import period_begin
from tests.audit.histories import History, after, make_tally

RUNS = 1_000  # five minutes apart: three and a half days
WORDS = [".", *[error.value for error in ErrorName if error is not ErrorName.INTERNAL], "-"]


def a_history(seed: int) -> tuple[list[Tally], list[Loss]]:
    """Let three sources be well, fail for long, fail together, be put off, and break rules."""
    chance = Random(seed)
    words: dict[str, list[str]] = {name: [] for name in ("coin", "dice", "wheel")}
    while len(words["dice"]) < RUNS:
        length, together = chance.choice([1, 1, 2, 5, 60, 400]), chance.random() < 0.2
        same = chance.choice(["dns", "unreachable", "."])
        for of in words.values():
            word = same if together else chance.choice([".", ".", chance.choice(WORDS)])
            of.extend([word] * length)
    history = History(**{name: " ".join(of[:RUNS]) for name, of in words.items()})
    tallies = [
        make_tally(t.run_id, t.source, fastest_us=chance.randrange(1_000, 90_000), retries=1)
        if t.collected and chance.random() < 0.9
        else make_tally(t.run_id, t.source, violations=2, failed=1, violating_attempt=t.run_id)
        if t.collected
        else t
        for t in history.tallies
    ]
    return tallies, history.losses


def by_day(tallies: list[Tally], losses: list[Loss]) -> Sheet:
    """Add up the sheets of the days as they are stored and read again."""
    whole = Sheet()

    def day_of(row: Tally | Loss) -> datetime:
        return period_begin(row.started_at, Step.DAY)

    for day, group in groupby(tallies, key=day_of):
        of_day = list(group), [loss for loss in losses if day_of(loss) == day]
        whole.add(Sheet.from_json(json.loads(json.dumps(examine_day(*of_day))), day))
    return whole


def one_by_one(tallies: list[Tally], losses: list[Loss]) -> list[Stretch]:
    """Let each observation be a stretch of its own."""
    return [Stretch.of(observation) for observation in observe(tallies, losses)]


def incidents_of(stretches: Sequence[Stretch]) -> list[Finding]:
    """Find the incidents, and say what they were."""
    return [each.make_finding() for each in find_incidents(stretches)]


def findings_of(sheet: Sheet, until: datetime, tallies: list[Tally]) -> list[object]:
    """Find all that there is to find."""

    def fast(source: str, below_us: int) -> list[Tally]:
        known = [t for t in tallies if t.source == source and t.fastest_us is not None]
        return [tally for tally in known if (tally.fastest_us or 0) < below_us]

    return [
        *incidents_of(sheet.stretches),
        *find_stale(sheet.courses),
        *find_conduct(sheet.courses, fast),
        *find_silent(sheet.courses, sheet.courses, until=until),
        *measure_availability(sheet.courses, {}, since=None, until=until),
    ]


@pytest.mark.parametrize("seed", range(3))
def test_days_one_after_the_other_tell_what_all_runs_together_tell(seed: int) -> None:
    """Incidents go on past midnight, and every figure is the same to the microsecond."""
    tallies, losses = a_history(seed)
    until = after(RUNS + 20)

    together = Sheet.of(tallies, losses)

    found = findings_of(by_day(tallies, losses), until, tallies)
    assert found == findings_of(together, until, tallies)
    assert len(found) > 10
    assert by_day(tallies, losses).runs == together.runs == RUNS


@pytest.mark.parametrize("seed", range(3))
def test_what_is_alike_can_be_joined(seed: int) -> None:
    """Few stretches tell what each run for itself tells."""
    tallies, losses = a_history(seed)
    stretches = Sheet.of(tallies, losses).stretches

    found = incidents_of(stretches)

    assert found == incidents_of(one_by_one(tallies, losses))
    assert len(stretches) < len(tallies) / 2


@pytest.mark.parametrize(
    "cut", [lambda moment: moment, lambda moment: moment + timedelta(hours=7, microseconds=1)]
)
def test_a_window_that_cuts_through_days_begins_anew(
    cut: Callable[[datetime], datetime],
) -> None:
    """As if there had been no run before it."""
    tallies, losses = a_history(99)
    since = cut(period_begin(tallies[0].started_at, Step.DAY) + timedelta(days=1))

    def later(rows: list[Tally]) -> list[Tally]:
        return [row for row in rows if row.started_at >= since]

    sheet = by_day(later(tallies), later(losses))  # type: ignore[arg-type]

    singles = one_by_one(later(tallies), later(losses))  # type: ignore[arg-type]
    assert incidents_of(sheet.stretches) == incidents_of(singles)


@pytest.mark.parametrize("seed", range(3))
def test_of_one_source_the_same_is_told_as_of_all(seed: int) -> None:
    """With causes on our side, and without any."""
    tallies, losses = a_history(seed)
    alone = [loss for loss in losses if loss.error not in PATH_ERRORS]

    for some in (losses, alone):
        stretches = Sheet.of(tallies, some).stretches
        theirs = [each for each in incidents_of(stretches) if "dice" in each.sources]
        chosen = incidents_of(concerning(stretches, "dice"))
        assert [each for each in chosen if "dice" in each.sources] == theirs
