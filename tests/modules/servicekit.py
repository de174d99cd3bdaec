"""What tests of databases, caches and directories ask of every one of them; beside the kit."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

from modkit import ModuleSite

from instancekit import archive


def shut(site: ModuleSite, *ports: int, other: ModuleSite) -> None:
    """The services on ``ports`` of ``site`` answer inside of it, and neither ``other`` nor the machine."""
    shown = site.alveole.site(site.name)
    for port in ports:
        assert _knock(site, "127.0.0.1", port) == 0, f"port {port} does not answer inside"
        for address in (str(shown["ipv4"]), str(shown["ipv6"])):
            # bash says 1, timeout 124.
            assert _knock(other, address, port) in (1, 124), f"{address} port {port} answers another site"
            try:
                socket.create_connection((address, port), 3).close()
            except OSError:
                continue
            raise AssertionError(f"{address} port {port} of {site.name} answers the machine")


def _knock(site: ModuleSite, address: str, port: int) -> int:
    argv = ("timeout", "3", "bash", "-c", f"exec 3<>/dev/tcp/{address}/{port}")
    return int(site.alveole.cli("site", "exec", "--no-tty", site.name, "--", *argv, status=None).status)


def packed(place: Path, files: Mapping[str, str | bytes]) -> str:
    """An archive of ``files`` as the value of ``--from``; for content that is no text."""
    path = place / "content.tar.gz"
    path.write_bytes(archive(dict(files)))
    return str(path)
