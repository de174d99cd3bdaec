"""Between content that is delivered and content that runs: the build that the modules of a site ask for."""

from __future__ import annotations

import contextlib
import time

import msgspec

from alveole.agent import protocol
from alveole.errors import AlveoleError, InvalidInput
from alveole.failpoints import hit
from alveole.journal import Live
from alveole.model.site import Base, Building, Release, Site
from alveole.services.core import Core
from alveole.store import KnownBase

#: Level of the events that hold what a build printed.
BUILD = "build"
SHOWN_LINES = 20


class Builders(Core):
    """The piece of the flows of create and update that builds."""

    def _with_leave(self, live: Live, site: Site) -> Site:
        """``site`` as it is to be stored, when the change says whether its builds may ask the registries."""
        application, leave = site.application, live.work.build_network
        if leave is None or application is None or application.building is None:
            return site
        building = msgspec.structs.replace(application.building, network=leave)
        return msgspec.structs.replace(site, application=msgspec.structs.replace(application, building=building))

    def _built(self, live: Live, site: Site, source: Release) -> Release:
        """What comes of ``source``: itself when there is nothing to build.

        The source goes once it has been built, and also when that fails. Raises ``InvalidInput`` with
        which program failed; what it printed is in the journal.
        """
        building = site.application.building if site.application is not None else None
        if building is None or not self.agent.call(
            protocol.WantsBuild(site.id, site.number, source.digest, building.commands)
        ):
            return source
        leave = self.settings.build.network if building.network is None else building.network
        try:
            request = protocol.BuildRelease(
                site.id,
                site.number,
                source.digest,
                self._build_base(live, building),
                building.commands,
                site.env,
                leave,
            )
            live.say("building, with the package registries" if leave else "building, without network")
            built: protocol.Built = self.agent.call(request, say=live.show)
        except AlveoleError:
            self._drop_source(site, source.digest)
            raise
        hit("services.built")
        release = built.release
        # Of one that failed the last lines stay on the screen.
        kept = 0 if release is not None else SHOWN_LINES
        for place, line in enumerate(built.output):
            live.say(line, level="warning" if place >= len(built.output) - kept else BUILD)
        if release is None or release.digest != source.digest:
            self._drop_source(site, source.digest)
        if release is None:
            raise InvalidInput(
                f"the build failed: {built.message}",
                field="from",
                hint="allow the package registries with --build-network" if not leave and _asks(building) else "",
            )
        live.say(f"built: {release.files} files, {release.bytes} bytes, {release.digest[:19]}", seconds=built.seconds)
        return msgspec.structs.replace(release, created_at=time.time(), sender=source.sender, note=source.note)

    def _build_base(self, live: Live, building: Building) -> Base:
        """The base that builds run on, made when it is not there."""
        base: Base = self.agent.call(protocol.ResolveBase("debian", building.packages))
        if base.key not in self.store.bases:
            with self.store.write() as transaction:
                transaction.put_base(KnownBase(base, time.time()))
        if problems := self.loop.ensure_base(base, live):
            raise AlveoleError(problems=problems)
        return base

    def _drop_source(self, site: Site, digest: str) -> None:
        """A source that is also a release of the site (nothing was to build then) stays."""
        if digest == site.release or any(each.digest == digest for each in self.store.releases(site.id)):
            return
        with contextlib.suppress(AlveoleError):
            self.agent.call(protocol.DropRelease(site.id, site.number, digest))


def _asks(building: Building) -> bool:
    return any(command.network for command in building.commands)
