"""Applications: versions through environments, the life cycle, what deploys and roll backs do and undo."""

from __future__ import annotations

import threading
import time
from typing import Any

import msgspec
import pytest
from controlkit import READER, ROOT, Control, until

from alveole import requests as ask
from alveole.agent import protocol
from alveole.errors import Denied, InvalidInput, NotFound, Problem, Refused
from alveole.model.app import Accept, Difference, Stage, VersionState
from alveole.model.change import Change, ChangeState
from alveole.model.resource import Action, Kind
from alveole.model.site import Wanted
from alveole.people.model import Actor, Role
from alveole.people.rights import Right
from alveole.requests.checks import CheckText
from alveole.services.watching import CHECK
from alveole.views import State
from alveole.views.apps import AppView, EnvironmentView

OPERATOR = Actor("olga", Role.OPERATOR, "token:o")
CI = Actor("ci", Role.OWNER, "token:c", person="pci", scope=frozenset({Right.UPLOAD, Right.VERSION_SEND}))


def make(control: Control, *environments: str, **more: Any) -> AppView:
    wanted: dict[str, Any] = {"command": ("serve",), "port": 8000, "accept": Accept.AT_ONCE, **more}
    request = ask.CreateApp(name="shop", environments=environments or ("alpha", "prod"), **wanted)
    control.done(control.services.create_app(ROOT, request))
    return control.services.show_app(ROOT, "shop")


def send(control: Control, name: str, content: bytes | None = None, **more: Any) -> Change:
    upload = control.upload(content or name.encode())
    return control.done(
        control.services.send_version(ROOT, "shop", ask.SendVersion(version=name, upload=upload, **more))
    )


def deliver(control: Control, environment: str, version: str, reason: str = "") -> Change:
    request = ask.DeliverVersion(version=version, reason=reason)
    return control.done(control.services.deliver_version(ROOT, "shop", environment, request))


def deploy(control: Control, environment: str, state: ChangeState = ChangeState.DONE, **more: Any) -> Change:
    return control.done(control.services.deploy_version(ROOT, "shop", environment, ask.DeployVersion(**more)), state)


def bring(control: Control, environment: str, version: str) -> None:
    deliver(control, environment, version)
    deploy(control, environment)


def roll_back(control: Control, environment: str = "alpha", **more: Any) -> Change:
    return control.done(control.services.roll_back(ROOT, "shop", environment, ask.RollBack(**more)))


def at(control: Control, environment: str) -> EnvironmentView:
    app = control.services.show_app(ROOT, "shop")
    return next(each for each in app.environments if each.name == environment)


def live(control: Control, environment: str) -> str:
    found = at(control, environment).live
    return found.version if found is not None else ""


def set_env(control: Control, environment: str, **policy: Any) -> None:
    control.services.set_environment(ROOT, "shop", environment, ask.SetEnvironment(**policy))


# --- the whole way --------------------------------------------------------------------------------
def test_a_version_goes_through_all_environments(control: Control) -> None:
    app = make(control, "alpha", "preprod", "prod")
    assert [each.site for each in app.environments] == ["shop-alpha", "shop-preprod", "shop-prod"]
    assert {each.state for each in app.environments} == {State.STOPPED}
    send(control, "1.0")
    for environment in ("alpha", "preprod", "prod"):
        deliver(control, environment, "1.0")
        found = at(control, environment)
        assert found.delivered is not None and found.live is None and found.state is State.STOPPED
        deploy(control, environment)
        found = at(control, environment)
        assert live(control, environment) == "1.0" and found.state is State.RUNNING and found.delivered is None
    (version,) = control.services.list_versions(ROOT, "shop")
    assert version.live == ("prod", "preprod", "alpha")
    sites = [control.show(f"shop-{each}") for each in ("alpha", "preprod", "prod")]
    assert {site.release for site in sites} == {version.release}, "the same bytes everywhere"


def test_no_stage_is_skipped(control: Control) -> None:
    """S3: a version reaches an environment only after the ones before it; an administrator passes with a reason."""
    make(control)
    send(control, "1.0")
    with pytest.raises(Refused, match="has not run in ALPHA"):
        deliver(control, "prod", "1.0")
    with pytest.raises(Denied):
        control.services.deliver_version(
            OPERATOR, "shop", "prod", ask.DeliverVersion(version="1.0", reason="I want to")
        )
    change = deliver(control, "prod", "1.0", reason="urgent")
    assert change.reason == "1.0: urgent" and change.actor == "root"
    with pytest.raises(Refused, match="has not run"):
        deploy(control, "prod")
    deploy(control, "prod", reason="urgent")
    with pytest.raises(Refused, match="is PROD of the application shop"):
        control.services.update_site(ROOT, "shop-prod", ask.UpdateSite(upload=control.upload(b"by hand")))
    with pytest.raises(Refused, match="is PROD of"):
        control.services.destroy_site(ROOT, "shop-prod", ask.DestroySite(confirm="shop-prod"))


def test_soaking_approvals_windows_and_gates(control: Control) -> None:
    make(control)
    send(control, "1.0")
    bring(control, "alpha", "1.0")
    set_env(control, "prod", soak_seconds=3600)
    with pytest.raises(Refused, match=r"has run \d+ s of 60 min in ALPHA"):
        deliver(control, "prod", "1.0")
    # It has run for long enough, but what watches it was red meanwhile.
    services = control.services
    ran = services.apps.at(services.apps.app("shop").id, "alpha", Stage.LIVE)  # type: ignore[union-attr]  # made above
    assert ran is not None
    with services.store.write() as transaction:
        services.apps.put_deployment(transaction, msgspec.structs.replace(ran, live_at=time.time() - 7200))
    text = "use: [monitor]\nsteps:\n  - request: GET /\n"
    services.put_check(ROOT, "shop-alpha", "home", CheckText(text=text))
    alpha = services.store.site("shop-alpha").site  # type: ignore[union-attr]  # made above
    for problems in ((Problem("check/home", "no answer"),), ()):
        services.journal.end(services.journal.begin(CHECK, ROOT, site=alpha, reason="home"), problems)
    with pytest.raises(Refused, match=r"is green again since \d+ s, of 60 min"):
        deliver(control, "prod", "1.0")
    services.drop_check(ROOT, "shop-alpha", "home")
    set_env(control, "prod", soak_seconds=0, approvals=1, windows=("mon-sun 00:00-00:01",))
    deliver(control, "prod", "1.0")
    with pytest.raises(Refused) as found:
        deploy(control, "prod")
    fields = {problem.field for problem in found.value.problems}
    assert fields == {"approvals", "windows"} or time.localtime().tm_hour + time.localtime().tm_min == 0
    set_env(control, "prod", windows=())
    approve = ask.ApproveVersion(version="1.0")
    control.services.approve_version(ROOT, "shop", "prod", approve)
    with pytest.raises(Refused, match="0 of 1 approvals"):
        deploy(control, "prod")
    with pytest.raises(Refused, match="approved it already"):
        control.services.approve_version(ROOT, "shop", "prod", approve)
    with pytest.raises(Refused, match="not 9"):
        control.services.approve_version(OPERATOR, "shop", "prod", ask.ApproveVersion(version="9"))
    control.services.approve_version(OPERATOR, "shop", "prod", approve)
    control.services.gates.append(lambda _app, env, version: (Problem("checks", f"{version.name} {env.name} is red"),))
    with pytest.raises(Refused, match=r"1\.0 prod is red"):
        deploy(control, "prod")
    plan = control.services.preview_deploy(ROOT, "shop", "prod", ask.DeployVersion())
    assert plan.version == "1.0" and plan.before == "" and len(plan.refused) == 1
    control.services.gates.clear()
    deploy(control, "prod", version="1.0")
    assert live(control, "prod") == "1.0"


def test_versions_wait_and_never_change(control: Control) -> None:
    make(control, accept=Accept.WAIT)
    send(control, "1.0", note="first\nof all")
    with pytest.raises(Refused, match="is waiting"):
        deliver(control, "alpha", "1.0")
    found = control.services.decide_version(ROOT, "shop", "1.0", ask.DecideVersion(accept=True))
    assert (found.state, found.decided_by, found.sender, found.files) == (VersionState.ACCEPTED, "root", "root", 1)
    for name in ("1.0", "../etc", "", "-x"):
        with pytest.raises((Refused, InvalidInput)):
            send(control, name or " ")
    send(control, "1.1")
    newer = control.services.show_version(ROOT, "shop", "1.1")
    assert newer.against == "1.0" and newer.difference.changed == 1
    control.services.decide_version(ROOT, "shop", "1.1", ask.DecideVersion(accept=False, reason="no"))
    with pytest.raises(Refused, match="is refused"):
        deliver(control, "alpha", "1.1")
    deliver(control, "alpha", "1.0")
    for verb in (
        lambda: control.services.decide_version(ROOT, "shop", "1.0", ask.DecideVersion(accept=False)),
        lambda: control.services.forget_version(ROOT, "shop", "1.0"),
    ):
        with pytest.raises(Refused, match="is in alpha"):
            verb()
    control.services.forget_version(ROOT, "shop", "1.1")
    store = control.services.apps.apps[control.services.show_app(ROOT, "shop").id].store
    assert newer.release not in control.agent.releases[store]
    bad = control.services.send_version(ROOT, "shop", ask.SendVersion(version="2", upload=control.upload(b"BAD")))
    control.done(bad, ChangeState.FAILED)
    assert [each.name for each in control.services.list_versions(ROOT, "shop")] == ["1.0"]


def test_a_token_may_do_only_this(control: Control) -> None:
    """S1: a CI job sends, and can do nothing else; it learns nothing of what it may not look at."""
    make(control)
    control.services.people.apps = lambda _id: None
    request = ask.SendVersion(version="1", upload=control.upload(b"1"))
    with pytest.raises(NotFound):
        control.services.send_version(CI, "shop", request)
    app = control.services.apps.app("shop")
    assert app is not None
    with control.services.store.write() as transaction:
        control.services.apps.put_app(transaction, msgspec.structs.replace(app, owner="pci"))
    control.done(control.services.send_version(CI, "shop", request))
    for verb in (
        lambda: control.services.show_app(CI, "shop"),
        lambda: control.services.decide_version(CI, "shop", "1", ask.DecideVersion(accept=True)),
        lambda: control.services.deliver_version(CI, "shop", "alpha", ask.DeliverVersion(version="1")),
    ):
        with pytest.raises((Denied, NotFound)):
            verb()
    with pytest.raises(Denied):
        control.services.send_version(READER, "shop", request)


# --- when it does not hold ------------------------------------------------------------------------
@pytest.fixture
def shop(control: Control) -> Control:
    """ALPHA serves 1.0, and 2.0 lies ready there."""
    make(control)
    for name in ("1.0", "2.0"):
        send(control, name)
    bring(control, "alpha", "1.0")
    deliver(control, "alpha", "2.0")
    return control


def test_a_copy_that_does_not_get_ready_is_never_switched_to(shop: Control) -> None:
    """Fault 8, pain 5."""
    before = shop.show("shop-alpha")
    routes = len(shop.agent.applied(Kind.ROUTE))
    shop.agent.fail_next(Kind.WORKLOAD, Action.CREATE, "did not answer", temporary=False, tail=("ImportError: x",))
    ended = deploy(shop, "alpha", ChangeState.FAILED)
    assert "ImportError: x" in ended.problems[0].message
    after = shop.show("shop-alpha")
    assert (after.release, after.state) == (before.release, State.RUNNING)
    assert len(shop.agent.applied(Kind.ROUTE)) == routes and live(shop, "alpha") == "1.0"
    history = shop.services.app_history(ROOT, "shop", "alpha")
    assert [(each.version, each.stage) for each in history] == [("2.0", Stage.FAILED), ("1.0", Stage.LIVE)]
    bring(shop, "alpha", "2.0")
    assert live(shop, "alpha") == "2.0"


def test_a_verification_that_fails_rolls_back_by_itself(shop: Control) -> None:
    """S10: within the time set; the second look counts, for a process may have been started anew this moment."""
    set_env(shop, "alpha", verify_seconds=30)
    asked: list[float] = []

    def verifier(*_: object) -> tuple[Problem, ...]:
        asked.append(time.monotonic())
        return (Problem("basket", "is empty"),) if len(asked) > 1 else ()

    shop.services.verifiers.append(verifier)
    shop.services.loop.pause = lambda _seconds: None
    ended = deploy(shop, "alpha", ChangeState.FAILED)
    assert [problem.message for problem in ended.problems] == ["is empty"] and len(asked) == 3
    assert live(shop, "alpha") == "1.0" and shop.show("shop-alpha").state is State.RUNNING
    # What was rolled back has not run: it goes no further.
    with pytest.raises(Refused, match="was rolled back in ALPHA"):
        deliver(shop, "prod", "2.0")


def test_a_site_that_does_not_show_the_new_content_yet_is_named(shop: Control) -> None:
    """One that was started before kept releases were shown inside: what is to be done stands beside what failed."""
    set_env(shop, "alpha", before=("migrate", "{release}"))
    shop.agent.unhealthy |= {"before": "status 2: no such file", "there": "status 1"}
    hint = deploy(shop, "alpha", ChangeState.FAILED).problems[0].hint
    assert "; the site runs without the directory /site/releases/" in hint
    assert "alveole site restart shop-alpha" in hint
    # Where it is there the program itself failed, and nothing else is said.
    del shop.agent.unhealthy["there"]
    assert "restart" not in deploy(shop, "alpha", ChangeState.FAILED).problems[0].hint


def test_going_back_that_fails_as_well_is_not_the_fault_of_the_version_alone(shop: Control) -> None:
    """Nothing is as it was before: that is more than a refusal."""

    def verifier(*_: object) -> tuple[Problem, ...]:
        shop.agent.fail_next(Kind.ROUTE, Action.REPLACE, "no room", temporary=False)
        return (Problem("check/basket", "is empty"),)

    set_env(shop, "alpha", verify_seconds=30)
    shop.services.verifiers.append(verifier)
    shop.services.loop.pause = lambda _seconds: None
    ended = deploy(shop, "alpha", ChangeState.FAILED)
    assert "code" not in ended.result
    assert "is empty" in ended.problems[0].message and "no room" in str(ended.problems[1:])


def test_programs_before_and_after_the_switch(shop: Control) -> None:
    set_env(shop, "alpha", before=("migrate", "{release}"), after=("warm",))
    deploy(shop, "alpha")
    hooks = [
        (call.checks[0].name, call.slot, call.checks[0].argv)
        for call in shop.agent.calls
        if isinstance(call, protocol.CheckHealth)
    ]
    release = str(shop.show("shop-alpha").release).removeprefix("sha256:")
    assert hooks == [("before", 0, ("migrate", f"/site/releases/{release}")), ("after", 1, ("warm",))]
    send(shop, "3.0")
    deliver(shop, "alpha", "3.0")
    for name, version in (("before", "2.0"), ("after", "2.0")):
        shop.agent.unhealthy[name] = "status 1: no table"
        failed = deploy(shop, "alpha", ChangeState.FAILED)
        assert "no table" in failed.problems[0].message and failed.result["code"] == "refused", "not to be tried again"
        assert live(shop, "alpha") == version and shop.show("shop-alpha").state is State.RUNNING
        shop.agent.unhealthy.clear()
        if at(shop, "alpha").delivered is None:
            deliver(shop, "alpha", "3.0")
    assert "workload/1" in shop.agent.of(shop.show("shop-alpha").id)


# --- rolling back ---------------------------------------------------------------------------------
def test_rolling_back_brings_configuration_back_and_moves_the_promise(shop: Control) -> None:
    """S4, pain 6: files, configuration and answers; and what is wanted from now on is the old one."""
    shop.done(shop.services.set_site(ROOT, "shop-alpha", ask.SetSite(env={"LEVEL": "one"})))
    old = shop.show("shop-alpha")
    deploy(shop, "alpha")
    shop.done(shop.services.set_site(ROOT, "shop-alpha", ask.SetSite(env={"LEVEL": "two"}, add_domains=("x.test",))))
    plan = shop.services.preview_roll_back(ROOT, "shop", "alpha", ask.RollBack())
    assert (plan.before, plan.version) == ("2.0", "1.0")
    roll_back(shop, reason="slow")
    after = shop.show("shop-alpha")
    assert (after.release, after.env) == (old.release, {"LEVEL": "one"})
    assert after.domains == ("x.test",), "names stay those of the environment"
    shop.restart()
    shop.quiet()
    assert shop.show("shop-alpha").release == old.release
    history = [(each.version, each.stage, each.went_back) for each in shop.services.app_history(ROOT, "shop")]
    assert history == [("1.0", Stage.LIVE, False), ("2.0", Stage.LEFT, True), ("1.0", Stage.LEFT, False)]
    with pytest.raises(Refused, match="no other version was ever live"):
        roll_back(shop)
    roll_back(shop, version="2.0")
    assert live(shop, "alpha") == "2.0" and shop.show("shop-alpha").env == {"LEVEL": "two"}
    with pytest.raises(Refused, match="is live in alpha already"):
        roll_back(shop, version="2.0")


def test_any_kept_version_comes_back_also_when_the_site_dropped_its_files(shop: Control) -> None:
    deploy(shop, "alpha")
    for number in range(3, 9):
        send(shop, f"{number}.0")
        bring(shop, "alpha", f"{number}.0")
    first = shop.services.show_version(ROOT, "shop", "1.0").release
    assert first not in shop.agent.releases[shop.show("shop-alpha").id]
    roll_back(shop, version="1.0")
    assert live(shop, "alpha") == "1.0" and shop.show("shop-alpha").release == first


def test_data_are_saved_before_and_come_back_when_asked(control: Control) -> None:
    make(control, volumes=(ask.VolumeBody(name="data", path="/data"),))
    for name in ("1.0", "2.0"):
        send(control, name)
    bring(control, "alpha", "1.0")
    assert not control.services.list_backups(ROOT), "nothing was there to be saved"
    bring(control, "alpha", "2.0")
    (backup,) = control.services.list_backups(ROOT)
    shown = at(control, "alpha").live
    assert shown is not None and shown.backup == backup.id
    roll_back(control, with_data=True)
    site = control.show("shop-alpha")
    assert {"storage/2"} == {each for each in control.agent.of(site.id) if each.startswith("storage")}
    with pytest.raises(Refused, match="nothing of the data"):
        roll_back(control, version="2.0", with_data=True)


def test_only_the_last_snapshots_are_kept(control: Control) -> None:
    """Pain 7: what is saved before each deploy does not fill the disk; what somebody saved stays."""
    make(control, "alpha", volumes=(ask.VolumeBody(name="data", path="/data"),))
    send(control, "0.0")
    bring(control, "alpha", "0.0")
    own = control.done(control.services.create_backup(ROOT, ask.CreateBackup(site="shop-alpha"))).result["backup"]
    for number in range(1, 8):
        send(control, f"{number}.0")
        bring(control, "alpha", f"{number}.0")
    kept = {each.id for each in control.services.list_backups(ROOT)}
    saved = [each.backup for each in control.services.app_history(ROOT, "shop") if each.backup]
    assert kept == {own, *saved} and len(control.agent.backups) == len(kept)
    assert len(saved) == control.settings.content.releases_kept + 1, "the newest is not counted before it is live"


def test_a_single_writer_is_stopped_and_started_and_it_is_said_before(control: Control) -> None:
    """Pain 4."""
    request = ask.CreateApp(name="shop", environments=("alpha",), modules=("static", "redis"), accept=Accept.AT_ONCE)
    control.done(control.services.create_app(ROOT, request))
    for name in ("1.0", "2.0"):
        send(control, name)
    bring(control, "alpha", "1.0")
    deliver(control, "alpha", "2.0")
    assert "single writer" in at(control, "alpha").interruption
    plan = control.services.preview_deploy(ROOT, "shop", "alpha", ask.DeployVersion())
    assert plan.interruption in plan.steps
    deploy(control, "alpha")
    workloads = {each for each in control.agent.of(control.show("shop-alpha").id) if each.startswith("workload")}
    assert workloads == {"workload/0"} and live(control, "alpha") == "2.0"
    # A check of a module that fails after the switch takes the version back.
    send(control, "3.0")
    deliver(control, "alpha", "3.0")
    control.services.loop.pause = lambda _seconds: None
    control.agent.unhealthy |= {
        check.name: "no answer" for check in control.services.store.site("shop-alpha").site.run.checks
    }
    assert "fails" in deploy(control, "alpha", ChangeState.FAILED).problems[0].message
    assert live(control, "alpha") == "2.0"


def test_the_working_copy_of_an_environment_becomes_a_version(shop: Control) -> None:
    """What came by SFTP or git push: kept as a version, and live only by deliver and deploy."""
    before = shop.show("shop-alpha").release
    wanted = ask.SendVersion(version="3.0", work="alpha")
    shop.done(shop.services.send_version(ROOT, "shop", wanted), ChangeState.FAILED)
    shop.agent.work[shop.show("shop-alpha").id] = protocol.WorkState(True, before, fresh=protocol.Changes(2, 20))
    # What a push, or the end of the last session, publishes by itself is a version too, named by the moment.
    pushed = shop.done(shop.services.publish_work(ROOT, "shop-alpha", ask.PublishWork(note="pushed")))
    assert pushed.verb == "send-version" and shop.services.list_versions(ROOT, "shop")[0].note == "pushed"
    shop.done(shop.services.send_version(ROOT, "shop", wanted))
    assert shop.show("shop-alpha").release == before
    bring(shop, "alpha", "3.0")
    assert live(shop, "alpha") == "3.0"
    for upload, work in ((None, None), ("x", "alpha")):
        with pytest.raises(InvalidInput):
            shop.services.send_version(ROOT, "shop", ask.SendVersion(version="4", upload=upload, work=work))


def test_an_application_is_given_with_its_sites(shop: Control) -> None:
    with pytest.raises(Refused, match="is ALPHA of"):
        shop.services.give_site(ROOT, "shop-alpha", ask.GiveSite(owner="nobody"))
    given = shop.services.give_app(ROOT, "shop", ask.GiveApp(owner="nobody"))
    assert given.version == 2 and shop.show("shop-prod").version == 2


# --- two people, two programs ---------------------------------------------------------------------
def test_the_second_sees_who_holds_it(shop: Control) -> None:
    gate = threading.Event()
    # The type checker takes what is never used for a value: the hook gives nothing.
    shop.agent.hook = lambda call: isinstance(call, protocol.Apply) and gate.wait(10) and None
    first = shop.services.deploy_version(ROOT, "shop", "alpha", ask.DeployVersion())
    try:
        for verb in (
            lambda: shop.services.deploy_version(OPERATOR, "shop", "alpha", ask.DeployVersion()),
            lambda: shop.services.roll_back(OPERATOR, "shop", "alpha", ask.RollBack()),
        ):
            with pytest.raises(Refused, match=r"ALPHA is held by root: deploy 2\.0"):
                verb()
        assert at(shop, "alpha").held.startswith("root: deploy")
    finally:
        gate.set()
    shop.done(first)


def test_the_agent_going_away_in_the_middle_ends_well(shop: Control) -> None:
    """Fault 20: what is wanted is stored; the deploy waits for the agent and ends."""
    lost: list[object] = []

    def hook(call: object) -> None:
        if isinstance(call, protocol.Apply) and call.step.id.kind is Kind.ROUTE and not lost:
            lost.append(call)
            shop.agent.down = True
            threading.Timer(0.5, setattr, (shop.agent, "down", False)).start()

    shop.agent.hook = hook
    deploy(shop, "alpha")
    assert lost and live(shop, "alpha") == "2.0"


def test_a_stop_in_the_middle_is_still_wanted_at_the_end(shop: Control) -> None:
    shop.agent.slow_start = 0.6
    change = shop.services.deploy_version(ROOT, "shop", "alpha", ask.DeployVersion())
    until(lambda: shop.services.store.site("shop-alpha").site.slot == 1)
    shop.done(shop.services.stop_site(ROOT, "shop-alpha"))
    shop.services.wait(ROOT, change.id, 20)
    shop.quiet()
    found = shop.services.store.site("shop-alpha")
    assert found is not None and found.site.wanted is Wanted.STOPPED
    assert live(shop, "alpha") == "2.0"


# --- growing and ending ---------------------------------------------------------------------------
def test_a_plain_site_becomes_an_application_and_grows(control: Control) -> None:
    site = control.app("shop", upload=control.upload(b"one"), env={"A": "1"}, domains=("shop.test",))
    control.done(
        control.services.create_app(ROOT, ask.CreateApp(name="shop", from_site="shop", environments=("prod",)))
    )
    assert live(control, "prod") == "initial" and control.show("shop").release == site.release
    add = ask.AddEnvironment(name="test", before="prod")
    control.done(control.services.add_environment(ROOT, "shop", add))
    assert [each.site for each in control.services.show_app(ROOT, "shop").environments] == ["shop-test", "shop"]
    fresh = control.show("shop-test")
    assert (fresh.env, fresh.domains, fresh.state) == ({"A": "1"}, (), State.STOPPED)
    control.services.set_app(ROOT, "shop", ask.SetApp(accept=Accept.AT_ONCE))
    send(control, "2.0")
    for environment in ("test", "prod"):
        bring(control, environment, "2.0")
    roll_back(control, "prod")
    assert control.show("shop").release == site.release
    with pytest.raises(InvalidInput):
        control.services.add_environment(ROOT, "shop", ask.AddEnvironment(name="test", before="nowhere"))


def test_an_application_is_taken_apart_and_its_sites_go_on(shop: Control) -> None:
    app = next(iter(shop.services.apps.apps.values()))
    with pytest.raises(InvalidInput):
        shop.services.destroy_app(ROOT, "shop", ask.DestroyApp(confirm="other"))
    shop.done(shop.services.destroy_app(ROOT, "shop", ask.DestroyApp(confirm="shop")))
    assert app.store not in shop.agent.releases and not shop.services.list_apps(ROOT)
    assert shop.show("shop-alpha").state is State.RUNNING
    assert not shop.services.store.stray_leases()
    shop.done(shop.services.update_site(ROOT, "shop-alpha", ask.UpdateSite(upload=shop.upload(b"three"))))


def test_all_that_is_wrong_is_told_at_once(control: Control) -> None:
    with pytest.raises(InvalidInput) as found:
        make(control, "Alpha", "prod", "prod", signers=("nonsense",))
    assert {problem.field for problem in found.value.problems} == {"environments", "signers"}
    with pytest.raises(InvalidInput):
        make(control, "alpha", port=99999)
    with pytest.raises(NotFound):
        control.services.show_app(ROOT, "shop")
    assert not control.services.store.sites and not control.services.store.stray_leases()
    make(control)
    with pytest.raises(NotFound, match="it has alpha, prod"):
        deliver(control, "demo", "1")
    with pytest.raises(InvalidInput) as found:
        set_env(control, "alpha", windows=("always",), approvals=7, soak_seconds=-1)
    assert {problem.field for problem in found.value.problems} == {"windows", "approvals", "soak_seconds"}


def test_modules_have_passwords_of_their_own_in_each_environment(control: Control) -> None:
    request = ask.CreateApp(name="shop", environments=("alpha", "prod"), modules=("redis",), accept=Accept.AT_ONCE)
    control.done(control.services.create_app(ROOT, request))
    control.done(control.services.add_environment(ROOT, "shop", ask.AddEnvironment(name="demo")))
    answers = [
        msgspec.json.encode(control.services.site_answers(ROOT, f"shop-{each}", show_secrets=True).answers)
        for each in ("alpha", "prod", "demo")
    ]
    assert len(set(answers)) == 3


def test_two_versions_are_compared(control: Control) -> None:
    """Files, and configuration and answers as an environment had them with each; secrets are not shown."""
    make(control, "alpha", "prod")
    for name in ("1.0", "2.0", "3.0"):
        send(control, name)
    for name in ("1.0", "2.0"):
        bring(control, "alpha", name)
        if name == "1.0":
            control.done(
                control.services.set_site(ROOT, "shop-alpha", ask.SetSite(env={"KEY": "tell-no-one", "MODE": "a"}))
            )
    found = control.services.compare_versions(ROOT, "shop", "1.0", "2.0")
    assert found.environment == "alpha" and found.files.names == ("~content",) and found.settings == {}
    control.done(control.services.set_site(ROOT, "shop-alpha", ask.SetSite(env={"KEY": "other", "MODE": "a"})))
    found = control.services.compare_versions(ROOT, "shop", "1.0", "2.0", "alpha")
    assert found.settings == {"env": "KEY"} and "tell-no-one" not in str(found)
    same = control.services.compare_versions(ROOT, "shop", "2.0", "2.0")
    assert same.files == Difference() and not same.settings
    assert control.services.compare_versions(ROOT, "shop", "1.0", "3.0").environment == ""
    with pytest.raises(Refused, match=r"PROD never had version 1\.0"):
        control.services.compare_versions(ROOT, "shop", "1.0", "2.0", "prod")
    for wrong in (("1.0", "9.9", None), ("1.0", "2.0", "demo")):
        with pytest.raises(NotFound):
            control.services.compare_versions(ROOT, "shop", *wrong)
    with pytest.raises(NotFound):
        stranger = Actor("zoe", Role.OWNER, "token:z", person="pzoe")
        control.services.compare_versions(stranger, "shop", "1.0", "2.0")
