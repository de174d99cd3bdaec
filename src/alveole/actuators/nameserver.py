"""BIND on this machine as the primary server of one zone: its configuration, its zone file, and its life.

Three things are ours: ``alveole.conf`` beside named.conf, the line of named.conf.local that includes it, and the zone
file; scripts/installer/nameserver.py takes them out where no Alvéole runs any more. The zone is a dynamic one: after
the first start only the server writes its file, and everything in it changes by signed updates. Every word that goes
into a file was checked field by field (:mod:`alveole.agent.naming`).
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import pwd
import re
import threading
import time
from pathlib import Path

from alveole import wholefile
from alveole.agent.naming import NameHost, NameKey, NamesServed, SetUpNames
from alveole.config import Settings
from alveole.errors import AlveoleError, InvalidInput, Refused, Temporary
from alveole.host.run import ProgramFailed, run

log = logging.getLogger("alveole.nameserver")
_NAMED = "/usr/sbin/named"
_RNDC = "/usr/sbin/rndc"
_CHECK_CONF = "/usr/bin/named-checkconf"
_CHECK_ZONE = "/usr/bin/named-checkzone"
_SYSTEMCTL = "/usr/bin/systemctl"
_UNIT = "named.service"
#: How long a server that was started may take until it answers rndc, and its unit until it is up.
_START_SECONDS = 30.0
_UNIT_SECONDS = 120.0
_HEADER = (
    '// Written by "alveole dns setup" of the instance in {state}, and again at each;\n'
    '// taken away by "alveole dns setup --undo".\n'
)
_OF = re.compile(r'// Written by "alveole dns setup" of the instance in (\S+), ')
#: In the file that says that the server was started from here: its unit was enabled, too.
_ENABLED = "enabled\n"


class NameServers:
    """Safe from several threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.nameserver
        self._state = settings.paths.state
        self._lock = threading.Lock()
        self._directory = Path(self._settings.directory)
        self._zones = Path(self._settings.zones)
        self._own = self._directory / "alveole.conf"
        self._local = self._directory / "named.conf.local"
        self._started = self._directory / "alveole.started"
        """There when it was us who started the server; says whether its unit was enabled for that."""

    def set_up(self, request: SetUpNames) -> NamesServed:
        with self._lock:
            for program in (_NAMED, _RNDC, _CHECK_CONF, _CHECK_ZONE):
                if not Path(program).exists():
                    raise Refused(f"{program} is not there", field="mode", hint="apt-get install bind9")
            if not (self._directory / "named.conf").exists() or not self._local.exists():
                raise Refused(
                    f"{self._directory} has no named.conf with a named.conf.local",
                    field="mode",
                    hint="apt-get install bind9",
                )
            old_own, old_local = _read(self._own), _read(self._local)
            if self._is_anothers(old_own):
                raise Refused(
                    f"{self._own} is of another Alvéole on this machine",
                    field="mode",
                    hint="alveole dns setup --undo there; or another server, and where it is in [nameserver] here",
                )
            if not old_own and f'zone "{request.zone}"' in (old_local or ""):
                raise Refused(
                    f"{self._local} has the zone {request.zone} already",
                    field="zone",
                    hint="take it out there, or use it as one elsewhere: alveole dns setup --server 127.0.0.1",
                )
            place = self._zones / f"alveole.{request.zone}.zone"
            fresh, ran_by_us = not place.exists(), self._started.exists()
            try:
                self._write_zone(place, request, fresh)
                self._write(self._own, _HEADER.format(state=self._state) + _configuration(request, place), secret=True)
                self._write(self._local, _with_line(old_local or "", self._line()))
                run([_CHECK_CONF, str(self._directory / "named.conf")])
                started = self._take()
            except (AlveoleError, OSError) as error:
                if fresh:
                    # First: on a full disk it makes the room for what is put back.
                    place.unlink(missing_ok=True)
                self._put_back(old_own, old_local)
                with contextlib.suppress(AlveoleError, OSError):
                    if self._started.exists() and not ran_by_us:
                        self._stop()
                    else:
                        self._rndc("reconfig")
                if isinstance(error, OSError):
                    raise Temporary(f"{error.filename or place}: {error.strerror}", field="mode") from error
                if isinstance(error, ProgramFailed):
                    raise Refused(f"BIND does not take it: {'; '.join(error.tail)}"[:500], field="mode") from error
                raise
            return NamesServed(fresh, started)

    def recover(self) -> None:
        """After a boot, where nobody else starts what we have started: systemd does."""
        if self._started.exists() and not _has_systemd():
            with self._lock:
                try:
                    self._take()
                except AlveoleError as error:
                    log.warning("BIND was not started again: %s", error)

    def undo(self) -> None:
        with self._lock:
            local, own = _read(self._local), _read(self._own)
            if self._is_anothers(own):
                return
            there = own is not None
            if local is not None and self._line() in local.splitlines():
                self._write(self._local, "".join(f"{line}\n" for line in local.splitlines() if line != self._line()))
                there = True
            self._own.unlink(missing_ok=True)
            if self._started.exists():
                self._stop()
            elif there and self._runs():
                self._rndc("reconfig")

    def _is_anothers(self, own: str | None) -> bool:
        """Older versions did not say whose it is."""
        found = _OF.match(own or "")
        return found is not None and found[1] != self._state

    # --- files ----------------------------------------------------------------------------------
    def _line(self) -> str:
        return f'include "{self._own}";'

    def _put_back(self, own: str | None, local: str | None) -> None:
        if own is None:
            self._own.unlink(missing_ok=True)
        # What is there as it was need not be written, which a full disk would refuse.
        elif _read(self._own) != own:
            self._write(self._own, own, secret=True)
        if local is not None and _read(self._local) != local:
            self._write(self._local, local)

    def _write(self, place: Path, text: str, *, secret: bool = False) -> None:
        """What holds keys is read by root and the server alone."""
        wholefile.write(place, text.encode(), mode=0o640 if secret else 0o644, owner=(0, self._gid()))

    def _gid(self) -> int:
        return pwd.getpwnam(self._user()).pw_gid

    def _user(self) -> str:
        try:
            return pwd.getpwnam(self._settings.user).pw_name
        except KeyError:
            raise Refused(
                f"there is no user {self._settings.user}", field="mode", hint="apt-get install bind9"
            ) from None

    def _write_zone(self, place: Path, request: SetUpNames, fresh: bool) -> None:
        if not fresh:
            return
        person = pwd.getpwnam(self._user())
        wholefile.write(place, _zone(request).encode(), mode=0o644, owner=(person.pw_uid, person.pw_gid))
        run([_CHECK_ZONE, request.zone, str(place)])

    # --- the server -----------------------------------------------------------------------------
    def _rndc(self, *words: str) -> None:
        key = self._directory / "rndc.key"
        port = str(self._settings.control_port)
        run([_RNDC, "-k", str(key), "-s", "127.0.0.1", "-p", port, *words], timeout=30.0)

    def _runs(self) -> bool:
        try:
            self._rndc("status")
        except AlveoleError:
            return False
        return True

    def _take(self) -> bool:
        """Let the server read its configuration; start it when it does not run. Gives whether it was started."""
        if self._runs():
            self._rndc("reconfig")
            return False
        self._start()
        until = time.monotonic() + _START_SECONDS
        while not self._runs():
            if time.monotonic() > until:
                raise Temporary("BIND was started and does not answer rndc", hint="see its log")
            time.sleep(0.1)
        return True

    def _start(self) -> None:
        """Written down first, so that it can be undone whatever happens then."""
        if _has_systemd():
            enabled = run([_SYSTEMCTL, "is-enabled", "--quiet", _UNIT], check=False).returncode == 0
            by_us = not enabled or _read(self._started) == _ENABLED
            self._write(self._started, _ENABLED if by_us else "")
            run([_SYSTEMCTL, *(["start"] if enabled else ["enable", "--now"]), _UNIT], timeout=_UNIT_SECONDS)
            return
        if self._settings.directory == "/etc/bind":
            # Its unit would make this; where the pid and a session's key are.
            person = pwd.getpwnam(self._user())
            Path("/run/named").mkdir(exist_ok=True)
            os.chown("/run/named", person.pw_uid, person.pw_gid)
        self._write(self._started, "")
        # It leaves by itself once it is ready, and is nobody's child then.
        run([_NAMED, "-u", self._user(), "-c", str(self._directory / "named.conf")])

    def _stop(self) -> None:
        """As it was before it was started from here; what cannot be stopped is left."""
        with contextlib.suppress(AlveoleError):
            if _has_systemd():
                how = ["disable", "--now"] if _read(self._started) == _ENABLED else ["stop"]
                run([_SYSTEMCTL, *how, _UNIT], timeout=_UNIT_SECONDS)
            else:
                self._rndc("stop")
                until = time.monotonic() + _START_SECONDS
                while self._runs() and time.monotonic() < until:
                    time.sleep(0.1)
        self._started.unlink(missing_ok=True)


def _has_systemd() -> bool:
    """As sd_booted(3) decides it."""
    return Path("/run/systemd/system").is_dir()


def _read(place: Path) -> str | None:
    try:
        return place.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{place} cannot be read: {error}", field="mode") from None


def _with_line(text: str, line: str) -> str:
    if line in text.splitlines():
        return text
    end = "" if not text or text.endswith("\n") else "\n"
    return f"{text}{end}{line}\n"


def _key(key: NameKey) -> str:
    return f'key "{key.name}" {{ algorithm {key.algorithm}; secret "{key.secret}"; }};\n'


def _configuration(request: SetUpNames, place: Path) -> str:
    fetchers = [(_address(each.address), each.port) for each in request.fetchers]
    allowed = [f'key "{request.transfer.name}"', *(address for address, _port in fetchers if not request.by_key)]
    sign = f' key "{request.transfer.name}"' if request.by_key else ""
    notified = [f"{address} port {port}{sign}" for address, port in fetchers]
    return (
        _key(request.update)
        + _key(request.transfer)
        + f'zone "{request.zone}" {{\n'
        + "  type primary;\n"
        + f'  file "{place}";\n'
        + f'  allow-update {{ key "{request.update.name}"; }};\n'
        + f"  allow-transfer {{ {'; '.join(allowed)}; }};\n"
        # Who is to be told stands here; their names need not lead to where they listen.
        + "  notify explicit;\n"
        # BIND's five seconds are long where a name that was asked for too soon is remembered as absent for a minute.
        + "  notify-delay 1;\n"
        + f"  also-notify {{ {''.join(f'{each}; ' for each in notified)}}};\n"
        + "};\n"
    )


def _zone(request: SetUpNames) -> str:
    """What a zone begins with (RFC 1035 §5): its servers, and their addresses where they lie in it."""
    first = request.hosts[0].name
    # refresh, retry and expire as RIPE-203 recommends for small and stable zones; a name that was not there is
    # remembered as absent for a minute, so that a new site is not hidden for long.
    head = f"{request.zone}. SOA {first}. hostmaster.{request.zone}. {request.serial} 86400 7200 3600000 60\n"
    hosts = "".join(f"{request.zone}. NS {each.name}.\n" for each in request.hosts)
    return f"$TTL {request.ttl}\n{head}{hosts}{''.join(map(_glue, request.hosts))}"


def _glue(host: NameHost) -> str:
    found = [ipaddress.ip_address(_address(each)) for each in host.addresses]
    return "".join(f"{host.name}. {'A' if each.version == 4 else 'AAAA'} {each}\n" for each in found)


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise InvalidInput(f"{text!r} is not an address", field="address") from None
