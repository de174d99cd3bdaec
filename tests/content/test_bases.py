"""Bases: keys, the host's skeleton, a Debian root by mmdebstrap."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from contentkit import Place

from alveole.errors import InvalidInput, Refused
from alveole.host import apt, paths
from alveole.model.resource import PLATFORM, Action, BaseSpec, Kind, ResourceId, Step, stamp
from alveole.model.site import Base, BaseKind

pytestmark = pytest.mark.root


def step(base: Base, action: Action = Action.CREATE) -> Step:
    return Step(ResourceId(Kind.BASE, PLATFORM, base.key), action, stamp(BaseSpec(base)), BaseSpec(base))


def test_keys_say_what_determines_a_base(place: Place) -> None:
    host = place.bases.resolve("host")
    assert host == place.bases.resolve("host") and host.kind is BaseKind.HOST
    plain = place.bases.resolve("debian")
    one = place.bases.resolve("debian", ["python3", "bash", "python3"])
    assert one == place.bases.resolve("debian", ["bash", "python3"]) and one.packages == ("bash", "python3")
    assert len({host.key, plain.key, one.key}) == 3
    assert not paths.bases(place.settings).exists()


def test_what_cannot_be_a_base_is_refused_at_once(place: Place) -> None:
    """P18 and threat 13: all problems together."""
    with pytest.raises(InvalidInput) as caught:
        place.bases.resolve("debian", ["-o=x", "$(id)", "bash"])
    assert len(caught.value.problems) == 2
    with pytest.raises(InvalidInput, match="takes no packages"):
        place.bases.resolve("host", ["bash"])
    with pytest.raises(InvalidInput, match="not a kind"):
        place.bases.resolve("windows")
    if apt.unknown(["no-such-package-of-debian"]):
        with pytest.raises(InvalidInput) as caught:
            place.bases.resolve("debian", ["no-such-package-of-debian", "nor-this-one", "bash"])
        assert [problem.message for problem in caught.value.problems] == [
            "there is no package 'no-such-package-of-debian'",
            "there is no package 'nor-this-one'",
        ]


def test_the_hosts_base_is_made_at_once_and_serves(place: Place) -> None:
    base = place.bases.resolve("host")
    began = time.monotonic()
    assert place.bases.apply(step(base)).done
    assert time.monotonic() - began < 5
    (seen,) = place.bases.observe().found
    assert seen.ready and seen.digest == step(base).digest
    root = paths.base_root(place.settings, base.key)
    for name in ("dev", "proc", "sys", "tmp", "run/alveole", "site/current", "usr", "etc/nginx"):
        assert (root / name).is_dir(), name
    assert (root / "bin").readlink() == Path("usr/bin")
    for path in (root, *root.rglob("*")):
        assert path.lstat().st_uid == 0 and (path.is_symlink() or not path.lstat().st_mode & 0o6000)
        if path.is_dir() and not path.is_symlink():
            assert path.stat().st_mode & 0o777 in (0o755, 0o777), path
    # Its nginx really reads the configuration, with the machine's /usr in its place.
    script = (
        f"mount --bind /usr {root}/usr && mount -t tmpfs t {root}/run && mount -t tmpfs t {root}/tmp && "
        f"mkdir {root}/run/alveole && chroot {root} /usr/sbin/nginx -t -c /etc/alveole/nginx.conf -e stderr"
    )
    tested = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False)
    assert "test is successful" in tested.stderr, tested.stderr


def test_a_lost_tree_is_a_defect_and_is_made_again(place: Place) -> None:
    """Fault 14."""
    base = place.bases.resolve("host")
    place.bases.build(base)
    paths.base_root(place.settings, base.key).rename(place.path / "away")
    (seen,) = place.bases.observe().found
    assert not seen.ready and seen.defects[0].code == "damaged"
    assert place.bases.apply(step(base, Action.REPAIR)).done
    (seen,) = place.bases.observe().found
    assert seen.ready
    (paths.base_record(place.settings, base.key)).write_text("{")
    (seen,) = place.bases.observe([PLATFORM]).found
    assert not seen.ready
    assert place.bases.apply(step(base, Action.REPAIR)).done
    assert place.bases.observe([PLATFORM]).found[0].ready
    assert place.bases.observe(["saaaaaaaaaaaa"]).found == ()
    assert place.bases.apply(step(base, Action.DELETE)).done
    assert place.bases.observe().found == ()


def test_an_image_cannot_be_built_from_its_name(place: Place) -> None:
    with pytest.raises(Refused, match="is not here"):
        place.bases.build(Base(BaseKind.OCI, "oci-0123456789abcdef", image="sha256:" + "0" * 64))


def test_the_machines_sources_are_read_in_both_formats(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(
        "# deb http://no bookworm main\ndeb [signed-by=/k arch=amd64] http://a/ bookworm main contrib # x\n"
    )
    (tmp_path / "sources.list.d" / "x.list").write_text(
        "deb http://third.example/ stable main\ndeb-src http://a bookworm main\n"
    )
    (tmp_path / "sources.list.d" / "y.sources").write_text(
        "# c\nTypes: deb deb-src\nURIs: http://b\nSuites: bookworm-updates bookworm-backports\n"
        "Components: main\nSigned-By:\n -----BEGIN\n .\n x\n\n"
        "Types: deb\nURIs: http://c\nSuites: bookworm\nComponents: main\nEnabled: no\n"
    )
    text = apt.sources("bookworm", tmp_path)
    assert text.count("Types: deb\n") == 2
    assert "URIs: http://a/\nSuites: bookworm\nComponents: main contrib\nSigned-By: /k\n" in text
    assert "Suites: bookworm-updates\n" in text and "-----BEGIN\n .\n x" in text
    assert "third" not in text and "http://c" not in text


@pytest.mark.slow
def test_a_debian_base(place: Place) -> None:
    """Built once for two who ask at the same time; a package that is not there is named."""
    base = place.bases.resolve("debian")
    said: list[tuple[str, float | None]] = []
    done = []

    def build() -> None:
        done.append(place.bases.apply(step(base), lambda text, share=None: said.append((text, share))))

    threads = [threading.Thread(target=build) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outcome.done for outcome in done] == [True, True], done
    assert len([text for text, _ in said if text.startswith("building")]) == 1
    shares = [share for _, share in said if share is not None]
    assert shares == sorted(shares) and len(shares) >= 4
    root = paths.base_root(place.settings, base.key)
    assert (root / "usr/sbin/nginx").exists() and (root / "usr/bin/s6-svscan").exists()
    assert not list((root / "dev").iterdir()) and not (root / "var/lib/apt/lists").exists()
    assert not list((root / "etc/apt/sources.list.d").iterdir())
    for path in root.rglob("*"):
        info = path.lstat()
        assert info.st_uid < 65_536 and (path.is_symlink() or path.is_dir() or not info.st_mode & 0o6000)
    assert (root / "etc/alveole/nginx.conf").exists()
    assert "site:x:1000:" in (root / "etc/passwd").read_text()
    assert [p.name for p in paths.bases(place.settings).iterdir()] == [base.key]
    missing = Base(BaseKind.DEBIAN, "debian-0000000000000000", ("no-such-package-of-debian",))
    outcome = place.bases.apply(step(missing))
    assert not outcome.done and not outcome.temporary
    assert "there is no package 'no-such-package-of-debian'" in outcome.message
    assert [p.name for p in paths.bases(place.settings).iterdir()] == [base.key]


def test_a_build_ends_with_the_agent_and_leaves_nothing(place: Place) -> None:
    """Faults 4 and 5: kill -9 in the middle of mmdebstrap; no process, mount or directory stays."""
    code = f"""
from alveole.config import Paths, Settings, Users
from alveole.host.sandbox import Sandbox
from alveole.actuators.bases import Bases
settings = Settings(paths=Paths({str(place.settings.state)!r}, {str(place.settings.run)!r}),
                    users=Users(first_uid={place.settings.users.first_uid}))
bases = Bases(settings, Sandbox())
bases.build(bases.resolve("debian"), lambda text, share=None: print(text, flush=True))
"""
    agent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert agent.stdout is not None
    try:
        for line in agent.stdout:
            if "apt-get update" in line or "downloading" in line:
                break
    finally:
        agent.kill()
        agent.wait()
        agent.stdout.close()
    deadline = time.monotonic() + 10
    while (left := _mentioning(str(place.path))) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left
    assert place.bases.observe().found == ()
    place.bases.recover()
    assert not list(paths.bases(place.settings).iterdir())
    assert str(place.path) not in Path("/proc/self/mountinfo").read_text()


def _mentioning(text: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found
