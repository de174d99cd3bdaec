"""MediaWiki: log in, edit a page by the API, upload a file, read and search them; again after a restore."""

from __future__ import annotations

import pytest
from modkit import HOSTILE, PASSWORD, Browser, ModuleSite, ModuleSites, png, restarted, round_trip


def ask(browser: Browser, **words: str) -> dict[str, object]:
    return dict(browser.post("/api.php", {"format": "json", "formatversion": "2", **words}).json)


def log_in(site: ModuleSite, password: str = PASSWORD) -> tuple[Browser, str]:
    browser = site.new_browser()
    token = ask(browser, action="query", meta="tokens", type="login")["query"]["tokens"]["logintoken"]
    found = ask(
        browser,
        action="clientlogin",
        username="Admin",
        password=password,
        logintoken=token,
        loginreturnurl="https://example.org/",
    )
    assert found["clientlogin"]["status"] == "PASS", found
    return browser, ask(browser, action="query", meta="tokens")["query"]["tokens"]["csrftoken"]


@pytest.mark.turn
@pytest.mark.parametrize("server", ["nginx", "apache"])
def test_edit_and_find_again(site: ModuleSites, server: str) -> None:
    it = site("mediawiki", server, stem="mw", title=HOSTILE[0], mediawiki__password=PASSWORD)
    browser, token = log_in(it)
    done = ask(browser, action="edit", title="Bees", text="They '''dance''' for honey. [[File:Bee.png]]", token=token)
    assert done["edit"]["result"] == "Success"
    picture = png()
    sent = {"action": "upload", "format": "json", "filename": "Bee.png", "token": token, "ignorewarnings": "1"}
    sent_file = browser.post("/api.php", sent, files={"file": ("Bee.png", picture)}).json
    assert sent_file["upload"]["result"] == "Success", sent_file
    path = str(sent_file["upload"]["imageinfo"]["url"]).partition(f":{it.alveole.https}")[2]

    def check() -> None:
        visitor = it.new_browser()
        page = visitor.get("/wiki/Bees")
        assert "They <b>dance</b> for honey." in page.text and HOSTILE[0] in page.title
        assert visitor.get(path).raw == picture
        assert "View source" in visitor.get("/index.php?title=Bees&action=edit").title, "a visitor may only read"
        log_in(it)

    round_trip(it, check)
    for closed in ("/maintenance/install.php", "/includes/Setup.php", "/.htaccess"):
        assert it.get(closed, status=None).status in (403, 404), closed


def test_answers_that_would_break_out(site: ModuleSites) -> None:
    it = site("mediawiki", stem="mw", title=HOSTILE[2], mediawiki__password="o'\"\\$(id)<?php;--", language="fr")
    log_in(it, "o'\"\\$(id)<?php;--")
    about = it.get("/api.php?action=query&meta=siteinfo&format=json").json["query"]["general"]
    assert about["sitename"] == HOSTILE[2] and about["lang"] == "fr"
    for title in (HOSTILE[1], HOSTILE[3]):
        assert restarted(it, title=title) == set(), "the wiki reads its settings at each request"
        about = it.get("/api.php?action=query&meta=siteinfo&format=json").json["query"]["general"]
        assert about["sitename"] == title
    it.configure(access="private")
    assert "Bees" not in it.new_browser().get("/wiki/Accueil", status=None).text


def test_tables_follow_the_program(site: ModuleSites) -> None:
    it = site("mediawiki", stem="mw", mediawiki__password=PASSWORD)
    sql = ("mariadb", "--batch", "--skip-column-names", "--execute")
    # As version 1.38 would have left it.
    it.run(*sql, "DROP TABLE mw_user_autocreate_serial; DELETE FROM mw_updatelog")
    it.restart()
    assert "mediawiki-upgrade" not in it.logs(), "the programs are the same"
    it.meet_other_programs()
    assert "mw_user_autocreate_serial" in it.run(*sql, "SHOW TABLES")
    assert int(it.run(*sql, "SELECT COUNT(*) FROM mw_updatelog")) > 3
    log_in(it)
    said = it.logs(1000)
    assert said.count("task mediawiki-upgrade") == said.count("task mariadb-upgrade") == 1
