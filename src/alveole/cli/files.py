"""``alveole site files``: single files of a site's working copy and volumes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import click

from alveole.cli import follow
from alveole.cli.output import emit, note, say, size, table, when
from alveole.cli.show import path
from alveole.cli.verbs import Here, Tree, site_name, verb
from alveole.errors import InvalidInput
from alveole.text import clean


@click.group("files", cls=Tree)
def group() -> None:
    """Files of a site: list, read, send, move, delete.

    A PATH begins in the working copy, which nobody is served from until it is published (alveole site publish); an
    absolute one is of the site's volumes, such as /data/notes.txt, or below /site/releases.
    """


at_path = click.argument("at", metavar="PATH")


@verb(group, "ls", examples=["alveole site files ls blog", "alveole site files ls blog /data --json"])
@site_name
@click.argument("at", metavar="[PATH]", default="")
def ls(here: Here, name: str, at: str) -> None:
    """List a folder."""
    found = here.client.get(path(name, "files"), {"at": at})
    if here.json:
        emit(found)
        return
    rows = [
        (
            clean(each["name"]) + ("/" if each["kind"] == "folder" else ""),
            size(each["bytes"]) if each["kind"] == "file" else "",
            when(each["modified_at"], short=True),
            f"→ {clean(each['target'])}" if each["target"] else "",
        )
        for each in found["entries"]
    ]
    if rows:
        table(("NAME", "SIZE", "CHANGED", ""), rows, right="SIZE")
    else:
        note("Nothing is in it.")
    if found["more"]:
        note("There is more in it than is listed; SFTP lists all.")


@verb(group, "cat", examples=["alveole site files cat blog index.html", "alveole site files cat blog a.txt --json"])
@site_name
@at_path
def cat(here: Here, name: str, at: str) -> None:
    """Write a file to standard output. With --json only a text, together with its ETag."""
    if here.json:
        emit(here.client.get(path(name, "files/text"), {"at": at}))
        return
    with here.client.open("GET", path(name, "files/content"), query={"at": at}, patience=None) as answer:
        for block in answer.blocks():
            sys.stdout.buffer.write(block)
    sys.stdout.buffer.flush()


@verb(
    group,
    "get",
    examples=["alveole site files get blog index.html", "alveole site files get blog images --to images.zip"],
)
@site_name
@at_path
@click.option("--to", "target", metavar="FILE", help="Where to; default: its own name, here.")
def get(here: Here, name: str, at: str, target: str | None) -> None:
    """Fetch a file, or a folder as a zip."""
    entry = here.client.get(path(name, "files/stat"), {"at": at})
    own = entry["name"].rsplit("/", 1)[-1] or name
    file = Path(target or (f"{own}.zip" if entry["kind"] == "folder" else own))
    if target is None and file.exists():
        raise InvalidInput(f"{str(file)!r} is here already", field="to", hint="say where to: --to FILE")
    beside = file.with_name(f".{file.name}.part")
    count = 0
    try:
        with (
            here.client.open("GET", path(name, "files/content"), query={"at": at}, patience=None) as answer,
            beside.open("wb") as out,
        ):
            for block in answer.blocks():
                count += out.write(block)
        beside.replace(file)
    except OSError as error:
        raise InvalidInput(f"cannot write {file}: {error.strerror}", field="to") from error
    finally:
        beside.unlink(missing_ok=True)
    if here.json:
        emit({"file": str(file), "bytes": count})
    else:
        say(f"{clean(str(file))}  {size(count)}")


@verb(
    group,
    "put",
    examples=["alveole site files put blog index.html", "date | alveole site files put blog - --to stamp.txt"],
)
@site_name
@click.argument("source", metavar="FILE|-")
@click.option("--to", "target", metavar="PATH", help="Its path there; default: its own name.")
def put(here: Here, name: str, source: str, target: str | None) -> None:
    """Send a file; what is there is replaced, whole or not at all."""
    at = target or ("" if source == "-" else Path(source).name)
    if not at:
        raise InvalidInput("nothing says what to call it", field="to", hint="--to PATH")
    headers = {"Content-Type": "application/octet-stream"}
    try:
        with sys.stdin.buffer if source == "-" else Path(source).open("rb") as file:
            length = None if source == "-" else os.fstat(file.fileno()).st_size
            with follow.Show(f"sending {clean(at)}") as show:
                blocks = follow.counted(_blocks(file), show, f"sending {clean(at)}", length)
                with here.client.open(
                    "PUT",
                    path(name, "files/content"),
                    query={"at": at},
                    headers=headers,
                    stream=blocks,
                    length=length,
                    patience=None,
                ) as answer:
                    made: dict[str, Any] = answer.json()
    except OSError as error:
        raise InvalidInput(f"cannot read {source}: {error.strerror}", field="file") from error
    if here.json:
        emit(made)
    else:
        say(f"{clean(at)}  {size(made['bytes'])}")


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: file.read(1 << 18), b"")


def _done(here: Here, at: str, words: str) -> None:
    if here.json:
        emit({"at": at, "done": True})
    else:
        say(f"{clean(at)} {words}.")


@verb(group, "mkdir", examples=["alveole site files mkdir blog images"])
@site_name
@at_path
def mkdir(here: Here, name: str, at: str) -> None:
    """Make a folder."""
    here.client.send("POST", path(name, "files/folders"), {"at": at})
    _done(here, at, "is made")


@verb(group, "mv", examples=["alveole site files mv blog old.html archive/old.html"])
@site_name
@at_path
@click.argument("to", metavar="PATH")
def mv(here: Here, name: str, at: str, to: str) -> None:
    """Rename or move a file or folder; what is there already is never written over."""
    here.client.send("POST", path(name, "files/rename"), {"at": at, "to": to})
    _done(here, at, f"is {clean(to)} now")


@verb(group, "rm", examples=["alveole site files rm blog old.html"])
@site_name
@at_path
def rm(here: Here, name: str, at: str) -> None:
    """Delete a file, or a folder with all that is in it."""
    here.client.send("DELETE", path(name, "files"), query={"at": at})
    _done(here, at, "is deleted")


@verb(group, "unzip", examples=["alveole site files unzip blog photos.zip"])
@site_name
@at_path
def unzip(here: Here, name: str, at: str) -> None:
    """Unpack an archive (zip, tar, tar.gz, …) beside itself."""
    found = here.client.send("POST", path(name, "files/unpack"), {"at": at})
    if here.json:
        emit(found)
    else:
        say(f"{clean(at)}: {found['files']} files unpacked.")
