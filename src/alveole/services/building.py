"""Between content that is delivered and content that runs: the build that the modules of a site ask for."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Mapping

import msgspec

from alveole.agent import protocol
from alveole.errors import AlveoleError, InvalidInput, NotFound, Refused
from alveole.failpoints import hit
from alveole.journal import Live
from alveole.model.site import Base, Building, Release, Site
from alveole.services.core import Core
from alveole.services.draft import is_base_of, newest_base
from alveole.store import KnownBase

#: Level of the events that hold what a build printed.
BUILD = "build"
SHOWN_LINES = 20
#: How the agent tells that another program begins.
PROGRAM = "$ "


class Builders(Core):
    """The piece of the flows of create and update that builds."""

    def _with_leave(self, live: Live, site: Site) -> Site:
        """``site`` as it is to be stored, when the change says whether its builds may ask the registries."""
        application, leave = site.application, live.work.build_network
        if leave is None or application is None or application.building is None:
            return site
        building = msgspec.structs.replace(application.building, network=leave)
        return msgspec.structs.replace(site, application=msgspec.structs.replace(application, building=building))

    def _built(self, live: Live, site: Site, source: Release, *, keep: bool = False) -> tuple[Release, Site]:
        """What comes of ``source``, and the site with what that was made for; both as given when nothing is built.

        The source goes once it has been built, and also when that fails, unless it is to be kept. Raises
        ``InvalidInput`` with which program failed; what it printed is in the journal.
        """
        application = site.application
        building = application.building if application is not None else None
        if (
            application is None
            or building is None
            or not self.agent.call(protocol.WantsBuild(site.id, site.number, source.digest, building.commands))
        ):
            return source, site
        leave = self.settings.build.network if building.network is None else building.network
        try:
            base, made_for = self._build_base(live, building, site.base)
            request = protocol.BuildRelease(
                site.id, site.number, source.digest, base, building.commands, site.env, leave
            )
            live.say("building, with the package registries" if leave else "building, without network")
            built: protocol.Built = self.agent.call(request, say=_told(live, building))
        except AlveoleError:
            if not keep:
                self._drop_source(site, source.digest)
            raise
        hit("services.built")
        release = built.release
        if not keep and (release is None or release.digest != source.digest):
            self._drop_source(site, source.digest)
        # Of one that failed the last lines stay on the screen: those of the program that failed.
        last = max((at + 1 for at, line in enumerate(built.output) if line.startswith(PROGRAM)), default=0)
        shown = len(built.output) if release is not None else max(last, len(built.output) - SHOWN_LINES)
        for place, line in enumerate(built.output):
            live.say(line, level=BUILD if place < shown else "warning")
        if release is None:
            leaving = "allow the package registries with --build-network; " if not leave and _asks(building) else ""
            raise InvalidInput(
                f"the build failed: {built.message}",
                field="from",
                hint=f"{leaving}all that it printed: alveole change show {live.id}",
            )
        live.say(f"built: {release.files} files, {release.bytes} bytes, {release.digest[:19]}", seconds=built.seconds)
        building = msgspec.structs.replace(building, made_for=made_for)
        return (
            msgspec.structs.replace(release, created_at=time.time(), sender=source.sender, note=source.note),
            msgspec.structs.replace(site, application=msgspec.structs.replace(application, building=building)),
        )

    def _fitting(self, live: Live, site: Site, base: Base) -> Site:
        """``site`` on ``base``, its content built again when it was made for other versions than ``base`` has.

        What comes of it is a release of the site then, to be taken away with :meth:`_drop_built` when it is not
        to be. Raises as :meth:`_built`.
        """
        moved = msgspec.structs.replace(site, base=base)
        differing = self._must_build(site, base)
        live_one = next((each for each in self.store.releases(site.id) if each.digest == site.release), None)
        if not differing or live_one is None:
            return moved
        live.say(f"{site.name} is built again: it was made for {differing}")
        release, moved = self._built(live, moved, live_one)
        if release.digest != site.release:
            with self.store.write() as transaction:
                transaction.put_release(site.id, release)
        return msgspec.structs.replace(moved, release=release.digest)

    def _must_build(self, site: Site, base: Base) -> str:
        """For which versions the content of ``site`` was made that ``base`` has not; empty when it runs there."""
        building = site.application.building if site.application is not None else None
        if building is None or not building.made_for:
            return ""
        return _differing(building.made_for, self._versions(base, building), f"the base {base.key} has")

    def _drop_built(self, site: Site, moved: Site) -> None:
        """Take away what :meth:`_fitting` has built for ``moved``, if anything, of which nothing came."""
        if moved.release is not None and moved.release != site.release:
            with self.store.write() as transaction:
                transaction.delete_release(site.id, moved.release)
            self._drop_source(site, moved.release)

    def _builders(self, site: Site) -> tuple[KnownBase, ...]:
        """The bases that were made for builds of the site, the newest first."""
        building = site.application.building if site.application is not None else None
        if building is None:
            return ()
        found = [each for each in self.store.bases.values() if is_base_of(building.packages, each)]
        return tuple(sorted(found, key=lambda known: known.created_at, reverse=True))

    def _builds_on(self) -> dict[str, tuple[Base, tuple[Site, ...]]]:
        """By key, each base that the next build of some sites runs on, and these sites by name."""
        found: dict[str, tuple[Base, tuple[Site, ...]]] = {}
        for stored in sorted(self.store.sites.values(), key=lambda stored: stored.site.name):
            for known in self._builders(stored.site)[:1]:
                _, sites = found.get(known.base.key, (known.base, ()))
                found[known.base.key] = (known.base, (*sites, stored.site))
        return found

    def _built_on(self, key: str) -> tuple[Site, ...]:
        """The sites whose content is built on the base, by name."""
        return self._builds_on()[key][1] if key in self._builds_on() else ()

    def _build_base(self, live: Live, building: Building, own: Base) -> tuple[Base, dict[str, str]]:
        """The base that builds for a site on ``own`` run on, made when it is not there, and what it builds for.

        Raises ``Refused`` when what it builds would not run on ``own``.
        """
        base: Base = newest_base(building.packages, self.store.bases) or self.agent.call(
            protocol.ResolveBase("debian", building.packages)
        )
        # The site's own first: mostly it is a part of what builds run on, which then lies over it.
        self._have(live, own)
        self._have(live, base)
        if not building.runtime:
            return base, {}
        wanted = self._versions(own, building)
        if _differing(self._versions(base, building), wanted, ""):
            # A site that is on an older base, or goes back to one, is built on what was there at its time.
            for known in self.store.bases.values():
                with contextlib.suppress(NotFound):
                    if is_base_of(building.packages, known) and self._versions(known.base, building) == wanted:
                        return known.base, wanted
            # Nobody upgrades what no site runs on.
            base = self.agent.call(protocol.RenewBase(base.key), say=live.show).base
            self._have(live, base)
        found = self._versions(base, building)
        if differing := _differing(found, wanted, "the site's base has"):
            raise Refused(
                f"the base for building makes what runs on {differing}", hint=f"alveole base upgrade {own.key}"
            )
        return base, found

    def _have(self, live: Live, base: Base) -> None:
        if base.key not in self.store.bases:
            with self.store.write() as transaction:
                transaction.put_base(KnownBase(base, time.time()))
        if problems := self.loop.ensure_base(base, live):
            raise AlveoleError(problems=problems)

    def _versions(self, base: Base, building: Building) -> dict[str, str]:
        """Of the packages that what is built hangs on: ``{"python3": "3.11"}``; absent ones are left out."""
        state: protocol.BaseState = self.agent.call(protocol.ListBases(base.key))[0]
        return {
            name: numbers(state.installed[name], many)
            for name, many in building.runtime.items()
            if name in state.installed
        }

    def _drop_source(self, site: Site, digest: str) -> None:
        """A source that is also a release of the site (nothing was to build then) stays."""
        if digest == site.release or any(each.digest == digest for each in self.store.releases(site.id)):
            return
        with contextlib.suppress(AlveoleError):
            self.agent.call(protocol.DropRelease(site.id, site.number, digest))


def numbers(version: str, many: int) -> str:
    """The first ``many`` numbers of a Debian version: ``1:3.11.2-1+b1`` → ``3.11``."""
    return ".".join(re.findall(r"\d+", version.rpartition(":")[2])[:many])


def _differing(made_for: Mapping[str, str], there: Mapping[str, str], who: str) -> str:
    """``python3 3.11, and the new base has 3.13``; empty when all are the same."""
    found = [(name, each, there.get(name, "none")) for name, each in made_for.items() if there.get(name) != each]
    return "; ".join(f"{name} {one}, and {who} {other}" for name, one, other in found)


def _told(live: Live, building: Building) -> Callable[[str, float | None], None]:
    """Tells which program of a build is at work, for good; what that prints passes by.

    A share of the whole makes it progress for followers, which where nothing can move is not printed: the last
    lines of a build that failed are told at its end, and would be there twice.
    """
    begun = 0

    def say(text: str, _share: float | None = None) -> None:
        nonlocal begun
        if text.startswith(PROGRAM):
            begun += 1
            live.say(text)
        else:
            live.show(text, max(0, begun - 1) / len(building.commands))

    return say


def _asks(building: Building) -> bool:
    return any(command.network for command in building.commands)
