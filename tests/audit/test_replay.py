"""Old answers and today's adapters."""

import pytest

from pipeline.audit.replay import Change, Group, Hindrance, judge
from pipeline.errors import ErrorName
from pipeline.models import Batch, Evidence, Fetch, StoredAnswer
from pipeline.settings import SourceSettings
from pipeline.settings.tables import KINDS

SOURCES = {"dice": SourceSettings(kind="randomnumberapi", batches=[3])}


def answer(
    body: bytes = b"[1, 2, 3]",
    *,
    then: ErrorName | None = None,
    source: str = "dice",
    status: int = 200,
    content_type: str = "application/json",
    body_bytes: int | None = None,
    attempts: int = 1,
    newest: int = 1,
    n: int = 3,
) -> StoredAnswer:
    """Keep an answer that came for three rolls of a die."""
    return StoredAnswer(
        source=source,
        error=then,
        attempts=attempts,
        newest=newest,
        evidence=Evidence(
            status=status,
            headers=(("Content-Type", content_type), ("X-Name", "Straße")),
            body=body,
            body_bytes=len(body) if body_bytes is None else body_bytes,
        ),
        fetch=Fetch(number=0, batches=(Batch(number=0, source=source, n=n, min=1, max=6),)),
    )


def replay_one(stored: StoredAnswer) -> Group:
    """Judge a single answer."""
    (group,) = judge([stored], SOURCES)
    return group


def test_a_mended_adapter_is_seen() -> None:
    """What was refused by mistake would be accepted now."""
    group = replay_one(answer(then=ErrorName.SCHEMA))

    assert (group.change, group.then, group.now) == (Change.ACCEPTED_NOW, ErrorName.SCHEMA, None)
    assert group.detail is None


def test_a_stricter_adapter_is_seen() -> None:
    """What was accepted would be refused now, and why."""
    group = replay_one(answer(b"[1, 2, 7]"))

    assert (group.change, group.then, group.now) == (Change.REFUSED_NOW, None, ErrorName.RANGE)
    assert group.detail is not None


def test_another_name_for_the_failure_is_seen() -> None:
    """Reports would count it under another cause."""
    group = replay_one(answer(b"<p>", then=ErrorName.SCHEMA, content_type="text/html"))

    assert (group.change, group.now) == (Change.FAILED_DIFFERENTLY, ErrorName.CONTENT_TYPE)


@pytest.mark.parametrize("stored", [answer(), answer(b"busy", then=ErrorName.HTTP_5XX, status=503)])
def test_the_same_judgement_is_no_change(stored: StoredAnswer) -> None:
    """Which is what one hopes for."""
    assert replay_one(stored).change is Change.UNCHANGED


def test_each_answer_is_judged_by_what_its_own_fetch_wanted() -> None:
    """Three numbers are right for three, and wrong for four."""
    assert replay_one(answer(n=4)).now is ErrorName.COUNT


@pytest.mark.parametrize(
    ("stored", "hindrance"),
    [
        (answer(source="gone"), Hindrance.NOT_CONFIGURED),
        (answer(body_bytes=9000), Hindrance.CUT),
        (answer(then=ErrorName.STALE), Hindrance.COMPARED),
    ],
)
def test_what_cannot_be_judged_is_told_and_no_change(
    stored: StoredAnswer, hindrance: Hindrance
) -> None:
    """A wrong word about it would be worse than none."""
    group = replay_one(stored)

    assert (group.hindrance, group.change, group.now) == (hindrance, None, None)


def test_without_its_batches_nobody_knows_what_was_wanted() -> None:
    """They are gone once a run is pruned."""
    whole = answer()
    pruned = StoredAnswer(
        source=whole.source,
        error=None,
        attempts=1,
        newest=1,
        evidence=whole.evidence,
        fetch=None,
    )

    assert replay_one(pruned).hindrance is Hindrance.PRUNED


@pytest.mark.parametrize("size", [9, 9000])
def test_what_was_redacted_is_judged_and_marked(size: int) -> None:
    """The change may be ours: a secret was in it, so its length says nothing of what was cut."""
    group = replay_one(answer(b'{"error": "[REDACTED]"}', body_bytes=size))

    assert (group.now, group.redacted) == (ErrorName.REFUSED, 1)


def test_a_redacted_header_counts_as_well() -> None:
    """Adapters read those, too."""
    assert replay_one(answer(content_type="text/[REDACTED]")).redacted == 1


def test_answers_that_fared_alike_are_one_line() -> None:
    """However many there are; the newest says why."""
    alike = [
        answer(b"[1, 2]", attempts=5, newest=40),
        answer(b"[1]", attempts=2, newest=41),
        answer(b"[]", attempts=1, newest=7),
    ]

    (group,) = judge(alike, SOURCES)

    assert (group.answers, group.attempts, group.newest) == (3, 8, 41)
    assert group.detail is not None
    assert "1" in group.detail


def test_changes_come_first() -> None:
    """A person looks at the top; what nobody could judge comes before what stayed the same."""
    stored = [
        answer(),
        answer(source="gone"),
        answer(b"[9]"),
        answer(then=ErrorName.RANGE),
    ]

    groups = judge(stored, SOURCES)

    changes = [group.change for group in groups]
    assert changes == [Change.ACCEPTED_NOW, Change.REFUSED_NOW, None, Change.UNCHANGED]


def test_a_bug_of_an_adapter_is_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what this is for: to find out before the next run does."""

    def broken(*_arguments: object, **_options: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("pipeline.sources.randomnumberapi.read_json_or_status", broken)

    group = replay_one(answer())

    assert (group.now, group.detail) == (ErrorName.INTERNAL, "ZeroDivisionError")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if f"sandbox.{kind}" in KINDS])
def test_no_kind_needs_a_key_to_judge(kind: str) -> None:
    """Nothing is sent, so the keys may be on another machine; the sandbox's kinds are the same."""
    for name in (kind, f"sandbox.{kind}"):
        sources = {"dice": SourceSettings.model_validate({"kind": name, "batches": [3]})}

        (group,) = judge([answer(b"no", status=500, then=ErrorName.HTTP_5XX)], sources)

        assert (group.now, group.hindrance) == (ErrorName.HTTP_5XX, None)


def test_an_answer_is_judged_by_the_table_of_today() -> None:
    """What was missed in an ``api`` table is tried on the answers that are there."""
    table = {
        "kind": "json_api",
        "url": "https://h.test/?k={key}&min={min}&max={max}&n={n}",
        "batches": [3],
        "api": {
            "numbers": "/data",
            "most": 10,
            "errors": [{"text": "slow down", "error": "rate_limited"}],
        },
    }
    sources = {"dice": SourceSettings.model_validate(table)}

    (group,) = judge([answer(b"slow down", status=500, then=ErrorName.HTTP_5XX)], sources)

    assert (group.change, group.now) == (Change.FAILED_DIFFERENTLY, ErrorName.RATE_LIMITED)
