"""Files by SFTP, scp, rsync: the working copy, volumes, publishing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from e2ekit import Sites
from sshkit import Client, run_text

from instance import Instance
from instancekit import page, until


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
    shown = alveole.api("GET", f"/v1/changes/{told['id']}")
    assert any("css/a.css" in event["text"] for event in shown["events"])
    work = alveole.api("GET", f"/v1/sites/{name}/work")
    assert work["files"] == 2 and not work["behind"]
    assert "is published" in alveole.cli("site", "publish", name).out
    alveole.until_answers(name, "second")
    assert alveole.fetch(name, "/css/a.css").body == "second"
    assert alveole.api("GET", f"/v1/sites/{name}/work")["files"] == 0


def test_scp_and_rsync(alveole: Instance, client: Client, sites: Sites, tmp_path: Path) -> None:
    name = sites.create(page("first"), owner="ana")
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    for number in range(30):
        (tree / "deep" / f"file {number}").write_text(f"{number}\n" * 100)
    port = str(alveole.ssh_port)
    for old in ((), ("-O",)):
        argv = [
            "scp",
            "-q",
            *old,
            *client.options("ana"),
            "-P",
            port,
            "-r",
            str(tree),
            f"{name}@127.0.0.1:scp{len(old)}",
        ]
        done = run_text(argv)
        assert done.returncode == 0, (done, alveole.tail())
    argv = ["rsync", "-a", "--delete", "-e", client.shell(), f"{tree}/", f"{name}@127.0.0.1:rsynced"]
    assert run_text(argv).returncode == 0
    (tree / "deep" / "file 1").unlink()
    assert run_text(argv).returncode == 0
    back = tmp_path / "back"
    argv = ["rsync", "-a", "-e", client.shell(), f"{name}@127.0.0.1:rsynced/", f"{back}/"]
    assert run_text(argv).returncode == 0
    assert sorted(each.name for each in (back / "deep").iterdir()) == sorted(
        each.name for each in (tree / "deep").iterdir()
    )
    kinds = {each["reason"].split()[0] for each in client.told(name, 5)}
    assert kinds == {"sftp", "scp", "rsync"}


def test_a_stopped_site_is_filled_and_its_volumes_are_there(
    alveole: Instance, client: Client, sites: Sites, tmp_path: Path
) -> None:
    """A site that never ran has nothing in its volumes; one that did keeps what was put there."""
    name = sites.name()
    script = (
        "import http.server,os; os.chdir('/data'); http.server.test(http.server.SimpleHTTPRequestHandler, port=8000)"
    )
    command = ["/usr/bin/python3", "-c", script]
    alveole.create(name, None, command=command, port=8000, volumes=[{"name": "data", "path": "/data"}], owner="ana")
    alveole.verb(name, "stop")
    (tmp_path / "note").write_text("from outside")
    done = client.sftp(name, f"cd /data\nput {tmp_path / 'note'}\n")
    assert done.returncode == 0, (done, alveole.tail())
    alveole.verb(name, "start")
    alveole.until_answers(name, "from outside", path="/note")
    alveole.verb(name, "stop")
    assert "site" in client.ssh(name, "id", "-un").stdout


def test_published_by_itself_after_the_last_one_has_left(
    alveole: Instance, client: Client, sites: Sites, tmp_path: Path
) -> None:
    name = sites.create(page("first"), owner="ana")
    alveole.cli("site", "set", name, "--on-files", "live")
    (tmp_path / "index.html").write_text("by itself")
    assert client.sftp(name, f"put {tmp_path / 'index.html'}\n").returncode == 0
    alveole.until_answers(name, "by itself")
    assert client.told(name, 1, "publish")[0]["actor"] == "ana"


def test_a_release_that_waits(alveole: Instance, client: Client, sites: Sites, tmp_path: Path) -> None:
    name = sites.create(page("first"), owner="ana")
    (tmp_path / "index.html").write_text("waits")
    assert client.sftp(name, f"put {tmp_path / 'index.html'}\n").returncode == 0
    alveole.cli("site", "publish", name, "--not-live")
    assert alveole.answers(name, "first")
    waiting = [
        each["digest"] for each in alveole.site(name)["releases"] if each["digest"] != alveole.site(name)["release"]
    ]
    alveole.cli("site", "update", name, "--release", waiting[0])
    alveole.until_answers(name, "waits")


def test_dropped_work_is_as_what_is_live(alveole: Instance, client: Client, sites: Sites, tmp_path: Path) -> None:
    name = sites.create(page("first"), owner="ana")
    (tmp_path / "x").write_text("x")
    assert client.sftp(name, f"put {tmp_path / 'x'}\nrm index.html\n").returncode == 0
    client.told(name)
    alveole.cli("site", "work", name, "--drop", "--yes")
    done = client.sftp(name, "ls -1\n")
    assert done.stdout.split()[-1] == "index.html" and "x\n" not in done.stdout


def test_endless_upload_ends_at_the_copys_own_disk(
    alveole: Instance, client: Client, sites: Sites, tmp_path: Path
) -> None:
    """Fault 13: one site's disk full, that site alone suffers. Threat 29."""
    name, other = sites.create(page("first"), owner="ana"), sites.create(page("other"), owner="ana")
    with (tmp_path / "big").open("wb") as file:
        file.truncate(300 << 20)
    done = client.sftp(name, f"put {tmp_path / 'big'}\n")
    assert done.returncode != 0
    assert client.sftp(name, "rm big\n").returncode == 0
    assert client.sftp(other, f"mkdir works\nput {tmp_path.joinpath('big').parent / 'none'} x\n").returncode != 0
    assert client.sftp(other, "ls works\n").returncode == 0
    assert alveole.answers(name, "first") and alveole.answers(other, "other")


@pytest.mark.slow
@pytest.mark.turn
def test_ten_thousand_files_by_lftp(alveole: Instance, client: Client, sites: Sites, tmp_path: Path) -> None:
    if shutil.which("lftp") is None:
        pytest.skip("needs lftp")
    name = sites.create(page("first"), owner="ana")
    tree = tmp_path / "many"
    for directory in range(100):
        place = tree / f"d{directory:02}"
        place.mkdir(parents=True)
        for number in range(100):
            (place / f"f{number:02}").write_text(f"{directory} {number}")
    script = (
        f"set sftp:connect-program '{client.shell()} -a -x'; set net:max-retries 2; "
        f"open -u {name}, -p {alveole.ssh_port} sftp://127.0.0.1; mirror -R -P 4 --no-perms {tree} many"
    )
    done = run_text(["lftp", "-c", script], timeout=200)
    assert done.returncode == 0, (done, alveole.tail())
    counted = client.ssh(name, "find many -type f | wc -l", key="ana")
    until(lambda: client.journal(name)[0]["state"] != "running", 30)
    # A static site runs, so the shell is in it; what was put is in the working copy.
    assert counted.returncode == 0
    work = alveole.api("GET", f"/v1/sites/{name}/work")
    assert work["files"] == 10_000
    alveole.cli("site", "publish", name)
    assert alveole.fetch(name, "/many/d99/f99").body == "99 99"
