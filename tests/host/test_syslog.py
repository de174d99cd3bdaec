"""Syslog out and in, with Debian's rsyslogd at the other end, on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alveole.config import Settings, parse
from alveole.logbook import porter
from alveole.logbook.model import Entry, Source
from alveole.logbook.syslog import Frames, Refused, render
from alveole.logbook.syslog import parse as parse_message
from alveole.logbook.writer import Writer

RSYSLOGD = shutil.which("rsyslogd", path="/usr/sbin:/usr/bin")
needs_rsyslog = pytest.mark.skipif(RSYSLOGD is None, reason="rsyslogd is not installed")
SITE = "saaaaaaaaaaab"


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not become true in time"
        time.sleep(0.05)
    return found


def free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def text_of(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""


@contextlib.contextmanager
def rsyslogd(directory: Path, configuration: str) -> Iterator[subprocess.Popen[bytes]]:
    assert RSYSLOGD is not None
    file = directory / f"rsyslog-{free_port()}.conf"
    file.write_text(f'global(workDirectory="{directory}" maxMessageSize="64k")\n{configuration}')
    process = subprocess.Popen(
        [RSYSLOGD, "-n", "-f", file, "-i", f"{file}.pid"], stdout=subprocess.DEVNULL, stderr=sys.stderr
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


@contextlib.contextmanager
def running(settings: Settings) -> Iterator[None]:
    """The porter's own loop in a thread; its state is told in a file."""
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            loop.run_until_complete(porter._run(settings, stop))
        except BaseException as error:  # told by the test, in its own thread
            failed.append(error)
        finally:
            loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        until(lambda: failed or state(settings))
        yield
    finally:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(stop.set)
        thread.join(30)
    assert not failed, failed


def state(settings: Settings) -> str:
    return text_of(settings.logs / "own" / "porter" / "state.json")


def made(directory: Path, **sections: Any) -> Settings:
    found = parse({"paths": {"state": str(directory / "s"), "run": "/tmp/r"}, **sections})
    for each in (SITE, "own/porter", "own/control", "in", "host"):
        (found.logs / each).mkdir(parents=True)
    return found


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One certificate with its key that is its own authority, for 127.0.0.1."""
    directory = tmp_path_factory.mktemp("tls")
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    argv += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    argv += ["-keyout", str(directory / "key.pem"), "-out", str(directory / "cert.pem")]
    subprocess.run(argv, check=True, capture_output=True)
    both = directory / "both.pem"
    both.write_text((directory / "cert.pem").read_text() + (directory / "key.pem").read_text())
    return both


def driver(certificate: Path) -> str:
    place = certificate.parent
    return (
        f'global(DefaultNetstreamDriver="ossl" DefaultNetstreamDriverCAFile="{place}/cert.pem" '
        f'DefaultNetstreamDriverCertFile="{place}/cert.pem" DefaultNetstreamDriverKeyFile="{place}/key.pem")\n'
    )


# --- out ------------------------------------------------------------------------------------------
@needs_rsyslog
@pytest.mark.parametrize("tls", [pytest.param(False, id="tcp"), pytest.param(True, id="tls", marks=pytest.mark.turn)])
def test_lines_reach_rsyslogd_and_survive_its_absence(tmp_path: Path, certificate: Path, tls: bool) -> None:
    """RFC 6587 and RFC 5425: what was printed while the server was away comes when it is there, and loss is told."""
    port = free_port()
    got = tmp_path / "got"
    settings = made(
        tmp_path,
        syslog_out={
            "server": f"{'tls' if tls else 'tcp'}://127.0.0.1:{port}",
            "buffer_bytes": 64 * 1024,
            "authority": str(certificate) if tls else "",
        },
    )
    secure = 'StreamDriver.Name="ossl" StreamDriver.Mode="1" StreamDriver.AuthMode="anon"' if tls else ""
    configuration = (
        (driver(certificate) if tls else "")
        + f'module(load="imtcp" {secure})\ninput(type="imtcp" address="127.0.0.1" port="{port}")\n'
        + 'template(name="all" type="string" string="%pri% %app-name% %structured-data% |%msg%\\n")\n'
        + f'action(type="omfile" file="{got}" template="all" asyncWriting="off")\n'
    )
    site = Writer(settings.logs / SITE)
    own = Writer(settings.logs / "own" / "control")
    with running(settings):
        # It looks at the files first, and tries to connect then.
        until(lambda: "Connect call failed" in state(settings))
        for number in range(500):
            site.put(f"2026-11-21 06:00:00.{number:09d}  early {number} {'x' * 300}\n".encode())
        until(lambda: " 0 lost" not in state(settings) and "lost" in state(settings))
        with rsyslogd(tmp_path, configuration):
            until(lambda: "early 499" in text_of(got))
            assert "early 0 " not in text_of(got), "the bound has lost the oldest"
            until(lambda: "lines were lost while the syslog server was away" in text_of(got))
            site.put("2026-11-21 06:00:01.000000000  ERROR später: \x1b[2J]\n".encode())
            own.write("warning", "alveole.api", "one of ours")
            until(lambda: "später" in text_of(got) and "one of ours" in text_of(got))
        until(lambda: "not connected" in state(settings))
        with rsyslogd(tmp_path, configuration):
            until(lambda: "not connected" not in state(settings))
            site.put(b"2026-11-21 06:00:02.000000000  again\n")
            until(lambda: "|again" in text_of(got) or "| again" in text_of(got))
    (line,) = [each for each in text_of(got).splitlines() if "später" in each]
    assert line.startswith('131 alveole-out [alveole@32473 source="out" site="saaaaaaaaaaab"] |')
    assert "\x1b" not in line and "#033" not in line
    (line,) = [each for each in text_of(got).splitlines() if "one of ours" in each]
    assert line.startswith("132 alveole-own-alveole.api ")


# --- in -------------------------------------------------------------------------------------------
@needs_rsyslog
@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_lines_of_rsyslogd_are_taken_in(tmp_path: Path, certificate: Path, tls: bool) -> None:
    port, entrance = free_port(), free_port()
    where = {"tls": f"127.0.0.1:{port}", "certificate": str(certificate), "authority": str(certificate)}
    settings = made(tmp_path, syslog_in=(where if tls else {"tcp": f"127.0.0.1:{port}"}) | {"sites": {"web1": SITE}})
    secure = 'StreamDriver="ossl" StreamDriverMode="1" StreamDriverAuthMode="anon"' if tls else ""
    configuration = (
        (driver(certificate) if tls else "")
        + f'module(load="imptcp")\ninput(type="imptcp" address="127.0.0.1" port="{entrance}")\n'
        + f'action(type="omfwd" target="127.0.0.1" port="{port}" protocol="tcp" TCP_Framing="octet-counted" '
        + f'template="RSYSLOG_SyslogProtocol23Format" {secure} action.resumeRetryCount="-1")\n'
    )
    with running(settings), rsyslogd(tmp_path, configuration):
        until(lambda: answers(entrance))
        with socket.create_connection(("127.0.0.1", entrance), 10) as door:
            door.sendall(
                b"<11>1 2020-01-01T00:00:00Z web1 shop 7 - - basket is empty\n"
                b"<38>1 2026-11-21T06:00:00Z router dnsmasq - - - query of \x1b[2Jme\n"
            )
        of_site, of_host = settings.logs / "in" / SITE / "current", settings.logs / "in" / "host" / "current"
        until(lambda: "basket is empty" in text_of(of_site) and "dnsmasq" in text_of(of_host))
    stamp, _, rest = text_of(of_site).splitlines()[-1].partition("  ")
    assert rest == "err web1/shop: basket is empty" and not stamp.startswith("2020"), "it is kept by when it came"
    assert "\x1b" not in text_of(of_host)


def spoken(port: int, data: bytes, context: ssl.SSLContext | None = None) -> bool:
    """Whether the other end is still there after ``data``."""
    with contextlib.suppress(OSError, TimeoutError):
        plain = socket.create_connection(("127.0.0.1", port), 20)
        door = context.wrap_socket(plain) if context is not None else plain
        with door:
            door.sendall(data)
            door.settimeout(0.5)
            try:
                return door.recv(1) != b""
            except TimeoutError:
                return True
    return False


def test_hostile_senders_are_refused(tmp_path: Path) -> None:
    """Frames that are none end the connection; what was whole before them stays, and others go on."""
    port = free_port()
    settings = made(tmp_path, syslog_in={"tcp": f"127.0.0.1:{port}"})
    good = b"<14>1 - h p - - - good"
    with running(settings):
        assert spoken(port, b"%d %b" % (len(good), good))
        for bad in (
            b"GET / HTTP/1.1\r\n",
            b"99999999 x",
            b"012 <14>hello wor",
            b"20 <999>1 - h p - - - x",
            b"<" * 70_000,
        ):
            until(lambda bad=bad: not spoken(port, bad))
        assert spoken(port, good + b"\n"), "a line is a message too"
        until(lambda: text_of(settings.logs / "in/host/current").count("good") == 2)


def test_only_those_networks_and_certificates_come_in(tmp_path: Path, certificate: Path) -> None:
    plain, secure = free_port(), free_port()
    settings = made(
        tmp_path,
        syslog_in={
            "tcp": f"127.0.0.1:{plain}",
            "tls": f"127.0.0.1:{secure}",
            "certificate": str(certificate),
            "authority": str(certificate),
            "networks": ["192.0.2.0/24"],
        },
    )
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(certificate)
    with running(settings):
        assert not spoken(plain, b"<14>1 - h p - - - no\n"), "not of the networks"
        assert not spoken(secure, b"<14>1 - h p - - - no\n", client), "no certificate"
    assert "no" not in text_of(settings.logs / "in/host/current")


# --- the words alone ------------------------------------------------------------------------------
def test_frames_come_whole_however_they_are_cut() -> None:
    stream = b"5 <1>ab<2>line\n9 <3>c\nd ef<4>x\r\n"
    for size in (1, 2, 3, 7, 100):
        frames = Frames()
        found = [each for at in range(0, len(stream), size) for each in frames.feed(stream[at : at + size])]
        assert found == [b"<1>ab", b"<2>line", b"<3>c\nd ef", b"<4>x\r"], size


@pytest.mark.parametrize("raw", [b"", b"hello", b"<192>x", b"<>x", b"<-1>x", b"\x00\x01", b"<14"])
def test_what_has_no_priority_is_refused(raw: bytes) -> None:
    with pytest.raises(Refused):
        parse_message(raw)


def test_a_message_is_rendered_and_read_alike() -> None:
    entry = Entry("2026-11-21T06:00:00.000000Z", Source.OUT, "text: \u202eé", "crit", 'a"]b', "php")
    raw = render(entry, "host.example", 3)
    length, _, message = raw.partition(b" ")
    assert int(length) == len(message)
    assert message.startswith(b"<26>1 2026-11-21T06:00:00.000000Z host.example alveole-out-php - - ")
    assert rb'site="a\"\]b"' in message
    assert parse_message(message)[:3] == ("crit", "host.example", "alveole-out-php")
    assert parse_message(b"<34>Oct 11 22:14:15 mymachine su[3]: 'su root' failed") == (
        "crit",
        "mymachine",
        "su",
        "'su root' failed",
    )
