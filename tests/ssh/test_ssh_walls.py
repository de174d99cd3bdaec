"""What a client tries that is not its to try, and what becomes of sessions that are cut."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from e2ekit import Sites
from sshkit import Client

from instance import Instance
from instancekit import page, until


def _leads_out(client: Client, name: str, path: str) -> str:
    return client.sftp(name, f"get {path} /dev/stdout\n").stdout


def test_paths_lead_nowhere(alveole: Instance, client: Client, sites: Sites, tmp_path: Path) -> None:
    """Threats 6 and 10: what is reached is the site's own container, whatever the path."""
    name = sites.create(page("first"), owner="ana")
    canary = alveole.root / "canary"
    canary.write_text("canary")
    canary.chmod(0o644)
    links = f"ln -s {canary} a\nln -s / b\nln -s /proc/1/root c\nln -s ../../../../../.. d\n"
    assert client.sftp(name, links).returncode == 0
    for path in (str(canary), "a", f"b{canary}", f"c{canary}", f"d{canary}", f"../../../..{canary}"):
        assert client.sftp(name, f"get {path} {tmp_path / 'got'}\n").returncode != 0
        assert not (tmp_path / "got").exists()
    for path in ("/etc/shadow", "/proc/1/environ", "/proc/kcore", "/proc/sys/kernel/core_pattern"):
        assert client.sftp(name, f"get {path} {tmp_path / 'got'}\n").returncode != 0 or not (
            tmp_path / "got"
        ).read_bytes().startswith(b"root:")
        (tmp_path / "got").unlink(missing_ok=True)
    (tmp_path / "new").write_text("changed")
    for path in (str(canary), "a", f"b{canary}", "/etc/passwd", "/usr/bin/x", "/proc/sys/kernel/core_pattern"):
        assert client.sftp(name, f"put {tmp_path / 'new'} {path}\n").returncode != 0
    assert canary.read_text() == "canary"
    # A link that leads out makes no release.
    assert alveole.cli("site", "publish", name, status=None).status in (0, 2)
    assert alveole.fetch(name, "/a").status in (403, 404)


def test_what_is_typed_is_no_option_and_no_shell(alveole: Instance, client: Client, sites: Sites) -> None:
    """Threat 13: the words of scp, rsync and git never meet a shell, and git knows one repository."""
    name = sites.create(page("first"), owner="ana")
    for command in (
        "git-receive-pack '/etc'; touch /tmp/x",
        "git-upload-pack --upload-pack=/bin/sh x",
        "scp -t $(touch /tmp/x)",
        "rsync --server -e.sh . ';touch /tmp/x'",
    ):
        client.ssh(name, command, timeout=10)
    assert client.ssh(name, "test", "-e", "/tmp/x").returncode == 1
    assert client.ssh(name, "-W", "127.0.0.1:22").returncode != 0
    done = client.ssh(name, "-s", "nosuchsubsystem")
    assert done.returncode != 0


def test_a_cut_connection_leaves_nothing(alveole: Instance, client: Client, sites: Sites, tmp_path: Path) -> None:
    """Fault 16: an upload that is cut; the program behind it ends, and the journal says so."""
    name = sites.create(page("first"), owner="ana")
    argv = ["ssh", *client.options("ana"), "-p", str(alveole.ssh_port), f"{name}@127.0.0.1", "-s", "sftp"]
    for number in range(2):
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"\0\0\0\5\1\0\0\0\3")
        process.stdin.flush()
        assert process.stdout.read(5)[4] == 2
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdin.close()
        process.stdout.close()
        client.told(name, number + 1)
    id = alveole.site(name)["id"]
    until(lambda: not (alveole.run_dir / "visit" / id).exists(), 30, alveole.tail)
    assert not [each for each in alveole.cgroups() if each.startswith("visit.")]


def test_no_session_outlives_a_process_of_ours(alveole: Instance, client: Client, sites: Sites) -> None:
    """Fault 20: control, the door or the agent is killed; sites answer, sessions end, nothing is left."""
    name = sites.create(page("first"), owner="ana")
    argv = ["ssh", *client.options("ana"), "-p", str(alveole.ssh_port), f"{name}@127.0.0.1", "-s", "sftp"]
    for role in ("control", "ssh", "agent"):
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"\0\0\0\5\1\0\0\0\3")
        process.stdin.flush()
        assert process.stdout.read(5)[4] == 2
        alveole.kill_role(role)
        assert process.wait(20) != 0
        process.stdin.close()
        process.stdout.close()
        assert alveole.answers(name, "first")
        alveole.until_ready()
        until(lambda: client.sftp(name, "ls\n").returncode == 0, 30, alveole.tail)
    id = alveole.site(name)["id"]
    until(lambda: not (alveole.run_dir / "visit" / id).exists(), 30, alveole.tail)
    until(lambda: not [each for each in alveole.journal(site=name) if each["state"] == "running"], 30)


def test_a_site_that_is_worked_on_can_be_destroyed(alveole: Instance, client: Client, sites: Sites) -> None:
    name = sites.create(page("first"), owner="ana")
    assert client.sftp(name, "mkdir x\n").returncode == 0
    client.told(name)
    alveole.destroy(name)
    assert "there is no site" in client.ssh(name, "true").stderr
