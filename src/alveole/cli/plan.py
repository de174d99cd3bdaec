"""``alveole plan``."""

from __future__ import annotations

from typing import Any

import click

from alveole.cli import parse
from alveole.cli.output import emit, fields, paint, say, size, table
from alveole.cli.verbs import Here, Tree, complete, verb
from alveole.remote.apiclient import segment
from alveole.text import clean, span


@click.group("plan", cls=Tree)
def group() -> None:
    """Named sets of limits that sites have."""


plan_name = click.argument("name", metavar="NAME", shell_complete=complete("/v1/plans"))


@verb(group, "list", examples=["alveole plan list"])
def list_(here: Here) -> None:
    """List plans with their limits and how many sites have them."""
    plans = here.client.get("/v1/plans")
    if here.json:
        emit(plans)
        return
    rows = [
        (
            clean(plan["name"]),
            f"{plan['limits']['cpu_millis'] / 1000:g}",
            size(plan["limits"]["memory_bytes"]),
            str(plan["limits"]["pids"]),
            _rate(plan["limits"]),
            _size(plan["limits"]["disk_bytes"]),
            "yes" if plan["limits"]["internet"] else "no",
            str(plan["sites"]),
        )
        for plan in plans
    ]
    table(
        ("NAME", "CORES", "MEMORY", "PIDS", "IO", "DISK", "INTERNET", "SITES"),
        rows,
        right="CORES MEMORY PIDS IO DISK SITES",
        flexible=0,
    )


@verb(group, "show", examples=["alveole plan show small"])
@plan_name
def show(here: Here, name: str) -> None:
    """Show one plan."""
    _show(here, here.client.get(f"/v1/plans/{segment(name)}"))


def _show(here: Here, plan: dict[str, Any]) -> None:
    if here.json:
        emit(plan)
        return
    limits = plan["limits"]
    fields(
        [
            ("name", paint(clean(plan["name"]), "bold")),
            ("description", clean(plan["description"])),
            ("cores", f"{limits['cpu_millis'] / 1000:g}"),
            ("memory", size(limits["memory_bytes"])),
            ("processes", str(limits["pids"])),
            ("io", _rate(limits)),
            ("disk", _size(limits["disk_bytes"])),
            ("internet", "yes" if limits["internet"] else "no"),
            ("sites sleep after", span(plan["sleep_after"])),
            ("built in", "yes" if plan["built_in"] else "no"),
            ("sites", str(plan["sites"])),
        ]
    )


@verb(
    group,
    "create",
    examples=["alveole plan create tiny --cpu 0.1 --memory 64M --pids 32 --disk 256M"],
)
@click.argument("name", metavar="NAME")
@click.option("--cpu", required=True, metavar="CORES", help="Processor time: 0.5, 2 or 250m.")
@click.option("--memory", required=True, metavar="SIZE", help="Memory: 256M, 1G.")
@click.option("--pids", required=True, type=int, metavar="N", help="Processes and threads together.")
@click.option("--io", metavar="SIZE", help="Bytes a second to and from disks. Default: no limit.")
@click.option("--disk", metavar="SIZE", help="The writable part. Default: no limit.")
@click.option("--internet/--no-internet", default=False, help="Whether its sites may open connections outside.")
@click.option("--sleep-after", metavar="TIME", help="Its sites sleep after so long without a visit: 30m, 7d.")
@click.option("--description", metavar="TEXT", default="", help="For people.")
def create(here: Here, name: str, cpu: str, memory: str, pids: int, **more: Any) -> None:
    """Make a plan of one's own."""
    problems = parse.Problems()
    body: dict[str, Any] = {
        "name": name,
        "cpu_millis": parse.cpu(cpu, "cpu", problems),
        "memory_bytes": parse.size(memory, "memory", problems),
        "pids": pids,
        "internet": more["internet"],
        "description": more["description"],
    }
    for option, field in (("io", "io_bytes_per_second"), ("disk", "disk_bytes")):
        if more[option] is not None:
            body[field] = parse.size(more[option], option, problems)
    if more["sleep_after"] is not None:
        body["sleep_after"] = parse.sleep_after(more["sleep_after"], "sleep_after", problems) or 0
    problems.stop()
    made = here.client.send("POST", "/v1/plans", body)
    if here.json:
        emit(made)
    else:
        say(f"The plan {clean(name)} is made. Use it: alveole site set NAME --plan {clean(name)}")


@verb(
    group,
    "set",
    examples=["alveole plan set small --sleep-after 12h", "alveole plan set small --sleep-after never"],
)
@plan_name
@click.option("--sleep-after", required=True, metavar="TIME|never", help="After so long without a visit: 30m, 12h, 7d.")
def set_(here: Here, name: str, sleep_after: str) -> None:
    """Say when the sites of a plan sleep, of a plan that is built in too.

    Those that say it by themselves do as they say. Limits of a plan never change.
    """
    problems = parse.Problems()
    if sleep_after == "plan":
        problems.add("sleep_after", "a plan has no plan", "write it like 30m, 12h or never")
    after = parse.sleep_after(sleep_after, "sleep_after", problems)
    problems.stop()
    made = here.client.send("PATCH", f"/v1/plans/{segment(name)}", {"sleep_after": after})
    if here.json:
        emit(made)
    elif after:
        say(f"Sites of plan {clean(name)} sleep after {span(after)} without a visit.")
    else:
        say(f"Sites of plan {clean(name)} do not sleep.")


@verb(group, "delete", examples=["alveole plan delete tiny"])
@plan_name
def delete(here: Here, name: str) -> None:
    """Delete a plan that no site has."""
    here.client.send("DELETE", f"/v1/plans/{segment(name)}")
    if here.json:
        emit({"name": name, "deleted": True})
    else:
        say(f"The plan {clean(name)} is gone.")


def _size(count: int | None) -> str:
    return "no limit" if count is None else size(count)


def _rate(limits: dict[str, Any]) -> str:
    count = limits["io_bytes_per_second"]
    return "no limit" if count is None else f"{size(count)}/s"
