"""One method per verb a person uses. Every door (API, command line) goes through here.

Rights, grammar and every refusal are decided here; a door only parses and prints. Methods are
synchronous, safe from any thread and answer at once: what takes time is accepted as a
:class:`~alveole.model.change.Change` and carried out in threads of its own. Follow it with
:meth:`Services.follow` or :meth:`Services.wait`.

``caller`` is the :class:`~alveole.people.model.Actor` that the door has authenticated; every verb asks
:func:`alveole.people.rights.may` for it. ``site`` is a
name or an id. ``key`` is an idempotency key: the same key with the same request gives the same
change, with another request ``Refused``. ``version`` is the version (ETag) that the caller saw;
:class:`VersionConflict` (a ``Refused``, HTTP 412) when the site has moved on.
All methods raise the errors of :mod:`alveole.errors`: ``Denied``, ``InvalidInput`` with all
problems, ``Refused``, ``NoRoom``, ``NotFound``, ``Temporary``.

| module | holds |
|---|---|
| ``core`` | asking for rights, finding a site, idempotency, accepting a change |
| ``draft`` | what a request about a site asks for, examined: all that is wrong with it at once |
| ``flows`` | what happens after a change was accepted |
| ``images`` | fetching images, and sites of one that is fetched first |
| ``claims`` | domains: adding, claiming, proving them by the DNS |
| ``dns``, ``naming`` | where the names of sites are published; keeping them so |
| ``sites``, ``finding``, ``inside``, ``configure``, ``backups``, ``bases``, ``rollback``, ``platform`` | the verbs |
| ``doors``, ``outside``, ``factors`` | signing in, sessions, tokens; LDAP and OIDC; second factors |
| ``accounts`` | persons, teams, shares, quotas |
| ``apps``, ``versions`` | applications, their environments and what was sent to them |
| ``delivery``, ``gating``, ``switching`` | deliver, approve, deploy; checks around it; after it, and roll back |
| ``comparing``, ``incoming`` | what differs between two versions; the folder where they come by SFTP and git |
| ``syncing``, ``washing`` | an environment gets what another has; its personal data are masked on the way |
| ``visits``, ``files`` | keys, sessions of the SSH door and of the console, the working copy; the file manager |
| ``modules``, ``sources`` | the catalogue, composing, modules from elsewhere |
| ``ledger`` | the journal's chain: anchors, comparing, removing what is old |
| ``scenarios``, ``watching``, ``recording`` | checks: what there is; running them, watching sites; out of a visit |
| ``operations``, ``running`` | named commands and the programs of a site; reading one program to its end |
| ``logbook``, ``analytics`` | log lines: searching, following, their room; who visits a site |
| ``syslog`` | lines that are sent and taken in |
| ``incidents``, ``rules`` | incidents and promises; rules and silences (see :mod:`alveole.incidents`) |
| ``measuring`` | what is measured of sites and platform for the rules |
| ``notify``, ``telling`` | channels, the outbox and what empties it |
| ``certificates``, ``certifying`` | certificates and authorities; what gets and renews them |
| ``nightly``, ``proving`` | backups by themselves and how they are kept; giving one back into a scratch site |
| ``repositories``, ``browsing`` | where they are kept, the platform's own; looking into one |
| ``contentback`` | one file of a backup, compared with what is there now and put back |
| ``pastdays`` | a backup beside the live site, for a while, to who is signed in |
| ``passports``, ``nodes``, ``moving`` | a site as one file; other machines; a site from one to another |
| ``forwarding``, ``farnames``, ``farbackups`` | asking the machine where a site lives; its names; its backups |
| ``farincidents``, ``farfigures`` | incidents of other machines, told and acted on from here; their sites' quality |
| ``farapps``, ``farchecks`` | environments that live there; what is asked there around a switch |
| ``appparts`` | pieces of requests about applications |
| ``figuring``, ``quality`` | what is gathered every ten seconds, tables and metrics of it; quality by month, reports |
| ``installing`` | Alvéole itself on another machine |
| ``sleep`` | sites that sleep until somebody asks for them |
| ``looking`` | lists and documents of sites, wherever they live |
| ``show``, ``appshow`` | stored and seen → documents |
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from functools import partial

from alveole import views
from alveole.config import Settings
from alveole.dns.zone import DnsSettings
from alveole.errors import InvalidInput
from alveole.export import ExportedSite, export
from alveole.figures.archive import Archives
from alveole.figures.gather import Gatherer
from alveole.figures.load import Loads
from alveole.figures.machine import Machine
from alveole.figures.traffic import Traffic
from alveole.journal import BESIDE, Journal
from alveole.loop.compile import hosts
from alveole.loop.reconcile import Reconciler
from alveole.model.change import Change
from alveole.notices import MailServer
from alveole.people.attempts import Attempts
from alveole.people.directory import Directory
from alveole.people.failures import Failures
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.ports import AgentPort
from alveole.services.accounts import AccountVerbs
from alveole.services.analytics import AnalyticsVerbs
from alveole.services.certificates import CertificateVerbs
from alveole.services.certifying import Certifier
from alveole.services.comparing import CompareVerbs
from alveole.services.contentback import ContentBackVerbs
from alveole.services.core import VersionConflict
from alveole.services.dns import DnsVerbs
from alveole.services.farapps import FarAppVerbs
from alveole.services.farbackups import FarBackupVerbs
from alveole.services.farfigures import FarFigures
from alveole.services.farincidents import FarIncidentVerbs
from alveole.services.incoming import IncomingVerbs
from alveole.services.ledger import LedgerVerbs
from alveole.services.logbook import SEARCHES_AT_ONCE
from alveole.services.moving import SWEEP_SECONDS
from alveole.services.naming import Naming
from alveole.services.nodes import WATCH_SECONDS
from alveole.services.notify import NotifyVerbs
from alveole.services.operations import OperationVerbs
from alveole.services.platform import PlatformVerbs
from alveole.services.quality import QualityVerbs
from alveole.services.recording import RecordVerbs
from alveole.services.sources import SourceVerbs
from alveole.services.telling import Telling
from alveole.services.watching import Checks
from alveole.store import Store, Transaction
from alveole.store.apps import AppStore
from alveole.ticker import Ticker

__all__ = ["Services", "VersionConflict"]


class Services(
    DnsVerbs,
    IncomingVerbs,
    FarAppVerbs,
    # Before what does it here: a file of the content, too, is put back where the site lives.
    FarBackupVerbs,
    ContentBackVerbs,
    # Before what looks at nodes, and at incidents: it does both in one.
    FarIncidentVerbs,
    AnalyticsVerbs,
    CompareVerbs,
    SourceVerbs,
    OperationVerbs,
    PlatformVerbs,
    LedgerVerbs,
    RecordVerbs,
    NotifyVerbs,
    CertificateVerbs,
    QualityVerbs,
    AccountVerbs,
):
    """Everything a door may call."""

    def __init__(self, settings: Settings, store: Store, agent: AgentPort) -> None:
        self.settings = settings
        self.addressing = settings.addressing()
        self.store = store
        self.agent = agent
        self.people = Directory(store)
        self.apps = AppStore(store)
        self.people.apps = self.apps.app
        self.gates = [self.red_before]
        self.verifiers = [self.red_after]
        self.attempts = Attempts()
        self.failures = Failures(self._tell_failures)
        self._visitors = Counter()
        self._visitors_lock = threading.Lock()
        self._told_of: dict[tuple[str, str], tuple[str, str]] = {}
        self._consoles = Counter()
        self._claims_lock = threading.Lock()
        self._orders = Counter()
        self._orders_lock = threading.Lock()
        self._challenges = {}
        self._provider = None
        self._begun = {}
        self._confirmed = {}
        self._begun_lock = threading.Lock()
        self._going = {}
        self._operations_running = {}
        self._operations_running_lock = threading.Lock()
        self._going_lock = threading.Lock()
        self._challenges_lock = threading.Lock()
        self.ticker = Ticker()
        self._anchored = 0
        self._anchor_problem = ""
        self.journal = Journal(store)
        self.loop = Reconciler(settings, store, self.journal, agent)
        self.checks = Checks(settings, store, self.journal, agent)
        self.checks.load()
        self.telling = Telling(settings, store, self.people, self.ticker, lambda: self._setting("mail", MailServer))
        self.telling.load()
        self.naming = Naming(settings, store, self.journal)
        self.naming.load(self._setting("dns", DnsSettings))
        self.naming.store_settings = partial(self._put_setting, "dns")
        self.journal.tell = self._ended
        self.loop.abandoned = self._remove
        self.certifier = Certifier(settings, store, self.journal, agent, self._acme, self.keep_authority)
        self.checks.private_authorities = self.private_authorities
        self.started_at = time.time()
        self.loads = Loads()
        self.archives = Archives(settings.database.parent / "figures")
        self._gatherer = Gatherer()
        self._machine = Machine(settings.state, settings.network.interface_prefix)
        self._figures = None
        self._figures_away = False
        self._standing, self._latest, self._links = {}, {}, {}
        self._gathering = threading.Lock()
        self.traffic = Traffic(settings.logs / "edge")
        self._log_turns = threading.BoundedSemaphore(SEARCHES_AT_ONCE)
        self._log_use = None
        self._syslog_set = None
        self._analytics, self._analytics_lock = {}, threading.Lock()
        self._lines = {}
        self._lines_lock = threading.Lock()
        self._node_looks, self._node_problems, self._node_away = {}, {}, {}
        self._nodes_known = None
        self._mirroring, self._nights = {}, {}
        self._incidents_lock, self._incidents_asked, self._incidents_seen = threading.Lock(), {}, {}
        self.far = FarFigures(self)
        self.incidents_known, self._others_asked = set(), {}
        self._sending = {}
        self._asking = set()
        self._last_used = {}
        self._unwoken = {}
        self._usage = {}
        self._night_failures, self._tidied_at, self._trees = {}, 0.0, {}
        self._load_days()
        self._usage_at = float("-inf")
        self._make_watch()
        self.watch.load()

    @classmethod
    def open(cls, settings: Settings, agent: AgentPort, *, loop: bool = True) -> Services:
        """Open the database (made and migrated when needed) and, with ``loop``, start the reconciler.

        What was going on when control ended is taken up again. Raises ``AlveoleError`` when the
        database cannot be read.
        """
        services = cls(settings, Store(settings.database), agent)
        if loop:
            # First, so that no pass takes what a change is at work on for abandoned.
            services._resume()
            services.loop.start()
            services.loop.submit(services._sweep_at_start)
            services._keep_journal()
            services._keep_claims()
            services._keep_figures()
            services._keep_reports()
            services._keep_backups()
            services._keep_days()
            services._keep_syslog()
            services.checks.watch(services.ticker)
            services.telling.start()
            services.naming.watch(services.ticker)
            services.certifier.watch(services.ticker)
            services._keep_watch()
            services.ticker.add("nodes", WATCH_SECONDS, services._watch_nodes)
            services.ticker.add(
                "copies",
                SWEEP_SECONDS,
                lambda: services.loop.submit(services._sweep_copies),
                first=SWEEP_SECONDS,
            )
            services.ticker.add("sleep", settings.sleep.look_seconds, services.look_for_idle)
            services.ticker.start()
        return services

    def _ended(self, transaction: Transaction, change: Change) -> None:
        super()._ended(transaction, change)
        if change.verb not in BESIDE:
            transaction.effects.append(self.naming.news)

    def close(self) -> None:
        """Stop the reconciler and close the database. Sites keep running."""
        self.failures.close()
        self.close_operations()
        self.ticker.stop()
        self.certifier.close()
        self.close_figures()
        self.naming.close()
        self.checks.close()
        self._close_watch()
        self.telling.close()
        self.loop.stop()
        self.store.close()

    def export(self, caller: Actor, kind: str) -> views.Exported:
        """``kind``: ``nginx`` or ``apache``: configuration for a proxy that stands in front."""
        self._allow(caller, Right.PLATFORM_LOOK)
        if kind not in ("nginx", "apache"):
            raise InvalidInput(f"{kind!r} is not a proxy", field="kind", hint="nginx or apache")
        edge = self.settings.edge
        address = "127.0.0.1" if edge.ipv4 == "0.0.0.0" else edge.ipv4  # noqa: S104  compared, not bound
        sites = [
            ExportedSite(site.name, hosts(site, self.settings), site.path, site.https_only, site.access)
            for site in sorted((stored.site for stored in self.store.sites.values()), key=lambda site: site.name)
        ]
        if self.settings.panel_domain:
            sites.append(ExportedSite("panel", (self.settings.panel_domain,), https_only=True))
        where = f"http://{address}:{edge.http_port}"
        text = export("nginx" if kind == "nginx" else "apache", sites, where, domain=self.settings.domain)
        return views.Exported(kind=kind, text=text)
