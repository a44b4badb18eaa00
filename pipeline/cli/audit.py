"""``pipeline audit``: the failures, and the evidence of one."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.boundary import error_boundary
from pipeline.cli.options import ConfigOption, Format, FormatOption, SinceOption, SourceOption
from pipeline.cli.render import show_duration, show_table, show_time, write, write_json
from pipeline.cli.report import reading
from pipeline.errors import ERRORS
from pipeline.sanitize import printable, printable_lines

if TYPE_CHECKING:
    from pipeline.models import AttemptCase, Evidence

audit_app = typer.Typer(rich_markup_mode=None)


@audit_app.callback(invoke_without_command=True)
def audit(
    context: typer.Context,
    config: ConfigOption = None,
    since: SinceOption = None,
    source: SourceOption = None,
    format_: FormatOption = Format.TEXT,
) -> None:
    """List the failures by source and error: how many, since when, and whose fault.

    \b
    pipeline audit --since 7d      what failed in the last week
    pipeline audit show 17         the evidence of attempt 17
    """
    if context.invoked_subcommand is not None:
        return
    with error_boundary():
        from pipeline import audit as core
        from pipeline.settings import load_settings

        store = load_settings(config, os.environ).store
        with reading(store) as session:
            groups = core.failures(session, since=since, source=source)
        if format_ is Format.JSON:
            write_json({"schema": "pipeline.failures/1"}, failures=groups)
            return
        if not groups:
            write("No failures.")
            return
        show_table(
            ("source", "error", "phase", "whose", "attempts", "first", "last", "newest"),
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
        write("\n`pipeline audit show ATTEMPT` prints the evidence; the newest of each is above.")


@audit_app.command()
def show(
    attempt: Annotated[int, typer.Argument(metavar="ATTEMPT", help="Its number.")],
    config: ConfigOption = None,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Show one attempt: its phases, and the answer that failed, bounded and redacted."""
    with error_boundary():
        from pipeline import audit as core
        from pipeline.settings import load_settings

        store = load_settings(config, os.environ).store
        with reading(store) as session:
            case = core.find_case(session, attempt)
        if format_ is Format.JSON:
            write_json(
                {"schema": "pipeline.attempt/1", "attempt": case.record}, batches=case.batches
            )
        else:
            _show_case(case)


def _show_case(case: "AttemptCase") -> None:
    record, attempt = case.record, case.record.attempt
    served = ", ".join(batch.name for batch in case.batches) or "none"
    write(
        f"Attempt {record.id}: try {attempt.number} of fetch {attempt.fetch} in run {record.run_id}"
    )
    write(
        f"Source {attempt.source}, begun {show_time(attempt.began_at)}, decided batches: {served}"
    )
    if attempt.error is not None:
        fact = ERRORS[attempt.error]
        write(f"Failed in {attempt.phase}: {attempt.error} ({fact.meaning}; whose: {fact.whose})")
        write(f"  {printable(attempt.detail or '')}")
    if attempt.retry_after_us is not None:
        write(f"The upstream asked us to wait {show_duration(attempt.retry_after_us)}.")
    write("")
    show_table(
        ("phase", "time"),
        (
            (name.removesuffix("_us"), show_duration(getattr(attempt.timings, name)))
            for name in attempt.timings.__slots__
        ),
    )
    if attempt.evidence is None:
        write("\nNo answer was kept.")
    else:
        _show_evidence(attempt.evidence)


def _show_evidence(evidence: "Evidence") -> None:
    write(f"\nStatus {evidence.status}")
    for name, value in evidence.headers:
        write(f"{printable(name)}: {printable(value)}")
    kept = len(evidence.body)
    write(f"\nBody, {kept} of {evidence.body_bytes} bytes kept:")
    write(printable_lines(evidence.body.decode("utf-8", "backslashreplace")))
