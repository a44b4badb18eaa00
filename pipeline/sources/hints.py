"""What an answer says about when to ask again, as far as upstreams say it alike.

Read are ``Retry-After`` (RFC 9110, 10.2.3) and what servers send of the rate limit fields: the
current ``RateLimit`` and ``RateLimit-Policy`` (draft-ietf-httpapi-ratelimit-headers-11), the
dictionary of its revision 07, the ``RateLimit-Remaining`` and ``-Reset`` of the revisions up to
06, and their ``X-`` forerunners, which nobody specified. Malformed fields are ignored, as the draft
demands. It would let ``Retry-After`` overrule the others; here the longest wait wins, so that
nobody's is undercut.
"""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta

from pipeline.pacing import Period, period_end
from pipeline.sources.answers import parse_http_date, retry_after_seconds
from pipeline.sources.base import Answer, Hint

# The part of RFC 9651 that lists of named limits need: a String or Token each, with Parameters.
# Possessive (`*+`), so that a field of any size is turned down in one pass.
_STRING = r'"(?:[ !#-\[\]-~]|\\["\\])*+"'
_WORD = r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*+"
_VALUE = rf"(?:{_STRING}|{_WORD}|-?[0-9]{{1,15}}(?:\.[0-9]{{1,3}})?|:[A-Za-z0-9+/=]*+:|\?[01])"
_PARAMETER = re.compile(rf"; *+([a-z*][a-z0-9_.*-]*+)(?:=({_VALUE}))?+")
_ITEM = re.compile(rf"({_STRING}|{_WORD})((?:{_PARAMETER.pattern})*+)")
_COMMA = re.compile(r"[ \t]*+,[ \t]*+")
_ENTRY = re.compile(r"[ \t]*+([a-z]+)=([0-9]+)[ \t]*+")

_COUNT = re.compile("[0-9]{1,15}")
_UNIX_SECONDS = 10**9  # as a delay it would be 31 years, as a time it was in 2001
_UNIX_MILLISECONDS = 10**11  # in seconds it would be the year 5138, in milliseconds it was in 1973

_TRUSTED_DRIFT = timedelta(days=1)
_AFTER_RENEWAL = timedelta(minutes=5)


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


def read_headers(answer: Answer, now: datetime) -> Hint | None:
    """Read the header fields that no upstream owns, whatever the status.

    Dates count from the answer's ``Date``, unless that is more than a day away from *now*.
    """
    fields = dict(answer.headers.items())
    clock = _read_clock(fields, now)
    fields_of_it = answer.headers.get_list("retry-after")
    asked = max(
        (each for field in fields_of_it if (each := retry_after_seconds(field, clock)) is not None),
        default=None,
    )
    return longest_hint(
        None if asked is None else Hint(wait_seconds=asked, why=f"Retry-After: {asked:.15g}"),
        *(_hint_of_limit(*limit, clock=clock) for limit in _read_limits(fields)),
    )


def _read_clock(fields: dict[str, str], now: datetime) -> datetime:
    sent_at = parse_http_date(fields.get("date", ""), now)
    return sent_at if sent_at and abs(sent_at - now) <= _TRUSTED_DRIFT else now


def _hint_of_limit(field: str, remaining: str, reset: str, *, clock: datetime) -> Hint | None:
    if not _COUNT.fullmatch(remaining) or int(remaining) or not _COUNT.fullmatch(reset):
        return None
    seconds = _seconds_until(int(reset), clock)
    return Hint(wait_seconds=seconds, why=f"{field}: nothing left for {seconds:.0f} s")


def _seconds_until(reset: int, clock: datetime) -> float:
    """Tell a delay from a Unix time by its size: the draft wants delays, many send times."""
    if reset < _UNIX_SECONDS:
        return float(reset)
    unix_time = reset / 1000 if reset >= _UNIX_MILLISECONDS else reset
    return max(0.0, unix_time - clock.timestamp())


def _read_limits(fields: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """Give the field of each limit, what remains of it and when it is reset, all as sent."""
    for field in ("RateLimit", "X-RateLimit"):
        key = field.lower()
        yield field, fields.get(f"{key}-remaining", ""), fields.get(f"{key}-reset", "")
    if "ratelimit" in fields:
        text = fields["ratelimit"]
        entries = _parse_dictionary(text)
        yield "RateLimit", entries.get("remaining", ""), entries.get("reset", "")
        policies = dict(_parse_list(fields.get("ratelimit-policy", "")))
        for name, limit in _parse_list(text):
            # Where the end of the window is not told, it may take the whole window.
            window = policies.get(name, {}).get("w", "")
            yield "RateLimit", limit.get("r", ""), limit.get("t", window)


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
