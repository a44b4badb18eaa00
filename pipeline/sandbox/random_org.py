"""An imitation of random.org's HTTP interface: an allowance of bits, one request in flight.

Wire facts: www.random.org/clients/http and the error texts in its clients. The bits charged
follow from a client's measurement: a draw takes whole bits and the rejected draws are paid for.
Recorded nowhere and therefore ours: the wording for a wrong ``num``, ``base`` or order, what
a banned client sees, and when the ban falls. Only ``rnd=new`` is imitated.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.sandbox.entropy import draw_integers
from pipeline.sandbox.exchange import (
    HTML,
    TEXT,
    Request,
    Response,
    Upstream,
    answer_numbers,
    answer_text,
    parse_integer,
    remember,
)
from pipeline.sandbox.options import SandboxOptions

MAX_NUMBERS = 10_000
LIMIT = 1_000_000_000  # of min and max, on both sides of 0
MAX_BITS = 1_000_000
BITS_PER_DAY = 200_000
OFFENCES_FORGIVEN = 2  # requests beside another one; the next brings the ban
DIGITS = {"2": "b", "8": "o", "10": "d", "16": "x"}
OVERDRAWN = "You have used your quota of random bits for today.  See the quota page for details."
PAGE = """\
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN" \
"http://www.w3.org/TR/xhtml1/DTD/xhtml1-strict.dtd">
<html xmlns="http://www.w3.org/1999/xhtml">
<head><title>RANDOM.ORG - Integer Generator</title></head>
<body>
<pre class="data">
{rows}</pre>
</body>
</html>
"""


@dataclass(frozen=True, slots=True)
class _Order:
    num: int
    low: int
    high: int
    columns: int
    base: str
    is_plain: bool


class _Complaint(Exception):
    """What follows ``Error:`` in the answer."""


def charged_bits(count: int, low: int, high: int) -> int:
    """Count the bits that a request costs, rejected draws included."""
    span = high - low + 1
    bits = (span - 1).bit_length()
    return -(-count * bits * (1 << bits) // span)


def _bounded(request: Request, name: str, label: str, low: int, high: int) -> int:
    value = parse_integer(request.param(name))
    if value is None or not low <= value <= high:
        raise _Complaint(f"The {label} must be an integer in the [{low},{high}] interval")
    return value


def _parse_order(request: Request) -> _Order:
    order = _Order(
        num=_bounded(request, "num", "number of integers", 1, MAX_NUMBERS),
        low=_bounded(request, "min", "minimum value", -LIMIT, LIMIT),
        high=_bounded(request, "max", "maximum value", -LIMIT, LIMIT),
        columns=_bounded(request, "col", "number of columns", 1, LIMIT),
        base=request.param("base") or "10",
        is_plain=request.param("format") == "plain",
    )
    if order.low >= order.high:
        raise _Complaint("The maximum value must be greater than the minimum value")
    if order.base not in DIGITS:
        raise _Complaint("The base must be 2, 8, 10 or 16")
    if request.param("rnd") != "new":
        raise _Complaint("Only rnd=new is imitated here")
    return order


def _serve(order: _Order) -> Response:
    def write(tokens: Sequence[str]) -> str:
        starts = range(0, len(tokens), order.columns)
        rows = "".join("\t".join(tokens[at : at + order.columns]) + "\n" for at in starts)
        return rows if order.is_plain else PAGE.format(rows=rows)

    values = draw_integers(order.num, order.low, order.high)
    tokens = [f"{value:{DIGITS[order.base]}}" for value in values]
    return answer_numbers(tokens, order.high, write, TEXT if order.is_plain else HTML)


def _error(reason: str) -> Response:
    return answer_text(f"Error: {reason}\n", 503)


class RandomOrg(Upstream):
    """Keeps a ledger of bits per client, and counts what the guidelines forbid."""

    example = "/integers/?num=10&min=1&max=6&col=1&base=10&format=plain&rnd=new"

    def __init__(self, options: SandboxOptions) -> None:
        super().__init__(options)
        self._offences: dict[str, int] = {}

    def answer(self, request: Request, /) -> Response:
        """Serve ``/integers/`` and ``/quota/`` to a client that is not banned."""
        violations = self._violations(request) if self.options.rules else ()
        if self._offences.get(request.client, 0) > OFFENCES_FORGIVEN:
            return replace(answer_text("Forbidden\n", 403), violations=(*violations, "banned"))
        match request.path:
            case "/integers/":
                response = self._integers(request)
            case "/quota/":
                response = answer_text(f"{self._bits_left(request)}\n")
            case _:
                response = answer_text("<h1>Not Found</h1>\n", 404, HTML)
        return replace(response, violations=(*violations, *response.violations))

    def _violations(self, request: Request) -> tuple[str, ...]:
        violations = []
        if request.in_flight:
            violations.append("in_flight")
            offences = self._offences.get(request.client, 0) + 1
            remember(self._offences, request.client, offences)
        if "@" not in request.headers.get("user-agent", ""):
            violations.append("user_agent")
        return tuple(violations)

    def _integers(self, request: Request) -> Response:
        try:
            order = _parse_order(request)
        except _Complaint as complaint:
            return _error(str(complaint))
        bits_left = self._bits_left(request)
        if self.options.rules and bits_left < 0:
            return replace(self.refuse(request), violations=("quota",))
        bits_left -= charged_bits(order.num, order.low, order.high)
        remember(self.memory, request.client, (request.utc.date(), bits_left))
        return _serve(order)

    def _bits_left(self, request: Request) -> int:
        """Give the client's allowance, topped up for each midnight (UTC) that has passed."""
        today = request.utc.date()
        since, bits = self.memory.get(request.client, (today, MAX_BITS))
        topped_up: int = bits + BITS_PER_DAY * (today - since).days
        return min(MAX_BITS, topped_up)

    def refuse(self, _request: Request, /) -> Response:
        """Refuse because the allowance of bits is used up."""
        return _error(OVERDRAWN)
