"""A small Alvéole of one's own for a test: real bridge, rules, cgroups, crun and nginx.

The calling thread gets a network namespace and a mount namespace of its own for the length of the
test, so that nothing of the real machine is touched and whatever a test leaves goes with them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from alveole.actuators.storage import Storage
from alveole.backends.base import Session
from alveole.backends.native import lower
from alveole.backends.native.run import NativeBackend
from alveole.config import Cgroup, Network, Paths, Settings, Sites, Users
from alveole.host import disk, mounts, paths, runtime, syscalls
from alveole.host.firewall import Firewall
from alveole.host.network import SiteNetwork
from alveole.model.resource import (
    Action,
    Kind,
    Observed,
    Outcome,
    ResourceId,
    Step,
    StorageSpec,
    VolumeOwner,
    WorkloadSpec,
    stamp,
)
from alveole.model.site import MIB, BaseKind, Limits, Process, VolumeMount

HOST_BASE = "host-00000000000000aa"
OPEN = Limits(1000, 128 * MIB, 64)
DATA = Path(__file__).resolve().parents[2] / "src/alveole/data"
PYTHON = "/usr/bin/python3"

#: Answers on the Unix socket with what the path asks for; a site of one process for tests.
SERVER = """
import http.server, os, socketserver, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = eval(open("/tmp/answer").read()) if os.path.exists("/tmp/answer") else "ok"
        data = str(body).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(data))); self.end_headers()
        self.wfile.write(data)
    def address_string(self): return "edge"
    def log_message(self, *a): print("asked", self.path, flush=True)
class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer): daemon_threads = True
print("starting", flush=True)
Server(os.environ["ALVEOLE_SOCKET"], Handler).serve_forever()
"""


def site_id(number: int) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz234567"
    text = ""
    while number:
        number, digit = divmod(number, 32)
        text = letters[digit] + text
    return "s" + text.rjust(12, "a")


def settings_for_test(directory: str, tag: str = "") -> Settings:
    return Settings(
        paths=Paths(state=f"{directory}/state", run=f"{directory}/run"),
        users=Users(control="nobody", edge="www-data", log="daemon"),
        network=Network(
            bridge="alvnat0",
            interface_prefix="ant",
            table="alvnat",
            ipv4="10.78.0.0/16",
            first_ipv4="10.78.1.1",
            gateway_ipv4="10.78.1.254",
            ipv6="fd78:6c76:656f::/64",
        ),
        cgroup=Cgroup(f"alvtest-{os.getpid()}{tag}"),
        sites=Sites(shared=(f"{directory}/share",)),
    )


def build_skeleton(root: Path) -> None:
    """What a base of the kind ``host`` holds."""
    for name in ("dev", "proc", "sys", "tmp", "run/alveole", "usr", "etc/nginx", "etc/alveole", "site/current", "root"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nsite:x:1000:1000::/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nsite:x:1000:\n")
    for name in ("hosts", "resolv.conf", "hostname"):
        (root / "etc" / name).write_text("")
    shutil.copy("/etc/nginx/mime.types", root / "etc/nginx/mime.types")
    shutil.copy(DATA / "static-nginx.conf", root / "etc/alveole/nginx.conf")


class Cell:
    """The parts wired together. ``ended`` collects the sites that the watcher told of."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.network = SiteNetwork(settings)
        self.network.ensure_bridge()
        self.firewall = Firewall(settings)
        self.firewall.ensure({})
        self.storage = Storage(settings)
        self.ended: list[str] = []
        self.backend = self.new_backend()
        self.started: set[tuple[str, int]] = set()

    def new_backend(self) -> NativeBackend:
        backend = NativeBackend(self.settings, self.network, self.firewall, on_end=self.ended.append)
        backend.start()
        return backend

    def content(self, number: int, files: dict[str, str]) -> None:
        """Static content of a site, live at once."""
        place = paths.content(self.settings, site_id(number))
        release = place / "releases" / ("0" * 64)
        release.mkdir(parents=True, exist_ok=True)
        paths.site(self.settings, site_id(number)).chmod(0o711)
        for name, text in files.items():
            (release / name).parent.mkdir(parents=True, exist_ok=True)
            (release / name).write_text(text)
        with contextlib.suppress(FileExistsError):
            (place / "current").symlink_to(f"releases/{'0' * 64}")

    def static(self, number: int, slot: int = 0, *, limits: Limits = OPEN, **changes: object) -> WorkloadSpec:
        return self.spec(number, slot, static=True, writable=False, processes=(), limits=limits, **changes)

    def command(self, number: int, *argv: str, slot: int = 0, limits: Limits = OPEN, **changes: object) -> WorkloadSpec:
        return self.spec(
            number, slot, static=False, writable=True, processes=(Process("web", argv),), limits=limits, **changes
        )

    def python(self, number: int, before: str = "", **changes: object) -> WorkloadSpec:
        """A site of one process that runs ``before`` and then answers with what /tmp/answer computes."""
        return self.command(number, PYTHON, "-c", f"{before}\n{SERVER}", **changes)

    def spec(self, number: int, slot: int, **changes: object) -> WorkloadSpec:
        values: dict[str, object] = {
            "site": site_id(number),
            "number": number,
            "slot": slot,
            "hostname": site_id(number),
            "base": HOST_BASE,
            "base_kind": BaseKind.HOST,
            "port": None,
            "env": {},
            "volumes": (),
            "data_generation": 1,
            "health": "/",
            "ready_seconds": 20,
            "stop_seconds": 5,
            "incarnation": 0,
            **changes,
        }
        return WorkloadSpec(**values)

    def store(self, spec: WorkloadSpec, action: Action = Action.CREATE) -> Outcome:
        """Make the storage that ``spec`` leans on."""
        storage = StorageSpec(
            spec.site,
            spec.number,
            spec.data_generation,
            tuple(VolumeOwner(volume.name, volume.uid) for volume in spec.volumes),
            spec.limits.disk_bytes,
        )
        id = ResourceId(Kind.STORAGE, spec.site, str(spec.data_generation))
        return self.storage.apply(Step(id, action, stamp(storage), storage))

    def step(self, spec: WorkloadSpec, action: Action, **changes: object) -> Outcome:
        id = ResourceId(Kind.WORKLOAD, spec.site, str(spec.slot))
        wanted = None if action is Action.DELETE else spec
        return self.backend.apply(Step(id, action, stamp(spec), wanted, **changes))

    def start(self, spec: WorkloadSpec, action: Action = Action.CREATE) -> Outcome:
        if spec.writable or spec.volumes:
            done = self.store(spec)
            assert done.done, done
        self.started.add((spec.site, spec.slot))
        return self.step(spec, action)

    def must_start(self, spec: WorkloadSpec) -> WorkloadSpec:
        done = self.start(spec)
        assert done.done, (done, self.log(spec))
        return spec

    def stop(self, spec: WorkloadSpec, **changes: object) -> Outcome:
        return self.step(spec, Action.DELETE, **changes)

    def observed(self, spec: WorkloadSpec) -> Observed | None:
        found = [item for item in self.backend.observe([spec.site]).found if item.id.name == str(spec.slot)]
        return found[0] if found else None

    def pid(self, spec: WorkloadSpec) -> int:
        found = self.observed(spec)
        assert found is not None
        return int(found.detail["pid"])

    def log(self, spec: WorkloadSpec) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (paths.site_log(self.settings, spec.site) / "current").read_text()
        return ""

    def get(self, spec: WorkloadSpec, path: str = "/") -> tuple[int, str]:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(10)
            link.connect(str(paths.web_socket(self.settings, spec.site, spec.slot)))
            link.sendall(f"GET {path} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
            answer = b""
            while part := link.recv(65536):
                answer += part
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode()

    def run(self, spec: WorkloadSpec, *argv: str, uid: int | None = None, stdin: bytes = b"") -> tuple[int, str]:
        """Run a program inside; gives its exit status and what it printed on both outputs."""
        session = self.backend.exec(spec.site, spec.slot, argv, tty=False, uid=uid)
        return finish(session, stdin)

    def inside(self, spec: WorkloadSpec, code: str, *, uid: int | None = None) -> tuple[int, str]:
        """Run Python inside."""
        return self.run(spec, PYTHON, "-c", code, uid=uid)

    def close(self) -> None:
        for site, slot in self.started:
            with contextlib.suppress(Exception):
                id = ResourceId(Kind.WORKLOAD, site, str(slot))
                # A hard end: the tests that stop in earnest do so themselves.
                self.backend.cgroups.thaw(lower.instance_name(site, slot))
                self.backend.cgroups.kill(lower.instance_name(site, slot))
                self.backend.apply(Step(id, Action.DELETE))
        self.backend.close()
        self.firewall.remove()
        self.network.remove()
        self.network.close()
        self.backend.cgroups.remove_parent()


def finish(session: Session, stdin: bytes = b"") -> tuple[int, str]:
    writer, reader, errors = session.fds
    if stdin:
        os.write(writer, stdin)
    os.close(writer)
    output = b""
    for fd in (reader, errors):
        with os.fdopen(fd, "rb") as file:
            output += file.read()
    return session.wait(), output.decode("utf-8", "replace")


def wait_for(what: object, seconds: float = 30.0, pause: float = 0.01) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if what():
            return True
        time.sleep(pause)
    return False


@contextlib.contextmanager
def own_namespaces() -> Iterator[None]:
    """A network and a mount namespace of its own for the calling thread."""
    before = [(os.open(f"/proc/thread-self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC), kind) for name, kind in _KINDS]
    syscalls.unshare(syscalls.CLONE_NEWNET | syscalls.CLONE_NEWNS)
    try:
        syscalls.mount(None, "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
        yield
    finally:
        for fd, kind in before:
            with contextlib.suppress(OSError):
                syscalls.setns(fd, kind)
            os.close(fd)


_KINDS = (("net", syscalls.CLONE_NEWNET), ("mnt", syscalls.CLONE_NEWNS))


@contextlib.contextmanager
def cell(tag: str = "", directory: str | None = None) -> Iterator[Cell]:
    """The whole machine of a test. ``tag`` keeps two in one process apart."""
    place = Path(directory or tempfile.mkdtemp(prefix="alv", dir="/tmp"))
    place.chmod(0o755)
    settings = settings_for_test(str(place), tag)
    with own_namespaces():
        try:
            for each in (settings.state, settings.run):
                each.mkdir(exist_ok=True)
            # A host's sysfs belongs to its network namespace.
            build_skeleton(paths.base_root(settings, HOST_BASE))
            runtime.prepare_mount_namespace(settings)
            made = Cell(settings)
            try:
                yield made
            finally:
                made.close()
        finally:
            for site in paths.sites(settings).iterdir() if paths.sites(settings).exists() else ():
                disk.detach(paths.disk_mount(settings, site.name))
            for point in syscalls.mount_points(settings.run):
                mounts.detach(point)
            mounts.detach(paths.sites(settings))
    shutil.rmtree(place)


VOLUME = (VolumeMount("data", "/data"),)
__all__ = ["VOLUME", "Cell", "Limits", "Process", "cell", "msgspec", "site_id", "wait_for"]
