"""``pipeline audit show``, ``har`` and ``replay``: what was sent and what came back."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.asking import A_WEEK, check_source, make_window, reading, show_window, window_json
from pipeline.cli.boundary import ExitCode, error_boundary
from pipeline.cli.files import new_file, write_file
from pipeline.cli.options import (
    ConfigOption,
    Format,
    FormatOption,
    SinceOption,
    SourceOption,
    UntilOption,
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
from pipeline.errors import ERRORS, ErrorName, Phase, UsageError
from pipeline.sanitize import printable, printable_lines

if TYPE_CHECKING:
    from pipeline.evidence.replay import Group
    from pipeline.models import AttemptCase, ContractSpan, Evidence, Request
    from pipeline.settings import Settings
    from pipeline.store.history import Window


PATIENCE_SECONDS = 30.0  # of a repeated request, where its source is not configured any more

ForceOption = Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")]


def show(
    context: typer.Context,
    attempt: Annotated[int, typer.Argument(metavar="ATTEMPT", help="Its number.")],
    config: ConfigOption = None,
    as_curl: Annotated[
        bool, typer.Option("--curl", help="Print a command that repeats the request.")
    ] = False,
    har_file: Annotated[
        Path | None,
        typer.Option("--har", metavar="FILE", help="Write it as HAR 1.2 instead; - is stdout."),
    ] = None,
    force: ForceOption = False,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Show one attempt: what was sent, how long it took, the answer.

    The answer is bounded and redacted; secrets in the request are named, not shown.

    \b
    pipeline audit show 17                  all that is known of attempt 17
    pipeline audit show 17 --curl           a command that repeats it
    pipeline audit show 17 --har 17.har     for the network panel of a browser
    """
    if as_curl + (har_file is not None) + (format_ is Format.JSON) > 1:
        raise typer.BadParameter("of --curl, --har and --format json give one")
    with error_boundary():
        from pipeline import audit as core

        settings = _settings(context, config)
        with reading(settings.store) as session:
            case = core.find_case(session, attempt)
        if as_curl:
            write(_curl(case, settings))
        elif har_file is not None:
            from pipeline.evidence.har import har_chunks

            write_file(har_file, har_chunks([case.record]), force=force)
        else:
            lines = _json_of_case(case) if format_ is Format.JSON else _text_of_case(case)
            write("\n".join(lines))


def har(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="To be written; - is stdout.")],
    config: ConfigOption = None,
    run: Annotated[str, typer.Option("--run", "-r", metavar="ID|last", help="Which run.")] = "last",
    force: ForceOption = False,
) -> None:
    """Write the attempts of a run as HAR 1.2, for a browser."""
    with error_boundary():
        from pipeline import report as core
        from pipeline.evidence.har import har_chunks
        from pipeline.store.history import find_pruning
        from pipeline.store.queries import exchanges_of_run

        store = _settings(context, config).store
        with new_file(file, force=force) as har_file, reading(store) as session:
            run_id = core.find_run(session, run).id
            if pruned_at := find_pruning(session, run_id=run_id):
                raise UsageError(
                    f"run {run_id}: its attempts were pruned at {show_time(pruned_at)}"
                )
            har_file.writelines(har_chunks(exchanges_of_run(session, run_id=run_id)))


def replay(
    context: typer.Context,
    config: ConfigOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    source: SourceOption = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 3 if an answer is judged otherwise now.")
    ] = False,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Judge the answers that were kept by the adapters of today.

    What was refused then and would be accepted now, the reverse, and what would get another
    error. Nothing is sent. Without --since it takes the last 7 days.
    """
    with error_boundary():
        from pipeline.evidence.replay import Change
        from pipeline.evidence.replay import replay as core
        from pipeline.store.evidence import stored_answers

        settings = _settings(context, config)
        window = make_window(since, until, looks_back=A_WEEK)
        with reading(settings.store) as session:
            if source is not None:
                check_source(settings, session, source)
            answers = stored_answers(session, since=window.since, until=window.until, source=source)
            groups = core(answers, settings.sources)
        lines = _json_of_replay if format_ is Format.JSON else _text_of_replay
        write("\n".join(lines(groups, window)))
    if strict and any(group.change is not Change.NONE for group in groups):
        raise typer.Exit(ExitCode.FINDINGS)


def _settings(context: typer.Context, config: Path | None) -> "Settings":
    from pipeline.settings import load_settings

    return load_settings(config or config_before(context), os.environ, will_ask=False)


def _curl(case: "AttemptCase", settings: "Settings") -> str:
    from pipeline.evidence.curl import curl_command
    from pipeline.sources.registry import KINDS

    attempt = case.record.attempt
    if attempt.request is None:
        raise UsageError(f"attempt {case.record.id}: what it sent was not kept")
    max_seconds = PATIENCE_SECONDS
    if source := settings.sources.get(attempt.source):
        max_seconds = source.attempt_seconds or KINDS[source.upstream].attempt_seconds
    return curl_command(attempt.request, max_seconds=max_seconds)


def _json_of_case(case: "AttemptCase") -> Iterator[str]:
    attempt = case.record.attempt
    head = {
        "schema": "pipeline.attempt/1",
        "attempt": attempt_json(case.record),
        "request": attempt.request,
        "answer": attempt.evidence,
    }
    return json_lines(
        head,
        batches=map(batch_json, case.batches),
        tries=map(attempt_json, case.tries),
        contracts=case.contracts,
    )


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
    yield from _text_of_tries(case)
    yield ""
    phases = ((phase, show_duration(getattr(attempt.timings, f"{phase}_us"))) for phase in Phase)
    yield render_table(("phase", "time"), phases)
    yield ""
    if attempt.request is not None:
        yield from _text_of_request(attempt.request)
        yield ""
    if attempt.evidence is None:
        yield "No answer was kept." if attempt.error else "It went well, so no answer was kept."
    else:
        yield from _text_of_evidence(attempt.evidence, attempt.error)
    if case.contracts:
        yield ""
        yield _table_of_contracts(case.contracts)


def _text_of_tries(case: "AttemptCase") -> Iterator[str]:
    """Tell the other tries of the same fetch, and what to give ``show`` to see them."""
    for record in case.tries:
        if record.id != case.record.id:
            attempt = record.attempt
            became = f"failed: {attempt.error}" if attempt.error else "went well"
            yield f"Try {attempt.number} was attempt {record.id}; it {became}."


def _text_of_request(request: "Request") -> Iterator[str]:
    yield f"{printable(request.method)} {printable(request.url)}"
    yield from _text_of_headers(request.headers)
    if request.body:
        yield ""
        yield printable_lines(request.body.decode("utf-8", "backslashreplace"))


def _text_of_headers(headers: tuple[tuple[str, str], ...]) -> Iterator[str]:
    return (f"{printable(name)}: {printable(value)}" for name, value in headers)


def _text_of_evidence(evidence: "Evidence", error: ErrorName | None) -> Iterator[str]:
    from pipeline.evidence.extent import tell_extent

    yield f"Status {evidence.status}"
    yield from _text_of_headers(evidence.headers)
    yield f"\nBody: {tell_extent(evidence, error)}."
    if evidence.body:
        yield printable_lines(evidence.body.decode("utf-8", "backslashreplace"))


def _table_of_contracts(contracts: tuple["ContractSpan", ...]) -> str:
    return render_table(
        ("answers at that time", "from", "to", "value"),
        (
            (span.aspect, show_time(span.first_at), show_time(span.last_at), span.value)
            for span in contracts
        ),
    )


def _json_of_replay(groups: list["Group"], window: "Window") -> Iterator[str]:
    head = {"schema": "pipeline.replay/1", **window_json(window)}
    return json_lines(head, groups=map(_group_json, groups))


def _group_json(group: "Group") -> dict[str, object]:
    return {
        "source": group.source,
        "change": None if group.hindrance else group.change.name.lower(),
        "then": group.then,
        "now": group.now,
        "not_judged": group.hindrance and group.hindrance.name.lower(),
        "answers": group.answers,
        "attempts": group.attempts,
        "redacted": group.redacted,
        "newest_attempt": group.newest,
        "detail": group.detail,
    }


def _text_of_replay(groups: list["Group"], window: "Window") -> Iterator[str]:
    from pipeline.evidence.replay import Change

    if not groups:
        yield f"{show_window(window)}: no answer was kept."
        return
    if changed := [group for group in groups if group.change is not Change.NONE]:
        yield _table_of_changes(changed)
        yield ""
    judged = [group for group in groups if group.hindrance is None]
    total: Counter[Change] = Counter()
    for group in judged:
        total[group.change] += group.answers
    counts = ", ".join(f"{total[change]} {change}" for change in Change)
    attempts = sum(group.attempts for group in judged)
    answers = _count(total.total(), "answer")
    yield f"Judged again: {answers} to {_count(attempts, 'attempt')}: {counts}."
    not_judged: Counter[tuple[str, str]] = Counter()
    for group in groups:
        if group.hindrance is not None:
            not_judged[group.source, group.hindrance] += group.answers
    for (source, hindrance), n in not_judged.items():
        yield f"Not judged: {_count(n, 'answer')} of {source}: {hindrance}."
    if redacted := sum(group.redacted for group in judged):
        yield f"Something secret was taken out of {redacted} of them; that may be the change."


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"


def _table_of_changes(groups: list["Group"]) -> str:
    return render_table(
        ("source", "change", "then", "now", "answers", "attempts", "newest attempt", "said now"),
        (
            (
                group.source,
                group.change,
                group.then or "accepted",
                group.now or "accepted",
                group.answers,
                group.attempts,
                group.newest,
                group.detail,
            )
            for group in groups
        ),
    )
