"""Apache: content with .htaccess, and its own page without any."""

from __future__ import annotations

from modkit import ModuleSites, restarted, round_trip


def test_htaccess_and_answers(site: ModuleSites) -> None:
    files = {
        "index.html": "<title>top</title>",
        "old/.htaccess": "Redirect 302 /old/page /new.html\n",
        "new.html": "<title>new</title>",
        "many/a": "a",
        ".secret": "x",
    }
    it = site("apache", stem="apache", content=files)

    def check() -> None:
        assert it.get("/").title == "top"
        assert it.get("/old/page").title == "new"
        it.get("/.secret", status=403)
        it.get("/many/", status=403)

    round_trip(it, check)
    assert restarted(it, listing=True) == {"apache"}
    assert 'href="a"' in it.get("/many/").text
    assert restarted(it, htaccess=False) == {"apache"}
    it.get("/old/page", status=404)


def test_without_content(site: ModuleSites) -> None:
    it = site("apache", stem="apache", optimisation="huge", version="dev")
    assert it.get("/").title == it.name
    assert "resuming normal operations" in it.logs() or "AH00" in it.logs()
