"""Where in the pages is done what a hint says for the command line: most who read a page have no shell there."""

from __future__ import annotations

import re

_NAME = "([a-z0-9][a-z0-9-]*)"
_WAYS = tuple(
    (re.compile(rf"\balveole {command}(?![\w-])"), path)
    for command, path in (
        (f"why {_NAME}", "/site/{}/why"),
        (f"site logs {_NAME}", "/site/{}/logs"),
        (f"site update {_NAME}", "/site/{}/content"),
        (f"site (?:set|configure) {_NAME}", "/site/{}/settings"),
        (f"site promises {_NAME}", "/site/{}/promises"),
        (f"site (?:start|stop|restart|show) {_NAME}", "/site/{}"),
        (f"backup create {_NAME}", "/site/{}/backups"),
        (f"check run {_NAME}", "/site/{}/checks"),
        (f"op run {_NAME}", "/site/{}/operations"),
        (f"app [a-z]+ {_NAME}", "/app/{}"),
        ("notify", "/channels"),
        ("rule", "/incidents/rules"),
        ("dns", "/admin/dns"),
        ("(?:acme|cert)", "/admin/certificates"),
        ("base", "/admin/bases"),
        ("backup repository", "/admin/backups"),
        ("node", "/admin/servers"),
        ("journal", "/admin/journal"),
    )
)


def way_of(hint: str) -> str:
    """The path of the page on which ``hint`` is followed; empty where there is none."""
    for pattern, path in _WAYS:
        if found := pattern.search(hint):
            return path.format(*found.groups())
    return ""
