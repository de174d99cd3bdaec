"""People from an LDAP directory: search-and-bind or a direct bind, always encrypted, the certificate always checked.

The password is only ever given to the server; nothing of it is kept. ldap3 rather than python-ldap: see
``docs/adr/0009-ldap3.md``. It is imported when a directory is asked, and not before.
"""

from __future__ import annotations

import contextlib
import math
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from alveole.agent.protocol import Link
from alveole.errors import AlveoleError, Problem, Temporary
from alveole.people.mapping import DirectoryPerson, Mapping, tidy_name

if TYPE_CHECKING:
    from ldap3 import Connection

#: For everything that one sign-in asks of all servers together.
SECONDS = 5.0
#: A server that takes longer to be reached is passed over for the next one.
_CONNECT_SECONDS = 2.0
_GROUPS_MAX = 500


class LdapSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where people come from. ``{name}`` and ``{dn}`` in filters and DNs are replaced by escaped values."""

    servers: tuple[str, ...] = ()
    """``ldaps://host``, or ``ldap://host`` for StartTLS; asked in this order."""
    certificates: str = ""
    """The authorities to trust, PEM; empty: the machine's."""
    user_dn: str = ""
    """Like ``uid={name},ou=people,dc=school``: bind directly. Empty: search first."""
    bind_dn: str = ""
    """Who searches; empty: anonymous, or with ``user_dn`` the person."""
    bind_password: str = ""
    base: str = ""
    """Below which people are searched."""
    filter: str = "(uid={name})"
    name: str = "uid"
    title: str = "cn"
    email: str = "mail"
    group_base: str = ""
    """Below which groups are searched; empty: the person's ``member_of`` names them."""
    group_filter: str = "(|(member={dn})(memberUid={name}))"
    group_name: str = "cn"
    member_of: str = "memberOf"
    mapping: Mapping = Mapping()

    def check(self) -> tuple[Problem, ...]:
        problems = list(self.mapping.check())

        def wrong(field: str, message: str, hint: str = "") -> None:
            problems.append(Problem(field, message, hint))

        for each in msgspec.structs.fields(self):
            text = getattr(self, each.name)
            if isinstance(text, str) and each.name != "certificates" and not text.isprintable():
                wrong(each.name, "is not one line of printable text")
        if not self.servers:
            wrong("servers", "is empty", "name at least one, like ldaps://ldap.example.org")
        for server in self.servers:
            parts = urlsplit(server)
            if parts.scheme not in ("ldap", "ldaps") or not parts.hostname or parts.path.strip("/") or parts.username:
                wrong("servers", f"{server!r} is not an address", "write it like ldaps://ldap.example.org")
        if not self.user_dn and not self.base:
            wrong("base", "is empty", "say below which entry people are, or give user_dn")
        if self.user_dn and "{name}" not in self.user_dn:
            wrong("user_dn", "has no {name}")
        if not self.user_dn and "{name}" not in self.filter:
            wrong("filter", "has no {name}", "write it like (uid={name})")
        for field in ("filter", "group_filter"):
            text = getattr(self, field)
            if not text.startswith("(") or text.count("(") != text.count(")"):
                wrong(field, f"{text!r} is not a filter", "put it between parentheses")
        if self.certificates:
            try:
                ssl.create_default_context(cadata=self.certificates)
            except (ssl.SSLError, ValueError, TypeError) as error:
                wrong("certificates", f"cannot be read: {error}", "give PEM text")
        return tuple(problems)


class _Wrong(AlveoleError):
    """The directory answered, and no."""


def sign_in(settings: LdapSettings, name: str, password: str) -> DirectoryPerson | None:
    """Who it is when the directory takes the password; else ``None``.

    An empty password is never sent: servers take it for an anonymous bind and say yes (RFC 4513 §5.1.2, threat 26).
    Raises ``Temporary`` when no server answers within :data:`SECONDS`.
    """
    if not password or "\0" in password or not name:
        return None
    return _ask_all(settings, name, password)


def look_up(settings: LdapSettings, name: str) -> DirectoryPerson | None:
    """Who is called so, searched as ``bind_dn``; ``None``: nobody is. Raises ``Temporary``."""
    return _ask_all(settings, name, None)


def _ask_all(settings: LdapSettings, name: str, password: str | None) -> DirectoryPerson | None:
    until = time.monotonic() + SECONDS
    problems: list[Problem] = []
    for server in settings.servers:
        try:
            return _ask(settings, server, name, password, until)
        except _Wrong:
            return None
        except Temporary as error:
            # Down, or not to be trusted: the next one may be. Its no would be final.
            problems += error.problems
    raise Temporary(problems=[Problem("", "the directory does not answer", "try again later"), *problems])


def attempt(settings: LdapSettings, name: str, password: str | None) -> tuple[tuple[Link, ...], DirectoryPerson | None]:
    """Walk through a sign-in at each server and tell what came at each link; without a password the bind of the
    person is left out. Never raises for what the directory says."""
    links: list[Link] = []
    found = None
    for server in settings.servers:
        began = time.monotonic()

        def tell(
            ok: bool, asked: str, came: str, cure: str = "", *, server: str = server, began: float = began
        ) -> None:
            links.append(Link(server, ok, asked, came, cure, (time.monotonic() - began) * 1000))

        try:
            found = _ask(settings, server, name, password, time.monotonic() + SECONDS, tell)
        except AlveoleError as error:
            first = error.problems[0]
            tell(False, f"sign {name} in", first.message, first.hint)
    return tuple(links), found


Tell = Callable[[bool, str, str], None]


def _ask(
    settings: LdapSettings, server: str, name: str, password: str | None, until: float, tell: Tell | None = None
) -> DirectoryPerson:
    """Raises ``_Wrong`` for a no, ``Temporary`` when this server cannot be asked."""
    from ldap3.core.exceptions import LDAPException
    from ldap3.utils.dn import escape_rdn

    say = tell or (lambda _ok, _asked, _came: None)
    connection: Connection | None = None
    try:
        dn = settings.user_dn.replace("{name}", escape_rdn(name)) if settings.user_dn else ""
        connection = _connect(settings, server, until)
        say(True, "connect, and check the certificate", "encrypted, and it is the server's")
        if dn and password is not None:
            _bind(connection, dn, password, until)
            say(True, f"bind as {dn}", "taken")
        elif settings.bind_dn:
            try:
                _bind(connection, settings.bind_dn, settings.bind_password, until)
            except _Wrong as error:
                # Our own account is refused: that is not the person's fault, nor their password's.
                raise Temporary(f"{server} refuses bind_dn", hint="check bind_dn and bind_password") from error
            say(True, f"bind as {settings.bind_dn}", "taken")
        entry = _person(connection, settings, dn, name, until)
        say(True, f"search {name}", entry["dn"])
        groups = _groups(connection, settings, entry, name, until)
        say(True, f"search the groups of {name}", ", ".join(groups) or "none")
        if not dn and password is not None:
            _bind(connection, entry["dn"], password, until)
            say(True, f"bind as {entry['dn']}", "taken")
        own = tidy_name(_first(entry, settings.name)) or name
        return DirectoryPerson(own, entry["dn"], _first(entry, settings.title), _first(entry, settings.email), groups)
    except (LDAPException, OSError) as error:
        raise Temporary(f"{server}: {_short(error)}", hint=_cure(error)) from error
    finally:
        if connection is not None:
            _close(connection)


def _connect(settings: LdapSettings, server: str, until: float) -> Connection:
    from ldap3 import NONE, Connection, Server, Tls

    parts = urlsplit(server)
    tls = Tls(
        validate=ssl.CERT_REQUIRED,
        version=ssl.PROTOCOL_TLS_CLIENT,
        ca_certs_data=settings.certificates or None,
        ca_certs_file=None if settings.certificates else ssl.get_default_verify_paths().cafile,
        sni=parts.hostname,
    )
    target = Server(
        parts.hostname,
        port=parts.port or (636 if parts.scheme == "ldaps" else 389),
        use_ssl=parts.scheme == "ldaps",
        tls=tls,
        get_info=NONE,
        connect_timeout=min(_CONNECT_SECONDS, _left(until)),
    )
    connection = Connection(
        target,
        # Of the handshake; each question after it has what is left.
        receive_timeout=math.ceil(_CONNECT_SECONDS),
        # No referral is followed: it would take the password to a server that nobody named.
        auto_referrals=False,
        read_only=True,
        raise_exceptions=False,
        check_names=False,
    )
    connection.open()
    if parts.scheme == "ldap" and not connection.start_tls():
        raise Temporary(f"{server} does not do StartTLS", hint="nothing is asked unencrypted: use ldaps://")
    return connection


def _bind(connection: Connection, dn: str, password: str, until: float) -> None:
    connection.socket.settimeout(_left(until))
    if not connection.rebind(user=dn, password=password, authentication="SIMPLE"):
        code = connection.result.get("result")
        # invalidCredentials, noSuchObject, inappropriateAuthentication, invalidDNSyntax, unwillingToPerform (RFC 4511).
        if code in (49, 32, 48, 34, 53):
            raise _Wrong("the directory does not take this password")
        raise Temporary(f"the directory answers {connection.result.get('description')}")


def _person(connection: Connection, settings: LdapSettings, dn: str, name: str, until: float) -> dict[str, Any]:
    from ldap3 import BASE, SUBTREE
    from ldap3.utils.conv import escape_filter_chars

    wanted = [settings.name, settings.title, settings.email, settings.member_of]
    if dn:
        found = _search(connection, dn, "(objectClass=*)", wanted, until, BASE)
    else:
        text = settings.filter.replace("{name}", escape_filter_chars(name))
        found = _search(connection, settings.base, text, wanted, until, SUBTREE)
    if len(found) != 1:
        # Two of one name: whichever was meant, the other must not come in.
        raise _Wrong(f"{len(found)} entries are called {name}", hint="check base and filter")
    return found[0]


def _groups(
    connection: Connection, settings: LdapSettings, entry: dict[str, Any], name: str, until: float
) -> tuple[str, ...]:
    from ldap3 import SUBTREE
    from ldap3.utils.conv import escape_filter_chars
    from ldap3.utils.dn import parse_dn

    if not settings.group_base:
        named = entry["attributes"].get(settings.member_of, [])
        names = [named] if isinstance(named, str) else list(named)
        return tuple(sorted({parse_dn(each)[0][1] for each in names if "=" in each}))[:_GROUPS_MAX]
    text = settings.group_filter.replace("{dn}", escape_filter_chars(entry["dn"]))
    text = text.replace("{name}", escape_filter_chars(name))
    found = _search(connection, settings.group_base, text, [settings.group_name], until, SUBTREE)
    return tuple(sorted({_first(each, settings.group_name) for each in found}))[:_GROUPS_MAX]


def _search(
    connection: Connection, base: str, text: str, wanted: list[str], until: float, scope: str
) -> list[dict[str, Any]]:
    left = _left(until)
    connection.socket.settimeout(left)
    connection.search(base, text, scope, attributes=sorted(set(wanted)), time_limit=max(1, int(left)))
    code = connection.result.get("result")
    if code not in (0, 4, 32):
        raise Temporary(f"the directory answers {connection.result.get('description')} to the search {base}")
    return [each for each in connection.response or () if each.get("type") == "searchResEntry"]


def _first(entry: dict[str, Any], attribute: str) -> str:
    value = entry["attributes"].get(attribute, "")
    if isinstance(value, list):
        value = value[0] if value else ""
    return value if isinstance(value, str) and value.isprintable() else ""


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise Temporary(f"took longer than {SECONDS:.0f} s")
    return left


def _close(connection: Connection) -> None:
    # Whatever it says, nothing is asked of it any more.
    with contextlib.suppress(Exception):
        connection.unbind()


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _cure(error: Exception) -> str:
    if "certificate" in str(error).lower() or "hostname" in str(error).lower():
        return "the certificate must name this server and come from an authority in 'certificates'"
    return "check the address, and that the server runs"
