"""One client's connection: bytes to calls, answers to bytes, scripts as they stand.

A broken client ends its own connection and nothing else.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from math import inf

import h11
from anyio import EndOfStream, fail_after, sleep
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint

from pipeline.sandbox.exchange import Call, Response, Signal, Step, answer_text
from pipeline.sandbox.wire import Wire, drain

MAX_HEAD_BYTES = 65_536
MAX_BODY_BYTES = 65_536
IDLE_SECONDS = 75.0  # that a client may take for one request
LINGER_SECONDS = 1.0  # for a client that we hang up on to read why

Exchange = Callable[[Call], AbstractContextManager[Response]]


class _TooLarge(Exception):
    """The request's body is larger than anybody here needs."""


class Connection:
    """A conversation over *stream*, which is *wire* itself or TLS on top of it."""

    def __init__(self, stream: ByteStream, wire: Wire, exchange: Exchange) -> None:
        self._stream = stream
        self._wire = wire
        self._exchange = exchange
        self._client, self._port = wire.peer
        self._http = h11.Connection(h11.SERVER, MAX_HEAD_BYTES)

    async def serve(self) -> None:
        """Answer until the client leaves, breaks the protocol, or a script was played.

        Raises:
            BrokenResourceError: the client has left in the middle.
            TimeoutError: the client has been silent for too long.
        """
        try:
            while await self._serve_one():
                self._http.start_next_cycle()
        except h11.ProtocolError as exc:
            await self._hang_up(exc.error_status_hint)
        except _TooLarge:
            await self._hang_up(413)

    async def _serve_one(self) -> bool:
        """Serve one call; False: the connection is at its end."""
        with fail_after(IDLE_SECONDS):
            call = await self._receive_call()
        if call is None:
            return False
        with self._exchange(call) as response:
            if response.delay_seconds:
                await sleep(response.delay_seconds)
            if response.script is not None:
                await self._play(response.script)
                return False
        # Here the request no longer counts as in flight: a client that has its answer may ask
        # again before this task runs again.
        await self._stream.send(self._write(response, is_head=call.method == "HEAD"))
        return self._http.our_state is h11.DONE

    async def _receive_call(self) -> Call | None:
        head = await self._next_event()
        if not isinstance(head, h11.Request):
            return None
        body = b""
        while isinstance(event := await self._next_event(), h11.Data):
            body += event.data
            if len(body) > MAX_BODY_BYTES:
                raise _TooLarge
        return Call(
            method=head.method.decode("ascii"),
            target=head.target.decode("ascii"),
            headers={name.decode("ascii"): value.decode("latin-1") for name, value in head.headers},
            body=body,
            client=self._client,
            port=self._port,
        )

    async def _next_event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            try:
                self._http.receive_data(await self._stream.receive())
            except EndOfStream:
                self._http.receive_data(b"")
        return event

    def _write(self, response: Response, *, is_head: bool = False) -> bytes:
        headers = [(name.encode(), value.encode()) for name, value in response.headers]
        has_body = response.status not in {204, 304}
        if has_body:
            headers.append((b"Content-Length", b"%d" % len(response.body)))
        head = h11.Response(status_code=response.status, headers=headers)
        parts = [self._http.send(head)]
        if has_body and not is_head:
            parts.append(self._http.send(h11.Data(data=response.body)))
        return b"".join([*parts, self._http.send(h11.EndOfMessage())])

    async def _play(self, script: Iterator[Step]) -> None:
        for step in script:
            if isinstance(step, bytes):
                await self._stream.send(step)
                await checkpoint()  # or a script without pauses would hold the whole loop
            elif step is Signal.RESET:
                self._wire.reset()
                return
            elif step == inf:
                await drain(self._stream, inf)
            else:
                await sleep(step)

    async def _hang_up(self, status: int) -> None:
        """Say what was wrong; closing with unread bytes would reset that away."""
        if self._http.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        response = answer_text("this request cannot be served\n", status)
        await self._stream.send(self._write(response))
        await self._wire.send_eof()
        await drain(self._stream, LINGER_SECONDS)
