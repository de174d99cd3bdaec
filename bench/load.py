"""Load on a proxy: wrk for throughput, and clients that look at every single answer."""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from machine import BenchError, run

_LUA = """\
local hosts, requests, at = {{ {hosts} }}, {{}}, 0
init = function()
    for i, host in ipairs(hosts) do requests[i] = wrk.format("GET", "/", {{ Host = host }}) end
end
request = function()
    at = at % #requests + 1
    return requests[at]
end
"""


@dataclass
class Throughput:
    requests_per_second: float
    wrong: int
    """Answers that are not 2xx or 3xx, and connections that broke."""


def wrk(port: int, hosts: Sequence[str], seconds: int, *, connections: int = 32, core: int | None = None) -> Throughput:
    """Requests for ``hosts`` in turn on kept-open connections, one thread, pinned to ``core``."""
    with WrkRun(port, hosts, seconds, connections=connections, core=core) as started:
        return started.result()


class WrkRun:
    """wrk in the background; :meth:`result` waits for its end."""

    def __init__(
        self, port: int, hosts: Sequence[str], seconds: int, *, connections: int = 32, core: int | None = None
    ) -> None:
        self.hosts = hosts
        pinned = [] if core is None else ["taskset", "-c", str(core)]
        self.argv = [*pinned, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s"]
        self.url = f"http://127.0.0.1:{port}"
        self.seconds = seconds

    def __enter__(self) -> WrkRun:
        with tempfile.NamedTemporaryFile("w", suffix=".lua", prefix="alb-", delete=False) as script:
            script.write(_LUA.format(hosts=", ".join(f'"{host}"' for host in self.hosts)))
        self.script = Path(script.name)
        self.process = subprocess.Popen(
            [*self.argv, str(self.script), self.url], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.script.unlink(missing_ok=True)

    def result(self) -> Throughput:
        text = self.process.communicate(timeout=self.seconds + 30)[0]
        found = re.search(r"Requests/sec:\s+([\d.]+)", text)
        if not found:
            raise BenchError(f"wrk: {text[-500:]}")
        wrong = sum(int(word) for word in re.findall(r"Non-2xx or 3xx responses: (\d+)", text))
        errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
        return Throughput(float(found[1]), wrong + (sum(int(word) for word in errors.groups()) if errors else 0))


@dataclass
class Target:
    """A host, and words of which each answer must hold one: the answer of another site is a failure."""

    host: str
    words: tuple[str, ...]


@dataclass
class Seen:
    answers: int = 0
    failures: list[str] = field(default_factory=list)


class Watchers:
    """Clients that ask ``targets`` all the time, on kept-open and on new connections, and check each answer.

    A context manager; they run in a thread of their own until it is left.
    """

    def __init__(self, address: tuple[str, int], targets: Sequence[Target], *, each: int = 2, pause: float = 0.002):
        self.address = address
        self.targets = targets
        self.each = each
        self.pause = pause
        self.seen = {target.host: Seen() for target in targets}
        self._stop = threading.Event()

    def __enter__(self) -> Watchers:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(30)

    @property
    def failures(self) -> list[str]:
        return [text for seen in self.seen.values() for text in seen.failures]

    @property
    def answers(self) -> int:
        return sum(seen.answers for seen in self.seen.values())

    async def _all(self) -> None:
        await asyncio.gather(
            *(self._ask(target, kept) for target in self.targets for kept in (True, False) for _ in range(self.each))
        )

    async def _ask(self, target: Target, kept: bool) -> None:
        seen = self.seen[target.host]
        reader: asyncio.StreamReader | None = None
        writer: asyncio.StreamWriter | None = None
        request = f"GET / HTTP/1.1\r\nHost: {target.host}\r\n{'' if kept else 'Connection: close'}".strip() + "\r\n\r\n"
        while not self._stop.is_set():
            try:
                async with asyncio.timeout(15):
                    if reader is None or writer is None:
                        reader, writer = await asyncio.open_connection(*self.address)
                    writer.write(request.encode())
                    status, body, closes = await _answer(reader)
                seen.answers += 1
                if status != 200:
                    seen.failures.append(f"{target.host}: status {status}")
                elif not any(word in body for word in target.words):
                    seen.failures.append(f"{target.host}: another site's answer: {body[:80]!r}")
            except (OSError, EOFError, ValueError, TimeoutError) as error:
                seen.failures.append(f"{target.host}: {type(error).__name__} {error}")
                closes = True
            if (closes or not kept) and writer is not None:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
                reader = writer = None
            await asyncio.sleep(self.pause)
        if writer is not None:
            writer.close()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, str, bool]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    lines = head.split("\r\n")
    headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines[1:])}
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    elif "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    else:
        body = await reader.read()
        return int(lines[0].split()[1]), body.decode(errors="replace"), True
    return int(lines[0].split()[1]), body.decode(errors="replace"), headers.get("connection", "").lower() == "close"


def installed() -> None:
    """Raises ``BenchError`` where wrk is missing."""
    if run("which", "wrk", check=False).returncode != 0:
        raise BenchError("wrk is missing: apt-get install --no-install-recommends wrk")
