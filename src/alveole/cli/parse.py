"""From what a person typed to the fields of a request. Problems are collected, never the first alone."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from alveole.cli import reading
from alveole.errors import InvalidInput, Problem
from alveole.text import read_span

_SIZE = re.compile(r"^(\d{1,15}(?:\.\d{1,6})?)\s*([kmgt]?)(?:i?b)?\Z", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


class Problems(list[Problem]):
    """Everything found wrong before the request is sent."""

    def add(self, field: str, message: str, hint: str = "") -> None:
        self.append(Problem(field, message, hint))

    def stop(self) -> None:
        """Raise ``InvalidInput`` when there is any."""
        if self:
            raise InvalidInput(problems=self)


def size(text: str, field: str, problems: Problems) -> int | None:
    """``256M``, ``1.5GiB`` or plain bytes; units are powers of 1024."""
    if not (found := _SIZE.match(text.strip())):
        problems.add(field, f"{text!r} is not a size", "write it like 256M or 2G")
        return None
    return int(float(found[1]) * 1024 ** _POWERS[found[2].lower()])


def cpu(text: str, field: str, problems: Problems) -> int | None:
    """Cores, ``0.25`` or ``2``, or thousandths, ``250m``; gives thousandths of a core."""
    if re.match(r"^\d{1,7}m\Z", text):
        return int(text[:-1])
    if re.match(r"^\d{1,4}(?:\.\d{1,3})?\Z", text):
        return round(float(text) * 1000)
    problems.add(field, f"{text!r} is not an amount of processor", "write it like 0.5, 2 or 250m")
    return None


def sleep_after(text: str, field: str, problems: Problems) -> int | None:
    """``30m``, ``1d`` or ``never`` in seconds; ``None`` for ``plan``: as the plan says."""
    if text == "plan":
        return None
    try:
        return read_span(text)
    except ValueError as error:
        problems.add(field, str(error), "write it like 30m, 12h or never")
        return None


def command(text: str, field: str, problems: Problems) -> list[str]:
    """A command line as an argument vector; quotes group words, nothing else is special."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        problems.add(field, f"cannot be split into words: {str(error).lower()}", "close every quote")
        return []
    if not words:
        problems.add(field, "is empty", "give a program and its arguments")
    return words


def processes(texts: Sequence[str], problems: Problems) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for text in texts:
        name, equal, line = text.partition("=")
        if not equal:
            problems.add("processes", f"{text!r} has no '='", "write it like worker='python3 worker.py'")
            continue
        found.append({"name": name, "argv": command(line, f"processes.{name}", problems)})
    return found


def volumes(texts: Sequence[str], problems: Problems) -> list[dict[str, str]]:
    found = []
    for text in texts:
        name, colon, path = text.partition(":")
        if not colon:
            problems.add("volumes", f"{text!r} has no ':'", "write it like data:/data")
            continue
        found.append({"name": name, "path": path})
    return found


def published(texts: Sequence[str], problems: Problems) -> list[dict[str, str | int]]:
    """``20080:80`` or ``20053:53/udp``."""
    found: list[dict[str, str | int]] = []
    for text in texts:
        if not (one := re.match(r"^(\d{1,5}):(\d{1,5})(?:/([a-z]{1,10}))?\Z", text)):
            problems.add("published", f"{text!r} is not HOST:CONTAINER", "write it like 20080:80 or 20053:53/udp")
            continue
        found.append({"host": int(one[1]), "port": int(one[2]), "protocol": one[3] or "tcp"})
    return found


def shared(texts: Sequence[str], problems: Problems) -> list[dict[str, str | bool]]:
    """``/srv/share/photos:/photos``, with ``:rw`` behind it to write there."""
    found: list[dict[str, str | bool]] = []
    for text in texts:
        if not (one := re.match(r"^(/[^:]*):(/[^:]*?)(?::(ro|rw))?\Z", text)):
            problems.add("shared", f"{text!r} is not HOSTDIR:/PATH", "write it like /srv/share/photos:/photos:ro")
            continue
        found.append({"source": one[1], "path": one[2], "writable": one[3] == "rw"})
    return found


def environment(pairs: Sequence[str], files: Sequence[str], problems: Problems) -> dict[str, str]:
    """``--env-file`` first, in order, then ``--env``; the last one of a name counts."""
    found: dict[str, str] = {}
    for file in files:
        try:
            text = reading.text(file, "env_file")
        except InvalidInput as error:
            problems.extend(error.problems)
            continue
        found.update(_lines(text, file, problems))
    for pair in pairs:
        key, equal, value = pair.partition("=")
        if not equal:
            # The value is not repeated: it may be a secret.
            problems.add("env", f"{key!r} has no '='", "write it like KEY=value")
            continue
        found[key] = value
    return found


def _lines(text: str, file: str, problems: Problems) -> Iterable[tuple[str, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        key, equal, value = line.removeprefix("export ").partition("=")
        value = value.strip()
        if not equal:
            problems.add("env_file", f"{file} line {number} has no '='", "write it like KEY=value")
            continue
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        yield key.strip(), value


def text_of(source: str, field: str, problems: Problems) -> str:
    """The text of a small file; a key may be given as it is."""
    place = Path(source)
    try:
        if place.is_file():
            with place.open(encoding="utf-8") as file:
                return file.read(131_072)
    except (OSError, UnicodeDecodeError) as error:
        problems.add(field, f"cannot read {source}: {getattr(error, 'strerror', None) or error}")
        return ""
    return source


def words(texts: Sequence[str]) -> list[str]:
    """``a,b c`` and repeated options alike."""
    return [word for text in texts for word in re.split(r"[,\s]+", text) if word]


def age(text: str, field: str, problems: Problems) -> int | None:
    """``90s``, ``10m``, ``12h``, ``90d``, ``4w`` in seconds."""
    if not (found := re.match(r"^(\d{1,6})([smhdw])\Z", text)):
        problems.add(field, f"{text!r} is not a length of time", "write it like 12h or 90d")
        return None
    return int(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}[found[2]]


def image_name(text: str) -> dict[str, str]:
    """``registry.example.org/club/app:2`` or ``…/app@sha256:…`` as the API takes it. Raises ``InvalidInput``."""
    registry, slash, rest = text.partition("/")
    repository, at, tag = rest.partition("@")
    if not at:
        repository, colon, tag = rest.rpartition(":")
        if not colon:
            repository, tag = rest, "latest"
    if not slash or not repository or not tag:
        raise InvalidInput(f"{text!r} names no image", field="image", hint="write REGISTRY/REPOSITORY:TAG")
    return {"registry": registry, "repository": repository, "tag": tag}
