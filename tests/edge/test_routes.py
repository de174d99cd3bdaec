"""The routing table as an actuator: links written, read back, taken away; and ten thousand of them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from tempfile import TemporaryDirectory

import pytest

from alveole.actuators.routes import RoutesActuator, link_name
from alveole.config import Settings, parse
from alveole.host import paths
from alveole.model.resource import PLATFORM, Action, Kind, PanelSpec, ResourceId, RouteSpec, RouteTarget, Step, stamp
from alveole.model.site import Access

pytestmark = pytest.mark.root
SITE = "saaaaaaaaaaab"
OTHER = "saaaaaaaaaaac"


@pytest.fixture
def settings() -> Iterator[Settings]:
    with TemporaryDirectory(prefix="alv", dir="/tmp") as directory:
        yield parse(
            {
                "domain": "alv.test",
                "paths": {"state": f"{directory}/s", "run": f"{directory}/r"},
                "users": {"edge": "www-data", "control": "nobody"},
                "network": {"ipv4": "10.64.0.0/15", "first_ipv4": "10.64.1.1", "gateway_ipv4": "10.64.1.254"},
            }
        )


def spec(host: str = "blog.alv.test", **other: object) -> RouteSpec:
    values: dict[str, object] = {
        "site": SITE,
        "number": 1,
        "slot": 0,
        "target": RouteTarget.WORKLOAD,
        "port": None,
        "domain": host,
    }
    return RouteSpec(**{**values, **other})


def write(actuator: RoutesActuator, route: RouteSpec, site: str = SITE) -> ResourceId:
    name = route.domain if route.path is None else f"@{route.path}"
    resource = ResourceId(Kind.ROUTE, site, name)
    done = actuator.apply(Step(resource, Action.CREATE, stamp(route), route))
    assert done.done, done
    return resource


@pytest.mark.parametrize(
    ("route", "uses"),
    [
        (spec(), "0"),
        (spec(slot=1), "1"),
        (spec(port=8000), "0"),
        (spec(port=8000, slot=1, number=700), "1"),
        (spec(target=RouteTarget.STOPPED), None),
        (spec(target=RouteTarget.ASLEEP), None),
        (spec(target=RouteTarget.ASLEEP_FOR_ALL), None),
        (spec("alv.test", path="/a/b.c/~d_e-f/g", https_only=True), "0"),
        (spec(access=Access(("10.0.0.0/8", "fd00::/8"), ("10.1.0.0/16",))), "0"),
    ],
)
def test_what_is_written_is_observed(settings: Settings, route: RouteSpec, uses: str | None) -> None:
    actuator = RoutesActuator(settings)
    begun = time.time()
    resource = write(actuator, route)
    (seen,) = actuator.observe().found
    assert (seen.id, seen.digest, seen.ready, seen.defects) == (resource, stamp(route), True, ())
    assert [use.name for use in seen.uses] == ([uses] if uses else [])
    assert begun - 1 < float(seen.detail["since"]) < time.time() + 1
    assert actuator.observe({OTHER}).found == ()
    assert actuator.apply(Step(resource, Action.DELETE)).done
    assert actuator.apply(Step(resource, Action.DELETE)).done
    assert actuator.observe().found == ()


def test_a_switch_is_newer_than_what_it_replaces(settings: Settings) -> None:
    """Draining counts from the moment the route left the old instance."""
    actuator = RoutesActuator(settings)
    write(actuator, spec())
    first = float(actuator.observe().found[0].detail["since"])
    time.sleep(0.05)
    write(actuator, spec(slot=1))
    assert float(actuator.observe().found[0].detail["since"]) > first


def test_drift_is_seen(settings: Settings) -> None:
    """Fault 18: a route removed, bent, or replaced by a file by hand."""
    actuator = RoutesActuator(settings)
    write(actuator, spec())
    link = paths.routes(settings) / "blog.alv.test"
    text = link.readlink()
    link.unlink()
    link.symlink_to(str(text).replace(".0/", ".1/"))
    (seen,) = actuator.observe().found
    assert not seen.ready
    assert seen.defects[0].code == "changed"
    link.unlink()
    link.write_text("no link")
    assert actuator.observe().found == ()
    write(actuator, spec())
    assert link.is_symlink()
    link.unlink()
    assert actuator.observe().found == ()


def test_a_text_copied_to_another_name_is_no_route_of_that_name(settings: Settings) -> None:
    actuator = RoutesActuator(settings)
    write(actuator, spec())
    table = paths.routes(settings)
    (table / "bank.alv.test").symlink_to((table / "blog.alv.test").readlink())
    found = {seen.id.name: seen for seen in actuator.observe().found}
    assert found["blog.alv.test"].ready
    assert not found["bank.alv.test"].ready


def test_one_site_does_not_take_or_remove_the_name_of_another(settings: Settings) -> None:
    actuator = RoutesActuator(settings)
    write(actuator, spec())
    resource = ResourceId(Kind.ROUTE, OTHER, "blog.alv.test")
    mine = spec(site=OTHER, number=2)
    refused = actuator.apply(Step(resource, Action.CREATE, stamp(mine), mine))
    assert not refused.done and refused.temporary
    assert actuator.apply(Step(resource, Action.DELETE)).done
    assert actuator.observe().found[0].id.scope == SITE


@pytest.mark.parametrize("name", ["", ".", "..", "a" * 256, "@" + "/x" * 200])
def test_a_name_that_no_file_can_have_is_refused(settings: Settings, name: str) -> None:
    step = Step(ResourceId(Kind.ROUTE, SITE, name), Action.CREATE, "0" * 32, spec())
    done = RoutesActuator(settings).apply(step)
    assert not done.done and not done.temporary


def test_too_many_rules_are_refused(settings: Settings) -> None:
    many = spec(access=Access(tuple(f"10.{i // 256}.{i % 256}.0/24" for i in range(400))))
    step = Step(ResourceId(Kind.ROUTE, SITE, "blog.alv.test"), Action.CREATE, stamp(many), many)
    done = RoutesActuator(settings).apply(step)
    assert not done.done and not done.temporary
    assert "join networks" in done.message


def test_what_cannot_be_looked_at_is_unknown(settings: Settings) -> None:
    paths.edge(settings).mkdir(parents=True)
    paths.routes(settings).write_text("a file")
    assert {kind for kind, _ in RoutesActuator(settings).observe().unknown} == {Kind.ROUTE, Kind.PANEL}


def test_the_pages_are_a_route_of_the_platform(settings: Settings) -> None:
    wanted = PanelSpec("panel.alv.test")
    id = ResourceId(Kind.PANEL, PLATFORM, "panel.alv.test")
    actuator = RoutesActuator(settings)
    assert actuator.apply(Step(id, Action.CREATE, stamp(wanted), wanted)).done
    text = os.readlink(paths.routes(settings) / "panel.alv.test")  # noqa: PTH115  Path would normalise the text
    assert text.startswith(f"unix:{settings.panel_socket} site=platform https=1 stamp={stamp(wanted)} sum=")
    (found,) = actuator.observe((PLATFORM,)).found
    assert (found.id, found.digest, found.ready) == (id, stamp(wanted), True)
    assert actuator.observe((SITE,)).found == ()
    assert actuator.apply(Step(id, Action.DELETE)).done and actuator.observe().found == ()


def test_the_logs_of_a_destroyed_site_go(settings: Settings) -> None:
    actuator = RoutesActuator(settings)
    write(actuator, spec())
    assert paths.edge_log(settings, SITE).is_dir()
    actuator.forget(SITE)
    assert not paths.edge_log(settings, SITE).exists()
    actuator.forget("")
    assert (settings.logs / "edge").is_dir()


def test_ten_thousand_links_are_observed_in_a_blink(settings: Settings) -> None:
    actuator = RoutesActuator(settings)
    write(actuator, spec("site0.alv.test"))
    table = paths.routes(settings)
    for number in range(1, 10_000):
        host = f"site{number}.alv.test"
        from alveole.actuators.routes import text_for

        os.symlink(text_for(settings, spec(host), "0" * 32, host), table / link_name(host))  # noqa: PTH211  Path would normalise the text
    begun = time.process_time()
    assert len(actuator.observe().found) == 10_000
    assert time.process_time() - begun < 1.0


def test_the_links_of_one_site_are_known_without_reading_all(settings: Settings) -> None:
    """Whatever happens to the directory meanwhile, by ourselves, by another process or by hand, is seen."""
    actuator, other = RoutesActuator(settings), RoutesActuator(settings)
    table = paths.routes(settings)
    for number in range(50):
        write(actuator, spec(f"far{number}.alv.test", site=OTHER), OTHER)
    write(actuator, spec("blog.alv.test"))

    def settled() -> None:
        """As when nothing has changed for a while."""
        before = time.time() - 10
        os.utime(table, (before, before))
        actuator.observe()

    def names(site: str = SITE) -> set[str]:
        return {each.id.name for each in actuator.observe((site,)).found}

    settled()
    assert names() == {"blog.alv.test"} and len(names(OTHER)) == 50 and names("saaaaaaaaaaad") == set()
    more = write(actuator, spec("www.alv.test"))
    assert names() == {"blog.alv.test", "www.alv.test"}, "written by itself"
    (table / "blog.alv.test").rename(table / "by-hand.alv.test")
    assert names() == {"by-hand.alv.test", "www.alv.test"}, "what was changed by hand"
    settled()
    write(other, spec("new.alv.test"))
    assert "new.alv.test" in names(), "written by another process"
    settled()
    actuator.apply(Step(more, Action.DELETE, "", None))
    (table / "by-hand.alv.test").unlink()
    (table / "far1.alv.test").unlink()
    assert names() == {"new.alv.test"} and len(names(OTHER)) == 49
