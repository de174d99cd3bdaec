"""The tree of commands: its help is complete, its short help costs no import, its start is quick."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from doorkit import Door

from alveole.cli.tree import root
from alveole.cli.verbs import Tree, Verb

GOLDEN = Path(__file__).parent / "golden" / "help.txt"
#: The contract of issue 2, and what belongs beside it.
CONTRACT = """
serve
site create, site list, site show, site start, site stop, site restart, site sleep, site destroy, site logs, site exec
site domain add, site domain check, site domain list, site domain remove
site update, site set, site rename
backup create, backup list, backup restore, backup delete, backup prove, backup show, backup pin, backup unpin
backup open, backup opened, backup close, backup calendar
backup policy show, backup policy set, backup tree, backup download, backup restore-file, backup key export
backup repository list, backup repository add, backup repository key, backup repository check
backup repository use, backup repository remove, backup platform, restore-platform
plan list, plan show, plan create, plan set, plan delete
logs, analytics
why, doctor, status, journal, journal verify, figures, report
token create, token list, token delete
cert list, cert show, cert issue, cert renew, cert upload, cert remove
acme list, acme add, acme remove, acme try, acme set, acme budget, acme zone add, acme zone remove
ca show, export, image fetch, image import, image remove, image list, completion, version
base list, base show, base verify, base upgrade, base rollback, base prune, base delete
change show, change follow
site configure, site answers
site work, site publish
site files ls, site files cat, site files get, site files put, site files mkdir, site files mv, site files rm
site files unzip
app create, app list, app show, app send, app accept, app refuse, app forget, app deliver, app approve, app deploy
app rollback, app sync, app history, app compare, app add-env, app set-env, app set, app give, app destroy
check add, check list, check show, check run, check remove, check lint, check record, check secret
notify add, notify list, notify set, notify remove, notify test, notify log
notify mail set, notify mail show, notify mail remove
incident list, incident show, incident ack, incident comment, incident act, incident close, incident reopen
incident report, site promises, silence list, silence add, silence remove
rule list, rule figures, rule show, rule add, rule set, rule remove, rule try
op list, op run, op log, op add, op remove, op ps, op kill, op restart
account key list, account key add, account key remove
module list, module show, module new, module lint, module add, module remove, module sources
account list, account show, account add, account set, account disable, account remove, account password
account first-token, account token, account sessions, account factors, account second-factor
team list, team show, team add, team set, team remove, site share, site give
quota list, quota show, quota set, quota remove
dns setup, dns show, dns check, dns sync
ldap show, ldap set, ldap remove, ldap try, oidc show, oidc set, oidc remove
syslog show, syslog set, syslog reset, syslog try
node key, node add, node list, node show, node check, node upgrade, node drain, node remove, node landing
node signers, node trust, node distrust, site move, site confirm, site export, site import
"""


def leaves(group: click.Group, context: click.Context, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, Verb) or not isinstance(command, click.Group):
            yield f"{prefix}{name}", command
        if isinstance(command, click.Group):
            yield from leaves(command, context, f"{prefix}{name} ")


@pytest.fixture
def commands() -> dict[str, click.Command]:
    with click.Context(root) as context:
        return dict(leaves(root, context))


def help_of(name: str, command: click.Command) -> str:
    # A fixed width: what is kept must not depend on the terminal of whoever runs the tests.
    with click.Context(
        command,
        info_name=f"alveole {name}",
        terminal_width=80,
        max_content_width=80,
        help_option_names=["-h", "--help"],
    ) as context:
        return command.get_help(context)


def test_the_tree_is_the_contract(commands: dict[str, click.Command]) -> None:
    wanted = {name.strip() for line in CONTRACT.split("\n") for name in line.split(",") if name.strip()}
    assert commands.keys() == wanted


def test_every_command_has_an_example_and_its_exit_statuses(commands: dict[str, click.Command]) -> None:
    for name, command in commands.items():
        assert isinstance(command, Verb), name
        assert command.examples, f"{name} has no example"
        assert any(f"alveole {name}" in example or name in example for example in command.examples), name
        text = help_of(name, command)
        assert "\nExamples:\n" in text, name
        assert "\nExit status:\n" in text, name
        assert command.help, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.opts}"


def test_every_command_but_three_speaks_json(commands: dict[str, click.Command]) -> None:
    silent = {name for name, command in commands.items() if all(item.name != "json" for item in command.params)}
    # One runs until it is stopped, one writes a script, one speaks to another Alvéole.
    assert silent == {"serve", "completion", "node landing"}


def test_what_takes_time_can_be_left_alone(commands: dict[str, click.Command]) -> None:
    waiting = {name for name, command in commands.items() if any(item.name == "wait" for item in command.params)}
    assert waiting >= {
        f"site {verb}" for verb in ("create", "start", "stop", "restart", "update", "set", "rename", "destroy")
    }
    assert waiting >= {"site configure", "module add"}
    assert waiting >= {"backup create", "backup restore", "backup delete", "image import", "base delete"}


def test_help_is_as_it_was(commands: dict[str, click.Command]) -> None:
    """A change of any help is seen in the review. Write it anew: ALVEOLE_GOLDEN=1 pytest tests/cli/test_help.py."""
    parts = [f"$ alveole {name} --help\n{help_of(name, command)}\n" for name, command in sorted(commands.items())]
    text = "\n".join(line.rstrip() for line in "\n".join(parts).split("\n"))
    if os.environ.get("ALVEOLE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


def test_short_help_fits_and_leads_somewhere() -> None:
    def check(tree: Tree) -> None:
        for name, (place, text) in tree.lazy.items():
            module, _, attribute = place.partition(":")
            found = getattr(importlib.import_module(module), attribute)
            assert isinstance(found, click.Command), place
            assert text.endswith("."), name
            assert len(text) <= 62, f"{name}: does not fit beside its name in 80 columns"
            if isinstance(found, Tree):
                check(found)

    assert isinstance(root, Tree)
    check(root)


FORBIDDEN = (
    "fastapi",
    "pydantic",
    "sqlalchemy",
    "rich",
    "starlette",
    "uvicorn",
    "websockets",
    "cryptography",
    "http.client",
)


@pytest.mark.parametrize("argv", [["--help"], ["site", "--help"], ["site", "list", "--json"], ["site", "list"]])
def test_the_start_imports_nothing_heavy(door: Door, argv: list[str]) -> None:
    script = (
        "import sys, json; from alveole.cli.tree import run; status = run(sys.argv[1:]);"
        "print(json.dumps([status, sorted(sys.modules)]), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "--config", str(door.config), *argv], capture_output=True, text=True, check=True
    )
    status, modules = json.loads(done.stderr.splitlines()[-1])
    assert status == 0
    assert not [name for name in FORBIDDEN if name in modules]


def test_the_program_and_the_module_are_one(door: Door) -> None:
    for program in ([str(Path(sys.executable).parent / "alveole")], [sys.executable, "-m", "alveole"]):
        done = subprocess.run([*program, "version", "--json"], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout).keys() == {"version"}


def test_completion_scripts_and_site_names(door: Door) -> None:
    door.site("blog")
    door.site("blossom")
    for shell in ("bash", "zsh", "fish"):
        ran = door.run("completion", shell)
        assert ran.status == 0
        assert f"_ALVEOLE_COMPLETE={shell}_complete" in ran.out
    program = str(Path(sys.executable).parent / "alveole")

    def complete(words: str) -> list[str]:
        environment = {
            "_ALVEOLE_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
            "ALVEOLE_CONFIG": str(door.config),
            "PATH": os.environ["PATH"],
        }
        done = subprocess.run([program], env=environment, capture_output=True, text=True, check=True)
        return [line.partition(",")[2] for line in done.stdout.splitlines() if line]

    assert complete("alveole site show bl") == ["blog", "blossom"]
    assert complete("alveole why blos") == ["blossom"]
    assert "restart" in complete("alveole site re")
    assert complete("alveole site create x --plan sm") == ["small"]
    door.stop()
    assert complete("alveole site show bl") == [], "silent when nobody answers"
    door.start()
