"""What an audit has to know of a stretch of time: kept for each day that is over. Pure.

All the findings of a year are made of the sheets of its days, one after the other; the first and
the last day of a window, and those in which a clock was wrong, are made anew from their runs.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from pipeline.audit.courses import Course, follow
from pipeline.audit.observations import observe
from pipeline.audit.stretches import Stretch, join
from pipeline.models import Loss, Step, Tally
from pipeline.store.columns import to_us
from pipeline.store.summaries import period_begin


@dataclass(slots=True)
class Sheet:
    """What runs told, one after the other.

    Attributes:
        runs: that wanted something.
        stretches: of which incidents are made, in the order of time.
        courses: by source.
    """

    runs: int = 0
    stretches: list[Stretch] = field(default_factory=list)
    courses: dict[str, Course] = field(default_factory=dict)

    @classmethod
    def of(
        cls, tallies: Sequence[Tally], losses: Iterable[Loss], off: Collection[int] = ()
    ) -> Self:
        """Make it of runs in the order of time; *off* are those whose clock was wrong."""
        observations = observe(tallies, losses, off)
        runs = len({tally.run_id for tally in tallies})
        return cls(runs, list(join(observations)), follow(observations))

    def add(self, other: Self) -> None:
        """Go on with what was told later."""
        self.runs += other.runs
        self.stretches += other.stretches
        for source, course in other.courses.items():
            self.courses.setdefault(source, Course()).add(course)

    def to_json(self, day: datetime) -> dict[str, Any]:
        """Make what is stored of a day: JSON types only."""
        day_us = to_us(day)
        courses = {name: of.to_json(day_us) for name, of in self.courses.items()}
        stretches = [stretch.to_json(day_us) for stretch in self.stretches]
        return {"runs": self.runs, "stretches": stretches, "courses": courses}

    @classmethod
    def from_json(cls, stored: dict[str, Any], day: datetime) -> Self:
        """Read what ``to_json`` made."""
        day_us = to_us(day)
        return cls(
            stored["runs"],
            [Stretch.from_json(each, day_us) for each in stored["stretches"]],
            {name: Course.from_json(of, day_us) for name, of in stored["courses"].items()},
        )


def examine_day(tallies: Sequence[Tally], losses: Sequence[Loss]) -> object:
    """Say of a day with one run at least, in JSON's types, what an audit has to know."""
    return Sheet.of(tallies, losses).to_json(period_begin(tallies[0].started_at, Step.DAY))
