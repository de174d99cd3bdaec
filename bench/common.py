"""What the benchmarks share: an Alvéole of their own, its API, and looking at processes.

:class:`Instance` is a context manager: it starts ``alveole serve`` with a settings file of its own
and leaves nothing behind, also when the benchmark fails or is interrupted.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

from machine import (
    BenchError,
    command,
    descendants,
    end,
    fetch,
    has_open,
    in_cgroup,
    interfaces,
    parent,
    pids,
    read_bytes,
    remove_cgroup,
    remove_mounts,
    run,
    undisturbed,
)

ROOT = Path(__file__).resolve().parent.parent


def until_200(address: tuple[str, int], host: str, seconds: float = 60.0) -> float:
    """Ask again every millisecond until the answer is 200; gives the time of that (``perf_counter``)."""
    end = time.perf_counter() + seconds
    last: object = "nothing"
    while time.perf_counter() < end:
        try:
            last = fetch(address, host)[0]
            if last == 200:
                return time.perf_counter()
        except OSError as error:
            last = error
        time.sleep(0.001)
    raise BenchError(f"{host} at {address[0]}:{address[1]} gave no 200 in {seconds:.0f} s, but {last}")


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class UnixHTTP(http.client.HTTPConnection):
    def __init__(self, path: Path, seconds: float = 120.0) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Api:
    """A client of a JSON API on a Unix socket: Alvéole's, or Docker's Engine. One connection, kept open."""

    def __init__(self, path: Path) -> None:
        self._connection = UnixHTTP(path)
        self._used = 0.0

    def call(
        self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, type: str = "application/json"
    ) -> Any:
        content = raw if raw is not None else (json.dumps(body).encode() if body is not None else None)
        headers = {"Content-Type": type} if content is not None else {}
        if time.monotonic() - self._used > 10:
            # The server closes a connection that was idle for long; a POST into it would be lost.
            self._connection.close()
        for last in (False, True):
            try:
                self._connection.request(method, path, content, headers)
                answer = self._connection.getresponse()
                text = answer.read()
                self._used = time.monotonic()
                break
            except (http.client.HTTPException, OSError):
                # A server may close an idle connection at any time.
                self._connection.close()
                if last or method == "POST":
                    raise
        if answer.status >= 400:
            raise BenchError(f"{method} {path}: {answer.status} {text[:600].decode(errors='replace')}")
        return json.loads(text) if text.strip() and "json" in answer.headers.get("Content-Type", "") else text

    def close(self) -> None:
        self._connection.close()

    # Alvéole's own
    def upload(self, archive: bytes) -> str:
        return str(self.call("POST", "/v1/uploads", raw=archive, type="application/octet-stream")["id"])

    def create(self, name: str, archive: bytes | None, **more: Any) -> str:
        """Ask for a new site; gives the change to :meth:`wait` for."""
        body = {"name": name, **more}
        if archive is not None:
            body["upload"] = self.upload(archive)
        return str(self.call("POST", "/v1/sites", body)["id"])

    def update(self, name: str, archive: bytes) -> str:
        return str(self.call("POST", f"/v1/sites/{quote(name)}/releases", {"upload": self.upload(archive)})["id"])

    def verb(self, name: str, verb: str) -> str:
        """``start``, ``stop`` or ``restart``."""
        return str(self.call("POST", f"/v1/sites/{quote(name)}/{verb}", {})["id"])

    def destroy(self, name: str) -> None:
        """Stop and destroy, and wait for both."""
        self.wait(self.verb(name, "stop"))
        self.wait(str(self.call("DELETE", f"/v1/sites/{quote(name)}?confirm={quote(name)}")["id"]))

    def wait(self, change: str, seconds: float = 120.0) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while True:
            found: dict[str, Any] = self.call("GET", f"/v1/changes/{change}?wait=30")
            if found["state"] == "done":
                return found
            if found["state"] == "failed":
                raise BenchError(f"{found['verb']} {found.get('site_name')}: {found['problems']}")
            if time.monotonic() > end:
                raise BenchError(f"{found['verb']} {found.get('site_name')} is still {found['state']}")


# --- content --------------------------------------------------------------------------------------
PAGE = "<!doctype html><meta charset=utf-8><title>{0}</title><h1>{0}</h1><p>" + "One of many. " * 40 + "\n"


def archive(files: dict[str, str]) -> bytes:
    """A ``.tar.gz`` of ``files``."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(text.encode()), 0o644
            tar.addfile(member, io.BytesIO(text.encode()))
    return out.getvalue()


def page(text: str) -> bytes:
    """A static site of one small page that says ``text``."""
    return archive({"index.html": PAGE.format(text)})


# --- an Alvéole of our own ------------------------------------------------------------------------
#: The defaults of the settings; made where they are missing, and removed again.
USERS = ("alveole", "alveole-edge", "alveole-log", "alveole-ssh")
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
ipv6 = "fd61:6c76:be{octet:02x}::/64"

[edge]
ipv4 = "127.0.0.1"
ipv6 = "::1"
http_port = {http}
https_port = {https}
workers = {workers}

[api]
port = {api}

[cgroup]
parent = "{tag}"

[ssh]
enabled = {ssh}
port = {ssh_port}
ipv4 = "127.0.0.1"
ipv6 = ""
{ssh_more}
"""


class Instance:
    """A running Alvéole with paths, ports, networks and a cgroup of its own.

    ``with Instance() as alveole:`` gives one whose platform is ready; ``workers`` are the edge's. At
    the end every process, mount, interface, table, cgroup and file of it is gone; ``keep_log`` is
    where its log goes first. ``ssh_more`` is added to the section of that name, ``more`` at the end.
    """

    def __init__(
        self, *, workers: int = 0, keep_log: Path | None = None, more: str = "", ssh: bool = False, ssh_more: str = ""
    ) -> None:
        self.workers = workers
        self.keep_log = keep_log
        self.more = more
        self.ssh = ssh
        self.ssh_more = ssh_more
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Instance:
        self.root = Path(tempfile.mkdtemp(prefix="alb-", dir="/var/tmp"))
        self.root.chmod(0o755)
        self.tag = f"alb{secrets.token_hex(3)}"
        self.prefix = f"b{secrets.token_hex(2)}"
        self.http, self.https, self.api_port, self.ssh_port = free_ports(4)
        self.config = self.root / "alveole.toml"
        self.octet = 0
        self._forward = {
            path: Path(path).read_text()
            for path in ("/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding")
            if Path(path).exists()
        }
        self._users: list[str] = []
        try:
            self._make_users()
            self.octet = _free_octet()
            self.config.write_text(
                SETTINGS.format(
                    root=self.root,
                    tag=self.tag,
                    prefix=self.prefix,
                    octet=self.octet,
                    http=self.http,
                    https=self.https,
                    workers=self.workers,
                    api=self.api_port,
                    ssh=str(self.ssh).lower(),
                    ssh_port=self.ssh_port,
                    ssh_more=self.ssh_more,
                )
                + self.more
            )
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        self.remove()

    @property
    def log(self) -> Path:
        return self.root / "serve.log"

    @property
    def run_dir(self) -> Path:
        return self.root / "r"

    @property
    def state_dir(self) -> Path:
        return self.root / "s"

    @property
    def socket(self) -> Path:
        return self.run_dir / "control" / "api.sock"

    @property
    def edge(self) -> tuple[str, int]:
        return ("127.0.0.1", self.http)

    def host(self, name: str) -> str:
        return f"{name}.localhost"

    def start(self, seconds: float = 60.0) -> None:
        """Start ``alveole serve`` and wait until the API answers and the platform is as promised."""
        self.launch()
        self.until_ready(seconds)

    def launch(self) -> None:
        # /run is in memory on every machine with systemd; not so where the benchmark may run.
        self.run_dir.mkdir(exist_ok=True)
        if not os.path.ismount(self.run_dir):
            run("mount", "-t", "tmpfs", "-o", "mode=0755,size=20%", "tmpfs", self.run_dir)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "alveole", "--config", str(self.config), "serve"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )

    def until_ready(self, seconds: float = 60.0) -> None:
        until = time.monotonic() + seconds
        last: Any = "no socket"
        while time.monotonic() < until:
            if self.process is not None and self.process.poll() is not None:
                raise BenchError(f"alveole serve ended with {self.process.returncode}: {self.tail()}")
            api = Api(self.socket)
            try:
                last = api.call("GET", "/v1/status")
                promises = last["promises"]
                if last["agent"] and promises and all(each["state"] == "kept" for each in promises):
                    return
            except (BenchError, OSError, http.client.HTTPException) as error:
                last = error
            finally:
                api.close()
            time.sleep(0.05)
        raise BenchError(f"Alvéole is not ready after {seconds:.0f} s: {last}\n{self.tail()}")

    def stop(self) -> None:
        """End ``alveole serve`` alone: the sites and the edge go on."""
        process, self.process = self.process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            end(lambda: descendants([process.pid]))

    def tail(self, lines: int = 15) -> str:
        return "\n".join(read_bytes(str(self.log)).decode(errors="replace").splitlines()[-lines:])

    @contextlib.contextmanager
    def api(self) -> Iterator[Api]:
        api = Api(self.socket)
        try:
            yield api
        finally:
            api.close()

    def cli(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the command, as a person would."""
        return run(sys.executable, "-m", "alveole", "--config", self.config, *words, check=check)

    def grow(self, names: Iterable[str], *, parallel: int = 4, **more: Any) -> None:
        """Create sites of one page each, several at a time, and wait for all of them."""
        content = page("many")

        def make(name: str) -> None:
            with self.api() as api:
                api.wait(api.create(name, content, **more), 120)

        with ThreadPoolExecutor(parallel) as pool:
            for _ in pool.map(make, list(names)):
                pass

    # --- its processes ----------------------------------------------------------------------------
    def serve_pids(self) -> set[int]:
        """The supervisor, control and the agent, without what the agent has started."""
        own = {self.process.pid} if self.process is not None else set()
        return own | {pid for pid in descendants(own) if " serve" in command(pid) and parent(pid) in own}

    def platform_pids(self) -> set[int]:
        """All that runs without any site: the roles, the agent's helper in its sandbox, the edge."""
        own = {self.process.pid} if self.process is not None else set()
        return (descendants(own) | self.edge_pids()) - self.site_pids() - self.log_pids()

    def role_pids(self, role: str) -> set[int]:
        return {pid for pid in self.serve_pids() if command(pid).endswith(f"--role {role}")}

    def edge_pids(self) -> set[int]:
        text = read_bytes(str(self.run_dir / "edge" / "nginx.pid")).strip()
        return descendants([int(text)]) if text.isdigit() else set()

    def edge_workers(self) -> set[int]:
        text = read_bytes(str(self.run_dir / "edge" / "nginx.pid")).strip()
        return self.edge_pids() - {int(text)} if text.isdigit() else set()

    def site_pids(self) -> set[int]:
        return in_cgroup(self.tag)

    def log_pids(self) -> set[int]:
        marker = f"{self.state_dir}/logs"
        return {pid for pid in pids() if marker in command(pid) and "s6-log" in command(pid)}

    def all_pids(self) -> set[int]:
        """Everything that belongs to this instance, whatever its state."""
        marker = str(self.root).encode()
        found = self.site_pids()
        for pid in pids():
            if (
                marker in read_bytes(f"/proc/{pid}/cmdline")
                or marker in read_bytes(f"/proc/{pid}/environ")
                # A worker forked while its master was killed names the instance by what it has open alone.
                or (read_bytes(f"/proc/{pid}/comm") == b"nginx\n" and has_open(pid, self.root))
            ):
                found.add(pid)
        return descendants(found) - {os.getpid()}

    # --- the end ----------------------------------------------------------------------------------
    def cut(self) -> None:
        """What a power cut does: every process, mount, interface and cgroup is gone; the disk stays."""
        if self.process is not None:
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
        end(self.all_pids)
        remove_mounts(self.root)
        self._remove_network()
        remove_cgroup(self.tag)
        shutil.rmtree(self.run_dir, ignore_errors=True)

    def remove(self) -> None:
        with undisturbed():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.stop()
            if self.keep_log is not None and self.log.exists():
                self.keep_log.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.log, self.keep_log)
            self.cut()
            shutil.rmtree(self.root, ignore_errors=True)
            # Other instances on this machine use the same switches and the same users.
            if not any(" -m alveole " in command(pid) and " serve" in command(pid) for pid in pids()):
                for path, value in self._forward.items():
                    Path(path).write_text(value)
                for user in self._users:
                    run("userdel", user, check=False)

    def _make_users(self) -> None:
        for user in USERS:
            try:
                pwd.getpwnam(user)
            except KeyError:
                self._users.append(user)
                home = ("--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin")
                run("useradd", "--system", "--user-group", *home, user)

    def _remove_network(self) -> None:
        bridge = f"{self.tag}br"
        mine = interfaces(lambda name: name == bridge or (name.startswith(self.prefix) and name[-1] in "ab"))
        for at in range(0, len(mine), 200):
            lines = "".join(f"link del {name}\n" for name in mine[at : at + 200])
            run("ip", "-force", "-batch", "-", input=lines, check=False)
        if shutil.which("nft"):
            listed = run("nft", "list", "tables", check=False).stdout.split("\n")
            for line in listed:
                words = line.split()
                if len(words) == 3 and words[2] == self.tag:
                    run("nft", "delete", "table", words[1], words[2], check=False)
        for family, network in (("-4", f"10.{self.octet}.0.0/16"), ("-6", f"fd61:6c76:be{self.octet:02x}::/64")):
            run("ip", family, "route", "flush", "root", network, "type", "unreachable", check=False)


def _free_octet() -> int:
    taken = run("ip", "-o", "address", check=False).stdout
    for octet in range(100 + secrets.randbelow(50), 250):
        if f" 10.{octet}." not in taken:
            return octet
    raise BenchError("no free network inside 10.0.0.0/8")
