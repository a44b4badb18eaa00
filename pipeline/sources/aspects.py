"""What an answer looks like, in a few words, so that a change of it can be noticed. Pure."""

from collections.abc import Collection, Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import islice

from pipeline.errors import ErrorName, SourceError, Whose
from pipeline.models import Aspect
from pipeline.models.words import UNFIT
from pipeline.sources.answers import find_charset
from pipeline.sources.base import Answer, Proving
from pipeline.validation import json_name

MOST_PATHS = 100  # of keys that are listed
MOST_LEVELS = 8  # of objects that are looked into

_REFUSALS = (ErrorName.RATE_LIMITED, ErrorName.QUOTA_EXHAUSTED)

Contract = tuple[tuple[Aspect, str], ...]


@lru_cache(maxsize=64)
def name_content_type(declared: str) -> str:
    """Write a ``Content-Type`` as media type and charset, in lower case and without all else."""
    media_type = declared.partition(";")[0].strip().lower()
    charset = find_charset(declared)
    return f"{media_type}; charset={charset}" if charset else media_type


def _key_paths(document: dict[str, object], levels: int = MOST_LEVELS) -> Iterator[str]:
    for key, value in document.items():
        if isinstance(value, dict) and value and levels > 1:
            for path in _key_paths(value, levels - 1):
                yield f"{key}.{path}"
        else:
            yield key


def name_keys(document: object) -> str:
    """List the paths of all keys of a JSON object, sorted: ``data, length, success, type``.

    Arrays are not looked into: they may be long. What is no object is named by its type.
    """
    if not isinstance(document, dict):
        return json_name(document)
    return ", ".join(sorted(islice(_key_paths(document), MOST_PATHS))) or "none"


def name_signing(scheme: str, size: int, fitting: Collection[int]) -> str:
    """Name how something is signed: ``bls-unchained-g1-rfc9380, 48 bytes``.

    *size* is that of the signature, *fitting* those that the keys make that are pinned for it.
    """
    said = f"{scheme}, {size} bytes"
    return f"{said}{UNFIT}{min(fitting)}" if fitting and size not in fitting else said


def aspects_of(
    answer: Answer, error: ErrorName | None, proving: Proving | None = None
) -> Iterator[tuple[Aspect, str]]:
    """Tell what *answer*, which ended in *error*, shows of what is agreed upon with its upstream.

    The page that comes with a server error shows nothing: nobody agreed upon that. The texts are
    the upstream's, as they came. How it is signed is told by *proving*, its source if that signs.
    """
    declared = answer.headers.get("content-type")
    is_ours = error is None or error.whose is Whose.CONTRACT
    if proving is not None and (is_ours or error is ErrorName.UNPROVEN):
        with suppress(SourceError):  # nothing can be read of it
            yield Aspect.SIGNING, proving.name_signing(answer)
    if is_ours:
        if declared is not None:
            yield Aspect.CONTENT_TYPE, name_content_type(declared)
        for document in answer.documents:
            yield Aspect.KEYS, name_keys(document)
    elif error in _REFUSALS:
        named = "no content type" if declared is None else name_content_type(declared)
        yield Aspect.REFUSAL, f"{answer.status} {named}"
