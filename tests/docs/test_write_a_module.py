"""The how-to is followed here, as far as that goes without a machine: what it says to write is sound, and works."""

from __future__ import annotations

import http.client
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from alveole.catalogue.compose import SiteContext, compose
from alveole.catalogue.lint import lint
from alveole.catalogue.new import new
from alveole.catalogue.reading import read_module
from alveole.catalogue.sources import Catalogue
from alveole.model.site import BUILT_IN_PLANS

PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/write-a-module.md"
CONTEXT = SiteContext(
    name="notes", domain="notes.localhost", url="https://notes.localhost", limits=BUILT_IN_PLANS[0].limits
)


def steps() -> list[tuple[str, str, str]]:
    """What to do, with which file, and the text."""
    return re.findall(r"(Add to|Write) `([a-z./]+)`:\n```[a-z]+\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_the_how_to_can_be_followed(tmp_path: Path) -> None:
    nothing = Catalogue([])
    folder = new("my-notes", tmp_path, nothing)
    assert lint(folder, nothing) == []
    found = steps()
    assert [name for _, name, _ in found] == ["module.toml", "templates/index.html", "files/notes.py", "module.toml"]
    for verb, name, text in found[:2]:
        assert verb == "Add to"
        with (folder / name).open("a") as file:
            file.write(text)
    assert lint(folder, nothing) == []
    module = read_module(folder, "tests").module
    assert module is not None
    made = compose(Catalogue([module]), ["my-notes"], {"": {"colour": "darkgreen"}}, CONTEXT)
    assert "h1 { color: darkgreen }" in next(each.text for each in made.files if each.path.endswith("html"))
    for _, name, text in found[2:]:
        (folder / name).write_text(text)
    shutil.rmtree(folder / "templates")
    (folder / "files/nginx.conf").unlink()
    assert lint(folder, nothing) == []


def test_its_program_works() -> None:
    """It listens where the edge asks and finds its notes again."""
    folder = Path(tempfile.mkdtemp(prefix="alvn", dir="/tmp"))
    source = next(text for _, name, text in steps() if name == "files/notes.py")
    source = source.replace("/run/alveole/web.sock", f"{folder}/door").replace("/data/my-notes", str(folder))
    (folder / "notes.py").write_text(source)

    def ask(method: str, body: str = "") -> str:
        client = http.client.HTTPConnection("notes.localhost", timeout=10)
        client.sock = socket.socket(socket.AF_UNIX)
        client.sock.connect(f"{folder}/door")
        client.request(method, "/", body)
        answer = client.getresponse().read().decode()
        client.close()
        return answer

    program = subprocess.Popen([sys.executable, str(folder / "notes.py"), "A & B"], stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 20
        while not ((folder / "door").exists() and (folder / "door").stat().st_mode & 0o777 == 0o666):
            assert time.monotonic() < end and program.poll() is None
            time.sleep(0.02)
        assert "<h1>A &amp; B</h1>" in ask("GET")
        assert "<li>hello &lt;b&gt;" in ask("POST", "note=hello+%3Cb%3E")
        assert "<li>hello &lt;b&gt;" in ask("GET")
    finally:
        program.terminate()
        program.wait(10)
        shutil.rmtree(folder)
