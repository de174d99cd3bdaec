"""The process that sends lines to a syslog server and takes them in: ``alveole serve --role porter``.

It runs as the log user, in control's group, which may read all lines; it speaks with no other process of Alvéole. It
is only there when the settings name a server or a place to listen at. One event loop; what waits to be sent and what
one sender may have in memory are bounded, and what is lost is counted, told in its own log and in ``state.json``.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
import socket
import ssl
import time
from collections import deque
from pathlib import Path

import msgspec

from alveole.config import Settings
from alveole.errors import InvalidInput, Refused
from alveole.logbook import places, syslog
from alveole.logbook.follow import Tails
from alveole.logbook.model import OF_SITES, Entry, Source, Wanted
from alveole.logbook.places import Place
from alveole.logbook.settings import split_listener, split_server
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
#: A sender that is silent for so long is gone (seconds).
_IDLE_SECONDS = 3600.0
_BLOCK = 64 * 1024


class Sender:
    """Reads what comes into the files of lines and sends it on."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._wanted = settings.syslog_out
        self._tls, self._host, self._port = split_server(self._wanted.server)
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._news = asyncio.Event()
        self._tails: dict[str, Tails] = {}
        self._name = socket.gethostname()
        self.connected = False
        self.sent = 0
        self.lost = 0
        self.problem = ""

    def state(self) -> str:
        how = "connected" if self.connected else f"not connected: {self.problem or 'not yet'}"
        return f"{self._wanted.server}: {how}; {self.sent} sent, {len(self._waiting)} wait, {self.lost} lost"

    async def run(self) -> None:
        await asyncio.gather(self._read(), self._send())

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
        failed = told = 0
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
                if self.lost > told:
                    text = f"{self.lost - told} lines were lost while the syslog server was away"
                    log.warning("%s", text)
                    told = self.lost
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
        context = ssl.create_default_context(cafile=self._wanted.authority or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._wanted.certificate:
            context.load_cert_chain(self._wanted.certificate)
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
                await asyncio.wait({ended, news}, return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
                if ended.done():
                    raise ConnectionResetError("the connection was closed")
        finally:
            ended.cancel()


def _is_own(place: Place) -> bool:
    """What this process logs itself: a line about a line that cannot be sent would breed others."""
    return place.of == "porter"


class Listener:
    """Takes messages in and keeps them as lines of a site or of the machine."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._wanted = settings.syslog_in
        self._networks = [ipaddress.ip_network(each) for each in self._wanted.networks]
        self._writers: dict[str, Writer] = {}
        self._open = 0
        self.taken = 0
        self.refused = 0

    def state(self) -> str:
        return f"{self.taken} taken in, {self.refused} refused, {self._open} connections"

    async def start(self) -> list[asyncio.Server]:
        servers = []
        if self._wanted.tcp:
            host, port = split_listener(self._wanted.tcp)
            servers.append(await asyncio.start_server(self._serve, host, port, limit=_BLOCK))
        if self._wanted.tls:
            host, port = split_listener(self._wanted.tls)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(self._wanted.certificate)
            if self._wanted.authority:
                context.load_verify_locations(self._wanted.authority)
                context.verify_mode = ssl.CERT_REQUIRED
            servers.append(
                await asyncio.start_server(
                    self._serve, host, port, limit=_BLOCK, ssl=context, ssl_handshake_timeout=_CONNECT_SECONDS
                )
            )
        return servers

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = str((writer.get_extra_info("peername") or ("",))[0])
        self._open += 1
        try:
            if not self._allowed(peer) or self._open > self._wanted.connections:
                raise syslog.Refused("not one of the networks" if not self._allowed(peer) else "too many connections")
            frames = syslog.Frames()
            began, got = time.monotonic(), 0
            while block := await asyncio.wait_for(reader.read(_BLOCK), _IDLE_SECONDS):
                for raw in frames.feed(block):
                    self._keep(syslog.parse(raw))
                got += len(block)
                # Its sender waits: nothing is read before it is due.
                ahead = got / self._wanted.bytes_per_second - (time.monotonic() - began)
                if ahead > 0:
                    await asyncio.sleep(min(ahead, 5.0))
                elif ahead < -5.0:
                    began, got = time.monotonic(), 0
        except syslog.Refused as error:
            self.refused += 1
            log.warning("syslog of %s is refused: %s", peer, error)
        except (OSError, TimeoutError):
            pass
        finally:
            self._open -= 1
            writer.close()

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


async def _run(settings: Settings, stop: asyncio.Event) -> None:
    sender = Sender(settings) if settings.syslog_out.server else None
    listener = Listener(settings) if settings.syslog_in.tcp or settings.syslog_in.tls else None
    servers = await listener.start() if listener is not None else []
    tasks = [asyncio.ensure_future(sender.run())] if sender is not None else []
    stopped = asyncio.ensure_future(stop.wait())
    file = settings.logs / places.OWN / "porter" / "state.json"
    while not stopped.done():
        state = {"forward": sender.state() if sender else "", "received": listener.state() if listener else ""}
        _tell(file, state)
        await asyncio.wait({stopped, *tasks}, timeout=_STATE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
    for task in tasks:
        task.cancel()
    for server in servers:
        server.close()
    with contextlib.suppress(FileNotFoundError):
        file.unlink()


def _tell(file: Path, state: dict[str, str]) -> None:
    with contextlib.suppress(OSError):
        new = file.with_name("state.json.new")
        new.write_bytes(msgspec.json.encode(state))
        new.chmod(0o640)
        new.replace(file)


def run_porter(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises ``AlveoleError`` when it cannot."""
    if os.geteuid() == 0:
        raise Refused("the porter does not run as root", hint=f"start it as the user {settings.users.log}")
    if not settings.porter:
        raise InvalidInput("neither syslog_out.server nor syslog_in is set", field="syslog_out.server")

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await _run(settings, stop)

    try:
        asyncio.run(main())
    except OSError as error:
        raise Refused(f"syslog cannot be taken in: {error}", field="syslog_in") from error
