"""Accounts, teams, sharing and quotas from the command line."""

from __future__ import annotations

import io

import pytest
from doorkit import Door


def test_accounts(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    assert door.run("account", "list").out == ""
    first = door.run("account", "first-token")
    assert first.status == 0 and first.out.startswith("ali_") and len(first.out.splitlines()) == 1
    made = door.ok("account", "add", "ana", "--title", "Ana Lopes")
    assert made["token"].startswith("ali_") and made["role"] == "owner"
    monkeypatch.setattr("sys.stdin", io.StringIO("correct horse battery\n"))
    made = door.ok("account", "add", "olga", "--role", "operator", "--password-stdin")
    assert made["token"] is None
    monkeypatch.setattr("sys.stdin", io.StringIO("short\n"))
    assert door.run("account", "password", "olga", "--password-stdin").status == 2
    monkeypatch.setattr("sys.stdin", io.StringIO("another good one\n"))
    assert door.run("account", "password", "olga", "--password-stdin").status == 0
    assert door.run("account", "password", "ana", "--invite").out.startswith("ali_")
    assert door.ok("account", "set", "ana", "--role", "reader")["role"] == "reader"
    assert door.ok("account", "disable", "ana")["active"] is False
    assert "reader (disabled)" in door.run("account", "list").out
    assert door.ok("account", "disable", "ana", "--undo")["active"] is True
    assert "Ana Lopes" in door.run("account", "show", "ana").out
    assert door.ok("account", "sessions", "ana") == []
    assert door.run("account", "sessions", "ana", "--end", "all").status == 0
    assert door.ok("account", "token", "ana") == []
    assert door.ok("account", "factors", "ana") == []
    assert door.run("account", "factors", "ana", "--remove", "all").status == 0
    assert door.ok("account", "second-factor", "--require", "administrator, operator")["roles"] == [
        "administrator",
        "operator",
    ]
    assert door.run("account", "second-factor", "--require", "wizard").status == 2
    assert door.ok("account", "second-factor", "--require", "none")["roles"] == []
    door.ok("account", "remove", "ana")
    assert door.run("account", "show", "ana").status == 4
    for argv in (
        ("account", "add", "Ana Lopes!"),
        ("account", "add", "x", "--role", "wizard"),
        ("account", "add", "root"),
    ):
        assert door.run(*argv).status == 2, argv
    assert door.run("account", "add", "olga").status == 3


def test_the_only_administrator_stays(door: Door) -> None:
    door.ok("account", "add", "ada", "--role", "administrator")
    for argv in (("disable", "ada"), ("set", "ada", "--role", "owner"), ("remove", "ada")):
        assert door.run("account", *argv).status == 3, argv
    door.ok("account", "add", "eva", "--role", "administrator")
    door.ok("account", "remove", "ada")


def test_teams_and_sharing(door: Door) -> None:
    for name in ("ana", "bob", "carol"):
        door.ok("account", "add", name)
    assert door.ok("team", "add", "club", "--member", "ana,bob")["members"] == ["ana", "bob"]
    assert door.ok("team", "set", "club", "--add", "carol", "--remove", "bob")["members"] == ["ana", "carol"]
    assert "club" in door.run("team", "list").out
    door.ok("site", "create", "blog", "--from", str(door.content()), "--owner", "ana")
    assert door.ok("site", "show", "blog")["owner"] == "ana"
    door.ok("site", "share", "blog", "bob", "--level", "change")
    assert door.ok("site", "share", "blog")["shares"] == [{"whom": "bob", "level": "change"}]
    assert door.ok("site", "share", "blog", "bob", "--level", "none")["shares"] == []
    assert door.ok("site", "give", "blog", "team:club")["owner"] == "team:club"
    assert door.run("team", "remove", "club").status == 3, "it has a site"
    assert door.ok("site", "give", "blog", "nobody")["owner"] == "root"
    door.ok("team", "remove", "club")
    assert door.run("site", "share", "blog", "team:club").status == 2
    verbs = {(each["verb"], each["actor"]) for each in door.ok("journal", "--site", "blog")}
    assert {("share", "root"), ("give", "root")} <= verbs


def test_quotas(door: Door) -> None:
    """Refusals name what is used and what is allowed."""
    door.ok("account", "add", "ana")
    door.ok("quota", "set", "each-person", "--sites", "2", "--memory", "700M", "--disk", "none")
    door.ok("site", "create", "one", "--from", str(door.content()), "--owner", "ana")
    ran = door.run("site", "create", "two", "--from", str(door.content()), "--owner", "ana", "--plan", "large")
    assert ran.status == 3
    assert "ana has 134217728 bytes of memory of 734003200 allowed, and this takes 2147483648" in ran.err
    door.ok("site", "create", "two", "--from", str(door.content()), "--owner", "ana", "--plan", "medium")
    ran = door.run("site", "create", "three", "--from", str(door.content()), "--owner", "ana")
    assert "ana has 2 sites of 2 allowed" in ran.err
    assert door.run("site", "set", "two", "--plan", "large").status == 3
    door.ok("site", "create", "three", "--from", str(door.content()))
    assert door.run("site", "give", "three", "ana").status == 3
    found = door.ok("quota", "show", "ana")
    assert (found["used_sites"], found["sites"], found["default"]) == (2, 2, True)
    door.ok("quota", "set", "ana", "--sites", "none", "--memory", "none")
    door.ok("site", "give", "three", "ana")
    assert "ana" in door.run("quota", "list").out
    door.ok("quota", "remove", "ana")
    assert door.run("quota", "set", "ana", "--sites", "many").status == 2
    assert door.run("quota", "show", "nobody-here").status == 4
