"""PURE. What a certificate, its chain and its key are worth, and all that is wrong with them at once.

Both sides ask here: control for whoever uploads one, so that they are told everything at a time; the agent before it
shows one, for control is not believed. ``cryptography`` is loaded when there is something to look at.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from alveole.errors import Problem
from alveole.model.names import DOMAIN

if TYPE_CHECKING:
    from cryptography import x509

#: Debian's ca-certificates, all in one file.
ROOTS = Path("/etc/ssl/certs/ca-certificates.crt")
#: More are no chain that anybody serves.
_CHAIN_MOST = 10
_NAME = re.compile(r"(?:\*\.)?" + DOMAIN.removeprefix("^"))


class Examined(msgspec.Struct, frozen=True):
    """``chain``: PEM, the certificate itself first, each issued by the next, without what does not belong to it."""

    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    """What is worth knowing and no obstacle."""
    names: tuple[str, ...] = ()
    issuer: str = ""
    issued_at: float = 0.0
    expires_at: float = 0.0
    chain: str = ""


def covers(pattern: str, name: str) -> bool:
    """Whether a certificate for ``pattern`` is one for ``name``: a wildcard stands for one label (RFC 6125 §6.4.3)."""
    if pattern == name:
        return True
    label, _, rest = name.partition(".")
    return bool(label) and label != "*" and pattern == f"*.{rest}"


def dates(chain: str) -> tuple[float, float]:
    """From when until when the first certificate of a chain is valid."""
    from cryptography import x509

    leaf = x509.load_pem_x509_certificates(chain.encode())[0]
    return leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()


def examine(
    chain: str, key: str, wanted: Iterable[str] = (), *, now: float | None = None, roots: Path = ROOTS
) -> Examined:
    """Look at a chain and its private key (PEM). ``wanted``: names of which it must cover at least one."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    now = time.time() if now is None else now
    problems: list[Problem] = []
    notes: list[str] = []
    private = _key(key, problems)
    try:
        found = x509.load_pem_x509_certificates(chain.encode())
    except (ValueError, UnicodeEncodeError):
        found = []
    if not found or len(found) > _CHAIN_MOST:
        much = f"there are {len(found)} certificates in it" if found else "there is no certificate in it"
        hint = "the certificate, then those that lead to its authority, between -----BEGIN CERTIFICATE----- lines"
        return Examined((*problems, Problem("chain", much, hint)))
    leaf = _leaf(found, private)
    if private is not None and _public(private) != _public_of(leaf):
        problems.append(Problem("key", f"is not the key of the certificate for {_subject(leaf)}", "send the other key"))
    _look_at_leaf(leaf, now, problems)
    names = _names(leaf)
    if not names:
        problems.append(Problem("chain", "the certificate names no domain (subject alternative names)"))
    asked = tuple(wanted)
    if names and asked and not any(covers(each, name) for each in names for name in asked):
        there = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
        problems.append(Problem("chain", f"the certificate is for {there}, and for none of {', '.join(asked[:5])}"))
    ordered = _ordered(leaf, found)
    _look_at_chain(ordered, len(found), now, roots, problems, notes)
    return Examined(
        tuple(problems),
        tuple(notes),
        names,
        _common_name(leaf.issuer),
        leaf.not_valid_before_utc.timestamp(),
        leaf.not_valid_after_utc.timestamp(),
        b"".join(each.public_bytes(Encoding.PEM) for each in ordered).decode(),
    )


def _key(text: str, problems: list[Problem]) -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(text.encode(), None)
    except TypeError:
        problems.append(Problem("key", "is sealed with a passphrase", "openssl pkey -in KEY -out PLAIN"))
        return None
    except Exception:
        # What the library says may quote the key.
        problems.append(Problem("key", "is no private key", "PEM text, between -----BEGIN PRIVATE KEY----- lines"))
        return None
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < 2048:
            problems.append(Problem("key", f"has {key.key_size} bits, and clients take no less than 2048"))
    elif not (isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in ("secp256r1", "secp384r1")):
        problems.append(Problem("key", "is of a kind that not all clients take", "RSA, or EC on P-256 or P-384"))
    return key


def _public(private: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public: bytes = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return public


def _public_of(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _leaf(found: list[x509.Certificate], private: Any) -> x509.Certificate:
    """The key's; else the first that is of no authority."""
    if private is not None:
        own = _public(private)
        for each in found:
            if _public_of(each) == own:
                return each
    return next((each for each in found if not _is_authority(each)), found[0])


def _is_authority(certificate: x509.Certificate) -> bool:
    from cryptography import x509

    try:
        return bool(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except (x509.ExtensionNotFound, ValueError):
        return False


def _look_at_leaf(leaf: x509.Certificate, now: float, problems: list[Problem]) -> None:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    if _is_authority(leaf):
        problems.append(Problem("chain", f"{_subject(leaf)} is an authority's certificate and no site's"))
    try:
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if ExtendedKeyUsageOID.SERVER_AUTH not in usage and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in usage:
            problems.append(Problem("chain", "the certificate is not for servers (extended key usage)"))
    except (x509.ExtensionNotFound, ValueError):
        pass
    try:
        leaf.extensions.get_extension_for_class(x509.TLSFeature)
        text = "the certificate demands that its authority's word is stapled (must-staple), which is not done here"
        problems.append(Problem("chain", text, "get one without: authorities have ended OCSP"))
    except (x509.ExtensionNotFound, ValueError):
        pass
    if now >= leaf.not_valid_after_utc.timestamp():
        problems.append(Problem("chain", f"the certificate has expired on {leaf.not_valid_after_utc:%Y-%m-%d}"))
    elif now < leaf.not_valid_before_utc.timestamp():
        problems.append(Problem("chain", f"the certificate is not valid before {leaf.not_valid_before_utc:%Y-%m-%d}"))


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    from cryptography import x509

    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    names = (each.lower().rstrip(".") for each in found.get_values_for_type(x509.DNSName))
    return tuple(dict.fromkeys(each for each in names if _NAME.fullmatch(each)))


def _issued(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    if certificate.issuer != by.subject:
        return False
    try:
        certificate.verify_directly_issued_by(by)
    except Exception:
        # It raises what its algorithm raises; each means that it is not.
        return False
    return True


def _ordered(leaf: x509.Certificate, found: list[x509.Certificate]) -> list[x509.Certificate]:
    ordered = [leaf]
    while True:
        last = ordered[-1]
        following = next((each for each in found if each not in ordered and _issued(last, each)), None)
        # A root is not sent: a client has it already, or would not believe it for being sent.
        if following is None or following.issuer == following.subject:
            return ordered
        ordered.append(following)


def _look_at_chain(
    ordered: list[x509.Certificate],
    given: int,
    now: float,
    roots: Path,
    problems: list[Problem],
    notes: list[str],
) -> None:
    for each in ordered:
        hashed = each.signature_hash_algorithm
        if hashed is not None and hashed.name in ("md5", "sha1"):
            problems.append(Problem("chain", f"{_subject(each)} is signed with {hashed.name}, which no client takes"))
    for each in ordered[1:]:
        if now >= each.not_valid_after_utc.timestamp():
            problems.append(Problem("chain", f"{_subject(each)}, which has issued it, has expired"))
    last = ordered[-1]
    if last.issuer == last.subject:
        notes.append("it is signed by itself: clients must be told to trust it")
    elif not _known(last, roots):
        issuer = _common_name(last.issuer)
        if len(ordered) == 1 and _tells_issuer(last):
            text = f"the certificate of {issuer}, which has issued it, is missing"
            problems.append(Problem("chain", text, "add it below the certificate: the authority gives both"))
        else:
            notes.append(f"this machine does not know {issuer}: only clients that do will accept it")
    if given > len(ordered) + 1:
        notes.append(f"{given - len(ordered)} of the {given} certificates do not belong to the chain and are left out")


def _known(certificate: x509.Certificate, roots: Path) -> bool:
    import ssl

    from cryptography import x509

    try:
        text = roots.read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return False
    issuer = certificate.issuer.public_bytes()
    end = "-----END CERTIFICATE-----"
    for part in text.split(end)[:-1]:
        try:
            raw = ssl.PEM_cert_to_DER_cert(part[part.index("-----BEGIN CERTIFICATE-----") :] + end)
            # Some roots are older than the rules, and the library complains of each: only those in question are read.
            if issuer in raw and _issued(certificate, x509.load_der_x509_certificate(raw)):
                return True
        except ValueError:
            continue
    return False


def _tells_issuer(certificate: x509.Certificate) -> bool:
    """Whether it says where its issuer's is to be had, as those do that have one between them and a root."""
    from cryptography import x509
    from cryptography.x509.oid import AuthorityInformationAccessOID

    try:
        found = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    return any(each.access_method == AuthorityInformationAccessOID.CA_ISSUERS for each in found)


def _common_name(name: x509.Name) -> str:
    from cryptography.x509.oid import NameOID

    found = name.get_attributes_for_oid(NameOID.COMMON_NAME) or name.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    text = str(found[0].value) if found else name.rfc4514_string()
    return "".join(letter for letter in text if letter.isprintable())[:100] or "nobody"


def _subject(certificate: x509.Certificate) -> str:
    names = _names(certificate)
    return names[0] if names else _common_name(certificate.subject)
