"""Who is told of an incident, by which channels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from alveole.incidents.book import Incident
from alveole.incidents.model import PLATFORM
from alveole.incidents.watch import Talk
from alveole.notices import Kind, News
from alveole.people.model import NOBODYS, Near, Role
from alveole.people.rights import Right, may, near
from alveole.services.telling import Channel

if TYPE_CHECKING:
    from alveole.services.incidents import IncidentVerbs

_OPERATORS = (Role.ADMIN, Role.OPERATOR)


def whither(channel: Channel) -> str:
    """Where a channel leads, as something that can be compared and says nothing else."""
    return hashlib.sha256(f"{channel.kind} {channel.to.strip().lower()}".encode()).hexdigest()[:32]


class Audience:
    """Which channels of somebody are told of an incident: only those for incidents, of whom may look at it now."""

    def __init__(self, services: IncidentVerbs, incident: Incident, talk: Talk) -> None:
        self._services = services
        self._incident = incident
        own = incident.site_id
        joined = dict.fromkeys(each.site_id for each in talk.signals if each.site_id)
        self._sites = [own] if own != PLATFORM else list(joined)

    def channels(self, whom: Sequence[str]) -> list[Channel]:
        found: dict[str, Channel] = {}
        for each in whom:
            for channel in self._of(each):
                found[channel.id] = channel
        return sorted(found.values(), key=lambda channel: (channel.whom, channel.name))

    def _of(self, whom: str) -> list[Channel]:
        every = self._services.telling.channels
        if whom.startswith("channel:"):
            channel = every.get(whom.removeprefix("channel:"))
            return [channel] if channel is not None and self._anywhere(channel) else []
        open_ones = [each for each in every.values() if each.kind is not Kind.FEED and News.INCIDENT in each.events]
        if whom == "owner":
            found = [each for each in open_ones if any(self._owns(each, site) for site in self._sites)]
            # What is nobody's, or of somebody whom no channel reaches, is the operators'.
            own = self._incident.site_id != PLATFORM
            return found or ([each for each in open_ones if self._is(each, _OPERATORS)] if own else [])
        if whom in ("operators", "administrators"):
            roles = _OPERATORS if whom == "operators" else (Role.ADMIN,)
            return [each for each in open_ones if self._is(each, roles)]
        named = self._services.people.whom(whom)
        return [each for each in open_ones if named is not None and each.whom == named.id and self._anywhere(each)]

    def _is(self, channel: Channel, roles: Sequence[Role]) -> bool:
        person = self._services.people.persons.get(channel.whom)
        return person is not None and person.active and person.role in roles

    def _owns(self, channel: Channel, site: str) -> bool:
        """The site's own channel, its owner's, or that of somebody who works on it."""
        if channel.whom == site:
            return True
        people = self._services.people
        held = people.held_by_id(site, self._incident.owner if site == self._incident.site_id else "")
        if channel.whom in people.teams:
            return channel.whom == held.owner or held.shares.get(channel.whom, Near.FOREIGN) >= Near.CHANGE
        person = people.persons.get(channel.whom)
        if person is None or not person.active:
            return False
        actor = people.actor(person, "notification")
        return near(actor, held) >= Near.CHANGE and may(actor, Right.INCIDENT_LOOK, held)

    def _anywhere(self, channel: Channel) -> bool:
        return self.sees_platform(channel) or any(self.may_hear(channel, site) for site in self._sites)

    def may_hear(self, channel: Channel, site: str) -> bool:
        people = self._services.people
        if channel.whom == site:
            return True
        held = people.held_by_id(site, self._incident.owner if site == self._incident.site_id else "")
        if channel.whom in people.teams:
            return channel.whom == held.owner or held.shares.get(channel.whom, Near.FOREIGN) >= Near.LOOK
        person = people.persons.get(channel.whom)
        if person is None or not person.active:
            return False
        return may(people.actor(person, "notification"), Right.INCIDENT_LOOK, held)

    def sees_platform(self, channel: Channel) -> bool:
        """Whether it may be told all of an incident of the platform."""
        person = self._services.people.persons.get(channel.whom)
        if person is None or not person.active:
            return False
        return may(self._services.people.actor(person, "notification"), Right.INCIDENT_LOOK, NOBODYS)
