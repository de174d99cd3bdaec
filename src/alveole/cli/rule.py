"""``alveole rule`` and ``alveole silence``."""

from __future__ import annotations

import tomllib
from typing import Any

import click

from alveole.cli import reading
from alveole.cli.output import emit, fields, mark, note, paint, say, table, when
from alveole.cli.verbs import Here, Tree, complete, verb
from alveole.errors import InvalidInput
from alveole.remote.apiclient import segment
from alveole.text import clean


@click.group("rule", cls=Tree)
def group() -> None:
    """When an incident is opened, who is told, and when it is over."""


@click.group("silence", cls=Tree)
def silence() -> None:
    """Times in which nobody is told."""


rule_name = click.argument("name", metavar="RULE", shell_complete=complete("/v1/rules"))


@verb(group, "list", examples=["alveole rule list"])
def list_(here: Here) -> None:
    """List the rules: those of the beginning, and your own."""
    found = here.client.get("/v1/rules")
    if here.json:
        emit(found)
        return
    rows = [
        (
            clean(each["name"]),
            "yes" if each["enabled"] else paint("no", "dim"),
            each["severity"],
            each["on"],
            clean(each["condition"]),
            "own" if not each["built_in"] else "changed" if each["changed"] else "-",
            str(each["open"]) if each["open"] else "-",
            clean(each["title"]),
        )
        for each in found
    ]
    heads = ("RULE", "ON", "SEVERITY", "FIGURE", "BAD WHEN", "OWN", "OPEN", "WHAT")
    table(heads, rows, right="OPEN", flexible=7)


@verb(group, "figures", examples=["alveole rule figures"])
def figures(here: Here) -> None:
    """List what a rule can look at."""
    found = here.client.get("/v1/rule-figures")
    if here.json:
        emit(found)
        return
    rows = [(each["name"], each["unit"] or ", ".join(each["words"]), clean(each["title"])) for each in found]
    table(("FIGURE", "VALUES", "WHAT"), rows, flexible=2)


@verb(group, "show", examples=["alveole rule show disk-low"])
@rule_name
def show(here: Here, name: str) -> None:
    """Show a rule in its own grammar, as add takes it."""
    found = here.client.get(f"/v1/rules/{segment(name)}")
    if here.json:
        emit(found)
    else:
        say(found["text"].rstrip("\n"))


@verb(group, "add", examples=["alveole rule add too-big too-big.toml", "alveole rule add too-big - < too-big.toml"])
@click.argument("name", metavar="RULE")
@click.argument("file", metavar="FILE")
@click.option("--replace", is_flag=True, help="Instead of one of this name.")
def add(here: Here, name: str, file: str, replace: bool) -> None:
    """Make a rule of a file in the grammar of rules."""
    body = {"text": reading.text(file), "fresh": not replace}
    _print(here, here.client.send("PUT", f"/v1/rules/{segment(name)}", body))


@verb(
    group,
    "set",
    examples=[
        "alveole rule set disk-low below=20 for=5m",
        'alveole rule set site-down tell=["owner","operators"] severity=critical',
        "alveole rule set slow enabled=false",
    ],
)
@rule_name
@click.argument("words", metavar="WORD=VALUE", nargs=-1, required=True)
def set_(here: Here, name: str, words: tuple[str, ...]) -> None:
    """Change words of a rule. A value is as in TOML; quotes may be left out, and nothing takes a word away."""
    _print(here, here.client.send("PATCH", f"/v1/rules/{segment(name)}", {"changes": dict(map(_word, words))}))


def _word(text: str) -> tuple[str, Any]:
    name, found, value = text.partition("=")
    if not found:
        raise InvalidInput(f"{text!r} is not WORD=VALUE", field="words")
    if not value:
        return name, None
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        # A duration or a name without quotes.
        return name, value


@verb(group, "remove", examples=["alveole rule remove too-big"])
@rule_name
def remove(here: Here, name: str) -> None:
    """Remove a rule. A rule of the beginning gets its values back."""
    here.client.send("DELETE", f"/v1/rules/{segment(name)}")
    if here.json:
        emit({"removed": name})
    else:
        say(f"{clean(name)} is gone, or as it was in the beginning")


@verb(
    group,
    "try",
    examples=["alveole rule try disk-low", "alveole rule try --file too-big.toml"],
    statuses="0 nothing is bad, 3 something is, 1 a fault of Alvéole, 2 wrong input, 4 not found, 5 temporary",
)
@click.argument("name", metavar="[RULE]", required=False, default="")
@click.option("--file", metavar="FILE", help="A text that is not kept.")
def try_(here: Here, name: str, file: str | None) -> int:
    """Say what a rule looks at now and what of it is bad. Nothing is kept, and nobody is told."""
    body = {"name": name, "text": reading.text(file) if file is not None else ""}
    found = here.client.send("POST", "/v1/rules/try", body)
    bad = any(each["bad"] for each in found)
    if here.json:
        emit(found)
    elif not found:
        note("There is nothing that it looks at now: all is well, or nothing is measured.")
    else:
        rows = [
            (
                mark(not each["bad"]),
                clean(each["site"]) or "platform",
                clean(each["item"]) or "-",
                _value(each["value"]),
                clean(each["text"]),
            )
            for each in found
        ]
        table(("", "OF", "ITEM", "VALUE", "WHAT"), rows, flexible=4)
    return 3 if bad else 0


def _value(value: Any) -> str:
    if value is None or isinstance(value, str):
        return "not known" if value is None else clean(value)
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"


def _print(here: Here, found: dict[str, Any]) -> None:
    if here.json:
        emit(found)
        return
    fields(
        (
            ("rule", clean(found["name"])),
            ("bad when", f"{found['on']} {clean(found['condition'])}"),
            ("severity", found["severity"]),
            ("enabled", "yes" if found["enabled"] else "no"),
        )
    )


# --- silences -------------------------------------------------------------------------------------
@verb(silence, "list", examples=["alveole silence list"])
def silence_list(here: Here) -> None:
    """List silences, and which of them are active now."""
    found = here.client.get("/v1/silences")
    if here.json:
        emit(found)
        return
    if not found:
        note("There is none: whoever the rules name is told at any time.")
        return
    rows = [
        (
            each["id"],
            paint("yes", "yellow") if each["active"] else "no",
            clean(each["site"]) or "all",
            clean(each["rule"]) or "all",
            each["weekly"] or f"{when(each['begins_at'], short=True)} to {when(each['ends_at'], short=True)}",
            clean(each["who"]),
            clean(each["why"]),
        )
        for each in found
    ]
    table(("SILENCE", "NOW", "SITE", "RULE", "WHEN", "WHO", "WHY"), rows, flexible=6)


@verb(
    silence,
    "add",
    examples=[
        "alveole silence add --site blog --for 2h --why 'its database is being moved'",
        "alveole silence add --rule backup-old --for 3d --why 'the disk for backups is full'",
        "alveole silence add --weekly 'sat,sun 22:00' --for 6h --why 'nobody is on call at weekends'",
    ],
)
@click.option("--site", metavar="NAME", help="Only of this site. Default: of all.")
@click.option("--rule", "rule", metavar="RULE", default="", help="Only of this rule. Default: of all.")
@click.option("--for", "length", metavar="DURATION", required=True, help="How long, like 30m, 2h or 3d.")
@click.option("--why", metavar="TEXT", required=True, help="Others will want to know.")
@click.option("--weekly", metavar="'DAYS HH:MM'", default="", help="Each week, by the clock of the machine.")
@click.option("--from", "begins", metavar="TIME", help="Begin then (ISO 8601). Default: now.")
def silence_add(
    here: Here, site: str | None, rule: str, length: str, why: str, weekly: str, begins: str | None
) -> None:
    """Tell nobody for a while. What is broken still when it ends is told then."""
    body: dict[str, Any] = {"rule": rule, "length": length, "why": why, "weekly": weekly}
    if begins is not None:
        from datetime import datetime

        try:
            body["begins_at"] = datetime.fromisoformat(begins).astimezone().timestamp()
        except ValueError:
            raise InvalidInput(f"{begins!r} is no time", field="begins_at", hint="like 2026-11-22T22:00") from None
    path = "/v1/silences" if site is None else f"/v1/sites/{segment(site)}/silences"
    found = here.client.send("POST", path, body)
    if here.json:
        emit(found)
    else:
        until = found["weekly"] or f"until {when(found['ends_at'], short=True)}"
        say(f"{found['id']}: nobody is told of {clean(found['site']) or 'any site'}, {until}")


@verb(silence, "remove", examples=["alveole silence remove q4k2q7x5m3n6p"])
@click.argument("name", metavar="SILENCE", shell_complete=complete("/v1/silences", "id"))
def silence_remove(here: Here, name: str) -> None:
    """End a silence. What is broken is told now."""
    here.client.send("DELETE", f"/v1/silences/{segment(name)}")
    if here.json:
        emit({"removed": name})
    else:
        say(f"{clean(name)} is over")
