"""``alveole site``: the commands that change nothing but a site's own state, and those that look."""

from __future__ import annotations

import sys
from typing import Any

import click

from alveole.cli import follow
from alveole.cli.client import segment
from alveole.cli.output import emit, fields, note, paint, say, seconds, size, state, table, when
from alveole.cli.verbs import Here, Tree, interactive, site_name, verb
from alveole.errors import InvalidInput, Refused
from alveole.logs import clean


@click.group(
    "site",
    cls=Tree,
    lazy={
        "create": ("alveole.cli.create:create", "Create a site and start it."),
        "update": ("alveole.cli.create:update", "Give a site new content, with no request failing."),
        "set": ("alveole.cli.create:set_", "Change a site's configuration."),
        "logs": ("alveole.cli.logs:logs", "Show or follow what a site prints."),
        "exec": ("alveole.cli.execute:exec_", "Run a program inside a site."),
    },
)
def group() -> None:
    """Create, change, look into and destroy sites."""


def path(name: str, *more: str) -> str:
    return "/".join(("/v1/sites", segment(name), *more))


def view(here: Here, name: str) -> dict[str, Any]:
    """The document of one site."""
    found: dict[str, Any] = here.client.get(path(name))
    return found


def reached(here: Here, change: dict[str, Any], word: str) -> None:
    """Say that a change of a site is done, and where the site answers."""
    name = change.get("site_name") or ""
    say(f"{clean(name)} {word}{follow.took(change)}")
    site = view(here, name)
    if site["state"] == "running":
        for url in site["urls"]:
            say(f"  {paint(clean(url), 'cyan')}")


def named(here: Here, change: dict[str, Any]) -> Any:
    """The site's document after a change, by the name it has then."""
    return view(here, str(change.get("site_id") or change.get("site_name")))


@verb(group, "list", examples=["alveole site list", "alveole site list --json"])
def list_(here: Here) -> None:
    """List all sites, by name."""
    sites = here.client.get("/v1/sites")
    if here.json:
        emit(sites)
        return
    if not sites:
        note("There is no site yet. Make one: alveole site create NAME --from DIR")
        return
    rows = [
        (
            clean(site["name"]),
            state(site["state"]),
            clean(site["plan"]),
            size(site["memory_bytes"]),
            seconds(site["cpu_seconds"]),
            size(site["disk_bytes"]),
            clean(site["urls"][0]) if site["urls"] else "-",
        )
        for site in sites
    ]
    table(("NAME", "STATE", "PLAN", "MEMORY", "CPU", "DISK", "URL"), rows, right="MEMORY CPU DISK")


@verb(group, "show", examples=["alveole site show blog", "alveole site show blog --json"])
@site_name
@click.option("--show-env", is_flag=True, help="Print the values of the environment too; they may be secrets.")
def show(here: Here, name: str, show_env: bool) -> None:
    """Show one site: its state, addresses, limits, content and promises."""
    site = here.client.get(path(name), {"show_env": show_env or None})
    if here.json:
        emit(site)
        return
    fields(_shown(site))


def _shown(site: dict[str, Any]) -> list[tuple[str, str]]:
    what = [f"{item['name']}: {' '.join(item['argv'])}" for item in site["processes"]]
    access = site["access"]
    rules = [f"allow {net}" for net in access["allow"]] + [f"deny {net}" for net in access["deny"]]
    broken = [item for item in site["promises"] if item["state"] != "kept"]
    kept = len(site["promises"]) - len(broken)
    promises = [f"{kept} of {len(site['promises'])} kept"] if site["promises"] else []
    promises += [f"{item['resource']} {state(item['state'])} {clean(item['reason'])}".rstrip() for item in broken]
    listens = f"port {site['port']}" if site["port"] else "its socket" if what else ""
    releases = [
        f"{item['digest'][7:19]}  {when(item['created_at'], short=True)}  {item['files']} files, "
        f"{size(item['bytes'])}{'  ' + item['note'] if item['note'] else ''}"
        f"{'  (live)' if item['digest'] == site['release'] else ''}"
        for item in site["releases"]
    ]
    stays = "" if site["wanted"] == site["state"] else f" (wanted: {site['wanted']})"
    return [
        ("name", paint(clean(site["name"]), "bold")),
        ("state", state(site["state"]) + stays),
        ("problem", paint(clean(site["problem"]), "red")),
        ("urls", _lines(site["urls"])),
        ("ipv4", clean(site["ipv4"])),
        ("ipv6", clean(site["ipv6"])),
        ("plan", clean(site["plan"])),
        ("base", clean(site["base"])),
        ("runs", _lines(what) if what else "static content"),
        ("listens on", listens),
        ("memory", size(site["memory_bytes"])),
        ("processor", seconds(site["cpu_seconds"])),
        ("disk", size(site["disk_bytes"])),
        ("processes", str(site["pids"])),
        ("https only", "yes" if site["https_only"] else ""),
        ("access", _lines(rules)),
        ("environment", _lines(f"{key}={value}" for key, value in sorted(site["env"].items()))),
        ("volumes", _lines(f"{item['name']} at {item['path']}" for item in site["volumes"])),
        ("releases", _lines(releases)),
        ("promises", "\n".join(promises)),
        ("change", clean(site["change"] or "")),
        ("owner", clean(site["owner"])),
        ("created", when(site["created_at"])),
        ("version", str(site["version"])),
    ]


def _lines(items: Any) -> str:
    return "\n".join(clean(str(item)) for item in items)


def _plain_verb(word: str, done: str, about: str) -> None:
    @verb(
        group,
        word,
        waits=True,
        help=about,
        examples=[f"alveole site {word} blog", f"alveole site {word} blog --no-wait --json"],
    )
    @site_name
    def run(here: Here, name: str) -> None:
        change = here.client.send("POST", path(name, word))
        follow.finish(here, change, lambda ended: reached(here, ended, done), lambda ended: named(here, ended))


_plain_verb("start", "is running", "Start a stopped site and wait until it answers.")
_plain_verb("stop", "is stopped", "Stop a site; its names answer 503 until it starts again.")
_plain_verb("restart", "runs anew", "Start a running site anew, the new instance beside the old one.")


@verb(group, "rename", waits=True, examples=["alveole site rename blog journal-of-anna"])
@site_name
@click.argument("new", metavar="NEW")
def rename(here: Here, name: str, new: str) -> None:
    """Give a site another name. Its addresses, content and custom domains stay."""
    change = here.client.send("POST", path(name, "rename"), {"name": new})
    follow.finish(
        here, change, lambda ended: say(f"{clean(name)} is now {clean(new)}"), lambda ended: named(here, ended)
    )


@verb(
    group,
    "destroy",
    waits=True,
    examples=["alveole site destroy blog", "alveole site destroy blog --yes --json"],
)
@site_name
@click.option("--yes", is_flag=True, help="Do not ask. Needed where there is no terminal to ask on.")
def destroy(here: Here, name: str, yes: bool) -> None:
    """Destroy a stopped site with everything that is its own. Its backups stay."""
    site = view(here, name)
    real = str(site["name"])
    if not yes:
        if site["wanted"] != "stopped":
            raise Refused(f"{real} is running", field="name", hint=f"stop it first: alveole site stop {real}")
        if here.json or not interactive():
            raise InvalidInput("is needed where nobody can be asked", field="yes", hint="add --yes")
        _ask(site)
    change = here.client.send("DELETE", path(name), query={"confirm": real}, version=site["version"])
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
