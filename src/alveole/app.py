"""Wiring: the only place that builds everything, and the life of the processes.

``alveole serve`` alone is a supervisor: it starts the agent as root and control as its own
unprivileged user, starts either again when it ends, and passes a stop on to both. Under systemd
each role is a unit of its own. Sites, and the proxy in front of them, outlive all of these.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import pwd
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from alveole.config import ENVIRONMENT, Settings
from alveole.errors import InvalidInput, Refused
from alveole.logbook.places import WANTED
from alveole.logbook.writer import OwnHandler
from alveole.ssh.door import LISTENERS, has_keys, open_listeners

Role = Literal["agent", "control", "ssh", "porter"]
log = logging.getLogger("alveole.app")
_M_ARENA_MAX = -8  # malloc.h
#: There while a platform is being restored into the state directory: ``restoring`` has begun and not ended.
MARK = "restoring.json"
#: A role that ends is started again after this long, doubled each time up to the second figure.
_RESTART_SECONDS = (0.2, 10.0)
#: A role that has run this long starts again without delay.
_STABLE_SECONDS = 30.0


def serve(settings: Settings, role: Role | None = None, config: Path | None = None) -> None:
    """Run until SIGTERM or SIGINT. Raises ``AlveoleError`` when the role cannot run here."""
    logging.basicConfig(
        level=os.environ.get("ALVEOLE_LOG", "INFO").upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    if role is not None:
        logging.getLogger().addHandler(OwnHandler(settings.logs, role))
    if (settings.state / MARK).exists():
        raise Refused(f"{settings.state} is only half restored", hint="ask for it again: alveole restore-platform")
    # Each request has a thread of its own, and the C library would keep what is left over for each of many apart.
    ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)
    if role == "agent":
        _need_root("the agent")
        from alveole.agent.main import run_agent

        run_agent(settings, ready=_ready)
    elif role == "control":
        from alveole.control import run_control

        run_control(settings, ready=_ready)
    elif role == "ssh":
        from alveole.ssh.door import run_door

        run_door(settings, ready=notify_ready)
    elif role == "porter":
        from alveole.logbook.porter import run_porter

        run_porter(settings)
    else:
        _need_root("alveole serve")
        Supervisor(settings, config).run()


def _ready() -> None:
    notify_ready()
    # What starting needed and nobody needs any more: the C library keeps it otherwise, some megabytes for good.
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def notify_ready() -> None:
    """Tell systemd, where it started us, that this role is up (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(b"READY=1", address)


def _need_root(what: str) -> None:
    if os.geteuid() != 0:
        raise Refused(f"{what} needs root", hint="run it with sudo")


def prepare_control(settings: Settings) -> pwd.struct_passwd:
    """Make the two directories that control owns; gives its user. Raises ``InvalidInput``."""
    try:
        user = pwd.getpwnam(settings.users.control)
    except KeyError:
        raise InvalidInput(
            f"there is no user {settings.users.control!r} on this machine",
            field="users.control",
            hint=f"adduser --system --group --no-create-home {settings.users.control}",
        ) from None
    for directory in (settings.state, settings.run):
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)
    for directory, mode in ((settings.database.parent, 0o700), (settings.api_socket.parent, 0o755)):
        directory.mkdir(exist_ok=True)
        os.chown(directory, user.pw_uid, user.pw_gid)
        directory.chmod(mode)
    return user


def prepare_door(settings: Settings) -> pwd.struct_passwd:
    """Make the directory of the host keys, which the SSH door owns; gives its user. Raises ``InvalidInput``."""
    try:
        user = pwd.getpwnam(settings.users.ssh)
    except KeyError:
        raise InvalidInput(
            f"there is no user {settings.users.ssh!r} on this machine",
            field="users.ssh",
            hint=f"adduser --system --group --no-create-home {settings.users.ssh}",
        ) from None
    settings.state.mkdir(parents=True, exist_ok=True)
    settings.ssh_keys.mkdir(exist_ok=True)
    os.chown(settings.ssh_keys, user.pw_uid, user.pw_gid)
    settings.ssh_keys.chmod(0o700)
    return user


class Supervisor:
    """Keeps the roles running; nothing but the standard library, for it lives as long as they do."""

    def __init__(self, settings: Settings, config: Path | None) -> None:
        self._settings = settings
        self._config = config
        self._stop = threading.Event()
        self._listeners: list[socket.socket] = []

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        user = prepare_control(self._settings)
        loops = [
            threading.Thread(target=self._keep, args=("agent", None)),
            threading.Thread(target=self._keep, args=("control", user)),
        ]
        if self._settings.ssh.enabled:
            try:
                door = prepare_door(self._settings)
                self._listeners = open_listeners(self._settings)
                loops.append(threading.Thread(target=self._keep, args=("ssh", door)))
            except (InvalidInput, Refused) as error:
                # Sites and pages do not wait for a door that can be opened later.
                log.error("the SSH door stays closed: %s", error)
        try:
            porter = pwd.getpwnam(self._settings.users.log)
            loops.append(threading.Thread(target=self._keep, args=("porter", porter)))
        except KeyError:
            log.error("no syslog is sent or taken in: there is no user %s", self._settings.users.log)
        for loop in loops:
            loop.start()
        for loop in loops:
            loop.join()

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stop.set()

    def _keep(self, role: Role, user: pwd.struct_passwd | None) -> None:
        delay = _RESTART_SECONDS[0]
        while not self._stop.is_set():
            if not self._is_needed(role):
                return
            began = time.monotonic()
            process = self._start(role, user)
            while process.poll() is None and not self._stop.wait(0.2):
                pass
            if self._stop.is_set():
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                return
            if time.monotonic() - began > _STABLE_SECONDS:
                delay = _RESTART_SECONDS[0]
            if role == "porter" and process.returncode == 0:
                # It ends by itself when nothing is wanted of it any more.
                delay = _RESTART_SECONDS[0]
                continue
            log.error("%s ended with status %d; starting it again in %.1f s", role, process.returncode, delay)
            self._stop.wait(delay)
            delay = min(delay * 2, _RESTART_SECONDS[1])

    def _is_needed(self, role: Role) -> bool:
        """Wait until that role has something to do; false when all is to end."""
        wanted = self._settings.logs / WANTED
        while not self._stop.is_set():
            if role == "ssh":
                if not has_keys(self._settings) or select.select(self._listeners, [], [], 0.5)[0]:
                    return True
            elif role != "porter" or wanted.exists():
                return True
            else:
                self._stop.wait(1.0)
        return False

    def _start(self, role: Role, user: pwd.struct_passwd | None) -> subprocess.Popen[bytes]:
        # Should the interpreter itself ever crash, its log says where.
        environment = {**os.environ, "PYTHONFAULTHANDLER": "1"}
        if self._config is not None:
            environment[ENVIRONMENT] = str(self._config)
        argv = [sys.executable, "-m", "alveole", "serve", "--role", role]
        if user is None:
            return subprocess.Popen(argv, stdin=subprocess.DEVNULL, env=environment, cwd="/")
        files = [each.fileno() for each in self._listeners] if role == "ssh" else []
        if files:
            environment[LISTENERS] = ",".join(map(str, files))
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            pass_fds=files,
            env={**environment, "HOME": "/nonexistent"},
            cwd="/",
            user=user.pw_uid,
            group=user.pw_gid,
            # All lines are readable by control's group.
            extra_groups=[pwd.getpwnam(self._settings.users.control).pw_gid] if role == "porter" else [],
            umask=0o077,
        )


def restore_platform(
    settings: Settings, repository: dict[str, str], key: str, tell: Callable[[str, float | None], None], identity: str
) -> dict[str, Any]:
    """Make a lost machine again: see :mod:`alveole.restoring`. ``repository``: as :class:`PutRepository`'s fields."""
    import msgspec

    from alveole.agent.saving import PutRepository
    from alveole.restoring import NAME, document
    from alveole.restoring import restore_platform as restored

    try:
        wanted = msgspec.convert({"name": NAME, **repository}, PutRepository)
    except msgspec.ValidationError as error:
        raise InvalidInput(str(error), field="repository") from error
    return document(restored(settings, wanted, key, tell, identity=Path(identity) if identity else None))
