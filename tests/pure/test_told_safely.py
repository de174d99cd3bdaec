"""Threat 31: what strangers and sites have written stays text wherever it is told: mail, ntfy, Matrix, feeds, syslog,
reports. Each form is read back by a reader of its own."""

from __future__ import annotations

import email
import email.policy
import html.parser
import json
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alveole import notices
from alveole.figures import paper
from alveole.figures.paper import Document, Grid, Heading, Paragraph
from alveole.incidents import news
from alveole.incidents.model import Severity
from alveole.incidents.news import Event, IncidentNews
from alveole.logbook import syslog
from alveole.logbook.model import Entry, Source
from alveole.notices import Message
from alveole.text import clean

#: Ends of lines and of everything else, orders for terminals, marks that turn text around, what XML has no place for.
NASTY = st.text(
    st.one_of(
        st.sampled_from(list("\r\n\0\t\x1b\x07\x9b\x7f\u202e\u2028\u2066\ufeff\uffff\ufffe<>&\"'\\]=+-@%{}:;,")),
        st.characters(exclude_categories=("Cs",)),
    ),
    max_size=60,
)
CONTROLS = {chr(code) for code in (*range(9), *range(10, 32), *range(127, 160), 0x202E, 0x2028, 0x2066, 0xFFFE, 0xFFFF)}


def incident(text: str) -> Message:
    told = IncidentNews(
        id="i1",
        event=Event.CLOSED,
        title=text,
        severity=Severity.CRITICAL,
        began_at=1.0,
        opened_at=1.0,
        closed_at=2.0,
        broken=(text,),
        sites=(text,),
        before=(text,),
        why=(text,),
        cure=text,
        closed_by=text,
    )
    return Message(id="i1", kind="incident", verb="x", state="x", actor=text, site=text, incident=told)


def change(text: str) -> Message:
    return Message(id="c1", kind="site", verb="update", state="failed", actor=text, reason=text, problems=(text,))


def lines_hold_no_order(text: str) -> None:
    assert not CONTROLS & set(text.replace("\n", "")), repr(text)


@given(NASTY)
def test_what_is_told_stays_text_in_every_form(text: str) -> None:
    for message in (incident(text), change(text)):
        title, body = notices.headline(message), notices.text(message)
        lines_hold_no_order(title)
        lines_hold_no_order(body)
        assert "\n" not in title
        head, sent = news.ntfy(title, body, message.incident, "token")
        # What stands in a head can end neither its line nor the head.
        assert all(value.isascii() and value.isprintable() for value in head.values()), head
        assert len(sent) <= news.NTFY_MAX and sent.decode()
        room = json.loads(news.matrix(title, body))
        assert tags_of(room["formatted_body"]) == ["strong", "pre"]
        raw = notices.mail(message, "alveole@school.test", "ana@school.test", "m1").as_bytes()
        mail: Any = email.message_from_bytes(raw, policy=email.policy.default)
        assert set(mail.keys()) == {
            *("From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted"),
            *("Content-Type", "Content-Transfer-Encoding", "MIME-Version"),
        }
        assert mail["To"] == "ana@school.test" and not mail.is_multipart()


@given(NASTY)
def test_a_feed_is_whole_whatever_a_change_says(text: str) -> None:
    root = ElementTree.fromstring(notices.feed(text, "f1", [change(text), incident(text)]))  # noqa: S314  made a line above
    names = {each.tag.rpartition("}")[2] for each in root.iter()}
    assert names == {"feed", "title", "id", "updated", "author", "name", "entry", "content"}


@given(NASTY)
def test_a_report_is_a_page_of_its_own_tags_and_a_whole_pdf(text: str) -> None:
    from alveole.figures.pdf import pdf

    grid = Grid(text, (text, text), ((text, text),), (0.5, 0.5))
    made = Document("en", text, text, (Heading(text), Paragraph(text), grid))
    plain = Document("en", "x", "x", (Heading("x"), Paragraph("x"), Grid("x", ("x", "x"), (("x", "x"),), (0.5, 0.5))))
    if text:
        assert tags_of(paper.html(made).decode()) == tags_of(paper.html(plain).decode())
    raw = pdf(made)
    assert raw.startswith(b"%PDF-") and raw.count(b"%%EOF") == 1 and b"/JavaScript" not in raw


@given(NASTY, NASTY)
def test_a_line_to_syslog_is_one_message(text: str, of: str) -> None:
    entry = Entry(at="2026-11-22T04:00:00.000000Z", source=Source.OUT, of=of, level="info", text=clean(text), site=text)
    (raw,) = syslog.Frames().feed(syslog.render(entry, "host", 1))
    read = syslog.parse(raw)
    assert read.host == "host" and read.text == clean(text)[:16_384]


@pytest.mark.parametrize("mark", ["\ufffe", "\uffff", "\ud800", "\udfff", "\u202e", "\x85", "\x1b[2J"])
def test_marks_that_are_no_text_are_taken_out(mark: str) -> None:
    assert clean(f"a{mark}b") == "ab"


class _Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)


def tags_of(text: str) -> list[str]:
    reader = _Tags()
    reader.feed(text)
    return reader.found


def test_what_is_told_of_a_deploy_names_the_version_and_leads_to_the_change() -> None:
    message = notices.Message(
        id="c1", kind="deploy", verb="deploy", state="failed", actor="ana", site="shop-prod", result={"version": "2.6"}
    )
    assert notices.headline(message) == "shop-prod: deploy 2.6 failed"
    assert "https://panel.school.test/change/c1" in notices.text(message, "https://panel.school.test")
    assert "alveole change show c1" in notices.text(message), "where the pages have no name"
    tried = msgspec.structs.replace(message, id=notices.TRIAL)
    assert "https" not in notices.text(tried, "https://panel.school.test"), "it leads nowhere"
