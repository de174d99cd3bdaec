"""Content that is built before it is live: by the command, and through the ways it goes wrong."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from instance import Instance
from instancekit import archive, directory, one_at_a_time, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
#: Runs the content's own script, and serves what it leaves.
MODULE = """
name = "made"
version = "1"
icon = "hammer"
category = "web"
title = { en = "Made", fr = "Fabriqué" }
description = { en = "For the tests of builds.", fr = "Pour les tests." }
needs = { mandatory = ["static"] }

[build]
detect = ["build.sh"]
rank = 1

[[build.steps]]
file = "build.sh"
argv = ["/bin/sh", "-e", "build.sh"]
"""
GOOD = 'echo fetching; echo "<title>$(cat word)</title>" > index.html; rm word; echo made > note\n'


@pytest.fixture(scope="module")
def builder() -> Iterator[Instance]:
    modules = Path(tempfile.mkdtemp(prefix="altm", dir="/var/tmp"))
    modules.chmod(0o755)
    (modules / "made").mkdir()
    (modules / "made" / "module.toml").write_text(MODULE)
    try:
        with Instance(split=True, more=f'\n[modules]\ndirectory = "{modules}"\n') as made:
            with one_at_a_time("modules"):
                made.seed_bases()
                made.cli("site", "create", "first", "--module", "static", "--defaults", seconds=800)
                for path in (made.state / "bases").glob("[a-z]*-*"):
                    made.keep_base(path.name)
            made.destroy("first")
            yield made
    finally:
        shutil.rmtree(modules)


def _content(place: Path, word: str, script: str = GOOD) -> str:
    return str(directory(place / word, {"word": word, "build.sh": script}))


def _title(builder: Instance, name: str) -> str:
    return builder.fetch(name).body.partition("<title>")[2].partition("<")[0]


def _left(builder: Instance) -> list[str]:
    """What builds have left beside the site's own."""
    left = [str(path) for path in (builder.run_dir / "build").glob("*")]
    left += [str(path) for path in builder.state.glob("sites/*/staging/*")]
    left += [name for name in builder.cgroups() if "build." in name]
    loops = subprocess.run(["losetup", "-nO", "BACK-FILE"], capture_output=True, text=True, check=True).stdout
    return left + [line for line in loops.splitlines() if "build.img" in line and str(builder.state) in line]


def test_pages_alone_need_nothing(builder: Instance, tmp_path: Path) -> None:
    place = directory(tmp_path, {"index.html": "<title>plain</title>"})
    began = time.monotonic()
    builder.cli("site", "create", "pages", "--from", str(place))
    taken = time.monotonic() - began
    site = builder.site("pages")
    assert site["base"] == "host" and site["application"] is None and _title(builder, "pages") == "plain"
    assert taken < 10
    builder.destroy("pages")


def test_what_nothing_runs_is_refused(builder: Instance, tmp_path: Path) -> None:
    place = directory(tmp_path, {"README": "x", "main.go": "package main"})
    done = builder.cli("site", "create", "nothing", "--from", str(place), status=2)
    assert "what runs it" in done.err and "requirements.txt" in done.err and "--module static" in done.err
    found = builder.api(
        "POST", "/v1/modules/detect", {"names": ["a/", "package.json"], "texts": {"package.json": "{}"}}
    )
    assert found["modules"] == ["node"] and "package.json" in found["why"]["fr"]


def test_from_delivery_to_a_build_that_fails(builder: Instance, tmp_path: Path) -> None:
    done = builder.cli("site", "create", "shop", "--from", _content(tmp_path, "one"), "--defaults", seconds=300)
    assert "made: build.sh is there" in done.err
    assert _title(builder, "shop") == "one"
    site = builder.site("shop")
    assert site["application"]["why"] == "build.sh is there" and len(site["releases"]) == 1
    # Only what was built is kept, and it says what it came from.
    kept = list(builder.state.glob(f"sites/{site['id']}/content/releases/*"))
    assert len(kept) == 1 and not (kept[0] / "word").exists()
    created = builder.api("GET", f"/v1/changes/{builder.journal(site='shop')[0]['id']}")
    assert "fetching" in [each["text"] for each in created["events"] if each["level"] == "build"]
    # Nobody is without an answer while an update builds.
    builder.cli("site", "update", "shop", "--from", _content(tmp_path, "two"))
    assert _title(builder, "shop") == "two"
    failing = _content(tmp_path, "three", "echo before; echo 'cannot go on' >&2; exit 9\n")
    done = builder.cli("site", "update", "shop", "--from", failing, status=2)
    assert "status 9" in done.err and "cannot go on" in done.err
    assert _title(builder, "shop") == "two"
    until(lambda: _left(builder) == [], 60, lambda: str(_left(builder)))
    assert len(list(builder.state.glob(f"sites/{site['id']}/content/releases/*"))) == 2
    # A release that was built is made live again as it is.
    first = next(
        each["digest"] for each in builder.site("shop")["releases"] if each["digest"] != builder.site("shop")["release"]
    )
    builder.cli("site", "update", "shop", "--release", first)
    assert _title(builder, "shop") == "one"
    # It comes back from a backup without being built again.
    saved = builder.cli("backup", "create", "shop", "--json").json["id"]
    builder.destroy("shop")
    builder.cli("backup", "restore", saved)
    assert _title(builder, "shop") == "one"
    builder.destroy("shop")
    until(lambda: _left(builder) == [], 60, lambda: str(_left(builder)))


def test_a_create_whose_build_fails_leaves_nothing(builder: Instance, tmp_path: Path) -> None:
    before = set((builder.state / "sites").glob("s*"))
    done = builder.cli("site", "create", "bad", "--from", _content(tmp_path, "x", "exit 3\n"), "--defaults", status=2)
    assert "the build failed" in done.err
    assert "bad" not in {each["name"] for each in builder.api("GET", "/v1/sites")}
    until(lambda: set((builder.state / "sites").glob("s*")) == before, 30)


def test_a_build_reaches_nobody(builder: Instance, tmp_path: Path) -> None:
    """Threats 2 and 18: not the machine's ports, not other sites, not the platform's own doors."""
    gateway = f"10.{builder.octet}.1.254/{builder.http}"
    script = f"""
exec 2>&1
for target in 127.0.0.1/{builder.http} 127.0.0.1/{builder.api_port} {gateway} 169.254.169.254/80; do
  if bash -c "exec 3<>/dev/tcp/$target"; then echo "$target" >> reached; fi
done
find / -xdev -name 'web.sock' -o -xdev -name 'agent.sock' -o -xdev -name 'api.sock' 2> /dev/null > sockets || true
id -u > index.html
touch reached
"""
    builder.cli("site", "create", "spy", "--from", _content(tmp_path, "x", script), "--defaults", seconds=300)
    kept = next(builder.state.glob(f"sites/{builder.site('spy')['id']}/content/releases/*"))
    assert (kept / "reached").read_text() == "" and (kept / "sockets").read_text() == ""
    assert builder.fetch("spy").body == "1000\n"
    builder.destroy("spy")


@pytest.mark.turn
@pytest.mark.parametrize("role", ["agent", "control"])
def test_a_death_in_the_middle_of_a_build(builder: Instance, tmp_path: Path, role: str) -> None:
    """Fault 3: whoever dies, what ran goes on, nothing is left, and the next update is built."""
    name = f"dies-{role}"
    builder.cli("site", "create", name, "--from", _content(tmp_path, "one"), "--defaults", seconds=300)
    upload = builder.upload(archive({"word": "two", "build.sh": "echo here; sleep 20\n" + GOOD}))
    change = builder.api("POST", f"/v1/sites/{name}/releases", {"upload": upload})
    until(lambda: any((builder.run_dir / "build").glob("*/bundle/pid")), 30)
    time.sleep(0.5)
    builder.kill_role(role)
    assert _title(builder, name) == "one"
    builder.start()
    ended = builder.ended(change["id"], seconds=60)
    assert ended["state"] == "failed" and ended["problems"]
    # Where control died, the agent ends the build it is at; nobody waits for what comes of it.
    until(lambda: _left(builder) == [], 60, lambda: str(_left(builder)))
    assert _title(builder, name) == "one"
    builder.cli("site", "update", name, "--from", _content(tmp_path, "three"))
    assert _title(builder, name) == "three"
    builder.destroy(name)


def test_a_version_is_built_once_for_two_environments(builder: Instance, tmp_path: Path) -> None:
    """S2: under the application's own lease, where no instance runs; every environment serves the same bytes."""
    run = builder.cli
    run("app", "create", "made", "--env", "alpha,prod", "--module", "made", "--defaults", "--accept", "at-once")
    run("app", "send", "made", _content(tmp_path, "once"), "--version", "1")
    for environment in ("alpha", "prod"):
        run("app", "deliver", "made", environment, "1")
        run("app", "deploy", "made", environment)
        assert _title(builder, f"made-{environment}") == "once"
    changes = [
        builder.api("GET", f"/v1/changes/{each['id']}")
        for environment in ("alpha", "prod")
        for each in builder.api("GET", f"/v1/changes?site=made-{environment}")
        if each["verb"] == "deliver"
    ]
    told = [sum("fetching" in event["text"] for event in change["events"]) for change in changes]
    assert told == [1, 0], "the second one built nothing"
    until(lambda: not _left(builder), 60, lambda: str(_left(builder)))
    run("app", "destroy", "made", "--yes")
    for environment in ("alpha", "prod"):
        builder.destroy(f"made-{environment}")
