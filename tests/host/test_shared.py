"""Directories of the machine in a site: what it sees of them, as whom it writes, and what stays out of reach."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from nativefixtures import Cell, cell

from alveole.host import lent, mounts, paths, syscalls
from alveole.model.lent import Shared
from alveole.model.resource import Action

pytestmark = pytest.mark.root
OWNER, GROUP, OTHER = 61_234, 61_235, 61_300
SECRET = "CANARY-OF-ROOT"


@pytest.fixture(scope="module")
def machine() -> Iterator[Cell]:
    with cell("h") as made:
        yield made


@pytest.fixture
def share(machine: Cell) -> Iterator[Path]:
    """``share/photos`` belongs to OWNER; a secret of root's lies beside what is shared."""
    top = machine.settings.state.parent / "share"
    outside = top.parent / "outside"
    for each in (top, top / "photos", outside):
        each.mkdir()
        each.chmod(0o755)
    (outside / "secret").write_text(SECRET)
    (outside / "secret").chmod(0o644)
    (top / "photos" / "one.txt").write_text("one")
    (top / "photos" / "root.txt").write_text(SECRET)
    (top / "photos" / "root.txt").chmod(0o600)
    os.chown(top / "photos", OWNER, GROUP)
    os.chown(top / "photos" / "one.txt", OWNER, GROUP)
    yield top
    mounts.remove_tree(top)
    mounts.remove_tree(outside)


def tried(machine: Cell, *wanted: Shared) -> str:
    return "; ".join(problem.message for problem in lent.check(machine.settings, wanted))


def test_read_only_it_is_the_default_and_holds(machine: Cell, share: Path) -> None:
    """Threat 3: what is shown is shown, and no more: not to be written, no set-user-id, no devices."""
    shared = Shared(f"{share}/photos", "/photos")
    spec = machine.must_start(machine.python(1, shared=(shared,)))
    assert machine.inside(spec, "print(open('/photos/one.txt').read())") == (0, "one\n")
    status, said = machine.inside(spec, "open('/photos/new', 'w')")
    assert status == 1 and "Read-only file system" in said
    status, said = machine.inside(spec, "open('/photos/root.txt')")
    assert status == 1 and "Permission denied" in said
    _, table = machine.inside(spec, "print(open('/proc/self/mountinfo').read())")
    line = next(each for each in table.splitlines() if " /photos " in each)
    assert {"ro", "nosuid", "nodev"} <= set(line.split()[5].split(","))
    assert machine.stop(spec).done
    assert not [point for point in syscalls.mount_points(machine.settings.run) if "shared" in point]


def test_to_write_the_program_is_the_directorys_owner_and_nobody_else(machine: Cell, share: Path) -> None:
    """Threat 3: files come to the owner of the directory, those of others stay out of reach, and so does root."""
    photos = share / "photos"
    (photos / "other").mkdir()
    os.chown(photos / "other", OTHER, OTHER)
    spec = machine.must_start(machine.python(2, shared=(Shared(str(photos), "/photos", writable=True),)))
    code = "import os; open('/photos/new', 'w').write('x'); os.mkdir('/photos/d'); print(os.stat('/photos').st_uid)"
    assert machine.inside(spec, code) == (0, "1000\n")
    for name in ("new", "d"):
        made = (photos / name).stat()
        assert (made.st_uid, made.st_gid) == (OWNER, GROUP)
    for wrong in ("open('/photos/other/x', 'w')", "open('/photos/root.txt')", "os.chown('/photos/new', 0, 0)"):
        status, said = machine.inside(spec, f"import os; {wrong}")
        assert status == 1 and ("Errno 13" in said or "Errno 75" in said), said
    # The container's own root is nobody there.
    status, said = machine.inside(spec, "open('/photos/by-root', 'w')", uid=0)
    assert status == 1 and not (photos / "by-root").exists(), said
    assert not [point for point in syscalls.mount_points(machine.settings.run) if "shared" in point], (
        "gone once it runs"
    )
    assert machine.stop(spec).done
    assert (photos / "new").read_text() == "x"


def test_threat_6_a_link_in_a_shared_directory_leads_nowhere_on_the_machine(machine: Cell, share: Path) -> None:
    """Threat 6: what a link says is looked for in the container, whoever put it there."""
    photos = share / "photos"
    (photos / "out").symlink_to(share.parent / "outside" / "secret")
    (photos / "up").symlink_to("../../outside/secret")
    spec = machine.must_start(machine.python(3, shared=(Shared(str(photos), "/photos", writable=True),)))
    for name in ("out", "up"):
        status, said = machine.inside(spec, f"open('/photos/{name}')")
        assert status == 1 and "No such file" in said and SECRET not in said
    assert machine.stop(spec).done


def test_threat_6_a_link_on_the_way_is_refused_and_so_is_what_is_not_allowed(machine: Cell, share: Path) -> None:
    """Threat 6: neither the last part nor one before it may be a link; ``..`` is in no path at all."""
    (share / "link").symlink_to(share.parent / "outside")
    (share / "way").symlink_to(share / "photos")
    (share / "photos" / "deep").mkdir()
    assert "a link is on the way" in tried(machine, Shared(f"{share}/link", "/x"))
    assert "a link is on the way" in tried(machine, Shared(f"{share}/way/deep", "/x"))
    assert "below none" in tried(machine, Shared(str(share.parent / "outside"), "/x"))
    assert "below none" in tried(machine, Shared(f"{share}x", "/x"))
    assert "no directory" in tried(machine, Shared(f"{share}/photos/one.txt", "/x"))
    assert "No such file" in tried(machine, Shared(f"{share}/nothing", "/x"))
    # What was a directory when it was asked for, and is a link when the site starts.
    spec = machine.python(4, shared=(Shared(f"{share}/way", "/x"),))
    done = machine.start(spec)
    assert not done.done and "a link is on the way" in done.message
    assert machine.observed(spec) is None and not paths.instance(machine.settings, spec.site, 0).exists()


def test_threat_6_swaps_while_it_is_mounted_never_lead_out(machine: Cell, share: Path) -> None:
    """Threat 6: the directory is exchanged for a link to root's over and over while it is opened and mounted."""
    (share / "away").symlink_to(share.parent / "outside")
    code = (
        "import ctypes, sys\nswap = ctypes.CDLL(None).renameat2\nprint('ready', flush=True)\n"
        "while True: swap(-100, sys.argv[1].encode(), -100, sys.argv[2].encode(), 2)\n"
    )
    target = share.parent / "mounted"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(share / "photos"), str(share / "away")], stdout=subprocess.PIPE
    ) as swapper:
        try:
            assert swapper.stdout is not None and swapper.stdout.readline() == b"ready\n"
            held = refused = 0
            deadline = time.monotonic() + 60
            while (held < 50 or refused < 50) and time.monotonic() < deadline:
                try:
                    lent.mount(machine.settings, Shared(f"{share}/photos", "/x"), target, 1, 1)
                except lent.StepFailed:
                    refused += 1
                    continue
                held += 1
                names = {each.name for each in target.iterdir()}
                mounts.detach(target)
                assert "one.txt" in names and "secret" not in names
            assert held and refused, (held, refused)
        finally:
            swapper.kill()
            mounts.detach(target)
            target.rmdir()


def test_what_cannot_be_written_to_safely_is_refused_with_its_reason(machine: Cell, share: Path) -> None:
    assert "belongs to root" in tried(machine, Shared(str(share), "/x", writable=True))
    assert tried(machine, Shared(str(share), "/x")) == ""
    # A file system that maps no owners.
    unmappable = share / "proc"
    unmappable.mkdir()
    syscalls.mount("proc", unmappable, "proc")
    try:
        assert tried(machine, Shared(f"{unmappable}/self", "/x")) != "", "a magic link is a link"
        # What is mounted below a shared directory is not part of it.
        spec = machine.must_start(machine.python(5, shared=(Shared(str(share), "/x"),)))
        assert machine.inside(spec, "import os; print(os.listdir('/x/proc'))") == (0, "[]\n")
        assert machine.stop(spec).done
    finally:
        syscalls.umount(unmappable)


def test_a_site_that_forgets_begins_anew_at_each_start(machine: Cell) -> None:
    for forgets in (True, False):
        spec = machine.must_start(machine.python(6 + forgets, **({"forgets": True} if forgets else {})))
        assert machine.inside(spec, "open('/var-of-mine', 'w')", uid=1000)[0] in (0, 1)
        assert machine.inside(spec, "open('/etc/alveole/mine', 'w')", uid=0) == (0, "")
        assert machine.stop(spec).done
        assert machine.start(spec, Action.CREATE).done
        _, said = machine.inside(spec, "import os; print(os.path.exists('/etc/alveole/mine'))")
        assert said == f"{not forgets}\n"
        assert machine.stop(spec).done
