"""Tests for pipeline/sandbox/server.py, connection.py, wire.py and journal.py."""

import json
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import anyio
import pytest
from anyio import BrokenResourceError, create_task_group, current_time, fail_after, sleep

from pipeline.errors import ConfigError
from pipeline.sandbox import connection, journal, server
from pipeline.sandbox.exchange import MEMORY, remember
from pipeline.sandbox.imitations import KINDS
from pipeline.sandbox.journal import Entry
from pipeline.sandbox.options import SandboxOptions
from pipeline.sandbox.server import HOST, Clock, Sandbox, serve, serving
from pipeline.sandbox.wire import Wire
from tests.sandbox.support import Seen, connect, cut, fetch, read_all, read_one, write_request

pytestmark = pytest.mark.anyio

ANU = "/anu_legacy/API/jsonI.php?length=3&type=uint8"
RANDOM_ORG = "/random_org/integers/?num=3&min=1&max=6&col=1&base=10&format=plain&rnd=new"
MANY_BYTES = 2**22
RPC = "/random_org_jsonrpc/json-rpc/4/invoke"


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """Serve with the rules on, as by default."""
    async with serving() as sandbox:
        yield sandbox


async def _get(sandbox: Sandbox, target: str, *headers: str) -> Seen:
    return cut(await fetch(sandbox, target, *headers))


# Serving.


async def test_a_connection_is_kept_and_serves_request_after_request(sandbox: Sandbox) -> None:
    """A client's pool must be able to do its work."""
    async with await connect(sandbox) as stream:
        for _ in range(3):
            await stream.send(write_request(RANDOM_ORG, is_last=False))
            assert (await read_one(stream)).status == 200


async def test_pipelined_requests_are_answered_in_order(sandbox: Sandbox) -> None:
    """What came in one packet is still two requests."""
    async with await connect(sandbox) as stream:
        await stream.send(write_request("/log", is_last=False) + write_request("/violations"))
        answers = await read_all(stream)

    assert answers.count(b"HTTP/1.1 200") == 2
    assert answers.index(b"[]") < answers.index(b'{"total":0')


async def test_a_body_may_come_in_pieces(sandbox: Sandbox) -> None:
    """A POST is not answered before it is whole."""
    body = b'{"jsonrpc":"2.0","method":"none","params":{},"id":1}'
    request = write_request(RPC, "Content-Type: application/json", method="POST", body=body)
    async with await connect(sandbox) as stream:
        await stream.send(request[:-20])
        await sleep(0.01)
        await stream.send(request[-20:])
        seen = cut(await read_all(stream))

    assert json.loads(seen.body)["error"]["code"] == -32601


async def test_head_gets_no_body(sandbox: Sandbox) -> None:
    """The length stays announced."""
    async with await connect(sandbox) as stream:
        await stream.send(write_request(RANDOM_ORG, method="HEAD"))
        seen = cut(await read_all(stream))

    assert (seen.status, seen.body) == (200, b"")
    assert seen.headers["content-length"] == "6"


async def test_latency_holds_every_answer_back() -> None:
    """A demo of concurrency needs upstreams that take their time."""
    async with serving(SandboxOptions(latency_seconds=0.05)) as sandbox:
        began = current_time()

        assert (await _get(sandbox, RANDOM_ORG)).status == 200

    assert current_time() - began >= 0.05


async def test_urls_lead_to_the_upstreams(sandbox: Sandbox) -> None:
    """The index is what a person sees first."""
    index = (await _get(sandbox, "/")).body.decode()

    assert all(sandbox.url(kind) in index for kind in KINDS)
    assert sandbox.url("anu_aqn", "reset", "fail_first=2") == (
        f"http://127.0.0.1:{sandbox.port}/~reset/~fail_first=2/anu_aqn"
    )


async def test_other_paths_are_not_found(sandbox: Sandbox) -> None:
    """A typing error in a URL must not look like an upstream's refusal."""
    assert (await _get(sandbox, "/anu/API")).status == 404


async def test_it_listens_on_loopback_only(sandbox: Sandbox) -> None:
    """Nobody else is to be answered by an imitation."""
    with socket.socket() as other, pytest.raises(ConnectionRefusedError):
        other.connect(("127.0.0.2", sandbox.port))


async def test_a_taken_port_is_a_complaint_about_the_option(sandbox: Sandbox) -> None:
    """The user can choose another one, or none."""
    with pytest.raises(ConfigError, match=rf"--port {sandbox.port}: Address already in use"):
        await serve(Sandbox(SandboxOptions(port=sandbox.port)))


async def test_what_happens_in_the_block_leaves_it_as_itself() -> None:
    """A caller's own error must not arrive wrapped in a group."""
    with pytest.raises(KeyError):
        async with serving():
            raise KeyError


# Rules that need more than one request to see.


async def test_two_requests_in_flight_are_noticed() -> None:
    """The server counts, so that the imitation need not know about connections."""
    async with serving(SandboxOptions(latency_seconds=0.05)) as sandbox:
        async with create_task_group() as tasks:
            tasks.start_soon(fetch, sandbox, RANDOM_ORG, "User-Agent: a@b")
            tasks.start_soon(fetch, sandbox, RANDOM_ORG, "User-Agent: a@b")

        assert sandbox.journal.violations == {("random_org", "in_flight"): 1}


async def test_a_client_that_waits_for_its_answer_breaks_no_rule(sandbox: Sandbox) -> None:
    """Whoever asks again at once, on any connection, has nothing in flight any more."""
    for _ in range(20):
        await fetch(sandbox, RANDOM_ORG, "User-Agent: a@b")

    assert not sandbox.journal.violations


async def test_time_can_be_turned() -> None:
    """A minute passes without waiting for it."""
    now = [0.0]
    clock = Clock(seconds=lambda: now[0], utc=lambda: datetime(2026, 1, 1, tzinfo=UTC))
    async with serving(clock=clock) as sandbox:
        statuses = []
        for now[0] in (0.0, 59.0, 60.0):
            statuses.append((await _get(sandbox, ANU)).status)

    assert statuses == [200, 500, 200]


# The journal.


async def test_requests_can_be_looked_up_over_http(sandbox: Sandbox) -> None:
    """A test in another process counts and measures gaps by this."""
    await fetch(sandbox, ANU)
    await fetch(sandbox, f"/~close{ANU}")
    await fetch(sandbox, ANU)

    entries = json.loads((await _get(sandbox, "/log")).body)
    violations = json.loads((await _get(sandbox, "/violations")).body)

    assert [(entry["status"], entry["violations"]) for entry in entries] == [
        (200, []),
        (None, []),
        (500, ["rate"]),
    ]
    assert entries[1]["target"] == f"/~close{ANU}"
    assert entries[0]["seconds"] <= entries[1]["seconds"]
    assert violations == {"total": 1, "by_kind": {"anu_legacy": {"rate": 1}}}


async def test_who_serves_can_watch_each_request() -> None:
    """An answer can be held while a test does something to the client."""
    asked = anyio.Event()

    def note(entry: Entry) -> None:
        assert entry.kind == "anu_legacy"
        asked.set()

    async with serving(on_request=note) as sandbox, await connect(sandbox) as stream:
        await stream.send(write_request(f"/~stall{ANU}"))

        with fail_after(60):
            await asked.wait()


async def test_the_journal_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox may run for weeks beside a schedule."""
    monkeypatch.setattr(journal, "MAX_ENTRIES", 2)
    book = journal.Journal()

    for number in range(3):
        book.note(
            Entry(
                seconds=number,
                utc=datetime.now(UTC),
                kind="anu_legacy",
                method="GET",
                target="/",
                port=1,
                status=200,
                violations=("rate",),
            )
        )

    assert [entry.seconds for entry in book.entries] == [1, 2]
    assert book.violations.total() == 3


async def test_a_long_target_is_cut(sandbox: Sandbox) -> None:
    """Ten thousand entries of 64 kB each would be no bound."""
    await fetch(sandbox, f"{ANU}&x={'x' * 1000}")

    assert len(sandbox.journal.entries[0].target) == journal.MAX_TARGET


def test_memory_forgets_the_oldest() -> None:
    """Keys and clients may be invented without end."""
    memory = dict.fromkeys(range(MEMORY))

    remember(memory, -1, None)

    assert len(memory) == MEMORY
    assert 0 not in memory
    assert -1 in memory


# Clients that misbehave.


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * connection.MAX_HEAD_BYTES, 431),
        (write_request(RPC, method="POST", body=bytes(connection.MAX_BODY_BYTES + 1)), 413),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", 400),
    ],
)
async def test_what_is_no_request_is_told_so(sandbox: Sandbox, data: bytes, status: int) -> None:
    """And the next client finds the server well."""
    async with await connect(sandbox) as stream:
        await stream.send(data)
        await stream.send_eof()
        seen = cut(await read_all(stream))

    assert seen.status == status
    assert (await _get(sandbox, "/")).status == 200


async def test_a_client_that_leaves_in_the_middle_harms_nobody(sandbox: Sandbox) -> None:
    """At every place where it can leave."""
    for start in (b"", b"GET / HT", write_request(f"/~endless_body{ANU}")):
        async with await connect(sandbox) as stream:
            await stream.send(start) if start else None
            await sleep(0.005)

    assert (await _get(sandbox, "/")).status == 200


async def test_a_client_that_resets_harms_nobody(sandbox: Sandbox) -> None:
    """The server's next read or write fails, and that is all."""
    with socket.create_connection((HOST, sandbox.port)) as client:
        client.sendall(write_request(f"/~stall{ANU}"))
        await sleep(0.01)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    await sleep(0.01)

    assert (await _get(sandbox, "/")).status == 200


async def test_a_silent_client_is_sent_away(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take a connection from others for ever."""
    monkeypatch.setattr(connection, "IDLE_SECONDS", 0.01)

    async with await connect(sandbox) as stream:
        assert await read_all(stream) == b""


async def test_connect_is_not_served(sandbox: Sandbox) -> None:
    """The method would turn the connection into a tunnel, which this is not."""
    async with await connect(sandbox) as stream:
        await stream.send(write_request(RANDOM_ORG, method="CONNECT"))
        await read_all(stream)

    assert (await _get(sandbox, "/")).status == 200


async def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one waits in the kernel's queue until another leaves."""
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 1)
    async with serving() as sandbox:
        async with await connect(sandbox):
            with pytest.raises(TimeoutError), fail_after(0.02):
                await fetch(sandbox, "/")

        assert (await _get(sandbox, "/")).status == 200


async def test_a_client_that_does_not_read_holds_nobody_up(sandbox: Sandbox) -> None:
    """The kernel's buffers fill, and from then on only that connection waits."""
    async with await connect(sandbox) as stream:
        await stream.send(write_request(f"/~endless_body{ANU}"))
        await sleep(0.02)

        assert (await _get(sandbox, "/")).status == 200


async def test_what_the_kernel_cannot_take_at_once_is_sent_in_time() -> None:
    """A slow reader gets every byte in the end."""
    with socket.create_server((HOST, 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        connection, peer = listener.accept()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)
    wire = Wire(connection, peer)
    received = 0
    with client:
        client.settimeout(0)
        async with create_task_group() as tasks:
            tasks.start_soon(wire.send, bytes(MANY_BYTES))
            await anyio.wait_all_tasks_blocked()
            while received < MANY_BYTES:
                await anyio.wait_readable(client)
                received += len(client.recv(2**20))

    assert received == MANY_BYTES
    await wire.aclose()


async def test_a_wire_that_is_gone_says_so() -> None:
    """Whichever way it is used; the handler of the connection waits for that."""
    with socket.create_server((HOST, 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        wire = Wire(*listener.accept())
    client.close()
    wire.reset()

    with pytest.raises(BrokenResourceError):
        await wire.send_eof()
    with pytest.raises(BrokenResourceError):
        await wire.send(b"x")


async def test_what_a_client_says_during_a_stall_is_ignored(sandbox: Sandbox) -> None:
    """It must not fill the server's memory either."""
    async with await connect(sandbox) as stream:
        for _ in range(3):
            await stream.send(write_request(f"/~stall{ANU}"))
            await sleep(0.002)

    assert len(sandbox.journal.entries) == 1


async def test_no_descriptor_left_is_a_pause_and_not_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel keeps the connection until there is one."""
    monkeypatch.setattr(server, "ACCEPT_PAUSE_SECONDS", 0.001)
    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(0)
        refusing = _Refusing(listener, [BlockingIOError(), OSError("too many open files")])
        with socket.create_connection(listener.getsockname()) as client:
            wire = await server._accept(refusing)  # type: ignore[arg-type] # three methods are enough

            assert wire.peer == client.getsockname()
            await wire.aclose()


class _Refusing:
    """A listener whose first accepts fail as the kernel lets them fail."""

    def __init__(self, listener: socket.socket, failures: list[OSError]) -> None:
        self._listener = listener
        self._failures = failures
        self.fileno = listener.fileno

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        if self._failures:
            raise self._failures.pop(0)
        return self._listener.accept()
