"""Updates, restores and what happens when the new instance does not come up."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from controlkit import ROOT, Control

from alveole import requests as ask
from alveole.errors import InvalidInput, NotFound, Refused
from alveole.model.change import ChangeState
from alveole.model.resource import Action, Kind
from alveole.services.backups import manifest_of, read_manifest
from alveole.views import State


def update(control: Control, name: str, content: bytes) -> Any:
    return control.services.update_site(ROOT, name, ask.UpdateSite(upload=control.upload(content), note="new"))


def test_static_content_is_switched_by_its_link(control: Control) -> None:
    site = control.static(content=b"one")
    workloads = len(control.agent.applied(Kind.WORKLOAD))
    control.done(update(control, "blog", b"two"))
    after = control.show("blog")
    assert after.release != site.release and after.releases[0].note == "new"
    assert len(control.agent.applied(Kind.WORKLOAD)) == workloads


def test_an_application_is_switched_blue_green(control: Control) -> None:
    site = control.app(upload=control.upload(b"one"))
    control.done(update(control, "app", b"two"))
    assert {"workload/1"} == {each for each in control.agent.of(site.id) if each.startswith("workload")}
    order = [(str(s.action), s.id.kind) for s in control.agent.applied() if s.id.scope == site.id][-4:]
    assert order == [
        ("create", Kind.WORKLOAD),
        ("replace", Kind.ROUTE),
        ("replace", Kind.ADDRESS),
        ("delete", Kind.WORKLOAD),
    ]


@pytest.mark.parametrize("temporary", [False, True])
def test_a_failed_update_never_ends_what_ran(control: Control, temporary: bool) -> None:
    """Fault 8: wholly the old release, and the log's tail says why."""
    site = control.app(upload=control.upload(b"one"))
    for _try in range(2):
        control.agent.fail_next(
            Kind.WORKLOAD, Action.CREATE, "did not answer", temporary=temporary, tail=("ImportError: hello",)
        )
    before = len(control.agent.applied(Kind.ROUTE))
    ended = control.done(update(control, "app", b"two"), ChangeState.FAILED)
    assert "ImportError: hello" in ended.problems[0].message
    last = control.services.why(ROOT, "app").last
    assert last is not None and last.id == ended.id and last.problems == ended.problems, "the walk ends with it"
    after = control.show("app")
    assert (after.state, after.release) == (State.RUNNING, site.release)
    assert "workload/0" in control.agent.of(site.id) and "workload/1" not in control.agent.of(site.id)
    assert len(control.agent.applied(Kind.ROUTE)) == before, "no route moved"
    assert [each.digest for each in after.releases] == [site.release]
    assert set(control.agent.releases[site.id]) == {site.release}
    control.agent.outcomes.clear()
    control.done(update(control, "app", b"three"))


def test_the_last_releases_are_kept_and_come_back(control: Control) -> None:
    site = control.static(content=b"0")
    for number in range(1, 8):
        control.done(update(control, "blog", str(number).encode()))
    after = control.show("blog")
    assert len(after.releases) == control.settings.content.releases_kept == 5
    assert set(control.agent.releases[site.id]) == {each.digest for each in after.releases}
    oldest = after.releases[-1].digest
    control.done(control.services.update_site(ROOT, "blog", ask.UpdateSite(release=oldest[7:20])))
    assert control.show("blog").release == oldest
    for release in ("", "ffffffffffff", site.release):
        with pytest.raises(InvalidInput):
            control.services.update_site(ROOT, "blog", ask.UpdateSite(release=release))
    with pytest.raises(Refused, match="live already"):
        control.services.update_site(ROOT, "blog", ask.UpdateSite(release=oldest))


def test_the_same_content_again_changes_nothing(control: Control) -> None:
    site = control.static(content=b"one")
    control.done(update(control, "blog", b"one"))
    assert control.show("blog").version == site.version


def test_a_failed_set_goes_back(control: Control) -> None:
    site = control.app(env={"A": "1"})
    control.agent.fail_next(Kind.WORKLOAD, Action.CREATE, temporary=False)
    control.done(control.services.set_site(ROOT, "app", ask.SetSite(env={"A": "2"})), ChangeState.FAILED)
    after = control.show("app")
    assert (after.env, after.state) == ({"A": "1"}, State.RUNNING) and after.version > site.version


# --- backups ----------------------------------------------------------------------------------
def save(control: Control, name: str) -> str:
    return str(control.done(control.services.create_backup(ROOT, ask.CreateBackup(site=name))).result["backup"])


def test_restore_into_the_same_site(control: Control) -> None:
    site = control.app(upload=control.upload(b"one"), env={"A": "1"}, volumes=(ask.VolumeBody(name="d", path="/d"),))
    backup = save(control, "app")
    control.done(update(control, "app", b"two"))
    control.done(control.services.set_site(ROOT, "app", ask.SetSite(env={"A": "2"}, add_domains=("x.example.org",))))
    control.done(control.services.restore_backup(ROOT, backup, ask.RestoreBackup()))
    after = control.show("app")
    assert (after.release, after.env, after.state) == (site.release, {"A": "1"}, State.RUNNING)
    assert after.domains == ("x.example.org",), "names stay as they are"
    assert {"storage/2"} == {each for each in control.agent.of(site.id) if each.startswith("storage")}


def test_restore_as_new_leaves_out_what_is_taken(control: Control) -> None:
    control.app(upload=control.upload(b"one"), domains=("a.example.org",), path="/app")
    backup = save(control, "app")
    ended = control.done(control.services.restore_backup(ROOT, backup, ask.RestoreBackup(name="copy")))
    copy = control.show("copy")
    assert (copy.domains, copy.path, copy.number, copy.state) == ((), None, 2, State.RUNNING)
    assert sum("left out" in event.text for event in ended.events) == 2


def test_save_destroy_restore(control: Control) -> None:
    site = control.app(upload=control.upload(b"one"), domains=("a.example.org",), path="/app", plan="medium")
    backup = save(control, "app")
    control.done(control.services.stop_site(ROOT, "app"))
    control.done(control.services.destroy_site(ROOT, "app", ask.DestroySite(confirm="app")))
    (listed,) = control.services.list_backups(ROOT, "app")
    assert not listed.exists
    control.done(control.services.restore_backup(ROOT, backup, ask.RestoreBackup()))
    after = control.show("app")
    assert (after.domains, after.path, after.plan, after.release) == (site.domains, site.path, site.plan, site.release)
    assert after.id != site.id
    control.done(control.services.delete_backup(ROOT, backup))
    with pytest.raises(NotFound):
        control.services.delete_backup(ROOT, backup)


def test_a_damaged_backup_is_refused(control: Control) -> None:
    """Fault 11 and 14: named, and the live site untouched."""
    site = control.app(upload=control.upload(b"one"))
    backup = save(control, "app")
    (snapshot,) = control.agent.backups
    made, manifest, release = control.agent.backups[snapshot]
    control.agent.backups[snapshot] = (made, manifest.replace("app", "apq"), release)
    before = control.agent.of(site.id)
    for request in (ask.RestoreBackup(), ask.RestoreBackup(name="copy")):
        ended = control.done(control.services.restore_backup(ROOT, backup, request), ChangeState.FAILED)
        assert "damaged" in ended.problems[0].message
    assert control.agent.of(site.id) == before and control.show("app").state is State.RUNNING
    assert [each.name for each in control.services.list_sites(ROOT)] == ["app"]


def test_a_manifest_cannot_claim_rights(control: Control) -> None:
    """Threat 10: owner, roles, uid come from the local database only; a manifest that has them is refused."""
    control.app()
    stored = control.services.store.site("app")
    assert stored is not None
    good = msgspec.to_builtins(manifest_of(stored.site))
    assert "owner" not in good and "number" not in good and "id" not in good
    assert read_manifest(msgspec.json.encode(good).decode()).name == "app"
    for claim in ({"owner": "admin"}, {"role": "admin"}, {"number": 1}, {"mounts": ["/"]}, {"format": 2}):
        with pytest.raises(Refused):
            read_manifest(msgspec.json.encode({**good, **claim}).decode())


def test_a_manifest_is_checked_like_a_request(control: Control) -> None:
    """Threat 10 and 11: what a request may not ask for does not come in by a backup."""
    control.app()
    backup = save(control, "app")
    (snapshot,) = control.agent.backups
    made, manifest, release = control.agent.backups[snapshot]
    for bad in ({"env": {"LD_PRELOAD": "x"}}, {"volumes": [{"name": "d", "path": "/etc"}]}, {"plan": "none"}):
        text = msgspec.json.encode({**msgspec.json.decode(manifest), **bad}).decode()
        control.agent.backups[snapshot] = (made, text, release)
        with_digest = control.services.store.backup(backup)
        assert with_digest is not None
        import hashlib

        digest = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
        with control.services.store.write() as transaction:
            transaction.put_backup(msgspec.structs.replace(with_digest, digest=digest))
        change = control.services.restore_backup(ROOT, backup, ask.RestoreBackup(name="copy"))
        control.done(change, ChangeState.FAILED)
        assert control.services.store.site("copy") is None
