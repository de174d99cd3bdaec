"""The parts below an instance: cgroups of both versions, the seccomp profile, mounts, namespaces."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from alveole.config import Cgroup, Paths, Settings
from alveole.errors import Temporary
from alveole.host import cgroups, instances, mounts, seccomp, userns
from alveole.host.cgroups import Cgroups
from alveole.model.site import MIB, Limits

LIMITS = Limits(500, 64 * MIB, 32, 1 * MIB)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        paths=Paths(state=str(tmp_path / "state"), run=str(tmp_path / "run")),
        cgroup=Cgroup(f"alvtest-parts-{os.getpid()}"),
    )


@pytest.fixture(params=["machine", "unified"])
def groups(settings: Settings, request: pytest.FixtureRequest) -> Iterator[Cgroups]:
    """The machine's own layout, and v2 as far as its hierarchy of a hybrid machine has it (no controllers)."""
    root = cgroups.ROOT if request.param == "machine" else cgroups.ROOT / "unified"
    if request.param == "unified" and not (root / "cgroup.procs").exists():
        pytest.skip("no second hierarchy is mounted")
    made = Cgroups(settings, root=root)
    assert made.v2 == ((root / "cgroup.procs").exists())
    yield made
    for name in made.names():
        made.thaw(name)
        made.kill(name)
        made.remove(name)
    made.remove_parent()


def create(groups: Cgroups, name: str = "one.0") -> str:
    if groups.v2 and not (cgroups.ROOT / "cgroup.procs").exists():
        groups._prepare()
        (groups._paths[""] / name).mkdir()  # without controllers there is nothing to limit
    else:
        groups.create(name, LIMITS)
    return name


@pytest.mark.root
def test_spawn_is_born_inside_and_the_caller_stays_outside(groups: Cgroups) -> None:
    name = create(groups)
    before = Path("/proc/self/cgroup").read_text()
    process = groups.spawn(name, ["/bin/sh", "-c", "cat /proc/self/cgroup; exec sleep 60"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    lines = [process.stdout.readline().decode() for _ in before.splitlines()]
    joined = [line for line in lines if line.rstrip().endswith(f"/{groups.parent}/{name}")]
    assert len(joined) == len(groups._tops)
    assert Path("/proc/self/cgroup").read_text() == before
    assert process.pid in groups.pids(name)
    groups.kill(name)
    assert process.wait() == -signal.SIGKILL
    groups.remove(name)
    groups.remove(name)
    assert groups.names() == set() and groups.pids(name) == [] and groups.stats(name) is None
    process.stdout.close()


@pytest.mark.root
def test_limits_are_what_the_plan_says(settings: Settings) -> None:
    groups = Cgroups(settings)
    if groups.v2:
        pytest.skip("see tests/guest")
    name = create(groups)
    try:

        def value(controller: str, file: str) -> str:
            return (groups._paths[controller] / name / file).read_text().strip()

        groups.settle(name, LIMITS, starting=True)
        assert value("cpu", "cpu.cfs_quota_us") == value("cpu", "cpu.cfs_period_us"), "one core while it starts"
        assert value("cpu", "cpu.shares") == "512" and value("pids", "pids.max") == "32"
        groups.settle(name, LIMITS)
        assert value("memory", "memory.limit_in_bytes") == str(64 * MIB)
        assert value("pids", "pids.max") == "32"
        assert int(value("cpu", "cpu.cfs_quota_us")) / int(value("cpu", "cpu.cfs_period_us")) == 0.5
        assert value("cpu", "cpu.shares") == "512"
        if groups._disk:
            assert value("blkio", "blkio.throttle.write_bps_device") == f"{groups._disk} {MIB}"
    finally:
        groups.remove(name)
        groups.remove_parent()


@pytest.mark.root
def test_frozen_stands_still_and_can_be_killed(groups: Cgroups) -> None:
    name = create(groups)
    process = groups.spawn(name, ["/bin/sh", "-c", "while :; do :; done"])
    groups.freeze(name)
    before = Path(f"/proc/{process.pid}/stat").read_text().split()[13]
    time.sleep(0.1)
    assert Path(f"/proc/{process.pid}/stat").read_text().split()[13] == before
    groups.thaw(name)
    time.sleep(0.1)
    assert Path(f"/proc/{process.pid}/stat").read_text().split()[13] != before
    groups.thaw(name)
    groups.kill(name)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.root
def test_kill_catches_what_forks_all_the_time(groups: Cgroups) -> None:
    """Threat 29: without any limit on processes it is still caught."""
    name = create(groups)
    code = "import os,time\nfor _ in range(5): os.fork()\nwhile True:\n    if os.fork(): os._exit(0)\n"
    process = groups.spawn(name, ["/usr/bin/python3", "-c", code])
    time.sleep(0.3)
    groups.kill(name)
    assert groups.pids(name) == []
    process.wait()


@pytest.mark.root
def test_figures_of_many_are_cheap(settings: Settings) -> None:
    groups = Cgroups(settings)
    names = [f"many{number}.0" for number in range(100)]
    try:
        for name in names:
            groups.create(name, LIMITS)
        begin = time.process_time()
        assert set(groups.all_stats()) == set(names)
        assert (time.process_time() - begin) / len(names) < 0.001
    finally:
        for name in names:
            groups.remove(name)
        groups.remove_parent()


def test_profile_refuses_what_dockers_does() -> None:
    rules = seccomp.convert(msgspec.json.decode(seccomp.PROFILE.read_bytes()), "x86_64")
    allowed = {rule.name for rule in rules.rules if rule.action == 0x7FFF_0000 and not rule.conditions}
    assert not allowed & seccomp.REFUSED
    assert not allowed & {"bpf", "perf_event_open", "userfaultfd", "clone", "clone3", "kexec_load", "io_uring_setup"}
    assert {"read", "execve", "openat", "futex", "epoll_wait", "accept4", "rseq", "memfd_create"} <= allowed
    assert rules.default == 0x0005_0000 | errno.ENOSYS


def test_a_damaged_profile_stops_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the filter nothing is started: better no site than an open one."""
    for content in (None, b"{", b'{"syscalls": [{"names": 3}]}'):
        file = tmp_path / "seccomp.json"
        if content is not None:
            file.write_bytes(content)
        monkeypatch.setattr(seccomp, "PROFILE", file)
        seccomp.annotation.cache_clear()
        with pytest.raises(Temporary):
            seccomp.annotation()
    seccomp.annotation.cache_clear()


@pytest.mark.root
def test_kept_namespaces_map_their_own_range() -> None:
    kept = userns.KeptNamespaces(size=2)
    starts = [0x7100_0000 + number * 65_536 for number in range(3)]
    files = [kept.take(start) for start in (*starts, starts[0], starts[2])]
    assert len({os.fstat(fd).st_ino for fd in files}) == 4, "the oldest was let go and made anew"
    assert os.fstat(files[2]).st_ino == os.fstat(files[4]).st_ino
    for fd in files:
        os.close(fd)
    kept.close()


def test_plain_directories_follow_no_link(tmp_path: Path) -> None:
    """Threat 1: in the layer of a site nothing is followed, whatever it holds."""
    upper, base, outside = tmp_path / "upper", tmp_path / "base", tmp_path / "outside"
    for path in (upper, base / "var/lib", outside):
        path.mkdir(parents=True)
    (base / "var").chmod(0o711)
    (upper / "dev").symlink_to(outside)
    (upper / "file").write_text("x")
    (upper / "a").mkdir()
    (upper / "a/b").symlink_to("../../outside")
    mounts.plain_directories(upper, [base], ["/dev", "/file", "/a/b/c", "/var/lib/new"], os.getuid())
    for path in ("dev", "file", "a/b/c", "var/lib/new"):
        assert (upper / path).is_dir() and not (upper / path).is_symlink()
    assert (upper / "var").stat().st_mode & 0o777 == 0o711
    assert list(outside.iterdir()) == []


def test_processes_are_known_by_their_start() -> None:
    own = instances.start_time(os.getpid())
    assert own is not None and instances.is_running(os.getpid(), own)
    assert not instances.is_running(os.getpid(), own + 1)
    assert instances.open_process(os.getpid(), own + 1) is None
    process = subprocess.Popen(["/bin/true"])
    time.sleep(0.1)
    assert instances.start_time(process.pid) is None, "what only waits for its parent has ended"
    process.wait()
