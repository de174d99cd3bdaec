"""The life of the edge: one nginx, started, watched, reconfigured and ended by its files and /proc.

nginx is no child to wait for: it outlives the agent, so that sites answer while the agent is
restarted. What is ours is recognised by the configuration named in the master's command line, and
by the status socket that orphaned workers of a killed master still hold.
"""

from __future__ import annotations

import contextlib
import grp
import logging
import os
import pwd
import resource
import shutil
import signal
import socket
import time
from collections.abc import Callable, Collection
from pathlib import Path

from alveole import wholefile
from alveole.actuators.edge_config import Machine, Rendered, render, state_dir, status_socket
from alveole.actuators.edge_logs import make_stream
from alveole.backends.base import Say, quiet
from alveole.config import Settings
from alveole.errors import AlveoleError, StepFailed, Temporary
from alveole.host import paths
from alveole.host.run import ProgramFailed, run
from alveole.model.resource import (
    PLATFORM,
    Action,
    Defect,
    Kind,
    Observation,
    Observed,
    Outcome,
    ResourceId,
    Step,
)

log = logging.getLogger("alveole.edge")

NGINX = "/usr/sbin/nginx"
#: How long a configuration may take to be in force, and a stopped edge to be gone (seconds).
PATIENCE = 10.0


class EdgeActuator:
    """Actuator of :attr:`Kind.EDGE`."""

    kinds = frozenset({Kind.EDGE})

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._run = paths.edge(settings)
        self._conf = self._run / "nginx.conf"
        self._pid_file = self._run / "nginx.pid"
        self._status = status_socket(settings)
        self._rendered: tuple[Machine, Rendered] | None = None

    # Looking ---------------------------------------------------------------------------------

    def observe(self, scopes: Collection[str] | None = None) -> Observation:
        """The edge, if its configuration was ever written: running, answering, and with which configuration."""
        if scopes is not None and PLATFORM not in scopes:
            return Observation(())
        try:
            return Observation(self._observe())
        except (OSError, AlveoleError) as error:
            return Observation((), ((Kind.EDGE, str(error)),))

    def _observe(self) -> tuple[Observed, ...]:
        try:
            text = self._conf.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ()
        stamp = _stamp_of(text)
        master = self.master()
        defects: list[Defect] = []
        if master is None:
            defects.append(Defect("not-running", "the proxy does not run"))
        else:
            in_force = self.digest_in_force()
            wanted = self._wanted()
            if in_force is None:
                defects.append(Defect("not-answering", "the proxy runs but does not answer on its status socket"))
            elif in_force != wanted.digest:
                defects.append(Defect("changed", "the proxy runs with another configuration than the settings give"))
            elif text != _whole(wanted, stamp) or not self._files_intact(wanted):
                defects.append(Defect("changed", "the proxy's configuration was changed by hand"))
        detail: dict[str, str | int | float] = {"pid": master} if master else {}
        found = Observed(
            ResourceId(Kind.EDGE, PLATFORM, str(Kind.EDGE)), stamp, not defects, tuple(defects), (), detail
        )
        return (found,)

    def master(self) -> int | None:
        """The pid of our nginx's master process, from its pid file or else from ``/proc``."""
        with contextlib.suppress(OSError, ValueError):
            pid = int(self._pid_file.read_text())
            if self._is_master(pid):
                return pid
        return next(filter(self._is_master, _processes()), None)

    def _is_master(self, pid: int) -> bool:
        # "nginx: master process /usr/sbin/nginx -c /run/alveole/edge/nginx.conf", one string.
        words = _command_line(pid).split()
        return words[:2] == [b"nginx:", b"master"] and os.fsencode(self._conf) in words

    def digest_in_force(self) -> str | None:
        """The digest that the running workers answer with; ``None`` when they do not answer."""
        return ask(self._status, "/digest")

    def _machine(self) -> Machine:
        user = _user(self._settings.users.edge)
        return Machine(
            open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
            ipv6=Path("/proc/net/if_inet6").exists(),
            edge_group=grp.getgrgid(user.pw_gid).gr_name,
        )

    def _wanted(self) -> Rendered:
        machine = self._machine()
        if self._rendered is None or self._rendered[0] != machine:
            self._rendered = (machine, render(self._settings, machine))
        return self._rendered[1]

    def _files_intact(self, wanted: Rendered) -> bool:
        try:
            return all((self._run / name).read_text("utf-8") == text for name, text in wanted.files.items())
        except (OSError, UnicodeDecodeError):
            return False

    # Acting ----------------------------------------------------------------------------------

    def apply(self, step: Step, say: Say = quiet) -> Outcome:
        begun = time.monotonic()
        try:
            if step.action is Action.DELETE:
                self._delete(step.grace_seconds)
            else:
                self._bring_about(step.digest, say)
        except ProgramFailed as error:
            return Outcome(False, str(error), True, time.monotonic() - begun, error.tail)
        except (OSError, AlveoleError) as error:
            return Outcome(False, str(error), True, time.monotonic() - begun)
        return Outcome(True, seconds=time.monotonic() - begun)

    def _bring_about(self, stamp: str, say: Say) -> None:
        wanted = self._wanted()
        self._make_directories()
        try:
            previous: str | None = self._conf.read_text(encoding="utf-8")
        except FileNotFoundError:
            previous = None
        earlier = {name: _read(self._run / name) for name in wanted.files}
        whole = _whole(wanted, stamp)
        try:
            for name, text in wanted.files.items():
                wholefile.write(self._run / name, text.encode(), mode=0o644)
            if previous != whole:
                say("trying the proxy's configuration", None)
                candidate = self._run / "nginx.conf.new"
                wholefile.write(candidate, whole.encode(), mode=0o644)
                run([NGINX, "-q", "-t", "-c", str(candidate)])
                candidate.replace(self._conf)
            self._put_in_force(wanted.digest, say)
        except Exception:
            # The old configuration goes on serving, and a start by hand would find it too.
            for name, old in earlier.items():
                if old is not None:
                    wholefile.write(self._run / name, old.encode(), mode=0o644)
            if previous is not None and _digest_of(previous):
                wholefile.write(self._conf, previous.encode(), mode=0o644)
                master = self.master()
                if master and self.digest_in_force() not in (None, _digest_of(previous)):
                    os.kill(master, signal.SIGHUP)
            raise

    def _put_in_force(self, digest: str, say: Say) -> None:
        master = self.master()
        earlier: list[int] = []
        if master is not None and self.digest_in_force() == digest:
            wholefile.write(self._pid_file, f"{master}\n".encode(), mode=0o644)
            return
        if master is None:
            self._end_orphans()
            self._unlink_sockets()
            say("starting the proxy", None)
            run([NGINX, "-c", str(self._conf)])
        elif not self._status.is_socket():
            # Somebody removed the socket's file; a reload keeps the listener without a file. Make
            # way for a new nginx: its ports are free as soon as the old one begins to quit.
            self._quit(master, 0.0)
            self._unlink_sockets()
            run([NGINX, "-c", str(self._conf)])
        else:
            wholefile.write(self._pid_file, f"{master}\n".encode(), mode=0o644)
            say("handing the proxy its configuration", None)
            earlier = _children(master)
            os.kill(master, signal.SIGHUP)
        # Until the earlier workers have stopped to listen, either generation may answer.
        if not _until(lambda: self.digest_in_force() == digest and not any(map(_listens, earlier)), PATIENCE):
            raise StepFailed(
                "the proxy did not take its configuration", hint=f"see {self._settings.logs}/edge/error.log"
            )

    def _delete(self, grace: float) -> None:
        master = self.master()
        if master is not None:
            self._quit(master, grace)
        self._end_orphans()
        for name in ("nginx.conf", "nginx.conf.new", "nginx.pid", "status.sock"):
            (self._run / name).unlink(missing_ok=True)
        self._unlink_sockets()
        shutil.rmtree(state_dir(self._settings), ignore_errors=True)

    def _unlink_sockets(self) -> None:
        for path in (self._status, paths.front_socket(self._settings)):
            path.unlink(missing_ok=True)

    def _quit(self, master: int, grace: float) -> None:
        """Ask it to finish what it has begun; after ``grace`` seconds (at least one) end it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(master, signal.SIGQUIT)
            if _until(lambda: not self._is_master(master), max(grace, 1.0)):
                return
            os.kill(master, signal.SIGTERM)
            if _until(lambda: not self._is_master(master), 2.0):
                return
            os.kill(master, signal.SIGKILL)
            _until(lambda: not self._is_master(master), 2.0)

    def _end_orphans(self) -> None:
        """Workers whose master was killed keep the ports: let them finish, and listen no more."""
        inode = _unix_inode(str(self._status))
        if inode is None:
            return
        wanted = f"socket:[{inode}]"
        orphans = [pid for pid in _nginx_workers() if wanted in _files(pid)]
        for pid in orphans:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGQUIT)
        if not _until(lambda: not any(wanted in _files(pid) for pid in orphans), 2.0):
            for pid in orphans:
                if wanted in _files(pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

    def _make_directories(self) -> None:
        user = _user(self._settings.users.edge)
        for directory in (
            self._run,
            self._run / "lua",
            self._run / "pages",
            self._run / "pages" / ".alveole",
            self._run / "acme",
            paths.routes(self._settings),
            paths.edge_certificates(self._settings),
        ):
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o755)
        make_stream(self._settings)
        front = paths.front_socket(self._settings).parent
        front.mkdir(exist_ok=True)
        front.chmod(0o700)
        temporary = state_dir(self._settings) / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        for directory in (state_dir(self._settings), temporary):
            directory.chmod(0o711)
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"):
            own = temporary / kind
            own.mkdir(exist_ok=True)
            os.chown(own, user.pw_uid, user.pw_gid)
            own.chmod(0o700)


def ask(status: Path, what: str) -> str | None:
    """The body that the edge's status socket answers for ``what``; ``None`` when it does not answer."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as link:
            link.settimeout(2.0)
            link.connect(str(status))
            link.sendall(f"GET {what} HTTP/1.0\r\nHost: status\r\n\r\n".encode())
            answer = b""
            while chunk := link.recv(4096):
                answer += chunk
    except OSError:
        return None
    head, _, body = answer.partition(b"\r\n\r\n")
    return body.decode("ascii", "replace") if b" 200 " in head.split(b"\r\n", 1)[0] else None


def _whole(rendered: Rendered, stamp: str) -> str:
    return f"# alveole stamp={stamp} digest={rendered.digest}\n{rendered.text}"


def _token(text: str, key: str) -> str:
    for word in text.split("\n", 1)[0].split():
        if word.startswith(f"{key}="):
            return word.removeprefix(f"{key}=")
    return ""


def _stamp_of(text: str) -> str:
    return _token(text, "stamp")


def _digest_of(text: str) -> str:
    return _token(text, "digest")


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise Temporary(f"there is no user {name!r}", field="users.edge", hint="make it, or name another") from None


def _until(true: Callable[[], bool], seconds: float) -> bool:
    """Whether ``true()`` became so within ``seconds``."""
    end = time.monotonic() + seconds
    pause = 0.002
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
    return True


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0")
    except OSError:
        return b""


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _listens(worker: int) -> bool:
    # A worker that is asked to quit says so in its title and closes its listening sockets.
    return _command_line(worker).rstrip() == b"nginx: worker process"


def _nginx_workers() -> list[int]:
    return [pid for pid in _processes() if _command_line(pid).startswith(b"nginx: worker process")]


def _files(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found.add(os.readlink(entry.path))  # noqa: PTH115  "socket:[1]" is no path
    return found


def _unix_inode(path: str) -> str | None:
    """The inode of the listening socket bound to ``path``, from ``/proc/net/unix`` (its seventh column)."""
    for line in Path("/proc/net/unix").read_text(errors="replace").splitlines()[1:]:
        words = line.split(None, 7)
        if len(words) == 8 and words[7] == path:
            return words[6]
    return None
