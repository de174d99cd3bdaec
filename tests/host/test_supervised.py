"""Instances of several processes: order, readiness, users, tasks, links, and a clean end."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from nativefixtures import PYTHON, SERVER, Cell, Limits, Process, cell, msgspec, wait_for

from alveole.backends.native import processes
from alveole.host import instances, paths
from alveole.model.resource import Action, WorkloadSpec
from alveole.model.site import MIB, Account, FileLink, Task, VolumeMount, When

pytestmark = pytest.mark.root
ROOM = Limits(2000, 256 * MIB, 128)
#: Tells of its start and of its end, in the order in which they happen.
TELLS = (
    "import signal,sys,time\n"
    "def end(*a): print('{0} ends', flush=True); sys.exit(0)\n"
    "signal.signal(signal.SIGTERM, end)\n"
    "print('{0} runs', flush=True)\n"
)
WEB = Process("web", (PYTHON, "-c", TELLS.format("web") + SERVER), order=90)


@pytest.fixture(scope="module")
def machine() -> Iterator[Cell]:
    with cell("s") as made:
        yield made


def teller(name: str, code: str = "", **changes: object) -> Process:
    """Ready as soon as it would tell of its end."""
    text = f"{TELLS.format(name)}{code}\nopen('/tmp/{name}','w')\nwhile True: time.sleep(60)"
    values = {"ready": ("/usr/bin/test", "-e", f"/tmp/{name}"), **changes}
    return Process(name, (PYTHON, "-c", text), **values)


def say(name: str, when: When, text: str = "", **changes: object) -> Task:
    return Task(name, when, ("/bin/sh", "-c", f"echo {text or name}"), **changes)


def spec_of(machine: Cell, number: int, processes: tuple[Process, ...], **changes: object) -> WorkloadSpec:
    return machine.spec(number, 0, static=False, writable=True, processes=processes, limits=ROOM, **changes)


def printed(machine: Cell, spec: WorkloadSpec, *wanted: str) -> list[str]:
    """Those of the lines of its log that are in ``wanted``, in order."""
    machine.backend.output.drain(spec.site)
    lines = [line.partition("  ")[2] for line in machine.log(spec).splitlines()]
    return [line for line in lines if line in wanted or not wanted]


def pid_of(machine: Cell, spec: WorkloadSpec, word: str) -> int:
    found = [
        pid
        for pid in machine.backend.cgroups.pids(f"{spec.site}.{spec.slot}")
        if word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    assert len(found) == 1, (word, found)
    return found[0]


def test_order_readiness_and_tasks(machine: Cell) -> None:
    database = teller("db", "time.sleep(0.4); print('db ready', flush=True)", order=10)
    cache = teller("cache", order=20)
    spec = spec_of(
        machine,
        1,
        (WEB, database, cache),
        tasks=(
            say("late", When.INSTALL, order=60),
            say("first", When.INSTALL, order=10),
            say("prepare", When.PREPARE, order=99),
            say("flush", When.STOP),
        ),
    )
    words = ("db runs", "db ready", "cache runs", "web runs", "late", "first", "prepare", "flush")
    machine.must_start(spec)
    assert printed(machine, spec, *words) == [
        "prepare",
        "db runs",
        "db ready",
        "first",
        "cache runs",
        "late",
        "web runs",
    ]
    begin = time.monotonic()
    assert machine.stop(spec).done
    assert time.monotonic() - begin < 3
    assert printed(machine, spec, "flush", "web ends", "cache ends", "db ends") == [
        "flush",
        "web ends",
        "cache ends",
        "db ends",
    ]

    machine.must_start(spec)
    assert printed(machine, spec, *words)[8:] == ["prepare", "db runs", "db ready", "cache runs", "web runs"], (
        "installed once"
    )
    machine.stop(spec)


def test_users_and_capabilities(machine: Cell) -> None:
    """Threats 2 and 3: each process holds nothing, whoever it runs as."""
    show = "print(open('/proc/self/status').read(), flush=True)"
    spec = spec_of(
        machine,
        2,
        (
            Process(
                "db",
                (PYTHON, "-c", "import os,time; open('/data/a','w').write(os.environ['HOME']); time.sleep(99)"),
                uid=2001,
            ),
            Process("root", ("/bin/sleep", "98"), uid=0),
            WEB,
        ),
        accounts=(Account("mariadb", 2001, "/data"), Account("web", 33)),
        tasks=(
            Task("show", When.PREPARE, (PYTHON, "-c", show), uid=2001),
            Task("name", When.PREPARE, ("/bin/sh", "-c", "echo opened by name >/dev/stderr")),
        ),
        links=(FileLink("/etc/deep/er/app.conf", "/data/a"), FileLink("/etc/nginx", "/data")),
        volumes=(VolumeMount("data", "/data", uid=2001),),
    )
    machine.must_start(spec)
    status = {
        word: Path(f"/proc/{pid_of(machine, spec, word)}/status").read_text()
        for word in ("s6-svscan", "time.sleep(99)", "98", "ALVEOLE_SOCKET")
    }
    start = machine.settings.uid_start(2)
    for word, uid in (("s6-svscan", 0), ("time.sleep(99)", 2001), ("98", 0), ("ALVEOLE_SOCKET", 1000)):
        assert re.search(r"^Uid:\s(\d+)\s\1\s\1\s\1$", status[word], re.M), status[word]
        assert f"Uid:\t{start + uid}\t" in status[word] and f"Gid:\t{start + uid}\t" in status[word]
        assert re.search(r"^Groups:\s*$", status[word], re.M) and "NoNewPrivs:\t1" in status[word]
        held = set(re.findall(r"^Cap(?:Inh|Prm|Eff|Bnd|Amb):\s(\w+)$", status[word], re.M))
        # KILL, SETGID, SETUID and SETPCAP are the bits 5 to 8.
        assert held == ({"0" * 16, f"{0x1E0:016x}"} if word == "s6-svscan" else {"0" * 16}), (word, held)
    log = "\n".join(printed(machine, spec))
    assert "Uid:\t2001\t2001\t2001\t2001" in log and "opened by name" in log and "CapBnd:\t0000000000000000" in log
    look = (
        "import os,pwd,grp;print(open('/data/a').read(), open('/etc/deep/er/app.conf').read(), "
        "pwd.getpwuid(2001).pw_name, grp.getgrgid(33).gr_name, pwd.getpwnam('site').pw_uid, "
        "oct(os.stat('/run').st_mode), os.readlink('/etc/nginx'))"
    )
    assert wait_for(
        lambda: (paths.volume(paths.data_dir(machine.settings, spec.site, False), 1, "data") / "a").exists()
    )
    assert machine.inside(spec, look, uid=2001) == (0, "/data /data mariadb web 1000 0o41777 /data\n")
    for uid in (1000, 2001):
        for path in ("/run/services/web/run", "/etc/passwd", "/run/services/.alveole/plan", "/var/lib/alveole/x"):
            assert machine.inside(spec, f"open({path!r},'a')", uid=uid)[0] != 0, path
        assert machine.run(spec, "/bin/sh", "-c", "echo by name >/dev/stderr", uid=uid)[0] == 0
    machine.stop(spec)


def test_one_user_needs_no_privilege(machine: Cell) -> None:
    spec = spec_of(machine, 3, (WEB, teller("other")))
    machine.must_start(spec)
    status = Path(f"/proc/{machine.pid(spec)}/status").read_text()
    assert f"Uid:\t{machine.settings.uid_start(3) + 1000}\t" in status
    assert "CapBnd:\t0000000000000000" in status
    machine.stop(spec)


def test_failing_task_ends_the_start_with_its_name(machine: Cell) -> None:
    task = Task("site-install", When.INSTALL, ("/bin/sh", "-c", "echo no database >&2; exit 3"), uid=2001)
    spec = spec_of(machine, 4, (teller("db", order=10), WEB), tasks=(task,))
    begin = time.monotonic()
    outcome = machine.start(spec)
    assert time.monotonic() - begin < 5
    assert not outcome.done and outcome.message == "not ready: task site-install failed with status 3"
    assert "no database" in outcome.tail and "db ends" in printed(machine, spec), outcome
    assert "web runs" not in printed(machine, spec)
    mended = msgspec.structs.replace(spec, tasks=(say("site-install", When.INSTALL, uid=2001),))
    machine.must_start(mended)
    assert "site-install" in printed(machine, spec)
    machine.stop(mended)


def test_task_that_takes_too_long(machine: Cell) -> None:
    task = Task("slow", When.PREPARE, ("/bin/sleep", "60"), seconds=1)
    outcome = machine.start(spec_of(machine, 5, (WEB,), tasks=(task,)))
    assert outcome.message == "not ready: task slow did not end within 1 s", outcome


def test_process_that_does_not_get_ready(machine: Cell) -> None:
    never = teller("db", order=10, ready=("/bin/sh", "-c", "echo still starting; exit 1"), ready_seconds=1)
    outcome = machine.start(spec_of(machine, 6, (never, WEB)))
    assert outcome.message == "not ready: process db was not ready within 1 s"
    assert "still starting" in outcome.tail


def test_process_that_dies_at_each_start_is_not_waited_for_long(machine: Cell) -> None:
    dies = Process("db", ("/bin/sh", "-c", "echo bad line in my.cnf; exit 1"), order=10, ready=("/usr/bin/false",))
    begin = time.monotonic()
    outcome = machine.start(spec_of(machine, 14, (dies, WEB)))
    assert time.monotonic() - begin < 20 < dies.ready_seconds
    assert outcome.message == "not ready: process db ends again and again" and "bad line in my.cnf" in outcome.tail


def test_stop_while_it_starts(machine: Cell) -> None:
    """A task that is cut off is not taken for done, and what already ran is ended cleanly."""
    import threading

    slow = Task("slow", When.INSTALL, ("/bin/sh", "-c", "echo slow begins; sleep 60"), uid=2001)
    spec = spec_of(machine, 7, (teller("db", order=10), WEB), tasks=(slow,))
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(machine.start(spec)))
    thread.start()
    assert wait_for(lambda: "slow begins" in machine.log(spec))
    state = instances.load(machine.settings, spec.site, 0)
    assert state is not None
    begin = time.monotonic()
    os.kill(state.pid, signal.SIGTERM)
    thread.join()
    assert time.monotonic() - begin < 2
    assert "db ends" in printed(machine, spec)
    quick = msgspec.structs.replace(spec, tasks=(say("slow", When.INSTALL, "slow runs", uid=2001),))
    machine.must_start(quick)
    assert "slow runs" in printed(machine, spec)
    machine.stop(quick)


def test_killed_start_goes_on_where_it_was(machine: Cell) -> None:
    """Fault 6: what was done stays done, what was cut off is done again."""
    tasks = (
        say("one", When.INSTALL, order=10),
        Task("two", When.INSTALL, ("/bin/sh", "-c", "echo two; test -e /data/go || sleep 60"), order=20),
    )
    volume = (VolumeMount("data", "/data"),)
    spec = spec_of(machine, 8, (WEB,), tasks=tasks, volumes=volume)
    import threading

    thread = threading.Thread(target=lambda: machine.start(spec))
    thread.start()
    assert wait_for(lambda: "two" in printed(machine, spec))
    state = instances.load(machine.settings, spec.site, 0)
    assert state is not None
    os.kill(state.pid, signal.SIGKILL)
    thread.join()
    (paths.volume(paths.data_dir(machine.settings, spec.site, False), 1, "data") / "go").touch()
    machine.must_start(spec)
    assert printed(machine, spec, "one", "two") == ["one", "two", "two"]
    machine.stop(spec)


def test_crashing_process_starts_again_with_a_growing_pause(machine: Cell) -> None:
    spec = spec_of(machine, 9, (WEB, Process("crash", ("/bin/sh", "-c", "exit 7"))))
    machine.must_start(spec)
    said = "alveole: process crash ended with status 7 and starts again"
    assert wait_for(lambda: f"{said} in 2 s" in printed(machine, spec))
    assert printed(machine, spec, said, f"{said} in 1 s", f"{said} in 2 s") == [
        said,
        f"{said} in 1 s",
        f"{said} in 2 s",
    ]
    begin = time.monotonic()
    assert machine.stop(spec).done
    assert time.monotonic() - begin < 2, "nobody waits for the end of a pause"


def test_each_process_tells_how_it_is(machine: Cell) -> None:
    spec = spec_of(machine, 14, (WEB, teller("db", order=10), Process("crash", ("/bin/sh", "-c", "exit 7"), order=95)))
    machine.must_start(spec)

    def states() -> dict[str, processes.ProcessState]:
        return {each.name: each for each in processes.look(machine.settings, spec.site, spec.slot)}

    assert wait_for(lambda: (states()["crash"].restarts or 0) >= 2)
    crash = states()["crash"]
    assert crash.wanted and (crash.exit_status, crash.exit_signal) == (7, None)
    assert wait_for(lambda: states()["crash"].state == "waiting"), states()
    assert crash.ended_at is not None and abs(time.time() - crash.ended_at) < 10
    now = states()
    assert list(now) == ["db", "web", "crash"], "in order of start"
    for name in ("db", "web"):
        assert (now[name].state, now[name].wanted, now[name].restarts, now[name].ended_at) == ("up", True, 0, None)
        assert now[name].seconds is not None and 0 < now[name].seconds < 60
    said = machine.run(spec, "/usr/bin/s6-svstat", "-o", "updownfor", "/run/services/db")
    assert said[0] == 0 and abs(float(said[1]) - (now["db"].seconds or 0)) < 3, said
    os.kill(pid_of(machine, spec, "db runs"), signal.SIGKILL)
    assert wait_for(lambda: states()["db"].exit_signal == signal.SIGKILL and states()["db"].state == "up")
    assert states()["db"].restarts == 1
    # What runs inside may write what it likes there: it is told as not known, and nothing else of it is read.
    place = paths.instance(machine.settings, spec.site, spec.slot) / "services/db"
    (place / "ends").write_text("99999999999 -1 x")
    (place / "supervise/status").unlink()
    (place / "supervise/status").symlink_to("/etc/passwd")
    assert (states()["db"].state, states()["db"].seconds, states()["db"].restarts) == ("unknown", None, 0)
    machine.stop(spec)
    assert processes.look(machine.settings, spec.site, spec.slot) == ()

    alone = machine.must_start(machine.python(15, "import time"))
    (one,) = processes.look(machine.settings, alone.site, alone.slot)
    assert one.state == "up" and one.restarts is None and one.exit_status is None
    machine.stop(alone)


def test_group_of_equal_order_starts_and_stops_together(machine: Cell) -> None:
    slow = "signal.signal(signal.SIGTERM, lambda *a: (time.sleep(0.5), sys.exit(0)))"
    spec = spec_of(machine, 10, (WEB, *(teller(f"p{number}", slow, order=50) for number in range(3))))
    machine.must_start(spec)
    begin = time.monotonic()
    assert machine.stop(spec).done
    assert 0.5 < time.monotonic() - begin < 1.4


def test_grace_of_one_process(machine: Cell) -> None:
    deaf = teller("deaf", "signal.signal(signal.SIGTERM, signal.SIG_IGN)", order=50, stop_seconds=1)
    spec = spec_of(machine, 11, (WEB, deaf, teller("db", order=10)))
    machine.must_start(spec)
    begin = time.monotonic()
    assert machine.stop(spec).done
    assert 1 < time.monotonic() - begin < 2.5
    assert printed(machine, spec, "web ends", "db ends") == ["web ends", "db ends"]


def test_overhead_of_a_stop(machine: Cell) -> None:
    spec = spec_of(machine, 12, (WEB, teller("a", order=10), teller("b", order=20)))
    alone = machine.must_start(
        machine.python(13, "import signal,os; signal.signal(signal.SIGTERM, lambda *a: os._exit(0))")
    )
    machine.must_start(spec)
    took = []
    for each in (alone, spec):
        begin = time.monotonic()
        assert machine.step(each, Action.DELETE).done
        took.append(time.monotonic() - begin)
    print(f"stop of one process {took[0]:.3f} s, of three in turn {took[1]:.3f} s")
    assert took[1] < took[0] + 0.4
