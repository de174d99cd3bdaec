"""Failed sign-ins in the journal: told, and never so many that they hide the rest (threat 25)."""

from __future__ import annotations

import time

from doorkit import Door, until
from peoplekit import PASSWORD, Browser, add

from alveole.people.failures import Failures, Told


def test_a_storm_is_a_few_entries() -> None:
    now = [0.0]
    told: list[Told] = []
    failures = Failures(told.append, lambda: now[0])
    began = time.monotonic()
    for second in range(86_400):
        now[0] = float(second)
        failures.note("ana" if second % 2 else "", f"192.0.2.{second % 250}")
    failures.close()
    assert 10 < len(told) < 40 and sum(each.failures for each in told) == 86_400
    assert told[0] == Told("an unknown name from 192.0.2.0", 1, 0, 1)
    assert told[-1].text.endswith(", others") and told[-1].addresses <= 250
    assert time.monotonic() - began < 20
    # Quiet for long: the next one is told at once again.
    again: list[Told] = []
    failures = Failures(again.append, lambda: now[0])
    failures.note("ana", "192.0.2.1")
    now[0] += 10_000
    failures.note("ana", "192.0.2.1")
    assert [each.failures for each in again] == [1, 1]


def test_more_pairs_than_are_kept_apart_are_counted() -> None:
    told: list[Told] = []
    failures = Failures(told.append, lambda: 0.0)
    for number in range(2000):
        failures.note("", f"2001:db8::{number:x}")
    failures.close()
    assert [each.failures for each in told] == [1, 1999]


def test_it_stands_in_the_journal(door: Door) -> None:
    """What was typed as a name that is nobody's is not there: it may be a password."""
    add(door, "ana")
    with Browser(door) as somebody:
        assert somebody.sign_in("ana", "wrong wrong wrong").status_code == 401
        assert somebody.sign_in("hunter2secret", "x").status_code == 401
        assert somebody.sign_in("ana", PASSWORD).status_code == 200
        found = until(
            lambda: [each for each in door.http.get("/v1/changes").json() if each["verb"] == "sign-in-failed"]
        )
        assert found[0]["reason"] == "ana from 127.0.0.1" and found[0]["state"] == "failed"
        assert found[0]["result"] == {"failures": 1, "accounts": 1, "addresses": 1}
        # Of the platform: an owner does not see who else comes in.
        assert "sign-in-failed" not in somebody.ask("GET", "/v1/changes").text
    door.services.failures.close()
    assert "hunter2" not in door.http.get("/v1/changes").text
    assert any(each["reason"].startswith("an unknown name") for each in door.http.get("/v1/changes").json())
