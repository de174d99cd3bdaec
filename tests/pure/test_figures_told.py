"""How ``alveole figures`` says a number: nobody reads a power of ten, and there is no half of a site."""

from __future__ import annotations

import pytest

from alveole.cli.figures import told


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (12_589.0, "ms", "12.6 s"),
        (812.4, "ms", "812 ms"),
        (1.26, "ms", "1.26 ms"),
        (15_934.0, "number", "15934"),
        (5.16, "number", "5"),
        (0.000228, "cores", "0.0002 cores"),
        (1.04, "cores", "1.04 cores"),
        (12_345.0, "/s", "12345/s"),
        (0.0257, "/s", "0.0257/s"),
        (0.0, "/s", "0/s"),
        (332.0, "", "332"),
        (0.9933, "share", "99.33 %"),
        (1024.0, "bytes/s", "1.0 KiB/s"),
    ],
)
def test_numbers(value: float, unit: str, said: str) -> None:
    assert told(value, unit) == said
