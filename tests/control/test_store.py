"""The database: acknowledged writes last, a full disk refuses, damage is named and set aside."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from controlkit import READER, ROOT, Control, make_settings, until

import alveole.store as store_module
from alveole import requests as ask
from alveole.errors import AlveoleError, NoRoom, Refused
from alveole.issuing import rows  # noqa: F401  its tables are of the same metadata
from alveole.model.change import ChangeState
from alveole.store import HEAD, Store, new_id, tables
from alveole.testing import FakeAgent
from alveole.views import State


@pytest.fixture
def path(directory: Path) -> Path:
    return directory / "alveole.db"


def test_the_migrations_make_the_tables_that_the_code_uses(path: Path) -> None:
    Store(path).close()
    with sa.create_engine(f"sqlite:///{path}").connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []
    scripts = ScriptDirectory(str(Path(store_module.__file__).parent / "migrations"))
    assert scripts.get_current_head() == HEAD


@pytest.mark.parametrize("point", ["store.migrate", "store.migrated"])
def test_a_migration_that_is_killed_leaves_the_old_or_the_new_schema(path: Path, point: str) -> None:
    """Fault 21."""
    code = f"from pathlib import Path; from alveole.store import Store; Store(Path({str(path)!r}))"
    environment = {**os.environ, "ALVEOLE_FAILPOINT": point}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert ended.returncode == -signal.SIGKILL
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    store = Store(path)
    assert set(store.plans) == {"small", "medium", "large"}
    store.close()


def test_leases_fill_the_smallest_gap(path: Path) -> None:
    store = Store(path)
    given = []
    with store.write() as transaction:
        for _each in range(5):
            id = new_id("s")
            given.append((transaction.lease(id, 5), id))
        assert [number for number, _id in given] == [1, 2, 3, 4, 5]
        with pytest.raises(NoRoom):
            transaction.lease(new_id("s"), 5)
        for number in (1, 3):
            transaction.delete_site(given[number - 1][1])
        assert [transaction.lease(new_id("s"), 5) for _each in range(2)] == [1, 3]
    store.close()


def test_a_write_that_fails_changes_nothing(control: Control) -> None:
    """Fault 1: neither the database nor what is kept in memory."""
    control.static()
    store = control.services.store
    before = dict(store.sites)
    with pytest.raises(RuntimeError), store.write() as transaction:
        transaction.delete_site(next(iter(before)))
        raise RuntimeError
    assert dict(store.sites) == before
    control.restart()
    assert dict(control.services.store.sites) == before


def fill(control: Control, full: bool) -> None:
    """Let the database grow no more, as a full disk would: SQLITE_FULL."""
    with control.services.store._lock, control.services.store._writer.connect() as connection:
        raw = connection.connection.dbapi_connection
        assert raw is not None
        pages = raw.execute("PRAGMA page_count").fetchone()[0]
        raw.execute(f"PRAGMA max_page_count={pages if full else 1 << 30}")


def test_a_full_disk(control: Control) -> None:
    """Fault 12: writes are refused cleanly; reading, repairs and what runs go on."""
    site = control.static()
    control.quiet()
    fill(control, True)
    with pytest.raises(NoRoom, match="full"):
        for number in range(200):
            request = ask.CreateSite(name=f"x{number}", command=("serve",), env={"A": "x" * 30_000})
            control.services.create_site(ROOT, request)
    known = {each.name for each in control.services.list_sites(READER)}
    control.agent.crash(site.id, 0)
    until(lambda: control.show("blog").state is State.RUNNING)
    fill(control, False)
    control.static("later")
    control.quiet()
    control.restart()
    assert {each.name for each in control.services.list_sites(READER)} == known | {"later"}
    changes = control.services.list_changes(ROOT, ask.ListChanges(site="blog"))
    assert any(each.verb == "repair" for each in changes), "written once there was room"


def test_an_upload_that_does_not_fit_is_refused(directory: Path) -> None:
    """Fault 12: the reserve of the state disk is never eaten by uploads."""
    control = Control(make_settings(directory, content={"reserve_bytes": 1 << 60, "bytes": 1000}), FakeAgent())
    try:
        with pytest.raises(NoRoom):
            control.services.new_upload(ROOT, 10)
        assert not list((control.settings.database.parent / "uploads").iterdir())
    finally:
        control.services.close()


def test_a_damaged_row_is_named_and_set_aside(control: Control) -> None:
    """Fault 14: flipped bytes in a site's row; nothing of it is touched, other sites go on."""
    bad, good = control.static("bad"), control.static("good")
    control.quiet()
    control.services.close()
    with sqlite3.connect(control.settings.database) as connection:
        connection.execute("UPDATE sites SET document = replace(document, 'bad', 'bbd') WHERE id = ?", (bad.id,))
    there = control.agent.of(bad.id)
    applied = len(control.agent.applied())
    control.restart()
    until(lambda: control.show("good").state is State.RUNNING)
    assert control.services.status(READER).damaged == ("site bad: its row does not fit its checksum",)
    assert not control.services.doctor(READER).ok
    with pytest.raises(Refused, match="set aside"):
        control.services.show_site(ROOT, bad.id)
    with pytest.raises(Refused, match="another site"):
        control.services.create_site(ROOT, ask.CreateSite(name="bad", command=("serve",)))
    assert control.agent.of(bad.id) == there and len(control.agent.applied()) == applied
    assert control.static("new").number not in (bad.number, good.number)


def test_a_file_that_is_no_database_is_named(path: Path) -> None:
    """Fault 14."""
    path.write_bytes(b"no database at all, and long enough to be read as one" * 100)
    with pytest.raises(AlveoleError, match=str(path)):
        Store(path)


def test_flipped_pages_are_noticed(control: Control) -> None:
    """Fault 14: quick_check at the start; then reading goes on and writing is refused."""
    for number in range(20):
        control.app(f"s{number}", env={"A": "x" * 2000})
    control.quiet()
    control.services.close()
    data = bytearray(control.settings.database.read_bytes())
    with sqlite3.connect(control.settings.database) as connection:
        page = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'ix_events_change_id'").fetchone()[0]
        size = connection.execute("PRAGMA page_size").fetchone()[0]
    data[(page - 1) * size : (page - 1) * size + 200] = b"\xff" * 200
    control.settings.database.write_bytes(data)
    control.restart()
    assert "database" in control.services.store.damaged
    assert len(control.services.list_sites(READER)) == 20
    with pytest.raises(Refused, match="damaged"):
        control.services.stop_site(ROOT, "s0")


def test_the_same_key_has_one_effect(control: Control) -> None:
    """Fault 2."""
    request = ask.CreateSite(name="app", command=("serve",))
    first = control.services.create_site(ROOT, request, key="k1")
    control.done(first)
    assert control.services.create_site(ROOT, request, key="k1").id == first.id
    control.restart()
    assert control.services.create_site(ROOT, request, key="k1").id == first.id
    with pytest.raises(Refused, match="another request"):
        control.services.create_site(ROOT, ask.CreateSite(name="other", command=("serve",)), key="k1")
    with pytest.raises(Refused, match="taken"):
        control.services.create_site(ROOT, request, key="k2")
    stop = control.services.stop_site(ROOT, "app", key="k3")
    control.done(stop)
    assert control.services.stop_site(ROOT, "app", key="k3").id == stop.id


def test_the_same_key_at_the_same_moment(control: Control) -> None:
    """Fault 2: twenty at once, one effect."""
    request = ask.CreateSite(name="app", command=("serve",))
    found: list[Any] = []

    def ask_once() -> None:
        found.append(control.services.create_site(ROOT, request, key="k").id)

    threads = [threading.Thread(target=ask_once) for _each in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20 and len(set(found)) == 1


def test_one_name_many_requests(control: Control) -> None:
    """P18: of twenty that ask for the same name at once, one gets it and all others are told."""
    results: list[str] = []

    def ask_once() -> None:
        try:
            results.append(control.services.create_site(ROOT, ask.CreateSite(name="app", command=("serve",))).id)
        except Refused:
            results.append("refused")

    threads = [threading.Thread(target=ask_once) for _each in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 20 and results.count("refused") == 19
    control.done(control.services.show_change(ROOT, next(each for each in results if each != "refused")))


def test_readers_cannot_write(path: Path) -> None:
    """SQLite before 3.51.3 can corrupt a WAL that two connections write: there is one writer."""
    store = Store(path)
    with pytest.raises((AlveoleError, sa.exc.OperationalError)), store.read() as connection:
        connection.execute(sa.delete(tables.plans))
    store.close()


def test_a_failed_change_says_so_after_a_restart(control: Control) -> None:
    control.done(
        control.services.create_site(ROOT, ask.CreateSite(name="bad", upload=control.upload(b"BAD"))),
        ChangeState.FAILED,
    )
    control.restart()
    (change,) = control.services.list_changes(ROOT, ask.ListChanges(site="bad"))
    assert "not an archive" in change.problems[0].message
