"""Make instances exist and end them. Every part is safe to repeat and to kill.

A start is one straight line of small effects; whatever fails half-way is undone by :meth:`_purge`,
which is also how an instance is deleted and how the leftovers of a killed agent go: there is one
way to take an instance away, and it does not care how far it had come.
"""

from __future__ import annotations

import contextlib
import functools
import grp
import logging
import os
import resource
import shutil
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from alveole.backends.base import Say, Session, Usage, quiet
from alveole.backends.native import exec as native_exec
from alveole.backends.native import lower, ready, services, supervise
from alveole.backends.native.facts import BaseFacts, Beside, base_facts, nameservers
from alveole.backends.native.observe import Looker, meter
from alveole.backends.native.watch import Watch, reap
from alveole.config import Settings
from alveole.errors import AlveoleError, InvalidInput, NotFound, Problem, StepFailed
from alveole.failpoints import hit
from alveole.host import bases, configstamp, disk, instances, lent, mounts, paths, runtime, seccomp, syscalls, userns
from alveole.host.cgroups import Cgroups
from alveole.host.instances import Ended, InstanceState
from alveole.host.output import Output
from alveole.model.addressing import InstanceNet
from alveole.model.resource import Action, Kind, Observation, Outcome, Step, WorkloadSpec
from alveole.model.site import BaseKind

log = logging.getLogger("alveole.native")
#: How often a supervisor is asked again to end.
_AGAIN_SECONDS = 0.5
#: How long a fresh instance may use more processor time than its plan gives.
_START_SECONDS = 3.0
#: Where the trees of a base are mounted for the moment in which the root is put together, below the instance's place.
_SCRATCH = ("base", "lower", *(f"lower{number}" for number in range(2, bases.DEPTH)))


class Network(Protocol):
    """What an instance needs of ``host.network.SiteNetwork``."""

    def plug(self, number: int, slot: int, *, internet: bool) -> int: ...
    def replug(self, number: int, slot: int, netns_fd: int, internet: bool) -> None: ...
    def unplug(self, number: int, slot: int) -> None: ...
    def interfaces(self) -> dict[str, int]: ...


class Firewall(Protocol):
    """What an instance needs of ``host.firewall.Firewall``."""

    def admit(self, net: InstanceNet, internet: bool) -> None: ...
    def withdraw(self, net: InstanceNet) -> None: ...


class NativeBackend:
    """Workloads as containers of crun. ``on_end`` is called with a site's id when an instance of it ended."""

    name = "native"
    kinds = frozenset({Kind.WORKLOAD})

    def __init__(
        self,
        settings: Settings,
        network: Network,
        firewall: Firewall,
        *,
        on_end: Callable[[str], None] = lambda site: None,
    ) -> None:
        self.settings = settings
        self.cgroups = Cgroups(settings)
        self.output = Output(settings, self.cgroups)
        self._network = network
        self._firewall = firewall
        self._on_end = on_end
        self._addressing = settings.addressing()
        self._crun = runtime.Crun(settings, self.cgroups)
        self._watch = Watch(self._ended)
        self._looker = Looker(settings, self.output, network)
        self._locks: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)
        self._meter = meter(settings)
        self._namespaces = userns.KeptNamespaces()
        self._saving = threading.Lock()
        self._facts: dict[str, BaseFacts] = {}
        self.inside = services.Inside(settings, self._crun, self.output, self._machine, self._locks.__getitem__)

    # Life of the agent

    def start(self) -> None:
        """Find again what runs, take away what nobody owns, and watch. Call it once."""
        runtime.become_reaper()
        for directory, mode in ((self.settings.run / "sites", 0o711), (self.settings.run / "sockets", 0o710)):
            directory.mkdir(mode=mode, parents=True, exist_ok=True)
            directory.chmod(mode)
        os.chown(self.settings.run / "sockets", 0, self._edge_group())
        shutil.rmtree(self.settings.run / "exec", ignore_errors=True)  # sessions of an agent that was killed
        self._recover()
        self._watch.start()

    def close(self) -> None:
        """Stop watching. Instances go on."""
        self._watch.close()
        self._namespaces.close()

    def _recover(self) -> None:
        owned = set()
        for site, slot in instances.present(self.settings):
            owned.add(name := lower.instance_name(site, slot))
            # An agent that was killed while it saved the site's data has left it standing still.
            self.cgroups.thaw(name)
            state = instances.load(self.settings, site, slot)
            if state is None or not state.pid or state.boot != instances.boot_id():
                continue  # observed as damaged, and made anew or deleted by the loop
            pidfd = instances.open_process(state.pid, state.started)
            if pidfd is not None:
                self._watch.add(state.name, pidfd)
                if not state.ready:
                    # An agent that was killed while it started has left it without its limit.
                    self.cgroups.settle(state.name, state.spec.limits)
            elif state.ended is None:
                self._record_end(state, None, None)
        for name in (self.cgroups.names() | self._crun.known()) - owned:
            if instances.parse_name(name):
                log.warning("taking away what is left of %s", name)
                self.cgroups.thaw(name)
                self.cgroups.kill(name)
                self.cgroups.remove(name)
                self._crun.forget(name)

    # The protocol

    def check(self, workload: WorkloadSpec) -> tuple[Problem, ...]:
        problems = []
        if workload.static and workload.processes:
            problems.append(Problem("processes", "static content is served without a process of its own"))
        if not workload.static and not workload.processes:
            problems.append(Problem("processes", "nothing would run", "give --command"))
        try:
            self._addressing.life4(workload.number)
        except ValueError as error:
            problems.append(Problem("number", str(error), "choose a larger network.ipv4"))
        return (*problems, *supervise.check(workload))

    def observe(self, scopes: Collection[str] | None = None) -> Observation:
        return self._looker.observe(scopes)

    def apply(self, step: Step, say: Say = quiet) -> Outcome:
        site, slot = step.id.scope, int(step.id.name)
        with self._locks[site], self._looker.busy(site):
            try:
                if step.action is Action.DELETE:
                    self._delete(site, slot, step.grace_seconds)
                    return Outcome(True)
                spec = step.spec
                if not isinstance(spec, WorkloadSpec) or (spec.site, spec.slot) != (site, slot):
                    raise InvalidInput(f"{step.action} {step.id} needs its specification", field="step.spec")
                if step.action is Action.REPAIR and self._repair(spec, step.digest):
                    return Outcome(True)
                if step.action is not Action.CREATE:
                    self._delete(site, slot, step.grace_seconds)
                self._create(spec, step.digest, say)
                return Outcome(True)
            except ready.NotReady as error:
                return Outcome(False, f"not ready: {error}", tail=error.tail)
            except StepFailed as error:
                return Outcome(False, str(error))

    def prepare(self, number: int) -> None:
        """Make ahead what the first start of site ``number`` needs and costs most: its user namespace."""
        with contextlib.suppress(OSError):
            os.close(self._namespaces.take(self.settings.uid_start(number)))

    def sweep(self, name: str, place: Path) -> None:
        """Take away what a container that is no site's instance has on the machine, ``place`` with it. Idempotent."""
        self.cgroups.thaw(name)
        self.cgroups.kill(name)
        self.cgroups.remove(name)
        self._crun.forget(name)
        if place.exists():
            for point in syscalls.mount_points(place):
                mounts.detach(point)
            mounts.remove_tree(place)

    def usage(self, sites: Collection[str] | None = None, *, io: bool = False) -> dict[str, Usage]:
        totals: dict[str, Usage] = {}
        for name, stats in self.cgroups.all_stats().items():
            instance = instances.parse_name(name)
            if instance is None or (sites is not None and instance[0] not in sites):
                continue
            before = totals.get(instance[0], Usage())
            read, written = self.cgroups.io(name) if io else (0, 0)
            totals[instance[0]] = Usage(
                before.memory_bytes + stats.memory_bytes,
                before.cpu_seconds + stats.cpu_seconds,
                0,
                before.pids + stats.pids,
                before.io_read_bytes + read,
                before.io_write_bytes + written,
            )
        one = sites is not None and len(sites) == 1
        return {
            site: msgspec.structs.replace(usage, disk_bytes=self._meter(site, one)) for site, usage in totals.items()
        }

    def exec(self, site: str, slot: int, argv: Sequence[str], *, tty: bool, uid: int | None) -> Session:
        state = instances.load(self.settings, site, slot)
        if state is None or not state.running:
            raise NotFound(f"no instance {slot} of {site} runs", hint="start the site first")
        machine = self._machine(state.spec)
        process = lower.process(state.spec, machine, tuple(argv), terminal=tty, uid=uid)
        return native_exec.open_session(self.settings, self._crun, state.name, process)

    @contextlib.contextmanager
    def frozen(self, site: str) -> Iterator[None]:
        """All instances of the site stand still for the block, for a consistent copy of its data."""
        with self._locks[site], contextlib.ExitStack() as stack:
            names = [lower.instance_name(site, slot) for slot in instances.of_site(self.settings, site)]
            for name in (*names, f"visit.{site}"):
                if self.cgroups.pids(name):
                    stack.callback(self.cgroups.thaw, name)
                    self.cgroups.freeze(name)
            hit("site-frozen")
            yield

    # Starting

    def _create(self, spec: WorkloadSpec, digest: str, say: Say) -> None:
        if problems := self.check(spec):
            raise InvalidInput(problems=problems)
        before = instances.load(self.settings, spec.site, spec.slot)
        if before is not None and before.digest == digest and before.ready and before.running:
            return
        # The run directory comes first and goes last: without it nothing of the instance is there.
        if paths.instance(self.settings, spec.site, spec.slot).exists():
            self._purge(spec.site, spec.slot, spec.number)
        with contextlib.ExitStack() as undo:
            undo.callback(self._purge, spec.site, spec.slot, spec.number)
            state = self._launch(spec, digest)
            say("waiting until it answers", None)
            with self._starting(state.name, spec):
                self._wait_ready(state)
            instances.save(self.settings, msgspec.structs.replace(state, ready=True))
            undo.pop_all()
        hit("workload-ready")

    def _launch(self, spec: WorkloadSpec, digest: str) -> InstanceState:
        place = paths.instance(self.settings, spec.site, spec.slot)
        net = self._addressing.instance(spec.number, spec.slot)
        _mkdir(place, 0o711)
        state = InstanceState(digest, spec, instances.boot_id(), time.time())
        with self._saving:
            instances.save(self.settings, state)
        hit("workload-begin")
        if spec.static:
            # It may start before its content is in (``Releases.prepare_site`` makes the same).
            for path, mode in (
                (paths.site(self.settings, spec.site), 0o711),
                (paths.content(self.settings, spec.site), 0o755),
            ):
                path.mkdir(parents=True, exist_ok=True)
                path.chmod(mode)
        with Beside(lambda: self._prepare_beside(spec)) as beside:
            return self._launch_with(state, place, net, beside)

    def _prepare_beside(self, spec: WorkloadSpec) -> int:
        """What takes time and needs nothing of the rest: its disk, its user namespace, and its log, which is given."""
        if spec.limits.disk_bytes is not None and (spec.writable or spec.volumes):
            disk.attach(paths.disk_image(self.settings, spec.site), paths.disk_mount(self.settings, spec.site))
        self.prepare(spec.number)
        return self.output.open(spec.site)

    def _launch_with(self, state: InstanceState, place: Path, net: InstanceNet, beside: Beside) -> InstanceState:
        name, spec = state.name, state.spec
        self.cgroups.create(name, spec.limits)
        uid = paths.site_uid(self.settings, spec.number)
        mounts.socket_directory(paths.sockets(self.settings, spec.site, spec.slot), uid, self._edge_group())
        netns = self._network.plug(spec.number, spec.slot, internet=spec.limits.internet)
        with contextlib.ExitStack() as held:
            held.callback(os.close, netns)
            self._firewall.admit(net, spec.limits.internet)
            hit("workload-network")
            machine = msgspec.structs.replace(self._machine(spec), network=f"/proc/{os.getpid()}/fd/{netns}")
            bundle = lower.lower(spec, machine)
            self._check_base(spec, bundle)
            self._write_bundle(place, spec, bundle)
            output = beside.result()
            # The container has its own copy of the mount as soon as it runs; here it would only be in the way.
            held.callback(mounts.detach, place / "root")
            self._mount_root(place, spec, bundle)
            user = lower.user_of(spec, machine)
            start = self.settings.uid_start(spec.number)
            for number, each in enumerate(spec.shared or ()):
                target = paths.shared(self.settings, spec.site, spec.slot, number)
                held.callback(mounts.detach, target)
                lent.mount(self.settings, each, target, start + user.uid, start + user.gid)
            hit("workload-root")
            pid = self._crun.run(name, place / "bundle", output)
        hit("workload-running")
        started = instances.start_time(pid)
        state = msgspec.structs.replace(state, pid=pid, started=started or -1)
        instances.save(self.settings, state)
        self.cgroups.settle(name, spec.limits, starting=True)
        return state

    @contextlib.contextmanager
    def _starting(self, name: str, spec: WorkloadSpec) -> Iterator[None]:
        """After the block, and after a few seconds in any case, it has the processor time of its plan."""

        def settle() -> None:
            with contextlib.suppress(OSError):  # it ended meanwhile
                self.cgroups.settle(name, spec.limits)

        timer = threading.Timer(_START_SECONDS, settle)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            settle()

    def _wait_ready(self, state: InstanceState) -> None:
        pidfd = instances.open_process(state.pid, state.started)
        try:
            if pidfd is None:
                raise ready.NotReady("it ended before it answered", ended=True)
            if supervise.is_supervised(state.spec):
                place = paths.instance(self.settings, state.spec.site, state.spec.slot)
                services.wait_up(place, pidfd, supervise.start_seconds(state.spec))
            if state.spec.health:
                ready.wait(self.settings, state.spec, pidfd)
            mounts.open_to_group(paths.web_socket(self.settings, state.spec.site, state.spec.slot))
        except ready.NotReady as error:
            message = str(error)
            tail = self.output.tail(state.spec.site)
            if error.ended:
                status, number = reap(pidfd) if pidfd is not None else (None, None)
                ended = Ended(time.time(), status, number, self.cgroups.oom_kills(state.name) > 0)
                said = services.message(tail) if supervise.is_supervised(state.spec) and not ended.oom else ""
                message = said or f"{message}: {self._looker.cause(state, ended)}"
            if pidfd is not None:
                os.close(pidfd)
            raise ready.NotReady(message, ended=error.ended, tail=tail) from None
        except BaseException:
            if pidfd is not None:
                os.close(pidfd)
            raise
        self._watch.add(state.name, pidfd)

    def _machine(self, spec: WorkloadSpec) -> lower.Machine:
        facts = self._base_facts(spec.base) if spec.base_kind is BaseKind.OCI else BaseFacts()
        passwd, group = services.base_users(self._trees(spec)) if spec.accounts else ("", "")
        return lower.Machine(
            settings=self.settings,
            user=facts.user,
            base_env=facts.env,
            cwd=facts.cwd,
            open_files=min(65_536, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
            oom_score=max(200, int(Path("/proc/self/oom_score_adj").read_text())),
            seccomp=seccomp.annotation(),
            nameservers=self.settings.network.resolvers[:3] or nameservers(),
            passwd=passwd,
            group=group,
        )

    def _base_facts(self, key: str) -> BaseFacts:
        # Read once: a base never changes under its key.
        if key not in self._facts:
            self._facts[key] = base_facts(self.settings, key)
        return self._facts[key]

    def _edge_group(self) -> int:
        try:
            return grp.getgrnam(self.settings.users.edge).gr_gid
        except KeyError:
            raise StepFailed(
                f"there is no group {self.settings.users.edge}", hint="run the installation again"
            ) from None

    def _check_base(self, spec: WorkloadSpec, bundle: lower.Bundle) -> None:
        if spec.config and not paths.config_files(self.settings, spec.site).is_dir():
            raise StepFailed("its configuration files are not there")
        trees = self._trees(spec)
        if spec.base_kind is BaseKind.HOST:
            trees = (Path("/"),)
        for program in bundle.needs:
            if not bases.find(trees, program.lstrip("/")).exists():
                raise StepFailed(f"the base has no {program}", hint="several processes need the package s6 in the base")

    def _trees(self, spec: WorkloadSpec) -> tuple[Path, ...]:
        try:
            return bases.trees(self.settings, spec.base)
        except (NotFound, ValueError) as error:
            raise StepFailed(f"the base {spec.base} cannot be used: {error}") from error

    def _write_bundle(self, place: Path, spec: WorkloadSpec, bundle: lower.Bundle) -> None:
        directory = place / "bundle"
        _mkdir(directory, 0o711)
        for name, text in bundle.generated.items():
            file = directory / name
            file.write_text(text)
            file.chmod(0o644)
        instances.write(directory / "config.json", msgspec.json.encode(bundle.config))
        if spec.config:
            readers = configstamp.readers_now(self.settings, spec.site)
            configstamp.note_read_by(self.settings, spec.site, spec.slot, readers)
        if bundle.services:
            uid = self.settings.uid_start(spec.number) + bundle.config.process.user.uid
            services.write(place / "services", bundle.services, uid)

    def _mount_root(self, place: Path, spec: WorkloadSpec, bundle: lower.Bundle) -> None:
        base = self._trees(spec)
        start = self.settings.uid_start(spec.number)
        target = place / "root"
        if supervise.has_state(spec):
            services.ensure_state(self.settings, spec)
        points = [mount.destination for mount in bundle.config.mounts]
        own = [path for path in points if not path.startswith("/etc/") and not _is_inside(path, points)]
        scratch = tuple(place / name for name in _SCRATCH)
        namespace = self._namespaces.take(start)
        try:
            if not spec.writable and _has_directories(base, tuple(own)):
                mounts.readonly_root(base, target, scratch, namespace)
                return
            if spec.writable:
                data = paths.data_dir(self.settings, spec.site, spec.limits.disk_bytes is not None)
                layer = paths.root_dir(data, spec.slot)
            else:
                layer = place / "layer"  # only mount points: nothing that anybody wants to keep
            # The layer belongs to what it was made over: another base or other content starts anew.
            key = f"{spec.base}\n{spec.release}\n"
            mounts.prepare_layer(layer, start, fresh=bool(spec.forgets) or _read(layer / "key") != key)
            (layer / "key").write_text(key)
            mounts.plain_directories(layer / "upper", base, own, start)
            mounts.overlay_root(base, layer, target, scratch, namespace)
        finally:
            os.close(namespace)

    # Ending

    def _delete(self, site: str, slot: int, grace: float) -> None:
        state = instances.load(self.settings, site, slot)
        if state is not None and state.running:
            if grace > 0:
                time.sleep(min(grace, 600.0))
            self._watch.remove(state.name)
            self._stop(state)
        self._purge(site, slot, state.spec.number if state else None)
        if state is not None and state.spec.writable and instances.of_site(self.settings, site):
            # Another instance has taken over: an update, which drops what the old root had changed.
            with disk.borrowed(self.settings, site) as data:
                mounts.remove_tree(paths.root_dir(data, slot))

    def _stop(self, state: InstanceState) -> None:
        """Ask the instance to end and wait for it, at the most for its grace."""
        self.cgroups.thaw(state.name)
        pidfd = instances.open_process(state.pid, state.started)
        if pidfd is None:
            return
        grace = supervise.stop_seconds(state.spec)
        deadline = time.monotonic() + grace
        number = signal.Signals[lower.stop_signal(state.spec)]
        try:
            signal.pidfd_send_signal(pidfd, number)
            while not instances.wait_end(pidfd, min(_AGAIN_SECONDS, deadline - time.monotonic())):
                if time.monotonic() >= deadline:
                    log.warning("%s did not end within %d s", state.name, grace)
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    instances.wait_end(pidfd, 5.0)
                    break
                if supervise.is_supervised(state.spec):
                    # A signal that came before s6-svscan was ready for it is lost: PID 1 has no default action.
                    signal.pidfd_send_signal(pidfd, number)
            reap(pidfd)
        except ProcessLookupError:
            pass
        finally:
            os.close(pidfd)

    def _purge(self, site: str, slot: int, number: int | None) -> None:
        """Take away all that an instance has on the machine, however far it had come. Idempotent."""
        name = lower.instance_name(site, slot)
        place = paths.instance(self.settings, site, slot)
        self._watch.remove(name)
        self.cgroups.thaw(name)
        self.cgroups.kill(name)
        if number is not None:
            self._firewall.withdraw(self._addressing.instance(number, slot))
            self._network.unplug(number, slot)
        self._crun.forget(name)
        for point in ("root", *_SCRATCH, "services", *(each.name for each in place.glob("shared*"))):
            mounts.detach(place / point)
        sockets = paths.sockets(self.settings, site, slot)
        mounts.detach(sockets)
        with contextlib.suppress(FileNotFoundError):
            sockets.rmdir()
        self.cgroups.remove(name)
        # Last: as long as it is there the instance is observed, so nothing can be left unseen.
        hit("workload-gone")
        mounts.remove_tree(place)
        self._looker.forget(name)
        if not instances.of_site(self.settings, site):
            self.output.close(site)
            target = paths.disk_mount(self.settings, site)
            disk.detach(target)
            with contextlib.suppress(OSError):
                target.parent.rmdir()

    # Repairing

    def _repair(self, spec: WorkloadSpec, digest: str) -> bool:
        """Set right what can be without ending the instance; false when it has to be started anew."""
        state = instances.load(self.settings, spec.site, spec.slot)
        if state is None or state.digest != digest or not state.ready or not state.running:
            return False
        if not self._looker.has_sockets(spec.site, spec.slot):
            return False
        try:
            namespace = os.open(f"/proc/{state.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        net = self._addressing.instance(spec.number, spec.slot)
        try:
            self._network.replug(spec.number, spec.slot, namespace, spec.limits.internet)
            self._firewall.admit(net, spec.limits.internet)
            self.output.ensure(spec.site)
        except (OSError, AlveoleError) as error:
            log.warning("%s is started anew: %s", state.name, error)
            return False
        finally:
            os.close(namespace)
        self._looker.forget(state.name)
        if not self._watch.watched(state.name):
            pidfd = instances.open_process(state.pid, state.started)
            if pidfd is None:
                return False
            self._watch.add(state.name, pidfd)
        return True

    # The end of an instance by itself

    def _ended(self, name: str, status: int | None, number: int | None) -> None:
        instance = instances.parse_name(name)
        if instance is None:
            return
        # Not the site's lock: a start of its other instance may hold that for a minute.
        with self._saving:
            state = instances.load(self.settings, *instance)
            if state is None or not state.pid or state.ended is not None or state.running:
                return
            self._record_end(state, status, number)
        log.info("%s ended", name)
        self._on_end(instance[0])

    def _record_end(self, state: InstanceState, status: int | None, number: int | None) -> None:
        oom = self.cgroups.oom_kills(state.name) > 0
        instances.save(self.settings, msgspec.structs.replace(state, ended=Ended(time.time(), status, number, oom)))


@functools.lru_cache(maxsize=256)
def _has_directories(base: tuple[Path, ...], wanted: tuple[str, ...]) -> bool:
    """Whether the base has them all, none behind a link. Asked once: a base never changes under its key."""
    return all(mounts.is_plain_directory(base, path) for path in wanted)


def _is_inside(path: str, points: Sequence[str]) -> bool:
    return any(path.startswith(f"{point}/") for point in points)


def _mkdir(path: Path, mode: int) -> None:
    path.mkdir(exist_ok=True)
    path.chmod(mode)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
