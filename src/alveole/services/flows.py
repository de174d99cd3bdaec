"""What happens after a change was accepted, in a thread of its own.

Each flow is written so that it can be cut anywhere: ``work.stored`` says whether what was asked is in
the database. Before that, a change that was cut leaves nothing behind; after it, the flow just goes
on. A change of content or configuration whose new instance does not become ready is taken back, so
that a failed update never ends what ran.
"""

from __future__ import annotations

import contextlib
import logging
import time
from abc import abstractmethod

import msgspec

from alveole.agent import protocol
from alveole.agent.lending import LookAtPorts
from alveole.errors import AlveoleError, Problem, Refused
from alveole.failpoints import hit
from alveole.journal import RECONCILER, REPAIR, Live, Work
from alveole.loop import headstart
from alveole.loop.compile import compile_site, is_static
from alveole.loop.passes import Settled
from alveole.model.resource import Kind, WorkloadSpec, stamp
from alveole.model.site import Release, Site, UpdateMode
from alveole.services.sleep import Sleeping
from alveole.store import KnownBase, Transaction

log = logging.getLogger("alveole.services")
#: So long each check of a module may take where somebody waits for the answer.
_CHECK_SECONDS = 5.0
#: After a change what fails is asked once more: a process may have been started anew this moment.
_AGAIN_SECONDS = 2.0
#: What is told after these when a port leads to nobody.
_SAYS_PORTS = frozenset({"create", "set", "configure"})
#: What asks, or talks to, an instance that runs before anything is stored.
_NEEDS_AWAKE = frozenset({"deploy", "rollback", "synchronise", "move"})
_CUT = Problem("", "was cut: control ended before it was stored", "ask for it again")


class Flows(Sleeping):
    """The work behind the verbs. ``_go`` starts it, ``_resume`` takes it up after a restart."""

    def _go(self, live: Live) -> None:
        self.loop.submit(lambda: self._carry_out(live))

    def _carry_out(self, live: Live) -> None:
        # A verb without a flow of its own has stored what is wanted: start, stop, restart, set, rename and their like.
        flow = getattr(self, f"_flow_{live.change.verb.replace('-', '_')}", self._flow_settle)
        if live.work.forward is not None:
            flow = self._flow_forward
        try:
            site = self.store.sites.get(live.change.site_id or "")
            if site is not None and live.change.verb in _NEEDS_AWAKE:
                self._be_awake(site.site, live.change.actor)
            flow(live)
        except AlveoleError as error:
            self._fail(live, error.problems, error.code)
        except Exception as error:
            log.exception("change %s failed by a fault of ours", live.id)
            problem = Problem("", f"a fault of ours: {type(error).__name__}: {error}", "see the log")
            self._fail(live, (problem,), AlveoleError.code)

    def _fail(self, live: Live, problems: tuple[Problem, ...], code: str = "") -> None:
        """End a change with what was wrong. ``code``: of the error, for the command's exit status."""
        # A control that is being stopped leaves its changes running: the next one takes them up.
        if self.loop.stopping or self.journal.live(live.id) is None:
            return
        self._drop_upload(live.work.upload)
        self.journal.end(live, problems, {"code": code} if code else None)

    def _resume(self) -> None:
        """Take up what was going on when control ended."""
        for live in self.journal.resume():
            live.say("taken up again after a restart of control")
            self._resume_one(live)

    def _resume_one(self, live: Live) -> None:
        verb, work = live.change.verb, live.work
        stored = self.store.sites.get(live.change.site_id or "")
        if work.forward is not None:
            self._go(live)
        elif verb in ("exec", "ssh", "console", "operation"):
            self.journal.end(live, (Problem("", "control ended meanwhile"),))
        elif stored is not None and stored.pending == "create":
            self.loop.submit(lambda: self._take_back_create(live, stored.site, (_CUT,)))
        elif verb in ("update", "publish", "restore", "import-image", "pull-image", "add-modules") and not work.stored:
            self._drop_upload(work.upload)
            self.journal.end(live, (_CUT,))
        else:
            self._go(live)

    # --- pieces -------------------------------------------------------------------------------
    def _site_of(self, live: Live) -> Site:
        stored = self.store.sites.get(live.change.site_id or "")
        if stored is None:
            raise Refused("the site is gone")
        return stored.site

    def _import(self, live: Live, site: Site, *, first: bool = False) -> Release:
        live.show("unpacking")
        with self._open_upload(live.work.upload or "") as fd:
            request = protocol.ImportRelease(site.id, site.number, live.work.format, first)
            release: Release = self.agent.call(request, (fd,), live.show)
        hit("services.imported")
        live.say(f"{release.files} files, {release.bytes} bytes, {release.digest[:19]}")
        return msgspec.structs.replace(release, created_at=time.time(), sender=live.change.actor, note=live.work.note)

    def _flipped(self, old: Site, new: Site) -> Site:
        """``new`` in the other slot when its instance differs, so that the old one serves meanwhile."""
        if not old.runs or not new.runs:
            return new
        same = msgspec.structs.replace(new, slot=old.slot)
        if UpdateMode.STOP_START in (old.run.update, new.run.update):
            # Two instances must not have the same data at once: the same slot is made anew.
            return same
        if self._workload_stamp(old) == self._workload_stamp(same):
            return same
        return msgspec.structs.replace(new, slot=1 - old.slot)

    def _workload_stamp(self, site: Site) -> str:
        for item in compile_site(site, self.settings, self.loop.limits):
            if isinstance(item.spec, WorkloadSpec):
                return stamp(item.spec)
        return ""

    def _tell_plan(self, live: Live, site: Site) -> None:
        look = self.loop.looks.get(site.id)
        there = {item.id: item.digest for item in look.found} if look else {}
        due = [
            f"{item.id.kind}/{item.id.name}"
            for item in compile_site(site, self.settings, self.loop.limits)
            if there.get(item.id) != item.digest
        ]
        live.say(f"will make: {', '.join(due) or 'nothing'}", level="plan")

    def _store_content(self, live: Live, old: Site, new: Site, release: Release | None) -> Site:
        """The one commit that makes new content (or configuration) the wanted one."""
        new = self._flipped(old, msgspec.structs.replace(new, version=old.version + 1, asleep=0.0))
        self._tell_plan(live, new)
        with self.store.write() as transaction:
            stored = self.store.sites.get(old.id)
            if stored is None or stored.site.version != old.version:
                raise Refused("another change took its place meanwhile")
            fresh = None
            if release is not None:
                if all(each.digest != release.digest for each in self.store.releases(old.id)):
                    fresh = release.digest
                transaction.put_release(new.id, release)
            transaction.save_site(new, self._names(new))
            work = msgspec.structs.replace(live.work, stored=True, undo=old, release=fresh)
            self.journal.save(live, transaction, work)
        hit("services.content-stored")
        self._drop_upload(live.work.upload)
        return new

    def _finish(self, live: Live, site: Site, *, attempts: int, checked: bool = False) -> None:
        """Settle; when it fails and there is something to go back to, go back. ``checked``: then ask its modules."""
        # Again here: a death between the commit and the removal would leave it for a day.
        self._drop_upload(live.work.upload)
        settled = self.loop.settle(site, live, attempts=attempts, version=site.version)
        if self.loop.stopping and settled.problems:
            return
        undo = live.work.undo
        if settled.problems and settled.essential and undo is not None:
            self._take_back(live, site, undo, settled)
            return
        dropped = () if settled.problems else self._drop_old_releases(site)

        def forget(transaction: Transaction) -> None:
            for digest in dropped:
                transaction.delete_release(site.id, digest)

        result: dict[str, str | int | float | None] = {"release": site.release, "version": site.version}
        warnings = [self._warning(live, site)] if checked and not settled.problems else []
        if site.published and live.change.verb in _SAYS_PORTS and not settled.problems:
            warnings.append(self._unheard(live, site))
        if warning := "; ".join(filter(None, warnings)):
            result["warning"] = warning
        self.journal.end(live, settled.problems, result, also=forget if dropped else None)

    def check_links(self, site: Site) -> tuple[protocol.Link, ...]:
        """What the checks of its modules say of the instance that runs; nothing when none can be asked."""
        if not site.run.checks or not site.runs:
            return ()
        for slot in (site.slot, 1 - site.slot):
            request = protocol.CheckHealth(site.id, slot, site.run.checks, _CHECK_SECONDS)
            with contextlib.suppress(AlveoleError):
                links: tuple[protocol.Link, ...] = self.agent.call(request)
                return tuple(msgspec.structs.replace(link, name=f"check {link.name}") for link in links)
        return ()

    def port_links(self, site: Site) -> tuple[protocol.Link, ...]:
        """Whether its programs listen where ports of the machine lead; nothing where that cannot be asked."""
        if not site.published or not site.runs or site.node:
            return ()
        with contextlib.suppress(AlveoleError):
            links: tuple[protocol.Link, ...] = self.agent.call(LookAtPorts(site.id, site.slot, site.published))
            return links
        return ()

    def _unheard(self, live: Live, site: Site) -> str:
        """Ports that lead to nobody: told, for the site answers all the same."""
        failing = [link for link in self.port_links(site) if not link.ok]
        if failing:
            # Its other programs may be a moment behind the one that answers requests.
            self.loop.pause(_AGAIN_SECONDS)
            failing = [link for link in self.port_links(site) if not link.ok]
        said = [f"{link.name} leads to nobody: {link.asked}: {link.came}" for link in failing]
        for text in said:
            live.say(text, level="warning")
        return "; ".join(said)

    def _warning(self, live: Live, site: Site) -> str:
        """What of the checks fails though the site answers: told, and no reason to take the change back."""
        live.show("asking its modules whether all is well")
        failing = [link for link in self.check_links(site) if not link.ok]
        if failing:
            self.loop.pause(_AGAIN_SECONDS)
            failing = [link for link in self.check_links(site) if not link.ok]
        said = [f"{link.name} fails: {link.asked}: {link.came}" for link in failing]
        for text in said:
            live.say(text, level="warning")
        return "; ".join(said)

    def _take_back(self, live: Live, new: Site, undo: Site, settled: Settled) -> None:
        live.say("the new instance did not become ready: going back", level="error")
        back = msgspec.structs.replace(undo, version=new.version + 1)
        added = live.work.release
        with self.store.write() as transaction:
            stored = self.store.sites.get(new.id)
            if stored is None or stored.site.version != new.version:
                raise Refused("another change took its place meanwhile")
            transaction.save_site(back, self._names(back))
            if added is not None:
                transaction.delete_release(new.id, added)
            self.journal.save(live, transaction, msgspec.structs.replace(live.work, undo=None))
        hit("services.taken-back")
        self.loop.settle(back, live, version=back.version)
        if added is not None:
            with contextlib.suppress(AlveoleError):
                self.agent.call(protocol.DropRelease(new.id, new.number, added))
        self.journal.end(live, settled.problems)

    def _drop_old_releases(self, site: Site) -> tuple[str, ...]:
        """Remove the files of all but the newest; gives the digests of those that are gone."""
        old = [each.digest for each in self.store.releases(site.id) if each.digest != site.release]
        gone = []
        for digest in old[self.settings.content.releases_kept - (site.release is not None) :]:
            try:
                self.agent.call(protocol.DropRelease(site.id, site.number, digest))
                gone.append(digest)
            except AlveoleError as error:
                # Tried again after the next update.
                log.warning("an old release of %s could not be dropped: %s", site.name, error)
        return tuple(gone)

    # --- flows --------------------------------------------------------------------------------
    def _flow_settle(self, live: Live) -> None:
        """start, stop, restart, set, rename: what is wanted is stored already."""
        self._finish(live, self._site_of(live), attempts=2 if live.work.undo is not None else 3)

    def _flow_configure(self, live: Live) -> None:
        site = self._site_of(live)
        if live.work.take_back:
            self.agent.call(protocol.ForgetConfig(site.id, site.number, live.work.take_back))
        self._finish(live, site, attempts=2, checked=True)

    def _flow_create(self, live: Live) -> None:
        site = self._site_of(live)
        if self.store.sites[site.id].pending == "create":
            started = headstart.begin(self.loop, site, live)
            try:
                imported = self._import(live, site, first=is_static(site))
                release, site = self._built(live, site, imported)
                site = msgspec.structs.replace(site, release=release.digest)
                self._tell_plan(live, site)
                with self.store.write() as transaction:
                    transaction.put_release(site.id, release)
                    transaction.save_site(site)
                    self.journal.save(live, transaction, msgspec.structs.replace(live.work, stored=True))
            except AlveoleError as error:
                started()
                self._take_back_create(live, site, error.problems, error.code)
                return
            hit("services.content-stored")
            self._drop_upload(live.work.upload)
        self._finish(live, site, attempts=3)

    def _take_back_create(self, live: Live, site: Site, problems: tuple[Problem, ...], code: str = "") -> None:
        """Nothing half done: files, row, names, lease and upload go."""
        result: dict[str, str | int | float | None] | None = {"code": code} if code else None
        if self.loop.stopping:
            return
        self._drop_upload(live.work.upload)
        with contextlib.suppress(AlveoleError):
            headstart.clear(self.loop, site, live)
            self.agent.call(protocol.RemoveSite(site.id, site.number))
            self.journal.end(live, problems, result, also=lambda transaction: transaction.delete_site(site.id))
            self.loop.forget(site.id)
            self.checks.forget_site(site.id)
            return
        # The agent is down: the row stays set aside, and the drift timer sees to it.
        self.journal.end(live, problems, result)

    def _remove(self, site: Site) -> None:
        """Remove what is left of a create that was taken back while the agent was down."""
        with self.store.standing_still():
            stored = self.store.sites.get(site.id)
            if stored is None or stored.pending != "create" or self.journal.of_site(site.id) is not None:
                return
        live = self.journal.begin(REPAIR, RECONCILER, site=site, reason="was never finished")
        try:
            headstart.clear(self.loop, site, live)
            self.agent.call(protocol.RemoveSite(site.id, site.number))
        except AlveoleError as error:
            log.warning("%s, which was never finished, could not be removed yet: %s", site.name, error)
            self.journal.end(live, error.problems)
            return
        self.journal.end(live, (), also=lambda transaction: transaction.delete_site(site.id))
        self.loop.forget(site.id)
        self.checks.forget_site(site.id)

    def _flow_update(self, live: Live) -> None:
        site = self._site_of(live)
        if not live.work.stored:
            collected = ""
            release: Release | None = None
            if live.work.upload is not None:
                site = self._with_leave(live, site)
                release, site = self._built(live, site, self._import(live, site))
                wanted = release.digest
            elif live.change.verb == "publish":
                work = self._kept_work(live, site)
                collected = work.digest
                release, site = self._built(live, site, work)
                wanted = release.digest
            else:
                wanted = live.work.release or ""
                kept = [each for each in self.store.releases(site.id) if each.digest == wanted]
                release = msgspec.structs.replace(kept[0], created_at=time.time()) if kept else None
            if live.work.waits and release is not None:
                self._set_aside(live, site, release)
                self._work_is_kept(site, collected)
                return
            if wanted == site.release:
                self._work_is_kept(site, collected)
                self._drop_upload(live.work.upload)
                live.say("this content is live already")
                self.journal.end(live, (), {"release": site.release, "version": site.version})
                return
            site = self._store_content(live, site, msgspec.structs.replace(site, release=wanted), release)
            self._work_is_kept(site, collected)
        self._finish(live, site, attempts=2)

    _flow_publish = _flow_update

    def _kept_work(self, live: Live, site: Site) -> Release:
        live.show("keeping the working copy")
        release: Release = self.agent.call(protocol.KeepWork(site.id, site.number), say=live.show)
        hit("services.imported")
        live.say(f"{release.files} files, {release.bytes} bytes, {release.digest[:19]}")
        return msgspec.structs.replace(release, created_at=time.time(), sender=live.change.actor, note=live.work.note)

    def _work_is_kept(self, site: Site, collected: str) -> None:
        if not collected:
            return
        try:
            self.agent.call(protocol.WorkKept(site.id, site.number, collected))
        except AlveoleError as error:
            # What is published shows as changed then, and publishing it again changes nothing.
            log.warning("the working copy of %s does not know that it is published: %s", site.name, error)

    def _set_aside(self, live: Live, site: Site, release: Release) -> None:
        """A release that waits: what runs is not touched."""
        if release.digest == site.release:
            live.say("this content is live already")
        else:
            live.say(f"kept; make it live with: alveole site update {site.name} --release {release.digest[7:19]}")
        self._drop_upload(live.work.upload)
        result: dict[str, str | int | float | None] = {"release": release.digest, "version": site.version}
        self.journal.end(live, (), result, also=lambda transaction: transaction.put_release(site.id, release))

    def _flow_destroy(self, live: Live) -> None:
        site = self._site_of(live)
        if not self._saved_first(live, site):
            return
        self.agent.call(protocol.EndVisits(site.id))
        settled = self.loop.settle(site, live, version=site.version)
        if settled.problems:
            self._fail(live, settled.problems)
            return
        hit("services.before-remove")
        for node in sorted({site.node, *site.kept_at} - {""}):
            self._destroy_there(live, node, site.name)
        self.agent.call(protocol.RemoveSite(site.id, site.number), say=live.show)
        hit("services.removed")
        live.say("every file of the site is gone")
        self.journal.end(live, (), also=lambda transaction: transaction.delete_site(site.id))
        self.loop.forget(site.id)
        self.checks.forget_site(site.id)

    @abstractmethod
    def _flow_forward(self, live: Live) -> None:
        """Supplied by the class that joins the parts: what is asked of the machine that the site lives on."""

    @abstractmethod
    def _saved_first(self, live: Live, site: Site) -> bool:
        """Likewise: what is to be saved before a site is destroyed; false when the change has ended by it."""

    @abstractmethod
    def _destroy_there(self, live: Live, node: str, name: str) -> None:
        """Likewise: take a site off another machine, if it is there."""

    @abstractmethod
    def base_links(self, site: Site) -> tuple[protocol.Link, ...]:
        """Supplied by the class that joins the parts."""

    # --- images and bases ---------------------------------------------------------------------
    def _flow_import_image(self, live: Live) -> None:
        with self._open_upload(live.work.upload or "") as fd:
            self._keep_image(live, self.agent.call(protocol.ImportImage(), (fd,), live.show))

    def _flow_pull_image(self, live: Live) -> None:
        registry, repository, tag = live.work.image or ("", "", "")
        self._keep_image(live, self.agent.call(protocol.PullImage(registry, repository, tag), say=live.show))

    def _keep_image(self, live: Live, image: protocol.Image) -> None:
        known = KnownBase(image.base, time.time(), image)
        live.say(f"{image.base.label}: {image.base.key}")

        def keep(transaction: Transaction) -> None:
            transaction.put_base(known)

        self._drop_upload(live.work.upload)
        self.journal.end(live, (), {"base": image.base.key, "image": image.base.image}, also=keep)
        self.loop.trigger("platform")

    def _flow_delete_base(self, live: Live) -> None:
        key = live.work.base or ""
        self.agent.call(protocol.DropBase(key), say=live.show)
        self.journal.end(live, (), also=lambda transaction: transaction.delete_base(key))
        self.loop.trigger("platform")


def work_for(undo: Site | None = None) -> Work:
    """The work of a change whose wish is stored by the commit that accepts it."""
    return Work(stored=True, undo=undo)


__all__ = ["Flows", "Kind", "work_for"]
