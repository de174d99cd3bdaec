"""Sites on another machine that only answers: their domains, operations, figures, and what is watched of them."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
from controlkit import ROOT, Control

# ``machine`` is a fixture.
from farkit import Machine, away, kept, there

from alveole import requests as ask
from alveole.errors import Denied, InvalidInput, NotFound, Refused, Temporary
from alveole.model.change import Change, ChangeState
from alveole.model.site import Site
from alveole.people.model import Actor, Role
from alveole.requests.operations import AddOperation
from alveole.store.claims import Claim
from alveole.views.domains import AddDomain

ANA = Actor("ana", Role.OWNER, "session", person="ana")
BLOG = "/v1/sites/blog"


def ends(machine: Machine, path: str, id: str, **more: Any) -> None:
    """What is sent to ``path`` begins a change there, which has ended well."""
    machine.answers[path] = {"id": id}
    done = Change(id=id, verb="set", actor="root", state=ChangeState.DONE)
    machine.answers[f"/v1/changes/{id}"] = {**msgspec.to_builtins(done), **more}


def site(control: Control, name: str = "blog") -> Site:
    found = control.services.store.site(name)
    assert found is not None
    return found.site


def test_domains_there(control: Control, machine: Machine) -> None:
    """Reserved here, told there, then held here; what goes, goes there last; its owner proves what is theirs."""
    services = control.services
    id = there(control)
    ends(machine, BLOG, "c1")
    control.done(services.set_site(ROOT, "blog", ask.SetSite(add_domains=("www.example.org",))))
    assert site(control).domains == ("www.example.org",) and machine.sent == [("PATCH", BLOG)]
    assert services.store.owner_of("www.example.org") == id
    assert [each.domain for each in services.list_domains(ROOT, "blog")] == ["www.example.org"]
    # Of the body there: no list of ours, for the site has names there that it has not here.
    assert machine.bodies[-1]["add_domains"] == ["www.example.org"] and "domains" not in machine.bodies[-1]
    # Refused there: nothing has changed, and the name is free.
    machine.answers[BLOG] = Refused("no")
    control.done(services.set_site(ROOT, "blog", ask.SetSite(add_domains=("b.example.org",))), ChangeState.FAILED)
    assert site(control).domains == ("www.example.org",) and services.store.owner_of("b.example.org") is None
    ends(machine, BLOG, "c2")
    machine.sent.clear()
    services.remove_domain(ROOT, "blog", "www.example.org")
    control.quiet()
    assert site(control).domains == () and machine.sent == [("PATCH", BLOG)]
    assert machine.bodies[-1] == {"remove_domains": ["www.example.org"]}
    assert services.store.owner_of("www.example.org") is None


def test_a_domain_that_is_there_already(control: Control, machine: Machine) -> None:
    """The way was cut when it was asked for, and it was done there all the same: asked again it is held here too."""
    services = control.services
    there(control)
    stored = services.store.site("blog")
    assert stored is not None
    shown = msgspec.structs.replace(services._view(stored, None), domains=("www.example.org",))
    refused = [InvalidInput("names a domain twice", field="domains")]
    machine.answers[BLOG] = lambda: refused.pop() if machine.sent and refused else msgspec.to_builtins(shown)
    control.done(services.set_site(ROOT, "blog", ask.SetSite(add_domains=("www.example.org",))))
    assert site(control).domains == ("www.example.org",) and not refused


def test_whose_domain_it_is(control: Control, machine: Machine) -> None:
    services = control.services
    there(control)
    ends(machine, BLOG, "c1")
    with services.store.write() as transaction:
        transaction.save_site(msgspec.structs.replace(site(control), owner="ana"))
    with pytest.raises(InvalidInput, match="prove"):
        services.set_site(ANA, "blog", ask.SetSite(add_domains=("shop.example.org",)))
    claimed = services.add_domain(ANA, "blog", AddDomain(domain="shop.example.org"))
    assert claimed.state == "pending" and claimed.record and machine.sent == []
    assert services.show_site(ROOT, "blog").claims == ("shop.example.org",)
    claim = Claim(site(control).id, "shop.example.org", "ana", "token", 0.0, time.time() + 1000, 0.0)
    # Refused there: it stays claimed, and is asked for again.
    machine.answers[BLOG] = Refused("busy")
    change = services._grant(ANA, claim)
    assert services.show_site(ROOT, "blog").claims == ("shop.example.org",)
    control.done(change, ChangeState.FAILED)
    assert services.show_site(ROOT, "blog").claims == ("shop.example.org",)
    ends(machine, BLOG, "c2")
    control.done(services._grant(ANA, claim))
    assert site(control).domains == ("shop.example.org",) and services.show_site(ROOT, "blog").claims == ()
    with pytest.raises(InvalidInput, match="lives on far"):
        services.create_app(ROOT, ask.CreateApp(name="blog", from_site="blog", environments=("prod",)))
    for field, value in (("path", "/blog"), ("published", ())):
        with pytest.raises(Refused) as refused:
            services.set_site(ROOT, "blog", ask.SetSite(**{field: value}))
        assert [each.field for each in refused.value.problems] == [field]


@pytest.mark.parametrize(
    "answer", [{"tomorrow": 1}, {"state": "of-tomorrow"}, b"<html>"], ids=["a new field", "a new word", "no JSON"]
)
def test_an_answer_that_nobody_understands(control: Control, machine: Machine, answer: Any) -> None:
    """It ends with what helps and is no fault of ours."""
    services = control.services
    there(control)
    ends(machine, f"{BLOG}/stop", "c1")
    if isinstance(answer, bytes):
        machine.answers["/v1/changes/c1"] = answer
    else:
        machine.answers["/v1/changes/c1"].update(answer)
    ended = control.done(services.stop_site(ROOT, "blog"), ChangeState.FAILED)
    assert ended.problems[0].hint.endswith("alveole node upgrade far") and ended.result["code"] == "temporary"
    machine.answers[f"{BLOG}/stop"] = ["c1"]
    ended = control.done(services.stop_site(ROOT, "blog"), ChangeState.FAILED)
    assert ended.problems[0].hint.endswith("alveole node upgrade far")


def test_a_repeated_request_is_answered_as_before(control: Control, machine: Machine) -> None:
    """Fault 2: also when what it asked for is so by now, and would be refused if it were new."""
    services = control.services
    control.static()
    made = control.done(services.create_backup(ROOT, ask.CreateBackup(site="blog")))
    backup = str(made.result["backup"])
    with services.store.write() as transaction:
        transaction.save_site(msgspec.structs.replace(site(control), node="far"))
    away(control, services.settings.reconcile.lost_seconds + 1)
    services._nodes_known = {"far": _node()}
    here = ask.RestoreBackup(here=True)
    first = services.restore_backup(ROOT, backup, here, key="k1")
    control.done(first)
    assert site(control).node == ""
    assert services.restore_backup(ROOT, backup, here, key="k1").id == first.id
    with pytest.raises(Refused):
        services.restore_backup(ROOT, backup, here, key="k2")
    gone = services.delete_backup(ROOT, backup, key="k3")
    control.done(gone)
    assert services.delete_backup(ROOT, backup, key="k3").id == gone.id
    with pytest.raises(NotFound):
        services.delete_backup(ROOT, backup, key="k4")


def _node() -> Any:
    from alveole.remote.fleet import Node
    from alveole.remote.passport import EMPTY_KEY

    return Node("far", "far", 22, "root", "ssh-ed25519 AAAA", "/etc/a.toml", "/run/a", "far.test", EMPTY_KEY, "1", 0.0)


def test_backups_there_are_watched(control: Control, machine: Machine) -> None:
    """How old the newest is and whether it was proved, also while the machine is away; nothing where it need not be."""
    services = control.services
    id = there(control)
    backup = "b" + "2" * 12

    def read(figure: str) -> list[Any]:
        found = services.readings.read([figure], fresh=True)[figure]
        return [(each.value, each.text) for each in found if each.subject == id]

    assert read("site.backup-hours") == [(None, "")], "it was not asked yet: that is not well"
    machine.answers["/v1/sites"] = [{"id": "s" + "f" * 12, "name": "blog"}]
    machine.answers["/v1/backups"] = [kept(backup, created_at=time.time() - 60 * 3600.0, proved=True, proved_at=1.0)]
    stand = msgspec.to_builtins(services._site_backups(site(control)))
    machine.answers[f"{BLOG}/backups"] = stand
    machine.answers["/v1/backup-policy"] = {"policy": stand["policy"], "by_itself": True}
    services._look_at_far("far")
    ((hours, _),) = read("site.backup-hours")
    assert hours == pytest.approx(60, abs=0.1)
    assert read("site.proof") == [("done", "")]
    bad = kept(backup, created_at=time.time() - 60 * 3600.0, proved=False, proved_at=2.0, problem="it is empty")
    machine.answers["/v1/backups"] = [bad]
    services._look_at_far("far")
    assert read("site.proof") == [("failed", f"the backup {backup} cannot be proved: it is empty")]
    away(control, 1)
    assert read("site.backup-hours") and read("site.proof")
    machine.answers[f"{BLOG}/backups"] = {**stand, "policy": {**stand["policy"], "nightly": False}}
    services._look_at_far("far")
    assert read("site.backup-hours") == []


def test_operations_there(control: Control, machine: Machine) -> None:
    """Those of its modules as the machine tells them, those that people declare here; each for whom it is."""
    services = control.services
    id = there(control)
    title = {"en": "Slow queries", "fr": "Requêtes lentes"}
    of_module = {
        **{"name": "slow", "of": "module:mariadb", "title": title, "description": title, "argv": ["/bin/slow"]},
        **{"arguments": [], "least": "own", "seconds": 60, "output_bytes": 4096, "confirm": False, "allowed": True},
        "uid": 27,
    }
    machine.answers[f"{BLOG}/operations"] = [of_module, {**of_module, "name": "theirs", "of": "site"}]
    services.add_operation(ROOT, "clear", AddOperation(argv=("/bin/clear",)), site="blog")
    found = {each.name: (each.of, each.allowed) for each in services.list_operations(ROOT, "blog")}
    assert found == {"slow": ("module:mariadb", True), "theirs": ("node:far", True), "clear": ("site", True)}
    with services.store.write() as transaction:
        transaction.save_site(msgspec.structs.replace(site(control), owner="ben"))
        services.people.share(transaction, id, "ana", _work())
    found = {each.name: (each.of, each.allowed) for each in services.list_operations(ANA, "blog")}
    assert found == {"slow": ("module:mariadb", False), "theirs": ("node:far", False), "clear": ("site", True)}
    from alveole.requests.operations import RunOperation, SignalProgram

    with pytest.raises(Denied):
        services.run_operation(ANA, "blog", "slow", RunOperation())
    programs = {"site": "blog", "slot": 0, "programs": []}
    machine.answers[f"{BLOG}/programs"] = programs
    assert services.list_programs(ANA, "blog").programs == ()
    machine.answers[f"{BLOG}/programs/7/signal"] = None
    services.signal_program(ANA, "blog", 7, SignalProgram(started=5, signal="KILL"))
    assert machine.sent == [("POST", f"{BLOG}/programs/7/signal")]
    (told,) = [each for each in services.journal.list(site=id) if each.verb == "signal"]
    assert (told.actor, told.reason, told.state) == ("ana", "KILL 7", ChangeState.DONE)
    machine.answers[f"{BLOG}/operations"] = Temporary("far is away")
    with pytest.raises(Temporary):
        services.list_operations(ROOT, "blog")


def _work() -> Any:
    from alveole.people.model import Near

    return Near.CHANGE


def test_figures_there(control: Control, machine: Machine) -> None:
    there(control)
    machine.answers[f"{BLOG}/figures?span=day&peaks=false&points=0"] = {
        **{"name": "blog", "span": "day", "start": 60, "step": 60, "columns": ["cpu"], "rows": [[0.5], [None]]}
    }
    assert control.services.show_figures(ROOT, "blog").rows == ((0.5,), (None,))
    with pytest.raises(InvalidInput):
        control.services.show_figures(ROOT, "blog", "century")
