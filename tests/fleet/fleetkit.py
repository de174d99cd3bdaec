"""The two instances, and Debian's sshd with keys and a configuration of its own on a port of its own."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from types import TracebackType

from instance import Instance
from instancekit import descendants, free_ports, kill, run, until
from sshdkit import run_directory

SSHD = "/usr/sbin/sshd"
_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {place}/host_key
PidFile none
AuthorizedKeysFile {place}/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
LogLevel ERROR
AllowAgentForwarding no
AllowTcpForwarding yes
AllowStreamLocalForwarding yes
"""


#: Serves what is in a volume.
COMMAND = [
    "/usr/bin/python3",
    "-c",
    "import http.server,os;os.chdir('/data');http.server.HTTPServer(('',8000),http.server.SimpleHTTPRequestHandler)"
    ".serve_forever()",
]


#: Receivers of a test are on this machine; a round over the rules does not let it wait.
MORE = '[outgoing]\ninside_hosts = ["localhost"]\n[incidents]\nevery_seconds = 1.0\n'


class Far(Instance):
    """With a main domain of its own, so that the names which visitors use are not its sites' first names."""

    def settle_settings(self, **changed: str) -> None:
        super().settle_settings(**changed)
        self.config.write_text(self.config.read_text().replace('"localhost"', '"far.localhost"', 1))


class Pair:
    """``main`` drives ``far`` as the node ``far``; ``site(name)`` is asked of the main one."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.sshd: subprocess.Popen[bytes] | None = None
        self._has_run_directory = False

    def __enter__(self) -> Pair:
        with self._stack:
            self.main = self._stack.enter_context(Instance(split=True, ssh=True, more=MORE))
            self.far = self._stack.enter_context(Far(split=True, more=MORE))
            self._stack.callback(self.down)
            self.place = self.far.root / "sshd"
            self.place.mkdir(0o755)
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.place / "host_key")
            (self.port,) = free_ports(1)
            (self.place / "sshd_config").write_text(_CONFIG.format(port=self.port, place=self.place))
            self._stack_of_ends = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack_of_ends.__exit__(kind, error, trace)

    # --- the way there ----------------------------------------------------------------------------
    def up(self) -> None:
        if not self._has_run_directory:
            self._stack_of_ends.enter_context(run_directory())
            self._has_run_directory = True
        self.sshd = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", str(self.place / "sshd_config")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self.place / "log").open("ab"),
        )
        until(self._listens, 60, self._log)

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def _log(self) -> str:
        return (self.place / "log").read_text(errors="replace")[-2000:]

    def down(self) -> None:
        """As if the machine were cut off: sshd and every connection of it end at once."""
        if self.sshd is None:
            return
        kill(descendants([self.sshd.pid]))
        self.sshd.wait()
        self.sshd = None

    def let_in(self) -> None:
        """What an administrator does on the other machine: the line of ``alveole node key``."""
        line = self.main.cli("node", "key", "--json").json["ssh_key"]
        (self.place / "authorized_keys").write_text(line + "\n")

    def back(self) -> None:
        """As at the beginning, for the tests that add it: no node, nobody let in, no way there."""
        self.main.cli("node", "remove", "far")
        self.down()
        (self.place / "authorized_keys").unlink()

    @property
    def fingerprint(self) -> str:
        return run("ssh-keygen", "-l", "-f", self.place / "host_key.pub").stdout.split()[1]

    def add(self) -> None:
        self.main.cli(
            *("node", "add", f"root@127.0.0.1:{self.port}", "--name", "far", "--no-install"),
            *("--config", str(self.far.config), "--fingerprint", self.fingerprint),
        )
