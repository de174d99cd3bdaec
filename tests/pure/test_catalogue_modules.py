"""Folders of modules: read strictly, looked through for their author, and never trusted blindly."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alveole.catalogue import sources
from alveole.catalogue.compose import SiteContext, compose
from alveole.catalogue.lint import lint
from alveole.catalogue.new import SKELETON, new
from alveole.catalogue.reading import read_module
from alveole.catalogue.sources import Catalogue, load, read_folder
from alveole.errors import InvalidInput, Refused
from alveole.model.site import BUILT_IN_PLANS

MADE_UP = Path(__file__).resolve().parent / "catalogue"
CONTEXT = SiteContext(name="x", domain="x.example.org", url="https://x.example.org", limits=BUILT_IN_PLANS[1].limits)


def made_up() -> Catalogue:
    return Catalogue(read_folder(MADE_UP, "tests", roots_only=False)[0])


@pytest.fixture
def module(tmp_path: Path) -> Iterator[Path]:
    """The folder of a module that is as it should be."""
    yield new("my-forum", tmp_path, made_up())


def change(folder: Path, old: str, new_text: str, file: str = "module.toml") -> None:
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new_text))


def add(folder: Path, text: str) -> None:
    with (folder / "module.toml").open("a") as file:
        file.write(text)


def said(folder: Path, catalogue: Catalogue | None = None) -> list[str]:
    found = lint(folder, catalogue or made_up())
    return [f"{each.where}: {each.message}" + (f" ({each.hint})" if each.hint else "") for each in found]


def test_a_new_module_is_as_it_should_be(module: Path) -> None:
    assert said(module) == []
    read = read_module(module, "tests").module
    assert read is not None
    made = compose(Catalogue([read]), ["my-forum"], {"": {"title": "<b> & co"}}, CONTEXT)
    assert [each.argv[2] for each in made.run.processes] == ["/config/my-forum/nginx.conf"]
    page = next(each.text for each in made.files if each.path == "my-forum/www/index.html")
    assert "<h1>&lt;b&gt; &amp; co</h1>" in page
    assert "@" not in "".join(path.read_text() for path in module.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ["My-forum", "", "-x", "x-", "../x", "x" * 27, "1x", "x/y"])
def test_a_name_that_is_none(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="is not the name of a module"):
        new(name, tmp_path, made_up())
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="a module 'mydatabase' already"):
        new("mydatabase", tmp_path, made_up())
    new("mine", tmp_path, made_up())
    with pytest.raises(Refused, match="exists already"):
        new("mine", tmp_path, made_up())


def test_unknown_and_missing_keys_are_told_all_at_once(module: Path) -> None:
    change(module, 'icon = "box"', 'icons = "box"')
    change(module, 'category = "tool"', 'category = "toys"')
    add(module, '\n[[process]]\nnam = "x"\nargv = "sh"\norder = 100\n')
    lines = (module / "module.toml").read_text().splitlines()
    nam = lines.index('nam = "x"') + 1
    text = "\n".join(said(module))
    assert f"module.toml:{nam}: process[1].nam: is not a key of a module (did you mean 'name'?)" in text
    assert f"module.toml:{nam - 1}: process[1].name: is missing" in text
    assert f"module.toml:{nam + 1}: process[1].argv: a list is expected" in text
    assert f"module.toml:{nam + 2}: process[1].order: expected `int` <= 99" in text
    assert "icons: is not a key of a module (did you mean 'icon'?)" in text
    assert "category: Invalid enum value 'toys'" in text


def test_toml_that_is_none_says_the_line(module: Path) -> None:
    change(module, 'icon = "box"', "icon = box")
    assert said(module)[0].startswith("module.toml:6: is not TOML: ")


BROKEN: list[tuple[str, str, str]] = [
    ("order = 90", 'order = 90\nuser = "nobody"', "process[0].user: there is no user 'nobody'"),
    ('path = "@/nginx.conf"', 'path = "../../etc/cron.d/x"', "is no path below /config"),
    ('path = "@/nginx.conf"', 'path = "/etc/cron.d/x"', "is no path below /config"),
    ('path = "@/nginx.conf"', 'path = "@/../../x"', "is no path below /config"),
    ('file = "nginx.conf"', 'file = "../module.toml"', "there is no files/../module.toml"),
    ('template = "index.html"', 'template = "/etc/passwd"', "there is no templates//etc/passwd"),
    ('template = "index.html"', 'template = "indx.html"', "did you mean 'index.html'?"),
    ('restarts = ["@"]', 'restarts = ["nobody"]', "there is no process 'nobody'"),
    ('restarts = ["@"]', 'mode = "0666"', "0666 lets others write"),
    ('restarts = ["@"]', 'mode = "4755"', "Expected `str` matching regex"),
    ("mandatory = []\n\n# This", 'mandatory = ["nowhere"]\n\n# This', "there is no module 'nowhere'"),
    ('default_from = "site.name', 'default_from = "site.nam', "there is no site.nam"),
    ("max = 80", 'max = "80"', "question[0].max"),
    ("max = 80", "max = 2", "the default does not fit"),
    ("max = 80", 'pattern = "["', "is no regular expression"),
    ("max = 80", 'when = "{{ a.x }}"', "question[0].when"),
    ("max = 80", 'default = "a\\u0000b"', "control character"),
    ('name = "title"', 'name = "version"', "is asked once for every site"),
    ('type = "string"', 'type = "choice"', "has no choices"),
    ('health = "/"', 'health = "x"', "'x' is not a path"),
    ('contains = "<h1>"', 'argv = ["true"]', "needs either argv or path"),
    ('"-e", "stderr"]', '"-e", "{{ a.nothing }}"]', "there is no a.nothing"),
    ('name = "@"\nversion', 'name = "other"\nversion', "and the folder is 'my-forum'"),
]


@pytest.mark.parametrize(("old", "put", "message"), BROKEN, ids=[put[:40] for _, put, _ in BROKEN])
def test_what_is_broken_is_told(module: Path, old: str, put: str, message: str) -> None:
    """Threat 12 among them: no target outside of /config, no file from outside of the folder."""
    change(module, old.replace("@", "my-forum"), put.replace("@", "my-forum"))
    assert message.lower() in "\n".join(said(module)).lower()
    modules, aside = read_folder(module.parent, "tests", roots_only=False)
    composes = "there is no" in message and ("user" in message or "module" in message or "process" in message)
    if not composes and "default does not fit" not in message:
        assert modules == [] and set(aside) == {"my-forum"}


TEMPLATES: list[tuple[str, str]] = [
    ("<p title={{ a.title }}>", "templates/index.html:9: a value is printed inside a tag without quotes"),
    ("{{ ''.__class__ }}", "templates/index.html:9: '__class__': no name begins with an underscore"),
    ("{% include '/etc/passwd' %}", "templates/index.html:9: 'include' is not part of the language of modules"),
    ("{{ a.titel }}", "templates/index.html:9: there is no a.titel (known are title)"),
    ("{{ title }}", "templates/index.html:9: there is no 'title' (did you mean a.title?)"),
    ("{{ site.nothing }}", "templates/index.html:9: there is no site.nothing"),
    ("{{ answers.nowhere.x }}", "templates/index.html:9: there is no module 'nowhere'"),
    ("{{ answers.mydb.x }}", "templates/index.html:9: module 'mydb' has no question 'x'"),
    ("{{ a.title|nofilter }}", "templates/index.html:9: there is no filter 'nofilter'"),
    ("{{ a.title|plain }}", "answers.my-forum.title: cannot be written as plain"),
    ("{% if a.title %}", "templates/index.html:9: Unexpected end of template"),
    ("{{ answers.mydb.password }}", "templates/index.html:9: there is no answers.mydb"),
]


@pytest.mark.parametrize(("line", "message"), TEMPLATES, ids=[line for line, _ in TEMPLATES])
def test_what_is_wrong_in_a_template_is_told_with_its_line(module: Path, line: str, message: str) -> None:
    with (module / "templates/index.html").open("a") as file:
        file.write(f"\n{line}")
    found = said(module)
    assert any(message in each for each in found), found


def test_passwords_stay_out_of_arguments_and_of_files_for_everybody(module: Path) -> None:
    add(
        module,
        '\n[[question]]\nname = "key"\ntype = "password"\ntitle = { en = "Key", fr = "Clé" }\n'
        '[[process]]\nname = "other"\nargv = ["x", "--key={{ a.key }}"]\nready = ["true"]\n'
        '[[file]]\npath = "my-forum/key"\ntemplate = "key"\nformat = "shell"\n',
    )
    (module / "templates/key").write_text("{{ a.key }}\n")
    text = "\n".join(said(module))
    assert "process[1].argv[1]: shows the password 'key' to everybody who lists processes" in text
    assert "file[2].mode: every user of the container may read the password in my-forum/key" in text


def test_what_is_unwise_is_a_warning(module: Path) -> None:
    change(module, "order = 90", "order = 50")
    change(module, 'health = "/"', "port = 8080")
    change(
        module,
        'fr = "Montre une page avec un titre de votre choix."',
        'fr = "Shows one page with a title of your choice."',
    )
    add(module, '\n[[volume]]\nname = "data"\npath = "/data/my-forum"\nbackup = "cold"\n')
    found = lint(module, made_up())
    assert all(each.warning for each in found)
    text = "\n".join(each.message for each in found)
    for message in (
        "nothing says when",
        "no health path",
        "is the English text",
        "two instances would share",
        "leaves out",
    ):
        assert message in text


def test_a_value_that_a_program_would_run_is_told(module: Path) -> None:
    """Threat 11: a shell's script is quoted by itself, other languages' are refused."""
    change(module, '"-e", "stderr"]', '"-e", "stderr"]\nready = ["python3", "-c", "print({{ a.title }})"]')
    assert any("puts a value into what python3 runs as a program" in each for each in said(module))
    change(module, '"python3", "-c", "print({{ a.title }})"', '"sh", "-c", "echo \'{{ a.title }}\'"')
    assert any("a value is printed between quotes" in each for each in said(module))
    change(module, "echo '{{ a.title }}'", "echo {{ a.title }}")
    assert said(module) == []


def test_what_does_not_belong_is_told(module: Path) -> None:
    (module / "templates/unused").write_text("x")
    (module / "setup.py").write_text("x")
    text = "\n".join(said(module))
    assert "templates/unused: is named by no [[file]]" in text
    assert "setup.py: does not belong in a module" in text


def test_a_folder_holds_files_only(module: Path) -> None:
    """Threat 12: a link would take a file of this machine into a site."""
    (module / "templates/passwd").symlink_to("/etc/passwd")
    assert any("links are not followed" in each for each in said(module))
    (module / "templates/passwd").unlink()
    os.mkfifo(module / "files/pipe")
    assert any("neither a file nor a folder" in each for each in said(module))


def test_sizes_are_bounded(module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alveole.catalogue.reading.MOST_FILES", 2)
    assert any("or 2 files" in each for each in said(module))
    monkeypatch.undo()
    (module / "templates/index.html").write_text("x" * (1 << 20) + "y")
    assert any("is larger than 1 MiB" in each for each in said(module))
    (module / "templates/index.html").write_bytes(b"\xff")
    assert any("is not UTF-8" in each for each in said(module))


def test_what_an_interpreter_or_git_left_is_no_part_of_a_module(module: Path) -> None:
    before = read_module(module, "tests").module
    for name in ("files/__pycache__", "__pycache__", ".git"):
        (module / name).mkdir(parents=True)
        (module / name / "left").write_bytes(b"\xff\x00")
    assert read_module(module, "tests").module == before
    assert said(module) == []


def test_the_digest_is_of_all_files(module: Path) -> None:
    def digest() -> str:
        found = read_module(module, "tests").module
        assert found is not None
        return found.digest

    first = digest()
    os.utime(module / "module.toml", (1, 1))
    assert digest() == first
    (module / "content").mkdir()
    (module / "content/x").write_text("x")
    second = digest()
    assert second != first
    (module / "content/x").rename(module / "content/y")
    assert digest() not in (first, second)
    shutil.rmtree(module / "content")
    assert digest() == first


def test_a_broken_module_takes_nothing_down(tmp_path: Path) -> None:
    new("good", tmp_path, made_up())
    change(new("bad", tmp_path, made_up()), 'icon = "box"', "")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "good")
    (tmp_path / "file").write_text("")
    catalogue = load(own=tmp_path / "none", admin=tmp_path / "none", extra=[("tests", tmp_path)])
    assert set(catalogue.modules) == {"good"}
    assert catalogue.aside == {
        "bad": "module.toml: icon: is missing",
        "empty": "module.toml: cannot be read: No such file or directory",
        "link": "it is a link: a module is a folder",
    }
    with pytest.raises(InvalidInput, match="module 'bad' is set aside: module"):
        compose(catalogue, ["bad"], {}, CONTEXT)


@pytest.mark.root
def test_modules_of_this_machine_belong_to_root(tmp_path: Path) -> None:
    """Threat 12: nobody but root says what runs."""
    for name in ("good", "open", "others", "deep"):
        new(name, tmp_path, made_up())
    (tmp_path / "open/module.toml").chmod(0o666)
    os.chown(tmp_path / "others", 12345, 0)
    os.chown(tmp_path / "deep/templates/index.html", 12345, 0)
    tmp_path.chmod(0o755)
    catalogue = load(own=tmp_path / "none", admin=tmp_path)
    assert set(catalogue.modules) == {"good"}
    assert "may be written by others" in catalogue.aside["open"]
    assert "others does not belong to root" in catalogue.aside["others"]
    assert "index.html does not belong to root" in catalogue.aside["deep"]
    tmp_path.chmod(0o777)
    assert load(own=tmp_path / "none", admin=tmp_path).modules == {}


def test_the_catalogue_is_read_again_when_something_changed(tmp_path: Path) -> None:
    def now() -> Catalogue:
        return load(own=tmp_path, admin=tmp_path / "none")

    folder = new("one", tmp_path, made_up())
    first = now()
    assert now() is first
    change(folder, "box", "boxes")
    assert now() is not first and now().modules["one"].digest != first.modules["one"].digest
    new("two", tmp_path, made_up())
    assert set(now().modules) == {"one", "two"}


def test_no_module_takes_the_name_of_another(tmp_path: Path) -> None:
    for place in ("a", "b"):
        new("same", tmp_path / place, made_up())
    catalogue = load(own=tmp_path / "a", admin=tmp_path / "none", extra=[("b", tmp_path / "b")])
    assert catalogue.modules["same"].origin == sources.OWN
    assert catalogue.aside == {"same": "b has a module of a name that is taken"}


def clash(tmp_path: Path, one: str, two: str) -> list[str]:
    found = []
    for name, text in (("one", one), ("two", two)):
        folder = new(name, tmp_path, made_up())
        if name == "two":
            change(folder, '[web]\nhealth = "/"', "")
        add(folder, text)
        read = read_module(folder, "tests").module
        assert read is not None
        found.append(read)
    with pytest.raises(InvalidInput) as caught:
        compose(Catalogue(found), ["one", "two"], {"one": {"title": "x"}, "two": {"title": "x"}}, CONTEXT)
    return [str(each) for each in caught.value.problems]


ACCOUNT = '[[account]]\nname = "{}"\nuid = {}\n'
VOLUME = '[[volume]]\nname = "{}"\npath = "{}"\n'
PROCESS = '[[process]]\nname = "{}"\nargv = ["x"]\n'


@pytest.mark.parametrize(
    ("one", "two", "message"),
    [
        (ACCOUNT.format("a", 3001), ACCOUNT.format("b", 3001), "'one' and 'two' both have the account id 3001"),
        (ACCOUNT.format("a", 3001), ACCOUNT.format("a", 3002), "'one' and 'two' both have an account named 'a'"),
        (PROCESS.format("p"), PROCESS.format("p"), "'one' and 'two' both have a process named 'p'"),
        (VOLUME.format("v", "/data/a"), VOLUME.format("v", "/data/b"), "both have a volume named 'v'"),
        (VOLUME.format("v", "/data/a"), VOLUME.format("v", "/data/a") + 'backup = "never"\n', "a volume named 'v'"),
        (VOLUME.format("v", "/data/a"), VOLUME.format("w", "/data/a/b"), "lies in /data/a of 'one'"),
        (VOLUME.format("v", "/data/a"), VOLUME.format("w", "/data/a"), "lies in /data/a of 'one'"),
        ('[env]\nX = "1"\n', '[env]\nX = "2"\n', "'one' and 'two' both have the variable X of every process"),
    ],
)
def test_modules_that_clash_are_both_named(tmp_path: Path, one: str, two: str, message: str) -> None:
    assert any(message in each for each in clash(tmp_path, one, two)), clash


def test_what_two_modules_say_alike_is_no_clash(tmp_path: Path) -> None:
    found: list[Any] = []
    for name in ("one", "two"):
        folder = new(name, tmp_path, made_up())
        if name == "two":
            change(folder, '[web]\nhealth = "/"', "")
        add(folder, ACCOUNT.format("shared", 3001) + VOLUME.format("v", "/data/v") + '[env]\nX = "1"\n')
        found.append(read_module(folder, "tests").module)
    made = compose(Catalogue(found), ["one", "two"], {}, CONTEXT)
    assert [each.uid for each in made.run.accounts] == [3001] and made.env == {"X": "1"}
    assert [each.path for each in made.volumes] == ["/data/v"]


def test_the_skeleton_explains_itself() -> None:
    text = (SKELETON / "module.toml").read_text()
    assert text.count("#") > 8 and "docs/reference/module.md" in text
