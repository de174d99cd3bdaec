"""The first process of a :class:`machinekit.Machine`: makes its namespaces and its file systems, then starts its sshd.

Run twice: outside it joins the cgroups that shall look like roots, and has ``unshare`` run it again inside.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path


def outside(about: dict[str, object], file: str) -> None:
    for top in about["cgroups"]:
        Path(top, "cgroup.procs").write_text(str(os.getpid()))
    spaces = ["--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup"]
    words = [sys.executable, "-I", "-B", __file__, file, "inside"]
    os.execvp("unshare", ["unshare", *spaces, "--fork", "--kill-child", "--propagation", "private", "--", *words])  # noqa: S606  it stays this process, in its cgroups


def run(*argv: str | Path) -> None:
    subprocess.run([str(each) for each in argv], check=True)


def inside(about: dict[str, object]) -> None:
    place = Path(about["place"])
    root = place / "root"
    overlay = f"lowerdir={about['lower']},upperdir={place}/upper,workdir={place}/work"
    run("mount", "-t", "overlay", "-o", overlay, "overlay", root)
    run("mount", "--bind", place / "lib", root / "var/lib")
    run("mount", "-t", "proc", "proc", root / "proc")
    run("mount", "-t", "sysfs", "sysfs", root / "sys")
    # The kernel's own list of devices is one for all: nothing is to be written there.
    run("mount", "-t", "devtmpfs", "devtmpfs", root / "dev")
    # Of this mount only: told at once, older kernels take it for the file system, which is everybody's.
    run("mount", "-o", "remount,bind,ro", root / "dev")
    run("mount", "-t", "devpts", "-o", "newinstance,ptmxmode=0666,mode=0620,gid=5", "devpts", root / "dev/pts")
    run("mount", "--bind", root / "dev/pts/ptmx", root / "dev/ptmx")
    for name, mode in (("dev/shm", "1777"), ("run", "755"), ("tmp", "1777")):
        run("mount", "-t", "tmpfs", "-o", f"mode={mode}", "tmpfs", root / name)
    cgroups(about, root / "sys/fs/cgroup")
    for name in about["lent"]:
        lend(Path("/", name), root / name)
    for name, text in about["files"].items():
        (root / name).write_text(text)
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost {about['name']}\n")
    (root / "etc/hostname").write_text(f"{about['name']}\n")
    (root / "run/sshd").mkdir(mode=0o755)
    (root / "run/lock").mkdir(mode=0o1777)
    run("hostname", str(about["name"]))
    run("chroot", root, "useradd", "--create-home", "--shell", "/bin/bash", str(about["user"]))
    (root / "old").mkdir()
    os.chdir(root)
    run("pivot_root", ".", "old")
    os.chroot(".")
    Path("/old", str(place).lstrip("/"), "ready").touch()
    run("umount", "--lazy", "/old")
    Path("/old").rmdir()
    # PID 1 takes in what others leave, as init does.
    os.execv("/usr/bin/tini", ["tini", "--", "/usr/sbin/sshd", "-D", "-e"])  # noqa: S606  the first process of the machine


def lend(here: Path, there: Path) -> None:
    there.parent.mkdir(parents=True, exist_ok=True)
    if here.is_dir() and here != Path("/etc/apt"):
        there.mkdir(exist_ok=True)
        run("mount", "--rbind", here, there)
        run("mount", "-o", "remount,bind,ro", there)
    elif here.is_dir():
        shutil.rmtree(there)
        shutil.copytree(here, there, symlinks=True)
    elif here.exists():
        there.unlink(missing_ok=True)
        shutil.copyfile(here, there)


def cgroups(about: dict[str, object], top: Path) -> None:
    tops = [Path(each) for each in about["cgroups"]]
    if len(tops) == 1:
        run("mount", "-t", "cgroup2", "cgroup2", top)
        # Where controllers are handed down, no process may stay.
        (top / "init").mkdir()
        (top / "init/cgroup.procs").write_text("0")
        return
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", top)
    for each in tops:
        name = each.parent.name
        (top / name).mkdir()
        if name == "unified":
            run("mount", "-t", "cgroup2", "cgroup2", top / name)
        else:
            run("mount", "-t", "cgroup", "-o", {"systemd": "none,name=systemd"}.get(name, name), "cgroup", top / name)


if __name__ == "__main__":
    told = json.loads(Path(sys.argv[1]).read_text())
    if len(sys.argv) > 2:
        inside(told)
    else:
        outside(told, sys.argv[1])
