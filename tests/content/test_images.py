"""OCI images as bases: what is taken over, and what a hostile one cannot do."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import time
from pathlib import Path

import pytest
import zstandard
from contentkit import Place, oci, opened, tar

from alveole.actuators.bases import Bases
from alveole.agent.protocol import Image
from alveole.errors import InvalidInput, NoRoom
from alveole.host import paths
from alveole.host.bases import read_record
from alveole.model.resource import PLATFORM, Action, BaseSpec, Kind, ResourceId, Step, stamp
from alveole.model.site import BaseKind

pytestmark = pytest.mark.root
ETC = [("etc", "d", b""), ("etc/passwd", "f", b"root:x:0:0::/root:/bin/sh\napp:x:33:44::/:/bin/sh\n")]


def bring(place: Place, data: bytes) -> Image:
    with opened(data) as fd:
        return place.images.import_image(fd)


def root(place: Place, image: Image) -> Path:
    return paths.base_root(place.settings, image.base.key)


def refused(place: Place, data: bytes, word: str) -> None:
    with opened(data) as fd, pytest.raises(InvalidInput) as caught:
        place.images.import_image(fd)
    assert word in str(caught.value), str(caught.value)
    assert not list(paths.bases(place.settings).iterdir())
    assert place.canary_intact()


def test_what_an_image_says_becomes_a_base(place: Place) -> None:
    lower = tar(
        [
            *ETC,
            ("lib", "l", "usr/lib"),
            ("usr/lib/a", "f", b"a"),
            ("data/old", "f", b"old"),
            ("data/keep", "f", b"keep", {"uid": 33, "gid": 44, "mode": 0o640}),
            ("gone/x", "f", b"x"),
            ("file-then-directory", "f", b"x"),
        ]
    )
    upper = tar(
        [
            ("lib/b", "f", b"b"),
            ("data/.wh.old", "f", b""),
            ("gone", "d", b""),
            ("gone/new", "f", b"new"),
            ("gone/.wh..wh..opq", "f", b""),
            ("hard", "h", "data/keep"),
            ("file-then-directory/x", "f", b"x"),
            ("su", "f", b"su", {"mode": 0o6755}),
            ("null", "c", b""),
        ]
    )
    config = {
        "Entrypoint": ["/bin/app"],
        "Cmd": ["--serve"],
        "Env": ["A=b=c", "PORT=1", "bad name=1", "LD_PRELOAD=/x"],
        "ExposedPorts": {"8000/tcp": {}, "53/udp": {}, "x": {}},
        "Volumes": {"/data": {}, "../bad": {}},
        "User": "app",
        "WorkingDir": "/srv",
    }
    image = bring(place, oci([gzip.compress(lower), zstandard.ZstdCompressor().compress(upper)], config))
    assert image.base.kind is BaseKind.OCI and image.base.image is not None
    assert image.base.key == f"oci-{image.base.image[7:23]}"
    assert (image.argv, image.env, image.ports) == (("/bin/app", "--serve"), {"A": "b=c"}, (8000,))
    assert (image.volumes, image.user) == (("/data",), "33:44")
    record = read_record(place.settings, image.base.key)
    assert record.image == image and record.cwd == "/srv" and record.files > 10
    top = root(place, image)
    assert (top / "usr/lib/b").read_bytes() == b"b"
    assert not (top / "data/old").exists() and sorted(p.name for p in (top / "gone").iterdir()) == ["new"]
    info = (top / "hard").stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o7777, info.st_nlink) == (33, 44, 0o640, 2)
    assert (top / "su").stat().st_mode & 0o7777 == 0o755
    assert not (top / "null").exists()
    assert top.stat().st_uid == 0 and paths.bases(place.settings).stat().st_mode & 0o777 == 0o700
    assert "site:x:1000:1000:" in (top / "etc/passwd").read_text()
    assert (top / "etc/alveole/nginx.conf").exists()
    for name in ("dev", "proc", "sys", "tmp", "run/alveole", "site/current"):
        assert (top / name).is_dir() and not (top / name).is_symlink()


def test_the_same_image_is_taken_once_and_seen(place: Place) -> None:
    data = oci([tar(ETC)], {"User": "7"})
    image = bring(place, data)
    inode = root(place, image).stat().st_ino
    assert bring(place, data) == image and root(place, image).stat().st_ino == inode
    assert image.user == "7:0"
    (seen,) = place.bases.observe().found
    assert seen.ready and seen.digest == stamp(BaseSpec(image.base))
    step = Step(ResourceId(Kind.BASE, PLATFORM, image.base.key), Action.CREATE, seen.digest, BaseSpec(image.base))
    assert place.bases.apply(step).done
    place.bases.drop(image.base.key)
    outcome = place.bases.apply(step)
    assert not outcome.done and not outcome.temporary and "import it again" in outcome.message


HOSTILE_LAYERS = {
    "dots": ([("../../../../canary", "f", b"bad")], "leads out"),
    "hard-link-out": ([("x", "h", "../../../../canary")], "leads out"),
    "twice": ([("rootfs", "d", b""), ("rootfs/x", "f", b"1"), ("rootfs/x", "l", "/")], "twice"),
    "foreign-id": ([("x", "f", b"", {"uid": 70_000})], "70000"),
    "etc-is-a-link": ([("etc", "l", "/tmp")], "/etc is a link"),
    "whiteout-of-dots": ([("a/.wh...", "f", b"")], "hides no name"),
    "hard-link-to-nothing": ([("x", "h", "nowhere")], "No such file"),
}


@pytest.mark.parametrize("name", HOSTILE_LAYERS)
def test_a_hostile_layer_is_refused(place: Place, name: str) -> None:
    """Threat 9: duplicates and links in an image; nothing of it is kept."""
    made, word = HOSTILE_LAYERS[name]
    refused(place, oci([tar(ETC) if name != "etc-is-a-link" else tar([]), tar(made)]), word)


def test_links_of_an_image_lead_nowhere_but_into_it(place: Place) -> None:
    """Threats 1 and 9: an image whose /dev and whose other directories are links to the host."""
    out = "../" * 30 + str(place.path)[1:]
    first = tar(
        [
            *ETC,
            ("dev", "l", str(place.path)),
            ("proc", "l", out),
            ("run", "l", "/etc"),
            ("evil", "l", out),
            ("evil2", "l", str(place.path)),
            ("etc/hosts", "l", str(place.canary)),
        ]
    )
    second = tar(
        [
            ("evil/canary", "f", b"bad"),
            ("evil2/canary", "f", b"bad"),
            ("dev/planted", "f", b"bad"),
            ("evil/.wh.canary", "f", b""),
            ("evil2/.wh..wh..opq", "f", b""),
            ("hard", "h", "evil/canary"),
        ]
    )
    try:
        image = bring(place, oci([first, second]))
    except InvalidInput:
        image = bring(place, oci([first]))
    assert place.canary_intact() and not (place.path / "planted").exists()
    top = root(place, image)
    for name in ("dev", "proc", "run"):
        assert (top / name).is_dir() and not (top / name).is_symlink() and not list((top / name).glob("p*"))
    assert (top / "etc/hosts").is_file() and not (top / "etc/hosts").is_symlink()


def test_ownership_of_the_host_is_out_of_reach(place: Place) -> None:
    """Threat 9: the child that unpacks an image is not root outside of its tree."""
    image = bring(place, oci([tar([*ETC, ("x", "f", b"x", {"mode": 0o4777})])]))
    found = subprocess.run(
        ["find", str(root(place, image)), "(", "-perm", "/6000", "-a", "-type", "f", ")", "-o", "-type", "b,c"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == ""


def test_flipped_bytes_are_named(place: Place) -> None:
    """Fault 14: a layer whose bytes differ from its digest is never used."""
    good = oci([gzip.compress(tar([*ETC, ("big", "f", os.urandom(20_000))]))])
    at = good.find(b"\x1f\x8b\x08") + 5000
    refused(place, good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :], "is damaged")


def test_what_is_missing_or_lies_is_named(place: Place) -> None:
    layer = gzip.compress(tar(ETC))
    digest = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    refused(place, oci([layer], spoil=lambda blobs: blobs.pop(digest)), "is missing")
    refused(place, oci([layer], extra=[("index.json", b"{}")]), "'index.json' twice")
    refused(place, tar([("oci-layout", "f", b"{}")]), "no index.json")
    refused(place, gzip.compress(oci([layer])), "plain tar")
    refused(place, oci([layer], architecture="s390x"), "s390x")
    refused(place, oci([layer], {"User": "nobody-here"}), "no user of the image")
    refused(place, oci([layer], {"Cmd": "a string"}), "configuration")
    refused(place, oci([]), "no layers")
    refused(place, tar([("index.json", "f", b"[" * 100_000)]), "not a JSON object")
    refused(place, tar([("index.json", "f", b"{}"), ("blobs", "l", "/")]), "not a plain file")
    refused(place, oci([layer[:-20]]), "is cut")


def test_an_index_of_platforms_gives_this_machines(place: Place) -> None:
    data = oci([tar(ETC)])
    manifest = json.loads(_member(data, "index.json"))["manifests"][0]
    other = {"digest": "sha256:" + "0" * 64, "size": 3, "platform": {"os": "linux", "architecture": "s390x"}}
    unknown = {"digest": "sha256:" + "1" * 64, "size": 3, "platform": {"os": "unknown", "architecture": "unknown"}}
    here = {**manifest, "platform": {"os": "linux", "architecture": "amd64"}}
    inner = json.dumps({"schemaVersion": 2, "manifests": [other, here, unknown]}).encode()
    digest = hashlib.sha256(inner).hexdigest()
    index = {
        "schemaVersion": 2,
        "manifests": [
            {
                "mediaType": "application/vnd.oci.image.index.v1+json",
                "digest": f"sha256:{digest}",
                "size": len(inner),
            }
        ],
    }
    blobs = _blobs(data) | {f"blobs/sha256/{digest}": inner}
    made = tar([("index.json", "f", json.dumps(index).encode()), *((n, "f", d) for n, d in blobs.items())])
    assert bring(place, made).base.image == manifest["digest"]
    index["manifests"] = [manifest, {**other, "platform": here["platform"]}]
    place.bases.drop(f"oci-{manifest['digest'][7:23]}")
    made = tar([("index.json", "f", json.dumps(index).encode()), *((n, "f", d) for n, d in blobs.items())])
    refused(place, made, "holds 2 images")


def _blobs(data: bytes) -> dict[str, bytes]:
    import io
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {
            member.name: file.read()
            for member in archive
            if member.name.startswith("blobs") and (file := archive.extractfile(member))
        }


def _member(data: bytes, name: str) -> bytes:
    import io
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        file = archive.extractfile(name)
        assert file is not None
        return file.read()


def test_ceilings_of_an_image(place: Place) -> None:
    small = Place(bytes=100_000, files=50, ratio=20)
    try:
        refused(small, oci([tar([*ETC, ("x", "f", bytes(200_000))])]), "larger than")
        refused(small, oci([tar([*ETC, *((str(n), "f", b"") for n in range(60))])]), "more than 50 files")
        bomb = tar([*ETC, ("x", "f", b"")], format=0) + b""
        info = gzip.compress(bomb + bytes(64 << 20))
        refused(small, oci([info]), "20 times")
    finally:
        small.close()
    full = Place(reserve_bytes=1 << 60)
    try:
        with pytest.raises(NoRoom):
            bring(full, oci([tar(ETC)]))
    finally:
        full.close()


def test_what_a_death_left_goes(place: Place) -> None:
    """Faults 4 and 5."""
    with place.bases.staging("x") as staging:
        (staging / "root" / "big").write_bytes(bytes(1000))
        kept = staging.with_name(".new.left")
        staging.rename(kept)
    assert place.bases.observe().found == ()
    Bases(place.settings, place.sandbox).recover()
    assert not list(paths.bases(place.settings).iterdir())


@pytest.mark.slow
def test_an_image_of_skopeo(place: Place) -> None:
    """The layout that ``skopeo copy dir… oci:`` writes, made of a real root by hand and copied by skopeo."""
    files = [*ETC, ("bin/busy", "f", Path("/bin/true").read_bytes(), {"mode": 0o755})]
    source = place.path / "source.tar"
    source.write_bytes(oci([gzip.compress(tar(files))], {"Cmd": ["/bin/busy"]}))
    target = place.path / "copied.tar"
    began = time.monotonic()
    subprocess.run(
        ["skopeo", "--insecure-policy", "copy", f"oci-archive:{source}", f"oci-archive:{target}"],
        check=True,
        capture_output=True,
    )
    image = bring(place, target.read_bytes())
    assert image.argv == ("/bin/busy",) and time.monotonic() - began < 60
    assert (root(place, image) / "bin/busy").stat().st_mode & 0o111
