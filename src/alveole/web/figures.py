"""Pages of figures: graphs with a table beside, traffic, quality by month, reports, and the screen on the wall."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from http.cookies import CookieError, SimpleCookie
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from alveole.api.entrance import place_of
from alveole.api.figures import report_answer
from alveole.api.gate import does
from alveole.api.problems import Unauthenticated
from alveole.errors import Denied, Temporary
from alveole.figures.archive import SPANS
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.views.figures import FigureView, QualityView
from alveole.web.admin import show as show_admin
from alveole.web.pages import Asked, Form, Page, PageRoute
from alveole.web.site import show
from alveole.web.words import N_

router = APIRouter(include_in_schema=False, route_class=PageRoute)
SPAN_WORDS = {
    "hour": N_("Hour"),
    "day": N_("Day"),
    "week": N_("Week"),
    "month": N_("Month"),
    "year": N_("Year"),
}
#: So many points are as many as a graph has pixels to show them; so many rows does somebody read.
_POINTS, _ROWS = 300, 24
WALL = "__Host-alveole-wall"
_WALL_SECONDS = 366 * 86_400
_COMMAND = "alveole token create wall --role reader --scope metrics.look"
#: Title, unit and the columns of each graph; of a site, what only the machine has is left out, and the other way round.
_GRAPHS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (N_("Requests"), "/s", ("ok", "moved", "refused", "failed")),
    (N_("Answer times"), "ms", ("p50", "p95", "p99")),
    (N_("Processor"), "", ("cpu", "load", "cpus")),
    (N_("Memory"), "bytes", ("memory", "memory_all")),
    (N_("Traffic at the proxy"), "bytes/s", ("in4", "in6", "out4", "out6")),
    (N_("Traffic of its own interface"), "bytes/s", ("net_in", "net_out")),
    (N_("Disk"), "bytes", ("disk", "disk_all")),
    (N_("Reading and writing"), "bytes/s", ("io_read", "io_write")),
    (N_("Processes"), "", ("processes",)),
    (N_("As wanted, and promises kept"), "share", ("up", "kept")),
    (N_("Addresses"), "number", ("addresses_used", "addresses_left")),
    (N_("Sites"), "number", ("sites", "running")),
    (N_("Traffic"), "bytes/s", ("in", "out")),
    (N_("Packets"), "/s", ("in_packets", "out_packets", "lost")),
)
COLUMNS = {
    "ok": N_("well (1xx, 2xx)"),
    "moved": N_("elsewhere (3xx)"),
    "refused": N_("refused (4xx)"),
    "failed": N_("failed (5xx)"),
    "p50": N_("half took less"),
    "p95": N_("95 % took less"),
    "p99": N_("99 % took less"),
    "cpu": N_("processors at work"),
    "load": N_("load, mean of a minute"),
    "cpus": N_("processors there are"),
    "memory": N_("memory used"),
    "memory_all": N_("memory there is"),
    "in4": N_("received, IPv4"),
    "in6": N_("received, IPv6"),
    "out4": N_("sent, IPv4"),
    "out6": N_("sent, IPv6"),
    "net_in": N_("received"),
    "net_out": N_("sent"),
    "disk": N_("disk used"),
    "disk_all": N_("disk there is"),
    "io_read": N_("read"),
    "io_write": N_("written"),
    "processes": N_("processes"),
    "up": N_("as wanted"),
    "kept": N_("promises kept"),
    "addresses_used": N_("addresses used"),
    "addresses_left": N_("addresses left"),
    "sites": N_("sites"),
    "running": N_("running"),
    "in": N_("received"),
    "out": N_("sent"),
    "in_packets": N_("packets received"),
    "out_packets": N_("packets sent"),
    "lost": N_("packets lost"),
}
_ON_THE_WALL = ("Requests", "Answer times", "Processor", "Traffic at the proxy")
#: Of the machine, its own interfaces have graphs on the page of traffic; a sum would count a bridge's packets twice.
_NOT_OF_MACHINE = frozenset({"net_in", "net_out", "up"})


def graphs(page: Page, found: FigureView, only: Sequence[str] = ()) -> list[dict[str, Any]]:
    """What a graph and the table beside it are made of; graphs of which nothing is known are left out."""
    machine = "cpus" in found.columns
    made = []
    when = page.t("When")
    times = [found.start + number * found.step for number in range(len(found.rows))]
    for title, unit, names in _GRAPHS:
        if only and title not in only:
            continue
        there = [name for name in names if name in found.columns and not (machine and name in _NOT_OF_MACHINE)]
        columns = {name: [_round(row[found.columns.index(name)]) for row in found.rows] for name in there}
        columns = {name: values for name, values in columns.items() if any(value is not None for value in values)}
        if not columns:
            continue
        labels = {name: page.t(COLUMNS[name]) for name in columns}
        series = [{"label": labels[name], "values": values} for name, values in columns.items()]
        made.append(
            {
                "title": page.t(title),
                "data": json.dumps({"unit": unit, "span": found.span, "when": when, "times": times, "series": series}),
                "rows": [_summary(page, labels[name], values, unit) for name, values in columns.items()],
            }
        )
    return made


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def _summary(page: Page, label: str, values: Sequence[float | None], unit: str) -> tuple[str, ...]:
    known = [value for value in values if value is not None]
    # The newest row is not whole yet.
    last = next((value for value in reversed(values[-3:]) if value is not None), None)
    mean = sum(known) / len(known)
    return (label, *(amount(page, value, unit) for value in (last, mean, max(known))))


def amount(page: Page, value: float | None, unit: str) -> str:
    """A value of a column, in words."""
    w = page.words
    if value is None:
        return w.size(None)
    if unit.startswith("bytes"):
        return w.size(round(value)) + unit.removeprefix("bytes")
    if unit == "share":
        return f"{w.number(value * 100, 1)}\u00a0%"
    if unit == "number":
        # Nobody has half a site: the mean over a row in which one came is rounded.
        return w.number(value, 0)
    text = w.number(value, 0 if value >= 100 or value == int(value) else 1 if value >= 10 else 2)
    return f"{text}\u00a0{unit}" if unit == "ms" else text + unit


def table(page: Page, found: FigureView) -> tuple[list[str], list[tuple[str, ...]]]:
    """The head and the rows of a table of all that the graphs show, as coarse as somebody reads it."""
    units = {name: unit for _, unit, names in _GRAPHS for name in names}
    many = -(-len(found.rows) // _ROWS) or 1
    shown = [name for name in found.columns if name in COLUMNS]
    rows = []
    for at in range(0, len(found.rows), many):
        part = found.rows[at : at + many]
        cells = []
        for name in shown:
            known = [row[found.columns.index(name)] for row in part]
            values = [value for value in known if value is not None]
            cells.append(amount(page, sum(values) / len(values) if values else None, units[name]))
        end = found.start + (at + len(part) - 1) * found.step
        rows.append((page.words.moment(end), *cells))
    return [page.t(COLUMNS[name]) for name in shown], rows


def _span(span: str) -> str:
    return span if span in SPANS else "day"


def _spans(page: Page) -> list[tuple[str, str]]:
    return [(name, page.t(word)) for name, word in SPAN_WORDS.items()]


# --- a site -----------------------------------------------------------------------------------------
@router.get("/site/{site}/figures")
@does(Right.SITE_LOOK)
def of_site(page: Asked, site: str, span: str = "day", peaks: str = "") -> Response:
    services, span = page.services, _span(span)
    view = services.show_site(page.actor, site)
    quality: Sequence[QualityView] = ()
    found, problem = FigureView(name=view.name, span=span, start=0, step=1, columns=(), rows=()), ""
    try:
        found = services.show_figures(page.actor, site, span, peaks=bool(peaks), points=_POINTS)
    except Temporary as error:
        # It lives on a machine that is away; the page says so, and its other tabs are a click away.
        problem = page.refused(error)
    # What it said last of its months is kept here.
    with contextlib.suppress(Temporary):
        quality = services.quality_months(page.actor, site)
    head, rows = table(page, found)
    return show(
        page,
        "site/figures.html",
        view,
        "figures",
        graphs=graphs(page, found),
        head=head,
        rows=rows,
        span=span,
        spans=_spans(page),
        peaks=bool(peaks),
        quality=quality,
        problem=problem,
    )


# --- the machine ------------------------------------------------------------------------------------
@router.get("/admin/figures")
@does(Right.PLATFORM_LOOK)
def of_machine(page: Asked, span: str = "day", peaks: str = "") -> Response:
    span = _span(span)
    found = page.services.show_figures(page.actor, None, span, peaks=bool(peaks), points=_POINTS)
    head, rows = table(page, found)
    drawn = graphs(page, found)
    return show_admin(
        page, "figures", graphs=drawn, head=head, rows=rows, span=span, spans=_spans(page), peaks=bool(peaks)
    )


@router.get("/admin/traffic")
@does(Right.PLATFORM_LOOK)
def traffic(page: Asked, span: str = "day", peaks: str = "") -> Response:
    """What each interface carried, as graphs; what each site was asked and has sent, as a table."""
    services, span = page.services, _span(span)
    interfaces = []
    for name in services.list_interfaces(page.actor).interfaces:
        found = services.show_interface(page.actor, name, span, peaks=bool(peaks), points=_POINTS)
        interfaces.append((name, graphs(page, found)))
    return show_admin(
        page,
        "traffic",
        interfaces=[each for each in interfaces if each[1]],
        sites=services.list_traffic(page.actor, span),
        span=span,
        spans=_spans(page),
        peaks=bool(peaks),
    )


# --- reports ----------------------------------------------------------------------------------------
@router.get("/admin/reports")
@does(Right.PLATFORM_LOOK)
def reports(page: Asked) -> Response:
    from alveole.figures.months import month_of
    from alveole.figures.paper import Phrases

    phrases = Phrases(page.words.code)
    months = page.services.list_reports(page.actor).months
    now = month_of(time.time())
    return show_admin(
        page, "reports", months=[(each, phrases.month(each)) for each in months], now=(now, phrases.month(now))
    )


@router.get("/admin/reports/{month}")
@does(Right.PLATFORM_LOOK)
def report(page: Asked, month: str) -> Response:
    from alveole.figures import paper

    found = page.services.show_report(page.actor, month)
    return show_admin(page, "report", document=paper.document(found, page.words.code), month=found.month)


@router.get("/admin/reports/{month}/{kind}")
@does(Right.PLATFORM_LOOK)
def report_file(page: Asked, month: str, kind: str, language: str = "") -> Response:
    language = language or page.words.code
    content, media = page.services.report_file(page.actor, month, kind, language)
    return report_answer(content, media, f"{month}.{language}.{kind}")


# --- the wall ---------------------------------------------------------------------------------------
@router.get("/wall")
@does(Right.OPEN)
def wall(page: Asked) -> Response:
    """For who is signed in and may look, and for a screen that has been given a token of its own."""
    actor = page.somebody or _of_screen(page)
    if actor is None:
        return page.show("wall-enter.html", status=401, command=_COMMAND)
    found = page.services.wall(actor)
    now = found.now
    codes = [value for name in ("ok", "moved", "refused", "failed") if (value := now.get(name)) is not None]
    return page.show(
        "wall.html",
        wall=found,
        asked=amount(page, sum(codes) if codes else None, "/s"),
        p95=amount(page, now.get("p95"), "ms"),
        failed=amount(page, now.get("failed"), "/s"),
        shares=[
            (page.t(title), _share(now.get(used), now.get(whole)))
            for title, used, whole in (
                (N_("Processor"), "cpu", "cpus"),
                (N_("Memory"), "memory", "memory_all"),
                (N_("Disk"), "disk", "disk_all"),
            )
        ],
        graphs=graphs(page, found.day, _ON_THE_WALL),
    )


def _share(used: float | None, whole: float | None) -> int | None:
    return None if used is None or not whole else round(100 * used / whole)


@router.post("/wall")
@does(Right.OPEN)
def enter_wall(page: Asked, form: Form) -> Response:
    """Give a screen its token, which it keeps. Only one that may do nothing else: whoever stands there has it."""
    secret = form("token").strip()
    address = place_of(page.request).address
    page.services.attempts.check("", address, False)
    actor = page.services.authenticate(secret) if secret else None
    if actor is None:
        page.services.attempts.failed("", address)
        raise Unauthenticated("the token is not known or has expired", field="token")
    if actor.scope != frozenset({Right.METRICS_LOOK}):
        raise Denied(
            "this token may do more than look at the wall",
            field="token",
            hint=_COMMAND,
        )
    answer = page.go("/wall")
    line = f"{WALL}={secret}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={_WALL_SECONDS}"
    answer.headers.append("set-cookie", line)
    return answer


def _of_screen(page: Page) -> Actor | None:
    for line in page.request.headers.getlist("cookie"):
        try:
            found = SimpleCookie(line).get(WALL)
        except CookieError:
            continue
        if found is not None and (actor := page.services.authenticate(found.value)) is not None:
            return actor if actor.scope == frozenset({Right.METRICS_LOOK}) else None
    return None
