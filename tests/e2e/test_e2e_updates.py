"""Not one request fails while sites are updated, added and removed under load (fault 8)."""

from __future__ import annotations

from apps import GUNICORN_PORT, ON_PORT, ON_SOCKET, PYTHON, ask, hello
from e2ekit import Sites

from instance import GUNICORN, Instance
from instancekit import ApiError, page, until
from loadkit import Load


def test_a_static_site_is_updated_under_load(alveole: Instance, sites: Sites) -> None:
    name = sites.create(page("0"))
    with Load(alveole, name, threads=4) as load:
        for number in range(1, 9):
            alveole.update(name, page(str(number)))
            assert f"<h1>{number}</h1>" in alveole.fetch(name).body
    load.check()


def test_gunicorn_is_updated_under_load(alveole: Instance, sites: Sites, debian: str) -> None:
    sock = ["/usr/bin/gunicorn", "--bind", "unix:/run/alveole/web.sock", "app:app"]
    for command, port in ((GUNICORN_PORT, 8000), (sock, None)):
        name = sites.create(hello("0"), base="debian", packages=[GUNICORN], command=command, port=port, plan="medium")
        with Load(alveole, name, threads=4) as load:
            for number in (1, 2):
                alveole.update(name, hello(str(number)))
                assert alveole.fetch(name).body == f"Hello, {number}!\n"
            alveole.cli("site", "set", name, "--env", "A=1")
        load.check()


def test_others_notice_nothing_while_twenty_sites_come_and_go(alveole: Instance, sites: Sites) -> None:
    watched = [sites.create(page("watched")), sites.create(ask(), **ON_PORT), sites.create(ask(), **ON_SOCKET)]
    names = [sites.name("many") for _ in range(20)]
    with Load(alveole, *watched, threads=3) as load:
        changes = [alveole.create(name, page(name), wait=False)["id"] for name in names]
        for change in changes:
            alveole.ended(change, good=True)
        assert all(name in alveole.fetch(name).body for name in names), "each answers with its own page"
        changes = [alveole.update(name, page("new"), wait=False)["id"] for name in names[:10]]
        for change in changes:
            alveole.ended(change, good=True)
        for change in [alveole.verb(name, "stop", wait=False)["id"] for name in names]:
            alveole.ended(change, good=True)
        for name in names:
            alveole.destroy(name)
    load.check()


def test_an_update_that_does_not_work_leaves_the_old_one_serving(alveole: Instance, sites: Sites) -> None:
    """Fault 8: wholly the old release; its files and its row of the new one are gone."""
    name = sites.create(ask("good"), ready_seconds=4, **ON_PORT)
    before = alveole.site(name)
    from instancekit import archive

    with Load(alveole, name, threads=2) as load:
        change = alveole.update(name, archive({"ask.py": "raise SystemExit('broken')"}), wait=False)
        ended = alveole.ended(change["id"])
        assert ended["state"] == "failed" and "status 1" in str(ended["problems"])
    load.check()
    after = alveole.site(name)
    assert after["release"] == before["release"] and after["state"] == "running"
    assert len(after["releases"]) == 1
    assert '"good"' in alveole.fetch(name).body
    bad = alveole.api("PATCH", f"/v1/sites/{name}", {"command": [PYTHON, "-c", "raise SystemExit(3)"]})
    assert alveole.ended(bad["id"])["state"] == "failed"
    assert alveole.site(name)["processes"][0]["argv"] == before["processes"][0]["argv"]
    assert '"good"' in alveole.fetch(name).body


def test_a_site_restarts_and_its_name_waits(alveole: Instance, sites: Sites) -> None:
    """One thing at a time on one site; a second request while one is going on is refused, and nothing is lost."""
    name = sites.create(ask("a"), **ON_PORT)
    first = alveole.update(name, ask("b"), wait=False)
    try:
        second = alveole.update(name, ask("c"), wait=False)
        alveole.ended(second["id"])
    except ApiError as error:
        assert error.status == 409
    alveole.ended(first["id"], good=True)
    until(lambda: alveole.site(name)["change"] is None, 30)
    assert alveole.fetch(name).status == 200
