"""WordPress: log in, write, upload a picture, see it on the front page; find it all again after a restore."""

from __future__ import annotations

import json

import pytest
from modkit import HOSTILE, PASSWORD, Browser, ModuleSite, ModuleSites, png, restarted, round_trip


def log_in(site: ModuleSite, password: str = PASSWORD) -> Browser:
    browser = site.new_browser()
    form = browser.get("/wp-login.php").fields("loginform")
    sent = {**form, "log": "admin", "pwd": password, "redirect_to": "/wp-admin/"}
    page = browser.post("/wp-login.php", sent)
    assert any(key.startswith("wordpress_logged_in") for key in browser.cookies), page
    return browser


def nonce(browser: Browser) -> dict[str, str]:
    """What the editor sends with each request."""
    page = browser.get("/wp-admin/post-new.php")
    found = page.find(r'createNonceMiddleware\(\s*"([0-9a-f]+)"')
    return {"X-WP-Nonce": found}


@pytest.mark.parametrize("server", ["nginx", "apache"])
def test_write_and_find_again(site: ModuleSites, server: str) -> None:
    it = site("wordpress", server, stem="wp", title=HOSTILE[0], wordpress__password=PASSWORD)
    browser = log_in(it)
    assert HOSTILE[0] in browser.get("/wp-admin/").title
    head = nonce(browser)
    picture = png()
    media = browser.request(
        "POST",
        "/index.php?rest_route=/wp/v2/media",
        body=picture,
        headers={**head, "Content-Type": "image/png", "Content-Disposition": 'attachment; filename="bee.png"'},
        status=201,
    ).json
    text = f"Honey tastes best in June.<img src='{media['source_url']}'>"
    post = browser.post(
        "/index.php?rest_route=/wp/v2/posts",
        document={"title": "About bees", "content": text, "status": "publish"},
        headers=head,
        status=201,
    ).json
    assert media["source_url"].startswith(f"https://{it.name}.localhost:{it.alveole.https}/")
    path = media["source_url"].partition(f":{it.alveole.https}")[2]
    plain = post["link"].partition(f":{it.alveole.https}")[2]

    def check() -> None:
        visitor = it.new_browser()
        assert "About bees" in visitor.get("/").text
        page = visitor.get(plain)
        assert "Honey tastes best in June." in page.text and path in page.text
        assert visitor.get(path).raw == picture
        assert "About bees" in log_in(it).get("/wp-admin/edit.php").text

    round_trip(it, check)


def test_answers_that_would_break_out(site: ModuleSites) -> None:
    it = site("wordpress", stem="wp", title=HOSTILE[1], wordpress__password="o'\"\\$(id)<?php;--", language="fr_FR")
    log_in(it, "o'\"\\$(id)<?php;--")
    # WordPress itself removes tags of titles.
    name = it.get("/index.php?rest_route=/").json["name"]
    assert "echo" not in it.get("/").title or "42" not in it.get("/").title
    assert "&" in name or "amp" in name
    assert "Se connecter" in it.new_browser().get("/wp-login.php").text
    for title in HOSTILE[2:]:
        assert restarted(it, title=title) == set(), "an answer that is in the database starts nothing anew"
        assert it.get("/index.php?rest_route=/").json["name"].replace("&#039;", "'") == title
    it.configure(wordpress__password="an'other \\ one")
    log_in(it, "an'other \\ one")
    refused = it.refused(title="two\nlines")
    assert "title" in json.dumps(refused)


def test_names_and_protections(site: ModuleSites) -> None:
    it = site("wordpress", stem="wp", wordpress__password=PASSWORD)
    own = f"https://{it.name}.localhost:{it.alveole.https}"
    assert f"{own}/" in it.get("/").text
    it.cli("set", "--domain", "bees.example.org")
    other = it.browser.request("GET", "/", name="bees.example.org").text
    assert f"https://bees.example.org:{it.alveole.https}/" in other and own not in other
    for path in ("/wp-content/uploads/x.php", "/.htaccess", "/wp-content/uploads/x.phtml"):
        it.get(path, status=404)
    assert it.get("/wp-config.php", status=None).text == "", "run, never shown"
    assert restarted(it, upload="64M") == {"php", "nginx"}
    new = f"{it.name}-new"
    it.cli("rename", new)
    it.name = new
    again = it.new_browser().get("/").text
    assert f"https://{new}.localhost:{it.alveole.https}/" in again and own not in again
    log_in(it)


def test_a_theme_and_a_plugin_of_ones_own(site: ModuleSites) -> None:
    it = site("wordpress", stem="wp", wordpress__password=PASSWORD)
    plugin = "<?php\n/* Plugin Name: Buzz */\nadd_action('wp_footer', function () { echo 'bzzz-from-a-plugin'; });\n"
    it.run("/bin/sh", "-c", "mkdir $0 && cat > $0/buzz.php", "/data/wordpress/wp-content/plugins/buzz", input=plugin)
    browser = log_in(it)
    link = browser.get("/wp-admin/plugins.php").find(r'href="(plugins\.php\?action=activate&amp;plugin=buzz[^"]*)"')
    browser.get("/wp-admin/" + link.replace("&amp;", "&"))
    assert "bzzz-from-a-plugin" in it.new_browser().get("/").text


def test_tables_follow_the_program(site: ModuleSites) -> None:
    it = site("wordpress", stem="wp", wordpress__password=PASSWORD)
    sql = ("mariadb", "--batch", "--skip-column-names", "--execute")
    version = "SELECT option_value FROM wp_options WHERE option_name = 'db_version'"
    now = it.run(*sql, version)
    # As version 5.9 would have left it.
    it.run(*sql, "UPDATE wp_options SET option_value = '51917' WHERE option_name = 'db_version'")
    it.run(*sql, "ALTER TABLE wp_options DROP INDEX autoload")
    it.meet_other_programs()
    assert it.run(*sql, version) == now and f"tables of version 51917 are now of version {now.strip()}" in it.logs()
    assert "autoload" in it.run(*sql, "SHOW INDEX FROM wp_options")
    assert log_in(it).get("/wp-admin/").status == 200
    it.meet_other_programs()
    assert "WordPress: the tables fit" in it.logs()
