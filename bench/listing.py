#!/usr/bin/env python3
from __future__ import annotations

import json
import sys
import time

from machine import BenchError, run
from report import Row, Session, interleave, main, median, ms


def figure(session: Session) -> list[Row]:
    """``alveole site list --json`` with 1,000 sites, beside an interpreter that does nothing."""
    alveole = session.many(session.most)

    def command(_number: int) -> float:
        began = time.perf_counter()
        done = alveole.cli("site", "list", "--json")
        seconds = time.perf_counter() - began
        listed = len(json.loads(done.stdout))
        if listed < session.most:
            raise BenchError(f"the list has {listed} sites of {session.most}")
        return seconds

    def api(_number: int) -> float:
        with alveole.api() as client:
            began = time.perf_counter()
            client.call("GET", "/v1/sites")
            return time.perf_counter() - began

    def nothing(_number: int) -> float:
        began = time.perf_counter()
        run(sys.executable, "-c", "pass")
        return time.perf_counter() - began

    command(0)
    seen = interleave(session.runs(15, 5), {"command": command, "api": api, "python": nothing})
    mine = median(seen["command"])
    return [
        Row(
            f"`alveole site list --json`, {session.most:,} sites",
            ms(mine),
            f"{ms(median(seen['python']))} (python -c pass)",
            mine / median(seen["python"]),
            "≤ 200 ms",
            mine <= 0.2,
            len(seen["command"]),
            f"of which the API {ms(median(seen['api']))}; slowest {ms(max(seen['command']))}",
            seen,
        )
    ]


if __name__ == "__main__":
    main("listing", figure)
