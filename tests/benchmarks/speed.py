"""What a user feels, as ratios against named baselines measured in the same run.

    python -m tests.benchmarks.speed [--only lesson] [--batches 100000] [--rounds 5]

Every figure is the median over rounds in which the command and its baseline take turns, so that a
machine whose speed drifts slows both. Nothing passes or fails here: the targets stand beside.
Compiled bytecode matters: unset PYTHONDONTWRITEBYTECODE.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from statistics import median

PIPELINE = [sys.executable, "-m", "pipeline"]
WORKERS = 20
FEW = 20  # one for each worker: what starting up and connecting takes
SOME = 1_000
SMALL = 3_000
BARE_IMPORTS = "import sqlmodel, httpx2, typer, anyio"

CONFIG = """
[collect]
deadline_seconds = 3600
[store]
url = "speed.db"
[sources.upstream]
kind = "{kind}"
url = "{url}"
batches = {batches}
in_flight = {in_flight}
merge = false
rate = "none"
word = "uint16"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one process took: seconds by the clock and of processors, and its largest memory."""

    wall: float
    cpu: float
    peak_mb: float


def pin(process: subprocess.Popen[str], place: int) -> None:
    """Give *process* a core of its own, where there are several."""
    if sys.platform == "linux" and len(cores := sorted(os.sched_getaffinity(0))) > 1:
        os.sched_setaffinity(process.pid, {cores[place]})


def run(command: list[str], folder: Path, *, is_pinned: bool = False) -> Cost:
    """Run *command* to its end and say what it took; *is_pinned*: beside a server on its own core.

    Raises:
        RuntimeError: it failed.
    """
    began = time.perf_counter()
    with (folder / "stderr").open("w+") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr, text=True)
        if is_pinned:
            pin(process, -1)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            stderr.seek(0)
            raise RuntimeError(f"{command}: exit {process.returncode}: {stderr.read()}")
    return Cost(wall=wall, cpu=usage.ru_utime + usage.ru_stime, peak_mb=_peak_mb(usage))


def _peak_mb(usage: resource.struct_rusage) -> float:
    return usage.ru_maxrss * (1024 if sys.platform == "linux" else 1) / 1e6


def in_turn(rounds: int, *measures: Callable[[], Cost]) -> list[list[Cost]]:
    """Take each of *measures* once per round, after a round that does not count."""
    taken = [[measure() for measure in measures] for _ in range(rounds + 1)]
    return [list(costs) for costs in zip(*taken[1:], strict=True)]


@contextmanager
def serving(*command: str, is_pinned: bool = False) -> Iterator[str]:
    """Run a server for the length of the block; give the first line that it prints."""
    with subprocess.Popen(
        [sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        if is_pinned:
            pin(process, 0)
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def _configure(folder: Path, **values: object) -> list[str]:
    path = folder / f"{values['in_flight']}.toml"
    path.write_text(CONFIG.format(**values))
    return [*PIPELINE, "collect", "--quiet", "--config", str(path)]


def measure_help(rounds: int, folder: Path) -> str:
    """Compare ``pipeline --help`` with importing Typer alone."""
    ours, base = in_turn(
        rounds,
        lambda: run([*PIPELINE, "--help"], folder),
        lambda: run([sys.executable, "-c", "import typer"], folder),
    )
    mine, theirs = median(c.wall for c in ours), median(c.wall for c in base)
    return f"help: {mine:.3f} s, {mine / theirs:.2f} x `import typer` (target 2)"


def measure_lesson(rounds: int, folder: Path) -> str:
    """Collect the lesson's 28 batches, all at once, from an upstream that takes 1 s to answer."""
    with serving("pipeline", "sandbox", "--port", "0", "--no-rules", "--latency", "1") as line:
        root = line.split("/anu_legacy")[0]
        command = _configure(
            folder,
            kind="anu_legacy",
            url=f"{root}/anu_legacy",
            batches='"2..29"',
            in_flight=28,
        )
        ours, base = in_turn(
            rounds,
            lambda: run(command, folder),
            lambda: run([sys.executable, "-c", BARE_IMPORTS], folder),
        )
    mine, theirs = median(c.wall for c in ours), median(c.wall for c in base)
    ratio = (mine - 1) / theirs
    return f"lesson: {mine:.3f} s = 1 s + {ratio:.2f} x `{BARE_IMPORTS}` (target 1.15)"


@dataclass(frozen=True, slots=True)
class Sides:
    """What so many batches of 16 cost us and a script on aiohttp, one request each."""

    batches: int
    ours: Cost
    script: Cost

    def describe(self, start: "Sides") -> str:
        """Compare both, each without what *start* took."""
        more = self.batches - start.batches
        ours = (self.ours.cpu - start.ours.cpu) / more
        script = (self.script.cpu - start.script.cpu) / more
        return (
            f"{self.batches:,} batches: {self.ours.cpu:.2f} s of processor, {ours * 1e6:.0f} us a"
            f" batch beside starting up, {ours / script:.2f} x a script on aiohttp (target 2)"
        )


def measure_small(rounds: int, folder: Path, many: int) -> Iterator[str]:
    """Collect small batches from a fast server, some and very many; the latter once."""
    with serving("tests.benchmarks.fast_server", "3600", is_pinned=True) as port:
        url = f"http://127.0.0.1:{port}"

        def take(batches: int) -> Sides:
            order = f"{{count = {batches}, size = 16}}"
            new = Path(tempfile.mkdtemp(dir=folder))
            ours = _configure(new, kind="anu_legacy", url=url, batches=order, in_flight=WORKERS)
            script = [sys.executable, "-m", "tests.benchmarks.bare_script", url]
            return Sides(
                batches,
                run(ours, folder, is_pinned=True),
                run([*script, str(batches), str(WORKERS)], folder, is_pinned=True),
            )

        def middle(batches: int) -> Sides:
            taken = [take(batches) for _ in range(rounds)]
            ours = sorted((each.ours for each in taken), key=attrgetter("cpu"))
            script = sorted((each.script for each in taken), key=attrgetter("cpu"))
            return Sides(batches, ours[rounds // 2], script[rounds // 2])

        take(FEW)  # compiled and warm
        start, some = middle(FEW), take(SOME)
        yield middle(SMALL).describe(start)
        large = take(many)
        yield large.describe(start)
    peak, grown = large.ours.peak_mb, large.ours.peak_mb - some.ours.peak_mb
    yield f"{many:,} batches: peak {peak:.0f} MB, {grown:+.1f} beside {SOME:,} (targets 90, 10)"


def main() -> None:
    """Measure all, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("help", "lesson", "small"))
    parser.add_argument("--batches", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, rounds = Path(name), options.rounds
        if options.only in (None, "help"):
            print(measure_help(rounds, folder), flush=True)
        if options.only in (None, "lesson"):
            print(measure_lesson(rounds, folder), flush=True)
        if options.only in (None, "small"):
            for line in measure_small(rounds, folder, options.batches):
                print(line, flush=True)


if __name__ == "__main__":
    main()
