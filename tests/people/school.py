"""A small school in a real slapd: 200 people in groups, with certificates good and bad."""

from __future__ import annotations

import datetime
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from doorkit import free_port

SUFFIX = "dc=school,dc=test"
SERVICE = f"cn=alveole,{SUFFIX}"
SLAPD = "/usr/sbin/slapd"


class Authority:
    """An authority of the test's own."""

    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._sign(self.name, self.key.public_key(), x509.BasicConstraints(ca=True, path_length=0))

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def _sign(self, name: x509.Name, key: Any, basic: x509.BasicConstraints, host: str = "") -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(self.name).public_key(key)
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(days=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=1))
        builder = builder.add_extension(basic, critical=True)
        if host:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, host: str, directory: Path) -> tuple[Path, Path]:
        """Files of a certificate for ``host`` and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        certificate = self._sign(name, key.public_key(), x509.BasicConstraints(ca=False, path_length=None), host)
        paths = directory / f"{host}.pem", directory / f"{host}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        form = serialization.PrivateFormat.TraditionalOpenSSL
        paths[1].write_bytes(
            key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()),
        )
        return paths


def people() -> str:
    """LDIF: 190 pupils in four classes, nine teachers, one in no group, two of one mail, and the groups."""
    lines = [f"dn: {SUFFIX}\nobjectClass: dcObject\nobjectClass: organization\no: School\ndc: school\n"]
    lines += [
        f"dn: {SERVICE}\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\n"
        "cn: alveole\nuserPassword: service-secret\n"
    ]
    lines += [f"dn: ou={unit},{SUFFIX}\nobjectClass: organizationalUnit\nou: {unit}\n" for unit in ("people", "groups")]
    groups: dict[str, list[str]] = {}
    names = [f"pupil{number:03}" for number in range(190)] + [f"teacher{number}" for number in range(9)] + ["visitor"]
    for number, name in enumerate(names):
        dn = f"uid={name},ou=people,{SUFFIX}"
        title = f"Élodie {name}" if number % 7 == 0 else f"Person {name}"
        lines.append(
            f"dn: {dn}\nobjectClass: inetOrgPerson\nuid: {name}\ncn: {title}\nsn: {name}\n"
            f"mail: {name}@school.test\nuserPassword: pw-{name}\n"
        )
        if name.startswith("pupil"):
            groups.setdefault(f"class-{number % 4}", []).append(dn)
            groups.setdefault("pupils", []).append(dn)
        elif name.startswith("teacher"):
            groups.setdefault("teachers", []).append(dn)
    groups["admins"] = [f"uid=teacher0,ou=people,{SUFFIX}"]
    for group, members in groups.items():
        text = "".join(f"member: {dn}\n" for dn in members)
        lines.append(f"dn: cn={group},ou=groups,{SUFFIX}\nobjectClass: groupOfNames\ncn: {group}\n{text}")
    return "\n".join(lines)


class Slapd:
    """A directory server on loopback, in ``directory``; ``close`` ends it."""

    def __init__(self, directory: Path, certificate: tuple[Path, Path]) -> None:
        if shutil.which(SLAPD) is None:
            pytest.skip("slapd is not installed: scripts/test --setup")
        self.directory = directory
        self.port, self.tls_port = free_port(), free_port()
        data = directory / "data"
        data.mkdir(parents=True)
        self.config = directory / "slapd.conf"
        schemas = "".join(f"include /etc/ldap/schema/{name}.schema\n" for name in ("core", "cosine", "inetorgperson"))
        self.config.write_text(
            f"{schemas}pidfile {directory}/pid\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\n"
            f"TLSCertificateFile {certificate[0]}\nTLSCertificateKeyFile {certificate[1]}\n"
            f'database mdb\nsuffix "{SUFFIX}"\ndirectory {data}\nmaxsize 10485760\n'
            "access to attrs=userPassword by anonymous auth by * none\n"
            f'access to * by dn.exact="{SERVICE}" read by self read by anonymous auth by * none\n'
        )
        ldif = directory / "people.ldif"
        ldif.write_text(people(), encoding="utf-8")
        # The tools are the same program by other names.
        done = subprocess.run(
            ["/usr/sbin/slapadd", "-q", "-f", self.config, "-l", ldif], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        self.start()

    def start(self) -> None:
        addresses = f"ldap://127.0.0.1:{self.port}/ ldaps://127.0.0.1:{self.tls_port}/"
        argv = [SLAPD, "-d", "0", "-f", str(self.config), "-h", addresses]
        self.process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.tls_port), 1).close()
                return
            except OSError:
                assert self.process.poll() is None and time.monotonic() < until, "slapd did not start"
                time.sleep(0.05)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)

    def close(self) -> None:
        if self.process.poll() is None:
            self.stop()

    @property
    def starttls(self) -> str:
        return f"ldap://localhost:{self.port}"

    @property
    def ldaps(self) -> str:
        return f"ldaps://localhost:{self.tls_port}"
