"""Looking into a site: its output, a program inside it, and why it answers or does not."""

from __future__ import annotations

import msgspec

from alveole import requests as ask
from alveole import views
from alveole.agent import protocol
from alveole.errors import AlveoleError, InvalidInput, Problem, Refused
from alveole.loop.compile import hosts, site_domain
from alveole.model.resource import Kind
from alveole.model.site import Site
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.policy.sleeping import is_asleep
from alveole.remote.apiclient import pairs
from alveole.remote.distant import Distant, reached
from alveole.services.claims import ClaimVerbs
from alveole.services.sleep import VISIT

#: Links of a node's own chain that nobody passes who comes from here, and those of its proxy.
_NOT_PASSED, _EDGE = frozenset({"name", "certificate", "answer"}), frozenset({"address", "proxy"})


def exec_there(site: Site, argv: tuple[str, ...], *, tty: bool = False, uid: int | None = None) -> Distant:
    """A program inside of a site on another machine. Raises ``InvalidInput`` for what is too long for that."""
    query = [("argv", word) for word in argv]
    if tty:
        query.append(("tty", "true"))
    if uid is not None:
        query.append(("uid", str(uid)))
    return reached(Distant(site.node, f"/v1/sites/{site.name}/exec?{pairs(query)}", tty))


def chained(
    node: str, here: tuple[protocol.Link, ...], server: protocol.Link, there: views.WhyView | None
) -> tuple[protocol.Link, ...]:
    """One chain of what lies here and what lies on ``node``, in the order in which a visit goes through it.

    Whoever visits never asks for the name, the certificate and the address that the site has on that machine.
    """
    own = tuple(
        msgspec.structs.replace(each, machine=node, asked=each.asked.replace("this machine", node))
        for each in (there.links if there is not None else ())
        if each.name not in _NOT_PASSED
    )
    edge = tuple(each for each in own if each.name in _EDGE)
    last = tuple(each for each in here if each.name == "front")
    after = tuple(each for each in here if each.name == "answer" or each.name.startswith("name "))
    before = tuple(each for each in here if each not in last and each not in after)
    if not server.ok:
        # Why it is not open is what was said when it was tried to open it.
        before = tuple(_because(each, server) if each.name == "line" and not each.ok else each for each in before)
    return (*before, server, *edge, *last, *(each for each in own if each not in edge), *after)


def _because(line: protocol.Link, server: protocol.Link) -> protocol.Link:
    said = server.cure and not server.cure.startswith("see: ")
    return msgspec.structs.replace(line, came=server.came, cure=server.cure if said else line.cure)


class InsideVerbs(ClaimVerbs):
    def site_logs(self, caller: Actor, site: str) -> views.LogsView:
        found = self._stored(caller, Right.SITE_LOGS, site).site
        logs = self.settings.logs
        return views.LogsView(
            site=found.name,
            directory=str(logs / found.id),
            archive=str(logs / "archive" / found.id),
            edge_directory=str(logs / "edge" / found.id),
        )

    def exec_site(self, caller: Actor, site: str, request: ask.ExecSite) -> views.ExecGrant:
        found = self._stored(caller, Right.SITE_EXEC, site, elsewhere=True).site
        problems = []
        if not request.argv or not request.argv[0]:
            problems.append(Problem("argv", "is empty", "name a program after --"))
        if any("\0" in word for word in request.argv) or len(request.argv) > 1024:
            problems.append(Problem("argv", "holds a NUL byte or more than 1,024 words"))
        if request.uid is not None and not 0 <= request.uid < 65_536:
            problems.append(Problem("uid", f"{request.uid} is outside 0..65535"))
        if problems:
            raise InvalidInput(problems=problems)
        slot = found.slot if found.node else self._ready_slot(found)
        # The program's name only: arguments may hold secrets.
        live = self.journal.begin("exec", caller, site=found, reason=request.argv[0][:200])
        return views.ExecGrant(
            site=found.id, slot=slot, argv=request.argv, tty=request.tty, uid=request.uid, change=live.id
        )

    def exec_request(self, grant: views.ExecGrant) -> protocol.Exec | Distant:
        """What is to be started for a grant, where the site lives."""
        stored = self.store.sites.get(grant.site)
        if stored is None or not stored.site.node:
            return protocol.Exec(site=grant.site, slot=grant.slot, argv=grant.argv, tty=grant.tty, uid=grant.uid)
        return exec_there(stored.site, grant.argv, tty=grant.tty, uid=grant.uid)

    def _ready_slot(self, site: Site) -> int:
        """The instance that serves; the other one while that is not ready. Raises ``Refused``."""
        self._be_awake(site, VISIT)
        look = self.loop.looks.get(site.id)
        slots = [item.id.name for item in look.found if item.id.kind is Kind.WORKLOAD and item.ready] if look else []
        if not slots:
            raise Refused(f"site {site.name} is not running", field="site", hint="see: alveole why")
        return site.slot if str(site.slot) in slots else int(slots[0])

    def exec_ended(self, grant: views.ExecGrant, exit_status: int | None, problem: str = "") -> None:
        live = self.journal.live(grant.change)
        if live is not None:
            problems = (Problem("", problem),) if problem else ()
            self.journal.end(live, problems, {"exit_status": exit_status})

    def _scenario_links(self, site: Site) -> tuple[protocol.Link, ...]:
        """How the site's scenarios stood at their last run."""
        return tuple(
            protocol.Link(
                f"scenario {each.name}",
                not each.failing,
                "its last run",
                each.problem or "passed",
                f"alveole check run {site.name} {each.name}" if each.failing else "",
                round((each.seconds or 0.0) * 1000, 2),
            )
            for each in self.checks.states(site.id)
            if each.ok is not None
        )

    def _inspected(self, site: Site) -> tuple[protocol.Link, ...]:
        """What the agent finds; of a site on another machine the way there."""
        request = protocol.Inspect(
            site.id,
            site.number,
            site.slot,
            site_domain(site.name, self.settings),
            site.path,
            site.run.port,
            is_asleep(site),
            site.domains,
            site.run.health,
            site.node or None,
        )
        try:
            links: tuple[protocol.Link, ...] = self.agent.call(request)
        except AlveoleError as error:
            return (protocol.Link("agent", False, "ask the agent", str(error), "see: alveole doctor"),)
        return links

    def why(self, caller: Actor, site: str) -> views.WhyView:
        stored = self._stored(caller, Right.SITE_LOOK, site, elsewhere=True)
        found = stored.site
        links = self._inspected(found)
        problem, cure = self._unwakeable(found.id)
        if problem:
            asleep = protocol.Link("asleep", False, "whether a request can wake it", problem, cure)
            links = (*(each for each in links if each.name != asleep.name), asleep)
        of_zone = self.naming.links(hosts(found, self.settings))
        if of_zone and of_zone[0].name == "name":
            # The zone's own server knows; what a resolver remembers says less.
            links = tuple(each for each in links if each.name != "name")
        waits: tuple[str, ...] = ()
        if found.node:
            told, there = self._why_there(found)
            links, waits = chained(found.node, (*of_zone, *links), told, there), there.waiting if there else ()
        else:
            links = (*of_zone, *links, *self.port_links(found), *self.check_links(found), *self.base_links(found))
        look = self.loop.looks.get(found.id)
        last = self.journal.list(site=found.id, limit=1)
        links = (*links, *self._scenario_links(found))
        return views.WhyView(
            site=self.show_site(caller, found.id),
            broken=next((link.name for link in links if not link.ok), ""),
            links=links,
            waiting=(
                *(f"{found.node}: {each}" for each in waits),
                *(f"{each.id.kind}/{each.id.name}: {each.reason}" for each in (look.waiting if look else ())),
                *self.claims_waiting(found),
                *self.naming.waiting(found.id),
            ),
            last=self.journal.get(last[0].id) if last else None,
        )
