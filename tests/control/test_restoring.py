"""Making a lost machine again: what did not come for a reason that may pass is not given up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from controlkit import ROOT, Control, make_settings

from alveole import requests as ask
from alveole import restoring
from alveole.actuators.kept import release_name
from alveole.actuators.repository import Held, damaged
from alveole.agent.saving import Kind, PutRepository
from alveole.errors import AlveoleError, NoRoom, NotFound, Temporary
from alveole.testing import FakeAgent

PASSING = [Temporary("connection lost"), NoRoom("the disk is full"), AlveoleError("something")]


@pytest.fixture
def control(directory: Path) -> Iterator[Control]:
    made = Control(make_settings(directory), FakeAgent())
    yield made
    made.services.close()


def two_releases(control: Control) -> tuple[str, str]:
    """Of a static site without a backup: the one that is live, and the one before."""
    site = control.static()
    before = control.services.store.site("blog").site.release
    update = ask.UpdateSite(upload=control.upload(b"newer"))
    control.done(control.services.update_site(ROOT, site.name, update))
    live = control.services.store.site("blog").site.release
    assert live and before and live != before
    return live, before


def parts_of(control: Control, held: list[str], fails: dict[str, AlveoleError]) -> restoring._Parts:
    site = control.services.store.site("blog").site.id

    def bring(_releases: Any, _held: Held, content: Any) -> None:
        if content.release in fails:
            raise fails[content.release]

    names = {release_name(site, each): Held("restored/0a31f3ad", 1, f"sha256:{'1' * 64}") for each in held}
    kept: Any = SimpleNamespace(bring_release=bring)
    nothing: Any = None
    return restoring._Parts(control.settings, control.services.store, nothing, nothing, nothing, kept, names, [], [])


def rows(control: Control) -> set[str]:
    store = control.services.store
    return {each.digest for each in store.releases(store.site("blog").site.id)}


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
def test_a_passing_fault_drops_no_release(control: Control, error: AlveoleError) -> None:
    live, before = two_releases(control)
    parts = parts_of(control, [live, before], {before: error})
    with pytest.raises(type(error)):
        restoring._site(parts, {}, control.services.store.site("blog").site)
    assert rows(control) == {live, before} and not parts.said
    again = parts_of(control, [live, before], {})
    restoring._site(again, {}, control.services.store.site("blog").site)
    assert rows(control) == {live, before} and not again.said
    assert control.services.store.site("blog").site.release == live


def test_what_is_damaged_is_said_and_what_is_nowhere_is_dropped(control: Control) -> None:
    live, before = two_releases(control)
    parts = parts_of(control, [live, before], {before: damaged("restored/0a31f3ad", "ciphertext verification failed")})
    restoring._site(parts, {}, control.services.store.site("blog").site)
    assert rows(control) == {live, before}, "the repository holds it, and a row keeps it from being let go"
    (said,) = parts.said
    assert "is damaged" in said and "no backup" not in said
    nowhere = parts_of(control, [live], {})
    restoring._site(nowhere, {}, control.services.store.site("blog").site)
    assert rows(control) == {live} and "is in no backup" in nowhere.said[0]
    with pytest.raises(NotFound):
        restoring._site(parts_of(control, [], {}), {}, control.services.store.site("blog").site)
    assert rows(control) == {live}


def test_a_version_that_did_not_come_is_not_called_lost(control: Control) -> None:
    two_releases(control)
    services = control.services
    control.done(services.create_app(ROOT, ask.CreateApp(name="shop", environments=("prod",))))
    control.done(services.send_version(ROOT, "shop", ask.SendVersion(version="one", upload=control.upload(b"shop"))))
    app = next(iter(services.apps.apps.values()))
    (version,) = services.apps.versions(app.id)
    assert version.release is not None
    parts = parts_of(control, [], {version.release: Temporary("connection lost")})
    parts.held[release_name(app.store, version.release)] = Held("restored/0a31f3ad", 1, f"sha256:{'1' * 64}")
    assert restoring._versions(parts, lambda _text, _share: None) == ()
    assert len(parts.waits) == 1 and "connection lost" in parts.said[0] and "no backup" not in parts.said[0]


def test_the_restore_waits_to_be_asked_for_again(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = make_settings(directory)
    settings.database.parent.mkdir(parents=True)
    mark = settings.state / restoring.MARK
    mark.write_bytes(msgspec.json.encode(restoring.Done(platform=True)))
    empty = SimpleNamespace(of=lambda _name: SimpleNamespace(list=tuple))
    monkeypatch.setattr(restoring, "_reached", lambda *_words: empty)
    monkeypatch.setattr(restoring, "_owners", lambda _settings: None)
    monkeypatch.setattr(restoring, "prepare_control", lambda _settings: None)
    monkeypatch.setattr(restoring.os, "geteuid", lambda: 0)
    wanted = PutRepository("restored", Kind.LOCAL, str(directory / "kept"))
    for again in (True, False):
        report = restoring.Report((), {}, (), "", again=again)
        monkeypatch.setattr(restoring, "_sites", lambda *_words, report=report: report)
        assert restoring.restore_platform(settings, wanted, "key", lambda _text, _share: None).again is again
        assert mark.exists() is again
