"""The unprivileged process: opens the database, keeps the loop going, serves the API."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from alveole.config import Settings
from alveole.errors import Refused
from alveole.store import Store, is_current


def run_control(settings: Settings, ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT; ``ready`` is called once the API listens. Raises ``AlveoleError``."""
    if os.geteuid() == 0:
        raise Refused(
            "control does not run as root",
            hint=f"start it as the user {settings.users.control}, or use 'alveole serve'",
        )
    if not is_current(settings.database):
        Store(settings.database).close()
        # What migrating has loaded would stay in memory for as long as this process lives.
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  no shell is the point
    # Not before: a process that only migrates needs none of it.
    from alveole import api, web
    from alveole.agent.client import AgentClient
    from alveole.services import Services
    from alveole.ssh.porter import Porter
    from alveole.wakedoor import WakeDoor

    agent = AgentClient(settings.agent_socket)
    services = Services.open(settings, agent)
    porter = Porter(services, settings)
    wakes = WakeDoor(settings, services, services.admit_to_past_day)
    try:
        porter.start()
        wakes.start()
        api.run(api.build(services, settings, pages=web.install), settings, ready)
    finally:
        wakes.close()
        porter.close()
        services.close()
