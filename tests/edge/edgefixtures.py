"""A real edge with real small instances behind it, in a directory and on ports of its own."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import shutil
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alveole.actuators.certificates import CertificatesActuator
from alveole.actuators.edge import EdgeActuator
from alveole.actuators.edge_logs import LOG_BYTES, EdgeLogs
from alveole.actuators.routes import RoutesActuator
from alveole.config import Settings, parse
from alveole.host import paths
from alveole.model.resource import (
    Action,
    CertificateSpec,
    EdgeSpec,
    Kind,
    Observed,
    Outcome,
    ResourceId,
    RouteSpec,
    RouteTarget,
    Step,
    stamp,
)
from alveole.model.site import Access

EDGE = ResourceId(Kind.EDGE, "platform", "edge")
BASE32 = "abcdefghijklmnopqrstuvwxyz234567"


def site_id(number: int) -> str:
    word = ""
    while number:
        number, rest = divmod(number, 32)
        word = BASE32[rest] + word
    return "s" + word.rjust(12, "a")


def free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in held]
    for one in held:
        one.close()
    return ports


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    cookies: list[str] = field(default_factory=list)

    @property
    def json(self) -> dict[str, Any]:
        found = json.loads(self.body)
        assert isinstance(found, dict)
        return found


class Instances:
    """HTTP servers in a thread: each says its name and repeats what it was asked."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.status = 200
        self.servers: dict[str, asyncio.Server] = {}
        self.tasks: dict[str, set[asyncio.Task[None]]] = {}

    def open(self, name: str, where: Path | tuple[str, int], idle: float = 5.0) -> None:
        async def begin() -> asyncio.Server:
            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                task = asyncio.current_task()
                assert task is not None
                self.tasks.setdefault(name, set()).add(task)
                try:
                    await self._serve(name, reader, writer, idle)
                finally:
                    # A process that ends closes its connections, whatever it was doing.
                    writer.close()
                    self.tasks[name].discard(task)

            if isinstance(where, Path):
                where.parent.mkdir(parents=True, exist_ok=True)
                where.unlink(missing_ok=True)
                server = await asyncio.start_unix_server(serve, where, backlog=512)
                where.chmod(0o777)
                return server
            return await asyncio.start_server(serve, *where, backlog=512)

        self.servers[name] = asyncio.run_coroutine_threadsafe(begin(), self.loop).result(10)

    def close(self, name: str) -> None:
        async def end() -> None:
            self.servers.pop(name).close()
            for task in list(self.tasks.get(name, ())):
                task.cancel()

        asyncio.run_coroutine_threadsafe(end(), self.loop).result(10)

    async def _serve(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, idle: float) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            while True:
                head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), idle)).decode("latin-1")
                first, *lines = head.split("\r\n")[:-2]
                method, target, _ = first.split(" ", 2)
                headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                if headers.get("upgrade") == "websocket" and target.startswith("/echo"):
                    writer.write(
                        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
                    )
                    while data := await reader.read(100):
                        writer.write(data.upper())
                        await writer.drain()
                    break
                extra, status = self._special(target, headers)
                status = self.status if status == 200 else status
                content = json.dumps(
                    {"site": name, "method": method, "target": target, "headers": headers, "body": len(body)}
                ).encode()
                writer.write(
                    f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\n{extra}\r\n".encode("latin-1") + content
                )
                await writer.drain()

    @staticmethod
    def _special(target: str, headers: dict[str, str]) -> tuple[str, int]:
        """``/answer?status=302&Name=value``: what to answer with."""
        path, _, query = target.partition("?")
        if not path.endswith("/answer"):
            return "", 200
        from urllib.parse import parse_qsl

        pairs = parse_qsl(query)
        status = int(dict(pairs).get("status", "200"))
        return "".join(f"{key}: {value}\r\n" for key, value in pairs if key != "status"), status

    def stop(self) -> None:
        for name in list(self.servers):
            self.close(name)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)
        self.loop.close()


class World:
    """An edge, its actuators, and sites behind it."""

    def __init__(self, directory: Path, **edge: object) -> None:
        self.directory = directory
        self.http, self.https = free_ports(2)
        self.settings: Settings = parse(
            {
                "domain": "alv.test",
                "paths": {"state": f"{directory}/s", "run": f"{directory}/r"},
                "users": {"edge": "www-data", "control": "nobody"},
                "edge": {"http_port": self.http, "https_port": self.https, "workers": 1, **edge},
                "sleep": {"waiting_site": 500},
                # On loopback, so that instances on TCP need no network of their own.
                "network": {"ipv4": "127.64.0.0/15", "first_ipv4": "127.64.1.1", "gateway_ipv4": "127.64.1.254"},
            }
        )
        self.edge = EdgeActuator(self.settings)
        self.logs = EdgeLogs(self.settings, self.edge.master)
        self.routes = RoutesActuator(self.settings)
        self.certificates = CertificatesActuator(self.settings)
        self.instances = Instances()

    def start(self) -> Outcome:
        return self.edge.apply(Step(EDGE, Action.CREATE, stamp(EdgeSpec()), EdgeSpec()))

    def seen(self) -> Observed:
        (found,) = self.edge.observe().found
        return found

    def route(
        self,
        number: int,
        host: str,
        *,
        slot: int = 0,
        target: RouteTarget = RouteTarget.WORKLOAD,
        port: int | None = None,
        path: str | None = None,
        https_only: bool = False,
        allow: tuple[str, ...] = (),
        deny: tuple[str, ...] = (),
    ) -> ResourceId:
        site = site_id(number)
        spec = RouteSpec(site, number, slot, target, port, host, path, Access(allow, deny), https_only)
        name = host if path is None else f"@{path}"
        resource = ResourceId(Kind.ROUTE, site, name)
        done = self.routes.apply(Step(resource, Action.REPLACE, stamp(spec), spec))
        assert done.done, done
        return resource

    def unroute(self, resource: ResourceId) -> None:
        assert self.routes.apply(Step(resource, Action.DELETE)).done

    def site(self, number: int, host: str, *, slot: int = 0, name: str = "", **options: Any) -> ResourceId:
        """An instance with its socket, and its route."""
        self.instances.open(name or host, paths.web_socket(self.settings, site_id(number), slot))
        return self.route(number, host, slot=slot, **options)

    def certify(self, number: int, name: str, *, wildcard: bool = False, scope: str = "") -> ResourceId:
        spec = CertificateSpec(name, wildcard)
        resource = ResourceId(Kind.CERTIFICATE, scope or site_id(number), name)
        done = self.certificates.apply(Step(resource, Action.CREATE, stamp(spec), spec))
        assert done.done, done
        return resource

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.certificates.authority_pem())

    def ask(
        self,
        host: str,
        path: str = "/",
        *,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        tls: bool = False,
        address: str = "127.0.0.1",
        sni: str | None = None,
    ) -> Answer:
        link: socket.socket = socket.create_connection((address, self.https if tls else self.http), 10)
        if tls:
            link = self.context().wrap_socket(link, server_hostname=sni or host)
        port = self.https if tls else self.http
        connection = http.client.HTTPConnection(address, port, timeout=10)
        connection.sock = link
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            connection.putheader("Host", host)
            for key, value in (headers or {}).items():
                connection.putheader(key, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return Answer(
                answer.status,
                {key.lower(): value for key, value in answer.getheaders()},
                answer.read(),
                answer.msg.get_all("Set-Cookie") or [],
            )
        finally:
            connection.close()

    def raw(self, request: bytes) -> bytes:
        """What comes back for the very bytes of ``request``."""
        with socket.create_connection(("127.0.0.1", self.http), 10) as link:
            link.sendall(request)
            link.shutdown(socket.SHUT_WR)
            found = b""
            with contextlib.suppress(ConnectionError):
                while chunk := link.recv(65536):
                    found += chunk
            return found

    def logged(self, file: Path, lines: int = 1, limit: int = LOG_BYTES) -> None:
        """Hand out the lines that nginx wrote until ``file`` has so many."""
        end = time.monotonic() + 30
        while line_count(file) < lines:
            assert time.monotonic() < end, f"{file} has {line_count(file)} lines, not {lines}"
            time.sleep(0.05)
            self.logs.collect(limit)

    def gone(self, file: Path) -> None:
        """Hand out lines until ``file`` is done with."""
        end = time.monotonic() + 30
        while file.exists():
            assert time.monotonic() < end, f"{file} stays"
            time.sleep(0.2)
            self.logs.collect()

    def close_edge(self) -> None:
        self.edge.apply(Step(EDGE, Action.DELETE))

    def close(self) -> None:
        self.close_edge()
        self.instances.stop()


@contextlib.contextmanager
def world(**edge: object) -> Iterator[World]:
    directory = Path(tempfile.mkdtemp(prefix="alv", dir="/tmp"))
    directory.chmod(0o755)
    made = World(directory, **edge)
    try:
        done = made.start()
        assert done.done, done
        yield made
    finally:
        made.close()
        shutil.rmtree(directory)


def line_count(file: Path) -> int:
    return len(file.read_text().splitlines()) if file.exists() else 0


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
