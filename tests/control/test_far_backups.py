"""Backups of sites on another machine, over the fake agent and a machine that only answers."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from controlkit import ROOT, Control
from farkit import Machine, away, kept, there

from alveole import requests as ask
from alveole.errors import Denied, NotFound, Refused, Temporary
from alveole.model.change import ChangeState
from alveole.people.model import Actor, Role
from alveole.people.rights import Right
from alveole.policy.backups import Cause
from alveole.requests.backups import RestoreFile
from alveole.store.backups import Mark
from alveole.views import WorkView


def test_a_machine_is_not_lost_at_once(control: Control) -> None:
    """A site lives here again from a copy only for who may move it, and once its machine is away for minutes."""
    control.static()
    services = control.services
    made = control.done(services.create_backup(ROOT, ask.CreateBackup(site="blog")))
    backup = str(made.result["backup"])
    site = services.store.site("blog").site
    owner = Actor("ana", Role.OWNER, "session", person="ana")
    with services.store.write() as transaction:
        transaction.save_site(msgspec.structs.replace(site, node="far", owner="ana"))
    here = ask.RestoreBackup(here=True)
    away(control, 1)
    with pytest.raises(Refused, match="a moment only"):
        services.restore_backup(ROOT, backup, here)
    away(control, services.settings.reconcile.lost_seconds + 1)
    with pytest.raises(Denied):
        services.restore_backup(owner, backup, here)
    assert services.restore_backup(ROOT, backup, here).verb == "restore"


def rows(control: Control) -> set[str]:
    return {each.id for each in control.services.store.backups()}


def test_a_row_that_comes_meanwhile_stays(control: Control, machine: Machine) -> None:
    """Of two looks at a machine at once, neither takes what the other has just kept for left by the machine."""
    services = control.services
    there(control)
    first, second = "b" + "2" * 12, "b" + "3" * 12
    machine.answers["/v1/sites"] = [{"id": "s" + "f" * 12, "name": "blog"}]
    asked, made = threading.Event(), threading.Event()

    def slowly() -> list[Any]:
        if made.is_set():
            return [kept(first), kept(second)]
        asked.set()
        assert made.wait(60)
        return [kept(first)]

    machine.answers["/v1/backups"] = slowly
    slow = threading.Thread(target=services._mirror_backups, args=("far",))
    slow.start()
    assert asked.wait(60)
    quick = threading.Thread(target=services._mirror_backups, args=("far",))
    quick.start()
    made.set()
    slow.join(60)
    quick.join(60)
    assert rows(control) == {first, second}
    # Kept by another way between question and answer.
    row = services.store.backup(second)
    assert row is not None
    third = msgspec.structs.replace(row, id="b" + "4" * 12)

    def between() -> list[Any]:
        with services.store.write() as transaction:
            services._keep(transaction, third, Mark(Cause.HAND))
        return [kept(first)]

    machine.answers["/v1/backups"] = between
    services._mirror_backups("far")
    assert rows(control) == {first, third.id}, "what was there before and is told no more is gone, and nothing else"


def test_one_row_that_nobody_understands(control: Control, machine: Machine) -> None:
    """It is passed over; the others are taken note of, and what is known of it stays."""
    services = control.services
    there(control)
    ids = ["b" + each * 12 for each in "234"]
    machine.answers["/v1/sites"] = [{"id": "s" + "f" * 12, "name": "blog"}]
    machine.answers["/v1/backups"] = [kept(ids[0])]
    services._mirror_backups("far")
    strange = [kept(ids[0], cause="of-tomorrow"), kept(ids[1], bytes="many"), kept(ids[2])]
    machine.answers["/v1/backups"] = strange
    services._mirror_backups("far")
    assert rows(control) == {ids[0], ids[2]}


def test_a_machine_of_another_version(control: Control, machine: Machine) -> None:
    """What it answers and nobody here understands is told as that, with what helps; lists show what is known."""
    there(control)
    machine.answers["/v1/sites/blog/work"] = {"tomorrow": 1}
    machine.answers["/v1/backups"] = {"tomorrow": 1}
    with pytest.raises(Temporary, match="node upgrade far"):
        control.services._asked_there(ROOT, Right.SITE_LOOK, "blog", "/work", WorkView)
    assert control.services.list_backups(ROOT, "blog") == ()


def test_a_file_of_the_content_there(control: Control, machine: Machine) -> None:
    """It is compared and put back by the machine where the site lives, for who may make releases of it."""
    services = control.services
    site = there(control)
    id = "b" + "2" * 12
    machine.answers["/v1/sites"] = [{"id": "s" + "f" * 12, "name": "blog"}]
    machine.answers["/v1/backups"] = [kept(id)]
    services._mirror_backups("far")
    path = "release/index.html"
    machine.answers[f"/v1/backups/{id}/preview"] = {
        **{"backup": id, "site": "blog", "path": path, "bytes": 3, "now_bytes": 4, "same": False, "text": True},
        **{"diff": ["-old"], "content": True, "live": True},
    }
    assert services.preview_file(ROOT, id, path).diff == ("-old",)
    change = services.restore_file(ROOT, id, RestoreFile(path=path))
    assert (change.verb, change.reason, change.site_id) == ("restore-file", "on far", site)
    control.done(change, ChangeState.FAILED)
    assert machine.sent == [("POST", f"/v1/backups/{id}/files")]
    token = Actor(
        "ci", Role.ADMIN, "token:t", scope=frozenset({Right.SITE_LOOK, Right.BACKUP_LOOK, Right.BACKUP_RESTORE})
    )
    with pytest.raises(Denied):
        services.restore_file(token, id, RestoreFile(path=path))


def test_no_more_is_taken_than_the_backup_is_long(control: Control, machine: Machine) -> None:
    """What a machine sends too much of, or otherwise than it was made, is not given on."""
    services = control.services
    there(control)
    id, content = "b" + "2" * 12, b"as it was."
    machine.answers["/v1/sites"] = [{"id": "s" + "f" * 12, "name": "blog"}]
    machine.answers["/v1/backups"] = [kept(id, digest=f"sha256:{hashlib.sha256(content).hexdigest()}")]
    services._mirror_backups("far")
    machine.sends = [content]
    with services.open_backup(ROOT, id) as (fd, size, _name):
        assert os.pread(fd, 100, 0) == content and size == len(content)
    for blocks in ([b"otherwise."], [content, b"more"]):
        machine.sends = blocks
        with pytest.raises(Refused, match="not the backup"), services.open_backup(ROOT, id):
            pass
    with pytest.raises(Refused, match="not the backup"), services.open_backup(ROOT, id, "release/x"):
        pass


def test_what_a_lost_machine_has_left_does_not_run(control: Control, machine: Machine) -> None:
    """It is back with its copy running while the site lives here: the next sweep stops the copy."""
    services = control.services
    control.static()
    control.quiet()
    site = services.store.site("blog").site
    with services.store.write() as transaction:
        transaction.save_site(msgspec.structs.replace(site, kept_at={"far": time.time() + 1000}))
    stop = ("POST", "/v1/sites/blog/stop")
    machine.answers["/v1/sites/blog"] = {"wanted": "running"}
    machine.answers[stop[1]] = {"id": "c"}
    away(control, 1)
    services._sweep_copies()
    assert machine.sent == []
    services._node_problems.clear()
    services._sweep_copies()
    assert machine.sent == [stop]
    machine.answers["/v1/sites/blog"] = {"wanted": "stopped"}
    services._sweep_copies()
    assert machine.sent == [stop]


@pytest.mark.parametrize("knows", [False, True])
def test_a_site_that_may_have_been_made_there(
    control: Control, machine: Machine, monkeypatch: pytest.MonkeyPatch, knows: bool
) -> None:
    """Its name is given back only when the machine says that it has none of it, not when it says nothing."""
    services = control.services
    monkeypatch.setattr(services, "_placed", lambda *_: "far")
    monkeypatch.setattr(services, "_node", lambda _name: SimpleNamespace(domain="far.test"))
    machine.answers["/v1/sites"] = Refused("no") if knows else Temporary("away")
    machine.answers["/v1/sites/blog"] = NotFound("none") if knows else Temporary("away")
    request = ask.CreateSite(name="blog", upload=None, command=("serve",), port=8000, node="far")
    control.done(services._create_there(ROOT, request, None), ChangeState.FAILED)
    assert (services.store.site("blog") is None) is knows
