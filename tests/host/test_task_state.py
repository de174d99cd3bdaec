"""Tasks in the life of the data: installed once, and what comes back from a backup knows it (issue 3)."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from nativefixtures import PYTHON, SERVER, Cell, Limits, Process, cell, msgspec, wait_for

from alveole.actuators.backups import Backups
from alveole.actuators.releases import Releases
from alveole.agent.protocol import BackupMade, CreateBackup, RestoreBackup
from alveole.errors import StepFailed
from alveole.host import paths
from alveole.host.sandbox import Sandbox
from alveole.model.resource import WorkloadSpec
from alveole.model.site import MIB, Account, Kept, Task, VolumeMount, When

pytestmark = pytest.mark.root
DB = VolumeMount("db", "/data/db", 2001, Kept.COLD)
DUMPS = VolumeMount("dumps", "/data/dumps", 2001)
WEB = VolumeMount("web", "/data/web")


def shell(name: str, when: When, line: str, uid: int = 2001, **changes: object) -> Task:
    return Task(name, when, ("/bin/sh", "-ec", f"echo +{name}; {line}"), uid, **changes)


#: A database of one file, made by prepare, filled by install, dumped for a backup, loaded after it.
TASKS = (
    shell("make", When.PREPARE, "test -e /data/db/made || echo 4 >/data/db/made"),
    shell("install", When.INSTALL, "echo page >/data/db/rows", order=20),
    shell("web-install", When.INSTALL, "date +%s%N >/data/web/secret", uid=1000),
    shell("dump", When.BACKUP, "cp /data/db/rows /data/dumps/rows"),
    shell("load", When.RESTORE, "cp /data/dumps/rows /data/db/rows", order=20),
    shell("flush", When.STOP, "true"),
)


@pytest.fixture(scope="module")
def machine() -> Iterator[Cell]:
    with cell("t") as made:
        yield made


@pytest.fixture
def backups(machine: Cell) -> Iterator[Backups]:
    sandbox = Sandbox()
    sandbox.start()
    releases = Releases(machine.settings, sandbox)
    backend = machine.backend
    yield Backups(machine.settings, sandbox, releases, lambda site, _slot: backend.frozen(site), backend.inside.saving)
    sandbox.close()


def spec_of(machine: Cell, number: int, generation: int = 1, **changes: object) -> WorkloadSpec:
    processes = (
        Process("db", ("/bin/sleep", "999"), uid=2001, order=10),
        Process("web", (PYTHON, "-c", SERVER), order=90),
    )
    values: dict[str, object] = {
        "limits": Limits(2000, 256 * MIB, 128),
        "tasks": TASKS,
        "volumes": (DB, DUMPS, WEB),
        "accounts": (Account("db", 2001),),
        "data_generation": generation,
        **changes,
    }
    return machine.spec(number, 0, static=False, writable=True, processes=processes, **values)


def ran(machine: Cell, spec: WorkloadSpec) -> list[str]:
    machine.backend.output.drain(spec.site)
    names = {f"+{task.name}" for task in TASKS}
    return [word[1:] for line in machine.log(spec).splitlines() if (word := line.partition("  ")[2]) in names]


def save(backups: Backups, spec: WorkloadSpec, id: str) -> BackupMade:
    assert len(id) == 13
    generation = spec.data_generation
    return backups.create(CreateBackup(id, spec.site, spec.number, 0, generation, None, "{}", spec.volumes))


def rows(machine: Cell, spec: WorkloadSpec) -> tuple[str, str]:
    said = machine.run(spec, "/bin/cat", "/data/db/rows", uid=2001)
    secret = machine.run(spec, "/bin/cat", "/data/web/secret")
    assert said[0] == secret[0] == 0, (said, secret)
    return said[1], secret[1]


def test_hot_backup_comes_back_to_the_same_and_to_another_site(machine: Cell, backups: Backups) -> None:
    spec = machine.must_start(spec_of(machine, 1))
    assert ran(machine, spec) == ["make", "install", "web-install"]
    assert machine.run(spec, "/bin/sh", "-c", "echo more >>/data/db/rows", uid=2001)[0] == 0
    before = rows(machine, spec)
    made = save(backups, spec, "b" + "a" * 12)
    assert ran(machine, spec)[3:] == ["dump"]
    assert backups.verify(made.snapshot, made.digest).left_out == ("db",)
    assert machine.run(spec, "/bin/sh", "-c", "echo lost >>/data/db/rows", uid=2001)[0] == 0

    again = spec_of(machine, 1, generation=2)
    backups.restore(RestoreBackup(made.snapshot, made.digest, spec.site, 1, 2, None))
    assert machine.stop(spec).done
    machine.must_start(again)
    assert ran(machine, spec)[4:] == ["flush", "make", "load"]
    assert rows(machine, again) == before
    assert machine.stop(again).done
    machine.must_start(again)
    assert ran(machine, spec)[7:] == ["flush", "make"], "restored once"

    other = spec_of(machine, 2)
    backups.restore(RestoreBackup(made.snapshot, made.digest, other.site, 2, 1, None))
    machine.must_start(other)
    assert ran(machine, other) == ["make", "load"] and rows(machine, other) == before
    data = paths.volumes(paths.data_dir(machine.settings, other.site, False), 1)
    start = machine.settings.uid_start(2)
    owners = {volume.name: volume.stat().st_uid - start for volume in data.iterdir()}
    assert owners == {"alveole-state": 0, "db": 2001, "dumps": 2001, "web": 1000}
    assert (data / "dumps/rows").stat().st_uid - start == 2001
    assert sorted(path.name for path in (data / "alveole-state").iterdir()) == ["done"]
    for each in (again, other):
        machine.stop(each)


def test_cold_backup_brings_the_data_itself_back(machine: Cell, backups: Backups) -> None:
    spec = machine.must_start(spec_of(machine, 3))
    before = rows(machine, spec)
    assert machine.stop(spec).done
    made = save(backups, spec, "b" + "c" * 12)
    manifest = backups.verify(made.snapshot, made.digest)
    assert manifest.left_out == () and "db" in manifest.volumes
    other = spec_of(machine, 4)
    backups.restore(RestoreBackup(made.snapshot, made.digest, other.site, 4, 1, None))
    machine.must_start(other)
    assert ran(machine, other) == ["make"] and rows(machine, other) == before
    machine.stop(other)


def test_restore_that_is_cut_off_goes_on(machine: Cell, backups: Backups) -> None:
    """Fault 6: killed between two restore tasks; the first is not run again, and nothing is installed."""
    spec = machine.must_start(spec_of(machine, 5))
    made = save(backups, spec, "b" + "d" * 12)
    assert machine.stop(spec).done
    second = shell("second", When.RESTORE, "test -e /data/web/go || sleep 60", uid=1000, order=30)
    other = spec_of(machine, 6, tasks=(*TASKS, second))
    backups.restore(RestoreBackup(made.snapshot, made.digest, other.site, 6, 1, None))
    thread = threading.Thread(target=lambda: machine.start(other))
    thread.start()
    assert wait_for(lambda: "+second" in machine.log(other), 20)
    machine.backend.cgroups.kill(f"{other.site}.0")
    thread.join()
    volume = paths.volume(paths.data_dir(machine.settings, other.site, False), 1, "web")
    (volume / "go").touch()
    machine.must_start(other)
    assert ran(machine, other) == ["make", "load", "make"] and machine.log(other).count("  +second\n") == 2
    machine.stop(other)


def test_new_task_of_an_installed_site_is_installed(machine: Cell) -> None:
    spec = machine.must_start(spec_of(machine, 7, tasks=TASKS[:2]))
    assert machine.stop(spec).done
    machine.must_start(spec_of(machine, 7))
    assert ran(machine, spec) == ["make", "install", "make", "web-install"]
    machine.stop(spec)


def mark(machine: Cell, spec: WorkloadSpec, name: str) -> Path:
    """Where it is kept which base the data of the site was last upgraded for."""
    data = paths.data_dir(machine.settings, spec.site, spec.limits.disk_bytes is not None)
    return paths.volume(data, spec.data_generation, paths.STATE_VOLUME) / "upgraded" / name


def test_data_that_meets_other_programs_is_upgraded(machine: Cell, backups: Backups) -> None:
    """Not when it is new, not at every start; after ``install`` and ``restore`` where their order is the same."""
    upgrade = shell("upgrade", When.UPGRADE, "cat /data/db/rows >/data/db/upgraded", order=20)
    tasks = (upgrade, *TASKS)
    spec = machine.must_start(spec_of(machine, 10, tasks=tasks))
    assert machine.stop(spec).done
    machine.must_start(spec)
    made = save(backups, spec, "b" + "g" * 12)
    assert machine.stop(spec).done
    assert "+upgrade" not in machine.log(spec)
    assert mark(machine, spec, "upgrade").read_text() == f"{spec.base}\n"
    # As another base would find it.
    mark(machine, spec, "upgrade").write_text("debian-0123456789abcdef\n")
    machine.must_start(spec)
    assert machine.run(spec, "/bin/cat", "/data/db/upgraded", uid=2001) == (0, "page\n")
    assert machine.stop(spec).done
    machine.must_start(spec)
    assert machine.log(spec).count("  +upgrade\n") == 1
    machine.stop(spec)

    # Data of a backup that was made on another base: first it is loaded.
    other = spec_of(machine, 11, tasks=tasks)
    backups.restore(RestoreBackup(made.snapshot, made.digest, other.site, 11, 1, None))
    mark(machine, other, "upgrade").write_text("debian-0123456789abcdef\n")
    machine.must_start(other)
    machine.backend.output.drain(other.site)
    order = [word for line in machine.log(other).splitlines() if (word := line.partition("  ")[2]).startswith("+")]
    assert order == ["+make", "+load", "+upgrade"]
    machine.stop(other)


def test_an_upgrade_of_data_that_is_cut_or_fails_is_run_again(machine: Cell) -> None:
    """Faults 6 and 4: killed in the middle of it, and failed; what needs it does not start before it is done."""
    go = "test -e /data/web/go || sleep 60; test -e /data/web/well"
    tasks = (*TASKS, shell("upgrade", When.UPGRADE, go, uid=1000))
    spec = machine.must_start(spec_of(machine, 12, tasks=tasks))
    assert machine.stop(spec).done
    mark(machine, spec, "upgrade").write_text("debian-0123456789abcdef\n")
    thread = threading.Thread(target=lambda: machine.start(spec))
    thread.start()
    assert wait_for(lambda: "+upgrade" in machine.log(spec), 20)
    machine.backend.cgroups.kill(f"{spec.site}.0")
    thread.join()
    volume = paths.volume(paths.data_dir(machine.settings, spec.site, False), 1, "web")
    (volume / "go").touch()
    outcome = machine.start(spec)
    assert not outcome.done and "task upgrade failed with status 1" in outcome.message, outcome
    assert mark(machine, spec, "upgrade").read_text() == "debian-0123456789abcdef\n"
    (volume / "well").touch()
    machine.must_start(spec)
    assert machine.log(spec).count("  +upgrade\n") == 3
    assert mark(machine, spec, "upgrade").read_text() == f"{spec.base}\n"
    machine.stop(spec)


def test_failing_backup_task_fails_the_backup(machine: Cell, backups: Backups) -> None:
    broken = shell("broken", When.BACKUP, "echo 'no room for a dump' >&2; exit 2")
    spec = machine.must_start(spec_of(machine, 8, tasks=(*TASKS, broken)))
    with pytest.raises(StepFailed, match="task broken failed with status 2: no room for a dump"):
        save(backups, spec, "b" + "e" * 12)
    assert machine.get(spec)[0] == 200
    assert "no room for a dump" in machine.log(spec)
    assert not [made for made in backups.list() if made.id == "b" + "e" * 12]
    machine.stop(spec)


def test_disk_of_its_own(machine: Cell, backups: Backups) -> None:
    limits = Limits(2000, 256 * MIB, 128, None, 64 * MIB)
    spec = machine.must_start(spec_of(machine, 9, limits=limits))
    made = save(backups, spec, "b" + "f" * 12)
    before = rows(machine, spec)
    assert machine.stop(spec).done
    again = msgspec.structs.replace(spec, data_generation=2)
    backups.restore(RestoreBackup(made.snapshot, made.digest, spec.site, 9, 2, 64 * MIB))
    machine.must_start(again)
    assert ran(machine, spec)[3:] == ["dump", "flush", "make", "load"] and rows(machine, again) == before
    machine.stop(again)
