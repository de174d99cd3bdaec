"""A whole Alvéole of a test's own: its processes, its paths, its networks; nothing of it is left at the end.

``with Instance() as alveole:`` starts ``alveole serve`` and waits until the platform is as promised. With
``split=True`` the test starts agent and control itself, so that it can let one of them die at a failpoint.
Used by ``tests/e2e`` and ``tests/fault``; needs root.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

from alveole.actuators.bases import debian_key
from instancekit import (
    CACHE,
    SETTINGS,
    Answer,
    ApiError,
    Done,
    UnixHTTP,
    alive,
    cgroup_tops,
    clean_environment,
    command,
    descendants,
    free_octet,
    free_ports,
    kill,
    make_users,
    mounted,
    one_at_a_time,
    parent,
    public_python,
    read_bytes,
    run,
    same_device,
    until,
)
from instancetraces import Traces

GUNICORN = "gunicorn"

_libc = ctypes.CDLL(None, use_errno=True)
_MNT_DETACH = 2


def _is_small(base: Path) -> bool:
    """Links to its files are made soon: a base of one package, or what others lie over; and not made long ago by other
    rules, so that nothing asks for it."""
    about = json.loads((base / "base.json").read_text())["base"]
    return len(about["packages"]) <= 1 and (about["kind"] != "debian" or base.name == debian_key(about["packages"]))


class Instance(Traces):
    def __init__(
        self,
        *,
        split: bool = False,
        drift: float = 1.0,
        more: str = "",
        state_on: Callable[[Path], None] | None = None,
        alone: bool = False,
        ssh: bool = False,
    ) -> None:
        """``more`` is added to the settings; ``state_on`` may mount something at the state directory first.

        ``alone``: only the agent, which makes nothing by itself.
        """
        self.split, self.drift, self.more, self.state_on, self.alone = split or alone, drift, more, state_on, alone
        self.ssh = str(ssh).lower()
        self.supervisor: subprocess.Popen[bytes] | None = None
        self.roles: dict[str, subprocess.Popen[bytes]] = {}
        self._ca: ssl.SSLContext | None = None
        self._ids: dict[str, str] = {}

    # --- life -------------------------------------------------------------------------------------
    def __enter__(self) -> Instance:
        make_users()
        self.root = Path(tempfile.mkdtemp(prefix="alt", dir="/var/tmp"))
        self.root.chmod(0o755)
        self.tag = f"alt{secrets.token_hex(3)}"
        self.prefix = f"t{secrets.token_hex(2)}"
        self.state, self.run_dir = self.root / "s", self.root / "r"
        self.config = self.root / "alveole.toml"
        self.log = self.root / "serve.log"
        try:
            with one_at_a_time("network"):
                self.octet = free_octet()
                self.http, self.https, self.api_port, self.ssh_port = free_ports(4)
                self.settle_settings()
                self.state.mkdir()
                if self.state_on is not None:
                    self.state_on(self.state)
                self.seed_bases()
                if self.alone:
                    self.start_role("agent")
                    until(self.agent_listens, 30, self.tail)
                    return self
                self.start(ready=False)
                # The bridge holds the octet from here on.
                self.until_ready()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        if kind is not None:
            sys.stderr.write(f"--- log of {self.root}\n{self.tail(60)}\n")
        self.remove()
        left = self.leftovers()
        assert not left, f"left behind: {left}"

    def settle_settings(self, **changed: str) -> None:
        text = SETTINGS.format(api=self.api_port, **vars(self))
        self.config.write_text(text + self.more)

    def seed_bases(self) -> None:
        """Begin with the bases that the cache has, but for the big ones of the catalogue's modules."""
        bases = self.state / "bases"
        for kept in sorted((CACHE / "bases").glob("[a-z]*-*")):
            bases.mkdir(exist_ok=True)
            if not (bases / kept.name).exists() and same_device(kept, bases) and _is_small(kept):
                run("cp", "-al", kept, bases / kept.name)

    def keep_base(self, key: str) -> None:
        """Let later instances begin with this base. Bases are never written to, so links are copies enough."""
        target = CACHE / "bases" / key
        record = json.loads((self.state / "bases" / key / "base.json").read_text())
        if lower := record.get("lower"):
            self.keep_base(lower)
            kept = CACHE / "bases" / lower / "base.json"
            if not kept.exists() or json.loads(kept.read_text())["versions"] != record["lower_versions"]:
                return
        if not target.exists() and same_device(self.state, CACHE.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
            fresh = target.with_name(f".{key}.{secrets.token_hex(4)}")
            run("cp", "-al", self.state / "bases" / key, fresh)
            with contextlib.suppress(OSError):
                fresh.rename(target)

    def start(self, *, ready: bool = True, **failpoints: str) -> None:
        """Start what is not running; ``agent="name"`` or ``control="name"`` lets that role die there."""
        if self.split:
            for role in ("agent", "control"):
                if not self.is_up(role):
                    self.start_role(role, failpoints.get(role, ""))
        elif self.supervisor is None:
            assert not failpoints
            self.supervisor = self._popen([])
        if ready:
            self.until_ready()

    def start_role(self, role: str, failpoint: str = "") -> None:
        more: dict[str, Any] = {}
        if role == "control":
            user = pwd.getpwnam("alveole")
            more = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "umask": 0o077}
            until(self.agent_listens, 30, "the agent does not listen")
        self.roles[role] = self._popen(["--role", role], failpoint, **more)

    def _popen(self, words: list[str], failpoint: str = "", **more: Any) -> subprocess.Popen[bytes]:
        environment = {**clean_environment(), "ALVEOLE_CONFIG": str(self.config), "HOME": "/nonexistent"}
        if failpoint:
            environment["ALVEOLE_FAILPOINT"] = failpoint
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [public_python(), "-m", "alveole", "--config", str(self.config), "serve", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
                env=environment,
                **more,
            )

    def agent_listens(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(self.run_dir / "agent.sock"))
            return True
        return False

    def until_ready(self, seconds: float = 40.0) -> None:
        """Wait until the API answers and the platform is as promised."""
        last: Any = None

        def ready() -> bool:
            nonlocal last
            if self.supervisor is not None and self.supervisor.poll() is not None:
                raise AssertionError(f"alveole serve ended: {self.tail()}")
            try:
                last = self.api("GET", "/v1/status")
            except (OSError, http.client.HTTPException, ApiError) as error:
                last = error
                return False
            return bool(last["agent"] and last["promises"] and all(p["state"] == "kept" for p in last["promises"]))

        until(ready, seconds, lambda: f"not ready: {last}\n{self.tail()}")

    def stop(self) -> None:
        """End agent and control; sites and the proxy go on."""
        ends = [*self.roles.values(), *([self.supervisor] if self.supervisor else [])]
        self.roles, self.supervisor = {}, None
        for process in ends:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        for process in ends:
            try:
                process.wait(35)
            except subprocess.TimeoutExpired:
                kill(descendants([process.pid]))
                process.wait()

    def is_up(self, role: str) -> bool:
        return role in self.roles and self.roles[role].poll() is None

    def pid_of(self, role: str) -> int:
        """``agent``, ``control`` or ``nginx``."""
        if role == "nginx":
            return int((self.run_dir / "edge" / "nginx.pid").read_text())
        if role in self.roles:
            return self.roles[role].pid
        assert self.supervisor is not None
        for pid in descendants([self.supervisor.pid]):
            if command(pid).endswith(f"serve --role {role}") and parent(pid) == self.supervisor.pid:
                return pid
        raise AssertionError(f"{role} does not run: {self.tail()}")

    def pid_is_new(self, role: str, old: int) -> bool:
        try:
            return self.pid_of(role) != old
        except AssertionError:
            return False

    def kill_role(self, role: str) -> None:
        pid = self.pid_of(role)
        os.kill(pid, signal.SIGKILL)
        if role in self.roles:
            self.roles.pop(role).wait()
        until(lambda: not alive(pid), 30, f"{role} does not die")

    def tail(self, lines: int = 25) -> str:
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    # --- the doors --------------------------------------------------------------------------------
    @property
    def api_socket(self) -> Path:
        return self.run_dir / "control" / "api.sock"

    def api(self, method: str, path: str, body: Any = None, *, key: str = "", seconds: float = 60.0) -> Any:
        """One request to the API; ``body``: bytes are sent as they are, anything else as JSON. Raises ``ApiError``."""
        connection = UnixHTTP(self.api_socket, seconds)
        headers = {"Idempotency-Key": key} if key else {}
        content: bytes | None = None
        if isinstance(body, bytes):
            content, headers["Content-Type"] = body, "application/octet-stream"
        elif body is not None:
            content, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        try:
            connection.request(method, path, content, headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        document = json.loads(text) if text.strip() and "json" in answer.headers.get("Content-Type", "") else text
        if answer.status >= 400:
            raise ApiError(answer.status, document)
        return document

    def upload(self, content: bytes) -> str:
        return str(self.api("POST", "/v1/uploads", content)["id"])

    def create(self, name: str, content: bytes | None = None, *, wait: bool = True, **more: Any) -> Any:
        body = {"name": name, **more}
        if content is not None:
            body["upload"] = self.upload(content)
        return self._change(self.api("POST", "/v1/sites", body), wait)

    def update(self, name: str, content: bytes, *, wait: bool = True) -> Any:
        return self._change(
            self.api("POST", f"/v1/sites/{quote(name)}/releases", {"upload": self.upload(content)}), wait
        )

    def verb(self, name: str, verb: str, *, wait: bool = True) -> Any:
        return self._change(self.api("POST", f"/v1/sites/{quote(name)}/{verb}", {}), wait)

    def destroy(self, name: str) -> None:
        if self.site(name)["wanted"] == "running":
            self.verb(name, "stop")
        self._change(self.api("DELETE", f"/v1/sites/{quote(name)}?confirm={quote(name)}"), True)

    def _change(self, change: Any, wait: bool) -> Any:
        return self.ended(change["id"], good=True, seconds=300.0) if wait else change

    def ended(self, id: str, *, good: bool = False, seconds: float = 120.0) -> Any:
        """The change when it has ended, whatever becomes of control meanwhile."""
        found: Any = None

        def over() -> bool:
            nonlocal found
            with contextlib.suppress(OSError, http.client.HTTPException):
                found = self.api("GET", f"/v1/changes/{id}?wait=5")
            return found is not None and found["state"] in ("done", "failed")

        until(over, seconds, lambda: f"does not end: {found}\n{self.tail()}")
        assert not good or found["state"] == "done", (found, self.tail())
        return found

    def site(self, name: str) -> Any:
        return self.api("GET", f"/v1/sites/{quote(name)}")

    def until_kept(self, *names: str, seconds: float = 60.0) -> None:
        """Wait until every promise of these sites (none named: of all) is kept."""
        last: Any = None

        def kept() -> bool:
            nonlocal last
            with contextlib.suppress(OSError, http.client.HTTPException, ApiError):
                last = self.api("GET", "/v1/sites")
                last = last["sites"] if isinstance(last, dict) else last
                chosen = [each for each in last if not names or each["name"] in names]
                return all(each["state"] == each["wanted"] for each in chosen) and all(
                    p["state"] == "kept" for each in chosen for p in each["promises"]
                )
            return False

        until(kept, seconds, lambda: f"not as promised: {last}\n{self.tail()}")

    def journal(self, **filters: str) -> list[Any]:
        query = "&".join(f"{key}={value}" for key, value in filters.items())
        found = self.api("GET", f"/v1/changes?limit=200&{query}")
        return list(found["changes"] if isinstance(found, dict) else found)

    def until_repaired(self, *words: str, seconds: float = 30) -> None:
        """Wait for a repair whose reason names all ``words``: its row comes a moment after its effect."""
        seen: list[str] = []

        def told() -> bool:
            seen[:] = [f"{each['site_name']}: {each['reason']}" for each in self.journal() if each["verb"] == "repair"]
            return any(all(word in line for word in words) for line in seen)

        until(told, seconds, lambda: f"no repair names {words}: {seen[:5]}")

    def cli(self, *words: str, status: int | None = 0, input: str = "", seconds: float = 240.0) -> Done:
        """Run the command as a person would; ``status``: what it must end with (``None``: whatever)."""
        done = subprocess.run(
            [sys.executable, "-m", "alveole", "--config", str(self.config), *words],
            capture_output=True,
            text=True,
            input=input,
            check=False,
            timeout=seconds,
            cwd="/",
            env=clean_environment(),
        )
        found = Done(words, done.returncode, done.stdout, done.stderr)
        assert status is None or done.returncode == status, f"{found}\n{self.tail()}"
        return found

    # --- its sites, from outside ------------------------------------------------------------------
    def fetch(
        self,
        name: str,
        path: str = "/",
        *,
        https: bool = False,
        family: int = 4,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        seconds: float = 10.0,
        trusted: bool = True,
        body: bytes | None = None,
    ) -> Answer:
        """One request to a site by its public name (a bare name gets the main domain), certificate checked."""
        host = name if "." in name or name == "localhost" else f"{name}.localhost"
        port = self.https if https else self.http
        raw = socket.create_connection(("127.0.0.1" if family == 4 else "::1", port), timeout=seconds)
        connection = http.client.HTTPConnection(host, port, timeout=seconds)
        connection.sock = raw
        try:
            if https:
                context = self.trust() if trusted else ssl._create_unverified_context()  # noqa: S323  a test asks for it
                connection.sock = context.wrap_socket(raw, server_hostname=host)
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return Answer(answer.status, answer.read(), answer.headers, answer.version)
        finally:
            connection.close()

    def trust(self) -> ssl.SSLContext:
        if self._ca is None:
            self._ca = ssl.create_default_context(cadata=self.cli("ca", "show").out)
        return self._ca

    def answers(self, name: str, word: str = "", **how: Any) -> bool:
        try:
            answer = self.fetch(name, **how)
        except (OSError, http.client.HTTPException):
            return False
        return answer.status == 200 and word in answer.body

    def until_answers(self, name: str, word: str = "", seconds: float = 40.0, **how: Any) -> None:
        until(lambda: self.answers(name, word, **how), seconds, lambda: f"{name} does not answer\n{self.tail()}")

    def inside(self, name: str, script: str, *, status: int = 0, user: int | None = None) -> str:
        """Run Python inside a site; what it printed."""
        who = ("--user", str(user)) if user is not None else ()
        done = self.cli("site", "exec", *who, "--no-tty", name, "--", "/usr/bin/python3", "-c", script, status=status)
        return done.out

    def workload_pid(self, name: str) -> int:
        """PID 1 of the site's live instance, as the host sees it."""
        with contextlib.suppress(OSError):
            self._ids[name] = str(self.site(name)["id"])
        id = self._ids[name]
        for file in sorted(self.run_dir.glob("sites/s*.*/state.json")):
            found = json.loads(file.read_text())
            if found["spec"]["site"] == id and found.get("pid") and alive(int(found["pid"])):
                return int(found["pid"])
        raise AssertionError(f"{name} has no process")

    # --- the end ----------------------------------------------------------------------------------
    def cut(self) -> None:
        """What a power cut or a reboot does: processes, mounts, interfaces, rules and cgroups go; the disk stays."""
        ends = [*self.roles.values(), *([self.supervisor] if self.supervisor else [])]
        self.roles, self.supervisor = {}, None
        for process in ends:
            with contextlib.suppress(OSError):
                os.kill(process.pid, signal.SIGKILL)
        for _round in range(100):
            found = self.pids()
            for process in ends:
                process.poll()
            if not found:
                break
            kill(found)
            time.sleep(0.03)
        for process in ends:
            process.wait()
        keep = self.state if self.state_on is not None else None
        for place in reversed(mounted("self", self.root)):
            if keep is None or Path(place) != keep:
                _libc.umount2(place.encode(), _MNT_DETACH)
        for each in Path("/sys/block").glob("loop*/loop/backing_file"):
            if f"{self.state}/" in read_bytes(str(each)).decode(errors="replace"):
                run("losetup", "-d", f"/dev/{each.parent.parent.name}", check=False)
        for name in self.interfaces():
            run("ip", "link", "del", name, check=False)
        for line in run("nft", "list", "tables", check=False).stdout.splitlines():
            words = line.split()
            if len(words) == 3 and words[2] == self.tag:
                run("nft", "delete", "table", words[1], words[2], check=False)
        for top in cgroup_tops(self.tag):
            for directory, _, _ in os.walk(top, topdown=False):
                for _try in range(100):
                    try:
                        Path(directory).rmdir()
                        break
                    except FileNotFoundError:
                        break
                    except OSError:
                        time.sleep(0.02)
        for network in self.routes():
            # By design they outlive the bridge, so that nothing meant for a site ever leaves by another way.
            run("ip", "route", "del", "unreachable", network, check=False)
        shutil.rmtree(self.run_dir, ignore_errors=True)

    def remove(self) -> None:
        with contextlib.suppress(Exception):
            self.stop()
        self.cut()
        for place in reversed(mounted("self", self.root)):
            _libc.umount2(place.encode(), _MNT_DETACH)
        for each in Path("/sys/block").glob("loop*/loop/backing_file"):
            if str(self.root) in read_bytes(str(each)).decode(errors="replace"):
                run("losetup", "-d", f"/dev/{each.parent.parent.name}", check=False)
        # Links to a hundred thousand files of bases: no Python for these.
        run("rm", "-rf", self.root, check=False)
