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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apps import ON_PORT, ask

from instance import Instance
from instancekit import clean_environment, descendants, free_ports, kill, page, run, until

VOLUME = [{"name": "data", "path": "/data"}]
SCENARIO = "steps:\n  - request: GET /\n    expect: {status: 200, text: mine}\n"
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
    machine.cli("backup", "restore-file", saved, "release/app.py", status=2)


# --- elsewhere --------------------------------------------------------------------------------
@contextlib.contextmanager
def sshd(place: Path) -> Iterator[int]:
    """Debian's own, with keys and a configuration of the test."""
    runs = Path("/run/sshd")
    made = not runs.exists()
    if made:
        runs.mkdir(0o755)
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
        if made:
            runs.rmdir()


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
    """Fault 11: killed twice on its way, it ends with everything: people, keys, content and volumes."""
    machine.inside("mine", "open('/data/other','w').write('last night')")
    machine.cli("backup", "create", "mine")
    machine.cli("backup", "create", "page")
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
        for failpoint in ("restore-platform-unpacked", "restore-platform-site"):
            done = restored(other, *words, failpoint=failpoint)
            assert done.returncode == -signal.SIGKILL, done
            held = other.cli("serve", status=3, seconds=60)
            assert "half restored" in held.err
        done = restored(other, *words)
        assert done.returncode == 0, done.stderr + done.stdout
        assert json.loads(done.stdout)["sites"] and not json.loads(done.stdout)["without"]
        again = restored(other, *words)
        assert again.returncode == 3 and "holds a platform" in again.stdout
        other.held = False
        other.start()
        other.until_answers("mine", '"mine"')
        assert other.inside("mine", "print(open('/data/other').read())").strip() == "last night"
        other.until_answers("page", "saved")
        assert other.cli("ca", "show").out == authority
        key_there = other.state / "control/sealing.key"
        assert key_there.read_bytes() == sealing and key_there.stat().st_uid == pwd.getpwnam("alveole").pw_uid
        assert "<feed" in str(other.api("GET", feed)) and not other.api("GET", "/v1/status")["damaged"]
        assert "ana" in {each["name"] for each in other.api("GET", "/v1/accounts")}
        assert other.cli("journal", "verify", "--json").json["ok"]
        listed = other.cli("backup", "list", "mine", "--json").json
        assert {each["repository"] for each in listed} == {"restored"}
        other.cli("backup", "prove", "mine")
