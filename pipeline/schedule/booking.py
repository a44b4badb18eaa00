"""A start that keeps to the schedule: claim what is due, book what was missed, run, catch up."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import sleep

from pydantic import SecretStr
from sqlmodel import Session

from pipeline.collect import Collected, collect, present
from pipeline.errors import ConfigError
from pipeline.forecast import Rhythm, find_impossible, plan_upstreams
from pipeline.lock import host_identity
from pipeline.models import Overlap, SlotClaim
from pipeline.recorder import Progress
from pipeline.schedule.ledger import Schedule, find_schedules, pick_caught_up
from pipeline.settings import Settings, SourceSettings, with_overrides
from pipeline.store import slots
from pipeline.store.db import Store, open_store


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    """What a start found in the ledger.

    Attributes:
        claims: the slots due now that are ours; they share one run.
        missed: slots that nobody ran and that get a run of their own now, oldest first.
    """

    claims: tuple[SlotClaim, ...]
    missed: tuple[SlotClaim, ...]


def find_rhythms(schedules: Sequence[Schedule]) -> dict[str, Rhythm]:
    """Tell how often the schedules ask each source."""
    today = datetime.now(UTC).date()
    return {
        source: Rhythm(
            name=f'at "{schedule.cron.expression}"',
            per_day=schedule.cron.per_day(),
            per_month=schedule.cron.per_month(today),
        )
        for schedule in schedules
        for source in schedule.sources
    }


def find_possible_schedules(settings: Settings) -> tuple[Schedule, ...]:
    """Find the schedules of the enabled sources; empty if there is none.

    Raises:
        ConfigError: the upstreams' rules can never allow what one of them promises.
    """
    schedules = find_schedules(settings)
    if schedules:
        impossible = find_impossible(
            plan_upstreams(_with_keys(settings)),
            deadline_seconds=settings.collect.deadline_seconds,
            rhythms=find_rhythms(schedules),
        )
        if impossible:
            raise ConfigError(*impossible)
    return schedules


def _with_keys(settings: Settings) -> Settings:
    """Put something in place of keys that are not known: who only shows slots need not have them.

    No rule depends on what the key is, only on whether two sources have the same one.
    """

    def key_of(source: SourceSettings) -> SecretStr | None:
        name = source.api_key_env or source.api_key_file
        if source.api_key is not None or name is None:
            return source.api_key
        return SecretStr(hashlib.sha256(name.encode()).hexdigest())

    sources = {
        name: source.model_copy(update={"api_key": key_of(source)})
        for name, source in settings.sources.items()
    }
    return replace(settings, sources=sources)


def book(
    session: Session,
    schedules: Sequence[Schedule],
    *,
    now: datetime,
    host: str,
    config_path: str,
    is_by_hand: bool = False,
) -> Booked:
    """Claim the slots that are due and free, and put on record those that nobody ran before.

    The ledger of a schedule begins with the first slot that is claimed; a run started by hand does
    not begin it, nor does it catch up.

    Raises:
        ConfigError: another configuration of this machine keeps its slots under the same name.
    """
    claims: list[SlotClaim] = []
    missed: list[SlotClaim] = []
    for schedule in schedules:
        due_at = schedule.due(now)
        last = slots.newest_due(session, schedule=schedule.key, before=due_at)
        if last is None and is_by_hand:
            continue
        unseen = [] if last is None else list(schedule.between(last, due_at))
        slots.book_missed(session, schedule=schedule.key, due=unseen, host=host, now=now)
        claim = schedule.claim(due_at)
        if slots.claim(session, slot=claim, host=host, now=now):
            claims.append(claim)
        elif rival := slots.find_rival(session, slot=claim, host=host, config_path=config_path):
            raise ConfigError(
                f"schedule.name: {rival} keeps its slots under {schedule.key} in the same store;"
                " give one of the two another name"
            )
        if not is_by_hand:
            missed += map(schedule.claim, pick_caught_up(unseen, schedule.missed))
    return Booked(claims=tuple(claims), missed=tuple(sorted(missed, key=lambda slot: slot.due_at)))


def _wait_for_our_place(schedules: Sequence[Schedule], host: str) -> None:
    """Wait for our part of the jitter; nothing is claimed before, so a kill harms nothing."""
    now = datetime.now(UTC)
    start_at = max(schedule.start_of(schedule.due(now), host) for schedule in schedules)
    sleep(max(0.0, (start_at - now).total_seconds()))


def collect_due(
    settings: Settings,
    schedules: Sequence[Schedule],
    *,
    is_by_hand: bool,
    state_folder: Path,
    on_progress: Callable[[Progress], None],
    overlap: Overlap,
    on_begin: Callable[[str], None] = lambda _: None,
) -> Iterator[Collected]:
    """Carry out the runs that this start is for, one after the other; each as it ends.

    A scheduled start runs what is due and free, at most, and then what is caught up on. One by
    hand is one run of everything, which takes the slots that are due if they are free.

    Raises:
        ConfigError: as ``book`` and ``collect`` do.
        LockHeld, StoreError: as ``collect`` does.
    """
    host = host_identity()
    run = partial(
        collect,
        state_folder=state_folder,
        on_progress=on_progress,
        overlap=overlap,
        on_begin=on_begin,
    )
    if not is_by_hand:
        _wait_for_our_place(schedules, host)
    url, busy_seconds = settings.store.url, settings.store.busy_seconds
    # Present before anything is claimed: otherwise whoever starts now would take the claim for
    # that of a dead process.
    with (
        open_store(url, busy_seconds=busy_seconds, for_writing=True) as store,
        present(store, url, state_folder),
    ):
        with store.write() as session:
            booked = book(
                session,
                schedules,
                now=datetime.now(UTC),
                host=host,
                config_path=str(settings.path or ""),
                is_by_hand=is_by_hand,
            )
        if is_by_hand:
            yield run(settings, claims=booked.claims)
            return
        for claims in _runs(store, booked, host):
            keys = {slot.schedule for slot in claims}
            sources = [
                name for schedule in schedules if schedule.key in keys for name in schedule.sources
            ]
            collected = run(with_overrides(settings, sources=sources), claims=claims)
            yield collected
            if collected.stopped_by is not None:
                return


def _runs(store: Store, booked: Booked, host: str) -> Iterator[tuple[SlotClaim, ...]]:
    """Give the slots of each run: first those that are due, lest they become late, too."""
    if booked.claims:
        yield booked.claims
    for slot in booked.missed:
        with store.write() as session:
            is_ours = slots.claim(session, slot=slot, host=host, now=datetime.now(UTC))
        if is_ours:
            yield (slot,)
