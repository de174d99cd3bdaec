"""``alveole report``: quality by month, and the month's report of the platform."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from alveole.cli.output import emit, note, paint, say, size, table, when
from alveole.cli.show import path
from alveole.cli.verbs import Here, complete, verb
from alveole.errors import InvalidInput
from alveole.remote.apiclient import segment
from alveole.text import clean

_NONE = "-"


@verb(
    None,
    "report",
    examples=[
        "alveole report",
        "alveole report blog --month 2026-10",
        "alveole report --month 2026-10 --pdf october.pdf --language fr",
        "alveole report --list",
    ],
)
@click.argument("site", metavar="[SITE]", required=False, shell_complete=complete("/v1/sites"))
@click.option("--month", metavar="YYYY-MM", default="", help="Which month (UTC). Default: this one, until now.")
@click.option("--list", "listed", is_flag=True, help="The months of which a report is kept.")
@click.option("--pdf", metavar="FILE", type=click.Path(dir_okay=False), help="Write the platform's report there.")
@click.option("--html", metavar="FILE", type=click.Path(dir_okay=False), help="Likewise, as one page.")
@click.option("--language", type=click.Choice(["en", "fr"]), default="en", help="Of what is written.")
def report(
    here: Here, site: str | None, month: str, listed: bool, pdf: str | None, html: str | None, language: str
) -> None:
    """Show how good sites were in a month, what was deployed, and when the machine's room runs out."""
    if site is not None:
        if listed or pdf or html:
            raise InvalidInput("is about the whole platform", field="SITE", hint="leave the site out")
        found = here.client.get(path(site, "quality"), query={"month": month} if month else {})
        emit(found) if here.json else _quality([found])
        return
    if listed:
        months = here.client.get("/v1/reports")
        if here.json:
            emit(months)
        elif months["months"]:
            say("\n".join(clean(each) for each in months["months"]))
        else:
            note("No report is kept yet: the first is made when the first month is over.")
        return
    month = month or _this_month()
    for file, kind in ((pdf, "pdf"), (html, "html")):
        if file is not None:
            where = f"/v1/reports/{segment(month)}/{kind}?language={language}"
            content = here.client.raw(where)
            try:
                Path(file).write_bytes(content)
            except OSError as error:
                raise InvalidInput(f"cannot be written: {error.strerror}", field=f"--{kind}") from error
            note(f"written: {file}")
    if (pdf or html) and not here.json:
        return
    found = here.client.get(f"/v1/reports/{segment(month)}")
    emit(found) if here.json else _report(found)


def _this_month() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).strftime("%Y-%m")


def _report(found: dict[str, Any]) -> None:
    until = "" if found["whole"] else ", until now"
    say(paint(f"{clean(found['domain'])}, {clean(found['month'])}{until}", "bold"))
    machine = found["machine"]
    say(
        f"processor {_number(machine['cpu'])} of {_number(machine['cpus'])} (most {_number(machine['cpu_peak'])}), "
        f"memory {_size(machine['memory'])} of {_size(machine['memory_all'])}, "
        f"disk {_size(machine['disk'])} of {_size(machine['disk_all'])}"
    )
    say(
        f"{machine['requests']} requests, {machine['failed']} failed; in {size(machine['in_bytes'])}, "
        f"out {size(machine['out_bytes'])}; figures of {_share(machine['known'])} of the time"
    )
    say()
    _quality(found["sites"])
    say()
    for each in found["growth"]:
        say(f"{paint(each['what'], 'bold')}: {_verdict(each)}")


def _verdict(each: dict[str, Any]) -> str:
    amount = _size if each["unit"] == "bytes" else _number
    words = {
        "too-little": "fewer than seven days are known: nothing is foreseen",
        "no-limit": "no limit is known",
        "steady": "neither grows nor falls by more than chance explains",
        "falls": "falls",
    }
    if each["slope"] is None:
        return words["too-little"]
    reason = (
        f" ({each['days']} days, {amount(each['slope'])} a day, "
        f"95 %: {amount(each['slope_low'])} to {amount(each['slope_high'])}, R² {_number(each['fit'])}; "
        f"{amount(each['now'])} of {amount(each['limit'])})"
    )
    if each["verdict"] != "runs-out":
        return words[each["verdict"]] + reason
    if each["end_at"] is None:
        return "grows, but does not run out within ten years" + reason
    late = when(each["end_late"])[:10] if each["end_late"] is not None else "beyond ten years"
    return f"runs out on {when(each['end_at'])[:10]}, between {when(each['end_early'])[:10]} and {late}{reason}"


def _quality(sites: list[dict[str, Any]]) -> None:
    rows = [
        (
            clean(each["site"]) + (f" ({clean(each['node'])})" if each["node"] else ""),
            _share(each["availability"]),
            _share(each["promises_kept"]),
            _share(each["answered"]),
            str(each["requests"]),
            _number(each["p50"]),
            _number(each["p95"]),
            _number(each["p99"]),
            str(each["deploys"] + each["deploys_failed"]),
            str(each["rollbacks"]),
        )
        for each in sites
    ]
    heads = ("SITE", "AVAILABLE", "PROMISES", "ANSWERED", "REQUESTS", "P50 ms", "P95 ms", "P99 ms", "DEPLOYS", "BACK")
    table(heads, rows, right=" ".join(heads[1:]))
    for node, at in sorted({(each["node"], each["seen_at"]) for each in sites if each["seen_at"]}):
        note(f"{clean(node)} is away: what is said of its sites is of {when(at)}.")


def _share(value: float | None) -> str:
    # Cut, not rounded: 99.996 % is not 100 %.
    return _NONE if value is None else f"{int(value * 10_000 + 1e-6) / 100:.2f} %"


def _number(value: float | None) -> str:
    return _NONE if value is None else f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _size(value: float | None) -> str:
    return _NONE if value is None else _signed(value)


def _signed(value: float) -> str:
    return f"-{size(-value)}" if value < 0 else size(value)
