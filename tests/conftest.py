"""What all tests share: a sandbox, a PostgreSQL server, and a guard: no test leaves this machine.

Async tests run on asyncio and on Trio, which starts tasks in random order.
"""

import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from ipaddress import ip_address
from typing import Any

import pytest

from pipeline.sandbox.options import SandboxOptions
from pipeline.sandbox.server import Sandbox, serving
from tests import servers

_strays: list[str] = []


def _is_here(host: object) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    try:
        return name in (None, "localhost") or ip_address(str(name)).is_loopback
    except ValueError:
        return False


def _stop_strays(event: str, args: tuple[Any, ...]) -> None:
    match event, args:
        case "socket.getaddrinfo", (host, *_):
            pass
        case "socket.connect" | "socket.sendto", (_, (host, *_)):
            pass
        case _:
            return
    if not _is_here(host):
        _strays.append(f"{event}: {host}")
        raise PermissionError(f"a test may not leave this machine for {host}")


# Not a patch, because an audit hook sees what C does as well. It cannot be taken out again.
sys.addaudithook(_stop_strays)


# What `nohup` or a shell's `&` has us ignore, the processes that we start would ignore as well,
# and some tests send it to them. What is caught here is reset there, and still does not end us.
for _signum in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_signum) is signal.SIG_IGN:
        signal.signal(_signum, lambda *_: None)


@pytest.fixture(scope="session", autouse=True)
def _nobody_looks() -> None:
    """Forget the terminal: under pytest-xdist, readline sets the size of one that is not there."""
    for name in ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR"):
        os.environ.pop(name, None)


@pytest.fixture(autouse=True)
def _nobody_leaves_this_machine() -> Iterator[None]:
    """Fail the test that tried, even if the program took the refusal for a failed connection."""
    _strays.clear()
    yield
    assert _strays == []


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """Serve the upstreams without their rules, so that each test may ask at once."""
    async with serving(SandboxOptions(rules=False)) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def postgres() -> Iterator[servers.Server]:
    """Run a PostgreSQL server, if there can be one here."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(servers.running())
        except servers.NoServerError as exc:
            if os.environ.get(servers.MUST) == "must":
                raise
            pytest.skip(str(exc))
        yield server
