"""``alveole op``: named commands of a site, and the programs that run in it."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from alveole.cli import follow, reading
from alveole.cli.output import emit, fields, note, say, seconds, size, table, when
from alveole.cli.verbs import Here, Tree, interactive, site_name, verb
from alveole.errors import InvalidInput
from alveole.remote.apiclient import segment
from alveole.text import clean

#: Between two looks at a run.
_AGAIN_SECONDS = 0.3
_STATUSES = "that of the program when it ended by itself, 3 it was cut short, 2 wrong input, 4 not found, 5 temporary"


@click.group("op", cls=Tree)
def group() -> None:
    """Operations: named commands with typed arguments, run inside of a site; and its programs."""


operation_name = click.argument("operation", metavar="OPERATION")
of_app = click.option("--app", is_flag=True, help="NAME is an application: for each of its environments.")


def path(name: str, *more: str) -> str:
    return "/".join(("/v1/sites", segment(name), *map(segment, more)))


def _whose(name: str, app: bool, operation: str) -> str:
    return "/".join(("/v1/apps" if app else "/v1/sites", segment(name), "operations", segment(operation)))


@verb(group, "list", examples=["alveole op list blog", "alveole op list blog --json"])
@site_name
def list_(here: Here, name: str) -> None:
    """List the operations of a site: those of its modules, of its application and its own."""
    found = here.client.get(path(name, "operations"))
    if here.json:
        emit(found)
    elif not found:
        note(f"There is none. Declare one: alveole op add {clean(name)} OPERATION FILE")
    else:
        rows = [
            (
                clean(each["name"]),
                clean(each["of"]),
                each["least"],
                " ".join(_asked(argument) for argument in each["arguments"]),
                clean(each["title"]["en"]),
            )
            for each in found
        ]
        table(("OPERATION", "OF", "FOR", "ARGUMENTS", "WHAT"), rows, flexible=4)


def _asked(argument: dict[str, Any]) -> str:
    text = f"{clean(argument['name'])}={argument['type']}"
    return text if argument["required"] and not argument["default"] else f"[{text}]"


@verb(
    group,
    "run",
    examples=[
        "alveole op run blog mariadb-slow-queries",
        "alveole op run blog mariadb-check --arg database=blog",
        "alveole op run blog import --secret password < password.txt",
    ],
    statuses=_STATUSES,
)
@site_name
@operation_name
@click.option("--arg", "given", multiple=True, metavar="NAME=VALUE", help="The value of an argument.")
@click.option("--secret", metavar="NAME", help="Read the value of this one from standard input, or ask for it.")
def run(here: Here, name: str, operation: str, given: tuple[str, ...], secret: str | None) -> int:
    """Run an operation inside of a site, show what it prints as it comes, and give its exit status.

    Interrupting ends it too. Its arguments and its end are in the journal.
    """
    arguments: dict[str, str] = {}
    for each in given:
        key, equals, value = each.partition("=")
        if not equals:
            raise InvalidInput(f"{each[:40]!r} is not NAME=VALUE", field="arg")
        arguments[key] = value
    if secret is not None:
        shown = interactive()
        asked = click.prompt(secret, hide_input=True, err=True) if shown else sys.stdin.read().rstrip("\r\n")
        arguments[secret] = str(asked)
    began = here.client.send("POST", path(name, "operations", operation, "run"), {"arguments": arguments})
    there = path(name, "operation-runs", began["id"])
    try:
        found = _follow(here, there)
    except KeyboardInterrupt:
        here.client.send("DELETE", there)
        raise
    if here.json:
        emit(found)
    elif found["problem"]:
        note(clean(found["problem"]))
    return 3 if found["problem"] else int(found["exit_status"] or 0)


def _follow(here: Here, there: str) -> dict[str, Any]:
    told = 0
    while True:
        found: dict[str, Any] = here.client.get(there)
        ended = found["ended_at"] is not None
        # What is whole: a line that is still being written may yet be another.
        output = found["output"] if ended else found["output"][: found["output"].rfind("\n") + 1]
        if not here.json and len(output) > told:
            for line in output[told:].removesuffix("\n").split("\n"):
                say(clean(line))
            told = len(output)
        if ended:
            return found
        time.sleep(_AGAIN_SECONDS)


@verb(group, "log", examples=["alveole op log blog", "alveole op log blog c2a4bq7xkd3wy"])
@site_name
@click.argument("run", metavar="[RUN]", required=False)
def log(here: Here, name: str, run: str | None) -> None:
    """List the last runs of operations, or show what one of them printed."""
    if run is not None:
        one = here.client.get(path(name, "operation-runs", run))
        if here.json:
            emit(one)
            return
        state = "going on" if one["ended_at"] is None else f"exit status {one['exit_status']}"
        fields(
            [
                ("operation", clean(" ".join((one["name"], *(f"{k}={v}" for k, v in one["arguments"].items()))))),
                ("by", f"{clean(one['by'])}, {when(one['started_at'])}"),
                ("end", clean(one["problem"]) or state),
            ]
        )
        say()
        for line in one["output"].splitlines():
            say(clean(line))
        return
    found = here.client.get(path(name, "operation-runs"))
    if here.json:
        emit(found)
    elif not found:
        note("None was run yet.")
    else:
        rows = [
            (
                each["id"],
                when(each["started_at"], short=True),
                clean(each["by"]),
                clean(" ".join((each["name"], *(f"{k}={v}" for k, v in each["arguments"].items())))),
                "-" if each["exit_status"] is None else str(each["exit_status"]),
                clean(each["problem"]),
            )
            for each in found
        ]
        table(("RUN", "WHEN", "WHO", "OPERATION", "STATUS", "PROBLEM"), rows, right="STATUS", flexible=3)


@verb(
    group,
    "add",
    examples=["alveole op add blog clear-cache clear-cache.toml", "alveole op add shop import import.toml --app"],
)
@site_name
@operation_name
@click.argument("file", metavar="FILE")
@of_app
def add(here: Here, name: str, operation: str, file: str, app: bool) -> None:
    """Declare an operation by a TOML file.

    Its keys: argv, title, description, [[argument]], least, seconds, output_bytes, confirm. It runs as the site's own
    user; argv is no shell line, and ${NAME} in it is the value of an argument.
    """
    raw = reading.toml(file)
    if "argument" in raw:
        raw["arguments"] = raw.pop("argument")
    found = here.client.send("PUT", _whose(name, app, operation), raw)
    if here.json:
        emit(found)
    else:
        say(f"{clean(name)} has the operation {clean(operation)}: alveole op run NAME {clean(operation)}")


@verb(group, "remove", examples=["alveole op remove blog clear-cache", "alveole op remove shop import --app"])
@site_name
@operation_name
@of_app
def remove(here: Here, name: str, operation: str, app: bool) -> None:
    """Remove an operation that was declared with op add."""
    here.client.send("DELETE", _whose(name, app, operation))
    if here.json:
        emit({"removed": operation})
    else:
        say(f"{clean(operation)} is gone")


@verb(group, "ps", examples=["alveole op ps blog", "alveole op ps blog --json"])
@site_name
def ps(here: Here, name: str) -> None:
    """List the programs that run in a site."""
    found = here.client.get(path(name, "programs"))
    if here.json:
        emit(found)
        return
    rows = [
        (
            str(each["pid"]),
            clean(each["user"]) or str(each["uid"]),
            each["state"],
            seconds(each["cpu_seconds"]),
            size(each["memory_bytes"]),
            seconds(each["seconds"]),
            clean(each["command"]) or clean(each["name"]),
        )
        for each in found["programs"]
    ]
    table(("PID", "USER", "S", "CPU", "MEMORY", "AGE", "COMMAND"), rows, right="PID CPU MEMORY AGE", flexible=6)


@verb(group, "kill", examples=["alveole op kill blog 41", "alveole op kill blog 41 --signal KILL"])
@site_name
@click.argument("pid", metavar="PID", type=int)
@click.option("--signal", type=click.Choice(["TERM", "KILL"]), default="TERM", help="Ask it to end (TERM), or end it.")
def kill(here: Here, name: str, pid: int, signal: str) -> None:
    """End one program of a site. A process that the site declares starts again by itself."""
    programs = here.client.get(path(name, "programs"))["programs"]
    started = next((each["started"] for each in programs if each["pid"] == pid), 0)
    here.client.send("POST", path(name, "programs", str(pid), "signal"), {"started": started, "signal": signal})
    if here.json:
        emit({"pid": pid, "signal": signal})
    else:
        say(f"{signal} was sent to {pid}")


@verb(group, "restart", waits=True, examples=["alveole op restart blog mariadb"])
@site_name
@click.argument("process", metavar="PROCESS")
def restart(here: Here, name: str, process: str) -> None:
    """Start one process of a site anew, and wait until the site answers again."""
    change = here.client.send("POST", path(name, "processes", process, "restart"))

    def done(ended: dict[str, Any]) -> None:
        say(f"{clean(process)} of {clean(name)} was started anew{follow.took(ended)}")

    follow.finish(here, change, done, lambda _ended: here.client.get(path(name)))
