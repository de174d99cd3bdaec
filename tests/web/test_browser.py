"""A real browser before a real instance: through the edge, by name, over HTTPS.

The story of an administrator and of an owner, in both languages, at both widths; axe looks at every page on the way.
Screenshots are kept in ``artefacts/pages``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browserkit import PASSWORD, Person, first_token

from instance import Instance

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]
ADMINISTRATION = (
    *("machine", "plans", "bases", "modules", "backups", "dns", "certificates", "logs", "accounts", "teams", "ldap"),
    *("oidc", "second-factor", "syslog", "journal", "accounts/zoe"),
)


def test_the_story_of_an_administrator(alveole: Instance, browser: Any, axe: str) -> None:
    someone = Person(browser, alveole, axe, language="en-US", width=1600)
    page = someone.page
    someone.go("/")
    assert page.url == f"{someone.base}/sign-in"
    someone.look("sign-in")
    page.click("text=I have a token")
    page.fill("#f-token", first_token(alveole))
    page.fill("#f-name", "ada")
    page.fill("#f-password", "short")
    page.fill("#f-again", "short")
    page.click("main button.btn-primary")
    # What was typed is kept, and the field is named.
    assert page.input_value("#f-name") == "ada"
    assert page.locator("#e-password").count() == 1
    someone.look("welcome-refused")
    page.fill("#f-password", PASSWORD)
    page.fill("#f-again", PASSWORD)
    page.click("main button.btn-primary")
    page.wait_for_url("**/sites")
    cookies = {each["name"]: each for each in someone.context.cookies()}
    assert cookies["__Host-alveole"]["secure"] and cookies["__Host-alveole"]["httpOnly"]
    assert cookies["__Host-alveole"]["sameSite"] == "Strict"
    for name in ADMINISTRATION:
        someone.go(f"/admin/{name}")
        someone.look(f"admin-{name.replace('/', '-')}")
    page.click("text=Token for a new password")
    token = page.inner_text("code.secret")
    assert token.startswith("ali_")
    someone.close()
    narrow = Person(browser, alveole, axe, language="fr-FR", width=375, dark=True)
    narrow.sign_in("ada")
    narrow.look("admin-sites")
    for name in ADMINISTRATION:
        narrow.go(f"/admin/{name}")
        assert narrow.page.get_attribute("html", "lang") == "fr"
        narrow.look(f"admin-{name.replace('/', '-')}")
    narrow.close()
    owner = Person(browser, alveole, axe, language="fr-FR", width=375)
    owner.go("/welcome")
    owner.look("welcome")
    owner.page.fill("#f-token", token)
    owner.page.fill("#f-password", PASSWORD)
    owner.page.fill("#f-again", PASSWORD)
    owner.page.click("main button.btn-primary")
    owner.page.wait_for_url("**/sites")
    assert "Mes sites" in owner.page.inner_text("h1")
    owner.look("no-site-yet")
    owner.close()


@pytest.mark.parametrize(("language", "width"), [("fr-FR", 375), pytest.param("en-US", 1600, marks=pytest.mark.turn)])
def test_the_story_of_an_owner(
    alveole: Instance, browser: Any, axe: str, tmp_path: Path, language: str, width: int
) -> None:
    someone = Person(browser, alveole, axe, language=language, width=width, dark=width > 1000)
    page, name = someone.page, f"club-{width}"
    someone.sign_in("ana")
    someone.go("/new")
    someone.look("catalogue")
    someone.go("/new/module?m=wordpress")
    someone.look("questions")
    # An image: what is wrong is said, and what it would come to, before anything is fetched.
    someone.go("/new/image")
    page.fill("#f-name", f"image-{width}")
    page.fill("#f-repository", "Club/App")
    page.click("button[value=preview]")
    page.wait_for_selector("#problems")
    assert page.input_value("#f-name") == f"image-{width}"
    page.fill("#f-repository", "club/app")
    page.click("button[value=preview]")
    page.wait_for_selector("#would")
    someone.look("image")
    page.click("button[value=create]")
    page.wait_for_url("**/change/*")
    # Nobody answers at that registry: nothing of the site stays.
    page.wait_for_selector("#how .state-failed", timeout=180_000)
    assert f"image-{width}" not in [each["name"] for each in alveole.api("GET", "/v1/sites")]
    # A site of files: chosen as a folder, packed by the page, sent with progress.
    someone.go("/new/files")
    page.type("#f-name", "www")
    page.wait_for_selector("#name-said .bad")
    page.fill("#f-name", "")
    page.type("#f-name", name)
    page.wait_for_selector("#name-said .ok")
    folder = tmp_path / "pages"
    (folder / "more").mkdir(parents=True)
    (folder / "index.html").write_text("<h1>The club</h1>")
    (folder / "more" / "rules.html").write_text("x" * 70_000)
    page.set_input_files("#folder", str(folder))
    page.wait_for_selector("input[name=upload]:not([value=''])", state="attached")
    page.click("button[value=preview]")
    page.wait_for_selector("#would")
    assert page.input_value("#f-name") == name
    someone.look("preview")
    page.click("button[value=create]")
    someone.ended()
    someone.look("created")
    assert alveole.fetch(f"{name}.localhost").body == "<h1>The club</h1>"
    assert len(alveole.fetch(f"{name}.localhost", "/more/rules.html").body) == 70_000
    # Stopped and started in the table, seen without loading anew.
    someone.go("/sites")
    row = page.locator("tr", has_text=name)
    row.locator(".state-running").first.wait_for()
    someone.look("sites")
    page.evaluate("window.before = true")
    row.locator("form[action*='/stop'] button").click()
    row.locator(".state-stopped").wait_for(timeout=60_000)
    row.locator("form[action*='/start'] button").click()
    row.locator(".state-running").wait_for(timeout=60_000)
    assert page.evaluate("window.before") is True
    tabs = ("content", "settings", "logs", "visitors", "backups", "certificates", "promises", "journal", "why")
    for path in ("", *(f"/{tab}" for tab in tabs)):
        someone.go(f"/site/{name}{path}")
        someone.look(f"site{path.replace('/', '-')}")
    work_on_files(alveole, someone, name, tmp_path)
    use_the_console(alveole, someone, name)
    someone.go("/account")
    page.click("#keys ~ details summary")
    page.fill("#f-key", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + ("IIiyuBLDGW4uhJ3HQYx36mFc0y8hOgOrLaP4UEcrPSGv"))
    page.fill("#f-key_name", "laptop")
    someone.look("account")
    # New content, and back.
    someone.go(f"/site/{name}/content")
    (folder / "index.html").write_text("<h1>Second</h1>")
    page.set_input_files("#folder", str(folder))
    page.wait_for_selector("input[name=upload]:not([value=''])", state="attached")
    page.fill("#f-note", "the second")
    page.click("main form[data-upload] button.btn-primary")
    someone.ended()
    assert alveole.fetch(f"{name}.localhost").body == "<h1>Second</h1>"
    someone.go(f"/site/{name}/content")
    someone.look("releases")
    page.click("form:has(input[name=release]) button")
    someone.ended()
    assert "by hand" in alveole.fetch(f"{name}.localhost").body
    # Settings: the difference is shown before it is made.
    someone.go(f"/site/{name}/settings")
    page.fill("#f-env", "GREETING=hello")
    page.click("form[action*='/settings'] button[value=preview]")
    page.wait_for_selector("pre .add")
    someone.look("difference")
    page.click("form[action*='/settings'] button[value=apply]")
    someone.ended()
    # A domain waits for its proof.
    someone.go(f"/site/{name}/settings")
    page.fill("#domain", f"www.{name}.example.org")
    page.click("form[action*='/domains'] button[value=add]")
    page.wait_for_selector("dl.record")
    someone.look("site-domains")
    # Destroying asks for the name.
    someone.go(f"/site/{name}/destroy")
    page.click("main form button")
    page.wait_for_url("**/destroy")
    for _ in range(60):
        # It says that it still stops until it has.
        if page.locator("#f-confirm").count() and alveole.site(name)["state"] == "stopped":
            break
        page.wait_for_timeout(500)
        someone.go(f"/site/{name}/destroy")
    page.fill("#f-confirm", "another")
    page.click("main button.btn-danger")
    page.wait_for_selector("#e-confirm")
    someone.look("destroy-refused")
    page.fill("#f-confirm", name)
    page.click("main button.btn-danger")
    someone.ended()
    assert alveole.fetch(f"{name}.localhost").status == 404
    someone.close()


def work_on_files(alveole: Instance, someone: Person, name: str, tmp_path: Path) -> None:
    """The file manager: edit, send several, move, delete, publish what was changed with one click."""
    page = someone.page
    someone.go(f"/site/{name}/files")
    page.click("table.files a[href*='index.html']")
    page.wait_for_selector("#f-text")
    assert page.input_value("#f-text") == "<h1>The club</h1>"
    page.fill("#f-text", "<h1>Edited</h1>\n<p>by hand</p>\n")
    someone.look("site-edit")
    page.click("main form[action*='/edit'] button.btn-primary")
    page.wait_for_selector("#said .alert-success")
    for word in ("one", "two"):
        (tmp_path / f"{word}.txt").write_text(word)
    someone.go(f"/site/{name}/files")
    page.set_input_files("#file", [str(tmp_path / "one.txt"), str(tmp_path / "two.txt")])
    page.wait_for_selector("#said .alert-success")
    page.check("input[value='two.txt']")
    page.fill("#f-to", "more/three.txt")
    someone.look("site-files")
    page.click("button[value=rename]")
    page.wait_for_selector("#said .alert-success")
    page.check("input[value='one.txt']")
    page.click("button[value=delete]")
    page.wait_for_selector("#said .alert-success")
    assert page.locator("input[value='one.txt']").count() == 0
    assert alveole.fetch(f"{name}.localhost").body == "<h1>The club</h1>", "nobody is served from the working copy"
    page.click("form[action*='/work/publish'] button.btn-primary")
    someone.ended()
    assert "by hand" in alveole.fetch(f"{name}.localhost").body
    assert alveole.fetch(f"{name}.localhost", "/more/three.txt").body == "two"


def use_the_console(alveole: Instance, someone: Person, name: str) -> None:
    """Typed and read like any terminal, with colours under the page's policy, and left with the keyboard."""
    page = someone.page
    someone.go(f"/site/{name}/console")
    page.wait_for_selector(".xterm-rows")
    page.wait_for_selector(".xterm-helper-textarea:focus", state="attached")
    page.keyboard.type("printf '\\033[38;2;250;120;10m%s\\033[0m\\n' $((40+2))-ok\n")
    page.wait_for_selector(".xterm-rows >> text=42-ok")
    coloured = "[...document.querySelectorAll('.xterm-rows span')].find((each) => each.textContent.includes('42-ok'))"
    assert page.evaluate(f"getComputedStyle({coloured}).color") == "rgb(250, 120, 10)"
    someone.look("site-console")
    page.keyboard.press("Shift+F6")
    assert page.evaluate("document.activeElement.id") == "console-end"
    page.keyboard.press("Enter")
    page.wait_for_selector("#console-again:not([hidden])")
    told = next(each for each in alveole.journal(site=name) if each["verb"] == "console")
    assert told["actor"] == "ana" and told["via"].startswith("session:")


def test_a_site_cannot_toss_a_cookie_at_the_panel(alveole: Instance, browser: Any, axe: str) -> None:
    """Threat 22: what a sibling name sets for the whole domain is no session here, and ends none."""
    someone = Person(browser, alveole, axe, language="en-US", width=1600)
    someone.sign_in("ana")
    someone.context.add_cookies([{"name": "__Host-alveole2", "value": "als_x", "url": someone.base, "secure": True}])
    someone.go("/sites")
    assert someone.page.locator("#name").count() == 0
    someone.close()
