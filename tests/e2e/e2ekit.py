"""Sites that a test makes and that are gone after it."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from typing import Any

from instance import Instance
from instancekit import ApiError, until

_turn = itertools.count(1)


@contextlib.contextmanager
def unchanged(alveole: Instance) -> Iterator[None]:
    """Nothing on the machine and in the lists is different afterwards."""

    def facts() -> dict[str, Any]:
        found: dict[str, Any] = alveole.traces()
        found["listed"] = sorted(each["name"] for each in alveole.api("GET", "/v1/sites"))
        return found

    before: list[dict[str, Any]] = []

    def at_rest() -> bool:
        """What the test before this one has left is still on its way out."""
        before.append(facts())
        time.sleep(0.3)
        return before[-1] == facts() and not any(".gone" in each for each in before[-1]["sites"])

    until(at_rest, 30)
    yield
    was = before[-1]
    until(lambda: facts() == was, 30, lambda: str({k: (was[k], v) for k, v in facts().items() if v != was[k]}))


class Sites:
    """Makes sites with names of their own and destroys them at the end of the test."""

    def __init__(self, alveole: Instance) -> None:
        self.alveole = alveole
        self.made: list[str] = []

    def name(self, stem: str = "site") -> str:
        name = f"{stem}{next(_turn)}"
        self.made.append(name)
        return name

    def create(self, content: bytes | None = None, *, stem: str = "site", **more: Any) -> str:
        name = self.name(stem)
        self.alveole.create(name, content, **more)
        return name

    def end(self) -> None:
        there = {each["name"]: each for each in self.alveole.api("GET", "/v1/sites")}
        for name in self.made:
            if name in there:
                with contextlib.suppress(ApiError):
                    until(lambda name=name: self.alveole.site(name)["change"] is None, 30)
                    self.alveole.destroy(name)
