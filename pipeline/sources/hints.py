"""What an answer says about when to ask again, as far as upstreams say it alike.

Read are ``Retry-After`` (RFC 9110, 10.2.3) and what servers send of the rate limit fields: the
current ``RateLimit`` and ``RateLimit-Policy`` (draft-ietf-httpapi-ratelimit-headers-11), the
dictionary of its revision 07, the ``RateLimit-Remaining`` and ``-Reset`` of the revisions up to
06, and all that is spelled like them (``X-Rate-Limit-Reset-After``, ``x-ratelimit-reset-tokens``),
which nobody specified. The draft would let ``Retry-After`` overrule the others; here the longest
wait wins, so that nobody's is undercut. Who refuses and says nothing that can be read is given a
pause of our own.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from http import HTTPStatus

from pipeline.pacing import OUR_PAUSE, Period, period_end
from pipeline.sources.base import Answer, Hint
from pipeline.sources.waits import parse_date, read_wait

# The part of RFC 9651 that lists of named limits need: a String or Token each, with Parameters.
# Possessive (`*+`), so that a field of any size is turned down in one pass.
_STRING = r'"(?:[ !#-\[\]-~]|\\["\\])*+"'
_WORD = r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*+"
_VALUE = rf"(?:{_STRING}|{_WORD}|-?[0-9]{{1,15}}(?:\.[0-9]{{1,3}})?|:[A-Za-z0-9+/=]*+:|\?[01])"
_PARAMETER = re.compile(rf"; *+([a-z*][a-z0-9_.*-]*+)(?:=({_VALUE}))?+")
_ITEM = re.compile(rf"({_STRING}|{_WORD})((?:{_PARAMETER.pattern})*+)")
_COMMA = re.compile(r"[ \t]*+,[ \t]*+")
_ENTRY = re.compile(r"[ \t]*+([a-z]+)=([0-9.]+)[ \t]*+")

_AMOUNT = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,3})?")
_LONGEST_NAME = 60  # characters of a field's name that is looked at
_NO_SCOPE = {"remaining", "reset", "resets", "after", "at", "in", "time", "ms"}

_BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_LEAST_SECONDS = 2.0  # before one of these is asked again, whatever it says
_PAUSE_SECONDS = 60.0  # the first of our own; a server that is merely busy may be back sooner
_BUSY_PAUSE_SECONDS = 2.0

_TRUSTED_DRIFT = timedelta(days=1)
_AFTER_RENEWAL = timedelta(minutes=5)


def _says_when(answer: Answer) -> bool:
    """Tell whether a header may be about it; most answers have none, and are many."""
    names = b" ".join([name for name, _ in answer.headers.raw]).lower()
    return b"limit" in names or b"retry-after" in names


def longest_hint(*hints: Hint | None) -> Hint | None:
    """Choose the hint that asks for the longest wait; one that asks for none is no hint."""
    waits = [hint for hint in hints if hint is not None and hint.wait_seconds > 0]
    return max(waits, key=lambda hint: hint.wait_seconds, default=None)


def hint_of_renewal(now: datetime, period: Period, why: str) -> Hint:
    """Wait for the allowance of the next day or month in UTC, and five minutes more.

    random.org renews "soon after 00:00 UTC", and clocks differ: whoever asks on the hour by a
    clock that is ahead is refused once more, and would lose the whole next period as well.
    """
    renewed_at = period_end(now - _AFTER_RENEWAL, period) + _AFTER_RENEWAL
    return Hint(wait_seconds=(renewed_at - now).total_seconds(), why=why)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limit:
    """What one limit says of itself, as sent; empty where it does not."""

    field: str
    remaining: str
    wait_seconds: float | None

    @property
    def is_spent(self) -> bool | None:
        """Tell whether nothing is left; None if nobody can tell: -1 is unlimited to some."""
        amounts = [amount.strip() for amount in self.remaining.split(",")]
        if not all(map(_AMOUNT.fullmatch, amounts)):
            return None
        return not all(map(float, amounts))

    def hint(self) -> Hint | None:
        """Ask for a wait until it is reset."""
        if self.wait_seconds is None:
            return None
        why = f"{self.field}: nothing left for {self.wait_seconds:.0f} s"
        return Hint(wait_seconds=self.wait_seconds, why=why)


def read_headers(answer: Answer, now: datetime) -> Hint | None:
    """Read the header fields that no upstream owns, whatever the status.

    Dates count from the answer's ``Date``, unless that is more than a day away from *now*. A
    refusal tells by its status that a limit is spent: then its reset counts without a remainder.
    """
    if not _says_when(answer):
        return None
    fields = dict(answer.headers.items())
    clock = _read_clock(fields, now)
    asked = max((wait for wait in _read_retry_after(fields, clock) if wait is not None), default=0)
    limits = list(_read_limits(fields, clock))
    hint = longest_hint(*(limit.hint() for limit in limits if limit.is_spent))
    if hint is None and answer.status == HTTPStatus.TOO_MANY_REQUESTS:
        hint = longest_hint(*(limit.hint() for limit in limits if limit.is_spent is None))
    hint = longest_hint(Hint(wait_seconds=asked, why=f"Retry-After: {asked:.15g}"), hint)
    if hint is None or answer.status not in _BUSY:
        return hint
    return replace(hint, wait_seconds=max(hint.wait_seconds, _LEAST_SECONDS))


def pause_of_our_own(answer: Answer, now: datetime) -> Hint | None:
    """Ask for a first pause after a refusal that has no word of when to come back, else None.

    A word that nobody can read is a reason to wait with any failure; 0 is none where the status
    says that it is too much already.
    """
    if answer.status < HTTPStatus.BAD_REQUEST:
        return None
    waits = _read_retry_after(dict(answer.headers.items()), now)
    if None in waits or answer.status == HTTPStatus.TOO_MANY_REQUESTS:
        return Hint(wait_seconds=_PAUSE_SECONDS, why=OUR_PAUSE, is_ours=True)
    if answer.status == HTTPStatus.SERVICE_UNAVAILABLE:
        return Hint(wait_seconds=_BUSY_PAUSE_SECONDS, why=OUR_PAUSE, is_ours=True)
    return None


def _read_clock(fields: Mapping[str, str], now: datetime) -> datetime:
    sent_at = parse_date(fields.get("date", ""), now)
    return sent_at if sent_at and abs(sent_at - now) <= _TRUSTED_DRIFT else now


def _unit_seconds(words: list[str]) -> float:
    return 0.001 if "ms" in words else 1.0


def _read_retry_after(fields: Mapping[str, str], clock: datetime) -> Iterator[float | None]:
    """Read each field that is spelled like it: ``Retry-After-Ms``, ``X-Retry-After``."""
    for name, value in fields.items():
        if "retry-after" in name and len(name) <= _LONGEST_NAME:
            after = name.partition("retry-after")[2].split("-")
            yield read_wait(value, clock, unit_seconds=_unit_seconds(after))


def _read_limits(fields: Mapping[str, str], clock: datetime) -> Iterator[_Limit]:
    """Give what each limit says of itself."""
    yield from _read_pairs(fields, clock)
    if "ratelimit" in fields:
        text = fields["ratelimit"]
        entries = _parse_dictionary(text)
        yield _limit("RateLimit", entries.get("remaining", ""), entries.get("reset", ""), clock)
        policies = dict(_parse_list(fields.get("ratelimit-policy", "")))
        for name, limit in _parse_list(text):
            # Where the end of the window is not told, it may take the whole window.
            window = policies.get(name, {}).get("w", "")
            yield _limit("RateLimit", limit.get("r", ""), limit.get("t", window), clock)


def _limit(field: str, remaining: str, reset: str, clock: datetime) -> _Limit:
    return _Limit(field=field, remaining=remaining, wait_seconds=read_wait(reset, clock))


def _read_pairs(fields: Mapping[str, str], clock: datetime) -> Iterator[_Limit]:
    """Put a limit's remainder and its resets together: by the words that their names share."""
    remaining: dict[frozenset[str], str] = {}
    waits: defaultdict[frozenset[str], list[float]] = defaultdict(list)
    for name, value in fields.items():
        if "limit" not in name or len(name) > _LONGEST_NAME:
            continue
        words = name.replace("rate-limit", "ratelimit").split("-")
        limit = frozenset(words) - _NO_SCOPE
        if "ratelimit" not in limit:
            continue
        if "remaining" in words:
            remaining[limit] = value
        elif not _NO_SCOPE.isdisjoint(words):
            said = words[words.index("ratelimit") :]  # Azure's fields all begin with x-ms-
            wait = read_wait(value, clock, unit_seconds=_unit_seconds(said))
            waits[limit] += [] if wait is None else [wait]
    for limit, of in waits.items():
        yield _Limit(
            field="X-RateLimit" if "x" in limit else "RateLimit",
            remaining=remaining.get(limit, ""),
            wait_seconds=max(of, default=None),
        )


def _parse_list(text: str) -> list[tuple[str, dict[str, str]]]:
    """Read a List of Items (RFC 9651, 4.2.1): name and parameters of each; none if malformed."""
    items: list[tuple[str, dict[str, str]]] = []
    position = 0
    while item := _ITEM.match(text, position):
        items.append((item[1], dict(_PARAMETER.findall(item[2]))))
        if item.end() == len(text):
            return items
        comma = _COMMA.match(text, item.end())
        if comma is None:
            break
        position = comma.end()
    return []


def _parse_dictionary(text: str) -> dict[str, str]:
    """Read a Dictionary (RFC 9651, 4.2.2) of plain numbers; empty if it is anything else."""
    entries = [_ENTRY.fullmatch(entry) for entry in text.split(",")]
    return {entry[1]: entry[2] for entry in entries if entry} if all(entries) else {}
