"""The SSH door itself: a process and a user of its own, which shakes hands and carries bytes while somebody is there.

It decides nothing: who somebody is and what they may is control's word (``porter``). Forwarding of ports, agents and
X11 is not there. Host keys are made once and stay, so that a client knows the machine again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncssh
import msgspec
import uvloop

from alveole import wholefile
from alveole.agent.wire import Wire
from alveole.config import Settings
from alveole.errors import AlveoleError, Refused, Temporary
from alveole.ssh.channel import Visitor, connect
from alveole.ssh.door import HOST_KEYS
from alveole.ssh.words import Code, Hello, Key, Password, Proof, Standing

log = logging.getLogger("alveole.ssh")
_standings: msgspec.json.Decoder[Standing] = msgspec.json.Decoder(Standing)
#: What a client may sign with: those of alveole.people.sshkeys; RSA never with SHA-1 (RFC 8332).
_SIGNATURES = (
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
#: Proofs that may fail on one connection, as MaxAuthTries of sshd_config(5).
_TRIES = 6
#: Keys that a client may offer before it signs with one; agents hold many.
_OFFERS = 20
#: Sessions of one connection, as MaxSessions of sshd_config(5).
_SESSIONS = 10
#: What a client may send before the program behind has taken it, and the largest packet of it.
_WINDOW, _PACKET = 4 << 20, 1 << 17


def run_front(settings: Settings, listeners: Sequence[socket.socket], rest: float) -> None:
    """Serve who comes to ``listeners`` until SIGTERM or SIGINT, or nobody was there for ``rest`` seconds.

    The sockets stay open, and go on listening where somebody else holds them too. Raises ``AlveoleError``.
    """
    # asyncssh tells each packet's life; what matters is told here.
    logging.getLogger("asyncssh").setLevel(logging.WARNING)
    uvloop.run(_serve(settings, listeners, rest))


def host_keys(settings: Settings) -> list[asyncssh.SSHKey]:
    """Those of this machine, made when they are not there. Raises ``Refused``."""
    found = []
    for name, (kind, options) in HOST_KEYS.items():
        path = settings.ssh_keys / name
        try:
            if not path.exists():
                _make(path, kind, options)
            found.append(asyncssh.read_private_key(path))
        except (OSError, asyncssh.KeyImportError) as error:
            raise Refused(f"the host key {path} cannot be used: {error}", hint="restore it from a backup") from error
    return found


def _make(path: Path, kind: str, options: dict[str, Any]) -> None:
    key = asyncssh.generate_private_key(kind, comment="alveole", **options)
    wholefile.write(path, key.export_private_key("openssh"))
    # For whoever wants to publish or compare it.
    path.with_name(f"{path.name}.pub").write_bytes(key.export_public_key("openssh"))


async def _serve(settings: Settings, listeners: Sequence[socket.socket], rest: float) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    keys = await asyncio.to_thread(host_keys, settings)
    hall = Hall(settings)
    while not stop.is_set():
        acceptors = [await hall.listen(listener.dup(), keys) for listener in listeners]
        while not stop.is_set() and (left := hall.left(rest)) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), left)
        for acceptor in acceptors:
            acceptor.close()
        if not stop.is_set():
            # Who was taken in at the last moment has entered by now, and is served; who was not waits for the next.
            await asyncio.sleep(0.2)
            if not hall.guests:
                return
    hall.close()
    await asyncio.sleep(0.2)


class Hall:
    """Everybody who has a connection."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.guests: set[Guest] = set()
        self.addresses: Counter[str] = Counter()
        self._empty_since = time.monotonic()

    def left(self, rest: float) -> float:
        """How long it is at least until nobody has been here for ``rest`` seconds."""
        return rest if self.guests else self._empty_since + rest - time.monotonic()

    async def listen(self, listener: socket.socket, keys: list[asyncssh.SSHKey]) -> asyncssh.SSHAcceptor:
        return await asyncssh.create_server(
            lambda: Guest(self),
            sock=listener,
            server_host_keys=keys,
            server_version="Alveole",
            encoding=None,
            line_editor=False,
            login_timeout=self.settings.ssh.login_seconds,
            keepalive_interval=30,
            keepalive_count_max=4,
            compression_algs=["none"],
            signature_algs=_SIGNATURES,
            x509_trusted_certs=None,
            agent_forwarding=False,
            x11_forwarding=False,
            allow_scp=False,
            window=_WINDOW,
            max_pktsize=_PACKET,
        )

    def enter(self, guest: Guest) -> bool:
        most = self.settings.ssh.connections
        if len(self.guests) >= most or self.addresses[guest.address] >= max(1, most // 4):
            log.warning("%s is turned away: too many connections", guest.address)
            return False
        self.guests.add(guest)
        self.addresses[guest.address] += 1
        return True

    def leave(self, guest: Guest) -> None:
        if guest in self.guests:
            self.guests.discard(guest)
            self.addresses[guest.address] -= 1
            if not self.addresses[guest.address]:
                del self.addresses[guest.address]
            self._empty_since = time.monotonic()

    def close(self) -> None:
        for guest in list(self.guests):
            guest.send_away("the door is closed for a moment")


class Guest(asyncssh.SSHServer):
    """One connection. What control knows of it hangs on ``_wire``; its closing ends everything."""

    def __init__(self, hall: Hall) -> None:
        self._hall = hall
        self.address = ""
        self._conn: asyncssh.SSHServerConnection | None = None
        self._wire: Wire | None = None
        self._turn = asyncio.Lock()
        self._ticket: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._offered = ""
        self._failed = self._offers = 0
        self._needs = ""
        self._idle: asyncio.TimerHandle | None = None
        self._sessions: set[Visitor] = set()
        self._moved = -1

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._conn = conn
        self.address = str((conn.get_extra_info("peername") or ("",))[0]).removeprefix("::ffff:")
        if not self._hall.enter(self):
            conn.abort()
            return
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        self._hall.leave(self)
        if self._idle is not None:
            self._idle.cancel()
        if not self._ticket.done():
            self._ticket.cancel()
        if self._wire is not None:
            with contextlib.suppress(OSError):
                self._wire.socket.shutdown(2)
            if not self._turn.locked():
                self._wire.close()
                self._wire = None

    def _look(self) -> None:
        """End a connection over which nothing has come for long."""
        moved = sum(each.received + each.sent for each in self._sessions)
        if moved == self._moved:
            self.send_away("nothing was said for too long")
            return
        self._moved = moved
        self._idle = asyncio.get_running_loop().call_later(self._hall.settings.ssh.idle_seconds, self._look)

    def send_away(self, why: str) -> None:
        if self._conn is not None:
            self._conn.disconnect(asyncssh.DISC_BY_APPLICATION, why)

    # Who it is

    def begin_auth(self, username: str) -> bool:
        self._user = username
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def kbdint_auth_supported(self) -> bool:
        return True

    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        # The last one asked for is the one that has signed when auth_completed comes.
        self._offered = key.get_fingerprint("sha256")
        self._offers += 1
        if self._offers > _OFFERS:
            self.send_away("too many keys were offered")
            return False
        return (await self._ask(Key(self._offered))).good

    async def validate_password(self, username: str, password: str) -> bool:
        standing = await self._ask(Password(password))
        # With a second factor to come, only keyboard-interactive goes on.
        return self._note(standing) and bool(standing.ticket)

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Any:
        return "", "", "", [("Password: ", False)]

    async def validate_kbdint_response(self, username: str, responses: Sequence[str]) -> Any:
        if len(responses) != 1:
            return False
        if self._needs:
            self._needs = ""
            return self._note(await self._ask(Code(responses[0][:64])))
        standing = await self._ask(Password(responses[0]))
        if standing.good and not standing.ticket:
            self._needs = standing.needs
            return "", "", "", [("Code of the second factor: ", False)]
        return self._note(standing)

    def _note(self, standing: Standing) -> bool:
        if standing.good:
            if standing.ticket and not self._ticket.done():
                self._ticket.set_result(standing.ticket)
            return True
        self._failed += 1
        if self._failed >= _TRIES:
            self.send_away("too many failed attempts")
        return False

    async def auth_completed(self) -> None:
        if self._ticket.done():
            return
        standing = await self._ask(Key(self._offered, proven=True))
        if not self._note(standing) or not standing.ticket:
            self.send_away(standing.message or "nobody is signed in")

    async def _ask(self, proof: Proof) -> Standing:
        async with self._turn:
            try:
                return await asyncio.to_thread(self._exchange, proof)
            except (AlveoleError, OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
                log.warning("control could not say who %s is: %s", self.address, error)
                return Standing(False, message="Alvéole is being started anew: try again in a moment")

    def _exchange(self, proof: Proof) -> Standing:
        if self._wire is None:
            self._wire = connect(self._hall.settings)
            self._wire.send(Hello(self._user[:256], self.address[:64]))
        self._wire.send(proof)
        found = self._wire.receive(_standings)
        if found is None:
            raise Temporary("control went away")
        return found  # type: ignore[no-any-return]  # asyncssh's own word is Any

    # Sessions

    def session_requested(self) -> Any:
        if len([each for each in self._sessions if not each.over]) >= _SESSIONS:
            return False
        visitor = Visitor(self._hall.settings, self._entered)
        self._sessions.add(visitor)
        return visitor

    async def _entered(self) -> str:
        return await asyncio.wait_for(asyncio.shield(self._ticket), 10.0)
