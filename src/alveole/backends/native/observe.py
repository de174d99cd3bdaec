"""Look at instances: what runs, what is wrong with it, and what it uses."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any

from alveole.config import Settings
from alveole.host import instances, paths
from alveole.host.instances import Ended, InstanceState
from alveole.host.output import Output
from alveole.model.resource import (
    PLATFORM,
    Defect,
    Kind,
    Observation,
    Observed,
    ResourceId,
)
from alveole.model.site import MIB

if TYPE_CHECKING:
    from alveole.backends.native.run import Network

#: Up to here each interface is looked up by its name; beyond, all are listed in one go.
_FEW = 8


class Looker:
    """Thread-safe. What a look at everything finds wrong with a place on the bridge is kept until it is repaired."""

    def __init__(self, settings: Settings, output: Output, network: Network) -> None:
        self._settings = settings
        self._output = output
        self._network = network
        self._addressing = settings.addressing()
        self._busy: Counter[str] = Counter()
        self._loose: dict[str, str] = {}
        self._sites = f"{settings.run}/sites"
        self._sockets = f"{settings.run}/sockets"
        self._known: dict[str, tuple[tuple[int, int, int], InstanceState, str]] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def busy(self, site: str) -> Iterator[None]:
        """While a step works on the site, what is half done is not a defect."""
        with self._lock:
            self._busy[site] += 1
        try:
            yield
        finally:
            with self._lock:
                self._busy[site] -= 1
                if not self._busy[site]:
                    del self._busy[site]

    def forget(self, name: str) -> None:
        with self._lock:
            self._loose.pop(name, None)
            self._known.pop(name, None)

    def _load(self, site: str, slot: int) -> tuple[InstanceState, str] | None:
        """The instance's state and the name of its interface.

        What was read is used again as long as the file is the same one: a pass over a thousand kept
        sites then costs one stat(2) each here.
        """
        name = f"{site}.{slot}"
        try:
            found = os.stat(f"{self._sites}/{name}/state.json")  # noqa: PTH116  of every site, in every pass
        except OSError:
            return None
        stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
        known = self._known.get(name)
        if known is not None and known[0] == stamp:
            return known[1:]
        state = instances.load(self._settings, site, slot)
        if state is None:
            return None
        interface = self._addressing.instance(state.spec.number, slot).interface
        with self._lock:
            self._known[name] = (stamp, state, interface)
        return state, interface

    def observe(self, scopes: Collection[str] | None = None) -> Observation:
        wanted = None if scopes is None else frozenset(scopes)
        try:
            if wanted is not None and len(wanted) <= _FEW:
                present = [
                    (site, slot)
                    for site in sorted(wanted)
                    for slot in (0, 1)
                    if paths.instance(self._settings, site, slot).exists()
                    or paths.sockets(self._settings, site, slot).exists()
                ]
                names = None
            else:
                present = [item for item in instances.present(self._settings) if wanted is None or item[0] in wanted]
                names = self._list_interfaces()
        except OSError as error:
            return Observation((), ((Kind.WORKLOAD, f"{error.filename or 'network'}: {error.strerror}"),))
        return Observation(tuple(self._look(site, slot, names) for site, slot in present))

    def _list_interfaces(self) -> frozenset[str]:
        ports = getattr(self._network, "ports", None)
        if ports is None:
            return frozenset(self._network.interfaces())
        found: dict[str, Any] = ports()
        loose: dict[str, str] = self._network.loose(found)  # type: ignore[attr-defined]  # has ``ports``
        with self._lock:
            self._loose = loose
        return frozenset(found)

    def _look(self, site: str, slot: int, names: frozenset[str] | None) -> Observed:
        id = ResourceId(Kind.WORKLOAD, site, str(slot))
        with self._lock:
            busy = site in self._busy
        loaded = self._load(site, slot)
        if loaded is None:
            cause = () if busy else (Defect("damaged", "it was left half made or half removed"),)
            return Observed(id, "", False, cause)
        state, interface = loaded
        uses = [ResourceId(Kind.BASE, PLATFORM, state.spec.base)]
        if state.spec.writable or state.spec.volumes:
            uses.append(ResourceId(Kind.STORAGE, site, str(state.spec.data_generation)))
        if state.spec.config:
            uses.append(ResourceId(Kind.CONFIG, site, "config"))
        running = state.running
        defects = () if busy and not state.ready else self._defects(state, running, interface, names)
        detail: dict[str, str | int | float] = {"pid": state.pid, "since": round(state.at, 3)}
        if state.ended is not None:
            detail["ended_at"] = round(state.ended.at, 3)
            if state.ended.status is not None:
                detail["exit_status"] = state.ended.status
            if state.ended.signal is not None:
                detail["exit_signal"] = state.ended.signal
        return Observed(id, state.digest, state.ready and running, defects, tuple(uses), detail)

    def _defects(
        self, state: InstanceState, running: bool, interface: str, names: frozenset[str] | None
    ) -> tuple[Defect, ...]:
        if not state.pid or state.boot != instances.boot_id():
            cause = "the machine was started anew" if state.boot != instances.boot_id() else "its start was cut short"
            return (Defect("damaged", cause),)
        if not running:
            ended = state.ended or Ended(time.time())
            code = "oom-killed" if ended.oom else "exited"
            return (Defect(code, self.cause(state, ended)),)
        if not state.ready:
            return (Defect("not-answering", "its start was cut short before it answered"),)
        found = []
        if not self._has_interface(interface, names):
            found.append(Defect("interface-missing", f"its interface {interface} is gone"))
        elif loose := self._loose.get(interface):
            found.append(Defect("interface-loose", loose))
        if not self.has_sockets(state.spec.site, state.spec.slot):
            found.append(Defect("sockets-missing", "its directory of sockets is gone"))
        if self._output.logger(state.spec.site) is None:
            found.append(Defect("not-logged", "the writer of its log has ended"))
        return tuple(found)

    def _has_interface(self, name: str, names: frozenset[str] | None) -> bool:
        if names is not None:
            return name in names
        try:
            socket.if_nametoindex(name)
        except OSError:
            return False
        return True

    def has_sockets(self, site: str, slot: int) -> bool:
        """Whether the instance's small file system for sockets is mounted."""
        try:
            here = os.lstat(f"{self._sockets}/{site}.{slot}")
            return here.st_dev != os.stat(self._sockets).st_dev  # noqa: PTH116  likewise
        except FileNotFoundError:
            return False

    def cause(self, state: InstanceState, ended: Ended) -> str:
        """How it ended, as a sentence for people."""
        if ended.oom:
            return f"it needed more memory than its plan gives ({state.spec.limits.memory_bytes // MIB} MiB)"
        if ended.signal is not None:
            try:
                name = signal.Signals(ended.signal).name
            except ValueError:
                name = f"signal {ended.signal}"
            return f"its process was ended by {name}"
        if ended.status is not None:
            return f"its process ended with status {ended.status}"
        return "its process has ended"


def meter(settings: Settings, *, budget: float = 0.05) -> Callable[[str, bool], int]:
    """Disk space of a site, at the most about a minute old. ``one``: asked for this site alone, so by who looks at it
    and has perhaps just filled or emptied its disk; two seconds then, unless its last walk was long.

    Walking is the only way to know; ``budget`` is how many seconds of it one round of questions
    may cost, so that a thousand sites are walked in turns.
    """
    known: dict[str, tuple[float, int]] = {}
    spent: list[float] = [0.0, 0.0]
    lock = threading.Lock()

    def measure(site: str, one: bool) -> int:
        now = time.monotonic()
        with lock:
            at, value = known.get(site, (float("-inf"), 0))
            if now - spent[0] > 1.0:
                spent[:] = [now, 0.0]
            if now - at < (2.0 if one else 60.0) or spent[1] > budget:
                return value
            # Whoever asks meanwhile gets what was known: a site may have millions of files.
            known[site] = (now, value)
        value = disk_usage(os.fspath(paths.site(settings, site)))
        took = time.monotonic() - now
        with lock:
            spent[1] += took
            # What takes long to walk is walked less often.
            known[site] = (now + 100 * took, value)
        return value

    return measure


def disk_usage(top: str) -> int:
    """Bytes that ``top`` and all below it take on its file system. Links are not followed, mounts not entered."""
    try:
        device = os.lstat(top).st_dev
    except OSError:
        return 0
    total = 0
    pending = [top]
    while pending:
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    if found.st_dev != device:
                        continue
                    total += found.st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
    return total
