#!/usr/bin/env python3
from __future__ import annotations

import socket
import ssl
import time

from common import ROOT, Instance
from machine import CGROUPS, BenchError, available_bytes, pss
from report import Row, Session, main, mb, say

#: Rounds of the drift, and of what else comes back by the clock, are this far apart by default (seconds).
ROUND = 10


def charged(name: str) -> int:
    """Memory charged to a cgroup and those below it, kernel memory too, in bytes; page cache that is idle is not."""
    for top, usage, stat, field in (
        (CGROUPS / "memory" / name, "memory.usage_in_bytes", "memory.stat", "total_inactive_file"),
        (CGROUPS / name, "memory.current", "memory.stat", "inactive_file"),
    ):
        if (top / usage).exists():
            idle = next(
                (int(line.split()[1]) for line in (top / stat).read_text().splitlines() if line.startswith(field)), 0
            )
            return int((top / usage).read_text()) - idle
    return 0


def parts_of(alveole: Instance) -> dict[str, int]:
    """PSS in bytes of every process of the platform, the SSH door and the edge included, by what it is."""
    parts = {
        "supervisor": pss({alveole.process.pid} if alveole.process else ()),
        "control": pss(alveole.role_pids("control")),
        "agent": pss(alveole.role_pids("agent")),
        "SSH door": pss(alveole.role_pids("ssh")),
        "edge": pss(alveole.edge_pids()),
    }
    parts["helper"] = max(pss(alveole.platform_pids()) - sum(parts.values()), 0)
    return parts


def split(parts: dict[str, int]) -> str:
    return f"{mb(sum(parts.values()))} ({', '.join(f'{part} {mb(size)}' for part, size in parts.items() if size)})"


def rests(alveole: Instance, seconds: float = 120.0) -> None:
    """Wait until the host keys are made and nobody speaks SSH."""
    until = time.monotonic() + seconds
    while not (alveole.state_dir / "ssh" / "ssh_host_rsa_key.pub").exists() or alveole.role_pids("ssh"):
        if time.monotonic() > until:
            raise BenchError("the SSH door does not come to rest")
        time.sleep(0.2)


def page_of_the_panel(alveole: Instance) -> None:
    context = ssl.create_default_context()
    # Whose certificate it is is no figure.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    name = alveole.host("panel")
    with (
        socket.create_connection(("127.0.0.1", alveole.https), 30) as plain,
        context.wrap_socket(plain, server_hostname=name) as client,
    ):
        client.sendall(f"GET /sign-in HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while block := client.recv(65536):
            answer += block
    if b" 200 " not in answer[:20] or b"</html>" not in answer:
        raise BenchError(f"no page of the panel: {answer[:200]!r}")


def moments(session: Session, alveole: Instance) -> dict[str, dict[str, int]]:
    """The platform without a site as quickstart leaves it, ten minutes later, when it was used, and with a visitor
    of the SSH door. Ends with no site."""
    found: dict[str, dict[str, int]] = {}
    rests(alveole)
    time.sleep(3)
    found["after the start"] = parts_of(alveole)
    minutes = session.runs(10, 1)
    say(f"letting {minutes * 60 // ROUND} rounds go by")
    time.sleep(minutes * 60)
    found[f"{minutes} min later"] = parts_of(alveole)
    # A first site, so that the base and what is made once are not counted as the site's.
    alveole.grow(["first"])
    with alveole.api() as api:
        api.destroy("first")
    page_of_the_panel(alveole)
    time.sleep(3)
    found["a site made and destroyed, a page of the panel shown"] = parts_of(alveole)
    with socket.create_connection(("127.0.0.1", alveole.ssh_port), 30) as client:
        client.recv(64)
        time.sleep(1)
        found["while somebody is at the SSH door"] = parts_of(alveole)
    return found


def figure(session: Session) -> list[Row]:
    """Memory of the platform with no site, and of each idle static site, everything counted.

    A site's is taken in two ways, and the larger one is held against the bar: what the kernel has less (MemAvailable),
    and the sum of what is charged to the sites' cgroups, the log writers' PSS and what the platform's own
    processes have grown by. The platform's is the largest of those moments at which nobody is there.
    """
    count = session.runs(100, 20)
    peers = session.runs(20, 5)
    # What an SSH connection has started rests again soon, so that it is not counted as the sites'.
    with Instance(
        keep_log=ROOT / "artefacts" / "bench-memory.log", ssh=True, ssh_more="rest_seconds = 10\n"
    ) as alveole:
        at = moments(session, alveole)
        rests(alveole)
        idle = pss(alveole.platform_pids())
        before = available_bytes()
        alveole.grow([f"idle{number}" for number in range(count)])
        time.sleep(3)
        after = available_bytes()
        platform = alveole.platform_pids()
        cgroups = charged(alveole.tag)
        logs = pss(alveole.log_pids())
        grown = pss(platform) - idle
        processes = len(alveole.site_pids())
        own = pss(alveole.site_pids())
    by_kernel = (before - after) / count
    by_sum = (cgroups + logs + max(grown, 0)) / count

    docker = session.docker()
    docker_idle = pss(docker.platform_pids())
    docker_before = available_bytes()
    try:
        for number in range(peers):
            docker.cli(*docker.run_argv(f"idle{number}"))
            docker.until_200(f"idle{number}")
        time.sleep(2)
        docker_after = available_bytes()
        shims = pss(docker.shim_pids())
        grown_docker = max(pss(docker.platform_pids()) - docker_idle, 0)
        docker_sum = (charged(docker.tag) + shims + grown_docker) / peers
    finally:
        docker.cli("rm", "-f", *(f"idle{number}" for number in range(peers)), check=False)
    docker_kernel = (docker_before - docker_after) / peers
    larger, docker_larger = max(by_kernel, by_sum), max(docker_kernel, docker_sum)
    *quiet, _visited = at.values()
    platform_most = max(sum(parts.values()) for parts in quiet)
    return [
        Row(
            "memory of an idle static site",
            mb(larger),
            f"{mb(docker_larger)} (docker)",
            larger / docker_larger,
            "≤ 2 MB",
            larger <= 2e6,
            1,
            f"{count} sites: MemAvailable {mb(by_kernel)} each; cgroups {mb(cgroups / count)} + log writers "
            f"{mb(logs / count)} + growth of the platform {mb(grown / count)} each; "
            f"{processes / count:.1f} processes and {mb(own / count)} PSS in each; docker, {peers} containers: "
            f"MemAvailable {mb(docker_kernel)}, sum {mb(docker_sum)}",
            {"kernel": [by_kernel], "sum": [by_sum], "docker": [docker_kernel, docker_sum]},
        ),
        Row(
            "memory of the platform, no site",
            mb(platform_most),
            f"{mb(docker_idle)} (dockerd, containerd)",
            platform_most / docker_idle,
            "≤ 150 MB",
            platform_most <= 150e6,
            1,
            "PSS of all processes, " + "; ".join(f"{moment}: {split(parts)}" for moment, parts in at.items()),
            {moment: [float(size) for size in parts.values()] for moment, parts in at.items()},
        ),
    ]


if __name__ == "__main__":
    main("memory", figure)
