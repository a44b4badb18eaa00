"""Making foreign text safe: secrets out, control characters visible. Pure."""

import base64
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

REDACTED = "[REDACTED]"
LINE_LENGTH = 300  # characters of one line of foreign text that we keep

# C0, DEL and C1 steer terminals; the bidirectional and zero-width ones make text lie about itself
# (Unicode TR 36); line and paragraph separators break a log line; surrogates cannot be encoded.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_COMBINING = re.compile("([\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u20d0-\u20ff\ufe20-\ufe2f]{4})+")


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape", "surrogatepass").decode()


def printable(text: str) -> str:
    r"""Make every character that could steer a terminal or a log visible, as ``\x1b``."""
    return _COMBINING.sub("\\1", _UNSAFE.sub(_escaped, text))


def printable_lines(text: str) -> str:
    """Do the same and keep line ends, for text that is shown as a block."""
    return "\n".join(printable(line) for line in text.replace("\r\n", "\n").split("\n"))


def one_line(text: str) -> str:
    """Make *text* printable, one line and short."""
    safe = printable(text)
    return safe if len(safe) <= LINE_LENGTH else safe[: LINE_LENGTH - 1] + "…"


def _spellings(secret: str) -> set[str]:
    """Give the forms in which an upstream may repeat a secret to us."""
    return {
        secret,
        quote(secret, safe=""),
        quote_plus(secret),
        base64.b64encode(secret.encode()).decode(),
        secret.replace("\\", "\\\\").replace('"', '\\"').replace("/", "\\/"),
        secret.replace("\\", "\\\\").replace('"', '\\"'),
    }


def redact(data: bytes, secrets: Iterable[str]) -> bytes:
    """Replace each of *secrets* in *data*, however it is spelled, by ``[REDACTED]``."""
    for secret in secrets:
        for spelling in sorted(_spellings(secret), key=len, reverse=True):
            data = re.sub(
                re.escape(spelling.encode()), REDACTED.encode(), data, flags=re.IGNORECASE
            )
    return data


def redact_text(text: str, secrets: Iterable[str]) -> str:
    """Replace each of *secrets* in *text*."""
    return redact(text.encode("utf-8", "surrogateescape"), secrets).decode(
        "utf-8", "surrogateescape"
    )
