"""What the machine's own apt is set up with: sources of its suite, proxy, known packages.

Nothing here contacts anything; no address is written in Alvéole.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from alveole.errors import Refused
from alveole.host.run import run

SOURCES = Path("/etc/apt")
#: Settings of apt that a build needs to reach what the machine itself reaches; apt.conf(5).
_PASSED = re.compile(
    r"^Acquire::(?:Retries|ForceIPv[46]|https?::(?:Proxy(?:-Auto-Detect)?(?:::[^ ]+)?|Timeout|Ca(?:Info|Path)"
    r"|Verify-(?:Peer|Host)|Ssl(?:Cert|Key))) "
)
_ENVIRONMENT = re.compile(r"^(?:(?:https?|ftp|all|no)_proxy|SSL_CERT_(?:FILE|DIR)|CURL_CA_BUNDLE)\Z", re.IGNORECASE)


def suite() -> str:
    """The code name of this Debian, as ``/etc/os-release`` says it; ``stable`` if it does not."""
    for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition("=")
        if key == "VERSION_CODENAME" and re.match(r"^[a-z]+\Z", value.strip('"')):
            return value.strip('"')
    return "stable"


def sources(name: str, directory: Path = SOURCES) -> str:
    """The machine's sources for the suite ``name``, its updates and its security, as one deb822 file.

    Others (third parties, backports, source packages) are left out, so that a build depends on
    Debian's own archive alone. Empty when there is none.
    """
    wanted = {name, f"{name}-updates", f"{name}-security", f"{name}/updates"}
    found: list[str] = []
    files = [directory / "sources.list", *sorted((directory / "sources.list.d").glob("*"))]
    for file in files:
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if file.suffix == ".list":
            found.extend(_one_line(line, wanted) for line in text.splitlines())
        elif file.suffix == ".sources":
            found.extend(_stanza(stanza, wanted) for stanza in re.split(r"\n[ \t]*\n", text))
    return "\n".join(stanza for stanza in found if stanza)


def _one_line(line: str, wanted: set[str]) -> str:
    match = re.match(r"^\s*deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)\s+([^#]*)", line)
    if match is None or match[3] not in wanted:
        return ""
    signed = re.search(r"signed-by=(\S+)", match[1] or "", re.IGNORECASE)
    return _text(match[2], match[3], match[4].strip(), signed[1] if signed else "")


def _stanza(text: str, wanted: set[str]) -> str:
    fields: dict[str, str] = {}
    key = ""
    for line in text.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if line[0] in " \t":
            fields[key] = f"{fields.get(key, '')}\n{line}"
            continue
        key, _, value = line.partition(":")
        key = key.strip().lower()
        fields[key] = value.strip()
    suites = " ".join(name for name in fields.get("suites", "").split() if name in wanted)
    if (
        "deb" not in fields.get("types", "").split()
        or fields.get("enabled", "yes").lower() in ("no", "false")
        or not suites
    ):
        return ""
    return _text(fields.get("uris", ""), suites, fields.get("components", "main"), fields.get("signed-by", ""))


def _text(uris: str, suites: str, components: str, signed: str) -> str:
    by = f"Signed-By: {signed}\n" if signed else ""
    return f"Types: deb\nURIs: {uris}\nSuites: {suites}\nComponents: {components}\n{by}"


def added(files: Iterable[str]) -> list[str]:
    """The contents of further source files (deb822), for builds on this machine.

    Packages of a directory (``file:``) are copied like others, because a build sees none of the machine.
    Raises ``Refused`` for one that cannot be read.
    """
    found = []
    for name in files:
        try:
            text = Path(name).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Refused(f"the package sources {name} cannot be read: {error}", field="bases.sources") from None
        found.append(re.sub(r"(?m)^(URIs:.*)$", lambda line: line[1].replace("file:/", "copy:/"), text))
    return found


def settings() -> list[str]:
    """The machine's proxy and certificate settings, each as one line of apt.conf(5)."""
    done = run(["apt-config", "dump"], check=False)
    return [line for line in done.stdout.splitlines() if _PASSED.match(line)]


def environment() -> dict[str, str]:
    """The proxy and certificate variables of our own environment."""
    return {key: value for key, value in os.environ.items() if _ENVIRONMENT.match(key)}


def unknown(packages: Iterable[str]) -> list[str]:
    """Those of ``packages`` that the machine's package lists do not know as installable.

    Empty as well when the machine has no lists to ask: then the build finds out.
    """
    names = sorted(set(packages))
    if not names:
        return []
    done = run(["apt-cache", "policy", "base-files", *names], check=False)
    known = set()
    for stanza in re.split(r"\n(?=\S)", done.stdout):
        head, _, rest = stanza.partition(":\n")
        candidate = re.search(r"Candidate: (\S+)", rest)
        # Every system has base-files; without a source for it there are no lists.
        if candidate and candidate[1] != "(none)" and (head != "base-files" or "://" in rest):
            known.add(head)
    return [name for name in names if name not in known] if "base-files" in known else []
