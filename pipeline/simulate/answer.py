"""``pipeline simulate``: the figures of a window, and what they would have been."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pipeline.errors import UsageError
from pipeline.rendering.document import Document, Table, Text
from pipeline.rendering.output import json_lines, spooled
from pipeline.rendering.records import picks
from pipeline.rendering.render import render
from pipeline.rendering.shapes import Shape
from pipeline.rendering.tabulating import tabulate
from pipeline.rendering.words import count_of
from pipeline.scope import A_WEEK, check_source, make_window, reading, show_window, window_json
from pipeline.settings import Settings
from pipeline.simulate.cases import Case, Cases
from pipeline.simulate.changes import LONGER, RETRY, was_cut, with_limit
from pipeline.simulate.effects import MEASURES, SECOND, Effect, as_it_was

FEWEST = 30  # attempts that an estimate is made from
FIGURE = "source is_sandbox measure now certain at_best at_worst estimate n method"
UNKNOWN = "source is_sandbox reason requests"
WHY_LEFT_OUT = "stopped, pruned, or of limits that were not kept"
NAMES = {
    "missing": "batches that did not come",
    "requests": "requests",
    "refusals": "refusals",
    "clock_us": "seconds by the clock",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measure of one source: as it was, and as it would have been."""

    source: str
    is_sandbox: bool
    measure: str
    now: float
    at_best: float
    at_worst: float
    estimate: float | None = None
    n: int | None = None
    method: str | None = None

    @property
    def certain(self) -> float | None:
        """Give the figure if there is only one."""
        return self.at_best if self.at_best == self.at_worst else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """Something that no attempt on record can tell, and of how many requests."""

    source: str
    is_sandbox: bool
    reason: str
    requests: int


@dataclass(slots=True)
class Seen:
    """All cases of one source: as they were, as they would have been, and what they show.

    Attributes:
        times: how long each attempt took, and whether it was seen to its end.
        cut_us: what an attempt may take.
    """

    before: Effect = field(default_factory=lambda: Effect.exactly(0, 0, 0, 0))
    after: Effect = field(default_factory=lambda: Effect.exactly(0, 0, 0, 0))
    retries: int = 0
    helped: int = 0
    times: list[tuple[int, bool]] = field(default_factory=list)
    cut_us: int = 0
    is_sandbox: bool = False

    def add(self, case: Case, effect: Effect) -> None:
        """Take in one more case, and what the other limit does to it."""
        self.before.add(as_it_was(case))
        self.after.add(effect)
        limit = case.limits["attempt_seconds"]
        self.cut_us = int(limit * SECOND)
        self.is_sandbox = case.fetches[0].batches[0].is_sandbox
        for each in case.tries:
            self.retries += each.number > 1
            self.helped += each.number > 1 and each.error is None
            self.times.append((each.took_us, not was_cut(each, limit)))


def chance_to_end(times: Sequence[tuple[int, bool]], cut_us: int, most_us: int) -> float | None:
    """Estimate how likely an attempt that was cut at one time would have ended by another.

    By the product limit of Kaplan and Meier (1958): 1 - S(most) / S(cut), from the durations and
    whether each was seen to its end. None where nothing longer than the cut was seen to its end.
    """
    survived, at_risk = 1.0, len(times)
    at_cut = None
    for us, is_end in sorted(times, key=lambda time: (time[0], not time[1])):
        if us > cut_us and at_cut is None:
            at_cut = survived
        if us > most_us:
            break
        if is_end:
            survived *= 1 - 1 / at_risk
        at_risk -= 1
    return None if not at_cut or survived == at_cut else 1 - survived / at_cut


def simulate(
    settings: Settings,
    change: Mapping[str, Any],
    *,
    since: datetime | None,
    until: datetime | None,
    source: str | None,
    shape: Shape,
) -> None:
    """Write what one other limit would have done to the attempts of a window."""
    if len(change) != 1:
        raise UsageError("give one limit to change: what several do together cannot be told apart")
    ((name, value),) = change.items()
    window = make_window(since, until, looks_back=A_WEEK)
    with spooled() as paper, reading(settings.store) as session:
        check_source(settings, session, source)
        cases = Cases(session, window, source)
        figures, unknown = run_cases(cases, name, value)
        if shape is Shape.JSON:
            head = {
                "schema": "pipeline.simulation/1",
                "window": window_json(window),
                "change": {"limit": name, "value": value},
                "runs": cases.runs,
                "left_out": cases.left_out,
            }
            lines = json_lines(
                head, figures=picks(figures, FIGURE), unknown=picks(unknown, UNKNOWN)
            )
        else:
            shown = str(value).lower() if isinstance(value, bool) else value
            facts = [
                f"{show_window(window)}: {count_of(cases.runs, 'run')} with {name} = {shown}.",
            ]
            if cases.left_out:
                left_out = count_of(cases.left_out, "run")
                facts.append(f"{left_out} left out: {WHY_LEFT_OUT}.")
            lines = render(_document(facts, figures, unknown), shape)
        paper.writelines(f"{line}\n" for line in lines)


def run_cases(cases: Cases, name: str, value: Any) -> tuple[list[Figure], list[Unknown]]:  # noqa: ANN401 - of any setting
    """Add up, by source, what was and what would have been."""
    seen: defaultdict[str, Seen] = defaultdict(Seen)
    for case in cases:
        seen[case.source].add(case, with_limit(case, name, value))
    figures = [
        _figure(source, measure, of, value) for source, of in seen.items() for measure in MEASURES
    ]
    unknown = [
        Unknown(source=source, is_sandbox=of.is_sandbox, reason=reason, requests=requests)
        for source, of in seen.items()
        for reason, requests in of.after.unknown.most_common()
    ]
    return figures, unknown


def _figure(source: str, measure: str, of: Seen, value: Any) -> Figure:  # noqa: ANN401 - as above
    now, span = getattr(of.before, measure).low, getattr(of.after, measure)

    def show(figure: int) -> float:
        return round(figure / SECOND, 1) if measure == "clock_us" else figure

    guess = None
    if measure == "missing" and span.low < span.high:
        guess = _guess(of, value)
    estimate, n, method = guess or (None, None, None)
    return Figure(
        source=source,
        is_sandbox=of.is_sandbox,
        measure=NAMES[measure],
        now=show(now),
        at_best=show(span.low),
        at_worst=show(span.high),
        estimate=None if estimate is None else span.low + estimate,
        n=n,
        method=method,
    )


def _guess(of: Seen, value: Any) -> tuple[float, int, str] | None:  # noqa: ANN401 - as above
    """Estimate how many of the batches that hang on what is not known would not have come."""
    reasons, guesses = set(of.after.unknown), of.after.guesses
    if reasons == {RETRY} and of.retries >= FEWEST:
        fails = 1 - of.helped / of.retries
        lost = sum(batches * fails**tries for tries, batches in guesses.items())
        return lost, of.retries, "share of retries that helped"
    if reasons == {LONGER} and len(of.times) >= FEWEST:
        chance = chance_to_end(of.times, of.cut_us, int(value * SECOND))
        if chance is not None:
            return sum(guesses.values()) * (1 - chance), len(of.times), "Kaplan-Meier"
    return None


def _document(
    facts: Sequence[str], figures: Sequence[Figure], unknown: Sequence[Unknown]
) -> Document:
    parts: list[Table | Text] = [tabulate(Figure, figures, FIGURE)]
    if unknown:
        parts.append(tabulate(Unknown, unknown, UNKNOWN, title="What cannot be known"))
    return Document(title="Simulation", facts=facts, parts=parts)
