"""Metrics, read by the parser of those who wrote the format."""

from __future__ import annotations

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from alveole.agent.figuring import Figures, Served, SiteFigures
from alveole.figures import openmetrics
from alveole.figures.gather import Standing
from alveole.figures.machine import Carried

SERVED = Served((0, 30, 2, 1, 4), (100, 10), (5000, 700), ((0, 20), (7, 10), (49, 7)))


def families(figures: Figures | None) -> dict[str, dict[tuple[str, ...], float]]:
    text = openmetrics.render(
        {"sa": "blog", "sb": 'od"d\\name\n', "sc": "gone"},
        figures,
        {"sa": Standing(1.0, 0.5, (7, 8)), "sb": Standing(None, None)},
        {"cpu": 0.25, "memory": 1e9, "load": None},
        {"eth0": Carried(10, 20, 1, 2, 3)},
        1000,
    )
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_what_is_counted_comes_out() -> None:
    sites = {"sa": SiteFigures(True, 64, 1.5, 3, 100, 10, 20, SERVED), "sb": SiteFigures(served=SERVED)}
    found = families(Figures(1.0, sites, SERVED))
    assert found["alveole_agent_up"] == {(): 1.0}
    assert found["alveole_machine_memory_used_bytes"] == {(): 1e9} and found["alveole_machine_addresses"] == {
        (): 1000.0
    }
    assert found["alveole_site_cpu_seconds_total"] == {("blog",): 1.5}
    assert found["alveole_site_up"] == {("blog",): 1.0}, "what is stopped is neither up nor down"
    assert found["alveole_site_promises_ratio"] == {("blog",): 0.5}
    assert found["alveole_requests_total"]["blog", "5xx"] == 4.0
    assert found["alveole_requests_total"]['od"d\\name\n', "2xx"] == 30.0
    assert found["alveole_requests_total"]["", "2xx"] == 30.0
    assert found["alveole_http_bytes_total"]["blog", "out", "ipv6"] == 700.0
    assert found["alveole_interface_bytes_total"]["eth0", "out"] == 20.0
    buckets = found["alveole_response_seconds_bucket"]
    assert buckets["blog", "0.001"] == 20.0 and buckets["blog", "0.01"] == 30.0 and buckets["blog", "+Inf"] == 37.0


def test_while_the_agent_is_away_sites_have_no_figures() -> None:
    found = families(None)
    assert found["alveole_agent_up"] == {(): 0.0}
    assert not [name for name in found if name.startswith(("alveole_site", "alveole_requests", "alveole_response"))]
