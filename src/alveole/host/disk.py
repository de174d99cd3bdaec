"""The writable part of a site with a disk limit: a sparse file with ext4, mounted as a partition.

The file system knows the limit, so a full disk is one site's alone (threat 29, fault 13). A loop
device is attached by one LOOP_CONFIGURE with AUTOCLEAR: the kernel lets go of it with the last
mount, a lazily detached one included, so that none can leak. See loop(4).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from alveole.config import Settings
from alveole.errors import Refused, Temporary
from alveole.host import mounts, paths, syscalls
from alveole.host.run import ProgramFailed, run

_CONTROL = Path("/dev/loop-control")
_LOOP_MAJOR = 7
# linux/loop.h
_GET_FREE, _CONFIGURE, _SET_CAPACITY, _CLEAR = 0x4C82, 0x4C0A, 0x4C07, 0x4C01
_AUTOCLEAR, _DIRECT_IO = 4, 16
_INFO = struct.Struct("=QQQQQIIII64s64s32sQQ")
_CONFIG = struct.Struct(f"=II{_INFO.size}s8Q")
_FLAGS = syscalls.MS_NOSUID | syscalls.MS_NODEV
#: ``discard`` gives the space of deleted files back to the machine.
_OPTIONS = "discard,errors=remount-ro"
#: How long somebody may look into a site that is taken away.
_PATIENCE_SECONDS = 20.0
#: By mount point: who may mount, unmount or resize, and how many lean on the mount for a while.
_turns: defaultdict[Path, threading.RLock] = defaultdict(threading.RLock)
_turns_lock = threading.Lock()
_borrowers: Counter[Path] = Counter()


def create(image: Path, size: int) -> None:
    """A new file system of ``size`` bytes in ``image``; whole or absent. About 6 ms for 1 GiB.

    Raises ``Refused`` when it exists.
    """
    if image.exists():
        raise Refused(f"{image} exists")
    new = image.with_name(f".{image.name}.new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.ftruncate(fd, size)
    finally:
        os.close(fd)
    try:
        run(
            (
                "mkfs.ext4",
                "-q",
                "-F",
                "-b4096",
                "-i16384",
                "-m0",
                "-J",
                "size=4",
                "-E",
                "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0",
                str(new),
            )
        )
        new.rename(image)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def is_attached(target: Path) -> bool:
    """Whether an image is mounted on ``target``."""
    try:
        return os.major(target.lstat().st_dev) == _LOOP_MAJOR and target.lstat().st_dev != target.parent.stat().st_dev
    except FileNotFoundError:
        return False


def attach(image: Path, target: Path) -> bool:
    """Mount ``image`` on ``target``; gives whether it was not mounted before.

    After a power cut the journal is replayed by the mount itself. What is damaged beyond that is
    repaired once by e2fsck. Raises ``OSError`` or ``Temporary``.
    """
    # One at a time: two loop devices on one file are two disks to the kernel, and one file system that is
    # mounted twice is destroyed.
    with exclusive(target):
        target.mkdir(mode=0o711, parents=True, exist_ok=True)
        if is_attached(target):
            return False
        with _loop(image) as device:
            try:
                syscalls.mount(device, target, "ext4", _FLAGS, _OPTIONS)
                return True
            except OSError as error:
                if error.errno not in (errno.EUCLEAN, errno.EINVAL, errno.EIO):
                    raise
                _check(Path(device))
                syscalls.mount(device, target, "ext4", _FLAGS, _OPTIONS)
        return True


@contextlib.contextmanager
def exclusive(target: Path) -> Iterator[None]:
    """Nobody else mounts, unmounts or begins to borrow ``target`` in the block. A thread may nest it."""
    with _turns_lock:
        turn = _turns[target]
    with turn:
        yield


def detach(target: Path) -> bool:
    """Unmount; the loop device goes with the last user. Idempotent.

    Gives false, and leaves it to the last one who borrows, while anybody does (:func:`borrowed`).
    """
    with exclusive(target):
        if _borrowers[target]:
            return False
        mounts.detach(target)
        with contextlib.suppress(OSError):
            target.rmdir()
        return True


def size(image: Path) -> int:
    return image.stat().st_size


def grow(image: Path, target: Path, wanted: int) -> None:
    """Make the mounted file system larger, while it is in use.

    Raises :class:`ProgramFailed` without CAP_SYS_RESOURCE, which the kernel asks for (ext4's
    ``EXT4_IOC_RESIZE_FS``): then only :func:`resize` helps, on what is not mounted.
    """
    with image.open("r+b") as file:
        if file.seek(0, os.SEEK_END) < wanted:
            file.truncate(wanted)
    device = f"/dev/loop{os.minor(target.lstat().st_dev)}"
    fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _SET_CAPACITY)
    finally:
        os.close(fd)
    run(("resize2fs", device))


def resize(image: Path, wanted: int) -> None:
    """Make the file system larger or smaller; it must not be mounted.

    Raises ``Refused`` when what it holds does not fit.
    """
    _check(image)
    if image.stat().st_size < wanted:
        os.truncate(image, wanted)
    try:
        run(("resize2fs", str(image), f"{wanted // 1024}K"), timeout=600)
    except ProgramFailed as error:
        raise Refused(
            "what the site keeps does not fit into the smaller disk", hint="delete files of the site first"
        ) from error
    os.truncate(image, wanted)


@contextlib.contextmanager
def borrowed(settings: Settings, site: str) -> Iterator[Path]:
    """The site's writable part for as long as the block lasts: mounted for it when it was not.

    Raises ``FileNotFoundError`` when the site has none.
    """
    image = paths.disk_image(settings, site)
    if not image.exists():
        data = paths.data_dir(settings, site, False)
        data.stat()
        yield data
        return
    target = paths.disk_mount(settings, site)
    with exclusive(target):
        attach(image, target)
        _borrowers[target] += 1
    try:
        yield target
    finally:
        with exclusive(target):
            _borrowers[target] -= 1
            if not _borrowers[target]:
                del _borrowers[target]
            # An instance that has started meanwhile leans on the mount too.
            if not any(paths.instance(settings, site, slot).exists() for slot in (0, 1)):
                detach(target)


def release(settings: Settings, site: str) -> None:
    """Unmount what a process that was killed had borrowed. Who looks into it at the moment is waited for; raises
    ``Temporary`` where that takes long."""
    target = paths.disk_mount(settings, site)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while target.exists() and not detach(target):
        if time.monotonic() > deadline:
            raise Temporary("the site's disk is still in use", hint="try again in a moment")
        time.sleep(0.05)
    with contextlib.suppress(OSError):
        target.parent.rmdir()


def _check(where: Path) -> None:
    """Repair without questions; raises ``Temporary`` when a person has to look."""
    done = run(("e2fsck", "-f", "-p", str(where)), check=False, timeout=600)
    # e2fsck(8): 1 errors were corrected, 2 corrected and a reboot is advised (never for a loop device).
    if done.returncode > 2:
        last = done.stdout.strip().splitlines()
        raise Temporary(
            f"the file system in {where} is damaged: {last[-1] if last else 'e2fsck gave no reason'}",
            hint=f"run by hand: e2fsck -f {where}",
        )


@contextlib.contextmanager
def _loop(image: Path) -> Iterator[str]:
    """A loop device on ``image`` that lasts until this block *and* every mount made in it are over."""
    backing = os.open(image, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fd, device = _configure(backing, image.name)
    finally:
        os.close(backing)
    try:
        yield device
    finally:
        os.close(fd)


def _configure(backing: int, label: str) -> tuple[int, str]:
    info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, _AUTOCLEAR | _DIRECT_IO, label.encode()[:63], b"", b"", 0, 0)
    config = _CONFIG.pack(backing, 0, info, *([0] * 8))
    control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(64):
            number = fcntl.ioctl(control, _GET_FREE)
            device = Path(f"/dev/loop{number}")
            if not device.exists():  # without udev and without devtmpfs
                os.mknod(device, stat.S_IFBLK | 0o660, os.makedev(_LOOP_MAJOR, number))
            fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(fd, _CONFIGURE, config)
                return fd, str(device)
            except OSError as error:
                os.close(fd)
                # Somebody else took the free device between the two calls.
                if error.errno != errno.EBUSY:
                    raise
    finally:
        os.close(control)
    raise Temporary("no loop device is free", hint="see losetup --list")
