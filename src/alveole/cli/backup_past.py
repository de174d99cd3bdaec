"""``alveole backup open``, ``opened`` and ``close``: past days beside the live site; ``calendar``."""

from __future__ import annotations

from typing import Any

import click

from alveole.cli import follow
from alveole.cli.output import emit, fields, note, paint, say, table, when
from alveole.cli.show import path
from alveole.cli.verbs import Here, complete, verb
from alveole.remote.apiclient import segment
from alveole.text import clean


@verb(
    None,
    "open",
    waits=True,
    examples=["alveole backup open b4k2q7x5m3n6p", "alveole backup open b4k2q7x5m3n6p --for 4h --json"],
)
@click.argument("backup", metavar="ID", shell_complete=complete("/v1/backups", "id"))
@click.option("--for", "length", metavar="TIME", default="1h", help="How long: 30m, 4h, at most 1d; 1h.")
def open_(here: Here, backup: str, length: str) -> None:
    """Show a backup as a site of that day, beside the live one.

    At a name of its own, which only people see who are signed in at the pages and may look at the
    site. It reaches nobody and delivers no mail; what is written in it is gone when it closes.
    """
    change = here.client.send("POST", f"/v1/backups/{segment(backup)}/open", {"length": length})
    id = str((change.get("result") or {}).get("past"))

    def document(ended: dict[str, Any]) -> Any:
        return next((each for each in here.client.get("/v1/past-days") if each["id"] == id), ended)

    def done(ended: dict[str, Any]) -> None:
        day = document(ended)
        fields(
            [
                ("address", clean(str(day.get("address") or ""))),
                ("shows", f"{clean(str(day.get('site')))} of {when(day.get('backup_at'))}"),
                ("until", when(day.get("closes_at"))),
            ]
        )
        note(f"Close it with: alveole backup close {clean(str(day.get('name')))}")

    follow.finish(here, change, done, document)


@verb(None, "opened", examples=["alveole backup opened", "alveole backup opened blog --json"])
@click.argument("name", metavar="[NAME]", required=False, shell_complete=complete("/v1/sites"))
def opened(here: Here, name: str | None) -> None:
    """List the past days that are open; of one site."""
    found = here.client.get("/v1/past-days", {"site": name} if name else {})
    if here.json:
        emit(found)
        return
    if not found:
        note("No past day is open. Open one: alveole backup open ID")
        return
    rows = [
        (
            clean(day["name"]),
            clean(day["site"]),
            when(day["backup_at"], short=True),
            clean(day["state"]),
            when(day["closes_at"], short=True),
            clean(day["opened_by"]),
            clean(day["address"]),
        )
        for day in found
    ]
    table(("NAME", "SITE", "SHOWS", "STATE", "UNTIL", "BY", "ADDRESS"), rows, flexible=6)


@verb(None, "close", waits=True, examples=["alveole backup close past-1a2b3c4d"])
@click.argument("past", metavar="NAME", shell_complete=complete("/v1/past-days"))
def close(here: Here, past: str) -> None:
    """Close a past day, with all that was written in it."""
    change = here.client.send("DELETE", f"/v1/past-days/{segment(past)}")
    follow.finish(here, change, lambda ended: say(f"{clean(past)} is closed{follow.took(ended)}"), lambda ended: ended)


@verb(
    None, "calendar", examples=["alveole backup calendar blog", "alveole backup calendar blog --month 2026-11 --json"]
)
@click.argument("name", metavar="NAME", shell_complete=complete("/v1/sites"))
@click.option("--month", metavar="YYYY-MM", default="", help="Another than this month.")
def calendar(here: Here, name: str, month: str) -> None:
    """Show a month of a site's backups by day: what was made, pinned, proved, and what failed."""
    found = here.client.get(path(name, "backups/calendar"), {"month": month} if month else {})
    if here.json:
        emit(found)
        return
    if not found["days"]:
        note(f"Nothing was saved in {clean(found['month'])}.")
        return
    rows = []
    for day in found["days"]:
        proof = [f"{day['proved']} proved"] if day["proved"] else []
        proof += [paint(f"{day['unproved']} NOT proved", "red")] if day["unproved"] else []
        failed = paint(str(day["failed"]), "red") if day["failed"] else ""
        rows.append((day["date"], str(day["made"]), str(day["pinned"] or ""), ", ".join(proof), failed))
    table(("DAY", "MADE", "PINNED", "PROOF", "FAILED"), rows, flexible=3)
