"""``--undo``: take out everything an instance made, whether it runs, half runs, or never got that far."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import nameserver
import packages
import services
from kit import DEFAULT_CONFIG, LINK, Instance, run, say

#: What the product makes in its state directory; anything else there is somebody's own.
_STATE = ("control", "sites", "bases", "logs", "ca", "certs", "backups", "secrets", "edge", "program")
#: Programs that the agent starts with our paths in their arguments. Anybody may have such a path in an
#: editor or a pager, and those are not ended.
_PROGRAMS = frozenset({"nginx", "s6-log", "crun", "runc", "restic", "mmdebstrap", "skopeo", "tini", "cat"})


def undo(instance: Instance, keep_packages: bool) -> list[str]:
    """Remove it all; gives what could not be removed."""
    services.stop(instance)
    nameserver.undo(instance)
    _end_processes(instance)
    _unmount(instance)
    _network(instance)
    _cgroups(instance)
    _files(instance)
    _shared(instance, keep_packages)
    instance.record.forget()
    return list(_left(instance))


def _end_processes(instance: Instance) -> None:
    for _attempt in range(5):
        pids = _processes(instance)
        if not pids:
            return
        say(f"ending {len(pids)} processes of sites and of the proxy")
        services.end(pids, patience=10)
        time.sleep(0.1)


def _processes(instance: Instance) -> list[int]:
    """Processes in our cgroups, or that were started with a path below our directories."""
    parent = instance.setting("cgroup", "parent")
    units = "|".join(re.escape(instance.unit(role)) for role in services.ROLES)
    group = re.compile(
        rf"^\d+:[^:]*:(?:/|/.*/(?:{units})/){re.escape(parent)}(?:/|$)|/(?:{units})(?:/|$)", re.MULTILINE
    )
    data = [os.fsencode(place) + b"/" for place in (instance.run, instance.state)]
    program = os.fsencode(instance.prefix) + b"/venv"
    mine = set(_ancestors(os.getpid()))
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) in mine:
            continue
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes()
            if not words:
                continue  # a kernel thread
            name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
            if (
                group.search((process / "cgroup").read_text(encoding="utf-8", errors="replace"))
                or words.startswith(program)
                or (name in _PROGRAMS and any(place in words for place in data))
            ):
                found.append(int(process.name))
    return sorted(found)


def _ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        yield pid
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return
        pid = int(stat.rpartition(")")[2].split()[1])
    yield 1


def _mounts(instance: Instance) -> list[str]:
    """Our mount points, the last made first (proc(5), mountinfo)."""
    found = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
            place = re.sub(r"\\([0-7]{3})", lambda digits: chr(int(digits[1], 8)), line.split()[4])
            if any(place == str(top) or place.startswith(f"{top}/") for top in (instance.run, instance.state)):
                found.append(place)
    return found[::-1]


def _unmount(instance: Instance) -> None:
    mounts = _mounts(instance)
    # A state directory that was a file system of its own before us stays mounted.
    mounts = [place for place in mounts if place != str(instance.state)]
    if mounts:
        say(f"unmounting {len(mounts)} file systems")
    for place in mounts:
        run(["umount", "--lazy", place], check=False)
    for loop in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if loop.read_text(encoding="utf-8").startswith(f"{instance.state}/"):
                run(["losetup", "--detach", f"/dev/{loop.parent.parent.name}"], check=False)


def _interfaces(instance: Instance) -> list[str]:
    bridge = instance.setting("network", "bridge")
    ours = re.compile(rf"^{re.escape(instance.setting('network', 'interface_prefix'))}[0-9a-f]+[ab]\Z")
    with contextlib.suppress(FileNotFoundError):
        names = [entry.name for entry in Path("/sys/class/net").iterdir()]
        return sorted(name for name in names if name == bridge or ours.match(name))
    return []


def _tables(instance: Instance) -> list[tuple[str, str]]:
    table = instance.setting("network", "table")
    listing = run(["nft", "list", "tables"], check=False).stdout
    words = [line.split() for line in listing.splitlines()]
    return [(line[1], line[2]) for line in words if len(line) == 3 and line[2] == table]


def _network(instance: Instance) -> None:
    interfaces = _interfaces(instance)
    if interfaces:
        say(f"removing {len(interfaces)} network interfaces")
    for name in interfaces:
        run(["ip", "link", "delete", name], check=False)
    for family, name in _tables(instance):
        say(f"removing the nftables table {family} {name}")
        run(["nft", "delete", "table", family, name], check=False)
    for key in ("ipv4", "ipv6"):
        # They outlive the bridge on purpose, so that nothing meant for a site leaves by another way.
        network = str(instance.setting("network", key))
        run(["ip", "route", "delete", "unreachable", network, "proto", "161"], check=False)


def _cgroup_dirs(instance: Instance) -> list[Path]:
    parent = instance.setting("cgroup", "parent")
    tops = [Path("/sys/fs/cgroup", parent), *Path("/sys/fs/cgroup").glob(f"*/{parent}")]
    return [top for top in tops if top.is_dir() and not top.is_symlink()]


def _cgroups(instance: Instance) -> None:
    for top in _cgroup_dirs(instance):
        for _attempt in range(20):
            for directory in sorted((d for d in top.rglob("*") if d.is_dir()), reverse=True):
                with contextlib.suppress(OSError):
                    directory.rmdir()
            try:
                top.rmdir()
                break
            except OSError:
                time.sleep(0.1)


def _files(instance: Instance) -> None:
    say(f"removing {instance.run} and {instance.state}")
    _remove_tree(instance.run)
    existed = set(instance.record.get("existed", []))
    if str(instance.state) in existed:
        for name in _STATE:
            _remove_tree(instance.state / name)
    else:
        _remove_tree(instance.state)
    if instance.default:
        _remove_tree(instance.log_file.parent)
    for name in ("venvs",):
        _remove_tree(instance.prefix / name)
    for path in (instance.venv, instance.pid_file, instance.log_file):
        path.unlink(missing_ok=True)
    _remove_empty(instance.prefix, existed)
    for name in instance.record.get("files", []):
        say(f"removing {name}")
        Path(name).unlink(missing_ok=True)
    if instance.record.get("link") and LINK.is_symlink():
        say(f"removing {LINK}")
        LINK.unlink()
    if instance.record.get("config"):
        say(f"removing {instance.config}")
        instance.config.unlink(missing_ok=True)
        if instance.config == DEFAULT_CONFIG:
            _remove_empty(instance.config.parent, existed)


def _remove_tree(place: Path) -> None:
    if place.is_symlink():
        place.unlink()
    elif place.exists():
        shutil.rmtree(place, ignore_errors=True)


def _remove_empty(place: Path, existed: set[str]) -> None:
    if str(place) not in existed:
        with contextlib.suppress(OSError):
            place.rmdir()


def _shared(instance: Instance, keep_packages: bool) -> None:
    """Users and packages: the last instance takes them out; before that they are handed on."""
    others = instance.record.others()
    checkout = instance.record.get("checkout")
    if checkout and not any(other.get("checkout") == checkout for other in others):
        say(f"removing {checkout}, which another machine has brought")
        _remove_tree(Path(checkout))
    for key in ("users", "packages"):
        values = instance.record.get(key, [])
        if values and others:
            say(f"another instance is installed: the {key} stay")
            others[0].add(key, *values)
    if others:
        return
    for name in instance.record.get("users", []):
        with contextlib.suppress(KeyError):
            pwd.getpwnam(name)
            say(f"removing the user {name}")
            run(["userdel", name], check=False)
    if keep_packages:
        say("Debian packages stay")
    else:
        packages.remove(instance)


def _left(instance: Instance) -> Iterator[str]:
    for pid in _processes(instance):
        yield f"process {pid}"
    yield from (f"mount {place}" for place in _mounts(instance) if place != str(instance.state))
    yield from (f"interface {name}" for name in _interfaces(instance))
    if shutil.which("nft"):
        yield from (f"nftables table {family} {name}" for family, name in _tables(instance))
    yield from (f"cgroup {place}" for place in _cgroup_dirs(instance))
    yield from nameserver.left(instance)
    existed = set(instance.record.get("existed", []))
    for place in (instance.run, instance.state, instance.prefix):
        if place.exists() and str(place) not in existed:
            yield f"directory {place}"


def describe(instance: Instance, keep_packages: bool) -> str:
    """What is about to go, for a person to agree to."""
    goes = ["all sites with their content and volumes", str(instance.state), str(instance.run), str(instance.prefix)]
    goes += [str(place) for place in nameserver.zone_files(instance)]
    users = instance.record.get("users", [])
    if users and not instance.record.others():
        goes.append("users " + ", ".join(users))
    count = len(instance.record.get("packages", []))
    if count and not keep_packages and not instance.record.others():
        goes.append(f"{count} Debian packages that came with Alvéole (--keep-packages leaves them)")
    backups = instance.setting("backups", "repository")
    goes.append(f"not the backups in {backups}" if backups else f"the backups in {instance.state}/backups")
    return "\n".join(f"    - {item}" for item in goes)
