"""Figures of a site and of the machine, from real cgroups and the real proxy."""

from __future__ import annotations

from typing import Any

from e2ekit import Sites

from instance import Instance
from instancekit import page, until


def rows(alveole: Instance, where: str) -> list[dict[str, Any]]:
    found = alveole.api("GET", f"{where}?span=hour")
    return [dict(zip(found["columns"], row, strict=True)) for row in found["rows"] if row[1] is not None]


def test_what_a_site_serves_is_counted(alveole: Instance, sites: Sites) -> None:
    name = sites.create(page("counted"), stem="counted")
    where = f"/v1/sites/{name}/figures"
    seen: list[dict[str, Any]] = []
    # Lines of the panel are of no site.
    assert alveole.fetch("panel.localhost").status in (200, 303, 308)

    def counted() -> bool:
        for _ in range(5):
            alveole.fetch(name)
            alveole.fetch(name, "/none")
            alveole.fetch(name, family=6)
        seen[:] = [
            row for row in rows(alveole, where) if row["out6"] and row["refused"] and row["p50"] and row["up"] == 1
        ]
        return len(seen) > 0

    until(counted, 90, lambda: str(alveole.api("GET", f"{where}?span=hour")["rows"][-5:]), pause=1.0)
    row = seen[-1]
    assert row["ok"] > 0 and row["failed"] == 0
    assert row["memory"] > 100_000 and row["processes"] >= 1 and row["kept"] == 1
    assert row["in4"] > 0 and row["in6"] > 0 and row["out4"] > row["in4"]
    assert 1 <= row["p50"] <= row["p95"] <= row["p99"]

    def machine() -> bool:
        alveole.fetch(name)
        return any(each["ok"] and each["memory"] > row["memory"] for each in rows(alveole, "/v1/figures"))

    until(machine, 60, pause=1.0)
    printed = alveole.cli("figures", name, "--span", "hour").out
    assert "answers 4xx" in printed and "memory" in printed and "counted" in printed
    until(lambda: "processor" in alveole.cli("figures", "--span", "hour").out, 60, pause=1.0)
    assert alveole.cli("figures", "nobody", status=4).err
