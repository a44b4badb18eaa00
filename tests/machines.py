"""Several machines with one store: processes with folders, and names if we are root, of their own.

They have one kernel, one clock and one disk: what a network that is cut does is not seen here.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.processes import Home

RENAMED = ("unshare", "--uts", "sh", "-c", 'hostname "$0"; exec "$@"')


@contextmanager
def machines(
    folder: Path, names: Sequence[str], config: str, *, is_measured: bool = False
) -> Iterator[dict[str, Home]]:
    """Give a machine for each of *names*, all with the same configuration at the same path.

    *is_measured*: whether coverage looks into their processes.
    """
    is_root = os.geteuid() == 0 and shutil.which("unshare") is not None
    path = folder / "config.toml"
    path.write_text(config)
    made: dict[str, Home] = {}
    try:
        for name in names:
            within = [*RENAMED, name] if is_root else []
            made[name] = Home(folder / name, is_measured=is_measured, within=within)
            made[name].config = path
        yield made
    finally:
        for home in made.values():
            home.close()
