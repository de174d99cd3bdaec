"""Modules from elsewhere: added, listed, removed. What is checked of them is in :mod:`alveole.origins`."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
import time
from pathlib import Path

import msgspec

from alveole import origins
from alveole import requests as ask
from alveole.catalogue.sources import load
from alveole.errors import AlveoleError, InvalidInput, NotFound, Problem, Refused
from alveole.failpoints import hit
from alveole.journal import Live, Work
from alveole.model.change import Change
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.services.modules import Compositions
from alveole.store import Transaction
from alveole.views import modules as module_views

_NAME = r"^[a-z][a-z0-9-]{0,30}\Z"
#: What is known of a source, beside its modules; no module's folder starts with a dot.
_RECORD = ".source.json"


class SourceRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    source: str
    pin: str
    signer: str
    added_at: float
    added_by: str


class SourceVerbs(Compositions):
    def list_sources(self, caller: Actor) -> tuple[module_views.SourceView, ...]:
        self._allow(caller, Right.CATALOGUE_LOOK)
        catalogue = self.catalogue()
        found = []
        for name, folder in self._sources():
            record, problem = _read(folder)
            modules = tuple(each.name for each in catalogue.modules.values() if each.origin == name)
            folders = {each.name for each in folder.iterdir() if not each.name.startswith(".")}
            aside = [f"{each}: {catalogue.aside[each]}" for each in sorted(folders) if each in catalogue.aside]
            found.append(
                module_views.SourceView(
                    name=name,
                    source=record.source,
                    pin=record.pin,
                    signer=record.signer,
                    modules=tuple(sorted(modules)),
                    added_at=record.added_at,
                    added_by=record.added_by,
                    problem="; ".join([*([problem] if problem else []), *aside]),
                )
            )
        return tuple(found)

    def add_source(self, caller: Actor, request: ask.AddSource, *, key: str | None = None) -> Change:
        self._allow(caller, Right.MODULE_CHANGE)

        def build(transaction: Transaction) -> Live:
            request_ = self._checked_source(caller, request)
            return self.journal.begin(
                "add-modules",
                caller,
                reason=f"{request_.name} from {origins.shown(request_.source)} at {request_.pin[:19]}"[:500],
                work=Work(upload=request_.upload, source=request_),
                result={"source": request_.name},
                transaction=transaction,
            )

        return self._accept(caller, request.digest(), key, build, self._need_room)

    def _checked_source(self, caller: Actor, request: ask.AddSource) -> ask.AddSource:
        """All that is wrong with the request, before anything is fetched; with its name filled in."""
        problems = list(origins.check(request.source, request.pin, request.signature, request.upload is not None))
        name = request.name or origins.name_of(request.source)
        if not re.match(_NAME, name):
            problems.append(Problem("name", f"{name!r} is not a name of a source", "use a-z, 0-9 and -: --name NAME"))
        if request.upload is not None:
            problems.extend(self._check_upload_there(request.upload))
        elif request.source.startswith("/") and caller.via != "socket":
            # What control may read is not everybody's who has a token.
            problems.append(Problem("source", "is a path of this machine", "only root on it may name one"))
        if problems:
            raise InvalidInput(problems=problems)
        return msgspec.structs.replace(request, name=name)

    def _flow_add_modules(self, live: Live) -> None:
        request = live.work.source
        if request is None:
            raise AlveoleError("the request is gone", hint="ask for it again")
        top = self.settings.module_sources
        top.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sweep(top)
        # Beside its place, so that it is put there by one rename; hidden, so that nobody takes it for a source.
        work = Path(tempfile.mkdtemp(prefix=".adding-", dir=top))
        try:
            fetched = origins.fetch(
                request.source,
                request.pin,
                request.signature,
                self._upload_path(request.upload) if request.upload is not None else None,
                Path(self.settings.modules.signers),
                work,
                live.show,
            )
            self._check_modules(request.name, fetched.modules)
            record = SourceRecord(
                origins.shown(request.source), request.pin, fetched.signer, time.time(), live.change.actor
            )
            (fetched.modules / _RECORD).write_bytes(msgspec.json.encode(record))
            hit("services.source-checked")
            names = sorted(each.name for each in fetched.modules.iterdir() if not each.name.startswith("."))
            _put(fetched.modules, top / request.name, work)
        finally:
            shutil.rmtree(work, ignore_errors=True)
            self._drop_upload(request.upload)
        live.say(f"{', '.join(names)}, signed by {fetched.signer}")
        self.journal.end(live, (), {"source": request.name, "modules": ", ".join(names), "signer": fetched.signer})

    def _check_modules(self, source: str, folder: Path) -> None:
        """Every module must be sound, and none may take the name of another's."""
        admin = Path(self.settings.modules.directory)
        rest = tuple(each for each in self._sources() if each[0] != source)
        problems = [*origins.lint_all(folder, load((*rest, (source, folder)), admin=admin))]
        others = load(rest, admin=admin)
        for each in sorted(folder.iterdir()):
            taken = others.get(each.name)
            if taken is not None:
                problems.append(
                    Problem(each.name, f"is the name of a module of {taken.origin}", "its author must choose another")
                )
        if problems:
            raise Refused(problems=problems)

    def _sweep(self, top: Path) -> None:
        """What a control that was killed left half way."""
        busy = any(live.change.verb == "add-modules" for live in self.journal.all_live())
        for each in top.glob(".adding-*"):
            with contextlib.suppress(OSError):
                if not busy or time.time() - each.stat().st_mtime > 3600:
                    shutil.rmtree(each)

    def remove_source(self, caller: Actor, source: str) -> None:
        self._allow(caller, Right.MODULE_CHANGE)
        folder = dict(self._sources()).get(source)
        if folder is None:
            raise NotFound(f"there is no source {source!r}", field="source", hint="see: alveole module sources")
        names = {each.name for each in self.catalogue().modules.values() if each.origin == source}
        users = [
            stored.site.name
            for stored in self.store.sites.values()
            if stored.site.application is not None and names & stored.site.application.modules.keys()
        ]
        if users:
            some = ", ".join(users[:3]) + (", …" if len(users) > 3 else "")
            raise Refused(
                f"{len(users)} {'sites are' if len(users) > 1 else 'site is'} made of its modules: {some}",
                field="source",
                hint="destroy them first",
            )
        gone = Path(tempfile.mkdtemp(prefix=".adding-", dir=folder.parent))
        folder.rename(gone / "old")
        shutil.rmtree(gone, ignore_errors=True)
        self.journal.end(self.journal.begin("remove-modules", caller, reason=source))


def _read(folder: Path) -> tuple[SourceRecord, str]:
    try:
        return msgspec.json.decode((folder / _RECORD).read_bytes(), type=SourceRecord), ""
    except (OSError, msgspec.DecodeError) as error:
        return SourceRecord("", "", "", 0.0, ""), f"its record cannot be read: {error}"


def _put(fresh: Path, place: Path, aside: Path) -> None:
    """``fresh`` in place of ``place``; what was there goes to ``aside``, and comes back when that fails."""
    old = aside / "old"
    if place.exists():
        place.rename(old)
    try:
        fresh.rename(place)
    except OSError:
        if old.exists():
            old.rename(place)
        raise
