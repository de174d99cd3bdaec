"""cron: lines of the answers and of the content run at their minute; databases are saved every night."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from modkit import ModuleSites, restarted

from instancekit import until

LINES = Path(__file__).parents[2] / "src/alveole/data/modules/cron/files/lines.awk"
PAGE = """<?php
header('Content-Type: application/json');
echo json_encode(@file('/data/files/ticks', FILE_IGNORE_NEW_LINES) ?: []);
"""


def read(crontab: str) -> list[list[str]]:
    """What each line means: its number, minutes, hours, months, days, weekdays, and the command; or the mistake."""
    done = subprocess.run(["awk", "-f", LINES], input=crontab, capture_output=True, text=True, check=True)
    lines = iter(done.stdout.splitlines())
    return [
        [*(word.lstrip("-MHmdw") for word in line.split()[1:]), next(lines)] if line.startswith("run ") else [line]
        for line in lines
    ]


def test_lines_of_a_crontab() -> None:
    """crontab(5): steps, ranges, lists, names; both a day and a weekday mean either."""
    assert read("*/20 9-17/4 1,15 jan,MAR * echo a b") == [
        ["1", "0,20,40", "9,13,17", "1,3", "1,15", "0,1,2,3,4,5,6,7", "echo a b"]
    ]
    assert [line[1:4] for line in read("@daily x\n@hourly y\n@monthly z")] == [
        ["0", "0", "1,2,3,4,5,6,7,8,9,10,11,12"],
        ["0", ",".join(map(str, range(24))), "1,2,3,4,5,6,7,8,9,10,11,12"],
        ["0", "0", "1,2,3,4,5,6,7,8,9,10,11,12"],
    ]
    either = read("1 2 13 * fri dinner")
    assert [line[0] for line in either] == ["1", "1"] and [line[4:6] for line in either] == [["13", "*"], ["*", "5"]]
    assert read("# a comment\n\n   \n") == []
    assert read("0 0 * * mon-fri date +\\%Y")[0][-2:] == ["1,2,3,4,5", "date +%Y"]
    for wrong in ("61 * * * * x", "* * * *", "* 24 * * * x", "@never x", "words", "1-99 * * * * x", "*/0 * * * * x"):
        assert read(wrong)[0][0].startswith("wrong line 1"), wrong
    assert [line[0] for line in read("bad line\n0 0 * * * good")] == [
        "wrong line 1: it has not five fields and a command",
        "2",
    ]


@pytest.mark.turn
def test_lines_run(site: ModuleSites) -> None:
    it = site(
        "cron",
        "php",
        content={"index.php": PAGE, "crontab": "* * * * * echo content >>/data/files/ticks\nnonsense\n"},
        job1='* * * * * echo "it\'s $((6*7))" >>/data/files/ticks',
        job2="0 0 31 2 * echo never >>/data/files/ticks",
        cron__timezone="Etc/UTC",
    )
    until(lambda: {"it's 42", "content"} <= set(it.get("/").json), 90, lambda: it.logs())
    assert "nonsense" not in it.get("/").text and "wrong" not in it.get("/").text
    assert "it has not five fields" in it.logs(), "a line that cannot be read is told"
    assert "never" not in it.get("/").json
    assert restarted(it, job2="") == {"cron"}


@pytest.mark.turn
def test_databases_are_saved_every_night(site: ModuleSites) -> None:
    it = site(
        "cron", "postgresql", "mariadb", "php", content={"index.php": PAGE}, save_keep=1, cron__timezone="Etc/UTC"
    )
    it.run("psql", "-X", "-c", "CREATE TABLE t AS SELECT 'in the save' AS text")
    # Some seconds are left until that minute, and it is the next but one at the latest.
    it.configure(save_at=time.strftime("%H:%M", time.gmtime(time.time() + 75)))
    saves = ((2002, "/data/postgresql-dumps/nightly"), (2001, "/data/mariadb-dump/nightly"))

    def saved() -> list[str]:
        script = 'ls "$1" 2>/dev/null || :'
        return [name for user, place in saves for name in it.run("sh", "-c", script, "-", place, user=user).split()]

    until(lambda: len(saved()) == 2, 300, lambda: it.logs())
    assert "saved the databases" in it.logs()
    for user, place, arguments in (
        (2002, "/data/postgresql-dumps", ("/config/postgresql/tasks.sh", "backup")),
        (2001, "/data/mariadb-dump", ("/config/mariadb/dump.sh",)),
    ):
        before = it.run("ls", f"{place}/nightly", user=user).split()
        time.sleep(
            max(0.0, 61 - time.time() % 60) if before[0].endswith(time.strftime("%H%M.tar.gz", time.gmtime())) else 0
        )
        it.run("sh", "/config/cron/save.sh", "now", "1", place, *arguments, user=user)
        after = it.run("ls", f"{place}/nightly", user=user).split()
        assert len(after) == 1 and after != before, "of one that is kept the older one goes"
        text = it.run("sh", "-c", f"cd {place}/nightly && tar -xzOf $(ls)", user=user)
        assert "in the save" in text if user == 2002 else "CREATE DATABASE" in text


def test_wrong_lines_are_refused(site: ModuleSites) -> None:
    it = site("cron", "postgresql", "mariadb", "php", content={"index.php": PAGE}, save=False)
    assert "cron-postgresql" not in it.pids()
    refused = it.cli("configure", "--set", "job1=every day", "--set", "job2=x", "--json", "--yes", status=2)
    assert "answers.cron.job1" in {each["field"] for each in refused.json["problems"]}
    assert it.configure(job1="@daily true").status == 0
