"""A shop behind a TLS port in place of the edge and a site, and a certificate that its visitors trust."""

from __future__ import annotations

import contextlib
import datetime
import html
import json
import secrets
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PASSWORD = 'cor"rect & <horse>'


def certificate(*names: str) -> tuple[str, str]:
    """A self-signed certificate for ``names`` and its key (PEM)."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    kept = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM).decode(), kept.decode()


class _Shop(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Shop

    def log_message(self, *_: object) -> None:
        pass

    def _say(self, status: int, body: str = "", kind: str = "text/html; charset=utf-8", **headers: str) -> None:
        raw = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(raw)

    def do_GET(self) -> None:
        self._do("")

    def do_POST(self) -> None:
        self._do(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())

    def _do(self, body: str) -> None:
        shop, path = self.server, urlsplit(self.path).path
        shop.seen.append((self.command, self.headers.get("Host", ""), self.path, dict(self.headers), body))
        cookies = dict(part.strip().partition("=")[::2] for part in self.headers.get("Cookie", "").split(";"))
        if shop.broken and path == "/":
            self._say(500, "out of order")
        elif path == "/":
            self._say(200, "<h1>Welcome v12</h1> <a href=/login>sign in</a>", X_Release="12")
        elif path == "/login" and not body:
            token = secrets.token_hex(8)
            shop.tokens.add(token)
            form = f'<form action="/login" method=post><input type=hidden name=csrf value="{token}">'
            self._say(200, form + "<input name=user><input type=password name=password><input type=submit></form>")
        elif path == "/login":
            given = {key: values[0] for key, values in parse_qs(body).items()}
            if given.get("csrf") not in shop.tokens or given.get("password") != PASSWORD:
                self._say(403, f"wrong password {html.escape(given.get('password', ''))}")
            else:
                self._say(303, Location="/account", Set_Cookie="session=s3cr3t; Path=/; HttpOnly; Secure")
        elif path == "/account":
            self._say(200 if cookies.get("session") == "s3cr3t" else 401, "Hello Ana")
        elif path == "/api/cart":
            item = {"id": 7, "items": [{"name": "comb", "price": 1.5}], "paid": False}
            self._say(200, json.dumps(item), "application/json")
        elif path == "/api/cart/7":
            self._say(200, json.dumps({"got": json.loads(body or "{}")}), "application/json")
        elif path == "/echo":
            self._say(200, json.dumps({"headers": dict(self.headers), "body": body}), "application/json")
        elif path == "/elsewhere":
            self._say(302, Location="http://169.254.169.254/latest/meta-data")
        elif path == "/round":
            self._say(302, Location="/round")
        elif path == "/slow":
            time.sleep(1.0)
            self._say(200, "at last")
        elif path == "/drip":
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                for _each in range(30):
                    self.wfile.write(b".")
                    time.sleep(0.05)
        elif path == "/huge":
            self._say(200, "x" * (3 << 20))
        else:
            self._say(404, "not here\x1b[2J", Set_Cookie="top=1; Domain=localhost")


class Shop(ThreadingHTTPServer):
    """``authority``: what visitors need to trust. ``seen``: method, Host, path, headers, body of each request."""

    daemon_threads = True

    def __init__(self, *names: str, tls: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), _Shop)
        self.seen: list[tuple[str, str, str, dict[str, str], str]] = []
        self.tokens: set[str] = set()
        self.broken = False
        self.authority = ""
        self.port = int(self.server_address[1])
        if tls:
            self.authority, key = certificate(*names)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
                file.write(self.authority + key)
                file.flush()
                context.load_cert_chain(Path(file.name))
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """A visitor that hangs up is no error."""

    def serve_over(self, connection: socket.socket) -> None:
        """One connection that came some other way."""
        threading.Thread(
            target=self.RequestHandlerClass, args=(connection, ("127.0.0.1", 0), self), daemon=True
        ).start()


@contextlib.contextmanager
def shop(*names: str, tls: bool = True) -> Iterator[Shop]:
    made = Shop(*names, tls=tls)
    try:
        yield made
    finally:
        made.shutdown()
        made.server_close()


#: As a browser of a test calls itself.
AGENT = "Mozilla/5.0 (test)"


def seen(
    door: Any, site: str, *visit: tuple[str, str, int, str], agent: str = AGENT, client: str = "127.0.0.1"
) -> None:
    """Lines as the proxy writes them: method, address, status, page before."""
    stored = door.services.store.site(site)
    assert stored is not None
    place = door.settings.logs / "edge" / stored.site.id
    place.mkdir(parents=True, exist_ok=True)
    with (place / "access.log").open("a") as file:
        for method, uri, status, before in visit:
            line = {"time": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()), "client": client}
            line |= {"scheme": "https", "method": method, "host": f"{site}.localhost", "uri": uri}
            line |= {"protocol": "HTTP/1.1", "status": str(status), "bytes": "1", "seconds": "0.1"}
            line |= {"site_seconds": "0.1", "referer": f"https://{site}.localhost{before}" if before else ""}
            file.write(json.dumps(line | {"agent": agent}, separators=(",", ":")) + "\n")
