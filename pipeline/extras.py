"""How a user adds a package that only some want, such as pyarrow, to this program's environment."""

import json
import sys
import tomllib
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from shlex import quote

DISTRIBUTION = "random-number-pipeline"  # "pipeline" on the package index is somebody else's


def how_to_install(*packages: str) -> str:
    """Write the one command that adds *packages* where this program is installed.

    The tools that give a program an environment of its own are known by their notes in it.
    """
    home = Path(sys.prefix)
    if (home / "pipx_metadata.json").is_file():
        return f"pipx inject {DISTRIBUTION} {' '.join(packages)}"
    if (home / "uv-receipt.toml").is_file():
        return _uv_tool_install(home / "uv-receipt.toml", packages)
    if (home.parent.parent / "CACHEDIR.TAG").is_file():  # an environment for this once
        return f"uvx {_with(packages)} --from {quote(_origin())} pipeline"
    python = quote(sys.executable)
    if find_spec("pip") is None:  # uv makes environments without it
        return f"uv pip install --python {python} {' '.join(packages)}"
    return f"{python} -m pip install {' '.join(packages)}"


def _uv_tool_install(receipt: Path, packages: tuple[str, ...]) -> str:
    """Ask for all that was asked for before as well: what is not named again is taken out."""
    ours, *others = tomllib.loads(receipt.read_text("utf-8"))["tool"]["requirements"]
    wanted = (*(other["name"] for other in others), *packages)
    return f"uv tool install {_with(wanted)} {quote(_origin(ours.get('extras', ())))}"


def _with(packages: tuple[str, ...]) -> str:
    return " ".join(f"--with {package}" for package in packages)


def _origin(extras: list[str] | tuple[str, ...] = ()) -> str:
    """Name this program with the place that it came from, as the installer noted it (PEP 610)."""
    name = f"{DISTRIBUTION}[{','.join(extras)}]" if extras else DISTRIBUTION
    noted = distribution(DISTRIBUTION).read_text("direct_url.json")
    if noted is None:
        return name
    origin = json.loads(noted)
    scheme = f"{origin['vcs_info']['vcs']}+" if "vcs_info" in origin else ""
    return f"{name} @ {scheme}{origin['url']}"
