"""PURE. A scenario out of what the proxy has seen of one visit, and of the pages that anybody gets.

Nothing that somebody typed is in it, because nothing of that was seen: the proxy's log has addresses, statuses and the
page before. What a form asks for is read from the form itself; its values are named, to be filled in by hand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote_plus, urlsplit

import msgspec

from alveole.scenarios.har import SECRET, TITLE, name_of_secret
from alveole.scenarios.model import STEPS_MAX, Request
from alveole.scenarios.page import forms

#: What stands where somebody has to say what they typed.
FILL_IN = "FILL-IN"
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_PARTS = re.compile(
    r"(?i)\.(?:css|js|mjs|map|png|jpe?g|gif|svg|ico|webp|avif|bmp|woff2?|ttf|otf|eot|mp[34]|webm|ogg|wasm)$"
)
_LED = (301, 302, 303, 307, 308)


class Seen(msgspec.Struct, frozen=True):
    text: str
    secrets: tuple[str, ...]
    unfilled: tuple[str, ...]
    """Fields and bodies whose values are to be filled in, as ``/login: user``."""
    cut: bool


def wanted(visit: Sequence[Request], hosts: frozenset[str]) -> tuple[Request, ...]:
    """Pages, forms and what scripts asked for; without parts of pages, what led on by itself, and repetitions."""
    found: list[Request] = []
    led = False
    for each in visit:
        if each.host not in hosts or each.method not in _METHODS or not each.uri.startswith("/"):
            continue
        if not (200 <= each.status < 400) or (each.method == "GET" and _PARTS.search(_path(each.uri))):
            continue
        if led and each.method == "GET":
            # The scenario is led there by itself.
            led = each.status in _LED
            continue
        led = each.status in _LED
        if found and each.method == "GET" and (found[-1].method, found[-1].uri) == ("GET", each.uri):
            continue
        found.append(each)
    return tuple(found)


def to_look_at(steps: Sequence[Request], hosts: frozenset[str]) -> tuple[str, ...]:
    """Addresses whose pages are worth reading: of pages, and of those with a form. None with a question mark: what
    stands behind it may be a key, and asking for it once more may do something."""
    found = [f"https://{each.host}{each.uri}" for each in steps if each.method == "GET"]
    for each in steps:
        before = urlsplit(each.referer)
        if each.method != "GET" and before.hostname in hosts:
            found.append(f"https://{before.hostname}{before.path or '/'}")
    return tuple(dict.fromkeys(each for each in found if "?" not in each))[:STEPS_MAX]


def scenario(steps: Sequence[Request], pages: Mapping[str, str], first: str) -> Seen:
    """YAML for ``steps``. ``pages``: bodies by address; ``first``: the name that paths are relative to."""
    import yaml

    secrets: set[str] = set()
    unfilled: list[str] = []
    written = []
    for each in steps[:STEPS_MAX]:
        path = _without_secrets(each.uri, secrets)
        address = path if each.host == first else f"https://{each.host}{path}"
        step: dict[str, Any] = {"request": f"{each.method} {address}"}
        if each.method == "GET":
            title = TITLE.search(pages.get(f"https://{each.host}{each.uri}", ""))
            if title and "$" not in title[1] and "&" not in title[1]:
                step["expect"] = {"status": 200, "text": title[1]}
        elif each.method != "DELETE":
            step |= _sent(each, pages, secrets, unfilled)
        written.append(step)
    document = {"title": "Recorded in a browser", "steps": written}
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)
    return Seen(text, tuple(sorted(secrets)), tuple(unfilled), len(steps) > STEPS_MAX)


def _sent(each: Request, pages: Mapping[str, str], secrets: set[str], unfilled: list[str]) -> dict[str, Any]:
    """What a form of the page before asks for."""
    before = urlsplit(each.referer)
    page = f"https://{before.hostname}{before.path or '/'}"
    where = _path(each.uri)
    form = next((form for form in forms(pages.get(page, ""), page) if urlsplit(form.action).path == where), None)
    if form is None:
        unfilled.append(where)
        return {"name": "fill in what was sent", "form": {FILL_IN: FILL_IN}}
    own: dict[str, str] = {}
    for name, value in form.fields.items():
        if value:
            # The page itself has put it there, and will again, with another value.
            continue
        if SECRET.search(name):
            plain = name_of_secret(name)
            secrets.add(plain)
            own[name.replace("$", "$$")] = f"${{secret:{plain}}}"
        else:
            unfilled.append(f"{where}: {name}")
            own[name.replace("$", "$$")] = FILL_IN
    return {"form": own, "fill": True} if own else {"fill": True}


def _path(uri: str) -> str:
    return uri.partition("?")[0]


def _without_secrets(uri: str, secrets: set[str]) -> str:
    """An address whose parameters that sound like a secret are named instead."""
    path, mark, query = uri.replace("$", "$$").partition("?")
    found = []
    for part in query.split("&") if query else ():
        name, sign, value = part.partition("=")
        if value and SECRET.search(unquote_plus(name)):
            plain = name_of_secret(unquote_plus(name))
            secrets.add(plain)
            value = f"${{secret:{plain}}}"
        found.append(f"{name}{sign}{value}")
    return path + mark + "&".join(found)
