"""What differs between two versions: their files, and the configuration and the answers they ran with.

Files are of the version alone. Configuration and answers are those of an environment: a version that has left it was
stored there as the whole site that it was, and one that is live or lies ready runs with what the environment has now.
"""

from __future__ import annotations

from alveole.agent import protocol
from alveole.errors import NotFound, Refused
from alveole.model.app import App, Difference, Environment, Stage, Version
from alveole.model.site import Site
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.services.switching import SwitchingVerbs
from alveole.views.apps import VersionComparison


class CompareVerbs(SwitchingVerbs):
    def allow_app(self, caller: Actor, right: Right, app: str) -> None:
        """For a page that only offers what would be refused. Raises ``NotFound``, ``Denied``."""
        self._app(caller, right, app)

    def compare_versions(
        self, caller: Actor, app: str, one: str, other: str, environment: str | None = None
    ) -> VersionComparison:
        """From ``one`` to ``other``. Configuration and answers in ``environment``, or in the last one that had both.

        Raises ``NotFound``, and ``Refused`` for a version that ``environment`` never had.
        """
        found = self._app(caller, Right.APP_LOOK, app)
        before, after = self._version(found, one), self._version(found, other)
        where, states = self._both_in(caller, found, before, after, environment)
        files = Difference()
        if before.release != after.release:
            files = self.agent.call(protocol.CompareReleases(found.store, found.number, before.release, after.release))
        was, becomes = states or (None, None)
        return VersionComparison(
            one=before.name,
            other=after.name,
            environment=where,
            files=files,
            configuration=self._plan_of(was, becomes, {}, (), ()).files if was and becomes else (),
            answers=self._changed_answers(was, becomes) if was and becomes else {},
            settings=_changed_settings(was, becomes) if was and becomes else {},
        )

    def _both_in(
        self, caller: Actor, app: App, before: Version, after: Version, environment: str | None
    ) -> tuple[str, tuple[Site, Site] | None]:
        """The environment that is looked at, and how it was with each of the two."""
        if environment is not None:
            own = app.environment(environment)
            if own is None:
                names = ", ".join(each.name for each in app.environments)
                raise NotFound(
                    f"{app.name} has no environment {environment!r}", field="environment", hint=f"it has {names}"
                )
            states = []
            for version in (before, after):
                state = self._state_with(app, own, version)
                if state is None:
                    hint = f"see: alveole app history {app.name}"
                    raise Refused(
                        f"{own.name.upper()} never had version {version.name}", field="environment", hint=hint
                    )
                states.append(state)
            return own.name, (states[0], states[1])
        for own in reversed(app.environments):
            one, other = self._state_with(app, own, before), self._state_with(app, own, after)
            if one is not None and other is not None:
                return own.name, (one, other)
        return "", None

    def _state_with(self, app: App, environment: Environment, version: Version) -> Site | None:
        """The site as it last was with ``version``; ``None`` when that was never brought in."""
        for each in self.apps.deployments(app.id, environment.name):
            if each.version != version.id:
                continue
            if each.stage in (Stage.LIVE, Stage.DELIVERED):
                return self._site_at(environment)
            if each.stage is Stage.LEFT and each.was is not None:
                return each.was
        return None


def _changed_settings(was: Site, becomes: Site) -> dict[str, str]:
    """What else the two ran with; of variables the names alone, for their values may be secrets."""
    found = {}
    if was.base.key != becomes.base.key:
        found["base"] = f"{was.base.label} ({was.base.key}) → {becomes.base.label} ({becomes.base.key})"
    one, other = (each.application.asked if each.application is not None else () for each in (was, becomes))
    if one != other:
        found["modules"] = f"{', '.join(one) or '-'} → {', '.join(other) or '-'}"
    names = sorted(name for name in was.env.keys() | becomes.env.keys() if was.env.get(name) != becomes.env.get(name))
    if names:
        found["env"] = ", ".join(names)
    return found
