"""What the whole instances of the tests share: looking at the machine, archives, answers."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import http.client
import io
import json
import os
import pwd
import secrets
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
#: What is slow to make and the same every time: bases and images. May be removed at any time.
CACHE = Path(os.environ.get("ALVEOLE_TEST_CACHE", "/var/cache/alveole-test"))
CGROUPS = Path("/sys/fs/cgroup")
USERS = ("alveole", "alveole-edge", "alveole-log", "alveole-ssh")
#: The settings of an instance: everything that can clash is its own.
SETTINGS = """\
domain = "localhost"

[paths]
state = "{root}/s"
run = "{root}/r"

[network]
bridge = "{tag}br"
interface_prefix = "{prefix}"
table = "{tag}"
ipv4 = "10.{octet}.0.0/16"
first_ipv4 = "10.{octet}.1.1"
gateway_ipv4 = "10.{octet}.1.254"
ipv6 = "fd61:6c76:7e{octet:02x}::/64"

[edge]
http_port = {http}
https_port = {https}
workers = 1

[api]
port = {api}

[cgroup]
parent = "{tag}"

[ssh]
enabled = {ssh}
port = {ssh_port}
ipv4 = "127.0.0.1"
ipv6 = ""
work_bytes = 268435456

[dns]
resolvers = ["127.0.0.1:9"]

[backups]
by_itself = false

[reconcile]
drift_seconds = {drift}
drain_seconds = 0.3
lost_seconds = 0
"""


class Answer:
    """What came from a site: ``status``, ``body`` (text) and ``headers``."""

    def __init__(self, status: int, body: bytes, headers: http.client.HTTPMessage, version: int) -> None:
        self.status, self.raw, self.headers, self.version = status, body, headers, version

    @property
    def body(self) -> str:
        return self.raw.decode(errors="replace")

    def __repr__(self) -> str:
        return f"<{self.status} {self.body[:120]!r}>"


class Done:
    """How a command ended: its exit status, what it printed, and that as JSON."""

    def __init__(self, argv: tuple[str, ...], status: int, out: str, err: str) -> None:
        self.argv, self.status, self.out, self.err = argv, status, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def fields(self) -> set[str]:
        """The fields that a refusal names."""
        return {str(each["field"]).partition(".")[0] for each in self.json["problems"]}

    def __repr__(self) -> str:
        return f"alveole {' '.join(self.argv)} -> {self.status}\n{self.out[-1500:]}\n{self.err[-1500:]}"


class UnixHTTP(http.client.HTTPConnection):
    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class ApiError(Exception):
    """An answer of 400 or more, with its document."""

    def __init__(self, status: int, document: Any) -> None:
        super().__init__(f"{status}: {document}")
        self.status, self.document = status, document


def archive(files: dict[str, str | bytes], mode: int = 0o644) -> bytes:
    """A ``.tar.gz`` of ``files``."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:
        for name, text in files.items():
            raw = text.encode() if isinstance(text, str) else text
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(raw), mode
            tar.addfile(member, io.BytesIO(raw))
    return out.getvalue()


def page(text: str) -> bytes:
    return archive({"index.html": f"<!doctype html><title>{text}</title><h1>{text}</h1>\n"})


def directory(place: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    return place


# --- the machine ----------------------------------------------------------------------------------
def run(*argv: str | Path, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(each) for each in argv], text=True, capture_output=True, check=False, **options)
    assert not check or done.returncode == 0, f"{argv}: {done.stderr[-800:]}"
    return done


def until(
    what: Callable[[], bool], seconds: float, message: str | Callable[[], str] = "not in time", pause: float = 0.05
) -> float:
    """Wait for ``what``; gives the seconds it took."""
    began = time.monotonic()
    while not what():
        if time.monotonic() - began > seconds:
            raise AssertionError(f"after {seconds} s: {message() if callable(message) else message}")
        time.sleep(pause)
    return time.monotonic() - began


def make_users() -> None:
    for user in USERS:
        try:
            pwd.getpwnam(user)
        except KeyError:
            run("useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent", user)


def clean_environment() -> dict[str, str]:
    """Ours, without what would change a command's mind."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("ALVEOLE", "PYTEST", "COLUMNS"))}


@functools.cache
def public_python() -> str:
    """A Python with Alvéole in it that an unprivileged user can execute.

    That is ours, unless it lies in a directory that is closed to others; then the system's own of the same
    version, with the modules of ours.
    """
    probe = [sys.executable, "-c", "import alveole"]
    with contextlib.suppress(OSError):
        done = subprocess.run(probe, user="nobody", group="nogroup", extra_groups=[], capture_output=True, check=False)
        if done.returncode == 0:
            return sys.executable
    place = CACHE / "python"
    with one_at_a_time("python"):
        own = place / "bin" / "python"
        if not own.exists():
            run("/usr/bin/python3", "-m", "venv", "--without-pip", place)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        paths = [str(ROOT / "src"), *(each for each in sys.path if each.endswith("site-packages"))]
        (place / "lib" / version / "site-packages" / "alveole-test.pth").write_text("\n".join(paths) + "\n")
        run(own, "-c", "import alveole.control")
    return str(own)


@contextlib.contextmanager
def one_at_a_time(what: str) -> Iterator[None]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{what}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def free_octet() -> int:
    taken = run("ip", "-o", "address", check=False).stdout + run("ip", "route", check=False).stdout
    for octet in range(20 + secrets.randbelow(60), 100):
        if f" 10.{octet}." not in taken and f"\n10.{octet}." not in taken:
            return octet
    raise AssertionError("no free network inside 10.0.0.0/8")


def cgroup_tops(name: str) -> list[Path]:
    tops = [CGROUPS / name, *(each / name for each in CGROUPS.iterdir() if each.is_dir() and not each.is_symlink())]
    return [top for top in tops if top.is_dir()]


def same_device(one: Path, two: Path) -> bool:
    return one.stat().st_dev == two.stat().st_dev


def read_bytes(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def mounted(pid: str, below: Path) -> list[str]:
    places = [line.split()[4].decode() for line in read_bytes(f"/proc/{pid}/mountinfo").splitlines()]
    return [place for place in places if place == str(below) or place.startswith(f"{below}/")]


def all_pids() -> list[int]:
    return [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]


def parent(pid: int) -> int:
    stat = read_bytes(f"/proc/{pid}/stat")
    return int(stat[stat.rfind(b")") + 2 :].split()[1]) if stat else 0


def command(pid: int) -> str:
    return read_bytes(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode(errors="replace").strip()


def has_open(pid: int, below: str) -> bool:
    with contextlib.suppress(OSError):
        return any(str(Path(entry.path).readlink()).startswith(below) for entry in os.scandir(f"/proc/{pid}/fd"))
    return False


def alive(pid: int) -> bool:
    stat = read_bytes(f"/proc/{pid}/stat")
    return bool(stat) and stat[stat.rfind(b")") + 2 : stat.rfind(b")") + 3] not in (b"Z", b"X")


def descendants(roots: Iterable[int]) -> set[int]:
    children: dict[int, list[int]] = {}
    for pid in all_pids():
        children.setdefault(parent(pid), []).append(pid)
    found: set[int] = set()
    queue = list(roots)
    while queue:
        pid = queue.pop()
        if pid not in found:
            found.add(pid)
            queue.extend(children.get(pid, ()))
    return found


def kill(found: Iterable[int]) -> None:
    for pid in found:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
