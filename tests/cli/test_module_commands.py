"""The catalogue and sites of modules on the command line, over a real API and on a real terminal."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from doorkit import Door, until

sys.path.insert(0, str(Path(__file__).parent.parent / "control"))

from modulekit import write_module
from test_sources import Author, digest, packed

PROGRAM = [str(Path(sys.executable).parent / "alveole")]


@pytest.fixture
def door(directory: Path) -> Iterator[Door]:
    write_module(directory / "modules")
    signers = directory / "signers"
    made = Door(directory, modules={"directory": str(directory / "modules"), "signers": str(signers)})
    try:
        yield made
    finally:
        made.close()
    assert not made.agent.violations


def create(door: Door, name: str = "blog", *more: str) -> None:
    ran = door.run("site", "create", name, "--module", "hello", "--set", "title=Hi", *more)
    assert ran.status == 0, ran


# --- the catalogue ------------------------------------------------------------------------------
def test_the_catalogue_in_both_languages(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    listed = door.ok("module", "list")
    assert {"hello", "wordpress"} <= {each["name"] for each in listed}
    assert "Hello" in door.run("module", "list").out
    monkeypatch.setenv("LANG", "fr_FR.UTF-8")
    assert "Bonjour" in door.run("module", "list").out
    shown = door.run("module", "show", "hello").out
    for word in ("Dit bonjour.", "medium", "python3-minimal", "Titre", "alveole site create my-hello --module hello"):
        assert word in shown, word
    assert door.ok("module", "show", "hello")["questions"][0]["name"] == "title"
    assert door.run("module", "show", "nothing").status == 4


def test_a_module_of_ones_own(door: Door) -> None:
    made = door.ok("module", "new", "my-forum", "--to", str(door.directory / "modules"))
    assert door.run("module", "lint", made["folder"]).status == 0
    assert door.ok("module", "show", "my-forum")["origin"] == str(door.directory / "modules")
    manifest = Path(made["folder"], "module.toml")
    manifest.write_text(manifest.read_text() + "\nnonsense = 1\n")
    ran = door.run("module", "lint", made["folder"])
    assert ran.status == 2 and "nonsense" in ran.out
    ran = door.run("module", "lint", made["folder"], "--json")
    assert ran.status == 2 and ran.document["ok"] is False
    assert door.run("module", "lint", str(door.directory / "none")).status == 2
    assert door.run("module", "new", "../x").status == 2


# --- making -------------------------------------------------------------------------------------
def test_answers_from_options_and_files(door: Door) -> None:
    file = door.directory / "answers.toml"
    file.write_text('optimisation = "big"\n[hello]\ntitle = "From file"\nworkers = 3\n')
    site = door.ok("site", "create", "blog", "--module", "hello", "--set-file", str(file), "--set", "hello.workers=5")
    answers = site["application"]["answers"]
    assert (answers[""]["optimisation"], answers["hello"]["title"], answers["hello"]["workers"]) == (
        "big",
        "From file",
        5,
    )
    assert answers["hello"]["secret"] == "***"
    assert site["application"]["given"]["hello"] == ["title", "workers"]
    for text in ("title = [1]", "title = 1.5", "not toml", "[a]\n[a.b]\nc = 1"):
        file.write_text(text)
        ran = door.run("site", "create", "x", "--module", "hello", "--set-file", str(file))
        assert ran.status == 2 and "set_file" in ran.err, text
    ran = door.run("site", "create", "x", "--module", "hello", "--set", "s3cret-without-equals")
    assert ran.status == 2 and "has no '='" in ran.err


def test_without_a_terminal_nothing_is_asked(door: Door) -> None:
    for more in ((), ("--defaults",)):
        ran = door.run("site", "create", "blog", "--module", "hello", *more)
        assert ran.status == 2 and "answers.hello.title: needs an answer" in ran.err
    assert door.run("site", "create", "blog", "--module", "hello", "--plan", "small", "--set", "title=x").status == 3
    assert door.run("site", "create", "blog", "--module", "helo").status == 2


def test_a_dry_run_shows_files(door: Door) -> None:
    ran = door.run("site", "create", "blog", "--module", "hello", "--set", "title=Hi", "--dry-run")
    assert ran.status == 0 and "/config/hello/page.ini" in ran.out and "config/config" in ran.out
    assert door.run("site", "list", "--json").document == []


# --- configuring --------------------------------------------------------------------------------
def test_configure_shows_and_does(door: Door) -> None:
    create(door, "blog", "--set", "secret=hunter2hunter2")
    ran = door.run("site", "configure", "blog", "--set", "title=Ho", "--dry-run")
    assert ran.status == 0 and '+title = "Ho"' in ran.out and "Starts anew: web." in ran.out
    assert door.ok("site", "show", "blog")["version"] == 1
    ran = door.run("site", "configure", "blog", "--set", "title=Ho", "--set", "secret=hunter3hunter3", "--diff")
    assert ran.status == 0 and "hello.secret: *** → ***" in ran.out and "hunter" not in ran.out + ran.err
    assert "Starts anew: web, worker." in ran.out
    assert "Nothing changes" in door.run("site", "configure", "blog").out
    assert door.ok("site", "show", "blog")["version"] == 2
    shown = door.run("site", "answers", "blog").out
    assert "hello.title   " in shown and "***" in shown and "hunter" not in shown
    assert door.ok("site", "answers", "blog", "--show-secrets")["answers"]["hello"]["secret"] == "hunter3hunter3"
    assert "hunter" not in door.run("journal").out + door.run("site", "show", "blog", "--json").out
    assert door.run("site", "configure", "blog", "--set", "titel=x").status == 2
    assert door.run("site", "configure", "nothing").status == 4


def test_files_changed_by_hand(door: Door) -> None:
    create(door)
    site = door.ok("site", "show", "blog")
    door.agent.change_by_hand(site["id"], "hello/page.ini", "title = mine\npassword: topsecret\n")
    until(lambda: "changed by hand" in door.run("site", "show", "blog").out)
    assert "hello/page.ini" in door.run("status").out and "changed by hand" in door.run("why", "blog").out
    ran = door.run("site", "configure", "blog", "--set", "title=Ho")
    assert ran.status == 3 and "hello/page.ini" in ran.err and "--take-back" in ran.err
    ran = door.run("site", "configure", "blog", "--set", "title=Ho", "--json")
    assert ran.status == 3 and ran.document["problems"][0]["field"] == "hello/page.ini"
    assert door.run("site", "configure", "blog", "--set", "title=Ho", "--keep", "hello/page.ini").status == 0
    assert "kept" in door.run("site", "show", "blog").out
    ran = door.run("site", "configure", "blog", "--take-back-all", "--diff")
    assert ran.status == 0 and "-title = mine" in ran.out and "topsecret" not in ran.out


def test_completion_knows_modules(door: Door) -> None:
    environment = {
        **os.environ,
        "ALVEOLE_CONFIG": str(door.config),
        "_ALVEOLE_COMPLETE": "bash_complete",
        "COMP_WORDS": "alveole site create blog --module hel",
        "COMP_CWORD": "5",
    }

    def said() -> str:
        return subprocess.run(PROGRAM, env=environment, capture_output=True, text=True, check=False).stdout

    # It says nothing when it was not answered within two seconds, as may be on a loaded machine.
    until(lambda: "hello" in said(), 60)


# --- a terminal ---------------------------------------------------------------------------------
class Terminal:
    """The program on a terminal of its own: what it prints, and keys for it."""

    def __init__(self, door: Door, *argv: str) -> None:
        environment = {**os.environ, "ALVEOLE_CONFIG": str(door.config), "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(PROGRAM[0], [*PROGRAM, *argv], environment)  # noqa: S606  with no shell
        self.text = ""

    def wait(self, text: str, seconds: float = 20.0) -> None:
        """Until ``text`` was printed after what was waited for before."""
        end = time.monotonic() + seconds
        while text not in self.text:
            assert time.monotonic() < end, f"{text!r} did not come; this did: {self.text}"
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    self.text += os.read(self.fd, 65536).decode("utf-8", "replace")
                except OSError:
                    raise AssertionError(f"it ended before {text!r}: {self.text}") from None
        self.text = self.text.partition(text)[2]

    def type(self, text: str) -> None:
        os.write(self.fd, f"{text}\r".encode())

    def end(self) -> tuple[int, str]:
        while True:
            try:
                block = os.read(self.fd, 65536)
            except OSError:
                break
            if not block:
                break
            self.text += block.decode("utf-8", "replace")
        os.close(self.fd)
        _pid, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status), self.text


def test_open_questions_are_asked_on_a_terminal(door: Door) -> None:
    terminal = Terminal(door, "site", "create", "blog", "--module", "hello", "--set", "version=dev")
    terminal.wait("[admin@blog.localhost]")
    terminal.type("not a mail")
    terminal.wait("is not a mail address")
    terminal.wait("[admin@blog.localhost]")
    terminal.type("")
    terminal.wait("traffic")
    terminal.type("big")
    terminal.wait("Title")
    terminal.type("")
    terminal.wait("needs an answer")
    terminal.wait("Title")
    terminal.type("x" * 50)
    terminal.wait("at most 40")
    terminal.wait("Title")
    terminal.type("My blog")
    terminal.wait("[made up]")
    terminal.type("typed-secret")
    terminal.wait("Database [blog]")
    terminal.type("")
    terminal.wait("Workers [2]")
    terminal.type("7")
    status, rest = terminal.end()
    assert status == 0 and "is running" in rest and "typed-secret" not in rest
    answers = door.ok("site", "answers", "blog", "--show-secrets")
    assert answers["answers"]["hello"]["secret"] == "typed-secret"
    assert answers["answers"]["hello"]["workers"] == 7 and answers["answers"][""]["optimisation"] == "big"
    assert answers["given"] == {"": ["version", "optimisation"], "hello": ["title", "secret", "workers"]}


def test_defaults_never_ask(door: Door) -> None:
    terminal = Terminal(door, "site", "create", "blog", "--module", "hello", "--set", "title=Hi", "--defaults")
    status, text = terminal.end()
    assert status == 0 and "Mail address" not in text


def test_a_wrong_option_is_told_before_anything_is_asked(door: Door) -> None:
    terminal = Terminal(door, "site", "create", "blog", "--module", "hello", "--set", "workers=many")
    status, text = terminal.end()
    assert status == 2 and "answers.hello.workers" in text and "Title" not in text


def test_configure_asks_before_it_does(door: Door) -> None:
    create(door)
    terminal = Terminal(door, "site", "configure", "blog", "--set", "title=Ho")
    terminal.wait('+title = "Ho"')
    terminal.wait("Do this?")
    terminal.type("n")
    status, text = terminal.end()
    assert status == 3 and "nothing was done" in text
    assert door.ok("site", "answers", "blog")["answers"]["hello"]["title"] == "Hi"
    terminal = Terminal(door, "site", "configure", "blog", "--set", "title=Ho")
    terminal.wait("Do this?")
    terminal.type("y")
    status, text = terminal.end()
    assert status == 0 and "is configured" in text


# --- modules from elsewhere ---------------------------------------------------------------------
def test_modules_from_elsewhere(door: Door) -> None:
    author = Author(door.directory)
    (door.directory / "signers").write_text(author.line)
    top = door.directory / "theirs"
    write_module(top, "forum")
    archive = packed(top)
    ran = door.run("module", "add", str(archive), "--digest", digest(archive))
    assert ran.status == 2 and "archive" not in ran.out and "signature" in ran.err
    author.sign(archive)
    ran = door.run("module", "add", str(archive), "--digest", f"sha256:{'0' * 64}")
    assert ran.status == 3 and "another digest" in ran.err
    source = door.ok("module", "add", str(archive), "--digest", digest(archive), "--name", "theirs")
    assert source["modules"] == ["forum"] and source["signer"] == author.name
    assert author.name in door.run("module", "sources").out
    place, commit = author.repository(top)
    assert door.run("module", "remove", "theirs").status == 0
    ran = door.run("module", "add", str(place), "--commit", commit)
    assert ran.status == 0 and f"signed by {author.name}" in ran.out
    assert door.ok("module", "sources")[0]["pin"] == commit
    create_ = door.run("site", "create", "f", "--module", "forum", "--set", "title=x")
    assert create_.status == 0
    assert door.run("module", "remove", "repository").status == 3
    assert door.run("module", "remove", "nothing").status == 4
    for wrong in (("--commit", "main"), ("--commit", commit, "--digest", "x"), ()):
        assert door.run("module", "add", str(place), *wrong).status == 2


def test_who_made_no_password_is_told_where_it_is(door: Door) -> None:
    ran = door.run("site", "create", "blog", "--module", "hello", "--set", "title=Hi", "--defaults")
    assert ran.status == 0 and "Made up: hello.secret. See: alveole site answers blog --show-secrets" in ran.out
    assert "https://blog." in ran.out
    assert door.ok("site", "show", "blog")["application"]["made_up"] == ["hello.secret"]
    assert "Made up" not in door.run("site", "configure", "blog", "--set", "title=Ho", "--yes").out
    ran = door.run("site", "configure", "blog", "--unset", "secret", "--yes")
    assert ran.status == 0 and "Made up: hello.secret." in ran.out, ran
    ran = door.run("site", "create", "own", "--module", "hello", "--set", "title=Hi", "--set", "secret=mine")
    assert ran.status == 0 and "Made up" not in ran.out
