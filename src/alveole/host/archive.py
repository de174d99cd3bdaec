"""Unpacking what strangers send: tar, tar.gz, tar.zst and zip, under ceilings, nothing but plain content.

Runs inside a confined child (see ``host.tree`` and ``host.confine``), so that the kernel keeps it
within its directory whatever a member is called; the checks here are there to say *which* member
is wrong, and to keep what lies in a release simple: files of mode 0644 or 0755, directories of mode
0755, and links that stay inside.
"""

# Names here are relative to open directories, or bytes, by the hundred thousand.
# ruff: noqa: PTH101, PTH102, PTH104, PTH106, PTH211

from __future__ import annotations

import fnmatch
import hashlib
import importlib
import os
import re
import stat
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

from alveole.host.syscalls import RANGE
from alveole.host.tar import Member, Stream, members, shown, sniff
from alveole.host.tree import (
    CHUNK,
    Pace,
    Rejected,
    Say,
    TreeEntry,
    full,
    link_entry,
    size_text,
    sync,
    sync_files,
    tree_digest,
)

#: Bytes of a whole name and of a link's target; far under the kernel's 4,096.
NAME_BYTES = 2048
#: Links followed one after the other before the kernel gives up (path_resolution(7)).
_HOPS = 40
#: Up to here each entry is synced by itself.
_FEW = 24


class Ceilings(NamedTuple):
    """What an archive may become. ``room_*`` is what the disk has left for it."""

    bytes: int
    files: int
    depth: int
    ratio: int
    room_bytes: int
    room_files: int


def clean(name: bytes, depth: int) -> str:
    """``name`` without ``./`` and doubled slashes; ``""`` is the top itself. Raises ``Rejected``."""
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        raise Rejected(f"{shown(name)} is not UTF-8", hint="give the file a plain name") from None
    if any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text):
        raise Rejected(f"{shown(name)} holds a control character", hint="give the file a plain name")
    if text.startswith("/"):
        raise Rejected(f"{shown(name)} is an absolute name", hint="pack with relative names")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Rejected(f"{shown(name)} leads out of the archive by '..'")
    if len(parts) > depth:
        raise Rejected(f"{shown(name)} lies deeper than {depth} levels", hint="the ceiling is content.depth")
    if len(name) > NAME_BYTES or any(len(os.fsencode(part)) > 255 for part in parts):
        raise Rejected(f"{shown(name)} is too long", hint="255 bytes a part, 2,048 in all")
    return "/".join(parts)


class Builder:
    """Makes members real below the directory ``top`` and remembers what the tree holds.

    ``any_links``: they may lead anywhere, as those of what a build made do; see ``host.collect``.
    """

    def __init__(self, top: str, ceilings: Ceilings, say: Say, *, any_links: bool = False) -> None:
        self._top = top
        self._limit = ceilings
        self._pace = Pace(say)
        self.entries: dict[str, TreeEntry] = {}
        self._links: dict[str, str] = {}
        self._any_links = any_links
        self.bytes = 0
        self.files = 0
        os.mkdir(top, 0o755)

    def _count(self) -> None:
        self.files += 1
        if self.files > self._limit.files:
            raise Rejected(f"holds more than {self._limit.files:,} files", hint="the ceiling is content.files")
        if self.files > self._limit.room_files:
            raise Rejected(
                f"needs more than the {self._limit.room_files:,} inodes the disk has left", field="disk", code="no-room"
            )

    def room(self, size: int, name: str) -> None:
        """Refuse before it is written what cannot fit. Raises ``Rejected``."""
        if self.bytes + size > self._limit.bytes:
            raise Rejected(
                f"is larger than {size_text(self._limit.bytes)} at {shown(name)}", hint="the ceiling is content.bytes"
            )
        if self.bytes + size > self._limit.room_bytes:
            raise Rejected(
                f"needs more than the {size_text(max(0, self._limit.room_bytes))} that are left",
                field="disk",
                hint="free some space; content.reserve_bytes is kept for the platform",
                code="no-room",
            )

    def _place(self, path: str) -> str:
        """Make the directories above ``path``; gives where it goes on the disk."""
        if not path:
            raise Rejected("names its own top as a file")
        if path in self.entries:
            raise Rejected(f"holds {shown(path)} twice")
        self._count()
        parent = path.rpartition("/")[0]
        if parent:
            self.directory(parent)
        return f"{self._top}/{path}"

    def directory(self, path: str) -> None:
        """A directory and those above it; again is nothing new."""
        if not path:
            return
        known = self.entries.get(path)
        if known is None:
            os.mkdir(self._place(path), 0o755)
            self.entries[path] = TreeEntry("d", 0, "")
        elif known.kind != "d":
            what = "a link" if known.kind == "l" else "a file"
            raise Rejected(f"uses {shown(path)}, {what}, as a directory")

    def file(self, path: str, executable: bool, size: int, parts: Iterable[bytes], mtime: int) -> None:
        self.room(size, path)
        target = self._place(path)
        whole = hashlib.sha256()
        try:
            fd = os.open(
                target,
                os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
                0o755 if executable else 0o644,
            )
        except OSError as error:
            raise full(error) or error from None
        try:
            length = 0
            for part in parts:
                whole.update(part)
                length += len(part)
                done = os.write(fd, part)
                while done < len(part):
                    done += os.write(fd, part[done:])
            if length != size:
                raise Rejected(f"is damaged: {shown(path)} has another length than announced", hint="send it again")
            os.utime(fd, (mtime, mtime))
        except OSError as error:
            raise full(error) or error from None
        finally:
            os.close(fd)
        self.bytes += size
        self.entries[path] = TreeEntry("x" if executable else "f", size, whole.hexdigest())

    def symlink(self, path: str, target: bytes) -> None:
        try:
            text = target.decode("utf-8")
        except UnicodeDecodeError:
            raise Rejected(f"the link {shown(path)} leads to a name that is not UTF-8") from None
        if not text or "\0" in text or len(target) > NAME_BYTES:
            raise Rejected(f"the link {shown(path)} leads to no usable name")
        if text.startswith("/") and not self._any_links:
            raise Rejected(f"the link {shown(path)} leads out, to {shown(target)}", hint="use a relative link")
        os.symlink(text, self._place(path))
        self.entries[path] = link_entry(text)
        self._links[path] = text

    def hardlink(self, path: str, target: str) -> None:
        known = self.entries.get(target)
        if known is None or known.kind not in "fx":
            raise Rejected(f"{shown(path)} is a hard link to {shown(target)}, which is no file before it")
        os.link(f"{self._top}/{target}", self._place(path), follow_symlinks=False)
        self.entries[path] = known

    def follow(self, share: float | None) -> None:
        self._pace(f"unpacking, {self.files:,} files", self.bytes, share)

    def check_links(self, floor: int) -> None:
        """No link leads above the top, by whatever other links; ``floor`` levels count as above.

        After everything is there, because each link alone may look harmless (CVE-2025-4517).
        """
        for path in () if self._any_links else self._links:
            if self._leaves(path, floor):
                raise Rejected(
                    f"the link {shown(path)} leads out of the archive, to {shown(self._links[path])}",
                    hint="use links that stay inside",
                )

    def _leaves(self, path: str, floor: int) -> bool:
        here = path.split("/")[:-1]
        todo = self._links[path].split("/")[::-1]
        hops = 0
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if len(here) <= floor:
                    return True
                here.pop()
                continue
            here.append(part)
            target = self._links.get("/".join(here))
            if target is not None:
                hops += 1
                if hops > _HOPS:
                    return False
                here.pop()
                todo.extend(reversed(target.split("/")))
        return False


def prepare(args: dict[str, Any], fds: list[int]) -> None:
    """Before the child is confined: settle the format, import what it needs and the disk can no longer give."""
    kind = args.get("format") or sniff(fds[0])
    args["format"] = kind
    if kind == "tar.zst":
        importlib.import_module("zstandard")
    elif kind == "zip":
        importlib.import_module("zipfile")

        # Python loads the coding of old names at its first use.
        "".encode("cp437")


def unpack(args: dict[str, Any], fds: list[int], say: Say) -> dict[str, Any]:
    """Job: unpack the archive ``fds[0]`` into the new directory ``tree``.

    ``unwrap``: an archive that holds one directory and nothing beside it stands for that
    directory's content, as archives of a folder and release archives do; an archive that names
    its top itself (a member ``./``, as ``tar -C DIR .`` makes it) is taken as it is. ``prefix``:
    only members below it, and without it. ``any_links``: out of a backup of ours, whose release may have been
    built here. A zip's ``__MACOSX/`` is left out.

    ``{"digest", "bytes", "files"}``. Everything is on the disk when it returns; the caller removes
    what is left after a ``Rejected``.
    """
    os.umask(0)
    fd, kind = fds[0], args["format"]
    ceilings = Ceilings(**args["ceilings"])
    os.lseek(fd, 0, os.SEEK_SET)
    builder = Builder("unpacking", ceilings, say, any_links=bool(args.get("any_links")))
    if kind == "zip":
        exact = _unzip(builder, fd, ceilings)
    else:
        exact = _untar(builder, fd, kind, ceilings, args.get("prefix", ""))
    if not builder.entries and not args.get("may_be_empty"):
        raise Rejected("holds no files", hint="send an archive with at least one file")
    tops = {path.partition("/")[0] for path in builder.entries}
    wrapper = tops.pop() if len(tops) == 1 else None
    unwrapped = bool(args.get("unwrap")) and not exact and wrapper is not None and builder.entries[wrapper].kind == "d"
    builder.check_links(1 if unwrapped else 0)
    if unwrapped:
        os.rename(f"unpacking/{wrapper}", "tree")
        os.rmdir("unpacking")
    else:
        os.rename("unpacking", "tree")
    digest = tree_digest(builder.entries, f"{wrapper}/" if unwrapped else "")
    _sync(builder.entries, f"{wrapper}/" if unwrapped else "")
    files = sum(entry.kind != "d" for entry in builder.entries.values())
    return {"digest": digest, "bytes": builder.bytes, "files": files}


def _sync(entries: dict[str, TreeEntry], prefix: str) -> None:
    if len(entries) > _FEW:
        sync()
        return
    kept = (path[len(prefix) :] for path, entry in entries.items() if entry.kind != "l" and path.startswith(prefix))
    sync_files([*(f"tree/{path}" for path in kept if path), "tree"])


def _untar(builder: Builder, fd: int, kind: str, ceilings: Ceilings, prefix: str) -> bool:
    stream = Stream(fd, {"tar": "", "tar.gz": "gz", "tar.zst": "zst"}[kind], ratio=ceilings.ratio)
    length = max(1, os.fstat(fd).st_size)
    exact = False
    wanted = os.fsencode(prefix)
    for member in members(stream):
        if wanted:
            if not member.name.startswith(wanted):
                stream.skip(member.size, member.shown)
                continue
            link = member.link[len(wanted) :] if member.kind == "h" and member.link.startswith(wanted) else member.link
            member = member._replace(name=member.name[len(wanted) :], link=link)
        path = clean(member.name, ceilings.depth)
        if not path and member.kind == "d":
            exact = True
            continue
        _tar_member(builder, stream, member, path, ceilings)
        builder.follow(min(1.0, stream.consumed / length))
    return exact


def _tar_member(builder: Builder, stream: Stream, member: Member, path: str, ceilings: Ceilings) -> None:
    if member.kind == "f":
        if member.mode & 0o6000:
            raise Rejected(f"{member.shown} has a setuid or setgid bit", hint="chmod ug-s before packing")
        builder.file(
            path, bool(member.mode & 0o100), member.size, stream.parts(member.size, member.shown), member.mtime
        )
    elif member.kind == "d":
        builder.directory(path)
    elif member.kind == "l":
        builder.symlink(path, member.link)
    elif member.kind == "h":
        builder.hardlink(path, clean(member.link, ceilings.depth))
    else:
        what = {"c": "a device", "b": "a device", "p": "a named pipe"}[member.kind]
        raise Rejected(f"{member.shown} is {what}", hint="only files, directories and links are content")


def _unzip(builder: Builder, fd: int, ceilings: Ceilings) -> bool:
    import zipfile
    import zlib

    length = max(1, os.fstat(fd).st_size)
    try:
        with open(fd, "rb", closefd=False) as file, zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
            # zipfile believes lengths in the directory and may so step over members.
            inner: Any = zipfile
            end = inner._EndRecData(file)
            if end is None or end[inner._ECD_ENTRIES_TOTAL] & 0xFFFF != len(infos) & 0xFFFF:
                raise Rejected("is damaged: its directory does not hold as many members as it says")
            if len(infos) > 2 * ceilings.files + 1000:
                raise Rejected(f"holds more than {ceilings.files:,} files", hint="the ceiling is content.files")
            for info in infos:
                name = _zip_name(info)
                if name.startswith(b"__MACOSX/"):
                    continue
                _zip_member(builder, archive, info, clean(name, ceilings.depth), ceilings, length)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise Rejected(f"is damaged: {error or 'it ends early'}", hint="send it again") from None
    except (NotImplementedError, RuntimeError) as error:
        raise Rejected(f"cannot be read: {error}", hint="pack with deflate and without a password") from None
    return False


def _zip_name(info: Any) -> bytes:
    raw: str = info.orig_filename
    if "\\" in raw:
        raise Rejected(f"{shown(raw)} holds a backslash", hint="pack with '/' between directories")
    # Bit 11: the name is UTF-8 (APPNOTE 4.4.4). Without it many write UTF-8 nevertheless.
    return raw.encode() if info.flag_bits & 0x800 else raw.encode("cp437", "surrogateescape")


def _zip_member(builder: Builder, archive: Any, info: Any, path: str, ceilings: Ceilings, length: int) -> None:
    mode = info.external_attr >> 16 if info.create_system == 3 else 0
    kind = stat.S_IFMT(mode)
    name = path or info.filename
    if info.filename.endswith("/") or kind == stat.S_IFDIR:
        if info.file_size:
            raise Rejected(f"is damaged: the directory {shown(name)} has content", hint="send it again")
        builder.directory(path)
        return
    if info.flag_bits & 1:
        raise Rejected(f"{shown(name)} needs a password", hint="pack without a password")
    if kind not in (0, stat.S_IFREG, stat.S_IFLNK):
        raise Rejected(f"{shown(name)} is a device or a named pipe", hint="only files and links are content")
    if mode & 0o6000:
        raise Rejected(f"{shown(name)} has a setuid or setgid bit", hint="chmod ug-s before packing")
    builder.room(info.file_size, name)
    with archive.open(info) as source:
        if kind == stat.S_IFLNK:
            builder.symlink(path, source.read(4096))
            return

        def parts() -> Iterable[bytes]:
            done = 0
            while data := source.read(CHUNK):
                done += len(data)
                out = builder.bytes + done
                if out > 16 * 1024 * 1024 and out > ceilings.ratio * length:
                    raise Rejected(
                        f"grows to more than {ceilings.ratio} times its size", hint="the ceiling is content.ratio"
                    )
                yield data

        builder.file(path, bool(mode & 0o100), info.file_size, parts(), _zip_time(info.date_time))
    builder.follow(None)


def _zip_time(moment: tuple[int, ...]) -> int:
    try:
        # The child's zone is UTC; a zip does not say which one it means.
        return max(0, int(time.mktime(time.struct_time((*moment[:6], 0, 0, 0)))))
    except (ValueError, OverflowError):
        return 0


def restore(args: dict[str, Any], fds: list[int], say: Say) -> dict[str, Any]:
    """Job: unpack the members of the tar ``fds[0]`` below ``prefix`` with their owners and modes.

    For volumes out of a backup of ours, by the root of the site's user namespace: ids are those
    inside it. Links may lead anywhere, they are only ever followed inside the container. Holes
    are made again where a file is zero. Setuid and setgid bits of files do not come back. What fits one of the
    patterns ``without`` never reaches the disk, whatever is in it or linked to it.
    """
    os.umask(0)
    fd, prefix = fds[0], os.fsencode(args["prefix"])
    without = [re.compile(fnmatch.translate(each)) for each in args.get("without", ())]
    gone: set[bytes] = set()
    os.lseek(fd, 0, os.SEEK_SET)
    length = max(1, os.fstat(fd).st_size)
    stream = Stream(fd, "")
    pace = Pace(say)
    kinds: dict[bytes, str] = {}
    times: list[tuple[bytes, Member]] = []
    files = written = 0
    room: int = args["room_bytes"]
    for member in members(stream):
        if not member.name.startswith(prefix) or member.name == prefix:
            stream.skip(member.size, member.shown)
            continue
        path = member.name[len(prefix) :].rstrip(b"/")
        if path.rpartition(b"/")[0] in gone:
            gone.add(path)
            stream.skip(member.size, member.shown)
            continue
        path = member_path(member, prefix, kinds)
        linked = member.link[len(prefix) :] if member.kind == "h" else b""
        if linked in gone or any(each.match(os.fsdecode(path)) for each in without):
            gone.add(path)
            stream.skip(member.size, member.shown)
            continue
        kinds[path] = member.kind
        files += 1
        try:
            if member.kind == "f":
                if written + member.size > room:
                    raise Rejected(
                        f"the volumes need more than the {size_text(room)} that are left", field="disk", code="no-room"
                    )
                written += restore_file(path, member, stream.parts(member.size, member.shown))
                continue
            if member.kind == "h" and kinds.get(member.link[len(prefix) :]) == "f":
                os.link(member.link[len(prefix) :], path, follow_symlinks=False)
                continue
            restore_other(path, member)
            if member.kind == "d":
                times.append((path, member))
        except OSError as error:
            raise full(error) or error from None
        pace("unpacking volumes", written, min(1.0, stream.consumed / length))
    for path, member in reversed(times):
        os.chmod(path, member.mode & 0o3777)
        os.utime(path, (member.mtime, member.mtime))
    sync()
    return {"files": files, "bytes": written}


def member_path(member: Member, prefix: bytes, kinds: dict[bytes, str]) -> bytes:
    """Where a member of a backup of ours goes; ``kinds`` are those before it. Raises ``Rejected``."""
    path = member.name[len(prefix) :].rstrip(b"/")
    parent = path.rpartition(b"/")[0]
    if {b"..", b".", b""} & set(path.split(b"/")) or (parent and kinds.get(parent) != "d") or path in kinds:
        raise Rejected(f"{member.shown} has no place in a backup", field="backup", code="refused")
    if max(member.uid, member.gid) >= RANGE:
        raise Rejected(f"{member.shown} belongs to nobody in the container", field="backup", code="refused")
    return path


def restore_file(path: bytes, member: Member, parts: Iterable[bytes]) -> int:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        zeros = bytes(CHUNK)
        for part in parts:
            if part == zeros[: len(part)]:
                os.lseek(fd, len(part), os.SEEK_CUR)
                continue
            done = 0
            while done < len(part):
                done += os.write(fd, part[done:])
        os.ftruncate(fd, member.size)
        os.fchown(fd, member.uid, member.gid)
        os.fchmod(fd, member.mode & 0o777)
        os.utime(fd, (member.mtime, member.mtime))
    finally:
        os.close(fd)
    return member.size


def restore_other(path: bytes, member: Member) -> None:
    """A directory, a link or a pipe, with its owner. A directory has its mode when all that it holds is there.

    Raises ``Rejected`` for a device, a socket, or a second name of what is no file.
    """
    if member.kind == "d":
        os.mkdir(path, 0o700)
    elif member.kind == "l":
        os.symlink(member.link, path)
    elif member.kind == "p":
        os.mkfifo(path, 0o600)
    else:
        raise Rejected(f"{member.shown} has no place in a backup", field="backup", code="refused")
    os.chown(path, member.uid, member.gid, follow_symlinks=False)
    if member.kind == "p":
        os.chmod(path, member.mode & 0o777)
