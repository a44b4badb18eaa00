"""The options that several commands share."""

from datetime import UTC, datetime, timedelta

import pytest
from typer import BadParameter

from pipeline.cli.options import parse_interval, parse_moment

NOVEMBER = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-22", NOVEMBER),
        ("2026-11-22T06:00", NOVEMBER + timedelta(hours=6)),
        ("2026-11-22T06:00Z", NOVEMBER + timedelta(hours=6)),
        ("2026-11-22 06:00+02:00", NOVEMBER + timedelta(hours=4)),
    ],
)
def test_a_moment_is_a_date_or_a_time_and_utc_unless_it_says_otherwise(
    text: str, moment: datetime
) -> None:
    """All times that we show are UTC, so that is what a person copies."""
    parsed = parse_moment(text)

    assert parsed == moment
    assert parsed.tzinfo is UTC


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("90m", timedelta(minutes=90)),
        ("12h", timedelta(hours=12)),
        ("7d", timedelta(days=7)),
        ("2w", timedelta(weeks=2)),
    ],
)
def test_a_moment_may_be_so_long_ago(text: str, ago: timedelta) -> None:
    """What people mean most often: the last week."""
    assert abs(datetime.now(UTC) - ago - parse_moment(text)) < timedelta(seconds=5)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "d",
        "7y",
        "-7d",
        "\u0667d",
        "7d ",
        "2026-13-01",
        "0001-01-01T00:00+14:00",
        "\x1b[2J",
    ],
)
def test_anything_else_is_refused_with_examples(text: str) -> None:
    """Also what no calendar holds; and the complaint steers no terminal."""
    with pytest.raises(BadParameter, match=r"give 7d, 12h, 2026-11-22 or") as refusal:
        parse_moment(text)

    assert refusal.value.message.isprintable()


@pytest.mark.parametrize(
    ("text", "distance"),
    [("30s", timedelta(seconds=30)), ("10m", timedelta(minutes=10)), ("1w", timedelta(weeks=1))],
)
def test_an_interval_is_a_number_and_a_unit(text: str, distance: timedelta) -> None:
    """As people write it in their heads when they write a crontab."""
    assert parse_interval(text) == distance


@pytest.mark.parametrize("text", ["", "0m", "10", "m", "-1m", "10 m", "1y"])
def test_no_interval_is_refused_with_examples(text: str) -> None:
    """Nothing at all is no distance either."""
    with pytest.raises(BadParameter, match="give 10m, 2h or 1d"):
        parse_interval(text)
