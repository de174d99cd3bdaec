"""``git push`` makes a release, builds it, tells of it, and makes it live or leaves it waiting."""

from __future__ import annotations

import shutil
from pathlib import Path

from e2ekit import Sites
from sshkit import Client, run_text

from instance import GUNICORN, Instance
from instancekit import ROOT, archive, page, until


def repository(client: Client, place: Path, files: dict[str, str]) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    if not (place / ".git").exists():
        client.git(place, "init", "-q", "-b", "main")
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    client.git(place, "add", "-A")
    client.git(place, "commit", "-q", "-m", "change")
    return place


def test_push_goes_live_and_tells_so(alveole: Instance, client: Client, sites: Sites, tmp_path: Path) -> None:
    name = sites.create(page("first"), owner="ana")
    # One directory at the top: it must not be taken for the wrapping of an archive.
    place = repository(client, tmp_path / "r", {"public/index.html": "pushed"})
    client.git(place, "remote", "add", "site", f"{name}@127.0.0.1:{name}.git")
    done = client.git(place, "push", "site", "main")
    assert "remote: Deploying main" in done.stderr and f"{name} is deployed: https://{name}." in done.stderr
    alveole.until_answers(name, "pushed", path="/public/index.html")
    repository(client, place, {"index.html": "again"})
    client.git(place, "push", "site", "main")
    alveole.until_answers(name, "again")
    assert "where it was" in client.git(place, "push", "site", "main:refs/heads/aside").stderr
    told = client.told(name, 3)
    assert {each["reason"] for each in told} == {"git-receive-pack from 127.0.0.1"}
    assert client.journal(name, "update")[0]["actor"] == "ana"
    clone = tmp_path / "clone"
    client.git(tmp_path, "clone", "-q", f"{name}@127.0.0.1:x", str(clone))
    assert (clone / "index.html").read_text() == "again"
    assert "alveole" not in client.git(clone, "ls-remote").stdout
    assert alveole.site(name)["releases"][0]["note"].startswith("git ")


def test_push_waits_where_the_site_says_so(alveole: Instance, client: Client, sites: Sites, tmp_path: Path) -> None:
    name = sites.create(page("first"), owner="ana")
    alveole.cli("site", "set", name, "--on-push", "wait")
    place = repository(client, tmp_path / "r", {"index.html": "pushed"})
    done = client.git(place, "push", f"{name}@127.0.0.1:", "main")
    assert "a release that waits" in done.stderr
    assert alveole.answers(name, "first")
    waiting = [
        each["digest"] for each in alveole.site(name)["releases"] if each["digest"] != alveole.site(name)["release"]
    ]
    alveole.cli("site", "update", name, "--release", waiting[0])
    alveole.until_answers(name, "pushed")


def test_a_push_that_cannot_be_deployed_fails_and_says_why(
    alveole: Instance, client: Client, sites: Sites, tmp_path: Path
) -> None:
    name = sites.create(page("first"), owner="ana")
    place = repository(client, tmp_path / "r", {"index.html": "x"})
    (place / "out").symlink_to("/etc/passwd")
    client.git(place, "add", "-A")
    client.git(place, "commit", "-q", "-m", "a link out")
    done = client.git(place, "push", f"{name}@127.0.0.1:", "main", check=False)
    assert done.returncode != 0 and "remote: NOT deployed" in done.stderr and "out" in done.stderr, done
    assert alveole.answers(name, "first")
    # The fixed one is deployed: nothing stays stuck.
    (place / "out").unlink()
    repository(client, place, {"index.html": "mended"})
    client.git(place, "push", f"{name}@127.0.0.1:", "main")
    alveole.until_answers(name, "mended")


def test_no_hook_of_a_site_runs_on_the_machine(alveole: Instance, client: Client, sites: Sites, tmp_path: Path) -> None:
    """Threat 14: git hook, config or submodule run as root → canary absent."""
    name = sites.create(page("first"), owner="ana")
    place = repository(client, tmp_path / "r", {"index.html": "one", ".gitattributes": "* filter=evil\n"})
    client.git(place, "push", f"{name}@127.0.0.1:", "main")
    canary = alveole.root / "canary"
    alveole.verb(name, "stop")
    hook = f"#!/bin/sh\\ntouch {canary} /site/git/ran\\n"
    script = (
        f"mkdir -p /site/git/hooks; for h in pre-receive update post-receive post-update reference-transaction; do "
        f"printf '{hook}' > /site/git/hooks/$h; chmod 755 /site/git/hooks/$h; done; "
        f"cd /site/git && git config core.fsmonitor 'touch {canary}' && git config core.sshCommand 'touch {canary}' "
        f"&& git config uploadpack.packObjectsHook 'touch {canary}' "
        # It lives on and keeps what errors go to: whoever reads them does not wait for it.
        f"&& git config filter.evil.smudge 'sleep 300 >/dev/null & cat'"
    )
    done = client.ssh(name, script)
    assert done.returncode == 0, (done, alveole.tail())
    repository(client, place, {"index.html": "two"})
    assert "is deployed" in client.git(place, "push", f"{name}@127.0.0.1:", "main").stderr
    assert not canary.exists()
    assert client.ssh(name, "test -e /site/git/ran").returncode == 1


def test_the_gunicorn_example_is_pushed_and_runs(
    alveole: Instance, client: Client, sites: Sites, tmp_path: Path
) -> None:
    name = sites.name()
    first = "def app(environ, start):\n    start('200 OK', [])\n    return [b'first']\n"
    command = ["/usr/bin/gunicorn", "--bind", "0.0.0.0:8000", "wsgi:app"]
    how = {"base": "debian", "packages": [GUNICORN], "command": command, "port": 8000, "owner": "ana"}
    alveole.create(name, archive({"wsgi.py": first}), **how)
    alveole.until_answers(name, "first")
    place = tmp_path / "r"
    shutil.copytree(ROOT / "examples" / "hello-gunicorn", place)
    repository(client, place, {})
    done = client.git(place, "push", f"{name}@127.0.0.1:", "main")
    assert "is deployed" in done.stderr
    alveole.until_answers(name, "Hello")
    # A push that does not start is taken back, and the pusher is told.
    repository(client, place, {"wsgi.py": "no python\n"})
    done = client.git(place, "push", f"{name}@127.0.0.1:", "main", check=False)
    assert done.returncode != 0 and "NOT deployed" in done.stderr
    assert alveole.answers(name, "Hello")


def test_archives_in_the_incoming_folder_are_versions(alveole: Instance, client: Client, tmp_path: Path) -> None:
    """S1: by SFTP and scp, called like their files; what is no archive stays, strangers and shells do not come in."""
    made = {"name": "store", "owner": "ana", "environments": ["alpha"]}
    alveole.ended(alveole.api("POST", "/v1/apps", made)["id"], good=True)
    (tmp_path / "store-2.6.tar.gz").write_bytes(archive({"index.html": "by sftp"}))
    (tmp_path / "2.7.tar.gz").write_bytes(archive({"index.html": "by scp"}))
    (tmp_path / "broken-9.zip").write_bytes(b"no archive")
    (tmp_path / "notes.txt").write_text("stay")
    for name in ("store-2.6.tar.gz", "notes.txt"):
        client.sftp("store.incoming", f"put {tmp_path / name}")
    files = [str(tmp_path / "2.7.tar.gz"), str(tmp_path / "broken-9.zip")]
    scp = ["scp", "-q", *client.options("ana"), "-P", str(alveole.ssh_port), *files, "ana+store.incoming@127.0.0.1:"]
    assert run_text(scp).returncode == 0, alveole.tail()

    def named() -> set[str]:
        found = alveole.api("GET", "/v1/apps/store/versions")
        return {f"{each['name']} {each['sender']} {each['state']}" for each in found}

    until(lambda: named() == {"2.6 ana waiting", "2.7 ana waiting"}, 60, alveole.tail)
    until(
        lambda: (
            [each["reason"] for each in client.journal("store", "send-version") if each["state"] == "failed"]
            == ["broken-9"]
        ),
        60,
        alveole.tail,
    )
    until(lambda: client.sftp("store.incoming", "ls -1").stdout.split() == ["sftp>", "ls", "-1", "notes.txt"], 60)
    assert client.ssh("store.incoming", "id").returncode != 0
    assert client.ssh("store.incoming", "git-upload-pack x").returncode != 0
    assert client.ssh("store.incoming", "true", key="ben").returncode != 0
    # A tag is a version too, by itself and for who may send versions; a branch is none.
    place = repository(client, tmp_path / "r", {"index.html": "by a tag"})
    there = "ana+store.incoming@127.0.0.1:x"
    assert "push a tag of store" in client.git(place, "push", there, "main").stderr
    client.git(place, "tag", "-a", "-m", "the eighth", "v2.8")
    done = client.git(place, "push", there, "v2.8")
    assert "store has version v2.8" in done.stderr, done
    found = alveole.api("GET", "/v1/apps/store/versions/v2.8")
    assert (found["sender"], found["state"], found["files"]) == ("ana", "waiting", 1)
    refused = client.git(place, "push", "ben+store.incoming@127.0.0.1:x", "v2.8", check=False)
    assert refused.returncode != 0
    # What cannot be sent stays; each session that leaves finds it again, and the journal has it once.
    client.sftp("store.incoming", f"put -p {tmp_path / '2.7.tar.gz'}")
    (tmp_path / "2.9.tar.gz").write_bytes(archive({"index.html": "later"}))
    client.sftp("store.incoming", f"put {tmp_path / '2.9.tar.gz'}")
    until(lambda: "2.9 ana waiting" in named(), 60, alveole.tail)

    def failed() -> int:
        found = client.journal("store", "send-version")
        return [each["reason"] for each in found if each["state"] == "failed"].count("2.7.tar.gz")

    assert failed() == 1
    # Sent once more it is told once more, though the sender says that it was written when it was before.
    client.sftp("store.incoming", f"put -p {tmp_path / '2.7.tar.gz'}")
    until(lambda: failed() == 2, 60, alveole.tail)
    alveole.cli("app", "destroy", "store", "--yes")
    alveole.destroy("store-alpha")


def test_a_push_to_an_environment_is_a_version_that_waits(alveole: Instance, client: Client, tmp_path: Path) -> None:
    """S1: named by the tag that came with it; live only by deliver and deploy."""
    made = {"name": "shop", "owner": "ana", "environments": ["alpha"]}
    alveole.ended(alveole.api("POST", "/v1/apps", made)["id"], good=True)
    place = repository(client, tmp_path / "r", {"index.html": "pushed"})
    client.git(place, "tag", "v2.6")
    done = client.git(place, "push", "shop-alpha@127.0.0.1:", "main", "v2.6")
    assert "Sending main as version v2.6" in done.stderr and "shop has version v2.6" in done.stderr
    repository(client, place, {"index.html": "untagged"})
    assert "as version git-" in client.git(place, "push", "shop-alpha@127.0.0.1:", "main").stderr
    versions = alveole.api("GET", "/v1/apps/shop/versions")
    assert [each["name"][:4] for each in versions] == ["git-", "v2.6"]
    assert {(each["sender"], each["state"]) for each in versions} == {("ana", "waiting")}
    # A tag alone, of what is there already; moved, it is refused once: what was sent never changes.
    client.git(place, "tag", "v2.7")
    assert "shop has version v2.7" in client.git(place, "push", "shop-alpha@127.0.0.1:", "v2.7").stderr
    repository(client, place, {"index.html": "later"})
    client.git(place, "tag", "-f", "v2.7")
    moved = client.git(place, "push", "-f", "shop-alpha@127.0.0.1:", "v2.7", check=False)
    assert moved.returncode != 0 and "has a version v2.7 already" in moved.stderr, moved
    for name in ("a", "b", "c", "d", "e", "f"):
        client.git(place, "tag", name)
    many = client.git(place, "push", "shop-alpha@127.0.0.1:", "--tags", check=False)
    assert many.returncode != 0 and "6 tags came at once" in many.stderr, many
    client.git(place, "tag", "v2.8")
    assert "shop has version v2.8" in client.git(place, "push", "shop-alpha@127.0.0.1:", "v2.8").stderr
    names = [each["name"] for each in alveole.api("GET", "/v1/apps/shop/versions")]
    assert names[:2] == ["v2.8", "v2.7"] and len(names) == 4
    alveole.cli("app", "accept", "shop", "v2.6")
    alveole.cli("app", "deliver", "shop", "alpha", "v2.6")
    alveole.cli("app", "deploy", "shop", "alpha")
    assert alveole.fetch("shop-alpha").body == "pushed"
    alveole.cli("app", "destroy", "shop", "--yes")
    alveole.destroy("shop-alpha")


def test_tags_of_before_and_very_many_tags_are_no_versions(alveole: Instance, client: Client, tmp_path: Path) -> None:
    """A site that becomes an environment, and one of an older Alvéole, have tags that nobody pushed as versions."""
    made = {"name": "depot", "owner": "ana", "environments": ["alpha"]}
    alveole.ended(alveole.api("POST", "/v1/apps", made)["id"], good=True)
    there = "depot-alpha@127.0.0.1:"
    place = repository(client, tmp_path / "r", {"index.html": "one"})
    for name in ("v1.0", "v1.1"):
        client.git(place, "tag", name)
    assert "depot has version v1.0" in client.git(place, "push", there, "main", "v1.0").stderr
    assert "depot has version v1.1" in client.git(place, "push", there, "v1.1").stderr
    old = "refs/alveole/tags refs/alveole/versions"
    script = f"for-each-ref --format='delete %(refname)' {old} | git -C /site/git update-ref --stdin"
    forgotten = client.ssh("depot-alpha", f"git -C /site/git tag early main && git -C /site/git {script}")
    assert forgotten.returncode == 0, (forgotten, alveole.tail())
    repository(client, place, {"index.html": "two"})
    client.git(place, "tag", "v2.0")
    done = client.git(place, "push", there, "main", "v2.0")
    assert "are not sent (3)" in done.stderr and "depot has version v2.0" in done.stderr, done
    assert "No new version" in client.git(place, "push", there, "main:refs/heads/aside").stderr
    # The same tag to another repository of the application is told, and is no error.
    incoming = "ana+depot.incoming@127.0.0.1:x"
    assert "v2.0 is a version of depot already" in client.git(place, "push", incoming, "v2.0").stderr
    # Very many are marked by one program: each would take a moment.
    commit = client.git(place, "rev-parse", "HEAD").stdout
    for number in range(1500):
        (place / ".git" / "refs" / "tags" / f"t{number}").write_text(commit)
    many = client.git(place, "push", there, "--tags", check=False)
    assert many.returncode != 0 and "1500 tags came at once" in many.stderr, many
    repository(client, place, {"index.html": "three"})
    client.git(place, "tag", "v3.0")
    assert "depot has version v3.0" in client.git(place, "push", there, "v3.0").stderr
    assert "main is version v3.0 of depot already" in client.git(place, "push", there, "main").stderr
    client.git(place, "push", there, "--delete", "t7")
    assert "depot has version t7" in client.git(place, "push", there, "t7").stderr
    # More than is looked at: said so, and nothing is taken for new or gone because a list was cut.
    crowd = f"seq -f '{commit.strip()} refs/tags/zz%06.0f' 70000 > /site/git/packed-refs"
    assert client.ssh("depot-alpha", f"test ! -e /site/git/packed-refs && {crowd}").returncode == 0
    full = client.git(place, "push", there, "main:refs/heads/beside", check=False)
    assert full.returncode != 0 and "too many tags" in full.stderr, full
    assert client.ssh("depot-alpha", "rm /site/git/packed-refs").returncode == 0
    assert "No new version" in client.git(place, "push", there, "main:refs/heads/last").stderr
    names = [each["name"] for each in alveole.api("GET", "/v1/apps/depot/versions")]
    assert names == ["t7", "v3.0", "v2.0", "v1.1", "v1.0"]
    alveole.cli("app", "destroy", "depot", "--yes")
    alveole.destroy("depot-alpha")
