"""A real browser that looks at pages."""

import json
from collections.abc import Callable
from typing import Any

from selenium.webdriver import Chrome
from selenium.webdriver.remote.command import Command

PHONE: dict[str, object] = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
SCREEN: dict[str, object] = {"width": 1200, "height": 900, "deviceScaleFactor": 1, "mobile": False}

PATIENCE = 10  # seconds that a busy machine may take to draw anew

Load = Callable[..., Chrome]


def logged(browser: Chrome, kind: str) -> list[dict[str, Any]]:
    """Take what the browser has noted since it was asked last: ``browser`` or ``performance``."""
    entries: list[dict[str, Any]] = browser.execute(Command.GET_LOG, {"type": kind})["value"]
    return entries


def prefer(browser: Chrome, scheme: str, media: str = "") -> None:
    """Let the reader's system be light or dark, or let the page be printed."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features, "media": media})


def asked_for(browser: Chrome) -> set[str]:
    """Give the kinds of address that the browser has asked for since the page was opened."""
    messages = (json.loads(entry["message"])["message"] for entry in logged(browser, "performance"))
    urls = (
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    )
    return {url.partition(":")[0] for url in urls}


def texts(browser: Chrome, selector: str) -> list[str]:
    """Read the text of all elements, hidden ones included."""
    script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)"
    found: list[str] = browser.execute_script(script, selector)
    return found


def ask(browser: Chrome, expression: str) -> Any:  # noqa: ANN401 - whatever the script gives
    """Ask the page for the value of an expression."""
    return browser.execute_script(f"return {expression}")
