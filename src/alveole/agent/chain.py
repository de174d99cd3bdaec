"""The chain from a name to an application, each link really tried; and the health of the machine.

Used by ``alveole why`` and ``alveole doctor``. Nothing here changes anything.
"""

from __future__ import annotations

import contextlib
import datetime
import http.client
import os
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from alveole.agent import walls
from alveole.agent.protocol import Inspect, Link
from alveole.config import Settings
from alveole.errors import AlveoleError
from alveole.host import paths
from alveole.model.addressing import InstanceNet

#: How long any one link may take to answer, in seconds.
PATIENCE = 3.0
#: The SSH door may be asked in the moment in which its process is being started.
_DOOR_SECONDS = 10.0
#: How long a whole answer may take: a site may send a byte now and then, or interim answers without end.
WHOLE_PATIENCE = 6.0


class _Broken(Exception):
    """A link that does not hold: what came instead, and the cure."""

    def __init__(self, came: str, cure: str) -> None:
        super().__init__(came)
        self.came = came
        self.cure = cure


class _Plain(http.client.HTTPConnection):
    """HTTP to a Unix socket, or to one address while asking for another name."""

    def __init__(self, target: str | tuple[str, int], name: str, context: ssl.SSLContext | None = None) -> None:
        super().__init__(name, timeout=PATIENCE)
        self._target = target
        self._name = name
        self._context = context
        self._handle: socket.socket | None = None
        self._timer = threading.Timer(WHOLE_PATIENCE, self._hang_up)
        self._timer.daemon = True

    def connect(self) -> None:
        self._timer.start()
        if isinstance(self._target, str):
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(PATIENCE)
            self.sock.connect(self._target)
        else:
            self.sock = socket.create_connection(self._target, PATIENCE)
        self._handle = self.sock.dup()
        if self._context is not None:
            self.sock = self._context.wrap_socket(self.sock, server_hostname=self._name)

    def _hang_up(self) -> None:
        if self._handle is not None:
            with contextlib.suppress(OSError):
                self._handle.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        # Called by the base class too, as soon as an answer is over.
        super().close()
        self._timer.cancel()
        if self._handle is not None:
            self._handle.close()


def _link(name: str, asked: str, attempt: Callable[[], str]) -> Link:
    began = time.monotonic()
    try:
        came, cure, ok = attempt(), "", True
    except _Broken as broken:
        came, cure, ok = broken.came, broken.cure, False
    except AlveoleError as error:
        came, cure, ok = error.problems[0].message, error.problems[0].hint, False
    except (OSError, ValueError, http.client.HTTPException) as error:
        came, cure, ok = str(error) or type(error).__name__, "", False
    return Link(name, ok, asked, came, cure, round((time.monotonic() - began) * 1000, 2))


def _route_of(request: Inspect) -> str:
    return request.domain if request.path is None else "@" + request.path.replace("/", "|")


class Inspector:
    """Tries each link of one site's chain.

    ``pid_of(site, slot)`` gives the first process of the running instance, or ``None``.
    """

    def __init__(
        self,
        settings: Settings,
        pid_of: Callable[[str, int], int | None],
        authority_pem: Callable[[], str],
        given: Callable[[str], str] = lambda _name: "",
    ) -> None:
        self._settings = settings
        self._pid_of = pid_of
        self._authority_pem = authority_pem
        self._given = given

    def chain(self, request: Inspect) -> tuple[Link, ...]:
        """From the outside in; a reader wants the first link that is not ``ok``."""
        settings = self._settings
        net = settings.addressing().instance(request.number, request.slot)
        target: str | tuple[str, int] = (
            str(paths.web_socket(settings, request.site, request.slot))
            if request.port is None
            else (str(net.own4), request.port)
        )
        name = request.domain
        where = f"unix:{target}" if isinstance(target, str) else f"tcp:{target[0]}:{target[1]}"
        path = f"{request.path}/" if request.path else "/"
        before = (
            _link("name", f"resolve {name}", lambda: self._name(name)),
            _link("address", f"ask port {settings.edge.http_port} of this machine", self._address),
            _link("certificate", f"TLS handshake for {name}", lambda: self._certificate(name)),
            _link("proxy", "the proxy's own status", self._proxy),
        )
        if request.node is not None:
            return (*before, *self._to_node(request, request.node))
        if request.asleep:
            return (
                *before,
                _link("route", f"the route of {name}{request.path or ''}", lambda: self._at_rest(request)),
                _link("asleep", "whether a request can wake it", self._wake),
                *self._also(request, "asleep"),
            )
        return (
            *before,
            _link("route", f"the route of {name}{request.path or ''}", lambda: self._route(request, where)),
            _link("container", "its first process", lambda: self._container(request, net)),
            _link("process", f"connect to {where}", lambda: self._process(target)),
            _link("application", f"GET / from {where}", lambda: self._application(target, name)),
            *self._health(request, target, where),
            _link("answer", f"GET https://{name}{path}", lambda: self._answer(name, path)),
            *self._also(request, where),
        )

    def _to_node(self, request: Inspect, node: str) -> tuple[Link, ...]:
        """What lies on this machine of the way to a site on another one; ``front`` is tried where the line holds."""
        place = paths.lines(self._settings) / node / "web"
        where = f"node:{place}"
        line = _link("line", f"connect to the line to {node}", lambda: self._line(place, node))
        front = (_link("front", f"ask the proxy of {node} through the line", lambda: self._front(place, node)),)
        return (
            _link("route", f"the route of {request.domain}", lambda: self._route(request, where)),
            line,
            *(front if line.ok else ()),
            _link("answer", f"GET https://{request.domain}/", lambda: self._answer(request.domain, "/")),
            *self._also(request, where),
        )

    @staticmethod
    def _line(place: Path, node: str) -> str:
        cure = f"it is opened again by itself once {node} can be reached; see 'alveole node check {node}'"
        try:
            with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
                connection.settimeout(PATIENCE)
                connection.connect(str(place))
        except OSError as error:
            raise _Broken(f"it is not open: {error.strerror or error}", cure) from None
        if place.stat().st_mode & 0o006 != 0o006:
            raise _Broken("the proxy is not let through", f"it is let in by 'alveole node check {node}'")
        return "it is open"

    @staticmethod
    def _front(place: Path, node: str) -> str:
        connection = _Plain(str(place), "localhost")
        try:
            # No redirect and no site, as of the proxy of this machine.
            connection.request("GET", "/.well-known/acme-challenge/-")
            connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            said = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
            raise _Broken(
                f"the line is open and nobody answers at its other end: {said}",
                f"the proxy there is started again by itself; on {node}: alveole doctor",
            ) from None
        finally:
            connection.close()
        return "it answers"

    def _also(self, request: Inspect, where: str) -> tuple[Link, ...]:
        """One link for each other name; of all names right below one, some name is tried that nobody has."""
        found: list[Link] = []
        for each in request.also:
            asked = f"TLS handshake for it, and its route, which must lead to {where}"
            found.append(_link(f"name {each}", asked, partial(self._also_one, each, where)))
            if "hangs" in found[-1].cure:
                break
        return tuple(found)

    def _also_one(self, name: str, where: str) -> str:
        tried = f"alveole-{os.urandom(6).hex()}{name[1:]}" if name.startswith("*.") else name
        certificate = self._certificate(tried, name)
        leads = self._leads(name)
        if leads == "stopped":
            raise _Broken("its route says that the site is stopped", "alveole site start")
        if leads != where and not leads.startswith("asleep"):
            raise _Broken(f"its route leads to {leads}", f"it is switched to {where} once that instance is ready")
        return f"{certificate}; {leads}"

    def _name(self, name: str) -> str:
        try:
            found = sorted({str(info[4][0]) for info in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)})
        except socket.gaierror as error:
            if name == "localhost" or name.endswith(".localhost"):
                return "browsers take *.localhost for this machine by themselves (RFC 6761)"
            raise _Broken(
                f"does not resolve: {error.strerror}", f"add {name} to the DNS zone, pointing to this machine"
            ) from None
        return ", ".join(found)

    def _address(self) -> str:
        reached = []
        for host in ("127.0.0.1", "::1"):
            connection = _Plain((host, self._settings.edge.http_port), "localhost")
            try:
                # No redirect and no site: what matters is that somebody reads what is sent there.
                connection.request("GET", "/.well-known/acme-challenge/-")
                connection.getresponse()
                reached.append(host)
            except TimeoutError:
                raise _Broken(
                    f"{host} takes the connection and does not answer within {PATIENCE:g} s",
                    "the proxy hangs: it is started again by itself; see 'alveole doctor'",
                ) from None
            except (OSError, http.client.HTTPException) as error:
                raise _Broken(
                    f"{host}: {getattr(error, 'strerror', None) or error}",
                    "the proxy is not listening: it is started again by itself; see 'alveole doctor'",
                ) from None
            finally:
                connection.close()
        return f"answered by {' and '.join(reached)}"

    def _context(self, name: str) -> ssl.SSLContext:
        """Trusts what the name is to show and nothing else; whether others trust it is for the authority to see to."""
        context = ssl.create_default_context(cadata=self._given(name) or self._authority_pem())
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return context

    def _certificate(self, name: str, shown: str = "") -> str:
        """``shown``: the name whose certificate it is, when that is for all names beside it too."""
        try:
            with (
                socket.create_connection(("127.0.0.1", self._settings.edge.https_port), PATIENCE) as plain,
                self._context(shown or name).wrap_socket(plain, server_hostname=name) as tls,
            ):
                certificate = tls.getpeercert() or {}
        except TimeoutError:
            raise _Broken(
                f"no answer within {PATIENCE:g} s", "the proxy hangs: it is started again by itself"
            ) from None
        except ssl.SSLError as error:
            raise _Broken(
                error.reason or str(error), f"it is issued again by itself; see 'alveole journal' for {name}"
            ) from None
        seconds = ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()
        return f"valid for {datetime.timedelta(seconds=int(seconds)).days} days"

    def _proxy(self) -> str:
        connection = _Plain(str(paths.edge(self._settings) / "status.sock"), "status")
        try:
            connection.request("GET", "/")
            answer = connection.getresponse()
            text = answer.read(4096).decode("ascii", "replace")
        except OSError as error:
            raise _Broken(
                f"not running: {error.strerror or error}", "it is started again by itself; see 'alveole journal'"
            ) from None
        finally:
            connection.close()
        return text.splitlines()[0].strip() if text else f"status {answer.status}"

    def _leads(self, name: str) -> str:
        link = paths.routes(self._settings) / name
        try:
            text = os.readlink(link)  # noqa: PTH115  Path would normalise the text
        except FileNotFoundError:
            raise _Broken("there is none", "it is made again by itself once the site is ready") from None
        return text.split(" ", 1)[0]

    def _at_rest(self, request: Inspect) -> str:
        leads = self._leads(_route_of(request))
        if not leads.startswith("asleep"):
            raise _Broken(f"it leads to {leads}", "it is switched by itself while the site falls asleep")
        return leads

    def _wake(self) -> str:
        try:
            with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
                connection.settimeout(PATIENCE)
                connection.connect(str(self._settings.wake_socket))
        except OSError as error:
            raise _Broken(
                f"nobody wakes sites: {error.strerror or error}", "see the log of alveole serve --role control"
            ) from None
        return "nobody asks for the site; the next visit wakes it"

    def _route(self, request: Inspect, where: str) -> str:
        leads = self._leads(_route_of(request))
        if leads.startswith("asleep"):
            # Why it is not switched, the links that follow say.
            return "it holds visits until the site is awake"
        if leads == "stopped":
            raise _Broken("it says that the site is stopped", "alveole site start")
        if leads != where:
            raise _Broken(f"it leads to {leads}", f"it is switched to {where} once that instance is ready")
        return leads

    def _container(self, request: Inspect, net: InstanceNet) -> str:
        pid = self._pid_of(request.site, request.slot)
        if pid is None:
            raise _Broken(
                "it does not run", "see 'alveole site logs' for its last words; it is started again by itself"
            )
        if not Path(f"/sys/class/net/{net.interface}").exists():
            raise _Broken(
                f"process {pid} runs, but its interface {net.interface} is gone", "it is made again by itself"
            )
        return f"process {pid} runs"

    def _process(self, target: str | tuple[str, int]) -> str:
        try:
            if isinstance(target, str):
                with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
                    connection.settimeout(PATIENCE)
                    connection.connect(target)
            else:
                socket.create_connection(target, PATIENCE).close()
        except OSError as error:
            raise _Broken(
                error.strerror or str(error), "the program does not listen there: check --port and 'alveole site logs'"
            ) from None
        return "accepted"

    def _health(self, request: Inspect, target: str | tuple[str, int], where: str) -> tuple[Link, ...]:
        """A site may answer visitors and say at a path of its own that it is not well."""
        path = request.health
        if path in ("", "/"):
            return ()
        cure = "it says itself that it is not well: see 'alveole site logs'"
        return (
            _link("health", f"GET {path} from {where}", lambda: self._of_itself(target, request.domain, path, cure)),
        )

    def _application(self, target: str | tuple[str, int], name: str) -> str:
        return self._of_itself(target, name, "/", "the application fails by itself: see 'alveole site logs'")

    def _of_itself(self, target: str | tuple[str, int], name: str, path: str, cure: str) -> str:
        connection = _Plain(target, name)
        try:
            connection.request("GET", path)
            status = connection.getresponse().status
        except TimeoutError:
            raise _Broken(
                f"no answer within {PATIENCE:g} s",
                "it hangs, or waits for something that does: see 'alveole site logs'; to start it anew: "
                "alveole site restart",
            ) from None
        finally:
            connection.close()
        if status >= 500:
            raise _Broken(f"status {status}", cure)
        return f"status {status}"

    def _answer(self, name: str, path: str) -> str:
        connection = _Plain(("127.0.0.1", self._settings.edge.https_port), name, self._context(name))
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read(0)
        except TimeoutError:
            raise _Broken(f"no answer within {PATIENCE:g} s", "the first broken link above says why") from None
        finally:
            connection.close()
        if answer.status in (502, 503, 504):
            raise _Broken(f"status {answer.status}", "the first broken link above says why")
        return f"status {answer.status}"


def doctor(settings: Settings, cgroup: str) -> tuple[Link, ...]:
    """What of the machine is in order: programs, room, kernel, proxy."""
    return (
        *(_link("program", program, partial(_program, program)) for program in PROGRAMS),
        _link("program", "sftp-server", _sftp_server),
        *((_link("ssh", "the SSH door answers", partial(_door, settings)),) if settings.ssh.enabled else ()),
        _link("kernel", "Linux 5.19 or later, for id-mapped roots", _kernel),
        _link("cgroup", "a cgroup layout with limits", lambda: cgroup),
        _link("state", f"room in {settings.state}", lambda: _room(settings.state, settings.content.reserve_bytes)),
        _link("forwarding", "net.ipv4.ip_forward", _forwarding),
        _link("firewall", "rules of others that drop by default", lambda: _walls(settings)),
        _link("proxy", "the proxy's own status", Inspector(settings, lambda _s, _n: None, lambda: "")._proxy),
    )


#: What the agent starts, and the Debian package of each.
PROGRAMS = {
    "crun": "crun",
    "nginx": "nginx",
    "s6-log": "s6",
    "s6-svscan": "s6",
    "restic": "restic",
    "rrdtool": "rrdtool",
    "mmdebstrap": "mmdebstrap",
    "mkfs.ext4": "e2fsprogs",
    "tini-static": "tini",
    "rsync": "rsync",
    "git": "git",
    "scp": "openssh-client",
}


def _program(program: str) -> str:
    found = shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        raise _Broken("not installed", f"apt-get install {PROGRAMS[program]}")
    return found


def _sftp_server() -> str:
    path = Path("/usr/lib/openssh/sftp-server")
    if not path.exists():
        raise _Broken("not installed", "apt-get install openssh-sftp-server")
    return str(path)


def _door(settings: Settings) -> str:
    """The greeting of the SSH door (RFC 4253 §4.2). Where its process rests, it is let rest."""
    from alveole.agent import doorway

    if doorway.rests(settings.ssh.port):
        return "it listens, and its process is started by the next connection"
    address = {"0.0.0.0": "127.0.0.1", "": settings.ssh.ipv6}.get(settings.ssh.ipv4, settings.ssh.ipv4)  # noqa: S104  asks
    address = "::1" if address == "::" else address
    cure = "see the log of alveole serve --role ssh"
    try:
        with socket.create_connection((address, settings.ssh.port), timeout=_DOOR_SECONDS) as door:
            greeting = door.recv(64)
    except OSError as error:
        raise _Broken(f"{address} port {settings.ssh.port}: {error.strerror or error}", cure) from None
    if not greeting.startswith(b"SSH-2.0-Alveole"):
        raise _Broken("another program answers there", "choose another ssh.port in the settings")
    return greeting.decode("ascii", "replace").strip()


def _kernel() -> str:
    release = os.uname().release
    major, minor = (int("".join(filter(str.isdigit, part)) or 0) for part in release.split(".")[:2])
    if (major, minor) < (5, 19):
        raise _Broken(release, "upgrade the kernel: Debian 12 has 6.1")
    return release


def _room(directory: Path, reserve: int) -> str:
    usage = shutil.disk_usage(directory)
    status = os.statvfs(directory)
    if usage.free < reserve:
        raise _Broken(f"{usage.free >> 20} MiB free", f"make room: {reserve >> 20} MiB are kept for the platform")
    if status.f_files and status.f_favail < 10_000:
        raise _Broken(f"{status.f_favail} inodes free", "delete files: a site takes thousands")
    return f"{usage.free >> 20} MiB of {usage.total >> 20} MiB free"


def _walls(settings: Settings) -> str:
    found = walls.foreign_drops(settings)
    if found:
        bridge = settings.network.bridge
        raise _Broken(
            "; ".join(f"{chain}: {suffers}" for chain, suffers in found),
            f"let the bridge through there, for instance: iptables -I FORWARD -i {bridge} -j ACCEPT, "
            f"iptables -I FORWARD -o {bridge} -j ACCEPT, iptables -I INPUT -i {bridge} -j ACCEPT (Alvéole's own rules "
            "still keep sites from the machine)",
        )
    return "none"


def _forwarding() -> str:
    if Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() != "1":
        raise _Broken("off", "it is set by itself with the first site that may reach the internet")
    return "on"
