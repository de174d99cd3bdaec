"""What people ask for about operations and the programs of a site; as :mod:`alveole.requests`."""

from __future__ import annotations

import msgspec

from alveole.model.operation import Argument, Least
from alveole.requests import Body


class AddOperation(Body, frozen=True, kw_only=True):
    """A named command; see :class:`alveole.model.operation.Operation`."""

    argv: tuple[str, ...]
    title: str = ""
    description: str = ""
    arguments: tuple[Argument, ...] = ()
    least: Least = Least.CHANGE
    seconds: int = 60
    output_bytes: int = 262_144
    confirm: bool = False


class RunOperation(Body, frozen=True, kw_only=True):
    arguments: dict[str, str | int | bool] = {}  # noqa: RUF012  a struct's default, copied for each


class SignalProgram(Body, frozen=True, kw_only=True):
    """``started``: as it was listed, so that no other program of the same number is meant."""

    started: int
    signal: str = "TERM"
    """``TERM`` or ``KILL``."""


# As at the end of :mod:`alveole.agent.protocol`.
for _body in (AddOperation, RunOperation, SignalProgram):
    msgspec.json.Decoder(_body)
