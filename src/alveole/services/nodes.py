"""Other machines: adding them, looking at them, and asking them for what concerns a site that lives there.

A node is a whole Alvéole of its own. What is asked of a site there is asked of its API over its line
(:mod:`alveole.lines`), once rights were asked for here; the change here tells what the change there tells.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from alveole import __version__, config, fleet, passport, views
from alveole import requests as ask
from alveole.compile import site_domain
from alveole.errors import AlveoleError, InvalidInput, NotFound, Problem, Refused, Temporary
from alveole.failpoints import hit
from alveole.fleet import Look, Node
from alveole.journal import Live, Work
from alveole.model.change import Change, ChangeState
from alveole.model.moving import Forward
from alveole.model.names import NODE_NAME
from alveole.model.site import Base, BaseKind, Run, Site, Wanted
from alveole.people.model import Actor, Role
from alveole.people.rights import Right
from alveole.services.draft import Draft
from alveole.services.passports import PassportVerbs
from alveole.services.platform import PlatformVerbs
from alveole.store import Stored, Transaction, new_id

if TYPE_CHECKING:
    from alveole.cli.client import Client
    from alveole.lines import Line

log = logging.getLogger("alveole.fleet")
#: How often nodes with sites are asked how they are.
WATCH_SECONDS = 5.0
_IDLE_SECONDS = 60.0
_PATIENCE = 20.0
#: So long a change waits for a node that went away while it was at work.
_AWAY_SECONDS = 120.0
Told = TypeVar("Told")
HERE = "here"
ANY = "any"


class NodeVerbs(PassportVerbs, PlatformVerbs):
    _lines: dict[str, Line]
    _lines_lock: threading.Lock
    _node_looks: dict[str, Look]
    _node_problems: dict[str, str]
    _nodes_known: dict[str, Node] | None
    _asking: set[str]

    # --- nodes --------------------------------------------------------------------------------
    def _nodes(self) -> dict[str, Node]:
        if self._nodes_known is None:
            found = self._setting("nodes", fleet.Nodes)
            self._nodes_known = dict(found.all) if found is not None else {}
        return self._nodes_known

    def _put_nodes(self, nodes: dict[str, Node]) -> None:
        self._put_setting("nodes", fleet.Nodes(nodes))
        self._nodes_known = None

    def _node(self, name: str) -> Node:
        node = self._nodes().get(name)
        if node is None:
            raise NotFound(f"there is no node {name!r}", field="node", hint="see: alveole node list")
        return node

    def _line(self, name: str) -> Line:
        from alveole.lines import Line

        node = self._node(name)
        with self._lines_lock:
            line = self._lines.get(name)
            if line is None or line.node != node:
                line = self._lines[name] = Line(self.settings, node)
            return line

    def _api_of(self, name: str) -> Client:
        return self._line(name).client()

    def scan_node(self, caller: Actor, request: fleet.ScanNode) -> fleet.ScannedView:
        """The host key that a machine shows, for somebody to compare, and the key that lets this one in there."""
        self._allow(caller, Right.NODE_CHANGE)
        _check_where(request.host)
        from alveole import lines

        key = lines.scan(request.host, request.port)
        return fleet.ScannedView(
            fingerprint=lines.fingerprint(key), host_key=key, ssh_key=lines.Keys(self.settings).public()
        )

    def node_key(self, caller: Actor) -> str:
        """The line for ``authorized_keys`` of a machine that shall be driven from here."""
        self._allow(caller, Right.NODE_CHANGE)
        from alveole import lines

        return lines.Keys(self.settings).public()

    def add_node(self, caller: Actor, request: fleet.AddNode) -> fleet.NodeView:
        """Drive another machine from here. Nothing is stored unless it answers and shows the key that was confirmed."""
        self._allow(caller, Right.NODE_CHANGE)
        self._check_node(request)
        from alveole import lines

        key = self._confirmed_key(request.host, request.port, request.fingerprint)
        empty = passport.EMPTY_KEY
        node = Node(
            request.name, request.host, request.port, request.user, key, request.config, "", "", empty, "", time.time()
        )
        line = lines.Line(self.settings, node)
        found = _settings_there(line)
        line = lines.Line(self.settings, msgspec.structs.replace(node, run=str(found.run)))
        try:
            client = line.client()
            there = msgspec.convert(client.get("/v1/identity"), fleet.IdentityView)
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
        from alveole import lines

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
        for field, pattern in (("host", fleet.HOST), ("user", fleet.USER), ("config", fleet.CONFIG_FILE)):
            if not re.match(pattern, getattr(request, field)):
                problems.append(Problem(field, f"{getattr(request, field)[:80]!r} cannot be used"))
        if request.user != "root":
            problems.append(Problem("user", "only root reaches the sockets of Alvéole there", "root@HOST"))
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

    def remove_node(self, caller: Actor, node: str) -> None:
        """Drive it no more. What runs there goes on by itself; refused while sites of this one live there."""
        self._allow(caller, Right.NODE_CHANGE)
        found = self._node(node)
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
        for known in (self._lines, self._node_looks, self._node_problems):
            known.pop(node, None)
        self._note(caller, "remove-node", f"{found.name} {found.user}@{found.host}:{found.port}")

    # --- looking at them ----------------------------------------------------------------------
    def _watch_nodes(self) -> None:
        """Now and then: nodes with sites are asked, lines that nobody uses are closed."""
        used = {each.site.node for each in self.store.sites.values() if each.site.node}
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
                status = msgspec.json.decode(answer.body(), type=views.StatusView)
            with client.open("GET", "/v1/sites", patience=_PATIENCE) as answer:
                sites = msgspec.json.decode(answer.body(), type=list[views.SiteView])
            plans = {plan["name"]: plan["limits"]["memory_bytes"] for plan in client.get("/v1/plans")}
        except (AlveoleError, msgspec.DecodeError) as error:
            if self._node_problems.get(name) is None:
                log.warning("node %s: %s", name, error)
            self._node_problems[name] = str(error)
            return
        promised = sum(int(plans.get(site.plan, 0)) for site in sites)
        self._node_looks[name] = Look(time.time(), status, {site.name: site for site in sites}, promised)
        self._node_problems.pop(name, None)

    def _own_view(self, caller: Actor) -> fleet.NodeView:
        status = self.status(caller)
        live = [each.site for each in self.store.sites.values() if not each.site.node]
        promised = sum(self._limits(site.plan).memory_bytes for site in live)
        return fleet.NodeView(
            name=HERE,
            where="",
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
        from alveole import lines

        look, problem = self._node_looks.get(node.name), self._node_problems.get(node.name, "")
        machine = look.status.machine if look is not None else None
        version = look.status.version if look is not None else node.version
        return fleet.NodeView(
            name=node.name,
            where=f"{node.user}@{node.host}:{node.port}",
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

    # --- asking a node ------------------------------------------------------------------------
    def _there(
        self, caller: Actor, right: Right, verb: str, site: str, method: str, path: str, body: Any, key: str | None
    ) -> Change | None:
        """The same verb where the site lives; ``None`` for one of this machine. ``path`` follows the site's own."""
        found = self.store.site(site)
        if found is None or not found.site.node:
            return None
        text = msgspec.json.encode(body).decode() if body is not None else ""

        def build(transaction: Transaction) -> Live:
            old = self._free_to_change(caller, right, site, None, elsewhere=True)
            forward = Forward(old.node, method, f"/v1/sites/{old.name}{path}", text)
            work = Work(stored=True, forward=forward, upload=getattr(body, "upload", None))
            return self.journal.begin(
                verb,
                caller,
                site=old,
                reason=f"on {old.node}",
                work=work,
                result={"site": old.id},
                transaction=transaction,
            )

        return self._accept(caller, self._digest(verb, site, method, path, text), key, build)

    def _asked_there(self, caller: Actor, right: Right, site: str, path: str, kind: type[Told]) -> Told | None:
        """A document about a site from where it lives; ``None`` for one of this machine."""
        found = self._stored(caller, right, site, elsewhere=True).site
        if not found.node:
            return None
        return msgspec.convert(self._api_of(found.node).get(f"/v1/sites/{found.name}{path}"), kind)

    def logs_there(self, caller: Actor, site: str, query: dict[str, Any]) -> Iterator[bytes] | None:
        """What a site on another machine prints, as that tells it; ``None`` for one of this machine."""
        found = self._stored(caller, Right.SITE_LOGS, site, elsewhere=True).site
        if not found.node:
            return None
        # No limit: between two lines of a site that is followed any time may pass.
        answer = self._api_of(found.node).open(
            "GET", f"/v1/sites/{found.name}/logs", query=query, patience=None if query.get("follow") else _PATIENCE
        )

        def blocks() -> Iterator[bytes]:
            with answer:
                yield from answer.blocks()

        return blocks()

    def _create_there(self, caller: Actor, request: ask.CreateSite, key: str | None) -> Change:
        """Reserve the names here and make the site on the node ``request.node``."""
        owner = self._owner_for(caller, request.owner)
        limits = self.store.plans.get(request.plan or "small")
        node = self._placed(request.node or "", limits.limits.memory_bytes if limits is not None else 0)
        if not node:
            return self.create_site(caller, msgspec.structs.replace(request, node=None), key=key)

        def build(transaction: Transaction) -> Live:
            draft = Draft(self.settings, self.store.owner_of)
            draft.name(request.name, self.store.site(request.name) is not None)
            domains = draft.domains(request.domains, request.name)
            draft.claim(caller, domains, None)
            if request.path is not None:
                draft.wrong("path", "leads to sites of this machine only", "give the site a domain")
            for field in ("published", "shared"):
                if getattr(request, field):
                    draft.wrong(field, "is lent by the machine that the site lives on", f"ask {node} for it")
            plan = request.plan or "small"
            draft.plan(plan, self.store.plans)
            draft.finish()
            id = new_id("s")
            site = Site(
                id=id,
                number=transaction.lease(id, self.addressing.capacity()),
                name=request.name,
                wanted=Wanted.STOPPED if request.stopped else Wanted.RUNNING,
                plan=plan,
                base=Base(BaseKind.HOST, f"host-{'0' * 16}"),
                run=Run(),
                domains=domains,
                https_only=request.https_only,
                node=node,
                owner=owner,
                created_at=time.time(),
            )
            self._check_quota(owner, site)
            transaction.insert_site(site, self._names(site), "create")
            own = site_domain(site.name, self.settings)
            more = (*domains, own) if own != f"{site.name}.{self._node(node).domain}" else domains
            asked = msgspec.structs.replace(request, node=None, owner=None, domains=tuple(more), plan=request.plan)
            forward = Forward(node, "POST", "/v1/sites", msgspec.json.encode(asked).decode())
            work = Work(stored=True, forward=forward, upload=request.upload)
            return self.journal.begin(
                "create",
                caller,
                site=site,
                reason=f"on {node}",
                work=work,
                result={"site": id},
                transaction=transaction,
            )

        return self._accept(caller, request.digest(), key, build, self._need_room)

    def _flow_forward(self, live: Live) -> None:
        """Ask the node once, tell what it tells, and keep here what the names hang on."""
        site = self._site_of(live)
        creating = self.store.sites[site.id].pending == "create"
        problems: tuple[Problem, ...] = ()
        code = ""
        try:
            self._ask_there(live)
        except AlveoleError as error:
            problems, code = error.problems, error.code
        if self.loop.stopping and problems:
            return
        forward = live.work.forward
        seen = self._site_there(forward.node, site.name) if forward is not None else None
        if creating and problems and seen is None:
            self._take_back_create(live, site, problems, code)
            return
        site = self._mirrored(site, seen)
        with self.store.write() as transaction:
            transaction.save_site(site, self._names(site))
        settled = self.loop.settle(site, live, version=site.version)
        self._drop_upload(live.work.upload)
        self.journal.end(live, (*problems, *settled.problems), {"code": code} if code else {"version": site.version})

    def _mirrored(self, site: Site, seen: views.SiteView | None) -> Site:
        if seen is None:
            return site
        return msgspec.structs.replace(
            site,
            wanted=seen.wanted,
            https_only=seen.https_only,
            plan=seen.plan if seen.plan in self.store.plans else site.plan,
            version=site.version + 1,
        )

    def _site_there(self, node: str, name: str) -> views.SiteView | None:
        """What a node says of a site now; ``None`` when it has none of this name, or does not answer."""
        with contextlib.suppress(AlveoleError, msgspec.ValidationError):
            found = msgspec.convert(self._api_of(node).get(f"/v1/sites/{name}"), views.SiteView)
            look = self._node_looks.get(node)
            if look is not None:
                self._node_looks[node] = msgspec.structs.replace(look, sites={**look.sites, name: found})
            return found
        return None

    def _ask_there(self, live: Live) -> None:
        forward = live.work.forward
        if forward is None:
            raise Refused("nothing is to be asked of another machine")
        client = self._api_of(forward.node)
        if live.work.upload is not None:
            live.show(f"sending the content to {forward.node}")
            sent = self._send_there(client, self._upload_path(live.work.upload))
            filled = {**msgspec.json.decode(forward.body), "upload": sent}
            forward = msgspec.structs.replace(forward, body=msgspec.json.encode(filled).decode())
            # Before it is asked for: the same request must be sent again, with the same upload.
            with self.store.write() as transaction:
                work = msgspec.structs.replace(live.work, forward=forward, upload=None)
                self._drop_upload(live.work.upload)
                self.journal.save(live, transaction, work)
        hit("services.forward")
        body = msgspec.json.decode(forward.body) if forward.body else None
        path, _, query = forward.path.partition("?")
        asked = {key: value for key, _, value in (pair.partition("=") for pair in query.split("&"))} if query else None
        change = client.send(forward.method, path, body, query=asked, key=live.id)
        self._follow_there(live, forward.node, str(change["id"]))

    @staticmethod
    def _send_there(client: Client, path: Path) -> str:
        def blocks() -> Iterator[bytes]:
            with path.open("rb") as file:
                while data := file.read(1 << 20):
                    yield data

        return str(client.upload(blocks(), path.stat().st_size)["id"])

    def _follow_there(self, live: Live, node: str, id: str) -> Change:
        """Tell what a change there tells, to its end. Raises what it failed with; ``Temporary`` when it stays away."""
        told = 0
        away: float | None = None
        while not self.loop.stopping:
            try:
                with self._api_of(node).open("GET", f"/v1/changes/{id}", query={"wait": 10}, patience=40.0) as answer:
                    found = msgspec.json.decode(answer.body(), type=Change)
            except (NotFound, InvalidInput):
                raise
            except AlveoleError as error:
                away = away or time.monotonic()
                if time.monotonic() - away > _AWAY_SECONDS:
                    raise Temporary(
                        f"{node} went away: {error}", field="node", hint=f"what was begun there is its change {id}"
                    ) from None
                live.show(f"waits for {node}")
                self.loop.pause(1.0)
                continue
            away = None
            for event in found.events[told:]:
                live.say(event.text, level=event.level, resource=event.resource, seconds=event.seconds)
            told = len(found.events)
            if found.state is ChangeState.FAILED:
                raise Refused(problems=found.problems or (Problem("", "it failed there"),))
            if found.state is ChangeState.DONE:
                return found
        raise Temporary("control is being stopped")


def _check_where(host: str) -> None:
    import re

    if not re.match(fleet.HOST, host):
        raise InvalidInput(f"{host[:80]!r} is no name or address of a machine", field="host")


def _signer_name(domain: str) -> str:
    """Under which name a node knows the one that drives it."""
    return ("main-" + domain.replace(".", "-"))[:40].rstrip("-")


def _settings_there(line: Line) -> config.Settings:
    """The settings file of the node, read as this machine reads its own."""
    text = line.run(("cat", "--", line.node.config))
    try:
        return config.parse(tomllib.loads(text), line.node.config)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{line.node.config} there is not TOML: {error}", field="config") from None
