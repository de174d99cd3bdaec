"""The command tree and the end of every command: what is printed when it fails, and the exit status."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from alveole import __version__
from alveole.cli.verbs import Here, Tree

if TYPE_CHECKING:
    from alveole.errors import AlveoleError

COMMANDS = {
    "site": ("alveole.cli.site:group", "Create, change, look into and destroy sites."),
    "app": ("alveole.cli.app:group", "Applications: versions brought through environments."),
    "backup": ("alveole.cli.backup:group", "Save sites and give them back."),
    "module": ("alveole.cli.module:group", "The catalogue: what sites can be composed of."),
    "check": ("alveole.cli.check:group", "Scenarios: gate, verification and monitoring of a site."),
    "op": ("alveole.cli.operation:group", "Operations: named commands of a site, and its programs."),
    "incident": ("alveole.cli.incident:group", "What is broken: who was told, what is done about it."),
    "rule": ("alveole.cli.rule:group", "When an incident is opened, who is told, when it is over."),
    "silence": ("alveole.cli.rule:silence", "Times in which nobody is told."),
    "notify": ("alveole.cli.notify:group", "Be told by mail, webhook, ntfy, Matrix or feed."),
    "plan": ("alveole.cli.plan:group", "Named sets of limits."),
    "logs": ("alveole.cli.logbook:logs", "Search and follow lines of sites, of Alvéole, of the machine."),
    "syslog": ("alveole.cli.syslog:group", "Lines sent to a syslog server, and taken in from others."),
    "analytics": ("alveole.cli.logbook:analytics", "Count who visits a site."),
    "why": ("alveole.cli.look:why", "Say why a site answers, or does not."),
    "figures": ("alveole.cli.figures:figures", "What a site or the machine used and served."),
    "report": ("alveole.cli.report:report", "Quality by month, and when the room runs out."),
    "doctor": ("alveole.cli.look:doctor", "Look at the machine and the platform."),
    "status": ("alveole.cli.look:status", "The state of the platform in a few lines."),
    "journal": ("alveole.cli.change:journal", "What was done: who, when, what, how it ended."),
    "change": ("alveole.cli.change:group", "Look at one change, or follow it to its end."),
    "node": ("alveole.cli.node:group", "Other machines that are driven from this one."),
    "base": ("alveole.cli.base:group", "Shared root file systems."),
    "image": ("alveole.cli.base:image", "OCI images: imported, or fetched by their names."),
    "account": ("alveole.cli.account:group", "People: who they are, and how they come in."),
    "team": ("alveole.cli.team:group", "Teams: what people own together."),
    "quota": ("alveole.cli.team:quota", "What a person or team may have."),
    "dns": ("alveole.cli.dns:group", "Names of sites, published in a zone of the DNS."),
    "ldap": ("alveole.cli.outside:ldap", "People from an LDAP directory."),
    "oidc": ("alveole.cli.outside:oidc", "People from an OpenID provider."),
    "token": ("alveole.cli.platform:token", "Who may use the API over TCP."),
    "cert": ("alveole.cli.certificates:group", "Certificates: what visitors are shown, and one's own."),
    "acme": ("alveole.cli.certificates:acme", "Authorities that issue certificates."),
    "ca": ("alveole.cli.platform:ca", "The internal certificate authority."),
    "export": ("alveole.cli.platform:export", "Configuration for a proxy that stands in front."),
    "serve": ("alveole.cli.platform:serve", "Run Alvéole."),
    "restore-platform": ("alveole.cli.platform:restore_platform", "Make a lost machine again from its backups."),
    "completion": ("alveole.cli.platform:completion", "Completion for bash, zsh and fish."),
    "version": ("alveole.cli.platform:version", "The version of this program."),
}


@click.command(
    "alveole",
    cls=Tree,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "auto_envvar_prefix": None},
)
@click.option(
    "--config",
    metavar="FILE",
    envvar="ALVEOLE_CONFIG",
    help="The settings of the instance to speak to (also ALVEOLE_CONFIG). Default: /etc/alveole/alveole.toml.",
)
@click.version_option(__version__, "--version", message="alveole %(version)s")
@click.pass_context
def root(ctx: click.Context, config: str | None) -> None:
    """Many web sites side by side on one server, each in a container of its own.

    Every command has --help with examples, and --json for programs.
    """
    here = ctx.ensure_object(Here)
    here.config = config


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit status. Never raises, but for a signal."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    options = argv[: argv.index("--")] if "--" in argv else argv
    json = "--json" in options
    try:
        result = root.main(args=argv, prog_name="alveole", standalone_mode=False)
    except click.UsageError as error:
        return _usage(error, json)
    except click.ClickException as error:
        return _usage(click.UsageError(error.format_message()), json)
    except (click.Abort, KeyboardInterrupt):
        _quietly("\nInterrupted.")
        return 130
    except BrokenPipeError:
        # Who reads our output has gone (head, less): not an error, and Python must not complain at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return failed(error, json)
    return result if isinstance(result, int) else 0


def _usage(error: click.UsageError, json: bool) -> int:
    from alveole.errors import InvalidInput

    if json:
        return failed(InvalidInput(error.format_message(), field=_field(error)), json)
    error.show()
    return 2


def _field(error: click.UsageError) -> str:
    parameter = getattr(error, "param", None)
    name = getattr(parameter, "name", None) or getattr(error, "option_name", None) or ""
    return str(name).lstrip("-").replace("-", "_")


def failed(error: Exception, json: bool) -> int:
    """Say what went wrong; gives the exit status. Raises ``error`` where ``ALVEOLE_DEBUG`` asks for it."""
    from alveole.cli.output import emit, note, paint
    from alveole.errors import AlveoleError
    from alveole.text import clean

    if not isinstance(error, AlveoleError):
        if os.environ.get("ALVEOLE_DEBUG"):
            raise error
        error = AlveoleError(
            f"a fault of Alvéole: {type(error).__name__}: {error}", hint="ALVEOLE_DEBUG=1 shows where it happened"
        )
    if json:
        emit(problem_document(error))
    else:
        for problem in error.problems:
            note(paint("✗ ", "red", sys.stderr) * sys.stderr.isatty() + clean(str(problem)))
    return error.exit_status


def problem_document(error: AlveoleError) -> dict[str, object]:
    """The same document as the API's (RFC 9457), so that one reader serves both."""
    return {
        "type": f"urn:alveole:problem:{error.code}",
        "title": error.code,
        "status": error.http_status,
        "code": error.code,
        "exit_status": error.exit_status,
        "problems": list(error.problems),
    }


def _quietly(text: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(text + "\n")
