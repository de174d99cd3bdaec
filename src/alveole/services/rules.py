"""The verbs about rules and silences."""

from __future__ import annotations

import time
from typing import Any

from alveole.errors import InvalidInput, NotFound, Problem, Refused
from alveole.incidents import rules as grammar
from alveole.incidents import silences as quiet
from alveole.incidents.model import (
    PLATFORM,
    AddSilence,
    Figure,
    Rule,
    RuleChanges,
    RuleText,
    RuleView,
    Silence,
    SilenceView,
    Tried,
    TryRule,
)
from alveole.people.model import Actor
from alveole.people.rights import Right, may
from alveole.services.incidents import IncidentVerbs
from alveole.store import new_id

RULES_MAX = 200
SILENCES_MAX = 500
_TRIED_MOST = 1000


class RuleVerbs(IncidentVerbs):
    # --- rules --------------------------------------------------------------------------------
    def list_figures(self, caller: Actor) -> tuple[Figure, ...]:
        """What a rule can look at."""
        self._allow(caller, Right.PLATFORM_LOOK)
        return tuple(sorted(self.readings.figures.values(), key=lambda each: each.name))

    def list_rules(self, caller: Actor) -> tuple[RuleView, ...]:
        self._allow(caller, Right.PLATFORM_LOOK)
        return tuple(self._rule_view(name, rule) for name, rule in sorted(self.watch.rules.items()))

    def show_rule(self, caller: Actor, rule: str) -> RuleView:
        self._allow(caller, Right.PLATFORM_LOOK)
        return self._rule_view(rule, self._rule(rule))

    def _rule(self, name: str) -> Rule:
        found = self.watch.rules.get(name)
        if found is None:
            raise NotFound(f"there is no rule {name[:80]!r}", field="rule", hint="see: alveole rule list")
        return found

    def _rule_view(self, name: str, rule: Rule) -> RuleView:
        figure = self.readings.figures.get(rule.on)
        parts = list(self.watch.parts.values())
        return RuleView(
            name=name,
            built_in=name in grammar.BUILT_IN,
            changed=name in grammar.BUILT_IN and rule != grammar.BUILT_IN[name],
            text=grammar.text(rule),
            on=rule.on,
            title=rule.title,
            condition=grammar.condition(rule, figure),
            severity=rule.severity,
            cause=rule.cause or name,
            promise=rule.promise,
            enabled=rule.enabled,
            open=sum(1 for each in parts if any(key[0] == name for key in each)),
        )

    def put_rule(self, caller: Actor, name: str, request: RuleText) -> RuleView:
        """A rule of one's own, or other values for a built-in one. Raises ``InvalidInput`` with all that is wrong."""
        self._allow(caller, Right.RULE_CHANGE)
        problems = list(grammar.check_name(name))
        rule = None
        try:
            rule = grammar.read(request.text, self.readings.figures)
        except InvalidInput as error:
            problems += error.problems
        problems += self._strangers(rule)
        if problems or rule is None:
            raise InvalidInput(problems=problems)
        if request.fresh and name in self.watch.rules:
            raise Refused(f"there is a rule {name!r} already", field="name", hint="alveole rule set")
        if name not in self.watch.rules and len(self.watch.rules) >= RULES_MAX:
            raise Refused(f"at most {RULES_MAX} rules", field="name", hint="remove one first")
        return self._store_rule(caller, name, rule)

    def change_rule(self, caller: Actor, name: str, request: RuleChanges) -> RuleView:
        """Some of its words; ``None`` takes one away."""
        self._allow(caller, Right.RULE_CHANGE)
        raw: dict[str, Any] = {**grammar.document(self._rule(name)), **request.changes}
        # Of the three that say what is bad the one that was given counts.
        given = [each for each in ("above", "below", "is") if request.changes.get(each) is not None]
        if given:
            raw = {key: value for key, value in raw.items() if key not in ("above", "below", "is") or key in given}
        rule = grammar.of({key: value for key, value in raw.items() if value is not None}, self.readings.figures)
        if problems := self._strangers(rule):
            raise InvalidInput(problems=problems)
        return self._store_rule(caller, name, rule)

    def _strangers(self, rule: Rule | None) -> tuple[Problem, ...]:
        """Whom a rule names and nobody knows."""
        found = []
        for field, named in (("tell", rule.tell), ("escalate_to", rule.escalate_to)) if rule is not None else ():
            for each in named:
                known = each in (grammar.OWNER, grammar.OPERATORS, grammar.ADMINISTRATORS)
                if not known and self.people.whom(each) is None:
                    found.append(Problem(field, f"there is no person or team {each!r}", "see: alveole account list"))
        return tuple(found)

    def _store_rule(self, caller: Actor, name: str, rule: Rule) -> RuleView:
        own = None if rule == grammar.BUILT_IN.get(name) else rule
        with self.watch.lock, self.store.write() as transaction:
            self.watch.book.put_rule(transaction, name, own, caller.name)
            transaction.effects.append(self.watch.load_rules)
        self._note(caller, "set-rule", name)
        return self._rule_view(name, self._rule(name))

    def drop_rule(self, caller: Actor, name: str) -> None:
        """A built-in rule gets the values back that it had in the beginning."""
        self._allow(caller, Right.RULE_CHANGE)
        rule = self._rule(name)
        if rule == grammar.BUILT_IN.get(name):
            raise Refused("it is built in, and as it was", field="rule", hint=f"alveole rule set {name} enabled=false")
        with self.watch.lock, self.store.write() as transaction:
            self.watch.book.put_rule(transaction, name, None, caller.name)
            transaction.effects.append(self.watch.load_rules)
        self._note(caller, "remove-rule", name)

    def try_rule(self, caller: Actor, request: TryRule) -> tuple[Tried, ...]:
        """What a rule would look at now, what is bad first; nothing is kept and nobody is told."""
        self._allow(caller, Right.RULE_CHANGE)
        if bool(request.name) == bool(request.text):
            raise InvalidInput("give the name of a rule, or a text", field="text")
        rule = self._rule(request.name) if request.name else grammar.read(request.text, self.readings.figures)
        is_bad = grammar.test(rule)
        found = []
        for reading in self.watch.read_now(rule.on):
            stored = self.store.sites.get(reading.subject)
            if reading.subject != PLATFORM and stored is None:
                continue
            name = stored.site.name if stored is not None else ""
            if (rule.sites and not grammar.fits(rule.sites, name)) or (
                rule.items and not grammar.fits(rule.items, reading.item)
            ):
                continue
            bad = reading.value is not None and is_bad(reading.value)
            since = reading.since or None
            found.append(
                Tried(site=name, item=reading.item, value=reading.value, bad=bad, text=reading.text, since=since)
            )
        return tuple(sorted(found, key=lambda each: (not each.bad, each.site, each.item))[:_TRIED_MOST])

    # --- silences -----------------------------------------------------------------------------
    def list_silences(self, caller: Actor) -> tuple[SilenceView, ...]:
        """Those of sites that one may look at; of more than one site for who may look at the platform."""
        self._allow(caller, Right.SITE_LIST)
        found = [each for each in self.watch.silences.values() if self._sees_silence(caller, each)]
        return tuple(self._silence_view(each) for each in sorted(found, key=lambda each: -each.created_at))

    def _sees_silence(self, caller: Actor, silence: Silence) -> bool:
        if silence.site:
            return self._sees_site(caller, silence.site)
        return may(caller, Right.PLATFORM_LOOK)

    def _silence_view(self, silence: Silence) -> SilenceView:
        stored = self.store.sites.get(silence.site)
        return SilenceView(
            id=silence.id,
            site=stored.site.name if stored is not None else silence.site,
            rule=silence.rule,
            begins_at=silence.begins_at or None,
            ends_at=silence.ends_at or None,
            weekly=quiet.weekly_words(silence),
            active=quiet.active(silence, time.time()),
            who=silence.who,
            why=silence.why,
            created_at=silence.created_at,
        )

    def add_silence(self, caller: Actor, site: str | None, request: AddSilence) -> SilenceView:
        """Of one site, of one rule, or of everything. What begins meanwhile is written down, and told when the silence
        ends if it is not over."""
        of = ""
        if site is not None:
            of = self._stored(caller, Right.INCIDENT_ACT, site, elsewhere=True).site.id
        else:
            self._allow(caller, Right.RULE_CHANGE)
        problems = []
        if request.rule and request.rule not in self.watch.rules:
            problems.append(Problem("rule", f"there is no rule {request.rule[:80]!r}", "see: alveole rule list"))
        silence = None
        try:
            silence = quiet.read(request, new_id("q"), of, caller.name, time.time())
        except InvalidInput as error:
            problems += error.problems
        if problems or silence is None:
            raise InvalidInput(problems=problems)
        if len(self.watch.silences) >= SILENCES_MAX:
            raise Refused(f"at most {SILENCES_MAX} silences", field="why", hint="remove one first")
        with self.store.write() as transaction:
            self.watch.book.put_silence(transaction, silence)
            transaction.effects.append(self.watch.load_silences)
        stored = self.store.sites.get(of)
        self._note(caller, "add-silence", request.why, stored.site if stored is not None else None)
        return self._silence_view(silence)

    def drop_silence(self, caller: Actor, silence: str) -> None:
        self._allow(caller, Right.SITE_LIST)
        found = self.watch.silences.get(silence)
        if found is None or not self._sees_silence(caller, found):
            raise NotFound(f"there is no silence {silence[:80]!r}", field="silence", hint="see: alveole silence list")
        if found.site:
            self._allow(caller, Right.INCIDENT_ACT, self.people.held_by_id(found.site))
        else:
            self._allow(caller, Right.RULE_CHANGE)
        with self.store.write() as transaction:
            self.watch.book.drop_silences(transaction, [found.id])
            transaction.effects.append(self.watch.load_silences)
        stored = self.store.sites.get(found.site)
        self._note(caller, "remove-silence", found.why, stored.site if stored is not None else None)
