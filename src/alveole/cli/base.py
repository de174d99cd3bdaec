"""``alveole base`` and ``alveole image``."""

from __future__ import annotations

from typing import Any

import click

from alveole.cli import follow
from alveole.cli.output import emit, fields, note, paint, say, size, table, when
from alveole.cli.verbs import Here, Tree, complete, interactive, verb
from alveole.errors import InvalidInput
from alveole.remote.apiclient import segment
from alveole.text import clean


@click.group("base", cls=Tree)
def group() -> None:
    """Shared root file systems."""


#: Package lists are fetched for an answer, and compared for each base.
_LISTS_SECONDS = 600.0
_CONTENT = {
    "earlier": "  content: what it ran there comes back",
    "rebuilt": "  content: built again, for the programs of that base",
}
_one = click.argument("base", metavar="KEY", shell_complete=complete("/v1/bases", "key"))
_some = click.argument("bases", metavar="[KEY]...", nargs=-1, shell_complete=complete("/v1/bases", "key"))


@click.group("image", cls=Tree)
def image() -> None:
    """OCI images: imported, or fetched by their names."""


def _print(here: Here, bases: list[dict[str, Any]], none: str) -> None:
    if here.json:
        emit(bases)
        return
    if not bases:
        note(none)
        return
    rows = [
        (
            clean(base["key"]),
            paint("damaged", "red") if base["damage"] else "yes" if base["ready"] else "no",
            str(base["sites"]),
            size(base["bytes"]) if base["bytes"] is not None else "-",
            clean(base["lower"] or "-")[:13],
            _waiting(base),
            when(base["created_at"] or None, short=True),
            clean(base["label"]),
        )
        for base in bases
    ]
    table(("KEY", "READY", "SITES", "SIZE", "OVER", "UPDATES", "SINCE", "WHAT"), rows, right="SITES SIZE")


def _waiting(base: dict[str, Any]) -> str:
    if base["updates"] is None:
        return "-"
    security = base["security_updates"]
    return f"{base['updates']} ({security} security)" if security else str(base["updates"])


@verb(group, "list", examples=["alveole base list", "alveole base list --json"])
def list_(here: Here) -> None:
    """List bases: the host's, Debian with packages, images.

    SIZE is what a base takes beside the one it lies OVER. UPDATES counts by the package lists of the last look.
    """
    _print(here, here.client.get("/v1/bases"), "There is no base yet; the first site makes one.")


@verb(group, "show", examples=["alveole base show debian-0123456789abcdef", "alveole base show debian+python3 --json"])
@_one
def show(here: Here, base: str) -> None:
    """Show a base: its sites, its packages with their versions, the updates that wait for it."""
    found = here.client.get(f"/v1/bases/{segment(base)}")
    if here.json:
        emit(found)
        return
    pairs = [
        ("key", clean(found["key"])),
        ("what", clean(found["label"])),
        ("ready", "yes" if found["ready"] else "no"),
        ("damage", paint(clean(found["damage"]), "red") if found["damage"] else "none known"),
        ("compared", when(found["verified_at"])),
        ("own size", size(found["bytes"]) if found["bytes"] is not None else "not built"),
        ("lies over", clean(found["lower"] or "nothing")),
        ("since", when(found["created_at"] or None)),
        ("sites", clean(", ".join(found["site_names"])) or "none"),
        ("builds of", clean(", ".join(found["builds_of"]))),
        ("earlier of", clean(", ".join(found["earlier_of"]))),
        ("updates", f"{_waiting(found)}, by the lists of {when(found['checked_at'])}"),
    ]
    fields(pairs)
    for change in found["changes"]:
        say(f"  {_change(change)}")
    if found["installed"]:
        say()
        table(
            ("PACKAGE", "VERSION"),
            [(clean(name), clean(found["installed"][name])) for name in sorted(found["installed"])],
        )


def _change(change: dict[str, Any]) -> str:
    words = f"{clean(change['name'])} {clean(change['before']) or 'new'} → {clean(change['after']) or 'gone'}"
    return f"{words} (security)" if change["security"] else words


@verb(
    group,
    "verify",
    waits=True,
    examples=["alveole base verify", "alveole base verify debian-0123456789abcdef --json"],
)
@_some
def verify(here: Here, bases: tuple[str, ...]) -> None:
    """Compare every file of bases with its digest: of the named ones, else of all.

    It is also done by itself, slowly, once a day (bases.verify_seconds). A damaged base is made anew; an image has
    to be imported again. Sites that run go on with the files they have until they are restarted.
    """
    change = here.client.send("POST", "/v1/bases/verify", {"bases": list(bases)})
    follow.finish(here, change, lambda ended: say(f"{ended['result']['bases']} bases are sound{follow.took(ended)}"))


@verb(
    group,
    "upgrade",
    waits=True,
    examples=[
        "alveole base upgrade --all --dry-run",
        "alveole base upgrade debian-0123456789abcdef",
        "alveole base upgrade --all --yes --json",
    ],
)
@_some
@click.option("--all", "every", is_flag=True, help="All bases of packages that a site uses.")
@click.option("--dry-run", is_flag=True, help="Only say which packages would change, and for which sites.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def upgrade(here: Here, bases: tuple[str, ...], every: bool, dry_run: bool, yes: bool) -> None:
    """Make bases anew with all updates and switch their sites, one by one.

    A copy of each site runs on the new base first, with its data and without a name, and must answer as the site does.
    The first failure ends it: that site and those after it stay on the old base, which stays too.
    """
    if bool(bases) == every:
        raise InvalidInput("name bases, or give --all", field="bases", hint="see: alveole base list")
    body = {"bases": list(bases)}
    if dry_run or not (yes or here.json):
        plan = here.client.send("POST", "/v1/bases/upgrade", body, query={"dry_run": True}, patience=_LISTS_SECONDS)
        if here.json:
            emit(plan)
            return
        _tell(plan)
        if dry_run or not any(each["changes"] for each in plan):
            return
        _ask("Upgrade now?")
    change = here.client.send("POST", "/v1/bases/upgrade", body)
    follow.finish(
        here, change, lambda ended: say(f"{ended['result']['sites']} sites were switched{follow.took(ended)}")
    )


def _tell(plan: list[dict[str, Any]]) -> None:
    if not plan:
        say("No site uses a base of packages.")
    for each in plan:
        if not each["changes"]:
            say(f"{clean(each['label'])} ({clean(each['key'])}): nothing newer")
            continue
        secure = sum(change["security"] for change in each["changes"])
        say(f"{clean(each['label'])} ({clean(each['key'])}): {len(each['changes'])} packages, {secure} for security")
        for change in each["changes"]:
            say(f"  {_change(change)}")
        say(f"  sites: {clean(', '.join(each['sites'])) or 'none'}")
        if each["builds"]:
            say(f"  builds of: {clean(', '.join(each['builds']))}")


def _ask(question: str) -> None:
    if not interactive():
        raise InvalidInput("there is nobody to ask", field="yes", hint="look with --dry-run, then give --yes")
    click.confirm(question, abort=True, err=True)


@verb(
    group,
    "rollback",
    waits=True,
    examples=[
        "alveole base rollback blog shop --dry-run",
        "alveole base rollback --base debian-0123456789abcdef --yes",
    ],
)
@click.argument("sites", metavar="[SITE]...", nargs=-1, shell_complete=complete("/v1/sites"))
@click.option(
    "--base",
    "bases",
    multiple=True,
    metavar="KEY",
    help="All sites that an upgrade brought to this base.",
    shell_complete=complete("/v1/bases", "key"),
)
@click.option("--dry-run", is_flag=True, help="Only say which packages would change, and for which sites.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def rollback(here: Here, sites: tuple[str, ...], bases: tuple[str, ...], dry_run: bool, yes: bool) -> None:
    """Take sites back to the base that they had before its last upgrade.

    The old instance answers until the new one is ready. Data stays as it is: what a newer program has made of it
    is not undone; for that, restore a backup. A site that does not get ready stays where it is.
    """
    if not sites and not bases:
        raise InvalidInput("name sites, or give --base", field="sites", hint="see: alveole base list")
    body = {"sites": list(sites), "bases": list(bases)}
    if dry_run or not (yes or here.json):
        plan = here.client.send("POST", "/v1/bases/rollback", body, query={"dry_run": True})
        if here.json:
            emit(plan)
            return
        for each in plan:
            say(f"{clean(each['site'])}: {clean(each['base'])} → {clean(each['earlier'])} ({clean(each['label'])})")
            for change in each["changes"]:
                say(f"  {_change(change)}")
            if each["content"]:
                say(_CONTENT[each["content"]])
        if dry_run:
            return
        _ask("Go back now?")
    change = here.client.send("POST", "/v1/bases/rollback", body)
    follow.finish(here, change, lambda ended: say(f"{ended['result']['sites']} sites are back{follow.took(ended)}"))


@verb(
    group,
    "prune",
    waits=True,
    examples=["alveole base prune --dry-run", "alveole base prune --yes --keep oci-0123456789abcdef"],
)
@click.option("--keep", multiple=True, metavar="KEY", help="Keep this one; may be given several times.")
@click.option("--earlier", is_flag=True, help="Also those that sites could go back to.")
@click.option("--dry-run", is_flag=True, help="Only say which would go.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def prune(here: Here, keep: tuple[str, ...], earlier: bool, dry_run: bool, yes: bool) -> None:
    """Drop the bases that no site uses.

    The host's stays, what another base lies over, and for a while (bases.earlier_seconds) what a site had before
    an upgrade, so that base rollback finds it.
    """
    body = {"keep": list(keep), "earlier": earlier}
    if dry_run or not (yes or here.json):
        going = here.client.send("POST", "/v1/bases/prune", body, query={"dry_run": True})
        if dry_run or not going:
            _print(here, going, "Every base is used.")
            return
        _print(here, going, "")
        _ask(f"Drop these {len(going)} bases?")
    change = here.client.send("POST", "/v1/bases/prune", body)

    def done(ended: dict[str, Any]) -> None:
        say(f"{ended['result']['bases']} bases are gone, {size(ended['result']['bytes'])} of disk")

    follow.finish(here, change, done)


@verb(group, "delete", waits=True, examples=["alveole base delete debian-0123456789abcdef"])
@_one
def delete(here: Here, base: str) -> None:
    """Delete a base that no site has."""
    change = here.client.send("DELETE", f"/v1/bases/{segment(base)}")
    follow.finish(here, change, lambda ended: say(f"{clean(base)} is gone"))


@verb(image, "list", examples=["alveole image list"])
def list_images(here: Here) -> None:
    """List the images that are here."""
    bases = [base for base in here.client.get("/v1/bases") if base["kind"] == "oci"]
    _print(
        here, bases, "There is no image. Import one: alveole image import oci:DIR, or fetch one: alveole image fetch"
    )


@verb(
    image,
    "import",
    waits=True,
    examples=["alveole image import oci:./image", "alveole image import oci-archive:image.tar --json"],
)
@click.argument("source", metavar="oci:DIR|oci-archive:FILE")
def import_(here: Here, source: str) -> None:
    """Import a local OCI image; sites can then have it by its digest."""
    from pathlib import Path

    from alveole.cli.create import import_image

    kind, _, place = source.partition(":")
    if kind not in ("oci", "oci-archive") or not place:
        raise InvalidInput(f"{source!r} is not an image", field="source", hint="write oci:DIR or oci-archive:FILE")
    if not Path(place).exists():
        raise InvalidInput(f"there is no {place!r}", field="source", hint="check the path")
    if not here.wait:
        # The upload must be over before there is a change to follow.
        follow.finish(here, import_image(here, kind, place), lambda _: None)
        return
    _ready(here, import_image(here, kind, place), place)


def _ready(here: Here, change: dict[str, Any], what: str) -> None:
    ended = follow.follow(here, change, what)
    follow.check(ended)
    key = str(ended["result"]["base"])
    found = next((base for base in here.client.get("/v1/bases") if base["key"] == key), {"key": key})
    if here.json:
        emit(found)
    else:
        say(f"{clean(key)} is ready. Use it: alveole site create NAME --base {clean(key)}")


@verb(
    image,
    "fetch",
    waits=True,
    examples=[
        "alveole image fetch registry.example.org/club/app:2",
        "alveole image fetch registry.example.org/club/app",
    ],
)
@click.argument("name", metavar="REGISTRY/REPOSITORY[:TAG]")
def fetch(here: Here, name: str) -> None:
    """Fetch an image from a registry that the settings name (images.registries).

    To make a site of it in the same step: alveole site create NAME --image REGISTRY/REPOSITORY:TAG.
    """
    from alveole.cli.parse import image_name

    change = here.client.send("POST", "/v1/images/pull", image_name(name))
    if not here.wait:
        follow.finish(here, change, lambda _: None)
        return
    _ready(here, change, name)


@verb(image, "remove", waits=True, examples=["alveole image remove oci-0123456789abcdef"])
@_one
def remove(here: Here, base: str) -> None:
    """Remove an image that no site has."""
    change = here.client.send("DELETE", f"/v1/bases/{segment(base)}")
    follow.finish(here, change, lambda ended: say(f"{clean(base)} is gone"))
