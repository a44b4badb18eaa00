"""Serve the sandbox until told to stop, and write down what it is asked."""

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
from anyio import move_on_after, open_signal_receiver

from pipeline.errors import ConfigError
from pipeline.rendering.output import flush, write
from pipeline.sandbox.faults import FAULTS
from pipeline.sandbox.journal import Entry
from pipeline.sandbox.options import SandboxOptions
from pipeline.sandbox.server import serving


def serve(
    options: SandboxOptions, ca_file: Path | None, log: Path | None, seconds: float | None
) -> None:
    """Serve, say where, and stop at the first signal or when the time is over.

    Raises:
        ConfigError: a file cannot be written: the certificate of the authority, or the requests.
    """
    anyio.run(_serve, options, ca_file, _journal_writer(log) if log else None, seconds)


async def _serve(
    options: SandboxOptions,
    ca_file: Path | None,
    on_request: Callable[[Entry], None] | None,
    seconds: float | None,
) -> None:
    with open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals, move_on_after(seconds):
        async with serving(options, on_request=on_request) as sandbox:
            if ca_file and sandbox.ca_pem:
                _write_file(ca_file, sandbox.ca_pem)
            write(sandbox.describe().rstrip("\n"))
            flush()
            await anext(signals)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc


def _write_file(path: Path, content: bytes) -> None:
    with _naming(path):
        path.write_bytes(content)


def _journal_writer(path: Path) -> Callable[[Entry], None]:
    """Make what appends each request to *path* as a line of JSON."""
    with _naming(path):
        lines = path.open("a", encoding="utf-8", buffering=1)

    def add(entry: Entry) -> None:
        with _naming(path):
            lines.write(f"{json.dumps(entry.as_json())}\n")

    return add


def print_faults() -> None:
    """List the faults that can be switched on."""
    for name, fault in FAULTS.items():
        value = f"={fault.value}" if fault.value else ""
        write(f"{name + value:<30}{fault.meaning}")
