"""``alveole site domain``: names of a site beside its own."""

from __future__ import annotations

from typing import Any

import click

from alveole.cli import follow
from alveole.cli.output import emit, fields, note, paint, say, table, when
from alveole.cli.show import path
from alveole.cli.verbs import Here, Tree, site_name, verb
from alveole.remote.apiclient import segment
from alveole.text import clean


@click.group("domain", cls=Tree)
def group() -> None:
    """Domains of a site: add, claim, prove, remove."""


domain_name = click.argument("domain", metavar="DOMAIN")


@verb(group, "list", examples=["alveole site domain list blog", "alveole site domain list blog --json"])
@site_name
def list_(here: Here, name: str) -> None:
    """List the domains of a site, live or waiting for their proof."""
    found = here.client.get(path(name, "domains"))
    if here.json:
        emit(found)
    elif not found:
        note(f"There is none. Add one: alveole site domain add {clean(name)} DOMAIN")
    else:
        rows = [
            (clean(each["domain"]), _word(each), when(each["expires_at"], short=True), clean(each["problem"]))
            for each in found
        ]
        table(("DOMAIN", "STATE", "UNTIL", "PROBLEM"), rows, flexible=3)


def _word(found: dict[str, Any]) -> str:
    return paint("live", "green") if found["state"] == "live" else paint("pending", "yellow")


@verb(
    group,
    "add",
    waits=True,
    examples=[
        "alveole site domain add blog www.example.org",
        "alveole site domain add shop '*.shop.example.org'",
        "alveole site domain add blog www.example.org --json",
    ],
)
@site_name
@domain_name
def add(here: Here, name: str, domain: str) -> None:
    """Give a site a domain.

    Administrators and operators say whose a domain is: it is live at once. An owner claims it: the command prints the
    TXT record that proves it, which is looked for again and again. The domain must lead to this server besides.

    With a star it is every name right below one: *.example.org, or *.NAME of the site's own. A name that some site has
    in full goes first.
    """
    _print(here, here.client.send("POST", path(name, "domains"), {"domain": domain}), "live")


@verb(group, "check", waits=True, examples=["alveole site domain check blog www.example.org"])
@site_name
@domain_name
def check(here: Here, name: str, domain: str) -> None:
    """Look for the proof of a domain now."""
    _print(here, here.client.send("POST", path(name, f"domains/{segment(domain)}/check")), "live")


@verb(group, "remove", waits=True, examples=["alveole site domain remove blog www.example.org"])
@site_name
@domain_name
def remove(here: Here, name: str, domain: str) -> None:
    """Take a domain away from a site, or a claim back."""
    _print(here, here.client.send("DELETE", path(name, f"domains/{segment(domain)}")), "gone")


def _print(here: Here, found: dict[str, Any], word: str) -> None:
    if found["change"]:
        change = here.client.get(f"/v1/changes/{segment(found['change'])}")
        follow.finish(here, change, lambda _ended: say(f"{clean(found['domain'])} is {word}"), lambda _ended: found)
    elif here.json:
        emit(found)
    elif word == "gone":
        say(f"{clean(found['domain'])} is gone")
    else:
        fields(
            [
                ("domain", clean(found["domain"])),
                ("state", _word(found)),
                ("record", f"{clean(found['record'])}  TXT  {clean(found['value'])}" if found["record"] else ""),
                ("problem", clean(found["problem"])),
                ("next look", when(found["next_at"])),
                ("until", when(found["expires_at"])),
            ]
        )
