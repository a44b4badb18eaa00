"""The tables of ``config.toml`` as frozen models: each key, its unit and its default, once."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    PlainSerializer,
    PlainValidator,
    SecretStr,
)

from pipeline.pacing import Quota, Rate
from pipeline.settings.api import ApiSettings
from pipeline.settings.base import Pause, Seconds, Table
from pipeline.settings.checks import (
    check_address,
    check_command,
    check_cron,
    check_email,
    check_every,
    check_fault,
    check_media_type,
    check_name,
    check_ping_url,
    check_proxy,
    check_quotas,
    check_rate,
    check_timezone,
    check_variable,
    check_variable_or_none,
)
from pipeline.settings.complaints import list_choices, nearest, shown
from pipeline.settings.sizes import check_batches, dump_sizes

UPSTREAMS = (
    "anu_legacy",
    "anu_aqn",
    "random_org",
    "random_org_jsonrpc",
    "random_org_signed",
    "randomnumberapi",
    "lfd",
    "padova",
    "csrng",
    "outshift",
    "qrandom",
    "quandela",
    "json_api",
    "drand_quicknet",
    "drand_default",
    "nist_beacon",
    "nqsn_beacon",
)
SANDBOX = "sandbox."  # before the name of an upstream: this program plays it
KINDS = (*UPSTREAMS, *(SANDBOX + name for name in UPSTREAMS if name != "json_api"))
Missed = Literal["skip", "once", "all"]
WORDS = {"uint8": (0, 2**8 - 1), "uint16": (0, 2**16 - 1)}
SAFE_INTEGER = 2**53 - 1  # all JSON readers agree on integers up to here (RFC 8259, 6)

_AFTER_USER = r"(?<=://)([^:/@?]*):.*@"  # up to the last @: rather too much
_HIDDEN_PARAMETER = r"(?i)([?&][^=&]*(?:pass|secret|token|key)[^=&]*=)[^&]*"


def check_kind(value: object) -> str:
    """Let one of ``KINDS`` pass."""
    if value not in KINDS:
        guess = nearest(value, KINDS) if isinstance(value, str) else ""
        raise ValueError(f"must be one of {list_choices(KINDS)}, not {shown(value)}{guess}")
    return str(value)


def hide_password(url: str) -> str:
    """Write a database's *url* so that it may be shown."""
    return re.sub(_HIDDEN_PARAMETER, r"\1***", re.sub(_AFTER_USER, r"\1:***@", url))


Bound = Annotated[int, Field(ge=-SAFE_INTEGER, le=SAFE_INTEGER)]
FileName = Annotated[str, Field(min_length=1)]
Cron = Annotated[str, PlainValidator(check_cron)]
Every = Annotated[str, PlainValidator(check_every)]
TimeZone = Annotated[str, PlainValidator(check_timezone)]


class _ProxySettings(Table):
    """Through which proxy upstreams are asked; the keys stand in two tables.

    Attributes:
        proxy: ``http://host:port``, ``env`` (what the usual variables say) or ``none``; empty
            where nothing is said.
        proxy_env: the environment variable that holds its URL instead, with user and password.
        proxy_url: what is read from there; never in a file, dump or repr.
    """

    proxy: Annotated[str, AfterValidator(check_proxy)] = ""
    proxy_env: Annotated[str, AfterValidator(check_variable_or_none)] = ""
    proxy_url: SecretStr | None = Field(default=None, exclude=True, repr=False)


class CollectSettings(_ProxySettings):
    """The ``[collect]`` table.

    Attributes:
        deadline_seconds: what one run may take.
        evidence_bytes: how much of a failed answer's body is kept.
        max_bytes: the largest body that is read.
        retry_budget: retries of all sources together.
    """

    deadline_seconds: Seconds = 300.0
    evidence_bytes: int = Field(default=4096, ge=0, le=2**20)
    max_bytes: int = Field(default=2**20, ge=1, le=2**30)
    retry_budget: int = Field(default=100, ge=0, le=1_000_000)


class StoreSettings(Table):
    """The ``[store]`` table.

    Attributes:
        url: a SQLAlchemy URL with an absolute path; its password is left out of dumps.
        busy_seconds: how long another writer is waited for.
        keep_numbers: whether the numbers are kept beside their sum.
    """

    url: Annotated[str, PlainSerializer(hide_password)] = Field(default="", repr=False)
    busy_seconds: Pause = 10.0
    keep_numbers: bool = True


class SandboxSettings(Table):
    """The ``[sandbox]`` table: how this program plays the upstreams.

    Attributes:
        latency_seconds: how long every answer takes.
        faults: such as ``stall`` (all upstreams) or ``anu_legacy:stall``.
        rules: whether rate limits and quotas are enforced.
    """

    latency_seconds: Pause = 0.2
    faults: tuple[Annotated[str, AfterValidator(check_fault)], ...] = Field((), strict=False)
    rules: bool = True


class ScheduleSettings(Table):
    """The ``[schedule]`` table: when slots are due; without ``cron`` and ``every`` there are none.

    Attributes:
        name: what the slots are kept under; configurations that share a store need one each.
        cron: five fields as Debian's cron reads them; instead of it ``every``.
        every: a distance such as ``5m``, counted from midnight.
        timezone: whose clock ``cron`` and ``every`` go by. UTC, because there no hour is left out
            or comes twice, and because all machines that share a store must mean the same moments.
        jitter_seconds: each machine starts later by its own part of this.
        grace_seconds: what starts later than this (and the jitter) after it was due is late.
        missed: how many of the slots that nobody ran are caught up on: none, the last one, all of
            the last hundred.
    """

    name: Annotated[str, AfterValidator(check_name)] = "default"
    cron: Cron | None = None
    every: Every | None = None
    timezone: TimeZone = "UTC"
    jitter_seconds: Pause = 0.0
    grace_seconds: Pause = 60.0
    missed: Missed = "skip"


class NotifySettings(Table):
    """The ``[notify]`` table: who is told of a run, and how; none of it can harm the run.

    Attributes:
        seconds: what each way of telling may take.
        ping_url: base address at a monitor that speaks healthchecks.io's protocol. It is a secret:
            who knows it can keep the monitor quiet.
        ping_url_env: the environment variable that holds it instead.
        metrics_file: what Prometheus' node exporter collects; absolute.
        html_file: the overview for a browser, written anew after each run; absolute.
        on_failure: a command and its arguments; the program is absolute or found in ``$PATH``.
        on_recovery: the same, for when all is well again.
        otel: whether traces are sent, to where the variables ``OTEL_*`` say.
    """

    seconds: Seconds = 5.0
    ping_url: Annotated[SecretStr, AfterValidator(check_ping_url)] = SecretStr("")
    ping_url_env: Annotated[str, AfterValidator(check_variable_or_none)] = ""
    metrics_file: str = ""
    html_file: str = ""
    on_failure: Annotated[tuple[str, ...], AfterValidator(check_command)] = Field((), strict=False)
    on_recovery: Annotated[tuple[str, ...], AfterValidator(check_command)] = Field((), strict=False)
    otel: bool = False


class SourceScheduleSettings(Table):
    """The ``schedule`` of one source: its own slots; the rest is as in ``[schedule]``."""

    cron: Cron | None = None
    every: Every | None = None
    timezone: TimeZone | None = None


class SourceSettings(_ProxySettings):
    """One ``[sources.<name>]`` table. Where the default is None, the kind decides.

    Attributes:
        url: base address of the upstream; never set for a sandbox kind. Of ``json_api`` the whole
            address, a template.
        min: lower bound of the numbers, inclusive; set together with ``max`` or not at all.
        max: upper bound of the numbers, inclusive.
        word: sets ``min`` and ``max`` to what an unsigned word of so many bits holds.
        batch_sizes: numbers per batch, in order; the key in the file is ``batches``. Those that are
            drawn for each run read as the largest.
        in_flight: requests that may be on their way at once.
        merge: whether one request may serve several batches.
        attempt_seconds: what one attempt may take in all.
        connect_seconds: what connecting may take; never more than ``attempt_seconds``.
        read_seconds: how long to wait for the next byte; None: as long as the attempt.
        retries: attempts after the first.
        backoff_seconds: the wait before the first retry.
        retry_budget: retries of all its fetches together, in one run.
        breaker: failures in a row, of the path or the upstream, that end the asking; 0: never.
        rate: how often the upstream may be asked, by all processes together.
        quotas: what it allows per day or month, to all processes together.
        api_key_env: the environment variable that holds the key.
        api_key_file: the file that holds the key; absolute.
        email: whom the upstream may write to about our requests.
        ca_file: PEM certificates to trust in place of the system's; absolute.
        proof_key_file: PEM certificates whose signatures prove its numbers; absolute.
        allow_http: whether the key may travel unencrypted.
        accept_content_type: media types that are taken besides the agreed one.
        accept_encoding: whether a compressed body is taken, though we do not ask for it.
        schedule: its own slots, in which it is collected instead of those of ``[schedule]``.
        format: what random.org is to answer with.
        api: how a JSON API is asked and read; what a known one needs none of has its defaults.
        api_key: the key itself, known if the source is enabled; never in a file, dump or repr.
    """

    kind: Annotated[str, PlainValidator(check_kind)]
    enabled: bool = True
    url: Annotated[str, AfterValidator(check_address)] | None = None
    min: Bound | None = None
    max: Bound | None = None
    word: Literal["uint8", "uint16"] | None = None
    batch_sizes: Annotated[
        Sequence[int], PlainValidator(check_batches), PlainSerializer(dump_sizes)
    ] = Field(alias="batches")
    in_flight: int | None = Field(default=None, ge=1, le=1000)
    merge: bool | None = None
    attempt_seconds: Seconds | None = None
    connect_seconds: Seconds = 10.0
    read_seconds: Seconds | None = None
    retries: int = Field(default=2, ge=0, le=100)
    backoff_seconds: Pause = 0.5
    retry_budget: int = Field(default=20, ge=0, le=1_000_000)
    breaker: int = Field(default=5, ge=0, le=1000)
    rate: Annotated[
        Rate | Literal["none"] | None, PlainValidator(check_rate), PlainSerializer(str)
    ] = None
    quotas: Annotated[
        tuple[Quota, ...] | None, PlainValidator(check_quotas), PlainSerializer(str)
    ] = None
    api_key_env: Annotated[str, AfterValidator(check_variable)] | None = None
    api_key_file: FileName | None = None
    email: Annotated[str, AfterValidator(check_email)] | None = None
    ca_file: FileName | None = None
    proof_key_file: FileName | None = None
    allow_http: bool = False
    accept_content_type: Annotated[
        tuple[Annotated[str, AfterValidator(check_media_type)], ...], Field(strict=False)
    ] = ()
    accept_encoding: Literal["gzip"] | None = None
    schedule: SourceScheduleSettings | None = None
    format: Literal["plain", "html"] | None = None
    api: ApiSettings | None = None
    api_key: SecretStr | None = Field(default=None, exclude=True, repr=False)

    @property
    def is_sandbox(self) -> bool:
        """Tell whether this program itself plays the upstream."""
        return self.kind.startswith(SANDBOX)

    @property
    def upstream(self) -> str:
        """Name the upstream that is asked or played."""
        return self.kind.removeprefix(SANDBOX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that the user decided.

    Attributes:
        path: the file that it came from, absolute; None if there was none.
        named: the same and why it was taken, as messages have it.
        searched: where no file was, so that the built-in one was taken, though nobody asked for it.
        sources: by name, in the order of the file.
        proxy_variables: what the environment says about proxies, by variable.
        overrides: the variables whose values won over the file.
    """

    sources: Mapping[str, SourceSettings]
    collect: CollectSettings = field(default_factory=CollectSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    sandbox: SandboxSettings = field(default_factory=SandboxSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    notify: NotifySettings = field(default_factory=NotifySettings)
    path: Path | None = None
    named: str = ""
    searched: tuple[Path, ...] = ()
    proxy_variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    overrides: tuple[str, ...] = ()

    @property
    def enabled_sources(self) -> dict[str, SourceSettings]:
        """Pick the sources that are asked, in the order of the file."""
        return {name: source for name, source in self.sources.items() if source.enabled}

    @property
    def has_slots(self) -> bool:
        """Tell whether the enabled sources have a schedule, the common one or their own."""
        common = bool(self.schedule.cron or self.schedule.every)
        return common or any(source.schedule for source in self.enabled_sources.values())

    @property
    def digest(self) -> str:
        """Hash all decisions, the order of sources included, without secrets: SHA-256 in hex."""
        tables = [self.collect, self.store, self.sandbox, self.schedule, self.notify]
        tables += self.sources.values()
        canonical = "\n".join([*self.sources, *(table.model_dump_json() for table in tables)])
        return hashlib.sha256(canonical.encode()).hexdigest()


def known_at(table: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """List the keys that the table at *location* below *table* may have; none if there is none."""
    for part in location:
        if isinstance(part, str) and part in table.model_fields:
            below = _model_in(table.model_fields[part].annotation)
            if below is None:
                return []
            table = below
    return keys_of(table)


def _model_in(annotation: object) -> type[BaseModel] | None:
    """Find the table in ``Table | None`` or ``tuple[Table, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)


def keys_of(table: type[BaseModel]) -> list[str]:
    """List the keys that *table* may have in the file."""
    fields = table.model_fields.items()
    return [field.alias or name for name, field in fields if not field.exclude]
