"""Rules that every file of the project keeps, so that a reader finds the same care everywhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from alveole.config import Settings, parse

ROOT = Path(__file__).resolve().parent.parent
MOST_LINES = 600
#: Written by programs, or words that are not ours.
GENERATED = {"requirements.txt", "requirements-dev.txt", "LICENSE"}


def _tracked() -> list[Path]:
    argv = ["git", "-c", "safe.directory=*", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others"]
    try:
        names = subprocess.run([*argv, "--exclude-standard"], check=True, capture_output=True, text=True).stdout.split(
            "\0"
        )
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def _scripts() -> list[Path]:
    # A template is no script before it is rendered; tests/pure/test_catalogue_own.py looks at what comes of it.
    tracked = [path for path in _tracked() if path.parent.name != "templates"]
    return [path for path in tracked if re.match(r"#!.*\b(?:ba)?sh\b", _text(path)[:80])]


def _commands() -> set[str]:
    """Every leaf of the command tree, as words after ``alveole``."""
    import click

    from alveole.cli.tree import root

    def walk(command: click.Command, words: tuple[str, ...]) -> set[str]:
        if not isinstance(command, click.Group):
            return {" ".join(words)}
        context = click.Context(command)
        found: set[str] = set()
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                found |= walk(below, (*words, name))
        return found

    return walk(root, ())


def test_no_file_is_too_long() -> None:
    kinds = {".py", ".md", ".toml", ".sh", ".lua", ""}
    # docs/reference is written from the code by scripts/reference.py.
    written = ROOT / "docs/reference"
    checked = [p for p in _tracked() if p.name not in GENERATED and p.suffix in kinds and written not in p.parents]
    lengths = {str(path.relative_to(ROOT)): _text(path).count("\n") for path in checked}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_nothing_is_left_to_do() -> None:
    # Spelt in two parts, or this line would be found.
    marks = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X)\b")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in _tracked()
        # What others wrote is kept as they wrote it.
        if path.name not in GENERATED and not {"vendor", "axe"} & set(path.parts)
        for number, line in enumerate(_text(path).splitlines(), 1)
        if marks.search(line)
    ]
    assert found == []


def test_what_is_let_off_says_why() -> None:
    """What a linter, the formatter or mypy is told to pass over, with the reason behind it on the line."""
    mark = re.compile(
        r"# (?:noqa(?:: ?[A-Z]+[0-9]+(?:, ?[A-Z]+[0-9]+)*)?|type: ignore(?:\[[a-z, -]+\])?|fmt: (?:skip|off))\s*$"
    )
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in _tracked()
        if path.suffix == ".py" and path != Path(__file__)
        for number, line in enumerate(_text(path).splitlines(), 1)
        if mark.search(line)
    ]
    assert found == []


def test_test_files_have_names_of_their_own() -> None:
    """pytest takes them as top-level modules: two of one name would make `pytest` on the whole tree fail."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py")
    assert [name for name, count in names.items() if count > 1] == []


def test_scripts_are_sound() -> None:
    scripts = _scripts()
    assert ROOT / "scripts/quickstart" in scripts
    for script in scripts:
        done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    shellcheck = shutil.which("shellcheck")
    if shellcheck:
        # Scripts of modules read their answers from rendered files, which shellcheck cannot follow.
        argv = [shellcheck, "--severity=warning", "--exclude=SC2154", *map(str, scripts)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_the_lock_is_in_step_with_the_project(name: str) -> None:
    """Each dependency of pyproject.toml is locked at a version it allows, with digests."""
    from packaging.requirements import Requirement

    project = tomllib.loads(_text(ROOT / "pyproject.toml"))
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    if name == "requirements-dev.txt":
        wanted += project["project"]["optional-dependencies"]["dev"]
    text = _text(ROOT / name)
    locked = dict(re.findall(r"^([a-z0-9][a-z0-9._-]*)==([^ ]+) \\$", text, re.MULTILINE))
    for entry in wanted:
        requirement = Requirement(entry)
        key = re.sub(r"[._-]+", "-", requirement.name).lower()
        assert key in locked, f"{key} is not in {name}: run scripts/lock"
        assert requirement.specifier.contains(locked[key], prereleases=True), f"{key} {locked[key]}: run scripts/lock"
    blocks = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(locked), "a line of another form"
    assert all("--hash=sha256:" in block for block in blocks)


def test_both_locks_agree() -> None:
    def versions(name: str) -> dict[str, str]:
        return dict(re.findall(r"^([a-z0-9][a-z0-9._-]*)==([^ ]+) \\$", _text(ROOT / name), re.MULTILINE))

    run, dev = versions("requirements.txt"), versions("requirements-dev.txt")
    assert {key: dev.get(key) for key in run} == run


def test_no_address_of_a_registry() -> None:
    """What is fetched from where is the machine's affair: pip's, apt's and npm's own settings say it."""
    options = re.compile(r"--(?:extra-)?index-url|--find-links|--trusted-host|registry\s*=\s*http")
    places = re.compile(r"https?://[^\s\"'<>]*(?:pypi|/simple\b|registry\.npmjs|deb\.debian\.org)")
    found = []
    for path in _tracked():
        # This file and scripts/lock speak of the options; they set none.
        if path == Path(__file__).resolve() or path == ROOT / "scripts/lock":
            continue
        text = _text(path)
        if places.search(text) or options.search(text):
            found.append(str(path.relative_to(ROOT)))
    assert found == []


def test_the_packaged_settings_show_every_default() -> None:
    text = re.sub(r"^#(?=[a-z0-9_]+ = )", "", _text(ROOT / "packaging/alveole.toml"), flags=re.MULTILINE)
    raw = tomllib.loads(text)
    assert parse(raw) == Settings()
    sections = {key: value for key, value in raw.items() if isinstance(value, dict)}
    for name, section in sections.items():
        assert section.keys() == set(getattr(Settings(), name).__struct_fields__), name
    assert raw.keys() == set(Settings.__struct_fields__)
    as_shipped = tomllib.loads(_text(ROOT / "packaging/alveole.toml"))
    assert parse(as_shipped) == Settings()


def test_the_docs_name_every_command() -> None:
    docs = "\n".join(_text(path) for path in (*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"))
    plain = re.sub(r"[`*|]", " ", docs)
    missing = [words for words in sorted(_commands()) if not re.search(rf"\b{re.escape(words)}\b", plain)]
    assert missing == []


def test_the_demonstration_site_asks_nobody_else() -> None:
    for path in (ROOT / "examples/demo").rglob("*"):
        if path.is_file():
            text = _text(path).replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", text), path
            assert "<script" not in text, path


@pytest.mark.parametrize("name", ["index.html", "fr/index.html"])
def test_the_demonstration_site_leads_somewhere(name: str) -> None:
    page = ROOT / "examples/demo" / name
    for target in re.findall(r'(?:href|src)="([^"#]+)"', _text(page)):
        found = (page.parent / target).resolve()
        assert found.is_file() or (found / "index.html").is_file(), target


def test_the_map_of_the_code_is_whole() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    shown = set(
        re.findall(r"(?<![/\w])[\w*]+(?:\.py|/)", text.partition("## Layout of the code")[2].partition("`pyproject")[0])
    )
    assert shown, "the map has another place"
    found = [
        f"{path.name}/" if path.is_dir() else path.name
        for path in (ROOT / "src/alveole").iterdir()
        if not path.name.startswith(("__", ".")) and path.suffix != ".typed"
    ]
    patterns = [re.compile(each.replace(".", "\\.").replace("*", r"\w+") + r"\Z") for each in shown]
    assert [name for name in found if not any(each.match(name) for each in patterns)] == []
    assert [each.pattern for each in patterns if not any(each.match(name) for name in found)] == []


def test_contributors_are_told_of_every_layer() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    layers = {path.relative_to(ROOT / "tests").parts[0] for path in _tracked() if path.match("tests/*/test_*.py")}
    assert {name for name in layers if f"`{name}`" not in text} == set()
