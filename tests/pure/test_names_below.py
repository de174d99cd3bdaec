"""Names right below one (``*.example.org``): who may have them, what is published, proven and ordered for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from alveole.config import Settings, parse
from alveole.dns.zone import DnsSettings, followed, wanted
from alveole.errors import AlveoleError
from alveole.export import ExportedSite, export
from alveole.issuing import model, suffixes
from alveole.issuing.model import AcmeSettings, Authority, Zone
from alveole.loop.compile import compile_site
from alveole.model.names import check_domain
from alveole.model.resource import CertificateSpec, Kind, RouteSpec
from alveole.model.site import Access, Base, BaseKind, Limits, Run, Site, Wanted
from alveole.people.model import Actor, Role
from alveole.services.draft import Draft
from alveole.services.show import urls
from alveole.store import claims

SETTINGS: Settings = parse({"domain": "alv.fr"})
SITE = Site(
    "saaaaaaaaaaab",
    1,
    "shop",
    Wanted.RUNNING,
    "small",
    Base(BaseKind.HOST, f"host-{'0' * 16}"),
    Run(),
    domains=("*.shop.alv.fr", "*.custom.fr"),
)


@pytest.fixture(autouse=True)
def _a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A list of a few rules, in the format of the one of Debian's package."""
    place = tmp_path / "list"
    rules = "// a comment\n===BEGIN ICANN DOMAINS===\nfr\ncom\nuk\nco.uk\n*.ck\n!www.ck\n公司.cn\n"
    place.write_text(rules + "===END ICANN DOMAINS===\ngithub.io\n===END PRIVATE DOMAINS===\n")
    monkeypatch.setattr(suffixes, "LIST", place)
    suffixes._suffix_labels.cache_clear()
    yield
    suffixes._suffix_labels.cache_clear()


def drafted(*domains: str, name: str = "shop", taken: str = "") -> dict[str, str]:
    """What is wrong, by field."""
    draft = Draft(SETTINGS, lambda each: "sother" if each == taken else None, "sown")
    draft.domains(domains, name)
    return {each.field: each.message for each in draft.problems}


def test_what_may_be_had() -> None:
    assert drafted("*.shop.alv.fr", "*.custom.fr", "*.a.custom.fr", "custom.fr") == {}
    assert drafted("alias.alv.fr", "*.alias.alv.fr") == {}
    assert "taken by another" in drafted("*.custom.fr", taken="*.custom.fr")["domains"]


@pytest.mark.parametrize(
    ("domain", "said"),
    [
        ("*.alv.fr", "the names of all sites"),
        ("*.blog.alv.fr", "not a name of this site"),
        ("*.a.shop.alv.fr", "not a name of this site"),
        ("*.fr", "no dot"),
        ("*.co.uk", "nobody has all"),
        ("*.*.custom.fr", "not a domain name"),
        ("a.*.custom.fr", "not a domain name"),
        ("*", "not a domain name"),
        ("*custom.fr", "not a domain name"),
        ("*.127.0.0.1", "an address"),
        ("*.../custom.fr", "not a domain name"),
    ],
)
def test_what_may_not(domain: str, said: str) -> None:
    """Threat 27: nobody takes the names of other sites, of the pages, or of everybody by a star."""
    assert said in drafted(domain)["domains"]


def test_an_owner_needs_nobodys_word_for_the_names_below_the_own_one() -> None:
    ana = Actor("ana", Role.OWNER, "page", person="p1")
    draft = Draft(SETTINGS, lambda _name: None, "sown")
    draft.claim(ana, draft.domains(("*.shop.alv.fr", "*.custom.fr"), "shop"), None)
    assert [each.message for each in draft.problems] == ["*.custom.fr is not yours to take"]


def test_modules_are_asked_for_names_in_full() -> None:
    assert check_domain("*.custom.fr") and not check_domain("*.custom.fr", wildcard=True)


def test_it_is_proven_where_its_zone_is() -> None:
    claim = claims.new("s", "*.custom.fr", "p", 0.0, 60.0)
    assert claim.record == "_alveole-challenge.custom.fr"


def test_each_has_a_route_a_certificate_and_records_and_no_link() -> None:
    found = compile_site(SITE, SETTINGS, {"small": Limits(100, 64 << 20, 64)})
    routes = {each.id.name: each for each in found if each.id.kind is Kind.ROUTE}
    assert routes.keys() == {"shop.alv.fr", "*.shop.alv.fr", "*.custom.fr"}
    certificates = [each.spec for each in found if each.id.kind is Kind.CERTIFICATE]
    assert CertificateSpec("*.shop.alv.fr", wildcard=False) in certificates
    spec = routes["*.custom.fr"].spec
    assert isinstance(spec, RouteSpec) and spec.domain == "*.custom.fr"
    here = wanted(DnsSettings(addresses=("192.0.2.1",)), SETTINGS, [SITE])
    assert here["*.shop.alv.fr"].records == {"A": ("192.0.2.1",)} and "*.custom.fr" not in here
    assert not any("*" in each for each in urls(SITE, SETTINGS))


def test_an_exported_proxy_knows_them() -> None:
    sites = [ExportedSite("shop", ("shop.alv.fr", "*.shop.alv.fr"), None, False, Access())]
    assert "server_name shop.alv.fr *.shop.alv.fr;" in export("nginx", sites, "http://127.0.0.1:8080", domain="alv.fr")
    assert "*.shop.alv.fr" in export("apache", sites, "http://127.0.0.1:8080", domain="alv.fr")


def test_its_certificate_is_one_order_by_dns() -> None:
    authority = Authority("public", "https://ca.example.com/dir")
    settings = AcmeSettings((authority,), zones=(Zone("alv.fr", "192.0.2.53"),))
    found = model.wanted("alv.fr", "", [("s1", ("shop.alv.fr", "*.shop.alv.fr", "*.custom.fr"))], settings)
    assert [each.names for each in found] == [("alv.fr", "*.alv.fr"), ("*.shop.alv.fr",), ("*.custom.fr",)]
    assert model.challenge_of(authority, "*.shop.alv.fr", ("*.shop.alv.fr",), settings) == "dns-01"
    assert model.challenge_of(authority, "*.custom.fr", ("*.custom.fr",), settings) == ""


# --- public suffixes ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("a.b.co.uk", "b.co.uk"),
        ("*.b.co.uk", "b.co.uk"),
        ("co.uk", "co.uk"),
        ("www.ck", "www.ck"),
        ("a.www.ck", "www.ck"),
        ("a.b.c.ck", "b.c.ck"),
        ("ana.github.io", "ana.github.io"),
        ("x.ana.github.io", "ana.github.io"),
        ("a.xn--55qx5d.cn", "a.xn--55qx5d.cn"),
        ("a.b.unknown", "b.unknown"),
        ("localhost", "localhost"),
        ("xn--.fr", "xn--.fr"),
    ],
)
def test_the_registered_domain(name: str, domain: str) -> None:
    assert suffixes.registered(name) == domain


def test_without_a_list_it_is_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suffixes, "LIST", Path("/nonexistent"))
    assert suffixes.registered("a.b.co.uk") == "b.co.uk" and suffixes.registered("x.ana.github.io") == "github.io"
    assert suffixes.is_suffix("co.uk") and not suffixes.is_suffix("custom.fr")


def test_what_a_registry_has_and_what_a_company_gives() -> None:
    assert suffixes.is_suffix("co.uk") and suffixes.is_suffix("x.ck")
    assert not suffixes.is_suffix("github.io") and not suffixes.is_suffix("www.ck")


@pytest.mark.skipif(not Path("/usr/share/publicsuffix/public_suffix_list.dat").exists(), reason="needs publicsuffix")
def test_the_list_of_debian(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suffixes, "LIST", Path("/usr/share/publicsuffix/public_suffix_list.dat"))
    assert suffixes.registered("www.shop.com.au") == "shop.com.au"
    assert suffixes.registered("x.ana.github.io") == "ana.github.io"
    assert suffixes.registered("a.city.kawasaki.jp") == "city.kawasaki.jp"


# --- addresses that change ---------------------------------------------------------------------------------
def test_addresses_are_followed() -> None:
    gone: dict[str, float] = {}
    assert followed(("192.0.2.1",), ("192.0.2.9",), gone, 0.0, 60.0) == ("192.0.2.9",)
    both = ("192.0.2.1", "2001:db8::1")
    assert followed(both, ("192.0.2.1", "2001:db8:1::1"), gone, 0.0, 60.0) == ("192.0.2.1", "2001:db8:1::1")
    assert gone == {}


def test_an_interface_that_is_down_for_a_moment_empties_nothing() -> None:
    both, gone = ("192.0.2.1", "2001:db8::1"), dict[str, float]()
    assert followed(both, (), gone, 0.0, 60.0) == both and gone == {}
    assert followed(both, ("192.0.2.1",), gone, 10.0, 60.0) == both
    assert followed(both, (), gone, 50.0, 60.0) == both
    # It came back: what was counted is forgotten.
    assert followed(both, both, gone, 65.0, 60.0) == both and gone == {}
    assert followed(both, ("192.0.2.1",), gone, 70.0, 60.0) == both
    assert followed(both, ("192.0.2.1",), gone, 131.0, 60.0) == ("192.0.2.1",)


def test_a_certificate_that_must_be_stapled_is_refused() -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from test_certs import pem_of

    from alveole.actuators.certificates import _utc
    from alveole.trust.certs import examine

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "staple.fr")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(_utc(0))
        .not_valid_after(_utc(4_000_000_000))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("staple.fr")]), critical=False)
        .add_extension(x509.TLSFeature([x509.TLSFeatureType.status_request]), critical=False)
        .sign(key, hashes.SHA256())
    )
    from cryptography.hazmat.primitives.serialization import Encoding

    found = examine(made.public_bytes(Encoding.PEM).decode(), pem_of(key), ("staple.fr",))
    assert [each.message for each in found.problems if "must-staple" in each.message]


def test_a_star_reaches_no_other_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong with one is told, and raises nothing else."""
    for domain in ("*.", "*..fr", "*.-a.fr", "*.a..fr", "*." + "a" * 64 + ".fr", "*." + "a." * 126 + "fr", "*.\0.fr"):
        draft = Draft(SETTINGS, lambda _name: None, "sown")
        draft.domains((domain,), "shop")
        with pytest.raises(AlveoleError):
            draft.finish()
