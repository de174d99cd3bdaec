"""``alveole dns``: where the names of sites are published."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

import click

from alveole.cli import reading
from alveole.cli.look import links
from alveole.cli.output import emit, fields, note, paint, say, table, when
from alveole.cli.verbs import Here, Tree, verb
from alveole.errors import InvalidInput, NotFound
from alveole.text import clean


@click.group("dns", cls=Tree)
def group() -> None:
    """Names of sites, published in a zone of the DNS."""


#: As BIND's configuration and tsig-keygen have a key, and as Knot's keymgr writes it in one line.
_BIND_KEY = re.compile(r'key\s+"?([^"\s{]+)"?\s*\{\s*algorithm\s+"?([\w-]+)"?;\s*secret\s+"?([A-Za-z0-9+/=]+)"?;\s*\};')
_LINE_KEY = re.compile(r"^(?:#\s*)?(hmac-[\w]+):([^:\s]+):([A-Za-z0-9+/=]+)\s*$", re.MULTILINE)


def _key_of(file: str) -> dict[str, str]:
    text = reading.text(file, "key_file")
    if found := _BIND_KEY.search(text):
        name, algorithm, secret = found.groups()
    elif found := _LINE_KEY.search(text):
        algorithm, name, secret = found.groups()
    else:
        raise InvalidInput(f"{file} holds no key", field="key_file", hint="give what tsig-keygen or keymgr -t printed")
    return {"key": name.removesuffix(".").lower(), "algorithm": algorithm.lower(), "secret": secret}


def _secondary(text: str) -> dict[str, str]:
    name, equals, address = text.rpartition("=")
    return {"address": address, "name": name.removesuffix(".").lower()} if equals else {"address": text, "name": ""}


def _stored(here: Here) -> dict[str, Any]:
    try:
        found: dict[str, Any] = here.client.get("/v1/dns")["settings"]
    except NotFound:
        return {}
    return found


@verb(
    group,
    "setup",
    examples=[
        "alveole dns setup",
        "alveole dns setup --address 192.0.2.1 --address 2001:db8::1 --secondary ns2.example.org=192.0.2.53",
        "alveole dns setup --server 192.0.2.53 --key-file update.key --try",
        "alveole dns setup --undo",
    ],
    statuses="0 it is done, 3 it was tried and the server says no, and the others of every command",
)
@click.option(
    "--here", "local", is_flag=True, help="BIND on this machine. The default, unless --server was given once."
)
@click.option("--server", metavar="ADDRESS", help="A BIND or Knot elsewhere that is there already: its address.")
@click.option("--port", type=int, metavar="PORT", help="Its port. Default: 53.")
@click.option(
    "--key-file", metavar="FILE", help="Its TSIG key, as tsig-keygen or keymgr -t printed it; - for standard input."
)
@click.option("--zone", metavar="NAME", help="The zone. Default: the main domain.")
@click.option(
    "--address",
    "addresses",
    multiple=True,
    metavar="ADDRESS",
    help="A public address of this machine; auto: those that are found, and followed when they change. Several are "
    "allowed.",
)
@click.option("--alias", metavar="NAME", help="Make names aliases (CNAME) of this one; empty: no more.")
@click.option("--ttl", type=int, metavar="SECONDS", help="How long an answer may be remembered. Default: 300.")
@click.option("--wildcard/--no-wildcard", default=None, help="Let every name below the main domain lead here.")
@click.option(
    "--wildcard-of",
    "wildcards",
    multiple=True,
    metavar="SITE",
    help="Let every name below that of a site lead here. Given once, these are all of them.",
)
@click.option(
    "--secondary",
    "secondaries",
    multiple=True,
    metavar="[NAME=]ADDRESS[:PORT]",
    help="Who may fetch the zone from here and is told of changes. Given once, these are all of them.",
)
@click.option(
    "--transfer-by-key/--transfer-by-address",
    default=None,
    help="Whether secondaries must sign; the key: alveole dns show --transfer-key.",
)
@click.option("--try", "attempt", is_flag=True, help="Write a record, ask for it and remove it; store nothing.")
@click.option("--undo", is_flag=True, help="Publish nothing any more, and take away what was set up.")
def setup(here: Here, attempt: bool, undo: bool, **given: Any) -> int:
    """Publish the names of sites. Options that are not given stay as they were; again is no fault."""
    if undo:
        left = here.client.send("DELETE", "/v1/dns")["left"]
        if here.json:
            emit({"left": left})
        else:
            say("The names of sites are not published any more.")
            for line in left:
                note(clean(line))
        return 0
    wanted = _stored(here)
    if given["server"] is not None and given["local"]:
        raise InvalidInput("give --here or --server", field="server")
    if given["server"] is not None:
        wanted |= {"mode": "elsewhere", "server": given["server"]}
    elif given["local"]:
        wanted |= {"mode": "here", "server": "", "port": 53, "key": "", "secret": ""}
    for name in ("port", "zone", "alias", "ttl", "wildcard"):
        if given[name] is not None:
            wanted[name] = given[name]
    if given["transfer_by_key"] is not None:
        wanted["transfer_by_key"] = given["transfer_by_key"]
    if given["key_file"]:
        wanted |= _key_of(given["key_file"])
    if given["addresses"]:
        wanted["addresses"] = [each for each in given["addresses"] if each != "auto"]
        wanted["follow"] = not wanted["addresses"]
    if given["wildcards"]:
        wanted["wildcards"] = [each for each in given["wildcards"] if each]
    if given["secondaries"]:
        wanted["secondaries"] = [_secondary(each) for each in given["secondaries"] if each]
    if attempt:
        return _tried(here, here.client.send("POST", "/v1/dns/try", {"settings": wanted}))
    found = here.client.send("PUT", "/v1/dns", wanted)
    _show(here, found)
    inside = [each for each in found["addresses"] if ipaddress.ip_address(each).is_private]
    if inside and not here.json:
        note(f"{', '.join(inside)}: no public address; for those out there give the public ones with --address")
    return 0


@verb(group, "show", examples=["alveole dns show", "alveole dns show --transfer-key"])
@click.option(
    "--transfer-key", is_flag=True, help="Print the key that secondaries sign with, as BIND's configuration has it."
)
def show(here: Here, transfer_key: bool) -> None:
    """Show where names are published, and how each of them stands."""
    if not transfer_key:
        _show(here, here.client.get("/v1/dns"))
        return
    found = here.client.get("/v1/dns/transfer-key")
    if here.json:
        emit(found)
    else:
        say(f'key "{found["name"]}" {{ algorithm {found["algorithm"]}; secret "{found["secret"]}"; }};')


def _show(here: Here, found: dict[str, Any]) -> None:
    if here.json:
        emit(found)
        return
    settings = found["settings"]
    place = "BIND on this machine" if settings["mode"] == "here" else f"{found['server']}, port {found['port']}"
    secondaries = [f"{each['name']} {each['address']}".strip() for each in settings["secondaries"]]
    fields(
        (
            ("zone", clean(found["zone"])),
            ("published at", clean(place)),
            ("addresses", " ".join(map(clean, found["addresses"]))),
            ("alias of", clean(settings["alias"])),
            ("secondaries", "\n".join(map(clean, secondaries))),
            ("serial", str(found["serial"] or "")),
            ("problem", paint(clean(found["problem"]), "red") if found["problem"] else ""),
            ("since", when(found["since"]) if found["since"] else ""),
            ("tried again", when(found["next_at"]) if found["next_at"] else ""),
        )
    )
    say()
    table(
        ("NAME", "SITE", "STATE", "RECORDS"),
        [
            (
                clean(each["name"]),
                clean(each["site"]),
                each["state"],
                clean(each["problem"] or ", ".join(each["records"])),
            )
            for each in found["names"]
        ],
        flexible=3,
    )
    if found["delegation"]:
        say()
        say("The keeper of the zone above must be told:")
        for line in found["delegation"]:
            say(f"  {clean(line)}")


def _tried(here: Here, found: dict[str, Any]) -> int:
    if here.json:
        emit(found)
    else:
        links(found["links"])
    return 0 if found["ok"] else 3


@verb(
    group,
    "check",
    examples=["alveole dns check"],
    statuses="0 all is as it should be, 3 something is not, and the others of every command",
)
def check(here: Here) -> int:
    """Compare every name with the zone, and every secondary with the primary. Changes nothing."""
    return _tried(here, here.client.send("POST", "/v1/dns/check"))


@verb(group, "sync", examples=["alveole dns sync"])
def sync(here: Here) -> None:
    """Compare everything now and put right what differs, without waiting for the next time."""
    _show(here, here.client.send("POST", "/v1/dns/sync"))
