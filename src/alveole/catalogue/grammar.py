"""Small rules that composing a site and checking a module share."""

from __future__ import annotations

import re
from collections.abc import Sequence

from alveole.errors import Problem
from alveole.model.site import BUILT_IN_PLANS, SITE_UID

PLANS = tuple(plan.name for plan in BUILT_IN_PLANS)
"""Names of plans, the smallest first."""
USERS = {"root": 0, "site": SITE_UID}
"""Accounts that every site has."""
SHELLS = frozenset({"sh", "bash", "dash", "ash", "ksh", "zsh", "busybox"})
#: No link goes to where the kernel, the content or Alvéole itself is.
LINK_FORBIDDEN = ("/proc", "/sys", "/dev", "/site", "/config", "/run/alveole")
PATH_HINT = "write it like mariadb/my.cnf: relative, in lower case at the start, without '..'"
_LINK = re.compile(r"(?:/[A-Za-z0-9._+@-]{1,64}){2,10}\Z")


def alternatives(need: str) -> tuple[str, ...]:
    """``"apache | nginx"`` taken apart."""
    return tuple(name.strip() for name in need.split("|") if name.strip())


def script_places(argv: Sequence[str]) -> frozenset[int]:
    """Which elements a shell reads as a script: what follows its ``-c``."""
    if not any(each.rsplit("/", 1)[-1] in SHELLS for each in argv):
        return frozenset()
    return frozenset(at + 1 for at, each in enumerate(argv[:-1]) if re.fullmatch(r"-[a-z]*c[a-z]*", each))


def check_link(path: str, target: str) -> tuple[Problem, ...]:
    """What is wrong with a link from ``path`` to ``target``, both absolute; fields ``path`` and ``target``."""
    found = []
    for name, value in (("path", path), ("target", target)):
        if not _LINK.match(value) or any(part in (".", "..") for part in value.split("/")):
            found.append(Problem(name, f"{value!r} is not a plain absolute path", "write it like /etc/my.cnf"))
    for taken in LINK_FORBIDDEN:
        if path == taken or path.startswith(f"{taken}/"):
            found.append(
                Problem("path", f"{path!r} lies in {taken}", "choose a place in /etc or in the program's folder")
            )
    return tuple(found)
