"""Save and end a run that is then taken back, so that its statements are compiled beforehand.

To compile them takes SQLAlchemy longer than to carry them out, and there is time for it while the
first answers are waited for; behind the last one somebody waits.
"""

from datetime import UTC, datetime

from sqlmodel import Session

from pipeline.models import Aspect, Attempt, Batch, Request, Timings
from pipeline.store import writes
from pipeline.store.numbers import collected


def rehearse(session: Session) -> None:
    """Put a run of one batch on the books; the caller has to roll it back."""
    now = datetime.now(UTC)
    batch = Batch(number=0, source="", n=1, min=0, max=1)
    attempt = Attempt(
        fetch=0,
        number=1,
        source="",
        began_at=now,
        timings=Timings(wait_us=0),
        is_reused=False,
        request=Request(method="GET", url="", headers=(), body=b""),
        contract=((Aspect.KEYS, ""),),
    )
    outcome = collected(batch, (0,), fetch=0, attempt=1, offset=0)
    run_id = writes.start_run(
        session,
        uid="",
        host="",
        pid=0,
        version="",
        config_digest="",
        config_path="",
        started_at=now,
    )
    writes.order_batches(session, run_id=run_id, batches=[batch])
    writes.save_results(
        session, run_id=run_id, attempts=[attempt], outcomes=[outcome], keep_numbers=True
    )
    writes.finish_run(session, run_id=run_id, ended_at=now, clock_us=0)
