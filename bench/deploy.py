#!/usr/bin/env python3
from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from typing import Any

from common import ROOT, Api, Instance, page
from load import Target, Watchers
from machine import BenchError, fetch
from modules import seed
from report import Row, Session, against, interleave, main, median, ms, say

FILES, EACH = 5_000, 10_000
#: Between two questions of the one who visits.
_PAUSE = 0.05
_LOST_SECONDS = 60.0
#: https://dokku.com/docs/deployment/zero-downtime-deploys/, looked at on 2026-11-22: what it waits besides its build.
_DOKKU = "Dokku by its documentation: 10 s until a new container is taken to be up, 60 s more until the old one ends"
#: Where WordPress is on a site that has content of its own.
_FRONT = "/wordpress/"
_DOCKERFILE = "FROM alveole-bench\nCOPY content /site/current\n"


def _content(word: str, payload: list[bytes], below: str = "") -> bytes:
    """A ``.tar.gz`` of about 50 MB in 5,000 files, of which one says ``word``; ``below``: with a Dockerfile beside."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:

        def add(name: str, data: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            tar.addfile(member, io.BytesIO(data))

        if below:
            add("Dockerfile", _DOCKERFILE.encode())
        add(f"{below}index.html", f"<!doctype html><h1>{word}</h1>".encode())
        for number, data in enumerate(payload):
            add(f"{below}assets/{number % 50}/{number}.bin", data)
    return out.getvalue()


def _named(word: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        member = tarfile.TarInfo("version.txt")
        member.size = len(word)
        tar.addfile(member, io.BytesIO(word.encode()))
    return out.getvalue()


class _Shop:
    """An application with one environment; its sites are gone at the end."""

    def __init__(self, alveole: Instance, api: Api, name: str) -> None:
        self.alveole, self.api, self.name = alveole, api, name
        self.host = alveole.host(f"{name}-live")

    def ask(self, path: str, body: dict[str, Any], method: str = "POST") -> dict[str, Any]:
        return self.api.wait(str(self.api.call(method, f"/v1/apps/{self.name}{path}", body)["id"]))

    def send(self, version: str, archive: bytes) -> None:
        self.ask("/versions", {"version": version, "upload": self.api.upload(archive)})

    def step(self, verb: str, **body: Any) -> None:
        self.ask(f"/environments/live/{verb}", body)

    def serves(self, word: str) -> bool:
        return f"<h1>{word}</h1>".encode() in fetch(self.alveole.edge, self.host)[1]


@contextlib.contextmanager
def _shop(alveole: Instance, name: str) -> Iterator[_Shop]:
    with alveole.api() as api:
        shop = _Shop(alveole, api, name)
        body = {"name": name, "environments": ["live"], "accept": "at-once", "plan": "large"}
        api.wait(str(api.call("POST", "/v1/apps", body)["id"]))
        try:
            yield shop
        finally:
            api.wait(str(api.call("DELETE", f"/v1/apps/{name}?confirm={name}")["id"]))
            api.destroy(f"{name}-live")


def figure(session: Session) -> list[Row]:
    """From the first byte of an archive of 50 MB and 5,000 files until requests get it, beside what ``docker compose up
    --build`` does: build the image from the same archive, end the old container, start the new one. And a hundred
    deploys and roll backs under load, of which every answer is looked at."""
    return [*_big(session), *_many(session)]


def _big(session: Session) -> list[Row]:
    alveole, docker = session.small(), session.docker()
    payload = [os.urandom(EACH) for _ in range(FILES)]
    steps: dict[str, list[float]] = {"send": [], "deliver": [], "deploy": [], "roll back": []}
    with _shop(alveole, "big") as shop, docker.api() as engine:

        def ours(number: int) -> float:
            archive = _content(f"v{number}", payload)
            began = time.perf_counter()
            shop.send(f"v{number}", archive)
            sent = time.perf_counter()
            shop.step("deliver", version=f"v{number}")
            delivered = time.perf_counter()
            shop.step("deploy")
            done = time.perf_counter()
            if not shop.serves(f"v{number}"):
                raise AssertionError("the new version is not served")
            for name, seconds in (("send", sent - began), ("deliver", delivered - sent), ("deploy", done - delivered)):
                steps[name].append(seconds)
            return done - began

        def compose(number: int) -> float:
            context = _content(f"v{number}", payload, "content/")
            began = time.perf_counter()
            # It answers with a line of JSON a step; of a build that failed there is no image to make a container of.
            with contextlib.suppress(json.JSONDecodeError):
                engine.call("POST", f"/build?t=big:{number}", raw=context, type="application/x-tar")
            body = {**docker.create_body(), "Image": f"big:{number}"}
            body["HostConfig"] = {key: value for key, value in body["HostConfig"].items() if key != "Binds"}
            engine.call("POST", f"/containers/create?name=big{number}", body)
            with contextlib.suppress(Exception):
                engine.call("DELETE", f"/containers/big{number - 1}?force=true")
            engine.call("POST", f"/containers/big{number}/start")
            return docker.until_200(f"big{number}") - began

        seen = interleave(session.runs(7, 2), {"ours": ours, "compose": compose})
        turns = session.runs(9, 3)
        for turn in range(turns):
            began = time.perf_counter()
            shop.step("rollback", version=f"v{turn % 2}")
            until = time.perf_counter()
            if not shop.serves(f"v{turn % 2}"):
                raise AssertionError("the old version is not served")
            steps["roll back"].append(until - began)
    told = f"{_DOKKU}; " + ", ".join(f"{name} {ms(median(times))}" for name, times in steps.items())
    back = steps["roll back"]
    return [
        against(
            "a version of 50 MB in 5,000 files, until requests get it",
            seen["ours"],
            seen["compose"],
            ("send, deliver, deploy", "Engine API: build, end the old, start the new"),
            None,
            told,
        ),
        Row(
            "roll back to a kept version, until every request gets it",
            ms(median(back)),
            bar="< 1 s",
            met=max(back) < 1.0,
            runs=len(back),
            note=f"slowest {ms(max(back))}; 50 MB in 5,000 files",
            samples={"roll back": back},
        ),
    ]


def _many(session: Session) -> list[Row]:
    """A hundred deploys and roll backs in a row; no request fails, and none gets another version than the two."""
    alveole, count = session.small(), session.runs(100, 6)
    wrong: list[str] = []
    with _shop(alveole, "many") as shop:
        for word in ("one", "two"):
            shop.send(word, page(word))
        for word in ("one", "two"):
            shop.step("deliver", version=word)
            shop.step("deploy")
        began = time.perf_counter()
        with Watchers(alveole.edge, [Target(shop.host, ("<h1>one</h1>", "<h1>two</h1>"))]) as watch:
            for turn in range(count):
                word = ("one", "two")[turn % 2]
                if turn % 4 == 1:
                    shop.step("deliver", version=word)
                    shop.step("deploy")
                else:
                    shop.step("rollback", version=word)
                if not shop.serves(word):
                    wrong.append(f"turn {turn}: not {word}")
        seconds = time.perf_counter() - began
    failures = [*wrong, *watch.failures]
    for text in failures[:10]:
        say(f"failed: {text}")
    return [
        Row(
            f"requests failed or of the wrong version in {count} deploys and roll backs",
            str(len(failures)),
            bar="0",
            met=not failures,
            runs=1,
            note=f"{watch.answers:,} answers in {seconds:.0f} s, {seconds / count * 1000:.0f} ms a turn"
            + (f"; first: {'; '.join(failures[:3])}" if failures else ""),
        )
    ]


class _Visitor(threading.Thread):
    """Asks for the front page again and again; the longest time between two whole answers."""

    def __init__(self, alveole: Instance, host: str) -> None:
        super().__init__(daemon=True)
        self.alveole, self.host = alveole, host
        self.ended = threading.Event()
        self.last = time.perf_counter()
        self.gaps: list[float] = []
        self.answers = self.others = 0
        self.other = ""

    def run(self) -> None:
        while not self.ended.wait(_PAUSE):
            try:
                status, body = fetch(self.alveole.edge, self.host, _FRONT, 30.0)
            except OSError:
                status, body = 0, b""
            if status == 200 and b"wp-includes" in body:
                now = time.perf_counter()
                self.gaps.append(now - self.last)
                self.last = now
                self.answers += 1
            else:
                self.others += 1
                self.other = f"{status}: {body[:200]!r}"

    def turn(self) -> float:
        """The longest gap since the last turn, once an answer has come after it."""
        seen, until = self.answers, time.perf_counter() + _LOST_SECONDS
        while self.answers < seen + 2:
            if time.perf_counter() > until:
                raise BenchError(
                    f"WordPress does not answer any more; {self.others} other answers, the last {self.other}"
                )
            time.sleep(_PAUSE)
        longest, self.gaps = max(self.gaps, default=0.0), []
        return longest


def wordpress(session: Session) -> list[Row]:
    """Deploys and roll backs in turn of a WordPress with its database while it is visited: the longest time without an
    answer, data saved before each deploy. ``--quick``: ten of them."""
    count = session.runs(100, 10)
    body = {"name": "wp", "environments": ["live"], "accept": "at-once", "plan": "medium"}
    body |= {"modules": ["wordpress"], "answers": {"admin_mail": "bench@example.org"}}
    with Instance(keep_log=ROOT / "artefacts" / "bench-wordpress-deploys.log") as alveole, alveole.api() as api:
        seed(alveole)
        api.wait(str(api.call("POST", "/v1/apps", body)["id"]), 900)
        shop = _Shop(alveole, api, "wp")
        for word in ("one", "two"):
            # Not index.html, which would stand before WordPress.
            shop.send(word, _named(word))
            shop.step("deliver", version=word)
            shop.step("deploy")
        visitor = _Visitor(alveole, shop.host)
        visitor.start()
        longest: dict[str, list[float]] = {"deploy": [], "rollback": []}
        try:
            for turn in range(count):
                visitor.turn()
                word, verb = ("one", "two")[turn % 2], "deploy" if turn % 4 == 1 else "rollback"
                if verb == "deploy":
                    shop.step("deliver", version=word)
                shop.step(verb, **({"version": word} if verb == "rollback" else {}))
                longest[verb].append(visitor.turn())
        finally:
            visitor.ended.set()
            visitor.join()
    every = [*longest["deploy"], *longest["rollback"]]
    told = ", ".join(
        f"{verb} {ms(median(times))}, longest {ms(max(times))}" for verb, times in longest.items() if times
    )
    return [
        Row(
            f"WordPress with its database deployed and rolled back {count} times: longest time without an answer",
            ms(max(every)),
            bar="< 3 s",
            met=max(every) < 3.0,
            runs=count,
            note=f"median {told}; {visitor.answers:,} answers, {visitor.others:,} others meanwhile",
            samples=longest,
        )
    ]


if __name__ == "__main__":
    if "--wordpress" in sys.argv:
        sys.argv.remove("--wordpress")
        main("deploy WordPress", wordpress)
    else:
        main("deploy", figure)
