"""What the workers of one source see in common: requests, the look of answers, old numbers.

All of it ends up in the books, so what must not stand there is replaced here.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import log2

import httpx2 as httpx

from pipeline.errors import ErrorName, SourceError
from pipeline.models import Aspect, Fetch, Request
from pipeline.sanitize import one_line, redact, redact_text
from pipeline.sources.aspects import Contract, aspects_of
from pipeline.sources.http import Exchange
from pipeline.store.numbers import digest_of, pack

FRESH_BITS = 64  # with fewer the same numbers may come twice by chance
MOST_KNOWN = 10_000  # batches whose numbers are remembered: under 2 MiB
MOST_KINDS = 16  # of answers kept in a run, or one that never looks the same would fill the disk

_NUMBER_BITS = 32  # of a batch's number within its run


def is_telling(n: int, low: int, high: int) -> bool:
    """Tell whether the same *n* numbers in [*low*, *high*] cannot well come twice by chance."""
    return n * log2(high - low + 1) >= FRESH_BITS


class Witness:
    """Sees every exchange of one source in one run.

    *secrets* are replaced in all that it keeps; *variable* names where they are from. *earlier*
    are the digests of batches collected before, the newest last, each with its run and its number.
    """

    def __init__(
        self,
        *,
        run_id: int,
        secrets: tuple[str, ...],
        variable: str,
        earlier: Iterable[tuple[bytes, int, int]] = (),
    ) -> None:
        self._run_id = run_id
        self._secrets = secrets
        self._stand_in = b"${%b}" % variable.encode()
        # The origin in one integer: a tuple would take a third more memory.
        self._origins = OrderedDict(
            (digest, run << _NUMBER_BITS | number) for digest, run, number in earlier
        )
        self._kinds: set[Contract] = set()
        # What is sent again is mostly the same object, and what comes mostly looks the same.
        self._describe = lru_cache(maxsize=256)(self._make_description)
        self._clean = lru_cache(maxsize=64)(self._make_clean)

    def describe(self, request: httpx.Request) -> Request:
        """Write *request* down as it is sent, but for secrets: they read ``${VARIABLE}``."""
        return self._describe(request)

    def _make_description(self, request: httpx.Request) -> Request:
        def named(data: bytes) -> bytes:
            return redact(data, self._secrets, self._stand_in)

        return Request(
            method=request.method,
            url=named(str(request.url).encode()).decode(),
            headers=tuple(
                (named(name).decode("latin-1"), named(value).decode("latin-1"))
                for name, value in request.headers.raw
            ),
            body=named(request.content),
        )

    def contract(self, exchange: Exchange, error: ErrorName | None) -> Contract:
        """Tell what the answer of *exchange*, which ended in *error*, looked like."""
        shown = () if exchange.answer is None else tuple(aspects_of(exchange.answer, error))
        if exchange.tls_issuer is not None:
            shown = (*shown, (Aspect.TLS_ISSUER, exchange.tls_issuer))
        return self._clean(shown)

    def _make_clean(self, contract: Contract) -> Contract:
        secrets = self._secrets
        return tuple((aspect, one_line(redact_text(value, secrets))) for aspect, value in contract)

    def is_first(self, contract: Contract) -> bool:
        """Tell whether this is the first good answer of its kind in this run."""
        if contract in self._kinds or len(self._kinds) == MOST_KINDS:
            return False
        self._kinds.add(contract)
        return True

    def check_fresh(self, fetch: Fetch, numbers: Sequence[int]) -> None:
        """Hold *numbers* against those that came before, and remember them.

        A batch of few small numbers is not looked at.

        Raises:
            SourceError: ``stale``: a batch has the numbers of an earlier one, in their order; then
                nothing of this answer is remembered.
        """
        low, high = fetch.min, fetch.max
        origins: dict[bytes, int] = {}
        offset = 0
        for batch in fetch.batches:
            end = offset + batch.n
            if is_telling(batch.n, low, high):
                digest = digest_of(pack(numbers[offset:end], low, high), batch.n, low, high)
                origin = self._origins.get(digest) or origins.get(digest)
                if origin is not None:
                    raise SourceError(ErrorName.STALE, _same_as(origin, batch.n))
                origins[digest] = self._run_id << _NUMBER_BITS | batch.number
            offset = end
        self._origins.update(origins)
        while len(self._origins) > MOST_KNOWN:
            self._origins.popitem(last=False)


def _same_as(origin: int, n: int) -> str:
    run_id, number = divmod(origin, 1 << _NUMBER_BITS)
    return f"the same {n} numbers as run {run_id} w{number}"
