"""Looking into a backup: its directories, the archive itself, one file of it, one file put back."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

from alveole.agent import saving
from alveole.errors import InvalidInput, NotFound, Problem, Refused
from alveole.journal import Live, Work
from alveole.model.change import Change
from alveole.model.site import Backup
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.requests.backups import RestoreFile
from alveole.services.repositories import RepositoryVerbs
from alveole.store import Transaction
from alveole.views.backups import TreeView

_PATH_MAX = 4096
#: Directories of backups that were looked at last: a backup never changes, and reading one is slow.
_REMEMBERED = 64


class BrowseVerbs(RepositoryVerbs):
    _trees: dict[tuple[str, str], tuple[saving.ArchiveEntry, ...]]

    def browse_backup(self, caller: Actor, backup: str, path: str = "") -> TreeView:
        """What lies in one directory of the archive: ``release``, ``volumes`` and ``work`` at its top."""
        found = self._backup(caller, Right.BACKUP_READ, backup)
        path = checked_path(path)
        return TreeView(backup=found.id, path=path, entries=self._tree(found.snapshot, path))

    def _tree(self, snapshot: str, path: str) -> tuple[saving.ArchiveEntry, ...]:
        known = self._trees.get((snapshot, path))
        if known is None:
            known = self.agent.call(saving.BrowseBackup(snapshot, path))
            if len(self._trees) >= _REMEMBERED:
                self._trees.pop(next(iter(self._trees)))
            self._trees[snapshot, path] = known
        return known

    @contextlib.contextmanager
    def open_backup(self, caller: Actor, backup: str, path: str = "") -> Iterator[tuple[int, int, str]]:
        """The whole archive, or with ``path`` one file of it: an open file, its size and a name for it.

        All of the backup was read and compared before. The file is gone with the block.
        """
        found = self._backup(caller, Right.BACKUP_READ, backup)
        path = checked_path(path)
        self._need_room()
        with self._spooled() as file:
            size = self.agent.call(saving.FetchBackup(found.snapshot, found.digest, path), (file.fileno(),))
            stored = self.store.sites.get(found.site_id)
            said = f"{path or 'all'} of {found.id}"
            self._note(caller, "download-backup", said, stored.site if stored is not None else None)
            file.seek(0)
            yield file.fileno(), size, path.rpartition("/")[2] or f"{found.site_name}-{found.id}.tar"

    @contextlib.contextmanager
    def _spooled(self) -> Iterator[BinaryIO]:
        """An empty file without a name, beside the uploads."""
        place = self.settings.database.parent / "uploads"
        place.mkdir(mode=0o700, exist_ok=True)
        with tempfile.TemporaryFile(dir=place) as file:
            yield file

    def restore_file(self, caller: Actor, backup: str, request: RestoreFile, *, key: str | None = None) -> Change:
        """Put one file of a volume, or a directory, back into the site it was saved from."""
        # Before anything is said of the path: whose backup it is.
        self._backup(caller, Right.BACKUP_RESTORE, backup)
        path = checked_path(request.path)
        if not path.startswith("volumes/") or path.count("/") < 2:
            raise InvalidInput(
                "is no file of a volume or of the content",
                field="path",
                hint="as in volumes/NAME/… or release/…",
            )

        def build(transaction: Transaction) -> Live:
            found = self._backup(caller, Right.BACKUP_RESTORE, backup)
            if found.site_id not in self.store.sites:
                raise Refused(f"site {found.site_name} is not there any more", field="backup", hint="restore it whole")
            site = self._free_to_change(caller, Right.BACKUP_RESTORE, found.site_id, None)
            work = Work(stored=True, backup=found.id, note=path)
            reason = f"{path} of {found.id}"
            return self.journal.begin(
                "restore-file", caller, site=site, reason=reason, work=work, transaction=transaction
            )

        return self._accept(caller, self._digest("restore-file", backup, path), key, build, self._need_room)

    def _flow_restore_file(self, live: Live) -> None:
        site, backup = self._site_of(live), self._at_hand(live, live.work.backup or "")
        if backup is None:
            raise Refused("the backup is gone", field="backup")
        files = self.agent.call(self._file_request(backup, site.number, site.data_generation, live), say=live.show)
        live.say(f"{live.work.note}: {files} put back")
        self.journal.end(live, (), {"files": files})

    @staticmethod
    def _file_request(backup: Backup, number: int, generation: int, live: Live) -> saving.RestoreFile:
        return saving.RestoreFile(backup.snapshot, backup.digest, backup.site_id, number, generation, live.work.note)


def checked_path(path: str) -> str:
    path = path.strip("/")
    if len(path) > _PATH_MAX or "\0" in path:
        raise InvalidInput(problems=[Problem("path", "is no path")])
    if {"..", "."} & set(path.split("/")):
        raise NotFound("there is no such path in a backup", field="path")
    return path
