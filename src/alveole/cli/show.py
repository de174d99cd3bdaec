"""``alveole site list`` and ``show``: the two that must answer at once, so they import least."""

from __future__ import annotations

from typing import Any

import click

from alveole.cli.output import emit, fields, note, paint, seconds, size, state, table, when
from alveole.cli.verbs import Here, site_name, verb
from alveole.remote.apiclient import segment
from alveole.text import clean, span


def path(name: str, *more: str) -> str:
    """The address of a site, or of something below it."""
    return "/".join(("/v1/sites", segment(name), *more))


@verb(None, "list", examples=["alveole site list", "alveole site list --json"])
def list_(here: Here) -> None:
    """List all sites, by name."""
    if here.json:
        emit(here.client.raw("/v1/sites"))
        return
    sites = here.client.get("/v1/sites")
    if not sites:
        note("There is no site yet. Make one: alveole site create NAME --from DIR")
        return
    elsewhere = any(site["node"] for site in sites)
    rows = [
        (
            clean(site["name"]),
            state(site["state"]),
            clean(site["plan"]),
            clean("+".join(site["application"]["asked"])) if site["application"] else "-",
            size(site["memory_bytes"]),
            seconds(site["cpu_seconds"]),
            size(site["disk_bytes"]),
            clean(site["urls"][0]) if site["urls"] else "-",
            *([clean(site["node"]) or "here"] if elsewhere else []),
        )
        for site in sites
    ]
    heads = ("NAME", "STATE", "PLAN", "MODULES", "MEMORY", "CPU", "DISK", "URL", *(("NODE",) if elsewhere else ()))
    table(heads, rows, right="MEMORY CPU DISK")


@verb(None, "show", examples=["alveole site show blog", "alveole site show blog --json"])
@site_name
@click.option("--show-env", is_flag=True, help="Print values of the environment and passwords among the answers too.")
def show(here: Here, name: str, show_env: bool) -> None:
    """Show one site: its state, addresses, limits, content and promises."""
    site = here.client.get(path(name), {"show_env": show_env or None})
    if here.json:
        emit(site)
        return
    fields(_shown(site))


def _shown(site: dict[str, Any]) -> list[tuple[str, str]]:
    states = {item["name"]: _process(item) for item in site["process_states"]}
    what = [f"{item['name']}{states.get(item['name'], '')}: {' '.join(item['argv'])}" for item in site["processes"]]
    access = site["access"]
    rules = [f"allow {net}" for net in access["allow"]] + [f"deny {net}" for net in access["deny"]]
    broken = [item for item in site["promises"] if item["state"] != "kept"]
    kept = len(site["promises"]) - len(broken)
    promises = [f"{kept} of {len(site['promises'])} kept"] if site["promises"] else []
    promises += [f"{item['resource']} {state(item['state'])} {clean(item['reason'])}".rstrip() for item in broken]
    listens = f"port {site['port']}" if site["port"] else "its socket" if what else ""
    made = site["application"]
    releases = [
        f"{item['digest'][7:19]}  {when(item['created_at'], short=True)}  "
        f"{item['files']} file{'s' * (item['files'] != 1)}, "
        f"{size(item['bytes'])}{'  ' + item['note'] if item['note'] else ''}"
        f"{'  (live)' if item['digest'] == site['release'] else ''}"
        for item in site["releases"]
    ]
    stays = "" if site["wanted"] == site["state"] else f" (wanted: {site['wanted']})"
    return [
        ("name", paint(clean(site["name"]), "bold")),
        ("state", state(site["state"]) + stays),
        ("problem", paint(clean(site["problem"]), "red")),
        ("lives on", clean(site["node"]) + (f", as of {when(site['seen_at'])}" if site["seen_at"] else "")),
        ("urls", _lines(site["urls"])),
        ("names below", _lines(clean(each) for each in site["domains"] if each.startswith("*."))),
        ("pending domains", _lines(f"{each} (alveole site domain list)" for each in site["claims"])),
        ("ipv4", clean(site["ipv4"])),
        ("ipv6", clean(site["ipv6"])),
        ("plan", clean(site["plan"])),
        ("base", clean(site["base"])),
        ("earlier base", f"{clean(site['earlier_base'])} (alveole base rollback)" if site["earlier_base"] else ""),
        ("modules", _lines(_modules(made)) if made else ""),
        ("why these", clean(made["why"]) if made else ""),
        ("answers", _lines(_answers(made)) if made else ""),
        ("files", _lines(_files(made)) if made else ""),
        ("runs", _lines(what) if what else "static content"),
        ("listens on", listens),
        ("memory", size(site["memory_bytes"])),
        ("processor", seconds(site["cpu_seconds"])),
        ("log lines", size(site["log_bytes"]) if site.get("log_bytes") else ""),
        ("disk", size(site["disk_bytes"])),
        ("processes", str(site["pids"])),
        ("https only", "yes" if site["https_only"] else ""),
        ("sleeps after", _sleep(site)),
        ("git push", "waits to be made live" if site["on_push"] == "wait" else ""),
        ("files by sftp", "published by themselves" if site["on_files"] == "live" else ""),
        ("access", _lines(rules)),
        ("environment", _lines(f"{key}={value}" for key, value in sorted(site["env"].items()))),
        ("ports", _lines(f"{each['host']} leads to {each['port']}/{each['protocol']}" for each in site["published"])),
        ("shared", _lines(_shared(each) for each in site["shared"])),
        ("lasts", "" if site["persistent"] else "only what is in volumes"),
        ("volumes", _lines(f"{item['name']} at {item['path']}" for item in site["volumes"])),
        ("releases", _lines(releases)),
        ("promises", "\n".join(promises)),
        ("checks", "\n".join(_check(item) for item in site["checks"])),
        ("change", clean(site["change"] or "")),
        ("owner", clean(site["owner"])),
        ("created", when(site["created_at"])),
        ("version", str(site["version"])),
    ]


def _sleep(site: dict[str, Any]) -> str:
    sleep = site["sleep"]
    usual = f"{span(sleep['after'])} without a visit" if sleep["after"] else ""
    if sleep["since"] is not None:
        return f"{usual or 'when told to'}; asleep since {when(sleep['since'])}, a visit wakes it"
    return f"never: {clean(sleep['why_not'])}" if sleep["why_not"] and sleep["set"] else usual


def _shared(item: dict[str, Any]) -> str:
    return f"{clean(item['source'])} at {clean(item['path'])}, {'to write' if item['writable'] else 'to read'}"


def _check(item: dict[str, Any]) -> str:
    if item["ok"] is None:
        return f"{clean(item['name'])} not run yet"
    word = paint("passes", "green") if item["ok"] else paint("fails", "red")
    return f"{clean(item['name'])} {word} since {when(item['since'], short=True)} {clean(item['problem'])}".rstrip()


def _process(item: dict[str, Any]) -> str:
    """`` (up 3 h 2 min, 2 restarts, the last after status 1 at …)``."""
    words = str(item["state"])
    if not item["wanted"]:
        words += ", not wanted now"
    if item["seconds"] is not None:
        words += f" {seconds(item['seconds'])}" if item["wanted"] else f", {seconds(item['seconds'])}"
    if item["restarts"]:
        words += f", {item['restarts']} restart{'s' * (item['restarts'] != 1)}"
    if item["ended_at"] is not None:
        by = f"signal {item['exit_signal']}" if item["exit_signal"] is not None else f"status {item['exit_status']}"
        words += f", last end: {by}, {when(item['ended_at'], short=True)}"
    return f" ({words})"


def _modules(made: dict[str, Any]) -> list[str]:
    return [name if name in made["asked"] else f"{name} (needed)" for name in made["modules"]]


def _answers(made: dict[str, Any]) -> list[str]:
    """Those that a person gave; site answers has all."""
    return [
        f"{module}.{question}={made['answers'].get(module, {}).get(question)}".lstrip(".")
        for module, questions in made["given"].items()
        for question in questions
    ]


def _files(made: dict[str, Any]) -> list[str]:
    words = {"kept": "kept as it was changed by hand", "changed_by_hand": "changed by hand"}
    return [
        f"/config/{item['path']}{''.join(f'  ({text})' for key, text in words.items() if item[key])}"
        for item in made["files"]
    ]


def _lines(items: Any) -> str:
    return "\n".join(clean(str(item)) for item in items)
