"""The unprivileged process: opens the database, keeps the loop going, serves the API."""

from __future__ import annotations

import os
from collections.abc import Callable

from alveole import api, web
from alveole.agent.client import AgentClient
from alveole.config import Settings
from alveole.errors import Refused
from alveole.services import Services
from alveole.ssh.porter import Porter


def run_control(settings: Settings, ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT; ``ready`` is called once the API listens. Raises ``AlveoleError``."""
    if os.geteuid() == 0:
        raise Refused(
            "control does not run as root",
            hint=f"start it as the user {settings.users.control}, or use 'alveole serve'",
        )
    agent = AgentClient(settings.agent_socket)
    services = Services.open(settings, agent)
    porter = Porter(services, settings, agent)
    try:
        porter.start()
        api.run(api.build(services, settings, start=agent.exec, pages=web.install), settings, ready)
    finally:
        porter.close()
        services.close()
