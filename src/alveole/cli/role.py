"""``alveole serve --role NAME`` as it is started for good: without what reads and prints commands, some megabytes."""

from __future__ import annotations

import sys
from typing import cast, get_args

from alveole import app, config


def run_role() -> int:
    """Run the role that the command line names, and give the exit status as :func:`alveole.cli.tree.run` does."""
    name = sys.argv[3]
    try:
        if name in get_args(app.Role):
            app.serve(config.load(), cast("app.Role", name))
            return 0
    except Exception as error:
        from alveole.cli.tree import failed

        return failed(error, json=False)
    # What is wrong with it is said as of every command.
    from alveole.cli.tree import run

    return run()
