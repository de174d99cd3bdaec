"""PURE. The grammar of a rule, and the rules that are there from the beginning.

A rule is a TOML document of a few words::

    on = "site.disk-share"
    above = 90
    for = "5m"
    severity = "warning"
    tell = ["owner"]

Everything that is wrong with one is named at once. The levels of the built-in rules: a certificate is renewed a month
before its end by every authority's own client, so 21 days say that renewing has failed for a week (issue of 90 days,
Let's Encrypt's integration guide); a disk with less than 5 % left is where ext4 keeps its last blocks for root
(mke2fs(8), reserved-blocks-percentage); the others leave somebody the time that the sentence of the rule asks for.
"""

from __future__ import annotations

import fnmatch
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from alveole.errors import InvalidInput, Problem
from alveole.incidents.model import About, Figure, Rule, Severity
from alveole.scenarios.model import NAME, seconds

TEXT_MAX = 8 * 1024
SECONDS_MAX = 7 * 86_400.0
OWNER, OPERATORS, ADMINISTRATORS = "owner", "operators", "administrators"
_WHOM = re.compile(r"(?:team:)?[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?\Z")
_WORDS = {field.encode_name: field for field in msgspec.structs.fields(Rule)}
_PATTERN = re.compile(r"!?[A-Za-z0-9*?._:@/-]{1,200}\Z")
SERVING = "serving"

BUILT_IN: Mapping[str, Rule] = {
    # --- of the platform ------------------------------------------------------------------------
    "agent-away": Rule(
        on="platform.agent", title="The agent does not answer", words=("away",), hold="30s",
        severity=Severity.CRITICAL, cause="platform", covers=(SERVING,), escalate="15m", escalate_to=(ADMINISTRATORS,),
    ),
    "edge-broken": Rule(
        on="platform.promise", title="Proxy, network or firewall is broken", words=("broken", "pending"), hold="30s",
        items=("edge/*", "network/*", "firewall/*", "panel/*"),
        severity=Severity.CRITICAL, cause="platform", covers=(SERVING,), escalate="15m", escalate_to=(ADMINISTRATORS,),
    ),
    "many-sites": Rule(
        on="platform.failing-share", title="Many sites are broken at once", above=30, hold="20s",
        severity=Severity.CRITICAL, cause="platform", covers=(SERVING,), escalate="15m", escalate_to=(ADMINISTRATORS,),
    ),
    "database-damaged": Rule(
        on="platform.database", title="Rows of the database are damaged", words=("damaged",),
        severity=Severity.CRITICAL, escalate="15m", escalate_to=(ADMINISTRATORS,),
    ),
    "journal-damaged": Rule(
        on="platform.journal", title="The journal is not what was written", words=("damaged",),
        severity=Severity.CRITICAL, escalate="15m", escalate_to=(ADMINISTRATORS,),
    ),
    "disk-full": Rule(
        on="platform.disk-free", title="The state disk is full", below=5, hold="30s", well="5m",
        severity=Severity.CRITICAL, cause="disk", covers=(SERVING, "disk"), escalate="15m",
        escalate_to=(ADMINISTRATORS,),
    ),
    "disk-low": Rule(
        on="platform.disk-free", title="The state disk fills up", below=15, hold="10m", well="10m", cause="disk",
    ),
    "memory-low": Rule(
        on="platform.memory-share", title="The machine's memory is nearly used up", above=95, hold="5m", well="10m",
    ),
    "addresses-low": Rule(
        on="platform.addresses-left", title="Addresses for sites run out", below=10, hold="1m", well="10m",
    ),
    "platform-certificate": Rule(
        on="platform.certificate-days", title="A certificate of the platform ends soon", below=21, hold="10m",
        severity=Severity.CRITICAL,
    ),
    "node-away": Rule(
        on="platform.node", title="A machine cannot be reached", words=("away",), hold="2m",
        severity=Severity.CRITICAL, escalate="15m", escalate_to=(ADMINISTRATORS,),
    ),
    # --- of each site ---------------------------------------------------------------------------
    "site-down": Rule(
        on="site.state", title="The site does not run", words=("failed",), hold="30s", severity=Severity.CRITICAL,
        cause=SERVING, promise="content", escalate="30m",
    ),
    "site-not-starting": Rule(
        on="site.state", title="The site does not get ready", words=("starting",), hold="10m",
        severity=Severity.CRITICAL, cause=SERVING, escalate="30m",
    ),
    "site-broken": Rule(
        on="site.promise", title="A part of the site is broken", words=("broken",), hold="60s",
        cause=SERVING, promise="content", escalate="1h",
    ),
    "check-failing": Rule(
        on="site.check", title="A check of the site fails", words=("failing",), severity=Severity.CRITICAL,
        well="0s", cause=SERVING, promise="content", escalate="30m",
    ),
    "verification-failed": Rule(
        on="site.verification", title="A new version did not hold and was taken back", words=("failed",), well="0s",
    ),
    "slow": Rule(
        on="site.check-seconds", title="The site answers slowly", above=10, hold="10m", well="10m", promise="answer",
    ),
    "errors": Rule(
        on="site.failed-share", title="Many answers of the site fail", above=20, hold="1m", well="5m",
        tell=(OWNER, OPERATORS), severity=Severity.CRITICAL, cause=SERVING,
    ),
    "slow-answers": Rule(
        on="site.answer-ms", title="Visitors wait long for the site", above=5000, hold="10m", well="10m",
    ),
    "no-answers": Rule(
        on="site.answer-half-ms", title="Visitors get no answer in time", above=5000, hold="5m", well="5m",
        cause="slow-answers", escalate="30m",
    ),
    "certificate": Rule(
        on="site.certificate-days", title="A certificate of the site ends soon", below=21, hold="10m",
        promise="certificate", tell=(OWNER, OPERATORS), escalate="1d",
    ),
    "backup-old": Rule(
        on="site.backup-hours", title="The newest backup is old", above=50, hold="10m", promise="backup",
        tell=(OWNER, OPERATORS),
    ),
    "log-errors": Rule(
        on="site.log-errors", title="The site prints many errors", above=100, hold="5m", well="10m",
        severity=Severity.INFO,
    ),
    "backup-failed": Rule(
        on="site.backup", title="The last backup failed", words=("failed",), well="0s", tell=(OWNER, OPERATORS),
    ),
    "backup-unproved": Rule(
        on="site.proof", title="The newest backup cannot be proved", words=("failed",), well="0s",
        tell=(OWNER, OPERATORS), severity=Severity.CRITICAL, escalate="1d",
    ),
    "site-memory": Rule(
        on="site.memory-share", title="The site's memory is nearly used up", above=95, hold="10m", well="10m",
        promise="memory",
    ),
    "site-disk": Rule(
        on="site.disk-share", title="The site's disk is nearly full", above=90, hold="5m", well="10m",
        cause="disk", promise="disk",
    ),
}  # fmt: skip # a rule in two or three lines, to be read as a table


def read(text: str, figures: Mapping[str, Figure]) -> Rule:
    """The rule that ``text`` says. Raises ``InvalidInput`` that names everything that is wrong."""
    if len(text.encode("utf-8", "surrogatepass")) > TEXT_MAX:
        raise InvalidInput(f"is longer than {TEXT_MAX} bytes", field="text")
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"is not TOML: {error}", field="text") from error
    return of(raw, figures)


def of(raw: Mapping[str, Any], figures: Mapping[str, Figure]) -> Rule:
    """The rule of these words. Raises ``InvalidInput`` that names everything that is wrong."""
    problems = [
        Problem(name, "is not a word of a rule", f"words: {', '.join(_WORDS)}") for name in raw if name not in _WORDS
    ]
    values: dict[str, Any] = {}
    for name, value in raw.items():
        if name in _WORDS:
            try:
                values[_WORDS[name].name] = msgspec.convert(value, _WORDS[name].type, strict=True)
            except msgspec.ValidationError as error:
                problems.append(Problem(name, _type_words(str(error), name)))
    if "on" not in raw:
        problems.append(Problem("on", "is missing", "the figure that the rule looks at: alveole rule figures"))
    problems += _wrong(values, figures, bad={each.field for each in problems})
    if problems:
        raise InvalidInput(problems=problems)
    return Rule(**values)


def _type_words(message: str, name: str) -> str:
    text = message.partition(" - at `$")[0].replace("`", "'")
    if name == "severity":
        return f"is none of {', '.join(Severity)}"
    return text[:1].lower() + text[1:]


def _wrong(values: Mapping[str, Any], figures: Mapping[str, Figure], bad: set[str]) -> Iterable[Problem]:
    figure = figures.get(str(values.get("on", "")))
    if "on" in values and figure is None:
        near = ", ".join(sorted(figures))
        yield Problem("on", f"there is no figure {str(values['on'])[:80]!r}", f"figures: {near}")
    limits = [name for name in ("above", "below") if values.get(name) is not None]
    words = values.get("words", ())
    if not bad & {"above", "below", "is"}:
        if len(limits) + bool(words) != 1:
            yield Problem("above", "give exactly one of above, below and is")
        elif figure is not None and figure.words and limits:
            yield Problem(limits[0], f"{figure.name} is a word and no number", f"is = one of {', '.join(figure.words)}")
        elif figure is not None and not figure.words and words:
            yield Problem("is", f"{figure.name} is a number", "above = or below =")
    for word in words if figure is not None and figure.words else ():
        if word not in figure.words:  # type: ignore[union-attr]  # it is there, or nothing is gone through
            yield Problem("is", f"{word[:80]!r} is never a value of {values['on']}", ", ".join(figure.words))  # type: ignore[union-attr]  # likewise
    for name, word in (("hold", "for"), ("well", "well"), ("escalate", "escalate")):
        value = values.get(name, "")
        try:
            if value != "" and not 0 <= seconds(value) <= SECONDS_MAX:
                yield Problem(word, "is outside 0 to 7 days")
        except ValueError as error:
            yield Problem(word, str(error))
    for name in ("cause", "promise"):
        if values.get(name) and not re.match(NAME, values[name]):
            yield Problem(name, f"{values[name][:80]!r} is not a name", "use a-z, 0-9 and '-'")
    platform = figure is not None and figure.about is About.PLATFORM
    if platform:
        for name in ("sites", "promise"):
            if values.get(name):
                yield Problem(name, "is only for a figure of sites")
        if OWNER in values.get("tell", ()):
            yield Problem("tell", "the platform has no owner", "operators, administrators, a person or team:NAME")
    elif figure is not None and values.get("covers"):
        yield Problem("covers", "is only for a figure of the platform")
    for name in ("covers", "items", "sites", "tell", "escalate_to"):
        if len(values.get(name, ())) > 50:
            yield Problem(name, "has more than 50 entries")
    named = figure is not None and figure.named
    if named:
        yield from _wrong_words(values.get("items", ()), bad)
    for name in ("sites",) if named else ("items", "sites"):
        for each in values.get(name, ()):
            if not _PATTERN.match(each):
                yield Problem(name, f"{each[:80]!r} is no pattern", "a name, with * for anything")
    for name in ("tell", "escalate_to"):
        for each in values.get(name, ()):
            if not _WHOM.match(each):
                yield Problem(name, f"{each[:80]!r} is nobody", "owner, operators, administrators, a person, team:NAME")
    title = values.get("title", "")
    if len(title) > 200 or not title.isprintable():
        yield Problem("title", "is longer than 200 characters or not printable")


def _wrong_words(words: Iterable[str], bad: set[str]) -> Iterable[Problem]:
    """Of what a rule looks for in log lines."""
    if not words and "items" not in bad:
        yield Problem("items", "is missing", 'the words that a line must hold, like items = ["out of memory"]')
    for each in words:
        if not 3 <= len(each) <= 100 or not each.isprintable():
            yield Problem("items", f"{each[:80]!r} is not 3 to 100 printable characters")
        elif set(each) & set("*?[") or each.startswith("!"):
            yield Problem("items", f"{each[:80]!r} is looked for as it stands, without * ? [ or ! before it")


def check_name(name: str) -> tuple[Problem, ...]:
    if re.match(NAME, name):
        return ()
    return (Problem("name", f"{name[:80]!r} is not a name", "use a-z, 0-9 and '-'"),)


def document(rule: Rule) -> dict[str, Any]:
    """Its words that are not what they are by themselves."""
    found: dict[str, Any] = msgspec.to_builtins(rule)
    return found


def text(rule: Rule) -> str:
    """In the grammar of rules. JSON's strings, numbers and lists of strings are TOML's too."""
    lines = []
    for name, value in document(rule).items():
        if isinstance(value, str):
            shown = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        else:
            shown = json.dumps(value)
        lines.append(f"{name} = {shown}\n")
    return "".join(lines)


def condition(rule: Rule, figure: Figure | None) -> str:
    """Like ``above 90 %``."""
    unit = f" {figure.unit}" if figure is not None and figure.unit else ""
    if rule.above is not None:
        return f"above {rule.above:g}{unit}"
    if rule.below is not None:
        return f"below {rule.below:g}{unit}"
    return f"is {' or '.join(rule.words)}"


def test(rule: Rule) -> Callable[[float | str], bool]:
    """Whether a value is bad."""
    above, below, words = rule.above, rule.below, frozenset(rule.words)
    if above is not None:
        return lambda value: isinstance(value, int | float) and value > above
    if below is not None:
        return lambda value: isinstance(value, int | float) and value < below
    return lambda value: value in words


def fits(patterns: tuple[str, ...], name: str) -> bool:
    """Whether ``name`` fits one of ``patterns``, and none that begins with ``!``. No pattern: everything fits."""
    wanted = [each for each in patterns if not each.startswith("!")]
    if any(fnmatch.fnmatchcase(name, each[1:]) for each in patterns if each.startswith("!")):
        return False
    return not wanted or any(fnmatch.fnmatchcase(name, each) for each in wanted)
