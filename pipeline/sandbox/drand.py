"""An imitation of a drand relay, API version 1, with two chains that have keys of their own.

Wire facts: docs.drand.love/developer/http-api and the source of the relay, github.com/drand/
http-relay. The keys are derived from text that stands here, so they prove nothing to anybody but
a pipeline that knows that it asks the sandbox. Ours: the chained one begins anew every 8 rounds.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from hashlib import sha256
from importlib import import_module
from types import ModuleType

from pipeline.errors import ConfigError
from pipeline.extras import how_to_install
from pipeline.sandbox.exchange import (
    JSON,
    Request,
    Response,
    Upstream,
    answer_text,
    compact,
    parse_integer,
)

CURVE = "py_arkworks_bls12381"  # of the extra `proof`
SHORT, LONG = "bls-unchained-g1-rfc9380", "pedersen-bls-chained"
G1_TAG = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_"
G2_TAG = b"BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_NUL_"
LINKED = 8  # rounds in a row of the chained one
PARTS = 3  # of a path below a chain's hash, itself included


def _curve() -> ModuleType:
    try:
        return import_module(CURVE)
    except ImportError:
        install = how_to_install(CURVE.replace("_", "-"))
        raise ConfigError(f"the sandbox cannot sign: {install}") from None


@dataclass(frozen=True, eq=False)
class Chain:
    """One chain: its name, and when round 1 was made."""

    name: str
    scheme: str
    genesis: int
    period: int

    @cached_property
    def hash(self) -> str:
        """Give the hash that its addresses begin with."""
        return sha256(f"pipeline sandbox {self.name}".encode()).hexdigest()

    @cached_property
    def group_hash(self) -> bytes:
        """Give what the first round follows on."""
        return sha256(f"pipeline sandbox {self.name} group".encode()).digest()

    @cached_property
    def secret(self) -> int:
        """Give the key to sign with, below the order of the group."""
        text = f"pipeline sandbox drand {self.name[0]}"
        return int.from_bytes(sha256(text.encode()).digest()) >> 3

    @property
    def is_chained(self) -> bool:
        """Tell whether each round signs the one before, too."""
        return self.scheme == LONG

    def newest(self, now: datetime) -> int:
        """Count the rounds up to *now*."""
        return int(now.timestamp() - self.genesis) // self.period + 1

    def previous(self, number: int) -> bytes:
        """Give the signature that a round follows on."""
        return self.group_hash if number % LINKED == 1 else sign(self, number - 1)

    def public_key(self) -> bytes:
        """Give the key that the signatures verify with."""
        curve = _curve()
        base = curve.G1Point() if self.is_chained else curve.G2Point()
        return bytes((base * curve.Scalar(self.secret)).to_compressed_bytes())

    def round(self, number: int) -> dict[str, object]:
        """Write one round."""
        signature = sign(self, number)
        made = {
            "round": number,
            "randomness": sha256(signature).hexdigest(),
            "signature": signature.hex(),
        }
        return made | (
            {"previous_signature": self.previous(number).hex()} if self.is_chained else {}
        )

    def info(self) -> dict[str, object]:
        """Describe the chain."""
        return {
            "public_key": self.public_key().hex(),
            "period": self.period,
            "genesis_time": self.genesis,
            "hash": self.hash,
            "groupHash": self.group_hash.hex(),
            "schemeID": self.scheme,
            "metadata": {"beaconID": self.name},
        }


@lru_cache(maxsize=512)  # each takes a thousandth of a second
def sign(chain: Chain, number: int) -> bytes:
    """Sign one round."""
    curve = _curve()
    message = number.to_bytes(8)
    if chain.is_chained:
        message = chain.previous(number) + message
    point, tag = (curve.G2Point, G2_TAG) if chain.is_chained else (curve.G1Point, G1_TAG)
    signed = point.hash_to_curve(sha256(message).digest(), tag) * curve.Scalar(chain.secret)
    return bytes(signed.to_compressed_bytes())


QUICKNET = Chain("quicknet", SHORT, genesis=1692803367, period=3)
DEFAULT = Chain("default", LONG, genesis=1595431050, period=30)
CHAINS = {chain.hash: chain for chain in (DEFAULT, QUICKNET)}


class Drand(Upstream):
    """Whoever asks is served: rounds are made whether anybody asks or not."""

    example = f"/{QUICKNET.hash}/public/latest"

    def answer(self, request: Request, /) -> Response:
        """Serve rounds, as ``/public/...`` of the default chain or below a chain's hash."""
        parts = request.path.strip("/").split("/")
        if parts == ["chains"]:
            return answer_text(compact(list(CHAINS)), content_type=JSON)
        if parts[0] in ("public", "info", "health"):
            parts = [DEFAULT.hash, *parts]
        try:
            return self._of_chain(request, *parts[:PARTS], *[""] * (PARTS - len(parts)))
        except ConfigError as exc:  # a package is missing
            return answer_text(f"{exc}\n", 500)

    def _of_chain(self, request: Request, hash_: str, what: str, which: str) -> Response:
        chain = CHAINS.get(hash_)
        if what not in ("public", "info", "health"):
            return answer_text("404 page not found\n", 404)
        if chain is None:
            return answer_text("unknown chain hash\n", 400)
        newest = chain.newest(request.utc)
        if what == "info":
            return answer_text(compact(chain.info()), content_type=JSON)
        if what == "health":
            health = {"current": newest, "expected": newest}
            return answer_text(compact(health), content_type=JSON)
        return self._round(chain, newest, which)

    @staticmethod
    def _round(chain: Chain, newest: int, which: str) -> Response:
        number = newest if which == "latest" else parse_integer(which)
        if number is None or number < 1:
            return answer_text("404 page not found\n", 404)
        if number > newest:
            return answer_text("Requested future beacon\n", 425)
        return answer_text(compact(chain.round(number)), content_type=JSON)

    def refuse(self, _request: Request, /) -> Response:
        """Refuse as a relay whose node does not answer."""
        return answer_text("timeout\n", 504)
