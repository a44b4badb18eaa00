"""How much of an answer's body was read and kept, in words. Pure."""

from pipeline.errors import ErrorName
from pipeline.models import Evidence
from pipeline.sanitize import REDACTED

# By what the headers announced; a body that turned out to be too large was read in part.
NOT_READ = frozenset({ErrorName.DECODE, ErrorName.TOO_LARGE})


def tell_extent(evidence: Evidence, error: ErrorName | None) -> str:
    """Say it of the answer to an attempt that ended in *error*: ``5000 bytes, the first 100 kept``.

    Where a secret was replaced, the lengths do not tell whether the body was cut as well.
    """
    if evidence.body_bytes == 0 and error in NOT_READ:
        return "not read"
    size, kept = f"{evidence.body_bytes} bytes", len(evidence.body)
    if REDACTED in evidence.body:
        return f"{size}; kept: {kept}, with secrets replaced"
    return f"{size}, all kept" if kept >= evidence.body_bytes else f"{size}, the first {kept} kept"
