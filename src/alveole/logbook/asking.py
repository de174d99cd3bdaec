"""What somebody asks about lines, examined: all that is wrong with it at once."""

from __future__ import annotations

import msgspec

from alveole.errors import InvalidInput, Problem
from alveole.logbook.lines import split_words
from alveole.logbook.model import LEVELS, LINES_MAX, OF_PLATFORM, OF_SITES, Source, Wanted
from alveole.text import clean

_SYNONYMS = {"error": "err", "warn": "warning", "critical": "crit", "fatal": "crit", "panic": "emerg"}


class SearchLogs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``source``: one or several, with commas. Moments are what :func:`alveole.logs.moment` reads."""

    site: str | None = None
    source: str | None = None
    level: str | None = None
    grep: str | None = None
    since: str | None = None
    until: str | None = None
    n: int = 500


class Asked(msgspec.Struct, frozen=True):
    """A question that is sound. ``sources`` empty: whatever the caller may see."""

    wanted: Wanted
    sources: tuple[Source, ...]


def examine(request: SearchLogs, *, follow: bool = False) -> Asked:
    """Raises ``InvalidInput`` with every problem."""
    # Here, as the reader of moments reads lines by this package.
    from alveole.logs import moment

    problems: list[Problem] = []
    bounds: dict[str, float | None] = {"since": None, "until": None}
    for name in bounds:
        text = getattr(request, name)
        try:
            bounds[name] = moment(text, name) if text and text.strip() else None
        except InvalidInput as error:
            problems.extend(error.problems)
    since, until = bounds["since"], bounds["until"]
    if since is not None and until is not None and until <= since:
        problems.append(Problem("until", "is not after since"))
    if follow and request.until:
        problems.append(Problem("until", "has no meaning together with follow", "leave one of them out"))
    if not 0 <= request.n <= LINES_MAX:
        problems.append(Problem("n", f"{request.n} is outside 0..{LINES_MAX}"))
    level = (request.level or "").strip().lower()
    level = _SYNONYMS.get(level, level)
    if level and level not in LEVELS:
        problems.append(Problem("level", f"{clean(level)[:40]!r} is not a level", ", ".join(LEVELS)))
    sources = []
    for word in (request.source or "").replace(",", " ").split():
        if word in list(Source):
            sources.append(Source(word))
        else:
            problems.append(Problem("source", f"{clean(word)[:40]!r} is not a source", ", ".join(Source)))
    if request.site and sources and not set(sources) & set(OF_SITES):
        what = " and ".join(each for each in sources if each in OF_PLATFORM)
        problems.append(Problem("source", f"{what} is of no site", "leave the site out"))
    if problems:
        raise InvalidInput(problems=problems)
    return Asked(
        Wanted(
            since=since,
            until=until,
            level=LEVELS.index(level) if level else None,
            words=split_words(request.grep or ""),
            last=request.n,
        ),
        tuple(dict.fromkeys(sources)),
    )
