"""The smallest application gunicorn can serve: one WSGI function (PEP 3333)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Start = Callable[[str, list[tuple[str, str]]], Any]


def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    """Greet every path, and say which one was asked for."""
    body = f"Hello, World!\nYou asked for {environ.get('PATH_INFO', '/')}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]
