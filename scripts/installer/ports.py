"""Who listens where, read from /proc: no program of a package that may be absent is needed for it."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
from pathlib import Path

from kit import Instance, Stop

_LISTEN = "0A"


def check(instance: Instance) -> None:
    """Refuse, with all problems at once, when a port is held by somebody else."""
    wanted = [
        ("edge", "http_port", instance.setting("edge", "ipv4"), "--http-port"),
        ("edge", "http_port", instance.setting("edge", "ipv6"), "--http-port"),
        ("edge", "https_port", instance.setting("edge", "ipv4"), "--https-port"),
        ("edge", "https_port", instance.setting("edge", "ipv6"), "--https-port"),
        ("api", "port", instance.setting("api", "address"), ""),
    ]
    if instance.setting("ssh", "enabled"):
        addresses = (instance.setting("ssh", "ipv4"), instance.setting("ssh", "ipv6"))
        wanted += [("ssh", "port", address, "--ssh-port") for address in addresses if address]
    listening = _listening()
    problems: dict[str, str] = {}
    for section, key, address, option in wanted:
        port = instance.setting(section, key)
        for other, inode in listening.get(port, []):
            if not _overlap(address, other):
                continue
            holders = _holders(inode)
            if any(_is_ours(instance, pid) for pid in holders):
                continue
            who = (
                ", ".join(f"{_name(pid)} (pid {pid})" for pid in holders[:1])
                or "a process of another user or namespace"
            )
            cure = f"set {section}.{key} in {instance.config}" + (f", or give {option} PORT" if option else "")
            problems[f"{section}.{key}"] = f"port {port} is held by {who}; stop it, or {cure}"
    if problems:
        raise Stop("\n  ".join(problems.values()))


def _listening() -> dict[int, list[tuple[str, str]]]:
    """port → (address, inode) of each listening socket; the columns are those of proc(5)."""
    found: dict[int, list[tuple[str, str]]] = {}
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError):
            for line in Path("/proc/net", name).read_text(encoding="ascii").splitlines()[1:]:
                words = line.split()
                if words[3] != _LISTEN:
                    continue
                digits, _, port = words[1].partition(":")
                # Each group of four bytes is in the machine's own order.
                packed = b"".join(
                    struct.pack("=I", int(digits[start : start + 8], 16)) for start in range(0, len(digits), 8)
                )
                family = socket.AF_INET if name == "tcp" else socket.AF_INET6
                found.setdefault(int(port, 16), []).append((socket.inet_ntop(family, packed), words[9]))
    return found


def _overlap(wanted: str, held: str) -> bool:
    one, two = ipaddress.ip_address(wanted), ipaddress.ip_address(held)
    if one.version != two.version:
        # A socket on :: takes IPv4 too unless it says otherwise, which /proc does not tell.
        return False
    return one == two or one.is_unspecified or two.is_unspecified


def _holders(inode: str) -> list[int]:
    holders = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if any(str(entry.readlink()) == f"socket:[{inode}]" for entry in (process / "fd").iterdir()):
                holders.append(int(process.name))
    return sorted(holders)


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    return "a process"


def _is_ours(instance: Instance, pid: int) -> bool:
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
        return any(str(place).encode() + b"/" in words for place in (instance.run, instance.prefix))
    return False
