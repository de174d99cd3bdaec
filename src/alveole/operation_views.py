"""What people see of operations and of the programs that run: documents for the API, the command line and the pages."""

from __future__ import annotations

from alveole.model.operation import ArgumentType, Least
from alveole.module_views import TextView
from alveole.views import View


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


class OperationView(View, frozen=True, kw_only=True):
    name: str
    of: str
    """Who declared it: ``module:mariadb``, ``site`` or ``app:shop``."""
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
