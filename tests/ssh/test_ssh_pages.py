"""The file manager and the console of the pages, in the container that the SSH door uses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from e2ekit import Sites
from sshkit import Client
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import unix_connect

from instance import Instance
from instancekit import page, until

STDIN, STDOUT, CONTROL = 0, 1, 3


@pytest.fixture
def http(alveole: Instance) -> Iterator[httpx.Client]:
    """Root's own pages, on the Unix socket."""
    transport = httpx.HTTPTransport(uds=str(alveole.api_socket))
    with httpx.Client(transport=transport, base_url="http://x", headers={"Accept": "text/html"}, timeout=30) as made:
        yield made


def test_files_are_changed_as_the_sites_own_user(
    alveole: Instance, client: Client, sites: Sites, http: httpx.Client
) -> None:
    """Threats 6 and 10: whatever path a form names is a path of the container; the rest of the machine is not there."""
    name = sites.create(page("first"), owner="ana")
    files = f"/site/{name}/files"
    listed = http.get(files)
    assert listed.status_code == 200 and "index.html" in listed.text, alveole.tail()
    answer = http.post(f"{files}/edit", data={"at": "", "etag": "", "name": "new.html", "text": "by the page"})
    assert answer.status_code == 303, answer.text[-3000:]
    canary = alveole.root / "canary-pages"
    canary.write_text("canary")
    canary.chmod(0o644)
    http.post(files, data={"at": "", "do": "folder", "new_folder": "here"})
    assert client.sftp(name, f"ln -s {canary} out\nln -s / top\n").returncode == 0
    for path in (str(canary), "out", f"top{canary}", f"/proc/1/root{canary}", f"/proc/self/root{canary}"):
        assert "canary" not in http.get(f"{files}/download", params={"at": path}).text, path
        assert http.get(f"{files}/edit", params={"at": path}).status_code == 303, path
    assert http.get(f"{files}/download", params={"at": "/etc/shadow"}).status_code != 200
    # Releases are there to look at, and nothing else.
    digest = alveole.site(name)["release"][7:]
    kept = http.get(files, params={"at": f"/site/releases/{digest}"})
    assert "index.html" in kept.text and 'value="delete"' not in kept.text
    refused = http.post(files, data={"at": f"/site/releases/{digest}", "do": "delete", "name": "index.html"})
    assert refused.status_code == 409 and alveole.answers(name, "first")
    # It belongs to whom the site's own programs run as.
    owner = client.sftp(name, "ls -ln new.html\n").stdout.split()[-7:]
    assert client.ssh(name, "id", "-un").stdout.strip() in owner, owner
    work = alveole.api("GET", f"/v1/sites/{name}/work")
    assert "'new.html'" in work["names"]
    publish = http.post(f"/site/{name}/work/publish")
    assert publish.status_code == 303 and publish.headers["location"].startswith("/change/")
    until(lambda: alveole.fetch(name, "/new.html").body == "by the page", 30, alveole.tail)


def test_volumes_of_a_stopped_site(alveole: Instance, sites: Sites, http: httpx.Client) -> None:
    name = sites.name()
    command = ["/usr/bin/python3", "-m", "http.server", "8000", "-d", "/data"]
    alveole.create(name, None, command=command, port=8000, volumes=[{"name": "data", "path": "/data"}], owner="ana")
    alveole.verb(name, "stop")
    answer = http.post(f"/site/{name}/files/edit", data={"at": "/data", "etag": "", "name": "note", "text": "kept"})
    assert answer.status_code == 303, answer.text[-2000:]
    assert "note" in http.get(f"/site/{name}/files", params={"at": "/data"}).text
    alveole.verb(name, "start")
    alveole.until_answers(name, "kept", path="/note")


def test_a_console_is_the_shell_that_ssh_gives(alveole: Instance, client: Client, sites: Sites, tmp_path: Path) -> None:
    name = sites.create(page("first"), owner="ana")
    where = f"ws://x/v1/sites/{name}/console"
    with unix_connect(str(alveole.api_socket), uri=where, compression=None) as socket:
        socket.send(bytes([CONTROL]) + json.dumps({"resize": [33, 99]}).encode())
        socket.send(bytes([STDIN]) + b"stty size; id -u; cat /proc/self/status | grep CapEff; exit 4\n")
        seen = b""
        try:
            while True:
                frame = socket.recv(timeout=20)
                assert isinstance(frame, bytes)
                seen += frame[1:] if frame[0] == STDOUT else b""
        except ConnectionClosed:
            pass
    text = seen.decode()
    assert "33 99" in text and "0000000000000000" in text, (text, alveole.tail())
    assert client.ssh(name, "id", "-u").stdout.strip() in text.split()
    found = client.told(name, 1, "console")[0]
    assert found["state"] == "done" and found["result"]["exit_status"] == 4
