"""Log lines of a real site: printed, asked for, found, and found again when the site is gone."""

from __future__ import annotations

from typing import Any

from apps import PYTHON

from instance import Instance
from instancekit import archive, until

APP = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        print("ERROR somebody asked for", self.path, flush=True)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *words):
        pass

print("begins", flush=True)
ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""


def test_lines_are_found_and_outlive_the_site(alveole: Instance) -> None:
    """Also what the agent and control log themselves, each in a directory of its own user's."""
    name = "logged"
    made = alveole.create(
        name, archive({"app.py": APP}), command=[PYTHON, "/site/current/app.py"], port=8000, base="host"
    )
    assert made is not None
    id = str(alveole.site(name)["id"])
    alveole.until_answers(name, "ok")
    assert alveole.fetch(name, "/needle?x=1").status == 200

    def found(*words: str) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = alveole.cli("logs", *words, "--json").json["lines"]
        return lines

    until(lambda: found(name, "--source", "out", "--grep", "needle"), 60)
    printed = found(name, "--source", "out", "--grep", "needle")
    assert printed[-1]["level"] == "err" and printed[-1]["site"] == name
    until(lambda: found(name, "--source", "access", "--grep", "needle"), 60)
    (asked,) = found(name, "--source", "access", "--grep", "needle")
    assert " 200 " in asked["text"]
    assert len(found(name, "--level", "err", "--grep", "needle")) == 1
    until(lambda: found("--source", "own", "--grep", "alveole.agent"), 60)
    for part in ("agent", "control"):
        place = alveole.state / "logs" / "own" / part
        until((place / "current").exists, 60)
        assert place.stat().st_mode & 0o7777 == 0o2750
    assert alveole.site(name)["log_bytes"] > 0
    alveole.destroy(name)
    assert (alveole.state / "logs" / "archive" / id / "destroyed").exists()
    assert not (alveole.state / "logs" / id).exists()
    gone = found(name, "--grep", "needle")
    assert {each["source"] for each in gone} == {"out", "access"} and {each["site"] for each in gone} == {name}
    usage = alveole.cli("logs", "usage", "--json").json
    assert usage["bytes"] > 0 and usage["own_bytes"] > 0
