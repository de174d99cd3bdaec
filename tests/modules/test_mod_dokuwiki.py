"""DokuWiki: log in, write a page in the form, read it; again after a restore. No database is there."""

from __future__ import annotations

import pytest
from modkit import HOSTILE, PASSWORD, Browser, ModuleSite, ModuleSites, restarted, round_trip


def log_in(site: ModuleSite, password: str = PASSWORD) -> Browser:
    browser = site.new_browser()
    form = browser.get("/doku.php?id=start&do=login").fields('id="dw__login"')
    page = browser.post("/doku.php?id=start", {**form, "u": "admin", "p": password, "do": "login"})
    assert "do=logout" in page.text, page
    return browser


def write(browser: Browser, name: str, text: str) -> None:
    form = browser.get(f"/doku.php?id={name}&do=edit").fields('id="dw__editform"')
    browser.post(f"/doku.php?id={name}", {**form, "wikitext": text, "summary": "", "do[save]": "1"})


@pytest.mark.parametrize("server", ["nginx", "apache"])
def test_write_and_find_again(site: ModuleSites, server: str) -> None:
    it = site("dokuwiki", server, stem="dw", title=HOSTILE[0], dokuwiki__password=PASSWORD)
    assert "mariadb" not in it.pids()
    write(log_in(it), "bees", "====== Bees ======\nThey **dance** for honey.")

    def check() -> None:
        page = it.new_browser().get("/bees")
        assert "They <strong>dance</strong> for honey." in page.text
        assert HOSTILE[0] in page.title
        assert "do[save]" not in it.get("/doku.php?id=bees&do=edit").text, "a visitor may only read"
        log_in(it)

    round_trip(it, check)
    for closed in ("/install.php", "/inc/init.php", "/data/pages/bees.txt", "/conf/users.auth.php"):
        assert it.get(closed, status=None).status in (403, 404) or "$2y$" not in it.get(closed, status=None).text


def test_answers_that_would_break_out(site: ModuleSites) -> None:
    it = site("dokuwiki", stem="dw", title=HOSTILE[2], dokuwiki__password="o'\"\\$(id)<?php;--", language="fr")
    log_in(it, "o'\"\\$(id)<?php;--")
    assert HOSTILE[2] in it.new_browser().get("/start").title
    assert restarted(it, title=HOSTILE[3]) == set()
    assert HOSTILE[3] in it.get("/start").title
