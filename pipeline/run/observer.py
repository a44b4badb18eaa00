"""State shared by a source's workers: redacted requests, answer fingerprints, known digests.

All of it is stored, so secrets are replaced here.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache

import httpx2 as httpx

from pipeline.errors import CLOCK_DOUBT, ErrorName, SourceError
from pipeline.models import Aspect, Measure, Outcome, Proof, Request, Timings
from pipeline.sanitize import one_line, redact, redact_text
from pipeline.settings.api import MeasureRule
from pipeline.sources.aspects import Contract, aspects_of
from pipeline.sources.base import Proving
from pipeline.sources.http import Exchange
from pipeline.sources.json_values import read_measures
from pipeline.sources.waits import parse_date
from pipeline.store.freshness import Earlier
from pipeline.store.numbers import CHECK_BYTES, count_telling, width_of

MOST_KNOWN = 10_000  # batches whose numbers are remembered: under 2 MiB
MOST_KINDS = 16  # of answers kept in a run, or one that never looks the same would fill the disk

MOST_DATES = 101  # the newest answers by which our clock is judged
HALF_A_SECOND = timedelta(seconds=0.5)  # by which a Date is behind, on average
MICROSECOND = timedelta(microseconds=1)
OLDEST_PULSE = timedelta(minutes=5)  # of one that is made every 3 to 60 s

_NUMBER_BITS = 32  # of a batch's number within its run


class ExchangeObserver:
    """Describes every exchange of one source in one run, and notices numbers that came before.

    *secrets* are replaced in all that it keeps; *variable* names where they are from. *earlier*
    is what was collected before, *measured* what is kept of what answers say of their numbers.

    Attributes:
        run_id: the run.
        member: the worker that asks, if several share the run.
    """

    def __init__(
        self,
        *,
        run_id: int,
        secrets: tuple[str, ...],
        variable: str,
        earlier: Earlier = Earlier(),  # noqa: B008 - it is frozen
        measured: Sequence[MeasureRule] = (),
        member: int | None = None,
    ) -> None:
        self.run_id = run_id
        self.member = member
        self._secrets = secrets
        self._stand_in = b"${%b}" % variable.encode()
        # The origin in one integer: a tuple would take a third more memory.
        self._origins = OrderedDict(
            (ending, run << _NUMBER_BITS | number) for ending, run, number in earlier.endings
        )
        self._tail = earlier.tail
        self._measured = measured
        self._kinds: set[Contract] = set()
        # How far our clock was ahead of the upstream's, by its last answers, in microseconds.
        self.offsets: deque[int] = deque(maxlen=MOST_DATES)
        self._date: tuple[str, datetime | None] = ("", None)
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

    def compare_clocks(self, exchange: Exchange, began_at: datetime, timings: Timings) -> None:
        """Hold our clock against the ``Date`` of an answer that no cache had kept."""
        headers = exchange.headers
        said = None if headers is None else headers.get("date")
        if headers is None or not said or headers.get("age", "0").strip() not in ("", "0"):
            return
        since_answer = (timings.body_us or 0) + (timings.check_us or 0)
        answered_at = began_at + timedelta(microseconds=timings.total_us - since_answer)
        if said != self._date[0]:  # it changes once a second
            self._date = said, parse_date(said, answered_at)
        date = self._date[1]
        if date is not None:
            self.offsets.append((answered_at - date - HALF_A_SECOND) // MICROSECOND)

    def contract(
        self, exchange: Exchange, error: ErrorName | None, proving: Proving | None = None
    ) -> Contract:
        """Tell what the answer of *exchange*, which ended in *error*, looked like."""
        answer = exchange.answer
        shown = () if answer is None else tuple(aspects_of(answer, error, proving))
        if exchange.tls_issuer is not None:
            shown = (*shown, (Aspect.TLS_ISSUER, exchange.tls_issuer))
        return self._clean(shown)

    def measures(self, exchange: Exchange) -> tuple[Measure, ...]:
        """Read what a good answer says of its numbers beside them."""
        if not self._measured or exchange.answer is None:
            return ()
        return tuple(
            measure
            for document in exchange.answer.documents
            for measure in read_measures(document, self._measured)
        )

    def _make_clean(self, contract: Contract) -> Contract:
        secrets = self._secrets
        return tuple((aspect, one_line(redact_text(value, secrets))) for aspect, value in contract)

    def is_first(self, contract: Contract) -> bool:
        """Tell whether this is the first good answer of its kind in this run."""
        if contract in self._kinds or len(self._kinds) == MOST_KINDS:
            return False
        self._kinds.add(contract)
        return True

    def check_fresh(self, outcomes: Sequence[Outcome]) -> None:
        """Hold the numbers of an answer against those that came before, and remember them.

        *outcomes* are those of the batches that it served, in order. The numbers are looked at in
        a row with those of the answers before, however they are cut into batches and answers: what
        is compared is all numbers in a row that say 64 bits with those up to the end of each
        earlier batch. What was collected before so many came again stays.

        Raises:
            SourceError: ``stale``: so many came before in this order; then this answer is not
                remembered, but the next one may go on where it ended.
        """
        low, high = outcomes[0].batch.min, outcomes[0].batch.max
        n = count_telling(low, high)
        if n is None:
            return
        width = width_of(low, high)
        size = n * width
        end = len(self._tail)
        flat = self._tail + b"".join(outcome.numbers or b"" for outcome in outcomes)
        self._tail = flat[-size:]
        known, new = self._origins, dict[bytes, int]()
        for outcome in outcomes:
            batch = outcome.batch
            begin, end = end, end + batch.n * width
            ends = range(max(begin + width, size), end + 1, width)
            stretches = [flat[at - size : at] for at in ends]
            if outcome.digest and batch.n >= n:
                stretches.append(outcome.digest[:CHECK_BYTES])
            for before in (known, new):
                if not before.keys().isdisjoint(stretches):
                    origin = next(before[each] for each in stretches if each in before)
                    raise SourceError(ErrorName.STALE, _seen_before(n, origin))
            if end >= size:
                new[flat[end - size : end]] = self.run_id << _NUMBER_BITS | batch.number
        known.update(new)
        while len(known) > MOST_KNOWN:
            known.popitem(last=False)


def check_age(proof: Proof, began_at: datetime) -> None:
    """Refuse a public value that was not made lately: a relay that stands still serves such.

    Raises:
        SourceError: ``stale``.
    """
    if proof.is_expanded and began_at - proof.made_at > OLDEST_PULSE:
        made = f"{proof.made_at:%Y-%m-%dT%H:%M:%SZ}"
        what = f"round {proof.serial} was made at {made} {CLOCK_DOUBT}"
        raise SourceError(ErrorName.STALE, what)


def _seen_before(n: int, origin: int) -> str:
    run_id, number = divmod(origin, 1 << _NUMBER_BITS)
    return f"the same {n} numbers in a row came before, up to run {run_id} w{number}"
