"""Files that come in a form of a browser without scripts: written to the spool of uploads as they arrive."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

from fastapi import Depends, Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from alveole.api.bodies import BODY_MAX
from alveole.errors import InvalidInput, Temporary
from alveole.people.model import Actor
from alveole.services import Services
from alveole.web.pages import Fields, fields

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_MULTIPART = "multipart/form-data"
_CHECK = 16 * 1024 * 1024


class _Reader:
    """Takes the parts: texts into ``pairs``, the one file into an upload."""

    def __init__(self, services: Services, caller: Actor) -> None:
        self._services, self._caller = services, caller
        self.pairs: list[tuple[str, str]] = []
        self.upload = ""
        self.filename = ""
        self._file: BinaryIO | None = None
        self._size = self._checked = self._texts = 0
        self._header = bytearray()
        self._value = bytearray()
        self._name = ""
        self._text: bytearray | None = None

    def on_part_begin(self) -> None:
        self._name, self._text = "", None

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if bytes(self._header).lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._value))
            self._name = options.get(b"name", b"").decode("utf-8", "replace")
            if b"filename" not in options:
                self._text = bytearray()
            elif options[b"filename"] and not self.upload:
                made = self._services.new_upload(self._caller)
                self.upload = made.id
                # Some browsers send the whole path that was chosen.
                self.filename = re.split(r"[/\\]", options[b"filename"].decode("utf-8", "replace"))[-1]
                self._file = Path(made.path).open("wb", buffering=0)  # noqa: SIM115  closed when the part ends
        self._header.clear()
        self._value.clear()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        piece = memoryview(data)[start:end]
        if self._file is not None:
            self._size += len(piece)
            while piece:
                piece = piece[self._file.write(piece) :]
            if self._size - self._checked >= _CHECK:
                self._services.check_upload(self._caller, self.upload, self._size)
                self._checked = self._size
        elif self._text is not None:
            self._texts += len(piece)
            if self._texts > BODY_MAX:
                raise InvalidInput(f"is larger than {BODY_MAX} bytes", field="form")
            self._text += piece

    def on_part_end(self) -> None:
        if self._text is not None:
            self.pairs.append((self._name, self._text.decode("utf-8", "replace")))
        self.close()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            self._services.check_upload(self._caller, self.upload, self._size)

    def drop(self) -> None:
        with contextlib.suppress(OSError):
            if self._file is not None:
                self._file.close()
        if self.upload:
            self._services.drop_upload(self._caller, self.upload)


async def with_files(request: Request) -> Fields:
    """The fields of a form; a file that came with it is the upload named by the field ``upload``, and what it was
    called is ``filename``.

    Raises what :meth:`Services.new_upload` raises, ``InvalidInput``, and ``Temporary`` when it was cut.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind.decode("latin-1") != _MULTIPART:
        return await fields(request)
    reader = _Reader(request.app.state.services, request.state.actor)
    callbacks: MultipartCallbacks = {
        "on_part_begin": reader.on_part_begin,
        "on_header_field": reader.on_header_field,
        "on_header_value": reader.on_header_value,
        "on_header_end": reader.on_header_end,
        "on_part_data": reader.on_part_data,
        "on_part_end": reader.on_part_end,
    }
    done = False
    try:
        parser = MultipartParser(options.get(b"boundary", b""), callbacks)
        async for piece in request.stream():
            await run_in_threadpool(parser.write, piece)
        await run_in_threadpool(parser.finalize)
        done = True
    except FormParserError as error:
        raise InvalidInput("is not a form", field="form") from error
    except ClientDisconnect as error:
        raise Temporary("the upload was cut", hint="send it again") from error
    finally:
        if not done:
            reader.drop()
    if reader.upload:
        reader.pairs = [(key, value) for key, value in reader.pairs if key not in ("upload", "filename")]
        reader.pairs += [("upload", reader.upload), ("filename", reader.filename)]
    return Fields(reader.pairs)


Files = Annotated[Fields, Depends(with_files)]
