"""AWStats and the log of requests: real visits through the edge, counted, shown behind a password, kept."""

from __future__ import annotations

import base64
import re
import time

import pytest
from modkit import PASSWORD, ModuleSite, ModuleSites, restarted, round_trip

from instancekit import until

FIREFOX = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"}
CONTENT = {"index.html": "<title>Shop</title>", "soup.html": "<title>Soup</title>"}
LOG = "/data/weblog/access.log"


def auth(password: str = PASSWORD, user: str = "stats") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def visit(it: ModuleSite, times: int) -> None:
    for _ in range(times):
        it.get("/soup.html", headers=FIREFOX)


def hits(it: ModuleSite) -> int:
    """How often AWStats' page of this month says that the soup was looked at."""
    month = time.strftime("%Y-%m", time.gmtime())
    page = it.get(f"/awstats/{month}/awstats.site.urldetail.html", status=None, headers=auth())
    row = re.search(r"/soup\.html(?:</a>)?</td><td>([0-9,]+)</td>", page.text)
    return int(row[1]) if page.status == 200 and row else 0


@pytest.mark.turn
@pytest.mark.parametrize("server", ["nginx", "apache"])
def test_visits_are_counted_and_kept(site: ModuleSites, server: str) -> None:
    it = site(server, "awstats", stem="stats", content=CONTENT, password=PASSWORD, every=1)
    visit(it, 3)
    if server == "nginx":
        it.restart()  # its process counts as soon as it starts, and else every minute
    until(lambda: hits(it) == 3, 90, lambda: it.run("/usr/bin/tail", "-n", "5", LOG) + it.logs())
    it.get("/awstats/", status=401)
    it.get("/awstats/", status=401, headers=auth("wrong"))
    assert it.get("/awstats", status=301, follow=False, headers=auth()).headers["Location"].endswith("/awstats/")
    # The list of months is written last.
    until(lambda: "href" in it.get("/awstats/", headers=auth()).text, 30, it.logs)
    top = it.get("/awstats/", headers=auth())
    month = top.find(r'href="([0-9]{4}-[0-9]{2}/awstats\.site\.html)"')
    page = it.get(f"/awstats/{month}", headers=auth())
    assert "Firefox" in page.text and "/soup.html" in page.text
    for link in set(re.findall(r'href="(awstats\.site\.\w+\.html)"', page.text)):
        it.get(f"/awstats/{month.split('/')[0]}/{link}", headers=auth())
    icon = re.search(r'src="(/awstats/icon/[^"]+\.png)"', page.text)
    assert icon and it.get(icon[1], headers=auth()).raw.startswith(b"\x89PNG")

    def kept() -> None:
        assert hits(it) == 3

    round_trip(it, kept)
    visit(it, 2)
    it.restart()
    until(lambda: hits(it) == 5, 30, lambda: it.run("/usr/bin/tail", "-n", "5", LOG) + it.logs())


@pytest.mark.parametrize("server", ["nginx", "apache"])
def test_addresses_are_written_as_asked(site: ModuleSites, server: str) -> None:
    it = site(server, "weblog", stem="log", content=CONTENT)

    def written() -> str:
        before = it.run("/usr/bin/wc", "-l", LOG)
        visit(it, 1)
        until(lambda: it.run("/usr/bin/wc", "-l", LOG) != before, 30, "nothing is written")
        return it.run("/usr/bin/tail", "-n", "1", LOG).split()[0]

    assert written() == "127.0.0.0", "shortened unless something else is asked for"
    assert restarted(it, addresses="whole") == {server}
    assert written() == "127.0.0.1"
    assert restarted(it, addresses="none") == {server}
    assert written() == "0.0.0.0"  # noqa: S104  no address to bind to


def test_the_log_begins_anew_when_it_is_full(site: ModuleSites) -> None:
    it = site("nginx", "awstats", stem="full", content=CONTENT, size=65536, parts=2, password=PASSWORD, every=1440)
    visit(it, 5)
    it.run("/bin/sh", "-c", f"head -c 70000 /dev/zero | tr '\\0' '\\n' >>{LOG}", user=1000)
    until(lambda: "access.log.1.gz" in it.run("/bin/ls", "/data/weblog"), 60, it.logs)
    assert int(it.run("/usr/bin/stat", "-c", "%s", LOG)) < 65536
    assert hits(it) == 5, "what was in it is counted first"
    visit(it, 1)
    assert "/soup.html" in it.run("/bin/cat", LOG), "the server goes on writing into it"
