"""A small container image of this machine's own nginx, and a registry of the test's that has it."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "content"))
from contentkit import oci, tar

from instancekit import run, until

NGINX = "/usr/sbin/nginx"
_CONFIG = """\
daemon off; error_log stderr; pid /tmp/nginx.pid; user root;
events {{ worker_connections 64; }}
http {{ access_log off; {temporary} server {{ listen 8080; listen [::]:8080; root /photos; autoindex on; }} }}
"""


def image() -> bytes:
    """An OCI archive that serves ``/photos`` at port 8080."""
    listed = run("ldd", NGINX).stdout
    names = {NGINX, *re.findall(r"(/\S+)", listed)}
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path /tmp/{kind};" for kind in kinds)
    files = [
        ("etc/passwd", "f", b"root:x:0:0::/:/bin/sh\n"),
        ("etc/group", "f", b"root:x:0:\n"),
        ("etc/nginx.conf", "f", _CONFIG.format(temporary=temporary).encode()),
        *((name.lstrip("/"), "f", Path(name).read_bytes(), {"mode": 0o755}) for name in sorted(names)),
    ]
    folders = {str(parent) for name, *_ in files for parent in Path(name).parents} - {"."}
    folders |= {"tmp", "photos"}
    made = [(name, "d", b"") for name in sorted(folders)]
    about = {"Cmd": [NGINX, "-c", "/etc/nginx.conf"], "ExposedPorts": {"8080/tcp": {}}}
    return oci([gzip.compress(tar([*made, *files]), 1)], about)


@contextlib.contextmanager
def registry(port: int) -> Iterator[None]:
    """Debian's own registry at ``127.0.0.1:port``, with ``club/photos:1`` in it."""
    there = Path(tempfile.mkdtemp(prefix="alv", dir="/tmp"))
    process = None
    try:
        config = there / "config.yml"
        storage = {"filesystem": {"rootdirectory": str(there / "data")}}
        about = {"version": 0.1, "log": {"level": "error"}, "storage": storage, "http": {"addr": f"127.0.0.1:{port}"}}
        config.write_text(json.dumps(about))  # JSON is YAML
        process = subprocess.Popen(
            ["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(lambda: _answers(port), 60, "the registry does not start")
        (there / "image.tar").write_bytes(image())
        where = f"docker://127.0.0.1:{port}/club/photos:1"
        argv = ("skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false")
        run(*argv, f"oci-archive:{there / 'image.tar'}", where)
        yield
    finally:
        if process is not None:
            process.kill()
            process.wait()
        shutil.rmtree(there)


def _answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
