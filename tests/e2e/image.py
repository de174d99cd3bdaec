"""An OCI image made with mmdebstrap that runs Apache; made once and kept."""

from __future__ import annotations

import gzip
import hashlib
import json
import secrets
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from instancekit import CACHE, one_at_a_time, run


def apache_image() -> tuple[Path, Path]:
    """The image as a directory in OCI layout and as an archive of it."""
    place = CACHE / "apache-image"
    file = CACHE / "apache-image.tar"
    with one_at_a_time("apache"):
        if not file.exists():
            fresh = CACHE / f".apache.{secrets.token_hex(4)}"
            fresh.mkdir(parents=True)
            try:
                _make(fresh)
                shutil.rmtree(place, ignore_errors=True)
                (fresh / "image").rename(place)
                run("tar", "-C", place, "-cf", fresh / "image.tar", ".")
                (fresh / "image.tar").rename(file)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
    return place, file


def _make(fresh: Path) -> None:
    root = fresh / "root.tar"
    run(
        *("mmdebstrap", "--variant=minbase", "--include=apache2", "--format=tar"),
        *("--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*"),
        *("--dpkgopt=path-exclude=/usr/share/locale/*", '--aptopt=Acquire::Languages "none"'),
        *("--customize-hook=echo ServerName localhost >> $1/etc/apache2/apache2.conf", "bookworm", root),
    )
    blobs = fresh / "image" / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(content: bytes) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"digest": f"sha256:{digest}", "size": len(content)}

    raw = root.read_bytes()
    layer = blob(gzip.compress(raw, 1, mtime=0))
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Cmd": ["/usr/sbin/apache2ctl", "-DFOREGROUND"],
            "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
            "ExposedPorts": {"80/tcp": {}},
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(raw).hexdigest()}"]},
        "history": [{"created_by": "mmdebstrap"}],
    }
    media = "application/vnd.oci.image"
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{media}.manifest.v1+json",
        "config": {"mediaType": f"{media}.config.v1+json", **blob(json.dumps(config).encode())},
        "layers": [{"mediaType": f"{media}.layer.v1.tar+gzip", **layer}],
    }
    made = blob(json.dumps(manifest).encode())
    index = {"schemaVersion": 2, "manifests": [{"mediaType": f"{media}.manifest.v1+json", **made}]}
    (fresh / "image" / "index.json").write_text(json.dumps(index))
    (fresh / "image" / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
