"""The verbs on sites, over a fake agent: what they reach and what they refuse (P6-P10, P18, P19)."""

from __future__ import annotations

import threading
from typing import Any

import msgspec
import pytest
from controlkit import READER, ROOT, Control, make_settings, until

from alveole import requests as ask
from alveole.errors import Denied, InvalidInput, NoRoom, NotFound, Refused
from alveole.model.change import ChangeState
from alveole.model.resource import Action, Kind
from alveole.people.model import Role
from alveole.requests.plans import CreatePlan
from alveole.services import VersionConflict
from alveole.testing import FakeAgent
from alveole.views import State


def fields(error: pytest.ExceptionInfo[Any]) -> set[str]:
    return {problem.field for problem in error.value.problems}


def test_create_reaches_what_was_asked(control: Control) -> None:
    site = control.static("blog", domains=("www.example.org",), path="/blog")
    assert site.state is State.RUNNING and not site.problem
    assert (site.ipv4, site.number) == ("10.1.1.1", 1)
    assert site.urls == (
        "https://blog.localhost/",
        "https://www.example.org/",
        "https://localhost/blog/",
        "http://blog.localhost/",
        "http://www.example.org/",
        "http://localhost/blog/",
    )
    assert control.agent.of(site.id) == {
        "release/current",
        "workload/0",
        "address/ipv4",
        "certificate/blog.localhost",
        "certificate/www.example.org",
        "route/blog.localhost",
        "route/www.example.org",
        "route/@/blog",
    }
    assert {promise.state for promise in site.promises} == {"kept"}
    assert not list((control.settings.database.parent / "uploads").iterdir())


def test_create_costs_three_commits(control: Control) -> None:
    control.static("first")
    commits = []
    with control.services.store._lock:
        original = control.services.store.write

    def counting() -> Any:
        commits.append(1)
        return original()

    control.services.store.write = counting
    control.static("second")
    assert len(commits) <= 3


def test_all_problems_at_once_and_nothing_half_done(control: Control) -> None:
    request = ask.CreateSite(
        name="Bad_Name",
        base="debian",
        packages=("no such",),
        upload="nosuchupload",
        command=("serve",),
        port=70000,
        plan="huge",
        domains=("*.example.org", "10.0.0.1"),
        env={"PORT": "1", "1A": "x"},
        volumes=(ask.VolumeBody(name="data", path="/etc"),),
        path="no-slash",
        allow=("10.0.0.1/8",),
        health="nothing",
    )
    with pytest.raises(InvalidInput) as error:
        control.services.create_site(ROOT, request)
    wanted = {"name", "packages", "upload", "port", "plan", "domains", "env.PORT", "env", "volumes", "path", "allow"}
    assert wanted | {"health"} <= fields(error)
    assert not control.services.list_sites(ROOT)
    assert not control.services.list_changes(ROOT, ask.ListChanges(state="running"))


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"name": "blog"}, "name"),
        ({"name": "taken"}, "name"),
        ({"domains": ("www.example.org",)}, "domains"),
        ({"domains": ("blog.localhost",)}, "domains"),
        ({"path": "/blog"}, "path"),
    ],
    ids=str,
)
def test_what_is_taken_is_refused(control: Control, more: dict[str, Any], field: str) -> None:
    control.static("blog", domains=("www.example.org", "taken.localhost"), path="/blog")
    request = ask.CreateSite(**{"name": "other", "command": ("serve",), **more})
    with pytest.raises(Refused) as error:
        control.services.create_site(ROOT, request)
    assert fields(error) == {field}


@pytest.mark.parametrize("name", ["", "a" * 41, "www", "xn--x", "a b", "-a", "a\n", "a.b", "$(id)", "..", "Ä"])
def test_bad_names(control: Control, name: str) -> None:
    with pytest.raises(InvalidInput):
        control.services.create_site(ROOT, ask.CreateSite(name=name, command=("serve",)))


def test_nothing_to_serve(control: Control) -> None:
    with pytest.raises(InvalidInput) as error:
        control.services.create_site(ROOT, ask.CreateSite(name="empty"))
    assert fields(error) == {"from"}


def test_what_is_no_archive_leaves_nothing(control: Control) -> None:
    change = control.services.create_site(ROOT, ask.CreateSite(name="bad", upload=control.upload(b"BAD")))
    ended = control.done(change, ChangeState.FAILED)
    assert "not an archive" in ended.problems[0].message
    assert not control.services.list_sites(ROOT)
    assert control.static("bad").number == 1, "the name and the lease are free again"


def test_addresses_run_out(directory: Any) -> None:
    network = {"ipv4": "10.77.0.0/26", "first_ipv4": "10.77.0.14", "gateway_ipv4": "10.77.0.62"}
    control = Control(make_settings(directory, network=network), FakeAgent())
    try:
        for name in ("one", "two"):
            control.static(name)
        with pytest.raises(NoRoom):
            control.services.create_site(ROOT, ask.CreateSite(name="three", command=("serve",)))
        control.done(control.services.stop_site(ROOT, "one"))
        control.done(control.services.destroy_site(ROOT, "one", ask.DestroySite(confirm="one")))
        assert control.static("three").number == 1, "the smallest free number"
    finally:
        control.services.close()


def test_start_and_stop(control: Control) -> None:
    site = control.static()
    with pytest.raises(Refused, match="already running"):
        control.services.start_site(ROOT, "blog")
    control.done(control.services.stop_site(ROOT, "blog"))
    assert control.show("blog").state is State.STOPPED
    assert control.agent.of(site.id) == {"release/current", "certificate/blog.localhost", "route/blog.localhost"}
    for verb in (control.services.stop_site, control.services.restart_site):
        with pytest.raises(Refused, match="not running"):
            verb(ROOT, "blog")
    control.done(control.services.start_site(ROOT, "blog"))
    assert control.show("blog").state is State.RUNNING and control.show("blog").ipv4 == site.ipv4


def test_stop_does_not_wait_for_a_drain(control: Control) -> None:
    control.static()
    before = len(control.agent.applied(Kind.WORKLOAD))
    ended = control.done(control.services.stop_site(ROOT, "blog"))
    (step,) = control.agent.applied(Kind.WORKLOAD)[before:]
    assert step.action is Action.DELETE and step.grace_seconds == 0
    assert not any("drains" in event.text for event in ended.events)


def test_restart_starts_anew_in_the_same_slot(control: Control) -> None:
    site = control.app()
    before = len(control.agent.applied(Kind.WORKLOAD))
    control.done(control.services.restart_site(ROOT, "app"))
    (step,) = control.agent.applied(Kind.WORKLOAD)[before:]
    assert (step.action, step.id.name, step.id.scope) == (Action.REPLACE, "0", site.id)


def test_destroy(control: Control) -> None:
    site = control.app(volumes=(ask.VolumeBody(name="data", path="/data"),))
    with pytest.raises(Refused, match="is running"):
        control.services.destroy_site(ROOT, "app", ask.DestroySite(confirm="app"))
    control.done(control.services.stop_site(ROOT, "app"))
    with pytest.raises(InvalidInput):
        control.services.destroy_site(ROOT, "app", ask.DestroySite(confirm="other"))
    control.done(control.services.destroy_site(ROOT, "app", ask.DestroySite(confirm="app")))
    assert not control.agent.of(site.id)
    with pytest.raises(NotFound):
        control.services.show_site(ROOT, "app")
    assert control.services.list_changes(ROOT, ask.ListChanges(site="app"))[0].verb == "destroy"


def test_rename_restarts_nothing(control: Control) -> None:
    site = control.app()
    control.static("blog")
    before = len(control.agent.applied(Kind.WORKLOAD))
    with pytest.raises(Refused, match="taken"):
        control.services.rename_site(ROOT, "app", ask.RenameSite(name="blog"))
    control.done(control.services.rename_site(ROOT, "app", ask.RenameSite(name="shop")))
    assert len(control.agent.applied(Kind.WORKLOAD)) == before
    assert control.show("shop").id == site.id
    assert "route/shop.localhost" in control.agent.of(site.id)
    assert "route/app.localhost" not in control.agent.of(site.id)
    control.static("app")


def test_set(control: Control) -> None:
    site = control.app(env={"A": "1", "B": "2"}, domains=("a.example.org",))
    request = ask.SetSite(
        env={"A": None, "C": "3"}, add_domains=("b.example.org",), remove_domains=("a.example.org",), path="/app"
    )
    control.done(control.services.set_site(ROOT, "app", request))
    after = control.show("app")
    assert (after.env, after.domains, after.path) == ({"B": "2", "C": "3"}, ("b.example.org",), "/app")
    assert "workload/1" in control.agent.of(site.id) and "workload/0" not in control.agent.of(site.id)
    control.done(control.services.set_site(ROOT, "app", ask.SetSite(path=None, https_only=True)))
    assert control.show("app").path is None and "workload/1" in control.agent.of(site.id)
    with pytest.raises(InvalidInput):
        control.services.set_site(ROOT, "app", ask.SetSite())
    control.done(control.services.set_site(ROOT, "app", ask.SetSite(plan="large")))
    with pytest.raises(Refused, match="stop the site first"):
        control.services.set_site(ROOT, "app", ask.SetSite(plan="small"))
    control.done(control.services.stop_site(ROOT, "app"))
    control.done(control.services.set_site(ROOT, "app", ask.SetSite(plan="small")))


def test_data_that_nothing_asks_for_is_kept(control: Control) -> None:
    site = control.static(volumes=(ask.VolumeBody(name="data", path="/data"),))
    control.done(control.services.set_site(ROOT, "blog", ask.SetSite(volumes=())))
    control.services.loop.look_everywhere()
    control.quiet()
    assert "storage/1" in control.agent.of(site.id) and control.show("blog").state is State.RUNNING
    control.done(control.services.stop_site(ROOT, "blog"))
    control.done(control.services.destroy_site(ROOT, "blog", ask.DestroySite(confirm="blog")))
    assert not control.agent.of(site.id)


def test_the_environment_is_hidden(control: Control) -> None:
    control.app(env={"SECRET": "hunter2"})
    assert control.services.show_site(READER, "app").env == {"SECRET": "***"}
    assert b"hunter2" not in msgspec.json.encode(control.services.list_sites(ROOT))
    with pytest.raises(Denied):
        control.services.show_site(READER, "app", show_env=True)


def test_versions(control: Control) -> None:
    seen = control.static().version
    control.done(control.services.set_site(ROOT, "blog", ask.SetSite(https_only=True), version=seen))
    with pytest.raises(VersionConflict) as error:
        control.services.set_site(ROOT, "blog", ask.SetSite(https_only=False), version=seen)
    assert (error.value.http_status, error.value.exit_status) == (412, 3)


def test_sites_are_independent(control: Control) -> None:
    """P19: several at once, in any order; one that hangs holds up no other."""
    for name in ("one", "two", "three"):
        control.static(name)

    def hang(request: Any) -> None:
        if getattr(getattr(request, "step", None), "action", None) is Action.DELETE and slow in str(request):
            released.wait(30)

    released = threading.Event()
    slow = control.show("one").id
    control.agent.hook = hang
    changes = [control.services.stop_site(ROOT, name) for name in ("one", "three", "two")]
    control.done(changes[1])
    control.done(changes[2])
    released.set()
    control.done(changes[0])


def test_one_change_at_a_time_but_stop_goes_first(control: Control) -> None:
    control.agent.slow_start = 0.6
    change = control.services.create_site(ROOT, ask.CreateSite(name="app", command=("serve",)))
    until(lambda: control.agent.applied(Kind.WORKLOAD))
    with pytest.raises(Refused, match="busy"):
        control.services.restart_site(ROOT, "app")
    control.done(control.services.stop_site(ROOT, "app"))
    assert "took its place" in control.done(change, ChangeState.FAILED).problems[0].message
    assert control.show("app").state is State.STOPPED


def test_readers_may_only_look(control: Control) -> None:
    control.static()
    look = control.services.list_sites(READER)
    assert look[0].name == "blog"
    for call in (
        lambda: control.services.create_site(READER, ask.CreateSite(name="x", command=("serve",))),
        lambda: control.services.stop_site(READER, "blog"),
        lambda: control.services.destroy_site(READER, "blog", ask.DestroySite(confirm="blog")),
        lambda: control.services.new_upload(READER),
        lambda: control.services.create_token(READER, ask.CreateToken(name="x")),
        lambda: control.services.exec_site(READER, "blog", ask.ExecSite(argv=("id",))),
        lambda: control.services.site_logs(READER, "blog"),
    ):
        with pytest.raises(Denied):
            call()


def test_dry_run_touches_nothing(control: Control) -> None:
    upload = control.upload()
    control.quiet()
    calls = len(control.agent.applied())
    view = control.services.preview_create(ROOT, ask.CreateSite(name="blog", upload=upload))
    assert [step.resource for step in view.steps] == [
        "release/current",
        "workload/0",
        "address/ipv4",
        "certificate/blog.localhost",
        "route/blog.localhost",
    ]
    assert view.others == 0 and view.site.ipv4 == "10.1.1.1"
    assert not control.services.list_sites(ROOT) and len(control.agent.applied()) == calls
    control.done(control.services.create_site(ROOT, ask.CreateSite(name="blog", upload=upload)))


def test_exec_names_the_live_instance(control: Control) -> None:
    control.app()
    control.done(control.services.set_site(ROOT, "app", ask.SetSite(env={"A": "1"})))
    grant = control.services.exec_site(ROOT, "app", ask.ExecSite(argv=("cat", "secret")))
    assert (grant.site, grant.slot) == (control.show("app").id, 1)
    control.services.exec_ended(grant, 3)
    change = control.services.show_change(ROOT, grant.change)
    assert (change.reason, change.result["exit_status"]) == ("cat", 3)
    control.done(control.services.stop_site(ROOT, "app"))
    with pytest.raises(Refused):
        control.services.exec_site(ROOT, "app", ask.ExecSite(argv=("id",)))


def test_images(control: Control) -> None:
    ended = control.done(control.services.import_image(ROOT, ask.ImportImage(upload=control.upload(b"image"))))
    key = str(ended.result["base"])
    control.done(control.services.create_site(ROOT, ask.CreateSite(name="web", base=key)))
    site = control.show("web")
    assert (site.processes[0].argv, site.port, site.base_key, site.env) == (("/bin/serve",), 80, key, {"LANG": "C"})
    with pytest.raises(Refused, match="use it"):
        control.services.delete_base(ROOT, key)
    with pytest.raises(InvalidInput, match="no base"):
        control.services.create_site(ROOT, ask.CreateSite(name="other", base="oci-0000000000000000"))


def test_tokens(control: Control) -> None:
    token = control.services.create_token(ROOT, ask.CreateToken(name="ci", role=Role.READER))
    assert token.secret is not None
    actor = control.services.authenticate(token.secret)
    assert actor is not None and (actor.name, actor.role) == ("ci", Role.READER)
    assert control.services.authenticate(token.secret + "x") is None
    short = control.services.create_token(ROOT, ask.CreateToken(name="short", expires_in_seconds=1))
    assert control.services.list_tokens(ROOT)[0].secret is None
    database = control.settings.database.read_bytes()
    assert token.secret.encode() not in database, "only the hash is stored"
    control.services.delete_token(ROOT, "ci")
    assert control.services.authenticate(token.secret) is None
    until(lambda: control.services.authenticate(short.secret or "") is None)


def test_a_token_of_a_scope_has_the_role_that_it_takes(control: Control) -> None:
    def role(**more: Any) -> str:
        return control.services.create_token(ROOT, ask.CreateToken(name=f"t{len(more['scope'])}", **more)).role

    assert role(scope=("upload.send", "version.send")) == "operator", "what a CI job needs"
    assert role(scope=("site.look",)) == "reader"
    assert role(scope=("site.list", "token.change", "site.look")) == "administrator"
    with pytest.raises(InvalidInput) as wrong:
        role(role=Role.READER, scope=("site.look", "upload.send", "version.send", "x.y"))
    told = {(each.message, each.hint) for each in wrong.value.problems}
    assert ("reader may not do upload.send, version.send", "give it the role operator") in told
    assert len(told) == 2, "all problems at once"


def test_plans(control: Control) -> None:
    plan = CreatePlan(name="tiny", cpu_millis=100, memory_bytes=64 << 20, pids=16)
    assert control.services.create_plan(ROOT, plan).limits.pids == 16
    with pytest.raises(Refused):
        control.services.create_plan(ROOT, plan)
    with pytest.raises(InvalidInput) as error:
        control.services.create_plan(ROOT, CreatePlan(name="A", cpu_millis=1, memory_bytes=1, pids=1))
    assert fields(error) == {"name", "cpu_millis", "memory_bytes", "pids"}
    control.static("blog", plan="tiny")
    with pytest.raises(Refused, match="1 sites have plan"):
        control.services.delete_plan(ROOT, "tiny")
    with pytest.raises(Refused, match="built in"):
        control.services.delete_plan(ROOT, "small")


def test_export(control: Control) -> None:
    control.static("blog", domains=("www.example.org",), path="/blog")
    for kind in ("nginx", "apache"):
        text = control.services.export(READER, kind).text
        assert "blog.localhost" in text and "www.example.org" in text and "/blog" in text
    with pytest.raises(InvalidInput):
        control.services.export(READER, "caddy")
