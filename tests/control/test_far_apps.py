"""Environments on another machine that only answers: what is taken back, what is believed, and when it is given up."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
from controlkit import ROOT, Control

# ``machine`` is a fixture.
from farkit import Machine
from test_far_sites import _node, ends

from alveole import requests as ask
from alveole.errors import Denied, InvalidInput, NotFound, Refused, Temporary
from alveole.model.app import App, Environment, Stage
from alveole.model.change import ChangeState
from alveole.model.site import Wanted
from alveole.people.model import Actor, Role
from alveole.remote.fleet import Look
from alveole.requests.checks import CheckSecret, CheckText
from alveole.services.scenarios import BROUGHT, CHECKS_MAX
from alveole.views.apps import DeployPlan
from alveole.web.newapp import _wanted
from alveole.web.pages import Fields

FAR_PROD = ask.CreateApp(name="shop", environments=("alpha", "prod"), nodes={"prod": "far"})


@pytest.fixture
def shop(control: Control, machine: Machine) -> App:
    """With ``alpha`` on this machine and ``prod`` on ``far``; version 1 was sent and accepted."""
    services = control.services
    services._nodes_known = {"far": _node()}
    ends(machine, "/v1/apps", "c1")
    ends(machine, "/v1/sites/shop-prod", "c2")
    machine.answers["/v1/sites/shop-prod"] = NotFound("nothing")
    created = services.create_app(ROOT, FAR_PROD)
    ends(machine, "/v1/sites/shop-prod", "c2")
    control.done(created)
    control.done(services.send_version(ROOT, "shop", ask.SendVersion(version="1", upload=control.upload())))
    services.decide_version(ROOT, "shop", "1", ask.DecideVersion(accept=True))
    found = services.apps.app("shop")
    assert found is not None
    machine.answers["/v1/apps/shop"] = msgspec.to_builtins(services.show_app(ROOT, "shop"))
    machine.sent.clear()
    return found


def told(id: str, version: str, stage: Stage) -> dict[str, Any]:
    """A deployment as the machine tells it."""
    said = {
        "id": id,
        "environment": "prod",
        "version": version,
        "stage": stage,
        "created_at": time.time(),
        "by": "root",
    }
    more = {
        "change": "c9",
        "approvals": [],
        "live_at": time.time(),
        "left_at": None,
        "went_back": False,
        "backup": None,
    }
    return {**said, **more}


def prod(app: App) -> Environment:
    return app.environments[1]


def test_what_is_asked_there(control: Control, shop: App, machine: Machine) -> None:
    """One application of the environments that live there, whose versions are accepted; nobody's here is named."""
    services = control.services
    made = next(each for each in machine.bodies if each and each.get("name") == "shop")
    assert made["environments"] == ["prod"] and made["accept"] == "at-once"
    assert not made.get("owner") and not made.get("nodes")
    site = services._site_at(prod(shop))
    assert site.node == "far" and site.application is None and site.files == () and site.env == {}


@pytest.mark.parametrize("environments", [("alpha", "prod"), ("prod",)])
def test_what_cannot_be_made_there_is_not_there(
    control: Control,
    machine: Machine,
    environments: tuple[str, ...],
) -> None:
    """Its site and its name are free again; an application that has nothing left is none."""
    services = control.services
    services._nodes_known = {"far": _node()}
    machine.answers["/v1/apps"] = Refused("no address is free")
    ended = control.done(
        services.create_app(ROOT, msgspec.structs.replace(FAR_PROD, environments=environments)), ChangeState.FAILED
    )
    assert "far: no address is free" in ended.problems[0].message
    assert services.store.site("shop-prod") is None
    left = services.apps.app("shop")
    assert (left is None) == (environments == ("prod",))
    if left is not None:
        assert [each.name for each in left.environments] == ["alpha"]


def test_a_machine_that_is_away_makes_nothing(control: Control, machine: Machine) -> None:
    services = control.services
    services._nodes_known = {"far": _node()}
    machine.answers["/v1/sites/shop-prod"] = Temporary("far does not answer")
    with pytest.raises(Temporary):
        services.create_app(ROOT, FAR_PROD)
    assert services.apps.app("shop") is None
    machine.answers["/v1/sites/shop-prod"] = NotFound("nothing")
    machine.answers["/v1/apps/shop"] = {}
    with pytest.raises(InvalidInput, match="of its own"):
        services.create_app(ROOT, FAR_PROD)


def test_what_is_believed(control: Control, shop: App, machine: Machine) -> None:
    """Rows of this environment alone; what was brought in there by its own people is shown too."""
    services = control.services
    control.done(services.deliver_version(ROOT, "shop", "alpha", ask.DeliverVersion(version="1")))
    alpha = services.apps.deployments(shop.id, "alpha")[0]
    own, other = "d" + "2" * 12, "d" + "3" * 12
    machine.answers["/v1/apps/shop/history"] = [
        told(other, "hotfix", Stage.LIVE),
        told(own, "1", Stage.LEFT),
        told(alpha.id, "1", Stage.FAILED),
        told("../../etc", "1", Stage.LIVE),
        told("d" + "4" * 12, "no name; at all", Stage.LIVE),
    ]
    services._learn(shop, prod(shop), services._site_at(prod(shop)))
    rows = services.apps.deployments(shop.id, "prod")
    assert [(each.id, each.name, each.stage) for each in rows] == [
        (other, "hotfix", Stage.LIVE),
        (own, "1", Stage.LEFT),
    ]
    assert services.apps.deployments(shop.id, "alpha") == (alpha,)
    shown = services.show_app(ROOT, "shop").environments[1]
    assert shown.node == "far" and shown.live is not None and shown.live.version == "hotfix"
    assert shown.back_to == ("1",)
    # Nothing is served there any more of what is here as live: what it tells counts.
    machine.answers["/v1/apps/shop/history"] = [told("d" + "5" * 12, "1", Stage.LIVE)]
    services._learn(shop, prod(shop), services._site_at(prod(shop)))
    stages = {each.id: each.stage for each in services.apps.deployments(shop.id, "prod")}
    assert stages[other] is Stage.LEFT and stages["d" + "5" * 12] is Stage.LIVE


def test_it_is_given_up_when_the_machine_is_lost(
    control: Control,
    shop: App,
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The change says so; an environment whose machine is away is held by nobody for ever."""
    services = control.services
    monkeypatch.setattr("alveole.services.farapps._AWAY_SECONDS", 0.0)
    reconcile = msgspec.structs.replace(services.settings.reconcile, lost_seconds=0.0)
    services.settings = msgspec.structs.replace(services.settings, reconcile=reconcile)
    version = services.apps.version(shop.id, "1")
    assert version is not None
    shown = msgspec.to_builtins(services.show_version(ROOT, "shop", "1"))
    machine.answers["/v1/apps/shop/versions/1"] = shown
    machine.answers["/v1/apps/shop/environments/prod/deliver"] = Temporary("the way is cut")
    machine.answers["/v1/apps/shop/history"] = Temporary("the way is cut")
    change = services.deliver_version(ROOT, "shop", "prod", ask.DeliverVersion(version="1", reason="a test"))
    ended = control.done(change, ChangeState.FAILED)
    assert ended.result["code"] == "temporary" and "the way is cut" in ended.problems[0].message
    assert services.apps.at(shop.id, "prod", Stage.DELIVERED) is None
    assert services.show_app(ROOT, "shop").environments[1].held == ""
    # It was begun there all the same; asked for again it is there already, which is what was wanted.
    machine.answers["/v1/apps/shop/environments/prod/deliver"] = Refused("version 1 is delivered in prod already")
    machine.answers["/v1/apps/shop/history"] = [told("d" + "6" * 12, "1", Stage.DELIVERED)]
    change = services.deliver_version(ROOT, "shop", "prod", ask.DeliverVersion(version="1", reason="a test"))
    control.done(change)
    assert services.apps.at(shop.id, "prod", Stage.DELIVERED) is not None


def test_another_version_of_that_name_is_never_delivered(control: Control, shop: App, machine: Machine) -> None:
    """What lies there under its name is compared; what is in an environment there stays."""
    services = control.services
    shown = msgspec.to_builtins(services.show_version(ROOT, "shop", "1"))
    machine.answers["/v1/apps/shop/versions/1"] = {**shown, "release": f"sha256:{'1' * 64}"}

    def answer() -> Any:
        if machine.sent and machine.sent[-1][0] == "DELETE":
            return Refused("version 1 is in prod")
        return {**shown, "release": f"sha256:{'1' * 64}"}

    machine.answers["/v1/apps/shop/versions/1"] = answer
    machine.answers["/v1/apps/shop/history"] = []
    change = services.deliver_version(ROOT, "shop", "prod", ask.DeliverVersion(version="1", reason="a test"))
    ended = control.done(change, ChangeState.FAILED)
    assert "is in prod" in ended.problems[0].message
    assert not any(path.endswith("/deliver") for _method, path in machine.sent)


def test_only_its_administrator_says_what_another_machine_has_built(control: Control) -> None:
    """Else content could be brought in unbuilt, or under the digest of something else."""
    services = control.services
    control.done(services.create_app(ROOT, ask.CreateApp(name="shop", environments=("prod",))))
    services.give_app(ROOT, "shop", ask.GiveApp(owner="nobody"))
    digest = f"sha256:{'1' * 64}"
    body = ask.SendVersion(version="1", upload=control.upload(), carried=ask.CarriedVersion(digest, digest))
    with pytest.raises(Denied):
        services.send_version(Actor("olga", Role.OPERATOR, "session", person="olga"), "shop", body)
    with pytest.raises(InvalidInput, match="says what an upload is"):
        services.send_version(ROOT, "shop", msgspec.structs.replace(body, upload=None, work="prod"))


def test_the_form_of_a_new_application_says_where() -> None:
    pairs = [
        ("env", "alpha"),
        ("env_plan", ""),
        ("env_node", ""),
        ("env", "prod"),
        ("env_plan", ""),
        ("env_node", "far"),
    ]
    assert _wanted(Fields(pairs)).nodes == {"prod": "far"}
    assert _wanted(Fields([pair for pair in pairs if pair[0] != "env_node"])).nodes == {}


def test_who_may_reach_it_goes_along(control: Control, shop: App, machine: Machine) -> None:
    """One more environment like one of this machine has its access rules there, before anything is served."""
    services = control.services
    control.done(services.set_site(ROOT, "shop-alpha", ask.SetSite(allow=("10.0.0.0/8",), https_only=True)))
    services._nodes_known = {"far": _node(), "beyond": msgspec.structs.replace(_node(), name="beyond")}
    machine.answers["/v1/apps/shop"] = NotFound("nothing")
    machine.answers["/v1/sites/shop-demo"] = lambda: (
        {"id": "c2"} if machine.sent and machine.sent[-1][0] == "PATCH" else NotFound("nothing")
    )
    request = ask.AddEnvironment(name="demo", like="alpha", node="beyond")
    control.done(services.add_environment(ROOT, "shop", request))
    named = machine.bodies[machine.sent.index(("PATCH", "/v1/sites/shop-demo")) - len(machine.sent)]
    assert list(named["allow"]) == ["10.0.0.0/8"] and not named["deny"] and named["https_only"] is True
    assert "persistent" not in named and "woken_by" not in named


def test_an_environment_without_content_is_set(control: Control) -> None:
    """As the machine that drives this one asks before anything was delivered."""
    services = control.services
    control.done(services.create_app(ROOT, ask.CreateApp(name="shop", environments=("prod",))))
    control.done(services.set_site(ROOT, "shop-prod", ask.SetSite(allow=("10.0.0.0/8",))))
    site = services.store.site("shop-prod")
    assert site is not None and site.site.access.allow == ("10.0.0.0/8",)


def test_what_another_server_would_have_made_is_none_either(control: Control, machine: Machine) -> None:
    """What was made before stays, what failed and what comes after goes; what was changed meanwhile is kept."""
    services = control.services
    services._nodes_known = {name: msgspec.structs.replace(_node(), name=name) for name in ("far", "beyond", "last")}
    for name in ("beta", "prod", "demo"):
        machine.answers[f"/v1/sites/shop-{name}"] = NotFound("nothing")
    asked = 0

    def answer() -> Any:
        nonlocal asked
        asked += 1
        if asked == 1:
            machine.answers["/v1/sites/shop-beta"] = {"id": "c2"}
            return {"id": "c1"}
        services.set_environment(ROOT, "shop", "alpha", ask.SetEnvironment(verify_seconds=7))
        return Refused("no address is free")

    ends(machine, "/v1/apps", "c1")
    ends(machine, "/v1/sites/shop-beta", "c2")
    machine.answers["/v1/sites/shop-beta"] = NotFound("nothing")
    machine.answers["/v1/apps"] = answer
    request = ask.CreateApp(
        name="shop",
        environments=("alpha", "beta", "prod", "demo"),
        nodes={"beta": "far", "prod": "beyond", "demo": "last"},
    )
    ended = control.done(services.create_app(ROOT, request), ChangeState.FAILED)
    assert "beyond: no address is free" in ended.problems[0].message and asked == 2
    left = services.apps.app("shop")
    assert left is not None and [each.name for each in left.environments] == ["alpha", "beta"]
    assert left.environments[0].policy.verify_seconds == 7
    assert services.store.site("shop-prod") is None and services.store.site("shop-demo") is None


def test_what_a_change_that_gave_up_has_left_there(control: Control, shop: App, machine: Machine) -> None:
    """Asked for again it is taken as it is; what has something in it is not."""
    services = control.services
    view = services.show_app(ROOT, "shop")
    demo = msgspec.structs.replace(view.environments[1], name="demo", site="shop-demo")
    machine.answers["/v1/apps/shop"] = msgspec.to_builtins(msgspec.structs.replace(view, environments=(demo,)))
    machine.answers["/v1/apps/shop/environments"] = InvalidInput("shop has an environment 'demo' already")
    ends(machine, "/v1/sites/shop-demo", "c2")
    request = ask.AddEnvironment(name="demo", node="far")
    control.done(services.add_environment(ROOT, "shop", request))
    site = services.store.site("shop-demo")
    assert site is not None and site.site.node == "far"
    used = {**msgspec.to_builtins(demo), "name": "more", "live": told("d" + "7" * 12, "1", Stage.LIVE)}
    machine.answers["/v1/apps/shop"]["environments"] = [used]
    machine.answers["/v1/sites/shop-more"] = {}
    with pytest.raises(Refused, match="a site 'shop-more' of its own"):
        services.add_environment(ROOT, "shop", ask.AddEnvironment(name="more", node="far"))


def test_like_which_it_is_made_there(control: Control, shop: App, machine: Machine) -> None:
    """Where the application lives there already, like that one: what was asked for otherwise is said, never ignored."""
    services = control.services
    machine.answers["/v1/sites/shop-demo"] = NotFound("nothing")
    with pytest.raises(InvalidInput, match="on far it is made like PROD") as refused:
        services.add_environment(ROOT, "shop", ask.AddEnvironment(name="demo", like="alpha", node="far"))
    assert [(each.field, each.hint) for each in refused.value.problems] == [("like", "give --like prod, or none")]
    with pytest.raises(InvalidInput, match="on another server"):
        services.add_environment(ROOT, "shop", ask.AddEnvironment(name="demo", like="prod"))
    # All of it lives there: it grows there, and is told where.
    left = msgspec.structs.replace(shop, environments=(prod(shop),), version=shop.version + 1)
    with services.store.write() as transaction:
        services.apps.put_app(transaction, left)
    with pytest.raises(InvalidInput) as refused:
        services.add_environment(ROOT, "shop", ask.AddEnvironment(name="demo"))
    assert refused.value.problems[0].hint == "let it live there too: --node far"
    ends(machine, "/v1/apps/shop/environments", "c1")
    machine.answers["/v1/sites/shop-demo"] = lambda: (
        {"id": "c2"} if machine.sent and machine.sent[-1][0] == "PATCH" else NotFound("nothing")
    )
    control.done(services.add_environment(ROOT, "shop", ask.AddEnvironment(name="demo", like="prod", node="far")))
    asked = machine.bodies[machine.sent.index(("POST", "/v1/apps/shop/environments")) - len(machine.sent)]
    assert (asked["name"], asked["like"]) == ("demo", "prod")


def test_what_is_away_holds_it_no_longer_than_once(
    control: Control,
    shop: App,
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was waited for in vain is not waited for again when it comes to what is there now."""
    services = control.services
    monkeypatch.setattr("alveole.services.farapps._AWAY_SECONDS", 0.0)
    reconcile = msgspec.structs.replace(services.settings.reconcile, lost_seconds=0.0)
    services.settings = msgspec.structs.replace(services.settings, reconcile=reconcile)
    machine.answers["/v1/apps/shop/versions/1"] = msgspec.to_builtins(services.show_version(ROOT, "shop", "1"))
    machine.answers["/v1/apps/shop/environments/prod/deliver"] = Temporary("the way is cut")
    asked: list[str] = []

    def history() -> Any:
        asked.append("history")
        # Would be waited for were it asked as what has not failed.
        services.settings = msgspec.structs.replace(
            services.settings, reconcile=msgspec.structs.replace(reconcile, lost_seconds=3600.0)
        )
        return Temporary("the way is cut")

    machine.answers["/v1/apps/shop/history"] = history
    change = services.deliver_version(ROOT, "shop", "prod", ask.DeliverVersion(version="1", reason="a test"))
    control.done(change, ChangeState.FAILED)
    assert asked == ["history"]


def test_a_version_that_was_live_there_is_not_taken_away(control: Control, shop: App, machine: Machine) -> None:
    """Its people can go back to it: it is theirs, whatever its name is here."""
    services = control.services
    shown = msgspec.to_builtins(services.show_version(ROOT, "shop", "1"))
    machine.answers["/v1/apps/shop/versions/1"] = {**shown, "release": f"sha256:{'1' * 64}"}
    machine.answers["/v1/apps/shop/history"] = [told("d" + "8" * 12, "1", Stage.LEFT)]
    change = services.deliver_version(ROOT, "shop", "prod", ask.DeliverVersion(version="1", reason="a test"))
    ended = control.done(change, ChangeState.FAILED)
    assert ended.problems[0].message == "far has another version 1" and "another name" in ended.problems[0].hint
    assert not any(method == "DELETE" for method, _path in machine.sent)


def test_whether_it_is_to_run_is_learnt(control: Control, shop: App, machine: Machine) -> None:
    """What its people there have started is not destroyed here as if it stood still."""
    services = control.services
    site = services._site_at(prod(shop))
    stored = services.store.site(site.id)
    assert stored is not None and site.wanted is Wanted.STOPPED
    shown = msgspec.structs.replace(services._view(stored, None), wanted=Wanted.RUNNING)
    services._node_looks["far"] = Look(time.time(), services.status(ROOT), {site.name: shown}, 0)
    services._learn_wanted(site)
    fresh = services._site_at(prod(shop))
    assert fresh.wanted is Wanted.RUNNING and fresh.version == site.version + 1
    services._learn_wanted(fresh)
    services._learn_wanted(site)
    assert services._site_at(prod(shop)) == fresh, "told once, and never by what was seen of an older row"


def test_a_preview_is_told_what_is_asked_for_now(control: Control, shop: App, machine: Machine) -> None:
    """It is planned there: what is done around the switch is told before, and only where it is another."""
    services = control.services
    path = "/v1/apps/shop/environments/prod"
    machine.answers[path] = machine.answers["/v1/apps/shop"]
    machine.answers[f"{path}/deploy"] = Temporary("no plan in this test")
    services._tell_policy(shop, prod(shop), "far")
    assert machine.sent == []
    services.set_environment(ROOT, "shop", "prod", ask.SetEnvironment(verify_seconds=7))
    found = services.apps.app("shop")
    assert found is not None
    plan = DeployPlan(environment="prod", version="1", before="", steps=(), interruption="", refused=(), answers={})
    told = services._planned_there(found, prod(found), "deploy", {"version": "1"}, plan)
    assert machine.sent == [("PATCH", path), ("POST", f"{path}/deploy")] and told.refused
    assert machine.bodies[-2]["verify_seconds"] == 7


def test_only_what_is_asked_around_a_switch_is_brought(control: Control, shop: App, machine: Machine) -> None:
    """With the secrets that it names, but for those of the people there; what came earlier and is gone here goes."""
    services = control.services
    gate = "steps:\n  - {request: GET /, headers: {X-Key: '${secret:key}', X-Own: '${secret:own}'}}\n"
    watch = "use: [monitor]\nevery: 5m\nsteps:\n  - {request: GET /}\n"
    services.put_check(ROOT, "shop-alpha", "gate", CheckText(text=gate))
    services.put_check(ROOT, "shop-alpha", "watch", CheckText(text=watch))
    for name in ("key", "own", "unnamed"):
        services.put_check_secret(ROOT, "shop-alpha", name, CheckSecret(value=f"value of {name}"))
    old = services.show_check(ROOT, "shop-alpha", "watch")
    base = "/v1/sites/shop-prod"
    text = f"{BROUGHT}# Brought by it with: gone\n{watch}"
    machine.answers[f"{base}/checks"] = [msgspec.to_builtins(msgspec.structs.replace(old.state, name="old"))]
    machine.answers[f"{base}/checks/old"] = msgspec.to_builtins(msgspec.structs.replace(old, name="old", text=text))
    machine.answers[f"{base}/check-secrets"] = ["gone", "own"]
    for path in ("checks/gate", "check-secrets/key", "check-secrets/gone"):
        machine.answers[f"{base}/{path}"] = {}
    services._bring_checks(shop, services._site_at(prod(shop)))
    assert machine.sent == [
        ("DELETE", f"{base}/check-secrets/gone"),
        ("DELETE", f"{base}/checks/old"),
        ("PUT", f"{base}/checks/gate"),
        ("PUT", f"{base}/check-secrets/key"),
    ]
    assert machine.bodies[-2]["text"] == f"{BROUGHT}# Brought by it with: key\n{gate}"
    assert machine.bodies[-1]["value"] == "value of key"
    # As it is brought, it does not count among those that a site of the people there may have.
    for number in range(CHECKS_MAX - 2):
        services.put_check(ROOT, "shop-alpha", f"own{number}", CheckText(text=watch))
    services.put_check(ROOT, "shop-alpha", "brought", CheckText(text=machine.bodies[-2]["text"], watch=False))
    with pytest.raises(Refused, match="at most"):
        services.put_check(ROOT, "shop-alpha", "more", CheckText(text=watch))
