"""The Typer app. Each command imports what it needs when it is called, so that help is quick."""

import gc
import os
import sys
from contextlib import suppress
from typing import Annotated, NoReturn

import typer

import pipeline
from pipeline.cli.audit import audit_app
from pipeline.cli.collect import collect
from pipeline.cli.report import report
from pipeline.cli.sandbox import sandbox

HELP = """Collect random numbers from rate-limited, flaky HTTP APIs, and keep an exact account.

Begin with `pipeline collect`: without a configuration it asks upstreams that this program plays
itself, on this machine alone.
"""

app = typer.Typer(
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(collect)
app.command()(report)
app.add_typer(audit_app, name="audit")
app.command()(sandbox)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"pipeline {pipeline.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_print_version, is_eager=True, help="Print it."),
    ] = False,
) -> None:
    del version


def _open_standard_streams() -> None:
    """Put /dev/null where a standard stream is closed, lest a file of ours takes its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def main() -> None:
    """Run the command line."""
    # What is imported stays: looking it over for garbage again and again is a fifth of the start.
    gc.disable()
    _open_standard_streams()
    os.umask(0o077)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # a TextIOWrapper unless replaced by a test
    try:
        app()
    except SystemExit as leaving:
        _leave(leaving.code)


def _leave(code: object) -> NoReturn:
    """End the process here and now, with everything written.

    Python would first wait for threads, so that a hung name resolution outlasts every deadline,
    and then take a thousand modules apart for a tenth of a second.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)
