"""What it costs to ask politely, and what merging saves.

    python -m tests.benchmarks.asking [--rounds 30]

The baseline of the first is the same run without limiter and breaker. CPU time of this process is
compared, and not the clock's: the sandbox that answers is another process on the same machine.
"""

import argparse
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from time import process_time

import pytest

from pipeline.pacing import Moment
from pipeline.run import collect as core
from pipeline.run import limiters
from pipeline.run.breaker import Breaker
from pipeline.run.collected import Collected
from pipeline.run.limiter import Limiter
from pipeline.run.opening import open_for_runs
from pipeline.settings import Settings, load_settings
from tests.playing import Played, playing
from tests.processes import homes

BATCHES = 1000
LESSON = "'2..29'"


class _OpenLimiter(Limiter):
    """Lets every request pass and remembers nothing."""

    @asynccontextmanager
    async def permission(self, bits: int, give_up_at: float) -> AsyncIterator[Moment | None]:
        del bits, give_up_at
        yield None


class _NoBreaker(Breaker):
    @asynccontextmanager
    async def turn(self) -> AsyncIterator[bool]:
        yield True


def _settings(folder: Path, url: str, batches: str, *, kind: str, merge: bool) -> Settings:
    config = folder / "config.toml"
    config.write_text(
        f"[sources.dice]\nkind = '{kind}'\nurl = '{url}'\nbatches = {batches}\n"
        f"merge = {str(merge).lower()}\nin_flight = 20\nrate = 'none'\n"
    )
    return load_settings(config, {"XDG_DATA_HOME": str(folder)})


def _collect(settings: Settings, folder: Path) -> Collected:
    with open_for_runs(settings.store, folder) as store:
        return core.collect(core.Run(settings=settings, store=store, state_folder=folder))


def _cpu_seconds(run: Callable[[], Collected]) -> float:
    began = process_time()
    collected = run()
    assert collected.summary.collected == BATCHES
    return process_time() - began


def cost_of_asking(folder: Path, played: Played, rounds: int) -> float:
    """Compare runs without rules to runs without a limiter: the ratio of their median CPU times."""
    settings = _settings(
        folder,
        played.url("randomnumberapi"),
        f"{{count = {BATCHES}, size = 16}}",
        kind="randomnumberapi",
        merge=False,
    )

    def polite() -> float:
        return _cpu_seconds(lambda: _collect(settings, folder))

    def bare() -> float:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(limiters, "Limiter", _OpenLimiter)
            patch.setattr(limiters, "Breaker", _NoBreaker)
            return polite()

    polite()  # what is imported and cached only once is nobody's cost
    took: dict[Callable[[], float], list[float]] = {polite: [], bare: []}
    for nth in range(rounds):
        for run in (polite, bare) if nth % 2 else (bare, polite):
            took[run].append(run())
    return median(took[polite]) / median(took[bare])


def requests_of_lesson(folder: Path, played: Played, *, merge: bool) -> int:
    """Count the requests that the lesson's 28 batches take."""
    settings = _settings(folder, played.url("anu_legacy"), LESSON, kind="anu_legacy", merge=merge)
    return _collect(settings, folder).summary.attempts


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    say = sys.stdout.write
    with tempfile.TemporaryDirectory() as name, homes(Path(name), ["home"]) as at:
        folder = at["home"].folder
        with playing(at["home"], "--no-rules") as played:
            ratio = cost_of_asking(folder, played, rounds)
            say(
                f"{BATCHES} requests without rules cost {ratio:.3f} times those without a limiter\n"
            )
            alone = requests_of_lesson(folder, played, merge=False)
            merged = requests_of_lesson(folder, played, merge=True)
        say(f"the lesson's 28 batches: {alone} requests one by one, {merged} merged\n")


if __name__ == "__main__":
    main()
