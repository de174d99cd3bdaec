"""Backups: all of a site comes back, the live one is left alone, and what is damaged is named."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from contentkit import OTHER, SITE, Place, opened, tar

from alveole.actuators.backups import Backups
from alveole.actuators.kept import Kept as Beside
from alveole.actuators.kept import release_name
from alveole.actuators.repository import _CORRUPT
from alveole.agent.protocol import BackupMade, CreateBackup, LookAtData, RestoreBackup
from alveole.agent.saving import Content, KeptSaved, Kind, PutRepository, SaveKept
from alveole.backends.base import Say
from alveole.errors import AlveoleError, NoRoom, NotFound, Refused, Temporary
from alveole.host import disk, paths
from alveole.model.resource import WorkloadSpec
from alveole.model.site import MIB, BaseKind, Kept, Limits, Release, VolumeMount

pytestmark = pytest.mark.root
ID = "b" + "a" * 12
SECOND = "b" + "c" * 12


def content(place: Place, text: bytes = b"hello") -> Release:
    with opened(tar([("index.html", "f", text), ("sub/tool", "f", b"#!", {"mode": 0o755})])) as fd:
        return place.releases.import_release(SITE, 1, fd)


def fill(volume: Path, start: int) -> None:
    """Everything that a volume may hold, owned by several ids of the site's range."""
    (volume / "dir").mkdir()
    (volume / "dir" / "file").write_bytes(os.urandom(300_000))
    (volume / "private").write_text("secret")
    (volume / "private").chmod(0o600)
    os.link(volume / "private", volume / "again")
    (volume / "link").symlink_to("/etc/passwd")
    os.mkfifo(volume / "pipe", 0o640)
    with (volume / "holes").open("wb") as file:
        file.truncate(50_000_000)
    raw = os.fsencode(volume) + b"/not-utf8-\xff\xfe"
    Path(os.fsdecode(raw)).write_text("x")
    (volume / ("n" * 200)).write_text("long")
    for number, path in enumerate(sorted(volume.rglob("*"))):
        owner = start + (0, 33, 1000, 65_534)[number % 4]
        os.chown(path, owner, owner, follow_symlinks=False)
        os.utime(path, (1_600_000_000 + number,) * 2, follow_symlinks=False)


def picture(volume: Path, start: int) -> dict[str, tuple[object, ...]]:
    seen = {}
    for path in sorted(volume.rglob("*")):
        info = path.lstat()
        body: object = None
        if path.is_symlink():
            body = str(path.readlink())
        elif path.is_file():
            body = path.read_bytes()
        when = None if path.is_symlink() or path.is_fifo() else int(info.st_mtime)
        links = info.st_nlink if path.is_file() else None
        seen[str(path.relative_to(volume))] = (
            info.st_mode,
            info.st_uid - start,
            info.st_gid - start,
            when,
            links,
            body,
        )
    return seen


def save(place: Place, release: Release | None, id: str = ID) -> BackupMade:
    digest = release.digest if release is not None else None
    return place.backups.create(CreateBackup(id, SITE, 1, 0, 1, digest, '{"name": "blog"}'))


def test_a_site_comes_back_as_another(place: Place) -> None:
    release, volume = content(place), place.volume()
    fill(volume, place.settings.uid_start(1))
    before = picture(volume, place.settings.uid_start(1))
    made = save(place, release)
    assert place.backups.read_manifest(made.snapshot, made.digest) == '{"name": "blog"}'
    (known,) = place.backups.list()
    assert (known.id, known.snapshot, known.bytes, known.digest) == (ID, made.snapshot, made.bytes, made.digest)
    assert abs(known.created_at - time.time()) < 120
    back = place.backups.restore(RestoreBackup(made.snapshot, made.digest, OTHER, 2, 7, None))
    assert back is not None and back.digest == release.digest
    data = paths.data_dir(place.settings, OTHER, False)
    restored = paths.volume(data, 7, "data")
    assert picture(restored, place.settings.uid_start(2)) == before
    assert (restored / "holes").stat().st_blocks < 1000
    assert restored.stat().st_uid == place.uid(2)
    assert restored.parent.stat().st_uid == 0 and restored.parent.stat().st_mode & 0o777 == 0o711
    # The live site is as it was, and no new generation of it came up.
    assert picture(volume, place.settings.uid_start(1)) == before
    assert [path.name for path in volume.parents[1].iterdir()] == ["1"]


def test_a_restore_goes_beside_the_live_data(place: Place) -> None:
    """Fault 11: the live generation is untouched until control switches."""
    volume = place.volume()
    (volume / "file").write_text("then")
    made = save(place, None)
    (volume / "file").write_text("now")
    assert place.backups.restore(RestoreBackup(made.snapshot, made.digest, SITE, 1, 2, None)) is None
    assert (volume / "file").read_text() == "now"
    second = volume.parents[1] / "2" / "data" / "file"
    assert second.read_text() == "then"
    # A restore that was cut after its rename is simply done again.
    second.write_text("half")
    place.backups.restore(RestoreBackup(made.snapshot, made.digest, SITE, 1, 2, None))
    assert second.read_text() == "then"
    assert sorted(path.name for path in volume.parents[1].iterdir()) == ["1", "2"]


def test_a_site_with_a_disk_of_its_own(place: Place) -> None:
    volume = place.volume()
    (volume / "file").write_text("x" * 1000)
    made = save(place, None)
    size = 64 * 1024 * 1024
    place.backups.restore(RestoreBackup(made.snapshot, made.digest, OTHER, 2, 1, size))
    image = paths.disk_image(place.settings, OTHER)
    assert image.stat().st_size == size and not disk.is_attached(paths.disk_mount(place.settings, OTHER))
    with disk.borrowed(place.settings, OTHER) as data:
        assert (paths.volume(data, 1, "data") / "file").read_text() == "x" * 1000
    again = place.backups.create(CreateBackup(SECOND, OTHER, 2, 0, 1, None, "{}"))
    assert not disk.is_attached(paths.disk_mount(place.settings, OTHER))
    assert place.backups.verify(again.snapshot, again.digest).volumes == ("data",)


def test_volumes_that_do_not_fit_are_refused(place: Place) -> None:
    volume = place.volume()
    (volume / "file").write_bytes(os.urandom(40 << 20))
    made = save(place, None)
    with pytest.raises(NoRoom, match="volumes"):
        place.backups.restore(RestoreBackup(made.snapshot, made.digest, OTHER, 2, 1, 32 << 20))
    with disk.borrowed(place.settings, OTHER) as data:
        assert not list(paths.volumes(data, 1).parent.glob("*"))


def test_the_site_is_still_while_its_volumes_are_copied(place: Place) -> None:
    """Consistent: two files that a program keeps equal are equal in the backup, and it writes on afterwards."""
    volume = place.volume()
    gate, stop, frozen = threading.Lock(), threading.Event(), []

    def write() -> None:
        number = 0
        while not stop.is_set():
            with gate:
                for name in ("a", "b"):
                    (volume / name).write_text(str(number) * 1000)
            number += 1

    @contextlib.contextmanager
    def freezer(site: str, slot: int) -> Iterator[None]:
        with gate:
            frozen.append((site, slot))
            yield
            frozen.append("thawed")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while not (volume / "b").exists():
            time.sleep(0.001)
        backups = Backups(place.settings, place.sandbox, place.releases, freezer)
        made = backups.create(CreateBackup(ID, SITE, 1, 1, 1, None, "{}"))
    finally:
        stop.set()
        writer.join()
    assert frozen == [(SITE, 1), "thawed"]
    place.backups.restore(RestoreBackup(made.snapshot, made.digest, OTHER, 2, 1, None))
    restored = paths.volume(paths.data_dir(place.settings, OTHER, False), 1, "data")
    assert (restored / "a").read_text() == (restored / "b").read_text() != ""


def test_what_a_running_and_a_stopped_site_give(place: Place) -> None:
    """A running site is asked for its dumps first; what makes no sense while it is written to is left out."""
    mounts = (
        VolumeMount("cache", "/cache", backup=Kept.NEVER),
        VolumeMount("data", "/data", 2001, Kept.COLD),
        VolumeMount("dump", "/dump", 2001),
    )
    for name in ("cache", "data", "dump", "alveole-state"):
        (place.volume(name) / "file").write_text(name)
    asked: list[str] = []

    @contextlib.contextmanager
    def saver(site: str, say: Say) -> Iterator[tuple[WorkloadSpec, ...]]:
        asked.append("begin")
        (paths.volume(paths.data_dir(place.settings, SITE, False), 1, "dump") / "dumped").write_text("now")
        yield (workload(mounts),)
        asked.append("end")

    hot = Backups(place.settings, place.sandbox, place.releases, saver=saver)
    made = hot.create(CreateBackup(ID, SITE, 1, 0, 1, None, "{}", mounts))
    assert asked == ["begin", "end"]
    manifest = hot.verify(made.snapshot, made.digest)
    assert (manifest.volumes, manifest.left_out) == (("alveole-state", "dump"), ("data",))
    hot.restore(RestoreBackup(made.snapshot, made.digest, OTHER, 2, 1, None))
    top = paths.volumes(paths.data_dir(place.settings, OTHER, False), 1)
    assert sorted(str(file.relative_to(top)) for file in top.rglob("*")) == [
        "alveole-state",
        "alveole-state/file",
        f"alveole-state/hot.{ID}",
        "dump",
        "dump/dumped",
        "dump/file",
    ]
    assert (top / f"alveole-state/hot.{ID}").stat().st_uid == place.settings.uid_start(2)
    cold = place.backups.create(CreateBackup(SECOND, SITE, 1, 0, 1, None, "{}", mounts))
    manifest = place.backups.verify(cold.snapshot, cold.digest)
    assert (manifest.volumes, manifest.left_out) == (("alveole-state", "data", "dump"), ())
    place.backups.restore(RestoreBackup(cold.snapshot, cold.digest, OTHER, 2, 2, None))
    assert not list((top.parent / "2" / "alveole-state").glob("hot.*"))


def workload(volumes: tuple[VolumeMount, ...]) -> WorkloadSpec:
    return WorkloadSpec(
        site=SITE,
        number=1,
        slot=0,
        hostname=SITE,
        base="debian-0123456789abcdef",
        base_kind=BaseKind.DEBIAN,
        static=False,
        writable=True,
        processes=(),
        port=None,
        env={},
        volumes=volumes,
        data_generation=1,
        limits=Limits(100, 64 * MIB, 10),
        health="/",
        ready_seconds=1,
        stop_seconds=1,
        incarnation=0,
    )


def test_a_damaged_backup_is_refused_and_named(place: Place) -> None:
    """Fault 14: flipped bytes; the other backup is still good."""
    release, volume = content(place), place.volume()
    (volume / "file").write_bytes(os.urandom(3_000_000))
    made = save(place, release)
    with pytest.raises(Refused, match=f"{made.snapshot}.*instead of"):
        place.backups.read_manifest(made.snapshot, "sha256:" + "0" * 64)
    packs = [path for path in (place.settings.state / "backups" / "data").rglob("*") if path.is_file()]
    pack = max(packs, key=lambda path: path.stat().st_size)
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(data)
    (volume / "file").write_bytes(b"other")
    other = save(place, release, SECOND)
    for call in (
        lambda: place.backups.read_manifest(made.snapshot, made.digest),
        lambda: place.backups.restore(RestoreBackup(made.snapshot, made.digest, OTHER, 2, 1, None)),
    ):
        with pytest.raises(Refused, match=f"backup {made.snapshot} is damaged"):
            call()
    assert not paths.data_dir(place.settings, OTHER, False).exists() and place.nothing_kept(OTHER)
    assert place.backups.verify(other.snapshot, other.digest)
    place.backups.drop(made.snapshot)
    assert [backup.id for backup in place.backups.list()] == [SECOND]


def test_one_that_cannot_be_reached_is_not_called_damaged(place: Place) -> None:
    made = save(place, content(place))
    repository, elsewhere = place.settings.state / "backups", place.settings.state / "elsewhere"
    for call in (
        lambda: place.backups.repository.of("local").dump(made.snapshot),
        lambda: place.backups.repository.of("local").dump("0" * 8),
    ):
        repository.rename(elsewhere)
        try:
            with pytest.raises(Temporary, match="could not be read"), call() as stream:
                stream.read()
        finally:
            elsewhere.rename(repository)
    with pytest.raises(Refused, match="damaged"), call() as stream:
        stream.read()
    assert place.backups.verify(made.snapshot, made.digest)


@pytest.mark.parametrize(
    ("said", "corrupt"),
    [
        ("cannot dump file: ReadFull(<data/ea2e050a29>): EOF", True),
        ("cannot dump file: ReadFull(<data/ea2e050a29>): file does not exist", True),
        ("cannot dump file: ReadFull(<data/ea2e050a29>): open r/data/ea/ea2e: no such file or directory", True),
        ("cannot dump file: decrypting blob 80d6 failed: ciphertext verification failed", True),
        ("Fatal: load <index/5a2d3a4b4e>: invalid data returned", True),
        ('loading tree for snapshot "0a31f3ad" failed: id bb4d25 not found in repository', True),
        ("cannot dump file: ReadFull(<data/ea2e050a29>): connection lost", False),
        ("cannot dump file: ReadFull(<data/ea2e050a29>): unexpected EOF", False),
        ('cannot dump file: ReadFull(<data/ea2e050a29>): Get "https://s3.example.org/b": EOF', False),
        ("Fatal: unable to open repository at sftp:a@b:/c: unable to start the sftp session, error: EOF", False),
    ],
)
def test_what_restic_says_of_damage_and_of_a_line_that_is_cut(said: str, corrupt: bool) -> None:
    """As restic 0.14 prints it."""
    assert bool(_CORRUPT.search(said)) is corrupt


def test_what_is_not_there(place: Place) -> None:
    for name in ("0" * 8, "latest", "--help", "../x", ""):
        with pytest.raises(NotFound):
            place.backups.read_manifest(name, "sha256:" + "0" * 64)
        place.backups.drop(name)
    with pytest.raises(NotFound, match="is missing"):
        place.backups.create(CreateBackup(ID, SITE, 1, 0, 1, "sha256:" + "0" * 64, "{}"))
    assert place.backups.list() == ()


def test_the_password_is_nowhere_but_in_its_file(place: Place) -> None:
    place.backups.repository.prepare()
    file = paths.backup_password(place.settings)
    assert file.stat().st_mode & 0o777 == 0o600 and file.parent.stat().st_mode & 0o777 == 0o700
    password = file.read_text().strip()
    assert len(password) > 30 and not any(password in word for word in place.backups.repository.of("local")._argv("x"))
    again = Backups(place.settings, place.sandbox, place.releases)
    again.repository.prepare()
    assert file.read_text().strip() == password
    file.unlink()
    with pytest.raises(Refused, match="password of the backups is missing"):
        Backups(place.settings, place.sandbox, place.releases).repository.prepare()


def test_no_room_is_said_before_anything_is_written(place: Place) -> None:
    """Fault 12: a volume that says it holds a tebibyte; nothing of it is read."""
    volume = place.volume()
    with (volume / "file").open("wb") as file:
        file.truncate(1 << 40)
    began = time.monotonic()
    with pytest.raises(NoRoom, match="this needs"):
        place.backups.create(CreateBackup(ID, SITE, 1, 0, 1, None, "{}"))
    assert time.monotonic() - began < 60
    assert place.backups.list() == ()


@pytest.mark.parametrize("point", ["backup-spooled", "restore-read", "restore-unpacked"])
def test_a_death_in_the_middle(place: Place, point: str) -> None:
    """Fault 11: the earlier backup is usable, the live site untouched, and nothing half done is left."""
    release, volume = content(place), place.volume()
    (volume / "file").write_text("live")
    os.chown(volume / "file", place.uid(), place.uid())
    made = save(place, release)
    code = f"""
from alveole.config import Paths, Settings, Users
from alveole.host.sandbox import Sandbox
from alveole.actuators.releases import Releases
from alveole.actuators.backups import Backups
from alveole.agent.protocol import CreateBackup, RestoreBackup
settings = Settings(paths=Paths({str(place.settings.state)!r}, {str(place.settings.run)!r}),
                    users=Users(first_uid={place.settings.users.first_uid}))
sandbox = Sandbox()
backups = Backups(settings, sandbox, Releases(settings, sandbox))
backups.create(CreateBackup({SECOND!r}, {SITE!r}, 1, 0, 1, {release.digest!r}, "{{}}"))
backups.restore(RestoreBackup({made.snapshot!r}, {made.digest!r}, {SITE!r}, 1, 2, None))
"""
    died = subprocess.run([sys.executable, "-c", code], env={**os.environ, "ALVEOLE_FAILPOINT": point}, check=False)
    assert died.returncode == -9
    place.releases.recover()
    place.releases.settle()
    place.backups.recover()
    assert [path.name for path in volume.parents[1].iterdir()] == ["1"]
    assert (volume / "file").read_text() == "live"
    assert not list(paths.staging(place.settings, SITE).iterdir())
    expected = {ID} if point == "backup-spooled" else {ID, SECOND}
    assert {backup.id for backup in place.backups.list()} == expected
    place.backups.restore(RestoreBackup(made.snapshot, made.digest, SITE, 1, 2, None))
    assert (volume.parents[1] / "2" / "data" / "file").read_text() == "live"


def test_a_lock_of_the_dead_does_not_block(place: Place) -> None:
    """Fault 11: restic killed in the middle of a backup leaves a lock."""
    place.backups.repository.prepare()
    reader, writer = os.pipe()
    argv = place.backups.repository.of("local")._argv("backup", "--stdin", "--stdin-filename", "x")
    restic = subprocess.Popen(argv[argv.index("restic") :], stdin=reader, stdout=subprocess.DEVNULL)
    locks = place.settings.state / "backups" / "locks"
    deadline = time.monotonic() + 90
    # While restic writes one it has another name; what a death leaves of that is no lock.
    while not [each for each in locks.iterdir() if "-tmp-" not in each.name] and time.monotonic() < deadline:
        time.sleep(0.02)
    restic.kill()
    restic.wait()
    os.close(reader)
    os.close(writer)
    assert list(locks.iterdir())
    fresh = Backups(place.settings, place.sandbox, place.releases)
    fresh.repository.prepare()
    assert not list(locks.iterdir())


def test_a_manifest_is_data_and_no_right(place: Place) -> None:
    """Threat 10: whatever a backup claims, ids, sizes and places come from the request alone."""
    volume = place.volume()
    (volume / "file").write_text("x")
    claims = '{"owner": "root", "admin": true, "uid_start": 0, "site": "../../etc", "mounts": ["/"], "disk_bytes": 1}'
    made = place.backups.create(CreateBackup(ID, SITE, 1, 0, 1, None, claims))
    assert place.backups.read_manifest(made.snapshot, made.digest) == claims
    place.backups.restore(RestoreBackup(made.snapshot, made.digest, OTHER, 2, 3, None))
    site = paths.site(place.settings, OTHER)
    assert sorted(path.name for path in site.iterdir()) == ["content", "data", "staging"]
    owners = {path.lstat().st_uid for path in (site / "data").rglob("*")}
    assert owners <= {0, *range(place.settings.uid_start(2), place.settings.uid_start(2) + 65_536)}


HOSTILE = {
    "no-manifest": [("release/x", "f", b"")],
    "not-json": [("manifest.json", "f", b"{")],
    "unknown-field": [
        ("manifest.json", "f", b'{"format":1,"id":"baaaaaaaaaaaa","release":null,"volumes":[],"site":"","uid":0}')
    ],
    "volume-out": [("VOLUMES",), ("volumes/data", "d", b""), ("volumes/data/../../../x", "f", b"bad")],
    "volume-absolute": [("VOLUMES",), ("volumes//etc/x", "f", b"bad")],
    "through-a-link": [("VOLUMES",), ("volumes/data", "l", "/"), ("volumes/data/canary", "f", b"bad")],
    "twice": [("VOLUMES",), ("volumes/data", "d", b""), ("volumes/data/x", "f", b"1"), ("volumes/data/x", "l", "/")],
    "device": [("VOLUMES",), ("volumes/data", "d", b""), ("volumes/data/x", "c", b"")],
    "hard-link-out": [("VOLUMES",), ("volumes/data", "d", b""), ("volumes/data/x", "h", "../../../../etc/passwd")],
    "foreign-id": [("VOLUMES",), ("volumes/data", "d", b"", {"uid": 70_000})],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_in_the_repository(place: Place, name: str) -> None:
    """Threats 9 and 10: even who can write to the repository and knows the digest gets nothing outside."""
    manifest = b'{"format":1,"id":"baaaaaaaaaaaa","release":null,"volumes":["data"],"site":"{}"}'
    made = [("manifest.json", "f", manifest) if item == ("VOLUMES",) else item for item in HOSTILE[name]]
    place.backups.repository.prepare()
    place.releases.prepare_site(OTHER)
    with opened(tar(made)) as fd:
        stored = place.backups._store(ID, OTHER, fd, lambda text, share=None: None)
    with pytest.raises(AlveoleError):
        place.backups.restore(RestoreBackup(stored.snapshot, stored.digest, OTHER, 2, 1, None))
    assert place.canary_intact()
    data = paths.data_dir(place.settings, OTHER, False)
    assert not data.exists() or not list((data / "volumes").glob("*"))


def test_what_is_left_out_never_reaches_the_disk(place: Place) -> None:
    """Whole directories and other names of the same file included; what a site holds is told beforehand."""
    volume = place.volume()
    (volume / "scans").mkdir()
    (volume / "scans" / "passport.pdf").write_text("personal")
    (volume / "scans" / "deep").mkdir()
    (volume / "scans" / "deep" / "more").write_text("personal")
    os.link(volume / "scans" / "passport.pdf", volume / "zz-the-same")
    (volume / "logo.pdf").write_text("logo")
    (look,) = place.backups.look(LookAtData(SITE, 1, 1))
    assert look.name == "data" and look.files >= 5 and look.bytes >= 20 and look.changed_at > 1.0e9
    made = place.backups.create(CreateBackup(ID, SITE, 1, 0, 1, None, "{}"))
    request = RestoreBackup(made.snapshot, made.digest, OTHER, 2, 1, None, (("data", "scans*"), ("other", "logo.pdf")))
    place.backups.restore(request)
    back = paths.volume(paths.data_dir(place.settings, OTHER, False), 1, "data")
    assert sorted(path.name for path in back.rglob("*")) == ["logo.pdf"]
    assert place.backups.look(LookAtData(OTHER, 2, 9)) == ()


def test_what_is_kept_besides_is_saved_once_and_let_go(place: Place, tmp_path: Path) -> None:
    """Releases that nobody visits now: not read again, in no list of backups, gone when they are wanted no more."""
    first, second = content(place), content(place, b"second")
    beside = Beside(place.settings, place.sandbox, place.backups.repository)
    both = tuple(Content(SITE, 1, each.digest) for each in (first, second))
    lost = Content(SITE, 1, f"sha256:{'0' * 64}")
    told = beside.save(SaveKept((*both, lost), ()))
    assert (told.stored, told.dropped) == (2, 0)
    assert len(told.problems) == 1 and "files are gone" in told.problems[0]
    assert beside.save(SaveKept(both, ())) == KeptSaved(0, 0)
    assert place.backups.list() == ()
    repository = place.backups.repository.of("local")
    held = repository.held()
    assert set(held) == {release_name(SITE, each.release) for each in both}
    place.releases.drop_release(SITE, 1, second.digest)
    with pytest.raises(Refused, match="not the release"):
        beside.bring_release(place.releases, held[release_name(SITE, first.digest)], both[1])
    beside.bring_release(place.releases, held[release_name(SITE, second.digest)], both[1])
    tree = paths.release(place.settings, SITE, second.digest)
    assert (tree / "index.html").read_bytes() == b"second" and tree.stat().st_uid == place.uid(1)
    assert (tree / "sub" / "tool").stat().st_mode & 0o111
    place.backups.repository.put(PutRepository("second", Kind.LOCAL, str(tmp_path / "second")), anywhere=True)
    other = place.backups.repository.of("second")
    assert beside.save(SaveKept(both, (), "second")) == KeptSaved(0, 0)
    assert set(other.held()) == set(held)
    assert beside.save(SaveKept(both[:1], (), "second")) == KeptSaved(0, 1)
    assert set(other.held()) == {release_name(SITE, first.digest)}
    assert set(repository.held()) == {release_name(SITE, first.digest)}
    # A machine that was made again of a backup uses the same repository, and wants less.
    mine = paths.holder(place.settings).read_text()
    paths.holder(place.settings).unlink()
    assert beside.save(SaveKept((), (), "second")) == KeptSaved(0, 0)
    assert paths.holder(place.settings).read_text() != mine
    assert set(repository.held()) == set(other.held()) == {release_name(SITE, first.digest)}
    assert beside.save(SaveKept(both[:1], ())) == KeptSaved(1, 0)
    assert beside.save(SaveKept((), ())) == KeptSaved(0, 1)
    assert set(repository.held(mine)) == {release_name(SITE, first.digest)}
    damaged = msgspec.structs.replace(held[release_name(SITE, first.digest)], digest=f"sha256:{'1' * 64}")
    with pytest.raises(Refused, match="damaged"):
        beside.bring_release(place.releases, damaged, both[0])
