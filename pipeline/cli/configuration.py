"""Read the settings for a command, and see that they do for what it is going to do."""

import os
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.boundary import complain
from pipeline.errors import ConfigError, UsageError
from pipeline.sanitize import printable

if TYPE_CHECKING:
    from pipeline.settings import Settings


MOST_INPUT = 2**24  # bytes: a million batches, with room to spare


def is_by_hand() -> bool:
    """Tell whether a person has started us: neither cron nor systemd gives a terminal."""
    streams = (sys.stdin, sys.stdout, sys.stderr)
    return any(stream is not None and stream.isatty() for stream in streams)


def read_settings(
    config: Path | None, *, will_ask: bool = True, say: Callable[[str], object] = complain
) -> "Settings":
    """Read the settings from *config*, or from where they are looked for."""
    from pipeline.settings import load_settings

    return load_settings(config, os.environ, will_ask=will_ask, say=say)


def read_settings_quietly(config: Path | None) -> "Settings | None":
    """Read the settings for a shell that completes a word; None if they are wrong."""
    with suppress(ConfigError):
        return read_settings(config, will_ask=False, say=lambda _: None)
    return None


def with_options(
    settings: "Settings",
    deadline_seconds: float | None,
    sources: Collection[str] | None,
    batches: str | None,
) -> "Settings":
    """Let the options of ``collect`` and ``plan`` win over the file."""
    from pipeline.settings import with_overrides

    return with_overrides(
        settings,
        deadline_seconds=deadline_seconds,
        sources=sources or (),
        batches=read_batches(batches),
    )


def read_batches(given: str | None) -> str | None:
    """Give the batches that are ordered on the command line; ``-`` stands for standard input.

    Raises:
        UsageError: there is none, or it is too long or no text.
    """
    if given != "-":
        return given
    try:
        data = b"" if sys.stdin is None else sys.stdin.buffer.read(MOST_INPUT + 1)
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--batches -: standard input cannot be read: {error}") from error
    if len(data) > MOST_INPUT:
        raise UsageError(f"--batches -: standard input is longer than {MOST_INPUT} bytes")
    return text


def read_settings_to_run(config: Path | None) -> "Settings":
    """Read the settings of runs, whose numbers go into the books.

    Raises:
        ConfigError: they are wrong; or there are none, and nobody is here who would notice that
            the built-in ones, with the sandbox's numbers, stand in for them.
    """
    settings = read_settings(config)
    if settings.searched and not is_by_hand():
        places = " or ".join(printable(str(file)) for file in settings.searched)
        raise ConfigError(
            "no configuration found: none is named by --config or $PIPELINE_CONFIG, and there is"
            f" none of ours at {places}; --config builtin asks the sandbox"
        )
    return settings
