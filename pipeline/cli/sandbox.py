"""``pipeline sandbox``: serve the imitated upstreams until told to stop."""

import gc
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import BadParameter, Option, echo

from pipeline.cli.boundary import error_boundary
from pipeline.cli.render import write
from pipeline.errors import ConfigError
from pipeline.sandbox.options import RandomNumberApiMode, SandboxOptions, TlsMode

if TYPE_CHECKING:
    from pipeline.sandbox.journal import Entry

REFUSAL_STATUSES = (200, 500)


def _check_status(status: int) -> int:
    if status not in REFUSAL_STATUSES:
        raise BadParameter("must be 200 or 500")
    return status


def _write_file(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc


def _journal_writer(path: Path) -> Callable[["Entry"], None]:
    """Make what appends each request to *path* as a line of JSON."""
    try:
        lines = path.open("a", encoding="utf-8", buffering=1)
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc

    def write(entry: "Entry") -> None:
        try:
            lines.write(f"{json.dumps(entry.as_json())}\n")
        except OSError as exc:
            raise ConfigError(f"{path}: {exc.strerror}") from exc

    return write


async def _serve(
    options: SandboxOptions, ca_file: Path | None, log: Path | None, seconds: float | None
) -> None:
    """Serve, say where, and stop at the first signal or when the time is over."""
    from anyio import move_on_after, open_signal_receiver

    from pipeline.sandbox.server import serving

    on_request = _journal_writer(log) if log else None
    with open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals, move_on_after(seconds):
        async with serving(options, on_request=on_request) as sandbox:
            if ca_file and sandbox.ca_pem:
                _write_file(ca_file, sandbox.ca_pem)
            echo(sandbox.describe(), nl=False)
            await anext(signals)


def _print_faults() -> None:
    from pipeline.sandbox.faults import FAULTS

    for name, fault in FAULTS.items():
        value = f"={fault.default}" if fault.default else ""
        write(f"{name + value:<30}{fault.meaning}")


def sandbox(
    port: Annotated[int, Option(min=0, max=65535, help="On 127.0.0.1; 0 takes a free one.")] = 8765,
    latency: Annotated[
        float, Option(min=0, metavar="SECONDS", help="Before each answer's first byte.")
    ] = 0.0,
    fault: Annotated[
        list[str] | None,
        Option(metavar="[KIND:]NAME[=VALUE]", help="Switch a fault on; may be given repeatedly."),
    ] = None,
    rules: Annotated[
        bool, Option("--rules/--no-rules", help="Enforce keys, limits and quotas.")
    ] = True,
    anu_refusal_status: Annotated[
        int, Option(callback=_check_status, metavar="500|200", help="Both were seen.")
    ] = 500,
    random_number_api_mode: Annotated[
        RandomNumberApiMode, Option(help="Which generation of randomnumberapi.com.")
    ] = RandomNumberApiMode.GO2023,
    tls: Annotated[TlsMode | None, Option(help="Serve https with such a certificate.")] = None,
    ca_file: Annotated[
        Path | None, Option(metavar="FILE", help="Write the authority to trust there (PEM).")
    ] = None,
    log: Annotated[
        Path | None, Option(metavar="FILE", help="Append each request as a line of JSON.")
    ] = None,
    seconds: Annotated[
        float | None, Option(min=0, metavar="SECONDS", help="Stop after so long.")
    ] = None,
    list_faults: Annotated[
        bool, Option("--list-faults", help="Print the faults that can be switched on.")
    ] = False,
) -> None:
    """Serve imitations of the upstreams on this machine, with their rules and their failures.

    Prints the URLs and runs until interrupted. A fault is switched on for all with --fault, or
    for one URL in its path: http://127.0.0.1:8765/~reset/anu_legacy/...

    Example: pipeline sandbox --latency 0.2 --fault anu_legacy:rate_limited=5
    """
    with error_boundary():
        if list_faults:
            _print_faults()
            return
        if ca_file and not tls:
            raise ConfigError("--ca-file: there is no authority to write without --tls")
        options = SandboxOptions(
            port=port,
            latency_seconds=latency,
            faults=tuple(fault or ()),
            rules=rules,
            anu_refusal_status=anu_refusal_status,
            random_number_api_mode=random_number_api_mode,
            tls=tls,
        )
        import anyio

        gc.enable()  # the command line switched it off, and this may run for days
        anyio.run(_serve, options, ca_file, log, seconds)
