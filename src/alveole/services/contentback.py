"""One file of a backup compared with what is there now, and one file of the content put back.

A file of a volume goes straight to where it was (:mod:`alveole.services.browsing`). Content is immutable: the file goes
into the working copy, by the same program and as the same user as in the file manager, and what then becomes a release
is the present content with that one file as it was. Whether it goes live is the site's own setting for files.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
from abc import abstractmethod

from alveole.agent import protocol
from alveole.agent.saving import FetchBackup
from alveole.errors import InvalidInput, NotFound, Refused
from alveole.failpoints import hit
from alveole.journal import Live, Work
from alveole.model.change import Change
from alveole.model.site import Arrival, Site
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.requests.backups import RestoreFile
from alveole.services.browsing import checked_path
from alveole.services.files import RELEASES, FileVerbs
from alveole.services.pastdays import PastVerbs
from alveole.store import Transaction
from alveole.views.backups import PreviewView

CONTENT, VOLUMES = "release/", "volumes/"
#: Longer texts are not compared line by line.
_TEXT_MAX = 256 * 1024
_LINES_MAX = 2000
_TICK_SECONDS = 0.05


class ContentBackVerbs(PastVerbs, FileVerbs):
    def preview_file(self, caller: Actor, backup: str, path: str) -> PreviewView:
        """How a file of a backup differs from the one that stands there now. Raises ``NotFound``."""
        if (told := self._previewed_there(caller, backup, path)) is not None:
            return told
        found = self._backup(caller, Right.BACKUP_READ, backup)
        path = checked_path(path)
        stored = self._stored(caller, Right.SITE_FILES, found.site_id)
        where = _inside(stored.site, path)
        with self.open_backup(caller, backup, path) as (fd, size, _name):
            then = os.pread(fd, _TEXT_MAX + 1, 0)
        now: bytes | None = None
        now_bytes: int | None = None
        with contextlib.suppress(NotFound), self._run(stored, {"verb": "send", "at": where}) as (head, out):
            if head["folder"]:
                raise InvalidInput("is a folder now", field="path")
            now_bytes = int(head["bytes"])
            now = out.read(_TEXT_MAX + 1)
        texts = [_text(each) for each in (then, now or b"")]
        diff: tuple[str, ...] = ()
        if texts[0] is not None and texts[1] is not None:
            diff = _difference(texts[1], texts[0])
        same = now == then and now_bytes == size and size <= _TEXT_MAX
        return PreviewView(
            backup=found.id,
            site=stored.site.name,
            path=path,
            bytes=size,
            now_bytes=now_bytes,
            same=same,
            text=None not in texts,
            diff=diff,
            content=path.startswith(CONTENT),
            live=not path.startswith(CONTENT) or stored.site.on_files is Arrival.LIVE,
        )

    @abstractmethod
    def _previewed_there(self, caller: Actor, backup: str, path: str) -> PreviewView | None:
        """Supplied by the class that joins the parts: the same from where the site lives; ``None`` for one here."""

    def restore_file(self, caller: Actor, backup: str, request: RestoreFile, *, key: str | None = None) -> Change:
        """Put one file, of a volume also a directory, back into the site it was saved from."""
        path = checked_path(request.path)
        if not path.startswith(CONTENT):
            return super().restore_file(caller, backup, request, key=key)
        self._backup(caller, Right.BACKUP_RESTORE, backup)

        def build(transaction: Transaction) -> Live:
            found = self._backup(caller, Right.BACKUP_RESTORE, backup)
            if found.site_id not in self.store.sites:
                raise Refused(f"site {found.site_name} is not there any more", field="backup", hint="restore it whole")
            site = self._free_to_change(caller, Right.SITE_RELEASE, found.site_id, None)
            note = f"{path} of {found.id}"
            waits = site.on_files is not Arrival.LIVE
            work = Work(backup=found.id, member=path, note=note, waits=waits)
            result: dict[str, str | int | float | None] = {"site": site.id}
            return self.journal.begin(
                "publish", caller, site=site, reason=note, work=work, result=result, transaction=transaction
            )

        return self._accept(caller, self._digest("restore-file", backup, path), key, build, self._need_room)

    def _flow_publish(self, live: Live) -> None:
        if live.work.member and not live.work.stored:
            self._put_into_work(live, self._site_of(live))
        super()._flow_publish(live)

    def _put_into_work(self, live: Live, site: Site) -> None:
        backup = self._at_hand(live, live.work.backup or "")
        if backup is None:
            raise Refused("the backup is gone", field="backup")
        member = live.work.member
        inside = member.removeprefix(CONTENT)
        state: protocol.WorkState = self.agent.call(protocol.LookAtWork(site.id, site.number))
        if state.fresh.files and not _is_only(state.fresh, inside):
            raise Refused(
                f"{', '.join(state.fresh.names[:3])} of the working copy is not published, and would be with it",
                field="path",
                hint=f"alveole site publish {site.name}, or alveole site work {site.name} --drop",
            )
        if state.there and not state.fresh.files and site.release not in (state.release, state.published):
            # Nothing of it is anybody's: it is made anew, over what is live.
            self.agent.call(protocol.DropWork(site.id, site.number))
        mode = self._mode_of(backup.snapshot, member)
        stored = self.store.sites[site.id]
        with self._spooled() as file:
            self.agent.call(FetchBackup(backup.snapshot, backup.digest, member), (file.fileno(),), live.show)
            hit("services.member-fetched")
            file.seek(0)
            at, name = posixpath.split(inside)
            order = {"verb": "put", "at": at, "name": name, "mode": mode, "parents": True}
            self._order(stored, order, file)
        hit("services.member-put")
        # What is written within a tick of the kernel's clock before it is kept counts as written after that.
        self.loop.pause(_TICK_SECONDS)
        live.say(f"{inside} is in the working copy as it was")

    def _mode_of(self, snapshot: str, member: str) -> int:
        """Of a file in a backup: whether it could be run."""
        folder, name = posixpath.split(member)
        for each in self._tree(snapshot, folder):
            if each.name == name and each.kind == "f":
                return 0o755 if each.mode & 0o100 else 0o644
        raise NotFound(f"there is no file {member[:200]!r} in the backup", field="path")


def _is_only(fresh: protocol.Changes, inside: str) -> bool:
    """Whether nothing but the file itself was changed: an earlier try that was cut has put it there."""
    # Names come quoted, and long ones shortened.
    return fresh.files == 1 and fresh.names[0].startswith(repr(inside[:100])[:-1])


def _inside(site: Site, path: str) -> str:
    """Where a file of a backup is in the container of the working copy."""
    if path.startswith(CONTENT):
        # What is live, and not the working copy, which may stand on an older release.
        return f"{RELEASES}/{(site.release or '').removeprefix('sha256:')}/{path.removeprefix(CONTENT)}"
    volume, _slash, rest = path.removeprefix(VOLUMES).partition("/")
    mount = next((each.path for each in site.volumes if each.name == volume), None)
    if not path.startswith(VOLUMES) or mount is None or not rest:
        raise InvalidInput("is no file of the content or of a volume of the site", field="path")
    return f"{mount}/{rest}"


def _text(content: bytes) -> str | None:
    if len(content) > _TEXT_MAX or b"\0" in content:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def _difference(now: str, then: str) -> tuple[str, ...]:
    import difflib

    lines = difflib.unified_diff(now.splitlines(), then.splitlines(), "now", "then", lineterm="")
    return tuple(line for line, _count in zip(lines, range(_LINES_MAX), strict=False))
