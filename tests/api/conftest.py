"""Fixtures of the API's tests."""

from __future__ import annotations

from doorkit import directory, door

__all__ = ["directory", "door"]
