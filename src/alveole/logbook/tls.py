"""What TLS needs for syslog, in files or as PEM: for the porter, and for control when somebody tries settings."""

from __future__ import annotations

import os
import ssl

from alveole.logbook.settings import is_pem


def context_of(*, server: bool, authority: str, certificate: str) -> ssl.SSLContext:
    """For TLS, with authority and certificate by path or as PEM. Raises ``OSError`` (``SSLError`` is one)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if is_pem(authority):
        context.load_verify_locations(cadata=authority)
    elif authority:
        context.load_verify_locations(authority)
    elif not server:
        context.load_default_certs()
    if server and authority:
        context.verify_mode = ssl.CERT_REQUIRED
    if is_pem(certificate):
        # OpenSSL reads a key from a file only: one that has no name, and is gone with this.
        with os.fdopen(os.memfd_create("syslog"), "wb", buffering=0) as file:
            file.write(certificate.encode())
            context.load_cert_chain(f"/proc/self/fd/{file.fileno()}", password=_no_password)
    elif certificate:
        context.load_cert_chain(certificate, password=_no_password)
    return context


def _no_password() -> str:
    """Without it OpenSSL would ask whoever sits before the terminal."""
    return ""
