"""The care of bases: damage is found and mended, updates become another base beside the old one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from contentkit import Place, oci, opened, tar

sys.path.insert(0, str(Path(__file__).parents[1]))
from alveole.actuators.basecare import BaseCare
from alveole.actuators.bases import Bases
from alveole.actuators.debian import outcome
from alveole.config import Bases as BaseSettings
from alveole.errors import Refused
from alveole.host import bases, paths
from alveole.model.resource import PLATFORM, Action, BaseSpec, Kind, ResourceId, Step, stamp
from alveole.model.site import Base
from aptrepo import Repository

pytestmark = pytest.mark.root


def step(base: Base, action: Action) -> Step:
    return Step(ResourceId(Kind.BASE, PLATFORM, base.key), action, stamp(BaseSpec(base)), BaseSpec(base))


def flip(file: Path) -> None:
    """One bit, as rust on a disk does it: the time stays."""
    info = file.stat()
    with file.open("r+b") as opened_:
        opened_.seek(info.st_size // 2)
        byte = opened_.read(1)[0]
        opened_.seek(info.st_size // 2)
        opened_.write(bytes([byte ^ 1]))
    os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))


def care_of(place: Place) -> tuple[BaseCare, list[str]]:
    told: list[str] = []
    return BaseCare(place.settings, place.sandbox, place.bases, lambda: told.append("told")), told


def test_a_flipped_bit_of_the_hosts_base_is_found_and_mended(place: Place) -> None:
    """Fault 14: noticed though size and time are as before, named, told, set aside, made anew."""
    care, told = care_of(place)
    base = place.bases.resolve("host")
    place.bases.build(base)
    assert care.verify(base.key).damage == "" and care.list()[0].verified_at is not None
    flip(paths.base_root(place.settings, base.key) / "etc/alveole/nginx.conf")
    assert place.bases.observe().found[0].ready, "a glance does not see it"
    state = care.verify(base.key)
    assert state.damage == "/etc/alveole/nginx.conf is not as it was made" and told == ["told"]
    (seen,) = place.bases.observe().found
    assert not seen.ready and "nginx.conf" in seen.defects[0].cause
    began = paths.base(place.settings, base.key).stat().st_mtime - 5
    place.bases.running = lambda: [(base.key, began)]
    assert place.bases.apply(step(base, Action.REPAIR)).done
    assert place.bases.observe().found[0].ready and care.verify(base.key).damage == ""
    # What ran goes on with the files it has, and is known to.
    assert care.list()[0].set_aside_at is not None and list(paths.bases(place.settings).glob(".aside.*"))
    place.bases.running = tuple
    place.bases.recover()
    assert not list(paths.bases(place.settings).glob(".*")) and care.list()[0].set_aside_at is None


@pytest.mark.parametrize("what", ["gone", "added", "mode", "link", "manifest"])
def test_every_kind_of_damage_is_named(place: Place, what: str) -> None:
    """Fault 14."""
    care, _ = care_of(place)
    base = place.bases.resolve("host")
    place.bases.build(base)
    root = paths.base_root(place.settings, base.key)
    if what == "gone":
        (root / "etc/passwd").unlink()
    elif what == "added":
        (root / "etc/new").touch()
    elif what == "mode":
        (root / "etc/passwd").chmod(0o666)
    elif what == "link":
        (root / "bin").unlink()
        (root / "bin").symlink_to("usr/sbin")
    else:
        flip(paths.base_manifest(place.settings, base.key))
    expected = {
        "gone": "/etc/passwd is gone",
        "added": "/etc/new was added",
        "mode": "/etc/passwd is not as it was made",
        "link": "/bin is not as it was made",
        "manifest": "the list of its files is not as it was written",
    }
    assert care.verify(base.key).damage == expected[what]


def test_a_damaged_image_asks_to_be_imported_again(place: Place) -> None:
    """Fault 14: an image cannot be made anew here."""
    care, _ = care_of(place)
    archive = oci([tar([("etc", "d", None), ("etc/os-release", "f", b"x" * 5000), ("bin", "d", None)])])
    with opened(archive) as fd:
        image = place.images.import_image(fd)
    flip(paths.base_root(place.settings, image.base.key) / "etc/os-release")
    assert "os-release" in care.verify(image.base.key).damage
    outcome = place.bases.apply(step(image.base, Action.REPAIR))
    assert not outcome.done and not outcome.temporary and "import it again" in outcome.message
    with opened(archive) as fd:
        assert place.images.import_image(fd).base == image.base
    assert place.bases.observe().found[0].ready and care.verify(image.base.key).damage == ""


def test_each_base_is_compared_in_its_turn_and_not_too_fast(place: Place) -> None:
    care, told = care_of(place)
    base = place.bases.resolve("host")
    place.bases.build(base)
    assert care.verify_due() == 1 and care.verify_due() == 0
    flip(paths.base_root(place.settings, base.key) / "etc/passwd")
    assert care.verify_due() == 0
    os.utime(paths.base_verified(place.settings, base.key), (0, 0))
    assert care.verify_due() == 1 and told == ["told"]


@pytest.fixture(scope="module")
def stocked() -> Iterator[tuple[Place, Repository]]:
    """A place with a repository of its own and a common base."""
    made = Place()
    repository = Repository(made.path / "repository")
    made.settings = msgspec.structs.replace(made.settings, bases=BaseSettings(sources=(str(repository.source),)))
    made.bases = Bases(made.settings, made.sandbox)
    try:
        made.have_common()
        yield made, repository
    finally:
        made.close()


@pytest.mark.slow
@pytest.mark.turn
def test_a_renewed_base_stands_beside_the_old_one(stocked: tuple[Place, Repository]) -> None:
    place, repository = stocked
    care, _ = care_of(place)
    repository.add("hello-test", "1", {"/usr/bin/hello-test": "#!/bin/sh\necho one\n"})
    base = place.bases.resolve("debian", ["hello-test"])
    place.bases.build(base)
    assert care.renew(base.key).base == base and care.check(base.key) == ()
    repository.add("hello-test", "2", {"/usr/bin/hello-test": "#!/bin/sh\necho two\n"})
    (change,) = care.check(base.key)
    assert (change.name, change.before, change.after, change.security) == ("hello-test", "1", "2", False)
    assert care.list(base.key)[0].updates == (change,) and care.list(base.key)[0].installed["hello-test"] == "1"
    shares: list[float] = []
    renewed = care.renew(base.key, lambda text, share=None: shares.append(share) if share is not None else None)
    assert renewed.base.key != base.key and renewed.base.packages == base.packages and renewed.changes == (change,)
    assert len(shares) > 5 and shares == sorted(shares)
    for each, word in ((base, "one"), (renewed.base, "two")):
        tree = bases.find(bases.trees(place.settings, each.key), "usr/bin/hello-test")
        assert word in tree.read_text()
    again = care.renew(base.key)
    assert again.base == renewed.base, "cut and asked again, it is the same"
    assert care.renew(renewed.base.key).changes == () and care.list(renewed.base.key)[0].updates == ()
    place.bases.drop(renewed.base.key)
    place.bases.drop(base.key)


@pytest.mark.slow
@pytest.mark.turn
def test_a_damaged_set_is_made_anew_with_what_it_had(stocked: tuple[Place, Repository]) -> None:
    """Fault 14: the same versions where they can be had; what cannot is said."""
    place, repository = stocked
    care, _ = care_of(place)
    repository.add("rust-test", "1", {"/usr/bin/rust-test": "#!/bin/sh\necho one, and some more words\n"})
    base = place.bases.resolve("debian", ["rust-test"])
    place.bases.build(base)
    flip(paths.base_root(place.settings, base.key) / "usr/bin/rust-test")
    assert "/usr/bin/rust-test" in care.verify(base.key).damage
    outcome = place.bases.apply(step(base, Action.REPAIR))
    assert outcome.done and outcome.message == "made anew with the same packages", outcome
    assert care.verify(base.key).damage == ""
    # Rust in what it leans on: that is made anew, and a layer that still fits stays.
    record = bases.read_record(place.settings, base.key)
    flip(paths.base_root(place.settings, record.lower) / "usr/bin/bash")
    assert f"the base it leans on, {record.lower}: /usr/bin/bash" in care.verify(base.key).damage
    outcome = place.bases.apply(step(base, Action.REPAIR))
    assert outcome.done and "the same packages" in outcome.message
    assert care.verify(base.key).damage == "" and bases.read_record(place.settings, base.key) == record
    repository.add("rust-test", "2", {"/usr/bin/rust-test": "#!/bin/sh\necho two, and some more words\n"})
    for file in (paths.apt_cache(place.settings) / "archives").glob("rust-test*"):
        file.unlink()
    (paths.apt_cache(place.settings) / "fetched").unlink()
    flip(paths.base_root(place.settings, base.key) / "usr/bin/rust-test")
    care.verify(base.key)
    outcome = place.bases.apply(step(base, Action.REPAIR))
    assert outcome.done and "rust-test 1 → 2" in outcome.message
    assert not list(paths.bases(place.settings).glob(".*"))


def lower_of(place: Place, base: Base) -> str:
    return bases.read_record(place.settings, base.key).lower


@pytest.mark.slow
@pytest.mark.turn
def test_a_set_lies_over_the_nearest_there_is(stocked: tuple[Place, Repository], monkeypatch: Any) -> None:
    """Issue 3: what is there is built upon, and what comes out is what would have come without it."""
    place, repository = stocked
    care, _ = care_of(place)
    for name in ("one-test", "two-test"):
        repository.add(name, "1", {f"/usr/bin/{name}": f"#!/bin/sh\necho {name}, and some more words\n"})
    (paths.apt_cache(place.settings) / "fetched").unlink(missing_ok=True)
    common = place.bases.resolve("debian")
    one, both = (place.bases.resolve("debian", names) for names in (["one-test"], ["one-test", "two-test"]))
    for base in (one, both):
        place.bases.build(base)
        with place.bases._cache.workplace() as apt:
            wanted = outcome(apt, bases.trees(place.settings, common.key), base.packages)
        assert place.bases.packages(base.key) == wanted
    assert lower_of(place, one) == common.key and lower_of(place, both) == one.key
    larger = msgspec.structs.replace(both, key="debian-0", packages=(*both.packages, "tree"))
    for depth, those in ((bases.DEPTH, {common.key, one.key, both.key}), (3, {common.key, one.key})):
        monkeypatch.setattr(bases, "DEPTH", depth)
        with place.bases.lowers_of(larger, bases.read_record(place.settings, common.key)) as lowers:
            assert {each.base.key for each in lowers} == those
            with pytest.raises(Refused, match="one that is being built"):
                place.bases.drop(one.key)
    monkeypatch.undo()
    with pytest.raises(Refused, match=both.key):
        place.bases.drop(one.key)
    # What is in the middle is mended where it is.
    record = bases.read_record(place.settings, both.key)
    flip(paths.base_root(place.settings, one.key) / "usr/bin/one-test")
    assert f"the base it leans on, {one.key}: /usr/bin/one-test" in care.verify(both.key).damage
    assert place.bases.apply(step(both, Action.REPAIR)).done
    assert care.verify(both.key).damage == "" and bases.read_record(place.settings, both.key) == record
    assert len(bases.trees(place.settings, both.key)) == 3
    # Nothing new lies over what is old.
    repository.add("one-test", "2", {"/usr/bin/one-test": "#!/bin/sh\necho 2\n"})
    first = care.renew(one.key).base
    renewed = care.renew(both.key).base
    assert lower_of(place, first) == common.key and lower_of(place, renewed) == first.key
    assert place.bases.packages(renewed.key)["one-test"] == "2"
    assert set(place.bases.layers_over(common.key)) >= {one.key, first.key, both.key, renewed.key}
    for base in (renewed, first, both, one):
        place.bases.drop(base.key)


@pytest.mark.slow
@pytest.mark.turn
def test_alternatives_are_chosen_as_without_a_nearer_set(stocked: tuple[Place, Repository]) -> None:
    """Issue 3: what is there does not change what ``a | b`` comes to; where ``a`` cannot be had, it is ``b``."""
    place, repository = stocked
    for name, depends in (
        ("first-test", ""),
        ("second-test", ""),
        ("either-test", "first-test | second-test"),
        ("wants-test", "second-test"),
        ("fallback-test", "absent-test | second-test"),
    ):
        repository.add(name, "1", {f"/usr/bin/{name}": "#!/bin/sh\n"}, depends)
    (paths.apt_cache(place.settings) / "fetched").unlink(missing_ok=True)
    common = place.bases.resolve("debian")
    sets = (["wants-test"], ["either-test", "wants-test"], ["fallback-test", "wants-test"])
    wants, either, fallback = made = [place.bases.resolve("debian", names) for names in sets]
    for base in made:
        place.bases.build(base)
        with place.bases._cache.workplace() as apt:
            assert place.bases.packages(base.key) == outcome(
                apt, bases.trees(place.settings, common.key), base.packages
            )
    # Over the set that has the second alternative apt would do without the first one.
    assert "first-test" in place.bases.packages(either.key) and lower_of(place, either) == common.key
    assert "second-test" in place.bases.packages(fallback.key) and lower_of(place, fallback) == wants.key
    for base in reversed(made):
        place.bases.drop(base.key)
