"""Values as other programs read them."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from pipeline.models import Batch
from pipeline.published import as_json, iso_time

KOLKATA = timezone(timedelta(hours=5, minutes=30))


def test_times_are_utc_and_of_one_length() -> None:
    """So that they sort as texts, whichever zone they were known in."""
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)

    assert iso_time(noon) == "2026-03-01T12:00:00.000000Z"
    assert iso_time(noon.astimezone(KOLKATA)) == iso_time(noon)


def test_records_become_objects() -> None:
    """Also within each other, and answers of upstreams that are no text."""
    batch = Batch(number=0, source="dice", n=1, min=1, max=6)

    told = json.loads(json.dumps({"batch": batch, "body": b"\xff!"}, default=as_json))

    assert told == {
        "batch": {"number": 0, "source": "dice", "n": 1, "min": 1, "max": 6},
        "body": "\\xff!",
    }


@pytest.mark.parametrize("value", [object(), Batch])
def test_anything_else_is_a_bug(value: object) -> None:
    """Better none than the words of a repr, which nobody has promised."""
    with pytest.raises(TypeError, match="no JSON for"):
        json.dumps(value, default=as_json)
