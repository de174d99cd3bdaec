"""PURE. A scenario out of a HAR file, which every browser saves from its network tools (HTTP Archive 1.2).

Taken are the pages and what scripts asked for on the site's own names; left out are images, styles, scripts, fonts and
everything elsewhere. Cookies and authorization are never taken: the scenario gets its own by doing the same. A field
whose name sounds like a secret becomes ``${secret:name}``, and hidden fields are filled from the page before.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec

from alveole.errors import InvalidInput
from alveole.scenarios.model import STEPS_MAX
from alveole.scenarios.page import forms

_KEPT = re.compile(r"^(?:text/html|application/(?:xhtml\+xml|json|[a-z0-9.+-]+\+json|xml))\b")
SECRET = re.compile(r"(?i)pass|secret|token|api_?key|pin\b|code\b")
TITLE = re.compile(r"(?i)<title>\s*([^<]{1,80}?)\s*</title>")
_HAR_MAX = 64 * 1024 * 1024


def scenario(text: bytes, hosts: frozenset[str]) -> tuple[str, tuple[str, ...]]:
    """YAML for what was done on ``hosts``, and the names of the secrets that it needs. Raises ``InvalidInput``."""
    if len(text) > _HAR_MAX:
        raise InvalidInput(f"is larger than {_HAR_MAX} bytes", field="har")
    try:
        entries = msgspec.json.decode(text)["log"]["entries"]
        steps, secrets = _steps(entries, hosts)
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise InvalidInput(f"is no HAR file: {error!r}", field="har") from None
    if not steps:
        raise InvalidInput(
            f"holds no page of {', '.join(sorted(hosts))}", field="har", hint="record a visit by the site's public name"
        )
    import yaml

    document = {"title": "Recorded in a browser", "steps": steps[:STEPS_MAX]}
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110), tuple(sorted(secrets))


def _steps(entries: list[Any], hosts: frozenset[str]) -> tuple[list[dict[str, Any]], set[str]]:
    steps: list[dict[str, Any]] = []
    secrets: set[str] = set()
    page = address = ""
    led = ""
    for entry in entries:
        request, answer = entry["request"], entry["response"]
        url, status = str(request["url"]), int(answer["status"])
        parts = urlsplit(url)
        content = answer.get("content") or {}
        if parts.hostname not in hosts or not 200 <= status < 400:
            continue
        if led and _same(url, led):
            # The scenario is led there by itself.
            led = ""
            page, address = str(content.get("text") or page), url
            continue
        if status < 300 and not _KEPT.match(str(content.get("mimeType") or "")):
            continue
        step: dict[str, Any] = {
            "request": f"{request['method']} {parts.path or '/'}{'?' * bool(parts.query)}{parts.query}"
        }
        if posted := request.get("postData"):
            step |= _body(posted, url, page, address, secrets)
        found = TITLE.search(str(content.get("text") or ""))
        if status == 200 and found and "$" not in found[1] and "&" not in found[1]:
            step["expect"] = {"status": 200, "text": found[1]}
        steps.append(step)
        led = str(answer.get("redirectURL") or "") if status >= 300 else ""
        if status < 300:
            page, address = str(content.get("text") or ""), url
    return steps, secrets


def _same(url: str, led: str) -> bool:
    one, other = urlsplit(url), urlsplit(led)
    return (one.path, one.query) == (other.path, other.query)


def _body(posted: Any, url: str, page: str, address: str, secrets: set[str]) -> dict[str, Any]:
    kind = str(posted.get("mimeType") or "")
    text = str(posted.get("text") or "")
    if "x-www-form-urlencoded" not in kind:
        if "json" in kind and text:
            return {"json": _without_secrets(msgspec.json.decode(text), secrets)}
        return {"headers": {"Content-Type": kind.replace("$", "$$")}, "body": text.replace("$", "$$")} if text else {}
    params = posted.get("params")
    fields = {str(each["name"]): str(each.get("value") or "") for each in params} if params else dict(parse_qsl(text))
    path = urlsplit(url).path
    filled = next((each.fields for each in forms(page, address) if urlsplit(each.action).path == path), {})
    own = {name: value for name, value in fields.items() if filled.get(name) != value or SECRET.search(name)}
    # What the page itself has put there it will put there again, with another value.
    hidden = {name for name in filled if name in fields and filled[name]}
    form = _without_secrets({name: value for name, value in own.items() if name not in hidden}, secrets)
    return {"form": form, **({"fill": True} if hidden else {})}


def name_of_secret(field: str) -> str:
    """What the secret of a field is called."""
    plain = re.sub(r"[^A-Za-z0-9_]", "_", field)[:60] or "value"
    return plain if not plain[0].isdigit() else f"_{plain}"


def _without_secrets(value: Any, secrets: set[str], name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _without_secrets(each, secrets, key) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_secrets(each, secrets, name) for each in value]
    if isinstance(value, str) and value and SECRET.search(name):
        plain = name_of_secret(name)
        secrets.add(plain)
        return f"${{secret:{plain}}}"
    return value.replace("$", "$$") if isinstance(value, str) else value
