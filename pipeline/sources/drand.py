"""drand, the League of Entropy's beacon: a public value every 3 or 30 seconds, signed by many.

Wire facts: docs.drand.love/developer/http-api and the sources github.com/drand/drand and
http-relay. The chains' hashes and public keys are pinned here: a relay cannot give others.
"""

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from pipeline.errors import ErrorName, SourceError
from pipeline.models import Fetch, Proof, ProofWord
from pipeline.sources.answers import check_status, member, read_json, read_json_or_status
from pipeline.sources.aspects import name_signing
from pipeline.sources.base import Answer
from pipeline.sources.bls import BlsKey, is_signed
from pipeline.sources.pulses import Beacon, draw

_HEX = re.compile("(?:[0-9a-f]{2}){1,256}")
_ROUND_BYTES = 8
_HIGHEST_ROUND = 2**63 - 1  # that a database holds; drand itself goes on for twice as long


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """One sequence of rounds.

    Attributes:
        genesis: when round 1 was made, in seconds since 1970.
        period: seconds from one round to the next.
    """

    hash: str
    key: BlsKey
    genesis: int
    period: int

    @property
    def scheme(self) -> str:
        """Give drand's name of how it signs."""
        return "bls-unchained-g1-rfc9380" if self.key.is_short else "pedersen-bls-chained"

    def made_at(self, number: int) -> datetime:
        """Tell when a round was made; of rounds beyond the calendar, its last moment."""
        try:
            made = timedelta(seconds=self.genesis + (number - 1) * self.period)
            return datetime(1970, 1, 1, tzinfo=UTC) + made
        except OverflowError:
            return datetime.max.replace(tzinfo=UTC, microsecond=0)


QUICKNET = Chain(
    hash="52db9ba70e0cc0f6eaf7803dd07447a1f5477735fd3f661792ba94600c84e971",
    key=BlsKey(
        public=bytes.fromhex(
            "83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c"
            "8c4b450b6a0a6c3ac6a5776a2d1064510d1fec758c921cc22b0e17e63aaf4bcb"
            "5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a"
        ),
        is_short=True,
    ),
    genesis=1692803367,
    period=3,
)
DEFAULT = Chain(
    hash="8990e7a9aaed2ffed73dbd7092123d6f289930540d7651336225dc172e51b2ce",
    key=BlsKey(
        public=bytes.fromhex(
            "868f005eb8e6e4ca0a47c8a77ceaa5309a47978a7c71bc5cce96366b5d7a5699"
            "37c529eeda66c7293784a9402801af31"
        ),
        is_short=False,
    ),
    genesis=1595431050,
    period=30,
)
CHAINS = {"quicknet": QUICKNET, "default": DEFAULT}

# The sandbox plays both chains with keys of its own. Everybody knows those, so they are trusted
# for what the sandbox has played and for nothing else.
SANDBOX_CHAINS = {
    "quicknet": Chain(
        hash=sha256(b"pipeline sandbox quicknet").hexdigest(),
        key=BlsKey(
            public=bytes.fromhex(
                "8a365a3125c301e10f9de28785635b5ba4ef594297683c59c44dd3704bc582a9"
                "c3261bb69c52da1d8ac9dc0a4a5ce4d509da69d6119d7422e12d1f9b37c5cc24"
                "02d9f0d8c877afb98a3a26ada03fad9017483a5831997f4512b6aca2428926fd"
            ),
            is_short=True,
        ),
        genesis=QUICKNET.genesis,
        period=QUICKNET.period,
    ),
    "default": Chain(
        hash=sha256(b"pipeline sandbox default").hexdigest(),
        key=BlsKey(
            public=bytes.fromhex(
                "a606210399dac97f68d9c709de11cc7a86fc2665122f87e52cfb590b0374b574"
                "3bdbaa7b0d10e6a1ff11f46388c9de82"
            ),
            is_short=False,
        ),
        genesis=DEFAULT.genesis,
        period=DEFAULT.period,
    ),
}
SCHEMES = frozenset(chain.scheme for chain in CHAINS.values())


def find_chain(hash_: str, *, is_sandbox: bool) -> Chain | None:
    """Look up the chain with this hash among those that may be trusted."""
    known = SANDBOX_CHAINS if is_sandbox else CHAINS
    return next((chain for chain in known.values() if chain.hash == hash_), None)


def judge(proof: Proof, *, is_sandbox: bool, keys: object = ()) -> ProofWord:
    """Verify the signature of a round once more, with the key that is pinned here, no other.

    Raises:
        SourceError: ``unproven``.
    """
    del keys
    chain = find_chain(proof.key_id, is_sandbox=is_sandbox)
    if chain is None:
        raise SourceError(ErrorName.UNPROVEN, f"no chain {proof.key_id} is known here")
    number = proof.message[-_ROUND_BYTES:]
    is_consistent = (
        proof.scheme == chain.scheme
        and int.from_bytes(number) == proof.serial
        and proof.made_at == chain.made_at(proof.serial)
        and proof.is_expanded
    )
    if not is_consistent:
        raise SourceError(ErrorName.UNPROVEN, f"round {proof.serial} is not what was signed")
    answer = is_signed(chain.key, proof.message, proof.signature)
    if answer is False:
        what = f"the signature of round {proof.serial} does not verify"
        raise SourceError(ErrorName.UNPROVEN, what)
    return ProofWord.UNVERIFIABLE if answer is None else ProofWord.VERIFIED


def numbers_of(proof: Proof, fetch: Fetch) -> tuple[int, ...]:
    """Draw the numbers of *fetch* out of a round: its value is the SHA-256 of its signature."""
    return draw(sha256(proof.signature).digest(), fetch)


def _hex(document: object, name: str) -> bytes:
    text = member(document, name)
    if not isinstance(text, str) or not _HEX.fullmatch(text):
        raise SourceError(ErrorName.SCHEMA, f"{name} is not made of hex digits")
    return bytes.fromhex(text)


class Drand(Beacon):
    """One chain at one relay."""

    def __init__(self, *, base_url: str, chain: str, is_sandbox: bool = False) -> None:
        self._chain = (SANDBOX_CHAINS if is_sandbox else CHAINS)[chain]
        self._is_sandbox = is_sandbox
        super().__init__(base_url, f"/{self._chain.hash}/public/latest")

    def parse_answer(self, fetch: Fetch, answer: Answer) -> tuple[int, ...]:
        """Draw the numbers of each batch out of the round, by the batch's own label."""
        return numbers_of(self._read(answer), fetch)

    def find_proof(self, answer: Answer) -> Proof:
        """Verify the round's signature: by thousands of a second, if the package is there."""
        proof = self._read(answer)
        word = judge(proof, is_sandbox=self._is_sandbox)
        return replace(proof, word=word)

    def name_signing(self, answer: Answer) -> str:
        """Name the chain's scheme, and the length."""
        signature = _hex(read_json(answer), "signature")
        return name_signing(self._chain.scheme, len(signature), [self._chain.key.signature_bytes])

    def _read(self, answer: Answer) -> Proof:
        document = read_json_or_status(answer, has_key=False)
        check_status(answer, has_key=False)
        number = member(document, "round")
        if type(number) is not int or not 0 < number <= _HIGHEST_ROUND:
            raise SourceError(ErrorName.SCHEMA, "round is not a positive integer")
        signature = _hex(document, "signature")
        if _hex(document, "randomness") != sha256(signature).digest():
            what = f"the randomness of round {number} is not the hash of its signature"
            raise SourceError(ErrorName.UNPROVEN, what)
        previous = b"" if self._chain.key.is_short else _hex(document, "previous_signature")
        return Proof(
            scheme=self._chain.scheme,
            key_id=self._chain.hash,
            serial=number,
            made_at=self._chain.made_at(number),
            message=previous + number.to_bytes(_ROUND_BYTES),
            signature=signature,
            word=ProofWord.UNVERIFIABLE,
            is_expanded=True,
        )
