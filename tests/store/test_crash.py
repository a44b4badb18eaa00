"""What is left when the process is killed, or a bit rots."""

import re
import subprocess
import sys
from pathlib import Path

from pipeline.store.db import Store, open_store
from pipeline.store.queries import batches_of_run
from tests.store.makers import is_intact, make_batch, record_run

KILLS = 15


def test_a_writer_that_is_killed_leaves_whole_groups_only(path: Path) -> None:
    """What it had reported is on disk, and what it had not is there whole or not at all."""
    subprocess.run(
        [sys.executable, "-m", "tests.store.killing", str(path), "seed", str(KILLS)],
        check=True,
        cwd=Path(__file__).parents[2],
    )


def test_a_bit_that_flips_on_the_disk_is_found(store: Store, url: str, path: Path) -> None:
    """SQLite reads a flipped bit in a blob without a word of complaint."""
    with store.write() as session:
        run_id = record_run(session, [make_batch(0, n=40), make_batch(1, n=40)])
    store.close()
    content = path.read_bytes()
    blob = bytes([5]) * 40  # forty sixes, each as its distance from 1
    found: list[int] = []
    # The state of the health tests holds the newest numbers, too: not every place is a batch's.
    for place in re.finditer(re.escape(blob), content):
        at = place.start()
        path.write_bytes(content[:at] + b"\x04" + content[at + 1 :])
        with open_store(url, busy_seconds=1, for_writing=False) as reader, reader.read() as session:
            batches = batches_of_run(session, run_id=run_id, with_numbers=True)
            found.append(sum(not is_intact(batch) for batch in batches))

    assert found.count(1) == 2
