"""A message that names a package says how to get it into the very environment that lacks it."""

import json
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pipeline.extras import DISTRIBUTION
from pipeline.notify.traces import PACKAGES
from tests.processes import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
CLONE = {"url": "file:///home/you/clone", "dir_info": {}}


class Environment:
    """An environment of Python's own, with the notes that an installer leaves in it."""

    def __init__(self, folder: Path, origin: object = None) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        self.folder = folder
        self.python = folder / "bin/python"
        [self.packages] = folder.glob("lib/python*/site-packages")
        metadata = self.packages / f"{DISTRIBUTION.replace('-', '_')}-0.1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Name: {DISTRIBUTION}\nVersion: 0.1.0\n")
        if origin is not None:
            (metadata / "direct_url.json").write_text(json.dumps(origin))

    def advice(self, *packages: str) -> str:
        """Ask the program in it."""
        code = (
            "import sys; from pipeline.extras import how_to_install as h; print(h(*sys.argv[1:]))"
        )
        return subprocess.run(
            [self.python, "-c", code, *packages],
            env={"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.removesuffix("\n")


def test_with_pip_it_is_the_pip_of_this_very_python(tmp_path: Path) -> None:
    """Another `pip` may come first on the path, and the folder's name may hold anything."""
    environment = Environment(tmp_path / "my things")
    (environment.packages / "pip").mkdir()
    (environment.packages / "pip/__init__.py").touch()

    advice = environment.advice("opentelemetry-sdk", "trustme")

    assert shlex.split(advice) == [
        *(str(environment.python), "-m", "pip", "install", "opentelemetry-sdk", "trustme")
    ]


def test_without_pip_it_is_uv(tmp_path: Path) -> None:
    """Environments that uv makes have no pip."""
    environment = Environment(tmp_path / "env")

    assert environment.advice("trustme") == f"uv pip install --python {environment.python} trustme"


def test_pipx_knows_it_by_its_distribution(tmp_path: Path) -> None:
    """What is put in any other way is lost when pipx upgrades."""
    environment = Environment(tmp_path / "env", CLONE)
    (environment.folder / "pipx_metadata.json").write_text("{}")

    assert environment.advice("trustme") == f"pipx inject {DISTRIBUTION} trustme"


@pytest.mark.parametrize(
    ("ours", "others", "command"),
    [
        ({}, [], ["--with", "trustme", f"{DISTRIBUTION} @ file:///home/you/clone"]),
        (
            {"extras": ["otel", "tls"]},
            ["pyarrow", "psycopg"],
            [
                *("--with", "pyarrow", "--with", "psycopg", "--with", "trustme"),
                f"{DISTRIBUTION}[otel,tls] @ file:///home/you/clone",
            ],
        ),
    ],
    ids=["alone", "with_others"],
)
def test_uv_tool_is_told_all_again(
    tmp_path: Path, ours: dict[str, list[str]], others: list[str], command: list[str]
) -> None:
    """It takes out what is not named."""
    environment = Environment(tmp_path / "env", CLONE)
    extras = f", extras = {json.dumps(ours['extras'])}" if ours else ""
    mine = f'{{ name = "{DISTRIBUTION}"{extras}, directory = "/home/you/clone" }}'
    requirements = ", ".join([mine, *(f'{{ name = "{other}" }}' for other in others)])
    (environment.folder / "uv-receipt.toml").write_text(f"[tool]\nrequirements = [{requirements}]")

    assert shlex.split(environment.advice("trustme")) == ["uv", "tool", "install", *command]


@pytest.mark.parametrize(
    ("origin", "source"),
    [
        (CLONE, f"{DISTRIBUTION} @ file:///home/you/clone"),
        (
            {"url": "https://example.org/p.git", "vcs_info": {"vcs": "git", "commit_id": "1"}},
            f"{DISTRIBUTION} @ git+https://example.org/p.git",
        ),
        (None, DISTRIBUTION),
    ],
    ids=["clone", "git", "index"],
)
def test_uvx_is_told_at_each_start(tmp_path: Path, origin: object, source: str) -> None:
    """Its environments lie in a cache, where nothing stays."""
    (tmp_path / "CACHEDIR.TAG").touch()
    environment = Environment(tmp_path / "archive-v0/SVA", origin)

    advice = environment.advice("trustme")

    assert shlex.split(advice) == ["uvx", "--with", "trustme", "--from", source, "pipeline"]


def test_our_name_and_our_packages_are_those_of_the_project() -> None:
    """The project's file cannot read the code, nor the code the file."""
    otel = PROJECT["optional-dependencies"]["otel"]

    assert PROJECT["name"] == DISTRIBUTION
    assert {Requirement(each).name for each in otel} == set(PACKAGES)
