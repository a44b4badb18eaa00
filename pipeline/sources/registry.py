"""The kinds of sources that ``config.toml`` may name, what each needs, and its defaults."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.errors import ConfigError
from pipeline.pacing import Period, Quota, Rate, Rules, Unit
from pipeline.sources.anu_aqn import AnuAqn
from pipeline.sources.anu_legacy import AnuLegacy
from pipeline.sources.base import Source
from pipeline.sources.random_org import RandomOrg
from pipeline.sources.random_org_jsonrpc import RandomOrgJsonrpc
from pipeline.sources.randomnumberapi import RandomNumberApi

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
        needs_key: whether nothing can be asked without an API key.
        needs_email: whether the upstream wants to know whom to write to.
        formats: the answer formats to choose from, the default first; empty: no choice.
    """

    make: Callable[..., Source]
    default_url: str
    default_min: int
    default_max: int
    in_flight: int = 1
    attempt_seconds: float = 30.0
    merge: bool = True
    rules: Rules = NO_RULES
    needs_key: bool = False
    needs_email: bool = False
    formats: tuple[str, ...] = ()


# random.org's guideline 3: wait "at least a couple of minutes", an aborted request wastes its bits.
_PATIENT_SECONDS = 150.0


def _per(unit: Unit, amount: int, period: Period) -> Quota:
    return Quota(unit=unit, amount=amount, period=period)


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
    "randomnumberapi": Kind(
        make=RandomNumberApi,
        default_url="https://www.randomnumberapi.com",
        default_min=0,
        default_max=100,
        in_flight=4,
        merge=False,
    ),
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
) -> Source:
    """Make the adapter of kind *name*, with what that kind needs and nothing else.

    *url* None means the public service.

    Raises:
        ConfigError: an unknown kind, an unusable URL, or something needed is missing or malformed.
    """
    kind = find_kind(name)
    options = _options(name, kind, api_key, email, format)
    return kind.make(base_url=url or kind.default_url, **options)
