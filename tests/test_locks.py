"""The locks are whole: who installs from them never gets a package that no hash vouches for."""

import re
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCKS = [ROOT / ".ci/run.lock", ROOT / ".ci/dev.lock"]


def read_pins(lock: Path) -> dict[str, Requirement]:
    """Read what a lock pins on this machine, by name."""
    lines = re.findall(r"^[^\s#-].*?(?= *\\?$)", lock.read_text("utf-8"), re.MULTILINE)
    pins = [Requirement(line) for line in lines]
    return {canonicalize_name(pin.name): pin for pin in pins if applies(pin)}


def applies(requirement: Requirement, extras: frozenset[str] = frozenset()) -> bool:
    """Tell whether a requirement counts here, with these extras of its owner."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras | {""})


def unpinned(pins: dict[str, Requirement]) -> Iterator[str]:
    """Name what the pinned packages ask for, as they are installed here, and no pin grants."""
    for owner in pins.values():
        for asked in map(Requirement, requires(owner.name) or ()):
            pin = pins.get(canonicalize_name(asked.name))
            if applies(asked, frozenset(owner.extras)) and (
                pin is None or not asked.extras <= pin.extras
            ):
                yield f"{owner.name} asks for {asked}"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_all_that_a_pinned_package_asks_for_is_pinned(lock: Path) -> None:
    """With its extras: old versions of pip take `coverage[toml]` for another than `coverage`."""
    pins = read_pins(lock)

    assert "anyio" in pins
    assert list(unpinned(pins)) == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_each_pin_is_exact_and_has_its_hashes(lock: Path) -> None:
    """And nothing says where from: an installation is the same everywhere."""
    text = lock.read_text("utf-8")

    for entry in re.split(r"\n(?=\S)", text.strip()):
        assert re.match(r"[a-z0-9-]+(\[[a-z0-9, -]+\])?==\S+ [^\n]*\\\n    --hash=sha256:", entry)
    assert "://" not in text


def test_the_tests_run_with_what_users_get() -> None:
    """The two locks are written one after the other, and could drift apart."""
    run, dev = (read_pins(lock) for lock in LOCKS)

    assert {name: pin.specifier for name, pin in run.items()} == {
        name: dev[name].specifier for name in run
    }
