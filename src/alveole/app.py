"""Wiring: the only place that builds everything, and the life of the processes.

``alveole serve`` alone is a supervisor: it starts the agent as root and control as its own
unprivileged user, starts either again when it ends, and passes a stop on to both. Under systemd
each role is a unit of its own. Sites, and the proxy in front of them, outlive all of these.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import logging
import os
import pwd
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NoReturn

from alveole import keeper
from alveole.config import ENVIRONMENT, Settings
from alveole.errors import InvalidInput, Refused
from alveole.logbook.places import WANTED
from alveole.logbook.writer import OwnHandler
from alveole.ssh.door import HOST_KEYS, LISTENERS, check_door, open_listeners, run_door

Role = Literal["agent", "control", "ssh", "porter"]
log = logging.getLogger("alveole.app")
#: Of malloc.h. Each request has a thread of its own, and the C library would keep what is left over for each of many
#: apart. And once it has seen a large block come and go, it would keep such blocks too, unless the limits are set.
_MALLOC = {"M_ARENA_MAX": (-8, 1), "M_MMAP_THRESHOLD": (-3, 128 << 10), "M_TRIM_THRESHOLD": (-1, 128 << 10)}
#: There while a platform is being restored into the state directory: ``restoring`` has begun and not ended.
MARK = "restoring.json"


def serve(settings: Settings, role: Role | None = None, config: Path | None = None) -> None:
    """Run until SIGTERM or SIGINT. Raises ``AlveoleError`` when the role cannot run here."""
    logging.basicConfig(
        level=os.environ.get("ALVEOLE_LOG", "INFO").upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    if role is not None:
        logging.getLogger().addHandler(OwnHandler(settings.logs, role))
    if (settings.state / MARK).exists():
        raise Refused(f"{settings.state} is only half restored", hint="ask for it again: alveole restore-platform")
    for option, value in _MALLOC.values():
        ctypes.CDLL(None).mallopt(option, value)
    if role == "agent":
        _need_root("the agent")
        from alveole.agent.main import run_agent

        run_agent(settings, ready=_ready)
    elif role == "control":
        from alveole.control import run_control

        run_control(settings, ready=_ready)
    elif role == "ssh":
        if LISTENERS in os.environ:
            run_door(settings)
        else:
            wait_at_door(settings, config)
    elif role == "porter":
        from alveole.logbook.porter import run_porter

        run_porter(settings)
    else:
        _need_root("alveole serve")
        supervise(settings, config)


def _ready() -> None:
    notify_ready()
    # What starting needed and nobody needs any more: the C library keeps it otherwise, some megabytes for good.
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def notify_ready() -> None:
    """Tell systemd, where it started us, that this role is up (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(b"READY=1", address)


def _need_root(what: str) -> None:
    if os.geteuid() != 0:
        raise Refused(f"{what} needs root", hint="run it with sudo")


def prepare_control(settings: Settings) -> pwd.struct_passwd:
    """Make the two directories that control owns; gives its user. Raises ``InvalidInput``."""
    try:
        user = pwd.getpwnam(settings.users.control)
    except KeyError:
        raise InvalidInput(
            f"there is no user {settings.users.control!r} on this machine",
            field="users.control",
            hint=f"adduser --system --group --no-create-home {settings.users.control}",
        ) from None
    for directory in (settings.state, settings.run):
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)
    for directory, mode in ((settings.database.parent, 0o700), (settings.api_socket.parent, 0o755)):
        directory.mkdir(exist_ok=True)
        os.chown(directory, user.pw_uid, user.pw_gid)
        directory.chmod(mode)
    return user


def prepare_door(settings: Settings) -> pwd.struct_passwd:
    """Make the directory of the host keys, which the SSH door owns; gives its user. Raises ``InvalidInput``."""
    try:
        user = pwd.getpwnam(settings.users.ssh)
    except KeyError:
        raise InvalidInput(
            f"there is no user {settings.users.ssh!r} on this machine",
            field="users.ssh",
            hint=f"adduser --system --group --no-create-home {settings.users.ssh}",
        ) from None
    settings.state.mkdir(parents=True, exist_ok=True)
    settings.ssh_keys.mkdir(exist_ok=True)
    os.chown(settings.ssh_keys, user.pw_uid, user.pw_gid)
    settings.ssh_keys.chmod(0o700)
    return user


def supervise(settings: Settings, config: Path | None) -> NoReturn:
    """Prepare what the roles need, and become what keeps them running (:mod:`alveole.keeper`)."""
    user = prepare_control(settings)
    roles = [_role("agent", None, config), _role("control", user, config)]
    if settings.ssh.enabled:
        try:
            roles.append(_door(settings, prepare_door(settings), config))
        except (InvalidInput, Refused) as error:
            # Sites and pages do not wait for a door that can be opened later.
            log.error("the SSH door stays closed: %s", error)
    try:
        sends = _role("porter", pwd.getpwnam(settings.users.log), config)
        # All lines are readable by control's group.
        sends["groups"] = [user.pw_gid]
        sends["wanted"] = str(settings.logs / WANTED)
        roles.append(sends)
    except KeyError:
        log.error("no syslog is sent or taken in: there is no user %s", settings.users.log)
    _keep(roles)


def wait_at_door(settings: Settings, config: Path | None) -> NoReturn:
    """Listen as the SSH door, and become what starts its process when somebody comes. Raises ``Refused``."""
    check_door(settings)
    door = _door(settings, None, config)
    notify_ready()
    _keep([door])


def _role(name: str, user: pwd.struct_passwd | None, config: Path | None) -> keeper.Role:
    """``user``: ``None`` for that of this process."""
    # Should the interpreter itself ever crash, its log says where.
    environment = {"PYTHONFAULTHANDLER": "1"}
    if config is not None:
        environment[ENVIRONMENT] = str(config)
    return {
        "name": name,
        "argv": [sys.executable, "-m", "alveole", "serve", "--role", name],
        "environment": environment if user is None else {**environment, "HOME": "/nonexistent"},
        "uid": None if user is None else user.pw_uid,
        "gid": 0 if user is None else user.pw_gid,
        "groups": [],
        "files": [],
        "keys": [],
        "wanted": "",
    }


def _door(settings: Settings, user: pwd.struct_passwd | None, config: Path | None) -> keeper.Role:
    """The SSH door, which begins when somebody comes or its host keys are to be made. Raises ``Refused``."""
    files = [each.detach() for each in open_listeners(settings)]
    for file in files:
        os.set_inheritable(file, True)
    door = _role("ssh", user, config)
    door["environment"][LISTENERS] = ",".join(map(str, files))
    door["files"] = files
    door["keys"] = [str(settings.ssh_keys / name) for name in HOST_KEYS]
    return door


def _keep(roles: list[keeper.Role]) -> NoReturn:
    plan = os.memfd_create("roles", 0)
    os.write(plan, json.dumps(roles).encode())
    os.lseek(plan, 0, os.SEEK_SET)
    argv = [sys.executable, "-I", "-S", str(keeper.__file__), *sys.argv[1:]]
    os.execve(sys.executable, argv, {**os.environ, keeper.PLAN: str(plan)})  # noqa: S606  no shell is the point


def restore_platform(
    settings: Settings, repository: dict[str, str], key: str, tell: Callable[[str, float | None], None], identity: str
) -> dict[str, Any]:
    """Make a lost machine again: see :mod:`alveole.restoring`. ``repository``: as :class:`PutRepository`'s fields."""
    import msgspec

    from alveole.agent.saving import PutRepository
    from alveole.restoring import NAME, document
    from alveole.restoring import restore_platform as restored

    try:
        wanted = msgspec.convert({"name": NAME, **repository}, PutRepository)
    except msgspec.ValidationError as error:
        raise InvalidInput(str(error), field="repository") from error
    return document(restored(settings, wanted, key, tell, identity=Path(identity) if identity else None))
