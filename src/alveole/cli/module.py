"""``alveole module``: the catalogue, modules from elsewhere, and what an author of modules needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from alveole.cli import follow, parse
from alveole.cli.answers import words
from alveole.cli.output import emit, fields, note, paint, say, table, when
from alveole.cli.verbs import Here, Tree, complete, verb
from alveole.errors import InvalidInput
from alveole.remote.apiclient import segment
from alveole.text import clean


@click.group("module", cls=Tree)
def group() -> None:
    """The catalogue of modules that sites are composed of."""


module_name = click.argument("name", metavar="NAME", shell_complete=complete("/v1/modules"))


@verb(group, "list", examples=["alveole module list", "LANG=fr_FR.UTF-8 alveole module list"])
def list_(here: Here) -> None:
    """List the modules: name, title, category. In French where the locale is."""
    modules = here.client.get("/v1/modules")
    if here.json:
        emit(modules)
        return
    rows = [
        (clean(each["name"]), words(each["title"]), clean(each["category"]), clean(each["origin"]), str(each["sites"]))
        for each in modules
    ]
    table(("NAME", "TITLE", "CATEGORY", "FROM", "SITES"), rows, right="SITES", flexible=1)


@verb(group, "show", examples=["alveole module show wordpress", "alveole module show wordpress --json"])
@module_name
def show(here: Here, name: str) -> None:
    """Show a module: what it is, its questions, what it needs, and a command that makes a site of it."""
    found = here.client.get(f"/v1/modules/{segment(name)}")
    if here.json:
        emit(found)
        return
    optional = [f"{each} (as needed)" for each in found["optional_packages"]]
    pairs = [
        ("name", paint(clean(found["name"]), "bold")),
        ("title", words(found["title"])),
        ("about", words(found["description"])),
        ("category", clean(found["category"])),
        ("also called", ", ".join(map(clean, found["aliases"]))),
        ("version", clean(found["version"])),
        ("from", clean(found["origin"])),
        ("digest", clean(found["digest"])),
        ("needs", ", ".join(map(clean, found["needs"]))),
        ("works with", ", ".join(map(clean, found["optional"]))),
        ("not with", ", ".join(map(clean, found["conflicts"]))),
        ("least plan", clean(found["least_plan"])),
        ("packages", ", ".join(map(clean, [*found["packages"], *optional]))),
        ("processes", ", ".join(map(clean, found["processes"]))),
        ("volumes", ", ".join(map(clean, found["volumes"]))),
        ("files", "\n".join(map(clean, found["files"]))),
        ("updates", clean(found["update"])),
        ("sites", str(found["sites"])),
        ("try", clean(found["example"])),
    ]
    fields(pairs)
    if found["questions"]:
        say()
        table(("QUESTION", "TYPE", "DEFAULT", "WHAT"), [_question(each) for each in found["questions"]])


def _question(question: dict[str, Any]) -> tuple[str, str, str, str]:
    kind = question["type"]
    if question["choices"]:
        kind = " | ".join(choice["value"] for choice in question["choices"])
        kind += " (several)" if question["type"] == "choices" else ""
    default = "made up" if question["secret"] else question["shown"]
    if not default:
        default = "(needed)" if question["required"] and not question["when"] else "-"
    return clean(question["name"]), clean(kind), clean(default), words(question["title"])


@verb(group, "new", examples=["alveole module new my-forum", "alveole module new my-forum --to /etc/alveole/modules"])
@click.argument("name", metavar="NAME")
@click.option("--to", "where", metavar="DIR", default=".", help="Where its folder is made. Default: here.")
def new(here: Here, name: str, where: str) -> None:
    """Begin a module of one's own: a folder that passes lint, to be filled."""
    from alveole.catalogue.new import new as begin

    made = begin(name, Path(where))
    if here.json:
        emit({"name": name, "folder": str(made)})
        return
    say(f"{clean(str(made))} is made. Fill it, then: alveole module lint {clean(str(made))}")


@verb(group, "lint", examples=["alveole module lint ./my-forum", "alveole module lint ./my-forum --json"])
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False))
def lint(here: Here, folder: str) -> int:
    """Look through the folder of a module: everything that is wrong with it, with file and line."""
    from alveole.catalogue.lint import lint as look

    place = Path(folder)
    if not place.is_dir():
        raise InvalidInput(f"there is no directory {folder!r}", field="folder", hint="give the folder of a module")
    found = look(place)
    wrong = [each for each in found if not each.warning]
    if here.json:
        emit({"folder": folder, "ok": not wrong, "findings": list(found)})
        return 2 if wrong else 0
    for each in found:
        colour, word = ("yellow", "warning: ") if each.warning else ("red", "")
        hint = f" ({clean(each.hint)})" if each.hint else ""
        say(f"{paint(clean(each.where), colour)}: {word}{clean(each.message)}{hint}")
    if not found:
        say(paint("Nothing is wrong with it.", "green"))
    return 2 if wrong else 0


@verb(
    group,
    "add",
    waits=True,
    examples=[
        "alveole module add https://git.example.org/modules.git --commit 4f0c8d1e… --name ours",
        "alveole module add ./modules.tar.gz --digest sha256:9b1d… --signature modules.tar.gz.sig",
    ],
)
@click.argument("source", metavar="SOURCE")
@click.option("--commit", metavar="HEX", help="Of a git repository: the full id of a signed commit.")
@click.option("--digest", metavar="SHA256", help="Of a .tar.gz or .zip: sha256:… of the file.")
@click.option("--signature", metavar="FILE", help="Of an archive: its OpenSSH signature. Default: SOURCE.sig.")
@click.option("--name", metavar="NAME", default="", help="How the source is called. Default: by its address.")
def add(here: Here, source: str, **options: Any) -> None:
    """Add modules from elsewhere: a git repository or an archive, pinned and signed.

    Who may sign is in the allowed-signers file that the settings name. Nothing is kept unless pin,
    signature and every module are right. Added again, a source takes the place of what it was before;
    by itself it never changes.
    """
    problems = parse.Problems()
    if (options["commit"] is None) == (options["digest"] is None):
        problems.add("commit", "give --commit or --digest, one of the two", "the source must be pinned")
    if options["commit"] is not None and options["signature"] is not None:
        problems.add("signature", "is for archives only", "a commit carries its own signature")
    body: dict[str, Any] = {"source": source, "name": options["name"], "pin": options["commit"] or options["digest"]}
    local = not source.startswith("https://")
    place = Path(source)
    if local and not place.exists():
        problems.add("source", f"there is no {source!r}", "an https:// address or a path of this machine")
    if options["digest"] is not None and (local or options["signature"] is not None):
        body["signature"] = _signature(options["signature"] or f"{source}.sig", problems)
    problems.stop()
    if local:
        body["source"] = str(place.resolve())
        if options["digest"] is not None:
            body["upload"] = _send(here, place)
    change = here.client.send("POST", "/v1/module-sources", body)
    follow.finish(here, change, _added, lambda ended: _source(here, str(ended["result"]["source"])))


def _send(here: Here, place: Path) -> str:
    from alveole.cli import pack
    from alveole.cli.create import send

    return send(here, *pack.file(place), place.name)


def _signature(file: str, problems: parse.Problems) -> str:
    try:
        with Path(file).open(encoding="ascii") as opened:
            return opened.read(64 * 1024)
    except (OSError, UnicodeDecodeError) as error:
        what = getattr(error, "strerror", None) or "it is not an OpenSSH signature"
        problems.add("signature", f"cannot read {file}: {what}", "make one: ssh-keygen -Y sign -n alveole-module")
        return ""


def _added(ended: dict[str, Any]) -> None:
    result = ended["result"]
    say(f"{clean(str(result['source']))}: {clean(str(result['modules']))}, signed by {clean(str(result['signer']))}")


def _source(here: Here, name: str) -> Any:
    found = here.client.get("/v1/module-sources")
    return next((each for each in found if each["name"] == name), None)


@verb(group, "remove", examples=["alveole module remove ours"])
@click.argument("source", metavar="SOURCE", shell_complete=complete("/v1/module-sources"))
def remove(here: Here, source: str) -> None:
    """Remove a source whose modules no site is made of."""
    here.client.send("DELETE", f"/v1/module-sources/{segment(source)}")
    if here.json:
        emit({"name": source, "deleted": True})
    else:
        say(f"The source {clean(source)} is gone.")


@verb(group, "sources", examples=["alveole module sources", "alveole module sources --json"])
def sources(here: Here) -> None:
    """List the sources of modules from elsewhere: their pins, who signed them."""
    found = here.client.get("/v1/module-sources")
    if here.json:
        emit(found)
        return
    if not found:
        note("There is none. Modules come with Alvéole and from the directory of your own.")
        return
    rows = [
        (
            clean(each["name"]),
            clean(each["pin"].removeprefix("sha256:")[:12]),
            clean(each["signer"]),
            when(each["added_at"] or None, short=True),
            clean(", ".join(each["modules"])),
            clean(each["source"]),
        )
        for each in found
    ]
    table(("NAME", "PIN", "SIGNED BY", "SINCE", "MODULES", "SOURCE"), rows)
    for each in found:
        if each["problem"]:
            note(f"{clean(each['name'])}: {clean(each['problem'])}")
