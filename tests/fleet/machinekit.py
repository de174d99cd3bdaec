"""A second machine on this one: a fresh Debian 12 with sshd and sudo, in namespaces and a network of its own.

Its root file system is made once by mmdebstrap and kept in the cache; a machine writes into an overlay over it. Where
packages and libraries come from is what this machine is told: its settings of apt and pip are lent to it while it runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from instancekit import (
    CACHE,
    CGROUPS,
    ROOT,
    all_pids,
    cgroup_tops,
    command,
    descendants,
    kill,
    one_at_a_time,
    parent,
    run,
    until,
)

sys.path.insert(0, str(ROOT / "scripts/installer"))
from packages import NEEDED

#: Left to the installer. The others are there already: unpacking them each time would say nothing more about it.
_LEFT_TO_QUICKSTART = frozenset({"crun", "libnginx-mod-http-lua", "nftables", "nginx", "s6"})
_MORE = ("openssh-server", "sudo")
_INIT = Path(__file__).with_name("machine_init.py")
#: What is lent of this machine's own, so that packages are found where it finds them.
_LENT = ("etc/apt", "etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt")
#: Everything on its disk but what lives by itself: logs, caches, books of packages and of sudo.
_LIVES = ("/var/cache", "/var/log", "/var/lib/apt", "/var/lib/dpkg", "/var/lib/systemd", "/var/lib/sudo")
_PASSES = ("/tmp", "/var/tmp", "/run/sudo", "/run/motd.dynamic")
_TREE = ["/", "/var/lib", "/run", "-xdev", "("]
_TREE += [word for place in (*_LIVES, *_PASSES) for word in ("-path", place, "-o")]
_TREE += ["-name", "__pycache__", ")", "-prune", "-o", "-print"]


def image() -> Path:
    """The root file system; made when it is absent (about a minute). One is kept."""
    packages = sorted((NEEDED.keys() - _LEFT_TO_QUICKSTART) | set(_MORE))
    key = hashlib.sha256("\n".join(packages).encode()).hexdigest()[:16]
    place = CACHE / "machine" / key
    with one_at_a_time("machine"):
        if not place.exists():
            shutil.rmtree(place.parent, ignore_errors=True)
            place.parent.mkdir(parents=True)
            fresh = place.with_name("fresh")
            unused = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "doc", "locale")]
            how = ("--quiet", "--mode=root", "--variant=minbase", f"--include={','.join(packages)}")
            run("mmdebstrap", *how, *unused, "bookworm", fresh)
            fresh.rename(place)
    return place


class Machine:
    """``address``: where its sshd listens; ``user`` may become root there without a password."""

    user = "ops"

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Machine:
        with self._stack as stack:
            made = image()
            self.place = Path(tempfile.mkdtemp(prefix="altmachine", dir="/var/tmp"))
            stack.callback(shutil.rmtree, self.place, ignore_errors=True)
            self.tag = f"altm{secrets.token_hex(3)}"
            self._make_cgroups()
            self._start(made)
            with one_at_a_time("network"):
                self._connect()
            until(self._listens, 60, self.log)
            self._ends = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            sys.stderr.write(f"--- log of the machine\n{self.log()}\n")
        self._ends.__exit__(kind, error, trace)

    # --- its life ---------------------------------------------------------------------------------
    def _make_cgroups(self) -> None:
        """One of its own in each hierarchy that Alvéole uses; it takes it for the root."""
        v1 = [CGROUPS / name for name in ("cpu", "cpuacct", "memory", "pids", "blkio", "freezer", "systemd", "unified")]
        tops = [top / self.tag for top in v1 if top.is_dir()] or [CGROUPS / self.tag]
        for top in tops:
            top.mkdir(exist_ok=True)
        self.cgroups = tops
        self._stack.callback(self._remove_cgroups)

    def _remove_cgroups(self) -> None:
        for top in cgroup_tops(self.tag):
            for directory, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(FileNotFoundError):
                    until(lambda: _gone(Path(directory)), 20, f"{directory} stays")  # noqa: B023  waited for at once

    def _start(self, made: Path) -> None:
        for name in ("upper", "work", "root"):
            (self.place / name).mkdir()
        # Sites lie in overlays, whose upper directory must not be in one.
        run("cp", "-a", made / "var/lib", self.place / "lib")
        pip, lent = _pip()
        about = {
            "lower": str(made),
            "place": str(self.place),
            "name": self.tag,
            "cgroups": [str(each) for each in self.cgroups],
            "files": {"etc/pip.conf": pip, "etc/sudo.conf": "Set disable_coredump false\n"},
            "lent": [*_LENT, *lent],
            "user": self.user,
        }
        (self.place / "about.json").write_text(json.dumps(about))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-B", str(_INIT), str(self.place / "about.json")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"]},
                start_new_session=True,
            )
        self._stack.callback(self.off)
        until(lambda: (self.place / "ready").exists() or self._process.poll() is not None, 60, self.log)
        assert self._process.poll() is None, self.log()
        self.pid = next(pid for pid in descendants([self._process.pid]) if parent(pid) == self._process.pid)
        if len(self.cgroups) == 1:
            # Where controllers are handed down no process may stay, and this one the machine does not see.
            (self.cgroups[0] / "init/cgroup.procs").write_text(str(self._process.pid))

    def off(self) -> None:
        """As if it lost its power: all its processes, and with them its mounts and its network."""
        kill(descendants([self._process.pid]))
        self._process.wait()

    def _connect(self) -> None:
        taken = run("ip", "-o", "address").stdout
        number = next(n for n in range(secrets.randbelow(100), 256) if f" 198.18.{n}." not in taken)
        here, self.address = f"198.18.{number}.1", f"198.18.{number}.2"
        outer = f"{self.tag}v"
        run("ip", "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", str(self.pid))
        self._stack.callback(run, "ip", "link", "del", outer, check=False)
        run("ip", "address", "add", f"{here}/30", "dev", outer)
        run("ip", "link", "set", outer, "up")
        for words in (
            ("link", "set", "lo", "up"),
            ("address", "add", f"{self.address}/30", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("route", "add", "default", "via", here),
        ):
            run("nsenter", "-t", str(self.pid), "-n", "ip", *words)
        run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        rules = f"""table ip {self.tag} {{
          chain out {{ type nat hook postrouting priority srcnat; ip saddr {self.address} masquerade; }}
        }}"""
        run("nft", "-f", "-", input=rules)
        self._stack.callback(run, "nft", "delete", "table", "ip", self.tag, check=False)

    def _listens(self) -> bool:
        return run("ssh-keyscan", "-T", "2", self.address, check=False).stdout != ""

    @property
    def _log(self) -> Path:
        return self.place / "log"

    def log(self) -> str:
        return self._log.read_text(errors="replace")[-3000:]

    # --- looking at it ----------------------------------------------------------------------------
    def path(self, name: str) -> Path:
        """A file of it, as this machine reaches it."""
        return Path(f"/proc/{self.pid}/root", name.lstrip("/"))

    def _inside(self, *argv: str) -> list[str]:
        spaces = ["-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w"]
        clean = ["/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
        return ["nsenter", "-t", str(self.pid), *spaces, "--", *clean, *argv]

    def run(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """As its root."""
        return run(*self._inside(*argv), check=check)

    @contextlib.contextmanager
    def running(self, *argv: str) -> Iterator[None]:
        """As its root, and ended at the end."""
        nothing = subprocess.DEVNULL
        process = subprocess.Popen(self._inside(*argv), stdin=nothing, stdout=nothing, stderr=nothing)
        try:
            yield
        finally:
            kill(descendants([process.pid]))
            process.wait()

    def pids(self, word: str) -> set[int]:
        """Its processes whose command holds ``word``, as this machine counts them."""
        space = Path(f"/proc/{self.pid}/ns/pid").readlink()
        found = set()
        for pid in all_pids():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/ns/pid").readlink() == space and word in command(pid):
                    found.add(pid)
        return found

    def cut(self) -> None:
        """As if the network broke: every session of its sshd ends at once."""
        kill(self.pids("sshd: ") - self.pids("[listener]"))

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """As if a cable were pulled: nobody is told. Its kernel gives up what is not acknowledged within seconds."""
        outer = f"{self.tag}v"
        run("nsenter", "-t", str(self.pid), "-n", "sysctl", "-qw", "net.ipv4.tcp_retries2=3")
        run("ip", "link", "set", outer, "down")
        try:
            yield
        finally:
            run("ip", "link", "set", outer, "up")

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        self.path(name).write_text(text)
        self.path(name).chmod(mode)

    def may(self, *commands: str) -> None:
        """What its sudo lets the user do without a password."""
        # sudo takes core files away, for good where root may not raise limits as on the machines that tests run on, and
        # no site starts then (host.runtime): it is told to leave them, here and in sudo.conf.
        lines = [
            "Defaults rlimit_core=default\n",
            # As on hardened machines: what is made for other users has to be theirs all the same.
            "Defaults umask=0077, umask_override\n",
            *(f"{self.user} ALL=(root) NOPASSWD: {command}\n" for command in commands),
        ]
        self.write("/etc/sudoers.d/ops", "".join(lines), 0o440)

    def let_in(self, user: str, line: str) -> None:
        home = "/root" if user == "root" else f"/home/{user}"
        self.path(f"{home}/.ssh").mkdir(mode=0o700, exist_ok=True)
        self.write(f"{home}/.ssh/authorized_keys", line + "\n", 0o600)
        self.run("chown", "-R", f"{user}:", f"{home}/.ssh")

    @property
    def fingerprint(self) -> str:
        return self.run("ssh-keygen", "-lf", "/etc/ssh/ssh_host_ed25519_key.pub").stdout.split()[1]

    def _names(self) -> set[str]:
        """Of its processes. One that was started from outside and killed waits there for a parent that never asks."""
        lines = self.run("ps", "-eo", "stat=,comm=").stdout.splitlines()
        return {line.split()[1] for line in lines if not line.startswith("Z")}

    def picture(self) -> dict[str, list[str]]:
        """What an installation could leave behind."""
        tables = self.run("nft", "list", "tables", check=False).stdout if self.path("/usr/sbin/nft").exists() else ""
        return {
            "packages": self.run("dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package}\n").stdout.splitlines(),
            "users": self.path("/etc/passwd").read_text().splitlines(),
            "files": self.run("find", *_TREE).stdout.splitlines(),
            "logs": self.run("find", "/var/log", "-name", "*alv*").stdout.splitlines(),
            "interfaces": sorted(each.split(":")[1] for each in self.run("ip", "-o", "link").stdout.splitlines()),
            "tables": tables.splitlines(),
            "mounts": sorted(line.split()[1] for line in self.run("cat", "/proc/self/mounts").stdout.splitlines()),
            "processes": sorted(self._names() - {"ps", "sshd", "sudo"}),
            "cgroups": [str(each) for top in self.cgroups for each in top.iterdir() if each.is_dir()],
        }


def _gone(directory: Path) -> bool:
    with contextlib.suppress(FileNotFoundError, OSError):
        directory.rmdir()
    return not directory.exists()


def _pip() -> tuple[str, list[str]]:
    """pip.conf as this machine's pip is set, and the directories of this machine that it names."""
    told = run(sys.executable, "-m", "pip", "config", "list").stdout
    options: dict[str, str] = {}
    for line in sorted(told.splitlines(), key=lambda line: line.startswith(":env:")):
        name, _, value = line.partition("=")
        options[name.rpartition(".")[2]] = value.strip("'\"")
    said = " ".join(options.values())
    # An index has its files beside it.
    places = {Path(found).parent for found in re.findall(r"file://(/[^\s,]+)", said)}
    places |= {Path(found) for found in re.findall(r"(?:^|[\s,])(/[^\s,]+)", said)}
    tops = sorted(str(place).lstrip("/") for place in places if place.is_dir())
    return "[global]\n" + "".join(f"{name} = {value}\n" for name, value in options.items()), tops
