"""``alveole why``, ``doctor`` and ``status``: what is, why, and what to do about it."""

from __future__ import annotations

from typing import Any

from alveole.cli.output import emit, fields, mark, paint, say, seconds, size, state, when
from alveole.cli.show import path
from alveole.cli.verbs import Here, site_name, verb
from alveole.text import clean

_LINKS = "0 everything in order, 3 something is not, 1 a fault of Alvéole, 2 wrong input, 4 not found, 5 temporary"


@verb(None, "why", examples=["alveole why blog", "alveole why blog --json"], statuses=_LINKS)
@site_name
def why(here: Here, name: str) -> int:
    """Say why a site answers, or does not.

    Walks the chain from its name to its program, really trying each link: what was asked, what
    came, and what to do where it breaks.
    """
    found = here.client.get(path(name, "why"))
    good = all(link["ok"] for link in found["links"])
    if here.json:
        emit(found)
        return 0 if good else 3
    site = found["site"]
    say(f"{paint(clean(site['name']), 'bold')} is {state(site['state'])}, wanted {clean(site['wanted'])}")
    if site["problem"]:
        say(f"  {paint(clean(site['problem']), 'red')}")
    links(found["links"])
    if found["broken"]:
        first = next(link for link in found["links"] if not link["ok"])
        on = f" on {clean(first['machine'])}" if first["machine"] else ""
        say(f"The first broken link is {paint(clean(found['broken']), 'bold')}{on}: begin there.")
    for reason in found["waiting"]:
        say(f"{paint('…', 'yellow')} waiting: {clean(reason)}")
    last = found["last"]
    if last:
        say()
        say(
            f"Last change: {clean(last['verb'])} by {clean(last['actor'])}, {state(last['state'])}, "
            f"{when(last['started_at'])}"
        )
        if last["reason"]:
            say(f"  because {clean(last['reason'])}")
        for problem in last["problems"]:
            say(f"  {paint(clean(problem['message']), 'red')}")
    return 0 if good else 3


@verb(None, "doctor", examples=["alveole doctor", "alveole doctor --json"], statuses=_LINKS)
def doctor(here: Here) -> int:
    """Look at the machine and the platform, really trying each part."""
    found = here.client.get("/v1/doctor")
    if here.json:
        emit(found)
    else:
        links(found["links"])
        wrong = sum(not link["ok"] for link in found["links"])
        say()
        say(paint("Everything is in order.", "green") if not wrong else paint(f"{wrong} not in order.", "red"))
    return 0 if found["ok"] else 3


def links(links: list[dict[str, Any]]) -> None:
    names = [f"{link['machine']}: {link['name']}" if link.get("machine") else link["name"] for link in links]
    wide = min(40, max((len(name) for name in names), default=0))
    for name, link in zip(names, links, strict=True):
        took = f"  {paint(seconds(link['milliseconds'] / 1000), 'dim')}" if link["milliseconds"] >= 1 else ""
        came = clean(link["came"]) or ("in order" if link["ok"] else "no answer")
        say(f"{mark(link['ok'])} {clean(name).ljust(wide)}  {came}{took}")
        if not link["ok"]:
            if link["asked"]:
                say(f"  {'':{wide}}  asked: {clean(link['asked'])}")
            if link["cure"]:
                say(f"  {'':{wide}}  {paint('cure:', 'yellow')} {clean(link['cure'])}")


@verb(None, "status", examples=["alveole status", "alveole status --json"])
def status(here: Here) -> None:
    """The state of the platform in a few lines."""
    found = here.client.get("/v1/status")
    if here.json:
        emit(found)
        return
    machine = found["machine"]
    sites = found["sites"]
    broken = [item for item in found["promises"] if item["state"] != "kept"]
    pairs = [
        ("alveole", f"{clean(found['version'])}, up since {when(found['started_at'])}"),
        ("domain", clean(found["domain"])),
        ("agent", paint("answers", "green") if found["agent"] else paint("does not answer", "red")),
        (
            "sites",
            ", ".join(f"{count} {state(word)}" for word, count in sorted(sites.items()) if count)
            or "none; make one: alveole site create NAME --from DIR",
        ),
        ("room for", f"{found['capacity'] - sum(sites.values())} more sites"),
        (
            "promises",
            "\n".join(f"{clean(item['resource'])} {state(item['state'])} {clean(item['reason'])}" for item in broken)
            or ("all of the platform's are kept" if found["promises"] else ""),
        ),
        (
            "changed by hand",
            "\n".join(f"{clean(name)}: {clean(what)}" for name, what in sorted(found["changed_by_hand"].items())),
        ),
        ("log lines", f"{size(found['log_bytes'])}; see: alveole logs usage"),
        ("to do", "\n".join(paint(clean(item), "yellow") for item in found.get("reminders", ()))),
        ("damaged", "\n".join(paint(clean(item), "red") for item in found["damaged"])),
    ]
    if machine:
        pairs += [
            ("machine", f"{machine['cpus']} cores, {size(machine['memory_bytes'])} of memory"),
            ("disk", f"{size(machine['disk_free_bytes'])} free of {size(machine['disk_bytes'])}"),
            ("kernel", f"{clean(machine['kernel'])}, cgroup {clean(machine['cgroup'])}"),
            ("runtime", clean(machine["runtime"])),
            ("proxy", clean(machine["proxy"])),
        ]
    fields(pairs)
