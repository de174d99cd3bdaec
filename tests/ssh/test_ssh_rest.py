"""The SSH door's process is there while somebody is: real sockets and the real process, without control behind it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alveole.agent import doorway
from alveole.agent.chain import _door
from alveole.config import ENVIRONMENT, Settings, load
from instancekit import (
    alive,
    clean_environment,
    command,
    descendants,
    free_ports,
    kill,
    make_users,
    public_python,
    until,
)


class Waiting:
    """``alveole serve --role ssh``, as a unit of systemd starts it."""

    def __init__(self, settings: Settings, config: Path) -> None:
        self.settings = settings
        self.port = settings.ssh.port
        user = pwd.getpwnam(settings.users.ssh)
        settings.ssh_keys.mkdir(mode=0o700)
        os.chown(settings.ssh_keys, user.pw_uid, user.pw_gid)
        who: dict[str, Any] = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "umask": 0o077}
        how: dict[str, Any] = {"stdin": subprocess.DEVNULL, "cwd": "/", "start_new_session": True}
        self.process = subprocess.Popen(
            [str(public_python()), "-m", "alveole", "serve", "--role", "ssh"],
            env={**clean_environment(), ENVIRONMENT: str(config), "HOME": "/nonexistent"},
            **who,
            **how,
        )

    def doors(self) -> list[int]:
        """The processes that speak SSH."""
        return sorted(descendants([self.process.pid]) - {self.process.pid})

    def rests(self) -> bool:
        return not self.doors() and doorway.rests(self.port)

    def greeting(self, family: str = "127.0.0.1") -> bytes:
        with socket.create_connection((family, self.port), 60) as client:
            return client.recv(64)


@pytest.fixture
def door() -> Iterator[Waiting]:
    make_users()
    place = Path(tempfile.mkdtemp(prefix="alv", dir="/tmp"))
    place.chmod(0o711)
    (port,) = free_ports(1)
    config = place / "alveole.toml"
    config.write_text(
        f'[paths]\nstate = "{place}/s"\nrun = "/tmp/r"\n'
        f'[ssh]\nport = {port}\nipv4 = "127.0.0.1"\nipv6 = "::1"\nrest_seconds = 1\n'
    )
    (place / "s").mkdir()
    try:
        made = Waiting(load(config), config)
        try:
            yield made
        finally:
            pids = descendants([made.process.pid])
            kill(pids)
            made.process.wait()
            until(lambda: not any(alive(pid) for pid in pids), 60)
    finally:
        shutil.rmtree(place)


def test_it_rests_and_is_woken(door: Waiting) -> None:
    """Its keys are made ahead, so that they can be published; then nothing but what listens is left."""
    until(lambda: (door.settings.ssh_keys / "ssh_host_rsa_key.pub").exists(), 60)
    until(door.rests, 60)
    assert "started by the next connection" in _door(door.settings)
    assert door.rests(), "the doctor does not wake it"
    for address in ("127.0.0.1", "::1"):
        assert door.greeting(address).startswith(b"SSH-2.0-Alveole")
        until(door.rests, 60)


def test_it_stays_while_somebody_is_there(door: Waiting) -> None:
    until(door.rests, 60)
    with socket.create_connection(("127.0.0.1", door.port), 60) as client:
        assert client.recv(64).startswith(b"SSH-2.0-Alveole")
        (pid,) = door.doors()
        assert not doorway.rests(door.port) and _door(door.settings).startswith("SSH-2.0-Alveole")
        # Longer than it would rest, by its own clock: nobody else came.
        with pytest.raises(TimeoutError):
            client.settimeout(2.5)
            while client.recv(4096):
                pass
        assert door.doors() == [pid]
    until(door.rests, 60)


def test_who_is_not_served_is_told(door: Waiting) -> None:
    """Fault: its process cannot begin. The doctor does not call that rest."""
    until(door.rests, 60)
    door.process.send_signal(signal.SIGSTOP)
    try:
        with socket.create_connection(("127.0.0.1", door.port), 60) as client:
            until(lambda: not doorway.rests(door.port), 60)
            door.process.send_signal(signal.SIGCONT)
            assert client.recv(64).startswith(b"SSH-2.0-Alveole")
    finally:
        door.process.send_signal(signal.SIGCONT)


def test_nobody_is_lost_when_it_dies(door: Waiting) -> None:
    """Fault: the process is killed; who comes then waits where it listens, and is served by the next one."""
    until(door.rests, 60)
    for _ in range(2):
        # It stays while somebody is there.
        with socket.create_connection(("127.0.0.1", door.port), 60) as client:
            assert client.recv(64)
            (pid,) = door.doors()
            os.kill(pid, signal.SIGKILL)
            until(lambda pid=pid: not alive(pid), 60)  # type: ignore[misc]  # bound now
        assert door.greeting().startswith(b"SSH-2.0-Alveole")


def test_it_ends_with_what_started_it(door: Waiting) -> None:
    """Fault: whoever is started in its place finds the port free."""
    until(door.rests, 60)
    with socket.create_connection(("127.0.0.1", door.port), 60) as client:
        assert client.recv(64)
        (pid,) = door.doors()
        assert command(pid).endswith("serve --role ssh")
        assert Path(f"/proc/{pid}").stat().st_uid == pwd.getpwnam(door.settings.users.ssh).pw_uid
        door.process.kill()
        door.process.wait()
        until(lambda: not alive(pid), 60)
    with pytest.raises(ConnectionRefusedError):
        door.greeting()


def test_another_program_is_not_taken_for_it(door: Waiting) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert not doorway.rests(other.getsockname()[1])
    assert not doorway.rests(1)
