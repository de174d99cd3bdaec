"""``alveole backup``."""

from __future__ import annotations

from typing import Any

import click

from alveole.cli import backup_keep, backup_past, follow
from alveole.cli.output import emit, note, say, size, table, when
from alveole.cli.states import named, reached
from alveole.cli.verbs import Here, Tree, complete, interactive, site_name, verb
from alveole.errors import InvalidInput
from alveole.remote.apiclient import segment
from alveole.text import clean


@click.group("backup", cls=Tree)
def group() -> None:
    """Save sites and give them back; prove that it works, and say how long what stays."""


for _command in (
    *(backup_keep.prove, backup_keep.show, backup_keep.pin, backup_keep.unpin, backup_keep.policy, backup_keep.tree),
    *(backup_past.open_, backup_past.opened, backup_past.close, backup_past.calendar),
    *(backup_keep.download, backup_keep.restore_file, backup_keep.repository, backup_keep.key, backup_keep.platform),
):
    group.add_command(_command)
backup_id = backup_keep.backup_id


@verb(group, "create", waits=True, examples=["alveole backup create blog", "alveole backup create blog --json"])
@site_name
def create(here: Here, name: str) -> None:
    """Save a site while it runs: content, configuration, volumes, and what is not published of its working copy."""
    change = here.client.send("POST", "/v1/backups", {"site": name})

    def document(ended: dict[str, Any]) -> Any:
        made = (ended.get("result") or {}).get("backup")
        return next((item for item in here.client.get("/v1/backups") if item["id"] == made), ended)

    def done(ended: dict[str, Any]) -> None:
        made = document(ended)
        say(f"{clean(str(made['id']))}  {size(made.get('bytes', 0))} of {clean(name)}{follow.took(ended)}")

    follow.finish(here, change, done, document)


@verb(group, "list", examples=["alveole backup list", "alveole backup list blog --json"])
@click.argument("name", metavar="[NAME]", required=False, shell_complete=complete("/v1/sites"))
def list_(here: Here, name: str | None) -> None:
    """List backups, newest first; of one site, also of a destroyed one."""
    found = here.client.get("/v1/backups", {"site": name})
    if here.json:
        emit(found)
        return
    if not found:
        note("There is no backup. Make one: alveole backup create NAME")
        return
    rows = [
        (
            item["id"],
            clean(item["site"]) + ("" if item["exists"] else " (destroyed)"),
            size(item["bytes"]),
            when(item["created_at"], short=True),
            clean(item["cause"]) + (" pinned" if item["pinned"] else ""),
            backup_keep.proved(item),
        )
        for item in found
    ]
    table(("ID", "SITE", "SIZE", "CREATED", "WHY", "PROOF"), rows, right="SIZE", flexible=1)


@verb(
    group,
    "restore",
    waits=True,
    examples=[
        "alveole backup restore b4k2q7x5m3n6p",
        "alveole backup restore b4k2q7x5m3n6p --as blog-of-monday",
        "alveole backup restore b4k2q7x5m3n6p --here",
    ],
)
@backup_id
@click.option("--as", "name", metavar="NAME", help="Restore as a new site of this name.")
@click.option("--here", "lost", is_flag=True, help="The server that it lives on is lost: let it live on this one.")
def restore(here: Here, backup: str, name: str | None, lost: bool) -> None:
    """Give a backup back: into its own site, or as a new one.

    The whole backup is checked first, and the live site is not touched until the switch.
    """
    body = {key: value for key, value in (("name", name), ("here", lost)) if value}
    change = here.client.send("POST", f"/v1/backups/{segment(backup)}/restore", body)
    follow.finish(here, change, lambda ended: reached(here, ended, "is restored"), lambda ended: named(here, ended))


@verb(group, "delete", waits=True, examples=["alveole backup delete b4k2q7x5m3n6p --yes"])
@backup_id
@click.option("--yes", is_flag=True, help="Do not ask. Needed where there is no terminal to ask on.")
def delete(here: Here, backup: str, yes: bool) -> None:
    """Delete a backup for good."""
    if not yes:
        if here.json or not interactive():
            raise InvalidInput("is needed where nobody can be asked", field="yes", hint="add --yes")
        click.confirm(f"Delete the backup {clean(backup)} for good?", abort=True, err=True)
    change = here.client.send("DELETE", f"/v1/backups/{segment(backup)}")
    follow.finish(here, change, lambda ended: say(f"{clean(backup)} is gone"))
