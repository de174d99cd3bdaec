"""Quality of each site by month, and the month's report of the platform, made by itself and kept."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import sqlalchemy as sa

from alveole import wholefile
from alveole.errors import AlveoleError, InvalidInput, NotFound
from alveole.figures import forecast, months
from alveole.figures.archive import MACHINE, MACHINE_COLUMNS, Table
from alveole.model.change import ChangeState
from alveole.model.site import Site
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.services.figuring import FigureVerbs
from alveole.store import tables
from alveole.views.figures import ForecastView, MachineMonth, QualityView, ReportList, ReportView

log = logging.getLogger("alveole.reports")
#: How often it is looked whether a month is over (seconds); the first look comes when the start is over.
_LOOK_SECONDS, _FIRST_SECONDS = 1800.0, 120.0
#: So many reports are kept: five years.
_KEPT = 60
_FILE = re.compile(r"^(20\d\d-\d\d)\.json\Z")
#: A forecast looks at so many days.
_DAYS = 90
#: Of more than so many sites a month is read by its days, and today by its hours: of a thousand all hours took ten
#: seconds and, read at once, half a gigabyte. So many are read at a time, and of few by their hours.
_FINE_SITES, _CHUNK, _FINE_CHUNK = 50, 250, 25
_DEPLOYS = frozenset({"deploy", "update", "publish"})
KINDS = {"html": "text/html; charset=utf-8", "pdf": "application/pdf"}


class QualityVerbs(FigureVerbs):
    @property
    @abstractmethod
    def certificate_limit(self) -> int | None:
        """How many names can have a certificate, where the authority in use has such a limit."""

    # --- of sites -----------------------------------------------------------------------------
    def show_quality(self, caller: Actor, site: str, month: str = "") -> QualityView:
        """How good a site was in a month, ``YYYY-MM``; this one when none is named."""
        month = month or months.month_of(time.time())
        months.bounds(month)
        path = f"/quality?month={month}"
        found = self._stored(caller, Right.SITE_LOOK, site, elsewhere=True).site
        if found.node and self.far.is_away(found.node) and (kept := self.far.kept(found, month)) is not None:
            return kept
        if (there := self._asked_there(caller, Right.SITE_LOOK, site, path, QualityView)) is not None:
            return msgspec.structs.replace(there, node=found.node)
        return self._quality([found], month)[0]

    def list_quality(self, caller: Actor, month: str = "") -> tuple[QualityView, ...]:
        """The same of each site that ``caller`` may look at, by name."""
        self._allow(caller, Right.SITE_LIST)
        found = [stored.site for stored in self._visible(caller)]
        return self._quality(found, month or months.month_of(time.time()))

    def quality_months(self, caller: Actor, site: str, count: int = 6) -> tuple[QualityView, ...]:
        """The last ``count`` months, newest first, without those of which nothing is known."""
        month, found = months.month_of(time.time()), []
        stored = self._stored(caller, Right.SITE_LOOK, site, elsewhere=True).site
        away = bool(stored.node) and self.far.is_away(stored.node)
        for _ in range(max(1, min(count, 13))):
            # Of a machine that is away no month is asked for: each would wait for it.
            kept = self.far.kept(stored, month) if away else self.show_quality(caller, site, month)
            found += [kept] if kept is not None else []
            month = months.before(month)
        return tuple(each for number, each in enumerate(found) if number == 0 or each.known > 0)

    def _quality(self, sites: Sequence[Site], month: str) -> tuple[QualityView, ...]:
        now = time.time()
        start, end = months.bounds(month)
        if start > now:
            raise InvalidInput(f"{month} has not begun", field="month")
        many = len(sites) > _FINE_SITES
        parts = months.parts(start, end, now, many=many)
        chunk = _CHUNK if many else _FINE_CHUNK
        over = min(end, now)
        done = self._done(start, end)
        found = []
        rows: list[dict[str, Table]] = []
        far = self.far.quality([each for each in sites if each.node], month)
        every, sites = sites, [each for each in sites if not each.node]
        for number, site in enumerate(sites):
            if number % chunk == 0:
                names = [each.id for each in sites[number : number + chunk]]
                rows = [self.archives.several(names, *part) for part in parts]
            sums = months.sums([each[site.id] for each in rows], start, over)
            asked, failed = round(sums.requests), round(sums.failed)
            found.append(
                QualityView(
                    site=site.name,
                    month=month,
                    known=sums.known,
                    availability=sums.up,
                    requests=asked,
                    failed=failed,
                    answered=1 - sums.failed / sums.requests if sums.requests else None,
                    p50=sums.p50,
                    p95=sums.p95,
                    p99=sums.p99,
                    promises_kept=sums.kept,
                    deploys=done[site.id, "deploy", True],
                    deploys_failed=done[site.id, "deploy", False],
                    rollbacks=done[site.id, "rollback", True] + done[site.id, "rollback", False],
                )
            )
        own = iter(found)
        return tuple(far[each.id] if each.node else next(own) for each in every)

    def _done(self, start: int, end: int) -> Counter[tuple[str, str, bool]]:
        """How many deploys and roll backs ended well or not, by site."""
        table = tables.changes
        query = (
            sa.select(table.c.site_id, table.c.verb, table.c.state, sa.func.count().label("many"))
            .where(table.c.verb.in_([*_DEPLOYS, "rollback"]), table.c.site_id.is_not(None))
            .where(table.c.started_at >= start, table.c.started_at < end)
            .group_by(table.c.site_id, table.c.verb, table.c.state)
        )
        found: Counter[tuple[str, str, bool]] = Counter()
        with self.store.read() as connection:
            for row in connection.execute(query):
                if row.state in (ChangeState.DONE, ChangeState.FAILED):
                    verb = "rollback" if row.verb == "rollback" else "deploy"
                    found[row.site_id, verb, row.state == ChangeState.DONE] += row.many
        return found

    # --- of the platform ----------------------------------------------------------------------
    def list_reports(self, caller: Actor) -> ReportList:
        self._allow(caller, Right.PLATFORM_LOOK)
        return ReportList(months=tuple(self._report_months()))

    def show_report(self, caller: Actor, month: str = "") -> ReportView:
        """The one that is kept, or that of a month that is not over, as it stands now."""
        self._allow(caller, Right.PLATFORM_LOOK)
        month = month or months.month_of(time.time())
        _, end = months.bounds(month)
        with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
            return msgspec.json.decode((self._reports / f"{month}.json").read_bytes(), type=ReportView)
        if end <= time.time() and not self._knew(month):
            raise NotFound(f"nothing is known of {month}", field="month", hint="see: alveole report --list")
        return self._report(month)

    def report_file(self, caller: Actor, month: str, kind: str, language: str = "en") -> tuple[bytes, str]:
        """A report as ``html`` or ``pdf``, in ``en`` or ``fr``; and its media type."""
        self._allow(caller, Right.PLATFORM_LOOK)
        if kind not in KINDS:
            raise InvalidInput(f"{kind[:20]!r} is no kind of file", field="kind", hint=", ".join(KINDS))
        if language not in ("en", "fr"):
            raise InvalidInput(f"{language[:20]!r} is no language", field="language", hint="en, fr")
        report = self.show_report(caller, month)
        with contextlib.suppress(FileNotFoundError):
            if report.whole:
                return (self._reports / f"{report.month}.{language}.{kind}").read_bytes(), KINDS[kind]
        return _rendered(report, kind, language), KINDS[kind]

    def _report(self, month: str) -> ReportView:
        now = time.time()
        start, end = months.bounds(month)
        if start > now:
            raise InvalidInput(f"{month} has not begun", field="month")
        sites = sorted((stored.site for stored in self.store.sites.values()), key=lambda site: site.name)
        return ReportView(
            month=month,
            made_at=now,
            whole=end <= now,
            domain=self.settings.domain,
            machine=self._machine_month(start, min(end, now), now),
            sites=self._quality(sites, month),
            growth=self.foresee(min(end, now)),
        )

    def _machine_month(self, start: int, end: float, now: float) -> MachineMonth:
        # Of a month that began within the hour there is no whole row, only the parts of that hour.
        parts = months.parts(start, int(end), now, many=False) or [(start, start, months.step_for(start, now))]
        (table, peaks), *rest = (
            (self.archives.between(MACHINE, *part), self.archives.between(MACHINE, *part, peaks=True)) for part in parts
        )
        return months.machine(table, peaks, start, end, rest)

    def foresee(self, at: float) -> tuple[ForecastView, ...]:
        """When disk, memory, addresses and certificates run out, by the days before ``at``."""
        end = int(at) // months.DAY * months.DAY
        table = self.archives.between(MACHINE, end - _DAYS * months.DAY, end, months.DAY)
        limits = self._limits_of(table)
        return (
            forecast.foresee("disk", "bytes", _column(table, "disk"), limits.get("disk_all")),
            forecast.foresee("memory", "bytes", _column(table, "memory"), limits.get("memory_all")),
            forecast.foresee("addresses", "count", _column(table, "addresses_used"), self.addressing.capacity()),
            forecast.foresee("certificates", "count", _column(table, "certificates"), self.certificate_limit),
        )

    def _limits_of(self, table: Table) -> dict[str, float]:
        """What there is: as it was on the last day that is known, else as it is now."""
        found: dict[str, float] = {}
        now = self._latest.get(MACHINE, ())
        for name in ("disk_all", "memory_all"):
            place = MACHINE_COLUMNS.index(name)
            values = [row[place] for row in table.rows if row[place] is not None]
            if now and now[place] is not None:
                values.append(now[place])
            if values and (value := values[-1]) is not None:
                found[name] = value
        return found

    # --- kept ---------------------------------------------------------------------------------
    @property
    def _reports(self) -> Path:
        return self.settings.database.parent / "reports"

    def _report_months(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            found = [match[1] for file in self._reports.iterdir() if (match := _FILE.match(file.name))]
            return sorted(found, reverse=True)
        return []

    def _knew(self, month: str) -> bool:
        start, end = months.bounds(month)
        step = months.step_for(start, time.time())
        table = self.archives.between(MACHINE, start, end, step)
        return any(value is not None for row in months.rows_in(table, start) for value in row)

    def _keep_reports(self) -> None:
        self.ticker.add("reports", _LOOK_SECONDS, self._look_for_report, first=_FIRST_SECONDS)

    def _look_for_report(self) -> None:
        """Of many sites it takes seconds, which the ticker has not."""
        month = months.before(months.month_of(time.time()))
        if not (self._reports / f"{month}.json").exists() and self._knew(month):
            threading.Thread(target=self._make_report, name="report", daemon=True).start()

    def _make_report(self) -> None:
        try:
            self.make_report()
        except (AlveoleError, OSError) as error:
            log.warning("the report of the month could not be made: %s", error)

    def make_report(self) -> None:
        """Make and keep the report of the month before this one, unless it is there or nothing is known of it."""
        month = months.before(months.month_of(time.time()))
        if (self._reports / f"{month}.json").exists() or not self._knew(month):
            return
        report = self._report(month)
        self._reports.mkdir(mode=0o700, exist_ok=True)
        for language in ("en", "fr"):
            for kind in KINDS:
                wholefile.write(self._reports / f"{month}.{language}.{kind}", _rendered(report, kind, language))
        # Last: what is there is whole.
        wholefile.write(self._reports / f"{month}.json", msgspec.json.encode(report))
        for old in self._report_months()[_KEPT:]:
            for file in self._reports.glob(f"{old}.*"):
                file.unlink(missing_ok=True)


def _column(table: Table, name: str) -> list[tuple[int, float | None]]:
    place = table.columns.index(name)
    return [(table.start + number * table.step, row[place]) for number, row in enumerate(table.rows)]


def _rendered(report: ReportView, kind: str, language: str) -> bytes:
    from alveole.figures import paper, pdf

    document = paper.document(report, language)
    return paper.html(document) if kind == "html" else pdf.pdf(document)
