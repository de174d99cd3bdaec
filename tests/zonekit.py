"""Real name servers for tests: a private BIND to be set up, Knot as primary or secondary, dig."""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from dnskit import _free_port as free_port

NEEDED = ("/usr/sbin/named", "/usr/sbin/rndc", "/usr/sbin/knotd", "/usr/bin/dig")
THERE = all(Path(each).exists() for each in NEEDED)
_NAMED = """
include "{place}/rndc.key";
options {{
  directory "{place}";
  pid-file "{place}/named.pid";
  session-keyfile "{place}/session.key";
  listen-on port {port} {{ 127.0.0.1; }};
  listen-on-v6 port {port} {{ ::1; }};
  recursion no;
  dnssec-validation no;
  max-cache-size 4m;
  notify-delay 0;
}};
controls {{ inet 127.0.0.1 port {control} allow {{ 127.0.0.1; }} keys {{ "rndc-key"; }}; }};
include "{place}/named.conf.local";
"""
_KNOT = """
server:
    rundir: {place}
    listen: 127.0.0.1@{port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: {place}
    journal-db-max-size: 32M
    kasp-db-max-size: 8M
    timer-db-max-size: 2M
    catalog-db-max-size: 8M
log:
  - target: stderr
    any: info
control:
    listen: {place}/knot.sock
key:
  - id: {key}
    algorithm: hmac-sha256
    secret: {secret}
{rest}
"""
_PRIMARY = """
acl:
  - id: change
    key: {key}
    action: [update, transfer]
zone:
  - domain: {zone}
    storage: {place}
    file: zone
    acl: change
"""
_SECONDARY = """
remote:
  - id: primary
    address: 127.0.0.1@{primary}
    key: {key}
acl:
  - id: told
    key: {key}
    action: notify
zone:
  - domain: {zone}
    storage: {place}
    master: primary
    acl: told
"""
_ZONE = """$TTL 60
{zone}. SOA ns.{zone}. hostmaster.{zone}. 1 3600 600 86400 1
{zone}. NS ns.{zone}.
ns.{zone}. A 127.0.0.1
"""


def until(condition: Callable[[], object], seconds: float = 60.0) -> object:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not become true in time"
        time.sleep(0.05)
    return found


def dig(port: int, name: str, kind: str = "A", *more: str) -> list[str]:
    """What the server at this port of this machine answers, a line a record; nothing when it does not answer."""
    argv = ["dig", "+short", "+norecurse", "+time=2", "+tries=1", "-p", str(port), *more, "@127.0.0.1", name, kind]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return sorted(line for line in done.stdout.splitlines() if line and not line.startswith(";"))


def log_of(place: Path) -> str:
    return (place / "log").read_text(errors="replace")


def gone(pid: int) -> bool:
    """Whether that process has ended; nobody may have taken its status yet."""
    try:
        return not Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True


class Bind:
    """A machine's BIND as the package leaves it, but in a directory and at ports of its own; it does not run yet."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.port, self.control = free_port(), free_port()
        place.chmod(0o755)
        (place / "named.conf").write_text(_NAMED.format(place=place, port=self.port, control=self.control))
        (place / "named.conf.local").write_text("// what the administrator has there\n")
        secret = base64.b64encode(secrets.token_bytes(32)).decode()
        (place / "rndc.key").write_text(f'key "rndc-key" {{ algorithm hmac-sha256; secret "{secret}"; }};\n')
        self.settings = {
            "directory": str(place),
            "zones": str(place),
            "user": "root",
            "port": self.port,
            "control_port": self.control,
        }

    def start(self) -> None:
        subprocess.run(["/usr/sbin/named", "-n", "1", "-c", str(self.place / "named.conf")], check=True)
        until(lambda: self.pid() is not None)

    def pid(self) -> int | None:
        with contextlib.suppress(OSError, ValueError):
            return int((self.place / "named.pid").read_text())
        return None

    def stop(self) -> None:
        """It may run as nobody's child: ended by its id, and waited for until it has gone."""
        pid = self.pid()
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            try:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                until(lambda: gone(pid))
            finally:
                os.close(handle)
        (self.place / "named.pid").unlink(missing_ok=True)


@contextlib.contextmanager
def bind() -> Iterator[Bind]:
    place = Path(tempfile.mkdtemp(prefix="alvdns", dir="/tmp"))
    made = Bind(place)
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(place)


class Knot:
    def __init__(self, place: Path, port: int, secret: str) -> None:
        self.place = place
        self.port = port
        self.secret = secret


@contextlib.contextmanager
def knot(zone: str, key: str, secret: str = "", *, primary: int | None = None) -> Iterator[Knot]:
    """Knot with one zone: its primary server, or, with the port of one, a secondary of that."""
    place = Path(tempfile.mkdtemp(prefix="alvknot", dir="/tmp"))
    port = free_port()
    secret = secret or base64.b64encode(secrets.token_bytes(32)).decode()
    words = {"place": place, "port": port, "key": key, "secret": secret, "zone": zone, "primary": primary}
    (place / "zone").write_text(_ZONE.format(**words))
    rest = (_PRIMARY if primary is None else _SECONDARY).format(**words)
    (place / "knot.conf").write_text(_KNOT.format(**words, rest=rest))
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(["/usr/sbin/knotd", "-c", str(place / "knot.conf")], stdout=log, stderr=log)
    try:
        until(lambda: process.poll() is not None or "server started" in log_of(place))
        assert process.poll() is None, log_of(place)
        if primary is None:
            until(lambda: dig(port, zone, "SOA"))
        yield Knot(place, port, secret)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(place)
