"""Sites that sleep, over a whole instance: what is left of one, who wakes it, and deaths on the way to and fro.

Faults 1, 3, 11 and 16: whatever dies in between, the site is wholly asleep or wholly awake afterwards, and a visit
gets its page.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from instance import Instance
from instancekit import page, until

PYTHON = "/usr/bin/python3"
BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"}
CRAWLER = {"User-Agent": "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"}
#: Serves its content; ends at once when its volume says so.
SERVER = """
import http.server, os, sys
if os.path.exists("/data/broken"):
    sys.exit(3)
os.chdir("/site/current")
http.server.ThreadingHTTPServer(("0.0.0.0", 8000), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
#: What an instance has of the machine.
HELD = ("instances", "sockets", "mounts", "interfaces", "cgroups", "site processes", "log writers", "rules", "loops")


@pytest.fixture(scope="module")
def machine() -> Iterator[Instance]:
    with Instance(split=True, more="\n[sleep]\nlook_seconds = 0.3\nleast_seconds = 1\n") as made:
        made.create("busy", page("never sleeps"))
        yield made


@pytest.fixture
def site(machine: Instance) -> Iterator[str]:
    """A site with a program, a root of its own and a volume."""
    machine.start()
    server = [PYTHON, "-c", SERVER]
    volume = {"name": "data", "path": "/data"}
    machine.create("idle", page("dreams"), command=server, port=8000, volumes=[volume])
    yield "idle"
    machine.start()
    until(lambda: machine.site("idle")["change"] is None, 60)
    machine.destroy("idle")


def verbs(machine: Instance, name: str) -> list[str]:
    return [each["verb"] for each in machine.journal(site=name)]


def asleep(machine: Instance, name: str) -> bool:
    found = machine.site(name)
    return found["state"] == "asleep" and not found["problem"] and not found["change"]


def served(machine: Instance, name: str) -> bool:
    try:
        return machine.fetch(name, headers=BROWSER, seconds=60).status == 200
    except (OSError, http.client.HTTPException):
        return False


def test_asleep_nothing_is_there_and_one_visit_brings_it_back(machine: Instance, site: str) -> None:
    before = machine.site(site)
    machine.verb(site, "stop")
    stopped = machine.traces()
    machine.verb(site, "start")
    machine.cli("site", "sleep", site)
    found = machine.site(site)
    assert (found["state"], found["memory_bytes"], found["pids"]) == ("asleep", 0, 0)
    assert found["ipv4"] == before["ipv4"] and found["sleep"]["since"] is not None
    until(lambda: {each: machine.traces()[each] for each in HELD} == {each: stopped[each] for each in HELD}, 30)
    shown = machine.cli("site", "show", site).out
    assert "asleep" in shown and "a visit wakes it" in shown
    why = machine.cli("why", site, "--json", status=None).json
    assert why["broken"] == "" and why["links"][-1]["name"] == "asleep"

    assert machine.fetch(site, headers=CRAWLER).status == 503 and asleep(machine, site)
    assert "dreams" in machine.fetch(site, headers=BROWSER, seconds=60).body
    assert machine.site(site)["state"] == "running"


def test_a_hundred_first_visits_wake_once(machine: Instance) -> None:
    machine.verb("busy", "sleep")
    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda _: machine.fetch("busy", headers=BROWSER, seconds=60), range(100)))
    assert {(each.status, "never sleeps" in each.body) for each in answers} == {(200, True)}
    until(lambda: verbs(machine, "busy").count("wake") == 1, 30)


def test_idle_falls_asleep_and_stays_so_when_alveole_dies(machine: Instance, site: str) -> None:
    machine.cli("site", "set", site, "--sleep-after", "1s")
    until(lambda: asleep(machine, site), 60, machine.tail)
    before = verbs(machine, site)
    machine.kill_role("control")
    assert machine.fetch(site, headers=BROWSER).status == 503, "nobody is there to wake it, and nobody waits"
    machine.kill_role("agent")
    machine.start()
    until(lambda: asleep(machine, site), 60, machine.tail)
    assert verbs(machine, site) == before
    # What needs what runs inside wakes it first.
    assert machine.cli("site", "exec", site, "--", "/usr/bin/printf", "%s", "inside").out == "inside"
    machine.cli("site", "set", site, "--sleep-after", "never")
    until(lambda: machine.site(site)["state"] == "running", 60, machine.tail)


@pytest.mark.parametrize(
    ("role", "point"),
    [("agent", "workload-running"), ("control", "services.woken")],
)
def test_killed_while_it_wakes(machine: Instance, site: str, role: str, point: str) -> None:
    machine.verb(site, "sleep")
    machine.kill_role(role)
    machine.start(**{role: point})
    with ThreadPoolExecutor(1) as pool:
        # It comes too early for the one that dies, or gets its page from the next one.
        pool.submit(served, machine, site)
        until(lambda: not machine.is_up(role), 60, f"{point} was not reached")
        machine.start()
    until(lambda: served(machine, site), 60, machine.tail)
    until(lambda: machine.site(site)["state"] == "running" and not machine.site(site)["problem"], 60, machine.tail)


def test_a_broken_wake_is_named(machine: Instance, site: str) -> None:
    """A site that cannot start is not asleep any more but failed; ``why`` names its container and not its route."""
    machine.cli("site", "exec", site, "--", "/usr/bin/touch", "/data/broken")
    machine.verb(site, "sleep")
    answer = machine.fetch(site, headers=BROWSER, seconds=60)
    assert answer.status == 503 and int(answer.headers["Retry-After"]) > 0
    until(lambda: machine.site(site)["state"] == "failed", 60, machine.tail)
    # In the moment of another try there is a process.
    until(lambda: machine.cli("why", site, "--json", status=None).json["broken"] == "container", 60, machine.tail)
