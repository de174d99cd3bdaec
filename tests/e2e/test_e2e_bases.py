"""One patch, all sites: bases are upgraded, site by site, behind a trial of each; and damage is found.

The packages come from a repository of the test's own, so that an update is there when the test wants one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aptrepo import Repository
from instance import Instance
from instancekit import until
from loadkit import Load

pytestmark = pytest.mark.slow
#: nginx of the common base with a configuration of the package: a shop, with a file of its data behind.
SHOP = """daemon off;
pid /tmp/pid;
error_log stderr;
events {}
http {
  access_log off;
  client_body_temp_path /tmp/1; proxy_temp_path /tmp/2; fastcgi_temp_path /tmp/3; uwsgi_temp_path /tmp/4;
  scgi_temp_path /tmp/5;
  server { listen 8000; location / { %s } location /data/ { root /; } }
}
"""
RUN = "#!/bin/sh\nexec /usr/sbin/nginx -c /usr/share/shop-test/nginx.conf -e stderr\n"
NAMES = ("one", "two")
#: The same shop as a module: it notes what it was upgraded to, and has a check that a file makes fail.
MODULE = """name = "notes-shop"
version = "1.0"
icon = "shop"
category = "web"
least_plan = "medium"
title = { en = "Shop", fr = "Boutique" }
description = { en = "A shop of the tests.", fr = "Une boutique des tests." }

[packages]
mandatory = ["shop-test"]

[web]
port = 8000

[[question]]
name = "title"
type = "string"
default = "Shop"
title = { en = "Title", fr = "Titre" }

[[volume]]
name = "data"
path = "/data"

[[file]]
path = "notes-shop/title"
template = "title"
restarts = ["helper"]

[[process]]
name = "notes-shop"
argv = ["/usr/bin/shop-test"]
order = 90

[[process]]
name = "helper"
argv = ["/bin/sleep", "infinity"]

[[task]]
name = "notes-shop-upgrade"
when = "upgrade"
argv = ["/bin/sh", "-ec", "grep -o 'shop [0-9]*' /usr/share/shop-test/nginx.conf >>/data/upgrades"]

[[check]]
name = "till"
argv = ["/bin/sh", "-c", "test ! -e /data/closed || { echo the till is closed; exit 4; }"]
"""


def shop(repository: Repository, version: str, answer: str, run: str = RUN) -> None:
    files = {"/usr/bin/shop-test": run, "/usr/share/shop-test/nginx.conf": SHOP % answer}
    repository.add("shop-test", version, files)


@pytest.fixture(scope="module")
def repository() -> Iterator[Repository]:
    path = Path(tempfile.mkdtemp(prefix="altrepo", dir="/var/tmp"))
    path.chmod(0o755)
    yield Repository(path / "r")
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def machine(repository: Repository) -> Iterator[Instance]:
    folder = repository.path / "modules" / "notes-shop"
    (folder / "templates").mkdir(parents=True)
    (folder / "templates/title").write_text("{{ a.title|plain }}\n")
    (folder / "module.toml").write_text(MODULE)
    more = f'\n[bases]\nsources = ["{repository.source}"]\n[modules]\ndirectory = "{folder.parent}"\n'
    with Instance(split=True, more=more) as made:
        shop(repository, "1", 'return 200 "shop 1\\n";')
        for name in NAMES:
            made.create(
                name,
                base="debian",
                packages=["shop-test"],
                command=["/usr/bin/shop-test"],
                port=8000,
                volumes=[{"name": "data", "path": "/data"}],
                plan="medium",
            )
        kept = made.api("GET", f"/v1/bases/{made.site('one')['base_key']}")
        made.keep_base(kept["lower"])
        yield made


def write(machine: Instance, name: str, text: str) -> None:
    machine.cli("site", "exec", name, "--", "/bin/sh", "-c", f"echo {text} > /data/word")


def bodies(machine: Instance) -> list[str]:
    return [machine.fetch(name).body for name in NAMES]


def upgrade(machine: Instance, key: str) -> Any:
    return machine.api("POST", "/v1/bases/upgrade", {"bases": [key]})


def sound(machine: Instance, key: str) -> bool:
    found = machine.api("GET", f"/v1/bases/{key}")
    return bool(found["ready"] and not found["damage"] and found["bytes"])


def traces(machine: Instance) -> Any:
    sites = {each["id"] for each in machine.api("GET", "/v1/sites")}
    return {path.name.split(".")[0] for path in (machine.state / "sites").iterdir()} - sites


def settled(machine: Instance) -> None:
    until(lambda: not traces(machine), 30, lambda: f"copies stay: {traces(machine)}")
    assert not list((machine.run_dir / "clones").glob("*"))


def test_updates_reach_every_site_under_load(machine: Instance, repository: Repository) -> None:
    for name in NAMES:
        write(machine, name, f"words of {name}")
    key = machine.site("one")["base_key"]
    nothing = json.loads(machine.cli("base", "upgrade", key, "--dry-run", "--json").out)
    assert nothing[0]["changes"] == [] and bodies(machine) == ["shop 1\n"] * 2
    shop(repository, "2", 'return 200 "shop 2\\n";')
    told = machine.cli("base", "upgrade", "--all", "--dry-run").out
    assert "shop-test 1 → 2" in told and "sites: one, two" in told
    with Load(machine, *NAMES, threads=4) as load:
        done = machine.cli("base", "upgrade", key, "--yes", "--json")
    load.check()
    assert json.loads(done.out)["result"]["sites"] == 2
    assert bodies(machine) == ["shop 2\n"] * 2
    assert machine.fetch("two", "/data/word").body == "words of two\n"
    new = machine.site("one")["base_key"]
    assert new != key and machine.site("two")["base_key"] == new
    listed = {base["key"]: base for base in json.loads(machine.cli("base", "list", "--json").out)}
    assert listed[new]["updates"] == 0 and listed[new]["sites"] == 2 and listed[key]["sites"] == 0
    assert listed[new]["lower"] == listed[key]["lower"] and listed[new]["bytes"] < 40 << 20
    assert "shop-test" in machine.cli("base", "show", new).out
    settled(machine)


def test_what_breaks_a_site_stays_away_from_it(machine: Instance, repository: Repository) -> None:
    """The copy fails, and so nothing that serves is touched."""
    key = machine.site("one")["base_key"]
    shop(repository, "3", 'return 200 "shop 3\\n";', "#!/bin/sh\necho out of order >&2\nexit 3\n")
    with Load(machine, *NAMES, threads=3) as load:
        ended = machine.ended(upgrade(machine, key)["id"], seconds=300)
    load.check()
    assert ended["state"] == "failed", ended
    assert "site one does not work on the new base" in ended["problems"][0]["message"], ended["problems"]
    assert "out of order" in str(ended["problems"])
    # It runs, and answers otherwise than before.
    shop(repository, "4", "return 404;")
    ended = machine.ended(upgrade(machine, key)["id"], seconds=300)
    assert "answers status 404, before status 200" in str(ended["problems"]), ended
    assert bodies(machine) == ["shop 2\n"] * 2 and {machine.site(name)["base_key"] for name in NAMES} == {key}
    settled(machine)


@pytest.mark.parametrize(
    ("role", "failpoint"),
    [
        pytest.param("control", "services.clone-runs", marks=pytest.mark.turn),
        # Always: those that follow go on from the version that it brings.
        ("control", "services.site-switching"),
        pytest.param("agent", "workload-running", marks=pytest.mark.turn),
    ],
)
def test_an_upgrade_is_cut_and_taken_up(machine: Instance, repository: Repository, role: str, failpoint: str) -> None:
    """Faults 4 and 5: kill -9 in the middle; what is left of a copy goes, and the change ends as if nothing was."""
    number = {"services.clone-runs": 6, "services.site-switching": 7, "workload-running": 8}
    version = str(number[failpoint])
    key = machine.site("one")["base_key"]
    shop(repository, version, f'return 200 "shop {version}\\n";')
    machine.kill_role(role)
    machine.start(**{role: failpoint})
    with Load(machine, *NAMES, threads=2) as load:
        change = upgrade(machine, key)
        until(lambda: not machine.is_up(role), 120, "it does not die")
        machine.start(ready=False)
        ended = machine.ended(change["id"], seconds=300)
    load.check()
    assert ended["state"] == "done", ended["problems"]
    assert bodies(machine) == [f"shop {version}\n"] * 2
    assert machine.fetch("one", "/data/word").body == "words of one\n"
    settled(machine)


def test_an_operator_takes_sites_back(machine: Instance) -> None:
    """Both answer as before the last upgrade, no request fails on the way, and what they wrote is there."""
    new, key = machine.site("one")["base_key"], machine.site("one")["earlier_base"]
    told = machine.cli("base", "rollback", "one", "--base", new, "--dry-run").out
    # Which versions depends on which of the upgrades above had their turn.
    versions = re.search(r"shop-test (\d+) → (\d+)", told)
    assert versions is not None and f"two: {new} → {key}" in told, told
    after, before = versions[1], versions[2]
    assert int(before) < int(after)
    with Load(machine, *NAMES, threads=2) as load:
        done = machine.cli("base", "rollback", "--base", new, "--yes", "--json")
    load.check()
    assert json.loads(done.out)["result"]["sites"] == 2
    assert bodies(machine) == [f"shop {before}\n"] * 2 and machine.site("two")["base_key"] == key
    assert machine.fetch("one", "/data/word").body == "words of one\n"
    assert "rollback-base" in machine.cli("journal").out
    # What was taken back is taken up again.
    done = machine.cli("base", "upgrade", key, "--yes", "--json")
    assert json.loads(done.out)["result"]["sites"] == 2 and bodies(machine) == [f"shop {after}\n"] * 2
    assert machine.site("one")["base_key"] == new and machine.site("one")["earlier_base"] == key


def test_data_of_modules_follows_the_base(machine: Instance, repository: Repository) -> None:
    """Forward on a copy first, then on the site; back again too; and what its check says is told."""
    machine.cli("site", "create", "mod", "--module", "notes-shop", "--defaults")
    key = machine.site("mod")["base_key"]
    assert key == machine.site("one")["base_key"], "the same packages are the same base"
    assert machine.fetch("mod", "/data/upgrades").status == 404, "new data is of today's programs"
    earlier = machine.fetch("mod").body
    shop(repository, "9", 'return 200 "shop 9\\n";')
    machine.cli("base", "upgrade", key, "--yes")
    assert machine.fetch("mod").body == "shop 9\n" and machine.fetch("mod", "/data/upgrades").body == "shop 9\n"
    machine.verb("mod", "restart")
    assert machine.fetch("mod", "/data/upgrades").body == "shop 9\n", "once for a base"
    machine.cli("base", "rollback", "mod", "--yes")
    assert machine.fetch("mod").body == earlier
    assert machine.fetch("mod", "/data/upgrades").body == f"shop 9\n{earlier}"

    states = {each["name"]: each for each in machine.site("mod")["process_states"]}
    assert list(states) == ["helper", "notes-shop"]
    assert {(each["state"], each["restarts"]) for each in states.values()} == {("up", 0)}
    machine.cli("site", "exec", "mod", "--no-tty", "--user", "1000", "--", "/bin/sh", "-c", "kill -9 $(pidof sleep)")
    until(lambda: machine.site("mod")["process_states"][0]["restarts"] == 1, 30, "its end is not counted")
    assert machine.site("mod")["process_states"][0]["exit_signal"] == 9
    # It pauses before it starts anew.
    until(lambda: "helper (up" in machine.cli("site", "show", "mod").out, 20, "it does not come back")

    links = {link["name"]: link for link in machine.api("GET", "/v1/sites/mod/why")["links"]}
    assert links["check till"]["ok"], links
    machine.cli("site", "exec", "mod", "--", "/usr/bin/touch", "/data/closed")
    why = machine.cli("why", "mod", status=3)
    assert "status 4: the till is closed" in why.out
    done = machine.cli("site", "configure", "mod", "--set", "title=Closed", "--yes")
    assert "check till fails" in done.out + done.err
    machine.destroy("mod")


def test_bases_that_nobody_uses_go(machine: Instance) -> None:
    used = machine.site("one")["base_key"]
    earlier = machine.site("one")["earlier_base"]
    spared = json.loads(machine.cli("base", "prune", "--dry-run", "--json").out)
    assert earlier not in {base["key"] for base in spared}
    listed = json.loads(machine.cli("base", "prune", "--earlier", "--dry-run", "--json").out)
    assert earlier in {base["key"] for base in listed}
    kept = machine.api("GET", f"/v1/bases/{used}")
    assert len(listed) >= 3 and not {used, kept["lower"]} & {base["key"] for base in listed}
    machine.cli("base", "prune", "--earlier", "--yes")
    left = {path.name for path in (machine.state / "bases").iterdir() if path.name.startswith("debian-")}
    assert left == {used, kept["lower"]}


def test_a_flipped_bit_is_found_told_and_mended(machine: Instance) -> None:
    """Fault 14 (a layer's file): verify names it, a site that runs is told, nothing new starts from it."""
    key = machine.site("one")["base_key"]
    file = machine.state / "bases" / key / "root/usr/share/shop-test/nginx.conf"
    info = file.stat()
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    with file.open("r+b") as opened:
        opened.write(data)
    os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))
    change = machine.api("POST", "/v1/bases/verify", {"bases": [key]})
    ended = machine.ended(change["id"])
    assert ended["state"] == "failed" and "shop-test/nginx.conf" in ended["problems"][0]["message"]
    with Load(machine, *NAMES, threads=2) as load:
        until(lambda: sound(machine, key), 180, "it is not made anew")
        links = {link["name"]: link for link in machine.api("GET", "/v1/sites/one/why")["links"]}
        assert not links["base"]["ok"] and "found damaged" in links["base"]["came"], links
    load.check()
    machine.until_repaired("nginx.conf")
    for name in NAMES:
        machine.verb(name, "restart")
    assert "base" not in {link["name"] for link in machine.api("GET", "/v1/sites/one/why")["links"]}
    machine.cli("base", "verify", key)
