"""Records of a zone, changed at the server that holds it: dynamic updates (RFC 2136), signed with TSIG (RFC 8945).

Each call is one message over TCP of its own, and one transaction at the server: all of its edits are made or none.
A *condition* is checked by the server in the same transaction, so that what somebody else has written meanwhile is
never overwritten: :class:`ConditionFailed`.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from alveole.errors import InvalidInput, Refused, Temporary

#: Those of RFC 8945 §6 that are not "MUST NOT" or "NOT RECOMMENDED" to use.
ALGORITHMS = ("hmac-sha256", "hmac-sha384", "hmac-sha512")
#: A name of a zone: letters of host names, an underscore for what is none (RFC 8552), a star as the first label.
NAME = (
    r"^(?=.{1,253}\Z)(?:\*\.)?(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\Z"
)
KINDS = ("A", "AAAA", "CAA", "CNAME", "MX", "NS", "SRV", "TLSA", "TXT")
#: RFC 2181 §8.
TTL_MAX = 2**31 - 1


class Key(msgspec.Struct, frozen=True):
    """A TSIG key; ``secret`` in Base64, as every server's configuration has it."""

    name: str
    secret: str
    algorithm: str = ALGORITHMS[0]

    def __repr__(self) -> str:
        return f"Key({self.name!r}, {self.algorithm!r})"


class Record(msgspec.Struct, frozen=True):
    """All records of one kind at one name (an RRset). ``name`` in full, without a dot at the end."""

    name: str
    kind: str
    ttl: int
    values: tuple[str, ...]
    """As a zone file has them; of a TXT record the bare text."""


class Condition(msgspec.Struct, frozen=True):
    """What must be so for the edits to be made. ``values`` empty: there is none of this ``kind``, or, without a
    ``kind``, nothing at all at this name; else exactly these, whatever their TTL."""

    name: str
    kind: str = ""
    values: tuple[str, ...] = ()


class ConditionFailed(Refused):
    """The zone holds something else than what was taken for granted; nothing was changed."""


class Updates:
    """One zone at one server. Holds no connection; safe from several threads.

    ``server``: an address, IPv4 or IPv6. ``timeout``: seconds for one message and its answer, connecting included.
    Raises ``InvalidInput`` for values of the wrong form. Every call raises ``Refused`` when the server says no (the
    wrong key, a clock that is off, a zone that is not its own) and ``Temporary`` when it does not answer.
    """

    def __init__(self, server: str, port: int, zone: str, key: Key | None = None, timeout: float = 10.0) -> None:
        try:
            self._server = str(ipaddress.ip_address(server))
        except ValueError:
            raise InvalidInput(
                f"{server[:80]!r} is not an address", field="server", hint="write it like 192.0.2.53 or 2001:db8::53"
            ) from None
        self.zone = zone.removesuffix(".").lower()
        if not re.match(NAME, self.zone) or "*" in self.zone:
            raise InvalidInput(f"{zone[:80]!r} is not a domain name", field="zone", hint="write it like example.org")
        self._port = port
        self._timeout = timeout
        self._key = _tsig(key) if key is not None else None

    # --- changing -----------------------------------------------------------------------------
    def replace(self, name: str, kind: str, ttl: int, values: Sequence[str]) -> None:
        """From now on ``name`` has exactly these records of this ``kind``."""
        self.change((Record(name, kind, ttl, tuple(values)),))

    def remove(self, name: str, kind: str) -> None:
        """No record of this ``kind`` any more; none there: nothing is done."""
        self.change((Record(name, kind, 0, ()),))

    def change(self, edits: Iterable[Record], when: Iterable[Condition] = ()) -> None:
        """Every record set of ``edits`` is replaced (without ``values``: removed), when every condition holds.

        Raises :class:`ConditionFailed`, too.
        """
        import dns.rdatatype
        import dns.update

        update = dns.update.UpdateMessage(f"{self.zone}.", keyring=self._key)
        for each in when:
            owner = self._name(each.name)
            if each.values:
                update.present(owner, self._rdataset(each.kind, 0, each.values))
            elif each.kind:
                update.absent(owner, dns.rdatatype.from_text(_kind(each.kind)))
            else:
                update.absent(owner)
        for edit in edits:
            owner = self._name(edit.name)
            update.delete(owner, _kind(edit.kind))
            if edit.values:
                update.add(owner, self._rdataset(edit.kind, edit.ttl, edit.values))
        self._send(update)

    def name_servers(self, ttl: int, hosts: Sequence[str]) -> bool:
        """The zone's own NS records are exactly these from now on; whether that was a change.

        One by one: a server passes over the removal of them all (RFC 2136 §3.4.2.3).
        """
        import dns.update

        there = {each.removesuffix(".") for each in self.ask(self.zone, "NS").values}
        if there == set(hosts):
            return False
        update = dns.update.UpdateMessage(f"{self.zone}.", keyring=self._key)
        update.add(self._name(self.zone), self._rdataset("NS", ttl, hosts))
        if gone := sorted(there - set(hosts)):
            update.delete(self._name(self.zone), self._rdataset("NS", 0, gone))
        self._send(update)
        return True

    # --- asking -------------------------------------------------------------------------------
    def holds(self, when: Iterable[Condition]) -> bool:
        """Whether all of this is so at this moment; asked of the server as conditions of a change that changes nothing,
        so what a wildcard stands for is not taken for being there. Raises as every call."""
        try:
            self.change((), when)
        except ConditionFailed:
            return False
        return True

    def ask(self, name: str, kind: str) -> Record:
        """What the server itself says of a name of its zone, not a resolver. No ``values``: there is none.

        What a wildcard stands for is given as if it were there; a CNAME is not followed.
        """
        import dns.flags
        import dns.message
        import dns.rcode
        import dns.rdatatype

        wanted = dns.rdatatype.from_text(_kind(kind))
        owner = self._name(name)
        answer = self._exchange(dns.message.make_query(owner, wanted))
        code = answer.rcode()
        if code not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            raise self._refused(code)
        if not answer.flags & dns.flags.AA:
            raise Refused(f"{self._where} does not hold the zone {self.zone}", field="zone", hint=_HINTS["NOTAUTH"])
        for found in answer.answer:
            if found.name == owner and found.rdtype == wanted:
                return Record(name, kind, int(found.ttl), tuple(sorted(_text(each) for each in found)))
        return Record(name, kind, 0, ())

    def serial(self) -> int:
        """The serial number of the zone there (SOA): it grows with every change."""
        found = self.ask(self.zone, "SOA").values
        if not found:
            raise Refused(f"{self._where} does not hold the zone {self.zone}", field="zone", hint=_HINTS["NOTAUTH"])
        return int(found[0].split()[2])

    # --- within -------------------------------------------------------------------------------
    @property
    def _where(self) -> str:
        return f"the name server {self._server} (port {self._port})"

    def _name(self, name: str) -> Any:
        import dns.name

        plain = name.removesuffix(".").lower()
        if not re.match(NAME, plain):
            raise InvalidInput(f"{name[:80]!r} is not a domain name", field="name")
        if plain != self.zone and not plain.endswith(f".{self.zone}"):
            raise InvalidInput(f"{plain!r} is not in the zone {self.zone}", field="name")
        return dns.name.from_text(f"{plain}.")

    def _rdataset(self, kind: str, ttl: int, values: Sequence[str]) -> Any:
        import dns.exception
        import dns.name
        import dns.rdata
        import dns.rdataclass
        import dns.rdataset
        import dns.rdatatype
        from dns.rdtypes.ANY.TXT import TXT

        if not 0 <= ttl <= TTL_MAX:
            raise InvalidInput(f"{ttl} is not between 0 and {TTL_MAX} s", field="ttl")
        found = dns.rdataset.Rdataset(dns.rdataclass.IN, dns.rdatatype.from_text(_kind(kind)))
        for value in values:
            try:
                if kind != "TXT" and not value.isprintable():
                    raise ValueError
                if kind == "TXT":
                    # Pieces of at most 255 bytes (RFC 1035 §3.3); readers join them.
                    raw = value.encode()
                    pieces = [raw[at : at + 255] for at in range(0, len(raw), 255)] or [b""]
                    data: Any = TXT(dns.rdataclass.IN, dns.rdatatype.TXT, pieces)
                else:
                    data = dns.rdata.from_text(dns.rdataclass.IN, kind, value, origin=dns.name.root, relativize=False)
            except (dns.exception.DNSException, ValueError):
                raise InvalidInput(f"{value[:80]!r} is not the value of a record {kind}", field="values") from None
            found.add(data, ttl)
        return found

    def _send(self, update: Any) -> None:
        import dns.rcode

        code = self._exchange(update).rcode()
        if code != dns.rcode.NOERROR:
            raise self._refused(code)

    def _exchange(self, message: Any) -> Any:
        import dns.exception
        import dns.query
        import dns.tsig

        try:
            answer = dns.query.tcp(message, self._server, timeout=self._timeout, port=self._port)
        except dns.tsig.PeerError as error:
            raise self._badly_signed(error) from None
        except dns.exception.Timeout:
            raise Temporary(f"{self._where} does not answer within {self._timeout:g} s", field="server") from None
        except dns.exception.DNSException as error:
            if isinstance(error, dns.exception.FormError) and "requires a TSIG" in str(error):
                raise self._unsigned() from None
            raise Temporary(f"{self._where} answers what is no answer: {error}"[:300], field="server") from None
        except (OSError, EOFError) as error:
            why = (error.strerror if isinstance(error, OSError) else "") or str(error) or "it hung up"
            raise Temporary(f"{self._where} cannot be asked: {why}", field="server") from None
        if self._key is not None and message.had_tsig and not answer.had_tsig:
            raise self._unsigned()
        return answer

    def _unsigned(self) -> Refused:
        """Somebody between could have written such an answer; and a server that does not know the key cannot sign."""
        return Refused(
            f"{self._where} does not sign its answer",
            field="key",
            hint="compare the key's name, algorithm and secret with those there, and what it may do",
        )

    def _badly_signed(self, error: Exception) -> Refused:
        import dns.tsig

        who = str(self._key.name).removesuffix(".") if self._key is not None else ""
        if isinstance(error, dns.tsig.PeerBadTime):
            return Refused(
                f"{self._where} refuses the key {who}: its clock and ours differ (BADTIME)",
                field="server",
                hint="set both clocks by NTP",
            )
        if isinstance(error, dns.tsig.PeerBadSignature):
            return Refused(
                f"{self._where} refuses the signature of the key {who} (BADSIG)",
                field="key",
                hint="the secret is another there",
            )
        return Refused(
            f"{self._where} does not know the key {who} (BADKEY)",
            field="key",
            hint="compare its name and its algorithm with those there",
        )

    def _refused(self, code: int) -> Refused | Temporary:
        import dns.rcode

        word = dns.rcode.to_text(dns.rcode.Rcode.make(code))
        if word in ("YXDOMAIN", "YXRRSET", "NXRRSET", "NXDOMAIN"):
            return ConditionFailed(f"{self._where} holds other records there ({word})", field="name")
        if word == "SERVFAIL":
            return Temporary(f"{self._where} failed (SERVFAIL)", field="server", hint="its log says why")
        what = {"REFUSED": "refuses", "NOTAUTH": f"does not hold the zone {self.zone}, or not as the primary"}
        return Refused(f"{self._where} {what.get(word, 'refuses')} ({word})", field="zone", hint=_HINTS.get(word, ""))


_HINTS = {
    "REFUSED": "let the key change the zone there (BIND: allow-update; Knot: an acl with the action update)",
    "NOTAUTH": "give the address of the primary server, the zone's own name, and a key that may change it",
    "NOTZONE": "the name is not in that zone",
}


def _kind(kind: str) -> str:
    if kind not in KINDS and kind != "SOA":
        raise InvalidInput(f"{kind[:20]!r} is no kind of record", field="kind", hint=f"one of {', '.join(KINDS)}")
    return kind


def _text(data: Any) -> str:
    strings = getattr(data, "strings", None)
    if strings is not None:
        return b"".join(strings).decode("utf-8", "replace")
    return str(data.to_text())


def _tsig(key: Key) -> Any:
    import dns.exception
    import dns.name
    import dns.tsig

    if key.algorithm not in ALGORITHMS:
        raise InvalidInput(
            f"{key.algorithm[:40]!r} is no algorithm for a key",
            field="algorithm",
            hint=f"one of {', '.join(ALGORITHMS)}",
        )
    try:
        secret = base64.b64decode(key.secret, validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not secret:
        raise InvalidInput("is not a secret in Base64", field="secret", hint="as the server's configuration has it")
    try:
        return dns.tsig.Key(dns.name.from_text(key.name), secret, f"{key.algorithm}.")
    except (dns.exception.DNSException, ValueError):
        raise InvalidInput(f"{key.name[:80]!r} is not the name of a key", field="key") from None
