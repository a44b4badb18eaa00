"""One value at a time: addresses, names, rules. Pure; a ``ValueError`` carries the complaint."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Literal
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo, available_timezones

from pydantic import SecretStr

from pipeline.pacing import Quota, Rate
from pipeline.settings.complaints import shown

EVERY = {
    "s": (5, 6, 10, 12, 15, 20, 30),
    "m": (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30),
    "h": (1, 2, 3, 4, 6, 8, 12),
    "d": (1,),
}  # what divides a minute, an hour, a day: anything else would stumble at the full one
NO_QUERY = "must not contain ? or #; the query is added by the program"

_NAME = r"[a-z0-9][a-z0-9_-]{0,39}"  # safe in paths, CSV and on terminals
_RATE = r"([0-9]{1,6})/([0-9]{1,6}(?:\.[0-9]{1,3})?)?([smh])"
_QUOTA = r"([0-9]{1,12}) (requests|bits)/(day|month)"
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600}
_EVERY = r"([0-9]{1,4})([smhd])"
_CRON_FIELDS = 5
_CRON_CHARACTERS = 200
_VARIABLE = r"[A-Z_][A-Z0-9_]*"  # capitals only: so a key pasted by mistake is seen
_EMAIL = r"(?ai)[\w.!#$%&'*+/=?^`{|}~-]{1,64}@[a-z0-9.-]{1,189}"
_FAULT = r"([a-z_]+:)?[a-z][a-z0-9_]*(=[ -~]+)?"  # what a value may be, each fault knows
_LABEL = r"(?ai)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_CHARACTERS = 253  # RFC 1035, 2.3.4, as text


def check_name(name: str) -> str:
    """Let the name of a source pass."""
    if not re.fullmatch(_NAME, name):
        raise ValueError("a name has 1 to 40 of a-z 0-9 _ - and begins with a letter or digit")
    return name


def check_rate(value: object) -> Rate | Literal["none"]:
    """Read how often an upstream may be asked."""
    if value == "none":
        return "none"
    found = re.fullmatch(_RATE, value) if isinstance(value, str) else None
    if found is None or int(found[1]) < 1 or float(found[2] or 1) <= 0:
        raise ValueError(f'must be such as "50/s", "1/60s", "3/m", or "none", not {shown(value)}')
    return Rate(
        requests=int(found[1]), period_seconds=float(found[2] or 1) * _UNIT_SECONDS[found[3]]
    )


def check_quotas(value: object) -> tuple[Quota, ...]:
    """Read an upstream's allowances; an empty list for none."""
    texts = value if isinstance(value, list | tuple) else [value]
    found = [re.fullmatch(_QUOTA, text) if isinstance(text, str) else None for text in texts]
    quotas = [
        Quota(
            unit="bits" if each[2] == "bits" else "requests",
            amount=int(each[1]),
            period="day" if each[3] == "day" else "month",
        )
        for each in found
        if each and int(each[1])
    ]
    if len(quotas) != len(texts):
        raise ValueError(
            f'must be such as ["100 requests/month", "200000 bits/day"], not {shown(value)}'
        )
    if len({quota.unit for quota in quotas}) != len(quotas):
        raise ValueError("one quota in requests and one in bits, not several of the same unit")
    return tuple(quotas)


def check_cron(value: object) -> str:
    """Let a cron expression pass that has a next moment; its blanks become single ones."""
    # Imported here: most runs have no schedule, and need not know how one is read.
    from cronsim import CronSim, CronSimError  # noqa: PLC0415

    fields = value.split() if isinstance(value, str) and len(value) <= _CRON_CHARACTERS else []
    if len(fields) != _CRON_FIELDS:
        raise ValueError(
            'must be minute, hour, day of month, month and day of week, as in "*/5 * * * *", not'
            f" {shown(value)}"
        )
    expression = " ".join(fields)
    try:
        next(CronSim(expression, datetime(2000, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        raise ValueError(f"cannot be read: {error} in {shown(value)}") from error
    except StopIteration as error:
        raise ValueError(f"never comes: {shown(value)}") from error
    return expression


def check_every(value: object) -> str:
    """Let a distance between slots pass that divides the next larger unit evenly."""
    found = re.fullmatch(_EVERY, value) if isinstance(value, str) else None
    if found is None or int(found[1]) not in EVERY[found[2]]:
        known = "; ".join(
            ", ".join(f"{n}{unit}" for n in numbers) for unit, numbers in EVERY.items()
        )
        raise ValueError(f"must be one of {known}; not {shown(value)}")
    return f"{int(found[1])}{found[2]}"


def check_timezone(value: object) -> str:
    """Let the name of a time zone pass that this machine knows; UTC needs no database of them."""
    if value == "UTC":
        return "UTC"
    try:
        return ZoneInfo(value if isinstance(value, str) else "").key
    except (LookupError, ValueError, OSError) as error:
        if not available_timezones():
            raise ValueError(
                "this machine has no time zone database: install tzdata (of the system, or with"
                ' pip), or use "UTC"'
            ) from error
        raise ValueError(
            f'must be a time zone such as "UTC" or "Europe/Berlin", not {shown(value)}'
        ) from error


def check_url(url: str) -> str:
    """Let the base address of an upstream pass: http or https, and nothing secret in it."""
    if any(character.isspace() or not character.isprintable() for character in url):
        raise ValueError("must not contain blanks or control characters")
    if not url.lower().startswith(("http://", "https://")):
        raise ValueError("must begin with https:// or http://")
    if "?" in url or "#" in url:
        raise ValueError(NO_QUERY)
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ValueError("is not a valid address") from error
    if "@" in parts.netloc:
        raise ValueError("must not contain a user name or password; see api_key_env")
    _check_port(parts)
    _check_host(parts.hostname or "")
    return url


def check_address(url: str) -> str:
    """Let the address of an upstream pass, also one with a query, where its kind allows that."""
    check_url(re.sub(r"[?].*", "", url, count=1, flags=re.DOTALL))
    return url


def check_proxy(value: str) -> str:
    """Let the address of a proxy pass, a word in its place, or nothing."""
    if value in ("", "env", "none"):
        return value
    if "@" in value:
        raise ValueError("must not contain a user name or password; see proxy_env")
    try:
        return check_proxy_url(value)
    except ValueError as error:
        raise ValueError(f'{error}; or use "env" or "none"') from error


def check_proxy_url(url: str) -> str:
    """Let ``http://host:port`` pass, also with a user and a password; the text never shows it."""
    if not url.lower().startswith("http://"):
        raise ValueError("must begin with http://")
    authority = url[len("http://") :].removesuffix("/")
    check_url("http://" + authority.rpartition("@")[2])
    if re.search(r"[/?#\s]", authority):
        raise ValueError("must end with the port; in user and password use %2F for / and so on")
    return url


def check_media_type(value: str) -> str:
    """Let a media type pass, without parameters; in lower case."""
    if not re.fullmatch(r"[a-z0-9!#$&^_.+-]{1,64}/[a-z0-9!#$&^_.+-]{1,64}", value.lower()):
        raise ValueError(f"must be a media type such as text/html, not {shown(value)}")
    return value.lower()


def _check_port(parts: SplitResult) -> None:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("the port must be a number from 1 to 65535")


def _check_host(host: str) -> None:
    if is_ip(host):
        return
    name = _ascii_host(host).removesuffix(".")
    labels = name.split(".")
    if len(name) > _HOST_CHARACTERS or not all(re.fullmatch(_LABEL, label) for label in labels):
        raise ValueError("the host is not a valid name (each part: 1 to 63 letters, digits, -)")
    if labels[-1].isdecimal():
        raise ValueError("the host is not a valid IPv4 address")


def _ascii_host(host: str) -> str:
    if host.isascii():
        return host
    import idna  # noqa: PLC0415 - most hosts are ASCII and need not pay for its tables

    try:
        return idna.encode(host).decode("ascii")
    except idna.IDNAError as error:
        raise ValueError("the host is not a valid international name") from error


def is_ip(host: str) -> bool:
    """Tell whether *host* is an address, and no name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(url: str) -> bool:
    """Tell whether what is sent to a checked *url* stays on this machine."""
    host = (urlsplit(url).hostname or "").removesuffix(".")
    is_local_name = host == "localhost" or host.endswith(".localhost")
    return is_local_name or (is_ip(host) and ip_address(host).is_loopback)


def check_email(email: str) -> str:
    """Let an address pass that is safe inside a User-Agent header."""
    if not re.fullmatch(_EMAIL, email):
        raise ValueError(f"must be an e-mail address such as you@example.org, not {shown(email)}")
    return email


def check_variable(name: str) -> str:
    """Let the name of an environment variable pass, but hardly a key."""
    if not re.fullmatch(_VARIABLE, name):
        raise ValueError("must name an environment variable (A-Z, 0-9, _), not hold the key")
    return name


def check_variable_or_none(name: str) -> str:
    """Do the same, and let an empty name pass."""
    return name and check_variable(name)


def check_ping_url(url: SecretStr) -> SecretStr:
    """Let the address of a check at a monitor pass, or none."""
    if address := url.get_secret_value():
        check_url(address)
    return url


def check_command(command: Sequence[str]) -> Sequence[str]:
    """Let a program with its arguments pass, or none."""
    if command and not command[0]:
        raise ValueError("must begin with the program")
    if any("\0" in word for word in command):
        raise ValueError("must not contain control characters")
    return command


def check_fault(fault: str) -> str:
    """Let the name of a fault pass; whether there is such a fault, the sandbox knows."""
    if not re.fullmatch(_FAULT, fault):
        raise ValueError(f"must look like stall or anu_legacy:stall, not {shown(fault)}")
    return fault
