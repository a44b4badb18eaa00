"""One browser for all that look at pages."""

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from tests.rendering.browsing import SCREEN, Load, logged, prefer

ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """Start one Chromium for all tests: that takes longer than any of them."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver (Debian: chromium, chromium-driver)")
    options = ChromeOptions()
    options.binary_location = chromium
    for argument in (*ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()


@pytest.fixture
def load(browser: Chrome, tmp_path: Path) -> Load:
    """Open a page from its file, by day."""

    def load_page(lines: Iterable[str], device: dict[str, object] = SCREEN) -> Chrome:
        page = tmp_path / "page.html"
        page.write_text("\n".join(lines), "utf-8")
        prefer(browser, "light")
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
        browser.get("about:blank")
        logged(browser, "browser")
        logged(browser, "performance")
        browser.get(page.as_uri())
        return browser

    return load_page
