"""The state directory on a small file system of its own that fills up (fault 12), and damage on it (fault 14)."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_fault_killed import APP, word

from instance import Instance
from instancekit import ApiError, archive, page, run, until

INODES = 1500
MIB = 1 << 20


def small_disk(place: Path) -> None:
    """A file system of 160 MiB and few inodes, in a file beside ``place``; nothing of it is root's alone."""
    image = place.parent / "state.img"
    with image.open("wb") as file:
        file.truncate(160 << 20)
    run("mkfs.ext4", "-q", "-F", "-N", str(INODES), "-m", "0", "-O", "^has_journal", image)
    run("mount", "-o", "loop,nodev,nosuid", image, place)


@pytest.fixture(scope="module")
def machine() -> Iterator[Instance]:
    with Instance(state_on=small_disk, more="\n[content]\nreserve_bytes = 4194304\n") as made:
        made.create("still", page("static page"))
        # Without a limit of its own the site writes to the machine's disk.
        made.api("POST", "/v1/plans", {"name": "open", "cpu_millis": 500, "memory_bytes": 128 << 20, "pids": 64})
        made.create("app", word("one"), plan="open", **APP)
        made.create("spare", page("spare"))
        yield made


@contextlib.contextmanager
def full(machine: Instance, what: str) -> Iterator[None]:
    """Nothing is left of ``what``: bytes or inodes."""
    place = machine.state / "filler"
    place.mkdir()
    try:
        if what == "bytes":
            with contextlib.suppress(OSError), (place / "big").open("wb", buffering=0) as file:
                for size in (1 << 20, 4096, 512):
                    with contextlib.suppress(OSError):
                        while True:
                            file.write(b"x" * size)
        else:
            with contextlib.suppress(OSError):
                for number in range(INODES * 2):
                    (place / str(number)).touch()
        yield
    finally:
        run("rm", "-rf", place)


@pytest.mark.parametrize("what", ["bytes", "inodes"])
def test_the_state_disk_is_full(machine: Instance, what: str) -> None:
    """Fault 12: reading, serving and looking work; writing is refused cleanly; afterwards all is as before."""
    with full(machine, what):
        assert machine.fetch("still").status == 200 and machine.fetch("app").body == "one"
        assert {each["name"] for each in machine.api("GET", "/v1/sites")} >= {"still", "app"}
        assert machine.api("GET", "/v1/status")["agent"] is True
        assert machine.cli("site", "show", "still", "--json").json["state"] == "running"
        assert machine.cli("why", "still", "--json").json["links"]
        done = machine.cli("site", "create", "more", "--from", str(source(machine)), "--json", status=3)
        assert "no-room" in done.out + done.err or "room" in done.out + done.err, done
        done = machine.cli("backup", "create", "app", "--json", status=None)
        assert done.status in (3, 5), done
        assert machine.fetch("still").status == 200 and machine.fetch("app").body == "one"
    until(lambda: machine.site("app")["change"] is None, 30)
    machine.until_kept()
    assert "more" not in {each["name"] for each in machine.api("GET", "/v1/sites")}
    machine.cli("site", "create", "more", "--from", str(source(machine)))
    machine.until_answers("more", "content")
    machine.destroy("more")


def test_deleting_makes_room(machine: Instance) -> None:
    """Fault 12: a full disk does not keep anybody from stopping and destroying a site."""
    with full(machine, "bytes"):
        refused = machine.cli("site", "create", "more", "--command", "x", "--json", status=3)
        assert "full" in refused.out + refused.err
        machine.cli("site", "stop", "spare")
        machine.cli("site", "destroy", "spare", "--yes")
        assert machine.fetch("spare").status == 404
    machine.until_kept()


def test_control_and_agent_start_on_a_full_disk(machine: Instance) -> None:
    """Fault 12: what is kept is served and shown, and whatever ended is started again."""
    with full(machine, "bytes"):
        machine.stop()
        machine.start()
        assert machine.fetch("still").status == 200
        os.kill(machine.workload_pid("still"), 9)
        machine.until_answers("still", seconds=20)
    machine.until_kept()


def free(machine: Instance) -> int:
    found = os.statvfs(machine.state)
    return found.f_bavail * found.f_frsize


@contextlib.contextmanager
def only(machine: Instance, left: int) -> Iterator[None]:
    """So many bytes are left, enough to begin with; what the body takes of them is given back when it ends."""
    place = machine.state / "filler"
    with place.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free(machine) - left)
    try:
        yield
        until(lambda: free(machine) > left - MIB, 30, lambda: f"{left - free(machine)} bytes are not given back")
    finally:
        place.unlink()


def test_versions_meet_a_full_disk(machine: Instance) -> None:
    """Fault 12: sending, delivering, deploying and synchronising end by themselves and say that there is no room and
    what helps; the old version serves, nothing half done is left, and with room each works."""
    body = {"name": "shop", "environments": ["alpha", "prod"], "accept": "at-once", "plan": "open", **APP}
    machine.ended(machine.api("POST", "/v1/apps", body)["id"], good=True)

    def ask(path: str, room: int = 0, **wanted: Any) -> Any:
        if not room:
            return machine.ended(machine.api("POST", f"/v1/apps/shop/{path}", wanted)["id"], good=True)
        with only(machine, room):
            ended = machine.ended(machine.api("POST", f"/v1/apps/shop/{path}", wanted)["id"])
            assert ended["state"] == "failed" and ended["result"]["code"] == "no-room", ended
            assert ended["problems"][0]["hint"], "it names what to do"
            assert machine.fetch("shop-alpha").body == "one"
        machine.until_kept()
        left = [file for file in machine.state.glob("sites/*/staging/*") if file.name != "lost+found"]
        assert not left, "nothing half done"
        return None

    def there() -> Any:
        return machine.api("GET", "/v1/apps/shop")["environments"][0]

    ask("versions", version="one", upload=machine.upload(word("one")))
    for environment in ("alpha", "prod"):
        ask(f"environments/{environment}/deliver", version="one")
        ask(f"environments/{environment}/deploy")
        fill = ("dd", "if=/dev/urandom", "of=/data/rows", "bs=1M", "count=12")
        machine.cli("site", "exec", f"shop-{environment}", "--no-tty", "--", *fill)
    # Under the ceiling of what an archive may grow.
    second = archive({"word": "two", "pad": os.urandom(16_384) * 1536})
    ask("versions", 12 * MIB, version="two", upload=machine.upload(second))
    assert [each["name"] for each in machine.api("GET", "/v1/apps/shop/versions")] == ["one"]
    ask("versions", version="two", upload=machine.upload(second))
    ask("environments/alpha/deliver", 12 * MIB, version="two")
    assert there()["delivered"] is None
    ask("environments/alpha/deliver", version="two")
    ask("environments/alpha/deploy", 10 * MIB)
    assert there()["live"]["version"] == "one" and there()["delivered"]["version"] == "two"
    sync = {"source": "prod", "data": True, "confirm": "alpha"}
    ask("environments/alpha/synchronise", 10 * MIB, **sync)
    assert {each["site"] for each in machine.api("GET", "/v1/backups")} <= {"app"}
    ask("environments/alpha/deploy")
    assert machine.fetch("shop-alpha").body == "two"
    for each in machine.api("GET", "/v1/backups"):
        machine.cli("backup", "delete", each["id"], "--yes")
    machine.ended(machine.api("DELETE", "/v1/apps/shop?confirm=shop")["id"], good=True)
    for environment in ("alpha", "prod"):
        machine.destroy(f"shop-{environment}")


@pytest.mark.turn
def test_a_past_day_meets_a_full_disk(machine: Instance, request: pytest.FixtureRequest) -> None:
    """Fault 12: opening one ends by itself, says that there is no room, leaves nothing; what is open can close."""
    run_in = ("site", "exec", "app", "--no-tty", "--")
    machine.cli(*run_in, "dd", "if=/dev/urandom", "of=/data/rows", "bs=1M", "count=12")
    backup = machine.ended(machine.api("POST", "/v1/backups", {"site": "app"})["id"], good=True)["result"]["backup"]
    machine.cli(*run_in, "rm", "/data/rows")

    def there() -> list[str]:
        # What is removed goes a moment later.
        return sorted(each.name for each in (machine.state / "sites").iterdir() if not each.name.startswith("."))

    def opened() -> Any:
        return machine.ended(machine.api("POST", f"/v1/backups/{backup}/open", {"length": "1h"})["id"])

    def put_back() -> None:
        for each in machine.api("GET", "/v1/past-days"):
            machine.ended(machine.api("DELETE", f"/v1/past-days/{each['id']}")["id"])
        machine.cli("backup", "delete", backup, "--yes", status=None)

    before = there()
    request.addfinalizer(put_back)
    with only(machine, 14 * MIB):
        ended = opened()
        assert ended["state"] == "failed" and ended["result"]["code"] == "no-room", ended
        assert ended["problems"][0]["hint"], "it names what to do"
        assert machine.fetch("app").body == "one"
        until(lambda: not machine.api("GET", "/v1/past-days"), 60, machine.tail)
        until(lambda: there() == before, 60, lambda: f"{before} {there()}")
    day = opened()
    assert day["state"] == "done", day
    with full(machine, "bytes"):
        with pytest.raises(ApiError) as refused:
            opened()
        assert refused.value.status == 507
        assert machine.fetch("app").body == "one"
        machine.ended(machine.api("DELETE", f"/v1/past-days/{day['result']['past']}")["id"], good=True)
        assert machine.api("GET", "/v1/past-days") == []
    until(lambda: there() == before, 60, lambda: f"{before} {there()}")


def source(machine: Instance) -> Path:
    place = machine.root / "source"
    place.mkdir(exist_ok=True)
    (place / "index.html").write_text("content " * 20_000)
    return place


def flip(file: Path, at: float = 0.5) -> bytes:
    """What was written: it may be replaced before anybody reads it."""
    content = bytearray(file.read_bytes())
    content[int(len(content) * at)] ^= 0xFF
    file.write_bytes(content)
    return bytes(content)


def contents(file: Path) -> bytes | None:
    with contextlib.suppress(FileNotFoundError):
        return file.read_bytes()
    return None


def test_a_damaged_certificate_is_replaced_and_never_served() -> None:
    """Fault 14."""
    with Instance() as alveole:
        alveole.create("own", page("own"), domains=["own.example.org"])
        file = alveole.state / "certs" / "own.example.org.pem"
        damaged = flip(file, 0.6)
        until(lambda: contents(file) not in (None, damaged), 30, "the damaged file stays")
        alveole.until_answers("own.example.org", https=True)
        alveole.until_repaired("certificate/own.example.org")


def test_a_damaged_row_is_named_and_set_aside() -> None:
    """Fault 14: the other sites are as they were, the damaged one is named and its instance goes on."""
    with Instance() as alveole:
        alveole.create("good", page("good"))
        alveole.create("hurt", page("hurt"))
        id = alveole.site("hurt")["id"]
        alveole.stop()
        with sqlite3.connect(alveole.state / "control" / "alveole.db") as database:
            changed = database.execute(
                "UPDATE sites SET document = replace(document, '\"hurt\"', '\"evil\"') WHERE id = ?", (id,)
            )
            assert changed.rowcount == 1
        alveole.start()
        status = alveole.api("GET", "/v1/status")
        assert any(id in each or "hurt" in each for each in status["damaged"]), status
        assert {each["name"] for each in alveole.api("GET", "/v1/sites")} == {"good"}
        assert alveole.fetch("good").status == 200
        assert alveole.fetch("hurt").body.count("hurt") and alveole.fetch("evil").status == 404
        with pytest.raises(ApiError) as caught:
            alveole.site(id)
        assert caught.value.status in (404, 409)
        alveole.create("new", page("new"))
        assert alveole.fetch("new").status == 200


def test_a_damaged_database_is_read_only_and_named() -> None:
    """Fault 14: a page of the database is rubbish; sites are served, nothing is written, doctor or status names it."""
    with Instance() as alveole:
        alveole.create("good", page("good"))
        for number in range(3):
            alveole.update("good", page(str(number)))
        alveole.stop()
        file = alveole.state / "control" / "alveole.db"
        with sqlite3.connect(file) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            (root,) = database.execute(
                "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_changes_1'"
            ).fetchone()
            (size,) = database.execute("PRAGMA page_size").fetchone()
        content = bytearray(file.read_bytes())
        content[(root - 1) * size + 8 : root * size] = b"\xa5" * (size - 8)
        owner = file.stat()
        file.write_bytes(content)
        os.chown(file, owner.st_uid, owner.st_gid)
        for beside in ("-wal", "-shm"):
            file.with_name(file.name + beside).unlink(missing_ok=True)
        alveole.start(ready=False)

        def answers() -> bool:
            with contextlib.suppress(OSError, ApiError):
                return bool(alveole.api("GET", "/v1/status")["damaged"])
            return False

        until(answers, 30, lambda: alveole.tail())
        assert alveole.fetch("good").status == 200
        with pytest.raises(ApiError) as caught:
            alveole.create("more", page("x"))
        assert caught.value.status in (409, 503), caught.value
        assert "damaged" in str(caught.value.document)
        assert [each["name"] for each in alveole.api("GET", "/v1/sites")] == ["good"]


def test_damaged_content_is_noticed(machine: Instance) -> None:
    """Fault 14: the link to the live release is broken by hand; it comes back."""
    site = machine.site("still")
    current = machine.state / "sites" / site["id"] / "content" / "current"
    current.unlink()
    machine.until_answers("still", "static page")


def test_damaged_upload_is_refused(machine: Instance) -> None:
    """Fault 14: an archive with a flipped bit is refused as a whole, and named."""
    content = bytearray(word("x" * 4000))
    content[len(content) // 2] ^= 0xFF
    with pytest.raises(ApiError) as caught:
        found: Any = machine.create("flipped", bytes(content), wait=False, **APP)
        ended = machine.ended(found["id"])
        assert ended["state"] == "failed" and ended["problems"], ended
        raise ApiError(422, ended)
    assert caught.value.status == 422
    until(lambda: "flipped" not in {each["name"] for each in machine.api("GET", "/v1/sites")}, 30)
