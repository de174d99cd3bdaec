"""Round-robin archives with the real rrdtool."""

from __future__ import annotations

from pathlib import Path

import pytest

from alveole.errors import NotFound
from alveole.figures.archive import (
    COLUMNS,
    FILE_BYTES,
    INTERFACE_COLUMNS,
    MACHINE,
    MACHINE_COLUMNS,
    ROUNDS,
    SPANS,
    Archives,
    Table,
    columns_of,
    thinned,
)

NOON = 1_700_000_000 // 86_400 * 86_400


def row(value: float | None) -> list[float | None]:
    return [value] * len(COLUMNS)


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    archives = Archives(tmp_path / "figures")
    for n in range(12):
        assert archives.write({"sa": row(float(n)), "sm": row(2.5)}, NOON + 10 * n) == []
    found = archives.read("sa", SPANS["hour"], NOON + 110)
    assert found.step == 10 and found.columns == COLUMNS
    assert [values[0] for values in found.rows if values[0] is not None] == [float(n) for n in range(12)]
    coarse = archives.read("sm", SPANS["day"], NOON + 110)
    assert coarse.step == 60 and 2.5 in [values[3] for values in coarse.rows]
    assert len(coarse.rows) <= 1500


def test_what_is_not_known_stays_so(tmp_path: Path) -> None:
    archives = Archives(tmp_path / "figures")
    archives.write({"sa": row(1.0)}, NOON)
    archives.write({"sa": row(None)}, NOON + 10)
    archives.write({"sa": row(float("nan"))}, NOON + 20)
    archives.write({"sa": row(3.0)}, NOON + 30)
    found = archives.read("sa", SPANS["hour"], NOON + 30)
    assert [values[0] for values in found.rows if values[0] is not None] == [1.0, 3.0]


def test_peaks_are_kept_beside_averages(tmp_path: Path) -> None:
    archives = Archives(tmp_path / "figures")
    for n in range(121):
        archives.keep({"sa": row(100.0 if n == 30 else 1.0)}, NOON + 10 * n)
    peaks = archives.read("sa", SPANS["day"], NOON + 1200, peaks=True)
    means = archives.read("sa", SPANS["week"], NOON + 1200)
    assert max(values[0] or 0 for values in peaks.rows) == 100.0
    assert max(values[0] or 0 for values in means.rows) < 10.0


def test_a_clock_that_goes_back_is_told_and_does_no_harm(tmp_path: Path) -> None:
    archives = Archives(tmp_path / "figures")
    archives.write({"sa": row(1.0), "sb": row(1.0)}, NOON + 100)
    problems = archives.write({"sa": row(2.0)}, NOON)
    assert problems and "illegal attempt" in problems[0]
    assert archives.write({"sa": row(3.0)}, NOON + 110) == []


def test_a_file_has_its_size_from_the_start(tmp_path: Path) -> None:
    archives = Archives(tmp_path / "figures")
    archives.write({"sa": row(1.0)}, NOON)
    size = (tmp_path / "figures" / "sa.rrd").stat().st_size
    assert FILE_BYTES < size < FILE_BYTES * 1.1
    # The bar: a thousand sites under 2 GB.
    assert size * 1000 < 2_000_000_000
    archives.remove(["sa", "sb"])
    assert archives.names() == set()
    assert archives.read("sa", 3600, NOON).rows == ()


@pytest.mark.parametrize("name", ["../x", "", "a b", "x\ny", "-v", "if-", "if-../x", "if-a:b"])
def test_a_name_is_no_path(tmp_path: Path, name: str) -> None:
    archives = Archives(tmp_path)
    with pytest.raises(NotFound):
        archives.write({name: row(1.0)}, NOON)


def test_rounds_wait_and_are_there_for_who_looks(tmp_path: Path) -> None:
    archives = Archives(tmp_path / "figures")
    for n in range(ROUNDS - 1):
        assert archives.keep({"sa": row(float(n)), "sb": row(1.0)}, NOON + 10 * n) == []
    assert archives.names() == set(), "nothing is written yet"
    found = archives.read("sa", SPANS["hour"], NOON + 100)
    assert [values[0] for values in found.rows if values[0] is not None] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert archives.names() == {"sa"}, "only what was asked for"
    archives.keep({"sa": row(9.0), "sb": row(9.0)}, NOON + 10 * (ROUNDS - 1))
    assert archives.names() == {"sa", "sb"}, "a minute is full"
    archives.keep({"sa": row(1.0)}, NOON + 100)
    archives.remove(["sa"])
    archives.flush()
    assert archives.names() == {"sb"}


def test_the_machine_and_its_interfaces_have_columns_of_their_own(tmp_path: Path) -> None:
    archives = Archives(tmp_path / "figures")
    for n in range(3):
        rows = {name: [float(n)] * len(columns_of(name)) for name in (MACHINE, "if-eth0.5", "sa")}
        assert archives.write(rows, NOON + 10 * n) == []
    assert archives.read(MACHINE, 3600, NOON + 20).columns == MACHINE_COLUMNS
    found = archives.several(["if-eth0.5", "sa", "sb"], NOON - 600, NOON + 20, 10)
    assert found["if-eth0.5"].columns == INTERFACE_COLUMNS and found["if-eth0.5"].rows[-1] == (2.0,) * 5
    assert found["sb"].rows == () and len(found["sa"].rows) == 62


def test_thinned_keeps_what_is_known(tmp_path: Path) -> None:
    table = Table(10, 10, ("a",), tuple((None if n % 4 else float(n),) for n in range(16)))
    mean = thinned(table, 4)
    assert mean.rows == ((0.0,), (4.0,), (8.0,), (12.0,)) and (mean.start, mean.step) == (40, 40)
    assert thinned(Table(0, 10, ("a",), ((1.0,), (3.0,))), 1, peaks=True).rows == ((3.0,),)
    assert thinned(Table(0, 10, ("a",), ((None,), (None,))), 1).rows == ((None,),)
    assert thinned(table, 100) is table
