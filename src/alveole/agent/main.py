"""Wiring of the root process: which actuators there are, what each verb calls, and its life."""

from __future__ import annotations

import contextlib
import fcntl
import grp
import logging
import os
import pwd
import shutil
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from functools import partial
from types import FrameType
from typing import Any

from alveole.actuators.analysis import Analyses
from alveole.actuators.anchors import Anchors
from alveole.actuators.backups import Backups
from alveole.actuators.basecare import BaseCare
from alveole.actuators.bases import Bases
from alveole.actuators.builds import Builds
from alveole.actuators.certificates import CertificatesActuator, certifying
from alveole.actuators.config import ConfigFiles
from alveole.actuators.edge import EdgeActuator
from alveole.actuators.edge_logs import EdgeLogs
from alveole.actuators.host_logs import HostLogs
from alveole.actuators.images import Images
from alveole.actuators.log_keeper import LogKeeper, make_own
from alveole.actuators.nameserver import NameServers
from alveole.actuators.network import Instance, NetworkActuator
from alveole.actuators.releases import Releases, room
from alveole.actuators.routes import RoutesActuator
from alveole.actuators.storage import Storage
from alveole.agent import keeping, protocol
from alveole.agent.agent import Agent, Verb
from alveole.agent.anchoring import KeepAnchor, ListAnchors
from alveole.agent.figuring import Figures, Served, SiteFigures, TakeFigures, total
from alveole.agent.lending import CheckShared, LookAtPorts
from alveole.agent.logwords import AnalyseLogs, GatherLogs
from alveole.agent.naming import SetUpNames, UndoNames
from alveole.agent.operating import ListPrograms, RestartProcess, SignalProgram
from alveole.agent.reach import Reaches
from alveole.agent.reaching import Reach
from alveole.agent.server import Server
from alveole.agent.trial import Trials
from alveole.agent.using import Use, Using
from alveole.app import prepare_control
from alveole.backends.base import Say, Session, Usage
from alveole.backends.native import processes
from alveole.backends.native.build import BuildRunner
from alveole.backends.native.run import NativeBackend
from alveole.backends.native.visits import Visits
from alveole.config import Settings
from alveole.errors import InvalidInput, Refused
from alveole.host import disk, instances, lent, paths, runtime
from alveole.host.firewall import Firewall
from alveole.host.network import SiteNetwork
from alveole.host.sandbox import Sandbox
from alveole.model.resource import PLATFORM
from alveole.model.site import Release

log = logging.getLogger("alveole.agent")
#: Package lists of the same request are taken for those of now.
_LISTS_SECONDS = 600.0
#: In the proxy's lines: a name that nobody has, and the panel.
_OF_NO_SITE = frozenset({"", PLATFORM})


def run_agent(settings: Settings, ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT; ``ready`` is called once the door is open. Raises ``AlveoleError``."""
    os.umask(0o022)
    control = prepare_control(settings)
    with _only_one(settings):
        _prepare(settings, control)
        runtime.prepare_mount_namespace(settings)
        runtime.allow_core_limit()
        server, close = build(settings, frozenset({control.pw_uid}))

        def stop(_number: int, _frame: FrameType | None) -> None:
            threading.Thread(target=server.close).start()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        server.listen()
        ready()
        log.info("the agent listens at %s", settings.agent_socket)
        try:
            server.serve()
        finally:
            close()


@contextlib.contextmanager
def _only_one(settings: Settings) -> Iterator[None]:
    """Hold the lock of this run directory; raises ``Refused`` when another agent does."""
    file = os.open(settings.run / "agent.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(
                f"another agent already runs in {settings.run}", hint="stop it, or give this instance its own paths.run"
            ) from None
        yield
    finally:
        os.close(file)


def _prepare(settings: Settings, control: pwd.struct_passwd) -> None:
    """Directories of the layout with their owners; raises ``InvalidInput`` when a user is missing."""
    missing = [name for name in (settings.users.edge, settings.users.log) if not _exists(name)]
    if missing:
        raise InvalidInput(
            f"there is no user {' nor '.join(missing)} on this machine",
            field="users",
            hint="adduser --system --group --no-create-home NAME",
        )
    edge_group = grp.getgrnam(settings.users.edge).gr_gid
    for directory, mode, gid in (
        (paths.sites(settings), 0o711, 0),
        (paths.bases(settings), 0o711, 0),
        (settings.logs, 0o751, control.pw_gid),
        (paths.secrets(settings), 0o700, 0),
        (settings.run / "sites", 0o711, 0),
        (settings.run / "sockets", 0o710, edge_group),
    ):
        directory.mkdir(parents=True, exist_ok=True)
        os.chown(directory, 0, gid)
        directory.chmod(mode)
    make_own(settings)
    lines = paths.lines(settings)
    lines.mkdir(exist_ok=True)
    os.chown(lines, control.pw_uid, edge_group)
    lines.chmod(0o710)


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def build(settings: Settings, allowed: frozenset[int]) -> tuple[Server, Callable[[], None]]:
    """The agent's door with everything behind it, not yet open, and what ends it all."""
    network = SiteNetwork(settings)
    firewall = Firewall(settings)
    sandbox = Sandbox()
    sandbox.start()
    backend = NativeBackend(settings, network, firewall, on_end=lambda site: server.tell(site))
    releases = Releases(settings, sandbox)
    bases = Bases(settings, sandbox)
    care = BaseCare(settings, sandbox, bases, lambda: server.tell(PLATFORM))
    bases.running = partial(_bases_running, settings)
    trials = Trials(settings, releases, backend)
    images = Images(settings, sandbox, bases)
    visits = Visits(backend, releases, sandbox, partial(room, settings))
    backups = Backups(
        settings, sandbox, releases, lambda site, _slot: backend.frozen(site), backend.inside.saving, visits
    )
    config = ConfigFiles(settings, sandbox, backend.inside)
    certificates = CertificatesActuator(settings)

    runner = BuildRunner(backend)
    builds = Builds(settings, releases, runner)
    edge = EdgeActuator(settings)
    lines = EdgeLogs(settings, edge.master)
    routes = RoutesActuator(settings)
    anchors = Anchors(settings)
    reaches = Reaches(settings)
    names = NameServers(settings)
    host_logs = HostLogs(settings)
    keeper = LogKeeper(settings, backend.output.close_file, host_logs.gather)
    analyses = Analyses(settings)

    # What asks over HTTP and TLS is loaded when somebody wants to know: it is large.
    def inspect(request: protocol.Inspect, _files: list[int], _say: Any) -> tuple[protocol.Link, ...]:
        from alveole.agent import chain

        return chain.Inspector(
            settings, partial(_pid_of, settings), certificates.authority_pem, certificates.given_chain
        ).chain(request)

    def listeners(request: LookAtPorts, _files: list[int], _say: Any) -> tuple[protocol.Link, ...]:
        from alveole.agent import listening

        return listening.look(request, _pid_of(settings, request.site, request.slot))

    def doctor(_request: protocol.Doctor, _files: list[int], _say: Any) -> tuple[protocol.Link, ...]:
        from alveole.agent import chain

        return chain.doctor(settings, backend.cgroups.mode)

    # Likewise: nobody needs it until somebody looks at the programs of a site.
    def programs(request: ListPrograms | SignalProgram | RestartProcess, _files: list[int], _say: Any) -> Any:
        from alveole.backends.native import programs as found

        if isinstance(request, ListPrograms):
            return found.look(backend, request.site, request.slot)
        return found.send(backend, request) if isinstance(request, SignalProgram) else found.restart(backend, request)

    def import_release(request: protocol.ImportRelease, files: list[int], say: Say) -> Release:
        # A start follows an import; the namespace is made while the content is unpacked.
        threading.Thread(target=backend.prepare, args=(request.number,), daemon=True).start()
        return releases.import_release(
            request.site, request.number, _one(files), request.format, say, first=request.first
        )

    def remove_site(request: protocol.RemoveSite, _files: list[int], _say: Any) -> None:
        if instances.of_site(settings, request.site):
            raise Refused("an instance of the site is still there", field="site", hint="stop the site first")
        visits.end(request.site)
        disk.release(settings, request.site)
        releases.remove_site(request.site, request.number)
        keeper.forget(request.site) if request.forget else keeper.retire(request.site)
        shutil.rmtree(paths.site_log(settings, request.site), ignore_errors=True)
        routes.forget(request.site)
        lines.forget(request.site)

    def drop_release(request: protocol.DropRelease, _files: list[int], _say: Any) -> None:
        if visits.stands_on(request.site) == request.digest:
            raise Refused("the working copy stands on this release", field="release", hint="publish or drop it first")
        releases.drop_release(request.site, request.number, request.digest)

    def figures() -> Figures:
        served = lines.served()
        usage = backend.usage(None, io=True)
        return Figures(
            since=lines.since,
            sites={
                site: SiteFigures(
                    running=site in usage,
                    memory_bytes=(used := usage.get(site, Usage())).memory_bytes,
                    cpu_seconds=used.cpu_seconds,
                    pids=used.pids,
                    disk_bytes=used.disk_bytes,
                    io_read_bytes=used.io_read_bytes,
                    io_write_bytes=used.io_write_bytes,
                    served=served.get(site, Served()),
                )
                for site in usage.keys() | served.keys() - _OF_NO_SITE
            },
            edge=total(found for site, found in served.items() if site in _OF_NO_SITE),
        )

    def using(request: Using, _files: list[int], _say: Any) -> dict[str, Use]:
        # Only where sites sleep.
        from alveole.host import connections

        network4 = settings.addressing()
        sockets = {each.site: paths.web_socket(settings, each.site, each.slot) for each in request.instances}
        ports = {
            each.site: (network4.instance(each.number, each.slot).own4, each.port)
            for each in request.instances
            if each.port is not None
        }
        by_file, by_port = connections.count(
            [path for site, path in sockets.items() if site not in ports], ports.values()
        )
        found = {}
        for each in request.instances:
            address = ports.get(each.site)
            found[each.site] = Use(
                *lines.last_asked(each.site),
                by_file.get(sockets[each.site], 0) if address is None else by_port[f"{address[0]}:{address[1]}"],
            )
        return found

    def start(request: protocol.Exec | protocol.Visit) -> Session:
        if isinstance(request, protocol.Visit):
            return visits.open(request)
        return backend.exec(request.site, request.slot, request.argv, tty=request.tty, uid=request.uid)

    verbs: dict[type, Verb] = {
        protocol.Facts: lambda _r, _f, _s: facts(settings, backend),
        protocol.GetUsage: lambda r, _f, _s: backend.usage(r.sites),
        protocol.ImportRelease: import_release,
        protocol.BuildRelease: lambda r, _f, s: builds.build(r, s),
        protocol.WantsBuild: lambda r, _f, _s: builds.wants(r),
        protocol.DropRelease: drop_release,
        protocol.CopyRelease: lambda r, _f, s: releases.copy(r, s),
        protocol.CompareReleases: lambda r, _f, _s: releases.compare(r),
        protocol.LookAtWork: lambda r, _f, _s: visits.look(r),
        protocol.KeepWork: lambda r, _f, s: visits.keep(r, s),
        protocol.WorkKept: lambda r, _f, _s: visits.kept(r),
        protocol.DropWork: lambda r, _f, _s: visits.drop(r),
        protocol.EndVisits: lambda r, _f, _s: visits.end(r.site),
        protocol.RemoveSite: remove_site,
        protocol.ReadConfig: lambda r, _f, _s: config.read(r.site, r.number),
        protocol.ForgetConfig: lambda r, _f, _s: config.forget(r.site, r.number, r.paths),
        protocol.ResolveBase: lambda r, _f, _s: bases.resolve(r.kind, r.packages),
        protocol.DropBase: lambda r, _f, _s: bases.drop(r.key),
        protocol.ListBases: lambda r, _f, _s: care.list(r.key),
        protocol.VerifyBase: lambda r, _f, s: care.verify(r.key, s),
        protocol.CheckBase: lambda r, _f, s: care.check(r.key, s, fresh_seconds=0.0 if r.fetch else _LISTS_SECONDS),
        protocol.RenewBase: lambda r, _f, s: care.renew(r.key, s),
        protocol.CloneSite: lambda r, _f, s: trials.clone(r, s),
        protocol.CheckHealth: lambda r, _f, _s: trials.check(r),
        protocol.ListProcesses: lambda r, _f, _s: processes.look(settings, r.site, r.slot),
        ListPrograms: programs,
        SignalProgram: programs,
        RestartProcess: programs,
        protocol.ImportImage: lambda _r, f, s: images.import_image(_one(f), s),
        protocol.PullImage: lambda r, _f, s: images.pull(r, s),
        protocol.CreateBackup: lambda r, _f, s: backups.create(r, s),
        protocol.ReadBackup: lambda r, _f, _s: backups.read_manifest(r.snapshot, r.digest),
        protocol.RestoreBackup: lambda r, _f, s: backups.restore(r, s),
        protocol.PackSite: lambda r, f, s: backups.pack(r, _one(f), s),
        protocol.UnpackSite: lambda r, f, s: backups.unpack(r, _one(f), s),
        protocol.LookAtData: lambda r, _f, _s: backups.look(r),
        protocol.DropBackup: lambda r, _f, _s: backups.drop(r.snapshot, prune=r.prune),
        protocol.ListBackups: lambda _r, _f, _s: backups.list(),
        **keeping.verbs(settings, sandbox, backups),
        protocol.GetAuthority: lambda _r, _f, _s: certificates.authority_pem(),
        **certifying(certificates),
        protocol.Inspect: inspect,
        protocol.Doctor: doctor,
        TakeFigures: lambda _r, _f, _s: figures(),
        KeepAnchor: lambda r, _f, _s: anchors.keep(r.seq, r.hash),
        ListAnchors: lambda _r, _f, _s: anchors.all(),
        LookAtPorts: listeners,
        CheckShared: lambda r, _f, _s: lent.check(settings, r.shared),
        Reach: lambda r, f, _s: reaches.open(r, f),
        SetUpNames: lambda r, _f, _s: names.set_up(r),
        UndoNames: lambda _r, _f, _s: names.undo(),
        GatherLogs: lambda _r, _f, _s: keeper.gather(),
        AnalyseLogs: lambda r, f, _s: analyses.analyse(r, [_one(f)]),
        Using: using,
    }
    agent = Agent(
        (
            NetworkActuator(settings, network, firewall, partial(_running, settings)),
            edge,
            certificates,
            routes,
            releases,
            bases,
            Storage(settings),
            config,
            backend,
        ),
        verbs,
    )
    server = Server(
        settings.agent_socket,
        allowed,
        agent.handle,
        start,
    )
    stopped = threading.Event()
    threading.Thread(target=_look_after_edge, args=(edge, server, stopped), name="edge", daemon=True).start()
    threading.Thread(target=lines.run, args=(stopped,), name="edge logs", daemon=True).start()
    threading.Thread(target=keeper.run, args=(stopped,), name="logs", daemon=True).start()
    releases.recover()
    bases.recover()
    images.recover()
    trials.recover()
    threading.Thread(target=care.run, args=(stopped,), name="bases", daemon=True).start()
    backups.recover()
    backend.start()
    runner.recover()
    visits.recover()
    threading.Thread(target=names.recover, name="names", daemon=True).start()
    threading.Thread(target=visits.run, args=(stopped,), name="visits", daemon=True).start()

    def close() -> None:
        stopped.set()
        visits.close()
        backend.close()
        sandbox.close()
        network.close()

    return server, close


def _look_after_edge(edge: EdgeActuator, server: Server, stopped: threading.Event) -> None:
    """Have the proxy looked at the moment it ends."""
    while not stopped.wait(0.5):
        master = edge.master()
        if master is None:
            continue
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(master)
            try:
                while not instances.wait_end(pidfd, 1.0):
                    if stopped.is_set():
                        break
                else:
                    server.tell(PLATFORM)
            finally:
                os.close(pidfd)


def _pid_of(settings: Settings, site: str, slot: int) -> int | None:
    state = instances.load(settings, site, slot)
    return state.pid if state is not None and state.running else None


def _bases_running(settings: Settings) -> list[tuple[str, float]]:
    states = (instances.load(settings, site, slot) for site, slot in instances.present(settings))
    return [(state.spec.base, state.at) for state in states if state is not None and state.running]


def _running(settings: Settings) -> list[Instance]:
    states = (instances.load(settings, site, slot) for site, slot in instances.present(settings))
    return [
        Instance(state.spec.site, state.spec.number, state.spec.slot, state.spec.limits.internet)
        for state in states
        if state is not None and state.running
    ]


def _one(files: Collection[int]) -> int:
    if len(files) != 1:
        raise InvalidInput(f"comes with {len(files)} files instead of one", field="request")
    return next(iter(files))


def facts(settings: Settings, backend: NativeBackend) -> protocol.MachineFacts:
    """What machine this is, for ``status``."""
    disk = shutil.disk_usage(settings.state)
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return protocol.MachineFacts(
        cgroup=backend.cgroups.mode,
        kernel=os.uname().release,
        runtime=backend.name,
        proxy="nginx",
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=pages,
        disk_free_bytes=disk.free,
        disk_bytes=disk.total,
    )
