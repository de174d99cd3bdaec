"""Traffic of the day from logs as the edge writes them: read on, over midnight and rotations."""

from __future__ import annotations

import json
import time
from pathlib import Path

from alveole.figures.load import Loads, machine_load
from alveole.figures.traffic import Counted, Traffic

NOON = time.mktime((2026, 11, 21, 12, 0, 0, 0, 0, -1))


def line(at: float, size: int, agent: str = "x") -> str:
    document = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(at)), "client": "192.0.2.1"}
    document |= {"uri": '/?a="bytes":"7"', "status": "200", "bytes": str(size), "agent": agent}
    return json.dumps(document, separators=(",", ":")) + "\n"


def test_only_of_today_and_only_once(tmp_path: Path) -> None:
    log = tmp_path / "s1" / "access.log"
    log.parent.mkdir()
    now = [NOON]
    traffic = Traffic(tmp_path, lambda: now[0])
    assert traffic.look(["s1", "none"], 1) == {"s1": Counted(), "none": Counted()}
    # Long enough for the bisection to have something to do.
    old = "".join(line(NOON - 86_400 + number, 1000, "y" * 100) for number in range(2000))
    log.write_text(old + line(NOON, 10) + line(NOON, 20) + '{"time":"cut')
    assert Traffic(tmp_path, lambda: now[0]).look(["s1"], 1) == {"s1": Counted(2, 30)}
    assert traffic.look(["s1"], 1)["s1"] == Counted(2, 30)
    with log.open("r+") as file:
        file.truncate(len(old) + 2 * len(line(NOON, 10)))
        file.seek(0, 2)
        file.write(line(NOON, 5))
    assert traffic.look(["s1"], 1)["s1"] == Counted(3, 35)
    # The edge renames the log when it is long; what was written into the old one meanwhile counts.
    with log.open("a") as file:
        file.write(line(NOON, 1))
    log.rename(tmp_path / "s1" / "access.log.1")
    log.write_text(line(NOON, 2))
    assert traffic.look(["s1"], 1)["s1"] == Counted(5, 38)
    assert Traffic(tmp_path, lambda: now[0]).look(["s1"], 1) == {"s1": Counted(5, 38)}
    now[0] += 86_400
    with log.open("a") as file:
        file.write(line(now[0], 100))
    assert traffic.look(["s1"], 1)["s1"] == Counted(1, 100)
    traffic.forget([])
    assert traffic.look(["s1"], 1)["s1"] == Counted(1, 100)


def test_a_look_has_an_end(tmp_path: Path) -> None:
    """A log that is long is read in pieces, one look after the other."""
    log = tmp_path / "s1" / "access.log"
    log.parent.mkdir()
    log.write_text(line(NOON, 1) * 30_000)
    traffic = Traffic(tmp_path, lambda: NOON)
    assert traffic.look(["s1"], 0)["s1"] == Counted()
    looks = 0
    while (found := traffic.look(["s1"], 0.001)["s1"]).requests < 30_000:
        looks += 1
        assert looks < 1000
    assert found == Counted(30_000, 30_000)


def test_load_is_what_was_used_between_two_looks(tmp_path: Path) -> None:
    now = [0.0]
    loads = Loads(lambda: now[0])
    assert loads.saw("a", 100.0) == 0.0
    now[0] = 4.0
    assert loads.saw("a", 102.0) == 0.5
    now[0] = 4.1
    assert loads.saw("a", 102.1) == 0.5, "too soon to say something new"
    now[0] = 6.0
    assert loads.saw("a", 1.0) == 0.0, "it started anew"
    found = machine_load(Loads())
    assert found is not None and 0 < found.memory_used_bytes < found.memory_bytes and found.cpu >= 0
    assert machine_load(Loads(), tmp_path) is None
