"""Pages as a browser without scripts sees them: whole, safe, and enough for everything that matters."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from doorkit import Door
from peoplekit import add
from webkit import Visitor

from alveole.people.model import Role
from alveole.views.certificates import CertificateView

PAGES = (
    "/sites",
    "/account",
    "/channels",
    "/apps",
    "/new",
    "/new/app?m=wordpress",
    "/new/files",
    "/new/image",
    "/new/module?m=wordpress",
    "/admin/journal",
)
OF_SITE = (
    "",
    "/content",
    "/files",
    "/files/edit?new=1",
    "/console",
    "/settings",
    "/certificates",
    "/logs",
    "/logs?source=&q=a+%22b+c%22&level=err&since=1h&until=now",
    "/visitors",
    "/backups",
    "/journal",
    "/checks",
    "/operations",
    "/checks/new",
    "/application",
    "/why",
    "/destroy",
)
OF_ADMIN = (
    "machine",
    "plans",
    "bases",
    "certificates",
    "modules",
    "accounts",
    "accounts/ana",
    "teams",
    "dns",
    "ldap",
    "oidc",
    "second-factor",
    "logs",
    "syslog",
    "journal",
)


@pytest.mark.parametrize("language", ["en", "fr"])
def test_every_page_is_whole(door: Door, language: str) -> None:
    add(door, "ana")
    add(door, "ada", Role.ADMIN)
    door.site("blog", owner="ana")
    door.site("shop", owner="ana", upload=None, modules=["static"])
    with Visitor(door, language) as visitor:
        visitor.sign_in("ada")
        paths = [*PAGES, *(f"/site/{site}{each}" for site in ("blog", "shop") for each in OF_SITE)]
        for path in [*paths, *(f"/admin/{each}" for each in OF_ADMIN)]:
            page = visitor.get(path)
            check(page, visitor)
            assert ("html", language) in [(tag, values.get("lang")) for tag, values in page.tags], path


def check(page: object, visitor: Visitor) -> None:
    """What holds of every page."""
    text = visitor.answer.text
    headers = visitor.answer.headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert headers["referrer-policy"] == "same-origin" and headers["cache-control"] == "no-store"
    found = visitor.page
    own = f"{visitor.door.settings.domain}"
    for tag, values in found.tags:
        assert not any(name.startswith("on") or name == "style" for name in values), (visitor.at, tag, values)
        for name in ("src", "href", "action", "hx-get", "hx-post"):
            value = values.get(name, "")
            if tag == "a" and value.startswith("http"):
                # Only the sites' own addresses lead away.
                assert re.match(rf"https?://[a-z0-9.-]*{own}[:/]", value), value
            else:
                assert not value.startswith(("http:", "https:", "//", "javascript:")), (visitor.at, tag, values)
        if tag == "script":
            assert values.get("src", "").startswith("/static/")
    assert "<style" not in text
    labels = {values["for"] for tag, values in found.tags if tag == "label"}
    ids = [values["id"] for _, values in found.tags if "id" in values]
    assert len(ids) == len(set(ids)), (visitor.at, [each for each in ids if ids.count(each) > 1])
    for tag, values in found.tags:
        if tag in ("input", "select", "textarea") and values.get("type") not in ("hidden", "submit"):
            assert values.get("id") in labels or "aria-label" in values, (visitor.at, values)
    levels = [int(tag[1]) for tag, _ in found.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[:1] == [1] and all(b <= a + 1 for a, b in pairwise(levels)), (visitor.at, levels)
    tables = sum(tag == "table" for tag, _ in found.tags)
    assert tables == sum(tag == "caption" for tag, _ in found.tags)


def test_a_shared_certificate_is_renewed_by_who_has_all_sites(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its button is not there for who would be refused."""
    add(door, "ana")
    add(door, "ada", Role.ADMIN)
    door.site("blog", owner="ana")
    names = {"shared.example.org": ("example.org", "*.example.org"), "own.example.net": ("own.example.net",)}
    found = tuple(
        CertificateView(name=name, site="blog", source="acme", by="somebody", names=of, issued_at=1.0, expires_at=2e9)
        for name, of in names.items()
    )
    monkeypatch.setattr(door.services, "list_certificates", lambda *_: found)
    for name, count in (("ana", 1), ("ada", 2)):
        with Visitor(door, "en") as visitor:
            visitor.sign_in(name)
            visitor.get("/site/blog/certificates")
            assert visitor.answer.text.count('value="renew"') == count
            assert visitor.answer.text.count('value="remove"') == 2
