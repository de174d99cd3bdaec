"""A past day in a real browser, from the page of backups to the copy and back; axe looks at each page."""

from __future__ import annotations

from typing import Any

import pytest
from browserkit import PASSWORD, Person

from instance import Instance
from instancekit import page as content

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.mark.parametrize(
    ("language", "width", "dark"),
    [("fr-FR", 375, True), pytest.param("en-US", 1600, False, marks=pytest.mark.turn)],
)
def test_a_past_day(alveole: Instance, browser: Any, axe: str, language: str, width: int, dark: bool) -> None:
    """Threat 22, as a browser does it: cookies, redirects and what it says of where it comes from."""
    name, owner = f"diary-{width}", f"dora{width}"
    alveole.cli("account", "add", owner, "--password-stdin", input=PASSWORD)
    change = alveole.api("POST", "/v1/sites", {"name": name, "owner": owner, "upload": alveole.upload(content("then"))})
    alveole.ended(change["id"], good=True)
    change = alveole.ended(alveole.api("POST", "/v1/backups", {"site": name})["id"], good=True)
    backup = change["result"]["backup"]
    alveole.update(name, content("today"))
    someone = Person(browser, alveole, axe, language=language, width=width, dark=dark)
    page = someone.page
    someone.sign_in(owner)
    someone.go(f"/site/{name}/backups")
    # Without a mouse: the day in the calendar is a link like any other.
    page.focus(".calendar td a")
    page.keyboard.press("Enter")
    page.wait_for_url("**/backups?day=*")
    page.locator("tr", has_text=backup).first.wait_for()
    someone.look("backups-of-a-day")
    page.click(f"form[action*='/{backup}/open'] button")
    someone.ended()
    someone.go(f"/site/{name}/backups")
    someone.look("backups-with-a-past-day")
    (day,) = alveole.api("GET", f"/v1/past-days?site={name}")
    # As somebody who was sent the address: to the pages, and by their link into the copy.
    someone.go(day["address"])
    page.wait_for_url(f"{someone.base}/**")
    someone.go(f"/past/{day['id']}")
    someone.look("past-day")
    page.click("main a.btn-primary")
    page.wait_for_url(f"{day['address']}**")
    assert "then" in page.inner_text("body") and "today" in alveole.fetch(name).body
    page.reload()
    assert "then" in page.inner_text("body"), "the pass holds"
    assert [each["value"] for each in someone.context.cookies(day["address"]) if "alveole-past" in each["name"]]
    someone.go(f"/backup/{backup}/preview?path=release/index.html")
    page.wait_for_selector("pre.came")
    someone.look("backup-file")
    someone.go(f"/past/{day['id']}")
    page.click("form[action$='/close'] button")
    page.wait_for_url("**/backups*")
    someone.hosts.discard(day["address"].split("/")[2])
    someone.close()
