"""``pipeline simulate``: what other limits would have done."""

from typing import Annotated

from typer import Option

from pipeline.cli.boundary import error_boundary
from pipeline.cli.configuration import read_settings
from pipeline.cli.options import (
    ConfigOption,
    ShapeOption,
    SinceOption,
    SourceOption,
    UntilOption,
    parse_rate,
)
from pipeline.rendering.shapes import Shape

POSITIVE = 0.001


def simulate(
    config: ConfigOption = None,
    attempt_seconds: Annotated[
        float | None, Option(metavar="SECONDS", min=POSITIVE, help="What one attempt may take.")
    ] = None,
    retries: Annotated[
        int | None, Option(metavar="N", min=0, max=100, help="Attempts after the first.")
    ] = None,
    breaker: Annotated[
        int | None, Option(metavar="N", min=0, help="Failures in a row; 0: never.")
    ] = None,
    rate: Annotated[
        str | None, Option(parser=parse_rate, metavar="RATE", help="As 1/60s, 50/s or none.")
    ] = None,
    merge: Annotated[
        bool | None, Option("--merge/--no-merge", help="Batches share requests, or not.")
    ] = None,
    deadline_seconds: Annotated[
        float | None, Option(metavar="SECONDS", min=POSITIVE, help="What one run may take.")
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    source: SourceOption = None,
    format_: ShapeOption = Shape.TEXT,
) -> None:
    """Show what another limit would have done to past attempts.

    Give one limit; nothing is sent. Per source: how it was, what is certain, the bounds of what is
    not, an estimate where 30 attempts or more allow one, and what cannot be known. Without --since
    it takes the last 7 days.

    \b
    pipeline simulate --retries 0 --since 30d    what did retries bring?
    pipeline simulate --attempt-seconds 5        which answers would be cut off?
    """
    values = {
        "attempt_seconds": attempt_seconds,
        "retries": retries,
        "breaker": breaker,
        "rate": rate,
        "merge": merge,
        "deadline_seconds": deadline_seconds,
    }
    with error_boundary():
        from pipeline.simulate.answer import simulate as body

        body(
            read_settings(config, will_ask=False),
            {name: value for name, value in values.items() if value is not None},
            since=since,
            until=until,
            source=source,
            shape=format_,
        )
