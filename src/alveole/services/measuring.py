"""What is measured of the sites and of the platform for the rules: the sources that are here from the beginning.

Each reads what is in memory already, or asks for it seldom. A site that is stopped has no readings: nothing of it is
wrong, and nothing is promised. Of one that lives on another machine there are those of what is known here while that is
away: its backups and its certificates. The rest is watched where it lives.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Protocol

import sqlalchemy as sa

from alveole.agent import protocol
from alveole.config import Settings
from alveole.figures.load import Loads, machine_load
from alveole.incidents.model import PLATFORM, About, Figure, Reading, ReadingSource
from alveole.incidents.readings import Found
from alveole.issuing.model import days_to_tell
from alveole.journal import Journal, change_of
from alveole.loop.reconcile import Reconciler
from alveole.model.addressing import Addressing
from alveole.model.change import Change, ChangeState
from alveole.model.resource import PLATFORM as SCOPE
from alveole.model.resource import Kind, PromiseState
from alveole.model.site import Wanted
from alveole.ports import AgentPort
from alveole.services.show import problem_of, state_of
from alveole.services.watching import Checks
from alveole.store import Store, Stored, tables
from alveole.store import backups as backupstore
from alveole.views import CheckState, State

#: Fewer broken sites are told one by one.
_MANY_SITES = 5
_USAGE_SECONDS = 60.0
_BACKUP_SECONDS = 300.0
_DEPLOYS = ("deploy", "rollback", "synchronise")
_ABOUT_BACKUPS = ("backup", "prove-backup")


class Measured(Protocol):
    """What of the services is measured."""

    settings: Settings
    store: Store
    journal: Journal
    agent: AgentPort
    loop: Reconciler
    checks: Checks
    addressing: Addressing
    loads: Loads
    _anchor_problem: str
    _node_problems: dict[str, str]
    _nights: dict[str, frozenset[str]]

    def regularly_saved(self) -> frozenset[str]: ...


class LastEnded:
    """How the last deploy and the last backup of each site ended: from the journal, and then as changes end."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._read = False
        self._verified: dict[str, Reading] = {}
        self._saved: dict[str, Reading] = {}
        self._proved: dict[str, Reading] = {}

    def saw(self, change: Change) -> bool:
        """Take one that has ended; whether it says anything."""
        with self._lock:
            return self._saw(change)

    def _saw(self, change: Change) -> bool:
        done = change.state is ChangeState.DONE
        if change.site_id is None or not (change.verb in _ABOUT_BACKUPS or change.verb in _DEPLOYS):
            return False
        problems = "; ".join(str(each) for each in change.problems)
        text = f"{change.verb} {change.id}: {problems}" if problems else ""
        reading = Reading(change.site_id, "done" if done else "failed", "", text[:500], change.ended_at or 0.0)
        if change.verb == "backup":
            self._saved[change.site_id] = reading
        elif change.verb == "prove-backup":
            # One that could not be tried says nothing of the backup.
            if not done and change.result.get("kind") != "backup.unproved":
                return False
            self._proved[change.site_id] = reading
        elif done or change.result.get("went_back"):
            self._verified[change.site_id] = reading
        else:
            return False
        return True

    def readings(self) -> Found:
        with self._lock:
            if not self._read:
                self._load()
            return {
                "site.verification": list(self._verified.values()),
                "site.backup": list(self._saved.values()),
                "site.proof": list(self._proved.values()),
            }

    def _load(self) -> None:
        table = tables.changes
        seen = (dict(self._verified), dict(self._saved), dict(self._proved))
        with self._store.read() as connection:
            for verbs in (_DEPLOYS, *((verb,) for verb in _ABOUT_BACKUPS)):
                last = sa.select(sa.func.max(table.c.seq)).where(
                    table.c.verb.in_(verbs), table.c.ended_at.is_not(None), table.c.site_id.is_not(None)
                )
                for row in connection.execute(sa.select(table).where(table.c.seq.in_(last.group_by(table.c.site_id)))):
                    self._saw(change_of(row))
        self._read = True
        # What ended meanwhile is newer than what was read.
        self._verified.update(seen[0])
        self._saved.update(seen[1])
        self._proved.update(seen[2])


def sources(of: Measured, last: LastEnded) -> tuple[ReadingSource, ...]:
    """All that are here from the beginning; the order is without meaning."""
    words = {
        "state": tuple(str(each) for each in State),
        "kept": ("pending", "broken"),
    }
    sites = _Sites(of)
    return (
        ReadingSource(
            (
                _site("site.state", "What the site does", words=words["state"]),
                _site("site.promise", "A part of the site that is not as it should be", words=words["kept"]),
                _site("site.check", "A check of the site", words=("passing", "failing")),
                _site("site.check-seconds", "How long the slowest check of the site takes", unit="s"),
                _platform("platform.failing-share", "Sites that are broken, of those that should run", unit="%"),
            ),
            sites.read,
        ),
        ReadingSource(
            (
                _site("site.verification", "How the last deploy ended", words=("done", "failed")),
                _site("site.backup", "How the last backup ended", words=("done", "failed")),
                _site("site.proof", "How the last proof of a backup ended", words=("done", "failed")),
            ),
            lambda: _ended(of, last),
        ),
        ReadingSource(
            (
                _site("site.memory-share", "Memory in use, of the plan's", unit="%"),
                _site("site.disk-share", "Disk in use, of the plan's", unit="%"),
            ),
            lambda: _usage(of),
            _USAGE_SECONDS,
        ),
        ReadingSource(
            (
                _site("site.certificate-days", "Days until a certificate of the site ends", unit="days"),
                _platform("platform.certificate-days", "Days until a certificate of the platform ends", unit="days"),
            ),
            lambda: _certificates(of),
            _USAGE_SECONDS,
        ),
        ReadingSource(
            (_site("site.backup-hours", "Age of the newest backup, of sites that are saved each night", unit="hours"),),
            lambda: _backups(of),
            _BACKUP_SECONDS,
        ),
        ReadingSource(
            (
                _platform("platform.agent", "Whether the agent answers", words=("answers", "away")),
                _platform("platform.promise", "A part of the platform that is not well", words=words["kept"]),
                _platform("platform.database", "The rows of the database", words=("sound", "damaged")),
                _platform("platform.journal", "The journal, compared with what the agent was told",
                          words=("sound", "damaged")),
                _platform("platform.node", "A machine that is driven from here", words=("reached", "away")),
                _platform("platform.disk-free", "What is free of the state disk", unit="%"),
                _platform("platform.memory-share", "The machine's memory in use", unit="%"),
            ),
            lambda: _machine(of),
        ),
        ReadingSource(
            (_platform("platform.addresses-left", "Addresses for new sites", unit="addresses"),),
            lambda: {"platform.addresses-left": [Reading(PLATFORM, _addresses_left(of))]},
            _USAGE_SECONDS,
        ),
    )  # fmt: skip # a figure a line, to be read as a table


def _site(name: str, title: str, unit: str = "", words: tuple[str, ...] = ()) -> Figure:
    return Figure(name=name, title=title, about=About.SITE, unit=unit, words=words)


def _platform(name: str, title: str, unit: str = "", words: tuple[str, ...] = ()) -> Figure:
    return Figure(name=name, title=title, about=About.PLATFORM, unit=unit, words=words)


def running(of: Measured, *, elsewhere: bool = False) -> Iterator[tuple[str, Stored]]:
    """The sites of this machine that should run now; with ``elsewhere`` those of machines driven from here too."""
    for id, stored in of.store.sites.items():
        site = stored.site
        if site.wanted is Wanted.RUNNING and not stored.pending and (elsewhere or not site.node):
            yield id, stored


class _Sites:
    def __init__(self, of: Measured) -> None:
        self._of = of

    def read(self) -> Found:
        of = self._of
        states: list[Reading] = []
        promises: list[Reading] = []
        wanted: set[str] = set()
        broken: set[str] = set()
        known = of.loop.agent_answers
        looks, of_site = of.loop.looks, of.journal.of_site
        for id, stored in running(of):
            wanted.add(id)
            look, live = looks.get(id), of_site(id)
            state = state_of(stored, look, live, known)
            if state is State.RUNNING:
                states.append(Reading(id, "running"))
            elif state is State.UNKNOWN:
                states.append(Reading(id, None))
            else:
                text = f"the site is {state}: {problem_of(look, known) or 'it is not said why'}"
                states.append(Reading(id, str(state), "", text))
            if state is State.FAILED:
                broken.add(id)
            if not known or look is None or live is not None:
                promises.append(Reading(id, None))
                continue
            for each in look.promises:
                if each.state is PromiseState.KEPT or each.state is PromiseState.UNKNOWN:
                    continue
                item = f"{each.id.kind}/{each.id.name}"
                promises.append(Reading(id, str(each.state), item, f"{item} is {each.state}: {each.reason}"))
                if each.state is PromiseState.BROKEN:
                    broken.add(id)
        checks, slowest = self._checks(wanted, broken)
        share = 100.0 * len(broken) / len(wanted) if len(broken) >= _MANY_SITES else 0.0
        text = f"{len(broken)} of {len(wanted)} sites are broken"
        return {
            "site.state": states,
            "site.promise": promises,
            "site.check": checks,
            "site.check-seconds": slowest,
            "platform.failing-share": [Reading(PLATFORM, share if known else None, "", text)],
        }

    def _checks(self, wanted: set[str], broken: set[str]) -> tuple[list[Reading], list[Reading]]:
        failing: list[Reading] = []
        slowest: dict[str, CheckState] = {}
        for id, state in self._of.checks.all_states():
            if id not in wanted or state.ok is None:
                continue
            if state.failing:
                text = f"check {state.name} fails: {state.problem}"
                failing.append(Reading(id, "failing", state.name, text, state.since or 0.0))
                broken.add(id)
            longest = slowest.get(id)
            if state.ok and state.seconds and (longest is None or state.seconds > (longest.seconds or 0.0)):
                slowest[id] = state
        return failing, [
            Reading(id, each.seconds, "", f"check {each.name} took {each.seconds:.1f} s")
            for id, each in slowest.items()
        ]


def _usage(of: Measured) -> Found:
    usage = of.agent.call(protocol.GetUsage(None))
    limits = of.loop.limits
    memory: list[Reading] = []
    disk: list[Reading] = []
    for id, stored in running(of):
        used, plan = usage.get(id), limits.get(stored.site.plan)
        if used is None or plan is None:
            continue
        memory.append(_share(id, used.memory_bytes, plan.memory_bytes, "memory"))
        if plan.disk_bytes:
            disk.append(_share(id, used.disk_bytes, plan.disk_bytes, "disk"))
    return {"site.memory-share": memory, "site.disk-share": disk}


def _share(id: str, used: int, most: int, what: str) -> Reading:
    share = 100.0 * used / most
    text = f"{used >> 20} of {most >> 20} MiB of {what} are in use" if share > 50 else ""
    return Reading(id, share, "", text)


def _certificates(of: Measured) -> Found:
    now = time.time()
    if not of.loop.agent_answers:
        return {}
    found: dict[str, list[Reading]] = {"site.certificate-days": [], "platform.certificate-days": []}
    for id, figure in (
        *((id, "site.certificate-days") for id, _stored in running(of, elsewhere=True)),
        (SCOPE, "platform.certificate-days"),
    ):
        look = of.loop.looks.get(id)
        for item in look.found if look is not None else ():
            expires = item.detail.get("expires") if item.id.kind is Kind.CERTIFICATE else None
            if isinstance(expires, int | float) and expires:
                days = (expires - now) / 86_400
                issued = item.detail.get("issued")
                told = days_to_tell(issued, expires, now) if isinstance(issued, int | float) else days
                text = f"the certificate of {item.id.name} ends in {days:.0f} days"
                subject = PLATFORM if id == SCOPE else id
                found[figure].append(Reading(subject, told, item.id.name, text))
    return found


def _backups(of: Measured) -> Found:
    table = tables.backups
    query = sa.select(table.c.site_id, sa.func.max(table.c.created_at)).group_by(table.c.site_id)
    now = time.time()
    with of.store.read() as connection:
        newest = {row[0]: row[1] for row in connection.execute(query)}
    regular = of.regularly_saved()
    found = []
    for id, stored in running(of, elsewhere=True):
        if stored.site.node and stored.site.node not in of._nights:
            # Not asked yet whether it is saved each night: no reason to say that all is well.
            found.append(Reading(id, None))
        elif id in newest and id in regular:
            found.append(Reading(id, (now - newest[id]) / 3600))
    return {"site.backup-hours": found}


def _ended(of: Measured, last: LastEnded) -> Found:
    """What the journal says; of backups that other machines prove by themselves, what their rows say."""
    found = dict(last.readings())
    far = {id for id, stored in running(of, elsewhere=True) if stored.site.node}
    if not far:
        return found
    newest: dict[str, Reading] = {each.subject: each for each in found["site.proof"]}
    with of.store.read() as connection:
        proofs = backupstore.proofs_of(connection)
    for proof in reversed(proofs):
        known = newest.get(proof.site_id)
        if proof.site_id in far and (known is None or known.since < proof.at):
            text = "" if proof.ok else f"the backup {proof.backup_id} cannot be proved: {proof.problem}"
            newest[proof.site_id] = Reading(proof.site_id, "done" if proof.ok else "failed", "", text[:500], proof.at)
    return {**found, "site.proof": list(newest.values())}


def _machine(of: Measured) -> Found:
    found: dict[str, Sequence[Reading]] = {}
    answers = of.loop.agent_answers
    found["platform.agent"] = [Reading(PLATFORM, "answers" if answers else "away", "", _not(answers, "the agent"))]
    look = of.loop.looks.get(SCOPE)
    if answers and look is not None:
        found["platform.promise"] = [
            Reading(
                PLATFORM,
                str(each.state),
                f"{each.id.kind}/{each.id.name}",
                f"{each.id.kind}/{each.id.name} is {each.state}: {each.reason}",
            )
            for each in look.promises
            if each.id.kind is not Kind.BASE and each.state in (PromiseState.BROKEN, PromiseState.PENDING)
        ]
    damaged = "; ".join(of.store.damaged.values())
    found["platform.database"] = [Reading(PLATFORM, "damaged" if damaged else "sound", "", damaged)]
    anchor = of._anchor_problem
    found["platform.journal"] = [Reading(PLATFORM, "damaged" if anchor else "sound", "", anchor)]
    found["platform.node"] = [
        Reading(PLATFORM, "away", name, f"{name} cannot be reached: {problem}")
        for name, problem in list(of._node_problems.items())
        if problem
    ]
    disk = shutil.disk_usage(of.settings.database.parent)
    free = 100.0 * disk.free / disk.total
    found["platform.disk-free"] = [Reading(PLATFORM, free, "", f"{disk.free >> 20} of {disk.total >> 20} MiB are free")]
    load = machine_load(of.loads)
    if load is not None:
        share = 100.0 * load.memory_used_bytes / load.memory_bytes
        text = f"{load.memory_used_bytes >> 20} of {load.memory_bytes >> 20} MiB are in use"
        found["platform.memory-share"] = [Reading(PLATFORM, share, "", text)]
    return found


def _not(fine: bool, what: str) -> str:
    return "" if fine else f"{what} does not answer"


def _addresses_left(of: Measured) -> float:
    with of.store.read() as connection:
        used = connection.execute(sa.select(sa.func.count()).select_from(tables.leases)).scalar_one()
    return float(of.addressing.capacity() - used)
