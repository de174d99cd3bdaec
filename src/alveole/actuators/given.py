"""Certificates that others have issued: an ACME authority, or whoever a person's own came from.

::

    S/certs/given/<digest>.pem          certificate, chain and key in one file, named by its content
    S/certs/given/names/<name>          link: whose certificate ``name`` has; ``_.example.org`` is ``*.example.org``
    S/certs/given/orders/<order>.key    the key of an order whose certificate is not there yet
    R/edge/acme/.well-known/…/<token>   what is answered to an authority that asks over HTTP

Which certificate a name has is a function of these files: its own link, else the wildcard's, else that of our
authority; one that is damaged or has expired is passed over. So nothing has to be remembered for a name never to be
without one, and a death between any two writes leaves the one before in service.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Collection, Iterable
from pathlib import Path

import msgspec

from alveole import wholefile
from alveole.agent.certifying import (
    CertificateSource,
    DropChallenge,
    DropOrder,
    InstallCertificate,
    KeepChallenge,
    RequestCertificate,
)
from alveole.config import Settings
from alveole.errors import InvalidInput, NotFound, Problem
from alveole.failpoints import hit
from alveole.host import paths
from alveole.trust.certs import covers, examine

#: As other files of certificates, from memory while the inode says that nothing has changed.
_VERDICT_SECONDS = 3600.0
_PREFIX = b"# alveole "
_MARK = b"# sha256="
#: A key whose certificate never came is forgotten after so long.
_ORDER_SECONDS = 30 * 86_400.0
_ORDERS_MOST = 20_000
FOLDER = "given"


class About(msgspec.Struct, frozen=True):
    """The first line of a file, as JSON."""

    names: tuple[str, ...]
    source: CertificateSource
    by: str
    issued: float
    expires: float


class Given:
    """Safe from several threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.folder = paths.certificates(settings) / FOLDER
        self._names = self.folder / "names"
        self._orders = self.folder / "orders"
        self._challenges = paths.edge(settings) / "acme" / ".well-known" / "acme-challenge"
        self._lock = threading.Lock()
        self._verdicts: dict[str, tuple[tuple[int, ...], float, About | str]] = {}

    # Looking ---------------------------------------------------------------------------------
    def best(self, name: str, *, own: bool = False) -> str | None:
        """The file (``given/<digest>.pem``) that ``name`` is to be shown; ``None``: that of our authority.

        ``own``: the wildcard's is not for it, for that is another site's.
        """
        now = time.time()
        for link in (_as_link(name), *(() if own else (f"_.{name.partition('.')[2]}",))):
            file = self._linked(link)
            about = self.about(file) if file else None
            if isinstance(about, About) and about.issued <= now < about.expires and _any_covers(about.names, name):
                return file
        return None

    def problem(self, file: str) -> str:
        """Why a file is not to be shown; empty: it may be."""
        about = self.about(file)
        if isinstance(about, str):
            return f"is damaged: {about}"
        return "has expired" if time.time() >= about.expires else ""

    def about(self, file: str) -> About | str:
        """What a file says of itself, or why it cannot be believed."""
        path = self.folder.parent / file
        try:
            status = path.stat()
        except OSError as error:
            return f"{error.strerror}"
        key = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        known = self._verdicts.get(file)
        if known and known[0] == key and time.monotonic() - known[1] < _VERDICT_SECONDS:
            return known[2]
        try:
            about = read(path.read_bytes())
        except OSError as error:
            return f"{error.strerror}"
        self._verdicts[file] = (key, time.monotonic(), about)
        return about

    def _linked(self, link: str) -> str | None:
        try:
            return f"{FOLDER}/{os.readlink(self._names / link).removeprefix('../')}"  # noqa: PTH115  a text, no path
        except OSError:
            return None

    # Orders ----------------------------------------------------------------------------------
    def request(self, wanted: RequestCertificate) -> str:
        """The request (PEM) to sign for an order; its key is made the first time."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
        from cryptography.hazmat.primitives.serialization import load_pem_private_key as load

        file = self._orders / f"{wanted.order}.key"
        with self._lock:
            if not file.exists():
                self._make_folders()
                self._forget_old_orders()
                made = ec.generate_private_key(ec.SECP256R1())
                wholefile.write(file, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            key = load(file.read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise InvalidInput("the key of this order is damaged", field="order", hint="order anew")
        hit("given.requested")
        request = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name([]))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in wanted.names]), critical=False)
            .sign(key, hashes.SHA256())
        )
        return request.public_bytes(Encoding.PEM).decode()

    def _forget_old_orders(self) -> None:
        files = list(self._orders.iterdir())
        if len(files) > _ORDERS_MOST:
            raise InvalidInput("too many orders are waiting", field="order")
        for file in files:
            with contextlib.suppress(OSError):
                if time.time() - file.stat().st_mtime > _ORDER_SECONDS:
                    file.unlink()

    def drop_order(self, wanted: DropOrder) -> None:
        (self._orders / f"{wanted.order}.key").unlink(missing_ok=True)

    # Keeping ---------------------------------------------------------------------------------
    def install(self, wanted: InstallCertificate) -> str:
        """Keep a certificate and make it that of ``wanted.names``; gives the file. Raises ``InvalidInput``."""
        if (wanted.order is None) == (wanted.key is None):
            raise InvalidInput("give the key, or the order that it is of", field="key")
        if len(wanted.by) > 100 or not wanted.by.isprintable():
            raise InvalidInput("is not printable, or too long", field="by")
        order = self._orders / f"{wanted.order}.key" if wanted.order is not None else None
        with self._lock:
            self._make_folders()
            key = wanted.key
            if key is None and order is not None:
                try:
                    key = order.read_text("ascii")
                except FileNotFoundError:
                    return self._installed_before(wanted)
            content = self._content(wanted, key or "")
            file = f"{hashlib.sha256(content).hexdigest()[:32]}.pem"
            target = self.folder / file
            if not target.exists():
                wholefile.write(target, content, mode=0o640, owner=(0, _edge_group(self._settings)))
            hit("given.kept")
            for name in wanted.names:
                _link(f"../{file}", self._names / _as_link(name))
            hit("given.linked")
            if order is not None:
                order.unlink(missing_ok=True)
        return f"{FOLDER}/{file}"

    def _content(self, wanted: InstallCertificate, key: str) -> bytes:
        found = examine(wanted.chain, key, roots=Path(os.devnull))
        problems = [*found.problems]
        for name in wanted.names:
            if found.names and not any(covers(each, name) or each == name for each in found.names):
                problems.append(Problem("names", f"the certificate is not for {name}"))
        if problems:
            raise InvalidInput(problems=problems)
        about = About(found.names, wanted.source, wanted.by, found.issued_at, found.expires_at)
        head = _PREFIX + msgspec.json.encode(about) + b"\n" + found.chain.encode() + key.strip().encode() + b"\n"
        return head + _MARK + hashlib.sha256(head).hexdigest().encode() + b"\n"

    def _installed_before(self, wanted: InstallCertificate) -> str:
        """The file whose key was the order's, when a death came between the end of it and the answer."""
        first = wanted.chain.strip().partition("-----END CERTIFICATE-----")[0].strip().encode()
        found = {self._linked(_as_link(name)) for name in wanted.names}
        if len(found) == 1 and (file := found.pop()) is not None:
            with contextlib.suppress(OSError):
                if first and first in (self.folder.parent / file).read_bytes():
                    return file
        raise NotFound("the key of this order is gone", field="order", hint="order anew")

    def drop(self, names: Iterable[str]) -> None:
        """The files stay until :meth:`sweep`: the edge may still show them."""
        with self._lock:
            for name in names:
                (self._names / _as_link(name)).unlink(missing_ok=True)

    def drop_own(self, name: str) -> None:
        """What somebody has uploaded goes with the name; what an authority gave to this machine may serve again."""
        file = self._linked(_as_link(name))
        about = self.about(file) if file else None
        if isinstance(about, About) and about.source is CertificateSource.OWN:
            self.drop((name,))

    def sweep(self, shown: Collection[str]) -> None:
        """Remove files that no name has any more and that are not among ``shown``."""
        with self._lock:
            if not self._names.is_dir():
                return
            used = {os.readlink(each.path).removeprefix("../") for each in os.scandir(self._names)}  # noqa: PTH115  likewise
            for file in self.folder.glob("*.pem"):
                if file.name not in used and f"{FOLDER}/{file.name}" not in shown:
                    file.unlink(missing_ok=True)
                    self._verdicts.pop(f"{FOLDER}/{file.name}", None)

    def _make_folders(self) -> None:
        group = _edge_group(self._settings)
        for folder, owner, mode in (
            (self.folder.parent, group, 0o710),
            (self.folder, group, 0o710),
            (self._names, 0, 0o700),
            (self._orders, 0, 0o700),
        ):
            folder.mkdir(parents=True, exist_ok=True)
            os.chown(folder, 0, owner)
            folder.chmod(mode)

    # Challenges ------------------------------------------------------------------------------
    def keep_challenge(self, wanted: KeepChallenge) -> None:
        for folder in (self._challenges.parent, self._challenges):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o755)
        wholefile.write(self._challenges / wanted.token, f"{wanted.token}.{wanted.thumbprint}".encode(), mode=0o644)

    def drop_challenge(self, wanted: DropChallenge) -> None:
        (self._challenges / wanted.token).unlink(missing_ok=True)


def read(content: bytes) -> About | str:
    """What the bytes of a file say of themselves, or why they are not to be believed. Pure."""
    head, found, checksum = content.rpartition(_MARK)
    if not found or checksum.strip() != hashlib.sha256(head).hexdigest().encode():
        return "its checksum does not fit"
    try:
        return msgspec.json.decode(head.partition(b"\n")[0].removeprefix(_PREFIX), type=About)
    except msgspec.DecodeError:
        return "it does not say what it is"


def without_key(content: str) -> str:
    """The chain of a file (PEM)."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    parts = [each.partition(end)[0] for each in content.split(begin)[1:]]
    return "".join(f"{begin}{each}{end}\n" for each in parts)


def _any_covers(names: tuple[str, ...], name: str) -> bool:
    return any(covers(each, name) for each in names)


def _as_link(name: str) -> str:
    return f"_{name[1:]}" if name.startswith("*.") else name


def _edge_group(settings: Settings) -> int:
    import pwd

    try:
        return pwd.getpwnam(settings.users.edge).pw_gid
    except KeyError:
        raise InvalidInput(f"there is no user {settings.users.edge!r}", field="users.edge", hint="make it") from None


def _link(text: str, link: Path) -> None:
    beside = link.parent.parent / f".link-{hashlib.sha256(link.name.encode()).hexdigest()[:16]}"
    beside.unlink(missing_ok=True)
    os.symlink(text, beside)  # noqa: PTH211  Path would normalise the text
    beside.replace(link)
