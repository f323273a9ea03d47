"""A real Chromium without a window, and what a reader would object to in a page that it shows."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from selenium.webdriver import Chrome

_NEEDED = (
    "needs Chromium, its driver and selenium: on Debian `apt-get install chromium chromium-driver`, then"
    " `pip install selenium`"
)
_SWITCHES = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
_LOOK = Path(__file__).with_name("browser.js").read_text(encoding="utf-8")


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """Starts Chromium, and ends it with all of its processes; skips the test where it is not to be had."""
    program, driver_program = shutil.which("chromium"), shutil.which("chromedriver")
    webdriver = pytest.importorskip("selenium.webdriver", reason=_NEEDED)
    if program is None or driver_program is None:
        pytest.skip(_NEEDED)
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for switch in (*_SWITCHES, f"--user-data-dir={profile}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver_program))
    try:
        yield Browser(driver)
    finally:
        driver.quit()


class Browser:
    """One window."""

    def __init__(self, driver: Chrome) -> None:
        self._driver = driver

    @property
    def pids(self) -> list[int]:
        """The processes of the browser and of its driver."""
        browser: Any = self._driver.capabilities["goog:processID"]
        process: Any = self._driver.service.process
        return [browser, process.pid]

    def open(self, page: Path, width: int, *, dark: bool = False, media: str = "screen") -> None:
        """Shows a page from a file, with all that is folded in it unfolded, but not for print."""
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": scheme})
        for log in ("performance", "browser"):  # What is read is gone.
            self._driver.get_log(log)
        self._driver.get(page.as_uri())
        if media == "screen":
            self.ask("for (const one of document.querySelectorAll('details')) one.open = true")

    def ask(self, script: str, *arguments: Any) -> Any:
        """What a script in the page returns."""
        return self._driver.execute_script(script, *arguments)

    def objections(self, what: str, *arguments: Any) -> list[str]:
        """What one of the functions of browser.js finds."""
        return self.ask(f"{_LOOK}\nreturn {what}(...arguments)", *arguments)

    def requests(self) -> list[str]:
        """What was asked for since the page was opened, the page itself included."""
        events = [json.loads(one["message"])["message"] for one in self._driver.get_log("performance")]
        return [
            one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"
        ]

    def complaints(self) -> list[str]:
        """Errors and warnings of the console since the page was opened."""
        return [one["message"] for one in self._driver.get_log("browser")]
