"""Round-robin archives with the real rrdtool."""

from __future__ import annotations

from pathlib import Path

import pytest

from alveole.errors import NotFound
from alveole.figures.archive import COLUMNS, FILE_BYTES, SPANS, Archives

NOON = 1_700_000_000 // 86_400 * 86_400


def row(value: float | None) -> list[float | None]:
    return [value] * len(COLUMNS)


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    archives = Archives(tmp_path / "figures")
    for n in range(12):
        assert archives.write({"sa": row(float(n)), "machine": row(2.5)}, NOON + 10 * n) == []
    found = archives.read("sa", SPANS["hour"], NOON + 110)
    assert found.step == 10 and found.columns == COLUMNS
    assert [values[0] for values in found.rows if values[0] is not None] == [float(n) for n in range(12)]
    coarse = archives.read("machine", SPANS["day"], NOON + 110)
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
        archives.write({"sa": row(100.0 if n == 30 else 1.0)}, NOON + 10 * n)
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


@pytest.mark.parametrize("name", ["../x", "", "a b", "x\ny", "-v"])
def test_a_name_is_no_path(tmp_path: Path, name: str) -> None:
    archives = Archives(tmp_path)
    with pytest.raises(NotFound):
        archives.write({name: row(1.0)}, NOON)
