"""The one engine that gets certificates from authorities and renews them.

Each certificate is a row; a round looks at those that are due, one after the other. What has been begun is stored
before it is gone on with, so that a round that is killed at any point is gone on with by the next: an order at the
authority by its address, the key at the agent by the order's id, the certificate by installing the same again. Until
one is there the edge shows what it showed before.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from alveole.agent.certifying import (
    CertificateSource,
    CertificateState,
    DropCertificate,
    DropChallenge,
    InstallCertificate,
    KeepChallenge,
    ListCertificates,
    RequestCertificate,
    ShowCertificate,
)
from alveole.agent.protocol import Link
from alveole.config import Settings
from alveole.errors import AlveoleError, Problem, Refused, StepFailed, Temporary
from alveole.failpoints import hit
from alveole.issuing import model, pointing, rows
from alveole.issuing.model import AcmeSettings, Authority, OverBudget, WantedCertificate
from alveole.issuing.rows import Order
from alveole.journal import RECONCILER, Journal
from alveole.loop.compile import hosts
from alveole.ports import AgentPort
from alveole.store import Store, new_id
from alveole.ticker import Ticker
from alveole.trust.certs import dates

if TYPE_CHECKING:
    from alveole.issuing.dialogue import Challenge, Dialogue

log = logging.getLogger("alveole.certifying")
ISSUE, RENEW, WARNING = "issue-certificate", "renew-certificate", "certificate-warning"
TICK_SECONDS = 15.0
#: Between two looks at what the edge shows, for warnings and for what was lost.
_SURVEY_SECONDS = 3600.0
#: A renewal window is asked for at most this often, whatever the authority says (RFC 9773 §4.3.3).
_ASK_SECONDS = (60.0, 86_400.0)
_DNS_TTL = 60
#: An authority that is slow is waited for; after so many times the next one is asked.
_TRIES_THERE = 3
#: New names are asked for spread over this time: a platform that gets its first authority has many.
_SPREAD_SECONDS = 60.0

Say = Callable[[str], None]


class Certifier:
    """Safe from several threads; one order goes on at a time."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        journal: Journal,
        agent: AgentPort,
        acme: Callable[[], AcmeSettings],
        keep: Callable[[Authority], None],
    ) -> None:
        """``acme`` gives what is set now; ``keep`` stores what an authority has become known by."""
        self._settings = settings
        self._store = store
        self._journal = journal
        self._agent = agent
        self._acme = acme
        self._keep = keep
        self._ticker: Ticker | None = None
        self._busy = threading.Lock()
        self._stop = threading.Event()
        self._surveyed = float("-inf")
        self._seen: frozenset[str] | None = None

    # --- life ---------------------------------------------------------------------------------
    def watch(self, ticker: Ticker) -> None:
        self._ticker = ticker
        ticker.add("certificates", TICK_SECONDS, self._tick, first=TICK_SECONDS)

    def retry(self) -> None:
        """How certificates are got has changed: what came to nothing before may come to something now."""
        with self._store.write() as transaction:
            for order in rows.every(transaction.connection):
                if not order.expires_at:
                    rows.put(transaction.connection, msgspec.structs.replace(order, next_at=time.time()))
        self.poke()

    def poke(self) -> None:
        """Look at everything now."""
        self._seen = None
        if self._ticker is not None:
            self._ticker.poke("certificates")

    def close(self) -> None:
        self._stop.set()
        # What is asked just now ends at its next step; its row says how far it has come.
        if self._busy.acquire(timeout=10):
            self._busy.release()

    def _tick(self) -> None:
        if self._busy.locked() or self._stop.is_set():
            return
        now = time.time()
        changed = frozenset(each.key for each in self._wanted(self._acme())) != self._seen
        if not changed and time.monotonic() - self._surveyed < _SURVEY_SECONDS:
            with self._store.read() as connection:
                if not rows.due(connection, now):
                    return
        # An authority may take its time, and the ticker has other work.
        threading.Thread(target=self.round, name="certificates", daemon=True).start()

    def round(self) -> None:
        """Look at what is wanted, and at each certificate that is due."""
        if not self._busy.acquire(blocking=False):
            return
        try:
            self._survey()
            with self._store.read() as connection:
                due = rows.due(connection, time.time())
            for order in due:
                if self._stop.is_set():
                    return
                self._one(order)
        except AlveoleError as error:
            log.warning("certificates: %s", error)
        except Exception:
            log.exception("the round of certificates failed by a fault of ours")
        finally:
            self._busy.release()

    # --- what is wanted -----------------------------------------------------------------------
    def _wanted(self, settings: AcmeSettings) -> tuple[WantedCertificate, ...]:
        if not settings.authorities:
            return ()
        sites = [
            (each.site.id, hosts(each.site, self._settings))
            for each in list(self._store.sites.values())
            if not each.pending
        ]
        return model.wanted(self._settings.domain, self._settings.panel_domain, sites, settings)

    def states(self) -> tuple[CertificateState, ...]:
        """What the edge shows for each name. Raises ``Temporary``."""
        found: tuple[CertificateState, ...] = self._agent.call(ListCertificates())
        return found

    def _survey(self) -> None:
        """Make the rows those that are wanted, and warn of what ends soon."""
        settings = self._acme()
        wanted = {each.key: each for each in self._wanted(settings)}
        states = self.states()
        shown = {each.name: each for each in states}
        now = time.time()
        with self._store.read() as connection:
            known = {" ".join(each.names): each for each in rows.every(connection)}
            warned = rows.warned(connection)
        fresh = [each for key, each in wanted.items() if key not in known and not _is_own(each.names, shown, now)]
        stale = [
            each
            for key, each in known.items()
            if (key not in wanted and not self._still_asked(each, shown)) or _is_own(each.names, shown, now)
        ]
        bare = _bare(states)
        lost = [each for each in known.values() if each not in stale and _is_lost(each, shown, bare, now)]
        if fresh or stale or lost:
            with self._store.write() as transaction:
                connection = transaction.connection
                for want in fresh:
                    wait = model.share(want.names) * _SPREAD_SECONDS if len(fresh) > 3 else 0.0
                    rows.put(connection, Order(new_id("o"), want.names, want.site, next_at=now + wait))
                for order in stale:
                    rows.drop(connection, order.id)
                for order in lost:
                    again = msgspec.structs.replace(order, expires_at=0.0, renew_at=0.0, next_at=now)
                    rows.put(connection, again)
        # Those of names that are not here any more: kept as long as they might serve again.
        gone = [name for each in stale for name in each.names if each.expires_at < now and name not in shown]
        if gone:
            self._agent.call(DropCertificate(tuple(gone[:100])))
        self._warn(states, warned, now)
        self._seen = frozenset(wanted)
        self._surveyed = time.monotonic()

    @staticmethod
    def _still_asked(order: Order, shown: dict[str, CertificateState]) -> bool:
        return order.asked and any({name, name.removeprefix("*.")} & shown.keys() for name in order.names)

    def _warn(self, states: Iterable[CertificateState], warned: dict[str, int], now: float) -> None:
        by_file: dict[str, list[CertificateState]] = {}
        for each in states:
            if each.expires_at:
                by_file.setdefault(each.file, []).append(each)
        for file, found in by_file.items():
            first = found[0]
            days = model.warning(first.issued_at, first.expires_at, warned.get(file, 0), now)
            if not days:
                continue
            names = ", ".join(each.name for each in found[:5]) + (" …" if len(found) > 5 else "")
            stored = self._store.sites.get(first.scope)
            live = self._journal.begin(WARNING, RECONCILER, site=stored.site if stored else None, reason=names)
            problem = Problem(names, ends_in(first.expires_at, now), cure(first.source))
            self._journal.end(live, (problem,), also=lambda t, f=file, d=days: rows.put_warned(t.connection, f, d))  # type: ignore[misc]  # defaults bind the loop's values

    # --- one certificate ----------------------------------------------------------------------
    def _one(self, order: Order) -> None:
        """What is due of one, by itself: journalled when something has come of it, or has newly gone wrong."""
        now = time.time()
        if order.expires_at > now and now < order.renew_at and not order.url:
            self._ask_when(order)
            return
        lines: list[str] = []
        renewal = bool(order.expires_at)
        problems: tuple[Problem, ...] = ()
        try:
            self._obtain(order, lines.append)
        except AlveoleError as error:
            problems = error.problems
            before = self._failed(order, error)
            # That a name which never had one does not lead here yet is no event.
            if (
                self._stop.is_set()
                or before == said(error)
                or (not renewal and (isinstance(error, Refused) or _is_passing(error)))
            ):
                return
        stored = self._store.sites.get(order.site_id)
        names = ", ".join(order.names)
        verb = RENEW if renewal else ISSUE
        live = self._journal.begin(verb, RECONCILER, site=stored.site if stored else None, reason=names)
        for line in lines:
            live.say(line)
        self._journal.end(live, problems)

    def now(self, order: Order, say: Say) -> Order:
        """Get it now, because somebody asks. Raises what is in the way; it is tried again by itself then."""
        while not self._busy.acquire(timeout=0.5):
            if self._stop.is_set():
                raise Temporary("control is ending")
            say("waits for another certificate")
        try:
            with self._store.read() as connection:
                fresh = rows.one(connection, order.id) or order
            return self._obtain(fresh, say)
        except AlveoleError as error:
            self._failed(order, error)
            raise
        finally:
            self._busy.release()

    def _failed(self, order: Order, error: AlveoleError) -> str:
        """Store when it is tried again; gives what was wrong before."""
        if self._stop.is_set():
            return ""
        now = time.time()
        with self._store.write() as transaction:
            known = rows.one(transaction.connection, order.id)
            if known is None:
                return ""
            attempts = known.attempts + 1
            next_at = now + model.delay(attempts) * (1 + model.share(known.names) / 4)
            if isinstance(error, OverBudget):
                next_at = max(now + 60, error.free_at)
            after = msgspec.structs.replace(known, attempts=attempts, next_at=next_at, problem=said(error))
            rows.put(transaction.connection, after)
        return known.problem

    def _store_order(self, order: Order, **changed: object) -> Order:
        after = msgspec.structs.replace(order, **changed)
        with self._store.write() as transaction:
            rows.put(transaction.connection, after)
        return after

    def _obtain(self, order: Order, say: Say) -> Order:
        """Raises ``Refused``, :class:`~.pointing.Astray`, ``OverBudget``, ``StepFailed``, ``Temporary``."""
        settings = self._acme()
        able = [
            each
            for each in settings.authorities
            if model.may_issue(each, order.names)
            and all(model.challenge_of(each, name, order.names, settings) for name in order.names)
        ]
        if not able:
            raise Refused(
                f"no authority that is set up can issue for {', '.join(order.names)}",
                field="authority",
                hint="a wildcard needs a zone (alveole acme zone add); names from inside a private authority",
            )
        able.sort(key=lambda each: each.name != order.authority or not order.url)
        if order.url and able[0].name != order.authority:
            order = self._store_order(order, url="")
        if settings.look and not order.url:
            self._look(order, able[0], settings)
        problems: list[Problem] = []
        over: list[OverBudget] = []
        for authority in able:
            try:
                if not (order.url and order.authority == authority.name):
                    with self._store.read() as connection:
                        spent = rows.spent(connection, time.time() - model.WEEK)
                    model.check_budget(authority, order.names, spent, time.time())
                return self._with(authority, order, settings, say)
            except AlveoleError as error:
                with self._store.read() as connection:
                    order = rows.one(connection, order.id) or order
                say(f"{authority.name}: {said(error)}")
                problems += error.problems
                if isinstance(error, OverBudget):
                    over.append(error)
                slow = _is_passing(error) and bool(order.url) and order.attempts < _TRIES_THERE
                if slow or self._stop.is_set():
                    raise
                if order.url:
                    order = self._store_order(order, url="")
        if len(over) == len(able):
            raise min(over, key=lambda each: each.free_at)
        raise StepFailed(problems=problems)

    def _look(self, order: Order, authority: Authority, settings: AcmeSettings) -> None:
        """Whether the names lead here: what fails here would cost an attempt there."""
        for name in order.names:
            if model.challenge_of(authority, name, order.names, settings) != "http-01":
                continue
            token, answer = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
            self._agent.call(KeepChallenge(token, answer))
            dns = self._settings.dns
            try:
                pointing.check(name, authority.port, token, f"{token}.{answer}", dns.resolvers, dns.seconds)
            finally:
                self._agent.call(DropChallenge(token))

    def _with(self, authority: Authority, order: Order, settings: AcmeSettings, say: Say) -> Order:
        from alveole.issuing.dialogue import Dialogue, Gone

        inside = self._settings.outgoing.inside_hosts
        with Dialogue(authority, inside, self._stop, self._keep) as dialogue:
            going_on = bool(order.url) and order.authority == authority.name
            if going_on:
                say(f"{authority.name}: goes on with the order")
                try:
                    return self._finish(dialogue, authority, order, settings, say)
                except Gone as error:
                    say(f"{authority.name}: {said(error)}; orders anew")
            url = dialogue.order(self._request(order))
            order = self._store_order(order, url=url, authority=authority.name)
            say(f"{authority.name}: ordered {', '.join(order.names)}")
            hit("certifying.ordered")
            return self._finish(dialogue, authority, order, settings, say)

    def _request(self, order: Order) -> str:
        request: str = self._agent.call(RequestCertificate(order.id, order.names))
        return request

    def _finish(
        self, dialogue: Dialogue, authority: Authority, order: Order, settings: AcmeSettings, say: Say
    ) -> Order:
        pending = dialogue.challenges(
            order.url, lambda name: model.challenge_of(authority, name, order.names, settings)
        )
        if pending:
            self._prove(dialogue, authority, order, pending, settings, say)
        hit("certifying.proven")
        chain = dialogue.finish(order.url, lambda: self._request(order))
        hit("certifying.signed")
        wanted = InstallCertificate(order.names, CertificateSource.ACME, authority.name, chain, order=order.id)
        self._agent.call(wanted)
        hit("certifying.installed")
        now = time.time()
        issued, expires = dates(chain)
        at, again = dialogue.renewal(chain)
        renew = at if at is not None else model.renew_at(issued, expires, order.names)
        done = msgspec.structs.replace(
            order,
            url="",
            authority=authority.name,
            attempts=0,
            problem="",
            expires_at=expires,
            renew_at=renew,
            next_at=_next_look(now, again, renew),
        )
        with self._store.write() as transaction:
            rows.put(transaction.connection, done)
            rows.spend(transaction.connection, "issued", authority.name, order.names, now)
        say(f"{authority.name}: issued, valid for {int((expires - now) // 86_400)} days")
        return done

    def _prove(
        self,
        dialogue: Dialogue,
        authority: Authority,
        order: Order,
        pending: tuple[Challenge, ...],
        settings: AcmeSettings,
        say: Say,
    ) -> None:
        from alveole.issuing.dialogue import NotProven

        web = [each for each in pending if each.kind == "http-01"]
        texts: dict[str, list[str]] = {}
        for each in pending:
            if each.kind == "dns-01":
                texts.setdefault(each.name.removeprefix("*."), []).append(each.value)
        try:
            for each in web:
                self._agent.call(KeepChallenge(each.token, each.thumbprint))
            wait = 0.0
            written: dict[str, model.Zone] = {}
            for name, values in texts.items():
                zone = settings.zone_of(name)
                if zone is not None:
                    zone.updates().replace(f"_acme-challenge.{name}", "TXT", _DNS_TTL, values)
                    wait = max(wait, zone.wait_seconds)
                    written[zone.zone] = zone
            if wait and self._stop.wait(wait):
                raise Temporary("control is ending")
            for zone in written.values():
                if isinstance(zone, model.OwnZone) and (behind := pointing.fetched(zone, self._stop.wait)):
                    names = ", ".join(behind)
                    if len(behind) == len(zone.secondaries) and not self._stop.is_set():
                        # None that an authority may ask knows of it: looking would cost an attempt there.
                        raise Temporary(f"{names} has not fetched {zone.zone} yet", field="zone")
                    say(f"{names} has not fetched {zone.zone} yet")
            if self._stop.is_set():
                # What is to be found there is taken away below.
                raise Temporary("control is ending")
            ways = " and ".join(sorted({"HTTP" if each.kind == "http-01" else "DNS" for each in pending}))
            say(f"{authority.name}: to be proven over {ways}")
            hit("certifying.challenged")
            dialogue.prove(order.url, pending)
        except NotProven as error:
            with self._store.write() as transaction:
                for name in error.names:
                    rows.spend(transaction.connection, "failed", authority.name, (name,), time.time())
            raise
        finally:
            for each in web:
                with contextlib.suppress(AlveoleError):
                    self._agent.call(DropChallenge(each.token))
            for name in texts:
                zone = settings.zone_of(name)
                with contextlib.suppress(AlveoleError):
                    if zone is not None:
                        zone.updates().remove(f"_acme-challenge.{name}", "TXT")

    def _ask_when(self, order: Order) -> None:
        """When would the authority have it renewed? What it says may have changed: it revokes early so (RFC 9773)."""
        now = time.time()
        at, again = None, now + 6 * 3600
        authority = next((each for each in self._acme().authorities if each.name == order.authority), None)
        if authority is not None:
            from alveole.issuing.dialogue import Dialogue

            try:
                chain = self._agent.call(ShowCertificate(order.names[0]))
                with Dialogue(authority, self._settings.outgoing.inside_hosts, self._stop, self._keep) as dialogue:
                    at, again = dialogue.renewal(chain)
            except AlveoleError as error:
                log.info("%s does not say when %s is to be renewed: %s", authority.name, order.names[0], error)
        renew = at if at is not None else order.renew_at
        self._store_order(order, renew_at=renew, next_at=_next_look(now, again, renew))

    def link(self) -> Link:
        """Whether any certificate ends soon, for ``doctor``."""
        began = now = time.time()
        asked = "the days that each has left"
        try:
            states = self.states()
        except AlveoleError as error:
            return Link("certificates", False, asked, str(error), "start the agent: alveole serve")
        bad = [
            f"{each.name}: {each.problem or ends_in(each.expires_at, now)}"
            for each in states
            if each.problem or (each.expires_at and model.warning(each.issued_at, each.expires_at, 0, now))
        ]
        told = "; ".join(bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
        least = min((each.expires_at for each in states if each.expires_at), default=0.0)
        came = told or (f"{int((least - now) // 86_400)} at the least" if least else "there is none yet")
        where = "alveole cert list" if bad else ""
        return Link("certificates", not bad, asked, came, where, (time.time() - began) * 1000)

    def dialogue(self, authority: Authority, keep: Callable[[Authority], None]) -> Dialogue:
        """To try an authority; ``keep`` as that of :class:`~alveole.issuing.dialogue.Dialogue`."""
        from alveole.issuing.dialogue import Dialogue

        return Dialogue(authority, self._settings.outgoing.inside_hosts, self._stop, keep)


def _is_passing(error: AlveoleError) -> bool:
    """Whether nothing was said that would be said again."""
    return isinstance(error, Temporary) and not isinstance(error, StepFailed)


def said(error: AlveoleError) -> str:
    return "; ".join(each.message for each in error.problems)[:1000]


def ends_in(expires: float, now: float) -> str:
    days = int((expires - now) // 86_400)
    return f"the certificate ends in {days} days" if expires > now else "the certificate has expired"


def cure(source: CertificateSource) -> str:
    if source is CertificateSource.OWN:
        return "alveole cert upload with the next one, or alveole cert remove"
    return "alveole cert list says what is in the way of its renewal"


def _next_look(now: float, again: float, renew: float) -> float:
    low, high = _ASK_SECONDS
    return max(now, min(renew, min(max(again, now + low), now + high)))


def _is_own(names: Iterable[str], shown: dict[str, CertificateState], now: float) -> bool:
    """Whether somebody has seen to all of these names with a certificate of their own."""
    # The wildcard of the main domain is shown under each name that has it, and under none of its own.
    found = [shown.get(name) for name in names if not name.startswith("*.") or name in shown]
    return bool(found) and all(
        each is not None and each.source is CertificateSource.OWN and not each.problem and each.expires_at > now
        for each in found
    )


def _bare(states: Iterable[CertificateState]) -> frozenset[str]:
    """The wildcards of our own authority that names are shown, for want of another's."""
    wild = ((f"*.{each.name.partition('.')[2]}", each) for each in states if each.source is CertificateSource.INTERNAL)
    return frozenset(name for name, each in wild if name in each.names)


def _is_lost(order: Order, shown: dict[str, CertificateState], bare: frozenset[str], now: float) -> bool:
    """Whether the edge does not show what was issued, though it is valid still."""
    if order.url or order.expires_at <= now or order.attempts:
        return False
    if not bare.isdisjoint(order.names):
        return True
    found = [shown[name] for name in order.names if name in shown]
    return bool(found) and all(each.source is CertificateSource.INTERNAL for each in found)
