"""``pipeline audit show``: one attempt and the answer that it got."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.boundary import error_boundary
from pipeline.cli.options import ConfigOption, Format, FormatOption, config_before
from pipeline.cli.render import (
    attempt_json,
    batch_json,
    json_lines,
    render_table,
    show_duration,
    show_time,
    write,
)
from pipeline.cli.report import reading
from pipeline.errors import ERRORS, Phase
from pipeline.sanitize import printable, printable_lines

if TYPE_CHECKING:
    from pipeline.models import AttemptCase, Evidence


def show(
    context: typer.Context,
    attempt: Annotated[int, typer.Argument(metavar="ATTEMPT", help="Its number.")],
    config: ConfigOption = None,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Show one attempt, and the answer that failed.

    The answer is bounded and redacted.
    """
    with error_boundary():
        from pipeline import audit as core
        from pipeline.settings import load_settings

        store = load_settings(config or config_before(context), os.environ, will_ask=False).store
        with reading(store) as session:
            case = core.find_case(session, attempt)
        lines = _json_of_case(case) if format_ is Format.JSON else _text_of_case(case)
        write("\n".join(lines))


def _json_of_case(case: "AttemptCase") -> Iterator[str]:
    answer = case.record.attempt.evidence
    head = {"schema": "pipeline.attempt/1", "attempt": attempt_json(case.record), "answer": answer}
    return json_lines(head, batches=map(batch_json, case.batches))


def _text_of_case(case: "AttemptCase") -> Iterator[str]:
    record, attempt = case.record, case.record.attempt
    decided = ", ".join(batch.name for batch in case.batches)
    yield f"Attempt {record.id}: run {record.run_id}, fetch {attempt.fetch}, try {attempt.number}"
    yield f"Source {attempt.source}, started {show_time(attempt.began_at)}"
    yield f"Decided: {decided}" if decided else "Decided no batch: it was tried again."
    if attempt.error is not None:
        fact = ERRORS[attempt.error]
        yield f"Failed in {attempt.phase}: {attempt.error} ({fact.meaning}); whose: {fact.whose}"
        yield f"  {printable(attempt.detail or '')}"
    if attempt.retry_after_us is not None:
        yield f"The upstream asked us to wait {show_duration(attempt.retry_after_us)}."
    yield ""
    phases = ((phase, show_duration(getattr(attempt.timings, f"{phase}_us"))) for phase in Phase)
    yield render_table(("phase", "time"), phases)
    yield ""
    if attempt.evidence is None:
        yield "No answer was kept." if attempt.error else "It went well, so no answer was kept."
    else:
        yield from _text_of_evidence(attempt.evidence)


def _text_of_evidence(evidence: "Evidence") -> Iterator[str]:
    yield f"Status {evidence.status}"
    for name, value in evidence.headers:
        yield f"{printable(name)}: {printable(value)}"
    is_whole = len(evidence.body) >= evidence.body_bytes
    extent = "all kept" if is_whole else f"the first {len(evidence.body)} kept"
    yield f"\nBody, {evidence.body_bytes} bytes, {extent}, secrets replaced:"
    yield printable_lines(evidence.body.decode("utf-8", "backslashreplace"))
