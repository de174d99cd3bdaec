#!/usr/bin/env python3
from __future__ import annotations

import time

from common import Instance, archive, page, until_200
from load import Target, Watchers, WrkRun, installed
from peers import HandNginx
from report import Row, Session, main, say

#: An application that says the word it was started with; every update starts another instance of it.
_APPLICATION = """\
import http.server, os, signal, socketserver, sys, threading
WORD = b"<h1>{word}</h1>"
class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(WORD)))
        self.end_headers()
        self.wfile.write(WORD)
    def log_message(self, *words):
        pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
server = Server(("0.0.0.0", 8000), Page)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
"""


def _application(word: str) -> bytes:
    return archive({"app.py": _APPLICATION.replace("{word}", word)})


def _blocks(count: int) -> tuple[int, int]:
    """The same with a hand-written nginx: a block more, changed, and removed, with a reload each."""
    with HandNginx() as behind:
        behind.static = behind.root / "logs"
        (behind.static / "index.html").write_text("behind " * 80)
        behind.reload()
        time.sleep(0.2)
        upstream = f"127.0.0.1:{behind.port}"
        with HandNginx([(f"s{number}.localhost", upstream) for number in range(10)], keepalive=True) as nginx:
            seconds = max(5, count // 2)
            with (
                WrkRun(nginx.port, [f"s{number}.localhost" for number in range(10)], seconds) as load,
                Watchers(nginx.address, [Target("s0.localhost", ("behind",))]) as watch,
            ):
                time.sleep(0.5)
                for number in range(count):
                    host = f"new{number}.localhost"
                    nginx.add(host, upstream)
                    nginx.reload()
                    until_200(nginx.address, host)
                    nginx.drop(host)
                    nginx.reload()
                    time.sleep(0.05)
                broken = load.result().wrong
    return broken + len(watch.failures), watch.answers


def figure(session: Session) -> list[Row]:
    """Requests that fail while 50 sites are added, updated and removed, beside nginx with reloads.

    wrk asks two sites that nobody touches; checking clients ask one of them, a static site that gets
    new content all the time and an application that is replaced by a new instance ten times.
    """
    installed()
    alveole = session.small()
    count, replacements = session.runs(50, 8), session.runs(10, 2)
    with alveole.api() as api:
        changes = [api.create(f"calm{number}", page(f"calm{number}"), plan="large") for number in range(2)]
        changes.append(api.create("static", page("version"), plan="large"))
        command = ("/usr/bin/python3", "/site/current/app.py")
        changes.append(api.create("app", _application("version"), command=command, port=8000, plan="large"))
        for change in changes:
            api.wait(change)
        try:
            broken, watch, seconds = _storm(alveole, count, replacements)
        finally:
            for each in ("calm0", "calm1", "static", "app"):
                api.destroy(each)
    failures = broken + len(watch.failures)
    for text in watch.failures[:10]:
        say(f"failed: {text}")
    peer_failures, _ = _blocks(count)
    by_host = ", ".join(f"{host.partition('.')[0]} {seen.answers:,}" for host, seen in watch.seen.items())
    return [
        Row(
            f"requests failed while {count} sites are added, updated, removed",
            str(failures),
            f"{peer_failures:,} (nginx, blocks and reloads)",
            bar="0",
            met=failures == 0,
            runs=1,
            note=f"in {seconds:.0f} s; checked answers: {by_host}; wrk on two others: {broken} wrong; "
            f"static content replaced {count} times, the application {replacements} times; "
            + (f"first failures: {'; '.join(watch.failures[:3])}" if watch.failures else "each answer was the site's"),
            samples={"ours": [float(failures)], "nginx": [float(peer_failures)]},
        )
    ]


def _storm(alveole: Instance, count: int, replacements: int) -> tuple[int, Watchers, float]:
    targets = [
        Target(alveole.host("calm0"), ("calm0",)),
        Target(alveole.host("static"), ("version",)),
        Target(alveole.host("app"), ("version",)),
    ]
    began = time.perf_counter()
    with alveole.api() as api, Watchers(alveole.edge, targets) as watch:
        broken = 0
        done = 0
        every = max(1, count // replacements)
        # wrk runs in stretches, so that it asks the whole time whatever the time is.
        while done < count:
            hosts = [alveole.host("calm0"), alveole.host("calm1")]
            with WrkRun(alveole.http, hosts, 5, connections=8) as load:
                until = time.perf_counter() + 4.5
                while done < count and time.perf_counter() < until:
                    name = f"new{done}"
                    first = api.create(name, page("new"))
                    refresh = api.update("static", page(f"version {done}"))
                    replace = api.update("app", _application(f"version {done}")) if done % every == 0 else None
                    api.wait(first)
                    api.wait(refresh)
                    api.wait(api.update(name, page("newer")))
                    if replace is not None:
                        api.wait(replace)
                    api.destroy(name)
                    done += 1
                broken += load.result().wrong
    return broken, watch, time.perf_counter() - began


if __name__ == "__main__":
    main("underload", figure)
