"""What modules and answers make of a site: the whole composition beside its golden file, and each rule by itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from alveole.catalogue.compose import Composition, SiteContext, compose, questions
from alveole.catalogue.sources import Catalogue, read_folder
from alveole.errors import InvalidInput
from alveole.model.site import BUILT_IN_PLANS, Application, UpdateMode, When

HERE = Path(__file__).resolve().parent
GOLDEN = HERE / "golden"
CONTEXT = SiteContext(
    name="my-blog", domain="my-blog.example.org", url="https://my-blog.example.org", limits=BUILT_IN_PLANS[1].limits
)


def made_up() -> Catalogue:
    modules, aside = read_folder(HERE / "catalogue", "tests", roots_only=False)
    assert aside == {}
    return Catalogue(modules)


def of(*asked: str, before: Application | None = None, **given: dict[str, Any]) -> Composition:
    generic = given.pop("generic", {})
    return compose(made_up(), asked, {"": generic, **given}, CONTEXT, before)


def problems(*asked: str, **given: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(InvalidInput) as caught:
        of(*asked, **given)
    return {each.field: str(each) for each in caught.value.problems}


@pytest.mark.parametrize("name", ["blog", "blog-apache-dev", "database-alone"])
def test_a_composition_is_as_its_golden_file(name: str) -> None:
    """Everything there is to a site, from three modules and two answers. ``ALVEOLE_GOLDEN=1`` writes anew."""
    password = {"password": 'it\'s; a "secret"'}
    asked, given = {
        "blog": (["blog"], {"mydb": password, "": {"title": "Ada's  pages"}}),
        "blog-apache-dev": (
            ["apache", "blog", "cache"],
            {"mydatabase": password, "": {"version": "dev", "optimisation": "big", "comments": "no"}},
        ),
        "database-alone": (["mydatabase"], {"": {"mydb.password": "x" * 12, "buffer": "8M"}}),
    }[name]
    made = msgspec.json.format(msgspec.json.encode(compose(made_up(), asked, given, CONTEXT), order="sorted"), indent=2)
    golden = GOLDEN / f"composed-{name}.json"
    if os.environ.get("ALVEOLE_GOLDEN"):
        golden.write_bytes(made + b"\n")
    assert made + b"\n" == golden.read_bytes()


def test_the_same_answers_make_the_same_site() -> None:
    first = of("blog")
    again = of("blog", before=first.application)
    assert again == first
    assert msgspec.json.encode(again, order="deterministic") == msgspec.json.encode(first, order="deterministic")


def test_a_password_is_made_once_and_kept() -> None:
    first, other = of("blog"), of("blog")
    password = first.application.answers["mydb"]["password"]
    assert isinstance(password, str) and len(password) == 24 and password.isalnum()
    assert password != other.application.answers["mydb"]["password"]
    assert first.secrets == (password,)
    changed = of("blog", before=first.application, blog={"title": "Other"})
    assert changed.application.answers["mydb"]["password"] == password
    anew = of("blog", before=first.application, mydb={"password": None})
    assert anew.application.answers["mydb"]["password"] not in (password, None, "")


def test_one_answer_changes_what_shows_it() -> None:
    first = of("blog")
    changed = of("blog", before=first.application, mydb={"buffer": "32M"})
    differ = [one.path for one, two in zip(first.files, changed.files, strict=True) if one != two]
    assert differ == ["mydb/my.cnf"]
    assert changed.files[0].restarts == ("mydb",)
    assert changed.run == first.run


def test_defaults_follow_what_they_are_computed_from() -> None:
    first = of("blog")
    assert first.application.answers["mydb"]["buffer"] == 16 << 20
    bigger = of("blog", before=first.application, generic={"optimisation": "huge"})
    assert bigger.application.answers["mydb"]["buffer"] == 256 << 20
    chosen = of("blog", before=first.application, mydb={"buffer": "8M"})
    kept = of("blog", before=chosen.application, generic={"optimisation": "huge"})
    assert kept.application.answers["mydb"]["buffer"] == 8 << 20
    back = of("blog", before=kept.application, mydb={"buffer": None})
    assert back.application.answers["mydb"]["buffer"] == 256 << 20
    assert back.application.given == {"": ("optimisation",)}


def test_what_was_changed_by_hand_stays() -> None:
    first = of("blog")
    by_hand = msgspec.structs.replace(first.application, kept_files={"mydb/my.cnf": "[mydb]\n", "gone": "x"})
    kept = of("blog", before=by_hand, mydb={"buffer": "32M"})
    assert {each.path: each.text for each in kept.files}["mydb/my.cnf"] == "[mydb]\n"
    assert kept.application.kept_files == {"mydb/my.cnf": "[mydb]\n"}


def test_conditions_leave_out_what_does_not_hold() -> None:
    with_them, without = of("blog"), of("blog", blog={"comments": False})
    assert [each.name for each in with_them.run.processes] == ["mydb", "nginx", "php", "worker"]
    assert [each.name for each in without.run.processes] == ["mydb", "nginx", "php"]
    settings = next(each for each in without.files if each.path == "blog/settings.php")
    assert settings.restarts == ("php",) and "$moderator = null;" in settings.text
    assert "moderator" not in without.application.answers["blog"]
    assert "libapache2-mod-evasive" in of("apache").packages
    assert "libapache2-mod-evasive" not in of("apache", generic={"version": "dev"}).packages


def test_the_strictest_module_decides() -> None:
    assert (of("blog").least_plan, of("blog").update) == ("medium", UpdateMode.STOP_START)
    assert (of("cache").least_plan, of("cache").update) == ("small", UpdateMode.BLUE_GREEN)


def test_an_answer_stays_one_argument() -> None:
    """Threat 11: neither an argument nor a word of a script can be added."""
    title = "x; rm -rf / $(id) `id` 'a' \"b\" --yes"
    made = of("blog", blog={"title": title})
    install = next(each for each in made.run.tasks if each.when is When.INSTALL)
    assert install.argv == ("/usr/bin/blog", "install", "--title", title)
    import shlex

    worker = next(each for each in made.run.processes if each.name == "worker")
    assert shlex.split(worker.argv[2]) == ["exec", "blog-worker", "--title", title]
    assert made.env == {"BLOG_TITLE": title}


def test_an_answer_is_never_a_template() -> None:
    """Threat 12: what looks like one is text."""
    title = "{{ ''.__class__.__mro__ }}{% include '/etc/passwd' %}"
    made = of("blog", blog={"title": title})
    text = next(each.text for each in made.files if each.path == "blog/settings.php")
    assert "{{ \\'\\'.__class__.__mro__ }}" in text


def test_everything_wrong_is_said_at_once() -> None:
    said = problems(
        "blog",
        blog={"titel": "x", "comments": "perhaps", "moderator": "nobody", "languages": "en,de"},
        mydb={"database": "No Such", "buffer": "1k"},
        nothere={"a": 1},
        generic={"version": "beta", "port": 1},
    )
    assert said["answers.blog.titel"].endswith("(did you mean 'title'?)")
    assert "neither yes nor no" in said["answers.blog.comments"]
    assert "'de' is not one of the choices (choose 'en' or 'fr')" in said["answers.blog.languages"]
    assert "lower-case letters" in said["answers.mydb.database"]
    assert said["answers.mydb.buffer"] == "answers.mydb.buffer: 1K is out of range (give at least 1M)"
    assert "has no module 'nothere'" in said["answers.nothere.a"]
    assert "'beta' is not one" in said["answers.version"]
    assert "is not a question" in said["answers.port"]


def test_a_line_feed_in_an_answer_is_refused() -> None:
    """Threat 11: CR, LF and NUL never get as far as a file."""
    for hostile in ("a\nb", "a\rb", "a\0b", "a\x1bb", "a\u2028b"):
        assert "control character" in problems("blog", blog={"title": hostile})["answers.blog.title"]


def test_a_question_is_named_by_itself_when_only_one_has_it() -> None:
    made = of("blog", generic={"title": "T", "mydb.password": "secret", "admin_mail": "a@example.org"})
    assert made.application.answers["blog"]["title"] == "T"
    assert made.application.given == {"": ("admin_mail",), "mydb": ("password",), "blog": ("title",)}
    assert made.application.answers["blog"]["moderator"] == "a@example.org"


def test_what_is_asked_hangs_on_the_answers() -> None:
    asked = questions(made_up(), ["blog"], {}, CONTEXT)
    fields = [each.field for each in asked]
    assert fields[:3] == ["answers.admin_mail", "answers.version", "answers.optimisation"]
    assert "answers.blog.moderator" in fields
    by_field = {each.field: each for each in asked}
    assert by_field["answers.blog.title"].value == "My Blog"
    assert by_field["answers.mydb.password"].value == "" and not by_field["answers.mydb.password"].must
    assert by_field["answers.mydb.buffer"].shown == "16M"
    without = questions(made_up(), ["blog"], {"blog": {"comments": "no"}}, CONTEXT)
    assert "answers.blog.moderator" not in [each.field for each in without]
    wrong = questions(made_up(), ["blog"], {"blog": {"comments": "perhaps"}}, CONTEXT)
    assert next(each for each in wrong if each.field == "answers.blog.comments").must
