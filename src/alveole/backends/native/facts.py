"""What a start needs to know of the base and of the machine, and a thread to do two things of it at once."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from alveole.backends.native import lower
from alveole.config import Settings
from alveole.errors import NotFound, StepFailed
from alveole.host import bases


class BaseFacts(msgspec.Struct, frozen=True):
    """What the base itself says about how its programs run."""

    user: lower.User = lower.SITE_USER
    env: dict[str, str] = {}
    cwd: str = "/"


def base_facts(settings: Settings, key: str) -> BaseFacts:
    """Only an image says anything. Raises ``StepFailed`` when its record is absent or damaged."""
    try:
        record = bases.read_record(settings, key)
    except (NotFound, ValueError) as error:
        raise StepFailed(f"the base {key} cannot be used: {error}") from error
    if record.image is None:
        return BaseFacts()
    uid, _, gid = record.image.user.partition(":")
    return BaseFacts(lower.User(int(uid), int(gid or uid)), record.image.env, record.cwd or "/")


def nameservers() -> tuple[str, ...]:
    """The machine's name servers that a site can reach: public ones."""
    found: list[str] = []
    lines: list[str] = []
    # With systemd-resolved the first holds what the stub in the second hides.
    for file in ("/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"):
        with contextlib.suppress(OSError):
            lines += Path(file).read_text().splitlines()
    for line in lines:
        fields = line.split()
        if len(fields) == 2 and fields[0] == "nameserver" and fields[1] not in found:
            with contextlib.suppress(ValueError):
                if ipaddress.ip_address(fields[1]).is_global:
                    found.append(fields[1])
    return tuple(found[:3])


class Beside:
    """Work that gives an open file, done in a thread beside the block; the file is closed with the block."""

    def __init__(self, work: Callable[[], int]) -> None:
        self._work = work
        self._file = -1
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="beside", daemon=True)

    def _run(self) -> None:
        try:
            self._file = self._work()
        except BaseException as error:
            self._error = error

    def __enter__(self) -> Beside:
        self._thread.start()
        return self

    def result(self) -> int:
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._file

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        if self._file >= 0:
            os.close(self._file)
