"""How good sites on other machines are, and how they stand: by that machine's own figures, kept here as they were seen
last."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from alveole import views, wholefile
from alveole.config import Settings
from alveole.errors import AlveoleError
from alveole.figures import months
from alveole.model.site import Site, Wanted
from alveole.remote.apiclient import Client
from alveole.remote.fleet import Look
from alveole.store import Store
from alveole.views.figures import FarStanding, QualityView

log = logging.getLogger("alveole.figures")
#: What is younger is not asked for anew; and so often it is asked for while nobody looks, for when the machine is away.
_FRESH_SECONDS, _LOOK_SECONDS = 60.0, 600.0
#: Months that are kept, as many as the page of a site shows at most.
_KEPT = 13


class _Month(msgspec.Struct, forbid_unknown_fields=True):
    """What a machine said of a month. ``sites``: by the id of the site here."""

    seen_at: float
    sites: dict[str, QualityView]


class Machines(Protocol):
    """What is known of the machines that are driven from here."""

    settings: Settings
    store: Store
    _node_looks: dict[str, Look]
    _node_problems: dict[str, str]

    def _api_of(self, name: str) -> Client: ...


class FarFigures:
    """Safe from several threads."""

    def __init__(self, of: Machines) -> None:
        self._of = of
        self._months: dict[str, dict[str, _Month]] = {}
        self._lock = threading.Lock()

    def is_away(self, node: str) -> bool:
        return node in self._of._node_problems

    # --- by month -----------------------------------------------------------------------------
    def kept(self, site: Site, month: str) -> QualityView | None:
        """What the machine of a site said last."""
        found = self._kept(site.node).get(month)
        if found is None or site.id not in found.sites:
            return None
        away = self.is_away(site.node)
        return msgspec.structs.replace(
            found.sites[site.id], site=site.name, node=site.node, seen_at=found.seen_at if away else None
        )

    def quality(self, sites: Sequence[Site], month: str) -> dict[str, QualityView]:
        """By the id of the site, as their machines say now, or said last."""
        for node in {each.node for each in sites}:
            self._ask(node, month)
        return {each.id: self.kept(each, month) or _unknown(each, month) for each in sites}

    def look(self, node: str) -> None:
        """Now and then while a machine answers, so that something is known when it is away."""
        sites = {each.site.id for each in self._of.store.sites.values() if each.site.node == node}
        if sites:
            month = months.month_of(time.time())
            known = self._kept(node).get(month)
            self._ask(
                node, month, _LOOK_SECONDS if known is not None and sites <= known.sites.keys() else _FRESH_SECONDS
            )

    def forget(self, node: str) -> None:
        with self._lock:
            self._months.pop(node, None)
            self._file(node).unlink(missing_ok=True)

    # --- asking and keeping -------------------------------------------------------------------
    def _ask(self, node: str, month: str, fresh: float = _FRESH_SECONDS) -> None:
        """Have what a machine says of a month, unless that is fresh; nothing where it is away."""
        known = self._kept(node).get(month)
        if self.is_away(node) or (known is not None and time.time() - known.seen_at < fresh):
            return
        try:
            asked = self._of._api_of(node).get("/v1/quality", {"month": month})
            told = msgspec.convert(asked, list[QualityView])
        except (AlveoleError, msgspec.ValidationError) as error:
            log.info("%s does not say how good its sites are: %s", node, error)
            return
        here = {each.site.name: each.site.id for each in self._of.store.sites.values() if each.site.node == node}
        # Before this machine heard of it the site may have been gone there: what was known of it is kept.
        sites = {**(known.sites if known is not None else {}), **{here[e.site]: e for e in told if e.site in here}}
        with self._lock:
            found = {**self._kept(node), month: _Month(time.time(), sites)}
            found = {each: found[each] for each in sorted(found)[-_KEPT:]}
            self._months[node] = found
            place = self._file(node)
            try:
                place.parent.mkdir(mode=0o700, exist_ok=True)
                wholefile.write(place, msgspec.json.encode(found))
            except OSError as error:
                # It is known until control ends.
                log.warning("what %s says of its sites could not be kept: %s", node, error)

    def _kept(self, node: str) -> dict[str, _Month]:
        known = self._months.get(node)
        if known is None:
            try:
                known = msgspec.json.decode(self._file(node).read_bytes(), type=dict[str, _Month])
            except (FileNotFoundError, msgspec.DecodeError):
                # Of another version, or none: it is asked for anew.
                known = {}
            self._months[node] = known
        return known

    def _file(self, node: str) -> Path:
        return self._of.settings.database.parent / "far-quality" / f"{node}.json"

    def standing(self, node: str, sites: Sequence[Site], not_reached: Collection[str]) -> FarStanding:
        """By what the machine said last. ``not_reached``: ids of the sites to which the way from here is broken."""
        look = self._of._node_looks.get(node)
        running, asleep, broken = 0, 0, []
        for site in (each for each in sites if each.wanted is Wanted.RUNNING):
            seen = look.sites.get(site.name) if look is not None else None
            state = seen.state if seen is not None else None
            if look is not None and (state in (None, views.State.FAILED) or site.id in not_reached):
                broken.append(site.name)
            elif state is views.State.ASLEEP:
                asleep += 1
            elif state is views.State.RUNNING:
                running += 1
        return FarStanding(
            node=node,
            reached=not self.is_away(node),
            seen_at=look.at if look is not None else None,
            sites=len(sites),
            running=running,
            asleep=asleep,
            broken=tuple(broken),
        )


def _unknown(site: Site, month: str) -> QualityView:
    """Nothing was heard of it: that is not known, and not what this machine alone sees of it."""
    return QualityView(
        site=site.name,
        month=month,
        known=0.0,
        availability=None,
        requests=0,
        failed=0,
        answered=None,
        p50=None,
        p95=None,
        p99=None,
        promises_kept=None,
        deploys=0,
        deploys_failed=0,
        rollbacks=0,
        node=site.node,
    )
