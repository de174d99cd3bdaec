"""What an instance of the tests has on the machine: mounts, interfaces, cgroups, processes, rules, files.

Used by ``tests/instance.py``, to compare before and after and to leave nothing.
"""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from pathlib import Path

from instancekit import alive, all_pids, cgroup_tops, command, descendants, has_open, mounted, read_bytes, run

_KEPT_LOGS = ("archive", "host", "in", "own")


class Traces(ABC):
    root: Path
    state: Path
    run_dir: Path
    tag: str
    prefix: str
    octet: int

    @abstractmethod
    def pid_of(self, role: str) -> int: ...

    def mounts(self) -> list[str]:
        """Everything mounted below the instance's directory, in our namespace or the agent's."""
        found = set(mounted("self", self.root))
        with contextlib.suppress(AssertionError):
            found.update(mounted(str(self.pid_of("agent")), self.root))
        return sorted(found)

    def interfaces(self) -> list[str]:
        bridge = f"{self.tag}br"
        return sorted(
            each
            for each in os.listdir("/sys/class/net")  # noqa: PTH208  names, no paths
            if each == bridge or (each.startswith(self.prefix) and each[-1] in "abp")
        )

    def cgroups(self) -> list[str]:
        return sorted(
            {str(Path(directory).relative_to(top)) for top in cgroup_tops(self.tag) for directory, _, _ in os.walk(top)}
        )

    def site_pids(self) -> set[int]:
        found: set[int] = set()
        for top in cgroup_tops(self.tag):
            for directory, _, _ in os.walk(top):
                with contextlib.suppress(OSError):
                    found.update(int(word) for word in Path(directory, "cgroup.procs").read_text().split())
        return found

    def pids(self) -> set[int]:
        """Every process that belongs to this instance, whatever its state."""
        marker = str(self.root).encode()
        found = {
            pid
            for pid in all_pids()
            if marker in read_bytes(f"/proc/{pid}/cmdline")
            or marker in read_bytes(f"/proc/{pid}/environ")
            # A worker forked while its master was killed names the instance by what it has open alone.
            or (read_bytes(f"/proc/{pid}/comm") == b"nginx\n" and has_open(pid, str(self.root)))
        }
        return {pid for pid in descendants(found | self.site_pids()) if alive(pid)} - {os.getpid(), os.getppid()}

    def nft(self) -> list[str]:
        """Lines of our tables, counters left out."""
        done = run("nft", "-s", "list", "ruleset", check=False)
        lines, ours = [], False
        for line in done.stdout.splitlines():
            if line.startswith("table "):
                ours = line.split()[2] == self.tag
            if ours:
                lines.append(line.strip())
        return lines

    def loops(self) -> list[str]:
        return sorted(
            each.read_text().strip()
            for each in Path("/sys/block").glob("loop*/loop/backing_file")
            if str(self.root) in read_bytes(str(each)).decode(errors="replace")
        )

    def traces(self) -> dict[str, list[str]]:
        """Everything an empty instance must be the same in before and after any number of sites."""
        s, r = self.state, self.run_dir
        places = {
            "sites": s / "sites",
            "instances": r / "sites",
            "sockets": r / "sockets",
            "routes": r / "edge" / "routes",
            "edge certificates": r / "edge" / "certs",
            "certificates": s / "certs",
            "edge logs": s / "logs" / "edge",
            "logs": s / "logs",
            "uploads": s / "control" / "uploads",
            "bases": s / "bases",
        }
        found = {
            what: sorted(each.name for each in place.iterdir()) if place.is_dir() else []
            for what, place in places.items()
        }
        # Lines are kept over a destruction, and what Alvéole and the machine say is of no site.
        found["logs"] = [each for each in found["logs"] if each not in _KEPT_LOGS]
        found["mounts"] = self.mounts()
        found["interfaces"] = self.interfaces()
        found["cgroups"] = self.cgroups()
        found["site processes"] = sorted(command(pid) for pid in self.site_pids())
        found["log writers"] = sorted(command(pid) for pid in self.pids() if "s6-log" in command(pid))
        found["rules"] = self.nft()
        found["loops"] = self.loops()
        neighbours = run("ip", "neighbour", "show", "dev", f"{self.tag}br", "nud", "permanent", check=False).stdout
        found["neighbours"] = sorted(neighbours.split("\n"))
        return found

    def routes(self) -> list[str]:
        """Networks of ours that have a route, in both families."""
        ours = (f"10.{self.octet}.", f"fd61:6c76:7e{self.octet:02x}:")
        lines = [line for family in ("-4", "-6") for line in run("ip", family, "route").stdout.splitlines()]
        return sorted(
            line.split()[1] for line in lines if line.startswith(tuple(f"unreachable {each}" for each in ours))
        )

    def leftovers(self) -> list[str]:
        """What of the instance is still on the machine."""
        left = [f"mount {each}" for each in mounted("self", self.root)]
        left += [f"interface {each}" for each in self.interfaces()]
        left += [f"rule {each}" for each in self.nft()[:3]]
        left += [f"cgroup {each}" for each in cgroup_tops(self.tag)]
        left += [f"loop {each}" for each in self.loops()]
        left += [f"route {each}" for each in self.routes()]
        left += [f"process {pid} {command(pid)[:80]}" for pid in self.pids()]
        left += [f"file {self.root}"] if self.root.exists() else []
        return left
