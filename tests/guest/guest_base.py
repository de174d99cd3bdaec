"""A disk for the guest with what upgrading a base needs there, where no mirror can be reached.

``base/`` holds the common Debian base as this machine has made it: unpacking Debian once more on a processor in
software would take a quarter of an hour and say nothing about upgrades. ``apt/debian`` is a signed archive that has
no package, which the guest takes for its Debian's; ``apt/1`` and ``apt/2`` hold one package of the test's own in two
versions.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from alveole.actuators.bases import Bases
from alveole.config import Paths, Settings
from alveole.host import paths
from alveole.host.sandbox import Sandbox
from aptrepo import Repository
from commonbase import have_common

LABEL = "bases"
PACKAGE = "shop-test"
#: Where the guest keeps the archives; tests of what is left look past it.
PLACE = "/var/tmp/apt"
_CONFIG = """daemon off;
pid /tmp/pid;
error_log stderr;
events {}
http {
  access_log off;
  client_body_temp_path /tmp/1; proxy_temp_path /tmp/2; fastcgi_temp_path /tmp/3; uwsgi_temp_path /tmp/4;
  scgi_temp_path /tmp/5;
  server { listen 8000; location / { return 200 "shop %s\\n"; } }
}
"""
_RUN = "#!/bin/sh\nexec /usr/sbin/nginx -c /usr/share/shop-test/nginx.conf -e stderr\n"
#: The second version does not suit every site: that is what a trial is for.
_PICKY = _RUN.replace("exec", '[ "$SHOP" != two ] || { echo out of order >&2; exit 3; }\nexec')


def base_disk(place: Path) -> None:
    """The disk, as an ext4 image at ``place``. Needs root."""
    with tempfile.TemporaryDirectory(prefix="alvbase", dir="/var/tmp") as work:
        tree = Path(work, "tree")
        (tree / "apt").mkdir(parents=True)
        _base(Path(work, "state"), tree / "base")
        _debian(Path(work), tree / "apt")
        for version, run in (("1", _RUN), ("2", _PICKY)):
            files = {"/usr/bin/shop-test": run, "/usr/share/shop-test/nginx.conf": _CONFIG % version}
            Repository(tree / "apt" / version).add(PACKAGE, version, files)
        _run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(tree), "-L", LABEL, str(place), "512M"])


def _base(state: Path, target: Path) -> None:
    settings = Settings(paths=Paths(state=str(state), run=str(state)))
    state.mkdir()
    with_sandbox = Sandbox()
    try:
        have_common(settings, Bases(settings, with_sandbox))
    finally:
        with_sandbox.close()
    paths.bases(settings).rename(target)


def _debian(work: Path, apt: Path) -> None:
    """An archive of Debian's suite without packages, its key beside it."""
    suite = apt / "debian/dists/bookworm"
    index = suite / "main/binary-amd64/Packages"
    index.parent.mkdir(parents=True)
    index.touch()
    now = time.strftime("%a, %d %b %Y %H:%M:%S UTC", time.gmtime())
    digest = hashlib.sha256(b"").hexdigest()
    release = work / "Release"
    release.write_text(
        f"Origin: test\nSuite: stable\nCodename: bookworm\nDate: {now}\nArchitectures: amd64\nComponents: main\n"
        f"SHA256:\n {digest} 0 main/binary-amd64/Packages\n"
    )
    home = work / "gnupg"
    home.mkdir(mode=0o700)
    environment = {**os.environ, "GNUPGHOME": str(home)}
    gpg = ["gpg", "--batch", "--yes", "--quiet", "--passphrase", "", "--pinentry-mode", "loopback"]
    try:
        _run([*gpg, "--quick-gen-key", "archive@test.invalid", "ed25519", "sign", "never"], environment)
        _run([*gpg, "--output", str(suite / "InRelease"), "--clearsign", str(release)], environment)
        _run([*gpg, "--output", str(apt / "key.gpg"), "--export", "archive@test.invalid"], environment)
    finally:
        for words in (["--kill", "all"], ["--remove-socketdir"]):
            subprocess.run(["gpgconf", *words], env=environment, check=False)
    shutil.rmtree(home)


def _run(argv: list[str], environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, f"{argv[0]} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-2000:]}"
