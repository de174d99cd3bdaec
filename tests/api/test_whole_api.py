"""schemathesis over the whole API as each role: no fault of ours, and every answer as ``openapi.json`` says it is."""

from __future__ import annotations

import errno
import json
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import msgspec
import pytest
import schemathesis
from doorkit import Door
from hypothesis import HealthCheck, Phase
from schemathesis import checks

from alveole import requests as ask
from alveole.people.model import Role
from alveole.remote import lines

#: Enough to send each field wrong and right; a run with more finds what remains: ALVEOLE_EXAMPLES=200.
EXAMPLES = int(__import__("os").environ.get("ALVEOLE_EXAMPLES", "3"))
#: With these an answer never ends.
ENDLESS = {"follow", "wait"}
#: What must hold of each answer. That a wrong request is refused is not among them: the services look at more than a
#: schema can say, and take some things that it does not.
CHECKS = (
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
)


HOST_KEY = "AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing but this machine is reached: some routes ask servers whose addresses the examples make up."""
    connect, resolve = socket.socket.connect, socket.getaddrinfo

    def is_here(address: Any) -> bool:
        return not isinstance(address, tuple) or str(address[0]).startswith(("127.", "::1"))

    def connect_here(self: socket.socket, address: Any) -> None:
        if not is_here(address):
            raise ConnectionRefusedError(errno.ECONNREFUSED, "the test reaches this machine only")
        connect(self, address)

    def resolve_here(host: Any, *more: Any, **options: Any) -> Any:
        if host is not None and not is_here((host,)) and host != "localhost":
            raise socket.gaierror(socket.EAI_NONAME, "the test knows this machine only")
        return resolve(host, *more, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect_here)
        patch.setattr(socket, "getaddrinfo", resolve_here)
        patch.setattr(lines, "_SSH", "/bin/false")
        # Any machine shows this key; the real program has its tests in tests/fleet.
        keyscan = tmp_path_factory.mktemp("ssh") / "keyscan"
        keyscan.write_text(f"#!/bin/sh\necho 'h ssh-ed25519 {HOST_KEY}'\n")
        keyscan.chmod(0o755)
        patch.setattr(lines, "_KEYSCAN", str(keyscan))
        patch.setattr(lines, "_knock", lambda host, port: None)
        # For programs that are started, such as git.
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            patch.setenv(name, "http://127.0.0.1:9")
        patch.setenv("no_proxy", "127.0.0.1,localhost")
        yield


@pytest.fixture(scope="module")
def world(alone: None) -> Iterator[Door]:
    with tempfile.TemporaryDirectory(prefix="alv", dir="/tmp") as name:
        door = Door(Path(name), dns={"resolvers": ["127.0.0.1:9"], "seconds": 0.2})
        inside = door.agent.programs
        # What a path leads to is the container's business, and here is none: only the working copy is there.
        door.agent.programs = lambda asked: inside(_kept_inside(asked))
        try:
            for person in ("ana", "zoe"):
                door.http.post("/v1/accounts", json={"name": person, "role": "owner", "password": "correct horse"})
            for site, owner in (("blog", "ana"), ("shop", "zoe")):
                door.site(site, owner=owner)
            yield door
        finally:
            door.close()


def _kept_inside(asked: Any) -> Any:
    """A program of the file manager, unless one of its paths is absolute: then one that finds nothing."""
    order = json.loads(asked.argv[-1]) if asked.argv[0].endswith("python3") else {}
    if not any(str(order.get(key, "")).startswith("/") for key in ("at", "to")):
        return asked
    refusal = json.dumps({"wrong": "absent", "text": "is not there"})
    return msgspec.structs.replace(asked, argv=(asked.argv[0], "-c", f"print({refusal!r})"))


#: Words that are there, so that more than refusals is tried; every second example has them.
THERE = {
    "site": "blog",
    "account": "ana",
    "whom": "ana",
    "plan": "small",
    "base": "host",
    "module": "wordpress",
    "kind": "nginx",
    "team": "club",
}


#: Who may take most away comes last.
@pytest.mark.parametrize("role", [Role.OWNER, Role.READER, Role.OPERATOR, Role.ADMIN])
def test_every_route_as(world: Door, role: Role) -> None:
    # The owner's is a person's, who has a site; the others are programs' own.
    secret = _token_of(world, "ana") if role is Role.OWNER else world.token(role, name=f"whole-{role}")
    document = world.http.get("/openapi.json").json()
    # As people reach it: a token over TCP. Streams and sockets have tests of their own.
    schema: Any = schemathesis.openapi.from_dict(document)
    headers = {"Authorization": f"Bearer {secret}"}
    base = f"http://127.0.0.1:{world.port}"
    faults: dict[str, str] = {}
    tried = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        if not _takes_away(operation):
            count, fault = _try(operation, base, headers)
            tried += count
            if fault:
                faults[f"{operation.method.upper()} {operation.path}"] = fault
    assert not faults, f"{len(faults)} routes\n" + "\n\n".join(f"{label}\n{text}" for label, text in faults.items())
    assert tried > 200


def _try(operation: Any, base: str, headers: dict[str, str]) -> tuple[int, str]:
    """How many requests were made, and what was wrong with the answer to one."""
    count = 0

    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy())
    def one(case: Any) -> None:
        nonlocal count
        count += 1
        if count % 2:
            for name in case.path_parameters or {}:
                case.path_parameters[name] = THERE.get(name, case.path_parameters[name])
        for name in ENDLESS & set(case.query or {}):
            del case.query[name]
        answer = case.call(base_url=base, headers=headers, timeout=20)
        case.validate_response(answer, checks=CHECKS)

    try:
        one()
    except BaseExceptionGroup as error:
        return count, "; ".join(str(each) for each in error.exceptions)[:1500]
    except Exception as error:
        return count, f"{type(error).__name__}: {error}"[:1500]
    return count, ""


def _token_of(door: Door, name: str) -> str:
    person = door.services.people.person(name)
    assert person is not None
    actor = door.services.people.actor(person, "session:x")
    made = door.services.create_token(actor, ask.CreateToken(name="whole"))
    assert made.secret is not None
    return made.secret


def _takes_away(operation: Any) -> bool:
    """What would leave the ones after it nothing to be tried on."""
    return operation.method.upper() == "DELETE" and operation.path in ("/v1/tokens/{token}", "/v1/sessions/{session}")
