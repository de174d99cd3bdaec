"""Both doors over real Services and a fake agent: a real server on a Unix socket and a TCP port."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from alveole import api, web
from alveole import requests as ask
from alveole.agent import protocol
from alveole.cli.tree import run
from alveole.config import Settings, parse
from alveole.people.model import Actor, Role
from alveole.services import Services
from alveole.testing import FakeAgent

ROOT = Actor("root", Role.ADMIN, "socket")


def free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not become true in time"
        time.sleep(0.02)
    return found


class LocalSession:
    """A program on this machine in place of one inside a site, with the same kinds of files."""

    def __init__(self, request: protocol.Exec | protocol.Visit, place: Path) -> None:
        self.request = request
        # A visit begins in the working copy.
        place.mkdir(exist_ok=True)
        where = {"cwd": place} if isinstance(request, protocol.Visit) else {}
        if request.tty:
            master, slave = os.openpty()
            self.process = subprocess.Popen(
                request.argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, **where
            )
            os.close(slave)
            self.fds: tuple[int, ...] = (master,)
            return
        pipes = [os.pipe() for _ in range(3)]
        ours = (pipes[0][1], pipes[1][0], pipes[2][0])
        theirs = (pipes[0][0], pipes[1][1], pipes[2][1])
        self.process = subprocess.Popen(request.argv, stdin=theirs[0], stdout=theirs[1], stderr=theirs[2], **where)
        for fd in theirs:
            os.close(fd)
        self.fds = ours

    def resize(self, rows: int, columns: int) -> None:
        self.size = (rows, columns)

    def kill(self, signal: int) -> None:
        self.process.send_signal(signal)

    def wait(self) -> int:
        status = self.process.wait()
        return status if status >= 0 else 128 - status

    def ended(self) -> protocol.Visited:
        return protocol.Visited(self.wait())

    def hang_up(self) -> None:
        self.process.kill()


class Ran:
    """How one run of the command line ended."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status = status
        self.out = out
        self.err = err

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    def __repr__(self) -> str:
        return f"<exit {self.status}\n{self.out}\n--- stderr\n{self.err}>"


class Door:
    """A running API. ``run`` is the command line in this process, ``http`` a client on the socket."""

    def __init__(self, directory: Path, domain: str = "localhost", **sections: dict[str, Any]) -> None:
        self.directory = directory
        self.port = free_port()
        raw: dict[str, dict[str, Any]] = {
            "paths": {"state": str(directory / "s"), "run": str(directory / "r")},
            "reconcile": {"drain_seconds": 0.1, "drift_seconds": 0.3},
            "api": {"port": self.port},
            **sections,
        }
        raw["content"] = {"reserve_bytes": 0, **raw.get("content", {})}
        self.settings: Settings = parse({"domain": domain, **raw})
        self.config = directory / "alveole.toml"
        lines = [f"domain = {json.dumps(domain)}"]
        for section, values in raw.items():
            lines.append(f"[{section}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        self.config.write_text("\n".join(lines))
        self.agent = FakeAgent()
        self.agent.programs = self._session
        self.work = directory / "work"
        self.sessions: list[LocalSession] = []
        self.settings.api_socket.parent.mkdir(parents=True, exist_ok=True)
        self.start()
        self.http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self.settings.api_socket)), base_url="http://alveole", timeout=30
        )

    def start(self) -> None:
        self.services = Services.open(self.settings, self.agent)
        self.app = api.build(self.services, self.settings, pages=web.install)
        self._stop = threading.Event()
        ready = threading.Event()
        self._thread = threading.Thread(
            target=api.run, args=(self.app, self.settings, ready.set), kwargs={"stop": self._stop}
        )
        self._thread.start()
        assert ready.wait(10)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(15)
        assert not self._thread.is_alive()
        self.services.close()

    def close(self) -> None:
        self.http.close()
        self.stop()
        for session in self.sessions:
            session.process.kill()
            session.process.wait()

    def _session(self, request: protocol.Exec | protocol.Visit) -> LocalSession:
        session = LocalSession(request, self.work)
        self.sessions.append(session)
        return session

    def tcp(self, token: str | None = None, **headers: str) -> httpx.Client:
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=30)

    def token(self, role: Role = Role.ADMIN, name: str = "t") -> str:
        secret = self.services.create_token(ROOT, ask.CreateToken(name=name, role=role)).secret
        assert secret is not None
        return secret

    def run(self, *argv: str) -> Ran:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = run(["--config", str(self.config), *argv])
        return Ran(status, out.getvalue(), err.getvalue())

    def ok(self, *argv: str) -> Any:
        """The document of a command that must succeed."""
        ran = self.run(*argv, "--json")
        assert ran.status == 0, ran
        return ran.document

    def content(self, text: str = "hello") -> Path:
        """A small directory to make a site of."""
        place = self.directory / f"content-{abs(hash(text)):x}"
        place.mkdir(exist_ok=True)
        (place / "index.html").write_text(text)
        return place

    def site(self, name: str = "blog", **fields: Any) -> dict[str, Any]:
        """A running site, made through the API."""
        body = {"name": name, "upload": self.upload(), **fields}
        answer = self.http.post("/v1/sites", json=body)
        assert answer.status_code == 202, answer.text
        self.ended(answer)
        found: dict[str, Any] = self.http.get(f"/v1/sites/{name}").json()
        return found

    def upload(self, content: bytes = b"content") -> str:
        return str(self.http.post("/v1/uploads", content=content).json()["id"])

    def ended(self, answer: httpx.Response) -> dict[str, Any]:
        """The change behind a 202, once it is done."""
        assert answer.status_code == 202, answer.text
        found: dict[str, Any] = self.http.get(answer.headers["location"], params={"wait": 20}).json()
        assert found["state"] == "done", found
        return found

    def spool(self) -> list[str]:
        place = self.settings.database.parent / "uploads"
        return sorted(path.name for path in place.iterdir()) if place.exists() else []


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="alv", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def door(directory: Path) -> Iterator[Door]:
    made = Door(directory)
    try:
        yield made
    finally:
        made.close()
    assert not made.agent.violations
