"""``alveole site configure`` and ``answers``: sites of modules."""

from __future__ import annotations

import sys
from typing import Any

import click

from alveole.cli import answers, follow, parse
from alveole.cli.output import emit, fields, note, paint, say
from alveole.cli.show import path
from alveole.cli.states import named, reached
from alveole.cli.verbs import Here, complete, interactive, site_name, verb
from alveole.errors import Problem, Refused
from alveole.text import clean

MANY: dict[str, Any] = {"multiple": True}
_MODULE = complete("/v1/modules")


@verb(
    None,
    "configure",
    waits=True,
    examples=[
        "alveole site configure blog --set title='My blog'",
        "alveole site configure blog --add-module redis --dry-run",
        "alveole site configure blog --set optimisation=big --keep apache/site.conf --yes",
        "alveole site configure blog --take-back-all",
    ],
)
@site_name
@click.option("--set", "sets", metavar="Q=ANSWER", help="Another answer; MODULE.Q where several ask Q.", **MANY)
@click.option("--set-file", metavar="FILE", help="Answers from a TOML file; - is standard input.", **MANY)
@click.option("--unset", metavar="Q", help="Work the answer out again, as if nobody had given it.", **MANY)
@click.option("--add-module", metavar="M", help="Add a module.", shell_complete=_MODULE, **MANY)
@click.option("--remove-module", metavar="M", help="Take a module away.", shell_complete=_MODULE, **MANY)
@click.option("--keep", metavar="PATH", help="Let a file that was changed by hand stay as it is.", **MANY)
@click.option("--keep-all", is_flag=True, help="Let all such files stay.")
@click.option("--take-back", metavar="PATH", help="Give a hand-made change up.", **MANY)
@click.option("--take-back-all", is_flag=True, help="Give all hand-made changes up.")
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@click.option("--diff", is_flag=True, help="Show the difference of each file also where nobody is asked.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def configure(here: Here, name: str, **options: Any) -> None:
    """Give a site of modules other answers, or other modules.

    Its configuration is rendered again. The difference of each file is shown, passwords as ***, and
    on a terminal you are asked before anything is done. Only processes whose files changed start anew.

    A file that was changed by hand inside the container is never overwritten silently: say --keep or
    --take-back. A kept file stays as it is from then on, until it is taken back.
    """
    problems = parse.Problems()
    body: dict[str, Any] = {"answers": answers.given(options["sets"], options["set_file"], problems)}
    for option, field in (("unset", "unset"), ("keep", "keep"), ("take_back", "take_back")):
        body[field] = parse.words(options[option])
    for option, field in (("add_module", "add_modules"), ("remove_module", "remove_modules")):
        body[field] = parse.words(options[option])
    body["keep_all"], body["take_back_all"] = options["keep_all"], options["take_back_all"]
    problems.stop()
    address = path(name, "configure")
    plan = here.client.send("POST", address, body, query={"dry_run": True})
    asking = interactive() and not options["yes"] and not here.json
    if options["dry_run"] and here.json:
        emit(plan)
        return
    if not here.json:
        _tell(plan, diffs=asking or options["dry_run"] or options["diff"])
    if options["dry_run"]:
        say("Nothing was done.")
        return
    if plan["refused"]:
        hint = "--keep PATH lets it stay as it is, --take-back PATH gives it up"
        raise Refused(
            problems=[Problem(each, "was changed by hand, and would be overwritten", hint) for each in plan["refused"]]
        )
    if _nothing(plan):
        if here.json:
            emit(here.client.get(path(name)))
        return
    if asking and not click.confirm("Do this?", default=True, err=True):
        raise Refused("nothing was done")
    change = here.client.send("POST", address, body, version=plan["version"])
    new = {f"{each['module']}.{each['question']}" for each in plan["answers"]}
    follow.finish(
        here,
        change,
        lambda ended: reached(here, ended, "is configured", new.__contains__),
        lambda ended: named(here, ended),
    )


def _nothing(plan: dict[str, Any]) -> bool:
    files = [each for each in plan["files"] if each["fate"] != "changed-by-hand"]
    return not (plan["modules"] or plan["answers"] or files or plan["instance"] or plan["base"])


def _tell(plan: dict[str, Any], *, diffs: bool) -> None:
    if _nothing(plan):
        say(f"Nothing changes for {clean(plan['site'])}.")
    for module, what in plan["modules"].items():
        say(f"module {clean(module)}: {what}")
    for each in plan["answers"]:
        key = f"{each['module']}.{each['question']}".lstrip(".")
        say(f"{clean(key)}: {_shown(each['before'])} → {_shown(each['after'])}")
    for each in plan["files"]:
        restarts = f"  (restarts {', '.join(map(clean, each['restarts']))})" if each["restarts"] else ""
        colour = "red" if each["fate"] in ("in-the-way", "removed") else "yellow"
        say(f"{clean(each['path'])}: {paint(each['fate'], colour)}{restarts}")
        if diffs:
            for line in each["diff"].splitlines():
                colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
                say(f"  {paint(clean(line), colour)}")
    if plan["base"]:
        say(f"base: {clean(plan['base'])}")
    if plan["instance"]:
        say(f"The whole site starts anew: {clean(plan['instance'])}.")
    elif plan["restarts"]:
        say(f"Starts anew: {', '.join(map(clean, plan['restarts']))}.")


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(clean(str(each)) for each in value) or "none"
    return clean(str(value)) if value not in (None, "") else "none"


@verb(None, "answers", examples=["alveole site answers blog", "alveole site answers blog --show-secrets --json"])
@site_name
@click.option("--show-secrets", is_flag=True, help="Print passwords too.")
def show_answers(here: Here, name: str, show_secrets: bool) -> None:
    """Show the answers of a site of modules: those that were given, and those worked out."""
    found = here.client.get(path(name, "answers"), {"show_secrets": show_secrets or None})
    if here.json:
        emit(found)
        return
    rows = []
    for module, given in found["answers"].items():
        by_person = found["given"].get(module, ())
        for question, answer in given.items():
            key = f"{module}.{question}" if module else question
            rows.append(
                (clean(key), f"{_shown(answer)}{'' if question in by_person else paint('  (worked out)', 'dim')}")
            )
    fields(rows)
    if not show_secrets and sys.stdout.isatty():
        note("--show-secrets prints passwords too.")
