"""Synchronising environments: what is asked, refused, saved, masked, thrown away; over the agent that is not there.

That masked data are masked is seen with real servers in tests/modules/test_mod_sync.py.
"""

from __future__ import annotations

import pytest
from controlkit import ROOT, Control, until
from test_apps import bring, deliver, deploy, live, make, send, set_env

from alveole import requests as ask
from alveole.agent import protocol
from alveole.errors import Denied, InvalidInput, NoRoom, Refused, Temporary
from alveole.model.change import Change, ChangeState
from alveole.model.resource import Action, Kind
from alveole.people.model import Actor, Role

DATA = (ask.VolumeBody(name="data", path="/data"),)


@pytest.fixture
def shop(control: Control) -> Control:
    make(control, volumes=DATA)
    for version in ("1.0", "2.0"):
        send(control, version)
        bring(control, "alpha", version)
        if version == "1.0":
            bring(control, "prod", version)
    return control


def sync(
    control: Control, state: ChangeState = ChangeState.DONE, caller: Actor = ROOT, to: str = "prod", **more: object
) -> Change:
    wanted = ask.Synchronise(**{"source": "alpha", "data": True, "confirm": to, **more})
    return control.done(control.services.synchronise(caller, "shop", to, wanted), state)


def generation(control: Control, name: str) -> int:
    (found,) = (each for each in control.agent.of(control.show(name).id) if each.startswith("storage/"))
    return int(found.partition("/")[2])


def backups(control: Control) -> set[str]:
    return {made.id for made, _manifest, _release in control.agent.backups.values()}


def test_data_come_over_and_what_they_replace_is_kept(shop: Control) -> None:
    before = backups(shop)
    ended = sync(shop)
    assert generation(shop, "shop-prod") == 2 and generation(shop, "shop-alpha") == 1
    assert live(shop, "prod") == "1.0", "the content stays"
    assert backups(shop) - before == {ended.result["backup"]}, "what was taken of the source is gone"
    (unpacked,) = [each for each in shop.agent.calls if isinstance(each, protocol.RestoreBackup)]
    assert unpacked.site == shop.show("shop-prod").id and unpacked.generation == 2
    made = [each for each in shop.agent.calls if isinstance(each, protocol.CreateBackup)]
    assert [each.manifest for each in made if each.site == shop.show("shop-alpha").id][-1] == "{}", "no secret of it"


def test_content_comes_over_by_the_life_cycle(shop: Control) -> None:
    set_env(shop, "prod", approvals=1)
    with pytest.raises(Refused, match="0 of 1 approvals"):
        sync(shop, content=True, data=False, confirm="")
    set_env(shop, "prod", approvals=0, soak_seconds=3600)
    with pytest.raises(Refused, match="has run"):
        sync(shop, content=True)
    assert generation(shop, "shop-prod") == 1
    set_env(shop, "prod", soak_seconds=0)
    sync(shop, content=True)
    assert live(shop, "prod") == "2.0" and generation(shop, "shop-prod") == 2
    with pytest.raises(Refused, match="is live in prod already"):
        sync(shop, content=True, data=False, confirm="")
    back = shop.services.roll_back(ROOT, "shop", "prod", ask.RollBack(with_data=True))
    shop.done(back)
    assert live(shop, "prod") == "1.0" and generation(shop, "shop-prod") == 3, "both are offered back"


def test_content_alone_is_a_deploy(shop: Control) -> None:
    shop.agent.unhealthy["after"] = "status 1"
    set_env(shop, "prod", after=("warm",))
    failed = sync(shop, ChangeState.FAILED, content=True, data=False, confirm="")
    assert live(shop, "prod") == "1.0" and "warm" in failed.problems[0].message
    del shop.agent.unhealthy["after"]
    sync(shop, content=True, data=False, confirm="")
    assert live(shop, "prod") == "2.0" and generation(shop, "shop-prod") == 1


def test_what_is_refused(shop: Control) -> None:
    with pytest.raises(InvalidInput, match="cannot be given what it has"):
        sync(shop, source="prod")
    with pytest.raises(InvalidInput, match="there is no environment 'demo'"):
        sync(shop, source="demo")
    with pytest.raises(InvalidInput, match="neither content nor data"):
        sync(shop, data=False)
    with pytest.raises(InvalidInput, match="is not the environment whose data are replaced"):
        sync(shop, confirm="yes")
    with pytest.raises(Denied):
        sync(shop, caller=Actor("rita", Role.READER, "token:r"))
    shop.services.set_app(ROOT, "shop", ask.SetApp(masks=("uploads/*.pdf=removed", "customers.mail=email")))
    with pytest.raises(Refused) as caught:
        sync(shop)
    told = " ".join(each.message for each in caught.value.problems)
    assert "no volume 'uploads'" in told and "need one database server, and it has none" in told
    plan = shop.services.preview_synchronise(ROOT, "shop", "prod", ask.Synchronise(source="alpha", data=True))
    assert len(plan.refused) == 2 and [each.name for each in plan.volumes] == ["data"] and plan.saved
    with pytest.raises(InvalidInput, match="is no rule for masking"):
        shop.services.set_app(ROOT, "shop", ask.SetApp(masks=("everything",)))
    shop.services.set_app(ROOT, "shop", ask.SetApp(masks=("data/*.pdf=removed",)))
    sync(shop)
    unpacked = [each for each in shop.agent.calls if isinstance(each, protocol.RestoreBackup)]
    assert unpacked[-1].without == (("data", "*.pdf"),)


def test_who_holds_it_is_named(shop: Control) -> None:
    shop.agent.slow_start = 0.5
    shop.services.restart_site(ROOT, "shop-prod")
    with pytest.raises(Refused, match=r"PROD is held by root: restart(?: \(|$)"):
        sync(shop)
    shop.quiet()


@pytest.mark.parametrize("point", [protocol.CreateBackup, protocol.RestoreBackup])
@pytest.mark.parametrize("error", [NoRoom("the disk is full", field="disk"), Temporary("the agent does not answer")])
def test_what_fails_leaves_it_as_it_was(shop: Control, point: type, error: Exception) -> None:
    """Fault 12: nothing of the source stays, and the environment is as it was."""
    before = backups(shop)
    source = shop.show("shop-alpha").id

    def fail(request: protocol.Request) -> None:
        if isinstance(request, point) and (point is protocol.RestoreBackup or request.site == source):
            raise error

    shop.agent.hook = fail
    failed = sync(shop, ChangeState.FAILED)
    assert failed.problems[0].message == str(error).partition(" (")[0] or failed.problems
    assert generation(shop, "shop-prod") == 1 and live(shop, "prod") == "1.0"
    assert len(backups(shop) - before) <= 1, "but for what was saved of the environment itself"
    shop.agent.hook = lambda _request: None
    sync(shop)
    assert generation(shop, "shop-prod") == 2


def test_what_does_not_start_goes_back_to_its_own_data(shop: Control) -> None:
    for _ in range(2):
        shop.agent.fail_next(Kind.WORKLOAD, Action.CREATE, "does not start")
    sync(shop, ChangeState.FAILED)
    until(lambda: shop.show("shop-prod").state == "running")
    until(lambda: generation(shop, "shop-prod") == 1)
    sync(shop)


# --- data and roll back ---------------------------------------------------------------------------
def test_what_became_of_the_data_is_told(shop: Control) -> None:
    """A deploy that is taken back by itself says how the data are now, and how the ones of before come back."""
    send(shop, "3.0")
    deliver(shop, "alpha", "3.0")
    set_env(shop, "alpha", before=("migrate",), after=("warm",))
    shop.agent.unhealthy["after"] = "status 1"
    failed = deploy(shop, "alpha", ChangeState.FAILED)
    backup = failed.problems[0].hint.rpartition(" ")[2]
    assert "as the program before the switch has left them" in failed.events[-1].text and backup in backups(shop)
    set_env(shop, "alpha", before=())
    deliver(shop, "alpha", "3.0")
    failed = deploy(shop, "alpha", ChangeState.FAILED)
    assert "its data stay as they are now" in failed.events[-1].text
    shop.agent.unhealthy = {"before": "status 2"}
    set_env(shop, "alpha", before=("migrate",))
    deliver(shop, "alpha", "3.0")
    failed = deploy(shop, "alpha", ChangeState.FAILED)
    assert "alveole backup restore b" in failed.problems[0].hint


def test_data_are_offered_where_one_rolls_back(shop: Control) -> None:
    environment = next(each for each in shop.services.show_app(ROOT, "shop").environments if each.name == "alpha")
    assert environment.saved is not None and environment.live is not None
    assert environment.saved.id == environment.live.backup and environment.saved.bytes == 1000
    plan = shop.services.preview_roll_back(ROOT, "shop", "alpha", ask.RollBack())
    assert f"--with-data brings back backup {environment.saved.id} of 20" in plan.steps[0]
