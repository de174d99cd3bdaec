"""tmpreaper: files older than the age go, younger and protected ones stay; links out of the folder are not followed."""

from __future__ import annotations

from modkit import ModuleSites
from test_mod_logrotate import TOOLS

MAKE = """
mkdir -p /data/files/cache/deep /data/files/kept
for name in cache/old cache/deep/old cache/old.keep cache/new kept/old; do echo x >/data/files/$name; done
touch -d '10 days ago' /data/files/cache/old /data/files/cache/deep/old /data/files/cache/old.keep /data/files/kept/old
ln -s /data/files/kept /data/files/cache/link
"""


def test_what_is_old_goes(site: ModuleSites) -> None:
    it = site(*TOOLS, stem="reap", folders="/tmp /data/files/cache", protect="*.keep", tmpreaper__age="5d")
    it.run("sh", "-c", MAKE)
    assert it.pids()["tmpreaper"]
    # At its start it cleans, then every hour.
    it.restart()
    found = set(it.run("find", "/data/files", "-type", "f").split())
    assert found == {f"/data/files/{name}" for name in ("cache/old.keep", "cache/new", "kept/old")}


def test_folders_that_are_refused(site: ModuleSites) -> None:
    it = site(*TOOLS, stem="reap")
    for wrong in ("/etc", "/data", "/data/../etc", "/config", "/data/files/..", "cache"):
        refused = it.cli("configure", "--set", f"folders={wrong}", "--json", "--yes", status=2)
        assert {each["field"] for each in refused.json["problems"]} == {"answers.tmpreaper.folders"}, wrong
