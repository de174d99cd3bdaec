"""The agent's door, with the real socket, the real client and the kernel's own word on who calls."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alveole.agent import protocol
from alveole.agent.client import AgentClient
from alveole.agent.server import Server
from alveole.backends.base import Say, Session
from alveole.errors import InvalidInput, NotFound, Problem, Temporary


class Door:
    """A server whose single verb echoes what it was given."""

    def __init__(self, path: Path) -> None:
        self.server = Server(path, frozenset(), self.handle, self.start)
        self.server.listen()
        threading.Thread(target=self.server.serve, daemon=True).start()
        self.client = AgentClient(path)

    def handle(self, request: protocol.Request, files: list[int], say: Say) -> Any:
        match request:
            case protocol.GetAuthority():
                say("looking", 0.5)
                return "PEM"
            case protocol.ReadBackup():
                return os.read(files[0], 100).decode()
            case protocol.DropBase():
                raise NotFound(problems=[Problem("key", "no such base"), Problem("other", "also wrong")])
            case protocol.ListBackups():
                raise RuntimeError("a fault of ours")
        return None

    def start(self, request: protocol.Exec) -> Session:
        process = subprocess.Popen(request.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdin and process.stdout and process.stderr
        fds = tuple(os.dup(stream.fileno()) for stream in (process.stdin, process.stdout, process.stderr))
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()
        return Session(fds, process.wait, lambda rows, columns: None, process.send_signal)


@pytest.fixture
def door() -> Iterator[Door]:
    with tempfile.TemporaryDirectory(prefix="alv", dir="/tmp") as directory:
        made = Door(Path(directory) / "agent.sock")
        yield made
        made.server.close()


def test_a_call_gives_its_typed_result_and_its_progress(door: Door) -> None:
    said: list[tuple[str, float | None]] = []
    assert door.client.call(protocol.GetAuthority(), say=lambda text, share: said.append((text, share))) == "PEM"
    assert said == [("looking", 0.5)]


def test_errors_cross_with_all_their_problems(door: Door) -> None:
    with pytest.raises(NotFound) as caught:
        door.client.call(protocol.DropBase("host-0123456789abcdef"))
    assert [problem.field for problem in caught.value.problems] == ["key", "other"]


def test_a_fault_of_ours_is_an_error_and_the_door_stays_open(door: Door) -> None:
    with pytest.raises(Temporary, match="a fault of ours"):
        door.client.call(protocol.ListBackups())
    assert door.client.call(protocol.GetAuthority()) == "PEM"


def test_what_is_not_of_the_protocol_is_refused(door: Door) -> None:
    """Threat 11 and 30: a value outside its grammar never reaches a verb."""
    with pytest.raises(InvalidInput):
        door.client.call(protocol.DropBase("../../etc"))
    with pytest.raises(InvalidInput):
        door.client.call(protocol.DropRelease("s" + "a" * 12 + "\n", 1, "sha256:" + "0" * 64))


def test_files_travel_beside_the_request(door: Door) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"content")
    os.close(writer)
    request = protocol.ReadBackup("snapshot", "sha256:" + "0" * 64)
    assert door.client.call(request, [reader]) == "content"
    os.close(reader)


def test_a_program_is_started_with_its_streams_and_its_status(door: Door) -> None:
    session = door.client.exec(protocol.Exec("s" + "a" * 12, 0, ("/bin/sh", "-c", "cat; echo err >&2; exit 7")))
    stdin, stdout, stderr = session.fds
    os.write(stdin, b"in")
    os.close(stdin)
    assert session.wait() == 7
    assert os.read(stdout, 100) == b"in"
    assert os.read(stderr, 100) == b"err\n"
    os.close(stdout)
    os.close(stderr)


def test_a_watcher_is_told_and_looks_at_everything_after_a_reconnection(door: Door) -> None:
    heard: list[str] = []
    first = threading.Event()
    second = threading.Event()

    def callback(scope: str) -> None:
        heard.append(scope)
        (first if scope == "*" else second).set()

    stop = door.client.watch(callback)
    assert first.wait(5)
    # The callback comes before the server has noted the watcher; telling again until heard is what ends do.
    for _ in range(50):
        door.server.tell("saaaaaaaaaaaa")
        if second.wait(0.1):
            break
    assert heard[:2] == ["*", "saaaaaaaaaaaa"]
    stop()


def test_no_agent_is_a_temporary_failure() -> None:
    with pytest.raises(Temporary, match="does not answer"):
        AgentClient(Path("/tmp/alv-nobody/agent.sock")).call(protocol.Facts())


@pytest.mark.root
def test_another_user_is_turned_away(door: Door) -> None:
    """Threat 30: the peer's credentials decide, and a stranger's connection is closed."""
    code = (
        "import os,socket,sys; s=socket.socket(socket.AF_UNIX); os.setuid(int(sys.argv[2])); s.connect(sys.argv[1]);"
        's.sendall(b\'{"type":"authority"}\\n\');'
        "print(s.makefile('rb').read(10000 if sys.argv[2] != '0' else 30))"
    )
    path = Path(door.client._path)
    path.parent.chmod(0o755)
    answers = {
        uid: subprocess.run(
            [sys.executable, "-I", "-c", code, str(path), str(uid)], capture_output=True, text=True, check=False
        ).stdout
        for uid in (0, 65_534)
    }
    assert "said" in answers[0]
    assert answers[65_534].strip() in ("", "b''")
