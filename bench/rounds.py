#!/usr/bin/env python3
from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from report import Row, Session, main


def figure(session: Session) -> list[Row]:
    """CPU of one round over the rules, and of the ledger, with 1,000 sites: control's own code over a fake agent.

    Every site runs, with six promises kept and two checks that pass: as it is at almost every moment. The second figure
    is the round in which a tenth of them turns bad at once, which opens an incident of the platform.
    """
    from alveole.incidents.model import Reading

    with tempfile.TemporaryDirectory(prefix="alveole-bench-", dir="/var/tmp") as place:
        services = _services(place, session.most)
        services.watch.round()
        runs = session.runs(20, 5)
        quiet = [_round(services) for _ in range(runs)]
        bad = [
            Reading(id, "failed", "", "it is broken", 1.0) for id in list(services.store.sites)[: session.most // 10]
        ]
        read = services.readings.read

        def worse(wanted: Any) -> Mapping[str, Sequence[Reading]]:
            return {**read(wanted), "site.state": bad}

        services.readings.read = worse
        turned = _round(services)
        opened = len(services.watch.open)
        services.close()
    middle = sorted(quiet)[runs // 2] * 1000
    return [
        Row(
            f"one round over the rules and the ledger, {session.most:,} sites",
            f"{middle:.0f} ms of CPU",
            bar="< 100 ms of CPU",
            met=middle < 100,
            runs=runs,
            note=f"every 10 s: {middle / 100:.2f} % of a core; {turned * 1000:.0f} ms when a tenth of the sites turns "
            f"bad at once ({opened} incidents)",
            samples={"quiet": quiet, "turned": [turned]},
        )
    ]


def _services(place: str, count: int) -> Any:
    from alveole.config import parse
    from alveole.loop.passes import Look
    from alveole.model.resource import Kind, Observed, Promise, PromiseState, ResourceId
    from alveole.model.site import Base, BaseKind, Run, Site, Wanted
    from alveole.services import Services
    from alveole.services.watching import Known
    from alveole.store import new_id
    from alveole.testing import FakeAgent
    from alveole.views import CheckState

    services = Services.open(parse({"paths": {"state": f"{place}/s", "run": f"{place}/r"}}), FakeAgent(), loop=False)
    services.loop.agent_answers = True
    base = Base(BaseKind.HOST, "host-0123456789abcdef")
    with services.store.write() as transaction:
        for number in range(1, count + 1):
            name = f"site-{number}"
            site = Site(new_id("s"), number, name, Wanted.RUNNING, "small", base, Run())
            transaction.insert_site(site, (f"{name}.localhost",))
    kinds = (Kind.STORAGE, Kind.RELEASE, Kind.WORKLOAD, Kind.ADDRESS, Kind.CERTIFICATE, Kind.ROUTE)
    now = time.time()
    for id in services.store.sites:
        promises = tuple(Promise(ResourceId(kind, id, "0"), PromiseState.KEPT) for kind in kinds)
        found = tuple(Observed(each.id, "", True, detail={"expires": now + 2e7}) for each in promises)
        services.loop.looks[id] = Look(promises, found, (), now)
        for name in ("front", "search"):
            known = Known(new_id("k"), id, name, 60.0, 2)
            services.checks.remember(known)
            services.checks._states[known.id] = CheckState(name=name, ok=True, seconds=0.1, at=now)
    return services


def _round(services: Any) -> float:
    began = _cpu()
    services.watch.round()
    return _cpu() - began


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main("rounds", figure)
