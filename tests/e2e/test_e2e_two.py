"""Two instances side by side on one machine, and the addresses that the issue names."""

from __future__ import annotations

from instance import Instance
from instancekit import page, until
from loadkit import Load


def test_two_instances_side_by_side() -> None:
    """Same site names, no clash; stopping one for good leaves the other alone. The first site is .1.1."""
    with Instance() as one:
        with Instance() as two:
            for number, each in enumerate((one, two)):
                made = each.cli(
                    "site", "create", "blog", "--command", "x", "--port", "8000", "--dry-run", "--json"
                ).json
                assert made["site"]["ipv4"] == f"10.{each.octet}.1.1"
                each.create("blog", page(f"of {number}"))
                each.create("second", page("second"))
                assert each.site("blog")["ipv4"] == f"10.{each.octet}.1.1"
                assert each.site("second")["ipv4"] == f"10.{each.octet}.1.2"
            assert "of 0" in one.fetch("blog").body and "of 1" in two.fetch("blog").body
            with Load(one, "blog", threads=2) as load:
                for name in ("blog", "second"):
                    two.destroy(name)
                two.stop()
                two.cut()
            load.check()
            assert "of 0" in one.fetch("blog", https=True, family=6).body
        one.until_kept()
        one.destroy("blog")
        one.create("third", page("third"))
        assert one.site("third")["ipv4"] == f"10.{one.octet}.1.1", "a number that is free is given again"
        until(lambda: one.answers("third", "third"), 30)
