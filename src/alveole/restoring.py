"""Making a lost machine again: ``alveole restore-platform``. Root's, and only while nothing of Alvéole runs.

From a repository and its key comes the newest backup of the platform (database, authority, sealed secrets, keys), and
then each site's content, volumes and working copy out of its own newest backup that the repository holds, the other
releases that are kept, the versions of applications and the images that were imported. How far that has come is kept
beside, so that a death goes on where it was when it is asked again; until all is there nothing starts
(:func:`alveole.app.serve`). What no backup holds is said, never made up.
"""

from __future__ import annotations

import contextlib
import grp
import hashlib
import json
import os
import pwd
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from alveole import failpoints, wholefile
from alveole.actuators.backups import Backups
from alveole.actuators.bases import Bases
from alveole.actuators.kept import Kept, image_name, release_name
from alveole.actuators.platform_backup import ABOUT, PLATFORM, SETTINGS, About
from alveole.actuators.releases import Releases, room
from alveole.actuators.repositories import Repositories
from alveole.actuators.repository import Held, damaged
from alveole.agent.saving import BackupMade, Content, PutRepository, RestoreBackup
from alveole.app import MARK, prepare_control, prepare_door
from alveole.backends.native.run import NativeBackend
from alveole.backends.native.visits import Visits
from alveole.config import Settings
from alveole.errors import AlveoleError, NoRoom, NotFound, Problem, Refused, Temporary
from alveole.host import paths
from alveole.host.firewall import Firewall
from alveole.host.network import SiteNetwork
from alveole.host.sandbox import Sandbox
from alveole.host.tar import Stream, members
from alveole.host.tree import CHUNK, Rejected
from alveole.journal import Journal
from alveole.model.site import Backup, BaseKind, Release, Site
from alveole.store import Store, tables
from alveole.store.apps import AppStore

#: How the repository is called from now on that all came out of.
NAME = "restored"
Tell = Callable[[str, float | None], None]
_CUT = Problem("", "was cut: the machine was lost", "ask for it again")
#: What of an archive goes where, by how its name begins.
_PLACES = ("control/", "ca/", "certs/", "ssh/", "secrets/")


class Done(msgspec.Struct):
    """``restoring.json``: how far it has come."""

    platform: bool = False
    sites: list[str] = []
    said: list[str] = []
    """Of these, and of what was cut when the machine was lost."""


class Report(msgspec.Struct, frozen=True):
    """What came back. ``without``: sites of which no backup was found, and why others did not come."""

    sites: tuple[str, ...]
    without: dict[str, str]
    said: tuple[str, ...]
    settings: str
    """Where the settings of the lost machine lie, to be compared with those of this one."""
    images: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    """Of applications, with their names."""
    again: bool = False
    """Something is in the repository and did not come for a reason that may pass: it has to be asked for again."""


def restore_platform(
    settings: Settings, wanted: PutRepository, key: str, tell: Tell, *, identity: Path | None = None
) -> Report:
    """Make this machine the one that was saved. Raises ``Refused`` where one lives already, or Alvéole runs."""
    if os.geteuid() != 0:
        raise Refused("restoring a platform needs root", hint="run it with sudo")
    os.umask(0o022)
    mark = settings.state / MARK
    _refuse_living(settings, mark)
    prepare_control(settings)
    if not mark.exists():
        _write(mark, msgspec.json.encode(Done()))
    done = msgspec.json.decode(mark.read_bytes(), type=Done)
    repositories = _reached(settings, wanted, key, identity)
    repository = repositories.of(NAME)
    tell("reading what the repository holds", None)
    if not done.platform:
        saved = repository.list(PLATFORM)
        if not saved:
            raise Refused("the repository holds no backup of a platform", field="repository")
        _unpack(settings, repositories, saved[-1], tell)
        failpoints.hit("restore-platform-unpacked")
        done.platform = True
        _write(mark, msgspec.json.encode(done))
    _owners(settings)
    made = {each.id: each for each in repository.list()}
    store = Store(settings.database)
    try:
        report = _sites(settings, store, repositories, made, done, mark, tell)
    finally:
        store.close()
        _owners(settings)
    if not report.again:
        mark.unlink()
    return report


def _refuse_living(settings: Settings, mark: Path) -> None:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
        asked.connect(str(settings.agent_socket))
        raise Refused(
            "Alvéole runs here", hint="this is for a machine on which it never ran: scripts/quickstart --no-start"
        )
    if settings.database.exists() and not mark.exists():
        raise Refused(
            f"{settings.state} holds a platform already",
            field="state",
            hint="give the settings another paths.state, or 'scripts/quickstart --undo' if nothing of it is kept",
        )


def _reached(settings: Settings, wanted: PutRepository, key: str, identity: Path | None) -> Repositories:
    password = paths.backup_password(settings)
    if not password.exists():
        _write(password, key.strip().encode() + b"\n")
    elif password.read_text().strip() != key.strip():
        raise Refused("this is another key than the one that it was begun with", field="key")
    if identity is not None:
        folder = paths.secrets(settings) / "repositories" / NAME
        _write(folder / "key", identity.read_bytes())
        public = identity.with_name(f"{identity.name}.pub")
        _write(folder / "key.pub", public.read_bytes() if public.exists() else b"")
    repositories = Repositories(settings)
    repositories.put(msgspec.structs.replace(wanted, name=NAME), anywhere=True)
    return repositories


# --- the platform ---------------------------------------------------------------------------------
def _unpack(settings: Settings, repositories: Repositories, saved: BackupMade, tell: Tell) -> None:
    tell("the platform: database, keys, authority", 0.05)
    spool = os.open(settings.state, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        with repositories.dump(saved.snapshot) as raw, open(spool, "wb", closefd=False) as out:
            shutil.copyfileobj(raw, out, CHUNK)
        os.lseek(spool, 0, os.SEEK_SET)
        with open(spool, "rb", closefd=False) as whole:
            digest = f"sha256:{hashlib.file_digest(whole, 'sha256').hexdigest()}"
        if digest != saved.digest:
            raise damaged(saved.snapshot, f"its content has the digest {digest[:19]}…")
        os.lseek(spool, 0, os.SEEK_SET)
        stream = Stream(spool, "")
        try:
            for member in members(stream):
                target = _target(settings, member.name.decode())
                content = stream.take(member.size, member.shown) if member.kind == "f" else b""
                if member.name.decode() == ABOUT:
                    about = msgspec.json.decode(content, type=About)
                    if about.format != 1:
                        raise Refused(f"the platform was saved in format {about.format}; this version reads 1")
                elif target is not None and member.kind == "f":
                    _write(target, content)
        except (Rejected, UnicodeDecodeError, msgspec.DecodeError) as error:
            raise damaged(saved.snapshot, str(error)) from None
    finally:
        os.close(spool)


def _target(settings: Settings, name: str) -> Path | None:
    """Where a file of the archive goes; ``None``: nowhere."""
    if name == SETTINGS:
        return settings.state / f"restored-{SETTINGS}"
    if {"", ".", ".."} & set(name.split("/")) or not name.startswith(_PLACES):
        return None
    # The key is the one that opened it, and the way here is the one that was given.
    if name == "secrets/restic" or name.startswith(f"secrets/repositories/{NAME}/"):
        return None
    return settings.state / name


def _owners(settings: Settings) -> None:
    control = prepare_control(settings)
    for directory, _folders, files in os.walk(settings.database.parent):
        for path in (Path(directory), *(Path(directory) / each for each in files)):
            os.chown(path, control.pw_uid, control.pw_gid, follow_symlinks=False)
    with contextlib.suppress(AlveoleError):
        door = prepare_door(settings)
        for file in settings.ssh_keys.iterdir():
            os.chown(file, door.pw_uid, door.pw_gid, follow_symlinks=False)
    edge = grp.getgrgid(pwd.getpwnam(settings.users.edge).pw_gid).gr_gid
    for file in paths.certificates(settings).glob("*.pem"):
        os.chown(file, 0, edge)
        file.chmod(0o640)
    for private in (paths.secrets(settings), paths.authority(settings)):
        if private.is_dir():
            private.chmod(0o700)


# --- the sites ------------------------------------------------------------------------------------
class _Parts(NamedTuple):
    settings: Settings
    store: Store
    backups: Backups
    releases: Releases
    bases: Bases
    kept: Kept
    held: dict[str, Held]
    """What the repository has beside the backups, by name."""
    said: list[str]
    waits: list[str]
    """What did not come for a reason that may pass."""


@contextlib.contextmanager
def _parts(settings: Settings, store: Store, repositories: Repositories, said: list[str]) -> Iterator[_Parts]:
    sandbox = Sandbox()
    sandbox.start()
    try:
        releases = Releases(settings, sandbox)
        backend = NativeBackend(settings, SiteNetwork(settings), Firewall(settings))
        visits = Visits(backend, releases, sandbox, partial(room, settings))
        # What a death has left mounted of an earlier try.
        visits.recover()
        try:
            backups = Backups(settings, sandbox, releases, work=visits)
            backups.repository = repositories
            kept = Kept(settings, sandbox, repositories)
            held = repositories.of(NAME).held()
            yield _Parts(settings, store, backups, releases, Bases(settings, sandbox), kept, held, said, [])
        finally:
            visits.close()
    finally:
        sandbox.close()


def _sites(
    settings: Settings,
    store: Store,
    repositories: Repositories,
    made: dict[str, BackupMade],
    done: Done,
    mark: Path,
    tell: Tell,
) -> Report:
    done.said += _settled(store, made)
    _write(mark, msgspec.json.encode(done))
    said: list[str] = []
    without: dict[str, str] = {}
    sites = sorted((each.site for each in store.sites.values() if not each.pending), key=lambda each: each.name)
    with _parts(settings, store, repositories, said) as parts:
        images = _images(parts, sites, tell)
        for place, site in enumerate(sites):
            share = 0.1 + 0.8 * place / max(1, len(sites))
            if site.node:
                said.append(f"{site.name} lives on {site.node}, and is there")
            elif site.id not in done.sites:
                tell(f"site {site.name}", share)
                before = len(said)
                try:
                    _site(parts, made, site)
                except AlveoleError as error:
                    without[site.name] = str(error)
                    if _passing(error):
                        parts.waits.append(site.name)
                    continue
                failpoints.hit("restore-platform-site")
                done.sites.append(site.id)
                done.said += said[before:]
                _write(mark, msgspec.json.encode(done))
        versions = _versions(parts, tell)
    names = {site.id: site.name for site in sites}
    file = settings.state / f"restored-{SETTINGS}"
    return Report(
        tuple(names[id] for id in done.sites if id in names),
        without,
        tuple(dict.fromkeys((*done.said, *said))),
        str(file) if file.exists() else "",
        images,
        versions,
        bool(parts.waits),
    )


def _images(parts: _Parts, sites: list[Site], tell: Tell) -> tuple[str, ...]:
    """Images as they were imported; gives their names. The other bases are made anew when a site needs them."""
    found = []
    for base in (each.base for each in parts.store.bases.values() if each.base.kind is BaseKind.OCI):
        users = ", ".join(site.name for site in sites if site.base.key == base.key and not site.node) or "no site"
        held = parts.held.get(image_name(base.key))
        why = "is in no backup"
        try:
            if held is not None and not paths.base_record(parts.settings, base.key).exists():
                tell(f"image {base.label}", 0.08)
                parts.kept.bring_image(parts.bases, held, base.key)
                failpoints.hit("restore-platform-image")
        except AlveoleError as error:
            why = f"did not come back: {error}"
            if _passing(error):
                parts.waits.append(base.label)
                parts.said.append(f"the image {base.label} (of {users}) {why}")
                continue
        if paths.base_record(parts.settings, base.key).exists():
            found.append(base.label)
        else:
            parts.said.append(f"the image {base.label} (of {users}) {why}: import it again: alveole image import FILE")
    return tuple(found)


def _versions(parts: _Parts, tell: Tell) -> tuple[str, ...]:
    """The versions of applications; gives their names."""
    found = []
    apps = AppStore(parts.store)
    for app in apps.apps.values():
        for version in apps.versions(app.id):
            tell(f"version {version.name} of {app.name}", 0.95)
            digests = {each for each in (version.release, version.built) if each is not None}
            called = f"version {version.name} of {app.name}"
            try:
                missing = [why for each in sorted(digests) if (why := _brought(parts, app.store, app.number, each))]
            except AlveoleError as error:
                parts.waits.append(called)
                parts.said.append(f"{called} did not come back: {error}")
                continue
            if not missing:
                found.append(f"{app.name} {version.name}")
            else:
                parts.said.append(f"{called} {missing[0]}: where it is not live yet, send it again under another name")
    return tuple(sorted(found))


def _passing(error: AlveoleError) -> bool:
    """Whether it says nothing of what the repository holds, and may be gone the next time."""
    return isinstance(error, NoRoom | Temporary) or type(error) is AlveoleError


def _brought(parts: _Parts, site: str, number: int, digest: str) -> str:
    """Bring a release from the repository unless it is there; gives why it is not, empty: it is.

    Raises what may pass, for then nothing is known of the release.
    """
    if paths.release(parts.settings, site, digest).is_dir():
        return ""
    held = parts.held.get(release_name(site, digest))
    if held is None:
        return "is in no backup"
    try:
        parts.kept.bring_release(parts.releases, held, Content(site, number, digest))
    except AlveoleError as error:
        if _passing(error):
            raise
        return f"did not come back: {error}"
    return ""


def _settled(store: Store, made: dict[str, BackupMade]) -> list[str]:
    """End what went on when the machine was saved, and have the rows of backups say where these are now."""
    journal = Journal(store)
    said = []
    for live in journal.resume():
        journal.end(live, (_CUT,))
        if live.change.verb != "save-platform":
            said.append(f"{live.change.verb} of {live.change.site_name or 'the platform'} was cut")
    with store.write() as transaction:
        for backup in store.backups():
            found = made.get(backup.id)
            if found is not None and found.snapshot != backup.snapshot:
                query = sa.update(tables.backups).where(tables.backups.c.id == backup.id)
                transaction.connection.execute(query.values(snapshot=found.snapshot))
    return said


def _site(parts: _Parts, made: dict[str, BackupMade], site: Site) -> None:
    """Content, volumes and working copy of one site, as the generation that its row wants, and the releases that are
    kept. Raises ``NotFound`` where what it needs is in no backup, and what may pass; then its rows are as they were."""
    store = parts.store
    # First: a working copy that has come back already would not be replaced when this is tried again.
    missing = {each.digest: _brought(parts, site.id, site.number, each.digest) for each in store.releases(site.id)}
    newest = next((each for each in store.backups(site.id) if each.id in made), None)
    release = _given_back(parts, made[newest.id].snapshot, newest, site) if newest is not None else None
    there = {digest for digest, why in missing.items() if not why}
    there |= {release.digest} if release is not None else set()
    live = release.digest if release is not None else None
    if site.release in there and (newest is None or not site.volumes):
        # No data that belong to another content.
        live = site.release
    if newest is None and (site.volumes or (site.release is not None and live is None)):
        raise NotFound("the repository holds no backup of it", hint="send its content again")
    with store.write() as transaction:
        for old in store.releases(site.id):
            if old.digest not in there:
                # What the repository holds, damaged or not, is only let go of where no row wants it.
                if release_name(site.id, old.digest) not in parts.held:
                    transaction.delete_release(site.id, old.digest)
                parts.said.append(f"the release {old.digest[:19]}… of {site.name} {missing[old.digest]}")
        if release is not None and newest is not None:
            known = next((each for each in store.releases(site.id) if each.digest == release.digest), None)
            note = known or msgspec.structs.replace(release, created_at=newest.created_at, note=f"backup {newest.id}")
            transaction.put_release(site.id, note)
        transaction.save_site(msgspec.structs.replace(site, release=live, version=site.version + 1))
    if site.release in there and site.release != live and newest is not None:
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(newest.created_at))
        parts.said.append(
            f"{site.name} is as in its backup of {at}; what was live since is kept: "
            f"alveole site update {site.name} --release {(site.release or '')[:19]}"
        )


def _given_back(parts: _Parts, snapshot: str, backup: Backup, site: Site) -> Release | None:
    request = RestoreBackup(
        snapshot,
        backup.digest,
        site.id,
        site.number,
        site.data_generation,
        parts.store.plans[site.plan].limits.disk_bytes,
        work=True,
    )
    try:
        return parts.backups.restore(request)
    except AlveoleError as error:
        if isinstance(error, Temporary):
            raise
        # What is visited is worth more than what is being worked on; damage is met again.
        release = parts.backups.restore(msgspec.structs.replace(request, work=False))
        parts.said.append(f"the working copy of {site.name} did not come back: {error}")
        return release


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    wholefile.write(path, content)


def document(report: Report) -> dict[str, Any]:
    """For ``--json``."""
    found: dict[str, Any] = json.loads(msgspec.json.encode(report))
    return found


__all__ = ["Report", "document", "restore_platform"]
