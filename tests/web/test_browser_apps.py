"""The pages of applications in a real browser: narrow and wide, both languages; axe looks at each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browserkit import Person

from instance import Instance
from instancekit import page as content

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
    page.click("form[action$='/alpha/rollback'] button")
    someone.ended()
    assert "<h1>2.0</h1>" in alveole.fetch(f"{name}-alpha").body
    someone.close()
