"""What a hand or an accident breaks comes back by itself and is journalled with its cause (faults 3, 18, 20)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from test_fault_killed import APP, word

from instance import Instance
from instancekit import page, run, until
from loadkit import Load


@pytest.fixture(scope="module")
def machine() -> Iterator[Instance]:
    with Instance() as made:
        made.create("still", page("static page"))
        made.create("app", word("one"), **APP)
        made.create("own", page("own name"), domains=["own.example.org"])
        yield made


def interface(machine: Instance, name: str) -> str:
    number = machine.site(name)["number"]
    slots = [each for each in machine.interfaces() if each[len(machine.prefix) : -1] == f"{number:x}"]
    assert slots
    return slots[0]


def all_answer(machine: Instance) -> None:
    for name in ("still", "app", "own", "own.example.org"):
        machine.until_answers(name)
    machine.until_kept()


def test_a_process_is_killed(machine: Instance) -> None:
    for name in ("still", "app"):
        pid = machine.workload_pid(name)
        os.kill(pid, signal.SIGKILL)
        until(lambda: machine.answers(name) and machine.workload_pid(name) != pid, 30)  # noqa: B023  waited for at once
        machine.until_repaired(f"{name}: workload/", "SIGKILL")
    all_answer(machine)


def test_a_veth_is_deleted(machine: Instance) -> None:
    name = interface(machine, "app")
    run("ip", "link", "del", name)
    until(lambda: name in machine.interfaces() or machine.answers("app"), 30)
    machine.until_repaired("app: workload/", "interface")
    all_answer(machine)


def test_a_route_is_deleted_or_changed(machine: Instance) -> None:
    link = machine.run_dir / "edge" / "routes" / "app.localhost"
    target = str(link.readlink())
    link.unlink()
    machine.until_answers("app", "one")
    machine.until_repaired("app: route/app.localhost")
    other = (machine.run_dir / "edge" / "routes" / "still.localhost").readlink()
    link.unlink()
    link.symlink_to(other)
    until(lambda: link.is_symlink() and str(link.readlink()).startswith(target.split(maxsplit=1)[0] + " "), 30)
    machine.until_answers("app", "one")
    all_answer(machine)


def test_a_certificate_link_is_deleted(machine: Instance) -> None:
    for domain in ("own.example.org", "app.localhost"):
        link = machine.run_dir / "edge" / "certs" / f"{domain}.pem"
        link.unlink()
        machine.until_answers(domain, https=True)
        machine.until_repaired(f"certificate/{domain}")


def test_the_rules_are_flushed(machine: Instance) -> None:
    """Fault 18: the rules come back, every element of every set too."""
    before = machine.nft()
    for family in ("inet", "bridge"):
        run("nft", "delete", "table", family, machine.tag)
    until(lambda: machine.nft() == before, 30, lambda: str(set(before) ^ set(machine.nft())))
    machine.until_repaired("firewall")
    run("nft", "flush", "table", "inet", machine.tag)
    until(lambda: machine.nft() == before, 30, lambda: str(set(before) ^ set(machine.nft())))
    all_answer(machine)


def test_the_proxy_is_stopped(machine: Instance) -> None:
    """Faults 7, 18: politely, and killed with all its workers."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        pid = machine.pid_of("nginx")
        os.kill(pid, number)
        until(lambda: (machine.run_dir / "edge" / "nginx.pid").exists() and machine.pid_of("nginx") != pid, 30)  # noqa: B023  waited for at once
        all_answer(machine)
    machine.until_repaired("edge")


def test_the_bridge_is_deleted(machine: Instance) -> None:
    """Fault 18."""
    run("ip", "link", "del", f"{machine.tag}br")
    machine.until_answers("app", "one", seconds=25)
    machine.until_repaired("network")
    all_answer(machine)


def test_the_agent_dies_and_sites_answer(machine: Instance) -> None:
    """Fault 20: nothing that serves notices; and the supervisor starts it again."""
    for role in ("agent", "control"):
        with Load(machine, "still", "app", "own", threads=2) as load:
            old = machine.pid_of(role)
            machine.kill_role(role)
            until(lambda: machine.pid_is_new(role, old), 30)  # noqa: B023  waited for at once
            machine.until_ready()
        load.check()
    machine.until_kept()
    machine.update("app", word("one"))
    all_answer(machine)


def test_everything_of_alveole_is_dead_and_sites_answer(machine: Instance) -> None:
    """Fault 20: sites do not need us; and what changed meanwhile is put right at the start."""
    pid = machine.workload_pid("app")
    with Load(machine, "still", "own", threads=2) as load:
        machine.stop()
        os.kill(pid, signal.SIGKILL)
        until(lambda: load.counts["200"] > 200, 30)
        machine.start()
        machine.until_answers("app", "one")
    load.check()
    all_answer(machine)


def test_a_reboot(machine: Instance) -> None:
    """Fault 19: only the disk is left; every promised site answers, what was stopped stays stopped."""
    machine.create("resting", page("resting"))
    machine.verb("resting", "stop")
    machine.cut()
    assert not machine.pids() and not machine.interfaces()
    machine.start()
    machine.until_kept(seconds=40)
    all_answer(machine)
    assert machine.fetch("resting").status == 503
    machine.destroy("resting")


def test_a_reboot_in_the_middle_of_many_changes(machine: Instance) -> None:
    """Fault 19: deploys, starts and stops are under way as the power goes."""
    for number in range(6):
        machine.create(f"m{number}", page("old"))
    changes = [machine.update(f"m{number}", page(f"new {number}"), wait=False)["id"] for number in range(4)]
    changes.append(machine.verb("m4", "stop", wait=False)["id"])
    changes.append(machine.update("app", word("two"), wait=False)["id"])
    machine.cut()
    machine.start()
    ends = [machine.ended(each) for each in changes]
    machine.until_kept(seconds=40)
    for number, change in enumerate(ends[:4]):
        wanted = f"new {number}" if change["state"] == "done" else "old"
        machine.until_answers(f"m{number}", wanted)
    assert machine.fetch("m4").status == 503
    machine.until_answers("m5", "old")
    assert machine.fetch("app").body == ("two" if ends[5]["state"] == "done" else "one")
    for number in range(6):
        machine.destroy(f"m{number}")
