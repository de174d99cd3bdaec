"""``alveole team``, ``quota``, ``site share`` and ``site give``."""

from __future__ import annotations

from typing import Any

import click

from alveole.cli import parse
from alveole.cli.output import emit, fields, note, say, size, table
from alveole.cli.verbs import Here, Tree, complete, site_name, verb
from alveole.remote.apiclient import segment
from alveole.text import clean


@click.group("team", cls=Tree)
def group() -> None:
    """Teams: what people own together."""


team_name = click.argument("name", metavar="NAME", shell_complete=complete("/v1/teams"))
MANY: dict[str, Any] = {"multiple": True}


def _path(name: str) -> str:
    return f"/v1/teams/{segment(name)}"


@verb(group, "list", examples=["alveole team list"])
def list_(here: Here) -> None:
    """List teams with how many members and sites they have."""
    found = here.client.get("/v1/teams")
    if here.json:
        emit(found)
        return
    if not found:
        note("There is no team. Make one: alveole team add NAME --member PERSON")
        return
    rows = [
        (clean(each["name"]), str(len(each["members"])), str(each["sites"]), clean(each["title"])) for each in found
    ]
    table(("NAME", "MEMBERS", "SITES", "CALLED"), rows, right="MEMBERS SITES")


@verb(group, "show", examples=["alveole team show club"])
@team_name
def show(here: Here, name: str) -> None:
    """Show one team and its members."""
    _show(here, here.client.get(_path(name)))


def _show(here: Here, item: dict[str, Any]) -> None:
    if here.json:
        emit(item)
        return
    fields(
        (
            ("name", clean(item["name"])),
            ("called", clean(item["title"])),
            ("members", clean(", ".join(item["members"])) or "none"),
            ("sites", str(item["sites"])),
        )
    )


@verb(group, "add", examples=["alveole team add club --title 'Photo club' --member ana --member bob"])
@click.argument("name", metavar="NAME")
@click.option("--title", default="", metavar="TEXT", help="What people call it.")
@click.option("--member", metavar="PERSON", help="Who belongs to it.", **MANY)
def add(here: Here, name: str, title: str, member: tuple[str, ...]) -> None:
    """Make a team."""
    body = {"name": name, "title": title, "members": parse.words(member)}
    _show(here, here.client.send("POST", "/v1/teams", body))


@verb(group, "set", examples=["alveole team set club --add carol --remove bob"])
@team_name
@click.option("--title", metavar="TEXT", help="What people call it.")
@click.option("--add", metavar="PERSON", help="Who comes in.", **MANY)
@click.option("--remove", metavar="PERSON", help="Who goes.", **MANY)
def set_(here: Here, name: str, title: str | None, add: tuple[str, ...], remove: tuple[str, ...]) -> None:
    """Change who belongs to a team; it holds at their next request."""
    body: dict[str, object] = {"add": parse.words(add), "remove": parse.words(remove)}
    if title is not None:
        body["title"] = title
    _show(here, here.client.send("PATCH", _path(name), body))


@verb(group, "remove", examples=["alveole team remove club"])
@team_name
def remove(here: Here, name: str) -> None:
    """Remove a team that has no site."""
    here.client.send("DELETE", _path(name))
    if here.json:
        emit({"team": name, "removed": True})
    else:
        say(f"The team {clean(name)} is gone.")


# --- sites --------------------------------------------------------------------------------------
def _sharing(here: Here, item: dict[str, Any]) -> None:
    if here.json:
        emit(item)
        return
    fields((("site", clean(item["site"])), ("owner", clean(item["owner"]))))
    for each in item["shares"]:
        say(f"{clean(each['whom'])}  {clean(each['level'])}")


@verb(
    None,
    "share",
    examples=[
        "alveole site share blog",
        "alveole site share blog ana --level change",
        "alveole site share blog team:club --level none",
    ],
)
@site_name
@click.argument("whom", metavar="[PERSON|team:NAME]", required=False)
@click.option(
    "--level",
    type=click.Choice(["look", "change", "none"]),
    default="look",
    show_default=True,
    help="What they may do; 'none' ends it.",
)
def share(here: Here, name: str, whom: str | None, level: str) -> None:
    """Let a person or a team look at a site, or work on it. Without one: show who may."""
    path = f"/v1/sites/{segment(name)}/sharing"
    if whom is None:
        _sharing(here, here.client.get(path))
    else:
        _sharing(here, here.client.send("PUT", path, {"whom": whom, "level": level}))


@verb(None, "give", examples=["alveole site give blog ana", "alveole site give blog team:club"])
@site_name
@click.argument("owner", metavar="PERSON|team:NAME|nobody")
def give(here: Here, name: str, owner: str) -> None:
    """Give a site to another person or team. It counts in their quota from then on."""
    _sharing(here, here.client.send("PUT", f"/v1/sites/{segment(name)}/owner", {"owner": owner}))


# --- quotas -------------------------------------------------------------------------------------
@click.group("quota", cls=Tree)
def quota() -> None:
    """What a person or team may have: sites, memory, disk."""


whom_argument = click.argument("whom", metavar="PERSON|team:NAME|each-person|each-team")


def _quotas(here: Here, found: list[dict[str, Any]]) -> None:
    def cell(item: dict[str, Any], field: str) -> str:
        shown = str if field == "sites" else size
        most = "no limit" if item[field] is None else shown(item[field])
        return f"{shown(item[f'used_{field}'])} of {most}"

    rows = [
        (clean(item["whom"]), *(cell(item, field) for field in ("sites", "memory_bytes", "disk_bytes")))
        for item in found
    ]
    table(("WHOM", "SITES", "MEMORY", "DISK"), rows, flexible=0)


@verb(quota, "list", examples=["alveole quota list"])
def quota_list(here: Here) -> None:
    """List the quotas that were set, and those that everybody has."""
    found = here.client.get("/v1/quotas")
    if here.json:
        emit(found)
    else:
        _quotas(here, found)


@verb(quota, "show", examples=["alveole quota show ana", "alveole quota show team:club"])
@whom_argument
def quota_show(here: Here, whom: str) -> None:
    """Show a quota and what is used of it."""
    _quota(here, here.client.get("/v1/quota", {"whom": whom}))


def _quota(here: Here, found: dict[str, Any]) -> None:
    if here.json:
        emit(found)
    else:
        _quotas(here, [found])


@verb(
    quota,
    "set",
    examples=[
        "alveole quota set each-person --sites 3 --memory 512M --disk 10G",
        "alveole quota set ana --sites 20 --memory none",
    ],
)
@whom_argument
@click.option("--sites", metavar="N|none", help="How many sites.")
@click.option("--memory", metavar="SIZE|none", help="Memory of all their plans together.")
@click.option("--disk", metavar="SIZE|none", help="Disk of all their plans together.")
def quota_set(here: Here, whom: str, sites: str | None, memory: str | None, disk: str | None) -> None:
    """Set a quota. What is over it stays; nothing is added until it fits again."""
    problems = parse.Problems()
    body: dict[str, int | None] = {}
    if sites is not None:
        if sites != "none" and not sites.isdigit():
            problems.add("sites", f"{sites!r} is not a number", "write a number, or none")
        body["sites"] = int(sites) if sites.isdigit() else None
    for field, text in (("memory_bytes", memory), ("disk_bytes", disk)):
        if text is not None:
            body[field] = None if text == "none" else parse.size(text, field.removesuffix("_bytes"), problems)
    problems.stop()
    _quota(here, here.client.send("PUT", f"/v1/quotas/{segment(whom)}", body))


@verb(quota, "remove", examples=["alveole quota remove ana"])
@whom_argument
def quota_remove(here: Here, whom: str) -> None:
    """Let the quota that everybody has hold again."""
    here.client.send("DELETE", f"/v1/quotas/{segment(whom)}")
    if here.json:
        emit({"whom": whom, "removed": True})
    else:
        say(f"{clean(whom)} has the quota of everybody.")
