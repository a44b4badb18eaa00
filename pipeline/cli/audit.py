"""``pipeline audit``: the failures, and the evidence of one."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.boundary import error_boundary
from pipeline.cli.options import (
    ConfigOption,
    Format,
    FormatOption,
    SinceOption,
    SourceOption,
    config_before,
)
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
    from pipeline.models import AttemptCase, Evidence, FailureGroup

audit_app = typer.Typer(rich_markup_mode=None)


@audit_app.callback(invoke_without_command=True)
def audit(
    context: typer.Context,
    config: ConfigOption = None,
    since: SinceOption = None,
    source: SourceOption = None,
    format_: FormatOption = Format.TEXT,
) -> None:
    """List the failures by source and error.

    How many, since when, whose fault, and where the evidence is.

    \b
    pipeline audit --since 7d      what failed in the last week
    pipeline audit show 17         the evidence of attempt 17
    """
    if context.invoked_subcommand is not None:
        if since or source or format_ is not Format.TEXT:
            raise typer.BadParameter("of the options before show only --config has a meaning")
        return
    with error_boundary():
        from pipeline import audit as core
        from pipeline.settings import load_settings

        store = load_settings(config, os.environ, will_ask=False).store
        with reading(store) as session:
            groups = core.failures(session, since=since, source=source)
        if format_ is Format.JSON:
            write("\n".join(json_lines({"schema": "pipeline.failures/1"}, failures=groups)))
        elif groups:
            write(_table_of_failures(groups))
            write("\n`pipeline audit show NUMBER` prints the evidence of an attempt.")
        else:
            write("No failures.")


def _table_of_failures(groups: list["FailureGroup"]) -> str:
    return render_table(
        ("source", "error", "phase", "whose", "attempts", "first", "last", "newest attempt"),
        (
            (
                group.source,
                group.error,
                group.phase,
                group.whose,
                group.n,
                show_time(group.first_at),
                show_time(group.last_at),
                group.last_attempt,
            )
            for group in groups
        ),
    )


@audit_app.command()
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
