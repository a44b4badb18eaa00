"""``pipeline sandbox``: serve the imitated upstreams until told to stop."""

import gc
from pathlib import Path
from typing import Annotated

from typer import BadParameter, Option

from pipeline.cli.boundary import error_boundary
from pipeline.errors import ConfigError, UsageError
from pipeline.sandbox.options import RandomNumberApiMode, SandboxOptions, TlsMode

REFUSAL_STATUSES = (200, 500)


def _check_status(status: int) -> int:
    if status not in REFUSAL_STATUSES:
        raise BadParameter("must be 200 or 500")
    return status


def _check_faults(faults: list[str]) -> list[str]:
    from pipeline.sandbox.imitations import choose_faults

    try:
        choose_faults(faults)
    except ConfigError as exc:
        raise BadParameter(str(exc)) from exc
    return faults


def sandbox(
    port: Annotated[
        int, Option(min=0, max=65535, metavar="PORT", help="On 127.0.0.1; 0 takes a free one.")
    ] = 8765,
    latency: Annotated[
        float, Option(min=0, max=86_400, metavar="SECONDS", help="Before each answer's first byte.")
    ] = 0.0,
    fault: Annotated[
        list[str],
        Option(
            callback=_check_faults,
            metavar="[KIND:]NAME[=VALUE]",
            help="Switch a fault on; may be given repeatedly.",
        ),
    ] = [],  # noqa: B006 - Typer copies it
    rules: Annotated[
        bool, Option("--rules/--no-rules", help="Enforce keys, limits and quotas.")
    ] = True,
    anu_refusal_status: Annotated[
        int, Option(callback=_check_status, metavar="500|200", help="Both were seen.")
    ] = 500,
    json_error_status: Annotated[
        int,
        Option(
            min=200,
            max=599,
            metavar="STATUS",
            help="Of LfD's and csrng.net's errors; nobody recorded it.",
        ),
    ] = 200,
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
        from pipeline.sandbox.service import print_faults, serve

        if list_faults:
            print_faults()
            return
        if ca_file and not tls:
            raise UsageError("--ca-file: there is no authority to write without --tls")
        options = SandboxOptions(
            port=port,
            latency_seconds=latency,
            faults=tuple(fault),
            rules=rules,
            anu_refusal_status=anu_refusal_status,
            json_error_status=json_error_status,
            random_number_api_mode=random_number_api_mode,
            tls=tls,
        )
        gc.enable()  # the command line switched it off, and this may run for days
        serve(options, ca_file, log, seconds)
