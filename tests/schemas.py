"""Make the published JSON Schemas of the types and the lines of fields that answers are made of.

``make schemas`` writes them to ``pipeline/schemas``; ``test_schema`` compares.
"""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from pathlib import Path
from textwrap import fill
from types import GenericAlias, UnionType
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from typing_extensions import TypeAliasType, TypedDict

import pipeline
from pipeline.audit.availability import Availability
from pipeline.audit.replay import GROUP, Group
from pipeline.audit.verify import BEFORE, PROBLEM
from pipeline.doctor import CHECK, Check
from pipeline.errors import Phase
from pipeline.models import (
    AttemptRecord,
    BatchRecord,
    ContractSpan,
    Evidence,
    Finding,
    Late,
    Member,
    PortionRecord,
    Request,
    RunSummary,
    SlotDay,
    SlotRecord,
    Tally,
)
from pipeline.notify.notifier import MOST_FINDINGS
from pipeline.pacing import Period, Unit
from pipeline.rendering.records import parse_fields
from pipeline.rendering.tabulating import type_of
from pipeline.rendering.vocabulary import (
    ANSWER,
    ATTEMPT,
    AVAILABILITY,
    BATCH,
    EVERY_RECORD,
    FINDING,
    LATE,
    LOSS,
    RUN,
    SPAN,
    TALLY,
    meanings,
)
from pipeline.report import errors, health, numbers, runs, slots, sources, timings, workers
from pipeline.report.batches import PUBLISHED, BatchLine
from pipeline.report.errors import SourceLoss
from pipeline.report.runs import RunLine
from pipeline.report.sources import SourceLine
from pipeline.report.timings import TimingLine, TimingPoint
from pipeline.run.forecast import FETCH
from pipeline.run.plan import PlannedFetch, QuotaLeft
from pipeline.schedule.cron import Cron
from pipeline.simulate.answer import FIGURE, UNKNOWN, Figure, Unknown
from pipeline.status import SLOT as SLOT_STATE
from pipeline.status import SOURCE, SlotState, SourceState
from pipeline.store.health_figures import BlockTest, HealthAlarm, HealthBlock, RangeHealth
from pipeline.store.integrity.checks import Problem
from pipeline.store.integrity.noted import Mark, Noted
from pipeline.store.stats import StoreStats, TableStats
from pipeline.store.totals import LossTotals, RangeTotals, SourceTotals
from pipeline.store.window import Window
from pipeline.top import SOURCE as SOURCE_NOW
from pipeline.top import SourceNow

FOLDER = Path(pipeline.__file__).parent / "schemas"
WIDTH = 100
ORDER = (
    *("$schema", "$id", "title", "description", "$ref", "const", "anyOf", "type"),
    *("properties", "required", "additionalProperties", "$defs"),
)
Hint: TypeAlias = Any  # what stands behind the colon of a field


def text(pattern: str) -> Hint:
    """Describe a text that looks like this."""
    return Annotated[str, Field(pattern=f"^{pattern}$")]


# A checker of types wants to know them before the program runs.
definition: Any = TypeAliasType
typed_dict: Any = TypedDict

MOMENT = definition(
    "moment",
    Annotated[str, Field(description="UTC", pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")],
)
DAY = definition("date", text(r"\d{4}-\d\d-\d\d"))
COUNT = definition("count", Annotated[int, Field(ge=0)])
DURATION = definition("us", Annotated[int, Field(ge=0, description="microseconds")])
SHARE = definition("share", Annotated[float, Field(ge=0, le=1)])
HASH = definition("hash", text("[0-9a-f]{64}"))

BELOW_ZERO = ("min", "max", "sum", "values", "value", "left", "clock_offset_us")  # others are none
TEXTS = {"digest": HASH, "evidence": HASH, "chain": HASH, "batch": text("w[0-9]+")}


def published(name: str, hint: Hint) -> Hint:
    """Give the type in JSON of a field of this name and type."""
    origin: Hint = get_origin(hint)
    inner = get_args(hint)
    if origin in (UnionType, Union):
        return Union[tuple(published(name, each) for each in inner)]  # noqa: UP007
    if origin in (list, tuple):
        made = tuple(published(name, each) for each in inner if each is not Ellipsis)
        return GenericAlias(list if Ellipsis in inner else origin, made)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return dict[str, Any]
    named: dict[Hint, Hint] = {datetime: MOMENT, date: DAY, bytes: str}
    named[str] = TEXTS.get(name, str)
    named[int] = int if name in BELOW_ZERO else DURATION if name.endswith("_us") else COUNT
    named[float] = SHARE if name == "share" or name.endswith("_share") else float
    return named.get(hint, hint)


def many(of: Hint) -> Hint:
    """Describe a list."""
    return GenericAlias(list, (of,))


def an_object(name: str, of: Mapping[str, Hint], about: str | None = None) -> Hint:
    """Describe an object with exactly these keys."""
    made = typed_dict(name, dict(of))
    made.__pydantic_config__ = ConfigDict(extra="forbid")
    made.__doc__ = about
    return made


def meaning(key: str, near: Mapping[str, str]) -> str:
    """Look a key up in the vocabulary: *near* first, then below every record, then anywhere."""
    return next(words[key] for words in (near, *meanings().values()) if key in words)


def record(
    name: str, *parts: tuple[type, str], of: str = "", about: str | None = None, **more: Hint
) -> Hint:
    """Describe what is published of a record: the fields that lines of names pick from classes.

    *more* are fields that no class has, or that take fewer values than their type. What a field
    means stands in the vocabulary, below the *name* of the record or below *of*.
    """
    hints = {
        field.name: type_of(kind, field.path)
        for kind, line in parts
        for field in parse_fields(line)
    }
    near = meanings().get(of or name.replace("_", " "), meanings()[EVERY_RECORD])
    keys = {
        key: Annotated[published(key, hint), Field(description=meaning(key, near))]
        for key, hint in (hints | more).items()
    }
    return an_object(name, keys, about)


def all_of(kind: type) -> tuple[type, str]:
    """Pick all fields of a class."""
    names = [field.name for field in fields(kind)] if is_dataclass(kind) else get_type_hints(kind)
    return kind, " ".join(names)


RUN_LINE = record("run", (RunSummary, RUN), (RunLine, runs.PUBLISHED))
BARE_BATCH = (BatchRecord, BATCH)
BATCH_LINE = record("batch", BARE_BATCH, (BatchLine, PUBLISHED), about="and its fetch")
ATTEMPT_RECORD = record("attempt", (AttemptRecord, ATTEMPT), about="null: not reached, or unknown")
SLOT = record("slot", all_of(SlotRecord), about="without a fate its run goes on")
WINDOW = record("window", (Window, "since until"), about="null: without end")
FOUND = record("finding", (Finding, FINDING))
OF_A_REPORT = {"window": WINDOW, "source": str | None, "run_id": int | None}


def points(kind: type, line: str, of: str = "") -> Hint:
    """Describe the course of something."""
    began: Hint = {"began_at": datetime}  # of other totals it is None
    return many(record("point", (kind, line), of=of, **began, about="of an hour or a day"))


def a_report(**lists: Hint) -> Mapping[str, Hint]:
    """Describe a report with these lists."""
    return OF_A_REPORT | lists


LIMITS = an_object(
    "limits",
    {
        "deadline_seconds": float,
        "retry_budget": COUNT,
        "max_bytes": COUNT,
        "sources": GenericAlias(
            dict,
            (
                str,
                an_object(
                    "source_limits",
                    dict.fromkeys(("rate",), str)
                    | {"quotas": list[str], "merge": bool}
                    | dict.fromkeys(("attempt_seconds", "connect_seconds", "read_seconds"), float)
                    | {"backoff_seconds": float}
                    | dict.fromkeys(("in_flight", "max_numbers", "retries"), COUNT)
                    | dict.fromkeys(("retry_budget", "breaker"), COUNT),
                ),
            ),
        ),
        "impossible": many(an_object("misfit", {"sources": list[str], "reason": str})),
    },
    "in force in the run, named as in config.toml; null if they were not kept",
)

# By name what an answer is, and what it holds beside the name of its schema.
ANSWERS: Mapping[str, tuple[str, Mapping[str, Hint]]] = {
    "run": (
        (
            "One run whole: `pipeline report --run ID --format json` and `pipeline collect --format"
            " json`, where it is null if no slot was due."
        ),
        {
            "run": RUN_LINE | None,
            "pruned_at": datetime | None,
            "limits": LIMITS | None,
            "batches": many(BATCH_LINE),
            "attempts": many(ATTEMPT_RECORD),
            "tallies": many(record("tally", (Tally, TALLY), about="kept when batches are pruned")),
            "late": many(record("late_attempts", (Late, LATE), about="kept beside the run")),
        },
    ),
    "runs": (
        "The last runs, newest first: `pipeline report runs --format json`.",
        a_report(runs=many(RUN_LINE)),
    ),
    "batches": (
        (
            "The last batches, newest first, or those of one run in order: `pipeline report batches"
            " --format json`."
        ),
        a_report(batches=many(BATCH_LINE)),
    ),
    "timings": (
        (
            "How long the phases took: `pipeline report timings --format json`. Unless is_exact,"
            " percentiles are those of buckets over the window read."
        ),
        a_report(
            is_exact=bool,
            read=WINDOW,
            timings=many(
                record("timing", (TimingLine, timings.TIMING), phase=Phase | Literal["exchange"])
            ),
            trend=points(TimingPoint, timings.POINT, of="timing"),
        ),
    ),
    "errors": (
        "What was lost to which error: `pipeline report errors --format json`.",
        a_report(
            errors=many(record("error", (SourceLoss, errors.ERRORS))),
            trend=points(LossTotals, errors.POINT),
        ),
    ),
    "numbers": (
        (
            "What the numbers add up to: `pipeline report numbers --format json`. The sums are"
            " exact, so a reader needs large integers; z counts standard errors from expected_mean."
        ),
        a_report(
            numbers=many(
                record(
                    "range_of_numbers",
                    (RangeTotals, numbers.NUMBERS),
                )
            ),
            trend=points(SourceTotals, numbers.POINT),
        ),
    ),
    "health": (
        (
            "Whether the numbers look as chance would have them: `pipeline report health --format"
            " json`. Numbers may be beyond 2^53, so a reader needs large integers."
        ),
        a_report(
            ranges=many(record("health", (RangeHealth, health.HEALTH))),
            tests=many(record("test_of_blocks", (BlockTest, health.TEST))),
            alarms=many(record("health_alarm", (HealthAlarm, health.ALARM))),
            blocks=many(record("block_of_numbers", (HealthBlock, health.BLOCK))),
        ),
    ),
    "source_totals": (
        "What each source was worth: `pipeline report sources --format json`.",
        a_report(
            sources=many(record("source", (SourceLine, sources.SOURCES))),
            trend=points(SourceTotals, sources.POINT),
        ),
    ),
    "slots": (
        "What became of the slots: `pipeline report slots --format json`.",
        {
            "window": WINDOW,
            "days": many(record("day", (SlotDay, slots.DAY))),
            "slots": many(SLOT),
        },
    ),
    "workers": (
        "Who takes part in the runs that machines share: `pipeline report workers --format json`.",
        {
            "workers": many(record("worker", (Member, workers.MEMBER))),
            "portions": many(record("portion", (PortionRecord, workers.PORTION))),
        },
    ),
    "audit": (
        "What is wrong: `pipeline audit --format json`.",
        {
            "window": WINDOW,
            "source": str | None,
            "runs": int,
            "is_alarming": bool,
            "accounting_rule": str,
            "findings": many(FOUND),
            "availability": many(record("availability", (Availability, AVAILABILITY))),
            "failures": many(record("failure", (LossTotals, LOSS))),
        },
    ),
    "attempt": (
        "One attempt with what was sent and got: `pipeline audit show ATTEMPT --format json`.",
        {
            "attempt": ATTEMPT_RECORD,
            "request": record("request", all_of(Request), of="request or answer") | None,
            "answer": record("answer", (Evidence, ANSWER), of="request or answer") | None,
            "limits": LIMITS | None,
            "batches": many(record("batch", BARE_BATCH, attempt_id=int)),
            "attempts": many(ATTEMPT_RECORD),
            "contracts": many(record("contract", (ContractSpan, SPAN))),
        },
    ),
    "replay": (
        "Stored answers, checked again with the current adapters: `audit replay --format json`.",
        {
            "since": datetime | None,
            "until": datetime | None,
            "groups": many(record("replayed_answers", (Group, GROUP))),
        },
    ),
    "verify": (
        "Whether what is stored is what was collected: `pipeline audit verify --format json`.",
        {
            "is_sound": bool,
            "runs": int,
            "pruned": int,
            "batches": int,
            "attempts": int,
            "numbers": int,
            "verified_before": record("verified_before", (Noted, BEFORE)) | None,
            "proofs": record(
                "proof_counts", verified=int, chained=int, not_verifiable=int, unsigned=int
            )
            | None,
            "head": record("seal", all_of(Mark)) | None,
            "problems": many(
                record(
                    "problem",
                    (Problem, PROBLEM),
                    # As they are stored; what is damaged may be anything.
                    run_id=Annotated[int, ...] | None,
                    batch=Annotated[str, ...] | None,
                    position=Annotated[int, ...] | None,
                )
            ),
        },
    ),
    "plan": (
        "What a run would ask now: `pipeline plan --format json`.",
        {
            "asked_at": datetime,
            "fetches": many(record("planned_fetch", (PlannedFetch, FETCH))),
            "quotas": many(record("quota", all_of(QuotaLeft), unit=Unit, period=Period)),
            "impossible": list[str],
        },
    ),
    "sources": (
        "What is configured: `pipeline sources --format json`.",
        {
            "sources": many(
                record(
                    "configured_source",
                    source=str,
                    kind=str,
                    is_enabled=bool,
                    batches=int,
                    numbers=int,
                    not_before=datetime | None,
                    why=str | None,
                )
            )
        },
    ),
    "schedule": (
        "The next slots and the last ones: `pipeline schedule show --format json`.",
        {
            "asked_at": datetime,
            "schedules": many(
                record(
                    "schedule",
                    all_of(Cron),
                    schedule=str,
                    sources=list[str],
                    next=list[datetime],
                    last=many(SLOT),
                )
            ),
        },
    ),
    "status": (
        "Whether all is well now: `pipeline status --format json`.",
        {
            "asked_at": datetime,
            "is_healthy": bool,
            "complaints": list[str],
            "store": str,
            "last_run": record("run", (RunSummary, RUN)) | None,
            "sources": many(record("state_of_a_source", (SourceState, SOURCE))),
            "schedules": many(record("state_of_a_schedule", (SlotState, SLOT_STATE))),
            "findings": many(FOUND),
        },
    ),
    "top": (
        "What goes on now: `pipeline top --format json`.",
        {
            "asked_at": datetime,
            "runs": many(record("run", (RunSummary, RUN))),
            "sources": many(
                record(
                    "source_now",
                    (SourceNow, SOURCE_NOW),
                    quotas=many(record("quota", all_of(QuotaLeft), unit=Unit, period=Period)),
                )
            ),
            "schedules": many(record("state_of_a_schedule", (SlotState, SLOT_STATE))),
        },
    ),
    "simulation": (
        "What another limit would have done: `pipeline simulate --format json`.",
        {
            "window": WINDOW,
            "change": an_object("change", {"limit": str, "value": float | int | str | bool}),
            "runs": COUNT,
            "left_out": Annotated[
                COUNT, Field(description="runs that were stopped, pruned, or of unknown limits")
            ],
            "figures": many(record("figure", (Figure, FIGURE))),
            "unknown": many(record("unknown", (Unknown, UNKNOWN))),
        },
    ),
    "doctor": (
        "What on this machine is well or not: `pipeline doctor --format json`.",
        {"checks": many(record("check", (Check, CHECK)))},
    ),
    "stats": (
        "How large the database is: `pipeline db stats --format json`.",
        get_type_hints(StoreStats) | {"tables": many(record("table", all_of(TableStats)))},
    ),
    "notification": (
        "What the commands of [notify] get on standard input, on_failure and on_recovery.",
        {
            "event": Literal["failure", "recovery"],
            "exit_status": int,
            "message": str,
            "run": record("run", (RunSummary, RUN)) | None,
            "is_first": bool | None,
            "findings": Annotated[
                many(FOUND),
                Field(
                    max_length=MOST_FINDINGS,
                    description="about sources of this run, of the last 7 days; what goes on first",
                ),
            ],
            "more_findings": Annotated[
                COUNT, Field(description="how many more; pipeline audit lists them")
            ],
        },
    ),
}


class _WithoutTitles(GenerateJsonSchema):
    """A title says no more than the name does."""

    def field_title_should_be_set(self, schema: object) -> bool:
        """Never repeat the name of a key."""
        del schema
        return False


def make_schema(name: str) -> str:
    """Write the schema of an answer."""
    about, of = ANSWERS[name]
    whole = f"pipeline.{name}/1"
    keys = {key: published(key, hint) for key, hint in of.items()}
    made = TypeAdapter(an_object("answer", {"schema": Literal[whole]} | keys, about)).json_schema(
        schema_generator=_WithoutTitles
    )
    for each in made["$defs"].values():
        each.pop("title", None)
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:pipeline:{name}:1",
        "title": whole,
    }
    return f"{spell(head | {key: made[key] for key in made if key != 'title'})}\n"


def spell(value: object, indent: int = 0, before: int = 0) -> str:
    """Write JSON for people: what fits into a line stands in one."""
    if isinstance(value, dict):
        value = {key: value[key] for key in sorted(value, key=_place)}
    line = json.dumps(value)
    if indent + before + len(line) < WIDTH or not isinstance(value, dict | list):
        return line
    deeper = " " * (indent + 2)
    if isinstance(value, list):
        words = ", ".join(spell(each, indent + 2) for each in value)
        filled = fill(words, WIDTH, initial_indent=deeper, subsequent_indent=deeper)
        return f"[\n{filled}\n{' ' * indent}]"
    heads = {key: f"{json.dumps(key)}: " for key in value}
    parts = [
        deeper + heads[key] + spell(each, indent + 2, len(heads[key]))
        for key, each in value.items()
    ]
    return "{\n" + ",\n".join(parts) + f"\n{' ' * indent}}}"


def _place(key: str) -> int:
    """Put what a schema says of itself first, and what is long last."""
    return ORDER.index(key) if key in ORDER else ORDER.index("properties")


def main() -> None:
    """Write all schemas."""
    for name in ANSWERS:
        (FOLDER / f"{name}.1.json").write_text(make_schema(name), "utf-8")


if __name__ == "__main__":
    main()
