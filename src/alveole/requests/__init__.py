"""Typed requests: what a caller hands to :class:`alveole.services.Services`.

One declaration serves the API's bodies, the command line and the digest behind an idempotency key.
Fields are plain types on purpose: the grammars of :mod:`alveole.model.names` are applied by the
services, so that a caller is told *all* that is wrong at once and not only the first field. What is
of the wrong JSON type, or an unknown field, is refused while decoding.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from alveole.agent.protocol import ArchiveFormat
from alveole.model.app import DEFAULT_ENVIRONMENTS, Accept
from alveole.model.names import Digest
from alveole.model.site import Answer, Arrival, WokenBy
from alveole.people.model import Role
from alveole.requests.parts import ProcessBody as ProcessBody
from alveole.requests.parts import PublishBody, ShareBody
from alveole.requests.parts import VolumeBody as VolumeBody


class ShareLevel(StrEnum):
    NONE = "none"
    LOOK = "look"
    CHANGE = "change"


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all request bodies."""

    def digest(self) -> str:
        """64 hex digits that are equal exactly when two requests ask for the same."""
        return hashlib.sha256(type(self).__name__.encode() + b"\0" + _encoder.encode(self)).hexdigest()


_encoder = msgspec.json.Encoder(order="sorted")


class CreateSite(Body, frozen=True, kw_only=True):
    """``base``: ``host``, ``debian``, or the key (``oci-…``) or digest of an imported image.

    ``command`` is the argument vector of the one process ``web``; ``processes`` names several, of
    which ``web`` answers. Neither: the image's own command, else static content. ``upload`` is the
    id of an upload (see :meth:`Services.new_upload`); it is consumed by the change.

    ``modules`` compose what runs, and then ``base``, ``packages``, ``command``, ``processes``, ``port``,
    ``health`` and ``volumes`` stay as they are: the modules say them.
    """

    name: str
    owner: str | None = None
    """A person, ``team:NAME``, or ``nobody``; ``None``: who asks."""
    base: str = "host"
    packages: tuple[str, ...] = ()
    upload: str | None = None
    format: ArchiveFormat | None = None
    command: tuple[str, ...] = ()
    processes: tuple[ProcessBody, ...] = ()
    port: int | None = None
    plan: str | None = None
    """``None``: the least that the modules need, else ``small``."""
    domains: tuple[str, ...] = ()
    env: dict[str, str] = {}
    volumes: tuple[VolumeBody, ...] = ()
    published: tuple[PublishBody, ...] = ()
    shared: tuple[ShareBody, ...] = ()
    persistent: bool = True
    """``false``: each start begins with the files of its base, and only volumes last."""
    path: str | None = None
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    https_only: bool = False
    health: str = "/"
    ready_seconds: int = 60
    stop_seconds: int = 10
    stopped: bool = False
    """Store it without starting it."""
    sleep_after: int | None = None
    """Seconds without a visit after which it sleeps until the next one; 0: never; ``None``: as its plan says."""
    woken_by: WokenBy = WokenBy.PEOPLE
    """Whether crawlers and monitoring wake it as well."""
    note: str = ""
    """Kept with the first release."""
    modules: tuple[str, ...] = ()
    answers: dict[str, Answer] = {}
    """By ``question``, or ``module.question`` where several modules of the site ask it."""
    build_network: bool | None = None
    """Whether the build of its content may ask the package registries; ``None``: as the settings say."""
    why: str = ""
    """Why these modules, when they were picked from the content."""
    node: str | None = None
    """The machine that it shall live on: a node, or ``any`` for the one with the most room; ``None``: this one."""
    image: PullImage | None = None
    """Fetched first, in the place of ``base``."""


class UpdateSite(Body, frozen=True, kw_only=True):
    """New content for a site; ``release`` makes a kept one live again instead of an upload."""

    upload: str | None = None
    release: str | None = None
    format: ArchiveFormat | None = None
    note: str = ""
    build_network: bool | None = None
    """Whether the build may ask the package registries, from now on; ``None``: as it was."""
    live: bool = True
    """``false``: the new release is built and kept, and waits to be made live."""


class DetectModules(Body, frozen=True, kw_only=True):
    """What a content looks like, for the modules that fit it; nothing of it is stored.

    ``names``: paths relative to its top, at the most two levels, a directory ends with ``/``. ``texts``: the
    files that say what to run, such as ``package.json`` or ``app.py``, by path.
    """

    names: tuple[str, ...]
    texts: dict[str, str] = {}
    modules: tuple[str, ...] = ()
    """Those that somebody has named: what is worked out of the content is for them. Empty: they are picked."""


class SetSite(Body, frozen=True, kw_only=True):
    """Changes of configuration; what is absent stays as it is, ``null`` clears where that has a meaning."""

    plan: str | UnsetType = UNSET
    env: dict[str, str | None] | UnsetType = UNSET
    """Merged into the environment; ``null`` removes a variable."""
    domains: tuple[str, ...] | UnsetType = UNSET
    """The whole list."""
    add_domains: tuple[str, ...] = ()
    remove_domains: tuple[str, ...] = ()
    path: str | UnsetType | None = UNSET
    allow: tuple[str, ...] | UnsetType = UNSET
    deny: tuple[str, ...] | UnsetType = UNSET
    https_only: bool | UnsetType = UNSET
    sleep_after: int | UnsetType | None = UNSET
    """As for :class:`CreateSite`."""
    woken_by: WokenBy | UnsetType = UNSET
    on_push: Arrival | UnsetType = UNSET
    """What becomes of what ``git push`` brings."""
    on_files: Arrival | UnsetType = UNSET
    """What becomes of a working copy that was changed by SFTP, once the last one has left it."""
    command: tuple[str, ...] | UnsetType = UNSET
    processes: tuple[ProcessBody, ...] | UnsetType = UNSET
    port: int | UnsetType | None = UNSET
    health: str | UnsetType = UNSET
    ready_seconds: int | UnsetType = UNSET
    stop_seconds: int | UnsetType = UNSET
    published: tuple[PublishBody, ...] | UnsetType = UNSET
    shared: tuple[ShareBody, ...] | UnsetType = UNSET
    persistent: bool | UnsetType = UNSET
    volumes: tuple[VolumeBody, ...] | UnsetType = UNSET
    """The whole list. A volume that is no longer named keeps its files until the site is destroyed."""
    base: str | UnsetType = UNSET
    packages: tuple[str, ...] | UnsetType = UNSET


class ConfigureSite(Body, frozen=True, kw_only=True):
    """Compose a site of modules again, with other answers or other modules; what is absent stays.

    Configuration files that were changed by hand and would change are named in the refusal, unless
    ``keep`` (the hand-made text stays, also from now on) or ``take_back`` (the rendered text comes
    back) names them.
    """

    answers: dict[str, Answer] = {}
    """As for :class:`CreateSite`."""
    unset: tuple[str, ...] = ()
    """Answers to work out again, as if nobody had given them."""
    add_modules: tuple[str, ...] = ()
    remove_modules: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    """Paths below ``/config``."""
    keep_all: bool = False
    take_back: tuple[str, ...] = ()
    take_back_all: bool = False


class AskModules(Body, frozen=True, kw_only=True):
    """What is still to be asked of somebody who wants these modules in a site of this name."""

    modules: tuple[str, ...]
    answers: dict[str, Answer] = {}
    name: str = ""
    domains: tuple[str, ...] = ()
    plan: str | None = None
    https_only: bool = False
    content: bool = False
    """Whether the site brings content of its own."""


class AddSource(Body, frozen=True, kw_only=True):
    """Modules from elsewhere, pinned and signed; see ``docs/how-to/modules.md``."""

    source: str
    """An ``https`` address or an absolute path of this machine; of an upload, where it came from."""
    name: str = ""
    """How the source is called from now on; empty: its file's or repository's name."""
    pin: str
    """The commit of a git repository (40 hex digits) or the digest of an archive (``sha256:…``)."""
    signature: str | None = None
    """OpenSSH signature of an archive, the text itself; absent: that of ``source`` + ``.sig``."""
    upload: str | None = None


class RenameSite(Body, frozen=True, kw_only=True):
    name: str


class DestroySite(Body, frozen=True, kw_only=True):
    confirm: str
    """The name once more, so that a wrong address destroys nothing."""
    unsaved: bool = False


class ImportImage(Body, frozen=True, kw_only=True):
    upload: str


class PullImage(Body, frozen=True, kw_only=True):
    """From one of the registries (HOST or HOST:PORT) that the settings of the machine name."""

    registry: str
    repository: str
    tag: str = "latest"
    """A tag, or a digest: ``sha256:…``."""


class NameBases(Body, frozen=True, kw_only=True):
    """``bases``: keys, labels or digests. None: all."""

    bases: tuple[str, ...] = ()


class UpgradeBases(NameBases, frozen=True, kw_only=True):
    """None named: all bases of packages that a site uses."""


class PruneBases(Body, frozen=True, kw_only=True):
    keep: tuple[str, ...] = ()
    """Keys, labels or digests of unused bases that stay all the same."""
    earlier: bool = False
    """Drop those too that a site could go back to."""


class RollbackBases(Body, frozen=True, kw_only=True):
    """Which sites go back to the base that they had before its last upgrade."""

    sites: tuple[str, ...] = ()
    """Names or ids."""
    bases: tuple[str, ...] = ()
    """Keys or labels: all sites that an upgrade brought to them."""


class CreateBackup(Body, frozen=True, kw_only=True):
    site: str


class Visit(Body, frozen=True, kw_only=True):
    """What the machine that drives this one wants started on a site: what a client of its SSH door asked for
    (``command``, ``None``: a shell; ``subsystem``), or ``argv``, a program of its own over the working copy."""

    command: str | None = None
    subsystem: str = ""
    tty: bool = False
    place: str = ""
    """Who, and from where; for the journal."""
    argv: tuple[str, ...] = ()
    order: str = ""
    """Of the file manager, for the program that is there: see :mod:`alveole.services.files`."""


class RestoreBackup(Body, frozen=True, kw_only=True):
    name: str | None = None
    """Restore as a new site of this name; ``None``: into the site it was made of, or a new one of
    its name when that was destroyed."""
    here: bool = False
    """Make it live on this machine from now on: the server that it lives on is lost."""


class CreateToken(Body, frozen=True, kw_only=True):
    """A token of the person who asks; with ``role``, or when a token asks for it, one of no person."""

    name: str
    role: Role | None = None
    expires_in_seconds: int | None = None
    scope: tuple[str, ...] = ()
    """The actions it may do, such as ``site.look``; empty: all that its role may."""
    sites: tuple[str, ...] = ()
    """The sites it is for; empty: all."""


class SignIn(Body, frozen=True, kw_only=True):
    name: str
    password: str


class UseInvitation(Body, frozen=True, kw_only=True):
    """``name`` only with the token of the first sign-in: what the administrator is to be called."""

    token: str
    password: str
    name: str | None = None


class AddAccount(Body, frozen=True, kw_only=True):
    """Without a ``password`` the answer holds a token with which the person chooses one."""

    name: str
    role: Role = Role.OWNER
    title: str = ""
    email: str = ""
    password: str | None = None


class SetAccount(Body, frozen=True, kw_only=True):
    role: Role | UnsetType = UNSET
    title: str | UnsetType = UNSET
    email: str | UnsetType = UNSET
    active: bool | UnsetType = UNSET


class SetPassword(Body, frozen=True, kw_only=True):
    """``old`` is asked of who changes their own."""

    password: str
    old: str | None = None


class AddTeam(Body, frozen=True, kw_only=True):
    name: str
    title: str = ""
    members: tuple[str, ...] = ()


class SetTeam(Body, frozen=True, kw_only=True):
    title: str | UnsetType = UNSET
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


class ShareSite(Body, frozen=True, kw_only=True):
    whom: str
    """A person, or ``team:NAME``."""
    level: ShareLevel
    """``look``, ``change``, or ``none`` to end it."""


class GiveSite(Body, frozen=True, kw_only=True):
    owner: str
    """A person, ``team:NAME`` or ``nobody``."""


class GiveCode(Body, frozen=True, kw_only=True):
    code: str
    """Six digits of an authenticator, or a recovery code."""


class ConfirmTotp(Body, frozen=True, kw_only=True):
    code: str
    name: str = ""
    """What to call the device."""


class AddPasskey(Body, frozen=True, kw_only=True):
    credential: dict[str, Any]
    """What ``navigator.credentials.create`` gave, as JSON."""
    name: str = ""


class GivePasskey(Body, frozen=True, kw_only=True):
    credential: dict[str, Any]


class RequireSecondFactor(Body, frozen=True, kw_only=True):
    roles: tuple[Role, ...]


class TryLdap(Body, frozen=True, kw_only=True):
    name: str
    password: str | None = None
    """``None``: search only."""
    settings: dict[str, Any] | None = None
    """Those of ``PUT /v1/ldap``; ``None``: those that are stored."""


class SetQuota(Body, frozen=True, kw_only=True):
    """``null`` is no limit."""

    sites: int | UnsetType | None = UNSET
    memory_bytes: int | UnsetType | None = UNSET
    disk_bytes: int | UnsetType | None = UNSET


class ListChanges(Body, frozen=True, kw_only=True):
    site: str | None = None
    state: str | None = None
    before: str | None = None
    """Id of a change: only those before it (for pages)."""
    limit: int = 50


class FindSites(Body, frozen=True, kw_only=True):
    text: str = ""
    """Words; each is somewhere in name, id, domains, owner, plan or modules."""
    state: str = ""
    owner: str = ""
    module: str = ""
    page: int = 1
    limit: int = 50


class ExecSite(Body, frozen=True, kw_only=True):
    argv: tuple[str, ...]
    tty: bool = False
    uid: int | None = None


class CreateApp(Body, frozen=True, kw_only=True):
    """An application; each of its environments becomes a site ``NAME-ENVIRONMENT`` that stands still until its first
    deploy. What runs is said as for :class:`CreateSite`; ``from_site`` makes a site that exists its one environment."""

    name: str
    owner: str | None = None
    environments: tuple[str, ...] = DEFAULT_ENVIRONMENTS
    from_site: str | None = None
    accept: Accept = Accept.WAIT
    signers: tuple[str, ...] = ()
    """Public keys of minisign or OpenPGP (armored), of which one must have signed a version."""
    base: str = "host"
    packages: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    processes: tuple[ProcessBody, ...] = ()
    port: int | None = None
    plan: str | None = None
    plans: dict[str, str] = {}
    """Of environments whose plan is another than ``plan``, by name."""
    nodes: dict[str, str] = {}
    """Of environments that live on another server, by name; ``any``: the one with most room."""
    env: dict[str, str] = {}
    volumes: tuple[VolumeBody, ...] = ()
    health: str = "/"
    ready_seconds: int = 60
    stop_seconds: int = 10
    modules: tuple[str, ...] = ()
    answers: dict[str, Answer] = {}
    build_network: bool | None = None


class AddEnvironment(Body, frozen=True, kw_only=True):
    name: str
    before: str | None = None
    """The environment that it comes before; ``None``: it is the last."""
    like: str | None = None
    """The environment whose configuration it begins with; ``None``: that of its neighbour."""
    site: str | None = None
    """A site that exists becomes it."""
    node: str | None = None
    """The server that it lives on; ``None``: this one."""


class SetEnvironment(Body, frozen=True, kw_only=True):
    """What an environment asks for; absent fields stay."""

    soak_seconds: int | UnsetType = UNSET
    approvals: int | UnsetType = UNSET
    windows: tuple[str, ...] | UnsetType = UNSET
    verify_seconds: int | UnsetType = UNSET
    snapshot: bool | UnsetType = UNSET
    before: tuple[str, ...] | UnsetType = UNSET
    after: tuple[str, ...] | UnsetType = UNSET
    hook_seconds: int | UnsetType = UNSET


class SetApp(Body, frozen=True, kw_only=True):
    accept: Accept | UnsetType = UNSET
    signers: tuple[str, ...] | UnsetType = UNSET
    masks: tuple[str, ...] | UnsetType = UNSET
    """Rules for personal data, all of them: ``customers.email=email``, ``uploads/*.pdf=removed``."""


class GiveApp(Body, frozen=True, kw_only=True):
    """The application and the sites of its environments belong to somebody else from now on."""

    owner: str
    """A person, ``team:NAME`` or ``nobody``."""


class DestroyApp(Body, frozen=True, kw_only=True):
    confirm: str
    """The name once more."""


class CarriedVersion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version that the machine which drives this one has built and packed."""

    archive: Digest
    release: Digest
    """What its files must turn out to be."""
    made_for: dict[str, str] = {}
    """Of which versions of the packages of a base it hangs."""


class SendVersion(Body, frozen=True, kw_only=True):
    """Of an archive that was uploaded, or of the working copy of an environment, as SFTP and git have filled it."""

    version: str
    upload: str | None = None
    work: str | None = None
    """The name of an environment, instead of an upload."""
    format: ArchiveFormat | None = None
    note: str = ""
    signature: str | None = None
    """The text of minisign's file beside the archive, or of an armored one of OpenPGP."""
    carried: CarriedVersion | None = None
    """The upload is a version of another machine, taken as it is and not built again; for its administrator alone."""


class DecideVersion(Body, frozen=True, kw_only=True):
    accept: bool
    reason: str = ""


class DeliverVersion(Body, frozen=True, kw_only=True):
    version: str
    reason: str = ""
    """An administrator passes the life cycle with it."""


class DeployVersion(Body, frozen=True, kw_only=True):
    """Make live what is delivered; ``version``: refuse when that is another one."""

    version: str | None = None
    reason: str = ""
    """An administrator passes the life cycle with it."""


class ApproveVersion(Body, frozen=True, kw_only=True):
    version: str
    """The delivered one, so that nobody approves what came meanwhile."""


class RollBack(Body, frozen=True, kw_only=True):
    version: str | None = None
    """Which; ``None``: the one that was live before."""
    with_data: bool = False
    """Bring back too what was saved of the data before the present version was deployed."""
    reason: str = ""


class Synchronise(Body, frozen=True, kw_only=True):
    """Give an environment what another has; ``confirm``, where data are replaced: its name once more."""

    source: str
    content: bool = False
    data: bool = False
    confirm: str = ""
    reason: str = ""
    """An administrator passes the life cycle with it."""


# Worked out here and not at the first request: see the end of :mod:`alveole.agent.protocol`.
for _body in Body.__subclasses__():
    msgspec.json.Decoder(_body)


class AddKey(Body, frozen=True, kw_only=True):
    """A public key for the SSH door."""

    key: str
    """One line as in ``id_ed25519.pub``."""
    name: str = ""
    """What the person calls it; by default the comment of the line."""


class PublishWork(Body, frozen=True, kw_only=True):
    """Make a release of the working copy."""

    note: str = ""
    live: bool = True
    """``false``: it is built and kept, and waits to be made live."""
