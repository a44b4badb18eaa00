"""What a user feels, as ratios against named baselines measured in the same run.

    python -m tests.benchmarks.speed [--batches 100000] [--rounds 5]

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
from pathlib import Path
from statistics import median

PIPELINE = [sys.executable, "-m", "pipeline"]
WORKERS = 20
FEW = 1_000

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
    peak_mib: float


def run(command: list[str], folder: Path) -> Cost:
    """Run *command* to its end and say what it took.

    Raises:
        RuntimeError: it failed.
    """
    began = time.perf_counter()
    with (folder / "stderr").open("w+") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            stderr.seek(0)
            raise RuntimeError(f"{command}: exit {process.returncode}: {stderr.read()}")
    return Cost(wall=wall, cpu=usage.ru_utime + usage.ru_stime, peak_mib=_mib(usage))


def _mib(usage: resource.struct_rusage) -> float:
    return usage.ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)


def in_turn(rounds: int, *measures: Callable[[], Cost]) -> list[list[Cost]]:
    """Take each of *measures* once per round, after a round that does not count."""
    taken = [[measure() for measure in measures] for _ in range(rounds + 1)]
    return [list(costs) for costs in zip(*taken[1:], strict=True)]


@contextmanager
def serving(*command: str) -> Iterator[str]:
    """Run a server for the length of the block; give the first line that it prints."""
    with subprocess.Popen(
        [sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
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
            lambda: run([sys.executable, "-c", "import sqlmodel"], folder),
        )
    mine, theirs = median(c.wall for c in ours), median(c.wall for c in base)
    ratio = (mine - 1) / theirs
    return f"lesson: {mine:.3f} s = 1 s + {ratio:.2f} x `import sqlmodel` (target 1.25)"


def measure_many(rounds: int, folder: Path, batches: int) -> Iterator[str]:
    """Collect very many small batches from a fast server; hold it against a bare loop."""
    with serving("tests.benchmarks.fast_server", "3600") as port:
        url = f"http://127.0.0.1:{port}"
        bare = [sys.executable, "-m", "tests.benchmarks.bare_loop", url]

        def collect(count: int) -> Cost:
            order = f"{{count = {count}, size = 16}}"
            command = _configure(
                folder, kind="anu_legacy", url=url, batches=order, in_flight=WORKERS
            )
            return run(command, folder)

        ours_few, ours, bare_few, base = in_turn(
            rounds,
            lambda: collect(FEW),
            lambda: collect(batches),
            lambda: run([*bare, str(FEW), str(WORKERS)], folder),
            lambda: run([*bare, str(batches), str(WORKERS)], folder),
        )
    # The few are taken off, so that starting up counts for nothing.
    per_batch = [(a.cpu - b.cpu) / (batches - FEW) for a, b in zip(ours, ours_few, strict=True)]
    per_send = [(a.cpu - b.cpu) / (batches - FEW) for a, b in zip(base, bare_few, strict=True)]
    ratio = median(a / b for a, b in zip(per_batch, per_send, strict=True))
    yield (
        f"many: {median(per_batch) * 1e6:.0f} us of processor per batch, {ratio:.2f} x a bare loop"
        f" of client.send (target 1.5)"
    )
    grown = median(c.peak_mib for c in ours) - median(c.peak_mib for c in ours_few)
    yield f"many: {grown:+.1f} MiB at {batches:,} batches against {FEW:,} (target 30)"


def main() -> None:
    """Measure all, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(measure_help(options.rounds, folder), flush=True)
        print(measure_lesson(options.rounds, folder), flush=True)
        for line in measure_many(max(1, options.rounds // 2), folder, options.batches):
            print(line, flush=True)


if __name__ == "__main__":
    main()
