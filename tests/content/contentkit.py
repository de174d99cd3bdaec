"""What the tests of content share: a state directory of their own, archives made by hand, canaries."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from alveole.actuators.backups import Backups
from alveole.actuators.bases import Bases
from alveole.actuators.images import Images
from alveole.actuators.releases import Releases
from alveole.config import Content, Paths, Settings, Users
from alveole.host import paths, syscalls
from alveole.host.sandbox import Sandbox
from commonbase import have_common
from instancekit import until

SITE = "s" + "a" * 12
OTHER = "s" + "b" * 12
#: ``(name, type, value, attributes)``; types: f file, d directory, l link, h hard link, c device, p pipe.
Made = tuple[Any, ...]
TYPES = {
    "f": tarfile.REGTYPE,
    "d": tarfile.DIRTYPE,
    "l": tarfile.SYMTYPE,
    "h": tarfile.LNKTYPE,
    "c": tarfile.CHRTYPE,
    "p": tarfile.FIFOTYPE,
}


class Place:
    """A state directory of its own with all that works on content."""

    def __init__(self, **content: int) -> None:
        # Under /tmp and readable from its top, so that only our own modes keep others out.
        self.path = Path(tempfile.mkdtemp(prefix="alvc", dir="/tmp"))
        self.path.chmod(0o755)
        self.settings = Settings(
            paths=Paths(state=f"{self.path}/s", run=f"{self.path}/r"),
            users=Users(first_uid=0x5000_0000),
            content=Content(**{"reserve_bytes": 1024 * 1024, **content}),
        )
        self.settings.state.mkdir()
        self.settings.run.mkdir()
        self.canary = self.path / "canary"
        self.canary.write_text("canary")
        self.sandbox = Sandbox()
        self.releases = Releases(self.settings, self.sandbox)
        self.bases = Bases(self.settings, self.sandbox)
        self.images = Images(self.settings, self.sandbox, self.bases)
        self.backups = Backups(self.settings, self.sandbox, self.releases)

    def have_common(self) -> None:
        """The base that others lie over."""
        have_common(self.settings, self.bases)

    def close(self) -> None:
        self.sandbox.close()
        for point in syscalls.mount_points(self.path):
            with contextlib.suppress(OSError):
                syscalls.umount(point, syscalls.MNT_DETACH)

        def gone() -> bool:
            # What was dropped goes by itself a moment later, and may do so while we look.
            shutil.rmtree(self.path, ignore_errors=True)
            return not self.path.exists()

        until(gone, 60, f"{self.path} stays")

    def canary_intact(self) -> bool:
        return self.canary.read_text() == "canary" and self.canary.stat().st_uid == 0

    def nothing_kept(self, site: str = SITE) -> bool:
        return not [*paths.staging(self.settings, site).glob("*"), *paths.releases(self.settings, site).glob("*")]

    def volume(self, name: str = "data", site: str = SITE, number: int = 1, generation: int = 1) -> Path:
        path = paths.volume(paths.data_dir(self.settings, site, False), generation, name)
        path.mkdir(parents=True)
        os.chown(path, self.uid(number), self.uid(number))
        for parent in list(path.parents)[:3]:
            parent.chmod(0o711)
        return path

    def uid(self, number: int = 1) -> int:
        return paths.site_uid(self.settings, number)


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()
    try:
        yield made
    finally:
        made.close()


def tar(made: Iterable[Made], **options: Any) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", **options) as archive:
        for name, kind, value, *more in made:
            info = tarfile.TarInfo(name)
            info.type = TYPES[kind]
            info.mode = 0o755 if kind == "d" else 0o644
            if kind == "f":
                info.size = len(value)
            elif kind in "lh":
                info.linkname = value
            elif kind == "c":
                info.devmajor, info.devminor = 1, 3
            for key, attribute in more[0].items() if more else ():
                setattr(info, key, attribute)
            archive.addfile(info, io.BytesIO(value) if kind == "f" else None)
    return out.getvalue()


def zipped(made: Iterable[Made]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, kind, value, *more in made:
            info = zipfile.ZipInfo(name + "/" * (kind == "d"))
            info.create_system = 3
            mode = {"f": 0o100644, "d": 0o040755, "l": 0o120777, "c": 0o020644, "p": 0o010644}[kind]
            mode = mode & ~0o7777 | more[0]["mode"] if more else mode
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, value if kind == "f" else value.encode() if kind == "l" else b"")
    return out.getvalue()


def packed(made: Iterable[Made], format: str) -> bytes:
    made = list(made)
    if format == "zip":
        return zipped(made)
    plain = tar(made)
    return {
        "tar": lambda: plain,
        "tar.gz": lambda: gzip.compress(plain),
        "tar.zst": lambda: zstandard.ZstdCompressor(write_checksum=True).compress(plain),
    }[format]()


@contextlib.contextmanager
def opened(data: bytes) -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        yield file.fileno()


def oci(
    layers: Iterable[bytes],
    config: dict[str, Any] | None = None,
    *,
    architecture: str = "amd64",
    spoil: Any = None,
    extra: Iterable[tuple[str, bytes]] = (),
) -> bytes:
    """An OCI archive of ``layers`` (tars). ``spoil`` may change the dictionary of blobs before it is packed."""
    blobs: dict[str, bytes] = {}

    def put(data: bytes, kind: str) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        blobs[digest] = data
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest, "size": len(data)}

    about = {"architecture": architecture, "os": "linux", "config": config or {}}
    manifest = {
        "schemaVersion": 2,
        "config": put(json.dumps(about).encode(), "config.v1+json"),
        "layers": [put(layer, "layer.v1.tar") for layer in layers],
    }
    top = put(json.dumps(manifest).encode(), "manifest.v1+json")
    if spoil is not None:
        spoil(blobs)
    index = json.dumps({"schemaVersion": 2, "manifests": [top]}).encode()
    files = [("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'), ("index.json", index), *extra]
    files += [(f"blobs/sha256/{digest[7:]}", data) for digest, data in blobs.items()]
    return tar((name, "f", data) for name, data in files)
