"""Builds over a fake agent: what is told of one that fails, and content that follows its interpreter's version."""

from __future__ import annotations

import msgspec
import pytest
from controlkit import ROOT, Control

from alveole import requests as ask
from alveole.agent import protocol
from alveole.model.app import Accept
from alveole.model.change import Change, ChangeState
from alveole.model.resource import PLATFORM, BaseSpec, Kind, ResourceId, stamp
from alveole.model.site import Base, Building, Site
from alveole.services.building import numbers
from alveole.testing import Thing

PACKAGES = ("python3", "python3-gunicorn", "python3-uvicorn")
BUILDING = ("g++", "make", "pkg-config", "python3-dev", "python3-pip")
NEWER = (protocol.PackageChange("python3", "3.11.2-1+b1", "3.13.5-1"),)


def base(control: Control, packages: tuple[str, ...], python: str) -> Base:
    """A base of ``packages`` that is there, with that Python."""
    made: Base = control.agent.call(protocol.ResolveBase("debian", packages))
    control.agent.things[ResourceId(Kind.BASE, PLATFORM, made.key)] = Thing(stamp(BaseSpec(made)), BaseSpec(made))
    control.agent.installed[made.key] = {"python3": python, "tree": "1"}
    return made


def stored(control: Control) -> Site:
    found = control.services.store.site("shop")
    assert found is not None
    return found.site


def building(control: Control) -> Building:
    application = stored(control).application
    assert application is not None and application.building is not None
    return application.building


def bases(control: Control, site: str = "3.11.2-1+b1", build: str = "3.11.2-1+b1") -> tuple[Base, Base]:
    """The base of a site of the module python, and that of its builds."""
    own = base(control, PACKAGES, site)
    return own, base(control, tuple(sorted({*PACKAGES, *BUILDING})), build)


def create(control: Control, state: ChangeState = ChangeState.DONE) -> Change:
    request = ask.CreateSite(name="shop", modules=("python",), upload=control.upload())
    return control.done(control.services.create_site(ROOT, request), state)


def spoil(control: Control) -> None:
    """The site's next build fails."""
    site, found = stored(control), building(control)
    failing = msgspec.structs.replace(found, commands=(msgspec.structs.replace(found.commands[0], argv=("false",)),))
    assert site.application is not None
    application = msgspec.structs.replace(site.application, building=failing)
    with control.services.store.write() as transaction:
        transaction.save_site(msgspec.structs.replace(site, application=application))


def said(change: Change) -> list[str]:
    return [event.text for event in change.events] + [str(problem) for problem in change.problems]


def built(control: Control) -> list[str]:
    """The bases on which builds have run."""
    return [each.base.key for each in control.agent.calls if isinstance(each, protocol.BuildRelease)]


def upgrade(control: Control, key: str, state: ChangeState = ChangeState.DONE) -> list[str]:
    return said(control.done(control.services.upgrade_bases(ROOT, ask.UpgradeBases(bases=(key,))), state))


@pytest.mark.parametrize(
    ("version", "many", "found"),
    [
        ("3.11.2-1+b1", 2, "3.11"),
        ("18.20.4+dfsg-1~deb12u1", 1, "18"),
        ("1:3.1", 2, "3.1"),
        ("2:8.2+93", 2, "8.2"),
        ("4", 2, "4"),
    ],
)
def test_the_numbers_of_a_version(version: str, many: int, found: str) -> None:
    assert numbers(version, many) == found


def test_a_build_says_what_it_was_made_for(control: Control) -> None:
    _own, build = bases(control)
    create(control)
    assert built(control) == [build.key] and building(control).made_for == {"python3": "3.11"}
    # It is kept when the site is composed again.
    control.done(control.services.configure_site(ROOT, "shop", ask.ConfigureSite(answers={"workers": 2})))
    assert building(control).made_for == {"python3": "3.11"}


def test_an_upgrade_to_another_version_builds_again(control: Control) -> None:
    own, build = bases(control)
    create(control)
    before = stored(control).release
    control.agent.updates = {own.key: NEWER, build.key: NEWER}
    lines = upgrade(control, own.key)
    site = stored(control)
    assert f"shop is built again: it was made for python3 3.11, and the base {site.base.key} has 3.13" in lines
    assert site.base.key != own.key and site.release != before
    assert control.show("shop").state == "running" and building(control).made_for == {"python3": "3.13"}
    # On a base for building that was renewed with it, and tried in a copy before.
    assert len(built(control)) == 2 and built(control)[1] != build.key
    (clone,) = [each for each in control.agent.calls if isinstance(each, protocol.CloneSite)]
    assert clone.release == site.release
    # The one that was live is still a release of the site.
    assert before in {each.digest for each in control.services.store.releases(site.id)}


def test_an_upgrade_within_a_version_does_not(control: Control) -> None:
    own, build = bases(control)
    create(control)
    control.agent.updates = {own.key: (protocol.PackageChange("python3", "3.11.2-1+b1", "3.11.9-1"),)}
    upgrade(control, own.key)
    assert stored(control).base.key != own.key and built(control) == [build.key]


def test_what_cannot_be_built_again_stays_on_the_old_base(control: Control) -> None:
    own, build = bases(control)
    create(control)
    before = stored(control)
    control.agent.updates = {own.key: NEWER, build.key: NEWER}
    spoil(control)
    lines = upgrade(control, own.key, ChangeState.FAILED)
    assert any("site shop does not work on the new base: the build failed: false ended" in line for line in lines)
    assert (stored(control).base.key, stored(control).release) == (own.key, before.release)
    assert control.show("shop").state == "running"
    assert list(control.agent.releases[before.id]) == [before.release]


def test_a_copy_that_fails_takes_its_content_along(control: Control) -> None:
    own, build = bases(control)
    create(control)
    before = stored(control)
    control.agent.updates = {own.key: NEWER, build.key: NEWER}
    control.agent.fail_next(Kind.WORKLOAD, "create", "it ended before it answered")
    upgrade(control, own.key, ChangeState.FAILED)
    assert list(control.agent.releases[before.id]) == [before.release]
    assert [each.digest for each in control.services.store.releases(before.id)] == [before.release]
    assert building(control).made_for == {"python3": "3.11"}


def test_an_old_base_for_building_is_renewed(control: Control) -> None:
    _own, build = bases(control, site="3.13.5-1")
    control.agent.updates = {build.key: NEWER}
    create(control)
    assert built(control) != [build.key] and building(control).made_for == {"python3": "3.13"}


def test_a_base_for_building_that_is_newer_than_the_site_is_refused(control: Control) -> None:
    own, _build = bases(control, build="3.13.5-1")
    lines = said(create(control, ChangeState.FAILED))
    assert any("makes what runs on python3 3.13, and the site's base has 3.11" in line for line in lines), lines
    assert any(f"alveole base upgrade {own.key}" in line for line in lines)


def test_a_build_that_fails_says_so_once_and_where_the_rest_is(control: Control) -> None:
    bases(control)
    create(control)
    spoil(control)
    request = ask.UpdateSite(upload=control.upload(b"other"))
    ended = control.done(control.services.update_site(ROOT, "shop", request), ChangeState.FAILED)
    (problem,) = ended.problems
    assert problem.message == "the build failed: false ended with status 1"
    assert problem.hint == f"all that it printed: alveole change show {ended.id}"
    assert [event.text for event in ended.events if event.level == "warning"] == []
    assert [event.text for event in ended.events if event.level == "build"] == ["$ false"]


def back(control: Control, state: ChangeState = ChangeState.DONE) -> list[str]:
    return said(control.done(control.services.rollback_bases(ROOT, ask.RollbackBases(sites=("shop",))), state))


def test_a_way_back_brings_the_content_that_fits(control: Control) -> None:
    own, build = bases(control)
    create(control)
    before = stored(control)
    control.agent.updates = {own.key: NEWER, build.key: NEWER}
    upgrade(control, own.key)
    (plan,) = control.services.preview_rollback(ROOT, ask.RollbackBases(sites=("shop",)))
    assert plan.content == "earlier"
    back(control)
    assert (stored(control).base.key, stored(control).release) == (own.key, before.release)
    assert building(control).made_for == {"python3": "3.11"} and len(built(control)) == 2
    assert control.show("shop").state == "running" and control.agent.violations == []


def test_newer_content_is_built_for_the_earlier_base(control: Control) -> None:
    own, build = bases(control)
    create(control)
    control.agent.updates = {own.key: NEWER, build.key: NEWER}
    upgrade(control, own.key)
    control.done(control.services.update_site(ROOT, "shop", ask.UpdateSite(upload=control.upload(b"other"))))
    newer, kept = stored(control).release, len(control.services.store.releases(stored(control).id))
    (plan,) = control.services.preview_rollback(ROOT, ask.RollbackBases(sites=("shop",)))
    assert plan.content == "rebuilt"
    # What can build for the base that may be gone back to stays for as long as that.
    assert control.services.preview_prune(ROOT, ask.PruneBases()) == ()
    control.agent.fail_next(Kind.WORKLOAD, "create", "it ended before it answered", temporary=False)
    back(control, ChangeState.FAILED)
    assert stored(control).release == newer and building(control).made_for == {"python3": "3.13"}
    assert len(control.services.store.releases(stored(control).id)) == kept
    back(control)
    site = stored(control)
    assert site.base.key == own.key and site.release != newer and building(control).made_for == {"python3": "3.11"}
    assert built(control)[-1] == build.key
    assert control.show("shop").state == "running"


def test_the_base_that_builds_run_on_is_upgraded_too(control: Control) -> None:
    """A compiler or a package manager with a hole is in no site, and yet handles what strangers wrote."""
    own, build = bases(control)
    create(control)
    control.agent.updates = {build.key: (protocol.PackageChange("g++", "1", "2", security=True),)}
    plan = control.services.preview_upgrade(ROOT, ask.UpgradeBases())
    assert [(each.key, each.sites, each.builds) for each in plan if each.changes] == [(build.key, (), ("shop",))]
    lines = upgrade(control, own.key)
    assert any(f"{build.key} → " in line and "used by builds of shop" in line for line in lines)
    control.done(control.services.update_site(ROOT, "shop", ask.UpdateSite(upload=control.upload(b"other"))))
    renewed = built(control)[-1]
    assert renewed != build.key and stored(control).base.key == own.key
    view = control.services.show_base(ROOT, renewed)
    assert view.builds_of == ("shop",) and control.services.show_base(ROOT, build.key).builds_of == ()
    # The one that builds run on is in use; the one before it is not.
    assert [each.key for each in control.services.preview_prune(ROOT, ask.PruneBases())] == [build.key]


def test_a_version_is_built_once_for_all_environments(control: Control) -> None:
    """S2: the same bytes everywhere; an environment on another Python refuses what was built for the first one's."""
    own, _ = bases(control)
    wanted = ask.CreateApp(name="shop", environments=("alpha", "prod"), modules=("python",), accept=Accept.AT_ONCE)
    control.done(control.services.create_app(ROOT, wanted))

    def send(version: str) -> None:
        sent = ask.SendVersion(version=version, upload=control.upload(version.encode()))
        control.done(control.services.send_version(ROOT, "shop", sent))

    def deliver(environment: str, version: str, state: ChangeState = ChangeState.DONE) -> Change:
        request = ask.DeliverVersion(version=version)
        return control.done(control.services.deliver_version(ROOT, "shop", environment, request), state)

    def deploy(environment: str) -> None:
        control.done(control.services.deploy_version(ROOT, "shop", environment, ask.DeployVersion()))

    send("1.0")
    for environment in ("alpha", "prod"):
        deliver(environment, "1.0")
        deploy(environment)
    app = control.services.apps.app("shop")
    assert app is not None
    built = [call for call in control.agent.calls if isinstance(call, protocol.BuildRelease)]
    assert [(call.site, call.number) for call in built] == [(app.store, app.number)]
    version = control.services.show_version(ROOT, "shop", "1.0")
    served = {control.show(each).release for each in ("shop-alpha", "shop-prod")}
    assert version.built and len(served) == 1 and version.release not in served
    site = control.services.store.site("shop-prod")
    assert site is not None and site.site.application is not None and site.site.application.building is not None
    assert site.site.application.building.made_for == {"python3": "3.11"}
    send("2.0")
    deliver("alpha", "2.0")
    deploy("alpha")
    control.agent.installed[own.key] = {"python3": "3.13.5-1"}
    ended = deliver("prod", "2.0", ChangeState.FAILED)
    assert "was built for python3 3.11, and this one has 3.13" in ended.problems[0].message


def test_a_version_whose_build_fails_can_be_delivered_again(control: Control) -> None:
    """What was sent is kept: a build that failed for a reason of the moment is tried again."""
    bases(control)
    wanted = ask.CreateApp(name="shop", environments=("alpha",), modules=("python",), accept=Accept.AT_ONCE)
    control.done(control.services.create_app(ROOT, wanted))
    sent = ask.SendVersion(version="1.0", upload=control.upload(b"1.0"))
    control.done(control.services.send_version(ROOT, "shop", sent))
    site = control.services.store.site("shop-alpha")
    assert site is not None and site.site.application is not None and site.site.application.building is not None
    good = site.site.application.building
    request = ask.DeliverVersion(version="1.0")
    for argv, state in ((("false",), ChangeState.FAILED), (good.commands[0].argv, ChangeState.DONE)):
        commands = (msgspec.structs.replace(good.commands[0], argv=argv),)
        application = msgspec.structs.replace(
            site.site.application, building=msgspec.structs.replace(good, commands=commands)
        )
        with control.services.store.write() as transaction:
            transaction.save_site(msgspec.structs.replace(site.site, application=application))
        control.done(control.services.deliver_version(ROOT, "shop", "alpha", request), state)
