"""``alveole syslog``: lines that are sent to a server, and taken in from others."""

from __future__ import annotations

from typing import Any

import click

from alveole.cli import reading
from alveole.cli.look import links
from alveole.cli.output import emit, fields, say
from alveole.cli.verbs import Here, Tree, verb
from alveole.text import clean

_LESS = {"authority": "a PEM", "certificate": "a PEM with its key"}


@click.group("syslog", cls=Tree)
def group() -> None:
    """Lines sent to a syslog server, and taken in from others."""


def _read(file: str) -> dict[str, Any]:
    tables = reading.toml(file)
    return {name: reading.pems(each, *_LESS) if isinstance(each, dict) else each for name, each in tables.items()}


def _print(here: Here, found: dict[str, Any]) -> None:
    if here.json:
        emit(found)
        return
    for section, title, told in (("syslog_out", "Sent", "forward"), ("syslog_in", "Taken in", "received")):
        where = "set here" if section in found["set_here"] else "as the settings file says"
        say(f"{title}, {where}: {clean(found[told]) or 'nothing'}")
        shown = []
        for name, value in found[section].items():
            if isinstance(value, dict):
                value = ", ".join(f"{host} = {site}" for host, site in value.items())
            elif isinstance(value, list):
                value = " ".join(value)
            elif name in _LESS and "\n" in str(value):
                value = _LESS[name]
            if value not in ("", None):
                shown.append((name, clean(str(value))))
        fields(shown)


@verb(group, "show", examples=["alveole syslog show"])
def show(here: Here) -> None:
    """Show what is sent and taken in, and how it goes."""
    _print(here, here.client.get("/v1/syslog"))


@verb(group, "set", examples=["alveole syslog set syslog.toml"])
@click.argument("file", metavar="FILE")
def set_(here: Here, file: str) -> None:
    """Take the settings from a TOML file with [syslog_out], [syslog_in] or both; they hold some seconds later.

    The same names as in Alvéole's own settings file, which holds for a table that is not in FILE. authority_file and
    certificate_file name PEM files that are read here and sent along. Try it first: alveole syslog try FILE.
    """
    _print(here, here.client.send("PUT", "/v1/syslog", _read(file)))


@verb(group, "reset", examples=["alveole syslog reset"])
def reset(here: Here) -> None:
    """Go back to what Alvéole's own settings file says."""
    _print(here, here.client.send("DELETE", "/v1/syslog"))


@verb(
    group,
    "try",
    examples=["alveole syslog try", "alveole syslog try syslog.toml"],
    statuses="0 it works, 3 it does not, and the others of every command",
)
@click.argument("file", metavar="[FILE]", required=False)
def try_(here: Here, file: str | None) -> int:
    """Send one message to the server, and see whether lines could be taken in. Nothing is kept.

    With the settings of FILE, or with those that hold now.
    """
    found = here.client.send("POST", "/v1/syslog/try", {"settings": _read(file) if file is not None else None})
    if here.json:
        emit(found)
    else:
        links(found["links"])
    return 0 if found["ok"] else 3
