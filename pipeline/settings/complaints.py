"""Problems in a newcomer's words: where, what is wrong, what to do; one line each."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from pydantic_core import ErrorDetails

from pipeline.errors import ConfigError

Location = tuple[str | int, ...]  # ("sources", "anu", "min")

SHOWN_CHARACTERS = 60
SECRET_KEYS = frozenset(
    {"api_key_env", "api_key_file", "ping_url", "ping_url_env", "url"}
)  # may hold one by mistake

_BARE_KEY = r"[A-Za-z0-9_-]{1,60}"
# pydantic's error types → our words, filled from the error's context; 16 digits show all that a
# limit may have, and no needless ".0".
_PLAIN = {
    "missing": "is missing",
    "string_type": "must be text in quotes",
    "string_too_short": "must not be empty",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list in brackets",
    "model_type": "must be a table in braces",
    "extra_forbidden": "is not a known key",
    "greater_than": "must be more than {gt:.16g}",
    "greater_than_equal": "must be at least {ge:.16g}",
    "less_than_equal": "must be at most {le:.16g}",
    "literal_error": "must be one of {choices}",
}


def shown(value: object) -> str:
    """Show *value* on one line, cut to 60 characters."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write integers of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"


def printable(text: str) -> str:
    """Show *text* as it stands if that is safe on a terminal, else quoted."""
    return text if text.isprintable() else repr(text)


def nearest(word: str, known: Iterable[str], *, alike: float = 0.6) -> str:
    """Say which known word was probably meant; empty if none is *alike*, from 0 to 1."""
    found = get_close_matches(word, known, n=1, cutoff=alike)
    return f"; did you mean {found[0]}?" if found else ""


def dotted(location: Location) -> str:
    """Write *location* as TOML does, on one line whatever its keys hold."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += "." * bool(text) + (part if re.fullmatch(_BARE_KEY, part) else shown(part))
    return text


def list_choices(choices: Sequence[str]) -> str:
    """List words; those that are another one behind ``sandbox.`` are told together."""
    played = {choice for choice in choices if choice.removeprefix("sandbox.") != choice}
    listed = ", ".join(choice for choice in choices if choice not in played)
    return f'{listed} (or one of these behind "sandbox.")' if played else listed


def plain(error: ErrorDetails) -> str:
    """Put pydantic's *error* into words that need no knowledge of pydantic."""
    kind, context, value = error["type"], error.get("ctx", {}), error["input"]
    if kind == "value_error":  # raised by a check of ours, which found the words itself
        return str(context["error"])
    choices = re.findall(r"'([^']+)'", str(context.get("expected", "")))
    text = _PLAIN.get(kind, "has a value that does not fit here")
    text = text.format(**{**context, "choices": list_choices(choices)})
    if kind == "missing" or error["loc"][-1] in SECRET_KEYS:
        return text
    guess = nearest(value, choices) if isinstance(value, str) else ""
    return f"{text}, not {shown(value)}{guess}"


@dataclass(frozen=True, slots=True)
class Complaints:
    """The problems found so far, each with the place where the user can mend it.

    Attributes:
        file: its full path and why it was taken.
        variables: which environment variable set a location, where one did.
    """

    file: str
    variables: dict[Location, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def add(self, location: Location, problem: str) -> None:
        """Note one problem."""
        prefixes = (location[:length] for length in (2, 3))  # ("collect", key), ("sources", …)
        variable = next((self.variables[p] for p in prefixes if p in self.variables), None)
        self.lines.append(f"{variable or f'{self.file}: {dotted(location)}'}: {problem}")

    def raise_any(self) -> None:
        """Stop here if there is anything to complain about.

        Raises:
            ConfigError: all of it.
        """
        if self.lines:
            raise ConfigError(*self.lines)
