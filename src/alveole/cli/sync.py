"""``alveole app sync``: an environment gets the content or the data of another."""

from __future__ import annotations

from typing import Any

import click

from alveole.cli import follow
from alveole.cli.app import app_name, path
from alveole.cli.output import emit, note, paint, say, size, table, when
from alveole.cli.verbs import Here, interactive, verb
from alveole.errors import InvalidInput, Refused
from alveole.text import clean


@verb(
    None,
    "sync",
    waits=True,
    examples=[
        "alveole app sync shop --from prod --to preprod --data --dry-run",
        "alveole app sync shop --from prod --to preprod --content --data --yes",
    ],
)
@app_name
@click.option("--from", "source", required=True, metavar="ENV", help="Whose content or data.")
@click.option("--to", "environment", required=True, metavar="ENV", help="What gets them; what it has is replaced.")
@click.option("--content", is_flag=True, help="The version that is live there.")
@click.option("--data", is_flag=True, help="Its volumes and databases, masked by the rules of: app set --mask.")
@click.option("--pass", "reason", metavar="REASON", help="Pass the life cycle (administrators only).")
@click.option("--yes", is_flag=True, help="Do not ask before data are replaced.")
@click.option("--dry-run", is_flag=True, help="Say what would be replaced, but do nothing.")
def sync(
    here: Here,
    name: str,
    source: str,
    environment: str,
    content: bool,
    data: bool,
    reason: str | None,
    yes: bool,
    dry_run: bool,
) -> None:
    """Give an environment the content, the data, or both, of another one. What it replaces is saved first."""
    body: dict[str, Any] = {"source": source, "content": content, "data": data, "reason": reason or ""}
    where = path(name, "environments", environment, "synchronise")
    if dry_run:
        _plan(here, here.client.send("POST", where, body, query={"dry_run": True}))
        if not here.json:
            say("Nothing was done.")
        return
    if data and not yes:
        if here.json or not interactive():
            raise InvalidInput("is needed where nobody can be asked", field="yes", hint="add --yes")
        _plan(here, here.client.send("POST", where, body, query={"dry_run": True}))
        asked = "Type the name of the environment whose data are replaced"
        if click.prompt(asked, default="", show_default=False, err=True) != environment:
            raise Refused("that is not its name; nothing was done")
    body["confirm"] = environment if data else ""
    change = here.client.send("POST", where, body)

    def done(ended: dict[str, Any]) -> None:
        what = " and ".join(word for word, asked in (("content", content), ("data", data)) if asked)
        say(f"{clean(environment).upper()} has the {what} of {clean(source).upper()}{follow.took(ended)}")
        result = ended.get("result") or {}
        if result.get("warning"):
            note(clean(str(result["warning"])))
        if backup := result.get("backup"):
            say(f"  its data as they were before: alveole backup restore {clean(str(backup))}")

    follow.finish(here, change, done, lambda _ended: here.client.get(path(name)))


def _plan(here: Here, plan: dict[str, Any]) -> None:
    if here.json:
        emit(plan)
        return
    say(f"{clean(plan['source']).upper()} → {clean(plan['environment']).upper()}")
    if plan["version"]:
        say(f"  content: {clean(plan['before']) or 'nothing'} → {clean(plan['version'])}")
    rows = [
        (
            clean(each["name"]),
            size(each["bytes"]),
            when(each["changed_at"], short=True) if each["changed_at"] else "-",
            size(each["new_bytes"]),
            when(each["new_changed_at"], short=True) if each["new_changed_at"] else "-",
        )
        for each in plan["volumes"]
    ]
    if rows:
        table(("VOLUME", "REPLACED", "OF", "BY", "OF"), rows, right="REPLACED BY")
        say("  what is replaced is saved first" if plan["saved"] else "  nothing is saved first")
        for rule in plan["masks"]:
            say(f"  masked: {clean(rule)}")
        if not plan["masks"]:
            note("No rule masks personal data: they come as they are (alveole app set --mask).")
    if plan["interruption"]:
        say(f"  {clean(plan['interruption'])}")
    for problem in plan["refused"]:
        say(f"  {paint('✗', 'red')} {clean(problem)}")
