"""Syslog out and in, with Debian's rsyslogd at the other end, on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from alveole import keeper
from alveole.config import ENVIRONMENT, Settings, load, parse
from alveole.errors import AlveoleError
from alveole.logbook import places, porter
from alveole.logbook.model import Entry, Source
from alveole.logbook.settings import Syslog, SyslogIn, SyslogOut
from alveole.logbook.syslog import Frames, Refused, render
from alveole.logbook.syslog import parse as parse_message
from alveole.logbook.writer import Writer
from instancekit import make_users, public_python

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
def running_until(
    settings: Settings, ready: Callable[[], Any], work: Callable[..., Any] = porter._run
) -> Iterator[threading.Thread]:
    """The porter's own loop in a thread; its state is told in a file."""
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            loop.run_until_complete(work(settings, stop))
            assert not asyncio.all_tasks(loop), "what it began it has ended"
        except BaseException as error:  # told by the test, in its own thread
            failed.append(error)
        finally:
            loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        until(lambda: failed or ready())
        yield thread
    finally:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(stop.set)
        thread.join(30)
    assert not failed, failed


@contextlib.contextmanager
def running(settings: Settings) -> Iterator[None]:
    taken_in = settings.syslog_in.tcp or settings.syslog_in.tls
    with running_until(
        settings, lambda: '"received":"listening' in state(settings) or (state(settings) and not taken_in)
    ):
        yield


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


def test_who_cannot_come_in_by_tls_is_told_and_counted(
    tmp_path: Path, certificate: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A sender whose handshake fails is silent otherwise: nobody would know why its lines do not come."""
    port = free_port()
    where = {"tls": f"127.0.0.1:{port}", "certificate": str(certificate), "authority": str(certificate)}
    settings = made(tmp_path, syslog_in=where)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(certificate)
    with running(settings):
        until(lambda: answers(port))
        assert not spoken(port, b"<14>1 - h p - - - no\n", client)
        assert not spoken(port, b"<14>1 - h p - - - no\n")
        until(lambda: "2 refused" in text_of(settings.logs / places.STATE))
    assert "it shows no certificate" in caplog.text and "it does not speak TLS" in caplog.text, caplog.text


def several(port: int, many: int) -> list[socket.socket]:
    return [socket.create_connection(("127.0.0.1", port), 20) for _ in range(many)]


def ended(door: socket.socket) -> bool:
    """Whether the other end has closed it."""
    door.settimeout(0.2)
    try:
        return door.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_a_flood_of_connections_ends_at_its_own_sender(tmp_path: Path) -> None:
    """Threat: somebody takes all places; who holds most loses one, and a sender at another address comes in."""
    port = free_port()
    settings = made(tmp_path, syslog_in={"tcp": f"127.0.0.1:{port}", "connections": 4})
    with running(settings), contextlib.ExitStack() as stack:
        quiet = stack.enter_context(socket.socket())
        quiet.bind(("127.0.0.2", 0))
        quiet.settimeout(20)
        quiet.connect(("127.0.0.1", port))
        quiet.sendall(b"<14>1 - h p - - - first\n")
        until(lambda: "first" in text_of(settings.logs / "in/host/current"))
        flood = [stack.enter_context(each) for each in several(port, 12)]
        until(lambda: sum(map(ended, flood)) >= 9)
        assert not ended(quiet), "who has one place keeps it"
        quiet.sendall(b"<14>1 - h p - - - second\n")
        until(lambda: "second" in text_of(settings.logs / "in/host/current"))
        until(lambda: "9 refused" in state(settings))


def test_a_message_that_drips_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threat: a byte now and then keeps no place for ever, and holds nobody else up."""
    monkeypatch.setattr(porter, "_MESSAGE_SECONDS", 0.5)
    port = free_port()
    settings = made(tmp_path, syslog_in={"tcp": f"127.0.0.1:{port}"})
    with running(settings), contextlib.ExitStack() as stack:
        (dripping, silent) = [stack.enter_context(each) for each in several(port, 2)]
        silent.sendall(b"<14>1 - h p - - - good\n")

        def dripped() -> bool:
            with contextlib.suppress(OSError):
                dripping.sendall(b"9")
            return ended(dripping)

        dripping.sendall(b"60000 <14>1 - h p - - - ")
        until(dripped)
        assert not ended(silent), "who says nothing at all has begun nothing"
        silent.sendall(b"<14>1 - h p - - - again\n")
        until(lambda: "again" in text_of(settings.logs / "in/host/current"))


def test_forged_hosts_reach_no_other_place(tmp_path: Path) -> None:
    """Threat: the host in a message is the sender's word; it chooses among the sites that are named for it alone."""
    port = free_port()
    settings = made(tmp_path, syslog_in={"tcp": f"127.0.0.1:{port}", "sites": {"web1": SITE}})
    hosts = ("../../" + SITE, SITE, "/etc", "web1/../web1", "..", "host", "a" * 255, "WEB1")
    with running(settings):
        data = b"".join(b"<14>1 - %b p - - - forged\n" % each.encode() for each in hosts)
        assert spoken(port, data + b"<14>1 - web1 p - - - true\n")
        until(lambda: "true" in text_of(settings.logs / "in" / SITE / "current"))
    assert text_of(settings.logs / "in/host/current").count("forged") == len(hosts)
    assert "forged" not in text_of(settings.logs / "in" / SITE / "current")
    assert sorted(each.name for each in (settings.logs / "in").iterdir()) == sorted(["host", SITE])


def test_one_that_cannot_listen_sends_all_the_same(tmp_path: Path) -> None:
    """Fault: the address is somebody else's; it is tried again, and lines go out meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        out = {"server": f"tcp://127.0.0.1:{server.getsockname()[1]}"}
        settings = made(tmp_path, syslog_out=out, syslog_in={"tcp": f"127.0.0.1:{port}"})
        with running_until(settings, lambda: "the address is taken" in state(settings)):
            door, _ = server.accept()
            with door:
                door.settimeout(30)
                Writer(settings.logs / SITE).put(b"2026-11-21 06:00:00.000000000  sent all the same\n")
                assert b"sent all the same" in door.recv(4096)
            taken.close()
            until(lambda: '"received":"listening' in state(settings))


# --- told by a file -------------------------------------------------------------------------------
def tell(settings: Settings, wanted: Syslog | None) -> None:
    file = settings.logs / places.WANTED
    if wanted is None:
        file.unlink(missing_ok=True)
        return
    new = file.with_suffix(".new")
    new.write_bytes(msgspec.json.encode(wanted))
    new.chmod(0o644)
    new.replace(file)


def test_it_does_what_the_file_says_and_ends_without_one(tmp_path: Path, certificate: Path) -> None:
    """Set while it runs: another port, then TLS by the PEM itself, then nothing."""
    settings = made(tmp_path)
    first, second = free_port(), free_port()
    pem = certificate.read_text()
    client = ssl.create_default_context(cadata=(certificate.parent / "cert.pem").read_text())
    client.check_hostname = False
    tell(settings, Syslog(syslog_in=SyslogIn(tcp=f"127.0.0.1:{first}")))
    with running_until(settings, lambda: '"received":"listening' in state(settings), porter._follow) as thread:
        assert spoken(first, b"<14>1 - h p - - - one\n")
        tell(settings, Syslog(syslog_in=SyslogIn(tls=f"127.0.0.1:{second}", certificate=pem)))
        until(lambda: spoken(second, b"<14>1 - h p - - - two\n", client))
        assert not answers(first)
        until(lambda: "two" in text_of(settings.logs / "in/host/current"))
        tell(settings, None)
        until(lambda: not thread.is_alive())
    assert not (settings.logs / places.STATE).exists() and not answers(second)


def test_what_waits_is_sent_although_other_settings_change(tmp_path: Path) -> None:
    """A site that is destroyed changes who may send; the lines for a server that is away are not lost by that."""
    settings = made(tmp_path)
    away, first, second = free_port(), free_port(), free_port()
    out = SyslogOut(server=f"tcp://127.0.0.1:{away}", sources=("host",))
    host = Writer(settings.logs / "host")
    host.write("info", "cron", "before")
    tell(settings, Syslog(syslog_out=out, syslog_in=SyslogIn(tcp=f"127.0.0.1:{first}")))
    with running_until(settings, lambda: '"received":"listening' in state(settings), porter._follow):
        until(lambda: "not connected" in state(settings))
        for number in range(100):
            host.write("info", "cron", f"line {number} waits")
        until(lambda: "100 wait" in state(settings))
        tell(settings, Syslog(syslog_out=out, syslog_in=SyslogIn(tcp=f"127.0.0.1:{second}")))
        until(lambda: answers(second) and "100 wait" in state(settings))
        with socket.create_server(("127.0.0.1", away)) as door:
            door.settimeout(60)
            came, _ = door.accept()
            with came:
                came.settimeout(60)
                got = b""
                while b"line 99 waits" not in got:
                    got += came.recv(65536)
    host.close()
    assert all(b"line %d waits" % number in got for number in range(100)) and b"before" not in got


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that the log user reaches."""
    place = Path(tempfile.mkdtemp(prefix="alv", dir="/tmp"))
    place.chmod(0o711)
    try:
        yield place
    finally:
        shutil.rmtree(place)


@pytest.mark.root
def test_the_supervisor_starts_it_again_and_ends_it(open_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: the porter is killed, and comes back; nothing runs where nothing is wanted."""
    config = open_place / "alveole.toml"
    config.write_text(f'[paths]\nstate = "{open_place}/s"\nrun = "/tmp/r"\n')
    settings = load(config)
    make_users()
    user = pwd.getpwnam(settings.users.log)
    for each in ("own/porter", "own/control", "in"):
        (settings.logs / each).mkdir(parents=True)
        os.chown(settings.logs / each, user.pw_uid, user.pw_gid)
    role: keeper.Role = {
        "name": "porter",
        "argv": [str(public_python()), "-m", "alveole", "serve", "--role", "porter"],
        "environment": {ENVIRONMENT: str(config), "HOME": "/nonexistent"},
        **{"uid": user.pw_uid, "gid": user.pw_gid, "groups": [], "files": [], "keys": []},
        "wanted": str(settings.logs / places.WANTED),
    }
    supervisor = keeper.Keeper([role])
    started: list[subprocess.Popen[bytes]] = []
    start = keeper._start

    def watched(role: keeper.Role) -> subprocess.Popen[bytes]:
        started.append(start(role))
        return started[-1]

    def listens(many: int) -> None:
        until(lambda: len(started) == many and '"received":"listening' in state(settings))

    def wanted() -> Syslog:
        return Syslog(syslog_in=SyslogIn(tcp=f"127.0.0.1:{free_port()}"))

    # Each process that it starts is looked at.
    monkeypatch.setattr(keeper, "_start", watched)
    thread = threading.Thread(target=supervisor._keep, args=(role,))
    thread.start()
    try:
        tell(settings, wanted())
        listens(1)
        assert Path(f"/proc/{started[0].pid}").stat().st_uid == user.pw_uid
        started[0].kill()
        started[0].wait()
        (settings.logs / places.STATE).unlink()
        listens(2)
        tell(settings, None)
        until(lambda: started[1].poll() is not None)
        assert started[1].returncode == 0 and not (settings.logs / places.STATE).exists()
        tell(settings, wanted())
        listens(3)
    finally:
        supervisor._stop.set()
        thread.join(40)
        for each in started:
            if each.poll() is None:
                each.kill()
            each.wait()
    assert len(started) == 3 and started[2].returncode == 0, "it ends when it is asked to"


def test_what_is_there_and_cannot_be_read_is_not_taken_for_nothing(tmp_path: Path) -> None:
    """Fault: with status 0 it would be started again at once, for ever."""
    file = tmp_path / places.WANTED
    file.parent.mkdir(parents=True, exist_ok=True)
    assert porter.read_wanted(tmp_path) is None
    for damaged in (b"", b'{"syslog_in":', b"\xff", b"[]"):
        file.write_bytes(damaged)
        with pytest.raises(AlveoleError, match="cannot be read"):
            porter.read_wanted(tmp_path)
    file.unlink()
    file.mkdir()
    with pytest.raises(AlveoleError, match="cannot be read"):
        porter.read_wanted(tmp_path)


def test_the_supervisor_backs_off_whatever_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults: no process can be started for a moment; what is wanted ends by itself at once, and is still wanted."""
    role: keeper.Role = {
        "name": "porter",
        "argv": [sys.executable, "-c", ""],
        "environment": {},
        **{"uid": None, "gid": 0, "groups": [], "files": [], "keys": []},
        "wanted": str(tmp_path),
    }
    supervisor = keeper.Keeper([role])
    start, fails, delays = keeper._start, [BlockingIOError(11, "again"), FileNotFoundError(2, "gone")], []

    def failing(role: keeper.Role) -> subprocess.Popen[bytes]:
        if fails:
            raise fails.pop()
        return start(role)

    def back_off(delay: float) -> float:
        delays.append(delay)
        if len(delays) == 4:
            supervisor._stop.set()
        return delay * 2

    monkeypatch.setattr(keeper, "_start", failing)
    monkeypatch.setattr(keeper, "_SHORT_SECONDS", 3600.0)
    monkeypatch.setattr(supervisor, "_back_off", back_off)
    supervisor._keep(role)
    first = keeper._RESTART_SECONDS[0]
    assert not fails and delays == [first, first * 2, first * 4, first * 8]


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
