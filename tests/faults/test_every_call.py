"""Whatever call fails or is the last one: the store is sound, and the next command goes on.

Each of the calls by which a command changes a file is broken in turn (``every_call.py`` says how,
and what must hold). Here a sample of them, which has every kind of call and fault in it and takes
a minute or two; ``PIPELINE_FAULTS=every`` breaks every call in every way, and takes an hour.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT, Home

EVERY = os.environ.get("PIPELINE_FAULTS") == "every"

# Of the calls, each so manyth is broken by one fault, and its neighbour by the next.
STRIDES = {
    "migrate": 28,
    "first collect": 28,
    "next collect": 21,
    "vacuum": 70,
    "prune": 10,
    "backup": 5,
    "export": 1,
}


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile what breaks the calls."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is missing")
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.mark.parametrize("scenario", STRIDES)
def test_no_call_that_breaks_costs_more_than_its_command(
    shim: Path, tmp_path: Path, scenario: str
) -> None:
    """Power cuts, full and dying disks come when they like."""
    environment = Home(tmp_path, is_measured=False).environment | {"LD_PRELOAD": str(shim)}
    stride = 1 if EVERY else STRIDES[scenario]

    tried = subprocess.run(
        [sys.executable, "-m", "tests.faults.every_call", scenario, tmp_path / "t", str(stride)],
        check=False,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )

    print(tried.stdout)
    assert tried.returncode == 0, tried.stdout + tried.stderr
