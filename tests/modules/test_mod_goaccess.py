"""GoAccess: figures of real visits behind a password, kept; and a page that moves while one looks at it."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest
from modkit import PASSWORD, ModuleSite, ModuleSites, round_trip
from visiting import WebSocket

from instancekit import until

CONTENT = {"index.html": "<title>Shop</title>", "soup.html": "<title>Soup</title>"}
AUTH = {"Authorization": "Basic " + base64.b64encode(f"stats:{PASSWORD}".encode()).decode()}


def visit(it: ModuleSite, times: int) -> None:
    for _ in range(times):
        it.get("/soup.html")


def figures(it: ModuleSite) -> Any:
    page = it.get("/goaccess/", headers=AUTH, status=None)
    found = re.search(r"var json_data=(\{.*?\})\s*;?\s*(?:var|</script>)", page.text, re.DOTALL)
    return json.loads(found[1]) if page.status == 200 and found else {}


def soups(document: Any) -> int:
    rows = document.get("requests", {}).get("data", [])
    return sum(row["hits"]["count"] for row in rows if row["data"] == "/soup.html")


@pytest.mark.parametrize("server", ["nginx", "apache"])
def test_requests_are_counted_and_kept(site: ModuleSites, server: str) -> None:
    it = site(server, "goaccess", stem="go", content=CONTENT, password=PASSWORD, every=1)
    visit(it, 3)
    if server == "nginx":
        it.restart()  # its process counts as soon as it starts, and else every minute
    until(lambda: soups(figures(it)) == 3, 90, it.logs)
    it.get("/goaccess/", status=401)
    assert it.get("/goaccess", status=301, follow=False, headers=AUTH).headers["Location"].endswith("/goaccess/")
    round_trip(it, lambda: None if soups(figures(it)) == 3 else pytest.fail(str(figures(it))))
    visit(it, 2)
    it.restart()
    until(lambda: soups(figures(it)) == 5, 30, it.logs)


@pytest.mark.parametrize("server", ["nginx", "apache"])
def test_figures_that_move(site: ModuleSites, server: str) -> None:
    it = site(server, "goaccess", stem="live", content=CONTENT, password=PASSWORD, live=True)
    page = it.get("/goaccess/", headers=AUTH)
    until(lambda: "connection" in it.get("/goaccess/", headers=AUTH).text, 30, it.logs)
    page = it.get("/goaccess/", headers=AUTH)
    url = page.find(r'"url":\s*"([^"]+)"')
    assert re.fullmatch(rf"wss?://{it.name}\.localhost:\d+/goaccess/ws", url), url
    with WebSocket(it, "/goaccess/ws", AUTH) as socket:
        visit(it, 4)
        until(lambda: soups(json.loads(socket.message())) == 4, 30, it.logs)
