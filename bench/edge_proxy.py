"""Throughput and memory of the edge beside nginx with a hand-written block a site, in one run.

    sudo python bench/edge_proxy.py [--sites 1000] [--seconds 5] [--rounds 3] [--target unix|tcp] [--peers unix|tcp]
    sudo python bench/edge_proxy.py --memory 10000

Everything runs in a network namespace of its own. The proxy measured has one worker pinned to
core 0; the instances (one nginx behind all the sockets) and wrk share core 1. The proxies take
turns of ``--seconds``, ``--rounds`` times; medians are given.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from alveole.actuators.edge import EdgeActuator
from alveole.actuators.routes import RoutesActuator
from alveole.config import Settings, parse
from alveole.host import paths
from alveole.model.resource import Action, EdgeSpec, Kind, ResourceId, RouteSpec, RouteTarget, Step

BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
HTTP_PORT = 18080
PEER_PORT = 18081


def site_id(number: int) -> str:
    word = ""
    while number:
        number, rest = divmod(number, 32)
        word = BASE32[rest] + word
    return "s" + word.rjust(12, "a")


def settings_in(directory: Path) -> Settings:
    return parse(
        {
            "domain": "alv.test",
            "paths": {"state": f"{directory}/s", "run": f"{directory}/r"},
            "users": {"edge": "www-data", "control": "nobody"},
            "edge": {"http_port": HTTP_PORT, "https_port": 18443, "workers": 1},
            "network": {"ipv4": "10.64.0.0/16", "first_ipv4": "10.64.1.1", "gateway_ipv4": "10.64.1.254"},
        }
    )


def add_routes(settings: Settings, sites: int, port: int | None) -> float:
    routes = RoutesActuator(settings)
    begun = time.monotonic()
    for number in range(1, sites + 1):
        site, host = site_id(number), f"site{number}.alv.test"
        spec = RouteSpec(site, number, 0, RouteTarget.WORKLOAD, port, host)
        done = routes.apply(Step(ResourceId(Kind.ROUTE, site, host), Action.CREATE, f"{number:032x}", spec))
        assert done.done, done
    return time.monotonic() - begun


def start(conf: Path, core: int) -> int:
    subprocess.run(["taskset", "-c", str(core), "/usr/sbin/nginx", "-c", str(conf)], check=True)
    return int((conf.parent / f"{conf.stem}.pid").read_text())


def stop(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)
    while Path(f"/proc/{pid}").exists():
        time.sleep(0.02)


def common(directory: Path, name: str, connections: int = 8192) -> str:
    temp = "".join(f"{kind}_temp_path {directory}/{name}.tmp.{kind};" for kind in ("client_body", "proxy", "fastcgi"))
    temp += "".join(f"{kind}_temp_path {directory}/{name}.tmp.{kind};" for kind in ("uwsgi", "scgi"))
    return (
        f"user www-data; worker_processes 1; pid {directory}/{name}.pid; error_log {directory}/{name}.err;"
        f"worker_rlimit_nofile 20000; events {{ worker_connections {connections}; }}"
        f"http {{ {temp} keepalive_requests 10000; server_tokens off; server_names_hash_max_size 65536;"
        " server_names_hash_bucket_size 128; "
    )


def write_instances(directory: Path, settings: Settings, sites: int) -> Path:
    (directory / "www").mkdir(exist_ok=True)
    (directory / "www" / "index.html").write_text("x" * 600)
    listens = ["listen 0.0.0.0:8000;"]
    for number in range(1, sites + 1):
        socket = paths.web_socket(settings, site_id(number), 0)
        socket.parent.mkdir(parents=True, exist_ok=True)
        listens.append(f"listen unix:{socket};")
    conf = directory / "instances.conf"
    conf.write_text(
        common(directory, "instances", 16384) + "access_log off; open_file_cache max=10; server { "
        f"root {directory}/www; {' '.join(listens)} }} }}"
    )
    return conf


def write_peer(directory: Path, settings: Settings, sites: int, port: int | None, name: str, listen: int) -> Path:
    """A block a site, as people write them: forwarded headers and, but for ``-nolog``, its own log."""
    keep = name.startswith("keepalive")
    parts = [common(directory, name)]
    if name.endswith("nolog"):
        parts.append("access_log off;")
    parts.append(
        "proxy_http_version 1.1; proxy_set_header Host $http_host; proxy_set_header X-Real-IP $remote_addr;"
        "proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;"
        f"proxy_set_header Connection {chr(34) * 2 if keep else 'close'};"
    )
    (directory / "peerlogs").mkdir(exist_ok=True)
    for number in range(1, sites + 1):
        if port is None:
            target = f"unix:{paths.web_socket(settings, site_id(number), 0)}"
        else:
            target = f"{settings.addressing().instance(number, 0).own4}:{port}"
        to = f"http://s{number}" if keep or port is None else f"http://{target}"
        if keep or port is None:
            pool = "keepalive 8;" if keep else ""
            parts.append(f"upstream s{number} {{ server {target}; {pool} }}")
        log = "" if name.endswith("nolog") else f"access_log {directory}/peerlogs/{number}.log;"
        parts.append(
            f"server {{ listen {listen}; server_name site{number}.alv.test; {log} location / {{ proxy_pass {to}; }} }}"
        )
    conf = directory / f"{name}.conf"
    conf.write_text("\n".join(parts) + "}")
    return conf


def wrk(directory: Path, port: int, sites: int, seconds: int) -> float:
    script = directory / "hosts.lua"
    script.write_text(
        f"local n, reqs = {sites}, {{}}\n"
        "function init() math.randomseed(os.time()); for i = 1, n do\n"
        f'reqs[i] = wrk.format("GET", "/", {{ Host = "site" .. i .. ".alv.test" }}) end end\n'
        "function request() return reqs[math.random(n)] end\n"
    )
    argv = ["taskset", "-c", "1", "wrk", "-t1", "-c32", f"-d{seconds}s", "-s", str(script), f"http://127.0.0.1:{port}/"]
    text = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    bad = [line for line in text.splitlines() if "Non-2xx" in line or "Socket errors" in line]
    assert not bad, bad
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith("Requests/sec")))


def memory(master: int) -> tuple[float, float]:
    """(private and shared, private) resident MB of the master and its workers together (PSS, USS)."""
    pids = [master, *map(int, Path(f"/proc/{master}/task/{master}/children").read_text().split())]
    totals = {"Pss": 0.0, "Private_Clean": 0.0, "Private_Dirty": 0.0}
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            key, value = line.split(":")
            if key in totals:
                totals[key] += int(value.split()[0]) / 1024
    return totals["Pss"], totals["Private_Clean"] + totals["Private_Dirty"]


def throughput(directory: Path, options: argparse.Namespace) -> None:
    settings = settings_in(directory)
    port = None if options.target == "unix" else 8000
    edge = EdgeActuator(settings)
    made = add_routes(settings, options.sites, port)
    print(f"{options.sites} routes made in {made:.2f} s")
    instances = start(write_instances(directory, settings, options.sites), 1)
    step = Step(ResourceId(Kind.EDGE, "platform", "edge"), Action.CREATE, "0" * 32, EdgeSpec())
    masters: dict[str, tuple[int, int]] = {}
    rates: dict[str, list[float]] = {}
    costs: dict[str, list[float]] = {}
    try:
        os.sched_setaffinity(0, {0})
        done = edge.apply(step)
        assert done.done, done
        masters["edge"] = (edge.master() or 0, HTTP_PORT)
        for place, name in enumerate(("plain", "keepalive", "plain-nolog", "keepalive-nolog")):
            peer_port = None if (options.peers or options.target) == "unix" else 8000
            conf = write_peer(directory, settings, options.sites, peer_port, name, PEER_PORT + place)
            masters[name] = (start(conf, 0), PEER_PORT + place)
        for _ in range(options.rounds):
            for name, (master, where) in masters.items():
                wrk(directory, where, options.sites, 1)
                before = processor_seconds(master)
                rate = wrk(directory, where, options.sites, options.seconds)
                rates.setdefault(name, []).append(rate)
                # Robust where others use the machine: what a request costs the proxy's own core.
                costs.setdefault(name, []).append(rate * options.seconds / (processor_seconds(master) - before))
        direct = wrk(directory, 8000, options.sites, options.seconds)
    finally:
        edge.apply(Step(step.id, Action.DELETE))
        for name, (master, _) in masters.items():
            if name != "edge":
                stop(master)
        stop(instances)
    print(f"direct (wrk and instances on one core): {direct:.0f}")
    rate = {name: statistics.median(values) for name, values in rates.items()}
    cost = {name: statistics.median(values) for name, values in costs.items()}
    print(f"{'':16} requests/s  edge is  requests per second of the proxy's processor  edge is")
    for name in masters:
        print(
            f"{name:16} {rate[name]:10.0f}  {rate['edge'] / rate[name]:7.2f}  {cost[name]:44.0f}"
            f"  {cost['edge'] / cost[name]:7.2f}"
        )


def processor_seconds(master: int) -> float:
    total = 0
    for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split():
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(words[11]) + int(words[12])
    return total / os.sysconf("SC_CLK_TCK")


def measure_memory(directory: Path, options: argparse.Namespace) -> None:
    settings = settings_in(directory)
    edge = EdgeActuator(settings)
    step = Step(ResourceId(Kind.EDGE, "platform", "edge"), Action.CREATE, "0" * 32, EdgeSpec())
    sites = options.memory
    instances = None
    try:
        assert edge.apply(step).done
        master = edge.master()
        assert master is not None
        print("no route:       PSS {:.1f} MB, private {:.1f} MB".format(*memory(master)))
        print(f"{sites} routes made in {add_routes(settings, sites, 8000):.2f} s")
        conf = directory / "instances.conf"
        (directory / "www").mkdir()
        (directory / "www" / "index.html").write_text("x" * 600)
        conf.write_text(
            common(directory, "instances", 16384)
            + f"access_log off; server {{ root {directory}/www; listen 0.0.0.0:8000; }} }}"
        )
        instances = start(conf, 1)
        print("before traffic: PSS {:.1f} MB, private {:.1f} MB".format(*memory(master)))
        for _ in range(2):
            rate = wrk(directory, HTTP_PORT, sites, max(10, options.seconds))
            print(f"after traffic to all ({rate:.0f}/s): PSS {{:.1f}} MB, private {{:.1f}} MB".format(*memory(master)))
    finally:
        edge.apply(Step(step.id, Action.DELETE))
        if instances:
            stop(instances)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sites", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--target", choices=("unix", "tcp"), default="unix")
    parser.add_argument("--peers", choices=("unix", "tcp"), default="", help="as --target if absent")
    parser.add_argument("--memory", type=int, default=0)
    options = parser.parse_args()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x40000000) != 0:
        raise SystemExit("needs root")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "route", "add", "local", "10.64.0.0/16", "dev", "lo"], check=True)
    directory = Path(tempfile.mkdtemp(prefix="alv", dir="/tmp"))
    directory.chmod(0o755)
    try:
        (measure_memory if options.memory else throughput)(directory, options)
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
