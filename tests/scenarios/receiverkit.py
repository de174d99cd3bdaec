"""Receivers of notifications: a mail server with STARTTLS and AUTH (aiosmtpd), and one of webhooks."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
import tempfile
import threading
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from doorkit import free_port
from outsidekit import certificate


class MailServer:
    """On ``localhost``: encrypted or not at all, and only for ``alveole`` with the password."""

    def __init__(self, password: str) -> None:
        self.authority, key = certificate("localhost")
        self.mails: list[Message] = []
        self.refuse = False
        self.port = free_port()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(self.authority + key)
            file.flush()
            context.load_cert_chain(Path(file.name))

        def authenticate(_server: Any, _session: Any, _envelope: Any, _mechanism: str, given: Any) -> AuthResult:
            good = isinstance(given, LoginPassword) and given.password == password.encode()
            return AuthResult(success=good and given.login == b"alveole", handled=False)

        self._controller = Controller(
            self,
            hostname="127.0.0.1",
            port=self.port,
            tls_context=context,
            require_starttls=True,
            auth_required=True,
            authenticator=authenticate,
        )
        self._controller.start()

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        if self.refuse:
            return "451 come back later"
        self.mails.append(message_from_bytes(envelope.content))
        return "250 OK"

    def close(self) -> None:
        self._controller.stop(no_assert=True)


class _Hook(BaseHTTPRequestHandler):
    server: Receiver

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.got.append((dict(self.headers), body))
        self.server.paths.append(self.path)
        status = self.server.answers.pop(0) if self.server.answers else 204
        self.send_response(status)
        self.send_header("Location", "http://169.254.169.254/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    # A room of Matrix is told by it.
    do_PUT = do_POST


class Receiver(ThreadingHTTPServer):
    """``answers``: statuses of the next requests; afterwards 204."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Hook)
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.paths: list[str] = []
        self.answers: list[int] = []
        self.url = f"http://localhost:{self.server_address[1]}/hooks/very-secret-path"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.got]

    def close(self) -> None:
        self.shutdown()
        self.server_close()


def is_signed(headers: dict[str, str], body: bytes, secret: str) -> bool:
    """As a receiver would look at it, by the words of the documentation."""
    found = {key.lower(): value for key, value in headers.items()}
    told = f"{found['webhook-id']}.{found['webhook-timestamp']}.".encode() + body
    signature = base64.b64encode(hmac.new(secret.encode(), told, hashlib.sha256).digest()).decode()
    return hmac.compare_digest(found["webhook-signature"], f"v1,{signature}")
