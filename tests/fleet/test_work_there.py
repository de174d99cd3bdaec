"""What is done on a site that lives on another machine: programs, names, answers, its files, its backups."""

from __future__ import annotations

import contextlib
import http.client
import os
import pwd
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleetkit import COMMAND, Pair

from instancekit import ApiError, page, until

sys.path.insert(0, str(Path(__file__).parents[1] / "ssh"))
from sshkit import Client, run_text

VOLUME = [{"name": "data", "path": "/data"}]


@pytest.fixture(scope="module")
def fleet(pair: Pair) -> Iterator[Pair]:
    if pair.sshd is None:
        pair.up()
    pair.let_in()
    if all(each["name"] != "far" for each in pair.main.api("GET", "/v1/nodes")):
        pair.add()
    yield pair
    for each in pair.main.api("GET", "/v1/sites"):
        pair.main.destroy(each["name"])
    pair.main.cli("node", "remove", "far")


@pytest.fixture(scope="module")
def there(fleet: Pair) -> Iterator[Pair]:
    """With the site ``omega`` of ana on the other machine, which serves its volume."""
    fleet.main.create("omega", None, command=COMMAND, port=8000, volumes=VOLUME, node="far")
    until(lambda: fleet.main.site("omega")["state"] == "running", 60, fleet.main.tail)
    write(fleet, "omega", "one")
    yield fleet


def write(pair: Pair, name: str, text: str) -> None:
    pair.main.cli("site", "exec", name, "--", "/bin/sh", "-c", f"echo {text} > /data/page.txt")


def serves(pair: Pair, name: str, text: str) -> None:
    until(lambda: text in pair.main.fetch(name, "/page.txt").body, 60, lambda: pair.main.fetch(name, "/page.txt").body)


def told(pair: Pair, verb: str, count: int = 1) -> list[Any]:
    """The newest ended changes of this verb here, once there are so many."""

    def ended() -> list[Any]:
        return [each for each in pair.main.journal() if each["verb"] == verb and each["state"] != "running"]

    until(lambda: len(ended()) >= count, 60, lambda: str(pair.main.journal()))
    return ended()


def test_a_program_inside(there: Pair) -> None:
    """Its output, its input, its exit status and its place in both journals."""
    main = there.main
    serves(there, "omega", "one")
    said = main.cli(
        "site", "exec", "omega", "--json", "--", "/bin/sh", "-c", "cat; echo no >&2; exit 7", input="x" * 90, status=7
    )
    assert said.json == {"exit": 7, "stdout": "x" * 90, "stderr": "no\n"}
    large = main.cli("site", "exec", "omega", "--", "/bin/sh", "-c", "head -c 700000 /dev/zero | tr '\\0' y")
    assert len(large.out) == 700_000
    absent = main.cli("site", "exec", "omega", "--", "/nowhere/at-all", status=None)
    assert absent.status != 0
    until(lambda: "exec" in [each["verb"] for each in there.far.journal(site="omega")], 30)

    def seven() -> list[Any]:
        return [each for each in told(there, "exec") if each["result"].get("exit_status") == 7]

    until(seven, 60, lambda: str(main.journal()))
    assert seven()[0]["reason"] == "/bin/sh"


@pytest.mark.turn
def test_another_name(there: Pair) -> None:
    """Old and new name lead there without a gap; nobody takes the new one in between; it is back at the end."""
    main, far = there.main, there.far
    taken = main.cli("site", "rename", "omega", "omega", "--json", status=None)
    assert taken.status in (2, 3)
    main.cli("site", "rename", "omega", "psi")
    assert main.site("psi")["node"] == "far" and far.site("psi")["state"] == "running"
    serves(there, "psi", "one")
    assert far.site("psi")["domains"] == ["psi.localhost"]
    with pytest.raises(ApiError):
        main.site("omega")
    main.create("omega", page("another"))
    with pytest.raises(ApiError) as refused:
        main.api("POST", "/v1/sites/psi/rename", {"name": "omega"})
    assert refused.value.status == 409
    main.destroy("omega")
    main.cli("site", "rename", "psi", "omega")
    serves(there, "omega", "one")


@pytest.mark.turn
def test_backups_there(there: Pair) -> None:
    """Asked for here, made and kept there, shown here with their proof, also while that machine is away."""
    main, far = there.main, there.far
    made = main.cli("backup", "create", "omega", "--json").json
    assert made["repository"] == "far:local" and made["site_id"] == main.site("omega")["id"]
    assert [each["id"] for each in far.api("GET", "/v1/backups?site=omega")] == [made["id"]]
    write(there, "omega", "two")
    serves(there, "omega", "two")
    main.cli("backup", "restore", made["id"])
    serves(there, "omega", "one")
    assert main.site("omega")["node"] == "far"
    write(there, "omega", "two")
    main.cli("backup", "restore-file", made["id"], "volumes/data/page.txt")
    serves(there, "omega", "one")
    tree = main.api("GET", f"/v1/backups/{made['id']}/tree?path=volumes/data")
    assert [each["name"] for each in tree["entries"]] == ["page.txt"]
    proved = main.cli("backup", "prove", "omega", "--json", seconds=300)
    assert proved.status == 0
    (row,) = main.api("GET", "/v1/backups?site=omega")
    assert row["proved"] is True
    main.api("PUT", f"/v1/backups/{made['id']}/pinned", {"pinned": True})
    assert far.api("GET", f"/v1/backups/{made['id']}")["backup"]["pinned"]
    stand = main.api("PATCH", "/v1/sites/omega/backups", {"days": 3})
    assert stand["own"]["days"] == 3 and far.api("GET", "/v1/sites/omega/backups")["own"]["days"] == 3
    there.down()
    try:
        until(lambda: main.site("omega")["state"] == "unreachable", 60)
        stand = main.api("GET", "/v1/sites/omega/backups")
        assert stand["proved_at"] == row["proved_at"] and stand["backups"] == 1
        (row,) = main.api("GET", "/v1/backups?site=omega")
        assert row["proved"] and row["pinned"]
        refused = main.cli("backup", "restore", made["id"], "--here", "--json", status=3)
        assert refused.fields == {"backup"}, "nothing of it was fetched before"
    finally:
        there.up()
    until(lambda: main.site("omega")["state"] == "running", 60)


def test_a_new_site_of_a_backup_there(there: Pair) -> None:
    """It is made here: the archive is fetched, compared with its digest and kept here from then on."""
    main = there.main
    made = main.cli("backup", "create", "omega", "--json").json
    main.cli("backup", "restore", made["id"], "--as", "omega-again")
    assert main.site("omega-again")["node"] == ""
    serves(there, "omega-again", "one")
    (row,) = [each for each in main.api("GET", "/v1/backups?site=omega") if each["id"] == made["id"]]
    assert row["copies"] == ["local"]
    main.destroy("omega-again")


@pytest.mark.turn
def test_the_other_machine_burns(there: Pair) -> None:
    """What was fetched gives the site back on this machine; the copy there is taken away when it comes back."""
    main, far = there.main, there.far
    main.create("tau", None, command=COMMAND, port=8000, volumes=VOLUME, node="far")
    write(there, "tau", "kept")
    made = main.cli("backup", "create", "tau", "--json").json
    main.api("POST", f"/v1/backups/{made['id']}/restore", {"name": "tau-copy"})
    until(lambda: main.api("GET", f"/v1/backups/{made['id']}")["backup"]["copies"] == ["local"], 60)
    until(lambda: "kept" in main.fetch("tau-copy", "/page.txt").body, 60)
    refused = main.cli("backup", "restore", made["id"], "--here", "--json", status=3)
    assert refused.fields == {"here"}, "the machine answers"
    there.down()
    try:
        until(lambda: main.site("tau")["state"] == "unreachable", 60)
        main.cli("backup", "restore", made["id"], "--here")
        assert main.site("tau")["node"] == ""
        serves(there, "tau", "kept")
    finally:
        there.up()
    until(lambda: main.cli("node", "check", "far", status=None).status == 0, 60)
    main.cli("site", "confirm", "tau")
    assert "tau" not in [each["name"] for each in far.api("GET", "/v1/sites")]
    serves(there, "tau", "kept")
    for name in ("tau", "tau-copy"):
        main.destroy(name)


def test_its_domains(there: Pair) -> None:
    """They lead to this machine, with its certificate, and on from there; what goes is free again, here and there."""
    main, far = there.main, there.far
    assert main.cli("site", "domain", "add", "omega", "shop.omega.test", "--json").json["state"] == "live"
    assert [each["domain"] for each in main.api("GET", "/v1/sites/omega/domains")] == ["shop.omega.test"]
    assert sorted(far.site("omega")["domains"]) == ["omega.localhost", "shop.omega.test"]
    until(lambda: "one" in main.fetch("shop.omega.test", "/page.txt").body, 60, main.tail)
    until(lambda: "one" in main.fetch("shop.omega.test", "/page.txt", https=True).body, 60, main.tail)
    serves(there, "omega", "one")
    main.create("thief", page("not yours"))
    with pytest.raises(ApiError) as refused:
        main.api("PATCH", "/v1/sites/thief", {"add_domains": ["shop.omega.test"]})
    assert refused.value.status in (409, 422)
    main.cli("site", "domain", "remove", "omega", "shop.omega.test")
    assert far.site("omega")["domains"] == ["omega.localhost"] and main.site("omega")["domains"] == []
    main.cli("site", "domain", "add", "thief", "shop.omega.test")
    main.destroy("thief")
    with pytest.raises(ApiError) as refused:
        main.api("PATCH", "/v1/sites/omega", {"path": "/omega"})
    assert [each["field"] for each in refused.value.document["problems"]] == ["path"]


def test_operations_and_programs(there: Pair, tmp_path: Path) -> None:
    """Declared here, run there, told here; programs are listed and ended there."""
    main, far = there.main, there.far
    declared = tmp_path / "greet.toml"
    declared.write_text(
        'argv = ["/bin/sh", "-c", "read word; echo \\"$word, $1\\"; exec sleep 600", "sh", "${name}"]\nseconds = 300\n'
        '[[argument]]\nname = "name"\ntype = "string"\n[[argument]]\nname = "word"\ntype = "secret"\n'
    )
    main.cli("op", "add", "omega", "greet", str(declared))
    assert [each["name"] for each in main.cli("op", "list", "omega", "--json").json] == ["greet"]
    run = main.api("POST", "/v1/sites/omega/operations/greet/run", {"arguments": {"name": "ana", "word": "tell-none"}})
    where = f"/v1/sites/omega/operation-runs/{run['id']}"
    until(lambda: main.api("GET", where)["output"] == "***, ana\n", 60, lambda: str(main.api("GET", where)))
    (sleeper,) = [
        each for each in main.cli("op", "ps", "omega", "--json").json["programs"] if each["command"] == "sleep 600"
    ]
    main.cli("op", "kill", "omega", str(sleeper["pid"]), "--signal", "KILL")
    until(lambda: main.api("GET", where)["ended_at"], 60, lambda: str(main.api("GET", where)))
    ended = main.api("GET", where)
    assert ended["exit_status"] == 137 and ended["arguments"] == {"name": "ana", "word": "***"}
    assert {"operation", "signal"} <= {each["verb"] for each in main.journal(site="omega")}
    until(lambda: {"exec", "signal"} <= {each["verb"] for each in far.journal(site="omega")}, 60)
    run = main.api("POST", "/v1/sites/omega/operations/greet/run", {"arguments": {"name": "ben", "word": "tell-none"}})
    where = f"/v1/sites/omega/operation-runs/{run['id']}"
    until(lambda: main.api("GET", where)["output"], 60, lambda: str(main.api("GET", where)))
    main.api("DELETE", where)
    until(lambda: main.api("GET", where)["ended_at"], 60, lambda: str(main.api("GET", where)))
    assert "ended by" in main.api("GET", where)["problem"]
    until(
        lambda: all(each["command"] != "sleep 600" for each in main.api("GET", "/v1/sites/omega/programs")["programs"]),
        60,
    )
    main.cli("op", "remove", "omega", "greet")


def test_its_figures(there: Pair) -> None:
    main, far = there.main, there.far
    until(lambda: main.site("omega")["memory_bytes"] > 0 and main.site("omega")["pids"] > 0, 60)
    assert main.site("omega")["log_bytes"] is not None
    told = main.cli("figures", "omega", "--span", "hour", "--json").json
    assert told["name"] == "omega" and told["columns"] == far.api("GET", "/v1/sites/omega/figures")["columns"]
    assert main.api("GET", "/v1/sites/omega/quality")["site"] == "omega"


def cut(main: Any, where: tuple[str, ...], path: str, body: dict[str, Any], method: str = "POST") -> Any:
    """Ask for a change and let control die at each of these points, one after the other; the change, well ended."""
    key = f"cut{path.replace('/', '-')}"
    main.kill_role("control")
    for number, point in enumerate(where):
        main.start_role("control", f"services.{point}")
        if not number:
            main.until_ready()
            # Control may be gone before it has answered.
            with contextlib.suppress(OSError, http.client.HTTPException):
                main.api(method, path, body, key=key)
        until(lambda: not main.is_up("control"), 120, lambda: f"not yet at {point}: {main.tail()}")  # noqa: B023  waited for at once
        main.roles.pop("control").wait()
    main.start()
    return main.ended(main.api(method, path, body, key=key)["id"], good=True)


@pytest.mark.turn
def test_control_dies_while_a_backup_is_asked_for(there: Pair) -> None:
    """Faults 3 and 8: asked once however often it is sent; what was begun here ends by itself at the next start."""
    main, far = there.main, there.far
    before = len(far.api("GET", "/v1/backups?site=omega"))
    ended = cut(main, ("forward", "forwarded", "backup-mirrored"), "/v1/backups", {"site": "omega"})
    assert ended["result"]["backup"]
    assert len(far.api("GET", "/v1/backups?site=omega")) == before + 1


@pytest.mark.turn
def test_control_dies_while_a_name_changes(there: Pair) -> None:
    """Faults 3 and 8: wholly the new name in the end, here and there, and the old one free again."""
    main, far = there.main, there.far
    cut(main, ("rename-named", "renamed-there", "renamed-here"), "/v1/sites/omega/rename", {"name": "chi"})
    serves(there, "chi", "one")
    assert far.site("chi")["domains"] == ["chi.localhost"]
    main.cli("site", "rename", "chi", "omega")
    serves(there, "omega", "one")


@pytest.mark.turn
def test_control_dies_while_a_domain_comes(there: Pair) -> None:
    """Faults 3 and 8: the one that came leads there in the end, and the one that went is free, here and there."""
    main, far = there.main, there.far
    main.cli("site", "domain", "add", "omega", "old.omega.test")
    change = {"add_domains": ["new.omega.test"], "remove_domains": ["old.omega.test"]}
    cut(main, ("forward", "domains-there", "domains-here"), "/v1/sites/omega", change, "PATCH")
    until(lambda: "one" in main.fetch("new.omega.test", "/page.txt").body, 60, main.tail)
    assert main.site("omega")["domains"] == ["new.omega.test"]
    assert sorted(far.site("omega")["domains"]) == ["new.omega.test", "omega.localhost"]
    main.cli("site", "domain", "remove", "omega", "new.omega.test")


def test_other_answers(fleet: Pair) -> None:
    """A site of modules is asked, previewed and configured here and composed there."""
    main, far = fleet.main, fleet.far
    main.create("rho", page("static"), modules=["static"], node="far")
    until(lambda: far.site("rho")["state"] == "running", 60)
    asked = main.api("POST", "/v1/sites/rho/questions", {})
    assert asked["modules"] == list(far.api("POST", "/v1/sites/rho/questions", {})["modules"])
    plan = main.api("POST", "/v1/sites/rho/configure?dry_run=true", {})
    assert plan["site"] == "rho" and plan["version"] == main.site("rho")["version"]
    main._change(main.api("POST", "/v1/sites/rho/configure", {}), True)
    assert "configure" in [each["verb"] for each in far.journal(site="rho")]
    main.destroy("rho")


def test_through_the_one_door(fleet: Pair, tmp_path: Path) -> None:
    """sftp, scp, rsync, git and a shell of a person at the main machine's SSH port reach the site where it lives."""
    main = fleet.main
    user = pwd.getpwnam("alveole-ssh")
    (main.state / "ssh").mkdir(0o700, exist_ok=True)
    os.chown(main.state / "ssh", user.pw_uid, user.pw_gid)
    main.roles["ssh"] = main._popen(
        ["--role", "ssh"], user=user.pw_uid, group=user.pw_gid, extra_groups=[], umask=0o077
    )
    client = Client(main, tmp_path)
    client.person("ana", "owner")
    main.create("files", page("first"), node="far", owner="ana")
    until(lambda: "first" in main.fetch("files").body, 60)
    (tmp_path / "new.html").write_text("by sftp")
    done = client.sftp("ana+files", f"put {tmp_path / 'new.html'} index.html\nls\n")
    assert done.returncode == 0, (done, main.tail())
    (session,) = client.told("files")
    assert session["result"]["changed_files"] == 1 and session["actor"] == "ana"
    main.cli("site", "publish", "files")
    until(lambda: "by sftp" in main.fetch("files").body, 60)
    copied = run_text(["rsync", "-r", "-e", client.shell(), "ana+files@127.0.0.1:./", str(tmp_path / "copy")])
    assert copied.returncode == 0 and (tmp_path / "copy" / "index.html").read_text() == "by sftp", copied
    shell = client.ssh("ana+files", "-tt", "test -t 1 && cat /site/current/index.html")
    assert shell.stdout == "by sftp", shell
    work = tmp_path / "work"
    client.git(tmp_path, "init", "-q", "--initial-branch=main", "work")
    (work / "index.html").write_text("by git")
    client.git(work, "add", ".")
    client.git(work, "commit", "-qm", "one")
    pushed = client.git(work, "push", client_url(main.ssh_port), "main")
    assert "is deployed" in pushed.stderr, pushed
    until(lambda: "by git" in main.fetch("files").body, 60)
    assert [each["name"] for each in main.api("GET", "/v1/sites/files/files")["entries"]] == ["index.html"]
    client.person("ben", "owner")
    refused = client.ssh("ben+files", "id", key="ben")
    assert refused.returncode != 0 and "no site" in refused.stderr
    main.kill_role("ssh")
    main.destroy("files")


def client_url(port: int) -> str:
    return f"ssh://ana+files@127.0.0.1:{port}/x"


@pytest.mark.turn
def test_the_working_copy_goes_along(fleet: Pair) -> None:
    """What is not published is in a passport: it is there after a move, and after the way back."""
    main, far = fleet.main, fleet.far
    main.create("sigma", page("published"))
    put(main, "sigma", "draft.html", b"draft")
    until(lambda: main.api("GET", "/v1/sites/sigma/work")["visitors"] == 0, 60)
    main._change(main.api("POST", "/v1/sites/sigma/move", {"to": "far"}), True)
    assert main.api("GET", "/v1/sites/sigma/work")["files"] == 1
    assert far.api("GET", "/v1/sites/sigma/work")["names"] == ["'draft.html'"]
    put(main, "sigma", "second.html", b"more")
    until(lambda: main.api("GET", "/v1/sites/sigma/work")["visitors"] == 0, 60)
    main._change(main.api("POST", "/v1/sites/sigma/move", {"to": "here"}), True)
    until(lambda: main.site("sigma")["state"] == "running", 60)
    assert sorted(main.api("GET", "/v1/sites/sigma/work")["names"]) == ["'draft.html'", "'second.html'"]
    main.cli("site", "publish", "sigma")
    until(lambda: "more" in main.fetch("sigma", "/second.html").body, 60)
    main.destroy("sigma")


def put(main: Any, site: str, name: str, content: bytes) -> None:
    """Through the file manager, as the pages do it."""
    main.api("PUT", f"/v1/sites/{site}/files/content?at={name}", content)
