"""The rules of health: numbers that chance hardly gives. Pure.

One function per rule, as in ``rules.py``. No number was refused for it, and chance alone gives such
a finding too, if seldom: each says how seldom.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime

from pipeline.errors import Whose
from pipeline.health.continuous import HealthTest, limits_of
from pipeline.health.verdicts import ALPHA
from pipeline.models import Finding, FindingKind, Severity
from pipeline.rendering.records import pick
from pipeline.store.health import NumberRange
from pipeline.store.health_figures import BlockTest, HealthAlarm, RangeHealth, show_years

QUIET = 10  # windows; a biased source shows it in those that begin with its favourite


def find_excess(alarms: Iterable[HealthAlarm], healths: Iterable[RangeHealth]) -> Iterator[Finding]:
    """Find numbers that came too often in a row, or in a window: a warning, or critical.

    It goes on until ten windows of numbers came without. The alarms of a source, range and test,
    in the order of time, are one finding.
    """
    known = {NumberRange.of(each): each for each in healths}
    found: defaultdict[tuple[NumberRange, HealthTest], list[HealthAlarm]] = defaultdict(list)
    for alarm in alarms:
        found[NumberRange.of(alarm), alarm.test].append(alarm)
    for (of, test), some in found.items():
        worst = max(some, key=lambda alarm: (list(Severity).index(alarm.severity), alarm.times))
        yield Finding(
            kind=FindingKind(test),
            severity=worst.severity,
            sources=(of.source,),
            since=some[0].started_at,
            until=None if _goes_on(some[-1], known[of]) else some[-1].started_at,
            reason=_say_excess(worst, known[of]),
            whose=Whose.UPSTREAM,
            figures=_figures(worst, some[0], known[of]),
        )


def _goes_on(last: HealthAlarm, health: RangeHealth) -> bool:
    limits = limits_of(last.min, last.max)
    return limits is not None and health.numbers - last.position < QUIET * limits.window


def _say_excess(worst: HealthAlarm, health: RangeHealth) -> str:
    limits = limits_of(worst.min, worst.max)
    cut_offs = {} if limits is None else limits.cut_offs[worst.test]
    are = ", ".join(f"{severity} from {cut_off}" for severity, cut_off in cut_offs.items())
    where = "in a row"
    if worst.test is HealthTest.PROPORTION and limits is not None:
        where = f"among {limits.window} numbers"
    return (
        f"{worst.value} came {worst.times:,} times {where} (numbers {_range(worst)}; {are}); at"
        f" this pace chance alone warns once in {show_years(health.false_alarm_years)}"
    )


def _range(of: HealthAlarm | BlockTest) -> str:
    return f"{of.min} to {of.max}"


def _figures(worst: HealthAlarm, first: HealthAlarm, health: RangeHealth) -> dict[str, object]:
    limits = limits_of(worst.min, worst.max)
    window = limits.window if limits and worst.test is HealthTest.PROPORTION else None
    return (
        pick(worst, "test min max value times cut_off")
        | {"window": window, "numbers": health.numbers}
        | pick(first, "first_run=run_id first_batch=batch_name first_position=position")
        | pick(health, "false_alarm_years")
    )


def find_odd_blocks(healths: Iterable[RangeHealth], *, since: datetime | None) -> Iterator[Finding]:
    """Find tests to which more blocks look odd than chance makes so: a warning, or critical."""
    for health in healths:
        for test in health.tests:
            if test.severity is not None and test.chance is not None:
                yield Finding(
                    kind=FindingKind.ODD_BLOCKS,
                    severity=test.severity,
                    sources=(test.source,),
                    since=max(filter(None, (since, health.first_at))),
                    until=None,
                    reason=_say_odd(test, health),
                    whose=Whose.UPSTREAM,
                    figures=pick(test, "test min max")
                    | {"alpha": ALPHA, "block_size": health.block_size}
                    | pick(test, "blocks odd expected chance"),
                )


def _say_odd(test: BlockTest, health: RangeHealth) -> str:
    name = test.test.replace("_", "-")
    return (
        f"{test.odd:,} of {test.blocks:,} blocks look odd to the {name} test (blocks of"
        f" {health.block_size:,} numbers {_range(test)}; p below {ALPHA}); chance makes about"
        f" {test.expected:.2g} odd, and so many only with a probability of {test.chance:.1g}"
    )
