"""phpLDAPadmin: log in, see the tree, change an entry, find the change in the directory."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from modkit import Browser, ModuleSite, ModuleSites, round_trip

PASSWORD = "Correct-Horse7-Battery"


def log_in(it: ModuleSite, dn: str, password: str = PASSWORD) -> Browser:
    browser = it.new_browser()
    form = browser.get("/phpldapadmin/cmd.php?cmd=login_form&server_id=1").fields("login_pass")
    assert form["login"] == f"cn=admin,dc={it.name},dc=localhost", "the administrator is proposed"
    browser.post("/phpldapadmin/cmd.php", {**form, "login": dn, "login_pass": password})
    return browser


@pytest.mark.parametrize("server", ["nginx", "apache"])
def test_change_an_entry(site: ModuleSites, server: str) -> None:
    it = site("openldap", "phpldapadmin", "php", server, stem="pla", openldap__password=PASSWORD, organisation="Bees")
    suffix = f"dc={it.name},dc=localhost"
    dn = f"cn=admin,{suffix}"
    front = it.get("/phpldapadmin")
    assert "Bees" in front.text and "phpLDAPadmin" in front.title
    refused = log_in(it, dn, "wrong password").get("/phpldapadmin/cmd.php?cmd=schema&server_id=1", status=None)
    assert "Logged in as" not in refused.text

    browser = log_in(it, dn)
    shown = browser.get(
        f"/phpldapadmin/cmd.php?cmd=template_engine&server_id=1&template=default&dn={quote(f'ou=people,{suffix}')}"
    )
    assert "ou=people" in shown.text and "E_WARNING" not in shown.text
    entry = f"dn: uid=ada,ou=people,{suffix}\nobjectClass: inetOrgPerson\nuid: ada\ncn: Ada\nsn: Lovelace\n"
    form = browser.get("/phpldapadmin/cmd.php?cmd=import_form&server_id=1").fields("ldif")
    done = browser.post("/phpldapadmin/cmd.php?cmd=import", {**form, "ldif": entry, "format": "LDIF"}, files={})
    assert "Fatal" not in done.text

    def check() -> None:
        who = ("-x", "-LLL", "-D", dn, "-w", PASSWORD)
        assert "sn: Lovelace" in it.run("ldapsearch", *who, "(uid=ada)")
        page = log_in(it, dn).get(
            f"/phpldapadmin/cmd.php?cmd=template_engine&server_id=1&template=default&dn={quote(f'uid=ada,ou=people,{suffix}')}"
        )
        assert "Lovelace" in page.text

    round_trip(it, check)
    assert it.get("/phpldapadmin/lib/functions.php", status=None).status in (403, 404)
