"""The peers that the figures are measured beside: Debian's Docker, and an nginx written by hand."""

from __future__ import annotations

import contextlib
import io
import os
import re
import secrets
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from common import ROOT, Api, _free_octet, free_ports, until_200
from machine import (
    BenchError,
    command,
    descendants,
    end,
    in_cgroup,
    pids,
    read_bytes,
    remove_cgroup,
    remove_mounts,
    run,
    undisturbed,
)

#: Debian's own, also where another client comes first in PATH.
DOCKER = Path("/usr/bin/docker")
DOCKERD = Path("/usr/sbin/dockerd")
NGINX = "/usr/sbin/nginx"
IMAGE = "alveole-bench"
#: What the plan ``small`` gives, so that both sides work under the same limits.
LIMITS = ("--memory=128m", "--cpus=0.25", "--pids-limit=64")


def static_server_conf(listen: str) -> str:
    """The configuration of Alvéole's own static sites, listening elsewhere."""
    text = (ROOT / "src" / "alveole" / "data" / "static-nginx.conf").read_text(encoding="utf-8")
    return re.sub(r"listen unix:[^;]*;", f"listen {listen};", text)


def nginx_root() -> bytes:
    """A tar of the smallest root that runs this machine's nginx: binary, libraries, configuration."""
    out = io.BytesIO()
    listed = run("ldd", NGINX).stdout
    libraries = re.findall(r"(/\S+) \(0x", listed)
    with tarfile.open(fileobj=out, mode="w") as tar:

        def directory(path: str, mode: int = 0o755) -> None:
            member = tarfile.TarInfo(path.strip("/"))
            member.type, member.mode = tarfile.DIRTYPE, mode
            tar.addfile(member)

        def text(path: str, content: str) -> None:
            member = tarfile.TarInfo(path.strip("/"))
            member.size = len(content.encode())
            tar.addfile(member, io.BytesIO(content.encode()))

        for path, mode in (("tmp", 0o1777), ("run", 0o755), ("site/current", 0o755), ("var/log/nginx", 0o755)):
            directory(path, mode)
        for path in (NGINX, *libraries):
            tar.add(os.path.realpath(path), arcname=path.lstrip("/"))
        text("etc/passwd", "root:x:0:0::/:/bin/false\nnobody:x:65534:65534::/:/bin/false\n")
        text("etc/group", "root:x:0:\nnogroup:x:65534:\n")
        text("etc/nginx/mime.types", Path("/etc/nginx/mime.types").read_text())
        text("etc/nginx/nginx.conf", static_server_conf("80"))
    return out.getvalue()


class Docker:
    """A dockerd with directories, a bridge, a socket and a cgroup of its own; it changes no rule of the machine."""

    def __enter__(self) -> Docker:
        if not DOCKERD.exists():
            raise BenchError("docker is missing: apt-get install --no-install-recommends docker.io")
        self.root = Path(tempfile.mkdtemp(prefix="albd-", dir="/var/tmp"))
        self.tag = f"albd{secrets.token_hex(3)}"
        self.socket = self.root / "docker.sock"
        self._key = not Path("/etc/docker/key.json").exists()
        self._etc = not Path("/etc/docker").exists()
        self.content = self.root / "content"
        self.process: subprocess.Popen[bytes] | None = None
        try:
            (self.content / "current").mkdir(parents=True)
            self._start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        self.remove()

    def _start(self) -> None:
        (self.content / "current" / "index.html").write_text("<!doctype html><h1>docker</h1>" + "One of many. " * 40)
        octet = _free_octet()
        run("ip", "link", "add", self.tag, "type", "bridge")
        run("ip", "address", "add", f"10.{octet}.0.1/16", "dev", self.tag)
        run("ip", "link", "set", self.tag, "up")
        argv = [
            *(str(DOCKERD), f"--host=unix://{self.socket}", f"--bridge={self.tag}", "--storage-driver=overlay2"),
            *(f"--data-root={self.root}/data", f"--exec-root={self.root}/exec", f"--pidfile={self.root}/pid"),
            *("--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"),
            *("--userland-proxy=false", f"--cgroup-parent=/{self.tag}", "--exec-opt=native.cgroupdriver=cgroupfs"),
            f"--config-file={self.root}/none.json",
        ]
        (self.root / "none.json").write_text("{}")
        with (self.root / "log").open("wb") as log:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
            )
        until = time.monotonic() + 60
        while True:
            try:
                api = Api(self.socket)
                api.call("GET", "/_ping")
                break
            except (OSError, BenchError):
                if self.process.poll() is not None or time.monotonic() > until:
                    text = (self.root / "log").read_text()[-1500:]
                    raise BenchError(f"dockerd does not start: {text}") from None
                time.sleep(0.1)
            finally:
                api.close()
        made = subprocess.run(
            [
                *(str(DOCKER), "-H", f"unix://{self.socket}", "import"),
                *("--change", f'CMD ["{NGINX}", "-c", "/etc/nginx/nginx.conf"]', "-", IMAGE),
            ],
            input=nginx_root(),
            check=False,
            capture_output=True,
        )
        if made.returncode != 0:
            raise BenchError(f"docker import: {made.stderr.decode()[-600:]}")

    def cli(self, *words: str, check: bool = True) -> str:
        return run(DOCKER, "-H", f"unix://{self.socket}", *words, check=check).stdout.strip()

    def run_argv(self, name: str) -> list[str]:
        return ["run", "-d", "--name", name, *LIMITS, "--stop-signal=SIGQUIT", "-v", f"{self.content}:/site:ro", IMAGE]

    def create_body(self) -> dict[str, Any]:
        """What ``docker run`` sends to the Engine for :meth:`run_argv`."""
        return {
            "Image": IMAGE,
            "StopSignal": "SIGQUIT",
            "HostConfig": {
                "Binds": [f"{self.content}:/site:ro"],
                "Memory": 128 << 20,
                "NanoCpus": 250_000_000,
                "PidsLimit": 64,
            },
        }

    @contextlib.contextmanager
    def api(self) -> Iterator[Api]:
        api = Api(self.socket)
        try:
            yield api
        finally:
            api.close()

    def address(self, api: Api, name: str) -> tuple[str, int]:
        found = api.call("GET", f"/containers/{name}/json")
        return (found["NetworkSettings"]["IPAddress"], 80)

    def until_200(self, name: str) -> float:
        with self.api() as api:
            address = self.address(api, name)
        return until_200(address, name)

    def platform_pids(self) -> set[int]:
        """dockerd and its containerd, without the shims of containers."""
        assert self.process is not None
        return descendants([self.process.pid]) - in_cgroup(self.tag)

    def shim_pids(self) -> set[int]:
        return {pid for pid in pids() if "containerd-shim" in command(pid) and str(self.root) in command(pid)}

    def container_pids(self) -> set[int]:
        return in_cgroup(self.tag)

    def _all(self) -> set[int]:
        marker = str(self.root).encode()
        found = self.container_pids()
        found |= {pid for pid in pids() if marker in read_bytes(f"/proc/{pid}/cmdline")}
        if self.process is not None:
            found.add(self.process.pid)
        return descendants(found) - {os.getpid()}

    def remove(self) -> None:
        with undisturbed():
            if self.process is not None and self.process.poll() is None:
                with contextlib.suppress(BenchError, OSError):
                    names = self.cli("ps", "-aq").split()
                    for at in range(0, len(names), 50):
                        self.cli("rm", "-f", *names[at : at + 50], check=False)
                self.process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(20)
            end(self._all)
            remove_mounts(self.root)
            run("ip", "link", "delete", self.tag, check=False)
            remove_cgroup(self.tag)
            if self._key:
                Path("/etc/docker/key.json").unlink(missing_ok=True)
            if self._etc:
                with contextlib.suppress(OSError):
                    Path("/etc/docker").rmdir()
            shutil.rmtree(self.root, ignore_errors=True)


class HandNginx:
    """nginx as a careful person configures it: one server block a site, with its own access log, one worker.

    ``sites`` are (host, address of the upstream as nginx writes it). ``keepalive``: an ``upstream``
    block a site with idle connections, instead of a plain ``proxy_pass``. ``namespace``: a process
    whose mounts it shall see. ``static``: serve this directory, proxy nothing; also on ``sockets``.
    """

    def __init__(
        self,
        sites: Sequence[tuple[str, str]] = (),
        *,
        keepalive: bool = False,
        logs: bool = True,
        namespace: int | None = None,
        static: Path | None = None,
        sockets: Sequence[str] = (),
    ) -> None:
        self.sites = list(sites)
        self.keepalive = keepalive
        self.logs = logs
        self.namespace = namespace
        self.static = static
        self.sockets = sockets

    def __enter__(self) -> HandNginx:
        self.root = Path(tempfile.mkdtemp(prefix="albn-", dir="/var/tmp"))
        self.root.chmod(0o755)
        (self.root / "logs").mkdir()
        self.port = free_ports(1)[0]
        self.master = 0
        try:
            self.write()
            enter = [] if self.namespace is None else ["nsenter", "-t", str(self.namespace), "-m"]
            run(*enter, NGINX, "-c", self.root / "nginx.conf", "-p", self.root)
            until = time.monotonic() + 10
            # A signal before the first worker is there would be lost.
            while self.master == 0 or not self.workers():
                if time.monotonic() > until:
                    raise BenchError("nginx does not start")
                time.sleep(0.005)
                self.master = int(read_bytes(str(self.root / "nginx.pid")).strip() or 0)
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        self.remove()

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)

    def workers(self) -> set[int]:
        return descendants([self.master]) - {self.master}

    def add(self, host: str, upstream: str) -> None:
        self.sites.append((host, upstream))

    def drop(self, host: str) -> None:
        self.sites = [each for each in self.sites if each[0] != host]

    def reload(self) -> None:
        self.write()
        os.kill(self.master, signal.SIGHUP)

    def write(self) -> None:
        blocks: list[str] = []
        for host, upstream in self.sites:
            log = f"access_log {self.root}/logs/{host}.log combined;" if self.logs else ""
            target = f"http://{upstream}"
            more = ""
            if self.keepalive:
                label = "up_" + re.sub(r"\W", "_", host)
                blocks.append(f"upstream {label} {{ server {upstream.rstrip(':')}; keepalive 4; }}")
                target = f"http://{label}"
                more = 'proxy_http_version 1.1; proxy_set_header Connection "";'
            blocks.append(
                f"server {{ listen 127.0.0.1:{self.port}; server_name {host}; {log} location / {{ {more} "
                "proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; "
                f"proxy_set_header X-Forwarded-Proto $scheme; proxy_pass {target}; }} }}"
            )
        if self.static is not None:
            listens = "".join(f"listen unix:{socket};" for socket in self.sockets)
            blocks.append(f"server {{ listen 127.0.0.1:{self.port} default_server; {listens} root {self.static}; }}")
        else:
            # As the edge does: a name nobody has reaches no site.
            blocks.append(f"server {{ listen 127.0.0.1:{self.port} default_server; return 404; }}")
        temporary = "".join(f"{kind}_temp_path {self.root}/t-{kind};" for kind in ("client_body", "proxy", "fastcgi"))
        temporary += f"uwsgi_temp_path {self.root}/t-uwsgi; scgi_temp_path {self.root}/t-scgi;"
        text = "\n".join(
            [
                f"user root; worker_processes 1; pid {self.root}/nginx.pid; error_log {self.root}/error.log error;",
                "worker_rlimit_nofile 16000; events { worker_connections 8000; }",
                f"http {{ access_log off; sendfile on; server_tokens off; default_type text/html; {temporary}",
                "server_names_hash_max_size 32768; server_names_hash_bucket_size 128; keepalive_requests 10000;",
                *blocks,
                "}\n",
            ]
        )
        new = self.root / "nginx.conf.new"
        new.write_text(text)
        new.rename(self.root / "nginx.conf")

    def remove(self) -> None:
        marker = str(self.root).encode()
        with undisturbed():
            end(
                lambda: descendants(
                    p for p in pids() if marker in read_bytes(f"/proc/{p}/cmdline") and p != os.getpid()
                )
            )
            shutil.rmtree(self.root, ignore_errors=True)
