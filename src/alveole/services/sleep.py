"""Sites that sleep: falling asleep when nobody asks for them, and being woken.

A site that sleeps is wanted as it was; that it sleeps is one more stored fact, and everything else follows from it as
from any other: no instance is wanted, its routes say ``asleep``. So a death at any moment ends with a site that is
wholly asleep or wholly awake. Both are changes beside others: any other change of the site takes the place of
either, and leaves it awake.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from alveole.agent.using import Used, Using
from alveole.errors import AlveoleError, Problem, Temporary
from alveole.failpoints import hit
from alveole.journal import REPAIR, Live, Work
from alveole.model.resource import Kind, PromiseState
from alveole.model.site import ResourcePlan, Site, WokenBy
from alveole.people.model import Actor
from alveole.policy.sleeping import is_asleep, sleeps_after
from alveole.services.building import Builders
from alveole.store import Stored, Transaction

log = logging.getLogger("alveole.sleep")
#: Who it is in the journal, where no person asked.
IDLE, VISIT = "idle", "visit"
#: Below this share of the machine's memory nothing is woken: what runs comes first.
_ROOM = 0.05
#: After how long it makes sense to ask again (seconds): for what failed, and while there is no room.
_FAILED_SECONDS, _ROOM_SECONDS = 30, 60
_POLL_SECONDS = 0.05
SHORT = "the machine is short of memory"
_NO_WORK = frozenset({REPAIR, "check", "sleep", "wake"})


class Woken(msgspec.Struct, frozen=True):
    """``later``: seconds after which asking again makes sense, where it is not awake."""

    awake: bool
    later: int = 0
    problem: str = ""


class Sleeping(Builders):
    _last_used: dict[str, float]
    """When something was last seen at work at a site, by its id; of others since control began."""
    _unwoken: dict[str, str]
    """Why the last try to wake a site failed that sleeps on."""

    # --- falling asleep -----------------------------------------------------------------------
    def _at_work(self, site_id: str) -> set[str]:
        """What goes on at a site that keeps it awake: a person's work, and no care of the loop's own."""
        return {live.change.verb for live in self.journal.all_of_site(site_id)} - _NO_WORK

    def _put_to_sleep(self, transaction: Transaction, old: Site, by: Actor | str, reason: str) -> Live:
        new = msgspec.structs.replace(old, asleep=time.time())
        transaction.save_site(new)
        return self.journal.begin("sleep", by, site=new, reason=reason, work=Work(stored=True), transaction=transaction)

    def _flow_sleep(self, live: Live) -> None:
        site = self.store.sites[live.change.site_id or ""].site
        settled = self.loop.settle(site, live, version=site.version)
        if self.loop.stopping and settled.problems:
            return
        if not self._sleeps(site.id):
            live.say("it was woken meanwhile")
        self.journal.end(live, () if settled.superseded else settled.problems)

    def _sleeps(self, site_id: str) -> bool:
        stored = self.store.sites.get(site_id)
        return stored is not None and is_asleep(stored.site)

    # --- waking -------------------------------------------------------------------------------
    def sleeps(self, site_id: str) -> bool:
        """Whether a request for this site (an id) may have to wait: it sleeps, or is about to be awake."""
        stored = self.store.sites.get(site_id)
        if stored is None or stored.pending:
            return False
        return is_asleep(stored.site) or (stored.site.runs and not self._serves(stored))

    def wake(
        self,
        site_id: str,
        by: Actor | str = VISIT,
        seconds: float = 30.0,
        routed: Callable[[], None] | None = None,
    ) -> Woken:
        """Wake a site and wait, at the most about ``seconds``, until every request gets to it and all else is done.

        ``routed`` is called before, as soon as requests get to it.
        """
        if self._sleeps(site_id) and _is_short_of_memory():
            return Woken(False, _ROOM_SECONDS, SHORT)
        try:
            live = self._store_awake(site_id, by)
        except AlveoleError as error:
            # Nothing could be written: it sleeps on, and ``why`` says so.
            self._unwoken[site_id] = str(error)
            return Woken(False, _FAILED_SECONDS, str(error))
        self._unwoken.pop(site_id, None)
        self._last_used[site_id] = time.time()
        hit("services.woken")
        if live is None:
            return self._soon_awake(site_id, seconds)
        # What puts it to sleep at this moment waits for its drain.
        self.loop.trigger(site_id)
        return self._bring_up(live, routed)

    def _store_awake(self, site_id: str, by: Actor | str) -> Live | None:
        with self.store.write() as transaction:
            stored = self.store.sites.get(site_id)
            if stored is None or stored.pending or not is_asleep(stored.site):
                return None
            awake = msgspec.structs.replace(stored.site, asleep=0.0)
            transaction.save_site(awake)
            return self.journal.begin("wake", by, site=awake, work=Work(stored=True), transaction=transaction)

    def _unwakeable(self, site_id: str) -> tuple[str, str]:
        """Why a visit would not wake this site now, and what helps; empty where it would."""
        if not self._sleeps(site_id):
            return "", ""
        if _is_short_of_memory():
            return SHORT, "stop what needs much, or give the machine more: visits wake it again then"
        problem = self._unwoken.get(site_id, "")
        return problem, "the next visit tries again; see: alveole doctor" if problem else ""

    def _bring_up(self, live: Live, routed: Callable[[], None] | None = None) -> Woken:
        site = self.store.sites[live.change.site_id or ""].site
        try:
            settled = self.loop.settle(site, live, attempts=2, version=site.version, routed=routed)
        except AlveoleError as error:
            self.journal.end(live, error.problems)
            return Woken(False, _FAILED_SECONDS, str(error))
        if self.loop.stopping and settled.problems:
            return Woken(False, _FAILED_SECONDS, "control is being stopped")
        # Nobody waits for its row.
        problems = () if settled.superseded else settled.problems
        self.loop.submit(lambda: self._woken(live, problems))
        if settled.problems:
            return Woken(False, _FAILED_SECONDS, str(settled.problems[0]))
        return Woken(True)

    def _woken(self, live: Live, problems: tuple[Problem, ...]) -> None:
        self.journal.end(live, problems)

    def _flow_wake(self, live: Live) -> None:
        self._bring_up(live)

    def _soon_awake(self, site_id: str, seconds: float) -> Woken:
        """Another change brings it up, or the loop tries again what failed."""
        deadline = time.monotonic() + seconds
        while not self.loop.stopping and time.monotonic() < deadline:
            stored = self.store.sites.get(site_id)
            if stored is None or stored.pending or not stored.site.runs:
                break
            if self._serves(stored):
                return Woken(True)
            if self.loop.has_failed(site_id):
                break
            self.loop.pause(_POLL_SECONDS)
        return Woken(False, _FAILED_SECONDS, "it does not get ready: alveole why")

    def _serves(self, stored: Stored) -> bool:
        look = self.loop.looks.get(stored.site.id)
        if look is None or not stored.site.runs:
            return False
        # Of one that sleeps the routes are kept too, and there is no instance.
        states = {each.id.kind: each.state for each in look.promises if each.id.kind in (Kind.WORKLOAD, Kind.ROUTE)}
        return len(states) == 2 and all(state is PromiseState.KEPT for state in states.values())

    def _be_awake(self, site: Site, by: Actor | str) -> None:
        if not self._sleeps(site.id):
            return
        woken = self.wake(site.id, by)
        if not woken.awake:
            raise Temporary(
                f"site {site.name} sleeps and could not be woken: {woken.problem}", hint=f"alveole why {site.name}"
            )

    # --- looking for idle ones ----------------------------------------------------------------
    def look_for_idle(self) -> None:
        """Put to sleep what nobody has asked for as long as it says. Raises ``AlveoleError``."""
        now = time.time()
        plans: dict[str, ResourcePlan] = dict(self.store.plans)
        found: dict[str, tuple[Site, int]] = {}
        for stored in list(self.store.sites.values()):
            site = stored.site
            after = sleeps_after(site, plans)
            if not after or not site.runs or stored.pending:
                continue
            if self._at_work(site.id):
                self._last_used[site.id] = now
            elif now - self._last_used.get(site.id, self.started_at) >= after and self._serves(stored):
                found[site.id] = site, after
        if not found:
            return
        instances = tuple(Used(site.id, site.number, site.slot, site.run.port) for site, _after in found.values())
        for id, use in self.agent.call(Using(instances)).items():
            site, after = found[id]
            last = now if use.connections else use.people if site.woken_by is WokenBy.PEOPLE else use.anybody
            if now - last < after:
                self._last_used[id] = max(self._last_used.get(id, 0.0), last)
            else:
                self._fall_asleep(site, after)

    def _fall_asleep(self, site: Site, after: int) -> None:
        with self.store.write() as transaction:
            stored = self.store.sites.get(site.id)
            if stored is None or stored.pending or stored.site is not site or self._at_work(site.id):
                return
            live = self._put_to_sleep(transaction, site, IDLE, f"no visit for {after} s")
            hit("services.sleep-stored")
        hit("services.asleep")
        self._go(live)


def _is_short_of_memory() -> bool:
    # proc(5): estimated by the kernel, without pushing anything out.
    words = Path("/proc/meminfo").read_text(encoding="ascii").split()
    values = {name: int(words[place + 1]) for place, name in enumerate(words) if name in ("MemTotal:", "MemAvailable:")}
    return values["MemAvailable:"] < values["MemTotal:"] * _ROOM
