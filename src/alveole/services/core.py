"""What all verbs share: rights, finding a site, idempotency, accepting a change."""

from __future__ import annotations

import contextlib
import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path

import sqlalchemy as sa

from alveole import tables
from alveole.compile import site_domain
from alveole.config import Settings
from alveole.errors import AlveoleError, Denied, InvalidInput, NoRoom, NotFound, Problem, Refused
from alveole.failpoints import hit
from alveole.journal import Journal, Live
from alveole.model.addressing import Addressing
from alveole.model.change import Change
from alveole.model.site import Limits, Site
from alveole.ports import AgentPort
from alveole.reconcile import Reconciler
from alveole.requests import Actor, Role
from alveole.store import Store, Stored, Transaction

#: Which roles may do what. What is not here is denied to everybody.
RIGHTS: dict[str, frozenset[Role]] = {
    "look": frozenset({Role.ADMIN, Role.READER}),
    # Logs, environments and programs inside a site may show secrets.
    "look-inside": frozenset({Role.ADMIN}),
    "change-sites": frozenset({Role.ADMIN}),
    "change-platform": frozenset({Role.ADMIN}),
    "tokens": frozenset({Role.ADMIN}),
}


class VersionConflict(Refused):
    """The site is not any more as the caller saw it. HTTP 412."""

    http_status = 412


class Core(ABC):
    """State shared by the groups of verbs; each group is a mix-in of :class:`alveole.services.Services`."""

    settings: Settings
    store: Store
    journal: Journal
    agent: AgentPort
    loop: Reconciler
    addressing: Addressing
    started_at: float

    # --- rights -------------------------------------------------------------------------------
    def _allow(self, caller: Actor, right: str) -> None:
        if caller.role not in RIGHTS.get(right, frozenset()):
            raise Denied(f"{caller.name} ({caller.role}) may not do this", hint="ask an administrator")

    # --- finding ------------------------------------------------------------------------------
    def _stored(self, name: str) -> Stored:
        stored = self.store.site(name)
        if stored is None:
            if name in self.store.damaged:
                raise Refused(f"site {name} was set aside: {self.store.damaged[name]}", field="site")
            raise NotFound(f"there is no site {name!r}", field="site", hint="see: alveole site list")
        return stored

    def _free_to_change(self, name: str, version: int | None, *, superseding: bool = False) -> Site:
        """The site, when nothing else is at work on it and it is as the caller saw it."""
        stored = self._stored(name)
        site = stored.site
        if version is not None and version != site.version:
            raise VersionConflict(
                f"site {site.name} was changed meanwhile (it has version {site.version}, you saw {version})",
                field="version",
                hint="look at it again",
            )
        live = self.journal.of_site(site.id)
        if live is not None and (stored.pending or not superseding or live.change.verb == "destroy"):
            raise Refused(
                f"site {site.name} is busy: change {live.id} ({live.change.verb}) is going on",
                field="site",
                hint="wait for it to end",
            )
        if stored.pending == "destroy":
            raise Refused(f"site {site.name} is being destroyed", field="site", hint="destroy it again to finish")
        return site

    def _limits(self, plan: str) -> Limits:
        return self.store.plans[plan].limits

    def _names(self, site: Site) -> tuple[str, ...]:
        """What the site holds in the table of names: its domains and its path."""
        own = (site_domain(site.name, self.settings), *site.domains)
        return own if site.path is None else (*own, f"@{site.path}")

    def _need_room(self) -> None:
        """Raise ``NoRoom`` for what makes the platform grow while only the last reserve is left."""
        if self.store.reserve.short():
            raise NoRoom("the state disk is full", hint="free some space; serving, stopping and deleting go on")

    # --- accepting ----------------------------------------------------------------------------
    def _accept(
        self,
        caller: Actor,
        digest: str,
        key: str | None,
        build: Callable[[Transaction], Live],
        before: Callable[[], None] | None = None,
    ) -> Change:
        """Store what ``build`` writes together with its change, in one commit, and set it going.

        The same ``key`` with the same ``digest`` gives the change it gave before (fault 2). ``before``
        runs only for a new request, outside of the transaction: checks that ask the agent.
        """
        if (change := self._replay(caller, key, digest)) is not None:
            return change
        if before is not None:
            try:
                before()
            except AlveoleError:
                # The same request, asked twice at once, is refused by its own effect.
                if (change := self._replay(caller, key, digest)) is not None:
                    return change
                raise
        with self.store.write() as transaction:
            # Again, now that no other request can come between.
            if (change := self._replay(caller, key, digest)) is not None:
                return change
            live = build(transaction)
            if key is not None:
                transaction.connection.execute(
                    sa.insert(tables.idempotency).values(
                        actor=caller.name, key=key, digest=digest, change_id=live.id, created_at=time.time()
                    )
                )
            hit("services.accept")
        hit("services.accepted")
        view = live.view()
        self._go(live)
        return view

    @abstractmethod
    def _go(self, live: Live) -> None:
        """Set an accepted change going."""

    def _replay(self, caller: Actor, key: str | None, digest: str) -> Change | None:
        if key is None:
            return None
        table = tables.idempotency
        query = sa.select(table.c.digest, table.c.change_id).where(table.c.actor == caller.name, table.c.key == key)
        with self.store.read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        if row.digest != digest:
            raise Refused("this key was used for another request", field="Idempotency-Key", hint="take a fresh key")
        return self.journal.get(row.change_id)

    @staticmethod
    def _digest(*words: str) -> str:
        return hashlib.sha256("\0".join(words).encode()).hexdigest()

    # --- uploads ------------------------------------------------------------------------------
    @property
    def _uploads(self) -> Path:
        return self.settings.database.parent / "uploads"

    def _upload_path(self, upload: str) -> Path:
        if not upload.isascii() or not upload.isalnum():
            raise InvalidInput(f"{upload!r} is not an upload", field="upload")
        return self._uploads / upload

    def _check_upload_there(self, upload: str) -> tuple[Problem, ...]:
        with contextlib.suppress(InvalidInput, OSError):
            if self._upload_path(upload).stat().st_size > 0:
                return ()
            return (Problem("upload", "is empty", "send an archive"),)
        return (Problem("upload", f"there is no upload {upload!r}", "send the content again"),)

    def _drop_upload(self, upload: str | None) -> None:
        if upload is not None:
            with contextlib.suppress(OSError, InvalidInput):
                self._upload_path(upload).unlink()

    @contextlib.contextmanager
    def _open_upload(self, upload: str) -> Iterator[int]:
        try:
            file = self._upload_path(upload).open("rb")
        except OSError as error:
            raise AlveoleError(f"the upload is gone: {error.strerror}", hint="send the content again") from error
        with file:
            yield file.fileno()
