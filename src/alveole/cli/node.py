"""``alveole node``, and ``site move`` and ``confirm``: several machines driven from one."""

from __future__ import annotations

import re
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import click

from alveole import __version__
from alveole.cli import follow
from alveole.cli.output import emit, fields, note, say, size, table, when
from alveole.cli.show import path
from alveole.cli.states import named, reached
from alveole.cli.verbs import Here, Tree, complete, interactive, site_name, verb
from alveole.errors import InvalidInput
from alveole.remote.apiclient import segment
from alveole.text import clean


@click.group("node", cls=Tree)
def group() -> None:
    """Other machines that are driven from this one."""


node_name = click.argument("node", metavar="NODE", shell_complete=complete("/v1/nodes"))


def _where(text: str) -> tuple[str, str, int]:
    """``user@host:port`` taken apart; the user is root and the port 22 where nothing is said."""
    user, _, rest = text.rpartition("@")
    found = re.match(r"^(\[[^\]]+\]|[^:]+|[^\[\]]*:[^\[\]]*:[^\[\]]*)(?::(\d+))?\Z", rest)
    if found is None or int(found[2] or 22) > 65_535:
        raise InvalidInput(f"{text!r} is not USER@HOST or USER@HOST:PORT", field="where")
    return user or "root", found[1].strip("[]"), int(found[2] or 22)


@verb(group, "key", examples=["alveole node key", "alveole node key --json"])
def key(here: Here) -> None:
    """Print what other machines must know of this one.

    The first line lets this machine in there: add it to .ssh/authorized_keys in the home of the user that you name to
    `node add` (/root/.ssh/authorized_keys, /home/ops/.ssh/authorized_keys). It opens no terminal and no agent. The
    second is the key of this platform, for `site export --for`; the third its fingerprint, for `site import --trust`.
    """
    identity = here.client.get("/v1/identity")
    with here.client.open("GET", "/v1/node-key") as answer:
        line = answer.body().decode().strip()
    if here.json:
        emit({**identity, "ssh_key": line})
        return
    for each in (line, identity["key"], identity["fingerprint"]):
        say(clean(str(each)))


@verb(
    group,
    "add",
    examples=[
        "alveole node add root@paris.example.org",
        "alveole node add ops@192.0.2.7 --name lyon --from ./alveole",
        "alveole node add root@192.0.2.7:2222 --name paris --fingerprint SHA256:…",
    ],
)
@click.argument("where", metavar="USER@HOST[:PORT]")
@click.option("--name", metavar="NAME", help="What it is called here. Default: the first part of its name.")
@click.option(
    "--config", metavar="PATH", default="/etc/alveole/alveole.toml", show_default=True, help="Settings there."
)
@click.option("--fingerprint", metavar="SHA256:…", help="Of its host key, compared before; else it is shown and asked.")
@click.option("--from", "source", metavar="DIR", type=click.Path(path_type=Path), help="A checkout of this version.")
@click.option("--no-install", is_flag=True, help="Alvéole runs there already.")
@click.option(
    "--program",
    metavar="PATH",
    default="/usr/local/bin/alveole",
    show_default=True,
    help="Alvéole there, for sudo.",
)
def add(
    here: Here,
    where: str,
    name: str | None,
    config: str,
    fingerprint: str | None,
    source: Path | None,
    no_install: bool,
    program: str,
) -> None:
    """Drive another machine from here, by SSH, and install Alvéole on it.

    This machine's key must be in .ssh/authorized_keys of that user there: see alveole node key. What is installed is
    a checkout of the version that runs here, by its scripts/quickstart; packages and libraries are fetched by the
    machine itself. Cut off, it is safe to run again.

    A user who is not root needs sudo without a password. While it is installed or upgraded, this line in
    /etc/sudoers.d/alveole there:

    \b
      ops ALL=(root) NOPASSWD: ALL

    From then on this one is enough:

    \b
      ops ALL=(root) NOPASSWD: /usr/local/bin/alveole --config /etc/alveole/alveole.toml node landing
    """
    user, host, port = _where(where)
    if source is None and not no_install:
        raise InvalidInput(
            "is needed to install from", field="from", hint="--from DIR, or --no-install if it runs there"
        )
    if fingerprint is None:
        shown = here.client.send("POST", "/v1/nodes/scan", {"host": host, "port": port})
        if here.json or not interactive():
            raise InvalidInput(
                f"is needed where nobody can be asked; it shows {shown['fingerprint']}",
                field="fingerprint",
                hint="compare it there: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
            )
        note(f"{clean(host)} shows the host key {clean(shown['fingerprint'])}")
        note("Compare it there: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub")
        click.confirm("Is it that one?", abort=True, err=True)
        fingerprint = str(shown["fingerprint"])
    if source is not None and not no_install:
        _install(here, source, {"host": host, "port": port, "user": user, "fingerprint": fingerprint, "config": config})
    called = name or re.sub(r"[^a-z0-9-]", "-", host.partition(".")[0].lower())[:16].strip("-")
    body = {"name": called, "host": host, "port": port, "user": user, "fingerprint": fingerprint}
    body |= {"config": config, "program": program}
    made = here.client.send("POST", "/v1/nodes", body)
    if here.json:
        emit(made)
    else:
        say(f"{clean(made['name'])} is driven from here")
        _tell_version(made)


#: What the installer needs of a checkout.
_NEEDED = ("scripts", "src", "packaging", "examples", "pyproject.toml", "requirements.txt", "README.md", "LICENSE")


def _install(here: Here, source: Path, body: dict[str, Any]) -> None:
    """Send the checkout and run its installer there; raises what came of it."""
    about = source / "src/alveole/__init__.py"
    text = about.read_text(encoding="utf-8") if about.is_file() else ""
    found = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    if found is None or not (source / "scripts/quickstart").is_file():
        raise InvalidInput(f"{source} is no checkout of Alvéole", field="from")
    if found[1] != __version__:
        raise InvalidInput(f"{source} is version {found[1]}, and here runs {__version__}", field="from")

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if member.name.endswith(("__pycache__", ".pyc")) else member

    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w:gz", compresslevel=6) as tar:
            for each in _NEEDED:
                if (source / each).exists():
                    tar.add(source / each, each, filter=plain)
        length = file.tell()
        file.seek(0)
        upload = here.client.upload(iter(lambda: file.read(1 << 18), b""), length)["id"]
    change = here.client.send("POST", "/v1/nodes/install", {**body, "upload": upload})
    follow.check(follow.follow(here, change, str(body["host"])))


@verb(
    group,
    "upgrade",
    examples=["alveole node upgrade paris --from ./alveole"],
)
@node_name
@click.option("--from", "source", metavar="DIR", required=True, type=click.Path(path_type=Path), help="A checkout.")
def upgrade(here: Here, node: str, source: Path) -> None:
    """Bring a machine to the version that runs here. Its sites go on."""
    found = here.client.get(f"/v1/nodes/{segment(node)}")
    user, host, port = _where(str(found["where"]))
    _install(
        here,
        source,
        {"host": host, "port": port, "user": user, "fingerprint": found["fingerprint"], "config": found["config"]},
    )
    _show(here, node)


def _tell_version(node: dict[str, Any]) -> None:
    if not node["same_version"]:
        note(f"{clean(node['name'])} runs version {clean(node['version'])}, another one than this machine")


@verb(group, "list", examples=["alveole node list", "alveole node list --json"])
def list_(here: Here) -> None:
    """List the machines: how they are, what room they have left, how many sites of yours live there."""
    found = here.client.get("/v1/nodes")
    if here.json:
        emit(found)
        return
    rows = [
        (
            clean(item["name"]),
            item["state"] + (", draining" if item["draining"] else ""),
            clean(item["version"]),
            str(len(item["sites"])),
            *("-" if item[key] is None else size(item[key]) for key in ("memory_left_bytes", "disk_left_bytes")),
            "-" if item["seen_at"] is None or item["state"] == "here" else when(item["seen_at"], short=True),
        )
        for item in found
    ]
    table(("NAME", "STATE", "VERSION", "SITES", "MEMORY LEFT", "DISK LEFT", "AS OF"), rows)


def _show(here: Here, node: str) -> dict[str, Any]:
    found: dict[str, Any] = here.client.get(f"/v1/nodes/{segment(node)}")
    if here.json:
        emit(found)
        return found
    left = [found[key] for key in ("memory_left_bytes", "disk_left_bytes")]
    fields(
        [
            ("Name", clean(found["name"])),
            ("Where", clean(found["where"])),
            ("State", found["state"] + (f": {clean(found['problem'])}" if found["problem"] else "")),
            ("As of", when(found["seen_at"]) if found["seen_at"] else "-"),
            ("Version", clean(found["version"])),
            ("Host key", clean(found["fingerprint"])),
            ("Left", "-" if None in left else f"{size(left[0])} of memory, {size(left[1])} of disk"),
            ("Sites", ", ".join(map(clean, found["sites"])) or "-"),
        ]
    )
    _tell_version(found)
    return found


@verb(group, "show", examples=["alveole node show paris", "alveole node show paris --json"])
@node_name
def show(here: Here, node: str) -> None:
    """Ask a machine how it is, and show it."""
    _show(here, node)


@verb(group, "check", examples=["alveole node check paris"], statuses="0 it is well, 5 it cannot be reached")
@node_name
@click.pass_context
def check(ctx: click.Context, here: Here, node: str) -> None:
    """As show; the exit status says whether the machine is reached and has this version."""
    found = _show(here, node)
    if found["state"] != "reached" or not found["same_version"]:
        ctx.exit(5)


@verb(group, "drain", examples=["alveole node drain paris", "alveole node drain paris --undo"])
@node_name
@click.option("--undo", is_flag=True, help="Place sites on it again.")
def drain(here: Here, node: str, undo: bool) -> None:
    """Bring the sites of a machine to where there is room, and place nothing more on it."""
    changes = here.client.send("POST", f"/v1/nodes/{segment(node)}/drain", {"drain": not undo})
    ended = [follow.follow(here, change, str(change["site_name"])) for change in changes]
    if here.json:
        emit(ended)
    else:
        say(f"{clean(node)} is used again" if undo else f"{len(ended)} sites have left {clean(node)}")
    for change in ended:
        follow.check(change)


@verb(group, "remove", examples=["alveole node remove paris", "alveole node remove paris --lost"])
@node_name
@click.option("--lost", is_flag=True, help="It is away and will not come back, nor what moves have left there.")
def remove(here: Here, node: str, lost: bool) -> None:
    """Drive a machine no more. What runs there goes on by itself; refused while sites of this one live there."""
    here.client.send("DELETE", f"/v1/nodes/{segment(node)}", query={"lost": True} if lost else None)
    if here.json:
        emit({"removed": node})
    else:
        say(f"{clean(node)} is not driven from here any more")


@verb(
    group,
    "landing",
    json=False,
    examples=["sudo -n alveole --config /etc/alveole/alveole.toml node landing"],
    statuses="0 the other machine has gone, 3 not started by sudo, 5 Alvéole does not run here",
)
def landing(here: Here) -> None:
    """Let in the Alvéole that drives this machine.

    It comes as a user who is not root and starts this by sudo. Two sockets for that user lead to Alvéole as root has
    it, until standard input ends. Nobody else reaches them.
    """
    from alveole.remote.landing import keep

    keep(here.settings)


@verb(group, "signers", examples=["alveole node signers", "alveole node signers --json"])
def signers(here: Here) -> None:
    """List the platforms whose passports are taken without --trust."""
    found = here.client.get("/v1/signers")
    if here.json:
        emit(found)
        return
    table(("NAME", "FINGERPRINT"), [(clean(item["name"]), clean(item["fingerprint"])) for item in found])


@verb(group, "trust", examples=["alveole node trust lyon alv1.…"])
@click.argument("name", metavar="NAME")
@click.argument("signer", metavar="KEY")
def trust(here: Here, name: str, signer: str) -> None:
    """Take the passports of a platform from now on."""
    here.client.send("PUT", f"/v1/signers/{segment(name)}", {"key": signer})
    if here.json:
        emit({"trusted": name})
    else:
        say(f"passports of {clean(name)} are taken")


@verb(group, "distrust", examples=["alveole node distrust lyon"])
@click.argument("name", metavar="NAME")
def distrust(here: Here, name: str) -> None:
    """Take them no more."""
    here.client.send("DELETE", f"/v1/signers/{segment(name)}")
    if here.json:
        emit({"distrusted": name})
    else:
        say(f"passports of {clean(name)} are not taken any more")


@verb(
    None,
    "move",
    waits=True,
    examples=[
        "alveole site move blog --to paris",
        "alveole site move blog --to here",
        "alveole site move blog --to any",
    ],
)
@site_name
@click.option("--to", "node", metavar="NODE", required=True, help="A node, `here`, or `any` for the most room.")
@click.option(
    "--keep-hours", type=click.FloatRange(0, 2160), default=24.0, show_default=True, help="The copy left behind."
)
def move(here: Here, name: str, node: str, keep_hours: float) -> None:
    """Bring a site with its data to another machine.

    One with volumes is copied while it runs, then stopped for what has changed since, and the change says for how
    long; any other goes on answering.
    The copy that is left stays stopped for a day, or until `site confirm`.
    """
    body = {"to": node, "keep_seconds": keep_hours * 3600}
    change = here.client.send("POST", path(name, "move"), body)
    follow.finish(here, change, lambda ended: reached(here, ended, "is moved"), lambda ended: named(here, ended))


@verb(None, "confirm", waits=True, examples=["alveole site confirm blog"])
@site_name
def confirm(here: Here, name: str) -> None:
    """Remove the copies that moves of a site have left on other machines."""
    change = here.client.send("POST", path(name, "confirm-move"))
    follow.finish(here, change, lambda _: say("the copies are gone"), lambda ended: named(here, ended))
