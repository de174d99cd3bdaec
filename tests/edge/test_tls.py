"""TLS as Mozilla's intermediate profile has it (guideline 5.7), seen from outside by OpenSSL, one thing at a time."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pure"))
from edgefixtures import World, world
from test_certs import make, pem_of

from alveole.agent.certifying import CertificateSource, InstallCertificate

pytestmark = pytest.mark.root
NAME = "tls.alv.test"
RSA_NAME = "rsa.alv.test"
#: By https://ssl-config.mozilla.org (intermediate), without its two DHE suites: see edge_config.py.
SUITES = {"AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305"}
SUITES_13 = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
GROUPS = {"X25519", "P-256", "P-384"}


@pytest.fixture(scope="module")
def edge() -> Iterator[World]:
    with world(hsts_seconds=600) as made:
        for name in (NAME, RSA_NAME):
            made.certify(1, name)
        made.site(1, NAME)
        signing, key = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)
        leaf = make(RSA_NAME, key, "somebody", signing, names=(RSA_NAME,))
        wanted = InstallCertificate((RSA_NAME,), CertificateSource.OWN, "somebody", leaf, key=pem_of(key))
        made.certificates.install(wanted)
        yield made


def shake(edge: World, name: str, ciphers: str = "ALL:COMPLEMENTOFALL:@SECLEVEL=0", most: str = "TLSv1_2") -> str:
    """The suite that is agreed on; empty: none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion[most]
    context.set_ciphers(ciphers)
    with (
        contextlib.suppress(ssl.SSLError, ConnectionError),
        socket.create_connection(("127.0.0.1", edge.https), 20) as plain,
        context.wrap_socket(plain, server_hostname=name) as tls,
    ):
        return (tls.cipher() or ("",))[0]
    return ""


def client(edge: World, *options: str, said: str = "Q\n", name: str = NAME) -> str:
    argv = ["openssl", "s_client", "-connect", f"127.0.0.1:{edge.https}", "-servername", name, *options]
    return subprocess.run(argv, input=said, capture_output=True, text=True, timeout=60, check=False).stdout


def known(*options: str) -> set[str]:
    argv = ["openssl", "ciphers", *options, "ALL:COMPLEMENTOFALL:@SECLEVEL=0"]
    return set(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip().split(":"))


def test_only_the_suites_of_the_profile(edge: World) -> None:
    """Each that OpenSSL knows is offered alone: without forward secrecy, CBC, RC4 and anonymous ones are refused."""
    every = known("-s", "-tls1_2") | known("-tls1_2")
    for name, kind in ((NAME, "ECDSA"), (RSA_NAME, "RSA")):
        taken = {suite for suite in every - SUITES_13 if shake(edge, name, f"{suite}:@SECLEVEL=0")}
        assert taken == {f"ECDHE-{kind}-{each}" for each in SUITES}
    assert len(every) > 60


def test_versions_of_the_protocol(edge: World) -> None:
    assert shake(edge, NAME, most="TLSv1_3") in SUITES_13
    assert shake(edge, NAME).startswith("ECDHE-")
    legacy = ("-cipher", "ALL:@SECLEVEL=0")
    for version in ("-tls1", "-tls1_1"):
        assert "Cipher is (NONE)" in client(edge, version, *legacy)


def test_suites_and_groups_of_1_3(edge: World) -> None:
    for suite in (*SUITES_13, "TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"):
        taken = f"Cipher is {suite}" in client(edge, "-tls1_3", "-ciphersuites", suite)
        assert taken is (suite in SUITES_13), suite
    for group in (*GROUPS, "P-521", "X448"):
        taken = "Cipher is TLS_" in client(edge, "-tls1_3", "-groups", group)
        assert taken is (group in GROUPS), group


def test_resumption_compression_renegotiation(edge: World) -> None:
    """Sessions are remembered here and not in tickets, whose key would have to be turned to keep forward secrecy."""
    first = client(edge, "-tls1_2")
    assert "TLS session ticket" not in first and "Session-ID: " in first
    assert "Compression: NONE" in first and "Secure Renegotiation IS supported" in first
    assert "No ALPN negotiated" in first
    # "R" asks for a renegotiation, which nginx answers with an alert; the request behind it is never read.
    again = client(edge, "-tls1_2", said="R\nGET / HTTP/1.0\n\n")
    assert "HTTP/1.1" not in again


def test_no_early_data_no_tickets_and_no_stapling(edge: World) -> None:
    """What is sent before the handshake ends can be sent again by anybody. A session is remembered here and not in a
    ticket, of TLS 1.3 too. Authorities have ended OCSP: nothing is stapled, and certificates that demand it are
    refused at upload."""
    said = client(edge, "-tls1_3", "-status", "-ign_eof", said="GET / HTTP/1.0\r\nHost: tls.alv.test\r\n\r\n")
    assert "HTTP/1.1 200" in said and "OCSP response: no response sent" in said
    # A ticket of OpenSSL's that holds a number and no keys is 32 bytes long, one with keys some 200.
    tickets = [line for line in said.splitlines() if "Max Early Data" in line]
    assert tickets and all(line.strip() == "Max Early Data: 0" for line in tickets)
    at = said.index("TLS session ticket:")
    assert "0020 -" not in said[at : at + 400]


def test_a_client_that_was_talked_down_is_told(edge: World) -> None:
    """RFC 7507: who says that it was refused a newer version, though it was not, is being attacked."""
    assert "Cipher is (NONE)" in client(edge, "-tls1_2", "-fallback_scsv")
    assert "Cipher is ECDHE" in client(edge, "-tls1_2")


def test_the_clients_choice_of_suites_counts(edge: World) -> None:
    """All of them are good, and a telephone knows which it is quick at."""
    first, second = "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-ECDSA-AES128-GCM-SHA256"
    assert shake(edge, NAME, f"{first}:{second}") == first
    assert shake(edge, NAME, f"{second}:{first}") == second


def test_the_certificate_itself(edge: World) -> None:
    """P-256, SHA-256, at most 366 days, the name among the alternative ones, and its chain to be followed."""
    from cryptography import x509

    said = client(edge, "-showcerts")
    marks = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----")
    leaf, *above = (
        x509.load_pem_x509_certificate(f"{marks[0]}{each.partition(marks[1])[0]}{marks[1]}\n".encode())
        for each in said.split(marks[0])[1:]
    )
    key = leaf.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1"
    assert leaf.signature_hash_algorithm is not None and leaf.signature_hash_algorithm.name == "sha256"
    assert (leaf.not_valid_after_utc - leaf.not_valid_before_utc).days <= 366
    assert leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
        x509.DNSName
    ) == [NAME]
    leaf.verify_directly_issued_by(above[0])


def test_who_is_sent_to_https_stays_at_the_same_place(edge: World) -> None:
    """A lasting redirection that keeps method, name and query, and tells nothing that HTTPS alone may tell."""
    edge.route(1, "only.alv.test", https_only=True)
    answer = edge.ask("only.alv.test", "/a/b?c=d%2F", method="POST", body=b"x")
    assert answer.status == 308
    assert answer.headers["location"] == f"https://only.alv.test:{edge.https}/a/b?c=d%2F"
    assert "strict-transport-security" not in answer.headers
    # Not to a place that the client has made up: another host in the line, or in a second slash.
    assert edge.ask("only.alv.test", "//evil.test/").headers["location"].startswith("https://only.alv.test:")
    # An authority's proof is asked for over HTTP, and is no request of the site's.
    assert edge.ask("only.alv.test", "/.well-known/acme-challenge/none").status == 404


def test_a_name_that_is_not_here_ends_the_handshake(edge: World) -> None:
    assert shake(edge, "nobody.alv.test") == ""


def test_hsts_where_it_is_set(edge: World) -> None:
    """Over HTTPS alone, also on what the edge answers itself; what a site says itself stands alone."""
    assert "strict-transport-security" not in edge.ask(NAME).headers
    assert edge.ask(NAME, tls=True).headers["strict-transport-security"] == "max-age=600"
    answer = edge.ask(NAME, "/answer?Strict-Transport-Security=max-age%3D5", tls=True)
    assert answer.headers["strict-transport-security"] == "max-age=5"


def test_an_uploaded_key_is_the_edges_alone(edge: World) -> None:
    import grp
    import pwd

    (file,) = edge.certificates.given.folder.glob("*.pem")
    status = file.stat()
    assert (status.st_uid, status.st_mode & 0o777) == (0, 0o640)
    assert status.st_gid == pwd.getpwnam("www-data").pw_gid == grp.getgrnam("www-data").gr_gid
    assert file.parent.stat().st_mode & 0o007 == 0
