"""Answers that go on: log lines and the events of a change, from blocking sources to the loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import ParamSpec, TypeVar

import msgspec

from alveole.errors import AlveoleError
from alveole.logs import Follower, Line, read
from alveole.model.change import Change, Event
from alveole.people.model import Actor
from alveole.services import Services

P = ParamSpec("P")
T = TypeVar("T")
#: Threads of their own for what waits: the framework's forty must stay free for what answers at once.
_waiting = ThreadPoolExecutor(max_workers=256, thread_name_prefix="api-waiting")
#: nginx gives each piece on as it comes.
UNBUFFERED = {"X-Accel-Buffering": "no"}
_POLL_SECONDS = 0.2
_KEEP_ALIVE_SECONDS = 15.0
#: Log lines read in one go: large enough to be quick, small enough to send as they come.
_BATCH = 2000
_encoder = msgspec.json.Encoder()


async def in_waiting(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run what blocks for a while in the pool for that."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_waiting, lambda: function(*args, **kwargs))


async def log_lines(
    directory: str, archive: str, since: float | None, until: float | None, last: int | None, follow: bool
) -> AsyncIterator[bytes]:
    """NDJSON of :class:`~alveole.logs.Line`."""
    place = Path(directory)
    follower = await asyncio.to_thread(Follower, place) if follow else None
    try:
        # Where nothing was written yet, a follower gives everything from the first line on.
        if follower is None or follower.start is not None:
            end = follower.start if follower else None
            lines = read(place, since=since, until=until, last=last, end=end, archive=Path(archive))
            batches = _batches(lines)
            while batch := await in_waiting(next, batches, b""):
                yield batch
        while follower is not None:
            new = await in_waiting(follower.poll)
            if new:
                yield ndjson(new)
            else:
                await asyncio.sleep(_POLL_SECONDS)
    finally:
        if follower is not None:
            follower.close()


def _batches(lines: Iterator[Line]) -> Iterator[bytes]:
    while batch := list(islice(lines, _BATCH)):
        yield ndjson(batch)


def ndjson(lines: Sequence[msgspec.Struct]) -> bytes:
    return b"".join(_encoder.encode(line) + b"\n" for line in lines)


async def change_events(services: Services, caller: Actor, change: str) -> AsyncIterator[bytes]:
    """Server-sent events of one change, until it ended or the client has gone."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Event | Change | AlveoleError | None] = asyncio.Queue()
    gone = threading.Event()

    def tell(item: Event | Change | AlveoleError | None) -> None:
        # The loop may be closed when the server stops while a change is followed.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(queue.put_nowait, item)

    def follow() -> None:
        try:
            for item in services.follow(caller, change, gone.is_set):
                tell(item)
        except AlveoleError as error:
            tell(error)
        finally:
            tell(None)

    _waiting.submit(follow)
    try:
        while True:
            try:
                async with asyncio.timeout(_KEEP_ALIVE_SECONDS):
                    item = await queue.get()
            except TimeoutError:
                yield b": still here\n\n"
                continue
            if item is None or isinstance(item, AlveoleError):
                return
            yield _sse(item)
    finally:
        gone.set()


def _sse(item: Event | Change) -> bytes:
    name = "change" if isinstance(item, Change) else "progress" if item.level == "progress" else "event"
    return b"event: %b\ndata: %b\n\n" % (name.encode(), _encoder.encode(item))
