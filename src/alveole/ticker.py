"""One thread for what is to be done now and then; each work is short, or hands on what takes long."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from alveole.errors import AlveoleError

log = logging.getLogger("alveole.ticker")


class _Work:
    def __init__(self, name: str, seconds: float, work: Callable[[], None], due: float) -> None:
        self.name = name
        self.seconds = seconds
        self.work = work
        self.due = due


class Ticker:
    """Safe from several threads. A work that raises is logged and done again at its next time."""

    def __init__(self) -> None:
        self._works: dict[str, _Work] = {}
        self._news = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)

    def add(self, name: str, seconds: float, work: Callable[[], None], *, first: float = 0.0) -> None:
        """Do ``work`` after ``first`` seconds, and then every ``seconds``."""
        with self._news:
            self._works[name] = _Work(name, seconds, work, time.monotonic() + first)
            self._news.notify()

    def poke(self, name: str) -> None:
        """Do that work now."""
        with self._news:
            if name in self._works:
                self._works[name].due = 0.0
                self._news.notify()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after the work under way. Again, or before the start: nothing."""
        with self._news:
            self._stopping = True
            self._news.notify()
        if self._thread.is_alive():
            self._thread.join(timeout=30)

    def _next(self) -> _Work | None:
        with self._news:
            while not self._stopping:
                now = time.monotonic()
                first = min(self._works.values(), key=lambda each: each.due, default=None)
                if first is not None and first.due <= now:
                    first.due = now + first.seconds
                    return first
                self._news.wait(None if first is None else first.due - now)
        return None

    def _run(self) -> None:
        while (found := self._next()) is not None:
            try:
                found.work()
            except AlveoleError as error:
                log.warning("%s: %s", found.name, error)
            except Exception:
                log.exception("%s failed by a fault of ours", found.name)
