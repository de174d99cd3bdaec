"""docs/how-to/write-a-module.md, followed literally: its files and commands come from the document itself."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from instance import Instance
from instancekit import ROOT, Done

DOCUMENT = ROOT / "docs/how-to/write-a-module.md"
PLACE = Path("/etc/alveole/modules")


class Block:
    """One block of code with the words before it."""

    def __init__(self, language: str, text: str, before: str) -> None:
        self.language, self.text = language, text
        #: The last sentence before it says which file it is, and whether it is added.
        named = re.findall(r"\b(Write|Add to) `([^`]+)`", before)
        self.verb, self.file = named[-1] if named else ("", "")


def blocks() -> Iterator[Block]:
    text = DOCUMENT.read_text()
    last = 0
    for found in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield Block(found[1], found[2], text[last : found.start()])
        last = found.end()


def commands(text: str) -> Iterator[list[str]]:
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if line.startswith("$ "):
            yield [word for word in shlex.split(line[2:]) if word != "sudo"]


class Reader:
    """Does what the document says, in order; its machine is the test's instance and its folder of modules."""

    def __init__(self, alveole: Instance, folder: Path) -> None:
        self.alveole, self.folder = alveole, folder
        self.answers: list[str] = []
        self.done: list[Done] = []

    def follow(self, block: Block) -> None:
        if block.language == "console":
            for words in commands(block.text):
                self.run(words)
        elif block.file:
            path = self.folder / "my-notes" / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text((path.read_text() if block.verb == "Add to" else "") + block.text)

    def run(self, words: list[str]) -> None:
        words = [word.replace(str(PLACE), str(self.folder)) for word in words]
        program, *rest = words
        if program == "alveole":
            self.done.append(self.alveole.cli(*rest, seconds=1500.0))
        elif program == "rm":
            for each in rest[1:]:
                path = Path(each)
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif program == "curl":
            self.curl(rest)
        else:
            raise AssertionError(f"the document runs {program!r}, and this test does not know it")

    def curl(self, words: list[str]) -> None:
        url = next(word for word in words if word.startswith("https://"))
        sent = [words[at + 1] for at, word in enumerate(words) if word in ("-d", "--data", "--data-urlencode")]
        host, _, path = url.removeprefix("https://").partition("/")
        answer = self.alveole.fetch(
            host,
            f"/{path}",
            https=True,
            method="POST" if sent else "GET",
            body="&".join(sent).replace(" ", "+").encode() if sent else None,
            headers={"Content-Type": "application/x-www-form-urlencoded"} if sent else None,
        )
        assert answer.status == 200, f"{words}: {answer.status} {answer.body}"
        self.answers.append(answer.body)


@pytest.fixture
def machine() -> Iterator[tuple[Instance, Path]]:
    """An Alvéole whose folder of modules is the test's own."""
    folder = Path(tempfile.mkdtemp(prefix="alvhow", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        with Instance(more=f'\n[modules]\ndirectory = "{folder}"\n') as made:
            yield made, folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_newcomer_follows_it(machine: tuple[Instance, Path]) -> None:
    alveole, folder = machine
    reader = Reader(alveole, folder)
    for block in blocks():
        reader.follow(block)
    first, coloured, noted, kept = reader.answers
    assert "My notes" in first and "darkgreen" not in first
    assert "My notes" in coloured and "darkgreen" in coloured
    assert "hello" in noted and "hello" in kept, "the note outlives a restart"
