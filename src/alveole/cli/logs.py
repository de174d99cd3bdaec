"""``alveole site logs``."""

from __future__ import annotations

import sys

import click

from alveole.cli.output import emit, paint, say, stamp
from alveole.cli.show import path
from alveole.cli.verbs import Here, site_name, verb
from alveole.text import clean


@verb(
    None,
    "logs",
    examples=[
        "alveole site logs blog -n 20",
        "alveole site logs blog -f",
        "alveole site logs blog --since 2h --until 2026-11-21T06:00",
    ],
)
@site_name
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines as they come.")
@click.option("--since", metavar="WHEN", help="10m, 2h, 3d, today, 06:30, or ISO 8601 in local time.")
@click.option("--until", metavar="WHEN", help="Likewise.")
@click.option("-n", "--lines", type=int, metavar="N", help="Only the last N lines. With -f alone: 10.")
def logs(here: Here, name: str, follow: bool, since: str | None, until: str | None, lines: int | None) -> None:
    """Show what a site prints, oldest first, with local times.

    With --json one array of documents; with -f one document a line, until interrupted.
    """
    if follow and lines is None and since is None:
        lines = 10
    query = {"follow": follow or None, "since": moment_in_zone(since), "until": moment_in_zone(until), "n": lines}
    with here.client.open("GET", path(name, "logs"), query=query, patience=None if follow else 120.0) as answer:
        if here.json and not follow:
            emit(list(answer.documents()))
            return
        known: dict[str, str] = {}
        try:
            for line in answer.documents():
                if here.json:
                    emit(line, indent=-1)
                else:
                    say(f"{paint(stamp(line['at'], known), 'dim', sys.stdout)}  {clean(line['text'])}")
        except KeyboardInterrupt:
            if not follow:
                raise


def moment_in_zone(text: str | None) -> str | None:
    """Times without an offset mean the caller's zone, which the API need not share."""
    if text is None:
        return None
    from datetime import datetime

    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        return text
    return found.astimezone().isoformat()
