"""Name servers and authorities that are broken or hostile: slow, endless, huge, malformed (threat 18).

Each is asked as control asks it. What must hold: nothing but an error of ours comes of it, within a time and in a room
that are ours, not the server's.
"""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import struct
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import dns.message
import dns.rcode
import dns.rrset
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "edge"))
from acmekit import make_authority, server_certificate

from alveole.dns.rfc2136 import Condition, Key, Updates
from alveole.errors import AlveoleError, Refused, Temporary
from alveole.issuing import pointing, transport
from alveole.issuing.dialogue import Dialogue
from alveole.issuing.model import Authority

Answer = Callable[[socket.socket], None]
#: What the clients of these tests are given, in seconds.
PATIENCE = 0.3
LATE = 30.0


class Server:
    """Does to each connection what ``answer`` is at that moment, until the test ends."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.answer: Answer = lambda _link: None
        self.done = threading.Event()
        self._context = context
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listening.settimeout(0.1)
        self.port = int(self._listening.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while not self.done.is_set():
            with contextlib.suppress(TimeoutError):
                link, _ = self._listening.accept()
                link.settimeout(LATE)
                one = threading.Thread(target=self._serve, args=(link, self.answer))
                self._threads.append(one)
                one.start()

    def _serve(self, link: socket.socket, answer: Answer) -> None:
        with contextlib.suppress(OSError), link:
            if self._context is not None and not getattr(answer, "plain", False):
                with self._context.wrap_socket(link, server_side=True) as tls:
                    answer(tls)
            else:
                answer(link)

    def drip(self, link: socket.socket, block: bytes, pause: float = 0.05) -> None:
        while not self.done.is_set():
            link.sendall(block)
            self.done.wait(pause)

    def flood(self, link: socket.socket, block: bytes) -> None:
        while not self.done.is_set():
            link.sendall(block)

    def close(self) -> None:
        self.done.set()
        for each in self._threads:
            each.join()
        self._listening.close()


@contextlib.contextmanager
def in_room() -> Iterator[None]:
    """In little memory; that it ends at all is the rest, for these servers never do."""
    # proc(5): the highest mark begins anew.
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak()
    yield
    assert _peak() - before < 64 << 10


def _peak() -> int:
    """The most memory so far, in KiB."""
    (line,) = [each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmHWM:")]
    return int(line.split()[1])


# --- name servers ------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def names() -> Iterator[Server]:
    server = Server()
    try:
        yield server
    finally:
        server.close()


def _asked(link: socket.socket) -> bytes:
    (length,) = struct.unpack("!H", link.recv(2, socket.MSG_WAITALL))
    return link.recv(length, socket.MSG_WAITALL)


def _true(link: socket.socket) -> bytes:
    """What an honest server would say, as bytes."""
    asked = bytearray(_asked(link))
    # Without the signature, which nobody here knows the key of.
    asked[10:12] = b"\0\0"
    answer = dns.message.make_response(dns.message.from_wire(bytes(asked), ignore_trailing=True))
    answer.set_rcode(dns.rcode.NOERROR)
    return answer.to_wire()


def _every_call(server: Server, key: Key | None = None) -> None:
    """Each must end with an error of ours."""
    zone = Updates("127.0.0.1", server.port, "example.test", key, PATIENCE)
    calls: tuple[Callable[[], object], ...] = (
        lambda: zone.replace("a.example.test", "A", 60, ("192.0.2.1",)),
        lambda: zone.ask("a.example.test", "TXT"),
        zone.serial,
        lambda: zone.holds((Condition("a.example.test", "A", ("192.0.2.1",)),)),
    )
    for call in calls:
        with in_room(), pytest.raises(AlveoleError):
            call()


def test_a_name_server_that_is_slow(names: Server) -> None:
    for block in (b"", b"\xff"):
        names.answer = lambda link, block=block: names.drip(link, block)
        _every_call(names)


def test_a_name_server_that_floods(names: Server) -> None:
    names.answer = lambda link: names.flood(link, b"\xff" * 65_536)
    _every_call(names)


def test_a_name_server_that_says_other_things(names: Server) -> None:
    """Nothing, half of it, another's answer, a question, an answer without its signature."""
    names.answer = lambda link: link.close()
    _every_call(names)
    names.answer = lambda link: (wire := _true(link), link.sendall(struct.pack("!H", len(wire)) + wire[:5]))[1]
    _every_call(names)
    names.answer = lambda link: (wire := _true(link), link.sendall(struct.pack("!H", len(wire)) + b"\0\0" + wire[2:]))[
        1
    ]
    _every_call(names)
    names.answer = lambda link: (wire := _asked(link), link.sendall(struct.pack("!H", len(wire)) + wire))[1]
    _every_call(names)
    names.answer = lambda link: (wire := _true(link), link.sendall(struct.pack("!H", len(wire)) + wire))[1]
    key = Key("k", "c2VjcmV0LXRoYXQtbm9ib2R5LWtub3dz")
    zone = Updates("127.0.0.1", names.port, "example.test", key, LATE)
    with pytest.raises(Refused, match="does not sign"):
        zone.replace("a.example.test", "A", 60, ("192.0.2.1",))


def test_a_name_server_whose_answers_are_bent(names: Server) -> None:
    """Bytes of an honest answer changed, dropped and doubled by chance, with the question's number left in place."""
    dice = random.Random(7)  # noqa: S311  the same at each run, on purpose

    def bent(link: socket.socket) -> None:
        query = dns.message.from_wire(_asked(link), ignore_trailing=True)
        made = dns.message.make_response(query)
        made.answer.append(dns.rrset.from_text("a.example.test.", 60, "IN", "TXT", '"' + "x" * 200 + '"', '"y"'))
        wire = bytearray(made.to_wire())
        for _ in range(dice.randint(1, 6)):
            at = dice.randrange(2, len(wire))
            wire[at : at + dice.randint(0, 2)] = dice.randbytes(dice.randint(0, 3))
        link.sendall(struct.pack("!H", len(wire)) + wire)

    names.answer = bent
    zone = Updates("127.0.0.1", names.port, "example.test", None, LATE)
    errors = 0
    for _ in range(100):
        try:
            zone.ask("a.example.test", "TXT")
        except AlveoleError:
            errors += 1
    assert errors > 30


# --- authorities -------------------------------------------------------------------------------------------
class Acme:
    def __init__(self, server: Server, trust: str) -> None:
        self.server, self.trust = server, trust

    def refused(self, *, match: str | None = None) -> str:
        """What a conversation with it ends with."""
        there = Authority(
            "ca", f"https://localhost:{self.server.port}/d", certificates=self.trust, account="https://localhost/a/1"
        )
        with (
            in_room(),
            pytest.raises(Temporary, match=match) as raised,
            Dialogue(there, (), threading.Event(), lambda _kept: None) as dialogue,
        ):
            dialogue.try_it()
        return str(raised.value)


@pytest.fixture(scope="module")
def acme() -> Iterator[Acme]:
    key, certificate = make_authority("hostile")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile(prefix="alv") as place:
        place.write(server_certificate(key, certificate))
        place.flush()
        context.load_cert_chain(place.name)
    server = Server(context)
    made = Acme(server, certificate.decode())
    # What is loaded once is no room that an answer has taken.
    server.answer = lambda link: link.close()
    made.refused()
    try:
        yield made
    finally:
        server.close()


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "WHOLE_SECONDS", PATIENCE)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "begin", [b"", b"HTTP/1.1 200 OK\r\n", HEAD + b"Content-Length: 100000\r\n\r\n", HEAD + b"\r\n"]
)
def test_an_authority_that_drips(acme: Acme, begin: bytes) -> None:
    """A byte now and then, in the first line, in the headers, in a body with a length and in one without."""

    def answer(link: socket.socket) -> None:
        link.recv(4096)
        link.sendall(begin)
        acme.server.drip(link, b"X" if begin.endswith(b"\r\n\r\n") or not begin else b"X-A: b\r\n")

    acme.server.answer = answer
    assert "no whole answer" in acme.refused() or begin == b"HTTP/1.1 200 OK\r\n"


def test_an_authority_that_drips_its_handshake(acme: Acme) -> None:
    def answer(link: socket.socket) -> None:
        link.recv(4096)
        # A record of TLS that announces 16,000 bytes.
        link.sendall(b"\x16\x03\x03\x3e\x80")
        acme.server.drip(link, b"\x02")

    answer.plain = True
    acme.server.answer = answer
    assert "no whole answer" in acme.refused()


def test_what_was_late_for_one_request_cuts_no_other() -> None:
    """The timer of a request may fire as that ends; its connection is kept for the next one."""
    guarded, turn = transport.Guarded(()), transport._Turn()
    mine, theirs = socket.socketpair()
    with theirs:
        guarded._keep(mine)
        turn.over = True
        guarded._cut(turn)
        theirs.send(b"there")
        assert mine.recv(10) == b"there" and not turn.late
        turn.over = False
        guarded._cut(turn)
        assert turn.late and mine.recv(10) == b""
        guarded.close()


def test_an_authority_that_never_ends(acme: Acme, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bodies without end, with a length, in chunks and packed: read so far and no further."""
    monkeypatch.setattr(transport, "WHOLE_SECONDS", LATE)
    for head, block in (
        (b"\r\n", b" " * 65_536),
        (b"Content-Length: 999999999999\r\n\r\n", b" " * 65_536),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"8000\r\n" + b" " * 0x8000 + b"\r\n"),
    ):

        def answer(link: socket.socket, head: bytes = head, block: bytes = block) -> None:
            link.recv(4096)
            link.sendall(HEAD + head)
            acme.server.flood(link, block)

        acme.server.answer = answer
        acme.refused(match="more than 1 MiB")


NO_SENSE = (
    *(b"", b"{", b"[]", b"null", b"7", b'{"newNonce": 7}', b"\xff\xfe\x00", b'{"newNonce": "ftp://x", "newOrder": {}}'),
    *(b"[" * 100_000, b'{"newAccount":"https://localhost:1/"}', b'{"meta": {"termsOfService": []}}'),
)


@pytest.mark.parametrize("body", NO_SENSE)
def test_an_authority_that_says_no_sense(acme: Acme, body: bytes) -> None:
    def answer(link: socket.socket) -> None:
        link.recv(4096)
        link.sendall(HEAD + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)

    acme.server.answer = answer
    there = Authority("ca", f"https://localhost:{acme.server.port}/d", certificates=acme.trust)
    with (
        in_room(),
        pytest.raises(AlveoleError),
        Dialogue(there, (), threading.Event(), lambda _kept: None) as dialogue,
    ):
        dialogue.try_it()


def test_an_authority_that_packs_much_into_little(acme: Acme, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not asked to, and what it packs all the same is not unpacked."""
    import gzip

    monkeypatch.setattr(transport, "WHOLE_SECONDS", LATE)

    packed = gzip.compress(b" " * (1 << 20)) * 400

    def answer(link: socket.socket) -> None:
        link.recv(4096)
        link.sendall(HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed)

    acme.server.answer = answer
    acme.refused()


def test_an_authority_that_leads_round_in_circles(acme: Acme, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "WHOLE_SECONDS", LATE)

    def answer(link: socket.socket) -> None:
        link.recv(4096)
        where = f"https://localhost:{acme.server.port}/d".encode()
        link.sendall(b"HTTP/1.1 302 X\r\nLocation: " + where + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    acme.server.answer = answer
    acme.refused(match="redirects")


# --- whoever answers at a name that is claimed -------------------------------------------------------------
def test_who_answers_for_a_name_is_not_waited_for(names: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked before an authority is: a name of somebody's may lead to anybody."""
    monkeypatch.setattr(pointing, "addresses", lambda *_asked: ("127.0.0.1",))
    for begin, block in ((b"", b"X"), (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"), (b"HTTP/1.1 200 OK\r\n\r\n", b" ")):

        def answer(link: socket.socket, begin: bytes = begin, block: bytes = block) -> None:
            link.recv(4096)
            link.sendall(begin)
            names.drip(link, block)

        names.answer = answer
        with in_room(), pytest.raises(pointing.Astray):
            pointing.check("a.example.test", names.port, "t" * 20, "answer", (), PATIENCE)
