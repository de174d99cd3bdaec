"""``alveole node add user@host``: the whole installer, by SSH on a machine of its own, as a user who is not root."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleetkit import Pair
from machinekit import Machine

from instancekit import ROOT, clean_environment, directory, until

ANYTHING = "ALL"
LANDING = "/usr/local/bin/alveole --config /etc/alveole/alveole.toml node landing"


@pytest.fixture(scope="module")
def machine(pair: Pair) -> Iterator[Machine]:
    with Machine() as made:
        try:
            yield made
        finally:
            # Where a test failed in between: nothing of the others' machine may hang on this one.
            if any(each["name"] == "third" for each in pair.main.api("GET", "/v1/nodes")):
                pair.main.cli("node", "remove", "third", "--lost", status=None)
                pair.main.cli("site", "destroy", "blog", "--yes", status=None)


def words(machine: Machine, user: str = "ops") -> tuple[str, ...]:
    where = ("node", "add", f"{user}@{machine.address}", "--name", "third", "--fingerprint", machine.fingerprint)
    return (*where, "--from", str(ROOT))


def refused(pair: Pair, machine: Machine, status: int, user: str = "ops") -> Any:
    """The one problem that adding it ends with."""
    (problem,) = pair.main.cli(*words(machine, user), "--json", status=status).json["problems"]
    return problem


@contextlib.contextmanager
def moved(machine: Machine, name: str) -> Iterator[None]:
    """A file of it is somewhere else meanwhile."""
    machine.run("mv", name, f"{name}.away")
    try:
        yield
    finally:
        machine.run("mv", f"{name}.away", name)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_is_in_the_way_is_named(pair: Pair, machine: Machine) -> None:
    """Each before anything is made there, with what to do about it."""
    main = pair.main
    line = main.cli("node", "key", "--json").json["ssh_key"]
    closed = main.cli("node", "add", f"ops@{machine.address}:23", "--no-install", "--json", status=5)
    assert "refuses connections" in closed.json["problems"][0]["message"]
    unknown = main.cli("node", "add", "ops@nowhere.invalid", "--no-install", "--json", status=5)
    assert "nowhere.invalid" in unknown.json["problems"][0]["message"]
    long = f"{'a' * 64}.invalid"
    no_name = main.cli("node", "add", f"ops@{long}", "--no-install", "--json", status=5)
    assert long in no_name.json["problems"][0]["message"], "of a form that no name of the DNS has"

    assert "~ops/.ssh/authorized_keys" in refused(pair, machine, 3)["hint"]
    machine.let_in("ops", line)
    no_right = refused(pair, machine, 3)
    assert no_right["field"] == "user" and "ops ALL=(root) NOPASSWD: ALL" in no_right["hint"]
    with moved(machine, "/usr/bin/sudo"):
        assert "has no sudo" in refused(pair, machine, 3)["message"]
    machine.may(ANYTHING)

    about = machine.path("/usr/lib/os-release").read_text()
    with moved(machine, "/usr/lib/os-release"):
        machine.write("/usr/lib/os-release", about.replace('"12"', '"11"').replace("12 (bookworm)", "11 (bullseye)"))
        assert "runs Debian GNU/Linux 11" in refused(pair, machine, 3)["message"]
    with moved(machine, "/usr/bin/date"):
        machine.write("/usr/bin/date", "#!/bin/sh\nexec /usr/bin/date.away -d '2 hours ago' \"$@\"\n", 0o755)
        late = refused(pair, machine, 3)
    assert "behind this machine's" in late["message"] and "timedatectl" in late["hint"]
    machine.run("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/opt")
    try:
        assert "is full" in refused(pair, machine, 3)["message"]
    finally:
        # What wrote there may still be ending.
        until(lambda: machine.run("umount", "/opt", check=False).returncode == 0, 60)
    with machine.running("/usr/bin/python3", "-m", "http.server", "80"):
        until(lambda: machine.run("curl", "-s", "http://127.0.0.1/", check=False).returncode == 0, 60)
        held = refused(pair, machine, 3)
    assert "port 80 is held by python3" in held["message"] and "quickstart" in held["message"]
    assert [each["name"] for each in main.api("GET", "/v1/nodes")] == ["here"]


@pytest.mark.turn
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_machine_joins_works_and_leaves(pair: Pair, machine: Machine, tmp_path: Path) -> None:
    main = pair.main
    machine.may(ANYTHING)
    machine.let_in("ops", main.cli("node", "key", "--json").json["ssh_key"])
    # What an earlier refusal has brought there.
    machine.run("rm", "-rf", "/opt/alveole-source", "/opt/alveole-source.new")
    # What an earlier refusal has begun there may still be ending.
    until(lambda: not machine.pids("python3"), 60, lambda: machine.run("ps", "-efww").stdout)
    before = machine.picture()

    # Cut in the middle of it, then once more: it waits for what still goes on there, and ends well.
    first = subprocess.Popen(
        [sys.executable, "-m", "alveole", "--config", str(main.config), *words(machine)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=clean_environment(),
    )
    try:
        until(lambda: bool(machine.pids("apt-get")), 120, lambda: f"no apt-get yet: {main.tail()}")
        machine.cut()
        said = first.communicate(timeout=120)[0]
    finally:
        if first.poll() is None:
            first.kill()
            first.communicate()
    assert first.returncode == 5, said
    done = main.cli(*words(machine), seconds=600)
    for told in ("• Debian packages", "• Alvéole", "Alvéole runs", "third is driven from here"):
        assert told in done.err + done.out, done
    check_journal(main)

    assert main.cli("node", "check", "third", "--json").json["where"] == f"ops@{machine.address}:22"
    content = directory(tmp_path / "blog", {"index.html": "from afar"})
    main.cli("site", "create", "blog", "--from", str(content), "--node", "third")
    main.until_answers("blog", "from afar")
    assert main.fetch("blog", https=True).body == "from afar"

    # The one line that suffices from now on; the way there is made anew with it.
    machine.may(LANDING)
    machine.cut()
    until(lambda: main.cli("node", "check", "third", status=None).status == 0, 60)
    main.until_answers("blog", "from afar")
    assert main.cli("site", "exec", "blog", "--", "/bin/echo", "inside").out == "inside\n"
    (api,) = machine.path("/run/alveole/landings").glob("*/api")
    assert (api.stat().st_uid, api.stat().st_mode & 0o777) == (int(machine.run("id", "-u", "ops").stdout), 0o600)
    assert api.parent.stat().st_uid == 0 and api.parent.stat().st_mode & 0o777 == 0o711
    with machine.silent():
        until(lambda: not api.parent.exists(), 180, "what it came through stays when the other end is gone")
    until(lambda: main.cli("node", "check", "third", status=None).status == 0, 60)
    main.until_answers("blog", "from afar")
    up = ("node", "upgrade", "third", "--from", str(ROOT))
    assert "ops ALL=(root) NOPASSWD: ALL" in main.cli(*up, "--json", status=3).json["problems"][0]["hint"]
    machine.may(ANYTHING)
    main.cli(*up, seconds=600)
    main.until_answers("blog", "from afar")

    main.cli("node", "drain", "third")
    assert main.site("blog")["node"] == ""
    main.until_answers("blog", "from afar")
    main.cli("site", "confirm", "blog")
    main.destroy("blog")
    main.cli("node", "remove", "third")
    until(lambda: list(machine.path("/run/alveole/landings").iterdir()) == [], 60, "a landing stays")
    machine.run("/opt/alveole-source/scripts/quickstart", "--undo", "--yes")

    def differences() -> dict[str, set[str]]:
        after = machine.picture()
        both = {name: set(after[name]) ^ set(found) for name, found in before.items()}
        return {name: found for name, found in both.items() if found}

    until(lambda: differences() == {}, 60, lambda: f"{differences()}\n{machine.run('ps', '-efww').stdout}")


def check_journal(main: Any) -> None:
    """It has every line of the installer, and no secret."""
    change = next(each for each in main.journal() if each["verb"] == "install-node" and each["state"] == "done")
    said = json.dumps(main.api("GET", f"/v1/changes/{change['id']}"))
    assert "Debian packages" in said and "token" not in said.lower()
