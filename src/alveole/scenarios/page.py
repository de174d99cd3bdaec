"""PURE. Values out of an answer: expressions, paths into JSON, fields of forms, cookies.

Pages are strangers' text of up to a megabyte, and expressions come from whoever writes a scenario: both go through RE2,
whose time grows with the length of the text and nothing else (Python's ``re`` and ``html.parser`` have no such limit).
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus, urljoin, urlsplit

import msgspec

from alveole.masking import HIDDEN

_PERCENT = re.compile("%[0-9A-F]{2}")
_REGEX_MAX = 1000
#: What may stand in a request line as it is.
PLAIN = "/?&=:@!$'()*+,;%-._~[]#"
_KEY = re.compile(r"\.?([A-Za-z0-9_@-]{1,100})|\[(\d{1,6})\]|\['([^']{1,100})'\]")
_FORM = r"(?is)<form\b([^>]*)>(.*?)</form\s*>"
_FIELD = r"(?is)<(input|textarea)\b([^>]*)>(?:([^<]*)</textarea\s*>)?"
_ATTRIBUTE = r"""(?is)([a-z_:][a-z0-9_:.-]*)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+)))?"""
_FORMS_MAX, _FIELDS_MAX = 50, 500


@lru_cache(maxsize=256)
def regex(text: str) -> Any:
    """A compiled expression of RE2. Raises ``ValueError``."""
    import re2

    if len(text) > _REGEX_MAX:
        raise ValueError(f"longer than {_REGEX_MAX} characters")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 1 << 20
    try:
        return re2.compile(text, options)
    except re2.error as error:
        said = error.args[0] if error.args else "not understood"
        raise ValueError(said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)) from None


def found(text: str, body: str) -> str | None:
    """The first group of what ``text`` finds in ``body``, or all of it; ``None`` when it finds nothing."""
    match = regex(text).search(body)
    if match is None:
        return None
    return str(match.group(1) if match.re.groups and match.group(1) is not None else match.group(0))


# --- JSON ---------------------------------------------------------------------------------------
def keys_of(path: str) -> tuple[str | int, ...]:
    """``$.user.names[0]`` → ``("user", "names", 0)``; a number between dots is a place too. Raises ``ValueError``."""
    rest = path.removeprefix("$")
    keys: list[str | int] = []
    while rest:
        match = _KEY.match(rest)
        if match is None or len(keys) > 20:
            raise ValueError(f"{path[:80]!r} is not a path like user.names[0]")
        keys.append(int(match[2]) if match[2] is not None else match[1] or match[3])
        rest = rest[match.end() :]
    return tuple(keys)


class Absent(Exception):
    """There is nothing at that path; the text says how far it goes."""


def at(document: Any, path: str) -> Any:
    """What stands at ``path``. Raises :class:`Absent`."""
    value = document
    for key in keys_of(path):
        if isinstance(value, list) and isinstance(key, str) and key.isdigit():
            key = int(key)
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            raise Absent(f"there is no {key!r} in {shown(value)}") from None
    return value


def shown(value: Any) -> str:
    """A value of JSON, short enough for a sentence."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 80 else f"{text[:77]}…"


# --- forms --------------------------------------------------------------------------------------
class Form(msgspec.Struct, frozen=True):
    action: str
    """A whole address."""
    fields: dict[str, str]


def _attributes(text: str) -> dict[str, str]:
    names: dict[str, str] = {}
    for each in regex(_ATTRIBUTE).finditer(text[:10_000]):
        value = next((each.group(number) for number in (2, 3, 4) if each.group(number) is not None), "")
        names.setdefault(each.group(1).lower(), html.unescape(value))
    return names


def forms(body: str, page: str) -> Iterator[Form]:
    """The forms of a page at the address ``page``: hidden and text fields, boxes that are ticked, text areas."""
    for number, match in enumerate(regex(_FORM).finditer(body)):
        if number >= _FORMS_MAX:
            return
        fields: dict[str, str] = {}
        for each in regex(_FIELD).finditer(match.group(2)):
            attributes = _attributes(each.group(2))
            name, kind = attributes.get("name", ""), attributes.get("type", "text").lower()
            if not name or len(fields) >= _FIELDS_MAX or kind in ("submit", "button", "image", "reset", "file"):
                continue
            if kind in ("checkbox", "radio") and "checked" not in attributes:
                continue
            area = each.group(1).lower() == "textarea"
            value = html.unescape(each.group(3) or "") if area else attributes.get("value", "")
            fields[name] = value or ("on" if kind in ("checkbox", "radio") and "value" not in attributes else "")
        yield Form(urljoin(page, _attributes(match.group(1)).get("action", "") or page), fields)


def form_for(body: str, page: str, target: str, given: dict[str, str]) -> Form | None:
    """The form that leads to ``target``; else the first that has a field of those ``given``."""
    there = list(forms(body, page))
    path = urlsplit(target).path
    for form in there:
        if urlsplit(form.action).path == path:
            return form
    return next((form for form in there if form.fields.keys() & given.keys()), None)


# --- secrets ------------------------------------------------------------------------------------
def written(secrets: Iterable[str]) -> tuple[str, ...]:
    """Every way in which pages, JSON and addresses write ``secrets``, the longest first."""
    found: set[str] = set()
    for secret in filter(None, secrets):
        found |= {
            secret,
            quote(secret, safe=""),
            quote(secret),
            quote_plus(secret),
            base64.b64encode(secret.encode()).decode(),
        }
        found.add(quote(secret, safe=PLAIN))
        found |= {json.dumps(secret, ensure_ascii=ascii)[1:-1] for ascii in (True, False)}
        plain = secret.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        for double in ('"', "&quot;", "&#34;"):
            found |= {plain.replace('"', double).replace("'", single) for single in ("'", "&#39;", "&#039;", "&#x27;")}
    found |= {_PERCENT.sub(lambda match: match[0].lower(), each) for each in found}
    return tuple(sorted(found, key=len, reverse=True))


def hide(text: str, forms: Iterable[str]) -> str:
    """``text`` with ``***`` for each of ``forms``. No expression is used for it: who writes a secret may also write the
    page, and could choose both so that matching never ends."""
    for each in forms:
        text = text.replace(each, HIDDEN)
    return text


# --- cookies ------------------------------------------------------------------------------------
class Cookie(msgspec.Struct, frozen=True):
    name: str
    value: str
    domain: str
    host_only: bool
    path: str
    secure: bool


class Jar:
    """Cookies as RFC 6265 §5.3 and §5.4 keep and send them, between names that are all the site's own.

    ``names``: the site's; a cookie for a domain above them is not kept (threat 22).
    """

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._cookies: dict[tuple[str, str, str], Cookie] = {}

    def take(self, header: str, host: str, path: str) -> None:
        """One ``Set-Cookie``."""
        pair, *attributes = header[:8192].split(";")
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not name or len(self._cookies) >= 100:
            return
        given = {key.strip().lower(): text.strip() for key, _, text in (each.partition("=") for each in attributes)}
        domain = given.get("domain", "").lower().lstrip(".")
        if domain and domain not in self._names:
            if not host.endswith(f".{domain}"):
                return
            # One that every site below the main domain would get: kept for this name alone.
            domain = ""
        where = given.get("path", "")
        if not where.startswith("/"):
            where = path.rpartition("/")[0] or "/"
        cookie = Cookie(name, value, domain or host, not domain, where, "secure" in given)
        key = (name, cookie.domain, where)
        age = given.get("max-age", "")
        past = age.lstrip("-").isdigit() and int(age[:12]) <= 0
        if past or (not age and "1970" in given.get("expires", "")):
            self._cookies.pop(key, None)
        else:
            self._cookies[key] = cookie

    def header(self, host: str, path: str, secure: bool) -> str:
        """The value of ``Cookie``; empty: none."""
        sent = [each for each in self._cookies.values() if self._goes(each, host, path, secure)]
        return "; ".join(f"{each.name}={each.value}" for each in sorted(sent, key=lambda each: -len(each.path)))

    @staticmethod
    def _goes(cookie: Cookie, host: str, path: str, secure: bool) -> bool:
        if cookie.secure and not secure:
            return False
        if host != cookie.domain and (cookie.host_only or not host.endswith(f".{cookie.domain}")):
            return False
        return path == cookie.path or path.startswith(cookie.path.rstrip("/") + "/")

    def value(self, name: str) -> str | None:
        return next((each.value for each in self._cookies.values() if each.name == name), None)
