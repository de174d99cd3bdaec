"""A fresh Debian 12 with systemd and cgroup v2: one command, a live site, a restart, a power cut, and no trace."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from guest_base import LABEL, PACKAGE, PLACE
from guest_machine import LIMIT_SECONDS, Guest

from instancekit import until
from loadkit import Load

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(LIMIT_SECONDS + 300)]
ARTEFACTS = Path(__file__).resolve().parents[2] / "artefacts"
QUICKSTART = "/root/alveole/scripts/quickstart"
AUTHORITY = "/root/ca.pem"
GREETING = "Your first site has its own cell."
#: Of the suite, in which this layer is the longest already.
WHOLE_RUN = "ALVEOLE_TEST_PART" in os.environ
#: Everything on the disk but what lives by itself: logs, caches, the package manager's own books.
_TREE = (
    "find / -xdev"
    r" \( -path /var/cache -o -path /var/log -o -path /var/lib/apt -o -path /var/lib/dpkg -o -path /var/lib/systemd"
    r" -o -path /tmp -o -path /var/tmp -o -path /run -o -path /root -o -name __pycache__ \) -prune -o -print | sort"
)


@pytest.fixture(scope="module")
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    for program in ("qemu-system-x86_64", "mmdebstrap", "mke2fs"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is absent; scripts/test installs it")
    upgraded = not WHOLE_RUN and any(
        item.name == test_one_patch_reaches_site_after_site.__name__ for item in request.session.items
    )
    machine = Guest(ARTEFACTS, bases=upgraded)
    try:
        yield machine
    finally:
        machine.close()


def _demo_answers(guest: Guest, seconds: float) -> None:
    """The demo site, by its name, over HTTP and HTTPS, IPv4 and IPv6, from inside and from outside."""
    plain = ["-H", "Host: demo.localhost", f"http://127.0.0.1:{guest.http_port}/"]
    deadline = time.monotonic() + seconds
    # Asked from outside: under emulation a command in the guest takes seconds from what is waited for.
    while GREETING not in (page := _outside(*plain)):
        assert time.monotonic() < deadline, page + guest.run("alveole", "why", "demo", check=False)
        time.sleep(2)
    for family in ("-4", "-6"):
        assert GREETING in guest.run("curl", family, "-sSf", "--max-time", "20", "http://demo.localhost/")
        secure = guest.run("curl", family, "-sSf", "--max-time", "20", "--cacert", AUTHORITY, "https://demo.localhost/")
        assert GREETING in secure
    secure = ["-k", "--connect-to", f"::127.0.0.1:{guest.https_port}", "https://demo.localhost/"]
    assert GREETING in _outside(*secure)


def _outside(*argv: str) -> str:
    """What this machine's curl gets from the guest's ports, or says instead."""
    done = subprocess.run(
        ["curl", "-sSf", "--noproxy", "*", "--max-time", "20", *argv], capture_output=True, text=True, check=False
    )
    return done.stdout or done.stderr


def test_quickstart_puts_a_site_on_line(guest: Guest) -> None:
    guest.booted()
    assert "memory" in guest.run("cat", "/sys/fs/cgroup/cgroup.controllers"), "not the unified hierarchy"
    guest.run(
        "sh",
        "-c",
        f"{_TREE} > /root/before; dpkg-query -W > /root/packages.before; cat /etc/passwd > /root/users.before",
    )
    printed = guest.run(QUICKSTART, timeout=LIMIT_SECONDS)
    assert "http://demo.localhost/" in printed
    assert re.search(r"Admin token +\S{20,}", printed), "no token"
    # Trusted from here on: no restart may bring another one.
    guest.run("sh", "-c", f"alveole ca show > {AUTHORITY}")
    _demo_answers(guest, 240)


def test_all_units_are_in_order(guest: Guest) -> None:
    units = ("alveole-agent.service", "alveole-control.service", "alveole-ssh.service", "alveole-porter.path")
    assert guest.run("systemctl", "is-active", *units).split() == ["active"] * 4
    assert guest.run("systemctl", "is-enabled", *units).split() == ["enabled"] * 4
    assert "0 loaded units" in guest.run("systemctl", "--failed", "--no-pager", "--plain")
    assert (
        guest.run("sh", "-c", "ps -o user= -p $(systemctl show -p MainPID --value alveole-control)").strip()
        == "alveole"
    )


#: One command of the guest's: under emulation each costs seconds. What is waited for is waited for by the clock.
_WAIT = r"""
set -eux
wait_for() {
  end=$((SECONDS + 300))
  until "$@" >/tmp/said 2>&1; do
    if [ $SECONDS -gt $end ]; then echo "not: $*"; cat /tmp/said; exit 1; fi
    sleep 0.5
  done
}
"""
_SYSLOG = r"""
state() { test "$(systemctl show -p ActiveState --value "$1")" = "$2"; }
said() { alveole logs --source host --grep "$1" --since 1h | grep -F "$1"; }
send() { bash -c "exec 3<>/dev/tcp/127.0.0.1/5514 && printf '<14>1 - guest app - - - %s\n' \"$1\" >&3 && sleep 0.2"; }
logger -t guesttest "a line of the journal"
wait_for said "a line of the journal"
state alveole-porter.path active
state alveole-porter.service inactive
printf '[syslog_in]\ntcp = "127.0.0.1:5514"\n' > /root/syslog.toml
alveole syslog set /root/syslog.toml
wait_for send "taken in first"
test "$(ps -o user= -p "$(systemctl show -p MainPID --value alveole-porter)")" = alveole-log
wait_for said "taken in first"
systemctl kill --signal=KILL alveole-porter.service
wait_for send "taken in again"
wait_for said "taken in again"
alveole syslog reset
wait_for state alveole-porter.service inactive
echo all of it
"""


@pytest.mark.turn
def test_the_journal_is_read_and_syslog_is_a_unit(guest: Guest) -> None:
    """journald's lines are found; the porter starts when syslog is set, comes back when it is killed, and ends."""
    assert guest.run("bash", "-c", _WAIT + _SYSLOG, timeout=1500).strip().endswith("all of it")


#: BIND is there as an administrator has installed it, and neither runs nor is enabled.
_NAMES = r"""
unit() { test "$(systemctl is-active named) $(systemctl is-enabled named)" = "$1"; }
has() { test "$(dig +short +norecurse +time=5 @127.0.0.1 "$1" "$2")" = "$3"; }
pid() { systemctl show -p MainPID --value named; }
unit "inactive disabled"
wait_for alveole dns setup --zone demo.localhost --address 192.0.2.1 --address 2001:db8::1
unit "active enabled"
grep -F "named (enforce)" "/proc/$(pid)/attr/current"
wait_for has demo.localhost A 192.0.2.1
wait_for has demo.localhost AAAA 2001:db8::1
has ns1.demo.localhost A 192.0.2.1
test "$(stat -c '%U:%G %a' /etc/bind/alveole.conf)" = "root:bind 640"
alveole site domain add demo www.demo.localhost
wait_for has www.demo.localhost A 192.0.2.1
first=$(pid)
wait_for alveole dns setup --address 192.0.2.2
wait_for has www.demo.localhost A 192.0.2.2
wait_for has www.demo.localhost AAAA ""
alveole site domain remove demo www.demo.localhost
wait_for has www.demo.localhost A ""
test "$(pid)" = "$first"
alveole dns setup --undo
wait_for unit "inactive disabled"
test ! -e /etc/bind/alveole.conf
wait_for alveole dns setup --zone demo.localhost --address 192.0.2.3
unit "active enabled"
wait_for has demo.localhost A 192.0.2.3
echo all of it
"""


@pytest.mark.turn
def test_names_are_published_by_the_machines_bind(guest: Guest) -> None:
    """A unit that AppArmor confines: started and enabled for the zone, which follows sites, and left as it was.

    It is set up once more in the end: it comes back after the restarts below, and quickstart's undoing takes it out.
    """
    assert guest.run("bash", "-c", _WAIT + _NAMES, timeout=1200).strip().endswith("all of it")


def _names_answer(guest: Guest) -> None:
    """Where BIND was set up before, it answers after a restart of the machine."""
    if guest.ask("test", "-e", "/etc/bind/alveole.conf")[0] == 0:
        ask = ("dig", "+short", "+norecurse", "@127.0.0.1", "demo.localhost", "A")
        until(lambda: guest.ask(*ask)[1].strip() == "192.0.2.3", 240, "BIND does not answer", pause=2)


@pytest.mark.turn
def test_a_second_quickstart_changes_nothing(guest: Guest) -> None:
    pid = ("systemctl", "show", "-p", "MainPID", "--value", "alveole-agent", "alveole-control")
    before = guest.run(*pid)
    guest.run(QUICKSTART, timeout=800)
    assert guest.run(*pid) == before, "a daemon was restarted though nothing had changed"
    _demo_answers(guest, 120)


#: Before and after the test of upgrades. The guest's own archive has no Debian suite in it, and needs none.
_WITH_BASES = f"""
mount -o ro LABEL={LABEL} /mnt
install -d -m 0700 /var/lib/alveole/bases
cp -a /mnt/base/. /var/lib/alveole/bases/
cp -a /mnt/apt {PLACE}
umount /mnt
cp -a {PLACE}/1 {PLACE}/shop
install -d /etc/apt/sources.list.d
echo 'deb [signed-by={PLACE}/key.gpg] file:{PLACE}/debian bookworm main' >/etc/apt/sources.list.d/bases.list
printf 'Types: deb\\nURIs: file:{PLACE}/shop/pool\\nSuites: ./\\nTrusted: yes\\n' >{PLACE}/shop.sources
sed -i '/^\\[bases\\]/,/^\\[/ s|^#sources = .*|sources = ["{PLACE}/shop.sources"]|' /etc/alveole/alveole.toml
systemctl restart alveole-agent alveole-control
"""
_WITHOUT_BASES = f"rm -rf {PLACE} /etc/apt/sources.list.d"


@pytest.mark.skipif(WHOLE_RUN, reason="minutes more under emulation, too long for a whole run: scripts/test guest")
def test_one_patch_reaches_site_after_site(guest: Guest) -> None:
    """Under cgroup v2 a base is made anew, a copy of each site tried on it, and the site switched; what does not work
    stops it, still on the base that it had."""
    guest.run("sh", "-ec", _WITH_BASES, timeout=400)
    until(lambda: not guest.ask("alveole", "site", "list", "--json")[0], 240, "control does not answer", pause=2)
    make = ["alveole", "site", "create", "--base", "debian", "--packages", PACKAGE, "--command", "/usr/bin/shop-test"]
    make += ["--port", "8000", "--plan", "medium", "--ready-seconds", "240"]
    for name in ("one", "two"):
        guest.run(*make, "--env", f"SHOP={name}", name, timeout=900)
    before = {name: _shown(guest, name) for name in ("one", "two")}
    base = before["one"]["base_key"]
    assert before["two"]["base_key"] == base and _page_of(guest, "one") == _page_of(guest, "two") == "shop 1\n"
    guest.run("sh", "-ec", f"rm -r {PLACE}/shop; cp -a {PLACE}/2 {PLACE}/shop")
    with Load(SimpleNamespace(http=guest.http_port), "one", "two", threads=2, pause=0.3) as load:
        status, told = guest.ask("alveole", "base", "upgrade", base, "--yes", timeout=1200)
    load.check()
    assert status and "site two does not work on the new base" in told and "out of order" in told, told
    after = {name: _shown(guest, name) for name in ("one", "two")}
    assert after["one"]["base_key"] != base and after["two"]["base_key"] == base
    assert _page_of(guest, "one") == "shop 2\n" and _page_of(guest, "two") == "shop 1\n"
    # Of the copies nothing is left, and each site has the limits of its plan from the one hierarchy there is.
    ids = sorted(each["id"] for each in json.loads(guest.run("alveole", "site", "list", "--json")))

    def settled() -> bool:
        """The instance before goes when what was asked of it is answered."""
        found = guest.run("sh", "-c", "cd /sys/fs/cgroup/alveole && ls -d s*").split()
        return sorted(name.partition(".")[0] for name in found) == ids

    until(settled, 240, "instances stay", pause=2)
    for id in (each["id"] for each in after.values()):
        assert guest.run("sh", "-c", f"cat /sys/fs/cgroup/alveole/{id}.*/memory.max").split() == [str(512 << 20)]
    for name in ("one", "two"):
        guest.run("alveole", "site", "stop", name, timeout=200)
        guest.run("alveole", "site", "destroy", name, "--yes", "--unsaved", timeout=200)
    guest.run("sh", "-ec", _WITHOUT_BASES)


def _shown(guest: Guest, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(guest.run("alveole", "site", "show", name, "--json"))
    return found


def _page_of(guest: Guest, name: str) -> str:
    return _outside("-H", f"Host: {name}.localhost", f"http://127.0.0.1:{guest.http_port}/")


@pytest.mark.turn
def test_sites_outlive_a_restart_of_both_halves(guest: Guest) -> None:
    """Fault 20: agent and control stop and start; the site answers all along."""
    guest.run("systemctl", "stop", "alveole-agent", "alveole-control", timeout=240)
    assert GREETING in guest.run("curl", "-sSf", "--max-time", "20", "http://demo.localhost/")
    guest.run("systemctl", "start", "alveole-agent", "alveole-control", timeout=360)
    _demo_answers(guest, 240)


def test_the_site_comes_back_after_a_restart_of_the_machine(guest: Guest) -> None:
    guest.send("systemctl", "reboot")
    guest.booted()
    _demo_answers(guest, 420)
    _names_answer(guest)


@pytest.mark.turn
def test_the_site_comes_back_after_a_power_cut(guest: Guest) -> None:
    """Fault 19: the machine is reset without any warning to anybody."""
    guest.run("sync")
    guest.send("sh", "-c", "echo 1 > /proc/sys/kernel/sysrq; echo b > /proc/sysrq-trigger")
    guest.booted()
    _demo_answers(guest, 420)
    _names_answer(guest)


def test_undo_leaves_no_trace(guest: Guest) -> None:
    guest.run(QUICKSTART, "--undo", timeout=600)
    guest.run(
        "sh", "-c", f"{_TREE} > /root/after; dpkg-query -W > /root/packages.after; cat /etc/passwd > /root/users.after"
    )
    for what in ("packages", "users"):
        assert guest.run("diff", f"/root/{what}.before", f"/root/{what}.after", check=False) == ""
    assert guest.run("diff", "/root/before", "/root/after", check=False) == ""
    assert "alv" not in guest.run("ip", "-br", "link")
    assert "alveole" not in guest.run("cat", "/proc/self/mountinfo").replace("/root/alveole", "")
    assert guest.run("sh", "-c", "ls -d /sys/fs/cgroup/*alveole* 2>/dev/null", check=False) == ""
    assert guest.run("sh", "-c", "ps -eo pid,args | grep -e '[n]ginx' -e '[s]6-' -e 'a[l]veole '", check=False) == ""
