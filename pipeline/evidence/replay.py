"""Answers that were kept, judged again by the adapters of today.

An adapter does no I/O, so what it says now of an old answer is what it would have said then.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import httpx2 as httpx

from pipeline.errors import ErrorName, SourceError
from pipeline.models import Evidence, StoredAnswer
from pipeline.sanitize import REDACTED, one_line
from pipeline.settings import SourceSettings
from pipeline.sources.base import Answer, Source
from pipeline.sources.registry import KINDS, make_source

# Nothing is sent, so whatever has the right form will do.
_PLACEHOLDER = "placeholder"
_PLACEHOLDER_EMAIL = "placeholder@example.org"


class Change(StrEnum):
    """What today's adapter makes of an answer, against what was made of it then."""

    ACCEPTED_NOW = "accepted now"
    REFUSED_NOW = "refused now"
    OTHER_ERROR = "other error"
    NONE = "no change"


class Hindrance(StrEnum):
    """Why an answer cannot be judged again."""

    NOT_CONFIGURED = "its source is not configured"
    CUT = "its body was not kept whole"
    PRUNED = "the batches that it was for are gone"
    COMPARED = "it was compared with earlier answers"


@dataclass(slots=True, kw_only=True)
class Group:
    """Answers of one source that were judged alike, then and now.

    Attributes:
        then: the error, None: accepted; ``now`` the same, of today's adapter.
        hindrance: why they were not judged; ``now`` says nothing then.
        answers: how many different ones, ``attempts`` how many attempts got them.
        redacted: how many hold ``[REDACTED]``: what is missing there may be the change.
        newest: the id of the last attempt, ``detail`` what is said of its answer now.
    """

    source: str
    then: ErrorName | None
    now: ErrorName | None = None
    hindrance: Hindrance | None = None
    answers: int = 0
    attempts: int = 0
    redacted: int = 0
    newest: int = 0
    detail: str | None = None

    @property
    def change(self) -> Change:
        """Say whether anything is different now."""
        if self.hindrance is not None or self.now == self.then:
            return Change.NONE
        if self.now is None:
            return Change.ACCEPTED_NOW
        return Change.REFUSED_NOW if self.then is None else Change.OTHER_ERROR


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judgement:
    error: ErrorName | None = None
    detail: str | None = None
    hindrance: Hindrance | None = None


@dataclass(slots=True)
class _Groups:
    """The groups so far; there are no more than the vocabulary allows, however many answers."""

    by_key: dict[tuple[object, ...], Group] = field(default_factory=dict)

    def add(self, answer: StoredAnswer, judgement: _Judgement) -> None:
        key = (answer.source, answer.error, judgement.error, judgement.hindrance)
        if key not in self.by_key:
            self.by_key[key] = Group(
                source=answer.source,
                then=answer.error,
                now=judgement.error,
                hindrance=judgement.hindrance,
            )
        group = self.by_key[key]
        group.answers += 1
        group.attempts += answer.attempts
        group.redacted += _is_redacted(answer.evidence)
        if answer.newest > group.newest:
            group.newest, group.detail = answer.newest, judgement.detail


def _is_redacted(evidence: Evidence) -> bool:
    values = (value.encode() for _, value in evidence.headers)
    return any(REDACTED in text for text in (evidence.body, *values))


def replay(answers: Iterable[StoredAnswer], sources: Mapping[str, SourceSettings]) -> list[Group]:
    """Judge *answers* again, each by the adapter that *sources* names; group what comes of it.

    Groups with a change come first, then those that could not be judged; within, by source.

    Raises:
        ConfigError: a source's URL is none.
    """
    adapters = {name: _adapter(source) for name, source in sources.items()}
    groups = _Groups()
    for answer in answers:
        groups.add(answer, _judge(answer, adapters.get(answer.source)))
    return sorted(groups.by_key.values(), key=_rank)


def _rank(group: Group) -> tuple[int, bool, str, str]:
    changes = list(Change)
    is_judged = group.hindrance is None
    return changes.index(group.change), is_judged, group.source, group.then or ""


def _adapter(settings: SourceSettings) -> Source:
    kind = KINDS[settings.upstream]
    return make_source(
        settings.upstream,
        url=settings.url,
        api_key=_PLACEHOLDER if kind.needs_key else None,
        email=_PLACEHOLDER_EMAIL if kind.needs_email else None,
        format=settings.format,
    )


def _judge(stored: StoredAnswer, adapter: Source | None) -> _Judgement:
    hindrance = _hindrance(stored, adapter)
    if hindrance is not None or adapter is None or stored.fetch is None:
        return _Judgement(hindrance=hindrance)
    answer = Answer(
        status=stored.evidence.status,
        headers=httpx.Headers(list(stored.evidence.headers), encoding="utf-8"),
        body=stored.evidence.body,
    )
    try:
        adapter.parse_answer(stored.fetch, answer)
    except SourceError as exc:
        return _Judgement(error=exc.error, detail=one_line(exc.detail))
    except Exception as exc:  # noqa: BLE001 - as when collecting, a bug of one adapter is a result
        return _Judgement(error=ErrorName.INTERNAL, detail=type(exc).__name__)
    return _Judgement()


def _hindrance(stored: StoredAnswer, adapter: Source | None) -> Hindrance | None:
    if adapter is None:
        return Hindrance.NOT_CONFIGURED
    if _is_cut(stored.evidence):
        return Hindrance.CUT
    if stored.fetch is None:
        return Hindrance.PRUNED
    return Hindrance.COMPARED if stored.error is ErrorName.STALE else None


def _is_cut(evidence: Evidence) -> bool:
    # A secret that was replaced changed the length; then the benefit of the doubt is worth more.
    return len(evidence.body) < evidence.body_bytes and REDACTED not in evidence.body
