"""Settings: everything that can clash with another instance on the same machine, in one TOML file.

A setting that is absent has the default written here; an unknown key, a wrong type or a value out
of range is refused with the name of the key. Several instances live side by side when each has a
file of its own with other paths, ports, bridge, networks and cgroup parent.
"""

from __future__ import annotations

import os
import tomllib
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Annotated, Any

import msgspec

from alveole.errors import InvalidInput, NotFound, Problem
from alveole.logbook.settings import Logbook, SyslogIn, SyslogOut, check_logbook
from alveole.model.addressing import Addressing
from alveole.model.lent import HostPath
from alveole.model.names import DOMAIN, EnvKey, Port, check_network, split_resolver
from alveole.model.site import GIB, MIB
from alveole.sections import Backups, Dns, Incidents, Journal, NameServer, Outgoing, Sleep, User

DEFAULT_FILE = Path("/etc/alveole/alveole.toml")
ENVIRONMENT = "ALVEOLE_CONFIG"
_UIDS = 65_536
#: Ids have 32 bits, and the last is "no id" (user_namespaces(7), chown(2)).
_LAST_UID = (1 << 32) - 1

#: What no site is ever shown, nor what is in it.
_NEVER_SHARED = ("/bin", "/boot", "/dev", "/etc", "/lib", "/proc", "/root", "/run", "/sbin", "/sys", "/usr")

Interface = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,14}\Z")]


class Paths(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    state: str = "/var/lib/alveole"
    """What must survive a reboot: database, releases, bases, volumes, backups, logs, keys."""
    run: str = "/run/alveole"
    """What must not: sockets, routes, mounts."""


class Users(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    control: User = "alveole"
    """Runs control: database, API."""
    edge: User = "alveole-edge"
    """Runs the workers of the proxy."""
    log: User = "alveole-log"
    """Runs the log writers of sites."""
    ssh: User = "alveole-ssh"
    """Runs the SSH door."""
    first_uid: Annotated[int, msgspec.Meta(ge=100_000, le=3_000_000_000)] = 0x7000_0000
    """Start of the uid ranges given to sites, 65,536 each; above those of systemd-nspawn."""


class Network(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    bridge: Interface = "alveole0"
    """Name of the bridge that all sites hang on."""
    interface_prefix: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9]{1,5}\Z")] = "alv"
    """Start of the names of the sites' interfaces on the host."""
    table: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,30}\Z")] = "alveole"
    """Name of the nftables tables (families inet and bridge)."""
    ipv4: str = "10.1.0.0/16"
    """Private network of the sites; a quarter of it holds the addresses that sites keep for life."""
    first_ipv4: str = "10.1.1.1"
    """Address of the first site."""
    gateway_ipv4: str = "10.1.1.254"
    """The bridge's own address."""
    ipv6: str = "fd61:6c76:656f::/64"
    """Private IPv6 network of the sites."""
    resolvers: tuple[str, ...] = ()
    """Name servers of the sites that may go out, private ones too; none: the machine's own public ones."""
    connections: Annotated[int, msgspec.Meta(ge=16, le=1_000_000)] = 4096
    """How many connections one instance may have to the outside at a time, and as many to its published ports (an
    eighth of them from one client), by IPv4 and by IPv6 each. The kernel keeps those of all sites in one table."""


class Edge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    http_port: Port = 80
    """Where sites are reached over HTTP."""
    https_port: Port = 443
    """Where sites are reached over HTTPS."""
    ipv4: str = "0.0.0.0"  # noqa: S104  a public proxy listens on every address by design
    """Address the proxy listens on."""
    ipv6: str = "::"
    """The same for IPv6."""
    body_bytes: int = 1 * GIB
    """Largest request body let through to a site."""
    workers: Annotated[int, msgspec.Meta(ge=0, le=256)] = 0
    """0: one a core."""
    hsts_seconds: Annotated[int, msgspec.Meta(ge=0, le=63_072_000)] = 0
    """How long browsers are told to come over HTTPS only (RFC 6797), where a site does not say itself; 0: not at all.
    What was told cannot be taken back, so first have a certificate that everybody accepts."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks of proxies that stand in front of the edge; only theirs is ``X-Forwarded-For`` believed."""


class Api(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    address: str = "127.0.0.1"
    """Where the API listens besides its Unix socket; there it asks for a token."""
    port: Port = 8780
    """Port of the API on that address."""


class Ssh(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The door for files and programs: SFTP, scp, rsync, git and shells, on one port."""

    enabled: bool = True
    """Whether the door is open at all."""
    port: Port = 2222
    """Where it listens. The machine's own SSH server usually has port 22."""
    ipv4: str = "0.0.0.0"  # noqa: S104  a public door listens on every address by design
    """Address it listens on; empty: on none of IPv4."""
    ipv6: str = "::"
    """The same for IPv6."""
    connections: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100
    """Connections that are open at a time; a quarter of them at the most from one address."""
    login_seconds: Annotated[int, msgspec.Meta(ge=5, le=600)] = 60
    """How long somebody may take to sign in."""
    idle_seconds: Annotated[int, msgspec.Meta(ge=10)] = 3600
    """A connection over which nothing has come for so long ends."""
    rest_seconds: Annotated[int, msgspec.Meta(ge=1)] = 600
    """After so long without a connection its process ends; the next connection starts it again."""
    work_bytes: Annotated[int, msgspec.Meta(ge=32 * MIB)] = 8 * GIB
    """Size of the disk that holds a site's working copy and its git repository; room is taken as it fills."""
    memory_bytes: Annotated[int, msgspec.Meta(ge=64 * MIB)] = 512 * MIB
    """Memory of all that runs at a time over one site's working copy."""
    pids: Annotated[int, msgspec.Meta(ge=16)] = 128
    """The same for processes and threads."""


class Panel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The pages, served by the edge on a name of their own, over HTTPS only."""

    name: str = "panel"
    """The name below ``domain``, or a full domain name; empty: no pages by the edge."""


class Cgroup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    parent: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9._-]*(?:/[a-z][a-z0-9._-]*)*\Z")] = "alveole"
    """Cgroup that holds those of all sites."""


class Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ceilings of what may be uploaded, and how much of it is kept."""

    bytes: int = 4 * GIB
    """Largest content, unpacked."""
    files: int = 500_000
    """Most files in one content."""
    depth: int = 64
    """Deepest directory."""
    ratio: int = 200
    """Unpacked bytes for one packed byte, once more than 16 MiB came out."""
    releases_kept: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 5
    """Releases kept for each site, the live one among them."""
    reserve_bytes: int = 512 * MIB
    """Free space that uploads, builds and backups leave to the platform."""


class Reconcile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    drift_seconds: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    """How often everything is looked at even when nothing happened."""
    drain_seconds: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    """How long an old instance goes on after the route left it, at least."""
    lost_seconds: Annotated[float, msgspec.Meta(ge=0)] = 300.0
    """How long another machine must have been away before a site of it may live here again from a backup: longer than
    a start of that machine, or the site would live twice."""
    parallel: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    """Sites worked on at once."""


class Bases(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sources: tuple[str, ...] = ()
    """Package sources beside the machine's own Debian, for bases of packages: files in deb822 format."""
    cache_bytes: Annotated[int, msgspec.Meta(ge=0)] = 2 * GIB
    """How much of downloaded packages is kept for the next base."""
    verify_seconds: Annotated[float, msgspec.Meta(ge=0)] = 86_400.0
    """How often every file of every base is compared with its digest; 0: only when asked."""
    verify_bytes_per_second: Annotated[int, msgspec.Meta(ge=1 * MIB)] = 32 * MIB
    """How fast these are read when nobody waits for it."""
    earlier_seconds: Annotated[float, msgspec.Meta(ge=0)] = 14 * 86_400.0
    """How long the base that a site had before an upgrade is kept, for `base rollback`."""


class Build(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of what fetches and makes the dependencies of a content. Such programs are strangers' code."""

    network: bool = False
    """Whether a build may ask the package registries when the request does not say."""
    registries: tuple[str, ...] = (
        "pypi.org",
        "files.pythonhosted.org",
        "registry.npmjs.org",
        "rubygems.org",
        "index.rubygems.org",
        "packagist.org",
        "repo.packagist.org",
        "api.github.com",
        "codeload.github.com",
    )
    """The only hosts that a build reaches, and those over https only. Packagist names packages and leaves their
    archives where they are made: mostly at GitHub, under the last two names."""
    private_networks: tuple[str, ...] = ()
    """Networks that are not public in which a registry may be: that of a mirror of one's own."""
    environment: dict[EnvKey, str] = {}
    """Variables of every build, such as the address of a mirror."""
    certificates: str = "/etc/ssl/certs/ca-certificates.crt"
    """The authorities that a build trusts, in one PEM file."""
    seconds: Annotated[int, msgspec.Meta(ge=10, le=86_400)] = 900
    """How long one build may take."""
    cpu_millis: Annotated[int, msgspec.Meta(ge=100)] = 1000
    """Processor time of one build, in thousandths of one core."""
    memory_bytes: Annotated[int, msgspec.Meta(ge=64 * MIB)] = 1 * GIB
    """Memory of one build."""
    pids: Annotated[int, msgspec.Meta(ge=16)] = 512
    """Processes and threads of one build."""
    disk_bytes: Annotated[int, msgspec.Meta(ge=64 * MIB)] = 4 * GIB
    """What one build may write, and its site's cache of packages besides."""


class Modules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    directory: str = "/etc/alveole/modules"
    """Modules of one's own, a folder each, beside those that come with Alvéole."""
    signers: str = "/etc/alveole/module-signers"
    """Who may sign modules that come from elsewhere: an allowed-signers file of ssh-keygen(1)."""


class Accounts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long somebody stays signed in."""

    idle_seconds: Annotated[int, msgspec.Meta(ge=60)] = 8 * 3600
    """A session ends after so long without a request."""
    session_seconds: Annotated[int, msgspec.Meta(ge=300)] = 7 * 86_400
    """And after so long in any case."""
    invitation_seconds: Annotated[int, msgspec.Meta(ge=60)] = 86_400
    """How long the token for a first sign-in or a new password is good."""


class Sites(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of the machine itself administrators may lend to sites."""

    ports: Annotated[str, msgspec.Meta(pattern=r"^(?:\d{1,5}-\d{1,5})?\Z")] = "20000-29999"
    """Ports of the machine that may lead into a site, as FIRST-LAST; empty: none."""
    shared: tuple[HostPath, ...] = ()
    """Directories of the machine that sites may be shown, with all below them; none: no site sees any."""

    def published(self) -> range:
        """The ports as numbers."""
        first, _, last = self.ports.partition("-")
        return range(int(first), int(last) + 1) if first else range(0)


#: A host with its port, perhaps; ``http://`` before it: without TLS, for one on this machine.
Registry = Annotated[
    str,
    msgspec.Meta(pattern=r"^(?:http://)?[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?(?::\d{1,5})?\Z", max_length=270),
]


class Images(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Container images that are fetched by name."""

    registries: tuple[Registry, ...] = ()
    """Where images may be fetched from, as HOST or HOST:PORT. What such a registry sends people on to is reached too,
    so name only those whose keepers you trust. None: images are only imported from archives."""
    seconds: Annotated[int, msgspec.Meta(ge=10)] = 1800
    """How long one fetch may take."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    domain: str = "localhost"
    paths: Paths = Paths()
    users: Users = Users()
    network: Network = Network()
    edge: Edge = Edge()
    api: Api = Api()
    accounts: Accounts = Accounts()
    ssh: Ssh = Ssh()
    panel: Panel = Panel()
    cgroup: Cgroup = Cgroup()
    content: Content = Content()
    reconcile: Reconcile = Reconcile()
    sleep: Sleep = Sleep()
    backups: Backups = Backups()
    journal: Journal = Journal()
    incidents: Incidents = Incidents()
    dns: Dns = Dns()
    nameserver: NameServer = NameServer()
    outgoing: Outgoing = Outgoing()
    modules: Modules = Modules()
    build: Build = Build()
    bases: Bases = Bases()
    images: Images = Images()
    logbook: Logbook = Logbook()
    syslog_out: SyslogOut = SyslogOut()
    syslog_in: SyslogIn = SyslogIn()
    sites: Sites = Sites()

    @property
    def state(self) -> Path:
        return Path(self.paths.state)

    @property
    def run(self) -> Path:
        return Path(self.paths.run)

    @property
    def api_socket(self) -> Path:
        """Control's API for root on this machine."""
        return self.run / "control" / "api.sock"

    @property
    def door_socket(self) -> Path:
        """Where control answers the SSH door; only the door's user, control's and root are let in."""
        return self.run / "control" / "door.sock"

    @property
    def ssh_keys(self) -> Path:
        """The host keys of the SSH door, which owns this directory."""
        return self.state / "ssh"

    @property
    def panel_socket(self) -> Path:
        """Control's pages for the edge: its own user and root are let in."""
        return self.run / "control" / "panel.sock"

    @property
    def wake_socket(self) -> Path:
        """Where the edge asks control to wake a site: its own user and root are let in."""
        return self.run / "control" / "wake.sock"

    @property
    def pages(self) -> str:
        """The address of the pages, to put a path behind; empty where they have no name."""
        port = "" if self.edge.https_port == 443 else f":{self.edge.https_port}"
        return f"https://{self.panel_domain}{port}" if self.panel_domain else ""

    @property
    def panel_domain(self) -> str:
        """Where the pages are; empty: nowhere."""
        name = self.panel.name
        return name if "." in name or not name else f"{name}.{self.domain}"

    @property
    def agent_socket(self) -> Path:
        """The agent's door; only control's user and root are let in."""
        return self.run / "agent.sock"

    @property
    def database(self) -> Path:
        return self.state / "control" / "alveole.db"

    @property
    def module_sources(self) -> Path:
        """Modules that were added from elsewhere: one directory a source, below it one a module."""
        return self.state / "control" / "modules"

    @property
    def logs(self) -> Path:
        """One directory a site, owned by root; ``edge`` holds the proxy's."""
        return self.state / "logs"

    def addressing(self) -> Addressing:
        return Addressing(
            IPv4Network(self.network.ipv4),
            IPv6Network(self.network.ipv6),
            IPv4Address(self.network.gateway_ipv4),
            IPv4Address(self.network.first_ipv4),
            self.network.interface_prefix,
        )

    def uid_start(self, number: int) -> int:
        """First host uid of site ``number``; container root. The site's own user is 1000 above.

        Raises ``InvalidInput`` for a number whose range is not wholly between ``first_uid`` and the end of
        all ids: the kernel takes an id modulo 2³², so a range beyond would be that of the machine's own root.
        """
        start = self.users.first_uid + number * _UIDS
        if number < 0 or start + _UIDS > _LAST_UID:
            raise InvalidInput(f"there are no user ids for site number {number}", field="number")
        return start


def load(path: str | os.PathLike[str] | None = None) -> Settings:
    """Read the settings from ``path``, else from ``$ALVEOLE_CONFIG``, else the default file.

    The default file may be absent: then every setting has its default. Raises ``NotFound`` when a
    named file is absent and ``InvalidInput`` with every problem found.
    """
    named = path or os.environ.get(ENVIRONMENT)
    file = Path(named) if named else DEFAULT_FILE
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        if named:
            raise NotFound(f"no settings file at {file}", hint="check --config or ALVEOLE_CONFIG") from None
        return Settings()
    except OSError as error:
        raise InvalidInput(f"cannot read {file}: {error.strerror}", field="config") from error
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{file} is not TOML: {error}", field="config") from error
    return parse(raw, str(file))


def parse(raw: dict[str, Any], origin: str = "settings") -> Settings:
    """Check ``raw`` and give the settings; raises ``InvalidInput`` with all problems."""
    problems: list[Problem] = []
    sections: dict[str, Any] = {}
    for field in msgspec.structs.fields(Settings):
        if field.name not in raw:
            continue
        try:
            sections[field.name] = msgspec.convert(raw[field.name], field.type)
        except msgspec.ValidationError as error:
            problems.append(Problem(f"{origin}: {field.name}", str(error), "see docs/reference/settings.md"))
    for key in raw.keys() - {field.name for field in msgspec.structs.fields(Settings)}:
        problems.append(Problem(f"{origin}: {key}", "is not a setting", "see docs/reference/settings.md"))
    if not problems:
        settings = Settings(**sections)
        problems.extend(_check(settings, origin))
        if not problems:
            return settings
    raise InvalidInput(problems=problems)


def _check(settings: Settings, origin: str) -> list[Problem]:
    import re

    problems = []

    def wrong(key: str, message: str, hint: str = "") -> None:
        problems.append(Problem(f"{origin}: {key}", message, hint))

    if not re.match(DOMAIN, settings.domain):
        wrong("domain", f"{settings.domain!r} is not a domain name")
    if settings.panel.name and not re.match(DOMAIN, settings.panel_domain):
        wrong("panel.name", f"{settings.panel.name!r} is neither a name nor a domain name")
    elif settings.panel_domain == settings.domain:
        wrong("panel.name", "is the main domain", "sites may have paths of it")
    for key in ("state", "run"):
        value = getattr(settings.paths, key)
        if not re.match(r"^(?:/[A-Za-z0-9._-]+)+\Z", value) or "/../" in f"{value}/":
            wrong(f"paths.{key}", f"{value!r} is not a plain absolute path")
        # A Unix socket's path has 107 bytes (unix(7)); ours need up to 40 below the run directory.
        elif key == "run" and len(value) > 60:
            wrong("paths.run", f"is {len(value)} characters long; the limit is 60", "sockets need short paths")
    try:
        plan = settings.addressing()
    except ValueError as error:
        wrong("network", str(error))
        return problems
    if plan.network4.prefixlen > 26:
        wrong("network.ipv4", "is smaller than a /26", "a site takes three addresses")
    for key, address in (("gateway_ipv4", plan.gateway4), ("first_ipv4", plan.first4)):
        if address not in plan.network4:
            wrong(f"network.{key}", f"{address} is not in {plan.network4}")
    for place, text in enumerate(settings.network.resolvers):
        try:
            resolver = ip_address(text)
        except ValueError:
            wrong(f"network.resolvers[{place}]", f"{text!r} is not an address")
        else:
            if resolver.is_loopback or resolver.is_multicast or resolver.is_unspecified:
                wrong(f"network.resolvers[{place}]", f"{text} cannot be reached from a site")
    if plan.network6.prefixlen != 64:
        wrong("network.ipv6", "is not a /64")
    if not problems and plan.capacity() < 1:
        wrong("network.first_ipv4", "leaves no room for a site in the first quarter of the network")
    ranges = (_LAST_UID - settings.users.first_uid) // _UIDS - 1
    if plan.capacity() > ranges:
        wrong(
            "network.ipv4",
            f"holds {plan.capacity():,} sites, and there are user ids for {ranges:,}",
            "choose a smaller network or a lower users.first_uid",
        )
    for place, text in enumerate(settings.dns.resolvers):
        try:
            split_resolver(text)
        except ValueError as error:
            wrong(f"dns.resolvers[{place}]", str(error), "write ADDRESS or ADDRESS:PORT")
    for key in ("directory", "zones"):
        value = getattr(settings.nameserver, key)
        if not re.match(r"^(?:/[A-Za-z0-9._-]+)+\Z", value) or "/../" in f"{value}/":
            wrong(f"nameserver.{key}", f"{value!r} is not a plain absolute path")
    try:
        ip_address(settings.nameserver.address)
    except ValueError:
        wrong("nameserver.address", f"{settings.nameserver.address!r} is not an address")
    for place, file in enumerate(settings.bases.sources):
        if not re.match(r"^(?:/[A-Za-z0-9._-]+)+\.sources\Z", file) or "/../" in file:
            wrong(f"bases.sources[{place}]", f"{file!r} is not the absolute path of a .sources file")
    for place, host in enumerate(settings.build.registries):
        if not re.match(DOMAIN, host):
            wrong(f"build.registries[{place}]", f"{host!r} is not a host name")
    for key in ("check_hosts", "inside_hosts"):
        for place, host in enumerate(getattr(settings.outgoing, key)):
            if not re.match(DOMAIN, host):
                wrong(f"outgoing.{key}[{place}]", f"{host!r} is not a host name")
    for place, network in enumerate(settings.build.private_networks):
        problems.extend(check_network(network, f"{origin}: build.private_networks[{place}]"))
    for place, network in enumerate(settings.edge.trusted_proxies):
        problems.extend(check_network(network, f"{origin}: edge.trusted_proxies[{place}]"))
    for problem in check_logbook(settings.logbook, settings.syslog_out, settings.syslog_in):
        wrong(problem.field, problem.message, problem.hint)
    for key in ("ipv4", "ipv6"):
        value = getattr(settings.ssh, key)
        try:
            if value and f"ipv{ip_address(value).version}" != key:
                wrong(f"ssh.{key}", f"{value} is an address of the other family")
        except ValueError:
            wrong(f"ssh.{key}", f"{value!r} is not an address")
    if settings.ssh.enabled and settings.ssh.port in (settings.edge.http_port, settings.edge.https_port):
        wrong("ssh.port", "is a port of the edge")
    ports = settings.sites.published()
    if settings.sites.ports and not (ports and ports[0] >= 1024 and ports[-1] <= 65_535):
        wrong("sites.ports", f"{settings.sites.ports} is no range within 1024-65535", "write it like 20000-29999")
    for place, root in enumerate(settings.sites.shared):
        if any(f"{root}/".startswith(f"{own}/") or f"{own}/".startswith(f"{root}/") for own in _NEVER_SHARED):
            wrong(f"sites.shared[{place}]", f"{root} is of the system's own")
        for own in (settings.paths.state, settings.paths.run):
            if f"{root}/".startswith(f"{own}/") or f"{own}/".startswith(f"{root}/"):
                wrong(f"sites.shared[{place}]", f"{root} holds what is Alvéole's own, or lies in it")
    if settings.edge.http_port == settings.edge.https_port:
        wrong("edge.https_port", "is the same as edge.http_port")
    return problems
