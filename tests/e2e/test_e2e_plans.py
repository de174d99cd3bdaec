"""Plans bite: who takes too much suffers alone, while another site answers all along (threat 29, fault 13)."""

from __future__ import annotations

import time

import pytest
from apps import ON_PORT, PYTHON, ask
from e2ekit import Sites

from instance import Instance
from instancekit import archive, page, until
from loadkit import Load

#: Sleeps until it is told what to do by a file, so that it is ready first.
HOG = """
import http.server as h, os, sys, threading, time, urllib.parse
def memory():
    held = []
    while True:
        held.append(bytearray(4 << 20)); held[-1][::4096] = b"x" * 1024; time.sleep(0.002)
def cpu():
    end = time.time() + 4
    while time.time() < end: pass
class S(h.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"ok")
        if self.path == "/memory": threading.Thread(target=memory).start()
        if self.path == "/cpu":
            for _ in range(2):
                if os.fork() == 0: cpu(); os._exit(0)
    def log_message(self, *a): pass
h.ThreadingHTTPServer(("0.0.0.0", 8000), S).serve_forever()
"""


@pytest.fixture
def hog(alveole: Instance, sites: Sites) -> str:
    return sites.create(
        archive({"hog.py": HOG}),
        stem="hog",
        command=[PYTHON, "/site/current/hog.py"],
        port=8000,
        volumes=[{"name": "data", "path": "/data"}],
    )


def test_a_memory_hog_dies_alone(alveole: Instance, sites: Sites, hog: str) -> None:
    """It is started again, and what happened is told."""
    other = sites.create(page("calm"))
    pid = alveole.workload_pid(hog)
    with Load(alveole, other, threads=2) as load:
        alveole.fetch(hog, "/memory")
        until(lambda: alveole.answers(hog) and alveole.workload_pid(hog) != pid, 30, "it does not end and come back")
    load.check()
    alveole.until_repaired(f"{hog}: ", "memory")


def test_a_fork_bomb_stops_at_its_limit(alveole: Instance, sites: Sites, hog: str) -> None:
    other = sites.create(page("calm"))
    bomb = (
        "import os, time\nn = 0\n"
        "try:\n"
        " while True:\n"
        "  if os.fork() == 0: time.sleep(3); os._exit(0)\n"
        "  n += 1\n"
        "except OSError as e: print(n, e.errno)"
    )
    with Load(alveole, other, threads=2) as load:
        made, number = alveole.inside(hog, bomb).split()
    load.check(20)
    assert int(made) < 64 and int(number) == 11
    until(lambda: alveole.answers(hog), 30)


def test_a_cpu_hog_gets_its_share(alveole: Instance, sites: Sites, hog: str) -> None:
    """A quarter of one core in the plan small, however many processes ask for more."""
    other = sites.create(page("calm"))
    with Load(alveole, other, threads=1, pause=0.01) as load:
        before, began = alveole.site(hog)["cpu_seconds"], time.monotonic()
        alveole.fetch(hog, "/cpu")
        time.sleep(3)
        used, took = alveole.site(hog)["cpu_seconds"] - before, time.monotonic() - began
    load.check()
    assert 0.1 < used / took < 0.35, (used, took)
    assert load.worst < 2


def test_a_full_disk_hits_that_site_only(alveole: Instance, sites: Sites) -> None:
    """Fault 13: the size of the plan is a hard limit; the site itself goes on answering."""
    alveole.api(
        "POST",
        "/v1/plans",
        {"name": "cramped", "cpu_millis": 500, "memory_bytes": 128 << 20, "pids": 64, "disk_bytes": 32 << 20},
    )
    volume = [{"name": "data", "path": "/data"}]
    name = sites.create(ask(), plan="cramped", volumes=volume, **ON_PORT)
    other = sites.create(ask(), volumes=volume, **ON_PORT)
    fill = (
        "n = 0\n"
        "try:\n"
        " with open('/data/big','wb', 0) as f:\n"
        "  for _ in range(200): f.write(b'x' * (1 << 20)); n += 1\n"
        "except OSError as e: print(n, e.errno)"
    )
    with Load(alveole, other, name, threads=2) as load:
        written, number = alveole.inside(name, fill).split()
        assert int(number) == 28 and 10 < int(written) < 32
        alveole.inside(other, "open('/data/x','w').write('fine')")
    load.check()
    # The background reads all sites' disks too, and what it has just read is shown for two seconds.
    until(lambda: alveole.site(name)["disk_bytes"] > 10 << 20, 30)
    alveole.verb(name, "restart")
    assert alveole.fetch(name).status == 200
    alveole.inside(name, "import os; os.unlink('/data/big'); open('/data/small','w').write('x')")
    alveole.destroy(name)
    alveole.api("DELETE", "/v1/plans/cramped")


def test_inodes_run_out_for_that_site_only(alveole: Instance, sites: Sites) -> None:
    volume = [{"name": "data", "path": "/data"}]
    name = sites.create(ask(), plan="small", volumes=volume, **ON_PORT)
    fill = (
        "import os\nn = 0\n"
        "try:\n"
        " while n < 400000:\n"
        "  os.close(os.open(f'/data/{n}', os.O_CREAT|os.O_WRONLY)); n += 1\n"
        "except OSError as e: print(n, e.errno)"
    )
    done = alveole.inside(name, fill)
    assert not done or done.split()[1] == "28"
    assert alveole.fetch(name).status == 200


def test_a_larger_plan_takes_hold(alveole: Instance, sites: Sites, hog: str) -> None:
    script = "import os; print(len(os.sched_getaffinity(0)))"
    with Load(alveole, hog, threads=1, pause=0.02) as load:
        alveole.cli("site", "set", hog, "--plan", "medium")
        alveole.inside(hog, script)
    load.check(10)
    held = alveole.inside(hog, "b = bytearray(200 << 20); b[::4096] = b'x' * len(b[::4096]); print(len(b))")
    assert held.strip() == str(200 << 20)
    alveole.cli("site", "set", hog, "--plan", "nosuch", status=2)
