"""How each process of an instance is: read from what its supervisor keeps, without starting anything inside.

s6-svstat(1) would have to be run in the container, which a site at its limit of processes or of memory cannot
do, and that is when somebody looks. So the file that it prints from is read here: ``supervise/status``, as
s6 2.11 writes it (``s6_svstatus_pack``), and ``ends``, which the script of ``supervise`` writes. Who runs inside
may have put anything there: no link is followed, and what is found gives numbers or nothing.
"""

from __future__ import annotations

import struct
import time
from pathlib import Path

import msgspec

from alveole.agent.protocol import ProcessState
from alveole.backends.native import supervise
from alveole.backends.native.services import plain_file
from alveole.config import Settings
from alveole.host import instances, paths

#: Since when, and ready since when (TAI64N both); process, wait status, flags.
_STATUS = struct.Struct(">QIQIQHB")
_FINISHING, _WANTED_UP = 2, 4
#: TAI64 counts from 2⁶² at 1970; TAI is 37 seconds ahead of UTC since 2017 (IERS Bulletin C).
_TAI_EPOCH = (1 << 62) + 37
_MOST_BYTES = 256
#: The status that s6 gives for what a signal ended (s6-supervise, "finish").
_BY_SIGNAL = 256


class _Ends(msgspec.Struct, frozen=True):
    count: int = 0
    status: int | None = None
    signal: int | None = None
    at: float | None = None


def look(settings: Settings, site: str, slot: int) -> tuple[ProcessState, ...]:
    """Each process in order of start; nothing when there is no instance."""
    state = instances.load(settings, site, slot)
    if state is None or not state.pid:
        return ()
    now, running = time.time(), state.running
    if supervise.is_supervised(state.spec):
        place = paths.instance(settings, site, slot) / "services"
        return tuple(_supervised(place / each.name, each.name, running, now) for each in supervise.in_order(state.spec))
    ended = state.ended
    since = state.at if running or ended is None else ended.at
    return tuple(
        ProcessState(
            name=name,
            state=("up" if state.ready else "starting") if running else "down",
            wanted=True,
            seconds=max(0.0, now - since),
            restarts=None,
            exit_status=ended.status if ended is not None else None,
            exit_signal=ended.signal if ended is not None else None,
            ended_at=ended.at if ended is not None else None,
        )
        for name in [process.name for process in state.spec.processes] or ["web"]
    )


def _supervised(place: Path, name: str, running: bool, now: float) -> ProcessState:
    word, wanted, seconds = "unknown" if running else "down", True, None
    raw = plain_file(place / "supervise" / "status", _MOST_BYTES)
    if len(raw) == _STATUS.size:
        since, _, _, _, pid, _, flags = _STATUS.unpack(raw)
        wanted = bool(flags & _WANTED_UP)
        seconds = max(0.0, now - (since - _TAI_EPOCH))
        up = pid and not flags & _FINISHING
        word = "down" if not running else "up" if up else "waiting" if wanted else "down"
    ends = _ends(place / "ends")
    return ProcessState(
        name=name,
        state=word,
        wanted=wanted,
        seconds=seconds,
        restarts=ends.count,
        exit_status=ends.status,
        exit_signal=ends.signal,
        ended_at=ends.at,
    )


def _ends(file: Path) -> _Ends:
    words = plain_file(file, _MOST_BYTES).decode("ascii", "replace").split()
    if len(words) != 3 or not all(word.isdecimal() and len(word) < 10 for word in words):
        return _Ends()
    count, status, number = map(int, words)
    try:
        at = file.lstat().st_mtime
    except OSError:
        at = None
    by_signal = status == _BY_SIGNAL
    return _Ends(count, None if by_signal else status, number if by_signal else None, at)
