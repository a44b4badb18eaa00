"""One attempt with all that is known of it."""

from sqlmodel import Session

from pipeline.errors import UsageError
from pipeline.models import AttemptCase
from pipeline.store import queries

ID_BITS = 64  # of SQLite's integers, the sign included


def find_case(session: Session, attempt_id: int) -> AttemptCase:
    """Look up one attempt with the answer that it got and the batches that it decided.

    Raises:
        UsageError: there is no such attempt.
    """
    is_storable = attempt_id.bit_length() < ID_BITS
    case = queries.find_attempt(session, attempt_id=attempt_id) if is_storable else None
    if case is None:
        raise UsageError(f"attempt {attempt_id}: there is none; `pipeline audit` lists failures")
    return case
