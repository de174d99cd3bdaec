"""Uploads: a raw body streamed into a spool file, under ceilings, gone when it is cut."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO

import msgspec
from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from alveole.api.problems import TooLarge
from alveole.config import Settings
from alveole.errors import InvalidInput, Temporary
from alveole.people.model import Actor
from alveole.services import Services

#: Written and hashed in a thread in pieces of this size, so that the loop never waits for a disk.
_PIECE = 1024 * 1024
#: The free space is asked for again after so many bytes.
_CHECK = 16 * _PIECE
#: A client that sends nothing for so long has gone without saying so.
_IDLE_SECONDS = 60.0


class Uploaded(msgspec.Struct, frozen=True):
    """A spool file that waits for the request that uses it; unused, it goes within a day."""

    id: str
    bytes: int
    digest: str
    """``sha256:`` and 64 hex digits, of the bytes as they were sent."""


async def receive(request: Request, caller: Actor, services: Services, settings: Settings) -> Uploaded:
    """Take the body of ``request``. Raises ``TooLarge`` (413), ``NoRoom``, ``InvalidInput``, ``Temporary``."""
    ceiling = settings.content.bytes
    expected = _expected(request)
    if expected is not None and expected > ceiling:
        raise _too_large(ceiling)
    upload = await run_in_threadpool(services.new_upload, caller, expected)
    done = False
    try:
        hasher = hashlib.sha256()
        with Path(upload.path).open("wb", buffering=0) as file:
            size = await _spool(
                _pieces(request), file, hasher.update, ceiling, lambda n: services.check_upload(caller, upload.id, n)
            )
        if size == 0:
            raise InvalidInput("is empty", field="body", hint="send the archive as the body of the request")
        done = True
        return Uploaded(id=upload.id, bytes=size, digest=f"sha256:{hasher.hexdigest()}")
    except ClientDisconnect as error:
        raise Temporary("the upload was cut", hint="send it again") from error
    finally:
        if not done:
            # At once and not in a thread: when the server stops, nothing that is awaited here goes on.
            services.drop_upload(caller, upload.id)


async def _spool(
    pieces: AsyncIterator[bytes],
    file: BinaryIO,
    hash_update: Callable[[bytes], object],
    ceiling: int,
    check: Callable[[int], None],
) -> int:
    size = checked = 0

    def write(piece: bytes) -> None:
        nonlocal checked
        if size - checked >= _CHECK:
            check(size)
            checked = size
        hash_update(piece)
        view = memoryview(piece)
        while view:
            view = view[os.write(file.fileno(), view) :]

    async for piece in pieces:
        size += len(piece)
        if size > ceiling:
            raise _too_large(ceiling)
        await run_in_threadpool(write, piece)
    await run_in_threadpool(check, size)
    return size


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    """The body in pieces of about :data:`_PIECE`; raises ``Temporary`` when it dries up."""
    held = bytearray()
    async with contextlib.aclosing(request.stream()) as stream:
        while True:
            try:
                async with asyncio.timeout(_IDLE_SECONDS):
                    part = await anext(stream, None)
            except TimeoutError as error:
                raise Temporary("the upload stood still for a minute", hint="send it again") from error
            if part is None:
                break
            held += part
            if len(held) >= _PIECE:
                yield bytes(held)
                held.clear()
    if held:
        yield bytes(held)


def _expected(request: Request) -> int | None:
    text = request.headers.get("content-length")
    return int(text) if text is not None and text.isdigit() and len(text) < 19 else None


def _too_large(ceiling: int) -> TooLarge:
    return TooLarge(
        f"is larger than the ceiling of {ceiling} bytes", field="body", hint="raise content.bytes in the settings"
    )
