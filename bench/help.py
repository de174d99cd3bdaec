#!/usr/bin/env python3
from __future__ import annotations

import sys
import time

from machine import run
from peers import DOCKER
from report import Row, Session, interleave, main, median, ms


def figure(session: Session) -> list[Row]:
    """How long ``alveole --help`` takes, beside ``docker --help`` and an interpreter that does nothing."""

    def timed(*argv: str) -> float:
        began = time.perf_counter()
        run(*argv)
        return time.perf_counter() - began

    seen = interleave(
        session.runs(15, 5),
        {
            "alveole": lambda _: timed(sys.executable, "-m", "alveole", "--help"),
            "docker": lambda _: timed(str(DOCKER), "--help"),
            "python": lambda _: timed(sys.executable, "-c", "pass"),
        },
    )
    mine, docker = median(seen["alveole"]), median(seen["docker"])
    return [
        Row(
            "`alveole --help`",
            ms(mine),
            f"{ms(docker)} (docker --help)",
            mine / docker,
            runs=len(seen["alveole"]),
            note=f"an interpreter that does nothing takes {ms(median(seen['python']))}",
            samples=seen,
        )
    ]


if __name__ == "__main__":
    main("help", figure)
