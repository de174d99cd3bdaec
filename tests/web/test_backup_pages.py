"""The pages of backups without scripts: how they stand, proving, keeping, looking in; where the machine keeps them."""

from __future__ import annotations

import time

from doorkit import Door, until
from peoplekit import add
from webkit import Visitor

from alveole.people.model import Role


def test_backups_of_a_site_and_of_the_machine(door: Door) -> None:
    add(door, "ana")
    add(door, "ada", Role.ADMIN)
    door.site("blog", owner="ana")
    with Visitor(door) as ana:
        ana.sign_in("ana")
        page = ana.get("/site/blog/backups")
        assert "Last proved restore" in page.text and "There is no backup yet." in page.text
        ana.submit("/site/blog/backups")
        at = ana.at
        until(lambda: "state-done" in ana.ask("GET", at).text, 30)
        (backup,) = [each["id"] for each in door.http.get("/v1/backups").json()]
        ana.get("/site/blog/backups")
        ana.submit(f"/backup/{backup}/prove")
        at = ana.at
        until(lambda: "state-done" in ana.ask("GET", at).text, 30)
        page = ana.get("/site/blog/backups")
        assert "proved on" in page.text and "by hand" in page.text
        page = ana.submit(f"/backup/{backup}/pin", pinned="yes")
        assert "It stays until it is deleted." in page.text
        page = ana.submit("/site/blog/backups/policy", expect=422, days="many")
        assert "not a number" in page.text
        page = ana.submit("/site/blog/backups/policy", days="30", nightly="no")
        assert "30 days" in page.text and "not by itself" in page.text
        page = ana.get(f"/backup/{backup}/files")
        assert "What its proof has asked" in page.text and "volumes/" in page.text
        page = ana.get(f"/backup/{backup}/files?path=volumes/data")
        assert "page.html" in page.text and "Put back" in page.text
        assert ana.ask("GET", "/admin/backups").status_code == 403
    with Visitor(door) as ada:
        ada.sign_in("ada")
        page = ada.get("/admin/backups")
        assert "Not exported yet" in page.text
        page = ada.submit("/admin/backups/key")
        assert "the key of the backups" in ada.answer.text and "exported by ada" in page.text
        page = ada.submit("/admin/backups/add", ("do", "add"), name="disk", kind="local", place="/mnt/disk/a")
        assert "It was reached" in page.text and "/mnt/disk/a" in page.text
        page = ada.submit("/admin/backups", copy_to="disk", days="9")
        assert "each backup is copied there" in page.text
        page = ada.submit("/admin/backups", expect=422, days="0", weeks="0", months="0")
        assert "nothing would stay" in page.text.lower()
        secret = "never to be seen again"
        fields = {"kind": "s3", "place": "https://s3.test/b", "user": "id", "secret": secret}
        ada.submit("/admin/backups/add", ("do", "add"), name="cloud", **fields)
        assert secret not in ada.answer.text


def test_a_past_day_and_the_calendar(door: Door) -> None:
    add(door, "ana")
    add(door, "zoe")
    door.site("diary", owner="ana")
    with Visitor(door) as ana, Visitor(door) as zoe:
        ana.sign_in("ana")
        ana.get("/site/diary/backups")
        ana.submit("/site/diary/backups")
        at = ana.at
        until(lambda: "state-done" in ana.ask("GET", at).text, 30)
        (made,) = door.http.get("/v1/backups?site=diary").json()
        backup, today = made["id"], time.strftime("%Y-%m-%d", time.localtime(made["created_at"]))
        page = ana.get(f"/site/diary/backups?month={today[:7]}")
        assert f'href="?day={today}"' in ana.answer.text and "Backups by day" in page.text
        assert backup in ana.get(f"/site/diary/backups?day={today}").text
        assert "There is no backup of that time." in ana.get("/site/diary/backups?day=2001-02-03").text
        assert "February 2001" in ana.get("/site/diary/backups?month=2001-02").text
        assert ana.ask("GET", "/site/diary/backups?month=never").status_code == 422
        ana.get("/site/diary/backups")
        ana.submit(f"/backup/{backup}/open")
        at = ana.at
        until(lambda: "state-done" in ana.ask("GET", at).text, 30)
        page = ana.get("/site/diary/backups")
        assert "Past days that are open" in page.text and "Go there" in page.text
        (day,) = door.http.get("/v1/past-days?site=diary").json()
        assert backup in ana.get(f"/past/{day['id']}").text
        leads = ana.ask("GET", f"/past/{day['id']}/enter", follow=False)
        assert leads.status_code == 303 and leads.headers["location"].startswith(f"{day['address']}.alveole/enter?")
        zoe.sign_in("zoe")
        assert zoe.ask("GET", f"/past/{day['id']}").status_code == 404
        ana.get("/site/diary/backups")
        page = ana.submit(f"/past/{day['id']}/close")
        assert "It is being closed" in page.text
        until(lambda: door.http.get("/v1/past-days").json() == [])
