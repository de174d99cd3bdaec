"""The command line. Imported at every start of ``alveole``, so it imports nothing itself."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the ``alveole`` program: runs one command and ends the process with its status."""
    if sys.argv[1:3] == ["serve", "--role"] and len(sys.argv) == 4:
        from alveole.cli.role import run_role as run
    else:
        from alveole.cli.tree import run
    raise SystemExit(run())
