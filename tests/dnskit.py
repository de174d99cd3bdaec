"""A real name server (BIND) with one zone that a test writes to; on a loopback port, and gone with the test.

With a key, only who signs with it may change the zone; a second zone there, ``other.test``, is nobody's to change.
"""

from __future__ import annotations

import base64
import contextlib
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ZONE = "example.test"
_CONFIG = """
options {{
  directory "{place}";
  pid-file "{place}/pid";
  session-keyfile "{place}/session.key";
  listen-on port {port} {{ 127.0.0.1; }};
  listen-on-v6 {{ none; }};
  recursion no;
  dnssec-validation no;
  max-cache-size 4m;
  tcp-clients 10;
}};
controls {{}};
{key}
zone "{zone}" {{ type primary; file "zone"; allow-update {{ {who}; }}; }};
zone "other.test" {{ type primary; file "other"; }};
"""
KEY_NAME = "alveole-test"
_KEY = 'key "{name}" {{ algorithm hmac-sha256; secret "{secret}"; }};'

_ZONE = """$TTL 1
@ SOA ns hostmaster 1 3600 600 86400 1
@ NS ns
ns A 127.0.0.1
"""


class NameServer:
    def __init__(self, port: int, secret: str = "") -> None:
        self.port = port
        self.secret = secret
        """Of the key :data:`KEY_NAME`, in Base64; empty: everybody on this machine may change the zone."""
        self.address = f"127.0.0.1:{port}"

    def put(self, name: str, *texts: str) -> None:
        """The TXT records of a name of the zone from now on; the server holds them when this returns."""
        import dns.query
        import dns.rcode
        import dns.update

        update = dns.update.UpdateMessage(ZONE)
        update.delete(f"{name}.", "TXT")
        for text in texts:
            update.add(f"{name}.", 1, "TXT", f'"{text}"')
        answer = dns.query.tcp(update, "127.0.0.1", port=self.port, timeout=30)
        assert answer.rcode() == dns.rcode.NOERROR, answer


@contextlib.contextmanager
def name_server(*, keyed: bool = False) -> Iterator[NameServer]:
    """BIND answers when this is entered."""
    place = Path(tempfile.mkdtemp(prefix="alvdns", dir="/tmp"))
    port = _free_port()
    secret = base64.b64encode(secrets.token_bytes(32)).decode() if keyed else ""
    key = _KEY.format(name=KEY_NAME, secret=secret) if keyed else ""
    who = f'key "{KEY_NAME}"' if keyed else "127.0.0.1"
    (place / "named.conf").write_text(_CONFIG.format(place=place, port=port, zone=ZONE, key=key, who=who))
    (place / "zone").write_text(_ZONE)
    (place / "other").write_text(_ZONE)
    log = (place / "log").open("wb")
    named = subprocess.Popen(
        ["/usr/sbin/named", "-g", "-n", "1", "-c", str(place / "named.conf")], stdout=log, stderr=log, cwd=place
    )
    try:
        _until_it_answers(named, port, place)
        yield NameServer(port, secret)
    finally:
        named.kill()
        named.wait()
        log.close()
        shutil.rmtree(place)


def _until_it_answers(named: subprocess.Popen[bytes], port: int, place: Path) -> None:
    import dns.exception
    import dns.message
    import dns.query

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and named.poll() is None:
        with contextlib.suppress(OSError, dns.exception.DNSException):
            dns.query.tcp(dns.message.make_query(f"{ZONE}.", "SOA"), "127.0.0.1", port=port, timeout=5)
            return
        time.sleep(0.05)
    raise AssertionError((place / "log").read_text()[-3000:])


def _free_port() -> int:
    """Free for TCP and UDP."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            port = int(tcp.getsockname()[1])
            with contextlib.suppress(OSError):
                udp.bind(("127.0.0.1", port))
                return port
