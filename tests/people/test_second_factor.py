"""Authenticators, passkeys and recovery codes, and of whom they are required."""

from __future__ import annotations

import time
from typing import Any

import pyotp
import pytest
from authenticator import Authenticator
from doorkit import Door
from peoplekit import PASSWORD, Browser, add

from alveole.people.model import Role
from alveole.services.doors import Place
from alveole.services.factors import WrongCode


def code_of(secret: str, steps: int = 0) -> str:
    return pyotp.TOTP(secret).at(int(time.time()) + 30 * steps)


def enrol(browser: Browser) -> tuple[str, list[str]]:
    """An authenticator is set up; its secret, and the recovery codes."""
    made = browser.ask("POST", "/v1/factors/totp").json()
    assert made["uri"].startswith("otpauth://totp/")
    assert browser.ask("POST", "/v1/factors/totp/confirm", json={"code": "000000"}).status_code == 422
    wanted = {"code": code_of(made["secret"], -1), "name": "phone"}
    answer = browser.ask("POST", "/v1/factors/totp/confirm", json=wanted)
    assert answer.status_code == 201, answer.text
    return made["secret"], answer.json()["recovery_codes"]


def test_codes(door: Door) -> None:
    """Threat 22: the session's secret changes with it; before it nothing is open."""
    add(door, "ana")
    with Browser(door) as browser:
        assert browser.sign_in("ana").json()["needs"] == ""
        secret, codes = enrol(browser)
        assert len(codes) == 10
        answer = browser.sign_in("ana")
        assert answer.json()["needs"] == "second-factor"
        partial = browser.cookie
        for method, path in (
            ("GET", "/v1/sites"),
            ("GET", "/v1/accounts/ana"),
            ("GET", "/v1/factors"),
            ("POST", "/v1/factors/totp"),
            ("DELETE", "/v1/factors/all"),
            ("POST", "/v1/tokens"),
        ):
            json = {"name": "x"} if path.endswith("tokens") else None
            assert browser.ask(method, path, json=json).status_code == 403, path
        assert browser.ask("GET", "/v1/session").json()["needs"] == "second-factor"
        for wrong in ("", "abcdef", "000000"):
            assert browser.ask("POST", "/v1/session/code", json={"code": wrong}).status_code == 401
        code = code_of(secret)
        answer = browser.ask("POST", "/v1/session/code", json={"code": f"{code[:3]} {code[3:]}"})
        assert answer.status_code == 200, answer.text
        assert browser.cookie != partial
        assert browser.ask("GET", "/v1/sites").status_code == 200
        browser.cookie, kept = partial, browser.cookie
        assert browser.ask("GET", "/v1/session").status_code == 401, "the secret before it is worth nothing"
        browser.cookie = kept
        assert [each["kind"] for each in browser.ask("GET", "/v1/factors").json()].count("totp") == 1


def test_a_code_is_good_once(door: Door) -> None:
    add(door, "ana")
    with Browser(door) as browser:
        browser.sign_in("ana")
        secret, codes = enrol(browser)
        used = code_of(secret)
        for status in (200, 401):
            browser.sign_in("ana")
            assert browser.ask("POST", "/v1/session/code", json={"code": used}).status_code == status
        for status in (200, 401):
            browser.sign_in("ana")
            assert browser.ask("POST", "/v1/session/code", json={"code": codes[0].upper()}).status_code == status
        browser.sign_in("ana")
        assert browser.ask("POST", "/v1/session/code", json={"code": codes[1]}).status_code == 200
        fresh = browser.ask("POST", "/v1/factors/recovery-codes").json()
        browser.sign_in("ana")
        assert browser.ask("POST", "/v1/session/code", json={"code": codes[2]}).status_code == 401
        assert browser.ask("POST", "/v1/session/code", json={"code": fresh[0]}).status_code == 200


def test_guessing_codes_is_slowed_down(door: Door) -> None:
    """Threat 25."""
    add(door, "ana")
    with Browser(door) as browser:
        browser.sign_in("ana")
        secret, _ = enrol(browser)
        browser.sign_in("ana")
        seen = [browser.ask("POST", "/v1/session/code", json={"code": "000000"}).status_code for _ in range(7)]
        assert seen[-1] == 429
        assert browser.ask("POST", "/v1/session/code", json={"code": code_of(secret)}).status_code == 429
    person = door.services.people.person("ana")
    assert person is not None
    door.services.attempts.came_in(f"{person.id} code", "")
    with pytest.raises(WrongCode):
        door.services.prove_code(person, "000000")
    door.services.prove_code(person, code_of(secret))
    assert door.services.prove("ana", PASSWORD, Place("192.0.2.1"))[0].id == person.id


def test_an_administrator_requires_it_of_roles(door: Door) -> None:
    add(door, "ada", Role.ADMIN)
    add(door, "ana")
    assert door.http.put("/v1/second-factor", json={"roles": ["administrator", "operator"]}).status_code == 200
    assert door.http.get("/v1/second-factor").json()["roles"] == ["administrator", "operator"]
    with Browser(door) as browser:
        assert browser.sign_in("ana").json()["needs"] == ""
        assert browser.sign_in("ada").json()["needs"] == "enrol"
        assert browser.ask("GET", "/v1/accounts").status_code == 403
        secret, _ = enrol(browser)
        assert browser.ask("GET", "/v1/accounts").status_code == 200, "setting it up was giving it"
        assert browser.sign_in("ada").json()["needs"] == "second-factor"
        assert browser.ask("POST", "/v1/session/code", json={"code": code_of(secret)}).status_code == 200
    assert door.http.delete("/v1/factors/all", params={"account": "ada"}).status_code == 204
    with Browser(door) as browser:
        assert browser.sign_in("ada").json()["needs"] == "enrol", "root helped who lost theirs"


def test_removing_the_last_takes_the_recovery_codes_too(door: Door) -> None:
    add(door, "ana")
    with Browser(door) as browser:
        browser.sign_in("ana")
        enrol(browser)
        totp = next(each for each in browser.ask("GET", "/v1/factors").json() if each["kind"] == "totp")
        assert browser.ask("DELETE", f"/v1/factors/{totp['id']}").status_code == 204
        assert browser.ask("GET", "/v1/factors").json() == []
        assert browser.sign_in("ana").json()["needs"] == ""


@pytest.fixture
def browser(door: Door) -> Any:
    add(door, "ana")
    with Browser(door) as made:
        made.sign_in("ana")
        yield made


def register(browser: Browser, device: Authenticator) -> int:
    options = browser.ask("POST", "/v1/factors/passkey-options").json()
    assert options["rp"]["id"] == "127.0.0.1"
    credential = device.create(options)
    return browser.ask("POST", "/v1/factors/passkey", json={"credential": credential, "name": "key"}).status_code


def give(browser: Browser, credential: dict[str, Any]) -> int:
    return browser.ask("POST", "/v1/session/passkey", json={"credential": credential}).status_code


def options_for(browser: Browser) -> Any:
    return browser.ask("POST", "/v1/session/passkey-options").json()


def test_passkeys(browser: Browser) -> None:
    device = Authenticator(browser.origin)
    assert register(browser, device) == 201
    assert register(browser, device) == 409, "known already"
    assert browser.sign_in("ana").json()["needs"] == "second-factor"
    options = options_for(browser)
    assert [each["id"] for each in options["allowCredentials"]]
    assert give(browser, device.get(options)) == 200
    assert browser.ask("GET", "/v1/sites").status_code == 200


def test_passkeys_that_prove_nothing(browser: Browser) -> None:
    device = Authenticator(browser.origin)
    for origin in ("https://evil.example", "http://127.0.0.1"):
        options = browser.ask("POST", "/v1/factors/passkey-options").json()
        wanted = {"credential": device.create(options, origin)}
        assert browser.ask("POST", "/v1/factors/passkey", json=wanted).status_code == 422, origin
    assert browser.ask("POST", "/v1/factors/passkey", json={"credential": {}}).status_code == 409, "nothing was asked"
    assert register(browser, device) == 201
    browser.sign_in("ana")
    options = options_for(browser)
    good = device.get(options)
    assert give(browser, good) == 200
    browser.sign_in("ana")
    assert give(browser, good) == 409, "a challenge is good once"
    options_for(browser)
    assert give(browser, good) == 401, "the answer to another challenge"
    assert give(browser, device.get(options_for(browser), "https://evil.example")) == 401
    stranger = Authenticator(browser.origin)
    assert give(browser, stranger.get(options_for(browser))) == 401
    stranger.id = device.id
    assert give(browser, stranger.get(options_for(browser))) == 401, "another key under the same id"


def test_a_copied_authenticator_is_refused(browser: Browser) -> None:
    device = Authenticator(browser.origin)
    assert register(browser, device) == 201
    browser.sign_in("ana")
    assert give(browser, device.get(options_for(browser))) == 200
    browser.sign_in("ana")
    device.counter -= 1
    assert give(browser, device.get(options_for(browser))) == 401
    assert browser.ask("POST", "/v1/session/passkey", json={"credential": {"id": 3}}).status_code in (401, 409)
