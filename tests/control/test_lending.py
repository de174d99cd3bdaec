"""Ports and directories of the machine for sites: who may have them, which, and what becomes of them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from controlkit import ROOT, Control, make_settings

from alveole import requests as ask
from alveole.errors import Denied, InvalidInput, Refused
from alveole.model.lent import Published, Transport
from alveole.model.resource import Kind, WorkloadSpec
from alveole.people.model import Actor, Role
from alveole.requests.parts import PublishBody, ShareBody
from alveole.services import lending
from alveole.testing import FakeAgent

OPERATOR = Actor("olga", Role.OPERATOR, "token:t")
WEB = PublishBody(host=20080, port=80)
PHOTOS = ShareBody(source="/srv/share/photos", path="/photos")


@pytest.fixture
def control(directory: Path) -> Iterator[Control]:
    settings = make_settings(directory, sites={"ports": "20000-20100", "shared": ["/srv/share"]})
    made = Control(settings, FakeAgent())
    yield made
    made.services.close()
    assert not made.agent.violations


def wanted(control: Control, **more: Any) -> ask.CreateSite:
    return ask.CreateSite(name="app", command=("serve",), port=8000, **more)


def spec_of(control: Control, site: str, kind: Kind) -> Any:
    return next(thing.spec for id, thing in control.agent.things.items() if id.scope == site and id.kind is kind)


def test_a_site_has_its_ports_as_long_as_it_is_there_and_uses_them_while_it_runs(control: Control) -> None:
    site = control.app(published=(WEB, PublishBody(host=20053, port=53, protocol="udp")))
    ports = (Published(20053, 53, Transport.UDP), Published(20080, 80))
    assert site.published == ports
    assert spec_of(control, site.id, Kind.ADDRESS).ports == ports
    control.done(control.services.stop_site(ROOT, "app"))
    assert "address/ipv4" not in control.agent.of(site.id)
    with pytest.raises(Refused, match="leads to site app already"):
        control.services.create_site(ROOT, ask.CreateSite(name="other", command=("x",), published=(WEB,)))
    # The other protocol of the same number is another port.
    control.app("other", published=(PublishBody(host=20080, port=80, protocol="udp"),))
    control.done(control.services.destroy_site(ROOT, "app", ask.DestroySite(confirm="app")))
    control.app("third", published=(WEB,))


def test_ports_change_without_starting_anything_anew_and_directories_beside_the_old_instance(control: Control) -> None:
    site = control.app(published=(WEB,))
    before = spec_of(control, site.id, Kind.WORKLOAD)
    control.done(control.services.set_site(ROOT, "app", ask.SetSite(published=(PublishBody(host=20081, port=80),))))
    assert spec_of(control, site.id, Kind.ADDRESS).ports == (Published(20081, 80),)
    assert spec_of(control, site.id, Kind.WORKLOAD) == before
    control.done(control.services.set_site(ROOT, "app", ask.SetSite(shared=(PHOTOS,), persistent=False)))
    after = spec_of(control, site.id, Kind.WORKLOAD)
    assert isinstance(after, WorkloadSpec) and after.slot != before.slot
    assert [str(each) for each in after.shared or ()] == ["/srv/share/photos:/photos:ro"]
    assert after.forgets is True
    control.done(control.services.set_site(ROOT, "app", ask.SetSite(published=(), shared=(), persistent=True)))
    again = spec_of(control, site.id, Kind.WORKLOAD)
    assert not again.shared and not again.forgets and not spec_of(control, site.id, Kind.ADDRESS).ports


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"published": (PublishBody(host=80, port=80),)}, "not one of the ports"),
        ({"published": (PublishBody(host=20101, port=80),)}, "not one of the ports"),
        ({"published": (WEB, WEB)}, "twice"),
        ({"published": (PublishBody(host=20001, port=0),)}, "outside 1..65535"),
        ({"published": (PublishBody(host=20001, port=1, protocol="sctp"),)}, "no protocol"),
        ({"published": tuple(PublishBody(host=20001 + each, port=1) for each in range(33))}, "limit is 32"),
        ({"shared": (ShareBody(source="/srv/other", path="/x"),)}, "not below"),
        ({"shared": (ShareBody(source="/srv/share/../other", path="/x"),)}, "not an absolute path"),
        ({"shared": (ShareBody(source="/srv/share//x", path="/x"),)}, "not an absolute path"),
        ({"shared": (ShareBody(source="/srv/share/gone", path="/x"),)}, "is not there"),
        ({"shared": (ShareBody(source="/srv/share", path="/usr/x"),)}, "/usr"),
        ({"shared": (PHOTOS, PHOTOS)}, "twice"),
        ({"shared": (PHOTOS,), "volumes": (ask.VolumeBody(name="data", path="/photos"),)}, "twice"),
    ],
)
def test_what_is_not_lent(control: Control, more: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        control.services.create_site(ROOT, wanted(control, **more))
    with pytest.raises(InvalidInput, match=text):
        control.services.preview_create(ROOT, wanted(control, **more))


def test_a_port_that_something_listens_at_is_refused_and_one_of_our_own_too(control: Control, directory: Path) -> None:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as other:
            other.bind(("127.0.0.1", 0))
            if kind is socket.SOCK_STREAM:
                other.listen()
            transport = Transport.TCP if kind is socket.SOCK_STREAM else Transport.UDP
            assert (transport, other.getsockname()[1]) in lending.listeners()
    with socket.socket() as listener:
        port = next(each for each in range(20000, 20100) if _bound(listener, each))
        listener.listen()
        with pytest.raises(Refused, match="a program of this machine listens"):
            control.services.create_site(ROOT, wanted(control, published=(PublishBody(host=port, port=80),)))
    settings = make_settings(directory / "own", edge={"http_port": 20080})
    assert 20080 in lending.own_ports(settings)


def _bound(listener: socket.socket, port: int) -> bool:
    try:
        listener.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


def test_only_administrators_lend_and_take_back(control: Control) -> None:
    for more in ({"published": (WEB,)}, {"shared": (PHOTOS,)}):
        with pytest.raises(Denied):
            control.services.create_site(OPERATOR, wanted(control, **more))
    control.app(published=(WEB,), shared=(PHOTOS,))
    for change in (ask.SetSite(published=()), ask.SetSite(shared=())):
        with pytest.raises(Denied):
            control.services.set_site(OPERATOR, "app", change)
    # What else is to be set is theirs as before, and leaves what is lent as it is.
    control.done(control.services.set_site(OPERATOR, "app", ask.SetSite(env={"A": "1"})))
    assert control.show("app").published and control.show("app").shared


def test_what_is_lent_stays_here(control: Control) -> None:
    """A copy and a restored site have none of it; the backup of one names none of it."""
    control.app(published=(WEB,), shared=(PHOTOS,))
    made = control.done(control.services.create_backup(ROOT, ask.CreateBackup(site="app")))
    asked = ask.RestoreBackup(name="again")
    control.done(control.services.restore_backup(ROOT, str(made.result["backup"]), asked))
    again = control.show("again")
    assert again.published == () and again.shared == ()
    assert control.show("app").published


def test_a_port_that_leads_to_nobody_is_told(control: Control) -> None:
    """When it is given, at creation and later; the site answers all the same, so the change is no failure."""
    control.agent.unheard.add(WEB.host)
    created = control.done(control.services.create_site(ROOT, wanted(control, published=(WEB,))))
    warned = [each.text for each in created.events if each.level == "warning"]
    assert len(warned) == 1 and "leads to nobody" in warned[0] and created.result["warning"] == warned[0]
    name = control.services.show_site(ROOT, str(created.result["site"])).name
    again = control.done(control.services.set_site(ROOT, name, ask.SetSite(published=(WEB,), env={"A": "1"})))
    assert "leads to nobody" in str(again.result["warning"])
    found = [each for each in control.services.why(ROOT, name).links if each.name.startswith("port")]
    assert len(found) == 1 and not found[0].ok
    control.agent.unheard.clear()
    after = control.done(control.services.set_site(ROOT, name, ask.SetSite(env={"A": "2"})))
    assert "warning" not in after.result
