"""The base ``host``: a skeleton of links around the machine's own ``/usr``."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from alveole.host import layers

DATA = Path(__file__).parents[1] / "data"
STATIC_CONFIG = DATA / "static-nginx.conf"


def _alternatives() -> list[tuple[str, str]]:
    """The machine's choices among programs (update-alternatives(1)): names and what they lead to."""
    found = []
    with contextlib.suppress(FileNotFoundError), os.scandir("/etc/alternatives") as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_symlink() and (target := str(Path(entry.path).readlink())).startswith("/usr/"):
                found.append((entry.name, target))
    return found


def _skeleton() -> list[tuple[str, bytes]]:
    top = DATA / "skeleton"
    return [(str(path.relative_to(top)), path.read_bytes()) for path in sorted(top.rglob("*")) if path.is_file()]


def host_parts() -> list[object]:
    return [
        Path("/usr/sbin/nginx").exists(),
        hashlib.sha256(STATIC_CONFIG.read_bytes()).hexdigest(),
        *((name, hashlib.sha256(data).hexdigest()) for name, data in _skeleton()),
        *_alternatives(),
    ]


def make_host(root: Path) -> None:
    """The skeleton around ``/usr``: links, mount points, and of ``/etc`` what programs cannot do without."""
    for name in ("bin", "lib", "lib64", "sbin"):
        if Path("/usr", name).is_dir():
            (root / name).symlink_to(f"usr/{name}")
    places = ("usr", "home", "mnt", "opt", "root", "srv", "var/cache", "var/lib", "var/log", "var/tmp", "var/www")
    for name in (*layers.MOUNT_POINTS, *places, "etc/alternatives", "etc/ssl/certs"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("tmp", "var/tmp"):
        (root / name).chmod(0o1777)
    (root / "var/run").symlink_to("/run")
    (root / "var/lock").symlink_to("/run/lock")
    for name, data in _skeleton():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    (root / "etc/alveole/nginx.conf").write_bytes(STATIC_CONFIG.read_bytes())
    for name, target in _alternatives():
        (root / "etc/alternatives" / name).symlink_to(target)
    for path in Path("/etc/ssl/certs").glob("*"):
        copy = root / "etc/ssl/certs" / path.name
        if path.is_symlink():
            copy.symlink_to(path.readlink())
        elif path.is_file():
            copy.write_bytes(path.read_bytes())
    (root / "etc/ssl/cert.pem").symlink_to("certs/ca-certificates.crt")
    for name in ("etc/ssl/openssl.cnf", "etc/services", "etc/protocols", "etc/mime.types"):
        if Path("/", name).is_file():
            (root / name).write_bytes(Path("/", name).read_bytes())
    (root / "etc/localtime").symlink_to("/usr/share/zoneinfo/Etc/UTC")
