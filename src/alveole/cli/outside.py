"""``alveole ldap`` and ``oidc``."""

from __future__ import annotations

import sys
from typing import Any

import click

from alveole.cli import reading
from alveole.cli.output import emit, fields, mark, say
from alveole.cli.verbs import Here, Tree, verb
from alveole.text import clean


@click.group("ldap", cls=Tree)
def ldap() -> None:
    """People from an LDAP directory. Local accounts go on beside it."""


def _print(here: Here, found: dict[str, Any]) -> None:
    if here.json:
        emit(found)
        return
    mapping = found.pop("mapping")
    shown = [(name, clean(" ".join(value) if isinstance(value, list) else str(value))) for name, value in found.items()]
    shown += [(f"{group} is", clean(role)) for group, role in mapping["roles"].items()]
    shown += [("anybody else is", clean(mapping["default_role"] or "nobody"))]
    shown += [(f"{group} is in team", clean(team)) for group, team in mapping["teams"].items()]
    fields(shown)


@verb(ldap, "show", examples=["alveole ldap show"])
def ldap_show(here: Here) -> None:
    """Show the settings; the password in them is hidden."""
    _print(here, here.client.get("/v1/ldap"))


@verb(ldap, "set", examples=["alveole ldap set school.toml"])
@click.argument("file", metavar="FILE")
def ldap_set(here: Here, file: str) -> None:
    """Take the settings from a TOML file. Try them first: alveole ldap try NAME --file FILE.

    certificates_file names a PEM file of the authorities to trust.
    """
    _print(here, here.client.send("PUT", "/v1/ldap", reading.pems(reading.toml(file), "certificates")))


@verb(ldap, "remove", examples=["alveole ldap remove"])
def ldap_remove(here: Here) -> None:
    """Let nobody come from the directory any more. Their accounts and sites stay."""
    here.client.send("DELETE", "/v1/ldap")
    if here.json:
        emit({"removed": True})
    else:
        say("Nobody comes from an LDAP directory any more.")


@verb(
    ldap,
    "try",
    examples=["alveole ldap try ana", "alveole ldap try ana --file school.toml --password-stdin < secret"],
    statuses="0 they would come in, 3 they would not, and the others of every command",
)
@click.argument("name", metavar="NAME")
@click.option("--file", metavar="FILE", help="Settings to try; default: those that are stored.")
@click.option("--password-stdin", is_flag=True, help="Try their password too, read from standard input.")
def ldap_try(here: Here, name: str, file: str | None, password_stdin: bool) -> int:
    """Say step by step what signing somebody in comes to at each server. Nothing is kept."""
    body: dict[str, Any] = {"name": name}
    if file is not None:
        body["settings"] = reading.pems(reading.toml(file), "certificates")
    if password_stdin:
        body["password"] = sys.stdin.readline().rstrip("\n")
    found = here.client.send("POST", "/v1/ldap/try", body)
    if here.json:
        emit(found)
        return 0 if found["ok"] else 3
    for link in found["links"]:
        say(f"{mark(link['ok'])} {clean(link['name'])}  {clean(link['asked'])}: {clean(link['came'])}")
        if link["cure"]:
            say(f"    {clean(link['hint'])}")
    fields(
        (
            ("name", clean(found["name"])),
            ("called", clean(found["title"])),
            ("mail", clean(found["email"])),
            ("groups", clean(", ".join(found["groups"]))),
            ("role", clean(found["role"]) or "none: no group of theirs lets them in"),
            ("teams", clean(", ".join(found["teams"]))),
        )
    )
    return 0 if found["ok"] else 3


@click.group("oidc", cls=Tree)
def oidc() -> None:
    """People from an OpenID provider. Local accounts go on beside it."""


@verb(oidc, "show", examples=["alveole oidc show"])
def oidc_show(here: Here) -> None:
    """Show the settings; the secret in them is hidden."""
    _print(here, here.client.get("/v1/oidc"))


@verb(oidc, "set", examples=["alveole oidc set school.toml"])
@click.argument("file", metavar="FILE")
def oidc_set(here: Here, file: str) -> None:
    """Take the settings from a TOML file. certificates_file names a PEM file of the authorities to trust."""
    _print(here, here.client.send("PUT", "/v1/oidc", reading.pems(reading.toml(file), "certificates")))


@verb(oidc, "remove", examples=["alveole oidc remove"])
def oidc_remove(here: Here) -> None:
    """Let nobody come from the provider any more. Their accounts and sites stay."""
    here.client.send("DELETE", "/v1/oidc")
    if here.json:
        emit({"removed": True})
    else:
        say("Nobody comes from an OpenID provider any more.")
