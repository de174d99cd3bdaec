"""PURE. An instance of several processes: what lies beside its supervisor, and how long it may take.

The supervisor is s6-svscan(8). What it cannot do by itself (order, readiness, tasks, stopping in
reverse) is done by one constant script, ``data/init/init``, that reads a *plan*: lines of words
whose grammar is ``model.names``. Beside these lines only the programs themselves are written as
files that a shell reads, each value quoted by ``shlex``.

When every process is the site's own user, so is the supervisor, and nothing holds a capability.
Else it is root of the container with the four capabilities that starting and stopping under other
ids takes, and each process gives all of them up for good (``setpriv``, bounding set and all).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path, PurePosixPath

import msgspec

from alveole.errors import Problem
from alveole.host.paths import STATE_VOLUME
from alveole.model.resource import WorkloadSpec
from alveole.model.site import SITE_UID, Account, BaseKind, Process, Task, When

S6_SVSCAN = "/usr/bin/s6-svscan"
SETPRIV = "/usr/bin/setpriv"
TIMEOUT = "/usr/bin/timeout"
SERVICES = "/run/services"
#: Beside the services: the script, the plan and the tasks. s6-svscan leaves names with a dot alone.
OWN = ".alveole"
INIT = f"{SERVICES}/{OWN}/init"
#: The script's mark that everything has been started; the agent looks for it.
UP = f"{OWN}/run/up"
#: No name of a process begins with an underscore.
BOOT = "_boot"
#: Which tasks have run once, and for which base, kept with the data.
STATE = "/var/lib/alveole"
#: What the supervisor holds when it starts processes as several users: KILL to stop them, SETPCAP to
#: take the bounding set from them.
CAPABILITIES = ("CAP_KILL", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID")
#: Beyond the graces of what is stopped: for the script itself, or a task that is cut off.
_SLACK_SECONDS = 8
#: Programs that finish what they are doing on another signal than SIGTERM: nginx (control(5) of
#: its documentation), php-fpm(8), Apache ("graceful-stop" in stopping.html).
_STOP_SIGNALS = {"nginx": "SIGQUIT", "apache2": "SIGWINCH", "httpd": "SIGWINCH", "apachectl": "SIGTERM"}
#: Programs that go to the others when a visit comes and not when they start: they need not wait for them.
_FRONTS = frozenset({"nginx", "apache2", "httpd"})
_TEST = ("test", "/usr/bin/test", "/bin/test")
#: In the order in which they run where their ``order`` is the same.
_STARTED = (When.INSTALL, When.RESTORE, When.UPGRADE)
_CALLED = (When.CHANGE, When.BACKUP, When.STOP)


class Service(msgspec.Struct, frozen=True):
    """One directory below the supervisor's: ``files`` by path, with their text. ``run`` and the like may be run."""

    name: str
    files: dict[str, str]


def script() -> str:
    """The text of ``data/init/init``."""
    return (Path(__file__).parents[2] / "data" / "init" / "init").read_text()


def is_supervised(spec: WorkloadSpec) -> bool:
    """Whether more than one program has to be started, in whatever order."""
    if spec.static:
        return False
    # With configuration files too: a process is started anew when one of its files is.
    several = len(spec.processes) > 1 or spec.tasks or spec.links or spec.config
    return bool(several) or is_mixed(spec) or any(each.ready for each in spec.processes)


def is_mixed(spec: WorkloadSpec) -> bool:
    """Whether the supervisor has to be the container's root: for several users, links, or what it remembers."""
    if spec.static or spec.base_kind is BaseKind.OCI:
        return False
    return bool(spec.links) or has_state(spec) or any(uid != SITE_UID for uid in _uids(spec))


def _uids(spec: WorkloadSpec) -> set[int]:
    return {process.uid for process in spec.processes} | {task.uid for task in spec.tasks}


def has_state(spec: WorkloadSpec) -> bool:
    """Whether tasks run once in the life of the data, or once for a base, which is remembered with the data."""
    return any(task.when in _STARTED for task in spec.tasks)


def check(spec: WorkloadSpec) -> Iterable[Problem]:
    """What is wrong with processes, tasks and links together."""
    other = any(uid != SITE_UID for uid in _uids(spec))
    if spec.static and (spec.tasks or spec.links):
        yield Problem("run.tasks", "static content is served without tasks and links")
    if spec.base_kind is BaseKind.OCI and (other or spec.tasks or spec.links or spec.accounts):
        yield Problem("run", "an image runs as its own user: it has no tasks, links or users of ours")
    for what, names in (
        ("processes", [each.name for each in spec.processes]),
        ("tasks", [each.name for each in spec.tasks]),
        ("volumes", [each.name for each in spec.volumes]),
    ):
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield Problem(f"run.{what}", f"{name} is there more than once")
    if any(volume.name == STATE_VOLUME or _within(volume.path, STATE) for volume in spec.volumes):
        yield Problem("volumes", f"{STATE_VOLUME} and {STATE} are Alvéole's own")
    for link in spec.links:
        if (
            not link.path.startswith("/")
            or ".." in PurePosixPath(link.path).parts
            or PurePosixPath(link.path).name == ""
        ):
            yield Problem("run.links", f"{link.path!r} is no absolute path")
        if not link.target or any(character in f"{link.path}{link.target}" for character in "\n\0"):
            yield Problem("run.links", f"{link.path!r} leads to no usable name")
        if any(_within(volume.path, link.path) for volume in spec.volumes):
            yield Problem("run.links", f"{link.path} would hide a volume")


def needs(spec: WorkloadSpec) -> tuple[str, ...]:
    """Programs of the base that the supervisor works with."""
    found = [S6_SVSCAN, "/bin/sh"]
    if spec.tasks or any(each.ready for each in spec.processes):
        found.append(TIMEOUT)
    if is_mixed(spec):
        found.append(SETPRIV)
    return tuple(found)


def stop_signal(program: str) -> str:
    name = PurePosixPath(program).name
    return "SIGQUIT" if name.startswith("php-fpm") else _STOP_SIGNALS.get(name, "SIGTERM")


def services(spec: WorkloadSpec) -> tuple[Service, ...]:
    """The supervisor's directories: its own, the script's, and one a process in order of start."""
    return (
        Service(
            ".s6-svscan",
            {
                name: f"#!/bin/sh\nexec /bin/sh {INIT} {verb}\n"
                for name, verb in (("SIGTERM", "stop"), ("finish", "finish"))
            },
        ),
        Service(OWN, _own(spec)),
        Service(
            BOOT,
            {
                "run": f"#!/bin/sh\nexec 2>&1\nexec /bin/sh {INIT} boot\n",
                "finish": f'#!/bin/sh\nexec /bin/sh {INIT} booted "$@"\n',
                "timeout-finish": "0\n",
                "timeout-kill": "15000\n",
            },
        ),
        *(_service(spec, process) for process in in_order(spec)),
    )


def in_order(spec: WorkloadSpec) -> tuple[Process, ...]:
    return tuple(sorted(spec.processes, key=lambda process: process.order))


def _own(spec: WorkloadSpec) -> dict[str, str]:
    files = {"plan": _plan(spec), "stops": _stops(spec), "calls": _calls(spec), "run/.keep": ""}
    files["base"] = f"{spec.base}\n"
    for task in spec.tasks:
        files[f"tasks/{task.name}/run"] = _script(spec, task.argv, task.uid, task.env)
    for number, link in enumerate(spec.links):
        files[f"links/{number}/path"] = f"{link.path}\n"
        files[f"links/{number}/target"] = f"{link.target}\n"
        if any(_within(link.path, volume.path) for volume in spec.volumes):
            # What lies in a volume is never taken away for a link.
            files[f"links/{number}/keep"] = ""
    return files


def _plan(spec: WorkloadSpec) -> str:
    """Prepare tasks first; then by order, where the processes of an order are ready before its tasks run.

    A front starts together with those before it, unless a task lies between: nobody is let in before all are ready.
    """
    steps = [
        (0, 0, f"{task.order} prepare {task.name} {task.seconds}", task.order) for task in _tasks(spec, When.PREPARE)
    ]
    steps += [(1, 0, f"{each.order} start {each.name} {each.ready_seconds}", each.order) for each in spec.processes]
    steps += [
        (1, 1 + _STARTED.index(task.when), f"{task.order} {task.when} {task.name} {task.seconds}", task.order)
        for task in _tasks(spec, *_STARTED)
    ]
    steps.sort(key=lambda step: (step[0], step[3], step[1]))
    fronts = {each.name for each in spec.processes if PurePosixPath(each.argv[0]).name in _FRONTS}
    lines: list[str] = []
    group: str | None = None
    for _, _, line, _ in steps:
        order, kind, name, seconds = line.split(" ")
        if kind != "start":
            group = None
        elif group is None or name not in fronts:
            group = order
        lines.append(f"{group or order} {kind} {name} {seconds}\n")
    return "".join(lines)


def _stops(spec: WorkloadSpec) -> str:
    backwards = reversed(in_order(spec))
    return "".join(f"{each.order} {each.name} {_grace(spec, each)}\n" for each in backwards)


def _calls(spec: WorkloadSpec) -> str:
    found = sorted(_tasks(spec, *_CALLED), key=lambda task: task.order)
    return "".join(f"{task.when} {task.name} {task.seconds}\n" for task in found)


def _tasks(spec: WorkloadSpec, *when: When) -> list[Task]:
    return [task for task in spec.tasks if task.when in when]


def _grace(spec: WorkloadSpec, process: Process) -> int:
    return spec.stop_seconds if process.stop_seconds is None else process.stop_seconds


def _service(spec: WorkloadSpec, process: Process) -> Service:
    files = {
        "run": _script(spec, process.argv, process.uid, process.env, process.cwd),
        "finish": f'#!/bin/sh\nexec /bin/sh {INIT} ended "$@"\n',
        "down": "",
        "down-signal": f"{process.stop_signal or stop_signal(process.argv[0])}\n",
        "timeout-kill": f"{_grace(spec, process) * 1000}\n",
        "timeout-finish": "0\n",
    }
    if process.ready:
        files["data/check"] = _script(spec, process.ready, process.uid, process.env, process.cwd)
        if len(process.ready) == 3 and process.ready[0] in _TEST and process.ready[1] == "-S":
            files["data/socket"] = f"{process.ready[2]}\n"
    return Service(process.name, files)


def _script(spec: WorkloadSpec, argv: tuple[str, ...], uid: int, env: dict[str, str], cwd: str = "") -> str:
    # A supervisor starts a file, so this is the one place with a shell: shlex.quote is the
    # serializer, and tests/property parses it back.
    lines = ["#!/bin/sh", "exec 2>&1"]
    given = {**_home(spec, uid), **env}
    lines += [f"export {key}={shlex.quote(value)}" for key, value in given.items()]
    if cwd:
        lines.append(f"cd {shlex.quote(cwd)} || exit 1")
    words = argv
    if is_mixed(spec):
        words = (SETPRIV, f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *_NOTHING_LEFT, "--", *argv)
    return "\n".join((*lines, f"exec {shlex.join(words)}", ""))


_NOTHING_LEFT = ("--inh-caps=-all", "--bounding-set=-all", "--no-new-privs")


def _home(spec: WorkloadSpec, uid: int) -> dict[str, str]:
    if uid == 0:
        return {"HOME": "/root"}
    homes = [account.home for account in spec.accounts if account.uid == uid and account.home != "/nonexistent"]
    return {"HOME": homes[0]} if homes else {}


# How long


def start_seconds(spec: WorkloadSpec) -> float:
    """What starting everything may take at the most, before the site itself has to answer."""
    tasks = sum(task.seconds + 5 for task in _tasks(spec, When.PREPARE, *_STARTED))
    return _SLACK_SECONDS + tasks + sum(process.ready_seconds for process in spec.processes)


def stop_seconds(spec: WorkloadSpec) -> float:
    """What a clean end may take at the most: groups end one after the other, each within the longest of its graces."""
    if not is_supervised(spec):
        return _grace(spec, spec.processes[0]) if spec.processes else spec.stop_seconds
    groups = groupby(in_order(spec), key=lambda process: process.order)
    graces = sum(max(_grace(spec, process) for process in group) for _, group in groups)
    return _SLACK_SECONDS + graces + sum(task.seconds for task in _tasks(spec, When.STOP))


def call_seconds(spec: WorkloadSpec, when: When) -> float:
    return _SLACK_SECONDS + sum(task.seconds + 5 for task in _tasks(spec, when))


def restart_seconds(spec: WorkloadSpec, names: Iterable[str]) -> float:
    wanted = set(names)
    found = [process for process in spec.processes if process.name in wanted]
    return _SLACK_SECONDS + sum(_grace(spec, process) + 2 + process.ready_seconds for process in found)


# Users


def passwd(base: str, accounts: Iterable[Account]) -> str:
    """``/etc/passwd`` of the container: the base's, then ours; ours win by name and by number."""
    ours = {
        account.name: f"{account.name}:x:{account.uid}:{account.uid}::{account.home}:/bin/sh" for account in accounts
    }
    return _merged(base, ours, {account.uid for account in accounts})


def group(base: str, accounts: Iterable[Account]) -> str:
    """``/etc/group``, likewise: a group of the same name and number for each account."""
    ours = {account.name: f"{account.name}:x:{account.uid}:" for account in accounts}
    return _merged(base, ours, {account.uid for account in accounts})


def _merged(base: str, ours: dict[str, str], ids: set[int]) -> str:
    kept = []
    for line in base.splitlines():
        fields = line.split(":")
        taken = len(fields) < 3 or fields[0] in ours or (fields[2].isdigit() and int(fields[2]) in ids)
        if not taken:
            kept.append(line)
    return "".join(f"{line}\n" for line in (*kept, *ours.values()))


def _within(path: str, top: str) -> bool:
    return PurePosixPath(path).is_relative_to(PurePosixPath(top))
