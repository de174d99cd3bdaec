#!/usr/bin/env python3
from __future__ import annotations

import time

from machine import BenchError, cpu_seconds
from report import Row, Session, main


def figure(session: Session) -> list[Row]:
    """CPU of one pass over 1,000 kept sites: agent and control together, nothing else going on.

    The drift timer looks at everything every ten seconds; the CPU of a whole number of such periods is
    divided by their number, so what the processes do between two passes is counted too.
    """
    alveole = session.many(session.most)
    with alveole.api() as api:
        broken = [
            f"{site['name']}: {site['problem'] or site['state']}"
            for site in api.call("GET", "/v1/sites")
            if site["state"] != "running"
        ]
    if broken:
        raise BenchError(f"{len(broken)} sites are not kept: {broken[:3]}")
    time.sleep(5)
    periods, drift = session.runs(4, 2), 10.0
    roles = {"agent": alveole.role_pids("agent"), "control": alveole.role_pids("control")}
    before = {role: cpu_seconds(found) for role, found in roles.items()}
    time.sleep(periods * drift)
    each = {role: (cpu_seconds(found) - before[role]) / periods for role, found in roles.items()}
    total = sum(each.values())
    return [
        Row(
            f"one pass over {session.most:,} kept sites",
            f"{total:.2f} s of CPU",
            bar="< 1 s of CPU",
            met=total < 1.0,
            runs=periods,
            note=f"agent {each['agent']:.2f} s, control {each['control']:.2f} s; that is "
            f"{total / drift * 100:.1f} % of a core at rest",
            samples={role: [seconds] for role, seconds in each.items()},
        )
    ]


if __name__ == "__main__":
    main("onepass", figure)
