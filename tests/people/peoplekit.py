"""People who come in by the API, as a browser or with a token."""

from __future__ import annotations

from typing import Any

import httpx
from doorkit import Door

from alveole.api.admit import COOKIE
from alveole.people.model import Role

PASSWORD = "correct horse battery"


def add(door: Door, name: str, role: Role = Role.OWNER, password: str = PASSWORD) -> dict[str, Any]:
    answer = door.http.post("/v1/accounts", json={"name": name, "role": str(role), "password": password})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


class Browser:
    """A page of ours: the cookie, the origin and the CSRF token go with each request that changes something."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self.origin = f"https://127.0.0.1:{door.port}"
        self.http = door.tcp()
        self.cookie = ""
        self.csrf = ""

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def sign_in(self, name: str, password: str = PASSWORD) -> httpx.Response:
        return self.took(self.http.post("/v1/session", json={"name": name, "password": password}))

    def took(self, answer: httpx.Response) -> httpx.Response:
        """Keep the session that ``answer`` opened, if it did."""
        given = answer.headers.get("set-cookie", "")
        if given.startswith(f"{COOKIE}="):
            # httpx keeps no __Host- cookie over plain HTTP, as a browser would not either.
            self.cookie = given.partition(";")[0].partition("=")[2]
            self.csrf = answer.json().get("csrf", "") if answer.content else ""
        return answer

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"Cookie": f"{COOKIE}={self.cookie}", "Origin": self.origin, "X-CSRF-Token": self.csrf}
        headers |= more.pop("headers", {})
        given = {name: value for name, value in headers.items() if value}
        return self.took(self.http.request(method, path, headers=given, **more))
