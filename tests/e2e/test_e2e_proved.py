"""Backups that are proved, kept elsewhere, looked into; and a lost machine that is made again of them."""

from __future__ import annotations

import contextlib
import json
import pwd
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from apps import ON_PORT, ask

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "web"))
from imagekit import image

from instance import Answer, Instance
from instancekit import archive, clean_environment, descendants, free_ports, kill, page, run, until
from sshdkit import run_directory

VOLUME = [{"name": "data", "path": "/data"}]
PASSWORD = "correct horse battery"
SCENARIO = "steps:\n  - request: GET /\n    expect: {status: 200, text: mine}\n"
#: Gives what a volume and the content hold, writes into the volume, and tells which cookies came.
NOTES = """
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

class Handler(BaseHTTPRequestHandler):
    def answer(self, text):
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())
    def do_GET(self):
        word = Path("/data/word").read_text() if Path("/data/word").exists() else "nothing"
        about = Path("/site/current/docs/about.txt")
        self.answer(f"{word}, {about.read_text() if about.exists() else 'gone'}, {self.headers.get('Cookie')}")
    def do_POST(self):
        Path("/data/word").write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer("written")

HTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
"""
ON_NOTES = {"command": ["/usr/bin/python3", "/site/current/notes.py"], "port": 8000, "volumes": VOLUME}
SSHD = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {place}/host_key
PidFile none
AuthorizedKeysFile {place}/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
LogLevel ERROR
Subsystem sftp internal-sftp
"""


class Empty(Instance):
    """An instance whose processes are not started before somebody says so."""

    held = True

    def start(self, *, ready: bool = True, **failpoints: str) -> None:
        if not self.held:
            super().start(ready=ready, **failpoints)

    def until_ready(self, seconds: float = 60.0) -> None:
        if not self.held:
            super().until_ready()


@pytest.fixture(scope="module")
def machine() -> Iterator[Instance]:
    with Instance() as made:
        made.create("mine", ask("mine"), volumes=VOLUME, **ON_PORT)
        made.inside("mine", "import os;os.mkdir('/data/notes');open('/data/notes/one','w').write('first')")
        made.inside("mine", "open('/data/other','w').write('stays')")
        made.create("page", page("saved"))
        made.cli("account", "add", "ana", "--role", "owner", "--json")
        yield made


@pytest.fixture(scope="module")
def saved(machine: Instance) -> str:
    return str(machine.cli("backup", "create", "mine", "--json").json["id"])


def proof(machine: Instance, id: str) -> Any:
    return machine.cli("backup", "show", id, "--json").json


def test_a_backup_is_proved_and_nothing_of_it_is_left(machine: Instance, saved: str) -> None:
    machine.api("PUT", "/v1/sites/mine/checks/front", {"text": SCENARIO})
    before = machine.traces()
    found = machine.cli("backup", "prove", "mine", "--json").json
    assert found["backup"]["proved"] is True and found["backup"]["id"] == saved
    assert [each["scenario"] for each in found["reports"]] == ["front"] and found["reports"][0]["ok"]
    until(lambda: machine.traces() == before, 40, lambda: f"{before}\n{machine.traces()}")
    shown = machine.cli("backup", "policy", "show", "mine", "--json").json
    assert shown["proved_at"] == found["backup"]["proved_at"] and shown["unproved"] == ""
    assert "last proved restore" in machine.cli("backup", "policy", "show", "mine").out
    assert "proved" in machine.cli("backup", "list", "mine").out


def test_one_that_does_not_answer_as_it_should_is_named(machine: Instance, saved: str) -> None:
    machine.api("PUT", "/v1/sites/mine/checks/front", {"text": SCENARIO.replace("mine", "nowhere to be found")})
    try:
        done = machine.cli("backup", "prove", saved, "--json", status=None)
        assert done.status != 0, done
        assert proof(machine, saved)["backup"]["proved"] is False
        assert saved in machine.cli("doctor", status=3).out
        assert saved in machine.cli("backup", "policy", "show", "mine").out
    finally:
        machine.api("PUT", "/v1/sites/mine/checks/front", {"text": SCENARIO})
    machine.cli("backup", "prove", saved)
    assert proof(machine, saved)["backup"]["proved"] is True


def test_looking_into_a_backup(machine: Instance, saved: str, tmp_path: Path) -> None:
    top = machine.cli("backup", "tree", saved, "--json").json["entries"]
    assert {each["name"] for each in top} >= {"release", "volumes"} and all(each["kind"] == "d" for each in top)
    notes = machine.cli("backup", "tree", saved, "volumes/data/notes", "--json").json["entries"]
    assert [(each["name"], each["kind"], each["size"]) for each in notes] == [("one", "f", 5)]
    machine.cli("backup", "tree", saved, "volumes/data/nowhere", status=4)
    machine.cli("backup", "tree", saved, "../etc", status=4)
    target = tmp_path / "one"
    machine.cli("backup", "download", saved, str(target), "--path", "volumes/data/notes/one")
    assert target.read_text() == "first" and target.stat().st_mode & 0o777 == 0o600
    whole = tmp_path / "all.tar"
    machine.cli("backup", "download", saved, str(whole))
    with tarfile.open(whole) as archive:
        assert "volumes/data/notes/one" in archive.getnames()
    machine.cli("backup", "download", saved, str(tmp_path / "none"), "--path", "volumes/data/none", status=4)
    assert not (tmp_path / "none").exists()


def test_one_file_comes_back_as_the_sites_own(machine: Instance, saved: str) -> None:
    """Threat 6: a link that the site put in the way leads nowhere else."""
    machine.inside("mine", "open('/data/notes/one','w').write('changed');open('/data/other','w').write('newer')")
    machine.cli("backup", "restore-file", saved, "volumes/data/notes/one")
    assert machine.inside("mine", "print(open('/data/notes/one').read())").strip() == "first"
    assert machine.inside("mine", "print(open('/data/other').read())").strip() == "newer"
    machine.inside("mine", "open('/data/notes/one','a').write('!')")
    machine.inside("mine", "import shutil;shutil.rmtree('/data/notes')")
    machine.cli("backup", "restore-file", saved, "volumes/data/notes")
    assert machine.inside("mine", "print(open('/data/notes/one').read())").strip() == "first"
    machine.inside("mine", "import os,shutil;shutil.rmtree('/data/notes');os.symlink('/etc','/data/notes')")
    done = machine.cli("backup", "restore-file", saved, "volumes/data/notes/one", "--json", status=3)
    assert "something else" in done.out
    assert not Path("/etc/one").exists()
    machine.inside("mine", "import os;os.unlink('/data/notes')")
    machine.cli("backup", "restore-file", saved, "volumes/data/notes")
    machine.cli("backup", "restore-file", saved, "release/no-such-file", status=4)


# --- a past day -------------------------------------------------------------------------------
def notes(about: str | None) -> bytes:
    return archive({"notes.py": NOTES, "bin/run": "#!/bin/sh", **({"docs/about.txt": about} if about else {})})


def done(machine: Instance, method: str, path: str, body: Any = None) -> Any:
    return machine.ended(machine.api(method, path, body)["id"], good=True)


@pytest.fixture(scope="module")
def monday(machine: Instance) -> Iterator[str]:
    """A backup of a site that has changed since."""
    machine.create("notes", notes("one"), **ON_NOTES)
    machine.fetch("notes", method="POST", body=b"then")
    id = str(done(machine, "POST", "/v1/backups", {"site": "notes"})["result"]["backup"])
    machine.fetch("notes", method="POST", body=b"now")
    machine.update("notes", notes("two"))
    machine.until_answers("notes", "now, two")
    yield id
    machine.verb("notes", "stop")
    done(machine, "DELETE", "/v1/sites/notes?confirm=notes&unsaved=true")


class Visitor:
    """A browser, as far as its cookies go."""

    def __init__(self, machine: Instance) -> None:
        self.machine = machine
        self.jars: dict[str, dict[str, str]] = {}

    def ask(
        self, url: str, method: str = "GET", form: dict[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        """One request, no redirect followed. ``url``: with its host, or a path of the pages."""
        there = urlsplit(url if "//" in url else f"https://panel.localhost{url}")
        host = there.hostname or ""
        jar = self.jars.setdefault(host, {})
        headers = {"Cookie": "; ".join(f"{key}={value}" for key, value in jar.items())} if jar else {}
        headers["Accept"] = "text/html"
        headers |= {"Origin": f"https://{host}:{self.machine.https}"} if method == "POST" else {}
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            body = urlencode(form).encode()
        path = there.path + (f"?{there.query}" if there.query else "")
        answer = self.machine.fetch(host, path or "/", https=True, method=method, headers=headers, body=body)
        for each in answer.headers.get_all("Set-Cookie") or []:
            name, _equals, value = each.partition(";")[0].partition("=")
            jar[name] = value
        return answer

    def sign_in(self, name: str) -> None:
        answer = self.ask("/sign-in", "POST", {"name": name, "password": PASSWORD})
        assert answer.status == 303, answer.body


def test_a_past_day_beside_the_live_site(machine: Instance, monday: str) -> None:
    """Threat 22: only who is signed in and may look is let in. Fault 8: control is killed, and it stays as it was."""
    for name, role in (("ada", "administrator"), ("zoe", "owner")):
        machine.api("POST", "/v1/accounts", {"name": name, "role": role, "password": PASSWORD})

    def still() -> bool:
        seen = machine.traces()
        time.sleep(2)
        return machine.traces() == seen

    until(still, 60, machine.tail)
    before = machine.traces()
    day = machine.cli("backup", "open", monday, "--json").json
    assert day["state"] == "open" and day["backup"] == monday and day["site"] == "notes"
    host = day["name"]
    assert urlsplit(day["address"]).hostname == f"{host}.localhost"
    ada, zoe = Visitor(machine), Visitor(machine)
    outside = ada.ask(day["address"])
    assert outside.status == 303 and outside.headers["Location"].endswith(f"/past/{day['id']}")
    assert ada.ask(outside.headers["Location"]).headers["Location"].startswith("/sign-in")
    ada.sign_in("ada")
    zoe.sign_in("zoe")
    assert zoe.ask(f"/past/{day['id']}").status == 404 and zoe.ask(f"/past/{day['id']}/enter").status == 404
    assert monday in ada.ask(f"/past/{day['id']}").body
    link = ada.ask(f"/past/{day['id']}/enter").headers["Location"]
    assert ada.ask(link).headers["Location"] == "/"
    assert zoe.ask(link).status == 303 and not zoe.jars[f"{host}.localhost"], "the link has worked once"
    assert ada.ask(day["address"]).body == "then, one, None", "that day's data and content; no cookie of ours"
    assert ada.ask(day["address"], "POST", body=b"changed").body == "written"
    assert ada.ask(day["address"]).body.startswith("changed, one")
    assert machine.fetch("notes").body.startswith("now, two"), "the live site has none of it"
    assert [each["id"] for each in machine.cli("backup", "opened", "notes", "--json").json] == [day["id"]]
    assert {each["name"] for each in machine.api("GET", "/v1/sites")} == {"mine", "page", "notes"}
    # A control that is killed knows it again; the passes were in its memory, and are given out anew.
    old = machine.pid_of("control")
    machine.kill_role("control")
    until(lambda: machine.pid_is_new("control", old), 60, machine.tail)
    machine.until_ready()
    until(lambda: ada.ask(day["address"]).status == 303, 60, machine.tail)
    ada.ask(ada.ask(f"/past/{day['id']}/enter").headers["Location"])
    assert ada.ask(day["address"]).body.startswith("changed, one")
    machine.cli("backup", "close", host)
    assert machine.cli("backup", "opened", "--json").json == []
    until(lambda: machine.traces() == before, 40, lambda: f"{before}\n{machine.traces()}")


def test_a_file_comes_back_into_the_content(machine: Instance, monday: str) -> None:
    """By a release of the present content with that one file as it was; live as the site's setting for files says."""
    wanted = {"path": "release/docs/about.txt"}
    files, preview = f"/v1/backups/{monday}/files", f"/v1/backups/{monday}/preview?path="
    seen = machine.api("GET", preview + wanted["path"])
    assert seen["diff"][-2:] == ["-two", "+one"] and seen["content"] and not seen["live"] and not seen["same"]
    volume = machine.api("GET", preview + "volumes/data/word")
    assert volume["diff"][-2:] == ["-now", "+then"] and volume["live"]
    before = machine.site("notes")["release"]
    waiting = done(machine, "POST", files, wanted)["result"]["release"]
    assert machine.site("notes")["release"] == before and waiting != before
    # It is gone now, with its folder; and files go live by themselves.
    machine.update("notes", notes(None))
    machine.until_answers("notes", "gone")
    machine.api("PATCH", "/v1/sites/notes", {"on_files": "live"})
    seen = machine.cli("backup", "restore-file", monday, wanted["path"], "--preview", "--json").json
    assert seen["now_bytes"] is None and seen["live"]
    machine.cli("backup", "restore-file", monday, wanted["path"])
    machine.until_answers("notes", "now, one")
    # What somebody has changed and not published would go with it.
    machine.api("POST", "/v1/sites/notes/files/folders", {"at": "drafts"})
    machine.api("PUT", "/v1/sites/notes/files/text?at=drafts/half", {"text": "half"})
    refused = machine.ended(machine.api("POST", files, wanted)["id"])
    assert refused["state"] == "failed" and "drafts/half" in refused["problems"][0]["message"]


# --- elsewhere --------------------------------------------------------------------------------
@contextlib.contextmanager
def sshd(place: Path) -> Iterator[int]:
    """Debian's own, with keys and a configuration of the test."""
    with run_directory():
        yield from _sshd(place)


def _sshd(place: Path) -> Iterator[int]:
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / "host_key")
    (port,) = free_ports(1)
    (place / "sshd_config").write_text(SSHD.format(port=port, place=place))
    log = place / "log"
    with log.open("ab") as err:
        process = subprocess.Popen(
            ["/usr/sbin/sshd", "-D", "-e", "-f", str(place / "sshd_config")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=err,
        )
    try:

        def listens() -> bool:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True
            return False

        until(listens, 30, log.read_text)
        yield port
    finally:
        kill(descendants([process.pid]))
        process.wait()


@pytest.mark.turn
def test_over_sftp(machine: Instance) -> None:
    place = machine.root / "sshd"
    place.mkdir(0o755)
    with sshd(place) as port:
        key = machine.cli("backup", "repository", "key", "offsite").out.strip()
        host = (place / "host_key.pub").read_text()
        where = ("--kind", "sftp", "--place", f"root@127.0.0.1:{port}{place}/kept")
        (place / "authorized_keys").write_text("")
        add = ("backup", "repository", "add", "offsite", *where, "--host-key")
        assert "ermission denied" in machine.cli(*add, host, status=3).err
        (place / "authorized_keys").write_text(f"restrict {key}\n")
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / "other_key")
        machine.cli(*add, (place / "other_key.pub").read_text(), status=3)
        assert [each["name"] for each in machine.cli("backup", "repository", "list", "--json").json] == ["local"]
        machine.cli(*add, host)
        try:
            machine.cli("backup", "repository", "use", "offsite")
            id = machine.cli("backup", "create", "page", "--json").json["id"]
            assert proof(machine, id)["backup"]["repository"] == "offsite"
            assert machine.cli("backup", "repository", "check", "offsite", "--json").json["backups"] == 1
            assert machine.cli("backup", "tree", id, "--json").json["entries"]
        finally:
            machine.cli("backup", "repository", "use", "local")
        machine.cli("backup", "repository", "remove", "offsite", status=3)
        machine.cli("backup", "delete", id, "--yes")
        machine.cli("backup", "repository", "remove", "offsite")
    assert [each["used"] for each in machine.cli("backup", "repository", "list", "--json").json] == [True]


# --- the machine itself -----------------------------------------------------------------------
def restored(other: Instance, *words: str, failpoint: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**clean_environment(), **({"ALVEOLE_FAILPOINT": failpoint} if failpoint else {})}
    argv = [sys.executable, "-m", "alveole", "--config", str(other.config), "restore-platform", *words, "--json"]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300, cwd="/", env=environment)


@pytest.mark.turn
def test_a_lost_machine_comes_back(machine: Instance, saved: str) -> None:
    """Fault 11: killed on its way, it ends with everything: people, keys, content and volumes, what is being worked on,
    what can be rolled back to, the versions of applications, images that were imported."""
    machine.inside("mine", "open('/data/other','w').write('last night')")
    draft = "/v1/sites/page/files/text?at=draft"
    machine.api("PUT", draft, {"text": "half done"})
    machine.cli("backup", "create", "mine")
    machine.cli("backup", "create", "page")
    # Of this no backup of the site knows.
    machine.update("page", page("newer"))
    machine.update("mine", ask("later"))
    made = machine.api("POST", "/v1/images", {"upload": machine.upload(image())})
    base = machine.ended(made["id"], good=True)["result"]["base"]
    machine.create("photos", base=base)
    machine.until_answers("photos", "Index of")
    shop = {"name": "shop", "environments": ["alpha", "prod"], "accept": "at-once"}
    machine.ended(machine.api("POST", "/v1/apps", shop)["id"], good=True)
    for version in ("one", "two"):
        sent = {"version": version, "upload": machine.upload(page(version))}
        machine.ended(machine.api("POST", "/v1/apps/shop/versions", sent)["id"], good=True)
    key = machine.root / "key"
    key.write_text(machine.cli("backup", "key", "export").out)
    assert "key export" not in machine.cli("status").out
    # Sealed in the database; what opens it comes back beside it.
    feed = machine.api("POST", "/v1/channels", {"name": "told", "kind": "feed", "whom": "site:mine"})["secret"]
    machine.cli("backup", "platform")
    sealing = (machine.state / "control/sealing.key").read_bytes()
    authority = machine.cli("ca", "show").out
    with Empty() as other:
        words = (str(machine.state / "backups"), "--key-file", str(key))
        for failpoint in ("restore-platform-unpacked", "restore-platform-image", "restore-work"):
            done = restored(other, *words, failpoint=failpoint)
            assert done.returncode == -signal.SIGKILL, done
            held = other.cli("serve", status=3, seconds=60)
            assert "half restored" in held.err
        done = restored(other, *words)
        assert done.returncode == 0, done.stderr + done.stdout
        told = json.loads(done.stdout)
        assert {"mine", "page", "photos"} <= {*told["sites"]} and not told["without"], told
        (said,) = told["said"]
        assert said.startswith("mine is as in its backup of") and "site update mine --release sha256:" in said
        assert told["versions"] == ["shop one", "shop two"] and len(told["images"]) == 1
        again = restored(other, *words)
        assert again.returncode == 3 and "holds a platform" in again.stdout
        other.held = False
        other.start()
        other.until_answers("mine", '"mine"')
        assert other.inside("mine", "print(open('/data/other').read())").strip() == "last night"
        other.until_answers("page", "newer")
        other.until_answers("photos", "Index of")
        assert other.api("GET", draft)["text"] == "half done"
        shown = other.site("page")
        before = next(each["digest"] for each in shown["releases"] if each["digest"] != shown["release"])
        other.cli("site", "update", "page", "--release", before)
        other.until_answers("page", "saved")
        for verb, body in (("deliver", {"version": "one"}), ("deploy", {})):
            change = other.api("POST", f"/v1/apps/shop/environments/alpha/{verb}", body)
            other.ended(change["id"], good=True)
        other.until_answers("shop-alpha", "one")
        assert other.cli("ca", "show").out == authority
        key_there = other.state / "control/sealing.key"
        assert key_there.read_bytes() == sealing and key_there.stat().st_uid == pwd.getpwnam("alveole").pw_uid
        assert "<feed" in str(other.api("GET", feed)) and not other.api("GET", "/v1/status")["damaged"]
        assert "ana" in {each["name"] for each in other.api("GET", "/v1/accounts")}
        assert other.cli("journal", "verify", "--json").json["ok"]
        listed = other.cli("backup", "list", "mine", "--json").json
        assert {each["repository"] for each in listed} == {"restored"}
        other.cli("backup", "prove", "mine")
