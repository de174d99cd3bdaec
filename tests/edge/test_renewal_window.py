"""When an authority would have a certificate renewed (RFC 9773), asked of a real HTTPS server that says so.

Debian's Pebble knows no renewal windows, so what is said here is written down from the RFC.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from acmekit import make_authority, server_certificate

from alveole.errors import Refused, Temporary
from alveole.issuing.dialogue import Dialogue
from alveole.issuing.model import Authority
from alveole.trust.certs import dates

WINDOW = (timedelta(days=30), timedelta(days=31))


class _Says(http.server.BaseHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012  of the class on purpose: a handler lives for one request

    def do_GET(self) -> None:
        self.asked.append(self.path)
        port = self.server.server_address[1]
        base = f"https://localhost:{port}"
        found: dict[str, object] = {"newNonce": f"{base}/n", "newAccount": f"{base}/a", "newOrder": f"{base}/o"}
        if self.path == "/with":
            found["renewalInfo"] = f"{base}/ari"
        elif self.path.startswith("/ari/"):
            start, end = (datetime.now(UTC) + each for each in WINDOW)
            found = {"suggestedWindow": {"start": start.isoformat(), "end": end.isoformat()}}
        elif self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "https://metadata.test:1/")
            self.end_headers()
            return
        content = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Retry-After", "7200")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture(scope="module")
def says(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, str, str]]:
    """Port, whom to trust, and a certificate."""
    key, certificate = make_authority("ari")
    whole = server_certificate(key, certificate)
    place = tmp_path_factory.mktemp("ari") / "server.pem"
    place.write_bytes(whole)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Says)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1], certificate.decode(), whole.decode()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(says: tuple[int, str, str], path: str, trust: str | None = None) -> tuple[float | None, float]:
    port, authorities, chain = says
    trusted = authorities if trust is None else trust
    there = Authority("ca", f"https://localhost:{port}{path}", certificates=trusted, account="https://localhost/a/1")
    stored: list[Authority] = []
    with contextlib.closing(_Kept(there, stored)) as kept:
        return kept.dialogue.renewal(chain)


class _Kept:
    def __init__(self, authority: Authority, stored: list[Authority]) -> None:
        self.dialogue = Dialogue(authority, (), threading.Event(), stored.append)

    def close(self) -> None:
        self.dialogue.__exit__()


def test_a_window_is_kept_to(says: tuple[int, str, str]) -> None:
    at, again = ask(says, "/with")
    assert at is not None
    assert 29.9 * 86_400 < at - time.time() < 31.1 * 86_400
    assert 7000 < again - time.time() < 7300
    # RFC 9773 §4.1: the key of the issuer and the serial number, in base64url.
    (asked,) = {each for each in _Says.asked if each.startswith("/ari/")}
    assert asked.count(".") == 1 and "=" not in asked


def test_an_authority_that_does_not_say(says: tuple[int, str, str]) -> None:
    at, again = ask(says, "/without")
    assert at is None and again - time.time() > 3600
    begin, end = dates(says[2])
    assert begin < time.time() < end


def test_nothing_inside_is_reached_by_way_of_an_authority(says: tuple[int, str, str]) -> None:
    """Threat 18: its own host may be anywhere, for an administrator has named it; where it sends us to may not."""
    with pytest.raises((Refused, Temporary), match=r"metadata.test"):
        ask(says, "/elsewhere")


def test_an_authority_must_be_trusted(says: tuple[int, str, str]) -> None:
    other = make_authority("other")[1].decode()
    with pytest.raises(Temporary, match="is not trusted"):
        ask(says, "/with", other)
