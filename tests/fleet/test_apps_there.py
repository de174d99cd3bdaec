"""Environments of an application on two machines: versions go there, are switched there, and are told here."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Iterator
from typing import Any

import pytest
from fleetkit import Pair

from instance import Instance
from instancekit import archive, until
from loadkit import Load

#: Serves what a version holds; whoever asks is told which one answered.
COMMAND = [
    "/usr/bin/python3",
    "-c",
    "import http.server,os;os.chdir('/site/current');"
    "http.server.ThreadingHTTPServer(('',8000),http.server.SimpleHTTPRequestHandler).serve_forever()",
]
APP = "/v1/apps/shop"
SHOP = {
    "name": "shop",
    "environments": ["alpha", "prod"],
    "nodes": {"prod": "far"},
    "command": COMMAND,
    "port": 8000,
    "accept": "at-once",
}
PROD = f"{APP}/environments/prod"


@pytest.fixture(scope="module")
def fleet(pair: Pair) -> Iterator[Pair]:
    if pair.sshd is None:
        pair.up()
    pair.let_in()
    if all(each["name"] != "far" for each in pair.main.api("GET", "/v1/nodes")):
        pair.add()
    yield pair
    with contextlib.suppress(Exception):
        for each in pair.main.api("GET", "/v1/apps"):
            pair.main.cli("app", "destroy", each["name"], "--yes", status=None)
    for each in pair.main.api("GET", "/v1/sites"):
        pair.main.destroy(each["name"])
    pair.main.cli("node", "remove", "far")


@pytest.fixture(scope="module")
def shop(fleet: Pair) -> Iterator[Pair]:
    """The application ``shop``: ``alpha`` on this machine, ``prod`` on the other; 1.0 and 2.0 ran in ``alpha``."""
    change = fleet.main.api("POST", "/v1/apps", SHOP)
    fleet.main.ended(change["id"], good=True)
    for version in ("1.0", "2.0"):
        send(fleet.main, version)
        through_alpha(fleet.main, version)
    yield fleet


def send(main: Instance, version: str) -> None:
    upload = main.upload(archive({"index.html": f"version {version}", "only/in.txt": version * 500}))
    change = main.api("POST", f"{APP}/versions", {"version": version, "upload": upload})
    main.ended(change["id"], good=True)


def asked(main: Instance, environment: str, verb: str, **body: Any) -> Any:
    return main.api("POST", f"{APP}/environments/{environment}/{verb}", body)


def done(main: Instance, environment: str, verb: str, **body: Any) -> Any:
    return main.ended(asked(main, environment, verb, **body)["id"], good=True)


def through_alpha(main: Instance, version: str) -> None:
    done(main, "alpha", "deliver", version=version)
    done(main, "alpha", "deploy")


def prod(main: Instance) -> Any:
    return main.api("GET", APP)["environments"][1]


def test_delivered_deployed_and_rolled_back_there(shop: Pair) -> None:
    """The same bytes, checked before the switch; what is where is told here; kept versions are kept there."""
    main, far = shop.main, shop.far
    assert prod(main)["node"] == "far" and prod(main)["live"] is None
    done(main, "prod", "deliver", version="1.0")
    assert prod(main)["delivered"]["version"] == "1.0"
    here = main.api("GET", f"{APP}/versions/1.0")
    there = far.api("GET", f"{APP}/versions/1.0")
    assert there["release"] == here["release"]
    plan = main.api("POST", f"{PROD}/deploy?dry_run=true", {})
    assert plan["steps"] and plan["refused"] == []
    ended = done(main, "prod", "deploy")
    assert ended["state"] == "done"
    until(lambda: "version 1.0" in main.fetch("shop-prod").body, 60, main.tail)
    assert prod(main)["live"]["version"] == "1.0" and prod(main)["state"] == "running"
    assert main.fetch("shop-prod", "/only/in.txt").body == "1.0" * 500
    done(main, "prod", "deliver", version="2.0")
    done(main, "prod", "deploy")
    until(lambda: "version 2.0" in main.fetch("shop-prod").body, 60, main.tail)
    assert prod(main)["back_to"] == ["1.0"]
    done(main, "prod", "rollback")
    until(lambda: "version 1.0" in main.fetch("shop-prod").body, 60, main.tail)
    shown = prod(main)
    assert shown["live"]["version"] == "1.0"
    history = main.api("GET", f"{APP}/history?environment=prod")
    assert [(each["version"], each["stage"]) for each in history][:2] == [("1.0", "live"), ("2.0", "left")]
    assert history[1]["went_back"] is True


def fresh(main: Instance, version: str) -> None:
    """Sent and lying ready in ``prod``, without having been in ``alpha``."""
    send(main, version)
    done(main, "prod", "deliver", version=version, reason="a test")


def serves(pair: Pair, version: str) -> None:
    """Visitors get it, and both machines say so."""
    main = pair.main
    until(lambda: f"version {version}" in main.fetch("shop-prod").body, 60, lambda: main.fetch("shop-prod").body)
    assert prod(main)["live"]["version"] == version
    (there,) = pair.far.api("GET", APP)["environments"]
    assert there["live"]["version"] == version


def test_no_request_fails_meanwhile(shop: Pair) -> None:
    main = shop.main
    fresh(main, "2.1")
    with Load(main, "shop-prod", threads=2) as load:
        done(main, "prod", "deploy", reason="a test")
        until(lambda: "version 2.1" in main.fetch("shop-prod").body, 60, main.tail)
        done(main, "prod", "rollback")
        until(lambda: "version 1.0" in main.fetch("shop-prod").body, 60, main.tail)
    assert load.bad == [] and sum(load.counts.values()) > 20
    serves(shop, "1.0")


def test_the_life_cycle_is_decided_here(shop: Pair) -> None:
    """What ran before, and who has approved: asked here, wherever an environment lives."""
    main = shop.main
    send(main, "2.2")
    refused = main.cli("app", "deliver", "shop", "prod", "2.2", "--json", status=3)
    assert "has not run in ALPHA" in refused.out
    through_alpha(main, "2.2")
    main.api("PATCH", PROD, {"approvals": 1})
    done(main, "prod", "deliver", version="2.2")
    refused = main.cli("app", "deploy", "shop", "prod", "--json", status=3)
    assert "approvals" in refused.fields
    main.api("PATCH", PROD, {"approvals": 0})
    done(main, "prod", "deploy")
    serves(shop, "2.2")


def test_a_check_that_fails_there_switches_nothing(shop: Pair) -> None:
    """A scenario of another environment is asked of the new copy there, before any request goes to it."""
    main, far = shop.main, shop.far
    fresh(main, "2.3")
    text = "steps:\n  - {request: GET /, expect: {status: 418}}\n"
    main.api("PUT", "/v1/sites/shop-alpha/checks/teapot", {"text": text})
    try:
        ended = main.ended(asked(main, "prod", "deploy", reason="a test")["id"])
        assert ended["state"] == "failed" and "teapot" in str(ended["problems"])
    finally:
        main.api("DELETE", "/v1/sites/shop-alpha/checks/teapot")
    serves(shop, "2.2")
    history = main.api("GET", f"{APP}/history?environment=prod")
    assert (history[0]["version"], history[0]["stage"]) == ("2.3", "delivered"), "it lies ready still"
    done(main, "prod", "deploy", reason="a test")
    assert far.api("GET", "/v1/sites/shop-prod/checks") == [], "it was brought, and is taken away again"
    serves(shop, "2.3")


def test_the_line_is_cut_in_the_middle(shop: Pair) -> None:
    """The other machine ends it by itself; the change here goes on when the way is back."""
    main = shop.main
    fresh(main, "2.4")
    change = asked(main, "prod", "deploy", reason="a test")
    path = f"{APP}/history?environment=prod"
    until(lambda: shop.far.journal(site="shop-prod")[0]["verb"] == "deploy", 60, main.tail)
    shop.down()
    try:
        until(lambda: "2.4" in str(shop.far.api("GET", path)[0]), 60)
        until(lambda: shop.far.api("GET", path)[0]["stage"] == "live", 60, shop.far.tail)
        assert main.api("GET", f"/v1/changes/{change['id']}")["state"] == "running"
    finally:
        shop.up()
    main.ended(change["id"], good=True)
    serves(shop, "2.4")


def test_a_machine_that_is_away(shop: Pair) -> None:
    """What was last told is shown and marked; nothing begins, and what runs there goes on."""
    main = shop.main
    shop.down()
    try:
        until(lambda: prod(main)["state"] == "unreachable", 60, main.tail)
        shown = prod(main)
        assert shown["live"]["version"] == "2.4" and shown["node"] == "far" and shown["seen_at"]
        assert "far is away" in main.cli("app", "show", "shop").err
        send(main, "2.5")
        refused = main.cli("app", "deliver", "shop", "prod", "2.5", "--pass", "a test", "--json", status=5)
        assert refused.status == 5
        assert prod(main)["delivered"] is None
        plan = main.api("POST", f"{PROD}/rollback?dry_run=true", {})
        assert plan["refused"], "it says that the machine is away"
    finally:
        shop.up()
    until(lambda: prod(main)["state"] == "running", 60, main.tail)
    # What the people of that machine do there is told here too.
    far = shop.far
    far.ended(far.api("POST", f"{PROD}/rollback", {"version": "2.3"})["id"], good=True)
    until(lambda: prod(main)["live"]["version"] == "2.3", 60, main.tail)


def killed(main: Instance, points: tuple[str, ...], verb: str, body: dict[str, Any]) -> Any:
    """Ask for a change and let control die at each of these points, one after the other; the change, well ended."""
    key = f"killed-{verb}-{body.get('version', '')}-{points[0]}"
    path = f"{PROD}/{verb}"
    main.kill_role("control")
    try:
        for number, point in enumerate(points):
            main.start_role("control", point)
            if not number:
                main.until_ready()
                # Control may be gone before it has answered.
                with contextlib.suppress(OSError, http.client.HTTPException):
                    main.api("POST", path, body, key=key)
            until(lambda: not main.is_up("control"), 60, lambda: f"not yet at {point}: {main.tail()}")  # noqa: B023  waited for at once
            main.roles.pop("control").wait()
    finally:
        if "control" in main.roles:
            # With a point that it would still come to.
            main.kill_role("control")
        main.start()
    return main.ended(main.api("POST", path, body, key=key)["id"], good=True)


@pytest.mark.turn
def test_control_here_dies(shop: Pair) -> None:
    """Faults 3 and 8: begun there once however often it is sent; the change here ends by itself at the next start."""
    main, far = shop.main, shop.far
    send(main, "3.0")
    killed(
        main, ("far.packed", "far.sent", "far.asked", "far.learnt"), "deliver", {"version": "3.0", "reason": "a test"}
    )
    assert [each["version"] for each in far.api("GET", f"{APP}/history")].count("3.0") == 1
    assert prod(main)["delivered"]["version"] == "3.0"
    killed(main, ("delivery.saved", "far.asked", "far.ended"), "deploy", {"reason": "a test"})
    serves(shop, "3.0")
    deploys = [each for each in far.journal(site="shop-prod") if each["verb"] == "deploy" and "3.0" in each["reason"]]
    assert len(deploys) == 1
    killed(main, ("far.asked",), "rollback", {"version": "2.3"})
    serves(shop, "2.3")


@pytest.mark.turn
@pytest.mark.parametrize(
    ("role", "verb", "point"),
    [
        ("control", "deliver", "versions.imported"),
        ("control", "deliver", "delivery.copied"),
        ("control", "deploy", "delivery.wanted"),
        ("control", "deploy", "delivery.switched"),
        ("agent", "deliver", "release-copied"),
    ],
)
def test_control_or_agent_there_dies(shop: Pair, role: str, verb: str, point: str) -> None:
    """Wholly old or wholly new, and told here as it is."""
    main, far = shop.main, shop.far
    version = f"4.{role}-{point}"
    send(main, version)
    if verb == "deploy":
        done(main, "prod", "deliver", version=version, reason="a test")
    before = prod(main)["live"]["version"]
    far.kill_role(role)
    far.start_role(role, point)
    far.until_ready()
    change = asked(main, "prod", verb, version=version, reason="a test")
    until(lambda: not far.is_up(role), 120, lambda: f"not yet at {point}: {far.tail()}")
    assert f"version {before}" in main.fetch("shop-prod").body or verb == "deploy"
    far.roles.pop(role).wait()
    far.start()
    ended = main.ended(change["id"], good=role == "control")
    if ended["state"] == "failed":
        # As here: what is done beside what runs is not waited for; asked again, it is done.
        assert ended["problems"][0]["message"]
        main.ended(asked(main, "prod", verb, version=version, reason="a test")["id"], good=True)
    if verb == "deploy":
        serves(shop, version)
    else:
        assert prod(main)["delivered"]["version"] == version
        serves(shop, before)


def test_what_does_not_go(shop: Pair) -> None:
    """Each refusal says why, and what to do instead."""
    main, far = shop.main, shop.far
    refused = main.cli("app", "sync", "shop", "--from", "prod", "--to", "alpha", "--content", "--json", status=3)
    assert refused.fields == {"source"}
    refused = main.cli("site", "move", "shop-prod", "--to", "here", "--json", status=3)
    assert "PROD of the application shop" in refused.out
    refused = main.cli("app", "create", "other", "--env", "a,b", "--node", "c=far", "--json", status=2)
    assert refused.fields == {"nodes"}
    refused = main.cli("app", "create", "other", "--env", "a,b", "--node", "b=nowhere", "--json", status=2)
    assert refused.fields == {"node"}
    far.create("other-b", None, command=COMMAND, port=8000, stopped=True)
    refused = main.cli("app", "create", "other", "--env", "a,b", "--node", "b=far", "--json", status=2)
    assert "a site 'other-b' of its own" in refused.out
    assert [each["name"] for each in main.api("GET", "/v1/apps")] == ["shop"]
    far.destroy("other-b")


def test_one_more_environment_there_and_all_taken_apart(shop: Pair) -> None:
    main, far = shop.main, shop.far
    main.cli("app", "add-env", "shop", "demo", "--before", "prod", "--node", "far")
    assert [each["name"] for each in far.api("GET", APP)["environments"]] == ["prod", "demo"]
    send(main, "5.0")
    done(main, "demo", "deliver", version="5.0", reason="a test")
    done(main, "demo", "deploy", reason="a test")
    until(lambda: "version 5.0" in main.fetch("shop-demo").body, 60, main.tail)
    shown = main.cli("app", "show", "shop").out
    assert "NODE" in shown and "far" in shown and "here" in shown
    main.cli("app", "destroy", "shop", "--yes")
    assert far.api("GET", "/v1/apps") == [] and main.api("GET", "/v1/apps") == []
    assert main.site("shop-prod")["node"] == "far", "its environments go on as plain sites"


def test_who_may_reach_it_is_in_force_before_it_serves(fleet: Pair) -> None:
    """One more environment on the other machine has the access rules of the one that it is made like."""
    main, far = fleet.main, fleet.far
    main.cli("app", "create", "guarded", "--env", "alpha")
    change = main.api("PATCH", "/v1/sites/guarded-alpha", {"allow": ["10.0.0.0/8"], "https_only": True})
    main.ended(change["id"], good=True)
    main.cli("app", "add-env", "guarded", "prod", "--like", "alpha", "--node", "far")
    there = far.site("guarded-prod")
    assert there["access"]["allow"] == ["10.0.0.0/8"] and there["https_only"] is True and there["wanted"] == "stopped"
    refused = main.cli("app", "add-env", "guarded", "demo", "--like", "alpha", "--node", "far", "--json", status=2)
    assert refused.fields == {"like"}
    main.cli("app", "destroy", "guarded", "--yes")
    assert far.api("GET", "/v1/apps") == []
