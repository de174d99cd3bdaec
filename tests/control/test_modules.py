"""Sites of modules: made, configured, changed by hand, saved and given back; over a fake agent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from controlkit import READER, ROOT, Control, make_settings, until
from modulekit import write_module

from alveole import requests as ask
from alveole.errors import AlveoleError, Denied, InvalidInput, NotFound, Refused
from alveole.model.change import Change, ChangeState
from alveole.model.resource import Action, ConfigSpec, Kind, WorkloadSpec
from alveole.model.site import HealthCheck, Kept, UpdateMode
from alveole.testing import FakeAgent
from alveole.views import FileFate, State

SECRET = 'it\'s "so" secret & <b>'


@pytest.fixture
def control(directory: Path) -> Iterator[Control]:
    modules = directory / "modules"
    write_module(modules)
    write_module(modules, "single", 'update = "stop-start"')
    write_module(modules, "pages", content="<h1>its own</h1>")
    made = Control(make_settings(directory, modules={"directory": str(modules)}), FakeAgent())
    yield made
    made.services.close()
    assert not made.agent.violations


def make(control: Control, name: str = "blog", module: str = "hello", **more: Any) -> Change:
    answers = {"title": "Hi", "secret": SECRET, **more.pop("answers", {})}
    request = ask.CreateSite(name=name, modules=(module,), answers=answers, **more)
    return control.done(control.services.create_site(ROOT, request))


def configure(control: Control, name: str = "blog", state: ChangeState = ChangeState.DONE, **more: Any) -> Change:
    return control.done(control.services.configure_site(ROOT, name, ask.ConfigureSite(**more)), state)


def files(control: Control, name: str = "blog") -> dict[str, str]:
    """The configuration files as the agent was last told to write them."""
    site = control.services.store.site(name)
    assert site is not None
    spec = next(
        thing.spec for id, thing in control.agent.things.items() if id.kind is Kind.CONFIG and id.scope == site.site.id
    )
    assert isinstance(spec, ConfigSpec)
    return {each.path: each.text for each in spec.files}


def workload(control: Control, name: str = "blog") -> WorkloadSpec:
    site = control.services.store.site(name)
    assert site is not None
    specs = [
        thing.spec
        for id, thing in control.agent.things.items()
        if id.kind is Kind.WORKLOAD and id.scope == site.site.id
    ]
    assert len(specs) == 1 and isinstance(specs[0], WorkloadSpec)
    return specs[0]


def with_check(control: Control, name: str = "blog", *, path: str = "/login") -> None:
    """The site as if one of its modules had declared a check."""
    stored = control.services.store.site(name)
    assert stored is not None
    run = msgspec.structs.replace(stored.site.run, checks=(HealthCheck("page", path=path, contains="Log in"),))
    with control.services.store.write() as transaction:
        transaction.save_site(msgspec.structs.replace(stored.site, run=run))


def test_why_asks_what_the_modules_check(control: Control) -> None:
    make(control)
    with_check(control)
    (link,) = [link for link in control.services.why(ROOT, "blog").links if link.name == "check page"]
    assert link.ok and (link.asked, link.came) == ("/login", "well")
    control.agent.unhealthy["page"] = "status 200 without 'Log in'"
    (link,) = [link for link in control.services.why(ROOT, "blog").links if link.name == "check page"]
    assert not link.ok and link.came == "status 200 without 'Log in'"
    control.done(control.services.stop_site(ROOT, "blog"))
    assert not [link for link in control.services.why(ROOT, "blog").links if link.name.startswith("check")]


def test_a_check_that_fails_after_configure_is_a_warning(control: Control) -> None:
    """The site answers, so nothing is taken back: the result says what does not work."""
    more = '[[check]]\nname = "page"\npath = "/login"\n'
    folder = Path(control.settings.modules.directory) / "hello/module.toml"
    folder.write_text(f"{folder.read_text()}\n{more}")
    make(control)
    assert "warning" not in configure(control, answers={"title": "All well"}).result
    control.agent.unhealthy["page"] = "status 500"
    ended = configure(control, answers={"title": "Half well"})
    assert ended.result["warning"] == "check page fails: /login: status 500"
    assert [event.text for event in ended.events if event.level == "warning"] == [ended.result["warning"]]
    assert files(control)["hello/page.ini"].startswith('title = "Half well"')


def test_it_is_told_which_passwords_were_made_up_and_how_processes_are(control: Control) -> None:
    make(control)
    site = control.show("blog")
    assert site.application is not None and site.application.made_up == (), "somebody gave it"
    assert [(each.name, each.state, each.wanted) for each in site.process_states] == [
        ("web", "up", True),
        ("worker", "up", True),
    ]
    request = ask.CreateSite(name="other", modules=("hello",), answers={"title": "Hi"})
    control.done(control.services.create_site(ROOT, request))
    listed = {each.name: each for each in control.services.list_sites(ROOT)}
    other = listed["other"]
    assert other.application is not None and other.application.made_up == ("hello.secret",)
    assert other.process_states == ()
    control.done(control.services.stop_site(ROOT, "blog"))
    assert control.show("blog").process_states == ()


# --- making -----------------------------------------------------------------------------------
def test_a_site_is_composed_of_its_modules(control: Control) -> None:
    make(control)
    site = control.show("blog")
    assert (site.plan, site.base, site.state) == ("medium", "debian+python3-minimal", State.RUNNING)
    assert [each.name for each in site.processes] == ["web", "worker"]
    assert site.volumes[0].backup is Kept.COLD and site.port == 8080
    assert files(control)["hello/page.ini"].startswith('title = "Hi"')
    assert 'database = "blog"' in files(control)["hello/secret.ini"]
    assert site.application is not None and list(site.application.modules) == ["hello"]
    assert site.application.given == {"hello": ("title", "secret")}
    assert workload(control).config and workload(control).volumes[0].uid == 1000


def test_what_is_wrong_is_told_all_at_once(control: Control) -> None:
    request = ask.CreateSite(
        name="Blog!", modules=("hello",), answers={"titel": "x", "workers": "many"}, port=80, packages=("vim",)
    )
    with pytest.raises(InvalidInput) as caught:
        control.services.create_site(ROOT, request)
    fields = {problem.field for problem in caught.value.problems}
    assert fields == {"name", "answers.titel", "answers.hello.title", "answers.hello.workers", "port", "packages"}
    with pytest.raises(InvalidInput, match="did you mean 'hello'"):
        control.services.create_site(ROOT, ask.CreateSite(name="x", modules=("helo",)))
    with pytest.raises(InvalidInput, match="no module that asks"):
        control.services.create_site(ROOT, ask.CreateSite(name="x", answers={"title": "x"}, command=("x",)))


def test_a_plan_that_is_too_small_is_refused_with_the_reason(control: Control) -> None:
    request = ask.CreateSite(name="blog", modules=("hello",), answers={"title": "x"}, plan="small")
    with pytest.raises(Refused, match="128 MiB of memory, 512 are needed"):
        control.services.create_site(ROOT, request)
    make(control)
    with pytest.raises(Refused, match="too small"):
        control.services.set_site(ROOT, "blog", ask.SetSite(plan="small"))
    control.done(control.services.set_site(ROOT, "blog", ask.SetSite(plan="large", env={"A": "1"})))
    assert control.show("blog").env == {"A": "1"}


def test_a_module_brings_its_own_content_unless_there_is_other(control: Control) -> None:
    make(control, module="pages")
    own = control.show("blog").release
    assert own is not None
    make(control, "other", module="pages", upload=control.upload(b"mine"))
    assert control.show("other").release not in (None, own)
    assert not list((control.settings.database.parent / "uploads").iterdir())


def test_a_refused_create_leaves_no_content_behind(control: Control) -> None:
    make(control, module="pages")
    with pytest.raises(AlveoleError):
        make(control, module="pages")
    assert not list((control.settings.database.parent / "uploads").iterdir())


def test_a_preview_shows_the_files_and_does_nothing(control: Control) -> None:
    request = ask.CreateSite(name="blog", modules=("hello",), answers={"title": "Hi", "secret": SECRET})
    found = control.services.preview_create(ROOT, request)
    assert [each.path for each in found.files] == ["hello/page.ini", "hello/secret.ini"]
    assert '+secret = "***"' in found.files[1].diff and found.site.plan == "medium"
    assert not control.services.store.sites and found.site.base_key not in control.services.store.bases


def test_what_the_modules_say_is_not_set_otherwise(control: Control) -> None:
    make(control)
    request = ask.SetSite(command=("x",), port=1, volumes=(), packages=("vim",), base="host", health="/x")
    with pytest.raises(InvalidInput) as caught:
        control.services.set_site(ROOT, "blog", request)
    fields = {problem.field for problem in caught.value.problems}
    assert fields >= {"command", "port", "volumes", "packages", "base", "health"}
    with pytest.raises(Refused, match="not made of modules"):
        control.app()
        control.services.configure_site(ROOT, "app", ask.ConfigureSite())


# --- configuring --------------------------------------------------------------------------------
def test_one_answer_changes_one_file_and_no_instance(control: Control) -> None:
    make(control)
    before, made = workload(control), len(control.agent.applied(Kind.WORKLOAD))
    plan = control.services.preview_configure(ROOT, "blog", ask.ConfigureSite(answers={"title": "Ho"}))
    assert [(each.path, each.fate) for each in plan.files] == [("hello/page.ini", FileFate.CHANGED)]
    assert (plan.restarts, plan.instance, plan.refused) == (("web",), "", ())
    assert '-title = "Hi"' in plan.files[0].diff and '+title = "Ho"' in plan.files[0].diff
    change = configure(control, answers={"title": "Ho"})
    assert change.reason == "hello.title"
    assert files(control)["hello/page.ini"].startswith('title = "Ho"')
    assert workload(control) == before and len(control.agent.applied(Kind.WORKLOAD)) == made


def test_answers_stay_and_can_be_taken_back(control: Control) -> None:
    make(control, answers={"workers": 3})
    configure(control, answers={"optimisation": "big"})
    assert "workers = 3" in files(control)["hello/secret.ini"] and "secret" in files(control)["hello/secret.ini"]
    configure(control, unset=("workers",))
    assert "workers = 2" in files(control)["hello/secret.ini"]
    site = control.services.store.site("blog")
    assert site is not None and site.site.application is not None
    assert site.site.application.given == {"": ("optimisation",), "hello": ("title", "secret")}
    assert site.site.application.answers["hello"]["secret"] == SECRET


def test_what_describes_the_data_outlives_another_name(control: Control) -> None:
    make(control)
    control.done(control.services.rename_site(ROOT, "blog", ask.RenameSite(name="journal")))
    configure(control, "journal")
    assert 'database = "blog"' in files(control, "journal")["hello/secret.ini"]
    assert "journal.localhost" in files(control, "journal")["hello/page.ini"]
    site = control.services.store.site("journal")
    assert site is not None and site.site.application is not None
    assert site.site.application.given == {"hello": ("title", "secret")}, "still nobody's answer"
    configure(control, "journal", unset=("database",))
    assert 'database = "journal"' in files(control, "journal")["hello/secret.ini"]


def test_modules_come_and_go(control: Control) -> None:
    make(control, env={"MINE": "1"})
    plan = control.services.preview_configure(ROOT, "blog", ask.ConfigureSite(add_modules=("redis",)))
    assert plan.modules == {"redis": "added"} and "processes" in plan.instance and plan.base
    configure(control, add_modules=("redis",))
    site = control.show("blog")
    assert "redis" in [each.name for each in site.processes] and site.env["MINE"] == "1"
    with pytest.raises(InvalidInput, match="not one of its modules"):
        configure(control, remove_modules=("mariadb",))
    configure(control, remove_modules=("redis",))
    assert [each.name for each in control.show("blog").processes] == ["web", "worker"]


@pytest.mark.parametrize("module", ["hello", "single"])
def test_a_failed_configure_goes_back(control: Control, module: str) -> None:
    make(control, module=module)
    old = files(control)
    site = control.show("blog")
    control.agent.fail_next(Kind.CONFIG, Action.REPLACE, "web did not start again", temporary=False, tail=("Oh no",))
    ended = configure(control, state=ChangeState.FAILED, answers={"title": "Ho"})
    assert "Oh no" in ended.problems[0].message
    after = control.show("blog")
    assert files(control) == old and after.state is State.RUNNING and after.version > site.version
    answers = control.services.site_answers(ROOT, "blog").answers
    assert answers[module]["title"] == "Hi"


def test_a_stopped_site_is_configured_and_starts_so(control: Control) -> None:
    make(control)
    control.done(control.services.stop_site(ROOT, "blog"))
    plan = control.services.preview_configure(ROOT, "blog", ask.ConfigureSite(answers={"title": "Ho"}))
    assert (plan.restarts, plan.instance) == ((), "") and plan.files
    configure(control, answers={"title": "Ho"}, add_modules=("redis",))
    assert files(control)["hello/page.ini"].startswith('title = "Ho"')
    control.done(control.services.start_site(ROOT, "blog"))
    assert "redis" in [each.name for each in workload(control).processes]


def test_a_request_that_is_sent_again_takes_effect_once(control: Control) -> None:
    """Fault 2."""
    make(control)
    request = ask.ConfigureSite(answers={"title": "Ho"})
    first = control.services.configure_site(ROOT, "blog", request, key="k")
    control.done(first)
    assert control.services.configure_site(ROOT, "blog", request, key="k").id == first.id
    with pytest.raises(Refused, match="another request"):
        control.services.configure_site(ROOT, "blog", ask.ConfigureSite(answers={"title": "Hm"}), key="k")
    with pytest.raises(Refused, match="was changed meanwhile"):
        control.services.configure_site(ROOT, "blog", request, version=1)


# --- stop and start -----------------------------------------------------------------------------
def test_a_site_that_cannot_share_its_data_never_has_two_instances(control: Control) -> None:
    make(control, module="single", upload=control.upload(b"one"))
    site = control.show("blog")
    assert site.application is not None and site.application.update == UpdateMode.STOP_START
    steps = [
        lambda: control.services.update_site(ROOT, "blog", ask.UpdateSite(upload=control.upload(b"two"))),
        lambda: control.services.set_site(ROOT, "blog", ask.SetSite(env={"A": "1"})),
        lambda: control.services.configure_site(ROOT, "blog", ask.ConfigureSite(add_modules=("redis",))),
    ]
    for step in steps:
        control.done(step())
        until(lambda: "workload/1" not in control.agent.of(site.id))
    slots = {step.id.name for step in control.agent.applied(Kind.WORKLOAD) if step.id.scope == site.id}
    assert slots == {"0"}


def test_a_failed_stop_start_update_goes_back_in_the_same_slot(control: Control) -> None:
    make(control, module="single", upload=control.upload(b"one"))
    site = control.show("blog")
    for _try in range(2):
        control.agent.fail_next(Kind.WORKLOAD, Action.REPLACE, "did not answer")
    change = control.services.update_site(ROOT, "blog", ask.UpdateSite(upload=control.upload(b"two")))
    control.done(change, ChangeState.FAILED)
    after = control.show("blog")
    assert (after.release, after.state) == (site.release, State.RUNNING)
    assert workload(control).release == site.release and workload(control).slot == 0


def test_the_old_data_stays_until_the_restored_is_ready(control: Control) -> None:
    """A restore that fails, of a site whose instances cannot stand side by side, has a way back."""
    make(control, module="single")
    site = control.show("blog")
    backup = str(control.done(control.services.create_backup(ROOT, ask.CreateBackup(site="blog"))).result["backup"])
    for _try in range(2):
        control.agent.fail_next(Kind.WORKLOAD, Action.REPLACE, "did not answer")
    control.done(control.services.restore_backup(ROOT, backup, ask.RestoreBackup()), ChangeState.FAILED)
    deleted = [step for step in control.agent.applied(Kind.STORAGE) if step.action is Action.DELETE]
    assert [step.id.name for step in deleted] in ([], ["2"])
    assert workload(control).data_generation == 1 and control.show("blog").state is State.RUNNING
    control.done(control.services.restore_backup(ROOT, backup, ask.RestoreBackup()))
    until(lambda: {each for each in control.agent.of(site.id) if each.startswith("storage")} == {"storage/2"})


# --- by hand ------------------------------------------------------------------------------------
def by_hand(control: Control, path: str = "hello/page.ini", text: str | None = "title = mine\n") -> str:
    id = control.show("blog").id
    control.agent.change_by_hand(id, path, text)
    until(lambda: "changed by hand" in control.show("blog").problem)
    return id


def test_a_file_changed_by_hand_is_told_and_never_repaired(control: Control) -> None:
    make(control)
    steps = len(control.agent.applied(Kind.CONFIG))
    by_hand(control)
    site = control.show("blog")
    assert site.state is State.RUNNING and "hello/page.ini was changed by hand" in site.problem
    assert site.application is not None
    assert [each.path for each in site.application.files if each.changed_by_hand] == ["hello/page.ini"]
    assert "hello/page.ini" in control.services.status(ROOT).changed_by_hand["blog"]
    assert "changed by hand" in control.services.why(ROOT, "blog").site.problem
    control.done(control.services.restart_site(ROOT, "blog"))
    control.done(control.services.set_site(ROOT, "blog", ask.SetSite(https_only=True)))
    assert len(control.agent.applied(Kind.CONFIG)) == steps


def test_a_file_in_the_way_is_refused_by_name(control: Control) -> None:
    make(control)
    by_hand(control)
    plan = control.services.preview_configure(ROOT, "blog", ask.ConfigureSite(answers={"title": "Ho"}))
    assert plan.refused == ("hello/page.ini",)
    with pytest.raises(Refused) as caught:
        control.services.configure_site(ROOT, "blog", ask.ConfigureSite(answers={"title": "Ho"}))
    assert [problem.field for problem in caught.value.problems] == ["hello/page.ini"]
    # What does not touch it is free to go on.
    configure(control, answers={"workers": 5})
    assert control.agent.by_hand[control.show("blog").id] == {"hello/page.ini": "title = mine\n"}


def test_a_kept_file_stays_until_it_is_taken_back(control: Control) -> None:
    make(control)
    by_hand(control)
    configure(control, answers={"title": "Ho"}, keep=("hello/page.ini",))
    until(lambda: control.show("blog").problem == "")
    configure(control, answers={"title": "Hum"})
    assert files(control)["hello/page.ini"] == "title = mine\n"
    site = control.show("blog")
    assert site.application is not None
    assert [each.path for each in site.application.files if each.kept] == ["hello/page.ini"]
    configure(control, take_back=("hello/page.ini",))
    assert files(control)["hello/page.ini"].startswith('title = "Hum"')


def test_a_change_is_given_up(control: Control) -> None:
    make(control)
    by_hand(control)
    configure(control, take_back_all=True)
    assert files(control)["hello/page.ini"].startswith('title = "Hi"')
    assert control.show("blog").problem == "" and not control.agent.by_hand[control.show("blog").id]


def test_what_cannot_be_kept_or_taken_back_is_told(control: Control) -> None:
    make(control)
    for more in ({"keep": ("hello/page.ini",)}, {"take_back": ("nothing",)}, {"keep_all": True, "take_back_all": True}):
        with pytest.raises(InvalidInput):
            configure(control, **more)
    by_hand(control, text=None)
    with pytest.raises(InvalidInput, match="cannot be kept"):
        configure(control, keep_all=True)


def test_a_failure_loses_nothing_that_was_typed(control: Control) -> None:
    make(control)
    by_hand(control)
    control.agent.fail_next(Kind.CONFIG, Action.REPLACE, temporary=False)
    configure(control, state=ChangeState.FAILED, answers={"title": "Ho"}, take_back_all=True)
    assert files(control)["hello/page.ini"] == "title = mine\n"


# --- saving -------------------------------------------------------------------------------------
def save(control: Control, name: str = "blog") -> str:
    return str(control.done(control.services.create_backup(ROOT, ask.CreateBackup(site=name))).result["backup"])


def test_everything_survives_destruction(control: Control) -> None:
    make(control, env={"MINE": "1"})
    by_hand(control)
    before = control.services.store.site("blog")
    assert before is not None
    backup = save(control)
    control.done(control.services.stop_site(ROOT, "blog"))
    until(lambda: control.show("blog").state is State.STOPPED)
    control.done(control.services.destroy_site(ROOT, "blog", ask.DestroySite(confirm="blog")))
    control.done(control.services.restore_backup(ROOT, backup, ask.RestoreBackup()))
    after = control.services.store.site("blog")
    assert after is not None and before.site.application is not None and after.site.application is not None
    for field in ("run", "volumes", "env", "base", "plan"):
        assert getattr(after.site, field) == getattr(before.site, field), field
    assert after.site.application.answers == before.site.application.answers
    assert files(control)["hello/page.ini"] == "title = mine\n", "typed by hand, so it stays"
    assert after.site.application.kept_files == {"hello/page.ini": "title = mine\n"}


def test_a_copy_has_the_passwords_of_its_data_and_its_own_name(control: Control) -> None:
    make(control, answers={"secret": None})
    backup = save(control)
    control.done(control.services.restore_backup(ROOT, backup, ask.RestoreBackup(name="copy")))
    one, other = files(control), files(control, "copy")
    assert one["hello/secret.ini"] == other["hello/secret.ini"]
    assert "copy.localhost" in other["hello/page.ini"] and "blog.localhost" not in other["hello/page.ini"]


def test_a_copy_whose_module_is_another_by_now_stays_as_it_was(control: Control) -> None:
    make(control)
    backup = save(control)
    page = Path(control.settings.modules.directory) / "hello/templates/page.ini"
    page.write_text(page.read_text() + "more = 1\n")
    ended = control.done(control.services.restore_backup(ROOT, backup, ask.RestoreBackup(name="copy")))
    assert any("not here as it was" in event.text for event in ended.events)
    assert files(control) == files(control, "copy")


def test_a_restore_does_not_overwrite_what_was_typed(control: Control) -> None:
    make(control)
    backup = save(control)
    configure(control, answers={"title": "Ho"})
    by_hand(control)
    ended = control.done(control.services.restore_backup(ROOT, backup, ask.RestoreBackup()), ChangeState.FAILED)
    assert [problem.field for problem in ended.problems] == ["hello/page.ini"]


# --- secrets and rights -------------------------------------------------------------------------
def test_no_secret_leaves_but_on_demand(control: Control) -> None:
    """Neither in journals, documents nor errors."""
    make(control)
    configure(control, answers={"secret": "another-" + SECRET, "title": "Ho"})
    services = control.services
    documents: list[Any] = [
        services.list_sites(ROOT),
        services.show_site(ROOT, "blog"),
        services.site_answers(ROOT, "blog"),
        services.preview_configure(ROOT, "blog", ask.ConfigureSite(answers={"secret": "third-" + SECRET})),
        services.why(ROOT, "blog"),
        *(services.journal.get(each.id) for each in services.journal.list(limit=100)),
    ]
    text = msgspec.json.encode(documents).decode()
    for piece in ("so", "secret & ", "another-it", "third-it"):
        assert f"{piece}\\" not in text and "secret &" not in text, piece
    assert services.site_answers(ROOT, "blog", show_secrets=True).answers["hello"]["secret"] == "another-" + SECRET
    with pytest.raises(Denied):
        services.site_answers(READER, "blog", show_secrets=True)
    with pytest.raises(Denied):
        services.preview_configure(READER, "blog", ask.ConfigureSite())
    with pytest.raises(Denied):
        services.configure_site(READER, "blog", ask.ConfigureSite(answers={"title": "x"}))


# --- looking ------------------------------------------------------------------------------------
def test_the_catalogue_is_shown(control: Control) -> None:
    names = [each.name for each in control.services.list_modules(READER)]
    assert {"hello", "wordpress", "redis"} <= set(names) and names == sorted(names)
    shown = control.services.show_module(READER, "hello")
    assert shown.least_plan == "medium" and shown.packages == ("python3-minimal",)
    assert shown.example.endswith("--set title=…")
    assert {each.name: each.secret for each in shown.questions}["secret"] is True
    with pytest.raises(NotFound):
        control.services.show_module(READER, "nothing")
    Path(control.settings.modules.directory, "broken").mkdir()
    with pytest.raises(NotFound, match="set aside"):
        control.services.show_module(READER, "broken")


def test_questions_are_answered_step_by_step(control: Control) -> None:
    request = ask.AskModules(modules=("hello",), name="my-blog")
    found = control.services.ask_modules(READER, request)
    by_name = {each.name: each for each in found.questions}
    assert by_name["database"].default == "my_blog" and by_name["title"].must and not by_name["secret"].must
    assert found.plan == "medium" and found.modules == ("hello",)
    found = control.services.ask_modules(READER, msgspec.structs.replace(request, answers={"optimisation": "big"}))
    assert {each.name: each.shown for each in found.questions}["workers"] == "2"
    found = control.services.ask_modules(READER, msgspec.structs.replace(request, answers={"title": "x" * 50}))
    title = next(each for each in found.questions if each.name == "title")
    assert title.answered and "50" in title.problem
    with pytest.raises(InvalidInput):
        control.services.ask_modules(READER, msgspec.structs.replace(request, answers={"nonsense": 1}))
