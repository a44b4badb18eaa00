"""``pipeline export``: the stored numbers and records as files for other programs."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli.boundary import complain, error_boundary
from pipeline.cli.configuration import read_settings
from pipeline.cli.options import ConfigOption, RunOption, SinceOption, SourceOption, UntilOption
from pipeline.export.choices import FileFormat, Records
from pipeline.rendering.output_file import STDOUT


def export(
    what: Annotated[
        Records, Argument(metavar="WHAT", help="numbers, batches, attempts, runs or proofs.")
    ],
    target: Annotated[
        Path, Argument(metavar="TARGET", help="The file to write; - is stdout.")
    ] = STDOUT,
    config: ConfigOption = None,
    run: RunOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    source: SourceOption = None,
    format_: Annotated[
        FileFormat | None,
        Option("--format", "-f", help="What to write; else TARGET's ending says it, else CSV."),
    ] = None,
    each_source: Annotated[
        bool, Option("--each-source", help="TARGET is a folder: a file in it for each source.")
    ] = False,
    force: Annotated[bool, Option("--force", help="Replace files that are there already.")] = False,
) -> None:
    """Write numbers, batches, attempts, runs or proofs to a file.

    A run is exported once it has ended. Times are UTC; durations, named _us, microseconds. In CSV
    a text that a spreadsheet could take for a formula gets an apostrophe in front. The format bytes
    is for programs that test random bits: of numbers from 2, 4, 8, ... values, and nothing else.

    \b
    pipeline export numbers numbers.parquet        every number there is
    pipeline export batches --since 7d | head      CSV on stdout
    pipeline export numbers -s anu -f bytes | ent  their bits alone
    pipeline export numbers data --each-source     data/anu.csv and so on
    pipeline export proofs proofs.csv              what the sources signed
    """
    with error_boundary():
        from pipeline.export.files import Wanted, choose_format, write_export

        spelled = choose_format(target, format_, is_folder=each_source)
        wanted = Wanted(what=what, run=run, since=since, until=until, source=source)
        settings = read_settings(config, will_ask=False)
        for missing in write_export(
            settings, wanted, target, spelled, each_source=each_source, force=force
        ):
            complain(missing)
