"""Running apt inside a base that is being made: the far side of ``actuators.debian``.

Started as a fresh Python with the standard library only. It mounts the new layer over the bases it
leans on, all seen through the id-map of the bases' own range, and runs one program there as root of a
user namespace: what a package's scripts may do, they may do to the new layer and to nothing else.

- root inside is an id that owns nothing on the machine; of its capabilities it keeps those that act on
  files and ids of its own range (:data:`CAPABILITIES`), none that mounts, traces or configures;
- its own processes, network (empty), mounts, host name and System V objects;
- ``/dev`` with six harmless devices, ``/proc`` of its own, no ``/sys``; ``/run`` and ``/tmp`` in memory;
- everything it has started ends with it, and it with the agent.
"""

# Names here are relative to open directories, in a process that does nothing else.
# ruff: noqa: PTH101, PTH102, PTH112, PTH118, PTH123, PTH211

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
import struct
import sys
from typing import Any

from alveole.host import syscalls

#: Where the lists, the archives and the settings of apt are, inside.
PLACE = "/run/alveole-build"
#: Bits of capabilities(7): CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, KILL, SETGID, SETUID, SYS_CHROOT,
#: SETFCAP. dpkg and the scripts of Debian's packages ask for no other; MKNOD makes no device in a user namespace.
CAPABILITIES = frozenset({0, 1, 2, 3, 4, 5, 6, 7, 18, 31})
_LAST_CAPABILITY = 63
_DEVICES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
_LINKS = (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2"))
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_SAFE = syscalls.MS_NOSUID | syscalls.MS_NODEV
_HIDDEN = syscalls.MS_NOSUID | syscalls.MS_NOEXEC
_OVERLAY = "redirect_dir=off,metacopy=off,index=off,volatile"
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "DEBIAN_FRONTEND": "noninteractive",
    "DEBCONF_NONINTERACTIVE_SEEN": "true",
    "APT_CONFIG": f"{PLACE}/apt.conf",
}


def main(text: str) -> None:
    """``text`` is JSON: ``lowers`` (trees, the uppermost first), ``layer`` (a directory with ``root``, ``work`` and
    ``mnt``, which is made of them), ``start`` (first id of the range), ``space`` (an open user namespace),
    ``binds`` (what of the host is seen below :data:`PLACE`, by name), ``argv``. Ends with the program's status.
    """
    order = json.loads(text)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 9)
    os.umask(0o022)
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(None, "/", flags=syscalls.MS_PRIVATE | syscalls.MS_REC)
    top = os.path.join(order["layer"], "mnt")
    _mount(order, top)
    # The way to here is closed to whom the namespace makes of us, and an open file stays in the old mounts.
    os.chdir(top)
    _enter(order["space"])
    syscalls.unshare(
        syscalls.CLONE_NEWNS
        | syscalls.CLONE_NEWPID
        | syscalls.CLONE_NEWIPC
        | syscalls.CLONE_NEWUTS
        | syscalls.CLONE_NEWNET
    )
    child = os.fork()
    if child == 0:
        try:
            _inside(order["argv"])
        except OSError as error:
            print(f"E: the build's root could not be made: {error}", flush=True)
        os._exit(125)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)


def _mount(order: dict[str, Any], top: str) -> None:
    """As root of the machine: the overlay at ``merged``, and what only that root can put into it."""
    space = order["space"]
    lowers = []
    for number, tree in enumerate(order["lowers"]):
        lowers.append(os.path.join(top, str(number)))
        os.mkdir(lowers[-1], 0o755)
        syscalls.mount_idmapped(tree, lowers[-1], space, attributes=syscalls.MOUNT_ATTR_RDONLY)
    upper, merged = os.path.join(top, "upper"), os.path.join(top, "merged")
    os.mkdir(upper, 0o755)
    os.mkdir(merged, 0o755)
    syscalls.mount_idmapped(order["layer"], upper, space)
    data = f"lowerdir={':'.join(lowers)},upperdir={upper}/root,workdir={upper}/work,{_OVERLAY}"
    # The overlay goes on as who mounted it, and the machine's own root has no id in what is mapped.
    with syscalls.file_ids(order["start"]):
        syscalls.mount("alveole", merged, "overlay", _SAFE, data)
    owner = f"uid={order['start']},gid={order['start']}"
    syscalls.mount("alveole", f"{merged}/dev", "tmpfs", _HIDDEN, f"mode=755,size=64k,{owner}")
    for name, major, minor in _DEVICES:
        os.mknod(f"{merged}/dev/{name}", stat.S_IFCHR | 0o666, os.makedev(major, minor))
        os.chmod(f"{merged}/dev/{name}", 0o666)  # noqa: S103  as every /dev
    for name, target in _LINKS:
        os.symlink(target, f"{merged}/dev/{name}")
    for name, mode in (("run", "755"), ("tmp", "1777")):
        syscalls.mount("alveole", f"{merged}/{name}", "tmpfs", _SAFE, f"mode={mode},{owner}")
    for path in (f"{merged}/dev/shm", f"{merged}/run/lock"):  # noqa: S108  not of this machine
        os.mkdir(path)
        os.chmod(path, 0o1777)  # noqa: S103  as everywhere
    os.mkdir(f"{merged}{PLACE}", 0o755)
    for name, source in order["binds"].items():
        point = f"{merged}{PLACE}/{name}"
        if os.path.isdir(source):
            os.mkdir(point, 0o755)
        else:
            with open(point, "x"):
                pass
        syscalls.mount(source, point, flags=syscalls.MS_BIND)
        syscalls.mount(None, point, flags=syscalls.MS_BIND | syscalls.MS_REMOUNT | syscalls.MS_RDONLY | _SAFE)


def _enter(space: int) -> None:
    syscalls.setns(space, syscalls.CLONE_NEWUSER)
    os.close(space)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _inside(argv: list[str]) -> None:
    """First process of the new root, in the namespaces it owns."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 9)
    # What came from a namespace of more rights is locked in its place; a bind of it is not.
    syscalls.mount("merged", "merged", flags=syscalls.MS_BIND | syscalls.MS_REC)
    os.chdir("merged")
    syscalls.mount("proc", "proc", "proc", _HIDDEN | syscalls.MS_NODEV)
    syscalls.pivot_root(".", ".")
    syscalls.umount(".", syscalls.MNT_DETACH)
    os.chdir("/")
    socket.sethostname("localhost")
    _loopback()
    for number in range(_LAST_CAPABILITY + 1):
        if number not in CAPABILITIES:
            try:
                syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
            except OSError:
                break  # the kernel knows no more
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    os.setsid()
    program = os.posix_spawn(argv[0], argv, ENVIRONMENT)
    while True:
        # Orphans come here as well; the last word is the program's.
        pid, status = os.wait()
        if pid == program:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))


if __name__ == "__main__":
    main(sys.argv[1])
