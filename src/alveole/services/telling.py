"""Telling people what ended: a persisted outbox, and threads that empty it.

A message is stored in the transaction that ends the change, so it is there exactly when the change has ended, whatever
is killed. It is told until the receiver has taken it, with growing pauses, for a day. A receiver is told once, unless
control is killed between its answer and the commit: then it gets the same message again, under the same id.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, unquote

import msgspec
import sqlalchemy as sa

from alveole import notices, outgoing
from alveole.config import Settings
from alveole.errors import AlveoleError, Refused, StepFailed
from alveole.failpoints import hit
from alveole.incidents import news
from alveole.model.change import Change
from alveole.notices import Kind, MailServer, Message
from alveole.people.directory import Directory
from alveole.people.model import Held, Near
from alveole.people.rights import Right, may
from alveole.store import Store, Transaction, new_id, tables
from alveole.ticker import Ticker

log = logging.getLogger("alveole.telling")
#: Waits between attempts, in seconds; the last one again and again.
PAUSES = (10.0, 60.0, 300.0, 1800.0, 3600.0)
GIVE_UP_SECONDS = 86_400.0
#: Beyond it a channel that cannot be reached drops what is new.
WAITING_MOST = 500
#: How long it is remembered that a message was told.
TOLD_SECONDS = 7 * 86_400.0
_AT_ONCE = 4
_PATIENCE = 15.0
_TICK_SECONDS = 2.0
WAITING, TOLD, FAILED = "waiting", "told", "failed"


class Channel(msgspec.Struct, frozen=True):
    """``whom``: the id of a person, a team or a site."""

    id: str
    whom: str
    name: str
    kind: Kind
    to: str
    events: tuple[str, ...]
    secret: str
    created_at: float


class Telling:
    """Safe from several threads."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        people: Directory,
        ticker: Ticker,
        server: Callable[[], MailServer | None],
    ) -> None:
        self._settings = settings
        self._store = store
        self._people = people
        self._ticker = ticker
        self._server = server
        self._under_way: set[str] = set()
        """Channels that are being told something."""
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="telling")
        self.channels: Mapping[str, Channel] = MappingProxyType({})

    def load(self) -> None:
        """Read the channels anew; after each change of them."""
        with self._store.read() as connection:
            rows = connection.execute(sa.select(tables.channels)).all()
        found = {row.id: _channel(row) for row in rows}
        self.channels = MappingProxyType(found)

    def start(self) -> None:
        self._ticker.add("outbox", _TICK_SECONDS, self._look)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    # --- storing ------------------------------------------------------------------------------
    def ended(self, transaction: Transaction, change: Change) -> None:
        """Put what is to be told of ``change`` into the outbox, in the transaction that ends it."""
        told = [each for each in self.channels.values() if each.kind is not Kind.FEED and self.concerns(each, change)]
        if not told:
            return
        message = notices.message_of(change)
        for channel in told:
            self.put(transaction, channel, change.id, message)

    def put(self, transaction: Transaction, channel: Channel, key: str, message: Message) -> None:
        """Put one message into the outbox. What a channel was told under the same ``key`` it is not told again."""
        table = tables.outbox
        waiting = sa.select(sa.func.count()).where(table.c.channel_id == channel.id, table.c.state == WAITING)
        if transaction.connection.execute(waiting).scalar_one() >= WAITING_MOST:
            log.warning("channel %s has %d messages waiting: one is dropped", channel.id, WAITING_MOST)
            return
        now = time.time()
        text = msgspec.json.encode(message).decode()
        row: dict[str, Any] = {"id": new_id("m"), "channel_id": channel.id, "change_id": key, "message": text}
        row |= {"created_at": now, "next_at": now, "attempts": 0, "state": WAITING, "problem": ""}
        transaction.connection.execute(sa.insert(table).prefix_with("OR IGNORE").values(**row))
        transaction.effects.append(lambda: self._ticker.poke("outbox"))

    def concerns(self, channel: Channel, change: Change) -> bool:
        """Whether the channel is for such news, and whoever it belongs to may look at that change now."""
        if not notices.wanted(change, channel.events):
            return False
        if channel.whom == change.site_id:
            return True
        held = self._people.held_by_id(change.site_id, change.actor_key)
        if channel.whom in self._people.teams:
            return channel.whom == held.owner or held.shares.get(channel.whom, Near.FOREIGN) >= Near.LOOK
        return self._may_look(channel, held)

    def _may_look(self, channel: Channel, held: Held) -> bool:
        person = self._people.persons.get(channel.whom)
        if person is None or not person.active:
            return False
        return may(self._people.actor(person, "notification"), Right.CHANGE_LOOK, held)

    # --- telling ------------------------------------------------------------------------------
    def _look(self) -> None:
        now = time.time()
        table = tables.outbox
        # The oldest of each channel: what it is told comes in order, and one that is slow holds up itself alone.
        place = sa.func.row_number().over(
            partition_by=table.c.channel_id, order_by=(table.c.created_at, sa.text("rowid"))
        )
        # What is put off for longer than any pause was so by a clock that was ahead.
        turn = sa.or_(table.c.next_at <= now, table.c.next_at > now + 2 * PAUSES[-1])
        due = sa.select(table.c.id, place.label("place")).where(table.c.state == WAITING, turn)
        found = due.subquery()
        query = sa.select(table).join(found, table.c.id == found.c.id).where(found.c.place == 1)
        with self._store.read() as connection:
            rows = connection.execute(query.order_by(table.c.next_at)).all()
        for row in rows:
            with self._lock:
                if row.channel_id in self._under_way:
                    continue
                self._under_way.add(row.channel_id)
            with contextlib.suppress(RuntimeError):
                self._pool.submit(self._one, row)

    def _one(self, row: Any) -> None:
        problem = ""
        try:
            if not self._waits(row.id):
                # It was told between the look that found it and now: only who has taken it up may tell it.
                return
            channel = self.channels.get(row.channel_id)
            problem = "the channel is gone"
            if channel is not None:
                try:
                    self.tell(channel, msgspec.json.decode(row.message, type=Message), row.id)
                    problem = ""
                except (AlveoleError, OSError, ValueError) as error:
                    problem = _words(error)
                hit("telling.told")
            self._note(row, channel, problem)
        except Exception:
            log.exception("telling failed by a fault of ours")
        finally:
            with self._lock:
                self._under_way.discard(row.channel_id)
            if not problem:
                self._ticker.poke("outbox")

    def _waits(self, id: str) -> bool:
        table = tables.outbox
        with self._store.read() as connection:
            return connection.execute(sa.select(table.c.state).where(table.c.id == id)).scalar() == WAITING

    def _note(self, row: Any, channel: Channel | None, problem: str) -> None:
        table = tables.outbox
        now = time.time()
        attempts = row.attempts + 1
        values: dict[str, object] = {"attempts": attempts, "problem": problem[:500]}
        if not problem:
            values["state"] = TOLD
        elif channel is None or now - row.created_at > GIVE_UP_SECONDS:
            values["state"] = FAILED
        else:
            values["next_at"] = now + PAUSES[min(attempts, len(PAUSES)) - 1]
        with self._store.write() as transaction:
            transaction.connection.execute(sa.update(table).where(table.c.id == row.id).values(**values))
            old = sa.and_(table.c.state != WAITING, table.c.created_at < now - TOLD_SECONDS)
            transaction.connection.execute(sa.delete(table).where(old))

    def tell(self, channel: Channel, message: Message, id: str) -> str:
        """One attempt. Gives what came. Raises ``AlveoleError``, ``OSError``, ``ValueError``."""
        if channel.kind is Kind.MAIL:
            return self._mail(channel, message, id)
        to, method = channel.to, "POST"
        if channel.kind is Kind.NTFY:
            title, text = notices.headline(message), notices.text(message, self._settings.pages)
            headers, body = news.ntfy(title, text, message.incident, channel.secret)
        elif channel.kind is Kind.MATRIX:
            # The server takes a message once under one transaction id (client-server API, "transaction identifiers").
            to, method = matrix_address(channel.to, id), "PUT"
            headers = {"content-type": "application/json", "authorization": f"Bearer {channel.secret}"}
            body = news.matrix(notices.headline(message), notices.text(message, self._settings.pages))
        else:
            body = msgspec.json.encode(message)
            headers = notices.signed(body, id, int(time.time()), channel.secret)
        status = outgoing.post(to, headers, body, self._settings.outgoing.inside_hosts, _PATIENCE, method)
        if not 200 <= status <= 299:
            raise StepFailed(f"the receiver answered {status}")
        return f"the receiver answered {status}"

    def _mail(self, channel: Channel, message: Message, id: str) -> str:
        import smtplib

        server = self._server()
        if server is None:
            raise Refused("no mail server is set up", hint="alveole notify mail set FILE")
        made = notices.mail(message, server.sender, channel.to, id, self._settings.pages)
        context = ssl.create_default_context(cadata=server.certificates or None)
        try:
            if server.tls == "tls":
                smtp: smtplib.SMTP = smtplib.SMTP_SSL(server.host, server.port, timeout=_PATIENCE, context=context)
            else:
                smtp = smtplib.SMTP(server.host, server.port, timeout=_PATIENCE)
            with smtp:
                if server.tls == "starttls":
                    smtp.starttls(context=context)
                if server.user:
                    smtp.login(server.user, server.password)
                smtp.send_message(made, server.sender, [channel.to])
        except smtplib.SMTPAuthenticationError:
            # Its text may hold what was sent.
            raise Refused(f"{server.host} does not take the user and password") from None
        except smtplib.SMTPException as error:
            raise StepFailed(f"{server.host}: {_words(error)}") from None
        return f"{server.host} took it"


def matrix_address(to: str, id: str) -> str:
    """Where a message is put for a room that is said as ``https://HOST/!ROOM:SERVER``."""
    server, _, room = to.rpartition("/")
    return f"{server}/_matrix/client/v3/rooms/{quote(unquote(room), safe='')}/send/m.room.message/{id}"


def _channel(row: Any) -> Channel:
    document = msgspec.json.decode(row.document)
    return Channel(
        row.id,
        row.whom,
        row.name,
        Kind(row.kind),
        document["to"],
        tuple(document["events"]),
        row.secret,
        row.created_at,
    )


def _words(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)[:500] or type(error).__name__
