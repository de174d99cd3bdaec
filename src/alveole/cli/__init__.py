"""The command line. Imported at every start of ``alveole``, so it imports nothing itself."""

from __future__ import annotations


def main() -> None:
    """Entry point of the ``alveole`` program: runs one command and ends the process with its status."""
    from alveole.cli.tree import run

    raise SystemExit(run())
