"""The Debian base that all others lie over, kept in the tests' cache between runs."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import subprocess
import time
from pathlib import Path

from alveole.actuators.bases import Bases
from alveole.config import Settings
from alveole.host import paths
from instancekit import CACHE

_FRESH_SECONDS = 7 * 86_400.0


def have_common(settings: Settings, bases: Bases) -> str:
    """Put it where these settings have bases: a copy of the cache's, since tests change it, or made, for half a minute.

    Gives its key.
    """
    key = bases.resolve("debian").key
    kept, target = CACHE / "common" / key, paths.base(settings, key)
    made_at = 0.0
    with contextlib.suppress(OSError, ValueError):
        made_at = json.loads((kept / "base.json").read_text())["made_at"]
    # One for which there are updates would make every layer larger.
    if 0 <= time.time() - made_at < _FRESH_SECONDS:
        target.parent.mkdir(mode=0o700, exist_ok=True)
        _copy(kept, target)
        return key
    bases.build(bases.resolve("debian"))
    kept.parent.mkdir(parents=True, exist_ok=True)
    fresh = kept.with_name(f".{secrets.token_hex(4)}")
    _copy(target, fresh)
    shutil.rmtree(kept, ignore_errors=True)
    with contextlib.suppress(OSError):
        fresh.rename(kept)
    return key


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", "--reflink=auto", source, target], check=True)
