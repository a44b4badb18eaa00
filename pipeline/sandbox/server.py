"""The sandbox: routes calls to the imitations, and serves on 127.0.0.1 and nowhere else.

``Sandbox`` decides the answers and does no I/O; ``serve`` is the server around it. Bare sockets
and h11 rather than an HTTP framework, so that a fault can lie about every byte.
"""

import os
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ssl import SSLContext, SSLError
from urllib.parse import parse_qs, quote, unquote

from anyio import (
    TASK_STATUS_IGNORED,
    BrokenResourceError,
    EndOfStream,
    Semaphore,
    create_task_group,
    fail_after,
    sleep,
    wait_readable,
)
from anyio.abc import TaskStatus
from anyio.streams.tls import TLSStream

from pipeline.errors import ConfigError, ungrouped
from pipeline.sandbox.connection import Connection
from pipeline.sandbox.exchange import (
    JSON,
    Call,
    Request,
    Response,
    answer_text,
    compact,
    remember,
)
from pipeline.sandbox.faults import Fault, Served, answer_with, parse_fault
from pipeline.sandbox.imitations import KINDS, choose_faults
from pipeline.sandbox.journal import MAX_TARGET, Entry, Journal
from pipeline.sandbox.options import SandboxOptions
from pipeline.sandbox.tls import make_identity
from pipeline.sandbox.wire import Wire

HOST = "127.0.0.1"
BACKLOG = 512
MAX_CONNECTIONS = 512
MAX_FAULTS = 16  # in one path: each is a call deeper
HANDSHAKE_SECONDS = 10.0
ACCEPT_PAUSE_SECONDS = 0.1  # when no descriptor is left for the next connection


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Where the sandbox reads the time, so that a test can turn it."""

    seconds: Callable[[], float] = time.monotonic
    utc: Callable[[], datetime] = _utc_now


def _split_faults(path: str) -> tuple[list[Fault], str]:
    """Take ``/~FAULT`` segments off the front of *path*."""
    chosen: list[Fault] = []
    while path.startswith("/~"):
        if len(chosen) == MAX_FAULTS:
            raise ConfigError(f"a path may name {MAX_FAULTS} faults")
        segment, _, rest = path[2:].partition("/")
        chosen.append(parse_fault(unquote(segment)))
        path = f"/{rest}"
    return chosen, path


class Sandbox:
    """The imitated upstreams with their memory, and the journal of what they were asked.

    Attributes:
        port: where it is served, from the moment ``serve`` reports that it has started.
        journal: requests and violations so far.
        ca_pem: with TLS, the authority that a client is to trust.
    """

    def __init__(
        self,
        options: SandboxOptions | None = None,
        *,
        clock: Clock | None = None,
        on_request: Callable[[Entry], None] | None = None,
    ) -> None:
        """Prepare the upstreams; *on_request* sees each entry before its answer is sent.

        Raises:
            ConfigError: a fault or an upstream that does not exist; TLS without its package.
        """
        self.options = options or SandboxOptions()
        self.port = self.options.port
        self.journal = Journal()
        self._clock = clock or Clock()
        self._on_request = on_request
        self._faults = choose_faults(self.options.faults)
        self._upstreams = {kind: make(self.options) for kind, make in KINDS.items()}
        self._in_flight: Counter[tuple[str, str]] = Counter()
        self._seen: dict[tuple[str, str], int] = {}
        self._served: dict[str, Served] = {kind: {} for kind in KINDS}
        self.tls_context: SSLContext | None = None
        self.ca_pem: bytes | None = None
        if self.options.tls:
            self.tls_context, self.ca_pem = make_identity(self.options.tls)

    @property
    def root(self) -> str:
        """Give the URL of the index, without a trailing slash."""
        return f"{'https' if self.options.tls else 'http'}://{HOST}:{self.port}"

    def url(self, kind: str, *faults: str) -> str:
        """Give the base URL of an upstream, under the given faults."""
        segments = [f"/~{quote(fault, safe='=')}" for fault in faults]
        return "".join([self.root, *segments, f"/{kind}"])

    def describe(self) -> str:
        """List the URLs, one a line."""
        lines = [f"{self.url(kind)}{each.example}" for kind, each in self._upstreams.items()]
        return "\n".join([*lines, f"{self.root}/log", f"{self.root}/violations", ""])

    @contextmanager
    def exchange(self, call: Call) -> Iterator[Response]:
        """Decide the answer to *call*, which is in flight until the block ends."""
        path, _, query = call.target.partition("?")
        try:
            faults, below = _split_faults(path)
        except ConfigError as exc:
            yield answer_text(f"{exc}\n", 404)
            return
        kind, _, rest = below[1:].partition("/")
        if kind not in self._upstreams:
            yield self._answer_itself(kind)
            return
        client = kind, call.client
        request = Request(
            method=call.method,
            target=call.target,
            path=f"/{rest}",
            query=parse_qs(query, keep_blank_values=True),
            headers=call.headers,
            body=call.body,
            client=call.client,
            port=call.port,
            seconds=self._clock.seconds(),
            utc=self._clock.utc(),
            in_flight=self._in_flight[client],
        )
        self._in_flight[client] += 1
        try:
            response = self._answer(kind, [*self._faults[kind], *faults], path, request)
            self._note(kind, request, response)
            late = response.delay_seconds + self.options.latency_seconds
            yield replace(response, delay_seconds=late)
        finally:
            self._in_flight[client] -= 1
            if not self._in_flight[client]:
                del self._in_flight[client]

    def _answer_itself(self, name: str) -> Response:
        match name:
            case "":
                return answer_text(self.describe())
            case "log":
                entries = [entry.as_json() for entry in self.journal.entries]
                return answer_text(compact(entries), content_type=JSON)
            case "violations":
                return answer_text(compact(self.journal.count_violations()), content_type=JSON)
        return answer_text("nothing is imitated here; GET / lists what is\n", 404)

    def _answer(self, kind: str, faults: Sequence[Fault], path: str, request: Request) -> Response:
        upstream = self._upstreams[kind]
        if not faults:
            return upstream.answer(request)
        seen = request.client, path
        nth = self._seen.get(seen, 0) + 1
        remember(self._seen, seen, nth)
        return answer_with(faults, request, upstream, nth, self._served[kind])

    def _note(self, kind: str, request: Request, response: Response) -> None:
        entry = Entry(
            seconds=request.seconds,
            utc=request.utc,
            kind=kind,
            method=request.method,
            target=request.target[:MAX_TARGET],
            port=request.port,
            status=response.status if response.script is None else None,
            violations=response.violations,
        )
        self.journal.note(entry)
        if self._on_request is not None:
            self._on_request(entry)


def _listen(port: int) -> socket.socket:
    try:
        listener = socket.create_server((HOST, port), backlog=BACKLOG)
    except OSError as exc:
        why = os.strerror(exc.errno or 0)  # its own text says the address again
        raise ConfigError(f"--port {port}: {why}; --port 0 takes a free one") from exc
    listener.settimeout(0)
    return listener


async def _accept(listener: socket.socket) -> Wire:
    while True:
        await wait_readable(listener)
        try:
            connection, peer = listener.accept()
        except BlockingIOError:  # that client has left already
            continue
        except OSError:
            await sleep(ACCEPT_PAUSE_SECONDS)
            continue
        return Wire(connection, peer)


async def _secure(wire: Wire, context: SSLContext) -> TLSStream:
    with fail_after(HANDSHAKE_SECONDS):
        # Not standard-compatible: then a cut body is cut under TLS as well, without a notice.
        return await TLSStream.wrap(
            wire, server_side=True, ssl_context=context, standard_compatible=False
        )


async def _serve_client(sandbox: Sandbox, wire: Wire, slots: Semaphore) -> None:
    context = sandbox.tls_context
    try:
        async with wire:
            stream = await _secure(wire, context) if context else wire
            await Connection(stream, wire, sandbox.exchange).serve()
    except (EndOfStream, BrokenResourceError, SSLError, TimeoutError):
        return
    finally:
        slots.release()


async def serve(sandbox: Sandbox, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
    """Serve *sandbox* until cancelled; started, for ``TaskGroup.start``, once the port is bound.

    Raises:
        ConfigError: the port is taken.
    """
    slots = Semaphore(MAX_CONNECTIONS)
    with ungrouped(), _listen(sandbox.options.port) as listener:
        sandbox.port = listener.getsockname()[1]
        async with create_task_group() as tasks:
            task_status.started()
            while True:
                await slots.acquire()
                tasks.start_soon(_serve_client, sandbox, await _accept(listener), slots)


@asynccontextmanager
async def serving(
    options: SandboxOptions | None = None,
    *,
    clock: Clock | None = None,
    on_request: Callable[[Entry], None] | None = None,
) -> AsyncIterator[Sandbox]:
    """Make a sandbox and serve it for the length of the block."""
    sandbox = Sandbox(options, clock=clock, on_request=on_request)
    with ungrouped():
        async with create_task_group() as tasks:
            await tasks.start(serve, sandbox)
            yield sandbox
            tasks.cancel_scope.cancel()
