"""Modules from elsewhere: only what is pinned, signed and sound is ever kept."""

from __future__ import annotations

import hashlib
import io
import ssl
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from controlkit import READER, ROOT, Control, make_settings
from modulekit import write_module

from alveole import origins
from alveole import requests as ask
from alveole.errors import AlveoleError, Denied, InvalidInput, NotFound, Refused
from alveole.model.change import Change, ChangeState
from alveole.people.model import Actor, Role
from alveole.testing import FakeAgent
from alveole.unpacking import MOST_BYTES, tree_of

SIGNER = "anna@example.org"


def run(*argv: str, cwd: Path | None = None, **more: Any) -> str:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Author:
    """Somebody with a key, who may sign or may not."""

    def __init__(self, top: Path, name: str = SIGNER) -> None:
        self.top, self.name, self.key = top, name, top / f"key-{name.partition('@')[0]}"
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(self.key))

    @property
    def line(self) -> str:
        return f"{self.name} {self.key.with_suffix('.pub').read_text().strip()}\n"

    def sign(self, file: Path, namespace: str = origins.NAMESPACE) -> str:
        signature = file.with_name(f"{file.name}.sig")
        signature.unlink(missing_ok=True)
        run("ssh-keygen", "-q", "-Y", "sign", "-f", str(self.key), "-n", namespace, str(file))
        return signature.read_text()

    def repository(self, modules: Path, *, signed: bool = True) -> tuple[Path, str]:
        """A git repository with these modules, and the id of its commit."""
        place = self.top / "repository"
        if not place.exists():
            run("git", "init", "-q", str(place))
        run("cp", "-a", f"{modules}/.", str(place))
        settings = [
            "-c", f"user.name={self.name}", "-c", f"user.email={self.name}", "-c", "gpg.format=ssh",
            "-c", f"user.signingkey={self.key}", "-c", f"commit.gpgsign={str(signed).lower()}",
        ]  # fmt: skip # an option beside its value
        run("git", *settings, "add", "-A", cwd=place)
        run("git", *settings, "commit", "-q", "--allow-empty", "-m", "modules", cwd=place)
        return place, run("git", "rev-parse", "HEAD", cwd=place)


@pytest.fixture
def author(directory: Path) -> Author:
    return Author(directory)


@pytest.fixture
def control(directory: Path, author: Author) -> Iterator[Control]:
    signers = directory / "signers"
    signers.write_text(f"# who may sign\n{author.line}")
    (directory / "own").mkdir()
    settings = make_settings(directory, modules={"directory": str(directory / "own"), "signers": str(signers)})
    made = Control(settings, FakeAgent())
    yield made
    made.services.close()


@pytest.fixture
def modules(directory: Path) -> Path:
    top = directory / "theirs"
    write_module(top, "forum")
    write_module(top, "gallery", content="<h1>pictures</h1>")
    return top


def packed(modules: Path, name: str = "theirs.tar.gz", under: str = "") -> Path:
    archive = modules.parent / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(archive, "w") as out:
            for file in sorted(modules.rglob("*")):
                out.write(file, f"{under}{file.relative_to(modules)}")
    else:
        with tarfile.open(archive, "w:gz") as out:
            out.add(modules, under or ".")
    return archive


def digest(file: Path) -> str:
    return f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"


def add(
    control: Control, archive: Path, signature: str | None, state: ChangeState = ChangeState.DONE, **more: Any
) -> Change:
    fields = {"source": str(archive), "pin": digest(archive), "name": "theirs", **more}
    upload = control.upload(archive.read_bytes())
    request = ask.AddSource(signature=signature, upload=upload, **fields)
    return control.done(control.services.add_source(ROOT, request), state)


def nothing_kept(control: Control) -> None:
    place = control.settings.module_sources
    assert not place.exists() or list(place.iterdir()) == []
    assert control.services.list_sources(ROOT) == ()
    assert not list((control.settings.database.parent / "uploads").iterdir())


# --- archives -----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["theirs.tar.gz", "theirs.zip"])
@pytest.mark.parametrize("under", ["", "theirs-1.0/"])
def test_a_signed_archive_is_added(control: Control, author: Author, modules: Path, name: str, under: str) -> None:
    archive = packed(modules, name, under)
    ended = add(control, archive, author.sign(archive))
    assert ended.result["modules"] == "forum, gallery" and ended.result["signer"] == SIGNER
    (source,) = control.services.list_sources(READER)
    assert (source.name, source.pin, source.signer) == ("theirs", digest(archive), SIGNER)
    assert source.modules == ("forum", "gallery") and source.problem == ""
    assert control.services.show_module(READER, "gallery").origin == "theirs"
    request = ask.CreateSite(name="pics", modules=("gallery",), answers={"title": "x"})
    control.done(control.services.create_site(ROOT, request))
    assert control.show("pics").release is not None
    with pytest.raises(Refused, match="made of its modules: pics"):
        control.services.remove_source(ROOT, "theirs")


def test_the_top_of_an_archive_may_be_a_module(control: Control, author: Author, modules: Path) -> None:
    archive = packed(modules / "forum")
    add(control, archive, author.sign(archive), name="one")
    assert control.services.list_sources(ROOT)[0].modules == ("forum",)
    control.services.remove_source(ROOT, "one")
    nothing_kept(control)
    with pytest.raises(NotFound):
        control.services.remove_source(ROOT, "one")


def test_a_source_changes_only_on_demand(control: Control, author: Author, modules: Path) -> None:
    archive = packed(modules)
    add(control, archive, author.sign(archive))
    before = control.services.show_module(ROOT, "forum").digest
    page = modules / "forum/templates/page.ini"
    page.write_text(page.read_text() + "more = 1\n")
    archive = packed(modules)
    assert control.services.show_module(ROOT, "forum").digest == before
    # A change that is refused leaves what was there.
    add(control, archive, author.sign(archive), ChangeState.FAILED, pin=f"sha256:{'0' * 64}")
    assert control.services.show_module(ROOT, "forum").digest == before
    add(control, archive, author.sign(archive))
    assert control.services.show_module(ROOT, "forum").digest != before


def test_another_digest_is_refused(control: Control, author: Author, modules: Path) -> None:
    archive = packed(modules)
    signature = author.sign(archive)
    ended = add(control, archive, signature, ChangeState.FAILED, pin=f"sha256:{'0' * 64}")
    assert "another digest" in ended.problems[0].message and ended.problems[0].field == "pin"
    nothing_kept(control)


def test_only_those_may_sign_that_the_settings_name(control: Control, author: Author, modules: Path) -> None:
    archive = packed(modules)
    stranger = Author(author.top, "mallory@example.org")
    for signature in (
        stranger.sign(archive),
        author.sign(archive, "file"),
        author.sign(modules / "forum/module.toml"),
        "-----BEGIN SSH SIGNATURE-----\nU1NIU0lH\n-----END SSH SIGNATURE-----\n",
    ):
        ended = add(control, archive, signature, ChangeState.FAILED)
        assert "signed" in ended.problems[0].message, ended.problems
        nothing_kept(control)
    Path(control.settings.modules.signers).unlink()
    ended = add(control, archive, author.sign(archive), ChangeState.FAILED)
    assert "nobody is known" in ended.problems[0].message


def test_a_module_that_is_not_sound_is_refused_with_all_that_is_wrong(
    control: Control, author: Author, modules: Path
) -> None:
    with (modules / "forum/module.toml").open("a") as file:
        file.write('\n[[file]]\npath = "x/y.ini"\ntemplate = "none"\n[[question]]\nname = "q"\n')
    archive = packed(modules)
    ended = add(control, archive, author.sign(archive), ChangeState.FAILED)
    assert len(ended.problems) > 1 and all("forum/module.toml" in each.field for each in ended.problems)
    nothing_kept(control)


def test_no_module_takes_the_name_of_another(control: Control, author: Author, directory: Path) -> None:
    top = directory / "evil"
    write_module(top, "redis")
    archive = packed(top, "evil.tar.gz")
    ended = add(control, archive, author.sign(archive), ChangeState.FAILED)
    assert "is the name of a module of alveole" in str(ended.problems)
    nothing_kept(control)


def test_a_request_is_checked_before_anything_is_fetched(control: Control, modules: Path) -> None:
    """Threat 13: options, shells and paths in disguise."""
    services, signature = control.services, "-----BEGIN SSH SIGNATURE-----\n"
    commit, archive = "0" * 40, f"sha256:{'0' * 64}"
    wrong: list[dict[str, Any]] = [
        {"source": "--upload-pack=touch /tmp/x", "pin": commit},
        {"source": "ext::sh -c id", "pin": commit},
        {"source": "http://example.org/x.tar.gz", "pin": archive},
        {"source": "git@example.org:x.git", "pin": commit},
        {"source": "https://user:secret@example.org/x.git", "pin": commit},
        {"source": "https://example.org/x.git", "pin": "main"},
        {"source": "https://example.org/x.git", "pin": "0" * 39},
        {"source": "https://example.org/x.git", "pin": commit, "signature": signature},
        {"source": "https://example.org/$(id).git", "pin": commit},
        {"source": "https://-oX/x.git", "pin": commit},
        {"source": "https://example.org/x.git;id", "pin": commit},
        {"source": "/etc/../etc/x", "pin": commit},
        {"source": "https://example.org/x.tar.gz", "pin": archive, "signature": "nonsense"},
        {"source": "https://example.org/x.git", "pin": commit, "name": "../x"},
    ]
    for fields in wrong:
        with pytest.raises(InvalidInput) as caught:
            services.add_source(ROOT, ask.AddSource(**fields))
        assert "secret" not in str(caught.value), "a password is not repeated"
    with pytest.raises(InvalidInput, match="only root"):
        services.add_source(Actor("t", Role.ADMIN, "token:t"), ask.AddSource(source="/srv/x", pin=commit))
    with pytest.raises(Denied):
        services.add_source(READER, ask.AddSource(source="https://example.org/x.git", pin=commit))


# --- git ----------------------------------------------------------------------------------------
def test_a_signed_commit_is_added(control: Control, author: Author, modules: Path) -> None:
    place, commit = author.repository(modules)
    request = ask.AddSource(source=str(place), pin=commit, name="git")
    ended = control.done(control.services.add_source(ROOT, request))
    assert ended.result["signer"] == SIGNER
    (source,) = control.services.list_sources(ROOT)
    assert (source.pin, source.modules) == (commit, ("forum", "gallery"))
    # The branch goes on; the source does not.
    (modules / "forum/README.md").write_text("more")
    author.repository(modules)
    assert control.services.list_sources(ROOT)[0].pin == commit


def test_a_commit_needs_a_signature_of_its_own(control: Control, author: Author, modules: Path) -> None:
    place, commit = author.repository(modules, signed=False)
    ended = control.done(
        control.services.add_source(ROOT, ask.AddSource(source=str(place), pin=commit)), ChangeState.FAILED
    )
    assert "not signed" in ended.problems[0].message
    stranger = Author(author.top, "mallory@example.org")
    place, commit = stranger.repository(modules)
    ended = control.done(
        control.services.add_source(ROOT, ask.AddSource(source=str(place), pin=commit)), ChangeState.FAILED
    )
    assert "not signed by anybody" in ended.problems[0].message
    gone = control.services.add_source(ROOT, ask.AddSource(source=str(place), pin="0" * 40))
    assert "git failed" in control.done(gone, ChangeState.FAILED).problems[0].message
    place_ = control.settings.module_sources
    assert list(place_.iterdir()) == []


def test_a_signature_of_another_commit_does_not_fit(author: Author, modules: Path, directory: Path) -> None:
    place, commit = author.repository(modules)
    raw = subprocess.run(["git", "cat-file", "commit", commit], cwd=place, capture_output=True, check=True).stdout
    payload, signature = origins.take_signature(raw)
    assert b"gpgsig" not in payload and signature.startswith("-----BEGIN SSH SIGNATURE-----")
    signers = directory / "allowed"
    signers.write_text(author.line)
    good, bad = directory / "good", directory / "bad"
    good.write_bytes(payload)
    bad.write_bytes(payload.replace(b"modules", b"Modules"))
    with good.open("rb") as file:
        assert origins.verify(file.fileno(), signature, signers, "git", directory) == SIGNER
    with bad.open("rb") as file, pytest.raises(Refused):
        origins.verify(file.fileno(), signature, signers, "git", directory)


# --- hostile archives ---------------------------------------------------------------------------
def _tar(*entries: tuple[str, bytes, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, kind, content in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.size = kind, len(content)
            entry.linkname = "/etc/passwd"
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def _zip(name: str, content: bytes, mode: int = 0o100644) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        entry.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(entry, content)
    return out.getvalue()


HOSTILE: dict[str, Callable[[], bytes]] = {
    "climbs": lambda: _tar(("a/../../x", tarfile.REGTYPE, b"x")),
    "absolute": lambda: _tar(("/tmp/x", tarfile.REGTYPE, b"x")),
    "symlink": lambda: _tar(("x", tarfile.SYMTYPE, b"")),
    "hardlink": lambda: _tar(("x", tarfile.LNKTYPE, b"")),
    "device": lambda: _tar(("x", tarfile.CHRTYPE, b"")),
    "fifo": lambda: _tar(("x", tarfile.FIFOTYPE, b"")),
    "twice": lambda: _tar(("x", tarfile.REGTYPE, b"1"), ("x", tarfile.REGTYPE, b"2")),
    "through-a-file": lambda: _tar(("x", tarfile.REGTYPE, b"1"), ("x/y", tarfile.REGTYPE, b"2")),
    "repository": lambda: _tar((".git/config", tarfile.REGTYPE, b"1")),
    "deep": lambda: _tar(("/".join("a" * 20), tarfile.REGTYPE, b"1")),
    "control-character": lambda: _tar(("a\x1b[2J", tarfile.REGTYPE, b"1")),
    "zip-climbs": lambda: _zip("../x", b"x"),
    "zip-link": lambda: _zip("x", b"/etc/passwd", 0o120777),
    "zip-device": lambda: _zip("x", b"", 0o020666),
    "zip-backslash": lambda: _zip("a\\..\\x", b"x"),
    "zip-bomb": lambda: _zip("x", bytes(MOST_BYTES + 1)),
    "bomb": lambda: _tar(("x", tarfile.REGTYPE, bytes(MOST_BYTES + 1))),
    "many": lambda: _tar(*((f"f{number}", tarfile.REGTYPE, b"") for number in range(4_100))),
    "cut": lambda: _tar(("x", tarfile.REGTYPE, bytes(100_000)))[:-20],
    "neither": lambda: b"hello",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_archives_are_refused(directory: Path, kind: str) -> None:
    """Threat 8, for control's own archives."""
    archive, target = directory / "archive", directory / "in" / "target"
    archive.write_bytes(HOSTILE[kind]())
    target.mkdir(parents=True)
    with pytest.raises(Refused):
        tree_of(archive, "", target)
    assert [each.name for each in target.parent.iterdir()] == ["target"]
    assert not any(each.is_symlink() for each in target.rglob("*"))


# --- the network --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("10.0.0.1", False),
        ("127.0.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),  # noqa: S104  an address to be refused
        ("224.0.0.1", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::a00:1", False),
        ("64:ff9b::5db8:d70e", True),
        ("2002:a00:1::", False),
    ],
)
def test_only_public_addresses_are_connected_to(address: str, public: bool) -> None:
    """Threat 18."""
    assert origins.is_public(address) is public


def test_names_that_lead_inside_are_refused(control: Control) -> None:
    """Threat 18: also as a literal."""
    with pytest.raises(Refused, match="not a public address"):
        origins.public_addresses("localhost", 443)
    request = ask.AddSource(source="https://127.0.0.1/x.tar.gz", pin=f"sha256:{'0' * 64}")
    ended = control.done(control.services.add_source(ROOT, request), ChangeState.FAILED)
    assert "not a public address" in ended.problems[0].message
    request = ask.AddSource(source="https://127.0.0.1/x.git", pin="0" * 40)
    ended = control.done(control.services.add_source(ROOT, request), ChangeState.FAILED)
    assert "not a public address" in ended.problems[0].message


@pytest.fixture
def server(directory: Path) -> Iterator[tuple[int, ssl.SSLContext]]:
    """An HTTPS server of the name ``modules.example.org``, on loopback."""
    key, certificate = directory / "tls.key", directory / "tls.pem"
    run(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
        "-keyout", str(key), "-out", str(certificate), "-subj", "/CN=modules.example.org",
        "-addext", "subjectAltName=DNS:modules.example.org",
    )  # fmt: skip # an option beside its value

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", "https://169.254.169.254/")
                self.end_headers()
                return
            if self.path != "/good":
                self.send_error(404)
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"x" * 1000)

        def log_message(self, *_args: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    trust = ssl.create_default_context(cafile=str(certificate))
    yield int(httpd.server_address[1]), trust
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_a_download_goes_to_the_address_that_was_looked_at(server: tuple[int, ssl.SSLContext], directory: Path) -> None:
    """Threat 18: no redirect, no second look-up; the certificate must still be the name's."""
    port, trust = server
    base = f"https://modules.example.org:{port}"
    asked: list[str] = []

    def resolve(host: str, _port: int) -> tuple[str, ...]:
        asked.append(host)
        return ("127.0.0.1",)

    def get(path: str, most: int = 10_000, context: ssl.SSLContext | None = trust, base: str = base) -> bytes:
        target = directory / "got"
        target.unlink(missing_ok=True)
        origins.download(f"{base}{path}", target, most, resolve=resolve, context=context)
        return target.read_bytes()

    assert get("/good") == b"x" * 1000 and asked == ["modules.example.org"]
    with pytest.raises(Refused, match="leads elsewhere"):
        get("/moved")
    with pytest.raises(Refused, match="404"):
        get("/none")
    with pytest.raises(Refused, match="larger"):
        get("/good", most=999)
    with pytest.raises(Refused, match="no certificate to trust"):
        get("/good", context=None)
    with pytest.raises(Refused, match="no certificate to trust"):
        get("/good", base=f"https://other.example.org:{port}")
    with pytest.raises(AlveoleError):
        origins.download(f"{base}/good", directory / "other", 10_000, context=trust)
