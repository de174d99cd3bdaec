"""What control asks of the agent about log lines. Reading them it does itself: their files are its group's."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from alveole.model.names import Number, SiteId


class GatherLogs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="gather-logs"):
    """→ nothing. Brings in at once what else comes round by the clock: the machine's own lines."""


class AnalyseLogs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="analyse-logs"):
    """→ ``str``: what goaccess(1) makes of the lines that come out of the pipe that is sent along, as JSON.

    It runs as the site's own user, without network, and within limits; ``Temporary`` when it takes longer than
    ``seconds`` or is not installed.
    """

    site: SiteId
    number: Number
    seconds: Annotated[float, msgspec.Meta(gt=0, le=120)] = 30.0


LogRequest = GatherLogs | AnalyseLogs
LOG_RESULTS: dict[type, Any] = {GatherLogs: None, AnalyseLogs: str}
