"""A scenario out of a visit with any browser, by what the proxy has seen of it: see ADR 30.

Nothing is begun and nothing ended here: a recording is a question about the log between two moments, so there is
nothing to hold, to sweep or to forget. What was typed is not in the log, and so never anywhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Iterator
from itertools import chain, islice
from urllib.parse import urlsplit

from alveole.errors import InvalidInput
from alveole.logbook import lines, places
from alveole.logbook.model import Source
from alveole.logbook.segments import split_lines
from alveole.loop.compile import hosts
from alveole.model.site import Site
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.requests import checks as check_requests
from alveole.scenarios.model import STEPS_MAX, CheckDraft, Request
from alveole.services.scenarios import ScenarioVerbs

#: So long one visit may take, and so many of the lines since then are looked at.
RECORDING_SECONDS = 1800.0
_LINES_MAX = 20_000
#: A line is in its file up to a second after its request (ADR 15).
_LATE_SECONDS = 1.2
_READ_SECONDS = 10.0
_OWN_AGENT = "alveole-check/"


class RecordVerbs(ScenarioVerbs):
    def record_check(self, caller: Actor, site: str, request: check_requests.RecordCheck) -> CheckDraft:
        """A scenario of the visit between ``since`` and ``until``; nothing is kept of it but a row of the journal.

        Blocks for a second, for the proxy writes late, and for up to ten more while pages are read. Raises
        ``InvalidInput`` when nobody was there.
        """
        found = self._stored(caller, Right.SITE_CHECKS, site).site
        self._stored(caller, Right.SITE_LOGS, site)
        now = time.time()
        until = min(request.until or now, now)
        if not now - RECORDING_SECONDS <= request.since < until:
            told = f"a visit is of the last {RECORDING_SECONDS / 60:.0f} minutes"
            raise InvalidInput(told, field="since", hint="record it once more")
        if until > now - _LATE_SECONDS:
            self.loop.pause(_LATE_SECONDS)
        names = hosts(found, self.settings)
        visit, whose = self._visit(found, request, until)
        own = frozenset(names)
        # Here: what speaks HTTP and writes YAML costs memory, and who never records needs neither.
        from alveole.scenarios import running, seen

        steps = seen.wanted(visit, own)
        if not steps:
            raise InvalidInput(
                f"nobody has visited {found.name} {f'from {request.address} ' if request.address else ''}since then",
                field="since",
                hint="open it by its own name, in this browser, and stop the recording afterwards",
            )
        door = self.checks.door(found)
        pages = asyncio.run(running.read_pages(door, seen.to_look_at(steps, own), _READ_SECONDS))
        made = seen.scenario(steps, pages, names[0])
        self._note(caller, "record-check", f"{min(len(steps), STEPS_MAX)} steps of a visit from {whose}", found)
        return CheckDraft(text=made.text, secrets=made.secrets, unfilled=made.unfilled)

    def _visit(self, site: Site, request: check_requests.RecordCheck, until: float) -> tuple[list[Request], str]:
        """The requests of one visitor, oldest first, and the address they came from."""
        visits: dict[tuple[str, str], list[Request]] = {}
        for line in islice(self._lines_of(site, float(math.floor(request.since)), until), _LINES_MAX):
            if line.agent.startswith(_OWN_AGENT) or not line.status.isdigit():
                continue
            host = urlsplit(f"//{line.host}").hostname or ""
            one = Request(host, line.method, line.uri, int(line.status), line.referer)
            visits.setdefault((line.client, line.agent), []).append(one)
        for (client, agent), visit in visits.items():
            if request.address in ("", client) and request.agent in ("", agent):
                return visit, client
        # A browser may reach the site over IPv6 and the pages over IPv4: what it calls itself stays the same.
        for (client, agent), visit in visits.items():
            if request.agent and request.agent == agent:
                return visit, client
        return [], request.address

    def _lines_of(self, site: Site, since: float, until: float) -> Iterator[lines.Request]:
        """What the proxy has written of a site between two moments."""
        for place in places.of_site(self.settings.logs, site.id, [Source.ACCESS]):
            with contextlib.ExitStack() as stack:
                for segment in place.segments(stack, since, until + 1):
                    for raw in chain.from_iterable(map(split_lines, segment.blocks(since, until + 1))):
                        at, line = lines.at_of(raw[:64], place.form), lines.request_of(raw)
                        if line is not None and at is not None and since <= at <= until:
                            yield line
