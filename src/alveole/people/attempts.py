"""How often somebody may try to come in: per account, per address, and nobody is locked out by another (threat 25).

Each pair of account and address, each account and each address has a few free failures that come back with time.
A failure beyond them has to wait. What fails elsewhere, or for others, never holds back an account at an address from
where it came in before: a pupil who guesses cannot lock the class out, nor a stranger the administrator.
Only failures count, and they are kept in memory: a restart forgives.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import ip_address, ip_network

from alveole.errors import Temporary


class TooMany(Temporary):
    """Wait. ``seconds`` until the next try is looked at."""

    http_status = 429

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__("too many attempts", hint=f"wait {max(1, round(seconds))} seconds")


class _Buckets:
    """Free failures by key: ``most`` of them, one more each ``seconds``. The keys longest unused are forgotten."""

    def __init__(self, most: int, seconds: float, kept: int = 20_000) -> None:
        self.most, self.seconds, self.kept = most, seconds, kept
        self.used: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def _level(self, key: str, now: float) -> float:
        at, used = self.used.get(key, (now, 0.0))
        return max(0.0, used - (now - at) / self.seconds)

    def wait(self, key: str, now: float) -> float:
        """Seconds until one more failure is free; 0: now."""
        return max(0.0, (self._level(key, now) - self.most + 1) * self.seconds)

    def fail(self, key: str, now: float) -> None:
        # Beyond the brim nothing is added, or a storm would keep the door shut long after its end.
        self.used[key] = (now, min(self._level(key, now) + 1, float(self.most)))
        self.used.move_to_end(key)
        while len(self.used) > self.kept:
            self.used.popitem(last=False)

    def forget(self, key: str) -> None:
        self.used.pop(key, None)


class Attempts:
    """Safe from several threads. ``clock`` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._pairs = _Buckets(5, 30.0)
        self._accounts = _Buckets(20, 30.0)
        self._addresses = _Buckets(60, 2.0)

    def check(self, account: str, address: str, known: bool) -> None:
        """Raise :class:`TooMany` when this try must wait. ``known``: the account came in from there before.

        ``account`` is empty where no name is given (tokens).
        """
        address = network_of(address)
        with self._lock:
            now = self._clock()
            waits = [self._pairs.wait(f"{account} {address}", now)] if account else []
            if not known:
                waits.append(self._addresses.wait(address, now))
                if account:
                    waits.append(self._accounts.wait(account, now))
        if (seconds := max(waits, default=0.0)) > 0:
            raise TooMany(seconds)

    def failed(self, account: str, address: str) -> None:
        address = network_of(address)
        with self._lock:
            now = self._clock()
            self._addresses.fail(address, now)
            if account:
                self._pairs.fail(f"{account} {address}", now)
                self._accounts.fail(account, now)

    def came_in(self, account: str, address: str) -> None:
        """It was them after all: their own failures there are forgiven, not those of the address or the account."""
        with self._lock:
            self._pairs.forget(f"{account} {network_of(address)}")


def network_of(address: str) -> str:
    """One IPv6 customer has a whole /64 (RFC 6177): it counts as one address."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if found.version == 6:
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ip_network((found, 64), strict=False))
    return str(found)
