"""Incidents of machines that are driven from here: fetched, told here, and acted on from here."""

from __future__ import annotations

import contextlib
import logging
import threading
import time

import msgspec

from alveole.errors import AlveoleError, NotFound, Temporary
from alveole.incidents.model import IncidentDetail, IncidentView, Said
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.remote.apiclient import Client
from alveole.services.audience import whither
from alveole.services.forwarding import understood
from alveole.services.nodes import NodeVerbs
from alveole.services.rules import RuleVerbs

log = logging.getLogger("alveole.incidents")
#: What is said of an incident, and joined to it, without its line in the list being another one.
_WHOLE_SECONDS = 60.0
#: How often a machine without sites of this one is asked how it is.
_OTHERS_SECONDS = 20.0


class FarIncidentVerbs(RuleVerbs, NodeVerbs):
    _incidents_lock: threading.Lock
    _incidents_asked: dict[str, float]
    _others_asked: dict[str, float]
    _incidents_seen: dict[str, tuple[float, IncidentView]]

    # --- fetching them ------------------------------------------------------------------------
    def _watch_nodes(self) -> None:
        """Those without sites too, now and then; what was of a machine that is driven no more is over here."""
        super()._watch_nodes()
        nodes, now = self._nodes(), time.monotonic()
        for name in nodes:
            if now - self._others_asked.get(name, float("-inf")) >= _OTHERS_SECONDS:
                self._others_asked[name] = now
                self._ask_soon(name)
        for each in list(self.watch.open.values()):
            if each.node and each.node not in nodes:
                self.incidents_known.discard(each.node)
                self.watch.end(each, "", time.time(), f"{each.node} is not driven from here any more")

    def _look_at_node(self, name: str) -> None:
        super()._look_at_node(name)
        if name in self._node_problems:
            self.incidents_known.discard(name)
            return
        now = time.monotonic()
        if now - self._incidents_asked.get(name, float("-inf")) < self.settings.incidents.every_seconds:
            return
        self._incidents_asked[name] = now
        # Of what it says otherwise nothing is doubted: one of an older version is away for nobody.
        with contextlib.suppress(AlveoleError):
            self._fetch_incidents(name)

    def _fetch_incidents(self, node: str) -> None:
        """Those that are open there, and what became of those that were."""
        client = self._api_of(node)
        told = understood(node, client.get("/v1/incidents", {"state": "open"}), list[IncidentView])
        left = {id for id, each in list(self.watch.open.items()) if each.node == node}
        now = time.monotonic()
        for view in told:
            known = view.id in left
            left.discard(view.id)
            mine = self.watch.open.get(view.id)
            if mine is not None and mine.node != node:
                # This machine's own, or one that comes from another: nothing is learnt of it here.
                continue
            at, seen = self._incidents_seen.get(view.id, (float("-inf"), None))
            if (not known or seen != view or now - at >= _WHOLE_SECONDS) and self._has_fetched_incident(
                client, node, view.id
            ):
                self._incidents_seen[view.id] = (now, view)
        for id in left:
            self._incidents_seen.pop(id, None)
            self._has_fetched_incident(client, node, id)
        self.incidents_known.add(node)

    def _has_fetched_incident(self, client: Client, node: str, id: str) -> bool:
        """Whether it could be: one that could not keeps none of the others back. Raises ``Temporary``."""
        try:
            self._fetch_incident(client, node, id)
        except AlveoleError as error:
            if isinstance(error, Temporary) and not isinstance(error.__cause__, msgspec.ValidationError):
                # It is away: the next one would be waited for as long.
                raise
            log.warning("incident %s of node %s cannot be kept here: %s", id, node, error)
            return False
        return True

    def _fetch_incident(self, client: Client, node: str, id: str, who: str = "") -> None:
        with self._incidents_lock:
            try:
                told = understood(node, client.get(f"/v1/incidents/{id}"), IncidentDetail)
            except NotFound:
                gone = self.watch.open.get(id)
                if gone is not None and gone.node == node:
                    self.watch.end(gone, "", time.time(), f"{node} knows it no more")
                return
            to = frozenset(told.told_to)
            spared = tuple(each.id for each in self.telling.channels.values() if whither(each) in to)
            nodes, now = self._nodes(), time.time()
            self.watch.take(node, told, lambda site: self._id_here(node, site), spared, now, who=who, driven=nodes)

    def _id_here(self, node: str, site: str) -> str:
        stored = self.store.site(site)
        return stored.site.id if stored is not None and stored.site.node == node else ""

    def _heard(self, node: str) -> float | None:
        look = self._node_looks.get(node)
        return look.at if look is not None else None

    def show_incident(self, caller: Actor, incident: str) -> IncidentDetail:
        """As it is now; of a machine that is away, as it was last seen."""
        found = self._incident(caller, incident)
        if found.node and found.node in self._nodes() and found.node not in self._node_problems:
            with contextlib.suppress(AlveoleError):
                self._fetch_incident(self._api_of(found.node), found.node, found.id)
        return super().show_incident(caller, incident)

    # --- acting on them -----------------------------------------------------------------------
    def acknowledge_incident(self, caller: Actor, incident: str, request: Said) -> IncidentView:
        return self._act_there(caller, incident, "ack", request) or super().acknowledge_incident(
            caller, incident, request
        )

    def comment_incident(self, caller: Actor, incident: str, request: Said, *, action: bool = False) -> IncidentView:
        return self._act_there(caller, incident, "act" if action else "comment", request) or super().comment_incident(
            caller, incident, request, action=action
        )

    def close_incident(self, caller: Actor, incident: str, request: Said) -> IncidentView:
        return self._act_there(caller, incident, "close", request) or super().close_incident(caller, incident, request)

    def reopen_incident(self, caller: Actor, incident: str, request: Said) -> IncidentView:
        return self._act_there(caller, incident, "reopen", request) or super().reopen_incident(
            caller, incident, request
        )

    def _act_there(self, caller: Actor, id: str, what: str, request: Said) -> IncidentView | None:
        """What somebody does to an incident of another machine is done there, in their name; ``None`` for one of this.

        Raises what is refused there, and ``Temporary`` while that machine is away: nothing of it is kept for later.
        """
        found = self._incident(caller, id, Right.INCIDENT_ACT)
        if not found.node:
            return None
        self._text(request, needed=what in ("comment", "act"))
        said = f"{caller.name} ({self.settings.domain})" + (f": {request.text}" if request.text else "")
        client = self._api_of(found.node)
        client.send("POST", f"/v1/incidents/{found.id}/{what}", Said(text=said[:2000]))
        self._fetch_incident(client, found.node, found.id, who=caller.name)
        if verb := _NOTED.get(what):
            self._note_incident(caller, verb, found)
        return self._shown(caller, id)


_NOTED = {"ack": "acknowledge-incident", "close": "close-incident", "reopen": "reopen-incident"}
