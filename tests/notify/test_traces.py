"""Traces: the spans of a run, and that sending them cannot harm it."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from pipeline.extras import how_to_install
from pipeline.models import Attempt, Request, RunStatus
from pipeline.notify import spans
from pipeline.notify.traces import PACKAGES, send_traces
from tests.notify.listening import listening
from tests.notify.runs import UID, make_run
from tests.processes import ROOT
from tests.store.makers import NOON, make_attempt, make_failed_attempt

START_NS = int(NOON.timestamp()) * 10**9
REQUEST = Request(
    method="GET",
    url="https://api.example.org/v1?n=5&key=${ANU_AQN_KEY}",
    headers=(("x-api-key", "${ANU_AQN_KEY}"),),
    body=b"",
)


class CountingExporter(SpanExporter):
    """Takes spans, or does not."""

    def __init__(self, result: SpanExportResult = SpanExportResult.SUCCESS) -> None:
        self.result = result
        self.sizes: list[int] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Note how many came."""
        self.sizes.append(len(spans))
        return self.result


def make_spans(
    *attempts: Attempt, status: RunStatus = RunStatus.OK
) -> dict[str, list[ReadableSpan]]:
    """Trace a run, and give its spans by name."""
    exporter = InMemorySpanExporter()
    assert send_traces(make_run(status), attempts, exporter=exporter) is None
    named: dict[str, list[ReadableSpan]] = {}
    for span in exporter.get_finished_spans():
        named.setdefault(span.name, []).append(span)
    return named


def parent_of(span: ReadableSpan) -> int | None:
    """Give the id of the span that this one is a part of."""
    return span.parent.span_id if span.parent else None


def id_of(span: ReadableSpan) -> int:
    """Give its own."""
    assert span.context is not None
    return int(span.context.span_id)


def test_a_run_holds_its_fetches_and_these_their_attempts() -> None:
    """All in one trace, whose id is that of the run."""
    made = make_spans(
        make_failed_attempt(0, 1), make_attempt(0, 2), replace(make_attempt(1), request=REQUEST)
    )

    [root], fetches = made["pipeline collect"], made["fetch"]
    assert parent_of(root) is None
    assert [parent_of(span) for span in fetches] == [id_of(root)] * 2
    assert [parent_of(span) for span in made["HTTP"]] == [id_of(fetches[0])] * 2
    assert [parent_of(span) for span in made["GET"]] == [id_of(fetches[1])]
    every = [span for spans in made.values() for span in spans]
    assert {f"{span.context.trace_id:032x}" for span in every if span.context} == {UID}


def test_spans_have_the_times_that_were_measured() -> None:
    """An attempt begins when it was allowed to go; waiting is the fetch's."""
    made = make_spans(make_attempt())

    [root], [fetch], [attempt] = made["pipeline collect"], made["fetch"], made["HTTP"]
    assert (root.start_time, root.end_time) == (START_NS, START_NS + 1_500_000_000)
    assert (fetch.start_time, fetch.end_time) == (START_NS, START_NS + 2_042_000)
    assert (attempt.start_time, attempt.end_time) == (START_NS + 5_000, START_NS + 2_042_000)


def test_an_attempt_is_described_as_the_conventions_say() -> None:
    """So that any backend shows it as an HTTP request; the secret stays here."""
    [span] = make_spans(replace(make_attempt(3, 2), request=REQUEST))["GET"]

    assert span.kind is SpanKind.CLIENT
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes or {}) == {
        "http.request.method": "GET",
        "url.full": "https://api.example.org/v1?n=5&key=${ANU_AQN_KEY}",
        "server.address": "api.example.org",
        "server.port": 443,
        "http.response.status_code": 200,
        "http.response.body.size": 40,
        "http.request.resend_count": 1,
        "pipeline.source": "dice",
        "pipeline.fetch": 3,
        "pipeline.attempt": 2,
        "pipeline.wait_us": 5,
        "pipeline.send_us": 10,
        "pipeline.first_byte_us": 2000,
        "pipeline.body_us": 20,
        "pipeline.check_us": 7,
    }


def test_a_first_attempt_is_no_resending() -> None:
    """The conventions want the count left out then; and a port that is written stays."""
    request = replace(REQUEST, url="http://127.0.0.1:8080/x")
    [span] = make_spans(replace(make_attempt(), request=request))["GET"]

    assert span.attributes is not None
    assert "http.request.resend_count" not in span.attributes
    assert span.attributes["server.port"] == 8080


def test_a_failure_is_an_error_with_its_published_name() -> None:
    """In the attempt, in a fetch that ended so, and in the run."""
    made = make_spans(make_failed_attempt(), status=RunStatus.FAILED)

    [attempt] = made["HTTP"]
    assert attempt.attributes is not None
    assert attempt.attributes["error.type"] == "http_5xx"
    for name in ("HTTP", "fetch", "pipeline collect"):
        [span] = made[name]
        assert span.status.status_code is StatusCode.ERROR
    assert made["pipeline collect"][0].status.description == "failed"


def test_a_fetch_that_was_saved_by_a_retry_went_well() -> None:
    """Its first attempt did not."""
    made = make_spans(make_failed_attempt(0, 1), make_attempt(0, 2))

    assert [span.status.is_ok for span in made["HTTP"]] == [False, True]
    assert [span.status.is_ok for span in made["fetch"]] == [True]


def test_the_environment_names_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """The standard variables win over what we would say."""
    [plain] = make_spans()["pipeline collect"]
    monkeypatch.setenv("OTEL_SERVICE_NAME", "dice-prod")
    [named] = make_spans()["pipeline collect"]

    assert plain.resource.attributes["service.name"] == "pipeline"
    assert plain.resource.attributes["service.version"] == "1.0"
    assert named.resource.attributes["service.name"] == "dice-prod"


def test_what_is_not_sampled_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the standard variable."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")

    assert make_spans(make_attempt()) == {}


def test_a_long_run_is_sent_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand spans fit neither into a request nor into memory."""
    monkeypatch.setattr(spans, "SPANS_AT_ONCE", 4)
    exporter = CountingExporter()

    attempts = map(make_attempt, range(5))
    assert send_traces(make_run(), attempts, exporter=exporter) is None

    assert exporter.sizes == [4, 4, 3]


def test_the_first_refusal_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not listen now will not listen to the rest."""
    monkeypatch.setattr(spans, "SPANS_AT_ONCE", 2)
    exporter = CountingExporter(SpanExportResult.FAILURE)

    complaint = send_traces(make_run(), map(make_attempt, range(5)), exporter=exporter)

    assert complaint == "sending traces failed: they were not taken"
    assert exporter.sizes == [2]


def test_when_the_time_is_up_the_rest_is_dropped() -> None:
    """Whoever waited has been told so, and nothing goes on behind his back."""
    exporter = CountingExporter()

    complaint = send_traces(make_run(), [make_attempt()], exporter=exporter, seconds=-1)

    assert complaint in {None, "sending traces was not done within -1 s"}
    assert exporter.sizes == []


def test_by_default_it_is_otlp_over_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """To where the standard variable says, and nothing secret among it."""
    with listening() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)

        assert send_traces(make_run(), [replace(make_attempt(), request=REQUEST)]) is None

    [(method, path, body)] = collector.heard
    request = ExportTraceServiceRequest.FromString(body)
    [resource] = request.resource_spans
    names = [span.name for scope in resource.scope_spans for span in scope.spans]
    assert (method, path) == ("POST", "/v1/traces")
    assert names == ["GET", "fetch", "pipeline collect"]


def test_a_collector_that_refuses_is_one_complaint(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its own reason."""
    with listening(status=400) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)

        complaint = send_traces(make_run(), [make_attempt()])

    assert complaint is not None
    assert complaint.startswith("sending traces failed: ")
    assert "400" in complaint


@pytest.mark.parametrize("header", ["Api-Key=CaNaRy\x1b", "CaNaRy", "a=b, Api-Key= CaNaRy\x1b "])
def test_a_complaint_does_not_quote_a_key(monkeypatch: pytest.MonkeyPatch, header: str) -> None:
    """Who cannot read the headers says what they are, and cron would mail it."""
    with listening(status=400) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", header)

        complaint = send_traces(make_run(), [make_attempt()])

    assert complaint is not None
    assert "CaNaRy" not in complaint


def test_nothing_else_is_said_about_it() -> None:
    """What OpenTelemetry logs goes to stderr, unless somebody listens, and cron would mail it."""
    code = (
        "from pipeline.notify.traces import send_traces\n"
        "from tests.notify.runs import make_run\n"
        "from tests.store.makers import make_attempt\n"
        "print(send_traces(make_run(), [make_attempt()]))"
    )
    with listening(status=400) as collector:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
        )

    assert done.stdout.startswith("sending traces failed: ")
    assert done.stderr == ""


def test_a_collector_that_hangs_costs_the_time_it_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And no more than that."""
    with listening(status=None) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)

        complaint = send_traces(make_run(), [make_attempt()], seconds=0.1)

    assert complaint is not None
    assert complaint.startswith("sending traces ")


def test_without_the_extra_it_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """And it names the packages."""
    monkeypatch.delitem(sys.modules, "pipeline.notify.spans")
    monkeypatch.delattr("pipeline.notify.spans")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)

    assert send_traces(make_run(), []) == (
        f"traces need OpenTelemetry: {how_to_install(*PACKAGES)}"
    )


def test_nothing_heavy_is_imported_before_it_is_wanted() -> None:
    """Most runs tell nobody, and none should start later for it. All need httpx2 anyway."""
    code = (
        "import sys, pipeline.notify.traces, pipeline.notify.ping, pipeline.notify.metrics;"
        "heavy = ('opentelemetry', 'sqlmodel', 'pipeline.extras', 'pipeline.audit.audit');"
        "print([m for m in heavy if m in sys.modules])"
    )

    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_moments_are_exact() -> None:
    """A float has no room for nanoseconds since 1970."""
    moment = datetime.fromisoformat("2026-03-01T12:00:00.123457+00:00")

    assert spans._ns(moment) == START_NS + 123_457_000
