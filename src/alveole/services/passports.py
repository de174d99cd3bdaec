"""Carrying a site as one signed file: written here, taken in here.

What a passport says is input like a backup's manifest: decoded field by field, checked with the grammars of a request,
and no right, owner, id, address or uid is read from it (threat 10).
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import msgspec

from alveole import __version__, wholefile
from alveole.agent import protocol
from alveole.errors import AlveoleError, InvalidInput, NotFound, Problem, Refused
from alveole.failpoints import hit
from alveole.journal import Live, Work
from alveole.model.change import Change
from alveole.model.names import DIGEST, check_pattern, check_site_name
from alveole.model.site import Release, Site, Wanted
from alveole.people.model import Actor
from alveole.people.rights import Right, may
from alveole.remote import fleet, passport
from alveole.remote.passport import Head, Identity, Statement
from alveole.services.backups import BackupVerbs, read_manifest
from alveole.services.outside import OutsideVerbs
from alveole.store import Transaction, new_id

_KEPT_SECONDS = 86_400.0
#: What the change of an export, or of an import, remembers of the two copies of a move.
FIRST, ONTO = "first", "onto"


class PassportVerbs(BackupVerbs, OutsideVerbs):
    # --- who this is, and whom it believes ----------------------------------------------------
    def _identity(self) -> Identity:
        return Identity.load(self.settings.database.parent / "identity")

    def identity(self, caller: Actor) -> fleet.IdentityView:
        self._allow(caller, Right.CATALOGUE_LOOK)
        key = self._identity().public
        return fleet.IdentityView(
            key=key, fingerprint=passport.fingerprint(key), version=__version__, domain=self.settings.domain
        )

    def list_signers(self, caller: Actor) -> tuple[fleet.SignerView, ...]:
        self._allow(caller, Right.PLATFORM_LOOK)
        known = self._signers()
        return tuple(
            fleet.SignerView(name=name, key=known[name], fingerprint=passport.fingerprint(known[name]))
            for name in sorted(known)
        )

    def _signers(self) -> dict[str, str]:
        found = self._setting("signers", fleet.Signers)
        return dict(found.known) if found is not None else {}

    def trust_signer(self, caller: Actor, name: str, request: fleet.TrustSigner) -> None:
        """Take passports of that platform from now on. Again with another key: that one instead."""
        self._allow(caller, Right.NODE_CHANGE)
        problems = list(check_site_name(name))
        with contextlib.suppress(InvalidInput):
            passport.fingerprint(request.key)
            if problems:
                raise InvalidInput(problems=problems)
            self._put_setting("signers", fleet.Signers({**self._signers(), name: request.key}))
            self._note(caller, "trust-signer", f"{name} {passport.fingerprint(request.key)}")
            return
        problems.append(Problem("key", "is not the key of a platform", "see there: alveole node key"))
        raise InvalidInput(problems=problems)

    def distrust_signer(self, caller: Actor, name: str) -> None:
        self._allow(caller, Right.NODE_CHANGE)
        known = self._signers()
        if known.pop(name, None) is None:
            raise NotFound(f"there is no signer {name!r}", field="signer", hint="see: alveole node signers")
        self._put_setting("signers", fleet.Signers(known))
        self._note(caller, "distrust-signer", name)

    # --- out ----------------------------------------------------------------------------------
    @property
    def _carried(self) -> Path:
        """Passports that wait to be fetched, each named after its change."""
        return self.settings.database.parent / "carried"

    def export_site(self, caller: Actor, site: str, request: fleet.ExportSite, *, key: str | None = None) -> Change:
        if request.to is not None:
            passport.fingerprint(request.to)
        hint = "as the result of the change that wrote it"
        if request.since is not None and (wrong := check_pattern(request.since, DIGEST, "since", "an archive", hint)):
            raise InvalidInput(problems=wrong)

        def build(transaction: Transaction) -> Live:
            stored = self._stored(caller, Right.SITE_EXPORT, site)
            if stored.pending:
                raise Refused(f"site {stored.site.name} is not complete", field="site")
            return self.journal.begin(
                "export",
                caller,
                site=stored.site,
                work=Work(key=request.to or "", note=FIRST if request.first else request.since or ""),
                transaction=transaction,
            )

        return self._accept(caller, self._digest("export", site, request.digest()), key, build, self._need_room)

    def passport_file(self, caller: Actor, site: str, change: str) -> Path:
        """The file that the change ``change`` has written about ``site``. ``NotFound`` a day later."""
        stored = self._stored(caller, Right.SITE_EXPORT, site)
        found = self.journal.get(change)
        path = self._carried / change
        if found is None or found.verb != "export" or found.site_id != stored.site.id or not path.exists():
            raise NotFound(f"there is no passport {change!r} of {stored.site.name}", field="change")
        return path

    def _flow_export(self, live: Live) -> None:
        to = live.work.key or self._identity().public
        path, archive = self._pack(live, self._site_of(live), to, live.id, live.work.note)
        self.journal.end(live, (), {"passport": live.id, "bytes": path.stat().st_size, "archive": archive})

    def _pack(self, live: Live, site: Site, to: str, name: str, after: str = "") -> tuple[Path, str]:
        """The passport of a site of this machine, for the platform ``to``, and the digest of its archive; a file that
        is whole or not there. ``after``: :data:`FIRST`, or the archive of the first copy that it brings up to date."""
        self._carried.mkdir(mode=0o700, exist_ok=True)
        for old in self._carried.iterdir():
            with contextlib.suppress(OSError):
                if time.time() - old.stat().st_mtime > _KEPT_SECONDS:
                    old.unlink()
        manifest = self._manifest(site)
        path = self._carried / name
        with tempfile.TemporaryFile(dir=self._carried) as archive:
            packed = self.agent.call(
                protocol.PackSite(
                    new_id("b"),
                    site.id,
                    site.number,
                    site.slot,
                    site.data_generation,
                    site.release,
                    manifest,
                    site.volumes,
                    work=after != FIRST,
                    first=after == FIRST,
                    since=after if after not in ("", FIRST) else None,
                ),
                (archive.fileno(),),
                live.show,
            )
            look = self.loop.looks.get(site.id)
            statement = Statement(
                manifest=manifest,
                promises=tuple(f"{each.id.kind}/{each.id.name}" for each in look.promises) if look else (),
                backups=self.store.backups(site.id),
                archive=packed.digest,
                archive_bytes=packed.bytes,
                since=after if after != FIRST else "",
            )
            archive.seek(0)
            live.show(f"sealing {packed.bytes} bytes")
            with wholefile.writing(path) as out:
                passport.write(out, self._identity(), to, site.name, statement, archive, time.time())
        hit("services.packed")
        live.say(f"passport of {site.name}: {path.stat().st_size} bytes, for {passport.fingerprint(to)}")
        return path, packed.digest

    # --- in -----------------------------------------------------------------------------------
    def import_site(self, caller: Actor, request: fleet.ImportSite, *, key: str | None = None) -> Change:
        """Make a site of a passport. Nothing is made before all of it was read and compared."""
        owner = self._owner_for(caller, request.owner)
        names = may(caller, Right.DOMAIN_CLAIM)

        def build(transaction: Transaction) -> Live:
            head = self._admitted(request)
            name = request.name or head.name
            site = (
                self._free_to_change(caller, Right.SITE_MOVE, name, None)
                if request.onto
                else self._reserve(owner, name, transaction)
            )
            if request.onto and site.wanted is not Wanted.STOPPED:
                raise Refused(f"site {name} is running", field="onto", hint="stop it first")
            work = Work(upload=request.upload, names=names, waits=request.stopped, note=ONTO if request.onto else "")
            reason = f"passport of {head.name} by {passport.fingerprint(head.signer)}"
            return self.journal.begin(
                "import", caller, site=site, reason=reason, work=work, result={"site": site.id}, transaction=transaction
            )

        return self._accept(caller, self._digest("import", request.digest()), key, build, self._need_room)

    def _admitted(self, request: fleet.ImportSite) -> Head:
        """The head of an uploaded passport that may be taken in; raises everything that speaks against it."""
        if missing := self._check_upload_there(request.upload):
            raise InvalidInput(problems=missing)
        with self._upload_path(request.upload).open("rb") as file:
            head = passport.read_head(file)
        problems = []
        own = self._identity().public
        signer = passport.fingerprint(head.signer)
        if head.signer != own and head.signer not in self._signers().values() and request.trust != signer:
            problems.append(
                Problem(
                    "trust",
                    f"{signer} has signed it, who is not known here",
                    f"compare it there, then: --trust {signer}",
                )
            )
        if head.to != own:
            hint = f"there: alveole site export {head.name} --for {own}"
            problems.append(
                Problem("upload", f"it is sealed to {passport.fingerprint(head.to)}, not to this one", hint)
            )
        name = request.name or head.name
        problems.extend(check_site_name(name))
        if self.store.site(name) is not None and not request.onto:
            problems.append(Problem("name", f"the name {name!r} is taken", "choose another name: --as NAME"))
        if problems:
            raise Refused(problems=problems)
        return head

    @contextlib.contextmanager
    def _opened(self, path: Path) -> Iterator[tuple[Statement, IO[bytes]]]:
        """What a passport says, and its archive, after all of it was compared."""
        self._carried.mkdir(mode=0o700, exist_ok=True)
        with path.open("rb") as file, tempfile.TemporaryFile(dir=self._carried) as archive:
            head = passport.read_head(file)
            yield passport.open_text(file, head, self._identity(), archive), archive

    def _flow_import(self, live: Live) -> None:
        site = self._site_of(live)
        if not live.work.stored and live.work.note == ONTO:
            site = self._bring_up_to_date(live, site, live.work.waits)
        elif not live.work.stored:
            try:
                site = self._take_in(live, site)
            except AlveoleError as error:
                self._take_back_create(live, site, error.problems, error.code)
                return
        self._finish(live, site, attempts=2)

    def _take_in(self, live: Live, site: Site) -> Site:
        with self._opened(self._upload_path(live.work.upload or "")) as (statement, archive):
            manifest = read_manifest(statement.manifest)
            if not live.work.names and (manifest.domains or manifest.path):
                live.say("left out: domains and the path, which an operator or an administrator adds", level="warning")
                manifest = msgspec.structs.replace(manifest, domains=(), path=None)
            wanted = self._from_manifest(live, manifest, site, True)
            self._check_quota(site.owner, wanted)
            release = self._unpacked(live, wanted, statement, archive)
        hit("services.unpacked")
        state = Wanted.STOPPED if live.work.waits else Wanted.RUNNING
        new = msgspec.structs.replace(
            wanted, release=release.digest if release else None, wanted=state, version=site.version + 1
        )
        with self.store.write() as transaction:
            if release is not None:
                transaction.put_release(new.id, release)
            transaction.save_site(new, self._names(new))
            self.journal.save(live, transaction, msgspec.structs.replace(live.work, stored=True))
        return new

    def _bring_up_to_date(self, live: Live, site: Site, stopped: bool) -> Site:
        with self._opened(self._upload_path(live.work.upload or "")) as (statement, archive):
            wanted = self._from_manifest(live, read_manifest(statement.manifest), site, False)
            # Of an earlier try of this: nobody has worked on a site that is on its way.
            self.agent.call(protocol.DropWork(site.id, site.number, whole=True))
            self._unpacked(live, wanted, statement, archive)
        hit("services.brought")
        new = msgspec.structs.replace(
            wanted, wanted=Wanted.STOPPED if stopped else Wanted.RUNNING, version=site.version + 1
        )
        with self.store.write() as transaction:
            transaction.save_site(new)
            self.journal.save(live, transaction, msgspec.structs.replace(live.work, stored=True))
        return new

    def _unpacked(self, live: Live, site: Site, statement: Statement, archive: IO[bytes]) -> Release | None:
        """Content and volumes as the data generation of ``site``, beside what is live."""
        request = protocol.UnpackSite(
            statement.archive,
            site.id,
            site.number,
            site.data_generation,
            self._limits(site.plan).disk_bytes,
            onto=statement.since or None,
        )
        release: Release | None = self.agent.call(request, (archive.fileno(),), live.show)
        if release is None:
            return None
        return msgspec.structs.replace(release, created_at=time.time(), sender=live.change.actor, note="passport")
