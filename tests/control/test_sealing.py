"""Secrets in the database are sealed with a key beside it: its file alone gives none away."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from controlkit import ROOT, Control, make_settings

import alveole.store as store_module
from alveole.errors import AlveoleError, Refused
from alveole.people.ldap import LdapSettings
from alveole.requests.checks import CheckSecret
from alveole.store import Store, sealing, tables
from alveole.testing import FakeAgent

SECRET = "correct-horse-battery-staple"
LDAP = {"servers": ["ldaps://directory.test"], "base": "dc=x", "bind_dn": "cn=reader", "bind_password": SECRET}
MIGRATIONS = Path(store_module.__file__).parent / "migrations"


def raw(directory: Path) -> bytes:
    """Everything that the database has on the disk, the write-ahead log too; but not the key."""
    return b"".join(path.read_bytes() for path in sorted(directory.glob("**/alveole.db*")))


def keep(store: Store, text: str = SECRET) -> None:
    """One value in each sealed column, as the services write them."""
    site, person = "s" + "a" * 12, "p" + "a" * 12
    with store.write() as transaction:
        run = transaction.connection.execute
        run(sa.insert(tables.settings).values(key="ldap", value=f'{{"bind_password":"{text}"}}'))
        run(sa.insert(tables.check_secrets).values(site_id=site, name="password", value=text, created_at=1.0))
        channel = {"id": "n1", "whom": person, "name": "x", "kind": "webhook", "document": "{}", "created_at": 1.0}
        run(sa.insert(tables.channels).values(**channel, secret=text))
        factor = {"id": "f1", "person_id": person, "kind": "totp", "name": "x", "counter": 0, "created_at": 1.0}
        run(sa.insert(tables.factors).values(**factor, secret=text))


def kept(store: Store) -> list[str]:
    rows = (tables.settings.c.key, "ldap"), (tables.check_secrets.c.name, "password")
    rows += (tables.channels.c.id, "n1"), (tables.factors.c.id, "f1")
    columns = (tables.settings.c.value, tables.check_secrets.c.value, tables.channels.c.secret, tables.factors.c.secret)
    with store.read() as connection:
        return [
            str(connection.execute(sa.select(column).where(key == name)).scalar_one())
            for column, (key, name) in zip(columns, rows, strict=True)
        ]


@pytest.fixture
def path(directory: Path) -> Path:
    return directory / "alveole.db"


def test_what_the_services_keep_is_nowhere_in_the_files(directory: Path) -> None:
    control = Control(make_settings(directory), FakeAgent())
    try:
        control.app()
        control.services.set_ldap(ROOT, LDAP)
        control.services.put_check_secret(ROOT, "app", "password", CheckSecret(value=SECRET))
        there = directory / "state/control"
        assert SECRET.encode() not in raw(there)
        control.restart()
        found = control.services._setting("ldap", LdapSettings)
        assert found is not None and found.bind_password == SECRET
        assert list(control.services.checks.secrets(control.show("app").id).values()) == [SECRET]
        # What was replaced and what was taken away is not left in a page either.
        control.services.set_ldap(ROOT, {**LDAP, "bind_password": "another"})
        control.services.drop_check_secret(ROOT, "app", "password")
        assert SECRET.encode() not in raw(there)
        key = there / sealing.KEY
        assert key.stat().st_mode & 0o777 == 0o600 and key.read_text().strip().encode() not in raw(there)
    finally:
        control.services.close()


def test_each_value_is_sealed_by_itself_and_for_its_column(path: Path) -> None:
    store = Store(path)
    keep(store)
    with sqlite3.connect(path) as connection:
        union = (
            "SELECT value FROM settings UNION ALL SELECT value FROM check_secrets"
            " UNION ALL SELECT secret FROM channels UNION ALL SELECT secret FROM factors"
        )
        sealed = [row[0] for row in connection.execute(union)]
        assert len(set(sealed)) == 4 and all(text.startswith("s1:") for text in sealed)
        # The value of another column, and one that somebody changed, opens nothing.
        connection.execute("UPDATE factors SET secret = (SELECT value FROM check_secrets)")
        changed = sealed[1][:-4] + ("AAA=" if not sealed[1].endswith("AAA=") else "BBB=")
        connection.execute("UPDATE channels SET secret = ?", (changed,))
    value, check, channel, factor = kept(store)
    assert SECRET in value and check == SECRET
    assert sealing.known(channel) == sealing.known(factor) == "" and channel != factor != sealed[1]
    store.close()


def test_without_its_key_it_opens_nothing_says_so_and_goes_on(directory: Path) -> None:
    """Fault 14 of the key: named, never guessed at, never made anew unasked; the old key opens all of it again."""
    control = Control(make_settings(directory), FakeAgent())
    key = directory / "state/control" / sealing.KEY
    try:
        control.app()
        control.services.set_ldap(ROOT, LDAP)
        control.services.put_check_secret(ROOT, "app", "password", CheckSecret(value=SECRET))
        before = key.read_text()
        key.unlink()
        control.restart()
        said = control.services.store.damaged["secrets"]
        assert str(key) in said and "settings" in said and "check_secrets" in said
        assert any(str(key) in text for text in control.services.status(ROOT).damaged)
        # As if none were set up; nobody comes in by it, and no password goes anywhere.
        assert control.services._setting("ldap", LdapSettings) is None
        assert SECRET not in control.services.checks.secrets(control.show("app").id).values()
        sealed = raw(key.parent)
        with pytest.raises(Refused, match="is lost") as refused:
            control.services.set_ldap(ROOT, {**LDAP, "bind_password": "another"})
        assert "backup" in str(refused.value) and not key.exists() and raw(key.parent) == sealed
        # Cut, or empty: neither passed over nor replaced.
        for cut in (before[:20], ""):
            key.write_text(cut)
            with pytest.raises(AlveoleError):
                control.services.set_ldap(ROOT, {**LDAP, "bind_password": "another"})
            assert key.read_text() == cut
        # A new one that somebody puts there: what is set anew holds, and the old one goes above it.
        key.write_text(f"{'5a' * 32}\n")
        control.restart()
        assert "above" in control.services.store.damaged["secrets"]
        control.services.set_ldap(ROOT, {**LDAP, "bind_password": "another"})
        key.write_text(before + key.read_text())
        control.restart()
        assert control.services.store.damaged == {}
        assert control.services._setting("ldap", LdapSettings).bind_password == "another"
        assert list(control.services.checks.secrets(control.show("app").id).values()) == [SECRET]
    finally:
        control.services.close()


def test_a_key_is_never_put_over_another(path: Path) -> None:
    """An empty file where nothing was sealed yet is named too: it is no file of ours."""
    store = Store(path)
    key = path.parent / sealing.KEY
    key.touch()
    with pytest.raises(Refused, match="is empty"):
        keep(store)
    assert key.read_bytes() == b"" and not list(path.parent.glob(f".{sealing.KEY}*"))
    key.unlink()
    keep(store)
    assert len(key.read_text().split()) == 1 and SECRET in kept(store)[0]
    store.close()


def test_a_secret_is_in_no_error(path: Path) -> None:
    store = Store(path)
    (path.parent / sealing.KEY).mkdir()
    with pytest.raises(AlveoleError) as refused:
        keep(store)
    assert SECRET not in str(refused.value) and sealing.KEY in str(refused.value)
    with pytest.raises(Exception, match="settings") as broken, store.write() as transaction:
        transaction.connection.execute(sa.text("INSERT INTO settings VALUES (:a, :a, :a)"), {"a": SECRET})
    assert SECRET not in str(broken.value)
    store.close()


def old_database(path: Path) -> None:
    """As the version before sealed anything has left it."""
    revision = ScriptDirectory(str(MIGRATIONS)).get_revision("0021")
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, str(revision.down_revision))
    engine.dispose()
    with sqlite3.connect(path) as raw_connection:
        run = raw_connection.execute
        run("INSERT INTO settings VALUES ('ldap', ?), ('promises-seen', '7.0')", (f'{{"bind_password":"{SECRET}"}}',))
        run("INSERT INTO check_secrets VALUES ('s1', 'password', ?, 1.0)", (SECRET,))
        for row in (("n1", "n1", "webhook", SECRET), ("n2", "n2", "ntfy", "")):
            run(
                "INSERT INTO channels (id, name, kind, secret, whom, document, created_at)"
                " VALUES (?, ?, ?, ?, 'p1', '{}', 1.0)",
                row,
            )
        run(
            "INSERT INTO factors (id, person_id, kind, name, secret, counter, created_at)"
            " VALUES ('f1', 'p1', 'totp', 'x', ?, 0, 1.0)",
            (SECRET,),
        )


@pytest.mark.parametrize("point", ["", "sealing.key-written", "store.migrated"])
def test_secrets_of_before_are_sealed_once_wherever_that_is_cut(path: Path, point: str) -> None:
    """Fault 21: all of them or none; what it is asked again for ends the same, with one key."""
    old_database(path)
    assert SECRET.encode() in raw(path.parent)
    if point:
        assert killed_at(point, path).returncode == -signal.SIGKILL
        with sqlite3.connect(path) as connection:
            values = {row[0] for row in connection.execute("SELECT secret FROM factors")}
        assert values == {SECRET}, "half of it was sealed"
    for _ in range(2):
        store = Store(path)
        assert all(SECRET in value for value in kept(store)) and store.damaged == {}
        store.close()
        assert SECRET.encode() not in raw(path.parent)
    with sqlite3.connect(path) as connection:
        seen = connection.execute("SELECT value FROM settings WHERE key = 'promises-seen'").fetchone()
        assert seen == ("7.0",), "what is nobody's secret costs nothing"
        assert connection.execute("SELECT secret FROM channels WHERE id = 'n2'").fetchone() == ("",)
    assert not list(path.parent.glob(".*")), "a key that was never used lies about"
    assert len((path.parent / sealing.KEY).read_text().split()) == 1


def killed_at(point: str, path: Path) -> subprocess.CompletedProcess[bytes]:
    """The database opened by a process that dies at ``point`` if it comes there."""
    code = f"from pathlib import Path; from alveole.store import Store; Store(Path({str(path)!r})).close()"
    environment = {**os.environ, "ALVEOLE_FAILPOINT": point}
    return subprocess.run([sys.executable, "-c", code], env=environment, check=False)


def test_free_pages_of_before_give_nothing_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was deleted before anything was zeroed goes too; without room for that it is said, and all else goes on.
    Cut, or without room, it is done at the next start, and then never again."""
    free = "deleted-long-ago"
    old_database(path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA secure_delete=OFF")
        connection.execute("INSERT INTO settings VALUES ('gone', ?)", (free * 5000,))
        connection.commit()
        connection.execute("DELETE FROM settings WHERE key = 'gone'")
    connection.close()
    copy = path.with_name("second") / path.name
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    assert free.encode() in path.read_bytes()
    assert killed_at("store.migration-kept", path).returncode == -signal.SIGKILL
    assert free.encode() in path.read_bytes() and store_module.is_current(path)
    Store(path).close()
    assert free.encode() not in path.read_bytes()
    assert killed_at("store.vacuumed", path).returncode == 0, "it is written anew once"
    with monkeypatch.context() as patched:
        patched.setattr(store_module, "_VACUUM_ROOM", 1 << 60)
        store = Store(copy)
        assert all(SECRET in value for value in kept(store)) and store.damaged == {}
        store.close()
    assert free.encode() in copy.read_bytes()
    Store(copy).close()
    assert free.encode() not in copy.read_bytes()


def test_a_database_of_a_later_version_is_left_alone(path: Path) -> None:
    """The way back is a backup of before: what this version does not know, it does not touch."""
    Store(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    before = path.read_bytes()
    with pytest.raises(AlveoleError, match="later version"):
        Store(path)
    assert path.read_bytes() == before
