"""Backups of sites on another machine, over the fake agent and a machine that only answers."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
from controlkit import ROOT, Control

from alveole import requests as ask
from alveole.errors import AlveoleError, Denied, NotFound, Refused
from alveole.people.model import Actor, Role


class Machine:
    """The API of another machine: what it answers by path, and what was sent to it."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {"/v1/backups": [], "/v1/sites": []}
        self.sent: list[tuple[str, str]] = []

    def get(self, path: str, _query: Any = None) -> Any:
        answer = self.answers.get(path, NotFound(f"nothing at {path}"))
        if callable(answer):
            answer = answer()
        if isinstance(answer, AlveoleError):
            raise answer
        return answer

    def send(self, method: str, path: str, _body: Any = None, **_more: Any) -> Any:
        self.sent.append((method, path))
        return self.get(path)


@pytest.fixture
def machine(control: Control, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(control.services, "_api_of", lambda _name: made)
    return made


def there(control: Control, name: str = "blog") -> str:
    """A site that lives on the machine ``far``; its id here."""
    control.static(name)
    control.quiet()
    services = control.services
    site = services.store.site(name).site  # type: ignore[union-attr]  # it was made above
    with services.store.write() as transaction:
        transaction.save_site(msgspec.structs.replace(site, node="far"))
    return site.id


def kept(id: str, **more: Any) -> dict[str, Any]:
    """A backup as the machine tells it."""
    said = {"id": id, "site": "blog", "site_id": "s" + "f" * 12, "snapshot": "local/x", "bytes": 10}
    return {**said, "created_at": time.time(), "digest": "sha256:" + "0" * 64, **more}


def away(control: Control, seconds: float) -> None:
    control.services._node_problems["far"] = "does not answer"
    control.services._node_away["far"] = time.monotonic() - seconds


def test_a_machine_is_not_lost_at_once(control: Control) -> None:
    """A site lives here again from a copy only for who may move it, and once its machine is away for minutes."""
    control.static()
    services = control.services
    made = control.done(services.create_backup(ROOT, ask.CreateBackup(site="blog")))
    backup = str(made.result["backup"])
    site = services.store.site("blog").site  # type: ignore[union-attr]  # it was made above
    owner = Actor("ana", Role.OWNER, "session", person="ana")
    with services.store.write() as transaction:
        transaction.save_site(msgspec.structs.replace(site, node="far", owner="ana"))
    here = ask.RestoreBackup(here=True)
    away(control, 1)
    with pytest.raises(Refused, match="a moment only"):
        services.restore_backup(ROOT, backup, here)
    away(control, services.settings.reconcile.lost_seconds + 1)
    with pytest.raises(Denied):
        services.restore_backup(owner, backup, here)
    assert services.restore_backup(ROOT, backup, here).verb == "restore"
