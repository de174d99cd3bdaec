"""PURE. YAML to a :class:`~alveole.scenarios.model.Scenario`, with every problem and its line.

Of YAML the part that says what it looks like: no anchors, no tags, no key twice, and only ``true``, ``false``, ``null``
and numbers are anything but text (YAML 1.2's core schema, so ``on``, ``yes`` and ``12:30`` stay words).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import msgspec

from alveole.errors import InvalidInput, Problem
from alveole.scenarios.model import (
    EVERY_MAX,
    EVERY_MIN,
    SECONDS_MAX,
    STEPS_MAX,
    TEXT_MAX,
    Capture,
    Expect,
    Scenario,
    Step,
    seconds,
    words,
)
from alveole.scenarios.page import keys_of, regex

_DEPTH = 12
#: Of each kind of thing that a step looks for: an answer of a megabyte is looked through for each.
_EACH_MAX = 20
_INT = re.compile(r"^[-+]?[0-9]{1,15}\Z")
_FLOAT = re.compile(r"^[-+]?(?:[0-9]{1,15}\.[0-9]{0,15}|\.[0-9]{1,15})(?:[eE][-+]?[0-9]{1,3})?\Z")
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_HEADER = re.compile(r"^[A-Za-z0-9!#$%&'*+.^_|~-]{1,80}\Z")
#: Said by the engine itself, or by the edge.
RESERVED = frozenset(
    {
        "host",
        "connection",
        "content-length",
        "transfer-encoding",
        "cookie",
        "accept-encoding",
        "upgrade",
        "te",
        "expect",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-real-ip",
        "forwarded",
    }
)
VALUE = re.compile(r"\$\$|\$\{(secret:)?([A-Za-z_][A-Za-z0-9_.-]{0,63})\}")


def read(text: str) -> Scenario:
    """Raises ``InvalidInput`` with all that is wrong."""
    if len(text.encode("utf-8", "surrogatepass")) > TEXT_MAX:
        raise InvalidInput(f"is longer than {TEXT_MAX} bytes", field="text")
    raw = _values(text)
    if not isinstance(raw, dict):
        raise InvalidInput("is not a mapping with 'steps'", field="text")
    problems: list[Problem] = []
    _check_keys(raw, problems)
    if problems:
        raise InvalidInput(problems=problems)
    try:
        scenario = msgspec.convert(raw, Scenario)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        hint = "put it in quotes" if message.startswith("Expected `str`") else ""
        raise InvalidInput(message[:1].lower() + message[1:], field=place.strip(".`") or "text", hint=hint) from None
    problems.extend(_check(scenario))
    if problems:
        raise InvalidInput(problems=problems)
    return scenario


def schema() -> dict[str, Any]:
    """The JSON Schema of a scenario."""
    found = msgspec.json.schema(Scenario)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Scenario of Alvéole", **found}


# --- YAML ---------------------------------------------------------------------------------------
def _values(text: str) -> Any:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        events = yaml.parse(text, Loader=loader)
        found = _document(yaml, events)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark is not None else "text"
        raise InvalidInput(f"is not YAML: {getattr(error, 'problem', None) or error}", field=where) from None
    except UnicodeError:
        raise InvalidInput("is not text", field="text") from None
    return found


def _document(yaml: Any, events: Iterator[Any]) -> Any:
    found: Any = None
    documents = 0
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise _wrong(event, "holds a second document")
            found = _node(yaml, events, next(events), 0)
    return found


def _node(yaml: Any, events: Iterator[Any], event: Any, depth: int) -> Any:
    if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
        raise _wrong(event, "anchors and aliases are not taken")
    if event.tag is not None and event.tag != "!":
        raise _wrong(event, f"the tag {event.tag} is not taken")
    if depth > _DEPTH:
        raise _wrong(event, f"is deeper than {_DEPTH}")
    if isinstance(event, yaml.ScalarEvent):
        return _scalar(event.value) if event.implicit[0] else event.value
    if isinstance(event, yaml.SequenceStartEvent):
        items = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            items.append(_node(yaml, events, event, depth + 1))
        return items
    found: dict[str, Any] = {}
    while not isinstance(event := next(events), yaml.MappingEndEvent):
        if not isinstance(event, yaml.ScalarEvent):
            raise _wrong(event, "a key must be a word")
        if event.value in found:
            raise _wrong(event, f"the key {event.value!r} stands here twice")
        if event.anchor is not None:
            raise _wrong(event, "anchors and aliases are not taken")
        found[event.value] = _node(yaml, events, next(events), depth + 1)
    return found


def _scalar(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if _INT.match(text):
        return int(text)
    return float(text) if _FLOAT.match(text) else text


def _wrong(event: Any, message: str) -> InvalidInput:
    return InvalidInput(message, field=f"line {event.start_mark.line + 1}")


# --- looking through ----------------------------------------------------------------------------
def _check_keys(raw: dict[str, Any], problems: list[Problem]) -> None:
    """All unknown keys at once: what decodes stops at the first."""

    def look(value: Any, kind: type[msgspec.Struct], place: str) -> None:
        if not isinstance(value, dict):
            return
        known = {field.name for field in msgspec.structs.fields(kind)}
        for key in value.keys() - known:
            problems.append(Problem(f"{place}{key}", "is not a key here", f"keys: {', '.join(sorted(known))}"))

    look(raw, Scenario, "")
    steps = raw.get("steps")
    for number, step in enumerate(steps[:STEPS_MAX] if isinstance(steps, list) else ()):
        look(step, Step, f"steps[{number}].")
        if isinstance(step, dict):
            look(step.get("expect"), Expect, f"steps[{number}].expect.")
            captures = step.get("capture")
            for name, capture in captures.items() if isinstance(captures, dict) else ():
                look(capture, Capture, f"steps[{number}].capture.{name}.")


def _check(scenario: Scenario) -> Iterator[Problem]:
    yield from _duration("timeout", scenario.timeout, 0.1, SECONDS_MAX)
    if scenario.every != "":
        yield from _duration("every", scenario.every, EVERY_MIN, EVERY_MAX)
    if len(scenario.title) > 200 or not scenario.title.isprintable():
        yield Problem("title", "is longer than 200 characters or not printable")
    known: set[str] = set()
    for number, step in enumerate(scenario.steps):
        place = f"steps[{number}]"
        yield from _check_step(place, step, known)
        known |= step.capture.keys()


def _duration(field: str, value: str | float, least: float, most: float) -> Iterator[Problem]:
    try:
        found = seconds(value)
    except ValueError as error:
        yield Problem(field, str(error))
        return
    if not least <= found <= most:
        yield Problem(field, f"{found:g} s is outside {least:g} to {most:g} s")


def split(request: str) -> tuple[str, str]:
    """Method and address of ``GET /path``."""
    method, _, address = request.strip().partition(" ")
    return method, address.strip()


def _check_step(place: str, step: Step, known: set[str]) -> Iterator[Problem]:
    method, address = split(step.request)
    if method not in METHODS:
        yield Problem(f"{place}.request", f"{step.request[:80]!r} does not begin with a method", ", ".join(METHODS))
    elif not address.startswith(("/", "https://", "http://", "${")):
        yield Problem(f"{place}.request", f"{address[:80]!r} is neither a path nor an address")
    elif "://" in address and "@" in urlsplit(address).netloc:
        yield Problem(f"{place}.request", "a name or password in an address is not taken", "use headers and a secret")
    bodies = [each for each in ("body", "json", "form") if getattr(step, each)]
    if len(bodies) > 1 or (step.fill and {"body", "json"} & set(bodies)):
        yield Problem(place, f"{' and '.join([*bodies, *(['fill'] * step.fill)])}: only one body can be sent")
    for name in step.headers:
        if not _HEADER.match(name):
            yield Problem(f"{place}.headers", f"{name!r} is not a header")
        elif name.lower() in RESERVED:
            yield Problem(f"{place}.headers.{name}", "is set by Alvéole itself")
    expect = step.expect
    for name, count in (
        ("headers", len(step.headers)),
        ("capture", len(step.capture)),
        ("expect.text", len(words(expect.text))),
        ("expect.absent", len(words(expect.absent))),
        ("expect.regex", len(words(expect.regex))),
        ("expect.json", len(expect.json)),
        ("expect.header", len(expect.header)),
    ):
        if count > _EACH_MAX:
            yield Problem(f"{place}.{name}", f"has {count} entries; the most is {_EACH_MAX}", "make it two steps")
    statuses = (expect.status,) if isinstance(expect.status, int) else expect.status
    for status in statuses:
        if not 100 <= status <= 599:
            yield Problem(f"{place}.expect.status", f"{status} is no status")
    if expect.within != "":
        yield from _duration(f"{place}.expect.within", expect.within, 0.001, SECONDS_MAX)
    for each in words(expect.regex):
        yield from _regex(f"{place}.expect.regex", each)
    for path in expect.json:
        yield from _path(f"{place}.expect.json", path)
    for name, capture in step.capture.items():
        where = f"{place}.capture.{name}"
        given = [each for each in Capture.__struct_fields__ if getattr(capture, each)]
        if len(given) != 1:
            yield Problem(where, "needs exactly one of regex, json, header, cookie, field")
        if capture.regex:
            yield from _regex(where, capture.regex)
        if capture.json:
            yield from _path(where, capture.json)
    used = (each for text in _texts(step) for each in VALUE.finditer(text))
    for found in used:
        if found[2] and not found[1] and found[2] not in known:
            yield Problem(place, f"${{{found[2]}}} is captured by no step before", "a '$' by itself is written '$$'")


def _texts(value: Any) -> Iterator[str]:
    """Every text of a step in which values are put."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Step):
        yield from _texts([value.request, value.headers, value.body, value.json, value.form])
        yield from _texts([value.expect.text, value.expect.absent, value.expect.json, value.expect.header])
    elif isinstance(value, dict):
        yield from (text for each in value.values() for text in _texts(each))
    elif isinstance(value, list | tuple):
        yield from (text for each in value for text in _texts(each))


def secrets_of(scenario: Scenario) -> frozenset[str]:
    """The names of the secrets it uses."""
    found = (each for step in scenario.steps for text in _texts(step) for each in VALUE.finditer(text))
    return frozenset(each[2] for each in found if each[1])


def _regex(field: str, text: str) -> Iterator[Problem]:
    try:
        regex(text)
    except ValueError as error:
        yield Problem(field, f"{text[:80]!r} is not an expression of RE2: {error}", "no look-around, no backreferences")


def _path(field: str, text: str) -> Iterator[Problem]:
    try:
        keys_of(text)
    except ValueError as error:
        yield Problem(field, str(error))
