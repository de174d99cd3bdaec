"""PURE. How an incident is said: in a mail, to ntfy, in a room of Matrix, and as the JSON of a webhook."""

from __future__ import annotations

import base64
import datetime
import html
from enum import StrEnum

import msgspec

from alveole.incidents.model import Evidence, Severity
from alveole.text import clean

#: What the public server of ntfy takes as a message; a longer one becomes a file there.
NTFY_MAX = 4000
#: ntfy's priorities go from 1 to 5; 3 is what has none.
_PRIORITY = {Severity.INFO: 2, Severity.WARNING: 4, Severity.CRITICAL: 5}
_TAGS = {Severity.INFO: "information_source", Severity.WARNING: "warning", Severity.CRITICAL: "rotating_light"}
_LINES_MAX = 40


class Event(StrEnum):
    OPENED = "opened"
    REOPENED = "reopened"
    ESCALATED = "escalated"
    CLOSED = "closed"


class IncidentNews(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a message about an incident holds. Times in seconds since the epoch."""

    id: str
    event: Event
    title: str
    severity: Severity
    began_at: float
    opened_at: float
    closed_at: float = 0.0
    broken: tuple[str, ...] = ()
    """What is wrong, one line each."""
    sites: tuple[str, ...] = ()
    """Of an incident of the platform those that are part of it, as far as the receiver may look at them."""
    before: tuple[str, ...] = ()
    """What changed just before, newest first."""
    why: tuple[str, ...] = ()
    """Each link from the name to the application: ``ok`` or ``BROKEN``, what was asked, what came."""
    cure: str = ""
    closed_by: str = ""
    address: str = ""
    """Of its page; empty where there are no pages."""


def why_lines(evidence: Evidence | None) -> tuple[str, ...]:
    if evidence is None:
        return ()
    if evidence.problem:
        return (evidence.problem,)
    found = [
        f"{'ok' if each.ok else 'BROKEN'}  {each.name}{f' on {each.machine}' if each.machine else ''}: "
        f"{each.asked}: {each.came}"
        for each in evidence.links
    ]
    return tuple(line[:400] for line in (*found, *(f"waits  {each}" for each in evidence.waiting)))[:_LINES_MAX]


def cure_of(evidence: Evidence | None) -> str:
    links = evidence.links if evidence is not None else ()
    return next((each.cure for each in links if not each.ok and each.cure), "")


def before_lines(evidence: Evidence | None) -> tuple[str, ...]:
    return tuple(
        f"{moment(each.at)}  {each.verb} by {each.actor}: {each.state}"
        + (f" ({each.reason[:120]})" if each.reason else "")
        + f"  [{each.change}]"
        for each in (evidence.before if evidence is not None else ())
    )


def headline(news: IncidentNews, site: str) -> str:
    """One line, like ``blog: The site does not run``."""
    where = f"{site}: " if site else ""
    begins = {Event.CLOSED: "Over: ", Event.ESCALATED: "Nobody has acknowledged: ", Event.REOPENED: "Again: "}
    return clean(f"{begins.get(news.event, '')}{where}{news.title}")


def text(news: IncidentNews, site: str) -> str:
    """A few lines for people, without anything that a terminal or a mail's head would obey."""
    parts = [f"{headline(news, site)} ({news.severity})", ""]
    parts += [f"- {clean(each)}" for each in news.broken]
    parts += [f"Since: {moment(news.began_at)}"]
    if news.closed_at:
        by = f" by {clean(news.closed_by)}" if news.closed_by else ""
        parts.append(f"Over: {moment(news.closed_at)}{by}")
    for title, lines in (("Sites", news.sites), ("Changed just before", news.before), ("Why", news.why)):
        if lines:
            parts += ["", f"{title}:", *(f"  {clean(each)}" for each in lines)]
    if news.cure and news.event is not Event.CLOSED:
        parts += ["", f"Cure: {clean(news.cure)}"]
    parts += ["", f"Incident: {news.id} (alveole incident show {news.id})"]
    if news.address:
        parts.append(news.address)
    return "\n".join(parts) + "\n"


def ntfy(title: str, body: str, news: IncidentNews | None, token: str) -> tuple[dict[str, str], bytes]:
    """Head and body of what is published to a topic of ntfy (docs.ntfy.sh/publish). Its title may be RFC 2047."""
    head = {"content-type": "text/plain; charset=utf-8", "title": _header(title[:200])}
    if news is not None:
        closed = news.event is Event.CLOSED
        head["priority"] = str(3 if closed else _PRIORITY[news.severity])
        head["tags"] = "white_check_mark" if closed else _TAGS[news.severity]
        if news.address:
            head["click"] = news.address
    if token:
        head["authorization"] = f"Bearer {token}"
    return head, body.encode("utf-8")[:NTFY_MAX].decode("utf-8", "ignore").encode()


def matrix(title: str, body: str) -> bytes:
    """An event ``m.room.message`` (Matrix client-server API, ``m.text``)."""
    shown = f"<strong>{html.escape(title)}</strong><pre>{html.escape(body)}</pre>"
    document = {
        "msgtype": "m.text",
        "body": f"{title}\n\n{body}",
        "format": "org.matrix.custom.html",
        "formatted_body": shown,
    }
    return msgspec.json.encode(document)


def _header(value: str) -> str:
    if value.isascii():
        return value
    return f"=?UTF-8?B?{base64.b64encode(value.encode()).decode()}?="


def moment(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
