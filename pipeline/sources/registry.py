"""The kinds of sources that ``config.toml`` may name, what each needs, and its defaults."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from pipeline.errors import ConfigError
from pipeline.pacing import Period, Quota, Rate, Rules, Unit
from pipeline.settings.api import ApiSettings
from pipeline.settings.presets import JSON_API, PRESETS, find_preset
from pipeline.settings.templates import KEY
from pipeline.sources.anu_aqn import AnuAqn
from pipeline.sources.anu_legacy import AnuLegacy
from pipeline.sources.base import Source
from pipeline.sources.drand import Drand
from pipeline.sources.json_api import JsonApi
from pipeline.sources.nist_beacon import NistBeacon, NqsnBeacon
from pipeline.sources.random_org import RandomOrg
from pipeline.sources.random_org_jsonrpc import RandomOrgJsonrpc
from pipeline.sources.random_org_signed import RandomOrgSigned
from pipeline.sources.randomnumberapi import RandomNumberApi
from pipeline.sources.rsa import read_keys

_API_KEY = re.compile(r"[!-~]+")  # a header value: nothing that could end or split it
_EMAIL = re.compile(r"[!#-'*-~]+@[!#-'*-~]+")  # nor anything that closes a header's comment

NO_RULES = Rules()


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What is known of one upstream before it is asked.

    Attributes:
        make: the adapter; takes ``base_url`` and what the fields below say it needs.
        default_url: where the public service is.
        default_min: lower bound of the numbers, inclusive.
        default_max: upper bound of the numbers, inclusive.
        in_flight: how many requests may be under way at once.
        attempt_seconds: what one attempt may take in all.
        merge: whether batches share a request: the upstream counts requests.
        rules: what the upstream allows, as far as it says.
        is_api: whether an ``api`` table describes it, the file's or the one that is known.
        needs_key: whether nothing can be asked without an API key.
        needs_email: whether the upstream wants to know whom to write to.
        formats: the answer formats to choose from, the default first; empty: no choice.
        is_proving: whether it signs, so that it matters whether the sandbox plays it.
        takes_proof_keys: whether the user pins the certificates that it signs with.
    """

    make: Callable[..., Source]
    default_url: str
    default_min: int
    default_max: int
    in_flight: int = 1
    attempt_seconds: float = 30.0
    merge: bool = True
    rules: Rules = NO_RULES
    is_api: bool = False
    needs_key: bool = False
    needs_email: bool = False
    formats: tuple[str, ...] = ()
    is_proving: bool = False
    takes_proof_keys: bool = False


# random.org's guideline 3: wait "at least a couple of minutes", an aborted request wastes its bits.
_PATIENT_SECONDS = 150.0


def _per(unit: Unit, amount: int, period: Period) -> Quota:
    return Quota(unit=unit, amount=amount, period=period)


_TEN_SECONDS = Rate(requests=1, period_seconds=10)


def _api(url: str, *, rate: Rate | None = None, quotas: tuple[Quota, ...] = ()) -> Kind:
    """Make a kind that an ``api`` table describes."""
    rules = Rules(rate=rate, quotas=quotas)
    return Kind(
        make=JsonApi, default_url=url, default_min=0, default_max=255, rules=rules, is_api=True
    )


def _drand(chain: str, *, seconds: int) -> Kind:
    """Make the kind that asks one chain of drand, which has a round every so many *seconds*."""
    return Kind(
        make=partial(Drand, chain=chain),
        default_url="https://api.drand.sh",
        default_min=0,
        default_max=255,
        rules=Rules(rate=Rate(requests=1, period_seconds=seconds)),
        is_proving=True,
    )


def _beacon(make: Callable[..., Source], url: str) -> Kind:
    """Make the kind of a beacon that speaks NIST's format."""
    return Kind(
        make=make,
        default_url=url,
        default_min=0,
        default_max=255,
        rules=Rules(rate=Rate(requests=1, period_seconds=60)),  # a new pulse comes no sooner
        is_proving=True,
        takes_proof_keys=True,
    )


KINDS: dict[str, Kind] = {
    "anu_legacy": Kind(
        make=AnuLegacy,
        default_url="https://qrng.anu.edu.au",
        default_min=0,
        default_max=255,
        rules=Rules(rate=Rate(requests=1, period_seconds=60)),
    ),
    "anu_aqn": Kind(
        make=AnuAqn,
        default_url="https://api.quantumnumbers.anu.edu.au",
        default_min=0,
        default_max=255,
        needs_key=True,
        rules=Rules(quotas=(_per("requests", 100, "month"),)),  # the free key's
    ),
    "random_org": Kind(
        make=RandomOrg,
        default_url="https://www.random.org",
        default_min=1,
        default_max=100,
        attempt_seconds=_PATIENT_SECONDS,
        needs_email=True,
        formats=("plain", "html"),
        # Besides what one begins with; and who has two requests in flight is banned.
        rules=Rules(quotas=(_per("bits", 200_000, "day"),)),
    ),
    "random_org_jsonrpc": Kind(
        make=RandomOrgJsonrpc,
        default_url="https://api.random.org",
        default_min=1,
        default_max=100,
        attempt_seconds=_PATIENT_SECONDS,
        needs_key=True,
        rules=Rules(
            quotas=(_per("requests", 1_000, "day"), _per("bits", 250_000, "day")),
        ),
    ),
    "random_org_signed": Kind(
        make=RandomOrgSigned,
        default_url="https://api.random.org",
        default_min=1,
        default_max=100,
        attempt_seconds=_PATIENT_SECONDS,
        needs_key=True,
        rules=Rules(
            quotas=(_per("requests", 1_000, "day"), _per("bits", 250_000, "day")),
        ),
        is_proving=True,
        takes_proof_keys=True,
    ),
    "randomnumberapi": Kind(
        make=RandomNumberApi,
        default_url="https://www.randomnumberapi.com",
        default_min=0,
        default_max=100,
        in_flight=4,
    ),
    # Where a rate is not published, it is that of the most cautious client that was found.
    "lfd": _api("https://lfdr.de", rate=_TEN_SECONDS),
    "padova": _api("https://qrng-qtech.vs-ix.net", rate=_TEN_SECONDS),
    "csrng": _api("https://csrng.net", rate=Rate(requests=1, period_seconds=1)),
    "outshift": _api(
        "https://api.qrng.outshift.com",
        quotas=(_per("bits", 100_000, "day"),),  # the free tier's
    ),
    "qrandom": _api("https://qrandom.io", rate=Rate(requests=1, period_seconds=1)),
    "quandela": _api("https://api.cloud.quandela.com"),
    JSON_API: _api(""),
    "drand_quicknet": _drand("quicknet", seconds=3),
    "drand_default": _drand("default", seconds=30),
    "nist_beacon": _beacon(NistBeacon, "https://beacon.nist.gov/beacon/2.0"),
    "nqsn_beacon": _beacon(NqsnBeacon, "https://quantum-entropy.sg/beacon/2.0"),
}


def find_kind(name: str) -> Kind:
    """Look up the kind called *name*.

    Raises:
        ConfigError: there is none; the text lists those that are.
    """
    try:
        return KINDS[name]
    except KeyError:
        raise ConfigError(f"no kind {name!a}; there are {', '.join(KINDS)}") from None


def _matching(pattern: re.Pattern[str], value: str | None, complaint: str) -> str:
    if value is None or not pattern.fullmatch(value):
        raise ConfigError(complaint)  # without the value: it may be a key
    return value


def _options(
    name: str, kind: Kind, api_key: str | None, email: str | None, layout: str | None
) -> dict[str, str]:
    options: dict[str, str] = {}
    if kind.needs_key:
        complaint = f"{name} needs an API key, of printable ASCII without blanks"
        options["api_key"] = _matching(_API_KEY, api_key, complaint)
    if kind.needs_email:
        complaint = f"{name} needs an e-mail address, for User-Agent"
        options["email"] = _matching(_EMAIL, email, complaint)
    if layout is not None:
        if layout not in kind.formats:
            choice = " or ".join(kind.formats) or "none to choose"
            raise ConfigError(f"{name} has no format {layout!a}: {choice}")
        options["format"] = layout
    return options


def make_source(
    name: str,
    *,
    url: str | None = None,
    api_key: str | None = None,
    email: str | None = None,
    format: str | None = None,  # noqa: A002 - the setting's name
    api: ApiSettings | None = None,
    is_sandbox: bool = False,
    proof_key_file: str | None = None,
) -> Source:
    """Make the adapter of kind *name*, with what that kind needs and nothing else.

    *url* None means the public service, *api* None what is known of it; *is_sandbox* that the
    sandbox plays it, whose keys are trusted then and no others; *proof_key_file* has those that are
    trusted else.

    Raises:
        ConfigError: an unknown kind, an unusable URL, or something needed is missing or malformed.
    """
    kind = find_kind(name)
    url = url or kind.default_url
    options: dict[str, object] = {**_options(name, kind, api_key, email, format)}
    if kind.is_proving:
        options["is_sandbox"] = is_sandbox
    if kind.takes_proof_keys and proof_key_file is not None:
        options["proof_keys"] = read_keys(proof_key_file)
    if kind.is_api:
        options |= _api_options(name, url, api, api_key)
    return kind.make(base_url=url, **options)


def _api_options(
    name: str, url: str, api: ApiSettings | None, api_key: str | None
) -> dict[str, object]:
    if api is None and name not in PRESETS:
        raise ConfigError(f"{name} needs an api table")
    api = api or find_preset(name)
    if KEY not in api.placeholders(url):
        return {"api": api}
    complaint = f"{name} needs an API key, of printable ASCII without blanks"
    return {"api": api, "api_key": _matching(_API_KEY, api_key, complaint)}
