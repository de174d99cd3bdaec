"""Applications: what a team delivers, version by version, through ordered environments.

An :class:`App` is delivered through its environments in order; each environment is one site. A
:class:`Version` is content that was sent once and never changes. A :class:`Deployment` is one version in
one environment: brought in, live, and once it has left also how the site was then. All of it is *desired*
state and history; nothing here says anything about a running machine.
"""

from __future__ import annotations

import re
import time
from enum import StrEnum
from typing import Annotated

import msgspec

from alveole.errors import Problem
from alveole.model.names import Digest, SiteId, SiteName
from alveole.model.site import Site

DEFAULT_ENVIRONMENTS = ("alpha", "preprod", "demo", "prod")
#: Part of the name of its site (``shop-preprod``), so a DNS label too.
ENVIRONMENT_NAME = r"^[a-z0-9](?:[a-z0-9-]{0,14}[a-z0-9])?\Z"
#: A word that people print on boxes and tag in git: ``2.6``, ``v2.6.1-rc1``, ``2026-11-21``.
VERSION_NAME = r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}\Z"
ENVIRONMENTS_MAX = 16
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW = re.compile(r"^([a-z]{3})(?:-([a-z]{3}))? ([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)\Z")


class Accept(StrEnum):
    """What becomes of a version that was sent."""

    WAIT = "wait"
    """Somebody accepts or refuses it."""
    AT_ONCE = "at-once"


class DeliveryPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What an environment asks for before a version may come in, and what is done around the switch."""

    soak_seconds: Annotated[int, msgspec.Meta(ge=0, le=31_536_000)] = 0
    """For how long the environment before must have run the version."""
    approvals: Annotated[int, msgspec.Meta(ge=0, le=2)] = 0
    """How many people, besides the one who deploys, must have approved what is delivered."""
    windows: tuple[str, ...] = ()
    """When it may be deployed, in the machine's own time: ``mon-fri 08:00-18:00``. Empty: always."""
    verify_seconds: Annotated[int, msgspec.Meta(ge=0, le=3600)] = 0
    """For how long after the switch the checks are asked again; the first that fails rolls back. 0: asked once."""
    snapshot: bool = True
    """Save the volumes before each deploy."""
    before: tuple[str, ...] = ()
    """A program that runs inside the old instance before the switch; ``{release}`` is where the new content lies."""
    after: tuple[str, ...] = ()
    """A program that runs inside the new instance after the switch; its failure rolls back."""
    hook_seconds: Annotated[int, msgspec.Meta(ge=1, le=600)] = 300


class Environment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    site: SiteId
    policy: DeliveryPolicy = DeliveryPolicy()


class App(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``store`` and ``number`` are a lease like a site's: under it lie the files of its versions, unpacked and
    built once. No instance ever runs under it."""

    id: str
    name: SiteName
    owner: str
    store: SiteId
    number: Annotated[int, msgspec.Meta(ge=1)]
    environments: tuple[Environment, ...]
    accept: Accept = Accept.WAIT
    signers: tuple[str, ...] = ()
    """Public keys of minisign or OpenPGP, of which one must have signed a version. Empty: none needs a signature."""
    masks: tuple[str, ...] = ()
    """What becomes of personal data when an environment gets the data of another: see :mod:`alveole.policy.masks`."""
    created_at: float = 0.0
    version: int = 1

    def environment(self, name: str) -> Environment | None:
        return next((each for each in self.environments if each.name == name.lower()), None)

    def before(self, name: str) -> Environment | None:
        """The environment that a version must have run in first; ``None`` for the first one."""
        names = [each.name for each in self.environments]
        at = names.index(name)
        return self.environments[at - 1] if at else None


class VersionState(StrEnum):
    WAITING = "waiting"
    ACCEPTED = "accepted"
    REFUSED = "refused"


class Difference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Between the files of two releases; ``names`` are the first of them, as ``+new``, ``~other``, ``-gone``."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    names: tuple[str, ...] = ()


class Version(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Content that was sent to an application. But for ``state`` and what the first build makes it never changes."""

    id: str
    app: str
    name: str
    state: VersionState
    archive: Digest
    """Of the bytes that were sent."""
    release: Digest
    """Of its files."""
    bytes: int
    files: int
    created_at: float
    sender: str
    sender_key: str = ""
    note: str = ""
    signer: str = ""
    """The key that signed it, or ``openpgp:FINGERPRINT``; empty: nobody's was asked for."""
    decided_by: str = ""
    decided_at: float | None = None
    reason: str = ""
    """Why it was refused."""
    built: Digest | None = None
    """What came of it where its modules build; made once, for all environments."""
    made_for: dict[str, str] = {}
    """Of which versions of the packages of a base the built one hangs."""
    against: str = ""
    """Name of the version that came before it, of which ``difference`` speaks."""
    difference: Difference = Difference()


class Stage(StrEnum):
    DELIVERED = "delivered"
    """Its files are there, ready to be made live."""
    WITHDRAWN = "withdrawn"
    """Another version was delivered in its place before it was ever live."""
    FAILED = "failed"
    """It was deployed and did not hold: the environment went back by itself."""
    LIVE = "live"
    LEFT = "left"
    """It was live, and can be rolled back to."""


class Approval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    by: str
    key: str
    """The actor's id for ever: two approvals are of two people."""
    at: float


class Deployment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    id: str
    app: str
    environment: str
    site: SiteId
    version: str
    """Id of the version."""
    name: str
    """Its name, also once the version is gone."""
    stage: Stage
    release: Digest
    """What the site serves of it."""
    created_at: float
    by: str
    change: str
    """The newest change about it."""
    made_for: dict[str, str] = {}
    approvals: tuple[Approval, ...] = ()
    live_at: float | None = None
    left_at: float | None = None
    went_back: bool = False
    """It left because somebody, or a failing check, rolled back: it counts as run by nobody."""
    backup: str | None = None
    """Of the data as they were just before it was deployed."""
    was: Site | None = None
    """The whole site as it was when this version left: configuration, answers, base, content."""


class Phase(StrEnum):
    """How far a deploy or a roll back has come; stored with its change before the next step begins."""

    BEGUN = "begun"
    """What runs is untouched."""
    SAVED = "saved"
    """The data are saved (deploy) or brought back beside the live ones (roll back)."""
    SWITCHING = "switching"
    """The new state is what is wanted."""
    SWITCHED = "switched"
    """Every request gets the new one; it is being verified."""
    BACK = "back"
    """It did not hold: the old state is wanted again."""


class Delivery(msgspec.Struct, frozen=True, omit_defaults=True):
    """The part of a change's work that is about a version in an environment."""

    app: str
    environment: str
    version: str
    deployment: str
    """Id of the deployment that becomes live, or of the one that is made."""
    phase: Phase = Phase.BEGUN
    target: str = ""
    """Roll back: id of the deployment whose state comes back."""
    with_data: bool = False
    snapshot: str = ""
    """Id of the backup that is made before, or brought back."""
    switched_at: float = 0.0
    why: tuple[Problem, ...] = ()
    """What led back."""
    source: str = ""
    """Synchronise: the environment that content or data come from."""
    data: bool = False
    taken: str = ""
    """Synchronise: id of the backup of the source's data, which goes when they have come over."""
    masked: str = ""
    """Synchronise: id of the backup of what was made of them where they are masked; it goes too."""


def check_window(text: str, field: str = "windows") -> tuple[Problem, ...]:
    found = _WINDOW.match(text)
    good = found is not None and {found[1], found[2] or found[1]} <= set(_DAYS)
    if good and found is not None and _minutes(found[3], found[4]) < _minutes(found[5], found[6]) <= 24 * 60:
        return ()
    return (Problem(field, f"{text!r} is not a window of time", "write it like 'mon-fri 08:00-18:00'"),)


def is_open(windows: tuple[str, ...], at: float) -> bool:
    """Whether one of ``windows`` holds the moment ``at`` (seconds since the epoch) in local time."""
    moment = time.localtime(at)
    now = moment.tm_hour * 60 + moment.tm_min
    for text in windows:
        found = _WINDOW.match(text)
        if found is None:
            continue
        first = _DAYS.index(found[1])
        # From friday to monday is four days, not none.
        days = (_DAYS.index(found[2] or found[1]) - first) % 7
        inside = (moment.tm_wday - first) % 7 <= days
        if inside and _minutes(found[3], found[4]) <= now < _minutes(found[5], found[6]):
            return True
    return not windows


def _minutes(hours: str, minutes: str) -> int:
    return int(hours) * 60 + int(minutes)
