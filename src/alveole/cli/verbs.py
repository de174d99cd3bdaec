"""What all commands share: how they are declared, what their help says, and the context they run in."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from alveole.config import Settings
    from alveole.remote.apiclient import Client

STATUSES = (
    ("0", "done"),
    ("1", "a fault of Alvéole"),
    ("2", "wrong input"),
    ("3", "refused or in conflict"),
    ("4", "not found"),
    ("5", "temporary: try again"),
)


class Here:
    """One run of the program: where Alvéole is, and how the answer is wanted."""

    def __init__(self, config: str | None = None) -> None:
        self.config = config
        self.json = False
        self.wait = True

    @cached_property
    def settings(self) -> Settings:
        from alveole.config import load

        return load(self.config)

    @cached_property
    def client(self) -> Client:
        from alveole.remote.apiclient import Client

        return Client(self.settings)


class Verb(click.Command):
    """A command whose help ends with examples and the exit statuses."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), statuses: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)
        self.statuses = statuses

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{example}\n")
        with formatter.section("Exit status"):
            text = self.statuses or ", ".join(f"{number} {meaning}" for number, meaning in STATUSES)
            formatter.write_text(text)


class Tree(click.Group):
    """A group whose commands are imported when they are needed, and not to list them.

    ``lazy`` maps a name to where the command is (``module:attribute``) and its one line of help.
    """

    def __init__(self, *args: Any, lazy: dict[str, tuple[str, str]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = lazy or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.lazy, *(name for name in super().list_commands(ctx) if name not in self.lazy)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.lazy and cmd_name not in self.commands:
            module, _, attribute = self.lazy[cmd_name][0].partition(":")
            found = getattr(import_module(module), attribute)
            if not isinstance(found, click.Command):
                raise TypeError(f"{module}:{attribute} is not a command")
            self.add_command(found, cmd_name)
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            near = get_close_matches(args[0], self.list_commands(ctx), n=2)
            if not near:
                raise
            told = f"{error.message} Did you mean {' or '.join(map(repr, near))}?"
            raise click.UsageError(told, ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = []
        for name in self.list_commands(ctx):
            if name in self.lazy:
                rows.append((name, self.lazy[name][1]))
            elif (command := self.get_command(ctx, name)) is not None:
                rows.append((name, command.get_short_help_str(limit=60)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit status"):
            formatter.write_text(", ".join(f"{number} {meaning}" for number, meaning in STATUSES))


class VerbTree(Tree, Verb):
    """A command that does something itself and has others below it."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        Verb.format_epilog(self, ctx, formatter)


def _set(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def store(ctx: click.Context, _parameter: click.Parameter, value: Any) -> None:
        here = ctx.find_object(Here)
        if here is not None:
            setattr(here, name, value)

    return store


def verb(
    group: click.Group | None,
    name: str,
    *,
    examples: Sequence[str],
    waits: bool = False,
    json: bool = True,
    statuses: str = "",
    kind: type[Verb] = Verb,
    **more: Any,
) -> Callable[[Callable[..., Any]], Verb]:
    """Declare a command, with ``--json`` and, where it ``waits`` for a change, ``--no-wait``.

    The function gets the :class:`Here` first. Its docstring is the help.
    """

    def declare(function: Callable[..., Any]) -> Verb:
        wrapped: Any = click.pass_obj(function)
        if json:
            wrapped = click.option(
                "--json",
                is_flag=True,
                expose_value=False,
                callback=_set("json"),
                help="One JSON document on standard output.",
            )(wrapped)
        if waits:
            wrapped = click.option(
                "--wait/--no-wait",
                default=True,
                expose_value=False,
                callback=_set("wait"),
                help="Wait for the end (the default), or give the change to follow.",
            )(wrapped)
        command: Verb = click.command(
            name, cls=kind, examples=examples, statuses=statuses, no_args_is_help=False, **more
        )(wrapped)
        if group is not None:
            group.add_command(command)
        return command

    return declare


def complete(path: str, key: str = "name") -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Completion by asking the API: the ``key`` of each document at ``path``. Silent when it cannot."""

    def ask(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
        from alveole.errors import AlveoleError

        here = ctx.find_object(Here) or Here(ctx.find_root().params.get("config"))
        try:
            with here.client.open("GET", path, patience=2.0) as answer:
                found = [str(document[key]) for document in answer.json()]
        except (AlveoleError, OSError):
            return []
        return [name for name in found if name.startswith(incomplete) and re.match(r"^[\w.:@-]+\Z", name)]

    return ask


site_name = click.argument("name", metavar="NAME", shell_complete=complete("/v1/sites"))


def interactive() -> bool:
    """Whether a person can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()
