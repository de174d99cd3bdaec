"""``alveole logs`` and ``alveole analytics``."""

from __future__ import annotations

import sys
from typing import Any

import click

from alveole.cli.logs import moment_in_zone
from alveole.cli.output import emit, note, paint, say, seconds, size, stamp, table, when
from alveole.cli.show import path
from alveole.cli.verbs import Here, complete, site_name, verb
from alveole.text import clean

_COLOURS = {"emerg": "red", "alert": "red", "crit": "red", "err": "red", "warning": "yellow"}


@verb(
    None,
    "logs",
    examples=[
        "alveole logs blog -n 50",
        "alveole logs blog --source access --grep '404 wp-login' --since 2h",
        "alveole logs --source own,host --level warning --since today",
        "alveole logs blog -f",
        "alveole logs usage",
    ],
)
@click.argument("site", metavar="[SITE]", required=False, shell_complete=complete("/v1/sites"))
@click.option("--source", metavar="WHICH", help="out, access, error, in, own or host; several with commas.")
@click.option("--level", metavar="LEVEL", help="This grave or graver: err, warning, notice, info, debug.")
@click.option("--grep", metavar="WORDS", help='Words that a line holds, in any order; "so much" is one.')
@click.option("--since", metavar="WHEN", help="10m, 2h, 3d, today, 06:30, or ISO 8601 in local time.")
@click.option("--until", metavar="WHEN", help="Likewise.")
@click.option("-n", "--lines", type=int, metavar="N", help="The newest N lines. Default: 100; with -f: 10.")
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines as they come.")
def logs(
    here: Here,
    site: str | None,
    source: str | None,
    level: str | None,
    grep: str | None,
    since: str | None,
    until: str | None,
    lines: int | None,
    follow: bool,
) -> None:
    """Search the lines of a site, of all sites, of Alvéole itself (own) or of the machine (host).

    The newest that fit, oldest first, with local times. With --json one document; with -f one a line. Also of sites
    that are destroyed, by their name or id. `alveole logs usage` tells what all lines take on the disk.
    """
    if site == "usage" and not any((source, level, grep, since, until, lines, follow)):
        _usage(here)
        return
    query: dict[str, Any] = {"site": site, "source": source, "level": level, "grep": grep}
    shown = lines if lines is not None else 10 if follow else 100
    since, until = moment_in_zone(since), None if follow else moment_in_zone(until)
    asked = {**query, "since": since, "until": until, "n": shown}
    if not follow:
        found = here.client.get("/v1/logs", asked)
        if here.json:
            emit(found)
        else:
            _show(here, found, site is None, {})
        return
    known: dict[str, str] = {}
    try:
        # First, so that nothing is missed between the two; what comes by both is shown once.
        with here.client.open("GET", "/v1/logs", query={**query, "follow": True}, patience=None) as answer:
            lines_before = here.client.get("/v1/logs", asked)
            _show(here, lines_before, site is None, known)
            seen = {(line["at"], line["source"], line["text"]) for line in lines_before["lines"]}
            for line in answer.documents():
                if (line["at"], line["source"], line["text"]) not in seen:
                    _print(here, line, known, site is None)
    except KeyboardInterrupt:
        return


def _show(here: Here, found: dict[str, Any], several: bool, known: dict[str, str]) -> None:
    for line in found["lines"]:
        _print(here, line, known, several)
    if not found["complete"]:
        note(f"The search took too long and stopped at {clean(found['reached'])}: go on with --until, or ask for less.")


def _print(here: Here, line: dict[str, Any], known: dict[str, str], several: bool) -> None:
    if here.json:
        emit(line, indent=-1)
        return
    who = " ".join(each for each in (line["site"] if several else "", line["of"]) if each)
    level = line["level"]
    head = f"{paint(stamp(line['at'], known), 'dim', sys.stdout)} {line['source']:<6} "
    middle = f"{clean(who)}: " if who else ""
    text = clean(line["text"])
    say(head + middle + (paint(text, _COLOURS[level], sys.stdout) if level in _COLOURS else text))


def _usage(here: Here) -> None:
    found = here.client.get("/v1/logs/usage")
    if here.json:
        emit(found)
        return
    days = found["keep_seconds"] / 86_400
    say(f"All lines: {size(found['bytes'])} of {size(found['most_bytes'])}, kept for {days:g} days")
    say(f"Alvéole's own: {size(found['own_bytes'])}; the machine's: {size(found['host_bytes'])}")
    if found["waiting_bytes"]:
        say(f"Waiting at the proxy: {size(found['waiting_bytes'])}")
    for name, told in (("Sent by syslog", found["forward"]), ("Taken in by syslog", found["received"])):
        if told:
            say(f"{name}: {clean(told)}")
    if found["sites"]:
        rows = [(clean(each["site"]), size(each["bytes"]), "destroyed" * each["destroyed"]) for each in found["sites"]]
        table(("SITE", "SIZE", ""), rows, right="SIZE")


@verb(
    None,
    "analytics",
    examples=["alveole analytics blog", "alveole analytics blog --since 30d", "alveole analytics blog --json"],
)
@site_name
@click.option("--since", metavar="WHEN", help="10m, 2h, 3d, today, 06:30, or ISO 8601 in local time. Default: 7d.")
@click.option("--until", metavar="WHEN", help="Likewise. Default: now.")
def analytics(here: Here, name: str, since: str | None, until: str | None) -> None:
    """Count who visits a site: days, pages, errors, referrers, times, bytes.

    By goaccess (Debian's package), from the site's access lines; with networks in place of addresses unless the
    settings say otherwise.
    """
    found = here.client.get(path(name, "analytics"), {"since": moment_in_zone(since), "until": moment_in_zone(until)})
    if here.json:
        emit(found)
        return
    say(f"{clean(found['site'])}: {when(found['since'])} to {when(found['until'])}")
    say(
        f"{found['requests']} requests, {found['visitors']} visitors, {size(found['bytes'])}, "
        f"{found['not_found']} addresses not found"
    )
    if not found["complete"]:
        note("Not all lines of that time were read: choose a shorter one.")
    for key, rows in found["tables"].items():
        if rows:
            say()
            head = (key.replace("_", " ").upper(), "REQUESTS", "VISITORS", "SENT", "TIME")
            cells = [
                (
                    clean(row["name"]),
                    str(row["requests"]),
                    str(row["visitors"]),
                    size(row["bytes"]),
                    seconds(row["seconds"]),
                )
                for row in rows[:10]
            ]
            table(head, cells, right="REQUESTS VISITORS SENT TIME", flexible=0)
