"""``alveole check``: the scenarios of a site."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from alveole.cli import parse, reading
from alveole.cli.output import emit, fields, mark, note, paint, say, seconds, table, when
from alveole.cli.show import path
from alveole.cli.verbs import Here, Tree, interactive, site_name, verb
from alveole.errors import InvalidInput
from alveole.remote.apiclient import segment
from alveole.text import clean

_RESULT = "0 all passed, 3 one did not, 1 a fault of Alvéole, 2 wrong input, 4 not found, 5 temporary"


@click.group("check", cls=Tree)
def group() -> None:
    """Scenarios: gate, verification and monitoring of a site."""


check_name = click.argument("check", metavar="CHECK")


@verb(group, "add", examples=["alveole check add blog sign-in.yaml", "alveole check add blog - --name sign-in"])
@site_name
@click.argument("file", metavar="FILE")
@click.option("--name", "check", metavar="CHECK", help="Its name; default: the file's, without .yaml.")
def add(here: Here, name: str, file: str, check: str | None) -> None:
    """Add a scenario to a site, or put another in the place of one. FILE is YAML; - reads standard input."""
    if check is None:
        if file == "-":
            raise InvalidInput("is needed with standard input", field="name", hint="add --name NAME")
        check = Path(file).stem
    found = here.client.send("PUT", path(name, f"checks/{segment(check)}"), {"text": reading.text(file)})
    if here.json:
        emit(found)
        return
    every = found["state"]["every"]
    say(f"{clean(name)} has {clean(check)}" + (f", run every {seconds(every)}" if every else ", run when asked for"))
    for secret in found["missing_secrets"]:
        note(f"It needs the secret {clean(secret)}: alveole check secret {clean(name)} {clean(secret)}")


@verb(group, "list", examples=["alveole check list blog", "alveole check list blog --json"])
@site_name
def list_(here: Here, name: str) -> None:
    """List the scenarios of a site, and how each stood at its last run through the edge."""
    found = here.client.get(path(name, "checks"))
    if here.json:
        emit(found)
    elif not found:
        note(f"There is none. Add one: alveole check add {clean(name)} FILE")
    else:
        rows = [
            (
                clean(each["name"]),
                _word(each),
                seconds(each["every"]) if each["every"] else "-",
                when(each["at"], short=True),
                seconds(each["seconds"]) if each["seconds"] is not None else "-",
                clean(each["problem"]),
            )
            for each in found
        ]
        table(("CHECK", "STATE", "EVERY", "LAST RUN", "TOOK", "PROBLEM"), rows, right="TOOK EVERY", flexible=5)


def _word(state: dict[str, Any]) -> str:
    if state["ok"] is None:
        return paint("not run yet", "dim")
    return paint("passes", "green") if state["ok"] else paint("fails", "red")


@verb(group, "show", examples=["alveole check show blog sign-in", "alveole check show blog sign-in --json"])
@site_name
@check_name
def show(here: Here, name: str, check: str) -> None:
    """Show a scenario: its text, its last runs, and the evidence of the last that failed."""
    found = here.client.get(path(name, f"checks/{segment(check)}"))
    if here.json:
        emit(found)
        return
    state = found["state"]
    fields(
        [
            ("check", clean(found["name"])),
            ("state", _word(state) + (f" since {when(state['since'])}" if state["since"] else "")),
            ("every", seconds(state["every"]) if state["every"] else "only when asked for"),
            ("added", f"{when(found['created_at'])} by {clean(found['created_by'])}"),
            ("missing", clean(", ".join(found["missing_secrets"]))),
        ]
    )
    say()
    for line in found["text"].splitlines():
        say(f"  {clean(line)}")
    if found["runs"]:
        say()
        rows = [
            (
                when(each["at"], short=True),
                each["use"],
                mark(each["ok"]),
                seconds(each["seconds"]),
                clean(each["problem"]),
            )
            for each in found["runs"]
        ]
        table(("WHEN", "FOR", "", "TOOK", "PROBLEM"), rows, right="TOOK", flexible=4)
    failed = next((each for each in found["runs"] if not each["ok"] and each["report"]), None)
    if failed:
        say()
        _report(failed["report"])


@verb(
    group,
    "run",
    examples=[
        "alveole check run blog",
        "alveole check run blog sign-in",
        "alveole check run blog --file new.yaml --json",
    ],
    statuses=_RESULT,
)
@site_name
@click.argument("checks", metavar="[CHECK]...", nargs=-1)
@click.option("--file", metavar="FILE", help="Run this scenario, which is not kept; - reads standard input.")
@click.option("--slot", type=click.IntRange(0, 1), metavar="0|1", help="Ask this instance instead of the edge.")
def run(here: Here, name: str, checks: tuple[str, ...], file: str | None, slot: int | None) -> int:
    """Run scenarios now, as the outside would: through the site's name and its certificate.

    Each step tells what was asked, what came and how long it took.
    """
    body: dict[str, Any] = {"names": list(checks), "slot": slot}
    if file is not None:
        body["text"] = reading.text(file)
    reports = here.client.send("POST", path(name, "checks/run"), body, patience=600.0)
    if here.json:
        emit(reports)
    elif not reports:
        note(f"There is none. Add one: alveole check add {clean(name)} FILE")
    else:
        for report in reports:
            _report(report)
    return 0 if all(report["ok"] for report in reports) else 3


def _report(report: dict[str, Any]) -> None:
    where = "" if report["target"] == "public" else f", at {clean(report['target'])}"
    took = f"{seconds(report['seconds'])}, {when(report['at'], short=True)}"
    say(f"{mark(report['ok'])} {paint(clean(report['scenario']), 'bold')}  {took}{where}")
    for step in report["steps"]:
        came = str(step["status"]) if step["status"] is not None else "no answer"
        label = f"{clean(step['name'])}: " if step["name"] else ""
        say(f"  {mark(step['ok'])} {step['step']}. {label}{clean(step['asked'])}  {came}  {seconds(step['seconds'])}")
        for there in step["redirects"]:
            say(f"       led to {clean(there)}")
        for problem in step["problems"]:
            say(f"       {paint(clean(problem), 'red')}")
        for line in step["came"].splitlines():
            say(f"       | {clean(line)}")


@verb(group, "remove", examples=["alveole check remove blog sign-in --yes"])
@site_name
@check_name
@click.option("--yes", is_flag=True, help="Do not ask. Needed where there is no terminal to ask on.")
def remove(here: Here, name: str, check: str, yes: bool) -> None:
    """Remove a scenario and its runs."""
    if not yes:
        if here.json or not interactive():
            raise InvalidInput("is needed where nobody can be asked", field="yes", hint="add --yes")
        click.confirm(f"Remove the check {clean(check)} of {clean(name)}?", abort=True, err=True)
    here.client.send("DELETE", path(name, f"checks/{segment(check)}"))
    if here.json:
        emit({"removed": check})
    else:
        say(f"{clean(check)} is gone")


@verb(group, "lint", examples=["alveole check lint sign-in.yaml", "alveole check lint sign-in.yaml --json"])
@click.argument("file", metavar="FILE")
def lint(here: Here, file: str) -> None:
    """Look through a scenario and name everything that is wrong. Nothing is sent anywhere."""
    from alveole.scenarios.reading import read, secrets_of

    found = read(reading.text(file))
    if here.json:
        emit(found)
        return
    needs = sorted(secrets_of(found))
    say(f"{clean(file)} is in order: {len(found.steps)} steps" + (f"; secrets: {', '.join(needs)}" if needs else ""))


@verb(
    group,
    "record",
    examples=[
        "alveole check record blog --visit",
        "alveole check record blog --visit --from 192.0.2.7 --since 5m --add sign-in",
        "alveole check record blog --har visit.har --add sign-in",
    ],
)
@site_name
@click.option("--visit", is_flag=True, help="Of a visit with any browser, by what the proxy sees of it.")
@click.option("--from", "address", default="", metavar="ADDRESS", help="Whose visit; default: of who comes first.")
@click.option("--since", metavar="TIME", help="Of a visit that was made already, so long ago at most, as 5m.")
@click.option("--har", metavar="FILE", help="What a browser saved from its network tools.")
@click.option("--add", "check", metavar="CHECK", help="Add it under this name instead of printing it.")
def record(
    here: Here, name: str, visit: bool, address: str, since: str | None, har: str | None, check: str | None
) -> None:
    """Make a scenario of a visit: one that is made now, or one that a browser has saved (HAR).

    Of a visit the addresses and the answers are taken; what somebody typed is seen by nobody, and is to be filled in.
    Of a HAR file pages and what scripts asked for are taken, cookies and passwords never: fields that sound like one
    become secrets.
    """
    if visit == (har is not None):
        raise InvalidInput("give --visit or --har FILE", field="visit", hint="one of the two")
    made = _visit(here, name, address, since) if har is None else _saved(here, name, har)
    text, secrets = made["text"], made["secrets"]
    if check is not None:
        here.client.send("PUT", path(name, f"checks/{segment(check)}"), {"text": text})
    if here.json:
        emit({**made, "added": check})
    elif check is None:
        say(text.rstrip())
    else:
        say(f"{clean(name)} has {clean(check)}")
    for each in made["unfilled"]:
        note(f"Put in what was typed: {clean(each)}")
    for secret in secrets:
        note(f"It needs the secret {clean(secret)}: alveole check secret {clean(name)} {clean(secret)}")


def _visit(here: Here, name: str, address: str, since: str | None) -> Any:
    import time

    problems = parse.Problems()
    ago = parse.age(since, "since", problems) if since is not None else None
    problems.stop()
    site = here.client.get(path(name))
    began = time.time() - (ago or 0)
    if ago is None:
        if here.json or not interactive():
            raise InvalidInput("is needed where nobody can be asked", field="since", hint="add --since 5m")
        note(f"Open {clean(site['urls'][0])} in a browser and do what is to be checked.")
        click.prompt("Press Enter when it is done", default="", show_default=False, prompt_suffix=" ", err=True)
    return here.client.send("POST", path(name, "checks/record"), {"since": began, "address": address}, patience=60.0)


def _saved(here: Here, name: str, har: str) -> dict[str, Any]:
    from urllib.parse import urlsplit

    from alveole.scenarios import har as archive

    site = here.client.get(path(name))
    hosts = frozenset(urlsplit(url).hostname or "" for url in site["urls"])
    try:
        content = Path(har).read_bytes()
    except OSError as error:
        raise InvalidInput(f"{har} cannot be read: {error.strerror}", field="har") from None
    text, secrets = archive.scenario(content, hosts)
    return {"text": text, "secrets": secrets, "unfilled": ()}


@verb(group, "secret", examples=["alveole check secret blog password", "alveole check secret blog --list"])
@site_name
@click.argument("secret", metavar="[SECRET]", required=False)
@click.option("--remove", "gone", is_flag=True, help="Remove it.")
@click.option("--list", "listed", is_flag=True, help="Only the names of those that are there.")
def secret(here: Here, name: str, secret: str | None, gone: bool, listed: bool) -> None:
    """Keep a value that scenarios use as ${secret:NAME}. It is read from standard input and never shown again."""
    if listed or secret is None:
        found = here.client.get(path(name, "check-secrets"))
        if here.json:
            emit(found)
        else:
            say("\n".join(map(clean, found)) or "none")
        return
    place = path(name, f"check-secrets/{segment(secret)}")
    if gone:
        here.client.send("DELETE", place)
    else:
        shown = interactive()
        value = click.prompt("Value", hide_input=True, err=True) if shown else sys.stdin.read().rstrip("\r\n")
        here.client.send("PUT", place, {"value": value})
    if here.json:
        emit({"secret": secret, "there": not gone})
    else:
        say(f"{clean(secret)} is {'gone' if gone else 'kept'}")
