"""Threats 1-5 and 29: what a hostile site tries from inside its container."""

from __future__ import annotations

import contextlib
import grp
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "host"))
from nativefixtures import PYTHON, VOLUME, Cell, Limits, build_skeleton, cell, msgspec, wait_for

from alveole.agent.protocol import Image
from alveole.errors import Temporary
from alveole.host import bases, paths
from alveole.model.resource import WorkloadSpec
from alveole.model.site import MIB, Base, BaseKind

pytestmark = pytest.mark.root
IMAGE = "oci-00000000000000bb"
HOSTILE = "host-00000000000000cc"

#: Calls that Docker's profile refuses, with arguments that would do something if they were let through.
PROBES = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
def probe(name, number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(number, *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    print(name, "allowed" if result >= 0 else errno.errorcode[ctypes.get_errno()])
probe("mount", 165, b"none", b"/tmp", b"tmpfs", 0, 0)
probe("umount2", 166, b"/tmp", 2)
probe("pivot_root", 155, b"/", b"/")
probe("unshare", 272, 0x10000000)
probe("unshare-mount", 272, 0x00020000)
probe("setns", 308, 0, 0)
probe("clone-newuser", 56, 0x10000000 | 17, 0, 0, 0, 0)
probe("clone-newnet", 56, 0x40000000 | 17, 0, 0, 0, 0)
probe("bpf", 321, 0, 0, 0)
probe("keyctl", 250, 0, -3, 1)
probe("add_key", 248, b"user", b"x", b"y", 1, -3)
probe("request_key", 249, b"user", b"x", 0, 0)
probe("open_tree", 428, -100, b"/", 1)
probe("fsopen", 430, b"tmpfs", 0)
probe("mount_setattr", 442, -100, b"/", 0, 0, 0)
probe("move_mount", 429, -100, b"/", -100, b"/", 0)
probe("perf_event_open", 298, 0, 0, -1, -1, 0)
probe("userfaultfd", 323, 0)
probe("kexec_load", 246, 0, 0, 0, 0)
probe("init_module", 175, 0, 0, 0)
probe("reboot", 169, 0xfee1dead, 672274793, 0x89ABCDEF, 0)
probe("swapon", 167, b"/x", 0)
probe("iopl", 172, 3)
probe("open_by_handle_at", 304, 0, 0, 0)
probe("settimeofday", 164, 0, 0)
probe("sethostname", 170, b"x", 1)
probe("chroot", 161, b"/")
"""


@pytest.fixture(scope="module")
def machine() -> Iterator[Cell]:
    with cell("t") as made:
        build_image(made)
        yield made


def build_image(machine: Cell) -> None:
    """An image with Python in it, whose processes are root in the container and keep capabilities."""
    root = paths.base_root(machine.settings, IMAGE)
    build_skeleton(root)
    real = Path(os.path.realpath(PYTHON))
    wanted = [real, *(Path(line.split()[2]) for line in _libraries(real))]
    for name in ("libffi.so.8", "libcrypto.so.3", "libssl.so.3"):
        wanted.append(Path("/usr/lib/x86_64-linux-gnu") / name)
    for file in (*wanted, Path("/lib64/ld-linux-x86-64.so.2")):
        target = root / str(file).lstrip("/")
        if file.parts[1] != "usr":
            target = root / "usr" / str(file).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    shutil.copytree(
        "/usr/lib/python3.11",
        root / "usr/lib/python3.11",
        ignore=shutil.ignore_patterns("test", "idlelib", "ensurepip", "lib2to3", "__pycache__", "config-*"),
    )
    (root / "usr/bin/python3").symlink_to(real.name)
    (root / "tmp").chmod(0o1777)
    base = Base(BaseKind.OCI, IMAGE, image="sha256:" + "0" * 64)
    record = bases.BaseRecord(base, 0.0, 0, 0, Image(base, (), {"FROM_IMAGE": "yes"}, (), (), "0:0"))
    bases.write_record(paths.base_record(machine.settings, IMAGE), record)


def _libraries(program: Path) -> list[str]:
    done = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if "=> /" in line]


@pytest.fixture(scope="module")
def plain(machine: Cell) -> WorkloadSpec:
    """A site of the user 1000 without any capability."""
    return machine.must_start(machine.python(1, volumes=VOLUME))


@pytest.fixture(scope="module")
def image(machine: Cell) -> WorkloadSpec:
    """A site whose processes are root in their container and keep what images keep."""
    return machine.must_start(machine.python(2, base=IMAGE, base_kind=BaseKind.OCI))


@pytest.fixture(params=["plain", "image"])
def site(request: pytest.FixtureRequest) -> WorkloadSpec:
    found: WorkloadSpec = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("link", ["absolute", "relative"])
@pytest.mark.parametrize("kind", ["static", "command"])
def test_hostile_mount_points(machine: Cell, tmp_path: Path, link: str, kind: str) -> None:
    """Threat 1: an image whose /dev, /proc, /sys and /run are links → the host's files are untouched."""
    number = {"absolute": 10, "relative": 20}[link] + (kind == "static")
    base = f"host-00000000000{number:02d}cc0"
    root = paths.base_root(machine.settings, base)
    build_skeleton(root)
    for name in ("dev", "proc", "sys", "run", "tmp"):
        target = tmp_path / name
        target.mkdir()
        (target / "canary").write_text("untouched")
        (target / "null").write_text("untouched")
        shutil.rmtree(root / name)
        (root / name).symlink_to(target if link == "absolute" else "../" * 12 + str(target).lstrip("/"))
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    machine.content(number, {"index.html": "x"})
    if kind == "static":
        spec = machine.must_start(machine.static(number, base=base))
    else:
        spec = machine.must_start(machine.python(number, base=base))
        assert machine.inside(spec, "import os;print(os.path.islink('/dev'), os.path.exists('/dev/canary'))") == (
            0,
            "False False\n",
        )
    assert machine.get(spec)[0] == 200
    machine.stop(spec)
    assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert (tmp_path / "dev/null").read_text() == "untouched"


def test_layer_that_the_site_turned_into_links(machine: Cell, tmp_path: Path) -> None:
    """Threats 1 and 6: the site's own layer may hold links where the next start mounts; none is followed."""
    spec = machine.must_start(machine.python(3, base=IMAGE, base_kind=BaseKind.OCI, volumes=VOLUME))
    (tmp_path / "canary").write_text("untouched")
    code = (
        "import os\n"
        "for n in ('site', 'data', 'run'):\n"
        "    try: os.rename('/'+n, '/old-'+n)\n"
        "    except OSError as e: print(n, e.errno)\n"
        f"    else: os.symlink({str(tmp_path)!r}, '/'+n)\n"
    )
    machine.inside(spec, code)
    machine.stop(spec)
    upper = paths.root_dir(paths.data_dir(machine.settings, spec.site, False), 0) / "upper"
    for name in ("site", "data", "run", "dev"):  # what it can do while nothing is mounted, at the worst
        if (upper / name).is_dir() and not (upper / name).is_symlink():
            shutil.rmtree(upper / name)
        (upper / name).unlink(missing_ok=True)
        (upper / name).symlink_to(tmp_path)
    machine.must_start(spec)
    assert machine.inside(spec, "open('/data/x','w').write('x')")[0] == 0
    machine.stop(spec)
    assert [path.name for path in tmp_path.iterdir()] == ["canary"]


def test_procfs_cannot_be_written(machine: Cell, site: WorkloadSpec) -> None:
    """Threat 2: container root is never host root, and the dangerous files are read-only on top."""
    files = (
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/vm/drop_caches",
        "/proc/sys/kernel/hostname",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/irq/default_smp_affinity",
        "/proc/1/oom_score_adj_",
    )
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    code = (
        f"for path in {files!r}:\n"
        "    try: open(path, 'w').write('|/bin/false')\n"
        "    except OSError as error: print(path, error.errno)\n"
        "    else: print(path, 'WRITTEN')\n"
    )
    for uid in (None, 0):
        status, text = machine.inside(site, code, uid=uid)
        assert status == 0 and "WRITTEN" not in text and len(text.splitlines()) == len(files), text
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before


def test_masked_paths_show_nothing(machine: Cell, site: WorkloadSpec) -> None:
    """Threat 2: what tells about the host is empty or absent."""
    code = (
        "import os\n"
        "for p in ('/proc/kcore','/proc/keys','/proc/timer_list','/proc/interrupts'):\n"
        "    try: print(p, len(open(p,'rb').read(64)))\n"
        "    except OSError: print(p, 0)\n"
        "print('sys', os.listdir('/sys'))\n"
    )
    status, text = machine.inside(site, code, uid=0)
    assert status == 0
    assert all(line.endswith((" 0", "[]")) for line in text.splitlines()), text


def test_system_calls_are_refused(machine: Cell, site: WorkloadSpec) -> None:
    """Threat 3: mount, unshare, bpf, keyctl and the like → EPERM, also for root in the container."""
    for uid in (None, 0):
        status, text = machine.inside(site, PROBES, uid=uid)
        assert status == 0, text
        wrong = [line for line in text.splitlines() if not line.endswith(" EPERM")]
        # userfaultfd is refused with EPERM by the profile or ENOSYS by a kernel without it.
        assert wrong == [] or wrong == ["userfaultfd ENOSYS"], wrong


def test_filter_and_no_new_privileges_are_active(machine: Cell, site: WorkloadSpec) -> None:
    """Threat 3: seen from the host, for the first process and for one started later."""
    status = Path(f"/proc/{machine.pid(site)}/status").read_text()
    assert "Seccomp:\t2" in status and "NoNewPrivs:\t1" in status
    _, text = machine.inside(site, "print(open('/proc/self/status').read())")
    assert "Seccomp:\t2" in text and "NoNewPrivs:\t1" in text


def test_capabilities(machine: Cell, plain: WorkloadSpec, image: WorkloadSpec) -> None:
    """Threat 3: none, or for an image the eight that it may need, and none of them on the host."""
    for spec, expected in ((plain, 0), (image, 0x4FB)):
        for text in (
            Path(f"/proc/{machine.pid(spec)}/status").read_text(),
            machine.inside(spec, "print(open('/proc/self/status').read())")[1],
            machine.inside(spec, "print(open('/proc/self/status').read())", uid=0)[1],
        ):
            held = {line.split()[0]: int(line.split()[1], 16) for line in text.splitlines() if line.startswith("Cap")}
            assert held["CapBnd:"] == expected and held["CapAmb:"] == held["CapInh:"] == 0
            assert held["CapEff:"] in (0, expected)


def test_container_root_is_nobody_on_the_host(machine: Cell, image: WorkloadSpec) -> None:
    uids = [line for line in Path(f"/proc/{machine.pid(image)}/status").read_text().splitlines() if "id:" in line]
    start = machine.settings.uid_start(2)
    assert f"Uid:\t{start}\t{start}\t{start}\t{start}" in uids


def test_only_three_files_are_open_inside(machine: Cell, site: WorkloadSpec) -> None:
    """Threat 4: nothing of the agent leaks in, though it holds files that could be inherited."""
    leak = os.open("/", os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        code = "import os;print(sorted(os.listdir('/proc/self/fd')), os.getcwd())"
        _, text = machine.inside(site, code)
        assert text == "['0', '1', '2', '3'] /\n", "3 is the directory being listed"
        spec = machine.must_start(machine.python(4, "import os;print('open', sorted(os.listdir('/proc/1/fd')))"))
        assert wait_for(lambda: "open ['0', '1', '2']" in machine.log(spec)), machine.log(spec)
        machine.stop(spec)
    finally:
        os.close(leak)


def test_devices_of_the_host_keep_their_owner(machine: Cell, plain: WorkloadSpec) -> None:
    """Threat 4: crun 1.8 gives what it finds on 0-2 to the site's user; it must never find a device."""
    session = machine.backend.exec(plain.site, 0, ["/bin/true"], tty=True, uid=None)
    assert session.wait() == 0
    os.close(session.fds[0])
    for name in ("null", "zero", "full", "tty", "random", "urandom"):
        found = Path(f"/dev/{name}").stat()
        assert (found.st_uid, found.st_mode & 0o777) == (0, 0o666), name
    assert machine.inside(plain, "import os; os.chmod('/dev/null', 0)")[0] != 0


def test_exec_runs_as_the_number_asked_for(machine: Cell, site: WorkloadSpec) -> None:
    """Threat 5: ids are numbers; a base that calls everybody root changes nothing."""
    for uid in (1, 33, 65_000):
        assert machine.inside(site, "import os;print(os.getuid(), os.getgid(), os.getgroups())", uid=uid)[1] in (
            f"{uid} {uid} []\n",
            f"{uid} {uid} [{uid}]\n",
        )


def test_every_mount_is_nosuid(machine: Cell, site: WorkloadSpec) -> None:
    _, text = machine.inside(site, "print(open('/proc/self/mountinfo').read())")
    for line in text.splitlines():
        if line:
            point, options = line.split()[4:6]
            # Single devices and masked files are mounts as well; nothing can be executed from /proc.
            if not point.startswith(("/dev/", "/proc")) or point == "/dev/shm":
                assert "nosuid" in options.split(","), line


def test_sites_see_no_process_of_others(machine: Cell, plain: WorkloadSpec, image: WorkloadSpec) -> None:
    code = "import os;print(sum(name.isdigit() for name in os.listdir('/proc')))"
    for spec in (plain, image):
        assert int(machine.inside(spec, code)[1]) <= 4


def test_socket_link_leads_nowhere(machine: Cell, plain: WorkloadSpec, image: WorkloadSpec) -> None:
    """The edge would connect to a site's socket; a link there must not lead it to another's."""
    victim = paths.web_socket(machine.settings, image.site, 0)
    machine.inside(
        plain,
        f"import os; os.rename('/run/alveole/web.sock', '/run/alveole/mine'); os.symlink({str(victim)!r}, "
        "'/run/alveole/web.sock')",
    )
    with pytest.raises(OSError, match="symbolic links"):
        machine.get(plain)
    machine.inside(plain, "import os; os.rename('/run/alveole/mine', '/run/alveole/web.sock')")
    assert machine.get(plain)[0] == 200


def test_socket_directory_is_bounded_and_open_to_the_edge(machine: Cell, plain: WorkloadSpec) -> None:
    """Threat 29: neither bytes nor inodes of the run directory can be filled from inside."""
    code = (
        "import os, socket\n"
        "made = 0\n"
        "try:\n"
        "    for n in range(100):\n"
        "        socket.socket(socket.AF_UNIX).bind(f'/run/alveole/s{n}'); made += 1\n"
        "except OSError as error: print(made, error.errno)\n"
        "found = os.stat('/run/alveole/s0'); print(oct(found.st_mode & 0o020))\n"
        "for n in range(made): os.unlink(f'/run/alveole/s{n}')\n"
        "try: open('/run/alveole/big', 'wb').write(bytes(1 << 20))\n"
        "except OSError as error: print(error.errno)\n"
        "os.unlink('/run/alveole/big')\n"
    )
    status, text = machine.inside(plain, code)
    made, number, mode, full = text.split()
    directory = paths.sockets(machine.settings, plain.site, 0).stat()
    assert directory.st_gid == grp.getgrnam("www-data").gr_gid
    assert paths.web_socket(machine.settings, plain.site, 0).stat().st_gid == directory.st_gid
    assert status == 0 and int(made) < 16 and number == full == "28" and mode == "0o20", text


class Neighbour:
    """Asks another site all the time; ``failed`` counts what was not answered with 200."""

    def __init__(self, machine: Cell, spec: WorkloadSpec) -> None:
        self.asked = self.failed = 0
        self.slowest = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, args=(machine, spec))

    def _loop(self, machine: Cell, spec: WorkloadSpec) -> None:
        while not self._stop.wait(0.01):
            begin = time.monotonic()
            try:
                self.failed += machine.get(spec)[0] != 200
            except OSError:
                self.failed += 1
            self.asked += 1
            self.slowest = max(self.slowest, time.monotonic() - begin)

    def __enter__(self) -> Neighbour:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture(scope="module")
def neighbour(machine: Cell) -> WorkloadSpec:
    machine.content(30, {"index.html": "here"})
    return machine.must_start(machine.static(30))


def test_fork_bomb_stops_at_its_limit(machine: Cell, neighbour: WorkloadSpec) -> None:
    """Threat 29: processes are counted; the others answer all along; it ends when it is told to."""
    spec = machine.must_start(machine.python(31, limits=Limits(500, 128 * MIB, 40)))
    bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass\n"
    with Neighbour(machine, neighbour) as others:
        session = machine.backend.exec(spec.site, 0, [PYTHON, "-c", bomb], tty=False, uid=None)
        name = f"{spec.site}.0"
        assert wait_for(lambda: len(machine.backend.cgroups.pids(name)) >= 35, 10)
        time.sleep(0.5)
        stats = machine.backend.cgroups.stats(name)
        assert stats is not None and stats.pids <= 40
        begin = time.monotonic()
        assert machine.stop(spec).done
        assert time.monotonic() - begin < spec.stop_seconds + 3
        assert machine.backend.cgroups.pids(name) == []
    session.wait()
    for fd in session.fds:
        os.close(fd)
    assert others.failed == 0 and others.asked > 10


def test_memory_hog_dies_alone(machine: Cell, neighbour: WorkloadSpec) -> None:
    """Threat 29: what takes more than its plan is ended; its own site goes on, and so do the others."""
    spec = machine.must_start(machine.python(32, limits=Limits(1000, 48 * MIB, 40)))
    with Neighbour(machine, neighbour) as others:
        status, _ = machine.inside(spec, "a = []\nwhile True: a.append(bytearray(1 << 20))")
        assert status == 137
        assert machine.get(spec)[0] == 200
    assert others.failed == 0 and others.asked > 2
    machine.stop(spec)


def test_site_that_needs_too_much_memory_says_so(machine: Cell) -> None:
    """Threat 29: the cause is named where a person looks."""
    hog = "import threading\ndef eat():\n    a = []\n    while True: a.append(bytearray(1 << 20))\n"
    spec = machine.python(33, hog + "threading.Timer(0.5, eat).start()", limits=Limits(1000, 48 * MIB, 40))
    machine.must_start(spec)
    machine.ended.clear()
    assert wait_for(lambda: spec.site in machine.ended)
    seen = machine.observed(spec)
    assert seen is not None
    assert [(defect.code, defect.cause) for defect in seen.defects] == [
        ("oom-killed", "it needed more memory than its plan gives (48 MiB)")
    ]
    machine.stop(spec)


def test_processor_hog_gets_its_share(machine: Cell, neighbour: WorkloadSpec) -> None:
    """Threat 29: a quarter of a core is a quarter of a core, with however many processes."""
    spec = machine.must_start(machine.python(34, limits=Limits(250, 128 * MIB, 40)))
    burn = "import os,time\nos.fork(); os.fork()\nend=time.time()+2\nwhile time.time()<end: pass"
    with Neighbour(machine, neighbour) as others:
        before = machine.backend.usage()[spec.site].cpu_seconds
        begin = time.monotonic()
        assert machine.inside(spec, burn)[0] == 0
        used = machine.backend.usage()[spec.site].cpu_seconds - before
        assert used / (time.monotonic() - begin) < 0.25 * 1.25
    assert others.failed == 0
    machine.stop(spec)


def test_full_disk_is_its_own(machine: Cell, neighbour: WorkloadSpec) -> None:
    """Threat 29, fault 13: bytes and inodes end inside; the site goes on serving, the others go on writing."""
    limits = Limits(1000, 128 * MIB, 64, None, 32 * MIB)
    spec = machine.must_start(machine.python(35, volumes=VOLUME, limits=limits))
    other = machine.must_start(machine.python(36, volumes=VOLUME, limits=limits))
    free = shutil.disk_usage(machine.settings.state).free
    fill = (
        "import os\n"
        "try:\n"
        "    with open('/data/big','wb') as f:\n"
        "        while True: f.write(bytes(1<<20)); f.flush()\n"
        "except OSError as error: print(error.errno)\n"
        "os.unlink('/data/big')\n"
        "try:\n"
        "    for n in range(100000): open(f'/data/{n}','w').close()\n"
        "except OSError as error: print(error.errno, n)\n"
    )
    with Neighbour(machine, neighbour) as others:
        status, text = machine.inside(spec, fill)
        assert status == 0, text
        first, second, files = text.split()
        assert first == second == "28" and int(files) < 3000
        assert machine.get(spec)[0] == 200
        assert machine.inside(other, "open('/data/x','wb').write(bytes(1<<20))")[0] == 0
    assert others.failed == 0
    assert free - shutil.disk_usage(machine.settings.state).free < 256 * MIB
    for each in (spec, other):
        machine.stop(each)


def test_full_root_layer_is_its_own(machine: Cell) -> None:
    """Threat 29: the changes of the root count against the same disk."""
    limits = Limits(1000, 128 * MIB, 64, None, 32 * MIB)
    spec = machine.must_start(machine.python(37, base=IMAGE, base_kind=BaseKind.OCI, limits=limits))
    fill = (
        "try:\n"
        "    with open('/big','wb') as f:\n"
        "        for n in range(64): f.write(bytes(1<<20)); f.flush()\n"
        "    print('no limit')\n"
        "except OSError as error: print(error.errno)\n"
    )
    assert machine.inside(spec, fill) == (0, "28\n")
    assert machine.get(spec)[0] == 200
    machine.stop(spec)


def test_slow_disk_is_its_own(machine: Cell) -> None:
    """Threat 29: bytes a second are limited where the kernel can attribute them: direct and synced writes."""
    if not machine.backend.cgroups._disk:
        pytest.skip("the state directory is on no block device")
    limits = Limits(1000, 128 * MIB, 64, 2 * MIB)
    spec = machine.must_start(machine.python(38, volumes=VOLUME, limits=limits))
    write = (
        "import mmap, os, time\n"
        "block = mmap.mmap(-1, 1 << 20)\n"
        "fd = os.open('/data/x', os.O_WRONLY | os.O_CREAT | os.O_DIRECT)\n"
        "begin = time.time()\n"
        "for n in range(5): os.write(fd, block)\n"
        "print(time.time() - begin)\n"
    )
    status, text = machine.inside(spec, write)
    assert status == 0 and float(text) > 1.5, text
    # What waits for its turn at the disk ends after it, however long the machine makes it wait.
    for _try in range(10):
        with contextlib.suppress(Temporary):
            machine.stop(spec)
            break
    else:
        machine.stop(spec)


def test_environment_is_not_shown_to_others(machine: Cell, plain: WorkloadSpec) -> None:
    """A site's variables may be secret: what holds them is for root only."""
    place = paths.instance(machine.settings, plain.site, 0)
    for file in (place / "state.json", place / "bundle/config.json"):
        assert file.stat().st_mode & 0o077 == 0 and file.stat().st_uid == 0


def test_extra_spec_fields_are_refused() -> None:
    """Threat 30: there is no way to say "privileged" or to name a path of the host."""
    fields = {field.name for field in msgspec.structs.fields(WorkloadSpec)}
    assert not fields & {"privileged", "capabilities", "mounts", "devices", "path", "network", "pid", "user"}


def test_families_of_sockets(machine: Cell, site: WorkloadSpec) -> None:
    """Threat 3: a socket of a rare family is the way to kernel code that no web application needs."""
    code = (
        "import errno, socket\n"
        "for family in (*range(0, 46), 4000):\n"
        "    try: socket.socket(family, socket.SOCK_DGRAM).close()\n"
        "    except OSError as error: print(family, errno.errorcode[error.errno])\n"
        "    else: print(family, 'made')\n"
    )
    status, printed = machine.inside(site, code)
    assert status == 0
    found = dict(line.split() for line in printed.splitlines())
    made = {int(family) for family, outcome in found.items() if outcome == "made"}
    assert made == {socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK}
    assert {outcome for family, outcome in found.items() if int(family) not in made} == {"ENOSYS"}


def test_a_crash_runs_nothing_on_the_host(machine: Cell, site: WorkloadSpec) -> None:
    """Threat 2: what core_pattern names is run by the kernel as root of the host, unless the limit is 1."""
    code = (
        "import resource\n"
        "print(*resource.getrlimit(resource.RLIMIT_CORE))\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
        "print(*resource.getrlimit(resource.RLIMIT_CORE))\n"
        "resource.prlimit(0, resource.RLIMIT_CORE, (0, 1))\n"
        "import ctypes; ctypes.CDLL(None).syscall(160, 4, (ctypes.c_ulong * 2)(0, 0))\n"
        "print(*resource.getrlimit(resource.RLIMIT_CORE))\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "print(*resource.getrlimit(resource.RLIMIT_NOFILE))\n"
    )
    assert machine.inside(site, code) == (0, "1 1\n1 1\n1 1\n64 64\n")


def test_no_family_by_the_way_of_32_bit_programs(machine: Cell, site: WorkloadSpec) -> None:
    """Threat 3: socketcall(2) of i386 hides the family from the filter; socket(2) of i386 does not."""
    code = (
        "import ctypes, struct\n"
        "libc = ctypes.CDLL(None); libc.mmap.restype = ctypes.c_void_p\n"
        "at = libc.mmap(None, 8192, 7, 0x22 | 0x40, -1, ctypes.c_long(0))\n"
        "def call(number, *arguments):\n"
        "    words = zip(b'\\xb8\\xbb\\xb9\\xba', (number, *arguments))\n"
        "    text = b''.join(bytes([load]) + struct.pack('<I', word) for load, word in words)\n"
        "    ctypes.memmove(at, b'\\x53' + text + b'\\xcd\\x80\\x5b\\xc3', len(text) + 5)\n"
        "    return ctypes.CFUNCTYPE(ctypes.c_int)(at)()\n"
        "def old(family):\n"
        "    ctypes.memmove(at + 4096, struct.pack('<III', family, 1, 0), 12)\n"
        "    return call(102, 1, at + 4096, 0)\n"
        "print(old(40), old(38), old(2), call(359, 40, 1, 0), call(359, 2, 1, 0) > 2)\n"
    )
    assert machine.inside(site, code) == (0, "-38 -38 -38 -38 True\n")
