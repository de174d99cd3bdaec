"""What the file manager shows."""

from __future__ import annotations

from typing import Literal

from alveole.views import View


class FileEntry(View, frozen=True, kw_only=True):
    """Something in a folder. A ``link`` to a folder counts as ``folder``."""

    name: str
    kind: Literal["folder", "file", "link", "other"]
    bytes: int
    modified_at: float
    target: str = ""
    """Where a link leads."""
    odd: bool = False
    """Its name is no plain text: a page cannot name it, SFTP can."""


class FolderView(View, frozen=True, kw_only=True):
    """A folder as the file manager shows it: folders first, by name."""

    at: str
    entries: tuple[FileEntry, ...]
    more: bool
    """It holds more than are listed."""
    writable: bool


class TextFileView(View, frozen=True, kw_only=True):
    at: str
    text: str
    etag: str
    """Given back with the change; empty for a file that is not there yet."""
    bytes: int


class Unpacked(View, frozen=True, kw_only=True):
    files: int
    """How many the archive held."""
