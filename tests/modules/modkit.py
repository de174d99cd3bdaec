"""Sites of modules as their users see them: made by the command, used by public name over HTTPS with a browser's
cookies and forms, backed up, destroyed and given back.

Bases are built once and kept in the tests' cache (``ALVEOLE_TEST_CACHE``), shared by every worker and every run.
"""

from __future__ import annotations

import contextlib
import html
import itertools
import json
import mimetypes
import os
import re
import secrets
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

from instance import Instance
from instancekit import CACHE, ROOT, ApiError, Done, directory, one_at_a_time, run, same_device, until

#: What every question that wants a password gets, unless the test says otherwise; no program finds it too weak.
PASSWORD = "Correct-Horse7-Battery"
MAIL = "owner@example.org"
#: Titles that would end a string, a line, a tag or a statement somewhere, were they not quoted.
HOSTILE = (
    "L'été d\"un \\ poète",
    "<?php echo 6*7; ?> & <b>x</b>",
    "'; DROP TABLE x; -- $(id) `id` ${HOME} {{ 7*7 }} %{HTTP_HOST}",
    "日本語 — 🐝 ñ",
)
_turn = itertools.count(1)


class Page:
    """An answer: ``status``, ``text``, ``raw``, ``headers``, and the ``path`` it came from after redirects."""

    def __init__(self, status: int, raw: bytes, headers: Any, path: str) -> None:
        self.status, self.raw, self.headers, self.path = status, raw, headers, path

    @property
    def text(self) -> str:
        return self.raw.decode(errors="replace")

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def title(self) -> str:
        found = re.search(r"<title[^>]*>(.*?)</title>", self.text, re.DOTALL | re.IGNORECASE)
        return html.unescape(found[1].strip()) if found else ""

    def fields(self, marker: str = "<form") -> dict[str, str]:
        """The named inputs with a value of the first form whose text holds ``marker``."""
        for form in re.findall(r"<form\b.*?</form>", self.text, re.DOTALL | re.IGNORECASE):
            if marker in form:
                return dict(_inputs(form))
        raise AssertionError(f"no form with {marker!r} in {self!r}")

    def value(self, name: str) -> str:
        """The value of the input ``name`` anywhere in the page."""
        for found, value in _inputs(self.text):
            if found == name:
                return value
        raise AssertionError(f"no input {name!r} in {self!r}")

    def find(self, pattern: str) -> str:
        """The first group of ``pattern`` in the text."""
        found = re.search(pattern, self.text, re.DOTALL)
        assert found, f"{pattern} is not in {self!r}"
        return found[1]

    def __repr__(self) -> str:
        return f"<{self.status} {self.path} {self.text[:2000]!r}>"


def _inputs(text: str) -> Iterator[tuple[str, str]]:
    for tag in re.findall(r"<input\b[^>]*>", text, re.IGNORECASE):
        attributes = {
            key.lower(): html.unescape(one or two)
            for key, one, two in re.findall(r"""([\w-]+)=(?:"([^"]*)"|'([^']*)')""", tag)
        }
        if "name" in attributes and attributes.get("type", "").lower() not in ("checkbox", "radio", "submit", "file"):
            yield attributes["name"], attributes.get("value", "")


class Browser:
    """Keeps cookies, follows redirects within the site, sends forms."""

    def __init__(self, alveole: Instance, name: str) -> None:
        self.alveole, self.name = alveole, name
        self.cookies: dict[str, str] = {}

    def get(self, path: str = "/", *, status: int | None = 200, **more: Any) -> Page:
        return self.request("GET", path, status=status, **more)

    def post(
        self,
        path: str,
        fields: Mapping[str, Any] | Sequence[tuple[str, str]] | None = None,
        *,
        files: Mapping[str, tuple[str, bytes]] | None = None,
        document: Any = None,
        status: int | None = 200,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> Page:
        """A form (``fields``), a form with ``files`` (name: file name and bytes), or JSON (``document``)."""
        if document is not None:
            body, kind = json.dumps(document).encode(), "application/json"
        elif files is not None:
            body, kind = _multipart(dict(fields or {}), files)
        else:
            body, kind = urlencode(fields or {}).encode(), "application/x-www-form-urlencoded"
        return self.request(
            "POST", path, body=body, headers={"Content-Type": kind, **(headers or {})}, status=status, **more
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        status: int | None = 200,
        follow: bool = True,
        https: bool = True,
        name: str = "",
        seconds: float = 60.0,
    ) -> Page:
        for _ in range(10):
            sent = {"User-Agent": "Mozilla/5.0 modkit", "Accept": "*/*", **(headers or {})}
            if self.cookies:
                sent["Cookie"] = "; ".join(f"{key}={value}" for key, value in self.cookies.items())
            answer = self.alveole.fetch(
                name or self.name, path, https=https, method=method, headers=sent, body=body, seconds=seconds
            )
            for line in answer.headers.get_all("Set-Cookie") or ():
                key, _, value = line.partition(";")[0].partition("=")
                gone = re.search(r"max-age=(?:0|-)|expires=\w+, \d+.(?:Jan|Nov).(?:1970|197|2025)", line, re.IGNORECASE)
                if gone or value in ("", "deleted"):
                    self.cookies.pop(key.strip(), None)
                else:
                    self.cookies[key.strip()] = value
            page = Page(answer.status, answer.raw, answer.headers, path)
            location = answer.headers.get("Location")
            if not follow or answer.status not in (301, 302, 303, 307, 308) or not location:
                break
            path = _inside(path, location)
            if answer.status not in (307, 308):
                method, body, headers = "GET", None, None
        assert status is None or page.status == status, f"{method} {path}: {page!r}\n{self.alveole.tail()}"
        return page


def _inside(path: str, location: str) -> str:
    parts = urlsplit(urljoin(f"https://site{path}", location))
    return parts.path + (f"?{parts.query}" if parts.query else "")


def _multipart(fields: Mapping[str, str], files: Mapping[str, tuple[str, bytes]]) -> tuple[bytes, str]:
    edge = f"modkit{secrets.token_hex(8)}"
    out = [
        f'--{edge}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in fields.items()
    ]
    for key, (name, raw) in files.items():
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        head = f'--{edge}\r\nContent-Disposition: form-data; name="{key}"; filename="{name}"\r\n'
        out += [f"{head}Content-Type: {kind}\r\n\r\n".encode(), raw, b"\r\n"]
    return b"".join([*out, f"--{edge}--\r\n".encode()]), f"multipart/form-data; boundary={edge}"


class ModuleSite:
    """One site made of modules. ``seconds``: how long the command took to make it, its base being there."""

    def __init__(self, alveole: Instance, name: str) -> None:
        self.alveole, self.name, self.seconds = alveole, name, 0.0
        self.backups: list[str] = []
        self.browser = Browser(alveole, name)

    def new_browser(self) -> Browser:
        self.browser = Browser(self.alveole, self.name)
        return self.browser

    def get(self, path: str = "/", **how: Any) -> Page:
        return self.browser.get(path, **how)

    def post(self, path: str, fields: Any = None, **how: Any) -> Page:
        return self.browser.post(path, fields, **how)

    def cli(self, *words: str, **how: Any) -> Done:
        """``alveole site VERB NAME …``: the verb comes first, the name of the site is put after it."""
        return self.alveole.cli("site", words[0], self.name, *words[1:], **how)

    def configure(self, *words: str, **answers: Any) -> Done:
        """``site configure``; ``title="x"`` is ``--set title=x``, ``wordpress__title`` names the module."""
        return self.cli("configure", *words, *_sets(answers), "--yes")

    def refused(self, **answers: Any) -> Any:
        """The document with which ``site configure`` refuses these answers (status 2)."""
        return self.cli("configure", *_sets(answers), "--yes", "--json", status=2).json

    def run(self, *argv: str, user: int | None = None, input: str = "", status: int = 0) -> str:
        """Run a program inside; what it printed."""
        who = ("--user", str(user)) if user is not None else ()
        return self.alveole.cli(
            "site", "exec", *who, "--no-tty", self.name, "--", *argv, input=input, status=status
        ).out

    def logs(self, lines: int = 200) -> str:
        return self.cli("logs", "-n", str(lines)).out

    def restart(self) -> None:
        self.cli("restart")

    def meet_other_programs(self) -> None:
        """Start anew as if the data had been on another base until now."""
        marks = 'for mark in /var/lib/alveole/upgraded/*; do echo debian-0123456789abcdef >"$mark"; done'
        self.run("/bin/sh", "-ec", marks, user=0)
        self.restart()

    def backup(self) -> str:
        saved = str(self.alveole.cli("backup", "create", self.name, "--json").json["id"])
        self.backups.append(saved)
        return saved

    def destroy(self) -> None:
        self.alveole.destroy(self.name)

    def restore(self, saved: str) -> None:
        self.alveole.cli("backup", "restore", saved)

    def operate(self) -> None:
        """Run every operation that asks for nothing; each succeeds."""
        for each in self.alveole.api("GET", f"/v1/sites/{self.name}/operations"):
            if all(argument["default"] or not argument["required"] for argument in each["arguments"]):
                self.alveole.cli("op", "run", self.name, each["name"])

    def pids(self) -> dict[str, int]:
        """The main process of each service, by name: what the supervisor started, whichever program it became."""
        script = 'for d in /run/services/[!_.]*; do echo "${d##*/} $(s6-svstat -o pid "$d")"; done'
        # Only its own user sees into the supervisor: root where there are several users, else the site's.
        for user in (0, None):
            found = [line.split() for line in self.run("/bin/sh", "-c", script, user=user).splitlines()]
            if found and all(len(words) == 2 for words in found):
                return {name: int(pid) for name, pid in found if pid != "-1"}
        raise AssertionError(f"the services of {self.name} cannot be seen: {found}")


def _sets(answers: Mapping[str, Any]) -> list[str]:
    words = []
    for key, value in answers.items():
        if isinstance(value, bool):
            value = "true" if value else "false"
        elif isinstance(value, list | tuple):
            value = ",".join(map(str, value))
        words += ["--set", f"{key.replace('__', '.')}={value}"]
    return words


class ModuleSites:
    """Makes sites of modules and destroys them, with their backups, at the end of the test."""

    def __init__(self, alveole: Instance) -> None:
        self.alveole = alveole
        self.made: list[ModuleSite] = []

    def __call__(
        self,
        *modules: str,
        stem: str = "",
        content: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        mail: str = MAIL,
        **answers: Any,
    ) -> ModuleSite:
        """A site of ``modules`` made by ``alveole site create``, running and answering.

        ``title="x"`` answers a question, ``wordpress__title="x"`` one of a module; ``content``: files by path.
        """
        name = f"{stem or modules[0]}{next(_turn)}"
        site = ModuleSite(self.alveole, name)
        self.made.append(site)
        shelf = [SHELF] if SHARED else []
        words = ["--module", ",".join([*modules, *shelf]), "--defaults"]
        words += [*_sets({"admin_mail": mail, **answers}), *options]
        with contextlib.ExitStack() as stack:
            if content is not None:
                place = stack.enter_context(tempfile.TemporaryDirectory(prefix="modkit"))
                words += ["--from", str(directory(Path(place), dict(content)))]
            with base_of(self.alveole, name, words):
                began = time.monotonic()
                self.alveole.cli("site", "create", name, *words, seconds=1500.0)
                site.seconds = time.monotonic() - began
        return site

    def end(self) -> None:
        there = {each["name"]: each for each in self.alveole.api("GET", "/v1/sites")}
        for site in self.made:
            if site.name in there:
                # What hangs is removed with the whole instance.
                with contextlib.suppress(ApiError, AssertionError):
                    until(lambda name=site.name: self.alveole.site(name)["change"] is None, 60)
                    self.alveole.destroy(site.name)
            for saved in site.backups:
                self.alveole.cli("backup", "delete", saved, "--yes", status=None)


# --- bases ------------------------------------------------------------------------------------------
#: With this variable every site of modules gets one more module, which brings the packages of all of them, and so all
#: have one base: ten minutes less than thirty bases. Without it each site has its own, as its owner's would.
SHARED = os.environ.get("ALVEOLE_TEST_SHARED_BASE") == "1"
SHELF = "shelf"


def shelve(folder: Path) -> None:
    """Write the module ``shelf`` below ``folder``."""
    packages: set[str] = set()
    for manifest in sorted((ROOT / "src/alveole/data/modules").glob("*/module.toml")):
        own = tomllib.loads(manifest.read_text()).get("packages", {})
        packages |= {*own.get("mandatory", ()), *(each["name"] for each in own.get("optional", ()))}
    listed = ", ".join(f'"{name}"' for name in sorted(packages))
    directory(
        folder,
        {
            f"{SHELF}/module.toml": (
                f'name = "{SHELF}"\nversion = "1"\nicon = "box"\ncategory = "tool"\n'
                'title = { en = "Shelf", fr = "Étagère" }\n'
                'description = { en = "Packages of every module.", fr = "Les paquets de tous les modules." }\n'
                f"[packages]\nmandatory = [{listed}]\n"
            )
        },
    )


class Ground(Instance):
    """An instance that takes from the cache only the bases that its sites need."""

    def seed_bases(self) -> None:
        (self.state / "bases").mkdir(exist_ok=True)


@contextlib.contextmanager
def base_of(alveole: Instance, name: str, words: Sequence[str]) -> Iterator[None]:
    """Around the making of the site ``name``: its base is in the cache, or built by one worker only and kept there.

    The others wait for the base, not for the site.
    """
    key = str(alveole.cli("site", "create", name, *words, "--dry-run", "--json").json["site"]["base_key"])
    if take(alveole, key):
        yield
        # That of its builds, where it has some.
        for made in (alveole.state / "bases").glob("debian-*/base.json"):
            alveole.keep_base(made.parent.name)
        return
    ended = threading.Event()
    with contextlib.ExitStack() as lock:
        # The first base brings the one that all lie over; from then on each is built beside the others.
        lock.enter_context(one_at_a_time(f"modules-{key}" if _common() else "modules"))
        if take(alveole, key):
            lock.close()
            yield
            return
        for each in _common():
            take(alveole, each)

        def keep() -> None:
            while not (alveole.state / "bases" / key / "base.json").exists() and not ended.wait(0.5):
                pass
            for each in chain(alveole.state / "bases", key):
                alveole.keep_base(each)
            lock.close()

        keeper = threading.Thread(target=keep)
        keeper.start()
        try:
            yield
        finally:
            ended.set()
            keeper.join()
            for made in (alveole.state / "bases").glob("debian-*/base.json"):
                alveole.keep_base(made.parent.name)


def _common() -> list[str]:
    """The keys of bases in the cache that others may be a layer over."""
    return [kept.name for kept in sorted((CACHE / "bases").glob("debian-*")) if not lower_of(kept)]


def lower_of(base: Path) -> str:
    return str(json.loads((base / "base.json").read_text()).get("lower", ""))


def chain(bases: Path, key: str) -> list[str]:
    """``key`` and those below it; empty when one is not there."""
    found: list[str] = []
    while key:
        if not (bases / key / "base.json").exists():
            return []
        found.append(key)
        key = lower_of(bases / key)
    return found


def take(alveole: Instance, key: str) -> bool:
    """Whether the instance has the base now, whole; those it lies over come first."""
    bases, keys = alveole.state / "bases", chain(CACHE / "bases", key)
    if not keys or not same_device(CACHE / "bases", bases):
        return (bases / key).exists()
    for each in reversed(keys):
        if not (bases / each).exists():
            fresh = bases / f".seed.{each}.{secrets.token_hex(4)}"
            run("cp", "-al", CACHE / "bases" / each, fresh)
            fresh.rename(bases / each)
    return True


# --- what tests do to every site ----------------------------------------------------------------------
def round_trip(site: ModuleSite, check: Callable[[], None]) -> None:
    """What ``check`` finds is there after a restart, and again after backup, destruction and restore."""
    check()
    site.restart()
    check()
    site.operate()
    saved = site.backup()
    site.destroy()
    assert site.name not in {each["name"] for each in site.alveole.api("GET", "/v1/sites")}
    site.restore(saved)
    check()


def restarted(site: ModuleSite, **answers: Any) -> set[str]:
    """The processes that a change of ``answers`` started anew."""
    before = site.pids()
    site.configure(**answers)
    after = site.pids()
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


def png(red: int = 200, green: int = 80, blue: int = 20, side: int = 16) -> bytes:
    """A real picture of one colour."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes((red, green, blue)) * side) * side
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
