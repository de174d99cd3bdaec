"""nginx: the front of sites whose modules answer no HTTP, with and without content."""

from __future__ import annotations

from modkit import ModuleSites, restarted, round_trip


def test_a_page_without_content(site: ModuleSites) -> None:
    it = site("nginx", stem="front")

    def check() -> None:
        page = it.get("/")
        assert page.title == it.name and "no page of its own" in page.text
        assert page.headers["Content-Type"].startswith("text/html")
        it.get("/absent", status=404)

    round_trip(it, check)


def test_content_and_one_answer(site: ModuleSites) -> None:
    files = {
        "index.html": "<title>top</title>",
        "public/index.html": "<title>public</title>",
        ".secret": "x",
        "many/a": "a",
    }
    it = site("nginx", stem="front", content=files)
    assert it.get("/").title == "top"
    it.get("/.secret", status=404)
    it.get("/many/", status=403)
    assert restarted(it, listing=True) == {"nginx"}
    assert 'href="a"' in it.get("/many/").text
    assert restarted(it, folder="public") == {"nginx"}
    assert it.get("/").title == "public"


def test_every_optimisation_runs(site: ModuleSites) -> None:
    it = site("nginx", stem="front", version="dev", optimisation="huge")
    assert it.get("/").status == 200
    it.configure(optimisation="big", version="prod")
    assert it.get("/").status == 200
