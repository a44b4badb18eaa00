"""Re-check stored answers with the current adapters, and write what they would make of them.

An adapter does no I/O, so what it says now of an old answer is what it would have said then.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import httpx2 as httpx

from pipeline.errors import ErrorName, SourceError
from pipeline.models import Evidence, Fetch, StoredAnswer
from pipeline.rendering.document import Document, Part, Text
from pipeline.rendering.output import json_lines, write
from pipeline.rendering.records import picks
from pipeline.rendering.render import render
from pipeline.rendering.shapes import Format, Shape
from pipeline.rendering.tabulating import tabulate
from pipeline.rendering.words import count_of
from pipeline.sanitize import REDACTED, one_line
from pipeline.scope import A_WEEK, check_source, make_window, reading, show_window, window_json
from pipeline.settings import Settings, SourceSettings
from pipeline.sources.base import Answer, Proving, Source
from pipeline.sources.registry import KINDS, make_source
from pipeline.store.evidence import stored_answers
from pipeline.store.window import Window

# Nothing is sent, so any value of the right form will do.
_PLACEHOLDER = "placeholder"
_PLACEHOLDER_EMAIL = "placeholder@example.org"

GROUP = (
    "source change then now not_judged=hindrance answers attempts redacted last_attempt_id=newest"
    " detail"
)
CHANGED = "source change then now answers attempts last_attempt_id=newest detail"


class Change(StrEnum):
    """How the result of the current adapter differs from that of then."""

    ACCEPTED_NOW = "accepted_now"
    REFUSED_NOW = "refused_now"
    FAILED_DIFFERENTLY = "failed_differently"
    UNCHANGED = "unchanged"


class Hindrance(StrEnum):
    """Why an answer cannot be re-checked."""

    NOT_CONFIGURED = "not_configured"
    CUT = "cut"
    PRUNED = "pruned"
    COMPARED = "compared"


WHY_NOT = {
    Hindrance.NOT_CONFIGURED: "its source is not configured",
    Hindrance.CUT: "its body was not kept whole",
    Hindrance.PRUNED: "the batches that it was for are gone",
    Hindrance.COMPARED: "it was compared with earlier answers",
}


@dataclass(slots=True)
class Group:
    """Answers of one source that got the same result, then and now.

    Attributes:
        then: the error, None: accepted; ``now`` the same, of the current adapter.
        hindrance: why they were not re-checked; ``now`` says nothing then.
        answers: how many different ones, ``attempts`` how many attempts got them.
        redacted: how many hold ``[REDACTED]``: what is missing there may be the change.
        newest: the id of the last attempt, ``detail`` what is said of its answer now.
    """

    source: str
    then: ErrorName | None
    now: ErrorName | None
    hindrance: Hindrance | None
    answers: int = 0
    attempts: int = 0
    redacted: int = 0
    newest: int = 0
    detail: str | None = None

    def add(self, answer: StoredAnswer, detail: str | None) -> None:
        """Count one more answer."""
        self.answers += 1
        self.attempts += answer.attempts
        self.redacted += _is_redacted(answer.evidence)
        if answer.newest > self.newest:
            self.newest, self.detail = answer.newest, detail

    @property
    def change(self) -> Change | None:
        """Say whether anything is different now; None if that is not known."""
        if self.hindrance is not None:
            return None
        if self.now == self.then:
            return Change.UNCHANGED
        if self.now is None:
            return Change.ACCEPTED_NOW
        return Change.REFUSED_NOW if self.then is None else Change.FAILED_DIFFERENTLY

    @property
    def is_changed(self) -> bool:
        """Tell whether anything is different now."""
        return self.change not in {None, Change.UNCHANGED}


def _is_redacted(evidence: Evidence) -> bool:
    values = (value.encode() for _, value in evidence.headers)
    return any(REDACTED in text for text in (evidence.body, *values))


def judge(answers: Iterable[StoredAnswer], sources: Mapping[str, SourceSettings]) -> list[Group]:
    """Judge *answers* again, each by the adapter that *sources* names; group what comes of it.

    Groups with a change come first, then those that could not be re-checked; within, by source.
    There are no more of them than the vocabulary allows, however many answers.

    Raises:
        ConfigError: a source's URL is none.
    """
    adapters = {name: _adapter(source) for name, source in sources.items()}
    groups: dict[tuple[object, ...], Group] = {}
    for answer in answers:
        adapter, error, detail = adapters.get(answer.source), None, None
        hindrance = _hindrance(answer, adapter)
        if adapter is not None and answer.fetch is not None and hindrance is None:
            types = frozenset(sources[answer.source].accept_content_type)
            error, detail = _judge(answer.fetch, answer.evidence, adapter, types)
        group = Group(answer.source, answer.error, error, hindrance)
        key = (group.source, group.then, group.now, group.hindrance)
        groups.setdefault(key, group).add(answer, detail)
    return sorted(groups.values(), key=_rank)


def _rank(group: Group) -> tuple[int, bool, str, str]:
    rank = list(Change).index(group.change or Change.UNCHANGED)
    return rank, group.hindrance is None, group.source, group.then or ""


def _adapter(settings: SourceSettings) -> Source:
    kind = KINDS[settings.upstream]
    return make_source(
        settings.upstream,
        url=settings.url,
        api_key=_PLACEHOLDER if kind.needs_key or kind.is_api else None,
        email=_PLACEHOLDER_EMAIL if kind.needs_email else None,
        format=settings.format,
        api=settings.api,
        is_sandbox=settings.is_sandbox,
        proof_key_file=settings.proof_key_file,
    )


def _judge(
    fetch: Fetch, evidence: Evidence, adapter: Source, accepted_types: frozenset[str]
) -> tuple[ErrorName | None, str | None]:
    """Give the error that *adapter* finds in an answer to *fetch*, and what it says of it."""
    headers = httpx.Headers(list(evidence.headers), encoding="utf-8")
    try:
        answer = Answer(
            status=evidence.status,
            headers=headers,
            body=evidence.body,
            asked=adapter.build_request(fetch).url,
            accepted_types=accepted_types,
        )
        adapter.parse_answer(fetch, answer)
        if isinstance(adapter, Proving):
            adapter.find_proof(answer)
    except SourceError as exc:
        return exc.error, one_line(exc.detail)
    except Exception as exc:  # noqa: BLE001 - as when collecting, a bug of one adapter is a result
        return ErrorName.INTERNAL, type(exc).__name__
    return None, None


def _hindrance(stored: StoredAnswer, adapter: Source | None) -> Hindrance | None:
    if adapter is None:
        return Hindrance.NOT_CONFIGURED
    # If a secret was replaced, the length tells nothing: then it is taken to be whole.
    body = stored.evidence.body
    if len(body) < stored.evidence.body_bytes and REDACTED not in body:
        return Hindrance.CUT
    if stored.fetch is None:
        return Hindrance.PRUNED
    return Hindrance.COMPARED if stored.error is ErrorName.STALE else None


def replay(
    settings: Settings,
    *,
    since: datetime | None,
    until: datetime | None,
    source: str | None,
    format_: Format,
) -> bool:
    """Write what the current adapters make of stored answers; tell whether anything changed."""
    window = make_window(since, until, looks_back=A_WEEK)
    with reading(settings.store) as session:
        check_source(settings, session, source)
        answers = stored_answers(session, window, source=source)
        groups = judge(answers, settings.sources)
    if format_ is Format.JSON:
        head = {"schema": "pipeline.replay/1", **window_json(window)}
        lines = json_lines(head, groups=picks(groups, GROUP))
    else:
        lines = render(_document(groups, window), Shape.TEXT)
    write("\n".join(lines))
    return any(group.is_changed for group in groups)


def _document(groups: Sequence[Group], window: Window) -> Document:
    parts: list[Part] = []
    if changed := [group for group in groups if group.is_changed]:
        accepted = {"then": "accepted", "now": "accepted"}
        parts.append(tabulate(Group, changed, CHANGED, nothing=accepted))
    lines = list(_lines(groups)) if groups else [f"{show_window(window)}: no answer was kept."]
    return Document(title="Replay", parts=[*parts, Text(lines=lines)])


def _lines(groups: Sequence[Group]) -> Iterator[str]:
    judged: Counter[Change] = Counter()
    not_judged: Counter[tuple[str, Hindrance]] = Counter()
    attempts = redacted = 0
    for group in groups:
        if group.change is not None:
            judged[group.change] += group.answers
            attempts += group.attempts
            redacted += group.redacted
        elif group.hindrance is not None:
            not_judged[group.source, group.hindrance] += group.answers
    counts = ", ".join(f"{judged[change]} {change.replace('_', ' ')}" for change in Change)
    answers = count_of(judged.total(), "answer")
    yield f"Re-checked {answers} to {count_of(attempts, 'attempt')}: {counts}."
    for (source, hindrance), n in not_judged.items():
        yield f"Not re-checked: {count_of(n, 'answer')} of {source}: {WHY_NOT[hindrance]}."
    if redacted:
        yield f"A secret was taken out of {redacted} of them; that may be the change."
