"""PURE. Which sites may sleep, and after how long."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from alveole.model.site import Application, ResourcePlan, Run, Site, Wanted, WokenBy

#: Modules that work when nobody asks for a page, and what each would miss.
_WATCHFUL = {
    "cron": "its jobs run by the clock",
    "monit": "it watches over itself by the clock",
    "ngircd": "its users are connected all the time",
    "thelounge": "it stays connected to IRC for its users",
}


class Sleep(msgspec.Struct, frozen=True, kw_only=True):
    """Whether and when a site sleeps, for people and programs."""

    set: int | None = None
    """Seconds without a visit that it says itself; 0: never, ``null``: as its plan says."""
    after: int = 0
    """Seconds that hold: its own, or its plan's; 0: it never sleeps."""
    why_not: str = ""
    """Why it cannot sleep, whatever is set."""
    woken_by: WokenBy = WokenBy.PEOPLE
    since: float | None = None
    """When it fell asleep (seconds since the epoch); ``null``: it does not sleep."""


def sleep_of(site: Site, plans: Mapping[str, ResourcePlan]) -> Sleep:
    return Sleep(
        set=site.sleep_after,
        after=sleeps_after(site, plans),
        why_not=why_awake(site),
        woken_by=site.woken_by,
        since=site.asleep if is_asleep(site) else None,
    )


def sleeps_after(site: Site, plans: Mapping[str, ResourcePlan]) -> int:
    """Seconds without a visit after which ``site`` is to sleep; 0: never."""
    if why_awake(site):
        return 0
    if site.sleep_after is not None:
        return site.sleep_after
    plan = plans.get(site.plan)
    return plan.sleep_after if plan is not None else 0


def why_awake(site: Site) -> str:
    """Why ``site`` cannot sleep whatever it is set to; empty when it can."""
    return "it lives on another machine" if site.node else needs_no_visit(site.run, site.application)


def needs_no_visit(run: Run, application: Application | None) -> str:
    """What a site does that no visit asks for; empty: nothing."""
    if application is not None:
        for module in application.modules:
            if module in _WATCHFUL:
                return f"module {module}: {_WATCHFUL[module]}"
    elif len(run.processes) > 1:
        others = ", ".join(each.name for each in run.processes if each.name != "web")
        return f"what its other processes do ({others}) needs no visit"
    if run.processes and not run.health:
        return "it takes no requests that could wake it"
    return ""


def is_asleep(site: Site) -> bool:
    return bool(site.asleep) and site.wanted is Wanted.RUNNING and not site.node
