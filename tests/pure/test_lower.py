"""The bundles of the native back end, byte for byte. ``ALVEOLE_GOLDEN=write`` writes the files anew."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from alveole.backends.native import lower
from alveole.config import Settings
from alveole.model.resource import WorkloadSpec
from alveole.model.site import MIB, BaseKind, Limits, Process, VolumeMount

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
    return WorkloadSpec(**values)  # type: ignore[arg-type]


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
IMAGE = spec(base="oci-0123456789abcdef", base_kind=BaseKind.OCI, processes=(Process("web", ("httpd-foreground",)),))
IMAGE_MACHINE = msgspec.structs.replace(
    MACHINE, user=lower.User(33, 33), base_env={"HTTPD_PREFIX": "/usr/local/apache2"}, cwd="/usr/local/apache2"
)
CASES = {
    "lower-static": (STATIC, MACHINE),
    "lower-command": (COMMAND, MACHINE),
    "lower-services": (SERVICES, MACHINE),
    "lower-image": (IMAGE, IMAGE_MACHINE),
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


def test_only_images_keep_capabilities() -> None:
    for name, (workload, machine) in CASES.items():
        kept = lower.lower(workload, machine).config.process.capabilities
        assert bool(kept.bounding) == (name == "lower-image")
        assert kept.ambient == kept.inheritable == ()
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
    assert lower.stop_signal(program) == expected


def test_writable_data_is_found_by_number_and_id_alone() -> None:
    limited = {m.destination: m.source for m in lower.lower(COMMAND, MACHINE).config.mounts}
    assert limited["/data"] == f"/run/alveole/sites/{SITE}/disk/volumes/2/data"
    assert limited["/site/current"] == f"/var/lib/alveole/sites/{SITE}/content/releases/{'ab' * 32}"
    free = msgspec.structs.replace(COMMAND, limits=Limits(1000, 512 * MIB, 256))
    assert {m.destination: m.source for m in lower.lower(free, MACHINE).config.mounts}[
        "/data"
    ] == f"/var/lib/alveole/sites/{SITE}/data/volumes/2/data"
