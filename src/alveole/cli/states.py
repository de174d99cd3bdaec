"""``alveole site start``, ``stop``, ``restart``, ``rename`` and ``destroy``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from alveole.cli import follow
from alveole.cli.output import note, paint, say, size
from alveole.cli.show import path
from alveole.cli.verbs import Here, interactive, site_name, verb
from alveole.errors import InvalidInput, Refused
from alveole.text import clean

#: Whether an answer, such as ``wordpress.password``, is meant.
Asked = Callable[[str], bool]


def view(here: Here, name: str) -> dict[str, Any]:
    """The document of one site."""
    found: dict[str, Any] = here.client.get(path(name))
    return found


def reached(here: Here, change: dict[str, Any], word: str, new: Asked = lambda _: False) -> None:
    """Say that a change of a site is done, where it answers, and how to see the ``new`` answers that were made up."""
    name = change.get("site_name") or ""
    say(f"{clean(name)} {word}{follow.took(change)}")
    site = view(here, name)
    if site["state"] == "running":
        for url in site["urls"]:
            say(f"  {paint(clean(url), 'cyan')}")
    made_up = [key for key in (site["application"] or {}).get("made_up", ()) if new(key)]
    if made_up:
        say(f"Made up: {clean(', '.join(made_up))}. See: alveole site answers {clean(site['name'])} --show-secrets")


def named(here: Here, change: dict[str, Any]) -> Any:
    """The site's document after a change, by the name it has then."""
    return view(here, str(change.get("site_id") or change.get("site_name")))


def _plain_verb(word: str, done: str, about: str) -> click.Command:
    @verb(
        None,
        word,
        waits=True,
        help=about,
        examples=[f"alveole site {word} blog", f"alveole site {word} blog --no-wait --json"],
    )
    @site_name
    def run(here: Here, name: str) -> None:
        change = here.client.send("POST", path(name, word))
        follow.finish(here, change, lambda ended: reached(here, ended, done), lambda ended: named(here, ended))

    return run


start = _plain_verb("start", "is running", "Start a stopped site and wait until it answers.")
stop = _plain_verb("stop", "is stopped", "Stop a site; its names answer 503 until it starts again.")
restart = _plain_verb("restart", "runs anew", "Start a running site anew, the new instance beside the old one.")
sleep = _plain_verb(
    "sleep", "is asleep", "Put a running site to sleep now: no process, no memory, until the next visit wakes it."
)


@verb(None, "rename", waits=True, examples=["alveole site rename blog journal-of-anna"])
@site_name
@click.argument("new", metavar="NEW")
def rename(here: Here, name: str, new: str) -> None:
    """Give a site another name. Its addresses, content and custom domains stay."""
    change = here.client.send("POST", path(name, "rename"), {"name": new})
    follow.finish(
        here, change, lambda ended: say(f"{clean(name)} is now {clean(new)}"), lambda ended: named(here, ended)
    )


@verb(
    None,
    "destroy",
    waits=True,
    examples=["alveole site destroy blog", "alveole site destroy blog --yes --json"],
)
@site_name
@click.option("--yes", is_flag=True, help="Do not ask. Needed where there is no terminal to ask on.")
@click.option("--unsaved", is_flag=True, help="Without the backup that is made of it first.")
def destroy(here: Here, name: str, yes: bool, unsaved: bool) -> None:
    """Destroy a stopped site with everything that is its own. It is saved first, and its backups stay."""
    site = view(here, name)
    real = str(site["name"])
    if not yes:
        if site["wanted"] != "stopped":
            raise Refused(f"{real} is running", field="name", hint=f"stop it first: alveole site stop {real}")
        if here.json or not interactive():
            raise InvalidInput("is needed where nobody can be asked", field="yes", hint="add --yes")
        _ask(site)
    change = here.client.send(
        "DELETE",
        path(name),
        query={"confirm": real, **({"unsaved": "true"} if unsaved else {})},
        version=site["version"],
    )
    follow.finish(here, change, lambda ended: say(f"{clean(real)} is gone{follow.took(ended)}"))


def _ask(site: dict[str, Any]) -> None:
    name = clean(site["name"])
    note(f"This destroys {paint(name, 'bold', sys.stderr)} for good:")
    goes = [
        f"{len(site['releases'])} release{'s' if len(site['releases']) != 1 else ''} of its content",
        *(f"volume {clean(item['name'])} ({clean(item['path'])})" for item in site["volumes"]),
        f"its writable part, {size(site['disk_bytes'])}",
        f"its log, its addresses {site['ipv4']} and {site['ipv6']}",
        *(f"the name {clean(domain)}" for domain in site["domains"]),
    ]
    for item in goes:
        note(f"  - {item}")
    note("Its backups stay.")
    if click.prompt("Type its name to go on", default="", show_default=False, err=True) != site["name"]:
        raise Refused("that is not its name; nothing was destroyed")
