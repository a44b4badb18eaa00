"""How good a guest we are, at full size.

    python -m tests.benchmarks.politeness [--each 200] [--runs 100]

Four processes share one rate, and a hundred runs at random moments, four at a time, ask all
upstreams by their rules. What counts is the log of the sandbox that they ask.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.playing import AT_ONCE, EVERY_KIND, RATE, codes, playing, share_a_rate, visit
from tests.processes import homes


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=200, help="requests of each process")
    parser.add_argument("--runs", type=int, default=100)
    size = parser.parse_args()
    say = sys.stdout.write
    with tempfile.TemporaryDirectory() as folder, homes(Path(folder), ["rate", "runs"]) as at:
        shared = share_a_rate(at["rate"], size.each)
        say(f"{AT_ONCE} processes, {shared.requests} requests at {RATE} per second:\n")
        say(f"  {shared.most} in the fullest second, {shared.used:.1%} of the rate used\n")
        with playing(at["runs"], "--latency", "0.02") as played:
            at["runs"].config.write_text(EVERY_KIND.format(url=played.root))
            ended = visit(at["runs"], size.runs)
            who = f"{size.runs} runs at random moments, {AT_ONCE} at a time"
            say(f"{who}, all kinds and their rules:\n")
            say(f"  {len(played.log())} requests, {played.violations()['total']} violations,")
        say(f" exit codes {sorted(codes(ended))}\n")
        say("".join(each.err for each in ended))


if __name__ == "__main__":
    main()
