"""Running scenarios: for a change that needs to know, for a person who asks, and over and over to watch sites.

What watches has one thread with one event loop, ``outgoing.checks_parallel`` sites at a time, one scenario each, so
that a slow site holds up its own. Results wait in memory for a second or two and are written together: a thousand of
them cost a commit. Of each scenario the last :data:`RUNS_KEPT` are kept, with the report of those that failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
import sqlalchemy as sa

from alveole.agent import protocol
from alveole.agent.reaching import Reach
from alveole.config import Settings
from alveole.errors import AlveoleError, Problem
from alveole.journal import Journal
from alveole.loop.compile import hosts
from alveole.model.site import Site, Wanted, WokenBy
from alveole.ports import AgentPort
from alveole.scenarios.doors import Door
from alveole.scenarios.model import Report, Scenario, StepReport, Use
from alveole.store import Store, Transaction, tables
from alveole.ticker import Ticker
from alveole.views import CheckState

RUNS_KEPT = 20
HAND = "hand"
MONITOR = "monitor"
#: The verb of the journal when what watches a site begins to fail, or passes again.
CHECK = "check"
_REPORT_MAX = 64 * 1024
_TRUST_SECONDS = 600.0
#: A site at which a change is at work is looked at again after so long.
_BUSY_SECONDS = 10.0
#: How many scenarios of one site are run at a time.
_AT_ONCE = 4

#: Called with the name of a scenario and a step of it that has ended, from the thread that runs it.
Tell = Callable[[str, StepReport], None]


class Known(msgspec.Struct, frozen=True):
    """What is kept in memory of a scenario."""

    id: str
    site_id: str
    name: str
    every: float
    after: int
    use: tuple[Use, ...] = ()


class Verdict(msgspec.Struct, frozen=True):
    """What a change wants to know: whether all passed, and the reports. No scenario: passed."""

    reports: tuple[Report, ...]

    @property
    def ok(self) -> bool:
        return all(report.ok for report in self.reports)

    @property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(Problem(f"check/{each.scenario}", each.problem) for each in self.reports if not each.ok)


class _Result(msgspec.Struct, frozen=True):
    known: Known
    report: Report


class Checks:
    """Safe from several threads."""

    def __init__(self, settings: Settings, store: Store, journal: Journal, agent: AgentPort) -> None:
        self._settings = settings
        self._store = store
        self._journal = journal
        self._agent = agent
        self._known: dict[str, Known] = {}
        self._states: dict[str, CheckState] = {}
        self._failures: dict[str, int] = {}
        self._due: dict[str, float] = {}
        self._under_way: dict[str, str] = {}
        self._results: list[_Result] = []
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._room: asyncio.Semaphore | None = None
        self._trusted: tuple[float, ssl.SSLContext] | None = None
        self.private_authorities: Callable[[], Iterable[str]] = tuple
        """Those (PEM) of one's own that issue certificates for sites."""

    # --- what there is ------------------------------------------------------------------------
    def load(self) -> None:
        """Read what is stored; called once, before anything else."""
        table = tables.scenarios
        with self._store.read() as connection:
            for row in connection.execute(sa.select(table.c.id, table.c.site_id, table.c.name, table.c.document)):
                self.remember(known_of(row.id, row.site_id, row.name, msgspec.json.decode(row.document, type=Scenario)))
            runs = tables.check_runs
            last = sa.select(sa.func.max(runs.c.seq)).group_by(runs.c.scenario_id)
            for row in connection.execute(sa.select(runs).where(runs.c.seq.in_(last))):
                known = self._known.get(row.scenario_id)
                if known is not None:
                    failures = 0 if row.ok else self._failed_in_a_row(connection, known)
                    self._failures[known.id] = failures
                    self._states[known.id] = CheckState(
                        name=known.name,
                        ok=row.ok,
                        at=row.at,
                        since=row.at,
                        seconds=row.seconds,
                        problem=row.problem,
                        failing=failures >= known.after,
                    )

    @staticmethod
    def _failed_in_a_row(connection: sa.Connection, known: Known) -> int:
        """How many of the last runs failed, up to as many as are told of."""
        runs = tables.check_runs
        query = sa.select(runs.c.ok).where(runs.c.scenario_id == known.id).order_by(runs.c.seq.desc())
        found = list(connection.execute(query.limit(known.after)).scalars())
        return next((place for place, ok in enumerate(found) if ok), len(found))

    def remember(self, known: Known) -> None:
        """It is stored, or was changed."""
        with self._lock:
            old = self._known.get(known.id)
            self._known[known.id] = known
            if known.every and (old is None or old.every != known.every):
                # Spread: those of a thousand sites do not all begin at the same moment.
                share = zlib.crc32(known.id.encode()) / 2**32
                self._due[known.id] = time.monotonic() + min(known.every, 3600.0) * share
            elif not known.every:
                self._due.pop(known.id, None)

    def forget(self, id: str) -> None:
        with self._lock:
            for kept in (self._known, self._states, self._failures, self._due):
                kept.pop(id, None)

    def forget_site(self, site_id: str) -> None:
        for known in self.of_site(site_id):
            self.forget(known.id)

    def of_site(self, site_id: str) -> tuple[Known, ...]:
        """By name."""
        with self._lock:
            found = [each for each in self._known.values() if each.site_id == site_id]
        return tuple(sorted(found, key=lambda each: each.name))

    def states(self, site_id: str) -> tuple[CheckState, ...]:
        """How each scenario of a site stands; by name."""
        kept = self._states
        return tuple(
            msgspec.structs.replace(kept.get(each.id) or CheckState(name=each.name), every=each.every)
            for each in self.of_site(site_id)
        )

    def failing_sites(self) -> frozenset[str]:
        """Ids of the sites of which something that watches them did not pass at its last run."""
        with self._lock:
            found = ((each, self._states.get(each.id)) for each in self._known.values() if each.every)
            return frozenset(known.site_id for known, state in found if state is not None and state.ok is False)

    def all_states(self) -> list[tuple[str, CheckState]]:
        """How every scenario stands that was run, with the id of its site."""
        with self._lock:
            return [(self._known[id].site_id, state) for id, state in self._states.items() if id in self._known]

    def upcoming(self, site_id: str) -> tuple[CheckState, ...]:
        """The same, each with when it is run next by itself."""
        with self._lock:
            now, monotonic = time.time(), time.monotonic()
            due = {
                self._known[id].name: now + max(0.0, at - monotonic)
                for id, at in self._due.items()
                if self._known[id].site_id == site_id
            }
        return tuple(msgspec.structs.replace(each, next_at=due.get(each.name)) for each in self.states(site_id))

    # --- running ------------------------------------------------------------------------------
    def run(
        self,
        site: Site,
        *,
        use: str = Use.GATE,
        slot: int | None = None,
        names: Sequence[str] | None = None,
        borrowed: Sequence[str] = (),
        tell: Tell | None = None,
    ) -> Verdict:
        """Run the scenarios of ``site`` that are for ``use`` (or those ``names``), store how they ended, and wait.

        ``slot``: ask that instance, which need not be live, instead of going through the edge. All of its requests
        carry the site's own names. ``borrowed``: ids of sites whose scenarios are asked of this one as well, but for
        those of a name that it has itself; how these ended is stored nowhere. Blocks up to a minute a scenario; call
        it from a thread of your own. Raises nothing that a scenario can cause.
        """
        chosen, others = self.chosen(site.id, use, borrowed)
        if names is not None:
            chosen = [each for each in self._documents(site.id) if each[0].name in names]
        reports = self.run_these(site, [*chosen, *others], use, slot, borrowed, tell)
        if chosen:
            results = [_Result(known, report) for (known, _), report in zip(chosen, reports, strict=False)]
            with self._store.write() as transaction:
                self._write(transaction, results)
            for result in results:
                if slot is None:
                    self._note_state(result)
        return Verdict(reports)

    def chosen(
        self, site_id: str, use: str, borrowed: Sequence[str] = ()
    ) -> tuple[list[tuple[Known, Scenario]], list[tuple[Known, Scenario]]]:
        """The scenarios for ``use``: the site's own, and those it has of others."""
        own = self._documents(site_id)
        names = {known.name for known, _scenario in own}
        others = []
        for other in borrowed:
            for known, scenario in self._documents(other):
                if known.name not in names:
                    names.add(known.name)
                    others.append((known, scenario))
        return [each for each in own if use in each[1].use], [each for each in others if use in each[1].use]

    def standing(self, site_id: str) -> tuple[Problem, ...]:
        """What is wrong by the last run of each scenario, and which of those that verify have not been run; asks
        nothing, and so may be asked inside of a transaction."""
        found = []
        states = {each.name: each for each in self.states(site_id)}
        for known in self.of_site(site_id):
            state = states[known.name]
            if state.ok is False or (state.ok is None and Use.VERIFY in known.use):
                text = state.problem if state.ok is False else "it has not been run there yet"
                found.append(Problem(f"check/{known.name}", text, "alveole check run"))
        return tuple(found)

    def run_these(
        self,
        site: Site,
        chosen: Sequence[tuple[Known, Scenario]],
        use: str,
        slot: int | None,
        borrowed: Sequence[str] = (),
        tell: Tell | None = None,
    ) -> tuple[Report, ...]:
        from alveole.scenarios import running

        door = self.door(site, slot)
        secrets = {name: value for id in (*reversed(borrowed), site.id) for name, value in self.secrets(id).items()}

        async def all_of_them() -> tuple[Report, ...]:
            room = asyncio.Semaphore(_AT_ONCE)

            async def one(known: Known, scenario: Scenario) -> Report:
                async with room:
                    return await running.run(
                        known.name,
                        scenario,
                        door,
                        site=site.name,
                        use=str(use),
                        secrets=secrets,
                        tell=(lambda step: tell(known.name, step)) if tell is not None else (lambda _step: None),
                    )

            return tuple(await asyncio.gather(*(one(*each) for each in chosen)))

        return asyncio.run(all_of_them()) if chosen else ()

    def _documents(self, site_id: str) -> list[tuple[Known, Scenario]]:
        table = tables.scenarios
        query = sa.select(table.c.id, table.c.name, table.c.document).where(table.c.site_id == site_id)
        with self._store.read() as connection:
            rows = connection.execute(query.order_by(table.c.name)).all()
        found = [(row, msgspec.json.decode(row.document, type=Scenario)) for row in rows]
        return [(known_of(row.id, site_id, row.name, scenario), scenario) for row, scenario in found]

    def secrets(self, site_id: str) -> Mapping[str, str]:
        table = tables.check_secrets
        with self._store.read() as connection:
            rows = connection.execute(sa.select(table.c.name, table.c.value).where(table.c.site_id == site_id))
            return {row.name: row.value for row in rows}

    def door(self, site: Site, slot: int | None = None) -> Door:
        edge = self._settings.edge
        instance = None
        if slot is not None:

            async def instance() -> socket.socket:
                return await asyncio.get_running_loop().run_in_executor(None, self._reach, site, slot)

        return Door(
            names=hosts(site, self._settings),
            prefix=(self._settings.domain, site.path or ""),
            edge="127.0.0.1" if edge.ipv4 == "0.0.0.0" else edge.ipv4,  # noqa: S104  compared, not bound
            http_port=edge.http_port,
            https_port=edge.https_port,
            trust=self._trust,
            hosts=self._settings.outgoing.check_hosts,
            inside_hosts=self._settings.outgoing.inside_hosts,
            instance=instance,
            label="public" if slot is None else f"slot {slot}",
        )

    def _reach(self, site: Site, slot: int) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._agent.call(Reach(site.id, site.number, slot, site.run.port), (theirs.fileno(),))
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        return ours

    def _trust(self) -> ssl.SSLContext:
        """The machine's authorities and the internal one. Loading them takes long enough to do it seldom."""
        now = time.monotonic()
        kept = self._trusted
        if kept is not None and now - kept[0] < _TRUST_SECONDS:
            return kept[1]
        context = ssl.create_default_context()
        for pem in self.private_authorities():
            with contextlib.suppress(ssl.SSLError):
                context.load_verify_locations(cadata=pem)
        with contextlib.suppress(AlveoleError, ssl.SSLError):
            context.load_verify_locations(cadata=self._agent.call(protocol.GetAuthority()))
            self._trusted = (now, context)
        return context

    # --- watching -----------------------------------------------------------------------------
    def watch(self, ticker: Ticker) -> None:
        ticker.add("checks", 1.0, self.tick)

    def tick(self) -> None:
        """Set going what is due, and write what has come."""
        now = time.monotonic()
        with self._lock:
            due = [id for id, at in self._due.items() if at <= now and id not in self._under_way]
            busy = set(self._under_way.values())
            first: dict[str, str] = {}
            for id in due:
                # The others of that site come with a later tick.
                if self._known[id].site_id not in busy:
                    first.setdefault(self._known[id].site_id, id)
            due = list(first.values())
            for id in due:
                self._due[id] = now + self._known[id].every
        for id in due:
            self._begin(id)
        self.flush()

    def _begin(self, id: str) -> None:
        known = self._known.get(id)
        stored = self._store.sites.get(known.site_id) if known is not None else None
        if known is None or stored is None or stored.pending or not _is_watched(stored.site):
            return
        if self._journal.of_site(stored.site.id) is not None:
            self._due[id] = time.monotonic() + min(_BUSY_SECONDS, known.every)
            return
        self._under_way[id] = stored.site.id
        asyncio.run_coroutine_threadsafe(self._watch_one(known, stored.site), self._running())

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._room = asyncio.Semaphore(self._settings.outgoing.checks_parallel)
            threading.Thread(target=self._loop.run_forever, name="checks", daemon=True).start()
        return self._loop

    async def _watch_one(self, known: Known, site: Site) -> None:
        # What speaks HTTP costs memory, and without scenarios nobody needs it.
        from alveole.scenarios import running

        try:
            if self._room is None:
                return
            async with self._room:
                found = next((each for key, each in self._documents(site.id) if key.id == known.id), None)
                if found is None:
                    return
                report = await running.run(
                    known.name, found, self.door(site), site=site.name, use=Use.MONITOR, secrets=self.secrets(site.id)
                )
            with self._lock:
                self._results.append(_Result(known, report))
        finally:
            self._under_way.pop(known.id, None)

    def flush(self) -> None:
        """Write the results that wait, in one commit, and tell of those that have begun or ceased to fail."""
        with self._lock:
            results, self._results = self._results, []
        results = [each for each in results if each.known.id in self._known]
        if not results:
            return
        with self._store.write() as transaction:
            self._write(transaction, results)
        for result in results:
            self._note_state(result)

    def close(self) -> None:
        loop = self._loop
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)

    def _note_state(self, result: _Result) -> None:
        known, report = result.known, result.report
        before = self._failures.get(known.id, 0)
        failures = 0 if report.ok else before + 1
        old = self._states.get(known.id)
        told_before, told = before >= known.after, failures >= known.after
        since = old.since if old is not None and old.ok is report.ok else report.at
        with self._lock:
            if known.id not in self._known:
                return
            self._failures[known.id] = failures
            self._states[known.id] = CheckState(
                name=known.name,
                ok=report.ok,
                at=report.at,
                since=since,
                seconds=report.seconds,
                problem=report.problem,
                every=known.every,
                failing=told,
            )
        stored = self._store.sites.get(known.site_id)
        if stored is None or report.use != Use.MONITOR or told == told_before:
            return
        live = self._journal.begin(CHECK, MONITOR, site=stored.site, reason=known.name)
        if told:
            problem = Problem(f"check/{known.name}", report.problem, f"alveole check show {report.site} {known.name}")
            live.say(f"{failures} runs in a row failed", level="error", resource=f"check/{known.name}")
            self._journal.end(live, (problem,), {"check": known.name})
        else:
            live.say("passes again", resource=f"check/{known.name}")
            self._journal.end(live, result={"check": known.name})

    @staticmethod
    def _write(transaction: Transaction, results: Iterable[_Result]) -> None:
        table = tables.check_runs
        rows = []
        for known, report in ((each.known, each.report) for each in results):
            # Of what passed while watching only that it did.
            bare = report.ok and report.use == Use.MONITOR
            text = "" if bare else msgspec.json.encode(report).decode()
            rows.append(
                {
                    "scenario_id": known.id,
                    "site_id": known.site_id,
                    "at": report.at,
                    "use": report.use,
                    "ok": report.ok,
                    "seconds": report.seconds,
                    "problem": report.problem,
                    "report": text if len(text) <= _REPORT_MAX else "",
                }
            )
        transaction.connection.execute(sa.insert(table), rows)
        for id in {row["scenario_id"] for row in rows}:
            old = (
                sa.select(table.c.seq)
                .where(table.c.scenario_id == id)
                .order_by(table.c.seq.desc())
                .limit(-1)
                .offset(RUNS_KEPT)
            )
            transaction.connection.execute(sa.delete(table).where(table.c.seq.in_(old)))


def _is_watched(site: Site) -> bool:
    # One that sleeps is not down, and asking it is a request that wakes it.
    return site.wanted is Wanted.RUNNING and (not site.asleep or site.woken_by is WokenBy.EVERYBODY)


def known_of(id: str, site_id: str, name: str, scenario: Scenario) -> Known:
    return Known(id, site_id, name, scenario.every_seconds, scenario.after, scenario.use)
