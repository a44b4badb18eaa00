"""Make OpenTelemetry spans of a run: one for the run, one for each fetch, one for each attempt.

https://opentelemetry.io/docs/specs/semconv/http/http-spans/ says how attempts are described; what
it has no name for is called ``pipeline.…``. The id of the trace is that of the run.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import attrgetter
from time import monotonic
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

from pipeline.models import Attempt, RunStatus, RunSummary, Timings

SPANS_AT_ONCE = 512  # in one request, and in memory
DEFAULT_PORTS = {"http": 80, "https": 443}
UNKNOWN_METHOD = "HTTP"  # as the conventions name a span then

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BAD = (RunStatus.PARTIAL, RunStatus.FAILED, RunStatus.INTERRUPTED)
_PHASES = tuple(field.name for field in fields(Timings))

Attributes = Mapping[str, str | int]


class _IdOfRun(RandomIdGenerator):
    """Names the trace like the run."""

    def __init__(self, uid: str) -> None:
        self._trace_id = int(uid, 16)

    def generate_trace_id(self) -> int:
        return self._trace_id


class _Collector(SpanProcessor):
    """Keeps the spans that have ended until they are taken."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is not None and span.context.trace_flags.sampled:
            self.spans.append(span)

    def take(self) -> list[ReadableSpan]:
        taken, self.spans = self.spans, []
        return taken


def send_spans(
    run: RunSummary, attempts: Iterable[Attempt], exporter: SpanExporter | None, seconds: float
) -> bool:
    """Send the spans of *run* and tell whether they were taken; what is too late is dropped.

    Without an *exporter* it is OTLP over HTTP, as the environment has it.
    """
    end = monotonic() + seconds
    exporter = exporter or OTLPSpanExporter(timeout=seconds)
    try:
        for group in make_spans(run, attempts):
            if monotonic() > end:  # who waited for us has left
                return True
            if exporter.export(group) is not SpanExportResult.SUCCESS:
                return False
    finally:
        exporter.shutdown()
    return True


def make_spans(run: RunSummary, attempts: Iterable[Attempt]) -> Iterator[list[ReadableSpan]]:
    """Make the spans of *run*, as many at once as go into one request.

    *attempts* come in the order of fetch and number; each sent request is known with its secrets
    replaced.
    """
    collector = _Collector()
    provider = TracerProvider(
        resource=_resource(run), id_generator=_IdOfRun(run.uid), shutdown_on_exit=False
    )
    provider.add_span_processor(collector)
    tracer = provider.get_tracer("pipeline", run.version)
    root = tracer.start_span(
        "pipeline collect", start_time=_ns(run.started_at), attributes=_of_run(run)
    )
    for _, tries in groupby(attempts, key=attrgetter("fetch")):
        _add_fetch(tracer, root, list(tries))
        if len(collector.spans) >= SPANS_AT_ONCE:
            yield collector.take()
    if run.status in _BAD:
        root.set_status(Status(StatusCode.ERROR, run.status))
    root.end(_ns(run.ended_at or run.started_at))
    if collector.spans:
        yield collector.take()


def _resource(run: RunSummary) -> Resource:
    ours = Resource(
        {"service.name": "pipeline", "service.version": run.version, "host.name": run.host}
    )
    # What the user says in OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES wins.
    return Resource.create().merge(ours).merge(OTELResourceDetector().detect())


def _of_run(run: RunSummary) -> Attributes:
    counts = ("ordered", "collected", "failed", "deferred", "cancelled", "numbers", "attempts")
    return {
        "pipeline.run": run.id,
        "pipeline.status": run.status.value,
        **{f"pipeline.{name}": getattr(run, name) for name in counts},
    }


def _add_fetch(tracer: Tracer, root: Span, tries: list[Attempt]) -> None:
    first, last = tries[0], tries[-1]
    span = tracer.start_span(
        "fetch",
        set_span_in_context(root),
        start_time=_ns(first.began_at),
        attributes={"pipeline.source": first.source, "pipeline.fetch": first.fetch},
    )
    for attempt in tries:
        _add_attempt(tracer, span, attempt)
    _end(span, last)


def _add_attempt(tracer: Tracer, parent: Span, attempt: Attempt) -> None:
    request = attempt.request
    span = tracer.start_span(
        request.method if request else UNKNOWN_METHOD,
        set_span_in_context(parent),
        SpanKind.CLIENT,
        start_time=_ns(attempt.sent_at),
        attributes=_of_attempt(attempt),
    )
    _end(span, attempt)


def _of_attempt(attempt: Attempt) -> Attributes:
    attributes: dict[str, str | int | None] = {
        "http.response.status_code": attempt.status,
        "http.request.resend_count": attempt.number - 1 or None,
        "http.response.body.size": attempt.body_bytes,
        "error.type": attempt.error and attempt.error.value,
        "pipeline.source": attempt.source,
        "pipeline.fetch": attempt.fetch,
        "pipeline.attempt": attempt.number,
        **{f"pipeline.{phase}": getattr(attempt.timings, phase) for phase in _PHASES},
    }
    if attempt.request is not None:
        url = urlsplit(attempt.request.url)
        attributes |= {
            "http.request.method": attempt.request.method,
            "url.full": attempt.request.url,
            "server.address": url.hostname,
            "server.port": url.port or DEFAULT_PORTS.get(url.scheme),
        }
    return {name: value for name, value in attributes.items() if value is not None}


def _end(span: Span, attempt: Attempt) -> None:
    if attempt.error is not None:
        span.set_status(Status(StatusCode.ERROR, attempt.detail or attempt.error.value))
    span.end(_ns(attempt.ended_at))


def _ns(moment: datetime) -> int:
    """Give the nanoseconds since 1970, exact to the microsecond."""
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000
