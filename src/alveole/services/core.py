"""What all verbs share: asking for rights, finding a site, idempotency, accepting a change."""

from __future__ import annotations

import contextlib
import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path

import sqlalchemy as sa

from alveole.config import Settings
from alveole.errors import AlveoleError, Denied, InvalidInput, NoRoom, NotFound, Problem, Refused
from alveole.failpoints import hit
from alveole.journal import Journal, Live
from alveole.loop.compile import site_domain
from alveole.loop.reconcile import Reconciler
from alveole.model.addressing import Addressing
from alveole.model.change import Change
from alveole.model.site import Limits, Site
from alveole.people.attempts import Attempts
from alveole.people.directory import Directory
from alveole.people.model import Actor, Held, Quota
from alveole.people.rights import Right, may
from alveole.ports import AgentPort
from alveole.services.certifying import Certifier
from alveole.services.naming import Naming
from alveole.services.watching import Checks
from alveole.store import Store, Stored, Transaction, tables
from alveole.store.apps import AppStore
from alveole.ticker import Ticker

#: What nobody does to an environment by itself: no stage is skipped by accident.
_THROUGH_ITS_APPLICATION = frozenset({Right.SITE_RELEASE, Right.SITE_DESTROY, Right.SITE_GIVE})
#: What is kept here of a site on another machine.
_OF_ELSEWHERE = frozenset(
    {
        Right.SITE_LOOK,
        Right.SITE_CHECKS,
        Right.SITE_DESTROY,
        Right.SITE_SHARE,
        Right.SITE_GIVE,
        Right.SITE_MOVE,
    }
)
#: The owner of a site that belongs to no person and no team.
NOBODY = "nobody"


class VersionConflict(Refused):
    """The site is not any more as the caller saw it. HTTP 412."""

    http_status = 412


class Core(ABC):
    """State shared by the groups of verbs; each group is a mix-in of :class:`alveole.services.Services`."""

    settings: Settings
    store: Store
    people: Directory
    attempts: Attempts
    apps: AppStore
    journal: Journal
    agent: AgentPort
    loop: Reconciler
    addressing: Addressing
    started_at: float
    ticker: Ticker
    checks: Checks
    naming: Naming
    certifier: Certifier
    _anchor_problem: str

    # --- rights -------------------------------------------------------------------------------
    @staticmethod
    def _allow(caller: Actor, right: Right, held: Held | None = None) -> None:
        """Raise ``Denied`` unless ``caller`` may. For a site ask :meth:`_stored`: a foreign one must seem absent."""
        if not may(caller, right, held):
            if caller.entering:
                raise Denied("the second factor is still to be given", field="second-factor")
            raise Denied(f"{caller.name} ({caller.role}) may not do this", hint="ask an administrator")

    def _sees(self, caller: Actor, site: Site) -> bool:
        return may(caller, Right.SITE_LOOK, self.people.held(site))

    def _visible(self, caller: Actor) -> list[Stored]:
        """The sites that ``caller`` may look at, by name."""
        found = [each for each in self.store.sites.values() if self._sees(caller, each.site)]
        return sorted(found, key=lambda each: each.site.name)

    def _owner_for(self, caller: Actor, wanted: str | None) -> str:
        """What is stored as the owner of a new site. Raises ``InvalidInput``, ``Denied``."""
        owner = caller.person
        if wanted is not None and wanted != NOBODY:
            found = self.people.whom(wanted)
            if found is None and may(caller, Right.ACCOUNT_CHANGE):
                raise InvalidInput(
                    f"there is no person or team {wanted!r}", field="owner", hint="see: alveole account list"
                )
            # A name that is nobody's is denied like a stranger's: who is here is not everybody's to know.
            owner = found.id if found is not None else "?"
        elif wanted == NOBODY:
            owner = ""
        self._allow(caller, Right.SITE_CREATE, Held(owner))
        return owner or ("root" if caller.via == "socket" else NOBODY)

    def _used(self, owner: str, without: str = "") -> Quota:
        """What the plans of an owner's sites promise; but for the site ``without``."""
        sites = [
            each.site for each in self.store.sites.values() if each.site.owner == owner and each.site.id != without
        ]
        limits = [self._limits(site.plan) for site in sites]
        return Quota(
            sites=len(sites),
            memory_bytes=sum(each.memory_bytes for each in limits),
            disk_bytes=sum(each.disk_bytes or 0 for each in limits),
        )

    def _check_quota(self, owner: str, *sites: Site) -> None:
        """Raise ``NoRoom`` when ``owner`` may not have ``sites`` besides what they have.

        Called inside of the transaction that stores it, so that two requests at once cannot both fit.
        """
        if owner not in self.people.persons and owner not in self.people.teams:
            return
        allowed, used = self.people.quota(owner), self._used(owner, sites[0].id)
        limits = [self._limits(site.plan) for site in sites]
        memory = sum(each.memory_bytes for each in limits)
        disks = [each.disk_bytes for each in limits]
        disk = None if None in disks else sum(each or 0 for each in disks)
        plans = ", ".join(dict.fromkeys(site.plan for site in sites))
        whose = self.people.shown(owner)
        problems = []
        for field, word, most, have, more in (
            ("sites", "sites", allowed.sites, used.sites or 0, len(sites)),
            ("memory_bytes", "bytes of memory", allowed.memory_bytes, used.memory_bytes or 0, memory),
            ("disk_bytes", "bytes of disk", allowed.disk_bytes, used.disk_bytes or 0, disk),
        ):
            if most is None:
                continue
            hint = "choose a smaller plan, destroy a site, or ask an administrator"
            if more is None:
                text = f"{whose} may have {most} {word}, and plan {plans} has no limit of it"
                problems.append(Problem(field, text, "choose a plan with a limit"))
            elif have + more > most:
                text = f"{whose} has {have} {word} of {most} allowed, and this takes {more}"
                problems.append(Problem(field, text, hint))
        if problems:
            raise NoRoom(problems=problems)

    # --- finding ------------------------------------------------------------------------------
    def _stored(self, caller: Actor, right: Right, name: str, *, elsewhere: bool = False) -> Stored:
        """The site of this name or id. ``NotFound`` for one that ``caller`` may not even look at; ``Denied``.

        ``Refused`` for one on another machine, unless the caller knows what to do about that (``elsewhere``).
        """
        stored = self.store.site(name)
        if stored is None and name in self.store.damaged and may(caller, Right.PLATFORM_LOOK):
            raise Refused(f"site {name} was set aside: {self.store.damaged[name]}", field="site")
        if stored is None or not (caller.entering or self._sees(caller, stored.site)):
            raise NotFound(f"there is no site {name!r}", field="site", hint="see: alveole site list")
        self._allow(caller, right, self.people.held(stored.site))
        if stored.site.node and right not in _OF_ELSEWHERE and not elsewhere:
            node = stored.site.node
            raise Refused(
                f"site {stored.site.name} lives on {node}",
                field="site",
                hint=f"ask for this there, or bring it here: alveole site move {stored.site.name} --to here",
            )
        return stored

    def _free_to_change(
        self,
        caller: Actor,
        right: Right,
        name: str,
        version: int | None,
        *,
        superseding: bool = False,
        elsewhere: bool = False,
    ) -> Site:
        """The site, when ``caller`` may, nothing else is at work on it and it is as the caller saw it."""
        stored = self._stored(caller, right, name, elsewhere=elsewhere)
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
                f"site {site.name} is busy: change {live.id} ({live.change.verb} by {live.change.actor}) is going on",
                field="site",
                hint="wait for it to end",
            )
        of = self.apps.of_site(site.id) if right in _THROUGH_ITS_APPLICATION else None
        if of is not None:
            raise Refused(
                f"site {site.name} is {of[1].name.upper()} of the application {of[0].name}",
                field="site",
                hint="see: alveole app deliver, alveole app give, alveole app destroy",
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
                        actor=caller.key, key=key, digest=digest, change_id=live.id, created_at=time.time()
                    )
                )
            hit("services.accept")
        hit("services.accepted")
        self.naming.news()
        view = live.view()
        self._go(live)
        return view

    def _note(self, caller: Actor, verb: str, reason: str, site: Site | None = None) -> None:
        """Journal what is done already."""
        self.journal.end(self.journal.begin(verb, caller, site=site, reason=reason[:500]))

    @abstractmethod
    def _be_awake(self, site: Site, by: Actor | str) -> None:
        """Wake a site that sleeps, for what needs what runs there. Raises ``Temporary``."""

    @abstractmethod
    def _unwakeable(self, site_id: str) -> tuple[str, str]:
        """Why a visit would not wake a site that sleeps, and what helps; empty where it would."""

    @abstractmethod
    def _go(self, live: Live) -> None:
        """Set an accepted change going."""

    def _replay(self, caller: Actor, key: str | None, digest: str) -> Change | None:
        if key is None:
            return None
        table = tables.idempotency
        query = sa.select(table.c.digest, table.c.change_id).where(table.c.actor == caller.key, table.c.key == key)
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
