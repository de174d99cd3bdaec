"""People of a school sign in against a real slapd."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from doorkit import Door, free_port
from peoplekit import PASSWORD, Browser, add
from school import SERVICE, SUFFIX, Authority, Slapd

from alveole.people.model import Role
from alveole.services.doors import NotSignedIn
from alveole.ssh import porter as porter_module
from alveole.ssh.porter import Porter
from alveole.ssh.words import Password


class School:
    def __init__(self, directory: Path) -> None:
        self.authority = Authority("the school's authority")
        self.directory = directory
        self.slapd = Slapd(directory / "one", self.authority.issue("localhost", directory))

    def settings(self, *servers: str, **more: Any) -> dict[str, Any]:
        return {
            "servers": servers or (self.slapd.starttls,),
            "certificates": self.authority.pem,
            "bind_dn": SERVICE,
            "bind_password": "service-secret",
            "base": f"ou=people,{SUFFIX}",
            "group_base": f"ou=groups,{SUFFIX}",
            "mapping": {
                "roles": {"pupils": "owner", "teachers": "operator", "admins": "administrator"},
                "teams": {"class-0": "class-0", "class-1": "class-1", "teachers": "staff"},
            },
            **more,
        }


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> Iterator[School]:
    made = School(tmp_path_factory.mktemp("school"))
    yield made
    made.slapd.close()


def set_up(door: Door, settings: dict[str, Any]) -> None:
    answer = door.http.put("/v1/ldap", json=settings)
    assert answer.status_code == 200, answer.text


def sign_in(door: Door, name: str, password: str) -> httpx.Response:
    with Browser(door) as browser:
        return browser.sign_in(name, password)


def trial(door: Door, settings: dict[str, Any], name: str, password: str | None = None) -> Any:
    answer = door.http.post("/v1/ldap/try", json={"name": name, "password": password, "settings": settings})
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("way", ["starttls", "ldaps"])
@pytest.mark.parametrize("how", ["search", "direct"])
def test_signing_in(door: Door, school: School, way: str, how: str) -> None:
    more: dict[str, Any] = {}
    if how == "direct":
        # Groups are searched as the person then, who reads none here: what is mapped is the default.
        more = {"user_dn": f"uid={{name}},ou=people,{SUFFIX}", "group_base": ""}
        more["mapping"] = {"default_role": "owner"}
    set_up(door, school.settings(getattr(school.slapd, way), **more))
    answer = sign_in(door, "pupil004", "pw-pupil004")
    assert answer.status_code == 200, answer.text
    person = answer.json()["person"]
    assert (person["role"], person["source"], person["email"]) == ("owner", "ldap", "pupil004@school.test")
    assert person["teams"] == ([] if how == "direct" else ["class-0"])
    if how == "search":
        assert sign_in(door, "Teacher0", "pw-teacher0").json()["person"]["role"] == "administrator"
        assert sign_in(door, "teacher1", "pw-teacher1").json()["person"]["teams"] == ["staff"]
        assert sign_in(door, "pupil007", "pw-pupil007").json()["person"]["title"] == "Élodie pupil007"
        assert sign_in(door, "visitor", "pw-visitor").status_code == 401, "in no group that lets them in"
        assert [each["name"] for each in door.http.get("/v1/accounts").json()].count("visitor") == 0


def test_the_ssh_door_takes_the_password_of_the_directory(door: Door, school: School) -> None:
    """What its porter asks: the person whom the login names, by the password that the directory knows."""
    set_up(door, school.settings())
    porter = Porter(door.services, door.settings)
    standing = porter_module._Standing(site="none", address="192.0.2.9", named="pupil009")
    assert porter._prove(standing, Password("pw-pupil009")).good and standing.proven
    assert standing.person is not None and standing.person.source == "ldap"
    other = porter_module._Standing(site="none", address="192.0.2.9", named="pupil009")
    with pytest.raises(NotSignedIn):
        porter._prove(other, Password("wrong"))
    assert not other.proven and other.person is None


def test_wrong_and_empty_passwords_and_injection(door: Door, school: School) -> None:
    """Threat 26: neither an empty password, which servers take for anonymous, nor a filter in the name lets in."""
    set_up(door, school.settings())
    before = len(door.http.get("/v1/accounts").json())
    tries = [("pupil004", ""), ("pupil004", "wrong"), ("pupil004", "pw-pupil005"), ("pupil004", "\0"), ("nobody", "x")]
    for name in ("*", "pupil*", "*)(uid=*", "pupil004)(objectClass=*", "pupil004,ou=people", "\0", "pupil004\\2a", ""):
        tries.append((name, "pw-pupil004"))
    said = set()
    for name, password in tries:
        answer = sign_in(door, name, password)
        assert answer.status_code == 401, (name, password, answer.text)
        said.add(answer.text)
    assert len(said) == 1
    assert len(door.http.get("/v1/accounts").json()) == before
    direct = school.settings(user_dn=f"uid={{name}},ou=people,{SUFFIX}", mapping={"default_role": "owner"})
    set_up(door, direct)
    for name in ("pupil004,ou=people,dc=school,dc=test#", "pupil004+sn=pupil004", "*"):
        assert sign_in(door, name, "pw-pupil004").status_code == 401


def test_the_directory_says_what_to_be_at_each_sign_in(door: Door, school: School) -> None:
    settings = school.settings()
    set_up(door, settings)
    with Browser(door) as browser:
        browser.sign_in("pupil001", "pw-pupil001")
        assert browser.ask("GET", "/v1/session").json()["person"]["teams"] == ["class-1"]
        door.http.post("/v1/teams", json={"name": "chess", "members": ["pupil001"]})
        settings["mapping"] = {"roles": {"pupils": "reader"}, "teams": {"class-1": "first-b"}}
        set_up(door, settings)
        person = sign_in(door, "pupil001", "pw-pupil001").json()["person"]
        assert (person["role"], person["teams"]) == ("reader", ["chess", "first-b"]), "given by hand: kept"
        settings["mapping"] = {"roles": {"teachers": "owner"}}
        set_up(door, settings)
        assert sign_in(door, "pupil001", "pw-pupil001").status_code == 401
        assert browser.ask("GET", "/v1/session").status_code == 401, "out of every group: signed out everywhere"


def test_who_left_the_directory_is_out_with_tokens_too(door: Door, school: School) -> None:
    settings = school.settings()
    set_up(door, settings)
    with Browser(door) as browser:
        browser.sign_in("teacher2", "pw-teacher2")
        secret = browser.ask("POST", "/v1/tokens", json={"name": "t"}).json()["secret"]
        with door.tcp(secret) as client:
            assert client.get("/v1/status").status_code == 200
            settings["mapping"]["roles"]["teachers"] = "owner"
            set_up(door, settings)
            assert client.get("/v1/status").status_code == 403, "what the directory says now"
            set_up(door, {**settings, "servers": [f"ldap://localhost:{free_port()}"]})
            assert client.get("/v1/sites").status_code == 200, "while it is down, what was so stays so"
            set_up(door, {**settings, "filter": "(&(uid={name})(uid=pupil*))"})
            assert client.get("/v1/sites").status_code == 401, "there is nobody of this name any more"
            assert browser.ask("GET", "/v1/session").status_code == 401
            set_up(door, settings)
            assert client.get("/v1/sites").status_code == 200
            door.http.delete("/v1/ldap")
            assert client.get("/v1/sites").status_code == 401


def test_local_accounts_go_on_when_the_directory_is_down(door: Door, school: School) -> None:
    """Threat 26, fault 15: only break-glass comes in then, and nobody waits longer than five seconds."""
    add(door, "ada", Role.ADMIN)
    add(door, "teacher1", Role.OWNER)
    set_up(door, school.settings(f"ldap://localhost:{free_port()}"))
    assert sign_in(door, "pupil004", "pw-pupil004").status_code == 503
    assert sign_in(door, "ada", PASSWORD).status_code == 200
    with silent() as port:
        set_up(door, school.settings(f"ldaps://localhost:{port}", f"ldap://localhost:{port}"))
        began = time.monotonic()
        answer = sign_in(door, "pupil004", "pw-pupil004")
        assert time.monotonic() - began < 7
        assert answer.status_code == 503
        set_up(door, school.settings(f"ldaps://localhost:{free_port()}", school.slapd.ldaps))
        assert sign_in(door, "pupil004", "pw-pupil004").status_code == 200, "the second server"
    assert sign_in(door, "teacher1", "pw-teacher1").status_code == 401, "a local account is never the directory's"


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def take() -> None:
            with contextlib.suppress(OSError):
                while True:
                    held.append(server.accept()[0])

        threading.Thread(target=take, daemon=True).start()
        yield server.getsockname()[1]
        for each in held:
            each.close()


def test_a_wrong_certificate_is_refused(door: Door, school: School, tmp_path: Path) -> None:
    """Threat 26: of another name, or of an authority nobody named: the password is not sent."""
    impostor = Slapd(tmp_path / "impostor", school.authority.issue("elsewhere.test", tmp_path))
    try:
        for server in (impostor.starttls, impostor.ldaps):
            set_up(door, school.settings(server))
            assert sign_in(door, "pupil004", "pw-pupil004").status_code == 503
            found = trial(door, school.settings(server), "pupil004", "pw-pupil004")
            assert not found["ok"] and "certificate" in found["links"][-1]["cure"], found
    finally:
        impostor.close()
    for certificates in (Authority("another").pem, ""):
        set_up(door, school.settings(school.slapd.ldaps, certificates=certificates))
        assert sign_in(door, "pupil004", "pw-pupil004").status_code == 503


def test_trying_the_settings(door: Door, school: School) -> None:
    good = school.settings()
    found = trial(door, good, "pupil000")
    assert found["ok"] and found["role"] == "owner" and found["groups"] == ["class-0", "pupils"]
    assert [link["ok"] for link in found["links"]] == [True] * 4
    assert trial(door, good, "pupil000", "pw-pupil000")["ok"]
    for settings, name, password, says in (
        (good, "pupil000", "wrong", "does not take"),
        (good, "nobody", None, "0 entries"),
        (school.settings(bind_password="wrong"), "pupil000", None, "refuses bind_dn"),
        (school.settings(base=f"ou=nowhere,{SUFFIX}"), "pupil000", None, "0 entries"),
        (school.settings(f"ldap://localhost:{free_port()}"), "pupil000", None, "refused"),
    ):
        found = trial(door, settings, name, password)
        assert not found["ok"]
        assert says in found["links"][-1]["came"], found
    found = trial(door, school.settings(mapping={}), "pupil000")
    assert not found["ok"] and found["role"] == ""
    assert door.http.get("/v1/accounts").json() == [], "nothing is kept"
    answer = door.http.post("/v1/ldap/try", json={"name": "x"})
    assert answer.status_code == 409
    wrongs = ({"servers": ["http://x"]}, {"filter": "uid={name}"}, {"colour": 1}, {"certificates": "x"}, {"base": ""})
    for wrong in wrongs:
        assert door.http.put("/v1/ldap", json={**good, **wrong}).status_code == 422, wrong


def test_the_commands(door: Door, school: School, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem = tmp_path / "school.pem"
    pem.write_text(school.authority.pem)
    file = tmp_path / "school.toml"
    file.write_text(
        f'servers = ["{school.slapd.ldaps}"]\ncertificates_file = "{pem}"\nbind_dn = "{SERVICE}"\n'
        f'bind_password = "service-secret"\nbase = "ou=people,{SUFFIX}"\ngroup_base = "ou=groups,{SUFFIX}"\n'
        '[mapping.roles]\npupils = "owner"\n'
    )
    assert door.run("ldap", "show").status == 4
    ran = door.run("ldap", "try", "pupil001", "--file", str(file))
    assert ran.status == 0 and "class-1, pupils" in ran.out, ran
    shown = door.ok("ldap", "set", str(file))
    assert shown["bind_password"] == "***"
    assert "service-secret" not in door.run("ldap", "show").out
    answer = door.http.put("/v1/ldap", json=shown)
    assert answer.status_code == 200, "with *** the password stays"
    assert door.run("ldap", "try", "pupil001").status == 0
    assert door.run("ldap", "try", "visitor").status == 3
    door.ok("ldap", "remove")
    assert door.run("ldap", "try", "pupil001").status == 3
