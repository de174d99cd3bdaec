"""Grammars of everything a person may name, and the checks that say what is wrong with a name.

Every ``check_*`` function returns the problems it found (empty: none) and never raises, so that a
request can be told all that is wrong with it at once. The annotated types repeat the same
patterns for values that cross the socket between control and agent.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

import msgspec

from alveole.errors import Problem

# A site's name is one DNS label (RFC 1035 §2.3.1, digits first allowed by RFC 1123 §2.1); it
# stays under 63 so that it can carry a prefix in an interface description or an archive name.
SITE_NAME = r"^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?\Z"
SITE_NAME_MAX = 40
DOMAIN = r"^(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*\Z"
#: A domain, or all names right below one: ``*.example.org`` (RFC 6125 §6.4.3).
ANY_DOMAIN = r"^(?:\*\.)?" + DOMAIN.removeprefix("^")
ENV_KEY = r"^[A-Za-z_][A-Za-z0-9_]{0,127}\Z"
# Debian policy §5.6.1.
PACKAGE = r"^[a-z0-9][a-z0-9+.-]{1,62}\Z"
VOLUME_NAME = r"^[a-z0-9](?:[a-z0-9_-]{0,30}[a-z0-9])?\Z"
PROCESS_NAME = VOLUME_NAME
PATH_PREFIX = r"^(?:/[A-Za-z0-9](?:[A-Za-z0-9._~-]{0,58}[A-Za-z0-9])?){1,4}\Z"
#: The grammar of the distribution specification 1.1 ("Pulling manifests"); a tag, or a digest after "sha256:".
REGISTRY = r"^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?(?::\d{1,5})?\Z"
REPOSITORY = r"^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*\Z"
TAG = r"^(?:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}|sha256:[0-9a-f]{64})\Z"
MOUNT_PATH = r"^(?:/[A-Za-z0-9._-]{1,64}){1,8}\Z"
DIGEST = r"^sha256:[0-9a-f]{64}\Z"

NODE_NAME = r"^[a-z](?:[a-z0-9-]{0,14}[a-z0-9])?\Z"

SiteId = Annotated[str, msgspec.Meta(pattern=r"^s[a-z2-7]{12}\Z")]
SiteName = Annotated[str, msgspec.Meta(pattern=SITE_NAME)]
NodeName = Annotated[str, msgspec.Meta(pattern=NODE_NAME)]
"""Short: the path of a socket holds it, and unix(7) leaves 107 bytes."""
Domain = Annotated[str, msgspec.Meta(pattern=DOMAIN, max_length=253)]
AnyDomain = Annotated[str, msgspec.Meta(pattern=ANY_DOMAIN, max_length=253)]
EnvKey = Annotated[str, msgspec.Meta(pattern=ENV_KEY)]
Package = Annotated[str, msgspec.Meta(pattern=PACKAGE)]
VolumeName = Annotated[str, msgspec.Meta(pattern=VOLUME_NAME)]
ProcessName = Annotated[str, msgspec.Meta(pattern=PROCESS_NAME)]
PathPrefix = Annotated[str, msgspec.Meta(pattern=PATH_PREFIX)]
MountPath = Annotated[str, msgspec.Meta(pattern=MOUNT_PATH)]
Digest = Annotated[str, msgspec.Meta(pattern=DIGEST)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
BaseKey = Annotated[str, msgspec.Meta(pattern=r"^(?:host|debian|oci)-[0-9a-f]{16}\Z")]
BackupId = Annotated[str, msgspec.Meta(pattern=r"^b[a-z2-7]{12}\Z")]
Number = Annotated[int, msgspec.Meta(ge=1, le=16_777_216)]
"""The lease of a site. Never 0 or less: its uid range would then be one of the machine's own."""
Slot = Annotated[int, msgspec.Meta(ge=0, le=1)]
Generation = Annotated[int, msgspec.Meta(ge=1, le=999_999_999)]

# ``\\Z`` and never ``$``: in Python ``$`` also matches before a final line feed.
# Names that would shadow Alvéole's own on the main domain, or confuse a reader.
RESERVED = frozenset(
    {
        "admin",
        "alveole",
        "api",
        "autoconfig",
        "autodiscover",
        "console",
        "dns",
        "ftp",
        "imap",
        "localhost",
        "mail",
        "mx",
        "ns",
        "ns1",
        "ns2",
        "panel",
        "pop",
        "root",
        "sftp",
        "smtp",
        "ssh",
        "status",
        "webmail",
        "wpad",
        "www",
    }
)
# Inside the container these belong to the base or to Alvéole.
MOUNT_FORBIDDEN = (
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/proc",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
    "/site",
)
ENV_FORBIDDEN = frozenset({"ALVEOLE_SOCKET", "ALVEOLE_SITE", "PORT", "LD_PRELOAD", "LD_LIBRARY_PATH"})


#: Of the copies that show a past day: ``past-`` and eight hexadecimal digits.
_PAST = re.compile(r"past-[0-9a-f]{8}\Z")


def is_reserved(label: str) -> bool:
    """Whether a name right below the main domain is Alvéole's own."""
    return label in RESERVED or _PAST.match(label) is not None


def check_site_name(name: str, field: str = "name") -> tuple[Problem, ...]:
    if not name:
        return (Problem(field, "is empty", "give a name such as 'blog'"),)
    if len(name) > SITE_NAME_MAX:
        return (Problem(field, f"is {len(name)} characters long; the limit is {SITE_NAME_MAX}", "shorten it"),)
    if not re.match(SITE_NAME, name) or name != name.strip():
        return (
            Problem(
                field,
                f"{name!r} is not a site name",
                "use lower-case letters, digits and hyphens, starting and ending with a letter or a digit",
            ),
        )
    if is_reserved(name) or name.startswith("xn--"):
        return (Problem(field, f"{name!r} is reserved", "choose another name"),)
    return ()


def check_domain(domain: str, field: str = "domain", *, wildcard: bool = False) -> tuple[Problem, ...]:
    """``wildcard``: ``*.example.org``, for all names right below one, will do too."""
    plain = domain.removeprefix("*.")
    if plain != domain and not wildcard:
        return (Problem(field, f"{domain!r} is a wildcard", "name each domain in full"),)
    # Two bytes under RFC 1035's 253: a file is named after it, with an ending of four, and a name has 255.
    if len(domain) > 251:
        return (Problem(field, f"is {len(domain)} characters long; the limit is 251", "shorten it"),)
    if not re.match(DOMAIN, plain):
        return (Problem(field, f"{domain!r} is not a domain name", "write it like 'www.example.org', in lower case"),)
    if "." not in plain:
        return (Problem(field, f"{domain!r} has no dot", "write it in full, like 'www.example.org'"),)
    try:
        ipaddress.ip_address(plain)
    except ValueError:
        return ()
    return (Problem(field, f"{domain!r} is an address, not a name", "give a domain name"),)


def check_pattern(value: str, pattern: str, field: str, what: str, hint: str) -> tuple[Problem, ...]:
    """The one check behind the simpler grammars; ``what`` reads like "a package name"."""
    if re.match(pattern, value):
        return ()
    return (Problem(field, f"{value!r} is not {what}", hint),)


def check_env(key: str, value: str, field: str = "env") -> tuple[Problem, ...]:
    where = f"{field}.{key}"
    if not re.match(ENV_KEY, key):
        return (Problem(field, f"{key!r} is not a variable name", "use letters, digits and underscores"),)
    if key in ENV_FORBIDDEN:
        return (Problem(where, "is set by Alvéole itself", "choose another name"),)
    if "\0" in value or len(value) > 32_768:
        return (Problem(where, "holds a NUL byte or more than 32,768 characters", "shorten it"),)
    return ()


def check_mount_path(path: str, field: str = "volume") -> tuple[Problem, ...]:
    if not re.match(MOUNT_PATH, path) or "/./" in f"{path}/" or "/../" in f"{path}/":
        return (Problem(field, f"{path!r} is not a mount path", "give an absolute path such as /data"),)
    for taken in MOUNT_FORBIDDEN:
        if path == taken or path.startswith(f"{taken}/"):
            return (
                Problem(field, f"{path!r} lies in {taken}, which belongs to the base", "choose a path such as /data"),
            )
    return ()


def check_network(text: str, field: str) -> tuple[Problem, ...]:
    try:
        ipaddress.ip_network(text, strict=True)
    except ValueError as error:
        return (Problem(field, f"{text!r} is not a network: {error}", "write it like 192.0.2.0/24 or 2001:db8::/32"),)
    return ()


def split_resolver(text: str) -> tuple[str, int]:
    """``192.0.2.1``, ``2001:db8::1``, ``192.0.2.1:5353`` or ``[2001:db8::1]:5353`` → address, port.

    Raises ``ValueError``, which says what is wrong.
    """
    host, port = text, "53"
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is not an address")
        port = rest[1:] if rest else port
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
        raise ValueError(f"{text!r} has no port")
    return str(ipaddress.ip_address(host)), int(port)
