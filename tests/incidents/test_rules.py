"""PURE: the grammar of rules, silences by the clock, what is known and what is not, and the arithmetic of promises."""

from __future__ import annotations

import time

import pytest
from incidentkit import FIGURES

from alveole.errors import InvalidInput
from alveole.incidents import promises, rules, silences
from alveole.incidents.model import AddSilence, Evidence, EvidenceLink, Reading, Rule, Severity, Silence
from alveole.incidents.news import Event, IncidentNews, headline, ntfy, text
from alveole.incidents.promises import BROKEN, KEPT, UNKNOWN, LedgerEntry
from alveole.incidents.signals import Signals, compiled

KNOWN = {figure.name: figure for figure in FIGURES}
DAY = 86_400.0


def wrong(text: str) -> set[str]:
    with pytest.raises(InvalidInput) as raised:
        rules.read(text, KNOWN)
    return {each.field for each in raised.value.problems}


def test_everything_that_is_wrong_with_a_rule_is_named_at_once() -> None:
    found = wrong(
        'on = "site.weather"\nabove = 3\nis = ["x"]\nfor = "soon"\nwell = "8d"\nseverity = "loud"\nwhat = 1\n'
        'tell = ["Bcc: x"]\nsites = ["a b"]\ncause = "A!"\ntitle = "\\u001b[2J"\nenabled = "yes"\n'
    )
    assert found == {
        "on",
        "above",
        "for",
        "well",
        "severity",
        "what",
        "tell",
        "sites",
        "cause",
        "title",
        "enabled",
    }
    assert wrong("") == {"on", "above"}
    assert wrong("on = [") == {"text"} and wrong("x" * 10_000) == {"text"}
    assert wrong('on = "site.mood"\nabove = 3') == {"above"}, "a word has no more and less"
    assert wrong('on = "site.heat"\nis = ["bad"]') == {"is"}
    assert wrong('on = "site.mood"\nis = ["sad", "bad"]') == {"is"}
    assert wrong('on = "platform.power"\nis = ["off"]\nsites = ["a"]\npromise = "x"\ntell = ["owner"]') == {
        "sites",
        "promise",
        "tell",
    }
    assert wrong('on = "site.mood"\nis = ["bad"]\ncovers = ["serving"]') == {"covers"}


def test_a_rule_says_itself_in_its_own_grammar() -> None:
    said = 'on = "site.heat"\nabove = 90.5\nfor = "5m"\nseverity = "info"\ntell = ["ana", "team:club"]\n'
    said += 'title = "é\\"\\\\x"\n'
    rule = rules.read(said, KNOWN)
    assert rules.read(rules.text(rule), KNOWN) == rule and rule.severity is Severity.INFO
    assert rules.condition(rule, KNOWN["site.heat"]) == "above 90.5 K"


def test_patterns() -> None:
    assert rules.fits((), "anything") and rules.fits(("edge/*",), "edge/edge") and not rules.fits(("edge/*",), "x")
    assert rules.fits(("!route/*",), "workload/0") and not rules.fits(("*", "!route/*"), "route/a")


def test_silences_by_the_clock() -> None:
    now = time.mktime((2026, 11, 21, 23, 30, 0, 0, 0, -1))  # a Saturday
    asked = AddSilence(why="weekend", length="6h", weekly="sat, sunday 22:00")
    weekly = silences.read(asked, "q1", "", "ana", now)
    assert silences.weekly_words(weekly) == "sat sun 22:00 for 6 h"
    assert silences.active(weekly, now) and silences.active(weekly, now + 4 * 3600), "over midnight"
    assert not silences.active(weekly, now + 5 * 3600) and not silences.active(weekly, now - 2 * 3600)
    once = silences.read(AddSilence(why="work", length="2h"), "q2", "s1", "ana", now)
    assert silences.active(once, now) and not silences.active(once, now + 7200)
    assert silences.silent([once], "s1", ["x"], now) is once and silences.silent([once], "s2", ["x"], now) is None
    ruled = Silence(id="q3", rule="slow", begins_at=now, ends_at=now + 60)
    assert silences.silent([ruled], "s1", ["slow"], now) is ruled
    assert silences.silent([ruled], "s1", ["slow", "down"], now) is None, "not all of it is silent"
    with pytest.raises(InvalidInput) as raised:
        silences.read(AddSilence(why=" ", length="never", weekly="someday 25:00"), "q", "", "ana", now)
    assert [each.field for each in raised.value.problems] == ["length", "why", "weekly", "weekly"]


def test_unknown_is_not_well() -> None:
    rule = compiled("r", Rule(on="site.mood", words=("bad",), hold="10s", promise="mood"), None)
    signals, names = Signals(), {"s1": "blog"}
    bad = {"site.mood": [Reading("s1", "bad", "a")]}
    key = ("r", "s1", "a")
    assert key in signals.look([rule], bad, names, 100.0).waiting
    seen = signals.look([rule], {}, names, 105.0)
    assert not seen.is_well(key), "the figure is not known at all"
    seen = signals.look([rule], {"site.mood": [Reading("s1", None)]}, names, 108.0)
    assert not seen.is_well(key) and seen.promised["mood"].known == set(), "nothing of the site is known"
    assert key in signals.look([rule], bad, names, 111.0).firing, "and it goes on from when it began"
    assert signals.look([rule], {"site.mood": []}, names, 112.0).is_well(key)
    gone = signals.look([rule], bad, {}, 113.0)
    assert gone.is_well(key), "a site that is gone is not bad any more"


def test_the_arithmetic_of_promises() -> None:
    begin = 20_000 * DAY + 0.75 * DAY
    entry = LedgerEntry(KEPT, begin, begin)
    share = promises.share(entry, begin + 2 * DAY)
    assert share.kept == share.known == pytest.approx(2 * DAY)
    broken = promises.counted(entry, begin + 2 * DAY)
    assert sorted(broken.days) == [20_000, 20_001, 20_002] and broken.days[20_000][0] == pytest.approx(0.25 * DAY)
    broken = LedgerEntry(BROKEN, begin + 2 * DAY, begin + 2 * DAY, broken.days)
    share = promises.share(broken, begin + 3 * DAY)
    assert (share.kept / share.known) == pytest.approx(2 / 3)
    unknown = LedgerEntry(UNKNOWN, begin, begin, promises.counted(broken, begin + 3 * DAY).days)
    assert promises.share(unknown, begin + 9 * DAY) == share, "what nobody looked at counts for nothing"
    later = promises.share(entry, begin + 400 * DAY)
    assert 30 * DAY <= later.known <= 31 * DAY and len(promises.counted(entry, begin + 400 * DAY).days) == 31


def test_how_it_is_said() -> None:
    news = IncidentNews("i1", Event.OPENED, "Déjà \x1b[2Jvu", Severity.CRITICAL, 1.0, 2.0, broken=("a\r\nBcc: x",))
    assert "\x1b" not in headline(news, "blog") and headline(news, "blog").startswith("blog: Déjà ")
    assert "\x1b" not in text(news, "blog") and "\nBcc" not in text(news, "blog")
    head, body = ntfy(headline(news, "blog"), "é" * 5000, news, "secret")
    assert head["title"].startswith("=?UTF-8?B?") and head["priority"] == "5" and head["tags"] == "rotating_light"
    assert len(body) <= 4000 and body.decode(), "never cut within a character"
    assert head["authorization"] == "Bearer secret"
    evidence = Evidence(links=(EvidenceLink(name="edge", ok=False, asked="x", came="y", cure="z"),))
    from alveole.incidents.news import cure_of, why_lines

    assert why_lines(evidence) == ("BROKEN  edge: x: y",) and cure_of(evidence) == "z"
