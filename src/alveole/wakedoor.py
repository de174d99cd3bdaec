"""Where the edge asks for a site to be woken, or whether a visitor may see a past day, while the request waits there.

A line in, a line out: ``wake SITE`` (its id), then ``awake``, or ``later SECONDS`` where it could not be done. The
edge takes requests of strangers, so it may ask for little, and not for much of it: a site is woken once however
many ask, a few at a time, so many a minute, and the others are told to come again (threat: visits of a thousand
sites that sleep must not start them all). One thread listens; those that wake are there only while there is work.

``ticket DAY SECRET`` and ``pass DAY SECRET`` are answered with ``yes`` and what belongs to it, or ``no``
(:meth:`alveole.services.pastdays.PastVerbs.admit_to_past_day`); a few at a time too, and what is too much is ``no``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import re
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from alveole.config import Settings
from alveole.services.sleep import Woken

log = logging.getLogger("alveole.wake")
_LINE = re.compile(rb"wake (s[a-z0-9]{1,40})\r?\n\Z")
_ASKED = re.compile(rb"(ticket|pass) (s[a-z0-9]{1,40}) ([A-Za-z0-9_-]{20,100})\r?\n\Z")
_LINE_MAX = 160
_BACKLOG = 512
#: Told where there is no turn at the moment (seconds).
_BUSY_SECONDS = 5
#: Visitors of past days that are looked at at a time, and that may wait for it.
_LOOKERS, _LOOKED_AT_MOST = 4, 200
#: Word, past day, secret: what the edge is told; empty: not let in.
Admit = Callable[[str, str, str], str]


class Waker(Protocol):
    """What is asked of the services."""

    def sleeps(self, site_id: str) -> bool: ...
    def wake(
        self, site_id: str, by: str = ..., seconds: float = ..., routed: Callable[[], None] | None = ...
    ) -> Woken: ...


class WakeDoor:
    def __init__(self, settings: Settings, waker: Waker, admit: Admit = lambda _word, _day, _secret: "") -> None:
        self._path = settings.wake_socket
        self._limits = settings.sleep
        self._waker = waker
        self._admit = admit
        self._lookers: ThreadPoolExecutor | None = None
        self._looked_at = 0
        self._allowed = {0, os.geteuid()}
        with contextlib.suppress(KeyError):
            self._allowed.add(pwd.getpwnam(settings.users.edge).pw_uid)
        self._lock = threading.Lock()
        self._waiting: dict[str, list[socket.socket]] = {}
        self._queue: deque[str] = deque()
        self._at_work = 0
        self._turns = float(self._limits.queue)
        """How many may be woken now; see :meth:`_take_turn`."""
        self._turns_at = time.monotonic()
        self._listener: socket.socket | None = None
        self._stop_read, self._stop_write = socket.socketpair()
        self._thread = threading.Thread(target=self._listen, name="wake", daemon=True)

    def start(self) -> None:
        """Listen. Raises ``OSError``."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        listener.bind(str(self._path))
        # Everybody may knock; who it is decides.
        self._path.chmod(0o666)
        listener.listen(_BACKLOG)
        self._listener = listener
        self._thread.start()

    def close(self) -> None:
        """Let everybody go who waits; what is being woken goes on by itself."""
        if self._listener is None:
            return
        self._stop_write.send(b".")
        self._thread.join(timeout=10)
        self._listener.close()
        self._listener = None
        with self._lock:
            waiting, self._waiting = self._waiting, {}
            self._queue.clear()
        for links in waiting.values():
            for link in links:
                _tell(link, Woken(False, _BUSY_SECONDS))
        if self._lookers is not None:
            self._lookers.shutdown(cancel_futures=True)

    # --- listening ----------------------------------------------------------------------------
    def _listen(self) -> None:
        listener = self._listener
        if listener is None:
            return
        with selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            selector.register(self._stop_read, selectors.EVENT_READ)
            while True:
                for key, _events in selector.select():
                    if key.fileobj is self._stop_read:
                        return
                    if key.fileobj is listener:
                        self._accept(listener, selector)
                    elif isinstance(key.fileobj, socket.socket):
                        selector.unregister(key.fileobj)
                        self._read(key.fileobj)

    def _accept(self, listener: socket.socket, selector: selectors.BaseSelector) -> None:
        try:
            link, _address = listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            log.warning("nobody can be let in: %s", error)
            time.sleep(0.1)
            return
        data = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        if struct.unpack("3i", data)[1] not in self._allowed or len(selector.get_map()) > self._limits.waiting:
            link.close()
            return
        link.setblocking(False)
        selector.register(link, selectors.EVENT_READ)

    def _read(self, link: socket.socket) -> None:
        try:
            # The edge sends it in one piece, and a Unix socket keeps it so.
            line = link.recv(_LINE_MAX)
        except OSError:
            line = b""
        if (visitor := _ASKED.match(line)) is not None:
            self._look_at(link, *(each.decode() for each in visitor.groups()))
            return
        asked = _LINE.match(line)
        if asked is None:
            link.close()
            return
        refused = self._take(asked[1].decode(), link)
        if refused is not None:
            _tell(link, refused)

    # --- past days ----------------------------------------------------------------------------
    def _look_at(self, link: socket.socket, word: str, day: str, secret: str) -> None:
        """In a thread of its own: the database is asked, and perhaps elsewhere whether a person is still there."""
        with self._lock:
            busy = self._looked_at >= _LOOKED_AT_MOST
            self._looked_at += not busy
        if busy:
            _say(link, "no")
            return
        if self._lookers is None:
            self._lookers = ThreadPoolExecutor(_LOOKERS, thread_name_prefix="past-day")
        self._lookers.submit(self._answer, link, word, day, secret)

    def _answer(self, link: socket.socket, word: str, day: str, secret: str) -> None:
        told = ""
        try:
            told = self._admit(word, day, secret)
        except Exception as error:
            # Whatever it is: nobody comes in by it.
            log.warning("a visitor of the past day %s could not be looked at: %s", day, error)
        finally:
            with self._lock:
                self._looked_at -= 1
            _say(link, f"yes {told}" if told else "no")

    def _take(self, site: str, link: socket.socket) -> Woken | None:
        """Let ``link`` wait for ``site``; what it is told at once otherwise."""
        with self._lock:
            at_work = site in self._waiting
        if not at_work and not self._waker.sleeps(site):
            # Awake since the edge looked, or none that is ever woken: the link says which.
            return Woken(True)
        with self._lock:
            there = self._waiting.get(site)
            if (
                sum(map(len, self._waiting.values())) >= self._limits.waiting
                or len(there or ()) >= self._limits.waiting_site
                or (there is None and not self._take_turn())
            ):
                return Woken(False, _BUSY_SECONDS)
            if there is not None:
                there.append(link)
                return None
            self._waiting[site] = [link]
            self._queue.append(site)
            if self._at_work < self._limits.parallel:
                self._at_work += 1
                threading.Thread(target=self._work, name="waking", daemon=True).start()
        return None

    def _take_turn(self) -> bool:
        """Whether one site more may be woken: a burst as long as the queue, then so many a minute."""
        now = time.monotonic()
        more = (now - self._turns_at) * self._limits.a_minute / 60
        self._turns = min(float(self._limits.queue), self._turns + more)
        self._turns_at = now
        if self._turns < 1 or len(self._queue) >= self._limits.queue:
            return False
        self._turns -= 1
        return True

    # --- waking -------------------------------------------------------------------------------
    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._at_work -= 1
                    return
                site = self._queue.popleft()
                if all(map(_is_gone, self._waiting.get(site, ()))):
                    for link in self._waiting.pop(site, ()):
                        link.close()
                    continue
            told = threading.Event()

            def awake(site: str = site, told: threading.Event = told) -> None:
                # Whoever asks from now on begins anew.
                self._tell_all(site, Woken(True))
                told.set()

            try:
                woken = self._waker.wake(site, seconds=self._limits.wait_seconds, routed=awake)
            except Exception as error:
                # Whatever it is, those who wait are told.
                log.warning("%s could not be woken: %s", site, error)
                woken = Woken(False, _BUSY_SECONDS)
            if not told.is_set():
                self._tell_all(site, woken)

    def _tell_all(self, site: str, woken: Woken) -> None:
        with self._lock:
            links = self._waiting.pop(site, [])
        for link in links:
            _tell(link, woken)


def _tell(link: socket.socket, woken: Woken) -> None:
    with contextlib.suppress(OSError), link:
        link.send(b"awake\n" if woken.awake else b"later %d\n" % woken.later)


def _say(link: socket.socket, text: str) -> None:
    with contextlib.suppress(OSError), link:
        link.send(f"{text}\n".encode())


def _is_gone(link: socket.socket) -> bool:
    """Whether the other end has hung up."""
    try:
        return link.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
