"""Run the user's command with JSON about a run on its standard input; no shell is involved."""

import json
import os
import signal
import subprocess
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from io import FileIO
from selectors import EVENT_READ, DefaultSelector
from tempfile import TemporaryFile
from time import monotonic

from pipeline.notify.harmless import SECONDS, within
from pipeline.rendering.records import as_json
from pipeline.settings import Settings

MOST_OUTPUT = 4096  # bytes that are kept, the last ones
LOOK_SECONDS = 0.02  # between two looks whether it has ended while something else holds its output

_GRACE_SECONDS = 1.0  # for what comes after it was killed
_SECRETS = frozenset(
    {
        "PIPELINE_NOTIFY_PING_URL",
        "PIPELINE_STORE_URL",
        "OTEL_EXPORTER_OTLP_HEADERS",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    }
)


def run_hook(
    command: Sequence[str],
    payload: Mapping[str, object],
    *,
    environ: Mapping[str, str],
    secrets: Collection[str] = (),
    seconds: float = SECONDS,
) -> str | None:
    """Run *command* with *payload* as one JSON object on its standard input, and wait for it.

    It gets *environ* without the variables named in *secrets*. Values look as ``as_json`` has them.
    What it prints is dropped unless it fails; then its last line is part of the complaint. When
    *seconds* are over it is killed, with all that it started.
    """
    environment = {name: value for name, value in environ.items() if name not in secrets}
    return within(
        seconds + _GRACE_SECONDS,
        f"the command {command[0]}",
        lambda: _run(command, payload, environment, seconds),
    )


def secret_variables(settings: Settings) -> frozenset[str]:
    """Name the environment variables that hold a secret of ours, whoever put them there."""
    named = {source.api_key_env for source in settings.sources.values()}
    return _SECRETS.union(name for name in (*named, settings.notify.ping_url_env) if name)


def _run(
    command: Sequence[str],
    payload: Mapping[str, object],
    environment: Mapping[str, str],
    seconds: float,
) -> str | None:
    name = f"the command {command[0]}"
    body = json.dumps(payload, default=as_json).encode() + b"\n"
    end = monotonic() + seconds
    reading, writing = os.pipe()
    try:
        process = _start(command, body, environment, writing)
    except OSError as exc:
        os.close(reading)
        return f"{name} cannot be run: {exc.strerror}"
    finally:
        os.close(writing)
    with process, FileIO(reading) as output:
        said = _listen(process, output, end)
        if process.poll() is None:
            with suppress(ProcessLookupError):  # it has ended at this very moment
                os.killpg(process.pid, signal.SIGKILL)
            return f"{name} took longer than {seconds:g} s"
    if process.returncode == 0:
        return None
    lines = said.decode("utf-8", "replace").strip().splitlines()
    code = process.returncode
    how = f"exit status {code}" if code > 0 else f"signal {-code}"
    return f"{name} failed ({how}){f': {lines[-1]}' if lines else ''}"


def _start(
    command: Sequence[str], body: bytes, environment: Mapping[str, str], output: int
) -> "subprocess.Popen[bytes]":
    with TemporaryFile() as stdin:  # not a pipe: it may never read, and we would hang
        stdin.write(body)
        stdin.seek(0)
        return subprocess.Popen(  # noqa: S603 - the user's own words, and no shell reads them
            command,
            stdin=stdin,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )


def _listen(process: "subprocess.Popen[bytes]", output: FileIO, end: float) -> bytes:
    """Keep the last of *output* until *process* has ended, but not beyond the time *end*."""
    said = b""
    with DefaultSelector() as selector:
        selector.register(output, EVENT_READ)
        while monotonic() < end:
            has_ended = process.poll() is not None
            if selector.select(0 if has_ended else LOOK_SECONDS):
                chunk = output.read(MOST_OUTPUT)
                if chunk:
                    said = (said + chunk)[-MOST_OUTPUT:]
                    continue
                selector.unregister(output)
            if has_ended:  # what still holds its output is something that it left behind
                break
    return said
