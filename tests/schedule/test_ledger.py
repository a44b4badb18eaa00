"""Which slots a start is for: by the clock alone, without a store."""

import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.schedule.ledger import find_schedules, pick_caught_up
from pipeline.settings import Missed, load_settings
from tests.schedule.scheduling import COIN, DICE, configure, make_schedule
from tests.store.makers import NOON, at

SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("now", "due"),
    [
        (NOON, NOON),
        (NOON + 299 * SECOND - 2 * SECOND, NOON),
        (NOON - SECOND, NOON),
        (NOON - 3 * SECOND, at(-5)),
    ],
)
def test_a_start_is_for_the_newest_slot(now: datetime, due: datetime) -> None:
    """One that comes a moment early is for the slot that is about to be due."""
    assert make_schedule().due(now) == due


@pytest.mark.parametrize(("late", "due"), [(0, 0), (3.2, 0), (4.4, 0), (4.6, 5)])
def test_a_slow_start_is_no_early_one(late: float, due: float) -> None:
    """On a machine that is busy a start may take longer than 3 s, and slots be 5 s apart."""
    schedule = make_schedule("*/5 * * * * *")

    assert schedule.due(NOON + timedelta(seconds=late)) == NOON + timedelta(seconds=due)


@pytest.mark.parametrize(
    ("policy", "caught_up"), [("skip", []), ("once", [at(10)]), ("all", [NOON, at(5), at(10)])]
)
def test_what_is_caught_up_on(policy: Missed, caught_up: list[datetime]) -> None:
    """None, the last, or all of them."""
    missed = [NOON, at(5), at(10)]

    assert list(pick_caught_up(missed, policy)) == caught_up
    assert list(pick_caught_up([], policy)) == []


def test_each_machine_has_its_own_place_within_the_jitter() -> None:
    """The same one for every slot, so that its runs keep their distance."""
    schedule = make_schedule(jitter=timedelta(minutes=2))

    places = {schedule.start_of(NOON, f"machine-{n}") - NOON for n in range(100)}

    assert len(places) > 90
    assert all(timedelta(0) <= place < timedelta(minutes=2) for place in places)
    assert schedule.start_of(at(5), "a") - schedule.start_of(NOON, "a") == timedelta(minutes=5)


def test_the_jitter_is_not_late() -> None:
    """Who starts later on purpose is on time."""
    schedule = make_schedule(jitter=timedelta(minutes=2), grace=timedelta(minutes=1))

    assert schedule.claim(NOON).grace_us == 180_000_000


def test_a_source_may_have_slots_of_its_own(tmp_path: Path) -> None:
    """It is then collected in these only; what it leaves out it has from the common table."""
    own = "schedule = { cron = '30  2 * * MON' }\n"
    settings = configure(
        tmp_path, "every = '5m'\ntimezone = 'Europe/Berlin'\nname = 'lab'", DICE, COIN + own
    )

    common, of_coin = find_schedules(settings)

    assert (common.key, common.sources) == ("lab", ("dice",))
    assert (common.cron.expression, common.cron.timezone) == ("*/5 * * * *", "Europe/Berlin")
    assert (of_coin.key, of_coin.sources) == ("lab/coin", ("coin",))
    assert (of_coin.cron.expression, of_coin.cron.timezone) == ("30 2 * * MON", "Europe/Berlin")


def test_a_common_schedule_of_nobody_is_none(tmp_path: Path) -> None:
    """Where every source has its own."""
    own = "schedule = { every = '1h', timezone = 'UTC' }\n"
    settings = configure(tmp_path, "every = '5m'", DICE + own)

    assert [schedule.key for schedule in find_schedules(settings)] == ["default/dice"]


def test_without_a_schedule_there_are_no_slots(tmp_path: Path) -> None:
    """Then each start is a run, as ever."""
    settings = configure(tmp_path, "")

    assert find_schedules(settings) == ()
    assert not settings.has_slots


def test_a_jitter_beyond_the_next_slot_is_refused(tmp_path: Path) -> None:
    """Two slots would come out of order."""
    settings = configure(tmp_path, "every = '5m'\njitter_seconds = 300")

    with pytest.raises(ConfigError, match="300 must be less than the 0:05:00 between two slots"):
        find_schedules(settings)
    assert find_schedules(configure(tmp_path, "every = '5m'\njitter_seconds = 299"))


# ---- What the file may say ----


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ("cron = '* * * *'", "schedule.cron: must be minute, hour, day of month, month and day of"),
        ("cron = '0 0 0 * * *'", "must be minute, hour, day of month"),
        ("cron = '@daily'", "must be minute, hour, day of month"),
        ("cron = 5", "must be minute, hour, day of month"),
        ("cron = '61 * * * *'", "cannot be read: Bad minute in '61 * * * *'"),
        ("cron = '0 0 30 2 *'", "Bad day-of-month"),
        ("every = '7m'", "schedule.every: must be one of 5s, 6s"),
        ("every = '1d'\ncron = '* * * * *'", "schedule.every: give this or cron, not both"),
        ("every = '1h'\ntimezone = 'Europe/Bonn'", "schedule.timezone: must be a time zone such"),
        ("timezone = 'Europe'", "must be a time zone"),
        ("timezone = '../etc/passwd'", "must be a time zone"),
        ("timezone = 1", "must be a time zone"),
        ("missed = 'twice'", "schedule.missed: must be one of skip, once, all, not 'twice'"),
        ("name = 'A B'", "schedule.name: a name has 1 to 40"),
        ("jitter_seconds = -1", "schedule.jitter_seconds: must be at least 0"),
        ("evry = '1h'", "schedule.evry: is not a known key; did you mean every?"),
    ],
)
def test_a_wrong_schedule_is_a_complaint(tmp_path: Path, lines: str, complaint: str) -> None:
    """One line that says where and what to write instead."""
    with pytest.raises(ConfigError) as refused:
        configure(tmp_path, lines)

    (line,) = refused.value.complaints
    assert complaint in line


@pytest.mark.parametrize(
    ("own", "complaint"),
    [
        ("{ cron = '* * * * *', every = '1h' }", "sources.dice.schedule.every: give this or cron"),
        ("{ }", "sources.dice.schedule: needs cron or every"),
        ("{ timezone = 'UTC' }", "sources.dice.schedule: needs cron or every"),
        ("{ every = '9m' }", "sources.dice.schedule.every: must be one of"),
        ("{ jitter = 5 }", "sources.dice.schedule.jitter: is not a known key"),
        ("'5m'", "sources.dice.schedule: must be a table in braces"),
    ],
)
def test_a_wrong_schedule_of_a_source_is_one_as_well(
    tmp_path: Path, own: str, complaint: str
) -> None:
    """Found where it stands."""
    with pytest.raises(ConfigError) as refused:
        configure(tmp_path, "every = '1h'", DICE + f"schedule = {own}\n")

    (line,) = refused.value.complaints
    assert complaint in line


def test_no_source_is_left_without_slots(tmp_path: Path) -> None:
    """It would be collected at every start, or never: nobody could say which."""
    with pytest.raises(
        ConfigError, match=r"schedule: needs cron or every, or nothing says .* dice"
    ):
        configure(tmp_path, "", DICE, COIN + "schedule = { every = '1h' }\n")


def test_an_expression_that_never_comes_is_refused(tmp_path: Path) -> None:
    """No year has a 31st of June that could be waited for."""
    with pytest.raises(ConfigError, match=r"schedule\.cron"):
        configure(tmp_path, "cron = '0 0 31 6 *'")


def test_a_machine_without_time_zones_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that Berlin is unknown; and UTC works all the same."""
    import zoneinfo  # noqa: PLC0415 - the whole module, whose search path is changed here

    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath([])
    zoneinfo.ZoneInfo.clear_cache()
    monkeypatch.setattr("sys.path", [])  # nor the package, which others may have brought along
    for name in [each for each in sys.modules if each.partition(".")[0] == "tzdata"]:
        monkeypatch.delitem(sys.modules, name)
    try:
        with pytest.raises(ConfigError, match="no time zone database: install tzdata"):
            configure(tmp_path, "every = '1h'\ntimezone = 'Europe/Berlin'")
        assert configure(tmp_path, "every = '1h'").schedule.timezone == "UTC"
    finally:
        zoneinfo.reset_tzpath(before)


def test_variables_reach_the_schedule(tmp_path: Path) -> None:
    """As they do every table."""
    configure(tmp_path, "")
    environ = {
        "HOME": str(tmp_path),
        "PIPELINE_SCHEDULE_EVERY": "1h",
        "PIPELINE_SOURCES_DICE_SCHEDULE": '{ cron = "0 2 * * *" }',
    }

    settings = load_settings(tmp_path / "config.toml", environ)

    assert settings.schedule.every == "1h"
    assert settings.sources["dice"].schedule
    assert settings.digest != configure(tmp_path, "").digest
