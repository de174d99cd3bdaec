"""Debian packages: those that are missing, no more, and no service of theirs is started."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from kit import Instance, Stop, has_systemd, run, say, warn

#: package: what Alvéole does with it.
NEEDED = {
    "ca-certificates": "trusts the outside when dependencies are fetched",
    "crun": "runs containers",
    "curl": "checks the demo site",
    "e2fsprogs": "makes the disks of sites",
    "git": "brings modules from elsewhere, and takes what is pushed to sites",
    "goaccess": "counts who visits a site",
    "golang-github-containers-common": "the list of system calls a container may make",
    "gpgv": "checks who signed versions with OpenPGP",
    "iproute2": "shows the network",
    "libnginx-mod-http-lua": "lets the proxy find a site by its name",
    "mmdebstrap": "builds root file systems",
    "mount": "mounts the disks of sites",
    "nftables": "keeps sites apart",
    "nginx": "the proxy, and the server of static sites",
    "openssh-client": "checks who signed modules from elsewhere; scp of sites",
    "openssh-sftp-server": "files of sites by SFTP",
    "passwd": "makes users",
    "procps": "shows processes",
    "publicsuffix": "which domains anybody registers, for the budgets of certificates",
    "python3": "runs Alvéole",
    "python3-venv": "keeps its libraries apart from the machine's",
    "restic": "backups",
    "rrdtool": "keeps the figures of sites",
    "rsync": "files of sites by rsync",
    "s6": "logs, and sites of several processes",
    "skopeo": "reads images",
    "tini": "first process of a container",
    "util-linux": "namespaces",
    "zstd": "archives",
}
_POLICY = Path("/usr/sbin/policy-rc.d")
_SAVED = Path("/usr/sbin/policy-rc.d.before-alveole")
_GUARD = "#!/bin/sh\n# Written by Alvéole's quickstart while it installs packages: none starts a service.\nexit 101\n"
#: Services that come with packages and would take Alvéole's ports at the next start of the machine.
_SERVICES = {"nginx": "nginx"}
#: Debian's nginx writes this page when it is installed and forgets it when it is removed.
_PAGE = Path("/var/www/html/index.nginx-debian.html")


def installed() -> set[str]:
    listing = run(["dpkg-query", "-W", "-f", "${db:Status-Status} ${Package}\n"]).stdout
    return {name for status, _, name in (line.partition(" ") for line in listing.splitlines()) if status == "installed"}


def install(instance: Instance) -> None:
    """Install what is missing; the names of all that came in go into the record."""
    _settle(instance)
    handed_on = os.environ.get("ALVEOLE_INSTALLED", "").split()
    if handed_on:
        instance.record.add("packages", *handed_on)
    before = installed()
    missing = sorted(NEEDED.keys() - before)
    if not missing:
        say(f"all {len(NEEDED)} Debian packages are there")
        return
    for name in missing:
        say(f"{name}: {NEEDED[name]}")
    # The list of before is written down first: whatever happens next, the difference can still be told.
    instance.record.set(packages_before=sorted(before))
    if _PAGE.exists():
        instance.record.set(page_before=True)
    fetch(missing)
    _settle(instance)
    if left := NEEDED.keys() - installed():
        raise Stop(f"apt did not install {', '.join(sorted(left))}", status=5)


def fetch(names: list[str]) -> None:
    """Install packages without starting any service of theirs."""
    with _no_service_starts():
        if run(["apt-get", "update", "-q"], check=False).returncode != 0:
            warn("apt-get update failed; trying with the package lists that are there")
        apt("install", "--no-install-recommends", *names)


def apt(verb: str, *words: str) -> None:
    run(
        ["apt-get", "-y", "-q", "-o", "DPkg::Lock::Timeout=120", "-o", "Dpkg::Use-Pty=0", verb, *words],
        env={"APT_LISTCHANGES_FRONTEND": "none", "NEEDRESTART_MODE": "l"},
        timeout=1800,
    )


def _settle(instance: Instance) -> None:
    """Finish what an interrupted run may have left: the guard, half-configured packages, the list of new ones."""
    _lift_guard()
    before = instance.record.get("packages_before")
    if before is None:
        return
    if run(["dpkg", "--audit"], check=False).stdout.strip():
        with _no_service_starts():
            run(["dpkg", "--configure", "-a"])
    new = installed() - set(before)
    instance.record.add("packages", *new)
    for package, service in _SERVICES.items():
        if package in new:
            _disable(service)
    instance.record.set(packages_before=None)


def _disable(service: str) -> None:
    say(f"Debian's own {service} service stays off: Alvéole starts the program itself")
    if has_systemd():
        run(["systemctl", "disable", "--now", f"{service}.service"], check=False)
    else:
        run(["update-rc.d", service, "disable"], check=False)


@contextlib.contextmanager
def _no_service_starts() -> Iterator[None]:
    """Debian's invoke-rc.d asks /usr/sbin/policy-rc.d; 101 means no (its manual page)."""
    _lift_guard()
    if _POLICY.exists():
        _POLICY.replace(_SAVED)
    try:
        _POLICY.write_text(_GUARD, encoding="utf-8")
        _POLICY.chmod(stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
        yield
    finally:
        _lift_guard()


def _lift_guard() -> None:
    with contextlib.suppress(FileNotFoundError):
        if _POLICY.read_text(encoding="utf-8", errors="replace") == _GUARD:
            _POLICY.unlink()
    if _SAVED.exists() and not _POLICY.exists():
        _SAVED.replace(_POLICY)


def remove(instance: Instance) -> None:
    """Take out the packages that came in with Alvéole and that nothing else has come to need since."""
    _settle(instance)
    ours = set(instance.record.get("packages", [])) & installed()
    # A package that something else needs by now stays, and so does what it needs itself.
    while ours:
        plan = run(["apt-get", "-s", "purge", *sorted(ours)], check=False).stdout
        goes = {line.split()[1].partition(":")[0] for line in plan.splitlines() if line.startswith(("Purg ", "Remv "))}
        foreign = goes - ours
        if not foreign:
            break
        kept = _needed_by(foreign, ours)
        if not kept:
            warn(f"these packages stay, because others need them: {', '.join(sorted(ours))}")
            return
        say(f"kept, for others need them: {', '.join(sorted(kept))}")
        ours -= kept
    if not ours:
        return
    say(f"removing {len(ours)} Debian packages that came with Alvéole")
    with _no_service_starts():
        apt("purge", *sorted(ours))
    if "nginx" in ours and not instance.record.get("page_before"):
        _PAGE.unlink(missing_ok=True)
        for directory in _PAGE.parents[:2]:
            with contextlib.suppress(OSError):
                directory.rmdir()


def _needed_by(foreign: set[str], ours: set[str]) -> set[str]:
    """Which of ``ours`` the packages in ``foreign`` need, directly or through others."""
    argv = ["apt-cache", "depends", "--recurse", "--installed", "--important", *sorted(foreign)]
    listing = run(argv, check=False).stdout
    return {line.split()[-1].partition(":")[0] for line in listing.splitlines() if line.strip()} & ours
