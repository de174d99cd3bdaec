"""Making a lost machine again: ``alveole restore-platform``. Root's, and only while nothing of Alvéole runs.

From a repository and its key comes the newest backup of the platform (database, authority, sealed secrets, keys), and
then each site's content and volumes out of its own newest backup that the repository holds. How far that has come is
kept beside, so that a death goes on where it was when it is asked again; until all is there nothing starts
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from alveole import failpoints, tables, wholefile
from alveole.actuators.backups import Backups
from alveole.actuators.platform_backup import ABOUT, PLATFORM, SETTINGS, About
from alveole.actuators.releases import Releases
from alveole.actuators.repositories import Repositories
from alveole.actuators.repository import damaged
from alveole.agent.saving import BackupMade, PutRepository, RestoreBackup
from alveole.app import MARK, prepare_control, prepare_door
from alveole.config import Settings
from alveole.errors import AlveoleError, NotFound, Problem, Refused
from alveole.host import paths
from alveole.host.sandbox import Sandbox
from alveole.host.tar import Stream, members
from alveole.host.tree import CHUNK, Rejected
from alveole.journal import Journal
from alveole.model.site import BaseKind, Site
from alveole.store import Store

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


class Report(msgspec.Struct, frozen=True):
    """What came back. ``without``: sites of which no backup was found, and why others did not come."""

    sites: tuple[str, ...]
    without: dict[str, str]
    said: tuple[str, ...]
    settings: str
    """Where the settings of the lost machine lie, to be compared with those of this one."""


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
    mark.unlink()
    return report


def _refuse_living(settings: Settings, mark: Path) -> None:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
        asked.connect(str(settings.agent_socket))
        raise Refused("Alvéole runs here", hint="stop it first")
    if settings.database.exists() and not mark.exists():
        raise Refused(
            f"{settings.state} holds a platform already", field="state", hint="give the settings another paths.state"
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
def _sites(
    settings: Settings,
    store: Store,
    repositories: Repositories,
    made: dict[str, BackupMade],
    done: Done,
    mark: Path,
    tell: Tell,
) -> Report:
    said = _settled(store, made)
    without: dict[str, str] = {}
    sandbox = Sandbox()
    sandbox.start()
    try:
        backups = Backups(settings, sandbox, Releases(settings, sandbox))
        backups.repository = repositories
        sites = sorted((each.site for each in store.sites.values() if not each.pending), key=lambda each: each.name)
        for place, site in enumerate(sites):
            share = 0.1 + 0.9 * place / max(1, len(sites))
            if site.node:
                said.append(f"{site.name} lives on {site.node}, and is there")
            elif site.id not in done.sites:
                tell(f"site {site.name}", share)
                try:
                    _site(settings, store, backups, made, site)
                except AlveoleError as error:
                    without[site.name] = str(error)
                    continue
                failpoints.hit("restore-platform-site")
                done.sites.append(site.id)
                _write(mark, msgspec.json.encode(done))
            if site.base.kind is BaseKind.OCI:
                said.append(
                    f"{site.name} runs on an image that is in no backup: alveole image import {site.base.label}"
                )
    finally:
        sandbox.close()
    names = {site.id: site.name for site in sites}
    file = settings.state / f"restored-{SETTINGS}"
    return Report(
        tuple(names[id] for id in done.sites if id in names), without, tuple(said), str(file) if file.exists() else ""
    )


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


def _site(settings: Settings, store: Store, backups: Backups, made: dict[str, BackupMade], site: Site) -> None:
    """Content and volumes of one site, as the generation that its row wants. Raises ``NotFound`` without a backup."""
    newest = next((each for each in store.backups(site.id) if each.id in made), None)
    if newest is None:
        if site.release is None and not site.volumes:
            return
        raise NotFound("the repository holds no backup of it", hint="send its content again")
    request = RestoreBackup(
        made[newest.id].snapshot,
        newest.digest,
        site.id,
        site.number,
        site.data_generation,
        store.plans[site.plan].limits.disk_bytes,
    )
    release = backups.restore(request)
    with store.write() as transaction:
        for old in store.releases(site.id):
            # Only what was saved is there: the others were files of the lost machine.
            if release is None or old.digest != release.digest:
                transaction.delete_release(site.id, old.digest)
        if release is not None:
            known = next((each for each in store.releases(site.id) if each.digest == release.digest), None)
            note = known or msgspec.structs.replace(release, created_at=newest.created_at, note=f"backup {newest.id}")
            transaction.put_release(site.id, note)
        digest = release.digest if release is not None else None
        transaction.save_site(msgspec.structs.replace(site, release=digest, version=site.version + 1))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    wholefile.write(path, content)


def document(report: Report) -> dict[str, Any]:
    """For ``--json``."""
    found: dict[str, Any] = json.loads(msgspec.json.encode(report))
    return found


__all__ = ["Report", "document", "restore_platform"]
