"""Which certificates are wanted, what a budget allows, when to renew and when to warn."""

from __future__ import annotations

import pytest

from alveole.issuing import model
from alveole.issuing.model import AcmeSettings, Authority, Budget, OverBudget, Spent, Zone
from alveole.issuing.suffixes import registered

DAY = 86_400.0
PUBLIC = Authority("public", "https://ca.example.com/dir")
PRIVATE = Authority("school", "https://ca.school.lan/dir", private=True)
ZONE = Zone("alv.fr", "192.0.2.53")
SITES = (("s1", ("blog.alv.fr", "www.club.fr")), ("s2", ("wiki.alv.fr", "wiki.school.lan")))


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("example.org", "example.org"),
        ("a.b.example.org", "example.org"),
        ("*.example.org", "example.org"),
        ("www.shop.co.uk", "shop.co.uk"),
        ("shop.co.uk", "shop.co.uk"),
        ("co.uk", "co.uk"),
        ("localhost", "localhost"),
    ],
)
def test_the_registered_domain(name: str, domain: str) -> None:
    assert registered(name) == domain


@pytest.mark.parametrize(
    "name", ["localhost", "a.localhost", "x.test", "a.example.org", "db.internal", "x.home.arpa", "10.0.0.1", "nas.lan"]
)
def test_what_no_public_authority_issues_for(name: str) -> None:
    assert not model.is_public(name)
    assert not model.may_issue(PUBLIC, (name,))
    assert model.may_issue(PRIVATE, (name,))


def test_without_an_authority_nothing_is_wanted() -> None:
    assert model.wanted("alv.fr", "panel.alv.fr", SITES, AcmeSettings()) == ()
    assert model.wanted("alv.fr", "", SITES, AcmeSettings((PUBLIC,), automatic=False)) == ()


def test_each_name_has_its_own_certificate() -> None:
    found = model.wanted("alv.fr", "panel.alv.fr", SITES, AcmeSettings((PUBLIC,)))
    assert [(each.key, each.site) for each in found] == [
        ("alv.fr", ""),
        ("panel.alv.fr", ""),
        ("blog.alv.fr", "s1"),
        ("www.club.fr", "s1"),
        ("wiki.alv.fr", "s2"),
    ]
    assert "wiki.school.lan" in {each.key for each in model.wanted("alv.fr", "", SITES, AcmeSettings((PRIVATE,)))}


def test_with_a_zone_the_names_below_share_one() -> None:
    found = model.wanted("alv.fr", "panel.alv.fr", SITES, AcmeSettings((PUBLIC,), zones=(ZONE,)))
    assert [each.key for each in found] == ["alv.fr *.alv.fr", "www.club.fr"]


def test_how_a_name_is_proven() -> None:
    settings = AcmeSettings((PUBLIC,), zones=(ZONE,))
    assert model.challenge_of(PUBLIC, "www.club.fr", ("www.club.fr",), settings) == "http-01"
    assert model.challenge_of(PUBLIC, "*.club.fr", ("*.club.fr",), settings) == ""
    assert model.challenge_of(PUBLIC, "alv.fr", ("alv.fr", "*.alv.fr"), settings) == "dns-01"
    dns = Authority("dns", "https://ca.example.com/dir", challenge="dns-01")
    assert model.challenge_of(dns, "a.alv.fr", ("a.alv.fr",), settings) == "dns-01"
    assert model.challenge_of(dns, "www.club.fr", ("www.club.fr",), settings) == ""
    # One that is told to look over HTTP only is asked for no wildcard.
    web = Authority("web", "https://ca.example.com/dir", challenge="http-01")
    assert model.challenge_of(web, "*.alv.fr", ("alv.fr", "*.alv.fr"), settings) == ""
    found = model.wanted("alv.fr", "panel.alv.fr", SITES, AcmeSettings((web,), zones=(ZONE,)))
    assert "alv.fr *.alv.fr" not in {each.key for each in found} and "blog.alv.fr" in {each.key for each in found}


def spent(at: float, kind: str = "issued", domain: str = "club.fr", names: str = "www.club.fr") -> Spent:
    return Spent(at, "public", kind, domain, names)


def test_a_budget() -> None:
    now = 100 * DAY
    few = Authority("public", "https://ca.example.com/dir", budget=Budget(domain_week=3, same_week=2, failures_hour=1))
    others = [spent(now - DAY * each, names=f"n{each}.club.fr") for each in range(1, 4)]
    with pytest.raises(OverBudget) as raised:
        model.check_budget(few, ("www.club.fr",), others, now)
    # The oldest of the three leaves the window first.
    assert raised.value.free_at == now - 3 * DAY + model.WEEK
    model.check_budget(few, ("www.other.fr",), others, now)
    model.check_budget(few, ("www.club.fr",), others, now + 5 * DAY)
    model.check_budget(PRIVATE, ("www.club.fr",), others, now)
    with pytest.raises(OverBudget, match="2 of 2 certificates of this week for these very names"):
        model.check_budget(few, ("www.club.fr",), [spent(now - 5), spent(now - 4)], now)
    with pytest.raises(OverBudget, match="failed validations"):
        model.check_budget(few, ("www.club.fr",), [spent(now - 5, "failed", "www.club.fr")], now)
    model.check_budget(few, ("www.club.fr",), [spent(now - 3700, "failed", "www.club.fr")], now)
    free = Authority("public", "https://ca.example.com/dir", budget=Budget(0, 0, 0))
    model.check_budget(free, ("www.club.fr",), [spent(now - 1)] * 1000, now)


def test_renewals_are_spread_and_never_late() -> None:
    times = [model.renew_at(0.0, 90 * DAY, (f"n{each}.club.fr",)) for each in range(200)]
    assert min(times) > 55 * DAY and max(times) <= 60 * DAY
    assert len({round(each / 3600) for each in times}) > 50
    assert times[7] == model.renew_at(0.0, 90 * DAY, ("n7.club.fr",))


def test_warnings() -> None:
    def told(left: float, warned: int = 0, life: float = 90.0) -> int:
        return model.warning(0.0, life * DAY, warned, (life - left) * DAY)

    assert [told(left) for left in (40, 22, 20, 8, 6, 0.5, -1)] == [0, 0, 21, 21, 7, 1, 1]
    assert told(20, 21) == 0 and told(6, 21) == 7 and told(6, 7) == 0 and told(-3, 1) == 0
    # One that lives for six days is renewed in time all the same.
    assert told(4, life=6) == 0 and told(1.2, life=6) == 7


def test_one_that_lives_shortly_does_not_end_soon_all_its_life() -> None:
    def told(left: float, life: float) -> float:
        return model.days_to_tell(0.0, life * DAY, (life - left) * DAY)

    assert told(20, 90) == 20 and told(364, 365) == 364 and told(-1, 90) == -1
    assert told(5.9, 6) > 80 and told(1.6, 6) > 21 and told(1.4, 6) < 21 and told(-1, 6) < 0


def test_back_off() -> None:
    assert [model.delay(each) for each in (1, 2, 3)] == [300, 600, 1200]
    assert model.delay(100) == DAY


def test_everything_wrong_with_an_authority_at_once() -> None:
    wrong = Authority("No Name", "http://x", email="x", eab_kid="k", challenge="tls", certificates="none", port=8080)
    fields = {each.field for each in wrong.check()}
    assert fields == {"name", "directory", "email", "eab_key", "challenge", "certificates", "port"}
    assert PUBLIC.check() == () and PRIVATE.check() == ()
