"""The table of rights, written out a second time by meaning, so that a slip in it does not go unseen."""

from __future__ import annotations

import pytest

from alveole.people.model import Actor, Held, Near, Role
from alveole.people.rights import OBJECTS, TABLE, Right, may

MINE, TEAMS = Held("p1", {}, "s1"), Held("g1", {}, "s1")
WORK, LOOK = Held("p2", {"p1": Near.CHANGE}, "s1"), Held("p2", {"g1": Near.LOOK}, "s1")
FOREIGN = Held("p2", {"p3": Near.CHANGE}, "s1")


def actor(role: Role, **more: object) -> Actor:
    return Actor("x", role, person="p1", teams=("g1",), **more)


def allowed(role: Role, held: Held | None) -> set[Right]:
    return {right for right in Right if may(actor(role), right, held)}


SELF = {
    Right.OPEN,
    Right.SELF_ENTER,
    Right.SELF_LOOK,
    Right.SELF_CHANGE,
    Right.SELF_NOTIFY,
    Right.SITE_LIST,
    Right.CATALOGUE_LOOK,
}
LOOKS = {Right.SITE_LOOK, Right.BACKUP_LOOK, Right.CHANGE_LOOK, Right.APP_LOOK, Right.INCIDENT_LOOK}
WORKS = {
    Right.INCIDENT_ACT,
    Right.SITE_LOGS,
    Right.SITE_CHECKS,
    Right.SITE_OPERATE,
    Right.SITE_SECRETS,
    Right.SITE_EXEC,
    Right.SITE_CONSOLE,
    Right.SITE_FILES,
    Right.SITE_RUN,
    Right.SITE_RELEASE,
    Right.SITE_CHANGE,
    Right.BACKUP_CREATE,
    Right.BACKUP_PROVE,
    Right.BACKUP_OPEN,
    Right.BACKUP_READ,
    Right.VERSION_SEND,
    Right.VERSION_DECIDE,
    Right.APP_DELIVER,
    Right.APP_DEPLOY,
    Right.APP_APPROVE,
    Right.APP_ROLLBACK,
}
OWNS = {
    Right.SITE_CREATE,
    Right.SITE_RENAME,
    Right.SITE_OPERATE_OWN,
    Right.SITE_DESTROY,
    Right.SITE_SHARE,
    Right.SITE_GIVE,
    Right.SITE_EXPORT,
    Right.BACKUP_RESTORE,
    Right.BACKUP_DELETE,
    Right.APP_CREATE,
    Right.APP_CHANGE,
    Right.APP_DESTROY,
    Right.APP_GIVE,
    Right.APP_SYNC,
}
#: Which machine a site lives on is for those who look after the machines.
MOVES = {Right.SITE_MOVE}
#: Past the life cycle only an administrator goes, and what was declared for administrators alone only they run.
NOBODYS = {Right.APP_PASS, Right.SITE_OPERATE_ADMINISTRATOR}
#: For whoever looks after the machine.
STAFFS = {Right.SITE_OPERATE_OPERATOR}
SELVES = {Right.ACCOUNT_LOOK, Right.ACCOUNT_KEYS, Right.TEAM_LOOK, Right.QUOTA_LOOK}


def test_every_right_stands_in_the_table() -> None:
    assert set(TABLE) == set(Right)
    assert LOOKS | WORKS | OWNS | SELVES | NOBODYS | MOVES | STAFFS == OBJECTS


def test_administrators() -> None:
    assert allowed(Role.ADMIN, None) == set(Right) - OBJECTS - {Right.FIRST_TOKEN}
    assert may(Actor("root", Role.ADMIN, "socket"), Right.FIRST_TOKEN)
    assert allowed(Role.ADMIN, FOREIGN) == OBJECTS


def test_operators() -> None:
    """All sites and bases; no accounts, no settings."""
    assert allowed(Role.OPERATOR, None) == SELF | {
        Right.UPLOAD,
        Right.DOMAIN_CLAIM,
        Right.PLATFORM_LOOK,
        Right.METRICS_LOOK,
        Right.JOURNAL_VERIFY,
        Right.PLATFORM_LOGS,
        Right.IMAGE_IMPORT,
        Right.IMAGE_PULL,
        Right.BASE_CHANGE,
        Right.RULE_CHANGE,
    }
    assert allowed(Role.OPERATOR, FOREIGN) == LOOKS | WORKS | OWNS | MOVES | STAFFS
    assert allowed(Role.OPERATOR, MINE) == OBJECTS - NOBODYS


def test_owners() -> None:
    assert allowed(Role.OWNER, None) == SELF | {Right.UPLOAD, Right.IMAGE_PULL}
    assert allowed(Role.OWNER, MINE) == allowed(Role.OWNER, TEAMS) == OBJECTS - NOBODYS - MOVES - STAFFS
    assert allowed(Role.OWNER, WORK) == LOOKS | WORKS
    assert allowed(Role.OWNER, LOOK) == LOOKS
    assert allowed(Role.OWNER, FOREIGN) == set()


def test_readers() -> None:
    assert allowed(Role.READER, None) == SELF | {Right.PLATFORM_LOOK, Right.METRICS_LOOK, Right.JOURNAL_VERIFY}
    for held in (MINE, TEAMS):
        assert allowed(Role.READER, held) == LOOKS | SELVES
    for held in (WORK, LOOK, FOREIGN):
        assert allowed(Role.READER, held) == LOOKS


@pytest.mark.parametrize("role", Role)
def test_who_has_not_given_the_second_factor_may_do_nothing_else(role: Role) -> None:
    for held in (None, MINE, FOREIGN):
        for right in Right:
            allowed = may(actor(role, entering=True), right, held)
            assert allowed == (held is None and right in (Right.OPEN, Right.SELF_ENTER))


@pytest.mark.parametrize("role", Role)
def test_tokens_never_have_more_than_their_person(role: Role) -> None:
    for held in (None, MINE, WORK, FOREIGN):
        for right in Right:
            for more in (
                {"via": "token:t1"},
                {"via": "token:t1", "scope": frozenset({"site.look"})},
                {"via": "token:t1", "sites": frozenset({"s2"})},
            ):
                if may(actor(role, **more), right, held):
                    assert may(actor(role), right, held)
                    assert right not in (Right.ACCOUNT_KEYS, Right.SELF_ENTER)
                    assert "scope" not in more or right in (Right.SITE_LOOK, Right.OPEN)
                    assert "sites" not in more or held is None


def test_ids_that_are_nobodys_are_near_to_nobody() -> None:
    root = Actor("root", Role.OWNER)
    for owner in ("", "root", "nobody"):
        assert not may(root, Right.SITE_LOOK, Held(owner))
        assert not may(actor(Role.OWNER), Right.SITE_LOOK, Held(owner))
    assert not may(Actor("x", "wizard"), Right.SITE_LIST)
