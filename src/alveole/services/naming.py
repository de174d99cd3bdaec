"""What keeps the names of sites in a zone: published with the site, repaired when somebody changes them, removed.

A *pass* compares what is wanted (:func:`alveole.dns.zone.wanted`) with what was written (table ``dns_names``) and
brings the one to the other. Whether the zone still says what was written is asked only when its serial number has
moved, and then by conditions, hundreds in one message. What Alvéole has not written it never changes: the server
itself checks that, in the transaction of the change.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec
import sqlalchemy as sa

from alveole.agent.protocol import Link
from alveole.config import Settings
from alveole.dns.rfc2136 import Updates
from alveole.dns.zone import (
    DnsSettings,
    NameView,
    WantedName,
    followed,
    inside,
    lines,
    own_servers,
    server_of,
    wanted,
    zone_of,
)
from alveole.errors import AlveoleError, Problem
from alveole.journal import RECONCILER, Journal
from alveole.model.names import split_resolver
from alveole.services.publishing import FAMILY, PUBLISH, SAID_MOST, Pass, Row, differs, row_of, values_of
from alveole.store import Store
from alveole.store.tables_dns import dns_names
from alveole.ticker import Ticker

log = logging.getLogger("alveole.naming")
WORK = "names"
#: The verb of the journal when the machine's own addresses have changed.
FOLLOW = "follow-addresses"
#: Seconds until a server that failed is asked again: at first this long, doubled each time up to the second figure.
DELAYS = (5.0, 300.0)
#: Seconds without any address of a family until that is believed, while there are some of the other.
_GONE_SECONDS = 3600.0
#: linux/in6.h and RFC 5014: an address that lasts, not one that is made up anew each day (RFC 8981).
_IPV6_ADDR_PREFERENCES, _IPV6_PREFER_SRC_PUBLIC = 72, 0x0002
#: What helps where somebody else's record has a name, and where the name that all are aliases of leads nowhere.
LET_GO = "take that record out of the zone, or give the site another name"
NO_ALIAS = "publish an address at that name; or, for addresses at each name: alveole dns setup --alias ''"
#: Seconds for one message and its answer.
_PATIENCE = 5.0


class Naming:
    """Safe from several threads. One pass at a time; what it cannot do is tried again with growing delays."""

    def __init__(self, settings: Settings, store: Store, journal: Journal) -> None:
        self.settings = settings
        self.store = store
        self.journal = journal
        self.dns: DnsSettings | None = None
        self.rows: dict[str, Row] = {}
        self.problem = ""
        self.since: float | None = None
        self.next_at: float | None = None
        self.serial: int | None = None
        self._failures = 0
        self.compared_at = 0.0
        self._lock = threading.RLock()
        self._again = False
        self._gone: dict[str, float] = {}
        self._poke: Callable[[], None] = lambda: None
        self.besides: Callable[[], Mapping[str, str]] = dict
        """Names that lead here and are of no site, and what each is written under."""
        self.store_settings: Callable[[DnsSettings], None] = lambda _dns: None
        """Keeps what has changed by itself."""

    # --- life -----------------------------------------------------------------------------------
    def load(self, dns: DnsSettings | None) -> None:
        self.dns = dns
        with self.store.read() as connection:
            self.rows = {row.name: row_of(row) for row in connection.execute(sa.select(dns_names))}

    def watch(self, ticker: Ticker) -> None:
        ticker.add(WORK, self.settings.reconcile.drift_seconds, self._begin)
        self._poke = lambda: ticker.poke(WORK)

    def close(self) -> None:
        """After the pass under way there is no other."""
        with self._lock:
            self.dns = None

    def news(self) -> None:
        """Something about sites has changed: look soon. Costs nothing where no zone is managed."""
        if self.dns is not None:
            self._poke()

    def _begin(self) -> None:
        # A day at the most: a clock that was ahead must not put it off for longer.
        if self.dns is None or (self.next_at is not None and 0 < self.next_at - time.time() < 86_400):
            return
        self._again = True
        # A name server may take its time, and the ticker has other work.
        threading.Thread(target=self.sync, name="names", daemon=True).start()

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """No pass is under way inside."""
        with self._lock:
            yield

    def use(self, dns: DnsSettings | None) -> None:
        """From now on these settings hold; nothing is known of how the server is."""
        with self._lock:
            self.dns = dns
            self.problem, self.since, self.next_at, self.serial, self._failures = "", None, None, None, 0

    def updates(self, dns: DnsSettings) -> Updates:
        server, port = server_of(dns, self.settings)
        return Updates(server, port, zone_of(dns, self.settings), dns.tsig, _PATIENCE)

    # --- a pass ---------------------------------------------------------------------------------
    def sync(self, *, by_hand: bool = False) -> None:
        """One pass, or several while news come. Raises nothing that the server is to blame for."""
        self._again = self._again or by_hand
        with self._lock:
            while self._again and self.dns is not None:
                self._again = False
                if by_hand:
                    self.serial = None
                try:
                    self._follow(self.dns)
                    Pass(self, self.dns).run()
                except AlveoleError as error:
                    self._down(error)
                except Exception:
                    log.exception("the names failed by a fault of ours")
                    return
                else:
                    self._up()

    def _follow(self, dns: DnsSettings) -> None:
        """The machine's addresses may have changed: where that is wanted, they are published as they are now."""
        if not dns.follow:
            return
        now = followed(dns.addresses, detected(self.settings), self._gone, time.monotonic(), _GONE_SECONDS)
        if set(now) == set(dns.addresses):
            return
        fresh = msgspec.structs.replace(dns, addresses=now)
        live = self.journal.begin(
            FOLLOW, RECONCILER, reason=f"{', '.join(dns.addresses) or 'none'} → {', '.join(now)}"[:500]
        )
        self.store_settings(fresh)
        self.dns = fresh
        if own_servers(fresh, self.settings):
            live.say("the zone above must be told of the new address: alveole dns show", level="warning")
        self.journal.end(live)

    def _down(self, error: AlveoleError) -> None:
        self.problem = str(error)[:500]
        self._failures += 1
        first, last = DELAYS
        self.next_at = time.time() + min(first * 2.0 ** min(self._failures - 1, 30), last)
        if self.since is None:
            self.since = time.time()
            # Once an outage, however often it is tried.
            live = self.journal.begin(PUBLISH, RECONCILER, reason="the name server takes no changes")
            self.journal.end(live, error.problems)

    def _up(self) -> None:
        if self.since is not None:
            seconds = time.time() - self.since
            live = self.journal.begin(
                PUBLISH, RECONCILER, reason=f"the name server takes changes again, {seconds:.0f} s after"
            )
            self.journal.end(live)
        self.problem, self.since, self.next_at, self._failures = "", None, None, 0

    def goal(self, dns: DnsSettings) -> Mapping[str, WantedName]:
        sites = [each.site for each in list(self.store.sites.values()) if each.pending != "destroy"]
        return wanted(dns, self.settings, sites, self.besides())

    def keep(self, done: Mapping[str, Row | None]) -> None:
        """Write rows down; ``None``: there is nothing of ours at this name any more."""
        if not done:
            return
        rows = [values_of(row) for row in done.values() if row is not None]

        def effect() -> None:
            fresh = {name: row for name, row in {**self.rows, **done}.items() if row is not None}
            self.rows = fresh

        with self.store.write() as transaction:
            connection = transaction.connection
            connection.execute(
                sa.delete(dns_names).where(dns_names.c.name == sa.bindparam("gone")), [{"gone": each} for each in done]
            )
            if rows:
                connection.execute(sa.insert(dns_names), rows)
            transaction.effects.append(effect)

    def leave(self) -> tuple[Problem, ...]:
        """Take everything of ours out of the zone and forget it. Gives what could not be taken out, and stays."""
        with self._lock:
            dns, rows = self.dns, self.rows
            problems: tuple[Problem, ...] = ()
            if dns is not None and rows:
                try:
                    work = Pass(self, dns)
                    work.remove(tuple(rows.values()))
                    work.tell()
                except AlveoleError as error:
                    problems = tuple(
                        Problem("server", f"{len(rows)} names stay there: {each.message}") for each in error.problems
                    )
            self.keep(dict.fromkeys(self.rows))
            return problems

    def compare(self) -> list[str]:
        """What of the names is not in the zone as it should be; changes nothing. Raises as every call of a server."""
        with self._lock:
            dns = self.dns
            if dns is None:
                return []
            work = Pass(self, dns)
            published = [row for row in self.rows.values() if row.state == "published"]
            wrong = [f"{row.name} is not as it was written" for row in work.lost(published)]
            wrong += [f"{row.name}: {row.problem}" for row in self.rows.values() if row.state == "held"]
            missing = self.goal(dns).keys() - self.rows.keys()
            return wrong + [f"{name} is not published yet" for name in sorted(missing)]

    # --- what people see ------------------------------------------------------------------------
    def names(self) -> tuple[NameView, ...]:
        dns = self.dns
        if dns is None:
            return ()
        goal, found = self.goal(dns), []
        for name in sorted({*goal, *self.rows}):
            row, want = self.rows.get(name), goal.get(name)
            stored = self.store.sites.get(row.site_id if row is not None else want.site_id if want is not None else "")
            records = want.records if want is not None else row.written if row is not None else {}
            found.append(
                NameView(
                    name=name,
                    site=stored.site.name if stored is not None else "",
                    records=lines(records),
                    state=row.state if row is not None else "waiting",
                    problem=row.problem if row is not None else "",
                    at=row.at or None if row is not None else None,
                )
            )
        return tuple(found)

    def links(self, names: Sequence[str]) -> tuple[Link, ...]:
        """What the zone's own server says of those of ``names`` that lie in the zone. The link of the first is called
        ``name``, others as they are. A server that says nothing is not asked for the others."""
        found: list[Link] = []
        for name in names:
            link = self.link(name)
            if link is not None:
                found.append(link if name == names[0] else msgspec.structs.replace(link, name=f"name {name}"))
                if not link.ok and self.problem:
                    break
        return tuple(found)

    def link(self, name: str) -> Link | None:
        """What the zone's own server says of a name; ``None`` when the name is none of that zone."""
        dns = self.dns
        if dns is None or not inside(name, zone_of(dns, self.settings)):
            return None
        began = time.monotonic()
        server, port = server_of(dns, self.settings)
        came, cure, ok = "", "", False
        try:
            updates = self.updates(dns)
            found = {kind: values for kind in FAMILY if (values := updates.ask(name, kind).values)}
            want = self.goal(dns).get(name)
            came = ", ".join(lines(found))[:SAID_MOST] or "there is no such name"
            ok = want is not None and all(_same(found.get(kind, ()), values) for kind, values in want.records.items())
            row = self.rows.get(name)
            if ok and "CNAME" in found and self.of_alias(dns) == ():
                ok, came, cure = False, f"{came}; {dns.alias} has no address", NO_ALIAS
            elif not ok and row is not None and row.problem:
                came, cure = f"{came}; {row.problem}", LET_GO
            elif not ok:
                cure = "it is put right by itself; see: alveole dns show"
        except AlveoleError as error:
            came, cure = error.problems[0].message, error.problems[0].hint or "alveole dns check"
        took = round((time.monotonic() - began) * 1000, 2)
        return Link("name", ok, f"ask {server} (port {port}) for {name}", came, cure, took)

    def of_alias(self, dns: DnsSettings) -> tuple[str, ...] | None:
        """What the zone has at the name that all are aliases of; ``None`` when that name is of another zone."""
        if not inside(dns.alias, zone_of(dns, self.settings)):
            return None
        updates = self.updates(dns)
        return tuple(value for kind in FAMILY for value in updates.ask(dns.alias, kind).values)

    def waiting(self, site_id: str) -> tuple[str, ...]:
        """One sentence for each name of a site that is not published, for ``why``."""
        dns = self.dns
        if dns is None:
            return ()
        found = [
            f"{each.name}: {each.problem}" for each in self.rows.values() if each.site_id == site_id and each.problem
        ]
        if self.problem and any(
            differs(self.rows.get(name), want) for name, want in self.goal(dns).items() if want.site_id == site_id
        ):
            found.append(f"its names wait for the name server: {self.problem}")
        return tuple(found)

    def doctor(self) -> tuple[Link, ...]:
        dns = self.dns
        if dns is None:
            return ()
        server, port = server_of(dns, self.settings)
        asked = f"write into the zone {zone_of(dns, self.settings)} at {server} (port {port})"
        held = [row for row in self.rows.values() if row.state == "held"]
        links = [
            Link(
                "name server",
                not self.problem,
                asked,
                self.problem or "taken",
                "alveole dns check" if self.problem else "",
            )
        ]
        if held:
            links.append(
                Link(
                    "names",
                    False,
                    "publish every name",
                    "; ".join(f"{row.name}: {row.problem}" for row in held[:5]),
                    LET_GO,
                )
            )
        return tuple(links)


def detected(settings: Settings) -> tuple[str, ...]:
    """The addresses at which the world meets this machine, as far as the machine itself knows: those the edge is
    bound to, else those that its way out begins with. Nothing is sent."""
    found = []
    for bound, family, far in (
        (settings.edge.ipv4, socket.AF_INET, "192.0.2.1"),
        (settings.edge.ipv6, socket.AF_INET6, "2001:db8::1"),
    ):
        if bound not in ("0.0.0.0", "::"):  # noqa: S104  compared, not bound
            found.append(bound)
            continue
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            if family == socket.AF_INET6:
                with contextlib.suppress(OSError):
                    probe.setsockopt(socket.IPPROTO_IPV6, _IPV6_ADDR_PREFERENCES, _IPV6_PREFER_SRC_PUBLIC)
            probe.connect((far, 9))
            found.append(str(probe.getsockname()[0]))
    return tuple(found)


def secondary_serial(address: str, zone: str) -> int:
    """The serial number that another name server has. Raises as :class:`~alveole.dns.rfc2136.Updates`."""
    host, port = split_resolver(address)
    return Updates(host, port, zone, None, _PATIENCE).serial()


def _same(one: Iterable[str], other: Iterable[str]) -> bool:
    return {each.removesuffix(".") for each in one} == {each.removesuffix(".") for each in other}
