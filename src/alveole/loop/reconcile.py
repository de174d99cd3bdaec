"""The loop: look, plan, act, look again, until every promise is kept; then keep watching.

A *pass* looks at one scope (a site's id or ``platform``), plans with :mod:`alveole.loop.plan` and carries
the steps out one by one. Passes are asked for by changes (:meth:`Reconciler.settle`), by the agent's
word that something ended, and by the drift timer, which looks at everything in one call. A boot, a
crash of any process and a hand that broke something are all met by the same pass. Passes remember
nothing but back-off; what they do of their own accord is journalled as a change ``repair`` by
``reconciler``, with the causes as its reason.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import msgspec

from alveole.agent import protocol
from alveole.backoff import Backoff
from alveole.config import Settings
from alveole.errors import AlveoleError, Problem, Temporary
from alveole.failpoints import hit
from alveole.journal import RECONCILER, REPAIR, Journal, Live
from alveole.loop.compile import base_id, compile_platform, compile_site, held_below
from alveole.loop.passes import Look, Pass, Settled, essential, problem, reached
from alveole.loop.plan import Plan, all_kept, plan
from alveole.model.resource import (
    PLATFORM,
    BaseSpec,
    Desired,
    Kind,
    Observation,
    Observed,
    Outcome,
    Promise,
    PromiseState,
    ResourceId,
    Step,
)
from alveole.model.site import Base, Limits, Site, Wanted
from alveole.ports import AgentPort
from alveole.store import Store, Stored
from alveole.workers import EVERYWHERE, Workers

log = logging.getLogger("alveole.loop.reconcile")

_BASE_SCOPE = "base:"
#: How long a change waits, beyond its site's own time to get ready, before it is called failed.
_PATIENCE_SECONDS = 30.0
#: Between two looks at something that has begun and is not ready yet.
_POLL_SECONDS = (0.02, 0.5)
#: Carried out while the other steps of a pass are: steps of one pass do not need each other, and these only compute.
_BESIDE = frozenset({Kind.CERTIFICATE})
#: Rows lost (a database restored from a copy) must not cost data: of a scope without a row only these go.
_ORPHAN_KINDS = frozenset({Kind.WORKLOAD, Kind.ADDRESS, Kind.ROUTE})
_Told = Callable[[], None] | None


class _Compiled(msgspec.Struct, frozen=True):
    site: Site
    pending: str
    desired: tuple[Desired, ...]
    kept: tuple[Promise, ...]


class Reconciler(Workers):
    """Safe from several threads: of one scope there is one pass at a time, of all at most ``reconcile.parallel``."""

    def __init__(self, settings: Settings, store: Store, journal: Journal, agent: AgentPort) -> None:
        super().__init__(settings.reconcile.parallel, settings.reconcile.drift_seconds)
        self.settings = settings
        self.store = store
        self.journal = journal
        self.agent = agent
        self.backoff = Backoff()
        self.agent_answers = False
        self.looks: dict[str, Look] = {}
        self.host_base: Base | None = None
        self.clones: set[str] = set()
        """Ids of what an upgrade tries: no site of anybody, and no orphan."""
        self._platform: Mapping[ResourceId, Observed] = {}
        self._compiled: dict[str, _Compiled] = {}
        self._locks: dict[str, threading.RLock] = {}
        self._settling: dict[str, threading.Event] = {}
        self._end_watch: Callable[[], None] = lambda: None
        self.abandoned: Callable[[Site], None] = lambda _site: None
        """Called for a site that was never finished and that no change is at work on."""

    # --- life ---------------------------------------------------------------------------------
    def start(self) -> None:
        """Start the workers, the timer and the watch; the first full pass is the boot."""
        super().start()
        self._end_watch = self.agent.watch(self.trigger)

    def _wake(self) -> None:
        self._end_watch()
        for event in list(self._settling.values()):
            event.set()

    def trigger(self, scope: str) -> None:
        """Ask for a pass over ``scope`` soon; a change at work on it is told instead."""
        settling = self._settling.get(scope)
        if settling is not None:
            settling.set()
        else:
            super().trigger(scope)

    def _background(self, scope: str) -> None:
        if scope == EVERYWHERE:
            self.look_everywhere()
        elif scope == PLATFORM:
            self.keep_platform()
        elif scope.startswith(_BASE_SCOPE):
            base = self._base_of(scope.removeprefix(_BASE_SCOPE))
            if base is not None:
                self.ensure_base(base, None)
        else:
            self.keep_site(scope)

    @contextlib.contextmanager
    def lock(self, scope: str) -> Iterator[None]:
        """One pass a scope at a time."""
        with self._mutex:
            lock = self._locks.setdefault(scope, threading.RLock())
        with lock:
            yield

    # --- what is wanted -----------------------------------------------------------------------
    @property
    def limits(self) -> Mapping[str, Limits]:
        """By name of the plan."""
        return {name: each.limits for name, each in self.store.plans.items()}

    def desired(self, stored: Stored) -> tuple[Desired, ...]:
        """What a site is compiled to; nothing while its creation or destruction is under way."""
        return self._compile(stored).desired

    def _compile(self, stored: Stored) -> _Compiled:
        known = self._compiled.get(stored.site.id)
        if known is not None and known.site is stored.site and known.pending == stored.pending:
            return known
        desired = () if stored.pending else compile_site(stored.site, self.settings, self.limits)
        kept = tuple(Promise(item.id, PromiseState.KEPT) for item in desired)
        fresh = _Compiled(stored.site, stored.pending, desired, kept)
        self._compiled[stored.site.id] = fresh
        return fresh

    def forget(self, site_id: str) -> None:
        """Nothing is left of this site."""
        self._compiled.pop(site_id, None)
        self.looks.pop(site_id, None)
        self.backoff.forget(site_id)

    def _bases(self) -> dict[str, Base]:
        bases = {stored.site.base.key: stored.site.base for stored in self.store.sites.values() if _runs(stored)}
        if self.host_base is not None:
            bases[self.host_base.key] = self.host_base
        return bases

    def _base_of(self, key: str) -> Base | None:
        known = self.store.bases.get(key)
        return known.base if known is not None else self._bases().get(key)

    # --- the full pass ------------------------------------------------------------------------
    def look_everywhere(self) -> None:
        """One look at all scopes; whatever is not as promised is given a pass of its own.

        Raises ``Temporary`` while the agent is down; then nothing is known and nothing planned.
        """
        self.learn_host_base()
        observation = self._observe(None)
        unknown = dict(observation.unknown)
        scopes: dict[str, list[Observed]] = {}
        for item in observation.found:
            scopes.setdefault(item.id.scope, []).append(item)
        platform = scopes.pop(PLATFORM, [])
        with self._mutex:
            self._platform = {item.id: item for item in platform}
        self._check_platform(platform, unknown)
        for stored in list(self.store.sites.values()):
            if stored.pending == "create" or self._in_hands(stored.site.id):
                scopes.pop(stored.site.id, None)
                if stored.pending == "create" and self.journal.of_site(stored.site.id) is None:
                    self.submit(partial(self.abandoned, stored.site))
                continue
            compiled = self._compile(stored)
            found = self._without_resting_data(stored.site.id, compiled.desired, scopes.pop(stored.site.id, []))
            if all_kept(compiled.desired, found):
                self.looks[stored.site.id] = Look(compiled.kept, tuple(found), (), time.time())
                continue
            self.looks[stored.site.id] = self._look(stored.site.id, compiled.desired, found, unknown)[1]
            self.trigger(stored.site.id)
        for scope in scopes.keys() - self.store.damaged.keys() - self.clones:
            self.trigger(scope)

    def _check_platform(self, found: Sequence[Observed], unknown: Mapping[Kind, str]) -> None:
        desired = compile_platform(self.settings, self._bases().values())
        planned, look = self._look(PLATFORM, desired, found, unknown)
        self.looks[PLATFORM] = look
        kinds = {step.id.kind for step in planned.steps}
        if kinds - {Kind.BASE}:
            self.trigger(PLATFORM)
        for step in planned.steps:
            if step.id.kind is Kind.BASE:
                self.trigger(_BASE_SCOPE + step.id.name)

    # --- one scope ----------------------------------------------------------------------------
    def _observe(self, scopes: tuple[str, ...] | None) -> Observation:
        try:
            observation: Observation = self.agent.call(protocol.Observe(scopes))
        except Temporary:
            self.agent_answers = False
            raise
        self.agent_answers = True
        return observation

    def _look(
        self, scope: str, desired: Iterable[Desired], found: Sequence[Observed], unknown: Mapping[Kind, str]
    ) -> tuple[Plan, Look]:
        planned = plan(
            desired,
            found,
            now=time.time(),
            drain_seconds=self.settings.reconcile.drain_seconds,
            unknown=unknown,
            context=self._platform,
            held=self.backoff.held(scope),
        )
        return planned, Look(planned.promises, tuple(found), planned.waiting, time.time())

    def _pass(self, scope: str, desired: Sequence[Desired], tell: Callable[[], Live], routed: _Told = None) -> Pass:
        """Look at ``scope`` and carry out what is due. ``tell`` gives the change to journal it in, ``routed`` is called
        as soon as every route that was due is switched."""
        observation = self._observe((scope,))
        if scope == PLATFORM:
            with self._mutex:
                self._platform = {item.id: item for item in observation.found}
        found = self._without_resting_data(scope, desired, observation.found)
        planned, look = self._look(scope, desired, found, dict(observation.unknown))
        self.looks[scope] = look
        failed: list[tuple[Step, Outcome]] = []

        def carry_out(steps: Iterable[Step], live: Callable[[], Live]) -> None:
            for step in steps:
                if self.stopping:
                    break
                outcome = self._apply(step, live())
                if not outcome.done:
                    failed.append((step, outcome))
                elif routed is not None and step is last_route and not failed:
                    routed()

        last_route = next((step for step in reversed(planned.steps) if step.id.kind is Kind.ROUTE), None)
        beside = [step for step in planned.steps if step.id.kind in _BESIDE]
        others = [step for step in planned.steps if step.id.kind not in _BESIDE]
        if not (beside and others):
            carry_out(planned.steps, tell)
            return Pass(planned, tuple(failed))
        live = tell()
        thread = threading.Thread(target=carry_out, args=(beside, lambda: live), name=f"beside-{scope}", daemon=True)
        thread.start()
        try:
            carry_out(others, tell)
        finally:
            thread.join()
        return Pass(planned, tuple(failed))

    def _without_resting_data(
        self, scope: str, desired: Sequence[Desired], found: Sequence[Observed]
    ) -> Sequence[Observed]:
        """``found`` but for the site's own data where nothing asks for it at the moment.

        A site whose last volume or command was taken away keeps its files until it is destroyed.
        """
        stored = self.store.sites.get(scope)
        if stored is None or stored.pending:
            return found
        own = ResourceId(Kind.STORAGE, scope, str(stored.site.data_generation))
        if any(item.id == own for item in desired):
            return found
        return [item for item in found if item.id != own]

    def _apply(self, step: Step, live: Live) -> Outcome:
        what = f"{step.id.kind}/{step.id.name}"
        hit("reconcile.before-step")
        try:
            whole = (each.site for each in self.store.sites.values() if not each.pending)
            for first in held_below(step, whole, self.settings):
                self.agent.call(protocol.Apply(first))
            outcome: Outcome = self.agent.call(protocol.Apply(step), say=live.show)
        except AlveoleError as error:
            outcome = Outcome(False, str(error), temporary=isinstance(error, Temporary))
        hit("reconcile.after-step")
        self.backoff.record(step, outcome)
        if outcome.done:
            told = f"; {outcome.message}" if outcome.message else ""
            live.say(f"{step.action} {what}: {step.reason}{told}", resource=what, seconds=outcome.seconds)
        else:
            live.say(f"{step.action} {what} failed: {outcome.message}", level="error", resource=what)
            for line in outcome.tail:
                live.say(line, level="output", resource=what)
        return outcome

    def keep_platform(self) -> None:
        """Passes over what all sites share, but for the bases, which take long and have locks of their own."""
        with self.lock(PLATFORM):
            changed = self._repair(PLATFORM, None, lambda: compile_platform(self.settings, ()))
        if changed:
            # After a boot every site waits for this; none shall wait for the drift timer as well.
            self.trigger(EVERYWHERE)
        for site_id in list(self._settling):
            self.trigger(site_id)

    def keep_site(self, site_id: str) -> None:
        """Passes over one site, until nothing is to be done or it must wait."""
        if site_id in self.store.damaged or site_id in self.clones:
            return
        with self.lock(site_id):
            stored = self.store.sites.get(site_id)
            if self._in_hands(site_id) or (stored is not None and stored.pending):
                return
            if stored is None:
                self._drop_orphan(site_id)
                return
            self._repair(site_id, stored.site, lambda: self._fresh(site_id))

    def _in_hands(self, site_id: str) -> bool:
        """Whether a change is at work on it, or about to be, and looks by itself."""
        if site_id in self._settling:
            return True
        live = self.journal.of_site(site_id)
        return live is not None and live.work.stored

    def _fresh(self, site_id: str) -> tuple[Desired, ...]:
        stored = self.store.sites.get(site_id)
        return () if stored is None else self.desired(stored)

    def _repair(self, scope: str, site: Site | None, desired: Callable[[], tuple[Desired, ...]]) -> bool:
        """Passes until nothing is to be done or it must wait; whether any step was done."""
        changed = False
        live: Live | None = None

        def tell() -> Live:
            nonlocal live
            if live is None:
                live = self.journal.begin(REPAIR, RECONCILER, site=site)
            return live

        problems: list[Problem] = []
        reasons: dict[str, None] = {}
        try:
            while not self.stopping:
                done = self._pass(scope, desired(), tell)
                reasons.update({f"{s.id.kind}/{s.id.name}: {s.reason}": None for s in done.plan.steps})
                problems.extend(problem(step, outcome) for step, outcome in done.failed)
                changed = changed or len(done.failed) < len(done.plan.steps)
                if not done.plan.steps or len(done.failed) == len(done.plan.steps):
                    self._come_back(scope, done.plan)
                    break
        finally:
            if live is not None:
                live.change = msgspec.structs.replace(live.change, reason="; ".join(reasons))
                self.journal.end(live, problems)
        return changed

    def _come_back(self, scope: str, planned: Plan) -> None:
        """Arrange the next pass for what has to wait."""
        waits = [each for each in (planned.wake_in, self.backoff.next_try(scope)) if each is not None]
        if waits:
            self.trigger_in(min(waits), scope)
        if planned.stuck and not waits:
            log.info("%s is stuck: %s", scope, "; ".join(f"{each.id} {each.reason}" for each in planned.waiting))
        self._help(planned)

    def _help(self, planned: Plan) -> None:
        """Someone waits for a shared thing: have it looked after."""
        for item in planned.waiting:
            if item.reason.startswith(f"waits for {Kind.BASE}/"):
                key = item.reason.removeprefix(f"waits for {Kind.BASE}/").split(" ")[0].rstrip(",")
                self.trigger(_BASE_SCOPE + key)

    def _drop_orphan(self, scope: str) -> None:
        observation = self._observe((scope,))
        found = [item for item in observation.found if item.id.kind in _ORPHAN_KINDS]
        if not found:
            return
        log.warning("%s belongs to no site: %s", scope, ", ".join(str(item.id) for item in found))
        live = self.journal.begin(REPAIR, RECONCILER, reason=f"{scope} belongs to no site")
        problems: list[Problem] = []
        for _round in range(4):
            planned, _look = self._look(scope, (), found, dict(observation.unknown))
            if not planned.steps:
                break
            outcomes = [(step, self._apply(step, live)) for step in planned.steps]
            problems = [problem(step, outcome) for step, outcome in outcomes if not outcome.done]
            observation = self._observe((scope,))
            found = [item for item in observation.found if item.id.kind in _ORPHAN_KINDS]
        self.journal.end(live, problems)
        self.looks.pop(scope, None)

    def ensure_base(self, base: Base, live: Live | None) -> tuple[Problem, ...]:
        """Build ``base`` unless it is there; others that need it wait for the same building."""
        id = base_id(base)
        with self.lock(_BASE_SCOPE + base.key):
            found = self._platform.get(id)
            if found is not None and found.ready and not found.defects:
                return ()
            desired = [item for item in compile_platform(self.settings, (base,)) if isinstance(item.spec, BaseSpec)]
            self._refresh_platform()
            planned, _look = self._look(PLATFORM, desired, tuple(self._platform.values()), {})
            steps = [step for step in planned.steps if step.id == id]
            if not steps:
                return tuple(Problem(str(each.id), each.reason) for each in planned.waiting if each.id == id)
            why = f"{id.name}: {steps[0].reason}"
            own = live if live is not None else self.journal.begin(REPAIR, RECONCILER, reason=why)
            outcome = self._apply(steps[0], own)
            problems = () if outcome.done else (problem(steps[0], outcome),)
            if live is None:
                self.journal.end(own, problems)
            self._refresh_platform()
        for stored in list(self.store.sites.values()):
            if stored.site.base.key == base.key and _runs(stored):
                self.trigger(stored.site.id)
        return problems

    def _refresh_platform(self) -> None:
        observation = self._observe((PLATFORM,))
        with self._mutex:
            self._platform = {item.id: item for item in observation.found}

    def learn_host_base(self) -> Base:
        """The base made of the machine's own ``/usr``; it is always kept ready. Raises ``Temporary``."""
        if self.host_base is None:
            self.host_base = self.agent.call(protocol.ResolveBase("host"))
        return self.host_base

    def has_failed(self, scope: str) -> bool:
        """Whether something of it is tried again later only."""
        return self.backoff.next_try(scope) is not None

    def base_ready(self, base: Base) -> bool:
        """As the last look at the platform saw it."""
        found = self._platform.get(base_id(base))
        return found is not None and found.ready and not found.defects

    # --- for a change -------------------------------------------------------------------------
    def advance(self, site_id: str, desired: Sequence[Desired], live: Live) -> Plan:
        """One pass over a site towards ``desired``, whatever is stored. Raises ``Temporary``."""
        with self.lock(site_id):
            return self._pass(site_id, desired, lambda: live).plan

    def settle(
        self, site: Site, live: Live, *, attempts: int = 3, version: int | None = None, routed: _Told = None
    ) -> Settled:
        """Passes over one site until all its promises are kept or it is clear that they will not be.

        ``version``: give up (``superseded``) once the site has another one. Blocks; call it from
        :meth:`submit`. A resource is tried ``attempts`` times, one that cannot work only once. ``routed`` is called
        when the routes are switched and what is left to do concerns nobody who comes by them.
        """

        def wanted() -> Sequence[Desired] | None:
            stored = self.store.sites.get(site.id)
            if stored is None or (version is not None and stored.site.version != version):
                return None
            return self.desired(stored)

        with self.hold(site.id) as poke:
            if site.wanted is Wanted.RUNNING and not site.node and not self.base_ready(site.base):
                problems = self.ensure_base(site.base, live)
                if problems:
                    return Settled(problems, essential=True)
            return self.reach(site, wanted, live, poke, attempts=attempts, routed=routed)

    @contextlib.contextmanager
    def hold(self, site_id: str) -> Iterator[threading.Event]:
        """Keep the background's passes off a site; what is given is set when something of the site has ended."""
        poke = threading.Event()
        # A change that takes another's place waits until that one has seen it and left.
        with self.lock(f"change:{site_id}"):
            # Under the lock, so that no background pass is half-way through its own plan.
            with self.lock(site_id):
                self._settling[site_id] = poke
            self.backoff.forget(site_id)
            try:
                yield poke
            finally:
                self._settling.pop(site_id, None)
                # What came meanwhile was only poked.
                if not self.stopping:
                    self.trigger_in(0.05, site_id)

    def reach(
        self,
        site: Site,
        wanted: Callable[[], Sequence[Desired] | None],
        live: Live,
        poke: threading.Event,
        *,
        attempts: int = 2,
        routed: _Told = None,
    ) -> Settled:
        """Passes over a site that is held, towards what ``wanted`` gives before each (``None``: another change took
        its place), which need not be what is stored."""
        site_id = site.id
        deadline = time.monotonic() + _PATIENCE_SECONDS + site.run.ready_seconds
        poll = _POLL_SECONDS[0]
        while True:
            poke.clear()
            desired = wanted()
            if desired is None:
                return Settled((Problem("", "another change took its place"),), superseded=True)
            try:
                with self.lock(site_id):
                    done = self._pass(site_id, desired, lambda: live, routed)
            except Temporary as error:
                # The agent is started again by itself; what was asked is stored and still wanted.
                if self.stopping or time.monotonic() > deadline:
                    return Settled(error.problems)
                live.show("waits for the agent")
                poke.wait(poll)
                poll = min(poll * 2, _POLL_SECONDS[1])
                continue
            if reached(done.plan):
                return Settled()
            failure = self._hopeless(done, attempts)
            if failure or self.stopping or time.monotonic() > deadline:
                problems = failure or tuple(
                    Problem(f"{each.id.kind}/{each.id.name}", each.reason) for each in done.plan.waiting
                )
                return Settled(problems or (Problem("", "is not as promised in time"),), essential(done))
            if done.plan.steps and len(done.failed) < len(done.plan.steps):
                poll = _POLL_SECONDS[0]
                continue
            self._help(done.plan)
            if any("/network" in each.reason or "/firewall" in each.reason for each in done.plan.waiting):
                self.trigger(PLATFORM)
            waits = [each for each in (done.plan.wake_in, self.backoff.next_try(site_id), poll) if each is not None]
            poke.wait(max(0.005, min(waits)))
            poll = min(poll * 2, _POLL_SECONDS[1])

    def _hopeless(self, done: Pass, attempts: int) -> tuple[Problem, ...]:
        return tuple(
            problem(step, outcome)
            for step, outcome in done.failed
            if not outcome.temporary or self.backoff.failures(step.id) >= attempts
        )


def _runs(stored: Stored) -> bool:
    return stored.site.wanted is Wanted.RUNNING and not stored.pending and not stored.site.node
