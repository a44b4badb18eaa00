"""``pipeline sources check``: send one request to one source, and show what was understood of it.

It is a run like any other, of one batch and without retries: within the rules, and on the books.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from sqlmodel import Session

from pipeline.audit.exchange import lines_of_answer, lines_of_request
from pipeline.audit.findings import responsible, tell_measures
from pipeline.errors import UsageError
from pipeline.models import AttemptRecord, BatchRecord, Overlap
from pipeline.rendering.document import Document, Text
from pipeline.rendering.output import write
from pipeline.rendering.render import render
from pipeline.rendering.shapes import Format, Shape
from pipeline.rendering.words import count_of, show_duration, show_time
from pipeline.report.run import show_run
from pipeline.run.collect import Run, collect
from pipeline.run.opening import open_for_runs
from pipeline.run.plan import find_paces, obstacles, plan_upstreams
from pipeline.settings import Settings
from pipeline.settings.environment import find_state_folder
from pipeline.settings.sizes import smallest_size
from pipeline.store.measures import measures_of
from pipeline.store.numbers import unpack
from pipeline.store.queries import batches_of_run, exchanges_of_run

MOST_NUMBERS = 10  # that are shown
MOST_BODY = 1000  # characters of a body


def check_source(
    settings: Settings,
    name: str,
    shape: Format,
    *,
    environ: Mapping[str, str],
    say: Callable[[str], object],
) -> int:
    """Ask the source *name* for its smallest batch, show what came, and give the exit code."""
    narrowed = _narrow(settings, name)
    state_folder = find_state_folder(environ)
    with open_for_runs(narrowed.store, state_folder) as store:
        for note in store.notes:
            say(note)
        run = Run(settings=narrowed, store=store, state_folder=state_folder, overlap=Overlap.ALLOW)
        collected = collect(run)
        for remark in collected.remarks:
            say(remark)
        if shape is Format.JSON:
            show_run(store, str(collected.summary.id), shape)
        else:
            with store.read() as session:
                lines = list(_describe(session, collected.summary.id, narrowed))
            write("\n".join(lines))
    return collected.exit_status


def _narrow(settings: Settings, name: str) -> Settings:
    """Leave one source, one batch, and no second try."""
    if name not in settings.enabled_sources:
        raise UsageError(f"{name!a} is no enabled source; `pipeline sources` lists them")
    source = settings.sources[name]
    one = source.model_copy(
        update={"batch_sizes": (smallest_size(source.batch_sizes),), "retries": 0}
    )
    return replace(settings, sources={name: one})


def _describe(session: Session, run_id: int, settings: Settings) -> Iterator[str]:
    (batch,) = batches_of_run(session, run_id=run_id, with_numbers=True)
    attempts = list(exchanges_of_run(session, run_id=run_id))
    facts = [
        *_tell_batch(batch),
        *_tell_measures(session, attempts),
        *_tell_wait(session, settings),
        f"On the books as run {run_id}.",
        *(
            f"`pipeline audit show {made.id}` shows attempt {made.id} again, phase by phase."
            for made in attempts
        ),
    ]
    parts = [
        Text(lines=list(lines), is_verbatim=True)
        for record in attempts
        for lines in _exchange(record)
    ]
    return render(
        Document(title=f"{batch.source}: one request", facts=facts, parts=parts), Shape.TEXT
    )


def _exchange(record: AttemptRecord) -> Iterator[Iterator[str]]:
    attempt = record.attempt
    if attempt.request is not None:
        yield lines_of_request(attempt.request, most=MOST_BODY)
    if attempt.evidence is not None:
        yield lines_of_answer(attempt.evidence, attempt.error, most=MOST_BODY)
    elif attempt.status is not None:
        took = show_duration(attempt.timings.total_us)
        yield iter([f"Status {attempt.status}", f"Body: {attempt.body_bytes} bytes; in {took}"])


def _tell_batch(batch: BatchRecord) -> Iterator[str]:
    wanted = f"{count_of(batch.n, 'number')} from {batch.min} to {batch.max}"
    if batch.error is not None:
        yield f"Asked for {wanted}, and got none: {batch.error} ({batch.error.meaning})"
        yield f"  {batch.detail}; responsible: {responsible(batch.error.whose)}"
    elif batch.sum is None:
        yield f"Not asked: {batch.detail}; not before {show_time(batch.not_before)}."
    elif batch.packed is None:
        yield f"Understood {wanted}; their sum is {batch.sum}."
    else:
        numbers = unpack(batch.packed, batch.n, batch.min, batch.max)
        shown = ", ".join(map(str, numbers[:MOST_NUMBERS]))
        more = ", …" if batch.n > MOST_NUMBERS else ""
        yield f"Understood {wanted}: {shown}{more}; their sum is {batch.sum}."


def _tell_measures(session: Session, attempts: Iterable[AttemptRecord]) -> Iterator[str]:
    for record in attempts:
        fetch, number = record.attempt.fetch, record.attempt.number
        if found := measures_of(session, (record.run_id, fetch, number)):
            yield tell_measures(found)


def _tell_wait(session: Session, settings: Settings) -> Iterator[str]:
    """Say until when the source is left alone now, and why."""
    upstreams, now = plan_upstreams(settings), datetime.now(UTC)
    found = obstacles(upstreams, find_paces(session, upstreams, now=now), now=now)
    for moment in found.values():
        when = f"Not to be asked before {show_time(moment.at)}" if moment.at > now else "Now"
        yield f"{when}: {moment.why}."
