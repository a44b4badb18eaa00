"""Close the days and months that are over, so that audits and reports of years are quick."""

from collections.abc import Callable
from datetime import UTC, datetime

from pipeline.audit.sheets import examine_day
from pipeline.rendering.output import write_prose
from pipeline.rendering.progress import progress
from pipeline.settings import StoreSettings
from pipeline.store import upkeep
from pipeline.store.db import Store, open_store
from pipeline.store.rollups import close_periods, count_open_days


def close_some(store: Store) -> int:
    """Close the days that are over, those of a month at most; tell how many it were."""
    with store.write() as session:
        return close_periods(session, now=datetime.now(UTC), examine=examine_day)


def migrate(settings: StoreSettings, *, say: Callable[[str], object]) -> None:
    """Bring the database to the newest schema, and close all days that are over."""
    write_prose(*upkeep.migrate(settings).splitlines())
    if closed := close_all(settings, say=say):
        write_prose(f"Days added up: {closed:,}.")


def close_all(settings: StoreSettings, *, say: Callable[[str], object]) -> int:
    """Close all days that are over; tell how many it were."""
    closed = 0
    with (
        open_store(settings.url, busy_seconds=settings.busy_seconds, for_writing=True) as store,
        progress("adding up days") as watch,
    ):
        for note in store.notes:
            say(note)
        with store.read() as session:
            total = count_open_days(session, now=datetime.now(UTC))
        while some := close_some(store):
            closed += some
            watch(min(closed, total), total)
    return closed
