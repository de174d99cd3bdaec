"""What is asked for, looked at before anything is done: all problems at once, nothing raised.

A :class:`Draft` collects problems while it turns the plain values of a request into model values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import ip_network

from msgspec import UNSET

from alveole.catalogue.grammar import check_link
from alveole.config import Settings
from alveole.errors import InvalidInput, Problem, Refused
from alveole.issuing.suffixes import is_suffix
from alveole.loop.compile import site_domain, under_wildcard
from alveole.model.names import (
    PACKAGE,
    PATH_PREFIX,
    PROCESS_NAME,
    VOLUME_NAME,
    check_domain,
    check_env,
    check_mount_path,
    check_network,
    check_pattern,
    check_site_name,
    is_reserved,
)
from alveole.model.site import (
    SLEEP_MOST_SECONDS,
    Access,
    Application,
    Base,
    BaseKind,
    Limits,
    Process,
    ResourcePlan,
    Run,
    Site,
    Task,
    VolumeMount,
)
from alveole.people.model import Actor
from alveole.people.rights import Right, may
from alveole.policy.sleeping import needs_no_visit
from alveole.requests import CreateSite, ProcessBody, SetSite, VolumeBody
from alveole.store import KnownBase

WEB = "web"
_MANY = {
    "domains": 100,
    "volumes": 32,
    "processes": 32,
    "tasks": 100,
    "packages": 200,
    "env": 500,
    "allow": 500,
    "deny": 500,
}


class Draft:
    """``owner_of`` gives the id of the site that holds a name; ``own`` is the id of the site at hand."""

    def __init__(self, settings: Settings, owner_of: Callable[[str], str | None], own: str = "") -> None:
        self.settings = settings
        self.owner_of = owner_of
        self.own = own
        self.problems: list[Problem] = []
        self.conflicts = 0
        self._below_own = ""

    def wrong(self, field: str, message: str, hint: str = "") -> None:
        self.problems.append(Problem(field, message, hint))

    def conflict(self, field: str, message: str, hint: str = "") -> None:
        """Well-formed, but it clashes with what exists."""
        self.conflicts += 1
        self.wrong(field, message, hint)

    def finish(self) -> None:
        """Raise all that was found: ``Refused`` when there are only clashes, else ``InvalidInput``."""
        if self.problems:
            raise (Refused if self.conflicts == len(self.problems) else InvalidInput)(problems=self.problems)

    def _many(self, field: str, items: Sequence[object] | Mapping[str, object]) -> bool:
        if len(items) > _MANY[field]:
            self.wrong(field, f"has {len(items)} entries; the limit is {_MANY[field]}")
            return False
        return True

    def _taken(self, name: str) -> bool:
        owner = self.owner_of(name)
        return owner is not None and owner != self.own

    def sleep(self, after: int | None, run: Run, application: Application | None) -> None:
        """``after`` seconds; 0: never, ``None``: as the plan says. What runs may forbid it."""
        least = self.settings.sleep.least_seconds
        if after is not None and after != 0 and not least <= after <= SLEEP_MOST_SECONDS:
            self.wrong("sleep_after", f"{after} s is not within {least} s and a year", "or never")
        elif after and (reason := needs_no_visit(run, application)):
            self.wrong("sleep_after", f"it cannot sleep: {reason}", "never")

    # --- names --------------------------------------------------------------------------------
    def name(self, name: str, taken: bool) -> None:
        found = check_site_name(name)
        self.problems.extend(found)
        if found:
            return
        if site_domain(name, self.settings) == self.settings.panel_domain:
            self.wrong("name", f"{name!r} is reserved", "choose another name")
        elif taken:
            self.conflict("name", f"the name {name!r} is taken", "choose another name")
        elif self._taken(site_domain(name, self.settings)):
            domain = site_domain(name, self.settings)
            self.conflict("name", f"{domain} is a domain of another site", "choose another name")

    def changed_domains(self, old: Site, request: SetSite) -> tuple[str, ...]:
        """Those of ``old`` as ``request`` changes them."""
        listed = old.domains if request.domains is UNSET else request.domains
        for domain in request.remove_domains:
            if domain not in listed:
                self.wrong("remove_domains", f"{domain} is not a domain of this site", "see: alveole site show")
        listed = tuple(domain for domain in listed if domain not in request.remove_domains)
        return self.domains((*listed, *request.add_domains), old.name)

    def domains(self, domains: Iterable[str], site_name: str) -> tuple[str, ...]:
        listed = tuple(domains)
        self._below_own = f"*.{site_domain(site_name, self.settings)}"
        if not self._many("domains", listed):
            return ()
        for domain in listed:
            found = check_domain(domain, "domains", wildcard=True)
            parent = domain.removeprefix("*.")
            if not found and parent != domain:
                self._below(parent, listed, site_name)
            if found:
                self.problems.extend(found)
                continue
            label = domain.partition(".")[0]
            if domain == self.settings.domain:
                self.wrong("domains", f"{domain} is the main domain", "use a path of it instead: --path /prefix")
            elif domain == site_domain(site_name, self.settings):
                self.wrong("domains", f"{domain} is the site's own name already", "leave it out")
            elif domain == self.settings.panel_domain or (under_wildcard(domain, self.settings) and is_reserved(label)):
                self.wrong("domains", f"{domain} is reserved", "choose another domain")
            elif self._taken(domain):
                self.conflict("domains", f"{domain} is taken by another site", "choose another domain")
        if len(set(listed)) != len(listed):
            self.wrong("domains", "names a domain twice", "name each once")
        return listed

    def _below(self, parent: str, listed: Sequence[str], site_name: str) -> None:
        """All names right below one: names below the main domain are those of other sites, but for the site's own."""
        own = (site_domain(site_name, self.settings), *listed)
        if parent == self.settings.domain:
            self.wrong("domains", f"*.{parent} are the names of all sites", "give the names below one, like *.NAME")
        elif parent.endswith(f".{self.settings.domain}") and parent not in own:
            self.wrong("domains", f"{parent} is not a name of this site", f"*.{own[0]} is for all names below its own")
        elif is_suffix(parent):
            self.wrong(
                "domains", f"nobody has all of {parent}: names are registered right below it", "name one in full"
            )

    def claim(self, caller: Actor, domains: Iterable[str], path: str | None) -> None:
        """Threat 27: that a domain leads here does not say whose it is. Who runs the machine says so; the names below
        its own are a site's anyway."""
        if may(caller, Right.DOMAIN_CLAIM):
            return
        hint = "claim it, and prove it by a DNS record: alveole site domain add"
        for domain in sorted(domains):
            if domain != self._below_own:
                self.wrong("domains", f"{domain} is not yours to take", hint)
        if path is not None:
            hint = "ask an operator or an administrator to add it"
            self.wrong("path", f"{path} of the main domain is not yours to take", hint)

    def path(self, path: str | None) -> str | None:
        if path is None:
            return None
        found = check_pattern(path, PATH_PREFIX, "path", "a path", "write it like /my-app, without a slash at the end")
        self.problems.extend(found)
        if not found and self._taken(f"@{path}"):
            self.conflict("path", f"{path} is taken by another site", "choose another path")
        return path

    # --- what runs ----------------------------------------------------------------------------
    def run(
        self,
        command: tuple[str, ...],
        processes: tuple[ProcessBody, ...],
        port: int | None,
        health: str,
        ready_seconds: int,
        stop_seconds: int,
    ) -> Run:
        if command and processes:
            self.wrong("command", "and processes cannot be given together", "put the command among the processes")
        listed = [(WEB, command)] if command else [(each.name, each.argv) for each in processes]
        if self._many("processes", listed):
            for name, argv in listed:
                self._process(name, argv)
        names = [name for name, _argv in listed]
        if len(set(names)) != len(names):
            self.wrong("processes", "names a process twice", "give each a name of its own")
        if names and WEB not in names:
            self.wrong("processes", f"none is called {WEB!r}", "call the one that answers requests 'web'")
        if port is not None:
            if not 1 <= port <= 65535:
                self.wrong("port", f"{port} is outside 1..65535", "give the port the command listens on")
            if not listed:
                self.wrong("port", "is given, but no command that listens on it", "give --command, or leave --port out")
        if not health.startswith("/") or len(health) > 1024 or not all("!" <= char <= "~" for char in health):
            self.wrong("health", f"{health!r} is not a path", "write it like /health")
        for field, seconds in (("ready_seconds", ready_seconds), ("stop_seconds", stop_seconds)):
            if not 1 <= seconds <= 600:
                self.wrong(field, f"{seconds} is outside 1..600")
        if self.problems:
            return Run()
        return Run(tuple(Process(name, argv) for name, argv in listed), port, health, ready_seconds, stop_seconds)

    def with_modules(self, request: CreateSite) -> None:
        """What a site of modules has from them cannot be given beside them."""
        given = {
            "base": request.base not in ("host", "debian"),
            "packages": bool(request.packages),
            "command": bool(request.command),
            "processes": bool(request.processes),
            "port": request.port is not None,
            "health": request.health != "/",
            "volumes": bool(request.volumes),
        }
        for field in (name for name, there in given.items() if there):
            self.wrong(field, "is what the modules say", "leave it out, or leave the modules out")

    def not_of_modules(self, request: SetSite) -> None:
        """What the modules say is changed by their answers."""
        for field in ("base", "packages", "command", "processes", "port", "health", "volumes"):
            if getattr(request, field) is not UNSET:
                self.wrong(field, "is what the modules of this site say", "see: alveole site configure")

    def composed(self, run: Run, volumes: Sequence[VolumeMount]) -> None:
        """The same of what was once composed of modules; types and patterns hold already."""
        if self._many("processes", run.processes) and self._many("tasks", run.tasks):
            programs: tuple[Process | Task, ...] = (*run.processes, *run.tasks)
            for each in programs:
                self._process(each.name, each.argv)
                for key, value in each.env.items():
                    self.problems.extend(check_env(key, value))
        if self._many("volumes", volumes):
            for volume in volumes:
                self.problems.extend(check_mount_path(volume.path, "volumes"))
        for link in run.links:
            self.problems.extend(check_link(link.path, link.target))
        if not run.health.startswith("/") or not all("!" <= char <= "~" for char in run.health):
            self.wrong("health", f"{run.health!r} is not a path")

    def _process(self, name: str, argv: tuple[str, ...]) -> None:
        field = "command" if name == WEB else f"processes.{name}"
        self.problems.extend(check_pattern(name, PROCESS_NAME, "processes", "a process name", "use a-z, 0-9, - and _"))
        if not argv or not argv[0]:
            self.wrong(field, "is empty", "name a program")
        elif len(argv) > 256 or any(len(word) > 32_768 for word in argv):
            self.wrong(field, "has more than 256 words, or one longer than 32,768 characters")
        elif any("\0" in word for word in argv):
            self.wrong(field, "holds a NUL byte")

    def env(self, env: Mapping[str, str]) -> dict[str, str]:
        if self._many("env", env):
            for key, value in env.items():
                self.problems.extend(check_env(key, value))
        return dict(env)

    def volumes(self, volumes: Sequence[VolumeBody]) -> tuple[VolumeMount, ...]:
        if not self._many("volumes", volumes):
            return ()
        for each in volumes:
            self.problems.extend(
                check_pattern(each.name, VOLUME_NAME, "volumes", "a volume name", "use a-z, 0-9, - and _")
            )
            self.problems.extend(check_mount_path(each.path, "volumes"))
        for field, values in (("name", [each.name for each in volumes]), ("path", [each.path for each in volumes])):
            if len(set(values)) != len(values):
                self.wrong("volumes", f"use a {field} twice", f"give each volume a {field} of its own")
        if self.problems:
            return ()
        return tuple(VolumeMount(each.name, each.path) for each in volumes)

    def access(self, allow: Sequence[str], deny: Sequence[str]) -> Access:
        for field, networks in (("allow", allow), ("deny", deny)):
            if self._many(field, networks):
                for network in networks:
                    self.problems.extend(check_network(network, field))
        if self.problems:
            return Access()
        # One form for all who read it: the edge and nginx take no dotted mask.
        return Access(*(tuple(str(ip_network(each, strict=False)) for each in listed) for listed in (allow, deny)))

    # --- where it runs ------------------------------------------------------------------------
    def packages(self, packages: Sequence[str], kind: BaseKind | None) -> tuple[str, ...]:
        if not self._many("packages", packages):
            return ()
        for package in packages:
            self.problems.extend(
                check_pattern(package, PACKAGE, "packages", "a package name", "see packages.debian.org")
            )
        if packages and kind is not BaseKind.DEBIAN:
            self.wrong("packages", "are only installed into the base 'debian'", "give --base debian")
        return tuple(sorted(set(packages)))

    def plan(self, name: str, plans: Mapping[str, ResourcePlan]) -> Limits | None:
        plan = plans.get(name)
        if plan is None:
            self.wrong("plan", f"there is no plan {name!r}", f"choose one of: {', '.join(sorted(plans))}")
            return None
        return plan.limits

    def disk(self, old: Limits, new: Limits) -> None:
        """The writable part of a site that runs can grow, nothing else."""
        if old.disk_bytes == new.disk_bytes:
            return
        if old.disk_bytes is None or new.disk_bytes is None or new.disk_bytes < old.disk_bytes:
            have, want = (_size(each.disk_bytes) for each in (old, new))
            self.conflict("plan", f"changes the disk from {have} to {want}", "stop the site first")


def _size(disk_bytes: int | None) -> str:
    return "no limit" if disk_bytes is None else f"{disk_bytes} bytes"


def find_base(text: str, bases: Mapping[str, KnownBase]) -> KnownBase | None:
    """A known base by its key, its label or its image's digest."""
    for known in bases.values():
        base = known.base
        if text in (base.key, base.label, base.image, f"oci:{base.image}"):
            return known
    return None


def newest_base(packages: tuple[str, ...], bases: Mapping[str, KnownBase]) -> Base | None:
    """The newest base of this set of packages that was asked for: an upgraded one before the first."""
    found = [each for each in bases.values() if is_base_of(packages, each)]
    return max(found, key=lambda known: known.created_at).base if found else None


def is_base_of(packages: tuple[str, ...], known: KnownBase) -> bool:
    """Whether it is a base of just this set of packages."""
    return known.base.kind is BaseKind.DEBIAN and known.base.packages == packages


def check_limits(
    cpu_millis: int, memory_bytes: int, pids: int, io: int | None, disk: int | None
) -> tuple[Problem, ...]:
    """The bounds of :class:`alveole.model.site.Limits`, told all at once."""
    bounds: tuple[tuple[str, int | None, int, int], ...] = (
        ("cpu_millis", cpu_millis, 10, 1_000_000),
        ("memory_bytes", memory_bytes, 4 << 20, 1 << 50),
        ("pids", pids, 4, 4_000_000),
        ("io_bytes_per_second", io, 64 << 10, 1 << 50),
        ("disk_bytes", disk, 16 << 20, 1 << 60),
    )
    return tuple(
        Problem(field, f"{value} is outside {low}..{high}")
        for field, value, low, high in bounds
        if value is not None and not low <= value <= high
    )
