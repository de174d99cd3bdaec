"""The file manager's program. It runs inside a site's container of the working copy, as the site's own user, on the
machine's Python and nothing else; control sends its text (:mod:`alveole.services.files`) and never touches a file.

No path is checked here: whatever it leads to is what the site's own user reaches in there anyway. One order is one
run: the first argument is JSON, content comes on standard input; the answer is one line of JSON on standard output,
and after it the bytes that were asked for. A refusal is ``{"wrong": CODE, "text": …}``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from typing import IO, Any

MOST_NAMES = 5000
#: Larger ones are for an editor of one's own, by SFTP.
TEXT_MAX = 256 * 1024
#: Of one archive; the disk of the working copy has its own limit.
MOST_MEMBERS = 100_000
_PIECE = 1 << 20
_CODES = {
    errno.ENOENT: "absent",
    errno.EEXIST: "taken",
    errno.ENOTEMPTY: "taken",
    errno.EACCES: "denied",
    errno.EPERM: "denied",
    errno.EROFS: "denied",
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
}


class Wrong(Exception):
    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


_said: list[dict[str, Any]] = []


def say(document: dict[str, Any]) -> None:
    _said.append(document)
    sys.stdout.buffer.write(json.dumps(document).encode() + b"\n")
    sys.stdout.buffer.flush()


def look(at: str) -> None:
    found: list[dict[str, Any]] = []
    more = False
    with os.scandir(at or ".") as entries:
        for entry in entries:
            if len(found) >= MOST_NAMES:
                more = True
                break
            with contextlib.suppress(OSError):
                found.append(_entry(entry))
    found.sort(key=lambda each: (each["kind"] != "folder", each["name"]))
    say({"entries": found, "more": more, "writable": os.access(at or ".", os.W_OK)})


def _entry(entry: os.DirEntry[str]) -> dict[str, Any]:
    own = entry.stat(follow_symlinks=False)
    kind = "other"
    target = ""
    if stat.S_ISLNK(own.st_mode):
        kind = "link"
        target = _shown(os.readlink(entry.path))
        with contextlib.suppress(OSError):
            if entry.is_dir():
                kind = "folder"
    elif stat.S_ISDIR(own.st_mode):
        kind = "folder"
    elif stat.S_ISREG(own.st_mode):
        kind = "file"
    name = _shown(entry.name)
    # A name that is no text cannot come back from a form as it was.
    odd = name != entry.name or not name.isprintable()
    return {
        "name": name,
        "kind": kind,
        "bytes": own.st_size,
        "modified_at": own.st_mtime,
        "target": target,
        "odd": odd,
    }


def about(at: str) -> None:
    """One entry of a folder, by its path."""
    path = os.path.normpath(at or ".")
    if path in (".", "/"):
        own = os.stat(path)
        say({"name": at, "kind": "folder", "bytes": own.st_size, "modified_at": own.st_mtime})
        return
    os.lstat(path)
    folder, name = os.path.split(path)
    with os.scandir(folder or ".") as entries:
        for entry in entries:
            if entry.name == name:
                say(_entry(entry))
                return
    raise Wrong("absent", "is not there")


def _shown(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "replace")


def read(at: str) -> None:
    with _opened(at) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(TEXT_MAX + 1) if size <= TEXT_MAX else b""
        text = len(content) == size and _is_text(content)
        say({"bytes": size, "text": text, "etag": _etag(content) if text else ""})
        if text:
            sys.stdout.buffer.write(content)


def _opened(at: str) -> IO[bytes]:
    """Raises ``Wrong`` for what is no plain file: a pipe would be waited at for ever."""
    fd = os.open(at, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Wrong("other", "is no plain file")
    return os.fdopen(fd, "rb")


def _is_text(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return b"\0" not in content


def _etag(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write(at: str, etag: str) -> None:
    """Replace a text that is still the one with ``etag``; an empty one: that is not there yet."""
    content = sys.stdin.buffer.read(TEXT_MAX + 1)
    if len(content) > TEXT_MAX:
        raise Wrong("large", f"is larger than {TEXT_MAX} bytes")
    # What a link leads to is written, and the link stays.
    path = os.path.realpath(at) if etag else at
    with _alone(os.path.dirname(path)):
        mode = 0o644
        if etag:
            with _opened(path) as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                if _etag(file.read(TEXT_MAX + 1)) != etag:
                    raise Wrong("conflict", "was changed meanwhile")
        elif os.path.lexists(path):
            raise Wrong("taken", "is there already")
        _put(path, mode, sys.stdin.buffer, content)
    say({"bytes": len(content), "etag": _etag(content)})


@contextlib.contextmanager
def _alone(folder: str) -> Iterator[None]:
    """No other of us changes something in ``folder`` meanwhile."""
    fd = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _put(path: str, mode: int, source: IO[bytes], begun: bytes = b"") -> int:
    """A whole new file at ``path`` or the old one: never a half. Gives its size."""
    folder, name = os.path.split(path)
    scratch = os.path.join(folder, f".alveole-{os.getpid()}-{name}"[:200])
    size = len(begun)
    fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(begun)
            while piece := source.read(_PIECE):
                size += file.write(piece)
            os.fchmod(file.fileno(), mode)
        os.replace(scratch, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(scratch)
        raise
    return size


def folder(at: str) -> None:
    os.mkdir(at)
    say({})


def rename(at: str, to: str) -> None:
    with _alone(os.path.dirname(to)):
        if os.path.lexists(to):
            raise Wrong("taken", "is there already")
        os.rename(at, to)
    say({})


def delete(at: str, names: list[str]) -> None:
    for name in names:
        path = os.path.join(at, name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    say({"count": len(names)})


def put(at: str, name: str, mode: int = 0o644, parents: bool = False) -> None:
    """A file out of standard input. ``parents``: the folders above it are made where they are not."""
    if parents and at:
        os.makedirs(at, exist_ok=True)
    path = os.path.join(at, name)
    if os.path.isdir(path):
        raise Wrong("taken", "is a folder")
    say({"bytes": _put(path, mode, sys.stdin.buffer)})


def take(at: str) -> None:
    """The files of a tar that comes in on standard input."""
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
        say(_unpacked(at or ".", _of_tar(archive)))


def unpack(at: str) -> None:
    """An archive beside which its members are to stand."""
    into = os.path.dirname(at) or "."
    with _opened(at) as file:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                say(_unpacked(into, _of_zip(archive)))
            return
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:*") as packed:
            say(_unpacked(into, _of_tar(packed)))


def _of_zip(archive: zipfile.ZipFile) -> Iterator[tuple[str, IO[bytes] | None]]:
    for member in archive.infolist():
        # The upper half says what it is on Unix: a link's text is no file (APPNOTE.TXT 4.4.15).
        kind = stat.S_IFMT(member.external_attr >> 16)
        if member.is_dir():
            yield member.filename, None
        elif kind in (0, stat.S_IFREG):
            if member.flag_bits & 1:
                raise Wrong("archive", "is locked with a password")
            with archive.open(member) as source:
                yield member.filename, source


def _of_tar(archive: tarfile.TarFile) -> Iterator[tuple[str, IO[bytes] | None]]:
    for member in archive:
        if member.isdir():
            yield member.name, None
        elif member.isreg():
            yield member.name, archive.extractfile(member)


def _unpacked(into: str, members: Iterator[tuple[str, IO[bytes] | None]]) -> dict[str, int]:
    """Only files and folders, below ``into``: an archive with other names in it is refused before those are made."""
    files = total = count = 0
    for name, source in members:
        count += 1
        if count > MOST_MEMBERS:
            raise Wrong("archive", f"holds more than {MOST_MEMBERS} members")
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
        if ".." in parts or name.startswith("/"):
            raise Wrong("archive", f"holds {name[:100]!r}, which leads elsewhere")
        if not parts:
            continue
        path = os.path.join(into, *parts)
        if source is None:
            os.makedirs(path, exist_ok=True)
            continue
        os.makedirs(os.path.dirname(path), exist_ok=True)
        files += 1
        total += _put(path, 0o644, source)
    return {"files": files, "bytes": total}


def send(at: str, first: int | None = None, last: int | None = None) -> None:
    """A file as it is, a folder as a zip. Of a file from the byte ``first`` to ``last``; without ``first`` so many
    from the end."""
    if not os.path.isdir(at or "."):
        with _opened(at) as file:
            whole = os.fstat(file.fileno()).st_size
            if first is None and last is None:
                say({"bytes": whole, "folder": False})
                shutil.copyfileobj(file, sys.stdout.buffer, _PIECE)
                return
            begin = max(0, whole - (last or 0)) if first is None else first
            end = whole if first is None or last is None else min(whole, last + 1)
            if begin >= end:
                raise Wrong("range", f"has {whole} bytes")
            say({"bytes": end - begin, "folder": False, "first": begin, "whole": whole})
            file.seek(begin)
            left = end - begin
            while left and (piece := file.read(min(left, _PIECE))):
                sys.stdout.buffer.write(piece)
                left -= len(piece)
        return
    say({"bytes": None, "folder": True})
    with zipfile.ZipFile(sys.stdout.buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1, strict_timestamps=False) as out:
        for place, folders, files in os.walk(at or "."):
            folders.sort()
            inner = os.path.relpath(place, at or ".")
            if inner != ".":
                out.writestr(f"{_shown(inner)}/", b"")
            for name in sorted(files):
                path = os.path.join(place, name)
                # Links would lead nowhere in an archive, and pipes never end.
                if stat.S_ISREG(os.lstat(path).st_mode):
                    with contextlib.suppress(PermissionError):
                        out.write(path, _shown(os.path.normpath(os.path.join(inner, name))))


VERBS = {each.__name__: each for each in (look, about, read, write, folder, rename, delete, put, take, unpack, send)}


def main(words: list[str]) -> int:
    order: dict[str, Any] = json.loads(words[0])
    try:
        VERBS[order.pop("verb")](**order)
        sys.stdout.buffer.flush()
    except Wrong as error:
        return refuse(error.code, str(error))
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        return refuse("archive", f"is no archive that can be read: {error}"[:200])
    except BrokenPipeError:
        return 1
    except (OSError, ValueError) as error:
        code = _CODES.get(getattr(error, "errno", None) or 0, "other")
        return refuse(code, getattr(error, "strerror", None) or str(error)[:200])
    return 0


def refuse(code: str, text: str) -> int:
    if not _said:
        say({"wrong": code, "text": text})
    # After the first line nothing but content may follow: who reads sees that it is cut.
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
