"""Write attempts as HAR 1.2, the format that the network panels of browsers read.

Field by field as in http://www.softwareishard.com/blog/har-12-spec/. What the format has no field
for is in fields that begin with ``_``, as it allows.
"""

import json
from base64 import b64encode
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import UTC
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from pipeline import __version__
from pipeline.audit.exchange import tell_extent
from pipeline.errors import UsageError
from pipeline.models import Attempt, AttemptRecord, Request, Timings
from pipeline.rendering.output_file import new_file
from pipeline.rendering.words import show_time
from pipeline.scope import find_run, reading
from pipeline.settings import StoreSettings
from pipeline.store.history import find_pruning
from pipeline.store.queries import exchanges_of_run

Json = dict[str, object]

MICROSECONDS = 1_000  # of a millisecond
NOT_KNOWN = -1
HTTP = "HTTP/1.1"

_CREATOR = {"name": "pipeline", "version": __version__}
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_ALWAYS = ("send", "wait", "receive")  # must not be -1, other than the rest


def har_chunks(records: Iterable[AttemptRecord]) -> Iterator[bytes]:
    """Write one HAR document, an entry a line: *records* are read as the chunks are, in ASCII."""
    yield b'{"log": {"version": "1.2", "creator": %b, "entries": [' % _dump(_CREATOR)
    separator = b"\n"
    for record in records:
        yield separator + _dump(har_entry(record))
        separator = b",\n"
    yield b"\n]}}\n"


def _dump(value: object) -> bytes:
    return json.dumps(value).encode()


def har_entry(record: AttemptRecord) -> Json:
    """Make the entry of one attempt.

    ``time`` and ``timings`` are in milliseconds. Our own check of an answer is in neither of them;
    ``_microseconds`` has all phases as they were measured, null where one was not reached.
    """
    attempt = record.attempt
    timings = _timings(attempt.timings)
    passed = (ms for name, ms in timings.items() if name != "ssl" and ms != NOT_KNOWN)
    entry: Json = {
        "startedDateTime": attempt.began_at.astimezone(UTC).isoformat(timespec="milliseconds"),
        "time": round(sum(passed), 3),
        "request": _request(attempt),
        "response": _response(attempt),
        "cache": {},
        "timings": timings,
        "comment": f"{attempt.source}: attempt {record.id}, run {record.run_id},"
        f" fetch {attempt.fetch}, try {attempt.number}"
        + ("" if record.host is None else f", asked by {record.host} pid {record.pid}"),
        "_microseconds": asdict(attempt.timings),
    }
    if attempt.error is not None:
        entry |= {"_error": attempt.error, "_phase": attempt.phase, "_detail": attempt.detail}
    return entry


def _timings(timings: Timings) -> dict[str, float]:
    """Map our phases to those of a browser, where ``connect`` takes in ``ssl``."""
    connected = (timings.connect_us, timings.tls_us)
    is_connected = timings.connect_us is not None
    phases = {
        "blocked": timings.wait_us,
        "dns": timings.dns_us,
        "connect": sum(us or 0 for us in connected) if is_connected else None,
        "ssl": timings.tls_us,
        "send": timings.send_us,
        "wait": timings.first_byte_us,
        "receive": timings.body_us,
    }
    return {name: _milliseconds(name, us) for name, us in phases.items()}


def _milliseconds(name: str, us: int | None) -> float:
    if us is None:
        return 0 if name in _ALWAYS else NOT_KNOWN
    return us / MICROSECONDS


def _request(attempt: Attempt) -> Json:
    # A name that leads nowhere (RFC 2606), because the format wants a URL.
    unknown = Request(method="GET", url=f"http://{attempt.source}.invalid/", headers=(), body=b"")
    request = attempt.request or unknown
    query = parse_qsl(urlsplit(request.url).query, keep_blank_values=True)
    described: Json = {
        "method": request.method,
        "url": request.url,
        "httpVersion": HTTP,
        "cookies": [],
        "headers": _pairs(request.headers),
        "queryString": _pairs(query),
        "headersSize": NOT_KNOWN,
        "bodySize": NOT_KNOWN if b"${" in request.body else len(request.body),
    }
    if request.body:
        described["postData"] = {
            "mimeType": _find(request.headers, "content-type"),
            "params": [],
            "text": request.body.decode("utf-8", "backslashreplace"),
        }
    if attempt.request is None:
        described["comment"] = "what was asked was not kept"
    return described


def _response(attempt: Attempt) -> Json:
    """Describe the answer; where none came the status is 0, as browsers have it."""
    status = attempt.status or 0
    headers = attempt.evidence.headers if attempt.evidence else ()
    return {
        "status": status,
        "statusText": _PHRASES.get(status, ""),
        "httpVersion": HTTP if status else "",
        "cookies": [],
        "headers": _pairs(headers),
        "content": _content(attempt),
        "redirectURL": _find(headers, "location"),
        "headersSize": NOT_KNOWN,
        "bodySize": NOT_KNOWN if attempt.body_bytes is None else attempt.body_bytes,
    }


def _content(attempt: Attempt) -> Json:
    evidence = attempt.evidence
    if evidence is None:
        comment = {"comment": "the answer was not kept"} if attempt.status else {}
        return {"size": attempt.body_bytes or 0, "mimeType": "", **comment}
    described: Json = {
        "size": evidence.body_bytes,
        "mimeType": _find(evidence.headers, "content-type"),
        **_text(evidence.body),
    }
    if len(evidence.body) < evidence.body_bytes:
        described["comment"] = tell_extent(evidence, attempt.error)
    return described


def _text(body: bytes) -> Json:
    try:
        return {"text": body.decode()}
    except UnicodeDecodeError:
        return {"text": b64encode(body).decode(), "encoding": "base64"}


def _pairs(pairs: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in pairs]


def _find(headers: Iterable[tuple[str, str]], wanted: str) -> str:
    return next((value for name, value in headers if name.lower() == wanted), "")


def write_har(store: StoreSettings, run: str, *, file: Path, force: bool) -> None:
    """Write all attempts of a run, which is called by its number or ``last``, to a file."""
    with new_file(file, force=force) as har_file, reading(store) as session:
        run_id = find_run(session, run).id
        if pruned_at := find_pruning(session, run_id=run_id):
            raise UsageError(f"run {run_id}: its attempts were pruned at {show_time(pruned_at)}")
        har_file.writelines(har_chunks(exchanges_of_run(session, run_id=run_id)))
