"""Control over a fake agent, in a short-lived directory of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alveole import requests as ask
from alveole.config import Settings, parse
from alveole.model.change import Change, ChangeState
from alveole.people.model import Actor, Role
from alveole.services import Services
from alveole.testing import FakeAgent
from alveole.views import SiteView

ROOT = Actor("root", Role.ADMIN, "socket")
READER = Actor("reader", Role.READER, "token:t")


def make_settings(directory: Path, **sections: dict[str, Any]) -> Settings:
    return parse(
        {
            "paths": {"state": str(directory / "state"), "run": str(directory / "run")},
            "reconcile": {"drain_seconds": 0.15, "drift_seconds": 0.3, **sections.pop("reconcile", {})},
            # What comes by the clock is tested where it is, and disturbs nobody else.
            "backups": {"by_itself": False, **sections.pop("backups", {})},
            "content": {"reserve_bytes": 0, **sections.pop("content", {})},
            **sections,
        }
    )


class Control:
    """Services and the fake agent below, with the words tests use most."""

    def __init__(self, settings: Settings, agent: FakeAgent) -> None:
        self.settings = settings
        self.agent = agent
        self.services = Services.open(settings, agent)
        # The boot is over: what tests count afterwards is their own.
        until(lambda: self.services.status(ROOT).promises and self._platform_kept())
        self.quiet()

    def _platform_kept(self) -> bool:
        return {promise.state for promise in self.services.status(ROOT).promises} == {"kept"}

    def upload(self, content: bytes = b"content") -> str:
        view = self.services.new_upload(ROOT)
        Path(view.path).write_bytes(content)
        return view.id

    def done(self, change: Change, state: ChangeState = ChangeState.DONE) -> Change:
        ended = self.services.wait(ROOT, change.id, 60)
        assert ended.state is state, (ended.problems, [event.text for event in ended.events])
        return ended

    def static(self, name: str = "blog", content: bytes = b"content", **more: Any) -> SiteView:
        request = ask.CreateSite(name=name, upload=self.upload(content), **more)
        self.done(self.services.create_site(ROOT, request))
        return self.show(name)

    def app(self, name: str = "app", **more: Any) -> SiteView:
        self.done(self.services.create_site(ROOT, ask.CreateSite(name=name, command=("serve",), port=8000, **more)))
        return self.show(name)

    def show(self, name: str) -> SiteView:
        return self.services.show_site(ROOT, name, show_env=True)

    def restart(self) -> None:
        """Control ends and starts again; the agent, and the sites, go on."""
        self.services.close()
        self.services = Services.open(self.settings, self.agent)

    def quiet(self) -> None:
        """Wait until nothing is going on."""
        until(lambda: not self.services.journal.all_live())


def until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Ask until it is true; its value. Fails the test after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)
    return value
