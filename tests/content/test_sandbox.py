"""The child that touches content: what it can reach, how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from contentkit import Place

from alveole.errors import Temporary
from alveole.host import confine
from alveole.host.sandbox import As, as_root, as_user

pytestmark = pytest.mark.root


@pytest.mark.parametrize("kind", ["user", "root"])
def test_a_child_reaches_nothing_but_its_directory(place: Place, kind: str) -> None:
    """Threats 4 and 6: no file, no network, no right, no id beside those of the site."""
    world = place.path / "world"
    world.mkdir()
    (world / "mine").write_text("x")
    secret = place.path / "secret"
    secret.write_text("x")
    leak = os.open(secret, os.O_RDONLY)
    os.set_inheritable(leak, True)
    ids = as_user(place.settings, 7) if kind == "user" else as_root(place.settings, 7)
    names = ["/etc/passwd", str(place.canary), "/../canary", "mine"]
    seen = place.sandbox.run("probe", world, ids, {"paths": names})
    os.close(leak)
    uid = place.uid(7) if kind == "user" else 0
    assert seen["ids"] == [uid] * 6
    assert seen["root"] == ["mine"] and seen["cwd"] == "/"
    # Its three standard files and the socket of the answer.
    assert len(seen["files"]) == 4
    assert seen["capabilities"] == (0 if kind == "user" else 0b11011)
    assert all(seen[what] != "allowed" for what in ("connect", "fork", "chroot", "unshare", "mount"))
    assert [seen["paths"][name][0] for name in names[:3]] == ["No such file or directory"] * 3
    assert seen["paths"]["mine"][0] == "allowed"


def test_the_root_of_a_range_is_nobody_outside_of_it(place: Place) -> None:
    """Threat 6: even inside its directory, a child cannot change what is not the site's."""
    world = place.path / "world"
    world.mkdir(0o755)
    (world / "theirs").write_text("root's")
    (world / "theirs").chmod(0o600)
    seen = place.sandbox.run("probe", world, as_root(place.settings, 7), {"paths": ["theirs"]})
    assert seen["paths"]["theirs"] == ["Permission denied"] * 2


def test_the_helper_holds_little() -> None:
    """It is there for as long as the agent is, and everything in it is near whatever a site has made."""
    look = "import sys; sys.path.append(sys.argv[1]); from alveole.host import confine; print(*sys.modules)"
    source = str(Path(confine.__file__).parents[2])
    told = subprocess.run([sys.executable, "-I", "-S", "-c", look, source], capture_output=True, check=True, text=True)
    loaded = set(told.stdout.split())
    assert "alveole.host.archive" in loaded
    assert not loaded & {"msgspec", "subprocess", "logging", "pathlib", "threading", "inspect", "alveole.errors"}


def test_no_child_runs_as_root(place: Place) -> None:
    for ids in (As(0, None), As(None, None), As(5, 5)):
        with pytest.raises(ValueError, match="never as root"):
            place.sandbox.run("probe", place.path, ids, {})


def test_a_killed_helper_is_started_again(place: Place) -> None:
    """Fault 20."""
    place.sandbox.run("probe", place.path, as_user(place.settings, 1), {})
    process = place.sandbox._process
    assert process is not None
    process.kill()
    process.wait()
    assert place.sandbox.run("probe", place.path, as_user(place.settings, 1), {})


def test_a_job_ends_with_the_agent(place: Place) -> None:
    """Fault 4: nothing goes on unpacking after a kill -9 of the agent."""
    code = f"""
import os, sys
from pathlib import Path
from alveole.config import parse
from alveole.host.sandbox import Sandbox, As
sandbox = Sandbox()
sandbox.start()
print(sandbox._process.pid, flush=True)
r, w = os.pipe()
# A job that waits for ever: it packs into a pipe that nobody reads.
sandbox.run("pack", {str(place.path)!r}, As({place.uid()}, None), {{"path": ".", "prefix": "", "bytes": 1}}, fds=(w,))
"""
    (place.path / "big").write_bytes(bytes(1 << 20))
    agent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert agent.stdout is not None
    helper = int(agent.stdout.readline())
    deadline = time.monotonic() + 10
    children = Path(f"/proc/{helper}/task/{helper}/children")
    while not (child := children.read_text().split()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert child
    agent.send_signal(signal.SIGKILL)
    agent.wait()
    agent.stdout.close()
    while time.monotonic() < deadline and any(_alive(int(pid)) for pid in (helper, *child)):
        time.sleep(0.01)
    assert not any(_alive(int(pid)) for pid in (helper, *child))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_job_that_takes_too_long_is_ended(place: Place) -> None:
    (place.path / "big").write_bytes(bytes(1 << 20))
    reader, writer = os.pipe()
    try:
        with pytest.raises(Temporary, match="in time"):
            args = {"path": ".", "prefix": "", "bytes": 1}
            place.sandbox.run("pack", place.path, as_user(place.settings, 1), args, fds=(writer,), timeout=0.3)
        process = place.sandbox._process
        assert process is not None
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        deadline = time.monotonic() + 5
        while children.read_text().split() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not children.read_text().split()
    finally:
        os.close(reader)
        os.close(writer)


def test_many_threads_share_one_helper(place: Place) -> None:
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(10):
                seen = place.sandbox.run("probe", place.path, as_user(place.settings, number), {})
                assert seen["ids"][0] == place.uid(number)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_a_tree_of_any_depth_is_removed(place: Place) -> None:
    world = place.path / "world"
    world.mkdir()
    os.chown(world, place.uid(), place.uid())
    fd = os.open(world, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=fd)
        os.chown("d", place.uid(), place.uid(), dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    place.sandbox.run("remove", world, as_root(place.settings, 1), {"paths": None})
    assert not list(world.iterdir())
