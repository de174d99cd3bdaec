"""The root process's door: who may call, what a call becomes, what comes back.

One thread a connection, one request a connection. Only root and control's user are let in (the
kernel says who they are); what they say is decoded field by field before anything looks at it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from alveole.agent.protocol import Done, Exec, Failed, Kill, Request, Resize, Said, Started, Visit, Watch
from alveole.agent.wire import Wire
from alveole.backends.base import Say, Session
from alveole.errors import AlveoleError, InvalidInput, Problem, Refused, Temporary

log = logging.getLogger("alveole.agent")
_requests: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_signals: msgspec.json.Decoder[Resize | Kill] = msgspec.json.Decoder(Resize | Kill)
#: Bounds the threads that a caller gone mad could start.
MAX_CONNECTIONS = 256
#: Programs started by ``Exec`` that may run at a time, in all and in one site. Each holds a connection for as
#: long as the site's owner likes, and the rest has to stay free for everybody's steps.
MAX_SESSIONS, MAX_SITE_SESSIONS = 128, 16
#: What a program may still do after its caller has gone (SIGHUP), before it is killed.
HANGUP_SECONDS = 5.0
#: A watcher that does not read for this long is let go; it looks at everything when it comes back.
WATCHER_SECONDS = 2.0
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)

#: ``handle(request, files, say)`` gives the result or raises ``AlveoleError``.
Handle = Callable[[Request, list[int], Say], Any]
#: ``start(request)`` starts a program inside a site.
Start = Callable[[Exec | Visit], Session]


class Server:
    """Serves ``handle`` and ``start`` on a Unix socket for root and the users in ``allowed``."""

    def __init__(self, path: Path, allowed: frozenset[int], handle: Handle, start: Start) -> None:
        self._path = path
        self._allowed = allowed | {0}
        self._handle = handle
        self._start = start
        self._room = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._watchers: set[Wire] = set()
        self._watchers_lock = threading.Lock()
        self._sessions: Counter[str] = Counter()
        self._sessions_lock = threading.Lock()
        self._listener: socket.socket | None = None

    def listen(self) -> None:
        """Bind; a socket file left by a dead agent is replaced. Raises ``Refused`` when one lives."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        listener.bind(str(temporary))
        # Everybody may knock; SO_PEERCRED decides. A file mode would be a second, weaker rule.
        temporary.chmod(0o666)
        listener.listen(128)
        temporary.rename(self._path)
        self._listener = listener

    def serve(self) -> None:
        """Accept until :meth:`close`."""
        listener = self._listener
        if listener is None:
            raise RuntimeError("listen() comes first")
        while True:
            try:
                connection, _address = listener.accept()
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    return
                log.warning("no connection can be taken: %s", error.strerror)
                time.sleep(0.2)
                continue
            self._room.acquire()
            try:
                threading.Thread(target=self._one, args=(connection,), daemon=True).start()
            except RuntimeError as error:
                log.warning("no connection can be served: %s", error)
                connection.close()
                self._room.release()

    def close(self) -> None:
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()

    def tell(self, scope: str) -> None:
        """Tell every watcher that something of ``scope`` has ended."""
        with self._watchers_lock:
            watchers = list(self._watchers)
        for wire in watchers:
            try:
                wire.send(Said(scope=scope))
            except OSError:
                with self._watchers_lock:
                    self._watchers.discard(wire)
                # It has to notice, or it would wait for news for ever.
                with contextlib.suppress(OSError):
                    wire.socket.shutdown(socket.SHUT_RDWR)

    def _one(self, connection: socket.socket) -> None:
        wire = Wire(connection)
        try:
            if self._peer(connection) in self._allowed:
                self._answer(wire)
            else:
                log.warning("a caller with uid %d was turned away", self._peer(connection))
        except (OSError, AlveoleError) as error:
            log.info("a caller went away: %s", error)
        finally:
            wire.close()
            self._room.release()

    @staticmethod
    def _peer(connection: socket.socket) -> int:
        data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", data)[1])

    def _answer(self, wire: Wire) -> None:
        try:
            request = wire.receive(_requests)
            if request is None:
                return
            if isinstance(request, Watch):
                self._watch(wire)
                return
            if isinstance(request, Exec | Visit):
                wire.send(Done(self._exec(wire, request)))
                return
            files = wire.take_files()

            def say(text: str, share: float | None = None) -> None:
                _say(wire, text, share)

            try:
                result = self._handle(request, files, say)
            finally:
                for fd in files:
                    os.close(fd)
            wire.send(Done(result))
        except AlveoleError as error:
            wire.send(Failed(error.code, error.problems))
        except msgspec.ValidationError as error:
            wire.send(Failed(InvalidInput.code, (Problem("request", str(error)),)))
        except BrokenPipeError:
            raise
        except Exception as error:
            log.exception("a request failed by a fault of ours")
            text = f"{type(error).__name__}: {error}"
            wire.send(Failed(Temporary.code, (Problem("", text, "see the agent's log"),)))

    def _watch(self, wire: Wire) -> None:
        # Whoever tells is the one thread that reaps: a caller that has stopped must not stop it too.
        whole = int(WATCHER_SECONDS)
        patience = struct.pack("@ll", whole, int((WATCHER_SECONDS - whole) * 1e6))
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
        with self._watchers_lock:
            self._watchers.add(wire)
        try:
            # Nothing more comes from a watcher; this returns when it closes.
            wire.receive(_signals)
        finally:
            with self._watchers_lock:
                self._watchers.discard(wire)

    def _exec(self, wire: Wire, request: Exec | Visit) -> Any:
        with self._one_session(request.site):
            session = self._start(request)
            ended = threading.Event()
            try:
                wire.send(Started(len(session.fds)), session.fds)
                threading.Thread(target=self._control, args=(wire, session, ended), daemon=True).start()
            except BaseException:
                session.kill(signal.SIGKILL)
                session.wait()
                raise
            finally:
                for fd in session.fds:
                    os.close(fd)
            try:
                return session.wait()
            finally:
                ended.set()

    @contextlib.contextmanager
    def _one_session(self, site: str) -> Iterator[None]:
        with self._sessions_lock:
            if self._sessions[site] >= MAX_SITE_SESSIONS or self._sessions.total() >= MAX_SESSIONS:
                raise Refused("too many programs are open already", hint="end one of them first")
            self._sessions[site] += 1
        try:
            yield
        finally:
            with self._sessions_lock:
                self._sessions[site] -= 1
                if not self._sessions[site]:
                    del self._sessions[site]

    @staticmethod
    def _control(wire: Wire, session: Session, ended: threading.Event) -> None:
        with contextlib.suppress(OSError, AlveoleError, msgspec.DecodeError):
            while (order := wire.receive(_signals)) is not None:
                if isinstance(order, Resize):
                    session.resize(order.rows, order.columns)
                else:
                    session.kill(order.signal)
        # The caller is gone: what it started must not stay behind. A session that has ended ignores this.
        with contextlib.suppress(OSError):
            session.kill(signal.SIGHUP)
            if not ended.wait(HANGUP_SECONDS):
                session.kill(signal.SIGKILL)


def _say(wire: Wire, text: str, share: float | None) -> None:
    # Progress is a courtesy: the work goes on when nobody listens any more.
    with contextlib.suppress(OSError):
        wire.send(Said(text, share))
