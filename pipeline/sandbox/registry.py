"""Which imitations there are, by kind: the name in a URL's path and in ``sandbox.<kind>``."""

from collections.abc import Callable

from pipeline.sandbox.anu_aqn import AnuAqn
from pipeline.sandbox.anu_legacy import AnuLegacy
from pipeline.sandbox.exchange import Upstream
from pipeline.sandbox.options import SandboxOptions
from pipeline.sandbox.random_org import RandomOrg
from pipeline.sandbox.random_org_jsonrpc import RandomOrgJsonRpc
from pipeline.sandbox.randomnumberapi import RandomNumberApi

KINDS: dict[str, Callable[[SandboxOptions], Upstream]] = {
    "anu_legacy": AnuLegacy,
    "anu_aqn": AnuAqn,
    "random_org": RandomOrg,
    "random_org_jsonrpc": RandomOrgJsonRpc,
    "randomnumberapi": RandomNumberApi,
}
