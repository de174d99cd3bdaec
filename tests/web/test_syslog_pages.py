"""What is sent and taken in by syslog, set from the page, the API and the command line while Alvéole runs."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from doorkit import ROOT, Door, free_port, until
from peoplekit import Browser, add
from webkit import Visitor

from alveole.logbook import places
from alveole.logbook.settings import Syslog
from alveole.notices import News
from alveole.people.model import Role

KEY = "-----BEGIN PRIVATE KEY-----"


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A certificate of 127.0.0.1 with its key, its own authority."""
    place = tmp_path_factory.mktemp("tls")
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    argv += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-out", str(place / "cert")]
    subprocess.run([*argv, "-keyout", str(place / "key")], check=True, capture_output=True)
    return (place / "key").read_text() + (place / "cert").read_text()


class Server:
    """A syslog server that takes one message and stays, or closes at once."""

    def __init__(self, pem: str, place: Path) -> None:
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = self._door.getsockname()[1]
        self.rude = False
        self.got: list[bytes] = []
        (place / "server.pem").write_text(pem)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(place / "server.pem")
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._door.accept()
            except OSError:
                return
            with plain:
                plain.settimeout(20)
                try:
                    with self._context.wrap_socket(plain, server_side=True) as door:
                        self.got.append(door.recv(4096))
                        if not self.rude:
                            door.recv(1)
                except OSError:
                    continue

    def close(self) -> None:
        self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()
        self._thread.join(30)


@pytest.fixture
def server(pem: str, tmp_path: Path) -> Iterator[Server]:
    made = Server(pem, tmp_path)
    try:
        yield made
    finally:
        made.close()


def told(door: Door) -> Syslog | None:
    """What the porter is told to do."""
    file = door.settings.logs / places.WANTED
    return msgspec.json.decode(file.read_bytes(), type=Syslog) if file.exists() else None


def test_the_page_tries_and_stores_it(door: Door, server: Server, pem: str) -> None:
    (door.settings.logs / "own/control").mkdir(parents=True)
    site = door.site("blog")["id"]
    add(door, "ada", Role.ADMIN)
    with Visitor(door) as ada:
        ada.sign_in("ada")
        ada.get("/admin/syslog")
        wrong = {
            "syslog_out.server": "udp://x:1",
            "syslog_in.networks": "10.0.0.1/8",
            "syslog_in.sites": "web1 = nobody",
        }
        page = ada.submit("/admin/syslog", ("do", "store"), expect=422, **wrong)
        assert "tcp://HOST:PORT" in page.text and "web1 = nobody" in ada.answer.text
        assert told(door) is None
        good = {
            "syslog_out.server": f"tls://127.0.0.1:{server.port}",
            "syslog_out.authority": pem[pem.index("-----BEGIN CERT") :],
            "syslog_in.tls": f"127.0.0.1:{free_port()}",
            "syslog_in.certificate": pem,
            "syslog_in.networks": "192.0.2.0/24\n2001:db8::/32",
            "syslog_in.sites": "web1 = blog",
        }
        page = ada.submit("/admin/syslog", ("do", "try"), **good)
        assert "All is in order." in page.text and "it was sent, and the connection stays" in page.text
        until(lambda: server.got)
        assert b"alveole-own-try" in server.got[0] and told(door) is None
        page = ada.submit("/admin/syslog", ("do", "store"))
        assert "It is stored." in page.text and KEY not in ada.answer.text
        wanted = told(door)
        assert wanted is not None and wanted.syslog_in.certificate.strip() == pem.strip()
        assert wanted.syslog_in.sites == {"web1": site} and wanted.syslog_in.networks[1] == "2001:db8::/32"
        # Stored once more as it is shown, it is the same: the key is kept.
        ada.submit("/admin/syslog", ("do", "store"))
        assert told(door) == wanted
        page = ada.submit("/admin/syslog", ("do", "drop"))
        assert "What the settings file says holds again." in page.text and told(door) is None
    assert {"set-syslog", "drop-syslog"} <= {each.verb for each in door.services.journal.list(limit=20)}


def test_the_command_line_and_the_api(
    door: Door, server: Server, pem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (door.settings.logs / "own/control").mkdir(parents=True)
    authority, file = tmp_path / "ca.pem", tmp_path / "syslog.toml"
    authority.write_text(pem[pem.index("-----BEGIN CERT") :])
    out = f'[syslog_out]\nserver = "tls://127.0.0.1:{server.port}"\nsources = ["error"]\n'
    file.write_text(f'{out}authority_file = "{authority}"\n')
    tried = door.run("syslog", "try", str(file))
    assert tried.status == 0 and "its certificate is good for" in tried.out
    server.rude = True
    with monkeypatch.context() as patient:
        patient.setattr("alveole.services.syslog._SAYS_NO_SECONDS", 30.0)
        assert "it closed the connection" in door.run("syslog", "try", str(file)).out
    assert door.ok("syslog", "set", str(file))["set_here"] == ["syslog_out"]
    shown = door.run("syslog", "show").out
    assert "Sent, set here: it has not begun" in shown and "Taken in, as the settings file says: nothing" in shown
    assert "BEGIN" not in shown
    wanted = told(door)
    assert wanted is not None and wanted.syslog_out.sources == ("error",)
    file.write_text(out)
    failed = door.run("syslog", "try", str(file))
    assert failed.status == 3 and "does authority name who signed it?" in failed.out
    assert door.ok("syslog", "reset")["set_here"] == [] and told(door) is None
    assert door.run("syslog", "reset").status == 4
    bad = {"syslog_out": {"server": "x", "nix": 1}, "syslog_in": {"certificate": "rel.pem", "connections": 0}, "in": {}}
    answer = door.http.put("/v1/syslog", json=bad)
    assert answer.status_code == 422
    assert {each["field"] for each in answer.json()["problems"]} == {
        *("in", "syslog_out.nix", "syslog_in.connections"),
    }
    bad = {"syslog_out": {"server": "x"}, "syslog_in": {"certificate": "rel.pem", "sites": {"a": "saaaaaaaaaaab"}}}
    fields = {each["field"] for each in door.http.put("/v1/syslog", json=bad).json()["problems"]}
    assert fields == {"syslog_out.server", "syslog_in.certificate", "syslog_in.sites"}


def test_what_cannot_be_listened_at_is_named(door: Door) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        body = {
            "settings": {"syslog_in": {"tcp": f"127.0.0.1:{port}", "tls": "192.0.2.77:6514", "certificate": "/nix"}}
        }
        links = door.http.post("/v1/syslog/try", json=body).json()["links"]
    said = {each["name"]: (each["ok"], each["came"]) for each in links}
    assert said[f"127.0.0.1:{port}"] == (False, f"port {port} is taken")
    assert said["192.0.2.77:6514"] == (False, "192.0.2.77 is no address of this machine")
    assert not said["certificate"][0] and "No such file" in said["certificate"][1]


def test_a_site_that_is_gone_gets_no_more_lines(door: Door) -> None:
    """What comes for its host belongs to the machine again; and what is set survives control."""
    (door.settings.logs / "own/control").mkdir(parents=True)
    site = door.site("blog")["id"]
    body = {"syslog_in": {"tcp": f"127.0.0.1:{free_port()}", "sites": {"web1": "blog"}}}
    found = door.http.put("/v1/syslog", json=body).json()
    assert found["syslog_in"]["sites"] == {"web1": "blog"} and found["received"].startswith("it has not begun")
    assert told(door).syslog_in.sites == {"web1": site}
    door.services._syslog_set = None
    assert door.services.syslog() == told(door), "read anew from the database"
    assert door.run("site", "stop", "blog").status == 0
    assert door.run("site", "destroy", "blog", "--yes").status == 0

    def forgotten() -> bool:
        door.services.tell_porter()
        return told(door).syslog_in.sites == {}

    until(forgotten)
    file = door.settings.logs / places.WANTED
    assert file.stat().st_mode & 0o777 == 0o640


def test_it_is_said_when_nobody_is_told_of_incidents(door: Door) -> None:
    """By the doctor and on the page of incidents, until a channel of whom runs the platform is for them."""

    def said() -> str:
        return next(str(each.came) for each in door.services.doctor(ROOT).links if each.name == "incidents")

    add(door, "ada", Role.ADMIN)
    add(door, "ana")
    with Browser(door) as ana, Visitor(door) as ada:
        ana.sign_in("ana")
        ada.sign_in("ada")
        assert "nobody of those who run this is told" in said()
        assert "Nobody of those who run this platform is told" in ada.get("/incidents").text
        made = ana.ask("POST", "/v1/channels", json={"name": "own", "kind": "feed"})
        assert made.status_code == 201 and News.INCIDENT in made.json()["events"], "new ones are for incidents"
        assert "nobody of those who run this is told" in said(), "an owner's channel tells of that owner's sites"
        mail = {"name": "post", "kind": "mail", "to": "ada@example.org", "whom": "ada"}
        assert door.http.post("/v1/channels", json=mail).status_code == 201
        assert "no mail server is set" in said()
        assert "Set a mail server" in ada.get("/incidents").text
        server = {"host": "localhost", "port": free_port(), "tls": "none", "sender": "a@example.org"}
        assert door.http.put("/v1/mail", json=server).status_code == 200
        assert said() == "operators and administrators, by one channel"
        assert "Nobody of those" not in ada.get("/incidents").text
