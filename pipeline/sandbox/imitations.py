"""Which imitations there are, by kind: the name in a URL's path and in ``sandbox.<kind>``."""

from collections.abc import Iterable

from pipeline.errors import ConfigError
from pipeline.sandbox.anu import AnuAqn, AnuLegacy
from pipeline.sandbox.drand import Drand
from pipeline.sandbox.exchange import Upstream
from pipeline.sandbox.faults import Fault, parse_fault
from pipeline.sandbox.json_apis import Csrng, Lfd, Outshift, Padova, Qrandom, Quandela
from pipeline.sandbox.nist_beacon import NistBeacon, NqsnBeacon
from pipeline.sandbox.random_org import RandomOrg
from pipeline.sandbox.random_org_jsonrpc import RandomOrgJsonRpc
from pipeline.sandbox.randomnumberapi import RandomNumberApi

KINDS: dict[str, type[Upstream]] = {
    "anu_legacy": AnuLegacy,
    "anu_aqn": AnuAqn,
    "random_org": RandomOrg,
    "random_org_jsonrpc": RandomOrgJsonRpc,
    "random_org_signed": RandomOrgJsonRpc,
    "randomnumberapi": RandomNumberApi,
    "lfd": Lfd,
    "padova": Padova,
    "csrng": Csrng,
    "outshift": Outshift,
    "qrandom": Qrandom,
    "quandela": Quandela,
    "drand_quicknet": Drand,
    "drand_default": Drand,
    "nist_beacon": NistBeacon,
    "nqsn_beacon": NqsnBeacon,
}


def choose_faults(chosen: Iterable[str]) -> dict[str, list[Fault]]:
    """Sort ``[KIND:]NAME[=VALUE]`` by kind.

    Raises:
        ConfigError: there is no such kind or fault, or it does not take that value.
    """
    by_kind: dict[str, list[Fault]] = {kind: [] for kind in KINDS}
    for each in chosen:
        kind, colon, fault = each.partition(":")
        is_for_one = bool(colon) and "=" not in kind
        if is_for_one and kind not in KINDS:
            raise ConfigError(f"no upstream is named {kind!r}; use one of {', '.join(KINDS)}")
        parsed = parse_fault(fault if is_for_one else each)
        for name in [kind] if is_for_one else KINDS:
            by_kind[name].append(parsed)
    return by_kind
