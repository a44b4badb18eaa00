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
from enum import IntEnum, StrEnum
from pathlib import Path
from signal import SIGPIPE
from typing import Self


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


AGAIN = True  # it may be retried


class ErrorName(StrEnum):
    """The published vocabulary: stored as it stands, never renamed, never reused."""

    _value_: str
    whose: Whose  # it is at fault when something fails so
    meaning: str  # one line for the reader of a report
    may_retry: bool  # whether asking again in the same run can help

    def __new__(
        cls, value: str, whose: Whose = Whose.OURS, meaning: str = "", may_retry: bool = False
    ) -> Self:
        """Take the facts apart; a call with the value alone looks the name up."""
        name = str.__new__(cls, value)
        name._value_, name.whose, name.meaning, name.may_retry = value, whose, meaning, may_retry
        return name

    DNS = ("dns", Whose.PATH, "the host name could not be resolved", AGAIN)
    CONNECT_REFUSED = ("connect_refused", Whose.PATH, "nothing listens there", AGAIN)
    CONNECT_TIMEOUT = ("connect_timeout", Whose.PATH, "no connection in time", AGAIN)
    UNREACHABLE = ("unreachable", Whose.PATH, "no route to the host", AGAIN)
    TLS = ("tls", Whose.UPSTREAM, "the TLS handshake failed; the reason is beside it")
    WRITE_TIMEOUT = ("write_timeout", Whose.PATH, "the request could not be sent", AGAIN)
    READ_TIMEOUT = ("read_timeout", Whose.UPSTREAM, "no bytes for too long", AGAIN)
    RESET = ("reset", Whose.UPSTREAM, "the connection was reset", AGAIN)
    INCOMPLETE = ("incomplete", Whose.UPSTREAM, "the answer ended early", AGAIN)
    PROTOCOL = ("protocol", Whose.UPSTREAM, "the answer is not valid HTTP", AGAIN)
    DECODE = ("decode", Whose.UPSTREAM, "a content coding that we did not accept")
    TOO_LARGE = ("too_large", Whose.UPSTREAM, "the answer is larger than max_bytes")
    REDIRECT_REFUSED = ("redirect_refused", Whose.UPSTREAM, "a redirect that is not followed")
    RATE_LIMITED = ("rate_limited", Whose.POLICY, "asked too often", AGAIN)
    QUOTA_EXHAUSTED = ("quota_exhausted", Whose.POLICY, "the allowance is used up")
    UNAUTHORIZED = ("unauthorized", Whose.OURS, "the key is missing, wrong or not allowed")
    BLOCKED = ("blocked", Whose.UPSTREAM, "a wall before the service shut us out")
    INTERCEPTED = ("intercepted", Whose.PATH, "somebody on the way answered, not the service")
    HTTP_4XX = ("http_4xx", Whose.OURS, "the request was refused; the status is beside it")
    HTTP_5XX = ("http_5xx", Whose.UPSTREAM, "the server failed", AGAIN)
    CONTENT_TYPE = ("content_type", Whose.CONTRACT, "another content type than agreed")
    NOT_JSON = ("not_json", Whose.CONTRACT, "the body is not valid JSON")
    REFUSED = ("refused", Whose.UPSTREAM, 'a well-formed "no"')
    SCHEMA = ("schema", Whose.CONTRACT, "the body has another shape than agreed")
    COUNT = ("count", Whose.CONTRACT, "fewer or more numbers than asked")
    RANGE = ("range", Whose.CONTRACT, "a number outside of what was asked")
    STALE = ("stale", Whose.CONTRACT, "an old answer served again")
    UNPROVEN = ("unproven", Whose.UPSTREAM, "a signature or hash that does not verify")
    DEADLINE = ("deadline", Whose.OURS, "our own time limit was reached")
    CANCELLED = ("cancelled", Whose.OURS, "the run was stopped")
    INTERNAL = (
        "internal",
        Whose.OURS,
        "a bug of this program, or this machine has too little for it",
    )


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
        self.may_retry = error.may_retry if may_retry is None else may_retry


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
