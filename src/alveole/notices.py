"""PURE. What is told of a change: which kind of news it is, and how a mail, a webhook and a feed say it.

A webhook is signed as Standard Webhooks describes (standardwebhooks.com): ``webhook-signature: v1,`` and the base64 of
HMAC-SHA256 over ``id.timestamp.body`` with the channel's secret, beside ``webhook-id`` and ``webhook-timestamp``.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from alveole.errors import Problem
from alveole.incidents import news
from alveole.incidents.news import IncidentNews
from alveole.model.change import Change, ChangeState
from alveole.text import clean
from alveole.views import View

if TYPE_CHECKING:
    from email.message import EmailMessage

_ATOM = "http://www.w3.org/2005/Atom"


class News(StrEnum):
    """Kinds of news that a channel may be for."""

    DEPLOY = "deploy"
    """New content or a new version is live, or could not be made so."""
    ROLLBACK = "rollback"
    CHECK = "check"
    """A scenario has begun to fail, or passes again."""
    REPAIR = "repair"
    """A promise that was broken was kept again, or could not be."""
    BACKUP = "backup"
    """A backup was made, given back or deleted."""
    SLEEP = "sleep"
    """A site fell asleep, or was woken."""
    SITE = "site"
    """Anything else about a site: created, started, stopped, configured, shared, destroyed."""
    PLATFORM = "platform"
    """What is about no one site: bases, accounts, modules."""
    FAILED = "failed"
    """Whatever failed, of any kind."""
    INCIDENT = "incident"
    """What is broken, as the rules say, and that it is over. What the rules tell of is not told as ``check`` and
    ``repair`` as well."""


#: Instead of a change's id: somebody tries a channel.
TRIAL = "test"
USUAL = (News.DEPLOY, News.ROLLBACK, News.CHECK, News.FAILED, News.INCIDENT)
#: What Alvéole does by itself, which the rules look at.
_WATCHED = frozenset({("check", "monitor"), ("repair", "reconciler")})
_OF_VERSIONS = frozenset({"deliver", "deploy", "rollback", "approve", "synchronise"})
_DEPLOYS = frozenset({"update", "publish", "deploy", "deliver"})
_ROLLBACKS = frozenset({"rollback", "roll-back", "rollback-bases"})


class Kind(StrEnum):
    MAIL = "mail"
    WEBHOOK = "webhook"
    FEED = "feed"
    NTFY = "ntfy"
    """Published to a topic of ntfy."""
    MATRIX = "matrix"
    """Said in a room of Matrix."""


#: Those that are told by a request to an address.
BY_ADDRESS = (Kind.WEBHOOK, Kind.NTFY, Kind.MATRIX)


class MailServer(msgspec.Struct, frozen=True):
    """The server that takes Alvéole's mail. The connection is always encrypted, but for one to this machine itself."""

    host: str
    sender: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65_535)] = 587
    tls: str = "starttls"
    """``starttls``, ``tls`` from the first byte on (port 465), or ``none`` for ``localhost`` only."""
    user: str = ""
    password: str = ""
    certificates: str = ""
    """Authorities to trust (PEM); empty: the machine's."""

    def check(self) -> tuple[Problem, ...]:
        problems = []
        if self.tls not in ("starttls", "tls", "none"):
            problems.append(Problem("tls", f"{self.tls!r} is not starttls, tls or none"))
        elif self.tls == "none" and self.host not in ("localhost", "127.0.0.1", "::1"):
            problems.append(Problem("tls", "mail goes over no network unencrypted", "use starttls or tls"))
        if not is_mail_address(self.sender):
            problems.append(Problem("sender", f"{self.sender[:80]!r} is no address of mail"))
        if not self.host or not self.host.isprintable() or " " in self.host:
            problems.append(Problem("host", "is no host"))
        problems += [
            Problem(field, "is not one line of printable text")
            for field in ("user", "password")
            if not getattr(self, field).isprintable()
        ]
        return tuple(problems)


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One piece of news. ``id`` is the change's, the same for every channel and every attempt."""

    id: str
    kind: str
    verb: str
    state: str
    actor: str
    site: str = ""
    site_id: str = ""
    reason: str = ""
    started_at: float = 0.0
    ended_at: float = 0.0
    problems: tuple[str, ...] = ()
    result: dict[str, str | int | float | None] = {}
    incident: IncidentNews | None = None


class MessageView(View, frozen=True, kw_only=True):
    """One message of a channel, and whether its receiver has taken it."""

    id: str
    at: float
    verb: str
    """What was done."""
    state: str
    """How that ended: ``done`` or ``failed``; of an incident ``opened``, ``escalated``, ``closed``…"""
    site: str
    change: str
    told: str
    """``waiting``, ``told``, or ``failed`` when it was given up."""
    attempts: int
    next_at: float | None = None
    """When it is tried again."""
    problem: str = ""
    """Of the last attempt."""


class ChannelView(View, frozen=True, kw_only=True):
    id: str
    name: str
    kind: Kind
    whom: str
    """``ana``, ``team:club`` or ``site:blog``."""
    to: str
    """The address of mail; of others scheme and host, for the rest may be a secret."""
    events: tuple[News, ...]
    created_at: float
    waiting: int = 0
    """Messages that are still to be told."""
    problem: str = ""
    """Why the last attempt failed."""
    secret: str = ""
    """Of a webhook what its signature is made with, of a feed its path; only when it is created."""


class ToldView(View, frozen=True, kw_only=True):
    """What came of a trial."""

    ok: bool
    came: str


def kind_of(change: Change) -> News:
    verb = change.verb
    if verb == "check":
        return News.CHECK
    if verb == "repair":
        return News.REPAIR
    if verb in _ROLLBACKS:
        return News.ROLLBACK
    if verb in _DEPLOYS:
        return News.DEPLOY
    if verb in ("sleep", "wake"):
        # Every visit may do it.
        return News.SLEEP
    if "backup" in verb or verb == "restore":
        return News.BACKUP
    return News.SITE if change.site_id is not None else News.PLATFORM


def wanted(change: Change, events: Iterable[str]) -> bool:
    """Whether a channel for ``events`` is told of ``change``."""
    kinds = set(events)
    if News.INCIDENT in kinds and (change.verb, change.actor) in _WATCHED:
        return False
    return kind_of(change) in kinds or (News.FAILED in kinds and change.state is ChangeState.FAILED)


def message_of(change: Change) -> Message:
    return Message(
        id=change.id,
        kind=str(kind_of(change)),
        verb=change.verb,
        state=str(change.state),
        actor=change.actor,
        site=change.site_name or "",
        site_id=change.site_id or "",
        reason=change.reason,
        started_at=change.started_at,
        ended_at=change.ended_at or 0.0,
        problems=tuple(str(problem)[:1000] for problem in change.problems[:20]),
        result=change.result,
    )


def headline(message: Message) -> str:
    """One line, like ``blog: update failed``."""
    if message.id == TRIAL:
        return clean(f"a trial of the channel {message.reason}")
    if message.incident is not None:
        return news.headline(message.incident, message.site)
    words = {"done": "done", "failed": "failed"}.get(message.state, message.state)
    if message.kind == News.CHECK:
        words = "fails" if message.state == "failed" else "passes again"
        return clean(f"{message.site}: check {message.result.get('check') or ''} {words}")
    version = message.result.get("version") if message.verb in _OF_VERSIONS else None
    done = f"{message.verb} {version}" if version else message.verb
    return clean(f"{message.site + ': ' if message.site else ''}{done} {words}")


def text(message: Message, pages: str = "") -> str:
    """A few lines for a mail or a feed; ``pages``: the address of the pages, where it has one."""
    if message.incident is not None:
        return news.text(message.incident, message.site)
    if message.id == TRIAL:
        return (
            clean(f"{message.actor} tried whether what Alvéole tells comes here. It does: there is nothing to do.")
            + "\n"
        )
    lines = [
        headline(message),
        "",
        *(f"- {clean(problem)}" for problem in message.problems),
        *([f"Reason: {clean(message.reason)}"] if message.reason else []),
        f"By: {clean(message.actor)}",
        f"Ended: {_when(message.ended_at)}",
        f"Change: {pages}/change/{message.id}"
        if pages and message.id != TRIAL
        else f"Change: {message.id} (alveole change show {message.id})",
    ]
    return "\n".join(lines) + "\n"


def mail(message: Message, sender: str, to: str, id: str, pages: str = "") -> EmailMessage:
    """``id``: the same at every attempt, so that a reader's mail server can tell a second one; ``pages`` as for
    :func:`text`."""
    from email.message import EmailMessage
    from email.policy import SMTP

    made = EmailMessage(policy=SMTP)
    made["From"] = sender
    made["To"] = to
    made["Subject"] = f"[Alvéole] {headline(message)}"[:200]
    made["Date"] = datetime.datetime.fromtimestamp(message.ended_at or 0, datetime.UTC)
    made["Message-ID"] = f"<{id}@{sender.rpartition('@')[2]}>"
    made["Auto-Submitted"] = "auto-generated"
    made.set_content(text(message, pages))
    return made


def signed(body: bytes, id: str, at: int, secret: str) -> dict[str, str]:
    """The headers of a webhook."""
    told = f"{id}.{at}.".encode() + body
    signature = base64.b64encode(hmac.new(secret.encode(), told, hashlib.sha256).digest()).decode()
    return {
        "content-type": "application/json",
        "webhook-id": id,
        "webhook-timestamp": str(at),
        "webhook-signature": f"v1,{signature}",
    }


def feed(title: str, id: str, messages: Iterable[Message]) -> bytes:
    """An Atom feed (RFC 4287), newest first."""
    from xml.etree import ElementTree

    def add(parent: Any, name: str, content: str = "", **attributes: str) -> Any:
        made = ElementTree.SubElement(parent, name, attributes)
        made.text = content or None
        return made

    found = list(messages)
    root: Any = ElementTree.Element("feed", xmlns=_ATOM)
    add(root, "title", clean(title))
    add(root, "id", f"urn:alveole:feed:{id}")
    add(root, "updated", _when(found[0].ended_at if found else 0.0))
    add(add(root, "author"), "name", "Alvéole")
    for message in found:
        entry = add(root, "entry")
        add(entry, "title", headline(message))
        add(entry, "id", f"urn:alveole:change:{message.id}")
        add(entry, "updated", _when(message.ended_at))
        add(entry, "content", text(message), type="text")
    made: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return made


def _when(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def is_mail_address(text: str) -> bool:
    """One plain address: no name beside it, no list, nothing that a header or SMTP would take for more."""
    local, at, domain = text.rpartition("@")
    plain = text.isascii() and text.isprintable() and len(text) <= 254 and not set(text) & set(' "<>()[],;:\\')
    return bool(plain and at and local and domain and "@" not in local and domain.strip(".-") == domain)
