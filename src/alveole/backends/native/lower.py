"""PURE. From one workload to what the container runtime is given.

``lower(spec, machine) → Bundle``: the OCI configuration, the argument vector, the mounts, the
services of the supervisor. Nothing here looks at the machine: what must be known of it is in
:class:`Machine`. The same input gives the same bytes (golden files in ``tests/pure``).

The configuration follows the OCI runtime specification 1.0.2. Masked and read-only paths are
Docker's defaults (moby, ``oci/defaults.go``), less what a user namespace cannot reach anyway.
"""

from __future__ import annotations

from pathlib import PurePosixPath

import msgspec

from alveole.backends.native import supervise
from alveole.backends.native.supervise import S6_SVSCAN, SERVICES, Service
from alveole.config import Settings
from alveole.host import paths
from alveole.host.syscalls import RANGE
from alveole.model.resource import WorkloadSpec
from alveole.model.site import CONFIG, MIB, SITE_CONTENT, SITE_RELEASES, SITE_SOCKET, SITE_UID, BaseKind

#: What an image's processes keep inside their user namespace: Docker's default set (moby,
#: ``oci/caps/defaults.go``) less NET_RAW, MKNOD, SYS_CHROOT, SETPCAP, SETFCAP and AUDIT_WRITE,
#: which forge packets, make devices or hand out more rights. Every other base keeps none.
IMAGE_CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID")
)
STATIC_ARGV = ("/usr/sbin/nginx", "-c", "/etc/alveole/nginx.conf", "-e", "stderr")
TINI = "/usr/bin/tini-static"
#: /dev is always a fresh file system of ours, so the program that is PID 1 needs no place in a base.
INIT = "/dev/tini"
SOCKETS = str(PurePosixPath(SITE_SOCKET).parent)
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class User(msgspec.Struct, frozen=True):
    """Ids inside the container: always numbers, never a name that a base could redefine (threat 5)."""

    uid: int
    gid: int
    additional_gids: tuple[int, ...] = msgspec.field(name="additionalGids", default=())
    umask: int = 0o002
    """bind(2) applies it to a socket, and connect(2) wants write permission: the edge has it by its group."""


SITE_USER = User(SITE_UID, SITE_UID)
ROOT_USER = User(0, 0)


class Machine(msgspec.Struct, frozen=True):
    """What ``lower`` must know beside the workload."""

    settings: Settings
    user: User = SITE_USER
    """Who runs the image's processes; other bases always run as the site's own user."""
    base_env: dict[str, str] = {}
    cwd: str = "/"
    open_files: int = 20_000
    """``RLIMIT_NOFILE``; at most the agent's own, which cannot be raised without CAP_SYS_RESOURCE."""
    oom_score: int = 200
    seccomp: str = ""
    """The compiled filter in base64; see ``host.seccomp``."""
    nameservers: tuple[str, ...] = ()
    """Those a site may reach: the rules let it out to public addresses only."""
    network: str = ""
    """Path of the network namespace. Empty: the runtime makes one with nothing in it."""
    passwd: str = ""
    """``/etc/passwd`` and ``/etc/group`` of the base, when the workload adds users."""
    group: str = ""


class Mount(msgspec.Struct, frozen=True):
    destination: str
    type: str
    source: str
    options: tuple[str, ...]


class Rlimit(msgspec.Struct, frozen=True):
    type: str
    hard: int
    soft: int


class Capabilities(msgspec.Struct, frozen=True):
    bounding: tuple[str, ...]
    effective: tuple[str, ...]
    inheritable: tuple[str, ...]
    permitted: tuple[str, ...]
    ambient: tuple[str, ...]


class ProcessConfig(msgspec.Struct, frozen=True, rename="camel"):
    terminal: bool
    user: User
    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    capabilities: Capabilities
    rlimits: tuple[Rlimit, ...]
    oom_score_adj: int
    no_new_privileges: bool = True


class Root(msgspec.Struct, frozen=True):
    path: str
    readonly: bool


class IdMapping(msgspec.Struct, frozen=True):
    container_id: int = msgspec.field(name="containerID")
    host_id: int = msgspec.field(name="hostID")
    size: int


class Namespace(msgspec.Struct, frozen=True, omit_defaults=True):
    type: str
    path: str = ""


class Linux(msgspec.Struct, frozen=True, rename="camel"):
    uid_mappings: tuple[IdMapping, ...]
    gid_mappings: tuple[IdMapping, ...]
    namespaces: tuple[Namespace, ...]
    masked_paths: tuple[str, ...]
    readonly_paths: tuple[str, ...]


class Config(msgspec.Struct, frozen=True, rename="camel"):
    """``config.json`` of the bundle."""

    oci_version: str
    process: ProcessConfig
    root: Root
    hostname: str
    mounts: tuple[Mount, ...]
    linux: Linux
    annotations: dict[str, str]


class Bundle(msgspec.Struct, frozen=True):
    config: Config
    overlay: bool
    """Whether the root is an overlay that is kept; else the base itself, read-only."""
    stop_signal: str
    services: tuple[Service, ...]
    """The supervisor's directories. Empty: one program runs alone."""
    generated: dict[str, str]
    """Files of the bundle that are bind-mounted into ``/etc``."""
    needs: tuple[str, ...] = ()
    """Programs that the base itself must hold."""


def instance_name(site: str, slot: int) -> str:
    """The one name of an instance: its run directory, cgroup and container id."""
    return f"{site}.{slot}"


def user_of(spec: WorkloadSpec, machine: Machine) -> User:
    return machine.user if spec.base_kind is BaseKind.OCI else SITE_USER


def environment(spec: WorkloadSpec, machine: Machine) -> dict[str, str]:
    """What the site's processes find: defaults, then the image's, then the site's, then ours."""
    user = user_of(spec, machine)
    env = {"PATH": _PATH, "LANG": "C.UTF-8", "HOME": "/root" if user.uid == 0 else "/tmp"}  # noqa: S108  the container's own
    env.update(machine.base_env)
    env.update(spec.env)
    env["ALVEOLE_SITE"] = spec.site
    if spec.port is None:
        env["ALVEOLE_SOCKET"] = SITE_SOCKET
    else:
        env["PORT"] = str(spec.port)
    return env


def working_directory(spec: WorkloadSpec, machine: Machine) -> str:
    if spec.release is not None:
        return SITE_CONTENT
    return machine.cwd if spec.base_kind is BaseKind.OCI else "/"


def capabilities(spec: WorkloadSpec, supervisor: bool = False) -> Capabilities:
    kept = IMAGE_CAPABILITIES if spec.base_kind is BaseKind.OCI else ()
    if supervisor and supervise.is_mixed(spec):
        kept = supervise.CAPABILITIES
    # No ambient set: a process that is not root in the container holds nothing at all.
    return Capabilities(kept, kept, (), kept, ())


def process(
    spec: WorkloadSpec,
    machine: Machine,
    argv: tuple[str, ...],
    *,
    terminal: bool = False,
    uid: int | None = None,
    supervisor: bool = False,
) -> ProcessConfig:
    """A process inside: PID 1, or one started later by ``exec`` (then ``uid`` may name another id).

    ``supervisor``: it starts others, perhaps as other users; only ever for a program of ours.
    """
    user = user_of(spec, machine) if uid is None else User(uid, uid)
    if supervisor and supervise.is_mixed(spec):
        user = ROOT_USER
    env = environment(spec, machine)
    if terminal:
        env.setdefault("TERM", "xterm-256color")
    return ProcessConfig(
        terminal=terminal,
        user=user,
        args=argv,
        env=tuple(f"{key}={value}" for key, value in env.items()),
        cwd=working_directory(spec, machine),
        capabilities=capabilities(spec, supervisor),
        rlimits=(
            Rlimit("RLIMIT_NOFILE", machine.open_files, machine.open_files),
            # 1 and not 0: see host.seccomp.
            Rlimit("RLIMIT_CORE", 1, 1),
        ),
        oom_score_adj=machine.oom_score,
    )


def lower(spec: WorkloadSpec, machine: Machine) -> Bundle:
    settings = machine.settings
    run = paths.instance(settings, spec.site, spec.slot)
    services: tuple[Service, ...] = ()
    needs: tuple[str, ...] = ()
    if spec.static:
        first = process(spec, machine, STATIC_ARGV)
    elif supervise.is_supervised(spec):
        first = process(spec, machine, (S6_SVSCAN, SERVICES), supervisor=True)
        services = supervise.services(spec)
        needs = supervise.needs(spec)
    else:
        alone = spec.processes[0]
        first = process(spec, machine, (INIT, "--", *alone.argv))
        env = environment(spec, machine) | alone.env
        variables = tuple(f"{key}={value}" for key, value in env.items())
        first = msgspec.structs.replace(first, env=variables, cwd=alone.cwd or first.cwd)
    generated = {} if spec.static else {"hosts": _hosts(spec, settings)}
    if generated and spec.limits.internet:
        generated["resolv.conf"] = "".join(f"nameserver {address}\n" for address in machine.nameservers)
    if spec.accounts:
        generated["passwd"] = supervise.passwd(machine.passwd, spec.accounts)
        generated["group"] = supervise.group(machine.group, spec.accounts)
    start = settings.uid_start(spec.number)
    mapping = (IdMapping(0, start, RANGE),)
    config = Config(
        oci_version="1.0.2",
        process=first,
        root=Root(str(run / "root"), readonly=not spec.writable),
        hostname=spec.hostname,
        mounts=_mounts(spec, settings, generated),
        linux=Linux(
            uid_mappings=mapping,
            gid_mappings=mapping,
            namespaces=(
                *(Namespace(kind) for kind in ("pid", "mount", "uts", "ipc", "cgroup", "user")),
                Namespace("network", machine.network),
            ),
            masked_paths=(
                "/proc/acpi",
                "/proc/asound",
                "/proc/interrupts",
                "/proc/kcore",
                "/proc/keys",
                "/proc/latency_stats",
                "/proc/sched_debug",
                "/proc/scsi",
                "/proc/timer_list",
                "/proc/timer_stats",
            ),
            readonly_paths=("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"),
        ),
        annotations={"run.oci.seccomp_bpf_data": machine.seccomp} if machine.seccomp else {},
    )
    return Bundle(config, spec.writable, stop_signal(spec), services, generated, needs)


def stop_signal(spec: WorkloadSpec) -> str:
    """What PID 1 ends cleanly on."""
    if spec.static:
        return "SIGQUIT"
    if supervise.is_supervised(spec):
        return "SIGTERM"
    alone = spec.processes[0]
    return alone.stop_signal or supervise.stop_signal(alone.argv[0])


def _hosts(spec: WorkloadSpec, settings: Settings) -> str:
    plan = settings.addressing()
    return (
        "127.0.0.1 localhost\n::1 localhost ip6-localhost\n"
        f"{plan.life4(spec.number)} {spec.hostname}\n{plan.life6(spec.number)} {spec.hostname}\n"
    )


def _tmpfs(where: str, size: int, mode: str, *options: str, owner: int = 0) -> Mount:
    owned = (f"uid={owner}", f"gid={owner}") if owner else ()
    return Mount(where, "tmpfs", "tmpfs", ("nosuid", "nodev", *options, f"mode={mode}", f"size={size}", *owned))


def _bind(where: str, source: object, *options: str) -> Mount:
    return Mount(where, "bind", str(source), ("bind", *options, "nosuid", "nodev"))


def _mounts(spec: WorkloadSpec, settings: Settings, generated: dict[str, str]) -> tuple[Mount, ...]:
    run = paths.instance(settings, spec.site, spec.slot)
    room = min(spec.limits.memory_bytes // 2, 512 * MIB)
    found = [
        Mount("/proc", "proc", "proc", ("nosuid", "noexec", "nodev")),
        _tmpfs("/dev", 64 * 1024, "755", "noatime"),
        Mount("/dev/pts", "devpts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620")),
    ]
    # No sysfs: it would show the host's, because our network namespace is not owned by the site's
    # user namespace, and nothing a web application needs is in there.
    if not spec.static:
        found.append(_tmpfs("/dev/shm", room, "1777", "noexec"))  # noqa: S108  likewise
    if spec.base_kind is BaseKind.HOST:
        # What the machine's owner installed by hand is no part of the base: an empty directory lies over it.
        empty = paths.base_root(settings, spec.base) / "sys"
        found += [_bind("/usr", "/usr", "ro"), _bind("/usr/local", empty, "ro")]
    if spec.base_kind is BaseKind.HOST or not spec.writable:
        found.append(_tmpfs("/tmp", room, "1777"))  # noqa: S108  likewise
    # An image may bring things in /run; elsewhere it is empty and belongs to the site's user. Each
    # file system less is memory that a static site does not take.
    if spec.base_kind is not BaseKind.OCI and not spec.static:
        if supervise.is_mixed(spec):
            found.append(_tmpfs("/run", 16 * MIB, "1777"))
        else:
            found.append(_tmpfs("/run", 16 * MIB, "755", owner=SITE_UID))
    found.append(_bind(SOCKETS, paths.sockets(settings, spec.site, spec.slot), "noexec"))
    if spec.release is not None:
        found.append(_bind(SITE_CONTENT, paths.release(settings, spec.site, spec.release), "ro"))
        # What is delivered while it runs is there for the program before the switch, which runs in here.
        found.append(_bind(SITE_RELEASES, paths.releases(settings, spec.site), "ro"))
    elif spec.static:
        found.append(_bind(str(PurePosixPath(SITE_CONTENT).parent), paths.content(settings, spec.site), "ro"))
    if supervise.is_supervised(spec):
        found.append(_bind(SERVICES, run / "services"))
    elif spec.processes:
        found.append(_bind(INIT, TINI, "ro"))
    if spec.config:
        found.append(_bind(CONFIG, paths.config_files(settings, spec.site)))
    found.extend(_bind(f"/etc/{name}", run / "bundle" / name, "ro") for name in sorted(generated))
    data = paths.data_dir(settings, spec.site, spec.limits.disk_bytes is not None)
    volumes = [(volume.path, volume.name) for volume in spec.volumes]
    if supervise.has_state(spec):
        volumes.append((supervise.STATE, paths.STATE_VOLUME))
    kept: dict[str, Mount] = {
        path: _bind(path, paths.volume(data, spec.data_generation, name)) for path, name in volumes
    }
    for place, each in enumerate(spec.shared or ()):
        options = () if each.writable else ("ro",)
        kept[each.path] = _bind(each.path, paths.shared(settings, spec.site, spec.slot, place), *options)
    # What lies in another comes after it.
    found.extend(kept[path] for path in sorted(kept))
    return tuple(found)
