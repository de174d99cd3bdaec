"""Releases: what comes in, under which name, what becomes live, what is left after a death."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from contentkit import OTHER, SITE, Place, opened, packed, tar

from alveole.agent.protocol import ArchiveFormat, CompareReleases, CopyRelease
from alveole.errors import InvalidInput, NoRoom, NotFound, Refused
from alveole.host import paths
from alveole.model.resource import Action, Kind, ReleaseSpec, ResourceId, Step, stamp
from alveole.model.site import Release

pytestmark = pytest.mark.root
FORMATS = ["tar", "tar.gz", "tar.zst", "zip"]
CONTENT = [
    ("index.html", "f", b"<h1>hello</h1>"),
    ("css", "d", b""),
    ("css/site.css", "f", b"h1 { color: red }"),
    ("bin/tool", "f", b"#!/bin/sh\n", {"mode": 0o755}),
    ("latest", "l", "css/site.css"),
    ("héllo wörld.txt", "f", "ünï".encode()),
    ("empty", "d", b""),
]


def deliver(place: Place, data: bytes, site: str = SITE, number: int = 1, **options: object) -> Release:
    with opened(data) as fd:
        return place.releases.import_release(site, number, fd, **options)


def tree(place: Place, release: Release, site: str = SITE) -> Path:
    return paths.release(place.settings, site, release.digest)


def link(place: Place, digest: str, action: Action = Action.CREATE, site: str = SITE) -> Step:
    spec = ReleaseSpec(site, 1, digest)
    return Step(ResourceId(Kind.RELEASE, site, "current"), action, stamp(spec), spec)


@pytest.mark.parametrize("format", FORMATS)
def test_content_arrives_as_the_sites_own(place: Place, format: str) -> None:
    release = deliver(place, packed(CONTENT, format))
    top = tree(place, release)
    assert (top / "index.html").read_bytes() == b"<h1>hello</h1>"
    assert (top / "latest").readlink() == Path("css/site.css")
    assert (top / "héllo wörld.txt").read_text() == "ünï"
    assert release.files == 5
    for path in (top, *top.rglob("*")):
        info = path.lstat()
        assert (info.st_uid, info.st_gid) == (place.uid(), place.uid())
        if not path.is_symlink():
            expected = 0o755 if path.is_dir() or path.name == "tool" else 0o644
            assert info.st_mode & 0o7777 == expected, path


def test_the_same_content_has_the_same_digest_whatever_brought_it(place: Place) -> None:
    digests = {deliver(place, packed(CONTENT, format)).digest for format in FORMATS}
    digests.add(deliver(place, packed(CONTENT[::-1], "tar"), OTHER, 2).digest)
    assert len(digests) == 1
    assert len(list(paths.releases(place.settings, SITE).iterdir())) == 1
    other = deliver(place, packed([*CONTENT, ("more", "d", b"")], "tar"))
    assert other.digest not in digests


@pytest.mark.parametrize("format", FORMATS)
def test_an_archive_of_a_folder_stands_for_its_content(place: Place, format: str) -> None:
    inside = [(f"site-1.0/{name}", *rest) for name, *rest in CONTENT]
    assert deliver(place, packed(inside, format)).digest == deliver(place, packed(CONTENT, format)).digest


def test_an_archive_that_names_its_top_is_taken_as_it_is(place: Place) -> None:
    made = [("./", "d", b""), ("./docs", "d", b""), ("./docs/index.html", "f", b"x")]
    assert (tree(place, deliver(place, tar(made))) / "docs" / "index.html").exists()
    made = [("docs/a.html", "f", b"x"), ("index.html", "f", b"x")]
    assert (tree(place, deliver(place, tar(made))) / "docs" / "a.html").exists()


def test_a_hard_link_and_a_directory_named_twice_are_content(place: Place) -> None:
    made = [("a", "d", b""), ("a/x", "f", b"x"), ("a", "d", b""), ("y", "h", "a/x")]
    release = deliver(place, tar(made))
    assert (tree(place, release) / "y").read_bytes() == b"x"
    plain = deliver(place, tar([("a/x", "f", b"x"), ("y", "f", b"x")]))
    assert plain.digest == release.digest


def test_mac_droppings_of_a_zip_are_left_out(place: Place) -> None:
    made = [("site/index.html", "f", b"x"), ("__MACOSX/site/._index.html", "f", b"y")]
    assert (tree(place, deliver(place, packed(made, "zip"))) / "index.html").exists()


def test_long_names_and_pax_names(place: Place) -> None:
    name = "d" * 90 + "/" + "é" * 80 + "/" + "f" * 120
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        release = deliver(place, tar([(name, "f", b"x"), ("x", "f", b"")], format=format))
        assert (tree(place, release) / name).read_bytes() == b"x"


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "empty"),
        (bytes(10_240), "no files"),
        (b"just some text, longer than a block" * 40, "not an archive"),
        (b"PK\x05\x06" + bytes(18), "no files"),
        (packed([("a", "d", b"")], "zip")[:-5], "damaged"),
    ],
)
def test_what_is_no_archive_is_refused(place: Place, data: bytes, word: str) -> None:
    """Threat 8, P18."""
    with pytest.raises(InvalidInput, match=word):
        deliver(place, data)
    assert place.nothing_kept()


def test_a_wrong_format_is_refused(place: Place) -> None:
    with pytest.raises(InvalidInput):
        deliver(place, packed(CONTENT, "tar"), format=ArchiveFormat.TAR_GZ)
    assert place.nothing_kept()


def test_a_full_disk_refuses_with_figures(place: Place) -> None:
    """Fault 12: the reserve of the platform is not for uploads."""
    huge = Place(reserve_bytes=1 << 60)
    try:
        with pytest.raises(NoRoom, match="are free in"):
            deliver(huge, packed(CONTENT, "tar"))
    finally:
        huge.close()
    wide = Place(bytes=1 << 50)
    try:
        info = tarfile.TarInfo("big")
        info.size = 1 << 45
        with pytest.raises(NoRoom, match="are left"):
            deliver(wide, info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
        assert wide.nothing_kept()
    finally:
        wide.close()


def test_the_link_follows_the_step_and_is_observed(place: Place) -> None:
    first = deliver(place, tar([("index.html", "f", b"1")]))
    second = deliver(place, tar([("index.html", "f", b"2")]))
    assert place.releases.observe().found == ()
    for release in (first, second):
        assert place.releases.apply(link(place, release.digest)).done
        (seen,) = place.releases.observe([SITE]).found
        assert (seen.digest, seen.ready, seen.defects) == (link(place, release.digest).digest, True, ())
        assert (paths.current(place.settings, SITE) / "index.html").exists()
    with pytest.raises(Refused, match="is live"):
        place.releases.drop_release(SITE, 1, second.digest)
    place.releases.drop_release(SITE, 1, first.digest)
    assert place.releases.apply(link(place, second.digest, Action.DELETE)).done
    assert place.releases.observe().found == ()
    place.releases.settle()
    assert not list(paths.staging(place.settings, SITE).iterdir())


def test_a_lost_release_is_a_defect_and_no_step_can_mend_it(place: Place) -> None:
    """Fault 14: noticed and named."""
    release = deliver(place, tar([("index.html", "f", b"1")]))
    place.releases.apply(link(place, release.digest))
    tree(place, release).rename(place.path / "away")
    (seen,) = place.releases.observe().found
    assert not seen.ready and seen.defects[0].code == "damaged"
    outcome = place.releases.apply(link(place, release.digest, Action.REPAIR))
    assert not outcome.done and not outcome.temporary and "deliver it again" in outcome.message


def test_flipped_bytes_in_a_release_are_found_and_mended_by_delivery(place: Place) -> None:
    """Fault 14."""
    data = tar([("index.html", "f", b"right")])
    release = deliver(place, data)
    place.releases.verify(SITE, 1, release.digest)
    (tree(place, release) / "index.html").write_bytes(b"wrong")
    with pytest.raises(Refused, match="is damaged"):
        place.releases.verify(SITE, 1, release.digest)
    assert deliver(place, data).digest == release.digest
    place.releases.verify(SITE, 1, release.digest)
    with pytest.raises(NotFound):
        place.releases.verify(SITE, 1, "sha256:" + "0" * 64)


@pytest.mark.parametrize("point", ["release-unpacked", "release-renamed"])
def test_a_death_in_the_middle_leaves_nothing_half_done(place: Place, point: str) -> None:
    """Fault 4: a partial directory is never used, and goes; what has its name is whole."""
    archive = place.path / "archive.tar"
    archive.write_bytes(tar([(f"d/{number}", "f", bytes(1000)) for number in range(300)]))
    code = f"""
import os
from alveole.config import Paths, Settings, Users
from alveole.host.sandbox import Sandbox
from alveole.actuators.releases import Releases
settings = Settings(paths=Paths({str(place.settings.state)!r}, {str(place.settings.run)!r}),
                    users=Users(first_uid={place.settings.users.first_uid}))
Releases(settings, Sandbox()).import_release({SITE!r}, 1, os.open({str(archive)!r}, os.O_RDONLY))
"""
    died = subprocess.run([sys.executable, "-c", code], env={**os.environ, "ALVEOLE_FAILPOINT": point}, check=False)
    assert died.returncode == -9
    kept = list(paths.releases(place.settings, SITE).iterdir())
    assert len(kept) == (1 if point == "release-renamed" else 0)
    place.releases.recover()
    place.releases.settle()
    assert not list(paths.staging(place.settings, SITE).iterdir())
    with archive.open("rb") as file:
        release = place.releases.import_release(SITE, 1, file.fileno())
    place.releases.verify(SITE, 1, release.digest)


def test_a_kill_while_files_come_out_leaves_nothing(place: Place) -> None:
    """Fault 4: killed at any moment of the unpacking itself."""
    archive = place.path / "archive.tar"
    archive.write_bytes(tar([(f"d{number % 50}/{number}", "f", bytes(2000)) for number in range(20_000)]))
    code = f"""
import os
from alveole.config import Paths, Settings, Users
from alveole.host.sandbox import Sandbox
from alveole.actuators.releases import Releases
settings = Settings(paths=Paths({str(place.settings.state)!r}, {str(place.settings.run)!r}),
                    users=Users(first_uid={place.settings.users.first_uid}))
releases = Releases(settings, Sandbox())
print("go", flush=True)
releases.import_release({SITE!r}, 1, os.open({str(archive)!r}, os.O_RDONLY))
"""
    for delay in (0.05, 0.2, 0.5):
        agent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert agent.stdout is not None
        agent.stdout.readline()
        time.sleep(delay)
        agent.kill()
        agent.wait()
        agent.stdout.close()
        # Its children die with it, within the time a signal takes.
        time.sleep(0.1)
        assert not list(paths.releases(place.settings, SITE).glob("*"))
        place.releases.recover()
        place.releases.settle()
        assert place.nothing_kept()


def test_a_release_is_given_to_another_site_byte_for_byte(place: Place) -> None:
    """Built once, the same bytes in every environment; with the owners of the other, and never a damaged one."""
    release = deliver(place, packed(CONTENT, "tar"))
    copy = CopyRelease(SITE, 1, release.digest, OTHER, 2)
    place.releases.copy(copy)
    place.releases.verify(OTHER, 2, release.digest)
    top = paths.release(place.settings, OTHER, release.digest)
    assert {path.lstat().st_uid for path in (top, *top.rglob("*"))} == {paths.site_uid(place.settings, 2)}
    assert (top / "latest").readlink() == Path("css/site.css") and os.access(top / "bin/tool", os.X_OK)
    # Fault 14: the source is damaged, and the other site has lost its own.
    place.releases.drop_release(OTHER, 2, release.digest)
    (tree(place, release) / "index.html").write_bytes(b"<h1>hellO</h1>")
    with pytest.raises(Refused, match="damaged"):
        place.releases.copy(copy)
    assert not list((paths.releases(place.settings, OTHER)).iterdir())
    assert not list(paths.staging(place.settings, OTHER).glob("[0-9a-f]*"))
    with pytest.raises(NotFound):
        place.releases.copy(CopyRelease(SITE, 1, f"sha256:{'1' * 64}", OTHER, 2))


def test_how_two_releases_differ(place: Place) -> None:
    old = deliver(place, packed(CONTENT, "tar"))
    changed = [(name, *rest) for name, *rest in CONTENT if name != "empty" and name != "latest"]
    changed[0] = ("index.html", "f", b"<h1>other</h1>")
    new = deliver(place, packed([*changed, ("new.txt", "f", b"")], "tar"))
    found = place.releases.compare(CompareReleases(SITE, 1, old.digest, new.digest))
    assert (found.added, found.changed, found.removed) == (1, 1, 1)
    assert found.names[0] == "~index.html" and found.names[1] == "-latest" and found.names[2] == "+new.txt"
    first = place.releases.compare(CompareReleases(SITE, 1, None, new.digest))
    assert (first.added, first.changed, first.removed) == (new.files, 0, 0)
    with pytest.raises(NotFound):
        place.releases.compare(CompareReleases(SITE, 1, f"sha256:{'1' * 64}", new.digest))


def test_a_site_goes_whole(place: Place) -> None:
    deliver(place, packed(CONTENT, "tar"))
    volume = place.volume()
    (volume / "file").write_text("x")
    os.chown(volume / "file", place.settings.uid_start(1) + 33, place.settings.uid_start(1) + 33)
    deliver(place, packed(CONTENT, "tar"), OTHER, 2)
    place.releases.remove_site(SITE, 1)
    assert not paths.site(place.settings, SITE).exists()
    place.releases.settle()
    assert [path.name for path in paths.sites(place.settings).iterdir()] == [OTHER]
    place.releases.remove_site(SITE, 1)


def test_what_a_site_takes_on_the_disk(place: Place) -> None:
    deliver(place, tar([("big", "f", os.urandom(1 << 20)), ("x", "f", b"")]))
    assert 1 << 20 <= place.releases.disk_bytes(SITE, 1) <= (1 << 20) + 64 * 1024
