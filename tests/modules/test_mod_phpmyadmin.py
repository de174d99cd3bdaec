"""phpMyAdmin: log in as the site's database user, run SQL, see the row; again after a restore."""

from __future__ import annotations

import html
import re

from modkit import PASSWORD, Browser, ModuleSite, ModuleSites, Page, round_trip


def log_in(site: ModuleSite) -> tuple[Browser, Page]:
    browser = site.new_browser()
    form = browser.get("/phpmyadmin/").fields("pma_username")
    sent = {**form, "pma_username": "site", "pma_password": PASSWORD, "server": "1"}
    page = browser.post("/phpmyadmin/index.php?route=/", sent)
    assert "pma_username" not in page.text, page
    return browser, page


def sql(browser: Browser, page: Page, query: str) -> str:
    token = page.find(r'token:"([^"]+)"')
    sent = {
        "import_type": "database",
        "format": "sql",
        "db": "site",
        "token": token,
        "sql_query": query,
        "is_js_confirmed": "0",
        "ajax_request": "true",
        "ajax_page_request": "true",
        "server": "1",
    }
    found = browser.post("/phpmyadmin/index.php?route=/import", sent).json
    assert found["success"], found
    return html.unescape(re.sub(r"<[^>]+>", " ", str(found.get("message", ""))))


def test_run_sql_and_find_again(site: ModuleSites) -> None:
    it = site("phpmyadmin", stem="pma", mariadb__password=PASSWORD)
    browser, page = log_in(it)
    sql(browser, page, "CREATE TABLE bees (name VARCHAR(40)); INSERT INTO bees VALUES ('Maja L''Abeille')")

    def check() -> None:
        browser, page = log_in(it)
        listed = browser.get("/phpmyadmin/index.php?route=/sql&db=site&table=bees&pos=0&server=1")
        assert "Maja L'Abeille" in html.unescape(listed.text)
        assert page.status == 200

    round_trip(it, check)
    assert it.get("/phpmyadmin/libraries/common.inc.php", status=None).status in (403, 404)
    # The server must not take the program's own user for the person.
    wrong = it.new_browser()
    form = wrong.get("/phpmyadmin/").fields("pma_username")
    refused = wrong.post(
        "/phpmyadmin/index.php?route=/", {**form, "pma_username": "site", "pma_password": "x"}, status=None
    )
    assert "pma_username" in refused.text
