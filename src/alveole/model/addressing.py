"""From a site's number to its addresses, hardware addresses, interface names and uid range.

Pure arithmetic, so that control (which shows and compiles addresses) and agent (which sets them)
can never disagree, and so that a route can be written before anything runs.

The IPv4 network is cut in four quarters. The first holds the addresses that sites keep for life;
the second and the third hold one address for each slot of each site, so that the old and the new
instance of a site can run side by side during an update; the fourth is left to the gateway.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import msgspec

#: Site addresses in a block of 256: .0 and .255 confuse people, .254 is the gateway's place.
_BLOCK = 253


class InstanceNet(msgspec.Struct, frozen=True):
    """Addresses of one instance: its own (by slot) and the site's for life."""

    interface: str
    mac: str
    own4: IPv4Address
    own6: IPv6Address
    life4: IPv4Address
    life6: IPv6Address


class Addressing(msgspec.Struct, frozen=True):
    network4: IPv4Network
    network6: IPv6Network
    gateway4: IPv4Address
    first4: IPv4Address
    interface_prefix: str

    @property
    def quarter(self) -> int:
        return self.network4.num_addresses // 4

    @property
    def gateway6(self) -> IPv6Address:
        return self.network6[(0xF << 32) | 1]

    @property
    def bridge_mac(self) -> str:
        return _mac(self.gateway4)

    def capacity(self) -> int:
        """How many sites the network can hold."""
        first = int(self.first4) - int(self.network4.network_address)
        room = self.quarter - first
        blocks, rest = divmod(room, 256)
        return blocks * _BLOCK + min(rest, _BLOCK)

    def life4(self, number: int) -> IPv4Address:
        """The IPv4 address of site ``number`` (from 1). Raises ``ValueError`` beyond the capacity."""
        if not 1 <= number <= self.capacity():
            raise ValueError(f"site number {number} is outside 1..{self.capacity()}")
        block, place = divmod(number - 1, _BLOCK)
        return self.first4 + block * 256 + place

    def number(self, life4: IPv4Address) -> int | None:
        """The site number whose address for life this is; ``None`` for any other address."""
        block, place = divmod(int(life4) - int(self.first4), 256)
        number = block * _BLOCK + place + 1
        return number if place < _BLOCK and 1 <= number <= self.capacity() else None

    def life6(self, number: int) -> IPv6Address:
        return self.network6[number]

    def instance(self, number: int, slot: int) -> InstanceNet:
        life4 = self.life4(number)
        own4 = life4 + self.quarter * (slot + 1)
        return InstanceNet(
            interface=f"{self.interface_prefix}{number:x}{'ab'[slot]}",
            mac=_mac(own4),
            own4=own4,
            own6=self.network6[((slot + 1) << 32) | number],
            life4=life4,
            life6=self.life6(number),
        )


def _mac(address: IPv4Address) -> str:
    # Derived from the address: a reused address with another hardware address is dead until the
    # neighbours' caches expire, 20 s and more. 0x0a: locally administered, unicast.
    return "0a:58:" + ":".join(f"{byte:02x}" for byte in address.packed)
