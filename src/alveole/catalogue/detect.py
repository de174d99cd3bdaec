"""PURE. Which module runs a content, and what its questions are answered with, from names and small texts.

The manifests say which files make a module a candidate (``[build].detect``) and which candidate is
taken (``rank``). What to start is worked out here for the languages of the catalogue: by reading,
never by importing or running anything of the content.
"""

from __future__ import annotations

import ast
import contextlib
import fnmatch
import itertools
import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from alveole.catalogue.content import Seen
from alveole.catalogue.manifest import Module, Text
from alveole.errors import InvalidInput
from alveole.model.site import Answer

#: A content of which nothing but pages are known is served as it is, without any module.
PAGES = ("index.html", "index.htm")
#: Never served as they are unless somebody says so: what is in them is nobody's business.
PROGRAMS = ("*.py", "*.rb", "*.php", "*.pl", "*.go", "*.jsp", "*.class", "*.war", "*.sh", "*.env", ".env*")
_MODULE_PATH = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_.]*\Z")
#: Frameworks whose application objects speak ASGI; others speak WSGI.
_ASGI = {"FastAPI", "Starlette", "Quart", "Litestar", "BlackSheep", "Sanic", "Falcon", "Robyn"}
_WSGI = {"Flask", "Bottle", "Dash", "Eve"}
_FILES = ("wsgi.py", "asgi.py", "app.py", "main.py", "application.py", "server.py", "api.py")


class Detected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What runs a content. No ``modules``: it is served as it is, on the machine's own base."""

    modules: tuple[str, ...]
    why: Text
    answers: dict[str, dict[str, Answer]] = {}
    front: dict[str, Answer] = {}
    """To questions of the module that answers the site's requests, whichever that will be."""


class _Worked(msgspec.Struct, frozen=True):
    """What was worked out for one module: answers, and the reason as an addition to the sentence."""

    answers: dict[str, Answer] = {}
    en: str = ""
    fr: str = ""
    front: dict[str, Answer] = {}
    doubtful: bool = False
    """Nothing says what would be started: another candidate is better."""


def detect(modules: Mapping[str, Module], seen: Seen) -> Detected:
    """Pick a module of ``modules`` (by name) for ``seen``.

    Raises ``InvalidInput`` (field ``module``) that says what was looked for, when nothing fits.
    """
    found = []
    for name, module in modules.items():
        build = module.manifest.build
        if build is None or name != module.name:
            continue
        marks = _matches(build.detect, seen)
        if marks:
            found.append((build.rank, name, marks))
    if not found and any(name in seen.top for name in PAGES):
        return _plain_pages(seen)
    if not found and not any(fnmatch.fnmatchcase(name, mark) for name in seen.top for mark in PROGRAMS):
        return _plain_files(modules)
    if not found:
        raise InvalidInput(
            "nothing in the content says what runs it",
            field="module",
            hint=f"looked for {', '.join(looked_for(modules))}; --module static serves it as it is",
        )
    candidates = [(name, marks, _work_out(name, seen)) for _rank, name, marks in sorted(found)]
    name, marks, worked = next((each for each in candidates if not each[2].doubtful), candidates[0])
    if name == "static":
        return _plain_pages(seen)
    answers = _known(modules[name], worked)
    shown = _quoted(marks)
    return Detected(
        (name,),
        Text(
            en=f"{shown} {'is' if len(marks) == 1 else 'are'} there{worked.en}",
            fr=f"{shown} {'est là' if len(marks) == 1 else 'sont là'}{worked.fr}",
        ),
        {name: answers} if answers else {},
        worked.front,
    )


def detail(modules: Mapping[str, Module], asked: Sequence[str], seen: Seen) -> Detected:
    """What is worked out of ``seen`` for modules that somebody has ``asked`` for by name. Raises what workers raise."""
    found: list[tuple[str, _Worked]] = []
    for name in asked:
        build = modules[name].manifest.build if name in modules else None
        if build is not None and _matches(build.detect, seen):
            found.append((name, _work_out(name, seen)))
    found = [(name, worked) for name, worked in found if not worked.doubtful and (worked.answers or worked.front)]
    return Detected(
        tuple(asked),
        Text(
            en=", ".join(worked.en.removeprefix("; ") for _, worked in found),
            fr=", ".join(worked.fr.removeprefix(" ; ") for _, worked in found),
        ),
        {name: answers for name, worked in found if (answers := _known(modules[name], worked))},
        {question: answer for _, worked in found for question, answer in worked.front.items()},
    )


def _known(module: Module, worked: _Worked) -> dict[str, Answer]:
    known = {question.name for question in module.manifest.questions}
    return {question: answer for question, answer in worked.answers.items() if question in known}


def _work_out(name: str, seen: Seen) -> _Worked:
    worker = _WORKERS.get(name)
    return worker(seen) if worker is not None else _Worked()


def _plain_pages(seen: Seen) -> Detected:
    page = next((name for name in PAGES if name in seen.top), PAGES[0])
    en = f"{page} and no sign of a program: served as it is"
    return Detected((), Text(en=en, fr=f"{page} et aucun signe d'un programme : servi tel quel"))


def _plain_files(modules: Mapping[str, Module]) -> Detected:
    marks = ", ".join(looked_for(modules))
    en = f"no sign of a program (looked for {marks}): its files are served as they are"
    return Detected((), Text(en=en, fr=f"aucun signe d'un programme (cherché : {marks}) : servi tel quel"))


def looked_for(modules: Mapping[str, Module]) -> tuple[str, ...]:
    """The file names and patterns that any module is found by, and plain pages."""
    marks = {mark for module in modules.values() if module.manifest.build for mark in module.manifest.build.detect}
    return tuple(sorted({*marks, *PAGES}))


def _matches(patterns: tuple[str, ...], seen: Seen) -> list[str]:
    files = [name for name in seen.names if not name.endswith("/")]
    fit = (name for pattern in patterns for name in files if _fits(name, pattern))
    return list(itertools.islice(fit, 3))


def _fits(name: str, pattern: str) -> bool:
    return name.count("/") == pattern.count("/") and fnmatch.fnmatchcase(name, pattern)


def _quoted(names: list[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def procfile(seen: Seen) -> str:
    """The command of ``web:`` in a Procfile, one shell line; empty without any."""
    for line in seen.texts.get("Procfile", "").splitlines():
        match = re.match(r"web\s*:\s*(.+?)\s*\Z", line)
        if match:
            return match[1][:2000]
    return ""


def _said(answers: dict[str, Answer], what: str) -> _Worked:
    return _Worked(answers, f"; it starts by {what}", f" ; lancé par {what}")


#: Packages that are compiled against a library where no wheel, gem or addon was made of them, by language.
_LINKED = {
    "python": {
        "psycopg2": "postgresql",
        "psycopg-c": "postgresql",
        "mysqlclient": "mariadb",
        "mariadb": "mariadb",
        "pysqlite3": "sqlite",
        "python-ldap": "ldap",
        "xmlsec": "xml",
    },
    "ruby": {"pg": "postgresql", "mysql2": "mariadb", "sqlite3": "sqlite"},
    "node": {"libpq": "postgresql", "pg-native": "postgresql"},
}


def _linked(language: str, names: Iterable[str]) -> dict[str, Answer]:
    """The answer to ``libraries`` for these packages; none when they need no library."""
    known = _LINKED[language]
    found = sorted({known[name] for name in names if name in known})
    return {"libraries": tuple(found)} if found else {}


def _with_libraries(worked: _Worked, libraries: dict[str, Answer]) -> _Worked:
    return msgspec.structs.replace(worked, answers={**worked.answers, **libraries}) if libraries else worked


# --- Python -----------------------------------------------------------------------------------
def _python(seen: Seen) -> _Worked:
    lines = seen.texts.get("requirements.txt", "").splitlines()
    # PEP 503: these are one name; PEP 508: what comes after it is no letter, digit, dot, hyphen or underscore.
    names = (re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", line.strip())[0]).lower() for line in lines)
    return _with_libraries(_python_start(seen), _linked("python", names))


def _python_start(seen: Seen) -> _Worked:
    line = procfile(seen)
    if line:
        named = _python_server(line)
        return _said({"app": named[1], "server": named[0]} if named else {"command": line}, "web: (Procfile)")
    found = _python_app(seen)
    if found is None:
        return _Worked(
            {}, "; no application was found: answer 'app'", " ; aucune application trouvée : « app »", doubtful=True
        )
    server, app = found
    return _said({"app": app, "server": server}, f"{app} ({server.upper()})")


def _python_server(line: str) -> tuple[str, str] | None:
    """``gunicorn shop.wsgi --log-file -`` → (``wsgi``, ``shop.wsgi:application``); ``None``: something else."""
    try:
        words = shlex.split(line)
    except ValueError:
        return None
    if len(words) < 2 or words[0] not in ("gunicorn", "uvicorn") or any(c in line for c in ";|&`$(<>"):
        return None
    named = [word for word in words[1:] if re.fullmatch(r"[A-Za-z_][\w.]*(?::[A-Za-z_][\w.]*)?", word)]
    # An option's value may look like a module: what has a colon is meant, else only the last word can be.
    app = next((word for word in named if ":" in word), words[1] if words[1] in named else "")
    options = [word for word in words[1:] if word != app]
    harmless = all(
        word.startswith(("--log-file", "--access-logfile", "--bind", "-b", "--host", "--port")) or word == "-"
        for word in options
    )
    if not app or not harmless:
        return None
    asgi = words[0] == "uvicorn"
    return ("asgi" if asgi else "wsgi"), app if ":" in app else f"{app}:{'app' if asgi else 'application'}"


def _python_app(seen: Seen) -> tuple[str, str] | None:
    """(server, ``module:attribute``) of the most telling file; ``None`` when none holds an application."""
    for asgi in (False, True):
        # Django: both exist, and wsgi.py is what most deployments use; Channels needs asgi.py.
        for path in sorted(seen.texts):
            folder, _, file = path.rpartition("/")
            if file == ("asgi.py" if asgi else "wsgi.py") and folder:
                name = _application(seen.texts[path])
                if name and not (not asgi and _prefers_asgi(seen)):
                    return ("asgi" if asgi else "wsgi"), f"{folder}.{file[:-3]}:{name[1]}"
    tops = [path for path in seen.texts if "/" not in path and path.endswith(".py")]
    order = [name for name in _FILES if name in tops] + sorted(set(tops) - set(_FILES))
    below = sorted(path for path in seen.texts if path.count("/") == 1 and path.rpartition("/")[2] in _FILES)
    inits = sorted(path for path in seen.texts if path.count("/") == 1 and path.endswith("/__init__.py"))
    for path in [*order, *below, *inits]:
        found = _application(seen.texts[path])
        if found:
            kind, attribute = found
            module = path[:-3].replace("/", ".").removesuffix(".__init__")
            server = kind or ("asgi" if path.rpartition("/")[2] == "asgi.py" else "wsgi")
            if _MODULE_PATH.match(f"{module}:{attribute}"):
                return server, f"{module}:{attribute}"
    return None


def _prefers_asgi(seen: Seen) -> bool:
    wanted = (seen.texts.get("requirements.txt", "") + seen.texts.get("pyproject.toml", "")).lower()
    return any(word in wanted for word in ("channels", "daphne", "uvicorn"))


def _application(text: str) -> tuple[str, str] | None:
    """(``wsgi``, ``asgi`` or ``""`` when unknown, name) of the application object that a source binds at its top."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    best: tuple[int, str, str] | None = None
    for node in tree.body:
        found: tuple[int, str, str] | None = None
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            kind = _made_by(node.value)
            if names and (kind or names[0] in ("app", "application", "api")):
                known = 0 if kind else 1
                found = known, kind or "", names[0]
        elif isinstance(node, ast.AsyncFunctionDef) and node.name in ("app", "application"):
            found = 0, "asgi", node.name
        elif isinstance(node, ast.FunctionDef) and node.name in ("app", "application"):
            found = 0, "asgi" if len(node.args.args) == 1 else "wsgi", node.name
        if found and (best is None or found[0] < best[0]):
            best = found
    return (best[1], best[2]) if best else None


def _made_by(value: ast.expr | None) -> str:
    """``asgi`` or ``wsgi`` for a call that makes an application of a known framework, else empty."""
    if not isinstance(value, ast.Call):
        return ""
    name = value.func.attr if isinstance(value.func, ast.Attribute) else getattr(value.func, "id", "")
    if name in _ASGI:
        return "asgi"
    if name in _WSGI:
        return "wsgi"
    return {"get_asgi_application": "asgi", "get_wsgi_application": "wsgi", "ProtocolTypeRouter": "asgi"}.get(name, "")


# --- Node -------------------------------------------------------------------------------------
def _node(seen: Seen) -> _Worked:
    names: Iterable[str] = ()
    with contextlib.suppress(ValueError, RecursionError, AttributeError):
        names = json.loads(seen.texts.get("package.json", "{}")).get("dependencies").keys()
    return _with_libraries(_node_start(seen), _linked("node", names))


def _node_start(seen: Seen) -> _Worked:
    line = procfile(seen)
    if line and not re.match(r"npm\s+(?:start|run\s+start)\s*\Z", line):
        return _node_line(line, "web: (Procfile)")
    try:
        package = json.loads(seen.texts.get("package.json", "{}"))
    except (ValueError, RecursionError):
        raise InvalidInput("package.json is not JSON", field="from", hint="npm pkg fix") from None
    if not isinstance(package, dict):
        package = {}
    scripts = package.get("scripts")
    start = _script(scripts if isinstance(scripts, dict) else {}, "start")
    if start:
        return _node_line(start, "scripts.start")
    for name in (package.get("main"), "server.js", "app.js", "index.js", "server.mjs", "index.mjs"):
        if isinstance(name, str) and _plain(name) and name.removeprefix("./") in _files(seen):
            return _said({"main": name.removeprefix("./")}, name)
    return _Worked(
        {},
        "; no start script was found: answer 'main'",
        " ; aucun script de lancement trouvé : « main »",
        doubtful=True,
    )


def _script(scripts: dict[object, object], name: str) -> str:
    """The line behind ``npm run NAME``, through scripts that only name another: npm itself is not there to run."""
    line = ""
    for _ in range(5):
        found = scripts.get(name)
        if not isinstance(found, str):
            break
        line = found.strip()[:2000]
        match = re.fullmatch(r"npm\s+(?:run(?:-script)?\s+([\w:.-]+)|(start))", line)
        if match is None:
            break
        name = match[1] or match[2]
    return line


def _node_line(line: str, origin: str) -> _Worked:
    """``node server.js`` needs no shell; anything else is started by one."""
    with contextlib.suppress(ValueError):
        words = shlex.split(line)
        if len(words) == 2 and words[0] == "node" and _plain(words[1]):
            return _said({"main": words[1].removeprefix("./")}, f"{words[1]} ({origin.removesuffix(' (Procfile)')})")
    return _said({"command": line}, origin)


def _plain(path: str) -> bool:
    return bool(re.fullmatch(r"(?:\./)?[A-Za-z0-9_@-][A-Za-z0-9_@.-]*(?:/[A-Za-z0-9_@-][A-Za-z0-9_@.-]*)*", path))


def _files(seen: Seen) -> set[str]:
    return {name for name in seen.names if not name.endswith("/")}


# --- Java, Ruby, PHP --------------------------------------------------------------------------
def _java(seen: Seen) -> _Worked:
    jars = [name for name in seen.top if name.endswith(".jar")]
    runnable = [name for name in jars if re.search(r"^Main-Class:\s*\S", seen.texts.get(f"{name}!", ""), re.MULTILINE)]
    chosen = sorted(runnable or jars, key=lambda name: (name.endswith(("-plain.jar", "-sources.jar")), name))
    line = procfile(seen)
    if line:
        return _said({"jar": chosen[0], "command": line}, "web: (Procfile)")
    note = "" if runnable else " (no Main-Class seen)"
    return _said({"jar": chosen[0]}, f"{chosen[0]}{note}")


def _ruby(seen: Seen) -> _Worked:
    names = re.findall(r"""^\s*gem\s*\(?\s*["']([\w-]+)["']""", seen.texts.get("Gemfile", ""), re.MULTILINE)
    return _with_libraries(_ruby_start(seen), _linked("ruby", names))


def _ruby_start(seen: Seen) -> _Worked:
    line = procfile(seen)
    if line and not re.match(r"(?:bundle exec )?(?:puma|rackup|rails s(?:erver)?)\b", line):
        return _said({"command": line}, "web: (Procfile)")
    if "config.ru" in seen.top:
        return _said({"rackup": "config.ru"}, "config.ru")
    return _said({"command": line}, "web: (Procfile)") if line else _Worked({}, "; no config.ru was found", "")


def _php(seen: Seen) -> _Worked:
    """The directory that is served: frameworks keep it apart from what they load, and from their secrets."""
    for folder in ("public", "web", "webroot", "html", "htdocs"):
        # Both are there in what is served whole, unless Composer says that it is an application of its own.
        alone = "index.php" not in seen.top or (folder == "public" and "composer.json" in seen.top)
        if f"{folder}/index.php" in seen.names and alone:
            en = f"; {folder}/ is served, since {folder}/index.php is there"
            return _Worked({}, en, f" ; {folder}/ est servi, car {folder}/index.php est là", {"folder": folder})
    return _Worked()


_WORKERS: dict[str, Callable[[Seen], _Worked]] = {
    "python": _python,
    "node": _node,
    "java": _java,
    "ruby": _ruby,
    "php": _php,
}
