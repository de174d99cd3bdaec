"""PURE. What a scenario is, and what running one has shown. Unknown keys are refused."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any

import msgspec

from alveole.views import CheckState, View

#: Ceilings; ``reading`` refuses what is beyond.
TEXT_MAX = 64 * 1024
STEPS_MAX = 50
SECONDS_MAX = 60.0
EVERY_MIN = 30.0
EVERY_MAX = 7 * 86_400.0
#: How much of an answer is read, and how much of it is kept as evidence when a step fails.
ANSWER_MAX = 1024 * 1024
EVIDENCE_MAX = 2048
NAME = r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z"
_DURATION = re.compile(r"^(\d{1,9}(?:\.\d{1,3})?)\s*(ms|s|m|h|d|)\Z")
_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}

Word = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]


class Use(StrEnum):
    GATE = "gate"
    """Before the switch to a new version: it must pass."""
    VERIFY = "verify"
    """After the switch."""
    MONITOR = "monitor"
    """In between, as often as ``every`` says."""


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    pass


class Expect(_Strict, frozen=True, kw_only=True):
    """What must come. All of it is looked at, so that a report names everything that is wrong."""

    status: int | tuple[int, ...] = ()
    """One or several; left out: 200 to 299."""
    text: str | tuple[str, ...] = ()
    """What must stand in the body."""
    absent: str | tuple[str, ...] = ()
    """What must not."""
    regex: str | tuple[str, ...] = ()
    """RE2 expressions that must be found in the body."""
    json: dict[str, Any] = {}
    """A path into a JSON body (``user.names[0]``), and what must be there."""
    header: dict[str, str] = {}
    """A header, and what must stand in it; empty: it must be there."""
    within: str | float = ""
    """How long the answer may take, like ``500ms``; the step fails when it takes longer."""


class Capture(_Strict, frozen=True, kw_only=True):
    """Where a value comes from that later steps use as ``${name}``; exactly one of these."""

    regex: str = ""
    """The first group of what it finds in the body, or all of it where there is none."""
    json: str = ""
    header: str = ""
    cookie: str = ""
    field: str = ""
    """A field of a form of the page."""


class Step(_Strict, frozen=True, kw_only=True):
    request: str
    """``GET /path``, or with a whole address: one of the site's own names, or a web service that an administrator has
    allowed (``outgoing.check_hosts``)."""
    name: str = ""
    headers: dict[str, str] = {}
    body: str = ""
    json: Any = None
    """A body of JSON."""
    form: dict[str, str] = {}
    """A body as a form sends it."""
    fill: bool = False
    """Begin with the fields of the form on the page before, hidden ones too; those of ``form`` come on top."""
    expect: Expect = Expect()
    capture: dict[Word, Capture] = {}


class Scenario(_Strict, frozen=True, kw_only=True):
    steps: Annotated[tuple[Step, ...], msgspec.Meta(min_length=1, max_length=STEPS_MAX)]
    title: str = ""
    every: str | float = ""
    """How often it is run to watch the site, like ``5m``; left out: only as gate and to verify."""
    after: Annotated[int, msgspec.Meta(ge=1, le=10)] = 2
    """How many runs in a row must fail until it is told."""
    timeout: str | float = "30s"
    """How long all of it may take."""
    use: tuple[Use, ...] = (Use.GATE, Use.VERIFY, Use.MONITOR)

    @property
    def every_seconds(self) -> float:
        """0: it is not run by itself."""
        return seconds(self.every) if self.every and Use.MONITOR in self.use else 0.0


def seconds(text: str | float) -> float:
    """``500ms``, ``30s``, ``5m``, ``2h``, ``1d`` or a number of seconds. Raises ``ValueError``."""
    if isinstance(text, int | float):
        return float(text)
    found = _DURATION.match(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not a duration like 500ms, 30s or 5m")
    return float(found[1]) * _UNITS[found[2]]


def words(value: str | tuple[str, ...]) -> tuple[str, ...]:
    """One or several, as several."""
    if isinstance(value, str):
        return (value,) if value else ()
    return value


# --- what came of it ----------------------------------------------------------------------------
class StepReport(View, frozen=True, kw_only=True):
    step: int
    """From 1 on."""
    name: str
    asked: str
    """Method and address."""
    ok: bool
    seconds: float
    status: int | None = None
    """Of the last answer; ``None``: none came."""
    redirects: tuple[str, ...] = ()
    """Where it was led on the site's own names."""
    problems: tuple[str, ...] = ()
    came: str = ""
    """Of a step that failed: status, headers and the beginning of the body. Secrets are hidden."""


class Report(View, frozen=True, kw_only=True):
    """One run of one scenario."""

    scenario: str
    site: str
    use: str
    """``gate``, ``verify``, ``monitor`` or ``hand``."""
    target: str
    """``public``: through the edge, as the outside sees it; ``slot 0``, ``slot 1``: an instance that is not live."""
    ok: bool
    at: float
    seconds: float
    steps: tuple[StepReport, ...]
    """Up to the first that failed."""
    problem: str = ""
    """The first thing that is wrong, in a sentence."""


class CheckRun(View, frozen=True, kw_only=True):
    at: float
    use: str
    ok: bool
    seconds: float
    problem: str
    report: Report | None
    """``None``: of a run that passed while watching only this is kept."""


class Going(View, frozen=True, kw_only=True):
    """A run that was begun by hand, as far as it has come."""

    id: str
    site: str
    at: float
    steps: dict[str, tuple[StepReport, ...]]
    """Those that have ended, by scenario; all of them are there from the beginning."""
    reports: tuple[Report, ...] = ()
    """Once all have ended."""
    ended: bool = False
    problem: str = ""
    """Why it ended without reports."""


class CheckDraft(View, frozen=True, kw_only=True):
    """A scenario made of what a browser has recorded; nothing is kept of it."""

    text: str
    secrets: tuple[str, ...]
    """Those that it names."""
    unfilled: tuple[str, ...] = ()
    """Of a visit that the proxy has seen: what somebody typed and nobody saw, to be filled in (``/login: user``)."""


class CheckView(View, frozen=True, kw_only=True):
    """A scenario of a site."""

    name: str
    site: str
    text: str
    """The YAML as it was given."""
    created_at: float
    created_by: str
    state: CheckState
    missing_secrets: tuple[str, ...]
    """Secrets that it names and that are not there."""
    runs: tuple[CheckRun, ...]
    """Newest first."""


class Request(msgspec.Struct, frozen=True):
    """One request of a visit, as far as the proxy's log tells of it and a recording needs it."""

    host: str
    method: str
    uri: str
    status: int
    referer: str = ""
