"""When something runs out: the line, how far it can be trusted, and what is not foreseen."""

from __future__ import annotations

import random
import re
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alveole.errors import InvalidInput
from alveole.figures import forecast, months, paper, phrases
from alveole.figures.archive import COLUMNS, MACHINE_COLUMNS, Table
from alveole.figures.pdf import lines, pdf, width
from alveole.views.figures import ForecastView, MachineMonth, QualityView, ReportView

DAY = 86_400
START = 20_000 * DAY


def days(*values: float | None) -> list[tuple[int, float | None]]:
    return [(START + number * DAY, value) for number, value in enumerate(values)]


def foresee(*values: float | None, limit: float | None = 100.0) -> ForecastView:
    return forecast.foresee("disk", "bytes", days(*values), limit)


def test_a_straight_line_meets_its_limit_exactly() -> None:
    found = foresee(*(10.0 + 2 * n for n in range(20)))
    assert found.verdict == "runs-out" and found.slope == pytest.approx(2.0) and found.fit == pytest.approx(1.0)
    # 10 + 2 n = 100 on day 45.
    assert found.end_at == pytest.approx(START + 45 * DAY, abs=60)
    assert (found.days, found.first_at, found.last_at, found.now) == (20, START, START + 19 * DAY, 48.0)


def test_noise_widens_the_interval_and_the_truth_is_inside() -> None:
    chance = random.Random(7)  # noqa: S311  the same noise in each run, no secret
    found = foresee(*(10 + 0.5 * n + chance.gauss(0, 2) for n in range(60)))
    assert found.verdict == "runs-out"
    assert found.slope_low is not None and found.slope_high is not None and found.slope is not None
    assert found.slope_low < 0.5 < found.slope_high and found.slope_low < found.slope < found.slope_high
    assert found.end_early and found.end_at and found.end_late
    assert found.end_early < found.end_at < found.end_late


@pytest.mark.parametrize(
    ("values", "limit", "verdict"),
    [
        ((1.0,) * 6, 100.0, "too-little"),
        ((None,) * 30, 100.0, "too-little"),
        ((5.0,) * 30, 100.0, "steady"),
        ((5.0, 6.0) * 15, 100.0, "steady"),
        (tuple(float(50 - n) for n in range(20)), 100.0, "falls"),
        (tuple(float(n) for n in range(20)), None, "no-limit"),
        (tuple(float(n) for n in range(20)), 1e9, "runs-out"),
    ],
)
def test_what_is_not_foreseen(values: tuple[float | None, ...], limit: float | None, verdict: str) -> None:
    found = foresee(*values, limit=limit)
    assert found.verdict == verdict and found.end_at is None
    assert paper.verdict(found, paper.Phrases("fr")) != paper.verdict(found, paper.Phrases("en"))


def test_a_gap_is_no_zero() -> None:
    values = [10.0 + n for n in range(20)]
    with_gap: list[float | None] = [*values[:8], None, None, *values[10:]]
    assert foresee(*with_gap).slope == pytest.approx(1.0)


@given(st.floats(-1e12, 1e12), st.floats(0.001, 1e9), st.integers(7, 90))
def test_no_line_is_later_than_it_is(start: float, slope: float, count: int) -> None:
    found = foresee(*(start + slope * n for n in range(count)), limit=start + slope * (count + 5))
    if found.end_at is not None:
        assert found.last_at is not None and found.end_at >= found.last_at


def test_months_have_their_bounds() -> None:
    assert months.bounds("2026-02")[1] - months.bounds("2026-02")[0] == 28 * DAY
    assert months.before("2026-01") == "2025-12"
    assert months.month_of(months.bounds("2024-12")[1]) == "2025-01"
    for wrong in ("2026-13", "26-01", "2026-1", "", "2026-01-01", "../x"):
        with pytest.raises(InvalidInput):
            months.bounds(wrong)


def test_sums_of_a_month_leave_gaps_out() -> None:
    start, _ = months.bounds("2026-10")

    def row(up: float | None, ok: float | None, failed: float | None, p95: float | None) -> tuple[float | None, ...]:
        values = {"up": up, "kept": up, "ok": ok, "failed": failed, "p95": p95}
        return tuple(values.get(column) for column in COLUMNS)

    rows = (row(1.0, 2.0, 0.0, 100.0), row(None, None, None, None), row(0.5, 1.0, 1.0, 400.0))
    found = months.sums([Table(start + 3600, 3600, COLUMNS, rows)], start, start + 4 * 3600)
    assert found.known == 0.5 and found.up == 0.75
    assert found.requests == 4 * 3600 and found.failed == 3600
    # Two and two requests a second.
    assert found.p95 == 250.0 and found.p50 is None


def test_many_sites_are_read_by_days_and_today_by_hours() -> None:
    """No moment is read twice and none left out; both forms of a month say the same of what never changes."""
    start, end = months.bounds("2026-10")
    hour = 3600
    noon = start + 20 * DAY + 12 * hour
    assert months.parts(start, end, noon + 100, many=False) == [(start, noon, hour)]
    days = start + 20 * DAY
    assert months.parts(start, end, noon + 100, many=True) == [(start, days, DAY), (days, noon, hour)]
    assert months.parts(start, end, start + 5 * hour, many=True) == [(start, start + 5 * hour, hour)]
    assert months.parts(start, end, start + 5, many=True) == [] == months.parts(start, end, start + 5, many=False)
    assert months.parts(start, end, end + 40 * DAY, many=True) == [(start, end, DAY)]
    assert months.parts(start, end, end + 40 * DAY, many=False) == [(start, end, DAY)]
    values = {"up": 0.5, "kept": 1.0, "ok": 2.0, "failed": 1.0, "p95": 100.0}
    same = tuple(values.get(column) for column in COLUMNS)
    fine = months.sums([Table(start + hour, hour, COLUMNS, (same,) * (20 * 24 + 12))], start, noon)
    tables = [Table(start + DAY, DAY, COLUMNS, (same,) * 20), Table(days + hour, hour, COLUMNS, (same,) * 12)]
    assert months.sums(tables, start, noon) == fine
    assert fine.known == 1.0 and fine.requests == 3 * (noon - start)
    assert months.sums([], start, noon).requests == 0


def test_the_hour_that_is_not_over_counts_by_its_parts() -> None:
    """A machine of half an hour has been asked something too."""
    start, end = months.bounds("2026-10")
    hour = 3600
    now = start + 5 * hour + 1900
    assert months.parts(start, end, now, many=False) == [(start, now - 1900, hour), (now - 1900, now - 100, 600)]
    assert months.parts(start, end, now, many=True) == months.parts(start, end, now, many=False)
    assert months.parts(start, end, start + 700, many=False) == [(start, start + 600, 600)]
    row = tuple({"memory": 8.0, "cpu": 1.0, "ok": 2.0}.get(column) for column in MACHINE_COLUMNS)
    idle = tuple({"memory": 2.0, "cpu": 0.0, "ok": 0.0}.get(column) for column in MACHINE_COLUMNS)
    whole, part = (
        Table(start + hour, hour, MACHINE_COLUMNS, (idle,)),
        Table(start + hour + 600, 600, MACHINE_COLUMNS, (row,)),
    )
    found = months.machine(whole, whole, start, start + hour + 600, [(part, part)])
    assert found.requests == 1200 and found.memory_peak == 8.0 and found.known == 1.0
    assert found.memory == (2.0 * hour + 8.0 * 600) / (hour + 600), "a part weighs as long as it lasted"


def test_a_row_of_the_month_before_does_not_count() -> None:
    start, _ = months.bounds("2026-10")
    empty = (None,) * len(MACHINE_COLUMNS)
    first = tuple(7.0 if column == "memory" else None for column in MACHINE_COLUMNS)
    table = Table(start, 3600, MACHINE_COLUMNS, (first, empty))
    found = months.machine(table, table, start, start + 3600)
    assert found.memory is None and found.known == 0.0


def a_report(**more: Any) -> ReportView:
    quality = QualityView(
        site="blog",
        month="2026-10",
        known=1.0,
        availability=0.99996,
        requests=1234567,
        failed=3,
        answered=0.999,
        p50=1.0,
        p95=12.6,
        p99=None,
        promises_kept=1.0,
        deploys=2,
        deploys_failed=1,
        rollbacks=1,
    )
    machine = MachineMonth(
        known=0.5,
        cpu=0.5,
        cpu_peak=2.0,
        cpus=2.0,
        memory=1e9,
        memory_peak=2e9,
        memory_all=4e9,
        disk=5e9,
        disk_all=1e10,
        requests=10,
        failed=1,
        in_bytes=1000,
        out_bytes=2000,
    )
    grows = forecast.foresee("disk", "bytes", days(*(1e9 + 1e7 * n for n in range(30))), 1e10)
    wanted = {
        "month": "2026-10",
        "made_at": 1.79e9,
        "whole": True,
        "domain": "example.org",
        "machine": machine,
        "sites": (quality,) * 70,
        "growth": (grows, forecast.foresee("certificates", "count", [], None)),
    }
    return ReportView(**(wanted | more))


def test_a_report_in_both_languages() -> None:
    english = paper.html(paper.document(a_report(), "en")).decode()
    french = paper.html(paper.document(a_report(), "fr")).decode()
    assert "Report of October 2026" in english and "Rapport : octobre 2026" in french
    # Not rounded to 100 %, and numbers as they are written in each language.
    assert "99.99%" in english and "99,99\u00a0%" in french and "1,234,567" in english
    assert "It runs out on" in english and "Épuisement le" in french
    assert "The machine" not in french and "http" not in english, "a page that needs nothing else"


def test_no_sentence_of_a_report_is_missing_in_french_or_left_over() -> None:
    source = Path(paper.__file__).read_text(encoding="utf-8")
    used = {
        "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', found))
        for found in re.findall(r'\bp\.t\(\s*((?:"(?:[^"\\]|\\.)*"\s*)+)', source)
    } | set(paper._WHAT.values())
    assert used == set(phrases.french())
    place = re.compile(r"\{\w+\}")
    for english, french in phrases.french().items():
        assert sorted(place.findall(english)) == sorted(place.findall(french)), english


def test_a_report_as_pdf() -> None:
    for language, words in (("en", b"(Report of October 2026) Tj"), ("fr", b"(Croissance pr\xe9vue) Tj")):
        content = pdf(paper.document(a_report(), language))
        assert content.startswith(b"%PDF-1.7") and content.rstrip().endswith(b"%%EOF")
        streams = re.findall(rb"stream\n(.*?)\nendstream", content, re.DOTALL)
        text = b"\n".join(zlib.decompress(each) for each in streams)
        assert words in text and text.count(b"(blog)") == 140 and b"5 / 5)" in text
        assert b"/StructTreeRoot" in content and b"/Lang" in content


def test_lines_are_no_wider_than_their_room() -> None:
    text = "Une droite par une valeur par jour " * 5 + "x" * 300
    found = list(lines(text, 200.0, 10.0))
    assert all(width(line, 10.0) <= 200.0 for line in found)
    assert "".join(found).replace(" ", "") == text.replace(" ", "")
