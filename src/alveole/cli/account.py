"""``alveole account``."""

from __future__ import annotations

import sys
from typing import Any

import click

from alveole.cli import parse, reading
from alveole.cli.output import emit, fields, note, say, table, when
from alveole.cli.verbs import Here, Tree, complete, interactive, verb
from alveole.errors import InvalidInput
from alveole.remote.apiclient import segment
from alveole.text import clean

ROLES = "administrator, operator (all sites, no accounts), owner (their own) or reader (looks only)"


@click.group("account", cls=Tree)
def group() -> None:
    """People: who they are, what they may do, and how they come in."""


account_name = click.argument("name", metavar="NAME", shell_complete=complete("/v1/accounts"))
stdin_password = click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")


def _path(name: str) -> str:
    return f"/v1/accounts/{segment(name)}"


def _typed() -> str:
    """The password from standard input: never an argument, which every process of the machine can see."""
    return sys.stdin.readline().rstrip("\n")


@verb(group, "list", examples=["alveole account list", "alveole account list --json"])
def list_(here: Here) -> None:
    """List accounts with their roles and teams."""
    found = here.client.get("/v1/accounts")
    if here.json:
        emit(found)
        return
    if not found:
        note("There is no account. Make the first: alveole account first-token")
        return
    rows = [
        (
            clean(item["name"]),
            clean(item["role"]) + ("" if item["active"] else " (disabled)"),
            clean(item["source"]),
            str(item["sites"]),
            when(item["seen_at"], short=True),
            clean(", ".join(item["teams"])),
        )
        for item in found
    ]
    table(("NAME", "ROLE", "FROM", "SITES", "SEEN", "TEAMS"), rows, right="SITES")


@verb(group, "show", examples=["alveole account show ana"])
@account_name
def show(here: Here, name: str) -> None:
    """Show one account."""
    _show(here, here.client.get(_path(name)))


def _show(here: Here, item: dict[str, Any]) -> None:
    if here.json:
        emit(item)
        return
    fields(
        (
            ("name", clean(item["name"])),
            ("called", clean(item["title"])),
            ("mail", clean(item["email"])),
            ("role", clean(item["role"])),
            ("may come in", "yes" if item["active"] else "no"),
            ("comes from", clean(item["source"])),
            ("teams", clean(", ".join(item["teams"]))),
            ("second factors", clean(", ".join(item["factors"]))),
            ("sites", str(item["sites"])),
            ("made", when(item["created_at"])),
            ("seen", when(item["seen_at"])),
        )
    )
    if item.get("token"):
        note("With this token they choose a password; it is shown this once:")
        say(item["token"])


@verb(
    group,
    "add",
    examples=[
        "alveole account add ana",
        "alveole account add olga --role operator --title 'Olga Ruiz' --email olga@example.org",
        "alveole account add break-glass --role administrator --password-stdin < secret",
    ],
)
@click.argument("name", metavar="NAME")
@click.option("--role", default="owner", show_default=True, metavar="ROLE", help=f"{ROLES}.")
@click.option("--title", default="", metavar="TEXT", help="What people call them.")
@click.option("--email", default="", metavar="ADDRESS", help="Where they get mail.")
@stdin_password
def add(here: Here, name: str, role: str, title: str, email: str, password_stdin: bool) -> None:
    """Add a local account. Without a password, a token with which the person chooses one is printed."""
    body: dict[str, object] = {"name": name, "role": role, "title": title, "email": email}
    if password_stdin:
        body["password"] = _typed()
    _show(here, here.client.send("POST", "/v1/accounts", body))


@verb(
    group,
    "set",
    examples=["alveole account set ana --role operator", "alveole account set ana --title 'Ana Lopes'"],
)
@account_name
@click.option("--role", metavar="ROLE", help=f"{ROLES}.")
@click.option("--title", metavar="TEXT", help="What people call them.")
@click.option("--email", metavar="ADDRESS", help="Where they get mail.")
def set_(here: Here, name: str, **given: str | None) -> None:
    """Change an account; who is signed in has the new role at the next request."""
    body = {key: value for key, value in given.items() if value is not None}
    _show(here, here.client.send("PATCH", _path(name), body))


@verb(group, "disable", examples=["alveole account disable ana", "alveole account disable ana --undo"])
@account_name
@click.option("--undo", is_flag=True, help="Let them come in again.")
def disable(here: Here, name: str, undo: bool) -> None:
    """Shut a person out at once: sessions, tokens and keys. Sites stay as they are."""
    _show(here, here.client.send("PATCH", _path(name), {"active": undo}))


@verb(group, "remove", examples=["alveole account remove ana"])
@account_name
def remove(here: Here, name: str) -> None:
    """Remove an account. Its sites stay, and belong to nobody until they are given to somebody."""
    here.client.send("DELETE", _path(name))
    if here.json:
        emit({"account": name, "removed": True})
    else:
        say(f"The account {clean(name)} is gone.")


@verb(
    group,
    "password",
    examples=["alveole account password ana", "alveole account password ana --invite"],
)
@account_name
@click.option("--invite", is_flag=True, help="Print a token with which the person chooses one instead.")
@stdin_password
def password(here: Here, name: str, invite: bool, password_stdin: bool) -> None:
    """Set the password of a local account. Every session of theirs ends."""
    if invite:
        made = here.client.send("POST", f"{_path(name)}/invitation")
        if here.json:
            emit(made)
        else:
            note(f"Good once, until {when(made['expires_at'])}:")
            say(made["token"])
        return
    if password_stdin:
        typed = _typed()
    elif interactive():
        typed = click.prompt("New password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        raise InvalidInput("no password", field="password", hint="--password-stdin, or --invite")
    here.client.send("PUT", f"{_path(name)}/password", {"password": typed})
    if here.json:
        emit({"account": name, "changed": True})
    else:
        say(f"The password of {clean(name)} is changed.")


@verb(group, "first-token", examples=["alveole account first-token", "alveole account first-token --json"])
def first_token(here: Here) -> None:
    """Print a token that makes the first administrator. Good once; an earlier one ends."""
    made = here.client.send("POST", "/v1/first-token")
    if here.json:
        emit(made)
        return
    note(f"Good once, until {when(made['expires_at'])}. It makes an administrator:")
    say(made["token"])


@verb(group, "token", examples=["alveole account token ana", "alveole account token ana --delete tq5h3kzexample"])
@account_name
@click.option("--delete", metavar="ID", help="Delete this one instead; whoever has it is shut out at once.")
def tokens(here: Here, name: str, delete: str | None) -> None:
    """List the API tokens of a person. They make their own, in the pages or by the API."""
    if delete is not None:
        here.client.send("DELETE", f"/v1/tokens/{segment(delete)}")
        if here.json:
            emit({"token": delete, "deleted": True})
        else:
            say(f"The token {clean(delete)} is gone.")
        return
    found = here.client.get("/v1/tokens", {"account": name})
    if here.json:
        emit(found)
        return
    rows = [
        (
            clean(item["id"]),
            clean(" ".join(item["scope"]) or "all"),
            clean(" ".join(item["sites"]) or "all"),
            when(item["expires_at"], short=True) if item["expires_at"] else "never",
            when(item["last_used_at"], short=True),
            clean(item["name"]),
        )
        for item in found
    ]
    table(("ID", "SCOPE", "SITES", "EXPIRES", "USED", "NAME"), rows)


@verb(
    group,
    "factors",
    examples=["alveole account factors ana", "alveole account factors ana --remove all"],
)
@account_name
@click.option("--remove", metavar="ID|all", help="Remove this one, or all of them, instead: they lost the device.")
def factors(here: Here, name: str, remove: str | None) -> None:
    """List the second factors of a person, or remove them."""
    if remove is not None:
        here.client.send("DELETE", f"/v1/factors/{segment(remove)}", query={"account": name})
        if here.json:
            emit({"factor": remove, "removed": True})
        else:
            say("It is removed.")
        return
    found = here.client.get("/v1/factors", {"account": name})
    if here.json:
        emit(found)
        return
    rows = [
        (
            clean(item["id"]),
            clean(item["kind"]),
            when(item["created_at"], short=True),
            when(item["used_at"], short=True),
            clean(item["name"]),
        )
        for item in found
    ]
    table(("ID", "KIND", "SINCE", "USED", "NAME"), rows)


@verb(
    group,
    "second-factor",
    examples=[
        "alveole account second-factor",
        "alveole account second-factor --require administrator,operator",
        "alveole account second-factor --require none",
    ],
)
@click.option("--require", metavar="ROLES|none", help="From the next sign-in on; in place of those before.")
def second_factor(here: Here, require: str | None) -> None:
    """Show or say of which roles a second factor is required."""
    if require is None:
        found = here.client.get("/v1/second-factor")
    else:
        roles = [] if require == "none" else parse.words([require])
        found = here.client.send("PUT", "/v1/second-factor", {"roles": roles})
    if here.json:
        emit(found)
    else:
        say(clean(", ".join(found["roles"])) or "It is required of nobody.")


@verb(
    group,
    "sessions",
    examples=["alveole account sessions ana", "alveole account sessions ana --end all"],
)
@account_name
@click.option("--end", metavar="ID|all", help="End this one, or all of them, instead.")
def sessions(here: Here, name: str, end: str | None) -> None:
    """List where a person is signed in, or end it."""
    if end is not None:
        here.client.send("DELETE", f"/v1/sessions/{segment(end)}", query={"account": name})
        if here.json:
            emit({"session": end, "ended": True})
        else:
            say("It is ended.")
        return
    found = here.client.get("/v1/sessions", {"account": name})
    if here.json:
        emit(found)
        return
    rows = [
        (
            clean(item["id"]),
            clean(item["address"]),
            clean(item["method"]),
            when(item["created_at"], short=True),
            when(item["seen_at"], short=True),
            clean(item["agent"]),
        )
        for item in found
    ]
    table(("ID", "FROM", "BY", "SINCE", "SEEN", "BROWSER"), rows)


# --- keys -----------------------------------------------------------------------------------------
@group.group("key", cls=Tree)
def key() -> None:
    """Public keys, with which people come in by SSH."""


@verb(key, "list", examples=["alveole account key list ana"])
@account_name
def key_list(here: Here, name: str) -> None:
    """List the public keys of a person."""
    found = here.client.get("/v1/keys", {"account": name})
    if here.json:
        emit(found)
        return
    if not found:
        note(f"{clean(name)} has no key. Add one: alveole account key add {clean(name)} ~/.ssh/id_ed25519.pub")
        return
    rows = [
        (
            clean(item["id"]),
            clean(item["kind"]),
            clean(item["fingerprint"]),
            when(item["used_at"], short=True),
            clean(item["name"]),
        )
        for item in found
    ]
    table(("ID", "KIND", "FINGERPRINT", "USED", "NAME"), rows)


@verb(
    key,
    "add",
    examples=[
        "alveole account key add ana ~/.ssh/id_ed25519.pub",
        "alveole account key add ana - --name laptop < key.pub",
    ],
)
@account_name
@click.argument("file", metavar="FILE")
@click.option("--name", "called", metavar="TEXT", default="", help="What it is called; default: its comment.")
def key_add(here: Here, name: str, file: str, called: str) -> None:
    """Add a public key from a file; - is standard input. Ed25519, ECDSA, security keys, RSA of 2,048 bits and more."""
    made = here.client.send("POST", "/v1/keys", {"key": reading.text(file), "name": called}, query={"account": name})
    if here.json:
        emit(made)
    else:
        say(f"{clean(made['id'])}: {clean(made['kind'])} {clean(made['fingerprint'])}")


@verb(key, "remove", examples=["alveole account key remove ana k4q2x7mexample"])
@account_name
@click.argument("id", metavar="ID|FINGERPRINT|all")
def key_remove(here: Here, name: str, id: str) -> None:
    """Remove a public key, or all of them. Who is in with it stays until they leave."""
    here.client.send("DELETE", f"/v1/keys/{segment(id)}", query={"account": name})
    if here.json:
        emit({"key": id, "removed": True})
    else:
        say("It is gone.")
