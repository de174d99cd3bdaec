"""The verbs about log lines: searching, following, how much room they take, and who visits a site.

Lines are files that control's group may read, so that reading them asks nobody; whose may be read is decided here. A
site's lines are for who works on it. Those of Alvéole, of the machine and of destroyed sites are for operators and
administrators.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from alveole import views
from alveole.agent.logwords import GatherLogs
from alveole.errors import AlveoleError, InvalidInput, Temporary
from alveole.logbook import places
from alveole.logbook.asking import Asked, SearchLogs, examine
from alveole.logbook.model import OF_PLATFORM, OF_SITES, Found, LogUse, SiteUse, Source
from alveole.logbook.places import Place
from alveole.people.model import Actor
from alveole.people.rights import Right, may
from alveole.services.nodes import NodeVerbs
from alveole.services.syslog import SyslogVerbs

_USE_SECONDS = 30.0
#: Searches at a time: each may keep a core busy for some seconds.
SEARCHES_AT_ONCE = 2
_PATIENCE = 10.0


class LogVerbs(NodeVerbs, SyslogVerbs):
    _log_turns: threading.BoundedSemaphore
    _log_use: tuple[float, LogUse] | None

    def search_logs(self, caller: Actor, request: SearchLogs) -> Found:
        """The newest lines that fit. Stops after some seconds and says how far it came."""
        asked = examine(request)
        if (told := self._logs_elsewhere(caller, request)) is not None:
            return told
        # Here: it is needed by this alone.
        from alveole.logbook.search import search

        found = self._log_places(caller, request.site, asked)
        if not self._log_turns.acquire(timeout=_PATIENCE):
            raise Temporary("other searches go on", hint="try again in a moment")
        try:
            return search(found, asked.wanted, self._log_name)
        finally:
            self._log_turns.release()

    def follow_logs(self, caller: Actor, request: SearchLogs) -> Any:
        """A :class:`~alveole.logbook.follow.Tails`: the lines that fit and come from now on."""
        asked = examine(request, follow=True)
        from alveole.logbook.follow import PLACES_MAX, Tails

        if request.site:
            self._stored(caller, Right.SITE_LOGS, request.site)
        found = self._log_places(caller, request.site, asked)
        if len(found) > PLACES_MAX:
            raise InvalidInput(f"{len(found)} files are too many to follow", field="site", hint="name a site")
        return Tails(found, asked.wanted, self._log_name)

    def gather_logs(self) -> None:
        """Have the machine's own lines brought in now; where that cannot be, they come a little later."""
        with contextlib.suppress(AlveoleError):
            self.agent.call(GatherLogs())

    def log_usage(self, caller: Actor) -> LogUse:
        """What lines take on the disk; at most half a minute old."""
        self._allow(caller, Right.PLATFORM_LOOK)
        kept = self._logs_measured()
        # How much each prints is not for everybody who may look at the machine.
        return kept if may(caller, Right.PLATFORM_LOGS) else msgspec.structs.replace(kept, sites=())

    def _logs_measured(self) -> LogUse:
        kept = self._log_use
        if kept is None or time.monotonic() - kept[0] > _USE_SECONDS:
            kept = self._log_use = (time.monotonic(), self._measure_logs())
        return kept[1]

    def status(self, caller: Actor) -> views.StatusView:
        found = super().status(caller)
        return msgspec.structs.replace(found, log_bytes=self._logs_measured().bytes)

    def site_log_bytes(self, caller: Actor, site: str) -> int:
        """What the lines of one site take."""
        return places.bytes_of(self.settings.logs, self._stored(caller, Right.SITE_LOGS, site, elsewhere=True).site.id)

    def _log_places(self, caller: Actor, site: str | None, asked: Asked) -> list[Place]:
        logs = self.settings.logs
        sources = asked.sources or (*OF_SITES, *OF_PLATFORM)
        if site:
            wanted = [each for each in sources if each in OF_SITES]
            # A line of a failure is in both: where nobody asks for the one, it is told once.
            wanted = [each for each in wanted if each is not Source.ERROR or asked.sources]
            return [each for id in self._log_ids(caller, site) for each in places.of_site(logs, id, wanted)]
        platform = may(caller, Right.PLATFORM_LOGS)
        if not platform and set(asked.sources) & set(OF_PLATFORM):
            self._allow(caller, Right.PLATFORM_LOGS)
        of_sites = [each for each in sources if each in OF_SITES and (each is not Source.ERROR or asked.sources)]
        found = list(places.of_platform(logs, sources)) if platform else []
        if Source.HOST in sources and platform:
            self.gather_logs()
        if of_sites:
            ids = [
                each.site.id
                for each in self.store.sites.values()
                if may(caller, Right.SITE_LOGS, self.people.held(each.site))
            ]
            gone = places.sites(logs) - set(self.store.sites) if platform else set()
            found += [each for id in (*ids, *sorted(gone)) for each in places.of_site(logs, id, of_sites)]
        return found

    def _log_ids(self, caller: Actor, site: str) -> list[str]:
        """The site of this name or id; for administrators and operators also those of the name that are destroyed."""
        gone: list[str] = []
        if may(caller, Right.PLATFORM_LOGS):
            known = places.sites(self.settings.logs) - set(self.store.sites)
            named = {each.site_id for each in self.journal.list(site=site, limit=200)} if known else set()
            gone = sorted(known & ({site} | {each for each in named if each}))
        stored = self.store.site(site)
        if stored is None and gone:
            return gone
        return [self._stored(caller, Right.SITE_LOGS, site, elsewhere=True).site.id, *gone]

    def _log_name(self, site: str) -> str:
        stored = self.store.sites.get(site)
        if stored is not None:
            return stored.site.name
        last = self.journal.list(site=site, limit=1)
        return (last[0].site_name if last else None) or site

    def _logs_elsewhere(self, caller: Actor, request: SearchLogs) -> Found | None:
        """What the machine tells on which the site lives."""
        stored = self.store.site(request.site) if request.site else None
        if stored is None or not stored.site.node:
            return None
        self._stored(caller, Right.SITE_LOGS, stored.site.id, elsewhere=True)
        query = msgspec.to_builtins(msgspec.structs.replace(request, site=stored.site.name))
        with self._api_of(stored.site.node).open("GET", "/v1/logs", query=query) as answer:
            return msgspec.convert(answer.json(), Found)

    def _measure_logs(self) -> LogUse:
        logs = self.settings.logs
        kept = self.settings.logbook
        sizes: dict[str, int] = {id: places.bytes_of(logs, id) for id in places.sites(logs)}
        own = sum(places.size_of(each) for each in self._log_directories())
        host = sum(
            places.size_of(each)
            for each in (logs / "host", logs / places.IN / places.HOST, logs / places.ARCHIVE / places.HOST)
        )
        waiting = sum(places.size_of_file(logs / places.EDGE / name) for name in ("requests.log", "requests.log.1"))
        shown = [
            SiteUse(self._log_name(id), size, destroyed=id not in self.store.sites)
            for id, size in sizes.items()
            if size
        ]
        return LogUse(
            bytes=sum(sizes.values()) + own + host,
            most_bytes=kept.total_bytes,
            site_most_bytes=kept.site_bytes,
            keep_seconds=kept.keep_seconds,
            destroyed_seconds=kept.destroyed_seconds,
            own_bytes=own,
            host_bytes=host,
            waiting_bytes=waiting,
            sites=tuple(sorted(shown, key=lambda each: (-each.bytes, each.site))),
            forward=self._porter_says("forward"),
            received=self._porter_says("received"),
        )

    def _log_directories(self) -> Iterator[Any]:
        logs = self.settings.logs
        yield logs / places.EDGE
        yield logs / places.ARCHIVE / places.OWN
        for part in places.PARTS:
            yield logs / places.OWN / part
