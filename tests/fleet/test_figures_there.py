"""Quality, report and wall count a site on another machine by that machine's own figures, also while it is away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from fleetkit import Pair

from instancekit import page, until

_NUMBERS = ("availability", "answered", "promises_kept", "deploys", "deploys_failed", "rollbacks")


@pytest.fixture(scope="module")
def there(pair: Pair) -> Iterator[Pair]:
    """With the site ``lambda`` on the other machine, updated once, and ``near`` on the main one."""
    if pair.sshd is None:
        pair.up()
    pair.let_in()
    if all(each["name"] != "far" for each in pair.main.api("GET", "/v1/nodes")):
        pair.add()
    pair.main.create("near", page("near"))
    pair.main.create("lambda", page("one"), node="far")
    until(lambda: "one" in pair.main.fetch("lambda").body, 60)
    pair.main.update("lambda", page("two"))
    yield pair
    if pair.sshd is None:
        pair.up()
    for name in ("lambda", "near"):
        pair.main.destroy(name)
    pair.back()


def quality(pair: Pair, name: str = "lambda") -> dict[str, Any]:
    (found,) = [each for each in pair.main.api("GET", "/v1/quality") if each["site"] == name]
    return dict(found)


def test_by_its_own_figures(there: Pair) -> None:
    main, far = there.main, there.far

    def same() -> bool:
        own = far.api("GET", "/v1/sites/lambda/quality")
        found = quality(there)
        return own["deploys"] >= 1 and all(found[name] == own[name] for name in ("deploys", "rollbacks"))

    until(same, 120, lambda: f"{quality(there)} {far.api('GET', '/v1/sites/lambda/quality')}")
    found = quality(there)
    assert found["node"] == "far" and found["seen_at"] is None
    assert quality(there, "near")["node"] == ""
    one = main.api("GET", "/v1/sites/lambda/quality")
    assert one["node"] == "far" and one["deploys"] == found["deploys"]
    report = main.api("GET", "/v1/reports/" + time.strftime("%Y-%m", time.gmtime()))
    assert [each["node"] for each in report["sites"] if each["site"] == "lambda"] == ["far"]
    assert "lambda (far)" in main.cli("report").out


def test_on_the_wall(there: Pair) -> None:
    main = there.main

    def counted() -> bool:
        wall = main.api("GET", "/v1/figures/wall")
        (standing,) = wall["nodes"]
        return bool(standing["reached"] and standing["running"] == 1 and wall["running"] == 2 == wall["sites"])

    until(counted, 120, lambda: str(main.api("GET", "/v1/figures/wall")["nodes"]))
    there.far.verb("lambda", "stop")
    until(lambda: main.api("GET", "/v1/figures/wall")["nodes"][0]["running"] == 0, 60)
    there.far.verb("lambda", "start")
    until(counted, 60, lambda: str(main.api("GET", "/v1/figures/wall")["nodes"]))


@pytest.mark.turn
def test_while_it_is_away(there: Pair) -> None:
    """As it was seen last, with when; also after control here was started anew."""
    main = there.main
    before = quality(there)
    there.down()
    try:
        until(lambda: not main.api("GET", "/v1/figures/wall")["nodes"][0]["reached"], 60)
        main.kill_role("control")
        main.start()
        until(lambda: quality(there)["seen_at"] is not None, 60, lambda: str(quality(there)))
        found = quality(there)
        assert {name: found[name] for name in _NUMBERS} == {name: before[name] for name in _NUMBERS}
        one = main.api("GET", "/v1/sites/lambda/quality")
        assert one["seen_at"] == found["seen_at"] and one["deploys"] == before["deploys"]
        wall = main.api("GET", "/v1/figures/wall")
        assert wall["sites"] == 2 and [each["node"] for each in wall["nodes"] if not each["reached"]] == ["far"]
        assert "lambda" not in wall["broken"], "it is not known"
        said = main.cli("report").out
        assert "lambda (far)" in said
    finally:
        there.up()
    until(lambda: main.api("GET", "/v1/figures/wall")["nodes"][0]["reached"], 60)
    until(lambda: quality(there)["seen_at"] is None, 60)
