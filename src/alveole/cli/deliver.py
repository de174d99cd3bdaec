"""``alveole app send``, ``accept``, ``deliver``, ``deploy``, ``rollback``: a version on its way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from alveole.cli import follow, parse
from alveole.cli.app import app_name, environment_name, path, versions
from alveole.cli.create import upload
from alveole.cli.output import emit, note, paint, say, size, table, when
from alveole.cli.verbs import Here, interactive, verb
from alveole.errors import InvalidInput, Refused
from alveole.text import clean

version_name = click.argument("version", metavar="VERSION")
reason_option = click.option("--pass", "reason", metavar="REASON", help="Pass the life cycle (administrators only).")


@verb(
    None,
    "send",
    waits=True,
    examples=[
        "alveole app send shop shop-2.6.tar.gz --version 2.6 --note 'New basket'",
        "alveole app send shop ./build --version 2.7-rc1",
        "alveole app send shop shop-2.6.tar.gz --version 2.6 --signature shop-2.6.tar.gz.minisig",
        "alveole app send shop --work alpha --version 2.7",
    ],
)
@app_name
@click.argument("source", metavar="[ARCHIVE|DIR]", required=False)
@click.option("--work", metavar="ENV", help="Of the working copy of this environment, as SFTP and git have filled it.")
@click.option("--version", required=True, metavar="VERSION", help="How it is called from now on: 2.6.")
@click.option("--note", "remark", metavar="TEXT", help="What is new; kept with it.")
@click.option(
    "--signature", metavar="FILE", help="Made with: minisign -S -m ARCHIVE, or gpg --armor --detach-sign ARCHIVE."
)
def send(
    here: Here,
    name: str,
    source: str | None,
    work: str | None,
    version: str,
    remark: str | None,
    signature: str | None,
) -> None:
    """Send a version: an archive (.tar.gz, .tar.zst, .zip) or a directory. What was sent never changes."""
    problems = parse.Problems()
    if (source is None) == (work is None):
        problems.add("source", "give an archive or a directory, or --work", "one of the two")
    elif source is not None and not Path(source).exists():
        problems.add("source", f"there is no {source!r}", "check the path")
    elif signature is not None and (source is None or Path(source).is_dir()):
        problems.add("signature", "only an archive can be signed", "pack it, and sign the archive")
    body: dict[str, Any] = {"version": version, "note": remark or ""}
    if signature is not None:
        body["signature"] = parse.text_of(signature, "signature", problems)
    problems.stop()
    here.client.get(path(name))
    if source is not None:
        body["upload"] = upload(here, source)
    else:
        body["work"] = work
    change = here.client.send("POST", path(name, "versions"), body)

    def done(ended: dict[str, Any]) -> None:
        found = here.client.get(path(name, "versions", version))
        diff = found["difference"]
        what = f"{found['files']} files, {size(found['bytes'])}, {found['release'][:19]}"
        say(f"{clean(version)}: {what}{follow.took(ended)}")
        if found["against"]:
            words = f"{diff['added']} added, {diff['changed']} changed, {diff['removed']} removed"
            say(f"against {clean(found['against'])}: {words}")
        if found["state"] == "waiting":
            note(f"It waits. Accept it: alveole app accept {clean(name)} {clean(version)}")

    follow.finish(here, change, done, lambda _ended: here.client.get(path(name, "versions", version)))


def _decide(here: Here, name: str, version: str, accept: bool, reason: str) -> None:
    found = here.client.send("POST", path(name, "versions", version, "decision"), {"accept": accept, "reason": reason})
    if here.json:
        emit(found)
    else:
        versions([found])


@verb(None, "accept", examples=["alveole app accept shop 2.6"])
@app_name
@version_name
def accept(here: Here, name: str, version: str) -> None:
    """Accept a version that was sent: it may be delivered from now on."""
    _decide(here, name, version, True, "")


@verb(None, "refuse", examples=["alveole app refuse shop 2.6 --reason 'The basket is broken'"])
@app_name
@version_name
@click.option("--reason", default="", metavar="TEXT", help="Why; kept with it.")
def refuse(here: Here, name: str, version: str, reason: str) -> None:
    """Refuse a version that was sent: it is delivered nowhere."""
    _decide(here, name, version, False, reason)


@verb(None, "forget", examples=["alveole app forget shop 2.4"])
@app_name
@version_name
def forget(here: Here, name: str, version: str) -> None:
    """Forget a version that is in no environment, and remove its files."""
    here.client.send("DELETE", path(name, "versions", version))
    if here.json:
        emit({"app": name, "version": version, "forgotten": True})
    else:
        say(f"Version {clean(version)} of {clean(name)} is forgotten.")


def _finish(here: Here, change: dict[str, Any], name: str, text: str) -> None:
    def done(ended: dict[str, Any]) -> None:
        say(f"{text}{follow.took(ended)}")
        if backup := (ended.get("result") or {}).get("backup"):
            say(f"  its data as they were before: backup {clean(str(backup))}")

    follow.finish(here, change, done, lambda _ended: here.client.get(path(name)))


@verb(
    None,
    "deliver",
    waits=True,
    examples=["alveole app deliver shop alpha 2.6", "alveole app deliver shop prod 2.6 --pass 'Urgent: CVE-2026-1'"],
)
@app_name
@environment_name
@version_name
@reason_option
def deliver(here: Here, name: str, environment: str, version: str, reason: str | None) -> None:
    """Bring a version into an environment: unpacked, built, compared. What runs there is not touched."""
    body = {"version": version, "reason": reason or ""}
    change = here.client.send("POST", path(name, "environments", environment, "deliver"), body)
    where = clean(environment).upper()
    _finish(
        here,
        change,
        name,
        f"{clean(version)} lies ready in {where}: alveole app deploy {clean(name)} {clean(environment)}",
    )


@verb(None, "approve", examples=["alveole app approve shop prod 2.6"])
@app_name
@environment_name
@version_name
def approve(here: Here, name: str, environment: str, version: str) -> None:
    """Say that what is delivered may go live. Who deploys it does not count."""
    found = here.client.send("POST", path(name, "environments", environment, "approve"), {"version": version})
    if here.json:
        emit(found)
        return
    own = next(each for each in found["environments"] if each["name"] == environment.lower())
    people = ", ".join(each["by"] for each in own["delivered"]["approvals"])
    say(f"{clean(version)} in {clean(environment).upper()} is approved by {clean(people)}")


@verb(
    None,
    "deploy",
    waits=True,
    examples=[
        "alveole app deploy shop alpha",
        "alveole app deploy shop prod --dry-run",
        "alveole app deploy shop prod --version 2.6 --no-wait",
    ],
)
@app_name
@environment_name
@click.option("--version", metavar="VERSION", help="Refuse when something else is delivered.")
@reason_option
@click.option("--dry-run", is_flag=True, help="Say what would be done and what speaks against it, but do nothing.")
def deploy(here: Here, name: str, environment: str, version: str | None, reason: str | None, dry_run: bool) -> None:
    """Make live what is delivered. When it does not get ready, or a check fails, the old version serves again."""
    body: dict[str, Any] = {"reason": reason or ""}
    if version is not None:
        body["version"] = version
    where = path(name, "environments", environment, "deploy")
    if dry_run:
        _plan(here, here.client.send("POST", where, body, query={"dry_run": True}))
        return
    change = here.client.send("POST", where, body)
    live = clean(str(change["result"]["version"]))
    _finish(here, change, name, f"{clean(environment).upper()} of {clean(name)} serves {live}")


@verb(
    None,
    "rollback",
    waits=True,
    examples=[
        "alveole app rollback shop prod",
        "alveole app rollback shop prod --to 2.4 --with-data --reason 'Orders are lost'",
        "alveole app rollback shop prod --dry-run",
    ],
)
@app_name
@environment_name
@click.option("--to", "version", metavar="VERSION", help="Which; default: the one that was live before.")
@click.option("--with-data", is_flag=True, help="Bring back too what was saved before the present version came.")
@click.option("--reason", default="", metavar="TEXT", help="Why; kept in the journal.")
@click.option("--yes", is_flag=True, help="Do not ask before data are brought back.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, but do nothing.")
def rollback(
    here: Here,
    name: str,
    environment: str,
    version: str | None,
    with_data: bool,
    reason: str,
    yes: bool,
    dry_run: bool,
) -> None:
    """Make a version live again that was, with the configuration and the answers it had."""
    body: dict[str, Any] = {"with_data": with_data, "reason": reason}
    if version is not None:
        body["version"] = version
    where = path(name, "environments", environment, "rollback")
    if dry_run:
        _plan(here, here.client.send("POST", where, body, query={"dry_run": True}))
        return
    if with_data and not yes:
        if here.json or not interactive():
            raise InvalidInput("is needed where nobody can be asked", field="yes", hint="add --yes")
        plan = here.client.send("POST", where, body, query={"dry_run": True})
        note(f"What came into {clean(environment).upper()} since {clean(plan['before'])} was deployed is lost.")
        if (
            click.prompt("Type the environment's name to go on", default="", show_default=False, err=True)
            != environment
        ):
            raise Refused("that is not its name; nothing was done")
    if not with_data and not here.json:
        _offer_data(here, name, environment)
    change = here.client.send("POST", where, body)
    live = clean(str(change["result"]["version"]))
    _finish(here, change, name, f"{clean(environment).upper()} of {clean(name)} serves {live} again")


def _offer_data(here: Here, name: str, environment: str) -> None:
    """Say, where the live version had its data saved, that they can come back too."""
    found = here.client.get(path(name))["environments"]
    own = next((each for each in found if each["name"] == environment.lower()), None)
    if own is not None and own["saved"] and own["live"]:
        saved = f"{size(own['saved']['bytes'])}, {when(own['saved']['created_at'], short=True)}"
        before = clean(own["live"]["version"])
        note(f"The data stay as they are. Those from before {before} ({saved}) come back with --with-data.")


def _plan(here: Here, plan: dict[str, Any]) -> None:
    if here.json:
        emit(plan)
        return
    say(f"{clean(plan['environment']).upper()}: {clean(plan['before']) or 'nothing'} → {clean(plan['version'])}")
    for step in plan["steps"]:
        say(f"  {clean(step)}")
    for question, change in plan["answers"].items():
        say(f"  {clean(question)}: {clean(change)}")
    for each in plan["configuration"]:
        say(f"  /config/{clean(each['path'])} {clean(each['fate'])}")
    for problem in plan["refused"]:
        say(f"  {paint('✗', 'red')} {clean(problem)}")
    say("Nothing was done.")


@verb(None, "history", examples=["alveole app history shop", "alveole app history shop --env prod"])
@app_name
@click.option("--env", "environment", metavar="ENV", help="Only of this environment.")
def history(here: Here, name: str, environment: str | None) -> None:
    """Every version that came into an environment, newest first. alveole change show has the whole log."""
    found = here.client.get(path(name, "history"), {"environment": environment})
    if here.json:
        emit(found)
        return
    rows = [
        (
            clean(each["environment"]).upper(),
            clean(each["version"]),
            clean(each["stage"]) + (" (rolled back)" if each["went_back"] and each["stage"] == "left" else ""),
            when(each["live_at"] or each["created_at"], short=True),
            clean(each["by"]),
            clean(each["change"]),
        )
        for each in found
    ]
    table(("ENVIRONMENT", "VERSION", "STAGE", "SINCE", "BY", "CHANGE"), rows)


@verb(
    None,
    "compare",
    examples=["alveole app compare shop 2.5 2.6", "alveole app compare shop 2.5 2.6 --env prod --json"],
)
@app_name
@click.argument("one", metavar="VERSION")
@click.argument("other", metavar="VERSION")
@click.option("--env", "environment", metavar="ENV", help="Whose configuration; default: the last that had both.")
def compare(here: Here, name: str, one: str, other: str, environment: str | None) -> None:
    """Say what differs between two versions: files, configuration, answers."""
    found = here.client.get(path(name, "compare"), {"one": one, "other": other, "environment": environment})
    if here.json:
        emit(found)
        return
    files = found["files"]
    say(f"{clean(found['one'])} → {clean(found['other'])}")
    say(f"files: {files['added']} added, {files['changed']} changed, {files['removed']} removed")
    for each in files["names"]:
        say(f"  {clean(each)}")
    if (more := files["added"] + files["changed"] + files["removed"] - len(files["names"])) > 0:
        say(f"  and {more} more")
    if not found["environment"]:
        note("No environment has had both: there is no configuration to compare.")
        return
    where = clean(found["environment"]).upper()
    for word, change in (*found["settings"].items(), *found["answers"].items()):
        say(f"{clean(word)}: {clean(change)}")
    for each in found["configuration"]:
        say(f"/config/{clean(each['path'])} {clean(each['fate'])}")
        for line in each["diff"].splitlines():
            say(f"  {clean(line)}")
    if not found["configuration"] and not found["answers"] and not found["settings"]:
        say(f"configuration and answers in {where}: the same")
