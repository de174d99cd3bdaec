"""Making a root file system out of an OCI archive, by a confined child.

The child is root of a user namespace and its ``/`` is the new root itself, seen through an
id-mapped mount: a link in an image resolves inside the image whatever it says, owners come out on
the disk as 0 to 65,535, and a device cannot be made at all. OCI image specification 1.0: image
layout, manifest, configuration, layer (whiteouts).
"""

# Names here are relative to open directories, or bytes, by the hundred thousand.
# ruff: noqa: PTH101, PTH102, PTH103, PTH108, PTH112, PTH113, PTH114, PTH120, PTH123, PTH208, PTH211

from __future__ import annotations

import hashlib
import importlib
import json
import os
import stat
from collections.abc import Iterable
from typing import Any, NamedTuple

from alveole.host.tar import FORMATS, Member, Stream, members, shown, sniff
from alveole.host.tree import Pace, Rejected, Say, full, remove, size_text, sync, walk

_JSON_BYTES = 4 * 1024 * 1024
_RESULT_BYTES = 64 * 1024
_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_OPAQUE = b".wh..wh..opq"
_WHITEOUT = b".wh."
#: Real directories in every root, so that what is mounted there never follows a link of an image (CVE-2026-41579).
MOUNT_POINTS = (
    "dev",
    "etc",
    "proc",
    "run",
    "run/alveole",
    "site",
    "site/current",
    "site/releases",
    "sys",
    "tmp",
    "etc/alveole",
)
#: Real files, for what is bound over them.
_MOUNT_FILES = ("etc/hosts", "etc/resolv.conf", "etc/hostname")
_REGULAR = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def _silent(text: str, share: float | None) -> None:
    """A ``Say`` for the parts of a job."""


def _bad(message: str, hint: str = "") -> Rejected:
    return Rejected(message, field="image", hint=hint)


class Blob(NamedTuple):
    offset: int
    size: int


class Layout:
    """The blobs of an OCI archive, each compared with its digest as the archive is read once."""

    def __init__(self, fd: int, say: Say) -> None:
        self._fd = fd
        self._blobs: dict[str, Blob] = {}
        self.index: dict[str, Any] = {}
        seen: set[str] = set()
        pace = Pace(say)
        length = max(1, os.fstat(fd).st_size)
        os.lseek(fd, 0, os.SEEK_SET)
        stream = Stream(fd, "")
        for member in members(stream):
            name = member.name.decode("utf-8", "backslashreplace").removeprefix("./")
            if member.kind == "d":
                continue
            if member.kind != "f":
                raise _bad(f"{member.shown} is not a plain file", "an OCI layout holds files and directories only")
            if name in seen:
                raise _bad(f"the archive holds {shown(name)} twice")
            seen.add(name)
            offset = stream.position
            if name.startswith("blobs/sha256/"):
                total = hashlib.sha256()
                for part in stream.parts(member.size, member.shown):
                    total.update(part)
                wanted = name.removeprefix("blobs/sha256/")
                if total.hexdigest() != wanted:
                    raise _bad(f"the blob {wanted[:16]}… is damaged: its content has another digest", "copy it again")
                self._blobs[f"sha256:{wanted}"] = Blob(offset, member.size)
            elif name == "index.json":
                self.index = self._json(stream.take(min(member.size, _JSON_BYTES), name), name)
                stream.skip(member.size - min(member.size, _JSON_BYTES))
            else:
                stream.skip(member.size, member.shown)
            pace("checking the image", offset, offset / length / 2)
        if not self.index:
            raise _bad("has no index.json, so it is not an OCI layout", "make it with skopeo copy … oci:DIR")

    @staticmethod
    def _json(data: bytes, name: str) -> dict[str, Any]:
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise _bad(f"{shown(name)} is not a JSON object")
        return value

    def blob(self, descriptor: Any) -> Blob:
        """What ``descriptor`` names, with the size it says. Raises ``Rejected``."""
        if not isinstance(descriptor, dict) or not isinstance(descriptor.get("digest"), str):
            raise _bad("holds a descriptor without a digest")
        digest = descriptor["digest"]
        found = self._blobs.get(digest)
        if found is None:
            raise _bad(f"the blob {shown(digest)} is missing", "copy all layers of the image")
        if descriptor.get("size") != found.size:
            raise _bad(f"the blob {digest[:19]}… has {found.size} bytes, not the {descriptor.get('size')!r} announced")
        return found

    def json(self, descriptor: Any) -> dict[str, Any]:
        blob = self.blob(descriptor)
        if blob.size > _JSON_BYTES:
            raise _bad(f"the blob {descriptor['digest'][:19]}… is too large for a description")
        return self._json(os.pread(self._fd, blob.size, blob.offset), descriptor["digest"])

    def choose(self, index: dict[str, Any], architecture: str, depth: int = 0) -> dict[str, Any]:
        """The one descriptor of a manifest for this machine."""
        listed = [entry for entry in _listed(index.get("manifests")) if isinstance(entry, dict)]
        here = [entry for entry in listed if _fits(entry.get("platform"), architecture)]
        if not here:
            raise _bad(f"holds no image for linux/{architecture}", "copy the image for this machine")
        if len({entry.get("digest") for entry in here}) > 1:
            raise _bad(f"holds {len(here)} images", "copy one image into a layout of its own")
        if here[0].get("mediaType") in _INDEXES:
            if depth >= 4:
                raise _bad("nests its indexes too deep")
            return self.choose(self.json(here[0]), architecture, depth + 1)
        return here[0]

    def stream(self, blob: Blob, ratio: int) -> Stream:
        head = os.pread(self._fd, 4, blob.offset)
        packing = "gz" if head[:2] == b"\x1f\x8b" else "zst" if head == b"\x28\xb5\x2f\xfd" else ""
        os.lseek(self._fd, blob.offset, os.SEEK_SET)
        return Stream(self._fd, packing, ratio=ratio, length=blob.size)


def _fits(platform: Any, architecture: str) -> bool:
    if not isinstance(platform, dict):
        return True
    return platform.get("os") == "linux" and platform.get("architecture") == architecture


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def prepare(args: dict[str, Any], fds: list[int]) -> None:
    """Before the child is confined: import what a layer may need."""
    importlib.import_module("zstandard")

    kind = sniff(fds[0])
    if kind != "tar":
        raise _bad(
            f"is a {kind if kind in FORMATS else 'file'}, not an OCI archive", "pack the OCI layout as plain tar"
        )


def unpack_image(args: dict[str, Any], fds: list[int], say: Say) -> dict[str, Any]:
    """Job: unpack the OCI archive ``fds[0]`` into the current directory, which is empty.

    ``{"manifest": digest, "config": …, "user": "uid:gid", "skipped": devices}``; only the digest for a
    manifest in ``known``. Raises ``Rejected``.
    """
    os.umask(0)
    layout = Layout(fds[0], say)
    descriptor = layout.choose(layout.index, args["architecture"])
    if descriptor["digest"] in args["known"]:
        return {"manifest": descriptor["digest"]}
    manifest = layout.json(descriptor)
    config = layout.json(manifest.get("config"))
    if config.get("architecture") not in (None, args["architecture"]) or config.get("os") not in (None, "linux"):
        raise _bad(f"is for {config.get('os')}/{config.get('architecture')}, not for linux/{args['architecture']}")
    blobs = [layout.blob(entry) for entry in _listed(manifest.get("layers"))]
    if not blobs:
        raise _bad("has no layers")
    writer = _Root(args["bytes"], args["files"], args["room_bytes"], Pace(say))
    for number, blob in enumerate(blobs, 1):
        writer.apply(layout.stream(blob, args["ratio"]), f"layer {number} of {len(blobs)}", number / len(blobs))
    inner = config.get("config") if isinstance(config.get("config"), dict) else {}
    result = {
        "manifest": descriptor["digest"],
        "config": {key: inner.get(key) for key in ("Entrypoint", "Cmd", "Env", "ExposedPorts", "Volumes", "WorkingDir")}
        if isinstance(inner, dict)
        else {},
        "user": _resolve_user(inner.get("User") if isinstance(inner, dict) else None),
        "skipped": writer.skipped,
    }
    if len(json.dumps(result)) > _RESULT_BYTES:
        raise _bad("has a configuration larger than 64 KiB")
    return result


class _Root:
    """Applies layers one over the other to the current directory."""

    def __init__(self, limit: int, files: int, room: int, pace: Pace) -> None:
        self._limit, self._file_limit, self._room, self._pace = limit, files, room, pace
        self._bytes = self._files = 0
        self.skipped = 0
        self._parents: set[bytes] = set()

    def apply(self, stream: Stream, where: str, share: float) -> None:
        fresh: set[bytes] = set()
        times: dict[bytes, int] = {}
        self._parents.clear()
        for member in members(stream, strict=False):
            path = b"/".join(part for part in member.name.split(b"/") if part not in (b"", b"."))
            if b".." in path.split(b"/"):
                raise _bad(f"{member.shown} in {where} leads out by '..'")
            if not path:
                continue
            if len(path) > 4000 or any(len(part) > 255 for part in path.split(b"/")):
                raise _bad(f"{member.shown} in {where} is too long a name")
            if path in fresh and member.kind != "d":
                raise _bad(f"{where} holds {member.shown} twice")
            try:
                self._one(member, path, stream, fresh, times)
            except OSError as error:
                raise full(error) or _bad(f"{member.shown} in {where}: {error.strerror}") from None
            self._pace(f"unpacking {where}", self._bytes, 0.5 + share / 2)
        for path, mtime in times.items():
            try:
                os.utime(path, (mtime, mtime), follow_symlinks=False)
            except FileNotFoundError:
                continue

    def _one(self, member: Member, path: bytes, stream: Stream, fresh: set[bytes], times: dict[bytes, int]) -> None:
        parent, _, name = path.rpartition(b"/")
        if name.startswith(_WHITEOUT):
            self._whiteout(parent, name, fresh)
            stream.skip(member.size)
            return
        if not (0 <= member.uid < 65_536 and 0 <= member.gid < 65_536):
            raise _bad(f"{member.shown} belongs to {member.uid}:{member.gid}", "ids go up to 65,535")
        self._files += 1
        if self._files > self._file_limit:
            raise _bad(f"holds more than {self._file_limit:,} files", "the ceiling is content.files")
        self._make_parents(parent)
        fresh.add(path)
        if member.kind in "cb":
            # The kernel would refuse; every container gets a /dev of its own.
            self.skipped += 1
            return
        if member.kind == "d":
            if not self._is_directory(path):
                self._clear(path)
                os.mkdir(path, 0o700)
            os.chown(path, member.uid, member.gid, follow_symlinks=False)
            os.chmod(path, member.mode & 0o3777)
            times[path] = member.mtime
            return
        self._clear(path)
        if member.kind == "f":
            self._write(member, path, stream)
        elif member.kind == "l":
            os.symlink(member.link, path)
            os.chown(path, member.uid, member.gid, follow_symlinks=False)
            self._parents.clear()
        elif member.kind == "h":
            target = member.link.lstrip(b"/")
            if b".." in target.split(b"/"):
                raise _bad(f"{member.shown} is a hard link that leads out by '..'")
            os.link(target, path, follow_symlinks=False)
        else:
            os.mkfifo(path, 0o600)
            os.chown(path, member.uid, member.gid, follow_symlinks=False)

    def _write(self, member: Member, path: bytes, stream: Stream) -> None:
        self._bytes += member.size
        if self._bytes > self._limit:
            raise _bad(f"is larger than {size_text(self._limit)}", "the ceiling is content.bytes")
        if self._bytes > self._room:
            raise Rejected(
                f"the image needs more than the {size_text(self._room)} that are left", field="disk", code="no-room"
            )
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            for part in stream.parts(member.size, member.shown):
                done = 0
                while done < len(part):
                    done += os.write(fd, part[done:])
            os.fchown(fd, member.uid, member.gid)
            os.fchmod(fd, member.mode & 0o777)
            os.utime(fd, (member.mtime, member.mtime))
        finally:
            os.close(fd)

    @staticmethod
    def _is_directory(path: bytes) -> bool:
        try:
            return stat.S_ISDIR(os.lstat(path).st_mode)
        except FileNotFoundError:
            return False

    def _make_parents(self, parent: bytes) -> None:
        if not parent or parent in self._parents:
            return
        done = b""
        for part in parent.split(b"/"):
            done = done + b"/" + part if done else part
            # A link to a directory is followed, inside this root: /lib of a merged /usr.
            if done not in self._parents and not os.path.isdir(done):
                self._clear(done)
                os.mkdir(done, 0o755)
            self._parents.add(done)

    def _clear(self, path: bytes) -> None:
        try:
            info = os.lstat(path)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(info.st_mode):
            remove({"paths": [os.fsdecode(path)]}, [], _silent)
        else:
            os.unlink(path)
        self._parents.clear()

    def _whiteout(self, parent: bytes, name: bytes, fresh: set[bytes]) -> None:
        prefix = parent + b"/" if parent else b""
        if name != _OPAQUE:
            target = prefix + name[len(_WHITEOUT) :]
            if name[len(_WHITEOUT) :] in (b"", b".", b".."):
                raise _bad(f"{shown(name)} hides no name")
            if target not in fresh:
                self._clear(target)
            return
        if not self._is_directory(parent or b"."):
            return
        # What this very layer brought stays (image-spec, layer.md, opaque whiteout).
        for entry in os.listdir(parent or b"."):
            path = prefix + entry
            if not any(kept == path or kept.startswith(path + b"/") for kept in fresh):
                self._clear(path)


def _lines(path: str) -> list[list[str]]:
    try:
        fd = os.open(path, _REGULAR)
    except OSError:
        return []
    with open(fd, encoding="utf-8", errors="replace") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return []
        return [line.split(":") for line in file.read(1 << 20).splitlines()]


def _resolve_user(user: Any) -> str:
    """``User`` of an image's configuration as ``uid:gid``. Raises ``Rejected`` for a name it does not know."""
    if not user or not isinstance(user, str):
        return "0:0"
    name, _, group = user.partition(":")
    uid = gid = None
    for fields in _lines("etc/passwd"):
        if len(fields) > 3 and name in (fields[0], fields[2]) and fields[2].isdigit() and fields[3].isdigit():
            uid, gid = int(fields[2]), int(fields[3])
            break
    if uid is None and name.isdigit():
        uid, gid = int(name), 0
    if group:
        gid = int(group) if group.isdigit() else None
        for fields in _lines("etc/group"):
            if gid is None and len(fields) > 2 and fields[0] == group and fields[2].isdigit():
                gid = int(fields[2])
    if uid is None or gid is None or not (uid < 65_536 and gid < 65_536):
        raise _bad(f"runs as {user!r}, which is no user of the image")
    return f"{uid}:{gid}"


def finish_root(args: dict[str, Any], fds: list[int], say: Say) -> dict[str, Any]:
    """Job: make the root in the current directory fit to be a base.

    Real mount points, the user ``site`` (1000:1000) unless that uid has a name, ``files`` (path to
    text), ``drop`` (paths removed), nothing left in ``/dev`` and ``/tmp``, no setuid or setgid
    file, no device. With ``layer`` it is one that lies over such a root: nothing is added, and the
    marks of what it takes away stay. ``{"bytes": on disk, "files"}``; all of it is on the disk when it returns.
    """
    os.umask(0o022)
    if args.get("layer"):
        for path in (*MOUNT_POINTS, *_MOUNT_FILES):
            # What the base below has stays: a package that took it away would take it from everybody.
            if os.path.lexists(path) and is_whiteout(os.lstat(path)):
                os.unlink(path)
        remove({"paths": args.get("drop", [])}, [], _silent)
    else:
        _furnish(args)
    used = files = 0
    for found in walk("."):
        mode = found.info.st_mode
        if stat.S_ISBLK(mode) or (stat.S_ISCHR(mode) and not (args.get("layer") and is_whiteout(found.info))):
            os.unlink(found.name, dir_fd=found.parent)
            continue
        if stat.S_ISREG(mode) and mode & 0o6000:
            os.chmod(found.name, mode & 0o1777, dir_fd=found.parent)
        used += found.info.st_blocks * 512 // max(1, found.info.st_nlink if stat.S_ISREG(mode) else 1)
        files += 1
    sync()
    return {"bytes": used, "files": files}


def _furnish(args: dict[str, Any]) -> None:
    """What every root has, whatever it came from."""
    if os.path.islink("etc"):
        raise _bad("its /etc is a link")
    for path in MOUNT_POINTS:
        if os.path.islink(path) or (os.path.lexists(path) and not os.path.isdir(path)):
            os.unlink(path)
        os.makedirs(path, exist_ok=True)
    os.chmod("tmp", 0o1777)  # noqa: S103  as every /tmp
    for path in ("dev", "tmp"):
        remove({"paths": [f"{path}/{name}" for name in os.listdir(path)]}, [], _silent)
    remove({"paths": args.get("drop", [])}, [], _silent)
    for path in _MOUNT_FILES:
        if not os.path.isfile(path) or os.path.islink(path):
            _write_text(path, "")
    for path, text in args.get("files", {}).items():
        _write_text(path, text)
    _add_user()


def is_whiteout(info: os.stat_result) -> bool:
    """Whether this is the mark of an overlay for "taken away": a character device 0:0."""
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def _write_text(path: str, text: str) -> None:
    parent = os.path.dirname(path)
    if parent:
        os.makedirs(parent, exist_ok=True)
    if os.path.lexists(path):
        remove({"paths": [path]}, [], _silent)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644), "w") as file:
        file.write(text)


def _add_user() -> None:
    wanted: Iterable[tuple[str, int, str]] = (
        ("etc/passwd", 2, "site:x:1000:1000:site:/site:/usr/sbin/nologin\n"),
        ("etc/group", 2, "site:x:1000:\n"),
    )
    for path, column, line in wanted:
        lines = _lines(path)
        if any(len(fields) > column and (fields[column] == "1000" or fields[0] == "site") for fields in lines):
            continue
        text = "".join(":".join(fields) + "\n" for fields in lines)
        if not lines:
            text = "root:x:0:0:root:/root:/bin/sh\n" if path == "etc/passwd" else "root:x:0:\n"
        _write_text(path, text + line)
