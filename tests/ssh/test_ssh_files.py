"""Files by SFTP, scp, rsync: the working copy, volumes, publishing."""

from __future__ import annotations

from pathlib import Path

from e2ekit import Sites
from sshkit import Client

from instance import Instance
from instancekit import page


def test_sftp_fills_a_working_copy_that_becomes_a_release(
    alveole: Instance, client: Client, sites: Sites, tmp_path: Path
) -> None:
    name = sites.create(page("first"), owner="ana")
    (tmp_path / "index.html").write_text("second")
    done = client.sftp(name, f"ls\nput {tmp_path / 'index.html'}\nmkdir css\nput {tmp_path / 'index.html'} css/a.css\n")
    assert done.returncode == 0, (done, alveole.tail())
    assert "index.html" in done.stdout
    alveole.until_answers(name, "first")
    told = client.told(name)[0]
    assert told["actor"] == "ana" and told["reason"] == "sftp from 127.0.0.1"
    assert told["result"]["changed_files"] == 2 and told["result"]["received_bytes"] > 0
    work = alveole.api("GET", f"/v1/sites/{name}/work")
    assert work["files"] == 2 and not work["behind"]
    assert "is published" in alveole.cli("site", "publish", name).out
    alveole.until_answers(name, "second")
    assert alveole.fetch(name, "/css/a.css").body == "second"
    assert alveole.api("GET", f"/v1/sites/{name}/work")["files"] == 0
