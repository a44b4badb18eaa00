"""From settings to sources that are ready to be asked: whose rules, whose account, how large."""

from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.pacing import Quota, Rate, Rules
from pipeline.run.upstreams import Upstream, make_upstreams
from pipeline.settings import load_settings, with_overrides
from pipeline.sources.http import Leniency
from pipeline.sources.registry import KINDS

TABLE = "[sources.{name}]\nkind = '{kind}'\nbatches = {batches}\n{more}\n"
KEYED = "api_key_env = 'KEY'\n"
EMAIL = "email = 'me@example.org'\n"
NEEDS = {
    "anu_aqn": KEYED,
    "random_org_jsonrpc": KEYED,
    "random_org_signed": KEYED,
    "random_org": EMAIL,
    "outshift": KEYED,
    "quandela": KEYED,
}
KNOWN = [kind for kind in KINDS if kind != "json_api"]  # of that the file says all


class Make:
    """Makes upstreams ready as a run would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *texts: str, **environ: str) -> list[Upstream]:
        """Configure them by their tables; *environ* adds to what is set."""
        config = self.folder / "config.toml"
        config.write_text("".join(texts))
        environ = {"HOME": str(self.folder), "KEY": "key", "OTHER": "other"} | environ
        return make_upstreams(load_settings(config, environ), "http://127.0.0.1:1/{}".format)

    def one(self, more: str = "", *, kind: str = "anu_legacy", batches: str = "[2]") -> Upstream:
        """Configure a single source."""
        (upstream,) = self(source(more, kind=kind, batches=batches))
        return upstream


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Work in a folder of one's own."""
    return Make(tmp_path)


def source(
    more: str = "", *, kind: str = "anu_legacy", name: str = "anu", batches: str = "[2]"
) -> str:
    """Write one table."""
    return TABLE.format(name=name, kind=kind, batches=batches, more=more)


# ---- Rules ----


@pytest.mark.parametrize("kind", KNOWN)
def test_a_kind_brings_its_rules(make: Make, kind: str) -> None:
    """Nobody has to know them to be a good guest."""
    rules = make.one(NEEDS.get(kind, ""), kind=kind, batches="[1]").rules

    assert (rules.rate, rules.quotas) == (KINDS[kind].rules.rate, KINDS[kind].rules.quotas)
    assert rules.is_exclusive is (KINDS[kind].in_flight == 1)


@pytest.mark.parametrize("kind", KNOWN)
def test_a_sandbox_of_our_own_has_no_rules(make: Make, kind: str) -> None:
    """It lives for one run, so there is nothing to keep beyond it."""
    upstream = make.one(kind=f"sandbox.{kind}", batches="[1]")

    assert upstream.rules == Rules()
    assert not upstream.is_remembered


def test_the_file_wins_over_the_kind(make: Make) -> None:
    """Each of the two by itself: a paid key has another quota and the same rate."""
    quotas = "quotas = ['5 requests/day', '9 bits/month']\n"
    five_a_day = Quota(unit="requests", amount=5, period="day")
    nine_bits = Quota(unit="bits", amount=9, period="month")

    assert make.one("rate = '3/m'\n").rules.rate == Rate(requests=3, period_seconds=60)
    assert make.one("rate = 'none'\n").rules.rate is None
    assert make.one(quotas).rules.rate == KINDS["anu_legacy"].rules.rate
    assert make.one(quotas).rules.quotas == (five_a_day, nine_bits)
    assert make.one(KEYED + "quotas = []\n", kind="anu_aqn").rules.quotas == ()


def test_a_sandbox_may_be_given_rules(make: Make) -> None:
    """To see what they do."""
    rules = make.one("rate = '3/m'\n", kind="sandbox.anu_legacy").rules

    assert rules == Rules(rate=Rate(requests=3, period_seconds=60))


def test_several_in_flight_are_wanted_by_whoever_says_so(make: Make) -> None:
    """The place is for one; who configures more has leave to."""
    assert not make.one("in_flight = 2\n").rules.is_exclusive


# ---- What is kept of it ----


def test_a_kept_request_names_the_variable_of_its_key(make: Make, tmp_path: Path) -> None:
    """Who repeats it has the key there; a key from a file gets a name of its own."""
    (tmp_path / "key").write_text("key")

    assert make.one(KEYED, kind="anu_aqn").policy.variable == "KEY"
    by_file = make.one("api_key_file = 'key'\n", kind="anu_aqn")
    assert by_file.policy.variable == "API_KEY"


def test_only_the_service_itself_must_be_public(make: Make) -> None:
    """Who names an address knows where it leads."""
    assert make.one().is_public
    assert not make.one("url = 'https://mirror.example'\n").is_public
    assert not make.one(kind="sandbox.anu_legacy").is_public


# ---- Whom the rules count ----


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("", "url = 'https://qrng.anu.edu.au'\n"),
        ("url = 'https://h.example'\n", "url = 'https://h.example/below/'\n"),
        ("url = 'https://h.example'\n", "url = 'HTTPS://H.Example'\n"),
    ],
)
def test_one_address_is_one_upstream(make: Make, one: str, other: str) -> None:
    """However it is written; the limits are those of the machine that answers."""
    assert make.one(one).key == make.one(other).key


@pytest.mark.parametrize(
    "other",
    [
        source("url = 'https://other.example'\n"),
        source("url = 'https://h.example:8443'\n"),
        source("url = 'https://h.example'\n", kind="randomnumberapi"),
    ],
)
def test_other_addresses_are_other_upstreams(make: Make, other: str) -> None:
    """Another host, another port, another service behind the same one."""
    (upstream,) = make(other)

    assert upstream.key != make.one("url = 'https://h.example'\n").key


def test_each_account_is_counted_by_itself(make: Make) -> None:
    """A quota belongs to a key; and the key is not in the name under which it is remembered."""
    mine = make.one(KEYED, kind="anu_aqn").key
    theirs = make.one("api_key_env = 'OTHER'\n", kind="anu_aqn").key

    assert mine != theirs
    assert "other" not in theirs


def test_sources_of_one_upstream_must_agree_on_its_rules(make: Make) -> None:
    """Or it would depend on their order which of them holds."""
    with pytest.raises(ConfigError) as caught:
        make(source(), source("rate = '1/s'\n", name="b"))

    (complaint,) = caught.value.complaints
    assert complaint.startswith("sources.b: asks the same upstream as sources.anu; give both")
    assert len(make(source(), source(name="b"))) == 2


# ---- Sizes ----


def test_a_request_costs_no_more_than_the_whole_quota(make: Make) -> None:
    """30 bits a number: ten batches in one request would never be allowed, two at a time are."""
    more = EMAIL + "min = 1\nmax = 1_000_000_000\n"
    upstream = make.one(more, kind="random_org", batches="{count = 10, size = 3_000}")

    fetches = list(upstream.order.fetches())

    assert [fetch.n for fetch in fetches] == [6_000] * 5
    assert all(upstream.source.cost_bits(fetch) <= 200_000 for fetch in fetches)


def test_a_batch_that_costs_more_than_the_quota_is_refused(make: Make) -> None:
    """It would be put off day after day, and every run would say that all is well."""
    more = EMAIL + "min = 0\nmax = 1\nquotas = ['10 bits/day']\n"

    assert make.one(more, kind="random_org", batches="[10]").order.max_numbers == 10
    with pytest.raises(ConfigError, match=r"sources\.anu: a batch of 11 is more than the 10 num"):
        make.one(more, kind="random_org", batches="[11]")


def test_a_quota_in_requests_does_not_limit_their_size(make: Make) -> None:
    """On the contrary: the larger they are the longer it lasts."""
    assert make.one("quotas = ['1 requests/day']\n").order.max_numbers == 1024


def test_batches_are_numbered_through_all_sources(make: Make) -> None:
    """Disabled ones are left out."""
    upstreams = make(
        source(batches="[2, 3]"),
        source("enabled = false\n", name="b"),
        source(kind="randomnumberapi", name="c", batches="[4]"),
    )

    assert [upstream.order.first for upstream in upstreams] == [0, 2]


def test_manners_come_from_the_source(make: Make) -> None:
    """The budget and the breaker are its own."""
    upstream = make.one("breaker = 0\nretry_budget = 7\nin_flight = 3\n")

    assert (upstream.breaker, upstream.retry_budget, upstream.in_flight) == (0, 7, 3)


def test_every_complaint_is_made_at_once(make: Make) -> None:
    """Whoever corrects a file wants to do it once."""
    with pytest.raises(ConfigError) as caught:
        make(
            source(batches="[1025]"),
            source("min = 5\nmax = 5\n" + EMAIL, kind="random_org", name="b"),
        )

    assert [complaint.partition(":")[0] for complaint in caught.value.complaints] == [
        "sources.anu",
        "sources.b",
    ]


# ---- Proxies ----

COLLECT = "[collect]\n{}\n"
CREDENTIALS = "http://me:c4nary%2F1@p.example:3128"


def proxies(make: Make, collect: str, more: str, **environ: str) -> tuple[str | None, str]:
    """Name the proxy of a single source, and the variable of one that is not used."""
    (upstream,) = make(COLLECT.format(collect), source(more), **environ)
    proxy = upstream.proxy
    named = None if proxy is None else f"{proxy.host}:{proxy.port}"
    return named, upstream.policy.unused_proxy


@pytest.mark.parametrize(
    ("collect", "more", "proxy"),
    [
        ("", "", None),
        ("proxy = 'http://p.example:3128'", "", "p.example:3128"),
        ("proxy = 'http://p.example'", "", "p.example:80"),
        ("proxy = 'http://p.example:1'", "proxy = 'http://[::1]:2/'", "::1:2"),
        ("proxy = 'http://p.example:1'", "proxy = 'none'", None),
        ("proxy = 'none'", "proxy = 'http://p.example:2'", "p.example:2"),
        ("proxy_env = 'P'", "", "p.example:3128"),
        ("proxy = 'http://p.example:1'", "proxy_env = 'P'", "p.example:3128"),
        ("proxy = 'env'", "", "e.example:8080"),
        ("proxy = 'http://p.example:1'", "proxy = 'env'", "e.example:8080"),
    ],
)
def test_a_proxy_is_chosen(make: Make, collect: str, more: str, proxy: str | None) -> None:
    """The source's word counts before the common one, and the environment's only when asked."""
    given = {"P": CREDENTIALS, "HTTPS_PROXY": "e.example:8080"}

    assert proxies(make, collect, more, **given)[0] == proxy


@pytest.mark.parametrize(
    ("environ", "proxy"),
    [
        ({"https_proxy": "http://a:1", "HTTPS_PROXY": "http://b:2"}, "a:1"),
        ({"ALL_PROXY": "http://a:1"}, "a:1"),
        ({"HTTP_PROXY": "http://a:1"}, None),
        ({"HTTPS_PROXY": ""}, None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "x.example, anu.edu.au"}, None),
        ({"HTTPS_PROXY": "http://a:1", "no_proxy": ".edu.au"}, None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "*"}, None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "u.edu.au,10.0.0.0/8,"}, "a:1"),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "qrng.anu.edu.au:8443"}, "a:1"),
    ],
)
def test_the_environment_is_read_by_the_usual_rules(
    make: Make, environ: dict[str, str], proxy: str | None
) -> None:
    """Those that curl and others agree on."""
    assert proxies(make, "proxy = 'env'", "", **environ) == (proxy, "")
    unused = {"a:1": True, None: False}[proxy]
    assert bool(proxies(make, "", "", **environ)[1]) is unused


@pytest.mark.parametrize("no_proxy", ["10.0.0.0/8", "10.1.2.3", "10.1.2.3:8443", "[10.1.2.3]"])
def test_an_address_may_need_no_proxy(make: Make, no_proxy: str) -> None:
    """Alone, with a port, or with its whole network."""
    environ = {"HTTPS_PROXY": "http://a:1", "NO_PROXY": no_proxy}
    url = "url = 'https://10.1.2.3:8443'"

    assert proxies(make, "proxy = 'env'", url, **environ) == (None, "")


def test_what_is_on_this_machine_needs_no_proxy_of_the_environment(make: Make) -> None:
    """Nobody means it, and a proxy could not reach it."""
    url = "url = 'http://127.0.0.1:8000'"

    assert proxies(make, "proxy = 'env'", url, HTTP_PROXY="http://a:1") == (None, "")


def test_a_header_of_a_cgi_request_is_no_proxy(make: Make) -> None:
    """Whoever sends `Proxy: evil` would choose it."""
    environ = {"HTTP_PROXY": "http://a:1", "REQUEST_METHOD": "GET"}

    assert proxies(make, "proxy = 'env'", "url = 'http://u.example'", **environ) == (None, "")


def test_a_variable_that_is_not_used_is_named(make: Make) -> None:
    """Unless the file says that none is wanted."""
    environ = {"HTTPS_PROXY": "http://a:1"}

    assert proxies(make, "", "", **environ) == (None, "HTTPS_PROXY")
    assert proxies(make, "proxy = 'none'", "", **environ) == (None, "")
    assert proxies(make, "proxy = 'http://p:2'", "", **environ) == ("p:2", "")


def test_the_sandbox_is_asked_directly(make: Make) -> None:
    """It is on this machine."""
    table = source(kind="sandbox.anu_legacy")
    (upstream,) = make(COLLECT.format("proxy = 'http://p:2'"), table, HTTP_PROXY="http://a:1")

    assert upstream.proxy is None
    assert not upstream.policy.unused_proxy


def test_credentials_of_a_proxy_are_secrets(make: Make) -> None:
    """In no repr and in no digest, and taken out of all that is kept."""
    config = COLLECT.format("proxy_env = 'P'")
    (upstream,) = make(config, source(KEYED, kind="anu_aqn"), P=CREDENTIALS)

    assert upstream.policy.secrets == ("key", "c4nary/1", "me:c4nary/1")
    settings = load_settings(make.folder / "config.toml", {"P": CREDENTIALS, "KEY": "key"})
    others = load_settings(make.folder / "config.toml", {"P": "http://q", "KEY": "key"})
    assert "c4nary" not in repr(settings)
    assert settings.digest == others.digest
    assert with_overrides(settings, deadline_seconds=9).collect.proxy_url is not None


@pytest.mark.parametrize(
    ("collect", "more", "complaint"),
    [
        ("proxy = 'http://me:c4nary@p'", "", "collect.proxy: must not contain a user name"),
        ("proxy = 'https://p'", "", 'collect.proxy: must begin with http://; or use "env"'),
        ("proxy = 'http://p/c4nary'", "", "collect.proxy: must end with the port"),
        ("proxy = 'http://p:0'", "", "collect.proxy: the port must be"),
        ("proxy = 'env'\nproxy_env = 'P'", "", "collect.proxy_env: give this or proxy"),
        ("proxy_env = 'GONE'", "", "collect.proxy_env: the environment variable GONE is not set"),
        ("proxy_env = 'Q'", "", "collect.proxy_env: the environment variable Q: must begin"),
        ("", "proxy_env = 'Q'", "sources.anu.proxy_env: the environment variable Q: must begin"),
        ("proxy = 'env'", "", "sources.anu: the environment variable ALL_PROXY: must begin"),
        ("", "accept_content_type = ['text']", "sources.anu.accept_content_type[0]: must be"),
        ("", "accept_encoding = 'br'", "sources.anu.accept_encoding: "),
    ],
)
def test_a_proxy_that_cannot_be_is_a_complaint(
    make: Make, collect: str, more: str, complaint: str
) -> None:
    """Without a word of what may be a password."""
    with pytest.raises(ConfigError) as raised:
        proxies(
            make, collect, more, P=CREDENTIALS, Q="socks5://me:c4nary@q", ALL_PROXY="socks5://a"
        )

    assert complaint in str(raised.value)
    assert "c4nary" not in str(raised.value)


def test_a_sandbox_takes_no_proxy_of_its_own(make: Make) -> None:
    """It would do nothing."""
    with pytest.raises(ConfigError, match=r"sources\.anu\.proxy: the sandbox is on this machine"):
        make.one("proxy = 'env'", kind="sandbox.anu_legacy")


def test_what_a_source_may_send_is_handed_on(make: Make) -> None:
    """The names in one case."""
    text = "accept_content_type = ['Text/HTML']\naccept_encoding = 'gzip'"

    assert make.one(text).leniency == Leniency(
        content_types=frozenset({"text/html"}), takes_gzip=True
    )
    assert make.one().leniency == Leniency()
