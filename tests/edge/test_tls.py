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

from alveole.agent.certifying import InstallCertificate, Source

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
        wanted = InstallCertificate((RSA_NAME,), Source.OWN, "somebody", leaf, key=pem_of(key))
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
