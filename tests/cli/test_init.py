"""`pipeline init`: a first configuration that works, asked for or given by options."""

import os
import pty
import select
import sys
from pathlib import Path
from time import monotonic

import pytest

from pipeline.errors import ExitCode
from pipeline.init import read_offers
from pipeline.settings import load_settings
from tests.cli.conftest import Invoke
from tests.processes import COMMAND, PATIENCE_SECONDS, ROOT


def enabled(file: Path) -> list[str]:
    """Read which sources the file asks."""
    return list(load_settings(file, dict(os.environ), will_ask=False).enabled_sources)


def test_every_real_source_is_offered_with_a_word_about_it() -> None:
    """The shipped file describes each; nothing is kept a second time."""
    offers = read_offers()

    assert {"anu_legacy", "anu_aqn", "random_org", "randomnumberapi"} <= offers.keys()
    assert all(offer.about for offer in offers.values())
    assert offers["random_org"].about == "random.org: atmospheric noise from Dublin"


@pytest.mark.parametrize("name", ["sandbox", *read_offers()])
def test_each_source_alone_makes_a_file_that_is_right(
    home: Path, invoke: Invoke, name: str
) -> None:
    """It is checked before it is there, and says what to type next."""
    made = invoke("init", "--source", name, "--email", "me@example.org")

    assert (made.exit_code, made.stderr) == (0, "")
    assert "Next: `pipeline plan`" in made.stdout
    sources = enabled(home / "config.toml")
    assert sources == [name] if name != "sandbox" else len(sources) == 5
    assert "\n[collect]\n" in (home / "config.toml").read_text("utf-8")
    assert ("into [sources.json_api]." in made.stdout) is (name == "json_api")


def test_options_say_what_would_be_asked(home: Path, invoke: Invoke) -> None:
    """The address, the variable with the key, and the distance of the runs."""
    named = ("--source", "random_org,anu_aqn")
    made = invoke(
        *("init", *named, "--email", "me@example.org"),
        *("--key-env", "anu_aqn=MY_KEY", "--every", "8h"),
    )

    settings = load_settings(home / "config.toml", dict(os.environ), will_ask=False)
    assert settings.sources["random_org"].email == "me@example.org"
    assert settings.sources["anu_aqn"].api_key_env == "MY_KEY"
    assert settings.schedule.every == "8h"
    assert "into the variable MY_KEY." in made.stdout


def test_what_was_made_works(home: Path, invoke: Invoke) -> None:
    """From nothing to a run in two commands."""
    invoke("init", "--source", "sandbox")

    assert invoke("collect").exit_code == 0
    assert (home / "data" / "pipeline" / "pipeline.db").exists()


def test_a_file_that_is_there_stays(home: Path, invoke: Invoke) -> None:
    """Unless --force says otherwise."""
    (home / "config.toml").write_text("mine")

    refused = invoke("init", "--source", "sandbox")
    kept = (home / "config.toml").read_text("utf-8")
    forced = invoke("init", "--source", "sandbox", "--force")

    assert (refused.exit_code, kept) == (ExitCode.USAGE, "mine")
    assert "--force replaces it" in refused.stderr
    assert forced.exit_code == 0


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        (("sandbox", "--every", "7m"), "--every: "),
        (("random_org", "--email", 'a"b'), "--email: "),
        (("anu_aqn", "--key-env", "anu_aqn=a b"), "--key-env: must name an environment variable"),
    ],
)
def test_a_wish_that_is_wrong_makes_no_file(
    home: Path, invoke: Invoke, wish: tuple[str, ...], says: str
) -> None:
    """One line that names the option; and what was there before is still there."""
    (home / "config.toml").write_text("mine")

    wrong = invoke("init", "--force", "--source", *wish)

    assert wrong.exit_code == ExitCode.USAGE
    (line,) = wrong.stderr.splitlines()
    assert line.startswith(f"pipeline: {says}")
    assert [path.name for path in home.iterdir()] == ["config.toml"]
    assert (home / "config.toml").read_text("utf-8") == "mine"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--source", "dice"), "--source 'dice': there is none; known are sandbox, anu_legacy"),
        ((), "--source: give one, or a terminal on which to ask"),
        (("--source", "anu_aqn", "--key-env", "KEY"), "give SOURCE=VARIABLE"),
        (("--source", "lfd", "--key-env", "anu_aqn=KEY"), "'anu_aqn': is no chosen source"),
        (("--source", "random_org"), "--email: random_org wants to know whom to write to"),
    ],
)
def test_wrong_options(invoke: Invoke, arguments: tuple[str, ...], says: str) -> None:
    """In a line, with the documented code."""
    made = invoke("init", *arguments)

    assert made.exit_code == ExitCode.USAGE
    assert says in " ".join(made.stderr.split())


def test_on_a_terminal_it_asks(home: Path) -> None:
    """For what no option says, with a default for each."""
    answers = [
        ("Which", "random_org, anu_aqn"),
        ("e-mail", "me@example.org"),
        ("variable", ""),
        ("how often", "1h"),
    ]
    process, terminal = pty.fork()
    if not process:
        os.environ["PYTHONPATH"] = str(ROOT)
        os.execv(sys.executable, [*COMMAND, "init"])
    seen = ""
    until = monotonic() + PATIENCE_SECONDS
    for question, answer in answers:
        while question not in seen.rpartition("\n")[2] and monotonic() < until:
            seen += read(terminal)
        os.write(terminal, f"{answer}\n".encode())
    _, status = os.waitpid(process, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert "random.org: atmospheric noise" in seen
    settings = load_settings(home / "config.toml", dict(os.environ), will_ask=False)
    assert list(settings.enabled_sources) == ["anu_aqn", "random_org"]
    assert settings.sources["anu_aqn"].api_key_env == "ANU_AQN_KEY"
    assert settings.schedule.every == "1h"


def read(terminal: int) -> str:
    """Read what is there, for a second at most."""
    ready, _, _ = select.select([terminal], [], [], 1)
    return os.read(terminal, 4096).decode() if ready else ""
