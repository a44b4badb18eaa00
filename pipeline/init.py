"""``pipeline init``: write a first configuration, out of the one that comes with the program."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from json import dumps
from pathlib import Path

from pipeline.errors import ConfigError, UsageError
from pipeline.rendering.output import write, write_prose
from pipeline.rendering.output_file import new_file
from pipeline.settings import BUILTIN, config_file, load_settings

HEADING = """# pipeline: what to collect, from where and how hard.
#
# Written by `pipeline init`. Sources with enabled = false are not asked. The program takes the
# first of: --config FILE, $PIPELINE_CONFIG, ./config.toml (if it is not another program's),
# $XDG_CONFIG_HOME/pipeline/config.toml (~/.config by default).
# Single values can come from the environment and then win over the file:
# PIPELINE_COLLECT_DEADLINE_SECONDS=20, PIPELINE_SOURCES_RANDOM_ORG_ENABLED=true.
# A key that is commented out shows its default.
"""
SANDBOX = "sandbox"  # means all sources that this program plays itself
JSON_API = "json_api"  # whose table is an example
REAL = "# ---- The real upstreams"  # where their part of the shipped file begins
PLAYED = "# ---- The sandbox"
OPTIONS = {"api_key_env": "--key-env", "email": "--email", "every": "--every"}  # by their keys
_WISHED = rf"[^:]*: [^:]*\b({'|'.join(OPTIONS)}): (.*)"  # what is wrong with the value of one
TABLE = r"(?m)^\[sources\.(\w+)\]"  # in each of its paragraphs


@dataclass(frozen=True, slots=True)
class Offer:
    """A source of the shipped file.

    Attributes:
        text: its table with the comment above it, as it stands there.
    """

    text: str

    @property
    def name(self) -> str:
        """Give the source's name."""
        found = re.search(TABLE, self.text)
        return found[1] if found else ""

    @property
    def about(self) -> str:
        """Give the first sentence of its comment."""
        lines = [line for line in self.text.splitlines() if line.startswith("#")]
        sentence = " ".join(line.removeprefix("#").strip() for line in lines).partition(". ")[0]
        return sentence.rstrip(".")

    def says(self, key: str) -> str | None:
        """Give the text that a key has, if it is not commented out."""
        found = re.search(rf'(?m)^{key} = "(.*?)"', self.text)
        return found and found[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the first configuration is to hold.

    Attributes:
        sources: names of the shipped file, or ``sandbox``.
        email: for the upstreams that want one.
        keys: by source, the variable that holds its key.
        every: how often to collect; None: no schedule.
    """

    sources: Sequence[str]
    email: str | None = None
    keys: Mapping[str, str]
    every: str | None = None


def read_offers() -> dict[str, Offer]:
    """List the real sources of the shipped file by name, in its order."""
    _, _, real = _shipped().partition(REAL)
    offers = (Offer(text) for text in real.split("\n\n") if re.search(TABLE, text))
    return {offer.name: offer for offer in offers}


def _shipped() -> str:
    return config_file(BUILTIN).read_text("utf-8")


def check_sources(names: Sequence[str]) -> None:
    """See that all of *names* can be had."""
    known = [SANDBOX, *read_offers()]
    for name in names:
        if name not in known:
            raise UsageError(f"--source {name!a}: there is none; known are {', '.join(known)}")


def check_wishes(wishes: Wishes) -> None:
    """See that nothing is missing, and that nothing was given in vain."""
    check_sources(wishes.sources)
    chosen = [offer for name, offer in read_offers().items() if name in wishes.sources]
    with_key = [offer.name for offer in chosen if offer.says("api_key_env")]
    for name in wishes.keys:
        if name not in with_key:
            raise UsageError(f"--key-env {name!a}: is no chosen source that wants a key")
    for offer in chosen:
        if offer.says("email") and not wishes.email:
            raise UsageError(f"--email: {offer.name} wants to know whom to write to; give one")


def write_first(wishes: Wishes, file: Path, *, environ: Mapping[str, str], force: bool) -> None:
    """Write the first configuration, check it, and say what to type next."""
    check_wishes(wishes)
    with new_file(file, force=force) as draft:
        draft.write(make_configuration(wishes).encode())
        draft.flush()
        try:
            settings = load_settings(Path(draft.name), environ, will_ask=False)
        except ConfigError as exc:
            raise _refusal(exc, draft.name, file) from exc
    write_prose(f"{file} asks {', '.join(settings.enabled_sources)}.")
    for source in settings.enabled_sources.values():
        if source.api_key_env and source.api_key_env not in environ:
            write_prose(f"Put the key for {source.url} into the variable {source.api_key_env}.")
    if JSON_API in wishes.sources:
        write_prose(f"Put your API's address, and how it answers, into [sources.{JSON_API}].")
    write_prose("Next: `pipeline plan` shows what would be asked, `pipeline collect` asks.")


def _refusal(exc: ConfigError, draft: str, file: Path) -> UsageError | ConfigError:
    """Name the option where a wish is refused; the rest of the draft is known to be right."""
    problems = [re.fullmatch(_WISHED, line.removeprefix(draft)) for line in exc.complaints]
    wrong = [f"{OPTIONS[found[1]]}: {found[2]}" for found in problems if found]
    if wrong:
        return UsageError(*wrong)
    lines = (line.replace(draft, str(file)).replace(" (--config)", "") for line in exc.complaints)
    return ConfigError(*lines)


def make_configuration(wishes: Wishes) -> str:
    """Write the text of the first configuration."""
    head, _, rest = _shipped().partition(PLAYED)
    played, _, real = rest.partition(REAL)
    _, _, tables = head.partition("[collect]")
    if wishes.every is not None:
        tables = _put(tables, r'# every = "5m"(?= )', "every", wishes.every)
    parts = [HEADING, f"\n[collect]{tables}"]
    if SANDBOX in wishes.sources:
        parts.append(f"{PLAYED}{played}")
    chosen = (_switched_on(Offer(text), wishes) for text in real.split("\n\n"))
    return "".join([*parts, REAL, "\n\n".join(chosen)])


def _switched_on(offer: Offer, wishes: Wishes) -> str:
    if offer.name not in wishes.sources:
        return offer.text
    text = re.sub(r"(?m)^enabled = false", "enabled = true", offer.text)
    if wishes.email:
        text = _put(text, 'email = ".*?"', "email", wishes.email)
    if key := wishes.keys.get(offer.name):
        text = _put(text, 'api_key_env = ".*?"', "api_key_env", key)
    return text


def _put(text: str, line: str, key: str, value: str) -> str:
    """Give *key* another value; what stands in quotes in JSON does so in TOML."""
    return re.sub(f"(?m)^{line}", lambda _: f"{key} = {dumps(value, ensure_ascii=False)}", text)


def ask_wishes(given: Wishes, ask: Callable[[str, str], str]) -> Wishes:
    """Ask a person for what was not *given*; *ask* shows a question and a default."""
    offers = read_offers()
    names = list(given.sources)
    if not names:
        listed = "\n".join(f"  {name:20} {offer.about}" for name, offer in offers.items())
        write(f"Sources:\n  {SANDBOX:20} played by this program, on this machine\n{listed}")
        names = re.split(r"[\s,]+", ask("Which (several with commas)", SANDBOX).strip())
        check_sources(names)
    email, keys = given.email, dict(given.keys)
    for offer in (offers[name] for name in names if name in offers):
        if offer.says("email") and email is None:
            email = ask("Your e-mail address, which random.org wants to know", "")
        if (variable := offer.says("api_key_env")) and offer.name not in keys:
            keys[offer.name] = ask(f"The variable with the key for {offer.name}", variable)
    every = given.every or ask("Collect how often (5m, 1h, 1d; empty: no schedule)", "") or None
    return Wishes(sources=names, email=email, keys=keys, every=every)
