"""What an answer looks like, in a few words, so that a change of it can be noticed. Pure."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import islice

from pipeline.errors import ERRORS, ErrorName, Whose
from pipeline.models import Aspect
from pipeline.sources.answers import find_charset, name_type
from pipeline.sources.base import Answer

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
        return name_type(document)
    return ", ".join(sorted(islice(_key_paths(document), MOST_PATHS))) or "none"


def aspects_of(answer: Answer, error: ErrorName | None) -> Iterator[tuple[Aspect, str]]:
    """Tell what *answer*, which ended in *error*, shows of what is agreed upon with its upstream.

    The page that comes with a server error shows nothing: nobody agreed upon that. The texts are
    the upstream's, as they came.
    """
    declared = answer.headers.get("content-type")
    if error is None or ERRORS[error].whose is Whose.CONTRACT:
        if declared is not None:
            yield Aspect.CONTENT_TYPE, name_content_type(declared)
        for document in answer.documents:
            yield Aspect.KEYS, name_keys(document)
    elif error in _REFUSALS:
        named = "no content type" if declared is None else name_content_type(declared)
        yield Aspect.REFUSAL, f"{answer.status} {named}"
