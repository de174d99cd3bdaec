"""Graphs and the wall in a real browser: narrow and wide, dark and light, both languages; axe looks at each."""

from __future__ import annotations

import math
import os
import time
from typing import Any

import pytest
from browserkit import PASSWORD, Person

from alveole.figures.archive import COLUMNS, Archives
from instance import Instance
from instancekit import page as content
from instancekit import until

pytestmark = [pytest.mark.root, pytest.mark.slow]


def past(alveole: Instance, site: str) -> None:
    """Three hours of waves with a gap, for who looks at the pictures; control writes on. Nothing hangs on it: where
    control was first, rrdtool refuses what is older."""
    place = alveole.state / "control"
    archives = Archives(place / "figures")
    now = int(time.time()) // 10 * 10
    for at in range(now - 10_800, now - 20, 10):
        wave = 1 + math.sin(at / 900)
        values = {name: wave * (5 + number) for number, name in enumerate(COLUMNS)}
        values |= {"memory": 3e7 * wave + 1e7, "cpu": wave / 4, "up": 1.0, "kept": 1.0, "p50": 12.0}
        values |= {"p95": 40 * wave + 30}
        values |= {"p99": 300 * wave + 90, "in4": 4e4 * wave, "out4": 9e5 * wave, "out6": 2e5, "failed": 0.0}
        row: list[float | None] = [values[name] for name in COLUMNS]
        if 5_000 < now - at < 6_000:
            row = [None] * len(COLUMNS)
        text = ":".join("U" if value is None else f"{value:.6g}" for value in row)
        archives._waiting.setdefault(site, []).append(f"{at}:{text}")
    archives.flush()
    owner = place.stat()
    for file in (place / "figures", *(place / "figures").iterdir()):
        os.chown(file, owner.st_uid, owner.st_gid)


@pytest.mark.parametrize(
    ("language", "width", "dark"),
    [("fr-FR", 375, True), pytest.param("en-US", 1600, False, marks=pytest.mark.turn)],
)
def test_figures_at_a_glance(alveole: Instance, browser: Any, axe: str, language: str, width: int, dark: bool) -> None:
    name, reader = f"graphs-{width}", f"figaro{width}"
    alveole.cli("account", "add", reader, "--role", "reader", "--password-stdin", input=PASSWORD)
    change = alveole.api("POST", "/v1/sites", {"name": name, "upload": alveole.upload(content(name))})
    alveole.ended(change["id"], good=True)
    past(alveole, alveole.api("GET", f"/v1/sites/{name}")["id"])

    def known(path: str) -> bool:
        found = alveole.api("GET", f"{path}?span=hour")
        place = found["columns"].index("memory")
        return sum(1 for row in found["rows"] if row[place] is not None) >= 2

    until(lambda: known(f"/v1/sites/{name}/figures") and known("/v1/figures"), 120, alveole.tail, pause=1.0)
    someone = Person(browser, alveole, axe, language=language, width=width, dark=dark)
    page = someone.page
    someone.sign_in(reader)
    for path, shot in (
        (f"/site/{name}/figures?span=hour", "figures-site"),
        ("/admin/figures?span=hour", "figures-machine"),
        ("/admin/traffic?span=hour", "figures-traffic"),
    ):
        someone.go(path)
        if "traffic" not in path:
            # A machine may have no interface that has carried anything.
            page.wait_for_selector(".graph canvas")
        # What a picture shows stands in words beside it.
        assert page.locator(".graph-table").count() == page.locator(".graph").count()
        someone.look(shot)
    someone.go("/admin/reports")
    page.click("main .panel li a")
    page.wait_for_selector("main table")
    someone.look("report")
    someone.close()
    made = alveole.cli("token", "create", f"wall{width}", "--role", "reader", "--scope", "metrics.look", "--json")
    screen = Person(browser, alveole, axe, language=language, width=width, dark=dark)
    screen.go("/wall")
    screen.look("wall-enter")
    # As a screen without a keyboard does: from another address than the one at hand, so that it is loaded.
    screen.go("/favicon.ico")
    screen.go(f"/wall#{made.json['secret']}")
    screen.page.wait_for_selector(".wall-figures")
    assert "#" not in screen.page.url and screen.page.locator("button, a, input").count() == 0
    screen.look("wall")
    # It is brought anew by itself: what is marked here is gone after a while.
    screen.page.evaluate("document.querySelector('#wall').dataset.old = '1'")
    screen.page.wait_for_selector("#wall:not([data-old]) .wall-figures")
    screen.close()
