"""Clients that ask the names of sites without pause and count every answer."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter

from instance import Instance


class Load:
    """Asks sites again and again from a few threads and counts what comes: ``with Load(alveole, "a") as load:``."""

    def __init__(
        self,
        alveole: Instance,
        *names: str,
        threads: int = 3,
        pause: float = 0.002,
        keep: bool = True,
        bodies: bool = False,
    ):
        """``bodies``: keep in :attr:`seen` what was answered, and between which moments of ``time.monotonic``."""
        self.bodies = bodies
        self.seen: list[tuple[float, float, str]] = []
        self.alveole, self.names, self.pause, self.keep = alveole, names, pause, keep
        self.counts: Counter[str] = Counter()
        self.bad: list[str] = []
        self.worst = 0.0
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._work, args=(n,), daemon=True) for n in range(threads)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _work(self, number: int) -> None:
        # Half of the threads keep their connection, the others take a new one each time.
        keep = self.keep and number % 2 == 0
        connection: http.client.HTTPConnection | None = None
        turn = number
        while not self._stop.is_set():
            name = self.names[turn % len(self.names)]
            turn += 1
            began = time.monotonic()
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", self.alveole.http, timeout=15)
                connection.request("GET", "/", headers={"Host": f"{name}.localhost"})
                answer = connection.getresponse()
                body = answer.read().decode(errors="replace")
                if self.bodies:
                    self.seen.append((began, time.monotonic(), body))
                word = str(answer.status)
            except (OSError, http.client.HTTPException) as error:
                word = f"{type(error).__name__}: {error}"
                if connection is not None:
                    connection.close()
                    connection = None
            if not keep and connection is not None:
                connection.close()
                connection = None
            took = time.monotonic() - began
            with self._lock:
                self.counts[word] += 1
                self.worst = max(self.worst, took)
                if word != "200" and len(self.bad) < 20:
                    self.bad.append(f"{name}: {word}")
            time.sleep(self.pause)

    def check(self, least: int = 10) -> None:
        """Every answer was a 200, and there were at least ``least``."""
        assert set(self.counts) == {"200"}, (self.counts, self.bad)
        assert self.counts["200"] >= least, self.counts


# --- content --------------------------------------------------------------------------------------
