"""Bases over a fake agent: looking, pruning, and upgrades that are cut, fail, or go through."""

from __future__ import annotations

import msgspec
import pytest
from controlkit import READER, ROOT, Control, until

from alveole import requests as ask
from alveole.agent import protocol
from alveole.errors import Denied, InvalidInput, NotFound, Refused, Temporary
from alveole.model.change import ChangeState
from alveole.model.resource import PLATFORM, Action, Defect, Kind, ResourceId
from alveole.model.site import HealthCheck
from alveole.services import Services

UPDATE = (protocol.PackageChange("openssl", "1", "2", True), protocol.PackageChange("tree", "3", "4"))


def debian(control: Control, *names: str) -> str:
    for name in names:
        control.app(name, base="debian", packages=("tree",))
    return control.show(names[0]).base_key


def clones(control: Control) -> list[str]:
    own = {stored.site.id for stored in control.services.store.sites.values()}
    return [id.scope for id in control.agent.things if id.scope not in own and id.scope != PLATFORM]


def upgrade(control: Control, key: str, state: ChangeState = ChangeState.DONE) -> list[str]:
    change = control.services.upgrade_bases(ROOT, ask.UpgradeBases(bases=(key,)))
    ended = control.done(change, state)
    return [event.text for event in ended.events] + [str(problem) for problem in ended.problems]


def test_an_upgrade_tries_a_copy_and_switches_each_site(control: Control) -> None:
    key = debian(control, "one", "two")
    control.agent.updates[key] = UPDATE
    (view,) = control.services.preview_upgrade(ROOT, ask.UpgradeBases())
    assert (
        view.key == key and view.sites == ("one", "two") and [each.security for each in view.changes] == [True, False]
    )
    calls = len(control.agent.calls)
    said = upgrade(control, key)
    assert "openssl 1 → 2 (security)" in said
    new = control.show("one").base_key
    assert new != key and control.show("two").base_key == new
    assert control.show("one").state == "running" and control.agent.violations == []
    made = [call for call in control.agent.calls[calls:] if isinstance(call, protocol.CloneSite)]
    assert [call.site for call in made] == [control.show("one").id, control.show("two").id]
    copies = [step for step in control.agent.applied(Kind.WORKLOAD) if step.id.scope in {call.to for call in made}]
    assert all(not step.spec.limits.internet for step in copies if step.spec), "a copy sends nothing to anybody"
    assert not [step for step in control.agent.applied(Kind.ROUTE) if step.id.scope in {call.to for call in made}]
    assert clones(control) == [] and control.services.store.stray_leases() == ()
    # Sites to come have the new base; the old one can go when nobody wants to go back to it.
    assert debian(control, "three") == new
    assert control.services.preview_prune(ROOT, ask.PruneBases()) == ()
    everything = ask.PruneBases(earlier=True)
    assert [view.key for view in control.services.preview_prune(ROOT, everything)] == [key]
    control.done(control.services.prune_bases(ROOT, everything))
    assert key not in {view.key for view in control.services.list_bases(ROOT)}
    assert upgrade(control, new)[-1].endswith("nothing newer")


def test_a_copy_that_does_not_work_leaves_everything_as_it_is(control: Control) -> None:
    key = debian(control, "one", "two")
    # The order of promises is that of the last look, and processes grow older.
    before = [msgspec.structs.replace(control.show(name), promises=(), process_states=()) for name in ("one", "two")]
    control.agent.updates[key] = UPDATE
    control.agent.fail_next(Kind.WORKLOAD, Action.CREATE, "it ended before it answered", tail=("boom",))
    said = upgrade(control, key, ChangeState.FAILED)
    assert any(
        "site one does not work on the new base: it ended before it answered; it printed: boom" in line for line in said
    )
    after = [msgspec.structs.replace(control.show(name), promises=(), process_states=()) for name in ("one", "two")]
    assert after == before
    assert clones(control) == [] and control.services.store.stray_leases() == ()
    upgrade(control, key)
    assert control.show("two").base_key != key


def test_checks_of_the_modules_are_asked_of_the_copy(control: Control) -> None:
    key = debian(control, "one")
    site = control.services.store.site("one")
    assert site is not None
    run = msgspec.structs.replace(site.site.run, checks=(HealthCheck("page", path="/login", contains="Log in"),))
    with control.services.store.write() as transaction:
        transaction.save_site(msgspec.structs.replace(site.site, run=run))
    control.agent.updates[key] = UPDATE
    control.agent.unhealthy["page"] = "status 200 without 'Log in'"
    said = upgrade(control, key, ChangeState.FAILED)
    assert any("page: /login: status 200 without 'Log in'" in line for line in said)
    assert control.show("one").base_key == key and clones(control) == []


def test_a_failing_switch_stops_before_the_next_site(control: Control) -> None:
    key = debian(control, "one", "two")
    control.agent.updates[key] = UPDATE
    own = control.show("one").id

    def hook(request: protocol.Request) -> None:
        if isinstance(request, protocol.Apply) and request.step.id == ResourceId(Kind.WORKLOAD, own, "1"):
            control.agent.fail_next(Kind.WORKLOAD, request.step.action, "not ready", temporary=False)

    control.agent.hook = hook
    said = upgrade(control, key, ChangeState.FAILED)
    assert any("site one did not get ready on the new base" in line for line in said), said
    control.agent.hook = lambda _request: None
    until(lambda: control.show("one").state == "running")
    assert {control.show(name).base_key for name in ("one", "two")} == {key}


def test_a_stopped_site_is_switched_without_being_started(control: Control) -> None:
    key = debian(control, "one")
    control.done(control.services.stop_site(ROOT, "one"))
    control.agent.updates[key] = UPDATE
    upgrade(control, key)
    assert control.show("one").base_key != key and control.show("one").state == "stopped"
    assert not [call for call in control.agent.calls if isinstance(call, protocol.CloneSite)]


@pytest.mark.parametrize("request_", [protocol.RenewBase, protocol.CloneSite, protocol.CheckHealth])
def test_an_upgrade_goes_on_after_a_restart_of_control(control: Control, request_: type) -> None:
    """Fault 5: control ends in the middle; the next one takes it up, and what was tried is swept."""
    key = debian(control, "one", "two")
    control.agent.updates[key] = UPDATE
    caught: list[bool] = []

    def hook(request: protocol.Request) -> None:
        if isinstance(request, request_) and not caught:
            caught.append(True)
            # As if killed: nothing of what it would still do reaches the agent or the database.
            control.services.loop._stopping.set()
            control.agent.down = True
            raise Temporary("gone")

    control.agent.hook = hook
    change = control.services.upgrade_bases(ROOT, ask.UpgradeBases(bases=(key,)))
    until(lambda: caught)
    control.services.loop._changes.shutdown(wait=True)
    control.services.store.close()
    control.agent.down = False
    control.agent.hook = lambda _request: None
    control.services = Services.open(control.settings, control.agent)
    ended = control.done(change)
    assert ended.state is ChangeState.DONE
    assert {control.show(name).base_key for name in ("one", "two")} != {key}
    until(lambda: clones(control) == [] and control.services.store.stray_leases() == ())


def test_a_lease_of_nobody_is_swept_at_the_start(control: Control) -> None:
    """Fault 4: kill -9 while a copy runs; its instance, its files and its number are taken away."""
    with control.services.store.write() as transaction:
        number = transaction.lease("scccccccccccc", 100)
    site = control.app("one")
    spec = next(thing.spec for id, thing in control.agent.things.items() if id.kind is Kind.WORKLOAD)
    copy = msgspec.structs.replace(spec, site="scccccccccccc", number=number)
    id = ResourceId(Kind.WORKLOAD, "scccccccccccc", "0")
    control.agent.things[id] = msgspec.structs.replace(
        control.agent.things[ResourceId(Kind.WORKLOAD, site.id, "0")], spec=copy
    )
    control.restart()
    until(lambda: control.services.store.stray_leases() == () and id not in control.agent.things)
    assert control.show("one").state == "running"


def upgraded(control: Control, *names: str) -> tuple[str, str]:
    """The keys of the base that the sites had, and of the one that they have now."""
    key = debian(control, *names)
    control.agent.updates[key] = UPDATE
    upgrade(control, key)
    return key, control.show(names[0]).base_key


def test_sites_go_back_to_the_base_they_had(control: Control) -> None:
    key, new = upgraded(control, "one", "two", "three")
    fresh = control.app("fresh", base="debian", packages=("tree",))
    assert fresh.base_key == new and fresh.earlier_base is None
    assert control.show("one").earlier_base == key
    views = {view.key: view for view in control.services.list_bases(ROOT)}
    assert views[key].earlier_of == ("one", "three", "two") and views[new].earlier_of == ()
    plan = control.services.preview_rollback(ROOT, ask.RollbackBases(sites=("two",)))
    assert [(each.site, each.base, each.earlier) for each in plan] == [("two", new, key)]
    ended = control.done(control.services.rollback_bases(ROOT, ask.RollbackBases(sites=("two",))))
    assert ended.result["sites"] == 1 and ended.verb == "rollback-base" and ended.reason == "two"
    assert control.show("two").base_key == key and control.show("one").base_key == new
    # By the base: who came to it by an upgrade, and nobody else.
    control.done(control.services.rollback_bases(ROOT, ask.RollbackBases(bases=(new,))))
    assert {name: control.show(name).base_key for name in ("one", "two", "three", "fresh")} == {
        "one": key,
        "two": key,
        "three": key,
        "fresh": new,
    }
    assert control.agent.violations == []
    with pytest.raises(Refused) as refused:
        control.services.rollback_bases(ROOT, ask.RollbackBases(sites=("one", "fresh"), bases=(new,)))
    assert len(refused.value.problems) == 3
    # And forward again, when what was wrong is mended.
    upgrade(control, key)
    assert {control.show(name).base_key for name in ("one", "two", "three")} == {new}


def test_a_site_that_cannot_go_back_stays_and_holds_up_no_other(control: Control) -> None:
    key, new = upgraded(control, "one", "two")
    own = control.show("one").id
    slots = {str(1 - stored.site.slot) for stored in [control.services.store.sites[own]]}

    def hook(request: protocol.Request) -> None:
        if isinstance(request, protocol.Apply) and request.step.id in {
            ResourceId(Kind.WORKLOAD, own, slot) for slot in slots
        }:
            control.agent.fail_next(Kind.WORKLOAD, request.step.action, "not ready", temporary=False)

    control.agent.hook = hook
    ended = control.done(control.services.rollback_bases(ROOT, ask.RollbackBases(bases=(new,))), ChangeState.FAILED)
    control.agent.hook = lambda _request: None
    assert "site one did not get ready on its earlier base" in ended.problems[0].message
    assert ended.result["sites"] == 1
    assert control.show("one").base_key == new and control.show("two").base_key == key
    assert control.show("one").earlier_base == key, "it may be tried again"


def test_a_way_back_goes_on_after_a_restart_of_control(control: Control) -> None:
    """Fault 5: control ends between two sites; the next one takes the rest back."""
    key, new = upgraded(control, "one", "two")
    caught: list[bool] = []
    other = control.show("two").id

    def hook(request: protocol.Request) -> None:
        if isinstance(request, protocol.Apply) and request.step.id.scope == other and not caught:
            caught.append(True)
            control.services.loop._stopping.set()
            control.agent.down = True
            raise Temporary("gone")

    control.agent.hook = hook
    change = control.services.rollback_bases(ROOT, ask.RollbackBases(bases=(new,)))
    until(lambda: caught)
    control.services.loop._changes.shutdown(wait=True)
    control.services.store.close()
    control.agent.down = False
    control.agent.hook = lambda _request: None
    control.services = Services.open(control.settings, control.agent)
    ended = control.done(change)
    assert ended.result["sites"] == 2
    assert {control.show(name).base_key for name in ("one", "two")} == {key}


def test_the_earlier_base_is_kept_for_a_while_and_while_it_is_one(control: Control) -> None:
    key, new = upgraded(control, "one")
    assert control.services.preview_prune(ROOT, ask.PruneBases()) == ()
    stored = control.services.store.site("one")
    assert stored is not None and stored.site.earlier is not None
    old = msgspec.structs.replace(stored.site.earlier, left_at=stored.site.earlier.left_at - 15 * 86_400)
    with control.services.store.write() as transaction:
        transaction.save_site(msgspec.structs.replace(stored.site, earlier=old))
    assert [view.key for view in control.services.preview_prune(ROOT, ask.PruneBases())] == [key]
    control.done(control.services.prune_bases(ROOT, ask.PruneBases()))
    with pytest.raises(Refused, match="is not there any more"):
        control.services.rollback_bases(ROOT, ask.RollbackBases(sites=("one",)))
    # Other packages are another base, and nothing leads back over them.
    control.done(control.services.set_site(ROOT, "one", ask.SetSite(packages=("jq",))))
    assert control.show("one").earlier_base is None and control.show("one").base_key != new


def test_what_cannot_be_upgraded_is_refused(control: Control) -> None:
    debian(control, "one")
    with pytest.raises(InvalidInput, match="not made of packages"):
        control.services.upgrade_bases(ROOT, ask.UpgradeBases(bases=("host",)))
    with pytest.raises(NotFound, match="no base"):
        control.services.upgrade_bases(ROOT, ask.UpgradeBases(bases=("debian-0000000000000000",)))
    for verb, body in (
        ("upgrade_bases", ask.UpgradeBases()),
        ("rollback_bases", ask.RollbackBases(sites=("one",))),
        ("prune_bases", ask.PruneBases()),
        ("verify_bases", ask.NameBases()),
    ):
        with pytest.raises(Denied):
            getattr(control.services, verb)(READER, body)
    with pytest.raises(Refused, match="always kept"):
        control.services.delete_base(ROOT, "host")


def test_pruning_keeps_what_is_asked_and_what_is_used(control: Control) -> None:
    key = debian(control, "one")
    control.done(control.services.import_image(ROOT, ask.ImportImage(upload=control.upload(b"image"))))
    image = next(view.key for view in control.services.list_bases(ROOT) if view.kind == "oci")
    assert control.services.preview_prune(ROOT, ask.PruneBases(keep=(image,))) == ()
    control.done(control.services.prune_bases(ROOT, ask.PruneBases()))
    kinds = {view.key: view.kind for view in control.services.list_bases(ROOT)}
    assert key in kinds and image not in kinds and "host" in kinds.values()


def test_damage_is_named_where_people_look(control: Control) -> None:
    """Fault 14: verify fails and names the file, why says it of the site, status of the platform."""
    key = debian(control, "one")
    control.agent.fail_next(Kind.BASE, Action.REPAIR, "cannot be made anew", temporary=False)
    control.agent.things[ResourceId(Kind.BASE, PLATFORM, key)].defects = (
        Defect("damaged", "/usr/bin/tree is not as it was made"),
    )
    ended = control.done(control.services.verify_bases(ROOT, ask.NameBases(bases=(key,))), ChangeState.FAILED)
    assert "/usr/bin/tree" in ended.problems[0].message and "one" in ended.problems[0].hint
    (link,) = [link for link in control.services.why(ROOT, "one").links if link.name == "base"]
    assert not link.ok and "/usr/bin/tree" in link.came
    broken = until(lambda: [each for each in control.services.status(ROOT).promises if each.state == "broken"])
    assert key in broken[0].resource
    assert control.services.show_base(ROOT, key).damage
