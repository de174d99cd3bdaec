"""``alveole figures``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from alveole.cli.output import emit, paint, say, size, table
from alveole.cli.show import path
from alveole.cli.verbs import Here, complete, verb
from alveole.text import clean

_BARS = "▁▂▃▄▅▆▇█"
_WIDE = 48
_UNITS = {
    "cpu": ("processor", "cores"),
    "memory": ("memory", "bytes"),
    "processes": ("processes", ""),
    "disk": ("disk", "bytes"),
    "io_read": ("read", "bytes/s"),
    "io_write": ("written", "bytes/s"),
    "ok": ("answers 2xx", "/s"),
    "moved": ("answers 3xx", "/s"),
    "refused": ("answers 4xx", "/s"),
    "failed": ("answers 5xx", "/s"),
    "p50": ("half under", "ms"),
    "p95": ("95 % under", "ms"),
    "p99": ("99 % under", "ms"),
    "in4": ("in, IPv4", "bytes/s"),
    "in6": ("in, IPv6", "bytes/s"),
    "out4": ("out, IPv4", "bytes/s"),
    "out6": ("out, IPv6", "bytes/s"),
    "net_in": ("its interface, in", "bytes/s"),
    "net_out": ("its interface, out", "bytes/s"),
    "load": ("load", ""),
    "memory_all": ("memory there is", "bytes"),
    "disk_all": ("disk there is", "bytes"),
    "cpus": ("processors", "number"),
    "addresses_left": ("addresses left", "number"),
    "addresses_used": ("addresses used", "number"),
    "certificates": ("names certified", "number"),
    "sites": ("sites", "number"),
    "running": ("sites running", "number"),
    "up": ("as wanted", "share"),
    "kept": ("promises kept", "share"),
}


@verb(None, "figures", examples=["alveole figures blog", "alveole figures --span week", "alveole figures blog --json"])
@click.argument("name", metavar="[NAME]", required=False, shell_complete=complete("/v1/sites"))
@click.option(
    "--span", type=click.Choice(["hour", "day", "week", "month", "year"]), default="day", help="How far back."
)
@click.option("--peaks", is_flag=True, help="The highest value of each row's time instead of the average.")
def figures(here: Here, name: str | None, span: str, peaks: bool) -> None:
    """Show what a site, or without a name the machine, used and served."""
    query = {"span": span, **({"peaks": "true"} if peaks else {})}
    found = here.client.get(path(name, "figures") if name else "/v1/figures", query=query)
    if here.json:
        emit(found)
        return
    say(f"{paint(clean(found['name']), 'bold')}: the last {span}, a row every {found['step']} s")
    columns = dict(zip(found["columns"], zip(*found["rows"], strict=True), strict=True)) if found["rows"] else {}
    rows = []
    for column, values in columns.items():
        known = [value for value in values if value is not None]
        if not known or (not any(known) and column not in ("up", "kept")):
            continue
        title, unit = _UNITS.get(column, (column, ""))
        rows.append(
            (
                title,
                told(known[-1], unit),
                told(sum(known) / len(known), unit),
                told(max(known), unit),
                _bars(values),
            )
        )
    if not rows:
        say(f"Nothing is known of it yet: a row comes every {found['step']} s.")
        return
    table(("", "LAST", "MEAN", "MOST", span.upper()), rows, right="LAST MEAN MOST")


def told(value: float, unit: str) -> str:
    """A value of a column, in words."""
    if unit.startswith("bytes"):
        return size(value) + unit.removeprefix("bytes")
    if unit == "share":
        return f"{value * 100:.4g} %"
    if unit == "number":
        # Nobody has half a site: what comes or goes within a row is rounded.
        return f"{value:.0f}"
    if unit == "ms" and value >= 1000:
        return f"{value / 1000:.3g} s"
    # Three digits, and never a power of ten.
    short = (
        f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value >= 0.001 else f"{value:.4f}".rstrip("0").rstrip(".")
    )
    return f"{short}{unit}" if unit == "/s" else f"{short} {unit}".strip()


def _bars(values: Sequence[Any]) -> str:
    """As many signs as fit, each the highest of its part; a dot for what is not known."""
    most = max((value for value in values if value is not None), default=0.0)
    wide = min(_WIDE, len(values))
    found = []
    for number in range(wide):
        part = [
            value
            for value in values[number * len(values) // wide : (number + 1) * len(values) // wide]
            if value is not None
        ]
        if not part:
            found.append("·")
        else:
            found.append(_BARS[min(7, int(max(part) / most * 7.999))] if most > 0 else _BARS[0])
    return "".join(found)
