#!/usr/bin/env python3
from __future__ import annotations

import time

from common import ROOT, Instance
from machine import CGROUPS, available_bytes, pss
from report import Row, Session, main, mb


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


def figure(session: Session) -> list[Row]:
    """Memory of the platform with no site, and of each idle static site, everything counted.

    Two ways, and the larger one is held against the bar: what the kernel has less (MemAvailable), and
    the sum of what is charged to the sites' cgroups, the log writers' PSS and what the platform's own
    processes have grown by.
    """
    count = session.runs(100, 20)
    peers = session.runs(20, 5)
    with Instance(keep_log=ROOT / "artefacts" / "bench-memory.log") as alveole:
        # A first site, so that the base and what is made once are not counted as the site's.
        alveole.grow(["first"])
        with alveole.api() as api:
            api.destroy("first")
        time.sleep(3)
        platform = alveole.platform_pids()
        parts = {
            "supervisor": pss({alveole.process.pid} if alveole.process else ()),
            "agent": pss(alveole.role_pids("agent")),
            "control": pss(alveole.role_pids("control")),
            "edge": pss(alveole.edge_pids()),
        }
        idle = pss(platform)
        parts["helper"] = idle - sum(parts.values())
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
    split = ", ".join(f"{part} {mb(size)}" for part, size in parts.items())
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
            mb(idle),
            f"{mb(docker_idle)} (dockerd, containerd)",
            idle / docker_idle,
            "≤ 150 MB",
            idle <= 150e6,
            1,
            f"PSS: {split}",
            {"parts": [float(size) for size in parts.values()]},
        ),
    ]


if __name__ == "__main__":
    main("memory", figure)
