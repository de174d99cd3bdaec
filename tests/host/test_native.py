"""Instances for real: start, answer, end, repair, and being found again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from nativefixtures import VOLUME, Cell, Limits, Process, cell, msgspec, wait_for

from alveole.actuators.releases import Releases
from alveole.agent.protocol import CheckHealth, Link
from alveole.agent.trial import Trials
from alveole.backends.base import Session
from alveole.backends.native import lower
from alveole.host import disk, instances, paths, syscalls
from alveole.host.sandbox import Sandbox
from alveole.model.resource import Action
from alveole.model.site import MIB, HealthCheck

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def machine() -> Iterator[Cell]:
    with cell("n") as made:
        yield made


def traces(machine: Cell, number: int, slot: int = 0) -> list[str]:
    """Whatever of an instance is left on the machine."""
    spec = machine.static(number, slot)
    name = lower.instance_name(spec.site, slot)
    net = machine.settings.addressing().instance(number, slot)
    machine.network.settle()
    found = [f"cgroup {name}"] if name in machine.backend.cgroups.names() else []
    found += [point for point in syscalls.mount_points(machine.settings.run) if f"/{spec.site}" in point]
    found += [net.interface] if net.interface in machine.network.interfaces() else []
    for place in (
        paths.instance(machine.settings, spec.site, slot),
        paths.sockets(machine.settings, spec.site, slot),
        machine.settings.run / "crun" / name,
    ):
        found += [str(place)] if os.path.lexists(place) else []
    return found


def test_static_site_from_start_to_end(machine: Cell) -> None:
    machine.content(1, {"index.html": "<h1>hello</h1>", "sub/index.htm": "sub"})
    spec = machine.must_start(machine.static(1))
    assert machine.get(spec) == (200, "<h1>hello</h1>")
    assert machine.get(spec, "/sub/") == (200, "sub")
    assert machine.get(spec, "/missing")[0] == 404
    assert machine.get(spec, "/../../etc/passwd")[0] == 400
    seen = machine.observed(spec)
    assert seen is not None and seen.ready and not seen.defects
    assert [str(use) for use in seen.uses] == [f"base/platform/{spec.base}"]
    assert machine.start(spec).done, "creating again is a no-op"
    assert machine.pid(spec) == seen.detail["pid"]
    usage = machine.backend.usage()[spec.site]
    assert 0 < usage.memory_bytes < 8 * MIB and usage.cpu_seconds > 0 and usage.pids >= 1
    assert machine.stop(spec).done
    assert machine.observed(spec) is None
    assert traces(machine, 1) == []
    assert not (machine.settings.run / "sites" / spec.site).exists()
    assert machine.stop(spec).done, "deleting again is a no-op"


def test_content_is_switched_by_one_rename(machine: Cell) -> None:
    machine.content(2, {"index.html": "old"})
    spec = machine.must_start(machine.static(2))
    place = paths.content(machine.settings, spec.site)
    (place / "releases/new").mkdir()
    (place / "releases/new/index.html").write_text("new")
    (place / "next").symlink_to("releases/new")
    (place / "next").rename(place / "current")
    assert machine.get(spec) == (200, "new")


def test_one_process_in_a_root_of_its_own(machine: Cell) -> None:
    spec = machine.must_start(machine.python(3, env={"GREETING": "good day"}, volumes=VOLUME, stop_seconds=3))
    code, text = machine.inside(
        spec,
        "import os;print(os.getuid(), os.environ['GREETING'], os.environ['ALVEOLE_SOCKET']);"
        "open('/data/kept','w').write('x'); open('/tmp/answer','w').write('1+1')",
    )
    assert (code, text) == (0, "1000 good day /run/alveole/web.sock\n")
    assert machine.get(spec) == (200, "2")
    with_data = machine.observed(spec)
    assert with_data is not None
    assert f"storage/{spec.site}/1" in [str(use) for use in with_data.uses]
    assert wait_for(lambda: "starting" in machine.log(spec)), "what it prints is logged"
    assert machine.stop(spec).done
    kept = paths.volume(paths.data_dir(machine.settings, spec.site, False), 1, "data") / "kept"
    assert kept.stat().st_uid == paths.site_uid(machine.settings, 3)


def test_root_is_kept_over_a_stop_and_dropped_by_an_update(machine: Cell) -> None:
    note = "open('/site/note','w').write('x')"
    seen = "import os;print(os.path.exists('/site/note'))"
    spec = machine.must_start(machine.python(4))
    # The root belongs to container root: only /tmp, /run and volumes are the site user's own.
    layer = paths.root_dir(paths.data_dir(machine.settings, spec.site, False), 0) / "upper"
    assert machine.inside(spec, note)[0] != 0
    (layer / "note").write_text("written by a process of the site that is root in its container")
    machine.stop(spec)
    machine.must_start(spec)
    assert machine.inside(spec, seen.replace("/site/note", "/note"))[1] == "True\n"
    newer = machine.must_start(msgspec.structs.replace(spec, slot=1))
    assert machine.inside(newer, seen.replace("/site/note", "/note"))[1] == "False\n"
    machine.stop(spec)
    assert not layer.exists(), "the old root goes with the old instance"
    assert machine.get(newer)[0] == 200
    machine.stop(newer)


def test_tcp_port(machine: Cell) -> None:
    web = (Process("web", ("/usr/bin/python3", "-m", "http.server", "80", "--directory", "/etc")),)
    spec = machine.must_start(
        machine.spec(5, 0, static=False, writable=True, processes=web, limits=Limits(1000, 64 * MIB, 16), port=80)
    )
    own = machine.settings.addressing().instance(5, 0).own4
    with socket.create_connection((str(own), 80), 5) as link:
        link.sendall(b"GET /passwd HTTP/1.0\r\n\r\n")
        assert b"200 OK" in link.recv(200)
    machine.stop(spec)


def test_what_ends_while_it_is_waited_for_fails_at_once(machine: Cell) -> None:
    spec = machine.command(6, "/usr/bin/python3", "-c", "print('no module named app'); raise SystemExit(3)")
    begin = time.monotonic()
    outcome = machine.start(spec)
    assert time.monotonic() - begin < 5 < spec.ready_seconds
    assert not outcome.done and outcome.temporary
    assert "status 3" in outcome.message, outcome
    assert "no module named app" in outcome.tail
    assert traces(machine, 6) == []
    assert machine.observed(spec) is None


def test_what_does_not_answer_in_time_is_taken_away(machine: Cell) -> None:
    spec = machine.command(7, "/usr/bin/sleep", "60", ready_seconds=1)
    outcome = machine.start(spec)
    assert not outcome.done and "made no socket" in outcome.message, outcome
    assert traces(machine, 7) == []


def test_answer_500_is_not_ready(machine: Cell) -> None:
    spec = machine.python(8, "import os; open('/tmp/answer','w').write('1/0')", ready_seconds=1)
    assert not machine.start(spec).done
    assert traces(machine, 8) == []


def test_program_that_is_not_there(machine: Cell) -> None:
    outcome = machine.start(machine.command(9, "/nowhere/app"))
    assert not outcome.done
    assert any("/nowhere/app" in line for line in (outcome.message, *outcome.tail)), outcome
    assert traces(machine, 9) == []


def test_end_of_a_process_is_told_with_its_cause(machine: Cell) -> None:
    machine.content(10, {"index.html": "x"})
    spec = machine.must_start(machine.static(10))
    machine.ended.clear()
    os.kill(machine.pid(spec), signal.SIGKILL)
    assert wait_for(lambda: machine.ended == [spec.site])
    seen = machine.observed(spec)
    assert seen is not None and not seen.ready
    assert [(defect.code, defect.cause) for defect in seen.defects] == [("exited", "its process was ended by SIGKILL")]
    assert machine.step(spec, Action.REPAIR).done
    assert machine.get(spec)[0] == 200
    assert machine.observed(spec).defects == ()
    machine.stop(spec)


def test_lost_interface_is_plugged_again_without_a_restart(machine: Cell) -> None:
    """Fault 18: an interface deleted by hand is noticed and comes back; the process goes on."""
    web = (Process("web", ("/usr/bin/python3", "-m", "http.server", "8000")),)
    spec = machine.must_start(
        machine.spec(11, 0, static=False, writable=True, processes=web, limits=Limits(1000, 64 * MIB, 16), port=8000)
    )
    net = machine.settings.addressing().instance(11, 0)
    pid = machine.pid(spec)
    subprocess.run(["ip", "link", "delete", net.interface], check=True)
    for scopes in ([spec.site], None):
        found = [item for item in machine.backend.observe(scopes).found if item.id.scope == spec.site]
        assert [defect.code for defect in found[0].defects] == ["interface-missing"]
    assert machine.step(spec, Action.REPAIR).done
    seen = machine.observed(spec)
    assert seen is not None and seen.ready and not seen.defects and seen.detail["pid"] == pid
    socket.create_connection((str(net.own4), 8000), 5).close()
    subprocess.run(["ip", "link", "set", net.interface, "nomaster"], check=True)
    machine.backend.observe(None)
    seen = machine.observed(spec)
    assert seen is not None and [defect.code for defect in seen.defects] == ["interface-loose"]
    assert machine.step(spec, Action.REPAIR).done
    machine.backend.observe(None)
    assert machine.observed(spec).defects == ()
    socket.create_connection((str(net.own4), 8000), 5).close()
    machine.stop(spec)


def test_dead_logger_is_replaced_and_stops_nobody(machine: Cell) -> None:
    spec = machine.must_start(machine.python(12))
    logger = machine.backend.output.logger(spec.site)
    assert logger is not None
    os.kill(logger, signal.SIGKILL)
    os.waitpid(logger, 0)
    assert machine.get(spec)[0] == 200, "a writer never gets SIGPIPE"
    seen = machine.observed(spec)
    assert seen is not None and [defect.code for defect in seen.defects] == ["not-logged"]
    pid = machine.pid(spec)
    assert machine.step(spec, Action.REPAIR).done
    assert machine.pid(spec) == pid
    assert wait_for(lambda: "asked /" in machine.log(spec)), "nothing printed meanwhile is lost"
    machine.stop(spec)


def test_a_program_of_the_site_is_never_taken_for_its_logger(machine: Cell) -> None:
    # It puts the FIFO that it prints to where a logger has it.
    spec = machine.must_start(machine.python(27, "import os; os.dup2(1, 0)"))
    logger = machine.backend.output.logger(spec.site)
    assert logger is not None
    os.kill(logger, signal.SIGKILL)
    os.waitpid(logger, 0)
    log = paths.site_log(machine.settings, spec.site)
    fifo = paths.disk_mount(machine.settings, spec.site).parent / "log" / "output"
    name = lower.instance_name(spec.site, spec.slot)
    (of_site,) = (each for each in machine.backend.cgroups.pids(name) if same(Path(f"/proc/{each}/fd/0"), fifo))
    assert machine.step(spec, Action.REPAIR).done
    fresh = machine.backend.output.logger(spec.site)
    assert fresh is not None and fresh != of_site
    # While it becomes another program it has no arguments for a moment.
    assert wait_for(lambda: str(log) in Path(f"/proc/{fresh}/cmdline").read_text())
    # One of its own kind whose record is lost is found still.
    (fifo.parent.parent / "logger.json").unlink()
    assert machine.step(spec, Action.REPAIR).done
    assert machine.backend.output.logger(spec.site) == fresh
    machine.stop(spec)


def same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


class Slow(NamedTuple):
    """The back end of ``machine``, on a machine that notices late that a program has ended."""

    machine: Cell

    def frozen(self, site: str) -> AbstractContextManager[None]:
        return self.machine.backend.frozen(site)

    def exec(self, site: str, slot: int, argv: tuple[str, ...], *, tty: bool, uid: int | None) -> Session:
        session = self.machine.backend.exec(site, slot, argv, tty=tty, uid=uid)
        killed = threading.Event()

        def kill(number: int) -> None:
            session.kill(number)
            killed.set()

        def wait() -> object:
            assert killed.wait(30)
            return session.wait()

        return msgspec.structs.replace(session, kill=kill, wait=wait)


def test_a_program_that_ended_well_at_the_last_moment_is_not_too_late(machine: Cell) -> None:
    spec = machine.must_start(machine.python(28))
    trials = Trials(machine.settings, Releases(machine.settings, Sandbox()), Slow(machine))

    def asked(*argv: str) -> Link:
        (link,) = trials.check(CheckHealth(spec.site, spec.slot, (HealthCheck("after", argv),), 5.0))
        return link

    ended = asked("/usr/bin/echo", "warm")
    assert (ended.ok, ended.came) == (True, "status 0: warm")
    late = asked("/usr/bin/sleep", "60")
    assert (late.ok, late.came) == (False, "no answer within 5 s")
    machine.stop(spec)


def test_replace_starts_the_new_one_under_the_same_name(machine: Cell) -> None:
    spec = machine.must_start(machine.python(13, env={"VERSION": "1"}))
    newer = msgspec.structs.replace(spec, env={"VERSION": "2"})
    assert machine.step(newer, Action.REPLACE).done
    assert machine.inside(newer, "import os;print(os.environ['VERSION'])") == (0, "2\n")
    machine.stop(newer)


def test_instances_are_found_again_by_the_next_agent(machine: Cell) -> None:
    """Fault 20: sites never stop when the agent does, and the next one watches them again."""
    spec = machine.must_start(machine.python(14))
    dead = machine.must_start(machine.python(15))
    pid = machine.pid(spec)
    machine.backend.close()
    os.kill(machine.pid(dead), signal.SIGKILL)
    time.sleep(0.1)
    machine.ended.clear()
    machine.backend = machine.new_backend()
    assert machine.pid(spec) == pid and machine.get(spec)[0] == 200
    seen = machine.observed(dead)
    assert seen is not None and [defect.code for defect in seen.defects] == ["exited"]
    os.kill(pid, signal.SIGKILL)
    assert wait_for(lambda: machine.ended == [spec.site])
    for each in (spec, dead):
        assert machine.stop(each).done
    assert traces(machine, 14) == traces(machine, 15) == []


def test_reused_process_id_is_not_taken_for_the_instance(machine: Cell) -> None:
    spec = machine.must_start(machine.python(16))
    state = instances.load(machine.settings, spec.site, 0)
    assert state is not None and state.running
    other = msgspec.structs.replace(state, pid=os.getpid())
    assert not other.running
    instances.save(machine.settings, other)
    seen = machine.observed(spec)
    assert seen is not None and not seen.ready and seen.defects
    assert machine.stop(spec).done, "and what runs is taken away nonetheless"
    assert traces(machine, 16) == []


def test_interrupted_start_is_seen_and_goes(machine: Cell) -> None:
    """Faults 3 and 6: what a killed agent had begun is observed as damaged, and nothing of it is left."""
    spec = machine.static(17)
    place = paths.instance(machine.settings, spec.site, 0)
    machine.content(17, {"index.html": "x"})
    place.mkdir()
    machine.backend.cgroups.create(place.name, spec.limits)
    fd = machine.network.plug(17, 0, internet=False)
    os.close(fd)
    machine.started.add((spec.site, 0))
    seen = machine.observed(spec)
    assert seen is not None and seen.digest == "" and [defect.code for defect in seen.defects] == ["damaged"]
    assert machine.start(spec, Action.REPLACE).done
    assert machine.get(spec)[0] == 200
    assert machine.stop(spec).done
    assert traces(machine, 17) == []


def test_stop_waits_for_the_request_in_flight(machine: Cell) -> None:
    slow = (
        "import signal, sys, time\n"
        "def end(*_): time.sleep(0.5); print('ended well', flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)"
    )
    spec = machine.must_start(machine.python(18, slow))
    begin = time.monotonic()
    assert machine.stop(spec).done
    assert 0.4 < time.monotonic() - begin < 3
    assert "ended well" in machine.log(spec)


def test_what_does_not_stop_is_killed_after_its_grace(machine: Cell) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    spec = machine.must_start(machine.python(19, deaf, stop_seconds=1))
    begin = time.monotonic()
    assert machine.stop(spec, grace_seconds=0.2).done
    assert 1.1 < time.monotonic() - begin < 3
    assert traces(machine, 19) == []


def test_several_processes_stop_in_reverse_order(machine: Cell) -> None:
    from nativefixtures import PYTHON, SERVER

    last = (
        "import signal,sys,time\n"
        "def end(*a): print('%s ends', flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('%s runs', flush=True)\n"
    )
    web = "signal.signal(signal.SIGTERM, end)\n"
    processes = (
        Process("first", (PYTHON, "-c", last % ("first", "first") + "while True: time.sleep(60)"), order=10),
        Process("web", (PYTHON, "-c", last % ("web", "web") + web + SERVER)),
        Process("crash", (PYTHON, "-c", "print('crashing', flush=True); raise SystemExit(1)")),
    )
    spec = machine.must_start(
        machine.spec(20, 0, static=False, writable=True, processes=processes, limits=Limits(2000, 256 * MIB, 64))
    )
    assert machine.get(spec)[0] == 200
    assert wait_for(lambda: machine.log(spec).count("crashing") >= 2), "one that crashes is started again"
    web_pid = next(
        pid
        for pid in machine.backend.cgroups.pids(f"{spec.site}.0")
        if b"web ends" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    os.kill(web_pid, signal.SIGKILL)
    assert wait_for(lambda: machine.log(spec).count("web runs") == 2), "and so is one that is killed"
    begin = time.monotonic()
    assert machine.stop(spec).done
    assert time.monotonic() - begin < 2
    log = machine.log(spec)
    assert 0 < log.index("web ends") < log.index("first ends"), log
    assert traces(machine, 20) == []


def test_last_words_are_kept_when_their_writer_is_slow(machine: Cell) -> None:
    from nativefixtures import PYTHON

    talk = (
        "import signal,sys,time\n"
        "def end(*a): print('last words', flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('begins', flush=True)\n"
        "while True: time.sleep(60)"
    )
    talking = (Process("talk", (PYTHON, "-c", talk), stop_signal="SIGTERM"),)
    spec = machine.spec(
        29, 0, static=False, writable=False, processes=talking, health="", limits=Limits(1000, 128 * MIB, 64)
    )
    machine.must_start(spec)
    assert wait_for(lambda: "begins" in machine.log(spec))
    writer = machine.backend.output.logger(spec.site)
    assert writer is not None
    os.kill(writer, signal.SIGSTOP)
    waking = threading.Timer(0.7, os.kill, (writer, signal.SIGCONT))
    waking.start()
    try:
        assert machine.stop(spec).done
    finally:
        waking.join()
    assert "last words" in machine.log(spec)


def test_exec_with_a_terminal(machine: Cell) -> None:
    spec = machine.must_start(machine.python(21))
    session = machine.backend.exec(spec.site, 0, ["/bin/sh"], tty=True, uid=None)
    (master,) = session.fds
    session.resize(40, 111)
    os.write(master, b"stty size; tty; exit 7\n")
    output = b""
    try:
        while part := os.read(master, 4096):
            output += part
    except OSError:
        pass
    os.close(master)
    assert b"40 111" in output and b"/dev/pts/" in output
    assert session.wait() == 7
    machine.stop(spec)


def test_exec_is_killed_by_its_signal(machine: Cell) -> None:
    spec = machine.must_start(machine.python(22))
    session = machine.backend.exec(spec.site, 0, ["/bin/sleep", "60"], tty=False, uid=None)
    assert wait_for(lambda: len(machine.backend.cgroups.pids(f"{spec.site}.0")) >= 4)
    time.sleep(0.05)
    session.kill(signal.SIGTERM)
    assert session.wait() == 128 + signal.SIGTERM
    for fd in session.fds:
        os.close(fd)
    assert list((machine.settings.run / "exec").iterdir()) == []
    machine.stop(spec)


def test_exec_ends_with_the_instance(machine: Cell) -> None:
    spec = machine.must_start(machine.python(23))
    session = machine.backend.exec(spec.site, 0, ["/bin/sleep", "60"], tty=False, uid=None)
    time.sleep(0.1)
    assert machine.stop(spec).done
    assert session.wait() != 0
    for fd in session.fds:
        os.close(fd)
    assert traces(machine, 23) == []


def test_limited_disk_is_a_partition_and_survives_a_restart(machine: Cell) -> None:
    limits = Limits(1000, 128 * MIB, 64, None, 32 * MIB)
    spec = machine.must_start(machine.python(24, volumes=VOLUME, limits=limits))
    target = paths.disk_mount(machine.settings, spec.site)
    assert disk.is_attached(target)
    assert machine.inside(spec, "open('/data/a','w').write('kept')")[0] == 0
    assert machine.stop(spec).done
    assert not disk.is_attached(target) and traces(machine, 24) == []
    image = str(paths.disk_image(machine.settings, spec.site))
    assert wait_for(lambda: image not in subprocess.check_output(["losetup", "-l"], text=True)), "no loop device leaks"
    machine.must_start(spec)
    assert machine.inside(spec, "print(open('/data/a').read())") == (0, "kept\n")
    machine.stop(spec)


def test_frozen_site_stands_still(machine: Cell) -> None:
    spec = machine.must_start(machine.python(25))
    with machine.backend.frozen(spec.site), socket.socket(socket.AF_UNIX) as link:
        link.settimeout(0.3)
        link.connect(str(paths.web_socket(machine.settings, spec.site, 0)))
        link.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises(TimeoutError):
            link.recv(1)
    assert machine.get(spec)[0] == 200
    machine.backend.cgroups.freeze(f"{spec.site}.0")
    assert machine.stop(spec).done, "what is frozen can be ended"
    assert traces(machine, 25) == []


def test_unknown_is_not_absent(machine: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> dict[str, int]:
        raise PermissionError(1, "no")

    monkeypatch.setattr(machine.network, "ports", fail)
    seen = machine.backend.observe(None)
    assert seen.found == () and [kind for kind, _ in seen.unknown] == ["workload"]


def test_ends_when_rules_and_bridge_are_gone(machine: Cell) -> None:
    """Fault 18: with the rules flushed and the bridge deleted, what is not wanted can still be taken away."""
    machine.content(26, {"index.html": "x"})
    spec = machine.must_start(machine.static(26))
    machine.firewall.remove()
    subprocess.run(["ip", "link", "delete", machine.settings.network.bridge], check=True)
    try:
        assert machine.stop(spec).done
        assert machine.observed(spec) is None
    finally:
        machine.network.ensure_bridge()
        machine.firewall.ensure({})
    assert traces(machine, 26) == []
