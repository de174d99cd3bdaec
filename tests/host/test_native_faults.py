"""Faults 3, 4, 6 and 20: the agent killed at every named point of a start, an end and a storage step."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from nativefixtures import VOLUME, Cell, Limits, cell, msgspec
from test_native import traces

from alveole import failpoints
from alveole.host import disk, paths
from alveole.model.resource import Action, Kind, ResourceId, Step, StorageSpec, VolumeOwner, stamp
from alveole.model.site import MIB

pytestmark = pytest.mark.root
STARTING = (
    "workload-begin",
    "logger-started",
    "workload-network",
    "workload-root",
    "workload-running",
    "workload-ready",
)


@pytest.fixture(scope="module")
def machine() -> Iterator[Cell]:
    with cell("f") as made:
        yield made


def killed_at(point: str, work: Callable[[], object]) -> bool:
    """Run ``work`` in a child that dies at ``point`` as if by kill -9; gives whether it got there."""
    pid = os.fork()
    if pid == 0:
        try:
            failpoints._name, failpoints._left = point, 1
            work()
        finally:
            os._exit(3)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def writers(machine: Cell, site: str) -> list[str]:
    """The processes that write the log of ``site``."""
    log = str(paths.site_log(machine.settings, site)).encode()
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            argv = file.read_bytes().split(b"\0")
            found += [file.parent.name] if log in argv else []
    return found


@pytest.mark.parametrize("point", STARTING)
@pytest.mark.parametrize("then", ["again", "away"])
def test_killed_during_a_start(machine: Cell, point: str, then: str) -> None:
    number = 1 + STARTING.index(point) * 2 + (then == "away")
    spec = machine.python(number, volumes=VOLUME, limits=Limits(1000, 128 * MIB, 64, None, 32 * MIB))
    assert machine.store(spec).done
    machine.started.add((spec.site, 0))
    assert killed_at(point, lambda: machine.step(spec, Action.CREATE))
    seen = machine.observed(spec)
    assert seen is not None, "nothing half made is out of sight"
    assert (seen.ready and not seen.defects) == (point == "workload-ready")
    machine.backend.close()
    machine.backend = machine.new_backend()
    if then == "again":
        action = Action.REPLACE if seen.digest != stamp(spec) else Action.REPAIR
        assert machine.step(spec, action).done
        assert machine.get(spec)[0] == 200
        seen = machine.observed(spec)
        assert seen is not None and seen.ready and not seen.defects
        assert len(writers(machine, spec.site)) == 1
    assert machine.stop(spec).done
    assert traces(machine, number) == []
    assert not writers(machine, spec.site), "the writer of its log went with it"
    assert not disk.is_attached(paths.disk_mount(machine.settings, spec.site))


def test_killed_during_an_end(machine: Cell) -> None:
    spec = machine.must_start(machine.python(30))

    def stop_as_another_agent() -> None:
        machine.backend = machine.new_backend()
        machine.stop(spec)

    assert killed_at("workload-gone", stop_as_another_agent)
    seen = machine.observed(spec)
    assert seen is not None and not seen.ready and seen.defects
    assert machine.stop(spec).done
    assert traces(machine, 30) == []


def test_started_by_a_dead_agent_and_ended(machine: Cell) -> None:
    """What a killed agent had started is watched by the next one."""
    spec = machine.python(31)
    assert machine.store(spec).done
    machine.started.add((spec.site, 0))
    assert killed_at("workload-ready", lambda: machine.step(spec, Action.CREATE))
    machine.backend.close()
    machine.backend = machine.new_backend()
    assert machine.get(spec)[0] == 200
    assert machine.stop(spec).done
    assert traces(machine, 31) == []


# Storage


def storage(number: int, size: int | None, *volumes: str, generation: int = 1) -> StorageSpec:
    from nativefixtures import site_id

    return StorageSpec(site_id(number), number, generation, tuple(VolumeOwner(name, 1000) for name in volumes), size)


def keep(machine: Cell, spec: StorageSpec, action: Action = Action.CREATE) -> None:
    id = ResourceId(Kind.STORAGE, spec.site, str(spec.generation))
    done = machine.storage.apply(Step(id, action, stamp(spec), spec))
    assert done.done, done


def drop(machine: Cell, spec: StorageSpec) -> None:
    id = ResourceId(Kind.STORAGE, spec.site, str(spec.generation))
    assert machine.storage.apply(Step(id, Action.DELETE)).done


def observed(machine: Cell, spec: StorageSpec) -> dict[str, str]:
    return {item.id.name: item.digest for item in machine.storage.observe([spec.site]).found if not item.defects}


def write(machine: Cell, spec: StorageSpec, volume: str, text: str) -> None:
    with disk.borrowed(machine.settings, spec.site) as data:
        (paths.volume(data, spec.generation, volume) / "file").write_text(text)


def read(machine: Cell, spec: StorageSpec, volume: str) -> str:
    with disk.borrowed(machine.settings, spec.site) as data:
        return (paths.volume(data, spec.generation, volume) / "file").read_text()


@pytest.mark.parametrize("size", [None, 32 * MIB])
def test_storage_from_first_to_last_generation(machine: Cell, size: int | None) -> None:
    number = 40 if size else 41
    first = storage(number, size, "a", "b")
    keep(machine, first)
    keep(machine, first)
    with disk.borrowed(machine.settings, first.site) as data:
        for name in ("a", "b"):
            info = paths.volume(data, 1, name).stat()
            assert info.st_uid == info.st_gid == paths.site_uid(machine.settings, number)
            assert info.st_mode & 0o777 == 0o750
    write(machine, first, "a", "one")
    second = storage(number, size, "a", "b", generation=2)
    keep(machine, second)
    write(machine, second, "a", "two")
    assert observed(machine, first) == {"1": stamp(first), "2": stamp(second)}
    drop(machine, first)
    assert observed(machine, first) == {"2": stamp(second)}
    assert read(machine, second, "a") == "two"
    drop(machine, second)
    drop(machine, second)
    place = paths.site(machine.settings, first.site)
    assert list(place.iterdir()) == []
    assert machine.storage.observe([first.site]).found == ()


def test_storage_changes_its_size_and_its_kind(machine: Cell) -> None:
    small = storage(42, 32 * MIB, "a")
    keep(machine, small)
    write(machine, small, "a", "kept")
    large = storage(42, 64 * MIB, "a")
    keep(machine, large, Action.REPLACE)
    with disk.borrowed(machine.settings, small.site) as data:
        size = os.statvfs(data)
        assert size.f_blocks * size.f_frsize > 48 * MIB
    assert read(machine, large, "a") == "kept"
    for other in (small, storage(42, None, "a"), large):
        keep(machine, other, Action.REPLACE)
        assert read(machine, other, "a") == "kept"
        assert paths.disk_image(machine.settings, small.site).exists() == (other.disk_bytes is not None)
        with disk.borrowed(machine.settings, small.site) as data:
            info = (paths.volume(data, 1, "a")).stat()
            assert info.st_uid == paths.site_uid(machine.settings, 42)
    drop(machine, large)


def test_disk_too_small_for_what_it_holds_is_refused(machine: Cell) -> None:
    from alveole.errors import Refused

    spec = storage(43, 64 * MIB, "a")
    keep(machine, spec)
    with disk.borrowed(machine.settings, spec.site) as data:
        (paths.volume(data, 1, "a") / "file").write_bytes(os.urandom(40 * MIB))
    less = storage(43, 24 * MIB, "a")
    id = ResourceId(Kind.STORAGE, spec.site, "1")
    with pytest.raises(Refused):
        machine.storage.apply(Step(id, Action.REPLACE, stamp(less), less))
    with disk.borrowed(machine.settings, spec.site) as data:
        assert (paths.volume(data, 1, "a") / "file").stat().st_size == 40 * MIB
    drop(machine, spec)


def test_running_site_keeps_its_storage(machine: Cell) -> None:
    spec = machine.must_start(machine.python(44, volumes=VOLUME))
    other = storage(44, 32 * MIB, "data")
    id = ResourceId(Kind.STORAGE, spec.site, "1")
    done = machine.storage.apply(Step(id, Action.REPLACE, stamp(other), other))
    assert not done.done and "stopped" in done.message
    assert machine.inside(spec, "open('/data/x','w').write('x')")[0] == 0
    machine.stop(spec)
    assert machine.storage.apply(Step(id, Action.REPLACE, stamp(other), other)).done
    limits = Limits(1000, 128 * MIB, 64, None, 32 * MIB)
    machine.must_start(msgspec.structs.replace(spec, limits=limits))
    assert machine.inside(spec, "print(open('/data/x').read())") == (0, "x\n")
    machine.stop(spec)


@pytest.mark.parametrize("point", ["storage-begin", "storage-made", "storage-moved", "storage-delete"])
def test_killed_during_a_storage_step(machine: Cell, point: str) -> None:
    number = 50 + len(point)
    plain, limited = storage(number, None, "a"), storage(number, 32 * MIB, "a")
    keep(machine, plain)
    write(machine, plain, "a", "kept")
    if point == "storage-delete":
        assert killed_at(point, lambda: drop(machine, plain))
        drop(machine, plain)
        assert list(paths.site(machine.settings, plain.site).iterdir()) == []
        return
    assert killed_at(point, lambda: keep(machine, limited, Action.REPLACE))
    keep(machine, limited, Action.REPLACE)
    assert read(machine, limited, "a") == "kept"
    assert observed(machine, limited) == {"1": stamp(limited)}
    place = paths.site(machine.settings, plain.site)
    assert sorted(path.name for path in place.iterdir()) == ["disk.img", "storage.1.json"]
    drop(machine, limited)
