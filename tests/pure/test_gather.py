"""Figures: rates between two looks, and the times that most answers were under."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alveole.agent.figuring import BUCKETS, Figures, Served, SiteFigures
from alveole.figures.archive import COLUMNS
from alveole.figures.gather import Gatherer, Standing, percentile

GOOD = {"sa": Standing(1.0, 1.0)}


def looks(*seen: Figures, seconds: float = 10.0) -> list[dict[str, dict[str, float | None]]]:
    times = iter(seconds * n for n in range(len(seen)))
    gatherer = Gatherer(clock=lambda: next(times))
    return [
        {name: dict(zip(COLUMNS, row, strict=True)) for name, row in gatherer.rows(each, GOOD).items()} for each in seen
    ]


def figures(cpu: float = 0.0, since: float = 1.0, served: Served = Served()) -> Figures:  # noqa: B008  a constant
    return Figures(since, {"sa": SiteFigures(64, cpu, 3, 100, 10, 20, served)})


def test_the_first_look_gives_levels_and_no_rates() -> None:
    (row,) = looks(figures(5.0))
    assert row["sa"]["memory"] == 64 and row["sa"]["cpu"] is None and row["sa"]["ok"] is None
    assert "edge" not in row


def test_rates_are_of_the_time_between() -> None:
    one = Served(statuses=(0, 10, 0, 0, 0), in_bytes=(100, 0), times=((0, 10),))
    two = Served(statuses=(0, 30, 5, 1, 4), in_bytes=(300, 50), times=((0, 20), (20, 20)))
    _, row = looks(figures(5.0, served=one), figures(10.0, served=two))
    site = row["sa"]
    assert (site["cpu"], site["ok"], site["moved"], site["refused"], site["failed"]) == (0.5, 2.0, 0.5, 0.1, 0.4)
    assert (site["in4"], site["in6"]) == (20.0, 5.0)
    assert site["p50"] == 100.0, "ten were under 1 ms, twenty under 100 ms"
    assert row["edge"]["ok"] == 2.0


def test_what_counts_from_nothing_again_is_no_negative_rate() -> None:
    served = Served(statuses=(0, 10, 0, 0, 0))
    _, row = looks(figures(50.0, served=served), figures(1.0, since=2.0, served=Served(statuses=(0, 4, 0, 0, 0))))
    assert row["sa"]["cpu"] == 0.1 and row["sa"]["ok"] == 0.4


def test_a_site_that_nobody_asked_has_no_times() -> None:
    _, row = looks(figures(), figures())
    assert row["sa"]["p50"] is None and row["sa"]["ok"] == 0.0


@given(
    st.dictionaries(st.integers(0, BUCKETS - 1), st.integers(1, 1000), min_size=1), st.sampled_from([0.5, 0.95, 0.99])
)
def test_so_many_are_under_a_percentile(times: dict[int, int], share: float) -> None:
    value = percentile(times, share)
    assert value is not None
    total = sum(times.values())
    under = sum(count for n, count in times.items() if 10 ** (n / 10) <= value * 1.000001)
    below = sum(count for n, count in times.items() if 10 ** (n / 10) < value * 0.999999)
    assert under >= share * total - 1e-6 and below < share * total + 1e-6


@pytest.mark.parametrize("times", [{}, {3: 0}])
def test_nothing_has_no_percentile(times: dict[int, int]) -> None:
    assert percentile(times, 0.5) is None
