"""The real agent or the real control is killed at every named point, over a whole instance.

Faults 1-4, 6-8, 11, 16, 20: afterwards every acknowledged change has ended, what is wanted is reached, the sites
that were there answered all along, and the machine holds nothing that a clean run would not have left.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import itertools
import tarfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from instance import Instance
from instancekit import ApiError, page, until
from loadkit import Load

PYTHON = "/usr/bin/python3"
SERVER = (
    "import http.server as h, os, pathlib\n"
    "class S(h.SimpleHTTPRequestHandler):\n"
    " def do_GET(self):\n"
    "  t = pathlib.Path('/site/current/word').read_bytes()\n"
    "  self.send_response(200); self.send_header('Content-Length', str(len(t))); self.end_headers()\n"
    "  self.wfile.write(t)\n"
    "h.ThreadingHTTPServer(('0.0.0.0', 8000), S).serve_forever()\n"
)
APP: dict[str, Any] = {"command": [PYTHON, "-c", SERVER], "port": 8000, "volumes": [{"name": "data", "path": "/data"}]}


def word(text: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        info = tarfile.TarInfo("word")
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


@pytest.fixture(scope="module")
def machine() -> Iterator[Instance]:
    with Instance(split=True) as made:
        made.create("bystander", page("still here"))
        made.create("app", word("warm"), **APP)
        made.ended(made.api("POST", "/v1/backups", {"site": "app"})["id"], good=True)
        clean(made)
        until(lambda: len(made.traces()["sites"]) == 1, 30, "the files of a destroyed site stay")
        yield made


_turn = itertools.count()


class Story:
    """One operation on the site ``app``, begun while a role is to die."""

    def __init__(self, alveole: Instance) -> None:
        self.alveole = alveole
        self.backup = ""

    def create(self) -> Any:
        return self.alveole.create("app", word("one"), wait=False, **APP)

    def update(self) -> Any:
        return self.alveole.update("app", word(f"two{next(_turn)}"), wait=False)

    def stop(self) -> Any:
        return self.alveole.verb("app", "stop", wait=False)

    def destroy(self) -> Any:
        return self.alveole.api("DELETE", "/v1/sites/app?confirm=app")

    def save(self) -> Any:
        return self.alveole.api("POST", "/v1/backups", {"site": "app"})

    def restore(self) -> Any:
        return self.alveole.api("POST", f"/v1/backups/{self.backup}/restore", {})


#: Story, what must be there before, role, points.
CASES: dict[str, tuple[tuple[str, ...], dict[str, tuple[str, ...]]]] = {
    "create": (
        (),
        {
            "agent": (
                "release-unpacked",
                "release-renamed",
                "storage-begin",
                "storage-made",
                "workload-begin",
                "veth-created",
                "veth-attached",
                "workload-network",
                "workload-root",
                "workload-running",
                "workload-ready",
                "address-written",
            ),
            "control": (
                "store.before-commit",
                "store.after-commit",
                "services.accept",
                "services.accepted",
                "services.imported",
                "services.content-stored",
                "reconcile.before-step:2",
                "reconcile.after-step:3",
            ),
        },
    ),
    "update": (
        ("create",),
        {
            "agent": ("release-unpacked", "release-renamed", "workload-root", "workload-ready", "workload-gone"),
            "control": ("services.imported", "services.content-stored", "reconcile.after-step:2"),
        },
    ),
    "stop": (("create",), {"agent": ("workload-gone",), "control": ("reconcile.after-step:1",)}),
    "destroy": (
        ("create", "stop"),
        {"agent": ("storage-delete",), "control": ("services.before-remove", "services.removed")},
    ),
    "save": (("create",), {"agent": ("backup-spooled",), "control": ("services.backup-made",)}),
    "restore": (
        ("create", "save"),
        {"agent": ("restore-read", "restore-unpacked"), "control": ("services.restored",)},
    ),
}
ALL = [
    (story, role, point)
    for story, (_before, roles) in CASES.items()
    for role, points in roles.items()
    for point in points
]


@pytest.mark.turn
@pytest.mark.parametrize(("story", "role", "point"), ALL, ids=lambda value: str(value))
def test_killed(machine: Instance, story: str, role: str, point: str) -> None:
    """Faults 1-4, 6, 8, 11, 16, 20."""
    before = settled(machine)
    tale = Story(machine)
    for each in CASES[story][0]:
        ended = machine.ended(getattr(tale, each)()["id"], good=True)
        tale.backup = str((ended.get("result") or {}).get("backup") or tale.backup)
    had = [each["name"] for each in machine.api("GET", "/v1/sites")]
    with Load(machine, "bystander", threads=1, pause=0.01) as load:
        machine.roles[role].terminate()
        machine.roles.pop(role).wait(30)
        machine.start_role(role, point)
        machine.until_ready()
        acknowledged = begin(getattr(tale, story))
        until(lambda: not machine.is_up(role), 30, lambda: f"{point} is never passed\n{machine.tail()}")
        assert machine.roles.pop(role).wait() == -9
        time.sleep(0.1)
        machine.start_role(role)
        machine.until_ready()
        outcome = machine.ended(acknowledged["id"]) if acknowledged is not None else None
        machine.until_kept()
    load.check(10)
    check_promise(machine, story, had, outcome)
    clean(machine)
    if acknowledged is None:
        # What was sent for a request that was never accepted stays for the client's next try, and goes after a while.
        for file in (machine.state / "control" / "uploads").iterdir():
            file.unlink()
    until(lambda: settled(machine) == before, 30, lambda: f"left: {difference(before, settled(machine))}")


@pytest.mark.turn
@pytest.mark.parametrize("point", ["visit-begin", "visit-mounted", "visit-running", "work-kept", "restore-work"])
def test_killed_while_somebody_works(machine: Instance, point: str) -> None:
    """Fault 16: the container of a working copy is swept away with all that it hung on; what was stored in the copy is
    there, and what was begun is done by doing it again: nobody ever sees half of a copy out of a backup."""
    before = settled(machine)
    backup = ""
    machine.create("desk", page("first"))

    def write(name: str) -> int:
        """By the file manager, which works in the container that the SSH door uses."""
        form = {"at": "", "etag": "", "name": name, "text": "kept"}
        transport = httpx.HTTPTransport(uds=str(machine.api_socket))
        with httpx.Client(transport=transport, base_url="http://x", timeout=30) as http:
            return http.post("/site/desk/files/edit", data=form).status_code

    assert write("old.txt") == 303
    if point == "restore-work":
        backup = machine.ended(machine.api("POST", "/v1/backups", {"site": "desk"})["id"], good=True)["result"][
            "backup"
        ]
        until(lambda: not machine.api("GET", "/v1/sites/desk/work")["visitors"], 20, machine.tail)
        machine.api("DELETE", "/v1/sites/desk/work")
    machine.roles["agent"].terminate()
    machine.roles.pop("agent").wait(30)
    machine.start_role("agent", point)
    machine.until_ready()
    begun = None
    if point == "work-kept":
        begun = begin(lambda: machine.api("POST", "/v1/sites/desk/work/publish", {}))
    elif point == "restore-work":
        begun = begin(lambda: machine.api("POST", f"/v1/backups/{backup}/restore", {}))
    else:
        assert write("new.txt") == 503
    until(lambda: not machine.is_up("agent"), 30, lambda: f"{point} is never passed\n{machine.tail()}")
    assert machine.roles.pop("agent").wait() == -9
    machine.start_role("agent")
    machine.until_ready()
    outcome = machine.ended(begun["id"]) if begun is not None else None
    if point == "restore-work":
        work = machine.api("GET", "/v1/sites/desk/work")
        assert work["files"] == (1 if outcome is not None and outcome["state"] == "done" else 0)
        if not work["files"]:
            machine.ended(machine.api("POST", f"/v1/backups/{backup}/restore", {})["id"], good=True)
    assert write("new.txt") == 303, machine.tail()
    machine.ended(machine.api("POST", "/v1/sites/desk/work/publish", {})["id"], good=True)
    for name in ("old.txt", "new.txt"):
        assert machine.fetch("desk", f"/{name}").body == "kept"
    machine.destroy("desk")
    clean(machine)
    until(lambda: settled(machine) == before, 30, lambda: f"left: {difference(before, settled(machine))}")


@contextlib.contextmanager
def past_days_closed(machine: Instance) -> Iterator[None]:
    """Whatever day the block has opened is closed after it, also when it fails."""
    try:
        yield
    finally:
        if not machine.is_up("agent"):
            machine.roles.pop("agent", None)
            machine.start_role("agent")
            machine.until_ready()
        for day in machine.api("GET", "/v1/past-days"):
            machine.ended(machine.api("DELETE", f"/v1/past-days/{day['id']}")["id"], good=True)


@pytest.mark.turn
@pytest.mark.parametrize("point", ["restore-read", "restore-unpacked", "storage-made", "workload-running"])
def test_killed_while_a_past_day_is_opened(machine: Instance, point: str) -> None:
    """Fault 11: nothing of the copy stays mounted or runs unknown to anybody: the day is open in the end, or it was
    refused and can be opened again; the live site answers all along."""
    before = settled(machine)
    machine.create("app", word("then"), **APP)
    backup = machine.ended(machine.api("POST", "/v1/backups", {"site": "app"})["id"], good=True)["result"]["backup"]
    machine.roles["agent"].terminate()
    machine.roles.pop("agent").wait(30)
    machine.start_role("agent", point)
    machine.until_ready()
    with past_days_closed(machine), Load(machine, "app", threads=1, pause=0.01) as load:
        begun = machine.api("POST", f"/v1/backups/{backup}/open", {"length": "1h"})
        until(lambda: not machine.is_up("agent"), 60, lambda: f"{point} is never passed\n{machine.tail()}")
        assert machine.roles.pop("agent").wait() == -9
        machine.start_role("agent")
        machine.until_ready()
        opened = machine.ended(begun["id"])
        if opened["state"] != "done":
            assert opened["problems"], opened
            until(lambda: not machine.api("GET", "/v1/past-days"), 90, "what was refused goes by itself")
            again = machine.api("POST", f"/v1/backups/{backup}/open", {"length": "1h"})
            opened = machine.ended(again["id"], good=True)
        (day,) = machine.api("GET", "/v1/past-days")
        assert (day["id"], day["state"]) == (opened["result"]["past"], "open")
        # Only who is signed in sees it; that it is asked at all, the link of its name says.
        assert machine.fetch(day["name"], https=True).status == 303
    load.check(10)
    clean(machine)
    until(lambda: settled(machine) == before, 60, lambda: f"left: {difference(before, settled(machine))}")


def begin(what: Callable[[], Any]) -> Any:
    """The acknowledged change; ``None`` when the answer was lost."""
    with contextlib.suppress(OSError, http.client.HTTPException, ApiError):
        return what()
    return None


def check_promise(machine: Instance, story: str, had: list[str], outcome: Any) -> None:
    """What was acknowledged is so; and what failed has changed nothing."""
    sites = {each["name"]: each for each in machine.api("GET", "/v1/sites")}
    done = outcome is not None and outcome["state"] == "done"
    if story == "create":
        assert "app" in sites or not done
        if "app" in sites:
            assert machine.fetch("app").body == "one"
    elif story in ("update", "save", "restore"):
        assert machine.fetch("app").status == 200
        if story == "update" and outcome is not None:
            assert machine.fetch("app").body.startswith("two") is done, outcome
        if story == "save" and done:
            assert machine.api("GET", "/v1/backups")
    elif story == "stop" and outcome is not None:
        assert done and sites["app"]["state"] == "stopped" and machine.fetch("app").status == 503
    elif story == "destroy" and done:
        assert "app" not in sites


def clean(machine: Instance) -> None:
    for each in machine.api("GET", "/v1/backups"):
        machine.ended(machine.api("DELETE", f"/v1/backups/{each['id']}")["id"], good=True)
    if any(each["name"] == "app" for each in machine.api("GET", "/v1/sites")):
        machine.destroy("app")


def settled(machine: Instance) -> dict[str, list[str]]:
    """The machine's facts, without what has a new name at each start."""
    found = machine.traces()
    bystander = machine.site("bystander")["id"]
    found["restic locks"] = sorted(each.name for each in (machine.state / "backups").glob("locks/*"))
    found["files of the bystander"] = sorted(
        str(each.relative_to(machine.state)) for each in (machine.state / "sites" / bystander).rglob("*")
    )
    found["snapshots"] = sorted(each.name for each in (machine.state / "backups").glob("snapshots/*"))
    return found


def difference(one: dict[str, list[str]], two: dict[str, list[str]]) -> dict[str, list[str]]:
    return {key: sorted(set(one[key]) ^ set(two[key])) for key in one if one[key] != two[key]}


@pytest.mark.turn
@pytest.mark.parametrize("point", ["bridge-created", "rules-unsealed"])
def test_killed_while_the_network_is_made(point: str) -> None:
    """Fault 6: nothing leaks, and until the rules are there nothing is open."""
    with Instance(split=True) as alveole:
        alveole.create("one", page("one"))
        alveole.destroy("one")
        until(lambda: not alveole.traces()["sites"], 30)
        before = alveole.traces()
        alveole.create("one", page("one"))
        alveole.stop()
        alveole.cut()
        alveole.start_role("agent", point)
        alveole.start_role("control")
        until(lambda: not alveole.is_up("agent"), 30, lambda: f"{point} is never passed\n{alveole.tail()}")
        alveole.roles.pop("agent").wait()
        alveole.start_role("agent")
        alveole.until_ready()
        alveole.until_kept("one")
        alveole.until_answers("one", "one")
        alveole.destroy("one")
        # The parent of all cgroups is made anew with the first site, as before.
        until(lambda: alveole.traces() == before, 30, lambda: str(difference(before, alveole.traces())))
