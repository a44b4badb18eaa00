"""What lies in files beside a store: attempts, outcomes and notes as JSON, behind their hash."""

import json
from base64 import b85decode, b85encode
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from pipeline.errors import ErrorName, Phase
from pipeline.files import make_folder, owner_at, publish, unfinished
from pipeline.models import Aspect, Attempt, Evidence, Measure, Proof, ProofWord, Request, Timings
from pipeline.rendering.words import iso_time


def without_numbers(attempt: Attempt) -> Attempt:
    """Leave out the numbers: an answer that was accepted holds them, and so does its proof."""
    return attempt if attempt.error else replace(attempt, evidence=None, proof=None)


def write(value: object) -> str:
    """Write what is made of attempts and rows, in ASCII."""
    return json.dumps(value, default=_plain)


def read(text: str | bytes) -> Any:  # noqa: ANN401 - that is what JSON is
    """Read it; attempts are as mappings, of which ``attempt`` makes them.

    Raises:
        ValueError: it is no such JSON.
    """
    return json.loads(text, object_hook=_rich)


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return {"bytes": b85encode(value).decode("ascii")}
    if isinstance(value, datetime):
        return {"time": iso_time(value)}
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    raise TypeError(f"no JSON for {type(value).__name__}")


def _rich(found: dict[str, Any]) -> object:
    match found:
        case {"bytes": str(text), **rest} if not rest:
            return b85decode(text)
        case {"time": str(text), **rest} if not rest:
            return datetime.fromisoformat(text)
    return found


def put(path: Path, head: str, value: object, *, replace: bool) -> None:
    """Write a *value* into a file of the store's owner that is whole or not there: OSError.

    Its first line is *head* and the SHA-256 of all the rest, which is one line of JSON.
    """
    body = write(value).encode("ascii")
    make_folder(path.parent)
    # The name of the store is that of the file without its end, which has no dot.
    with unfinished(path, owner=owner_at(path.with_suffix(""))) as file:
        file.write(f"{head} {sha256(body).hexdigest()}\n".encode() + body)
        publish(file, path, replace=replace)


def get(path: Path, head: str) -> bytes | None:
    """Read the JSON that was put into a file; None if it is damaged."""
    first, _, body = path.read_bytes().partition(b"\n")
    return body if first == f"{head} {sha256(body).hexdigest()}".encode() else None


def attempt(facts: Mapping[str, Any]) -> Attempt:
    """Make an attempt of what was read.

    Raises:
        KeyError, TypeError, ValueError: another version wrote it.
    """
    made: dict[str, Callable[..., object]] = {
        "timings": lambda found: Timings(**found),
        "request": lambda found: Request(**found | _headers(found)),
        "evidence": lambda found: Evidence(**found | _headers(found)),
        "error": ErrorName,
        "phase": Phase,
        "measures": lambda found: tuple(Measure(**each) for each in found),
        "proof": lambda found: Proof(**found | {"word": ProofWord(found["word"])}),
        "contract": lambda found: tuple((Aspect(aspect), value) for aspect, value in found),
    }
    fields_of_it: dict[str, Any] = {
        name: made[name](value) if name in made and value is not None else value
        for name, value in facts.items()
    }
    return Attempt(**fields_of_it)


def _headers(found: Mapping[str, Any]) -> dict[str, object]:
    return {"headers": tuple(map(tuple, found["headers"]))}
