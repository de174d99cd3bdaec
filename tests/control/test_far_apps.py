"""Environments on another machine that only answers: what is taken back, what is believed, and when it is given up."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
from controlkit import ROOT, Control

# ``machine`` is a fixture.
from test_far_backups import Machine, machine  # noqa: F401  fixtures
from test_far_sites import _node, ends

from alveole import requests as ask
from alveole.errors import Denied, InvalidInput, NotFound, Refused, Temporary
from alveole.model.app import App, Environment, Stage
from alveole.model.change import ChangeState
from alveole.people.model import Actor, Role
from alveole.web.newapp import _wanted
from alveole.web.pages import Fields

FAR_PROD = ask.CreateApp(name="shop", environments=("alpha", "prod"), nodes={"prod": "far"})


@pytest.fixture
def shop(control: Control, machine: Machine) -> App:  # noqa: F811  the fixture
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


def test_what_is_asked_there(control: Control, shop: App, machine: Machine) -> None:  # noqa: F811  the fixture
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
    machine: Machine,  # noqa: F811  the fixture
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


def test_a_machine_that_is_away_makes_nothing(control: Control, machine: Machine) -> None:  # noqa: F811  the fixture
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


def test_what_is_believed(control: Control, shop: App, machine: Machine) -> None:  # noqa: F811  the fixture
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
    machine: Machine,  # noqa: F811  the fixture
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


def test_another_version_of_that_name_is_never_delivered(control: Control, shop: App, machine: Machine) -> None:  # noqa: F811  the fixture
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
