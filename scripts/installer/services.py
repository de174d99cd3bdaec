"""Starting and stopping Alvéole: a unit for each role under systemd, one process in the background elsewhere."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

from kit import CHECKOUT, ENVIRONMENT, Instance, Stop, digest_of, has_systemd, run, say, write

UNITS = Path("/etc/systemd/system")
#: Every role that has a unit. The porter's is started by another one, which waits until there is work for it.
ROLES = ("agent", "control", "ssh", "porter")
_LOG_BYTES = 16 * 1024 * 1024


def start(instance: Instance, changed: bool) -> None:
    """Bring Alvéole up, or up to date; ``changed``: its program or its settings are new."""
    settings = digest_of([instance.config]) if instance.config.exists() else ""
    changed = changed or instance.record.get("settings") != settings
    if has_systemd():
        _start_units(instance, changed)
    else:
        _start_background(instance, changed)
    _wait(instance)
    instance.record.set(settings=settings)


def leave_network_alone(instance: Instance) -> None:
    """Tell the machine's network managers that the bridge and the sites' interfaces are not theirs.

    systemd-networkd with a match as wide as ``Type=ether`` takes each new interface off the bridge and drops
    routes it does not know (seen in the guest); NetworkManager would try DHCP on them.
    """
    bridge, prefix = instance.setting("network", "bridge"), instance.setting("network", "interface_prefix")
    files = {
        # Before every other file in alphabetical order: the first that matches counts (systemd.network(5)).
        Path("/etc/systemd/network", f"00-{instance.key}.network"): (
            Path("/etc/systemd/network"),
            f"# Written by Alvéole's quickstart.\n[Match]\nName={bridge} {prefix}*\n\n[Link]\nUnmanaged=yes\n",
            ["networkctl", "reload"],
        ),
        Path("/etc/NetworkManager/conf.d", f"{instance.key}.conf"): (
            Path("/etc/NetworkManager"),
            "# Written by Alvéole's quickstart.\n[keyfile]\n"
            f"unmanaged-devices+=interface-name:{bridge};interface-name:{prefix}*\n",
            ["nmcli", "general", "reload", "conf"],
        ),
    }
    for path, (needs, text, reload) in files.items():
        if needs.is_dir() and has_systemd():
            instance.record.add("files", str(path))
            if write(path, text):
                say(f"{path}: sites' interfaces are Alvéole's own")
                run(reload, check=False)


def stop(instance: Instance) -> None:
    """Stop every role. Sites and the proxy go on."""
    if has_systemd():
        # What starts the porter goes before the porter.
        for unit in (porter_path(instance), *map(instance.unit, reversed(ROLES))):
            if (UNITS / unit).exists():
                say(f"stopping {unit}")
                run(["systemctl", "disable", "--now", unit], check=False)
                (UNITS / unit).unlink(missing_ok=True)
        run(["systemctl", "daemon-reload"], check=False)
        run(["systemctl", "reset-failed", *map(instance.unit, ROLES), porter_path(instance)], check=False)
    pid = running(instance)
    if pid:
        say(f"stopping alveole serve (pid {pid})")
        end([pid])
    instance.pid_file.unlink(missing_ok=True)


def running(instance: Instance) -> int | None:
    """The pid of ``alveole serve`` of this instance, where it runs in the background."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        pid = int(instance.pid_file.read_text(encoding="ascii"))
        with contextlib.suppress(OSError):
            # A pid alone may by now be anybody's.
            if os.fsencode(instance.prefix) + b"/" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
    return None


def runs(instance: Instance) -> bool:
    """Whether Alvéole runs here, in the background or by units."""
    if running(instance):
        return True
    units = [instance.unit(role) for role in ("agent", "control")]
    # Any of them: status 0 (systemctl(1)).
    return has_systemd() and run(["systemctl", "is-active", "--quiet", *units], check=False).returncode == 0


def end(pids: list[int], patience: float = 40) -> None:
    """Ask each process to end, and kill those that have not after ``patience`` seconds."""
    for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, 5.0)):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            pids = [pid for pid in pids if _alive(pid)]
            if not pids:
                return
            time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        return not re.search(r"\) Z ", Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return False


def porter_path(instance: Instance) -> str:
    """The unit that starts the porter's when there is work for it."""
    return instance.unit("porter").removesuffix(".service") + ".path"


def unit_text(instance: Instance, name: str) -> str:
    """The packaged unit of this file name with the paths, the user and the names of this instance."""
    text = (CHECKOUT / "packaging/systemd" / name).read_text(encoding="utf-8")
    user = instance.setting("users", "control")
    door = instance.setting("users", "ssh")
    places = {
        "/opt/alveole/venv": instance.venv,
        "/etc/alveole/alveole.toml": instance.config,
        "/var/lib/alveole": instance.state,
        "/run/alveole": instance.run,
        "User=alveole\n": f"User={user}\n",
        "User=alveole-ssh\n": f"User={door}\n",
        "User=alveole-log\n": f"User={instance.setting('users', 'log')}\n",
        "SupplementaryGroups=alveole\n": f"SupplementaryGroups={user}\n",
        "-o alveole -g alveole ": f"-o {user} -g {user} ",
        "-o alveole-ssh -g alveole-ssh ": f"-o {door} -g {door} ",
        "alveole-agent.service": instance.unit("agent"),
        "alveole-control.service": instance.unit("control"),
        "alveole-porter.service": instance.unit("porter"),
    }
    # In one go: what one replacement wrote is never replaced by the next.
    return re.sub("|".join(map(re.escape, places)), lambda found: str(places[found[0]]), text)


def wanted_units(instance: Instance) -> tuple[str, ...]:
    """Those that are started: the SSH door's only where it is open, and in place of the porter's what waits for it."""
    roles = ("agent", "control", *(("ssh",) if instance.setting("ssh", "enabled") else ()))
    return (*map(instance.unit, roles), porter_path(instance))


def _start_units(instance: Instance, changed: bool) -> None:
    written = False
    units, porter = wanted_units(instance), instance.unit("porter")
    for role in ROLES:
        unit = instance.unit(role)
        if unit not in (*units, porter) and (UNITS / unit).exists():
            run(["systemctl", "disable", "--now", unit], check=False)
            (UNITS / unit).unlink(missing_ok=True)
            written = True
    packaged = {instance.unit(role): f"alveole-{role}.service" for role in ROLES}
    packaged[porter_path(instance)] = "alveole-porter.path"
    for unit in (*units, porter):
        instance.record.add("units", unit)
        written = write(UNITS / unit, unit_text(instance, packaged[unit])) or written
    if written:
        run(["systemctl", "daemon-reload"])
    run(["systemctl", "enable", *units])
    active = run(["systemctl", "is-active", *units], check=False).returncode == 0
    if active and not (changed or written):
        say(f"{' and '.join(units)} are running")
        return
    say(f"{'restarting' if active else 'starting'} {' and '.join(units)}")
    if run(["systemctl", "restart", *units], check=False, timeout=660).returncode != 0:
        raise Stop(f"{' or '.join(units)} did not start:\n{_last_lines(instance)}", status=5)
    # Where it runs, it runs the new program.
    run(["systemctl", "try-restart", porter], check=False)


def _start_background(instance: Instance, changed: bool) -> None:
    pid = running(instance)
    if pid and not changed:
        say(f"alveole serve is running (pid {pid})")
        return
    if pid:
        say(f"stopping alveole serve (pid {pid}); sites go on")
        end([pid])
    instance.record.set(background=True)
    instance.log_file.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if instance.log_file.stat().st_size > _LOG_BYTES:
            instance.log_file.replace(instance.log_file.with_suffix(".log.1"))
    descriptor = os.open(instance.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    try:
        process = subprocess.Popen(
            [instance.program, "--config", instance.config, "serve"],
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            env={key: ENVIRONMENT[key] for key in ("PATH", "LC_ALL", "HOME")},
            cwd="/",
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
    write(instance.pid_file, f"{process.pid}\n")
    say(f"started alveole serve in the background (pid {process.pid}), log in {instance.log_file}")


def _wait(instance: Instance, seconds: float = 180) -> None:
    """Until the API answers, and the agent behind it."""
    deadline = time.monotonic() + seconds
    api = False
    while time.monotonic() < deadline:
        asked = instance.alveole("status", "--json", check=False, timeout=60)
        if asked.returncode == 0:
            if not api:
                say("the API answers")
                api = True
            if json.loads(asked.stdout)["agent"]:
                say("the agent answers")
                return
        if not has_systemd() and not running(instance):
            raise Stop(f"alveole serve ended:\n{_last_lines(instance)}", status=5)
        time.sleep(0.2)
    if api:
        why = "the agent does not answer: sites can be neither made nor kept"
    else:
        why = "".join(asked.stderr.strip().splitlines()[-1:])
    raise Stop(f"Alvéole was not up within {seconds:.0f} s: {why}\n{_last_lines(instance)}", status=5)


def _last_lines(instance: Instance) -> str:
    if has_systemd():
        argv = ["journalctl", "--no-pager", "-n", "25", "-o", "cat"]
        for role in ROLES:
            argv += ["-u", instance.unit(role)]
        text = run(argv, check=False).stdout
    else:
        text = ""
        with contextlib.suppress(OSError):
            text = instance.log_file.read_text(encoding="utf-8", errors="replace")
    return "\n".join(f"    {line}" for line in text.splitlines()[-25:])
