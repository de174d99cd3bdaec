"""Wait for a change, showing how it goes: a moving line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from alveole.cli.output import emit, note, paint, seconds, size
from alveole.errors import AlveoleError, Problem, StepFailed, Temporary, from_code
from alveole.text import clean

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from alveole.cli.verbs import Here
    from alveole.remote.apiclient import Answer

#: What ends sooner is not drawn: importing rich would take longer than the work.
_DRAW_AFTER = 0.3
#: How long a change is looked for when control went away meanwhile: it is being started again.
_LOST_SECONDS = 60.0


class Show:
    """Progress on standard error. A context manager; safe to call from one thread."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._text = title
        self._share: float | None = None
        self._said = ""
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._moving = sys.stderr.isatty()

    def __enter__(self) -> Show:
        if self._moving:
            self._timer = threading.Timer(_DRAW_AFTER, self._draw)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            self._moving = False
            if self._progress is not None:
                self._progress.stop()
                self._progress = None

    def now(self, text: str, share: float | None = None) -> None:
        """What is going on at this moment; not kept on a terminal."""
        text = clean(text)
        with self._lock:
            self._text, self._share = text, share
            if self._progress is not None and self._task is not None:
                self._progress.update(
                    self._task,
                    description=_plain(text),
                    total=1.0 if share is not None else None,
                    completed=share or 0.0,
                )
        if not self._moving and share is None and text != self._said:
            self._said = text
            note(f"  {text}")

    def fact(self, text: str, level: str) -> None:
        """Something that happened; warnings and errors stay on the screen.

        What a build has printed was progress while it did; the journal has it (``alveole change show``).
        """
        if level == "build":
            return
        if level in ("warning", "error") and self._moving:
            line = f"  {paint(clean(text), 'yellow' if level == 'warning' else 'red', sys.stderr)}"
            with self._lock:
                if self._progress is not None:
                    self._progress.console.print(_plain(clean(text)), style="yellow", markup=False, highlight=False)
                    return
            note(line)
        else:
            self.now(text)

    def _draw(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        console: Console = Console(stderr=True, highlight=False)
        with self._lock:
            if not self._moving:
                return
            self._progress = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=20),
                TimeElapsedColumn(),
                console=console,
                transient=True,
            )
            share = self._share
            self._task = self._progress.add_task(
                _plain(self._text), total=1.0 if share is not None else None, completed=int(share or 0)
            )
            self._progress.start()


def _plain(text: str) -> str:
    """One line of at most 56 characters, so that the bar beside it fits in 80 columns."""
    return text if len(text) <= 56 else text[:55] + "…"


def counted(blocks: Iterable[bytes], show: Show, what: str, total: int | None) -> Iterator[bytes]:
    """Pass ``blocks`` on and show how many bytes went."""
    done = 0
    told = 0.0
    for block in blocks:
        yield block
        done += len(block)
        now = time.monotonic()
        if now - told > 0.1:
            told = now
            of = f" of {size(total)}" if total else ""
            show.now(f"{what}: {size(done)}{of}", done / total if total else 0.0)


def finish(
    here: Here,
    change: dict[str, Any],
    done: Callable[[dict[str, Any]], object],
    document: Callable[[dict[str, Any]], Any] | None = None,
) -> None:
    """End a command that began ``change``.

    With ``--no-wait`` the change is the answer. Else it is followed to its end; then ``done`` says it
    to a person and ``document`` gives what ``--json`` prints (default: the change). Raises the error of
    a change that failed.
    """
    if not here.wait:
        if here.json:
            emit(change)
        else:
            from alveole.cli.output import say

            say(f"{change['id']}  {change['verb']} of {change.get('site_name') or '-'} is under way")
            note(f"Follow it with: alveole change follow {change['id']}")
        return
    ended = follow(here, change, change.get("site_name") or "")
    check(ended)
    if here.json:
        emit(document(ended) if document else ended)
    else:
        done(ended)


def follow(here: Here, change: dict[str, Any], name: str = "") -> dict[str, Any]:
    """The ended change. Goes on when control is started anew meanwhile; ``Temporary`` when it stays away."""
    if change.get("ended_at") is not None:
        return change
    identity = str(change["id"])
    title = f"{change['verb']} {name}".strip()
    lost_at: float | None = None
    seen: set[tuple[float, str]] = set()
    try:
        with Show(title) as show:
            while True:
                try:
                    for kind, document in _events(here, identity):
                        lost_at = None
                        if kind == "change":
                            return document
                        if kind == "progress":
                            show.now(str(document["text"]), document.get("seconds"))
                        elif (key := (document["at"], document["text"])) not in seen:
                            seen.add(key)
                            show.fact(str(document["text"]), str(document.get("level", "info")))
                    found: dict[str, Any] = here.client.get(f"/v1/changes/{identity}")
                    if found.get("ended_at") is not None:
                        return found
                except Temporary:
                    lost_at = lost_at or time.monotonic()
                    if time.monotonic() - lost_at > _LOST_SECONDS:
                        raise
                    show.now("Alvéole went away; waiting for it")
                time.sleep(0.2)
    except KeyboardInterrupt:
        note(f"\nIt goes on without you. Look with: alveole change follow {identity}")
        raise


def _events(here: Here, identity: str) -> Iterator[tuple[str, dict[str, Any]]]:
    answer: Answer
    # The server says something at least every 15 s.
    with here.client.open("GET", f"/v1/changes/{identity}/events", patience=60.0) as answer:
        kind = "event"
        for line in answer.lines():
            if line.startswith("event: "):
                kind = line[7:]
            elif line.startswith("data: "):
                with contextlib.suppress(msgspec.DecodeError):
                    yield kind, msgspec.json.decode(line[6:])


def check(change: dict[str, Any]) -> None:
    """Raise the error that a failed change ended with."""
    if change["state"] != "failed":
        return
    problems = [
        Problem(str(item.get("field", "")), str(item.get("message", "")), str(item.get("hint", "")))
        for item in change.get("problems", ())
    ]
    code = str((change.get("result") or {}).get("code") or StepFailed.code)
    hint = f"alveole change show {change['id']} has every step"
    if not problems:
        problems = [Problem("", f"{change['verb']} failed", hint)]
    error: AlveoleError = from_code(code, problems)
    raise error


def took(change: dict[str, Any]) -> str:
    """`` in 1.2 s``, or nothing."""
    started, ended = change.get("started_at"), change.get("ended_at")
    return f" in {seconds(max(0.0, ended - started))}" if started and ended else ""
