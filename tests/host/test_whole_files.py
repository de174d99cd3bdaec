"""Files that are there wholly or not at all: on a full disk, of writers that die, of several at once."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from alveole import wholefile
from alveole.actuators.anchors import MOST, Anchors
from alveole.actuators.carried import Carried
from alveole.actuators.repositories import Repositories
from alveole.agent.saving import LOCAL
from alveole.config import Settings, parse
from alveole.remote.lines import Keys
from alveole.remote.passport import Identity

pytestmark = pytest.mark.root
SITE = "saaaaaaaaaaab"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    place = tmp_path / "s"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def names(place: Path) -> set[str]:
    return {str(each.relative_to(place)) for each in place.rglob("*") if each.is_file()}


def keep_listing(settings: Settings, text: bytes) -> None:
    with contextlib.closing(os.fdopen(os.memfd_create("listing"), "wb+")) as listing:
        listing.write(text)
        listing.flush()
        Carried(settings, SITE).keep("d", listing.fileno())


def keep_anchors(settings: Settings) -> None:
    """The one that shortens the file: it is written anew."""
    anchors = Anchors(settings)
    for number in range(len(anchors.all()), MOST + 1):
        anchors.keep(number + 1, "a" * 64)


@pytest.mark.parametrize(
    "write",
    [
        lambda settings: keep_listing(settings, b"x" * 65_536),
        lambda settings: Repositories(settings).use(LOCAL),
        lambda settings: Identity.load(settings.state / "identity"),
        lambda settings: Keys(settings).public(),
        keep_anchors,
    ],
    ids=["first copy of a site", "which repository", "keys of the platform", "key of lines", "anchors of the journal"],
)
def test_a_full_disk_leaves_what_was_there(disk: Path, write: Callable[[Settings], object]) -> None:
    settings = parse({"paths": {"state": str(disk), "run": "/tmp/r"}})
    for folder in (f"sites/{SITE}", "control", "backups"):
        (disk / folder).mkdir(parents=True)
    keep_listing(settings, b"before")
    (disk / "journal-anchors").write_bytes(
        b"\n".join(b'{"seq":%d,"hash":"%s","at":1.0}' % (each + 1, b"a" * 64) for each in range(MOST))
    )
    before = {name: (disk / name).read_bytes() for name in names(disk)}
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    # Room for some of it, where it is long.
    os.truncate(ballast, ballast.stat().st_size - 4096 * (write is keep_anchors))
    with pytest.raises(OSError, match="No space left"):
        write(settings)
    assert {name: (disk / name).read_bytes() for name in names(disk) - {"ballast"}} == before
    ballast.unlink()
    write(settings)
    assert {name: (disk / name).read_bytes() for name in names(disk)} != before


def test_what_a_dead_writer_left_goes_with_the_next(tmp_path: Path) -> None:
    file = tmp_path / "key"
    code = "import os, signal, sys; from pathlib import Path; from alveole import wholefile\n"
    code += "with wholefile.writing(Path(sys.argv[1])) as file:\n"
    code += "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    assert subprocess.run([sys.executable, "-c", code, file], check=False).returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.read_bytes() == b"half" and left.stat().st_mode & 0o777 == 0o600
    wholefile.write(file, b"whole", mode=0o644)
    assert list(tmp_path.iterdir()) == [file] and file.read_bytes() == b"whole"
    assert file.stat().st_mode & 0o777 == 0o644


def beside_of(file: Path) -> Path:
    with wholefile.writing(file):
        (found,) = file.parent.glob(".*")
    return found


def test_a_link_at_its_side_is_not_followed(tmp_path: Path) -> None:
    file, strange = tmp_path / "zone", tmp_path / "strange"
    strange.write_bytes(b"of somebody else")
    beside_of(file).symlink_to(strange)
    wholefile.write(file, b"new")
    assert strange.read_bytes() == b"of somebody else" and file.read_bytes() == b"new" and not file.is_symlink()


def test_a_stranger_keeps_nobody_waiting(tmp_path: Path) -> None:
    """BIND's directory is BIND's too: what it puts there and locks is not waited for, and not written into."""
    file = tmp_path / "zone"
    beside = beside_of(file)
    beside.write_bytes(b"x")
    os.chown(beside, 65_534, 65_534)
    with beside.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        wholefile.write(file, b"new")
        assert held.read() == b"x"
    assert file.read_bytes() == b"new" and names(tmp_path) == {"zone"}


def test_several_at_once_wait_for_each_other(tmp_path: Path) -> None:
    file, first = tmp_path / "state", tmp_path / "first"
    seen, made, failed = set(), [], []

    def work(letter: bytes) -> None:
        try:
            for _ in range(50):
                wholefile.write(file, letter * 50_000, synced=False)
                seen.add(file.read_bytes())
            with contextlib.suppress(FileExistsError):
                wholefile.write(first, letter, over=False)
                made.append(letter)
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=work, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not failed
    assert seen <= {letter * 50_000 for letter in (b"a", b"b", b"c")}
    assert made == [first.read_bytes()]
    assert names(tmp_path) == {"state", "first"}
