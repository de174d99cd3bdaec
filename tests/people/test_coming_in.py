"""Signing in, sessions, cookies and invitations, over the real server."""

from __future__ import annotations

import time

import pytest
from doorkit import Door
from peoplekit import PASSWORD, Browser, add

from alveole.api.admit import COOKIE
from alveole.people.attempts import Attempts, TooMany, network_of
from alveole.people.model import Role
from alveole.store import tables


def test_the_first_sign_in_needs_the_token_of_the_machine(door: Door) -> None:
    """Threat 32: who comes first takes nothing over."""
    with Browser(door) as browser:
        for token in ("", "ali_guess", "x"):
            wanted = {"token": token, "name": "eve", "password": PASSWORD}
            assert browser.http.post("/v1/invitations/use", json=wanted).status_code == 403
        assert browser.http.post("/v1/accounts", json={"name": "eve"}).status_code == 401
        token = door.http.post("/v1/first-token").json()["token"]
        wanted = {"token": token, "name": "ada", "password": "short"}
        assert browser.http.post("/v1/invitations/use", json=wanted).status_code == 422
        wanted["password"] = PASSWORD
        answer = browser.took(browser.http.post("/v1/invitations/use", json=wanted))
        assert answer.status_code == 200, answer.text
        assert answer.json()["person"]["role"] == "administrator"
        assert browser.http.post("/v1/invitations/use", json=wanted).status_code == 403, "good for one use"
        assert browser.ask("GET", "/v1/accounts").json()[0]["name"] == "ada"
        assert browser.ask("POST", "/v1/first-token").status_code == 403, "only root on the machine makes one"
    old, new = (door.http.post("/v1/first-token").json()["token"] for _ in range(2))
    with Browser(door) as browser:
        assert (
            browser.http.post(
                "/v1/invitations/use", json={"token": old, "name": "bob", "password": PASSWORD}
            ).status_code
            == 403
        )
        assert (
            browser.http.post(
                "/v1/invitations/use", json={"token": new, "name": "bob", "password": PASSWORD}
            ).status_code
            == 200
        )


def test_signing_in_and_out(door: Door) -> None:
    """Threat 22: a fresh session each time, and the old id is worth nothing after signing out."""
    add(door, "ana")
    with Browser(door) as browser:
        answer = browser.sign_in("Ana ")
        assert answer.status_code == 200, answer.text
        flags = answer.headers["set-cookie"]
        for word in (f"{COOKIE}=als_", "Path=/", "Secure", "HttpOnly", "SameSite=Strict"):
            assert word in flags
        assert "Domain" not in flags
        assert "als_" not in answer.text, "the session is in the cookie and nowhere else"
        first = browser.cookie
        browser.sign_in("ana")
        assert browser.cookie != first
        assert browser.ask("GET", "/v1/session").json()["person"]["name"] == "ana"
        assert len(browser.ask("GET", "/v1/sessions").json()) == 2
        assert browser.ask("DELETE", "/v1/session").status_code == 204
        for cookie in ("", browser.cookie):
            answer = browser.http.get("/v1/session", headers={"Cookie": f"{COOKIE}={cookie}"})
            assert answer.status_code == 401
    verbs = [change["verb"] for change in door.http.get("/v1/changes").json()]
    assert "sign-in" in verbs
    assert {change["actor"] for change in door.http.get("/v1/changes").json()} == {"ana", "root", "reconciler"}


def test_the_answer_to_a_wrong_name_is_that_to_a_wrong_password(door: Door) -> None:
    """Threat 25: the same words; and as long, for both work out one argon2."""
    add(door, "ana")
    door.http.patch("/v1/accounts/" + add(door, "gone")["name"], json={"active": False})
    took: dict[str, list[float]] = {}
    with Browser(door) as browser:
        browser.sign_in("ana")
        said = set()
        for name, password in (
            ("ana", "wrong"),
            ("nobody-at-all", PASSWORD),
            ("gone", PASSWORD),
            ("ana", ""),
            ("", ""),
        ):
            for _ in range(2):
                began = time.perf_counter()
                answer = browser.http.post("/v1/session", json={"name": name, "password": password})
                took.setdefault(name, []).append(time.perf_counter() - began)
                assert answer.status_code == 401
                said.add(answer.text)
    assert len(said) == 1
    least = {name: min(times) for name, times in took.items()}
    assert max(least.values()) < 6 * min(least.values()), least


def test_guessing_passwords_is_slowed_down_and_locks_nobody_out(door: Door) -> None:
    """Threat 25: then 429; who came in from there before is not held back by what others get wrong."""
    add(door, "ana")
    add(door, "bob")
    with Browser(door) as browser:
        assert browser.sign_in("bob").status_code == 200
        seen = [
            browser.http.post("/v1/session", json={"name": "ana", "password": "x" * 12}).status_code for _ in range(8)
        ]
        assert seen == [401] * 5 + [429] * 3
        answer = browser.http.post("/v1/session", json={"name": "ana", "password": PASSWORD})
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["retry-after"]) <= 30
        for number in range(80):
            browser.http.post("/v1/session", json={"name": f"guess{number}", "password": "x"})
        assert browser.http.post("/v1/session", json={"name": "zoe", "password": "x"}).status_code == 429
        assert browser.sign_in("bob").status_code == 200


def test_attempts_by_the_clock() -> None:
    now = 0.0
    attempts = Attempts(lambda: now)

    def waits(account: str, address: str, known: bool = False) -> bool:
        try:
            attempts.check(account, address, known)
        except TooMany:
            return True
        return False

    for _ in range(5):
        assert not waits("ana", "192.0.2.1")
        attempts.failed("ana", "192.0.2.1")
    assert waits("ana", "192.0.2.1")
    assert waits("ana", "192.0.2.1", known=True), "their own failures there count"
    assert not waits("ana", "192.0.2.2")
    assert not waits("bob", "192.0.2.1")
    now = 31.0
    assert not waits("ana", "192.0.2.1")
    for number in range(30):
        attempts.failed("ana", f"198.51.100.{number}")
    assert waits("ana", "203.0.113.1"), "from many addresses"
    assert not waits("ana", "192.0.2.9", known=True)
    assert network_of("2001:db8:1:2:3::4") == "2001:db8:1:2::/64"
    assert network_of("::ffff:192.0.2.1") == "192.0.2.1"


def test_a_page_of_elsewhere_cannot_use_the_cookie(door: Door) -> None:
    """Threat 23: every request that changes something needs our origin and the session's CSRF token."""
    add(door, "ana")
    door.site("blog", owner="ana")
    with Browser(door) as browser:
        browser.sign_in("ana")
        wrong = (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": ""},
            {"X-CSRF-Token": ""},
            {"X-CSRF-Token": "0" * 64},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
        )
        for headers in wrong:
            assert browser.ask("POST", "/v1/sites/blog/stop", headers=headers).status_code == 403, headers
        upgrade = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
            "Sec-WebSocket-Version": "13",
        }
        answer = browser.ask("GET", "/v1/sites/blog/exec?argv=id", headers={**upgrade, "X-CSRF-Token": ""})
        assert answer.status_code == 403
        form = {"Content-Type": "application/x-www-form-urlencoded", "X-CSRF-Token": ""}
        assert browser.ask("POST", "/v1/sites/blog/stop", headers=form, content="csrf=no").status_code == 403
        good = browser.ask("POST", "/v1/sites/blog/stop", headers=form, content=f"a=1&csrf={browser.csrf}")
        assert good.status_code == 202, good.text
        assert browser.ask("GET", "/v1/sites/blog", headers={"Origin": "https://evil.example"}).status_code == 200


def test_a_cookie_that_a_site_tossed_counts_for_nothing(door: Door) -> None:
    """Threat 22: two cookies of our name are none."""
    add(door, "ana")
    with Browser(door) as browser:
        browser.sign_in("ana")
        header = f"{COOKIE}=als_tossed; {COOKIE}={browser.cookie}"
        assert browser.http.get("/v1/session", headers={"Cookie": header}).status_code == 401
        assert browser.http.get("/v1/session", headers={"Cookie": browser.cookie}).status_code == 401


def test_sessions_end(door: Door) -> None:
    add(door, "ana")
    services = door.services
    with Browser(door) as one, Browser(door) as two:
        one.sign_in("ana")
        two.sign_in("ana")
        other = next(each for each in one.ask("GET", "/v1/sessions").json() if not each["current"])
        assert one.ask("DELETE", f"/v1/sessions/{other['id']}").status_code == 204
        assert two.ask("GET", "/v1/session").status_code == 401
        two.sign_in("ana")
        with services.store.write() as transaction:
            transaction.connection.execute(tables.sessions.update().values(seen_at=time.time() - 9 * 3600))
        assert one.ask("GET", "/v1/session").status_code == 401, "idle for too long"
        one.sign_in("ana")
        with services.store.write() as transaction:
            transaction.connection.execute(tables.sessions.update().values(expires_at=time.time() - 1))
        assert one.ask("GET", "/v1/session").status_code == 401, "too old in any case"
        one.sign_in("ana")
        door.http.patch("/v1/accounts/ana", json={"active": False})
        assert one.ask("GET", "/v1/session").status_code == 401, "disabled: at once"


def test_a_changed_password_ends_the_other_sessions(door: Door) -> None:
    add(door, "ada", Role.ADMIN)
    with Browser(door) as one, Browser(door) as two:
        one.sign_in("ada")
        two.sign_in("ada")
        path = "/v1/accounts/ada/password"
        assert one.ask("PUT", path, json={"password": "another good one", "old": "wrong"}).status_code == 422
        assert one.ask("PUT", path, json={"password": "another good one", "old": PASSWORD}).status_code == 204
        assert one.ask("GET", "/v1/session").status_code == 200
        assert two.ask("GET", "/v1/session").status_code == 401
        assert two.sign_in("ada").status_code == 401


def test_only_hashes_are_kept(door: Door) -> None:
    """A copy of the database lets nobody in."""
    add(door, "ana")
    token = door.http.post("/v1/first-token").json()["token"]
    with Browser(door) as browser:
        browser.sign_in("ana")
        made = browser.ask("POST", "/v1/tokens", json={"name": "t", "expires_in_seconds": 60}).json()
        door.services.close()
        content = door.settings.database.read_bytes()
        for secret in (browser.cookie, made["secret"], token, PASSWORD):
            assert secret.encode() not in content
        assert b"$argon2id$" in content
        door.services = type(door.services).open(door.settings, door.agent)


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.ADMIN])
def test_tokens_have_a_scope_and_an_end(door: Door, role: Role) -> None:
    add(door, "ana", role)
    for name in ("blog", "shop"):
        door.site(name, owner="ana")
    with Browser(door) as browser:
        browser.sign_in("ana")
        wanted = {"name": "look", "scope": ["site.look", "site.list", "site.run"], "sites": ["blog"]}
        secret = browser.ask("POST", "/v1/tokens", json=wanted).json()["secret"]
        with door.tcp(secret) as client:
            assert [site["name"] for site in client.get("/v1/sites").json()] == ["blog"]
            assert client.get("/v1/sites/shop").status_code == 404
            assert client.post("/v1/sites/blog/stop").status_code == (403 if role is Role.READER else 202)
            for answer in (
                client.get("/v1/sites/blog/logs"),
                client.post("/v1/tokens", json={"name": "more"}),
                client.get("/v1/plans"),
                client.delete("/v1/session"),
            ):
                assert answer.status_code == 403, answer.url
            with door.services.store.write() as transaction:
                transaction.connection.execute(tables.tokens.update().values(expires_at=time.time() - 1))
            assert client.get("/v1/sites").status_code == 401
        assert browser.ask("POST", "/v1/tokens", json={"name": "x", "scope": ["site.fly"]}).status_code == 422
        assert browser.ask("POST", "/v1/tokens", json={"name": "x", "role": "administrator"}).status_code == 403


def test_an_administrators_own_token_makes_one_of_no_person(door: Door) -> None:
    """As ``alveole token create ci --scope upload.send --site blog`` asks for it: without a role."""
    add(door, "ana", Role.ADMIN)
    door.site("blog", owner="ana")
    with Browser(door) as browser:
        browser.sign_in("ana")
        own = browser.ask("POST", "/v1/tokens", json={"name": "mine"}).json()
        assert own["role"] == Role.ADMIN
        with door.tcp(own["secret"]) as client:
            made = client.post("/v1/tokens", json={"name": "ci", "scope": ["site.look"], "sites": ["blog"]})
            assert made.status_code == 201, made.text
            assert made.json()["role"] == Role.READER
        with door.tcp(made.json()["secret"]) as client:
            assert client.get("/v1/sites/blog").status_code == 200
        # Of no person: it does not stand among one's own.
        assert [each["name"] for each in browser.ask("GET", "/v1/tokens").json()] == ["mine"]
