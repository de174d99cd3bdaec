"""Golden: each site below compiles to the file of its name in ``golden/``.

``ALVEOLE_GOLDEN=write pytest tests/pure/test_compile.py`` writes them anew; read the difference then.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from alveole.config import Settings
from alveole.loop.compile import compile_platform, compile_site, under_wildcard
from alveole.model.resource import PLATFORM, Desired, Kind
from alveole.model.site import (
    BUILT_IN_PLANS,
    Access,
    Base,
    BaseKind,
    Process,
    Run,
    Site,
    VolumeMount,
    Wanted,
)

GOLDEN = Path(__file__).parent / "golden"
SETTINGS = Settings(domain="example.org")
PLANS = {plan.name: plan.limits for plan in BUILT_IN_PLANS}
HOST = Base(BaseKind.HOST, "host-0123456789abcdef")
DEBIAN = Base(BaseKind.DEBIAN, "debian-0123456789abcdef", ("gunicorn",))
DIGEST = "sha256:" + "ab" * 32

STATIC = Site("saaaaaaaaaaaa", 1, "blog", Wanted.RUNNING, "small", HOST, Run(), release=DIGEST)
APP = Site(
    "sbbbbbbbbbbbb",
    2,
    "app",
    Wanted.RUNNING,
    "medium",
    DEBIAN,
    Run((Process("web", ("gunicorn", "hello:app")),), port=8000),
    release=DIGEST,
    domains=("www.example.com", "shop.example.org"),
    env={"B": "2", "A": "1"},
    volumes=(VolumeMount("data", "/data"),),
    path="/my-app",
    access=Access(allow=("192.0.2.0/24",)),
    https_only=True,
    slot=1,
)
SITES = {
    "static": STATIC,
    "static-stopped": msgspec.structs.replace(STATIC, wanted=Wanted.STOPPED),
    "static-volumes": msgspec.structs.replace(STATIC, volumes=(VolumeMount("data", "/data"),)),
    "app": APP,
    "app-stopped": msgspec.structs.replace(APP, wanted=Wanted.STOPPED),
    "app-restored": msgspec.structs.replace(APP, data_generation=2, incarnation=3),
}


@pytest.mark.parametrize("name", [*SITES, "platform"])
def test_golden(name: str) -> None:
    found = compile_platform(SETTINGS, (DEBIAN, HOST)) if name == "platform" else compile(SITES[name])
    text = msgspec.json.format(msgspec.json.encode(found, order="sorted"), indent=1).decode() + "\n"
    path = GOLDEN / f"{name}.json"
    if os.environ.get("ALVEOLE_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


def compile(site: Site) -> tuple[Desired, ...]:
    return compile_site(site, SETTINGS, PLANS)


def digests(site: Site, kind: Kind) -> dict[str, str]:
    return {item.id.name: item.digest for item in compile(site) if item.id.kind is kind}


def test_same_input_same_output() -> None:
    again = msgspec.structs.replace(APP, env={"A": "1", "B": "2"})
    assert compile(again) == compile(APP)


def test_rename_touches_no_instance() -> None:
    renamed = msgspec.structs.replace(APP, name="other")
    assert digests(renamed, Kind.WORKLOAD) == digests(APP, Kind.WORKLOAD)
    assert digests(renamed, Kind.ROUTE) != digests(APP, Kind.ROUTE)


def test_new_content_touches_a_static_instance_not() -> None:
    updated = msgspec.structs.replace(STATIC, release="sha256:" + "cd" * 32)
    assert digests(updated, Kind.WORKLOAD) == digests(STATIC, Kind.WORKLOAD)
    assert digests(updated, Kind.RELEASE) != digests(STATIC, Kind.RELEASE)


@pytest.mark.parametrize(
    "change",
    [{"plan": "large"}, {"env": {"A": "2"}}, {"incarnation": 1}, {"data_generation": 2}, {"base": HOST}],
    ids=str,
)
def test_what_starts_an_application_anew(change: dict[str, object]) -> None:
    assert digests(msgspec.structs.replace(APP, **change), Kind.WORKLOAD) != digests(APP, Kind.WORKLOAD)


def test_a_stopped_site_keeps_everything_but_its_instance() -> None:
    stopped = {item.id for item in compile(SITES["app-stopped"])}
    gone = {item.id.kind for item in compile(APP) if item.id not in stopped}
    assert gone == {Kind.WORKLOAD, Kind.ADDRESS}


def test_needs_exist() -> None:
    """Whatever a resource needs is compiled too: nothing can wait for ever."""
    everything = {item.id for item in compile_platform(SETTINGS, (DEBIAN, HOST))}
    for site in SITES.values():
        everything |= {item.id for item in compile(site)}
    for site in SITES.values():
        for item in compile(site):
            assert set(item.needs) <= everything


def test_no_privilege_can_be_asked_for() -> None:
    """Threat 3, 30: no specification has a field for privilege, a host path or a host namespace."""
    words = {"privileged", "capabilities", "host_path", "source", "namespace", "devices", "mounts", "uid"}
    for site in SITES.values():
        for item in compile(site):
            assert not words & {field.name for field in msgspec.structs.fields(item.spec)}


def test_wildcard_covers_one_label() -> None:
    assert under_wildcard("a.example.org", SETTINGS)
    assert not under_wildcard("a.b.example.org", SETTINGS)
    assert not under_wildcard("example.org", SETTINGS)
    assert not under_wildcard("aexample.org", SETTINGS)


def test_platform_has_each_base_once() -> None:
    items = compile_platform(SETTINGS, (HOST, DEBIAN, HOST))
    assert [item.id.name for item in items if item.id.kind is Kind.BASE] == [DEBIAN.key, HOST.key]
    assert {item.id.scope for item in items} == {PLATFORM}
