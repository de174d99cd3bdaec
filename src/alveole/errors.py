"""Every error Alvéole raises on purpose.

::

    AlveoleError
    ├── InvalidInput   the request itself is wrong               exit 2   HTTP 422
    ├── Refused        understood, but not now or not allowed    exit 3   HTTP 409
    │   ├── Denied     the caller may not do this                exit 3   HTTP 403
    │   └── NoRoom     a quota, a pool or a disk is exhausted    exit 3   HTTP 507
    ├── NotFound       no such object                            exit 4   HTTP 404
    └── Temporary      try again later                           exit 5   HTTP 503
        └── StepFailed an actuator could not carry out a step

Anything else that escapes is a fault of ours: exit 1, HTTP 500.
An error carries *problems*: all that is wrong with a request at once, never only the first.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class Problem(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that is wrong: the ``field`` at fault, what is wrong, and what to do about it."""

    field: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.field}: {self.message}" if self.field else self.message
        return f"{text} ({self.hint})" if self.hint else text


class AlveoleError(Exception):
    """Base of the tree. ``code`` is the stable word for programs, ``exit_status`` for shells."""

    code = "error"
    exit_status = 1
    http_status = 500

    def __init__(
        self,
        message: str = "",
        *,
        field: str = "",
        hint: str = "",
        problems: Iterable[Problem] = (),
    ) -> None:
        found = tuple(problems)
        if message or not found:
            found = (Problem(field, message or self.code, hint), *found)
        self.problems: tuple[Problem, ...] = found
        super().__init__("; ".join(str(problem) for problem in found))


class InvalidInput(AlveoleError):
    code = "invalid"
    exit_status = 2
    http_status = 422


class Refused(AlveoleError):
    code = "refused"
    exit_status = 3
    http_status = 409


class Denied(Refused):
    code = "denied"
    http_status = 403


class NoRoom(Refused):
    code = "no-room"
    http_status = 507


class NotFound(AlveoleError):
    code = "not-found"
    exit_status = 4
    http_status = 404


class Temporary(AlveoleError):
    code = "temporary"
    exit_status = 5
    http_status = 503


class StepFailed(Temporary):
    code = "step-failed"


BY_CODE: dict[str, type[AlveoleError]] = {
    kind.code: kind for kind in (InvalidInput, Refused, Denied, NoRoom, NotFound, Temporary, StepFailed)
}


def from_code(code: str, problems: Iterable[Problem]) -> AlveoleError:
    """Rebuild an error that crossed a socket as its code and its problems."""
    return BY_CODE.get(code, AlveoleError)(problems=tuple(problems))
