"""The machine's own lines: files of /var/log as rsyslog and logrotate leave them, and the journal's records."""

from __future__ import annotations

import os
import stat
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from alveole.actuators import host_logs
from alveole.actuators.host_logs import HostLogs
from alveole.config import Settings, parse
from alveole.logbook import places
from alveole.logbook.model import Entry, Source, Wanted
from alveole.logbook.search import search

NOW = time.time()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = parse({"paths": {"state": str(tmp_path / "s"), "run": "/tmp/r"}})
    (found.logs / "host").mkdir(parents=True)
    (tmp_path / "var").mkdir()
    return found


def kept(settings: Settings) -> list[Entry]:
    (own, _in) = places.of_platform(settings.logs, (Source.HOST,))
    return list(search([own], Wanted(last=10_000)).lines)


def old(ago: float, text: str) -> str:
    """As rsyslog writes it on Debian 11 and before, in local time."""
    return f"{datetime.fromtimestamp(NOW - ago).strftime('%b %e %H:%M:%S')} host {text}\n"


def new(ago: float, text: str) -> str:
    return f"{datetime.fromtimestamp(NOW - ago, UTC).isoformat()} host {text}\n"


def test_files_are_read_across_rotations(settings: Settings, tmp_path: Path) -> None:
    """Both forms of stamps, a line that is not whole yet, logrotate's rename, its copytruncate, another start."""
    top = tmp_path / "var"
    log, auth = top / "syslog", top / "auth.log"
    log.write_text(old(50, "kernel: [1.0] error: disk is away") + new(40, "sshd[12]: hello \x1b[2J") + "no stamp\n")
    reader = HostLogs(settings, top, journal=False)
    assert reader.gather() == 3 and reader.gather() == 0
    found = kept(settings)
    assert [(each.of, each.level) for each in found] == [("kernel", "err"), ("sshd", "info"), ("syslog", "info")]
    assert abs(datetime.fromisoformat(found[0].at).timestamp() - (NOW - 50)) <= 1.5
    assert "\x1b" not in found[1].text
    with log.open("a") as file:
        file.write(new(30, "cron: whole") + new(29, "cron: not wh").rstrip("\n"))
    assert reader.gather() == 1
    with log.open("a") as file:
        file.write("ole\n" + new(28, "cron: last of it"))
    log.rename(top / "syslog.1")
    log.write_text(new(20, "cron: after the rename"))
    auth.write_text("")
    assert reader.gather() == 3
    # A new reader goes on where the one before was; a file that was emptied in place begins anew.
    log.write_text(new(10, "cron: x"))
    auth.write_text(new(9, "su: (to root) ana"))
    again = HostLogs(settings, top, journal=False)
    assert again.gather() == 2
    texts = [each.text for each in kept(settings)]
    assert texts[2:] == ["whole", "not whole", "last of it", "after the rename", "x", "(to root) ana", "no stamp"]


def test_only_the_newest_part_of_much_is_taken(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A storm, or an agent that was away: so many bytes a look, whole lines; links and pipes are not read."""
    monkeypatch.setattr(host_logs, "_BYTES", 64 * 1024)
    top = tmp_path / "var"
    log = top / "syslog"
    log.write_text("")
    reader = HostLogs(settings, top, journal=False)
    reader.gather()
    with log.open("w") as file:
        file.writelines(new(1, f"app: number {number} {'x' * 100}") for number in range(2000))
    count = reader.gather()
    numbers = [int(each.text.split()[1]) for each in kept(settings)]
    assert 300 < count < 600 and numbers == list(range(2000 - count, 2000))
    (tmp_path / "secret").write_text(new(1, "app: secret"))
    (top / "auth.log").symlink_to(tmp_path / "secret")
    os.mkfifo(top / "kern.log")
    (top / "messages").mkdir()
    assert reader.gather() == 0
    assert "secret" not in str(kept(settings))


def journal(directory: Path, *records: dict[str, object]) -> Path:
    """A ``journalctl`` that gives ``records`` after the cursor it is asked for, as the real one does."""
    (directory / "records").write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in records))
    program = directory / "journalctl"
    program.write_text(
        "#!/usr/bin/python3\nimport json,sys\n"
        f"lines = [line for line in open('{directory}/records')]\n"
        "after = [a.partition('=')[2] for a in sys.argv if a.startswith('--after-cursor=')]\n"
        "known = [json.loads(line)['__CURSOR'] for line in lines]\n"
        "if after and after[0] not in known: sys.exit('Failed to seek to cursor')\n"
        "sys.stdout.writelines(lines[known.index(after[0]) + 1 if after else 0:])\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def test_records_of_the_journal(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The forms that systemd.journal-fields(7) gives; with the real journal it runs in the guest layer."""

    def record(number: int, **fields: object) -> dict[str, object]:
        return {"__CURSOR": f"c{number}", "__REALTIME_TIMESTAMP": str(int((NOW - 100 + number) * 1e6)), **fields}

    first = (
        record(1, PRIORITY="3", SYSLOG_IDENTIFIER="kernel", MESSAGE="oom"),
        record(2, PRIORITY="6", _COMM="a b", MESSAGE=list(b"no \xff utf-8")),
        record(3, PRIORITY="6", _SYSTEMD_UNIT="alveole-agent.service", MESSAGE="ours already"),
        record(4, MESSAGE=None),
        {"__CURSOR": "c5"},
        record(6, PRIORITY="99", SYSLOG_IDENTIFIER="x" * 300, MESSAGE="two\nlines"),
    )
    monkeypatch.setattr(host_logs, "JOURNALCTL", str(journal(tmp_path, *first)))
    reader = HostLogs(settings, tmp_path / "var", journal=True)
    assert reader.gather() >= 4
    found = [(each.of, each.level, each.text) for each in kept(settings)]
    assert found[0] == ("kernel", "err", "oom") and found[1] == ("a-b", "info", "no \ufffd utf-8")
    assert "longer than 4 KiB" in found[2][2]
    assert [each[2] for each in found[3:]] == ["two", "lines"] and len(found[3][0]) == 64
    assert "ours" not in str(found) and reader.gather() == 0
    journal(tmp_path, *first, record(7, SYSLOG_IDENTIFIER="sshd", MESSAGE="next"))
    assert HostLogs(settings, tmp_path / "var", journal=True).gather() == 1
    # The journal was emptied (vacuumed): its cursor is gone, and reading begins anew at the next look.
    journal(tmp_path, record(8, SYSLOG_IDENTIFIER="sshd", MESSAGE="anew"))
    assert reader.gather() == 0
    assert reader.gather() == 1
    assert [each.text for each in kept(settings)][-2:] == ["next", "anew"]


def test_a_journal_that_cannot_be_asked_harms_nobody(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: journalctl fails, or is not there."""
    program = tmp_path / "journalctl"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    for each in (program, tmp_path / "absent"):
        monkeypatch.setattr(host_logs, "JOURNALCTL", str(each))
        assert HostLogs(settings, tmp_path, journal=True).gather() == 0
    assert kept(settings) == []
