"""The engine: one scenario, step by step, over HTTP/1.1, each part of it held by a limit.

A request has a connection of its own, is asked for identity encoding, and its answer is read up to ``ANSWER_MAX``.
Redirects are followed on the site's own names, unless the step expects one; one that leads elsewhere is told and not
followed. Secrets are put into requests at the last moment and hidden in everything that is told.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any
from urllib.parse import quote, urlencode, urljoin

import h11
import msgspec

from alveole import __version__
from alveole.errors import AlveoleError
from alveole.scenarios import page
from alveole.scenarios.doors import Address, Door, parse
from alveole.scenarios.model import (
    ANSWER_MAX,
    EVIDENCE_MAX,
    Expect,
    Report,
    Scenario,
    Step,
    StepReport,
    seconds,
    words,
)
from alveole.scenarios.reading import VALUE, split
from alveole.text import clean

_REDIRECTS_MAX = 10
_INTERIM_MAX = 10
_CAPTURED_MAX = 4096
#: Those of pages. Python knows others (``punycode``) whose decoding takes longer and longer.
_CHARSET = re.compile(
    r"charset=[\"']?(us-ascii|iso-8859-(?:1[0-6]|[1-9])|windows-125[0-8]|koi8-[ru]|shift_jis|euc-(?:jp|kr)|gbk|gb2312|gb18030"
    r"|big5|utf-16(?:le|be)?)\b",
    re.IGNORECASE,
)


class Failed(Exception):
    """A step cannot go on; the text says why."""


class Came(msgspec.Struct, frozen=True, dict=True):
    """An answer."""

    address: Address
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    cut: bool

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key == name.lower()]
        return ", ".join(found) if found else None

    @cached_property
    def text(self) -> str:
        named = _CHARSET.search(self.header("content-type") or "")
        return self.body.decode(named[1] if named else "utf-8", "replace")


async def run(
    name: str,
    scenario: Scenario,
    door: Door,
    *,
    site: str,
    use: str,
    secrets: Mapping[str, str],
    tell: Callable[[StepReport], None] = lambda _step: None,
) -> Report:
    """Never raises but for a fault of ours. ``tell`` is called as each step has ended."""
    began, at = time.monotonic(), time.time()
    runner = _Runner(scenario, door, secrets)
    steps = await runner.steps(tell)
    problem = ""
    for step in steps:
        if not step.ok:
            problem = f"step {step.step}{f' ({step.name})' if step.name else ''}: {step.problems[0]}"
    return Report(
        scenario=name,
        site=site,
        use=use,
        target=door.label,
        ok=not problem,
        at=at,
        seconds=round(time.monotonic() - began, 4),
        steps=tuple(steps),
        problem=problem,
    )


async def read_pages(door: Door, addresses: Iterable[str], limit: float) -> dict[str, str]:
    """The pages that somebody without a cookie gets at ``addresses`` of the site, as text; at most ``limit`` seconds
    for all of them. What is led elsewhere, refused or no page is left out."""
    runner = _Runner(Scenario(steps=(Step(request="GET /"),)), door, {})
    until = time.monotonic() + limit
    found = {}
    for text in addresses:
        address = parse(text)
        address = msgspec.structs.replace(address, port=door.https_port)
        if not door.is_own(address):
            continue
        try:
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                await runner._ask(Step(request="GET /"), "GET", address)
        except (Failed, TimeoutError, OSError, h11.ProtocolError, AlveoleError):
            continue
        came = runner.came
        if came is not None and came.status == 200 and came.address.target == address.target:
            found[text] = came.text
    return found


class _Runner:
    def __init__(self, scenario: Scenario, door: Door, secrets: Mapping[str, str]) -> None:
        self.scenario = scenario
        self.door = door
        self.secrets = secrets
        self.hidden = page.written(secrets.values())
        self.values: dict[str, str] = {}
        self.jar = page.Jar(frozenset(door.names))
        self.page: Came | None = None
        self.came: Came | None = None
        self.redirects: list[str] = []

    async def steps(self, tell: Callable[[StepReport], None]) -> list[StepReport]:
        reports: list[StepReport] = []
        until = time.monotonic() + seconds(self.scenario.timeout)
        for number, step in enumerate(self.scenario.steps, 1):
            report = await self._step(number, step, until)
            reports.append(report)
            tell(report)
            if not report.ok:
                break
        return reports

    async def _step(self, number: int, step: Step, until: float) -> StepReport:
        self.came, self.redirects = None, []
        began = time.monotonic()
        asked = step.request
        problems: list[str] = []
        try:
            async with asyncio.timeout(max(0.0, until - began)):
                method, address = self._address(step)
                asked = f"{method} {address}"
                await self._ask(step, method, address)
        except Failed as error:
            problems.append(str(error))
        except TimeoutError:
            problems.append(f"no whole answer within the {self.scenario.timeout} that the scenario has")
        except ssl.SSLError as error:
            problems.append(f"the TLS connection was refused: {getattr(error, 'verify_message', '') or error.reason}")
        except (OSError, h11.RemoteProtocolError, h11.LocalProtocolError) as error:
            problems.append(f"{getattr(error, 'strerror', None) or error or type(error).__name__}")
        except AlveoleError as error:
            problems.append(str(error))
        took = time.monotonic() - began
        if not problems and self.came is not None:
            problems = list(self._compare(step.expect, self.came, took))
            if not problems:
                problems = list(self._capture(step, self.came))
        return StepReport(
            step=number,
            name=step.name,
            asked=self._hide(asked)[:500],
            ok=not problems,
            seconds=round(took, 4),
            status=self.came.status if self.came is not None else None,
            redirects=tuple(self._hide(each)[:500] for each in self.redirects),
            problems=tuple(self._hide(each)[:500] for each in problems[:20]),
            came=self._evidence() if problems else "",
        )

    def _hide(self, text: str) -> str:
        return clean(page.hide(text[: 2 * EVIDENCE_MAX], self.hidden))

    def _evidence(self) -> str:
        if self.came is None:
            return ""
        came = self.came
        shown = [f"{key}: {value}"[:300] for key, value in came.headers if key not in ("set-cookie", "authorization")]
        # Masked before it is cut: half a secret is one too.
        body = page.hide(came.text[: 4 * EVIDENCE_MAX], self.hidden)[:EVIDENCE_MAX]
        head = "\n".join(map(self._hide, [str(came.status), *shown[:40]]))
        more = f"\n… ({len(came.body)} bytes{', cut' * came.cut})" if len(came.body) > EVIDENCE_MAX else ""
        return "\n".join((head, "", *map(clean, body.splitlines()))) + more

    # --- values -------------------------------------------------------------------------------
    def _put(self, text: str, *, path: bool = False) -> str:
        """``text`` with its values. Raises :class:`Failed`."""

        def value(found: re.Match[str]) -> str:
            if found[0] == "$$":
                return "$"
            kept = self.secrets if found[1] else self.values
            if found[2] not in kept:
                what = "secret" if found[1] else "value"
                raise Failed(f"there is no {what} {found[2]!r}" + (" (alveole check secret)" if found[1] else ""))
            given = kept[found[2]]
            return quote(given, safe=page.PLAIN) if path else given

        return VALUE.sub(value, text)

    def _put_all(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._put(value)
        if isinstance(value, dict):
            return {key: self._put_all(each) for key, each in value.items()}
        return [self._put_all(each) for each in value] if isinstance(value, list) else value

    def _address(self, step: Step) -> tuple[str, Address]:
        method, text = split(step.request)
        text = quote(self._put(text, path=True), safe=page.PLAIN)
        return method, parse(urljoin(self.door.start, text))

    # --- asking -------------------------------------------------------------------------------
    async def _ask(self, step: Step, method: str, address: Address) -> None:
        headers = {name.lower(): self._put(value) for name, value in step.headers.items()}
        if any(set("\r\n\0") & set(value) for value in headers.values()):
            raise Failed("a header would hold a line feed")
        body = self._body(step, address, headers)
        wanted = (step.expect.status,) if isinstance(step.expect.status, int) else step.expect.status
        follow = not any(300 <= status < 400 for status in wanted)
        for _hop in range(_REDIRECTS_MAX + 1):
            self.came = came = await self._exchange(method, address, headers, body)
            location = came.header("location")
            if came.status not in (301, 302, 303, 307, 308) or location is None or not follow:
                break
            there = parse(urljoin(str(address), location))
            self.redirects.append(str(there))
            if not self.door.is_own(there):
                raise Failed(f"it leads to {there}, which is not the site's: not followed")
            if came.status not in (307, 308) and method not in ("GET", "HEAD"):
                method, body = "GET", b""
                headers.pop("content-type", None)
            address = there
        else:
            raise Failed(f"more than {_REDIRECTS_MAX} redirects")
        self.page = self.came if self.door.is_own(address) else self.page

    def _body(self, step: Step, address: Address, headers: dict[str, str]) -> bytes:
        if step.body:
            return self._put(step.body).encode()
        if step.json is not None:
            headers.setdefault("content-type", "application/json")
            return msgspec.json.encode(self._put_all(step.json))
        if not step.form and not step.fill:
            return b""
        fields = {self._put(key): self._put(value) for key, value in step.form.items()}
        if step.fill:
            if self.page is None:
                raise Failed("there is no page before whose form could be filled")
            form = page.form_for(self.page.text, str(self.page.address), str(address), fields)
            if form is None:
                raise Failed(f"the page before ({self.page.address}) has no form that leads to {address.target}")
            fields = {**form.fields, **fields}
        headers.setdefault("content-type", "application/x-www-form-urlencoded")
        return urlencode(fields).encode()

    async def _exchange(self, method: str, address: Address, headers: Mapping[str, str], body: bytes) -> Came:
        reader, writer = await self.door.open(address)
        try:
            sent = [
                ("host", address.authority),
                ("user-agent", f"alveole-check/{__version__}"),
                ("accept", "*/*"),
                ("accept-encoding", "identity"),
                ("connection", "close"),
            ]
            own = self.door.is_own(address)
            path = address.target.partition("?")[0]
            if own and (cookies := self.jar.header(address.host, path, address.scheme == "https")):
                sent.append(("cookie", cookies))
            if own and self.door.instance is not None:
                # What the edge says to an instance.
                sent += [("X-Real-IP", "127.0.0.1"), ("X-Forwarded-For", "127.0.0.1")]
                sent += [("X-Forwarded-Proto", address.scheme), ("X-Forwarded-Host", address.authority)]
                sent += [("X-Forwarded-Port", str(address.port))]
            sent = [pair for pair in sent if pair[0] not in headers] + list(headers.items())
            if body or method in ("POST", "PUT", "PATCH"):
                sent.append(("content-length", str(len(body))))
            connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=64 * 1024)
            encoded = [(name.encode("ascii"), value.encode("utf-8")) for name, value in sent]
            request = h11.Request(method=method.encode(), target=address.target.encode("ascii"), headers=encoded)
            parts = [
                connection.send(request),
                connection.send(h11.Data(data=body)),
                connection.send(h11.EndOfMessage()),
            ]
            writer.write(b"".join(part for part in parts if part))
            await writer.drain()
            came = await _answer(reader, connection, address)
        finally:
            writer.close()
        if own:
            for key, value in came.headers:
                if key == "set-cookie":
                    self.jar.take(value, address.host, path)
        return came

    # --- comparing ----------------------------------------------------------------------------
    def _compare(self, expect: Expect, came: Came, took: float) -> Any:
        statuses = (expect.status,) if isinstance(expect.status, int) else expect.status
        if statuses and came.status not in statuses:
            yield f"the status is {came.status} and not {' or '.join(map(str, statuses))}"
        elif not statuses and not 200 <= came.status <= 299:
            yield f"the status is {came.status}"
        if expect.within != "" and took > seconds(expect.within):
            yield f"it took {took:.3f} s, and {expect.within} was allowed"
        if came.cut and (expect.text or expect.regex or expect.json or expect.absent):
            yield f"the answer is longer than {ANSWER_MAX} bytes: only its beginning was looked at"
        text = came.text if expect.text or expect.absent or expect.regex else ""
        try:
            for each in words(expect.text):
                if self._put(each) not in text:
                    yield f"{each[:100]!r} is not in the answer"
            for each in words(expect.absent):
                if self._put(each) in text:
                    yield f"{each[:100]!r} is in the answer"
            for each in words(expect.regex):
                if page.regex(each).search(text) is None:
                    yield f"nothing in the answer fits {each[:100]!r}"
            for name, wanted in expect.header.items():
                value = came.header(name)
                if value is None:
                    yield f"there is no header {name}"
                elif self._put(wanted).lower() not in value.lower():
                    yield f"the header {name} is {value[:100]!r}, without {wanted[:100]!r}"
            if expect.json:
                document = _json(came)
                for path, wanted in expect.json.items():
                    value = page.at(document, path)
                    if value != (right := self._put_all(wanted)) or isinstance(value, bool) != isinstance(right, bool):
                        yield f"{path} is {page.shown(value)} and not {page.shown(wanted)}"
        except (Failed, page.Absent) as error:
            yield str(error)

    def _capture(self, step: Step, came: Came) -> Any:
        for name, capture in step.capture.items():
            value: str | None = None
            try:
                if capture.regex:
                    value = page.found(capture.regex, came.text)
                elif capture.json:
                    kept = page.at(_json(came), capture.json)
                    value = kept if isinstance(kept, str) else msgspec.json.encode(kept).decode()
                elif capture.header:
                    value = came.header(capture.header)
                elif capture.cookie:
                    value = self.jar.value(capture.cookie)
                else:
                    forms = page.forms(came.text, str(came.address))
                    value = next((form.fields[capture.field] for form in forms if capture.field in form.fields), None)
            except (page.Absent, Failed) as error:
                yield f"{name} cannot be captured: {error}"
                continue
            if value is None:
                yield f"{name} cannot be captured: it is not in the answer"
            elif len(value) > _CAPTURED_MAX:
                yield f"{name} cannot be captured: it is longer than {_CAPTURED_MAX} characters"
            else:
                self.values[name] = value


def _json(came: Came) -> Any:
    try:
        return msgspec.json.decode(came.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Failed(f"the answer is not JSON: {error}") from None


async def _answer(reader: asyncio.StreamReader, connection: h11.Connection, address: Address) -> Came:
    head: h11.Response | None = None
    body = bytearray()
    cut = False
    interim = 0
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(65_536))
        elif isinstance(event, h11.InformationalResponse):
            interim += 1
            if interim > _INTERIM_MAX or event.status_code == 101:
                raise Failed(f"interim answers ({event.status_code}) instead of one")
        elif isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > ANSWER_MAX:
                cut = True
                break
        elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
            break
    if head is None:
        raise Failed("the connection ended without an answer")
    headers = tuple((key.decode("latin-1").lower(), value.decode("utf-8", "replace")) for key, value in head.headers)
    return Came(address, head.status_code, headers, bytes(body[:ANSWER_MAX]), cut)
