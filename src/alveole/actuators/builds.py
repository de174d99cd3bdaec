"""Releases that are made of others: dependencies fetched, sources compiled, by programs that modules name."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import Protocol

import msgspec

from alveole.actuators.releases import Releases, room
from alveole.agent.protocol import BuildRelease, Built, WantsBuild
from alveole.backends.base import Say, quiet
from alveole.config import Settings
from alveole.errors import NotFound
from alveole.host import paths
from alveole.host.builds import applies

#: Last lines of the output of a build that went well that go into the journal; of one that failed all that were kept.
TOLD = 60


class Runner(Protocol):
    """What carries the programs out; see ``backends.native.build``.

    ``build`` gives the tree as an open directory (``None``: a program failed), what is wrong, and the last lines.
    """

    def build(
        self, request: BuildRelease, say: Say
    ) -> AbstractContextManager[tuple[int | None, str, tuple[str, ...]]]: ...


class Builds:
    def __init__(self, settings: Settings, releases: Releases, runner: Runner) -> None:
        self._settings = settings
        self._releases = releases
        self._runner = runner

    def wants(self, request: WantsBuild) -> bool:
        """Whether any of the commands is to run on the release. Raises ``NotFound``."""
        tree = paths.release(self._settings, request.site, request.source)
        if not tree.is_dir():
            raise NotFound(f"there is no release {request.source[:19]}…", hint="deliver it again")
        return any(applies(command, tree) for command in request.commands)

    def build(self, request: BuildRelease, say: Say = quiet) -> Built:
        """Run the commands on a copy of the release and keep what comes out.

        A program that fails is an answer, not an error; the release it began with stays as it is either way.
        Raises ``NoRoom``, ``StepFailed``, and ``InvalidInput`` for what cannot be content.
        """
        began = time.monotonic()
        self._releases.prepare_site(request.site)
        room(self._settings, paths.site(self._settings, request.site))
        with self._runner.build(request, say) as (tree, message, output):
            if tree is None:
                return Built(None, message, output, time.monotonic() - began)
            say("keeping what was built", None)
            release = self._releases.collect(request.site, request.number, tree, say)
        built = msgspec.structs.replace(release, source=request.source)
        return Built(built, "", output[-TOLD:], time.monotonic() - began)
