"""The page of operations without scripts: declared, run, looked at; programs ended, a process started anew."""

from __future__ import annotations

import json
import sys

import msgspec
import pytest
from doorkit import ROOT, Door, until
from peoplekit import add
from webkit import Visitor

from alveole.errors import Temporary
from alveole.people.model import Role
from alveole.requests.operations import AddOperation


def test_operations_by_button(door: Door) -> None:
    add(door, "ana")
    processes = [{"name": "web", "argv": ["serve"]}, {"name": "worker", "argv": ["work"]}]
    door.site("blog", owner="ana", processes=processes, port=8000)
    argv = [sys.executable, "-c", "import sys; print('<b>', sys.argv[1:])", "${count}"]
    text = f'argv = {json.dumps(argv)}\ntitle = "Count"\n[[argument]]\nname = "count"\ntype = "integer"\nmax = 9\n'
    with Visitor(door) as ana:
        ana.sign_in("ana")
        page = ana.get("/site/blog/operations")
        assert "nobody has declared one" in page.text and "worker" in page.text
        page = ana.submit("/site/blog/operations/declare", expect=422, name="count", declaration="argv = [1")
        assert "is not TOML" in page.text.replace("Is not", "is not") and "argv = [1" in ana.answer.text
        page = ana.submit("/site/blog/operations/declare", name="count", declaration=text)
        assert "The operation count is declared." in page.text
        page = ana.submit("/site/blog/operations/run/count", expect=422, **{"a.count": "10"})
        assert "outside" in page.text and 'value="10"' in ana.answer.text, "what was typed is kept"
        ana.submit("/site/blog/operations/run/count", **{"a.count": "7"})
        at = ana.at
        assert "/operations/runs/" in at
        until(lambda: "state-done" in ana.ask("GET", at).text, 30)
        assert "&lt;b&gt; [&#39;7&#39;]" in ana.answer.text, "a program writes text, never a page"
        page = ana.get("/site/blog/operations")
        assert "count=7" in page.text
        page = ana.submit("/site/blog/operations/drop/count")
        assert "The operation count is gone." in page.text
        page = ana.submit("/site/blog/operations/signal", ("do", "KILL"))
        assert "The signal was sent." in page.text
        page = ana.submit("/site/blog/operations/restart", process="worker")
        path = ana.at
        assert path.startswith("/change/")
        until(lambda: "state-done" in ana.ask("GET", path).text, 30)
        door.ok("site", "stop", "blog")
        assert "Nothing runs" in ana.get("/site/blog/operations").text or "is not running" in ana.answer.text
    assert door.agent.ended


def test_a_site_on_a_server_that_is_away(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked of it there is said to be away; the pages open, and what was declared here is there."""

    def away(_name: str) -> None:
        raise Temporary("far cannot be reached", field="node")

    door.site("blog", processes=[{"name": "web", "argv": ["serve"]}], port=8000)
    services = door.services
    monkeypatch.setattr(services, "_api_of", away)
    site = services.store.site("blog").site
    with services.store.write() as transaction:
        transaction.save_site(msgspec.structs.replace(site, node="far"))
    services.add_operation(ROOT, "clear", AddOperation(argv=("/bin/clear",)), site="blog")
    add(door, "olga", Role.OPERATOR)
    with Visitor(door) as olga:
        olga.sign_in("olga")
        for tab in ("operations", "figures", "settings", ""):
            found = olga.ask("GET", f"/site/blog/{tab}".rstrip("/"))
            assert found.status_code == 200, (tab, found.text[:500])
            assert tab not in ("operations", "figures") or "far cannot be reached" in found.text.lower(), tab
            assert "nobody has declared one" not in found.text
