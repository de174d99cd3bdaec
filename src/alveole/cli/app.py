"""``alveole app``: applications and their environments. What goes through them is in ``cli/deliver.py``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import click

from alveole.cli import answers, follow, parse
from alveole.cli.create import MANY, build_network, module_options
from alveole.cli.output import emit, fields, note, paint, say, size, state, table, when
from alveole.cli.verbs import Here, Tree, complete, interactive, verb
from alveole.errors import InvalidInput
from alveole.model.app import DEFAULT_ENVIRONMENTS
from alveole.remote.apiclient import segment
from alveole.text import clean, span


@click.group(
    "app",
    cls=Tree,
    lazy={
        "create": ("alveole.cli.app:create", "Create an application with its environments."),
        "list": ("alveole.cli.app:list_", "List applications: what is live where."),
        "show": ("alveole.cli.app:show", "Show one application: environments and versions."),
        "send": ("alveole.cli.deliver:send", "Send a version."),
        "accept": ("alveole.cli.deliver:accept", "Accept a version that was sent."),
        "refuse": ("alveole.cli.deliver:refuse", "Refuse a version that was sent."),
        "deliver": ("alveole.cli.deliver:deliver", "Bring a version into an environment, ready."),
        "approve": ("alveole.cli.deliver:approve", "Approve what is delivered."),
        "deploy": ("alveole.cli.deliver:deploy", "Make live what is delivered."),
        "rollback": ("alveole.cli.deliver:rollback", "Make a version live again that was."),
        "sync": ("alveole.cli.sync:sync", "Give an environment what another has."),
        "history": ("alveole.cli.deliver:history", "Every version that came into an environment."),
        "compare": ("alveole.cli.deliver:compare", "Say what differs between two versions."),
        "forget": ("alveole.cli.deliver:forget", "Forget a version that is nowhere."),
        "add-env": ("alveole.cli.app:add_env", "Add an environment."),
        "set-env": ("alveole.cli.app:set_env", "Set what an environment asks for."),
        "set": ("alveole.cli.app:set_", "Set how versions come in."),
        "give": ("alveole.cli.app:give", "Give an application to another person or team."),
        "destroy": ("alveole.cli.app:destroy", "Take an application apart."),
    },
)
def group() -> None:
    """Applications: versions brought through ordered environments."""


app_name = click.argument("name", metavar="APP", shell_complete=complete("/v1/apps"))
environment_name = click.argument("environment", metavar="ENV")
signer = click.option(
    "--signer",
    metavar="KEY|FILE",
    help="A public key of minisign or OpenPGP (armored); versions must be signed with one.",
    **MANY,
)
accepting = click.option(
    "--accept", type=click.Choice(["wait", "at-once"]), help="Whether versions wait to be accepted (the default)."
)


def path(name: str, *more: str) -> str:
    """The address of an application, or of something below it."""
    return "/".join(("/v1/apps", segment(name), *map(segment, more)))


@verb(
    None,
    "create",
    waits=True,
    examples=[
        "alveole app create shop --env alpha,preprod,demo,prod --module python",
        "alveole app create shop --env alpha,prod --module wordpress --plan small,prod=large",
        "alveole app create shop --env alpha,preprod,prod --module python --node prod=paris",
        "alveole app create docs --env test,live --accept at-once",
        "alveole app create blog --from-site blog",
    ],
)
@app_name
@click.option(
    "--env", "environments", metavar="A,B", help="Its environments in order; default alpha,preprod,demo,prod."
)
@click.option("--from-site", metavar="SITE", help="Make a site that exists its one environment.")
@module_options
@build_network
@click.option("--command", metavar="'CMD…'", help="What runs, split into words as a shell would; no shell is used.")
@click.option("--port", type=int, metavar="N", help="The port that the command listens on.")
@click.option("--base", metavar="BASE", help="host, debian, or an imported image's key.")
@click.option("--packages", metavar="A,B", help="Debian packages (base debian).", **MANY)
@click.option("--plan", metavar="PLAN|ENV=PLAN,…", help="The limits of each, or by environment; see alveole plan list.")
@click.option("--node", metavar="NODE|ENV=NODE,…", help="The server of each, or by environment; see alveole node list.")
@click.option("--variable", metavar="K=V", help="An environment variable of each.", **MANY)
@click.option("--volume", metavar="NAME:/PATH", help="A directory that outlives versions.", **MANY)
@click.option("--health", metavar="PATH", help="What is asked for before a version counts as ready; default /.")
@click.option("--ready-seconds", type=int, metavar="N", help="How long it may take to become ready; default 60.")
@accepting
@signer
@click.option("--owner", metavar="PERSON|team:NAME", help="Whose it is; default: nobody's but root's.")
def create(here: Here, name: str, **options: Any) -> None:
    """Create an application. Each environment is a site APP-ENV that stands still until its first deploy.

    Passwords are made up for each environment by itself; domains, plans and answers of one are set with
    alveole site set and alveole site configure.
    """
    problems = parse.Problems()
    body: dict[str, Any] = {"name": name}
    for field in ("from_site", "port", "base", "health", "ready_seconds", "accept", "owner", "build_network"):
        if options[field] is not None:
            body[field] = options[field]
    if "=" in (options["plan"] or ""):
        body["plans"] = dict(each.split("=", 1) for each in parse.words((options["plan"],)) if "=" in each)
        others = [each for each in parse.words((options["plan"],)) if "=" not in each]
        if len(others) > 1:
            problems.add("plan", f"{', '.join(others)}: of which environment?", "write ENV=PLAN")
        elif others:
            body["plan"] = others[0]
    elif options["plan"] is not None:
        body["plan"] = options["plan"]
    if options["environments"]:
        body["environments"] = parse.words((options["environments"],))
    if options["node"] is not None:
        body["nodes"] = _nodes(options["node"], body.get("environments", DEFAULT_ENVIRONMENTS), problems)
    if options["command"] is not None:
        body["command"] = parse.command(options["command"], "command", problems)
    if options["packages"]:
        body["packages"] = parse.words(options["packages"])
        body.setdefault("base", "debian")
    if options["variable"]:
        body["env"] = parse.environment(options["variable"], (), problems)
    if options["volume"]:
        body["volumes"] = parse.volumes(options["volume"], problems)
    if options["module"]:
        body["modules"] = parse.words(options["module"])
    if options["sets"] or options["set_file"]:
        body["answers"] = answers.given(options["sets"], options["set_file"], problems)
    if options["signer"]:
        body["signers"] = [parse.text_of(each, "signer", problems) for each in options["signer"]]
    problems.stop()
    if "modules" in body and interactive() and not (options["defaults"] or here.json):
        asked: dict[str, Any] = {key: body[key] for key in ("modules", "name", "plan") if key in body}
        body["answers"] = answers.ask(here, {**asked, "answers": body.get("answers", {}), "content": True})
    change = here.client.send("POST", "/v1/apps", body)

    def done(ended: dict[str, Any]) -> None:
        say(f"{clean(name)} is made{follow.took(ended)}")
        _environments(here.client.get(path(name)))

    follow.finish(here, change, done, lambda _ended: here.client.get(path(name)))


def _nodes(text: str, environments: Sequence[str], problems: parse.Problems) -> dict[str, str]:
    """Of each environment that is named the server; of all, where one is named without an environment."""
    words = parse.words((text,))
    found = dict(each.split("=", 1) for each in words if "=" in each)
    others = [each for each in words if "=" not in each]
    if len(others) > 1:
        problems.add("node", f"{', '.join(others)}: of which environment?", "write ENV=NODE")
    elif others:
        found = {**dict.fromkeys(environments, others[0]), **found}
    return {name: node for name, node in found.items() if node != "here"}


@verb(None, "list", examples=["alveole app list"])
def list_(here: Here) -> None:
    """List applications with what is live in each environment."""
    found = here.client.get("/v1/apps")
    if here.json:
        emit(found)
        return
    if not found:
        note("There is no application. Make one: alveole app create NAME --env alpha,prod")
        return
    rows = []
    for each in found:
        places = [
            f"{item['name'].upper()} {item['live']['version'] if item['live'] else '-'}"
            for item in each["environments"]
        ]
        waiting = sum(1 for item in each["versions"] if item["state"] == "waiting")
        rows.append((clean(each["name"]), clean(each["owner"]), clean(", ".join(places)), str(waiting or "-")))
    table(("NAME", "OWNER", "LIVE", "WAITING"), rows, flexible=2)


@verb(None, "show", examples=["alveole app show shop", "alveole app show shop --json"])
@app_name
def show(here: Here, name: str) -> None:
    """Show an application: what is live, delivered and kept in each environment, and its versions."""
    found = here.client.get(path(name))
    if here.json:
        emit(found)
        return
    signed = f"signed with one of {len(found['signers'])} keys" if found["signers"] else ""
    fields(
        (
            ("name", clean(found["name"])),
            ("owner", clean(found["owner"])),
            ("versions", {"wait": "wait to be accepted", "at-once": "accepted at once"}[found["accept"]]),
            ("", signed),
            ("masked by app sync", clean(", ".join(found["masks"]))),
        )
    )
    say()
    _environments(found)
    if found["versions"]:
        say()
        versions(found["versions"])


def _environments(found: dict[str, Any]) -> None:
    rows = []
    elsewhere = any(each["node"] for each in found["environments"])
    for each in found["environments"]:
        live, ready = each["live"], each["delivered"]
        rows.append(
            (
                clean(each["name"]).upper(),
                clean(live["version"]) if live else "-",
                clean(ready["version"]) if ready else "-",
                state(each["state"]),
                when(live["live_at"], short=True) if live else "-",
                clean(", ".join(each["back_to"][:3])) or "-",
                clean(each["site"]),
                *([clean(each["node"] or "here")] if elsewhere else []),
            )
        )
    more = ("NODE",) if elsewhere else ()
    table(("ENVIRONMENT", "LIVE", "DELIVERED", "STATE", "SINCE", "BACK TO", "SITE", *more), rows, flexible=6)
    for each in found["environments"]:
        if asks := _asks(each["policy"]):
            note(f"{clean(each['name']).upper()} asks for {', '.join(asks)}")
        if each["held"]:
            note(f"{clean(each['name']).upper()} is held by {clean(each['held'])}")
        if each["state"] == "unreachable":
            seen = f"as last told {when(each['seen_at'], short=True)}" if each["seen_at"] else "as last told"
            note(f"{clean(each['name']).upper()}: {clean(each['node'])} is away; what is where stands {seen}")
        if each["interruption"]:
            note(f"{clean(each['name']).upper()}: {clean(each['interruption'])}")


def versions(found: list[dict[str, Any]]) -> None:
    rows = [
        (
            clean(each["name"]),
            clean(each["state"]),
            size(each["bytes"]),
            str(each["files"]),
            when(each["created_at"], short=True),
            clean(each["sender"]),
            clean(", ".join(word.upper() for word in each["live"])) or "-",
            clean(each["note"].partition("\n")[0]),
        )
        for each in found
    ]
    table(("VERSION", "STATE", "SIZE", "FILES", "SENT", "BY", "LIVE IN", "NOTE"), rows, right="SIZE FILES")


@verb(
    None,
    "add-env",
    waits=True,
    examples=[
        "alveole app add-env shop demo --before prod",
        "alveole app add-env shop prod --node paris",
        "alveole app add-env shop prod --site shop-of-today",
    ],
)
@app_name
@environment_name
@click.option("--before", metavar="ENV", help="Which it comes before; default: it is the last.")
@click.option("--like", metavar="ENV", help="Whose configuration it begins with; default: its neighbour's.")
@click.option("--site", metavar="SITE", help="Make a site that exists this environment.")
@click.option("--node", metavar="NODE", help="The server that it lives on; default: this one.")
def add_env(here: Here, name: str, environment: str, **options: str | None) -> None:
    """Add an environment: a site with another one's configuration, but passwords and data of its own."""
    body = {"name": environment, **{key: text for key, text in options.items() if text}}
    if body.get("node") == "here":
        del body["node"]
    change = here.client.send("POST", path(name, "environments"), body)
    shown = f"{clean(environment).upper()} of {clean(name)} is made"
    follow.finish(
        here, change, lambda ended: say(shown + follow.took(ended)), lambda _ended: here.client.get(path(name))
    )


@verb(
    None,
    "set-env",
    examples=[
        "alveole app set-env shop preprod --soak 24h",
        "alveole app set-env shop prod --approvals 2 --window 'mon-thu 08:00-16:00' --verify 5m",
        "alveole app set-env shop prod --before '/usr/bin/python3 {release}/migrate.py' --no-snapshot",
    ],
)
@app_name
@environment_name
@click.option("--soak", metavar="TIME", help="For how long the environment before must have run a version, as 24h.")
@click.option("--approvals", type=int, metavar="N", help="How many others must approve: 0, 1 or 2.")
@click.option("--window", metavar="'DAYS FROM-TO'", help="When it may be deployed; 'always' ends it.", **MANY)
@click.option("--verify", metavar="TIME", help="How long its checks are asked after the switch, as 5m.")
@click.option("--snapshot/--no-snapshot", default=None, help="Save its volumes before each deploy (the default).")
@click.option("--before", metavar="'CMD…'", help="What runs inside before the switch; {release} is the new content.")
@click.option("--after", metavar="'CMD…'", help="What runs inside after the switch; its failure rolls back.")
@click.option("--hook-time", metavar="TIME", help="How long these two may take; at most 10m.")
def set_env(here: Here, name: str, environment: str, **options: Any) -> None:
    """Set what an environment asks for before a version comes in, and what is done around the switch."""
    problems = parse.Problems()
    body: dict[str, Any] = {}
    for option, field in (("soak", "soak_seconds"), ("verify", "verify_seconds"), ("hook_time", "hook_seconds")):
        if options[option] is not None:
            body[field] = parse.age(options[option], option, problems)
    for option in ("approvals", "snapshot"):
        if options[option] is not None:
            body[option] = options[option]
    if options["window"]:
        body["windows"] = [] if options["window"] == ("always",) else list(options["window"])
    for option in ("before", "after"):
        if options[option] is not None:
            body[option] = parse.command(options[option], option, problems) if options[option] else []
    problems.stop()
    found = here.client.send("PATCH", path(name, "environments", environment), body)
    if here.json:
        emit(found)
        return
    own = next(each for each in found["environments"] if each["name"] == environment.lower())
    say(f"{clean(own['name']).upper()} of {clean(name)} asks for {', '.join(_asks(own['policy'])) or 'nothing'}")


def _asks(policy: dict[str, Any]) -> list[str]:
    """What an environment asks for besides the order, as people say it. What is left out is as it usually is."""
    found = []
    if soak := policy.get("soak_seconds"):
        found.append(f"{span(soak)} in the environment before")
    if approvals := policy.get("approvals"):
        found.append(f"{approvals} approval{'s' if approvals > 1 else ''} by others")
    if windows := policy.get("windows"):
        found.append(f"a time of {clean(' or '.join(windows))}")
    if verify := policy.get("verify_seconds"):
        found.append(f"{span(verify)} of checks after the switch")
    if policy.get("snapshot") is False:
        found.append("no saved data")
    for name in ("before", "after"):
        if argv := policy.get(name):
            found.append(f"{clean(shlex.join(argv))} {name} the switch")
    return found


@verb(
    None,
    "set",
    examples=[
        "alveole app set shop --accept at-once",
        "alveole app set shop --signer minisign.pub",
        "alveole app set shop --mask customers.email=email --mask customers.note=text:removed",
    ],
)
@app_name
@accepting
@signer
@click.option("--no-signer", is_flag=True, help="Take versions that nobody signed.")
@click.option("--mask", metavar="RULE", help="For personal data that app sync brings; all rules at once.", **MANY)
@click.option("--no-mask", is_flag=True, help="Let personal data come as they are.")
def set_(
    here: Here,
    name: str,
    accept: str | None,
    signer: tuple[str, ...],
    no_signer: bool,
    mask: tuple[str, ...],
    no_mask: bool,
) -> None:
    """Set how versions come in: whether they wait, and who must have signed them; and what app sync masks.

    A rule is TABLE.COLUMN=KIND with email, name, phone, text:WORDS, null or hash, or VOLUME/PATTERN=removed.
    """
    problems = parse.Problems()
    body: dict[str, Any] = {"accept": accept} if accept else {}
    if signer or no_signer:
        body["signers"] = [parse.text_of(each, "signer", problems) for each in signer]
    if signer and no_signer:
        problems.add("signer", "is given together with --no-signer", "one of the two")
    if mask or no_mask:
        body["masks"] = list(mask)
    if mask and no_mask:
        problems.add("mask", "is given together with --no-mask", "one of the two")
    problems.stop()
    found = here.client.send("PATCH", path(name), body)
    if here.json:
        emit(found)
    else:
        say(f"{clean(name)}: versions {found['accept']}, {len(found['signers'])} signers, {len(found['masks'])} masks")


@verb(None, "give", examples=["alveole app give shop team:club"])
@app_name
@click.argument("owner", metavar="PERSON|team:NAME|nobody")
def give(here: Here, name: str, owner: str) -> None:
    """Give an application, with the sites of its environments, to another person or team."""
    found = here.client.send("PUT", path(name, "owner"), {"owner": owner})
    if here.json:
        emit(found)
    else:
        say(f"{clean(name)} belongs to {clean(found['owner'])}")


@verb(None, "destroy", waits=True, examples=["alveole app destroy shop --yes"])
@app_name
@click.option("--yes", is_flag=True, help="Do not ask. Needed where there is no terminal to ask on.")
def destroy(here: Here, name: str, yes: bool) -> None:
    """Take an application apart: its versions and its history go, its environments stay as plain sites."""
    if not yes:
        if here.json or not interactive():
            raise InvalidInput("is needed where nobody can be asked", field="yes", hint="add --yes")
        note(f"The versions and the history of {paint(clean(name), 'bold')} go for good; its sites stay.")
        click.confirm("Go on?", abort=True, err=True)
    change = here.client.send("DELETE", path(name), query={"confirm": name})
    follow.finish(here, change, lambda ended: say(f"{clean(name)} is taken apart{follow.took(ended)}"))
