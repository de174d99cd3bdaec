"""Backups by themselves and their proofs: what control does about them, over the fake agent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from controlkit import ROOT, Control, make_settings, until

from alveole import requests as ask
from alveole.agent import protocol, saving
from alveole.errors import InvalidInput, NoRoom, Refused, Temporary
from alveole.model.change import Change, ChangeState
from alveole.model.resource import Kind
from alveole.notices import News, kind_of
from alveole.policy.backups import DAY, Cause
from alveole.requests.backups import PinBackup, PutRepository, SetPolicy, SetSitePolicy
from alveole.store import backups as backupstore
from alveole.testing import FakeAgent


@pytest.fixture
def control(directory: Path) -> Iterator[Control]:
    made = Control(make_settings(directory, backups={"by_itself": True}), FakeAgent())
    # The tests say when a minute is over.
    made.services.ticker._works.pop("backups")
    # The platform's own turn has come long ago: what tests count is of sites.
    made.services._put_setting("platform-backup", _saved_platform())
    yield made
    made.services.close()


def _saved_platform() -> msgspec.Struct:
    from alveole.views.backups import PlatformSaved

    return PlatformSaved(id="b" + "p" * 12, at=time.time() + 400 * DAY, bytes=1, repository="local")


def age(control: Control, name: str, days: float) -> None:
    """The site is so old."""
    services = control.services
    site = services.store.site(name).site
    with services.store.write() as transaction:
        transaction.save_site(msgspec.structs.replace(site, created_at=time.time() - days * DAY))


def night(control: Control) -> list[Change]:
    """One tick, to the end of all that it began."""
    services = control.services
    before = {each.id for each in services.list_changes(ROOT, ask.ListChanges(limit=200))}
    services._backups_tick()
    control.quiet()
    found = [each for each in services.list_changes(ROOT, ask.ListChanges(limit=200)) if each.id not in before]
    return [each for each in found if each.actor == "nightly"]


def save(control: Control, name: str, days_ago: float = 0.0, cause: Cause = Cause.NIGHT) -> str:
    services = control.services
    change = control.done(services.create_backup(ROOT, ask.CreateBackup(site=name)))
    id = str(change.result["backup"])
    backup = services.store.backup(id)
    assert backup is not None
    with services.store.write() as transaction:
        older = msgspec.structs.replace(backup, created_at=time.time() - days_ago * DAY)
        services._keep(transaction, older, backupstore.Mark(cause))
    return id


def test_each_night_and_never_more_than_are_allowed(control: Control) -> None:
    for name in ("one", "two", "three"):
        control.static(name)
        age(control, name, 3)
    control.static("fresh")
    made = night(control)
    assert [(each.verb, each.state) for each in made] == [("backup", "done")], "one at a time"
    control.services.set_backup_policy(ROOT, SetPolicy(parallel=3))
    assert len(night(control)) == 2
    assert night(control) == [], "all are saved, and the fresh one waits for its night"
    listed = control.services.list_backups(ROOT)
    assert {each.site for each in listed} == {"one", "two", "three"} and {each.cause for each in listed} == {"night"}


def test_what_fails_is_told_and_tried_again_later(control: Control) -> None:
    control.static("blog")
    age(control, "blog", 3)

    def refuse(request: protocol.Request) -> None:
        if isinstance(request, protocol.CreateBackup):
            raise NoRoom("the disk of the backups is full")

    control.agent.hook = refuse
    (made,) = night(control)
    assert made.state is ChangeState.FAILED and kind_of(made) is News.BACKUP
    assert night(control) == [], "not at once again"
    control.agent.hook = lambda _request: None
    control.services._night_failures.clear()
    assert [each.state for each in night(control)] == [ChangeState.DONE]


def test_a_site_may_stay_out(control: Control) -> None:
    control.static("blog")
    age(control, "blog", 3)
    control.services.set_site_backups(ROOT, "blog", SetSitePolicy(nightly=False))
    assert night(control) == []
    view = control.services.set_site_backups(ROOT, "blog", SetSitePolicy(nightly=None, days=30))
    assert view.policy.days == 30 and view.policy.nightly and view.own.days == 30
    assert len(night(control)) == 1
    view = control.services.site_backups(ROOT, "blog")
    assert view.backups == 1 and view.saved_at and view.next_at and view.next_at > time.time()
    with pytest.raises(InvalidInput) as wrong:
        control.services.set_backup_policy(ROOT, SetPolicy(days=0, weeks=0, months=0))
    assert wrong.value.problems[0].field == "days"


def test_a_destroy_saves_first(control: Control) -> None:
    control.static("blog")
    control.done(control.services.stop_site(ROOT, "blog"))
    ended = control.done(control.services.destroy_site(ROOT, "blog", ask.DestroySite(confirm="blog")))
    (backup,) = control.services.list_backups(ROOT)
    assert backup.cause == "destroy" and not backup.exists and backup.id in ended.events[0].text
    control.done(control.services.restore_backup(ROOT, backup.id, ask.RestoreBackup()))
    control.done(control.services.stop_site(ROOT, "blog"))
    wanted = ask.DestroySite(confirm="blog", unsaved=True)
    control.done(control.services.destroy_site(ROOT, "blog", wanted))
    assert len(control.services.list_backups(ROOT)) == 1


def test_what_cannot_be_saved_is_not_destroyed(control: Control) -> None:
    """Fault 12: with a full disk a site goes when somebody says that it may go unsaved."""
    control.static("blog")
    control.done(control.services.stop_site(ROOT, "blog"))

    def refuse(request: protocol.Request) -> None:
        if isinstance(request, protocol.CreateBackup):
            raise NoRoom("the disk is full")

    control.agent.hook = refuse
    wanted = ask.DestroySite(confirm="blog")
    ended = control.done(control.services.destroy_site(ROOT, "blog", wanted), ChangeState.FAILED)
    assert "--unsaved" in ended.problems[0].hint and control.show("blog").state == "stopped"
    assert not any(isinstance(each, protocol.RemoveSite) for each in control.agent.calls)
    control.done(control.services.destroy_site(ROOT, "blog", ask.DestroySite(confirm="blog", unsaved=True)))


def test_thinning_out(control: Control) -> None:
    control.static("blog")
    old = [save(control, "blog", days) for days in (400, 300, 3, 2, 1)]
    hand = save(control, "blog", 500, Cause.HAND)
    control.services.pin_backup(ROOT, old[1], PinBackup(pinned=True))
    control.services.set_backup_policy(ROOT, SetPolicy(days=2, weeks=0, months=0))
    control.services._tidy()
    kept = {each.id for each in control.services.list_backups(ROOT)}
    assert kept == {old[1], old[3], old[4], hand}
    assert {made.id for made, _m, _r in control.agent.backups.values()} == kept
    prunes = [each for each in control.agent.calls if isinstance(each, saving.PruneBackups)]
    drops = [each for each in control.agent.calls if isinstance(each, protocol.DropBackup)]
    assert len(prunes) == 1 and not any(each.prune for each in drops), "their room is given back once"
    control.services._tidy()
    assert {each.id for each in control.services.list_backups(ROOT)} == kept


def test_backups_of_what_is_gone_go_in_the_end(control: Control) -> None:
    control.static("blog")
    save(control, "blog", 200)
    control.done(control.services.stop_site(ROOT, "blog"))
    control.done(control.services.destroy_site(ROOT, "blog", ask.DestroySite(confirm="blog")))
    control.services._tidy()
    assert [each.cause for each in control.services.list_backups(ROOT)] == ["destroy"]


# --- proofs -----------------------------------------------------------------------------------
def scratch(control: Control) -> set[str]:
    """Sites that the agent has something of and that nobody has asked for."""
    known = set(control.services.store.sites)
    return {id.scope for id in control.agent.things if id.scope.startswith("s")} - known


def test_a_backup_is_proved_out_of_reach(control: Control) -> None:
    control.app("app")
    backup = save(control, "app")
    seen: list[protocol.Apply] = []
    control.agent.hook = lambda request: seen.append(request) if isinstance(request, protocol.Apply) else None
    ended = control.done(control.services.prove_backup(ROOT, backup))
    assert ended.result["proved"] == 1
    kinds = {each.step.id.kind for each in seen if each.step.id.scope not in control.services.store.sites}
    assert Kind.WORKLOAD in kinds and not kinds & {Kind.ROUTE, Kind.ADDRESS, Kind.CERTIFICATE}
    specs = [each.step.spec for each in seen if each.step.id.kind is Kind.WORKLOAD and each.step.spec is not None]
    assert specs and not any(each.limits.internet for each in specs)
    assert scratch(control) == set() and not control.services.store.stray_leases()
    (view,) = control.services.list_backups(ROOT)
    assert view.proved and view.proved_at and control.services.site_backups(ROOT, "app").proved_at == view.proved_at
    detail = control.services.show_backup(ROOT, backup)
    assert [link.name for link in detail.links] == ["health"] and detail.seconds is not None
    assert control.show("app").state == "running"


def test_one_that_cannot_be_proved_is_named_and_told(control: Control) -> None:
    control.app("app")
    backup = save(control, "app")
    control.agent.unhealthy["health"] = "no answer"
    ended = control.done(control.services.prove_backup(ROOT, backup), ChangeState.FAILED)
    assert kind_of(ended) is News.BACKUP and ended.result["kind"] == "backup.unproved"
    assert "backup.unproved" in {event.resource for event in ended.events} and "health" in ended.problems[0].message
    (view,) = control.services.list_backups(ROOT)
    assert view.proved is False and "no answer" in view.problem
    state = control.services.site_backups(ROOT, "app")
    assert state.unproved == backup and state.proved_at is None
    doctor = control.services.doctor(ROOT)
    (link,) = [each for each in doctor.links if each.name == "proofs"]
    assert not link.ok and backup in link.came
    assert scratch(control) == set()
    (reading,) = control.services.readings.read({"site.proof"}, fresh=True)["site.proof"]
    assert reading.value == "failed", "what the rule backup-unproved looks at"
    control.agent.unhealthy.clear()
    control.done(control.services.prove_backup(ROOT, backup))
    assert control.services.site_backups(ROOT, "app").unproved == ""
    (reading,) = control.services.readings.read({"site.proof"}, fresh=True)["site.proof"]
    assert reading.value == "done"


def test_a_damaged_backup_is_unproved(control: Control) -> None:
    """Fault 14: noticed without anybody having asked for it."""
    control.app("app")
    backup = save(control, "app")
    (snapshot,) = control.agent.backups
    made, manifest, release = control.agent.backups[snapshot]
    control.agent.backups[snapshot] = (made, manifest.replace("app", "apq"), release)
    control.done(control.services.prove_backup(ROOT, backup), ChangeState.FAILED)
    (view,) = control.services.list_backups(ROOT)
    assert view.proved is False and "damaged" in view.problem


def test_an_agent_that_is_away_says_nothing_of_the_backup(control: Control) -> None:
    control.app("app")
    backup = save(control, "app")

    def away(request: protocol.Request) -> None:
        if isinstance(request, protocol.ReadBackup):
            raise Temporary("the agent went away")

    control.agent.hook = away
    control.done(control.services.prove_backup(ROOT, backup), ChangeState.FAILED)
    (view,) = control.services.list_backups(ROOT)
    assert view.proved is None


def test_proofs_come_by_themselves(control: Control) -> None:
    control.app("app")
    control.services.set_backup_policy(ROOT, SetPolicy(nightly=False))
    backup = save(control, "app", 2)
    assert [(each.verb, each.state) for each in night(control)] == [("prove-backup", "done")]
    assert control.services.show_backup(ROOT, backup).backup.proved
    assert night(control) == [], "that one was proved"


def test_a_proof_that_is_cut_leaves_nothing(control: Control) -> None:
    """Fault 11: control ends in the middle of a proof; the scratch site is swept, and the proof made again."""
    control.app("app")
    backup = save(control, "app")

    def end(request: protocol.Request) -> None:
        if isinstance(request, protocol.CheckHealth):
            # As a death does: the change stays under way, and nothing is taken back.
            control.services.loop._stopping.set()
            control.agent.down = True

    control.agent.hook = end
    control.services.prove_backup(ROOT, backup)
    until(lambda: control.agent.down)
    until(lambda: control.services.loop._changes._work_queue.empty())
    control.agent.hook = lambda _request: None
    control.services.loop._stopping.clear()
    control.services.close()
    control.agent.down = False
    control.services = type(control.services).open(control.settings, control.agent)
    control.quiet()
    until(lambda: not control.services.store.stray_leases())
    until(lambda: scratch(control) == set())
    assert control.services.show_backup(ROOT, backup).backup.proved


def test_a_manifest_that_claims_more_is_refused(control: Control) -> None:
    """Threat 10: what is proved gets what the database says, and a manifest of another form is unproved."""
    control.app("app")
    backup = save(control, "app")
    (snapshot,) = control.agent.backups
    made, manifest, release = control.agent.backups[snapshot]
    raw = msgspec.json.decode(manifest)
    raw["privileged"] = True
    text = msgspec.json.encode(raw).decode()
    import hashlib

    digest = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    control.agent.backups[snapshot] = (msgspec.structs.replace(made, digest=digest), text, release)
    stored = control.services.store.backup(backup)
    assert stored is not None
    with control.services.store.write() as transaction:
        transaction.put_backup(msgspec.structs.replace(stored, digest=digest))
    control.done(control.services.prove_backup(ROOT, backup), ChangeState.FAILED)
    assert "not one of ours" in control.services.show_backup(ROOT, backup).backup.problem
    assert scratch(control) == set()


# --- repositories and the platform ------------------------------------------------------------
def test_copies_go_to_the_other_repository(control: Control) -> None:
    control.static("blog")
    services = control.services
    services.put_repository(ROOT, "offsite", PutRepository(kind="local", place="/mnt/disk/alveole"))
    with pytest.raises(InvalidInput):
        services.set_backup_policy(ROOT, SetPolicy(copy_to="nowhere"))
    services.set_backup_policy(ROOT, SetPolicy(copy_to="offsite", nightly=False, prove=False))
    backup = save(control, "blog")
    assert [(each.verb, each.state) for each in night(control)] == [("copy-backup", "done")]
    assert night(control) == []
    assert services.show_backup(ROOT, backup).backup.copies == ("offsite",)
    with pytest.raises(Refused):
        services.forget_repository(ROOT, "offsite")
    control.done(services.delete_backup(ROOT, backup))
    assert not control.agent.copies and not control.agent.backups


def test_the_key_is_asked_for_until_it_is_exported(control: Control) -> None:
    assert any("key export" in each for each in control.services.status(ROOT).reminders)
    assert control.services.export_backup_key(ROOT).key == "the key of the backups"
    assert not any("key export" in each for each in control.services.status(ROOT).reminders)
    assert control.services.keeping(ROOT).key_exported_by == "root"


def test_the_platform_is_saved_each_night(control: Control) -> None:
    control.services._put_setting("platform-backup", None)
    (made,) = night(control)
    assert made.verb == "save-platform" and made.state is ChangeState.DONE
    assert len(control.agent.platform_backups) == 1 and night(control) == []
    saved = control.services.keeping(ROOT).platform
    assert saved is not None and saved.bytes == 2000


def test_what_no_backup_holds_is_saved_with_the_platform(control: Control) -> None:
    """All kept releases. That a backup is newer than the only one says nothing: it may have waited to be published."""
    services, agent = control.services, control.agent

    def kept() -> set[tuple[str, str]]:
        control.done(services.save_platform(ROOT))
        (asked,) = [each for each in agent.calls if isinstance(each, saving.SaveKept)][-1:]
        return {(each.site, each.release) for each in asked.contents}

    site = control.static("blog")
    first = site.release
    assert kept() == {(site.id, first)}
    control.done(services.create_backup(ROOT, ask.CreateBackup(site="blog")))
    assert kept() == {(site.id, first)}
    control.done(services.update_site(ROOT, "blog", ask.UpdateSite(upload=control.upload(b"more"))))
    assert kept() == {(site.id, first), (site.id, control.show("blog").release)}


def test_nobody_is_told_what_a_repository_is_reached_with(control: Control) -> None:
    secret = "a very secret access key"
    wanted = PutRepository(kind="s3", place="https://s3.test/bucket", user="id", secret=secret)
    view = control.services.put_repository(ROOT, "cloud", wanted)
    shown = msgspec.json.encode((view, control.services.list_repositories(ROOT))).decode()
    journal = msgspec.json.encode(control.services.list_changes(ROOT, ask.ListChanges())).decode()
    assert secret not in shown and secret not in journal


def test_every_problem_of_a_repository_at_once(control: Control) -> None:
    with pytest.raises(InvalidInput) as wrong:
        control.services.put_repository(ROOT, "Bad Name", PutRepository(kind="ftp", place=""))
    assert {each.field for each in wrong.value.problems} == {"name", "kind", "place"}
