"""Who visits a site: its access lines, shortened, counted by goaccess, asked for when somebody wants to know.

goaccess runs at the agent, as the site's own user and within limits; control gives it the lines through a pipe, as
they are read. What comes is kept for some minutes.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from typing import Annotated

import msgspec

from alveole.agent.logwords import AnalyseLogs
from alveole.errors import InvalidInput, Temporary
from alveole.logbook import places
from alveole.logbook.model import Source
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.services.logbook import LogVerbs
from alveole.text import clean

#: How long an answer is good (seconds), and how many are kept.
_FRESH_SECONDS = 300.0
_KEPT = 16
#: How long the lines may be read, and then counted (seconds).
_READ_SECONDS = 20.0
_COUNT_SECONDS = 30.0
_ROWS = 30
_DAYS = 366
#: Tables in the order of the page, by goaccess's words for them.
PANELS = {
    "visitors": "days",
    "requests": "pages",
    "static_requests": "files",
    "not_found": "not_found",
    "status_codes": "statuses",
    "referring_sites": "referrers",
    "visit_time": "hours",
    "hosts": "addresses",
    "browsers": "browsers",
    "os": "systems",
}


class _Count(msgspec.Struct, frozen=True):
    count: int = 0


class _Row(msgspec.Struct):
    data: str = ""
    hits: _Count = _Count()
    visitors: _Count = _Count()
    bytes: _Count = _Count()
    avgts: int = 0
    method: str = ""
    items: list[_Row] = []


class _Panel(msgspec.Struct):
    data: list[_Row] = []


class _General(msgspec.Struct, frozen=True):
    total_requests: int = 0
    valid_requests: int = 0
    unique_visitors: int = 0
    unique_files: int = 0
    unique_not_found: int = 0
    unique_referrers: int = 0
    bandwidth: int = 0


class Counted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row of a table. ``seconds``: the mean of the time to answer."""

    name: str
    requests: int
    visitors: int
    bytes: int
    seconds: float


class Analytics(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was asked of a site between two moments, as goaccess counts it."""

    site: str
    since: float
    until: float
    requests: int
    visitors: int
    """A day, an address (or its network) and a browser together are one visitor."""
    pages: int
    not_found: int
    referrers: int
    bytes: int
    tables: dict[Annotated[str, msgspec.Meta(max_length=40)], tuple[Counted, ...]]
    """By name: days, pages, files, not_found, statuses, referrers, hours, addresses, browsers, systems."""
    complete: bool
    """Whether all lines of that time were read."""
    short_addresses: bool
    without_queries: bool
    made_at: float


class AnalyticsVerbs(LogVerbs):
    _analytics: dict[tuple[str, int, int], Analytics]
    _analytics_lock: threading.Lock

    def analytics(self, caller: Actor, site: str, since: str = "", until: str = "") -> Analytics:
        """The last seven days, unless it says otherwise. ``Temporary`` without goaccess on the machine."""
        from alveole.logs import moment

        found = self._stored(caller, Right.SITE_LOGS, site).site
        begin = moment(since or "7d")
        end = moment(until, "until") if until else time.time()
        if not begin < end or end - begin > _DAYS * 86_400:
            raise InvalidInput(f"ends before it begins, or is longer than {_DAYS} days", field="until")
        key = (found.id, int(begin // _FRESH_SECONDS), int(end // _FRESH_SECONDS))
        with self._analytics_lock:
            kept = self._analytics.get(key)
        if kept is not None and time.time() - kept.made_at < _FRESH_SECONDS:
            return msgspec.structs.replace(kept, site=found.name)
        made = self._analyse(found.id, found.name, found.number, begin, end)
        with self._analytics_lock:
            self._analytics[key] = made
            while len(self._analytics) > _KEPT:
                self._analytics.pop(next(iter(self._analytics)))
        return made

    def _analyse(self, id: str, name: str, number: int, since: float, until: float) -> Analytics:
        kept = self.settings.logbook
        (place,) = places.of_site(self.settings.logs, id, (Source.ACCESS,))
        read, write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(write, False)
        whole: list[bool] = []
        feeder = threading.Thread(target=self._feed, args=(place, since, until, write, whole), daemon=True)
        try:
            feeder.start()
            text = self.agent.call(AnalyseLogs(id, number, _COUNT_SECONDS), [read])
        finally:
            os.close(read)
            feeder.join()
        try:
            report = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
            general = msgspec.json.decode(report.get("general", msgspec.Raw(b"{}")), type=_General)
            tables = {
                ours: _rows(msgspec.json.decode(report.get(theirs, msgspec.Raw(b"{}")), type=_Panel), theirs)
                for theirs, ours in PANELS.items()
            }
        except msgspec.DecodeError as error:
            raise Temporary(f"what goaccess gave cannot be read: {error}") from None
        return Analytics(
            site=name,
            since=since,
            until=until,
            requests=general.valid_requests,
            visitors=general.unique_visitors,
            pages=general.unique_files,
            not_found=general.unique_not_found,
            referrers=general.unique_referrers,
            bytes=general.bandwidth,
            tables=tables,
            complete=whole == [True],
            short_addresses=kept.short_addresses,
            without_queries=kept.drop_queries,
            made_at=time.time(),
        )

    def _feed(self, place: places.Place, since: float, until: float, write: int, whole: list[bool]) -> None:
        from alveole.logbook.shorten import shorten

        kept = self.settings.logbook
        end = time.monotonic() + _READ_SECONDS
        # EPIPE: it was killed, or the agent has gone.
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            stack.callback(os.close, write)
            for segment in place.segments(stack, since, until):
                for block in segment.blocks(since, until):
                    lines = memoryview(shorten(block, addresses=kept.short_addresses, queries=kept.drop_queries))
                    while lines:
                        if time.monotonic() > end or not select.select([], [write], [], _READ_SECONDS)[1]:
                            return
                        lines = lines[os.write(write, lines[:65_536]) :]
            whole.append(True)


def _rows(panel: _Panel, kind: str) -> tuple[Counted, ...]:
    rows = panel.data
    if kind == "status_codes":
        # "4xx Client Errors" holds the codes themselves.
        rows = [each for group in rows for each in (group.items or [group])]
    shown = []
    for each in rows[: _DAYS if kind == "visitors" else _ROWS]:
        name = f"{each.method} {each.data}" if each.method and kind in ("requests", "not_found") else each.data
        if kind == "visitors" and len(name) == 8 and name.isdigit():
            name = f"{name[:4]}-{name[4:6]}-{name[6:]}"
        seconds = round(each.avgts / 1e6, 4)
        shown.append(Counted(clean(name)[:300], each.hits.count, each.visitors.count, each.bytes.count, seconds))
    return tuple(shown)
