"""Requests about single files of a site's working copy and volumes. Paths are as in :class:`file_views.FolderView`:
relative to the working copy, or absolute inside the container."""

from __future__ import annotations

from alveole.requests import Body


class WriteText(Body, frozen=True, kw_only=True):
    text: str


class MakeFolder(Body, frozen=True, kw_only=True):
    at: str


class RenameFile(Body, frozen=True, kw_only=True):
    """What is at ``to`` already is never written over."""

    at: str
    to: str


class UnpackFile(Body, frozen=True, kw_only=True):
    """An archive (zip, tar, tar.gz, …), whose files come to stand beside it."""

    at: str
