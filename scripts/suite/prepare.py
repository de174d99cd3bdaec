"""What the tests need of the machine, and the virtual environment they run in."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts/installer"))

import packages  # noqa: E402  lies beside
from kit import run  # noqa: E402  likewise

VENV = ROOT / ".venv"
#: package: which tests need it.
_TEST_PACKAGES = {
    "apache2": "the configuration exported for Apache, tried against the real server",
    "bind9": "zones: what proves a domain, and a server of names that is set up and written to",
    "bind9-dnsutils": "asks name servers as anybody does (dig)",
    "chromium": "the pages in a real browser",
    "docker-registry": "images that are fetched by name",
    "git": "the files of the checkout",
    "gpg": "makes the keys and signatures that gpgv checks",
    "gpg-agent": "holds the keys for gpg",
    "gpgconf": "ends that agent",
    "knot": "another name server that is written to, and a secondary that zones are transferred to",
    "lftp": "ten thousand files by SFTP",
    "ldap-utils": "reads back LDIF",
    "mariadb-client-core": "reads back SQL",
    "mariadb-server-core": "reads back SQL and option files",
    "openssh-server": "a machine that is driven over SSH",
    "npm": "a real OpenID provider that people sign in with",
    "openssl": "TLS from the outside",
    "pebble": "an authority that issues certificates",
    "php8.2-cli": "reads back PHP and php.ini",
    "qemu-system-x86": "the guest",
    "rsyslog": "a server of syslog that lines are sent to and come from",
    "rsyslog-openssl": "the same over TLS",
    "shellcheck": "shell scripts",
    "slapd": "a school directory that people sign in with",
    "sshpass": "passwords for the SSH door",
    "strace": "which system calls are made",
    "uidmap": "building root file systems",
    "wrk": "requests under load",
}


def machine() -> None:
    """Install what is missing through apt; needs root only for that."""
    wanted = packages.NEEDED.keys() | _TEST_PACKAGES.keys()
    if shutil.which("npm"):
        # Node.js of another origin brings it along, and Debian's package cannot be there beside it.
        wanted -= {"npm"}
    missing = sorted(wanted - packages.installed())
    if not missing:
        return
    if os.geteuid() != 0:
        print(f"  without root these stay absent: {', '.join(missing)}", flush=True)
        return
    print(f"  installing {', '.join(missing)}", flush=True)
    packages.fetch(missing)


def environment() -> None:
    """Make ``.venv`` what requirements-dev.txt says, with the package itself editable in it."""
    wanted = hashlib.sha256((ROOT / "requirements-dev.txt").read_bytes() + (ROOT / "pyproject.toml").read_bytes())
    stamp = VENV / "installed.stamp"
    if stamp.exists() and stamp.read_text(encoding="ascii") == f"{wanted.hexdigest()} {ROOT}":
        return
    print(f"  a virtual environment in {VENV} from requirements-dev.txt", flush=True)
    shutil.rmtree(VENV, ignore_errors=True)
    run([sys.executable, "-m", "venv", VENV])
    pip = [str(VENV / "bin/python"), "-m", "pip", "install", "--quiet"]
    run([*pip, "--require-hashes", "--only-binary", ":all:", "-r", ROOT / "requirements-dev.txt"])
    run([*pip, "--no-deps", "--no-index", "--no-build-isolation", "--editable", ROOT])
    stamp.write_text(f"{wanted.hexdigest()} {ROOT}", encoding="ascii")
