"""The second socket of control: who connects is what the kernel says, and only the edge's workers speak for others."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from doorkit import Door
from peoplekit import add

EDGE, OTHER = "nobody", "daemon"
ASK = """
import http.client, json, socket, sys
class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(sys.argv[1])
connection = Unix("panel.localhost")
method, path, headers, body = json.loads(sys.argv[2])
connection.request(method, path, body, headers)
answer = connection.getresponse()
print(json.dumps([answer.status, dict(answer.getheaders()), answer.read().decode()]))
"""


@pytest.fixture
def panel(directory: Path) -> Iterator[Door]:
    made = Door(directory, users={"edge": EDGE})
    # The fixture's directory is for its owner alone.
    for each in (directory, directory / "r", made.settings.panel_socket.parent):
        each.chmod(0o755)
    try:
        yield made
    finally:
        made.close()


def ask(
    door: Door, user: str, method: str, path: str, headers: dict[str, str], body: str = ""
) -> tuple[int, dict[str, str], str]:
    argv = [sys.executable, "-I", "-c", ASK, str(door.settings.panel_socket), json.dumps([method, path, headers, body])]
    done = subprocess.run(argv, user=user, capture_output=True, text=True, timeout=30, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    status, given, text = json.loads(done.stdout)
    return status, {key.lower(): value for key, value in given.items()}, text


@pytest.mark.root
def test_the_edge_is_nobody_until_somebody_signs_in(panel: Door) -> None:
    add(panel, "ana")
    page = {"Host": "panel.localhost", "Accept": "text/html", "X-Forwarded-For": "192.0.2.7"}
    status, headers, _ = ask(panel, EDGE, "GET", "/sites", page)
    assert status == 303 and headers["location"] == "/sign-in?next=%2Fsites"
    assert ask(panel, EDGE, "GET", "/v1/accounts", {"Host": "panel.localhost"})[0] == 401
    form = {**page, "Origin": "https://panel.localhost", "Content-Type": "application/x-www-form-urlencoded"}
    status, headers, _ = ask(panel, EDGE, "POST", "/sign-in", form, "name=ana&password=correct+horse+battery")
    assert status == 303 and headers["set-cookie"].startswith("__Host-alveole=als_")
    sessions = panel.http.get("/v1/sessions", params={"account": "ana"}).json()
    assert [each["address"] for each in sessions] == ["192.0.2.7"]


@pytest.mark.root
def test_any_other_user_of_the_machine_is_refused(panel: Door) -> None:
    """Threat 24: the socket is open to connect to, and to nothing else."""
    for path in ("/sites", "/v1/accounts", "/sign-in"):
        assert ask(panel, OTHER, "GET", path, {"Host": "panel.localhost", "X-Forwarded-For": "127.0.0.1"})[0] == 403
    modes = {each.name: each.stat().st_mode & 0o777 for each in panel.settings.api_socket.parent.iterdir()}
    assert modes == {"api.sock": 0o600, "panel.sock": 0o666}
