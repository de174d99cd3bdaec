"""``alveole site export`` and ``import``: a site as one file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from alveole.cli import follow
from alveole.cli.output import emit, say, size
from alveole.cli.show import path
from alveole.cli.states import named, reached
from alveole.cli.verbs import Here, site_name, verb
from alveole.errors import InvalidInput
from alveole.remote.apiclient import segment
from alveole.text import clean


@verb(
    None,
    "export",
    waits=True,
    examples=[
        "alveole site export blog --to blog.passport",
        "alveole site export blog --to blog.passport --for alv1.…   # of the other machine: alveole node key",
    ],
)
@site_name
@click.option("--to", "file", metavar="FILE", required=True, type=click.Path(path_type=Path), help="A new file.")
@click.option("--for", "key", metavar="KEY", help="The platform that may open it. Default: this one.")
def export(here: Here, name: str, file: Path, key: str | None) -> None:
    """Write everything about a site into one file, to take it in again elsewhere.

    Configuration, answers, secrets, content and volumes, sealed to one platform and signed by this one. The site
    goes on as it is.
    """
    if file.exists():
        raise InvalidInput(f"{file} is there already", field="to", hint="name a new file")
    # Always to the end: what is asked for is the file.
    here.wait = True
    change = here.client.send("POST", path(name, "passports"), {"to": key})

    def fetch(ended: dict[str, Any]) -> dict[str, Any]:
        found = str(ended["result"]["passport"])
        with here.client.open("GET", path(name, "passports") + f"/{segment(found)}") as answer:
            beside = file.with_name(f".{file.name}.{os.getpid()}")
            try:
                with beside.open("xb") as out:
                    os.fchmod(out.fileno(), 0o600)
                    for block in answer.blocks():
                        out.write(block)
                beside.rename(file)
            finally:
                beside.unlink(missing_ok=True)
        return {"file": str(file), "bytes": file.stat().st_size, "change": ended["id"]}

    ended = follow.follow(here, change, name)
    follow.check(ended)
    made = fetch(ended)
    if here.json:
        emit(made)
    else:
        say(f"{clean(str(file))}  {size(made['bytes'])}{follow.took(ended)}")


@verb(
    None,
    "import",
    waits=True,
    examples=[
        "alveole site import blog.passport",
        "alveole site import blog.passport --as blog-again",
        "alveole site import blog.passport --trust SHA256:…",
    ],
)
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--as", "name", metavar="NAME", help="Another name than it had.")
@click.option("--owner", metavar="WHO", help="A person, or team:NAME. Default: you.")
@click.option("--trust", metavar="FINGERPRINT", help="Take it though this signer is not known here.")
@click.option("--stopped", is_flag=True, help="Do not start it.")
def import_(here: Here, file: Path, name: str | None, owner: str | None, trust: str | None, stopped: bool) -> None:
    """Make a site of a passport.

    All of the file is read and compared before anything is made of it. Addresses, number and owner are of this
    machine; what the passport claims about them counts for nothing.
    """

    try:
        with file.open("rb") as opened:
            length = os.fstat(opened.fileno()).st_size
            upload = here.client.upload(iter(lambda: opened.read(1 << 18), b""), length)["id"]
    except OSError as error:
        raise InvalidInput(f"cannot read {file}: {error.strerror}", field="file") from error
    body = {"upload": upload, "name": name, "owner": owner, "trust": trust, "stopped": stopped}
    change = here.client.send("POST", "/v1/passports", body)
    follow.finish(here, change, lambda ended: reached(here, ended, "is here"), lambda ended: named(here, ended))
