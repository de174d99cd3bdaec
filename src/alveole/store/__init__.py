"""The database: what people want, who may ask, and the journal's rows. Only this module and
:mod:`alveole.journal` speak to it.

SQLite in WAL mode with ``synchronous=FULL``: what was acknowledged survives a power cut. All writes
go through ONE connection behind a lock, because SQLite before 3.51.3 can corrupt a WAL that two
connections write and checkpoint; readers have connections of their own that cannot write. Sites and
plans are also kept decoded in memory, replaced after each commit, so that lists and passes cost no
query.

A full disk leaves reading as it is; what makes room can still be written (:mod:`alveole.store.reserve`), and
when that is used up too, writes are refused with ``NoRoom``. A row whose checksum does not
fit its document is named in :attr:`Store.damaged` and set aside: nothing is planned for that site.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import secrets
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError, DBAPIError, IntegrityError, StatementError
from sqlalchemy.pool import StaticPool

from alveole.agent.protocol import Image
from alveole.errors import AlveoleError, NoRoom, Refused, Temporary
from alveole.failpoints import hit
from alveole.model.site import BUILT_IN_PLANS, Backup, Base, Release, ResourcePlan, Site
from alveole.store import pastdays, sealing, tables
from alveole.store import tables_backups as backup_tables
from alveole.store.reserve import Reserve

log = logging.getLogger("alveole.store")
#: The newest migration; a test keeps it equal to the newest script.
HEAD = "0021"
#: SQLite's own number of the file (``user_version``): no page of it is from before what is written over was zeroed.
_NO_OLD_PAGE = 1
#: Times the size of the database that are free before it is written anew: its copy, and the log of that.
_VACUUM_ROOM = 3
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


class Stored(msgspec.Struct, frozen=True):
    """A site's row. ``pending``: ``create`` until its content is there, ``destroy`` until it is gone."""

    site: Site
    pending: str = ""


class KnownBase(msgspec.Struct, frozen=True):
    """A base that somebody made or fetched, ``created_at`` in seconds since the epoch; ``image``: what it is of."""

    base: Base
    created_at: float
    image: Image | None = None


def new_id(prefix: str) -> str:
    """``prefix`` and 12 random letters or digits (60 bits)."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(12))


def is_current(path: Path) -> bool:
    """Whether the database needs no migration. Of one that cannot be read :class:`Store` says what is wrong."""
    if not path.exists():
        return False
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError as error:
        return "no such table" not in str(error)
    except sqlite3.Error:
        return True
    return row is not None and row[0] == HEAD


class Store:
    """Control's database. Safe from several threads: one writes at a time, readers never wait for it.

    Sites, plans and bases are in memory too, as of the last commit; whatever touches the database raises
    ``NoRoom`` for a full disk and ``Temporary`` for one that does not answer."""

    def __init__(self, path: Path) -> None:
        """Open the database at ``path``; make or migrate it first when needed.

        Raises ``AlveoleError`` when it cannot be read at all, naming the file.
        """
        self.path = path
        self.damaged: dict[str, str] = {}
        """What was set aside and why, by the site's id (or ``database``)."""
        self._lock = threading.RLock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self.reserve = Reserve(path.parent / "reserve")
        # Opening needs two more files and some pages.
        self.reserve.keep()
        self._writer = sa.create_engine(f"sqlite:///{path}", poolclass=StaticPool, **_CONNECT)
        sa.event.listen(self._writer, "connect", _prepare_writer)
        sa.event.listen(self._writer, "begin", _begin_immediate)
        self._readers = sa.create_engine(f"sqlite:///{path}", pool_size=8, max_overflow=32, **_CONNECT)
        sa.event.listen(self._readers, "connect", _prepare_reader)
        sa.event.listen(self._readers, "begin", _begin_deferred)
        self._sealer = sealing.Sealer(path.parent / sealing.KEY, self._is_sealed)
        sealing.use(self._sealer, self._writer, self._readers)
        self._sites: Mapping[str, Stored] = {}
        self._by_name: Mapping[str, str] = {}
        self._plans: Mapping[str, ResourcePlan] = {}
        self._bases: Mapping[str, KnownBase] = {}
        try:
            self._check()
            self._migrate()
            self._load()
        except AlveoleError:
            self.close()
            raise
        except DatabaseError as error:
            self.close()
            raise AlveoleError(
                f"the database {path} cannot be read: {error.orig}",
                hint="set it aside and restore the newest copy of it; sites keep running meanwhile",
            ) from error

    def close(self) -> None:
        self._readers.dispose()
        # Last, so that the only connection that ever checkpoints is the writer's.
        self._writer.dispose()

    # --- opening ------------------------------------------------------------------------------
    def _check(self) -> None:
        with self._readers.connect() as connection:
            findings = [row[0] for row in connection.exec_driver_sql("PRAGMA quick_check(5)")]
        if findings != ["ok"]:
            self.damaged["database"] = f"{self.path}: {'; '.join(str(text) for text in findings)}"

    def _migrate(self) -> None:
        with self._writer.begin() as connection:
            known = sa.inspect(connection).has_table("alembic_version")
            current = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() if known else None
            old_pages = connection.exec_driver_sql("PRAGMA user_version").scalar() != _NO_OLD_PAGE
            if current == HEAD and not old_pages:
                return
            if current is not None and current > HEAD:
                raise AlveoleError(
                    f"the database {self.path} is of a later version (revision {current}, this one knows {HEAD})",
                    hint="install that version again, or restore a backup of the platform from before",
                )
            if current != HEAD:
                self._upgrade(connection)
            if current is None:
                for plan in BUILT_IN_PLANS:
                    connection.execute(sa.insert(tables.plans).values(name=plan.name, document=_text(plan)))
                connection.exec_driver_sql(f"PRAGMA user_version = {_NO_OLD_PAGE}")
                old_pages = False
        hit("store.migration-kept")
        # What a migration has written over still stands in the log until that is empty.
        with self._writer.connect() as connection:
            # Past SQLAlchemy, which would begin a transaction first.
            cursor = connection.connection.cursor()
            if old_pages and not self.damaged:
                self._leave_no_old_page(cursor)
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _upgrade(self, connection: sa.Connection) -> None:
        # Alembic costs memory and time, and almost every start needs none of it.
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        config.attributes["connection"] = connection
        config.attributes["sealer"] = self._sealer
        hit("store.migrate")
        command.upgrade(config, "head")
        hit("store.migrated")

    def _leave_no_old_page(self, cursor: Any) -> None:
        """Free pages of before ``secure_delete`` may hold what was open then. What cannot be done, or is cut, is
        done at the next start: the number in the file says so until it was."""
        try:
            if shutil.disk_usage(self.path.parent).free < _VACUUM_ROOM * self.path.stat().st_size:
                raise OSError("there is too little room")
            cursor.execute("VACUUM")
            hit("store.vacuumed")
            cursor.execute(f"PRAGMA user_version = {_NO_OLD_PAGE}")
        except (OSError, sqlite3.Error) as error:
            log.warning("free pages of %s may still hold secrets of before they were sealed: %s", self.path, error)

    def _load(self) -> None:
        with self._readers.connect() as connection:
            if lost := sealing.lost(connection, self._sealer):
                remedy = (
                    "put the lines that the platform's backup has of it above what is there, or set them anew"
                    if self._sealer.names
                    else "put the file back as the platform's backup has it"
                )
                self.damaged["secrets"] = (
                    f"{self._sealer.path} does not open the secrets in {', '.join(lost)}: {remedy}"
                )
            sites: dict[str, Stored] = {}
            for row in connection.execute(sa.select(tables.sites)):
                if _checksum(row.document) != row.checksum:
                    self.damaged[row.id] = f"site {row.name}: its row does not fit its checksum"
                    continue
                try:
                    sites[row.id] = Stored(msgspec.json.decode(row.document, type=Site), row.pending)
                except msgspec.DecodeError as error:
                    self.damaged[row.id] = f"site {row.name}: {error}"
            plans = {
                row.name: msgspec.json.decode(row.document, type=ResourcePlan)
                for row in connection.execute(sa.select(tables.plans))
            }
            bases = {
                row.key: KnownBase(
                    msgspec.json.decode(row.document, type=Base),
                    row.created_at,
                    msgspec.json.decode(row.image, type=Image) if row.image else None,
                )
                for row in connection.execute(sa.select(tables.bases))
            }
        self._put_sites(sites)
        self._plans, self._bases = plans, bases

    def _is_sealed(self) -> bool:
        """As of the last commit: what is being written over counts as well."""
        with self._readers.connect() as connection:
            return sealing.used(connection)

    def _put_sites(self, sites: dict[str, Stored]) -> None:
        self._sites = MappingProxyType(sites)
        self._by_name = MappingProxyType({stored.site.name: id for id, stored in sites.items()})

    # --- reading ------------------------------------------------------------------------------
    @property
    def sites(self) -> Mapping[str, Stored]:
        """Every sound row by id, as of the last commit. Never changes under the reader."""
        return self._sites

    @property
    def plans(self) -> Mapping[str, ResourcePlan]:
        """By name, as of the last commit."""
        return self._plans

    @property
    def bases(self) -> Mapping[str, KnownBase]:
        """By key, as of the last commit."""
        return self._bases

    def site(self, name_or_id: str) -> Stored | None:
        """The row, also of a site that is being made or destroyed; from memory."""
        stored = self._sites.get(name_or_id)
        if stored is None:
            stored = self._sites.get(self._by_name.get(name_or_id, ""))
        return stored

    def owner_of(self, name: str) -> str | None:
        """The id of the site that holds a domain or ``@/prefix``."""
        with self.read() as connection:
            query = sa.select(tables.names.c.site_id).where(tables.names.c.name == name)
            return connection.execute(query).scalar()

    def stray_leases(self) -> tuple[tuple[int, str], ...]:
        """Numbers, and the ids they were given to, of no site's row, no application, no readable past day."""
        table = tables.leases
        query = (
            sa.select(table.c.number, table.c.site_id)
            .where(table.c.site_id.not_in(sa.select(tables.sites.c.id)))
            .where(table.c.site_id.not_in(sa.select(tables.apps.c.store_id)))
        )
        with self.read() as connection:
            days = pastdays.every(connection)
            return tuple((row.number, row.site_id) for row in connection.execute(query) if row.site_id not in days)

    def releases(self, site_id: str) -> tuple[Release, ...]:
        """Newest first."""
        table = tables.releases
        query = sa.select(table).where(table.c.site_id == site_id).order_by(table.c.created_at.desc())
        with self.read() as connection:
            return tuple(
                Release(row.digest, row.bytes, row.files, row.created_at, row.sender, row.note, row.source)
                for row in connection.execute(query)
            )

    def backups(self, site: str | None = None) -> tuple[Backup, ...]:
        """Newest first; ``site`` is an id or a name."""
        table = tables.backups
        query = sa.select(table).order_by(table.c.created_at.desc(), table.c.id)
        if site is not None:
            query = query.where(sa.or_(table.c.site_id == site, table.c.site_name == site))
        with self.read() as connection:
            return tuple(Backup(**row._mapping) for row in connection.execute(query))

    def backup(self, id: str) -> Backup | None:
        query = sa.select(tables.backups).where(tables.backups.c.id == id)
        with self.read() as connection:
            row = connection.execute(query).one_or_none()
            return None if row is None else Backup(**row._mapping)

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection that sees one moment of the database for the whole block, and cannot write."""
        with _mapped(), self._readers.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """No transaction is under way inside, and what is in memory is all that was committed."""
        with self._lock:
            yield

    # --- writing ------------------------------------------------------------------------------
    @contextlib.contextmanager
    def write(self) -> Iterator[Transaction]:
        """One transaction; all of it or nothing. Raises ``NoRoom`` when the disk is full.

        What is kept in memory follows only after the commit, in the same order as the commits.
        """
        if "database" in self.damaged:
            raise Refused(f"the database is damaged and read-only: {self.damaged['database']}")
        with self._lock:
            self.reserve.keep()
            transaction = Transaction(self)
            with _mapped(), self._writer.begin() as connection:
                transaction.connection = connection
                yield transaction
                hit("store.before-commit")
            hit("store.after-commit")
            for effect in transaction.effects:
                effect()


class Transaction:
    """The writes of one transaction. Made by :meth:`Store.write`."""

    connection: sa.Connection

    def __init__(self, store: Store) -> None:
        self.store = store
        self.effects: list[Callable[[], None]] = []

    def lease(self, site_id: str, capacity: int) -> int:
        """The smallest free number; ``NoRoom`` when all ``capacity`` are given out."""
        # The first gap: a number whose successor is free, 0 standing before the first.
        taken = tables.leases.alias()
        following = sa.exists().where(taken.c.number == tables.leases.c.number + 1)
        gap = sa.select(sa.func.min(tables.leases.c.number) + 1).where(~following)
        first = self.connection.execute(sa.select(tables.leases.c.number).where(tables.leases.c.number == 1)).scalar()
        number = 1 if first is None else int(self.connection.execute(gap).scalar_one())
        if number > capacity:
            raise NoRoom(
                f"all {capacity} addresses are taken", hint="destroy a site, or widen network.ipv4 in the settings"
            )
        self.connection.execute(sa.insert(tables.leases).values(number=number, site_id=site_id))
        return number

    def end_lease(self, site_id: str) -> None:
        """The number is free for the next site; nothing may use its addresses or ids any more."""
        self.connection.execute(sa.delete(tables.leases).where(tables.leases.c.site_id == site_id))

    def insert_site(self, site: Site, names: tuple[str, ...], pending: str = "") -> None:
        """``names``: its domains and ``@/prefix``. Raises ``Refused`` when its name, or one of these, is taken."""
        document = _text(site)
        row = {
            "id": site.id,
            "number": site.number,
            "name": site.name,
            "pending": pending,
            "version": site.version,
            "document": document,
            "checksum": _checksum(document),
        }
        try:
            self.connection.execute(sa.insert(tables.sites).values(**row))
        except IntegrityError:
            raise Refused(f"the name {site.name!r} is taken", field="name", hint="choose another name") from None
        self._names(site.id, names)
        self._remember(Stored(site, pending))

    def save_site(self, site: Site, names: tuple[str, ...] | None = None, pending: str = "") -> None:
        """``names``: the whole list of its domains and ``@/prefix``, when they changed."""
        document = _text(site)
        self.connection.execute(
            sa.update(tables.sites)
            .where(tables.sites.c.id == site.id)
            .values(
                name=site.name,
                pending=pending,
                version=site.version,
                document=document,
                checksum=_checksum(document),
            )
        )
        if names is not None:
            self.connection.execute(sa.delete(tables.names).where(tables.names.c.site_id == site.id))
            self._names(site.id, names)
        self._remember(Stored(site, pending))

    def delete_site(self, site_id: str) -> None:
        """The row and what is about it alone: names, releases, shares, checks, its lease. Its backups stay."""
        for table in _OF_A_SITE:
            self.connection.execute(sa.delete(table).where(table.c.site_id == site_id))
        for table in (tables.channels, tables.operations):
            self.connection.execute(sa.delete(table).where(table.c.whom == site_id))
        self.connection.execute(sa.delete(tables.sites).where(tables.sites.c.id == site_id))

        def forget() -> None:
            sites = dict(self.store._sites)
            sites.pop(site_id, None)
            self.store._put_sites(sites)

        self.effects.append(forget)

    def _names(self, site_id: str, names: tuple[str, ...]) -> None:
        try:
            self.connection.execute(
                sa.insert(tables.names), [{"name": name, "site_id": site_id} for name in dict.fromkeys(names)]
            )
        except IntegrityError:
            # The services check first and say which; this closes the race between two requests.
            raise Refused("a domain or path of this site was taken meanwhile", field="domains") from None

    def _remember(self, stored: Stored) -> None:
        def put() -> None:
            sites = dict(self.store._sites)
            sites[stored.site.id] = stored
            self.store._put_sites(sites)

        self.effects.append(put)

    def put_release(self, site_id: str, release: Release) -> None:
        """Add it, or make it the newest when it is there already."""
        table = tables.releases
        self.connection.execute(
            sa.delete(table).where(table.c.site_id == site_id).where(table.c.digest == release.digest)
        )
        self.connection.execute(sa.insert(table).values(site_id=site_id, **msgspec.structs.asdict(release)))

    def delete_release(self, site_id: str, digest: str) -> None:
        table = tables.releases
        self.connection.execute(sa.delete(table).where(table.c.site_id == site_id).where(table.c.digest == digest))

    def put_backup(self, backup: Backup) -> None:
        """Add it, or put it in the place of the one with its id."""
        self.connection.execute(sa.delete(tables.backups).where(tables.backups.c.id == backup.id))
        self.connection.execute(sa.insert(tables.backups).values(**msgspec.structs.asdict(backup)))

    def delete_backup(self, id: str) -> None:
        self.connection.execute(sa.delete(tables.backups).where(tables.backups.c.id == id))

    def insert_plan(self, plan: ResourcePlan) -> None:
        self.connection.execute(sa.insert(tables.plans).values(name=plan.name, document=_text(plan)))
        self.effects.append(lambda: self._set_plan(plan.name, plan))

    def put_plan(self, plan: ResourcePlan) -> None:
        """Another text for a plan that is there."""
        table = tables.plans
        self.connection.execute(sa.update(table).where(table.c.name == plan.name).values(document=_text(plan)))
        self.effects.append(lambda: self._set_plan(plan.name, plan))

    def delete_plan(self, name: str) -> None:
        self.connection.execute(sa.delete(tables.plans).where(tables.plans.c.name == name))
        self.effects.append(lambda: self._set_plan(name, None))

    def _set_plan(self, name: str, plan: ResourcePlan | None) -> None:
        plans = {key: value for key, value in self.store._plans.items() if key != name}
        self.store._plans = plans if plan is None else {**plans, name: plan}

    def put_base(self, known: KnownBase) -> None:
        key = known.base.key
        self.connection.execute(sa.delete(tables.bases).where(tables.bases.c.key == key))
        self.connection.execute(
            sa.insert(tables.bases).values(
                key=key,
                document=_text(known.base),
                image=_text(known.image) if known.image else None,
                created_at=known.created_at,
            )
        )
        self.effects.append(lambda: self._set_base(key, known))

    def delete_base(self, key: str) -> None:
        self.connection.execute(sa.delete(tables.bases).where(tables.bases.c.key == key))
        self.effects.append(lambda: self._set_base(key, None))

    def _set_base(self, key: str, known: KnownBase | None) -> None:
        bases = {name: value for name, value in self.store._bases.items() if name != key}
        self.store._bases = bases if known is None else {**bases, key: known}


_OF_A_SITE = (
    tables.names,
    tables.releases,
    tables.leases,
    tables.shares,
    tables.scenarios,
    tables.check_runs,
    tables.check_secrets,
    tables.operation_runs,
    tables.claims,
    backup_tables.policies,
)
#: No value of a row is told in an error: it may be a secret on its way to be sealed.
_CONNECT: dict[str, Any] = {
    "connect_args": {"check_same_thread": False, "timeout": 10.0, "isolation_level": None},
    "hide_parameters": True,
}


def _prepare_writer(connection: sqlite3.Connection, _record: Any) -> None:
    # What is deleted or written over is zeroed: else the page would keep an old secret.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _prepare_reader(connection: sqlite3.Connection, _record: Any) -> None:
    connection.execute("PRAGMA query_only=ON")
    connection.execute("PRAGMA busy_timeout=10000")


def _begin_immediate(connection: sa.Connection) -> None:
    # The driver's own transactions do not cover schema changes; with isolation_level None these do.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_deferred(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN")


@contextlib.contextmanager
def _mapped() -> Iterator[None]:
    """The database's own troubles as errors of ours; by SQLite's result code, never by text."""
    try:
        yield
    except DBAPIError as error:
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            raise NoRoom("the state disk is full", hint="free some space; reading and serving go on") from error
        if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_BUSY):
            raise Temporary(f"the database could not be used: {error.orig}") from error
        raise
    except StatementError as error:
        # What a type of a column raises.
        if isinstance(error.orig, AlveoleError):
            raise error.orig from None
        raise


def _text(value: Any) -> str:
    return msgspec.json.encode(value, order="sorted").decode()


def _checksum(document: str) -> str:
    return hashlib.sha256(document.encode()).hexdigest()
