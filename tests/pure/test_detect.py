"""Which module runs a content, and what is worked out of it; nothing of the content is ever run."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from alveole.catalogue import content
from alveole.catalogue.content import Seen, look
from alveole.catalogue.detect import detail, detect, looked_for, procfile
from alveole.catalogue.manifest import Build, Category, Manifest, Module, Question, QuestionType, Text
from alveole.errors import InvalidInput


def _module(name: str, rank: int, detects: tuple[str, ...], *questions: str) -> Module:
    text = Text(en=name, fr=name)
    manifest = Manifest(
        name=name,
        version="1",
        title=text,
        description=text,
        icon="box",
        category=Category.LANGUAGE,
        build=Build(detect=detects, rank=rank),
        questions=tuple(Question(name=each, type=QuestionType.STRING, title=text) for each in questions),
    )
    return Module(manifest, "sha256:" + "0" * 64, "alveole")


MODULES = {
    module.name: module
    for module in (
        _module("java", 10, ("*.jar",), "jar", "command"),
        _module(
            "python",
            20,
            ("requirements.txt", "pyproject.toml", "manage.py", "wsgi.py", "asgi.py", "app.py"),
            "app",
            "server",
            "command",
            "libraries",
        ),
        _module("ruby", 30, ("Gemfile", "config.ru"), "rackup", "command", "libraries"),
        _module("php", 40, ("composer.json", "index.php", "public/index.php")),
        _module("node", 50, ("package.json", "server.js"), "main", "command", "libraries"),
        _module("static", 90, ("index.html",)),
    )
}


def seen(*names: str) -> Seen:
    return Seen(tuple(sorted(names)))


def files(by_name: dict[str, str]) -> Seen:
    return Seen(tuple(sorted(by_name)), by_name)


def test_pages_alone_are_served_as_they_are() -> None:
    found = detect(MODULES, seen("index.html", "style.css", "img/"))
    assert found.modules == ()
    assert "index.html" in found.why.en and "index.html" in found.why.fr


def test_nothing_known_says_what_was_looked_for() -> None:
    with pytest.raises(InvalidInput) as caught:
        detect(MODULES, seen("tool.py", "data/"))
    problem = caught.value.problems[0]
    assert problem.field == "module"
    for name in looked_for(MODULES):
        assert name in problem.hint


def test_files_that_are_no_program_are_served_as_they_are() -> None:
    """A package of documentation in a directory of its own has no page at its top."""
    found = detect(MODULES, seen("README.md", "debian-reference/"))
    assert found.modules == () and "package.json" in found.why.en


@pytest.mark.parametrize("name", [".env", "config.php", "tool.py"])
def test_a_program_nobody_knows_is_not_shown_to_everybody(name: str) -> None:
    with pytest.raises(InvalidInput):
        detect(MODULES, seen("README.md", name))


def test_a_directory_of_that_name_is_no_sign() -> None:
    assert detect(MODULES, seen("package.json/", "notes")).modules == ()


def test_the_lowest_rank_is_taken() -> None:
    """A Python program with a package.json for its style sheets is a Python program."""
    both = files({"requirements.txt": "flask", "package.json": "{}", "app.py": "app = Flask(__name__)"})
    assert detect(MODULES, both).modules == ("python",)


@pytest.mark.parametrize(
    ("content_of", "server", "app"),
    [
        ({"app.py": "from flask import Flask\napp = Flask(__name__)\n"}, "wsgi", "app:app"),
        ({"main.py": "import fastapi\napi = fastapi.FastAPI()\n", "requirements.txt": ""}, "asgi", "main:api"),
        ({"app.py": "def app(environ, start_response):\n    pass\n"}, "wsgi", "app:app"),
        ({"asgi.py": "async def application(scope, receive, send):\n    pass\n"}, "asgi", "asgi:application"),
        ({"wsgi.py": "from shop import make\napplication = make()\n"}, "wsgi", "wsgi:application"),
        (
            {
                "manage.py": "import os\n",
                "shop/wsgi.py": "application = get_wsgi_application()\n",
                "shop/asgi.py": "application = get_asgi_application()\n",
            },
            "wsgi",
            "shop.wsgi:application",
        ),
        (
            {
                "manage.py": "",
                "requirements.txt": "channels\n",
                "shop/wsgi.py": "application = get_wsgi_application()\n",
                "shop/asgi.py": "application = ProtocolTypeRouter({})\n",
            },
            "asgi",
            "shop.asgi:application",
        ),
        ({"pyproject.toml": "", "shop/__init__.py": "app = Starlette()\n"}, "asgi", "shop:app"),
        ({"app.py": "x = 1\napp = make()\nweb = Quart(__name__)\n"}, "asgi", "app:web"),
        ({"app.py": "def broken(:", "main.py": "app = Bottle()\n"}, "wsgi", "main:app"),
    ],
)
def test_python_applications_are_found_by_reading(content_of: dict[str, str], server: str, app: str) -> None:
    found = detect(MODULES, files(content_of))
    assert found.modules == ("python",)
    assert found.answers == {"python": {"app": app, "server": server}}
    assert app in found.why.en


def test_python_is_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "run"
    source = f"open({str(mark)!r}, 'w').close()\napp = Flask(__name__)\n"
    (tmp_path / "app.py").write_text(source)
    assert detect(MODULES, look(tmp_path)).answers["python"]["app"] == "app:app"
    assert not mark.exists()


@pytest.mark.parametrize("text", ["(" * 5000, "\0", "x = " + "-" * 20_000 + "1", "app" * 10_000, "\ud800"])
def test_hostile_sources_are_only_no_application(text: str) -> None:
    found = detect(MODULES, files({"app.py": text}))
    assert found.modules == ("python",) and "app" in found.why.en


@pytest.mark.parametrize(
    ("line", "answers"),
    [
        ("web: gunicorn shop.wsgi --log-file -", {"app": "shop.wsgi:application", "server": "wsgi"}),
        (
            "web: uvicorn api:web --host 0.0.0.0 --port $PORT",
            {"command": "uvicorn api:web --host 0.0.0.0 --port $PORT"},
        ),
        ("web: uvicorn api:web", {"app": "api:web", "server": "asgi"}),
        ("web: gunicorn -k gevent app:app", {"command": "gunicorn -k gevent app:app"}),
        ("web: python serve.py; rm x", {"command": "python serve.py; rm x"}),
    ],
)
def test_the_procfile_has_the_say(line: str, answers: dict[str, str]) -> None:
    found = detect(MODULES, files({"requirements.txt": "", "Procfile": f"release: true\n{line}\n"}))
    assert found.answers == {"python": answers}
    assert "Procfile" in found.why.fr


def test_a_procfile_without_web_says_nothing() -> None:
    assert procfile(files({"Procfile": "worker: x\nwebsite: y\n"})) == ""


@pytest.mark.parametrize(
    ("content_of", "answers"),
    [
        ({"package.json": '{"scripts": {"start": "node src/server.js"}}'}, {"main": "src/server.js"}),
        ({"package.json": '{"scripts": {"start": "next start -p $PORT"}}'}, {"command": "next start -p $PORT"}),
        ({"package.json": '{"main": "./lib/a.js"}', "lib/a.js": ""}, {"main": "lib/a.js"}),
        ({"package.json": '{"main": "../../etc/passwd"}', "server.js": ""}, {"main": "server.js"}),
        ({"package.json": '{"scripts": {"start": "node --inspect x.js"}}'}, {"command": "node --inspect x.js"}),
        ({"package.json": '{"scripts": {"start": "node a"}}', "Procfile": "web: npm start"}, {"main": "a"}),
        ({"package.json": "[]", "index.js": ""}, {"main": "index.js"}),
    ],
)
def test_node_starts_what_the_package_says(content_of: dict[str, str], answers: dict[str, str]) -> None:
    found = detect(MODULES, files(content_of))
    assert found.modules == ("node",)
    assert found.answers == {"node": answers}


def test_what_only_names_another_script_is_followed() -> None:
    package = '{"scripts": {"start": "npm run start:prod", "start:prod": "node dist/main"}}'
    assert detect(MODULES, files({"package.json": package})).answers == {"node": {"main": "dist/main"}}
    turning = '{"scripts": {"start": "npm run a", "a": "npm start"}}'
    assert detect(MODULES, files({"package.json": turning})).modules == ("node",)


def test_pages_with_sources_of_a_program_that_nobody_starts_are_pages() -> None:
    """The parts of a page are often fetched by npm; that makes it no server."""
    found = detect(MODULES, files({"package.json": '{"devDependencies": {"vite": "5"}}', "index.html": ""}))
    assert found.modules == ()
    assert detect(MODULES, files({"package.json": "{}", "requirements.txt": ""})).modules == ("python",)


def test_a_damaged_package_is_told() -> None:
    with pytest.raises(InvalidInput, match="not JSON"):
        detect(MODULES, files({"package.json": "{"}))


def test_the_jar_with_a_main_class_is_taken() -> None:
    found = detect(
        MODULES,
        Seen(("a-plain.jar", "b.jar", "c.jar"), {"a-plain.jar!": "Manifest-Version: 1", "c.jar!": "Main-Class: x.Y\n"}),
    )
    assert found.answers == {"java": {"jar": "c.jar"}}


def test_ruby_and_php() -> None:
    assert detect(MODULES, seen("Gemfile", "config.ru")).answers == {"ruby": {"rackup": "config.ru"}}
    assert detect(MODULES, seen("index.php", "index.html")).modules == ("php",)


@pytest.mark.parametrize(
    ("names", "folder"),
    [
        (("composer.json", "public/index.php"), "public"),
        (("public/index.php", "src/"), "public"),
        (("composer.json", "index.php", "public/index.php"), "public"),
        (("composer.json", "web/index.php"), "web"),
        (("index.php", "public/index.php"), ""),
        (("index.php", "web/index.php", "composer.json"), ""),
        (("composer.json",), ""),
    ],
)
def test_the_folder_that_php_serves(names: tuple[str, ...], folder: str) -> None:
    found = detect(MODULES, seen(*names))
    assert found.modules == ("php",) and found.answers == {}
    assert found.front == ({"folder": folder} if folder else {})
    assert (f"{folder}/ is served, since {folder}/index.php is there" in found.why.en) == bool(folder)
    assert ("est servi" in found.why.fr) == bool(folder)


@pytest.mark.parametrize(
    ("module", "by_name", "libraries"),
    [
        ("python", {"app.py": "", "requirements.txt": "Flask==3\nPsycopg2>=2.9 ; x\n# mysqlclient\n"}, ("postgresql",)),
        ("python", {"app.py": "", "requirements.txt": "python_ldap\nmysqlclient[x]\n"}, ("ldap", "mariadb")),
        ("python", {"app.py": "", "requirements.txt": "psycopg2-binary\n-r other.txt\n\n"}, None),
        (
            "ruby",
            {"config.ru": "", "Gemfile": "source 'x'\n  gem \"pg\", '~> 1'\ngem('mysql2')\n"},
            ("mariadb", "postgresql"),
        ),
        ("node", {"server.js": "", "package.json": '{"dependencies": {"pg-native": "3"}}'}, ("postgresql",)),
        ("node", {"server.js": "", "package.json": '{"dependencies": 7}'}, None),
    ],
)
def test_libraries_that_packages_are_linked_with(module: str, by_name: dict[str, str], libraries: Any) -> None:
    found = detect(MODULES, files(by_name))
    assert found.modules == (module,) and found.answers.get(module, {}).get("libraries") == libraries


def test_answers_are_only_to_questions_that_there_are() -> None:
    modules = {**MODULES, "ruby": _module("ruby", 30, ("config.ru",))}
    assert detect(modules, seen("config.ru")).answers == {}


def test_what_is_worked_out_for_modules_that_were_named() -> None:
    tree = {"shop/wsgi.py": "application = get_wsgi_application()", "manage.py": "", "package.json": "{"}
    found = detail(MODULES, ["python"], files(tree))
    assert found.modules == ("python",) and found.why.en == "it starts by shop.wsgi:application (WSGI)"
    assert found.answers == {"python": {"app": "shop.wsgi:application", "server": "wsgi"}}
    laravel = seen("composer.json", "public/index.php")
    assert detail(MODULES, ["php", "unknown"], laravel).front == {"folder": "public"}
    # Nothing is found, or nothing tells: then there is nothing to say.
    for asked, tree in ((["java"], {"app.py": ""}), (["python"], {"app.py": ""}), (["static"], {"index.html": ""})):
        found = detail(MODULES, asked, files(tree))
        assert not found.answers and not found.front and not found.why.en


# --- looking ----------------------------------------------------------------------------------
TREE = {
    "requirements.txt": b"flask\n",
    "app.py": b"app = Flask(__name__)\n",
    "shop/wsgi.py": b"x = 1\n",
    "node_modules/a/index.js": b"",
    "deep/er/est.py": b"",
    "big.py": b"#" * (content.TEXT_BYTES + 1),
    "photo.png": b"\x89PNG",
}


def _tar(prefix: str = "") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in TREE.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo(prefix + "wsgi.py")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return out.getvalue()


def _zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in TREE.items():
            archive.writestr(name, data)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["directory", "tar", "wrapped", "tar.gz", "tar.zst", "zip"])
def test_every_kind_of_content_looks_the_same(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "content"
    if kind == "directory":
        for name, data in TREE.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(data)
        (place / "wsgi.py").symlink_to("/etc/passwd")
    elif kind == "tar.zst":
        import zstandard

        place.write_bytes(zstandard.ZstdCompressor().compress(_tar()))
    else:
        made = {"tar": _tar(), "wrapped": _tar("shop-1.0/"), "tar.gz": gzip.compress(_tar()), "zip": _zip()}
        place.write_bytes(made[kind])
    found = look(place)
    assert {"requirements.txt", "app.py", "shop/", "shop/wsgi.py", "photo.png", "big.py", "deep/"} <= set(found.names)
    assert "deep/er/est.py" not in found.names
    # A link's target is nobody's business, and a large file says nothing.
    assert set(found.texts) == {"requirements.txt", "app.py", "shop/wsgi.py"}
    assert detect(MODULES, found).answers == {"python": {"app": "app:app", "server": "wsgi"}}


def test_a_jar_tells_its_main_class(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "app.jar", "w") as jar:
        jar.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\r\nMain-Class: shop.Main\r\n")
    (tmp_path / "broken.jar").write_bytes(b"PK nothing")
    found = look(tmp_path)
    assert set(found.texts) == {"app.jar!"}
    assert detect(MODULES, found).answers == {"java": {"jar": "app.jar"}}


def test_what_is_read_is_bounded(tmp_path: Path) -> None:
    for number in range(content.MOST_NAMES + 50):
        (tmp_path / f"{number:05}.py").write_text("#" * 2000)
    found = look(tmp_path)
    assert len(found.names) == content.MOST_NAMES
    assert sum(map(len, found.texts.values())) <= content.TEXTS_BYTES


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "_UNPACKED", 1024 * 1024)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, size in (("app.py", 10), ("zeros", 30 * 1024 * 1024), ("late.py", 10)):
            member = tarfile.TarInfo(name)
            member.size = size
            archive.addfile(member, io.BytesIO(b"#" * size))
    place = tmp_path / "bomb.tar.gz"
    place.write_bytes(out.getvalue())
    assert look(place).names == ("app.py", "zeros")


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"neither this nor that" * 100)
    with pytest.raises(InvalidInput) as caught:
        look(tmp_path / "x")
    assert caught.value.problems[0].field == "from"
