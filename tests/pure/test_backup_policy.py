"""When sites are saved and proved by themselves, and which backups stay: pure, over years of nights."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest

from alveole.policy.backups import (
    DAY,
    BackupPolicy,
    Cause,
    KeptBackup,
    SitePolicy,
    is_due,
    last_turn,
    proof_due,
    retry_after,
    share_of,
    superfluous,
)

NOON = time.mktime((2026, 11, 22, 12, 0, 0, 0, 0, -1))
SITE = "s" + "a" * 12


@pytest.fixture
def paris(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Paris")
        time.tzset()
        yield
    time.tzset()


def test_sites_are_spread_over_the_window() -> None:
    policy = BackupPolicy(hour=1.0, window_hours=4.0)
    names = [f"s{number:012d}" for number in range(1000)]
    turns = [time.localtime(last_turn(name, policy, NOON)) for name in names]
    assert {each.tm_hour for each in turns} == {1, 2, 3, 4}
    quarters = [sum(each.tm_hour == hour for each in turns) for hour in (1, 2, 3, 4)]
    assert min(quarters) > 180, "no part of the night is left out"
    assert last_turn(SITE, policy, NOON) == last_turn(SITE, policy, NOON + 3600), "the same for a site all day"


def test_a_night_that_was_missed_is_caught_up_once() -> None:
    policy = BackupPolicy()
    turn = last_turn(SITE, policy, NOON)
    assert is_due(SITE, 0.0, None, policy, NOON), "never saved"
    assert is_due(SITE, 0.0, turn - 1, policy, NOON), "the machine was off at its turn"
    assert not is_due(SITE, 0.0, turn + 1, policy, NOON)
    assert not is_due(SITE, turn + 1, None, policy, NOON), "a site that is younger than its turn waits for the next"
    assert not is_due(SITE, 0.0, None, BackupPolicy(nightly=False), NOON)
    assert is_due(SITE, 0.0, turn + 1, policy, turn + DAY + 3700)
    # Weeks away: one is made, not one for each night.
    assert not is_due(SITE, 0.0, NOON, policy, NOON + 60)


def test_one_backup_a_night_over_changes_of_the_clock(paris: None) -> None:
    """Fault 17: a year of minutes that jump by an hour twice."""
    policy = BackupPolicy()
    began = time.mktime((2026, 1, 1, 12, 0, 0, 0, 0, -1))
    newest, count, now = began, 0, began
    while now < began + 365 * DAY:
        if is_due(SITE, 0.0, newest, policy, now):
            newest, count = now, count + 1
        now += 600
    assert count == 365


def test_a_clock_that_jumps_a_year_makes_one_backup() -> None:
    """Fault 17."""
    policy = BackupPolicy()
    later = NOON + 365 * DAY
    assert is_due(SITE, 0.0, NOON, policy, later) and not is_due(SITE, 0.0, later, policy, later + 60)
    assert not is_due(SITE, 0.0, later, policy, NOON), "set back: what is there lies in the future, and is enough"


def test_proofs_come_once_a_period_and_sooner_after_a_failure() -> None:
    policy = BackupPolicy(prove_days=7)
    first = NOON + DAY * share_of(SITE)
    assert not proof_due(SITE, NOON, None, policy, first - 1) and proof_due(SITE, NOON, None, policy, first + 1)
    well, bad = (NOON, True), (NOON, False)
    assert not proof_due(SITE, NOON + 1, well, policy, NOON + 6 * DAY)
    assert proof_due(SITE, NOON + 1, well, policy, NOON + 7 * DAY)
    assert not proof_due(SITE, NOON - 1, well, policy, NOON + 30 * DAY), "that very backup was proved"
    assert proof_due(SITE, NOON + 1, bad, policy, NOON + DAY)
    assert not proof_due(SITE, NOON + 1, bad, BackupPolicy(prove=False), NOON + DAY)


def test_retries_grow_apart() -> None:
    found = [retry_after(count) for count in range(1, 8)]
    assert found == sorted(found) and found[0] == 1800 and found[-1] == 6 * 3600


def nights(count: int) -> list[KeptBackup]:
    return [KeptBackup(f"b{number:012d}", NOON - number * DAY, Cause.NIGHT) for number in range(count)]


def test_days_weeks_and_months_stay() -> None:
    found = nights(500)
    gone = set(superfluous(found, BackupPolicy(days=7, weeks=5, months=12)))
    stays = [each for each in found if each.id not in gone]
    assert {each.id for each in found[:7]} <= {each.id for each in stays}, "the newest seven days"
    weeks = {time.strftime("%G-%V", time.localtime(each.at)) for each in stays}
    months = {time.strftime("%Y-%m", time.localtime(each.at)) for each in stays}
    assert len(weeks) >= 5 and len(months) == 12
    assert 7 + 4 + 10 <= len(stays) <= 7 + 5 + 12


def test_what_people_want_stays() -> None:
    found = nights(40)
    found[30] = KeptBackup(found[30].id, found[30].at, Cause.NIGHT, pinned=True)
    hand = [
        KeptBackup("b" + "h" * 12, NOON - 400 * DAY, Cause.HAND),
        KeptBackup("b" + "d" * 12, NOON - 40 * DAY, Cause.DEPLOY),
    ]
    gone = superfluous([*found, *hand], BackupPolicy(days=1, weeks=0, months=0), proved=found[20].id)
    assert set(gone) == {each.id for each in found} - {found[0].id, found[20].id, found[30].id}
    assert superfluous(nights(1), BackupPolicy(days=0, weeks=0, months=0)) == (), "never the last one"


def test_thinning_again_takes_nothing_more() -> None:
    """Any backups, in any order: what stays stays when it is asked again at once."""
    chance = random.Random(7)  # noqa: S311  chance for a test, no secret
    for _round in range(50):
        found = [KeptBackup(f"b{n}", NOON - chance.random() * 900 * DAY, chance.choice(list(Cause))) for n in range(60)]
        policy = BackupPolicy(days=chance.randrange(9), weeks=chance.randrange(6), months=chance.randrange(14))
        gone = set(superfluous(found, policy))
        left = [each for each in found if each.id not in gone]
        assert superfluous(left, policy) == ()
        assert all(each.cause in (Cause.NIGHT, Cause.DESTROY) for each in found if each.id in gone)


def test_a_site_has_a_policy_of_its_own() -> None:
    own = SitePolicy(days=30, nightly=False).over(BackupPolicy())
    assert (own.days, own.nightly, own.weeks, own.prove) == (30, False, 5, True)
    assert BackupPolicy(days=0, weeks=0, months=0).check() and not BackupPolicy().check()
