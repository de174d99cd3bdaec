"""What people see of operations and of the programs that run: documents for the API, the command line and the pages."""

from __future__ import annotations

from alveole.model.operation import Argument, ArgumentType, Least, Operation
from alveole.views import View
from alveole.views.modules import TextView


class ArgumentView(View, frozen=True, kw_only=True):
    name: str
    type: ArgumentType
    title: TextView
    default: str
    required: bool
    pattern: str
    min: int | None
    max: int | None
    choices: tuple[str, ...]
    below: str
    flag: str = ""
    """Of a boolean: what stands in the argument vector when it is yes."""


class OperationView(View, frozen=True, kw_only=True):
    name: str
    of: str
    """Who declared it: ``module:mariadb``, ``site`` or ``app:shop``; ``node:paris`` are people of the server there."""
    title: TextView
    description: TextView
    argv: tuple[str, ...]
    arguments: tuple[ArgumentView, ...]
    least: Least
    seconds: int
    output_bytes: int
    confirm: bool
    allowed: bool
    """Whether who asks may run it."""
    uid: int | None = None
    """As whom it runs inside of the container; ``None``: the site's own user."""


class RunView(View, frozen=True, kw_only=True):
    """One run of an operation. ``id`` is that of its change."""

    id: str
    site: str
    name: str
    arguments: dict[str, str]
    """As they were given; secrets are ``***``."""
    by: str
    started_at: float
    ended_at: float | None = None
    """``None``: it is still running."""
    exit_status: int | None = None
    problem: str = ""
    """Why it was cut short."""
    cut: bool = False
    """More was printed than is kept."""
    output: str = ""
    """What it printed so far, errors too; empty in lists."""


class ProgramView(View, frozen=True, kw_only=True):
    """One program that runs in a site."""

    pid: int
    """Inside the container."""
    parent: int
    name: str
    command: str
    uid: int
    user: str
    """Its name there; empty when it has none."""
    state: str
    """One letter, as ``ps`` shows it."""
    cpu_seconds: float
    memory_bytes: int
    seconds: float
    """Its age."""
    started: int
    """Needed beside ``pid`` to end it: ids are used again."""


class ProgramsView(View, frozen=True, kw_only=True):
    site: str
    slot: int
    """The instance that was looked at."""
    programs: tuple[ProgramView, ...]


def operation_view(of: str, operation: Operation, allowed: bool) -> OperationView:
    """``of``: who declared it. ``allowed``: whether who asks may run it."""
    arguments = tuple(
        ArgumentView(
            name=each.name,
            type=each.type,
            title=TextView(en=each.title or each.name, fr=each.title_fr or each.title or each.name),
            default=each.default,
            required=each.required,
            pattern=each.pattern,
            min=each.min,
            max=each.max,
            choices=each.choices,
            below=each.below,
            flag=each.flag,
        )
        for each in operation.arguments
    )
    title = operation.title or operation.name
    return OperationView(
        name=operation.name,
        of=of,
        title=TextView(en=title, fr=operation.title_fr or title),
        description=TextView(en=operation.description, fr=operation.description_fr or operation.description),
        argv=operation.argv,
        arguments=arguments,
        least=operation.least,
        seconds=operation.seconds,
        output_bytes=operation.output_bytes,
        confirm=operation.confirm,
        allowed=allowed,
        uid=operation.uid,
    )


def declared(view: OperationView) -> Operation:
    """The declaration that a machine has told of: a site there is worked on from here."""
    return Operation(
        name=view.name,
        argv=view.argv,
        uid=view.uid,
        title=view.title.en,
        title_fr=view.title.fr,
        description=view.description.en,
        description_fr=view.description.fr,
        arguments=tuple(
            Argument(
                name=each.name,
                type=each.type,
                title=each.title.en,
                title_fr=each.title.fr,
                default=each.default,
                required=each.required,
                pattern=each.pattern,
                min=each.min,
                max=each.max,
                choices=each.choices,
                below=each.below,
                flag=each.flag,
            )
            for each in view.arguments
        ),
        least=view.least,
        seconds=view.seconds,
        output_bytes=view.output_bytes,
        confirm=view.confirm,
    )
