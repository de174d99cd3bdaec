"""``alveole backup``: proving, keeping, looking into; where backups are kept."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path
from typing import Any

import click

from alveole.cli import follow
from alveole.cli.output import emit, fields, mark, note, paint, say, size, table, when
from alveole.cli.show import path
from alveole.cli.verbs import Here, Tree, complete, interactive, verb
from alveole.errors import InvalidInput
from alveole.remote.apiclient import segment
from alveole.text import clean

backup_id = click.argument("backup", metavar="ID", shell_complete=complete("/v1/backups", "id"))
repository_name = click.argument("name", metavar="NAME", shell_complete=complete("/v1/repositories"))
_LINE = "0 proved, 3 it cannot be proved, 1 a fault of Alvéole, 2 wrong input, 4 not found, 5 temporary"


def proved(item: dict[str, Any]) -> str:
    """How the proof of a backup stands, for a list."""
    if item["proved"] is None:
        return paint("not tried", "dim")
    return paint("proved", "green") if item["proved"] else paint("NOT proved", "red")


@verb(
    None,
    "prove",
    waits=True,
    examples=["alveole backup prove blog", "alveole backup prove b4k2q7x5m3n6p --json"],
    statuses=_LINE,
)
@click.argument("what", metavar="NAME|ID", shell_complete=complete("/v1/sites"))
def prove(here: Here, what: str) -> None:
    """Prove a backup, or the newest one of a site.

    It is given back into a scratch site that nobody reaches and that reaches nobody, its checks and
    scenarios are asked, and the scratch site is removed again.
    """
    if any(item["id"] == what for item in here.client.get("/v1/backups")):
        change = here.client.send("POST", f"/v1/backups/{segment(what)}/prove")
    else:
        change = here.client.send("POST", "/v1/backups/prove", {"site": what})
    id = str((change.get("result") or {}).get("backup"))

    def document(_ended: dict[str, Any]) -> Any:
        return here.client.get(f"/v1/backups/{segment(id)}")

    follow.finish(here, change, lambda ended: say(f"{clean(id)} is proved{follow.took(ended)}"), document)


@verb(None, "show", examples=["alveole backup show b4k2q7x5m3n6p", "alveole backup show b4k2q7x5m3n6p --json"])
@backup_id
def show(here: Here, backup: str) -> None:
    """Show a backup, and what was asked of the site that was made of it."""
    found = here.client.get(f"/v1/backups/{segment(backup)}")
    if here.json:
        emit(found)
        return
    item = found["backup"]
    fields(
        [
            ("backup", clean(item["id"])),
            ("site", clean(item["site"]) + ("" if item["exists"] else " (destroyed)")),
            ("made", f"{when(item['created_at'])}, {clean(item['cause'])}"),
            ("size", size(item["bytes"])),
            ("kept in", ", ".join(map(clean, (item["repository"], *item["copies"])))),
            ("pinned", "yes" if item["pinned"] else ""),
            ("proof", f"{proved(item)} {when(item['proved_at']) if item['proved_at'] else ''}".strip()),
            ("problem", paint(clean(item["problem"]), "red") if item["problem"] else ""),
        ]
    )
    for link in found["links"]:
        say(f"  {mark(link['ok'])} {clean(link['name'])}  {clean(link['asked'])}: {clean(link['came'])}")
    for report in found["reports"]:
        say(f"  {mark(report['ok'])} {clean(report['scenario'])}  {clean(report['problem']) or 'passes'}")


def _pin(here: Here, backup: str, pinned: bool) -> None:
    found = here.client.send("PUT", f"/v1/backups/{segment(backup)}/pinned", {"pinned": pinned})
    if here.json:
        emit(found)
    else:
        say(f"{clean(backup)} {'stays until it is deleted' if pinned else 'may be thinned out again'}")


@verb(None, "pin", examples=["alveole backup pin b4k2q7x5m3n6p"])
@backup_id
def pin(here: Here, backup: str) -> None:
    """Keep a backup for good: it is never thinned out."""
    _pin(here, backup, True)


@verb(None, "unpin", examples=["alveole backup unpin b4k2q7x5m3n6p"])
@backup_id
def unpin(here: Here, backup: str) -> None:
    """Let a pinned backup be thinned out again."""
    _pin(here, backup, False)


# --- how they are made and kept -----------------------------------------------------------------
@click.group("policy", cls=Tree)
def policy() -> None:
    """How backups are made by themselves, and how long they stay."""


def _policy_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    keep = f"{found['days']} days, {found['weeks']} weeks, {found['months']} months"
    end = (found["hour"] + found["window_hours"]) % 24
    return [
        ("each night", f"between {found['hour']:g} and {end:g} h" if found["nightly"] else paint("no", "yellow")),
        ("before destroying", "yes" if found["before_destroy"] else paint("no", "yellow")),
        ("at a time", str(found["parallel"])),
        ("what stays", keep),
        ("of destroyed sites", f"{found['gone_days']} days"),
        ("proved", f"every {found['prove_days']} days" if found["prove"] else paint("no", "yellow")),
        ("copied to", clean(found["copy_to"]) or "nowhere"),
    ]


@verb(
    policy,
    "show",
    examples=[
        "alveole backup policy show",
        "alveole backup policy show blog",
        "alveole backup policy show blog --json",
    ],
)
@click.argument("name", metavar="[NAME]", required=False, shell_complete=complete("/v1/sites"))
def show_policy(here: Here, name: str | None) -> None:
    """Show how backups are made and kept, for the machine or for one site."""
    found = here.client.get(path(name, "backups") if name else "/v1/backup-policy")
    if here.json:
        emit(found)
        return
    rows = _policy_rows(found["policy"])
    if name:
        own = {key: value for key, value in found["own"].items() if value is not None}
        rows += [
            ("of its own", ", ".join(f"{key}={value}" for key, value in own.items()) or "nothing"),
            ("saved last", when(found["saved_at"]) if found["saved_at"] else paint("never", "yellow")),
            ("last proved restore", when(found["proved_at"]) if found["proved_at"] else paint("never", "yellow")),
            (
                "NOT proved",
                paint(f"{clean(found['unproved'])}: {clean(found['problem'])}", "red") if found["unproved"] else "",
            ),
            ("next", when(found["next_at"]) if found["next_at"] else ""),
        ]
    elif not found["by_itself"]:
        rows.append(("by itself", paint("no: backups.by_itself is false in the settings of this machine", "yellow")))
    fields(rows)


_SITE_KEYS = ("nightly", "days", "weeks", "months", "prove")


@verb(
    policy,
    "set",
    examples=[
        "alveole backup policy set --days 14 --months 24",
        "alveole backup policy set --copy-to offsite",
        "alveole backup policy set blog --days 30",
        "alveole backup policy set blog --inherit days --no-nightly",
    ],
)
@click.argument("name", metavar="[NAME]", required=False, shell_complete=complete("/v1/sites"))
@click.option("--nightly/--no-nightly", default=None, help="Save each night.")
@click.option("--prove/--no-prove", default=None, help="Prove the newest backup now and then.")
@click.option("--days", type=int, metavar="N", help="Keep the newest of so many days,")
@click.option("--weeks", type=int, metavar="N", help="of so many weeks,")
@click.option("--months", type=int, metavar="N", help="and of so many months.")
@click.option("--inherit", multiple=True, metavar="WHAT", help="For a site: as for the machine again (repeatable).")
@click.option("--hour", type=float, metavar="H", help="When the night's window begins (machine).")
@click.option("--window-hours", type=float, metavar="H", help="How long it is (machine).")
@click.option("--parallel", type=int, metavar="N", help="Sites saved at a time (machine).")
@click.option("--before-destroy/--no-before-destroy", default=None, help="Save before destroying (machine).")
@click.option("--gone-days", type=int, metavar="N", help="Keep those of destroyed sites so long (machine).")
@click.option("--prove-days", type=int, metavar="N", help="How often each site is proved (machine).")
@click.option("--copy-to", metavar="NAME", help="A repository that each backup is copied to; '' for none (machine).")
def set_policy(here: Here, name: str | None, inherit: tuple[str, ...], **given: Any) -> None:
    """Change how backups are made and kept, for the machine or for one site."""
    wanted: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if name:
        if others := sorted(wanted.keys() - set(_SITE_KEYS)):
            raise InvalidInput(f"{', '.join(others)}: for the whole machine only", field=others[0])
        wanted |= dict.fromkeys(inherit)
    elif inherit:
        raise InvalidInput("is for one site", field="inherit", hint="name it")
    if not wanted:
        raise InvalidInput("nothing to change", hint="give at least one option")
    found = here.client.send("PATCH", path(name, "backups") if name else "/v1/backup-policy", wanted)
    if here.json:
        emit(found)
    else:
        fields(_policy_rows(found["policy"]))


# --- looking into one ---------------------------------------------------------------------------
@verb(None, "tree", examples=["alveole backup tree b4k2q7x5m3n6p", "alveole backup tree b4k2q7x5m3n6p volumes/data"])
@backup_id
@click.argument("where", metavar="[PATH]", required=False, default="")
def tree(here: Here, backup: str, where: str) -> None:
    """List a directory of a backup."""
    found = here.client.get(f"/v1/backups/{segment(backup)}/tree", {"path": where or None})
    if here.json:
        emit(found)
        return
    rows = [
        (
            clean(item["name"]) + {"d": "/", "l": f" → {clean(item['link'])}"}.get(item["kind"], ""),
            "" if item["kind"] == "d" else size(item["size"]),
            when(item["changed_at"], short=True) if item["changed_at"] else "",
        )
        for item in found["entries"]
    ]
    table(("NAME", "SIZE", "CHANGED"), rows, right="SIZE", flexible=0)


@verb(
    None,
    "download",
    examples=[
        "alveole backup download b4k2q7x5m3n6p blog.tar",
        "alveole backup download b4k2q7x5m3n6p --path volumes/data/notes.txt notes.txt",
        "alveole backup download b4k2q7x5m3n6p - | tar -tv",
    ],
)
@backup_id
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--path", "where", metavar="PATH", help="One file of it instead of all.")
def download(here: Here, backup: str, file: str, where: str | None) -> None:
    """Take a backup away as a tar, or one file of it; - is standard output."""
    query = {"path": where} if where else {}
    with here.client.open("GET", f"/v1/backups/{segment(backup)}/archive", query=query, patience=None) as answer:
        if file == "-":
            for block in answer.blocks():
                sys.stdout.buffer.write(block)
            return
        target = Path(file)
        fresh = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        try:
            with fresh.open("wb") as out:
                os.fchmod(out.fileno(), 0o600)
                for block in answer.blocks():
                    out.write(block)
            fresh.replace(target)
        finally:
            fresh.unlink(missing_ok=True)
    if here.json:
        emit({"file": file, "bytes": target.stat().st_size})
    else:
        say(f"{clean(file)}  {size(target.stat().st_size)}")


@verb(
    None,
    "restore-file",
    waits=True,
    examples=[
        "alveole backup restore-file b4k2q7x5m3n6p volumes/data/notes.txt",
        "alveole backup restore-file b4k2q7x5m3n6p release/index.html --preview",
    ],
)
@backup_id
@click.argument("where", metavar="PATH")
@click.option("--preview", is_flag=True, help="Only show what would change.")
def restore_file(here: Here, backup: str, where: str, preview: bool) -> None:
    """Put one file of a backup back into its site; of a volume also a directory.

    In a volume what stands there now is replaced, and nothing else is touched. A file of the content
    (release/…) makes a new release of the present one, which is live at once where the site says so
    (site set NAME --on-files live). Paths are those of 'backup tree'.
    """
    if preview:
        found = here.client.get(f"/v1/backups/{segment(backup)}/preview", {"path": where})
        if here.json:
            emit(found)
        else:
            _show_preview(found)
        return
    change = here.client.send("POST", f"/v1/backups/{segment(backup)}/files", {"path": where})
    follow.finish(here, change, lambda ended: say(f"{clean(where)} is back{follow.took(ended)}"), lambda ended: ended)


def _show_preview(found: dict[str, Any]) -> None:
    now = "nothing" if found["now_bytes"] is None else size(found["now_bytes"])
    if found["same"]:
        say("They are the same.")
    elif not found["text"]:
        say(f"{size(found['bytes'])} would stand in the place of {now}; it is no text, or too long to be compared")
    for line in found["diff"]:
        colour = {"+": "green", "-": "red", "@": "dim"}.get(line[:1], "")
        say(paint(clean(line), colour) if colour else clean(line))
    if found["content"]:
        note("It comes back by a new release" + (", live at once." if found["live"] else ", which waits."))


# --- repositories -------------------------------------------------------------------------------
@click.group("repository", cls=Tree)
def repository() -> None:
    """Where backups are kept: here, over SFTP, or in an S3-compatible store."""


@verb(repository, "list", examples=["alveole backup repository list", "alveole backup repository list --json"])
def list_repositories(here: Here) -> None:
    """List the repositories. Nobody is asked for it: see 'check'."""
    found = here.client.get("/v1/repositories")
    if here.json:
        emit(found)
        return
    rows = []
    for item in found:
        word = "used" if item["used"] else "copied to" if item["copied_to"] else ""
        came = clean(item["problem"]) or (f"{item['backups']} backups" if item["backups"] is not None else "")
        rows.append((clean(item["name"]), clean(item["kind"]), clean(item["place"]), word, came))
    table(("NAME", "KIND", "PLACE", "", "LAST LOOK"), rows, flexible=4)


@verb(
    repository,
    "add",
    examples=[
        "alveole backup repository add disk --place /mnt/disk/alveole",
        "alveole backup repository add offsite --kind sftp --place backup@host.example.org/srv/alveole \\",
        "    --host-key 'ssh-ed25519 AAAAC3Nza…'",
        "alveole backup repository add cloud --kind s3 --place https://s3.example.org/bucket/alveole --user ID",
    ],
)
@click.argument("name", metavar="NAME")
@click.option("--kind", type=click.Choice(["local", "sftp", "s3"]), default="local", help="How it is reached; local.")
@click.option("--place", required=True, help="A directory; USER@HOST:PORT/PATH; https://HOST/BUCKET/PREFIX.")
@click.option("--host-key", metavar="KEY", default="", help="SFTP: the key of the host, TYPE BASE64, or a file of it.")
@click.option("--user", metavar="ID", default="", help="S3: the id of the access key. The key itself is asked for.")
@click.option(
    "--secret-file", type=click.Path(exists=True, dir_okay=False, allow_dash=True), help="S3: a file of the key."
)
@click.option("--region", metavar="NAME", default="", help="S3: the region, where the store has several.")
def add(
    here: Here, name: str, kind: str, place: str, host_key: str, user: str, secret_file: str | None, region: str
) -> None:
    """Add a repository; it is reached at once, and made where it is not.

    SFTP: first let the key of 'repository key NAME' in there.
    """
    secret = ""
    if kind == "s3":
        if secret_file:
            given = Path(secret_file)
            secret = sys.stdin.read() if secret_file == "-" else given.read_text()  # noqa: S105  - is standard input
        elif interactive():
            secret = click.prompt("Secret of the access key", hide_input=True, err=True)
        else:
            raise InvalidInput("is needed where nobody can be asked", field="secret", hint="--secret-file FILE")
    if host_key and " " not in host_key and Path(host_key).is_file():
        host_key = Path(host_key).read_text()
    body = {"kind": kind, "place": place, "host_key": " ".join(host_key.split()), "user": user}
    found = here.client.send(
        "PUT", f"/v1/repositories/{segment(name)}", {**body, "secret": secret.strip(), "region": region}
    )
    _reached(here, found)


@verb(repository, "key", examples=["alveole backup repository key offsite"])
@click.argument("name", metavar="NAME")
def repository_key(here: Here, name: str) -> None:
    """Print the public key that a repository signs in with by SFTP; made once.

    Put it into authorized_keys there, best with 'restrict' before it.
    """
    found = here.client.send("POST", f"/v1/repositories/{segment(name)}/key")
    if here.json:
        emit(found)
    else:
        say(clean(found["public_key"]))


@verb(repository, "check", examples=["alveole backup repository check offsite"])
@repository_name
def check(here: Here, name: str) -> None:
    """Reach a repository and have its structure compared."""
    _reached(here, here.client.send("POST", f"/v1/repositories/{segment(name)}/check"))


@verb(repository, "use", examples=["alveole backup repository use offsite", "alveole backup repository use local"])
@repository_name
def use(here: Here, name: str) -> None:
    """Have new backups go there; those that are made stay where they are."""
    _reached(here, here.client.send("POST", f"/v1/repositories/{segment(name)}/use"))


@verb(repository, "remove", examples=["alveole backup repository remove disk"])
@repository_name
def remove(here: Here, name: str) -> None:
    """Forget how a repository is reached; what it holds stays there."""
    here.client.send("DELETE", f"/v1/repositories/{segment(name)}")
    if here.json:
        emit({"name": name})
    else:
        say(f"{clean(name)} is forgotten")


def _reached(here: Here, found: dict[str, Any]) -> None:
    if here.json:
        emit(found)
        return
    held = f", {found['backups']} backups" if found["backups"] is not None else ""
    said = "new backups go there" if found["used"] else "it is there"
    say(f"{clean(found['name'])}: {said}{held}")


# --- the key and the platform -------------------------------------------------------------------
@click.group("key", cls=Tree)
def key() -> None:
    """What all backups are sealed with."""


@verb(key, "export", examples=["alveole backup key export", "alveole backup key export > /media/stick/alveole.key"])
def export(here: Here) -> None:
    """Print the key that all backups are sealed with, to be kept elsewhere.

    Without it no backup can be read once this machine is lost.
    """
    found = here.client.send("POST", "/v1/backup-key")
    if here.json:
        emit(found)
        return
    say(clean(found["key"]))
    note("Keep it away from this machine: who has it can read every backup, and without it nobody can.")


@verb(None, "platform", waits=True, examples=["alveole backup platform", "alveole backup platform --json"])
def platform(here: Here) -> None:
    """Save the platform itself now: settings, people, keys and all that the database holds.

    It is saved each night as well. 'alveole restore-platform' makes a machine of it again.
    """
    change = here.client.send("POST", "/v1/platform-backups")
    follow.finish(here, change, lambda ended: say(f"the platform is saved{follow.took(ended)}"), lambda ended: ended)
