"""logrotate: a log file that the site's program writes is cut, packed and dropped while it goes on being written."""

from __future__ import annotations

from modkit import ModuleSites

PAGE = """<?php
if (isset($_GET['write'])) {
    file_put_contents('/data/files/app.log', str_repeat('a line of the log', 100) . "\\n", FILE_APPEND);
}
clearstatcache();
echo (int) @filesize('/data/files/app.log');
"""
NOW = ("sh", "/config/logrotate/run.sh", "now", "/config/logrotate/site.conf", "/data/logrotate/state")
TOOLS = ("cron", "logrotate", "tmpreaper", "monit", "postgresql", "adminer", "php")


def test_a_log_is_cut(site: ModuleSites) -> None:
    it = site(*TOOLS, stem="log", content={"index.php": PAGE}, logrotate__size="2K", keep=2, files="/data/files/*.log")
    for turn in range(1, 5):
        for _ in range(2):
            size = int(it.get("/?write").text)
        assert size == 2 * 1701, f"cut before turn {turn}"
        it.run(*NOW)
    left = sorted(it.run("ls", "/data/files").split())
    assert left == ["app.log", "app.log.1", "app.log.2.gz"]
    assert "a line of the log" in it.run("zcat", "/data/files/app.log.2.gz")
    # Nothing is due: a second look leaves all as it is.
    it.run(*NOW)
    assert sorted(it.run("ls", "/data/files").split()) == left
    it.restart()
    assert int(it.get("/?write").text) == 1701


def test_answers(site: ModuleSites) -> None:
    it = site(*TOOLS, stem="log", content={"index.php": PAGE}, every="weekly")
    text = it.run("cat", "/config/logrotate/site.conf")
    assert "weekly\nrotate 8\n" in text and '"/data/files/*.log"' in text
    for wrong in ("relative/*.log", '/x" {\n}', "/a;b", "/a $(id)"):
        refused = it.cli("configure", "--set", f"files={wrong}", "--json", "--yes", status=2)
        assert {each["field"] for each in refused.json["problems"]} == {"answers.logrotate.files"}
