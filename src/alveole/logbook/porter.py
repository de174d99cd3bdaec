"""The process that sends lines to a syslog server and takes them in: ``alveole serve --role porter``.

It runs as the log user, in control's group, which may read all lines; it speaks with no other process of Alvéole. What
it is to do stands in a file that control writes (:data:`~alveole.logbook.places.WANTED`) and keeps as it should be, so
that it is there only while there is something to do; it looks at that file and begins anew with what it says, or ends.
One event loop; what waits to be sent and what one sender may have in memory are bounded, and what is lost is counted,
told in its own log and in a file of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import os
import signal
import socket
import ssl
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

import msgspec

from alveole import wholefile
from alveole.config import Settings
from alveole.errors import AlveoleError, Refused
from alveole.logbook import places, syslog
from alveole.logbook.follow import Tails
from alveole.logbook.model import OF_SITES, Entry, Source, Wanted
from alveole.logbook.places import Place
from alveole.logbook.settings import Syslog, SyslogOut, split_listener, split_server
from alveole.logbook.tls import context_of
from alveole.logbook.writer import Writer

log = logging.getLogger("alveole.porter")
_POLL_SECONDS = 1.0
#: New sites are looked for this often (seconds).
_SITES_SECONDS = 10.0
_STATE_SECONDS = 2.0
#: A try to connect is followed by another one after these, in turn (seconds).
_AGAIN = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_CONNECT_SECONDS = 10.0
#: The server did not read for so long: the connection is made anew (seconds).
_STALLED_SECONDS = 30.0
#: A sender that is silent for so long is gone, and one that has not ended a message which it began (seconds).
_IDLE_SECONDS = 3600.0
_MESSAGE_SECONDS = 60.0
_BLOCK = 64 * 1024
#: Others come first: a storm of lines is to cost them nothing (nice(2)).
_NICE = 10


class Sender:
    """Reads what comes into the files of lines and sends it on."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._wanted = settings.syslog_out
        self._tls, self._host, self._port = split_server(self._wanted.server)
        self._told = 0
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._news = asyncio.Event()
        self._tails: dict[str, Tails] = {}
        self._name = socket.gethostname()
        self.connected = False
        self.sent = 0
        self.lost = 0
        self.problem = ""

    def does(self, wanted: SyslogOut) -> bool:
        """Whether it is the one for these settings; then it goes on with what waits, and where it read last."""
        return self._wanted == wanted

    def state(self) -> str:
        how = "connected" if self.connected else f"not connected: {self.problem or 'not yet'}"
        return f"{self._wanted.server}: {how}; {self.sent} sent, {len(self._waiting)} wait, {self.lost} lost"

    async def run(self) -> None:
        tasks = [asyncio.ensure_future(self._read()), asyncio.ensure_future(self._send())]
        try:
            await asyncio.gather(*tasks)
        finally:
            # gather() ends with the first that does, the other may be about to close its connection still.
            await _end(*tasks)

    async def _read(self) -> None:
        looked = float("-inf")
        while True:
            if time.monotonic() - looked > _SITES_SECONDS:
                looked = time.monotonic()
                self._find()
            for tails in list(self._tails.values()):
                for entry in tails.poll():
                    self._put(entry)
            await asyncio.sleep(_POLL_SECONDS)

    def _find(self) -> None:
        """Sites come and go; what was there before this process is not sent, what a new site says is."""
        logs = self._settings.logs
        sources = [Source(each) for each in self._wanted.sources]
        new = "" in self._tails
        if not new:
            self._tails[""] = Tails(
                [each for each in places.of_platform(logs, sources) if not _is_own(each)], Wanted(), str
            )
        of_sites = [each for each in sources if each in OF_SITES]
        there = places.sites(logs) if of_sites else set()
        for site in self._tails.keys() - there - {""}:
            del self._tails[site]
        for site in there - self._tails.keys():
            self._tails[site] = Tails(places.of_site(logs, site, of_sites), Wanted(), whole=new)

    def _put(self, entry: Entry) -> None:
        message = syslog.render(entry, self._name, self._wanted.facility)
        self._waiting.append(message)
        self._bytes += len(message)
        while self._bytes > self._wanted.buffer_bytes:
            self._bytes -= len(self._waiting.popleft())
            self.lost += 1
        self._news.set()

    async def _send(self) -> None:
        failed = 0
        while True:
            try:
                reader, writer = await asyncio.wait_for(self._connect(), _CONNECT_SECONDS)
            except (OSError, TimeoutError) as error:
                self.problem = str(error) or "no answer in time"
                if failed == 0:
                    log.warning("syslog cannot be sent to %s: %s", self._wanted.server, self.problem)
                await asyncio.sleep(_AGAIN[min(failed, len(_AGAIN) - 1)])
                failed += 1
                continue
            failed = 0
            self.connected, self.problem = True, ""
            log.info("syslog is sent to %s", self._wanted.server)
            try:
                if self.lost > self._told:
                    text = f"{self.lost - self._told} lines were lost while the syslog server was away"
                    log.warning("%s", text)
                    self._told = self.lost
                    entry = Entry("", Source.OWN, text, "warning", of="porter")
                    writer.write(syslog.render(entry, self._name, self._wanted.facility))
                await self._pour(reader, writer)
            except (OSError, TimeoutError) as error:
                self.problem = str(error) or "it does not read"
            finally:
                self.connected = False
                writer.close()
                with contextlib.suppress(OSError, TimeoutError):
                    await asyncio.wait_for(writer.wait_closed(), 5)
            log.warning("the syslog server %s has gone: %s", self._wanted.server, self.problem)
            await asyncio.sleep(_AGAIN[0])

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if not self._tls:
            return await asyncio.open_connection(self._host, self._port)
        context = context_of(server=False, authority=self._wanted.authority, certificate=self._wanted.certificate)
        return await asyncio.open_connection(self._host, self._port, ssl=context, server_hostname=self._host)

    async def _pour(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A syslog server says nothing: what can be read is the end of the connection.
        ended = asyncio.ensure_future(reader.read(1))
        try:
            while True:
                while self._waiting:
                    # It leaves the queue when it is with the kernel; a cut repeats some and loses what that held.
                    batch = [self._waiting[number] for number in range(min(64, len(self._waiting)))]
                    writer.write(b"".join(batch))
                    await asyncio.wait_for(writer.drain(), _STALLED_SECONDS)
                    for message in batch:
                        # The bound may have taken it from the front meanwhile.
                        if self._waiting and self._waiting[0] is message:
                            self._bytes -= len(self._waiting.popleft())
                    self.sent += len(batch)
                    if ended.done():
                        raise ConnectionResetError("the connection was closed")
                self._news.clear()
                news = asyncio.ensure_future(self._news.wait())
                try:
                    await asyncio.wait({ended, news}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    await _end(news)
                if ended.done():
                    raise ConnectionResetError("the connection was closed")
        finally:
            await _end(ended)


async def _end(*tasks: asyncio.Future[Any]) -> None:
    """Cancel them and wait until they have ended, so that none is left for the loop's end; what they raise is gone."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _is_own(place: Place) -> bool:
    """What this process logs itself: a line about a line that cannot be sent would breed others."""
    return place.of == "porter"


class _Guest:
    """One connection that lines come over."""

    def __init__(self, peer: str, task: asyncio.Task[None] | None) -> None:
        self.peer = peer
        self.task = task
        self.said = time.monotonic()
        """When it last ended a message, or came."""
        self.sent_away = False


class Listener:
    """Takes messages in and keeps them as lines of a site or of the machine."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._wanted = settings.syslog_in
        self._networks = [ipaddress.ip_network(each) for each in self._wanted.networks]
        self._writers: dict[str, Writer] = {}
        self._guests: list[_Guest] = []
        self._tls: ssl.SSLContext | None = None
        self._servers: list[asyncio.Server] = []
        self.taken = 0
        self.refused = 0
        self.problem = "it has not begun"

    def state(self) -> str:
        where = f"not listening: {self.problem}" if self.problem else "listening"
        lost = sum(each.lost for each in self._writers.values())
        told = f"{where}; {self.taken} taken in, {self.refused} refused, {len(self._guests)} connections"
        return told + (f", {lost} could not be written" if lost else "")

    async def run(self) -> None:
        """Listen; where that cannot be, it is tried again. What is sent does not wait for it."""
        failed = 0
        try:
            while self.problem:
                try:
                    await self._start()
                    self.problem = ""
                    log.info("syslog is taken in")
                except OSError as error:
                    await self._stop()
                    self.problem = _words(error)
                    if failed == 0:
                        log.warning("syslog cannot be taken in: %s", self.problem)
                    await asyncio.sleep(_AGAIN[min(failed, len(_AGAIN) - 1)])
                    failed += 1
            await asyncio.Event().wait()
        finally:
            await self._stop()
            for each in self._writers.values():
                each.close()

    async def _start(self) -> None:
        if self._wanted.tls:
            self._tls = context_of(server=True, authority=self._wanted.authority, certificate=self._wanted.certificate)
        for place, serve in ((self._wanted.tcp, self._serve_plain), (self._wanted.tls, self._serve_tls)):
            if place:
                host, port = split_listener(place)
                self._servers.append(await asyncio.start_server(serve, host, port, limit=_BLOCK))

    async def _stop(self) -> None:
        for server in self._servers:
            server.close()
        self._servers = []
        await _end(*(each.task for each in self._guests if each.task is not None))

    async def _serve_plain(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._serve(reader, writer, None)

    async def _serve_tls(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._serve(reader, writer, self._tls)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tls: ssl.SSLContext | None
    ) -> None:
        peer = str((writer.get_extra_info("peername") or ("",))[0])
        guest = _Guest(peer, asyncio.current_task())
        try:
            if not self._allowed(peer):
                raise syslog.Refused("not one of the networks")
            self._make_room(guest)
            self._guests.append(guest)
            if tls is not None:
                # Only here, so that nobody outside of the networks has us work out keys, and each counts.
                try:
                    await writer.start_tls(tls, ssl_handshake_timeout=_CONNECT_SECONDS)
                except ssl.SSLError as error:
                    raise syslog.Refused(f"TLS failed: {_of_tls(error)}") from None
            await self._listen(guest, reader)
        except syslog.Refused as error:
            self.refused += 1
            log.warning("syslog of %s is refused: %s", peer, error)
        except (OSError, TimeoutError):
            pass
        except asyncio.CancelledError:
            if not guest.sent_away:
                raise
            self.refused += 1
            log.warning("syslog of %s is refused: too many connections", peer)
        finally:
            with contextlib.suppress(ValueError):
                self._guests.remove(guest)
            writer.transport.abort()

    def _make_room(self, guest: _Guest) -> None:
        """Where all places are taken, who holds the most loses one: a flood ends at its own sender."""
        there = [each for each in self._guests if not each.sent_away]
        if len(there) < self._wanted.connections:
            return
        held = Counter(each.peer for each in [*there, guest])
        most = max(held.values())
        # Where it has as many as any other it is its own that goes.
        peer = guest.peer if held[guest.peer] == most else next(each for each in held if held[each] == most)
        theirs = [each for each in there if each.peer == peer]
        if not theirs:
            raise syslog.Refused("too many connections")
        stale = min(theirs, key=lambda each: each.said)
        stale.sent_away = True
        if stale.task is not None:
            stale.task.cancel()

    async def _listen(self, guest: _Guest, reader: asyncio.StreamReader) -> None:
        frames = syslog.Frames()
        began, got = time.monotonic(), 0
        while True:
            half = frames.waiting
            # Who drips a message is not better than who says nothing.
            patience = guest.said + _MESSAGE_SECONDS - time.monotonic() if half else _IDLE_SECONDS
            if patience <= 0:
                raise syslog.Refused("a message that was begun did not end")
            try:
                block = await asyncio.wait_for(reader.read(_BLOCK), patience)
            except TimeoutError:
                if half:
                    raise syslog.Refused("a message that was begun did not end") from None
                raise
            if not block:
                return
            if not half:
                guest.said = time.monotonic()
            found = frames.feed(block)
            for raw in found:
                self._keep(syslog.parse(raw))
            if found:
                guest.said = time.monotonic()
            got += len(block)
            # Its sender waits: nothing is read before it is due.
            ahead = got / self._wanted.bytes_per_second - (time.monotonic() - began)
            if ahead > 0:
                await asyncio.sleep(min(ahead, 5.0))
            elif ahead < -5.0:
                began, got = time.monotonic(), 0

    def _allowed(self, peer: str) -> bool:
        try:
            address = ipaddress.ip_address(peer.partition("%")[0])
        except ValueError:
            return False
        found = getattr(address, "ipv4_mapped", None) or address
        return any(found in each for each in self._networks)

    def _keep(self, message: syslog.Message) -> None:
        site = self._wanted.sites.get(message.host, "")
        where = site or places.HOST
        writer = self._writers.get(where)
        if writer is None:
            directory = self._settings.logs / places.IN / where
            with contextlib.suppress(OSError):
                directory.mkdir(mode=0o750, exist_ok=True)
                directory.chmod(0o2750)
            writer = self._writers[where] = Writer(directory)
        writer.write(message.level, f"{message.host}/{message.of}"[:64], message.text)
        self.taken += 1


async def _run(settings: Settings, stop: asyncio.Event, sender: Sender | None = None) -> None:
    """Send and take in what ``settings`` say, until ``stop``. ``sender``: one that did so before."""
    if sender is None and settings.syslog_out.server:
        sender = Sender(settings)
    listener = Listener(settings) if settings.syslog_in.tcp or settings.syslog_in.tls else None
    tasks = [asyncio.ensure_future(each.run()) for each in (sender, listener) if each is not None]
    stopped = asyncio.ensure_future(stop.wait())
    file = settings.logs / places.STATE
    try:
        while not stopped.done():
            state = {"forward": sender.state() if sender else "", "received": listener.state() if listener else ""}
            _tell(file, state)
            # What begins is told soon.
            pause = _STATE_SECONDS if listener is None or not listener.problem else _STATE_SECONDS / 10
            await asyncio.wait({stopped, *tasks}, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
    finally:
        await _end(stopped, *tasks)
        with contextlib.suppress(OSError):
            file.unlink()


def _tell(file: Path, state: dict[str, str]) -> None:
    with contextlib.suppress(OSError):
        wholefile.write(file, msgspec.json.encode(state), mode=0o640, synced=False)


def _of_tls(error: ssl.SSLError) -> str:
    """Why a sender's handshake failed, in words that say what is to be changed there."""
    reason = (error.reason or str(error)).replace("_", " ").lower()
    if "did not return a certificate" in reason:
        return "it shows no certificate, and one of the authority is wanted"
    if "certificate verify failed" in reason:
        return f"its certificate is not taken: {getattr(error, 'verify_message', '') or reason}"
    if "http request" in reason or "wrong version" in reason or "not ssl" in reason:
        return "it does not speak TLS"
    return reason[:200]


def _words(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the address is taken"
    return str(error)[:200] or type(error).__name__


def read_wanted(logs: Path) -> Syslog | None:
    """What control wants of the porter; ``None``: nothing. Raises ``AlveoleError`` when it is there and cannot be read:
    ending as if nothing were wanted, it would be started again at once."""
    try:
        found = msgspec.json.decode((logs / places.WANTED).read_bytes(), type=Syslog)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise AlveoleError(
            f"{logs / places.WANTED} cannot be read: {error}",
            hint="alveole syslog set writes it anew, and so does a restart of alveole-control",
        ) from None
    return found if found.wanted else None


async def _follow(settings: Settings, ended: asyncio.Event) -> None:
    """Do what the file says, anew whenever it says something else, until it is gone or ``ended``."""
    sender: Sender | None = None
    while not ended.is_set() and (wanted := read_wanted(settings.logs)) is not None:
        stop = asyncio.Event()
        now = msgspec.structs.replace(settings, syslog_out=wanted.syslog_out, syslog_in=wanted.syslog_in)
        # A site that is destroyed changes who may send; what waits to be sent is not lost by that.
        if sender is None or not sender.does(now.syslog_out):
            sender = Sender(now) if now.syslog_out.server else None
        work = asyncio.ensure_future(_run(now, stop, sender))
        waiting = asyncio.ensure_future(ended.wait())
        try:
            while not (ended.is_set() or work.done()) and read_wanted(settings.logs) == wanted:
                await asyncio.wait({work, waiting}, timeout=_POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            stop.set()
            await work
        finally:
            await _end(waiting, work)


def run_porter(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, or until nothing is wanted any more. Raises ``AlveoleError`` when it cannot."""
    if os.geteuid() == 0:
        raise Refused("the porter does not run as root", hint=f"start it as the user {settings.users.log}")
    # Under systemd the unit has said so, and it may not.
    with contextlib.suppress(PermissionError):
        os.nice(_NICE)

    async def main() -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ended.set)
        await _follow(settings, ended)

    if read_wanted(settings.logs) is None:
        log.info("no syslog is to be sent or taken in")
    asyncio.run(main())
