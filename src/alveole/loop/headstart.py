"""A new static site's container starts while its content is still being unpacked.

The two do not need each other: only the route needs both. What was begun for a site whose content
turns out to be no good is taken away again by :func:`clear`, and so is what a killed control began.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from alveole.errors import AlveoleError
from alveole.journal import Live
from alveole.loop.compile import compile_site, has_storage, is_static
from alveole.loop.reconcile import Reconciler
from alveole.model.resource import Kind
from alveole.model.site import Site, Wanted

log = logging.getLogger("alveole.services")
_EARLY = frozenset({Kind.CERTIFICATE, Kind.WORKLOAD})
#: Each round carries out what the one before has made possible; a site has fewer kinds than this.
_ROUNDS = 6


def begin(loop: Reconciler, site: Site, live: Live) -> Callable[[], None]:
    """Start what needs no content, in a thread of its own; what is given waits for its end. Never raises."""
    if not is_static(site) or has_storage(site) or site.wanted is not Wanted.RUNNING or not loop.base_ready(site.base):
        return _nothing
    wanted = tuple(item for item in compile_site(site, loop.settings, loop.limits) if item.id.kind in _EARLY)

    def start() -> None:
        try:
            loop.advance(site.id, wanted, live)
        except AlveoleError as error:
            # The passes that follow the import try again, and say what is wrong.
            log.info("%s could not be started early: %s", site.name, error)
        except Exception:
            log.exception("%s could not be started early by a fault of ours", site.name)

    thread = threading.Thread(target=start, name=f"early-{site.name}", daemon=True)
    thread.start()
    return thread.join


def clear(loop: Reconciler, site: Site, live: Live) -> None:
    """Take away what runs of a site that is not to be. Raises ``Temporary`` when the agent is down."""
    for _round in range(_ROUNDS):
        if not loop.advance(site.id, (), live).steps:
            return


def _nothing() -> None:
    """There was nothing to begin."""
