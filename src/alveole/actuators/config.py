"""Configuration files of sites of modules: not carried out yet, and said so when asked for."""

from __future__ import annotations

from collections.abc import Collection

from alveole.backends.base import Say, quiet
from alveole.model.resource import Action, Kind, Observation, Outcome, Step


class ConfigFiles:
    kinds = frozenset({Kind.CONFIG})

    def observe(self, scopes: Collection[str] | None = None) -> Observation:
        return Observation(())

    def apply(self, step: Step, say: Say = quiet) -> Outcome:
        if step.action is Action.DELETE:
            return Outcome(True)
        return Outcome(False, "configuration files cannot be written yet", temporary=False)
