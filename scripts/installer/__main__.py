"""Alvéole on this machine in one command, with a first site on line.

Installs what is missing through apt, a virtual environment from requirements.txt, and the two
halves of Alvéole as systemd units (or, without systemd, one process in the background). Then makes
the demo site and prints its address, the API's and an admin token. Run it again at any time: it
brings everything up to this checkout and leaves what is in order alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

import packages
import ports
import program
import services
import teardown
from kit import CHECKOUT, DEFAULT_CONFIG, Instance, Stop, alone, has_systemd, head, run, say, tell, warn

DEMO = "demo"
TOKEN = "quickstart"  # noqa: S105  the name of a token, not a token
#: What an installation takes on disk, with a reserve for the first sites.
_FREE_BYTES = 1536 * 1024 * 1024


def main() -> int:
    options = _options()
    # What is made here other users read and run: the caller's umask may keep them out.
    os.umask(0o022)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    # Who pipes this through head(1), or loses the line, must not leave half an installation: see tell.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        if os.geteuid() != 0:
            raise Stop("needs root", hint="run it with sudo")
        with alone():
            return _undo(options) if options.undo else _install(options)
    except Stop as stop:
        tell(f"\nquickstart: {stop}", sys.stderr)
        if stop.hint:
            tell(f"  → {stop.hint}", sys.stderr)
        return stop.status
    except KeyboardInterrupt:
        tell("\nquickstart: interrupted; run it again to finish, or with --undo", sys.stderr)
        return 130


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="quickstart", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--undo", action="store_true", help="stop and remove everything that was made, sites included")
    parser.add_argument("--keep-packages", action="store_true", help="with --undo: leave the Debian packages")
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="settings of the instance (%(default)s)")
    parser.add_argument("--prefix", type=Path, help="where the program goes (/opt/alveole; else STATE/program)")
    parser.add_argument("--http-port", type=_port, help="write edge.http_port into the settings")
    parser.add_argument("--https-port", type=_port, help="write edge.https_port into the settings")
    parser.add_argument("--ssh-port", type=_port, help="write ssh.port into the settings")
    parser.add_argument("--no-demo", action="store_true", help="make no demo site")
    parser.add_argument(
        "--no-start",
        action="store_true",
        help="install and start nothing: before 'alveole restore-platform' makes a lost machine again",
    )
    parser.add_argument(
        "--node",
        action="store_true",
        help="another machine drives it and brought this checkout: no demo site, no tokens; --undo removes that too",
    )
    parser.add_argument("--yes", action="store_true", help="ask nothing")
    options = parser.parse_args()
    if options.no_start and options.node:
        parser.error("--no-start and --node do not go together")
    options.config = Path(os.path.abspath(options.config))  # noqa: PTH100  a link stays the link it is
    if options.prefix:
        options.prefix = Path(os.path.abspath(options.prefix))  # noqa: PTH100  resolve() would follow links
    return options


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (1 to 65535)")
    return int(text)


def _interrupted(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _install(options: argparse.Namespace) -> int:
    began = time.monotonic()
    head("Checking this machine")
    _check_machine()
    if not options.config.exists() and options.config != DEFAULT_CONFIG:
        raise Stop(
            f"there is no settings file {options.config}",
            hint=f"begin with a copy of {CHECKOUT}/packaging/alveole.toml",
            status=2,
        )
    given = {
        ("edge", "http_port"): options.http_port,
        ("edge", "https_port"): options.https_port,
        ("ssh", "port"): options.ssh_port,
    }
    asked = {name: port for name, port in given.items() if port}
    instance = Instance(options.config, options.prefix)
    if options.no_start and services.runs(instance):
        raise Stop(
            "Alvéole runs here, and would be left with a program that is gone",
            hint="without --no-start it is brought up to date; --undo takes it away",
        )
    for (section, key), port in asked.items():
        instance.settings[section][key] = port
    ports.check(instance)
    say(f"ports {', '.join(str(instance.setting(*name)) for name in given)} are free or ours")
    _remember(instance)
    if options.node:
        instance.record.set(checkout=str(CHECKOUT))
    program.settings_file(options.config, asked)

    head("Debian packages")
    packages.install(instance)

    head("Alvéole")
    program.users(instance)
    fresh = program.virtual_environment(instance)
    changed = program.package(instance, fresh)
    program.link(instance)
    services.leave_network_alone(instance)
    if options.no_start:
        _not_started(instance)
        return 0
    services.start(instance, changed or fresh)

    if options.node:
        say(f"Alvéole runs ({time.monotonic() - began:.0f} s)")
        return 0
    if not options.no_demo:
        head("The demo site")
        _demo(instance)
    _summary(instance, _token(instance), not options.no_demo, time.monotonic() - began)
    return 0


def _not_started(instance: Instance) -> None:
    other = "" if instance.config == DEFAULT_CONFIG else f" --config {instance.config}"
    tell(f"""
Alvéole is installed, and was not started.

  A lost machine    {instance.command()} restore-platform REPOSITORY --key-file FILE
  Start it          sudo {shlex.quote(str(CHECKOUT / "scripts/quickstart"))} --no-demo{other}""")


def _check_machine() -> None:
    facts = {}
    for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition("=")
        facts[key] = value.strip('"')
    version = facts.get("VERSION_ID", "")
    known = facts.get("ID") == "debian"
    # Testing and unstable have no VERSION_ID.
    if not known or (version and int(version.partition(".")[0]) < 12):
        raise Stop(f"Alvéole is made for Debian 12 and newer; this is {facts.get('PRETTY_NAME', 'something else')}")
    if sys.version_info < (3, 11):  # noqa: UP036  whatever Python is there may have started this
        raise Stop(f"needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}")
    space = os.statvfs("/var/lib")
    free = space.f_bavail * space.f_frsize
    if free < _FREE_BYTES:
        raise Stop(f"only {free >> 20} MiB are free below /var/lib; {_FREE_BYTES >> 20} are needed")
    say(f"{facts['PRETTY_NAME']}, Python {sys.version.split()[0]}, {'systemd' if has_systemd() else 'no systemd'}")


def _remember(instance: Instance) -> None:
    """Begin the record, before anything is made: what was here earlier is never removed."""
    record = instance.record
    if record.get("prefix") is None:
        before = (instance.state, instance.run, instance.prefix, instance.config.parent)
        record.set(
            existed=[str(place) for place in before if _holds_anything(place)],
            config=instance.config == DEFAULT_CONFIG and not instance.config.exists(),
            prefix=str(instance.prefix),
            settings_file=str(instance.config),
        )
    elif record.get("settings_file") != str(instance.config):
        raise Stop(
            f"the state directory {instance.state} belongs to the instance of {record.get('settings_file')}",
            hint="give paths.state another value in this settings file",
        )


def _holds_anything(place: Path) -> bool:
    return place.is_dir() and any(place.iterdir())


def _demo(instance: Instance) -> None:
    asked = instance.alveole("site", "show", DEMO, "--json", check=False)
    if asked.returncode == 0:
        say(f"the site {DEMO} is there")
        return
    if asked.returncode != 4:
        raise Stop(f"alveole site show {DEMO}: {asked.stderr.strip()}", status=5)
    say(f"alveole site create {DEMO} --from examples/demo")
    instance.alveole("site", "create", DEMO, "--from", str(CHECKOUT / "examples/demo"))


def _token(instance: Instance) -> str:
    """A token for the API; the one that an earlier run printed ends here."""
    create = ("token", "create", TOKEN, "--role", "administrator", "--json")
    made = instance.alveole(*create, check=False)
    if made.returncode == 3:
        instance.alveole("token", "delete", TOKEN)
        made = instance.alveole(*create, check=False)
    try:
        return str(json.loads(made.stdout)["secret"])
    except (ValueError, KeyError):
        warn(f"no token was made: {made.stderr.strip()}")
        return ""


def _first_token(instance: Instance) -> str:
    """The one-time token that makes the first administrator; none once there is an account."""
    try:
        if json.loads(instance.alveole("account", "list", "--json", check=False).stdout):
            return ""
        made = instance.alveole("account", "first-token", "--json", check=False)
        return str(json.loads(made.stdout)["token"])
    except (ValueError, KeyError):
        return ""


def _panel(instance: Instance) -> str:
    """The address of the pages."""
    name = str(instance.setting("panel", "name"))
    if not name:
        return ""
    https = instance.setting("edge", "https_port")
    domain = name if "." in name else f"{name}.{instance.settings['domain']}"
    return f"https://{domain}{'' if https == 443 else f':{https}'}"


def _summary(instance: Instance, token: str, demo: bool, seconds: float) -> None:
    http, https = instance.setting("edge", "http_port"), instance.setting("edge", "https_port")
    name = f"{DEMO}.{instance.settings['domain']}"
    api = f"http://{instance.setting('api', 'address')}:{instance.setting('api', 'port')}"
    command = instance.command()
    plain = f"http://{name}{'' if http == 80 else f':{http}'}/"
    secure = f"https://{name}{'' if https == 443 else f':{https}'}/"
    lines = [f"Alvéole runs ({seconds:.0f} s).", ""]
    if demo:
        lines += [f"  Your first site   {plain}", f"                    {secure}"]
        lines += [f"                    (to trust its certificate: {command} ca show > alveole-ca.pem)"]
        if instance.settings["domain"] == "localhost":
            lines += ["                    Browsers find *.localhost on this machine by themselves. Elsewhere:"]
            lines += [f"                    curl -H 'Host: {name}' http://127.0.0.1:{http}/"]
    panel = _panel(instance)
    if panel:
        lines += [f"  Pages             {panel}/"]
    lines += [f"  API               {api}/"]
    if instance.setting("ssh", "enabled"):
        lines += [f"  SFTP and git      port {instance.setting('ssh', 'port')} (see docs/how-to/files-and-git.md)"]
    first = _first_token(instance)
    if first:
        lines += [f"  First sign-in     {first}", "                    (makes one administrator, once, within a day)"]
        if panel:
            lines += [f"                    at {panel}/welcome"]
    if token:
        lines += [f"  Admin token       {token}", "                    (shown once; the next quickstart replaces it)"]
    lines += [
        "",
        f"  Next              {command} site create blog --from DIRECTORY",
        f"                    {command} --help",
    ]
    here = shlex.quote(str(CHECKOUT / "scripts/quickstart"))
    other = "" if instance.config == DEFAULT_CONFIG else f" --config {instance.config}"
    lines += [f"  Remove it all     sudo {here} --undo{other}"]
    if demo:
        ask = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"Host: {name}", "--max-time", "10"]
        status = run([*ask, f"http://127.0.0.1:{http}/"], check=False).stdout
        if status[:1] not in ("2", "3"):
            warn(f"the demo site does not answer yet (status {status or 'none'}): {command} why {DEMO}")
    tell("\n" + "\n".join(lines))


def _undo(options: argparse.Namespace) -> int:
    instance = Instance(options.config, options.prefix)
    recorded = instance.record.get("settings_file")
    if recorded is None:
        print("Nothing is installed here under these settings.")
        return 0
    if recorded != str(instance.config):
        raise Stop(f"{instance.state} belongs to the instance of {recorded}", hint=f"--undo --config {recorded}")
    if sys.stdin.isatty() and not options.yes:
        print(f"This removes:\n{teardown.describe(instance, options.keep_packages)}")
        if input("Type yes to go on: ").strip().lower() not in ("yes", "oui"):
            raise Stop("nothing was removed")
    head("Removing Alvéole from this machine")
    left = teardown.undo(instance, options.keep_packages)
    if left:
        for what in left:
            warn(f"still there: {what}")
        return 5
    tell("\nNothing of Alvéole is left on this machine.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
