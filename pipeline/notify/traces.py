"""Send OpenTelemetry traces of a run, made from the records when it has ended.

So tracing does not slow a run down. The variables ``OTEL_*`` say where the spans go, see
https://opentelemetry.io/docs/specs/otel/protocol/exporter/. Its packages are optional, and are
imported only when traces are wanted.
"""

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline.models import Attempt, RunSummary
from pipeline.notify.harmless import SECONDS, within
from pipeline.sanitize import redact_text

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

PACKAGES = ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http")
WHAT = "sending traces"
HEADER_VARIABLES = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")


def send_traces(
    run: RunSummary,
    attempts: Iterable[Attempt],
    *,
    exporter: "SpanExporter | None" = None,
    seconds: float = SECONDS,
) -> str | None:
    """Send the spans of a run that has ended, *attempts* in the order of fetch and number.

    Without an *exporter* they go out as OTLP over HTTP. What is not sent in time is dropped.
    """
    return within(seconds, WHAT, lambda: _send(run, attempts, exporter, seconds))


def _send(
    run: RunSummary,
    attempts: Iterable[Attempt],
    exporter: "SpanExporter | None",
    seconds: float,
) -> str | None:
    try:
        from pipeline.notify import spans  # noqa: PLC0415 - needs the extra
    except ImportError:
        from pipeline.extras import how_to_install  # noqa: PLC0415 - reads what is installed

        return f"traces need OpenTelemetry: {how_to_install(*PACKAGES)}"
    with _log_kept() as said:
        if spans.send_spans(run, attempts, exporter, seconds):
            return None
        why = said[0] if said else "they were not taken"
        return _without_secrets(f"{WHAT} failed: {why}")


def _without_secrets(complaint: str) -> str:
    """Leave out the values of headers: OpenTelemetry quotes those that it cannot read."""
    headers = ",".join(os.environ.get(name, "") for name in HEADER_VARIABLES).split(",")
    values = (value.strip() or name for name, _, value in (each.partition("=") for each in headers))
    return redact_text(complaint, filter(None, map(str.strip, values)))


@contextmanager
def _log_kept() -> Iterator[list[str]]:
    """Keep what OpenTelemetry logs: its exporter says nowhere else why it failed.

    The first word is the one that counts; the last is only that it gave up.
    """
    said: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    log = logging.getLogger("opentelemetry")
    log.propagate = False  # to stderr, which cron mails
    keeper = Keeper(logging.WARNING)
    log.addHandler(keeper)
    try:
        yield said
    finally:
        log.removeHandler(keeper)
