"""A package repository in a directory, with packages made on the spot: updates without waiting for Debian."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import time
from pathlib import Path


class Repository:
    """``source`` is a file for ``bases.sources`` of the settings."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pool = path / "pool"
        self.pool.mkdir(parents=True)
        for each in (path, self.pool):
            each.chmod(0o755)
        self.source = path / "test.sources"
        self.source.write_text(f"Types: deb\nURIs: file:{self.pool}\nSuites: ./\nTrusted: yes\n")
        self.publish()

    def add(self, name: str, version: str, files: dict[str, str], depends: str = "") -> None:
        """A package whose files (path to text) can be run; published at once, an older version going."""
        for old in self.pool.glob(f"{name}_*.deb"):
            old.unlink()
        tree = self.path / "tree"
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: Test <test@example.org>\n"
            + (f"Depends: {depends}\n" if depends else "")
            + "Description: made by a test\n"
        )
        for place, text in files.items():
            path = tree / place.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755)
        deb = self.pool / f"{name}_{version}_all.deb"
        subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, deb], check=True, capture_output=True)
        shutil.rmtree(tree)
        self.publish()

    def publish(self) -> None:
        stanzas = []
        for deb in sorted(self.pool.glob("*.deb")):
            control = subprocess.run(["dpkg-deb", "-f", deb], check=True, capture_output=True, text=True).stdout
            data = deb.read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            stanzas.append(f"{control.rstrip()}\nFilename: ./{deb.name}\nSize: {len(data)}\nSHA256: {digest}\n")
        index = "\n".join(stanzas).encode()
        (self.pool / "Packages").write_bytes(index)
        now = time.strftime("%a, %d %b %Y %H:%M:%S UTC", time.gmtime())
        (self.pool / "Release").write_text(
            f"Origin: test\nDate: {now}\nSHA256:\n {hashlib.sha256(index).hexdigest()} {len(index)} Packages\n"
        )
