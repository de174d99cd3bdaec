"""People sign in against a real OpenID provider (npm's oidc-provider, certified), which asks for PKCE."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from doorkit import Door, free_port
from peoplekit import Browser, add

from alveole.people.oidc import OidcSettings, Provider

HERE = Path(__file__).resolve().parent / "oidc"
BINDER = "__Host-alveole-oidc"
REDIRECT = "https://panel.test/v1/oidc/callback"


@pytest.fixture(scope="session")
def program() -> Path:
    """The provider with what it needs, installed once with the digests of the lock file."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    lock = (HERE / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("ALVEOLE_TEST_CACHE", "/var/cache/alveole-test"))
    place = cache / f"oidc-{hashlib.sha256(lock).hexdigest()[:16]}"
    if not (place / "node_modules/.installed").exists():
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError:
            pytest.skip("the test cache cannot be written")
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, place / name)
        done = subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
            cwd=place,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            pytest.skip(f"npm cannot fetch the provider: {done.stderr[-300:]}")
        (place / "node_modules/.installed").touch()
    shutil.copy(HERE / "provider.mjs", place / "provider.mjs")
    return place / "provider.mjs"


@pytest.fixture(scope="module")
def issuer(program: Path) -> Iterator[str]:
    port = free_port()
    argv = ["node", str(program), str(port), "alveole", "a client's secret", REDIRECT]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        while "listening" not in (line := process.stdout.readline()):
            assert line, "the provider did not start"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def settings(issuer_: str, **more: Any) -> dict[str, Any]:
    return {
        "issuer": issuer_,
        "client_id": "alveole",
        "client_secret": "a client's secret",
        "redirect": REDIRECT,
        "scopes": ["openid", "profile", "email", "groups"],
        "mapping": {"roles": {"pupils": "owner", "admins": "administrator"}, "teams": {"class-1": "class-1"}},
        **more,
    }


def set_up(door: Door, raw: dict[str, Any]) -> None:
    answer = door.http.put("/v1/oidc", json=raw)
    assert answer.status_code == 200, answer.text


def start(browser: Browser) -> tuple[str, str]:
    """The provider's address, and the cookie that binds the browser."""
    answer = browser.http.get("/v1/oidc/start")
    assert answer.status_code == 303, answer.text
    cookie = answer.headers["set-cookie"]
    for word in ("Secure", "HttpOnly", "SameSite=Lax", "Path=/"):
        assert word in cookie
    return answer.headers["location"], cookie.partition(";")[0].partition("=")[2]


def at_provider(address: str, name: str) -> dict[str, str]:
    """Sign in there as a person would; what comes back in the query of the redirect."""
    with httpx.Client(timeout=20) as client:
        answer = client.get(address)
        for _ in range(12):
            if answer.is_redirect:
                target = str(answer.next_request.url) if answer.next_request else ""
                if target.startswith(REDIRECT):
                    return {key: values[0] for key, values in parse_qs(urlsplit(target).query).items()}
                answer = client.get(target)
                continue
            found = re.search(r'action="([^"]+)"', answer.text)
            prompt = re.search(r'name="prompt" value="(\w+)"', answer.text)
            assert found and prompt, answer.text
            form = {"prompt": prompt[1], "login": name, "password": "any"}
            answer = client.post(httpx.URL(str(answer.url)).join(found[1]), data=form)
    raise AssertionError("the provider leads in a circle")


def come_back(browser: Browser, back: dict[str, str], binder: str) -> httpx.Response:
    headers = {"Cookie": f"{BINDER}={binder}"} if binder else {}
    return browser.http.get("/v1/oidc/callback", params=back, headers=headers)


def sign_in(door: Door, name: str) -> httpx.Response:
    with Browser(door) as browser:
        address, binder = start(browser)
        return come_back(browser, at_provider(address, name), binder)


def test_signing_in(door: Door, issuer: str) -> None:
    set_up(door, settings(issuer))
    with Browser(door) as browser:
        address, binder = start(browser)
        query = parse_qs(urlsplit(address).query)
        assert query["code_challenge_method"] == ["S256"] and query["state"] and query["nonce"]
        answer = come_back(browser, at_provider(address, "ana"), binder)
        assert answer.status_code == 200, answer.text
        assert "SameSite=Strict" in answer.headers.get_list("set-cookie")[0]
        browser.cookie = answer.headers.get_list("set-cookie")[0].partition(";")[0].partition("=")[2]
        who = browser.ask("GET", "/v1/session").json()
        assert who["csrf"]
        person = who["person"]
        assert (person["name"], person["role"], person["source"]) == ("ana", "owner", "oidc")
        assert (person["teams"], person["title"], person["email"]) == (["class-1"], "Person ana", "ana@school.test")
    assert sign_in(door, "ana").status_code == 200
    assert [each["name"] for each in door.http.get("/v1/accounts").json()] == ["ana"], "the same account"
    assert sign_in(door, "tess").status_code == 403, "in no group that lets them in"
    assert door.http.patch("/v1/accounts/ana", json={"active": False}).status_code == 200
    assert sign_in(door, "ana").status_code == 403


def test_nobody_takes_the_account_of_another(door: Door, issuer: str) -> None:
    """Another subject of the same name, and a name that is a local account's, come in as nobody."""
    set_up(door, settings(issuer))
    add(door, "ada")
    assert sign_in(door, "ada").status_code == 403
    assert sign_in(door, "ana").status_code == 200
    assert sign_in(door, "ana=42").status_code == 403
    assert door.http.get("/v1/accounts/ada").json()["source"] == "local"
    with Browser(door) as browser:
        assert browser.sign_in("ana", "any").status_code == 401, "never with a password"


def test_what_was_not_begun_here_ends_nowhere(door: Door, issuer: str) -> None:
    """Threats 22 and 23: a code of somebody else's sign-in is worth nothing in this browser."""
    set_up(door, settings(issuer))
    with Browser(door) as browser:
        address, binder = start(browser)
        back = at_provider(address, "ana")
        for wrong, cookie in (
            ({**back, "state": "x"}, binder),
            ({"state": back["state"]}, binder),
            ({}, binder),
        ):
            assert come_back(browser, wrong, cookie).status_code == 403
        address, binder = start(browser)
        back = at_provider(address, "ana")
        assert come_back(browser, back, "").status_code == 403, "without the cookie of who began it"
        assert come_back(browser, back, binder).status_code == 403, "and it is over then"
        address, binder = start(browser)
        back = at_provider(address, "ana")
        _, other = start(browser)
        assert come_back(browser, back, other).status_code == 403
        address, binder = start(browser)
        back = at_provider(address, "ana")
        assert come_back(browser, {**back, "code": back["code"] + "x"}, binder).status_code == 403
        address, binder = start(browser)
        back = at_provider(address, "ana")
        assert come_back(browser, back, binder).status_code == 200
        assert come_back(browser, back, binder).status_code == 403, "once"


def test_tokens_that_are_not_for_us(issuer: str) -> None:
    """The signature, the audience, the nonce and the time are checked; ``none`` is no signature."""
    from joserfc import jwt
    from joserfc.jwk import KeySet, RSAKey

    from alveole.errors import Denied

    key = RSAKey.generate_key(2048, {"kid": "k"})
    provider = Provider(OidcSettings(issuer=issuer, client_id="alveole", redirect=REDIRECT))
    provider._key_set = lambda *, fresh=False: KeySet([key]).as_dict()
    now = int(time.time())
    good = {"iss": issuer, "aud": "alveole", "sub": "1", "nonce": "n", "iat": now, "exp": now + 60}

    def token(**more: Any) -> str:
        return jwt.encode({"alg": "RS256", "kid": "k"}, {**good, **more}, key)

    assert provider._claims(token(), "n")["sub"] == "1"
    wrong = [
        token(**more) for more in ({"aud": "other"}, {"iss": "x"}, {"exp": now - 600}, {"nonce": "m"}, {"sub": None})
    ]
    stranger = RSAKey.generate_key(2048, {"kid": "k"})
    wrong.append(jwt.encode({"alg": "RS256", "kid": "k"}, good, stranger))
    wrong.append(".".join(["eyJhbGciOiJub25lIn0", token().split(".")[1], ""]))
    wrong += ["", "x.y.z", token()[:-4] + "AAAA"]
    for each in wrong:
        with pytest.raises(Denied):
            provider._claims(each, "n")


def test_a_provider_that_is_down_or_wrong(door: Door, issuer: str) -> None:
    with Browser(door) as browser:
        assert browser.http.get("/v1/oidc/start").status_code == 404, "none is set up"
        set_up(door, settings(f"http://127.0.0.1:{free_port()}"))
        assert browser.http.get("/v1/oidc/start").status_code == 503
        set_up(door, settings(issuer.replace("127.0.0.1", "localhost")))
        assert browser.http.get("/v1/oidc/start").status_code == 503, "it calls itself something else"
        set_up(door, settings(issuer, client_secret="wrong"))
        address, binder = start(browser)
        assert come_back(browser, at_provider(address, "ana"), binder).status_code == 403
    for wrong in ({"issuer": "http://id.example.org"}, {"redirect": ""}, {"scopes": ["email"]}, {"colour": 1}):
        assert door.http.put("/v1/oidc", json=settings(issuer, **wrong)).status_code == 422, wrong


def test_trying_a_provider(door: Door, issuer: str) -> None:
    """Each thing that a sign-in needs of it is asked for; nothing is kept."""
    found = door.http.post("/v1/oidc/try", json=settings(issuer)).json()
    assert found["ok"] and {"provider", "addresses", "keys"} <= {each["name"] for each in found["links"]}, found
    found = door.http.post("/v1/oidc/try", json=settings(issuer, scopes=["openid", "no-such-scope"])).json()
    assert [each["name"] for each in found["links"] if not each["ok"]] == ["scopes"]
    found = door.http.post("/v1/oidc/try", json=settings(f"http://127.0.0.1:{free_port()}")).json()
    assert not found["ok"] and found["links"][0]["cure"]
    wrong = {"certificates": "-----BEGIN CERTIFICATE-----\né"}
    assert door.http.post("/v1/oidc/try", json=settings(issuer, **wrong)).status_code == 422
    assert door.http.get("/v1/oidc").status_code == 404


def test_the_commands(door: Door, issuer: str, tmp_path: Path) -> None:
    file = tmp_path / "school.toml"
    file.write_text(
        f'issuer = "{issuer}"\nclient_id = "alveole"\nclient_secret = "hidden-one"\nredirect = "{REDIRECT}"\n'
        '[mapping]\ndefault_role = "reader"\n'
    )
    assert door.run("oidc", "show").status == 4
    assert door.ok("oidc", "set", str(file))["client_secret"] == "***"
    assert "hidden-one" not in door.run("oidc", "show").out
    door.ok("oidc", "remove")
