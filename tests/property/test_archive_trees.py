"""Any tree that goes through any archive comes out as it was, under one name; any bytes are refused or kept whole."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "content"))
from contentkit import SITE, Made, Place, opened, packed

from alveole.errors import AlveoleError, InvalidInput
from alveole.host import paths

pytestmark = pytest.mark.root
MANY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

names = st.text(
    st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="/\\"), min_size=1, max_size=12
).filter(lambda name: name not in (".", "..", "__MACOSX") and len(name.encode()) < 60)
bodies = st.binary(max_size=2000)


@st.composite
def trees(draw: st.DrawFn) -> dict[str, bytes | None]:
    """Path to content; ``None`` is a directory."""
    tree: dict[str, bytes | None] = {}
    for _ in range(draw(st.integers(1, 8))):
        path = "/".join(draw(st.lists(names, min_size=1, max_size=4)))
        parents = ["/".join(path.split("/")[:depth]) for depth in range(1, path.count("/") + 1)]
        if path in tree or any(tree.get(parent) is not None for parent in parents):
            continue
        if any(known.startswith(f"{path}/") for known in tree):
            continue
        for parent in parents:
            tree[parent] = None
        tree[path] = draw(bodies)
    return tree


@pytest.fixture(scope="module")
def shared() -> Iterator[Place]:
    made = Place()
    try:
        yield made
    finally:
        made.close()


@MANY
@given(tree=trees(), order=st.randoms(use_true_random=False))
def test_a_tree_keeps_its_content_and_its_name(shared: Place, tree: dict[str, bytes | None], order: object) -> None:
    made: list[Made] = [(path, "d", b"") if body is None else (path, "f", body) for path, body in tree.items()]
    # A second entry at the top, so that a folder alone is not taken for a wrapper.
    made += [("zz-top", "f", b""), ("zz-top2", "f", b"")]
    if {"zz-top", "zz-top2"} & tree.keys():
        return
    digests = set()
    for format in ("tar", "tar.gz", "tar.zst", "zip"):
        order.shuffle(made)
        # A file may be announced before its directory.
        with opened(packed(made, format)) as fd:
            release = shared.releases.import_release(SITE, 1, fd)
        digests.add(release.digest)
    assert len(digests) == 1
    top = paths.release(shared.settings, SITE, release.digest)
    for path, body in tree.items():
        assert (top / path).is_dir() if body is None else (top / path).read_bytes() == body
    assert {str(path.relative_to(top)) for path in top.rglob("*")} == tree.keys() | {"zz-top", "zz-top2"}
    shared.releases.verify(SITE, 1, release.digest)
    shared.releases.drop_release(SITE, 1, release.digest)


evil = st.sampled_from(
    ["..", ".", "", "/", "a", "b", "c", "../x", "/etc/passwd", "a/../..", "\x1b", "a\0b", "ü", "x" * 300]
)
members = st.tuples(
    st.lists(evil, min_size=1, max_size=5).map("/".join),
    st.sampled_from("fdlhcp"),
    st.lists(evil, min_size=1, max_size=5).map("/".join),
)


@MANY
@given(made=st.lists(members, min_size=1, max_size=6), format=st.sampled_from(["tar", "zip"]))
def test_any_members_are_refused_or_stay_inside(shared: Place, made: list[Made], format: str) -> None:
    """Threat 8: generated archives; nothing outside."""
    if format == "zip":
        made = [member for member in made if member[1] != "h" and member[0]]
    made = [(n, k, v.encode() if k == "f" else v) for n, k, v in made]
    try:
        data = packed(made, format)
    except (ValueError, UnicodeError):
        return
    with opened(data) as fd:
        try:
            release = shared.releases.import_release(SITE, 1, fd)
        except InvalidInput as error:
            assert "\x1b" not in str(error)
        else:
            top = paths.release(shared.settings, SITE, release.digest)
            for path in top.rglob("*"):
                if path.is_symlink():
                    # Wherever it leads, it does not leave the tree; a link in a circle leads nowhere.
                    assert _circular(path) or path.resolve().is_relative_to(top), (made, path)
                else:
                    assert path.is_dir() or path.is_file()
            shared.releases.drop_release(SITE, 1, release.digest)
    assert shared.canary_intact()
    shared.releases.settle()
    assert not list(paths.staging(shared.settings, SITE).glob("[0-9a-f]*"))


def _circular(path: Path) -> bool:
    try:
        path.stat()
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


@MANY
@given(data=st.binary(max_size=3000), head=st.sampled_from([b"", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"PK\x03\x04"]))
def test_any_bytes_are_an_answer(shared: Place, data: bytes, head: bytes) -> None:
    with opened(head + data) as fd, pytest.raises(AlveoleError) as caught:
        shared.releases.import_release(SITE, 1, fd)
    assert isinstance(caught.value, InvalidInput), caught.value
