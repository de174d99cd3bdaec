"""The working copy in backups: what somebody has put there and not published, and what was pushed."""

from __future__ import annotations

import json
from pathlib import Path

from e2ekit import Sites
from sshkit import Client

from instance import Instance
from instancekit import archive, directory


def work(alveole: Instance, name: str) -> dict[str, object]:
    return alveole.api("GET", f"/v1/sites/{name}/work")


def push(client: Client, name: str, tree: Path) -> str:
    """A commit on a branch that is only kept; gives its name."""
    directory(tree, {"index.html": "pushed"})
    client.git(tree, "init", "-q", "-b", "side")
    client.git(tree, "add", ".")
    client.git(tree, "commit", "-qm", "first")
    client.git(tree, "push", "-q", f"{name}@127.0.0.1:", "side")
    return str(client.git(tree, "rev-parse", "HEAD").stdout).strip()


def test_what_was_not_published_comes_back(alveole: Instance, client: Client, sites: Sites, tmp_path: Path) -> None:
    """Changed, new, deleted and unchanged files, links and modes, over the release; under the site's own user."""
    repository = tmp_path / "repository"
    files = {"index.html": "live", "gone.html": "x", "dir/kept.html": "kept", "dir/large": "1234567\n" * 100_000}
    name = sites.create(archive(files), owner="ana")
    commit = push(client, name, repository)
    alveole.until_answers(name, "live")
    (tmp_path / "large").write_text("1234567\n" * 50_000 + "123456x\n" + "1234567\n" * 49_999)
    (tmp_path / "new").write_text("not published")
    (tmp_path / "tool").write_text("#!/bin/sh\n")
    script = f"""put {tmp_path / "new"} index.html
mkdir sub
put {tmp_path / "tool"} sub/tool
chmod 755 sub/tool
symlink ../index.html sub/link
put {tmp_path / "large"} dir/large
rm gone.html
"""
    assert client.sftp(name, script).returncode == 0
    before = work(alveole, name)
    assert before["files"] == 5, before
    made = json.loads(alveole.cli("backup", "create", name, "--json").out)["id"]

    # What was not published is never overwritten silently.
    refused = alveole.cli("backup", "restore", made, status=None)
    assert refused.status != 0 and "5 files of the working copy" in refused.out + refused.err, refused
    alveole.cli("site", "work", name, "--drop", "--yes")
    alveole.cli("backup", "restore", made)
    again = work(alveole, name)
    assert (again["files"], again["bytes"], again["behind"]) == (5, before["bytes"], False), (before, again)
    assert sorted(again["names"]) == sorted(before["names"])
    assert client.git(repository, "ls-remote", f"{name}@127.0.0.1:").stdout.startswith(commit)
    alveole.until_answers(name, "live")

    # And as another site, with ids of its own, after the first one is gone with its copy.
    alveole.destroy(name)
    other = sites.name()
    alveole.cli("backup", "restore", made, "--as", other)
    alveole.api("PUT", f"/v1/sites/{other}/owner", {"owner": "ana"})
    done = client.sftp(other, "ls -ln\nls -l sub\n")
    assert done.returncode == 0 and "gone.html" not in done.stdout, done
    assert "site     site" in done.stdout and "-rwxr-xr-x" in done.stdout and "link" in done.stdout, done
    assert client.git(repository, "ls-remote", f"{other}@127.0.0.1:").stdout.startswith(commit)
    alveole.until_answers(other, "live")
    alveole.cli("site", "publish", other)
    alveole.until_answers(other, "not published")
    assert alveole.fetch(other, "/dir/large").body == (tmp_path / "large").read_text()
    assert alveole.fetch(other, "/gone.html").status == 404
