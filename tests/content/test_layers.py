"""Layers: a set of packages over the common Debian base, made by apt in a root that owns nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from contentkit import Place

from alveole.backends.base import Say
from alveole.errors import InvalidInput, Refused
from alveole.host import bases, mounts, paths, syscalls, userns
from alveole.model.site import Base

pytestmark = [pytest.mark.root, pytest.mark.slow]
SMALL = ("tree",)
OTHER = ("redis-server",)


@pytest.fixture(scope="module")
def shared() -> Iterator[Place]:
    """One common base for all the tests here."""
    made = Place()
    try:
        made.have_common()
        yield made
    finally:
        made.close()


def build(place: Place, packages: tuple[str, ...], say: Say = lambda text, share=None: None) -> Base:
    base = place.bases.resolve("debian", packages)
    place.bases.build(base, say)
    return base


@contextlib.contextmanager
def mounted(place: Place, base: Base, *, writable: bool) -> Iterator[Path]:
    """The root as an instance sees it."""
    target, layer = place.path / "root", place.path / "layer"
    scratch = (place.path / "one", place.path / "two")
    start = place.settings.uid_start(3)
    space = userns.create(start)
    try:
        trees = bases.trees(place.settings, base.key)
        if writable:
            mounts.prepare_layer(layer, start, fresh=True)
            mounts.overlay_root(trees, layer, target, scratch, space)
        else:
            mounts.readonly_root(trees, target, scratch, space)
        yield target
    finally:
        os.close(space)
        mounts.detach(target)
        assert not [point for point in syscalls.mount_points(place.path) if "cache" not in point]


def test_two_sets_at_once_share_one_common_base(shared: Place) -> None:
    """Bars of issue 3: ten sets do not cost ten systems, and builds of different sets run together."""
    said: list[float] = []
    threads = [
        threading.Thread(
            target=build, args=(shared, packages, lambda text, share=None: said.append(share) if share else None)
        )
        for packages in (SMALL, OTHER, SMALL)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    common = shared.bases.resolve("debian")
    for packages in (SMALL, OTHER):
        base = shared.bases.resolve("debian", packages)
        record = bases.read_record(shared.settings, base.key)
        assert record.lower == common.key and record.bytes < 40 * 1024 * 1024
        root = paths.base_root(shared.settings, base.key)
        assert not (root / "usr/sbin/policy-rc.d").exists() and not (root / "var/lib/apt/lists").exists()
        for path in root.rglob("*"):
            info = path.lstat()
            assert info.st_uid < 65_536 and (path.is_dir() or path.is_symlink() or not info.st_mode & 0o6000), path
        assert sorted(path.name for path in root.parent.iterdir()) == sorted({"base.json", "root", *_extra(root)})
    assert len([share for share in said if 0.4 < share < 0.95]) > 4
    assert {item.id.name for item in shared.bases.observe().found if item.ready} >= {common.key}
    assert not list(paths.apt_cache(shared.settings).glob(".work.*"))
    assert list((paths.apt_cache(shared.settings) / "archives").glob("tree_*.deb"))


def _extra(root: Path) -> set[str]:
    return {"manifest"} if (root.parent / "manifest").exists() else set()


@pytest.mark.parametrize("writable", [False, True])
def test_an_instance_sees_the_set_and_the_common_base(shared: Place, *, writable: bool) -> None:
    base = build(shared, SMALL)
    start = shared.settings.uid_start(3)
    with mounted(shared, base, writable=writable) as root:
        assert (root / "usr/bin/tree").stat().st_uid == start and (root / "usr/sbin/nginx").exists()
        assert "Package: tree\n" in (root / "var/lib/dpkg/status").read_text()
        ran = subprocess.run(["chroot", root, "/usr/bin/tree", "--version"], capture_output=True, text=True, check=True)
        assert ran.stdout.startswith("tree v")
        if not writable:
            with pytest.raises(OSError, match="Read-only"):
                (root / "usr/bin/new").touch()


def test_what_a_layer_takes_away_is_away(shared: Place) -> None:
    """Whiteouts and opaque directories are kept by the finishing, and mean something at the mount."""
    base = build(shared, SMALL)
    root = paths.base_root(shared.settings, base.key)
    os.mknod(root / "usr/bin/perl", stat.S_IFCHR, 0)
    (root / "usr/share/doc").mkdir(parents=True, exist_ok=True)
    os.setxattr(root / "usr/share/doc", "trusted.overlay.opaque", b"y")
    os.mknod(root / "tmp", stat.S_IFCHR, 0) if not (root / "tmp").exists() else None
    os.mknod(root / "usr/bin/disk", stat.S_IFBLK, os.makedev(7, 0))
    try:
        shared.bases.finish(root, layer=True)
        assert not (root / "usr/bin/disk").exists() and not os.path.lexists(root / "tmp")
        trees = bases.trees(shared.settings, base.key)
        assert bases.find(trees, "usr/bin/perl") == root / "usr/bin/perl"
        assert not mounts.is_plain_directory(trees, "/usr/share/doc/apt")
        assert mounts.is_plain_directory(trees, "/usr/share/doc/tree") and mounts.is_plain_directory(trees, "/var/lib")
        with mounted(shared, base, writable=True) as seen:
            assert not os.path.lexists(seen / "usr/bin/perl") and (seen / "usr/bin/bash").exists()
            assert [path.name for path in (seen / "usr/share/doc").iterdir()] == ["tree"]
    finally:
        shared.bases.drop(base.key)


def test_the_common_base_stays_while_layers_lean_on_it(shared: Place) -> None:
    common, base = shared.bases.resolve("debian"), build(shared, SMALL)
    with pytest.raises(Refused, match=base.key):
        shared.bases.drop(common.key)
    moved = paths.base(shared.settings, common.key).rename(shared.path / "away")
    try:
        (seen,) = [item for item in shared.bases.observe().found if item.id.name == base.key]
        assert not seen.ready and "leans on" in seen.defects[0].cause
    finally:
        moved.rename(paths.base(shared.settings, common.key))


def test_a_package_that_is_not_there_is_named(shared: Place) -> None:
    missing = Base(shared.bases.resolve("debian").kind, "debian-0000000000000000", ("no-such-package-of-debian",))
    with pytest.raises(InvalidInput, match="no-such-package-of-debian"):
        shared.bases.build(missing)
    assert not paths.base(shared.settings, missing.key).exists()


def test_scripts_of_packages_own_nothing(shared: Place) -> None:
    """Threat 5 for bases: what a package's script may do, it may do to the new layer and to nothing else."""
    canary, package = shared.path / "canary", shared.path / "evil"
    (package / "DEBIAN").mkdir(parents=True)
    (package / "DEBIAN/control").write_text(
        "Package: evil\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n"
    )
    (package / "DEBIAN/postinst").write_text(
        "#!/bin/sh\nexec >/var/lib/evil 2>&1\nid -u; cat /proc/self/uid_map\n"
        "grep -E 'CapBnd|NoNewPrivs' /proc/self/status\n"
        f"ls {shared.path} /sys/kernel; mount -t tmpfs t /mnt; mknod /disk b 7 0; ls /proc | grep -c '^[0-9]'\n"
        "ip link 2>/dev/null || cat /proc/net/dev; echo x > /proc/sysrq-trigger; touch /usr/bin/made; exit 0\n"
    )
    (package / "DEBIAN/postinst").chmod(0o755)
    repository = shared.path / "repository"
    repository.mkdir()
    subprocess.run(["dpkg-deb", "-b", package, repository / "evil_1_all.deb"], check=True, capture_output=True)
    staging = shared.path / "staging"
    (staging / "root").mkdir(parents=True)
    try:
        with shared.bases._cache.workplace() as place:
            (place.sources / "x.sources").write_text("")
            (place.archives / "evil_1_all.deb").write_bytes((repository / "evil_1_all.deb").read_bytes())
            lowers = bases.trees(shared.settings, shared.bases.resolve("debian").key)
            inside = ("/run/alveole-build/archives/evil_1_all.deb",)
            shared.bases.debian._install(staging, place, lowers, inside, lambda text, share=None: None)
        told = (staging / "root/var/lib/evil").read_text()
    finally:
        subprocess.run(["rm", "-rf", staging, package, repository], check=False)
    assert told.startswith("0\n") and f"{shared.settings.uid_start(0)}" in told and "NoNewPrivs:\t1" in told
    bounding = int(told.partition("CapBnd:\t")[2].split()[0], 16)
    assert not bounding & (1 << 21 | 1 << 16 | 1 << 12 | 1 << 19 | 1 << 27), "no SYS_ADMIN, MODULE, NET_ADMIN, PTRACE"
    assert canary.read_text() == "canary"
    for refused in ("cannot access", "mount: ", "mknod: ", "sysrq-trigger"):
        assert refused in told, told
    assert "eth0" not in told


@pytest.mark.turn
@pytest.mark.parametrize("moment", ["Unpacking", "Configuring"])
def test_a_layer_that_is_cut_leaves_nothing(shared: Place, moment: str) -> None:
    """Faults 4 and 5: kill -9 of the agent in the middle of dpkg; no process, mount or directory stays."""
    code = f"""
from alveole.config import Paths, Settings, Users
from alveole.host.sandbox import Sandbox
from alveole.actuators.bases import Bases
settings = Settings(paths=Paths({str(shared.settings.state)!r}, {str(shared.settings.run)!r}),
                    users=Users(first_uid={shared.settings.users.first_uid}))
bases = Bases(settings, Sandbox())
bases.build(bases.resolve("debian", ["python3"]), lambda text, share=None: print(text, flush=True))
"""
    agent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert agent.stdout is not None
    try:
        for line in agent.stdout:
            if line.startswith(moment):
                break
        else:
            pytest.fail("it never came to it")
    finally:
        agent.send_signal(signal.SIGKILL)
        agent.wait()
        agent.stdout.close()
    deadline = time.monotonic() + 10
    while (left := _mentioning(str(shared.path))) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left
    shared.bases.recover()
    assert not list(paths.bases(shared.settings).glob(".*")) and not list(paths.apt_cache(shared.settings).glob(".*"))
    key = shared.bases.resolve("debian", ["python3"]).key
    assert key not in {item.id.name for item in shared.bases.observe().found}


def _mentioning(text: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if text.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
    return found
