"""What the machine lends, in the pages and at the command line: who sees the fields, what comes of them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from doorkit import Door, until
from peoplekit import add
from webkit import Visitor

from alveole.people.model import Role


@pytest.fixture
def door() -> Iterator[Door]:
    place = Path(tempfile.mkdtemp(prefix="alv", dir="/tmp"))
    made = Door(place, sites={"ports": "21000-21099", "shared": ["/srv/share"]})
    yield made
    made.close()
    shutil.rmtree(place)


def test_an_administrator_lends_in_the_settings_and_an_owner_sees_what_is_lent(door: Door) -> None:
    add(door, "ada", Role.ADMIN)
    add(door, "ana", Role.OWNER)
    door.site("shop", owner="ana")
    with Visitor(door, "fr") as ada, Visitor(door) as ana:
        ada.sign_in("ada")
        page = ada.get("/site/shop/settings")
        assert "Ports de cette machine" in page.text and "/srv/share/photos:/photos" in page.text
        own = "/site/shop/lent#lent"
        refused = ada.submit(own, published="80:80", shared="/srv/share/../etc:/x", persistent="no", expect=422)
        assert "pas un des ports" in refused.text and "80:80" in refused.text
        ada.submit(own, published="21001:25\n21002:53/udp", shared="/srv/share/photos:/photos:rw", persistent="no")
        until(lambda: door.http.get("/v1/sites/shop").json()["change"] is None, 60)
        ana.sign_in("ana")
        page = ana.get("/site/shop")
        assert "21002 → 53/udp" in page.text and "/srv/share/photos" in page.text and "(to write)" in page.text
        page = ana.get("/site/shop/settings")
        assert "Ports of this machine" not in page.text
        # Their own choice is theirs, and touches nothing that is lent.
        ana.submit(own, persistent="yes")
    found = door.http.get("/v1/sites/shop").json()
    assert [each["host"] for each in found["published"]] == [21001, 21002]
    assert found["shared"] == [{"source": "/srv/share/photos", "path": "/photos", "writable": True}]
    assert found["persistent"] is True


def test_the_form_of_an_image_has_them_for_administrators(door: Door) -> None:
    add(door, "ada", Role.ADMIN)
    add(door, "olga", Role.OPERATOR)
    with Visitor(door) as ada, Visitor(door) as olga:
        ada.sign_in("ada")
        olga.sign_in("olga")
        assert "Ports of this machine" not in olga.get("/new/image").text
        page = ada.get("/new/image")
        assert "Those from 21000-21099 may be used" in page.text
        fields = {"name": "app", "published": "21001:25/tcp, ", "shared": "photos:/x", "persistent": "no"}
        page = ada.submit("/new/image", ("do", "create"), expect=422, **fields)
        assert "is not 'port:port inside'" in page.text and "photos:/x" in page.text


def test_the_command_line_lends_shows_and_takes_back(door: Door) -> None:
    made = ("site", "create", "app", "--command", "serve", "--port", "8000", "--forgetful")
    run = door.run(*made, "--publish", "21001:25", "--publish", "21002:53/udp", "--share", "/srv/share/a:/a:rw")
    assert run.status == 0, run.err
    shown = door.run("site", "show", "app").out
    assert "21001 leads to 25/tcp" in shown and "/srv/share/a at /a, to write" in shown
    assert "only what is in volumes" in shown
    wrong = door.run("site", "set", "app", "--publish", "21001", "--share", "a:/b")
    assert wrong.status == 2 and "HOST:CONTAINER" in wrong.err and "HOSTDIR" in wrong.err
    assert door.run("site", "set", "app", "--unset", "published", "--unset", "shared", "--persistent").status == 0
    found = door.http.get("/v1/sites/app").json()
    assert not found["published"] and not found["shared"] and found["persistent"]
