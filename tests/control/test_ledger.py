"""The journal's chain: what was changed, removed, put in, moved or cut off shows, and names the first such row."""

# ruff: noqa: S608  the statements are the test's own
from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from controlkit import READER, ROOT, Control, make_settings, until

from alveole import ledger
from alveole.actuators.anchors import KEPT, MOST, Anchors
from alveole.agent.anchoring import Anchor
from alveole.errors import Refused
from alveole.ledger import JournalView
from alveole.people.model import Actor, Role
from alveole.store import Store, tables
from alveole.testing import FakeAgent


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    """With a journal of several changes, and repairs; nobody writes any more."""
    settings = make_settings(tmp_path_factory.mktemp("alv"), journal={"anchor_seconds": 0.05})
    made = Control(settings, FakeAgent())
    made.static("one")
    made.app("two")
    made.done(made.services.stop_site(ROOT, "two"))
    made.agent.crash(made.show("one").id, 0)
    made.quiet()
    yield made
    made.services.close()


def verified(control: Control) -> JournalView:
    return control.services.verify_journal(READER)


def anchored(control: Control) -> None:
    until(lambda: control.agent.anchors and control.agent.anchors[-1].hash == verified(control).head)


@pytest.fixture
def database(control: Control) -> Iterator[sqlite3.Connection]:
    """Somebody with a hand in the file itself; everything is put back afterwards."""
    anchored(control)
    with sqlite3.connect(control.settings.database, isolation_level=None) as connection:
        kept = {
            table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in ("links", "changes", "events")
        }
        anchors = list(control.agent.anchors)
        yield connection
        connection.execute("BEGIN")
        for table, rows in kept.items():
            connection.execute(f"DELETE FROM {table}")
            connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)
        connection.execute("COMMIT")
        control.agent.anchors = anchors
    assert verified(control).ok


def test_a_sound_journal_is_said_to_be_so(control: Control) -> None:
    anchored(control)
    found = verified(control)
    assert found.ok and found.broken is None and found.changes >= 4 and found.links >= 2 * 3
    assert found.anchored == found.links and found.first_at is not None
    with pytest.raises(Refused):
        control.services.verify_journal(Actor("ana", Role.OWNER, "session:x", person="pa"))


MIDDLE = "(SELECT seq FROM changes WHERE verb = 'create' ORDER BY seq DESC LIMIT 1)"
OTHER = "(SELECT seq FROM changes WHERE verb = 'stop')"
EVENT = f"(SELECT min(seq) + 1 FROM events WHERE change_id = (SELECT id FROM changes WHERE seq = {MIDDLE}))"
LINK = "(SELECT max(seq) - 2 FROM links)"
COPY = "verb, actor, state, site_id, site_name, reason, started_at, ended_at, problems, result, work, via, actor_key"


@pytest.mark.parametrize(
    ("statements", "what"),
    [
        ((f"UPDATE changes SET actor = 'somebody' WHERE seq = {MIDDLE}",), "changed"),
        ((f"UPDATE changes SET state = 'failed' WHERE seq = {MIDDLE}",), "changed"),
        ((f"UPDATE changes SET ended_at = ended_at + 1 WHERE seq = {MIDDLE}",), "changed"),
        ((f"UPDATE changes SET via = '', actor_key = 'x' WHERE seq = {MIDDLE}",), "changed"),
        ((f"UPDATE events SET text = text || '.' WHERE seq = {EVENT}",), "changed"),
        ((f"UPDATE events SET seconds = 1 WHERE seq = {EVENT}",), "changed"),
        ((f"DELETE FROM changes WHERE seq = {MIDDLE}",), "removed"),
        ((f"DELETE FROM events WHERE seq = {EVENT}",), "removed"),
        ((f"INSERT INTO changes (id, {COPY}) SELECT 'cfalse', {COPY} FROM changes WHERE seq = {MIDDLE}",), "inserted"),
        (("INSERT INTO events SELECT max(seq) + 1, change_id, at, level, resource, text, seconds FROM events",), None),
        (
            ("INSERT INTO events SELECT max(seq) + 1, 'cno', at, level, resource, text, seconds FROM events",),
            "inserted",
        ),
        (
            (
                f"UPDATE changes SET seq = -1 WHERE seq = {OTHER}",
                f"UPDATE changes SET seq = (SELECT max(seq) FROM changes) + 1 WHERE seq = {MIDDLE}",
                "UPDATE changes SET seq = 1 + (SELECT max(seq) FROM changes) WHERE seq = -1",
            ),
            "changed",
        ),
        ((f"UPDATE links SET digest = hash WHERE seq = {LINK}",), "changed"),
        ((f"DELETE FROM links WHERE seq = {LINK}",), "removed"),
        (
            (
                f"UPDATE links SET seq = -1 WHERE seq = {LINK}",
                f"UPDATE links SET seq = {LINK} WHERE seq = {LINK} + 1",
                f"UPDATE links SET seq = {LINK} + 1 WHERE seq = -1",
            ),
            "changed",
        ),
        (("DELETE FROM links WHERE seq = (SELECT max(seq) FROM links)",), "cut"),
        (("DELETE FROM links", "DELETE FROM events", "DELETE FROM changes"), "cut"),
    ],
)
def test_whatever_is_done_to_the_rows_shows(
    control: Control, database: sqlite3.Connection, statements: tuple[str, ...], what: str | None
) -> None:
    for statement in statements:
        assert database.execute(statement).rowcount > 0
    found = verified(control)
    assert not found.ok and found.broken is not None
    assert found.broken.what == what or (what is None and found.broken.what in ("inserted", "changed"))
    assert found.broken.row and found.broken.text


def chain_anew(database: sqlite3.Connection) -> None:
    """What somebody would do who knows how the chain is made."""
    import sqlalchemy as sa

    path = database.execute("PRAGMA database_list").fetchone()[2]
    database.execute("DELETE FROM links")
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        ledger.chain_all(connection)
    engine.dispose()


@pytest.mark.parametrize("cut", [False, True])
def test_a_chain_that_was_made_anew_shows_by_the_anchors(
    control: Control, database: sqlite3.Connection, cut: bool
) -> None:
    """Also where the last change was taken away with everything that is about it."""
    if cut:
        id = database.execute("SELECT id FROM changes ORDER BY seq DESC LIMIT 1").fetchone()[0]
        database.execute("DELETE FROM events WHERE change_id = ?", (id,))
        database.execute("DELETE FROM changes WHERE id = ?", (id,))
    else:
        database.execute(f"UPDATE changes SET reason = 'another' WHERE seq = {MIDDLE}")
    chain_anew(database)
    found = verified(control)
    assert not found.ok and found.broken is not None and found.broken.what in ("rewritten", "cut")
    control.agent.anchors.clear()
    assert verified(control).ok, "the rows and the chain fit each other: only the anchors tell"


def test_doctor_says_when_the_agent_knows_of_more(control: Control) -> None:
    """As after the database was restored from an older copy."""
    kept = list(control.agent.anchors)
    control.agent.anchors.append(Anchor(10_000, "0" * 64))
    control.services.journal.end(control.services.journal.begin("exec", ROOT))
    try:
        until(lambda: any(link.name == "journal" and not link.ok for link in control.services.doctor(ROOT).links))
    finally:
        control.agent.anchors = kept
        control.services.journal.end(control.services.journal.begin("exec", ROOT))
    until(lambda: all(link.ok for link in control.services.doctor(ROOT).links if link.name == "journal"))


def test_without_the_agent_it_is_not_said_to_be_in_order(control: Control) -> None:
    control.agent.down = True
    try:
        found = verified(control)
    finally:
        control.agent.down = False
    assert not found.ok and found.broken is None and "does not answer" in found.anchor_problem


def test_writers_at_once_make_one_chain(control: Control) -> None:
    def write(number: int) -> None:
        for each in range(10):
            live = control.services.journal.begin("exec", ROOT, reason=f"{number}.{each}")
            live.say("said")
            control.services.journal.end(live)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    before = verified(control).links
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = verified(control)
    assert found.ok and found.links >= before + 60


def test_what_is_too_old_goes_and_the_rest_can_be_verified(control: Control, database: sqlite3.Connection) -> None:
    """Twice, so that a pruning is itself removed; the anchors go on to fit."""
    services, journal = control.services, control.services.journal
    with services.store.write() as transaction:
        slow = journal.begin("login", ROOT, transaction=transaction)
    journal.end(journal.begin("exec", ROOT, reason="after it"))
    for _round in range(2):
        first = verified(control)
        with services.store.write() as transaction:
            pruned = ledger.prune(transaction.connection, time.time() + 1, "cprune")
        assert pruned is not None and pruned.changes >= (1 if _round else 4)
        found = verified(control)
        assert found.ok and found.pruned == pruned and found.changes == first.changes - pruned.changes
        if _round == 0:
            assert journal.get(slow.id) is not None, "what goes on is never removed, nor what came after it began"
            assert found.changes >= 2
            journal.end(slow)
    control.services.ticker.poke("anchor")
    anchored(control)
    database.execute("DELETE FROM links WHERE seq = (SELECT min(seq) FROM links)")
    assert not verified(control).ok


def test_a_forged_pruning_shows_by_the_anchor_of_its_end(control: Control, database: sqlite3.Connection) -> None:
    seq = database.execute("SELECT max(seq) FROM links").fetchone()[0]
    with control.services.store.write() as transaction:
        note = f'{{"through":{seq},"hash":"{"1" * 64}","changes":1,"newest":1.0}}'
        ledger.append(transaction.connection, "cx", ledger.PRUNED, ledger.digest_of(ledger.PRUNED, note), note=note)
    database.execute("DELETE FROM links WHERE seq <= ?", (seq,))
    found = verified(control)
    assert found.broken is not None and found.broken.what == "rewritten"


def test_the_settings_say_what_is_removed(directory: Path) -> None:
    control = Control(make_settings(directory, journal={"keep_seconds": 0.01, "anchor_seconds": 0.05}), FakeAgent())
    try:
        control.static()
        time.sleep(0.05)
        control.services._prune_journal()
        found = verified(control)
        assert found.ok and found.pruned is not None and found.pruned.changes >= 1
        assert "prune-journal" in {each.verb for each in control.services.journal.list()}
    finally:
        control.services.close()


@pytest.mark.parametrize("point", ["store.before-commit:2", "store.after-commit:2"])
def test_a_killed_writer_leaves_a_whole_chain(directory: Path, point: str) -> None:
    """Faults 1 and 2: the link is in the same transaction as what it covers."""
    path = directory / "alveole.db"
    code = (
        "from pathlib import Path; from alveole.store import Store; from alveole.journal import Journal\n"
        f"journal = Journal(Store(Path({str(path)!r})))\n"
        "for number in range(3): journal.end(journal.begin('exec', 'root', reason=str(number)))"
    )
    environment = {**os.environ, "ALVEOLE_FAILPOINT": point}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert ended.returncode == -signal.SIGKILL
    store = Store(path)
    with store.read() as connection:
        found = ledger.verify(connection, ())
    assert found.ok and found.changes == found.links == (1 if "before" in point else 2)
    store.close()


def test_the_migration_chains_what_is_there(directory: Path) -> None:
    from alembic import command
    from alembic.config import Config

    import alveole.store as store_module

    path = directory / "alveole.db"
    import sqlalchemy as sa

    engine = sa.create_engine(f"sqlite:///{path}")
    config = Config()
    config.set_main_option("script_location", str(Path(store_module.__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0004")
        for number, (state, ended) in enumerate((("done", 2.5), ("failed", 3.0), ("running", None))):
            row = {"id": f"c{number}", "verb": "stop", "actor": "root", "state": state, "reason": "é"}
            row |= {"started_at": 1.0, "ended_at": ended, "problems": "[]", "result": "{}"}
            connection.execute(sa.insert(tables.changes).values(**row))
            for text in ("a", "b"):
                event = {"change_id": f"c{number}", "at": 2, "level": "info", "resource": "", "text": text}
                connection.execute(sa.insert(tables.events).values(**event))
    engine.dispose()
    store = Store(path)
    with store.read() as connection:
        found = ledger.verify(connection, ())
    assert found.ok and (found.changes, found.links) == (3, 4)
    with store.write() as transaction:
        transaction.connection.execute(sa.update(tables.events).where(tables.events.c.seq == 4).values(text="c"))
    with store.read() as connection:
        broken = ledger.verify(connection, ()).broken
    assert broken is not None and broken.row == "changes/2"
    store.close()


# --- the agent's file ---------------------------------------------------------------------------
def test_the_agent_takes_no_anchor_back(directory: Path) -> None:
    settings = make_settings(directory)
    settings.state.mkdir()
    anchors = Anchors(settings)
    anchors.keep(1, "a" * 64)
    anchors.keep(3, "b" * 64)
    anchors.keep(3, "b" * 64)
    wrong: tuple[tuple[int, str], ...] = ((2, "a" * 64), (3, "c" * 64))
    for seq, hash in wrong:
        with pytest.raises(Refused, match="link 3"):
            anchors.keep(seq, hash)
    assert anchors.path.stat().st_mode & 0o777 == 0o600
    assert [each.seq for each in Anchors(settings).all()] == [1, 3]
    anchors.path.write_bytes(anchors.path.read_bytes() + b'\n{"seq":4,"ha')
    later = Anchors(settings)
    later.keep(5, "d" * 64)
    assert [each.seq for each in Anchors(settings).all()] == [1, 3, 5], "what a power cut left half is no anchor"


def test_the_agents_file_stays_small(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fdatasync", lambda _file: None)
    settings = make_settings(directory)
    settings.state.mkdir()
    anchors = Anchors(settings)
    for seq in range(1, MOST + 10):
        anchors.keep(seq, f"{seq:064x}")
    found = Anchors(settings).all()
    assert len(found) <= MOST and found[-1].seq == MOST + 9 and len(found) >= KEPT
