"""Versions of applications: sent, accepted or refused, kept, forgotten. What was sent never changes."""

from __future__ import annotations

import contextlib
import hashlib
import time

import msgspec

from alveole import requests as ask
from alveole.agent import protocol
from alveole.errors import AlveoleError, InvalidInput, NotFound, Problem, Refused
from alveole.failpoints import hit
from alveole.journal import Live, Work
from alveole.model.app import VERSION_NAME, Accept, App, Delivery, Difference, Stage, Version, VersionState
from alveole.model.change import Change
from alveole.model.names import check_pattern
from alveole.model.site import Release, Site
from alveole.people.model import Actor
from alveole.people.names import check_text
from alveole.people.rights import Right
from alveole.services.apps import AppVerbs
from alveole.services.appshow import version_view
from alveole.store import Transaction, new_id
from alveole.trust import signatures
from alveole.views.apps import VersionView

_NOTE_MAX = 4000
_CHUNK = 1 << 20


class VersionVerbs(AppVerbs):
    # --- looking ------------------------------------------------------------------------------
    def list_versions(self, caller: Actor, app: str) -> tuple[VersionView, ...]:
        found = self._app(caller, Right.APP_LOOK, app)
        history = self.apps.deployments(found.id)
        return tuple(version_view(each, history) for each in self.apps.versions(found.id))

    def show_version(self, caller: Actor, app: str, version: str) -> VersionView:
        found = self._app(caller, Right.APP_LOOK, app)
        return version_view(self._version(found, version), self.apps.deployments(found.id))

    def _version(self, app: App, name: str) -> Version:
        found = self.apps.version(app.id, name)
        if found is None:
            raise NotFound(
                f"{app.name} has no version {name!r}", field="version", hint=f"see: alveole app show {app.name}"
            )
        return found

    # --- sending ------------------------------------------------------------------------------
    def send_version(self, caller: Actor, app: str, request: ask.SendVersion, *, key: str | None = None) -> Change:
        """Unpack and keep what was uploaded; it waits then, or is accepted at once, as the application says."""

        def build(transaction: Transaction) -> Live:
            if request.work is not None:
                # Whoever an environment is shared with to work on may send what they made there.
                found, _own = self._environment(caller, Right.VERSION_SEND, app, request.work)
            else:
                found = self._app(caller, Right.VERSION_SEND, app)
            problems = [
                *check_pattern(request.version, VERSION_NAME, "version", "a version", "write it like 2.6 or v2.6.1"),
                *self._check_source_of(caller, found, request),
                *self._check_carried(caller, request),
                *check_text(request.note.replace("\n", " "), "note", _NOTE_MAX),
            ]
            if found.signers and request.work is not None:
                hint = "sign an archive, and send that"
                problems.append(Problem("work", f"{found.name} takes signed versions only", hint))
            elif found.signers and request.signature is None:
                hint = "minisign -S -m ARCHIVE, or gpg --armor --detach-sign ARCHIVE, and send what it made with it"
                problems.append(Problem("signature", f"{found.name} takes signed versions only", hint))
            elif request.signature is not None and not found.signers:
                hint = f"alveole app set {found.name} --signer KEY"
                problems.append(Problem("signature", f"{found.name} knows nobody who signs", hint))
            elif request.signature is not None:
                problems += signatures.check(request.signature)
            if problems:
                raise InvalidInput(problems=problems)
            self._check_new_name(found, request.version)
            work = Work(
                upload=request.upload,
                format=request.format,
                note=request.note,
                signature=request.signature or "",
                delivery=Delivery(found.id, request.work.lower(), "", "") if request.work is not None else None,
                carried=request.carried,
            )
            return self.journal.begin(
                "send-version",
                caller,
                site=found,
                reason=request.version,
                work=work,
                result={"app": found.id, "version": request.version},
                transaction=transaction,
            )

        return self._accept(caller, self._digest("send", app, request.digest()), key, build, self._need_room)

    def _check_new_name(self, app: App, name: str) -> None:
        sending = [
            live.change.actor
            for live in self.journal.all_live()
            if live.change.verb == "send-version" and live.change.site_id == app.id and live.change.reason == name
        ]
        if self.apps.version(app.id, name) is not None or sending:
            who = f"; {sending[0]} sends it at this moment" if sending else ""
            hint = "a version never changes: give it another name"
            raise Refused(f"{app.name} has a version {name} already{who}", field="version", hint=hint)

    def _flow_send_version(self, live: Live) -> None:
        app = self.apps.app(live.change.site_id or "")
        name = live.change.reason
        if app is None:
            raise Refused("the application is gone")
        if self.apps.version(app.id, name) is not None:
            # Control ended between the commit and the end of the change.
            self._drop_upload(live.work.upload)
            self.journal.end(live)
            return
        archive, signer = self._read_archive(live, app) if live.work.upload is not None else ("", "")
        release = self._content_of(live, app)
        hit("versions.imported")
        live.say(f"{release.files} files, {release.bytes} bytes, {release.digest[:19]}")
        newest = next((each for each in self.apps.versions(app.id) if each.state is not VersionState.REFUSED), None)
        difference: Difference = self.agent.call(
            protocol.CompareReleases(app.store, app.number, newest.release if newest else None, release.digest)
        )
        if newest is not None:
            told = f"{difference.added} added, {difference.changed} changed, {difference.removed} removed"
            live.say(f"against {newest.name}: {told}")
        now = time.time()
        carried = live.work.carried
        at_once = app.accept is Accept.AT_ONCE
        version = Version(
            id=new_id("v"),
            app=app.id,
            name=name,
            state=VersionState.ACCEPTED if at_once else VersionState.WAITING,
            archive=archive or release.digest,
            release=release.digest,
            bytes=release.bytes,
            files=release.files,
            created_at=now,
            sender=live.change.actor,
            sender_key=live.change.actor_key,
            note=live.work.note,
            signer=signer,
            decided_by="" if not at_once else "accepted at once",
            decided_at=now if at_once else None,
            against=newest.name if newest else "",
            difference=difference,
            built=release.digest if carried is not None else None,
            made_for=carried.made_for if carried is not None else {},
        )
        if not at_once:
            live.say(f"it waits: alveole app accept {app.name} {name}")
        result: dict[str, str | int | float | None] = {"state": str(version.state), "release": release.digest}
        self.journal.end(live, (), result, also=lambda transaction: self.apps.put_version(transaction, version))
        # Last: until the commit the archive is needed to go on after a death.
        self._drop_upload(live.work.upload)

    def _check_source_of(self, caller: Actor, app: App, request: ask.SendVersion) -> list[Problem]:
        if (request.upload is None) == (request.work is None):
            return [Problem("upload", "is given with a working copy, or neither is", "one of the two")]
        if request.upload is not None:
            return list(self._check_upload_there(request.upload))
        _app, own = self._environment(caller, Right.SITE_FILES, app.id, request.work or "")
        if node := self._site_at(own).node:
            hint = "send an archive of it"
            return [Problem("work", f"{own.name} lives on {node}, and its working copy is there", hint)]
        return []

    def _check_carried(self, caller: Actor, request: ask.SendVersion) -> list[Problem]:
        if request.carried is None:
            return []
        self._allow(caller, Right.NODE_CHANGE)
        return [Problem("carried", "says what an upload is")] if request.upload is None else []

    def _content_of(self, live: Live, app: App) -> Release:
        """The files under the application's lease: unpacked, or those of an environment's working copy."""
        delivery = live.work.delivery
        environment = app.environment(delivery.environment) if delivery is not None else None
        if environment is None:
            live.show("unpacking")
            with self._open_upload(live.work.upload or "") as fd:
                if live.work.carried is not None:
                    return self._unpacked_carried(live, app, live.work.carried, fd)
                request = protocol.ImportRelease(app.store, app.number, live.work.format)
                unpacked: Release = self.agent.call(request, (fd,), live.show)
                return unpacked
        site = self._site_at(environment)
        live.show("keeping the working copy")
        kept: Release = self.agent.call(protocol.KeepWork(site.id, site.number), say=live.show)
        copy = protocol.CopyRelease(site.id, site.number, kept.digest, app.store, app.number)
        self.agent.call(copy, say=live.show)
        self._drop_source(site, kept.digest)
        return kept

    def _unpacked_carried(self, live: Live, app: App, carried: ask.CarriedVersion, fd: int) -> Release:
        """What another machine has packed: the archive is compared before it is unpacked, and its files after."""
        request = protocol.UnpackSite(carried.archive, app.store, app.number, 1, None)
        found: Release | None = self.agent.call(request, (fd,), live.show)
        if found is None or found.digest != carried.release:
            came = found.digest[:19] if found is not None else "nothing"
            raise Refused(f"what came is {came}, not {carried.release[:19]}", field="upload", hint="send it again")
        live.say(f"compared with what was sent: {found.digest[:19]}")
        return found

    def _read_archive(self, live: Live, app: App) -> tuple[str, str]:
        """The digest of what was sent, and the key that signed it. Raises ``Refused`` for a wrong signature."""
        live.show("reading what was sent")
        path = self._upload_path(live.work.upload or "")
        try:
            with path.open("rb") as file:
                hasher = hashlib.sha256()
                while data := file.read(_CHUNK):
                    hasher.update(data)
                signer = ""
                if app.signers:
                    file.seek(0)
                    signer = signatures.verify(file, live.work.signature, app.signers)
                    live.say(f"signed with {signer}")
        except OSError as error:
            raise AlveoleError(f"the upload is gone: {error.strerror}", hint="send it again") from error
        return f"sha256:{hasher.hexdigest()}", signer

    # --- deciding -----------------------------------------------------------------------------
    def decide_version(self, caller: Actor, app: str, version: str, request: ask.DecideVersion) -> VersionView:
        """Accept or refuse. A refused one may still be accepted; one that is somewhere may not be refused any more."""
        found = self._app(caller, Right.VERSION_DECIDE, app)
        if problems := check_text(request.reason, "reason", 500):
            raise InvalidInput(problems=problems)
        state = VersionState.ACCEPTED if request.accept else VersionState.REFUSED
        with self.store.write() as transaction:
            old = self._version(found, version)
            if old.state is state:
                raise Refused(f"version {old.name} is {state} already", field="version")
            if not request.accept and (where := self._where(found, old)):
                raise Refused(f"version {old.name} is in {', '.join(where)}", field="version")
            decided = msgspec.structs.replace(
                old, state=state, decided_by=caller.name, decided_at=time.time(), reason=request.reason
            )
            self.apps.put_version(transaction, decided)
        verb = "accept-version" if request.accept else "refuse-version"
        self._note_app(caller, verb, found, f"{old.name}: {request.reason}" if request.reason else old.name)
        return version_view(decided, self.apps.deployments(found.id))

    def _where(self, app: App, version: Version) -> tuple[str, ...]:
        """The environments that serve the version or have it ready."""
        present = (Stage.LIVE, Stage.DELIVERED)
        found = [each for each in self.apps.deployments(app.id) if each.version == version.id and each.stage in present]
        return tuple(dict.fromkeys(each.environment for each in found))

    def forget_version(self, caller: Actor, app: str, version: str) -> None:
        """A version that is nowhere goes, with its files; nobody can roll back to it any more."""
        found = self._app(caller, Right.APP_CHANGE, app)
        old = self._version(found, version)
        if where := self._where(found, old):
            raise Refused(f"version {old.name} is in {', '.join(where)}", field="version")
        busy = [
            live
            for live in self.journal.all_live()
            if live.work.delivery is not None and live.work.delivery.version == old.id
        ]
        if busy:
            raise Refused(f"version {old.name} is at work: {busy[0].change.verb}", field="version")
        with self.store.write() as transaction:
            self.apps.delete_version(transaction, old.id)
        kept = {digest for each in self.apps.versions(found.id) for digest in (each.release, each.built)}
        for digest in {old.release, old.built or old.release} - kept:
            with contextlib.suppress(AlveoleError):
                self.agent.call(protocol.DropRelease(found.store, found.number, digest))
        self._note_app(caller, "forget-version", found, old.name)

    # --- building -----------------------------------------------------------------------------
    def _ready_version(self, live: Live, app: App, version: Version, site: Site) -> Version:
        """``version`` built for the modules of ``site``, once for all environments. Raises ``Refused`` when what was
        built for another environment cannot run on the base of this one."""
        building = site.application.building if site.application is not None else None
        if version.built is None:
            sent = Release(version.release, version.bytes, version.files, version.created_at)
            own = msgspec.structs.replace(site, id=app.store, number=app.number)
            built, made = self._built(live, own, sent, keep=True)
            hit("versions.built")
            now = made.application.building if made.application is not None else None
            made_for = now.made_for if now is not None and built.digest != sent.digest else {}
            version = msgspec.structs.replace(version, built=built.digest, made_for=made_for)
            with self.store.write() as transaction:
                self.apps.put_version(transaction, version)
        elif building is not None and version.made_for:
            there = self._versions(site.base, building)
            differing = [
                f"{name} {one}, and this one has {there.get(name, 'none')}"
                for name, one in version.made_for.items()
                if there.get(name) != one
            ]
            if differing:
                raise Refused(
                    f"version {version.name} was built for {'; '.join(differing)}",
                    field="environment",
                    hint="bring the bases of all environments to the same: alveole base upgrade",
                )
        return version
