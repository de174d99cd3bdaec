"""Who comes in, and to what."""

from __future__ import annotations

import time
from pathlib import Path

from e2ekit import Sites
from sshkit import PASSWORD, Client

from instance import Instance
from instancekit import page, run, until

#: 5 is what sshpass gives when a password was asked for again.
DENIED = (5, 255)


def test_keys_and_passwords(alveole: Instance, client: Client, sites: Sites) -> None:
    name = sites.create(page("first"), owner="ana")
    assert client.ssh(name, "true").returncode == 0
    assert client.ssh(f"ana+{name}", "true").returncode == 0
    for method in ("keyboard-interactive", "password"):
        assert client.by_password(name, PASSWORD, "true", method=method).returncode == 0, alveole.tail()
        assert client.by_password(f"ana+{name}", PASSWORD, "true", method=method).returncode == 0
        assert client.by_password(f"ana+{name}", "wrong wrong wrong", "true", method=method).returncode in DENIED
    # Ana's key is not Ben's, whatever the login says.
    assert client.ssh(f"ben+{name}", "true").returncode == 255


def test_rights_by_role(alveole: Instance, client: Client, sites: Sites) -> None:
    """Threat 24: somebody else's object seems absent."""
    name = sites.create(page("first"), owner="ana")
    assert client.sftp(name, "ls\n", key="olga").returncode == 0
    for person in ("ben", "rea"):
        done = client.sftp(name, "ls\n", key=person)
        assert done.returncode != 0, (person, done)
        assert client.ssh(name, "true", key=person).returncode == 1
    foreign, absent = client.ssh(name, "true", key="ben"), client.ssh("nosuchsite", "true", key="ben")
    assert foreign.stderr.replace(name, "X") == absent.stderr.replace("nosuchsite", "X")
    assert "there is no site" in absent.stderr
    alveole.api("PUT", f"/v1/sites/{name}/sharing", {"whom": "ben", "level": "change"})
    assert client.sftp(name, "ls\n", key="ben").returncode == 0


def test_wrong_passwords_have_to_wait(alveole: Instance, client: Client, sites: Sites) -> None:
    """Threat 25: limits per account and address; a name that is nobody's behaves as one that is."""
    client.person("cleo", "owner")
    name = sites.create(page("first"), owner="cleo")
    for login in (f"cleo+{name}", f"nobodyelse+{name}", "nosuchsite"):
        assert client.by_password(login, "wrong wrong wrong", "true", method="password").returncode in DENIED
    for _ in range(8):
        client.by_password(f"cleo+{name}", "wrong wrong wrong", "true", method="password")
    # The right one too has to wait now; a key does not.
    assert client.by_password(f"cleo+{name}", PASSWORD, "true", method="password").returncode in DENIED
    assert client.ssh(name, "true", key="cleo").returncode == 0


def test_a_second_factor_is_asked_for(alveole: Instance, client: Client, sites: Sites, tmp_path: Path) -> None:
    import pyotp

    client.person("dora", "owner")
    name = sites.create(page("first"), owner="dora")
    alveole.api("PUT", "/v1/second-factor", {"roles": ["owner"]})
    try:
        # Required, and not there: nothing but a key comes in.
        assert client.by_password(name, PASSWORD, "true").returncode in DENIED
        assert client.ssh(name, "true", key="dora").returncode == 0
    finally:
        alveole.api("PUT", "/v1/second-factor", {"roles": []})
    secret = pyotp.random_base32()
    _give_totp(alveole, "dora", secret)
    assert client.by_password(name, PASSWORD, "true", method="password").returncode in DENIED
    answer = tmp_path / "answer"
    answer.write_text(
        f"#!/bin/sh\ncase \"$1\" in *factor*) echo {pyotp.TOTP(secret).now()};; *) echo '{PASSWORD}';; esac\n"
    )
    answer.chmod(0o755)
    env = {"PATH": "/usr/bin:/bin", "SSH_ASKPASS": str(answer), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}
    done = client.ssh(name, "echo in", key=None, env=env)
    assert done.stdout == "in\n", (done, alveole.tail())


def _give_totp(alveole: Instance, person: str, secret: str) -> None:
    """Straight into the database: the pages do it with a browser's session."""
    import sqlite3

    id = next(each["id"] for each in alveole.api("GET", "/v1/accounts") if each["name"] == person)
    with sqlite3.connect(alveole.state / "control" / "alveole.db", timeout=10) as database:
        database.execute(
            "INSERT INTO factors (id, person_id, kind, name, secret, counter, created_at) VALUES (?,?,?,?,?,?,?)",
            ("fdoortest", id, "totp", "test", secret, -1, time.time()),
        )


def test_keys_that_are_too_weak_or_no_keys(alveole: Instance, client: Client, tmp_path: Path) -> None:
    for kind, more in (("rsa", ("-b", "1024")), ("rsa", ("-b", "2048")), ("ecdsa", ()), ("dsa", ())):
        file = tmp_path / f"{kind}{'-'.join(more)}"
        made = run("ssh-keygen", "-q", "-t", kind, *more, "-N", "", "-f", file, check=False)
        if made.returncode != 0:
            continue
        weak = kind == "dsa" or "1024" in more
        done = alveole.cli("account", "key", "add", "ben", f"{file}.pub", status=2 if weak else 0)
        assert ("SHA256:" in done.out) is not weak
    assert "private key" in alveole.cli("account", "key", "add", "ben", str(client.place / "ana"), status=2).err
    assert "in use" in alveole.cli("account", "key", "add", "ben", str(client.place / "ana.pub"), status=3).err
    listed = alveole.cli("account", "key", "list", "ben", "--json").json
    shown = run("ssh-keygen", "-l", "-f", client.place / "ben.pub").stdout.split()[1]
    assert shown in {each["fingerprint"] for each in listed}
    for each in listed:
        if each["fingerprint"] != shown:
            alveole.cli("account", "key", "remove", "ben", each["id"])


def test_who_is_shut_out_is_out(alveole: Instance, client: Client, sites: Sites) -> None:
    import subprocess

    client.person("eve", "owner")
    name = sites.create(page("first"), owner="eve")
    argv = ["ssh", *client.options("eve"), "-p", str(alveole.ssh_port), f"{name}@127.0.0.1", "sleep", "100"]
    open_ = subprocess.Popen(argv, stdin=subprocess.PIPE)
    try:
        until(lambda: bool(client.journal(name)), 30)
        alveole.api("PATCH", "/v1/accounts/eve", {"active": False})
        assert open_.wait(20) != 0
        assert client.ssh(name, "true", key="eve").returncode == 255
    finally:
        open_.kill()
        open_.wait()
    assert client.told(name)[0]["state"] == "failed"
