"""``alveole incident``, and ``alveole site promises``."""

from __future__ import annotations

import sys
from typing import Any

import click

from alveole.cli.output import emit, fields, mark, note, paint, say, seconds, table, when
from alveole.cli.verbs import Here, Tree, complete, site_name, verb
from alveole.errors import InvalidInput
from alveole.remote.apiclient import segment
from alveole.text import clean

_COLOURS = {"critical": "red", "warning": "yellow", "info": "dim"}
_STATES = {"open": "red", "acknowledged": "yellow", "closed": "dim"}


@click.group("incident", cls=Tree)
def group() -> None:
    """What is broken: who was told, what is done about it."""


incident_id = click.argument("incident", metavar="INCIDENT", shell_complete=complete("/v1/incidents", "id"))
said = click.argument("text", metavar="TEXT", nargs=-1)


@verb(
    group,
    "list",
    examples=[
        "alveole incident list",
        "alveole incident list --state open --json",
        "alveole incident list --site blog",
    ],
)
@click.option("--state", type=click.Choice(("open", "closed", "all")), default="all", help="Default: all.")
@click.option("--site", metavar="NAME", help="Only those that this site has a part in.")
@click.option("--before", metavar="INCIDENT", help="Only those that are older than this closed one.")
@click.option("--limit", type=int, default=50, show_default=True, help="At most so many closed ones.")
def list_(here: Here, state: str, site: str | None, before: str | None, limit: int) -> None:
    """List incidents, open ones first."""
    query = {"state": state, "site": site, "before": before, "limit": limit}
    found = here.client.get("/v1/incidents", {key: value for key, value in query.items() if value is not None})
    if here.json:
        emit(found)
        return
    if not found:
        note("There is none." if state == "all" else f"There is none that is {state}.")
        return
    rows = [
        (
            each["id"],
            paint(each["state"], _STATES.get(each["state"], "")),
            paint(each["severity"], _COLOURS.get(each["severity"], "")),
            _of(each),
            when(each["began_at"], short=True),
            _length(each),
            clean(each["title"]) + (f" ({len(each['sites'])} sites)" if each["sites"] else ""),
        )
        for each in found
    ]
    table(("INCIDENT", "STATE", "SEVERITY", "OF", "SINCE", "FOR", "WHAT"), rows, flexible=6)


def _of(each: dict[str, Any]) -> str:
    if not each["node"]:
        return clean(each["site"]) or "platform"
    return f"{clean(each['site'])} on {clean(each['node'])}" if each["site"] else f"server {clean(each['node'])}"


def _length(each: dict[str, Any]) -> str:
    import time

    return seconds((each["closed_at"] or time.time()) - each["began_at"])


@verb(group, "show", examples=["alveole incident show i4k2q7x5m3n6p"])
@incident_id
def show(here: Here, incident: str) -> None:
    """Show one: what is broken, what changed before, what why said, and what happened since."""
    found = here.client.get(f"/v1/incidents/{segment(incident)}")
    if here.json:
        emit(found)
        return
    say(paint(f"{_of(found)}: {clean(found['title'])}", "bold"))
    fields(
        (
            ("state", found["state"] + (", nobody was told" if found["silent"] else "")),
            ("severity", found["severity"]),
            ("since", when(found["began_at"])),
            ("opened", when(found["opened_at"])),
            ("acknowledged", _by(found, "acknowledged")),
            ("well since", when(found["well_at"]) if found["well_at"] else ""),
            ("closed", _by(found, "closed")),
            ("part of", found["part_of"]),
            ("as of", f"{when(found['seen_at'])}: {clean(found['node'])} is away" if found["seen_at"] else ""),
            ("came again", f"{found['reopened']} times" if found["reopened"] else ""),
            ("sites", clean(", ".join(found["sites"]))),
        )
    )
    for each in found["signals"]:
        times = f" ({each['times']} times)" if each["times"] > 1 else ""
        where = f"{clean(each['site'])}: " if each["site"] and not found["site"] else ""
        say(f"{mark(each['cleared_at'] is not None)} {where}{clean(each['text'])}{times}")
    evidence = found["evidence"]
    if evidence is not None:
        _evidence(evidence)
    say(paint("history", "bold"))
    for each in found["notes"]:
        text = f"  {when(each['at'], short=True)}  {each['kind']}  {clean(each['who'])}"
        say(f"{text}: {clean(each['text'])}" if each["text"] else text)


def _by(found: dict[str, Any], what: str) -> str:
    at, who = found[f"{what}_at"], found[f"{what}_by"]
    return f"{when(at)}{' by ' + clean(who) if who else ''}" if at else ""


def _evidence(evidence: dict[str, Any]) -> None:
    if evidence["before"]:
        say(paint("changed just before", "bold"))
        for each in evidence["before"]:
            reason = f" ({clean(each['reason'])})" if each["reason"] else ""
            at = when(each["at"], short=True)
            say(f"  {at}  {each['verb']} by {clean(each['actor'])}: {each['state']}{reason}  {each['change']}")
    say(paint(f"why, at {when(evidence['at'], short=True)}", "bold"))
    if evidence["problem"]:
        say(f"  {clean(evidence['problem'])}")
    for link in evidence["links"]:
        on = f" on {clean(link['machine'])}" if link.get("machine") else ""
        say(f"  {mark(link['ok'])} {clean(link['name'])}{on}: {clean(link['asked'])}: {clean(link['came'])}")
        if link["cure"] and not link["ok"]:
            say(f"      → {clean(link['cure'])}")
    for each in evidence["waiting"]:
        say(f"  waits: {clean(each)}")


def _post(here: Here, incident: str, verb: str, text: tuple[str, ...], said: str) -> None:
    found = here.client.send("POST", f"/v1/incidents/{segment(incident)}/{verb}", {"text": " ".join(text)})
    if here.json:
        emit(found)
    else:
        say(said.format(incident))


@verb(group, "ack", examples=["alveole incident ack i4k2q7x5m3n6p", "alveole incident ack i4k2q7x5m3n6p on my way"])
@incident_id
@said
def ack(here: Here, incident: str, text: tuple[str, ...]) -> None:
    """Say that you look after it: it is not escalated."""
    _post(here, incident, "ack", text, "{} is acknowledged")


@verb(group, "comment", examples=["alveole incident comment i4k2q7x5m3n6p the disk is being replaced"])
@incident_id
@said
def comment(here: Here, incident: str, text: tuple[str, ...]) -> None:
    """Write something into its history."""
    _post(here, incident, "comment", text, "written into the history of {}")


@verb(group, "act", examples=["alveole incident act i4k2q7x5m3n6p the plan is medium now"])
@incident_id
@said
def act(here: Here, incident: str, text: tuple[str, ...]) -> None:
    """Say what was done so that it does not come again."""
    _post(here, incident, "act", text, "written into the history of {}")


@verb(group, "close", examples=["alveole incident close i4k2q7x5m3n6p a false alarm"])
@incident_id
@said
def close(here: Here, incident: str, text: tuple[str, ...]) -> None:
    """Close it by hand. What is bad still is told anew only once it was well."""
    _post(here, incident, "close", text, "{} is closed")


@verb(group, "reopen", examples=["alveole incident reopen i4k2q7x5m3n6p it came again"])
@incident_id
@said
def reopen(here: Here, incident: str, text: tuple[str, ...]) -> None:
    """Say that it is not over."""
    _post(here, incident, "reopen", text, "{} is open again")


@verb(
    group,
    "report",
    examples=["alveole incident report i4k2q7x5m3n6p", "alveole incident report i4k2q7x5m3n6p --html > report.html"],
)
@incident_id
@click.option("--html", is_flag=True, help="A page that can be printed or sent.")
def report(here: Here, incident: str, html: bool) -> None:
    """What is to be learnt from it: times to acknowledge and to repair, what was done."""
    path = f"/v1/incidents/{segment(incident)}/report"
    if html:
        if here.json:
            raise InvalidInput("give --html or --json", field="html")
        with here.client.open("GET", path, query={"format": "html"}) as answer:
            sys.stdout.write(answer.body().decode())
        return
    found = here.client.get(path)
    if here.json:
        emit(found)
        return
    one = found["incident"]
    say(paint(f"{clean(one['site'] or 'platform')}: {clean(one['title'])}", "bold"))
    fields(
        (
            ("began", when(one["began_at"])),
            ("told after", seconds(one["opened_at"] - one["began_at"])),
            ("acknowledged after", _maybe(found["to_acknowledge"])),
            ("repaired after", _maybe(found["to_repair"])),
            ("closed after", _maybe(found["lasted"])),
            ("changed before", clean(_first(one))),
            ("first broken link", clean((one["evidence"] or {}).get("broken", ""))),
            ("comments", "\n".join(f"{clean(each['who'])}: {clean(each['text'])}" for each in found["comments"])),
            ("done about it", "\n".join(f"{clean(each['who'])}: {clean(each['text'])}" for each in found["actions"])),
        )
    )


def _maybe(value: float | None) -> str:
    return "not yet" if value is None else seconds(value)


def _first(incident: dict[str, Any]) -> str:
    before = (incident["evidence"] or {}).get("before") or []
    return f"{before[0]['verb']} by {before[0]['actor']}, {before[0]['change']}" if before else ""


@verb(None, "promises", examples=["alveole site promises blog", "alveole site promises blog --json"])
@site_name
def promises(here: Here, name: str) -> None:
    """Show what is promised to a site, how long each promise has been kept, and which change broke it."""
    found = here.client.get(f"/v1/sites/{segment(name)}/promises")
    if here.json:
        emit(found)
        return
    rows = []
    for each in found["promises"]:
        share = each["kept_share"]
        by = each["broken_by"]
        rows.append(
            (
                clean(each["promise"]),
                paint(each["state"], {"kept": "green", "broken": "red"}.get(each["state"], "dim")),
                when(each["since"], short=True),
                "-" if share is None else f"{share * 100:.3f} %",
                f"{by['verb']} {by['change']}" if by else "-",
                clean(each["text"]),
            )
        )
    table(("PROMISE", "STATE", "SINCE", "KEPT IN 30 D", "BROKEN BY", "WHAT IS WRONG"), rows, flexible=5)
