"""PURE: what visitors got, out of the proxy's counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from alveole.actuators.edge_logs import _Tally
from alveole.agent.figuring import Figures, Served, SiteFigures
from alveole.incidents.model import Reading
from alveole.services.served import LEAST, Windows


def look(since: float = 1.0, **sites: tuple[int, int, int]) -> Figures:
    """Each site: answers that were good, that failed, and of all of them those that took 8 s (the others: 8 ms)."""
    found = {}
    for name, (good, bad, slow) in sites.items():
        times = ((10, good + bad - slow), (40, slow))
        found[name] = SiteFigures(served=Served(statuses=(0, good, 0, 0, bad), times=times))
    return Figures(since=since, sites=found)


def share(found: Mapping[str, Sequence[Reading]], site: str) -> object:
    return {each.subject: each.value for each in found["site.failed-share"]}.get(site)


def test_the_share_is_of_the_window_alone() -> None:
    windows = Windows()
    first = windows.take(look(a=(1000, 1000, 0)), ["a"])
    assert share(first, "a") == 0.0, "what was counted before anybody looked is not of the window"
    assert share(windows.take(look(a=(1030, 1010, 0)), ["a"]), "a") == 25.0
    for number in range(20):
        found = windows.take(look(a=(1030 + 100 * number, 1010, 0)), ["a"])
    assert share(found, "a") == 0.0, "the failures are long ago"


def test_too_few_answers_have_no_share() -> None:
    windows = Windows()
    windows.take(look(a=(0, 0, 0)), ["a"])
    assert share(windows.take(look(a=(0, LEAST - 1, 0)), ["a"]), "a") == 0.0
    assert share(windows.take(look(a=(0, LEAST, 0)), ["a"]), "a") == 100.0


def test_slow_answers() -> None:
    windows = Windows()
    windows.take(look(a=(0, 0, 0)), ["a"])
    (quick,) = windows.take(look(a=(100, 0, 4)), ["a"])["site.answer-ms"]
    assert quick.value == 10.0, "4 of 100 are slow"
    (slow,) = windows.take(look(a=(200, 0, 20)), ["a"])["site.answer-ms"]
    assert slow.value == 10_000.0, "20 of 200 are"


def test_the_half_tells_of_a_site_that_hangs() -> None:
    """Who gives up is no answer that failed; all of them wait."""
    windows = Windows()
    windows.take(look(a=(0, 0, 0)), ["a"])
    (some,) = windows.take(look(a=(100, 0, 40)), ["a"])["site.answer-half-ms"]
    assert some.value == 10.0, "most are quick"
    (most,) = windows.take(look(a=(200, 0, 120)), ["a"])["site.answer-half-ms"]
    assert most.value == 10_000.0, "120 of 200 are slow"


def test_links_that_stay_open_are_no_slow_answers() -> None:
    tally = _Tally()
    for _ in range(2 * LEAST):
        tally.add(b"101", b"3600.000", 1, 1, False, 5.0)
    assert tally.told().times == () and tally.told().statuses[0] == 2 * LEAST and tally.told().last_at == 5.0
    windows = Windows()
    windows.take(look(a=(0, 0, 0)), ["a"])
    open_ones = Figures(since=1.0, sites={"a": SiteFigures(served=tally.told())})
    assert windows.take(open_ones, ["a"])["site.answer-half-ms"] == [Reading("a", 0.0)]
    # Few answers beside them say as little as few answers alone.
    for _ in range(LEAST - 1):
        tally.add(b"200", b"60.000", 1, 1, False, 6.0)
    beside = Figures(since=1.0, sites={"a": SiteFigures(served=tally.told())})
    assert windows.take(beside, ["a"])["site.answer-half-ms"] == [Reading("a", 0.0)]
    tally.add(b"200", b"60.000", 1, 1, False, 6.0)
    enough = Figures(since=1.0, sites={"a": SiteFigures(served=tally.told())})
    (half,) = windows.take(enough, ["a"])["site.answer-half-ms"]
    assert isinstance(half.value, float) and half.value > 50_000


def test_a_sleeping_site_and_a_new_agent_begin_anew() -> None:
    windows = Windows()
    windows.take(look(a=(0, 0, 0)), ["a"])
    assert share(windows.take(look(a=(0, 500, 0)), []), "a") is None, "a robot gets 503 of what sleeps"
    assert share(windows.take(look(a=(10, 500, 0)), ["a"]), "a") == 0.0
    assert share(windows.take(look(a=(50, 540, 0)), ["a"]), "a") == 50.0
    assert share(windows.take(look(2.0, a=(50, 540, 0)), ["a"]), "a") == 0.0, "the counts are another agent's"


def test_a_conversation_is_no_answer_that_took_long() -> None:
    """A WebSocket is logged at its end, with all the time that it lasted."""
    windows, tally = Windows(), _Tally()
    for number in range(3 * LEAST):
        tally.add(b"101", b"3600.000", 1, 1, False, float(number))
    assert tally.told().statuses == (3 * LEAST, 0, 0, 0, 0) and tally.told().last_at == 3 * LEAST - 1
    windows.take(Figures(since=1.0, sites={}), ["a"])
    tally.add(b"200", b"30.000", 1, 1, False, 1.0)
    found = windows.take(Figures(since=1.0, sites={"a": SiteFigures(served=tally.told())}), ["a"])
    assert [found[f"site.{name}"][0].value for name in ("answer-ms", "answer-half-ms")] == [0.0, 0.0]
    for _ in range(LEAST):
        tally.add(b"200", b"30.000", 1, 1, False, 1.0)
    found = windows.take(Figures(since=1.0, sites={"a": SiteFigures(served=tally.told())}), ["a"])
    assert found["site.answer-half-ms"][0].value > 30_000
