"""The command line as other tools rely on it: every command, its JSON document, its exit status."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
from apps import ON_PORT, ask
from e2ekit import Sites, unchanged

from instance import Instance
from instancekit import clean_environment, directory, until

KEYS = {
    *("name", "state", "wanted", "urls", "ipv4", "ipv6", "plan", "base"),
    *("memory_bytes", "cpu_seconds", "disk_bytes", "promises"),
}


def test_the_life_of_a_site(alveole: Instance, sites: Sites, tmp_path: Path) -> None:
    """create, list, show, update, set, stop, start, restart, rename, logs, why, journal, destroy: each with --json."""
    name = sites.name("life")
    one = directory(tmp_path / "one", {"index.html": "first"})
    two = directory(tmp_path / "two", {"index.html": "second"})
    made = alveole.cli("site", "create", name, "--from", str(one), "--json").json
    assert made["name"] == name and made["state"] == made["wanted"] == "running" and made.keys() >= KEYS
    assert alveole.fetch(name).body == "first"
    listed = {each["name"]: each for each in alveole.cli("site", "list", "--json").json}
    assert listed[name].keys() >= KEYS
    shown = alveole.cli("site", "show", name, "--json").json
    assert shown["memory_bytes"] > 0 and shown["disk_bytes"] > 0 and shown["base"] == "host"
    assert {each["state"] for each in shown["promises"]} == {"kept"}
    assert shown["urls"] == [f"https://{name}.localhost:{alveole.https}/", f"http://{name}.localhost:{alveole.http}/"]

    updated = alveole.cli("site", "update", name, "--from", str(two), "--json").json
    assert updated["release"] != made["release"] and alveole.fetch(name).body == "second"
    back = alveole.cli("site", "update", name, "--release", made["release"][:20], "--json").json
    assert back["release"] == made["release"] and alveole.fetch(name).body == "first"

    assert alveole.cli("site", "set", name, "--plan", "medium", "--json").json["plan"] == "medium"
    stopped = alveole.cli("site", "stop", name, "--json").json
    assert stopped["state"] == stopped["wanted"] == "stopped"
    gone = alveole.fetch(name)
    assert gone.status == 503 and "<html" in gone.body
    assert alveole.cli("site", "stop", name, status=3).out == ""
    assert alveole.cli("site", "start", name, "--json").json["state"] == "running"
    before = alveole.workload_pid(name)
    assert alveole.cli("site", "restart", name, "--json").json["state"] == "running"
    assert alveole.workload_pid(name) != before
    assert alveole.fetch(name).status == 200

    new = sites.name("renamed")
    renamed = alveole.cli("site", "rename", name, new, "--json").json
    assert renamed["name"] == new and renamed["ipv4"] == made["ipv4"]
    assert alveole.fetch(new).body == "first" and alveole.fetch(name).status == 404

    why = alveole.cli("why", new, "--json").json
    assert why["links"] and all(link["ok"] for link in why["links"]), why
    journal = alveole.cli("journal", "--site", new, "--json").json
    verbs = [each["verb"] for each in journal]
    assert verbs == ["create", "update", "update", "set", "stop", "start", "restart", "rename"], verbs
    assert alveole.cli("site", "destroy", new, "--yes", status=3), "a site that runs is not destroyed"
    alveole.cli("site", "stop", new)
    assert alveole.cli("site", "destroy", new, status=None).status != 0, "without --yes nobody is there to ask"
    alveole.cli("site", "destroy", new, "--yes", "--json")
    assert alveole.cli("site", "show", new, status=4).out == ""


def test_no_wait_gives_the_change_to_follow(alveole: Instance, sites: Sites, tmp_path: Path) -> None:
    name = sites.name()
    source = directory(tmp_path / "a", {"index.html": "x"})
    change = alveole.cli("site", "create", name, "--from", str(source), "--no-wait", "--json").json
    assert change["verb"] == "create" and change["state"] in ("waiting", "running", "done")
    ended = alveole.cli("change", "follow", change["id"], "--json").json
    assert ended["id"] == change["id"] and ended["state"] == "done"
    assert alveole.cli("change", "show", change["id"], "--json").json["events"]


def test_dry_run_does_nothing(alveole: Instance, sites: Sites, tmp_path: Path) -> None:
    source = directory(tmp_path / "a", {"index.html": "x"})
    name = sites.name()
    with unchanged(alveole):
        plan = alveole.cli("site", "create", name, "--from", str(source), "--dry-run", "--json").json
    assert plan["site"]["name"] == name and plan["others"] == 0
    assert {each["resource"].partition("/")[0] for each in plan["steps"]} >= {"release", "workload", "route"}
    alveole.cli("site", "show", name, status=4)


def test_logs(alveole: Instance, sites: Sites) -> None:
    """What a site prints, by count and by time, as text and as documents; and followed."""
    name = sites.create(ask("logged"), **ON_PORT)
    until(lambda: "up with logged" in alveole.cli("site", "logs", name).out, 30, "the line does not come")
    lines = alveole.cli("site", "logs", name, "-n", "1", "--json").json
    assert len(lines) == 1 and lines[0].keys() >= {"at"}
    assert alveole.cli("site", "logs", name, "--until", "2020-01-01", "--json").json == []
    told = alveole.cli("site", "logs", name, "--since", "1h").out
    assert "up with logged" in told
    assert "Traceback" not in told, "the question whether it is ready broke a connection"
    assert alveole.cli("site", "logs", name, "--since", "nonsense", status=2)
    follow = subprocess.Popen(
        [sys.executable, "-m", "alveole", "--config", str(alveole.config), "site", "logs", name, "-f", "--json"],
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environment(),
    )
    try:
        assert follow.stdout is not None
        texts = (json.loads(line)["text"] for line in follow.stdout)
        assert any("up with logged" in text for text in itertools.islice(texts, 10))
        alveole.verb(name, "restart")
        assert any("up with logged" in text for text in itertools.islice(texts, 20))
    finally:
        follow.terminate()
        follow.communicate()


def test_exec(alveole: Instance, sites: Sites) -> None:
    name = sites.create(ask(), **ON_PORT)
    done = alveole.cli("site", "exec", name, "--", "sh", "-c", "echo out; echo err >&2; exit 7", status=7)
    assert done.out == "out\n" and done.err == "err\n"
    assert alveole.cli("site", "exec", name, "--", "cat", input="through\n").out == "through\n"
    found = alveole.cli("site", "exec", "--json", name, "--", "sh", "-c", "echo o; exit 3", status=None).json
    assert found["exit"] == 3 and found["stdout"] == "o\n"
    assert alveole.cli("site", "exec", name, "--", "sh", "-c", "kill -9 $$", status=137)
    assert "1000" in alveole.cli("site", "exec", name, "--", "id", "-u").out
    alveole.cli("site", "exec", "nosuchsite", "--", "true", status=4)
    alveole.cli("site", "exec", name, "--", "/no/such/program", status=None)
    alveole.cli("site", "stop", name)
    alveole.cli("site", "exec", name, "--", "true", status=3)


def test_plans(alveole: Instance, sites: Sites) -> None:
    names = {each["name"] for each in alveole.cli("plan", "list", "--json").json}
    assert names >= {"small", "medium", "large"}
    own = ["plan", "create", "tiny-one", "--cpu", "0.1", "--memory", "64M", "--pids", "32", "--disk", "64M"]
    made = alveole.cli(*own, "--json").json
    assert made["limits"]["cpu_millis"] == 100 and made["limits"]["memory_bytes"] == 64 << 20
    alveole.cli(*own, status=3)
    assert alveole.cli("plan", "show", "tiny-one", "--json").json["sites"] == 0
    name = sites.create(ask(), plan="tiny-one", **ON_PORT)
    alveole.cli("plan", "delete", "tiny-one", status=3)
    alveole.destroy(name)
    alveole.cli("plan", "delete", "tiny-one")
    alveole.cli("plan", "show", "tiny-one", status=4)
    bad = alveole.cli("plan", "create", "Bad", "--cpu", "x", "--memory", "y", "--pids", "0", "--json", status=2)
    assert bad.out or bad.err


def test_status_and_doctor(alveole: Instance) -> None:
    status = alveole.cli("status", "--json").json
    assert status["agent"] is True and status["domain"] == "localhost" and status["machine"]["proxy"] == "nginx"
    assert all(each["state"] == "kept" for each in status["promises"])
    doctor = alveole.cli("doctor", "--json").json
    assert doctor["ok"] is True, doctor
    assert "BEGIN CERTIFICATE" in alveole.cli("ca", "show").out


@pytest.mark.parametrize(
    "words", [("site", "show"), ("site", "start"), ("site", "logs"), ("why",), ("backup", "restore"), ("plan", "show")]
)
def test_not_found_is_4(alveole: Instance, words: tuple[str, ...]) -> None:
    assert alveole.cli(*words, "baaaaaaaaaaaa", "--json", status=4)


def test_temporary_is_5(alveole: Instance, tmp_path: Path) -> None:
    """Nobody answers at the socket: try again later."""
    other = tmp_path / "other.toml"
    other.write_text(alveole.config.read_text().replace(f"{alveole.root}/r", f"{alveole.root}/none"))
    command = [sys.executable, "-m", "alveole", "--config", str(other), "site", "list", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean_environment())
    assert done.returncode == 5, done


def test_wrong_words_are_2(alveole: Instance) -> None:
    for words in (
        ("site", "nonsense"),
        ("site", "create"),
        ("site", "create", "x", "--port", "many"),
        ("journal", "-x"),
    ):
        assert alveole.cli(*words, status=2)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(alveole: Instance, shell: str) -> None:
    assert "alveole" in alveole.cli("completion", shell).out


def test_the_same_key_has_one_effect(alveole: Instance, sites: Sites) -> None:
    """Fault 2, seen from outside: the client repeats a request whose answer it did not get."""
    name = sites.create(ask(), **ON_PORT)
    first = alveole.api("POST", f"/v1/sites/{name}/restart", {}, key="again")
    assert alveole.api("POST", f"/v1/sites/{name}/restart", {}, key="again")["id"] == first["id"]
    alveole.ended(first["id"], good=True)
    assert alveole.api("POST", f"/v1/sites/{name}/restart", {}, key="again")["id"] == first["id"]
    assert len([each for each in alveole.journal(site=name) if each["verb"] == "restart"]) == 1
