"""What all tests share: a sandbox to ask, and a guard that lets no test leave this machine.

Async tests run on asyncio and on Trio, which starts tasks in random order.
"""

import sys
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from pipeline.sandbox.options import SandboxOptions
from pipeline.sandbox.server import Sandbox, serving

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
