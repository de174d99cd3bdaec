"""Every command over a real API: its document, its words, its exit status."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from doorkit import Door, Ran, until

from alveole.agent import protocol
from alveole.agent.anchoring import Anchor
from alveole.errors import Refused
from alveole.model.resource import Action, Kind

PROGRAM = [str(Path(sys.executable).parent / "alveole")]
#: The fields that other tools rely on (issue 2).
SITE_FIELDS = {
    "name",
    "state",
    "wanted",
    "urls",
    "ipv4",
    "ipv6",
    "plan",
    "base",
    "memory_bytes",
    "cpu_seconds",
    "disk_bytes",
    "promises",
}


def problems(ran: Ran) -> dict[str, str]:
    """The problem document on standard output, as field → message; its form is checked for all."""
    found = ran.document
    assert found.keys() >= {"type", "title", "status", "code", "problems", "exit_status"}
    assert found["exit_status"] == ran.status
    return {item["field"]: item["message"] for item in found["problems"]}


# --- sites --------------------------------------------------------------------------------------
def test_a_site_from_a_directory(door: Door) -> None:
    site = door.ok("site", "create", "blog", "--from", str(door.content()))
    assert site.keys() >= SITE_FIELDS
    assert site["name"] == "blog"
    assert site["state"] == site["wanted"] == "running"
    assert site["ipv4"] == "10.1.1.1"
    assert any("blog.localhost" in url for url in site["urls"])
    assert all(promise.keys() >= {"resource", "state"} for promise in site["promises"])
    (listed,) = door.ok("site", "list")
    assert listed.keys() >= SITE_FIELDS
    assert door.ok("site", "show", "blog").keys() >= SITE_FIELDS
    until(lambda: door.spool() == [])


def test_everything_that_create_takes_arrives(door: Door) -> None:
    (door.directory / "env").write_text("# a comment\nexport A='from file'\nB=2\n\n")
    ran = door.run(
        "site", "create", "hello", "--json", "--from", str(door.content()),
        "--command", "gunicorn -b '0.0.0.0:8000' \"app:app\"", "--port", "8000", "--plan", "medium",
        "--domain", "api.example.org", "--domain", "www.api.example.org", "--env", "C=x=y", "--env", "B=3",
        "--env-file", str(door.directory / "env"), "--volume", "data:/data", "--path", "/my-api",
        "--allow", "192.0.2.0/24", "--deny", "192.0.2.7/32", "--https-only", "--health", "/up", "--note", "first",
    )  # fmt: skip # an option beside its value
    assert ran.status == 0, ran
    site = door.ok("site", "show", "hello", "--show-env")
    assert site["processes"] == [{"name": "web", "argv": ["gunicorn", "-b", "0.0.0.0:8000", "app:app"]}]
    assert site["env"] == {"A": "from file", "B": "3", "C": "x=y"}
    assert site["domains"] == ["api.example.org", "www.api.example.org"]
    assert site["volumes"] == [{"name": "data", "path": "/data"}]
    assert site["access"] == {"allow": ["192.0.2.0/24"], "deny": ["192.0.2.7/32"]}
    assert (site["path"], site["port"], site["plan"], site["health"]) == ("/my-api", 8000, "medium", "/up")
    assert site["https_only"] is True
    assert site["releases"][0]["note"] == "first"


def test_several_processes_and_a_socket(door: Door) -> None:
    site = door.ok(
        "site", "create", "app", "--process", "web=serve --all", "--process", "worker='w o'", "--socket"
    )  # fmt: skip # an option beside its value
    assert site["processes"] == [{"name": "web", "argv": ["serve", "--all"]}, {"name": "worker", "argv": ["w o"]}]
    assert site["port"] is None
    assert [(each["name"], each["state"]) for each in site["process_states"]] == [("web", "up"), ("worker", "up")]
    assert "web (up " in door.run("site", "show", "app").out


def test_packages_mean_the_debian_base(door: Door) -> None:
    site = door.ok("site", "create", "app", "--packages", "gunicorn,python3", "--command", "serve", "--port", "80")
    assert site["base"].startswith("debian+")
    assert {"gunicorn", "python3"} <= set(site["base"].split("+"))


def test_the_words_of_create(door: Door) -> None:
    ran = door.run("site", "create", "blog", "--from", str(door.content()))
    assert ran.status == 0
    first, second, *_ = ran.out.splitlines()
    assert first.startswith("blog is running in ")
    assert second.strip().startswith("http")
    assert "sent content-" in ran.err


def test_start_stop_restart_and_their_refusals(door: Door) -> None:
    door.site()
    assert door.run("site", "start", "blog").status == 3
    assert door.ok("site", "stop", "blog")["wanted"] == "stopped"
    ran = door.run("site", "stop", "blog", "--json")
    assert ran.status == 3
    assert ran.document["code"] == "refused"
    assert door.run("site", "restart", "blog").status == 3
    assert door.ok("site", "start", "blog")["state"] == "running"
    assert door.ok("site", "restart", "blog")["state"] == "running"
    for verb in ("show", "start", "stop", "restart", "logs"):
        ran = door.run("site", verb, "nobody", "--json")
        assert ran.status == 4
        assert ran.document["code"] == "not-found"
        assert ran.err == ""
    assert door.run("site", "create", "blog", "--from", str(door.content())).status in (2, 3)


def test_update_and_back_again(door: Door) -> None:
    door.ok("site", "create", "blog", "--from", str(door.content("one")))
    first = door.ok("site", "show", "blog")["release"]
    second = door.ok("site", "update", "blog", "--from", str(door.content("two")), "--note", "better")["release"]
    assert first != second
    back = door.ok("site", "update", "blog", "--release", first[7:19])
    assert back["release"] == first
    assert len(back["releases"]) == 2
    assert door.run("site", "update", "blog").status == 2
    assert door.run("site", "update", "blog", "--release", "ffffffffff").status == 2


def test_set_and_unset(door: Door) -> None:
    door.site()
    site = door.ok(
        "site", "set", "blog", "--plan", "large", "--domain", "a.example.org", "--env", "A=1", "--env", "B=2"
    )
    assert (site["plan"], site["domains"]) == ("large", ["a.example.org"])
    site = door.ok("site", "set", "blog", "--allow", "10.0.0.0/8", "--path", "/x", "--unset", "env.A", "--https-only")
    assert site["env"] == {"B": "***"}
    assert site["access"]["allow"] == ["10.0.0.0/8"]
    site = door.ok(
        "site", "set", "blog", "--unset", "allow", "--unset", "path", "--remove-domain", "a.example.org",
        "--no-https-only",
    )  # fmt: skip # an option beside its value
    assert (site["access"]["allow"], site["path"], site["domains"], site["https_only"]) == ([], None, [], False)
    assert door.run("site", "set", "blog").status == 2
    ran = door.run("site", "set", "blog", "--unset", "colour", "--json")
    assert problems(ran).keys() == {"unset"}
    ran = door.run("site", "set", "blog", "--plan", "small", "--if-version", "1", "--json")
    assert ran.status == 3
    assert ran.document["status"] == 412


def test_rename(door: Door) -> None:
    door.site()
    assert door.ok("site", "rename", "blog", "journal")["name"] == "journal"
    assert door.run("site", "show", "blog").status == 4


def test_destroy_asks_and_says_what_goes(door: Door) -> None:
    door.site("blog", domains=["blog.example.org"])
    assert door.run("site", "destroy", "blog", "--yes").status == 3, "it runs"
    door.ok("site", "stop", "blog")
    until(lambda: door.ok("site", "show", "blog")["state"] == "stopped")
    ran = door.run("site", "destroy", "blog", "--json")
    assert ran.status == 2
    assert problems(ran) == {"yes": "is needed where nobody can be asked"}
    said, status = on_a_terminal(door, ["site", "destroy", "blog"], "blag\n")
    assert "1 release of its content" in said
    assert "10.1.1.1" in said
    assert "blog.example.org" in said
    assert status == 3, "another name was typed"
    assert door.ok("site", "show", "blog")["name"] == "blog"
    said, status = on_a_terminal(door, ["site", "destroy", "blog"], "blog\n")
    assert status == 0, said
    assert "blog is gone" in said
    until(lambda: door.ok("site", "list") == [])


def on_a_terminal(door: Door, argv: list[str], typed: str) -> tuple[str, int]:
    """Run the program on a pseudo-terminal and type a line; what it said, and its exit status."""
    master, slave = os.openpty()
    process = subprocess.Popen(
        [*PROGRAM, "--config", str(door.config), *argv], stdin=slave, stdout=slave, stderr=slave, start_new_session=True
    )
    os.close(slave)
    os.write(master, typed.encode())
    said = b""
    try:
        while select.select([master], [], [], 30)[0] and (block := os.read(master, 4096)):
            said += block
    except OSError:  # EIO: the program has ended
        pass
    finally:
        os.close(master)
        if process.poll() is None:
            time.sleep(1)
            process.kill()
    return said.decode(), process.wait(20)


# --- waiting ------------------------------------------------------------------------------------
def test_no_wait_gives_the_change_and_follow_takes_it_up(door: Door) -> None:
    door.agent.slow_start = 1.0
    change = door.ok("site", "create", "blog", "--from", str(door.content()), "--no-wait")
    assert change["verb"] == "create"
    assert change["ended_at"] is None
    assert door.ok("change", "show", change["id"])["id"] == change["id"]
    ended = door.ok("change", "follow", change["id"])
    assert ended["state"] == "done"
    assert ended["events"]
    shown = door.run("change", "show", change["id"])
    assert "create blog" in shown.out
    assert "WHAT" in shown.out
    words = door.run("site", "stop", "blog", "--no-wait")
    assert "alveole change follow" in words.err


def test_a_change_that_fails_says_why_and_ends_with_its_status(door: Door) -> None:
    for _ in range(20):
        door.agent.fail_next(Kind.WORKLOAD, Action.CREATE, "no such program", temporary=False)
    ran = door.run("site", "create", "app", "--command", "serve", "--port", "80", "--json")
    assert ran.status == 5
    assert "no such program" in str(ran.document["problems"])
    ran = door.run("change", "follow", door.ok("journal", "--state", "failed")[-1]["id"])
    assert ran.status == 5


def test_control_may_be_started_anew_while_a_command_waits(door: Door) -> None:
    """Fault 20: the command line waits for control to come back and follows the same change."""
    door.agent.slow_start = 2.5
    results: list[Any] = []
    command = [*PROGRAM, "--config", str(door.config), "site", "create", "blog", "--json", "--from"]

    def create() -> None:
        results.append(subprocess.run([*command, str(door.content())], capture_output=True, text=True, check=False))

    thread = threading.Thread(target=create)
    thread.start()
    until(lambda: door.agent.applied(Kind.WORKLOAD))
    door.stop()
    time.sleep(0.5)
    door.start()
    thread.join(60)
    (done,) = results
    assert done.returncode == 0, done
    assert json.loads(done.stdout)["state"] == "running"
    assert [change["verb"] for change in door.ok("journal", "--site", "blog")].count("create") == 1


# --- refusals -----------------------------------------------------------------------------------
def test_all_problems_at_once_those_found_here_and_those_found_there(door: Door) -> None:
    ran = door.run(
        "site", "create", "No Good", "--from", "/does/not/exist", "--env", "NOEQUAL", "--plan", "giant",
        "--domain", "nodot", "--volume", "x", "--command", "it's open", "--json",
    )  # fmt: skip # an option beside its value
    assert ran.status == 2
    assert problems(ran).keys() >= {"from", "env", "volumes", "command", "name", "plan"}
    assert any(field.startswith("domains") for field in problems(ran))
    assert door.http.get("/v1/sites").json() == []
    words = door.run("site", "create", "No Good", "--from", "/does/not/exist", "--plan", "giant")
    assert words.status == 2
    assert words.out == ""
    lines = words.err.splitlines()
    assert any(line.startswith("from: there is no '/does/not/exist' (") for line in lines)
    assert any(line.startswith("name: ") for line in lines)
    assert any(line.startswith("plan: ") for line in lines)


def test_a_wrong_request_sends_nothing(door: Door) -> None:
    assert door.run("site", "create", "Bad Name", "--from", str(door.content())).status == 2
    assert not [call for call in door.agent.calls if isinstance(call, protocol.ImportRelease)]
    assert door.spool() == []


def test_usage_errors(door: Door) -> None:
    for argv in (["site"], ["nonsense"], ["site", "show"], ["site", "list", "--nope"], ["plan", "create", "x"]):
        ran = door.run(*argv)
        assert ran.status == 2, argv
    assert "Did you mean 'show'?" in door.run("site", "shwo").err
    ran = door.run("site", "create", "x", "--port", "eighty", "--json")
    assert ran.status == 2
    assert problems(ran).keys() == {"port"}


def test_when_alveole_is_not_running(door: Door) -> None:
    door.stop()
    began = time.monotonic()
    ran = door.run("site", "list", "--json")
    assert ran.status == 5
    assert "not running" in str(ran.document["problems"])
    assert "alveole serve" in str(ran.document["problems"])
    assert time.monotonic() - began < 4
    door.settings.api_socket.unlink()
    began = time.monotonic()
    assert door.run("site", "list").status == 5
    assert time.monotonic() - began < 1
    door.start()


def test_a_wrong_settings_file() -> None:
    for text, status in (("[paths]\ncolour = 1\n", 2), ("not toml", 2)):
        file = Path("/tmp") / f"alv-wrong-{os.getpid()}.toml"
        file.write_text(text)
        try:
            done = subprocess.run(
                [*PROGRAM, "--config", str(file), "site", "list", "--json"], capture_output=True, text=True, check=False
            )
            assert done.returncode == status
            assert json.loads(done.stdout)["code"] == "invalid"
        finally:
            file.unlink()
    done = subprocess.run(
        [*PROGRAM, "site", "list", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ALVEOLE_CONFIG": "/does/not/exist.toml"},
    )
    assert done.returncode == 4


def test_an_agent_that_is_down_is_temporary(door: Door) -> None:
    door.agent.down = True
    ran = door.run("ca", "show", "--json")
    assert ran.status == 5
    assert ran.document["code"] == "temporary"
    door.agent.down = False


def test_a_fault_of_ours_is_1(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(door.services, "list_plans", broken)
    ran = door.run("plan", "list", "--json")
    assert ran.status == 1
    assert ran.document["code"] == "error"


def test_a_damaged_backup_is_named(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    door.site()
    saved = door.ok("backup", "create", "blog")["id"]

    def damaged(request: protocol.Request) -> None:
        if isinstance(request, protocol.ReadBackup):
            raise Refused("the backup is damaged: blob 12 does not fit its digest")

    monkeypatch.setattr(door.agent, "hook", damaged)
    ran = door.run("backup", "restore", saved, "--as", "copy", "--json")
    assert ran.status in (3, 5)
    assert "damaged" in str(ran.document["problems"])
    monkeypatch.undo()


# --- the other commands -------------------------------------------------------------------------
def test_dry_run_changes_nothing(door: Door) -> None:
    plan = door.ok("site", "create", "blog", "--from", str(door.content()), "--dry-run")
    assert plan["others"] == 0
    assert plan["steps"]
    words = door.run("site", "create", "blog", "--from", str(door.content()), "--dry-run")
    assert "Other sites affected: 0. Nothing was done." in words.out
    assert door.ok("site", "list") == []


def test_backups(door: Door) -> None:
    door.site()
    made = door.ok("backup", "create", "blog")
    assert made.keys() >= {"id", "site", "bytes", "created_at", "digest"}
    assert [item["id"] for item in door.ok("backup", "list", "blog")] == [made["id"]]
    assert made["id"] in door.run("backup", "list").out
    assert door.ok("backup", "restore", made["id"], "--as", "copy")["name"] == "copy"
    assert door.ok("backup", "restore", made["id"])["name"] == "blog"
    assert door.run("backup", "restore", "bnosuchbackup").status == 4
    assert door.run("backup", "delete", made["id"]).status == 2, "nobody to ask"
    door.ok("backup", "delete", made["id"], "--yes")
    until(lambda: door.ok("backup", "list") == [])


def test_plans(door: Door) -> None:
    made = door.ok("plan", "create", "tiny", "--cpu", "0.1", "--memory", "64M", "--pids", "32", "--disk", "1.5G")
    limits = made["limits"]
    assert (limits["cpu_millis"], limits["memory_bytes"], limits["disk_bytes"]) == (100, 64 << 20, 3 << 29)
    assert limits["io_bytes_per_second"] is None
    assert door.ok("plan", "show", "tiny")["name"] == "tiny"
    assert {plan["name"] for plan in door.ok("plan", "list")} >= {"small", "medium", "large", "tiny"}
    assert door.ok("plan", "set", "small", "--sleep-after", "12h")["sleep_after"] == 43_200
    assert door.ok("plan", "show", "small")["limits"]["cpu_millis"] == 250, "limits are as they were"
    assert "12h" in door.run("plan", "set", "small", "--sleep-after", "12h").out
    assert "do not sleep" in door.run("plan", "set", "small", "--sleep-after", "never").out
    assert problems(door.run("plan", "set", "small", "--sleep-after", "1s", "--json")).keys() == {"sleep_after"}
    assert door.run("plan", "set", "small", "--sleep-after", "plan").status == 2
    assert door.run("plan", "set", "nosuch", "--sleep-after", "1h").status == 4
    table = door.run("plan", "list").out
    assert all(len(line) <= 80 for line in table.splitlines()), table
    assert "64.0 MiB" in table
    ran = door.run("plan", "create", "x", "--cpu", "lots", "--memory", "much", "--pids", "1", "--json")
    assert problems(ran).keys() >= {"cpu", "memory"}
    door.ok("plan", "delete", "tiny")
    assert door.run("plan", "show", "tiny").status == 4
    assert door.run("plan", "delete", "small").status == 3


def test_tokens(door: Door) -> None:
    made = door.ok("token", "create", "deploy", "--role", "administrator", "--expires", "90d")
    assert made["expires_at"] - made["created_at"] == pytest.approx(90 * 86_400)
    with door.tcp(made["secret"]) as client:
        assert client.get("/v1/sites").status_code == 200
    ran = door.run("token", "create", "look")
    assert ran.out.startswith("alv_")
    assert len(ran.out.splitlines()) == 1, "the secret alone on standard output"
    assert "alv_" not in door.run("token", "list").out
    assert [item["name"] for item in door.ok("token", "list")] == ["deploy", "look"]
    door.ok("token", "delete", "deploy")
    assert door.run("token", "delete", "deploy").status == 4
    assert door.run("token", "create", "x", "--role", "king", "--json").status == 2


def test_looking_around(door: Door) -> None:
    door.site()
    why = door.ok("why", "blog")
    assert why.keys() >= {"site", "links", "waiting", "last"}
    assert "✓" in door.run("why", "blog").out
    assert door.ok("doctor").keys() >= {"ok", "links"}
    status = door.ok("status")
    assert status["sites"]["running"] == 1
    assert "1 running" in door.run("status").out
    assert door.run("ca", "show").out.startswith("-----BEGIN CERTIFICATE-----")
    assert "BEGIN CERTIFICATE" in door.ok("ca", "show")["certificate"]
    assert [base["kind"] for base in door.ok("base", "list")] == ["host"]
    assert door.ok("image", "list") == []
    journal = door.ok("journal", "--site", "blog")
    assert journal[-1]["verb"] == "create"
    assert len(door.ok("journal", "-n", "1")) == 1
    table = door.run("journal").out
    assert "create" in table
    assert all(len(line) <= 100 for line in table.splitlines())


def test_exports(door: Door) -> None:
    door.site("blog", domains=["blog.example.org"])
    for kind, word in (("nginx", "proxy_pass"), ("apache", "ProxyPass")):
        text = door.run("export", kind).out
        assert word in text
        assert "blog.example.org" in text
        assert door.ok("export", kind) == {"kind": kind, "text": text}
    assert door.run("export", "iis").status == 2


def test_a_broken_link_is_shown_with_its_cure(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    door.site()
    link = protocol.Link("program", False, "GET / at 10.1.1.1:80", "connection refused", "look at alveole site logs", 3)
    answer = door.agent._answer

    def inspect(request: protocol.Request, files: Any) -> Any:
        return (link,) if isinstance(request, protocol.Inspect) else answer(request, files)

    monkeypatch.setattr(door.agent, "_answer", inspect)
    ran = door.run("why", "blog")
    assert ran.status == 3
    assert "✗ program" in ran.out
    assert "asked: GET / at 10.1.1.1:80" in ran.out
    assert "connection refused" in ran.out
    assert "cure: look at alveole site logs" in ran.out


def test_an_image_is_imported_and_used(door: Door) -> None:
    image = door.directory / "image"
    image.mkdir()
    (image / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (image / "index.json").write_text("{}")
    made = door.ok("image", "import", f"oci:{image}")
    assert made["kind"] == "oci"
    assert [base["key"] for base in door.ok("image", "list")] == [made["key"]]
    with tarfile.open(door.directory / "image.tar", "w") as archive:
        archive.add(image / "oci-layout", "oci-layout")
    archived = f"oci-archive:{door.directory}/image.tar"
    site = door.ok("site", "create", "shop", "--base", archived, "--port", "8080")
    assert site["base_key"].startswith("oci-")
    assert site["base_key"] != made["key"]
    assert door.run("image", "import", f"oci:{door.directory}").status == 2, "no oci-layout in it"
    assert door.run("image", "import", "docker:x").status == 2


def test_an_image_is_fetched_by_its_name(directory: Path) -> None:
    door = Door(directory, images={"registries": ["registry.test"]})
    try:
        made = door.ok("image", "fetch", "registry.test/club/app:2")
        assert made["kind"] == "oci" and door.ok("image", "remove", made["key"])["state"] == "done"
        assert door.ok("image", "list") == []
        site = door.ok("site", "create", "app", "--image", "registry.test/club/app", "--port", "8080", "--env", "A=1")
        assert site["base_key"].startswith("oci-") and site["state"] == "running" and site["port"] == 8080
        (told,) = door.http.get("/v1/changes?site=app").json()
        assert (told["verb"], told["reason"]) == ("create", "registry.test/club/app:latest")
        ran = door.run("site", "create", "no", "--image", "other.test/club/app", "--domain", "x", "--json")
        assert ran.status == 2 and set(problems(ran)) == {"registry", "domains"}
        assert door.run("site", "create", "no", "--image", "app", "--json").status == 2
        assert door.run("image", "fetch", "registry.test/").status == 2
        dry = door.ok("site", "create", "dry", "--image", "registry.test/club/app:3", "--dry-run")
        assert dry["steps"][0]["resource"] == "image/registry.test/club/app:3"
        assert [each["name"] for each in door.http.get("/v1/sites").json()] == ["app"]
    finally:
        door.close()


def test_exec_through_the_program(door: Door) -> None:
    door.site("app", command=["serve"], port=8000)
    base = [*PROGRAM, "--config", str(door.config), "site", "exec", "app"]
    done = subprocess.run(
        [*base, "--", "sh", "-c", "cat; echo no >&2; exit 9"], input="in", capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (9, "in", "no\n")
    done = subprocess.run([*base, "--json", "--", "echo", "hi"], input="", capture_output=True, text=True, check=False)
    assert json.loads(done.stdout) == {"exit": 0, "stdout": "hi\n", "stderr": ""}
    large = bytes(range(256)) * 20_000
    done2 = subprocess.run([*base, "--", "cat"], input=large, capture_output=True, check=True, timeout=60)
    assert done2.stdout == large
    said, status = on_a_terminal(door, ["site", "exec", "app", "--", "sh", "-c", "tty; read x; echo got $x"], "me\n")
    assert status == 0
    assert "/dev/pts/" in said
    assert "got me" in said
    door.ok("site", "stop", "app")
    done = subprocess.run([*base, "--json", "--", "id"], input="", capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert json.loads(done.stdout)["code"] == "refused"


def test_sites_go_back_to_their_earlier_base(door: Door) -> None:
    key = door.ok("site", "create", "app", "--command", "serve", "--port", "8000", "--packages", "tree")["base_key"]
    door.agent.updates[key] = (protocol.PackageChange("openssl", "1", "2", True),)
    door.ok("base", "upgrade", key, "--yes")
    new = door.ok("site", "show", "app")["base_key"]
    assert f"{key} (alveole base rollback)" in door.run("site", "show", "app").out
    assert f"app: {new} → {key}" in door.run("base", "rollback", "app", "--dry-run").out
    assert door.ok("base", "rollback", "--base", new, "--dry-run")[0]["earlier"] == key
    assert door.run("base", "rollback", "app").status == 2, "nobody is there to be asked"
    assert "1 sites are back" in door.run("base", "rollback", "app", "--yes").out
    assert door.ok("site", "show", "app")["base_key"] == key
    assert door.run("base", "rollback", "app", "--yes").status == 3
    assert (
        door.run("base", "rollback", "--yes").status == 2 and door.run("base", "rollback", "none", "--yes").status == 2
    )


def test_the_journal_is_verified(door: Door) -> None:
    door.site("blog")
    found = door.ok("journal", "verify")
    assert found["ok"] and found["changes"] >= 1 and len(found["head"]) == 64
    ran = door.run("journal", "verify")
    assert ran.status == 0 and "changes" in ran.out
    until(lambda: door.agent.anchors)
    seq = door.agent.anchors[-1].seq
    door.agent.anchors.append(Anchor(seq + 1000, "0" * 64))
    ran = door.run("journal", "verify")
    assert ran.status == 3 and "cut off" in ran.out
    assert door.run("journal", "verify", "--json").document["broken"]["what"] == "cut"
    assert door.run("journal", "-n", "1").out.count("blog") == 1
