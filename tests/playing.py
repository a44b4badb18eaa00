"""A `pipeline sandbox` process as the upstreams, and what its own log says of its guests."""

import json
import random
import subprocess
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import sleep
from typing import Any
from urllib.request import urlopen

from tests.processes import COMMAND, Finished, Home, Running

RATE = 50  # requests in any second
AT_ONCE = 4
LONGEST_SECONDS = 120.0

EVERY_KIND = """
[sources.anu]
kind = "anu_legacy"
url = "{url}/anu_legacy"
batches = [2, 3]
[sources.aqn]
kind = "anu_aqn"
url = "{url}/anu_aqn"
api_key_env = "KEY"
batches = [2, 3]
[sources.org]
kind = "random_org"
url = "{url}/random_org"
email = "me@example.org"
merge = false
batches = [2, 3, 4]
[sources.rpc]
kind = "random_org_jsonrpc"
url = "{url}/random_org_jsonrpc"
api_key_env = "KEY"
merge = false
batches = [2, 3, 4]
[sources.dice]
kind = "randomnumberapi"
url = "{url}/randomnumberapi"
merge = false
batches = [2, 3, 4, 5, 6]
"""
KEYS = {"KEY": "00000000-0000-4000-8000-00000000cafe"}


@dataclass(frozen=True, slots=True)
class Played:
    """The upstreams of one sandbox process."""

    root: str

    def url(self, kind: str, *faults: str) -> str:
        """Give the base address of an upstream, under faults."""
        return "/".join([self.root, *(f"~{fault}" for fault in faults), kind])

    def log(self, kind: str = "") -> list[dict[str, Any]]:
        """Read what was asked of one upstream, or of all."""
        return [entry for entry in self._read("log") if kind in ("", entry["kind"])]

    def violations(self) -> dict[str, Any]:
        """Read which rules were broken, and how often."""
        found: dict[str, Any] = self._read("violations")
        return found

    def _read(self, what: str) -> Any:  # noqa: ANN401 - JSON
        with urlopen(f"{self.root}/{what}", timeout=LONGEST_SECONDS) as answer:
            return json.load(answer)


@contextmanager
def playing(home: Home, *options: str) -> Iterator[Played]:
    """Serve all upstreams, with their rules, from a process of their own."""
    with subprocess.Popen(
        [*COMMAND, "sandbox", "--port", "0", *options],
        env=home.environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            lines = iter(process.stdout.readline, "")
            last = next(line for line in lines if line.rstrip().endswith("/violations"))
            yield Played(last.strip().removesuffix("/violations"))
        finally:
            process.terminate()


# ---- Many processes at one upstream ----


@dataclass(frozen=True, slots=True)
class Shared:
    """How several processes shared one rate, by the upstream's log.

    Attributes:
        most: the largest number of requests in any second.
        used: how much of the rate was used, from the first request to the last.
    """

    ended: list[Finished]
    requests: int
    most: int
    used: float


def share_a_rate(home: Home, each: int, rate: int = RATE) -> Shared:
    """Let four processes ask a new sandbox for *each* batches, one a request, all together."""
    with playing(home) as played:
        home.config.write_text(
            f"[collect]\ndeadline_seconds = {LONGEST_SECONDS}\n[sources.dice]\n"
            f"kind = 'randomnumberapi'\nurl = '{played.url('randomnumberapi')}'\nmerge = false\n"
            f"in_flight = 10\nrate = '{rate}/s'\nbatches = {{count = {each}, size = 3}}\n"
        )
        started = [home.start("collect", "--overlap", "allow") for _ in range(AT_ONCE)]
        ended = [running.finish(LONGEST_SECONDS) for running in started]
        times = sorted(entry["seconds"] for entry in played.log())
    most = max(bisect_left(times, time + 1) - nth for nth, time in enumerate(times))
    return Shared(
        ended=ended,
        requests=len(times),
        most=most,
        used=(len(times) - 1) / (times[-1] - times[0]) / rate,
    )


def visit(home: Home, runs: int, *, at_once: int = AT_ONCE, seed: int = 0) -> list[Finished]:
    """Start so many runs at random moments, several at once, and see them all end."""
    moments = random.Random(seed)
    going: list[Running] = []
    ended: list[Finished] = []
    for _ in range(runs):
        if len(going) == at_once:
            ended.append(going.pop(0).finish(LONGEST_SECONDS))
        sleep(moments.uniform(0, 0.2))
        going.append(home.start("collect", "--overlap", "allow", "--deadline", "20", env=KEYS))
    return ended + [running.finish(LONGEST_SECONDS) for running in going]


def codes(ended: Sequence[Finished]) -> set[int]:
    """Tell how all of them ended."""
    return {each.code for each in ended}
