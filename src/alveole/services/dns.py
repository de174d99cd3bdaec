"""The verbs about the zone that the names of sites are published in."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from alveole.agent.naming import NameFetcher, NameHost, NameKey, SetUpNames, UndoNames
from alveole.agent.protocol import Link
from alveole.dns.zone import (
    KEY_NAME,
    TRANSFER_KEY_NAME,
    DnsLeft,
    DnsSettings,
    DnsTrial,
    DnsView,
    TransferKey,
    by_family,
    inside,
    own_servers,
    server_of,
    zone_of,
)
from alveole.errors import AlveoleError, InvalidInput, NotFound, Problem, Refused
from alveole.issuing import pointing
from alveole.masking import HIDDEN
from alveole.model.names import split_resolver
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.services import naming
from alveole.services.outside import OutsideVerbs, converted
from alveole.services.publishing import Row

_SETTING = "dns"
_LEFT = "dns-left"
_SECRETS = ("secret", "transfer_secret")
#: Where a trial writes; with an underscore it is nobody's host (RFC 8552).
_TRIAL = "_alveole-try"


class ZonesLeft(msgspec.Struct, frozen=True):
    """What was written into zones that were served from here and are not at this moment."""

    zones: dict[str, tuple[Row, ...]] = {}


class DnsVerbs(OutsideVerbs):
    def show_dns(self, caller: Actor) -> DnsView:
        """The secrets are hidden. ``NotFound`` when no zone is managed."""
        self._allow(caller, Right.SETTINGS_CHANGE)
        dns, state = self._dns(), self.naming
        server, port = server_of(dns, self.settings)
        shown: dict[str, Any] = {field: HIDDEN for field in _SECRETS if getattr(dns, field)}
        shown["wildcards"] = tuple(each.site.name for id in dns.wildcards if (each := self.store.sites.get(id)))
        names = state.names()
        return DnsView(
            settings=msgspec.structs.replace(dns, **shown),
            zone=zone_of(dns, self.settings),
            server=server,
            port=port,
            addresses=dns.addresses,
            ok=not state.problem and all(each.state in ("published", "theirs") for each in names),
            problem=state.problem,
            since=state.since,
            next_at=state.next_at,
            serial=state.serial,
            names=names,
            delegation=self._delegation(dns),
        )

    def _dns(self) -> DnsSettings:
        dns = self.naming.dns
        if dns is None:
            raise NotFound("no zone is managed", field="dns", hint="alveole dns setup")
        return dns

    def _delegation(self, dns: DnsSettings) -> tuple[str, ...]:
        zone = zone_of(dns, self.settings)
        hosts = own_servers(dns, self.settings)
        glue = [
            f"{name}. {kind} {value}"
            for name, addresses in hosts.items()
            if inside(name, zone)
            for kind, values in by_family(addresses).items()
            for value in values
        ]
        return (*(f"{zone}. NS {name}." for name in hosts), *glue)

    def set_dns(self, caller: Actor, raw: dict[str, Any]) -> DnsView:
        """Publish the names of sites there from now on. ``***`` for a secret keeps the one that is there.

        ``here`` sets BIND up on this machine. Names that were published at another server or in another zone are
        taken out there first, as far as it still takes changes. Raises ``InvalidInput``, ``Refused``, ``Temporary``.
        """
        self._allow(caller, Right.SETTINGS_CHANGE)
        dns = self._dns_of(raw)
        with self.naming.standing_still():
            old = self.naming.dns
            live = self.journal.begin("set-dns", caller, reason=f"{dns.mode} {zone_of(dns, self.settings)}")
            kept = False
            try:
                if dns.mode == "here":
                    served = self.agent.call(self._names_order(dns))
                    kept = not served.fresh
                    live.say("the zone is new" if served.fresh else "the zone was there, and its records are kept")
                if old is not None and self._place(old) != self._place(dns):
                    self._leave(old, dns, live.say)
                elif old is None and not kept:
                    # They stand in a zone that was served from here before, and not in this one.
                    self.naming.keep(dict.fromkeys(self.naming.rows))
                if dns.mode == "here" and (old is None or self._place(old) != self._place(dns)):
                    self._take_up(zone_of(dns, self.settings), there=kept)
            except AlveoleError as error:
                self.journal.end(live, error.problems)
                raise
            self._put_setting(_SETTING, dns)
            self.naming.use(dns)
            self.journal.end(live)
        self.naming.sync(by_hand=True)
        return self.show_dns(caller)

    def _leave(self, old: DnsSettings, new: DnsSettings, say: Callable[..., None]) -> None:
        if old.mode == "here":
            # Else its configuration has been written over.
            if new.mode != "here":
                self.agent.call(UndoNames())
            self._put_by(zone_of(old, self.settings))
            return
        for problem in self.naming.leave():
            say(str(problem), level="warning")

    def _put_by(self, zone: str) -> None:
        """A zone served from here is not any more. Its file stays for the next time, and so does what is known of
        whose the names in it are: else they would count as somebody else's then, and be neither changed nor removed."""
        left = self._setting(_LEFT, ZonesLeft) or ZonesLeft()
        # Killed in between and asked again, some of them are among those that are kept and not here any more.
        # Or they are, as names that somebody else holds: what was published from here stays so.
        rows = {row.name: row for row in left.zones.get(zone, ())}
        ours = {name for name, row in rows.items() if row.state == "published"}
        rows |= {name: row for name, row in self.naming.rows.items() if name not in ours or row.state == "published"}
        self._put_setting(_LEFT, ZonesLeft({**left.zones, zone: tuple(rows.values())}))
        self.naming.keep(dict.fromkeys(self.naming.rows))

    def _take_up(self, zone: str, *, there: bool) -> None:
        """A zone is served from here again; ``there``: with what is in its file."""
        left = self._setting(_LEFT, ZonesLeft) or ZonesLeft()
        if zone not in left.zones:
            return
        if there:
            self.naming.keep({row.name: row for row in left.zones[zone]})
        others = {each: rows for each, rows in left.zones.items() if each != zone}
        self._put_setting(_LEFT, ZonesLeft(others) if others else None)

    def _place(self, dns: DnsSettings) -> tuple[object, ...]:
        return (dns.mode, *server_of(dns, self.settings), zone_of(dns, self.settings))

    def _dns_of(self, raw: dict[str, Any]) -> DnsSettings:
        dns, old = converted(raw, DnsSettings), self.naming.dns
        for field in _SECRETS:
            if getattr(dns, field) == HIDDEN:
                dns = msgspec.structs.replace(dns, **{field: getattr(old, field) if old is not None else ""})
        if old is not None and old.mode != dns.mode:
            dns = _moved(old, dns, asked_to_keep=raw.get("secret") == HIDDEN)
        problems = list(dns.check())
        zone = zone_of(dns, self.settings)
        if not any(each.field == "zone" for each in problems) and not (
            inside(self.settings.domain, zone) or inside(zone, self.settings.domain)
        ):
            problems.append(Problem("zone", f"{zone} holds no name of {self.settings.domain}", "give a zone above it"))
        wild = {name: self.store.site(name) for name in dns.wildcards}
        problems += [
            Problem("wildcards", f"there is no site {name[:80]!r}", "see: alveole site list")
            for name, site in wild.items()
            if site is None
        ]
        if problems:
            raise InvalidInput(problems=problems)
        found = () if dns.addresses and not dns.follow else naming.detected(self.settings)
        # One that follows is told none, or those of before: of a machine that has none at this moment they stay.
        addresses = found or dns.addresses
        dns = msgspec.structs.replace(dns, follow=dns.follow or not dns.addresses)
        if not addresses:
            raise InvalidInput("none was found", field="addresses", hint="give the public addresses of this machine")
        # By id, so that a site that is renamed keeps it.
        ids = tuple(site.site.id for site in wild.values() if site is not None)
        dns = msgspec.structs.replace(dns, addresses=addresses, wildcards=ids)
        if dns.mode == "here":
            keep = old if old is not None and old.mode == "here" else dns
            dns = msgspec.structs.replace(
                dns,
                key=KEY_NAME,
                secret=keep.secret or _secret(),
                transfer_secret=keep.transfer_secret or _secret(),
            )
        return dns

    def _names_order(self, dns: DnsSettings) -> SetUpNames:
        zone = zone_of(dns, self.settings)
        return SetUpNames(
            zone=zone,
            update=NameKey(dns.key, dns.algorithm, dns.secret),
            transfer=NameKey(TRANSFER_KEY_NAME, dns.algorithm, dns.transfer_secret),
            hosts=tuple(
                NameHost(name, addresses if inside(name, zone) else ())
                for name, addresses in own_servers(dns, self.settings).items()
            ),
            fetchers=tuple(NameFetcher(*split_resolver(each.address)) for each in dns.secondaries),
            by_key=dns.transfer_by_key,
            ttl=dns.ttl,
            # Seconds grow faster than a zone is changed, so one that is made anew is newer than any before it.
            serial=int(time.time()),
        )

    def drop_dns(self, caller: Actor) -> DnsLeft:
        """Publish nothing any more, and undo what was set up. Gives what stays because the server takes no changes."""
        self._allow(caller, Right.SETTINGS_CHANGE)
        dns = self._dns()
        with self.naming.standing_still():
            problems: tuple[Problem, ...] = ()
            if dns.mode == "here":
                self.agent.call(UndoNames())
                self._put_by(zone_of(dns, self.settings))
            else:
                problems = self.naming.leave()
            self._put_setting(_SETTING, None)
            self.naming.use(None)
        self._note(caller, "drop-dns", "; ".join(map(str, problems)) or zone_of(dns, self.settings))
        return DnsLeft(left=tuple(map(str, problems)))

    def sync_dns(self, caller: Actor) -> DnsView:
        """Compare everything with the zone now, and put right what differs."""
        self._allow(caller, Right.SETTINGS_CHANGE)
        self._dns()
        self.naming.sync(by_hand=True)
        return self.show_dns(caller)

    def show_transfer_key(self, caller: Actor) -> TransferKey:
        """What a secondary is given. ``NotFound`` where the zone is not served from here."""
        self._allow(caller, Right.SETTINGS_CHANGE)
        dns = self._dns()
        if dns.mode != "here":
            raise NotFound("the zone is served elsewhere", field="dns")
        self._note(caller, "show-transfer-key", TRANSFER_KEY_NAME)
        return TransferKey(name=TRANSFER_KEY_NAME, algorithm=dns.algorithm, secret=dns.transfer_secret)

    # --- trying ---------------------------------------------------------------------------------
    def try_dns(self, caller: Actor, raw: dict[str, Any] | None) -> DnsTrial:
        """Write a record with these settings, ask for it, and take it away again; nothing is stored.

        ``None``: with the settings that are there.
        """
        self._allow(caller, Right.SETTINGS_CHANGE)
        dns = self._dns() if raw is None else self._dns_of(raw)
        if dns.mode == "here" and (self.naming.dns is None or self.naming.dns.mode != "here"):
            raise Refused("this machine's own server can be tried once it is set up", field="mode")
        links: list[Link] = []
        zone, word = zone_of(dns, self.settings), secrets.token_hex(8)
        name = f"{_TRIAL}.{zone}"
        try:
            updates = self.naming.updates(dns)
        except AlveoleError as error:
            raise InvalidInput(problems=error.problems) from None
        steps = (
            ("zone", f"ask for the serial number of {zone}", lambda: str(updates.serial())),
            ("write", f"write a TXT record at {name}", lambda: _taken(updates.replace, name, "TXT", 30, (word,))),
            ("read", f"ask for {name}", lambda: _found(updates.ask(name, "TXT").values, word)),
            ("remove", f"remove {name}", lambda: _taken(updates.remove, name, "TXT")),
        )
        for title, asked, step in steps:
            links.append(_link(title, asked, step))
            if not links[-1].ok:
                break
        return DnsTrial(ok=all(each.ok for each in links), links=tuple(links))

    def check_dns(self, caller: Actor) -> DnsTrial:
        """Compare the names with the zone, and the secondaries with the primary. Changes nothing."""
        self._allow(caller, Right.SETTINGS_CHANGE)
        dns = self._dns()
        zone = zone_of(dns, self.settings)
        server, port = server_of(dns, self.settings)
        updates = self.naming.updates(dns)
        serial = _link(
            "primary", f"ask {server} (port {port}) for the serial number of {zone}", lambda: str(updates.serial())
        )
        links = [serial]
        for each in dns.secondaries:
            title = f"secondary {each.name or each.address}"
            asked = f"ask {each.address} for the serial number of {zone}"
            links.append(_link(title, asked, partial(_secondary, each.address, zone, serial)))
        links.append(_link("names", "compare every name with the zone", self._compared))
        if dns.alias:
            links.append(_link("alias", f"look up {dns.alias}", partial(self._alias, dns)))
        found = naming.detected(self.settings)
        private = not set(found) <= set(dns.addresses)
        links.append(
            Link(
                "addresses",
                True,
                "compare with those that this machine goes out with",
                ", ".join(dns.addresses) + (f"; the machine itself has {', '.join(found)}" if private else ""),
            )
        )
        return DnsTrial(ok=all(each.ok for each in links), links=tuple(links))

    def _alias(self, dns: DnsSettings) -> str:
        """The addresses of what all names are aliases of: without one, none of them leads anywhere."""
        if (found := self.naming.of_alias(dns)) is None:
            resolvers = self.settings.dns
            found = pointing.addresses(dns.alias, resolvers.resolvers, resolvers.seconds)
        if not found:
            raise AlveoleError(f"{dns.alias} has no address", hint=naming.NO_ALIAS)
        elsewhere = "" if set(found) & set(dns.addresses) else "; none of them is one of this machine"
        return ", ".join(found) + elsewhere

    def _compared(self) -> str:
        wrong = self.naming.compare()
        if wrong:
            text = f"{'; '.join(wrong[:5])}{f'; and {len(wrong) - 5} more' if len(wrong) > 5 else ''}"
            held = any(row.state == "held" for row in self.naming.rows.values())
            raise AlveoleError(text, hint=naming.LET_GO if held else "alveole dns sync")
        return f"{len(self.naming.rows)} as they were written"


def _moved(old: DnsSettings, new: DnsSettings, *, asked_to_keep: bool) -> DnsSettings:
    """What was only said to the server of before does not go along to another one: its key, and its secondaries."""
    if asked_to_keep:
        new = msgspec.structs.replace(new, key="", secret="")
    if new.mode == "elsewhere" and new.secondaries == old.secondaries:
        new = msgspec.structs.replace(new, secondaries=(), transfer_by_key=False, transfer_secret="")
    return new


def _secret() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def _taken(write: Callable[..., None], *what: object) -> str:
    write(*what)
    return "taken"


def _found(values: tuple[str, ...], word: str) -> str:
    if word not in values:
        raise AlveoleError("the record is not there", hint="is this the primary server of the zone?")
    return "there"


def _secondary(address: str, zone: str, primary: Link) -> str:
    serial = naming.secondary_serial(address, zone)
    if primary.ok and serial != int(primary.came):
        raise AlveoleError(f"it has {serial}, the primary {primary.came}", hint="may it transfer the zone from here?")
    return str(serial)


def _link(name: str, asked: str, attempt: Callable[[], str]) -> Link:
    began = time.monotonic()
    try:
        came, cure, ok = attempt(), "", True
    except AlveoleError as error:
        came, cure, ok = error.problems[0].message, error.problems[0].hint, False
    return Link(name, ok, asked, came, cure, round((time.monotonic() - began) * 1000, 2))
