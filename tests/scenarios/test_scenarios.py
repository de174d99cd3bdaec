"""Scenarios against a real server over TLS: what passes, what fails and how it is told, and what cannot be reached."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from outsidekit import PASSWORD, Shop, shop

from alveole import outgoing
from alveole.errors import InvalidInput, Refused
from alveole.scenarios import page, running
from alveole.scenarios.doors import Door, parse
from alveole.scenarios.model import Report
from alveole.scenarios.reading import read, schema, secrets_of

NAME = "blog.localhost"


@pytest.fixture(scope="module")
def site() -> Iterator[Shop]:
    with shop(NAME, "other.localhost") as made:
        yield made


def door(site: Shop, **more: Any) -> Door:
    def trust() -> ssl.SSLContext:
        return ssl.create_default_context(cadata=site.authority)

    fields: dict[str, Any] = {
        "trust": trust,
        "names": (NAME,),
        "edge": "127.0.0.1",
        "http_port": 1,
        "https_port": site.port,
    }
    return Door(**{**fields, **more})


def run(site: Shop, text: str, secrets: Mapping[str, str] | None = None, through: Door | None = None) -> Report:
    scenario = read(text)
    return asyncio.run(
        running.run("s", scenario, through or door(site), site="blog", use="hand", secrets=secrets or {})
    )


SHOPPING = """
title: Sign in and look at the cart
every: 5m
timeout: 10s
steps:
  - name: the front page
    request: GET /
    expect:
      status: 200
      text: [Welcome, sign in]
      absent: Fatal error
      regex: 'v\\d+'
      header: {X-Release: "12", Content-Type: text/html}
      within: 5s
    capture:
      version: {regex: 'v(\\d+)'}
      link: {regex: 'href=(/\\w+)'}
  - request: GET ${link}
    capture: {csrf: {field: csrf}}
  - name: sign in
    request: POST /login
    form: {user: ana, password: "${secret:password}"}
    fill: true
    expect: {text: Hello Ana}
    capture: {session: {cookie: session}}
  - request: GET /api/cart
    expect:
      json: {'items[0].name': comb, paid: false, items.0.price: 1.5}
    capture: {id: {json: id}, kind: {header: Content-Type}}
  - request: POST /api/cart/${id}
    json: {version: "${version}", cost: $$5}
    expect: {json: {got: {version: "12", cost: $5}}}
"""


def test_a_navigation_with_forms_cookies_and_values(site: Shop) -> None:
    report = run(site, SHOPPING, {"password": PASSWORD})
    assert report.ok, report
    assert [step.status for step in report.steps] == [200, 200, 200, 200, 200]
    assert report.steps[2].redirects == (f"https://{NAME}:{site.port}/account",)
    assert report.steps[4].asked == f"POST https://{NAME}:{site.port}/api/cart/7"
    assert all(host == f"{NAME}:{site.port}" for _, host, *_ in site.seen)
    assert report.seconds >= sum(step.seconds for step in report.steps) > 0
    assert not any(step.came for step in report.steps), "evidence only of what failed"


def test_secrets_show_nowhere(site: Shop) -> None:
    """Neither in what was asked, nor in what came: the site sends it back, quoted for its page."""
    text = SHOPPING.replace("user: ana", "user: x, csrf: wrong")
    report = run(site, text, {"password": PASSWORD})
    assert not report.ok and report.problem.startswith("step 3 (sign in): the status is 403")
    told = repr(report)
    assert "wrong password ***" in told and PASSWORD not in told and "horse" not in told
    report = run(site, "steps: [{request: 'GET /x/${secret:password}'}]", {"password": PASSWORD})
    assert "horse" not in repr(report) and "***" in report.steps[0].asked
    missing = run(site, SHOPPING)
    assert "there is no secret 'password'" in missing.problem
    assert secrets_of(read(SHOPPING)) == {"password"}


def test_a_secret_is_hidden_however_it_is_written(site: Shop) -> None:
    secret = "a\"b'c&d <é>/%"
    forms = page.written([secret])
    for text in (
        secret,
        "a&quot;b&#039;c&amp;d &lt;é&gt;/%",
        "a%22b%27c%26d+%3C%C3%A9%3E%2F%25",
        "a%22b%27c%26d%20%3c%c3%a9%3e%2f%25",
        "a\\\"b'c&d <\\u00e9>/%",
    ):
        assert page.hide(f"x {text} y", forms) == "x *** y", text
    began = time.monotonic()
    page.hide("%2d" * 2700, page.written(["-" * 200 + "!"]))
    assert time.monotonic() - began < 1.0, "a page and a secret that are made for it cost nothing more"


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ("{request: GET /none}", "the status is 404"),
        ("{request: GET /, expect: {status: [201, 204]}}", "the status is 200 and not 201 or 204"),
        ("{request: GET /, expect: {text: Goodbye}}", "'Goodbye' is not in the answer"),
        ("{request: GET /, expect: {absent: Welcome}}", "'Welcome' is in the answer"),
        ("{request: GET /, expect: {regex: 'v[a-z]'}}", "nothing in the answer fits"),
        ("{request: GET /, expect: {header: {X-Release: '13'}}}", "the header X-Release is '12'"),
        ("{request: GET /, expect: {header: {X-No: ''}}}", "there is no header X-No"),
        ("{request: GET /, expect: {json: {a: 1}}}", "is not JSON"),
        ("{request: GET /api/cart, expect: {json: {paid: 0}}}", "paid is false and not 0"),
        ("{request: GET /api/cart, expect: {json: {items.3.name: x}}}", "there is no 3 in"),
        ("{request: GET /, expect: {within: 1ms}}", "it took"),
        ("{request: GET /, capture: {a: {regex: 'no (thing)'}}}", "a cannot be captured"),
        ("{request: GET /, capture: {a: {field: csrf}}}", "a cannot be captured"),
        ("{request: POST /login, fill: true}", "no page before"),
        ("{request: GET /elsewhere}", "leads to http://169.254.169.254/latest/meta-data, which is not the site's"),
        ("{request: GET /round}", "more than 10 redirects"),
        ("{request: GET /huge, expect: {text: y}}", "longer than 1048576 bytes"),
        ("{request: GET https://127.0.0.1/}", "neither the site's nor a web service"),
        ("{request: 'GET https://blog.localhost/'}", "port 443 is neither the site's"),
        ("{request: 'GET https://other.localhost:PORT/'}", "neither the site's"),
        ("{request: GET /, headers: {X-A: '${secret:lines}'}}", "line feed"),
    ],
)
def test_what_fails_is_told(site: Shop, step: str, told: str) -> None:
    """Threat 18 too: no address but the site's own names, at the edge, whatever the site answers."""
    before = len(site.seen)
    report = run(site, f"steps: [{step.replace('PORT', str(site.port))}]", {"lines": "a\r\nb: c"})
    assert not report.ok and told in report.problem, report
    if "neither" in told or "line feed" in told:
        assert len(site.seen) == before
    elif report.steps[0].status is not None:
        assert report.steps[0].came.startswith(str(report.steps[0].status)), "what came is kept"
        assert len(report.steps[0].came) < 20_000 and "\x1b" not in report.steps[0].came


def test_a_redirect_that_is_expected_is_not_followed(site: Shop) -> None:
    text = "steps: [{request: GET /elsewhere, expect: {status: 302, header: {Location: '169.254'}}}]"
    assert run(site, text).ok


@pytest.mark.parametrize("path", ["/slow", "/drip"])
def test_the_time_limit_holds_whatever_the_site_does(site: Shop, path: str) -> None:
    report = run(site, f"timeout: 0.3s\nsteps: [{{request: GET {path}}}, {{request: GET /}}]")
    assert not report.ok and "no whole answer within the 0.3s" in report.problem
    assert 0.25 < report.seconds < 0.8 and len(report.steps) == 1


def test_the_certificate_must_be_the_sites(site: Shop) -> None:
    with shop("another.localhost") as wrong:
        report = run(wrong, "steps: [{request: GET /}]")
        assert not report.ok and "TLS" in report.problem and wrong.seen == []
    report = run(site, "steps: [{request: GET /}]", through=door(site, trust=ssl.create_default_context))
    assert not report.ok and "TLS" in report.problem


def test_a_cookie_for_every_site_stays_with_this_one(site: Shop) -> None:
    """Threat 22."""
    two = "steps: [{request: GET /none, expect: {status: 404}}, {request: 'GET https://other.localhost:%d/echo'}]"
    report = run(site, two % site.port, through=door(site, names=(NAME, "other.localhost")))
    assert report.ok and "Cookie" not in site.seen[-1][3]
    jar = page.Jar(frozenset({"a.example", "www.a.example"}))
    jar.take("s=1; Domain=a.example", "www.a.example", "/")
    jar.take("t=2; Domain=example; Path=/x", "a.example", "/")
    jar.take("u=3; Domain=elsewhere.org", "a.example", "/")
    jar.take("v=4; Max-Age=0", "a.example", "/")
    assert jar.header("a.example", "/", True) == "s=1"
    assert jar.header("a.example", "/x/y", True) == "t=2; s=1"
    assert jar.header("www.a.example", "/x", True) == "s=1"


def test_web_services_only_where_an_administrator_allows_it(site: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threat 18: the name alone is not enough, its address must be public; and it is resolved once."""
    with shop("api.partner.example", tls=False) as service:
        text = f"steps: [{{request: 'GET http://api.partner.example:{service.port}/echo'}}]"
        asked: list[str] = []
        real = socket.getaddrinfo

        def resolve(host: Any, *more: Any, **named: Any) -> Any:
            if host != "api.partner.example":
                return real(host, *more, **named)
            # At the second time of asking the name would lead elsewhere.
            asked.append(host)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1" if len(asked) == 1 else "203.0.113.1", 0))]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        assert "neither the site's nor a web service" in run(site, text).problem
        allowed = door(site, hosts=("api.partner.example",))
        assert "127.0.0.1, which is inside" in run(site, text, through=allowed).problem
        asked.clear()
        inside = door(site, hosts=("api.partner.example",), inside_hosts=("api.partner.example",))
        assert run(site, text, through=inside).ok and asked == ["api.partner.example"]
        assert "X-Forwarded-Proto" not in service.seen[0][3]


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "::ffff:10.0.0.1",
        "169.254.169.254",
        "fe80::1",
        "::1",
        "100.64.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::",
        "0.0.0.1",
        "224.0.0.1",
        "fd00::1",
    ],
)
def test_no_address_inside_is_reached_by_any_spelling(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threat 18; also where only one of several addresses is inside."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    found = [(socket.AF_INET, 1, 6, "", ("1.1.1.1", 0)), (family, 1, 6, "", (address, 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: found)
    with pytest.raises(Refused, match="inside"):
        outgoing.addresses("hooks.example", 443)
    assert outgoing.addresses("hooks.example", 443, ("hooks.example",)) == ("1.1.1.1", address)


def test_this_machines_own_address_is_inside_too() -> None:
    assert outgoing.is_own("127.0.0.1") and not outgoing.is_own("1.1.1.1")


# --- reading ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("steps: []", "length >= 1"),
        ("steps: [{request: GET /, expekt: {}}]", "steps[0].expekt: is not a key here"),
        ("steps: [{request: GET /, expect: {statos: 1}}]\nevry: 5m", "evry: is not a key here"),
        ("steps: [{request: FETCH /}]", "does not begin with a method"),
        ("steps: [{request: GET here}]", "neither a path nor an address"),
        ("steps: [{request: 'GET https://a:b@x.org/'}]", "name or password"),
        ("steps: [{request: GET /, headers: {Host: x}}]", "is set by Alvéole itself"),
        ("steps: [{request: GET /, headers: {'a b': x}}]", "is not a header"),
        ("steps: [{request: POST /, body: a, form: {b: c}}]", "only one body"),
        ("steps: [{request: 'GET /${later}'}]", "captured by no step before"),
        ("steps: [{request: GET /, capture: {a: {json: b, regex: c}}}]", "exactly one of"),
        ("steps: [{request: GET /, expect: {regex: '(?<=a)b'}}]", "not an expression of RE2"),
        ("steps: [{request: GET /, expect: {json: {'a..b': 1}}}]", "is not a path"),
        ("steps: [{request: GET /, expect: {status: 99}}]", "is no status"),
        ("steps: [{request: GET /}]\nevery: 1s", "outside 30 to"),
        ("steps: [{request: GET /}]\ntimeout: often", "is not a duration"),
        ("steps: [{request: GET /}]\nsteps: []", "stands here twice"),
        ("a: &x 1\nb: *x", "anchors and aliases"),
        ("a: !!python/object:os.system x", "tag"),
        ("- a", "is not a mapping"),
        ("a: [", "is not YAML"),
        ("a: " + "[" * 50 + "]" * 50, "deeper than"),
        ("x" * 70_000, "longer than"),
        ("steps: [{request: GET /, expect: {text: [" + "a, " * 21 + "]}}]", "the most is 20"),
    ],
)
def test_what_is_wrong_with_a_scenario_is_named(text: str, told: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(text)
    assert any(told in str(problem) for problem in caught.value.problems), caught.value.problems


def test_words_stay_words() -> None:
    step = read("steps: [{request: POST /, form: {a: on, b: no, c: 12:30, d: '1', e: 1e3x}}]").steps[0]
    assert step.form == {"a": "on", "b": "no", "c": "12:30", "d": "1", "e": "1e3x"}
    assert read("steps: [{request: POST /, json: {a: [1, 1.5, true, null, '2']}}]").steps[0].json == {
        "a": [1, 1.5, True, None, "2"]
    }
    assert schema()["$defs"]["Step"]["additionalProperties"] is False


@pytest.mark.parametrize(
    ("kind", "body", "text"),
    [
        ("text/html; charset=ISO-8859-1", b"\xe9", "é"),
        ("text/html; charset=utf-8", "é".encode(), "é"),
        ("text/html; charset=punycode", b"a-b", "a-b"),
        ("text/html", b"\xff", "\ufffd"),
    ],
)
def test_pages_are_read_in_the_encoding_they_name(kind: str, body: bytes, text: str) -> None:
    address = parse("https://blog.localhost/")
    assert running.Came(address, 200, (("content-type", kind),), body, False).text == text


def test_a_page_made_to_be_slow_is_not() -> None:
    """What a stranger's page holds costs time by its length alone."""
    for text in ("<form>" * 50_000, "<input " * 50_000, "<form>" + "<input a" * 50_000 + "</form>", "(" * 300_000):
        list(page.forms(text, "https://x/"))
    assert page.regex("(x+x+)+y").search("x" * 300_000) is None
    (form,) = page.forms(
        "<FORM ACTION='/a?b=1&amp;c'><input name=x value='&quot;1'><input type=checkbox name=y checked>"
        "<input type=radio name=z value=1><textarea name=t>a &lt; b</textarea><input type=file name=f></form>",
        "https://site/page",
    )
    assert form.action == "https://site/a?b=1&c" and form.fields == {"x": '"1', "y": "on", "t": "a < b"}
