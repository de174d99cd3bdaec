"""The verbs about certificates: what is shown, getting one, one's own; the authorities that issue them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import msgspec
import sqlalchemy as sa

from alveole.agent.certifying import (
    CertificateSource,
    CertificateState,
    DropCertificate,
    InstallCertificate,
    ShowCertificate,
)
from alveole.dns.zone import server_of, zone_of
from alveole.errors import AlveoleError, InvalidInput, NotFound, Problem, Refused
from alveole.issuing import model, rows
from alveole.issuing.model import AcmeSettings, Authority, Budget, OwnZone, Zone
from alveole.issuing.rows import Order
from alveole.issuing.suffixes import registered
from alveole.journal import Live
from alveole.masking import HIDDEN
from alveole.model.change import Change
from alveole.model.names import ANY_DOMAIN
from alveole.model.resource import PLATFORM
from alveole.model.site import Site
from alveole.people.model import Actor
from alveole.people.rights import Right, may
from alveole.services.certifying import ISSUE, RENEW
from alveole.services.outside import OutsideVerbs, converted
from alveole.store import Transaction, new_id, sealing, tables
from alveole.views import certificates as cv

_AUTHORITIES_MOST = 10
_KEY = "acme"


class CertificateVerbs(OutsideVerbs):
    # --- looking ------------------------------------------------------------------------------
    def list_certificates(self, caller: Actor, site: str | None = None) -> tuple[cv.CertificateView, ...]:
        """One for each name that the caller may look at, by name; or those of one site."""
        if site is None:
            self._allow(caller, Right.SITE_LIST)
            scopes = {each.site.id: each.site.name for each in self._visible(caller)}
            if may(caller, Right.PLATFORM_LOOK):
                scopes[PLATFORM] = ""
        else:
            stored = self._stored(caller, Right.SITE_LOOK, site, elsewhere=True)
            scopes = {stored.site.id: stored.site.name}
        orders = self._orders_by_name()
        return tuple(
            self._certificate_view(each, scopes[each.scope], orders)
            for each in self.certifier.states()
            if each.scope in scopes
        )

    def show_certificate(self, caller: Actor, name: str, site: str | None = None) -> cv.CertificateView:
        """With its chain."""
        found, owner = self._certificate(caller, Right.PLATFORM_LOOK, Right.SITE_LOOK, name, site)
        chain: str = self.agent.call(ShowCertificate(found.name))
        view = self._certificate_view(found, owner.name if owner else "", self._orders_by_name())
        return msgspec.structs.replace(view, chain=chain)

    def _certificate(
        self, caller: Actor, platform: Right, right: Right, name: str, site: str | None
    ) -> tuple[CertificateState, Site | None]:
        """What is shown for a name: of ``site``, or for whom may do ``platform`` of anybody. ``NotFound``."""
        owner = None
        if site is not None:
            owner = self._stored(caller, right, site, elsewhere=True).site
        else:
            self._allow(caller, platform)
        plain = name.strip().lower().rstrip(".")
        for each in self.certifier.states():
            if each.name == plain and (owner is None or each.scope == owner.id):
                stored = self.store.sites.get(each.scope)
                return each, stored.site if stored else None
        raise NotFound(f"there is no certificate for {name[:80]!r}", field="name", hint="see: alveole cert list")

    def _orders_by_name(self) -> dict[str, Order]:
        with self.store.read() as connection:
            every = rows.every(connection)
        found: dict[str, Order] = {}
        for order in every:
            for name in order.names:
                found.setdefault(name, order)
        return found

    def _certificate_view(self, found: CertificateState, site: str, orders: dict[str, Order]) -> cv.CertificateView:
        order = orders.get(found.name) or orders.get(f"*.{found.name.partition('.')[2]}")
        return cv.CertificateView(
            name=found.name,
            site=site,
            source=str(found.source),
            by=found.by,
            names=found.names,
            issued_at=found.issued_at,
            expires_at=found.expires_at,
            days=int((found.expires_at - time.time()) // 86_400) if found.expires_at else 0,
            problem=found.problem,
            renew_at=(order.renew_at or order.next_at) if order else None,
            next_at=order.next_at if order else None,
            attempts=order.attempts if order else 0,
            hindrance=order.problem if order else "",
        )

    # --- getting one --------------------------------------------------------------------------
    def issue_certificate(
        self, caller: Actor, name: str, request: cv.IssueCertificate, site: str | None = None, *, key: str | None = None
    ) -> Change:
        """Ask the authorities for one now; it is renewed by itself from then on."""
        found, owner = self._certificate(caller, Right.SETTINGS_CHANGE, Right.SITE_CHANGE, name, site)
        shared = self._order_of(found)
        if owner is not None and shared is not None and shared.site_id != owner.id and shared.names != (found.name,):
            # It is of others too, and a budget is spent on it that all of them have.
            self._for_all(caller, found.name, shared.names[-1])
        settings = self._acme()
        if not settings.authorities:
            raise Refused(
                "no authority is set up", field="authority", hint="an administrator adds one: alveole acme add"
            )
        if found.source is not CertificateSource.INTERNAL and not found.problem and not request.renew:
            raise Refused(
                f"{found.name} has a certificate for {int((found.expires_at - time.time()) // 86_400)} more days",
                field="name",
                hint=f"alveole cert renew {found.name}",
            )
        if found.source is CertificateSource.OWN and not found.problem:
            raise Refused(
                f"{found.name} has a certificate of somebody's own",
                field="name",
                hint=f"alveole cert remove {found.name}",
            )

        def build(transaction: Transaction) -> Live:
            order = self._order_of(found)
            if order is None:
                order = Order(new_id("o"), (found.name,), owner.id if owner else "")
            rows.put(transaction.connection, msgspec.structs.replace(order, asked=True, next_at=time.time() + 60))
            verb = RENEW if request.renew else ISSUE
            result: dict[str, str | int | float | None] = {"certificate": found.name}
            return self.journal.begin(
                verb, caller, site=owner, reason=found.name, result=result, transaction=transaction
            )

        return self._accept(caller, self._digest("issue", found.name, request.digest()), key, build)

    def _for_all(self, caller: Actor, name: str, wild: str) -> None:
        if not may(caller, Right.SETTINGS_CHANGE):
            raise Refused(
                f"{name} shares the certificate of {wild}",
                field="name",
                hint=f"it is renewed by itself; an administrator renews it sooner: alveole cert renew '{wild}'",
            )

    def _order_of(self, found: CertificateState) -> Order | None:
        """What the certificate of a name was ordered with: alone, or with all names beside it."""
        orders = self._orders_by_name()
        wild = f"*.{found.name.partition('.')[2]}"
        shared = found.source is CertificateSource.ACME and wild in found.names
        return orders.get(found.name) or (orders.get(wild) if shared else None)

    def _flow_issue_certificate(self, live: Live) -> None:
        name = str(live.change.result.get("certificate", ""))
        found = next((each for each in self.certifier.states() if each.name == name), None)
        order = self._order_of(found) if found is not None else None
        if order is None:
            raise Refused("nobody wants this certificate any more")
        done = self.certifier.now(order, live.say)
        self.journal.end(live, result={"expires_at": done.expires_at, "by": done.authority})

    _flow_renew_certificate = _flow_issue_certificate

    # --- one's own ----------------------------------------------------------------------------
    def upload_certificate(
        self, caller: Actor, request: cv.UploadCertificate, site: str | None = None
    ) -> cv.CertificateTaken:
        """Show an own certificate for all names of the site that it is for, or of the whole platform.

        Raises ``InvalidInput`` with everything that is wrong with it.
        """
        from alveole.trust.certs import covers, examine

        owner = None
        if site is not None:
            owner = self._stored(caller, Right.SITE_CHANGE, site, elsewhere=True).site
        else:
            self._allow(caller, Right.SETTINGS_CHANGE)
        if len(request.chain) + len(request.key) > 256 * 1024:
            raise InvalidInput("is too large for a certificate", field="chain")
        here = [each.name for each in self.certifier.states() if owner is None or each.scope == owner.id]
        found = examine(request.chain, request.key, here)
        if found.problems:
            raise InvalidInput(problems=found.problems)
        names = [name for name in here if any(covers(each, name) for each in found.names)]
        # Only who has all sites may say what names that are still to come are shown.
        wild = [each for each in found.names if each.startswith("*.")] if owner is None else []
        kept = tuple(dict.fromkeys([*wild, *(each for each in names if not any(covers(one, each) for one in wild))]))
        self.agent.call(InstallCertificate(kept, CertificateSource.OWN, found.issuer, found.chain, key=request.key))
        # It goes before what an authority gave to one of the names alone, which a wildcard by itself would not.
        alone = [
            each.name
            for each in self.certifier.states()
            if each.name in names and each.name not in kept and each.source is CertificateSource.ACME
        ]
        if alone:
            self.agent.call(DropCertificate(tuple(alone)))
        self._note(caller, "upload-certificate", ", ".join(names), owner)
        self.certifier.poke()
        return cv.CertificateTaken(names=tuple(names), notes=found.notes, expires_at=found.expires_at)

    def remove_certificate(self, caller: Actor, name: str, site: str | None = None) -> None:
        """Show a name what there is besides. One that was issued is not asked for again unless names get theirs
        automatically."""
        orders = self._orders_by_name()
        if name.startswith("*.") and site is None:
            # One that no name here is called: the main domain's, or an uploaded one for names to come.
            self._allow(caller, Right.SETTINGS_CHANGE)
            if not re.match(ANY_DOMAIN, name):
                raise NotFound(f"there is no certificate for {name[:80]!r}", field="name")
            found, owner, order = None, None, orders.get(name)
        else:
            found, owner = self._certificate(caller, Right.SETTINGS_CHANGE, Right.SITE_CHANGE, name, site)
            if found.source is CertificateSource.INTERNAL:
                raise Refused(f"the certificate of {found.name} is by our own authority", field="name")
            name, order = found.name, orders.get(found.name)
        # What was ordered together goes together, or the rest of it would be taken for all that there is to be.
        drop = order.names if order is not None else (name,)
        self.agent.call(DropCertificate(drop))
        # What was ordered for it alone is taken back either way, though nothing else may be shown than before.
        if (
            order is None
            and found is not None
            and any((each.name, each.file) == (found.name, found.file) for each in self.certifier.states())
        ):
            wild = f"*.{found.name.partition('.')[2]}"
            raise Refused(
                f"{found.name} shares the certificate of {wild}",
                field="name",
                hint=f"an administrator takes it from all that share it: alveole cert remove '{wild}'",
            )
        if order is not None:
            with self.store.write() as transaction:
                rows.drop(transaction.connection, order.id)
        self.loop.trigger(owner.id if owner else PLATFORM)
        self._note(caller, "remove-certificate", ", ".join(drop), owner)
        # Where names get theirs automatically the next is asked for now, and not at the hour's look.
        self.certifier.poke()

    # --- authorities --------------------------------------------------------------------------
    def _acme(self) -> AcmeSettings:
        """As stored, and with the zone that the names of sites are published in: challenges go there too."""
        found = self._setting(_KEY, AcmeSettings) or AcmeSettings()
        dns = self.naming.dns
        if dns is None:
            return found
        zone = zone_of(dns, self.settings)
        if any(each.zone == zone for each in found.zones):
            return found
        server, port = server_of(dns, self.settings)
        own = OwnZone(zone=zone, server=server, port=port, key=dns.key, secret=dns.secret, algorithm=dns.algorithm)
        if dns.mode == "here":
            # Its servers are all known, and asked instead of waited for.
            own = msgspec.structs.replace(
                own, wait_seconds=0.0, secondaries=tuple(each.address for each in dns.secondaries)
            )
        return msgspec.structs.replace(found, zones=(*found.zones, own))

    @property
    def certificate_limit(self) -> int | None:
        """So many names of one registered domain can be kept up with what the first authority issues in a week, each
        anew after 60 of its 90 days; ``None`` without an authority."""
        authorities = self._acme().authorities
        return int(authorities[0].budget.domain_week * 60 / 7) if authorities else None

    def private_authorities(self) -> tuple[str, ...]:
        """Whom to trust when one's own authorities are asked (PEM): mostly what they sign with, too."""
        return tuple(each.certificates for each in self._acme().authorities if each.private and each.certificates)

    def show_acme(self, caller: Actor) -> cv.AcmeView:
        """Secrets in it are hidden."""
        self._allow(caller, Right.SETTINGS_CHANGE)
        settings, now = self._acme(), time.time()
        with self.store.read() as connection:
            spent = rows.spent(connection, now - model.WEEK)
        return cv.AcmeView(
            automatic=settings.automatic,
            look=settings.look,
            authorities=tuple(_authority_view(each, spent, now) for each in settings.authorities),
            zones=tuple(map(_zone_view, settings.zones)),
        )

    def _change_acme(self, change: Callable[[AcmeSettings], AcmeSettings]) -> AcmeSettings:
        """In one transaction: the engine writes an authority's account into the same row."""
        with self.store.write() as transaction:
            table = tables.settings
            query = sa.select(table.c.value).where(table.c.key == _KEY)
            text = sealing.known(transaction.connection.execute(query).scalar())
            before = msgspec.json.decode(text, type=AcmeSettings) if text else AcmeSettings()
            if (after := change(before)) == before:
                # What no key opens is not written over by what the clock does.
                return after
            transaction.connection.execute(sa.delete(table).where(table.c.key == _KEY))
            value = msgspec.json.encode(after).decode()
            transaction.connection.execute(sa.insert(table).values(key=_KEY, value=value))
        return after

    def keep_authority(self, authority: Authority) -> None:
        """The engine's word of the account that an authority knows us by."""

        def to(settings: AcmeSettings) -> AcmeSettings:
            found = tuple(
                msgspec.structs.replace(each, account_key=authority.account_key, account=authority.account)
                if (each.name, each.directory) == (authority.name, authority.directory)
                else each
                for each in settings.authorities
            )
            return msgspec.structs.replace(settings, authorities=found)

        self._change_acme(to)

    def set_acme(self, caller: Actor, request: cv.SetAcme) -> cv.AcmeView:
        self._allow(caller, Right.SETTINGS_CHANGE)
        if request == cv.SetAcme():
            raise InvalidInput("nothing to change", hint="give at least one option")

        def to(settings: AcmeSettings) -> AcmeSettings:
            if isinstance(request.automatic, bool):
                settings = msgspec.structs.replace(settings, automatic=request.automatic)
            if isinstance(request.look, bool):
                settings = msgspec.structs.replace(settings, look=request.look)
            if isinstance(request.order, tuple):
                by_name = {each.name: each for each in settings.authorities}
                if sorted(request.order) != sorted(by_name):
                    raise InvalidInput(
                        "name each authority once", field="order", hint=f"there are: {', '.join(by_name)}"
                    )
                settings = msgspec.structs.replace(settings, authorities=tuple(by_name[each] for each in request.order))
            if isinstance(request.budgets, dict):
                settings = _with_budgets(settings, request.budgets)
            return settings

        self._change_acme(to)
        self._note(caller, "set-acme", "")
        self.certifier.retry()
        return self.show_acme(caller)

    def add_authority(self, caller: Actor, request: cv.AddAuthority) -> cv.AcmeView:
        """Ask it for its directory and an account, and keep it when both are had."""
        self._allow(caller, Right.SETTINGS_CHANGE)
        raw = {key: value for key, value in request.settings.items() if key not in ("account", "account_key")}
        problems: list[Problem] = [Problem(name, "is missing") for name in ("name", "directory") if not raw.get(name)]
        if problems:
            raise InvalidInput(problems=problems)
        authority = converted(raw, Authority)
        problems += authority.check()
        if not request.agree:
            hint = "read them at the authority, then: --agree"
            problems.append(Problem("agree", "its terms of service must be agreed to", hint))
        if problems:
            raise InvalidInput(problems=problems)
        found = self._acme().authorities
        if any(each.name == authority.name for each in found):
            raise Refused(f"there is an authority {authority.name!r} already", field="name", hint="remove it first")
        if len(found) >= _AUTHORITIES_MOST:
            raise Refused(f"there are {_AUTHORITIES_MOST} authorities already", field="name", hint="remove one first")
        kept = authority

        def keep(known: Authority) -> None:
            nonlocal kept
            kept = known

        with self.certifier.dialogue(authority, keep) as dialogue:
            dialogue.try_it()

        def to(settings: AcmeSettings) -> AcmeSettings:
            others = tuple(each for each in settings.authorities if each.name != authority.name)
            return msgspec.structs.replace(settings, authorities=(kept, *others) if request.first else (*others, kept))

        self._change_acme(to)
        self._note(caller, "add-authority", f"{authority.name} {authority.directory}")
        self.certifier.retry()
        return self.show_acme(caller)

    def _authority(self, name: str) -> Authority:
        found = next((each for each in self._acme().authorities if each.name == name), None)
        if found is None:
            raise NotFound(f"there is no authority {name[:80]!r}", field="name", hint="see: alveole acme list")
        return found

    def remove_authority(self, caller: Actor, name: str) -> None:
        """Ask it for nothing any more. What it has issued serves until it ends."""
        self._allow(caller, Right.SETTINGS_CHANGE)
        found = self._authority(name)

        def to(settings: AcmeSettings) -> AcmeSettings:
            kept = tuple(each for each in settings.authorities if each.name != found.name)
            return msgspec.structs.replace(settings, authorities=kept)

        self._change_acme(to)
        self._note(caller, "remove-authority", name)
        self.certifier.retry()

    def try_authority(self, caller: Actor, name: str) -> cv.AcmeTried:
        """Ask for its directory and our account there; nothing is ordered."""
        self._allow(caller, Right.SETTINGS_CHANGE)
        found = self._authority(name)
        try:
            with self.certifier.dialogue(found, self.keep_authority) as dialogue:
                return cv.AcmeTried(ok=True, said=dialogue.try_it())
        except AlveoleError as error:
            return cv.AcmeTried(ok=False, said="; ".join(map(str, error.problems)))

    def put_zone(self, caller: Actor, raw: dict[str, Any]) -> cv.AcmeView:
        """A zone that challenges may be written to. ``***`` as the secret keeps the one that is there."""
        self._allow(caller, Right.SETTINGS_CHANGE)
        if problems := [Problem(name, "is missing") for name in ("zone", "server") if not raw.get(name)]:
            raise InvalidInput(problems=problems)
        zone = converted(raw, Zone)
        zone = msgspec.structs.replace(zone, zone=zone.zone.strip().lower().rstrip("."))
        if zone.secret == HIDDEN:
            old = next((each.secret for each in self._acme().zones if each.zone == zone.zone), "")
            zone = msgspec.structs.replace(zone, secret=old)
        # What the server says to this now would be said to each order.
        zone.updates().serial()

        def to(settings: AcmeSettings) -> AcmeSettings:
            others = tuple(each for each in settings.zones if each.zone != zone.zone)
            return msgspec.structs.replace(settings, zones=(*others, zone))

        self._change_acme(to)
        self._note(caller, "add-zone", zone.zone)
        self.certifier.retry()
        return self.show_acme(caller)

    def remove_zone(self, caller: Actor, zone: str) -> None:
        self._allow(caller, Right.SETTINGS_CHANGE)
        found = next((each for each in self._acme().zones if each.zone == zone), None)
        if found is None:
            raise NotFound(f"there is no zone {zone[:80]!r}", field="zone", hint="see: alveole acme list")
        if isinstance(found, OwnZone):
            raise Refused(
                f"names are published in {zone}, and challenges are written there for as long",
                field="zone",
                hint="to prove names over HTTP alone: alveole acme add --challenge http-01",
            )

        def to(settings: AcmeSettings) -> AcmeSettings:
            kept = tuple(each for each in settings.zones if each.zone != zone)
            return msgspec.structs.replace(settings, zones=kept)

        self._change_acme(to)
        self._note(caller, "remove-zone", zone)


def _with_budgets(settings: AcmeSettings, budgets: dict[str, dict[str, Any]]) -> AcmeSettings:
    """Raises ``InvalidInput``."""
    known = {each.name for each in settings.authorities}
    problems = [
        Problem("budgets", f"there is no authority {name[:80]!r}", "see: alveole acme list")
        for name in budgets
        if name not in known
    ]
    if problems:
        raise InvalidInput(problems=problems)
    changed = tuple(
        msgspec.structs.replace(
            each, budget=converted({**msgspec.structs.asdict(each.budget), **budgets.get(each.name, {})}, Budget)
        )
        for each in settings.authorities
    )
    return msgspec.structs.replace(settings, authorities=changed)


def _zone_view(found: Zone) -> cv.ZoneView:
    return cv.ZoneView(
        zone=found.zone,
        server=found.server,
        port=found.port,
        key=found.key,
        algorithm=found.algorithm,
        secret=HIDDEN if found.secret else "",
        wait_seconds=found.wait_seconds,
        published=isinstance(found, OwnZone),
    )


def _authority_view(found: Authority, spent: tuple[model.Spent, ...], now: float) -> cv.AuthorityView:
    own = [each for each in spent if each.authority == found.name]
    domains = sorted({registered(each.domain) for each in own})
    return cv.AuthorityView(
        name=found.name,
        directory=found.directory,
        email=found.email,
        private=found.private,
        port=found.port,
        challenge=found.challenge,
        eab_kid=found.eab_kid,
        eab_key=HIDDEN if found.eab_key else "",
        certificates=found.certificates,
        account=found.account,
        budget=msgspec.structs.asdict(found.budget),
        spent=tuple(
            cv.BudgetView(
                domain=domain,
                issued=sum(each.kind == "issued" and each.domain == domain for each in own),
                most=found.budget.domain_week,
                failed=sum(
                    each.kind == "failed" and registered(each.domain) == domain and now - each.at < model.HOUR
                    for each in own
                ),
            )
            for domain in domains
        ),
    )
