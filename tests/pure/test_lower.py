"""The bundles of the native back end, byte for byte. ``ALVEOLE_GOLDEN=write`` writes the files anew."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from alveole.backends.native import lower, supervise
from alveole.config import Settings
from alveole.model.resource import WorkloadSpec
from alveole.model.site import MIB, Account, BaseKind, FileLink, Kept, Limits, Process, Task, VolumeMount, When

GOLDEN = Path(__file__).parent / "golden"
MACHINE = lower.Machine(Settings(), seccomp="AAAA", network="/proc/1/fd/9", nameservers=("192.0.2.53",))
SITE = "sabcdefghijkl"


def spec(**changes: object) -> WorkloadSpec:
    values: dict[str, object] = {
        "site": SITE,
        "number": 3,
        "slot": 1,
        "hostname": SITE,
        "base": "host-0123456789abcdef",
        "base_kind": BaseKind.HOST,
        "static": False,
        "writable": True,
        "processes": (),
        "port": None,
        "env": {},
        "volumes": (),
        "data_generation": 2,
        "limits": Limits(250, 128 * MIB, 64),
        "health": "/",
        "ready_seconds": 60,
        "stop_seconds": 10,
        "incarnation": 0,
        **changes,
    }
    return WorkloadSpec(**values)


STATIC = spec(static=True, writable=False)
COMMAND = spec(
    base="debian-0123456789abcdef",
    base_kind=BaseKind.DEBIAN,
    processes=(Process("web", ("gunicorn", "app:app", "--bind", "0.0.0.0:8000")),),
    port=8000,
    env={"GREETING": "good day", "PATH": "/opt/bin:/usr/bin:/bin"},
    volumes=(VolumeMount("uploads", "/srv/uploads"), VolumeMount("data", "/data")),
    limits=Limits(1000, 512 * MIB, 256, None, 1024 * MIB, True),
    release="sha256:" + "ab" * 32,
)
SERVICES = spec(
    processes=(Process("app", ("php-fpm8.2", "-F")), Process("web", ("nginx", "-g", "daemon off; error_log '/x';")))
)
MODULES = spec(
    base="debian-0123456789abcdef",
    base_kind=BaseKind.DEBIAN,
    processes=(
        Process("web", ("/usr/sbin/nginx", "-c", "/config/nginx/nginx.conf"), order=90),
        Process(
            "mariadb",
            ("mariadbd", "--defaults-file=/config/mariadb/my.cnf"),
            uid=2001,
            order=10,
            ready=("mariadb-admin", "ping", "it's"),
            stop_seconds=60,
            env={"TMPDIR": "/data/mariadb tmp"},
            cwd="/data/mariadb",
        ),
    ),
    tasks=(
        Task("mariadb-make", When.PREPARE, ("/usr/bin/mariadb-install-db",), 2001, 10),
        Task("wordpress-install", When.INSTALL, ("wp", "core", "install")),
        Task("mariadb-load", When.RESTORE, ("/config/mariadb/load",), 2001, 20, env={"A": "b c"}),
        Task("mariadb-dump", When.BACKUP, ("/config/mariadb/dump",), 2001, 10),
        Task("mariadb-flush", When.STOP, ("true",), 2001, 10),
        Task("cache-clear", When.CHANGE, ("true",)),
    ),
    accounts=(Account("mariadb", 2001, "/data/mariadb"),),
    links=(FileLink("/etc/mysql/my.cnf", "/config/mariadb/my.cnf"), FileLink("/data/mariadb/my.cnf", "../x")),
    volumes=(VolumeMount("mariadb", "/data/mariadb", 2001, Kept.COLD),),
    config=True,
    limits=Limits(1000, 512 * MIB, 256),
)
MODULES_MACHINE = msgspec.structs.replace(
    MACHINE,
    passwd="root:x:0:0:root:/root:/bin/bash\nmysql:x:101:101::/nonexistent:/bin/false\nold:x:2001:2001::/:/bin/sh\n",
    group="root:x:0:\nmariadb:x:55:\nold:x:2001:\n",
)
IMAGE = spec(base="oci-0123456789abcdef", base_kind=BaseKind.OCI, processes=(Process("web", ("httpd-foreground",)),))
IMAGE_MACHINE = msgspec.structs.replace(
    MACHINE, user=lower.User(33, 33), base_env={"HTTPD_PREFIX": "/usr/local/apache2"}, cwd="/usr/local/apache2"
)
CASES = {
    "lower-static": (STATIC, MACHINE),
    "lower-command": (COMMAND, MACHINE),
    "lower-services": (SERVICES, MACHINE),
    "lower-image": (IMAGE, IMAGE_MACHINE),
    "lower-modules": (MODULES, MODULES_MACHINE),
}


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    found = msgspec.json.format(msgspec.json.encode(lower.lower(*CASES[name])), indent=1) + b"\n"
    file = GOLDEN / f"{name}.json"
    if os.environ.get("ALVEOLE_GOLDEN") == "write":
        file.write_bytes(found)
    assert found == file.read_bytes()


@pytest.mark.parametrize("name", CASES)
def test_confinement_does_not_depend_on_the_workload(name: str) -> None:
    """Threats 2-4: whatever the workload says, these hold."""
    bundle = lower.lower(*CASES[name])
    config = bundle.config
    assert config.process.no_new_privileges and not config.process.terminal
    assert {space.type for space in config.linux.namespaces} == {
        "pid",
        "mount",
        "uts",
        "ipc",
        "cgroup",
        "user",
        "network",
    }
    assert config.annotations == {"run.oci.seccomp_bpf_data": "AAAA"}
    start = Settings().uid_start(3)
    assert config.linux.uid_mappings == config.linux.gid_mappings == (lower.IdMapping(0, start, 65_536),)
    for mount in config.mounts:
        assert "nosuid" in mount.options or mount.type == "proc"
        assert "nodev" in mount.options or mount.destination in ("/dev/pts", "/dev")


def test_only_images_and_supervisors_of_several_users_keep_capabilities() -> None:
    for name, (workload, machine) in CASES.items():
        kept = lower.lower(workload, machine).config.process.capabilities
        assert bool(kept.bounding) == (name in ("lower-image", "lower-modules"))
        assert kept.ambient == kept.inheritable == ()
        if name == "lower-modules":
            assert set(kept.bounding) == {"CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP"}
        assert not {"CAP_SYS_ADMIN", "CAP_NET_RAW", "CAP_MKNOD", "CAP_NET_ADMIN"} & set(kept.bounding)


def test_only_images_choose_who_runs() -> None:
    assert lower.lower(IMAGE, IMAGE_MACHINE).config.process.user == lower.User(33, 33)
    assert lower.lower(COMMAND, IMAGE_MACHINE).config.process.user == lower.SITE_USER


def test_what_alveole_sets_cannot_be_overridden() -> None:
    given = {"ALVEOLE_SITE": "other", "ALVEOLE_SOCKET": "/x"}
    env = lower.environment(spec(processes=(Process("web", ("x",)),), env=given), MACHINE)
    assert env["ALVEOLE_SITE"] == SITE
    assert env["ALVEOLE_SOCKET"] == "/run/alveole/web.sock"


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("/usr/sbin/nginx", "SIGQUIT"),
        ("php-fpm8.2", "SIGQUIT"),
        ("apache2", "SIGWINCH"),
        ("gunicorn", "SIGTERM"),
        ("/srv/nginx-like", "SIGTERM"),
    ],
)
def test_stop_signal(program: str, expected: str) -> None:
    assert supervise.stop_signal(program) == expected


def test_writable_data_is_found_by_number_and_id_alone() -> None:
    limited = {m.destination: m.source for m in lower.lower(COMMAND, MACHINE).config.mounts}
    assert limited["/data"] == f"/run/alveole/sites/{SITE}/disk/volumes/2/data"
    assert limited["/site/current"] == f"/var/lib/alveole/sites/{SITE}/content/releases/{'ab' * 32}"
    free = msgspec.structs.replace(COMMAND, limits=Limits(1000, 512 * MIB, 256))
    assert {m.destination: m.source for m in lower.lower(free, MACHINE).config.mounts}[
        "/data"
    ] == f"/var/lib/alveole/sites/{SITE}/data/volumes/2/data"


def test_only_the_supervisor_of_several_users_is_root() -> None:
    assert lower.lower(MODULES, MODULES_MACHINE).config.process.user == lower.ROOT_USER
    assert lower.process(MODULES, MODULES_MACHINE, ("x",)).user == lower.SITE_USER
    assert lower.process(MODULES, MODULES_MACHINE, ("x",), uid=0).capabilities.bounding == ()
    assert lower.lower(SERVICES, MACHINE).config.process.user == lower.SITE_USER


def test_what_cannot_run_together_is_told() -> None:
    told = {problem.field: problem.message for problem in supervise.check(IMAGE)}
    assert told == {}
    wrong = spec(
        processes=(Process("web", ("x",)), Process("web", ("y",))),
        links=(FileLink("relative", "/x"), FileLink("/data", "/x"), FileLink("/a\nb", "/x"), FileLink("/../x", "/x")),
        volumes=(VolumeMount("data", "/data/a"), VolumeMount("alveole-state", "/b")),
    )
    assert len(list(supervise.check(wrong))) == 6
    root = msgspec.structs.replace(IMAGE, processes=(Process("web", ("x",), uid=0),))
    assert [problem.field for problem in supervise.check(root)] == ["run"]
