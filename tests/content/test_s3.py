"""Backups in an S3-compatible store, against a server that the test starts: saving, copying, giving back."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from contentkit import OTHER, SITE, Place, opened, tar

from alveole.agent.protocol import CreateBackup, RestoreBackup
from alveole.agent.saving import Kind, PutRepository
from alveole.errors import AlveoleError, InvalidInput, NotFound, Refused
from alveole.host import paths
from commonbase import CACHE

pytestmark = [pytest.mark.root, pytest.mark.turn]
HERE = Path(__file__).parent / "s3"
ID = "b" + "a" * 12
SECRET = "a-secret-access-key-of-the-test"


@pytest.fixture(scope="module")
def python() -> Path:
    """A Python with the server in it, installed once with the digests of the lock file."""
    lock = (HERE / "requirements.txt").read_bytes()
    place = CACHE / f"s3-{hashlib.sha256(lock).hexdigest()[:16]}"
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError:
        pytest.skip("the test cache cannot be written")
    with (place / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not (place / "installed").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", place / "venv"], check=True)
            words = [
                "-m",
                "pip",
                "install",
                "--quiet",
                "--require-hashes",
                "--no-deps",
                "-r",
                HERE / "requirements.txt",
            ]
            done = subprocess.run([place / "venv/bin/python", *words], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                pytest.skip(f"pip cannot fetch the server: {done.stderr[-300:]}")
            (place / "installed").touch()
    return place / "venv/bin/python"


@pytest.fixture(scope="module")
def store(python: Path) -> Iterator[str]:
    """The address of a server with an empty bucket ``kept``; what it holds is in its memory."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    log = subprocess.DEVNULL
    argv = [str(python), "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
    address = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 60
        while True:
            assert process.poll() is None and time.monotonic() < end, "the server did not start"
            with contextlib.suppress(OSError):
                request = urllib.request.Request(f"{address}/kept", method="PUT")  # noqa: S310  the test's own
                urllib.request.urlopen(request, timeout=5).close()  # noqa: S310  likewise
                break
            time.sleep(0.1)
        yield address
    finally:
        process.kill()
        process.wait()


def wanted(store: str, prefix: str, name: str = "cloud") -> PutRepository:
    return PutRepository(name, Kind.S3, f"{store}/kept/{prefix}", user="id-of-the-test", secret=SECRET)


def saved(place: Place, id: str = ID) -> CreateBackup:
    """A site with content and a volume; what saves it."""
    if not paths.releases(place.settings, SITE).exists():
        (place.volume() / "notes").write_text("kept")
    with opened(tar([("index.html", "f", id.encode())])) as fd:
        release = place.releases.import_release(SITE, 1, fd)
    return CreateBackup(id, SITE, 1, 0, 1, release.digest, '{"name":"blog"}')


def notes(place: Place, generation: int) -> str:
    volume = paths.volume(paths.data_dir(place.settings, OTHER, False), generation, "data")
    return (volume / "notes").read_text()


def test_all_of_it_over_s3(place: Place, store: str) -> None:
    """Saved there, listed, compared, given back from there, dropped; a store that is away is named as such."""
    repositories = place.backups.repository
    assert repositories.put(wanted(store, "all")).problem == ""
    repositories.use("cloud")
    made = place.backups.create(saved(place))
    assert made.snapshot.startswith("cloud/") and not paths.backup_repository(place.settings).startswith(store)
    assert [each.id for each in place.backups.list()] == [ID]
    assert repositories.check("cloud").backups == 1
    assert place.backups.read_manifest(made.snapshot, made.digest) == '{"name":"blog"}'
    release = place.backups.restore(RestoreBackup(made.snapshot, made.digest, OTHER, 2, 1, None))
    assert release is not None and notes(place, 1) == "kept"
    with pytest.raises(AlveoleError):
        place.backups.read_manifest(made.snapshot, f"sha256:{'0' * 64}")
    # Another machine that has the key, and reaches the store anew.
    again = type(repositories)(place.settings)
    assert [each.snapshot for each in again.list()] == [made.snapshot]
    place.backups.drop(made.snapshot)
    assert place.backups.list() == ()
    with pytest.raises(NotFound):
        repositories.known(made.snapshot)
    # The secret is in a file of root's and nowhere else: no program's arguments, no state, no error.
    assert SECRET not in repr(repositories.states())
    with pytest.raises(Refused) as refused:
        repositories.put(wanted("http://127.0.0.1:9", "all", "gone"))
    assert "gone cannot be used" in str(refused.value) and SECRET not in str(refused.value)
    assert [each.name for each in repositories.states()] == ["local", "cloud"]
    with pytest.raises(InvalidInput):
        repositories.put(wanted("http://s3.example.org", "all", "clear"))


def test_copies_between_repositories(place: Place, store: str) -> None:
    """``restic copy``: from here into the store and back into a directory, once however often it is asked."""
    repositories = place.backups.repository
    repositories.put(wanted(store, "copies"))
    disk = place.path / "disk"
    local = PutRepository("disk", Kind.LOCAL, str(disk))
    repositories.put(local, anywhere=True)
    made = place.backups.create(saved(place))
    there = repositories.copy(ID, made.snapshot, "cloud")
    assert there.startswith("cloud/") and repositories.copy(ID, made.snapshot, "cloud") == there
    back = repositories.copy(ID, there, "disk")
    assert back.startswith("disk/")
    # Each is whole by itself, and the same to the last byte.
    place.backups.drop(made.snapshot)
    for number, snapshot in enumerate((there, back), 1):
        place.backups.restore(RestoreBackup(snapshot, made.digest, OTHER, 2, number, None))
        assert notes(place, number) == "kept"
    repositories.put(wanted(store, "other", "second"))
    with pytest.raises(Refused) as refused:
        repositories.copy(ID, there, "second")
    assert "cannot copy" in str(refused.value), "two stores at once: restic reads one pair of keys"
    assert os.listdir(disk)  # noqa: PTH208  names are enough
