"""The HTTP API: parses, authenticates and prints; every decision is in :mod:`alveole.services`."""

from __future__ import annotations

from alveole.api.build import build
from alveole.api.server import run

__all__ = ["build", "run"]
