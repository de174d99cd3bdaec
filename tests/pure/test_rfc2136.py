"""Records changed at a real name server (BIND), signed; and every way it can say no."""

from __future__ import annotations

import base64
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from alveole.dns.rfc2136 import Condition, ConditionFailed, Key, Record, Updates
from alveole.errors import AlveoleError, InvalidInput, Refused, Temporary
from dnskit import KEY_NAME, ZONE, NameServer, name_server

pytestmark = pytest.mark.skipif(not Path("/usr/sbin/named").exists(), reason="needs named (package bind9)")
_OTHER = base64.b64encode(b"x" * 32).decode()


@pytest.fixture(scope="module")
def server() -> Iterator[NameServer]:
    with name_server(keyed=True) as made:
        yield made


@pytest.fixture
def zone(server: NameServer) -> Updates:
    return _at(server)


def _at(server: NameServer, zone: str = ZONE, **key: str) -> Updates:
    told = {"name": KEY_NAME, "secret": server.secret, **key}
    return Updates("127.0.0.1", server.port, zone, Key(**told), timeout=20.0)


def test_records_are_replaced_and_removed(zone: Updates) -> None:
    before = zone.serial()
    for kind, first, second in (
        ("A", ["192.0.2.1", "192.0.2.2"], ["192.0.2.3"]),
        ("AAAA", ["2001:db8::1"], ["2001:db8::2"]),
        ("TXT", ['v=1; a "quoted" \\ text', "x" * 600], ["é"]),
    ):
        name = f"blog.{ZONE}"
        zone.replace(name, kind, 60, first)
        assert zone.ask(name, kind) == Record(name, kind, 60, tuple(sorted(first)))
        zone.replace(name, kind, 30, second)
        assert zone.ask(name, kind) == Record(name, kind, 30, tuple(second))
        zone.remove(name, kind)
        zone.remove(name, kind)
        assert zone.ask(name, kind).values == ()
    zone.replace(f"*.blog.{ZONE}", "CNAME", 60, [f"blog.{ZONE}"])
    assert zone.ask(f"*.blog.{ZONE}", "CNAME").values == (f"blog.{ZONE}.",)
    assert zone.ask(f"any.blog.{ZONE}", "CNAME").values == (f"blog.{ZONE}.",)
    zone.remove(f"*.blog.{ZONE}", "CNAME")
    assert zone.serial() > before


def test_nothing_is_changed_when_a_condition_fails(zone: Updates) -> None:
    name = f"held.{ZONE}"
    zone.change([Record(name, "A", 60, ("192.0.2.1",))], [Condition(name)])
    for condition in (Condition(name), Condition(name, "A"), Condition(name, "A", ("192.0.2.9",))):
        with pytest.raises(ConditionFailed):
            zone.change(
                [Record(name, "A", 60, ("192.0.2.2",)), Record(f"b.{ZONE}", "A", 60, ("192.0.2.2",))], [condition]
            )
    assert zone.ask(name, "A").values == ("192.0.2.1",) and zone.ask(f"b.{ZONE}", "A").values == ()
    zone.change([Record(name, "A", 60, ("192.0.2.2",))], [Condition(name, "A", ("192.0.2.1",)), Condition(name, "TXT")])
    assert zone.ask(name, "A").values == ("192.0.2.2",)
    zone.remove(name, "A")


def test_a_server_that_says_no(server: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: the wrong key, secret, algorithm, zone or clock is told as what it is, and nothing is changed."""
    name = f"no.{ZONE}"
    for updates, word, what in (
        (_at(server, secret=_OTHER), "BADSIG", name),
        (_at(server, name="nobody"), "BADKEY", name),
        (_at(server, algorithm="hmac-sha512"), "BADKEY", name),
        (Updates("127.0.0.1", server.port, ZONE, timeout=20.0), "REFUSED", name),
        (_at(server, "other.test"), "REFUSED", "a.other.test"),
        (_at(server, "elsewhere.test"), "NOTAUTH", "a.elsewhere.test"),
    ):
        with pytest.raises(Refused, match=word) as refused:
            updates.replace(what, "A", 60, ["192.0.2.1"])
        assert server.secret not in str(refused.value) and _OTHER not in str(refused.value)
    with monkeypatch.context() as patch:
        now = time.time
        patch.setattr(time, "time", lambda: now() + 7200)
        with pytest.raises(Refused, match="BADTIME"):
            _at(server).replace(name, "A", 60, ["192.0.2.1"])
    assert _at(server).ask(name, "A").values == ()
    with pytest.raises(Refused, match="refuses"):
        _at(server, "elsewhere.test").serial()


def test_a_server_that_is_not_there() -> None:
    """Fault: told within the time that was given."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = int(silent.getsockname()[1])
        with pytest.raises(Temporary, match="does not answer within"):
            Updates("127.0.0.1", port, ZONE, timeout=0.2).remove(ZONE, "A")
    with pytest.raises(Temporary, match="cannot be asked"):
        Updates("127.0.0.1", port, ZONE, timeout=5.0).remove(ZONE, "A")


@pytest.mark.parametrize(
    ("name", "kind", "values"),
    [
        ("blog.example.org", "A", ["192.0.2.1"]),
        (f"x{ZONE}", "A", ["192.0.2.1"]),
        (f"a..{ZONE}", "A", ["192.0.2.1"]),
        (f"a\n.{ZONE}", "A", ["192.0.2.1"]),
        (f"a\\046b.{ZONE}", "A", ["192.0.2.1"]),
        (f"{'a' * 64}.{ZONE}", "A", ["192.0.2.1"]),
        (f"{'a.' * 130}{ZONE}", "A", ["192.0.2.1"]),
        (f"a.*.{ZONE}", "A", ["192.0.2.1"]),
        (f"a.{ZONE}", "A", ["192.0.2.300"]),
        (f"a.{ZONE}", "A", ["192.0.2.1\nb A 192.0.2.2"]),
        (f"a.{ZONE}", "SOA", ["x"]),
        (f"a.{ZONE}", "NONE", ["x"]),
        (f"a.{ZONE}", "CNAME", [f"{'a' * 64}."]),
    ],
)
def test_hostile_values_never_leave(name: str, kind: str, values: list[str]) -> None:
    """Threat: a name or a value that would mean something else in a zone is refused before any server is asked."""
    with pytest.raises(InvalidInput):
        Updates("127.0.0.1", 1, ZONE).replace(name, kind, 60, values)


def test_settings_of_the_wrong_form() -> None:
    key = Key("k", _OTHER)
    assert _OTHER not in repr(key)
    for make in (
        lambda: Updates("ns.example.org", 53, ZONE),
        lambda: Updates("127.0.0.1", 53, "no zone"),
        lambda: Updates("127.0.0.1", 53, ZONE, Key("k", "no base64!")),
        lambda: Updates("127.0.0.1", 53, ZONE, Key("k", "")),
        lambda: Updates("127.0.0.1", 53, ZONE, Key("k", _OTHER, "hmac-md5")),
        lambda: Updates("127.0.0.1", 53, ZONE, Key("a" * 64, _OTHER)),
        lambda: Updates("127.0.0.1", 53, ZONE).replace(f"a.{ZONE}", "A", -1, ["192.0.2.1"]),
    ):
        with pytest.raises(AlveoleError) as wrong:
            make()
        assert isinstance(wrong.value, InvalidInput)
