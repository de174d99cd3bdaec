"""``alveole site exec``: a program inside a site, with this terminal's input and output."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import termios
import threading
import tty as terminal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click
import msgspec

from alveole.cli.output import emit
from alveole.cli.show import path
from alveole.cli.verbs import Here, site_name, verb
from alveole.errors import AlveoleError, Problem, Temporary, from_code
from alveole.remote.apiclient import connect, pairs

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

STDIN, STDOUT, STDERR, CONTROL = range(4)
_BLOCK = 16 * 1024
#: Input that was sent and not yet taken. While ``websockets`` sends it does not read, so a send must
#: never block: were the program's output to fill the connection meanwhile, both sides would wait for ever.
_WINDOW = 64 * 1024


@verb(
    None,
    "exec",
    examples=[
        "alveole site exec blog -- ls -l /site/current",
        "alveole site exec hello -t -- sh",
        "echo 'SELECT 1' | alveole site exec hello -- sqlite3 /data/app.db",
    ],
    statuses="That of the program (128 + the signal that ended it); before it starts: 1 to 5 as everywhere",
)
@click.option("-t", "--tty/--no-tty", default=None, help="With a terminal. Default: when this is one.")
@click.option("--user", "uid", type=int, metavar="UID", help="As this user of the container; default its own.")
@site_name
@click.argument("argv", metavar="-- CMD…", nargs=-1, type=click.UNPROCESSED, required=True)
def exec_(here: Here, name: str, argv: tuple[str, ...], tty: bool | None, uid: int | None) -> int:
    """Run a program inside a running site.

    It runs as the site's own user, with its limits. With --json its output is collected and given
    with its exit status in one document.
    """
    if tty is None:
        tty = sys.stdin.isatty() and sys.stdout.isatty() and not here.json
    query: list[tuple[str, str]] = [("argv", word) for word in argv]
    if tty:
        query.append(("tty", "true"))
    if uid is not None:
        query.append(("uid", str(uid)))
    with _open(here, f"{path(name, 'exec')}?{pairs(query)}") as socket:
        if here.json:
            return _collect(socket)
        return _attach(socket, tty)


@contextlib.contextmanager
def _open(here: Here, target: str) -> Iterator[ClientConnection]:
    from websockets.exceptions import ConnectionClosed, InvalidStatus
    from websockets.sync.client import unix_connect

    connection = connect(here.settings.api_socket)
    try:
        with unix_connect(
            sock=connection, uri=f"ws://alveole{target}", compression=None, max_size=None, ping_interval=None
        ) as socket:
            yield socket
    except InvalidStatus as error:
        raise _refused(error.response.body, error.response.status_code) from error
    except ConnectionClosed as error:
        raise Temporary("the connection to Alvéole was cut", hint="the program was ended with it") from error
    finally:
        connection.close()


def _refused(body: bytes | bytearray | None, status: int = 503) -> AlveoleError:
    try:
        found = msgspec.json.decode(body or b"")
        return from_code(found["code"], [Problem(**item) for item in found["problems"]])
    except (msgspec.DecodeError, KeyError, TypeError):
        kind = Temporary if status == 503 else AlveoleError
        return kind(f"Alvéole did not open the session ({status})", hint="its log has the details")


class _Input:
    """Our standard input on its way to the program, in a thread of its own."""

    def __init__(self, socket: ClientConnection, tty: bool) -> None:
        self._socket = socket
        self._tty = tty
        self._under_way = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._pump, daemon=True).start()

    def taken(self, count: int) -> None:
        with self._changed:
            self._under_way -= count
            self._changed.notify()

    def _pump(self) -> None:
        from websockets.exceptions import ConnectionClosed

        with contextlib.suppress(ConnectionClosed, OSError, ValueError):
            while block := os.read(0, _BLOCK):
                with self._changed:
                    self._changed.wait_for(lambda: self._under_way < _WINDOW)
                    self._under_way += len(block)
                self._socket.send(bytes([STDIN]) + block)
            if not self._tty:
                _control(self._socket, eof=True)


def _carry(socket: ClientConnection, given: _Input | None, out: Callable[[int, bytes], None]) -> int:
    """Hand the program's output to ``out`` until it ends; its exit status. Raises what the API answers."""
    while True:
        message = socket.recv()
        if not isinstance(message, bytes) or not message:
            continue
        stream, content = message[0], message[1:]
        if stream in (STDOUT, STDERR):
            out(stream, content)
        elif stream == CONTROL:
            said: dict[str, Any] = msgspec.json.decode(content)
            if given is not None and "taken" in said:
                given.taken(int(said["taken"]))
            if "problem" in said:
                raise _refused(msgspec.json.encode(said["problem"]))
            if "exit" in said:
                return int(said["exit"])


def _collect(socket: ClientConnection) -> int:
    parts: dict[int, list[bytes]] = {STDOUT: [], STDERR: []}
    given = None
    if sys.stdin.isatty():
        _control(socket, eof=True)
    else:
        given = _Input(socket, False)
    status = _carry(socket, given, lambda stream, content: parts[stream].append(content))
    texts = {name: b"".join(parts[n]).decode("utf-8", "replace") for n, name in ((1, "stdout"), (2, "stderr"))}
    emit({"exit": status, **texts})
    return status


def _attach(socket: ClientConnection, tty: bool) -> int:
    with contextlib.ExitStack() as stack:
        if tty:
            _resize(socket)
            before = signal.signal(signal.SIGWINCH, lambda *_: _resize(socket))
            stack.callback(signal.signal, signal.SIGWINCH, before)
            old = termios.tcgetattr(0)
            stack.callback(termios.tcsetattr, 0, termios.TCSADRAIN, old)
            # Not TCSAFLUSH, the default: what was typed ahead is the program's.
            terminal.setraw(0, termios.TCSADRAIN)
        return _carry(socket, _Input(socket, tty), _write)


def _write(fd: int, content: bytes) -> None:
    # As it is, control characters too: this is the caller's own program, like ssh's.
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def _control(socket: ClientConnection, **message: Any) -> None:
    from websockets.exceptions import ConnectionClosed

    with contextlib.suppress(ConnectionClosed):
        socket.send(bytes([CONTROL]) + msgspec.json.encode(message))


def _resize(socket: ClientConnection) -> None:
    columns, rows = shutil.get_terminal_size()
    _control(socket, resize=[rows, columns])
