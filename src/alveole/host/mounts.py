"""The mounts of instances: their roots, their socket directories, and the agent's own namespace.

Host-side mounts are few and short-lived: the root of an instance is mounted here only until the
runtime has taken it into the container's namespace. What stays is one small tmpfs an instance.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from alveole.errors import Temporary
from alveole.host import syscalls
from alveole.host.bases import directories
from alveole.host.run import run

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_UNIFIED = "/sys/fs/cgroup/unified"


def prepare_namespace(run: Path, sites: Path) -> None:
    """Give this process a mount namespace of its own in which the run directory stays shared.

    Mounts below ``run`` go on to be seen by the host, by the proxy and by the next agent; all other
    mounts only come in. The second cgroup hierarchy of a hybrid layout is taken away here, because
    crun refuses to run beside it (measured with 1.8, 1.21 and 1.28). ``sites``, the directory of
    what sites own, becomes nosuid and nodev here, and so does whatever of it is mounted into a
    container: crun 1.8 forgets these two for a writable bind mount into a user namespace.

    Call it before any thread is started: unshare(2) moves only the calling thread. Raises ``OSError``.
    """
    run.mkdir(parents=True, exist_ok=True)
    sites.mkdir(mode=0o711, parents=True, exist_ok=True)
    _own_mount(run)
    syscalls.unshare(syscalls.CLONE_NEWNS)
    for point in syscalls.mount_points("/"):
        if point != str(run) and not point.startswith(f"{run}/"):
            # A mount that hides below another cannot be reached, and needs no change then.
            with suppress(OSError):
                syscalls.mount(None, point, flags=syscalls.MS_SLAVE)
    if is_hybrid():
        syscalls.umount(_UNIFIED, syscalls.MNT_DETACH)
    syscalls.mount(sites, sites, flags=syscalls.MS_BIND)
    safe = syscalls.MS_BIND | syscalls.MS_REMOUNT | syscalls.MS_NOSUID | syscalls.MS_NODEV
    syscalls.mount(None, sites, flags=safe)
    make_private(sites)


def _own_mount(run: Path) -> None:
    if str(run) not in syscalls.mount_points(run):
        syscalls.mount(run, run, flags=syscalls.MS_BIND)
    syscalls.mount(None, run, flags=syscalls.MS_SHARED)


def is_hybrid() -> bool:
    """Whether a cgroup v2 hierarchy is mounted beside those of v1, where systemd puts it."""
    return _UNIFIED in syscalls.mount_points(_UNIFIED)


def detach(point: str | os.PathLike[str]) -> None:
    """Take away every mount stacked on ``point``; nothing when there is none. Never follows a link."""
    with suppress(FileNotFoundError):
        while True:
            try:
                syscalls.umount(point, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
            except OSError as error:
                if error.errno == errno.EINVAL:
                    return
                raise


def make_private(point: str | os.PathLike[str]) -> None:
    syscalls.mount(None, point, flags=syscalls.MS_PRIVATE)


def tmpfs(where: Path, *, size: int, inodes: int, mode: int, uid: int, gid: int, flags: int) -> None:
    """A small file system in memory, with a hard bound on bytes and on files."""
    where.mkdir(exist_ok=True)
    detach(where)
    options = f"size={size},nr_inodes={inodes},mode={mode:o},uid={uid},gid={gid}"
    syscalls.mount("alveole", where, "tmpfs", flags, options)


def socket_directory(where: Path, uid: int, gid: int) -> None:
    """Where an instance leaves its sockets for the edge.

    What is made in it belongs to the edge's group ``gid`` (set-group-id directory). The edge
    follows no link in it, so that a site cannot lead it to the socket of another.
    """
    flags = syscalls.MS_NOSYMFOLLOW | syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    tmpfs(where, size=64 * 1024, inodes=16, mode=0o2777, uid=uid, gid=gid, flags=flags)


def open_to_group(socket: Path) -> None:
    """Let the group of the directory connect to ``socket``, for a program that has set a umask of its own.

    Nothing but a socket is touched, and only where the site cannot put a link in the way.
    """
    try:
        fd = os.open(socket, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISSOCK(mode) and mode & 0o060 != 0o060:
            Path(f"/proc/self/fd/{fd}").chmod(stat.S_IMODE(mode) | 0o060)
    finally:
        os.close(fd)


def readonly_root(base: Sequence[Path], target: Path, scratch: Sequence[Path], userns: int) -> None:
    """Mount the trees ``base`` over each other (the uppermost first) on ``target``, never writable.

    Their ids are mapped into ``userns``. ``scratch``: as in :func:`overlay_root`; one tree needs none.
    """
    target.mkdir(exist_ok=True)
    if len(base) == 1:
        _mapped(base[0], target, userns)
        return
    with _lowers(base, scratch, userns) as lowers:
        flags = syscalls.MS_RDONLY | syscalls.MS_NODEV | syscalls.MS_NOSUID
        syscalls.mount("alveole", target, "overlay", flags, f"lowerdir={lowers}")


def overlay_root(base: Sequence[Path], layer: Path, target: Path, scratch: Sequence[Path], userns: int) -> None:
    """Mount the trees ``base`` (mapped into ``userns``) under the writable ``layer`` on ``target``.

    ``layer`` holds ``upper`` and ``work``; ``scratch`` is where the mapped trees are mounted for the
    moment, one each: the overlay keeps them after that.
    """
    target.mkdir(exist_ok=True)
    with _lowers(base, scratch, userns) as lowers:
        flags = syscalls.MS_NODEV | syscalls.MS_NOSUID
        data = f"lowerdir={lowers},upperdir={layer / 'upper'},workdir={layer / 'work'}"
        syscalls.mount("alveole", target, "overlay", flags, data)


@contextmanager
def _lowers(base: Sequence[Path], scratch: Sequence[Path], userns: int) -> Iterator[str]:
    """The trees mounted with their ids mapped, as the ``lowerdir`` of an overlay."""
    with ExitStack() as mounted:
        for tree, point in zip(base, scratch[: len(base)], strict=True):
            point.mkdir(exist_ok=True)
            _mapped(tree, point, userns)
            mounted.callback(detach, point)
            make_private(point)
        yield ":".join(str(point) for point in scratch[: len(base)])


def _mapped(tree: Path, target: Path, userns: int) -> None:
    syscalls.mount_idmapped(
        tree,
        target,
        userns,
        attributes=syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV,
    )


def prepare_layer(layer: Path, uid: int, *, fresh: bool) -> None:
    """Make ``upper`` and ``work`` of an overlay, owned by ``uid``; ``fresh`` drops what was there.

    No process of the site may run in the layer while this is called.
    """
    if fresh:
        remove_tree(layer)
    layer.mkdir(mode=0o700, exist_ok=True)
    for name in ("upper", "work"):
        part = layer / name
        with suppress(FileExistsError):
            part.mkdir(mode=0o755)
            os.chown(part, uid, uid)


def is_plain_directory(base: Sequence[Path], inside: str) -> bool:
    """Whether ``inside`` (absolute) is a directory in the trees ``base`` without a link on the way."""
    here = tuple(base)
    for part in Path(inside).parts[1:]:
        here = directories(here, part)
    return bool(here)


def plain_directories(upper: Path, base: Sequence[Path], wanted: Iterable[str], uid_start: int) -> None:
    """Make every path of ``wanted`` a real directory in the overlay of ``upper`` over the trees ``base``.

    An image whose ``/dev`` is a link would else lead the runtime to where the image wants
    (CVE-2026-41579, threat 1). Missing directories get the mode and the owner of the base's.
    The layer was written by the site: it is walked without following a link.
    """
    for path in wanted:
        if ".." in Path(path).parts:
            raise ValueError(f"{path!r} leads out of the root")
        fd = os.open(upper, _DIRECTORY)
        lower = tuple(base)
        try:
            for part in Path(path).parts[1:]:
                lower = directories(lower, part)
                fd = _step_into(fd, part, lower[0] if lower else None, uid_start)
        finally:
            os.close(fd)


def _step_into(parent: int, name: str, lower: Path | None, uid_start: int) -> int:
    """Open ``name`` in the directory ``parent`` (which is closed), made or replaced when it must be."""
    try:
        with suppress(FileNotFoundError):
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=parent)  # a link, a file, or the mark of a deletion
        made = False
        with suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=parent)
            made = True
        child = os.open(name, _DIRECTORY, dir_fd=parent)
        if made:
            like = lower.lstat() if lower is not None else None
            os.fchown(child, uid_start + (like.st_uid if like else 0), uid_start + (like.st_gid if like else 0))
            os.fchmod(child, stat.S_IMODE(like.st_mode) if like else 0o755)
        return child
    finally:
        os.close(parent)


def remove_tree(path: Path) -> None:
    """Remove ``path`` and all below it without following a link; refuses to enter a mount.

    Raises ``Temporary`` when something is mounted below: removing through a mount would take away
    what is not ours to take.
    """
    if not os.path.lexists(path):
        return
    if mounted := syscalls.mount_points(path):
        raise Temporary(f"{mounted[0]} is still mounted", hint="umount it by hand")
    try:
        shutil.rmtree(path)
    except (RecursionError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENAMETOOLONG):
            raise
        # Deeper than Python goes. rm walks with a few open files, follows no link and takes any depth.
        run(("rm", "-rf", "--one-file-system", "--", str(path)), timeout=600)
