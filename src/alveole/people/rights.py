"""The one decision: may this actor do this to that? Denied unless the table says otherwise.

Every verb of :mod:`alveole.services` asks here, so every door has the same rights: the API, the pages, SSH. Routes
name the action they stand for, and a test generated from the route table tries every role on each of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from alveole.people.model import Actor, Held, Near, Role


class Right(StrEnum):
    OPEN = "open"
    """Needs nobody: what tells nothing of any site, and signing in."""
    # About one's own account.
    SELF_ENTER = "self.enter"
    """Give the second factor, or sign out."""
    SELF_LOOK = "self.look"
    SELF_CHANGE = "self.change"
    """What lets nobody in: how pages look."""
    SELF_NOTIFY = "self.notify"
    """Be told of what one may look at: by mail, webhook or feed."""
    # About no one object.
    SITE_LIST = "site.list"
    """Lists hold what the caller may look at, and nothing else."""
    CATALOGUE_LOOK = "catalogue.look"
    """Modules, plans, bases, the internal authority."""
    DOMAIN_CLAIM = "domain.claim"
    """Give a site a domain or a path that its own name does not bring: only who can know whose it is (threat 27)."""
    UPLOAD = "upload.send"
    PLATFORM_LOOK = "platform.look"
    PLATFORM_LOGS = "platform.logs"
    """Lines of Alvéole itself, of the machine and of sites that are destroyed."""
    METRICS_LOOK = "metrics.look"
    """The machine's figures and those of all sites, as ``/metrics`` and a screen on the wall show them.

    It is all that the token of such a program or screen may do."""
    JOURNAL_VERIFY = "journal.verify"
    """Compare the whole journal with its chain."""
    IMAGE_IMPORT = "image.import"
    IMAGE_PULL = "image.pull"
    """Fetch an image by its name, from the registries that the machine's settings allow and from no other."""
    BASE_CHANGE = "base.change"
    PLAN_CHANGE = "plan.change"
    MODULE_CHANGE = "module.change"
    TOKEN_CHANGE = "token.change"  # noqa: S105  the word of an action, no secret
    ACCOUNT_CHANGE = "account.change"
    """Accounts, teams and quotas; listing them too."""
    FIRST_TOKEN = "account.first-token"  # noqa: S105  the word of an action, no secret
    """Make an administrator of whoever holds a token: only for root on the machine itself (threat 32)."""
    RULE_CHANGE = "rule.change"
    """Rules of incidents, and silences of more than one site."""
    NODE_CHANGE = "node.change"
    """Which other machines are driven from here, and whose passports are taken."""
    MACHINE_LEND = "machine.lend"
    """Give a site ports of the machine's addresses, or directories of its own: what more than one site could want."""
    SETTINGS_CHANGE = "settings.change"
    """Where people come from: LDAP, OIDC, second factors; how backups are kept, and where."""
    PLATFORM_KEY = "platform.key"
    """See the key that all backups are sealed with."""
    # About one object.
    SITE_CREATE = "site.create"
    """The object is one of the owner that is asked for."""
    SITE_LOOK = "site.look"
    SITE_LOGS = "site.logs"
    SITE_CHECKS = "site.checks"
    """Run its scenarios, and see their text and what came."""
    SITE_OPERATE = "site.operate"
    """See its programs, end one or start a process anew, and run the operations of whoever may change it."""
    SITE_OPERATE_OWN = "site.operate-own"
    """Run those of its owner."""
    SITE_OPERATE_OPERATOR = "site.operate-operator"
    SITE_OPERATE_ADMINISTRATOR = "site.operate-administrator"
    SITE_SECRETS = "site.secrets"
    SITE_EXEC = "site.exec"
    SITE_CONSOLE = "site.console"
    """A shell in the page; a program that has a token for the API's own words does not get one by it."""
    SITE_FILES = "site.files"
    SITE_RUN = "site.run"
    """Start, stop, restart."""
    SITE_RELEASE = "site.release"
    SITE_CHANGE = "site.change"
    SITE_RENAME = "site.rename"
    SITE_DESTROY = "site.destroy"
    SITE_SHARE = "site.share"
    SITE_GIVE = "site.give"
    SITE_EXPORT = "site.export"
    """Everything of the site in one file, secrets included, sealed to a platform that the caller names."""
    SITE_MOVE = "site.move"
    # About an application, or about one environment of it: its object is the application's owner and the shares of
    # the environment's site.
    APP_CREATE = "app.create"
    APP_LOOK = "app.look"
    APP_CHANGE = "app.change"
    """Environments, and what each asks for."""
    APP_DESTROY = "app.destroy"
    APP_GIVE = "app.give"
    VERSION_SEND = "version.send"
    """A token that may do only this and ``upload.send`` is enough for a CI job."""
    VERSION_DECIDE = "version.decide"
    """Accept or refuse what was sent."""
    APP_DELIVER = "app.deliver"
    APP_DEPLOY = "app.deploy"
    APP_APPROVE = "app.approve"
    APP_ROLLBACK = "app.rollback"
    APP_SYNC = "app.synchronise"
    """Take the data of an environment, and replace those of another."""
    APP_PASS = "app.pass"  # noqa: S105  the word of an action, no secret
    """Deploy past the life cycle, with a reason."""
    BACKUP_LOOK = "backup.look"
    BACKUP_CREATE = "backup.create"
    BACKUP_READ = "backup.read"
    """See its files and take them away: it holds every secret of the site."""
    BACKUP_PROVE = "backup.prove"
    """Have one given back into a scratch site, and asked."""
    BACKUP_OPEN = "backup.open"
    """Have one shown as a site of a past day, to those who may look at the site."""
    BACKUP_RESTORE = "backup.restore"
    BACKUP_DELETE = "backup.delete"
    CHANGE_LOOK = "change.look"
    INCIDENT_LOOK = "incident.look"
    """An incident belongs to whom its site belongs to, and to nobody when it is the platform's."""
    INCIDENT_ACT = "incident.act"
    """Acknowledge, comment, close, reopen; and silence a site for a while."""
    ACCOUNT_LOOK = "account.look"
    """The object is the account: one's own is near enough for everybody."""
    ACCOUNT_KEYS = "account.keys"
    """What lets somebody in: password, sessions, tokens, second factors."""
    TEAM_LOOK = "team.look"
    QUOTA_LOOK = "quota.look"


R = Right
ANY, LOOK, WORK, OWN, NO = Near.FOREIGN, Near.LOOK, Near.CHANGE, Near.OWN, Near.NEVER
ROLES = (Role.ADMIN, Role.OPERATOR, Role.OWNER, Role.READER)
#: How near an object must be to somebody of each role; where there is no object, ``ANY`` or ``NO``.
TABLE: dict[Right, tuple[Near, Near, Near, Near]] = {
    #                   administrator, operator, owner, reader
    R.OPEN: (ANY, ANY, ANY, ANY),
    R.SELF_ENTER: (ANY, ANY, ANY, ANY),
    R.SELF_LOOK: (ANY, ANY, ANY, ANY),
    R.SELF_CHANGE: (ANY, ANY, ANY, ANY),
    R.SELF_NOTIFY: (ANY, ANY, ANY, ANY),
    R.SITE_LIST: (ANY, ANY, ANY, ANY),
    R.CATALOGUE_LOOK: (ANY, ANY, ANY, ANY),
    R.DOMAIN_CLAIM: (ANY, ANY, NO, NO),
    R.UPLOAD: (ANY, ANY, ANY, NO),
    R.PLATFORM_LOOK: (ANY, ANY, NO, ANY),
    R.PLATFORM_LOGS: (ANY, ANY, NO, NO),
    R.METRICS_LOOK: (ANY, ANY, NO, ANY),
    R.JOURNAL_VERIFY: (ANY, ANY, NO, ANY),
    R.IMAGE_IMPORT: (ANY, ANY, NO, NO),
    R.IMAGE_PULL: (ANY, ANY, ANY, NO),
    R.BASE_CHANGE: (ANY, ANY, NO, NO),
    R.PLAN_CHANGE: (ANY, NO, NO, NO),
    R.MODULE_CHANGE: (ANY, NO, NO, NO),
    R.TOKEN_CHANGE: (ANY, NO, NO, NO),
    R.ACCOUNT_CHANGE: (ANY, NO, NO, NO),
    R.FIRST_TOKEN: (ANY, NO, NO, NO),
    R.SETTINGS_CHANGE: (ANY, NO, NO, NO),
    R.RULE_CHANGE: (ANY, ANY, NO, NO),
    R.PLATFORM_KEY: (ANY, NO, NO, NO),
    R.MACHINE_LEND: (ANY, NO, NO, NO),
    R.NODE_CHANGE: (ANY, NO, NO, NO),
    R.SITE_CREATE: (ANY, ANY, OWN, NO),
    R.SITE_LOOK: (ANY, ANY, LOOK, ANY),
    R.SITE_LOGS: (ANY, ANY, WORK, NO),
    R.SITE_CHECKS: (ANY, ANY, WORK, NO),
    R.SITE_OPERATE: (ANY, ANY, WORK, NO),
    R.SITE_OPERATE_OWN: (ANY, ANY, OWN, NO),
    R.SITE_OPERATE_OPERATOR: (ANY, ANY, NO, NO),
    R.SITE_OPERATE_ADMINISTRATOR: (ANY, NO, NO, NO),
    R.SITE_SECRETS: (ANY, ANY, WORK, NO),
    R.SITE_EXEC: (ANY, ANY, WORK, NO),
    R.SITE_CONSOLE: (ANY, ANY, WORK, NO),
    R.SITE_FILES: (ANY, ANY, WORK, NO),
    R.SITE_RUN: (ANY, ANY, WORK, NO),
    R.SITE_RELEASE: (ANY, ANY, WORK, NO),
    R.SITE_CHANGE: (ANY, ANY, WORK, NO),
    R.SITE_RENAME: (ANY, ANY, OWN, NO),
    R.SITE_DESTROY: (ANY, ANY, OWN, NO),
    R.SITE_SHARE: (ANY, ANY, OWN, NO),
    R.SITE_GIVE: (ANY, ANY, OWN, NO),
    R.SITE_EXPORT: (ANY, ANY, OWN, NO),
    R.SITE_MOVE: (ANY, ANY, NO, NO),
    R.APP_CREATE: (ANY, ANY, OWN, NO),
    R.APP_LOOK: (ANY, ANY, LOOK, ANY),
    R.APP_CHANGE: (ANY, ANY, OWN, NO),
    R.APP_DESTROY: (ANY, ANY, OWN, NO),
    R.APP_GIVE: (ANY, ANY, OWN, NO),
    R.VERSION_SEND: (ANY, ANY, WORK, NO),
    R.VERSION_DECIDE: (ANY, ANY, WORK, NO),
    R.APP_DELIVER: (ANY, ANY, WORK, NO),
    R.APP_DEPLOY: (ANY, ANY, WORK, NO),
    R.APP_APPROVE: (ANY, ANY, WORK, NO),
    R.APP_ROLLBACK: (ANY, ANY, WORK, NO),
    R.APP_SYNC: (ANY, ANY, OWN, NO),
    R.APP_PASS: (ANY, NO, NO, NO),
    R.BACKUP_LOOK: (ANY, ANY, LOOK, ANY),
    R.BACKUP_CREATE: (ANY, ANY, WORK, NO),
    R.BACKUP_READ: (ANY, ANY, WORK, NO),
    R.BACKUP_PROVE: (ANY, ANY, WORK, NO),
    R.BACKUP_OPEN: (ANY, ANY, WORK, NO),
    R.BACKUP_RESTORE: (ANY, ANY, OWN, NO),
    R.BACKUP_DELETE: (ANY, ANY, OWN, NO),
    R.CHANGE_LOOK: (ANY, ANY, LOOK, ANY),
    R.INCIDENT_LOOK: (ANY, ANY, LOOK, ANY),
    R.INCIDENT_ACT: (ANY, ANY, WORK, NO),
    R.ACCOUNT_LOOK: (ANY, OWN, OWN, OWN),
    R.ACCOUNT_KEYS: (ANY, OWN, OWN, OWN),
    R.TEAM_LOOK: (ANY, OWN, OWN, OWN),
    R.QUOTA_LOOK: (ANY, OWN, OWN, OWN),
}
_ABOUT_PEOPLE = frozenset({R.ACCOUNT_LOOK, R.ACCOUNT_KEYS, R.TEAM_LOOK, R.QUOTA_LOOK})
#: Rights whose answer hangs on an object; asked without one they are denied.
OBJECTS = _ABOUT_PEOPLE | {
    R.CHANGE_LOOK,
    R.INCIDENT_LOOK,
    R.INCIDENT_ACT,
    *(each for each in R if each.startswith(("site.", "backup.", "app.", "version.")) and each is not R.SITE_LIST),
}
#: All that somebody may do whose second factor is still to be given.
_ENTERING = frozenset({R.OPEN, R.SELF_ENTER})
#: Never with a token: whoever found one could keep the account for good.
_NO_TOKEN = frozenset({R.SELF_ENTER, R.ACCOUNT_KEYS, R.PLATFORM_KEY})
#: What a token that is for some sites may do besides them.
_BESIDE_SITES = frozenset({R.OPEN, R.SELF_LOOK, R.SITE_LIST, R.CATALOGUE_LOOK, R.UPLOAD})


def beyond(role: Role, scope: Iterable[Right]) -> tuple[Right, ...]:
    """The rights of ``scope`` that a token of ``role`` and of no person never has: it owns nothing."""
    at = ROLES.index(role)
    return tuple(each for each in scope if TABLE[each][at] is not ANY)


def least_role(scope: Iterable[Right]) -> Role:
    """The weakest role with which a token of no person may do all of ``scope``."""
    wanted = tuple(scope)
    return next((each for each in reversed(ROLES) if not beyond(each, wanted)), Role.ADMIN)


def near(actor: Actor, held: Held) -> Near:
    """How near ``held`` is to ``actor``, whatever their role."""
    if actor.is_one_of(held.owner):
        return Near.OWN
    found = Near.FOREIGN
    for whom in (actor.person, *actor.teams):
        if whom:
            found = max(found, held.shares.get(whom, Near.FOREIGN))
    return found


def may(actor: Actor, right: Right, held: Held | None = None) -> bool:
    """Whether ``actor`` may do ``right`` to ``held``; never raises."""
    row = TABLE.get(right)
    if row is None or actor.role not in ROLES:
        return False
    if actor.entering and right not in _ENTERING:
        return False
    if right is Right.FIRST_TOKEN and actor.via != "socket":
        return False
    if right in _NO_TOKEN and actor.via.startswith("token:"):
        return False
    if actor.scope is not None and right not in actor.scope and right is not Right.OPEN:
        return False
    if actor.sites is not None and not (held.site in actor.sites if held else right in _BESIDE_SITES):
        return False
    least = row[ROLES.index(actor.role)]
    if right not in OBJECTS:
        return held is None and least is ANY
    if held is None or least is NO:
        return False
    return least is ANY or near(actor, held) >= least
