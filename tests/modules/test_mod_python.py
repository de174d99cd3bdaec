"""python: applications with a package from PyPI, found by themselves, built, served, updated, kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from modkit import ModuleSites, base_of, round_trip

import registrykit
from instance import Instance
from instancekit import directory

pytestmark = pytest.mark.skipif(not registrykit.reachable(*registrykit.PYPI), reason="PyPI is not reachable")

FLASK = """
import json, os, pathlib
from flask import Flask, request
import flask

app = Flask(__name__)
notes = pathlib.Path(os.environ["DATA_DIR"], "notes")

@app.route("/")
def index():
    kept = notes.read_text() if notes.exists() else ""
    return json.dumps({"word": "%s", "flask": flask.__file__, "kept": kept, "uid": os.getuid()})

@app.post("/note")
def note():
    notes.write_text(request.get_data(as_text=True))
    return "kept"
"""
#: A package that no wheel was made of: it is compiled when the content is built.
NATIVE = {
    "native/pyproject.toml": '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n',
    "native/setup.py": """
from setuptools import Extension, setup
setup(name="native", version="1.0", ext_modules=[Extension("native", ["native.c"])])
""",
    "native/native.c": """
#include <Python.h>
static PyObject *answer(PyObject *self, PyObject *args) { return PyLong_FromLong(42); }
static PyMethodDef methods[] = {{"answer", answer, METH_NOARGS, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "native", NULL, -1, methods};
PyMODINIT_FUNC PyInit_native(void) { return PyModule_Create(&module); }
""",
}
ASGI = """
import os, sys, h11

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body = f"asgi {scope['path']} {scope['scheme']} {h11.__file__}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})
"""


@pytest.mark.turn
def test_a_flask_application_from_delivery_to_restore(site: ModuleSites, tmp_path: Path) -> None:
    content = {"app.py": FLASK % "one", "requirements.txt": "flask==3.0.3\n"}
    it = site("python", content=content, options=["--build-network"], app="app:app")

    def told() -> Any:
        return json.loads(it.get("/").text)

    it.run("/bin/sh", "-c", "printf remember > /data/files/notes")

    def check() -> None:
        found = told()
        assert found["word"] == "one" and found["kept"] == "remember" and found["uid"] == 1000
        assert found["flask"].startswith("/site/current/.venv/")

    round_trip(it, check)
    # An update builds again, with the leave it had; the old one answers meanwhile.
    place = directory(tmp_path / "two", {**content, "app.py": FLASK % "two"})
    it.cli("update", "--from", str(place))
    assert told()["word"] == "two" and told()["kept"] == "remember"
    # One that cannot be built leaves what runs, and says why.
    place = directory(tmp_path / "three", {**content, "requirements.txt": "no-such-package-of-alveole==1\n"})
    done = it.cli("update", "--from", str(place), status=2)
    assert "the build failed" in done.err and "no-such-package-of-alveole" in done.err + done.out
    assert told()["word"] == "two"
    events = it.alveole.api("GET", f"/v1/changes/{it.alveole.journal(site=it.name)[0]['id']}")["events"]
    assert any("no-such-package-of-alveole" in each["text"] for each in events if each["level"] == "warning")


@pytest.mark.turn
def test_an_asgi_application(site: ModuleSites) -> None:
    content = {"asgi.py": ASGI, "requirements.txt": "h11==0.14.0\n./native\n", **NATIVE}
    it = site("python", content=content, options=["--build-network"], workers=2)
    found = it.get("/here").text
    assert found.startswith("asgi /here https /site/current/.venv/")
    # What was compiled runs on a base that has no compiler.
    assert it.run("/site/current/.venv/bin/python", "-c", "import native; print(native.answer())").strip() == "42"
    assert it.run("sh", "-c", "command -v cc gcc g++ make pip; true") == ""
    application = it.alveole.site(it.name)["application"]
    assert "asgi:app" in application["why"]


@pytest.mark.turn
def test_a_package_that_is_linked_with_a_library(site: ModuleSites) -> None:
    """Nobody says that psycopg2 needs libpq, and its headers: the content does."""
    page = """
import psycopg2

def app(environ, start):
    start("200 OK", [("Content-Type", "text/plain")])
    return [f"libpq {psycopg2.extensions.libpq_version() // 10000}".encode()]
"""
    content = {"app.py": page, "requirements.txt": "psycopg2==2.9.10\n"}
    it = site("python", content=content, options=["--build-network"])
    assert it.get("/").text == "libpq 15"
    assert it.alveole.site(it.name)["application"]["answers"]["python"]["libraries"] == ["postgresql"]
    assert it.run("sh", "-c", "command -v cc pg_config; ls /usr/include/postgresql 2>/dev/null; true") == ""


def test_a_command_of_its_own(site: ModuleSites) -> None:
    it = site("python", content={"x.txt": "it's"}, command="exec python3 -m http.server $PORT # it's")
    assert it.get("/x.txt").text == "it's"


def test_without_any_content(site: ModuleSites) -> None:
    it = site("python")
    assert it.get("/").title == "It works"


def test_found_by_itself(alveole: Instance, site: ModuleSites, tmp_path: Path) -> None:
    """No --module and no --command: the content says what it is, and the site says why."""
    project = (
        '[project]\nname = "shop"\nversion = "1"\ndependencies = ["h11"]\n[tool.setuptools]\npy-modules = ["main"]\n'
    )
    asgi = ASGI.replace("async def app", "async def application")
    place = directory(tmp_path, {"main.py": asgi, "pyproject.toml": project})
    name = "found-python"
    with base_of(alveole, name, ["--from", str(place), "--defaults"]):
        done = alveole.cli("site", "create", name, "--from", str(place), "--build-network", "--defaults", seconds=1500)
    try:
        assert "python: pyproject.toml" in done.err and "main:application" in done.err
        assert alveole.fetch(name, "/a", https=True).body.startswith("asgi /a")
        assert "main:application" in alveole.site(name)["application"]["why"]
    finally:
        alveole.destroy(name)
