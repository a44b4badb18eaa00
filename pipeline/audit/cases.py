"""One attempt with all that is known of it."""

from sqlmodel import Session

from pipeline.errors import UsageError
from pipeline.models import AttemptCase
from pipeline.store import history, queries

ID_BITS = 64  # of SQLite's integers, the sign included


def find_case(session: Session, attempt_id: int) -> AttemptCase:
    """Look up one attempt with the answer that it got and the batches that it decided.

    Raises:
        UsageError: there is no such attempt.
    """
    is_storable = attempt_id.bit_length() < ID_BITS
    case = queries.find_attempt(session, attempt_id=attempt_id) if is_storable else None
    if case is None:
        raise UsageError(f"attempt {attempt_id}: {_why_not(session, attempt_id)}")
    return case


def _why_not(session: Session, attempt_id: int) -> str:
    """Say why there is no such attempt: numbers below the oldest one kept were once given."""
    oldest = history.oldest_attempt_after_pruning(session)
    if oldest is not None and 0 < attempt_id < oldest:
        return "it was pruned with its run; the tallies and losses of the run are kept"
    pruned = "" if oldest is None else ", or it was pruned"
    return f"there is none{pruned}; `pipeline audit` lists failures"
