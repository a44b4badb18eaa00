"""What a run would ask, and when: worked out from configurations, nothing asked."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.cli.options import parse_interval
from pipeline.errors import ConfigError
from pipeline.pacing import Embargo, Moment, Pace, Spent
from pipeline.run.plan import (
    QuotaLeft,
    Rhythm,
    find_impossible,
    find_paces,
    obstacles,
    plan_fetches,
    plan_upstreams,
    quotas_left,
)
from pipeline.run.upstreams import Upstream
from pipeline.settings import load_settings
from pipeline.store.db import open_store
from pipeline.store.permissions import lay_embargo
from tests.store.makers import NOON

SOURCE = "[sources.{name}]\nkind = '{kind}'\nurl = 'http://127.0.0.1:1/'\nbatches = {batches}\n"
MERGED = "merge = true\n"
ONE_BY_ONE = "merge = false\n"
EMAIL = "email = 'me@example.org'\n"
LATER = timedelta(hours=1)
UNLIMITED = 10.0**9


class Make:
    """Makes upstreams ready as a run would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *texts: str) -> list[Upstream]:
        """Configure them by their tables."""
        config = self.folder / "config.toml"
        config.write_text("".join(texts))
        return plan_upstreams(load_settings(config, {"HOME": str(self.folder), "KEY": "key"}))


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Work in a folder of one's own."""
    return Make(tmp_path)


def source(
    more: str = "", *, kind: str = "anu_legacy", name: str = "anu", batches: str = "[2, 3, 4]"
) -> str:
    """Write one table."""
    return SOURCE.format(name=name, kind=kind, batches=batches) + more


def nothing_known(upstreams: Sequence[Upstream]) -> dict[str, Pace]:
    """Know nothing, as before the first run."""
    return find_paces(None, upstreams, now=NOON)


def impossible(upstreams: Sequence[Upstream], every: timedelta | None = None) -> list[str]:
    """Find what can never be, for runs without a deadline worth the name."""
    rhythms = {upstream.order.source: Rhythm.of(every) for upstream in upstreams} if every else {}
    return find_impossible(upstreams, deadline_seconds=UNLIMITED, rhythms=rhythms)


# ---- Requests and their moments ----


def test_batches_that_share_a_request_are_planned_as_one(make: Make) -> None:
    """The lesson's 28 batches cost one request a minute, or twenty-eight minutes."""
    merged = make(source(batches="'2..29'"))
    alone = make(source(ONE_BY_ONE, batches="'2..29'"))
    known = nothing_known(merged)

    (one,) = plan_fetches(merged, known, now=NOON, deadline=NOON + LATER)
    many = list(plan_fetches(alone, known, now=NOON, deadline=NOON + LATER))

    assert (one.source, one.fetch, one.n, one.at, one.is_deferred) == ("anu", 0, 434, NOON, False)
    assert one.batches == tuple(f"w{number}" for number in range(28))
    assert [fetch.at for fetch in many] == [
        NOON + nth * timedelta(seconds=63.6) for nth in range(28)
    ]
    assert {fetch.why for fetch in many[1:]} == {"rate: 1 per 60 s"}


def test_what_comes_after_the_deadline_is_deferred_and_takes_no_moment(make: Make) -> None:
    """As in the run: those that are put off do not push each other on."""
    upstreams = make(source(ONE_BY_ONE))

    planned = list(
        plan_fetches(
            upstreams, nothing_known(upstreams), now=NOON, deadline=NOON + timedelta(seconds=60)
        )
    )

    assert [(fetch.at - NOON, fetch.is_deferred) for fetch in planned] == [
        (timedelta(0), False),
        (timedelta(seconds=63.6), True),
        (timedelta(seconds=63.6), True),
    ]


def test_sources_of_one_upstream_share_its_moments(make: Make) -> None:
    """Dice and coins from one service: the second waits for the first."""
    upstreams = make(source(), source(name="other"))

    planned = list(
        plan_fetches(upstreams, nothing_known(upstreams), now=NOON, deadline=NOON + LATER)
    )

    assert [(fetch.source, fetch.fetch, fetch.at - NOON) for fetch in planned] == [
        ("anu", 0, timedelta(0)),
        ("other", 3, timedelta(seconds=63.6)),
    ]


def test_an_embargo_and_a_quota_are_told(make: Make) -> None:
    """The plan's reader wants to know which rule it is."""
    upstreams = make(
        source(ONE_BY_ONE, kind="randomnumberapi"),
        source(ONE_BY_ONE + "quotas = ['2 requests/day']\n", kind="anu_legacy", name="b"),
    )
    free, counted = (upstream.key for upstream in upstreams)
    embargo = Embargo(until=NOON + 2 * LATER, why="Retry-After: 7200")
    paces = {free: Pace(embargo=embargo), counted: Pace()}

    planned = list(plan_fetches(upstreams, paces, now=NOON, deadline=NOON + LATER))

    assert [(fetch.why, fetch.is_deferred) for fetch in planned] == [
        ("Retry-After: 7200", True),
        ("Retry-After: 7200", True),
        ("Retry-After: 7200", True),
        ("", False),
        ("rate: 1 per 60 s", False),
        ("quota: 2 requests per day", True),
    ]
    assert obstacles(upstreams, paces, now=NOON) == {
        "anu": Moment(at=embargo.until, why=embargo.why)
    }
    assert obstacles(upstreams, paces, now=embargo.until) == {}


def test_what_is_left_of_a_quota_is_told_per_source(make: Make) -> None:
    """Before this run, in the period that it falls into."""
    upstreams = make(
        source(EMAIL, kind="random_org"), source("api_key_env = 'KEY'\n", kind="anu_aqn", name="b")
    )
    org, aqn = (upstream.key for upstream in upstreams)
    paces = {
        org: Pace(spent={"bits": Spent(period="2026-02-28", amount=199_999)}),
        aqn: Pace(spent={"requests": Spent(period="2026-03", amount=40)}),
    }

    assert quotas_left(upstreams, paces, now=NOON) == [
        QuotaLeft(source="anu", unit="bits", period="day", amount=200_000, left=200_000),
        QuotaLeft(source="b", unit="requests", period="month", amount=100, left=60),
    ]


def test_what_the_store_knows_is_used(make: Make, tmp_path: Path) -> None:
    """But nothing of a sandbox of our own: each run starts a new one."""
    upstreams = make(source(kind="randomnumberapi"), SANDBOX)
    embargo = Embargo(until=datetime(2026, 3, 2, tzinfo=UTC), why="Retry-After: 60")
    url = f"sqlite:///{tmp_path}/pipeline.db"
    with open_store(url, busy_seconds=1, for_writing=True) as store, store.write() as session:
        for upstream in upstreams:
            lay_embargo(session, upstream=upstream.key, source="x", embargo=embargo, said_at=NOON)

        paces = find_paces(session, upstreams, now=NOON)

    assert [paces[upstream.key].embargo for upstream in upstreams] == [embargo, None]


SANDBOX = "[sources.own]\nkind = 'sandbox.anu_legacy'\nbatches = [2]\n"


# ---- What can never be ----


def test_the_usual_order_is_possible(make: Make) -> None:
    """Every minute and a half, as the configuration says."""
    upstreams = make(source(batches="'2..29'"), SANDBOX)

    assert impossible(upstreams, timedelta(seconds=90)) == []


def test_more_requests_than_fit_before_the_deadline(make: Make) -> None:
    """The rest would be put off in every run, for ever."""
    upstreams = make(source(ONE_BY_ONE))

    assert find_impossible(upstreams, deadline_seconds=127.2) == []
    assert find_impossible(upstreams, deadline_seconds=127) == [
        (
            "sources.anu: 3 requests at 1 per 60 s take 127 s, the deadline is 127 s;"
            " set merge = true, order less or raise deadline_seconds"
        )
    ]


def test_sources_of_one_upstream_are_taken_together(make: Make) -> None:
    """Each of them alone would fit."""
    upstreams = make(source(), source(name="b"), source(name="c"))

    (complaint,) = find_impossible(upstreams, deadline_seconds=100)

    assert complaint.startswith("sources.anu, sources.b, sources.c: 3 requests at 1 per 60 s take")


@pytest.mark.parametrize(
    ("quota", "complaint"),
    [
        ("3 requests/day", None),
        ("2 requests/day", "one run costs 3 requests, the quota is 2 per day; order less"),
        ("80 bits/month", "one run costs 81 bits, the quota is 80 per month; order less"),
    ],
)
def test_a_run_that_costs_more_than_a_quota(make: Make, quota: str, complaint: str | None) -> None:
    """Nine bytes are 72 bits, and random.org charges what it rejects."""
    upstreams = make(
        source(
            EMAIL + ONE_BY_ONE + f"max = 227\nmin = 0\nquotas = ['{quota}']\n", kind="random_org"
        )
    )

    assert impossible(upstreams) == ([f"sources.anu: {complaint}"] if complaint else [])


@pytest.mark.parametrize(
    ("every", "complaints"),
    [
        (timedelta(days=7), []),
        (timedelta(hours=8), []),
        (
            timedelta(hours=7),
            [
                (
                    "sources.anu: runs every 7h cost 107 requests per month, the quota is 100:"
                    " enough for 100 per month"
                )
            ],
        ),
    ],
)
def test_a_month_of_runs_against_a_quota(
    make: Make, every: timedelta, complaints: list[str]
) -> None:
    """ANU's free key is good for three runs a day."""
    upstreams = make(source("api_key_env = 'KEY'\n", kind="anu_aqn"))

    assert impossible(upstreams, every) == complaints


def test_runs_that_follow_faster_than_their_requests(make: Make) -> None:
    """Each would find the moments taken by the one before."""
    upstreams = make(source(ONE_BY_ONE))

    assert impossible(upstreams, timedelta(seconds=191)) == []
    assert impossible(upstreams, timedelta(minutes=3)) == [
        (
            "sources.anu: runs every 3m make about 1437 requests per day, the rate allows 1358:"
            " they are spaced 6% wider than 1 per 60 s; every 191s or slower fits"
        )
    ]


@pytest.mark.parametrize(
    ("more", "every", "hint"),
    [
        ("", 60, "every 64s or slower fits"),
        ("rate = '1/30m'\n", 1_800, "every 32m or slower fits"),
        ("rate = '1/999h'\n", 3_600, "every 1d or slower fits"),
    ],
)
def test_a_complaint_about_the_rate_says_what_would_fit(
    make: Make, more: str, every: int, hint: str
) -> None:
    """And it does: requests are spaced wider than the rule, so the rule's own pace is too fast."""
    upstreams = make(source(more))

    (complaint,) = impossible(upstreams, timedelta(seconds=every))

    assert complaint.endswith(hint)
    assert impossible(upstreams, parse_interval(hint.split()[1])) == []


def test_the_slowest_rate_and_the_largest_order_are_only_impossible(make: Make) -> None:
    """Some million centuries: longer than any datetime, and still one line."""
    upstreams = make(
        source(ONE_BY_ONE + "rate = '1/999999h'\n", batches="{count = 100_000, size = 1}")
    )

    (complaint,) = find_impossible(upstreams, deadline_seconds=1)

    assert "100000 requests at 1 per 3.6e+09 s take" in complaint
    assert len(impossible(upstreams, timedelta(days=1))) == 1


def test_what_cannot_be_ordered_at_all_is_a_complaint(make: Make) -> None:
    """The same one that the run would begin and end with."""
    with pytest.raises(ConfigError, match=r"sources\.anu: a batch of 1025 is more than the 1024"):
        make(source(batches="[1025]"))


def test_an_upstream_that_keeps_failing_is_probed_first(make: Make) -> None:
    """The run would ask once and see; whoever plans must not count on the rest."""
    upstreams = make(source("merge = false\nrate = 'none'\n"))
    paces = {upstreams[0].key: Pace(failures=5)}

    planned = plan_fetches(upstreams, paces, now=NOON, deadline=NOON + LATER)

    why = "a probe goes first: 5 failures in a row"
    assert {fetch.why for fetch in planned} == {why}
    assert obstacles(upstreams, paces, now=NOON) == {"anu": Moment(at=NOON, why=why)}
