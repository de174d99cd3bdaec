"""The stories of people whose browser runs no script, and what the pages refuse."""

from __future__ import annotations

import io
import re
import tarfile
import time
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from doorkit import ROOT, Door, until
from peoplekit import PASSWORD, Browser, add
from webkit import HTML, Visitor

from alveole.people.model import Role
from alveole.remote.fleet import Node
from alveole.remote.passport import EMPTY_KEY

LONG = "another long sentence"


def ended(visitor: Visitor) -> None:
    """Wait at a change's page until it is over, as the page's refresh does."""
    assert visitor.at.startswith("/change/"), visitor.at
    path = visitor.at
    until(lambda: 'class="state state-done"' in visitor.ask("GET", path).text)


def archive(text: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        info = tarfile.TarInfo("index.html")
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


def test_the_first_administrator_lets_an_owner_in(door: Door) -> None:
    token = door.services.first_token(ROOT).token
    with Visitor(door) as ada, Visitor(door, "fr") as ana:
        ada.get("/admin/accounts")
        assert ada.at == "/sign-in?next=%2Fadmin%2Faccounts"
        ada.get("/welcome")
        page = ada.submit("/welcome", expect=422, token=token, name="ada", password=LONG, again="not the same")
        assert "Is not the same password" in page.text
        assert ("name", "ada") in page.forms[0]["fields"]
        ada.submit("/welcome", password=LONG, again=LONG)
        assert ada.at == "/sites"
        ada.get("/admin/accounts")
        page = ada.submit("/admin/accounts", name="ana", title="Ana Lopez", role="owner")
        invitation = next(text for text in page.texts if text.startswith("ali_"))
        ana.get("/welcome")
        page = ana.submit("/welcome", token=invitation, password=LONG, again=LONG)
        assert ana.at == "/sites" and "Mes sites" in page.text


def test_signing_in_leads_back_and_nowhere_else(door: Door) -> None:
    add(door, "ana")
    with Visitor(door) as ana:
        ana.ask("GET", "/account?x=1")
        assert ana.at == "/sign-in?next=%2Faccount%3Fx%3D1"
        page = ana.submit("/sign-in", expect=401, name="ana", password="wrong")
        assert ("name", "ana") in page.forms[0]["fields"] and "The name or the password is wrong" in page.text
        ana.submit("/sign-in", name="ana", password=PASSWORD)
        assert ana.at == "/account?x=1"
        ana.submit("/sign-out")
        assert ana.at == "/sign-in" and "You are signed out." in ana.page.text
        assert "__Host-alveole" not in ana.cookies
        for elsewhere in ("https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)"):
            ana.get(f"/sign-in?next={quote(elsewhere, safe='')}")
            assert ("next", "/") in ana.page.forms[0]["fields"], elsewhere


def test_a_program_is_answered_with_a_document(door: Door) -> None:
    with door.tcp() as http:
        assert http.get("/sites").status_code == 401
        assert (
            http.get("/sites", headers={"Accept": "application/json"})
            .headers["content-type"]
            .startswith("application/problem+json")
        )
        assert http.get("/v1/sites", headers={"Accept": HTML}).status_code == 401
        part = http.get("/sites", headers={"HX-Request": "true", "HX-Current-URL": "https://x.example/sites?q=a"})
        assert part.status_code == 401 and part.headers["hx-redirect"] == "/sign-in?next=%2Fsites%3Fq%3Da"


def test_a_site_from_an_archive_and_its_end(door: Door) -> None:
    add(door, "ana")
    with Visitor(door) as ana:
        ana.sign_in("ana")
        ana.get("/new/files")
        form = next(each for each in ana.page.forms if each["multipart"])
        fields = dict(form["fields"]) | {"name": "blog", "do": "create"}
        sent = ana.ask("POST", form["action"], data=fields, files={"file": ("a.tar.gz", archive("one"))})
        assert sent.status_code == 200, sent.text
        ended(ana)
        # Stopped, and it says so.
        ana.get("/sites")
        ana.submit("/site/blog/stop")
        assert ana.at == "/sites" and "blog is stopping." in ana.page.text
        until(lambda: "state-stopped" in ana.ask("GET", "/sites").text)
        page = ana.get("/site/blog/destroy")
        page = ana.submit("/site/blog/destroy", expect=422, confirm="blok")
        assert "'blok' is not the site's name" in page.text
        ana.submit("/site/blog/destroy", confirm="blog")
        ended(ana)
        assert ana.ask("GET", "/site/blog").status_code == 404


def test_a_refused_form_keeps_what_was_typed(door: Door) -> None:
    add(door, "ana")
    with Visitor(door) as ana:
        ana.sign_in("ana")
        ana.get("/new/module?m=wordpress")
        page = ana.submit(
            "/new/module",
            ("do", "create"),
            expect=422,
            **{"name": "Not A Name", "a.wordpress.mail": "no mail", "a.wordpress.password": "a long password"},
        )
        fields = next(each["fields"] for each in page.forms if each["action"] == "/new/module")
        assert ("name", "Not A Name") in fields and ("a.wordpress.mail", "no mail") in fields
        assert ("a.wordpress.password", "a long password") in fields
        wrong = {values.get("id") for _, values in page.tags if values.get("aria-invalid") == "true"}
        assert {"f-name", "q-wordpress-mail"} <= wrong


def test_the_answers_that_were_not_touched_are_not_given(door: Door) -> None:
    """A default that hangs on the name must go on to hang on it."""
    add(door, "ana")
    with Visitor(door) as ana:
        ana.sign_in("ana")
        ana.get("/new/module?m=wordpress")
        page = ana.submit("/new/module", ("do", "preview"), name="chess-club")
        assert "This would happen" in page.text
        ana.submit("/new/module", ("do", "create"))
        site = door.services.store.site("chess-club")
        assert site is not None and site.site.application is not None
        assert site.site.application.given == {}
        assert site.site.application.answers["wordpress"]["title"] == "Chess Club"
    with Visitor(door, "fr") as ana:
        ana.sign_in("ana")
        ana.get("/new/module?m=wordpress")
        ana.submit("/new/module", ("do", "create"), name="club-d-echecs")
        site = door.services.store.site("club-d-echecs")
        assert site is not None and site.site.application is not None
        # Whoever reads French wants a site in French, and sees that before it is made.
        assert site.site.application.given == {"wordpress": ("language",)}
        assert site.site.application.answers["wordpress"]["language"] == "fr_FR"


def test_an_owner_claims_a_domain(door: Door) -> None:
    """Threat 27: the page shows the record that proves it; nothing else of the settings changes meanwhile."""
    add(door, "ana")
    door.site("blog", owner="ana")
    with Visitor(door) as ana:
        ana.sign_in("ana")
        ana.get("/site/blog/settings")
        page = ana.submit("/site/blog/domains", ("do", "add"), domain="no domain", expect=422)
        assert "is not a domain name" in page.text
        page = ana.submit("/site/blog/domains", ("do", "add"), domain="www.Example.org.")
        assert "_alveole-challenge.www.example.org" in page.text and "waits for its proof" in page.text
        page = ana.submit("/site/blog/settings", ("do", "preview"), env="A=1")
        assert "domains:" not in page.text
        stored = door.services.store.site("blog")
        assert stored is not None and stored.site.domains == ()


def test_settings_show_the_difference_first(door: Door) -> None:
    add(door, "ana")
    door.site("blog", owner="ana")
    with Visitor(door) as ana:
        ana.sign_in("ana")
        ana.get("/site/blog/settings")
        page = ana.submit("/site/blog/settings", ("do", "preview"), env="A=1\nB=2", https_only="yes")
        assert "+ env: A=1" in page.text and door.services.store.site("blog").site.env == {}
        ana.submit("/site/blog/settings", ("do", "apply"))
        ended(ana)
        found = door.services.store.site("blog")
        assert found is not None and found.site.env == {"A": "1", "B": "2"} and found.site.https_only
        ana.get("/site/blog/settings")
        ana.submit("/site/blog/settings", ("do", "apply"), env="B=3")
        ended(ana)
        found = door.services.store.site("blog")
        assert found is not None and found.site.env == {"B": "3"} and found.site.https_only


@pytest.mark.parametrize("name", ["rita", "zoe", "ana"])
def test_pages_show_what_somebody_may_do_and_no_more(door: Door, name: str) -> None:
    """Threat 24: a foreign site is as one that is not there, and a page offers nothing that would be refused."""
    for each, role in (("ana", Role.OWNER), ("zoe", Role.OWNER), ("rita", Role.READER)):
        add(door, each, role)
    door.site("blog", owner="ana")
    with Visitor(door) as visitor:
        visitor.sign_in(name)
        listed = "blog" in visitor.get("/sites").text
        assert listed == (name != "zoe")
        acts = {form["action"] for form in visitor.page.forms}
        assert any("/stop" in each for each in acts) == (name == "ana")
        expected = {"ana": 200, "rita": 403, "zoe": 404}[name]
        for path in ("settings", "logs", "destroy"):
            assert visitor.ask("GET", f"/site/blog/{path}").status_code == expected, path
        assert visitor.ask("GET", "/site/blog").status_code == (404 if name == "zoe" else 200)
        assert visitor.ask("GET", "/admin/accounts").status_code == 403
        assert not any("/admin/teams" in form["action"] for form in visitor.get("/admin/teams").forms)
        assert visitor.ask("GET", "/admin/machine").status_code == (200 if name == "rita" else 403)


def test_a_form_of_elsewhere_does_nothing(door: Door) -> None:
    """Threat 23: without the token, from another origin, or with another session's token."""
    add(door, "ana")
    door.site("blog", owner="ana")
    with Visitor(door) as ana, Browser(door) as other:
        ana.sign_in("ana")
        other.sign_in("ana")
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        for headers, body in (
            (form, ""),
            (form, f"csrf={other.csrf}"),
            ({**form, "Origin": "https://blog.localhost"}, ""),
            ({**form, "Origin": "null"}, ""),
            ({**form, "Sec-Fetch-Site": "same-site"}, ""),
        ):
            answer = ana.ask("POST", "/site/blog/stop", headers=headers, content=body)
            assert answer.status_code == 403, (headers, body)
            assert answer.headers["content-type"].startswith("text/html")
        assert door.http.get("/v1/sites/blog").json()["wanted"] == "running"


def test_what_a_site_is_called_and_prints_is_text(door: Door) -> None:
    """Threat 31: nothing that came from outside is markup in a page."""
    add(door, "ada", Role.ADMIN)
    door.site("blog", env={"X": "<script>alert(1)</script>"}, note="<img src=x onerror=alert(1)>")
    with Visitor(door) as ada:
        ada.sign_in("ada")
        for path in ("/site/blog/settings", "/site/blog/content", "/sites?q=%3Cscript%3E", "/site/%3Cscript%3E"):
            text = ada.ask("GET", path).text
            assert "<script>" not in text and "<img src=x" not in text, path


def test_static_files_are_kept_for_ever(door: Door) -> None:
    with door.tcp() as http:
        page = http.get("/sign-in", headers={"Accept": HTML}).text
        paths = [part.partition('"')[0] for part in page.split('="')[1:] if part.startswith("/static/")]
        assert len(paths) >= 5
        for path in paths:
            answer = http.get(path)
            assert answer.status_code == 200 and "immutable" in answer.headers["cache-control"], path
            assert answer.headers["content-encoding"] == "gzip"
        assert http.get("/static/0000000000000000/alveole.css").status_code == 404
        plain = http.get(paths[0], headers={"Accept-Encoding": "identity"})
        assert "content-encoding" not in plain.headers


def test_the_journal_as_a_table(door: Door) -> None:
    add(door, "ada", Role.ADMIN)
    door.site("blog")
    with Visitor(door) as ada:
        ada.sign_in("ada")
        answer: httpx.Response = ada.ask("GET", "/admin/journal.csv?site=blog")
        assert answer.headers["content-disposition"] == 'attachment; filename="journal.csv"'
        lines = answer.text.splitlines()
        assert lines[0].startswith("id,started,ended,site,verb") and ",blog,create,root," in lines[1]


def test_language_and_colours_stay(door: Door) -> None:
    with Visitor(door) as visitor:
        visitor.get("/sign-in")
        visitor.submit("/language", ("language", "fr"))
        assert "Se connecter" in visitor.page.text
        visitor.submit("/theme", ("theme", "dark"))
        assert ("html", "dark") in [(tag, values.get("data-bs-theme")) for tag, values in visitor.page.tags]
        assert "Se connecter" in visitor.page.text


def test_the_language_is_kept_in_the_account(door: Door) -> None:
    add(door, "ana")
    with Visitor(door) as ana, Visitor(door) as elsewhere:
        ana.sign_in("ana")
        ana.submit("/language", ("language", "fr"))
        assert "Mes sites" in ana.page.text
        elsewhere.sign_in("ana")
        assert "Mes sites" in elsewhere.page.text, "another browser, whose own language is English"
        elsewhere.submit("/sign-out")
        assert "Sign in" in elsewhere.page.text


def test_keys_for_ssh(door: Door) -> None:
    add(door, "ana")
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0Zb1kY5m4Fh3nqQ8mYk0X9y1b1mBdQm2l7h0w3c5Qe ana@laptop"
    with Visitor(door) as ana:
        ana.sign_in("ana")
        ana.get("/account")
        page = ana.submit("/account/keys", expect=422, key="-----BEGIN OPENSSH PRIVATE KEY-----")
        assert "private key" in page.text.lower()
        page = ana.submit("/account/keys", key=key)
        assert "ana@laptop" in page.text and "SHA256:" in page.text
        remove = next(form["action"] for form in page.forms if form["action"].endswith("/remove"))
        assert "ana@laptop" not in ana.submit(remove).text


def test_publishing_by_itself_is_a_setting(door: Door) -> None:
    add(door, "ana")
    door.site("blog", owner="ana")
    with Visitor(door) as ana:
        ana.sign_in("ana")
        ana.get("/site/blog/settings")
        ana.submit("/site/blog/settings", ("do", "apply"), on_files="live", on_push="wait")
        ended(ana)
        found = door.services.store.site("blog")
        assert found is not None and (found.site.on_files, found.site.on_push) == ("live", "wait")


def test_the_provider_is_tried_before_it_is_stored(door: Door) -> None:
    add(door, "ada", Role.ADMIN)
    with Visitor(door) as ada:
        ada.sign_in("ada")
        ada.get("/admin/oidc")
        page = ada.submit("/admin/oidc", ("do", "store"), expect=422, issuer="http://id.example.org", client_id="x")
        assert "is not an https address" in page.text.lower()
        fields = {"issuer": "http://127.0.0.1:1", "client_id": "alveole", "roles": "staff = owner"}
        page = ada.submit("/admin/oidc", ("do", "try"), **fields)
        assert "People could not come in by this provider." in page.text
        assert door.http.get("/v1/oidc").status_code == 404
        ada.submit("/admin/oidc", ("do", "store"), client_secret="very secret")
        assert door.http.get("/v1/oidc").json()["mapping"]["roles"] == {"staff": "owner"}
        ada.get("/admin/oidc")
        assert "very secret" not in ada.answer.text
        ada.submit("/admin/oidc", ("do", "drop"))
        assert door.http.get("/v1/oidc").status_code == 404


def test_who_must_have_a_second_factor(door: Door) -> None:
    add(door, "ada", Role.ADMIN)
    with Visitor(door) as ada:
        ada.sign_in("ada")
        page = ada.get("/admin/second-factor")
        assert "1 of them has none yet" in page.text
        ada.submit("/admin/second-factor", roles="operator")
        assert door.http.get("/v1/second-factor").json() == {"roles": ["operator"]}
        ada.submit("/admin/second-factor")
        assert door.http.get("/v1/second-factor").json() == {"roles": ["operator"]}


def test_files_of_others_are_as_they_were_fetched() -> None:
    import hashlib
    import tomllib
    from pathlib import Path

    from alveole import web

    place = Path(web.__file__).parent / "vendor"
    lock = tomllib.loads((place / "vendor.toml").read_text(encoding="utf-8"))
    kept = {"vendor.toml", "licences"}
    for name, each in lock.items():
        assert (
            each["integrity"].startswith("sha512-") and (place / "licences" / f"{name.replace('/', '-')}.txt").exists()
        )
        for file in each["files"].values():
            assert hashlib.sha256((place / file["to"]).read_bytes()).hexdigest() == file["sha256"], file
            kept.add(file["to"])
    assert {each.name for each in place.iterdir()} == kept


def test_a_second_factor_is_set_up_and_asked_for(door: Door) -> None:
    """The code of an authenticator after the password, before any page; a required one is set up first."""
    import pyotp

    from alveole import requests as ask

    add(door, "ada", Role.ADMIN)
    with Visitor(door) as ada:
        ada.sign_in("ada")
        ada.get("/second-factor/set-up")
        page = ada.submit("/second-factor/set-up")
        secret = dict(next(each["fields"] for each in page.forms if "secret" in dict(each["fields"])))["secret"]
        page = ada.submit("/second-factor/set-up", expect=422, code="000000")
        assert "Is not the code of this moment" in page.text and secret in page.text
        page = ada.submit("/second-factor/set-up", code=pyotp.TOTP(secret).now(), name="telephone")
        assert "recovery codes" in page.text
        codes = re.findall(r"<li>([a-z0-9-]{8,})</li>", ada.answer.text)
        ada.submit("/sign-out")
        ada.submit("/sign-in", name="ada", password=PASSWORD)
        assert ada.at == "/second-factor"
        ada.get("/sites")
        assert ada.at == "/second-factor"
        ada.submit("/second-factor", expect=401, code="nonsense")
        ada.submit("/second-factor", code=codes[0])
        assert ada.at == "/sites"
        # As for somebody who has lost theirs.
        ada.get("/admin/accounts/ada")
        page = ada.submit("/admin/accounts/ada/second-factor")
        assert "Their second factors are gone." in page.text and "Remove their" not in page.text
    add(door, "olga", Role.OPERATOR)
    door.services.require_second_factor(ROOT, ask.RequireSecondFactor(roles=(Role.OPERATOR,)))
    with Visitor(door) as olga:
        olga.get("/sign-in")
        olga.submit("/sign-in", name="olga", password=PASSWORD)
        assert olga.at == "/second-factor/set-up" and "required of your role" in olga.page.text


def test_the_directory_is_tried_before_it_is_stored(door: Door) -> None:
    add(door, "ada", Role.ADMIN)
    with Visitor(door) as ada:
        ada.sign_in("ada")
        ada.get("/admin/ldap")
        page = ada.submit("/admin/ldap", ("do", "store"), expect=422, servers="http://x", roles="staff owner")
        assert "is not 'group = role'" in page.text
        assert "http://x" in ada.answer.text
        fields = {"servers": "ldap://127.0.0.1:1", "base": "dc=x", "roles": "staff = owner", "try_name": "ana"}
        page = ada.submit("/admin/ldap", ("do", "try"), **fields)
        assert "This person would not come in." in page.text
        assert door.http.get("/v1/ldap").status_code == 404
        ada.submit("/admin/ldap", ("do", "store"))
        assert door.http.get("/v1/ldap").json()["mapping"]["roles"] == {"staff": "owner"}
        ada.submit("/admin/ldap", ("do", "drop"))
        assert door.http.get("/v1/ldap").status_code == 404


def test_what_did_not_change_is_not_sent_again(door: Door) -> None:
    """Parts that are asked for every few seconds: nothing while all is as it was, then what is new."""
    add(door, "ana")
    door.site("blog", owner="ana")
    with Visitor(door) as ana:
        ana.sign_in("ana")
        part = {"HX-Request": "true"}

        def settled(path: str) -> str:
            page = ana.get(path)
            again = next(v["hx-get"] for _, v in page.tags if "seen=" in v.get("hx-get", ""))
            return again if ana.ask("GET", again, headers=part).status_code == 204 else ""

        rows = until(lambda: settled("/sites"))
        overview = until(lambda: settled("/site/blog"))
        ana.get("/site/blog")
        ana.submit("/site/blog/stop")
        for path in (rows, overview):
            answer = ana.ask("GET", path, headers=part)
            assert answer.status_code == 200 and "<html" not in answer.text and "blog" in answer.text


def test_an_image_is_fetched_and_becomes_a_site(directory: Path) -> None:
    """From a registry that the machine's settings name, by an owner; from no other."""
    door = Door(directory, images={"registries": ["registry.example.org", "http://127.0.0.1:5000"]})
    try:
        add(door, "ana")
        with Visitor(door) as ana:
            ana.sign_in("ana")
            ana.get("/new/image")
            fields = {"name": "app", "volumes": "data /var/lib/app", "port": "8080", "repository": "club/app"}
            page = ana.submit(
                "/new/image", ("do", "create"), 422, registry="evil.example.org", **fields | {"name": "-"}
            )
            assert "not fetched from" in page.text and "2 things to correct" in page.text
            assert any(("repository", "club/app") in form["fields"] for form in page.forms)
            page = ana.submit("/new/image", ("do", "preview"), registry="127.0.0.1:5000", tag="2", **fields)
            assert "image/127.0.0.1:5000/club/app:2" in page.text and door.services.store.site("app") is None
            # Fetched and made in one change.
            ana.submit("/new/image", ("do", "create"))
            ended(ana)
            told = door.http.get("/v1/changes?site=app").json()
            assert [each["verb"] for each in told] == ["create"] and told[0]["reason"] == "127.0.0.1:5000/club/app:2"
            site = door.services.store.site("app")
            assert site is not None and site.site.base.kind == "oci" and site.site.run.port == 8080
            assert [each.path for each in site.site.volumes] == ["/var/lib/app"]
    finally:
        door.close()


def test_a_site_is_set_to_sleep_and_says_that_it_does(door: Door) -> None:
    """What is no time is told beside its field, and the page shows since when it sleeps."""
    add(door, "ana")
    door.site("blog", owner="ana")
    with Visitor(door, "fr") as ana:
        ana.sign_in("ana")
        ana.get("/site/blog/settings")
        page = ana.submit("/site/blog/settings", ("do", "apply"), expect=422, sleep_after="bientot")
        assert "pas une durée" in page.text
        ana.submit("/site/blog/settings", ("do", "apply"), sleep_after="1h30m", woken_by="everybody")
        ended(ana)
        found = door.services.show_site(ROOT, "blog").sleep
        assert (found.set, found.after, found.woken_by) == (5400, 5400, "everybody")
        assert any(("sleep_after", "1h30m") in form["fields"] for form in ana.get("/site/blog/settings").forms)
        change = door.services.sleep_site(ROOT, "blog")
        until(lambda: door.services.show_change(ROOT, change.id).state == "done")
        page = ana.get("/site/blog")
        assert "endormi" in page.text and "la prochaine visite le réveille" in page.text


def test_what_a_team_may_have_is_set_in_its_page(door: Door) -> None:
    add(door, "ada", Role.ADMIN)
    assert door.http.post("/v1/teams", json={"name": "club"}).status_code == 201
    with Visitor(door) as ada:
        ada.sign_in("ada")
        ada.get("/admin/teams")
        ada.submit("/admin/teams/club", sites="3", memory="512")
        found = door.http.get("/v1/quota", params={"whom": "team:club"}).json()
        assert (found["sites"], found["memory_bytes"], found["disk_bytes"]) == (3, 512 << 20, None)
        page = ada.submit("/admin/teams/club", sites="many")
        assert "'many' is not a number" in page.text
        ada.submit("/admin/teams/club", sites="")
        assert door.http.get("/v1/quota", params={"whom": "team:club"}).json()["sites"] is None


def test_a_site_is_put_to_sleep_and_woken_by_buttons(door: Door) -> None:
    """And everywhere that says how sites are, one that sleeps is neither running nor down."""
    add(door, "ada", Role.ADMIN)
    door.site("blog")

    def is_now(state: str) -> bool:
        found = door.services.show_site(ROOT, "blog")
        return found.state == state and found.change is None

    with Visitor(door) as ada:
        ada.sign_in("ada")
        ada.get("/site/blog")
        ada.submit("/site/blog/sleep")
        assert "blog falls asleep" in ada.page.text
        until(lambda: is_now("asleep"), 60)
        door.services.ticker.stop()
        door.services._gather_figures()
        page = ada.get("/sites")
        assert ("span", {"class": "state state-asleep"}) in page.tags and "all kept" in page.text
        assert {"/site/blog/start?next=/sites", "/site/blog/stop?next=/sites"} <= {
            each["action"] for each in page.forms
        }
        assert "1 asleep" in ada.get("/admin/machine").text
        wall = ada.get("/wall").text
        assert "1 asleep" in wall and "All is well" in wall and "Sites running 0 / 1" in wall
        metrics = door.services.metrics(ROOT)
        assert 'alveole_site_asleep{site="blog"} 1' in metrics and 'alveole_site_up{site="blog"} 1' in metrics
        page = ada.get("/site/blog")
        assert "Restart" not in page.text and "It sleeps since" in page.text
        ada.submit("/site/blog/start")
        until(lambda: is_now("running"), 60)


def test_when_sites_of_a_plan_sleep_is_set_beside_its_limits(door: Door) -> None:
    add(door, "ada", Role.ADMIN)
    door.site("blog")
    with Visitor(door, "fr") as ada:
        ada.sign_in("ada")
        ada.get("/admin/plans")
        ada.submit("/admin/plans/small/sleep", after="12h")
        assert "offre est modifiée" in ada.page.text
        assert door.services.show_site(ROOT, "blog").sleep.after == 43_200
        assert "après 12 h sans visite" in ada.get("/site/blog").text and "selon l" in ada.page.text
        assert "Son offre dit : 12 h" in ada.get("/site/blog/settings").text
        ada.get("/admin/plans")
        ada.submit("/admin/plans/small/sleep", after="soon")
        assert "soon" in ada.page.text and door.services.show_plan(ROOT, "small").sleep_after == 43_200
        ada.submit("/admin/plans/small/sleep", after="")
        assert door.services.show_plan(ROOT, "small").sleep_after == 0


def test_where_a_new_site_lives(door: Door) -> None:
    """Those who know the machines choose one in the form; what is wrong with it is said at its field."""
    far = Node(
        "far",
        "192.0.2.9",
        22,
        "root",
        "ssh-ed25519 AAAA",
        "/etc/a.toml",
        "/run/a",
        "far.test",
        EMPTY_KEY,
        "1",
        time.time(),
    )
    add(door, "olga", Role.OPERATOR)
    add(door, "ana")
    with Visitor(door) as olga, Visitor(door) as ana:
        olga.sign_in("olga")
        assert 'name="node"' not in olga.ask("GET", "/new/files").text, "there is only this one"
        door.services._nodes_known = {"far": far}
        try:
            ana.sign_in("ana")
            assert 'name="node"' not in ana.ask("GET", "/new/module?m=static").text
            page = olga.ask("GET", "/new/module?m=static").text
            assert all(f'<option value="{each}"' in page for each in ("far", "any"))
            olga.get("/new/module?m=static")
            page = olga.submit("/new/module", ("do", "create"), expect=404, name="blog", node="nowhere")
            wrong = {values.get("id") for _, values in page.tags if values.get("aria-invalid") == "true"}
            assert wrong == {"f-node"} and door.services.store.site("blog") is None
        finally:
            door.services._nodes_known = None
