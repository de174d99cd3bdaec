"""Somebody before a real browser, and the one instance and the one browser that the tests of pages share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import playwright.sync_api as playwright_api
import pytest

from instance import Instance

CHROMIUM = "/usr/bin/chromium"
ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / "artefacts" / "pages"
PASSWORD = "correct horse battery"
AXE = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"

_INTERRUPTED = ("ERR_NETWORK_CHANGED", "ERR_ABORTED", "interrupted by another navigation")


@pytest.fixture(scope="session")
def axe() -> str:
    """axe-core 4.14.1 as npm gives it (MPL-2.0), kept here so that no page goes unlooked at for want of a network."""
    content = (Path(__file__).parent / "axe" / "axe.min.js").read_bytes()
    assert hashlib.sha256(content).hexdigest() == AXE, "axe-core is another than the one that was looked at"
    return content.decode()


@pytest.fixture(scope="session")
def alveole() -> Iterator[Instance]:
    # A registry at which nobody answers.
    with Instance(more='\n[images]\nregistries = ["127.0.0.1:9"]\n') as made:
        made.cli("account", "add", "ana", "--title", "Ana Lopez", "--password-stdin", input=PASSWORD)
        made.cli("account", "add", "zoe")
        yield made


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    with playwright_api.sync_playwright() as play:
        made = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


class Person:
    """Somebody before a screen. What the browser complains about is kept."""

    def __init__(self, browser: Any, alveole: Instance, axe: str, *, language: str, width: int, dark: bool = False):
        self.base = f"https://panel.localhost:{alveole.https}"
        self.context = browser.new_context(
            ignore_https_errors=True,
            locale=language,
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.width, self.language, self.axe = width, language, axe
        self.complaints: list[str] = []
        self.hosts: set[str] = set()
        self.page.on("console", lambda message: self._heard(message.type, message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))
        self.page.on("dialog", lambda dialog: dialog.accept())

    def _heard(self, kind: str, text: str) -> None:
        # A refused form is an answer of 4xx, which the console tells of.
        if kind in ("error", "warning") and not any(word in text for word in ("Failed to load", "NETWORK_CHANGED")):
            self.complaints.append(text)

    def go(self, path: str) -> None:
        """Chromium gives up what it is loading when an interface of the machine comes or goes, as sites' do; its own
        page that says so, and its next try by itself, may come in the way of ours."""
        for tries in range(10):
            try:
                self.page.goto(path if "//" in path else self.base + path)
                return
            except playwright_api.Error as error:
                if tries == 9 or not any(word in str(error) for word in _INTERRUPTED):
                    raise
                self.page.wait_for_timeout(300)

    def look(self, name: str) -> None:
        """Keep a picture; nothing is wider than the screen, and axe finds nothing serious."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}-{self.language}-{self.width}.png", full_page=True)
        assert self.page.evaluate("document.documentElement.scrollWidth") <= self.width, name
        session = self.context.new_cdp_session(self.page)
        frame = session.send("Page.getFrameTree")["frameTree"]["frame"]["id"]
        # A world of its own: the page's policy lets no script in but its own.
        world = session.send("Page.createIsolatedWorld", {"frameId": frame})["executionContextId"]
        session.send("Runtime.evaluate", {"expression": self.axe, "contextId": world})
        found = session.send(
            "Runtime.evaluate",
            {
                "expression": "axe.run().then((found) => JSON.stringify(found.violations.map((each) =>"
                " [each.id, each.impact, each.nodes.slice(0, 3).map((node) => node.html.slice(0, 200))])))",
                "contextId": world,
                "awaitPromise": True,
                "returnByValue": True,
            },
        )
        session.detach()
        wrong = [each for each in json.loads(found["result"]["value"]) if each[1] in ("serious", "critical")]
        assert wrong == [], (name, wrong)

    def sign_in(self, name: str) -> None:
        self.go("/sites")
        self.page.fill("#name", name)
        self.page.fill("#password", PASSWORD)
        self.page.click("main button.btn-primary")
        self.page.wait_for_url("**/sites")

    def ended(self) -> None:
        """Follow the change at hand to its end."""
        self.page.wait_for_url("**/change/*")
        self.page.wait_for_selector("#how .state-done", timeout=180_000)

    def close(self) -> None:
        assert self.complaints == []
        assert self.hosts <= {self.base.removeprefix("https://")}, self.hosts
        self.context.close()


def first_token(alveole: Instance) -> str:
    return str(alveole.cli("account", "first-token", "--json").json["token"])
