"""The frame of an HTML file that opens offline: style, script, content security policy, origin.

Foreign text is escaped before it comes here. Should that ever fail, the content security policy
lets no script run but the one whose hash it names, and no address be asked at all.
"""

from base64 import b64encode
from collections.abc import Iterable, Iterator
from hashlib import sha256
from html import escape
from importlib.resources import files

from pipeline.rendering.document import Origin
from pipeline.rendering.words import show_time
from pipeline.sanitize import printable


def as_html(text: str) -> str:
    """Make foreign text mean nothing but itself, between tags and within quotes."""
    return escape(printable(text))


def _asset(name: str) -> str:
    return files("pipeline.rendering").joinpath(name).read_text("utf-8")


def _policy(script: str) -> str:
    digest = b64encode(sha256(script.encode()).digest()).decode()
    # Charts have style attributes; an image is only ever drawn from what is in the page.
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline';"
        " img-src data:; base-uri 'none'; form-action 'none'"
    )


def _title(title: str, origin: Origin | None) -> str:
    if origin is None:
        return as_html(title)
    return as_html(f"{title} · {origin.store.rpartition('/')[2]} on {origin.host}")


def _footer(origin: Origin) -> str:
    said = (
        f"Written {show_time(origin.written_at)} by pipeline {origin.version} on {origin.host},"
        f" from {origin.store}. {origin.window}. All times are UTC."
    )
    return f"<footer><p>{as_html(said)}</p></footer>"


def render_page(title: str, body: Iterable[str], origin: Origin | None = None) -> Iterator[str]:
    """Put *body*, which is HTML, into a page of its own, which says its *origin* if that is given.

    All of it can be read without the script, which sorts, copies, and tells what is pointed at.
    """
    script = _asset("page.js")
    yield "<!doctype html>"
    yield '<html lang="en">'
    yield '<meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_policy(script)}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield '<meta name="color-scheme" content="light dark">'
    if origin is not None and origin.refresh_seconds is not None:
        yield f'<meta http-equiv="refresh" content="{origin.refresh_seconds}">'
    yield '<link rel="icon" href="data:,">'
    yield f"<title>{_title(title, origin)}</title>"
    yield f"<style>\n{_asset('page.css')}</style>"
    yield "<body>"
    yield "<main>"
    yield f"<header><h1>{as_html(title)}</h1>"
    if origin is not None:
        parts = (origin.store, origin.host, origin.window)
        yield f'<p class="origin">{" · ".join(map(as_html, parts))}</p>'
    yield "</header>"
    yield from body
    if origin is not None:
        yield _footer(origin)
    yield "</main>"
    yield f"<script>{script}</script>"
    yield "</body>"
    yield "</html>"
