"""Certificates and authorities over HTTP and on the command line, without an authority: what is shown and refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from doorkit import Door

sys.path.insert(0, str(Path(__file__).parent.parent / "pure"))
from test_certs import KEY, LEAF_PEM, pem_of


def test_what_is_shown(door: Door) -> None:
    door.site("blog")
    found = {each["name"]: each for each in door.http.get("/v1/certificates").json()}
    assert found["blog.localhost"]["source"] == "internal" and found["blog.localhost"]["site"] == "blog"
    assert found["localhost"]["site"] == ""
    assert [each["name"] for each in door.http.get("/v1/sites/blog/certificates").json()] == ["blog.localhost"]
    assert door.http.get("/v1/sites/blog/certificates/localhost").status_code == 404
    assert door.http.get("/v1/certificates/absent.example.org").status_code == 404


def test_without_an_authority_there_is_nothing_to_ask(door: Door) -> None:
    door.site("blog")
    answer = door.http.post("/v1/sites/blog/certificates/blog.localhost/issue", json={})
    assert answer.status_code == 409 and "no authority is set up" in answer.text
    settings = door.http.get("/v1/acme").json()
    assert settings == {"automatic": True, "look": True, "authorities": [], "zones": []}
    wrong = {"name": "No", "directory": "http://x", "private": "yes"}
    answer = door.http.post("/v1/acme/authorities", json={"settings": wrong})
    assert answer.status_code == 422 and "private" in answer.text
    answer = door.http.post("/v1/acme/authorities", json={"settings": {**wrong, "private": False}})
    assert {each["field"] for each in answer.json()["problems"]} == {"name", "directory", "agree"}
    # Nobody listens there: nothing is kept of what cannot be asked.
    there = {"name": "ca", "directory": "https://127.0.0.1:9/dir"}
    answer = door.http.post("/v1/acme/authorities", json={"settings": there, "agree": True})
    assert answer.status_code == 503 and "cannot be asked" in answer.text
    assert door.http.get("/v1/acme").json()["authorities"] == []
    answer = door.http.post("/v1/acme/zones", json={"zone": "example.org", "server": "ns.example.org"})
    assert answer.status_code == 422 and "is not an address" in answer.text


def test_everything_wrong_with_an_upload_is_said(door: Door) -> None:
    """And nothing of the key, in the answer or in the journal."""
    door.site("blog")
    key = pem_of(KEY)
    answer = door.http.post("/v1/sites/blog/certificates", json={"chain": LEAF_PEM, "key": key})
    problems = answer.json()["problems"]
    assert answer.status_code == 422 and {each["field"] for each in problems} == {"chain"}
    assert "for none of blog.localhost" in answer.text and "is missing" in answer.text
    secret = key.splitlines()[1]
    assert secret not in answer.text and secret not in door.http.get("/v1/changes").text


def test_on_the_command_line(door: Door, tmp_path: Path) -> None:
    door.site("blog")
    listed = door.run("cert", "list")
    assert "blog.localhost" in listed.out and "internal" in listed.out
    assert json.loads(door.run("cert", "show", "blog.localhost", "--json").out)["site"] == "blog"
    refused = door.run("cert", "issue", "blog.localhost")
    assert refused.status == 3 and "no authority" in refused.err
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_text(LEAF_PEM)
    key.write_text("none")
    wrong = door.run("cert", "upload", "blog", "--chain", str(chain), "--key", str(key))
    assert wrong.status == 2 and "is no private key" in wrong.err
    assert "internal authority" in door.run("acme", "list").err
    assert door.run("acme", "set", "--by-hand").status == 0
    assert door.http.get("/v1/acme").json()["automatic"] is False
    assert door.run("acme", "try", "none").status == 4
