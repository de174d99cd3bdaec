"""Builds: what strangers' programs may do while they make a release, and that nothing of them is left."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from nativefixtures import HOST_BASE, PYTHON, Cell, cell, site_id

from alveole.actuators.builds import Builds
from alveole.actuators.releases import Releases
from alveole.agent.protocol import BuildRelease, Built
from alveole.backends.native.build import FLOOD_BYTES, BuildRunner
from alveole.config import Build, Content
from alveole.errors import InvalidInput, Refused
from alveole.host import netns, paths, syscalls
from alveole.host.sandbox import Sandbox
from alveole.model.site import MIB, Base, BaseKind, BuildCommand, Release

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
#: Addresses of a machine that is not this one, reached over a veth pair; the first two stand for public ones.
FAR = ("203.0.113.7", "203.0.113.8", "10.99.0.7", "169.254.169.254")
HOSTS = {
    "registry.test": FAR[0],
    "unlisted.test": FAR[1],
    "inside.test": FAR[2],
    "metadata.test": FAR[3],
    "self.test": "203.0.113.1",
    "loop.test": "127.0.0.1",
}


class Works:
    """A cell with all that a build needs."""

    def __init__(self, made: Cell) -> None:
        # The addresses of the documentation stand for public ones here (RFC 5737).
        build = Build(
            registries=("registry.test", "inside.test", "metadata.test", "self.test", "loop.test"),
            private_networks=("203.0.113.0/24",),
            memory_bytes=128 * MIB,
            pids=40,
            disk_bytes=64 * MIB,
            seconds=20,
        )
        settings = msgspec.structs.replace(made.settings, build=build, content=Content(reserve_bytes=MIB))
        made.backend.settings = settings
        self.cell, self.settings = made, settings
        self.sandbox = Sandbox()
        self.releases = Releases(settings, self.sandbox)
        self.runner = BuildRunner(made.backend)
        self.runner.recover()
        self.builds = Builds(settings, self.releases, self.runner)
        self.said: list[str] = []

    def deliver(self, number: int, files: dict[str, str]) -> Release:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for name, text in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))
        with tempfile.TemporaryFile() as file:
            file.write(out.getvalue())
            file.flush()
            return self.releases.import_release(site_id(number), number, file.fileno())

    def python(
        self, number: int, *codes: str, files: dict[str, str] | None = None, network: bool = False, **more: object
    ) -> Built:
        """Build with programs in Python, after delivering ``files``."""
        source = self.deliver(number, files or {"app.py": "x = 1\n"})
        commands = tuple(BuildCommand((PYTHON, "-c", code), network=network) for code in codes)
        return self.run(number, source.digest, commands, network=network, **more)

    def run(self, number: int, source: str, commands: tuple[BuildCommand, ...], **more: object) -> Built:
        base = Base(BaseKind.HOST, HOST_BASE)
        request = BuildRelease(site_id(number), number, source, base, commands, **more)
        return self.builds.build(request, lambda text, _share=None: self.said.append(text))

    def tree(self, number: int, built: Built) -> Path:
        assert built.release is not None, (built.message, built.output)
        return paths.release(self.settings, site_id(number), built.release.digest)

    def leftovers(self, number: int) -> list[str]:
        """What a build has left on the machine beside its disk."""
        top = paths.builds(self.settings)
        left = [str(path) for path in top.iterdir()] + syscalls.mount_points(top)
        left += [name for name in self.cell.backend.cgroups.names() if name.startswith("build.")]
        left += [str(path) for path in paths.staging(self.settings, site_id(number)).iterdir()]
        loops = subprocess.run(["losetup", "-nO", "BACK-FILE"], capture_output=True, text=True, check=True).stdout
        return left + [line for line in loops.splitlines() if str(self.settings.state) in line]


@pytest.fixture(scope="module")
def works() -> Iterator[Works]:
    with cell("b") as made, _far_machine(), _names():
        works = Works(made)
        try:
            yield works
        finally:
            works.sandbox.close()


@contextlib.contextmanager
def _far_machine() -> Iterator[None]:
    """Another machine, in a network namespace of its own, that answers on port 443 with its own address."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    stop = threading.Event()

    def far() -> int:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        ip = ("ip", "link", "add", "far0", "type", "veth", "peer", "name", "near0", "netns", f"/proc/self/fd/{here}")
        subprocess.run(ip, check=True, pass_fds=(here,))
        for address in FAR:
            subprocess.run(("ip", "address", "add", f"{address}/32", "dev", "far0"), check=True)
        subprocess.run(("ip", "link", "set", "far0", "up"), check=True)
        subprocess.run(("ip", "link", "set", "lo", "up"), check=True)
        subprocess.run(("ip", "route", "add", "203.0.113.1", "dev", "far0"), check=True)
        threading.Thread(target=_answer, args=(stop,), daemon=True).start()
        return fd

    fd = netns.in_thread(far)
    try:
        subprocess.run(("ip", "address", "add", "203.0.113.1/32", "dev", "near0"), check=True)
        subprocess.run(("ip", "link", "set", "near0", "up"), check=True)
        subprocess.run(("ip", "link", "set", "lo", "up"), check=True)
        for address in FAR:
            subprocess.run(("ip", "route", "add", address, "dev", "near0", "src", "203.0.113.1"), check=True)
        threading.Thread(target=_answer, args=(stop,), daemon=True).start()
        yield
    finally:
        stop.set()
        os.close(fd)
        os.close(here)


def _answer(stop: threading.Event) -> None:
    import socket

    with socket.create_server(("0.0.0.0", 443)) as server:  # noqa: S104  of a namespace of the test
        server.settimeout(0.2)
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = server.accept()
                with connection, contextlib.suppress(OSError):
                    asked = connection.recv(100)
                    connection.sendall(f"{connection.getsockname()[0]} got {asked.decode()}".encode())


@contextlib.contextmanager
def _names() -> Iterator[None]:
    """Names of the test, in this mount namespace only."""
    with tempfile.NamedTemporaryFile("w", prefix="alvhosts") as file:
        file.write("127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in HOSTS.items()))
        file.flush()
        Path(file.name).chmod(0o644)
        syscalls.mount(file.name, "/etc/hosts", flags=syscalls.MS_BIND)
        try:
            yield
        finally:
            syscalls.umount("/etc/hosts", syscalls.MNT_DETACH)


#: Inside a build: asks the proxy for a tunnel and says what came through it.
TUNNEL = """
import os, socket, sys
def through(target, more=b""):
    proxy = os.environ.get("HTTPS_PROXY")
    if proxy is None:
        return "no proxy"
    host, port = proxy.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 5) as s:
        s.sendall(f"CONNECT {target} HTTP/1.1\\r\\nHost: {target}\\r\\n\\r\\n".encode())
        head = s.recv(4096).decode()
        if " 200 " not in head:
            return head.split("\\r\\n")[0] + " " + head.split("\\r\\n\\r\\n")[-1].strip()
        s.sendall(b"hello")
        return s.recv(4096).decode()
"""


def test_a_build_makes_another_release(works: Works) -> None:
    source = works.deliver(1, {"app.py": "x = 1\n", "lib/a.txt": "a"})
    code = (
        "import os; open('made', 'w').write(open('app.py').read()); os.remove('lib/a.txt'); os.chmod('app.py', 0o755)"
    )
    link = "import os; os.symlink('/usr/bin/python3', 'python'); os.symlink('../..', 'up'); os.mkfifo('pipe')"
    built = works.run(1, source.digest, tuple(BuildCommand((PYTHON, "-c", each)) for each in (code, link)))
    tree = works.tree(1, built)
    assert built.release is not None and built.release.source == source.digest != built.release.digest
    assert (tree / "made").read_text() == "x = 1\n"
    assert (tree / "python").readlink() == Path("/usr/bin/python3")
    assert sorted(path.name for path in tree.iterdir()) == ["app.py", "lib", "made", "python", "up"]
    uid = paths.site_uid(works.settings, 1)
    assert {path.lstat().st_uid for path in (tree, *tree.rglob("*"))} == {uid}
    # The release it came from is as it was.
    works.releases.verify(site_id(1), 1, source.digest)
    works.releases.verify(site_id(1), 1, built.release.digest)
    assert works.leftovers(1) == []
    assert any(line.startswith(f"$ {PYTHON}") for line in works.said)


def test_the_same_build_has_the_same_name(works: Works) -> None:
    code = "open('made', 'w').write('x')"
    first, second = works.python(2, code), works.python(2, code)
    assert first.release is not None and second.release is not None
    assert first.release.digest == second.release.digest


def test_commands_run_only_for_their_files(works: Works) -> None:
    source = works.deliver(3, {"package.json": "{}", "x.gemspec": ""})
    commands = (
        BuildCommand((PYTHON, "-c", "open('lock', 'w')"), file="package-lock.json"),
        BuildCommand((PYTHON, "-c", "open('nolock', 'w')"), file="package.json", unless="package-lock.json"),
        BuildCommand((PYTHON, "-c", "open('gem', 'w')"), file="*.gemspec"),
        BuildCommand((PYTHON, "-c", "open('late', 'w')"), file="gem"),
        BuildCommand((PYTHON, "-c", "open('out', 'w')"), file="../../etc"),
    )
    tree = works.tree(3, works.run(3, source.digest, commands))
    assert {"nolock", "gem", "late"} <= {path.name for path in tree.iterdir()}
    assert not {"lock", "out"} & {path.name for path in tree.iterdir()}


def test_a_failure_shows_the_tail_and_leaves_the_source(works: Works) -> None:
    built = works.python(
        4, "import sys; print('first line'); print('\\x1b[31mno such thing', file=sys.stderr); sys.exit(7)"
    )
    assert built.release is None and "status 7" in built.message
    assert "first line" in built.output and any("no such thing" in line for line in built.output)
    assert not any("\x1b" in line for line in built.output)
    assert works.leftovers(4) == []
    assert len(list(paths.releases(works.settings, site_id(4)).iterdir())) == 1


def test_what_cannot_be_content_is_refused(works: Works) -> None:
    """Threat 11: a name that a person cannot be shown, and a tree too deep to walk, become no release."""
    with pytest.raises(InvalidInput, match="control character"):
        works.python(5, "open('a\\nb', 'w')")
    deep = "import os\nfor i in range(100):\n os.mkdir('d'); os.chdir('d')"
    with pytest.raises(InvalidInput, match=r"deeper|depth"):
        works.python(5, deep)
    assert works.leftovers(5) == []


def test_the_cache_stays_and_a_full_one_goes(works: Works) -> None:
    keep = "open('/cache/kept', 'w').write('x')"
    look = "import os; open('found', 'w').write(str(os.listdir('/cache')))"
    works.python(6, keep)
    assert "kept" in (works.tree(6, works.python(6, look)) / "found").read_text()
    fill = "open('/cache/big', 'wb').write(bytes(40 << 20))"
    works.python(6, fill)
    assert "kept" not in (works.tree(6, works.python(6, look)) / "found").read_text()
    # Nobody else's cache.
    assert "kept" not in (works.tree(7, works.python(7, look)) / "found").read_text()


def test_what_a_build_may_do_is_little(works: Works) -> None:
    """Threats 1, 5 and 15: no capability, no new privilege, nothing of the machine or of other sites is writable."""
    code = """
import os, json
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
def tried(path):
    try:
        open(path, "w").close()
        return "wrote"
    except OSError as error:
        return error.strerror
places = ["/x", "/etc/hosts", "/etc/passwd", "/usr/x", "/build/ca.pem", "/proc/sys/kernel/core_pattern", "/dev/x"]
found = {
    "uid": os.getuid(), "caps": status["CapEff"], "bounding": status["CapBnd"], "privs": status["NoNewPrivs"],
    "seccomp": status["Seccomp"], "wrote": [p for p in places if tried(p) == "wrote"],
    "net": sorted(os.listdir("/sys/class/net")) if os.path.exists("/sys/class/net") else [],
    "pids": len([p for p in os.listdir("/proc") if p.isdigit()]), "env": dict(os.environ),
    "site": os.listdir("/site"), "config": os.path.exists("/config"), "sock": os.path.exists("/run/alveole/web.sock"),
}
json.dump(found, open("found.json", "w"))
"""
    built = works.python(8, code, env={"MINE": "1"})
    found = msgspec.json.decode((works.tree(8, built) / "found.json").read_bytes())
    assert found["uid"] == 1000 and found["seccomp"] == "2" and found["privs"] == "1"
    assert int(found["caps"], 16) == 0 == int(found["bounding"], 16)
    assert found["wrote"] in ([], ["/dev/x"]), found["wrote"]
    assert found["pids"] <= 3 and found["site"] == ["current"]
    assert not found["config"] and not found["sock"] and found["net"] == []
    assert found["env"]["MINE"] == "1" and "PORT" not in found["env"] and "HTTPS_PROXY" not in found["env"]


@pytest.mark.parametrize("leave", [False, True])
def test_no_way_out_but_the_proxy(works: Works, leave: bool) -> None:
    """Threat 18: neither the machine's own ports nor anything else is reached, with or without leave."""
    code = """
import socket
def tried(address, port):
    try:
        socket.create_connection((address, port), 1).close()
        return True
    except OSError:
        return False
META = "169.254.169.254"
targets = [("203.0.113.1", 443), ("203.0.113.7", 443), ("10.78.1.254", 443), (META, 80), ("127.0.0.1", 443)]
open("reached", "w").write(str([t for t in targets if tried(*t)]))
try:
    open("/sys/class/net/x"); socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
except OSError as error:
    pass
open("names", "w").write(str([i[1] for i in socket.if_nameindex()]))
"""
    built = works.python(9, code, network=leave)
    tree = works.tree(9, built)
    assert (tree / "reached").read_text() == "[]"
    assert (tree / "names").read_text() == "['lo']"


def test_the_proxy_lets_only_registries_through(works: Works) -> None:
    """Threat 18: by name and by port, resolved and pinned; private, metadata and own addresses are refused."""
    asked = [
        "registry.test:443",
        "registry.test:80",
        "unlisted.test:443",
        "203.0.113.7:443",
        "inside.test:443",
        "metadata.test:443",
        "self.test:443",
        "loop.test:443",
        "169.254.169.254:443",
        "REGISTRY.test.:443",
        "[::1]:443",
        "x" * 9000,
    ]
    code = (
        TUNNEL
        + f"""
import json
found = {{}}
for target in {asked!r}:
    try:
        found[target] = through(target)
    except OSError as error:
        found[target] = "closed"
found["plain"] = ""
host, port = os.environ["HTTPS_PROXY"].removeprefix("http://").split(":")
with socket.create_connection((host, int(port)), 5) as s:
    s.sendall(b"GET http://registry.test/ HTTP/1.1\\r\\n\\r\\n")
    found["plain"] = s.recv(1000).decode()
json.dump(found, open("found", "w"))
"""
    )
    built = works.python(10, code, network=True)
    found = msgspec.json.decode((works.tree(10, built) / "found").read_bytes())
    assert found.pop("registry.test:443") == "203.0.113.7 got hello"
    assert found.pop("REGISTRY.test.:443") == "203.0.113.7 got hello"
    assert "405" in found.pop("plain")
    assert "public address" in found["inside.test:443"] and "public address" in found["metadata.test:443"]
    assert "this machine" in found["self.test:443"]
    assert "not among build.registries" in found["unlisted.test:443"]
    for target, answer in found.items():
        assert answer in ("closed", " ") or " 403 " in answer or " 405 " in answer, (target, answer)
    assert any("unlisted.test:443 is not among build.registries" in line for line in built.output)


def test_without_leave_there_is_no_proxy(works: Works) -> None:
    source = works.deliver(11, {"a": ""})
    command = BuildCommand(
        (PYTHON, "-c", TUNNEL + "open('said', 'w').write(through('registry.test:443'))"), network=True
    )
    tree = works.tree(11, works.run(11, source.digest, (command,), network=False))
    assert (tree / "said").read_text() == "no proxy"


def test_limits_hold(works: Works) -> None:
    """Threat 29: processes, memory, disk and time of a build are its own and end."""
    bomb = (
        "import os, time\nn = 0\ntry:\n  while True:\n    pid = os.fork()\n    if not pid: time.sleep(30)\n    n += 1\n"
    )
    bomb += "except OSError: pass\nopen('n', 'w').write(str(n))\n"
    assert int((works.tree(12, works.python(12, bomb)) / "n").read_text()) <= 48
    eaten = works.python(12, "x = b'x' * (400 << 20)")
    assert eaten.release is None and ("MiB" in eaten.message or "signal 9" in eaten.message or "137" in eaten.message)
    full = works.python(12, "f = open('big', 'wb')\nfor i in range(100): f.write(bytes(1 << 20))")
    assert full.release is None and any("No space left" in line for line in full.output)
    assert works.leftovers(12) == []


def test_time_ends_a_build(works: Works) -> None:
    settings = works.runner._settings
    works.runner._settings = msgspec.structs.replace(
        settings, build=msgspec.structs.replace(settings.build, seconds=10)
    )
    try:
        began = time.monotonic()
        built = works.python(13, "import os, time\nif os.fork(): time.sleep(60)\nos.setsid(); time.sleep(60)")
    finally:
        works.runner._settings = settings
    assert built.release is None and "longer than the 10 s" in built.message
    assert time.monotonic() - began < 15
    assert works.leftovers(13) == []


def test_what_stays_behind_ends_with_the_build(works: Works) -> None:
    """Threat 29: a child that has left its session does not hold the build up, and does not live on."""
    code = "import os, time\nif os.fork() == 0:\n  os.setsid(); time.sleep(300)\nprint('done')"
    began = time.monotonic()
    assert works.python(14, code).release is not None
    assert time.monotonic() - began < 8
    assert works.leftovers(14) == []


def test_a_flood_is_slowed_down(works: Works) -> None:
    """Threat 29: what prints without end costs the agent little, and its last words are kept."""
    code = (
        "import os, time\nend, sent = time.monotonic() + 3, 0\n"
        "while time.monotonic() < end: sent += os.write(1, b'y\\n' * 30000)\nprint('sent', sent)"
    )
    built = works.python(17, code)
    assert built.release is not None
    (sent,) = re.findall(r"(?m)^sent (\d+)$", "\n".join(built.output))
    # And what a pipe holds, twice: on its way, and not yet paid for.
    assert int(sent) <= 3 * FLOOD_BYTES + 2 * 65_536


def test_localhost_has_a_name(works: Works) -> None:
    code = "import socket; open('a', 'w').write(socket.gethostbyname('localhost') + socket.gethostname())"
    assert (works.tree(18, works.python(18, code)) / "a").read_text() == "127.0.0.1build"


def test_one_build_a_site_at_a_time(works: Works) -> None:
    seen: list[object] = []
    thread = threading.Thread(target=lambda: seen.append(works.python(15, "import time; time.sleep(2)")))
    source = works.deliver(15, {"other": "x"})
    thread.start()
    time.sleep(1)
    with pytest.raises(Refused):
        works.run(15, source.digest, ())
    thread.join()
    assert isinstance(seen[0], Built) and seen[0].release is not None


def test_a_killed_agent_leaves_nothing(works: Works) -> None:
    """Fault 3: what a build had when the agent died goes at the next start, its processes first."""
    source = works.deliver(16, {"a": "x"})
    base = Base(BaseKind.HOST, HOST_BASE)
    works.runner._prepare(BuildRelease(site_id(16), 16, source.digest, base, ()))
    name = f"build.{site_id(16)}"
    orphan = works.cell.backend.cgroups.spawn(name, ("sleep", "300"))
    assert works.cell.backend.cgroups.pids(name) == [orphan.pid]
    assert len(works.leftovers(16)) >= 4
    BuildRunner(works.cell.backend).recover()
    assert orphan.wait(5) == -9
    assert works.leftovers(16) == []
    assert works.python(16, "open('again', 'w')").release is not None
