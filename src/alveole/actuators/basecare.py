"""The care of bases that are there: are their files sound, are there updates, and one with all of them.

Nothing here changes a base: what is damaged is marked and made anew by the loop, and what is updated
becomes another base beside the old one.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec

from alveole import failpoints
from alveole.actuators.bases import Bases, debian_key
from alveole.actuators.debian import differences
from alveole.agent.protocol import BaseState, PackageChange, Renewed
from alveole.backends.base import Say, quiet
from alveole.config import Settings
from alveole.errors import AlveoleError, NotFound, Refused
from alveole.host import bases, instances, paths
from alveole.host.bases import BaseRecord, mapped_tree, read_record
from alveole.host.sandbox import Sandbox, as_root
from alveole.model.site import Base, BaseKind

log = logging.getLogger("alveole.agent")
#: How long after the start of the agent the first files are read: sites come first.
_FIRST_SECONDS = 60.0
_LOOK_SECONDS = 60.0
_VERIFY_SECONDS = 6 * 3600.0
#: Lists fetched this lately are taken for those of now.
_NOW_SECONDS = 60.0


class _Checked(msgspec.Struct, frozen=True):
    at: float
    changes: tuple[PackageChange, ...]


class BaseCare:
    """Safe for any number of threads. ``tell`` is called when a base turned out to be damaged."""

    def __init__(
        self, settings: Settings, sandbox: Sandbox, made: Bases, tell: Callable[[], None] = lambda: None
    ) -> None:
        self._settings = settings
        self._sandbox = sandbox
        self._bases = made
        self._tell = tell
        self._renewing = threading.Lock()

    # Looking

    def list(self, key: str | None = None) -> tuple[BaseState, ...]:
        """Every base, or the one ``key`` with what it has installed. Raises ``NotFound``."""
        if key is not None:
            state = self._state(key)
            return (msgspec.structs.replace(state, installed=self._bases.packages(key)),)
        found = []
        for path in sorted(paths.bases(self._settings).glob("[a-z]*-*")):
            with contextlib.suppress(AlveoleError, ValueError):
                found.append(self._state(path.name))
        return tuple(found)

    def _state(self, key: str) -> BaseState:
        record = read_record(self._settings, key)
        checked = self._checked(key)
        verified: float | None = None
        with contextlib.suppress(FileNotFoundError):
            verified = paths.base_verified(self._settings, key).stat().st_mtime
        return BaseState(
            record.base,
            record.bytes,
            record.files,
            record.made_at,
            record.lower,
            damage="; ".join(defect.cause for defect in self._bases.defects(record)),
            verified_at=verified,
            set_aside_at=self._first_aside(record),
            updates=checked.changes if checked else None,
            checked_at=checked.at if checked else None,
        )

    def _first_aside(self, record: BaseRecord) -> float | None:
        """Since when files of the base, or of what it leans on, are set aside that instances still run from."""
        aside = self._bases.set_aside()
        keys = [record.base.key]
        with contextlib.suppress(NotFound, ValueError):
            keys += [each.base.key for each in bases.below(self._settings, record)]
        return next((aside[key] for key in keys if key in aside), None)

    # Damage

    def verify(self, key: str, say: Say = quiet, *, rate: int | None = None) -> BaseState:
        """Compare every file of a base, and of what it leans on, with its digest; mark what is damaged.

        ``rate``: bytes read in a second at most; ``None``: as fast as it goes. The state's ``damage`` is what
        was found, also where the base was made anew in the meantime. Raises ``NotFound``.
        """
        record = read_record(self._settings, key)
        state = self._state(key)
        found = [self._compare(record, say, rate)]
        with contextlib.suppress(NotFound, ValueError):
            for each in bases.below(self._settings, record):
                if words := self._compare(each, say, rate):
                    found.append(f"the base it leans on, {each.base.key}: {words}")
        with contextlib.suppress(NotFound, ValueError):
            # Not there while it is made anew: then as it was before.
            state = self._state(key)
        return msgspec.structs.replace(state, damage="; ".join(filter(None, found)) or state.damage)

    def _compare(self, record: BaseRecord, say: Say, rate: int | None) -> str:
        """What is damaged of one base itself, in words; ``""``: nothing that is known of."""
        key = record.base.key
        top, manifest = paths.base(self._settings, key), paths.base_manifest(self._settings, key)
        if not record.manifest:
            return ""
        label = record.base.label

        def tell(text: str, share: float | None = None) -> None:
            say(f"{text} {label}", share)

        try:
            identity = top.stat().st_ino
            with manifest.open("rb") as file, mapped_tree(self._settings, top / "root") as tree:
                found = self._sandbox.run(
                    "compare",
                    tree,
                    as_root(self._settings, bases.NUMBER),
                    {"digest": record.manifest, "bytes": record.bytes, "rate": rate},
                    fds=(file.fileno(),),
                    say=tell,
                    timeout=_VERIFY_SECONDS,
                )
            # Another has its name by now, or nobody.
            if top.stat().st_ino != identity:
                return ""
        except FileNotFoundError:
            if not manifest.exists() and top.exists():
                return self._mark(record, "the list of its files is gone")
            return ""
        if found["count"]:
            more = (
                f" and {found['count'] - len(found['damaged'])} more" if found["count"] > len(found["damaged"]) else ""
            )
            return self._mark(record, f"{', '.join(found['damaged'])}{more}")
        paths.base_verified(self._settings, key).touch()
        return ""

    def _mark(self, record: BaseRecord, words: str) -> str:
        log.error("the base %s is damaged: %s", record.base.key, words)
        instances.write(paths.base_damage(self._settings, record.base.key), words.encode("utf-8", "replace"))
        failpoints.hit("base-marked")
        self._tell()
        return words

    # Updates

    def _checked_file(self, key: str) -> Path:
        return paths.apt_cache(self._settings) / f"checked.{key}.json"

    def _checked(self, key: str) -> _Checked | None:
        with contextlib.suppress(OSError, msgspec.DecodeError):
            return msgspec.json.decode(self._checked_file(key).read_bytes(), type=_Checked)
        return None

    def check(self, key: str, say: Say = quiet, *, fresh_seconds: float = 0.0) -> tuple[PackageChange, ...]:
        """What updates would change of a Debian base. Raises ``Refused`` for another kind, ``NotFound``."""
        record = self._debian_record(key)
        say("reading the package lists", None)
        changes = self._bases.debian.pending(bases.trees(self._settings, key), fresh_seconds=fresh_seconds)
        self._note_checked(record.base.key, changes)
        return changes

    def _note_checked(self, key: str, changes: tuple[PackageChange, ...]) -> None:
        instances.write(self._checked_file(key), msgspec.json.encode(_Checked(time.time(), changes)))

    def _debian_record(self, key: str) -> BaseRecord:
        record = read_record(self._settings, key)
        if record.base.kind is not BaseKind.DEBIAN:
            raise Refused(
                f"{record.base.label} has no packages of its own",
                field="base",
                hint="import a newer image, or update the machine",
            )
        return record

    def renew(self, key: str, say: Say = quiet) -> Renewed:
        """A base of the same packages as ``key`` with all updates; itself when there are none.

        Raises ``NotFound``, ``Refused``, ``ProgramFailed``.
        """
        with self._renewing:
            record = self._debian_record(key)
            say("looking for updates", 0.0)
            before = self._bases.packages(key)
            changes = self.check(key)
            if not changes and not self._bases.defects(record):
                return Renewed(record.base, ())
            lower = self._renewed_common(changes, say)
            fresh = self._renewed_layer(record, lower, say) if record.base.packages else lower
            self._note_checked(fresh.base.key, ())
            return Renewed(
                fresh.base, self._with_security(key, differences(before, self._bases.packages(fresh.base.key)))
            )

    def _with_security(self, key: str, changes: Collection[PackageChange]) -> tuple[PackageChange, ...]:
        checked = self._checked(key)
        secure = {each.name for each in checked.changes if each.security} if checked else set()
        return tuple(msgspec.structs.replace(each, security=each.name in secure) for each in changes)

    def _renewed_common(self, changes: Collection[PackageChange], say: Say) -> BaseRecord:
        """The newest common base, made anew when Debian has updates for it.

        ``changes``: what updates change of a layer; when nothing of them is of the common base it is as new as can be.
        """
        newest = self._bases.newest_common()
        if newest is not None:
            common = self._bases.packages(newest.base.key)
            if not any(common.get(change.name, change.after) != change.after for change in changes):
                return newest
            trees = bases.trees(self._settings, newest.base.key)
            if not self._bases.debian.pending(trees, fresh_seconds=_NOW_SECONDS, added=False):
                return newest

        def tell(text: str, share: float | None = None) -> None:
            say(text, None if share is None else share / 2)

        provisional = Base(BaseKind.DEBIAN, debian_key((), secrets.token_hex(8)))
        with self._bases.staging(provisional.key) as staging:
            made = self._bases.fill_common(staging, provisional, tell)
            if newest is not None and made.versions == newest.versions:
                return newest
            return self._bases.adopt_once(staging, made)

    def _renewed_layer(self, record: BaseRecord, lower: BaseRecord, say: Say) -> BaseRecord:
        def tell(text: str, share: float | None = None) -> None:
            say(text, None if share is None else 0.5 + share / 2)

        with self._bases.lowers_of(record.base, lower) as lowers, self._bases.staging(record.base.key) as staging:
            made = self._bases.fill_layer(staging, record.base, lowers, tell, fresh_seconds=_NOW_SECONDS)
            if made.versions == record.versions and not self._bases.defects(record):
                return record
            return self._bases.adopt_once(staging, made)

    # The background

    def run(self, stopped: threading.Event) -> None:
        """Compare each base from time to time, slowly, until ``stopped``."""
        wait = _FIRST_SECONDS
        while not stopped.wait(wait):
            wait = _LOOK_SECONDS
            try:
                self._bases.sweep()
                self.verify_due(stopped)
            except (AlveoleError, OSError, ValueError) as error:
                log.warning("bases could not be compared with their digests: %s", error)

    def verify_due(self, stopped: threading.Event | None = None) -> int:
        """Compare those bases whose time has come; gives how many."""
        every = self._settings.bases.verify_seconds
        done = 0
        for record in self._bases.records() if every else ():
            if stopped is not None and stopped.is_set():
                break
            verified = 0.0
            with contextlib.suppress(FileNotFoundError):
                verified = paths.base_verified(self._settings, record.base.key).stat().st_mtime
            if 0 <= time.time() - verified < every:
                continue
            self._compare(record, quiet, self._settings.bases.verify_bytes_per_second)
            done += 1
            if record.base.kind is BaseKind.DEBIAN:
                with contextlib.suppress(AlveoleError):
                    # By the lists there are: nobody asked to contact anything.
                    self.check(record.base.key, fresh_seconds=float("inf"))
        return done
