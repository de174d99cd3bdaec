"""``alveole site work`` and ``publish``: what was changed by SFTP."""

from __future__ import annotations

import click

from alveole.cli import follow
from alveole.cli.output import emit, fields, note, paint, say
from alveole.cli.show import path
from alveole.cli.states import named, reached
from alveole.cli.verbs import Here, interactive, site_name, verb
from alveole.errors import Refused
from alveole.text import clean


@verb(None, "work", examples=["alveole site work blog", "alveole site work blog --drop --yes"])
@site_name
@click.option("--drop", is_flag=True, help="Forget what was changed; the next visitor begins with what is live.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def work(here: Here, name: str, drop: bool, yes: bool) -> None:
    """Show the working copy of a site: what SFTP sees, and what was changed in it.

    Files that come by SFTP, scp or rsync lie in a copy that nobody is served from. Publish it to make a release of
    it: alveole site publish NAME.
    """
    if drop:
        if not yes and not (interactive() and click.confirm("Forget every change in it?", default=False, err=True)):
            raise Refused("nothing was done", hint="--yes says that you mean it")
        here.client.send("DELETE", path(name, "work"))
        if here.json:
            emit({"site": name, "dropped": True})
        else:
            say(f"The working copy of {clean(name)} is as what is live.")
        return
    found = here.client.get(path(name, "work"))
    if here.json:
        emit(found)
        return
    changed = f"{found['files']} files, {found['bytes']} bytes" if found["files"] else "nothing"
    fields(
        (
            ("site", clean(found["site"])),
            ("sftp", clean(found["address"]) or "the SSH door is closed"),
            ("stands on", clean(found["release"] or "nothing")[:19] if found["there"] else "what is live"),
            ("published", clean(found["published"] or "never")[:19]),
            ("changed since", changed),
            ("", "\n".join(map(clean, found["names"]))),
            ("working on it", str(found["visitors"] or "nobody")),
        )
    )
    if found["behind"]:
        note(paint("Another release went live meanwhile: publishing takes back what came with it.", "yellow"))


@verb(
    None,
    "publish",
    waits=True,
    examples=["alveole site publish blog", "alveole site publish blog --not-live --note 'the new pages'"],
)
@site_name
@click.option("--note", "remark", metavar="TEXT", default="", help="Kept with the release.")
@click.option("--not-live", is_flag=True, help="Build and keep it only; make it live later with site update --release.")
def publish(here: Here, name: str, remark: str, not_live: bool) -> None:
    """Make a release of the working copy, and make it live. No request fails."""
    change = here.client.send("POST", path(name, "work/publish"), {"note": remark, "live": not not_live})
    word = "keeps a release that waits" if not_live else "is published"
    follow.finish(here, change, lambda ended: reached(here, ended, word), lambda ended: named(here, ended))
