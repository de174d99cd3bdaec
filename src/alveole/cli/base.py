"""``alveole base`` and ``alveole image``."""

from __future__ import annotations

from typing import Any

import click

from alveole.cli import follow
from alveole.cli.client import segment
from alveole.cli.output import emit, note, say, table, when
from alveole.cli.verbs import Here, Tree, complete, verb
from alveole.errors import InvalidInput
from alveole.text import clean


@click.group("base", cls=Tree)
def group() -> None:
    """Shared root file systems."""


@click.group("image", cls=Tree)
def image() -> None:
    """Local OCI images."""


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
            "yes" if base["ready"] else "no",
            str(base["sites"]),
            when(base["created_at"] or None, short=True),
            clean(base["label"]),
        )
        for base in bases
    ]
    table(("KEY", "READY", "SITES", "SINCE", "WHAT"), rows, right="SITES")


@verb(group, "list", examples=["alveole base list"])
def list_(here: Here) -> None:
    """List bases: the host's, Debian with packages, images."""
    _print(here, here.client.get("/v1/bases"), "There is no base yet; the first site makes one.")


@verb(group, "delete", waits=True, examples=["alveole base delete debian-0123456789abcdef"])
@click.argument("base", metavar="KEY", shell_complete=complete("/v1/bases", "key"))
def delete(here: Here, base: str) -> None:
    """Delete a base that no site has."""
    change = here.client.send("DELETE", f"/v1/bases/{segment(base)}")
    follow.finish(here, change, lambda ended: say(f"{clean(base)} is gone"))


@verb(image, "list", examples=["alveole image list"])
def list_images(here: Here) -> None:
    """List imported OCI images."""
    bases = [base for base in here.client.get("/v1/bases") if base["kind"] == "oci"]
    _print(here, bases, "There is no image. Import one: alveole image import oci:DIR")


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
    ended = follow.follow(here, import_image(here, kind, place), place)
    follow.check(ended)
    key = str(ended["result"]["base"])
    found = next((base for base in here.client.get("/v1/bases") if base["key"] == key), {"key": key})
    if here.json:
        emit(found)
    else:
        say(f"{clean(key)} is ready. Use it: alveole site create NAME --base {clean(key)}")
