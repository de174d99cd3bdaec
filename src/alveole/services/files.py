"""The file manager: what the pages show and change of a site's working copy, its volumes and its releases.

Nothing of a site's content is opened here. Each verb starts ``data/visit/filework.py`` in the container of the
working copy, where it is the site's own user under the site's limits, as what comes by SFTP is; so it works on a site
that is stopped too, and what a path leads to is that container's business.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files
from typing import Any, BinaryIO

import msgspec

from alveole.errors import AlveoleError, InvalidInput, NoRoom, NotFound, Refused, Temporary
from alveole.model.site import SITE_RELEASES
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.ports import Program
from alveole.services.core import VersionConflict
from alveole.services.visits import VisitVerbs
from alveole.store import Stored
from alveole.views import files as file_views


class NoSuchPart(InvalidInput):
    """The file has no such bytes (RFC 9110 §15.5.17)."""

    http_status = 416


#: In the container; empty stands for the working copy, which is where a program begins.
RELEASES = SITE_RELEASES
_PYTHON = ("/usr/bin/python3", "-I", "-S", "-B", "-c")
#: Orders at work at a time on one site; more wait a moment in the browser.
_AT_ONCE = 6
#: Longer than this nothing but a download takes.
_LONGEST_SECONDS = 600.0
_PIECE = 1 << 18
_HEAD_MAX = 4 << 20
_WRONG: dict[str, type[AlveoleError]] = {
    "absent": NotFound,
    "taken": Refused,
    "denied": Refused,
    "conflict": VersionConflict,
    "full": NoRoom,
    "range": NoSuchPart,
}


class Span(msgspec.Struct, frozen=True):
    """From the byte ``first`` to ``last``, or to the end; without ``first`` the ``last`` so many bytes."""

    first: int | None
    last: int | None


class Download(msgspec.Struct, frozen=True):
    """``close`` ends it, read or not; ``size`` is ``None`` for a folder, which comes as a zip. Of a part ``first`` is
    its place in the ``whole``."""

    name: str
    size: int | None
    pieces: Iterator[bytes]
    close: Callable[[], None]
    first: int | None = None
    whole: int | None = None


class FileVerbs(VisitVerbs):
    _orders: Counter[str]
    _orders_lock: threading.Lock

    # --- looking ------------------------------------------------------------------------------
    def list_folder(self, caller: Actor, site: str, at: str) -> file_views.FolderView:
        """``at``: a path relative to the working copy, or one of the container. Raises ``NotFound``, ``Refused``."""
        stored = self._workable(caller, site)
        found = self._order(stored, {"verb": "look", "at": clean(at)})
        return msgspec.convert({**found, "at": clean(at)}, file_views.FolderView)

    def read_text(self, caller: Actor, site: str, at: str) -> file_views.TextFileView:
        """Raises ``Refused`` for what is no text or too large to be edited in a page."""
        stored = self._workable(caller, site)
        with self._run(stored, {"verb": "read", "at": clean(at)}) as (head, out):
            if not head["text"]:
                raise Refused("this is no text, or too long to be edited here", field="at", hint="download it")
            text = out.read().decode("utf-8")
        return file_views.TextFileView(at=clean(at), text=text, etag=head["etag"], bytes=head["bytes"])

    def show_file(self, caller: Actor, site: str, at: str) -> file_views.FileEntry:
        """Raises ``NotFound``."""
        stored = self._workable(caller, site)
        return msgspec.convert(self._order(stored, {"verb": "about", "at": clean(at)}), file_views.FileEntry)

    def may_change_files(self, caller: Actor, site: str) -> None:
        """Raise what a change would, before anything is sent."""
        self._workable(caller, site, change=True)

    def download(self, caller: Actor, site: str, at: str, span: Span | None = None) -> Download:
        """A file as it is, or a part of it; a folder as a zip, always whole. Raises ``NoSuchPart``."""
        stored = self._workable(caller, site)
        at = clean(at)
        running = contextlib.ExitStack()
        order: dict[str, Any] = {"verb": "send", "at": at}
        if span is not None:
            order |= {"first": span.first, "last": span.last}
        head, out = running.enter_context(self._run(stored, order, seconds=None))

        def pieces() -> Iterator[bytes]:
            with running:
                while piece := out.read(_PIECE):
                    yield piece

        name = posixpath.basename(at) or stored.site.name
        return Download(
            f"{name}.zip" if head["folder"] else name,
            head["bytes"],
            pieces(),
            running.close,
            head.get("first"),
            head.get("whole"),
        )

    # --- changing -----------------------------------------------------------------------------
    def write_text(self, caller: Actor, site: str, at: str, text: str, etag: str) -> file_views.TextFileView:
        """Store a text that is still the one with ``etag``; empty: a new one. Raises ``VersionConflict`` (412)."""
        stored = self._workable(caller, site, change=True)
        at, content = clean(at), text.encode()
        head = self._order(stored, {"verb": "write", "at": at, "etag": etag}, content)
        self._note(caller, "files", f"wrote {at}", stored.site)
        return file_views.TextFileView(at=at, text=text, etag=head["etag"], bytes=len(content))

    def make_folder(self, caller: Actor, site: str, at: str, name: str) -> None:
        stored = self._workable(caller, site, change=True)
        path = posixpath.join(clean(at), _name(name))
        self._order(stored, {"verb": "folder", "at": path})
        self._note(caller, "files", f"made the folder {path}", stored.site)

    def rename_file(self, caller: Actor, site: str, at: str, name: str, to: str) -> None:
        """``to``: another name, or a path from the folder ``at`` on. What is there already is never written over."""
        stored = self._workable(caller, site, change=True)
        old = posixpath.join(clean(at), _name(name))
        new = clean(posixpath.join(clean(at), to)) if to.strip() else ""
        if not new:
            raise InvalidInput("is empty", field="to")
        self._order(stored, {"verb": "rename", "at": old, "to": new})
        self._note(caller, "files", f"renamed {old} to {new}", stored.site)

    def move_file(self, caller: Actor, site: str, at: str, to: str) -> None:
        """Both from the working copy on, or absolute in the container."""
        stored = self._workable(caller, site, change=True)
        old, new = clean(at), clean(to)
        for field, path in (("at", old), ("to", new)):
            if not path.strip("/"):
                raise InvalidInput("is empty", field=field)
        self._order(stored, {"verb": "rename", "at": old, "to": new})
        self._note(caller, "files", f"renamed {old} to {new}", stored.site)

    def delete_files(self, caller: Actor, site: str, at: str, names: tuple[str, ...]) -> None:
        """Folders with all that is in them."""
        stored = self._workable(caller, site, change=True)
        if not names:
            raise InvalidInput("choose something first", field="names")
        at = clean(at)
        self._order(stored, {"verb": "delete", "at": at, "names": [_name(each) for each in names]})
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        self._note(caller, "files", f"deleted {posixpath.join(at, names[0])}{more}", stored.site)

    def unpack_file(self, caller: Actor, site: str, at: str, name: str) -> int:
        """An archive (zip, tar, tar.gz, …), beside itself; gives how many files it held."""
        stored = self._workable(caller, site, change=True)
        path = posixpath.join(clean(at), _name(name))
        head = self._order(stored, {"verb": "unpack", "at": path})
        self._note(caller, "files", f"unpacked {path}: {head['files']} files", stored.site)
        return int(head["files"])

    def put_files(self, caller: Actor, site: str, at: str, upload: str, name: str) -> int:
        """An upload into a folder: as the file ``name``, or, when that is empty, the files of the tar that it is."""
        stored = self._workable(caller, site, change=True)
        at = clean(at)
        order = {"verb": "put", "at": at, "name": _name(name)} if name else {"verb": "take", "at": at}
        try:
            if problems := self._check_upload_there(upload):
                raise InvalidInput(problems=problems)
            with self._open_upload(upload) as fd, os.fdopen(os.dup(fd), "rb") as source:
                head = self._order(stored, order, source)
        finally:
            self._drop_upload(upload)
        count = int(head.get("files", 1))
        self._note(caller, "files", f"uploaded {name or f'{count} files'} to {at or 'the working copy'}", stored.site)
        return count

    # --- the program ----------------------------------------------------------------------------
    def _workable(self, caller: Actor, site: str, *, change: bool = False) -> Stored:
        stored = self._stored(caller, Right.SITE_FILES, site, elsewhere=True)
        if stored.pending:
            raise Refused(f"site {stored.site.name} is not there yet, or not any more", field="site")
        if change:
            self._need_room()
        return stored

    def _file_argv(self, order: str) -> tuple[str, ...]:
        return (*_PYTHON, _text(), order)

    def _order(self, stored: Stored, order: dict[str, Any], feed: bytes | BinaryIO = b"") -> dict[str, Any]:
        with self._run(stored, order, feed) as (head, _):
            return head

    @contextlib.contextmanager
    def _run(
        self,
        stored: Stored,
        order: dict[str, Any],
        feed: bytes | BinaryIO = b"",
        seconds: float | None = _LONGEST_SECONDS,
    ) -> Iterator[tuple[dict[str, Any], BinaryIO]]:
        """The first line of the program's answer, and the file in which the rest comes; it ends with the block."""
        site = stored.site
        with self._orders_lock:
            if self._orders[site.id] >= _AT_ONCE:
                raise Temporary("too much is going on in these files at once", hint="try again in a moment")
            self._orders[site.id] += 1
        try:
            program = self.start(self._file_program(site, msgspec.json.encode(order).decode()))
            timer = threading.Timer(seconds, program.hang_up) if seconds is not None else None
            if timer is not None:
                timer.daemon = True
                timer.start()
            try:
                with _Talk(program, feed) as out:
                    yield _head(out), out
            finally:
                if timer is not None:
                    timer.cancel()
        finally:
            with self._orders_lock:
                self._orders[site.id] -= 1
                if not self._orders[site.id]:
                    del self._orders[site.id]


class _Talk:
    """Feeds a program and gives its output as a file; what it complains of is dropped. Ends it at the end."""

    def __init__(self, program: Program, feed: bytes | BinaryIO) -> None:
        self._program = program
        self._feed = feed
        stdin, stdout, self._stderr = program.fds
        self._out: BinaryIO = os.fdopen(stdout, "rb")
        self._threads = [
            threading.Thread(target=self._write, args=(stdin,), daemon=True),
            threading.Thread(target=self._drop, daemon=True),
        ]

    def __enter__(self) -> BinaryIO:
        for thread in self._threads:
            thread.start()
        return self._out

    def __exit__(self, *_: object) -> None:
        self._program.hang_up()
        self._out.close()
        with contextlib.suppress(AlveoleError, OSError):
            self._program.wait()
        for thread in self._threads:
            thread.join(10.0)

    def _write(self, fd: int) -> None:
        with contextlib.suppress(OSError), os.fdopen(fd, "wb", buffering=0) as file:
            if isinstance(self._feed, bytes):
                view = memoryview(self._feed)
                while view:
                    view = view[file.write(view) :]
                return
            while piece := self._feed.read(_PIECE):
                view = memoryview(piece)
                while view:
                    view = view[file.write(view) :]

    def _drop(self) -> None:
        with contextlib.suppress(OSError), os.fdopen(self._stderr, "rb", buffering=0) as file:
            while file.read(4096):
                pass


def _head(out: BinaryIO) -> dict[str, Any]:
    try:
        line = out.readline(_HEAD_MAX)
        head: dict[str, Any] = msgspec.json.decode(line)
    except (OSError, msgspec.DecodeError) as error:
        raise Temporary("the program in the container was cut", hint="try again") from error
    if code := head.get("wrong"):
        raise _WRONG.get(code, InvalidInput)(str(head.get("text", ""))[:300], field="at")
    return head


@cache
def _text() -> str:
    return (files("alveole") / "data" / "visit" / "filework.py").read_text(encoding="utf-8")


def clean(at: str) -> str:
    """``at`` without dots and doubled slashes, so that one folder has one address. Raises ``InvalidInput``."""
    if "\0" in at or len(at) > 4000:
        raise InvalidInput("is no path", field="at")
    if not at.strip("/.") and not at.startswith("/"):
        return ""
    path = posixpath.normpath(at)
    if path == ".." or path.startswith("../"):
        raise InvalidInput("leads out of the working copy", field="at")
    return "" if path == "." else "/" + path.lstrip("/") if path.startswith("/") else path


def _name(name: str) -> str:
    """One part of a path; slashes are for whole paths."""
    if name in ("", ".", "..") or "/" in name or "\0" in name or len(name.encode("utf-8", "replace")) > 255:
        raise InvalidInput(f"{name[:60]!r} is no name for a file", field="name", hint="without slashes")
    return name
