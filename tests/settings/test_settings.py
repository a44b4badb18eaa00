"""Settings: what may be written, what is refused, and in which words."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies
from pydantic import ValidationError

import pipeline.settings
from pipeline.errors import ConfigError, UsageError
from pipeline.pacing import Rate
from pipeline.settings import (
    KINDS,
    Settings,
    SourceSettings,
    StoreSettings,
    config_file,
    config_name,
    hide_password,
    load_settings,
    with_overrides,
)

CANARY = "canary-4711"
SOURCE = '[sources.anu]\nkind = "anu_legacy"\nbatches = [2]\n'
AQN = '[sources.aqn]\nkind = "anu_aqn"\nbatches = [2]\n'
OFF = "enabled = false\n"
OLDEST = ("ANU_LEGACY", "ANU_AQN", "RANDOM_ORG", "RANDOM_ORG_JSONRPC", "RANDOMNUMBERAPI")

REAL = ", ".join(kind for kind in KINDS if not kind.startswith("sandbox."))
LISTED = f'{REAL} (or one of these behind "sandbox.")'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of one's own, as a user does."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(text: str | bytes, **environ: str) -> Settings:
    """Load *text* as ``config.toml`` of the current folder."""
    content = text.encode() if isinstance(text, str) else text
    Path("config.toml").write_bytes(content)
    return load_settings(Path("config.toml"), {"HOME": str(Path.cwd()), **environ})


def refusal(text: str | bytes, **environ: str) -> list[str]:
    """Load *text* and give what is complained about, line by line."""
    with pytest.raises(ConfigError) as caught:
        load(text, **environ)
    assert str(caught.value).splitlines() == list(caught.value.complaints)
    named = f"{Path.cwd()}/config.toml (--config): "
    return [line.replace(named, "config.toml: ", 1) for line in caught.value.complaints]


def source_of(extra: str, **environ: str) -> SourceSettings:
    """Load one source with *extra* keys."""
    return load(SOURCE + extra, **environ).sources["anu"]


class TestShippedFile:
    """The file that comes with the program, which is what a newcomer runs first."""

    @pytest.fixture
    def shipped(self, folder: Path) -> Settings:
        """Load it as the default: no other file is there."""
        return load_settings(None, {"HOME": str(folder)})

    def test_orders_the_lessons_28_batches(self, shipped: Settings) -> None:
        """The lesson's workers w0..w27 fetched 2..29 numbers, in this order."""
        sources = shipped.enabled_sources.values()

        assert [size for source in sources for size in source.batch_sizes] == list(range(2, 30))

    def test_asks_the_five_sandbox_upstreams_and_nobody_else(self, shipped: Settings) -> None:
        """Trying the program out must not cost any upstream a request."""
        kinds = {source.kind for source in shipped.enabled_sources.values()}

        assert kinds == {f"sandbox.{name.lower()}" for name in OLDEST}

    def test_holds_every_real_upstream_ready(self, shipped: Settings) -> None:
        """Switching one on must be a matter of one word."""
        kinds = {source.kind for source in shipped.sources.values() if not source.enabled}

        assert kinds == {kind for kind in KINDS if not kind.startswith("sandbox.")}

    def test_real_upstreams_can_be_enabled_as_they_stand(self, folder: Path) -> None:
        """A table that needs more than its switch would teach the wrong thing."""
        real = [kind for kind in KINDS if not kind.startswith("sandbox.")]
        environ = {f"PIPELINE_SOURCES_{name.upper()}_ENABLED": "true" for name in real}
        variables = ("ANU_AQN_KEY", "RANDOM_ORG_KEY", "OUTSHIFT_KEY", "QUANDELA_TOKEN")
        keys = {**dict.fromkeys(variables, "k"), "HOME": str(folder)}

        loaded = load_settings(None, environ | keys)

        assert len(loaded.enabled_sources) == len(OLDEST) + len(real)

    def test_names_every_key(self, shipped: Settings) -> None:
        """The file is the manual: a key that is not in it does not exist for a newcomer."""
        assert shipped.path is not None
        text = shipped.path.read_text("utf-8")
        tables = (shipped.collect, shipped.store, shipped.sandbox, shipped.notify)
        keys = {key for table in tables for key in type(table).model_fields}
        keys |= set(SourceSettings.model_fields) - {"batch_sizes", "api_key"} | {"batches"}
        keys -= {"proxy_url"}

        assert [key for key in keys if f"{key} =" not in text] == []

    def test_shows_the_defaults_that_hold(self, shipped: Settings) -> None:
        """A default told wrongly is worse than one not told."""
        assert shipped.path is not None
        lines = shipped.path.read_text("utf-8").splitlines()
        for name, table in (
            ("[collect]", shipped.collect),
            ("[store]", StoreSettings()),
            ("[sandbox]", shipped.sandbox),
            ("[notify]", shipped.notify),
        ):
            rest = lines[lines.index(name) + 1 :]
            shown = [line[2:] for line in rest[: rest.index("")] if " = " in line]
            told = tomllib.loads("\n".join(shown))
            assert told == {key: table.model_dump(mode="json")[key] for key in told}


class TestWhichFile:
    """The search for the file: what is nearest to the user's hand wins."""

    def test_explicit_path_wins(self, folder: Path) -> None:
        """What is said on the command line is meant for this very run."""
        (folder / "mine.toml").write_text(SOURCE)
        (folder / "config.toml").write_text("")

        assert load_settings(Path("mine.toml"), {}).path == folder / "mine.toml"

    def test_variable_comes_next(self, folder: Path) -> None:
        """A crontab has one place for it and leaves ``~`` as it is."""
        (folder / "mine.toml").write_text(SOURCE)
        (folder / "config.toml").write_text("")
        environ = {"PIPELINE_CONFIG": "~/mine.toml", "HOME": str(folder)}

        assert load_settings(None, environ).path == folder / "mine.toml"

    def test_then_the_current_folder(self, folder: Path) -> None:
        """A project of its own keeps its file beside it; an empty variable is as good as none."""
        (folder / "config.toml").write_text(SOURCE)
        environ = {"PIPELINE_CONFIG": "", "HOME": str(folder)}

        assert load_settings(None, environ).path == folder / "config.toml"

    @pytest.mark.parametrize("variable", ["XDG_CONFIG_HOME", "HOME"])
    def test_then_the_users_folder(self, folder: Path, variable: str) -> None:
        """Cron starts in the home folder, where nobody wants a config.toml."""
        base = folder / "base"
        users = base / ("pipeline" if variable == "XDG_CONFIG_HOME" else ".config/pipeline")
        users.mkdir(parents=True)
        (users / "config.toml").write_text(SOURCE)
        environ = {"HOME": str(folder), variable: str(base)}

        assert load_settings(None, environ).path == users / "config.toml"

    def test_the_search_says_why_it_chose(self, folder: Path) -> None:
        """Who is told of a fault in a file he never heard of must know how it came to that."""
        environ = {"HOME": str(folder)}
        unasked = load_settings(None, environ)
        users = folder / ".config/pipeline"
        users.mkdir(parents=True)
        (users / "config.toml").write_text(SOURCE)
        of_user = load_settings(None, environ)
        (folder / "config.toml").write_text(SOURCE)

        assert unasked.searched == (folder / "config.toml", users / "config.toml")
        assert unasked.named.endswith("/config.toml (built-in)")
        assert of_user.named == f"{users}/config.toml (in your configuration folder)"
        assert load_settings(None, environ).named == f"{folder}/config.toml (in the current folder)"
        assert load_settings(None, environ).searched == ()

    @pytest.mark.parametrize("given", ["option", "variable"])
    def test_the_builtin_one_has_a_name(self, folder: Path, given: str) -> None:
        """A file of that name has a folder before it."""
        (folder / "builtin").write_text(SOURCE)
        (folder / "config.toml").write_text(SOURCE)

        def load_named(name: str) -> Settings:
            if given == "option":
                return load_settings(config_file(name), {"HOME": str(folder)})
            return load_settings(None, {"HOME": str(folder), "PIPELINE_CONFIG": name})

        assert len(load_named("builtin").enabled_sources) == 5
        assert load_named("builtin").searched == ()
        assert config_name(load_named("builtin").path or folder) == "builtin"
        assert load_named("./builtin").path == folder / "builtin"
        assert config_name(folder / "builtin") == str(folder / "builtin")

    @pytest.mark.parametrize(
        "text",
        [
            "baseURL = 'https://example.org/'\ntitle = 'My site'\n[params]\nx = 1\n[menu]\n",
            "[server]\nport = 1\n",
        ],
    )
    def test_the_file_of_another_program_is_passed_over(self, folder: Path, text: str) -> None:
        """Hugo's is called the same; whoever stands in a site's folder wants no site here."""
        (folder / "config.toml").write_text(text)
        said: list[object] = []
        settings = load_settings(None, {"HOME": str(folder)}, say=said.append)

        assert settings.searched[0] == folder / "config.toml"
        assert said == [
            f"{folder}/config.toml: is not for this program (none of its tables), passed over"
        ]
        with pytest.raises(ConfigError, match="is not a known table"):
            load_settings(Path("config.toml"), {"HOME": str(folder)})

    @pytest.mark.parametrize(
        "text", ["", "# all of it is commented out", "[source.dice]\n", "[store\n", "[stroe]\n"]
    )
    def test_a_file_that_may_be_ours_stops_us(self, folder: Path, text: str) -> None:
        """A slip of the pen must not lead to another configuration."""
        (folder / "config.toml").write_text(text)

        with pytest.raises(
            ConfigError, match=f"^{folder}/config.toml \\(in the current folder\\): "
        ):
            load_settings(None, {"HOME": str(folder)})

    def test_relative_xdg_folder_is_ignored(self, folder: Path) -> None:
        """The XDG specification says so: it would depend on the current folder."""
        (folder / "base/pipeline").mkdir(parents=True)
        (folder / "base/pipeline/config.toml").write_text(SOURCE)
        settings = load_settings(None, {"HOME": str(folder), "XDG_CONFIG_HOME": "base"})

        assert "anu" not in settings.sources

    def test_folder_that_cannot_be_looked_into_holds_no_file(self, folder: Path) -> None:
        """A search goes on where a look is refused; this name is too long to be looked up."""
        environ = {"HOME": str(folder), "XDG_CONFIG_HOME": "/" + "x" * 300}

        assert load_settings(None, environ).enabled_sources

    def test_system_knows_the_home_folder_too(self) -> None:
        """A system service of root has no $HOME."""
        assert load_settings(None, {}).store.url.endswith("/pipeline/pipeline.db")

    def test_empty_home_folder_is_none(self) -> None:
        """Python would take it for "/", and the account would lie there without a word."""
        assert load_settings(None, {"HOME": ""}).store == load_settings(None, {}).store

    @pytest.mark.parametrize("home", [".", "home", "~", "\x1b[31m"])
    def test_home_folder_without_a_full_name_is_refused(self, home: str) -> None:
        """It would be another one in each current folder."""
        with pytest.raises(ConfigError) as caught:
            load_settings(None, {"HOME": home})

        assert str(caught.value) == f"HOME: must be the full name of a folder, not {home!r}"

    def test_no_home_folder_at_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A container may run as a number that no file knows."""
        monkeypatch.delenv("HOME")
        monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)

        with pytest.raises(ConfigError, match=r"^HOME: is not set"):
            load_settings(None, {})


class TestReading:
    """The bytes of the file, before any of its values."""

    @pytest.mark.parametrize(
        ("name", "problem"),
        [
            ("missing.toml", "cannot be read: No such file or directory"),
            (".", "cannot be read: Is a directory"),
            ("a\0b", "cannot be read: embedded null byte"),
            ("/dev/zero", "cannot be read: it is longer than 1048576 bytes"),
        ],
    )
    def test_unreadable(self, name: str, problem: str) -> None:
        """The line names the file in full, and says why it was taken."""
        with pytest.raises(ConfigError) as caught:
            load_settings(Path(name), {})

        file = str(Path(name).absolute())
        shown = file if file.isprintable() else repr(file)
        assert caught.value.complaints == (f"{shown} (--config): {problem}",)

    def test_name_that_is_no_text(self) -> None:
        """The store keeps the file's name as text."""
        name = Path("bad-\udcff.toml")
        name.write_text(SOURCE)

        with pytest.raises(
            ConfigError, match=r"bad-\\udcff.toml' \(--config\): has a name that is not UTF-8"
        ):
            load_settings(name, {})

    @pytest.mark.parametrize("content", [b"", b" \n\r\n", b"\xef\xbb\xbf"])
    def test_empty(self, content: bytes) -> None:
        """An editor that failed to save leaves such a file; it must not mean defaults."""
        [complaint] = refusal(content)

        assert complaint.startswith("config.toml: is empty; begin with a copy of /")

    @pytest.mark.parametrize(
        "content",
        [b"\xef\xbb\xbf" + SOURCE.encode(), SOURCE.replace("\n", "\r\n").encode()],
        ids=["byte order mark", "CRLF"],
    )
    def test_editors_habits_are_fine(self, content: bytes) -> None:
        """Both are what an editor on Windows writes."""
        assert load(content).sources["anu"].batch_sizes == (2,)

    @pytest.mark.parametrize(
        ("content", "complaint"),
        [
            (b"a = '\xff'", "config.toml: is not UTF-8 text (byte 5)"),
            (SOURCE.encode("utf-16"), "config.toml: is not UTF-8 text (byte 0)"),
            (
                b"[collect]\ndeadline_seconds 5",
                (
                    "config.toml: is not valid TOML: "
                    "Expected '=' after a key in a key/value pair (at line 2, column 18)"
                ),
            ),
            (
                b"a = " + b"[" * 100_000,
                "config.toml: is nested too deeply or has an endless number",
            ),
        ],
    )
    def test_not_toml(self, content: bytes, complaint: str) -> None:
        """Line and column save a newcomer the search."""
        assert refusal(content) == [complaint]

    def test_one_name_for_two_sources(self) -> None:
        """Whichever were taken, the other would be missed in silence (F04)."""
        [complaint] = refusal(SOURCE + SOURCE)

        assert complaint.startswith("config.toml: is not valid TOML: Cannot declare")
        assert "sources" in complaint
        assert "at line 4" in complaint

    @pytest.mark.parametrize(
        ("number", "complaint"),
        [
            ("9" * 5000, "is nested too deeply or has an endless number"),
            (
                "0x" + "f" * 5000,
                "sources.anu.retries: must be at most 100, not a number of thousands of digits",
            ),
        ],
    )
    def test_endless_integer(self, number: str, complaint: str) -> None:
        """Python refuses to convert those: on reading the first, on showing the second."""
        assert refusal(f"{SOURCE}retries = {number}") == [f"config.toml: {complaint}"]


class TestComplaints:
    """What is wrong, in words that need no manual."""

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("[colect]\n" + SOURCE, "colect: is not a known table; did you mean collect?"),
            ('"a\\nb" = 1\n' + SOURCE, r"'a\nb': is not a known table"),
            ("collect = 5\n" + SOURCE, "collect: must be one table, [collect]"),
            ("[[store]]\n" + SOURCE, "store: must be one table, [store]"),
            (
                "[collect]\ndeadline = 5\n" + SOURCE,
                "collect.deadline: is not a known key; did you mean deadline_seconds?",
            ),
            (
                "[collect]\nq = 5\n" + SOURCE,
                (
                    "collect.q: is not a known key; "
                    "known are proxy, proxy_env, deadline_seconds, evidence_bytes, max_bytes, "
                    "retry_budget"
                ),
            ),
            (
                "[collect]\ndeadline_seconds = 'x'\n" + SOURCE,
                "collect.deadline_seconds: must be a number, not 'x'",
            ),
            (
                "[collect]\ndeadline_seconds = true\n" + SOURCE,
                "collect.deadline_seconds: must be a number, not True",
            ),
            (
                "[collect]\ndeadline_seconds = nan\n" + SOURCE,
                "collect.deadline_seconds: must be a finite number, not nan",
            ),
            (
                "[collect]\ndeadline_seconds = 0\n" + SOURCE,
                "collect.deadline_seconds: must be more than 0, not 0",
            ),
            (
                "[collect]\nevidence_bytes = -1\n" + SOURCE,
                "collect.evidence_bytes: must be at least 0, not -1",
            ),
            (
                "[collect]\nmax_bytes = 1.5\n" + SOURCE,
                "collect.max_bytes: must be a whole number, not 1.5",
            ),
            (
                "[collect]\nmax_bytes = 2_000_000_000\n" + SOURCE,
                "collect.max_bytes: must be at most 1073741824, not 2000000000",
            ),
            ("[store]\nurl = 5\n" + SOURCE, "store.url: must be text in quotes"),
            (
                "[store]\nkeep_numbers = 'yes'\n" + SOURCE,
                "store.keep_numbers: must be true or false, not 'yes'",
            ),
            (
                "[sandbox]\nfaults = 'stall'\n" + SOURCE,
                "sandbox.faults: must be a list in brackets, not 'stall'",
            ),
            (
                "[sandbox]\nfaults = ['stall', 3]\n" + SOURCE,
                "sandbox.faults[1]: must be text in quotes, not 3",
            ),
            (
                "[sandbox]\nfaults = ['A B']\n" + SOURCE,
                "sandbox.faults[0]: must look like stall or anu_legacy:stall, not 'A B'",
            ),
            ("[sources]", "sources: there is none; add a table [sources.<name>]"),
            ("# nothing", "sources: there is none; add a table [sources.<name>]"),
            ("sources = 3", "sources: must hold tables, [sources.<name>]"),
            ("[sources]\nanu = 3", "sources.anu: must be one table, [sources.anu]"),
            (
                "[sources.anu]\nkind = 'anu_legacy'",
                (
                    "sources.anu.batches: is missing; give sizes [2, 3, 5], a range "
                    '"2..29", {count = 10, size = 16} or, drawn for each run, '
                    '{count = 10, sizes = "1..10"}'
                ),
            ),
            (
                "[sources.anu]\nbatches = [1]",
                f"sources.anu.kind: is missing; give one of {LISTED}",
            ),
            (
                "[sources.anu]\nkind = 'anu_legasy'\nbatches = [1]",
                (
                    f"sources.anu.kind: must be one of {LISTED}, not 'anu_legasy'; "
                    "did you mean anu_legacy?"
                ),
            ),
            (
                SOURCE + "retires = 3",
                "sources.anu.retires: is not a known key; did you mean retries?",
            ),
            (
                SOURCE + "word = 'uint61'",
                (
                    "sources.anu.word: must be one of uint8, uint16, not 'uint61'; "
                    "did you mean uint16?"
                ),
            ),
            (
                SOURCE + "word = 0x" + "f" * 5000,
                (
                    "sources.anu.word: must be one of uint8, uint16, "
                    "not a number of thousands of digits"
                ),
            ),
            (SOURCE + "ca_file = ''", "sources.anu.ca_file: must not be empty, not ''"),
            (
                SOURCE + "proof_key_file = 'a.pem'",
                (
                    "sources.anu.proof_key_file: only nist_beacon, nqsn_beacon, random_org_signed"
                    " take it; remove it"
                ),
            ),
            (
                SOURCE + "in_flight = 2026-01-01",
                "sources.anu.in_flight: must be a whole number, not datetime.date(2026, 1, 1)",
            ),
            (
                SOURCE + f"format = '{'x' * 99}'",
                f"sources.anu.format: must be one of plain, html, not '{'x' * 58}…",
            ),
        ],
    )
    def test_names_place_problem_and_remedy(self, text: str, complaint: str) -> None:
        """One line that a newcomer can act on."""
        assert refusal(text) == [f"config.toml: {complaint}"]

    def test_come_all_at_once(self) -> None:
        """Mending a file one error per start is a waste of an evening."""
        complaints = refusal(
            "[collect]\nmax_bytes = 0\n[store]\nx = 1\n[sources.A]\nkind = 'anu_legacy'\n"
            "min = 2\nmax = 1\nbatches = []\n[sources.b]\nkind = 'x'\nbatches = [2]\n" + AQN
        )

        places = [complaint.split(": ")[1] for complaint in complaints]
        assert places == [
            "collect.max_bytes",
            "store.x",
            "sources.A",
            "sources.A.batches",
            "sources.b.kind",
            "sources.aqn.api_key_env",
        ]

    @pytest.mark.parametrize("name", ["a", "9-x_y", "a" * 40])
    def test_source_names_that_pass(self, name: str) -> None:
        """Letters, digits, dash and underscore are safe in paths, CSV and on terminals."""
        assert list(load(SOURCE.replace("anu]", name + "]")).sources) == [name]

    @pytest.mark.parametrize("name", ["", "A", "-a", "_a", "a" * 41, "a b", "ä", "../a", "=a"])
    def test_source_names_that_do_not(self, name: str) -> None:
        """Names travel to files, spreadsheets and terminals, where these do harm."""
        [complaint] = refusal(SOURCE.replace("anu]", f'"{name}"]'))

        assert complaint.endswith(
            ": a name has 1 to 40 of a-z 0-9 _ - and begins with a letter or digit"
        )

    @pytest.mark.parametrize(
        "text",
        [
            SOURCE + '"a\\n\\u001b[2Jb" = 1',
            'sources."a\\n\\u001b[2Jb" = 1',
            '"a\\n\\u001b[2Jb" = 1\n' + SOURCE,
        ],
    )
    def test_are_single_lines_whatever_a_key_holds(self, text: str) -> None:
        """A line break or an escape sequence in a key must not write lines of its own."""
        assert all(complaint.isprintable() for complaint in refusal(text))

    def test_are_single_lines_whatever_a_variable_is_called(self) -> None:
        """Such names are allowed, if rare."""
        [complaint] = refusal(SOURCE, **{"PIPELINE_STORE_URL\x1b": "1"})

        assert complaint.startswith(r"'PIPELINE_STORE_URL\x1b': is not a known setting")


class TestBatches:
    """The three ways to order batches."""

    @pytest.mark.parametrize(
        ("batches", "sizes"),
        [
            ("[2, 3, 5]", [2, 3, 5]),
            ('"2..5"', [2, 3, 4, 5]),
            ('"7..7"', [7]),
            ("{count = 3, size = 16}", [16, 16, 16]),
        ],
    )
    def test_forms(self, batches: str, sizes: list[int]) -> None:
        """Both ends of a range belong to it."""
        loaded = load(f'[sources.anu]\nkind = "anu_legacy"\nbatches = {batches}')

        assert list(loaded.sources["anu"].batch_sizes) == sizes

    @pytest.mark.parametrize(
        ("batches", "problem"),
        [
            ("[]", "orders no batch; use "),
            ('"5..2"', "orders no batch; use "),
            ("{count = 0, size = 2}", "orders no batch; use "),
            ("5", "must be sizes [2, 3, 5], a range "),
            ('"2-5"', "must be sizes [2, 3, 5], a range "),
            ('"٢..5"', "must be sizes [2, 3, 5], a range "),
            ("{count = 2}", "must be sizes [2, 3, 5], a range "),
            ("{count = 2, size = 2, step = 1}", "must be sizes [2, 3, 5], a range "),
            ("{count = 1.5, size = 2}", "must be sizes [2, 3, 5], a range "),
            ("[0]", "a batch must have 1 to 1,000,000 numbers, not 0"),
            ("[1_000_001]", "a batch must have 1 to 1,000,000 numbers, not 1000001"),
            ('"0..3"', "a batch must have 1 to 1,000,000 numbers, not 0"),
            ("[2, true]", "a batch's size must be a whole number, not True"),
            ("[2, [3]]", "a batch's size must be a whole number, not [3]"),
            ("{count = 2, size = '3'}", "a batch's size must be a whole number, not '3'"),
            ("{count = 1_000_001, size = 2}", "orders more than 1000000 batches"),
            ('"1..1000001"', "orders more than 1000000 batches"),
        ],
    )
    def test_refused(self, batches: str, problem: str) -> None:
        """An order that cannot be meant is not guessed at."""
        [complaint] = refusal(f'[sources.anu]\nkind = "anu_legacy"\nbatches = {batches}')

        assert complaint.startswith(f"config.toml: sources.anu.batches: {problem}")

    @pytest.mark.parametrize("batches", ["{count = 100_000, size = 16}", '"1..100000"'])
    def test_many_are_cheap(self, batches: str) -> None:
        """A run of 100,000 batches must not begin with 100,000 objects."""
        text = f'[sources.anu]\nkind = "anu_legacy"\nbatches = {batches}'
        load(text)
        tracemalloc.start()
        try:
            loaded = load(text)
            kept = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()

        assert len(loaded.sources["anu"].batch_sizes) == 100_000
        assert kept < 1_000_000


class TestRange:
    """Which numbers are wanted."""

    @pytest.mark.parametrize(
        ("extra", "expected"),
        [
            ("", (None, None)),
            ("min = 1\nmax = 6", (1, 6)),
            ("min = 5\nmax = 5", (5, 5)),
            ("word = 'uint8'", (0, 255)),
            ("word = 'uint16'", (0, 65_535)),
            (f"min = {-(2**53) + 1}\nmax = {2**53 - 1}", (-(2**53) + 1, 2**53 - 1)),
        ],
    )
    def test_forms(self, extra: str, expected: tuple[int | None, int | None]) -> None:
        """Without a word about it the kind decides."""
        source = source_of(extra)

        assert (source.min, source.max) == expected

    @pytest.mark.parametrize(
        ("extra", "complaint"),
        [
            ("min = 2\nmax = 1", "min: 2 is more than max, 1; swap them"),
            ("min = 2", "max: is missing; give min and max, or neither"),
            ("max = 2", "min: is missing; give min and max, or neither"),
            ("word = 'uint8'\nmin = 1", "word: sets min and max; remove it, or remove them"),
            (
                f"min = 0\nmax = {2**53}",
                f"max: must be at most {2**53 - 1}, not {2**53}",
            ),
            (
                f"min = {-(2**53)}\nmax = 0",
                f"min: must be at least {-(2**53) + 1}, not {-(2**53)}",
            ),
        ],
    )
    def test_refused(self, extra: str, complaint: str) -> None:
        """Bounds that contradict each other, or that JSON cannot carry."""
        assert refusal(SOURCE + extra) == [f"config.toml: sources.anu.{complaint}"]

    @pytest.mark.parametrize(("size", "is_refused"), [(1024, False), (1025, True)])
    def test_sum_must_fit_the_store(self, size: int, is_refused: bool) -> None:
        """SQLite's integers end at 2**63 - 1, and so does a sum."""
        text = f'[sources.a]\nkind = "anu_legacy"\nbatches = [{size}]\nmin = 0\nmax = {2**53 - 1}'

        if is_refused:
            assert refusal(text) == [
                (
                    "config.toml: sources.a.batches: "
                    "a batch's sum could pass 2**63 - 1; use smaller batches or bounds"
                )
            ]
        else:
            assert load(text).sources["a"].batch_sizes == (size,)


class TestTimes:
    """Limits in seconds, from the inside out: connect, attempt, run."""

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            (
                SOURCE + "attempt_seconds = 5\nconnect_seconds = 6",
                "connect_seconds: 6 is more than attempt_seconds, 5",
            ),
            (
                SOURCE + "attempt_seconds = 5\nread_seconds = 5.5",
                "read_seconds: 5.5 is more than attempt_seconds, 5",
            ),
            (
                SOURCE + "attempt_seconds = 301",
                "attempt_seconds: 301 is more than collect.deadline_seconds, 300",
            ),
            (
                "[collect]\ndeadline_seconds = 5\n" + SOURCE + "connect_seconds = 6",
                "connect_seconds: 6 is more than collect.deadline_seconds, 5",
            ),
            (
                SOURCE + "retries = 100\nbackoff_seconds = 3.1",
                (
                    "backoff_seconds: 100 retries would wait for more than "
                    "collect.deadline_seconds, 300"
                ),
            ),
        ],
    )
    def test_contradictions(self, text: str, complaint: str) -> None:
        """A limit that can never bite is a misunderstanding."""
        assert refusal(text) == [f"config.toml: sources.anu.{complaint}"]

    def test_default_gives_way(self) -> None:
        """Whoever shortens the attempt should not have to know of connect_seconds."""
        assert source_of("attempt_seconds = 5").connect_seconds == 5.0

    def test_disabled_source_may_be_slower_than_the_run(self) -> None:
        """What is not asked cannot be late: a short deadline in the environment must work."""
        text = SOURCE + "attempt_seconds = 150\n" + OFF

        assert load(text, PIPELINE_COLLECT_DEADLINE_SECONDS="20").collect.deadline_seconds == 20.0


class TestPoliteness:
    """How often an upstream may be asked, and when it is left alone."""

    @pytest.mark.parametrize(
        ("text", "rate"),
        [
            ("50/s", (50, 1.0)),
            ("1/60s", (1, 60.0)),
            ("3/m", (3, 60.0)),
            ("999999/999999.999h", (999_999, 3_599_999_996.4)),
            ("2/0.5s", (2, 0.5)),
        ],
    )
    def test_rates(self, text: str, rate: tuple[int, float]) -> None:
        """As upstreams write them: so many in a second, a minute, or in so many of them."""
        found = source_of(f'rate = "{text}"').rate

        assert isinstance(found, Rate)
        assert (found.requests, found.period_seconds) == pytest.approx(rate)

    def test_no_rate_is_not_the_default(self) -> None:
        """Without a word the kind decides; "none" is a word."""
        assert source_of("").rate is None
        assert source_of('rate = "none"').rate == "none"

    @pytest.mark.parametrize(
        "value",
        [
            '""',
            '"0/s"',
            '"1/0s"',
            '"-1/s"',
            '"1/60"',
            '"1 / s"',
            '"1/d"',
            '"1.5/s"',
            '"1000000/s"',
            '"1/1000000s"',
            '"None"',
            '"1/s\\n"',
            "50",
            "true",
            "[]",
        ],
    )
    def test_rates_refused(self, value: str) -> None:
        """What is no rate, or one that nothing could keep."""
        (complaint,) = refusal(f"{SOURCE}rate = {value}")

        assert 'anu.rate: must be such as "50/s", "1/60s", "3/m", or "none", not ' in complaint

    @pytest.mark.parametrize(
        ("value", "quotas"),
        [
            ("[]", []),
            ('["100 requests/month"]', [("requests", 100, "month")]),
            ('"200000 bits/day"', [("bits", 200_000, "day")]),
            (
                '["1 requests/day", "999999999999 bits/month"]',
                [("requests", 1, "day"), ("bits", 999_999_999_999, "month")],
            ),
        ],
    )
    def test_quotas(self, value: str, quotas: list[tuple[str, int, str]]) -> None:
        """None, one in each unit, or both."""
        found = source_of(f"quotas = {value}").quotas

        assert found is not None
        assert [(quota.unit, quota.amount, quota.period) for quota in found] == quotas

    @pytest.mark.parametrize(
        "value",
        [
            '["0 requests/day"]',
            '["1 request/day"]',
            '["1 requests/hour"]',
            '["1  bits/day"]',
            '["1000000000000 bits/day"]',
            '["1 bits/day", 1]',
            "[[]]",
            '""',
            "1",
        ],
    )
    def test_quotas_refused(self, value: str) -> None:
        """An allowance of nothing, or in a unit or period that nobody counts."""
        (complaint,) = refusal(f"{SOURCE}quotas = {value}")

        assert 'anu.quotas: must be such as ["100 requests/month", "200000 bits/day"]' in complaint

    def test_two_quotas_of_one_unit(self) -> None:
        """Which of them would be the one to keep?"""
        (complaint,) = refusal(f'{SOURCE}quotas = ["1 bits/day", "2 bits/month"]')

        assert complaint == (
            "config.toml: sources.anu.quotas: one quota in requests and one in bits, not several of"
            " the same unit"
        )

    def test_limits_of_failure(self) -> None:
        """0 switches off: no retries at all, and a breaker that never opens."""
        source = source_of("retry_budget = 0\nbreaker = 0")

        assert (source.retry_budget, source.breaker) == (0, 0)
        assert (source_of("").retry_budget, source_of("").breaker) == (20, 5)
        assert load("[collect]\nretry_budget = 0\n" + SOURCE).collect.retry_budget == 0

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            (SOURCE + "breaker = -1", "sources.anu.breaker: must be at least 0, not -1"),
            (SOURCE + "breaker = 1001", "sources.anu.breaker: must be at most 1000, not 1001"),
            (SOURCE + "retry_budget = -1", "sources.anu.retry_budget: must be at least 0, not -1"),
            (
                "[collect]\nretry_budget = -1\n" + SOURCE,
                "collect.retry_budget: must be at least 0, not -1",
            ),
        ],
    )
    def test_limits_of_failure_refused(self, text: str, complaint: str) -> None:
        """Fewer than none."""
        assert refusal(text) == [f"config.toml: {complaint}"]

    def test_from_the_environment(self) -> None:
        """For one machine that is to ask less."""
        source = source_of(
            "",
            PIPELINE_SOURCES_ANU_RATE="1/h",
            PIPELINE_SOURCES_ANU_QUOTAS='["5 requests/day"]',
            PIPELINE_SOURCES_ANU_BREAKER="2",
        )

        assert isinstance(source.rate, Rate)
        assert source.rate.period_seconds == 3600
        assert source.quotas is not None
        assert source.quotas[0].amount == 5
        assert source.breaker == 2

    def test_a_rule_is_a_decision(self) -> None:
        """A run that asked by other rules must be recognisable as another one."""
        digests = [
            load(SOURCE + extra).digest
            for extra in (
                "",
                'rate = "none"',
                'rate = "1/s"',
                'rate = "2/s"',
                "quotas = []",
                'quotas = ["1 bits/day"]',
                "breaker = 1",
                "retry_budget = 1",
            )
        ]

        assert len(set(digests)) == len(digests)


class TestUrl:
    """Addresses of upstreams, checked before anything is sent."""

    @pytest.mark.parametrize(
        "url",
        [
            "https://qrng.anu.edu.au",
            "HTTPS://Host.Example:443/a/b/",
            "http://127.0.0.1:8765/~reset/anu_legacy",
            "http://[::1]:8080",
            "https://bücher.example/",
            "https://my_host.example./",
        ],
    )
    def test_passes(self, url: str) -> None:
        """What a browser would take, ports, IPv6 and umlauts included."""
        assert source_of(f'url = "{url}"').url == url

    @pytest.mark.parametrize(
        ("url", "problem"),
        [
            ("", "must begin with https:// or http://"),
            ("host.example", "must begin with https:// or http://"),
            ("ftp://host.example", "must begin with https:// or http://"),
            ("file:///etc/passwd", "must begin with https:// or http://"),
            ("https://a\\r\\nb", "must not contain blanks or control characters"),
            ("https://a b", "must not contain blanks or control characters"),
            ("https://a\\u202eb", "must not contain blanks or control characters"),
            ("https://h.example/?apikey=x", "must not contain ? or #; the query is"),
            ("https://h.example/#x", "must not contain ? or #; the query is"),
            (f"https://me:{CANARY}@h.example", "must not contain a user name or password"),
            ("https://h.example:99999", "the port must be a number from 1 to 65535"),
            ("https://h.example:abc", "the port must be a number from 1 to 65535"),
            ("https://h.example:0", "the port must be a number from 1 to 65535"),
            ("https://", "the host is not a valid name"),
            ("https://:80", "the host is not a valid name"),
            ("https://a..b", "the host is not a valid name"),
            ("https://-a.example", "the host is not a valid name"),
            (f"https://{'a' * 64}.example", "the host is not a valid name"),
            (f"https://{'a.' * 127}aa", "the host is not a valid name"),
            ("https://a\\\\b", "the host is not a valid name"),
            ("https://1.2.3", "the host is not a valid IPv4 address"),
            ("https://1.2.3.256", "the host is not a valid IPv4 address"),
            ("https://☃.example", "the host is not a valid international name"),
            ("https://[::1", "is not a valid address"),
        ],
    )
    def test_refused(self, url: str, problem: str) -> None:
        """Several of these escape the HTTP library as errors of other kinds."""
        [complaint] = refusal(f'{SOURCE}url = "{url}"')

        assert complaint.startswith(f"config.toml: sources.anu.url: {problem}")
        assert CANARY not in complaint

    def test_sandbox_has_its_own(self) -> None:
        """A sandbox kind with an address would look as if that address were asked."""
        text = SOURCE.replace("anu_legacy", "sandbox.anu_legacy") + 'url = "http://127.0.0.1:1"'

        assert refusal(text) == [
            (
                "config.toml: sources.anu.url: "
                'the sandbox has its own; remove it or use kind = "anu_legacy"'
            )
        ]

    def test_one_upstream_may_serve_two_sources(self) -> None:
        """Dice and coins from one place: its rules count for both together."""
        text = SOURCE + SOURCE.replace("anu]", "b]")

        assert list(load(text).enabled_sources) == ["anu", "b"]


class TestEmail:
    """The address that goes into a header."""

    @pytest.mark.parametrize("email", ["me@example.org", "a.b+c@x-y.example"])
    def test_passes(self, email: str) -> None:
        """What people have."""
        text = SOURCE.replace("anu_legacy", "random_org")

        assert load(f'{text}email = "{email}"').sources["anu"].email == email

    @pytest.mark.parametrize(
        "email", ["", "me", "a@b\\r\\nX: y", "a@b)", "ä@b.example", "a b@c", "a@b@c", "@b", "<a@b>"]
    )
    def test_refused(self, email: str) -> None:
        """Nothing may end the header or the comment in it."""
        [complaint] = refusal(f'{SOURCE}email = "{email}"')

        assert "email: must be an e-mail address such as you@example.org, not '" in complaint
        assert complaint.isprintable()

    def test_random_org_wants_one(self) -> None:
        """Its guideline 5; the sandbox is content without."""
        text = SOURCE.replace("anu_legacy", "random_org")

        assert refusal(text) == [
            "config.toml: sources.anu.email: is missing; random.org wants to know whom to write to"
        ]
        assert load(text.replace('"random_org', '"sandbox.random_org'))

    def test_format_and_email_are_for_random_org(self) -> None:
        """Elsewhere they would be settings without effect."""
        assert refusal(SOURCE + "format = 'html'") == [
            "config.toml: sources.anu.format: only random_org knows formats; remove it"
        ]
        assert refusal(SOURCE + "email = 'me@example.org'") == [
            "config.toml: sources.anu.email: only random_org is told it; remove it"
        ]


class TestKeys:
    """Secrets: fetched from where the file points, and never seen again."""

    def test_from_a_variable(self) -> None:
        """The usual place; its name may begin as those of settings do, and come from one."""
        environ = {"PIPELINE_KEY": CANARY, "PIPELINE_SOURCES_AQN_API_KEY_ENV": "PIPELINE_KEY"}

        source = load(AQN, **environ).sources["aqn"]

        assert source.api_key is not None
        assert source.api_key.get_secret_value() == CANARY

    @pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
    def test_from_a_file(self, folder: Path, ending: str) -> None:
        """Editors end files with a line break that no header may carry."""
        (folder / "aqn.key").write_bytes((CANARY + ending).encode())

        source = load(AQN + 'api_key_file = "aqn.key"').sources["aqn"]

        assert source.api_key is not None
        assert source.api_key.get_secret_value() == CANARY
        assert source.api_key_file == str(folder / "aqn.key")

    def test_unset_variable(self) -> None:
        """Cron knows nothing of what the shell exports: the usual first mistake."""
        assert refusal(AQN + 'api_key_env = "AQN_KEY"') == [
            "config.toml: sources.aqn.api_key_env: the environment variable AQN_KEY is not set"
        ]

    def test_who_does_not_ask_needs_no_key(self, folder: Path) -> None:
        """A report on a machine without the key must not fail for it."""
        path = folder / "config.toml"
        path.write_text(AQN + 'api_key_env = "AQN_KEY"\nca_file = "gone.pem"', "utf-8")

        assert load_settings(path, {"HOME": "/"}, will_ask=False).sources["aqn"].api_key is None

    @pytest.mark.parametrize(
        ("value", "problem"),
        [
            ("", "the key is empty"),
            ("\n", "the key is empty"),
            (f"{CANARY}\r\nX: y", "the key holds blanks, control or non-ASCII characters"),
            (f"{CANARY} ", "the key holds blanks, control or non-ASCII characters"),
            (f"{CANARY}é", "the key holds blanks, control or non-ASCII characters"),
            (f"{CANARY}\udcff", "the key holds blanks, control or non-ASCII characters"),
        ],
    )
    def test_bad_variable(self, value: str, problem: str) -> None:
        """The variable is named, the value never."""
        [complaint] = refusal(AQN + 'api_key_env = "AQN_KEY"', AQN_KEY=value)

        assert complaint.startswith(
            f"config.toml: sources.aqn.api_key_env: the environment variable AQN_KEY: {problem}"
        )
        assert CANARY not in complaint

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            (None, "No such file or directory"),
            (b"", "the key is empty"),
            (CANARY.encode() + b"\xff", "the key holds blanks, control or non-ASCII characters"),
            (b"x" * 4097, "it is longer than 4096 bytes"),
        ],
    )
    def test_bad_file(self, folder: Path, content: bytes | None, problem: str) -> None:
        """The value stays unseen, and so does a name that might be a key pasted by mistake."""
        if content is not None:
            (folder / CANARY).write_bytes(content)

        [complaint] = refusal(f'{AQN}api_key_file = "{CANARY}"')

        assert complaint.startswith(
            f"config.toml: sources.aqn.api_key_file: the file cannot be used: {problem}"
        )
        assert CANARY not in complaint

    @pytest.mark.parametrize("key", ["api_key", "password", "token"])
    def test_not_in_the_file(self, key: str) -> None:
        """Files are copied, committed and mailed."""
        assert refusal(f'{AQN}{OFF}{key} = "{CANARY}"') == [
            (
                f"config.toml: sources.aqn.{key}: keep keys out of this file: "
                "name the variable (api_key_env) or file (api_key_file)"
            )
        ]

    def test_not_in_our_variables_either(self) -> None:
        """One way is enough, and this one would be listed among the settings."""
        assert refusal(AQN + OFF, PIPELINE_SOURCES_AQN_API_KEY=CANARY) == [
            (
                "PIPELINE_SOURCES_AQN_API_KEY: keep keys out of this file: "
                "name the variable (api_key_env) or file (api_key_file)"
            )
        ]

    @pytest.mark.parametrize("value", [f'"{CANARY}"', '"UPPER-4711"', '""', "4711"])
    def test_pasted_in_place_of_the_variables_name(self, value: str) -> None:
        """The likeliest mistake must not print the key."""
        [complaint] = refusal(f"{AQN}api_key_env = {value}")

        assert complaint.startswith("config.toml: sources.aqn.api_key_env: must ")
        assert "4711" not in complaint

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            (AQN, "aqn.api_key_env: is missing; anu_aqn wants a key"),
            (
                AQN + OFF + 'api_key_env = "A"\napi_key_file = "b"',
                "aqn.api_key_file: give this or api_key_env, not both",
            ),
            (
                SOURCE + OFF + 'api_key_env = "A"',
                "anu.api_key_env: anu_legacy takes no key; remove it",
            ),
            (
                AQN + OFF + 'api_key_env = "A"\nurl = "HTTP://host.example"',
                "aqn.url: would send the key unencrypted; use https:// or set allow_http = true",
            ),
        ],
    )
    def test_contradictions(self, text: str, complaint: str) -> None:
        """A key that is missing, doubled, useless or about to be sent in the open."""
        assert refusal(text) == [f"config.toml: sources.{complaint}"]

    @pytest.mark.parametrize(
        "extra",
        [
            'url = "http://localhost:1"',
            'url = "http://a.localhost"',
            'url = "http://127.1.2.3"',
            'url = "http://[::1]"',
            'url = "http://host.example"\nallow_http = true',
        ],
    )
    def test_plain_http_where_it_is_safe_or_wanted(self, extra: str) -> None:
        """What stays on this machine cannot be overheard."""
        assert load(f'{AQN}api_key_env = "K"\n{extra}', K="k").enabled_sources

    @pytest.mark.parametrize("switch", [OFF, ""])
    def test_needed_only_where_used(self, switch: str) -> None:
        """Neither a source that is switched off nor the sandbox needs one."""
        kind = "anu_aqn" if switch else "sandbox.anu_aqn"
        text = AQN.replace("anu_aqn", kind) + switch
        extra = 'api_key_env = "UNSET"' if switch else ""

        assert load(text + extra).sources["aqn"].api_key is None

    def test_never_shown(self) -> None:
        """Settings are logged, dumped and hashed."""
        loaded = load(AQN + 'api_key_env = "K"', K=CANARY)
        source = loaded.sources["aqn"]

        shown = f"{loaded!r} {loaded} {source.model_dump()} {source.model_dump_json()}"
        assert CANARY not in shown


class TestCertificates:
    """Certificates that a source trusts."""

    def test_file_is_relative_to_the_configuration(self, folder: Path) -> None:
        """Cron starts elsewhere."""
        (folder / "sub").mkdir()
        (folder / "sub/ca.pem").write_text("x")
        (folder / "sub/c.toml").write_text(SOURCE + 'ca_file = "ca.pem"')

        loaded = load_settings(Path("sub/c.toml"), {"HOME": "/"})

        assert loaded.sources["anu"].ca_file == str(folder / "sub/ca.pem")

    def test_file_is_missing(self) -> None:
        """Found out now rather than in the middle of the night."""
        assert refusal(SOURCE + 'ca_file = "ca.pem"') == [
            "config.toml: sources.anu.ca_file: cannot be read: No such file or directory"
        ]


class TestStore:
    """Where the account is kept."""

    def test_default_is_the_users_data_folder(self, folder: Path) -> None:
        """The place that the XDG specification gives to it."""
        assert load(SOURCE).store.url == f"sqlite:///{folder}/.local/share/pipeline/pipeline.db"
        assert load(SOURCE, XDG_DATA_HOME="/d").store.url == "sqlite:////d/pipeline/pipeline.db"

    @pytest.mark.parametrize(
        ("url", "resolved"),
        [
            ("data/x.db", "sqlite:///{folder}/sub/data/x.db"),
            ("/data/x.db", "sqlite:////data/x.db"),
            ("~/x.db", "sqlite:///{folder}/x.db"),
            ("sqlite:///x.db", "sqlite:///{folder}/sub/x.db"),
            ("sqlite+pysqlite:///x.db?timeout=3", "sqlite+pysqlite:///{folder}/sub/x.db?timeout=3"),
            ("sqlite:////x.db", "sqlite:////x.db"),
            ("sqlite:///file:x.db?uri=true", "sqlite:///file:x.db?uri=true"),
            ("postgresql+psycopg://me@host/db", "postgresql+psycopg://me@host/db"),
            ("postgresql://me:a/b@[::1]:5432/db", "postgresql://me:a/b@[::1]:5432/db"),
            ("postgresql:///db?host=/run&a=b@c", "postgresql:///db?host=/run&a=b@c"),
            ("a?b/x.db", "sqlite:///{folder}/sub/a?b/x.db"),
            ("a?b=c/x.db", "sqlite:///{folder}/sub/a?b=c/x.db"),
            ("a:b/x.db", "sqlite:///{folder}/sub/a:b/x.db"),
            ("~/a#b %3F/x.db", "sqlite:///{folder}/a#b %3F/x.db"),
            ("sqlite:///a?b/x.db?mode=rw", "sqlite:///{folder}/sub/a?b/x.db?mode=rw"),
            ("sqlite:///?/x.db", "sqlite:///{folder}/sub/?/x.db"),
        ],
    )
    def test_names_begin_in_the_files_folder(self, folder: Path, url: str, resolved: str) -> None:
        """So the same file means the same database from cron and from a shell."""
        (folder / "sub").mkdir()
        (folder / "sub/c.toml").write_text(f'[store]\nurl = "{url}"\n{SOURCE}')

        loaded = load_settings(Path("sub/c.toml"), {"HOME": str(folder)})

        assert loaded.store.url == resolved.format(folder=folder)

    def test_variable_begins_in_the_current_folder(self, folder: Path) -> None:
        """Who types a name at a prompt means the folder of the prompt."""
        (folder / "sub").mkdir()
        (folder / "sub/c.toml").write_text(SOURCE)

        loaded = load_settings(Path("sub/c.toml"), {"PIPELINE_STORE_URL": "x.db"})

        assert loaded.store.url == f"sqlite:///{folder}/x.db"

    def test_variable_needs_a_current_folder(self, folder: Path) -> None:
        """One that somebody has removed since; a full name needs none."""
        file = folder / "config.toml"
        file.write_text(SOURCE)
        (folder / "gone").mkdir()
        os.chdir(folder / "gone")
        (folder / "gone").rmdir()

        with pytest.raises(ConfigError, match=r"^PIPELINE_STORE_URL: the current folder is gone"):
            load_settings(file, {"HOME": str(folder), "PIPELINE_STORE_URL": "x.db"})
        loaded = load_settings(file, {"HOME": str(folder), "PIPELINE_STORE_URL": "/x.db"})
        assert loaded.store.url == "sqlite:////x.db"

    @pytest.mark.parametrize(
        ("url", "problem"),
        [
            ("sqlite://x.db", "must name a file, as in sqlite:///name.db"),
            ("sqlite+pysqlite://host/x.db", "must name a file, as in sqlite:///name.db"),
            *(
                (
                    f"postgresql://{CANARY}@{address}/db",
                    "is no postgresql://user:password@host:port/database",
                )
                for address in ("[::1", "::1", "h:0", "h:65536", "h:x", "h:", "h1:1,h2:2")
            ),
            ("sqlite://", "would be forgotten after the run; name a file"),
            ("sqlite:///:memory:", "would be forgotten after the run; name a file"),
            (":memory:", "would be forgotten after the run; name a file"),
            ("sqlite:///?mode=rw", "would be forgotten after the run; name a file"),
            ("sqlite:/x.db", "must be a file's name or a URL like sqlite:///name.db"),
            ("sqlite:x.db", "must be a file's name or a URL like sqlite:///name.db"),
            ("x.db?mode=ro", "must be a file's name or a URL like sqlite:///name.db"),
            (f"mysql://me:{CANARY}@h/db", "a store is an SQLite file or postgresql://…, not mysql"),
            (f"a\\n{CANARY}", "must not contain control characters"),
        ],
    )
    def test_refused(self, url: str, problem: str) -> None:
        """An account in memory is none; the address itself is not shown."""
        assert refusal(f'[store]\nurl = "{url}"\n{SOURCE}') == [
            f"config.toml: store.url: {problem}"
        ]

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("postgresql://me:s3cret@h/db", "postgresql://me:***@h/db"),
            ("postgresql://me:s3@cret@h/db", "postgresql://me:***@h/db"),
            ("postgresql://:s3cret@h/db", "postgresql://:***@h/db"),
            ("postgresql://h/db?user=me&password=s3cret", "postgresql://h/db?user=me&password=***"),
            ("mysql://h/db?ssl_key=s3cret&a=b", "mysql://h/db?ssl_key=***&a=b"),
            ("sqlite:////data/x.db", "sqlite:////data/x.db"),
        ],
    )
    def test_password_is_hidden(self, url: str, shown: str) -> None:
        """A database's address is shown in reports and on errors."""
        store = StoreSettings(url=url)

        assert hide_password(url) == shown
        assert store.model_dump()["url"] == shown
        assert "s3cret" not in f"{store!r} {store} {store.model_dump_json()}"


_NOT_KNOWN = "is not a known setting; did you mean "

# What a pen may slip to, and what was meant, both without the prefix.
SLIPS = {
    "COLECT_DEADLINE_SECONDS": "COLLECT_DEADLINE_SECONDS",
    "COLLECT_DEADLINE_SECS": "COLLECT_DEADLINE_SECONDS",
    "collect_deadline_seconds": "COLLECT_DEADLINE_SECONDS",
    "COLLECT_MAXBYTES": "COLLECT_MAX_BYTES",
    "STORE_URI": "STORE_URL",
    "SANDBOX_RULE": "SANDBOX_RULES",
    "SCHEDULE_CRONE": "SCHEDULE_CRON",
    "SOURCES_ANU_RETRYS": "SOURCES_ANU_RETRIES",
    "SOURCES_ANU_EMIAL": "SOURCES_ANU_EMAIL",
    "SOURCE_ANU_IN_FLIGHT": "SOURCES_ANU_IN_FLIGHT",
    "SOURCES_ANNU_IN_FLIGHT": "SOURCES_ANU_IN_FLIGHT",
    "CONFG": "CONFIG",
}

# Each name of a service (or of a linked container) and what is set for it.
SERVICES = (
    *("", "STORE_", "SANDBOX_", "COLLECT_", "SCHEDULE_", "NOTIFY_", "CONFIG_", "COLLECTOR_"),
    "SOURCES_ANU_",
)
SET_BY_KUBERNETES = {
    "SERVICE_HOST": "10.0.0.7",
    "SERVICE_PORT": "80",
    "SERVICE_PORT_HTTP": "80",
    "SERVICE_PORT_HTTP_METRICS": "9090",
    "PORT": "tcp://10.0.0.7:80",
    "PORT_80_TCP": "tcp://10.0.0.7:80",
    "PORT_80_TCP_PROTO": "tcp",
    "PORT_80_TCP_PORT": "80",
    "PORT_80_TCP_ADDR": "10.0.0.7",
    "PORT_53_UDP_ADDR": "10.0.0.7",
}
SET_BY_DOCKER = {
    "NAME": "/web_1/pipeline",
    "ENV_URL": "x",
    "ENV_DEADLINE_SECONDS": "x",
    "PORT_5432_TCP": "tcp://172.17.0.5:5432",
}
# GitLab, Jenkins and its plugins, Azure, Bitbucket, GoCD, IBM's toolchains, Tekton's examples.
SET_BY_BUILDS = (
    *("ID", "IID", "URL", "NAME", "SOURCE", "CREATED_AT", "TRIGGERED", "SCHEDULE_DESCRIPTION"),
    *("VERSION", "NODE", "WORKSPACE", "STARTUP_TYPE", "ARTIFACT", "TASK", "UUID", "COUNTER"),
    *("RUN_ID", "RUN_URL", "RUN_NAME", "STAGE", "STAGE_NAME", "STAGE_INPUT_REV", "TOOLCHAIN_ID"),
    *("BUILD_NUMBER", "BRANCH", "GIT_URL", "TRIGGER", "KUBERNETES_CLUSTER_NAME", "IMAGE_URL"),
    *("CONFIG_REPO", "CONFIG_BRANCH", "INITIAL_STAGE_EXECUTION_ID", "LIBRARY", "LABEL", "LOG"),
    *("SCHEDULE_ID", "STORE_TYPE", "STORE_USER", "NOTIFY_SLACK", "COLLECT_METRICS", "0", "", "_"),
    "\n\x1b[2J",
)


class TestVariables:
    """Single values from the environment."""

    @pytest.mark.parametrize(
        ("name", "value", "table", "key", "expected"),
        [
            ("COLLECT_DEADLINE_SECONDS", "20", "collect", "deadline_seconds", 20.0),
            ("COLLECT_MAX_BYTES", "1_000", "collect", "max_bytes", 1000),
            ("STORE_KEEP_NUMBERS", "false", "store", "keep_numbers", False),
            ("SANDBOX_FAULTS", '["stall"]', "sandbox", "faults", ("stall",)),
        ],
    )
    def test_win_over_the_file(
        self, name: str, value: str, table: str, key: str, expected: object
    ) -> None:
        """A value is read as in the file; the table need not be there."""
        loaded = load(SOURCE, **{f"PIPELINE_{name}": value})

        assert getattr(getattr(loaded, table), key) == expected

    @pytest.mark.parametrize(
        ("value", "email"), [("me@x.example", "me@x.example"), ('"me@x.example"', "me@x.example")]
    )
    def test_reach_sources(self, value: str, email: str) -> None:
        """The name in capitals, its dashes as underscores; text needs no quotes."""
        text = SOURCE.replace("anu]", "my-anu]").replace("anu_legacy", "random_org")

        loaded = load(text, PIPELINE_SOURCES_MY_ANU_EMAIL=value)

        assert loaded.sources["my-anu"].email == email

    def test_range_needs_no_quotes(self) -> None:
        """What does not read as TOML is text."""
        loaded = load(SOURCE, PIPELINE_SOURCES_ANU_BATCHES="2..4")

        assert list(loaded.sources["anu"].batch_sizes) == [2, 3, 4]

    @pytest.mark.parametrize(
        ("name", "value", "complaint"),
        [
            (
                "PIPELINE_COLLECT_DEADLINE",
                "5",
                (
                    "PIPELINE_COLLECT_DEADLINE: is not a known setting; "
                    "did you mean PIPELINE_COLLECT_DEADLINE_SECONDS?"
                ),
            ),
            *(
                (f"PIPELINE_{given}", CANARY, f"PIPELINE_{given}: {_NOT_KNOWN}PIPELINE_{meant}?")
                for given, meant in SLIPS.items()
            ),
            (
                "PIPELINE_COLLECT_MAX_BYTES",
                "many",
                "PIPELINE_COLLECT_MAX_BYTES: must be a whole number, not 'many'",
            ),
            (
                "PIPELINE_SOURCES_ANU_RETRIES",
                "1\nevil = 2",
                r"PIPELINE_SOURCES_ANU_RETRIES: must be a whole number, not '1\nevil = 2'",
            ),
            (
                "PIPELINE_SOURCES_ANU_RETRIES",
                "[" * 50_000,
                f"PIPELINE_SOURCES_ANU_RETRIES: must be a whole number, not '{'[' * 58}…",
            ),
            (
                "PIPELINE_SANDBOX_FAULTS",
                "[1]",
                "PIPELINE_SANDBOX_FAULTS: must be text in quotes, not 1",
            ),
            ("PIPELINE_STORE_URL", "\udcff", "PIPELINE_STORE_URL: is not valid UTF-8"),
        ],
    )
    def test_complaints_name_the_variable(self, name: str, value: str, complaint: str) -> None:
        """The file is fine; the place to mend is elsewhere."""
        [line] = refusal(SOURCE, **{name: value})

        assert line.startswith(complaint)
        assert CANARY not in line

    def test_of_others_are_none_of_our_business(self) -> None:
        """A cluster or a build server sets them by itself, and nobody could unset them."""
        of_services = SET_BY_KUBERNETES | SET_BY_DOCKER
        environ = {
            f"PIPELINE_{service}{name}": value
            for service in SERVICES
            for name, value in of_services.items()
        } | {f"PIPELINE_{name}": "x" for name in SET_BY_BUILDS}

        assert load(SOURCE, **environ) == load(SOURCE)

    def test_name_with_two_meanings(self) -> None:
        """Silently choosing one of two sources would be worse."""
        text = SOURCE.replace("anu]", "a-b]") + OFF + SOURCE.replace("anu]", "a_b]")

        assert refusal(text, PIPELINE_SOURCES_A_B_ENABLED="true")[0] == (
            "PIPELINE_SOURCES_A_B_ENABLED: means sources.a-b.enabled and sources.a_b.enabled; "
            "rename one"
        )

    def test_table_that_is_none_stays_the_files_fault(self) -> None:
        """A variable cannot mend it, and must not break the search for problems."""
        collect = "config.toml: collect: must be one table, [collect]"
        sources = "config.toml: sources: must hold tables, [sources.<name>]"
        source = "config.toml: sources.a: must be one table, [sources.a]"
        environ = {"PIPELINE_COLLECT_MAX_BYTES": "1"}

        assert refusal("collect = 3\nsources = 4", **environ) == [collect, sources]
        assert refusal("collect = 3\nsources.a = 4", **environ) == [collect, source]


class TestDigest:
    """The fingerprint that is recorded with each run."""

    def test_follows_every_decision(self) -> None:
        """Months later it tells whether two runs were meant to be the same."""
        other = SOURCE.replace("anu]", "b]") + OFF
        texts = [
            SOURCE,
            SOURCE + "retries = 3",
            SOURCE + other,
            other + SOURCE,
            "[sandbox]\nrules = false\n" + SOURCE,
            SOURCE.replace("[2]", "[3]"),
        ]

        assert len({load(text).digest for text in texts}) == len(texts)

    def test_is_blind_for_spelling(self) -> None:
        """A comment or another way to write the same is no other decision."""
        spellings = ["[2, 3]", '"2..3"', "[2, 3]  # two"]
        text = '[sources.a]\nkind = "anu_legacy"\nbatches = '

        assert len({load(text + spelling).digest for spelling in spellings}) == 1

    def test_is_blind_for_secrets(self) -> None:
        """A new key or password is no other decision, and a hash of one could be guessed."""
        text = '[store]\nurl = "postgresql://me:{}@h/db"\n' + AQN + 'api_key_env = "K"'

        assert len({load(text.replace("{}", key), K=key).digest for key in "ab"}) == 1

    def test_is_sha256_in_hex(self) -> None:
        """The store has a column of that width."""
        assert len(bytes.fromhex(load(SOURCE).digest)) == 32


class TestNotify:
    """Who is told of a run."""

    URL = "https://hc.example.org/ping/4711"

    def test_nobody_is_told_by_default(self) -> None:
        """Nothing leaves this machine that was not asked for."""
        notify = load(SOURCE).notify

        assert notify.ping_url.get_secret_value() == notify.metrics_file == ""
        assert notify.on_failure == notify.on_recovery == ()
        assert not notify.otel

    def test_an_address_can_come_from_the_file_or_a_variable(self) -> None:
        """It is a secret of a kind, so the variable is the better place."""
        spellings: list[tuple[str, dict[str, str]]] = [
            (f'ping_url = "{self.URL}"', {}),
            ('ping_url_env = "HC"', {"HC": self.URL}),
            ('ping_url_env = "PIPELINE_HC"', {"PIPELINE_HC": self.URL}),
            ("", {"PIPELINE_NOTIFY_PING_URL": self.URL}),
        ]
        for text, environ in spellings:
            loaded = load(f"[notify]\n{text}\n{SOURCE}", **environ)

            assert loaded.notify.ping_url.get_secret_value() == self.URL
            assert self.URL not in repr(loaded)
            assert self.URL not in loaded.notify.model_dump_json()

    def test_an_address_is_read_by_who_will_tell(self) -> None:
        """A report needs none of the secrets."""
        Path("config.toml").write_text(f'[notify]\nping_url_env = "HC"\n{SOURCE}')

        loaded = load_settings(None, {"HOME": str(Path.cwd())}, will_ask=False)

        assert loaded.notify.ping_url_env == "HC"

    def test_files_are_absolute(self, folder: Path) -> None:
        """Cron stands somewhere else; a program without a folder is looked for in $PATH."""
        notify = load(
            f"""
            [notify]
            metrics_file = "metrics/pipeline.prom"
            on_failure = ["./tell", "./me"]
            on_recovery = ["mail"]
            {SOURCE}"""
        ).notify

        assert notify.metrics_file == str(folder / "metrics/pipeline.prom")
        assert notify.on_failure == (str(folder / "tell"), "./me")
        assert notify.on_recovery == ("mail",)

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ('ping_url = "hc.org/1"', "notify.ping_url: must begin with https:// or http://"),
            ('ping_url = "https://h/?a=1"', "notify.ping_url: must not contain ? or #"),
            ("ping_url = [1]", "notify.ping_url: must be text in quotes"),
            ('ping_url_env = "hc"', "notify.ping_url_env: must name an environment variable"),
            ('ping_url_env = "HC"', "notify.ping_url_env: the environment variable HC is not set"),
            ('ping_url_env = "BAD"', "notify.ping_url_env: the environment variable BAD: must"),
            (
                'ping_url_env = "GOOD"\nping_url = "https://h/1"',
                "notify.ping_url_env: give this or ping_url, not both",
            ),
            ("seconds = 0", "notify.seconds: must be more than 0"),
            ('on_failure = "mail me"', "notify.on_failure: must be a list in brackets"),
            ('on_failure = [""]', "notify.on_failure: must begin with the program"),
            ('on_recovery = ["a", "\\u0000"]', "notify.on_recovery: must not contain control"),
            (
                "on_failiure = []",
                "notify.on_failiure: is not a known key; did you mean on_failure?",
            ),
        ],
    )
    def test_what_cannot_be_is_told(self, text: str, complaint: str) -> None:
        """Before the run, and in one line."""
        [line] = refusal(f"[notify]\n{text}\n{SOURCE}", BAD="ftp://secret", GOOD="https://h/2")

        assert line.startswith(f"config.toml: {complaint}")
        assert "secret" not in line


class TestOverrides:
    """What the command line changes for one run."""

    TEXT = SOURCE + SOURCE.replace("anu]", "b]") + OFF + AQN.replace("anu_", "sandbox.anu_")

    def test_nothing_said_nothing_changed(self) -> None:
        """The usual case."""
        loaded = load(self.TEXT)

        assert with_overrides(loaded) == loaded

    def test_deadline(self) -> None:
        """A run in a hurry; it may be shorter than an attempt, which it cuts."""
        loaded = load(SOURCE + "attempt_seconds = 150")

        assert with_overrides(loaded, deadline_seconds=1).collect.deadline_seconds == 1.0

    def test_a_fault_may_have_any_value_that_the_sandbox_lists(self) -> None:
        """`--list-faults` prints such lines to be copied."""
        faults = "[sandbox]\nfaults = ['redirect=http://127.0.0.2/', 'anu_aqn:latency=1.5']\n"

        assert load(faults + SOURCE).sandbox.faults[0] == "redirect=http://127.0.0.2/"

    def test_sources(self) -> None:
        """Only those named are asked; the settings at hand stay as they are."""
        loaded = load(self.TEXT)

        assert list(with_overrides(loaded, sources=["aqn"]).enabled_sources) == ["aqn"]
        assert list(loaded.enabled_sources) == ["anu", "aqn"]

    def test_complaints(self) -> None:
        """All at once, like those about the file."""
        with pytest.raises(UsageError) as caught:
            with_overrides(load(self.TEXT), deadline_seconds=-1, sources=["aqm", "b"])

        assert str(caught.value).splitlines() == [
            "--deadline: must be more than 0, not -1",
            "--source 'aqm': there is none; known are anu, b, aqn",
            "--source b: is not enabled; set enabled = true in its table",
        ]


class TestValues:
    """Settings as values."""

    def test_are_frozen(self) -> None:
        """The core is handed a part of them and must not change it for others."""
        with pytest.raises(ValidationError):
            source_of("").retries = 5  # type: ignore[misc]  # what mypy forbids is tried here

    def test_know_their_upstream(self) -> None:
        """The same adapter serves the upstream and its imitation."""
        played = SourceSettings(kind="sandbox.random_org", batches=[2])
        real = SourceSettings(kind="random_org", batches=range(2, 4))

        assert (played.is_sandbox, played.upstream) == (True, "random_org")
        assert (real.is_sandbox, real.upstream) == (False, "random_org")


ATOMS = strategies.one_of(
    strategies.sampled_from(
        ["true", "nan", "inf", "-0.0", "1e400", "''", "[]", "{}", "0x" + "f" * 5000]
    ),
    strategies.sampled_from(
        ["1979-05-27", "07:32:00", "'2..29'", "'anu_aqn'", "'https://h'", "[[1]]"]
    ),
    strategies.integers().map(str),
    strategies.floats(allow_nan=False, allow_infinity=False).map(repr),
    strategies.text(
        strategies.characters(blacklist_characters="'", min_codepoint=32), max_size=9
    ).map(lambda text: f"'{text}'"),
)
KEYS = strategies.sampled_from(
    [*(set(SourceSettings.model_fields) - {"batch_sizes"}), "batches", "max_bytes", "url", "'a b'"]
)
TABLES = strategies.sampled_from(
    [
        "collect",
        "store",
        "sandbox",
        "sources",
        "sources.anu",
        "sources.'\\n'",
        "[sources.x]",
        "other",
    ]
)
LINES = strategies.one_of(
    strategies.builds("[{}]".format, TABLES),
    strategies.builds("{} = {}".format, KEYS, ATOMS),
    strategies.text(max_size=9),
)


class TestAnything:
    """Whatever is in the file, it loads or is refused; there is no third way."""

    @settings(
        max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(lines=strategies.lists(LINES, max_size=12), starts_well=strategies.booleans())
    def test_documents(self, lines: list[str], starts_well: bool) -> None:
        """A traceback is no answer to a typing error."""
        text = (SOURCE if starts_well else "") + "\n".join(lines)

        self.load_or_refuse(text.encode("utf-8", "surrogatepass"))

    @settings(
        max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(content=strategies.binary(max_size=40))
    def test_bytes(self, content: bytes) -> None:
        """A file may be no text at all."""
        self.load_or_refuse(content)

    @settings(
        max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(key=KEYS, value=strategies.text(max_size=20))
    def test_variables(self, key: str, value: str) -> None:
        """Nor are variables under anybody's control."""
        self.load_or_refuse(SOURCE.encode(), **{f"PIPELINE_SOURCES_ANU_{key.upper()}": value})

    @settings(
        max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(name=strategies.text(max_size=50))
    def test_any_text_is_a_name_of_a_source_or_refused(self, name: str) -> None:
        """What passes is the same wherever it comes out again (U17)."""
        text = SOURCE.replace("anu]", f"{json.dumps(name, ensure_ascii=False)}]")

        if re.fullmatch("[a-z0-9][a-z0-9_-]{0,39}", name):
            assert list(load(text).sources) == [name]
        else:
            assert all(line.isprintable() for line in refusal(text))

    @staticmethod
    def load_or_refuse(content: bytes, **environ: str) -> None:
        """Load *content*; every complaint must be one printable line."""
        try:
            lines: tuple[str, ...] = (load(content, **environ).digest,)
        except ConfigError as error:
            lines = error.complaints

        assert lines
        assert all(line.isprintable() for line in lines)


class TestLayering:
    """Settings are at the bottom: every command pays for what they import."""

    def test_imports_nothing_above_it(self) -> None:
        """Arrows point down only."""
        allowed = (
            "pipeline.errors",
            "pipeline.files",
            "pipeline.models",
            "pipeline.pacing",
            "pipeline.settings",
        )
        for file in Path(pipeline.settings.__file__).parent.glob("*.py"):
            nodes = ast.walk(ast.parse(file.read_text("utf-8")))
            names = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
            assert [
                n for n in names if n.startswith("pipeline") and not n.startswith(allowed)
            ] == []

    def test_imports_nothing_heavy(self) -> None:
        """``pipeline report`` must not wait for an HTTP library."""
        code = "import sys, pipeline.settings; print(*sys.modules)"
        environ: Mapping[str, str] = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        output = subprocess.check_output([sys.executable, "-c", code], text=True, env=environ)

        heavy = {"httpx", "httpx2", "anyio", "sqlmodel", "sqlalchemy", "typer", "rich", "idna"}
        assert heavy & set(output.split()) == set()
