"""When something runs out: a straight line through one value a day, with how far it can be trusted. Pure.

A line and nothing cleverer: whoever reads the date can check it with the figures beside it. What grows by leaps (a new
school year, a migration) is not foreseen by any line, which the width of the interval shows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from alveole.views.figures import ForecastView

DAY = 86_400
#: With fewer days a line says nothing.
LEAST_DAYS = 7
#: What lies further ahead is not told as a date.
HORIZON_DAYS = 3650
#: Two-sided 95 % quantiles of Student's t by degrees of freedom (any table of it); beyond the last, 1.96.
_STUDENT = {
    **{5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228, 12: 2.179, 15: 2.131, 20: 2.086, 25: 2.060},
    **{30: 2.042, 40: 2.021, 60: 2.000, 90: 1.987, 120: 1.980},
}


def foresee(
    what: Literal["disk", "memory", "addresses", "certificates"],
    unit: Literal["bytes", "count"],
    points: Sequence[tuple[int, float | None]],
    limit: float | None,
) -> ForecastView:
    """``points``: epoch seconds and the value of each day, oldest first; ``None`` is not known and left out."""
    known = [(at, value) for at, value in points if value is not None and math.isfinite(value)]
    now = known[-1][1] if known else None
    if len(known) < LEAST_DAYS:
        return ForecastView(what=what, unit=unit, limit=limit, now=now, days=len(known))
    first = known[0][0]
    slope, at_first, error, fit = _line([((at - first) / DAY, value) for at, value in known])
    width = _student(len(known) - 2) * error
    low, high = slope - width, slope + width
    verdict: Literal["runs-out", "steady", "falls", "no-limit"] = "runs-out"
    if limit is None:
        verdict = "no-limit"
    elif low <= 0 <= high:
        verdict = "steady"
    elif slope < 0:
        verdict = "falls"
    last = known[-1][0]
    today = at_first + slope * (last - first) / DAY

    def meets(rise: float) -> float | None:
        """From where the line stands at the last day, so that the interval opens from there."""
        if limit is None or verdict != "runs-out" or rise <= 0:
            return None
        days = max((limit - today) / rise, 0.0)
        return None if days > HORIZON_DAYS else last + days * DAY

    return ForecastView(
        what=what,
        unit=unit,
        limit=limit,
        now=now,
        days=len(known),
        first_at=first,
        last_at=last,
        slope=slope,
        slope_low=low,
        slope_high=high,
        fit=fit,
        verdict=verdict,
        end_at=meets(slope),
        end_early=meets(high),
        end_late=meets(low),
    )


def _line(points: Sequence[tuple[float, float]]) -> tuple[float, float, float, float]:
    """Slope, value at 0, standard error of the slope, and R², by least squares."""
    count = len(points)
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    across = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / across
    start = mean_y - slope * mean_x
    left = sum((y - start - slope * x) ** 2 for x, y in points)
    whole = sum((y - mean_y) ** 2 for _, y in points)
    error = math.sqrt(max(left, 0.0) / (count - 2) / across)
    # Rounding alone must not make a flat line look as if it rose.
    if abs(slope) * (points[-1][0] - points[0][0]) <= 1e-9 * max(abs(mean_y), 1.0):
        return 0.0, mean_y, 0.0, 0.0
    return slope, start, error, 1.0 - left / whole if whole > 0 else 0.0


def _student(freedom: int) -> float:
    """The next smaller entry: the interval is rather too wide than too narrow."""
    fitting = [entry for entry in _STUDENT if entry <= freedom]
    return _STUDENT[max(fitting)] if fitting else _STUDENT[5]
