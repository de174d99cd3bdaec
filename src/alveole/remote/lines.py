"""Ways to other machines: one ssh process a machine while it is used, with two sockets at this end of it.

::

    RUN/lines/NAME/api   the API of the Alvéole there, as root on that machine sees it     (control's own)
    RUN/lines/NAME/web   the front socket of its edge                                      (the edge comes through)
    RUN/lines/NAME/m     the process itself; it outlives control, and the next control finds it here

Nothing listens on a network for it: sshd of the machine is the door, this machine's own key is what opens it, and the
one host key that somebody has compared is the only one that is accepted.

Where the user there is not root, what needs root is run by ``sudo -n``, and the two sockets lead to a landing
(:mod:`alveole.remote.landing`) that is there as long as this process.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import select
import shlex
import socket
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec

from alveole import wholefile
from alveole.config import Settings
from alveole.errors import AlveoleError, Denied, InvalidInput, NoRoom, Refused, Temporary
from alveole.remote.fleet import ROOT, Node
from alveole.remote.landing import Landing

if TYPE_CHECKING:
    from alveole.remote.apiclient import Client

_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}
_OPEN_SECONDS = 20.0
_SSH = "/usr/bin/ssh"
_KEYSCAN = "/usr/bin/ssh-keyscan"
#: Words of a program that has failed which are kept for its error.
_LAST_LINES = 40
#: As ssh itself says it; programs there say "Permission denied" of other things.
_NOT_LET_IN = re.compile(r"^\S+@\S+: Permission denied \(", re.MULTILINE)
_SOCKET = re.compile(r"^(?:/[A-Za-z0-9._-]+)+\Z")
#: In this order: the first that the machine has is the one that is pinned.
_KEY_KINDS = ("ssh-ed25519", "ecdsa-sha2-nistp256")


class Wall(Temporary):
    """A machine does not answer, or does not let this one in."""

    code = "temporary"


class Failed(InvalidInput):
    """A program there has ended with another status than 0. ``said``: its last lines, oldest first."""

    code = "invalid"

    def __init__(self, message: str, status: int, said: Sequence[str]) -> None:
        super().__init__(message, field="node")
        self.status, self.said = status, tuple(said)


def scan(host: str, port: int) -> str:
    """``KIND BASE64``: the host key that a machine shows to anybody. Whose it is, somebody has to compare."""
    _knock(host, port)
    argv = [_KEYSCAN, "-T", "10", "-t", "ed25519,ecdsa", "-p", str(port), "--", host]
    try:
        done = subprocess.run(
            argv, env=_ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False
        )
    except subprocess.TimeoutExpired:
        raise Wall(f"{host} does not answer at port {port}", field="host") from None
    shown = dict(line.split()[1:3] for line in done.stdout.splitlines() if len(line.split()) == 3 and line[0] != "#")
    for kind in _KEY_KINDS:
        if kind in shown:
            return f"{kind} {shown[kind]}"
    raise Wall(f"{host} shows no host key at port {port}", field="host", hint="is sshd running there?")


def _knock(host: str, port: int) -> None:
    """Whether anybody listens there at all: ``ssh-keyscan`` says the same of every silence."""
    where = f"{host} at port {port}"
    try:
        socket.create_connection((host, port), 10).close()
    except (socket.gaierror, UnicodeError):
        # The second of what cannot be written as a name of the DNS: a part that is empty or too long.
        raise Wall(f"no name server knows {host}", field="host", hint="is it written as it should be?") from None
    except ConnectionRefusedError:
        raise Wall(f"{where} refuses connections", field="host", hint="does sshd listen there, at that port?") from None
    except TimeoutError:
        hint = "a firewall may be between, or the machine is off"
        raise Wall(f"{where} does not answer", field="host", hint=hint) from None
    except OSError as error:
        hint = "is the machine on, and is there a route to it?"
        raise Wall(f"{where} cannot be reached: {error.strerror or error}", field="host", hint=hint) from None


def fingerprint(host_key: str) -> str:
    """As ``ssh-keygen -l`` prints it."""
    raw = base64.b64decode(host_key.split()[1])
    return f"SHA256:{base64.b64encode(hashlib.sha256(raw).digest()).decode().rstrip('=')}"


class Keys:
    """This machine's own key pair for other machines, made at the first use."""

    def __init__(self, settings: Settings) -> None:
        self.place = settings.database.parent / "lines"
        self.private = self.place / "key"
        self._comment = f"alveole@{settings.domain}"

    def public(self) -> str:
        """The line for ``authorized_keys`` there: everything that these lines need and nothing else."""
        from cryptography.hazmat.primitives import serialization as form
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self.place.mkdir(mode=0o700, exist_ok=True)
        if not self.private.exists():
            raw = Ed25519PrivateKey.generate().private_bytes(
                form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption()
            )
            # The first of two at once stays.
            with contextlib.suppress(FileExistsError):
                wholefile.write(self.private, raw, over=False)
        key = form.load_ssh_private_key(self.private.read_bytes(), None)
        text = key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH).decode()
        return f"restrict,port-forwarding {text} {self._comment}"


class Line:
    """The way to one node. Safe from several threads; opened by the first who needs it."""

    def __init__(self, settings: Settings, node: Node) -> None:
        self.node = node
        self._keys = Keys(settings)
        self._place = settings.run / "lines" / node.name
        self._known = self._keys.place / f"{node.name}.known"
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self.used_at = time.monotonic()

    @property
    def _master(self) -> Path:
        return self._place / "m"

    def client(self) -> Client:
        """The API of the node. Raises :class:`Wall`, ``Denied``."""
        # The same few lines of HTTP that the command line speaks.
        from alveole.remote.apiclient import Client

        self.open()
        self.used_at = time.monotonic()
        return Client(self._place / "api")

    def connect(self) -> socket.socket:
        """A connection to the API of the node, for what is no request and answer. Raises as :meth:`client`."""
        from alveole.remote.apiclient import connect

        self.open()
        self.used_at = time.monotonic()
        return connect(self._place / "api")

    def is_open(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self._master))
            except OSError:
                return False
        return True

    def open(self) -> None:
        with self._lock:
            if self.is_open():
                if all((self._place / name).is_socket() for name in ("api", "web")):
                    # ssh makes them for its own user alone, and control may have died before it let the edge in.
                    self._let_the_edge_in()
                    return
                # Control died before it had made them.
                self._exit()
            self._reap()
            self._place.mkdir(mode=0o711, exist_ok=True)
            self._place.chmod(0o711)
            for name in ("m", "api", "web"):
                (self._place / name).unlink(missing_ok=True)
            if self.node.user == ROOT:
                run = self.node.run
                ends = Landing(f"{run}/control/api.sock", f"{run}/edge/front/http.sock")
                with tempfile.TemporaryFile() as said:
                    self._start(said, "-N", *self._forwards(ends))
                    self._wait(said, self.is_open)
            else:
                self._land()
            self._let_the_edge_in()

    def _let_the_edge_in(self) -> None:
        # The directory above lets nobody through but control and the edge.
        (self._place / "web").chmod(0o666)

    def _forwards(self, ends: Landing) -> list[str]:
        there = {"api": ends.api, "web": ends.web}
        return [word for name, path in there.items() for word in ("-L", f"{self._place / name}:{path}")]

    def _land(self) -> None:
        """The way of a user who is not root: sudo starts a landing, which says where its sockets are."""
        command = self.as_root((self.node.program, "--config", self.node.config, "node", "landing"))
        ends: Landing | None = None
        told = b""

        def landed() -> bool:
            nonlocal ends, told
            if select.select([heard], [], [], 0)[0]:
                told += os.read(heard, 4096)
            # A profile there may greet before it.
            for line in told.split(b"\n")[:-1]:
                with contextlib.suppress(msgspec.DecodeError):
                    ends = msgspec.json.decode(line, type=Landing)
            return ends is not None and self.is_open()

        heard, speaks = os.pipe2(os.O_CLOEXEC)
        try:
            with tempfile.TemporaryFile() as said:
                try:
                    self._start(said, command=command, stdout=speaks)
                finally:
                    os.close(speaks)
                self._wait(said, landed)
                if ends is None or not (_SOCKET.match(ends.api) and _SOCKET.match(ends.web)):
                    raise Wall(f"{self.where} does not say where its sockets are", field="node")
                done = self._control("forward", *self._forwards(ends))
                if done is None or done.returncode != 0:
                    self._exit()
                    raise Wall(f"{self.where} passes no sockets on", field="node", hint="sshd there must allow it")
        finally:
            os.close(heard)

    def _start(self, said: IO[bytes], *options: str, command: Sequence[str] = (), stdout: int | None = None) -> None:
        master = ("-o", "ControlMaster=yes", "-o", f"ControlPath={self._master}")
        with _endless() as nothing:
            self._process = subprocess.Popen(
                self._argv(*master, *options, command=command),
                env=_ENVIRONMENT,
                stdin=nothing,
                stdout=subprocess.DEVNULL if stdout is None else stdout,
                stderr=said,
                start_new_session=True,
                cwd="/",
            )

    def _wait(self, said: IO[bytes], ready: Callable[[], bool]) -> None:
        """Until the process that was started is ``ready``. Raises what it said in place of that."""
        until = time.monotonic() + _OPEN_SECONDS
        while not ready():
            status = self._process.poll() if self._process is not None else 255
            if status is not None or time.monotonic() > until:
                self._reap()
                said.seek(0)
                text = said.read().decode("utf-8", "replace")
                raise self._why(text) if status in (None, 255) else self._why_not_root(status or 0, text)
            time.sleep(0.02)

    @property
    def where(self) -> str:
        return f"{self.node.user}@{self.node.host}:{self.node.port}"

    def as_root(self, command: Sequence[str]) -> tuple[str, ...]:
        return tuple(command) if self.node.user == ROOT else ("sudo", "-n", "--", *command)

    def _argv(self, *options: str, command: Sequence[str] = ()) -> list[str]:
        self._keys.public()
        self._known.write_text(f"alveole-{self.node.name} {self.node.host_key}\n", encoding="ascii")
        fixed = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "HostKeyAlias": f"alveole-{self.node.name}",
            "UserKnownHostsFile": str(self._known),
            "GlobalKnownHostsFile": "/dev/null",
            "HostKeyAlgorithms": self.node.host_key.split()[0],
            "UpdateHostKeys": "no",
            "CheckHostIP": "no",
            "VerifyHostKeyDNS": "no",
            "IdentityFile": str(self._keys.private),
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "PreferredAuthentications": "publickey",
            "ForwardAgent": "no",
            "ForwardX11": "no",
            "PermitLocalCommand": "no",
            "ExitOnForwardFailure": "yes",
            "StreamLocalBindMask": "0177",
            "ConnectTimeout": "10",
            "ServerAliveInterval": "5",
            "ServerAliveCountMax": "2",
            # Whoever reads what sudo says has to know the language. sshd of Debian takes it over.
            "SetEnv": "LC_ALL=C.UTF-8",
            "LogLevel": "ERROR",
        }
        words = [word for name, value in fixed.items() for word in ("-o", f"{name}={value}")]
        target = ("-p", str(self.node.port), "-l", self.node.user, "--", self.node.host)
        # sshd hands a command to the user's shell: quoted, it is the argument vector again (POSIX sh).
        return [_SSH, "-F", "none", "-T", *words, *options, *target, *([shlex.join(command)] if command else [])]

    def _why(self, said: str) -> AlveoleError:
        last = said.strip().splitlines()[-1][:300] if said.strip() else "no answer in time"
        if "Host key verification failed" in said or "REMOTE HOST IDENTIFICATION" in said:
            return Refused(
                f"{self.where} shows another host key than the one that was confirmed",
                field="fingerprint",
                hint="somebody may stand between; if the machine was made anew: alveole node remove, then add",
            )
        if _NOT_LET_IN.search(said):
            return Denied(
                f"{self.where} does not let this machine in",
                field="host",
                hint=f"add the first line of alveole node key to ~{self.node.user}/.ssh/authorized_keys there",
            )
        return Wall(f"{self.where} cannot be reached: {last}", field="node", hint="see: alveole node check")

    def _why_not_root(self, status: int, said: str) -> AlveoleError:
        """Why a program that sudo was to run as root has ended."""
        lines = _words(said.splitlines())
        last = lines[-1][:300] if lines else "it says nothing"
        if status == 127:
            # What the shell says of a program that is not there.
            hint = "install sudo there, or come as root"
            return Refused(f"{self.where} has no sudo: {last}", field="user", hint=hint)
        if any(line.startswith("sudo:") and self.node.program in line for line in lines):
            return Refused(f"{self.where}: {last}", field="program", hint="where is the program there? --program PATH")
        if any(line.lower().startswith(("sudo:", "sorry,")) for line in lines):
            return Denied(
                f"sudo does not let {self.node.user} be root on {self.node.host} without a password: {last}",
                field="user",
                hint=f"as root there: visudo -f /etc/sudoers.d/alveole, with the line: {sudoers(self.node)}",
            )
        return Wall(f"{self.where} lets nobody through to Alvéole: {last}", field="node", hint="does it run there?")

    def run(self, command: Sequence[str], *, stdin: bytes = b"", seconds: float = 60.0, root: bool = False) -> str:
        """What a program there prints; ``root``: it runs as root.

        Raises :class:`Failed`, :class:`Wall`, ``Denied``, ``NoRoom``.
        """
        with tempfile.NamedTemporaryFile() as own:
            try:
                done = subprocess.run(
                    self._argv("-E", own.name, command=self.as_root(command) if root else command),
                    env=_ENVIRONMENT,
                    input=stdin,
                    capture_output=True,
                    timeout=seconds,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise Wall(f"{command[0]} on {self.node.host} took more than {seconds:.0f} s", field="node") from None
            said = done.stderr.decode("utf-8", "replace").splitlines()
            self._check(command, root, done.returncode, said, own.read())
        return done.stdout.decode("utf-8", "replace")

    def follow(self, command: Sequence[str], heard: Callable[[str], None], *, seconds: float) -> None:
        """Run a program there as root; each line of what it prints is ``heard`` as it comes. Raises as :meth:`run`."""
        last: deque[str] = deque(maxlen=_LAST_LINES)
        with tempfile.NamedTemporaryFile() as own:
            with subprocess.Popen(
                self._argv("-E", own.name, command=self.as_root(command)),
                env=_ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
            ) as process:
                timer = threading.Timer(seconds, process.kill)
                timer.start()
                try:
                    for line in process.stdout or ():
                        last.append(line.rstrip())
                        heard(line.rstrip())
                    status = process.wait()
                finally:
                    timer.cancel()
                    process.kill()
            if status < 0:
                raise Wall(f"{command[0]} on {self.node.host} took more than {seconds:.0f} s", field="node")
            self._check(command, True, status, last, own.read())

    def _check(self, command: Sequence[str], root: bool, status: int, said: Sequence[str], own: bytes) -> None:
        """``said`` by the program there, ``own`` by ssh itself."""
        if status == 0:
            return
        if status == 255:
            raise self._why(own.decode("utf-8", "replace") or "the connection has ended")
        # The first line is the cause: what tar says last is that it has failed.
        first = next(iter(_words(said)), "it says nothing")[:300]
        if root and self.node.user != ROOT and (status == 127 or first.lower().startswith(("sudo:", "sorry,"))):
            raise self._why_not_root(status, "\n".join(said))
        # The second is how tar says that a file was cut short.
        if any(words in line for line in said for words in ("No space left on device", "Wrote only")):
            hint = "make room there, then try again"
            raise NoRoom(f"the disk of {self.node.host} is full: {first}", field="host", hint=hint)
        raise Failed(f"{command[0]} on {self.node.host} ended with {status}: {first}", status, said)

    def _control(self, word: str, *options: str) -> subprocess.CompletedProcess[bytes] | None:
        """Tell the process something over its own socket; ``None`` when it does not listen."""
        argv = [_SSH, "-F", "none", "-o", f"ControlPath={self._master}", "-O", word, *options, "--", self.node.host]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            return subprocess.run(
                argv, env=_ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False
            )
        return None

    def _exit(self) -> None:
        self._control("exit")
        self._reap()

    def close(self) -> None:
        """End the process, and take its sockets away."""
        with self._lock:
            if self.is_open():
                self._control("exit")
            self._reap()
            for name in ("m", "api", "web"):
                (self._place / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self._place.rmdir()

    def _reap(self) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            self._process = None


def _words(said: Sequence[str]) -> list[str]:
    """Lines that say something. That sudo does not find the machine's own name is no reason for anything."""
    return [line for line in said if line.strip() and "sudo: unable to resolve host" not in line]


def sudoers(node: Node) -> str:
    """The line for sudoers there that lets this machine drive it: the landing, and nothing else as root."""
    return f"{node.user} ALL=(root) NOPASSWD: {node.program} --config {node.config} node landing"


@contextlib.contextmanager
def _endless() -> Iterator[int]:
    """A standard input in which nothing ever comes, and which does not end: its reader is a writer too (fifo(7))."""
    with tempfile.TemporaryDirectory() as place:
        os.mkfifo(Path(place, "fifo"), 0o600)
        descriptor = os.open(Path(place, "fifo"), os.O_RDWR | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
