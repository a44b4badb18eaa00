"""Somebody who is told: a server on this machine that keeps what it hears."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(slots=True)
class Listener:
    """What was heard, and how it is answered.

    Attributes:
        heard: method, target and body of each request.
        status: of the answers; None: none is given until ``release``.
    """

    url: str
    status: int | None
    heard: list[tuple[str, str, bytes]] = field(default_factory=list)
    agents: list[str | None] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)


@contextmanager
def listening(status: int | None = 200) -> Iterator[Listener]:
    """Listen on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            listener.heard.append((self.command, self.path, body))
            listener.agents.append(self.headers.get("User-Agent"))
            if listener.status is None:
                listener.release.wait(10)
                return
            with suppress(OSError):
                self.send_response(listener.status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

        do_GET = do_POST = answer  # noqa: N815 - what the library calls

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        listener = Listener(f"http://127.0.0.1:{server.server_port}", status)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield listener
        finally:
            listener.release.set()
            server.shutdown()
            thread.join()
