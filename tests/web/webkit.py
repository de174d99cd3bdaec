"""A browser without scripts: it follows redirects, keeps cookies, and posts the forms that a page really has."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
from doorkit import Door
from peoplekit import PASSWORD

HTML = "text/html,application/xhtml+xml"
_VOID = {"area", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class Found(HTMLParser):
    """What of a page the tests look at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.forms: list[dict[str, Any]] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self._form: dict[str, Any] | None = None
        self._select: tuple[str, list[str]] | None = None
        self._area: str | None = None
        self.feed(text)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        assert len(values) == len(attrs), f"an attribute twice: {tag} {attrs}"
        self.tags.append((tag, values))
        if tag not in _VOID:
            self.open.append(tag)
        name = values.get("name", "")
        if tag == "form":
            self._form = {"action": values.get("action", ""), "method": values.get("method", "get"), "fields": []}
            self._form |= {"buttons": [], "multipart": "multipart" in values.get("enctype", "")}
            self.forms.append(self._form)
        if self._form is None:
            return
        fields = self._form["fields"]
        if tag == "input" and name and values.get("type") != "file":
            if values.get("type") not in ("checkbox", "radio") or "checked" in values:
                fields.append((name, values.get("value", "")))
        elif tag == "select":
            self._select = (name, [])
        elif tag == "option" and self._select is not None:
            if "selected" in values:
                self._select[1].insert(0, values.get("value", ""))
            else:
                self._select[1].append(values.get("value", ""))
        elif tag == "textarea":
            self._area = ""
            fields.append((name, ""))
        elif tag == "button":
            self._form["buttons"].append((name, values.get("value", "")))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()
        if tag == "form":
            self._form = None
        elif tag == "select" and self._select is not None:
            if self._form is not None and self._select[1]:
                self._form["fields"].append((self._select[0], self._select[1][0]))
            self._select = None
        elif tag == "textarea" and self._form is not None:
            self._form["fields"][-1] = (self._form["fields"][-1][0], (self._area or "").removeprefix("\n"))
            self._area = None

    def handle_data(self, data: str) -> None:
        if self._area is not None:
            self._area += data
        if not self.open or self.open[-1] not in ("script", "style"):
            self.texts.append(data)


class Visitor:
    def __init__(self, door: Door, language: str = "en") -> None:
        self.door = door
        self.origin = f"https://127.0.0.1:{door.port}"
        self.http = door.tcp()
        self.cookies: dict[str, str] = {}
        self.language = language
        self.at = "/"
        self.answer: httpx.Response

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    # --- requests -----------------------------------------------------------------------------
    def ask(self, method: str, path: str, *, follow: bool = True, **more: Any) -> httpx.Response:
        """As a browser does it: with cookies, origin and languages; ``at`` is the address it ends up at."""
        for _ in range(10):
            headers = {"Accept": HTML, "Accept-Language": self.language, **more.pop("headers", {})}
            if self.cookies:
                headers["Cookie"] = "; ".join(f"{key}={value}" for key, value in self.cookies.items())
            if method != "GET":
                headers.setdefault("Origin", self.origin)
            self.answer = self.http.request(method, path, headers=headers, **more)
            self._keep()
            self.at = path
            if not follow or self.answer.status_code not in (303, 307):
                return self.answer
            method, path, more = "GET", urljoin(path, self.answer.headers["location"]), {}
        raise AssertionError("it redirects for ever")

    def _keep(self) -> None:
        for line in self.answer.headers.get_list("set-cookie"):
            name, _, rest = line.partition("=")
            value = rest.partition(";")[0]
            assert name.startswith("__Host-") and "Secure" in line and "HttpOnly" in line and "Path=/" in line, line
            if "Max-Age=0" in line:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value

    def get(self, path: str, **more: Any) -> Found:
        answer = self.ask("GET", path, **more)
        assert answer.status_code == 200, (answer.status_code, answer.text[:2000])
        return self.page

    @property
    def page(self) -> Found:
        return Found(self.answer.text)

    def submit(self, action: str, button: tuple[str, str] | None = None, expect: int = 200, **fields: str) -> Found:
        """Post the page's form whose action starts with ``action``, with other values for some ``fields``."""
        form = next((each for each in self.page.forms if re.match(rf"{action}(?:$|[?#])", each["action"])), None)
        assert form is not None, (action, [each["action"] for each in self.page.forms])
        pairs = [(key, value) for key, value in form["fields"] if key not in fields]
        pairs += list(fields.items()) + ([button] if button else [])
        target = urljoin(self.at, form["action"]).partition("#")[0]
        if form["multipart"]:
            answer = self.ask("POST", target, files=[(key, (None, value)) for key, value in pairs])
        else:
            body = httpx.QueryParams(pairs)
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = self.ask("POST", target, content=str(body), headers=headers)
        assert answer.status_code == expect, (answer.status_code, Found(answer.text).text[-1500:])
        return self.page

    def sign_in(self, name: str, password: str = PASSWORD) -> Found:
        self.get("/sign-in")
        page = self.submit("/sign-in", name=name, password=password)
        assert urlsplit(self.at).path == "/sites", self.at
        return page
