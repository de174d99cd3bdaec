"""Scenarios through the real edge, and to an instance past it; the journal's anchors in root's own file."""

from __future__ import annotations

from pathlib import Path

from apps import ON_PORT, ON_SOCKET, ask
from e2ekit import Sites

from instance import Instance
from instancekit import until

STEPS = """
steps:
  - request: GET /hello?x=1
    headers: {X-Asked: "yes"}
    expect:
      json: {word: good, path: "/hello?x=1", headers.X-Forwarded-Proto: https, headers.x-asked: "yes"}
      header: {Content-Type: application/json}
    capture: {uid: {json: uid}}
  - {request: "POST /", body: "${uid}", expect: {status: 201}}
"""


def test_a_scenario_goes_the_way_of_a_visitor(alveole: Instance, sites: Sites, tmp_path: Path) -> None:
    """By the site's name, over TLS with its certificate, and past the edge to one instance only."""
    file = tmp_path / "steps.yaml"
    file.write_text(STEPS)
    for more in (ON_PORT, ON_SOCKET):
        name = sites.create(ask("good"), **more)
        alveole.cli("check", "add", name, str(file))
        (report,) = alveole.cli("check", "run", name, "--json").json
        assert report["ok"] and report["target"] == "public", report
        slot = _slot(alveole, name)
        (report,) = alveole.cli("check", "run", name, "--slot", str(slot), "--json").json
        assert report["ok"] and report["target"] == f"slot {slot}", report
        (report,) = alveole.cli("check", "run", name, "--slot", str(1 - slot), "--json", status=3).json
        assert "no such instance" in report["problem"], report
        alveole.update(name, ask("worse"))
        (report,) = alveole.cli("check", "run", name, "--json", status=3).json
        assert 'word is "worse" and not "good"' in report["problem"]
        alveole.verb(name, "stop")
        (report,) = alveole.cli("check", "run", name, "--json", status=3).json
        assert report["steps"][0]["status"] == 503


def test_a_visit_is_recorded_by_the_real_edge(alveole: Instance, sites: Sites) -> None:
    name = sites.create(ask("good"), **ON_PORT)
    assert alveole.fetch(name, "/hello").status == 200

    def recorded() -> bool:
        done = alveole.cli("check", "record", name, "--visit", "--since", "2m", "--json", status=None)
        return done.status == 0 and "GET /hello" in done.json["text"]

    until(recorded, 30, alveole.tail)


def _slot(alveole: Instance, name: str) -> int:
    promised = [each["resource"] for each in alveole.site(name)["promises"]]
    (workload,) = [each for each in promised if each.startswith("workload/")]
    return int(workload.partition("/")[2])


def test_the_journal_is_anchored_with_root(alveole: Instance, sites: Sites) -> None:
    sites.create(ask("good"), **ON_PORT)
    file = alveole.state / "journal-anchors"

    def anchored() -> bool:
        found = alveole.cli("journal", "verify", "--json").json
        assert found["ok"], found
        return file.exists() and bool(found["anchored"])

    until(anchored, 30)
    assert file.stat().st_uid == 0 and file.stat().st_mode & 0o777 == 0o600
