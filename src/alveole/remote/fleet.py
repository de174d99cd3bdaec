"""What is asked and told about other machines: requests, documents, and what is stored about a node."""

from __future__ import annotations

from typing import Annotated

import msgspec

from alveole.model.names import NodeName
from alveole.model.resource import PLATFORM as PLATFORM  # noqa: PLC0414  the scope of this machine, for callers
from alveole.remote.passport import PublicKey
from alveole.requests import Body
from alveole.views import SiteView, StatusView, View

#: An address or a name, as ssh takes it; nothing that it could take for an option.
HOST = r"^[A-Za-z0-9](?:[A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?\Z"
USER = r"^[a-z_][a-z0-9_-]{0,31}\Z"
FINGERPRINT = r"^SHA256:[A-Za-z0-9+/]{43}\Z"
CONFIG_FILE = r"^(?:/(?!\.\.?(?:/|\Z))[A-Za-z0-9._-]+)+\Z"
"""An absolute path without ``.`` and ``..``."""
ROOT = "root"
SETTINGS = "/etc/alveole/alveole.toml"
PROGRAM = "/usr/local/bin/alveole"
"""Where ``scripts/quickstart`` puts the program."""


# --- passports ------------------------------------------------------------------------------------
class ExportSite(Body, frozen=True, kw_only=True):
    """``to``: the key of the platform that may open it; ``None``: this one.

    ``first``: a copy of what goes on being written to; it is worth something only with the one ``since`` it (the digest
    of its archive, in the result of its change), for which the site is stopped.
    """

    to: str | None = None
    first: bool = False
    since: str | None = None


class ImportSite(Body, frozen=True, kw_only=True):
    """``upload``: a passport. ``trust``: the fingerprint of a signer that is not known here.

    ``onto``: it holds what has changed since a first copy, of which the stopped site ``name`` was made.
    """

    upload: str
    name: str | None = None
    owner: str | None = None
    trust: str | None = None
    stopped: bool = False
    onto: bool = False


class TrustSigner(Body, frozen=True, kw_only=True):
    key: str


class IdentityView(View, frozen=True, kw_only=True):
    """What another machine must know of this one."""

    key: PublicKey
    fingerprint: str
    version: str
    domain: str


class SignerView(View, frozen=True, kw_only=True):
    name: str
    key: PublicKey
    fingerprint: str


class Signers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose passports are taken, by name: a setting."""

    known: dict[str, PublicKey] = {}


# --- nodes ----------------------------------------------------------------------------------------
class ScanNode(Body, frozen=True, kw_only=True):
    host: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65_535)] = 22


class AddNode(Body, frozen=True, kw_only=True):
    """``fingerprint``: that of the host key, as somebody has compared it. ``config``: of the Alvéole there.

    ``program``: how that one is called. Only asked for where ``user`` is not root: sudo starts it.
    """

    name: str
    host: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65_535)] = 22
    user: str = ROOT
    fingerprint: str
    config: str = SETTINGS
    program: str = PROGRAM


class InstallNode(Body, frozen=True, kw_only=True):
    """Bring a checkout of Alvéole (``upload``, a ``.tar.gz``) to a machine and run its ``scripts/quickstart`` there.

    ``fingerprint`` as of :class:`AddNode`. ``place``: where the checkout stays, for the next run and for ``--undo``.
    """

    host: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65_535)] = 22
    user: str = ROOT
    fingerprint: str
    upload: str
    config: str = SETTINGS
    place: str = "/opt/alveole-source"


class DrainNode(Body, frozen=True, kw_only=True):
    """``drain``: bring its sites elsewhere and place nothing more on it; ``false``: use it again."""

    drain: bool = True


class MoveSite(Body, frozen=True, kw_only=True):
    """``to``: a node, or ``here``. ``keep_seconds``: how long the copy that is left stays, stopped."""

    to: str
    keep_seconds: Annotated[float, msgspec.Meta(ge=0, le=90 * 86_400)] = 86_400.0


class Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A machine that is driven from here, as it is stored."""

    name: NodeName
    host: Annotated[str, msgspec.Meta(pattern=HOST)]
    port: int
    user: Annotated[str, msgspec.Meta(pattern=USER)]
    host_key: str
    """``ssh-ed25519 AAAA…``: the only one that is accepted."""
    config: Annotated[str, msgspec.Meta(pattern=CONFIG_FILE)]
    run: str
    """Its run directory, where its sockets are."""
    domain: str
    key: PublicKey
    """Of its platform: what is sealed to it, and signs what comes from it."""
    version: str
    added_at: float
    draining: bool = False
    """Nothing new is placed on it."""
    program: Annotated[str, msgspec.Meta(pattern=CONFIG_FILE)] = PROGRAM


class Nodes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A setting."""

    all: dict[str, Node] = {}


class ScannedView(View, frozen=True, kw_only=True):
    fingerprint: str
    host_key: str
    ssh_key: str
    """The line that lets this machine in there (``authorized_keys``)."""


class NodeView(View, frozen=True, kw_only=True):
    name: str
    where: str
    """``user@host:port``; of this machine, nothing."""
    config: str
    """Settings file of the Alvéole there."""
    state: str
    """``here``, ``reached``, ``unreachable`` or ``not asked yet``."""
    problem: str
    seen_at: float | None
    version: str
    same_version: bool
    domain: str
    fingerprint: str
    """Of its host key."""
    draining: bool
    sites: tuple[str, ...]
    memory_left_bytes: int | None
    """What the plans of its sites leave of its memory."""
    disk_left_bytes: int | None
    addresses_left: int | None


class Look(msgspec.Struct, frozen=True):
    """What a node said of itself when it was last asked."""

    at: float
    status: StatusView
    sites: dict[str, SiteView]
    promised_bytes: int


# Worked out here and not at the first request: see the end of :mod:`alveole.agent.protocol`.
for _type in (
    ExportSite,
    ImportSite,
    TrustSigner,
    ScanNode,
    AddNode,
    MoveSite,
    DrainNode,
    InstallNode,
    Signers,
    Nodes,
    StatusView,
):
    msgspec.json.Decoder(_type)
