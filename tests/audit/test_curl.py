"""Commands that repeat a request: what a real shell makes of them, and what a real curl sends."""

import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.audit.curl import curl_command
from pipeline.errors import UsageError
from pipeline.models import Batch, Fetch, Request
from pipeline.run.observer import ExchangeObserver
from pipeline.settings.presets import JSON_API
from pipeline.sources.registry import KINDS, make_source

KEY = "k'\"$(touch pwned) `id` %s \\"
VARIABLE = "ANU_AQN_KEY"
HOSTILE = "$(touch pwned) `touch pwned` ' \" \\ $HOME ${HOME %s !! ; & | * ~ # <x>"

# In the place of curl: the arguments as they arrive, each ended by a zero byte.
SPY = 'curl() { printf "%s\\0" "$@"; }\n'

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def ask(
    url: str = "http://127.0.0.1:1/",
    *headers: tuple[str, str],
    method: str = "GET",
    body: bytes = b"",
) -> Request:
    """Keep a request."""
    return Request(method=method, url=url, headers=headers, body=body)


def run(script: str, folder: Path, **environ: str) -> "subprocess.CompletedProcess[bytes]":
    """Run *script* in the system's own shell."""
    env = {"PATH": "/usr/bin:/bin", "HOME": str(folder), **environ}
    shell = ("/bin/sh", "-c", script)
    return subprocess.run(shell, check=False, cwd=folder, env=env, capture_output=True)


def arguments(request: Request, folder: Path) -> list[bytes]:
    """Tell what curl would be given."""
    done = run(SPY + curl_command(request, max_seconds=3), folder, **{VARIABLE: KEY})
    assert done.stderr == b""
    return done.stdout.split(b"\0")[:-1]


def values_of(option: bytes, given_: list[bytes]) -> list[bytes]:
    """Pick what follows each *option*."""
    return [after for name, after in pairwise(given_) if name == option]


@contextmanager
def one_request() -> Iterator[tuple[str, list[bytes]]]:
    """Serve a single request, and keep it as it came: its head and its body."""
    came: list[bytes] = []

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            lines = list(iter(self.rfile.readline, b"\r\n"))
            length = [line.split()[1] for line in lines if line.lower().startswith(b"content-len")]
            came.extend((b"".join(lines), self.rfile.read(int(length[0])) if length else b""))
            self.wfile.write(b"HTTP/1.1 418 I'm a teapot\r\nContent-Length: 2\r\n\r\nno")

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.timeout = 30  # for who fails before it has asked
        thread = Thread(target=server.handle_request)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", came
        finally:
            thread.join()


@needs_curl
def test_curl_sends_byte_by_byte_what_was_sent(tmp_path: Path) -> None:
    """The secret is back in its place, nothing of curl's own is added, no part of it is run."""
    body = (
        f'{{"key":"${{{VARIABLE}}}",\n"x":"{HOSTILE}"}}\r\n\t\u00e9\n'.encode() + b"\xff\x1b[2J\n"
    )
    with one_request() as (url, came):
        request = ask(
            f"{url}/a/../b[1-3]?q={{x,y}}&p=%41",
            ("Host", "overridden"),
            ("x-api-key", f"${{{VARIABLE}}}"),
            ("X-Hostile", HOSTILE),
            ("X-Empty", ""),
            ("Content-Length", "12345"),
            method="POST",
            body=body,
        )

        done = run(curl_command(request, max_seconds=3), tmp_path, **{VARIABLE: KEY})

    head, sent = came
    assert head.decode().splitlines() == [
        "POST /a/../b[1-3]?q={x,y}&p=%41 HTTP/1.1",
        f"Host: {url.removeprefix('http://')}",
        f"x-api-key: {KEY}",
        f"X-Hostile: {HOSTILE}",
        "X-Empty:",
        f"Content-Length: {len(sent)}",
    ]
    assert sent == body.replace(b"${ANU_AQN_KEY}", KEY.encode())
    assert done.stdout.startswith(b"HTTP/1.1 418 I'm a teapot\r\n")
    assert list(tmp_path.iterdir()) == []


@needs_curl
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != JSON_API])
def test_the_request_of_each_adapter_arrives_as_it_was(kind: str, tmp_path: Path) -> None:
    """The same line, the same headers, the same body as over our own connection."""
    secret = "0d6f3e2a-canary"
    fetch = Fetch(number=0, batches=(Batch(number=0, source="a", n=5, min=1, max=6),))
    with one_request() as (url, came):
        source = make_source(kind, url=url, api_key=secret, email="a@example.org")
        ours = source.build_request(fetch)
        observer = ExchangeObserver(run_id=1, secrets=(secret,), variable=VARIABLE)
        command = curl_command(observer.describe(ours), max_seconds=3)

        run(command, tmp_path, **{VARIABLE: secret})

    head, body = came
    line, *headers = head.decode().splitlines()
    assert line == f"{ours.method} {ours.url.raw_path.decode()} HTTP/1.1"
    sent = {name.lower(): value for name, value in (each.split(": ") for each in headers)}
    assert sent == dict(ours.headers)
    assert body == ours.content
    assert secret not in command


@settings(max_examples=40, deadline=None)
@given(st.binary().map(lambda data: data.replace(b"\0", b"")))
def test_any_body_passes_the_shell_unharmed(body: bytes) -> None:
    """And what is printed is plain ASCII: nothing in it can steer a terminal."""
    body = b"x" + body.replace(b"${", b"")  # a variable of that name would be meant
    request = ask(method="POST", body=body)

    given_ = arguments(request, Path("/"))

    assert values_of(b"--data-raw", given_) == [body]
    command = curl_command(request, max_seconds=3)
    assert command.replace("\n", "").isascii()
    assert command.replace("\n", "").isprintable()


def test_what_a_shell_reads_is_what_posix_words_say(tmp_path: Path) -> None:
    """Read by a second reader of shell words: options, method, headers and URL are words."""
    request = ask("https://example.org/?a=1&b=2", ("Accept", "a'b"), method="GET")

    words = shlex.split(curl_command(request, max_seconds=3).replace("\\\n", " "))

    assert words == [
        *("curl", "--disable", "--include", "--globoff", "--path-as-is", "--http1.1"),
        *("--noproxy", "*", "--max-time", "3"),
        *("--request", "GET", "https://example.org/?a=1&b=2"),
        *("--header", "Accept: a'b", "--header", "User-Agent:"),
    ]
    assert [word.encode() for word in words[1:]] == arguments(request, tmp_path)


def test_a_secret_that_is_not_set_stops_the_shell(tmp_path: Path) -> None:
    """Sent with an empty key, the request would cost a refusal, or worse, a ban."""
    command = curl_command(ask("http://127.0.0.1:1/", ("k", "${A_KEY}")), max_seconds=3)

    done = run(SPY + command, tmp_path)

    assert '"${A_KEY:?set it first}"' in command
    assert done.returncode != 0
    assert done.stdout == b""
    assert b"set it first" in done.stderr


def test_a_secret_is_found_wherever_it_stands(tmp_path: Path) -> None:
    """Some upstreams take it in the URL, some in the middle of a body."""
    request = ask("http://h/?k=${ANU_AQN_KEY}&n=1", method="POST", body=b'{"k":"${ANU_AQN_KEY}"}')

    given_ = arguments(request, tmp_path)

    assert f"http://h/?k={KEY}&n=1".encode() in given_
    assert values_of(b"--data-raw", given_) == [f'{{"k":"{KEY}"}}'.encode()]


def test_what_only_looks_like_a_variable_is_text(tmp_path: Path) -> None:
    """The shell must not get to see it."""
    body = b"${1} ${} ${a-b} $x ${x"

    assert values_of(b"--data-raw", arguments(ask(body=body), tmp_path)) == [body]


def test_a_zero_byte_cannot_be_repeated() -> None:
    """No argument can hold one; to drop it would send something else."""
    with pytest.raises(UsageError, match="zero byte"):
        curl_command(ask(body=b"a\0b"), max_seconds=3)
