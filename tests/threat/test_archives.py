"""Threat 8: hostile archives. Each is refused by the name of what is wrong, and nothing of it is kept."""

from __future__ import annotations

import gzip
import io
import struct
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest
import zstandard

sys.path.insert(0, str(Path(__file__).parents[1] / "content"))
from contentkit import SITE, Place, opened, packed, place, tar, zipped

from alveole.errors import AlveoleError, InvalidInput

__all__ = ["place"]
pytestmark = pytest.mark.root
GOOD = ("index.html", "f", b"x")
OUT = "../" * 12

HOSTILE = {
    "dots": ([(f"{OUT}canary", "f", b"bad")], "leads out"),
    "dots-inside": ([("a/../../canary", "f", b"bad")], "leads out"),
    "absolute": ([("/tmp/canary", "f", b"bad")], "absolute name"),
    "link-absolute": ([("x", "l", "/etc/passwd")], "leads out, to '/etc/passwd'"),
    "link-out": ([("x", "l", f"{OUT}etc/passwd")], "leads out of the archive"),
    "link-out-one": ([("d/x", "l", "../../y")], "leads out of the archive"),
    "link-then-through": ([("x", "l", "d"), ("x/y", "f", b"")], "'x', a link, as a directory"),
    "file-then-through": ([("x", "f", b""), ("x/y", "f", b"")], "'x', a file, as a directory"),
    "links-that-add-up": (
        # Each alone stays inside by its text; together they climb (CVE-2025-4517).
        [("a/b/c/d", "d", b""), ("up", "l", "a/b/c/d"), ("z", "l", "up/../../../../../out")],
        "'z' leads out",
    ),
    "twice": ([("a", "f", b"1"), ("a", "f", b"2")], "'a' twice"),
    "twice-by-dots": ([("a", "f", b"1"), ("./a", "f", b"2")], "'a' twice"),
    "link-then-file": ([("a", "l", "b"), ("a", "f", b"2")], "'a' twice"),
    "setuid": ([("a", "f", b"1", {"mode": 0o4755})], "setuid"),
    "setgid": ([("a", "f", b"1", {"mode": 0o2755})], "setuid or setgid"),
    "control": ([("a\x1b[31mb", "f", b"1")], "control character"),
    "newline": ([("a\nb", "f", b"1")], "control character"),
    "device": ([("a", "c", b"")], "is a device"),
    "pipe": ([("a", "p", b"")], "named pipe"),
    "deep": ([("/".join("d" * 65), "f", b"")], "deeper than 64"),
    "long": ([("x" * 256, "f", b"")], "too long"),
}
ONLY_TAR = {
    "hard-link-out": ([("a", "h", f"{OUT}etc/passwd")], "leads out"),
    "hard-link-absolute": ([("a", "h", "/etc/passwd")], "absolute"),
    "hard-link-to-link": ([("l", "l", "t"), ("a", "h", "l")], "no file before it"),
    "hard-link-before": ([("a", "h", "b"), ("b", "f", b"")], "no file before it"),
    "top-as-file": ([("./", "f", b"")], "."),
}


def refused(place: Place, data: bytes, word: str) -> None:
    with opened(data) as fd, pytest.raises(InvalidInput) as caught:
        place.releases.import_release(SITE, 1, fd)
    assert word in str(caught.value), str(caught.value)
    assert "\x1b" not in str(caught.value) and "\n" not in str(caught.value)
    assert place.nothing_kept()
    assert place.canary_intact()


@pytest.mark.parametrize("format", ["tar", "tar.gz", "tar.zst", "zip"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_member_is_refused_by_name(place: Place, name: str, format: str) -> None:
    made, word = HOSTILE[name]
    if format == "zip" and name in ("control", "newline"):
        word = "control character"
    refused(place, packed([GOOD, *made], format), word)


@pytest.mark.parametrize("name", [name for name in ONLY_TAR if name != "top-as-file"])
def test_a_hostile_hard_link_is_refused(place: Place, name: str) -> None:
    made, word = ONLY_TAR[name]
    refused(place, tar([GOOD, *made]), word)


def test_names_that_are_not_utf8(place: Place) -> None:
    refused(place, tar([GOOD, ("a\udcff", "f", b"")], errors="surrogateescape", encoding="utf-8"), "not UTF-8")
    data = zipped([("abcd", "f", b"")]).replace(b"abcd", b"ab\xff\xfe")
    refused(place, data, "not UTF-8")


def test_a_name_with_a_nul_byte_is_not_cut(place: Place) -> None:
    refused(place, zipped([("a.html.php", "f", b"x")]).replace(b"a.html.php", b"a.html\0php"), "control character")


def test_backslashes_in_a_zip(place: Place) -> None:
    refused(place, zipped([("..\\canary", "f", b"x")]), "backslash")


def test_sparse_files(place: Place) -> None:
    """A sparse member of a few bytes could claim any size."""
    info = tarfile.TarInfo("huge")
    info.type = tarfile.GNUTYPE_SPARSE
    refused(place, info.tobuf(tarfile.GNU_FORMAT) + bytes(1024), "sparse")
    info = tarfile.TarInfo("huge")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 40)}
    refused(place, info.tobuf(tarfile.PAX_FORMAT) + bytes(1024), "sparse")


def test_sizes_that_lie(place: Place) -> None:
    info = tarfile.TarInfo("a")
    info.size = 1 << 40
    refused(place, info.tobuf(tarfile.GNU_FORMAT) + bytes(1024), "is larger than")
    info.size = 1 << 20
    refused(place, info.tobuf() + bytes(1024), "is cut")
    block = bytearray(tarfile.TarInfo("a").tobuf())
    block[124:136] = b"\xff" * 12
    refused(place, _summed(block) + bytes(1024), "")


def _summed(block: bytearray) -> bytes:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def test_extended_headers_that_lie(place: Place) -> None:
    for records in (b"99 path=x\n", b"x", b"0 path=x\n", b"11 path=abcd", b"-5 path=x\n", b"9999999999999999999 a=b\n"):
        info = tarfile.TarInfo("PaxHeader")
        info.type, info.size = tarfile.XHDTYPE, len(records)
        data = info.tobuf() + records.ljust(512, b"\0") + tarfile.TarInfo("a").tobuf() + bytes(1024)
        refused(place, data, "extended header")
    info.size = 1 << 30
    refused(place, info.tobuf() + bytes(1024), "extended header")
    info = tarfile.TarInfo("x")
    info.pax_headers = {"path": f"{OUT}canary"}
    refused(place, info.tobuf(tarfile.PAX_FORMAT) + bytes(1024), "leads out")


@pytest.mark.parametrize("format", ["tar.gz", "tar.zst", "zip"])
def test_a_bomb_is_refused_early(place: Place, format: str) -> None:
    """A few kilobytes that become gigabytes: refused by the ratio, long before the ceiling on bytes."""
    small = Place(ratio=100)
    try:
        refused(small, packed([("zeros", "f", bytes(200 << 20))], format), "100 times")
    finally:
        small.close()


def test_a_bomb_of_zstd_blocks_does_not_fill_the_memory(place: Place) -> None:
    """One compressed block of four bytes stands for 128 KiB (RLE), and a window may claim gigabytes."""
    header = b"\x28\xb5\x2f\xfd" + bytes([0x00, 0x58])
    block = ((128 * 1024) << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    refused(place, header + block * 50_000, "times")
    params = zstandard.ZstdCompressionParameters(window_log=30, compression_level=1)
    huge = zstandard.ZstdCompressor(compression_params=params).compress(tar([GOOD]))
    frame = bytearray(huge)
    # A frame without its content size says how large a window it wants: 2 GiB.
    frame[4:6] = bytes([0x00, 0xA8])
    refused(place, bytes(frame), "damaged")


def test_ceilings(place: Place) -> None:
    small = Place(bytes=1000, files=5)
    try:
        refused(small, tar([("a", "f", bytes(600)), ("b", "f", bytes(600))]), "larger than 1000 bytes at 'b'")
        refused(small, tar([(str(n), "f", b"") for n in range(6)]), "more than 5 files")
        refused(small, tar([(f"{n}/x", "f", b"") for n in range(3)]), "more than 5 files")
        refused(small, zipped([(str(n), "f", b"") for n in range(2000)]), "more than 5 files")
        refused(small, zipped([("a", "f", bytes(1001))]), "larger than")
    finally:
        small.close()


def test_a_zip_that_says_its_bomb_is_small(place: Place) -> None:
    """The sizes in the directory of a zip are claims; what comes out is cut at them and the checksum told."""
    data = bytearray(zipped([("a", "f", bytes(50 << 20))]))
    for at in (data.find(b"PK\x03\x04") + 22, data.find(b"PK\x01\x02") + 24):
        data[at : at + 4] = struct.pack("<I", 1000)
    refused(place, bytes(data), "")


def test_members_of_a_zip_that_overlap(place: Place) -> None:
    """One compressed part named by a thousand members (Fifield 2019): counted as often as it comes out."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("kernel", bytes(1 << 20))
        info = archive.infolist()[0]
        for number in range(1000):
            again = zipfile.ZipInfo(f"{number:06d}")
            again.compress_type, again.CRC = info.compress_type, info.CRC
            again.compress_size, again.file_size, again.header_offset = info.compress_size, info.file_size, 0
            archive.filelist.append(again)
            archive.NameToInfo[again.filename] = again
    refused(place, out.getvalue(), "")


def test_a_zip_with_a_password_or_a_strange_method(place: Place) -> None:
    data = bytearray(zipped([GOOD]))
    for at in (data.find(b"PK\x03\x04") + 6, data.find(b"PK\x01\x02") + 8):
        data[at] |= 1
    refused(place, bytes(data), "password")
    data = bytearray(zipped([GOOD]))
    for at in (data.find(b"PK\x03\x04") + 8, data.find(b"PK\x01\x02") + 10):
        data[at] = 99
    refused(place, bytes(data), "")


@pytest.mark.parametrize("format", ["tar", "tar.gz", "tar.zst", "zip"])
def test_a_cut_archive_is_refused(place: Place, format: str) -> None:
    """Faults 14 and 16: an upload that was cut is never half a site."""
    made = [(f"d/{number}", "f", bytes([number]) * 3000) for number in range(20)]
    data = packed(made, format)
    # Of a plain tar, the filling after the end mark may be missing.
    end = len(data) if format != "tar" else 20 * (512 + 3072) + 512
    for cut in sorted({1, 100, 511, 512, 513, end // 3, end // 2, end - 9, end - 1} & set(range(end))):
        with opened(data[:cut]) as fd, pytest.raises(InvalidInput):
            place.releases.import_release(SITE, 1, fd)
        assert place.nothing_kept(), cut


@pytest.mark.parametrize("format", ["tar.gz", "tar.zst", "zip"])
def test_a_flipped_bit_is_noticed_or_changes_nothing(place: Place, format: str) -> None:
    """Fault 14."""
    made = [(f"d/{number}", "f", bytes([number]) * 500 + b"text of it") for number in range(10)]
    data = packed(made, format)
    with opened(data) as fd:
        right = place.releases.import_release(SITE, 1, fd)
    for at in range(0, len(data), max(1, len(data) // 60)):
        spoilt = bytearray(data)
        spoilt[at] ^= 1 << at % 8
        with opened(bytes(spoilt)) as fd:
            try:
                found = place.releases.import_release(SITE, 1, fd)
            except AlveoleError as error:
                assert isinstance(error, InvalidInput), (at, error)
            else:
                # A bit that stands for nothing (a time, a comment), or a name: content is under a checksum.
                assert found.bytes == right.bytes, at


def test_a_damaged_header_in_the_middle_is_not_the_end(place: Place) -> None:
    """Fault 14: the standard library's reader ends silently there and would give half a site."""
    data = bytearray(tar([("a", "f", b"1"), ("b", "f", b"2"), ("c", "f", b"3")]))
    data[1024 + 5] ^= 1
    refused(place, bytes(data), "checksum of a header")


def test_the_checksum_at_the_end_counts(place: Place) -> None:
    data = bytearray(gzip.compress(tar([GOOD])))
    data[-8] ^= 1
    refused(place, bytes(data), "damaged")
    spoilt = zlib.compressobj(wbits=31)
    refused(place, spoilt.compress(tar([GOOD])) + spoilt.flush() + b"and more", "damaged")
