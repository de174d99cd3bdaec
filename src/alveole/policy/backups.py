"""PURE. When a site is saved and proved by itself, and which of its backups stay.

Nights are counted in the machine's own time. Each site has a moment of its own in the window, worked out of its id, so
that a thousand sites do not begin together and each is saved at the same time every night.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

import msgspec

from alveole.errors import Problem

DAY = 86_400.0
#: What failed is tried again after so long, doubled each time up to the second figure (seconds).
RETRY_SECONDS = (1800.0, 6 * 3600.0)


class Cause(StrEnum):
    """Why a backup was made. Only the first two are ever thinned out by themselves."""

    NIGHT = "night"
    DESTROY = "destroy"
    DEPLOY = "deploy"
    HAND = "hand"


OWN_WORK = frozenset({Cause.NIGHT, Cause.DESTROY})
Count = Annotated[int, msgspec.Meta(ge=0, le=1000)]


class BackupPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=False):
    """How backups are made and kept on this machine."""

    nightly: bool = True
    """Each site is saved each night."""
    before_destroy: bool = True
    """A site is saved before it is destroyed."""
    hour: Annotated[float, msgspec.Meta(ge=0, lt=24)] = 1.0
    """When the window of the night begins, in hours of the machine's own time."""
    window_hours: Annotated[float, msgspec.Meta(gt=0, le=24)] = 4.0
    """How long it is; sites are spread over it."""
    parallel: Annotated[int, msgspec.Meta(ge=1, le=16)] = 1
    """How many sites are saved at a time by themselves; proofs have one place more."""
    days: Count = 7
    """The newest backup of each of so many days stays,"""
    weeks: Count = 5
    """of each of so many weeks,"""
    months: Count = 12
    """and of each of so many months."""
    gone_days: Count = 90
    """So long the backups of a destroyed site stay."""
    prove: bool = True
    """The newest backup of each site is given back into a scratch site, and asked."""
    prove_days: Annotated[int, msgspec.Meta(ge=1, le=366)] = 7
    """How often; the sites are spread over it."""
    copy_to: str = ""
    """The repository that each backup is copied to as well; empty: none."""

    def check(self) -> tuple[Problem, ...]:
        if self.nightly and not self.days + self.weeks + self.months:
            return (Problem("days", "nothing would stay of what is saved each night", "keep at least one day"),)
        return ()


class SitePolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is another for one site; ``None``: as for the whole machine."""

    nightly: bool | None = None
    days: Count | None = None
    weeks: Count | None = None
    months: Count | None = None
    prove: bool | None = None

    def over(self, policy: BackupPolicy) -> BackupPolicy:
        changed = {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}
        return msgspec.structs.replace(policy, **changed)


class KeptBackup(msgspec.Struct, frozen=True):
    """What thinning out needs to know of a backup."""

    id: str
    at: float
    cause: str
    pinned: bool = False


def share_of(id: str) -> float:
    """0 to 1, the same for an id for ever."""
    return zlib.crc32(id.encode()) / 2**32


def last_turn(site_id: str, policy: BackupPolicy, now: float) -> float:
    """The newest moment, not after ``now``, at which this site was to be saved."""
    here = time.localtime(now)
    offset = round(policy.hour * 3600 + policy.window_hours * 3600 * share_of(site_id))
    for days_ago in (0, 1, 2):
        # mktime brings days and seconds beyond their ends into order, over changes of the clock too.
        at = time.mktime((here.tm_year, here.tm_mon, here.tm_mday - days_ago, 0, 0, offset, 0, 0, -1))
        if at <= now:
            return at
    return now - DAY


def is_due(site_id: str, created_at: float, newest: float | None, policy: BackupPolicy, now: float) -> bool:
    """Whether a night's backup is missing: that of last night too when the machine was off then."""
    if not policy.nightly:
        return False
    turn = last_turn(site_id, policy, now)
    return created_at < turn and (newest is None or newest < turn)


def proof_due(site_id: str, made_at: float, tried: tuple[float, bool] | None, policy: BackupPolicy, now: float) -> bool:
    """Whether the newest backup, of ``made_at``, is to be proved. ``tried``: when one of this site last was, and how
    that ended. The first proof comes within a part of the period that hangs on the site."""
    if not policy.prove:
        return False
    period = policy.prove_days * DAY
    if tried is None:
        return now >= made_at + min(period, DAY) * share_of(site_id)
    at, well = tried
    # What could not be proved is tried again with the next night's backup.
    return made_at > at and now >= at + (period * (0.9 + 0.1 * share_of(site_id)) if well else DAY / 4)


def retry_after(failures: int) -> float:
    """Seconds until what has failed so often in a row is tried again."""
    return min(RETRY_SECONDS[0] * 2.0 ** max(0, failures - 1), RETRY_SECONDS[1])


def superfluous(found: Iterable[KeptBackup], policy: BackupPolicy, proved: str = "") -> tuple[str, ...]:
    """Ids of the backups of ONE site that may go, oldest first.

    As ``restic forget --keep-daily … --keep-weekly … --keep-monthly``: of each of the newest days (ISO weeks, months)
    that have a backup its newest stays. What people made or pinned, the newest of all and the one ``proved`` last
    stay in any case.
    """
    ours = sorted((each for each in found if each.cause in OWN_WORK), key=lambda each: each.at, reverse=True)
    stays = {each.id for each in ours[:1]} | {each.id for each in ours if each.pinned or each.id == proved}
    for form, count in (("%Y-%m-%d", policy.days), ("%G-%V", policy.weeks), ("%Y-%m", policy.months)):
        seen: set[str] = set()
        for each in ours:
            bucket = time.strftime(form, time.localtime(each.at))
            if bucket not in seen and len(seen) < count:
                seen.add(bucket)
                stays.add(each.id)
    return tuple(each.id for each in reversed(ours) if each.id not in stays)
