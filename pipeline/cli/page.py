"""The frame of an HTML file that opens offline: style, scripts, and a policy that forbids the rest.

Foreign text is escaped before it comes here. Should that ever fail, the content security policy
lets no script run but those whose hashes it names, and no address be asked at all.
"""

from base64 import b64encode
from collections.abc import Iterable, Iterator
from hashlib import sha256
from html import escape
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from pipeline.cli.palette import PHASE_COLOURS, TONE_COLOURS
from pipeline.errors import UsageError
from pipeline.sanitize import printable


def as_html(text: str) -> str:
    """Make foreign text mean nothing but itself, between tags and within quotes."""
    return escape(printable(text))


def _asset(name: str) -> str:
    return files("pipeline.cli").joinpath(name).read_text("utf-8")


def _plotly() -> str:
    """Read the script that draws charts, without importing the package that brings it."""
    spec = find_spec("plotly")
    if spec is None or spec.origin is None:
        raise UsageError("charts in HTML need plotly: pip install 'pipeline[html]'")
    script = Path(spec.origin).with_name("package_data") / "plotly.min.js"
    # Its own end tag would end ours; within a string or a pattern `<\/` is the same.
    return script.read_text("utf-8").replace("</script", r"<\/script")


def _style() -> str:
    """Add to our style sheet the colours that terminals show as well."""
    colours = (*PHASE_COLOURS.items(), *TONE_COLOURS.items())
    inks = "\n".join(f".{name or 'plain'} {{ --fill: {ink}; }}" for name, ink in colours)
    return f"{_asset('page.css')}\n{inks}\n"


def _policy(scripts: Iterable[str]) -> str:
    hashes = (b64encode(sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    # Plotly writes style attributes; an image is only ever drawn from what is in the page.
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:;"
        " base-uri 'none'; form-action 'none'"
    )


def render_page(title: str, body: Iterable[str], *, has_charts: bool) -> Iterator[str]:
    """Put *body*, which is HTML, into a page of its own; charts bring 5 MB of script along.

    Raises:
        UsageError: there are charts, and plotly is not installed.
    """
    scripts = [*([_plotly()] if has_charts else []), _asset("page.js")]
    yield "<!doctype html>"
    yield '<html lang="en">'
    yield '<meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_policy(scripts)}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield '<meta name="color-scheme" content="light dark">'
    yield '<link rel="icon" href="data:,">'
    yield f"<title>{as_html(title)}</title>"
    yield f"<style>\n{_style()}</style>"
    yield "<body>"
    yield "<main>"
    yield f"<h1>{as_html(title)}</h1>"
    yield from body
    yield "</main>"
    for script in scripts:
        yield f"<script>{script}</script>"
    yield "</body>"
    yield "</html>"
