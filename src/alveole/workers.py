"""Threads that look after scopes: a queue of what to look at soon, timers, and the drift timer."""

from __future__ import annotations

import heapq
import logging
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from alveole.errors import AlveoleError

log = logging.getLogger("alveole.loop.reconcile")
EVERYWHERE = "*"


class Workers(ABC):
    """``parallel`` threads that call :meth:`_background`; everything is asked for each ``drift_seconds``."""

    def __init__(self, parallel: int, drift_seconds: float) -> None:
        self._parallel = parallel
        self._drift_seconds = drift_seconds
        self._mutex = threading.Lock()
        self._queue: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._queued: set[str] = set()
        self._timers: list[tuple[float, str]] = []
        self._tick = threading.Condition()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        # Changes wait for imports and builds: one slow one must not hold up another site's.
        self._changes = ThreadPoolExecutor(max_workers=32, thread_name_prefix="change")

    @abstractmethod
    def _background(self, scope: str) -> None:
        """One look at ``scope``; what it raises is logged."""

    @abstractmethod
    def _wake(self) -> None:
        """Let go whoever waits for something other than the queue; called once, when everything is to end."""

    def start(self) -> None:
        """Start the workers and the timer."""
        for number in range(self._parallel):
            self._spawn(f"pass-{number}", self._work)
        self._spawn("timer", self._run_timer)
        self.trigger(EVERYWHERE)

    def stop(self) -> None:
        """End all threads; passes under way end after their step. Again: nothing."""
        if self.stopping:
            return
        self._stopping.set()
        self._wake()
        for _thread in self._threads:
            self._queue.put("")
        with self._tick:
            self._tick.notify_all()
        self._changes.shutdown(wait=True, cancel_futures=True)
        for thread in self._threads:
            thread.join(timeout=10)

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def pause(self, seconds: float) -> None:
        """Sleep, at the most until :meth:`stop`."""
        self._stopping.wait(seconds)

    def _spawn(self, name: str, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def submit(self, work: Callable[[], None]) -> None:
        """Run a change's work in a thread of its own."""
        if not self.stopping:
            self._changes.submit(work)

    def trigger(self, scope: str) -> None:
        """Ask for a pass over ``scope`` soon. Any number of calls before it starts are one."""
        with self._mutex:
            if scope in self._queued:
                return
            self._queued.add(scope)
        self._queue.put(scope)

    def trigger_in(self, seconds: float, scope: str) -> None:
        with self._tick:
            heapq.heappush(self._timers, (time.monotonic() + seconds, scope))
            self._tick.notify_all()

    def _run_timer(self) -> None:
        drift = time.monotonic() + self._drift_seconds
        while not self.stopping:
            due: list[str] = []
            with self._tick:
                now = time.monotonic()
                while self._timers and self._timers[0][0] <= now:
                    due.append(heapq.heappop(self._timers)[1])
                if drift <= now:
                    due.append(EVERYWHERE)
                    drift = now + self._drift_seconds
                if not due:
                    until = min(drift, self._timers[0][0]) if self._timers else drift
                    self._tick.wait(max(0.0, until - now))
            for scope in due:
                self.trigger(scope)

    def _work(self) -> None:
        while True:
            scope = self._queue.get()
            if self.stopping:
                return
            with self._mutex:
                self._queued.discard(scope)
            try:
                self._background(scope)
            except AlveoleError as error:
                log.warning("a pass over %s failed: %s", scope, error)
            except Exception:
                log.exception("a pass over %s failed by a fault of ours", scope)
