"""Who may come in, and what every answer has."""

from __future__ import annotations

import subprocess
import sys

import httpx
import pytest
from doorkit import Door

from alveole.people.model import Role

SECURITY = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


def problem(answer: httpx.Response) -> dict[str, object]:
    """The problem document of ``answer``; its form is checked here for all tests."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    found: dict[str, object] = answer.json()
    assert found.keys() == {"type", "title", "status", "code", "problems"}
    assert found["status"] == answer.status_code
    assert isinstance(found["problems"], list)
    assert found["problems"]
    for item in found["problems"]:
        assert item.keys() == {"field", "message", "hint"}
    return found


def test_tcp_needs_a_token(door: Door) -> None:
    with door.tcp() as nobody:
        answer = nobody.get("/v1/sites")
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert problem(answer)["code"] == "denied"
        assert nobody.get("/healthz").text == "ok\n"
    with door.tcp("alv_wrong") as stranger:
        assert stranger.get("/v1/sites").status_code == 401
        assert stranger.post("/v1/sites", json={}).status_code == 401
    with door.tcp(door.token()) as admin:
        assert admin.get("/v1/sites").json() == []
    with door.tcp(Authorization="Basic cm9vdDpyb290") as other:
        assert other.get("/v1/sites").status_code == 401


def test_a_reader_may_only_look(door: Door) -> None:
    door.site()
    with door.tcp(door.token(Role.READER)) as reader:
        assert reader.get("/v1/sites/blog").status_code == 200
        for answer in (
            reader.post("/v1/sites", json={"name": "x"}),
            reader.post("/v1/uploads", content=b"x"),
            reader.delete("/v1/sites/blog", params={"confirm": "blog"}),
            reader.get("/v1/tokens"),
            reader.get("/v1/sites/blog/logs"),
        ):
            assert answer.status_code == 403, answer.text
            assert problem(answer)["code"] == "denied"


def test_a_deleted_token_is_shut_out_at_once(door: Door) -> None:
    with door.tcp(door.token(name="gone")) as client:
        assert client.get("/v1/sites").status_code == 200
        assert door.http.delete("/v1/tokens/gone").status_code == 204
        assert client.get("/v1/sites").status_code == 401


def test_guessing_tokens_is_slowed_down(door: Door) -> None:
    """Threat 25: limits per address; a right token is not looked at either until the time is over."""
    with door.tcp("alv_wrong") as guesser:
        seen = {guesser.get("/v1/sites").status_code for _ in range(65)}
        answer = guesser.get("/v1/sites")
    assert seen == {401, 429}
    assert answer.status_code == 429
    assert problem(answer)["code"] == "temporary"
    assert 1 <= int(answer.headers["retry-after"]) <= 2
    assert door.http.get("/v1/sites").status_code == 200, "root's socket is not an address"


def test_a_page_of_another_origin_may_not_act(door: Door) -> None:
    """Threat 23: an Origin without a token is refused by name, also where it asks for a WebSocket."""
    with door.tcp(Origin="https://evil.example") as page:
        answer = page.post("/v1/sites", json={"name": "x"})
        assert answer.status_code == 403
        assert "another origin" in str(problem(answer)["problems"])
        upgrade = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
            "Sec-WebSocket-Version": "13",
        }
        assert page.get("/v1/sites/blog/exec", params={"argv": "id"}, headers=upgrade).status_code == 403
    with door.tcp(door.token(), Origin="https://panel.example") as own:
        assert own.post("/v1/sites", json={"name": ""}).status_code == 422


def test_the_socket_is_for_root_alone(door: Door) -> None:
    """Threat 30: the mode keeps others out."""
    assert door.settings.api_socket.stat().st_mode & 0o777 == 0o600


@pytest.mark.root
def test_another_uid_on_the_socket_is_denied(door: Door) -> None:
    """Threat 30: where the mode was widened by hand, the kernel's word on the peer still counts."""
    door.directory.chmod(0o755)
    for path in (door.settings.run, door.settings.api_socket.parent):
        path.chmod(0o755)
    door.settings.api_socket.chmod(0o666)
    script = (
        "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        "s.sendall(b'GET /v1/sites HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n');"
        "print(s.makefile().read())"
    )
    # -S -E: the interpreter of the virtual environment need not be readable for nobody's site-packages.
    done = subprocess.run(
        ["/usr/bin/python3", "-S", "-E", "-c", script, str(door.settings.api_socket)],
        capture_output=True,
        text=True,
        user=65534,
        group=65534,
        extra_groups=[],
        check=True,
        cwd="/",
    )
    assert done.stdout.startswith("HTTP/1.1 403"), done
    assert "only root may speak" in done.stdout


def test_every_answer_has_the_headers_of_a_careful_server(door: Door) -> None:
    with door.tcp() as nobody:
        for answer in (door.http.get("/v1/sites"), door.http.get("/nope"), nobody.get("/v1/sites")):
            for name, value in SECURITY.items():
                assert answer.headers[name] == value
            assert "server" not in answer.headers


def test_what_the_framework_refuses_is_a_problem_too(door: Door) -> None:
    answer = door.http.get("/v1/nope")
    assert answer.status_code == 404
    assert problem(answer)["code"] == "not-found"
    answer = door.http.put("/v1/sites", json={})
    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"]
    problem(answer)
    for page in ("/docs", "/redoc", "/v1/docs"):
        assert door.http.get(page).status_code == 404, "pages that load from other hosts are not served"


def test_a_fault_tells_nothing_of_itself(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a secret of the inside")

    monkeypatch.setattr(door.services, "list_sites", broken)
    answer = door.http.get("/v1/sites")
    assert answer.status_code == 500
    assert problem(answer)["code"] == "error"
    assert "secret" not in answer.text


def test_a_request_with_a_huge_head_is_refused(door: Door) -> None:
    assert door.http.get("/v1/sites", headers={"X-Long": "x" * 40_000}).status_code == 400
    assert door.http.get("/v1/sites", params={"x": "x" * 40_000}).status_code == 400
    assert door.http.get("/v1/sites").status_code == 200


def test_a_second_instance_on_the_same_paths_is_refused(door: Door) -> None:
    """And the first one goes on."""
    ran = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from alveole import api, config; api.run(None, config.load(sys.argv[1]))",
            str(door.config),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "another Alvéole already listens" in ran.stderr
    assert door.http.get("/healthz").status_code == 200
