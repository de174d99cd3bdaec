"""What the agent asks of everything that makes resources real.

An *actuator* looks at and changes some kinds of resource; a *back end* is the actuator of
workloads and can also open streams into them. Both are level-based: ``observe`` remembers
nothing, ``apply`` carries out one step, undoes itself when it fails half-way, and is safe to
repeat and to kill.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import msgspec

from alveole.errors import Problem
from alveole.model.names import Digest
from alveole.model.resource import Kind, Observation, Outcome, Step, WorkloadSpec

#: Called with a sentence and, where known, how much is done (0 to 1).
Say = Callable[[str, float | None], None]


def quiet(text: str, share: float | None = None) -> None:
    """A ``Say`` for callers who do not follow progress."""


class Actuator(Protocol):
    """Keeps some kinds of resource real. Remembers nothing between two calls that it does not see on the machine."""

    kinds: frozenset[Kind]

    def observe(self, scopes: Collection[str] | None = None) -> Observation:
        """Everything of these kinds that carries our stamp, in ``scopes`` (``None``: everywhere).

        What could not be looked at goes into ``unknown``; it never raises for that.
        """
        ...

    def apply(self, step: Step, say: Say = quiet) -> Outcome:
        """Carry out one step. A failure is an outcome, not an exception; a fault of ours raises."""
        ...


class Usage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an instance or a site uses now. ``disk_bytes`` may be a minute old.

    The kernel's account of its cgroups: memory (without page cache that nobody has touched lately) and ``pids`` as they
    are, processor time and ``io_*`` since the instance began; ``io_*`` is 0 where it was not asked for.
    """

    memory_bytes: int = 0
    cpu_seconds: float = 0.0
    disk_bytes: int = 0
    pids: int = 0
    io_read_bytes: int = 0
    io_write_bytes: int = 0


class Session(msgspec.Struct, frozen=True):
    """A program started inside a workload.

    ``fds``: one pseudo-terminal master, or the ends of stdin, stdout and stderr, in this order.
    ``wait`` blocks until it ends and gives its exit status (128 + signal when killed), or a
    value that holds it.
    """

    fds: tuple[int, ...]
    wait: Callable[[], Any]
    resize: Callable[[int, int], None]
    kill: Callable[[int], None]


class WorkCopy(msgspec.Struct, frozen=True):
    """A working copy that is mounted: what people see of it, its git repository, and what it stands on."""

    tree: Path
    git: Path
    release: Digest | None = None
    published: Digest | None = None
    fresh: bool = False
    """Whether anything was changed after it was published last."""


class WorkCopies(Protocol):
    """What a backup needs of the working copies of sites."""

    def saving(self, site: str, number: int) -> AbstractContextManager[WorkCopy | None]:
        """The working copy for the block; ``None``: there is none."""
        ...

    def still(self, site: str) -> AbstractContextManager[None]:
        """Nobody writes into it in the block."""
        ...

    def check_replaceable(self, site: str, number: int) -> None:
        """Raise ``Refused`` while somebody is in it, or when it holds what was not published."""
        ...

    def replacing(self, site: str, number: int, release: Digest | None) -> AbstractContextManager[WorkCopy]:
        """A fresh one over ``release``, to be filled in the block; where that fails, nothing of it stays."""
        ...


class Backend(Actuator, Protocol):
    """Runs workloads. ``name`` is what the settings and people call it."""

    name: str

    def check(self, workload: WorkloadSpec) -> tuple[Problem, ...]:
        """What this back end cannot do, before anything is stored. Pure."""
        ...

    def usage(self, sites: Collection[str] | None = None) -> dict[str, Usage]:
        """By site id, all its instances together; sites that run nothing are absent."""
        ...

    def exec(self, site: str, slot: int, argv: Sequence[str], *, tty: bool, uid: int | None) -> Session:
        """Start ``argv`` inside a running instance, by default as the instance's own user.

        Raises ``NotFound`` when it does not run.
        """
        ...
