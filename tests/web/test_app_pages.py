"""The pages of applications: every step of a version by buttons, for who may, in both languages."""

from __future__ import annotations

import re

import httpx
import pytest
from doorkit import Door, until
from peoplekit import add
from test_pages import check
from webkit import Found, Visitor

from alveole.people.model import Role


def ended(visitor: Visitor) -> None:
    assert visitor.at.startswith("/change/"), visitor.at
    path = visitor.at
    until(lambda: 'class="state state-done"' in visitor.ask("GET", path).text)


def make(door: Door, name: str = "shop", owner: str = "ana", **more: object) -> None:
    body = {"name": name, "owner": owner, "environments": ["alpha", "prod"], "command": ["serve"], "port": 8000, **more}
    change = door.http.post("/v1/apps", json=body)
    assert change.status_code == 202, change.text
    until(lambda: door.http.get(f"/v1/changes/{change.json()['id']}").json()["state"] == "done")


def row(page: Found, environment: str) -> str:
    """The text of an environment's row, after the name of its site."""
    found = re.search(rf"{environment} [a-z-]+ (.*?)(?=(?:ALPHA|PROD|Versions|History) )", page.text)
    assert found is not None, page.text
    return found[1]


def send(visitor: Visitor, version: str, note: str = "") -> None:
    upload = visitor.ask("POST", "/v1/uploads", content=version.encode(), headers=csrf(visitor)).json()["id"]
    visitor.get("/app/shop")
    visitor.submit("/app/shop/send", version=version, note=note, upload=upload)
    ended(visitor)


def csrf(visitor: Visitor) -> dict[str, str]:
    page = visitor.get("/apps")
    return {"X-CSRF-Token": next(values["data-csrf"] for tag, values in page.tags if tag == "body")}


def test_a_version_goes_to_prod_and_back_by_buttons(door: Door) -> None:
    """S1-S5 and S8, without a script."""
    add(door, "ana")
    make(door)
    with Visitor(door) as ana:
        ana.sign_in("ana")
        page = ana.get("/apps")
        assert "shop" in page.text and "ALPHA" in page.text
        for number in ("1.0", "2.0"):
            send(ana, number, "What is new")
            page = ana.get("/app/shop")
            assert "waits" in page.text and f"Deliver {number}" not in page.text
            page = ana.submit(f"/app/shop/version/{number}", ("do", "accept"))
            assert "accepted" in page.text
            for environment in ("alpha", "prod"):
                page = ana.get("/app/shop")
                assert f"Deploy {number}" not in row(page, environment.upper())
                ana.submit(f"/app/shop/{environment}/deliver")
                ended(ana)
                page = ana.get("/app/shop")
                assert f"Deploy {number}" in row(page, environment.upper())
                ana.submit(f"/app/shop/{environment}/deploy")
                ended(ana)
        page = ana.get("/app/shop")
        assert "against 1.0" in page.text and "~content" in page.text
        ana.submit("/app/shop/prod/rollback", version="1.0")
        ended(ana)
        page = ana.get("/app/shop")
        assert row(page, "PROD").startswith("1.0") and "rolled back" in page.text
        # Twice the same, from a page that is old by now.
        page = ana.submit("/app/shop/prod/rollback", version="1.0")
        assert "is live in prod already" in page.text
        assert ana.ask("GET", "/app/shop", headers={"HX-Request": "true"}).status_code == 200
        digest = re.search(r"seen=(\w+)", ana.answer.text)
        assert digest is not None
        same = ana.ask("GET", f"/app/shop?seen={digest[1]}", headers={"HX-Request": "true"})
        assert same.status_code == 204, "what is as it was is not sent again"


@pytest.mark.parametrize("language", ["en", "fr"])
def test_the_pages_are_whole_and_show_what_one_may(door: Door, language: str) -> None:
    add(door, "ana")
    add(door, "rita", Role.READER)
    add(door, "bob")
    make(door, signers=["RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"])
    with Visitor(door, language) as ana:
        ana.sign_in("ana")
        for path in ("/apps", "/app/shop", "/admin/journal"):
            check(ana.get(path), ana)
        page = ana.get("/app/shop")
        assert any(values.get("name") == "signature" for _, values in page.tags)
    with Visitor(door, language) as rita:
        rita.sign_in("rita")
        forms = [form["action"] for form in rita.get("/app/shop").forms]
        assert not [action for action in forms if action.startswith("/app/")]
    with Visitor(door, language) as bob:
        bob.sign_in("bob")
        assert "shop" not in bob.get("/apps").text
        assert bob.ask("GET", "/app/shop").status_code == 404


def test_each_page_says_what_comes_next(door: Door) -> None:
    """From what was sent to who is at work: no page ends without a way on, and nothing typed is lost."""
    add(door, "ana")
    add(door, "bob")
    make(door)
    door.http.patch("/v1/apps/shop/environments/prod", json={"approvals": 1})
    with Visitor(door) as ana:
        ana.sign_in("ana")
        page = ana.get("/app/shop")
        assert "sftp -P" in page.text and "ana+shop.incoming@" in page.text
        page = ana.submit("/app/shop/send", expect=422, version="1.0", note="What is new", upload="")
        assert "choose a file first" in page.text.lower()
        typed = {values.get("name"): values.get("value") for _, values in page.tags}
        assert typed["version"] == "1.0" and "What is new" in page.text
        for number in ("1.0", "2.0"):
            send(ana, number)
        assert any(values.get("href") == "/app/shop" for tag, values in ana.get(ana.at).tags if tag == "a")
        ana.get("/app/shop")
        page = ana.submit("/app/shop/version/2.0", ("do", "refuse"), reason="The basket is broken")
        assert "2.0 is refused." in page.text and "The basket is broken" in page.text
        page = ana.submit("/app/shop/version/1.0", ("do", "accept"))
        assert "1.0 is accepted and can be delivered." in page.text
        for environment in ("alpha", "prod"):
            ana.get("/app/shop")
            ana.submit(f"/app/shop/{environment}/deliver")
            ended(ana)
            page = ana.get(ana.at)
            assert f"Next: make 1.0 live in {environment.upper()}" in page.text
            assert any(values.get("href") == f"/environment/shop/{environment}" for _, values in page.tags)
            if environment == "alpha":
                ana.get("/app/shop")
                ana.submit("/app/shop/alpha/deploy")
                ended(ana)
        ana.get("/app/shop")
        page = ana.submit("/app/shop/prod/approve")
        assert "You approve 1.0 in PROD. Somebody else deploys it." in page.text
        assert "1 of 1 approvals (ana)" in page.text
        assert not [form for form in page.forms if form["action"].endswith("/approve")], "once is enough"
        page = ana.submit("/app/shop/prod/deploy")
        assert "0 of 1 approvals by others are there" in page.text and "alveole app" not in page.text


def test_data_come_over_by_buttons(door: Door) -> None:
    """A preview first; the name of what is replaced has to be typed; rules for personal data are kept."""
    add(door, "ana")
    make(door, volumes=[{"name": "data", "path": "/data"}])
    with Visitor(door) as ana:
        ana.sign_in("ana")
        send(ana, "1.0")
        ana.get("/app/shop")
        ana.submit("/app/shop/version/1.0", ("do", "accept"))
        for environment in ("alpha", "prod"):
            for step in ("deliver", "deploy"):
                ana.get("/app/shop")
                ana.submit(f"/app/shop/{environment}/{step}")
                ended(ana)
        ana.get("/app/shop")
        page = ana.submit("/app/shop/masks", masks="data/*.pdf=removed\nnonsense")
        assert "is no rule for masking" in page.text
        page = ana.submit("/app/shop/masks", masks="data/*.pdf=removed")
        assert "The rules are kept." in page.text
        page = ana.get("/app/shop/prod/synchronise?source=alpha&data=yes")
        assert "data/*.pdf=removed" in page.text and "is saved first" in page.text
        check(page, ana)
        page = ana.submit("/app/shop/prod/synchronise", confirm="alpha")
        assert "is not the environment whose data are replaced" in page.text
        assert "is saved first" in page.text, "and the preview is there again"
        ana.get("/app/shop/prod/synchronise?source=alpha&data=yes")
        ana.submit("/app/shop/prod/synchronise", confirm="prod")
        ended(ana)
        page = ana.get("/app/shop/prod/synchronise?source=prod&data=yes")
        assert "cannot be given what it has itself" in page.text


def test_an_application_is_made_in_the_pages(door: Door) -> None:
    """Environments in the order and with the plans that were asked for, after what would be made was shown."""
    add(door, "ana")
    with Visitor(door) as ana:
        ana.sign_in("ana")

        def form() -> list[tuple[str, str]]:
            fields: list[tuple[str, str]] = next(each for each in ana.page.forms if each["action"] == "/new/app")[
                "fields"
            ]
            return fields

        def names() -> list[str]:
            return [value for key, value in form() if key == "env"]

        def send(act: str, plans: tuple[str, ...] = (), **more: str) -> Found:
            left = list(plans)
            pairs = [
                (key, more.get(key, left.pop(0) if key == "env_plan" and left else value)) for key, value in form()
            ]
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            ana.ask("POST", "/new/app", content=str(httpx.QueryParams([*pairs, ("do", act)])), headers=headers)
            return ana.page

        ana.get("/new/app")
        assert names() == ["alpha", "preprod", "demo", "prod"]
        send("drop-2")
        send("down-1")
        send("ask", more="static")
        assert names() == ["alpha", "prod", "preprod"] and ("m", "static") in form()
        page = send("preview", name="Not A Name")
        assert ana.answer.status_code == 422 and "Not A Name" in ana.answer.text
        send("up-2", name="shop")
        page = send("preview", ("", "", "medium"))
        assert "This would be made" in page.text and "shop-preprod" in page.text and "medium" in page.text
        assert door.http.get("/v1/apps").json() == [], "nothing is done yet"
        send("create")
        ended(ana)
        found = door.http.get("/v1/apps/shop").json()["environments"]
        assert [each["name"] for each in found] == ["alpha", "preprod", "prod"]
        plans = {each["name"]: door.http.get(f"/v1/sites/{each['site']}").json()["plan"] for each in found}
        assert plans == {"alpha": "small", "preprod": "small", "prod": "medium"}
        ana.get("/app/shop")
        ana.submit("/app/shop/environments", environment="demo", before="prod", like="alpha")
        ended(ana)
        found = door.http.get("/v1/apps/shop").json()["environments"]
        assert [each["name"] for each in found] == ["alpha", "preprod", "demo", "prod"]


def test_a_site_becomes_an_application(door: Door) -> None:
    add(door, "ana")
    door.site("blog", owner="ana")
    with Visitor(door) as ana:
        ana.sign_in("ana")
        ana.get("/site/blog/application")
        ana.submit("/site/blog/application", expect=422, name="blog", environment="Not One")
        assert "Not One" in ana.answer.text, "what was typed is kept"
        ana.submit("/site/blog/application", name="blog", environment="prod")
        ended(ana)
        page = ana.get("/app/blog")
        assert "initial" in page.text and "PROD" in page.text
        assert "It is an environment already" in ana.get("/site/blog/application").text


def test_an_environment_asks_for_more_and_is_passed_with_a_reason(door: Door) -> None:
    """What an environment asks for, what speaks against a deploy, passing it, and what a roll back brings: by forms."""
    add(door, "ana")
    add(door, "ada", Role.ADMIN)
    make(door, "kiosk")
    with Visitor(door, "fr") as ana:
        ana.sign_in("ana")
        upload = ana.ask("POST", "/v1/uploads", content=b"1.0", headers=csrf(ana)).json()["id"]
        ana.get("/app/kiosk")
        ana.submit("/app/kiosk/send", version="1.0", upload=upload)
        ended(ana)
        ana.get("/app/kiosk")
        ana.submit("/app/kiosk/version/1.0", ("do", "accept"))
        check(ana.get("/environment/kiosk/prod"), ana)
        page = ana.submit("/environment/kiosk/prod", expect=422, soak="soon", windows="never", approvals="1")
        assert "soon" in ana.answer.text and "never" in ana.answer.text, "what was typed is kept"
        ana.get("/environment/kiosk/prod")
        page = ana.submit("/environment/kiosk/prod", soak="12h", approvals="1", before="/bin/migrate 'a b'")
        policy = door.http.get("/v1/apps/kiosk").json()["environments"][1]["policy"]
        assert (policy["soak_seconds"], policy["approvals"], policy["before"]) == (43200, 1, ["/bin/migrate", "a b"])
        page = ana.submit("/environment/kiosk/prod/deliver", expect=409, version="1.0")
        assert "a pas tourné dans ALPHA" in page.text and "Raison" not in page.text, "passing is not theirs"
        check(ana.get("/app/kiosk/settings"), ana)
        page = ana.submit("/app/kiosk/settings", expect=422, accept="at-once", signer="no key")
        assert "no key" in ana.answer.text
        ana.get("/app/kiosk/settings")
        ana.submit("/app/kiosk/settings", accept="at-once")
        assert door.http.get("/v1/apps/kiosk").json()["accept"] == "at-once"
    with Visitor(door) as ada:
        ada.sign_in("ada")
        ada.get("/environment/kiosk/prod")
        ada.submit("/environment/kiosk/prod/deliver", version="1.0", reason="agreed with Ana")
        ended(ada)
        page = ada.get("/environment/kiosk/prod")
        assert "This speaks against it now:" in page.text and "0 of 1 approvals by others" in page.text
        assert "run inside" not in page.text, "nothing runs there that a program could be run in"
        ada.submit("/environment/kiosk/prod/deploy", reason="agreed with Ana")
        ended(ada)
        told = [each["reason"] for each in door.http.get("/v1/changes?site=kiosk-prod").json()]
        assert "1.0: agreed with Ana" in told
        assert "No other version was live here yet." in ada.get("/environment/kiosk/prod").text
        assert ada.ask("GET", "/environment/kiosk/none").status_code == 404


def test_versions_are_compared_forgotten_and_the_application_is_taken_apart(door: Door) -> None:
    add(door, "ana")
    add(door, "bob")
    make(door, "atlas", environments=["alpha"], accept="at-once")
    with Visitor(door) as ana:
        ana.sign_in("ana")
        for version in ("1.0", "2.0", "3.0"):
            upload = ana.ask("POST", "/v1/uploads", content=version.encode(), headers=csrf(ana)).json()["id"]
            ana.get("/app/atlas")
            ana.submit("/app/atlas/send", version=version, upload=upload)
            ended(ana)
            if version != "3.0":
                for step in ("deliver", "deploy"):
                    ana.get("/environment/atlas/alpha")
                    ana.submit(f"/environment/atlas/alpha/{step}", version=version)
                    ended(ana)
        page = ana.get("/app/atlas/compare?one=1.0&other=2.0")
        check(page, ana)
        assert "~content" in page.text and "Configuration and answers · ALPHA" in page.text
        assert "No environment has had both" in ana.get("/app/atlas/compare?one=1.0&other=3.0").text
        answer = ana.ask("GET", "/app/atlas/compare?one=1.0&other=9.9")
        assert answer.status_code == 404 and "9.9" in answer.text
        page = ana.get("/environment/atlas/alpha?to=1.0")
        assert "Configuration and answers are the same." in page.text
        check(page, ana)
        ana.submit("/environment/atlas/alpha/rollback", reason="slower")
        ended(ana)
        assert row(ana.get("/app/atlas"), "ALPHA").startswith("1.0")
        page = ana.submit("/app/atlas/version/3.0/forget")
        assert "Version 3.0 is forgotten." in page.text
        ana.get("/app/atlas/settings")
        page = ana.submit("/app/atlas/destroy", expect=422, confirm="atlass")
        assert "atlass" in ana.answer.text
        ana.submit("/app/atlas/destroy", confirm="atlas")
        ended(ana)
    assert door.http.get("/v1/apps/atlas").status_code == 404
