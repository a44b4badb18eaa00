"""`pipeline plan`: shown for people and for programs, and nothing is sent."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session

from pipeline.pacing import Embargo
from pipeline.run.upstreams import make_upstreams
from pipeline.settings import load_settings
from pipeline.store.permissions import lay_embargo
from tests.cli.conftest import Invoke
from tests.processes import serving

TABLE = "[sources.{name}]\nkind = '{kind}'\nurl = '{url}'\nbatches = {batches}\n{more}\n"
NOBODY = "http://127.0.0.1:1"
AQN = "api_key_env = 'KEY'"


def configure(
    home: Path,
    kind: str = "anu_legacy",
    *,
    url: str = NOBODY,
    batches: str = "[2, 3, 4]",
    more: str = "",
) -> None:
    """Configure one source."""
    (home / "config.toml").write_text(
        TABLE.format(name="anu", kind=kind, url=url, batches=batches, more=more)
    )


def forbid(session: Session, key: str, until: datetime, why: str = "Retry-After: 60") -> None:
    """Lay an embargo."""
    embargo = Embargo(until=until, why=why)
    lay_embargo(session, upstream=key, source="anu", embargo=embargo, said_at=datetime.now(UTC))
    session.commit()


def key_of(home: Path) -> str:
    """Ask the program under which name the store knows the configured upstream."""
    settings = load_settings(home / "config.toml", {"HOME": str(home), "KEY": "key"})
    return make_upstreams(settings, str)[0].key


def test_each_request_with_its_moment_and_why(home: Path, invoke: Invoke) -> None:
    """Three requests at one a minute: now, in a minute, in two."""
    configure(home, more="merge = false")

    shown = invoke("plan")

    lines = shown.stdout.splitlines()
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert [line.split(maxsplit=4)[:3] for line in lines[2:5]] == [
        ["anu", "w0", "2"],
        ["anu", "w1", "3"],
        ["anu", "w2", "4"],
    ]
    assert [" ".join(line.split()[3:]) for line in lines[2:5]] == [
        "now -",
        "in 63.6 s rate: 1 per 60 s",
        "in 127.2 s rate: 1 per 60 s",
    ]
    assert lines[-1] == "3 requests, none of them put off to a later run."


def test_nothing_is_sent_and_nothing_is_written(home: Path, invoke: Invoke) -> None:
    """Looking ahead must not cost a request, nor make a database."""
    with serving() as upstream:
        configure(home, "randomnumberapi", url=upstream.url)

        assert invoke("plan", "--format", "json").exit_code == 0
        assert upstream.requests == []
    assert [path.name for path in home.iterdir()] == ["config.toml"]


def test_merged_batches_are_named_from_to(home: Path, invoke: Invoke) -> None:
    """One line for the lesson's twenty-eight."""
    configure(home, batches="'2..29'")

    (line,) = (line for line in invoke("plan").stdout.splitlines() if line.startswith("anu"))

    assert line.split() == ["anu", "w0..w27", "434", "now", "-"]


def test_a_plan_for_programs(home: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stable, documented shape."""
    monkeypatch.setenv("KEY", "key")
    configure(home, "anu_aqn", more=AQN)
    before = datetime.now(UTC)

    told: dict[str, Any] = json.loads(invoke("plan", "--format", "json").stdout)

    at = datetime.fromisoformat(told["asked_at"])
    assert before <= at <= datetime.now(UTC)
    assert told == {
        "schema": "pipeline.plan/1",
        "asked_at": told["asked_at"],
        "fetches": [
            {
                "source": "anu",
                "fetch": 0,
                "batch_names": ["w0", "w1", "w2"],
                "n": 9,
                "planned_at": told["asked_at"],
                "why": "",
                "is_deferred": False,
            }
        ],
        "quotas": [
            {"source": "anu", "unit": "requests", "period": "month", "amount": 100, "left": 100}
        ],
        "impossible": [],
    }


def test_an_embargo_shows_until_when_and_why(home: Path, invoke: Invoke, session: Session) -> None:
    """What the next run will not do, and for which reason."""
    configure(home)
    forbid(session, key_of(home), datetime(2999, 1, 2, 3, 4, 5, tzinfo=UTC))

    lines = invoke("plan").stdout.splitlines()

    assert lines[2].split(maxsplit=3)[3].split("  ") == [
        "deferred: 2999-01-02 03:04:05Z",
        "Retry-After: 60",
    ]
    assert lines[-1] == "1 request, 1 of them put off to a later run."


def test_the_deadline_decides_what_is_put_off(home: Path, invoke: Invoke, session: Session) -> None:
    """An hour's embargo is a wait for a run that takes two."""
    configure(home)
    forbid(session, key_of(home), datetime.now(UTC) + timedelta(hours=1))

    short, long = (invoke("plan", "--deadline", seconds) for seconds in ("3500", "3700"))

    assert "1 of them put off" in short.stdout
    assert "none of them put off" in long.stdout


def test_a_used_quota_is_told(home: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a hundred a month one would like to know how many are left."""
    monkeypatch.setenv("KEY", "key")
    configure(home, "anu_aqn", more=AQN)

    assert invoke("plan").stdout.splitlines()[-1] == "anu: 100 of 100 requests left this month."


def test_a_long_plan_is_cut_for_people(home: Path, invoke: Invoke) -> None:
    """A table of ten thousand lines helps nobody; a program gets them all."""
    configure(home, "randomnumberapi", batches="{count = 250, size = 3}", more="merge = false")

    lines = invoke("plan").stdout.splitlines()
    told = json.loads(invoke("plan", "--format", "json").stdout)

    assert len([line for line in lines if line.startswith("anu")]) == 100
    assert lines[-2:] == [
        "150 more requests; --format json lists them all.",
        "250 requests, none of them put off to a later run.",
    ]
    assert len(told["fetches"]) == 250


def test_one_source_can_be_chosen(home: Path, invoke: Invoke) -> None:
    """As in a run."""
    with (home / "config.toml").open("w") as config:
        for name in ("a", "b"):
            config.write(
                TABLE.format(name=name, kind="randomnumberapi", url=NOBODY, batches="[2]", more="")
            )

    told = json.loads(invoke("plan", "--source", "b", "--format", "json").stdout)

    assert [fetch["source"] for fetch in told["fetches"]] == ["b"]


# ---- What can never be ----


def test_what_the_rules_never_allow_is_a_configuration_error(home: Path, invoke: Invoke) -> None:
    """The plan is shown all the same; the complaint names what to change."""
    configure(home, more="merge = false")

    refused = invoke("plan", "--deadline", "100")

    assert refused.exit_code == 78
    assert refused.stderr == (
        "pipeline: sources.anu: 3 requests at 1 per 60 s take 127 s, the deadline is 100 s; set"
        " merge = true, order less or raise deadline_seconds\n"
    )
    assert "3 requests, 1 of them put off" in refused.stdout


def test_a_day_of_runs_that_fits(home: Path, invoke: Invoke) -> None:
    """Said once, at the end."""
    configure(home)

    fits = invoke("plan", "--every", "10m")

    assert fits.exit_code == 0
    assert fits.stdout.splitlines()[-1] == "A day of runs every 10m fits the rules."


def test_a_day_of_runs_that_does_not_fit(
    home: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred requests a month do not last for runs every hour."""
    monkeypatch.setenv("KEY", "key")
    configure(home, "anu_aqn", more=AQN)

    refused = invoke("plan", "--every", "1h", "--format", "json")

    assert refused.exit_code == 78
    (complaint,) = json.loads(refused.stdout)["impossible"]
    assert "cost 744 requests per month, the quota is 100" in complaint
    assert refused.stderr == f"pipeline: {complaint}\n"


def test_a_bad_interval_is_a_wrong_command_line(home: Path, invoke: Invoke) -> None:
    """As everywhere."""
    configure(home)

    assert invoke("plan", "--every", "often").exit_code == 2


def test_the_shipped_configuration_can_be_planned(invoke: Invoke) -> None:
    """The first thing that somebody tries: the sandbox has no rules to keep."""
    shown = invoke("plan", "--every", "1m")

    assert (shown.exit_code, shown.stderr) == (0, "")
    assert "6 requests, none of them put off to a later run." in shown.stdout


@pytest.mark.parametrize("command", ["plan", "collect"])
def test_a_source_that_is_not_there_is_a_wrong_command_line(
    home: Path, invoke: Invoke, command: str
) -> None:
    """Nothing is wrong with the configuration, so nobody must look for it there."""
    configure(home)

    refused = invoke(command, "-s", "nosuch")

    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr == "pipeline: --source 'nosuch': there is none; known are anu\n"


@pytest.mark.parametrize("command", ["plan", "collect"])
@pytest.mark.parametrize("fault", ["nope", "latency=soon", "elsewhere:stall"])
def test_a_fault_that_is_not_there_is_refused(
    home: Path, invoke: Invoke, command: str, fault: str
) -> None:
    """What a plan lets pass, a run must not refuse."""
    (home / "config.toml").write_text(
        f"[sandbox]\nfaults = ['{fault}']\n"
        "[sources.dice]\nkind = 'sandbox.anu_legacy'\nbatches = [2]\n"
    )

    assert invoke(command).exit_code == 78
