"""Certificates: an authority of our own, one file a domain, one link a name for the edge.

::

    S/ca/key.pem, S/ca/cert.pem       the authority, made once
    S/certs/<domain>.pem              certificate, authority and key in one file
    S/certs/given/…                   what others have issued, which goes first (:mod:`alveole.actuators.given`)
    R/edge/certs/<name>.pem           link: what the edge serves for the name
    R/edge/owners/<name>              link whose text is "scope=… stamp=… file=…": whose it is

The edge finds a certificate by the name of its link, so an unknown name has none. Files do not know
whose they are; the owner's link does, and is written last and removed last, so that a step killed
half-way is seen. A file carries its dates and a SHA-256 of itself as text around its PEM blocks:
looking at ten thousand of them needs no cryptography.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import ipaddress
import os
import pwd
import re
import secrets
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from alveole import wholefile
from alveole.actuators.given import FOLDER, About, Given, without_key
from alveole.actuators.linktable import LinkTable
from alveole.agent import certifying as ask
from alveole.agent.certifying import CertificateSource, CertificateState
from alveole.backends.base import Say, quiet
from alveole.config import Settings
from alveole.errors import AlveoleError, InvalidInput, NotFound, StepFailed
from alveole.host import paths
from alveole.model.names import ANY_DOMAIN
from alveole.model.resource import (
    Action,
    CertificateSpec,
    Defect,
    Kind,
    Observation,
    Observed,
    Outcome,
    ResourceId,
    Step,
)

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

#: The longest of Mozilla's intermediate profile; clients refuse those of more than 398 (CA/Browser Forum 6.3.2).
LEAF_DAYS = 366
AUTHORITY_DAYS = 3653
#: Machines whose clocks are a little behind must not find a new certificate too young.
BACKDATE_SECONDS = 24 * 3600
#: A verdict on a file is looked up again after this time even if nothing says that it changed.
VERDICT_SECONDS = 3600.0

_HEADER = re.compile(r"# alveole domain=(\S+) issued=(\d+) expires=(\d+) authority=([0-9a-f]{16})\n")
_OWNER = re.compile(r"scope=(\S+) stamp=(\S*) file=(\S+)\Z")


def _scope_of(_name: str, text: str) -> str | None:
    found = _OWNER.match(text)
    return found[1] if found else None


class FileVerdict(msgspec.Struct, frozen=True):
    """What a file is worth. ``renew_at`` and ``expires_at`` in seconds since the epoch."""

    damage: str = ""
    authority: str = ""
    renew_at: float = 0.0
    expires_at: float = 0.0


class CertificatesActuator:
    """Actuator of :attr:`Kind.CERTIFICATE`."""

    kinds = frozenset({Kind.CERTIFICATE})

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._files = paths.certificates(settings)
        self._links = paths.edge_certificates(settings)
        self._owners = paths.edge(settings) / "owners"
        self._table = LinkTable(self._owners, _scope_of)
        self._making = threading.Lock()
        self._linking = threading.Lock()
        self.given = Given(settings)
        self._verdicts: dict[str, tuple[tuple[int, ...], float, FileVerdict]] = {}

    # Looking ---------------------------------------------------------------------------------

    def observe(self, scopes: Collection[str] | None = None) -> Observation:
        """Every certificate the edge has a name for (in ``scopes``), with what is wrong with its file."""
        found: list[Observed] = []
        looked_at: dict[str, tuple[Defect, ...]] = {}
        try:
            authority = self._authority_mark()
            entries = list(self._table.read(scopes))
        except FileNotFoundError:
            return Observation(())
        except (OSError, AlveoleError) as error:
            return Observation((), ((Kind.CERTIFICATE, str(error)),))
        for name, _scope, text in entries:
            owner = _OWNER.match(text)
            if owner is None:
                continue
            scope, stamp, file = owner.groups()
            given = self._best(name, scope)
            defects: tuple[Defect, ...]
            if given is not None:
                defects = () if given == file else (Defect("other", f"another certificate of {name} is there"),)
            elif file.startswith(f"{FOLDER}/"):
                defects = (Defect("over", f"the certificate of {name} {self._why_over(file)}"),)
            else:
                if file not in looked_at:
                    looked_at[file] = self._defects(file, authority)
                defects = looked_at[file]
            if self._linked(name) != str(self._files / file):
                defects = (Defect("link-missing", f"the edge has lost the certificate of {name}"), *defects)
            detail = self._life(file)
            id = ResourceId(Kind.CERTIFICATE, scope, name)
            found.append(Observed(id, stamp, not defects, defects, detail=detail))
        return Observation(tuple(found))

    def _life(self, file: str) -> dict[str, str | int | float]:
        if not file.startswith(f"{FOLDER}/"):
            return {"expires": self.verdict(file).expires_at}
        about = self.given.about(file)
        return {} if isinstance(about, str) else {"issued": about.issued, "expires": about.expires}

    def _linked(self, name: str) -> str | None:
        try:
            return os.readlink(self._links / f"{name}.pem")  # noqa: PTH115  Path would normalise the text
        except OSError:
            return None

    def _defects(self, file: str, authority: str) -> tuple[Defect, ...]:
        verdict = self.verdict(file)
        domain = file.removesuffix(".pem")
        if verdict.damage:
            return (Defect("damaged", f"the certificate of {domain} is damaged: {verdict.damage}"),)
        if verdict.authority != authority:
            return (Defect("changed", f"the certificate of {domain} is from another authority"),)
        now = time.time()
        if now >= verdict.expires_at:
            return (Defect("expired", f"the certificate of {domain} has expired"),)
        if now >= verdict.renew_at:
            return (Defect("expiring", f"two thirds of the life of the certificate of {domain} are over"),)
        return ()

    def _why_over(self, file: str) -> str:
        return self.given.problem(file) or "was taken away"

    def verdict(self, file: str) -> FileVerdict:
        """What ``S/certs/<file>`` is worth, from memory while its inode says that nothing changed."""
        path = self._files / file
        try:
            status = path.stat()
        except OSError as error:
            return FileVerdict(f"{error.strerror}")
        # ctime cannot be set by whoever puts mtime back.
        key = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        known = self._verdicts.get(file)
        if known and known[0] == key and time.monotonic() - known[1] < VERDICT_SECONDS:
            return known[2]
        try:
            verdict = judge(path.read_bytes(), file.removesuffix(".pem"))
        except OSError as error:
            return FileVerdict(f"{error.strerror}")
        self._verdicts[file] = (key, time.monotonic(), verdict)
        return verdict

    # Acting ----------------------------------------------------------------------------------

    def apply(self, step: Step, say: Say = quiet) -> Outcome:
        begun = time.monotonic()
        try:
            # The names right below the main domain are sites': their certificate is the main domain's.
            if not re.match(ANY_DOMAIN, step.id.name) or step.id.name == f"*.{self._settings.domain}":
                raise InvalidInput(f"{step.id.name!r} is not a domain name")
            if step.action is Action.DELETE:
                self._delete(step.id)
            elif not isinstance(step.spec, CertificateSpec):
                raise InvalidInput(f"{step.action} {step.id} needs its specification", field="step.spec")
            else:
                self._write(step.id, step.spec, step.digest, say)
        except InvalidInput as error:
            return Outcome(False, str(error), False, time.monotonic() - begun)
        except (OSError, ValueError, AlveoleError) as error:
            return Outcome(False, str(error), True, time.monotonic() - begun)
        return Outcome(True, seconds=time.monotonic() - begun)

    def _write(self, certificate: ResourceId, spec: CertificateSpec, stamp: str, say: Say) -> None:
        name = certificate.name
        shared = spec.wildcard and self._wildcard_counts(name)
        file = self._best(name, certificate.scope) or self._own_file(self._settings.domain if shared else name, say)
        with self._linking:
            self._point(name, certificate.scope, stamp, file)

    def _own_file(self, domain: str, say: Say) -> str:
        """The file of our own authority for a domain, issued when there is none that is sound."""
        file = f"{domain}.pem"
        if self._defects(file, self._authority_mark(make=True)):
            self._issue(domain, say)
        return file

    def _point(self, name: str, scope: str, stamp: str, file: str) -> None:
        """Have the edge show ``file`` from the next handshake on; what went before it goes."""
        self._links.mkdir(parents=True, exist_ok=True)
        self._owners.mkdir(parents=True, exist_ok=True)
        previous = self._owner(name)
        _link(str(self._files / file), self._links / f"{name}.pem")
        with self._table.changing(name, scope):
            _link(f"scope={scope} stamp={stamp} file={file}", self._owners / name)
        if previous and previous[2] != file:
            self._drop_file(previous[2])

    def _best(self, name: str, scope: str) -> str | None:
        """As :meth:`Given.best`: what one site has for all names below a domain is not shown for a name of another."""
        above = self._owner(f"*.{name.partition('.')[2]}")
        return self.given.best(name, own=above is not None and above[0] != scope)

    def _wildcard_counts(self, name: str) -> bool:
        # OpenSSL and GnuTLS ignore a wildcard right below a top-level domain, *.localhost too: then
        # each name needs a certificate of its own.
        domain = self._settings.domain
        return "." in domain and name.endswith(f".{domain}") and "." not in name.removesuffix(f".{domain}")

    def _delete(self, certificate: ResourceId) -> None:
        owner = self._owner(certificate.name)
        if owner is None or owner[0] != certificate.scope:
            return
        (self._links / f"{certificate.name}.pem").unlink(missing_ok=True)
        if owner[2] == f"{certificate.name}.pem":
            self._drop_file(owner[2])
        self.given.drop_own(certificate.name)
        with self._table.changing(certificate.name, None):
            (self._owners / certificate.name).unlink(missing_ok=True)

    def _owner(self, name: str) -> tuple[str, str, str] | None:
        try:
            found = _OWNER.match(os.readlink(self._owners / name))  # noqa: PTH115  likewise
        except OSError:
            return None
        return (found.group(1), found.group(2), found.group(3)) if found else None

    def _drop_file(self, file: str) -> None:
        # The platform's file may be the wildcard of many; it only goes with the platform itself. What others have
        # issued goes when no name is linked to it.
        if not file.startswith(f"{FOLDER}/") and file != f"{self._settings.domain}.pem":
            (self._files / file).unlink(missing_ok=True)
            self._verdicts.pop(file, None)

    def _issue(self, domain: str, say: Say) -> None:
        say(f"issuing a certificate for {domain}", None)
        group = _edge_group(self._settings)
        self._files.mkdir(parents=True, exist_ok=True)
        os.chown(self._files, 0, group)
        self._files.chmod(0o710)
        target = self._files / f"{domain}.pem"
        if target.exists() and self.verdict(target.name).damage:
            # Set aside for whoever wants to know what happened; readable by root only.
            aside = target.with_name(f"{domain}.damaged")
            target.replace(aside)
            os.chown(aside, 0, 0)
            aside.chmod(0o600)
        text = issue(self._settings.domain, domain, self._load_authority())
        wholefile.write(target, text, mode=0o640, owner=(0, group))

    # What others have issued -----------------------------------------------------------------

    def install(self, wanted: ask.InstallCertificate) -> str:
        """Keep a certificate and show it at once for what names of its are here. Raises ``InvalidInput``."""
        file = self.given.install(wanted)
        self._point_all(wanted.names)
        return file

    def drop(self, wanted: ask.DropCertificate) -> None:
        """Names go back to what there is besides, which is issued first where it is not there."""
        self.given.drop(wanted.names)
        self._point_all(wanted.names)

    def _point_all(self, changed: Collection[str]) -> None:
        for name in self._named(changed):
            owner = self._owner(name)
            if owner is None:
                continue
            file = self._best(name, owner[0])
            if file is None and owner[2].startswith(f"{FOLDER}/"):
                shared = self._wildcard_counts(name) and not self.verdict(f"{self._settings.domain}.pem").damage
                file = self._own_file(self._settings.domain if shared else name, quiet)
            with self._linking:
                if file is not None and file != owner[2]:
                    self._point(name, owner[0], owner[1], file)
        # Only now: what is removed was shown until then.
        owners = (self._owner(each.name) for each in os.scandir(self._owners)) if self._owners.is_dir() else ()
        self.given.sweep({owner[2] for owner in owners if owner is not None})

    def _named(self, changed: Collection[str]) -> list[str]:
        """The names here that a change of the certificates of ``changed`` is about."""
        found = [name for name in changed if not name.startswith("*.")]
        below = {name.removeprefix("*.") for name in changed if name.startswith("*.")}
        if below:
            with contextlib.suppress(FileNotFoundError):
                found += [each.name for each in os.scandir(self._owners) if each.name.partition(".")[2] in below]
        return list(dict.fromkeys(found))

    def all(self) -> tuple[CertificateState, ...]:
        """One for each name, by name."""
        try:
            entries = sorted(each.name for each in os.scandir(self._owners))
        except FileNotFoundError:
            return ()
        found = []
        for name in entries:
            owner = self._owner(name)
            if owner is not None:
                found.append(self._state(name, owner[0], owner[2]))
        return tuple(found)

    def _state(self, name: str, scope: str, file: str) -> CertificateState:
        if not file.startswith(f"{FOLDER}/"):
            verdict = self.verdict(file)
            names = (name,) if file == f"{name}.pem" else (self._settings.domain, f"*.{self._settings.domain}")
            issued = verdict.expires_at - LEAF_DAYS * 86_400 if verdict.expires_at else 0.0
            return CertificateState(
                name, scope, CertificateSource.INTERNAL, file, "", names, issued, verdict.expires_at, verdict.damage
            )
        about = self.given.about(file)
        if not isinstance(about, About):
            return CertificateState(name, scope, CertificateSource.OWN, file, problem=about)
        return CertificateState(
            name,
            scope,
            about.source,
            file,
            about.by,
            about.names,
            about.issued,
            about.expires,
            self.given.problem(file),
        )

    def show(self, wanted: ask.ShowCertificate) -> str:
        """The chain that is shown for a name (PEM). Raises ``NotFound``."""
        owner = self._owner(wanted.name)
        try:
            return without_key((self._files / owner[2]).read_text("utf-8")) if owner else _absent(wanted.name)
        except OSError:
            return _absent(wanted.name)

    def given_chain(self, name: str) -> str:
        """The chain (PEM) that others have issued and ``name`` is to show; empty: it is our authority's."""
        owner = self._owner(name)
        file = self._best(name, owner[0] if owner else "")
        with contextlib.suppress(OSError):
            return without_key((self._files / file).read_text("utf-8")) if file else ""
        return ""

    # The authority ---------------------------------------------------------------------------

    def authority_pem(self) -> str:
        """The certificate of the internal authority (PEM). Raises ``NotFound`` before it was made."""
        try:
            return (paths.authority(self._settings) / "cert.pem").read_text("ascii")
        except FileNotFoundError:
            raise NotFound("there is no authority yet", hint="it is made with the first certificate") from None

    def _authority_mark(self, make: bool = False) -> str:
        """Sixteen hex digits that name the authority; makes it when ``make``."""
        directory = paths.authority(self._settings)
        # Steps of several sites run at a time, and there must be one authority.
        with self._making:
            try:
                return _mark((directory / "cert.pem").read_bytes())
            except FileNotFoundError:
                if not make:
                    return ""
            self._make_authority(directory)
            return _mark((directory / "cert.pem").read_bytes())

    def _make_authority(self, directory: Path) -> None:
        """A new authority, whole or not at all: the certificate is put in place after the key."""
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o700)
        key, certificate = make_authority(self._settings.domain)
        wholefile.write(directory / "key.pem", key)
        wholefile.write(directory / "cert.pem", certificate)

    def _load_authority(self) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate, str]:
        """Raises ``StepFailed`` when what is there is damaged: clients trust it, so it is never replaced unasked."""
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        directory = paths.authority(self._settings)
        try:
            whole = (directory / "cert.pem").read_bytes()
            certificate = x509.load_pem_x509_certificate(whole)
            key = load_pem_private_key((directory / "key.pem").read_bytes(), None)
            certificate.verify_directly_issued_by(certificate)
            if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
                raise ValueError("the key is not the certificate's")
        except Exception as error:
            raise StepFailed(
                f"the authority in {directory} is damaged: {error or type(error).__name__}",
                hint="put key.pem and cert.pem back, or remove both: a new one is made and has to be trusted anew",
            ) from error
        return key, certificate, _mark(whole)


def certifying(certificates: CertificatesActuator) -> dict[type, Callable[[Any, list[int], Say], Any]]:
    """What carries out each request of :mod:`alveole.agent.certifying`."""
    given = certificates.given
    return {
        ask.ListCertificates: lambda _r, _f, _s: certificates.all(),
        ask.ShowCertificate: lambda r, _f, _s: certificates.show(r),
        ask.RequestCertificate: lambda r, _f, _s: given.request(r),
        ask.InstallCertificate: lambda r, _f, _s: certificates.install(r),
        ask.DropCertificate: lambda r, _f, _s: certificates.drop(r),
        ask.DropOrder: lambda r, _f, _s: given.drop_order(r),
        ask.KeepChallenge: lambda r, _f, _s: given.keep_challenge(r),
        ask.DropChallenge: lambda r, _f, _s: given.drop_challenge(r),
    }


def _absent(name: str) -> str:
    raise NotFound(f"there is no certificate for {name}", field="name", hint="see: alveole cert list")


def judge(content: bytes, domain: str) -> FileVerdict:
    """What the bytes of a certificate file of ours are worth. Pure."""
    head, found, checksum = content.rpartition(b"# sha256=")
    if not found or checksum.strip() != hashlib.sha256(head).hexdigest().encode():
        return FileVerdict("its checksum does not fit")
    header = _HEADER.match(head[:1024].decode("ascii", "replace"))
    if header is None or header.group(1) != domain:
        return FileVerdict("it is another domain's")
    issued, expires = int(header.group(2)), int(header.group(3))
    return FileVerdict("", header.group(4), issued + (expires - issued) * 2 / 3, expires)


def issue(main: str, domain: str, authority: tuple[ec.EllipticCurvePrivateKey, x509.Certificate, str]) -> bytes:
    """A new key and certificate for ``domain``, as the content of its file.

    The one for the ``main`` domain is valid for all names below it too, and for this machine's own
    addresses when it is ``localhost``.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    signing, issuer, mark = authority
    key = ec.generate_private_key(ec.SECP256R1())
    names: list[x509.GeneralName] = [x509.DNSName(domain)]
    if domain == main:
        names.append(x509.DNSName(f"*.{domain}"))
        if domain == "localhost":
            names.extend(x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1"))
    issued = int(time.time())
    expires = issued + LEAF_DAYS * 86_400 - BACKDATE_SECONDS
    certificate = (
        x509.CertificateBuilder()
        # RFC 5280 gives the common name 64 characters; nobody reads it for names any more.
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, domain[:64])]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_utc(issued - BACKDATE_SECONDS))
        .not_valid_after(min(_utc(expires), issuer.not_valid_after_utc))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(_usage("digital_signature"), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
        .sign(signing, hashes.SHA256())
    )
    head = b"".join(
        (
            f"# alveole domain={domain} issued={issued} expires={expires} authority={mark}\n".encode(),
            certificate.public_bytes(Encoding.PEM),
            issuer.public_bytes(Encoding.PEM),
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        )
    )
    return head + f"# sha256={hashlib.sha256(head).hexdigest()}\n".encode()


def make_authority(domain: str) -> tuple[bytes, bytes]:
    """A new authority's key and certificate (PEM)."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    # A part of its own: two authorities of one domain must not be taken for each other.
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Alvéole"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"Alvéole {domain[:40]} {secrets.token_hex(4)}"),
        ]
    )
    now = int(time.time())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_utc(now - BACKDATE_SECONDS))
        .not_valid_after(_utc(now + AUTHORITY_DAYS * 86_400))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return (
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        certificate.public_bytes(Encoding.PEM),
    )


def _usage(*granted: str) -> x509.KeyUsage:
    from cryptography import x509

    every = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{name: name in granted for name in every})


def _utc(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)


def _mark(certificate: bytes) -> str:
    return hashlib.sha256(certificate).hexdigest()[:16]


def _edge_group(settings: Settings) -> int:
    try:
        return pwd.getpwnam(settings.users.edge).pw_gid
    except KeyError:
        raise StepFailed(f"there is no user {settings.users.edge!r}", field="users.edge", hint="make it") from None


def _link(text: str, link: Path) -> None:
    """Make or replace a symbolic link by one rename."""
    beside = link.parent.parent / f".{link.parent.name}.{hashlib.sha256(link.name.encode()).hexdigest()[:16]}"
    with contextlib.suppress(FileNotFoundError):
        beside.unlink()
    os.symlink(text, beside)  # noqa: PTH211  Path would normalise the text
    beside.replace(link)
