"""Settings file, users, virtual environment, the package itself, the link in the path."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import shutil
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kit import CHECKOUT, LINK, Instance, Stop, digest_of, run, say, write

_DONE = "installed.stamp"
#: Never imported by the program, and a third of the time that compiling takes.
_UNUSED = r"/(?:pygments/(?:lexers|styles)|sqlalchemy/(?:orm|testing|dialects/(?:mssql|mysql|oracle|postgresql)))/"


def settings_file(config: Path, ports: dict[tuple[str, str], int]) -> None:
    """Write the settings where there are none, and the ports asked for."""
    if config.exists():
        text = config.read_text(encoding="utf-8")
        if not ports:
            say(f"the settings in {config}")
            return
    else:
        text = (CHECKOUT / "packaging/alveole.toml").read_text(encoding="utf-8")
    for (section, key), port in ports.items():
        text = _with_setting(text, section, key, port)
    got = tomllib.loads(text)
    if any(got.get(section, {}).get(key) != port for (section, key), port in ports.items()):
        names = ", ".join(f"{section}.{key}" for section, key in ports)
        raise Stop(f"cannot set the ports in {config}", hint=f"set them by hand: {names}", status=2)
    say(f"writing {config}")
    write(config, text)


def _with_setting(text: str, section: str, key: str, value: int) -> str:
    """``text`` (TOML) with one setting changed, its comments left as they are."""
    lines = text.splitlines()
    line = f"{key} = {value}"
    header = re.compile(rf"^\s*\[\s*{section}\s*\]\s*(?:#.*)?$")
    try:
        start = next(number for number, found in enumerate(lines) if header.match(found))
    except StopIteration:
        return "\n".join([*lines, "", f"[{section}]", line, ""])
    stop = next((n for n in range(start + 1, len(lines)) if lines[n].lstrip().startswith("[")), len(lines))
    active = re.compile(rf"^\s*{key}\s*=")
    shown = re.compile(rf"^#{key} = ")
    for pattern in (active, shown):
        for number in range(start + 1, stop):
            if pattern.match(lines[number]):
                lines[number] = line
                return "\n".join([*lines, ""])
    lines.insert(start + 1, line)
    return "\n".join([*lines, ""])


def users(instance: Instance) -> None:
    """The system users, without home and without login. Those that are there are used as they are."""
    for role in ("control", "edge", "log", "ssh"):
        name = instance.setting("users", role)
        try:
            pwd.getpwnam(name)
        except KeyError:
            say(f"user {name} ({role})")
            instance.record.add("users", name)
            argv = ["useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent"]
            argv += ["--shell", "/usr/sbin/nologin"]
            with contextlib.suppress(KeyError):
                argv += ["--gid", str(grp.getgrnam(name).gr_gid)]
            if "--gid" not in argv:
                argv.append("--user-group")
            run([*argv, name])


def virtual_environment(instance: Instance) -> bool:
    """Alvéole's libraries, exactly those of requirements.txt; says whether anything changed.

    Each set lies in a directory named after its digest and ``venv`` is a link to it, so an
    interrupted installation is never used and the running program is never changed beneath.
    """
    lock = CHECKOUT / "requirements.txt"
    interpreter = Path(sys.executable).resolve()
    key = f"{digest_of([lock])[:12]}-{interpreter.name}"
    place = instance.prefix / "venvs" / key
    if (place / _DONE).exists() and _is_link_to(instance.venv, place):
        say("the libraries are up to date")
        return False
    if not (place / _DONE).exists():
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        say(f"a virtual environment in {place}")
        run([interpreter, "-m", "venv", "--without-pip", place])
        count = len(re.findall(r"(?m)^[A-Za-z0-9]", lock.read_text(encoding="utf-8")))
        say(f"{count} libraries of exactly the versions and digests in requirements.txt")
        # The lock names every library there is to install: nothing is left to resolve.
        wanted: list[str | Path] = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", lock]
        run([*_pip_install(place), *wanted], timeout=1800)
        _compile(place / "lib")
        (place / _DONE).touch()
    _point(instance.venv, place)
    return True


def package(instance: Instance, fresh: bool) -> bool:
    """The package itself, as a copy of this checkout; says whether anything changed."""
    source = digest_of([CHECKOUT / "src", CHECKOUT / "pyproject.toml"])
    if not fresh and instance.record.get("source") == source and instance.program.exists():
        say("the program is that of this checkout")
        return False
    say("Alvéole itself, from this checkout")
    instance.record.set(source=None)
    # hatchling comes from requirements.txt like all else: building fetches nothing.
    wanted: list[str | Path] = ["--force-reinstall", "--no-deps", "--no-index", "--no-build-isolation", CHECKOUT]
    run([*_pip_install(instance.venv), *wanted])
    # The libraries are compiled, and looking at each of their files once more takes half as long as ours.
    for mine in instance.venv.resolve().glob("lib/python3*/site-packages/alveole"):
        _compile(mine)
    instance.record.set(source=source)
    for old in (instance.prefix / "venvs").iterdir():
        if old != instance.venv.resolve():
            shutil.rmtree(old, ignore_errors=True)
    return True


def _pip_install(place: Path) -> list[str | Path]:
    """``pip install`` for the environment ``place``, run from the wheel that ensurepip would install: what runs
    with the rights of root needs no installer of packages in it, and unpacking one takes longer than all else."""
    import ensurepip

    places = [Path("/usr/share/python-wheels"), Path(ensurepip.__file__).parent / "_bundled"]
    wheels = [wheel for each in places for wheel in sorted(each.glob("pip-*.whl"))]
    if not wheels:
        raise Stop("this Python has no pip to install libraries with", hint="apt-get install python3-venv", status=3)
    # Without a cache in root's home: --undo leaves nothing.
    return [place / "bin/python", wheels[-1] / "pip", "install", "--quiet", "--no-compile", "--no-cache-dir"]


def _compile(place: Path) -> None:
    # pip compiles with one process; this takes all cores. Unprivileged control could not write the result later.
    # The environment's Python is this one: of another version nothing would be where it is looked for.
    # Each has its share by itself: the workers of compileall's own -j wait for ever when what began them is killed.
    argv = [sys.executable, "-I", "-m", "compileall", "-q", "-x", _UNUSED, "-i", "-"]
    files = sorted(place.rglob("*.py"))
    cores = os.cpu_count() or 1
    shares = ["".join(f"{file}\n" for file in files[at::cores]) for at in range(cores)]
    with ThreadPoolExecutor(cores) as lanes:
        list(lanes.map(lambda share: run(argv, check=False, given=share), shares))


def link(instance: Instance) -> None:
    """``alveole`` in the path, for the machine's main instance alone."""
    if not instance.default:
        return
    if _is_link_to(LINK, instance.program):
        return
    if LINK.exists() or LINK.is_symlink():
        if instance.record.get("link"):
            LINK.unlink()
        else:
            say(f"{LINK} is something else already and stays as it is")
            return
    say(f"{LINK} leads to {instance.program}")
    instance.record.set(link=True)
    LINK.parent.mkdir(parents=True, exist_ok=True)
    LINK.symlink_to(instance.program)


def _is_link_to(path: Path, target: Path) -> bool:
    return path.is_symlink() and path.readlink() == target


def _point(path: Path, target: Path) -> None:
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target)
    beside.replace(path)
