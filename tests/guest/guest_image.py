"""The disk of a fresh Debian 12 with systemd, made by mmdebstrap and kept between runs.

The guest has no network to the outside, so the image also holds what a mirror and a package index
would have given it: the .deb files that quickstart may ask for, as an apt repository in
``/opt/repo``, and the wheels of requirements.txt in ``/opt/wheels``. quickstart itself runs unchanged.
"""

from __future__ import annotations

import ast
import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("ALVEOLE_TEST_CACHE", "/var/cache/alveole-test"), "guest")
_BYTES = 6 * 1024**3
_PACKAGES = (
    "systemd-sysv",
    "udev",
    "dbus",
    "iproute2",
    "linux-image-cloud-amd64",
    "initramfs-tools",
    "zstd",
    "apparmor",
)
#: A name server as an administrator has installed and not started it; it confines itself by AppArmor, as Debian does.
_NAMES = ("bind9", "bind9-dnsutils")
#: Of the packages that quickstart asks for, those that are left to it. The others are in the image already:
#: a processor in software takes minutes to unpack what says nothing about quickstart.
_LEFT_TO_QUICKSTART = frozenset({"crun", "libnginx-mod-http-lua", "nftables", "nginx", "s6", "tini"})
#: What the guest's kernel needs to find its disk.
_MODULES = ("virtio_pci", "virtio_blk", "ext4", "crc32c_generic")
_NETWORK = (
    "[Match]\nType=ether\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"
)
_DOOR = """[Unit]
Description=Door for the test on the other side of the second serial port
After=basic.target
[Service]
ExecStart=/bin/bash /usr/local/sbin/guest-door
Restart=always
[Install]
WantedBy=multi-user.target
"""


def needed_packages() -> list[str]:
    """The names in ``NEEDED`` of the installer, read and not imported: it is no library."""
    tree = ast.parse((ROOT / "scripts/installer/packages.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "NEEDED":
            return sorted(ast.literal_eval(node.value))
    raise AssertionError("scripts/installer/packages.py has no NEEDED")


def key() -> str:
    """Changes when anything does that the image is made of."""
    parts = [Path(__file__), Path(__file__).with_name("guest-door"), ROOT / "requirements.txt"]
    total = hashlib.sha256("\n".join(needed_packages()).encode())
    for part in parts:
        total.update(part.read_bytes())
    return total.hexdigest()[:16]


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    CACHE.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(CACHE, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def image() -> Path:
    """A directory with ``disk.img``, ``vmlinuz`` and ``initrd``; made when it is absent (about two minutes).

    One image is kept: those of older recipes go.
    """
    place = CACHE / key()
    with _locked():
        if not place.exists():
            for old in CACHE.iterdir():
                shutil.rmtree(old, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix="make-", dir=CACHE) as work:
                _make(Path(work))
                (Path(work) / "image").rename(place)
    return place


def _make(work: Path) -> None:
    root, made = work / "root", work / "image"
    made.mkdir()
    hooks = work / "hooks"
    hooks.mkdir()
    # The initial RAM disk takes its list of modules from here; without a list it looks at the machine that builds.
    first = hooks / "first"
    first.write_text(
        "#!/bin/sh\nset -e\n"
        'mkdir -p "$1/etc/initramfs-tools/conf.d"\n'
        'printf "MODULES=list\\nCOMPRESS=zstd\\n" > "$1/etc/initramfs-tools/conf.d/guest.conf"\n'
        f'printf "%s\\n" {" ".join(_MODULES)} > "$1/etc/initramfs-tools/modules"\n'
    )
    last = hooks / "last"
    last.write_text(
        "#!/bin/sh\nset -e\n"
        'chroot "$1" systemctl disable named.service\n'
        'rm -f "$1"/var/cache/apt/archives/*.deb; mkdir -p "$1/opt/repo"\n'
        # mmdebstrap's own documentation names this variable: apt of the outside, package lists of the inside.
        'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get -q -y --no-install-recommends --download-only install '
        f"{' '.join(sorted(_LEFT_TO_QUICKSTART))}\n"
        'mv "$1"/var/cache/apt/archives/*.deb "$1/opt/repo/"\n'
    )
    included = ",".join([*_PACKAGES, *_NAMES, *sorted(set(needed_packages()) - _LEFT_TO_QUICKSTART)])
    for hook in (first, last):
        hook.chmod(0o755)
    _run(
        ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={included}"]
        + [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "doc", "locale")]
        + [f"--essential-hook={first}", f"--customize-hook={last}", "bookworm", str(root)]
    )
    for name, pattern in (("vmlinuz", "vmlinuz-*"), ("initrd", "initrd.img-*")):
        next((root / "boot").glob(pattern)).replace(made / name)
    _repository(root / "opt/repo")
    _wheels(work, root / "opt/wheels")
    _configure(root)
    _run(["mke2fs", "-q", "-t", "ext4", "-d", str(root), "-L", "root", str(made / "disk.img"), f"{_BYTES // 1024}"])


def _repository(place: Path) -> None:
    """An index beside the packages: what apt needs of a flat repository, no more."""
    paragraphs = []
    for deb in sorted(place.glob("*.deb")):
        about = subprocess.run(["dpkg-deb", "-f", str(deb)], check=True, capture_output=True, text=True).stdout
        digest = hashlib.sha256(deb.read_bytes()).hexdigest()
        paragraphs.append(f"{about.strip()}\nFilename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {digest}\n")
    assert paragraphs, "no package was fetched"
    (place / "Packages").write_text("\n".join(paragraphs), encoding="utf-8")


def _wheels(work: Path, place: Path) -> None:
    # Debian's own Python, as in the guest: pip takes the wheels of the interpreter that runs it.
    _run(["/usr/bin/python3", "-m", "venv", str(work / "venv")])
    pip = [str(work / "venv/bin/python"), "-m", "pip", "download", "--quiet", "--only-binary", ":all:"]
    _run([*pip, "--require-hashes", "-r", str(ROOT / "requirements.txt"), "-d", str(place)])


def _configure(root: Path) -> None:
    for name in ("sources.list", "sources.list.d"):
        old = root / "etc/apt" / name
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)
    # What mmdebstrap or this machine put into the configuration of apt speaks of this machine.
    files = {
        "etc/apt/sources.list": "deb [trusted=yes] file:/opt/repo ./\n",
        "etc/dpkg/dpkg.cfg.d/guest": "force-unsafe-io\n",
        "etc/pip.conf": "[global]\nno-index = true\nfind-links = /opt/wheels\n",
        "etc/fstab": "LABEL=root / ext4 defaults 0 1\nLABEL=checkout /root/alveole ext4 ro 0 0\n",
        "etc/hostname": "guest\n",
        "etc/hosts": "127.0.0.1 localhost guest\n::1 localhost ip6-localhost\n",
        "etc/resolv.conf": "",
        "etc/systemd/network/eth.network": _NETWORK,
        "etc/systemd/system/guest-door.service": _DOOR,
        "usr/local/sbin/guest-door": Path(__file__).with_name("guest-door").read_text(encoding="utf-8"),
    }
    for name, text in files.items():
        (root / name).unlink(missing_ok=True)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    (root / "root/alveole").mkdir(parents=True)
    wants = root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    (wants / "guest-door.service").symlink_to("/etc/systemd/system/guest-door.service")
    (wants / "systemd-networkd.service").symlink_to("/lib/systemd/system/systemd-networkd.service")
    # A guest on a slow processor: no daily jobs in the middle of the test.
    for timer in (
        "apt-daily.timer",
        "apt-daily-upgrade.timer",
        "e2scrub_all.timer",
        "fstrim.timer",
        "dpkg-db-backup.timer",
    ):
        (root / "etc/systemd/system" / timer).unlink(missing_ok=True)
        (root / "etc/systemd/system" / timer).symlink_to("/dev/null")


def checkout_files() -> list[str]:
    """The files git knows or would add; without git, all but what tools leave behind."""
    # safe.directory: root tests a checkout that is somebody else's.
    argv = ["git", "-c", "safe.directory=*", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others"]
    done = subprocess.run([*argv, "--exclude-standard"], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return [name for name in done.stdout.split("\0") if name]
    skipped = {".git", ".venv", "artefacts", "__pycache__"}
    names = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
    return [str(name) for name in names if not skipped & set(name.parts)]


def checkout_disk(place: Path) -> None:
    """The working tree as a disk."""
    with tempfile.TemporaryDirectory(prefix="alvco") as tree:
        for name in checkout_files():
            source = ROOT / name
            if source.is_file():
                target = Path(tree, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
        place.unlink(missing_ok=True)
        _run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", tree, "-L", "checkout", str(place), "64M"])


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, f"{argv[0]} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}"
