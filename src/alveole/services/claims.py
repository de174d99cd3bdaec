"""The domains of a site: added by who runs the machine, or claimed by its owner and proven by the DNS (threat 27).

A claim gives nothing: no route, no certificate, and the name stays free for everybody. Whose proof is found first has
it, by the same table of names that keeps two sites from one name. Who claimed it must still be allowed to change the
site at that moment.
"""

from __future__ import annotations

import logging
import threading
import time

import msgspec

from alveole import requests as ask
from alveole.dns import txt
from alveole.errors import AlveoleError, Denied, NotFound, Refused
from alveole.journal import RECONCILER
from alveole.loop.compile import site_domain
from alveole.model.change import Change
from alveole.model.site import Site
from alveole.people.model import Actor
from alveole.people.rights import Right, may
from alveole.services.draft import Draft
from alveole.services.sites import SiteVerbs
from alveole.store import claims
from alveole.store.claims import Claim
from alveole.views.domains import AddDomain, DomainView

log = logging.getLogger("alveole.store.claims")
#: How often it is looked whether a claim is due.
_TICK_SECONDS = 10.0
#: A claim is not asked about more often than this, whoever presses the button.
_PAUSE_SECONDS = 5.0


class ClaimVerbs(SiteVerbs):
    _claims_lock: threading.Lock

    def list_domains(self, caller: Actor, site: str) -> tuple[DomainView, ...]:
        """Those that are live, then those that wait for their proof."""
        found = self._stored(caller, Right.SITE_LOOK, site, elsewhere=True).site
        live = tuple(DomainView(domain=each, state="live") for each in found.domains)
        with self.store.read() as connection:
            return live + tuple(self._claim_view(each) for each in claims.of_site(connection, found.id))

    def add_domain(self, caller: Actor, site: str, request: AddDomain) -> DomainView:
        """Live at once for who may say whose it is; else a claim. Asked again, the same claim, with new time.

        Raises ``InvalidInput``, ``Refused`` for a domain of another site or too many claims, ``Denied``.
        """
        stored = self._stored(caller, Right.SITE_CHANGE, site, elsewhere=True)
        found, domain = stored.site, request.domain
        if domain in found.domains:
            return DomainView(domain=domain, state="live")
        draft = self._draft_domain(found, domain)
        if may(caller, Right.DOMAIN_CLAIM) or domain == f"*.{site_domain(found.name, self.settings)}":
            draft.finish()
            change = self.set_site(caller, site, ask.SetSite(add_domains=(domain,)))
            return DomainView(domain=domain, state="live", change=change.id)
        if not caller.person:
            raise Denied("a domain is claimed by a person", hint="ask an operator or an administrator to add it")
        if not draft.problems and len(domain) > claims.LENGTH_MAX:
            draft.wrong("domains", f"is {len(domain)} characters long; the limit is {claims.LENGTH_MAX}", "shorten it")
        draft.finish()
        now = time.time()
        with self.store.write() as transaction:
            there = {each.domain: each for each in claims.of_site(transaction.connection, found.id)}
            claim = claims.new(found.id, domain, caller.person, now, self.settings.dns.claim_seconds)
            if domain in there:
                # The same word, so that a record that is on its way through the DNS is not in vain.
                claim = msgspec.structs.replace(claim, token=there[domain].token)
            elif len(there) >= claims.MOST:
                raise Refused(f"{claims.MOST} domains wait for their proof", field="domain", hint="remove one first")
            claims.put(transaction.connection, claim)
        if domain not in there:
            self._note(caller, "claim-domain", domain, found)
        return self._claim_view(claim)

    def check_domain(self, caller: Actor, site: str, domain: str) -> DomainView:
        """Look for the proof now. Raises ``NotFound`` when it is not claimed."""
        found = self._stored(caller, Right.SITE_CHANGE, site, elsewhere=True).site
        if domain in found.domains:
            return DomainView(domain=domain, state="live")
        claim = self._claim_of(found, domain)
        if claim.asked_at is None or time.time() - claim.asked_at >= _PAUSE_SECONDS:
            claim, change = self._look_at(claim, by_hand=True)
            if change is not None:
                return DomainView(domain=domain, state="live", change=change.id)
        return self._claim_view(claim)

    def remove_domain(self, caller: Actor, site: str, domain: str) -> DomainView:
        """Take a domain away, or a claim back; the name is free then."""
        found = self._stored(caller, Right.SITE_CHANGE, site, elsewhere=True).site
        if domain in found.domains:
            change = self.set_site(caller, site, ask.SetSite(remove_domains=(domain,)))
            return DomainView(domain=domain, state="live", change=change.id)
        claim = self._claim_of(found, domain)
        with self.store.write() as transaction:
            claims.drop(transaction.connection, found.id, domain)
        self._note(caller, "drop-claim", domain, found)
        return self._claim_view(claim)

    def _claim_of(self, site: Site, domain: str) -> Claim:
        with self.store.read() as connection:
            claim = next((each for each in claims.of_site(connection, site.id) if each.domain == domain), None)
        if claim is None:
            raise NotFound(
                f"site {site.name} has no domain {domain[:80]!r}", field="domain", hint="see: alveole site domain list"
            )
        return claim

    def _claim_view(self, claim: Claim) -> DomainView:
        return DomainView(
            domain=claim.domain,
            state="pending",
            record=claim.record,
            value=claim.value,
            problem=claim.problem,
            asked_at=claim.asked_at,
            next_at=claim.next_at,
            expires_at=claim.expires_at,
            by=self.people.shown(claim.person),
        )

    def _draft_domain(self, site: Site, domain: str) -> Draft:
        draft = Draft(self.settings, self.store.owner_of, site.id)
        draft.domains((*site.domains, domain), site.name)
        return draft

    # --- by itself ----------------------------------------------------------------------------
    def _keep_claims(self) -> None:
        self.ticker.add("claims", _TICK_SECONDS, self._begin_claims, first=_TICK_SECONDS)

    def _begin_claims(self) -> None:
        with self.store.read() as connection:
            waiting = bool(claims.due(connection, time.time()))
        if waiting and not self._claims_lock.locked():
            # A name server may take its time, and the ticker has other work.
            threading.Thread(target=self._look_at_claims, name="claims", daemon=True).start()

    def _look_at_claims(self) -> None:
        with self._claims_lock:
            with self.store.read() as connection:
                waiting = claims.due(connection, time.time())
            for claim in waiting:
                try:
                    self._look_at(claim)
                except AlveoleError as error:
                    log.warning("the claim of %s: %s", claim.domain, error)
                except Exception:
                    log.exception("the claim of %s failed by a fault of ours", claim.domain)

    def _look_at(self, claim: Claim, *, by_hand: bool = False) -> tuple[Claim, Change | None]:
        """Ask once and act on what comes. Gives the claim as it is then, or the change that makes the domain live."""
        stored = self.store.sites.get(claim.site_id)
        actor = self._claimer(claim)
        if stored is not None and claim.domain in stored.site.domains:
            # An administrator has added it meanwhile, or control was killed right after it was proven.
            with self.store.write() as transaction:
                claims.drop(transaction.connection, claim.site_id, claim.domain)
            return claim, None
        proven = False
        if stored is None or time.time() >= claim.expires_at or actor is None:
            why = "was not proven in time" if actor is not None else "who claimed it may not change the site any more"
            self._end_claim(claim, "claim-ended", why)
            return msgspec.structs.replace(claim, problem=why), None
        try:
            found = txt.texts(claim.record, self.settings.dns.resolvers, self.settings.dns.seconds)
            problem = claims.said(claim, found)
            if not problem:
                proven = True
                return claim, self._grant(actor, claim)
        except AlveoleError as error:
            # No answer; or proven, but not to be had: of another site, or this one is at work. Tried again.
            problem = "; ".join(each.message for each in error.problems)
        now = time.time()
        attempts = 0 if by_hand or proven else claim.attempts + 1
        after = msgspec.structs.replace(
            claim, problem=problem, asked_at=now, attempts=attempts, next_at=now + claims.delay(attempts)
        )
        with self.store.write() as transaction:
            # Unless it was taken back meanwhile.
            if claims.drop(transaction.connection, claim.site_id, claim.domain):
                claims.put(transaction.connection, after)
        return after, None

    def _claimer(self, claim: Claim) -> Actor | None:
        """Who claimed it, when they may still change the site."""
        person = self.people.persons.get(claim.person)
        stored = self.store.sites.get(claim.site_id)
        if person is None or not person.active or stored is None:
            return None
        actor = self.people.actor(person, via="dns")
        return actor if may(actor, Right.SITE_CHANGE, self.people.held(stored.site)) else None

    def _grant(self, actor: Actor, claim: Claim) -> Change:
        """Raises ``Refused`` when the name belongs to a site by now, or this one is at work."""

        def to(old: Site) -> Site:
            self._draft_domain(old, claim.domain).finish()
            return msgspec.structs.replace(old, domains=(*old.domains, claim.domain))

        digest = f"{claim.domain} {claim.token}"
        wanted = ask.SetSite(add_domains=(claim.domain,))
        change = self._set_there(actor, "prove-domain", claim.site_id, wanted, None, None, proven=True)
        far = change is not None
        if change is None:
            change = self._change(actor, Right.SITE_CHANGE, "prove-domain", claim.site_id, digest, None, None, to)
        with self.store.write() as transaction:
            if claims.drop(transaction.connection, claim.site_id, claim.domain) and far:
                # It is only asked for there. The claim goes with the change that brings the name, or is tried again.
                waits = msgspec.structs.replace(claim, asked_at=time.time(), next_at=time.time() + claims.delay(1))
                claims.put(transaction.connection, waits)
        return change

    def _end_claim(self, claim: Claim, verb: str, why: str) -> None:
        with self.store.write() as transaction:
            if not claims.drop(transaction.connection, claim.site_id, claim.domain):
                return
        stored = self.store.sites.get(claim.site_id)
        live = self.journal.begin(
            verb, RECONCILER, site=stored.site if stored else None, reason=f"{claim.domain} {why}"[:500]
        )
        self.journal.end(live)

    def claims_waiting(self, site: Site) -> tuple[str, ...]:
        """One sentence for each claim, for ``why``."""
        with self.store.read() as connection:
            return tuple(
                f"{each.domain} is pending until proven: TXT {each.record} = {each.value}; "
                f"{each.problem or 'not asked yet'}"
                for each in claims.of_site(connection, site.id)
            )
