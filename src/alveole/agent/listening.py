"""Whether a program of a site listens where a port of the machine leads, by the kernel's own tables."""

from __future__ import annotations

from pathlib import Path

from alveole.agent.lending import LookAtPorts
from alveole.agent.protocol import Link
from alveole.model.lent import Published, Transport

#: Tables of /proc/PID/net, and the codes of include/net/tcp_states.h: a listener; a datagram socket without a peer.
_TABLES = {Transport.TCP: ("tcp", "0A"), Transport.UDP: ("udp", "07")}
#: As the tables write them: 32-bit words, each in the machine's own order (a Debian server's is the little end first).
_LOOPBACK6 = "00000000000000000000000001000000"


def look(request: LookAtPorts, pid: int | None) -> tuple[Link, ...]:
    """One link a port. ``pid``: a process of the instance; ``None``: it does not run, and there is nothing to say."""
    if pid is None:
        return ()
    heard = {transport: _addresses(pid, transport) for transport in {each.protocol for each in request.ports}}
    return tuple(_link(each, heard[each.protocol].get(each.port, set())) for each in request.ports)


def _link(port: Published, addresses: set[str]) -> Link:
    asked = f"who listens at port {port.port}/{port.protocol} inside"
    name = f"port {port.host}/{port.protocol}"
    if any(_is_open(each) for each in addresses):
        return Link(name, True, asked, "a program of the site")
    cure = "let a program of the site listen there, at 0.0.0.0 or ::, or take the port back"
    if addresses:
        return Link(name, False, asked, "a program that hears only the site itself (127.0.0.1 or ::1)", cure)
    return Link(name, False, asked, "nobody; what is served at a Unix socket is not reached by a port", cure)


def _is_open(address: str) -> bool:
    return address != _LOOPBACK6 and not (len(address) == 8 and address.endswith("7F"))


def _addresses(pid: int, transport: Transport) -> dict[int, set[str]]:
    """By port, the addresses that are listened at there, as the kernel writes them."""
    name, state = _TABLES[transport]
    found: dict[int, set[str]] = {}
    for family in ("", "6"):
        try:
            lines = Path(f"/proc/{pid}/net/{name}{family}").read_text("ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == state:
                address, _, port = fields[1].partition(":")
                found.setdefault(int(port, 16), set()).add(address)
    return found
