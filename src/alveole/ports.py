"""What control needs of the outside: one Protocol, kept by the real client and by the fake alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from alveole.agent import protocol
from alveole.backends.base import Say


class Program(Protocol):
    """A program that was started inside a site. ``fds`` are the caller's to close."""

    fds: tuple[int, ...]

    def resize(self, rows: int, columns: int) -> None: ...
    def kill(self, signal: int) -> None: ...
    def wait(self) -> int: ...
    def ended(self) -> protocol.Visited:
        """Block until it has ended; raises ``AlveoleError`` when it was cut. ``wait`` gives the status alone."""
        ...

    def hang_up(self) -> None: ...


class AgentPort(Protocol):
    """The agent as control sees it. Safe to call from several threads at once."""

    def call(self, request: protocol.Request, files: Sequence[int] = (), say: Say | None = None) -> Any:
        """Send ``request`` with the open ``files`` beside it and give the typed result.

        The type of the result is ``protocol.RESULTS[type(request)]``. ``files`` stay open and stay
        the caller's. ``say`` is called from the calling thread with the agent's progress. Raises
        the ``AlveoleError`` that the agent answered, and ``Temporary`` when the agent cannot be
        reached or goes away meanwhile. ``Exec``, ``Visit`` and ``Watch`` are not made this way.
        """
        ...

    def exec(self, request: protocol.Exec | protocol.Visit) -> Program:
        """Start a program inside a site. Raises as :meth:`call` does."""
        ...

    def watch(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call ``callback(scope)`` from a thread of its own whenever the agent says "look there".

        Reconnects by itself; after each (re)connection ``callback("*")`` says "look everywhere".
        Gives a function that ends it. Never raises.
        """
        ...
