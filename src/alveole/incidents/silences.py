"""PURE. Whether it is silent now, and the words in which a weekly silence is said."""

from __future__ import annotations

import time
from collections.abc import Iterable

from alveole.errors import InvalidInput, Problem
from alveole.incidents.model import AddSilence, Silence
from alveole.scenarios.model import seconds

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = 86_400.0
LENGTH_MAX = 90 * _DAY
WHY_MAX = 500


def active(silence: Silence, now: float) -> bool:
    """A weekly one is by the machine's own clock: on the days when the hour is turned it is as long as ever."""
    if not silence.days:
        return silence.begins_at <= now < silence.ends_at
    here = time.localtime(now)
    # It may have begun some days ago.
    for back in range(int(silence.seconds // _DAY) + 2):
        day = time.struct_time((here.tm_year, here.tm_mon, here.tm_mday - back, 0, silence.minute, 0, 0, 0, -1))
        begun = time.mktime(day)
        if time.localtime(begun).tm_wday in silence.days and begun <= now < begun + silence.seconds:
            return True
    return False


def silent(silences: Iterable[Silence], site: str, rules: Iterable[str], now: float) -> Silence | None:
    """The silence that an incident of ``site`` (empty: the platform) falls into now, if one does; one for a rule counts
    when every rule of the incident is silent."""
    now_active = [each for each in silences if active(each, now) and each.site in ("", site)]
    for each in now_active:
        if not each.rule:
            return each
    named = {each.rule: each for each in now_active}
    wanted = list(rules)
    return named[wanted[0]] if wanted and all(rule in named for rule in wanted) else None


def read(request: AddSilence, id: str, site: str, who: str, now: float) -> Silence:
    """Raises ``InvalidInput`` with all that is wrong."""
    problems = []
    length = 0.0
    try:
        length = seconds(request.length)
        if not 0 < length <= LENGTH_MAX:
            problems.append(Problem("length", "is outside 1 s to 90 days"))
    except ValueError as error:
        problems.append(Problem("length", str(error)))
    if not request.why.strip() or len(request.why) > WHY_MAX or not request.why.isprintable():
        problems.append(Problem("why", "is empty, longer than 500 characters or not printable", "say why"))
    days: tuple[int, ...] = ()
    minute = 0
    if request.weekly:
        words = request.weekly.lower().replace(",", " ").split()
        *named, clock = words or [""]
        try:
            hour, minute = (int(part) for part in clock.split(":"))
            if not (0 <= hour <= 23 and 0 <= minute <= 59):
                raise ValueError
            minute += hour * 60
        except ValueError:
            problems.append(Problem("weekly", f"{clock[:20]!r} is no time of the day", "like: mon,tue 22:00"))
        wrong = [each for each in named if each[:3] not in DAYS]
        problems += [Problem("weekly", f"{each[:20]!r} is no day", " ".join(DAYS)) for each in wrong]
        if not named:
            problems.append(Problem("weekly", "names no day", "like: mon,tue 22:00"))
        days = tuple(sorted({DAYS.index(each[:3]) for each in named if each[:3] in DAYS}))
        if length >= 7 * _DAY:
            problems.append(Problem("length", "is a week or longer"))
        if request.begins_at is not None:
            problems.append(Problem("begins_at", "is only for a silence that is once"))
    if problems:
        raise InvalidInput(problems=problems)
    begins = now if request.begins_at is None else request.begins_at
    return Silence(
        id=id,
        site=site,
        rule=request.rule,
        begins_at=0.0 if days else begins,
        ends_at=0.0 if days else begins + length,
        days=days,
        minute=minute,
        seconds=length,
        who=who,
        why=request.why.strip(),
        created_at=now,
    )


def weekly_words(silence: Silence) -> str:
    if not silence.days:
        return ""
    days = " ".join(DAYS[each] for each in silence.days)
    hours, minutes = divmod(int(silence.seconds // 60), 60)
    length = " ".join(part for part in (f"{hours} h" if hours else "", f"{minutes} min" if minutes else "") if part)
    return f"{days} {silence.minute // 60:02d}:{silence.minute % 60:02d} for {length or f'{silence.seconds:g} s'}"
