"""What a site's owner, a stopped control process or bad luck may do to the root process, and must not.

Each of these stopped or damaged it before: threads that waited for ever, a disk mounted twice, room that was
never given back.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pty
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from alveole.agent import chain, protocol, server
from alveole.agent.client import AgentClient
from alveole.agent.server import Server
from alveole.agent.wire import Wire
from alveole.backends.base import Session
from alveole.backends.native import exec as native_exec
from alveole.config import Settings, parse
from alveole.errors import Refused
from alveole.host import disk, instances, mounts, paths, syscalls, userns

SITE, OTHER = "saaaaaaaaaaaa", "sbbbbbbbbbbbb"


@pytest.fixture
def short() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="alv", dir="/tmp") as directory:
        yield Path(directory)


@pytest.fixture
def settings(short: Path) -> Settings:
    return parse({"paths": {"state": f"{short}/s", "run": f"{short}/r"}})


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Door:
    """A real server whose programs are ordinary processes."""

    def __init__(self, path: Path) -> None:
        self.started: list[subprocess.Popen[bytes]] = []
        self.server = Server(path, frozenset(), lambda request, files, say: None, self._start)
        self.server.listen()
        threading.Thread(target=self.server.serve, daemon=True).start()
        self.path = path
        self.client = AgentClient(path)

    def _start(self, request: protocol.Exec) -> Session:
        process = subprocess.Popen(request.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.started.append(process)
        assert process.stdin and process.stdout
        fds = tuple(os.dup(stream.fileno()) for stream in (process.stdin, process.stdout))
        process.stdin.close()
        process.stdout.close()
        return Session(fds, process.wait, lambda rows, columns: None, process.send_signal)

    def open(self, site: str = SITE, *argv: str) -> Wire:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self.path))
        wire = Wire(connection)
        wire.send(protocol.Exec(site, 0, argv or ("/bin/sleep", "60")))
        return wire


@pytest.fixture
def door(short: Path) -> Iterator[Door]:
    made = Door(short / "agent.sock")
    yield made
    made.server.close()
    for process in made.started:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()


def until(true: Callable[[], Any], seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def test_a_program_that_ignores_the_end_of_its_caller_is_killed(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """256 of these by one site's owner, and no step of anybody was ever carried out again."""
    monkeypatch.setattr(server, "HANGUP_SECONDS", 0.3)
    wire = door.open(SITE, "/bin/sh", "-c", "trap '' HUP; echo ready; while :; do sleep 1; done")
    assert until(lambda: door.started)
    assert isinstance(wire.receive(msgspec.json.Decoder(protocol.Answer)), protocol.Started)
    files = wire.take_files()
    assert os.read(files[1], 10) == b"ready\n"
    for fd in files:
        os.close(fd)
    wire.close()
    assert until(lambda: door.started[0].poll() is not None)
    assert door.started[0].returncode == -signal.SIGKILL


def test_the_programs_of_one_site_leave_room_for_the_rest(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_SITE_SESSIONS", 3)
    monkeypatch.setattr(server, "MAX_SESSIONS", 4)
    monkeypatch.setattr(server, "HANGUP_SECONDS", 0.3)
    wires = [door.open() for _ in range(3)]
    assert until(lambda: len(door.started) == 3)
    for site, allowed in ((SITE, False), (OTHER, True), ("scccccccccccc", False)):
        try:
            wires.append(_opened(door, site))
        except Refused:
            assert not allowed
        else:
            assert allowed
    door.client.call(protocol.RemoveSite(SITE, 1))
    for wire in wires:
        wire.close()
    assert until(lambda: all(process.poll() is not None for process in door.started))
    assert until(lambda: not door.server._sessions)


def _opened(door: Door, site: str) -> Wire:
    session = door.client.exec(protocol.Exec(site, 0, ("/bin/sleep", "60")))
    for fd in session.fds:
        os.close(fd)
    return session._wire


def test_a_terminal_is_resized_and_no_file_that_took_its_number(short: Path) -> None:
    """The door closes its copy of the terminal at once: before, whatever got the number next was resized."""
    (short / "session").mkdir()
    master, slave = pty.openpty()
    other, other_slave = pty.openpty()
    running = subprocess.Popen(["/bin/sleep", "60"])
    session = native_exec._session(short / "session", (master,), running)
    try:
        os.dup2(other, master)
        session.resize(33, 44)
        assert _size(slave) == (33, 44)
        assert _size(other_slave) != (33, 44)
    finally:
        running.kill()
        session.wait()
        for fd in (master, slave, other, other_slave):
            os.close(fd)
    before = _open_files()
    session.resize(1, 1)
    assert _open_files() == before


def _size(fd: int) -> tuple[int, int]:
    rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
    return rows, columns


def test_files_beyond_those_of_a_request_are_not_collected(door: Door) -> None:
    before = _open_files()
    with socket.socket(socket.AF_UNIX) as connection, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.connect(str(door.path))
        for _ in range(500):
            socket.send_fds(connection, [b" "], [0] * 8)
        pytest.fail("the door takes files without end")
    assert until(lambda: _open_files() <= before)


def test_a_watcher_that_has_stopped_holds_nobody_up(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that tells of an end is the one that reaps: it stood still for as long as control did."""
    monkeypatch.setattr(server, "WATCHER_SECONDS", 0.5)
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(door.path))
    with connection:
        Wire(connection).send(protocol.Watch())
        assert until(lambda: door.server._watchers)
        telling = threading.Thread(target=lambda: deque(map(door.server.tell, [SITE] * 20_000), 0), daemon=True)
        telling.start()
        telling.join(10)
        assert not telling.is_alive()
        assert not door.server._watchers


def test_the_door_stays_open_when_files_run_out(door: Door) -> None:
    """Before, one accept(2) without a free file ended the agent."""
    real = door.server._listener
    assert real is not None
    failures = [errno.EMFILE, errno.ENFILE]

    class Listener:
        def accept(self) -> Any:
            if failures:
                raise OSError(failures.pop(), "no file")
            raise OSError(errno.EINVAL, "closed")

    door.server._listener = Listener()
    try:
        door.server.serve()
    finally:
        door.server._listener = real
    assert failures == []


class Site(threading.Thread):
    """Listens where the instance's web.sock is, and answers with ``head`` and then ``part`` again and again."""

    def __init__(self, settings: Settings, head: bytes, part: bytes) -> None:
        super().__init__(daemon=True)
        where = paths.web_socket(settings, SITE, 0)
        where.parent.mkdir(parents=True)
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(str(where))
        self._door.listen(1)
        self._head, self._part = head, part
        self.start()

    def run(self) -> None:
        link, _ = self._door.accept()
        with contextlib.suppress(OSError), link, self._door:
            link.recv(4096)
            link.sendall(self._head)
            for _ in range(3000):
                link.sendall(self._part)
                time.sleep(0.01)


@pytest.mark.parametrize(
    ("head", "part"),
    [(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), (b"HTTP/1.1 200 OK\r\nX: ", b"a"), (b"HTTP/1.1 ", b"2")],
    ids=["interim", "header", "status"],
)
def test_a_site_cannot_hold_the_one_who_asks_why(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, head: bytes, part: bytes
) -> None:
    """An interim answer again and again kept a thread of root busy for ever."""
    monkeypatch.setattr(chain, "WHOLE_PATIENCE", 0.5)
    Site(settings, head, part)
    inspector = chain.Inspector(settings, lambda site, slot: None, lambda: "")
    target = str(paths.web_socket(settings, SITE, 0))
    began = time.monotonic()
    link = chain._link("application", "GET /", lambda: inspector._application(target, "a.example"))
    assert time.monotonic() - began < 3
    # What was cut in the middle of its headers passes for an answer without a body: it did answer.
    assert link.ok == head.startswith(b"HTTP/1.1 200")


def test_a_tree_of_any_depth_is_removed(short: Path) -> None:
    """A site that nests 3,000 directories could not be updated or destroyed any more."""
    top = short / "deep"
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    (short / "kept").write_text("")
    (top / "link").symlink_to(short / "kept")
    mounts.remove_tree(top)
    assert not top.exists()
    assert (short / "kept").exists()


@pytest.mark.root
def test_user_namespaces_made_side_by_side_do_not_wait_for_each_other() -> None:
    """Two starts at one moment: each child held the other's pipe open, and both sites' locks were never free again."""
    made: list[int] = []

    def many() -> None:
        for _ in range(60):
            made.append(userns.create(0x7000_0000))
            os.close(made[-1])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=many, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert until(lambda: not any(thread.is_alive() for thread in threads), 60)
    finally:
        sys.setswitchinterval(interval)
    assert len(made) == 240


@pytest.mark.root
def test_a_disk_is_mounted_once_whoever_asks(settings: Settings) -> None:
    """A start and a backup at one moment mounted the same ext4 twice, each by a loop device: it was destroyed."""
    image, target = paths.disk_image(settings, SITE), paths.disk_mount(settings, SITE)
    image.parent.mkdir(parents=True)
    disk.create(image, 32 << 20)
    try:
        for _ in range(5):
            together = threading.Barrier(6)
            done: list[bool] = []

            def attach(together: threading.Barrier = together, done: list[bool] = done) -> None:
                together.wait()
                done.append(disk.attach(image, target))

            threads = [threading.Thread(target=attach) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(done) == [False] * 5 + [True]
            assert syscalls.mount_points(target) == [str(target)]
            assert disk.detach(target)
    finally:
        mounts.detach(target)


@pytest.mark.root
def test_a_borrowed_disk_stays_until_the_last_has_done(settings: Settings) -> None:
    """The first to finish took the disk away from the other: a backup then held no volumes and said nothing."""
    image, target = paths.disk_image(settings, SITE), paths.disk_mount(settings, SITE)
    image.parent.mkdir(parents=True)
    disk.create(image, 32 << 20)
    try:
        first = disk.borrowed(settings, SITE)
        with first as data:
            (data / "canary").write_text("x")
            second = disk.borrowed(settings, SITE)
            again = second.__enter__()
        assert (again / "canary").read_text() == "x"
        assert not disk.detach(target)
        second.__exit__(None, None, None)
        assert not disk.is_attached(target)
        assert disk.detach(target)
    finally:
        mounts.detach(target)


@pytest.mark.root
def test_a_full_disk_leaves_the_old_file_whole(short: Path) -> None:
    """Fault 12: a write that took only a part was put in place of what was whole."""
    place = short / "small"
    mounts.tmpfs(place, size=64 << 10, inodes=16, mode=0o700, uid=0, gid=0, flags=0)
    try:
        instances.write(place / "state.json", b"old")
        (place / "filler").write_bytes(bytes(48 << 10))
        with pytest.raises(OSError, match="No space"):
            instances.write(place / "state.json", b"n" * (32 << 10))
        assert (place / "state.json").read_bytes() == b"old"
    finally:
        mounts.detach(place)
