"""What control may rely on, asked of every agent: the fake passes the same tests as the real one.

Another agent is added by a fixture value in ``AGENTS``: a context manager that gives an ``AgentPort``
over an empty machine.
"""

from __future__ import annotations

import io
import os
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from alveole.agent import protocol
from alveole.agent.client import AgentClient
from alveole.config import Settings, load
from alveole.errors import AlveoleError, NotFound, Refused
from alveole.host import paths
from alveole.loop.compile import CURRENT, compile_platform, compile_site
from alveole.loop.plan import BY_HAND, plan
from alveole.model.resource import (
    PLATFORM,
    Action,
    Desired,
    Kind,
    Observed,
    ReleaseSpec,
    ResourceId,
    Step,
    stamp,
)
from alveole.model.site import BUILT_IN_PLANS, Base, ConfigFile, Process, Release, Run, Site, Wanted
from alveole.ports import AgentPort
from alveole.testing import FakeAgent
from instance import Instance

PLANS = {each.name: each.limits for each in BUILT_IN_PLANS}
SITE = "saaaaaaaaaaaa"


@contextmanager
def fake() -> Iterator[tuple[AgentPort, Settings]]:
    agent = FakeAgent()
    yield agent, Settings()
    assert not agent.violations


@contextmanager
def real() -> Iterator[tuple[AgentPort, Settings]]:
    with Instance(alone=True) as alone:
        settings = load(alone.config)
        yield AgentClient(settings.agent_socket), settings
        assert not [each for each in alone.interfaces() if not each.endswith("br")]


Made = Callable[[], AbstractContextManager[tuple[AgentPort, Settings]]]
AGENTS: dict[str, Made] = {"fake": fake, "real": real}


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.root)])
def machine(request: pytest.FixtureRequest) -> Iterator[tuple[AgentPort, Settings]]:
    with AGENTS[request.param]() as made:
        yield made


def archive(files: dict[str, bytes]) -> int:
    """An open descriptor of a tar with ``files``."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    with tempfile.TemporaryFile() as file:
        file.write(buffer.getvalue())
        file.flush()
        return os.dup(file.fileno())


def bring_in(agent: AgentPort, content: bytes, number: int = 1, *, first: bool = False) -> Release:
    fd = archive({"index.html": content})
    try:
        release: Release = agent.call(protocol.ImportRelease(SITE, number, first=first), (fd,))
        return release
    finally:
        os.close(fd)


def look(agent: AgentPort, scope: str) -> dict[ResourceId, Observed]:
    observation = agent.call(protocol.Observe((scope,)))
    assert not observation.unknown
    assert {item.id.scope for item in observation.found} <= {scope}
    return {item.id: item for item in observation.found}


def reach(agent: AgentPort, scope: str, desired: tuple[Desired, ...], seconds: float = 30.0) -> list[Step]:
    """Passes until everything is kept; the steps it took. This is the loop without its threads."""
    taken: list[Step] = []
    deadline = time.monotonic() + seconds
    while True:
        context = look(agent, PLATFORM)
        result = plan(desired, look(agent, scope).values(), now=time.time(), drain_seconds=0.1, context=context)
        if result.kept and not result.steps and not result.waiting:
            return taken
        assert time.monotonic() < deadline, (result.waiting, taken)
        for step in result.steps:
            outcome = agent.call(protocol.Apply(step))
            assert outcome.done, (step, outcome)
            taken.append(step)
        if not result.steps:
            time.sleep(0.05)


def platform(agent: AgentPort, settings: Settings) -> Base:
    base: Base = agent.call(protocol.ResolveBase("host"))
    wanted = compile_platform(settings, (base,))
    reach(agent, PLATFORM, wanted)
    return base


def site_of(base: Base, release: str | None, **more: object) -> Site:
    site = Site(SITE, 1, "blog", Wanted.RUNNING, "small", base, Run(), release=release)
    return msgspec.structs.replace(site, **more)


def wanted(site: Site, settings: Settings) -> tuple[Desired, ...]:
    return compile_site(site, settings, PLANS)


def test_the_platform_is_reached_and_stays(machine: tuple[AgentPort, Settings]) -> None:
    agent, settings = machine
    base = platform(agent, settings)
    assert reach(agent, PLATFORM, compile_platform(settings, (base,))) == [], "the second time there is nothing to do"
    assert agent.call(protocol.ResolveBase("host")) == base


def test_the_first_content_of_a_site_can_be_live_at_once(machine: tuple[AgentPort, Settings]) -> None:
    agent, settings = machine
    base = platform(agent, settings)
    first = bring_in(agent, b"one", first=True)
    current = look(agent, SITE)[ResourceId(Kind.RELEASE, SITE, CURRENT)]
    assert current.ready and current.digest == stamp(ReleaseSpec(SITE, 1, first.digest))
    bring_in(agent, b"two", first=True)
    assert look(agent, SITE)[current.id].digest == current.digest, "what is live stays"
    steps = reach(agent, SITE, wanted(site_of(base, first.digest), settings))
    assert Kind.RELEASE not in {step.id.kind for step in steps}
    reach(agent, SITE, ())
    agent.call(protocol.RemoveSite(SITE, 1))
    assert not look(agent, SITE)


def test_a_static_site_from_nothing_to_nothing(machine: tuple[AgentPort, Settings]) -> None:
    agent, settings = machine
    base = platform(agent, settings)
    release = bring_in(agent, b"one")
    assert bring_in(agent, b"one").digest == release.digest, "the same content has the same digest"
    site = site_of(base, release.digest)
    reach(agent, SITE, wanted(site, settings))
    found = look(agent, SITE)
    route = found[ResourceId(Kind.ROUTE, SITE, f"blog.{settings.domain}")]
    assert route.uses == (ResourceId(Kind.WORKLOAD, SITE, "0"),)
    assert abs(float(route.detail["since"]) - time.time()) < 60
    assert SITE in agent.call(protocol.GetUsage(None))
    with pytest.raises(Refused):
        agent.call(protocol.RemoveSite(SITE, 1))

    second = bring_in(agent, b"two")
    steps = reach(agent, SITE, wanted(msgspec.structs.replace(site, release=second.digest), settings))
    assert [(step.id.kind, step.id.name) for step in steps] == [(Kind.RELEASE, CURRENT)]
    agent.call(protocol.DropRelease(SITE, 1, release.digest))

    stopped = msgspec.structs.replace(site, release=second.digest, wanted=Wanted.STOPPED)
    reach(agent, SITE, wanted(stopped, settings))
    assert SITE not in agent.call(protocol.GetUsage(None))
    assert not [id for id in look(agent, SITE) if id.kind in (Kind.WORKLOAD, Kind.ADDRESS)]

    reach(agent, SITE, ())
    agent.call(protocol.RemoveSite(SITE, 1))
    agent.call(protocol.RemoveSite(SITE, 1))
    assert not look(agent, SITE)


def test_a_release_of_one_site_is_given_to_another(machine: tuple[AgentPort, Settings]) -> None:
    agent, _settings = machine
    other = "sbbbbbbbbbbbb"
    old, new = bring_in(agent, b"one"), bring_in(agent, b"two")
    for _twice in range(2):
        agent.call(protocol.CopyRelease(SITE, 1, new.digest, other, 2))
    found = agent.call(protocol.CompareReleases(SITE, 1, old.digest, new.digest))
    assert (found.added, found.changed, found.removed) == (0, 1, 0)
    assert agent.call(protocol.CompareReleases(SITE, 1, new.digest, new.digest)).changed == 0
    for site, number in ((SITE, 1), (other, 2)):
        agent.call(protocol.RemoveSite(site, number))
    with pytest.raises(NotFound):
        agent.call(protocol.CopyRelease(SITE, 1, new.digest, other, 2))


def test_blue_green(machine: tuple[AgentPort, Settings]) -> None:
    agent, settings = machine
    base = platform(agent, settings)
    server = (
        "import socket,http.server as h\n"
        "class S(h.HTTPServer):\n address_family=socket.AF_INET6\n"
        "S(('::',8000),h.SimpleHTTPRequestHandler).serve_forever()"
    )
    run = Run((Process("web", ("/usr/bin/python3", "-c", server)),), port=8000)
    release = bring_in(agent, b"one")
    site = site_of(base, release.digest, run=run)
    assert agent.call(protocol.ListProcesses(SITE, 0)) == ()
    reach(agent, SITE, wanted(site, settings))
    (web,) = agent.call(protocol.ListProcesses(SITE, 0))
    assert (web.name, web.state, web.wanted, web.restarts) == ("web", "up", True, None) and 0 <= web.seconds < 60
    new = msgspec.structs.replace(site, slot=1, env={"A": "1"})
    steps = reach(agent, SITE, wanted(new, settings))
    order = [(step.action, step.id.kind) for step in steps]
    assert order[0] == (Action.CREATE, Kind.WORKLOAD) and order[-1] == (Action.DELETE, Kind.WORKLOAD)
    assert [id.name for id in look(agent, SITE) if id.kind is Kind.WORKLOAD] == ["1"]
    reach(agent, SITE, ())
    agent.call(protocol.RemoveSite(SITE, 1))


def change_by_hand(agent: AgentPort, settings: Settings, path: str, text: str) -> None:
    if isinstance(agent, FakeAgent):
        agent.change_by_hand(SITE, path, text)
    else:
        (paths.config_files(settings, SITE) / path).write_text(text)


def test_configuration_files(machine: tuple[AgentPort, Settings]) -> None:
    agent, settings = machine
    base = platform(agent, settings)
    server = "import http.server as h;h.HTTPServer(('0.0.0.0',8000),h.SimpleHTTPRequestHandler).serve_forever()"
    run = Run((Process("web", ("/usr/bin/python3", "-c", server)),), port=8000)
    one, two = ConfigFile("app/one.conf", "1", restarts=("web",)), ConfigFile("two.conf", "2", uid=1000, mode=0o600)
    site = site_of(base, bring_in(agent, b"one").digest, run=run, files=(one, two))
    reach(agent, SITE, wanted(site, settings))
    config = ResourceId(Kind.CONFIG, SITE, "config")
    assert config in look(agent, SITE)[ResourceId(Kind.WORKLOAD, SITE, "0")].uses
    (web,) = agent.call(protocol.ListProcesses(SITE, 0))
    assert (web.state, web.restarts, web.ended_at) == ("up", 0, None), "a supervisor counts"
    states = agent.call(protocol.ReadConfig(SITE, 1))
    assert [(state.path, state.changed, state.text) for state in states] == [
        ("app/one.conf", False, None),
        ("two.conf", False, None),
    ]

    newer = msgspec.structs.replace(site, files=(msgspec.structs.replace(one, text="1a"), two))
    steps = reach(agent, SITE, wanted(newer, settings))
    assert [(step.action, step.id) for step in steps] == [(Action.REPLACE, config)]

    change_by_hand(agent, settings, "two.conf", "mine")
    seen = look(agent, SITE)[config]
    assert seen.ready and [defect.code for defect in seen.defects] == [BY_HAND]
    states = {state.path: state.text for state in agent.call(protocol.ReadConfig(SITE, 1)) if state.changed}
    assert states == {"two.conf": "mine"}
    context = look(agent, PLATFORM)
    idle = plan(
        wanted(newer, settings), look(agent, SITE).values(), now=time.time(), drain_seconds=0.1, context=context
    )
    assert not idle.steps and not idle.kept, "it is told and left alone"

    agent.call(protocol.ForgetConfig(SITE, 1, ("two.conf",)))
    reach(agent, SITE, wanted(newer, settings))
    assert not any(state.changed for state in agent.call(protocol.ReadConfig(SITE, 1)))

    change_by_hand(agent, settings, "two.conf", "mine")
    adopted = msgspec.structs.replace(site, files=(newer.files[0], msgspec.structs.replace(two, text="mine")))
    reach(agent, SITE, wanted(adopted, settings))
    assert not look(agent, SITE)[config].defects

    reach(agent, SITE, ())
    agent.call(protocol.RemoveSite(SITE, 1))
    assert agent.call(protocol.ReadConfig(SITE, 1)) == ()
    assert not look(agent, SITE)


def test_steps_may_be_repeated(machine: tuple[AgentPort, Settings]) -> None:
    """A step that was carried out but whose answer was lost is given again (fault 3)."""
    agent, settings = machine
    base = platform(agent, settings)
    release = bring_in(agent, b"one")
    site = site_of(base, release.digest)
    steps = reach(agent, SITE, wanted(site, settings))
    for step in steps:
        assert agent.call(protocol.Apply(step)).done, step
    reach(agent, SITE, wanted(site, settings))
    for step in reach(agent, SITE, ()):
        assert agent.call(protocol.Apply(step)).done, step
    agent.call(protocol.RemoveSite(SITE, 1))


def test_a_step_without_its_specification_is_refused(machine: tuple[AgentPort, Settings]) -> None:
    agent, _settings = machine
    step = Step(ResourceId(Kind.ROUTE, SITE, "x.localhost"), Action.CREATE, "0" * 32)
    try:
        outcome = agent.call(protocol.Apply(step))
    except AlveoleError:
        return
    assert not outcome.done


def test_what_is_gone_may_be_deleted_again(machine: tuple[AgentPort, Settings]) -> None:
    agent, _settings = machine
    for kind, name in ((Kind.ROUTE, "x.localhost"), (Kind.WORKLOAD, "0"), (Kind.ADDRESS, "ipv4")):
        step = Step(ResourceId(kind, SITE, name), Action.DELETE)
        assert agent.call(protocol.Apply(step)).done, kind


def test_facts(machine: tuple[AgentPort, Settings]) -> None:
    agent, _settings = machine
    facts = agent.call(protocol.Facts())
    assert facts.cpus >= 1 and 0 < facts.disk_free_bytes <= facts.disk_bytes
