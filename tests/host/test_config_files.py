"""Configuration files in place: only who reads a file is started anew, and what a hand changed stays."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from nativefixtures import PYTHON, SERVER, Cell, Limits, Process, cell, msgspec, site_id, wait_for

from alveole.actuators.config import ConfigFiles
from alveole.errors import NotFound
from alveole.host import paths
from alveole.host.sandbox import Sandbox
from alveole.loop.plan import BY_HAND
from alveole.model.resource import Action, ConfigSpec, Kind, Observed, Outcome, ResourceId, Step, WorkloadSpec, stamp
from alveole.model.site import MIB, ConfigFile, Task, When

pytestmark = pytest.mark.root
#: Shows what its file said when it was started.
SHOWS = "import time; print('{0}:', open('/config/{0}.conf').read(), flush=True); open('/tmp/{0}','w'); time.sleep(999)"


@pytest.fixture(scope="module")
def machine() -> Iterator[Cell]:
    with cell("c") as made:
        yield made


@pytest.fixture
def files(machine: Cell) -> Iterator[ConfigFiles]:
    sandbox = Sandbox()
    sandbox.start()
    yield ConfigFiles(machine.settings, sandbox, machine.backend.inside)
    sandbox.close()


def config(number: int, *files: ConfigFile) -> ConfigSpec:
    return ConfigSpec(site_id(number), number, files)


def step(files: ConfigFiles, spec: ConfigSpec, action: Action = Action.CREATE, *, quiet: bool = False) -> Outcome:
    id = ResourceId(Kind.CONFIG, spec.site, "config")
    return files.apply(Step(id, action, stamp(spec), None if action is Action.DELETE else spec, quiet=quiet))


def seen(files: ConfigFiles, number: int) -> Observed | None:
    found = files.observe([site_id(number)]).found
    assert [each for each in files.observe(None).found if each.id.scope == site_id(number)] == list(found)
    return found[0] if found else None


def codes(files: ConfigFiles, number: int) -> list[str]:
    found = seen(files, number)
    assert found is not None
    return [defect.code for defect in found.defects]


def workload(machine: Cell, number: int, **changes: object) -> WorkloadSpec:
    def shows(name: str, order: int, uid: int) -> Process:
        ready = ("/usr/bin/test", "-e", f"/tmp/{name}")
        return Process(name, (PYTHON, "-c", SHOWS.format(name)), order=order, uid=uid, ready=ready, ready_seconds=2)

    processes = (shows("db", 10, 2001), shows("php", 40, 1000), Process("web", (PYTHON, "-c", SERVER), order=90))
    values: dict[str, object] = {"limits": Limits(2000, 256 * MIB, 128), "config": True, **changes}
    return machine.spec(number, 0, static=False, writable=True, processes=processes, **values)


def pids(machine: Cell, number: int) -> dict[str, int]:
    found = {}
    for pid in machine.backend.cgroups.pids(f"{site_id(number)}.0"):
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
        for name in ("db", "php", "ALVEOLE_SOCKET"):
            if PYTHON.encode() in line[:20] and (f"/tmp/{name}'" in line.decode() or name.encode() in line):
                found[name] = pid
    return found


DB = ConfigFile("db.conf", "one", 2001, 0o600, ("db",))
PHP = ConfigFile("php.conf", "one", 0, 0o644, ("php",))


def test_written_with_owner_and_mode_and_gone_again(machine: Cell, files: ConfigFiles) -> None:
    spec = config(1, DB, ConfigFile("a/b/c.ini", "text\n", 1000, 0o640))
    assert step(files, spec).done
    top = paths.config_files(machine.settings, spec.site)
    start = machine.settings.uid_start(1)
    shown = {
        str(file.relative_to(top)): (file.stat().st_uid - start, file.stat().st_gid - start, oct(file.stat().st_mode))
        for file in top.rglob("*")
    }
    assert shown == {
        "db.conf": (2001, 2001, "0o100600"),
        "a": (0, 0, "0o40755"),
        "a/b": (0, 0, "0o40755"),
        "a/b/c.ini": (1000, 1000, "0o100640"),
    }
    found = seen(files, 1)
    assert found is not None and found.ready and not found.defects and found.digest == stamp(spec)
    assert step(files, config(1, DB), Action.REPLACE).done
    assert [file.name for file in top.rglob("*")] == ["db.conf"]
    assert step(files, spec, Action.DELETE).done and seen(files, 1) is None
    assert step(files, spec, Action.DELETE).done
    assert not paths.config(machine.settings, spec.site).exists()


def test_only_who_reads_a_changed_file_is_started_anew(machine: Cell, files: ConfigFiles) -> None:
    assert step(files, config(2, DB, PHP)).done
    task = Task("tell", When.CHANGE, ("/bin/sh", "-c", "echo change as $(id -u); cat /config/php.conf"), uid=2001)
    spec = machine.must_start(workload(machine, 2, tasks=(task,)))
    before = pids(machine, 2)
    assert set(before) == {"db", "php", "ALVEOLE_SOCKET"}
    new = config(2, DB, msgspec.structs.replace(PHP, text="two"))
    begin = time.monotonic()
    assert step(files, new, Action.REPLACE) == Outcome(True)
    print(f"one file changed, one process started anew: {time.monotonic() - begin:.3f} s")
    # What says that it is ready is there from before: it may still be on its way to its own program.
    assert wait_for(lambda: set(pids(machine, 2)) == set(before))
    after = pids(machine, 2)
    assert after["php"] != before["php"] and {**after, "php": 0} == {**before, "php": 0}
    assert wait_for(lambda: "php: two" in machine.log(spec)) and "change as 2001" in machine.log(spec)
    assert step(files, new, Action.REPLACE).done and pids(machine, 2) == after, "what is so already is left alone"
    assert machine.get(spec)[0] == 200
    found = machine.observed(spec)
    assert found is not None and ResourceId(Kind.CONFIG, spec.site, "config") in found.uses
    machine.stop(spec)


def test_process_that_does_not_take_the_new_file(machine: Cell, files: ConfigFiles) -> None:
    assert step(files, config(3, DB, PHP)).done
    spec = workload(machine, 3)
    broken = f"assert 'bad' not in open('/config/php.conf').read(), 'bad config'\n{SHOWS.format('php')}"
    php = msgspec.structs.replace(
        spec.processes[1],
        argv=(PYTHON, "-c", broken),
        ready=("/bin/sh", "-c", "rm -f /tmp/php.x; mv /tmp/php /tmp/php.x"),
    )
    spec = machine.must_start(msgspec.structs.replace(spec, processes=(spec.processes[0], php, spec.processes[2])))
    bad = config(3, DB, msgspec.structs.replace(PHP, text="bad"))
    outcome = step(files, bad, Action.REPLACE)
    assert not outcome.done and outcome.temporary and outcome.message == "process php was not ready within 2 s", outcome
    found = seen(files, 3)
    assert found is not None and found.digest == "" and codes(files, 3) == ["pending"]
    good = config(3, DB, msgspec.structs.replace(PHP, text="good"))
    assert step(files, good, Action.REPLACE).done and codes(files, 3) == []
    assert wait_for(lambda: "php: good" in machine.log(spec))
    machine.stop(spec)


def test_changed_by_hand(machine: Cell, files: ConfigFiles) -> None:
    assert step(files, config(4, DB, PHP)).done
    spec = machine.must_start(workload(machine, 4))
    assert machine.run(spec, "/bin/sh", "-c", "echo mine >/config/db.conf", uid=2001)[0] == 0
    found = seen(files, 4)
    assert found is not None and found.ready
    assert [(defect.code, defect.cause) for defect in found.defects] == [(BY_HAND, "db.conf was changed by hand")]
    states = {state.path: (state.changed, state.text) for state in files.read(spec.site, 4)}
    assert states == {"db.conf": (True, "mine\n"), "php.conf": (False, None)}
    # Another file of the site changes: what is wanted of this one is what was written, so it stays.
    assert step(files, config(4, DB, msgspec.structs.replace(PHP, text="two")), Action.REPLACE).done
    assert codes(files, 4) == [BY_HAND]
    other = config(4, msgspec.structs.replace(DB, text="two"), PHP)
    outcome = step(files, other, Action.REPLACE)
    assert not outcome.done and not outcome.temporary and outcome.message == "db.conf was changed by hand"
    top = paths.config_files(machine.settings, spec.site)
    assert (top / "db.conf").read_text() == "mine\n" and (top / "php.conf").read_text() == "two", "nothing is half done"
    before = pids(machine, 4)
    adopted = config(4, msgspec.structs.replace(DB, text="mine\n"), msgspec.structs.replace(PHP, text="two"))
    assert step(files, adopted, Action.REPLACE).done and codes(files, 4) == []
    assert pids(machine, 4)["db"] != before["db"], "it may not have read what was typed"
    # Taken back: gone, then written again, and its process is started anew.
    assert machine.run(spec, "/bin/sh", "-c", "echo again >/config/db.conf", uid=2001)[0] == 0
    before = pids(machine, 4)
    with pytest.raises(NotFound):
        files.forget(spec.site, 4, ("other.conf",))
    files.forget(spec.site, 4, ("db.conf", "php.conf"))
    assert codes(files, 4) == ["missing", "pending"]
    assert step(files, adopted, Action.REPAIR).done and codes(files, 4) == []
    after = pids(machine, 4)
    assert after["db"] != before["db"] and after["php"] == before["php"]
    assert (top / "db.conf").read_text() == "mine\n"
    machine.stop(spec)


def test_missing_and_misowned_files_are_repaired_without_a_restart(machine: Cell, files: ConfigFiles) -> None:
    spec = config(5, DB, PHP)
    assert step(files, spec).done
    started = machine.must_start(workload(machine, 5))
    before = pids(machine, 5)
    assert machine.run(started, "/bin/rm", "/config/db.conf", uid=0)[0] == 0
    assert machine.run(started, "/bin/chmod", "600", "/config/php.conf", uid=0)[0] == 0
    found = seen(files, 5)
    assert found is not None and not found.ready and codes(files, 5) == ["missing", "owner"]
    assert step(files, spec, Action.REPAIR).done and codes(files, 5) == []
    assert pids(machine, 5) == before
    machine.stop(started)


def test_links_in_the_way_lead_nowhere(machine: Cell, files: ConfigFiles) -> None:
    """Threat 1: whatever the container's root puts at the place of a file, nothing outside is read or written."""
    secret = Path(machine.settings.state, "secret")
    secret.write_text("secret")
    spec = config(6, DB, ConfigFile("php/php.conf", "one"))
    assert step(files, spec).done
    top = paths.config_files(machine.settings, spec.site)
    (top / "db.conf").unlink()
    (top / "db.conf").symlink_to(secret)
    (top / "php/php.conf").unlink()
    (top / "php").rmdir()
    (top / "php").symlink_to(secret.parent)
    assert sorted(codes(files, 6)) == [BY_HAND, "missing"]
    assert all(state.text is None for state in files.read(spec.site, 6))
    assert not step(files, config(6, msgspec.structs.replace(DB, text="x")), Action.REPLACE).done
    files.forget(spec.site, 6, ("db.conf",))
    assert step(files, spec, Action.REPAIR).done
    assert secret.read_text() == "secret" and not (top / "php").is_symlink()
    assert not Path(machine.settings.state, "php.conf").exists()


def test_files_for_the_instance_that_follows(machine: Cell, files: ConfigFiles) -> None:
    """An update: the old instance is left alone, also when it comes to be the one that stays."""
    assert step(files, config(7, DB, PHP)).done
    task = Task("tell", When.CHANGE, ("/bin/sh", "-c", "echo told"))
    old = machine.must_start(workload(machine, 7, tasks=(task,)))
    before = pids(machine, 7)
    new = config(7, DB, msgspec.structs.replace(PHP, text="two"))
    assert step(files, new, Action.REPLACE, quiet=True).done and codes(files, 7) == []
    assert pids(machine, 7) == before and "told" not in machine.log(old)
    other = machine.must_start(msgspec.structs.replace(old, slot=1, hostname="other"))
    assert "php: two" in machine.log(old)
    newest = config(7, DB, msgspec.structs.replace(PHP, text="two"), ConfigFile("more.conf", "x"))
    assert step(files, newest, Action.REPLACE, quiet=True).done
    assert machine.stop(other).done
    assert step(files, config(7, DB, PHP), Action.REPLACE).done
    assert pids(machine, 7) == before, "it had read just that when it started"
    assert step(files, new, Action.REPLACE).done
    assert pids(machine, 7)["php"] != before["php"] and pids(machine, 7)["db"] == before["db"]
    machine.stop(old)


@pytest.mark.parametrize("point", ["config-remembered", "config-written", "config-refreshed"])
def test_agent_killed_while_it_writes(machine: Cell, files: ConfigFiles, point: str) -> None:
    """Fault 3: whatever it was killed at, the next step ends with the new files and with processes that read them."""
    number = 10 + len(point)
    assert step(files, config(number, DB, PHP)).done
    spec = machine.must_start(workload(machine, number))
    before = pids(machine, number)
    new = config(number, DB, msgspec.structs.replace(PHP, text="two"))
    code = (
        "import sys; sys.path[:0] = [sys.argv[1]]\n"
        "import msgspec, test_config_files as t\n"
        "from alveole.config import Settings\n"
        "class Nobody:\n"
        "    def refresh(self, *a): return None\n"
        "files = t.ConfigFiles(msgspec.json.decode(sys.argv[2], type=Settings), t.Sandbox(), Nobody())\n"
        "t.step(files, msgspec.json.decode(sys.argv[3], type=t.ConfigSpec), t.Action.REPLACE)\n"
    )
    argv = [sys.executable, "-c", code, str(Path(__file__).parent)]
    argv += [msgspec.json.encode(each).decode() for each in (machine.settings, new)]
    done = subprocess.run(argv, env={**os.environ, "ALVEOLE_FAILPOINT": point}, capture_output=True, check=False)
    assert done.returncode == -9, done
    found = seen(files, number)
    assert found is not None and found.digest != stamp(new) and BY_HAND not in codes(files, number)
    newest = config(number, DB, msgspec.structs.replace(PHP, text="three"))
    assert step(files, newest, Action.REPLACE).done
    after = pids(machine, number)
    assert after["php"] != before["php"] and after["db"] == before["db"]
    assert wait_for(lambda: "php: three" in machine.log(spec))
    found = seen(files, number)
    assert found is not None and found.digest == stamp(newest) and not found.defects
    machine.stop(spec)


def test_thousand_sites_are_looked_at_quickly(machine: Cell) -> None:
    class Nobody:
        def refresh(self, *_: object) -> None:
            return None

    sandbox = Sandbox()
    sandbox.start()
    files = ConfigFiles(machine.settings, sandbox, Nobody())
    try:
        some = tuple(ConfigFile(f"dir/{number}.conf", "x" * 1000) for number in range(8))
        numbers = range(100, 150)
        for number in numbers:
            assert step(files, config(number, *some)).done
        files.observe(None)
        begin = time.monotonic()
        assert sum(len(each.id.scope) > 0 for each in files.observe(None).found) >= 50
        took = time.monotonic() - begin
        print(f"a look at 50 sites of 8 files: {took * 1000:.1f} ms")
        assert took < 0.05
    finally:
        for number in numbers:
            step(files, config(number), Action.DELETE)
        sandbox.close()
