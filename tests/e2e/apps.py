"""The programs that the tests' sites run."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from instancekit import archive

PYTHON = "/usr/bin/python3"
#: The course's gunicorn hello-world, with a word to tell releases apart.
HELLO = """
import os

def app(environ, start_response):
    data = b"Hello, {0}!\\n"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(data)))])
    return iter([data])
"""
#: Answers with what it knows; echoes one WebSocket frame. Listens on $PORT, else on $ALVEOLE_SOCKET.
ASK = """
import base64, hashlib, json, os, socket, socketserver, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def address_string(self):
        return "-"
    def do_GET(self):
        if self.headers.get("Upgrade", "").lower() == "websocket":
            return self.websocket()
        if self.path.startswith("/accel"):
            self.send_response(200)
            self.send_header("X-Accel-Redirect", "/etc/passwd")
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"plain")
            return
        told = json.dumps({"path": self.path, "env": dict(os.environ), "headers": dict(self.headers),
                           "word": "{0}", "argv": sys.argv, "cwd": os.getcwd(), "uid": os.getuid()}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)
    def do_POST(self):
        size = int(self.headers.get("Content-Length", "0"))
        got = self.rfile.read(size)
        told = hashlib.sha256(got).hexdigest().encode()
        self.send_response(201)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)
    def websocket(self):
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.wfile.write(("HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\n"
                          "Connection: Upgrade\\r\\nSec-WebSocket-Accept: " + accept + "\\r\\n\\r\\n").encode())
        first = self.rfile.read(2)
        size = first[1] & 127
        mask = self.rfile.read(4)
        text = bytes(b ^ mask[i % 4] for i, b in enumerate(self.rfile.read(size)))
        self.wfile.write(b"\\x81" + bytes([len(text)]) + text)
        self.close_connection = True

class Unix(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    def get_request(self):
        request, _ = super().get_request()
        return request, ("-", 0)

print("up with {0}", flush=True)
if os.environ.get("PORT"):
    ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
else:
    path = os.environ["ALVEOLE_SOCKET"]
    if os.path.exists(path):
        os.unlink(path)
    old = os.umask(0)
    server = Unix(path, Handler)
    os.umask(old)
    server.serve_forever()
"""


def hello(word: str) -> bytes:
    return archive({"app.py": HELLO.replace("{0}", word)})


def ask(word: str = "one") -> bytes:
    return archive({"ask.py": ASK.replace("{0}", word)})


GUNICORN_PORT = ["/usr/bin/gunicorn", "--bind", "0.0.0.0:8000", "--workers", "1", "app:app"]
ON_PORT = {"command": [PYTHON, "/site/current/ask.py"], "port": 8000}
ON_SOCKET = {"command": [PYTHON, "/site/current/ask.py"]}
