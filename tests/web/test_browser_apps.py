"""The pages of applications in a real browser: narrow and wide, both languages; axe looks at each."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import playwright.sync_api as playwright_api
import pytest
from browserkit import Person

from instance import Instance
from instancekit import page as content
from instancekit import until

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.mark.parametrize(("language", "width"), [("fr-FR", 375)])
def test_a_version_from_a_drop_to_live(
    alveole: Instance, browser: Any, axe: str, tmp_path: Path, language: str, width: int
) -> None:
    name = f"shop-{width}"
    made = {"name": name, "owner": "ana", "environments": ["alpha", "prod"], "accept": "at-once"}
    alveole.ended(alveole.api("POST", "/v1/apps", made)["id"], good=True)
    for version in ("1.0", "2.0"):
        sent = {"version": version, "upload": alveole.upload(content(version)), "note": "What is new " * 8}
        alveole.ended(alveole.api("POST", f"/v1/apps/{name}/versions", sent)["id"], good=True)
        for verb, body in (("deliver", {"version": version}), ("deploy", {})):
            path = f"/v1/apps/{name}/environments/alpha/{verb}"
            alveole.ended(alveole.api("POST", path, body)["id"], good=True)
    alveole.api("PATCH", f"/v1/apps/{name}", {"accept": "wait"})
    someone = Person(browser, alveole, axe, language=language, width=width, dark=width > 1000)
    page = someone.page
    someone.sign_in("ana")
    someone.go("/apps")
    someone.look("apps")
    someone.go(f"/app/{name}")
    someone.look("app")
    (tmp_path / "index.html").write_text("<h1>3.0</h1>")
    page.set_input_files("#file", str(tmp_path / "index.html"))
    page.wait_for_selector("input[name=upload]:not([value=''])", state="attached")
    page.fill("#f-version", "3.0")
    page.click("main form[data-upload] button.btn-primary")
    someone.ended()
    someone.go(f"/app/{name}")
    page.click("button[name=do][value=accept]")
    for verb in ("deliver", "deploy"):
        page.wait_for_selector(f"form[action$='/alpha/{verb}'] button")
        page.click(f"form[action$='/alpha/{verb}'] button")
        someone.ended()
        someone.go(f"/app/{name}")
    someone.look("app-live")
    assert alveole.fetch(f"{name}-alpha").body == "<h1>3.0</h1>"
    someone.go(f"/app/{name}/compare?one=2.0&other=3.0")
    someone.look("app-compare")
    someone.go(f"/app/{name}/settings")
    someone.look("app-settings")
    someone.go(f"/environment/{name}/alpha?to=2.0")
    someone.look("environment")
    page.click("form[action$='/alpha/rollback'] button")
    someone.ended()
    assert "<h1>2.0</h1>" in alveole.fetch(f"{name}-alpha").body
    someone.close()


@pytest.mark.parametrize(("language", "width"), [pytest.param("en-US", 1600, marks=pytest.mark.turn), ("fr-FR", 375)])
def test_checks_channels_operations_and_a_new_application(
    alveole: Instance, browser: Any, axe: str, language: str, width: int
) -> None:
    name = f"tools-{width}"
    serve = ["/usr/bin/python3", "-m", "http.server", "8000", "--directory", "/usr/share/zoneinfo"]
    processes = [{"name": "web", "argv": serve}, {"name": "worker", "argv": ["/usr/bin/sleep", "infinity"]}]
    made = {"name": name, "owner": "ana", "processes": processes, "port": 8000}
    alveole.ended(alveole.api("POST", "/v1/sites", made)["id"], good=True)
    someone = Person(browser, alveole, axe, language=language, width=width, dark=width < 1000)
    page = someone.page
    someone.sign_in("ana")

    someone.go(f"/site/{name}/checks")
    someone.look("checks-none")
    page.click("#record")
    page.wait_for_selector("form[action$='/checks/recording']")
    someone.look("recording")
    visit = someone.context.new_page()
    # The proxy's line is read a moment later, and Chromium gives up when an interface of the machine comes or goes.
    for _ in range(15):
        with contextlib.suppress(playwright_api.Error):
            visit.goto(alveole.site(name)["urls"][0])
        try:
            with page.expect_navigation():
                page.click("main form button.btn-primary")
        except playwright_api.Error:
            someone.go(f"/site/{name}/checks/recording")
        if page.query_selector("#f-text"):
            break
    visit.close()
    page.wait_for_selector("#f-text")
    assert "GET /" in page.input_value("#f-text"), page.inner_text("main")
    someone.look("recorded")
    someone.go(f"/site/{name}/checks")
    page.click("#new-check")
    page.fill("#f-name", "front")
    page.fill("#f-text", "every: 1h\nsteps:\n  - {name: the list, request: GET /, expext: {}}")
    page.click("button[name=do][value=keep]")
    page.wait_for_selector("#e-text")
    someone.look("check-wrong")
    page.fill("#f-text", "every: 1h\nsteps:\n  - {name: the list, request: GET /, expect: {text: [Europe, Nowhere]}}")
    page.click("button[name=do][value=try]")
    page.wait_for_selector("#going .state-broken", timeout=60_000)
    page.click("button[name=do][value=keep]")
    page.wait_for_url("**/check/front")
    page.click("form[action$='/checks/run'] button")
    page.wait_for_selector("#going .state-broken", timeout=60_000)
    page.click("#going summary")
    someone.look("check-run")
    someone.go(f"/site/{name}/check/front")
    someone.look("check")
    someone.go(f"/site/{name}/checks")
    someone.look("checks")

    someone.go("/channels")
    page.fill("#f-name", f"reader-{width}")
    page.check("#k-feed")
    page.click("form[action='/channels'] button.btn-primary")
    page.wait_for_selector("#secret")
    someone.look("channels")
    page.click(f"text=reader-{width}")
    someone.look("channel")

    declared = {"argv": ["/usr/bin/ls", "-l", "${folder}"], "title": "List a folder", "description": "What is in it."}
    declared["arguments"] = [{"name": "folder", "type": "path", "title": "Folder", "default": "/site"}]
    alveole.api("PUT", f"/v1/sites/{name}/operations/list", declared)
    waits = {"argv": ["/usr/bin/sleep", "600"], "title": "Wait", "least": "own"}
    alveole.api("PUT", f"/v1/sites/{name}/operations/wait", waits)
    someone.go(f"/site/{name}/operations")
    page.wait_for_selector("#programs td >> text=sleep")
    someone.look("operations")
    page.click("form[action$='/operations/run/list'] button")
    page.wait_for_selector("#run-of .state-done", timeout=60_000)
    assert "total" in page.inner_text("#run-of pre")
    someone.look("operation-run")
    someone.go(f"/site/{name}/operations")
    page.click("form[action$='/operations/run/wait'] button")
    page.wait_for_selector("#end-run")
    page.click("#end-run")
    page.wait_for_selector("#run-of .state-failed", timeout=60_000)
    programs = alveole.api("GET", f"/v1/sites/{name}/programs")["programs"]
    assert not [each for each in programs if each["command"] == "/usr/bin/sleep 600"], "it was ended inside too"
    (worker,) = [each for each in programs if each["command"] == "/usr/bin/sleep infinity"]
    assert worker["user"] == "site" and worker["pid"] > 1 and worker["memory_bytes"] > 0
    someone.go(f"/site/{name}/operations")
    page.click(f"form:has(input[name=pid][value='{worker['pid']}']) button[value=KILL]")
    page.wait_for_selector("#said .alert-success")

    def again() -> bool:
        found = alveole.api("GET", f"/v1/sites/{name}/programs")["programs"]
        new = [each for each in found if each["command"] == worker["command"]]
        return bool(new) and (new[0]["pid"], new[0]["started"]) != (worker["pid"], worker["started"])

    until(again, 60)
    page.select_option("#f-process", "worker")
    page.click("form[action$='/operations/restart'] button")
    someone.ended()

    someone.go("/new/app")
    page.fill("#f-name", f"new-{width}")
    page.click("button[value=drop-1]")
    page.wait_for_function("document.querySelectorAll('input[name=env]').length === 3")
    page.click("button[value=preview]:not(.visually-hidden)")
    page.wait_for_selector("#would")
    someone.look("new-app")
    page.click("button[value=create]")
    someone.ended()
    someone.go(f"/app/new-{width}")
    someone.look("app-new")
    someone.close()
