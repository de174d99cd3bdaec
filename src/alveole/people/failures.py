"""Failed sign-ins for the journal, gathered so that whoever guesses cannot fill it.

The first is told at once. What fails after it is told together, once a minute, then less and less often while it goes
on: a day of guessing is some thirty entries, whatever the number of guesses. Names that are nobody's are not told:
people type their password where their name belongs.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

import msgspec

_FIRST_SECONDS, _MOST_SECONDS = 60.0, 3600.0
#: Pairs of name and address that are told apart between two entries.
_PAIRS = 500
_NAMED = 5


class Told(msgspec.Struct, frozen=True):
    """What one entry says. ``text`` names the most frequent."""

    text: str
    failures: int
    accounts: int
    addresses: int


class Failures:
    """``tell`` is called from any thread, never twice at a time. ``clock`` gives seconds."""

    def __init__(self, tell: Callable[[Told], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._tell = tell
        self._clock = clock
        self._lock = threading.Lock()
        self._found: Counter[tuple[str, str]] = Counter()
        self._more = 0
        self._told_at = float("-inf")
        self._wait = 0.0
        self._timer: threading.Timer | None = None
        self._closed = False

    def note(self, account: str, address: str) -> None:
        """``account``: the name of somebody who is here; empty: of nobody."""
        with self._lock:
            pair = (account, address[:64])
            if pair in self._found or len(self._found) < _PAIRS:
                self._found[pair] += 1
            else:
                self._more += 1
        self.tell_due()

    def tell_due(self) -> None:
        """Tell what is gathered, when it is time; else see to it that it is told later."""
        with self._lock:
            now = self._clock()
            left = self._told_at + self._wait - now
            if not self._found or self._closed:
                return
            if left > 0:
                if self._timer is None:
                    self._timer = threading.Timer(left, self._later)
                    self._timer.daemon = True
                    self._timer.start()
                return
            quiet = now - self._told_at > self._wait + _MOST_SECONDS
            self._wait = _FIRST_SECONDS if quiet or not self._wait else min(self._wait * 2, _MOST_SECONDS)
            self._told_at = now
            told = self._take()
        self._tell(told)

    def close(self) -> None:
        """Tell what is left, and nothing after it."""
        with self._lock:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
            told = self._take() if self._found else None
        if told is not None:
            self._tell(told)

    def _later(self) -> None:
        with self._lock:
            self._timer = None
        self.tell_due()

    def _take(self) -> Told:
        found, more = self._found, self._more
        self._found, self._more = Counter(), 0
        count = found.total() + more
        named = [
            (account or "an unknown name")
            + (f" from {address}" if address else "")
            + (f" ({times})" if times > 1 else "")
            for (account, address), times in found.most_common(_NAMED)
        ]
        if len(found) > _NAMED or more:
            named.append("others")
        accounts = {account for account, _ in found if account}
        return Told(", ".join(named), count, len(accounts), len({address for _, address in found}))
