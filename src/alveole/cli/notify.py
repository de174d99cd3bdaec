"""``alveole notify``: who is told of what, and how."""

from __future__ import annotations

import sys
from typing import Any

import click

from alveole.cli import reading
from alveole.cli.output import emit, fields, mark, note, say, table, when
from alveole.cli.verbs import Here, Tree, complete, verb
from alveole.errors import InvalidInput
from alveole.remote.apiclient import segment
from alveole.text import clean


@click.group("notify", cls=Tree)
def group() -> None:
    """Be told by mail, webhook, ntfy, Matrix or feed."""


@click.group("mail", cls=Tree)
def mail() -> None:
    """The server that takes Alvéole's mail."""


group.add_command(mail)
channel_name = click.argument("channel", metavar="CHANNEL", shell_complete=complete("/v1/channels", "name"))


@verb(
    group,
    "add",
    examples=[
        "alveole notify add mails --mail ana@school.example --for ana",
        "alveole notify add chat --webhook https://chat.example/hooks/x --for team:shop --event deploy --event check",
        "alveole notify add phone --ntfy https://ntfy.example/our-topic --event incident",
        "alveole notify add room --matrix 'https://matrix.example/!abc:matrix.example' --token-stdin < token",
        "alveole notify add reader --feed --for site:blog",
    ],
)
@click.argument("name", metavar="CHANNEL")
@click.option("--mail", "address", metavar="ADDRESS", help="Mail to this address.")
@click.option("--webhook", metavar="URL", help="POST to this address, signed.")
@click.option("--ntfy", metavar="URL", help="Publish to this topic of ntfy.")
@click.option("--matrix", metavar="URL", help="Say it in a room of Matrix: https://HOST/!ROOM:SERVER.")
@click.option("--token-stdin", is_flag=True, help="What lets us in there, from standard input (ntfy, Matrix).")
@click.option("--feed", is_flag=True, help="An Atom feed at an address that only you are told.")
@click.option("--for", "whom", metavar="WHOM", help="A person, team:NAME or site:NAME. Default: yourself.")
@click.option(
    "--event",
    "events",
    multiple=True,
    metavar="KIND",
    help="deploy, rollback, check, repair, backup, sleep, site, platform, failed, incident. "
    "Default: deploy, rollback, check, failed, incident.",
)
def add(
    here: Here,
    name: str,
    address: str | None,
    webhook: str | None,
    ntfy: str | None,
    matrix: str | None,
    token_stdin: bool,
    feed: bool,
    whom: str | None,
    events: tuple[str, ...],
) -> None:
    """Add a channel. It tells what whoever it is for may look at, at that moment."""
    given = {"mail": address, "webhook": webhook, "ntfy": ntfy, "matrix": matrix, "feed": "" if feed else None}
    given = {kind: to for kind, to in given.items() if to is not None}
    if len(given) != 1:
        raise InvalidInput("give exactly one of --mail, --webhook, --ntfy, --matrix and --feed", field="kind")
    kind, to = next(iter(given.items()))
    token = sys.stdin.readline().strip() if token_stdin else ""
    body = {"name": name, "kind": kind, "to": to, "whom": whom, "events": list(events), "token": token}
    found = here.client.send("POST", "/v1/channels", body)
    if here.json:
        emit(found)
        return
    say(f"{clean(found['whom'])} is told by {clean(found['name'])} of {', '.join(found['events'])}")
    if kind == "webhook":
        say(f"  its signature is made with {clean(found['secret'])}")
        note("This is shown only now.")
    elif kind == "feed":
        say(f"  it is at {clean(found['secret'])} below the address of the pages or the API")
        note("This is shown only now. Whoever has it can read the feed.")


@verb(group, "list", examples=["alveole notify list", "alveole notify list --json"])
def list_(here: Here) -> None:
    """List the channels that you may change."""
    found = here.client.get("/v1/channels")
    if here.json:
        emit(found)
    elif not found:
        note("There is none. Add one: alveole notify add CHANNEL --mail ADDRESS")
    else:
        rows = [
            (
                clean(each["name"]),
                clean(each["whom"]),
                each["kind"],
                clean(each["to"]) or "-",
                ", ".join(each["events"]),
                str(each["waiting"]),
                clean(each["problem"]),
            )
            for each in found
        ]
        table(("CHANNEL", "FOR", "BY", "TO", "OF", "WAITING", "LAST PROBLEM"), rows, right="WAITING", flexible=6)


@verb(
    group,
    "set",
    examples=[
        "alveole notify set mails --event check --event failed",
        "alveole notify set chat --to https://chat.example/x",
    ],
)
@channel_name
@click.option("--name", "fresh", metavar="NAME", help="Another name.")
@click.option("--to", metavar="ADDRESS|URL", help="Another receiver; the secret that webhooks are signed with stays.")
@click.option("--event", "events", multiple=True, metavar="KIND", help="Kinds of news, instead of those so far.")
def set_(here: Here, channel: str, fresh: str | None, to: str | None, events: tuple[str, ...]) -> None:
    """Change a channel."""
    given = {"name": fresh, "to": to, "events": list(events) or None}
    body = {key: value for key, value in given.items() if value is not None}
    found = here.client.send("PATCH", f"/v1/channels/{segment(channel)}", body)
    if here.json:
        emit(found)
    else:
        say(f"{clean(found['whom'])} is told by {clean(found['name'])} of {', '.join(found['events'])}")


@verb(group, "log", examples=["alveole notify log mails", "alveole notify log mails --json"])
@channel_name
def log(here: Here, channel: str) -> None:
    """List what a channel was last to tell, and what came of it."""
    found = here.client.get(f"/v1/channels/{segment(channel)}/messages")
    if here.json:
        emit(found)
    elif not found:
        note("Nothing was told in the last days.")
    else:
        rows = [
            (
                when(each["at"], short=True),
                f"{each['verb']} {clean(each['site'])}".rstrip(),
                each["told"],
                str(each["attempts"]),
                clean(each["problem"]),
            )
            for each in found
        ]
        table(("WHEN", "OF", "STATE", "ATTEMPTS", "LAST PROBLEM"), rows, right="ATTEMPTS", flexible=4)


@verb(group, "remove", examples=["alveole notify remove mails"])
@channel_name
def remove(here: Here, channel: str) -> None:
    """Remove a channel. What still waits in it is not told any more."""
    here.client.send("DELETE", f"/v1/channels/{segment(channel)}")
    if here.json:
        emit({"removed": channel})
    else:
        say(f"{clean(channel)} is gone")


@verb(
    group,
    "test",
    examples=["alveole notify test mails"],
    statuses="0 the receiver took it, 3 it did not, 1 a fault of Alvéole, 2 wrong input, 4 not found, 5 temporary",
)
@channel_name
def test(here: Here, channel: str) -> int:
    """Tell a channel something made up, now, and say what came."""
    found = here.client.send("POST", f"/v1/channels/{segment(channel)}/test")
    if here.json:
        emit(found)
    else:
        say(f"{mark(found['ok'])} {clean(found['came'])}")
    return 0 if found["ok"] else 3


@verb(mail, "set", examples=["alveole notify mail set mail.toml"])
@click.argument("file", metavar="FILE")
def mail_set(here: Here, file: str) -> None:
    """Take the settings of the mail server from a TOML file: host, sender, port, tls, user, password.

    certificates_file names a PEM file of the authorities to trust.
    """
    _print(here, here.client.send("PUT", "/v1/mail", reading.pems(reading.toml(file), "certificates")))


@verb(mail, "show", examples=["alveole notify mail show"])
def mail_show(here: Here) -> None:
    """Show the settings; the password in them is hidden."""
    _print(here, here.client.get("/v1/mail"))


@verb(mail, "remove", examples=["alveole notify mail remove"])
def mail_remove(here: Here) -> None:
    """Send no mail any more."""
    here.client.send("DELETE", "/v1/mail")
    if here.json:
        emit({"removed": True})
    else:
        say("No mail is sent any more.")


def _print(here: Here, found: dict[str, Any]) -> None:
    if here.json:
        emit(found)
    else:
        fields([(name, clean(str(value))) for name, value in found.items()])
