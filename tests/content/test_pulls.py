"""Images fetched by name, from Debian's own registry started by the test."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from contentkit import Place, oci, tar

from alveole.actuators.images import Images
from alveole.agent.protocol import PullImage
from alveole.config import Images as ImageSettings
from alveole.errors import Refused
from alveole.host import paths

pytestmark = pytest.mark.root
FILES = [
    ("etc", "d", b""),
    ("etc/passwd", "f", b"root:x:0:0::/root:/bin/sh\n"),
    ("bin", "d", b""),
    ("bin/app", "f", b"x"),
]


@pytest.fixture
def registry(place: Place) -> Iterator[str]:
    """Its address, with ``club/app:1`` in it."""
    if shutil.which("docker-registry") is None:
        pytest.fail("needs docker-registry: scripts/test --setup")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    there = place.path / "registry"
    there.mkdir()
    config = there / "config.yml"
    storage = {"filesystem": {"rootdirectory": str(there / "data")}}
    document = {"version": 0.1, "log": {"level": "error"}, "storage": storage, "http": {"addr": f"127.0.0.1:{port}"}}
    config.write_text(json.dumps(document))  # JSON is YAML
    process = subprocess.Popen(
        ["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 20
        while socket.socket().connect_ex(("127.0.0.1", port)) != 0:
            assert process.poll() is None and time.monotonic() < end, "the registry does not start"
            time.sleep(0.05)
        image = place.path / "image.tar"
        image.write_bytes(oci([gzip.compress(tar(FILES))], {"Cmd": ["/bin/app"], "ExposedPorts": {"8080/tcp": {}}}))
        argv = ["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", f"oci-archive:{image}"]
        subprocess.run([*argv, f"docker://127.0.0.1:{port}/club/app:1"], check=True, capture_output=True)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def images(place: Place, *registries: str) -> Images:
    settings = msgspec.structs.replace(place.settings, images=ImageSettings(registries=registries))
    return Images(settings, place.sandbox, place.bases)


def test_an_image_is_fetched_by_its_name(place: Place, registry: str) -> None:
    made = images(place, f"http://{registry}")
    seen: list[os.stat_result] = []

    def say(text: str, share: float | None = None) -> None:
        seen.extend(each.stat() for each in paths.pulls(place.settings).glob("*"))

    image = made.pull(PullImage(registry, "club/app", "1"), say)
    assert image.argv == ("/bin/app",) and image.ports == (8080,)
    assert (paths.base_root(place.settings, image.base.key) / "bin/app").read_bytes() == b"x"
    assert seen and {each.st_uid for each in seen} == {paths.site_uid(place.settings, 0)}
    assert all(each.st_mode & 0o777 == 0o700 for each in seen)
    assert not list(paths.pulls(place.settings).iterdir()) and place.canary_intact()
    # By its digest it is the very same, and nothing is unpacked again.
    again = made.pull(PullImage(registry, "club/app", image.base.image or ""))
    assert again.base == image.base
    with pytest.raises(Refused, match="was not fetched"):
        made.pull(PullImage(registry, "club/app", "none"))
    assert not list(paths.pulls(place.settings).iterdir())


def test_only_from_where_the_settings_say(place: Place, registry: str) -> None:
    """Threat 18: the form is no way to make the platform ask addresses of somebody's choice."""
    for allowed in ((), ("registry.example.org",), (registry.replace("127.0.0.1", "localhost"),)):
        with pytest.raises(Refused, match="not fetched from"):
            images(place, *allowed).pull(PullImage(registry, "club/app", "1"))
    # Without its own word for it, nothing is asked without TLS.
    with pytest.raises(Refused, match="was not fetched"):
        images(place, registry).pull(PullImage(registry, "club/app", "1"))


def test_what_a_death_left_of_a_fetch_goes(place: Place) -> None:
    """Fault 4."""
    left = paths.pulls(place.settings) / "x"
    left.mkdir(parents=True)
    Path(left, "image.tar").write_text("half")
    place.images.recover()
    assert not paths.pulls(place.settings).exists()
