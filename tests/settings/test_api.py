"""The ``api`` table: what may be written, what is refused, and in which words."""

from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.settings import Settings, load_settings
from pipeline.settings.presets import API_KINDS, PRESETS

CANARY = "canary-4711"
URL = "https://h.test/?low={min}&high={max}&n={n}"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of one's own, as a user does."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(text: str, **environ: str) -> Settings:
    """Load *text* as ``config.toml`` of the current folder."""
    Path("config.toml").write_text(text)
    return load_settings(Path("config.toml"), {"HOME": str(Path.cwd()), **environ})


def complaints(api: str, *, url: str = URL, more: str = "", **environ: str) -> list[str]:
    """Load a source with these lines in its ``api`` table, and give what is wrong with it."""
    table = (
        f'[sources.a]\nkind = "json_api"\nurl = "{url}"\nmin = 1\nmax = 6\nbatches = [1]\n{more}'
    )
    try:
        load(f"{table}\n[sources.a.api]\n{api}\n", **environ)
    except ConfigError as exc:
        named = f"{Path.cwd()}/config.toml (--config): sources.a."
        return [line.replace(named, "", 1) for line in exc.complaints]
    return []


GOOD = 'numbers = "/data"\nmost = 10\n'


def test_a_table_is_all_that_an_api_takes() -> None:
    """No line of Python."""
    assert complaints(GOOD) == []


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('method = "PUT"', "api.method: must be one of GET, POST, not 'PUT'"),
        ('pathh = "/x"', "api.pathh: is not a known key; did you mean path?"),
        ('path = "x"', "api.path: must begin with / or, where url has a path already, with ?"),
        ('path = "/\u00e4"', "api.path: must be ASCII without blanks"),
        ('path = "/{count}"', "api.path: has no placeholder '{count}'; known are {n}, {min}"),
        ('path = "/{bite}"', "api.path: has no placeholder '{bite}'; did you mean bits?"),
        ('path = "/{n"', "api.path: has a brace that belongs to no placeholder"),
        ('path = "/#x"', "api.path: must not contain #"),
        ('encoding = "octal"', "api.encoding: must be one of integer, decimal, hex, base64"),
        (
            'encoding = "hex"',
            'api.values: must be "bytes" or "uint8" to "uint64" with encoding hex',
        ),
        (
            'values = "uint12"',
            "api.values: must be one of asked, bytes, bits, uint8, uint16, uint32,",
        ),
        ('values = "6..1"', "api.values: must be one of asked"),
        ('values = "uint8"', 'api.values: with "uint8" nothing can be told as {max}; remove it'),
        ('bounds = "1-6"', "api.bounds: must be a range such as \"1..6\", not '1-6'"),
        ('body = "x"', 'api.body: is sent with method = "POST" only'),
        (
            'method = "POST"\nbody = "{n}}"',
            "api.body: is no JSON, once its placeholders are filled",
        ),
        ("headers = { 'a b' = 'x' }", "api.headers: has a name that is no name of an HTTP header"),
        ("headers = { Host = 'x' }", "api.headers: Host is written by the program; remove it"),
        ('headers = { a = "\u00e4" }', "api.headers: the value of a must be printable ASCII"),
        ("headers = { a = '{n}' }", "api.headers: a can hold {key} only"),
        ("headers = { a = 1 }", "api.headers.a: must be text in quotes, not 1"),
        ("errors = [{ status = 429 }]", "api.errors[0].error: is missing"),
        ('errors = [{ error = "refused" }]', "api.errors[0]: needs a condition: status, field or"),
        (
            'errors = [{ status = 42, error = "refused" }]',
            "api.errors[0].status[0]: must be at least",
        ),
        ('errors = [{ status = 400, error = "stale" }]', "api.errors[0].error: must be one of"),
        (
            'errors = [{ status = 400, error = "refused", wait = 1 }]',
            "api.errors[0].wait: is not a known key; known are status, field, equals, text, error,",
        ),
        (
            'errors = [{ status = 400, equals = 1, error = "refused" }]',
            "api.errors[0].equals: needs field, to say where",
        ),
        (
            'errors = [{ text = "x", error = "refused", wait_seconds = 1, until = "day" }]',
            "api.errors[0].until: give this or wait_seconds, not both",
        ),
        (
            'measures = [{ name = "a b", field = "/x" }]',
            "api.measures[0].name: a name has 1 to 40 of a-z 0-9 _",
        ),
        (
            'measures = [{ name = "a", field = "/x" }, { name = "a", field = "/y" }]',
            "api.measures[1].name: a is there twice; rename one",
        ),
        (
            'allowances = [{ field = "a", until = "day" }]',
            'api.allowances[0].field: must be a JSON Pointer: "" (the whole answer)',
        ),
        (
            'allowances = [{ until = "day" }]',
            "api.allowances[0]: needs field or header, and not both",
        ),
        (
            'allowances = [{ header = "x-left" }]',
            "api.allowances[0]: needs wait_seconds or until, and not both",
        ),
    ],
)
def test_what_is_wrong_is_told_in_one_line(line: str, complaint: str) -> None:
    """Where, what, and what to do."""
    told = complaints(GOOD + line)

    assert any(each.startswith(complaint) for each in told), told


@pytest.mark.parametrize(
    ("pointer", "complaint"),
    [("data", "must be a JSON Pointer"), ("/a~b", "~ is written ~0, / in a name ~1")],
)
def test_a_bad_pointer_is_found_when_the_file_is_read(pointer: str, complaint: str) -> None:
    """And not when the first answer has come."""
    [told] = complaints(f'most = 1\nnumbers = "{pointer}"')

    assert told.startswith("api.numbers: ")
    assert complaint in told


def test_what_is_missing_is_named() -> None:
    """Nothing can be guessed of an API that only the file knows."""
    with pytest.raises(ConfigError) as caught:
        load('[sources.a]\nkind = "json_api"\nbatches = [1]\n')
    told = [line.partition(": sources.a.")[2] for line in caught.value.complaints]

    assert told == [
        "url: is missing; give the whole address, with {n}, {min} and {max} in it",
        "min: is missing; give min and max, or word",
        "api: is missing; say in [sources.<name>.api] how it is asked and read",
    ]
    forms = '"" (the whole answer), "/data", "/items/*/value"'
    assert complaints("") == [
        f"api.numbers: is missing; say where the numbers stand: {forms}",
        "api.most: is missing; give the most that one request may ask for",
    ]


def test_a_request_must_say_what_is_wanted() -> None:
    """Without {n} an answer of another size would be a surprise, without {max} every answer."""
    told = complaints(GOOD, url="https://h.test/?low={min}")

    assert told == [
        "api.most: is more than 1, and the request has no {n} or {bytes} to say how many",
        'api.values: with "asked" the request must say {min} and {max} (or {max+1})',
    ]
    url = "https://h.test/?n={n}"
    assert complaints(f'{GOOD}values = "bits"', url=url) == [
        'api.values: with "bits" the request must say {bits}'
    ]
    assert complaints(f'{GOOD}values = "bytes"', url=url) == [
        'api.encoding: must be "hex" or "base64" with values = "bytes"'
    ]
    assert complaints(f'{GOOD}values = "uint8"\nbounds = "1..6"', url=url) == [
        'api.bounds: is for values = "asked"; remove it'
    ]


class TestSecrets:
    """A key is named, never written down."""

    @pytest.mark.parametrize(
        "line",
        [
            f'headers = {{ x-api-key = "{CANARY}" }}',
            f'headers = {{ Authorization = "Bearer {CANARY}" }}',
            f'path = "?api_key={CANARY}"',
        ],
    )
    def test_a_key_in_the_file_is_refused_without_showing_it(self, line: str) -> None:
        """The complaint may be mailed."""
        told = complaints(GOOD + line)

        assert any(
            "would hold the key itself; write {key}, and name api_key_env" in t for t in told
        )
        assert CANARY not in "".join(told)

    def test_a_key_in_the_address_is_refused_without_showing_it(self) -> None:
        """Also in the whole one."""
        told = complaints(GOOD, url=f"{URL}&token={CANARY}")

        assert told[0].startswith("url: would hold the key itself")
        assert CANARY not in "".join(told)

    def test_a_placeholder_wants_a_key(self) -> None:
        """And the key is read from where it is kept."""
        url = URL + "&k={key}"

        assert complaints(GOOD, url=url) == ["api_key_env: is missing; json_api wants a key"]
        assert complaints(GOOD, url=url, more='api_key_env = "K"\n', K=CANARY) == []
        assert complaints(GOOD, more='api_key_env = "K"\n', K=CANARY) == [
            "api_key_env: json_api takes no key; remove it, or write {key} where it belongs"
        ]

    def test_a_key_travels_encrypted(self) -> None:
        """As with every other kind."""
        url = URL.replace("https", "http") + "&k={key}"
        more = 'api_key_env = "K"\n'

        assert complaints(GOOD, url=url, more=more, K=CANARY) == [
            "url: would send the key unencrypted; use https:// or set allow_http = true"
        ]


class TestPresets:
    """APIs that are known, and what of them can be changed."""

    def test_a_line_changes_a_line(self) -> None:
        """What is unsure of an API can be set, and the rest stays."""
        table = '[sources.a]\nkind = "lfd"\nbatches = [1]\napi = { most = 4096 }\n'
        api = load(table).sources["a"].api

        assert api is not None
        assert (api.most, api.encoding, api.numbers) == (4096, "hex", "/qrn")

    def test_a_line_is_checked_as_all_are(self) -> None:
        """Together with what is known."""
        table = '[sources.a]\nkind = "sandbox.lfd"\nbatches = [1]\napi = { values = "asked" }\n'

        with pytest.raises(ConfigError, match=r"sources\.a\.api\.values: with \"asked\" nothing"):
            load(table)

    @pytest.mark.parametrize("kind", PRESETS)
    def test_what_is_known_is_well_formed(self, kind: str) -> None:
        """The sandbox needs no key."""
        assert load(f'[sources.a]\nkind = "sandbox.{kind}"\nbatches = [1]\n').sources["a"].api

    def test_other_kinds_take_no_table(self) -> None:
        """It would say nothing."""
        with pytest.raises(ConfigError, match=f"api: only {', '.join(API_KINDS)} take it"):
            load('[sources.a]\nkind = "anu_aqn"\nbatches = [1]\napi = { numbers = "", most = 1 }\n')

    def test_a_base_address_takes_no_query(self) -> None:
        """Only of json_api the address is whole."""
        with pytest.raises(ConfigError, match=r"url: must not contain \? or #"):
            load('[sources.a]\nkind = "lfd"\nbatches = [1]\nurl = "https://h.test/?a=1"\n')

    def test_a_table_that_is_none_is_told(self) -> None:
        """Not merged with what is known."""
        with pytest.raises(ConfigError, match=r"sources\.a\.api: must be a table in braces"):
            load('[sources.a]\nkind = "lfd"\nbatches = [1]\napi = 5\n')
