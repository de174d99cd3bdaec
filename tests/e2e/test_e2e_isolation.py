"""What a real site sees and reaches from inside: threats 2, 3, 4, 5, 15, 17 and 30."""

from __future__ import annotations

import ast
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from apps import ON_PORT, ask
from e2ekit import Sites

from instance import Instance
from instancekit import run

REACH = """
import json, socket, sys
found = {}
for where in json.loads(%r):
    family = socket.AF_INET6 if ":" in where[0] else socket.AF_INET
    s = socket.socket(family); s.settimeout(1.5)
    try:
        s.connect((where[0], where[1])); found[f"{where[0]} {where[1]}"] = "connected"
    except OSError as e:
        found[f"{where[0]} {where[1]}"] = "no"
    s.close()
print(json.dumps(found))
"""


@pytest.fixture
def listener() -> Iterator[int]:
    """A port that answers on every address of the host, like sshd's."""
    server = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    stop = threading.Event()

    def accept() -> None:
        server.settimeout(0.2)
        while not stop.is_set():
            try:
                server.accept()[0].close()
            except OSError:
                continue

    thread = threading.Thread(target=accept)
    thread.start()
    yield int(server.getsockname()[1])
    stop.set()
    thread.join()
    server.close()


@pytest.mark.parametrize("plan", ["small", pytest.param("medium", marks=pytest.mark.turn)])
def test_other_sites_the_host_and_metadata_are_out_of_reach(
    alveole: Instance, sites: Sites, listener: int, plan: str
) -> None:
    """Threats 15 and 17, with and without the right to go out; IPv4 and IPv6."""
    one = sites.create(ask(), plan=plan, **ON_PORT)
    two = sites.create(ask(), plan=plan, **ON_PORT)
    other = alveole.site(two)
    gateway = f"10.{alveole.octet}.1.254"
    gateway6 = other["ipv6"].partition("::")[0] + "::f:0:1"
    own = run("ip", "-o", "-4", "address").stdout
    hosts = {line.split()[3].partition("/")[0] for line in own.splitlines()} - {"127.0.0.1"}
    numbers = json.dumps(
        [
            *((other["ipv4"], 8000), (other["ipv6"], 8000)),
            *(
                (place, port)
                for place in (gateway, gateway6, *hosts)
                for port in (listener, alveole.http, alveole.https)
            ),
            *(
                (gateway, alveole.api_port),
                (gateway, 22),
                (gateway, 53),
                ("169.254.169.254", 80),
                ("fd00:ec2::254", 80),
            ),
            *(("10.0.0.1", 80), ("192.168.0.1", 80), ("172.16.0.1", 80)),
        ]
    )
    assert run("curl", "-sS", "--max-time", "3", f"http://{other['ipv4']}:8000/").stdout, "the host itself reaches it"
    found = json.loads(alveole.inside(one, REACH % numbers))
    assert set(found.values()) == {"no"}, found


def test_procfs_and_sysfs_are_not_written(alveole: Instance, sites: Sites) -> None:
    """Threat 2: as the site's user and as the container's root."""
    name = sites.create(ask(), **ON_PORT)
    places = [
        *(
            "/proc/sys/kernel/core_pattern",
            "/proc/sysrq-trigger",
            "/proc/sys/kernel/modprobe",
            "/proc/sys/vm/drop_caches",
        ),
        *(
            "/sys/kernel/uevent_helper",
            "/sys/fs/cgroup/release_agent",
            "/proc/1/oom_score_adj",
            "/etc/passwd",
            "/usr/x",
        ),
    ]
    script = (
        f"import json\nfound={{}}\nfor p in {places!r}:\n"
        " try: f = open(p, 'w'); f.write('0'); f.close(); found[p] = 'written'\n"
        " except OSError as e: found[p] = e.errno\nprint(json.dumps(found))"
    )
    for user in (None, 0):
        found = json.loads(alveole.inside(name, script, user=user))
        # A site may make itself likelier to be killed, nothing else.
        found.pop("/proc/1/oom_score_adj")
        if user == 0:
            found.pop("/etc/passwd"), found.pop("/usr/x")
        assert "written" not in found.values(), (user, found)
    assert Path("/proc/sys/kernel/core_pattern").read_text() != "0"


def test_no_capability_no_new_privileges_and_no_files(alveole: Instance, sites: Sites) -> None:
    """Threats 3, 4, 5."""
    name = sites.create(ask(), **ON_PORT)
    status = dict(
        line.split(":\t", 1)
        for line in alveole.inside(name, "print(open('/proc/self/status').read())").split("\n")
        if ":\t" in line
    )
    for line in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[line], 16) == 0, (line, status[line])
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
    assert status["Uid"].split() == ["1000"] * 4
    one = dict(
        line.split(":\t", 1)
        for line in alveole.inside(name, "print(open('/proc/1/status').read())").split("\n")
        if ":\t" in line
    )
    assert one["Uid"].split() == ["1000"] * 4 and int(one["CapEff"], 16) == 0 and one["NoNewPrivs"] == "1"
    fds = alveole.inside(
        name, "import os; print([f for f in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{f}')])"
    )
    assert ast.literal_eval(fds) == ["0", "1", "2"], fds
    assert alveole.inside(name, "import os; print(os.getuid(), os.getgid(), os.getgroups())", user=1).split()[0] == "1"
    probe = (
        "import ctypes, os\nl = ctypes.CDLL(None, use_errno=True)\nfound = []\n"
        "found.append(l.unshare(0x10000000))\nfound.append(l.mount(b'x', b'/tmp', b'tmpfs', 0, None))\n"
        "found.append(l.syscall(321, 0, 0, 0))\nfound.append(l.syscall(250, 0, 0, 0, 0))\n"
        "found.append(l.sethostname(b'x', 1))\nprint(found)"
    )
    found = ast.literal_eval(alveole.inside(name, probe))
    assert [found[0], found[1], found[2], found[3], found[4]] == [-1] * 5, found


def test_it_sees_only_itself(alveole: Instance, sites: Sites) -> None:
    """Own pids, mounts and interfaces; nothing of the host's paths or of other sites (threat 30)."""
    name = sites.create(ask(), **ON_PORT)
    other = sites.create(ask(), **ON_PORT)
    pids = alveole.inside(name, "import os; print(sum(p.isdigit() for p in os.listdir('/proc')))")
    assert int(pids) < 8
    links = alveole.inside(
        name,
        "print(open('/proc/net/dev').read())",
    )
    assert "eth0" in links and alveole.prefix not in links
    mounts = alveole.inside(name, "print(open('/proc/self/mountinfo').read())")
    assert alveole.site(other)["id"] not in mounts
    sockets = "import os; print([os.path.join(d, f) for d, _, fs in os.walk('/run') for f in fs])"
    assert alveole.inside(name, sockets).strip() == "[]"
    places = (str(alveole.state), str(alveole.run_dir), "/root", "/home")
    secret = f"import os\nfor p in {places!r}:\n try: print(os.listdir(p))\n except OSError as e: pass"
    shown = alveole.inside(name, secret)
    assert "control" not in shown and "agent.sock" not in shown


def test_a_site_may_go_out_only_where_its_plan_says_so(alveole: Instance, sites: Sites) -> None:
    """The plan medium has a way out by address translation, small has none at all."""
    for plan, way in (("small", False), ("medium", True)):
        name = sites.create(ask(), plan=plan, **ON_PORT)
        routes = alveole.inside(name, "print(open('/proc/net/route').read())")
        has = any(line.split()[1] == "00000000" for line in routes.splitlines()[1:] if line.split())
        assert has is way, (plan, routes)
        ours = [line for line in alveole.nft() if f'"{alveole.prefix}{alveole.site(name)["number"]:x}' in line]
        assert ours
