"""``alveole site create``, ``update`` and ``set``: what a person asks of a site, and its content on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click

from alveole.cli import answers, follow, parse
from alveole.cli.output import emit, note, say, size, table
from alveole.cli.show import path
from alveole.cli.states import named, reached, view
from alveole.cli.verbs import Here, complete, interactive, site_name, verb
from alveole.errors import AlveoleError, InvalidInput
from alveole.text import clean

F = TypeVar("F", bound=Callable[..., Any])
MANY: dict[str, Any] = {"multiple": True}


def _options(*options: Callable[[F], F]) -> Callable[[F], F]:
    def apply(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return apply


#: What both ``create`` and ``set`` take.
shared = _options(
    click.option(
        "--plan", metavar="PLAN", help="Its limits; see alveole plan list.", shell_complete=complete("/v1/plans")
    ),
    click.option("--command", metavar="'CMD…'", help="What runs, split into words as a shell would; no shell is used."),
    click.option("--process", metavar="NAME='CMD…'", help="One of several processes; 'web' answers.", **MANY),
    click.option("--port", type=int, metavar="N", help="The port that the command listens on."),
    click.option("--socket", is_flag=True, help="The command listens on the Unix socket $ALVEOLE_SOCKET."),
    click.option("--health", metavar="PATH", help="What is asked for before the site counts as ready; default /."),
    click.option("--ready-seconds", type=int, metavar="N", help="How long it may take to become ready; default 60."),
    click.option("--stop-seconds", type=int, metavar="N", help="How long it may take to stop; default 10."),
    click.option("--env", metavar="K=V", help="An environment variable.", **MANY),
    click.option("--env-file", metavar="FILE", help="Variables from a file, one K=V a line.", **MANY),
    click.option("--domain", metavar="D", help="A domain of its own, beside NAME.DOMAIN.", **MANY),
    click.option("--path", "prefix", metavar="/PREFIX", help="Also answer below this path of the main domain."),
    click.option("--volume", metavar="NAME:/PATH", help="A directory that outlives updates.", **MANY),
    click.option(
        "--publish", metavar="HOST:PORT[/udp]", help="A port of this machine that leads to one of it.", **MANY
    ),
    click.option("--share", metavar="DIR:/PATH[:rw]", help="A directory of this machine that it sees.", **MANY),
    click.option(
        "--persistent/--forgetful",
        default=None,
        help="Keep what it writes outside of volumes over a stop (the default), or begin anew at each start.",
    ),
    click.option("--allow", metavar="CIDR", help="Let only these networks in.", **MANY),
    click.option("--deny", metavar="CIDR", help="Keep these networks out.", **MANY),
    click.option("--https-only/--no-https-only", default=None, help="Answer HTTP with a redirect to HTTPS."),
    click.option(
        "--sleep-after", metavar="TIME|never|plan", help="Let it sleep after so long without a visit: 30m, 12h, 7d."
    ),
    click.option(
        "--woken-by", type=click.Choice(["people", "everybody"]), help="Whether crawlers and monitoring wake it too."
    ),
    click.option("--base", metavar="BASE", help="host, debian, a digest, oci:DIR or oci-archive:FILE."),
    click.option("--packages", metavar="A,B", help="Debian packages (base debian).", **MANY),
)


module_options = _options(
    click.option(
        "--module",
        metavar="A,B",
        help="What it is made of; see alveole module list.",
        shell_complete=complete("/v1/modules"),
        **MANY,
    ),
    click.option(
        "--set", "sets", metavar="Q=ANSWER", help="Answer a module's question; MODULE.Q if several ask.", **MANY
    ),
    click.option("--set-file", metavar="FILE", help="Answers from a TOML file; - is standard input.", **MANY),
    click.option("--defaults", is_flag=True, help="Never ask: take the default of every open question."),
)


build_network = click.option(
    "--build-network/--no-build-network",
    default=None,
    help="Let the build of its dependencies ask the package registries.",
)


def _fields(problems: parse.Problems, options: dict[str, Any]) -> dict[str, Any]:
    """The fields that ``create`` and ``set`` have in common; what was not given is left out."""
    found: dict[str, Any] = {
        name: options[name]
        for name in ("plan", "port", "health", "ready_seconds", "stop_seconds", "https_only", "woken_by", "persistent")
        if options[name] is not None
    }
    if options["sleep_after"] is not None:
        found["sleep_after"] = parse.sleep_after(options["sleep_after"], "sleep_after", problems)
    if options["prefix"] is not None:
        found["path"] = options["prefix"]
    if options["command"] is not None:
        found["command"] = parse.command(options["command"], "command", problems)
    if options["process"]:
        found["processes"] = parse.processes(options["process"], problems)
    if options["command"] is not None and options["process"]:
        problems.add("command", "cannot be given together with --process", "name it: --process web='…'")
    if options["socket"] and options["port"] is not None:
        problems.add("port", "cannot be given together with --socket", "the command listens on one of the two")
    if options["env"] or options["env_file"]:
        found["env"] = parse.environment(options["env"], options["env_file"], problems)
    if options["volume"]:
        found["volumes"] = parse.volumes(options["volume"], problems)
    if options["publish"]:
        found["published"] = parse.published(options["publish"], problems)
    if options["share"]:
        found["shared"] = parse.shared(options["share"], problems)
    for name in ("allow", "deny"):
        if options[name]:
            found[name] = parse.words(options[name])
    if options["packages"]:
        found["packages"] = parse.words(options["packages"])
    if options["base"] is not None:
        found["base"] = options["base"]
    return found


@verb(
    None,
    "create",
    waits=True,
    examples=[
        "alveole site create blog --from ./public",
        "alveole site create hello --from app.tar.gz --command 'gunicorn -b 0.0.0.0:8000 app:app' --port 8000 \\",
        "    --base debian --packages gunicorn --env DEBUG=0 --volume data:/data --plan medium",
        "alveole site create shop --base oci:./image --domain shop.example.org --dry-run",
        "alveole site create app --image registry.example.org/club/app:2 --volume data:/var/lib/app",
        "alveole site create game --base oci:./image --publish 20565:25565/udp --share /srv/maps:/maps",
        "alveole site create blog --module wordpress --set title='My blog'",
        "alveole site create wiki --module apache,php,mysql --from ./wiki --set-file answers.toml --defaults",
    ],
)
@click.argument("name", metavar="NAME")
@module_options
@click.option("--from", "source", metavar="DIR|ARCHIVE", help="Its content: a directory, .tar.gz, .tar.zst or .zip.")
@build_network
@shared
@click.option("--image", metavar="REGISTRY/REPOSITORY[:TAG]", help="Fetch this image first and run what it says.")
@click.option("--owner", metavar="PERSON|team:NAME", help="Whose it is; default: nobody's but root's.")
@click.option("--stopped", is_flag=True, help="Do not start it.")
@click.option(
    "--node", metavar="NODE", help="The machine it lives on; `any`: where there is most room. Default: this one."
)
@click.option("--note", "remark", metavar="TEXT", help="Kept with the first release.")
@click.option("--dry-run", is_flag=True, help="Check everything and say what would be done, but do nothing.")
def create(here: Here, name: str, source: str | None, **options: Any) -> None:
    """Create a site and start it.

    Without a command its content is served as it is. With --command (or several --process) that
    program runs as the site's own user, and listens on --port or on the Unix socket $ALVEOLE_SOCKET.

    With --module it is composed of modules of the catalogue. Their open questions are asked on a
    terminal, and there only; --set, --set-file and --defaults answer them ahead.

    With --from and neither, the module that runs the content is picked from what is in it, and what it
    names in requirements.txt, package.json… is installed, in a container that only reaches package
    registries, and those with --build-network.
    """
    problems = parse.Problems()
    body: dict[str, Any] = {"name": name, **_fields(problems, options)}
    if options["domain"]:
        body["domains"] = list(options["domain"])
    if options["image"] is not None:
        body["image"] = parse.image_name(options["image"])
    if "packages" in body:
        body.setdefault("base", "debian")
    if options["owner"] is not None:
        body["owner"] = options["owner"]
    if options["stopped"]:
        body["stopped"] = True
    if options["remark"]:
        body["note"] = options["remark"]
    if options["module"]:
        body["modules"] = parse.words(options["module"])
    if options["sets"] or options["set_file"]:
        body["answers"] = answers.given(options["sets"], options["set_file"], problems)
    if options["build_network"] is not None:
        body["build_network"] = options["build_network"]
    if options["node"]:
        body["node"] = options["node"]
    _check_source(source, problems)
    image = _image(body.get("base"))
    if image is not None:
        _check_source(image[1], problems, "base")
    if problems:
        _all_problems(here, _stand_in(body) if image else body, problems)
    if source is not None and not _SAYS_WHAT_RUNS & body.keys():
        _detect(here, body, Path(source))
    asking = interactive() and not (options["defaults"] or options["dry_run"] or here.json)
    if "modules" in body and asking:
        body["answers"] = answers.ask(here, _to_ask(body, source is not None))
    if options["dry_run"]:
        _preview(here, body, image, source is not None)
        return
    if source is not None or image is not None:
        # What is wrong with the request is told before anything large is sent.
        checked = _stand_in(body) if image else body
        here.client.send("POST", "/v1/sites", checked, query={"dry_run": True, "content": True})
    if image is not None:
        body["base"] = _imported(here, *image)
    if source is not None:
        body["upload"] = upload(here, source)
    change = here.client.send("POST", "/v1/sites", body)
    word = "is made" if options["stopped"] else "is running"
    follow.finish(
        here, change, lambda ended: reached(here, ended, word, lambda _: True), lambda ended: named(here, ended)
    )


#: Fields that leave nothing to find out.
_SAYS_WHAT_RUNS = {"command", "processes", "port", "base", "packages", "image"}


def _detect(here: Here, body: dict[str, Any], source: Path) -> None:
    """Pick what runs the content, from names and a few small texts of it, and say why.

    Of modules that were named only their answers are worked out.
    """
    from alveole.catalogue import content

    given = body.get("answers", {})
    if "modules" in body and any(key.rpartition(".")[2] == "command" for key in given):
        # Then the other answers are not asked for.
        return
    seen = content.look(source)
    asked = {"names": list(seen.names), "texts": seen.texts, "modules": body.get("modules", [])}
    found = here.client.send("POST", "/v1/modules/detect", asked)
    why = answers.words(found["why"])
    if not found["modules"] or not why:
        return
    note(f"  {', '.join(map(clean, found['modules']))}: {why}")
    worked = {key: value for key, value in found["answers"].items() if not {key, key.partition(".")[2]} & given.keys()}
    body |= {"modules": found["modules"], "answers": {**worked, **given}, "why": str(found["why"]["en"])}


def _to_ask(body: dict[str, Any], content: bool) -> dict[str, Any]:
    """What the questions are asked about, of a site that is wanted."""
    wanted: dict[str, Any] = {
        key: body[key] for key in ("modules", "name", "domains", "plan", "https_only") if key in body
    }
    return {**wanted, "answers": body.get("answers", {}), "content": content}


@verb(
    None,
    "update",
    waits=True,
    examples=[
        "alveole site update blog --from ./public",
        "alveole site update blog --release sha256:4f0c…",
    ],
)
@site_name
@click.option("--from", "source", metavar="DIR|ARCHIVE", help="A directory, .tar.gz, .tar.zst or .zip.")
@click.option("--release", metavar="DIGEST", help="Make a kept release live again instead.")
@build_network
@click.option("--note", "remark", metavar="TEXT", help="Kept with the release.")
@click.option("--not-live", is_flag=True, help="Build and keep it only; make it live later with --release.")
def update(
    here: Here,
    name: str,
    source: str | None,
    release: str | None,
    remark: str | None,
    build_network: bool | None,
    not_live: bool,
) -> None:
    """Give a site new content. The old content answers until the new one is ready; no request fails.

    The last releases are kept; a shortened digest, as site show prints it, is enough for --release.
    """
    problems = parse.Problems()
    if (source is None) == (release is None):
        problems.add("from", "give --from or --release, and not both")
    _check_source(source, problems)
    problems.stop()
    site = view(here, name)
    body: dict[str, Any] = {"note": remark or "", "live": not not_live}
    if not_live and release is not None:
        raise InvalidInput("a kept release is kept already", field="not_live", hint="leave --not-live out")
    if build_network is not None:
        body["build_network"] = build_network
    if source is not None:
        body["upload"] = upload(here, source)
    else:
        body["release"] = _release(site, str(release))
    change = here.client.send("POST", path(name, "releases"), body)
    follow.finish(here, change, lambda ended: reached(here, ended, "is updated"), lambda ended: named(here, ended))


def _release(site: dict[str, Any], text: str) -> str:
    short = text.removeprefix("sha256:").rstrip("…")
    fit = [item["digest"] for item in site["releases"] if short and item["digest"][7:].startswith(short)]
    # What fits none or several is sent as it is: the refusal then comes from the one who knows.
    return str(fit[0]) if len(fit) == 1 else text


CLEARED = ("path", "port", "allow", "deny", "domains", "volumes", "command", "packages", "published", "shared")


@verb(
    None,
    "set",
    waits=True,
    examples=[
        "alveole site set blog --plan large",
        "alveole site set hello --env LEVEL=info --unset env.DEBUG --domain hello.example.org",
        "alveole site set blog --allow 192.0.2.0/24 --https-only",
        "alveole site set blog --sleep-after 30m",
        "alveole site set blog --unset allow --unset path",
    ],
)
@site_name
@shared
@click.option("--remove-domain", metavar="D", help="Take a domain away.", **MANY)
@click.option("--unset", metavar="FIELD", help=f"Clear one of {', '.join(CLEARED)} or env.KEY.", **MANY)
@click.option("--on-push", type=click.Choice(["live", "wait"]), help="Whether a git push goes live at once.")
@click.option("--on-files", type=click.Choice(["live", "wait"]), help="The same of files that came by SFTP.")
@click.option("--if-version", type=int, metavar="N", help="Only when the site still has this version.")
def set_(here: Here, name: str, **options: Any) -> None:
    """Change a site's configuration. What is not named stays as it is.

    --env and --domain add; --volume, --publish, --share, --allow and --deny replace the whole list.
    """
    problems = parse.Problems()
    body = _fields(problems, options)
    if options["socket"]:
        body["port"] = None
    for name_ in ("on_push", "on_files"):
        if options[name_] is not None:
            body[name_] = options[name_]
    if options["domain"]:
        body["add_domains"] = list(options["domain"])
    if options["remove_domain"]:
        body["remove_domains"] = list(options["remove_domain"])
    _clear(body, options["unset"], problems)
    if not body and not problems:
        problems.add("", "nothing to set", "alveole site set --help lists what can be")
    problems.stop()
    image = _image(body.get("base"))
    if image is not None:
        _check_source(image[1], problems, "base")
        problems.stop()
        body["base"] = _imported(here, *image)
    change = here.client.send("PATCH", path(name), body, version=options["if_version"])
    follow.finish(here, change, lambda ended: reached(here, ended, "is set"), lambda ended: named(here, ended))


def _clear(body: dict[str, Any], texts: tuple[str, ...], problems: parse.Problems) -> None:
    for text in texts:
        if text.startswith("env.") and len(text) > 4:
            body.setdefault("env", {})[text[4:]] = None
        elif text not in CLEARED:
            problems.add("unset", f"{text!r} cannot be cleared", f"one of {', '.join(CLEARED)} or env.KEY")
        elif text in body:
            problems.add("unset", f"{text} is set and cleared at once")
        else:
            body[text] = None if text in ("path", "port") else []


def _all_problems(here: Here, body: dict[str, Any], problems: parse.Problems) -> None:
    """Raise what is wrong here together with what the API finds wrong in the rest of the request."""
    found = list(problems)
    told = {problem.field.partition(".")[0] for problem in problems}
    try:
        here.client.send("POST", "/v1/sites", body, query={"dry_run": True, "content": True})
    except InvalidInput as error:
        found += [problem for problem in error.problems if problem.field.partition(".")[0] not in told]
    except AlveoleError:
        # Not reachable, or refused for another reason: what is known here is wrong all the same.
        pass
    raise InvalidInput(problems=found)


def _stand_in(body: dict[str, Any]) -> dict[str, Any]:
    """The request as it can be checked before the image is there: some base, and a command as every image has one."""
    return {"command": ["the-image"], **body, "base": "host"}


def _preview(here: Here, body: dict[str, Any], image: tuple[str, str] | None, content: bool) -> None:
    if image is not None:
        note(f"The image {clean(image[1])} would be imported first; it is not looked into now.")
        body = _stand_in(body)
    query = {"dry_run": True, "content": content or image is not None}
    plan = here.client.send("POST", "/v1/sites", body, query=query)
    if here.json:
        emit(plan)
        return
    site = plan["site"]
    say(f"{clean(site['name'])} would be made on {clean(site['base'])} with the plan {clean(site['plan'])}:")
    for url in site["urls"]:
        say(f"  {clean(url)}")
    table(
        ("STEP", "RESOURCE", "WHY"),
        [(clean(step["action"]), clean(step["resource"]), clean(step["reason"])) for step in plan["steps"]],
    )
    for item in plan["files"]:
        say(f"  /config/{clean(item['path'])}: {max(0, item['diff'].count(chr(10)) - 3)} lines")
    say(f"Other sites affected: {plan['others']}. Nothing was done.")


def _check_source(source: str | None, problems: parse.Problems, field: str = "from") -> None:
    if source is None:
        return
    place = Path(source)
    if not place.exists():
        problems.add(field, f"there is no {source!r}", "check the path")
    elif field == "from" and place.is_dir() and not any(place.iterdir()):
        problems.add(field, f"{source!r} is empty", "put the content in first")


def _image(base: str | None) -> tuple[str, str] | None:
    """``oci:DIR`` and ``oci-archive:FILE`` as kind and place; anything else is no local image."""
    kind, _, place = (base or "").partition(":")
    return (kind, place) if kind in ("oci", "oci-archive") and place and not place.startswith("sha256:") else None


def upload(here: Here, source: str) -> str:
    from alveole.cli import pack

    place = Path(source)

    def skipped(name: str) -> None:
        note(f"  {clean(name)} is no file, directory or link: left out")

    if place.is_dir():
        return send(here, pack.directory(place, skipped), None, place.resolve().name)
    return send(here, *pack.file(place), place.name)


def send(here: Here, blocks: Iterator[bytes], length: int | None, name: str) -> str:
    """Upload and give the id."""
    with follow.Show(f"sending {clean(name)}") as show:
        made = here.client.upload(follow.counted(blocks, show, f"sending {clean(name)}", length), length)
    if not here.json:
        note(f"  sent {clean(name)}, {size(made['bytes'])}")
    return str(made["id"])


def import_image(here: Here, kind: str, place: str) -> dict[str, Any]:
    """Send a local OCI image; gives the change that makes a base of it."""
    from alveole.cli import pack

    where = Path(place)
    if kind == "oci" and not (where / "oci-layout").is_file():
        raise InvalidInput(
            f"{place} is not an OCI image directory", field="base", hint="make one: skopeo copy … oci:DIR"
        )
    blocks, length = (pack.directory(where), None) if kind == "oci" else pack.file(where)
    upload = send(here, blocks, length, where.name)
    change: dict[str, Any] = here.client.send("POST", "/v1/images", {"upload": upload})
    return change


def _imported(here: Here, kind: str, place: str) -> str:
    """The key of the base that a local image becomes."""
    ended = follow.follow(here, import_image(here, kind, place), place)
    follow.check(ended)
    return str(ended["result"]["base"])
