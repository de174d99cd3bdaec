"""The bridge, the rules and the addresses for life as resources.

Where the stamp of each stands: the network's in the alias of the bridge, the firewall's in the
comment of the chain ``seal``, an address's in ``RUN/addresses/<site>``, because a neighbour entry
can carry no text. The entry itself is what counts: the file alone makes nothing ready.

Instances come and go through their back end. What is done about them here is repair: whatever has
an interface on this machine gets back its rules, its place on the bridge and its neighbours.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec

from alveole import failpoints, wholefile
from alveole.backends.base import Say, quiet
from alveole.config import Settings
from alveole.errors import AlveoleError
from alveole.host.firewall import Firewall, Opening
from alveole.host.network import BridgeState, Port, SiteNetwork
from alveole.model.lent import Published
from alveole.model.resource import (
    PLATFORM,
    Action,
    AddressSpec,
    Defect,
    Kind,
    Observation,
    Observed,
    Outcome,
    ResourceId,
    Step,
)

#: A second look this much later decides about every defect: an instance that starts or ends meanwhile is none.
_SECOND_LOOK = 0.1
_SITE = re.compile(r"^s[a-z2-7]{12}\Z")

_ListPorts = Callable[[], dict[str, Port]]

NETWORK = ResourceId(Kind.NETWORK, PLATFORM, "network")
FIREWALL = ResourceId(Kind.FIREWALL, PLATFORM, "firewall")


class Instance(msgspec.Struct, frozen=True):
    """An instance that runs now, as its back end knows it."""

    site: str
    number: int
    slot: int
    internet: bool


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``RUN/addresses/<site>`` holds, as JSON."""

    number: int
    slot: int
    digest: str
    ports: tuple[Published, ...] = ()


_keeps: msgspec.json.Decoder[_Kept] = msgspec.json.Decoder(_Kept)


class NetworkActuator:
    """Keeps ``network``, ``firewall`` and ``address``. Thread-safe."""

    kinds = frozenset({Kind.NETWORK, Kind.FIREWALL, Kind.ADDRESS})

    def __init__(
        self,
        settings: Settings,
        network: SiteNetwork,
        firewall: Firewall,
        instances: Callable[[], Collection[Instance]],
    ) -> None:
        self.network = network
        self.firewall = firewall
        self._instances = instances
        self._directory: Path = settings.run / "addresses"
        self._platform = threading.Lock()

    # Looking

    def observe(self, scopes: Collection[str] | None = None) -> Observation:
        found: list[Observed] = []
        unknown: list[tuple[Kind, str]] = []

        def look(kind: Kind, part: Callable[[], list[Observed]]) -> None:
            try:
                found.extend(part())
            except (OSError, AlveoleError, msgspec.DecodeError) as error:
                unknown.append((kind, str(error)))

        if scopes is None or PLATFORM in scopes:
            # One list of interfaces for both. It is made before the rules are read: whoever starts
            # meanwhile has then more rules than interfaces, not fewer.
            ports: list[dict[str, Port]] = []

            def first() -> dict[str, Port]:
                if not ports:
                    ports.append(self.network.ports())
                return ports[0]

            look(Kind.NETWORK, lambda: _twice(self._observe_network, first, self.network.ports))
            look(Kind.FIREWALL, lambda: _twice(self._observe_firewall, first, self.network.ports))
        sites = None if scopes is None else [scope for scope in scopes if _SITE.match(scope)]
        if sites is None or sites:
            look(Kind.ADDRESS, lambda: self._observe_addresses(sites))
        return Observation(tuple(found), tuple(unknown))

    def _observe_network(self, list_ports: _ListPorts) -> list[Observed]:
        state = self.network.observe_bridge()
        if state is None:
            return []
        defects = [Defect("changed", problem) for problem in state.problems]
        ports = list_ports()
        loose = self.network.loose(ports)
        defects += [Defect("interface-loose", problem) for problem in loose.values()]
        return [self._seen(NETWORK, state.stamp, defects, {"instances": len(ports)}, _bridge_ready(state))]

    def _observe_firewall(self, list_ports: _ListPorts) -> list[Observed]:
        ports = list_ports()
        running = self._running()
        present = _present(ports, running)
        state = self.firewall.observe(present, running, self._openings())
        if state is None:
            return []
        return [self._seen(FIREWALL, state.stamp, [Defect("rules-missing", each) for each in state.problems])]

    def _observe_addresses(self, sites: Collection[str] | None) -> list[Observed]:
        kept = self._kept(sites)
        owners = self.network.life_addresses([each.number for each in kept.values()])
        found = []
        for site, each in kept.items():
            owner = owners.get(each.number)
            address = self.network.addressing.life4(each.number)
            defects = []
            if owner is None:
                defects.append(Defect("address-missing", f"the host does not know where {address} is"))
            elif owner != each.slot:
                defects.append(Defect("changed", f"{address} leads to instance {owner}, not {each.slot}"))
            workload = ResourceId(Kind.WORKLOAD, site, str(each.slot))
            found.append(
                Observed(
                    _address(site),
                    each.digest,
                    ready=not defects,
                    defects=tuple(defects),
                    uses=(workload,),
                    detail={"ipv4": str(address), "ipv6": str(self.network.addressing.life6(each.number))},
                )
            )
        return found

    def _seen(
        self,
        identity: ResourceId,
        stamp: str,
        defects: list[Defect],
        detail: dict[str, str | int | float] | None = None,
        ready: bool | None = None,
    ) -> Observed:
        return Observed(
            identity, stamp, ready=not defects if ready is None else ready, defects=tuple(defects), detail=detail or {}
        )

    def _running(self) -> dict[tuple[int, int], bool]:
        return {(each.number, each.slot): each.internet for each in self._instances()}

    # Acting

    def apply(self, step: Step, say: Say = quiet) -> Outcome:
        start = time.monotonic()
        try:
            if step.id.kind is Kind.ADDRESS:
                self._apply_address(step)
            else:
                with self._platform:
                    {Kind.NETWORK: self._apply_network, Kind.FIREWALL: self._apply_firewall}[step.id.kind](step)
        except (OSError, AlveoleError) as error:
            temporary = not isinstance(error, AlveoleError) or error.exit_status == 5
            return Outcome(False, str(error), temporary, time.monotonic() - start)
        return Outcome(True, seconds=time.monotonic() - start)

    def _apply_network(self, step: Step) -> None:
        if step.action is Action.DELETE:
            self.network.remove()
            return
        self.network.ensure_bridge(step.digest)
        ports = self.network.ports()
        for name in self.network.loose(ports):
            # An instance may end at this moment.
            with contextlib.suppress(OSError):
                self.network.attach(ports[name].number, ports[name].slot)
        places = {(port.number, port.slot) for port in ports.values()}
        for each in self._kept(None).values():
            if (each.number, each.slot) in places:
                self.network.set_life_address(each.number, each.slot)
        self.network.sweep(lambda: [each.number for each in self._kept(None).values()])

    def _apply_firewall(self, step: Step) -> None:
        if step.action is Action.DELETE:
            self.firewall.remove()
            return
        self.firewall.update(lambda: _present(self.network.ports(), self._running()), step.digest, self._openings)

    def _apply_address(self, step: Step) -> None:
        file = self._directory / step.id.scope
        before = self._kept((step.id.scope,)).get(step.id.scope)
        if step.action is Action.DELETE:
            if before is not None:
                self.network.drop_life_address(before.number)
            file.unlink(missing_ok=True)
            if before is not None and before.ports:
                self.firewall.publish(self._openings)
            return
        spec = step.spec
        if not isinstance(spec, AddressSpec) or not _SITE.match(step.id.scope):
            raise TypeError(f"{step.id} with {spec!r}")
        # The file first: after a crash in between, the address is seen with a defect and set again.
        self._directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        ports = spec.ports or ()
        content = msgspec.json.encode(_Kept(spec.number, spec.slot, step.digest, ports))
        wholefile.write(file, content, mode=0o644, synced=False)
        failpoints.hit("address-written")
        self.network.set_life_address(spec.number, spec.slot)
        if ports or (before is not None and before.ports):
            self.firewall.publish(self._openings)

    def _openings(self) -> tuple[Opening, ...]:
        """Every port of the machine that is to lead into a site now."""
        return tuple(
            Opening(kept.number, kept.slot, each.host, each.port, each.protocol)
            for kept in self._kept(None).values()
            for each in kept.ports
        )

    def _kept(self, sites: Collection[str] | None) -> dict[str, _Kept]:
        if sites is None:
            try:
                sites = [file.name for file in self._directory.iterdir() if _SITE.match(file.name)]
            except FileNotFoundError:
                return {}
        found = {}
        for site in sites:
            with contextlib.suppress(FileNotFoundError):
                try:
                    found[site] = _keeps.decode((self._directory / site).read_bytes())
                except msgspec.MsgspecError:
                    # Torn or altered: as if it had never been made; the next step writes it anew.
                    (self._directory / site).unlink(missing_ok=True)
        return found


def _present(ports: dict[str, Port], running: dict[tuple[int, int], bool]) -> dict[tuple[int, int], bool]:
    """Every instance with an interface, and whether it may go out: the back end's word before the interface's."""
    places = {(port.number, port.slot): port.internet for port in ports.values()}
    return {place: running.get(place, internet) for place, internet in places.items()}


def _address(site: str) -> ResourceId:
    return ResourceId(Kind.ADDRESS, site, "ipv4")


def _bridge_ready(state: BridgeState) -> bool:
    """A loose port is a defect of one site, and no reason for the others to wait."""
    return not state.problems


def _twice(look: Callable[[_ListPorts], list[Observed]], first_ports: _ListPorts, ports: _ListPorts) -> list[Observed]:
    """Look again when there is a defect, and keep those that were there both times."""
    first = look(first_ports)
    if not any(each.defects for each in first):
        return first
    time.sleep(_SECOND_LOOK)
    before = {defect for each in first for defect in each.defects}
    second = []
    for each in look(ports):
        defects = tuple(defect for defect in each.defects if defect in before)
        ready = each.ready or not defects
        second.append(msgspec.structs.replace(each, defects=defects, ready=ready))
    return second
