#!/usr/bin/env python3
from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from common import ROOT, Instance, until_200
from machine import BenchError, fetch, pss, run
from memory import charged
from peers import DOCKER, Docker
from report import Row, Session, main, mb, median, ms

#: What the plan ``medium`` gives, the least that the module asks for.
LIMITS = ("--memory=512m", "--cpus=1", "--pids-limit=256")
IMAGE = "alveole-bench-wordpress"
ANSWERS = ("--module", "wordpress", "--defaults", "--set", "admin_mail=bench@example.org")
#: Bases that the tests have built already; without them the first site builds its own.
KEPT = Path(os.environ.get("ALVEOLE_TEST_CACHE", "/var/cache/alveole-test")) / "bases"
#: PHP's idle workers have left by then.
QUIET_SECONDS = 25.0
#: In one container, what the supervisor does in ours, with the very same configuration files.
START = """\
set -e
cd /
grep -q ^mariadb: /etc/passwd || {
    echo 'mariadb:x:2001:2001::/nonexistent:/bin/false' >>/etc/passwd
    echo 'site:x:1000:1000::/tmp:/bin/false' >>/etc/passwd
    mkdir -p /data/mariadb /data/mariadb-dump /data/php/sessions /data/files /data/wordpress/wp-content
    chown 2001:2001 /data/mariadb /data/mariadb-dump
    chown -R 1000:1000 /data/php /data/files /data/wordpress
    ln -s /config/wordpress/config.php /etc/wordpress/config-default.php
    sed 's|listen unix:[^;]*;|listen 8080;|' /config/nginx/nginx.conf >/etc/nginx/bench.conf
    chmod 1777 /run /tmp
}
export PHP_INI_SCAN_DIR=:/config/php/conf.d DATA_DIR=/data/files
as() { uid=$1; shift; setpriv --reuid "$uid" --regid "$uid" --clear-groups "$@"; }
as 2001 sh /config/mariadb/prepare.sh
as 1000 sh /config/wordpress/prepare.sh
as 2001 mariadbd --defaults-file=/config/mariadb/my.cnf &
as 1000 sh /config/php/run.sh &
until mariadb-admin --no-defaults --socket=/run/mariadb/mysqld.sock --silent ping; do sleep 0.1; done
as 1000 php /config/wordpress/install.php
as 1000 nginx -c /etc/nginx/bench.conf -e stderr &
wait
"""


def blocks(path: Path) -> int:
    """Bytes on the disk of everything below ``path``."""
    return int(run("du", "-s", "-B1", "-x", path).stdout.split()[0])


def make(alveole: Instance, name: str) -> float:
    """The seconds from the command to the first 200 of the front page."""
    words = [sys.executable, "-m", "alveole", "--config", str(alveole.config), "site", "create", name, *ANSWERS]
    began = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        ended = until_200(alveole.edge, alveole.host(name), 900)
    finally:
        out, _ = process.communicate()
    if process.returncode != 0:
        raise BenchError(f"site create {name}: {out[-800:]}")
    if b"wp-includes" not in fetch(alveole.edge, alveole.host(name))[1]:
        raise BenchError(f"the front page of {name} is not that of WordPress")
    return ended - began


def seed(alveole: Instance) -> None:
    """Take bases that are there already; they are never written to, so links are copies enough."""
    bases = alveole.state_dir / "bases"
    bases.mkdir(exist_ok=True)
    for kept in sorted(KEPT.glob("debian-*")):
        if kept.stat().st_dev == bases.stat().st_dev and not (bases / kept.name).exists():
            run("cp", "-al", kept, bases / kept.name)


@contextlib.contextmanager
def merged(alveole: Instance, key: str) -> Iterator[Path]:
    """The tree of a base with those it is a layer over."""
    roots = []
    while key:
        base = alveole.state_dir / "bases" / key
        roots.append(str(base / "root"))
        key = json.loads((base / "base.json").read_text()).get("lower", "")
    with tempfile.TemporaryDirectory(prefix="albm-", dir="/var/tmp") as place:
        empty, tree = Path(place, "empty"), Path(place, "tree")
        empty.mkdir()
        tree.mkdir()
        # An overlay that is only read wants two lower directories at least.
        run("mount", "-t", "overlay", "-o", f"ro,lowerdir={':'.join([*roots, str(empty)])}", "albm", tree)
        try:
            yield tree
        finally:
            run("umount", tree)


def import_image(alveole: Instance, docker: Docker, key: str) -> None:
    with merged(alveole, key) as tree:
        tar = subprocess.Popen(["tar", "-C", tree, "--exclude=./dev/*", "-c", "."], stdout=subprocess.PIPE)
        argv = [str(DOCKER), "-H", f"unix://{docker.socket}", "import", "-", IMAGE]
        done = subprocess.run(argv, stdin=tar.stdout, capture_output=True, check=False)
        tar.wait()
        if done.returncode != 0:
            raise BenchError(f"docker import: {done.stderr.decode()[-600:]}")


def in_docker(docker: Docker, name: str, config: Path) -> float:
    """The same in one Docker container; the seconds to its first page."""
    began = time.perf_counter()
    docker.cli("run", "-d", "--name", name, *LIMITS, "-v", f"{config}:/config:ro", IMAGE, "/bin/sh", "-c", START)
    with docker.api() as api:
        address = (docker.address(api, name)[0], 8080)
    return until_200(address, name, 120) - began


def writable(docker: Docker, name: str) -> Path:
    """Where a container's own files are on this machine."""
    with docker.api() as api:
        return Path(api.call("GET", f"/containers/{name}/json")["GraphDriver"]["Data"]["UpperDir"])


def figure(session: Session) -> list[Row]:
    """From ``site create --module wordpress`` to the first page, base ready; ten such sites at rest.

    Beside Docker: the image is the same base (``docker import``), each container runs the same programs
    with the same configuration files under the same limits, started by a shell script. Memory is what is
    charged to the cgroups of the ten, less idle page cache, by ten; disk is what each takes beyond the base.
    """
    count, runs = session.runs(10, 2), session.runs(5, 2)
    docker = session.docker()
    names = [f"ten{number}" for number in range(count)]
    with (
        Instance(keep_log=ROOT / "artefacts" / "bench-wordpress.log") as alveole,
        tempfile.TemporaryDirectory(prefix="albw-", dir="/var/tmp") as place,
        alveole.api() as api,
    ):
        seed(alveole)
        # The base is built here, unless it was there.
        make(alveole, "first")
        first = api.call("GET", "/v1/sites/first")
        rendered = next((alveole.state_dir / "sites" / str(first["id"])).rglob("wordpress/config.php")).parents[1]
        config = Path(place, "config")
        run("cp", "-a", rendered, config)
        shift_owner(config, rendered)
        Path(place).chmod(0o755)
        import_image(alveole, docker, str(first["base_key"]))
        api.destroy("first")
        ours: list[float] = []
        peer: list[float] = []
        try:
            for number in range(runs):
                ours.append(make(alveole, f"t{number}"))
                api.destroy(f"t{number}")
                peer.append(in_docker(docker, f"t{number}", config))
                docker.cli("rm", "-f", f"t{number}")
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda name: make(alveole, name), names))
            time.sleep(QUIET_SECONDS)
            memory = charged(alveole.tag) / count
            own = pss(alveole.site_pids()) / count
            ids = [str(api.call("GET", f"/v1/sites/{name}")["id"]) for name in names]
            disk = sum(blocks(alveole.state_dir / "sites" / id) for id in ids) / count
            for name in names:
                api.destroy(name)
            for name in names:
                in_docker(docker, name, config)
            time.sleep(QUIET_SECONDS)
            docker_memory = (charged(docker.tag) + pss(docker.shim_pids())) / count
            docker_own = pss(docker.container_pids()) / count
            docker_disk = sum(blocks(writable(docker, name)) for name in names) / count
        finally:
            docker.cli("rm", "-f", *names, *(f"t{number}" for number in range(runs)), check=False)
    return [
        Row(
            "WordPress, create to first page",
            ms(median(ours)),
            f"{ms(median(peer))} (docker)",
            median(ours) / median(peer),
            "≤ 10 s",
            median(ours) <= 10,
            runs,
            "from the command to the front page through the edge; docker: one container, no proxy",
            {"ours": ours, "docker": peer},
        ),
        Row(
            f"memory of an idle WordPress site, {count} of them",
            mb(memory),
            f"{mb(docker_memory)} (docker)",
            memory / docker_memory,
            "≤ 120 MB",
            memory <= 120e6,
            1,
            f"charged to the cgroups; PSS of the processes {mb(own)}, docker {mb(docker_own)}",
            {"ours": [memory, own], "docker": [docker_memory, docker_own]},
        ),
        Row(
            f"disk of a WordPress site beyond the base, {count} of them",
            mb(disk),
            f"{mb(docker_disk)} (docker)",
            disk / docker_disk,
            "≤ 60 MB",
            disk <= 60e6,
            1,
            "database, configuration and writable root together",
            {"ours": [disk], "docker": [docker_disk]},
        ),
    ]


def shift_owner(copy: Path, rendered: Path) -> None:
    """Files of a site belong to its own range of ids on the host; in the copy to the ids inside."""
    start = min(path.stat().st_uid for path in rendered.rglob("*"))
    for path in (copy, *copy.rglob("*")):
        uid = max(path.stat().st_uid - start, 0)
        os.chown(path, uid, uid)


if __name__ == "__main__":
    main("wordpress", figure)
