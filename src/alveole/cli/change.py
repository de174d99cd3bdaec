"""``alveole journal`` and ``alveole change``: what was done, and what is being done."""

from __future__ import annotations

import time
from typing import Any

import click

from alveole.cli import follow as following
from alveole.cli.output import emit, fields, mark, note, paint, say, seconds, state, table, when
from alveole.cli.verbs import Here, Tree, VerbTree, complete, verb
from alveole.errors import Temporary
from alveole.remote.apiclient import segment
from alveole.text import clean

_HEADS = ("WHEN", "STATE", "VERB", "SITE", "BY", "TOOK", "ID")
_POLL_SECONDS = 1.0


@click.group("change", cls=Tree)
def group() -> None:
    """Look at one change, or follow it to its end."""


change_id = click.argument("change", metavar="ID", shell_complete=complete("/v1/changes?limit=50", "id"))


@verb(
    None,
    "journal",
    kind=VerbTree,
    invoke_without_command=True,
    examples=["alveole journal", "alveole journal --site blog -n 5", "alveole journal -f", "alveole journal verify"],
)
@click.option("--site", metavar="NAME", help="Only this site's.", shell_complete=complete("/v1/sites"))
@click.option("--state", "wanted", metavar="STATE", help="Only those waiting, running, done or failed.")
@click.option("-n", "--lines", type=click.IntRange(1, 1000), default=30, metavar="N", help="How many; default 30.")
@click.option("-f", "--follow", is_flag=True, help="Go on with new changes as they begin and end.")
def journal(here: Here, site: str | None, wanted: str | None, lines: int, follow: bool) -> None:
    """What was done: who, when, what, and how it ended. Newest last.

    alveole change show ID has every step of one. With -f and --json one document a line.
    """
    if click.get_current_context().invoked_subcommand is not None:
        return
    query = {"site": site, "state": wanted, "limit": lines}
    found = list(reversed(here.client.get("/v1/changes", query)))
    if follow:
        _follow(here, query, found)
    elif here.json:
        emit(found)
    elif not found:
        note("Nothing was done yet.")
    else:
        table(_HEADS, [_row(change) for change in found], right="TOOK", flexible=3)
        for change in found:
            if change["state"] == "failed":
                for problem in change["problems"]:
                    note(f"{clean(change['id'])}: {clean(problem['message'])}")


@verb(
    journal,  # type: ignore[arg-type]  # a group: see kind
    "verify",
    examples=["alveole journal verify", "alveole journal verify --json"],
    statuses="0 every row is as it was written, 3 one is not, 1 a fault of Alvéole, 2 wrong input, 5 temporary",
)
def verify(here: Here) -> int:
    """Compare every row of the journal with its chain, and the chain with the agent's anchors.

    Rows that were changed, removed, put in or moved show, and so does a tail that was cut off.
    """
    found = here.client.get("/v1/changes/verify")
    if here.json:
        emit(found)
        return 0 if found["ok"] else 3
    broken, pruned = found["broken"], found["pruned"]
    say(f"{mark(found['ok'])} {found['changes']} changes, {found['links']} links since {when(found['first_at'])}")
    if pruned:
        say(f"  {pruned['changes']} changes that had ended by {when(pruned['newest'])} were removed as too old")
    if found["anchored"]:
        say(f"  anchored with the agent up to link {found['anchored']}")
    if found["anchor_problem"]:
        say(f"  {paint(clean(found['anchor_problem']), 'red')}")
    if broken:
        say(f"  {paint(clean(broken['row']) + ' ' + clean(broken['what']), 'red')}: {clean(broken['text'])}")
    return 0 if found["ok"] else 3


def _row(change: dict[str, Any]) -> tuple[str, ...]:
    started, ended = change["started_at"], change["ended_at"]
    took = seconds(max(0.0, ended - started)) if ended is not None and started else "-"
    return (
        when(started, short=True),
        state(change["state"]),
        clean(change["verb"]),
        clean(change["site_name"] or "-"),
        clean(change["actor"]),
        took,
        clean(change["id"]),
    )


def _follow(here: Here, query: dict[str, Any], found: list[dict[str, Any]]) -> None:
    told: dict[str, str] = {}
    try:
        while True:
            for change in found:
                if told.get(change["id"]) != change["state"]:
                    told[change["id"]] = change["state"]
                    if here.json:
                        emit(change, indent=-1)
                    else:
                        row = _row(change)
                        why = f"  {clean(change['reason'])}" if change["reason"] else ""
                        say(f"{row[0]}  {row[1]}  {row[2]} {row[3]} by {row[4]}  {row[6]}{why}")
            time.sleep(_POLL_SECONDS)
            try:
                found = list(reversed(here.client.get("/v1/changes", {**query, "limit": 200})))
            except Temporary:
                # Control is being started anew; the journal is in its database.
                continue
    except KeyboardInterrupt:
        return


@verb(group, "show", examples=["alveole change show c4k2q7x5m3n6p"])
@change_id
def show(here: Here, change: str) -> None:
    """Show a change with each of its steps."""
    found = here.client.get(f"/v1/changes/{segment(change)}")
    if here.json:
        emit(found)
    else:
        _show(found)


@verb(
    group,
    "follow",
    examples=["alveole change follow c4k2q7x5m3n6p"],
    statuses="That of the change: 0 done, 2 wrong input, 3 refused, 4 not found, 5 temporary, 1 a fault of Alvéole",
)
@change_id
def follow(here: Here, change: str) -> None:
    """Follow a change to its end."""
    found = here.client.get(f"/v1/changes/{segment(change)}")
    ended = following.follow(here, found, str(found["site_name"] or ""))
    following.check(ended)
    if here.json:
        emit(ended)
    else:
        _show(ended)


def _show(change: dict[str, Any]) -> None:
    fields(
        [
            ("id", paint(clean(change["id"]), "bold")),
            ("what", f"{clean(change['verb'])} {clean(change['site_name'] or '')}".rstrip()),
            ("state", state(change["state"])),
            ("by", clean(change["actor"])),
            ("because", clean(change["reason"])),
            ("started", when(change["started_at"])),
            ("ended", when(change["ended_at"]) + following.took(change) if change["ended_at"] else ""),
            ("result", "\n".join(f"{clean(key)}: {clean(str(value))}" for key, value in change["result"].items())),
            ("problems", "\n".join(paint(clean(item["message"]), "red") for item in change["problems"])),
        ]
    )
    if not change["events"]:
        return
    say()
    rows = [
        (
            when(event["at"], short=True)[11:],
            clean(event["resource"]),
            seconds(event["seconds"]) if event["seconds"] is not None else "",
            paint(clean(event["text"]), {"error": "red", "warning": "yellow"}.get(event["level"], "")),
        )
        for event in change["events"]
    ]
    table(("TIME", "RESOURCE", "TOOK", "WHAT"), rows, right="TOOK", flexible=3)
