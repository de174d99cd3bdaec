"""Adminer: log in with the database's own user, run SQL, find the rows again; no other server, no empty password."""

from __future__ import annotations

import pytest
from modkit import HOSTILE, Browser, ModuleSite, ModuleSites, Page, round_trip

MAKE = "CREATE TABLE note (text varchar(100)); INSERT INTO note VALUES ('TEXT')"
PASSWORD = 'it\'s a \\ "password" & <more>'


def log_in(it: ModuleSite, driver: str, user: str, password: str, database: str, **more: str) -> Page:
    browser = it.new_browser()
    browser.get("/adminer/")
    fields = {"driver": driver, "server": "", "username": user, "password": password, "db": database, **more}
    return browser.post("/adminer/", {f"auth[{key}]": value for key, value in fields.items()}, status=None)


def run_sql(browser: Browser, place: str, statement: str) -> Page:
    page = browser.get(f"{place}&sql=")
    token = page.value("token")
    return browser.post(f"{place}&sql=", {"query": statement, "token": token, "limit": "", "error_stops": "1"})


@pytest.mark.parametrize("driver", ["pgsql", "server"])
def test_run_sql(site: ModuleSites, driver: str) -> None:
    database = {"pgsql": "postgresql", "server": "mariadb"}[driver]
    secret = PASSWORD if database == "mariadb" else PASSWORD.replace(" ", "_")
    answers = {f"{database}__password": secret, f"{database}__database": "notes", f"{database}__user": "site"}
    it = site(database, "adminer", "php", stem="adm", **answers)
    place = f"/adminer/?{driver}=&username=site&db=notes" + ("&ns=public" if driver == "pgsql" else "")
    refused = log_in(it, driver, "site", "wrong", "notes")
    assert refused.status == 403 and 'name="auth[password]"' in refused.text, refused
    assert log_in(it, driver, "site", "", "notes").status == 403
    page = log_in(it, driver, "site", secret, "notes")
    assert page.status == 200 and "logout" in page.text, page
    text = HOSTILE[0].replace("'", "''").replace("\\", "\\\\" if driver == "server" else "\\")
    done = run_sql(it.browser, place, MAKE.replace("TEXT", text))
    assert "error" not in done.text.partition("<div id='content'>")[2].lower() or "1 row" in done.text, done

    def check() -> None:
        assert log_in(it, driver, "site", secret, "notes").status == 200
        seen = run_sql(it.browser, place, "SELECT text, 6*7 FROM note")
        assert "un \\ poète" in seen.text and "42" in seen.text, seen

    round_trip(it, check)
    # No server but the site's own: a visitor must not use it to look around.
    for server in ("127.0.0.1", "example.org:80", "localhost"):
        assert log_in(it, driver, "site", secret, "notes", server=server).status == 403
    for other in ("sqlite", "oracle", "mongo", "elastic"):
        assert "logout" not in log_in(it, other, "site", secret, "notes").text
    it.get("/adminer/../mariadb/connection.json", status=None)
    assert PASSWORD not in it.get("/adminer/%2e%2e/mariadb/connection.json", status=None).text


def test_behind_apache(site: ModuleSites) -> None:
    it = site("postgresql", "adminer", "php", "apache", stem="adm", postgresql__password="Plain-Password1", dark=True)
    name = it.name
    assert it.get("/adminer").title.startswith("Login")
    page = log_in(it, "pgsql", name, "Plain-Password1", name)
    assert page.status == 200 and "logout" in page.text
    assert "invert" in it.get("/adminer/?dark.css").text
