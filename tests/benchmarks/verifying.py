"""How long `pipeline audit verify` takes on a large store, and what the note of the last one saves.

    python -m tests.benchmarks.verifying [FOLDER] [--attempts 1000000] [--rounds 3]

The store is that of `big_store`, and is made if FOLDER does not have it. Each command is a whole
process. The baseline is `--all` on one core; against it stand `--all` on all cores, and what came
since: 1,000 new batches, after everything was verified. Wall-clock and CPU seconds are medians over
rounds in which they take turns. Nothing passes or fails here.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

from tests.benchmarks.big_store import BATCHES, NOW, add_runs, fill
from tests.stopped import stop_the_clock

NEW_RUNS = -(-1_000 // BATCHES)


def time_verify(path: Path, *options: str, cores: set[int]) -> tuple[float, float]:
    """Verify on some *cores*, and tell the seconds by the clock and of CPU."""
    environment = os.environ | {"PIPELINE_STORE_URL": f"sqlite:///{path}"}
    began, before = perf_counter(), getrusage(RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "pipeline", "audit", "verify", *options],
        env=environment,
        stdout=subprocess.DEVNULL,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    after = getrusage(RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return perf_counter() - began, used


def compare(path: Path, rounds: int) -> None:
    """Time each in turn, and print the medians."""
    cores = os.sched_getaffinity(0)

    def after_more() -> tuple[float, float]:
        add_runs(path, NEW_RUNS)
        return time_verify(path, cores=cores)

    ways: dict[str, Callable[[], tuple[float, float]]] = {
        "--all, 1 core (baseline)": lambda: time_verify(path, "--all", cores={min(cores)}),
        f"--all, {len(cores)} cores": lambda: time_verify(path, "--all", cores=cores),
        f"since, {NEW_RUNS * BATCHES:,} batches": after_more,
        "since, nothing new": lambda: time_verify(path, cores=cores),
    }
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, measure in ways.items():
            took[name].append(measure())
    whole, _ = map(median, zip(*took["--all, 1 core (baseline)"], strict=True))
    for name, times in took.items():
        wall, used = map(median, zip(*times, strict=True))
        print(f"{name:26} {wall:7.2f} s, {used:7.2f} s of CPU, {wall / whole:6.3f} x baseline")


def main() -> None:
    """Make the store if need be, and print every figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--attempts", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    stop_the_clock(NOW)
    with TemporaryDirectory() as folder:
        path = Path(options.folder or folder, f"{options.attempts}.db").resolve()
        if not path.exists():
            fill(path, options.attempts)
        print(f"{path.stat().st_size / 1e6:.0f} MB, load {os.getloadavg()[0]:.1f}", flush=True)
        compare(path, options.rounds)


if __name__ == "__main__":
    main()
