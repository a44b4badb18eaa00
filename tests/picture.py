"""Draw docs/run.svg, the picture that the README opens with, of real commands on the sandbox.

    python -m tests.picture

One upstream refuses as the lesson's did: in plain text, where JSON was expected. ``test_picture``
runs the same commands again, and holds the picture to all but the numbers.
"""

import os
import pty
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from fcntl import ioctl
from io import StringIO
from pathlib import Path
from struct import pack
from termios import TIOCSWINSZ

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from tests.processes import ROOT

FILE = ROOT / "docs" / "run.svg"
WIDTH = 100
COMMANDS = ("collect", "audit show {}", "status")
REFUSING = '["anu_legacy:refusal"]'
KEPT = {"collect": (5, 6), "audit": (3, 9), "status": (40, 0)}  # lines: the first, the last

# Not rich's own frame, which fetches its font from somewhere.
FRAME = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"
aria-label="pipeline on a terminal">
<style>
.{unique_id}-matrix {{
  font: {char_height}px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
}}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
<rect width="{width}" height="{height}" rx="8" fill="#15191f"/>
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
COLOURS = "15191f e66e5a 46be8c e6aa3c 5aaae6 cc79a7 56b4e9 e0e4e8"
ANSI = [(red, green, blue) for red, green, blue in map(bytes.fromhex, COLOURS.split())]
THEME = TerminalTheme(ANSI[0], ANSI[-1], ANSI)


def run_commands(folder: Path) -> Iterator[tuple[str, str]]:
    """Run each command on a terminal in an empty home, and give it with what it wrote."""
    names = ("DATA", "STATE", "CONFIG")
    env = {f"XDG_{name}_HOME": str(folder / name.lower()) for name in names} | {
        "HOME": str(folder),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PIPELINE_CONFIG": "builtin",
        "PIPELINE_SANDBOX_FAULTS": REFUSING,
        "PIPELINE_SOURCES_SANDBOX_ANU_RETRIES": "0",  # the next try would wait for a minute
        "TERM": "xterm-256color",
    }
    refused = ""
    for template in COMMANDS:
        command = template.format(refused)
        ours, theirs = pty.openpty()
        ioctl(theirs, TIOCSWINSZ, pack("4H", 60, WIDTH, 0, 0))
        words = [sys.executable, "-m", "pipeline", *shlex.split(command)]
        with subprocess.Popen(words, env=env, cwd=folder, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            seen = b"".join(_read(ours))
            process.wait()
        os.close(ours)
        text = seen.decode().replace("\r\n", "\n").replace(str(folder), "~")
        if found := re.search(r"audit\s+show\s+(\d+)", text):
            refused = found[1]
        yield command, text


def _read(descriptor: int) -> Iterator[bytes]:
    while True:
        try:
            data = os.read(descriptor, 65536)
        except OSError:  # the other end was closed
            return
        yield data


def lines_of(command: str, seen: str) -> list[str]:
    """Keep of an answer what the picture has room for, as the terminal shows it in the end."""
    # A progress bar that came and went stands before the codes that took it away.
    shown = re.sub(r"(?s)^.*\x1b\[(1A\x1b\[2K|\?25h)", "", seen) if command == "collect" else seen
    lines = shown.strip("\n").splitlines()
    first, last = KEPT[command.split(maxsplit=1)[0]]
    if len(lines) <= first + last:
        return lines
    return [*lines[:first], "…", *(lines[-last:] if last else ())]


def draw() -> str:
    """Draw what the commands write."""
    console = Console(
        record=True, width=WIDTH, file=StringIO(), force_terminal=True, color_system="truecolor"
    )
    with tempfile.TemporaryDirectory() as folder:
        for command, seen in run_commands(Path(folder)):
            console.print(Text.assemble(("$ ", "dim"), (f"pipeline {command}", "bold")))
            for line in lines_of(command, seen):
                console.print(Text.from_ansi(line), overflow="fold")
            console.print()
    return console.export_svg(code_format=FRAME, theme=THEME, unique_id="run")


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(draw(), encoding="utf-8")
