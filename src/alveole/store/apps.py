"""The rows of applications, versions and deployments. Applications are also kept decoded in memory.

A row whose checksum does not fit its document is named in :attr:`alveole.store.Store.damaged` and set aside.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from alveole.errors import Refused
from alveole.model.app import App, Deployment, Environment, Stage, Version
from alveole.store import Store, Transaction, tables

Kind = TypeVar("Kind")


class AppStore:
    def __init__(self, store: Store) -> None:
        self.store = store
        self._apps: Mapping[str, App] = {}
        self._by_name: Mapping[str, str] = {}
        self._by_site: Mapping[str, tuple[str, str]] = {}
        self.load()

    def load(self) -> None:
        with self.store.read() as connection:
            rows = connection.execute(sa.select(tables.apps)).all()
        apps = {row.id: app for row in rows if (app := self._decoded(row, App)) is not None}
        self._apps = MappingProxyType(apps)
        self._by_name = {app.name: id for id, app in apps.items()}
        self._by_site = {each.site: (id, each.name) for id, app in apps.items() for each in app.environments}

    def _decoded(self, row: Any, kind: type[Kind]) -> Kind | None:
        if hashlib.sha256(row.document.encode()).hexdigest() == row.checksum:
            try:
                return msgspec.json.decode(row.document, type=kind)
            except msgspec.DecodeError as error:
                self.store.damaged[row.id] = f"{kind.__name__.lower()} {row.id}: {error}"
        else:
            self.store.damaged[row.id] = f"{kind.__name__.lower()} {row.id}: its row does not fit its checksum"
        return None

    # --- reading ------------------------------------------------------------------------------
    @property
    def apps(self) -> Mapping[str, App]:
        """By id, as of the last commit."""
        return self._apps

    def app(self, name_or_id: str) -> App | None:
        return self._apps.get(name_or_id) or self._apps.get(self._by_name.get(name_or_id, ""))

    def of_site(self, site_id: str) -> tuple[App, Environment] | None:
        """The application and the environment that a site is, if it is one."""
        app_id, name = self._by_site.get(site_id, ("", ""))
        app = self._apps.get(app_id)
        found = app.environment(name) if app is not None else None
        return (app, found) if app is not None and found is not None else None

    def versions(self, app: str) -> tuple[Version, ...]:
        """Newest first."""
        table = tables.versions
        query = sa.select(table).where(table.c.app_id == app).order_by(table.c.seq.desc())
        with self.store.read() as connection:
            rows = connection.execute(query).all()
        return tuple(found for row in rows if (found := self._decoded(row, Version)) is not None)

    def version(self, app: str, name_or_id: str) -> Version | None:
        return next((each for each in self.versions(app) if name_or_id in (each.name, each.id)), None)

    def deployments(self, app: str, environment: str | None = None, limit: int = 500) -> tuple[Deployment, ...]:
        """Newest first."""
        table = tables.deployments
        query = sa.select(table).where(table.c.app_id == app).order_by(table.c.seq.desc()).limit(limit)
        if environment is not None:
            query = query.where(table.c.environment == environment)
        with self.store.read() as connection:
            rows = connection.execute(query).all()
        return tuple(found for row in rows if (found := self._decoded(row, Deployment)) is not None)

    def deployment(self, id: str) -> Deployment | None:
        with self.store.read() as connection:
            row = connection.execute(sa.select(tables.deployments).where(tables.deployments.c.id == id)).one_or_none()
        return None if row is None else self._decoded(row, Deployment)

    def at(self, app: str, environment: str, stage: Stage) -> Deployment | None:
        """The newest deployment of an environment in this stage."""
        return next((each for each in self.deployments(app, environment) if each.stage is stage), None)

    # --- writing ------------------------------------------------------------------------------
    def put_app(self, transaction: Transaction, app: App) -> None:
        row = {"name": app.name, "store_id": app.store, **_document(app)}
        query = sa.update(tables.apps).where(tables.apps.c.id == app.id).values(**row)
        try:
            if transaction.connection.execute(query).rowcount == 0:
                transaction.connection.execute(sa.insert(tables.apps).values(id=app.id, **row))
        except IntegrityError:
            raise Refused(
                f"there is an application {app.name!r} already", field="name", hint="choose another name"
            ) from None
        transaction.effects.append(self.load)

    def delete_app(self, transaction: Transaction, app: App) -> None:
        """Its row, its versions and its history. The lease ends when its files are gone; its sites go on."""
        for table in (tables.versions, tables.deployments):
            transaction.connection.execute(sa.delete(table).where(table.c.app_id == app.id))
        transaction.connection.execute(sa.delete(tables.operations).where(tables.operations.c.whom == app.id))
        transaction.connection.execute(sa.delete(tables.apps).where(tables.apps.c.id == app.id))
        transaction.effects.append(self.load)

    def put_version(self, transaction: Transaction, version: Version) -> None:
        table = tables.versions
        row = {"app_id": version.app, "name": version.name, **_document(version)}
        query = sa.update(table).where(table.c.id == version.id).values(**row)
        try:
            if transaction.connection.execute(query).rowcount == 0:
                transaction.connection.execute(sa.insert(table).values(id=version.id, **row))
        except IntegrityError:
            raise Refused(
                f"there is a version {version.name} already",
                field="version",
                hint="a version never changes: name another",
            ) from None

    def delete_version(self, transaction: Transaction, id: str) -> None:
        transaction.connection.execute(sa.delete(tables.versions).where(tables.versions.c.id == id))

    def put_deployment(self, transaction: Transaction, deployment: Deployment) -> None:
        table = tables.deployments
        row = {"app_id": deployment.app, "environment": deployment.environment, **_document(deployment)}
        query = sa.update(table).where(table.c.id == deployment.id).values(**row)
        if transaction.connection.execute(query).rowcount == 0:
            transaction.connection.execute(sa.insert(table).values(id=deployment.id, **row))


def _document(value: Any) -> dict[str, str]:
    text = msgspec.json.encode(value, order="sorted").decode()
    return {"document": text, "checksum": hashlib.sha256(text.encode()).hexdigest()}
