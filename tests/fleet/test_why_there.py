"""``why`` of a site on another machine: each link of the one chain is broken in turn, here, between, and there."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleetkit import COMMAND, Pair

from instancekit import until

VOLUME = [{"name": "data", "path": "/data"}]


@pytest.fixture(scope="module")
def there(pair: Pair) -> Iterator[Pair]:
    """With the site ``omicron`` on the other machine."""
    if pair.sshd is None:
        pair.up()
    pair.let_in()
    if all(each["name"] != "far" for each in pair.main.api("GET", "/v1/nodes")):
        pair.add()
    pair.main.create("omicron", None, command=COMMAND, port=8000, volumes=VOLUME, node="far")
    until(lambda: whole(pair), 60, lambda: str(chain(pair)))
    yield pair
    if pair.sshd is None:
        pair.up()
    pair.main.destroy("omicron")
    pair.back()


def why(pair: Pair) -> dict[str, Any]:
    found: dict[str, Any] = pair.main.api("GET", "/v1/sites/omicron/why")
    return found


def chain(pair: Pair) -> list[dict[str, Any]]:
    links: list[dict[str, Any]] = why(pair)["links"]
    return links


def broken(pair: Pair) -> dict[str, Any] | None:
    return next((each for each in chain(pair) if not each["ok"]), None)


def whole(pair: Pair) -> bool:
    return broken(pair) is None


def is_broken(pair: Pair, name: str, machine: str) -> dict[str, Any]:
    """The first broken link, which is this one, with a cure."""

    def found() -> bool:
        link = broken(pair)
        return link is not None and (link["name"], link["machine"]) == (name, machine)

    until(found, 60, lambda: str(chain(pair)))
    link = broken(pair)
    assert link is not None and link["cure"], link
    return link


def proxy_of(place: Path) -> list[int]:
    """The workers of the edge whose files are below ``place``."""
    masters = subprocess.run(["pgrep", "-f", f"nginx: master.*{place}"], capture_output=True, text=True, check=False)
    return [
        int(pid)
        for master in masters.stdout.split()
        for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()
    ]


def test_one_chain(there: Pair) -> None:
    """What lies here, the line, what lies there, and the answer that a visitor gets, in that order."""
    links = [(each["name"], each["machine"]) for each in chain(there)]
    here = ["name", "address", "certificate", "proxy", "route", "line", "server"]
    assert links[: len(here)] == [(name, "") for name in here]
    at = [name for name, machine in links if machine == "far"]
    assert at[:6] == ["address", "proxy", "route", "container", "process", "application"]
    assert links.index(("proxy", "far")) < links.index(("front", "")) < links.index(("route", "far"))
    assert links[-1] == ("answer", "") and {"certificate", "answer"}.isdisjoint(at)
    found = why(there)
    assert found["broken"] == "" and found["site"]["id"] == there.main.site("omicron")["id"]
    assert found["last"]["id"] in [each["id"] for each in there.main.journal(site="omicron")], (
        "a change of this machine"
    )
    told = there.main.cli("why", "omicron").out
    assert "far: container" in told and "answer" in told


def test_route_of_this_machine(there: Pair) -> None:
    link = there.main.run_dir / "edge" / "routes" / "omicron.localhost"
    was = os.readlink(link)  # noqa: PTH115  Path would normalise the text
    try:
        # The loop makes it again within seconds, so that it is taken away until somebody has seen that.
        def gone() -> bool:
            link.unlink(missing_ok=True)
            found = broken(there)
            return found is not None and found["name"] == "route" and found["machine"] == ""

        until(gone, 60, lambda: str(chain(there)))
    finally:
        if not link.is_symlink():
            link.symlink_to(was)
    until(lambda: whole(there), 60, lambda: str(chain(there)))


def test_line_that_is_cut(there: Pair) -> None:
    """The machine is away: what lies here holds, the line does not, and the reason is said with the cure."""
    there.down()
    try:
        link = is_broken(there, "line", "")
        assert "node check far" in link["cure"]
        found = {each["name"]: each for each in chain(there)}
        assert found["route"]["ok"] and found["certificate"]["ok"]
        assert not found["server"]["ok"] and "refused" in found["server"]["came"].lower(), found["server"]
        assert "503" in found["answer"]["came"] and {each["machine"] for each in found.values()} == {""}
        said = there.main.cli("why", "omicron", status=3).out
        assert "line" in said and "cure" in said
    finally:
        there.up()
    until(lambda: whole(there), 60, lambda: str(chain(there)))


def test_line_that_the_proxy_may_not_pass(there: Pair) -> None:
    web = there.main.run_dir / "lines" / "far" / "web"
    told: list[dict[str, Any] | None] = []

    def seen() -> bool:
        # Whoever asks the machine there next lets the proxy in again.
        web.chmod(0o600)
        told.append(broken(there))
        return told[-1] is not None and told[-1]["name"] == "line"

    until(seen, 60, lambda: str(told))
    assert told[-1] is not None and "not let through" in told[-1]["came"] and told[-1]["cure"]
    there.main.cli("node", "check", "far")
    until(lambda: whole(there), 60, lambda: str(chain(there)))


def test_control_there_is_gone(there: Pair) -> None:
    """Visits go on, and only what that machine would say of itself is missing."""
    there.far.kill_role("control")
    try:
        link = is_broken(there, "server", "")
        assert "far" in link["asked"]
        found = {each["name"]: each for each in chain(there)}
        assert found["front"]["ok"] and found["answer"]["ok"] and found["line"]["ok"]
    finally:
        there.far.start()
    until(lambda: whole(there), 60, lambda: str(chain(there)))


def test_proxy_there_hangs(there: Pair) -> None:
    """It is started again by itself, so that its workers are stopped until somebody has seen it."""
    told: list[dict[str, Any]] = []
    hung: set[int] = set()

    def seen() -> bool:
        for pid in proxy_of(there.far.root):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                hung.add(pid)
        told[:] = chain(there)
        link = next((each for each in told if not each["ok"]), None)
        return link is not None and (link["name"], link["machine"]) == ("address", "far")

    try:
        until(seen, 120, lambda: str(told))
    finally:
        for pid in hung:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    link = next(each for each in told if not each["ok"])
    assert "does not answer" in link["came"] and link["cure"], link
    until(lambda: whole(there), 120, lambda: str(chain(there)))


def test_stopped_there(there: Pair) -> None:
    """Named with the machine, by the chain and by the command."""
    there.main.cli("site", "stop", "omicron")
    try:
        link = is_broken(there, "route", "far")
        assert "site start" in link["cure"]
        said = there.main.cli("why", "omicron", status=3).out
        assert "far: route" in said and "on far: begin there" in said
    finally:
        there.main.cli("site", "start", "omicron")
    until(lambda: whole(there), 60, lambda: str(chain(there)))


def test_the_site_there_is_gone(there: Pair) -> None:
    """Somebody removed it on that machine itself."""
    far = there.far
    far.destroy("omicron")
    try:
        link = is_broken(there, "server", "")
        assert "no site of this name" in link["came"] and "backup list" in link["cure"]
    finally:
        far.create("omicron", None, command=COMMAND, port=8000, volumes=VOLUME, domains=["omicron.localhost"])
    until(lambda: whole(there), 60, lambda: str(chain(there)))
