"""A tiny module for tests, and words to make and spoil others."""

from __future__ import annotations

from pathlib import Path

MANIFEST = """
name = "{name}"
version = "1.0"
icon = "box"
category = "web"
least_plan = "medium"
title = {{ en = "Hello", fr = "Bonjour" }}
description = {{ en = "Says hello.", fr = "Dit bonjour." }}
{more}
[packages]
mandatory = ["python3-minimal"]

[web]
port = 8080

[[question]]
name = "title"
type = "string"
max = 40
title = {{ en = "Title", fr = "Titre" }}
description = {{ en = "What it says.", fr = "Ce qu'il dit." }}

[[question]]
name = "secret"
type = "password"
title = {{ en = "Secret", fr = "Secret" }}

[[question]]
name = "database"
type = "string"
default_from = "site.name|replace('-', '_')"
title = {{ en = "Database", fr = "Base" }}

[[question]]
name = "workers"
type = "integer"
default_from = "{{'normal': 1, 'big': 2, 'huge': 4}}[generic.optimisation]"
title = {{ en = "Workers", fr = "Travailleurs" }}

[[process]]
name = "web"
argv = ["/usr/bin/python3", "-m", "http.server", "8080"]
order = 90

[[process]]
name = "worker"
argv = ["/bin/sleep", "infinity"]

[[volume]]
name = "data"
path = "/data/{name}"
backup = "cold"

[[file]]
path = "{name}/page.ini"
template = "page.ini"
format = "ini"
restarts = ["web"]

[[file]]
path = "{name}/secret.ini"
template = "secret.ini"
format = "ini"
user = "site"
mode = "0600"
restarts = ["worker"]
"""
PAGE = "title = {{ a.title }}\naddress = {{ site.url }}\n"
SECRET = "secret = {{ a.secret }}\ndatabase = {{ a.database }}\nworkers = {{ a.workers }}\n"


def write_module(top: Path, name: str = "hello", more: str = "", content: str = "") -> Path:
    """A folder of a sound module below ``top``; gives it. ``more``: keys; ``content``: its own page."""
    folder = top / name
    (folder / "templates").mkdir(parents=True)
    (folder / "module.toml").write_text(MANIFEST.format(name=name, more=more))
    (folder / "templates" / "page.ini").write_text(PAGE)
    (folder / "templates" / "secret.ini").write_text(SECRET)
    if content:
        (folder / "content").mkdir()
        (folder / "content" / "index.html").write_text(content)
    return folder
