"""Pages of figures without scripts: of a site, of the machine, traffic, reports, the wall; in both languages."""

from __future__ import annotations

import html
import json
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from doorkit import ROOT, Door
from peoplekit import Browser, add
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from webkit import HTML, Visitor

from alveole import requests as ask
from alveole.errors import Temporary
from alveole.figures import months
from alveole.figures.archive import COLUMNS, INTERFACE_COLUMNS, MACHINE, MACHINE_COLUMNS
from alveole.people.model import Role


@pytest.fixture(scope="module")
def filled() -> Iterator[Door]:
    """A door with a site of Ana's, and archives with forty days of it, of the machine and of an interface."""
    with tempfile.TemporaryDirectory(prefix="alv", dir="/tmp") as name:
        door = Door(Path(name))
        try:
            _fill(door)
            yield door
        finally:
            door.close()


def _fill(door: Door) -> None:
    add(door, "ana")
    add(door, "rita", Role.READER)
    door.site("blog", owner="ana")
    door.site("club")
    services = door.services
    services.ticker.stop()
    now = time.time()
    blog = services.store.site("blog")
    assert blog is not None
    site = dict.fromkeys(COLUMNS, 1.0) | {"up": 1.0, "p95": 42.0}
    machine = dict.fromkeys(MACHINE_COLUMNS, 2.0) | {"memory_all": 4e9, "disk_all": 1e11}
    begin = int(now) // 86_400 * 86_400 - 40 * 86_400
    for number, at in enumerate(range(begin, int(now), 40)):
        machine |= {"disk": 1e10 + 1e5 * number, "memory": 1e9}
        rows = {
            blog.site.id: [site[column] for column in COLUMNS],
            MACHINE: [machine[column] for column in MACHINE_COLUMNS],
        }
        if now - at < 3600:
            rows["if-eth9"] = [100.0] * len(INTERFACE_COLUMNS)
        for name, row in rows.items():
            text = ":".join(map(str, row))
            services.archives._waiting.setdefault(name, []).append(f"{at}:{text}")
    services.archives.flush()


def graphs_of(text: str) -> list[dict[str, object]]:
    return [json.loads(html.unescape(each)) for each in re.findall(r'data-graph="([^"]+)"', text)]


def test_figures_from_the_page_to_the_report(filled: Door) -> None:
    door = filled
    with Visitor(door) as ana, Visitor(door, "fr") as rita:
        ana.sign_in("ana")
        page = ana.get("/site/blog/figures?span=month")
        drawn = graphs_of(ana.answer.text)
        assert len(drawn) >= 8 and all(len(each["times"]) <= 300 for each in drawn)
        assert "Requests" in page.text and "All of it as a table" in page.text and "42" in page.text
        assert "<script>" not in ana.answer.text and "style=" not in ana.answer.text
        assert "Quality by month" in page.text and "100.00" in page.text
        assert ana.ask("GET", "/site/club/figures").status_code == 404, "another's site seems absent (threat 24)"
        assert ana.ask("GET", "/admin/figures").status_code == 403
        rita.sign_in("rita")
        page = rita.get("/admin/figures?span=week&peaks=1")
        assert "mémoire occupée" in page.text and "Temps de réponse" in page.text
        page = rita.get("/admin/traffic")
        assert "Interface eth9" in page.text and "blog" in page.text and "paquets reçus" in page.text
        month = months.before(months.month_of(time.time()))
        door.services.make_report()
        page = rita.get("/admin/reports")
        assert "Rapports par mois" in page.text and f"/admin/reports/{month}/pdf" in rita.answer.text
        page = rita.get(f"/admin/reports/{month}")
        assert "Croissance prévue" in page.text and "Épuisement le" in page.text and "100,00" in page.text
        answer = rita.ask("GET", f"/admin/reports/{month}/pdf")
        assert answer.content.startswith(b"%PDF") and "attachment" in answer.headers["content-disposition"]
        assert rita.ask("GET", "/admin/reports/2001-01").status_code in (404, 422)
    kept = door.settings.database.parent / "reports"
    assert {file.name for file in kept.iterdir()} == {
        f"{month}.json",
        *(f"{month}.{language}.{kind}" for language in ("en", "fr") for kind in ("html", "pdf")),
    }
    document = door.ok("report", "--month", month)
    assert document["whole"] and document["growth"][0]["verdict"] == "runs-out"
    assert {each["site"] for each in document["sites"]} == {"blog", "club"}
    assert "runs out on" in door.run("report", "--month", month).out
    assert door.ok("report", "--list")["months"] == [month]
    assert door.ok("report", "blog", "--month", month)["availability"] == 1.0
    file = door.directory / "report.pdf"
    assert door.run("report", "--month", month, "--pdf", str(file), "--language", "fr").status == 0
    assert file.read_bytes().startswith(b"%PDF")
    assert door.run("report", "--month", "2001-01").status == 4


def test_a_screen_on_the_wall_reads_and_does_nothing_else(filled: Door) -> None:
    """Threat 24: its token may look at figures; one that may more is not taken, for whoever stands there has it."""
    door = filled
    wanted = ask.CreateToken(name="wall", role=Role.READER, scope=("metrics.look",))
    secret = door.services.create_token(ROOT, wanted).secret
    assert secret is not None
    door.services._gather_figures()
    door.services._gather_figures()
    with Browser(door) as screen:
        answer = screen.http.get("/wall", headers={"Accept": HTML})
        assert answer.status_code == 401 and "/wall" in answer.text and "Content-Security-Policy" in answer.headers
        origin = {"Accept": HTML, "Origin": f"http://127.0.0.1:{door.port}"}
        refused = screen.http.post("/wall", data={"token": door.token(Role.READER)}, headers=origin)
        assert refused.status_code == 403 and "set-cookie" not in refused.headers
        assert screen.http.post("/wall", data={"token": "alt_wrong"}, headers=origin).status_code == 401
        entered = screen.http.post("/wall", data={"token": secret}, headers=origin, follow_redirects=False)
        assert entered.status_code == 303 and "HttpOnly" in entered.headers["set-cookie"]
    headers = {"Accept": HTML, "Cookie": f"__Host-alveole-wall={secret}"}
    shown = httpx.get(f"http://127.0.0.1:{door.port}/wall", headers=headers)
    assert shown.status_code == 200 and 'hx-trigger="every 10s"' in shown.text and "<form" not in shown.text
    assert "Sites running" in shown.text and graphs_of(shown.text)
    assert httpx.get(f"http://127.0.0.1:{door.port}/sites", headers=headers).status_code in (303, 401)
    with door.tcp(secret) as http:
        answer = http.get("/metrics")
        assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        found = {family.name: family for family in text_string_to_metric_families(answer.text)}
        assert {sample.labels["site"] for sample in found["alveole_requests"].samples} == {"blog", "club", ""}
        assert http.get("/v1/figures/wall").status_code == 200
        assert http.get("/v1/figures").status_code == 403 and http.get("/v1/sites/blog").status_code in (403, 404)
    with door.tcp() as http:
        assert http.get("/metrics").status_code == 401
    assert door.http.get("/metrics").status_code == 200, "root on the Unix socket"


def test_an_agent_that_is_away_is_told_once_and_leaves_a_gap(door: Door) -> None:
    door.site("blog")
    services = door.services
    services.ticker.stop()
    services._gather_figures()
    door.agent.down = True
    with pytest.raises(Temporary):
        services._gather_figures()
    services._gather_figures()
    assert services.wall(ROOT).agent is False
    assert "alveole_agent_up 0" in services.metrics(ROOT)
    door.agent.down = False
    services._gather_figures()
    assert services.wall(ROOT).agent is True
