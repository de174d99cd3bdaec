"""Figures: rates between two looks, and the times that most answers were under."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alveole.agent.figuring import BUCKETS, Figures, Served, SiteFigures
from alveole.figures.archive import COLUMNS
from alveole.figures.gather import Gatherer, Standing, percentile
from alveole.figures.machine import Machine

GOOD = {"sa": Standing(1.0, 1.0)}


def looks(*seen: Figures, seconds: float = 10.0) -> list[dict[str, dict[str, float | None]]]:
    times = iter(seconds * n for n in range(len(seen)))
    gatherer = Gatherer(clock=lambda: next(times))
    return [
        {name: dict(zip(COLUMNS, row, strict=True)) for name, row in gatherer.rows(each, GOOD).items()} for each in seen
    ]


def figures(cpu: float = 0.0, since: float = 1.0, served: Served = Served()) -> Figures:  # noqa: B008  a constant
    return Figures(since, {"sa": SiteFigures(True, 64, cpu, 3, 100, 10, 20, served)})


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


def test_what_does_not_run_is_a_gap_and_no_zero() -> None:
    gone = Figures(1.0, {"sa": SiteFigures(served=Served(statuses=(0, 4, 0, 0, 1)))})
    *_, down, again = looks(figures(5.0), figures(9.0), gone, figures(1.0))
    for column in ("cpu", "memory", "processes", "disk", "io_read", "io_write"):
        assert down["sa"][column] is None, column
    assert down["sa"]["ok"] == 0.4 and down["sa"]["failed"] == 0.1, "the proxy answered for it all the same"
    assert again["sa"]["memory"] == 64 and again["sa"]["cpu"] is None, "nothing to compare with"


def test_a_site_that_is_to_stand_still_is_neither_up_nor_down() -> None:
    gatherer = Gatherer(clock=iter((0.0, 10.0)).__next__)
    how = {"sa": Standing(None, None, (100, 50)), "sb": Standing(0.0, 0.5)}
    gatherer.rows(figures(), how)
    found = gatherer.rows(figures(), how | {"sa": Standing(None, None, (300, 60))})
    rows = {name: dict(zip(COLUMNS, row, strict=True)) for name, row in found.items()}
    assert rows["sa"]["up"] is None and rows["sb"]["up"] == 0.0
    assert (rows["sa"]["net_in"], rows["sa"]["net_out"]) == (20.0, 1.0) and rows["sb"]["net_in"] is None
    assert rows["edge"]["up"] == 0.0, "of those that are to run"


def test_the_machine_tells_interfaces_from_those_of_sites(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    line = "{}: {} 1 0 0 0 0 0 0 {} 2 3 0 0 0 0 0\n"
    heads = "Inter-|\n face |\n"

    def carry(factor: int) -> None:
        rows = (("lo", 5, 5), ("eth0", 100, 10), ("alv1a", 7, 70), ("alv1b", 1, 2), ("alvbr", 9, 9), ("ifb0", 0, 0))
        text = "".join(line.format(name, to * factor, of * factor) for name, to, of in rows)
        (tmp_path / "net/dev").write_text(heads + text)

    times = iter((0.0, 0.0, 0.0, 10.0))
    machine = Machine(tmp_path, "alv", tmp_path, lambda: next(times))
    carry(1)
    sites, links = machine.carried()
    assert sites == {1: (72, 8)} and set(links) == {"eth0", "alvbr"} and links["eth0"].lost == 3
    assert machine.interfaces(links) == {}
    carry(3)
    sites, links = machine.carried()
    assert machine.interfaces(links)["eth0"] == [20.0, 2.0, 0.0, 0.0, 0.0]
