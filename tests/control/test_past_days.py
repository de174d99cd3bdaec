"""Past days beside the live site: what control does about them, over the fake agent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from controlkit import ROOT, Control, make_settings, until

from alveole import requests as ask
from alveole.agent import protocol
from alveole.errors import Denied, InvalidInput, NotFound, Refused, Temporary
from alveole.model.change import ChangeState
from alveole.model.resource import Kind, RouteSpec, WorkloadSpec
from alveole.notices import News, kind_of
from alveole.people.model import Actor, Role
from alveole.requests.backups import OpenBackup
from alveole.services.doors import Place
from alveole.store.pastdays import PastState
from alveole.store.tables_backups import past_days
from alveole.testing import FakeAgent

PASSWORD = "correct horse battery"


@pytest.fixture
def control(directory: Path) -> Iterator[Control]:
    made = Control(make_settings(directory, backups={"past_most": 2, "past_each": 1}), FakeAgent())
    # The tests say when ten seconds are over.
    made.services.ticker._works.pop("past-days")
    yield made
    assert not made.agent.violations
    made.services.close()


def save(control: Control, name: str) -> str:
    return str(control.done(control.services.create_backup(ROOT, ask.CreateBackup(site=name))).result["backup"])


def opened(control: Control, backup: str, length: str = "1h") -> str:
    change = control.services.open_backup_beside(ROOT, backup, OpenBackup(length=length))
    return str(control.done(change).result["past"])


def there(control: Control, id: str) -> dict[Kind, object]:
    return {key.kind: thing.spec for key, thing in list(control.agent.things.items()) if key.scope == id}


def person(control: Control, name: str, role: Role = Role.OWNER) -> Actor:
    services = control.services
    services.add_account(ROOT, ask.AddAccount(name=name, role=role, password=PASSWORD))
    return session(control, name)


def session(control: Control, name: str) -> Actor:
    secret = control.services.sign_in(ask.SignIn(name=name, password=PASSWORD), Place("127.0.0.1")).secret
    found = control.services.resume(secret)
    assert found is not None
    return found


def ticket_of(address: str) -> str:
    return address.rpartition("ticket=")[2]


def test_a_day_is_shown_and_ends_with_all_that_is_of_it(control: Control) -> None:
    """Threat 10: what runs is what the database and the backup's checked manifest say, and none of it is the site's."""
    control.app("app", env={"A": "then"})
    backup = save(control, "app")
    control.done(control.services.set_site(ROOT, "app", ask.SetSite(env={"A": "now"})))
    id = opened(control, backup)
    (day,) = control.services.list_past_days(ROOT)
    assert (day.id, day.site, day.state, day.backup) == (id, "app", "open", backup)
    assert day.closes_at == pytest.approx(time.time() + 3600, abs=60) and day.name in day.address
    made = there(control, id)
    workload, route = made[Kind.WORKLOAD], made[Kind.ROUTE]
    assert isinstance(workload, WorkloadSpec) and isinstance(route, RouteSpec)
    assert workload.env["A"] == "then" and not workload.limits.internet and workload.limits.disk_bytes
    assert route.past is True and route.https_only and route.domain.startswith(day.name)
    assert Kind.ADDRESS not in made
    # It is no site of anybody's: nothing that goes over the sites meets it.
    assert set(control.services.store.sites) == {control.show("app").id}
    assert id not in {each.site_id for each in control.services.list_backups(ROOT)}
    assert control.services.naming.besides() == {route.domain: id}
    # The loop looks several times, and a sweep too.
    looked = len([each for each in control.agent.calls if isinstance(each, protocol.Observe)])
    until(lambda: len([each for each in control.agent.calls if isinstance(each, protocol.Observe)]) > looked + 2)
    control.services._sweep_clones()
    control.services._days_tick()
    assert set(there(control, id)) == set(made) and not control.services.store.stray_leases()
    ended = control.done(control.services.close_past_day(ROOT, day.name))
    assert kind_of(ended) is News.BACKUP
    assert not there(control, id) and not control.services.list_past_days(ROOT)
    assert not control.services.store.stray_leases() and control.services.naming.besides() == {}
    assert control.show("app").state == "running"
    assert any(isinstance(each, protocol.RemoveSite) and each.site == id for each in control.agent.calls)


def test_only_so_many_and_only_for_so_long(control: Control) -> None:
    control.static("blog")
    backup = save(control, "blog")
    for length in ("30s", "25h", "soon"):
        with pytest.raises(InvalidInput):
            control.services.open_backup_beside(ROOT, backup, OpenBackup(length=length))
    first, _second = opened(control, backup), opened(control, backup, "1d")
    with pytest.raises(Refused) as refused:
        control.services.open_backup_beside(ROOT, backup, OpenBackup())
    assert "2 past days" in str(refused.value)
    # The site may be destroyed meanwhile: the day is shown of the backup.
    control.done(control.services.stop_site(ROOT, "blog"))
    control.done(control.services.destroy_site(ROOT, "blog", ask.DestroySite(confirm="blog", unsaved=True)))
    control.services._days[first] = msgspec.structs.replace(control.services._days[first], closes_at=time.time() - 1)
    control.services._days_tick()
    control.quiet()
    assert [day.state for day in control.services.list_past_days(ROOT, "blog")] == ["open"]
    assert not there(control, first)
    (change,) = [each for each in control.services.list_changes(ROOT, ask.ListChanges()) if each.actor == "past-days"]
    assert change.verb == "close-backup" and "its time is over" in change.reason


def test_nobody_takes_the_room_of_all(control: Control) -> None:
    """Of the sites of one person fewer are open than there is room for; others find a place."""
    ana, ben = person(control, "ana"), person(control, "ben")
    control.static("one", owner="ana")
    control.static("two", owner="ana")
    control.static("bens", owner="ben")
    first = opened(control, save(control, "one"))
    for caller in (ROOT, ana):
        with pytest.raises(Refused) as refused:
            control.services.open_backup_beside(caller, save(control, "two"), OpenBackup())
        assert "1 past days of one owner" in str(refused.value) and "opened" in refused.value.problems[0].hint
    control.done(control.services.open_backup_beside(ben, save(control, "bens"), OpenBackup()))
    control.done(control.services.close_past_day(ana, first))
    opened(control, save(control, "two"))


def test_one_that_ended_is_closed(control: Control) -> None:
    """Fault 1: a boot leaves no instance and no route; what is left of the day goes by itself."""
    control.app("app")
    id = opened(control, save(control, "app"))
    for key in [key for key in control.agent.things if key.scope == id and key.kind in (Kind.WORKLOAD, Kind.ROUTE)]:
        control.agent.things.pop(key)
    control.agent.down = True
    with pytest.raises(Temporary):
        control.services._days_tick()
    assert control.services.list_past_days(ROOT), "unknown is not absent"
    control.agent.down = False
    control.services._days_tick()
    control.quiet()
    assert not there(control, id) and not control.services.list_past_days(ROOT)


def test_what_cannot_be_opened_leaves_nothing(control: Control) -> None:
    """Fault 7: an agent that goes away in the middle. Nothing half open stays, now or at a later tick."""
    control.app("app")
    backup = save(control, "app")

    def away(request: protocol.Request) -> None:
        if isinstance(request, protocol.Apply) and request.step.id.kind is Kind.ROUTE:
            control.agent.down = True
            raise Temporary("the agent went away")

    control.agent.hook = away
    change = control.services.open_backup_beside(ROOT, backup, OpenBackup())
    control.done(change, ChangeState.FAILED)
    (day,) = control.services.list_past_days(ROOT)
    assert day.state == "closing"
    control.agent.hook = lambda _request: None
    control.agent.down = False
    control.services._days_tick()
    control.quiet()
    assert not there(control, day.id) and not control.services.store.stray_leases()


def test_one_whose_row_is_damaged_is_taken_away_whole(control: Control) -> None:
    """Fault 14: nobody knows any more until when it was to be open, so it is not."""
    control.app("app")
    id = opened(control, save(control, "app"))
    assert there(control, id)
    with control.services.store.write() as transaction:
        transaction.connection.execute(sa.update(past_days).where(past_days.c.id == id).values(document="{"))
    control.restart()
    until(lambda: not control.services.store.stray_leases())
    assert not there(control, id)
    with control.services.store.read() as connection:
        assert connection.execute(sa.select(past_days.c.id)).all() == []


def test_one_that_is_closed_while_the_clock_looks_stays_closed(control: Control) -> None:
    control.app("app")
    id = opened(control, save(control, "app"))
    day = control.services._days[id]
    for kind in (Kind.ROUTE, Kind.WORKLOAD):
        for key in [key for key in control.agent.things if key.scope == id and key.kind is kind]:
            del control.agent.things[key]

    def meanwhile(request: protocol.Request) -> None:
        if isinstance(request, protocol.Observe):
            control.agent.hook = lambda _request: None
            control.services._end_day(day)

    control.agent.hook = meanwhile
    control.services._days_tick()
    control.quiet()
    assert id not in control.services._days
    with control.services.store.read() as connection:
        assert connection.execute(sa.select(past_days.c.id)).all() == []


def test_one_that_was_cut_is_opened_in_the_end(control: Control) -> None:
    """Fault 11: control ends in the middle; the change is taken up, and begins from nothing."""
    control.app("app")
    backup = save(control, "app")

    def end(request: protocol.Request) -> None:
        if isinstance(request, protocol.Apply) and request.step.id.kind is Kind.ROUTE:
            control.services.loop._stopping.set()
            control.agent.down = True
            raise Temporary("cut")

    control.agent.hook = end
    change = control.services.open_backup_beside(ROOT, backup, OpenBackup())
    until(lambda: control.agent.down)
    # Until it has seen that control stops.
    control.services.loop._changes.shutdown(wait=True)
    control.agent.hook = lambda _request: None
    control.services.loop._stopping.clear()
    control.services.close()
    control.agent.down = False
    control.services = type(control.services).open(control.settings, control.agent)
    control.quiet()
    (day,) = control.services.list_past_days(ROOT)
    assert day.state == "open" and Kind.ROUTE in there(control, day.id)
    assert control.services.show_change(ROOT, change.id).state is ChangeState.DONE
    # A control that starts anew finds it open, and keeps it.
    control.restart()
    control.quiet()
    assert [each.id for each in control.services.list_past_days(ROOT)] == [day.id]
    assert Kind.WORKLOAD in there(control, day.id)


def test_only_who_is_signed_in_and_may_look_is_let_in(control: Control) -> None:
    """Threat 22: a pass ends with the session, with the right and with the day; a ticket works once."""
    services = control.services
    ana, zoe = person(control, "ana"), person(control, "zoe")
    control.app("app", owner="ana")
    backup = save(control, "app")
    id = opened(control, backup)
    with pytest.raises(NotFound):
        services.enter_past_day(zoe, id)
    with pytest.raises(NotFound):
        services.close_past_day(zoe, id)
    with pytest.raises(Refused):
        services.enter_past_day(ROOT, id)
    ticket = ticket_of(services.enter_past_day(ana, id))
    assert services.admit_to_past_day("pass", id, ticket) == "", "a ticket is no pass"
    assert services.admit_to_past_day("ticket", "s" + "a" * 12, ticket) == "", "and works at its own day"
    assert services.admit_to_past_day("ticket", id, ticket) == "", "asked once"
    given, seconds = services.admit_to_past_day("ticket", id, ticket_of(services.enter_past_day(ana, id))).split()
    assert 3000 < int(seconds) <= 3600
    assert services.admit_to_past_day("pass", id, given) == "yes"
    assert services.admit_to_past_day("pass", "s" + "a" * 12, given) == ""
    assert services.admit_to_past_day("pass", id, "x" * 43) == ""
    services.sign_out(ana)
    assert services.admit_to_past_day("pass", id, given) == ""
    # Somebody else, whom the site is shared with, and then no longer.
    services.share_site(ROOT, "app", ask.ShareSite(whom="zoe", level=ask.ShareLevel.LOOK))
    given = services.admit_to_past_day("ticket", id, ticket_of(services.enter_past_day(zoe, id))).split()[0]
    assert services.admit_to_past_day("pass", id, given) == "yes"
    with pytest.raises(Denied):
        services.open_backup_beside(zoe, backup, OpenBackup())
    with pytest.raises(Denied):
        services.close_past_day(zoe, id)
    services.share_site(ROOT, "app", ask.ShareSite(whom="zoe", level=ask.ShareLevel.NONE))
    assert services.admit_to_past_day("pass", id, given) == ""
    again = session(control, "ana")
    given = services.admit_to_past_day("ticket", id, ticket_of(services.enter_past_day(again, id))).split()[0]
    control.done(services.close_past_day(again, id))
    assert services.admit_to_past_day("pass", id, given) == "" and not services._passes


def test_no_site_is_called_as_a_past_day(control: Control) -> None:
    with pytest.raises(InvalidInput):
        control.services.create_site(ROOT, ask.CreateSite(name="past-1a2b3c4d", command=("serve",), port=8000))
    control.app("past-time")


def test_one_that_is_being_opened_is_not_closed(control: Control) -> None:
    control.static("blog")
    id = opened(control, save(control, "blog"))
    services = control.services
    services._days[id] = msgspec.structs.replace(services._days[id], state=PastState.OPENING)
    with pytest.raises(Refused):
        services.close_past_day(ROOT, id)
    with pytest.raises(Refused):
        services.enter_past_day(person(control, "ada", Role.ADMIN), id)
