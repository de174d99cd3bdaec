"""A fake agent that keeps resources in memory, for tests of control and for trying it by hand.

It passes the same contract as the real one (``tests/contract``), so that it cannot rot. On top of
the contract it can fail, be down, be slow, lose things and let instances crash, and it writes down
in :attr:`FakeAgent.violations` whatever no correct caller would ever ask for.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from alveole.agent import protocol, saving
from alveole.agent.anchoring import Anchor, KeepAnchor, ListAnchors
from alveole.agent.certifying import CertificateSource, CertificateState, ListCertificates, ShowCertificate
from alveole.agent.figuring import Figures, TakeFigures
from alveole.agent.lending import CheckShared, LookAtPorts
from alveole.agent.logwords import AnalyseLogs, GatherLogs
from alveole.agent.naming import NamesServed, SetUpNames, UndoNames
from alveole.agent.operating import ListPrograms, ProgramState, RestartProcess, SignalProgram
from alveole.agent.reaching import Reach
from alveole.agent.using import Use, Using
from alveole.backends.base import Say, Usage
from alveole.errors import InvalidInput, NotFound, Problem, Refused, StepFailed, Temporary
from alveole.loop.plan import BY_HAND
from alveole.model.app import Difference
from alveole.model.resource import (
    PLATFORM,
    Action,
    AddressSpec,
    BaseSpec,
    ConfigSpec,
    Defect,
    Kind,
    Observation,
    Observed,
    Outcome,
    ReleaseSpec,
    ResourceId,
    RouteSpec,
    RouteTarget,
    Spec,
    Step,
    StorageSpec,
    WorkloadSpec,
    stamp,
)
from alveole.model.site import Base, BaseKind, HealthCheck, Release
from alveole.ports import Program


class Thing(msgspec.Struct):
    """One made-up real object."""

    digest: str
    spec: Spec
    ready: bool = True
    defects: tuple[Defect, ...] = ()
    since: float = 0.0


#: Called before each request; raise to let it fail, sleep to let it take time.
Hook = Callable[[protocol.Request], None]


class FakeAgent:
    """An :class:`~alveole.ports.AgentPort`. All attributes may be changed by the test at any time."""

    def __init__(self) -> None:
        self.things: dict[ResourceId, Thing] = {}
        self.releases: dict[str, dict[str, Release]] = {}
        self.backups: dict[str, tuple[protocol.BackupMade, str, Release | None]] = {}
        self.copies: dict[str, tuple[protocol.BackupMade, str, Release | None]] = {}
        self.repositories: dict[str, saving.RepositoryState] = {}
        self.used = "local"
        self.platform_backups: list[protocol.BackupMade] = []
        self.violations: list[str] = []
        self.calls: list[protocol.Request] = []
        self.anchors: list[Anchor] = []
        self.unheard: set[int] = set()
        """Ports of the machine that lead to nobody."""
        self.reached: Callable[[Reach, int], None] = lambda _request, file: os.close(file)
        self.naming: Callable[[SetUpNames | UndoNames], NamesServed | None] = _names_served
        self.authority = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"
        self.work: dict[str, protocol.WorkState] = {}
        """Working copies; a test puts them there as visitors would."""
        self.unknown: dict[Kind, str] = {}
        self.down = False
        self.hook: Hook = lambda _request: None
        self.outcomes: dict[tuple[Kind, Action], list[Outcome]] = {}
        """Outcomes to give instead of acting, first come first served."""
        self.programs: Callable[[protocol.Exec | protocol.Visit], Program] | None = None
        """Starts what is asked for inside of sites."""
        self.slow_start = 0.0
        """Seconds until a fresh instance is ready."""
        self.by_hand: dict[str, dict[str, str | None]] = {}
        """By site: configuration files that were changed by hand, and their text."""
        self.updates: dict[str, tuple[protocol.PackageChange, ...]] = {}
        """By base: what a renewal of it changes."""
        self.installed: dict[str, dict[str, str]] = {}
        """By base: its packages and their versions."""
        self.unhealthy: dict[str, str] = {}
        """By check: how it fails."""
        self.ended: dict[str, set[int]] = {}
        """By site: programs that were sent a signal."""
        self.uses: dict[str, Use] = {}
        """By site: when somebody asked for it."""
        self._watchers: list[Callable[[str], None]] = []
        self._lock = threading.RLock()

    # --- the port -----------------------------------------------------------------------------
    def call(self, request: protocol.Request, files: Sequence[int] = (), say: Say | None = None) -> Any:
        if self.down:
            raise Temporary("the agent does not answer")
        self.hook(request)
        with self._lock:
            self.calls.append(request)
            result = self._answer(request, files)
        # Everything crosses the wire as JSON: what cannot, must not work here either.
        kind = protocol.RESULTS[type(request)]
        return None if kind is None else msgspec.json.decode(msgspec.json.encode(result), type=kind)

    def exec(self, request: protocol.Exec | protocol.Visit) -> Program:
        if self.down or self.programs is None:
            raise Temporary("the agent does not answer")
        return self.programs(request)

    def watch(self, callback: Callable[[str], None]) -> Callable[[], None]:
        self._watchers.append(callback)
        callback("*")

        def end() -> None:
            if callback in self._watchers:
                self._watchers.remove(callback)

        return end

    # --- what tests do to it ------------------------------------------------------------------
    def tell(self, scope: str) -> None:
        for watcher in list(self._watchers):
            watcher(scope)

    def fail_next(self, kind: Kind, action: Action, message: str = "made to fail", **more: Any) -> None:
        self.outcomes.setdefault((kind, action), []).append(Outcome(False, message, **more))

    def crash(self, site: str, slot: int) -> None:
        """The instance ends by itself; watchers are told."""
        with self._lock:
            thing = self.things[ResourceId(Kind.WORKLOAD, site, str(slot))]
            thing.ready = False
            thing.defects = (Defect("exited", "the program ended with status 1"),)
        self.tell(site)

    def change_by_hand(self, site: str, path: str, text: str | None) -> None:
        """Somebody writes (or, with ``None``, removes) a configuration file inside the container."""
        with self._lock:
            self.by_hand.setdefault(site, {})[path] = text
            self._mark_by_hand(site)
        self.tell(site)

    def _mark_by_hand(self, site: str) -> None:
        thing = self.things[ResourceId(Kind.CONFIG, site, "config")]
        changed = sorted(self.by_hand.get(site, {}))
        thing.defects = tuple(Defect(BY_HAND, f"{path} was changed by hand") for path in changed)

    def reboot(self) -> None:
        """Everything that does not survive a reboot is gone."""
        lasting = (Kind.BASE, Kind.RELEASE, Kind.STORAGE, Kind.CONFIG, Kind.CERTIFICATE)
        with self._lock:
            self.things = {id: thing for id, thing in self.things.items() if id.kind in lasting}

    def of(self, scope: str) -> set[str]:
        """What is there, like ``workload/0``."""
        with self._lock:
            return {f"{id.kind}/{id.name}" for id in self.things if id.scope == scope}

    def applied(self, kind: Kind | None = None) -> list[Step]:
        steps = [call.step for call in self.calls if isinstance(call, protocol.Apply)]
        return [step for step in steps if kind is None or step.id.kind is kind]

    # --- the verbs ----------------------------------------------------------------------------
    def _answer(self, request: protocol.Request, files: Sequence[int]) -> Any:
        match request:
            case protocol.Observe(scopes):
                return self._observe(scopes)
            case protocol.Apply(step):
                return self._apply(step)
            case protocol.Facts():
                return protocol.MachineFacts("v2", "6.18", "fake", "fake", 2, 4 << 30, 50 << 30, 100 << 30)
            case protocol.GetUsage(sites):
                return self._usage(sites)
            case protocol.ImportRelease():
                return self._import(request, files)
            case protocol.WantsBuild(_site, _number, _source, commands):
                return bool(commands)
            case protocol.BuildRelease():
                return self._build(request)
            case protocol.DropRelease(site, _number, digest):
                self.releases.get(site, {}).pop(digest, None)
                return None
            case protocol.CopyRelease():
                return self._copy(request)
            case protocol.CompareReleases(site, _number, before, after):
                return Difference(0, int(before != after), 0, () if before == after else ("~content",))
            case protocol.RemoveSite(site):
                return self._remove(site)
            case protocol.ReadConfig() | protocol.ForgetConfig():
                return self._config(request)
            case protocol.ResolveBase(kind, packages):
                return _base(BaseKind(kind), packages)
            case protocol.DropBase(key):
                self.things.pop(ResourceId(Kind.BASE, PLATFORM, key), None)
                return None
            case protocol.ListBases() | protocol.VerifyBase() | protocol.CheckBase() | protocol.RenewBase():
                return self._base_verbs(request)
            case protocol.CloneSite():
                return None
            case protocol.CheckHealth(_site, _slot, checks):
                return tuple(self._check(each) for each in checks)
            case protocol.ListProcesses(site, slot):
                return self._processes(site, slot)
            case ListPrograms() | SignalProgram() | RestartProcess():
                return self._programs_of(request)
            case protocol.LookAtWork(site):
                return self.work.get(site, protocol.WorkState())
            case protocol.KeepWork(site):
                return self._kept_work(site)
            case protocol.WorkKept():
                return None
            case protocol.DropWork(site):
                self.work.pop(site, None)
                return None
            case protocol.EndVisits():
                return None
            case protocol.ImportImage():
                return self._image(os.pread(files[0], 1 << 20, 0))
            case protocol.PullImage():
                return self._image(f"{request.registry}/{request.repository}:{request.tag}".encode())
            case ListCertificates():
                own, names = CertificateSource.INTERNAL, [id for id in self.things if id.kind is Kind.CERTIFICATE]
                return tuple(CertificateState(id.name, id.scope, own, f"{id.name}.pem") for id in names)
            case GatherLogs():
                return None
            case AnalyseLogs():
                return "{}"
            case ShowCertificate() | protocol.GetAuthority():
                return self.authority
            case KeepAnchor(seq, hash):
                if self.anchors and seq < self.anchors[-1].seq:
                    raise Refused("an earlier anchor says otherwise")
                self.anchors.append(Anchor(seq, hash, 1.0))
                return None
            case Using(instances):
                return {each.site: self.uses.get(each.site, Use(0.0, 0.0, 0)) for each in instances}
            case CheckShared(wanted):
                return tuple(
                    Problem("shared", f"{each.source} is not there") for each in wanted if "gone" in each.source
                )
            case Reach():
                self.reached(request, os.dup(files[0]))
                return None
            case SetUpNames() | UndoNames():
                return self.naming(request)
            case TakeFigures():
                return Figures(1.0, {})
            case ListAnchors():
                return tuple(self.anchors)
            case LookAtPorts():
                ports = [(each, each.host not in self.unheard) for each in request.ports]
                return tuple(protocol.Link(f"port {each}", heard, "who listens", "nobody") for each, heard in ports)
            case protocol.Inspect() | protocol.Doctor():
                return (protocol.Link("fake", True, "nothing", "nothing"),)
        if isinstance(request, protocol.PackSite | protocol.UnpackSite):
            return self._carry(request, files[0])
        return self._backup_verbs(request)

    def _carry(self, request: protocol.PackSite | protocol.UnpackSite, file: int) -> Any:
        """The archive is the release alone; volumes are nothing here."""
        if isinstance(request, protocol.PackSite):
            packed = msgspec.json.encode(self.releases.get(request.site, {}).get(request.release or ""))
            os.pwrite(file, packed, 0)
            return protocol.Packed(len(packed), f"sha256:{hashlib.sha256(packed).hexdigest()}")
        packed = os.pread(file, os.fstat(file).st_size, 0)
        if f"sha256:{hashlib.sha256(packed).hexdigest()}" != request.digest:
            raise Refused("the backup carried is damaged")
        release = msgspec.json.decode(packed, type=Release | None)
        if release is not None:
            self.releases.setdefault(request.site, {})[release.digest] = release
        return release

    def _config(self, request: protocol.ReadConfig | protocol.ForgetConfig) -> Any:
        thing = self.things.get(ResourceId(Kind.CONFIG, request.site, "config"))
        changed = self.by_hand.get(request.site, {})
        if isinstance(request, protocol.ForgetConfig):
            for path in request.paths:
                if changed.pop(path, None) is not None and thing is not None:
                    thing.digest = "forgotten"
            if thing is not None:
                self._mark_by_hand(request.site)
            return None
        files = thing.spec.files if thing is not None and isinstance(thing.spec, ConfigSpec) else ()
        return tuple(protocol.ConfigState(each.path, each.path in changed, changed.get(each.path)) for each in files)

    def _write_config(self, old: Thing | None, spec: ConfigSpec) -> None:
        """What was changed by hand stays where its rendered text is as before, and is settled where it is the same."""
        texts = {each.path: each.text for each in spec.files}
        before = {each.path: each.text for each in old.spec.files} if old and isinstance(old.spec, ConfigSpec) else {}
        changed = self.by_hand.get(spec.site, {})
        for path, text in list(changed.items()):
            if texts.get(path) == text:
                del changed[path]
            elif texts.get(path) != before.get(path):
                self.violations.append(f"{path}, changed by hand, was overwritten")
                del changed[path]
        self._mark_by_hand(spec.site)

    def _check(self, check: HealthCheck) -> protocol.Link:
        came = self.unhealthy.get(check.name, "")
        return protocol.Link(check.name, not came, " ".join(check.argv) or check.path, came or "well")

    def _processes(self, site: str, slot: int) -> tuple[protocol.ProcessState, ...]:
        thing = self.things.get(ResourceId(Kind.WORKLOAD, site, str(slot)))
        if thing is None or not isinstance(thing.spec, WorkloadSpec):
            return ()
        word = "up" if thing.ready else "down"
        names = [each.name for each in thing.spec.processes] or ["web"]
        restarts = 0 if len(names) > 1 or thing.spec.config else None
        return tuple(protocol.ProcessState(name, word, True, time.time() - thing.since, restarts) for name in names)

    def _programs_of(self, request: ListPrograms | SignalProgram | RestartProcess) -> Any:
        names = [each.name for each in self._processes(request.site, request.slot)]
        if isinstance(request, ListPrograms):
            gone = self.ended.get(request.site, set())
            numbered = ((pid, name) for pid, name in enumerate(names, 2) if pid not in gone)
            return tuple(ProgramState(pid, 1, name, name, 1000, "S", 0.5, 1 << 20, 60.0, 7) for pid, name in numbered)
        if isinstance(request, SignalProgram):
            if not 2 <= request.pid < 2 + len(names) or request.started != 7:
                raise NotFound("there is no program any more")
            self.ended.setdefault(request.site, set()).add(request.pid)
        elif request.name not in names:
            raise NotFound(f"there is no process {request.name!r}", field="process")
        return None

    def _base_verbs(
        self, request: protocol.ListBases | protocol.VerifyBase | protocol.CheckBase | protocol.RenewBase
    ) -> Any:
        key = request.key
        known = {id.name: thing.spec.base for id, thing in self.things.items() if isinstance(thing.spec, BaseSpec)}
        if key is not None and key not in known:
            raise NotFound(f"there is no base {key}")
        changes = self.updates.get(key or "", ())
        if isinstance(request, protocol.CheckBase):
            return changes
        if isinstance(request, protocol.RenewBase):
            old = known[request.key]
            if not changes:
                return protocol.Renewed(old, ())
            new = _base(old.kind, old.packages, *(f"{each.name}={each.after}" for each in changes))
            self.things[ResourceId(Kind.BASE, PLATFORM, new.key)] = Thing(stamp(BaseSpec(new)), BaseSpec(new))
            self.installed[new.key] = self.installed.get(old.key, {}) | {each.name: each.after for each in changes}
            return protocol.Renewed(new, changes)
        states = tuple(self._base_state(base) for name, base in sorted(known.items()) if key in (None, name))
        return states[0] if isinstance(request, protocol.VerifyBase) else states

    def _base_state(self, base: Base) -> protocol.BaseState:
        thing = self.things[ResourceId(Kind.BASE, PLATFORM, base.key)]
        damage = "; ".join(defect.cause for defect in thing.defects)
        updates, installed = self.updates.get(base.key, ()), self.installed.get(base.key, {})
        return protocol.BaseState(base, 1000, 10, thing.since, damage=damage, updates=updates, installed=installed)

    def _backup_verbs(self, request: protocol.Request) -> Any:
        match request:
            case protocol.CreateBackup():
                release = self.releases.get(request.site, {}).get(request.release or "")
                digest = f"sha256:{hashlib.sha256(request.manifest.encode()).hexdigest()}"
                made = protocol.BackupMade(request.id, f"snap{len(self.backups)}", 1000, digest, time.time())
                self.backups[made.snapshot] = (made, request.manifest, release)
                return made
            case protocol.ReadBackup(snapshot, digest):
                made, manifest, _release = self._kept_backup(snapshot)
                if f"sha256:{hashlib.sha256(manifest.encode()).hexdigest()}" != digest:
                    raise Refused(f"backup {snapshot} is damaged")
                return manifest
            case protocol.RestoreBackup():
                _made, _manifest, release = self._kept_backup(request.snapshot)
                if release is not None:
                    self.releases.setdefault(request.site, {})[release.digest] = release
                return release
            case protocol.LookAtData(site, _number, generation):
                there = ResourceId(Kind.STORAGE, site, str(generation)) in self.things
                return (protocol.VolumeState("data", 1000, 2, 1.0),) if there else ()
            case protocol.DropBackup(snapshot):
                self.backups.pop(snapshot, None)
                self.copies.pop(snapshot, None)
                return None
            case protocol.ListBackups():
                return tuple(made for made, _manifest, _release in self.backups.values())
        return self._repository_verbs(request)

    def _repository_verbs(self, request: protocol.Request) -> Any:
        match request:
            case saving.PruneBackups():
                return None
            case saving.CopyBackup(_id, snapshot, to):
                made, manifest, release = self._kept_backup(snapshot)
                name = f"{to}/copy{len(self.copies)}"
                self.copies[name] = (made, manifest, release)
                return name
            case saving.TakeBackup():
                return f"{request.to}/took-{request.id}"
            case saving.ListRepositories():
                return (
                    saving.RepositoryState("local", saving.Kind.LOCAL, "here", self.used == "local"),
                    *(
                        msgspec.structs.replace(each, used=each.name == self.used)
                        for each in self.repositories.values()
                    ),
                )
            case saving.PutRepository(name, kind, place):
                self.repositories[name] = saving.RepositoryState(name, kind, place, False)
                return self.repositories[name]
            case saving.CheckRepository(name):
                return self._repository(name)
            case saving.UseRepository(name):
                self.used = self._repository(name).name
                return None
            case saving.ForgetRepository(name):
                self.repositories.pop(self._repository(name).name)
                return None
            case saving.NewRepositoryKey():
                return "ssh-ed25519 AAAA alveole"
            case saving.BackupKey():
                return "the key of the backups"
            case saving.SavePlatform(id):
                made = saving.BackupMade(id, f"snap{len(self.backups)}p", 2000, f"sha256:{'0' * 64}", time.time())
                self.platform_backups.append(made)
                return made
            case saving.SaveKept():
                return saving.KeptSaved(0, 0)
            case saving.BrowseBackup(snapshot, path):
                self._kept_backup(snapshot)
                if path:
                    return (saving.ArchiveEntry("page.html", "f", 5, 0o644, 1),)
                return (saving.ArchiveEntry("release", "d"), saving.ArchiveEntry("volumes", "d"))
            case saving.FetchBackup(snapshot):
                self._kept_backup(snapshot)
                raise InvalidInput("the fake agent holds no bytes")
            case saving.RestoreFile(snapshot):
                self._kept_backup(snapshot)
                return 1
        raise InvalidInput(f"the agent cannot {type(request).__name__}")

    def _repository(self, name: str) -> saving.RepositoryState:
        if name == "local":
            return saving.RepositoryState("local", saving.Kind.LOCAL, "here", self.used == "local")
        if name not in self.repositories:
            raise NotFound(f"there is no repository {name!r}")
        return self.repositories[name]

    def _kept_backup(self, snapshot: str) -> tuple[protocol.BackupMade, str, Release | None]:
        if snapshot not in self.backups:
            raise NotFound(f"there is no snapshot {snapshot}")
        return self.backups[snapshot]

    def _observe(self, scopes: tuple[str, ...] | None) -> Observation:
        now = time.time()
        found = []
        for id, thing in self.things.items():
            if (scopes is not None and id.scope not in scopes) or id.kind in self.unknown:
                continue
            ready = thing.ready
            if id.kind is Kind.WORKLOAD and now - thing.since < self.slow_start:
                ready = False
            detail: dict[str, str | int | float] = {"since": thing.since}
            found.append(Observed(id, thing.digest, ready, thing.defects, _uses(thing.spec), detail))
        return Observation(tuple(found), tuple(self.unknown.items()))

    def _apply(self, step: Step) -> Outcome:
        queued = self.outcomes.get((step.id.kind, step.action))
        if queued:
            return queued.pop(0)
        self._judge(step)
        if step.action is Action.DELETE:
            self.things.pop(step.id, None)
        elif step.spec is None:
            raise InvalidInput(f"{step.action} {step.id} needs a specification")
        else:
            old = self.things.get(step.id)
            if old is not None and getattr(step.spec, "target", None) is RouteTarget.STARTING:
                return Outcome(True)
            self.things[step.id] = Thing(step.digest, step.spec, since=time.time())
            if isinstance(step.spec, ConfigSpec):
                self._write_config(old, step.spec)
        return Outcome(True)

    def _judge(self, step: Step) -> None:
        if step.action is Action.DELETE:
            users = [id for id, thing in self.things.items() if step.id in _uses(thing.spec) and id != step.id]
            if users:
                self.violations.append(f"{step.id} was deleted while {users[0]} used it")
            return
        for need in _uses(step.spec) if step.spec is not None else ():
            thing = self.things.get(need)
            broken = thing is None or any(defect.code != BY_HAND for defect in thing.defects)
            if thing is None or broken or not thing.ready:
                self.violations.append(f"{step.id} was made while {need} was not ready")

    def _usage(self, sites: tuple[str, ...] | None) -> dict[str, Usage]:
        running = {id.scope for id in self.things if id.kind is Kind.WORKLOAD}
        return {site: Usage(1_000_000, 0.5, 4096, 2) for site in running if sites is None or site in sites}

    def _kept_work(self, site: str) -> Release:
        state = self.work.get(site)
        if state is None:
            raise Refused("nobody has worked on this site yet", field="site")
        digest = "sha256:" + hashlib.sha256(repr(state.fresh).encode()).hexdigest()
        self.work[site] = protocol.WorkState(True, state.release, digest)
        release = Release(digest, state.fresh.bytes, state.fresh.files, time.time())
        self.releases.setdefault(site, {})[digest] = release
        return release

    def _import(self, request: protocol.ImportRelease, files: Sequence[int]) -> Release:
        content = os.pread(files[0], 1 << 20, 0)
        if content.startswith(b"BAD"):
            raise InvalidInput("is not an archive", field="from", hint="send a tar or a zip")
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        release = Release(digest, len(content), 1, time.time())
        self.releases.setdefault(request.site, {})[digest] = release
        id = ResourceId(Kind.RELEASE, request.site, "current")
        if request.first and id not in self.things:
            spec = ReleaseSpec(request.site, request.number, digest)
            self.things[id] = Thing(stamp(spec), spec, since=time.time())
        return release

    def _build(self, request: protocol.BuildRelease) -> protocol.Built:
        """Fails when a command is ``false``."""
        if request.source not in self.releases.get(request.site, {}):
            raise StepFailed(f"release {request.source[:19]}… is missing")
        if any(command.argv[0] == "false" for command in request.commands):
            return protocol.Built(None, "false ended with status 1", ("$ false",), 0.1)
        digest = f"sha256:{hashlib.sha256(msgspec.json.encode(request.commands) + request.source.encode()).hexdigest()}"
        release = Release(digest, 100, 2, time.time(), source=request.source)
        self.releases[request.site][digest] = release
        return protocol.Built(release, "", ("$ true",), 0.1)

    def _copy(self, request: protocol.CopyRelease) -> None:
        kept = self.releases.get(request.site, {}).get(request.digest)
        if kept is None:
            raise NotFound(f"there is no release {request.digest[:19]}…")
        self.releases.setdefault(request.to, {})[request.digest] = kept

    def _image(self, content: bytes) -> protocol.Image:
        hexes = hashlib.sha256(content).hexdigest()
        base = Base(BaseKind.OCI, f"oci-{hexes[:16]}", image=f"sha256:{hexes}")
        self.things[ResourceId(Kind.BASE, PLATFORM, base.key)] = Thing("image", BaseSpec(base))
        return protocol.Image(base, ("/bin/serve",), {"LANG": "C"}, (80,), (), "")

    def _remove(self, site: str) -> None:
        if any(id.scope == site and id.kind is Kind.WORKLOAD for id in self.things):
            raise Refused("an instance of it is there")
        self.things = {id: thing for id, thing in self.things.items() if id.scope != site}
        self.releases.pop(site, None)
        self.by_hand.pop(site, None)


def _base(kind: BaseKind, packages: tuple[str, ...], *more: str) -> Base:
    word = hashlib.sha256("+".join((kind, *packages, *more)).encode()).hexdigest()[:16]
    return Base(kind, f"{kind}-{word}", packages)


def _uses(spec: Spec) -> tuple[ResourceId, ...]:
    match spec:
        case WorkloadSpec():
            used = [ResourceId(Kind.BASE, PLATFORM, spec.base)]
            if spec.writable or spec.volumes:
                used.append(ResourceId(Kind.STORAGE, spec.site, str(spec.data_generation)))
            if spec.config:
                used.append(ResourceId(Kind.CONFIG, spec.site, "config"))
            return tuple(used)
        case AddressSpec():
            return (ResourceId(Kind.WORKLOAD, spec.site, str(spec.slot)),)
        case RouteSpec() if spec.target is RouteTarget.WORKLOAD:
            return (ResourceId(Kind.WORKLOAD, spec.site, str(spec.slot)),)
        case StorageSpec() | ReleaseSpec():
            return ()
    return ()


__all__ = ["FakeAgent", "Thing"]


def _names_served(request: SetUpNames | UndoNames) -> NamesServed | None:
    return NamesServed(fresh=True, started=True) if isinstance(request, SetUpNames) else None
