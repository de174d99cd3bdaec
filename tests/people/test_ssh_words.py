"""What a client of the SSH door may ask for, and what is started for it; keys; the working copy."""

from __future__ import annotations

import pytest
from doorkit import Door
from peoplekit import Browser, add

from alveole.agent import protocol
from alveole.errors import InvalidInput
from alveole.people.sshkeys import parse
from alveole.services.visits import GIT_DIRECTORY, wanted
from alveole.ssh.channel import Push, is_push, plain

ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIiyuBLDGW4uhJ3HQYx36mFc0y8hOgOrLaP4UEcrPSGv ana@laptop"


@pytest.mark.parametrize(
    ("command", "kind", "last"),
    [
        ("git-receive-pack '/etc'", "git-receive-pack", GIT_DIRECTORY),
        ("git upload-pack x.git", "git-upload-pack", GIT_DIRECTORY),
        ("git-upload-pack --upload-pack=/bin/sh x", "git-upload-pack", GIT_DIRECTORY),
        ("scp -t .", "scp", "."),
        ("scp -t $(id)", "scp", "$(id)"),
        ("rsync --server -logDtpre.iLsfxCIvu . ./", "rsync", "./"),
        ("rsync x y", "command", "rsync x y"),
        ("ls; id", "command", "ls; id"),
        ("'unclosed", "command", "'unclosed"),
    ],
)
def test_what_a_command_becomes(command: str, kind: str, last: str) -> None:
    """Threat 13: no word of a file transfer or of git meets a shell."""
    found, argv = wanted(command, "")
    assert (found, argv[-1]) == (kind, last)
    assert is_push(command) is (found == "git-receive-pack")
    if found in ("scp", "rsync"):
        assert argv[0] == f"/usr/bin/{found}"


def test_subsystems() -> None:
    assert wanted("ignored", "sftp")[0] == "sftp"
    with pytest.raises(InvalidInput):
        wanted(None, "netconf")
    with pytest.raises(InvalidInput):
        wanted("a\0b", "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
        "ssh-dss AAAAB3NzaC1kc3MAAACBAA== x",
        "ssh-ed25519 !!! x",
        ED25519.replace("ssh-ed25519 ", "ecdsa-sha2-nistp256 "),
        f"{ED25519}\n{ED25519}",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        f'command="id" {ED25519}',
    ],
)
def test_no_keys(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse(text)


def test_a_key_is_known_by_its_fingerprint() -> None:
    found = parse(ED25519)
    assert found.kind == "ssh-ed25519" and found.comment == "ana@laptop"
    assert found.fingerprint.startswith("SHA256:") and len(found.fingerprint) == 50


class Pipe:
    """What :class:`Push` needs of a visitor."""

    def __init__(self) -> None:
        self.tasks: list[object] = []
        self._loop = self

    def create_task(self, coroutine: object) -> None:
        self.tasks.append(coroutine)
        coroutine.close()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 100])
def test_the_end_of_a_push_is_held_back(size: int) -> None:
    """However the bytes are cut, all but the last flush packet goes on."""
    ref = b"a" * 40 + b" refs/heads/main\0x\n"
    refs = b"%04x" % (len(ref) + 4) + ref + b"0000"
    told = b"000e\1unpack ok" + b"0009\2said" + b"0000"
    pipe = Pipe()
    push = Push(pipe, "t")
    out = b""
    for at in range(0, len(refs + told), size):
        out += push.passed((refs + told)[at : at + size])
    assert out == (refs + told)[:-4]
    assert push.busy and len(pipe.tasks) == 1


def test_a_push_of_nothing_goes_by() -> None:
    pipe = Pipe()
    push = Push(pipe, "t")
    assert push.passed(b"0008abcd0000") == b"0008abcd0000"
    assert not push.busy


def test_what_is_told_acts_on_no_terminal() -> None:
    """Threat 31."""
    assert plain("a\x1b[31mb\rc") == "a [31mb c"


def test_keys_belong_to_one_person(door: Door) -> None:
    add(door, "ana")
    add(door, "ben")
    with Browser(door) as ana, Browser(door) as ben:
        ana.sign_in("ana")
        ben.sign_in("ben")
        made = ana.ask("POST", "/v1/keys", json={"key": ED25519})
        assert made.status_code == 201 and made.json()["name"] == "ana@laptop"
        assert ben.ask("POST", "/v1/keys", json={"key": ED25519}).status_code == 409
        assert ben.ask("GET", "/v1/keys").json() == []
        assert ben.ask("GET", "/v1/keys", params={"account": "ana"}).status_code == 404
        assert ben.ask("DELETE", f"/v1/keys/{made.json()['id']}").status_code == 404
        services = door.services
        person = services.person_of_key(made.json()["fingerprint"])
        assert person is not None and person.name == "ana"
        door.http.patch("/v1/accounts/ana", json={"active": False})
        assert services.person_of_key(made.json()["fingerprint"]) is None
        # Who is gone holds no key any more.
        door.http.delete("/v1/accounts/ana")
        assert ben.ask("POST", "/v1/keys", json={"key": ED25519}).status_code == 201


def test_a_working_copy_is_published(door: Door) -> None:
    add(door, "ana")
    door.site("blog", owner="ana")
    site = door.services.store.site("blog")
    assert site is not None
    with Browser(door) as ana:
        ana.sign_in("ana")
        shown = ana.ask("GET", "/v1/sites/blog/work").json()
        assert not shown["there"] and "ana+blog@" in shown["address"]
        door.agent.work[site.site.id] = protocol.WorkState(True, None, None, 0, protocol.Changes(1, 5, ("x",)))
        change = ana.ask("POST", "/v1/sites/blog/work/publish", json={"live": False}).json()
        ended = door.services.journal.wait(change["id"], 10)
        assert ended is not None and ended.state == "done", ended
        kept = [each.digest for each in door.services.store.releases(site.site.id)]
        now = door.services.store.site("blog")
        assert ended.result["release"] in kept and now is not None and now.site.release != ended.result["release"]
