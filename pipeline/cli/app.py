"""The command line: how the process is set up, which commands there are, how the process ends.

Each command imports what it needs when it is called, so that help is quick; and nothing heavy is
imported before ``main`` has seen to the signals.
"""

import gc
import os
import signal
import sys
from typing import TYPE_CHECKING, Annotated, NoReturn

if TYPE_CHECKING:
    from typer import Typer

HELP = """Collect random numbers from rate-limited, flaky HTTP APIs, and keep an exact account.

Begin with `pipeline collect`: without a configuration it asks upstreams that this program plays
itself, on this machine alone.
"""


def make_app() -> "Typer":
    """Put the commands together."""
    import typer

    import pipeline
    from pipeline.cli.audit import audit_app
    from pipeline.cli.collect import collect
    from pipeline.cli.db import db_app
    from pipeline.cli.export import export
    from pipeline.cli.plain import PlainGroup
    from pipeline.cli.plan import plan
    from pipeline.cli.report import report_app
    from pipeline.cli.sandbox import sandbox
    from pipeline.cli.schedule import schedule_app
    from pipeline.cli.schema import schema
    from pipeline.cli.sources import sources_app

    def print_version(is_wanted: bool) -> None:
        if is_wanted:
            typer.echo(f"pipeline {pipeline.__version__}")
            raise typer.Exit

    def root(
        version: Annotated[
            bool,
            typer.Option(
                "--version", "-V", callback=print_version, is_eager=True, help="Print it and exit."
            ),
        ] = False,
    ) -> None:
        pass

    app = typer.Typer(
        cls=PlainGroup,
        help=HELP,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(root)
    app.command()(collect)
    app.command()(plan)
    app.add_typer(report_app, name="report")
    app.add_typer(audit_app, name="audit")
    app.add_typer(schedule_app, name="schedule")
    app.command()(export)
    app.command()(schema)
    app.add_typer(sources_app, name="sources")
    app.add_typer(db_app, name="db")
    app.command(short_help="Serve imitations of the upstreams on this machine.")(sandbox)
    return app


def _open_standard_streams() -> None:
    """Put /dev/null where a standard stream is closed, lest a file of ours takes its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _die_of_signals() -> None:
    """Let signals end the process at once, as they end ``cat``; a run asks for more time itself.

    Python would answer SIGINT with a traceback, and only when SQLite has waited for its lock.
    What is to be ignored (under ``nohup``, in the background of a script) stays ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Until a command begins, which may have sockets: help and usage write to a pipe at most.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def main() -> NoReturn:
    """Run the command line, and end the process."""
    _die_of_signals()
    # What is imported stays: looking it over for garbage again and again is a fifth of the start.
    gc.disable()
    _open_standard_streams()
    os.umask(0o077)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # a TextIOWrapper unless replaced by a test

    from pipeline.cli.boundary import output_failed

    code: object = None
    try:
        make_app()()
    except SystemExit as leaving:
        code = leaving.code
    except OSError as exc:  # help and usage are written outside of the commands
        code = output_failed(exc)
    _leave(code)


def _leave(code: object) -> NoReturn:
    """End the process here and now; what it had to say has been flushed.

    Python would first wait for threads, so that a hung name resolution outlasts every deadline,
    and then take a thousand modules apart for a tenth of a second.
    """
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)
