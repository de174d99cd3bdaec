"""A site of a tiny module of one's own, for real: made, configured, changed by hand, saved, destroyed, given back."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from instance import GUNICORN, Instance
from instancekit import Done, one_at_a_time, until

MANIFEST = """
name = "{name}"
version = "1.0"
icon = "box"
category = "tool"
update = "{update}"
title = {{ en = "Teller", fr = "Conteur" }}
description = {{ en = "Tells what it was given.", fr = "Dit ce qu'on lui a donné." }}

[packages]
mandatory = ["{package}"]

[web]
port = 8080

[[question]]
name = "word"
type = "string"
title = {{ en = "Word", fr = "Mot" }}

[[question]]
name = "secret"
type = "password"
title = {{ en = "Secret", fr = "Secret" }}

[[question]]
name = "store"
type = "string"
default_from = "site.name"
title = {{ en = "Store", fr = "Réserve" }}

[[volume]]
name = "data"
path = "/data/{name}"

[[process]]
name = "web"
argv = ["/usr/bin/python3", "-u", "/config/{name}/serve.py", "{name}"]
order = 90

[[process]]
name = "ticker"
argv = ["/usr/bin/python3", "-u", "/config/{name}/tick.py", "{name}"]

[[task]]
name = "install"
when = "install"
argv = ["/usr/bin/python3", "-c", "open('/data/{name}/installed', 'a').write('once ')"]

[[file]]
path = "{name}/serve.py"
file = "serve.py"
restarts = ["web"]

[[file]]
path = "{name}/tick.py"
file = "tick.py"
restarts = ["ticker"]

[[file]]
path = "{name}/page.json"
template = "page.json"
format = "json"
restarts = ["web"]

[[file]]
path = "{name}/secret.json"
template = "secret.json"
format = "json"
user = "site"
mode = "0600"
restarts = ["ticker"]
"""
SERVE = """
import http.server, json, sys, time
name = sys.argv[1]
page = json.load(open(f"/config/{name}/page.json"))
if page["word"] == "crash":
    raise SystemExit("this word is one too many")
started = time.time()

def read(file):
    try:
        return open(f"/data/{name}/{file}").read()
    except FileNotFoundError:
        return ""

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        text = json.dumps({**page, "started": started, "ticker": read("ticker"), "note": read("note"),
                           "installed": read("installed"), "secret": read("secret")}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    def do_POST(self):
        open(f"/data/{name}/note", "wb").write(self.rfile.read(int(self.headers["Content-Length"])))
        self.do_GET()

http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""
TICK = """
import json, sys, time
name = sys.argv[1]
secret = json.load(open(f"/config/{name}/secret.json"))
open(f"/data/{name}/ticker", "w").write(str(time.time()))
open(f"/data/{name}/secret", "w").write(f"{len(secret['secret'])} {secret['store']}")
time.sleep(10**6)
"""
PAGE = '{"word": {{ a.word }}, "address": {{ site.url }}}\n'
SECRET = '{"secret": {{ a.secret }}, "store": {{ a.store }}}\n'


def write_module(top: Path, name: str, update: str = "blue-green") -> None:
    folder = top / name
    (folder / "templates").mkdir(parents=True)
    (folder / "files").mkdir()
    (folder / "module.toml").write_text(MANIFEST.format(name=name, update=update, package=GUNICORN))
    (folder / "files/serve.py").write_text(SERVE)
    (folder / "files/tick.py").write_text(TICK)
    (folder / "templates/page.json").write_text(PAGE)
    (folder / "templates/secret.json").write_text(SECRET)


@pytest.fixture(scope="module")
def alveole() -> Iterator[Instance]:
    """An instance whose settings name a directory of modules, as ``/etc/alveole/modules`` is one."""
    top = Path(tempfile.mkdtemp(prefix="altm", dir="/var/tmp"))
    try:
        top.chmod(0o755)
        write_module(top, "teller")
        write_module(top, "lone", "stop-start")
        with Instance(more=f'\n[modules]\ndirectory = "{top}"\n') as made:
            yield made
    finally:
        shutil.rmtree(top)


def make(alveole: Instance, name: str, module: str = "teller", *more: str) -> None:
    """A site of it; its base is kept for later runs, so that only the first one builds it."""
    with one_at_a_time("debian"):
        alveole.seed_bases()
        alveole.cli("site", "create", name, "--module", module, "--set", "word=hello", "--defaults", *more)
        alveole.keep_base(str(alveole.site(name)["base_key"]))


def told(alveole: Instance, name: str) -> dict[str, Any]:
    answer = alveole.fetch(name)
    assert answer.status == 200, answer.body
    found: dict[str, Any] = json.loads(answer.body)
    return found


def configure(alveole: Instance, name: str, *words: str, status: int = 0) -> Done:
    return alveole.cli("site", "configure", name, *words, status=status)


def destroy(alveole: Instance, name: str) -> None:
    alveole.cli("site", "stop", name)
    alveole.cli("site", "destroy", name, "--yes")


def test_a_site_of_a_module_lives(alveole: Instance) -> None:
    listed = {each["name"]: each for each in alveole.cli("module", "list", "--json").json}
    assert listed["teller"]["origin"].startswith("/var/tmp/altm") and "wordpress" in listed
    alveole.cli("module", "lint", f"{listed['teller']['origin']}/teller")
    make(alveole, "tale")
    one = told(alveole, "tale")
    assert one["word"] == "hello" and one["installed"] == "once " and one["secret"] == "24 tale"
    assert one["address"] == f"https://tale.localhost:{alveole.https}"
    site = alveole.site("tale")
    assert site["plan"] == "small" and site["state"] == "running"

    # One answer: one file, one process.
    done = configure(alveole, "tale", "--set", 'word=it\'s "two" & <b>', "--diff")
    assert "Starts anew: web." in done.out and "+{" in done.out
    two = told(alveole, "tale")
    assert two["word"] == 'it\'s "two" & <b>' and two["started"] > one["started"]
    assert two["ticker"] == one["ticker"] and two["installed"] == "once "
    configure(alveole, "tale", "--set", "secret=another secret")
    three = told(alveole, "tale")
    assert three["started"] == two["started"]
    until(lambda: told(alveole, "tale")["secret"] == "14 tale", 30)
    assert "another secret" not in alveole.log.read_text() + json.dumps(alveole.journal())
    answers = alveole.cli("site", "answers", "tale", "--show-secrets", "--json").json
    assert answers["answers"]["teller"]["secret"] == "another secret"

    # A configuration with which it does not start is taken back.
    failed = configure(alveole, "tale", "--set", "word=crash", status=5)
    assert "web" in failed.err
    alveole.until_answers("tale", "two")
    assert alveole.cli("site", "answers", "tale", "--json").json["answers"]["teller"]["word"] != "crash"
    destroy(alveole, "tale")


def test_what_is_changed_by_hand_is_a_persons_to_settle(alveole: Instance) -> None:
    make(alveole, "hand")
    script = 'open(\'/config/teller/page.json\', \'w\').write(\'{"word": "mine", "address": ""}\')'
    alveole.inside("hand", script, user=0)
    until(lambda: "teller/page.json was changed by hand" in alveole.site("hand")["problem"], 30)
    assert "teller/page.json" in alveole.cli("status").out
    assert "changed by hand" in alveole.cli("why", "hand", status=None).out
    refused = configure(alveole, "hand", "--set", "word=new", status=3)
    assert "teller/page.json" in refused.err
    assert told(alveole, "hand")["word"] == "hello", "it reads its file when it starts"
    configure(alveole, "hand", "--set", "word=new", "--keep", "teller/page.json")
    until(lambda: told(alveole, "hand")["word"] == "mine", 30)
    until(lambda: alveole.site("hand")["problem"] == "", 30)
    configure(alveole, "hand", "--take-back-all")
    until(lambda: told(alveole, "hand")["word"] == "new", 30)
    destroy(alveole, "hand")


def test_it_is_saved_destroyed_and_found_again(alveole: Instance) -> None:
    make(alveole, "kept")
    assert alveole.fetch("kept", method="POST", body=b"do not forget").status == 200
    before = alveole.cli("site", "answers", "kept", "--show-secrets", "--json").json
    backup = alveole.cli("backup", "create", "kept", "--json").json["id"]
    destroy(alveole, "kept")
    alveole.cli("backup", "restore", backup)
    back = told(alveole, "kept")
    assert (back["note"], back["word"], back["installed"]) == ("do not forget", "hello", "once ")
    assert alveole.cli("site", "answers", "kept", "--show-secrets", "--json").json == before
    alveole.cli("backup", "restore", backup, "--as", "twin")
    twin = told(alveole, "twin")
    assert twin["note"] == "do not forget" and twin["secret"] == back["secret"] == "24 kept"
    assert twin["address"] == f"https://twin.localhost:{alveole.https}"
    for name in ("kept", "twin"):
        destroy(alveole, name)


def test_data_that_cannot_be_shared_has_one_instance_at_a_time(alveole: Instance) -> None:
    make(alveole, "single", "lone")
    assert alveole.fetch("single", method="POST", body=b"data").status == 200
    alveole.cli("site", "set", "single", "--env", "LEVEL=1")
    assert alveole.site("single")["application"]["update"] == "stop-start"
    state = [file.parent.name for file in alveole.run_dir.glob("sites/s*.*/state.json")]
    assert [each for each in state if each.endswith(".1")] == []
    alveole.until_answers("single", "data")
    backup = alveole.cli("backup", "create", "single", "--json").json["id"]
    alveole.fetch("single", method="POST", body=b"newer")
    alveole.cli("backup", "restore", backup)
    alveole.until_answers("single", '"note": "data"')
    destroy(alveole, "single")
