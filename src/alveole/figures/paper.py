"""A month's report as a document: headings, paragraphs and tables, in English or French, and as a page of HTML.

The same document becomes a page of the panel and a PDF (:mod:`alveole.figures.pdf`). English sentences are the keys of
the French ones, as in the pages; a test compares the two.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape
from typing import Any

import msgspec

from alveole.figures.phrases import MONTHS, french
from alveole.views.figures import ForecastView, QualityView, ReportView

_UNITS = {"en": ("B", "KiB", "MiB", "GiB", "TiB"), "fr": ("o", "Kio", "Mio", "Gio", "Tio")}
NONE = "\u2013"


class Heading(msgspec.Struct, frozen=True, tag="heading"):
    text: str


class Paragraph(msgspec.Struct, frozen=True, tag="paragraph"):
    text: str


class Grid(msgspec.Struct, frozen=True, tag="table"):
    """``wide``: shares of the width. All columns but the first hold numbers."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    wide: tuple[float, ...]


class Document(msgspec.Struct, frozen=True):
    language: str
    title: str
    subtitle: str
    blocks: tuple[Heading | Paragraph | Grid, ...]


class Phrases:
    """Words and figures of one language."""

    def __init__(self, language: str) -> None:
        self.language = language

    def t(self, sentence: str, **values: Any) -> str:
        found = french()[sentence] if self.language == "fr" else sentence
        return found.format(**values) if values else found

    def number(self, value: float | None, digits: int = 0) -> str:
        if value is None:
            return NONE
        text = f"{value:,.{digits}f}"
        return text.replace(",", "\u00a0").replace(".", ",") if self.language == "fr" else text

    def size(self, value: float | None) -> str:
        if value is None:
            return NONE
        count, place = float(value), 0
        while abs(count) >= 1000 and place < 4:
            count, place = count / 1024, place + 1
        digits = 1 if 0 < abs(count) < 100 and place else 0
        return f"{self.number(count, digits)}\u00a0{_UNITS[self.language][place]}"

    def share(self, value: float | None, digits: int = 2) -> str:
        if value is None:
            return NONE
        # 99.996 % are not 100 %: what is missing must be seen.
        shown = min(value, 1 - 10 ** -(digits + 2)) if value < 1 else value
        space = "\u00a0" if self.language == "fr" else ""
        return f"{self.number(int(shown * 10 ** (digits + 2)) / 10**digits, digits)}{space}%"

    def milliseconds(self, value: float | None) -> str:
        return NONE if value is None else f"{self.number(value)}\u00a0ms"

    def day(self, at: float | None) -> str:
        if at is None:
            return NONE
        when = time.gmtime(at)
        name = MONTHS[self.language][when.tm_mon - 1]
        day = "1er" if self.language == "fr" and when.tm_mday == 1 else str(when.tm_mday)
        return f"{day} {name} {when.tm_year}"

    def month(self, month: str) -> str:
        return f"{MONTHS[self.language][int(month[5:]) - 1]} {month[:4]}"

    def unit(self, value: float | None, unit: str, digits: int = 0) -> str:
        return self.size(value) if unit == "bytes" else self.number(value, digits)


def document(report: ReportView, language: str) -> Document:
    p = Phrases(language)
    blocks: list[Heading | Paragraph | Grid] = []
    if not report.whole:
        blocks.append(Paragraph(p.t("This month is not over: the figures are those until now.")))
    blocks += [Heading(p.t("The machine")), _machine(report, p)]
    if report.machine.known < 0.99:
        text = p.t(
            "Of {share} of the time there are figures; the means are of that.", share=p.share(report.machine.known)
        )
        blocks.append(Paragraph(text))
    blocks.append(Heading(p.t("The sites")))
    blocks += _sites(report.sites, p)
    blocks.append(Heading(p.t("Growth foreseen")))
    blocks.append(
        Paragraph(
            p.t(
                "A straight line through one value a day, by least squares. The interval holds the slope with a "
                "probability of 95 %; R² says how well the line fits (1: exactly). What grows by leaps is not foreseen."
            )
        )
    )
    for each in report.growth:
        blocks += _growth(each, p)
    subtitle = p.t("{domain}, made on {day} (UTC)", domain=report.domain, day=p.day(report.made_at))
    return Document(language, p.t("Report of {month}", month=p.month(report.month)), subtitle, tuple(blocks))


def _machine(report: ReportView, p: Phrases) -> Grid:
    m = report.machine
    return Grid(
        p.t("The machine"),
        (p.t("What"), p.t("Mean"), p.t("Highest"), p.t("There is")),
        (
            (p.t("Processors at work"), p.number(m.cpu, 2), p.number(m.cpu_peak, 2), p.number(m.cpus)),
            (p.t("Memory"), p.size(m.memory), p.size(m.memory_peak), p.size(m.memory_all)),
            (p.t("Disk (at the end)"), p.size(m.disk), NONE, p.size(m.disk_all)),
            (p.t("Requests"), p.number(m.requests), NONE, NONE),
            (p.t("Answers that failed (5xx)"), p.number(m.failed), NONE, NONE),
            (p.t("Received by the proxy"), p.size(m.in_bytes), NONE, NONE),
            (p.t("Sent by the proxy"), p.size(m.out_bytes), NONE, NONE),
        ),
        (0.4, 0.2, 0.2, 0.2),
    )


def _sites(sites: Sequence[QualityView], p: Phrases) -> list[Heading | Paragraph | Grid]:
    if not sites:
        return [Paragraph(p.t("There are no sites."))]
    quality = Grid(
        p.t("Quality of the sites"),
        (p.t("Site"), p.t("Available"), p.t("Promises"), p.t("Answered"), p.t("Requests"), "p50", "p95", "p99"),
        tuple(
            (
                each.site,
                p.share(each.availability),
                p.share(each.promises_kept),
                p.share(each.answered),
                p.number(each.requests),
                p.milliseconds(each.p50),
                p.milliseconds(each.p95),
                p.milliseconds(each.p99),
            )
            for each in sites
        ),
        (0.21, 0.12, 0.12, 0.12, 0.13, 0.1, 0.1, 0.1),
    )
    text = p.t(
        "Available: the share of the time at which a site that was to run kept all its promises and passed the checks "
        "that watch it. Answered: the share of its requests that did not end with 5xx. p50, p95, p99: that share of "
        "the answers took less."
    )
    changed = [each for each in sites if each.deploys or each.deploys_failed or each.rollbacks]
    found: list[Heading | Paragraph | Grid] = [quality, Paragraph(text)]
    for node in sorted({each.node for each in sites if each.node}):
        there = [each for each in sites if each.node == node]
        names = ", ".join(each.site for each in there)
        found.append(Paragraph(p.t("On the server {node}, by its own figures: {sites}.", node=node, sites=names)))
        seen = [each.seen_at for each in there if each.seen_at is not None]
        if seen:
            away = p.t("{node} was away: its figures are those of {day}.", node=node, day=p.day(min(seen)))
            found.append(Paragraph(away))
    if changed:
        rows = tuple(
            (
                each.site,
                p.number(each.deploys + each.deploys_failed),
                p.number(each.deploys_failed),
                p.number(each.rollbacks),
            )
            for each in changed
        )
        head = (p.t("Site"), p.t("Deploys"), p.t("Of which failed"), p.t("Roll backs"))
        found.append(Grid(p.t("What was deployed"), head, rows, (0.4, 0.2, 0.2, 0.2)))
    return found


_WHAT = {"disk": "Disk", "memory": "Memory", "addresses": "Addresses", "certificates": "Names with a certificate"}


def _growth(each: ForecastView, p: Phrases) -> list[Heading | Paragraph | Grid]:
    what = p.t(_WHAT[each.what])
    a_day = p.t("{amount} a day", amount="{amount}")

    def slope(value: float | None) -> str:
        return NONE if value is None else a_day.format(amount=_signed(value, each.unit, p))

    rows: tuple[tuple[str, ...], ...] = (
        (p.t("Now, of what there is"), f"{p.unit(each.now, each.unit)} / {p.unit(each.limit, each.unit)}"),
        (p.t("Days used"), f"{each.days} ({p.day(each.first_at)} {NONE} {p.day(each.last_at)})"),
        (p.t("Slope"), slope(each.slope)),
        (p.t("Its 95 % interval"), f"{slope(each.slope_low)} … {slope(each.slope_high)}"),
        (p.t("Fit (R²)"), p.number(each.fit, 2)),
    )
    if each.slope is None:
        rows = rows[:1]
    return [Grid(what, (what, ""), rows, (0.35, 0.65)), Paragraph(verdict(each, p))]


def verdict(each: ForecastView, p: Phrases) -> str:
    """What follows, as a sentence."""
    if each.verdict == "too-little":
        return p.t("Fewer than seven days are known: nothing is foreseen.")
    if each.verdict == "no-limit":
        return p.t("There is no limit that is known, so it does not run out.")
    if each.verdict == "steady":
        return p.t("It neither grows nor falls by more than chance explains.")
    if each.verdict == "falls":
        return p.t("It falls: it does not run out.")
    if each.end_at is None:
        return p.t("It grows, but does not run out within ten years.")
    early, late = p.day(each.end_early), p.day(each.end_late)
    if each.end_late is None:
        late = p.t("beyond ten years")
    return p.t("It runs out on {day} (between {early} and {late}).", day=p.day(each.end_at), early=early, late=late)


def _signed(value: float, unit: str, p: Phrases) -> str:
    sign = "+" if value > 0 else "-" if value < 0 else ""
    return f"{sign}{p.unit(abs(value), unit, 2)}"


_STYLE = (
    "body{font-family:system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;line-height:1.45;"
    "color-scheme:light dark}table{border-collapse:collapse;width:100%;margin:1rem 0}"
    "caption{text-align:left;font-weight:600;padding:.3rem 0}"
    "th,td{padding:.35rem .5rem;border-bottom:1px solid #8886;text-align:right}"
    "th:first-child,td:first-child{text-align:left}div{overflow-x:auto}"
)


def html(document: Document) -> bytes:
    """A page that needs nothing else: to be kept, sent or printed."""
    out = [
        f'<!doctype html>\n<html lang="{document.language}">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(document.title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        f"<h1>{escape(document.title)}</h1>\n<p>{escape(document.subtitle)}</p>"
    ]
    for block in document.blocks:
        if isinstance(block, Heading):
            out.append(f"<h2>{escape(block.text)}</h2>")
        elif isinstance(block, Paragraph):
            out.append(f"<p>{escape(block.text)}</p>")
        else:
            head = "".join(f'<th scope="col">{escape(text)}</th>' if text else "<td></td>" for text in block.head)
            cells = ["".join(f"<td>{escape(text)}</td>" for text in row[1:]) for row in block.rows]
            rows = "\n".join(
                f'<tr><th scope="row">{escape(row[0])}</th>{more}</tr>'
                for row, more in zip(block.rows, cells, strict=True)
            )
            out.append(
                f"<div><table><caption>{escape(block.caption)}</caption><thead><tr>{head}</tr></thead>\n"
                f"<tbody>{rows}</tbody></table></div>"
            )
    return "\n".join((*out, "</body></html>\n")).encode()
