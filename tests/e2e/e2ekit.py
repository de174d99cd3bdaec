"""Sites that a test makes and that are gone after it."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

from instance import Instance
from instancekit import ApiError, until

_turn = itertools.count(1)


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
                    until(lambda name=name: self.alveole.site(name)["change"] is None, 20)  # type: ignore[misc]
                    self.alveole.destroy(name)
