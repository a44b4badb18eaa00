"""The note of what was verified: the head of the chain then, and what it takes to go on from there.

It lies beside the database and not in it, so that a database that was put back or written anew does
not bring its own. Its first line holds the SHA-256 of the second: so a damaged note is no note. It
is no signature: whoever can write the note can write that, too. Nor is it a note after a migration,
which may have made anew what has no seal.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection

from pipeline.files import blame
from pipeline.store import plain
from pipeline.store.health import HealthState
from pipeline.store.integrity.chain import read_seals
from pipeline.store.schema import NEWEST

HEAD = "pipeline-note"  # and the schema


class Mark(NamedTuple):
    """A position in the chain and its hash, to be noted elsewhere."""

    position: int
    chain: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """What was verified, all of it sound.

    Attributes:
        began: the hash at the beginning of the chain, which tells one history from another.
        batches: how many were verified up to the head, by this look and those before it.
        verified_at: when this look began, ``all_verified_at`` the newest one at everything.
        first_run: all runs before it are sealed up to the head.
        sums_from: before it all days are closed, and their sums were verified; None if none is.
        states: how far the tests of health had come at the head.
    """

    began: str
    head: Mark
    batches: int
    verified_at: datetime
    all_verified_at: datetime
    first_run: int
    sums_from: datetime | None
    states: tuple[HealthState, ...]


def is_of(connection: Connection, noted: Noted) -> bool:
    """Tell whether the note is of the history in this database, or of another one."""
    return any(seal.chain == noted.began for seal in read_seals(connection, after=0, limit=1))


def has(connection: Connection, mark: Mark) -> bool:
    """Tell whether the chain has this very seal."""
    seals = read_seals(connection, after=mark.position - 1, limit=1)
    return [(seal.position, seal.chain) for seal in seals] == [mark]


def write_note(path: Path, noted: Noted) -> str | None:
    """Write it down whole or not at all; give the reason if that cannot be done."""
    try:
        plain.put(path, f"{HEAD} {NEWEST}", noted, replace=True)
    except OSError as exc:
        return f"{exc.strerror}{blame(path)}"
    return None


def read_note(path: Path) -> Noted | None:
    """Read what was noted; None if there is no note.

    Raises:
        ValueError: it is damaged, of another schema of the database, or cannot be read.
    """
    try:
        body = plain.get(path, f"{HEAD} {NEWEST}")
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise ValueError(f"{path} cannot be read: {exc.strerror}") from exc
    if body is None:
        raise ValueError(f"{path} is damaged, or older than the last migration")
    found = plain.read(body)
    states = tuple(HealthState(**state) for state in found["states"])
    return Noted(**found | {"head": Mark(*found["head"]), "states": states})
