"""Run the programs of a build: strangers' code, in a container that ends with it.

What it sees: its base, read-only; ``/site/current``, an overlay over the release that is built, so that nothing is
copied before and the release itself never changes; ``/cache``, which the builds of the site share; ``/tmp``. What it
writes lies in one sparse file system of the site with a hard size. It has the site's own ids, no capability, the limits
of the settings, and no network: with leave, a namespace that holds nothing but the socket of ``host.registries``.

Everything it has on the machine hangs on one name, ``build.<site>``, so that one sweep takes it away, after a death of
the agent too.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import shutil
import socket
import subprocess
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from pathlib import Path

import msgspec

from alveole.agent.protocol import BuildRelease
from alveole.backends.base import Say
from alveole.backends.native import lower
from alveole.backends.native.run import NativeBackend
from alveole.backends.native.watch import reap
from alveole.errors import Refused, StepFailed
from alveole.failpoints import hit
from alveole.host import disk, instances, mounts, netlink, netns, paths, syscalls
from alveole.host.builds import applies
from alveole.model.resource import WorkloadSpec
from alveole.model.site import MIB, SITE_CONTENT, SITE_RELEASES, BuildCommand, Limits, Process

log = logging.getLogger("alveole.native")
CACHE = "/cache"
#: What of ours a build reads: the authorities it trusts.
OURS = "/build"
KEPT_LINES, LINE_CHARACTERS = 400, 400
_SAY_SECONDS = 0.1
_PIPE_BYTES, _LINE_BYTES = 65_536, 4096
#: The most that is read of a build's output in a second.
FLOOD_BYTES = 4 * 1024 * 1024
#: Builds that run at once: each may use a core and all of its memory.
MOST_BUILDS = 2
_PREFIX = "build."
_HOSTS = "127.0.0.1 localhost build\n::1 localhost\n"
#: Where package managers keep what they have fetched, and what they write of themselves.
_CACHES = {
    "PIP_CACHE_DIR": f"{CACHE}/pip",
    "NPM_CONFIG_CACHE": f"{CACHE}/npm",
    "COMPOSER_CACHE_DIR": f"{CACHE}/composer",
    "COMPOSER_HOME": f"{CACHE}/composer-home",
    "BUNDLE_USER_HOME": f"{CACHE}/bundle",
    "XDG_CACHE_HOME": f"{CACHE}/xdg",
    "HOME": "/tmp",  # noqa: S108  the container's own
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_INPUT": "1",
    "NPM_CONFIG_UPDATE_NOTIFIER": "false",
    "NPM_CONFIG_FUND": "false",
    "NPM_CONFIG_AUDIT": "false",
    # Of fifteen downloads at once some starve on a slow machine, and the registry hangs up on them.
    "NPM_CONFIG_MAXSOCKETS": "5",
    "NPM_CONFIG_FETCH_RETRIES": "5",
    # What a native addon is compiled against: Debian's headers, in the base; those of nodejs.org are out of reach.
    "NPM_CONFIG_NODEDIR": "/usr",
    "COMPOSER_NO_AUDIT": "1",
    # Composer breaks its messages at 80 columns, in the middle of addresses.
    "COLUMNS": "200",
    "CI": "1",
}
#: Each in its own words: do not even try.
_OFFLINE = {"PIP_NO_INDEX": "1", "NPM_CONFIG_OFFLINE": "true", "COMPOSER_DISABLE_NETWORK": "1"}
_TRUST = (
    "PIP_CERT",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "NPM_CONFIG_CAFILE",
    "CURL_CA_BUNDLE",
)


class Failed(Exception):
    """A program of the build failed; the message says which and how."""


class Said:
    """What a build prints: the last lines are kept, and now and then one is told."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._next = 0.0
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)

    def add(self, text: str, *, always: bool = False) -> None:
        """``always``: told however much was told just now."""
        # Progress bars write many times into one line: the last state of it is the line.
        text = text.rstrip("\r\n").rpartition("\r")[2]
        line = "".join(char if char.isprintable() else " " for char in text)[:LINE_CHARACTERS].strip()
        if not line:
            return
        self.lines.append(line)
        now = time.monotonic()
        if always or now >= self._next:
            self._next = now + _SAY_SECONDS
            self._say(line, None)

    def follow(self, fd: int) -> None:
        """Take lines from the pipe ``fd`` until nobody holds its other end.

        Of what comes faster than anybody reads the ends are taken, and it is slowed down to ``FLOOD_BYTES`` a
        second: a flood must not keep the agent busy.
        """
        rest, owed = b"", 0.0
        try:
            while data := os.read(fd, _PIPE_BYTES):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines[-KEPT_LINES:]:
                    self.add(line[-_LINE_BYTES:].decode("utf-8", "replace"))
                rest = rest[-_LINE_BYTES:]
                owed += len(data) / FLOOD_BYTES
                if owed > 0.01:
                    time.sleep(owed)
                    owed = 0.0
            self.add(rest.decode("utf-8", "replace"))
        finally:
            os.close(fd)


class BuildRunner:
    """Runs builds, one at a time for each site. ``backend`` has the pieces that instances are made of."""

    def __init__(self, backend: NativeBackend) -> None:
        self._backend = backend
        self._settings = backend.settings
        self._cgroups = backend.cgroups
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._turns = threading.BoundedSemaphore(MOST_BUILDS)

    def recover(self) -> None:
        """Take away what builds have that the death of an agent cut short. Once, at its start."""
        top = paths.builds(self._settings)
        top.mkdir(mode=0o711, parents=True, exist_ok=True)
        top.chmod(0o711)
        left = {name for name in self._cgroups.names() | self._backend._crun.known() if name.startswith(_PREFIX)}
        left |= {_PREFIX + entry.name for entry in os.scandir(top)}
        for name in sorted(left):
            log.warning("taking away what is left of %s", name)
            self._sweep(name.removeprefix(_PREFIX))

    @contextlib.contextmanager
    def build(self, job: BuildRelease, say: Say) -> Iterator[tuple[int | None, str, tuple[str, ...]]]:
        """The tree after all programs have run, as an open directory that lasts as long as the block.

        ``(None, what is wrong, last lines)`` when one failed. Raises ``Refused`` while another build of the
        site is going on, and ``StepFailed``.
        """
        said = Said(say)
        if not self._turns.acquire(blocking=False):
            say("waiting for another build to end", None)
            self._turns.acquire()
        try:
            with self._run(job, said) as tree:
                yield tree, "", tuple(said.lines)
        except Failed as error:
            yield None, str(error), tuple(said.lines)
        finally:
            self._turns.release()

    @contextlib.contextmanager
    def _run(self, job: BuildRelease, said: Said) -> Iterator[int]:
        lock = self._locks[job.site]
        if not lock.acquire(blocking=False):
            raise Refused("a build of this site is going on", field="site", hint="wait for it to end")
        try:
            self._sweep(job.site)
            try:
                tree = self._prepare(job)
                deadline = time.monotonic() + self._settings.build.seconds
                with self._way_out(job, said) as way_out:
                    for command in job.commands:
                        if applies(command, tree):
                            self._one(job, command, way_out, said, deadline)
                fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    yield fd
                finally:
                    os.close(fd)
            finally:
                self._sweep(job.site)
        finally:
            lock.release()

    # What it stands on

    def _place(self, site: str) -> Path:
        return paths.builds(self._settings) / site

    def _prepare(self, job: BuildRelease) -> Path:
        """Mount the disk of the site's builds and on it the tree; gives where that is on this machine."""
        place, uid = self._place(job.site), paths.site_uid(self._settings, job.number)
        release = paths.release(self._settings, job.site, job.source)
        if not release.is_dir():
            raise StepFailed(f"release {job.source[:19]}… is missing", hint="deliver it again")
        place.mkdir(mode=0o711)
        place.chmod(0o711)
        hit("build-begin")
        top = self._disk(job.site, place / "disk")
        mounts.prepare_layer(top / "layer", uid, fresh=True)
        (top / "cache").mkdir(mode=0o755, exist_ok=True)
        os.chown(top / "cache", uid, uid)
        tree = place / "tree"
        tree.mkdir(mode=0o755)
        flags = syscalls.MS_NODEV | syscalls.MS_NOSUID
        data = f"lowerdir={release},upperdir={top / 'layer' / 'upper'},workdir={top / 'layer' / 'work'}"
        syscalls.mount("alveole", tree, "overlay", flags, data)
        self._cgroups.create(_PREFIX + job.site, self._limits())
        hit("build-prepared")
        return tree

    def _disk(self, site: str, target: Path) -> Path:
        """The file system that holds what the site's builds write; a cache that has outgrown it goes."""
        image, size = paths.build_image(self._settings, site), self._settings.build.disk_bytes
        if image.exists() and disk.size(image) != size:
            image.unlink()
        for _ in range(2):
            if not image.exists():
                disk.create(image, size)
            disk.attach(image, target)
            # What the last build has written counts for nothing any more.
            mounts.remove_tree(target / "layer")
            room = os.statvfs(target)
            if room.f_bavail >= room.f_blocks // 2 and room.f_favail >= room.f_files // 2:
                break
            disk.detach(target)
            image.unlink()
        return target

    def _limits(self) -> Limits:
        build = self._settings.build
        return Limits(build.cpu_millis, build.memory_bytes, build.pids)

    def _sweep(self, site: str) -> None:
        """Take away all that a build has on the machine but its disk, however far it had come. Idempotent."""
        self._backend.sweep(_PREFIX + site, self._place(site))

    # The way out

    @contextlib.contextmanager
    def _way_out(self, job: BuildRelease, said: Said) -> Iterator[str]:
        """Path of a network namespace with a proxy to the registries in it; empty without leave."""
        build = self._settings.build
        if not (job.network and any(command.network for command in job.commands)):
            yield ""
            return
        # Here and not above: only builds need it, and what it imports is large.
        from alveole.host import registries

        space, listener = netns.in_thread(_listen)
        lifeline_r, lifeline_w = os.pipe2(os.O_CLOEXEC)
        said_r, said_w = os.pipe2(os.O_CLOEXEC)
        # An id of the site's range that owns nothing and that nothing in a container runs as.
        uid = self._settings.uid_start(job.number) + _PROXY_UID
        argv = registries.argv(listener.fileno(), uid, build.registries, build.private_networks)
        try:
            proxy = self._cgroups.spawn(
                _PREFIX + job.site, argv, stdin=lifeline_r, stdout=said_w, stderr=said_w, pass_fds=(listener.fileno(),)
            )
        except BaseException:
            for fd in (space, lifeline_w, said_r):
                os.close(fd)
            raise
        finally:
            listener.close()
            os.close(lifeline_r)
            os.close(said_w)
        follower = threading.Thread(target=said.follow, args=(said_r,), name="build-proxy", daemon=True)
        follower.start()
        try:
            yield f"/proc/{os.getpid()}/fd/{space}"
        finally:
            os.close(lifeline_w)
            os.close(space)
            try:
                proxy.wait(5)
            except subprocess.TimeoutExpired:
                proxy.kill()
                proxy.wait()
            follower.join(5)

    # One program

    def _one(self, job: BuildRelease, command: BuildCommand, way_out: str, said: Said, deadline: float) -> None:
        name, place = _PREFIX + job.site, self._place(job.site)
        said.add(f"$ {shlex.join(command.argv)}", always=True)
        network = way_out if command.network else ""
        spec = self._spec(job, command, network)
        machine = msgspec.structs.replace(self._backend._machine(spec), network=network)
        bundle = self._bundle(place, lower.lower(spec, machine))
        self._backend._check_base(spec, bundle)
        self._backend._write_bundle(place, spec, bundle)
        ours = place / "bundle" / "ours"
        ours.mkdir(mode=0o755)
        if self._has_authorities():
            shutil.copyfile(self._settings.build.certificates, ours / "ca.pem")
        output_r, output_w = os.pipe2(os.O_CLOEXEC)
        follower = threading.Thread(target=said.follow, args=(output_r,), name="build-output", daemon=True)
        follower.start()
        try:
            try:
                self._backend._mount_root(place, spec, bundle)
                pid = self._backend._crun.run(name, place / "bundle", output_w)
            finally:
                os.close(output_w)
                mounts.detach(place / "root")
            self._cgroups.settle(name, self._limits())
            hit("build-running")
            self._wait(pid, command, deadline, name)
        finally:
            self._backend._crun.forget(name)
            mounts.remove_tree(place / "bundle")
            # Nothing of the container can hold the pipe any more: its first process was its reaper.
            follower.join(10)

    def _wait(self, pid: int, command: BuildCommand, deadline: float, name: str) -> None:
        pidfd = os.pidfd_open(pid)
        try:
            while not instances.wait_end(pidfd, min(1.0, max(0.0, deadline - time.monotonic()))):
                late = time.monotonic() >= deadline
                if late or self._disk_is_short():
                    self._cgroups.kill(name)
                    instances.wait_end(pidfd, 5.0)
                    reap(pidfd)
                    raise Failed(
                        f"{command.argv[0]} took longer than the {self._settings.build.seconds} s of a build"
                        if late
                        else "the state disk is full: only the platform's own reserve is left"
                    )
            status, number = reap(pidfd)
        finally:
            os.close(pidfd)
        if status == 0:
            return
        shown = shlex.join(command.argv)[:200]
        if self._cgroups.oom_kills(name):
            raise Failed(f"{shown} needs more than the {self._settings.build.memory_bytes // MIB} MiB of a build")
        raise Failed(f"{shown} ended with {f'status {status}' if status is not None else f'signal {number}'}")

    def _disk_is_short(self) -> bool:
        """What builds write is sparse: the disk below may fill up before their own limit is reached."""
        disk = os.statvfs(self._settings.state)
        return disk.f_bavail * disk.f_frsize < self._settings.content.reserve_bytes

    def _spec(self, job: BuildRelease, command: BuildCommand, network: str) -> WorkloadSpec:
        settings = self._settings.build
        env = {**_CACHES, **settings.environment, **job.env}
        if network:
            from alveole.host import registries

            proxy = "http://{}:{}".format(*registries.LISTEN)
            env |= dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"), proxy)
            env |= dict.fromkeys(("NO_PROXY", "no_proxy"), "")
        else:
            env |= _OFFLINE
        if self._has_authorities():
            env |= dict.fromkeys(_TRUST, f"{OURS}/ca.pem")
        return WorkloadSpec(
            site=job.site,
            number=job.number,
            slot=0,
            hostname="build",
            base=job.base.key,
            base_kind=job.base.kind,
            static=False,
            writable=False,
            processes=(Process("build", command.argv),),
            port=1,
            env=env,
            volumes=(),
            data_generation=1,
            limits=self._limits(),
            health="/",
            ready_seconds=1,
            stop_seconds=1,
            incarnation=0,
            release=job.source,
        )

    def _bundle(self, place: Path, bundle: lower.Bundle) -> lower.Bundle:
        """The container of an instance, made one of a build: other mounts, nothing of the live site."""
        config = bundle.config
        kept = [
            mount
            for mount in config.mounts
            if mount.destination not in (SITE_CONTENT, SITE_RELEASES, lower.SOCKETS)
            and not mount.destination.startswith("/etc/")
        ]
        own = (
            lower.Mount("/etc/hosts", "bind", str(place / "bundle" / "hosts"), ("bind", "ro", "nosuid", "nodev")),
            lower.Mount(SITE_CONTENT, "bind", str(place / "tree"), ("bind", "nosuid", "nodev")),
            lower.Mount(CACHE, "bind", str(place / "disk" / "cache"), ("bind", "nosuid", "nodev")),
            lower.Mount(OURS, "bind", str(place / "bundle" / "ours"), ("bind", "ro", "nosuid", "nodev")),
        )
        seconds = self._settings.build.seconds
        process = msgspec.structs.replace(
            config.process,
            cwd=SITE_CONTENT,
            env=tuple(each for each in config.process.env if not each.startswith(("PORT=", "ALVEOLE_SOCKET="))),
            # For what goes on although the agent that counts the seconds has died.
            rlimits=(*config.process.rlimits, lower.Rlimit("RLIMIT_CPU", seconds, seconds)),
        )
        config = msgspec.structs.replace(
            config,
            process=process,
            root=lower.Root(str(place / "root"), readonly=True),
            mounts=(*kept, *own),
        )
        return msgspec.structs.replace(bundle, config=config, generated={"hosts": _HOSTS}, services=())

    def _has_authorities(self) -> bool:
        return Path(self._settings.build.certificates).is_file()


#: Below the "nobody" of every base.
_PROXY_UID = 65_000


def _listen() -> tuple[int, socket.socket]:
    """A new network namespace and, in it, a listening socket; the calling thread ends in it."""
    from alveole.host import registries

    syscalls.unshare(syscalls.CLONE_NEWNET)
    with netlink.Socket() as inside:
        inside.send(netlink.change_link("lo", up=True))
    listener = socket.create_server(registries.LISTEN, backlog=64)
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC), listener
