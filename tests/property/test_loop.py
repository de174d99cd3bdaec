"""A model of the machine under the loop: steps fail, things drift, wishes change, looks fail.

Whatever happens, nothing in use is ever deleted, no route ever opens to what is not ready, nothing is
planned for what could not be looked at; and once it stops happening, the world becomes as wanted.
"""

from __future__ import annotations

import random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from alveole.config import Settings
from alveole.loop.compile import compile_platform, compile_site
from alveole.loop.plan import Plan, all_kept, plan
from alveole.model.resource import Action, Defect, Desired, Kind, Observed, ResourceId, RouteSpec, RouteTarget, Step
from alveole.model.site import BUILT_IN_PLANS, Base, BaseKind, Process, Run, Site, VolumeMount, Wanted
from alveole.testing import Thing, _uses

SETTINGS = Settings(domain="example.org")
PLANS = {each.name: each.limits for each in BUILT_IN_PLANS}
HOST = Base(BaseKind.HOST, "host-0123456789abcdef")
PLATFORM = {item.id: Observed(item.id, item.digest, True) for item in compile_platform(SETTINGS, (HOST,))}
DRAIN = 5.0
START = Site("saaaaaaaaaaaa", 1, "app", Wanted.RUNNING, "small", HOST, Run((Process("web", ("serve",)),)), path="/app")


class World:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311  a model, no secret
        self.things: dict[ResourceId, Thing] = {}
        self.site = START
        self.now = 1000.0
        self.destroyed = False

    # --- the wish -----------------------------------------------------------------------------
    def desired(self) -> tuple[Desired, ...]:
        return () if self.destroyed else compile_site(self.site, SETTINGS, PLANS)

    def wish(self) -> None:
        site, pick = self.site, self.random
        change = pick.choice(("flip", "restart", "stop", "start", "rename", "plan", "restore", "static", "volume"))
        new: dict[str, object] = {
            "flip": {"slot": 1 - site.slot, "release": f"sha256:{pick.randrange(1 << 60):064x}"},
            "restart": {"incarnation": site.incarnation + 1},
            "stop": {"wanted": Wanted.STOPPED},
            "start": {"wanted": Wanted.RUNNING},
            "rename": {"name": f"app{pick.randrange(4)}"},
            "plan": {"plan": pick.choice(("small", "large"))},
            "restore": {"data_generation": site.data_generation + 1, "slot": 1 - site.slot},
            "static": {"run": Run(), "release": "sha256:" + "ab" * 32, "slot": 1 - site.slot},
            "volume": {"volumes": (VolumeMount("data", "/data"),), "slot": 1 - site.slot},
        }[change]
        self.site = msgspec.structs.replace(site, version=site.version + 1, **new)

    # --- the machine --------------------------------------------------------------------------
    def look(self) -> list[Observed]:
        return [
            Observed(id, thing.digest, thing.ready, thing.defects, _uses(thing.spec), {"since": thing.since})
            for id, thing in self.things.items()
        ]

    def drift(self) -> None:
        if not self.things:
            return
        id = self.random.choice(sorted(self.things))
        # Storage and content do not vanish by themselves; all else may.
        if self.random.random() < 0.5 and id.kind not in (Kind.STORAGE, Kind.RELEASE):
            del self.things[id]
        else:
            self.things[id].defects = (Defect("changed", "somebody was here"),)
            self.things[id].ready = False

    def do(self, result: Plan, failing: float) -> None:
        # As planned for: a route that this very turn makes anew never led to the old instance.
        leading = [t.since for id, t in self.things.items() if id.kind is Kind.ROUTE and _uses(t.spec)]
        for step in result.steps:
            if step.action is Action.DELETE and step.id.kind is Kind.WORKLOAD:
                assert all(self.now - since >= DRAIN for since in leading), "deleted without a drain"
        for step in result.steps:
            self.check(step)
            if self.random.random() < failing:
                continue
            if step.action is Action.DELETE:
                del self.things[step.id]
            else:
                assert step.spec is not None
                ready = step.id.kind is not Kind.WORKLOAD or self.random.random() < 0.7
                self.things[step.id] = Thing(step.digest, step.spec, ready, (), self.now)

    def check(self, step: Step) -> None:
        if step.action is Action.DELETE:
            users = [id for id, thing in self.things.items() if step.id in _uses(thing.spec)]
            assert not users, f"{step.id} deleted while {users} used it"
            return
        if isinstance(step.spec, RouteSpec) and step.spec.target is RouteTarget.WORKLOAD:
            target = self.things.get(ResourceId(Kind.WORKLOAD, step.id.scope, str(step.spec.slot)))
            assert target is not None and target.ready and not target.defects, "route opened to what is not ready"

    def age(self) -> None:
        self.now += self.random.random() * 3
        for thing in self.things.values():
            if not thing.defects and self.random.random() < 0.6:
                thing.ready = True

    def turn(self, failing: float, unknown: dict[Kind, str]) -> Plan:
        found = [item for item in self.look() if item.id.kind not in unknown]
        result = plan(self.desired(), found, now=self.now, drain_seconds=DRAIN, unknown=unknown, context=PLATFORM)
        assert not {step.id.kind for step in result.steps} & unknown.keys()
        self.do(result, failing)
        self.age()
        return result


@settings(max_examples=1500, deadline=None)
@given(seed=st.integers(0, 1 << 40), rounds=st.integers(1, 25))
def test_always_converges(seed: int, rounds: int) -> None:
    world = World(seed)
    for _round in range(rounds):
        if world.random.random() < 0.3:
            world.wish()
        if world.random.random() < 0.4:
            world.drift()
        unknown = {world.random.choice(list(Kind)): "made so"} if world.random.random() < 0.2 else {}
        world.turn(0.25, unknown)
    world.destroyed = world.random.random() < 0.2
    for _round in range(60):
        if not world.turn(0.0, {}).steps and all_kept(world.desired(), world.look()):
            break
    assert {id: thing.digest for id, thing in world.things.items()} == {
        item.id: item.digest for item in world.desired()
    }


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 1 << 40))
def test_the_order_of_what_is_found_does_not_matter(seed: int) -> None:
    world = World(seed)
    for _round in range(world.random.randrange(6)):
        world.wish()
        world.turn(0.3, {})
    found = world.look()
    shuffled = found[:]
    world.random.shuffle(shuffled)
    options = {"now": world.now, "drain_seconds": DRAIN, "context": PLATFORM}
    assert plan(world.desired(), found, **options) == plan(reversed(world.desired()), shuffled, **options)
