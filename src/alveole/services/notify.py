"""The verbs about notifications: channels, the mail server, the feed."""

from __future__ import annotations

import hmac
import re
import time
from typing import Any
from urllib.parse import urlsplit

import msgspec
import sqlalchemy as sa
from msgspec import UNSET

from alveole import notices, outgoing
from alveole.errors import AlveoleError, Denied, InvalidInput, NotFound, Problem, Refused
from alveole.masking import HIDDEN
from alveole.model.change import ChangeState
from alveole.notices import (
    BY_ADDRESS,
    TRIAL,
    USUAL,
    ChannelView,
    Kind,
    MailServer,
    Message,
    MessageView,
    News,
    ToldView,
)
from alveole.people import passwords
from alveole.people.model import NOBODYS, Actor, Role
from alveole.people.rights import Right, may
from alveole.requests.channels import AddChannel, SetChannel
from alveole.scenarios.model import NAME
from alveole.services.outside import OutsideVerbs, converted
from alveole.services.telling import WAITING, Channel, Telling
from alveole.store import new_id, tables

CHANNELS_MAX = 20
_ROOM = re.compile(r"/(?:!|%21)[^/]+(?::|%3[Aa])[^/]+\Z")
FEED_LENGTH = 50
MESSAGES_SHOWN = 20


class NotifyVerbs(OutsideVerbs):
    telling: Telling

    # --- channels -----------------------------------------------------------------------------
    def list_channels(self, caller: Actor) -> tuple[ChannelView, ...]:
        """One's own, those of one's teams and of the sites one may change; an administrator sees all."""
        self._allow(caller, Right.SELF_NOTIFY)
        there = (self.people.persons, self.people.teams, self.store.sites)
        found = [each for each in self.telling.channels.values() if any(each.whom in kept for kept in there)]
        found = [each for each in found if self._may_keep(caller, each.whom)]
        return tuple(self._channel_view(each) for each in sorted(found, key=lambda each: (each.whom, each.name)))

    def add_channel(self, caller: Actor, request: AddChannel) -> ChannelView:
        """The secret is in the answer, and nowhere else any more."""
        self._allow(caller, Right.SELF_NOTIFY)
        whom = self._whom(caller, request.whom)
        to = self._checked(caller, whom, request)
        secret = passwords.secret("whsec_" if request.kind == Kind.WEBHOOK else "feed_")
        kept = {Kind.FEED: passwords.digest(secret), Kind.WEBHOOK: secret}.get(Kind(request.kind), request.token)
        document = {"to": to, "events": list(dict.fromkeys(request.events)) or [str(each) for each in USUAL]}
        row = {"id": new_id("n"), "whom": whom, "name": request.name, "kind": request.kind}
        row |= {"document": msgspec.json.encode(document).decode(), "secret": kept}
        table = tables.channels
        with self.store.write() as transaction:
            names = [each.name for each in self.telling.channels.values() if each.whom == whom]
            if request.name in names:
                raise Refused(f"there is a channel {request.name!r} already", field="name", hint="remove it first")
            if len(names) >= CHANNELS_MAX:
                raise Refused(f"at most {CHANNELS_MAX} channels each", field="name", hint="remove one first")
            transaction.connection.execute(sa.insert(table).values(**row, created_at=time.time()))
            transaction.effects.append(self.telling.load)
        self._note(caller, "add-channel", f"{request.kind} {request.name}")
        shown = {Kind.WEBHOOK: secret, Kind.FEED: f"/v1/feeds/{secret}"}.get(Kind(request.kind), "")
        return msgspec.structs.replace(self._channel_view(self.telling.channels[row["id"]]), secret=shown)

    def _checked(self, caller: Actor, whom: str, request: AddChannel) -> str:
        """Where the channel leads to. Raises ``InvalidInput`` with all that is wrong."""
        problems = []
        if not re.match(NAME, request.name):
            problems.append(Problem("name", f"{request.name[:80]!r} is not a name", "use a-z, 0-9 and '-'"))
        if request.kind not in list(Kind):
            problems.append(Problem("kind", f"{request.kind[:80]!r} is not {', '.join(Kind)}"))
        elif request.token and request.kind not in (Kind.NTFY, Kind.MATRIX):
            problems.append(Problem("token", "is only for ntfy and Matrix"))
        if len(request.token) > 1000 or not request.token.isascii() or not request.token.isprintable():
            problems.append(Problem("token", "is longer than 1,000 characters, or not of printable ASCII"))
        for event in request.events:
            if event not in list(News):
                problems.append(Problem("events", f"there is no kind {event[:80]!r} of news", ", ".join(News)))
        to = request.to
        if not problems and request.kind == Kind.MAIL:
            to, found = self._mail_address(caller, whom, request.to)
            problems += found
        elif not problems and request.kind in BY_ADDRESS:
            inside = self.settings.outgoing.inside_hosts
            try:
                host, port, _path, _secure = outgoing.check_url(to, inside)
                outgoing.addresses(host, port, inside)
            except Refused as error:
                problems += [msgspec.structs.replace(each, field="to") for each in error.problems]
            if request.kind == Kind.MATRIX and not _ROOM.match(urlsplit(to).path) and not problems:
                problems.append(Problem("to", "names no room", "https://HOST/!ROOM:SERVER"))
            if request.kind == Kind.NTFY and urlsplit(to).path.strip("/").count("/") and not problems:
                problems.append(Problem("to", "is no topic", "https://HOST/TOPIC"))
        elif request.kind == Kind.FEED and to:
            problems.append(Problem("to", "a feed is fetched, and sent nowhere"))
        if problems:
            raise InvalidInput(problems=problems)
        return to

    def set_channel(self, caller: Actor, channel: str, request: SetChannel) -> ChannelView:
        """Another name, another receiver, other news; its secret and what waits in it stay."""
        found = self._channel(caller, channel)
        if request == SetChannel():
            raise InvalidInput("nothing to change", hint="give at least one option")
        to = found.to if request.to is UNSET else request.to
        name = found.name if request.name is UNSET else request.name
        events = found.events if request.events is UNSET else request.events
        token = "" if request.token is UNSET else request.token
        wanted = AddChannel(name=name, kind=found.kind, to=to, events=events, token=token)
        to = self._checked(caller, found.whom, wanted)
        document = {"to": to, "events": list(dict.fromkeys(events)) or [str(each) for each in USUAL]}
        with self.store.write() as transaction:
            others = [
                each for each in self.telling.channels.values() if each.whom == found.whom and each.id != found.id
            ]
            if name in [each.name for each in others]:
                raise Refused(f"there is a channel {name!r} already", field="name", hint="choose another name")
            values = {"name": name, "document": msgspec.json.encode(document).decode()}
            if request.token is not UNSET:
                values["secret"] = token
            table = tables.channels
            transaction.connection.execute(sa.update(table).where(table.c.id == found.id).values(**values))
            transaction.effects.append(self.telling.load)
        self._note(caller, "set-channel", f"{found.kind} {name}")
        return self._channel_view(self.telling.channels[found.id])

    def list_messages(self, caller: Actor, channel: str) -> tuple[MessageView, ...]:
        """What was last to be told by a channel, newest first, and what came of it."""
        found = self._channel(caller, channel)
        table = tables.outbox
        query = sa.select(table).where(table.c.channel_id == found.id).order_by(table.c.created_at.desc())
        with self.store.read() as connection:
            rows = connection.execute(query.limit(MESSAGES_SHOWN)).all()
        told = []
        for row in rows:
            message = msgspec.json.decode(row.message, type=Message)
            told.append(
                MessageView(
                    id=row.id,
                    at=row.created_at,
                    verb=message.verb,
                    state=message.state,
                    site=message.site,
                    change=message.id,
                    told=row.state,
                    attempts=row.attempts,
                    next_at=row.next_at if row.state == WAITING else None,
                    problem=row.problem,
                )
            )
        return tuple(told)

    def drop_channel(self, caller: Actor, channel: str) -> None:
        """What still waits in it is not told any more."""
        found = self._channel(caller, channel)
        with self.store.write() as transaction:
            for table, column in ((tables.outbox, "channel_id"), (tables.channels, "id")):
                transaction.connection.execute(sa.delete(table).where(table.c[column] == found.id))
            transaction.effects.append(self.telling.load)
        self._note(caller, "remove-channel", f"{found.kind} {found.name}")

    def try_channel(self, caller: Actor, channel: str) -> ToldView:
        """Tell it something made up, now, once."""
        found = self._channel(caller, channel)
        if found.kind is Kind.FEED:
            return ToldView(ok=True, came="a feed is fetched: nothing was sent")
        now = time.time()
        message = Message(
            TRIAL, str(News.PLATFORM), TRIAL, "done", caller.name, reason=channel, started_at=now, ended_at=now
        )
        try:
            return ToldView(ok=True, came=self.telling.tell(found, message, new_id("m")))
        except (AlveoleError, OSError, ValueError) as error:
            return ToldView(ok=False, came=str(error)[:500])

    def _channel(self, caller: Actor, name: str) -> Channel:
        """By id, or by the name of one of the caller's own."""
        self._allow(caller, Right.SELF_NOTIFY)
        found = self.telling.channels.get(name)
        if found is None:
            own = [each for each in self.telling.channels.values() if each.name == name]
            own = [each for each in own if self._may_keep(caller, each.whom)]
            if len(own) > 1:
                raise Refused(f"several channels are called {name!r}", field="channel", hint="give the id")
            found = own[0] if own else None
        if found is None or not self._may_keep(caller, found.whom):
            raise NotFound(f"there is no channel {name!r}", field="channel", hint="see: alveole notify list")
        return found

    def _may_keep(self, caller: Actor, whom: str) -> bool:
        if may(caller, Right.ACCOUNT_CHANGE) or caller.is_one_of(whom):
            return True
        stored = self.store.sites.get(whom)
        return stored is not None and may(caller, Right.SITE_CHANGE, self.people.held(stored.site))

    def _whom(self, caller: Actor, wanted: str | None) -> str:
        if wanted is None:
            if not caller.person:
                hint = "a person, team:NAME or site:NAME"
                raise InvalidInput("is needed: whoever asks is nobody with an account", field="whom", hint=hint)
            return caller.person
        if wanted.startswith("site:"):
            return self._stored(caller, Right.SITE_CHANGE, wanted.removeprefix("site:")).site.id
        found = self.people.whom(wanted)
        if found is None or not self._may_keep(caller, found.id):
            if found is None and may(caller, Right.ACCOUNT_CHANGE):
                raise NotFound(f"there is no person or team {wanted!r}", field="whom", hint="see: alveole account list")
            # Who is here is not everybody's to know.
            raise Denied(f"{caller.name} may not add a channel for {wanted!r}", field="whom")
        return found.id

    def _mail_address(self, caller: Actor, whom: str, wanted: str) -> tuple[str, list[Problem]]:
        """Where mail goes: owners and readers have it sent to themselves and to those of their teams only."""
        person = self.people.persons.get(whom)
        own = person.email if person is not None else ""
        to = wanted or own
        if not notices.is_mail_address(to):
            what = "is no address of mail" if wanted else "the account has no address of mail"
            return "", [Problem("to", what, "alveole account set NAME --email ADDRESS")]
        known = {own} if person is not None else set()
        for id in (caller.person, *(member for team in caller.teams for member in self.people.teams[team].members)):
            if id in self.people.persons:
                known.add(self.people.persons[id].email)
        if caller.role not in (Role.ADMIN, Role.OPERATOR) and to not in known:
            return "", [Problem("to", "is nobody's of your teams", "ask an administrator")]
        return to, []

    def _channel_view(self, channel: Channel) -> ChannelView:
        table = tables.outbox
        with self.store.read() as connection:
            waiting = connection.execute(
                sa.select(sa.func.count()).where(table.c.channel_id == channel.id, table.c.state == WAITING)
            ).scalar_one()
            query = sa.select(table.c.problem).where(table.c.channel_id == channel.id, table.c.attempts > 0)
            problem = connection.execute(query.order_by(table.c.created_at.desc()).limit(1)).scalar()
        to = channel.to
        if channel.kind in BY_ADDRESS:
            parts = urlsplit(to)
            to = f"{parts.scheme}://{parts.netloc}/…"
        stored = self.store.sites.get(channel.whom)
        return ChannelView(
            id=channel.id,
            name=channel.name,
            kind=channel.kind,
            whom=f"site:{stored.site.name}" if stored is not None else self.people.shown(channel.whom),
            to=to,
            events=tuple(News(each) for each in channel.events),
            created_at=channel.created_at,
            waiting=waiting,
            problem=problem or "",
        )

    def hears_incidents(self) -> tuple[int, str]:
        """How many channels tell those who run the platform of incidents, and why nobody is told: ``channel`` or
        ``mail`` is missing; empty: somebody is."""
        found = []
        for channel in self.telling.channels.values():
            person = self.people.persons.get(channel.whom)
            runs = person is not None and person.active and person.role in (Role.ADMIN, Role.OPERATOR)
            if runs and channel.kind is not Kind.FEED and News.INCIDENT in channel.events:
                found.append(channel)
        if not found:
            return 0, "channel"
        if all(each.kind is Kind.MAIL for each in found) and self._setting("mail", MailServer) is None:
            return 0, "mail"
        return len(found), ""

    # --- the feed -----------------------------------------------------------------------------
    def feed(self, secret: str) -> bytes:
        """An Atom document for whoever has its address. Raises ``NotFound``."""
        wanted = passwords.digest(secret)
        feeds = (each for each in self.telling.channels.values() if each.kind is Kind.FEED)
        channel = next((each for each in feeds if hmac.compare_digest(each.secret, wanted)), None)
        if channel is None:
            raise NotFound("there is no such feed")
        person = self.people.persons.get(channel.whom)
        of = None
        site = channel.whom if channel.whom in self.store.sites else None
        if person is not None:
            actor = self.people.actor(person, "feed")
            if not may(actor, Right.CHANGE_LOOK, NOBODYS):
                of = ([each.site.id for each in self._visible(actor)], person.id)
        found = self.journal.list(site=site, of=of, limit=500)
        ended = (each for each in found if each.state in (ChangeState.DONE, ChangeState.FAILED))
        shown = [notices.message_of(each) for each in ended if self.telling.concerns(channel, each)]
        return notices.feed(f"Alvéole: {self._channel_view(channel).whom}", channel.id, shown[:FEED_LENGTH])

    # --- the mail server ----------------------------------------------------------------------
    def show_mail(self, caller: Actor) -> MailServer:
        """The password is hidden. ``NotFound`` when there is none."""
        self._allow(caller, Right.SETTINGS_CHANGE)
        found = self._setting("mail", MailServer)
        if found is None:
            raise NotFound("no mail server is set up", field="mail", hint="alveole notify mail set FILE")
        return msgspec.structs.replace(found, password=HIDDEN if found.password else "")

    def set_mail(self, caller: Actor, raw: dict[str, Any]) -> MailServer:
        """``***`` for the password keeps the one that is there."""
        self._allow(caller, Right.SETTINGS_CHANGE)
        missing = [Problem(name, "is missing") for name in ("host", "sender") if name not in raw]
        if missing:
            raise InvalidInput(problems=missing)
        server = converted(raw, MailServer)
        if server.password == HIDDEN:
            old = self._setting("mail", MailServer)
            server = msgspec.structs.replace(server, password=old.password if old else "")
        if problems := server.check():
            raise InvalidInput(problems=problems)
        self._put_setting("mail", server)
        self._note(caller, "set-mail", server.host)
        return self.show_mail(caller)

    def drop_mail(self, caller: Actor) -> None:
        self._allow(caller, Right.SETTINGS_CHANGE)
        self.show_mail(caller)
        self._put_setting("mail", None)
        self._note(caller, "drop-mail", "")
