"""Runs that somebody is told of."""

from datetime import timedelta

from pipeline.errors import ErrorName, Phase
from pipeline.models import Loss, RunStatus, RunSummary, Tally
from tests.store.makers import NOON

UID = "0123456789abcdef0123456789abcdef"
RID = "01234567-89ab-cdef-0123-456789abcdef"


def make_run(status: RunStatus = RunStatus.OK) -> RunSummary:
    """Run for a second and a half."""
    return RunSummary(
        id=7,
        uid=UID,
        host="machine-1",
        pid=4711,
        version="1.0",
        config_digest="c0ffee",
        config_path="/etc/pipeline.toml",
        is_sandbox=False,
        started_at=NOON,
        ended_at=NOON + timedelta(seconds=1.5),
        status=status,
        clock_us=1_500_000,
        ordered=4,
        collected=3,
        failed=1,
        deferred=0,
        cancelled=0,
        numbers=9,
        attempts=5,
        waited_us=2_000_000,
    )


def make_tally(source: str = "dice") -> Tally:
    """Add one source of that run up."""
    return Tally(
        started_at=NOON,
        run_id=7,
        source=source,
        is_sandbox=False,
        min=1,
        max=6,
        collected=3,
        failed=1,
        deferred=0,
        cancelled=0,
        numbers=9,
        sum=30,
        attempts=5,
        failed_attempts=2,
        retries=1,
        retries_helped=0,
        wait_us=0,
        exchange_us=2_000_000,
        fastest_us=10,
        fastest_attempt=1,
        first_sent_at=NOON,
        last_sent_at=NOON,
        rule=None,
        violations=None,
        violating_attempt=None,
    )


def make_loss(
    source: str = "dice", error: ErrorName = ErrorName.HTTP_5XX, phase: Phase = Phase.CHECK
) -> Loss:
    """Lose one batch to two attempts."""
    return Loss(
        started_at=NOON,
        run_id=7,
        source=source,
        error=error,
        phase=phase,
        attempts=2,
        batches=1,
        first_at=NOON,
        last_at=NOON,
        first_attempt=1,
        last_attempt=2,
    )
