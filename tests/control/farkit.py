"""A machine that only answers, and sites of control's that live there."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import msgspec
from controlkit import Control

from alveole.errors import AlveoleError, NotFound


class Machine:
    """The API of another machine: what it answers by path, and what was sent to it."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {"/v1/backups": [], "/v1/sites": []}
        #: What is sent as any archive.
        self.sends: list[bytes] = []
        self.sent: list[tuple[str, str]] = []
        self.bodies: list[Any] = []
        self._opened = ""

    def get(self, path: str, _query: Any = None) -> Any:
        answer = self.answers.get(path, NotFound(f"nothing at {path}"))
        if callable(answer):
            answer = answer()
        if isinstance(answer, AlveoleError):
            raise answer
        return answer

    @contextlib.contextmanager
    def open(self, _method: str, path: str, **_more: Any) -> Iterator[Machine]:
        self._opened = path
        yield self

    def body(self) -> bytes:
        answer = self.get(self._opened)
        return answer if isinstance(answer, bytes) else msgspec.json.encode(answer)

    def blocks(self) -> list[bytes]:
        return self.sends

    def send(self, method: str, path: str, body: Any = None, **_more: Any) -> Any:
        self.sent.append((method, path))
        self.bodies.append(body)
        return self.get(path)


def there(control: Control, name: str = "blog") -> str:
    """A site that lives on the machine ``far``; its id here."""
    control.static(name)
    control.quiet()
    services = control.services
    site = services.store.site(name).site
    with services.store.write() as transaction:
        transaction.save_site(msgspec.structs.replace(site, node="far"))
    return site.id


def kept(id: str, **more: Any) -> dict[str, Any]:
    """A backup as the machine tells it."""
    said = {"id": id, "site": "blog", "site_id": "s" + "f" * 12, "bytes": 10, "exists": True}
    return {**said, "created_at": time.time(), "digest": "sha256:" + "0" * 64, **more}


def away(control: Control, seconds: float) -> None:
    control.services._node_problems["far"] = "does not answer"
    control.services._node_away["far"] = time.monotonic() - seconds
