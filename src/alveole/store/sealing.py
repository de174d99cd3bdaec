"""Secrets at rest: what the database holds of them opens only with a key that lies in a file beside it.

A column of the type :class:`Sealed` keeps ``s1:KEY:DATA``: the name of the key, and in base64 a nonce and what
AES-256-GCM makes of the value, bound to the column (NIST SP 800-38D: random nonces of 96 bits are good for 2^32 values
under one key). So the file of the database, or a copy of it, gives away no password and no private key by itself.
The key is control's own file; it is saved with the platform, inside of the repository that the key of the backups
seals. See ADR 29.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import secrets
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from alveole import wholefile
from alveole.errors import AlveoleError, NoRoom, Refused
from alveole.failpoints import hit

#: Beside the database.
KEY = "sealing.key"
PREFIX = "s1:"
#: Begins what is given for a value that no key opens. What follows is random, so that nothing is ever proven by it.
LOST = "lost:"
#: Settings that hold nothing secret and are read or written by the clock: sealing them would only cost memory.
OPEN = frozenset({"promises-seen", "backups", "backup-key", "platform-backup", "dns-left"})
#: What is sealed: table, column.
COLUMNS = (("settings", "value"), ("channels", "secret"), ("check_secrets", "value"), ("factors", "secret"))
_BYTES = 32


class Plain(str):
    """A value for a sealed column that is kept as it is. Must not begin with :data:`PREFIX`."""

    __slots__ = ()


class Sealer:
    """The keys of one database. The file has one a line, in hexadecimal; the last seals, each opens. Thread-safe."""

    def __init__(self, path: Path, used: Callable[[], bool] = lambda: False) -> None:
        """Nothing is read or made before it is needed. ``used``: whether anything is sealed that a key once opened;
        then a key that is missing is lost, and none is made in its place."""
        self.path = path
        self._used = used
        self._keys: dict[str, bytes] = {}

    @property
    def names(self) -> frozenset[str]:
        """Of the keys that were read."""
        return frozenset(self._keys)

    def seal(self, text: str, column: str) -> str:
        """Raises ``AlveoleError`` when the file of the keys cannot be read, and ``Refused`` when it is lost."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        keys = self.read() or self._make()
        name, key = next(reversed(keys.items()))
        nonce = secrets.token_bytes(12)
        data = nonce + AESGCM(key).encrypt(nonce, text.encode(), column.encode())
        return f"{PREFIX}{name}:{base64.b64encode(data).decode()}"

    def open(self, text: str, column: str) -> str:
        """What was sealed; text that is not sealed as it is; ``lost:…`` when no key opens it."""
        if not text.startswith(PREFIX):
            return text
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        name, _, data = text.removeprefix(PREFIX).partition(":")
        try:
            key = (self._keys if name in self._keys else self.read())[name]
            raw = base64.b64decode(data, validate=True)
            return AESGCM(key).decrypt(raw[:12], raw[12:], column.encode()).decode()
        except (AlveoleError, KeyError, ValueError, InvalidTag):
            return f"{LOST}{secrets.token_hex(16)}"

    def read(self) -> dict[str, bytes]:
        """The keys by name. Raises ``AlveoleError``."""
        try:
            lines = self.path.read_text(encoding="ascii").split()
            found = {_name(key): key for key in map(_key, lines)}
        except FileNotFoundError:
            found = {}
        except (OSError, ValueError) as error:
            raise AlveoleError(
                f"the keys of the database's secrets in {self.path} cannot be read: {error}",
                hint="put the file back as the platform's backup has it",
            ) from None
        self._keys = found
        return found

    def _make(self) -> dict[str, bytes]:
        """On the disk before anything is sealed with it. Only within a transaction, of which there is one at a time."""
        if self._used():
            raise Refused(
                f"the key of the database's secrets in {self.path} is lost, and there are values that only it opens",
                hint="put the file back as the platform's backup has it; where none has it, a new one, made by "
                "openssl rand -hex 32, lets them be set anew",
            )
        try:
            # Never over one that is there.
            with wholefile.writing(self.path, over=False) as file:
                file.write(f"{secrets.token_bytes(_BYTES).hex()}\n".encode())
                hit("sealing.key-written")
        except FileExistsError:
            if found := self.read():
                return found
            raise Refused(
                f"the file of the keys of the database's secrets, {self.path}, is empty",
                hint="put the file back as the platform's backup has it, or take it away if nothing was ever sealed",
            ) from None
        except OSError as error:
            raise NoRoom(f"no key for secrets can be kept in {self.path}: {error.strerror}") from None
        hit("sealing.key-there")
        return self.read()


class Sealed(sa.types.TypeDecorator[str]):
    """Text that is sealed on its way into the database, by the key of the engine that writes it.

    The empty text, and a :class:`Plain` one, stay as they are. What cannot be opened comes as ``lost:…``.
    """

    impl = sa.Text
    cache_ok = True

    def __init__(self, column: str = "") -> None:
        super().__init__()
        self.column = column

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if not value or isinstance(value, Plain):
            return None if value is None else str(value)
        return _SEALERS[dialect].seal(value, self.column)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> str | None:
        return _SEALERS[dialect].open(value, self.column) if value else value


#: By the dialect of an engine, which is what a type is given.
_SEALERS: weakref.WeakKeyDictionary[Dialect, Sealer] = weakref.WeakKeyDictionary()


def use(sealer: Sealer, *engines: sa.Engine) -> None:
    """What these engines write and read is sealed and opened with ``sealer``."""
    for engine in engines:
        _SEALERS[engine.dialect] = sealer


def known(text: str | None) -> str:
    """A value that was read; nothing when no key opened it."""
    return "" if not text or text.startswith(LOST) else text


def seal_all(connection: sa.Connection, sealer: Sealer) -> int:
    """Seal what was kept openly, within the caller's transaction; gives how many values. For the migration."""
    done = 0
    for table, column in COLUMNS:
        for row in connection.exec_driver_sql(f"SELECT rowid AS row_number, * FROM {table}").mappings().all():  # noqa: S608  both are constants
            value = row[column]
            if not value or (table == "settings" and row["key"] in OPEN):
                continue
            sealed = sealer.seal(value, f"{table}.{column}")
            connection.exec_driver_sql(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (sealed, row["row_number"]))  # noqa: S608  both are constants
            done += 1
    return done


def used(connection: sa.Connection) -> bool:
    """Whether anything is sealed."""
    there = set(sa.inspect(connection).get_table_names())
    return any(
        connection.exec_driver_sql(f"SELECT 1 FROM {table} WHERE {column} LIKE '{PREFIX}%' LIMIT 1").first()  # noqa: S608  all are constants
        for table, column in COLUMNS
        if table in there
    )


def lost(connection: sa.Connection, sealer: Sealer) -> list[str]:
    """The tables with values that no key opens."""
    found = []
    with contextlib.suppress(AlveoleError):
        sealer.read()
    for table, column in COLUMNS:
        query = f"SELECT {column} FROM {table} WHERE {column} LIKE '{PREFIX}%'"  # noqa: S608  all are constants
        names = {text.split(":")[1] for (text,) in connection.exec_driver_sql(query)}
        if not names <= sealer.names:
            found.append(table)
    return found


def _key(line: str) -> bytes:
    """A line that is cut is not passed over: it is a key that somebody needs."""
    key = bytes.fromhex(line)
    if len(key) != _BYTES:
        raise ValueError("a line is no key")
    return key


def _name(key: bytes) -> str:
    return hashlib.sha256(b"alveole sealing key" + key).hexdigest()[:8]
