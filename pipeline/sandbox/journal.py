"""What was asked of a sandbox: a bounded list of requests, and a count of broken rules."""

from collections import Counter, deque
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

MAX_ENTRIES = 10_000
MAX_TARGET = 500  # characters of a target that are kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One request, noted when its answer was decided and before it was sent.

    Attributes:
        seconds: monotonic time of arrival, for gaps between requests.
        utc: wall time of arrival.
        kind: the upstream.
        target: as it stood in the request line, cut.
        port: the client's, which tells connections apart.
        status: None if a script was played in place of an answer.
        violations: the rules that the request broke.
    """

    seconds: float
    utc: datetime
    kind: str
    method: str
    target: str
    port: int
    status: int | None
    violations: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Give the plain values that JSON knows."""
        return asdict(self) | {"utc": self.utc.isoformat()}


class Journal:
    """The newest requests and all violations since the start."""

    def __init__(self) -> None:
        self.entries: deque[Entry] = deque(maxlen=MAX_ENTRIES)
        self.violations: Counter[tuple[str, str]] = Counter()

    def note(self, entry: Entry) -> None:
        """Append *entry* and count what it broke."""
        self.entries.append(entry)
        for rule in entry.violations:
            self.violations[entry.kind, rule] += 1

    def count_violations(self) -> dict[str, Any]:
        """Give the total and the counts by kind and rule."""
        by_kind: dict[str, dict[str, int]] = {}
        for (kind, rule), count in sorted(self.violations.items()):
            by_kind.setdefault(kind, {})[rule] = count
        return {"total": self.violations.total(), "by_kind": by_kind}
