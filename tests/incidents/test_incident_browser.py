"""The pages of incidents in a real browser, at both widths and in both languages: nothing serious for axe.

The browser is given what the pages of a control without an edge are, request by request, so that no instance is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import playwright.sync_api as playwright_api
import pytest
from browserkit import CHROMIUM, Person, axe
from incidentkit import Incidents
from webkit import Visitor

__all__ = ["axe"]
HEAT = 'on = "site.heat"\nabove = 90\ntitle = "Too hot"\npromise = "content"\ncause = "serving"\n'


class _Address:
    """Of nobody: what is asked there never leaves the browser."""

    https = 8443


class Given(Person):
    """Whoever is signed in with a visitor; the browser asks nobody but that one."""

    def __init__(self, browser: Any, visitor: Visitor, axe: str, *, language: str, width: int, dark: bool) -> None:
        self.visitor = visitor
        super().__init__(browser, _Address(), axe, language=language, width=width, dark=dark)
        self.page.route("**/*", self._give)

    def _give(self, route: Any) -> None:
        path = "/" + route.request.url.split("/", 3)[3]
        answer = self.visitor.ask("GET", path, headers={"Accept": route.request.headers.get("accept", "*/*")})
        headers = {key: value for key, value in answer.headers.items() if key != "content-encoding"}
        route.fulfill(status=answer.status_code, headers=headers, body=answer.content)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright_api.sync_playwright() as play:
        made = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.mark.turn
@pytest.mark.parametrize(("language", "width", "dark"), [("en-US", 1600, False), ("fr-FR", 375, True)])
def test_every_page(world: Incidents, browser: Any, axe: str, language: str, width: int, dark: bool) -> None:
    world.rule("heat", HEAT)
    world.say("site.heat", "blog", 99.0, text="99 K, and a long word: " + "x" * 80)
    world.round()
    (found,) = world.open()
    world.door.ok("incident", "comment", found.id, "a fan was switched on")
    world.door.ok("silence", "add", "--weekly", "sat,sun 22:00", "--for", "6h", "--why", "nobody is on call")
    try:
        with Visitor(world.door, language[:2]) as olga:
            olga.sign_in("olga")
            person = Given(browser, olga, axe, language=language, width=width, dark=dark)
            for name, path in (
                ("incidents", "/incidents"),
                ("incident", f"/incident/{found.id}"),
                ("incident-report", f"/incident/{found.id}/report"),
                ("rules", "/incidents/rules"),
                ("rule", "/incidents/rule/t-heat"),
                ("silences", "/incidents/silences"),
                ("promises", "/site/blog/promises"),
            ):
                person.go(path)
                person.look(name)
            person.close()
    finally:
        world.clean()
