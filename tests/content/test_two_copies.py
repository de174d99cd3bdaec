"""A first copy of what is written to, and a second one of what has changed since: together they are what it is."""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from contentkit import OTHER, SITE, Place
from test_backups import ID, SECOND, fill, picture

from alveole.agent.protocol import PackSite, UnpackSite
from alveole.errors import Refused
from alveole.host import paths

pytestmark = pytest.mark.root


@contextmanager
def packed(place: Place, id: str, *, first: bool = False, since: str | None = None) -> Iterator[tuple[str, int]]:
    with tempfile.TemporaryFile() as file:
        wanted = PackSite(id, SITE, 1, 0, 1, None, '{"name": "blog"}', first=first, since=since)
        yield place.backups.pack(wanted, file.fileno()).digest, file.fileno()


def unpack(place: Place, digest: str, file: int, onto: str | None = None) -> None:
    place.backups.unpack(UnpackSite(digest, OTHER, 2, 1, None, onto=onto), file)


def there(place: Place) -> Path:
    return paths.volume(paths.data_dir(place.settings, OTHER, False), 1, "data")


def own(volume: Path, start: int) -> None:
    """What was made since as the site's own, which this test's root made."""
    for path in volume.rglob("*"):
        if path.lstat().st_uid < start:
            os.chown(path, start + 1000, start + 1000, follow_symlinks=False)


def settled() -> None:
    """Files that were written within a tick of the clock before they are looked at are sent again; see ``listing``."""
    until = time.time_ns() + 150_000_000
    while time.time_ns() < until:
        time.sleep(0.01)


def test_what_has_changed_goes_after(place: Place) -> None:
    """Every kind of file changed, gone, come and turned into another; what is as it was is not sent again."""
    volume, start = place.volume(), place.settings.uid_start(1)
    fill(volume, start)
    (volume / "large").write_bytes(os.urandom(3_000_000))
    (volume / "dir" / "deep").mkdir()
    (volume / "dir" / "deep" / "er").write_text("old")
    (volume / "becomes-a-directory").write_text("a file")
    (volume / "becomes-a-file").mkdir()
    (volume / "becomes-a-file" / "inside").write_text("x")
    own(volume, start)
    settled()
    with packed(place, ID, first=True) as (one, file):
        unpack(place, one, file)
        (volume / "dir" / "file").write_bytes(b"changed")
        (volume / "private").unlink()
        shutil.rmtree(volume / "dir" / "deep")
        (volume / "link").unlink()
        (volume / "link").symlink_to("elsewhere")
        (volume / "becomes-a-directory").unlink()
        (volume / "becomes-a-directory").mkdir(0o750)
        (volume / "becomes-a-directory" / "new").write_text("new")
        shutil.rmtree(volume / "becomes-a-file")
        (volume / "becomes-a-file").write_text("a file now")
        # The same length and the same time of change: told by the kernel's own time alone.
        was = (volume / ("n" * 200)).stat()
        (volume / ("n" * 200)).write_text("LONG")
        os.utime(volume / ("n" * 200), ns=(was.st_atime_ns, was.st_mtime_ns))
        own(volume, start)
        with packed(place, SECOND, since=one) as (two, later):
            assert os.fstat(later).st_size < 100_000, "what is as it was went again"
            unpack(place, two, later, onto=one)
            assert picture(there(place), place.settings.uid_start(2)) == picture(volume, start)
            # Cut and asked again.
            unpack(place, two, later, onto=one)
            assert picture(there(place), place.settings.uid_start(2)) == picture(volume, start)
            with pytest.raises(Refused):
                unpack(place, two, later, onto=two)
    with pytest.raises(Refused), packed(place, SECOND, since=two):
        pass


def test_a_store_through_a_mapping_is_seen(place: Place) -> None:
    """A page that is dirty takes stores that move no time: what is looked at is written out before."""
    volume = place.volume()
    path = volume / "mapped"
    path.write_bytes(bytes(8192))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 8192) as mapped:
        mapped[0] = 1
        settled()
        with packed(place, ID, first=True) as (one, first):
            unpack(place, one, first)
            mapped[0] = 2
            with packed(place, SECOND, since=one) as (two, second):
                unpack(place, two, second, onto=one)
        assert (there(place) / "mapped").read_bytes()[0] == 2


def test_the_second_copy_does_not_grow_with_what_there_is(place: Place) -> None:
    """Of 2,000 files one has changed: a header and its content go, and the names of the others."""
    volume = place.volume()
    for number in range(2000):
        (volume / f"f{number}").write_bytes(os.urandom(1000))
    settled()
    with packed(place, ID, first=True) as (one, first):
        unpack(place, one, first)
        (volume / "f7").write_text("changed")
        with packed(place, SECOND, since=one) as (_two, second):
            assert os.fstat(second).st_size < 60_000 < os.fstat(first).st_size // 40
