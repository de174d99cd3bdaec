"""Threat 6: a site swaps directories for links while root's side works on its content.

The canary lies outside, where only root may read and write. A hundred thousand swaps take place
while content is imported, measured, packed, saved and removed; the canary must stay as it is and
must not get into a backup.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "content"))
from contentkit import SITE, Place, opened, place, tar

from alveole.agent.protocol import CreateBackup, RestoreBackup
from alveole.host.sandbox import as_root, as_user

__all__ = ["place"]
pytestmark = pytest.mark.root
SWAPS = 100_000

#: Runs as the site: swaps the directory ``d`` and the link ``l`` with renameat2(RENAME_EXCHANGE), without pause.
SWAPPER = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
top, secret, uid, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
os.chdir(top)
for name in ("d", "e"):
    os.mkdir(name)
    for number in range(3):
        open(f"{name}/secret{number}", "w").write("mine")
    os.mkdir(f"{name}/sub")
    open(f"{name}/sub/secret", "w").write("mine")
os.symlink(secret, "l")
os.symlink(secret + "/sub", "m")
print("ready", flush=True)
done = 0
exchange = libc.renameat2
while done < count:
    for a, b in ((b"d", b"l"), (b"e", b"m"), (b"d", b"e")):
        exchange(-100, a, -100, b, 2)
        done += 1
print("done", done, flush=True)
"""


@pytest.mark.parametrize("work", ["pack", "measure", "backup", "remove"])
def test_swaps_never_lead_out(place: Place, work: str) -> None:
    volume = place.volume()
    secret = place.path / "secret"
    (secret / "sub").mkdir(parents=True)
    for name in ("secret0", "secret1", "secret2", "sub/secret"):
        (secret / name).write_text("CANARY-OF-ROOT")
        (secret / name).chmod(0o600)
    swapper = subprocess.Popen(
        [sys.executable, "-c", SWAPPER, str(volume), str(secret), str(place.uid()), str(SWAPS // 4)],
        stdout=subprocess.PIPE,
        text=True,
    )
    rounds = 0
    try:
        assert swapper.stdout is not None and swapper.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 20
        while swapper.poll() is None and time.monotonic() < deadline:
            _work(place, work, volume)
            rounds += 1
        assert swapper.wait(20) == 0 and swapper.stdout.read().startswith("done")
    finally:
        swapper.kill()
        swapper.wait()
        if swapper.stdout is not None:
            swapper.stdout.close()
    assert rounds > 0
    left = sorted(path.relative_to(secret).as_posix() for path in secret.rglob("*"))
    assert left == ["secret0", "secret1", "secret2", "sub", "sub/secret"]
    for path in secret.rglob("*"):
        if path.is_file():
            assert path.read_text() == "CANARY-OF-ROOT" and path.stat().st_mode & 0o777 == 0o600
            assert path.stat().st_uid == 0
    assert place.canary_intact()


def _work(place: Place, work: str, volume: Path) -> None:
    ids = as_root(place.settings, 1)
    if work == "measure":
        place.sandbox.run("measure", volume.parent, ids, {"paths": ["data"]})
    elif work == "pack":
        with tempfile.TemporaryFile() as out:
            args = {"path": "data", "prefix": "v/", "bytes": 1}
            place.sandbox.run("pack", volume.parent, ids, args, fds=(out.fileno(),))
            out.seek(0)
            assert b"CANARY-OF-ROOT" not in out.read()
    elif work == "backup":
        made = place.backups.create(CreateBackup("b" + "a" * 12, SITE, 1, 0, 1, None, "{}"))
        with place.backups.repository.dump(made.snapshot) as stream:
            assert b"CANARY-OF-ROOT" not in stream.read()
    else:
        # What the site deletes and makes again at the same moment may stay; it must only never lead out.
        place.sandbox.run("remove", volume, ids, {"paths": ["d", "e", "l", "m"][rounds_of(volume) % 2 :]})
        for name in ("d", "e"):
            (volume / name).mkdir(exist_ok=True) if not os.path.lexists(volume / name) else None
            os.chown(volume / name, place.uid(), place.uid(), follow_symlinks=False)


def rounds_of(volume: Path) -> int:
    return len(list(volume.iterdir()))


def test_imports_into_a_site_whose_content_swaps(place: Place) -> None:
    """Even if a site could write beside its releases, an import runs in a directory that it cannot reach."""
    data = tar([("index.html", "f", b"x"), ("d/x", "f", b"y")])
    for _ in range(20):
        with opened(data) as fd:
            release = place.releases.import_release(SITE, 1, fd)
        staging = place.settings.state / "sites" / SITE / "staging"
        probe = subprocess.run(
            ["/bin/ls", str(staging)],
            user=place.uid(),
            group=place.uid(),
            extra_groups=[],
            capture_output=True,
            check=False,
        )
        assert b"Permission denied" in probe.stderr
        place.releases.drop_release(SITE, 1, release.digest)


def test_the_kernel_alone_keeps_a_careless_child_inside(place: Place) -> None:
    """The checks may all be wrong: a child that opens whatever a link says still cannot leave."""
    volume = place.volume()
    (volume / "absolute").symlink_to(place.canary)
    (volume / "relative").symlink_to("../" * 20 + str(place.canary))
    for ids in (as_user(place.settings, 1), as_root(place.settings, 1)):
        seen = place.sandbox.run("probe", volume, ids, {"paths": ["absolute", "relative", "/../../etc/passwd"]})
        assert {answer for answers in seen["paths"].values() for answer in answers} == {"No such file or directory"}


def test_a_restore_does_not_follow_what_it_restores(place: Place) -> None:
    """Threats 6 and 9: links of a volume come back as links, and lead nowhere while they do."""
    volume = place.volume()
    (volume / "out").symlink_to(place.path)
    (volume / "shadow").symlink_to("/etc/shadow")
    for path in volume.iterdir():
        os.chown(path, place.uid(), place.uid(), follow_symlinks=False)
    made = place.backups.create(CreateBackup("b" + "a" * 12, SITE, 1, 0, 1, None, "{}"))
    place.backups.restore(RestoreBackup(made.snapshot, made.digest, SITE, 1, 2, None))
    restored = volume.parents[1] / "2" / "data"
    assert (restored / "out").readlink() == place.path
    assert (restored / "shadow").lstat().st_uid == place.uid()
    assert place.canary_intact()
