"""static: files as they are, single-page applications, lists, caching; and what is found in a content of pages only."""

from __future__ import annotations

from modkit import ModuleSites, round_trip

FILES = {
    "index.html": "<title>top</title>",
    "style.css": "p{}",
    "dist/index.html": "<title>dist</title>",
    ".secret": "x",
}


def test_pages(site: ModuleSites) -> None:
    it = site("static", content=FILES)

    def check() -> None:
        assert it.get("/").title == "top"
        assert it.get("/style.css").headers["Cache-Control"] == "max-age=3600"
        assert it.get("/").headers["Cache-Control"] == "no-cache"
        it.get("/.secret", status=404)
        it.get("/any/where", status=404)

    round_trip(it, check)
    it.configure(single_page=True)
    assert it.get("/any/where").title == "top"
    it.configure(folder="dist")
    assert it.get("/any/where").title == "dist"


def test_a_page_of_its_own(site: ModuleSites) -> None:
    it = site("static", cache=0)
    assert it.get("/").title == "It works"
