"""What the door and control say to each other, on control's Unix socket ``door.sock``.

Messages are those of :mod:`alveole.agent.wire`. A connection that begins with :class:`Hello` is about one SSH
connection: each message that proves something is answered with :class:`Standing`; while it lasts, so does its ticket.
One that begins with :class:`Open` is one session: answered with ``Started`` and the files of the program, then the
door sends ``Resize`` and ``Kill``, control sends ``Done`` with the exit status, and the door :class:`Moved`. One that
begins with :class:`Deploy` is answered with any number of ``Said`` and then ``Done`` or ``Failed``.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from alveole.agent.protocol import Kill, Resize

Text = Annotated[str, msgspec.Meta(max_length=4096)]


class Hello(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="hello"):
    """``user``: what the client calls itself, ``SITE`` or ``PERSON+SITE``."""

    user: Text
    address: Annotated[str, msgspec.Meta(max_length=64)]


class Password(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="password"):
    password: Text


class Code(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="code"):
    """Of the second factor, after the password."""

    code: Annotated[str, msgspec.Meta(max_length=64)]


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="key"):
    """``proven``: the client has signed with it; else whether it would do."""

    fingerprint: Annotated[str, msgspec.Meta(max_length=80)]
    proven: bool = False


Proof = Password | Code | Key


class Standing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="standing"):
    """``ticket`` is empty until somebody is in. ``needs``: ``second-factor``, ``enrol`` or nothing."""

    good: bool
    ticket: str = ""
    needs: str = ""
    message: str = ""


class Open(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="open"):
    """``command`` ``None``: a shell; ``subsystem`` comes first."""

    ticket: str
    command: Annotated[str, msgspec.Meta(max_length=65_536)] | None = None
    subsystem: Annotated[str, msgspec.Meta(max_length=64)] = ""
    tty: bool = False


class Deploy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="deploy"):
    """A push has ended: make a release of it."""

    ticket: str


class Moved(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="moved"):
    received: Annotated[int, msgspec.Meta(ge=0)]
    sent: Annotated[int, msgspec.Meta(ge=0)]


First = Hello | Open | Deploy
Later = Resize | Kill | Moved

# As in alveole.agent.protocol: worked out before there are threads.
for _type in (First, Proof, Later, Standing):
    msgspec.json.Decoder(_type)
