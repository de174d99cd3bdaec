"""A machine that is driven over a real sshd: added, used, cut off, and sites that go there and come back."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleetkit import COMMAND, Pair

from alveole import __version__
from instancekit import ApiError, directory, page, until
from loadkit import Load


@pytest.fixture(scope="module")
def fleet(pair: Pair) -> Iterator[Pair]:
    """The pair, with the second machine as node ``far`` of the first."""
    pair.up()
    pair.let_in()
    pair.add()
    yield pair


def packed(checkout: Path) -> bytes:
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w:gz") as tar:
            tar.add(checkout, ".")
        return file.getvalue()


def state(pair: Pair, name: str) -> str:
    return str(pair.main.site(name)["state"])


def test_another_host_key_is_refused(pair: Pair) -> None:
    """Who stands between shows a key of his own: nothing is sent to him, and nothing stored."""
    pair.up()
    wrong = "SHA256:" + "A" * 43
    words = ("node", "add", f"root@127.0.0.1:{pair.port}", "--name", "far", "--no-install")
    refused = pair.main.cli(*words, "--fingerprint", wrong, "--config", str(pair.far.config), "--json", status=3)
    assert refused.fields == {"fingerprint"}
    stranger = pair.main.cli(
        *words, "--fingerprint", pair.fingerprint, "--config", str(pair.far.config), "--json", status=3
    )
    assert "does not let this machine in" in stranger.out, "its key is in no authorized_keys yet"
    assert [each["name"] for each in pair.main.api("GET", "/v1/nodes")] == ["here"]
    pair.down()


def test_alveole_is_brought_there(fleet: Pair, tmp_path: Path) -> None:
    """The installer of the checkout is run there with these words; here it is one that only says how it was called."""
    checkout, place = tmp_path / "alveole", fleet.far.root / "source"
    directory(
        checkout, {"src/alveole/__init__.py": f'__version__ = "{__version__}"\n', "requirements.txt": "", "x": ""}
    )
    script = checkout / "scripts" / "quickstart"
    script.parent.mkdir()
    script.write_text('#!/bin/sh\necho "called: $*"\n')
    script.chmod(0o755)
    upload = fleet.main.upload(packed(checkout))
    wanted = {"host": "127.0.0.1", "port": fleet.port, "fingerprint": fleet.fingerprint, "upload": upload}
    more = {"config": str(fleet.far.config), "place": str(place)}
    ended = fleet.main._change(fleet.main.api("POST", "/v1/nodes/install", {**wanted, **more}), True)
    assert f"called: --yes --node --config {fleet.far.config}" in [each["text"] for each in ended["events"]]
    assert (place / "scripts/quickstart").exists()
    # What the installer says of itself is not about the way there, whatever it ends with.
    script.write_text('#!/bin/sh\necho "E: Could not open lock file - open (13: Permission denied)" >&2\nexit 255\n')
    begun = fleet.main.api(
        "POST", "/v1/nodes/install", {**wanted, **more, "upload": fleet.main.upload(packed(checkout))}
    )
    told = str(fleet.main.ended(begun["id"])["problems"])
    assert "cannot be reached" in told and "Permission" not in told and "let this machine in" not in told
    old = tmp_path / "old"
    directory(old, {"src/alveole/__init__.py": '__version__ = "0.0.1"\n', "scripts/quickstart": ""})
    words = ("node", "upgrade", "far", "--from", str(old), "--json")
    assert fleet.main.cli(*words, status=2).fields == {"from"}, "another version than runs here"


def test_a_site_on_a_node(fleet: Pair) -> None:
    """Made there, answered through the one entrance; who visits it is told by the main edge alone (threat 19)."""
    main, far = fleet.main, fleet.far
    assert main.cli("node", "check", "far", "--json").json["same_version"]
    main.create("alpha", page("far away"), node="far")
    until(lambda: far.site("alpha")["state"] == "running", 20)
    assert main.site("alpha")["node"] == "far"
    until(lambda: "far away" in main.fetch("alpha").body, 20)
    assert "far away" in main.fetch("alpha", https=True).body
    assert main.fetch("alpha", headers={"X-Forwarded-For": "203.0.113.9"}).status == 200
    log = far.state / "logs" / "edge" / str(far.site("alpha")["id"]) / "access.log"
    until(lambda: log.exists() and '"client":"127.0.0.1"' in log.read_text(), 20)
    assert "203.0.113.9" not in log.read_text()
    # As if control had been killed before it opened the socket, which ssh makes for itself alone, to the edge.
    web = main.run_dir / "lines" / "far" / "web"
    web.chmod(0o600)
    main.cli("node", "check", "far")
    assert web.stat().st_mode & 0o777 == 0o666
    main.update("alpha", page("newer"))
    until(lambda: "newer" in main.fetch("alpha").body, 20)
    main.verb("alpha", "stop")
    assert main.fetch("alpha").status == 503 and far.site("alpha")["wanted"] == "stopped"
    main.verb("alpha", "start")
    verbs = [each["verb"] for each in main.journal(site="alpha")]
    assert {"create", "update", "stop", "start"} <= set(verbs)
    with pytest.raises(ApiError):
        main.create("alpha", page("taken"))


def test_a_node_that_is_away(fleet: Pair) -> None:
    """Nothing is guessed: 503 with a page, the state and since when; the other sites and lists go on."""
    main = fleet.main
    main.create("near", page("near"))
    until(lambda: "newer" in main.fetch("alpha").body, 20)
    fleet.down()
    until(lambda: main.fetch("alpha").status == 503, 20)
    assert "out of reach" in main.fetch("alpha", https=True).body
    assert "near" in main.fetch("near").body
    until(lambda: state(fleet, "alpha") == "unreachable", 60)
    listed = {each["name"]: each for each in main.api("GET", "/v1/sites")}
    assert listed["alpha"]["seen_at"] and listed["near"]["state"] == "running"
    assert main.cli("node", "check", "far", status=5)
    assert "newer" in fleet.far.fetch("alpha.far.localhost").body, "it keeps its promises alone"
    fleet.up()
    until(lambda: "newer" in main.fetch("alpha").body, 60)
    until(lambda: state(fleet, "alpha") == "running", 60)
    main.destroy("near")
    main.destroy("alpha")
    assert fleet.far.api("GET", "/v1/sites") == []


def test_a_static_site_moves_under_load(fleet: Pair) -> None:
    main, far = fleet.main, fleet.far
    main.create("beta", page("moving"))
    with Load(main, "beta", threads=2) as load:
        main.cli("site", "move", "beta", "--to", "far")
        assert far.site("beta")["state"] == "running"
        until(lambda: main.site("beta")["node"] == "far", 20)
        main.cli("site", "move", "beta", "--to", "here")
        until(lambda: main.site("beta")["node"] == "", 20)
    load.check()
    assert far.site("beta")["wanted"] == "stopped", "the copy that is left"
    main.cli("site", "confirm", "beta")
    assert far.api("GET", "/v1/sites") == []
    main.destroy("beta")


def test_data_go_along(fleet: Pair) -> None:
    """Never two live copies of a volume: it is stopped, carried, started; for how long nothing answered is told."""
    main, far = fleet.main, fleet.far
    main.create("gamma", None, command=COMMAND, port=8000, volumes=[{"name": "data", "path": "/data"}])
    main.cli("site", "exec", "gamma", "--", "/bin/sh", "-c", "echo one > /data/page.txt")
    moved = main._change(main.api("POST", "/v1/sites/gamma/move", {"to": "far"}), True)
    assert 0 < moved["result"]["stopped_seconds"] < 60
    said = [each["text"] for each in moved["events"]]
    first = next(number for number, text in enumerate(said) if "while it runs" in text)
    assert first < next(number for number, text in enumerate(said) if text.startswith("stopping it"))
    until(lambda: "one" in main.fetch("gamma", "/page.txt").body, 20)
    kept = main.state / "sites" / str(moved["site_id"])
    assert kept.is_dir(), "the copy that is left, stopped"
    main.cli("site", "confirm", "gamma")
    until(lambda: not kept.exists(), 20)
    assert "one" in main.fetch("gamma", "/page.txt").body
    far.cli("site", "exec", "gamma", "--", "/bin/sh", "-c", "echo two > /data/page.txt")
    main._change(main.api("POST", "/v1/sites/gamma/move", {"to": "here"}), True)
    until(lambda: "two" in main.fetch("gamma", "/page.txt").body, 20)
    assert far.site("gamma")["wanted"] == "stopped"
    main.destroy("gamma")
    assert far.api("GET", "/v1/sites") == [], "the copy goes with the site"


@pytest.mark.turn
def test_control_dies_again_and_again(fleet: Pair) -> None:
    """Faults 3 and 8: one move, cut three times, goes on at the next start; one live copy, nothing lost."""
    main, far = fleet.main, fleet.far
    main.create("delta", None, command=COMMAND, port=8000, volumes=[{"name": "data", "path": "/data"}])
    main.cli("site", "exec", "delta", "--", "/bin/sh", "-c", "echo kept > /data/page.txt")
    main.kill_role("control")
    begun = ""
    for where in ("move-first", "packed", "move-made"):
        main.start_role("control", f"services.{where}")
        if not begun:
            main.until_ready()
            begun = main.api("POST", "/v1/sites/delta/move", {"to": "far"})["id"]
        until(lambda: not main.is_up("control"), 120, lambda: f"not yet at {where}: {main.tail()}")  # noqa: B023  waited for at once
        main.roles.pop("control").wait()
    main.start()
    ended = main.ended(begun, good=True, seconds=120)
    assert ended["result"]["node"] == "far"
    until(lambda: "kept" in main.fetch("delta", "/page.txt").body, 20)
    assert main.site("delta")["node"] == "far" and far.site("delta")["state"] == "running"
    main.destroy("delta")
    assert far.api("GET", "/v1/sites") == []


def test_the_least_used_machine(fleet: Pair) -> None:
    """By room: the machine with the most memory left; a drained one gets nothing, and loses what it has."""
    main = fleet.main
    main.create("large", page("large"), plan="large")
    main.create("anywhere", page("anywhere"), node="any")
    assert main.site("anywhere")["node"] == "far"
    main.cli("node", "drain", "far")
    until(lambda: main.site("anywhere")["node"] == "", 60)
    assert "anywhere" in main.fetch("anywhere").body
    with pytest.raises(ApiError):
        main.create("late", page("late"), node="far")
    with pytest.raises(ApiError):
        main.api("DELETE", "/v1/nodes/far")
    for name in ("large", "anywhere"):
        main.destroy(name)
    main.cli("node", "remove", "far")
    assert [each["name"] for each in main.api("GET", "/v1/nodes")] == ["here"]
