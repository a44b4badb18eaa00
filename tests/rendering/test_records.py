"""From records and a line of field names to tables and JSON."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime

import pytest

from pipeline.errors import ErrorName, Phase
from pipeline.models import Attempt, AttemptRecord, Batch, BatchRecord, Timings, Verdict
from pipeline.rendering.document import Kind, SourceName, show_cell
from pipeline.rendering.records import as_json, pick
from pipeline.rendering.tabulating import tabulate
from pipeline.rendering.vocabulary import ATTEMPT, BATCH

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Something within a record."""

    wait_us: int | None
    seen_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A record with a field of each kind."""

    id: int
    part: Part
    error: ErrorName | None
    sources: tuple[str, ...]
    share: float | None

    @property
    def z(self) -> float | None:
        """Work something out."""
        return None


LINE = "run_id=id wait_us=part.wait_us seen_at=part.seen_at error sources share z"
RECORD = Whole(
    id=7,
    part=Part(wait_us=5, seen_at=NOON),
    error=ErrorName.DNS,
    sources=("anu", "dice"),
    share=0.5,
)


def test_a_record_and_a_line_of_names_make_json() -> None:
    """Under the published names, in the order of the line."""
    told = json.loads(json.dumps(pick(RECORD, LINE), default=as_json))

    assert list(told) == ["run_id", "wait_us", "seen_at", "error", "sources", "share", "z"]
    assert (told["wait_us"], told["seen_at"]) == (5, "2026-03-01T12:00:00.000000Z")
    assert told["sources"] == ["anu", "dice"]


def test_the_same_line_makes_a_table() -> None:
    """Its kinds follow from the names and types, of parts and properties as well."""
    table = tabulate(Whole, [RECORD], LINE)

    assert [(column.name, column.kind) for column in table.columns] == [
        ("run_id", Kind.NUMBER),
        ("wait_us", Kind.DURATION),
        ("seen_at", Kind.MOMENT),
        ("error", Kind.TEXT),
        ("sources", Kind.TEXT),
        ("share", Kind.SHARE),
        ("z", Kind.NUMBER),
    ]
    assert list(table.rows) == [[7, 5, NOON, "dns", "anu, dice", 0.5, None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """A record that tells of the sandbox."""

    source: str
    is_sandbox: bool | None
    part: Part | None = None


def test_a_source_and_whether_it_was_played_share_a_cell() -> None:
    """For people; a sheet and JSON have a column of each."""
    table = tabulate(Played, [Played(source="dice", is_sandbox=True)], "source is_sandbox")

    assert [column.kind for column in table.columns] == [Kind.SOURCE]
    assert list(table.rows) == [[SourceName("dice", is_sandbox=True)]]


def test_a_part_that_is_not_there_has_no_fields() -> None:
    """And people may be told so in words."""
    line, nobody = "wait_us=part.wait_us", Played(source="dice", is_sandbox=None)
    table = tabulate(Played, [nobody], line, nothing={"wait_us": "not asked"})

    assert pick(nobody, line) == {"wait_us": None}
    assert [show_cell(None, column) for column in table.columns] == ["not asked"]


def test_people_read_heads_without_units() -> None:
    """The cells say them."""
    table = tabulate(Whole, [], f"{LINE} attempt_number=id last_attempt_id=id unknown_share=share")

    assert [column.head for column in table.columns] == [
        *("run", "wait", "seen", "error", "sources", "share", "z", "try", "last attempt"),
        "unknown",
    ]


def test_a_field_that_is_not_there_is_a_bug() -> None:
    """A misspelt name must not become an empty column."""
    with pytest.raises(KeyError, match="wiat_us"):
        tabulate(Whole, [], "wiat_us")


def test_a_published_batch_has_its_names_and_no_bytes() -> None:
    """The packed numbers are our business; the digest is anybody's."""
    batch = BatchRecord(
        run_id=1,
        number=7,
        source="dice",
        is_sandbox=False,
        n=3,
        min=1,
        max=6,
        verdict=Verdict.COLLECTED,
        fetch=7,
        attempt=1,
        offset=0,
        sum=9,
        packed=b"\2\2\2",
        digest=b"\xab" * 32,
        error=None,
        detail=None,
        not_before=None,
    )

    made = pick(batch, BATCH)

    assert (made["batch"], made["batch_number"], made["attempt_number"]) == ("w7", 7, 1)
    assert made["digest"] == "ab" * 32
    assert "packed" not in made


def test_a_published_attempt_is_flat_and_a_phase_not_reached_is_null() -> None:
    """Never 0: that would be a measurement."""
    attempt = Attempt(
        fetch=0,
        number=2,
        source="dice",
        began_at=NOON,
        timings=Timings(wait_us=5),
        error=ErrorName.DNS,
        phase=Phase.DNS,
    )

    made = pick(AttemptRecord(id=17, run_id=2, attempt=attempt, evidence="c0ffee"), ATTEMPT)

    assert (made["attempt_id"], made["attempt_number"], made["wait_us"]) == (17, 2, 5)
    assert made["connect_us"] is None


def test_days_are_iso_8601_too() -> None:
    """As a sheet has them."""
    assert as_json(date(2026, 3, 1)) == "2026-03-01"


def test_records_become_objects() -> None:
    """Also within each other, and answers of upstreams that are no text."""
    batch = Batch(number=0, source="dice", n=1, min=1, max=6)

    told = json.loads(json.dumps({"batch": batch, "body": b"\xff!"}, default=as_json))

    assert told == {
        "batch": asdict(batch),
        "body": "\\xff!",
    }


@pytest.mark.parametrize("value", [object(), Batch])
def test_anything_else_is_a_bug(value: object) -> None:
    """Better none than the words of a repr, which nobody has promised."""
    with pytest.raises(TypeError, match="no JSON for"):
        json.dumps(value, default=as_json)
