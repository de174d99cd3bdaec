"""A clock that jumps by a year and is put right again: nothing comes back to life, and nothing waits for a year."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from controlkit import ROOT, Control, until

from alveole import requests as ask
from alveole.issuing import model, rows
from alveole.issuing.model import Authority, Spent
from alveole.issuing.rows import Order
from alveole.people.model import Role
from alveole.services import doors
from alveole.services.doors import Place
from alveole.store import claims, new_id, tables

YEAR, DAY = 365 * 86_400.0, 86_400.0


def signed_in(control: Control) -> str:
    return control.services.sign_in(ask.SignIn(name="ana", password="correct horse battery"), Place("192.0.2.7")).secret


def test_no_session_comes_back_from_the_dead(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 17: one that was once seen to be over stays so, and one of a time to come is none."""
    services = control.services
    services.add_account(ROOT, ask.AddAccount(name="ana", role=Role.OWNER, password="correct horse battery"))
    shift = [0.0]
    moved = SimpleNamespace(time=lambda: time.time() + shift[0], monotonic=time.monotonic)
    monkeypatch.setattr(doors, "time", moved)
    before = signed_in(control)
    assert services.resume(before) is not None
    shift[0] = YEAR
    assert services.resume(before) is None
    ahead = signed_in(control)
    assert services.resume(ahead) is not None
    shift[0] = 0.0
    assert services.resume(before) is None, "it was over once"
    assert services.resume(ahead) is None, "it would last for a year"
    with services.store.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(tables.sessions)).scalar() == 0
    # A clock that is behind lets nobody in for longer either.
    shift[0] = -YEAR
    behind = signed_in(control)
    shift[0] = 0.0
    assert services.resume(behind) is None
    assert services.resume(signed_in(control)) is not None


def test_nothing_that_is_tried_again_waits_for_a_year(control: Control) -> None:
    """Fault 17: what was put off while the clock was ahead has its turn when it is right again."""
    # It would take up what is due.
    control.services.ticker.stop()
    store, now = control.services.store, time.time()
    with store.write() as transaction:
        for name, at in (("due", -1.0), ("later", 6 * DAY), ("ahead", YEAR)):
            rows.put(transaction.connection, Order(new_id("o"), (f"{name}.example.org",), "", next_at=now + at))
        for name, at in (("due", -1.0), ("later", 3600.0), ("ahead", YEAR)):
            claim = claims.Claim("s1", f"{name}.example.org", "t", "p1", now, now + 2 * YEAR, now + at, None, 0, "")
            claims.put(transaction.connection, claim)
        message = {"change_id": "c1", "message": '{"id":"c1","kind":"site","verb":"x","state":"done","actor":"ana"}'}
        message |= {"created_at": now, "attempts": 1, "state": "waiting", "problem": ""}
        query = sa.insert(tables.outbox)
        transaction.connection.execute(query.values(id="m1", channel_id="n1", next_at=now + YEAR, **message))
        transaction.connection.execute(query.values(id="m2", channel_id="n2", next_at=now + 1800, **message))
    with store.read() as connection:
        assert [each.names[0].partition(".")[0] for each in rows.due(connection, now)] == ["due", "ahead"]
        assert [each.domain.partition(".")[0] for each in claims.due(connection, now)] == ["due", "ahead"]
    control.services.telling._look()

    def states() -> dict[str, str]:
        with store.read() as connection:
            return {row.id: row.state for row in connection.execute(sa.select(tables.outbox))}

    # Nobody has this channel any more, so that what is taken up fails.
    until(lambda: states() == {"m1": "failed", "m2": "waiting"})


def test_a_clock_that_is_ahead_renews_no_more_than_the_budget_of_a_week() -> None:
    """Fault 17: no mass renewal; and what was spent then counts for no week once the clock is right."""
    authority = Authority("ca", "https://ca.test/dir")
    ahead = time.time() + YEAR
    spent: list[Spent] = []
    for number in range(200):
        names = (f"site{number}.example.org",)
        try:
            model.check_budget(authority, names, spent, ahead)
        except model.OverBudget as error:
            assert ahead < error.free_at <= ahead + model.WEEK
        else:
            spent.append(Spent(ahead, "ca", "issued", "example.org", names[0]))
    assert len(spent) == authority.budget.domain_week
    model.check_budget(authority, ("site0.example.org",), spent, ahead - YEAR)
