"""Ways to other machines: one ssh process a machine while it is used, with two sockets at this end of it.

::

    RUN/lines/NAME/api   the API of the Alvéole there, as root on that machine sees it     (control's own)
    RUN/lines/NAME/web   the front socket of its edge                                      (the edge comes through)
    RUN/lines/NAME/m     the process itself; it outlives control, and the next control finds it here

Nothing listens on a network for it: sshd of the machine is the door, this machine's own key is what opens it, and the
one host key that somebody has compared is the only one that is accepted.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import shlex
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alveole import wholefile
from alveole.config import Settings
from alveole.errors import AlveoleError, Denied, InvalidInput, Refused, Temporary
from alveole.fleet import Node

if TYPE_CHECKING:
    from alveole.apiclient import Client

_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}
_OPEN_SECONDS = 20.0
_SSH = "/usr/bin/ssh"
_KEYSCAN = "/usr/bin/ssh-keyscan"
#: In this order: the first that the machine has is the one that is pinned.
_KEY_KINDS = ("ssh-ed25519", "ecdsa-sha2-nistp256")


class Wall(Temporary):
    """A machine does not answer, or does not let this one in."""

    code = "temporary"


def scan(host: str, port: int) -> str:
    """``KIND BASE64``: the host key that a machine shows to anybody. Whose it is, somebody has to compare."""
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
        from alveole.apiclient import Client

        self.open()
        self.used_at = time.monotonic()
        return Client(self._place / "api")

    def connect(self) -> socket.socket:
        """A connection to the API of the node, for what is no request and answer. Raises as :meth:`client`."""
        from alveole.apiclient import connect

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
                return
            self._reap()
            self._place.mkdir(mode=0o711, exist_ok=True)
            self._place.chmod(0o711)
            for name in ("m", "api", "web"):
                (self._place / name).unlink(missing_ok=True)
            run = self.node.run
            ends = (
                (self._place / "api", f"{run}/control/api.sock"),
                (self._place / "web", f"{run}/edge/front/http.sock"),
            )
            forwards = [word for here, there in ends for word in ("-L", f"{here}:{there}")]
            options = ("-N", "-o", "ControlMaster=yes", "-o", f"ControlPath={self._master}", *forwards)
            with tempfile.TemporaryFile() as said:
                self._process = subprocess.Popen(
                    self._argv(*options),
                    env=_ENVIRONMENT,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    start_new_session=True,
                    cwd="/",
                )
                until = time.monotonic() + _OPEN_SECONDS
                while not self.is_open():
                    if self._process.poll() is not None or time.monotonic() > until:
                        self._reap()
                        said.seek(0)
                        raise self._why(said.read().decode("utf-8", "replace"))
                    time.sleep(0.02)
            # The directory above lets nobody through but control and the edge.
            (self._place / "web").chmod(0o666)

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
            "LogLevel": "ERROR",
        }
        words = [word for name, value in fixed.items() for word in ("-o", f"{name}={value}")]
        target = ("-p", str(self.node.port), "-l", self.node.user, "--", self.node.host)
        # sshd hands a command to the user's shell: quoted, it is the argument vector again (POSIX sh).
        return [_SSH, "-F", "none", "-T", *words, *options, *target, *([shlex.join(command)] if command else [])]

    def _why(self, said: str) -> AlveoleError:
        last = said.strip().splitlines()[-1][:300] if said.strip() else "no answer in time"
        where = f"{self.node.user}@{self.node.host}:{self.node.port}"
        if "Host key verification failed" in said or "REMOTE HOST IDENTIFICATION" in said:
            return Refused(
                f"{where} shows another host key than the one that was confirmed",
                field="fingerprint",
                hint="somebody may stand between; if the machine was made anew: alveole node remove, then add",
            )
        if "Permission denied" in said:
            return Denied(
                f"{where} does not let this machine in", field="host", hint="add its key there: alveole node key"
            )
        return Wall(f"{where} cannot be reached: {last}", field="node", hint="see: alveole node check")

    def run(self, command: Sequence[str], *, stdin: bytes = b"", seconds: float = 60.0) -> str:
        """What a program there prints. Raises :class:`Wall` with its last words when it fails."""
        try:
            done = subprocess.run(
                self._argv(command=command),
                env=_ENVIRONMENT,
                input=stdin,
                capture_output=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Wall(f"{command[0]} on {self.node.name} took more than {seconds:.0f} s", field="node") from None
        if done.returncode == 255:
            raise self._why(done.stderr.decode("utf-8", "replace"))
        if done.returncode != 0:
            words = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise InvalidInput(
                f"{command[0]} on {self.node.name} ended with {done.returncode}: {words[-1][:300] if words else ''}",
                field="node",
            )
        return done.stdout.decode("utf-8", "replace")

    def close(self) -> None:
        """End the process, and take its sockets away."""
        with self._lock:
            if self.is_open():
                argv = [_SSH, "-F", "none", "-o", f"ControlPath={self._master}", "-O", "exit", "--", self.node.host]
                with contextlib.suppress(OSError, subprocess.SubprocessError):
                    subprocess.run(
                        argv, env=_ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False
                    )
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
