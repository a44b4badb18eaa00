"""Claim the slots that are due, record those that were missed, and prepare the runs for both."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from time import sleep

from pydantic import SecretStr
from sqlmodel import Session

from pipeline.errors import ConfigError
from pipeline.lock import host_identity
from pipeline.models import SlotClaim
from pipeline.run.collect import Run
from pipeline.run.plan import Rhythm, find_impossible, plan_upstreams
from pipeline.schedule.ledger import Schedule, find_schedules, pick_caught_up
from pipeline.settings import Settings, SourceSettings, with_overrides
from pipeline.store import slots


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


def require_schedules(settings: Settings) -> tuple[Schedule, ...]:
    """Find the schedules of the enabled sources, whatever the rules say of them.

    Raises:
        ConfigError: there is none.
    """
    schedules = find_schedules(settings)
    if not schedules:
        raise ConfigError(
            f"{settings.named}: there is no schedule; give cron or every in a [schedule] table"
        )
    return schedules


def find_possible_schedules(settings: Settings) -> tuple[Schedule, ...]:
    """Find the schedules of the enabled sources, as ``require_schedules`` does.

    Raises:
        ConfigError: there is none, or the rules can never allow what one of them promises.
    """
    schedules = require_schedules(settings)
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
        unseen: list[datetime] = []
        if last is not None:
            slots.cut_gap(session, schedule=schedule.key, due_at=last, at=due_at)
            unseen, gap = schedule.between(last, due_at)
            if gap is not None:
                slots.book_gap(session, gap=gap, host=host, now=now)
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


def wait_for_our_place(schedules: Sequence[Schedule]) -> None:
    """Wait for our part of the jitter; nothing is claimed before, so a kill harms nothing."""
    now, host = datetime.now(UTC), host_identity()
    start_at = max(schedule.start_of(schedule.due(now), host) for schedule in schedules)
    if start_at > now:
        sleep((start_at - now).total_seconds())


def book_runs(everything: Run, schedules: Sequence[Schedule], *, is_by_hand: bool) -> list[Run]:
    """Claim what is due, and make of the run of *everything* those that this start is for.

    First what is due, lest it becomes late, too; then what was missed, whose slots are to be
    claimed when their turn comes. A start by hand is one run of everything.
    """
    settings = everything.settings
    with everything.store.write() as session:
        booked = book(
            session,
            schedules,
            now=datetime.now(UTC),
            host=host_identity(),
            config_path=str(settings.path or ""),
            is_by_hand=is_by_hand,
        )
    if is_by_hand:
        return [replace(everything, claims=booked.claims)]
    sources = {schedule.key: schedule.sources for schedule in schedules}

    def run(*claims: SlotClaim, is_missed: bool = False) -> Run:
        names = [name for slot in claims for name in sources[slot.schedule]]
        narrowed = with_overrides(settings, sources=names)
        return replace(everything, settings=narrowed, claims=claims, is_missed=is_missed)

    due = [run(*booked.claims)] if booked.claims else []
    return due + [run(slot, is_missed=True) for slot in booked.missed]
