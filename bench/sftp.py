#!/usr/bin/env python3
from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from common import ROOT, Instance, free_ports, page
from machine import BenchError, run
from report import Row, Session, interleave, main, median

_SFTP_SERVER = "/usr/lib/openssh/sftp-server"


def figure(session: Session) -> list[Row]:
    """A large file by SFTP to a site and back, beside the machine's own sshd, both on the loopback.

    The same client, the same key, the same cipher (what the client takes first), the same disk. What is written is
    on no disk for sure on either side: neither is told to sync.
    """
    sshd = shutil.which("sshd", path=f"/usr/sbin:{os.environ.get('PATH', '')}")
    if sshd is None or not Path(_SFTP_SERVER).exists():
        raise BenchError("needs sshd: apt-get install --no-install-recommends openssh-server openssh-sftp-server")
    size = session.runs(1 << 30, 128 << 20)
    with Instance(keep_log=ROOT / "artefacts" / "bench-sftp.log", ssh=True) as alveole, _place() as place:
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / "key")
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / "host")
        content = place / "big"
        with content.open("wb") as file:
            for _ in range(size >> 20):
                file.write(os.urandom(1 << 20))
        with alveole.api() as api:
            api.call("POST", "/v1/accounts", {"name": "bench", "role": "owner", "password": os.urandom(16).hex()})
            api.call("POST", "/v1/keys?account=bench", {"key": (place / "key.pub").read_text()})
            api.wait(api.create("files", page("files"), owner="bench"))
        with _sshd(sshd, place) as port:
            _until_open(alveole.ssh_port)

            def carry(port: int, user: str, where: str, script: str, _number: int) -> float:
                began = time.perf_counter()
                run(
                    "sftp",
                    "-q",
                    *("-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null", "-oLogLevel=ERROR"),
                    *("-oIdentitiesOnly=yes", "-F/dev/null", f"-i{place / 'key'}"),
                    *("-P", str(port), "-b", "-", f"{user}@127.0.0.1"),
                    input=script.format(big=content, there=where, back=place / "back"),
                )
                return size / 1e6 / (time.perf_counter() - began)

            me = pwd.getpwuid(os.getuid()).pw_name
            there = str(place / "uploaded")
            put, get = "put {big} {there}\n", "get {there} {back}\n"
            sides = {
                "put, ours": partial(carry, alveole.ssh_port, "files", "big", put),
                "put, sshd": partial(carry, port, me, there, put),
                "get, ours": partial(carry, alveole.ssh_port, "files", "big", get),
                "get, sshd": partial(carry, port, me, there, get),
            }
            seen = interleave(session.runs(3, 2), sides)
        if (place / "back").stat().st_size != size:
            raise BenchError("what came back is not what was sent")
    rows = []
    for way in ("put", "get"):
        ours, peer = median(seen[f"{way}, ours"]), median(seen[f"{way}, sshd"])
        rows.append(
            Row(
                f"SFTP of {size >> 20} MiB, {way}",
                f"{ours:.0f} MB/s",
                f"{peer:.0f} MB/s (OpenSSH's sshd)",
                ours / peer,
                "≥ 0.5",
                ours / peer >= 0.5,
                len(seen[f"{way}, ours"]),
                samples={side: seen[f"{way}, {side}"] for side in ("ours", "sshd")},
            )
        )
    return rows


@contextlib.contextmanager
def _place() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="alb-sftp-", dir="/var/tmp"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextlib.contextmanager
def _sshd(program: str, place: Path) -> Iterator[int]:
    """The machine's own server, with nothing but what this needs."""
    (port,) = free_ports(1)
    config = place / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {place / 'host'}\nPidFile none\nUsePAM no\n"
        f"PermitRootLogin yes\nStrictModes no\nAuthorizedKeysFile {place / 'key.pub'}\n"
        f"Subsystem sftp {_SFTP_SERVER}\n"
    )
    # Where it leaves its rights; Debian's service makes it (sshd(8)).
    Path("/run/sshd").mkdir(exist_ok=True)
    process = subprocess.Popen([program, "-D", "-e", "-f", str(config)], stderr=(place / "sshd.log").open("wb"))
    try:
        try:
            _until_open(port)
        except BenchError as error:
            raise BenchError(f"sshd: {(place / 'sshd.log').read_text()[-300:]}") from error
        yield port
    finally:
        process.terminate()
        process.wait()


def _until_open(port: int) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return
        time.sleep(0.05)
    raise BenchError(f"nobody listens on port {port}")


if __name__ == "__main__":
    main("sftp", figure)
