"""Everything this program raises on purpose, and the published error names.

PipelineError
├── ConfigError      config.toml, the environment or an option is wrong (exit 78)
├── UsageError       the command line asks for what is not there (exit 2)
├── StoreError       the database is missing, damaged, foreign, full or read-only (exit 74)
│   └── StoreBusy      somebody else is writing; try later (exit 75)
├── LockHeld         another run of this configuration is going on (exit 75)
└── SourceError      one fetch failed; carries the published name, becomes a value in the core
"""

import errno
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from pathlib import Path
from signal import SIGPIPE


class ExitCode(IntEnum):
    """The numbers that scripts rely on; 74, 75 and 78 are those of BSD's sysexits.h."""

    OK = 0
    BUG = 1
    USAGE = 2
    PARTIAL = 3
    FINDINGS = 3  # of audit --strict; like PARTIAL: it worked, and not all is well
    NOTHING_COLLECTED = 4
    STORE_FAILED = 74
    TRY_LATER = 75
    CONFIGURATION = 78
    READER_GONE = 128 + SIGPIPE


class Phase(StrEnum):
    """The parts of an attempt, in the order in which they happen."""

    WAIT = "wait"
    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    SEND = "send"
    FIRST_BYTE = "first_byte"
    BODY = "body"
    CHECK = "check"


class Whose(StrEnum):
    """Whose fault a failure is."""

    PATH = "path"
    UPSTREAM = "upstream"
    POLICY = "policy"
    CONTRACT = "contract"
    OURS = "ours"


class ErrorName(StrEnum):
    """The published vocabulary: stored as it stands, never renamed, never reused."""

    DNS = "dns"
    CONNECT_REFUSED = "connect_refused"
    CONNECT_TIMEOUT = "connect_timeout"
    UNREACHABLE = "unreachable"
    TLS = "tls"
    WRITE_TIMEOUT = "write_timeout"
    READ_TIMEOUT = "read_timeout"
    RESET = "reset"
    INCOMPLETE = "incomplete"
    PROTOCOL = "protocol"
    DECODE = "decode"
    TOO_LARGE = "too_large"
    REDIRECT_REFUSED = "redirect_refused"
    RATE_LIMITED = "rate_limited"
    QUOTA_EXHAUSTED = "quota_exhausted"
    UNAUTHORIZED = "unauthorized"
    BLOCKED = "blocked"
    INTERCEPTED = "intercepted"
    HTTP_4XX = "http_4xx"
    HTTP_5XX = "http_5xx"
    CONTENT_TYPE = "content_type"
    NOT_JSON = "not_json"
    REFUSED = "refused"
    SCHEMA = "schema"
    COUNT = "count"
    RANGE = "range"
    STALE = "stale"
    UNPROVEN = "unproven"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorFact:
    """What the vocabulary says of one name.

    Attributes:
        whose: whose fault such a failure is.
        may_retry: whether asking again in the same run can help.
        meaning: one line for the reader of a report.
    """

    whose: Whose
    may_retry: bool
    meaning: str


def _fact(whose: Whose, meaning: str, *, may_retry: bool = False) -> ErrorFact:
    return ErrorFact(whose=whose, may_retry=may_retry, meaning=meaning)


ERRORS: dict[ErrorName, ErrorFact] = {
    ErrorName.DNS: _fact(Whose.PATH, "the host name could not be resolved", may_retry=True),
    ErrorName.CONNECT_REFUSED: _fact(Whose.PATH, "nothing listens there", may_retry=True),
    ErrorName.CONNECT_TIMEOUT: _fact(Whose.PATH, "no connection in time", may_retry=True),
    ErrorName.UNREACHABLE: _fact(Whose.PATH, "no route to the host", may_retry=True),
    ErrorName.TLS: _fact(Whose.UPSTREAM, "the TLS handshake failed; the reason is beside it"),
    ErrorName.WRITE_TIMEOUT: _fact(Whose.PATH, "the request could not be sent", may_retry=True),
    ErrorName.READ_TIMEOUT: _fact(Whose.UPSTREAM, "no bytes for too long", may_retry=True),
    ErrorName.RESET: _fact(Whose.UPSTREAM, "the connection was reset", may_retry=True),
    ErrorName.INCOMPLETE: _fact(Whose.UPSTREAM, "the answer ended early", may_retry=True),
    ErrorName.PROTOCOL: _fact(Whose.UPSTREAM, "the answer is not valid HTTP", may_retry=True),
    ErrorName.DECODE: _fact(Whose.UPSTREAM, "a content coding that we did not accept"),
    ErrorName.TOO_LARGE: _fact(Whose.UPSTREAM, "the answer is larger than max_bytes"),
    ErrorName.REDIRECT_REFUSED: _fact(Whose.UPSTREAM, "a redirect that is not followed"),
    ErrorName.RATE_LIMITED: _fact(Whose.POLICY, "asked too often", may_retry=True),
    ErrorName.QUOTA_EXHAUSTED: _fact(Whose.POLICY, "the allowance is used up"),
    ErrorName.UNAUTHORIZED: _fact(Whose.OURS, "the key is missing, wrong or not allowed"),
    ErrorName.BLOCKED: _fact(Whose.UPSTREAM, "a wall before the service shut us out"),
    ErrorName.INTERCEPTED: _fact(Whose.PATH, "somebody on the way answered, not the service"),
    ErrorName.HTTP_4XX: _fact(Whose.OURS, "the request was refused; the status is beside it"),
    ErrorName.HTTP_5XX: _fact(Whose.UPSTREAM, "the server failed", may_retry=True),
    ErrorName.CONTENT_TYPE: _fact(Whose.CONTRACT, "another content type than agreed"),
    ErrorName.NOT_JSON: _fact(Whose.CONTRACT, "the body is not valid JSON"),
    ErrorName.REFUSED: _fact(Whose.UPSTREAM, 'a well-formed "no"'),
    ErrorName.SCHEMA: _fact(Whose.CONTRACT, "the body has another shape than agreed"),
    ErrorName.COUNT: _fact(Whose.CONTRACT, "fewer or more numbers than asked"),
    ErrorName.RANGE: _fact(Whose.CONTRACT, "a number outside of what was asked"),
    ErrorName.STALE: _fact(Whose.CONTRACT, "an old answer served again"),
    ErrorName.UNPROVEN: _fact(Whose.UPSTREAM, "a signature or hash that does not verify"),
    ErrorName.DEADLINE: _fact(Whose.OURS, "our own time limit was reached"),
    ErrorName.CANCELLED: _fact(Whose.OURS, "the run was stopped"),
    ErrorName.INTERNAL: _fact(
        Whose.OURS, "a bug of this program, or this machine has too little for it"
    ),
}


class PipelineError(Exception):
    """The root of everything below: each of its ``complaints`` is one line, fit for a person."""

    exit_code = ExitCode.BUG

    def __init__(self, *complaints: str) -> None:
        super().__init__("\n".join(complaints))
        self.complaints = complaints


class ConfigError(PipelineError):
    """The configuration cannot be used; a line for each reason."""

    exit_code = ExitCode.CONFIGURATION


class UsageError(PipelineError):
    """The command line asks for something that does not exist."""

    exit_code = ExitCode.USAGE


class StoreError(PipelineError):
    """The database cannot be used; the text names the file and what to do."""

    exit_code = ExitCode.STORE_FAILED


class StoreBusy(StoreError):
    """Somebody else holds the database for longer than we wait."""

    exit_code = ExitCode.TRY_LATER


class LockHeld(PipelineError):
    """Another run of this configuration is going on."""

    exit_code = ExitCode.TRY_LATER


class SourceError(PipelineError):
    """One attempt failed.

    Attributes:
        error: the published name.
        retry_after: seconds that the upstream asked us to wait, if it did.
        may_retry: whether asking again can help; the vocabulary's word unless overruled.
    """

    def __init__(
        self,
        error: ErrorName,
        detail: str,
        *,
        retry_after: float | None = None,
        may_retry: bool | None = None,
    ) -> None:
        super().__init__(f"{error}: {detail}")
        self.error = error
        self.detail = detail
        self.retry_after = retry_after
        self.may_retry = ERRORS[error].may_retry if may_retry is None else may_retry


CLOCK_DOUBT = "(or the clock here is wrong)"  # behind what may be as well
# What the system answers to a program that is wrong; all else is about the machine.
_MISUSE = (errno.EBADF, errno.EFAULT, errno.EINVAL, errno.ENOTSOCK, errno.ENOTTY)

LACK = "this machine has too little for it"  # before what it has too little of


def find_lack(exc: BaseException) -> str | None:
    """Say what this machine has too little of if that is behind *exc*, which is then no bug."""
    behind: BaseException | None = exc
    while behind is not None:
        text = str(behind)
        if isinstance(behind, OSError) and behind.errno in (errno.EMFILE, errno.ENFILE):
            return f"{os.strerror(behind.errno)}; see `ulimit -n`"
        if _is_memory(behind, text):
            return "there is no memory left"
        if isinstance(behind, RuntimeError) and "start new thread" in text:
            return "no thread can be started; see `ulimit -u` and the memory that is left"
        behind = behind.__cause__ or behind.__context__
    return None


def _is_memory(exc: BaseException, text: str) -> bool:
    """Whether memory is what *exc* lacked: Python, its compiler and the linker say it variously."""
    if isinstance(exc, MemoryError | SystemError | SyntaxError):
        return True
    return (
        getattr(exc, "errno", None) == errno.ENOMEM
        or (isinstance(exc, ValueError) and " is required for " in text)
        or (isinstance(exc, ImportError) and "failed to map" in text)
    )


def as_ours(exc: Exception) -> PipelineError:
    """Give what to say of an *exc* that nobody had expected, and the code to leave with.

    The text of a foreign exception may quote what must stay secret; kind and place do not, nor does
    what the system calls an error of its own.
    """
    if isinstance(exc, PipelineError):
        return exc
    kind, place = type(exc).__name__, _place_of(exc)
    if lack := find_lack(exc):
        code, text = ExitCode.TRY_LATER, f"{LACK}: {lack}"
    elif isinstance(exc, OSError) and exc.errno and exc.errno not in _MISUSE:
        code = ExitCode.STORE_FAILED
        text = f"the system refused: {os.strerror(exc.errno)} ({kind} at {place})"
    else:
        code, text = ExitCode.BUG, f"a bug of ours: {kind} at {place}; please report it"
    ours = PipelineError(text)
    ours.exit_code = code
    return ours


def _place_of(exc: BaseException) -> str:
    frames = traceback.extract_tb(exc.__traceback__)[-3:]
    return " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(frames))


@contextmanager
def ungrouped() -> Iterator[None]:
    """Let the lone error of a task group out as itself, so that callers can catch it by its class.

    Of several at once the first is the one that cancelled the others.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from error.__cause__
