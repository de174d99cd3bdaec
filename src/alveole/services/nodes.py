"""Other machines: adding them, looking at them, and asking them for what concerns a site that lives there.

A node is a whole Alvéole of its own. What is asked of a site there is asked of its API over its line
(:mod:`alveole.remote.lines`), once rights were asked for here; the change here tells what the change there tells.
"""

from __future__ import annotations

import contextlib
import logging
import time
import tomllib
from typing import TYPE_CHECKING, TypeVar

import msgspec

from alveole import __version__, config, views
from alveole.errors import AlveoleError, InvalidInput, Problem, Refused
from alveole.model.names import NODE_NAME
from alveole.people.model import Actor, Role
from alveole.people.rights import Right
from alveole.remote import fleet, passport
from alveole.remote.fleet import Look, Node
from alveole.services.farfigures import FarFigures
from alveole.services.farnames import FarNameVerbs
from alveole.services.forwarding import read, understood
from alveole.services.platform import PlatformVerbs
from alveole.store import Stored

if TYPE_CHECKING:
    from alveole.remote.lines import Line

log = logging.getLogger("alveole.remote.fleet")
#: How often nodes with sites are asked how they are.
WATCH_SECONDS = 5.0
_IDLE_SECONDS = 60.0
_PATIENCE = 20.0
#: So long a change waits for a node that went away while it was at work.
_AWAY_SECONDS = 120.0
#: Apt and passports bear some seconds; who has set no clock is off by more.
_CLOCK_SECONDS = 300.0
Told = TypeVar("Told")
HERE = "here"
ANY = "any"


class _Room(msgspec.Struct):
    memory_bytes: int


class _PlanThere(msgspec.Struct):
    """Of a plan of another machine, what is promised by it."""

    name: str
    limits: _Room


class NodeVerbs(FarNameVerbs, PlatformVerbs):
    _asking: set[str]
    far: FarFigures

    # --- nodes --------------------------------------------------------------------------------
    def scan_node(self, caller: Actor, request: fleet.ScanNode) -> fleet.ScannedView:
        """The host key that a machine shows, for somebody to compare, and the key that lets this one in there."""
        self._allow(caller, Right.NODE_CHANGE)
        _check_where(request.host)
        from alveole.remote import lines

        key = lines.scan(request.host, request.port)
        return fleet.ScannedView(
            fingerprint=lines.fingerprint(key), host_key=key, ssh_key=lines.Keys(self.settings).public()
        )

    def node_key(self, caller: Actor) -> str:
        """The line for ``authorized_keys`` of a machine that shall be driven from here."""
        self._allow(caller, Right.NODE_CHANGE)
        from alveole.remote import lines

        return lines.Keys(self.settings).public()

    def add_node(self, caller: Actor, request: fleet.AddNode) -> fleet.NodeView:
        """Drive another machine from here. Nothing is stored unless it answers and shows the key that was confirmed."""
        self._allow(caller, Right.NODE_CHANGE)
        self._check_node(request)
        from alveole.remote import lines

        key = self._confirmed_key(request.host, request.port, request.fingerprint)
        empty = passport.EMPTY_KEY
        node = Node(
            *(request.name, request.host, request.port, request.user, key, request.config),
            *("", "", empty, "", time.time()),
            program=request.program,
        )
        line = lines.Line(self.settings, node)
        check_clock(line)
        if request.user == fleet.ROOT:
            found = _settings_there(line)
            line = lines.Line(self.settings, msgspec.structs.replace(node, run=str(found.run)))
        try:
            client = line.client()
            there = understood(node.name, client.get("/v1/identity"), fleet.IdentityView)
            if there.key == self._identity().public:
                raise Refused("this is this machine itself", field="host")
            client.send("PUT", f"/v1/signers/{_signer_name(self.settings.domain)}", {"key": self._identity().public})
            node = msgspec.structs.replace(line.node, domain=there.domain, key=there.key, version=there.version)
            self._put_nodes({**self._nodes(), node.name: node})
            self._put_setting("signers", fleet.Signers({**self._signers(), node.name: there.key}))
        finally:
            line.close()
        self._note(caller, "add-node", f"{node.name} {node.user}@{node.host}:{node.port} {request.fingerprint}")
        self._ask_node(node.name)
        return self._node_view(node)

    @staticmethod
    def _confirmed_key(host: str, port: int, confirmed: str) -> str:
        """The host key that a machine shows. Raises ``Refused`` unless it is the one that somebody has compared."""
        from alveole.remote import lines

        key = lines.scan(host, port)
        shown = lines.fingerprint(key)
        if shown != confirmed:
            raise Refused(
                f"{host} shows the host key {shown}, not {confirmed}",
                field="fingerprint",
                hint="compare it there: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
            )
        return key

    def _check_node(self, request: fleet.AddNode) -> None:
        import re

        problems = []
        if not re.match(NODE_NAME, request.name) or request.name in (HERE, ANY):
            problems.append(
                Problem("name", f"{request.name!r} is not a node's name", "1 to 16 letters, digits, hyphens")
            )
        elif request.name in self._nodes():
            problems.append(Problem("name", f"there is a node {request.name!r} already", "choose another name"))
        for field, pattern in (
            ("host", fleet.HOST),
            ("user", fleet.USER),
            ("config", fleet.CONFIG_FILE),
            ("program", fleet.CONFIG_FILE),
        ):
            if not re.match(pattern, getattr(request, field)):
                problems.append(Problem(field, f"{getattr(request, field)[:80]!r} cannot be used"))
        if not re.match(fleet.FINGERPRINT, request.fingerprint):
            problems.append(Problem("fingerprint", "is not a fingerprint", "SHA256:… as ssh-keygen -l prints it"))
        if problems:
            raise InvalidInput(problems=problems)

    def list_nodes(self, caller: Actor) -> tuple[fleet.NodeView, ...]:
        """This machine first. What is told of the others is what they last said."""
        self._allow(caller, Right.PLATFORM_LOOK)
        nodes = self._nodes()
        for name in nodes:
            if name not in self._node_looks and name not in self._node_problems:
                self._ask_soon(name)
        return (self._own_view(caller), *(self._node_view(nodes[name]) for name in sorted(nodes)))

    def show_node(self, caller: Actor, node: str) -> fleet.NodeView:
        """As it is now: it is asked."""
        self._allow(caller, Right.PLATFORM_LOOK)
        found = self._node(node)
        self._ask_node(found.name)
        return self._node_view(found)

    def remove_node(self, caller: Actor, node: str, *, lost: bool = False) -> None:
        """Drive it no more. What runs there goes on by itself; refused while sites of this one live there.

        ``lost``: it will not come back, and copies that moves have left there are gone with it.
        """
        self._allow(caller, Right.NODE_CHANGE)
        found = self._node(node)
        if lost and node in self._node_problems:
            self._forget_copies(node)
        here = [
            each.site.name for each in self.store.sites.values() if each.site.node == node or node in each.site.kept_at
        ]
        if here:
            raise Refused(
                f"{len(here)} sites live on {node} or are kept there, {sorted(here)[0]} among them",
                field="node",
                hint=f"alveole node drain {node}, then alveole site confirm NAME",
            )
        with contextlib.suppress(AlveoleError):
            self._api_of(node).send("DELETE", f"/v1/signers/{_signer_name(self.settings.domain)}")
        with contextlib.suppress(AlveoleError):
            self._line(node).close()
        nodes = dict(self._nodes())
        nodes.pop(node, None)
        self._put_nodes(nodes)
        signers = self._signers()
        signers.pop(node, None)
        self._put_setting("signers", fleet.Signers(signers))
        for known in (self._lines, self._node_looks, self._node_problems, self._node_away):
            known.pop(node, None)
        self.far.forget(node)
        self._note(caller, "remove-node", f"{found.name} {found.user}@{found.host}:{found.port}")

    def _forget_copies(self, node: str) -> None:
        with self.store.write() as transaction:
            for stored in list(self.store.sites.values()):
                if node in stored.site.kept_at and not stored.pending:
                    kept = {name: until for name, until in stored.site.kept_at.items() if name != node}
                    new = msgspec.structs.replace(stored.site, kept_at=kept, version=stored.site.version + 1)
                    transaction.save_site(new)

    # --- looking at them ----------------------------------------------------------------------
    def _watch_nodes(self) -> None:
        """Now and then: nodes with sites are asked, lines that nobody uses are closed."""
        sites = [each.site for each in self.store.sites.values()]
        used = {site.node for site in sites if site.node} | {name for site in sites for name in site.kept_at if name}
        used &= self._nodes().keys()
        for name in used:
            self._ask_soon(name)
        for name, line in list(self._lines.items()):
            if name not in used and line.is_open() and time.monotonic() - line.used_at > _IDLE_SECONDS:
                self.loop.submit(line.close)

    def _ask_soon(self, name: str) -> None:
        """In the background, and one at a time: a machine that is away lets each asking wait."""
        if name not in self._asking:
            self._asking.add(name)
            self.loop.submit(lambda: self._ask_node(name))

    def _ask_node(self, name: str) -> None:
        try:
            self._look_at_node(name)
        finally:
            self._asking.discard(name)

    def _look_at_node(self, name: str) -> None:
        try:
            client = self._api_of(name)
            with client.open("GET", "/v1/status", patience=_PATIENCE) as answer:
                status = read(name, answer.body(), views.StatusView)
            with client.open("GET", "/v1/sites", patience=_PATIENCE) as answer:
                sites = read(name, answer.body(), list[views.SiteView])
            with client.open("GET", "/v1/plans", patience=_PATIENCE) as answer:
                plans = {plan.name: plan.limits.memory_bytes for plan in read(name, answer.body(), list[_PlanThere])}
        except AlveoleError as error:
            if self._node_problems.get(name) is None:
                log.warning("node %s: %s", name, error)
            self._node_away.setdefault(name, time.monotonic())
            self._node_problems[name] = str(error)
            return
        promised = sum(int(plans.get(site.plan, 0)) for site in sites)
        self._node_looks[name] = Look(time.time(), status, {site.name: site for site in sites}, promised)
        self._node_problems.pop(name, None)
        self._node_away.pop(name, None)
        self.far.look(name)

    def _own_view(self, caller: Actor) -> fleet.NodeView:
        status = self.status(caller)
        live = [each.site for each in self.store.sites.values() if not each.site.node]
        promised = sum(self._limits(site.plan).memory_bytes for site in live)
        return fleet.NodeView(
            name=HERE,
            where="",
            config="",
            state="here",
            problem="" if status.agent else "the agent does not answer",
            seen_at=time.time(),
            version=__version__,
            same_version=True,
            domain=self.settings.domain,
            fingerprint="",
            draining=False,
            sites=tuple(sorted(site.name for site in live)),
            memory_left_bytes=status.machine.memory_bytes - promised if status.machine else None,
            disk_left_bytes=status.machine.disk_free_bytes if status.machine else None,
            addresses_left=status.capacity - len(self.store.sites),
        )

    def _node_view(self, node: Node) -> fleet.NodeView:
        from alveole.remote import lines

        look, problem = self._node_looks.get(node.name), self._node_problems.get(node.name, "")
        machine = look.status.machine if look is not None else None
        version = look.status.version if look is not None else node.version
        return fleet.NodeView(
            name=node.name,
            where=f"{node.user}@{node.host}:{node.port}",
            config=node.config,
            state="unreachable" if problem else "reached" if look is not None else "not asked yet",
            problem=problem,
            seen_at=look.at if look is not None else None,
            version=version,
            same_version=version == __version__,
            domain=node.domain,
            fingerprint=lines.fingerprint(node.host_key),
            draining=node.draining,
            sites=tuple(sorted(each.site.name for each in self.store.sites.values() if each.site.node == node.name)),
            memory_left_bytes=machine.memory_bytes - look.promised_bytes if machine and look else None,
            disk_left_bytes=machine.disk_free_bytes if machine else None,
            addresses_left=look.status.capacity - sum(look.status.sites.values()) if look is not None else None,
        )

    def _elsewhere(self, stored: Stored, view: views.SiteView) -> views.SiteView:
        """The document of a site on another machine: what that last said of it, under the names that are kept here."""
        node = stored.site.node
        look, problem = self._node_looks.get(node), self._node_problems.get(node, "")
        seen = look.sites.get(stored.site.name) if look is not None else None
        if seen is None:
            gone = look is not None and not problem
            state = self._state_elsewhere(stored, view.state) if view.change is None else view.state
            why = f"{node} knows no site of this name" if gone else problem or f"{node} was not asked yet"
            return msgspec.structs.replace(view, node=node, state=state, problem=why)
        return msgspec.structs.replace(
            seen,
            id=view.id,
            number=view.number,
            urls=view.urls,
            domains=view.domains,
            owner=view.owner,
            version=view.version,
            created_at=view.created_at,
            change=view.change,
            checks=view.checks,
            promises=(*view.promises, *seen.promises),
            state=self._state_elsewhere(stored, view.state) if view.change is None else view.state,
            problem=problem or seen.problem,
            node=node,
            seen_at=look.at if look is not None else None,
        )

    def _state_elsewhere(self, stored: Stored, state: views.State) -> views.State:
        if self.journal.of_site(stored.site.id) is not None or stored.pending:
            return state
        look = self._node_looks.get(stored.site.node)
        if look is None or stored.site.node in self._node_problems:
            return views.State.UNREACHABLE
        seen = look.sites.get(stored.site.name)
        return seen.state if seen is not None else views.State.FAILED

    # --- placing ------------------------------------------------------------------------------
    def _placed(self, wanted: str, memory_bytes: int, *, without: str | None = None) -> str:
        """The machine for a site: the one that is named, or (``any``) the one with the most memory left.

        Empty: this one. Raises ``InvalidInput``, ``NotFound``, ``Refused`` when none has room.
        """
        if wanted in ("", HERE):
            return ""
        if wanted != ANY:
            node = self._node(wanted)
            if node.draining:
                raise Refused(f"{wanted} is being drained", field="node", hint="choose another machine")
            return wanted
        here = Actor("placing", Role.ADMIN, "socket")
        for name in self._nodes():
            self._ask_node(name)
        fits = [
            each
            for each in self.list_nodes(here)
            if not each.draining
            and each.name != (without if without is not None else "-")
            and not each.problem
            and each.same_version
            and (each.memory_left_bytes or 0) >= memory_bytes
            and (each.disk_left_bytes or 0) > self.settings.content.reserve_bytes
            and (each.addresses_left or 0) > 0
        ]
        if not fits:
            raise Refused("no machine has room for it", field="node", hint="see: alveole node list")
        best = max(fits, key=lambda each: (each.memory_left_bytes or 0, each.name == HERE))
        return "" if best.name == HERE else best.name


def _check_where(host: str) -> None:
    import re

    if not re.match(fleet.HOST, host):
        raise InvalidInput(f"{host[:80]!r} is no name or address of a machine", field="host")


def _signer_name(domain: str) -> str:
    """Under which name a node knows the one that drives it."""
    return ("main-" + domain.replace(".", "-"))[:40].rstrip("-")


def check_clock(line: Line) -> None:
    """Raises ``Refused`` when the clock there is far from this one's: certificates and signatures would not fit."""
    said = line.run(("date", "+%s")).strip()
    off = float(said) - time.time() if said.isdecimal() else 0.0
    if abs(off) > _CLOCK_SECONDS:
        raise Refused(
            f"the clock of {line.node.host} is {abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} this machine's",
            field="host",
            hint="set the one that is wrong; on Debian: timedatectl set-ntp true",
        )


def _settings_there(line: Line) -> config.Settings:
    """The settings file of the node, read as this machine reads its own."""
    text = line.run(("cat", "--", line.node.config))
    try:
        return config.parse(tomllib.loads(text), line.node.config)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{line.node.config} there is not TOML: {error}", field="config") from None
