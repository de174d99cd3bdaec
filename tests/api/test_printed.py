"""What programs print is read to their end, whatever a child of theirs holds and prints later."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from doorkit import LocalSession, until

from alveole.agent import protocol
from alveole.errors import Refused
from alveole.printed import read_out


def started(place: Path, script: str) -> LocalSession:
    argv = ("/bin/sh", "-c", script)
    return LocalSession(
        protocol.Visit(site="a", number=1, base="host", release=None, generation=1, volumes=(), argv=argv, tty=False),
        place,
    )


@pytest.mark.parametrize("held", [">/dev/null", ""], ids=["errors", "both"])
def test_a_child_that_lives_on_reads_nothing_of_what_is_opened_next(tmp_path: Path, held: str) -> None:
    """Its late words go nowhere: no file that takes the number of the closed one loses a byte to them."""
    go, wrote = tmp_path / "go", tmp_path / "wrote"
    late = f"(trap '' PIPE; while ! test -e {go}; do sleep 0.1; done; echo late >&2; echo late; : > {wrote}) {held} &"
    program = started(tmp_path / "w", f"{late} echo words >&2; echo text")
    before = set(threading.enumerate())
    made: list[tuple[int, int]] = []
    try:
        printed = read_out(program, most=100)
        assert (printed.status, printed.text, printed.complaint) == (0, b"text\n", "words")
        for _ in range(8):
            reader, writer = os.pipe2(os.O_CLOEXEC)
            made.append((reader, writer))
            os.write(writer, b"ours")
            os.set_blocking(reader, False)
        assert set(program.fds) & {each for pair in made for each in pair}, "no number was used again"
        go.touch()
        until(wrote.exists, 60)
        for thread in set(threading.enumerate()) - before:
            thread.join(10)
            assert not thread.is_alive(), thread
        assert [os.read(reader, 100) for reader, _ in made] == [b"ours"] * len(made)
    finally:
        go.touch()
        for pair in made:
            for each in pair:
                os.close(each)


def test_input_is_given_while_output_is_read(tmp_path: Path) -> None:
    """More than any pipe holds, both ways; and a program that does not want it is no error."""
    feed = os.urandom(1 << 20) * 3
    assert read_out(started(tmp_path / "w", "cat; cat >&2"), feed=feed, most=len(feed)).text == feed
    pieces: list[bytes] = []
    read_out(started(tmp_path / "w", "cat"), feed=feed, take=pieces.append)
    assert b"".join(pieces) == feed
    assert read_out(started(tmp_path / "w", "exec <&-; echo no; exit 3"), feed=feed, most=9)[:2] == (3, b"no\n")
    assert read_out(started(tmp_path / "w", "cat; head -c 100000 /dev/zero"), most=10).text == bytes(10)


def test_what_take_raises_ends_the_program(tmp_path: Path) -> None:
    program = started(tmp_path / "w", "echo one; exec sleep 600")

    def take(piece: bytes) -> None:
        raise Refused(f"too much: {piece.decode()}")

    with pytest.raises(Refused, match="too much: one"):
        read_out(program, take=take)
    assert program.wait() != 0
    for fd in program.fds:
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)
