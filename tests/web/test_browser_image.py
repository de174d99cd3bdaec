"""A site of an image in the browser: from its name in a registry to pages that answer at a port of the machine."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browserkit import PASSWORD, Person
from imagekit import registry

from instance import Instance
from instancekit import free_ports, until

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.turn, pytest.mark.timeout(900)]
SETTINGS = """
[images]
registries = ["http://127.0.0.1:{port}"]

[sites]
shared = ["{share}"]
"""


@pytest.fixture
def share() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="alshare", dir="/var/tmp"))
    made.chmod(0o755)
    (made / "photos").mkdir()
    (made / "photos" / "index.html").write_text("<h1>Our photographs</h1>")
    yield made
    shutil.rmtree(made)


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture
def gallery(share: Path, port: int) -> Iterator[Instance]:
    with Instance(more=SETTINGS.format(port=port, share=share)) as made, registry(port):
        role = ("--role", "administrator")
        made.cli("account", "add", "ria", *role, "--password-stdin", input=PASSWORD)
        yield made


def free_port() -> int:
    """One that may be published and that nothing has."""
    for found in range(20_000, 30_000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", found)) != 0:
                return found
    raise AssertionError("no port is free")


def asked(address: str, at: int) -> bytes:
    """What the site answers at a port of the machine; nothing when nobody does."""
    try:
        with socket.create_connection((address, at), 5) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            found = b""
            while piece := client.recv(4096):
                found += piece
            return found
    except OSError:
        return b""


def test_the_story_of_an_image(gallery: Instance, browser: Any, axe: str, share: Path, port: int) -> None:
    someone = Person(browser, gallery, axe, language="en-US", width=1600)
    page = someone.page
    someone.sign_in("ria")
    someone.go("/admin/servers")
    someone.look("admin-servers")
    someone.go("/new/image")
    outer = free_port()
    page.fill("#f-name", "gallery")
    page.select_option("#f-registry", f"127.0.0.1:{port}")
    page.fill("#f-repository", "club/photos")
    page.fill("#f-tag", "1")
    page.fill("#f-volumes", "notes /notes")
    page.fill("#f-published", "80:8080")
    page.fill("#f-shared", f"{share}/photos:/photos:rw")
    page.click("button[value=create]")
    # Refused, with all that is wrong and all that was typed.
    page.wait_for_selector("#e-published")
    assert page.input_value("#f-repository") == "club/photos"
    someone.look("new-image-refused")
    page.fill("#f-published", f"{outer}:8080")
    page.click("button[value=create]")
    page.wait_for_selector("#e-shared")
    assert "belongs to root" in page.inner_text("main")
    page.fill("#f-shared", f"{share}/photos:/photos")
    page.select_option("#f-persistent", "no")
    someone.look("new-image")
    page.click("button[value=create]")
    someone.ended()
    someone.look("image-made")
    someone.go("/site/gallery")
    assert f"{outer} → 8080/tcp" in page.inner_text("#overview")
    someone.look("image-overview")
    gallery.until_answers("gallery", "Our photographs", 60)
    # An address of the machine that is not its loopback; a client of another machine is tried in tests/threat.
    machine = f"10.{gallery.octet}.1.254"
    until(lambda: b"Our photographs" in asked(machine, outer), 60)
    someone.close()

    narrow = Person(browser, gallery, axe, language="fr-FR", width=375, dark=True)
    page = narrow.page
    narrow.sign_in("ria")
    for path, name in (
        ("/admin/servers", "admin-servers"),
        ("/new/image", "new-image"),
        ("/site/gallery", "image-overview"),
    ):
        narrow.go(path)
        assert page.get_attribute("html", "lang") == "fr"
        narrow.look(name)
    narrow.go("/site/gallery/settings")
    assert page.input_value("#f-published") == f"{outer}:8080/tcp"
    narrow.look("image-settings")
    page.fill("#f-published", "")
    page.click("section[aria-labelledby=lent] button")
    narrow.ended()
    until(lambda: asked(machine, outer) == b"", 60)
    gallery.until_answers("gallery", "Our photographs", 60)
    narrow.close()
