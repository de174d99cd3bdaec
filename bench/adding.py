#!/usr/bin/env python3
from __future__ import annotations

import time

from common import Instance, page, until_200
from peers import HandNginx
from report import Row, Session, main, median, ms


def _add(alveole: Instance, runs: int, stem: str) -> list[float]:
    """Seconds from the request to the first 200, ``runs`` times one after the other."""
    found = []
    content = page("one more")
    with alveole.api() as api:
        for number in range(runs):
            name = f"{stem}{number}"
            began = time.perf_counter()
            change = api.create(name, content)
            found.append(until_200(alveole.edge, alveole.host(name)) - began)
            api.wait(change)
            api.destroy(name)
    return found


def _reload(count: int, runs: int) -> list[float]:
    """The same of a hand-written nginx: a block more and a reload until the new name answers."""
    found = []
    with HandNginx(static=None) as behind:
        behind.static = behind.root / "logs"
        (behind.static / "index.html").write_text("behind")
        behind.reload()
        upstream = f"127.0.0.1:{behind.port}"
        with HandNginx([(f"s{number}.localhost", upstream) for number in range(count)]) as nginx:
            for number in range(runs):
                began = time.perf_counter()
                nginx.add(f"new{number}.localhost", upstream)
                nginx.reload()
                found.append(until_200(nginx.address, f"new{number}.localhost") - began)
                time.sleep(0.1)
    return found


def figure(session: Session) -> list[Row]:
    """Adding a site when there are 1,000 beside adding one when there are 10, both running."""
    runs = session.runs(20, 5)
    few = session.many(10)
    _add(few, 2, "warm")
    at_ten = _add(few, runs, "few")
    many = session.many(session.most)
    # What the growth left to do (drained instances, journal) is not the figure.
    time.sleep(3)
    at_most = _add(many, runs, "more")
    ratio = median(at_most) / median(at_ten)
    hand_few, hand_most = _reload(10, 5), _reload(session.most, 5)
    return [
        Row(
            f"adding a site at {session.most:,} against at 10",
            f"{ms(median(at_most))} against {ms(median(at_ten))}",
            f"{ms(median(hand_most))} against {ms(median(hand_few))} (nginx, a block and a reload; the route alone)",
            ratio,
            "≤ 1.5",
            ratio <= 1.5,
            runs,
            f"until the first 200, through the API; at {session.most:,} fastest {ms(min(at_most))}, "
            f"slowest {ms(max(at_most))}; the ratio is ours at {session.most:,} over ours at 10, "
            f"nginx's own is {median(hand_most) / median(hand_few):.1f}",
            {"at_ten": at_ten, "at_most": at_most, "nginx_at_ten": hand_few, "nginx_at_most": hand_most},
        )
    ]


if __name__ == "__main__":
    main("adding", figure)
